"""Shared by the tests of the Kalshi adapter: recordings, a clock, a cheap signer, a client over a mock transport."""

import os
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mm.domain.numbers import Micros
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import load_signer

REST_URL = "https://venue.test/trade-api/v2"
WS_URL = "wss://ws.venue.test/trade-api/ws/v2"


@pytest.fixture(name="recordings")
def _recordings():
    """The folder of a recording by name; skips when it is absent."""
    root = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[4] / "shared" / "data"))

    def folder(name):
        path = root / name
        if not path.is_dir():
            pytest.skip(f"no recording {name} (see MM_RECORDINGS)")
        return path

    return folder


@pytest.fixture(scope="session", name="signer")
def _signer():
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return load_signer("test-key", pem.decode())


@pytest.fixture(name="open_client")
def _open_client(signer):
    """An exchange whose requests are answered by `handler(request) -> Response`."""

    @asynccontextmanager
    async def open_client(handler, *, clock=lambda: Micros(1_795_400_000_000_000), subaccount=0):
        async def refuse(host, port):
            raise OSError("no socket here")

        async with open_kalshi(
            kalshi_options(REST_URL, WS_URL, subaccount=subaccount),
            signer,
            clock=clock,
            randomness=None,
            connect=refuse,
            transport=httpx.MockTransport(handler),
        ) as exchange:
            yield exchange

    return open_client

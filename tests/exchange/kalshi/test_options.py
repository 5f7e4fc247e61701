"""Addresses: what may be plain, and what an account is called."""

import pytest

from mm.domain.errors import ConfigError
from mm.exchange.kalshi.options import kalshi_options

REST = "https://external-api.kalshi.com/trade-api/v2"
WS = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"


def test_addresses_are_taken_apart():
    """Host, port and path, each where it is used."""
    options = kalshi_options(REST + "/", "ws://127.0.0.1:8123/trade-api/ws/v2")

    assert options.rest.url == REST
    assert options.rest.port == 443
    assert options.ws.netloc == "127.0.0.1:8123"
    assert not options.ws.is_secure


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.3.2.1"])
def test_plain_is_allowed_on_loopback(host):
    """The embedded exchange speaks plain http and ws."""
    options = kalshi_options(f"http://{host}/trade-api/v2", f"ws://{host}/trade-api/ws/v2")

    assert options.rest.netloc == host


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1", "localhost.example.com", "127.0.0.1.nip.io"])
def test_plain_is_refused_elsewhere(host):
    """A key's signatures never leave this machine in the clear; both settings are named at once."""
    with pytest.raises(ConfigError) as caught:
        kalshi_options(f"http://{host}/trade-api/v2", f"ws://{host}/ws")

    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "KALSHI_REST_URL",
        "KALSHI_WS_URL",
    ]


@pytest.mark.parametrize(
    "url", ["", "kalshi.com", "ftp://x", "https://", "https://u:p@x/y", "https://x/?q", "https://x:99999/"]
)
def test_what_is_no_address(url):
    """Refused by the name of the setting; a password in it is not repeated."""
    with pytest.raises(ConfigError) as caught:
        kalshi_options(url, WS)

    assert "KALSHI_REST_URL" in str(caught.value)
    assert "u:p" not in str(caught.value)

"""Signatures and the clock window: who is asking. Also makes the throw-away key of a start."""

import os
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from mm.domain.numbers import SECOND, Micros
from mm.exchange.embedded.server.errors import ApiError

KEY_HEADER: Final = "kalshi-access-key"
TIMESTAMP_HEADER: Final = "kalshi-access-timestamp"
SIGNATURE_HEADER: Final = "kalshi-access-signature"

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@attrs.frozen(kw_only=True)
class ApiKey:
    """A key that the exchange knows, and whose it is."""

    key_id: str
    user_id: str
    public_key: PublicKey = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ClockWindow:
    """Which timestamps pass, in seconds relative to the exchange's clock. The real width is not documented."""

    oldest_s: float = -20.0
    newest_s: float = 60.0


@attrs.define(eq=False, kw_only=True)
class Authenticator:
    """Verifies the three headers of a request."""

    clock: Callable[[], Micros]
    keys: dict[str, ApiKey] = attrs.field(factory=dict)
    window: ClockWindow = attrs.field(factory=ClockWindow)
    pss_salt_length: int = 32
    """32 on the real exchange; 0 in a simulation, where a random salt would change the bytes of every run."""

    def add(self, key: ApiKey) -> None:
        """Make a key known."""
        self.keys[key.key_id] = key

    def keys_of(self, user_id: str) -> list[str]:
        """The ids of a member's keys."""
        return [key.key_id for key in self.keys.values() if key.user_id == user_id]

    def user_of(self, method: str, raw_path: str, headers: Mapping[str, str]) -> str:
        """The user who signed this request. Raises `ApiError` (401) with the exchange's own words."""
        key_id = headers.get(KEY_HEADER, "")
        timestamp = headers.get(TIMESTAMP_HEADER, "")
        signature = headers.get(SIGNATURE_HEADER, "")
        if not signature:
            raise _missing("signature_is_missing_from_headers")
        # Only the missing signature was ever recorded; the other two are named in its manner.
        if not key_id:
            raise _missing("key_is_missing_from_headers")
        if not timestamp:
            raise _missing("timestamp_is_missing_from_headers")
        self._check_time(timestamp)
        key = self.keys.get(key_id)
        if key is None:
            raise _refused("NOT_FOUND")
        text = f"{timestamp}{method}{raw_path}".encode("latin-1")
        if not self._verifies(key.public_key, signature, text):
            raise _refused("INCORRECT_API_KEY_SIGNATURE")
        return key.user_id

    def _check_time(self, timestamp: str) -> None:
        is_number = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15
        skew = int(timestamp) * 1_000 - self.clock() if is_number else None
        if skew is None or not self.window.oldest_s * SECOND <= skew <= self.window.newest_s * SECOND:
            raise _missing("header_timestamp_expired")

    def _verifies(self, key: PublicKey, signature: str, text: bytes) -> bool:
        try:
            raw = b64decode(signature, validate=True)
        except (BadBase64, ValueError):
            return False
        try:
            if isinstance(key, rsa.RSAPublicKey):
                pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=self.pss_salt_length)
                key.verify(raw, text, pss, hashes.SHA256())
            else:
                key.verify(raw, text)
        except InvalidSignature:
            return False
        return True


def _missing(code: str) -> ApiError:
    return ApiError(401, code, message=code.replace("_", " "))


def _refused(details: str) -> ApiError:
    return ApiError(401, "authentication_error", message="authentication_error", details=details)


@attrs.frozen(kw_only=True)
class KeyPair:
    """A key made for one start: its id, where the private half lies, and the public half."""

    key_id: str
    private_key_path: Path
    public_key: PublicKey = attrs.field(repr=False)


def make_keypair(directory: Path, key_id: str, *, kind: str = "rsa") -> KeyPair:
    """Write a new private key (`rsa`: 2048 bit, or `ed25519`) as PEM, readable by its owner only.

    Blocks for the generation of the key (tens to hundreds of ms). Raises `OSError` when the file cannot be written.
    """
    key: PrivateKey
    if kind == "rsa":
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    path = directory / f"kalshi-twin-{key_id}.pem"
    write_private_key(path, key)
    return KeyPair(key_id=key_id, private_key_path=path, public_key=key.public_key())


def write_private_key(path: Path, key: PrivateKey) -> None:
    """Write the key as unencrypted PKCS#8 PEM with mode 0600. The file must not exist."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)

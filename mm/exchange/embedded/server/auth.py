"""Signatures and the clock window: who is asking. Also makes the throw-away key of a start."""

import os
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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
    name: str = ""
    scopes: tuple[str, ...] = ("read", "write")
    subaccount: int | None = None
    """The only subaccount it may act for; None: all of the member's."""

    def may(self, scope: str) -> bool:
        """Whether it may `read`, or `write::trade`: a child scope is there when its parent is."""
        return scope in self.scopes or scope.partition("::")[0] in self.scopes


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
    skew: Micros = Micros(0)
    """How far our clock is ahead of the members', on purpose (a fault)."""
    pss_salt_length: int = 32
    """32 on the real exchange; 0 in a simulation, where a random salt would change the bytes of every run."""

    def add(self, key: ApiKey) -> None:
        """Make a key known."""
        self.keys[key.key_id] = key

    def keys_of(self, user_id: str) -> list[ApiKey]:
        """A member's keys, oldest first."""
        return [key for key in self.keys.values() if key.user_id == user_id]

    def remove(self, key_id: str) -> None:
        """Make a key unknown; what it has opened stays open."""
        self.keys.pop(key_id, None)

    def key_of(self, method: str, raw_path: str, headers: Mapping[str, str]) -> ApiKey:
        """The key that signed this request. Raises `ApiError` (401) with the exchange's own words."""
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
        return key

    def _check_time(self, timestamp: str) -> None:
        is_number = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15
        skew = int(timestamp) * 1_000 - self.clock() - self.skew if is_number else None
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


def public_pem(text: str) -> PublicKey:
    """A member's own public key. Raises `ValueError` when the text is no RSA or Ed25519 public key."""
    try:
        key = serialization.load_pem_public_key(text.encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a PEM public key") from None
    if not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise ValueError("neither an RSA nor an Ed25519 key")
    return key


def private_pem(kind: str) -> tuple[str, PublicKey]:
    """A new private key as PEM (`rsa`: 2048 bit, or `ed25519`) and its public half. Blocks for the generation."""
    key = _new_key(kind)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode("ascii"), key.public_key()


def _new_key(kind: str) -> PrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return ed25519.Ed25519PrivateKey.generate()


def make_keypair(directory: Path, key_id: str, *, kind: str = "rsa") -> KeyPair:
    """Write a new private key (`rsa`: 2048 bit, or `ed25519`) as PEM, readable by its owner only.

    Blocks for the generation of the key (tens to hundreds of ms). Raises `OSError` when the file cannot be written.
    """
    key = _new_key(kind)
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

"""Signatures of Kalshi's requests: RSA-PSS with SHA-256, or Ed25519, whichever key the PEM holds.

Signed is timestamp (milliseconds) + METHOD + path from the root, without the query. Nothing here is ever printed:
keys have no repr, and an unusable PEM is told by the name of its setting, never by its content.

The guardian loads this module and has to stay small: without attrs, and with the PEM parser (3 MB with what it brings
along) loaded only by whoever reads a PEM. It gets the key from the bot in a form that needs no parser.
"""

import base64
import json
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from mm.domain.errors import ConfigError
from mm.domain.numbers import Micros

KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"
SALT_LENGTH: Final = 32
"""The salt of RSA-PSS as the venue wants it: the length of the digest."""


class Signer(Protocol):
    """Holds a key and signs with it."""

    @property
    def key_id(self) -> str:
        """The public name of the key."""

    def sign(self, text: bytes) -> bytes:
        """The signature over `text`. CPU only (about half a millisecond for RSA-2048)."""


class RsaSigner:
    """RSA-PSS, SHA-256, MGF1 with SHA-256.

    Args:
        salt_length: 0 makes signatures repeatable for simulation; still valid RSA-PSS, but not what the real venue
            takes.
    """

    def __init__(self, key_id: str, key: rsa.RSAPrivateKey, salt_length: int = SALT_LENGTH) -> None:
        self.key_id = key_id
        self.salt_length = salt_length
        self._key = key

    def sign(self, text: bytes) -> bytes:
        """See `Signer`."""
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=self.salt_length)
        return self._key.sign(text, pss, hashes.SHA256())

    def __repr__(self) -> str:
        return f"RsaSigner({self.key_id!r})"


class Ed25519Signer:
    """Plain Ed25519."""

    def __init__(self, key_id: str, key: ed25519.Ed25519PrivateKey) -> None:
        self.key_id = key_id
        self._key = key

    def sign(self, text: bytes) -> bytes:
        """See `Signer`."""
        return self._key.sign(text)

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.key_id!r})"


def load_signer(
    key_id: str, pem: str, *, setting: str = "KALSHI_API_SECRET", salt_length: int = SALT_LENGTH
) -> Signer:
    """A signer for a PEM private key (PKCS#8, or PKCS#1 for RSA). A literal backslash-n counts as a line break.

    Args:
        key_id: The venue's id of the key.
        pem: The text of the key.
        setting: The name of the setting that held it, for messages.
        salt_length: See `RsaSigner`.

    Raises:
        ConfigError: No usable key; names the setting and the kind of trouble, never the content.
    """
    problems = [] if key_id.strip() else ["KALSHI_API_KEY: the id of the key is empty"]
    key = _read_pem(pem, setting, problems)
    if problems:
        raise ConfigError(problems)
    if isinstance(key, rsa.RSAPrivateKey):
        return RsaSigner(key_id.strip(), key, salt_length)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return Ed25519Signer(key_id.strip(), key)


def portable_key(pem: str, *, setting: str = "KALSHI_API_SECRET") -> str:
    """The key as text that `load_handed_over` reads without a parser. As secret as the PEM. Raises `ConfigError`."""
    problems: list[str] = []
    key = _read_pem(pem, setting, problems)
    if problems:
        raise ConfigError(problems)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        parts = (
            numbers.p,
            numbers.q,
            numbers.d,
            numbers.dmp1,
            numbers.dmq1,
            numbers.iqmp,
            public.e,
            public.n,
        )
        return json.dumps({"rsa": [f"{part:x}" for part in parts]})
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return json.dumps({"ed25519": key.private_bytes_raw().hex()})


def load_handed_over(key_id: str, text: str) -> Signer:
    """A signer for what `portable_key` wrote, or for a PEM. Raises `ConfigError`."""
    setting = "the key that the bot handed over"
    if not text.startswith("{"):
        return load_signer(key_id, text, setting=setting)
    try:
        found = json.loads(text)
        if "ed25519" in found:
            raw = bytes.fromhex(found["ed25519"])
            return Ed25519Signer(key_id, ed25519.Ed25519PrivateKey.from_private_bytes(raw))
        p, q, d, dmp1, dmq1, iqmp, e, n = (int(part, 16) for part in found["rsa"])
        public = rsa.RSAPublicNumbers(e, n)
        return RsaSigner(key_id, rsa.RSAPrivateNumbers(p, q, d, dmp1, dmq1, iqmp, public).private_key())
    except (ValueError, KeyError, TypeError):
        raise ConfigError([f"{setting} cannot be read"]) from None


def _read_pem(pem: str, setting: str, problems: list[str]) -> object:
    """The key, or None with what is wrong added to `problems`."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = pem.strip().strip("\"'").replace("\\r", "").replace("\\n", "\n").strip()
    key: object = None
    if not text:
        problems.append(f"{setting}: no private key")
    else:
        try:
            key = load_pem_private_key(text.encode(), password=None)
        except TypeError:
            problems.append(f"{setting}: the private key is encrypted; a key without passphrase is needed")
        except (ValueError, UnsupportedAlgorithm):
            problems.append(f"{setting}: not a PEM private key (RSA or Ed25519) that can be read")
    if key is not None and not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        problems.append(f"{setting}: the private key is neither RSA nor Ed25519")
    return key


def signed_headers(signer: Signer, now: Micros, method: str, path: str) -> list[tuple[str, str]]:
    """The three headers of one request. `path` is the full path from the root; a query in it is not signed."""
    timestamp = str(now // 1000)
    text = f"{timestamp}{method.upper()}{path.partition('?')[0]}"
    signature = base64.b64encode(signer.sign(text.encode())).decode()
    return [
        (KEY_HEADER, signer.key_id),
        (TIMESTAMP_HEADER, timestamp),
        (SIGNATURE_HEADER, signature),
    ]

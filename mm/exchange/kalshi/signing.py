"""Signatures of Kalshi's requests: RSA-PSS with SHA-256, or Ed25519, whichever key the PEM holds.

Signed is timestamp (milliseconds) + METHOD + path from the root, without the query. Nothing here is ever printed:
keys have no repr, and an unusable PEM is told by the name of its setting, never by its content.
"""

import base64
from typing import Final, Protocol

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

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


@attrs.frozen
class RsaSigner:
    """RSA-PSS, SHA-256, MGF1 with SHA-256."""

    key_id: str
    _key: rsa.RSAPrivateKey = attrs.field(repr=False)
    salt_length: int = SALT_LENGTH
    """0 makes signatures repeatable for simulation; still valid RSA-PSS, but not what the real venue takes."""

    def sign(self, text: bytes) -> bytes:
        """See `Signer`."""
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=self.salt_length)
        return self._key.sign(text, pss, hashes.SHA256())


@attrs.frozen
class Ed25519Signer:
    """Plain Ed25519."""

    key_id: str
    _key: ed25519.Ed25519PrivateKey = attrs.field(repr=False)

    def sign(self, text: bytes) -> bytes:
        """See `Signer`."""
        return self._key.sign(text)


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
    problems = []
    if not key_id.strip():
        problems.append("KALSHI_API_KEY: the id of the key is empty")
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
    if problems:
        raise ConfigError(problems)
    if isinstance(key, rsa.RSAPrivateKey):
        return RsaSigner(key_id.strip(), key, salt_length)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return Ed25519Signer(key_id.strip(), key)


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

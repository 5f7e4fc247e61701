"""Signatures are checked with the public key, as the venue would."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from mm.domain.errors import ConfigError
from mm.domain.numbers import Micros
from mm.exchange.kalshi.signing import load_handed_over, load_signer, portable_key, signed_headers

NOW = Micros(1_795_400_000_123_456)
PATH = "/trade-api/v2/portfolio/events/orders/7c0"
SECRET_LINE = "c2VjcmV0LXRoYXQtbXVzdC1uZXZlci1zaG93"


@pytest.fixture(scope="module", name="rsa_key")
def _rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key, form=serialization.PrivateFormat.PKCS8, encryption=None):
    encryption = encryption or serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def verify_rsa(key, signature, text, salt_length):
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=salt_length)
    key.public_key().verify(signature, text, pss, hashes.SHA256())


def test_rsa_signs_timestamp_method_and_path_without_query(rsa_key):
    """What is signed is milliseconds, upper-case method and the path up to its query."""
    signer = load_signer("key-1", pem_of(rsa_key))

    headers = dict(signed_headers(signer, NOW, "delete", PATH + "?exchange_index=0"))

    assert headers["KALSHI-ACCESS-KEY"] == "key-1"
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1795400000123"
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
    verify_rsa(rsa_key, signature, f"1795400000123DELETE{PATH}".encode(), 32)
    with pytest.raises(InvalidSignature):
        verify_rsa(rsa_key, signature, f"1795400000123DELETE{PATH}?exchange_index=0".encode(), 32)


def test_rsa_with_salt_length_zero_is_repeatable_and_valid(rsa_key):
    """Simulation needs the same bytes twice; the real salt gives other bytes each time."""
    signer = load_signer("k", pem_of(rsa_key), salt_length=0)
    real = load_signer("k", pem_of(rsa_key))

    assert signer.sign(b"text") == signer.sign(b"text")
    assert real.sign(b"text") != real.sign(b"text")
    verify_rsa(rsa_key, signer.sign(b"text"), b"text", 0)


def test_ed25519_is_recognised_from_the_pem():
    """The kind of key is read from the PEM alone."""
    key = ed25519.Ed25519PrivateKey.generate()
    signer = load_signer("key-2", pem_of(key))

    headers = dict(signed_headers(signer, NOW, "GET", PATH))

    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"])
    key.public_key().verify(signature, f"1795400000123GET{PATH}".encode())


@pytest.mark.parametrize(
    "spell",
    [
        lambda pem: pem,
        lambda pem: pem.replace("\n", "\\n"),
        lambda pem: '"' + pem.strip().replace("\n", "\\n") + '"',
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: "  \n" + pem + "\n\n",
    ],
    ids=["plain", "literal-backslash-n", "quoted", "crlf", "padded"],
)
def test_spellings_of_a_pem_in_an_env_file(rsa_key, spell):
    """All ways in which people put a PEM into one line of an .env file are read."""
    signer = load_signer("k", spell(pem_of(rsa_key, serialization.PrivateFormat.TraditionalOpenSSL)))

    verify_rsa(rsa_key, signer.sign(b"x"), b"x", 32)


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "not a key",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET_LINE}\n-----END PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET_LINE}",
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(
            ed25519.Ed25519PrivateKey.generate(),
            encryption=serialization.BestAvailableEncryption(b"passphrase"),
        ),
    ],
    ids=["empty", "text", "garbage", "cut", "elliptic", "encrypted"],
)
def test_an_unusable_pem_names_the_setting_and_never_its_content(pem):
    """A bad key is a problem of a named setting; not one line of it is shown."""
    with pytest.raises(ConfigError) as caught:
        load_signer("k", pem, setting="KALSHI_PRIVATE_KEY_PATH")

    assert caught.value.problems[0].startswith("KALSHI_PRIVATE_KEY_PATH: ")
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    shown = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    assert not any(line in shown for line in lines)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_key_id_and_pem_problems_are_reported_together():
    """Every problem at once, not the first one."""
    with pytest.raises(ConfigError) as caught:
        load_signer(" ", "")

    assert len(caught.value.problems) == 2


def test_a_signer_shows_no_secret(rsa_key):
    """The repr of a signer holds its public id only."""
    shown = repr(load_signer("key-1", pem_of(rsa_key)))

    assert "key-1" in shown
    assert "PrivateKey" not in shown


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_key_handed_over_signs_as_the_pem_does(rsa_key, kind):
    """Without a parser at the other end; both keys verify each other's signatures."""
    key = rsa_key if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    text = portable_key(pem_of(key))
    signer = load_handed_over("key-1", text)
    signature = signer.sign(b"text")

    assert (signer.key_id, "BEGIN" in text, repr(signer).count("key-1")) == ("key-1", False, 1)
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        key.public_key().verify(signature, b"text", pss, hashes.SHA256())
    else:
        key.public_key().verify(signature, b"text")
    assert load_handed_over("key-1", pem_of(key)).sign(b"text")


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"rsa": ["1", "2"]}', '{"rsa": [1]}', '{"ed25519": "00"}', "[]"]
)
def test_a_damaged_key_handed_over_is_refused_without_showing_it(text):
    with pytest.raises(ConfigError) as caught:
        load_handed_over("key-1", text)
    assert "handed over" in str(caught.value)
    assert caught.value.__cause__ is None

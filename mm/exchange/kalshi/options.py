"""What a Kalshi client must be told: where, as whom, and how patient it is. No connection is made here."""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

import attrs
import trio

from mm.domain.errors import ConfigError
from mm.domain.numbers import Micros

Clock = Callable[[], Micros]
"""The wall clock."""
Connect = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to (host, port), without TLS. Raises `OSError` or a trio resource error when it cannot."""


Tap = Callable[[int, Sequence["str | bytes"], Micros], None]
"""Is shown the frames of each read before they are read: number of the connection, frames, our clock. Must be quick."""


class Randomness(Protocol):
    """What is needed of a `random.Random`."""

    def random(self) -> float:
        """Uniform in [0, 1)."""


_SECURE: Final = {"http": False, "ws": False, "https": True, "wss": True}
_PORTS: Final = {False: 80, True: 443}


@attrs.frozen
class Address:
    """A URL taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    """From the root, without a slash at its end."""

    @property
    def is_secure(self) -> bool:
        """TLS."""
        return _SECURE[self.scheme]

    @property
    def netloc(self) -> str:
        """Host, with the port where it is not the scheme's own, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.is_secure] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL put together again."""
        return f"{self.scheme}://{self.netloc}{self.path}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name; no look-up is made."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_address(url: str, schemes: tuple[str, str], setting: str) -> Address:
    """A URL with one of `schemes` (plain, secure). Raises `ConfigError`; plain only on loopback."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ConfigError([f"{setting}: not a URL"]) from None
    if parts.scheme not in schemes or not parts.hostname:
        raise ConfigError([f"{setting}: {schemes[0]}:// or {schemes[1]}:// and a host are needed"])
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError([f"{setting}: no user, query or fragment may stand in it"])
    if not _SECURE[parts.scheme] and not is_loopback(parts.hostname):
        raise ConfigError([f"{setting}: {parts.scheme}:// is allowed on loopback only, use {schemes[1]}://"])
    return Address(
        parts.scheme, parts.hostname, port or _PORTS[_SECURE[parts.scheme]], parts.path.rstrip("/")
    )


@attrs.frozen(kw_only=True)
class KalshiOptions:
    """Where and as whom. All times are seconds.

    A silent socket is found within `silence_s` of its last sign of life, which leaves the rest of the 4 seconds for
    pulling the quotes.
    """

    rest: Address
    ws: Address
    subaccount: int = 0
    request_deadline_s: float = 4.0
    connect_timeout_s: float = 3.0
    """Shorter than the deadline, so that "never connected" can be told from "no answer"."""
    handshake_timeout_s: float = 4.0
    ping_every_s: float = 2.0
    silence_s: float = 3.5
    backoff_first_s: float = 0.2
    backoff_cap_s: float = 3.0
    healthy_after_s: float = 5.0
    """A connection that lived this long starts the backoff anew."""
    use_yes_price: bool = True
    """Ask for both sides of the book in YES price; with False NO levels come in NO price. Both are understood."""


def kalshi_options(rest_url: str, ws_url: str, *, subaccount: int = 0) -> KalshiOptions:
    """Options from two URLs. Raises `ConfigError` with every problem in them."""
    problems: list[str] = []
    found: list[Address] = []
    for url, schemes, setting in (
        (rest_url, ("http", "https"), "KALSHI_REST_URL"),
        (ws_url, ("ws", "wss"), "KALSHI_WS_URL"),
    ):
        try:
            found.append(parse_address(url, schemes, setting))
        except ConfigError as error:
            problems.extend(error.problems)
    if not 0 <= subaccount <= 63:
        problems.append(f"subaccount {subaccount}: allowed are 0 to 63")
    if problems:
        raise ConfigError(problems)
    return KalshiOptions(rest=found[0], ws=found[1], subaccount=subaccount)

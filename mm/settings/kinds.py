"""How the text of a setting becomes a value: one function for each kind of setting.

Each returns the value or raises `ValueError` saying what is allowed. Nothing here knows the name of a setting.
"""

import datetime as dt
import enum
import ipaddress
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from mm.domain.tickers import parse_date_token
from mm.engine.risk.guards import Measure, Steps, parse_steps

REDACTED: Final = "***"


class Environment(enum.Enum):
    """Where data comes from; orders go there too, or stay on paper (`LIVE_TRADING_ENABLED`)."""

    SIM = "sim"
    DEMO = "demo"
    PROD = "prod"


@attrs.frozen(repr=False)
class Secret:
    """A value that is never printed, logged or shown in a traceback. `reveal` hands it to the one who needs it."""

    _value: str

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({REDACTED})" if self._value else "Secret(empty)"


def boolean(text: str) -> bool:
    """true/false in the usual spellings."""
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on", "y", "t"):
        return True
    if word in ("false", "0", "no", "off", "n", "f", ""):
        return False
    raise ValueError("true or false")


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number in low..high."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"a whole number, {low} to {high}") from None
        if not low <= value <= high:
            raise ValueError(f"a whole number, {low} to {high}")
        return value

    return parse


def auto_or(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """`auto`, which is None, or what `parse` takes."""

    def parse_either(text: str) -> int | None:
        if text.strip().lower() == "auto":
            return None
        try:
            return parse(text)
        except ValueError as exc:
            raise ValueError(f"auto, or {exc}") from None

    return parse_either


def number(low: str, high: str) -> Callable[[str], Decimal]:
    """A decimal number in low..high, exactly as written."""

    def parse(text: str) -> Decimal:
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise ValueError(f"a number, {low} to {high}") from None
        if not value.is_finite() or not Decimal(low) <= value <= Decimal(high):
            raise ValueError(f"a number, {low} to {high}")
        return value

    return parse


def optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same, or None where the text is empty."""
    return lambda text: parse(text) if text.strip() else None


def is_key_text(value: str) -> bool:
    """A private key, put where something else belongs."""
    return "-----BEGIN" in value


def text(value: str) -> str:
    """Any text, without the blanks around it, save a private key: that would be shown."""
    if is_key_text(value):
        raise ValueError("something else: the private key itself goes into KALSHI_API_SECRET")
    return value.strip()


def secret(value: str) -> Secret:
    """Any text, kept out of sight."""
    return Secret(value.strip())


def environment(value: str) -> Environment:
    """sim, demo or prod."""
    try:
        return Environment(value.strip().lower())
    except ValueError:
        raise ValueError("sim, demo or prod") from None


def choice(*words: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError(" or ".join(words))
        return word

    return parse


EVERYTHING: Final = "*"
"""As the only series: the whole venue."""


def tickers(value: str) -> tuple[str, ...]:
    """A comma separated list of series tickers, or `*` for the whole venue."""
    if value.strip() == EVERYTHING:
        return (EVERYTHING,)
    found = tuple(dict.fromkeys(part.strip().upper() for part in value.split(",") if part.strip()))
    if not found or not all(part.isascii() and part.isalnum() for part in found):
        raise ValueError("series tickers separated by commas, such as KXNHLGAME,KXNBAGAME, or * for all")
    return found


def series_list(value: str) -> frozenset[str]:
    """The same, or none."""
    return frozenset(tickers(value)) if value.strip() else frozenset()


def bot_name(value: str) -> str:
    """The prefix of our order ids."""
    name = value.strip()
    if not name or len(name) > 16 or not name.isascii() or not name.replace("_", "").isalnum():
        raise ValueError("1 to 16 letters, digits or _")
    return name


def market_date(value: str) -> dt.date | str:
    """`today`, `any`, or a date token."""
    word = value.strip()
    if word.lower() in ("today", "any"):
        return word.lower()
    try:
        return parse_date_token(word.upper())
    except ValueError:
        raise ValueError("today, any, or a token such as 26MAY13") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(secure: str, plain: str) -> Callable[[str], str]:
    """An absolute URL; the plain scheme on loopback only. Empty means: chosen by KALSHI_ENV."""
    hint = f"an absolute {secure}:// URL ({plain}:// on loopback only)"

    def parse(value: str) -> str:
        found = value.strip().rstrip("/")
        if not found:
            return ""
        parts = urlsplit(found)
        if not parts.hostname or parts.scheme not in (secure, plain):
            raise ValueError(hint)
        if parts.scheme == plain and not _is_loopback(parts.hostname):
            raise ValueError(hint)
        return found

    return parse


def webhook(value: str) -> Secret:
    """An https URL (http on loopback only), kept out of sight."""
    try:
        return Secret(url("https", "http")(value))
    except ValueError:
        raise ValueError("an https:// URL (http:// on loopback only)") from None


CHANNELS: Final = ("discord", "slack", "telegram", "webhook", "email")
"""Ways to people, as ALERT_ROUTES names them."""
SEVERITIES: Final = ("info", "warning", "critical")


def alert_routes(value: str) -> dict[str, str]:
    """From which severity on each channel is told; a channel that is not named is told everything, e-mail warnings."""
    found = dict.fromkeys(CHANNELS, "info") | {"email": "warning"}
    for part in value.split(","):
        if not part.strip():
            continue
        channel, _, floor = (word.strip().lower() for word in part.partition("="))
        if channel not in CHANNELS or floor not in SEVERITIES:
            raise ValueError(
                f"channel=severity, comma separated; channels: {', '.join(CHANNELS)}; "
                f"severities: {', '.join(SEVERITIES)}"
            )
        found[channel] = floor
    return found


def mail_address(value: str) -> str:
    """One mail address without a name, or empty."""
    word = value.strip()
    user, at, host = word.rpartition("@")
    if word and (not at or not user or not host or not word.isprintable() or set(word) & set(" ,;<>")):
        raise ValueError("an address such as bot@example.org, or empty")
    return word


def mail_addresses(value: str) -> tuple[str, ...]:
    """Mail addresses, comma separated; may be empty."""
    return tuple(mail_address(part) for part in value.split(",") if part.strip())


def mail_server(value: str) -> tuple[str, int] | None:
    """host:port; empty: none."""
    word = value.strip()
    host, colon, port = word.rpartition(":")
    if word and (not colon or not host or not port.isdigit() or not 0 < int(port) < 65_536):
        raise ValueError("host:port, such as smtp.example.org:465, or empty")
    return (host.strip("[]"), int(port)) if word else None


def web_address(value: str) -> str:
    """host:port, or off."""
    word = value.strip()
    if word.lower() == "off":
        return "off"
    host, colon, port = word.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError("host:port, such as 127.0.0.1:8750, or off")
    return word


def host_names(value: str) -> frozenset[str]:
    """A comma separated list of host names, lower case; may be empty."""
    found = frozenset(part.strip().lower() for part in value.split(",") if part.strip())
    if not all(name.isascii() and name.replace("-", "").replace(".", "").isalnum() for name in found):
        raise ValueError("host names separated by commas, without scheme and port, such as bot,mm.lan")
    return found


def guard_steps(measure: Measure) -> Callable[[str], Steps]:
    """Steps of a guard, such as `20:widen,40:pull`."""
    return lambda value: parse_steps(value, measure)


def folder(value: str) -> Path | None:
    """A folder; empty means the platform's user data folder."""
    return Path(value.strip()).expanduser() if value.strip() else None

"""Every setting of the bot that is not a strategy parameter: name, default, unit, range and what it does.

The strategy's own parameters stand in `mm.engine.parameters`, in a table of the same shape; the documentation and the
loader read both.
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


@attrs.frozen(kw_only=True)
class Setting:
    """One setting. `parse` turns its text into a value or raises `ValueError` saying what is allowed."""

    name: str
    default: str
    parse: Callable[[str], Any]
    unit: str
    allowed: str
    effect: str
    is_secret: bool = False
    is_live: bool = False
    """May change while the bot runs (SIGHUP)."""


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


def _setting(
    name: str,
    default: str,
    parse: Callable[[str], Any],
    allowed: str,
    effect: str,
    unit: str = "",
    is_secret: bool = False,
    is_live: bool = False,
) -> Setting:
    return Setting(
        name=name,
        default=default,
        parse=parse,
        unit=unit,
        allowed=allowed,
        effect=effect,
        is_secret=is_secret,
        is_live=is_live,
    )


_ROWS: Final = (
    _setting("KALSHI_ENV", "sim", environment, "sim, demo, prod", "where data comes from, and orders go"),
    _setting(
        "LIVE_TRADING_ENABLED",
        "false",
        boolean,
        "true, false",
        "false: orders stay on paper (in sim the embedded exchange takes them either way)",
    ),
    _setting("KALSHI_API_KEY", "", text, "a key id (UUID)", "the API key's id"),
    _setting(
        "KALSHI_API_SECRET",
        "",
        secret,
        "a PEM private key, \\n allowed",
        "the API key's private half",
        is_secret=True,
    ),
    _setting("KALSHI_PRIVATE_KEY_PATH", "", text, "a readable PEM file", "the same, as a file"),
    _setting(
        "KALSHI_REST_URL",
        "",
        url("https", "http"),
        "URL ending in /trade-api/v2",
        "REST address instead of the venue's",
    ),
    _setting(
        "KALSHI_WS_URL",
        "",
        url("wss", "ws"),
        "URL ending in /trade-api/ws/v2",
        "WebSocket address instead of the venue's",
    ),
    _setting(
        "SIGN_AHEAD",
        "true",
        boolean,
        "true, false",
        "signatures of orders are made ahead, up to 4 s before they are sent; false: each when it is sent",
    ),
    _setting(
        "SIGN_AHEAD",
        "true",
        boolean,
        "true, false",
        "signatures of orders are made ahead, up to 4 s before they are sent; false: each when it is sent",
    ),
    _setting(
        "BOT_NAME",
        "mm",
        bot_name,
        "1-16 letters, digits, _",
        "prefix of our order ids: what the sweeps call ours",
    ),
    _setting(
        "SERIES_TICKER",
        "KXNHLGAME",
        tickers,
        "comma separated, or *",
        "the series whose markets are quoted; *: the whole venue, what is worth most per write token (docs/breadth.md)",
    ),
    _setting(
        "MARKET_DATE",
        "today",
        market_date,
        "today, any, 26MAY13",
        "which games are added (US Eastern date in the ticker)",
    ),
    _setting("DISCORD_WEBHOOK_URL", "", webhook, "https URL or empty", "alerts to Discord", is_secret=True),
    _setting("SLACK_WEBHOOK_URL", "", webhook, "https URL or empty", "alerts to Slack", is_secret=True),
    _setting(
        "TELEGRAM_BOT_TOKEN", "", secret, "a bot's token or empty", "alerts to Telegram", is_secret=True
    ),
    _setting(
        "TELEGRAM_CHAT_ID", "", text, "a chat's number or @name", "the chat that the Telegram bot writes to"
    ),
    _setting(
        "ALERT_WEBHOOK_URL",
        "",
        webhook,
        "https URL or empty",
        "alerts as JSON to any receiver (see docs/alerts.md)",
        is_secret=True,
    ),
    _setting("EMAIL_TO", "", mail_addresses, "addresses, comma separated", "alerts by e-mail go there"),
    _setting("EMAIL_FROM", "", mail_address, "an address", "the sender of that e-mail"),
    _setting(
        "SMTP_SERVER",
        "",
        mail_server,
        "host:port or empty",
        "hands the e-mail on: TLS on port 465, STARTTLS on any other",
    ),
    _setting("SMTP_USER", "", text, "a name or empty", "logs in at the mail server"),
    _setting("SMTP_PASSWORD", "", secret, "a password or empty", "the same", is_secret=True),
    _setting(
        "ALERT_ROUTES",
        "",
        alert_routes,
        "such as discord=info,email=critical",
        "from which severity on (info, warning, critical) a channel is told; not named: info, e-mail warning",
        is_live=True,
    ),
    _setting(
        "DAILY_SUMMARY",
        "true",
        boolean,
        "true, false",
        "the day's figures as an alert, when the day ends in US Eastern",
        is_live=True,
    ),
    _setting("MM_DATA_DIR", "", folder, "a folder", "ledger, logs, locks (default: the user data folder)"),
    _setting(
        "QUOTE_TTL_SEC",
        "auto",
        auto_or(integer(10, 3_600)),
        "auto, 10-3600",
        "time to live of every quote, renewed while quoting; auto: 20 to 60 by the event, longer where renewals cost too much",
        "s",
    ),
    _setting(
        "DISABLE_NEW_QUOTES",
        "false",
        boolean,
        "true, false",
        "take part in nothing new: only exits and cancels",
        is_live=True,
    ),
    _setting(
        "RECORD",
        "false",
        boolean,
        "true, false",
        "write every frame of the exchange's socket, and every decision with what it was made from, under "
        "MM_DATA_DIR/recordings, for replay and back-tests",
    ),
    _setting(
        "INCIDENT_MINUTES",
        "10",
        number("0", "240"),
        "0-240",
        "so much of what was decided, and from what, is kept for `mm replay` and goes into an incident bundle; 0: none",
        "min",
    ),
    _setting(
        "INCIDENT_MAX_MB",
        "64",
        integer(1, 4_096),
        "1-4096",
        "most of what is kept for that on disk; a bundle is no larger (but for the log's end)",
        "MB",
    ),
    _setting(
        "INCIDENTS_KEPT",
        "20",
        integer(1, 1_000),
        "1-1000",
        "incident bundles under MM_DATA_DIR/incidents; the oldest goes when there are more",
        "bundles",
    ),
    _setting(
        "WEB_ADDRESS",
        "127.0.0.1:8750",
        web_address,
        "host:port or off",
        "where dashboard and /metrics listen; a taken port is replaced by a free one",
    ),
    _setting(
        "WEB_HOSTS",
        "",
        host_names,
        "names, comma separated",
        "host names by which the dashboard may be asked for besides localhost and IP addresses (a proxy's, a container's)",
    ),
    _setting(
        "NET_ACROSS_MARKETS",
        "false",
        boolean,
        "true, false",
        "the rules see the two markets of a game as one position: state, skew, adverse excursion, duration",
    ),
    _setting(
        "EXHAUSTIVE_SERIES",
        "",
        series_list,
        "comma separated, or empty",
        "series of whose events one market is certain to pay: long in all of them is then no risk",
    ),
    _setting(
        "GUARD_DRAWDOWN",
        "",
        guard_steps(Measure.DRAWDOWN),
        "VALUE:REACTION,... or empty",
        "guard on dollars below the best marked result of the day: widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "GUARD_LOSS_RATE",
        "",
        guard_steps(Measure.LOSS_RATE),
        "VALUE:REACTION,... or empty",
        "guard on dollars lost within an hour, marked: widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "GUARD_FILL_RATE",
        "",
        guard_steps(Measure.FILL_RATE),
        "VALUE:REACTION,... or empty",
        "guard on contracts filled within 15 s (a step that pulls also sets the order groups' own limit): widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "GUARD_REJECT_RATE",
        "",
        guard_steps(Measure.REJECT_RATE),
        "VALUE:REACTION,... or empty",
        "guard on orders refused by the exchange within a minute: widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "GUARD_DRIFT",
        "",
        guard_steps(Measure.DRIFT),
        "VALUE:REACTION,... or empty",
        "guard on markets halted because their position differs from the exchange's: widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "GUARD_GROSS",
        "",
        guard_steps(Measure.GROSS),
        "VALUE:REACTION,... or empty",
        "guard on contracts held, gross over all markets: widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "GUARD_NET",
        "",
        guard_steps(Measure.NET),
        "VALUE:REACTION,... or empty",
        "guard on contracts, the sum of all signed positions: widen, reduce-only, pull, flatten, stop; empty: off",
    ),
    _setting(
        "SIM_SPEED",
        "10",
        number("0.1", "1000"),
        "0.1-1000",
        "game clocks of the embedded exchange run this much faster",
        "x",
    ),
    _setting("SIM_SEED", "1", integer(0, 2**63 - 1), "0-2^63", "which games the embedded exchange plays"),
    _setting("SIM_GAMES", "16", integer(1, 500), "1-500", "games of the embedded exchange", "games"),
    _setting(
        "STRATEGY",
        "hybrid",
        text,
        "a name, or NAME,TICKER_PREFIX:NAME,...",
        "what is quoted: hybrid, slow-wide-small, avellaneda-stoikov, join, or a class of your own (docs/strategies.md)",
    ),
    _setting(
        "STRATEGY_PARAMETERS",
        "",
        text,
        "STRATEGY.PARAMETER=VALUE,...",
        "parameters that a strategy has of its own, such as slow-wide-small.cap=30",
    ),
    _setting(
        "FAIR_VALUE",
        "",
        text,
        "empty, mark, mid, micro-price, consensus, slow-prints, external, or your own",
        "where strategies take fair value from; empty: each its own choice",
    ),
    _setting(
        "PROBABILITIES_FILE",
        "",
        text,
        "a JSON file or empty",
        "market ticker to probability, read again when it changes: what FAIR_VALUE=external quotes around",
    ),
    _setting(
        "GOAL_GUARD",
        "off",
        choice("off", "on"),
        "off, on",
        "pulls or widens all quotes of a game when the tape or the scoreboard says that a goal fell (docs/strategies.md)",
    ),
    _setting(
        "I_ACCEPT_UNPROVEN_STRATEGY",
        "",
        text,
        "names, comma separated",
        "lets strategies trade live on prod that have not passed gates 0 to 2 of mm evaluate; all of STRATEGY that have not",
    ),
    _setting(
        "UNPROVEN_SIZE_CAP",
        "5",
        optional(integer(1, 100_000)),
        "1-100000, or empty",
        "largest SIZE_PER_FILL, and twice it the largest position in a market, of such a strategy; empty: no cap",
        "contracts",
    ),
)

RESTART_PARAMETERS: Final[frozenset[str]] = frozenset()
"""Parameters of the strategy that need a restart; all others may change while the bot runs."""

SETTINGS: Final[dict[str, Setting]] = {row.name: row for row in _ROWS}

"""Every setting of the bot that is not a strategy parameter: name, default, unit, range and what it does.

The strategy's own parameters stand in `mm.engine.parameters`, in a table of the same shape; the documentation and the
loader read both.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs

from mm.engine.risk.guards import Measure
from mm.settings.kinds import (
    alert_routes,
    auto_or,
    boolean,
    bot_name,
    choice,
    environment,
    folder,
    guard_steps,
    host_names,
    integer,
    mail_address,
    mail_addresses,
    mail_server,
    market_date,
    number,
    optional,
    secret,
    series_list,
    text,
    tickers,
    url,
    web_address,
    webhook,
)


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

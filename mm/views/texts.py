"""Numbers and results in words, for people. Pure functions of values."""

from collections.abc import Collection
from typing import Final, Protocol

from mm.domain.numbers import Count, Money, Price, format_count, format_decimal
from mm.domain.order import MarketTicker
from mm.domain.tickers import parse_event_token, series_of

MARKET_WIDTH: Final = 16


class RunResult(Protocol):
    """What the final text needs to know of a run."""

    @property
    def exit_code(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def markets(self) -> int: ...
    @property
    def orders_placed(self) -> int: ...
    @property
    def orders_cancelled(self) -> int: ...
    @property
    def orders_resting_at_exit(self) -> int | None: ...
    @property
    def fills(self) -> int: ...
    @property
    def contracts(self) -> Count: ...
    @property
    def realized_pnl(self) -> Money: ...
    @property
    def fees(self) -> Money: ...
    @property
    def positions_match(self) -> bool | None: ...


def cents(price: Price | None) -> str:
    """A price in cents without idle zeros: `41`, `41.25`; a dash for none."""
    if price is None:
        return "-"
    return format_decimal(price, 2).rstrip("0").rstrip(".")


def contracts(count: Count, *, sign: bool = False) -> str:
    """Contracts without idle zeros: `10`, `0.37`; with `sign` also `+10`."""
    text = format_count(count).rstrip("0").rstrip(".")
    return f"+{text}" if sign and count > 0 else text


def dollars(money: Money, *, sign: bool = False) -> str:
    """Dollars rounded to cents, half away from zero: `12.34`, `-0.05`; with `sign` also `+12.34`."""
    rounded = (abs(money) + 5_000) // 10_000
    text = format_decimal(rounded if money >= 0 else -rounded, 2)
    return f"+{text}" if sign and money > 0 and rounded else text


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def age(seconds: float | None) -> str:
    """The age of something live: tenths while it is young."""
    if seconds is None:
        return "never"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def short_names(tickers: Collection[MarketTicker]) -> dict[MarketTicker, str]:
    """A short name for each ticker, unique among them: without series and date where that loses nothing."""
    for shorten in (_teams, _without_series):
        names = {ticker: shorten(ticker) for ticker in tickers}
        if len(set(names.values())) == len(names):
            return names
    return {ticker: ticker for ticker in tickers}


def _teams(ticker: MarketTicker) -> str:
    """`KXNHLGAME-26OCT12VGKMIN-VGK`: `VGKMIN-VGK`."""
    token = parse_event_token(ticker)
    if token is None or not token.rest:
        return ticker
    return "-".join([token.rest, *ticker.split("-")[2:]])


def _without_series(ticker: MarketTicker) -> str:
    return ticker.removeprefix(series_of(ticker) + "-")


def clip(text: str, width: int) -> str:
    """`text`, cut with an ellipsis where it is longer than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def summary_text(result: RunResult) -> str:
    """What the bot says last."""
    resting = result.orders_resting_at_exit
    if result.exit_code == 2:
        found = "unknown" if resting is None else str(resting)
        rest = f"{found}: ORDERS MAY REST. Run `mm cancel-all`, or look at the exchange"
    else:
        rest = f"{resting}"
    match result.positions_match:
        case True:
            positions = "equal to the exchange's"
        case False:
            positions = "DIFFER from the exchange's: run `mm status`"
        case None:
            positions = "not compared"
    rows = [
        ("markets quoted", f"{result.markets}"),
        ("orders", f"{result.orders_placed} placed, {result.orders_cancelled} cancelled"),
        ("resting at exit", rest),
        ("fills", f"{result.fills} ({contracts(result.contracts)} contracts)"),
        (
            "realized P&L",
            f"{dollars(result.realized_pnl, sign=True)} dollars net, fees {dollars(result.fees)}",
        ),
        ("positions", positions),
        ("exit code", f"{int(result.exit_code)}"),
    ]
    lines = [f"mm has ended: {result.reason or 'done'}", *(f"  {name:<16} {value}" for name, value in rows)]
    return "\n".join(lines)

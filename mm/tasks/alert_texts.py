"""What alerts say: batches of placements and fills as text, and many texts as one message. No clock, no IO."""

from collections.abc import Sequence
from typing import Final

import attrs

from mm.domain.fill import Fill
from mm.domain.numbers import Count, Micros, Money, format_count, format_money, format_price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import to_datetime

MESSAGE_LIMIT: Final = 1_900
"""Characters of one message; Discord takes 2,000."""
TEXT_LIMIT: Final = 900
"""Characters of one alert."""
LISTED: Final = 10
"""Markets listed by name; the rest as a number."""
LISTED_FILLS: Final = 8


@attrs.define
class PlacementBatch:
    """Orders placed in a window, counted per market."""

    orders: int = 0
    contracts: Count = Count(0)
    by_market: dict[MarketTicker, int] = attrs.field(factory=dict)

    def add(self, ticker: MarketTicker, count: Count) -> None:
        """One more order."""
        self.orders += 1
        self.contracts = Count(self.contracts + count)
        self.by_market[ticker] = self.by_market.get(ticker, 0) + 1

    def text(self, window_s: float) -> str:
        """Total, then the busiest markets."""
        busiest = sorted(self.by_market.items(), key=lambda item: (-item[1], item[0]))
        named = ", ".join(f"{ticker} {orders}" for ticker, orders in busiest[:LISTED])
        more = f", +{len(busiest) - LISTED} markets" if len(busiest) > LISTED else ""
        return (
            f"placed {plural(self.orders, 'order')} ({contracts(self.contracts)} contracts)"
            f" in {plural(len(busiest), 'market')} within {window_s:g} s: {named}{more}"
        )


@attrs.define
class FillBatch:
    """Fills of a window; those beyond the listed ones only as sums."""

    fills: int = 0
    contracts: Count = Count(0)
    fees: Money = Money(0)
    lines: list[str] = attrs.field(factory=list)

    def add(self, fill: Fill, position: Count | None) -> None:
        """One more fill; `position` is the signed one after it."""
        self.fills += 1
        self.contracts = Count(self.contracts + fill.count)
        self.fees = Money(self.fees + fill.fee)
        if len(self.lines) < LISTED_FILLS:
            self.lines.append(fill_line(fill, position))

    def text(self) -> str:
        """One line for one fill; a heading with sums, then lines, for more."""
        if self.fills == 1:
            return self.lines[0]
        more = [f"+{self.fills - len(self.lines)} more"] if self.fills > len(self.lines) else []
        heading = f"{self.fills} fills, {contracts(self.contracts)} contracts, fees {dollars(self.fees)}"
        return "\n".join([heading, *("  " + line for line in [*self.lines, *more])])


def fill_line(fill: Fill, position: Count | None) -> str:
    """A fill in words."""
    verb = "bought" if fill.side is Side.BID else "sold"
    after = "" if position is None else f", position {contracts(position, sign=True)}"
    return (
        f"{fill.ticker}: {verb} {contracts(fill.count)} at {format_price(fill.price)}"
        f" ({fill.liquidity.value}, fee {dollars(fill.fee)}){after}"
    )


def contracts(count: Count, *, sign: bool = False) -> str:
    """Contracts without idle zeros: `10`, `0.37`."""
    text = format_count(count).rstrip("0").rstrip(".")
    return f"+{text}" if sign and count > 0 else text


def dollars(money: Money) -> str:
    """Dollars with at least cents and no idle zeros after them."""
    whole, _, fraction = format_money(money).partition(".")
    return f"${whole}.{fraction[:2]}{fraction[2:].rstrip('0')}".replace("$-", "-$")


def plural(number: int, noun: str) -> str:
    """`1 order`, `2 orders`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def with_time(text: str, at: Micros) -> str:
    """`text` with the moment it is about, for a message that comes late."""
    return f"{text} (at {to_datetime(at):%Y-%m-%d %H:%M:%S} UTC)"


def compose(entries: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """One message of as many (severity, text) entries as fit, in this order, at least one; and how many these are."""
    lines: list[str] = []
    length = 0
    for severity, text in entries:
        line = f"[{severity}] {text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + '…'}"
        length += len(line) + 1
        if lines and length > MESSAGE_LIMIT:
            break
        lines.append(line)
    return "\n".join(lines), len(lines)

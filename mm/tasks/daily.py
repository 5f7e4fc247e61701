"""The day that is over, in one alert. Days are US Eastern: 23 hours long in March once, 25 in November once."""

import datetime as dt
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

import attrs
import trio

from mm.domain.numbers import Count, Micros, Money
from mm.domain.tickers import eastern_date, eastern_midnight, next_eastern_midnight
from mm.ledger import Totals
from mm.tasks.alert_texts import contracts, dollars, plural

LOOK_S: Final = 30.0
"""The wall clock may be set: it is looked at again and again instead of slept through."""
BOOKS_S: Final = 60.0
"""How long the new day's beginning may take to be known: positions without a price delay it."""


class DayBook(Protocol):
    """What is known of a day. A `Ledger` is one."""

    async def day_start(self, day: dt.date) -> Money | None:
        """The marked result with which it began."""

    async def totals(self, *, since: Micros) -> Totals:
        """Fills from then on."""


@attrs.define(eq=False, kw_only=True)
class DailySummary:
    """Tells each day's figures once, when the next one has begun."""

    book: DayBook
    clock: Callable[[], Micros]
    held: Callable[[], tuple[int, Count]]
    """Markets in which something is held, and the contracts in all of them."""
    is_wanted: Callable[[], bool]
    tell: Callable[[str], None]

    async def run(self) -> NoReturn:
        """Look for ever. Raises `LedgerError`. A day in which the bot did not run to the end is not told."""
        day, began = self._today()
        while True:
            now = self.clock()
            until = max(next_eastern_midnight(now) - now, 0) / 1e6
            await trio.sleep(min(LOOK_S, until + 0.01))
            today, midnight = self._today()
            if today == day:
                continue
            if today > day and self.is_wanted():
                await self._tell(day, began, today, midnight)
            day, began = today, midnight

    async def _tell(self, day: dt.date, began: Micros, today: dt.date, midnight: Micros) -> None:
        before, after = await self.book.day_start(day), None
        with trio.move_on_after(BOOKS_S):
            while after is None:
                await trio.sleep(1.0)
                after = await self.book.day_start(today)
        all_fills, later = await self.book.totals(since=began), await self.book.totals(since=midnight)
        known = before is not None and after is not None
        result = f"result {_signed(Money(after - before))} marked" if known else "result not known"  # type: ignore[operator]
        fills = plural(all_fills.fills - later.fills, "fill")
        count = contracts(Count(all_fills.contracts - later.contracts))
        fees = dollars(Money(all_fills.fees - later.fees))
        markets, gross = self.held()
        held = f"{contracts(gross)} contracts in {plural(markets, 'market')}" if markets else "nothing"
        self.tell(
            f"{day} in US Eastern: {result}, {fills} ({count} contracts), fees {fees}; held now: {held}"
        )

    def _today(self) -> tuple[dt.date, Micros]:
        """The day, and when it began."""
        now = self.clock()
        return eastern_date(now), eastern_midnight(now)


def _signed(money: Money) -> str:
    return f"+{dollars(money)}" if money > 0 else dollars(money)

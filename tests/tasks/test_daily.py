"""The summary of a day comes once, for a US Eastern day, whether it has 23, 24 or 25 hours."""

import datetime as dt

import attrs
import pytest
import trio

from mm.domain.numbers import SECOND, Micros, Money
from mm.domain.tickers import EASTERN, eastern_date, eastern_midnight, from_datetime, next_eastern_midnight
from mm.ledger import Totals
from mm.tasks.daily import DailySummary

HOUR = 3_600 * SECOND


@attrs.define
class Days:
    """What a ledger knows: the result grows by a dollar an hour, and so does the number of fills."""

    clock: object
    delay_s: float = 2.0

    async def day_start(self, day: dt.date) -> Money | None:
        began = from_datetime(dt.datetime.combine(day, dt.time(), EASTERN))
        if self.clock() < began + self.delay_s * SECOND:
            return None
        return Money((began - BEGAN) // HOUR * 1_000_000)

    async def totals(self, *, since: Micros) -> Totals:
        hours = (self.clock() - since) // HOUR
        return Totals(fills=hours, contracts=hours * 1000, fees=Money(hours * 10_000))


BEGAN = from_datetime(dt.datetime(2026, 1, 1, tzinfo=EASTERN))


@pytest.mark.parametrize(
    "day, hours",
    [(dt.date(2026, 3, 8), 23), (dt.date(2026, 11, 1), 25), (dt.date(2026, 11, 25), 24)],
)
async def test_a_day_is_summed_up_at_its_end(day: dt.date, hours: int, autojump_clock) -> None:
    """On the days on which clocks change too: within a minute after midnight, once, with that day's hours."""
    began = from_datetime(dt.datetime.combine(day, dt.time(), EASTERN))
    start = Micros(began + 20 * HOUR)
    clock = lambda: Micros(start + round(trio.current_time() * SECOND))  # noqa: E731
    told: list[tuple[Micros, str]] = []
    summary = DailySummary(
        book=Days(clock),
        clock=clock,
        held=lambda: (2, 1500),
        is_wanted=lambda: True,
        tell=lambda text: told.append((clock(), text)),
    )
    with trio.move_on_after((hours - 20) * 3_600 + 7_200):
        await summary.run()

    assert [text for _, text in told] == [
        f"{day} in US Eastern: result +${hours}.00 marked, {hours} fills ({hours * 10} contracts),"
        f" fees ${hours / 100:.2f}; held now: 15 contracts in 2 markets"
    ]
    assert 0 <= told[0][0] - (began + hours * HOUR) < 60 * SECOND


async def test_a_day_whose_end_was_not_seen_is_not_told(autojump_clock) -> None:
    """And a switch that is off is looked at when the day ends, not at the start."""
    told: list[str] = []
    clock = lambda: Micros(BEGAN + 23 * HOUR + round(trio.current_time() * SECOND))  # noqa: E731
    summary = DailySummary(
        book=Days(clock), clock=clock, held=lambda: (0, 0), is_wanted=lambda: False, tell=told.append
    )
    with trio.move_on_after(7_200):
        await summary.run()
    assert told == []


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-08T04:59:59",
        "2026-03-08T05:00:00",
        "2026-11-01T04:00:00",
        "2026-11-02T04:59:59",
        "2026-07-01T12:00:00",
    ],
)
def test_a_day_began_at_its_midnight(text: str) -> None:
    """At it or before it, never after it, and it is the same day."""
    now = from_datetime(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC))
    began = eastern_midnight(now)

    assert began <= now < next_eastern_midnight(now)
    assert eastern_date(began) == eastern_date(now)
    assert eastern_date(Micros(began - 1)) < eastern_date(now)

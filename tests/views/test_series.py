"""P&L over time in bounded memory, fine for the last minutes."""

from itertools import pairwise

from mm.domain.numbers import SECOND, Count, Micros, Money
from mm.views.series import TIERS, Point, Series


def filled(seconds: int) -> Series:
    """One point a second; the realized result is the second's number."""
    series = Series()
    for n in range(seconds):
        series.add(Point(Micros(n * SECOND), Money(n), Money(0), Count(0), Count(0)))
    return series


def test_nothing_is_lost_while_it_fits_the_finest_tier() -> None:
    """Every second of the first minutes, in order, each once."""
    points = filled(500).points()

    assert [p.realized for p in points] == list(range(500))


def test_older_time_is_coarser_and_there_is_no_gap_or_double() -> None:
    """Three hours: seconds at the end, tens before, and time only ever rises."""
    points = filled(3 * 3600).points()
    steps = [(b.at - a.at) // SECOND for a, b in pairwise(points)]

    assert all(step > 0 for step in steps)
    assert max(steps) <= 60
    assert steps[-500:] == [1] * 500
    assert points[-1].realized == 3 * 3600 - 1
    assert points[0].realized == 0


def test_memory_is_bounded() -> None:
    """A week keeps no more than the tiers hold."""
    series = Series()
    for n in range(7 * 24 * 360):
        series.add(Point(Micros(n * 10 * SECOND), Money(n), Money(0), Count(0), Count(0)))

    assert len(series.points()) <= sum(kept for _, kept in TIERS)


def test_a_timer_that_wakes_early_makes_no_holes() -> None:
    """A period a little short of a second still gives a point each time."""
    series = Series()
    for n in range(100):
        series.add(Point(Micros(n * 995_000), Money(n), Money(0), Count(0), Count(0)))

    assert len(series.points()) == 100

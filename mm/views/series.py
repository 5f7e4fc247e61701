"""P&L and exposure over time, in bounded memory: fine for the last minutes, coarser the longer ago. Pure."""

from collections import deque
from typing import Final

import attrs

from mm.domain.numbers import SECOND, Count, Micros, Money

TIERS: Final = ((1, 600), (10, 1_080), (60, 2_880))
"""(seconds between points, points kept): 10 minutes, 3 hours, 2 days."""


@attrs.frozen
class Point:
    """The portfolio at one moment."""

    at: Micros
    realized: Money
    unrealized: Money
    worst_exposure: Count
    gross: Count


@attrs.define(eq=False)
class Series:
    """Points in time order."""

    _tiers: tuple[deque[Point], ...] = attrs.field(
        factory=lambda: tuple(deque(maxlen=kept) for _, kept in TIERS)
    )

    def add(self, point: Point) -> None:
        """The newest point; each tier takes it when its own time has come."""
        for (period_s, _), tier in zip(TIERS, self._tiers, strict=True):
            # A timer that wakes a little early must not make a tier skip every other point.
            if not tier or point.at - tier[-1].at >= period_s * SECOND * 9 // 10:
                tier.append(point)

    def points(self) -> list[Point]:
        """Everything that is kept, oldest first: each tier for the time before the next finer one begins."""
        found: list[Point] = []
        until: int | None = None
        for tier in self._tiers:
            older = [p for p in tier if until is None or p.at < until]
            found = older + found
            if found:
                until = found[0].at
        return found

"""Counts by size: how long things took. Plain integers; what is measured and when is not decided here."""

from bisect import bisect_left
from typing import Final

import attrs

LATENCY_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets, in seconds; what is above the last one is counted beyond it."""


@attrs.frozen(kw_only=True)
class HistogramView:
    """A histogram at one moment."""

    bounds: tuple[float, ...] = LATENCY_BOUNDS_S
    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_S) + 1)
    """Observations of each bucket, not cumulated; one more than `bounds`."""
    total: float = 0.0
    """Sum of the observations."""

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The upper bound of the bucket that holds this share of the observations; None without any.

        Infinite when it lies beyond the last bound.
        """
        wanted = share * self.count
        if not self.count:
            return None
        seen = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")


@attrs.define(eq=False)
class Histogram:
    """A histogram that grows. One observation costs a binary search."""

    bounds: tuple[float, ...] = LATENCY_BOUNDS_S
    counts: list[int] = attrs.field(init=False)
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one observation; a bound belongs to its own bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def view(self) -> HistogramView:
        """As it stands."""
        return HistogramView(bounds=self.bounds, counts=tuple(self.counts), total=self.total)

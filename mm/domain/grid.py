"""The price grid of a market: which prices exist, and the neighbours of one. Built from `price_ranges` only.

A market's grid may change while it is open, so a grid is a value that is replaced, never a constant.
"""

from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from typing import Final

import attrs

from mm.domain.numbers import CENT, DOLLAR, Price


@attrs.frozen
class PriceBand:
    """Prices `start, start + step, ...` up to and with `end`."""

    start: Price
    end: Price
    step: Price


@attrs.frozen(slots=False)
class TickGrid:
    """The valid prices of a market: those of its bands that lie strictly between 0 and 1 dollar."""

    bands: tuple[PriceBand, ...]

    def __attrs_post_init__(self) -> None:
        if not self.bands:
            raise ValueError("a tick grid needs at least one band")
        for band in self.bands:
            if band.step <= 0 or band.end < band.start:
                raise ValueError(f"impossible price band {band}")

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        """All valid prices, rising."""
        found = {
            Price(p)
            for band in self.bands
            for p in range(band.start, band.end + 1, band.step)
            if 0 < p < DOLLAR
        }
        return tuple(sorted(found))

    @cached_property
    def _index(self) -> dict[Price, int]:
        return {price: i for i, price in enumerate(self.prices)}

    def is_valid(self, price: Price) -> bool:
        """Whether an order may carry this price."""
        return price in self._index

    def at_or_below(self, price: int) -> Price | None:
        """The highest valid price that is not above `price`; None when there is none."""
        i = bisect_right(self.prices, price)
        return self.prices[i - 1] if i else None

    def at_or_above(self, price: int) -> Price | None:
        """The lowest valid price that is not below `price`; None when there is none."""
        i = bisect_right(self.prices, price - 1)
        return self.prices[i] if i < len(self.prices) else None

    def tick_below(self, price: int) -> Price | None:
        """The next valid price strictly below `price`."""
        return self.at_or_below(price - 1)

    def tick_above(self, price: int) -> Price | None:
        """The next valid price strictly above `price`."""
        return self.at_or_above(price + 1)

    @property
    def lowest(self) -> Price:
        """The lowest valid price."""
        return self.prices[0]

    @property
    def highest(self) -> Price:
        """The highest valid price."""
        return self.prices[-1]


_CACHE: Final[dict[tuple[PriceBand, ...], TickGrid]] = {}


def tick_grid(bands: Iterable[PriceBand]) -> TickGrid:
    """The grid of these bands; equal bands share one grid, so that thousands of markets hold one table."""
    key = tuple(bands)
    grid = _CACHE.get(key)
    if grid is None:
        grid = _CACHE[key] = TickGrid(key)
    return grid


def uniform_grid(step: Price = CENT) -> TickGrid:
    """One band over the whole range, such as the classic cent grid."""
    return tick_grid([PriceBand(Price(0), DOLLAR, step)])

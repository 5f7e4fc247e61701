"""The fills of this run, newest first, with what the market did after each: for the views. Moves nothing."""

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from mm.domain.fill import Fill, Liquidity
from mm.domain.numbers import SECOND, Micros, Price
from mm.domain.order import MarketTicker
from mm.views.snapshot import MARKOUTS_S, FillView

KEPT_FILLS: Final = 1_000
"""Enough for a minute of the busiest hour: a fill that leaves before its last markout is missing in the average."""
LATE_S: Final = 5.0
"""A markout that could not be taken within this time stays unknown."""

MarkOf = Callable[[MarketTicker], Price | None]


@attrs.define(eq=False)
class Tape:
    """A bounded list of fills, and averages over all of them. `add` is told of each new fill, `take_markouts` is called about once a second."""

    mark_of: MarkOf
    _fills: deque[FillView] = attrs.field(factory=lambda: deque(maxlen=KEPT_FILLS))
    """Newest first."""
    _sums: list[int] = attrs.field(factory=lambda: [0] * (1 + len(MARKOUTS_S)))
    """Edge and each markout times contracts, over all fills of which it is known."""
    _counts: list[int] = attrs.field(factory=lambda: [0] * (1 + len(MARKOUTS_S)))

    @property
    def averages(self) -> tuple[float | None, ...]:
        """Edge and each markout per contract over the run, in `Price` units; None while none is known."""
        return tuple(
            total / count if count else None for total, count in zip(self._sums, self._counts, strict=True)
        )

    @property
    def fills(self) -> tuple[FillView, ...]:
        """Newest first."""
        return tuple(self._fills)

    def add(self, fill: Fill) -> None:
        """A new fill, its inventory moved already."""
        edge = self._against_mark(fill.ticker, fill.side.sign, fill.price)
        self._count(0, edge, fill.count)
        self._fills.appendleft(
            FillView(
                key=f"{fill.order_id} {fill.trade_id}",
                at=fill.ts,
                ticker=fill.ticker,
                side=fill.side,
                price=fill.price,
                count=fill.count,
                fee=fill.fee,
                is_maker=fill.liquidity is Liquidity.MAKER,
                edge=edge,
                markouts=(None,) * len(MARKOUTS_S),
            )
        )

    def take_markouts(self, now: Micros) -> None:
        """Enter the markouts that have come due."""
        oldest_due = now - round((MARKOUTS_S[-1] + LATE_S) * SECOND)
        for place, fill in enumerate(self._fills):
            if fill.at < oldest_due:
                break
            self._fills[place] = self._with_markouts(fill, now)

    def _with_markouts(self, fill: FillView, now: Micros) -> FillView:
        age = (now - fill.at) / SECOND
        markouts = list(fill.markouts)
        for n, horizon in enumerate(MARKOUTS_S):
            if markouts[n] is None and horizon <= age < horizon + LATE_S:
                markouts[n] = self._against_mark(fill.ticker, fill.side.sign, fill.price)
                self._count(n + 1, markouts[n], fill.count)
        found = tuple(markouts)
        return fill if found == fill.markouts else attrs.evolve(fill, markouts=found)

    def _count(self, place: int, value: int | None, count: int) -> None:
        if value is not None:
            self._sums[place] += value * count
            self._counts[place] += count

    def _against_mark(self, ticker: MarketTicker, sign: int, price: Price) -> int | None:
        mark = self.mark_of(ticker)
        return None if mark is None else (mark - price) * sign

"""The fills of this run, newest first, with what the market did after each: for the views. Moves nothing."""

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from mm.domain.fill import Fill, Liquidity
from mm.domain.numbers import SECOND, Micros, Price
from mm.domain.order import MarketTicker
from mm.views.snapshot import MARKOUTS_S, FillView

KEPT_FILLS: Final = 200
LATE_S: Final = 5.0
"""A markout that could not be taken within this time stays unknown."""

MarkOf = Callable[[MarketTicker], Price | None]


@attrs.define(eq=False)
class Tape:
    """A bounded list of fills. `add` is told of each new fill, `take_markouts` is called about once a second."""

    mark_of: MarkOf
    _fills: deque[FillView] = attrs.field(factory=lambda: deque(maxlen=KEPT_FILLS))
    """Newest first."""

    @property
    def fills(self) -> tuple[FillView, ...]:
        """Newest first."""
        return tuple(self._fills)

    def add(self, fill: Fill) -> None:
        """A new fill, its inventory moved already."""
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
                edge=self._against_mark(fill.ticker, fill.side.sign, fill.price),
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
        found = tuple(markouts)
        return fill if found == fill.markouts else attrs.evolve(fill, markouts=found)

    def _against_mark(self, ticker: MarketTicker, sign: int, price: Price) -> int | None:
        mark = self.mark_of(ticker)
        return None if mark is None else (mark - price) * sign

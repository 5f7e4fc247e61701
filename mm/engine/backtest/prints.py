"""Public prints as a back-test takes them: without duplicates, in the order in which takers ate the book."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import attrs

from mm.domain.fill import Trade
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import Side
from mm.engine.mark import sweep_order


def in_order(trades: Iterable[Trade]) -> list[Trade]:
    """One market's prints sorted by `sweep_order`, each trade id once. The order given decides nothing."""
    seen: set[str] = set()
    kept: list[Trade] = []
    for trade in sorted(trades, key=sweep_order):
        if trade.trade_id not in seen:
            seen.add(trade.trade_id)
            kept.append(trade)
    return kept


@attrs.frozen
class Sweep:
    """Neighbouring prints of one time and one taker side, in order; never empty."""

    trades: tuple[Trade, ...]

    @property
    def ts(self) -> Micros:
        """When it happened."""
        return self.trades[0].ts

    @property
    def hits(self) -> Side:
        """The side of the book that it ate: a buying taker eats asks."""
        return self.trades[0].taker_side.opposite

    def size_through(self, price: Price) -> Count:
        """Contracts that traded at `price` or through it, seen from a quote there."""
        if self.hits is Side.BID:
            return Count(sum(trade.count for trade in self.trades if trade.price <= price))
        return Count(sum(trade.count for trade in self.trades if trade.price >= price))


def sweeps(trades: Sequence[Trade]) -> Iterator[Sweep]:
    """Ordered prints, grouped."""
    for _, group in groupby(trades, key=lambda trade: (trade.ts, trade.taker_side)):
        yield Sweep(tuple(group))

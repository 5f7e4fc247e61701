"""The matching book of one market: price levels, each a FIFO queue of resting orders. Price-time priority.

Prices are kept in a sorted list per side, best last, so that the best is one index away and a new level is one
`insort`. A level is an ordered dict: append, take the first, and remove from the middle are all O(1).
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator

import attrs

from mm.domain.numbers import Count, Price
from mm.domain.order import OrderId, Side
from mm.exchange.embedded.core.model import OrderRecord


@attrs.define(eq=False)
class Level:
    """The queue at one price."""

    price: Price
    orders: OrderedDict[OrderId, OrderRecord] = attrs.field(factory=OrderedDict)
    total: int = 0


@attrs.define(eq=False)
class BookSide:
    """One side. `_keys` rises with goodness: the price for bids, minus the price for asks."""

    side: Side
    levels: dict[int, Level] = attrs.field(factory=dict)
    _keys: list[int] = attrs.field(factory=list)

    @property
    def best(self) -> Price | None:
        """The best price; None when the side is empty."""
        return self.levels[self._keys[-1]].price if self._keys else None

    @property
    def best_level(self) -> Level | None:
        """The queue that trades next."""
        return self.levels[self._keys[-1]] if self._keys else None

    def add(self, order: OrderRecord) -> None:
        """Put an order at the end of its level's queue."""
        key = order.price if self.side is Side.BID else -order.price
        level = self.levels.get(key)
        if level is None:
            level = self.levels[key] = Level(order.price)
            insort(self._keys, key)
        level.orders[order.order_id] = order
        level.total += order.remaining

    def remove(self, order: OrderRecord) -> None:
        """Take a resting order out, with its remaining count. Raises `KeyError` when it does not rest here."""
        level = self._level(order)
        del level.orders[order.order_id]
        level.total -= order.remaining
        if not level.orders:
            self._drop(level)

    def reduce(self, order: OrderRecord, by: int) -> None:
        """Lower a resting order's remaining count in place; it leaves the book when that reaches 0."""
        level = self._level(order)
        level.total -= by
        order.remaining = Count(order.remaining - by)
        if not order.remaining:
            del level.orders[order.order_id]
            if not level.orders:
                self._drop(level)

    def best_first(self) -> Iterator[Level]:
        """Levels from the best price on. The book must not change meanwhile."""
        for key in reversed(self._keys):
            yield self.levels[key]

    def depth(self) -> list[tuple[Price, Count]]:
        """(YES price, count) of every level, best first."""
        return [(level.price, Count(level.total)) for level in self.best_first()]

    def total_at(self, price: Price) -> Count:
        """What rests at a YES price."""
        level = self.levels.get(price if self.side is Side.BID else -price)
        return Count(level.total if level else 0)

    def ahead_of(self, order: OrderRecord, *, with_better: bool) -> Count:
        """Contracts in front of a resting order: in its level, and at better prices if asked."""
        level = self._level(order)
        ahead = 0
        for other in level.orders.values():
            if other is order:
                break
            ahead += other.remaining
        if with_better:
            key = order.price if self.side is Side.BID else -order.price
            start = bisect_left(self._keys, key) + 1
            ahead += sum(self.levels[better].total for better in self._keys[start:])
        return Count(ahead)

    def orders(self) -> list[OrderRecord]:
        """Everything that rests, in priority order."""
        return [order for level in self.best_first() for order in level.orders.values()]

    def _level(self, order: OrderRecord) -> Level:
        return self.levels[order.price if self.side is Side.BID else -order.price]

    def _drop(self, level: Level) -> None:
        key = level.price if self.side is Side.BID else -level.price
        del self.levels[key]
        if self._keys[-1] == key:
            self._keys.pop()
        else:
            del self._keys[bisect_left(self._keys, key)]


@attrs.define(eq=False)
class MatchingBook:
    """Both sides of a market."""

    bids: BookSide = attrs.field(factory=lambda: BookSide(Side.BID))
    asks: BookSide = attrs.field(factory=lambda: BookSide(Side.ASK))

    def side(self, side: Side) -> BookSide:
        """The side where orders of `side` rest."""
        return self.bids if side is Side.BID else self.asks

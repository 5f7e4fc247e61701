"""The order book of one market as one YES book: bids and asks in YES price.

A NO level at p is a YES ask at 1 - p; whoever reads the wire converts before it calls here. Deltas are relative
and must be folded in order. Integers only: sums of fractional deltas leave no phantom levels.
"""

from collections.abc import Iterable

import attrs

from mm.domain.errors import BookOutOfSync
from mm.domain.numbers import Count, Price
from mm.domain.order import Side

Level = tuple[Price, Count]


@attrs.define(eq=False)
class OrderBook:
    """Levels by price, with the best of each side kept.

    `version` counts changes, so that a reader can tell "new state" from "same state" without comparing.
    Not synced until the first snapshot, and again after `mark_out_of_sync`.
    """

    bids: dict[Price, Count] = attrs.field(factory=dict)
    asks: dict[Price, Count] = attrs.field(factory=dict)
    best_bid: Price | None = None
    best_ask: Price | None = None
    is_synced: bool = False
    version: int = 0

    def snapshot(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Replace the whole book. Levels of count 0 are left out. Raises `BookOutOfSync` on a negative count."""
        self.bids = _levels(bids)
        self.asks = _levels(asks)
        self.best_bid = max(self.bids, default=None)
        self.best_ask = min(self.asks, default=None)
        self.is_synced = True
        self.version += 1

    def apply_delta(self, side: Side, price: Price, change: Count) -> None:
        """Add `change` (signed) to the level at `price`; a level that reaches 0 disappears.

        Raises:
            BookOutOfSync: The level would become negative, or no snapshot came before. The book is then not synced.
        """
        if not self.is_synced:
            raise BookOutOfSync("delta before a snapshot")
        is_bid = side is Side.BID
        levels = self.bids if is_bid else self.asks
        count = levels.get(price, 0) + change
        self.version += 1
        if count > 0:
            levels[price] = Count(count)
            if is_bid:
                if self.best_bid is None or price > self.best_bid:
                    self.best_bid = price
            elif self.best_ask is None or price < self.best_ask:
                self.best_ask = price
            return
        if count < 0:
            self.is_synced = False
            raise BookOutOfSync(f"level {side.value} {price} would hold {count}")
        levels.pop(price, None)
        if is_bid:
            if price == self.best_bid:
                self.best_bid = max(levels, default=None)
        elif price == self.best_ask:
            self.best_ask = min(levels, default=None)

    def mark_out_of_sync(self) -> None:
        """The feed was cut or skipped something: what is held must not be traded on."""
        self.is_synced = False
        self.version += 1

    @property
    def is_crossed(self) -> bool:
        """Best bid at or above best ask: never on the venue, so a sign of a book that is not whole."""
        return self.best_bid is not None and self.best_ask is not None and self.best_bid >= self.best_ask

    @property
    def is_two_sided(self) -> bool:
        """Both sides have a level."""
        return self.best_bid is not None and self.best_ask is not None

    @property
    def twice_mid(self) -> int | None:
        """Best bid + best ask (twice the mid, so that it stays an integer); None when one-sided."""
        if self.best_bid is None or self.best_ask is None:
            return None
        return self.best_bid + self.best_ask

    def size_at(self, side: Side, price: Price) -> Count:
        """Contracts resting at `price` on that side, 0 when none."""
        return (self.bids if side is Side.BID else self.asks).get(price, Count(0))

    def depth(self, side: Side, levels: int | None = None) -> list[Level]:
        """The best `levels` levels (all when None), best first."""
        if side is Side.BID:
            return sorted(self.bids.items(), reverse=True)[:levels]
        return sorted(self.asks.items())[:levels]


def _levels(levels: Iterable[Level]) -> dict[Price, Count]:
    found: dict[Price, Count] = {}
    for price, count in levels:
        if count < 0:
            raise BookOutOfSync(f"snapshot level {price} holds {count}")
        if count:
            found[price] = count
    return found

"""One market's last second: what was printed, what was cancelled, how the mid went. Looks for what a goal looks like."""

from collections import deque
from typing import Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.fill import Trade
from mm.domain.numbers import SECOND, Count, Micros, Price, format_count
from mm.domain.order import Side
from mm.engine.goals.sport import Sport
from mm.engine.strategies.signals import Flow

_LEAST_SHRUNK_A_SIDE: Final = 2


@attrs.define(eq=False)
class MarketTape:
    """What the guard remembers of one market. `look` is called after a read's changes have been told."""

    sport: Sport
    _changes: "deque[tuple[Micros, Side, Price, int]]" = attrs.field(factory=deque)
    """Changes of levels, and prints turned round: what is left of a sum is cancels (negative) and new orders."""
    _prints: "deque[tuple[Micros, Side, Price, Count]]" = attrs.field(factory=deque)
    _mids: "deque[tuple[Micros, int]]" = attrs.field(factory=deque)
    """Twice the mid, from each moment on."""
    _flow: Flow = attrs.field(factory=Flow)
    last_move: Micros = Micros(0)
    """When the mid was last found away from where it had settled."""
    _anchor: int | None = None
    is_changed: bool = False
    """Something was told since the last look."""

    def on_change(self, side: Side, price: Price, change: int, now: Micros) -> None:
        """A level changed by `change`; ours are told too, they are small."""
        self._changes.append((now, side, price, change))
        self.is_changed = True

    def on_trade(self, trade: Trade, now: Micros) -> None:
        """A public print."""
        if trade.is_block:
            return
        self._prints.append((now, trade.taker_side, trade.price, trade.count))
        self._changes.append((now, trade.taker_side.opposite, trade.price, trade.count))
        self._flow.on_trade(trade)
        self.is_changed = True

    def look(self, book: OrderBook, now: Micros) -> str:
        """Why this looks like a goal, in words; empty when it does not."""
        self.is_changed = False
        self._forget(now)
        self._follow_mid(book, now)
        if not book.is_synced:
            return ""
        return self._jumped(now) or self._swept() or self._cancelled(book) or self._rushed(now)

    def _forget(self, now: Micros) -> None:
        sport = self.sport
        while self._changes and self._changes[0][0] < now - sport.cancel_within:
            self._changes.popleft()
        while self._prints and self._prints[0][0] < now - SECOND:
            self._prints.popleft()
        while len(self._mids) > 1 and self._mids[1][0] <= now - sport.jump_within:
            self._mids.popleft()

    def _follow_mid(self, book: OrderBook, now: Micros) -> None:
        twice_mid = book.twice_mid
        if twice_mid is None:
            self.last_move = now
            return
        if self._anchor is None or abs(twice_mid - self._anchor) > 2 * self.sport.settled_move:
            self._anchor, self.last_move = twice_mid, now
        if not self._mids or self._mids[-1][1] != twice_mid:
            self._mids.append((now, twice_mid))

    def _jumped(self, now: Micros) -> str:
        move, since = self._move()
        if abs(move) < 2 * self.sport.jump:
            return ""
        return f"the mid jumped {move / 200:+.1f} c within {(now - since) / SECOND:.1f} s"

    def _move(self) -> tuple[int, Micros]:
        """The largest move of twice the mid within `jump_within` up to now, and since when."""
        if not self._mids:
            return 0, Micros(0)
        last = self._mids[-1][1]
        since, far = max(self._mids, key=lambda entry: abs(entry[1] - last))
        return last - far, since

    def _swept(self) -> str:
        if not self._prints:
            return ""
        newest, taker = self._prints[-1][0], self._prints[-1][1]
        prices = [
            price
            for at, side, price, _ in self._prints
            if side is taker and at >= newest - self.sport.sweep_within
        ]
        run = max(prices) - min(prices)
        if run < self.sport.sweep:
            return ""
        what = "bought" if taker is Side.BID else "sold"
        return f"a taker {what} through {run / 100:.0f} c of levels"

    def _cancelled(self, book: OrderBook) -> str:
        sport = self.sport
        if len(self._changes) < sport.cancel_levels or book.best_bid is None or book.best_ask is None:
            return ""
        sums: dict[tuple[Side, Price], int] = {}
        for _, side, price, change in self._changes:
            sums[side, price] = sums.get((side, price), 0) + change
        shrunk = {Side.BID: 0, Side.ASK: 0}
        for (side, price), change in sums.items():
            if change >= 0 or not self._is_near(side, price, book):
                continue
            left = book.size_at(side, price)
            if -change >= sport.cancel_share * (left - change):
                shrunk[side] += 1
        if sum(shrunk.values()) < sport.cancel_levels or min(shrunk.values()) < _LEAST_SHRUNK_A_SIDE:
            return ""
        return f"{sum(shrunk.values())} levels near the touch were cancelled at once"

    def _is_near(self, side: Side, price: Price, book: OrderBook) -> bool:
        best = book.best_bid if side is Side.BID else book.best_ask
        assert best is not None
        return (best - price) * side.sign <= self.sport.cancel_near

    def _rushed(self, now: Micros) -> str:
        if not self._prints:
            return ""
        taker = self._prints[-1][1]
        count = sum(count for _, side, _, count in self._prints if side is taker)
        usual = self._flow.rate(taker.opposite, now) * 100 - count / 60
        is_rush = count >= self.sport.rate and count >= self.sport.rate_factor * max(usual, 0.0)
        if not is_rush or abs(self._move()[0]) < 2 * self.sport.rate_move:
            return ""
        what = "bought" if taker is Side.BID else "sold"
        return f"takers {what} {format_count(Count(count))} contracts within a second"

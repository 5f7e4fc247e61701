"""What a market maker remembers of its market: a slow mean of prints, the size of moves, flow, our place in the queue.

Averages are floats around the middle of the price range, so that a market seen from the other outcome gives exactly the
mirrored numbers; they become whole prices where a strategy uses them. Asking twice at one moment changes nothing.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.fill import Trade
from mm.domain.numbers import CONTRACT, DOLLAR, SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, Order, OrderState, Side, TimeInForce

MIDDLE: Final = DOLLAR // 2
"""Half a dollar: averages are kept as distances from it."""
PRINTS_DECAY_S: Final = 300.0
MOST_WEIGHT: Final = Count(1_000 * CONTRACT)
"""A print counts with the square root of its contracts, of so many at most."""
MOVE_SPAN_S: Final = 30
"""A move is the change of the mid over so long."""
MOVE_MEMORY_S: Final = 120.0
FLOW_MEMORY_S: Final = 60.0
LONG_SILENCE_S: Final = 900
"""After so long without a look everything about moves is forgotten."""


@attrs.define(eq=False)
class SlowPrints:
    """The time-decayed mean of prints, weight `sqrt(min(contracts, 1000))`."""

    _sum: float = 0.0
    _weight: float = 0.0
    _at: Micros = Micros(0)

    def on_trade(self, trade: Trade) -> None:
        """A print; block trades are left out."""
        if trade.is_block:
            return
        if self._weight and trade.ts > self._at:
            keep = math.exp(-(trade.ts - self._at) / (PRINTS_DECAY_S * SECOND))
            self._sum *= keep
            self._weight *= keep
        self._at = max(self._at, trade.ts)
        weight = math.sqrt(min(trade.count, MOST_WEIGHT) / CONTRACT)
        self._sum += weight * (trade.price - MIDDLE)
        self._weight += weight

    @property
    def mean(self) -> Price | None:
        """Rounded to 1/10,000 dollar; None before the first print."""
        return None if not self._weight else Price(MIDDLE + round(self._sum / self._weight))


@attrs.define(eq=False)
class MidMoves:
    """Root mean square of the mid's moves over 30 s, sampled once a second, with 120 s of memory."""

    _twice_mid: int | None = None
    _second: int = 0
    _ring: deque[int] = attrs.field(factory=lambda: deque(maxlen=MOVE_SPAN_S + 1))
    _squares: float = 0.0
    _weight: float = 0.0

    def observe(self, now: Micros, twice_mid: int | None) -> None:
        """The mid as of `now`; None (no two-sided book) keeps the last one."""
        second = now // SECOND
        if self._twice_mid is None:
            if twice_mid is not None:
                self._second, self._twice_mid = second, twice_mid
            return
        if second - self._second > LONG_SILENCE_S:
            self._ring.clear()
            self._squares = self._weight = 0.0
            self._second = second
        while self._second < second:
            self._second += 1
            self._sample(self._twice_mid)
        if twice_mid is not None:
            self._twice_mid = twice_mid

    def _sample(self, twice_mid: int) -> None:
        self._ring.append(twice_mid)
        if len(self._ring) > MOVE_SPAN_S:
            move = self._ring[-1] - self._ring[0]
            self._squares = _KEEP * self._squares + move * move
            self._weight = _KEEP * self._weight + 1.0

    @property
    def rms(self) -> float | None:
        """In `Price` units; None until 30 s have been seen."""
        return None if not self._weight else math.sqrt(self._squares / self._weight) / 2


_KEEP: Final = math.exp(-1.0 / MOVE_MEMORY_S)


@attrs.define(eq=False)
class Flow:
    """How much takers buy and sell, with 60 s of memory."""

    _bought: float = 0.0
    _sold: float = 0.0
    _at: Micros = Micros(0)

    def on_trade(self, trade: Trade) -> None:
        """A print."""
        if trade.is_block:
            return
        self._decay(trade.ts)
        if trade.taker_side is Side.BID:
            self._bought += trade.count
        else:
            self._sold += trade.count

    def _decay(self, now: Micros) -> None:
        if now > self._at:
            keep = math.exp(-(now - self._at) / (FLOW_MEMORY_S * SECOND))
            self._bought *= keep
            self._sold *= keep
            self._at = now

    def rate(self, side: Side, now: Micros) -> float:
        """Contracts a second that takers bring to our quote of `side` (sellers to the bid), about."""
        keep = math.exp(-max(0, now - self._at) / (FLOW_MEMORY_S * SECOND))
        volume = self._sold if side is Side.BID else self._bought
        return volume * keep / (CONTRACT * FLOW_MEMORY_S)

    def imbalance(self, now: Micros) -> float:
        """-1 (all sell) to 1 (all buy); 0 without flow."""
        bought, sold = self.rate(Side.ASK, now), self.rate(Side.BID, now)
        return (bought - sold) / (bought + sold) if bought + sold > 0 else 0.0


@attrs.define(eq=False)
class QueuePlace:
    """Contracts before each of our resting quotes: an upper bound, from level sizes and prints alone.

    Everything that stood at the price when we first saw our order there was before us. Prints take from the front.
    Cancels are taken to come from behind us, until the level is smaller than what we thought before us.
    """

    _ahead: dict[ClientOrderId, tuple[Side, Price, int]] = attrs.field(factory=dict)

    def observe(self, orders: Sequence[Order], book: OrderBook) -> None:
        """Our orders and the book (ours in it), as of now."""
        kept: dict[ClientOrderId, tuple[Side, Price, int]] = {}
        for order in orders:
            if order.state is not OrderState.RESTING or order.time_in_force is not TimeInForce.GTC:
                continue
            others = max(0, book.size_at(order.side, order.price) - order.leaves)
            known = self._ahead.get(order.client_order_id)
            is_same = known is not None and known[1] == order.price
            ahead = min(known[2], others) if known is not None and is_same else others
            kept[order.client_order_id] = (order.side, order.price, ahead)
        self._ahead = kept

    def on_trade(self, trade: Trade) -> None:
        """A print eats the front of the queue at its price."""
        if trade.is_block:
            return
        hit = trade.taker_side.opposite
        for key, (side, price, ahead) in self._ahead.items():
            if side is hit and price == trade.price:
                self._ahead[key] = (side, price, max(0, ahead - trade.count))

    def ahead(self, order: ClientOrderId) -> Count | None:
        """At most so much is before it; None when it has not been seen resting."""
        known = self._ahead.get(order)
        return None if known is None else Count(known[2])


@attrs.define(eq=False)
class Signals:
    """One market's memory."""

    prints: SlowPrints = attrs.field(factory=SlowPrints)
    moves: MidMoves = attrs.field(factory=MidMoves)
    flow: Flow = attrs.field(factory=Flow)
    queue: QueuePlace = attrs.field(factory=QueuePlace)

    def on_trade(self, trade: Trade) -> None:
        """A public print."""
        self.prints.on_trade(trade)
        self.flow.on_trade(trade)
        self.queue.on_trade(trade)

    def observe(
        self, now: Micros, bid: Price | None, ask: Price | None, orders: Sequence[Order], book: OrderBook
    ) -> None:
        """The others' best prices and our orders, as of `now`."""
        self.moves.observe(now, None if bid is None or ask is None else bid + ask)
        self.queue.observe(orders, book)

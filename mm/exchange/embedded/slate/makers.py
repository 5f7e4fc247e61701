"""House market makers: layers of quotes around a price, and the thin layer between traders and the core.

Prices are whole cents in here (the slate's grid); they become `Price` where they meet the core.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

import attrs

from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, CONTRACT, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker, OrderId, Side, TimeInForce
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import OrderRecord, OrderRequest
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.core.state import MarketState

_OPEN: Final = (MarketStatus.ACTIVE, MarketStatus.INACTIVE)
LOWEST: Final = 1
HIGHEST: Final = 99

FAST: Final = "house-maker-fast"
SLOW: Final = "house-maker-slow"
DEEP: Final = "house-maker-deep"
RETAIL: Final = "house-retail"
NOISE: Final = "house-noise"
INFORMED: Final = "house-informed"
ARBITRAGE: Final = "house-arbitrage"
HOUSE: Final = (FAST, SLOW, DEEP, RETAIL, NOISE, INFORMED, ARBITRAGE)
"""The house's members of the exchange. Separate users, or self-trade prevention would keep them apart."""


@attrs.define(eq=False, repr=False)
class Floor:
    """Where the house trades: plain calls into the core at the batch's time, with refusals counted by code.

    A refusal is part of the game (a post-only quote that would cross, a close that came first), never an error.
    """

    core: ExchangeCore
    now: Micros = Micros(0)
    refusals: Counter[str] = attrs.field(factory=Counter)
    _stuck: list[tuple[str, OrderId]] = attrs.field(factory=list)
    _retry_at: Micros = Micros(0)
    _resting: dict[str, Mapping[OrderId, OrderRecord]] = attrs.field(factory=dict)

    def open_accounts(self) -> None:
        """Make the house's members known to the exchange."""
        for user in HOUSE:
            self._resting[user] = self.core.add_user(user, is_house=True).resting

    def rest(self, user: str, ticker: MarketTicker, side: Side, cents: int, count: Count) -> OrderId | None:
        """A post-only quote; None when it was refused."""
        request = OrderRequest(
            ticker=ticker, side=side, count=count, price=Price(cents * CENT), post_only=True
        )
        try:
            result = self.core.create(self.now, user, request)
        except Refused as refused:
            self.refusals[refused.code] += 1
            return None
        return result.order_id if result.remaining_count else None

    def take(self, user: str, ticker: MarketTicker, side: Side, limit: int, count: Count) -> Count:
        """An immediate-or-cancel order up to `limit` cents; what it got."""
        request = OrderRequest(
            ticker=ticker,
            side=side,
            count=count,
            price=Price(min(max(limit, LOWEST), HIGHEST) * CENT),
            time_in_force=TimeInForce.IOC,
        )
        try:
            return self.core.create(self.now, user, request).fill_count
        except Refused as refused:
            self.refusals[refused.code] += 1
            return Count(0)

    def cancel(self, user: str, order_id: OrderId) -> bool:
        """Cancel if it still rests; whether it did."""
        if order_id not in self._resting[user]:
            return False
        try:
            self.core.cancel(self.now, user, order_id)
        except Refused as refused:
            self.refusals[refused.code] += 1
            self._stuck.append((user, order_id))
            return False
        return True

    def free_stuck(self) -> None:
        """Cancel what could not be cancelled before (the exchange was paused). Cheap when there is nothing."""
        if self._stuck and self.now >= self._retry_at:
            self._retry_at = Micros(self.now + SECOND)
            stuck, self._stuck = self._stuck, []
            for user, order_id in stuck:
                self.cancel(user, order_id)

    def close(self, market: MarketState) -> None:
        """End trading in a market now, unless somebody else has."""
        if market.status in _OPEN:
            self.core.set_close_time(self.now, market.ticker, self.now)

    def determine(self, market: MarketState, value: Price) -> None:
        """Fix a market's result, unless somebody else has."""
        if market.status in _OPEN or market.status is MarketStatus.CLOSED:
            self.core.determine(self.now, market.ticker, value)

    def remaining(self, user: str, order_id: OrderId) -> Count:
        """What of an order rests, 0 when it is gone."""
        order = self._resting[user].get(order_id)
        return order.remaining if order is not None else Count(0)


@attrs.define(eq=False, repr=False)
class Layers:
    """One maker's quotes in one market: an order at each of `offsets` ticks behind its touch, on both sides."""

    floor: Floor
    user: str
    ticker: MarketTicker
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    """Contracts; drawn once, picked by price and turn, so that sizes never depend on who traded."""
    turn: int = 0
    _orders: dict[Side, dict[int, OrderId]] = attrs.field(factory=lambda: {Side.BID: {}, Side.ASK: {}})

    _second: dict[Side, dict[int, OrderId]] = attrs.field(factory=lambda: {Side.BID: {}, Side.ASK: {}})

    def size(self, cents: int, offset: int) -> Count:
        """The wanted size of a level."""
        contracts = self.sizes[(cents * 7 + self.turn * 3 + offset) % len(self.sizes)]
        return Count(contracts * CONTRACT)

    def quote(self, bid: int, ask: int) -> None:
        """Stand at `bid` and `ask` (cents; outside 1..99: that side is empty) and behind them.

        Cancels what is nearer than wanted on both sides first, then fills the gaps. What is a little deeper stays.
        """
        if not self.offsets:  # a maker that sits this market out
            return
        self._drop(Side.BID, bid)
        self._drop(Side.ASK, ask)
        self._fill(Side.BID, bid)
        self._fill(Side.ASK, ask)

    def _drop(self, side: Side, touch: int) -> None:
        sign = -1 if side is Side.BID else 1
        near, far = self.offsets[0], self.offsets[-1] + 3
        for orders in (self._orders[side], self._second[side]):
            gone = [cents for cents in orders if not near <= (cents - touch) * sign <= far]
            for cents in gone:
                self.floor.cancel(self.user, orders.pop(cents))

    def _fill(self, side: Side, touch: int) -> None:
        orders = self._orders[side]
        sign = -1 if side is Side.BID else 1
        for offset in self.offsets:
            cents = touch + sign * offset
            if not LOWEST <= cents <= HIGHEST:
                return
            known = orders.get(cents)
            if known is None or not self.floor.remaining(self.user, known):
                self._place(side, cents, offset)

    def _place(self, side: Side, cents: int, offset: int) -> None:
        placed = self.floor.rest(self.user, self.ticker, side, cents, self.size(cents, offset))
        if placed is None:
            self._orders[side].pop(cents, None)
        else:
            self._orders[side][cents] = placed

    def flicker(self, side: Side, touch: int, level: int) -> None:
        """Put a second order behind the first one of a level, or take it away again.

        The first order keeps its place in the queue: a level's age is what makes the queue worth something.
        """
        offset = self.offsets[level % len(self.offsets)]
        cents = touch - offset if side is Side.BID else touch + offset
        if not LOWEST <= cents <= HIGHEST:
            return
        known = self._second[side].pop(cents, None)
        if known is not None and self.floor.cancel(self.user, known):
            return
        self.turn += 1
        placed = self.floor.rest(self.user, self.ticker, side, cents, self.size(cents, offset))
        if placed is not None:
            self._second[side][cents] = placed

    def replace(self, side: Side, touch: int, level: int) -> None:
        """Replace the first order of a level by one of another size: it goes to the end of the queue."""
        offset = self.offsets[level % len(self.offsets)]
        cents = touch - offset if side is Side.BID else touch + offset
        if not LOWEST <= cents <= HIGHEST:
            return
        self.turn += 1
        known = self._orders[side].pop(cents, None)
        if known is not None:
            self.floor.cancel(self.user, known)
        self._place(side, cents, offset)

    def pull(self) -> None:
        """Cancel everything."""
        for orders in (*self._orders.values(), *self._second.values()):
            for order_id in orders.values():
                self.floor.cancel(self.user, order_id)
            orders.clear()

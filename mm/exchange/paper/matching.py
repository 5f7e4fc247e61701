"""One market on paper: our orders beside the displayed book, and the model that fills them. Pure: no clock, no IO.

The model:
- An order joins behind all that is displayed at its price.
- A trade at its price eats the queue ahead of it, then the order. A trade through its price fills it first.
- A displayed decrease that no trade explains is a cancellation, taken to be spread evenly over the queue: the part
  ahead of us shrinks in proportion. Trade and decrease of one match may come in either order (within 2 seconds).
- Size that appears on the other side at or through our price would have met us: it fills us.
- Displayed size that we took, or were filled by, is not there for us a second time while it stays displayed.
Our orders are not in the live book, so nobody reacts to them; that is the limit of any such model.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.fees import FeeAccumulator
from mm.domain.fill import Liquidity, Trade
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import (
    ClientOrderId,
    GroupId,
    MarketTicker,
    OrderId,
    SelfTradePrevention,
    Side,
)
from mm.exchange.port import OrderReport, OrderStatus

EXPLAINED_WITHIN: Final = 2 * SECOND
"""A trade and the decrease it causes come at most this far apart."""


@attrs.define(eq=False, kw_only=True)
class PaperOrder:
    """One order of ours on paper."""

    order_id: OrderId
    client_order_id: ClientOrderId
    ticker: MarketTicker
    side: Side
    price: Price
    initial: Count
    remaining: Count
    exchange_index: int
    post_only: bool
    created_at: Micros
    filled: Count = Count(0)
    group_id: GroupId | None = None
    expires_at: Micros | None = None
    cancel_on_pause: bool = False
    status: OrderStatus = OrderStatus.RESTING
    updated_at: Micros = Micros(0)
    reason: str = ""
    queue_ahead: Count = Count(0)
    """Displayed contracts that come before us at our price."""
    cut: Count = Count(0)
    """What unexplained decreases took off `queue_ahead`; given back when a trade turns out to explain them."""
    fees: FeeAccumulator = attrs.field(factory=FeeAccumulator)

    def report(self) -> OrderReport:
        """What the venue would say about it."""
        return OrderReport(
            order_id=self.order_id,
            client_order_id=self.client_order_id,
            ticker=self.ticker,
            side=self.side,
            price=self.price,
            status=self.status,
            initial=self.initial,
            filled=self.filled,
            remaining=self.remaining,
            exchange_index=self.exchange_index,
            group_id=self.group_id,
            expires_at=self.expires_at,
            created_at=self.created_at,
            updated_at=self.updated_at,
            reason=self.reason,
        )


@attrs.frozen
class Execution:
    """`count` of an order traded at `price`; the order's own counts have been moved already."""

    order: PaperOrder
    price: Price
    count: Count
    liquidity: Liquidity


@attrs.define(eq=False)
class _Track:
    """What is known about one level's trades and decreases that still lack their other half."""

    traded: int = 0
    cut: int = 0
    at: Micros = Micros(0)


@attrs.define(eq=False)
class Taking:
    """What an incoming order met."""

    executions: list[Execution] = attrs.field(factory=list)
    is_stopped: bool = False
    """It met an order of ours and gives way: its remainder is cancelled."""
    gave_way: list[PaperOrder] = attrs.field(factory=list)
    """Resting orders of ours that the incoming one displaces."""


@attrs.define(eq=False)
class PaperMarket:
    """The displayed book of one market and our orders in it, each side in time order."""

    book: OrderBook = attrs.field(factory=OrderBook)
    orders: dict[Side, list[PaperOrder]] = attrs.field(factory=lambda: {Side.BID: [], Side.ASK: []})
    _taken: dict[tuple[Side, Price], int] = attrs.field(factory=dict)
    _tracks: dict[tuple[Side, Price], _Track] = attrs.field(factory=dict)

    # our side

    def resting(self) -> list[PaperOrder]:
        """All our orders here."""
        return self.orders[Side.BID] + self.orders[Side.ASK]

    def rest(self, order: PaperOrder) -> None:
        """Join the queue at the order's price, behind everything displayed."""
        order.queue_ahead = self.book.size_at(order.side, order.price)
        order.cut = Count(0)
        self.orders[order.side].append(order)

    def remove(self, order: PaperOrder) -> None:
        """Take an order out of the queue."""
        self.orders[order.side].remove(order)

    def available(self, side: Side, price: Price) -> Count:
        """What of a displayed level is still there for us."""
        return Count(max(self.book.size_at(side, price) - self._taken.get((side, price), 0), 0))

    def would_cross(self, side: Side, price: Price) -> bool:
        """Whether an order at `price` would trade at once, with the book or with ourselves."""
        other = side.opposite
        if any(_reaches(side, price, order.price) for order in self.orders[other]):
            return True
        return any(self.available(other, level) for level, _ in self._levels_within(side, price))

    def take(self, order: PaperOrder, prevention: SelfTradePrevention, *, dry_run: bool = False) -> Taking:
        """Trade an incoming order against what is displayed up to its limit, best price first.

        With `dry_run` nothing is moved: the executions say what would trade (for fill-or-kill).
        """
        other = order.side.opposite
        result = Taking()
        left = order.remaining
        prices = {level for level, _ in self._levels_within(order.side, order.price)}
        prices |= {own.price for own in self.orders[other] if _reaches(order.side, order.price, own.price)}
        for price in sorted(prices, reverse=order.side is Side.ASK):
            own = [resting for resting in self.orders[other] if resting.price == price]
            offered = self.available(other, price)
            if own and prevention is SelfTradePrevention.TAKER:
                offered = min(offered, own[0].queue_ahead)
            elif own and min(offered, own[0].queue_ahead) < left:
                result.gave_way += own
            count = Count(min(offered, left))
            if count:
                left = Count(left - count)
                if not dry_run:
                    self._taken[other, price] = self._taken.get((other, price), 0) + count
                    _apply(order, count)
                result.executions.append(Execution(order, price, count, Liquidity.TAKER))
            if left and own and prevention is SelfTradePrevention.TAKER:
                result.is_stopped = True
            if not left or result.is_stopped:
                break
        return result

    # the market's side

    def snapshot(
        self, bids: Iterable[tuple[Price, Count]], asks: Iterable[tuple[Price, Count]]
    ) -> list[Execution]:
        """A whole new book: nobody can be behind more than is displayed; what crosses us fills us."""
        self.book.snapshot(bids, asks)
        self._tracks.clear()
        for side, price in list(self._taken):
            self._clip_taken(side, price)
        for order in self.resting():
            order.queue_ahead = min(order.queue_ahead, self.book.size_at(order.side, order.price))
            order.cut = Count(0)
        return list(self._meet_displayed())

    def delta(self, side: Side, price: Price, change: Count, now: Micros) -> list[Execution]:
        """One level changed. Raises `BookOutOfSync` as the book does."""
        before = self.book.size_at(side, price)
        self.book.apply_delta(side, price, change)
        if change < 0:
            self._clip_taken(side, price)
            self._decrease(side, price, -change, before, now)
            return []
        return list(self._meet(side, price, change))

    def trade(self, trade: Trade, now: Micros) -> list[Execution]:
        """A print: fills what it went through, then eats the queue at its price."""
        if trade.is_block:
            return []
        side = trade.taker_side.opposite
        left = int(trade.count)
        done: list[Execution] = []
        for order in self._best_first(side):
            if not _reaches(trade.taker_side, trade.price, order.price) or order.price == trade.price:
                continue
            # The taker paid more than we asked: it would have met us first, and nobody was left ahead of us.
            order.queue_ahead = Count(0)
            count = min(left, order.remaining)
            left -= count
            done += _execute(order, count)
        self._explain(side, trade, now)
        mine = 0
        for order in [order for order in self.orders[side] if order.price == trade.price]:
            reach = left - mine
            eaten = min(order.queue_ahead, reach)
            order.queue_ahead = Count(order.queue_ahead - eaten)
            count = min(order.remaining, reach - eaten)
            mine += count
            done += _execute(order, count)
        self._drop_filled()
        return done

    def mark_out_of_sync(self) -> None:
        """The displayed book is stale; our orders stay."""
        self.book.mark_out_of_sync()

    # how decreases and trades belong together

    def _track(self, side: Side, price: Price, now: Micros) -> _Track:
        track = self._tracks.setdefault((side, price), _Track())
        if now - track.at > EXPLAINED_WITHIN:
            track.traded = track.cut = 0
            for order in self.orders[side]:
                if order.price == price:
                    order.cut = Count(0)
        track.at = now
        return track

    def _has_orders_at(self, side: Side, price: Price) -> bool:
        return any(order.price == price for order in self.orders[side])

    def _decrease(self, side: Side, price: Price, change: int, before: Count, now: Micros) -> None:
        if not self._has_orders_at(side, price):
            self._tracks.pop((side, price), None)
            return
        track = self._track(side, price, now)
        explained = min(change, track.traded)
        track.traded -= explained
        cancelled = change - explained
        track.cut += cancelled
        for order in self.orders[side]:
            if order.price == price and cancelled:
                off = min(cancelled * order.queue_ahead // before, order.queue_ahead)
                order.queue_ahead = Count(order.queue_ahead - off)
                order.cut = Count(order.cut + off)

    def _explain(self, side: Side, trade: Trade, now: Micros) -> None:
        """A trade came: take back what its decrease, if that came first, was mistaken for."""
        if not self._has_orders_at(side, trade.price):
            return
        track = self._track(side, trade.price, now)
        explained = min(int(trade.count), track.cut)
        if explained:
            for order in self.orders[side]:
                if order.price == trade.price:
                    back = order.cut * explained // track.cut
                    order.queue_ahead = Count(order.queue_ahead + back)
                    order.cut = Count(order.cut - back)
            track.cut -= explained
        track.traded += trade.count - explained

    # what appears on the other side

    def _meet(self, side: Side, price: Price, change: int) -> Iterator[Execution]:
        """New size at a level of the book meets our orders on the other side that it reaches."""
        left = change
        for order in self._best_first(side.opposite):
            if left <= 0 or not _reaches(side, price, order.price):
                break
            count = min(left, order.remaining)
            left -= count
            self._taken[side, price] = self._taken.get((side, price), 0) + count
            yield from _execute(order, count)
        self._drop_filled()

    def _meet_displayed(self) -> Iterator[Execution]:
        for side in (Side.BID, Side.ASK):
            for price, _ in self.book.depth(side):
                if any(_reaches(side, price, order.price) for order in self.orders[side.opposite]):
                    yield from self._meet(side, price, self.available(side, price))

    # help

    def _levels_within(self, side: Side, limit: Price) -> list[tuple[Price, Count]]:
        """The levels of the other side that an order of `side` with this limit may trade with, best first."""
        return [
            (price, count) for price, count in self.book.depth(side.opposite) if _reaches(side, limit, price)
        ]

    def _best_first(self, side: Side) -> list[PaperOrder]:
        """Our orders of a side by price, then time (the sort is stable)."""
        return sorted(self.orders[side], key=lambda order: -order.price * side.sign)

    def _clip_taken(self, side: Side, price: Price) -> None:
        taken = self._taken.get((side, price))
        if taken is not None:
            left = min(taken, self.book.size_at(side, price))
            if left:
                self._taken[side, price] = left
            else:
                del self._taken[side, price]

    def _drop_filled(self) -> None:
        for side, orders in self.orders.items():
            if any(not order.remaining for order in orders):
                self.orders[side] = [order for order in orders if order.remaining]


def _reaches(side: Side, limit: Price, price: Price) -> bool:
    """Whether an order of `side` with this limit trades with one of the other side at `price`."""
    return price <= limit if side is Side.BID else price >= limit


def _apply(order: PaperOrder, count: int) -> None:
    order.filled = Count(order.filled + count)
    order.remaining = Count(order.remaining - count)


def _execute(order: PaperOrder, count: int) -> list[Execution]:
    if count <= 0:
        return []
    _apply(order, count)
    return [Execution(order, order.price, Count(count), Liquidity.MAKER)]

"""The paper venue without IO: orders, groups, account and markets, told the time by whoever calls.

Every method acts at once, as the venue would on arrival of a request; travelling times are `venue`'s. What happens to
our orders is appended to `events`, in order, for the feed.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import attrs
import structlog

from mm.domain.fees import FeeSchedule
from mm.domain.fill import Fill, Trade, TradeId
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, Side, TimeInForce
from mm.exchange.paper.account import PaperAccount, PaperGroup, group_limit, opening_cost
from mm.exchange.paper.matching import Execution, PaperMarket, PaperOrder
from mm.exchange.port import (
    ExchangeRejected,
    ExchangeUnavailable,
    MarketEvent,
    MarketEventKind,
    NewOrder,
    NotRestingHere,
    OrderIdSpent,
    OrderRef,
    OrderReport,
    OrderStatus,
    PlaceAck,
    Settlement,
    TradingPaused,
)

KEPT_ORDERS: Final = 20_000
"""Finished orders that reads still show; the spent client ids are remembered for ever."""
KEPT_FILLS: Final = 50_000

log = structlog.get_logger(__name__)


Event = Fill | OrderReport | GroupId
"""What the private channels would tell: a fill, an order's change, a triggered group."""


@attrs.define(eq=False)
class PaperCore:
    """All state of the paper venue."""

    run: str
    """Stands in every id, so that no id of another run is ever met again."""
    account: PaperAccount
    markets: dict[MarketTicker, PaperMarket] = attrs.field(factory=dict)
    listed: dict[MarketTicker, Market] = attrs.field(factory=dict)
    """Markets as last listed, with what the feed said since."""
    schedules: dict[MarketTicker, FeeSchedule] = attrs.field(factory=dict)
    """Fees, asked for before the first order in a market."""
    live: dict[OrderId, PaperOrder] = attrs.field(factory=dict)
    done: "deque[PaperOrder]" = attrs.field(factory=lambda: deque(maxlen=KEPT_ORDERS))
    fills: "deque[Fill]" = attrs.field(factory=lambda: deque(maxlen=KEPT_FILLS))
    groups: dict[GroupId, PaperGroup] = attrs.field(factory=dict)
    spent: set[ClientOrderId] = attrs.field(factory=set)
    events: "deque[Event]" = attrs.field(factory=deque)
    is_listened: bool = False
    """A feed is at work. Without one events are not kept, as the real venue's private channels keep none."""
    stale_fees: set[MarketTicker] = attrs.field(factory=set)
    """Markets whose fees changed since they were asked for."""
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    def market(self, ticker: MarketTicker) -> PaperMarket:
        """The paper side of a market."""
        return self.markets.setdefault(ticker, PaperMarket())

    def _id(self, kind: str) -> str:
        return f"paper-{self.run}-{kind}{next(self._numbers)}"

    def _say(self, event: Event) -> None:
        if self.is_listened:
            self.events.append(event)

    # writes

    def place(self, new: NewOrder, now: Micros) -> PlaceAck:
        """A create, as it arrives. Raises what the venue would answer."""
        self.expire(now)
        if new.client_order_id in self.spent:
            raise OrderIdSpent("order already exists", status=409, code="order_already_exists")
        listed = self._open_market(new.ticker, now)
        self._check_shape(new, listed, now)
        market = self.market(new.ticker)
        if not market.book.is_synced:
            raise ExchangeUnavailable("no live book of this market: nothing to trade against on paper")
        count = self._capped(new)
        order = PaperOrder(
            order_id=OrderId(self._id("o")),
            client_order_id=new.client_order_id,
            ticker=new.ticker,
            side=new.side,
            price=new.price,
            initial=new.count,
            remaining=count,
            exchange_index=listed.exchange_index,
            post_only=new.post_only,
            group_id=new.group_id,
            expires_at=new.expires_at,
            cancel_on_pause=new.cancel_on_pause,
            created_at=now,
            updated_at=now,
        )
        if new.post_only and market.would_cross(order.side, order.price):
            raise _refused("invalid_order", "invalid order: post only cross")
        self._check_cash(order, count)
        if new.time_in_force is TimeInForce.FOK:
            trial = market.take(order, new.self_trade_prevention, dry_run=True)
            if sum(e.count for e in trial.executions) < count:
                code = "fill_or_kill_insufficient_resting_volume"
                raise ExchangeRejected("not enough to fill it whole", status=409, code=code)
        self.spent.add(order.client_order_id)
        self._enter(market, order, new, now)
        return PlaceAck(order_id=order.order_id, filled=order.filled, remaining=order.remaining)

    def _enter(self, market: PaperMarket, order: PaperOrder, new: NewOrder, now: Micros) -> None:
        """Let an accepted order trade and rest."""
        taking = market.take(order, new.self_trade_prevention)
        for displaced in taking.gave_way:
            self._end(displaced, OrderStatus.CANCELLED, "SelfTradeCancel", now)
        self.live[order.order_id] = order
        may_rest = new.time_in_force is TimeInForce.GTC and not taking.is_stopped
        if order.remaining and may_rest:
            market.rest(order)
        self.executed(taking.executions, now, rests=order.remaining > 0 and may_rest)
        if order.remaining and not may_rest:
            reason = "SelfTradeCancel" if taking.is_stopped else ""
            self._end(order, OrderStatus.CANCELLED, reason, now, was_resting=False)
        elif order.remaining and not taking.executions:
            self._say(order.report())
        elif not order.remaining and order.status is OrderStatus.RESTING:
            # Nothing was wanted after the reduce-only cap.
            self._end(order, OrderStatus.CANCELLED, "ReduceOnlyCancel", now, was_resting=False)

    def amend(
        self, ref: OrderRef, side: Side, price: Price, count: Count, expires_at: Micros | None, now: Micros
    ) -> None:
        """A change of price, total count or expiry. Refused: the order stays as it was."""
        self.expire(now)
        order = self._resting(ref)
        listed = self._open_market(order.ticker, now)
        if side is not order.side:
            raise _refused("invalid_parameters", "the side of an order cannot change")
        if count <= order.filled:
            raise _refused("invalid_parameters", "count is not more than what is filled")
        if not listed.grid.is_valid(price):
            raise _refused("invalid_price", "invalid price")
        if expires_at is not None and 0 < expires_at <= now:
            raise _refused("invalid_parameters", "the expiry has passed")
        market = self.market(order.ticker)
        remaining = Count(count - order.filled)
        keeps_place = price == order.price and remaining <= order.remaining
        if not keeps_place:
            if not market.book.is_synced:
                raise ExchangeUnavailable("no live book of this market: nothing to trade against on paper")
            if market.would_cross(side, price):
                raise _refused("invalid_order", "invalid order: post only cross")
            self._check_cash(attrs.evolve(order, price=price), remaining, instead_of=order)
            market.remove(order)
            order.price = price
            market.rest(order)
        order.remaining = remaining
        order.initial = count
        if expires_at is not None:
            order.expires_at = expires_at or None
        order.updated_at, order.reason = now, "Amend"
        self._say(order.report())

    def decrease(self, ref: OrderRef, reduce_to: Count, now: Micros) -> None:
        """Less of an order; to nothing is a cancel. Keeps the queue place."""
        self.expire(now)
        order = self._resting(ref)
        if reduce_to > order.remaining:
            raise _refused("invalid_parameters", "a decrease cannot increase")
        if reduce_to <= 0:
            self._end(order, OrderStatus.CANCELLED, "Decrease", now)
            return
        order.initial = Count(order.initial - order.remaining + reduce_to)
        order.remaining = reduce_to
        order.updated_at, order.reason = now, "Decrease"
        self._say(order.report())

    def cancel(self, ref: OrderRef, now: Micros) -> Count:
        """Take an order off; returns how much."""
        self.expire(now)
        order = self._resting(ref)
        left = order.remaining
        self._end(order, OrderStatus.CANCELLED, "Decrease", now)
        return left

    def create_group(self, contracts_limit: int, exchange_index: int) -> GroupId:
        """A new group."""
        if contracts_limit < 1:
            raise _refused("invalid_parameters", "contracts_limit must be at least 1")
        group_id = GroupId(self._id("g"))
        self.groups[group_id] = PaperGroup(group_id, exchange_index, group_limit(contracts_limit))
        return group_id

    def trigger_group(self, group_id: GroupId, exchange_index: int, now: Micros) -> None:
        """Cancel what is in it and refuse what comes later. Safe to repeat."""
        group = self._group(group_id, exchange_index)
        if not group.is_triggered:
            group.is_triggered = True
            self._say(group_id)
        self._end_all((o for o in self.live.values() if o.group_id == group_id), "", now)

    def delete_group(self, group_id: GroupId, exchange_index: int, now: Micros) -> None:
        """Forget it; what is in it is cancelled."""
        self._group(group_id, exchange_index)
        self._end_all((o for o in self.live.values() if o.group_id == group_id), "", now)
        del self.groups[group_id]

    # checks

    def _open_market(self, ticker: MarketTicker, now: Micros) -> Market:
        market = self.listed.get(ticker)
        if market is None or ticker not in self.schedules:
            raise _refused("market_not_found", "market not found")
        is_closed = market.close_time is not None and market.close_time <= now
        if market.status.is_over or is_closed:
            raise TradingPaused("market closed", status=409, code="market_closed")
        # A market opens at its time without any message.
        has_opened = (
            market.status is MarketStatus.INITIALIZED
            and market.open_time is not None
            and market.open_time <= now
        )
        if market.status is not MarketStatus.ACTIVE and not has_opened:
            raise TradingPaused("trading is paused", status=409, code="trading_is_paused")
        return market

    def _check_shape(self, new: NewOrder, market: Market, now: Micros) -> None:
        is_gtc = new.time_in_force is TimeInForce.GTC
        if new.count <= 0:
            raise _refused("invalid_parameters", "count must be positive")
        if not market.grid.is_valid(new.price):
            raise _refused("invalid_price", "invalid price")
        if new.reduce_only and new.time_in_force is not TimeInForce.IOC:
            raise _refused("invalid_parameters", "reduce_only goes with immediate-or-cancel only")
        if new.post_only and not is_gtc:
            raise _refused("invalid_parameters", "post_only goes with good-till-cancelled only")
        if new.expires_at is not None and (not is_gtc or new.expires_at <= now):
            raise _refused("invalid_parameters", "the expiry has passed, or does not go with this order")
        if new.exchange_index not in (market.exchange_index, -1):
            raise _refused("market_not_found", "market not found on this shard")
        if new.group_id is not None and self._group(new.group_id, market.exchange_index).is_triggered:
            raise _refused("order_group_triggered", "the order group is triggered")

    def _group(self, group_id: GroupId, exchange_index: int) -> PaperGroup:
        group = self.groups.get(group_id)
        if group is None or group.exchange_index != exchange_index:
            raise NotRestingHere("order group not found", status=404, code="not_found")
        return group

    def _capped(self, new: NewOrder) -> Count:
        if not new.reduce_only:
            return new.count
        closable = max(-self.account.net(new.ticker) * new.side.sign, 0)
        return Count(min(new.count, closable))

    def _check_cash(self, order: PaperOrder, count: Count, instead_of: PaperOrder | None = None) -> None:
        others = [o for o in self.live.values() if o is not instead_of]
        closable = max(-self.account.net(order.ticker) * order.side.sign, 0)
        # Conservative: what closes may be claimed by several orders at once here, as long as cash covers the rest.
        need = opening_cost(order.side, order.price, Count(max(count - closable, 0)))
        if need > self.account.cash - self.account.reserved(others, self.schedules):
            raise _refused("insufficient_balance", "insufficient balance")

    def _resting(self, ref: OrderRef) -> PaperOrder:
        order = self.live.get(ref.order_id)
        if order is None or order.ticker != ref.ticker:
            raise NotRestingHere("not found", status=404, code="not_found")
        return order

    # what happens to orders

    def executed(self, executions: list[Execution], now: Micros, *, rests: bool = True) -> None:
        """Book executions: fills, cash, groups; orders that are filled whole are done."""
        tripped: list[PaperGroup] = []
        for execution in executions:
            order = execution.order
            schedule = self.schedules[order.ticker]
            fee = order.fees.charge(
                schedule, order.side, execution.price, execution.count, execution.liquidity
            )
            fill = Fill(
                order_id=order.order_id,
                trade_id=TradeId(self._id("t")),
                ticker=order.ticker,
                side=order.side,
                price=execution.price,
                count=execution.count,
                fee=fee.charged,
                liquidity=execution.liquidity,
                ts=now,
                client_order_id=order.client_order_id,
            )
            self.account.book(fill, order.exchange_index)
            self.fills.append(fill)
            self._say(fill)
            order.updated_at, order.reason = now, "Trade"
            group = self.groups.get(order.group_id) if order.group_id is not None else None
            if group is not None and group.matched(execution.count, now) and not group.is_triggered:
                tripped.append(group)
        for order in dict.fromkeys(execution.order for execution in executions):
            if not order.remaining:
                self._end(order, OrderStatus.EXECUTED, "Trade", now, was_resting=False)
            elif rests:
                self._say(order.report())
        for group in tripped:
            self.trigger_group(group.group_id, group.exchange_index, now)

    def _end(
        self,
        order: PaperOrder,
        status: OrderStatus,
        reason: str,
        now: Micros,
        *,
        was_resting: bool = True,
    ) -> None:
        if was_resting:
            self.market(order.ticker).remove(order)
        self.live.pop(order.order_id, None)
        order.status, order.reason, order.updated_at = status, reason, now
        order.remaining = Count(0)
        self.done.append(order)
        self._say(order.report())

    def _end_all(self, orders: Iterable[PaperOrder], reason: str, now: Micros) -> None:
        for order in list(orders):
            self._end(order, OrderStatus.CANCELLED, reason, now)

    def expire(self, now: Micros) -> None:
        """End what has outlived its expiry or its market."""
        for order in list(self.live.values()):
            close_time = self.listed[order.ticker].close_time
            if order.expires_at is not None and order.expires_at <= now:
                self._end(order, OrderStatus.CANCELLED, "ExpiryCancel", now)
            elif close_time is not None and close_time <= now:
                self._end(order, OrderStatus.CANCELLED, "CloseCancel", now)

    # what the live venue says

    def on_snapshot(
        self,
        ticker: MarketTicker,
        bids: list[tuple[Price, Count]],
        asks: list[tuple[Price, Count]],
        now: Micros,
    ) -> None:
        """A whole book."""
        self._moved(ticker, lambda market: market.snapshot(bids, asks), now)

    def on_delta(self, ticker: MarketTicker, side: Side, price: Price, change: Count, now: Micros) -> None:
        """One level. Raises `BookOutOfSync`."""
        self._moved(ticker, lambda market: market.delta(side, price, change, now), now)

    def on_trade(self, trade: Trade, now: Micros) -> None:
        """A print."""
        self._moved(trade.ticker, lambda market: market.trade(trade, now), now)

    def _moved(
        self, ticker: MarketTicker, move: Callable[[PaperMarket], list[Execution]], now: Micros
    ) -> None:
        market = self.market(ticker)
        if market.orders[Side.BID] or market.orders[Side.ASK]:
            self.expire(now)
        executions = move(market)
        if executions:
            self.executed(executions, now)

    def on_market_event(self, event: MarketEvent, now: Micros) -> None:
        """The market's life: grid, pauses, close, payout, fees."""
        if event.kind is MarketEventKind.FEES_CHANGED:
            self.stale_fees |= {
                ticker for ticker in self.schedules if self.listed[ticker].event_ticker == event.event_ticker
            }
        changed = self.listed.get(event.ticker)
        if changed is None:
            return
        mine = [order for order in self.live.values() if order.ticker == event.ticker]
        kind = event.kind
        if kind is MarketEventKind.ACTIVATED:
            changed = attrs.evolve(changed, status=MarketStatus.ACTIVE)
            self._end_all(mine, "HaltCancel", now)
        elif kind is MarketEventKind.DEACTIVATED:
            changed = attrs.evolve(changed, status=MarketStatus.INACTIVE)
            self._end_all((o for o in mine if o.cancel_on_pause), "HaltCancel", now)
        elif kind is MarketEventKind.CLOSE_DATE_UPDATED and event.close_time is not None:
            changed = attrs.evolve(changed, close_time=event.close_time)
        elif kind is MarketEventKind.GRID_CHANGED and event.grid is not None:
            changed = attrs.evolve(changed, grid=event.grid)
        elif kind in (MarketEventKind.DETERMINED, MarketEventKind.SETTLED):
            value = event.settlement_value
            changed = attrs.evolve(
                changed,
                status=MarketStatus.DETERMINED,
                settlement_value=changed.settlement_value if value is None else value,
            )
        self.learn(changed, now)

    def learn(self, market: Market, now: Micros) -> None:
        """A market as it is now, from an event or a listing; a payout in it is made."""
        self.listed[market.ticker] = market
        if not market.status.is_over:
            return
        self._end_all((o for o in self.live.values() if o.ticker == market.ticker), "CloseCancel", now)
        value = market.settlement_value
        if value is not None and market.status is not MarketStatus.CLOSED:
            settlement = self.account.settle(market.ticker, value, now)
            if settlement is not None:
                log.info("settled on paper", market=market.ticker, value=value)

    # reads

    def available(self, now: Micros) -> Money:
        """Cash that may be spent."""
        self.expire(now)
        return Money(self.account.cash - self.account.reserved(self.live.values(), self.schedules))

    def orders(self, now: Micros) -> list[PaperOrder]:
        """All orders that are still shown, newest first."""
        self.expire(now)
        found = [*self.done, *self.live.values()]
        return sorted(found, key=lambda order: order.created_at, reverse=True)

    def settlements(self) -> list[Settlement]:
        """Payouts, newest first."""
        return self.account.settlements[::-1]


def _refused(code: str, text: str) -> ExchangeRejected:
    return ExchangeRejected(text, status=400, code=code)

"""Matching: an incoming order against the opposite side, price-time, with self-trade prevention.

Emitted per match, in order: the trade, the delta on the maker's leg, both fills (maker first), both order updates,
both positions.
"""

import attrs

from mm.domain.numbers import Count, Money, Price
from mm.domain.order import SelfTradePrevention, Side
from mm.exchange.embedded.core.accounts import Accounts
from mm.exchange.embedded.core.book import BookSide
from mm.exchange.embedded.core.events import FillReported, TradePrinted
from mm.exchange.embedded.core.groups import Groups
from mm.exchange.embedded.core.model import (
    FillRecord,
    OrderRecord,
    OrderStatus,
    Reason,
    TradeRecord,
    same_member,
)
from mm.exchange.embedded.core.resting import Resting
from mm.exchange.embedded.core.state import MarketState, State, User


def crosses(side: Side, price: Price, best: Price | None) -> bool:
    """Whether an order would meet `best` on the other side."""
    if best is None:
        return False
    return price >= best if side is Side.BID else price <= best


@attrs.define(eq=False)
class Outcome:
    """What matching did to the incoming order."""

    filled: int = 0
    cost: int = 0
    """YES price x count."""
    fees: int = 0
    met_itself: bool = False
    """It stopped at an own resting order (`taker_at_cross`): the rest must be cut."""


@attrs.define(eq=False)
class Matcher:
    """Trades incoming orders."""

    _state: State
    _accounts: Accounts
    _resting: Resting
    _groups: Groups

    def fillable(self, market: MarketState, order: OrderRecord) -> int:
        """How much would trade at once, up to what remains: for fill-or-kill. Changes nothing."""
        found = 0
        for level in market.book.side(order.side.opposite).best_first():
            if not crosses(order.side, order.price, level.price):
                break
            for maker in level.orders.values():
                if not self._is_self(maker, order):
                    found += maker.remaining
                elif order.self_trade_prevention is SelfTradePrevention.TAKER:
                    return min(found, order.remaining)
                if found >= order.remaining:
                    return order.remaining
        return min(found, order.remaining)

    def match(self, user: User, market: MarketState, order: OrderRecord) -> Outcome:
        """Trade as far as the limit and the book allow. What remains is the caller's to rest or cut."""
        outcome = Outcome()
        opposite = market.book.side(order.side.opposite)
        while order.remaining:
            level = opposite.best_level
            if level is None or not crosses(order.side, order.price, level.price):
                break
            maker = next(iter(level.orders.values()))
            if not self._is_self(maker, order):
                self._trade(user, market, order, maker, opposite, outcome)
            elif order.self_trade_prevention is SelfTradePrevention.TAKER:
                outcome.met_itself = True
                break
            else:
                self._resting.take_off(maker, Reason.SELF_TRADE_CANCEL)
        return outcome

    def _is_self(self, one: OrderRecord, other: OrderRecord) -> bool:
        """Whether self-trade prevention keeps the two apart."""
        if self._state.rules.stp_across_subaccounts:
            return same_member(one.user_id, other.user_id)
        return one.user_id == other.user_id

    def _trade(
        self,
        user: User,
        market: MarketState,
        taker: OrderRecord,
        maker: OrderRecord,
        opposite: BookSide,
        outcome: Outcome,
    ) -> None:
        count = Count(min(taker.remaining, maker.remaining))
        trade = self._print(market, maker.price, count, taker.side)
        opposite.reduce(maker, count)
        maker.filled = Count(maker.filled + count)
        taker.remaining = Count(taker.remaining - count)
        taker.filled = Count(taker.filled + count)
        self._resting.delta(maker, maker.side, Count(-count))
        maker_user = self._resting.owner(maker)
        if not maker.remaining:
            self._resting.forget(maker_user, market, maker)
        self._fill(maker_user, market, maker, trade, is_taker=False)
        fee = self._fill(user, market, taker, trade, is_taker=True)
        outcome.filled += count
        outcome.cost += maker.price * count
        outcome.fees += fee
        for owner, order in ((maker_user, maker), (user, taker)):
            if order.remaining:
                self._resting.update(owner, order, Reason.TRADE)
            elif order.reduce_only and order.filled < order.initial_count:
                self._resting.finish(owner, order, OrderStatus.CANCELED, Reason.REDUCE_ONLY_CANCEL)
            else:
                self._resting.finish(owner, order, OrderStatus.EXECUTED, Reason.TRADE)
        self._accounts.report_position(maker_user, market)
        self._accounts.report_position(user, market)

    def _print(self, market: MarketState, price: Price, count: Count, taker_side: Side) -> TradeRecord:
        state = self._state
        trade = TradeRecord(
            seq=state.next_seq(),
            trade_id=state.new_trade_id(),
            ticker=market.ticker,
            price=price,
            count=count,
            taker_side=taker_side,
            ts=state.now,
        )
        market.trades.append(trade)
        market.last_price = price
        market.last_trade_count = count
        market.volume = Count(market.volume + count)
        market.dollar_volume = Money(market.dollar_volume + price * count)
        state.out.append(TradePrinted(trade))
        return trade

    def _fill(
        self, user: User, market: MarketState, order: OrderRecord, trade: TradeRecord, *, is_taker: bool
    ) -> Money:
        fee, position = self._accounts.apply_fill(
            user, market, order, trade.price, trade.count, is_taker=is_taker
        )
        if order.group_id is not None:
            self._groups.count(user, order.group_id, trade.count)
        if user.is_house and not user.wants_events:
            return fee
        fill = FillRecord(
            seq=self._state.next_seq(),
            trade_id=trade.trade_id,
            order_id=order.order_id,
            user_id=user.user_id,
            client_order_id=order.client_order_id,
            ticker=market.ticker,
            exchange_index=market.exchange_index,
            side=order.side,
            price=trade.price,
            count=trade.count,
            is_taker=is_taker,
            fee=fee,
            ts=trade.ts,
            post_position=position,
        )
        if not user.is_house:
            user.fills.append(fill)
        if user.wants_events:
            self._state.out.append(FillReported(fill))
        return fee

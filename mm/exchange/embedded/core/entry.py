"""Order entry: what a create, amend, decrease or cancel must pass, and what it then does.

Everything that can be refused is checked before anything changes, so that a `Refused` leaves no trace.
"""

import re
from typing import Final

import attrs

from mm.domain.fill import Liquidity
from mm.domain.market import MarketStatus
from mm.domain.numbers import Count, Micros, Money
from mm.domain.order import ClientOrderId, OrderId, TimeInForce
from mm.exchange.embedded.core.accounts import Accounts
from mm.exchange.embedded.core.matching import Matcher, Outcome, crosses
from mm.exchange.embedded.core.model import (
    AmendRequest,
    OrderRecord,
    OrderRequest,
    OrderStatus,
    Reason,
    WriteResult,
    split_account,
)
from mm.exchange.embedded.core.resting import Resting
from mm.exchange.embedded.core.rules import (
    Refused,
    exchange_paused,
    invalid_parameters,
    not_found,
    shard_down,
    trading_paused,
)
from mm.exchange.embedded.core.state import MarketState, State, User

_CLIENT_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NONE: Final = Count(0)


@attrs.define(eq=False)
class Entry:
    """The writes of members on single orders."""

    _state: State
    _accounts: Accounts
    _resting: Resting
    _matcher: Matcher

    # --- create ------------------------------------------------------------------------------------------------------

    def create(self, user: User, request: OrderRequest) -> WriteResult:
        """Place an order. Raises `Refused`."""
        market = self._state.market(request.ticker)
        if request.exchange_index is not None and request.exchange_index != market.exchange_index:
            raise Refused(self._state.rules.market_not_found_status, "market_not_found", "market not found")
        self._check_open(market)
        _check_request(request)
        if not user.is_house:
            self._check_member(user, market, request)
        try:
            self._check_terms(user, market, request)
            order = self._new_order(user, market, request)
            crossed = crosses(request.side, request.price, market.book.side(request.side.opposite).best)
            if not (crossed and request.post_only):
                self._check_means(user, market, order)
            elif not self._state.rules.post_only_cross_cancels:
                raise _post_only_cross()
        except Refused:
            if self._state.rules.refused_spends_id and request.client_order_id and not user.is_house:
                user.spent_ids.add(request.client_order_id)
            raise
        return self._accept(user, market, order, is_cut=crossed and request.post_only)

    def _check_member(self, user: User, market: MarketState, request: OrderRequest) -> None:
        if market.exchange_index not in user.cash:
            raise Refused(400, f"user_not_found:_{split_account(user.user_id)[0]}")
        if request.client_order_id:
            self._check_id(user, request.client_order_id)
        if len(user.resting) >= self._state.rules.max_open_orders:
            raise invalid_parameters("too many open orders")

    def _check_id(self, user: User, client_order_id: ClientOrderId) -> None:
        if not _CLIENT_ORDER_ID.fullmatch(client_order_id):
            raise invalid_parameters("client_order_id may hold letters, digits, - and _")
        if client_order_id in user.spent_ids:
            raise Refused(409, "order_already_exists", "order already exists")

    def _check_terms(self, user: User, market: MarketState, request: OrderRequest) -> None:
        """Price, expiry, group."""
        if not market.grid.is_valid(request.price):
            raise Refused(400, "invalid_price", "invalid price")
        if request.expires_at is not None:
            self._check_expiry(request.expires_at)
        if request.group_id is not None:
            group = user.groups.get(request.group_id)
            if group is None or group.exchange_index != market.exchange_index:
                raise Refused(404, "not_found", "not found", "order group not found")
            if group.is_triggered:
                rules = self._state.rules
                raise Refused(
                    rules.group_triggered_status, rules.group_triggered_code, "order group is triggered"
                )

    def _check_expiry(self, expires_at: Micros) -> None:
        if expires_at <= self._state.now:
            raise Refused(400, self._state.rules.expired_code, details="expiration_time is in the past")

    def _new_order(self, user: User, market: MarketState, request: OrderRequest) -> OrderRecord:
        """The record, not yet known to anybody. `reduce_only` caps what it may trade."""
        count = request.count
        if request.reduce_only:
            closable = max(-self._position(user, market) * request.side.sign, 0)
            count = Count(min(count, closable))
        return OrderRecord(
            seq=self._state.next_seq(),
            order_id=self._state.new_order_id(),
            user_id=user.user_id,
            client_order_id=request.client_order_id or None,
            ticker=market.ticker,
            exchange_index=market.exchange_index,
            side=request.side,
            price=request.price,
            initial_count=request.count,
            remaining=count,
            time_in_force=request.time_in_force,
            self_trade_prevention=request.self_trade_prevention,
            post_only=request.post_only,
            reduce_only=request.reduce_only,
            cancel_on_pause=request.cancel_on_pause,
            group_id=request.group_id,
            expires_at=request.expires_at,
            created_at=self._state.now,
            updated_at=self._state.now,
        )

    def _check_means(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """Fill-or-kill volume, then collateral."""
        if (
            order.time_in_force is TimeInForce.FOK
            and self._matcher.fillable(market, order) < order.initial_count
        ):
            raise Refused(
                self._state.rules.fok_status,
                "fill_or_kill_insufficient_resting_volume",
                "fill or kill insufficient resting volume",
            )
        if user.is_house:
            return
        if order.time_in_force is TimeInForce.GTC:
            liquidity = Liquidity.MAKER if order.post_only else Liquidity.TAKER
            self._accounts.check_can_rest(user, market, order, order.remaining, liquidity)
        else:
            self._accounts.check_can_take(user, market, order, order.remaining)

    def _accept(self, user: User, market: MarketState, order: OrderRecord, *, is_cut: bool) -> WriteResult:
        self._state.orders[order.order_id] = order
        if not user.is_house:
            user.orders.append(order)
            if order.client_order_id:
                user.spent_ids.add(order.client_order_id)
        if is_cut:
            self._resting.cut(user, order, Reason.POST_ONLY_CROSS_CANCEL)
            return self._result(order, Outcome())
        outcome = self._matcher.match(user, market, order)
        if order.status is OrderStatus.RESTING:  # not ended by its last fill
            if not outcome.filled and not outcome.met_itself and order.time_in_force is TimeInForce.GTC:
                self._resting.update(user, order, None)
            self._after_match(user, market, order, outcome)
            if order.expires_at is not None:
                self._resting.set_expiry(order, order.expires_at)
        self._margin_call(user, market)
        return self._result(order, outcome)

    def _after_match(self, user: User, market: MarketState, order: OrderRecord, outcome: Outcome) -> None:
        """Rest or cut what the match left."""
        if outcome.met_itself:
            self._resting.cut(user, order, Reason.SELF_TRADE_CANCEL)
        elif order.time_in_force is not TimeInForce.GTC:
            capped = order.reduce_only and order.filled + order.remaining < order.initial_count
            self._resting.cut(user, order, Reason.REDUCE_ONLY_CANCEL if capped else Reason.DECREASE)
        else:
            self._resting.put_on(user, market, order)

    def _margin_call(self, user: User, market: MarketState) -> None:
        """Cancel the newest resting orders of a user whose cash no longer covers what rests."""
        if user.is_house or not self._accounts.is_short_of_cash(user, market.exchange_index):
            return
        for order in reversed(list(user.resting.values())):
            if order.exchange_index == market.exchange_index and order.reserved:
                self._resting.take_off(order, Reason.MARGIN_CANCEL)
                if not self._accounts.is_short_of_cash(user, market.exchange_index):
                    return

    # --- amend -------------------------------------------------------------------------------------------------------

    def amend(
        self, user: User, order_id: OrderId, request: AmendRequest, exchange_index: int | None
    ) -> WriteResult:
        """Change a resting order. Raises `Refused`, leaving it as it was."""
        order = self._find(user, order_id, exchange_index)
        market = self._state.market(order.ticker)
        self._check_open(market)
        if request.ticker != order.ticker or request.side is not order.side:
            raise invalid_parameters("ticker and side must be the order's")
        new_id = request.updated_client_order_id
        if new_id and new_id != order.client_order_id:
            self._check_id(user, new_id)
        if request.expires_at:
            self._check_expiry(request.expires_at)
        if request.price != order.price and not market.grid.is_valid(request.price):
            raise Refused(400, "invalid_price", "invalid price")
        remaining = Count(request.count - order.filled)
        if remaining <= 0:
            if not self._state.rules.amend_below_filled_cancels or request.count <= 0:
                raise invalid_parameters("count must be above what is filled")
            self._resting.take_off(order, Reason.AMEND)
            return self._result(order, Outcome())
        if request.price == order.price and remaining <= order.remaining:
            return self._amend_in_place(user, market, order, request, remaining)
        return self._amend_anew(user, market, order, request, remaining)

    def _amend_in_place(
        self, user: User, market: MarketState, order: OrderRecord, request: AmendRequest, remaining: Count
    ) -> WriteResult:
        is_smaller = remaining < order.remaining
        self._amend_fields(user, order, request)
        if is_smaller:
            self._shrink(user, market, order, remaining)
        order.initial_count = request.count
        self._resting.update(user, order, Reason.AMEND)
        return self._result(order, Outcome(), is_changed=is_smaller)

    def _amend_anew(
        self, user: User, market: MarketState, order: OrderRecord, request: AmendRequest, remaining: Count
    ) -> WriteResult:
        crossed = crosses(order.side, request.price, market.book.side(order.side.opposite).best)
        if crossed and order.post_only:
            if not self._state.rules.post_only_amend_cancels:
                raise _post_only_cross()
            self._resting.take_off(order, Reason.POST_ONLY_CROSS_CANCEL)
            return self._result(order, Outcome())
        if not user.is_house:
            self._check_amended_means(user, market, order, request, remaining)
        self._resting.pull_off(user, market, order)
        self._amend_fields(user, order, request)
        order.price = request.price
        order.remaining = remaining
        order.initial_count = request.count
        self._resting.update(user, order, Reason.AMEND)
        outcome = self._matcher.match(user, market, order)
        if order.status is OrderStatus.RESTING:
            self._after_match(user, market, order, outcome)
        self._margin_call(user, market)
        return self._result(order, outcome)

    def _check_amended_means(
        self, user: User, market: MarketState, order: OrderRecord, request: AmendRequest, remaining: Count
    ) -> None:
        wanted = order.snapshot()
        wanted.price = request.price
        liquidity = Liquidity.MAKER if order.post_only else Liquidity.TAKER
        self._accounts.check_can_rest(user, market, wanted, remaining, liquidity, replaced=order)

    def _amend_fields(self, user: User, order: OrderRecord, request: AmendRequest) -> None:
        new_id = request.updated_client_order_id
        if new_id and new_id != order.client_order_id:
            user.spent_ids.add(new_id)
            order.client_order_id = new_id
        if request.expires_at is not None:
            self._resting.set_expiry(order, request.expires_at or None)

    # --- decrease and cancel -----------------------------------------------------------------------------------------

    def decrease(
        self,
        user: User,
        order_id: OrderId,
        reduce_by: Count | None,
        reduce_to: Count | None,
        exchange_index: int | None,
    ) -> WriteResult:
        """Lower a resting order's remaining count in its place. Raises `Refused`."""
        if (reduce_by is None) == (reduce_to is None):
            raise invalid_parameters("exactly one of reduce_by and reduce_to")
        order = self._find(user, order_id, exchange_index)
        market = self._state.market(order.ticker)
        if self._state.rules.decrease_in_pause:
            self._check_cancellable(market)
        else:
            self._check_open(market)
        if reduce_by is not None:
            if reduce_by <= 0:
                raise invalid_parameters("reduce_by must be positive")
            remaining = max(order.remaining - reduce_by, 0)
        else:
            assert reduce_to is not None
            if not 0 <= reduce_to <= order.remaining:
                raise invalid_parameters("reduce_to must lie between 0 and what remains")
            remaining = reduce_to
        removed = Count(order.remaining - remaining)
        if not remaining:
            self._resting.take_off(order, Reason.DECREASE)
        elif removed:
            self._shrink(user, market, order, Count(remaining))
            self._resting.update(user, order, Reason.DECREASE)
        return self._result(order, Outcome(), reduced_by=removed)

    def cancel(self, user: User, order_id: OrderId, exchange_index: int | None) -> WriteResult:
        """Take a resting order off. Raises `Refused`."""
        order = self._find(user, order_id, exchange_index)
        self._check_cancellable(self._state.market(order.ticker))
        removed = self._resting.take_off(order, self._state.rules.user_cancel_reason)
        return self._result(order, Outcome(), reduced_by=removed)

    def cancel_all(self, user: User) -> int:
        """Take off everything that may be cancelled now; how many."""
        taken = 0
        for order in list(user.resting.values()):
            try:
                self._check_cancellable(self._state.market(order.ticker))
            except Refused:
                continue  # paused or closed: the exchange itself decides about these
            self._resting.take_off(order, self._state.rules.user_cancel_reason)
            taken += 1
        return taken

    def _shrink(self, user: User, market: MarketState, order: OrderRecord, remaining: Count) -> None:
        """Lower the remaining count where it stands; emits the delta."""
        removed = order.remaining - remaining
        market.book.side(order.side).reduce(order, removed)
        if not user.is_house:
            self._accounts.resized(user, market, order)
        self._resting.delta(order, order.side, Count(-removed))

    # --- shared ------------------------------------------------------------------------------------------------------

    def _find(self, user: User, order_id: OrderId, exchange_index: int | None) -> OrderRecord:
        order = user.resting.get(order_id)
        if order is None or exchange_index not in (None, order.exchange_index):
            raise not_found()
        return order

    def _check_open(self, market: MarketState) -> None:
        shard = self._state.shard(market.exchange_index)
        if not shard.is_up:
            raise shard_down()
        if not shard.exchange_active:
            raise exchange_paused()
        if not shard.trading_active:
            raise trading_paused()
        if market.status is MarketStatus.INACTIVE:
            raise trading_paused()
        if market.status is not MarketStatus.ACTIVE:
            raise Refused(409, "market_closed", "market closed")

    def _check_cancellable(self, market: MarketState) -> None:
        shard = self._state.shard(market.exchange_index)
        if not shard.is_up:
            raise shard_down()
        if not shard.exchange_active:
            raise exchange_paused()
        if market.status.is_over:
            raise Refused(409, self._state.rules.closed_cancel_code, "market closed")

    def _position(self, user: User, market: MarketState) -> int:
        if user.is_house:
            return user.house_positions.get(market.ticker, 0)
        holding = user.holdings.get(market.ticker)
        return holding.position if holding else 0

    def _result(
        self,
        order: OrderRecord,
        outcome: Outcome,
        *,
        reduced_by: Count = _NONE,
        is_changed: bool = True,
    ) -> WriteResult:
        return WriteResult(
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            ts=self._state.now,
            fill_count=Count(outcome.filled),
            remaining_count=order.remaining,
            reduced_by=reduced_by,
            fill_cost=Money(outcome.cost),
            fees=Money(outcome.fees),
            is_changed=is_changed,
        )


def _check_request(request: OrderRequest) -> None:
    """What no market or account can make sense of."""
    if request.count <= 0:
        raise invalid_parameters("count must be positive")
    if request.time_in_force is TimeInForce.GTC:
        if request.reduce_only:
            raise invalid_parameters("reduce_only needs immediate_or_cancel")
        return
    if request.expires_at is not None:
        raise invalid_parameters("expiration_time needs good_till_canceled")
    if request.post_only:
        raise invalid_parameters("post_only needs good_till_canceled")
    if request.reduce_only and request.time_in_force is not TimeInForce.IOC:
        raise invalid_parameters("reduce_only needs immediate_or_cancel")


def _post_only_cross() -> Refused:
    return Refused(400, "invalid_order", "invalid order", "post only cross")

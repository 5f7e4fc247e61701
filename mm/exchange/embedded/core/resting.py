"""Orders on and off the book, and the news of it: the steps that creates, amends, expiries and groups share."""

from functools import partial

import attrs

from mm.domain.numbers import Count, Micros
from mm.domain.order import Side
from mm.exchange.embedded.core.accounts import Accounts
from mm.exchange.embedded.core.events import BookDelta, OrderUpdated
from mm.exchange.embedded.core.model import OrderRecord, OrderStatus, Reason
from mm.exchange.embedded.core.state import MarketState, State, User


@attrs.define(eq=False)
class Resting:
    """Moves single orders on and off the book; keeps every index of resting orders in step."""

    _state: State
    _accounts: Accounts

    def put_on(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """Rest an order at the end of its queue, with its reserve and expiry; emits its delta."""
        market.book.side(order.side).add(order)
        user.resting[order.order_id] = order
        if not user.is_house:
            self._accounts.rest(user, market, order)
        if order.group_id is not None:
            user.groups[order.group_id].orders[order.order_id] = order
        self.delta(order, order.side, order.remaining)

    def pull_off(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """The reverse: out of the queue and every index, reserve released; emits its delta. Counts stay."""
        market.book.side(order.side).remove(order)
        self.forget(user, market, order)
        if not user.is_house:
            self._accounts.unrest(user, market, order)
        self.delta(order, order.side, Count(-order.remaining))

    def forget(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """Drop an order that no longer rests from the indexes of resting orders."""
        del user.resting[order.order_id]
        if order.group_id is not None:
            user.groups[order.group_id].orders.pop(order.order_id, None)

    def take_off(self, order: OrderRecord, reason: Reason) -> Count:
        """Cancel a resting order: delta, then the order's end. Returns what was taken off."""
        user, market = self.owner(order), self._state.markets[order.ticker]
        removed = order.remaining
        self.pull_off(user, market, order)
        self.cut(user, order, reason)
        return removed

    def cut(self, user: User, order: OrderRecord, reason: Reason) -> None:
        """End an order that does not rest, whatever remains of it; emits its end."""
        order.remaining = Count(0)
        self.finish(user, order, OrderStatus.CANCELED, reason)

    def finish(self, user: User, order: OrderRecord, status: OrderStatus, reason: Reason) -> None:
        """Set the final status and tell the owner. House orders are forgotten."""
        order.status = status
        self.update(user, order, reason)
        if user.is_house:
            self._state.orders.pop(order.order_id, None)

    def update(self, user: User, order: OrderRecord, reason: Reason | None) -> None:
        """Stamp a change and tell the owner."""
        order.updated_at = self._state.now
        order.last_update_reason = reason
        if user.wants_events:
            self._state.out.append(OrderUpdated(order.snapshot()))

    def delta(self, order: OrderRecord, side: Side, change: Count) -> None:
        """Emit a change of the order's level."""
        self._state.out.append(
            BookDelta(
                order.ticker,
                side,
                order.price,
                change,
                self._state.now,
                order.user_id,
                order.client_order_id,
            )
        )

    def set_expiry(self, order: OrderRecord, expires_at: Micros | None) -> None:
        """Set, move or remove the expiry of an order."""
        order.expires_at = expires_at
        if expires_at is not None:
            self._state.at(expires_at, partial(self._expire, order, expires_at))

    def owner(self, order: OrderRecord) -> User:
        """Whose order it is."""
        return self._state.users[order.user_id]

    def _expire(self, order: OrderRecord, expires_at: Micros) -> None:
        # A timer of an order that is gone, or whose expiry has moved, does nothing.
        if order.expires_at == expires_at and order.order_id in self.owner(order).resting:
            self.take_off(order, Reason.EXPIRY_CANCEL)

"""Order groups: a rolling count of what matched, and a fence once it went over the limit.

Fills that take the sum over the limit stand; the group acts at the end of the call that made them.
"""

import attrs

from mm.domain.numbers import CONTRACT, Count
from mm.domain.order import GroupId
from mm.exchange.embedded.core.events import GroupChange, GroupUpdated
from mm.exchange.embedded.core.model import OrderGroup
from mm.exchange.embedded.core.resting import Resting
from mm.exchange.embedded.core.rules import Refused, invalid_parameters, not_found
from mm.exchange.embedded.core.state import State, User


@attrs.define(eq=False)
class Groups:
    """All order groups. A group that was triggered refuses creates until it is reset."""

    _state: State
    _resting: Resting

    def create(self, user: User, contracts_limit: Count, exchange_index: int) -> OrderGroup:
        """A new group. Raises `Refused` on a limit out of range, or too many groups."""
        self._check_limit(contracts_limit)
        if len(user.groups) >= self._state.rules.max_groups:
            raise invalid_parameters("too many order groups")
        group = OrderGroup(
            group_id=GroupId(self._state.ids()),
            user_id=user.user_id,
            exchange_index=exchange_index,
            contracts_limit=contracts_limit,
            created_at=self._state.now,
        )
        user.groups[group.group_id] = group
        self._news(group, GroupChange.CREATED)
        return group

    def find(self, user: User, group_id: GroupId, exchange_index: int | None) -> OrderGroup:
        """A group of the user, on the shard if one is named. Raises `Refused` 404."""
        group = user.groups.get(group_id)
        if group is None or exchange_index not in (None, group.exchange_index):
            raise not_found()
        return group

    def count(self, user: User, group_id: GroupId, count: Count) -> None:
        """Something of the group matched; over the limit, the group is marked to act at the end of the call."""
        group = user.groups[group_id]
        group.matched.append((self._state.now, count))
        group.matched_total += count
        self._check(group)

    def trigger(self, group: OrderGroup) -> None:
        """Cancel all its orders and close it. Doing it again does nothing."""
        if group.is_triggered:
            return
        group.is_triggered = True
        self._cancel_orders(group)
        self._news(group, GroupChange.TRIGGERED)

    def reset(self, group: OrderGroup) -> None:
        """Counter to zero, open again."""
        group.is_triggered = False
        group.matched.clear()
        group.matched_total = 0
        self._news(group, GroupChange.RESET)

    def delete(self, user: User, group: OrderGroup) -> None:
        """Cancel all its orders and forget it."""
        self._cancel_orders(group)
        del user.groups[group.group_id]
        self._news(group, GroupChange.DELETED)

    def set_limit(self, group: OrderGroup, contracts_limit: Count) -> None:
        """A new limit; acts at the end of the call when the window already holds more."""
        self._check_limit(contracts_limit)
        group.contracts_limit = contracts_limit
        self._news(group, GroupChange.LIMIT_UPDATED)
        self._check(group)

    def act(self) -> None:
        """Trigger the groups that went over their limit in this call."""
        marked, self._state.triggered = self._state.triggered, []
        for group in marked:
            self.trigger(group)

    def _check(self, group: OrderGroup) -> None:
        """Forget what is older than the window, and mark the group when the rest is over the limit."""
        oldest = self._state.now - self._state.rules.group_window
        while group.matched and group.matched[0][0] <= oldest:
            group.matched_total -= group.matched.popleft()[1]
        if group.matched_total > group.contracts_limit and not group.is_triggered:
            self._state.triggered.append(group)

    def _cancel_orders(self, group: OrderGroup) -> None:
        for order in list(group.orders.values()):
            self._resting.take_off(order, self._state.rules.group_cancel_reason)

    def _check_limit(self, limit: Count) -> None:
        if not CONTRACT <= limit <= self._state.rules.max_group_limit * CONTRACT:
            raise Refused(400, "invalid_parameters", details="contracts_limit out of range")

    def _news(self, group: OrderGroup, change: GroupChange) -> None:
        if self._state.users[group.user_id].wants_events:
            self._state.out.append(
                GroupUpdated(
                    user_id=group.user_id,
                    group_id=group.group_id,
                    change=change,
                    contracts_limit=group.contracts_limit,
                    ts=self._state.now,
                )
            )

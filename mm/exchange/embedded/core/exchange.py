"""`ExchangeCore`: the whole exchange behind synchronous calls.

Every call takes `now`. Timers that are due by then (expiries, closings, settlements) are worked off first, each at
its own time. Then the call does its work, and at its end everything that happened is handed to `emit`, in order.
A `Refused` call emits only what the timers did. `emit` must not call back into the core.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from heapq import heappop
from typing import Any, final

from mm.domain.fees import PRECISION_DIRECT, FeeType
from mm.domain.grid import TickGrid
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import GroupId, MarketTicker, OrderId
from mm.exchange.embedded.core.accounts import Accounts
from mm.exchange.embedded.core.calendar import Calendar
from mm.exchange.embedded.core.entry import Entry
from mm.exchange.embedded.core.events import CoreEvent
from mm.exchange.embedded.core.groups import Groups
from mm.exchange.embedded.core.lifecycle import Lifecycle
from mm.exchange.embedded.core.matching import Matcher
from mm.exchange.embedded.core.model import (
    AmendRequest,
    EventSpec,
    FeeChange,
    IdSource,
    MaintenanceWindow,
    MarketSpec,
    OrderGroup,
    OrderRequest,
    SeriesSpec,
    WriteResult,
    account_id,
    split_account,
)
from mm.exchange.embedded.core.reading import Reading
from mm.exchange.embedded.core.resting import Resting
from mm.exchange.embedded.core.rules import Rules, exchange_paused, shard_down
from mm.exchange.embedded.core.state import MarketState, State, User


@final
class ExchangeCore(Reading):
    """The exchange. `ids` gives unique uuid-like strings; `emit` gets every event, in order, after each call."""

    def __init__(self, rules: Rules, ids: IdSource, emit: Callable[[CoreEvent], None] | None = None) -> None:
        state = State(rules, ids, emit)
        super().__init__(state)
        accounts = Accounts(state)
        resting = Resting(state, accounts)
        self._accounts = accounts
        self._groups = Groups(state, resting)
        self._entry = Entry(state, accounts, resting, Matcher(state, accounts, resting, self._groups))
        self._lifecycle = Lifecycle(state, accounts, resting)
        self._calendar = Calendar(state, self._lifecycle)
        state.shard(0)

    # --- what exists -------------------------------------------------------------------------------------------------

    def add_series(self, now: Micros, spec: SeriesSpec) -> None:
        """List a series. Raises `ValueError` when it exists."""
        self._begin(now)
        try:
            self._lifecycle.add_series(spec)
        finally:
            self._end()

    def add_event(self, now: Micros, spec: EventSpec) -> None:
        """List an event of a known series; emits `EventCreated`. Raises `ValueError` on a double or unknown series."""
        self._begin(now)
        try:
            self._lifecycle.add_event(spec)
        finally:
            self._end()

    def add_market(self, now: Micros, spec: MarketSpec) -> MarketState:
        """List a market of a known event; emits `created`. Active at once when its open time is past."""
        self._begin(now)
        try:
            return self._lifecycle.add_market(spec)
        finally:
            self._end()

    def add_user(
        self,
        user_id: str,
        *,
        is_house: bool = False,
        wants_events: bool | None = None,
        precision: Money = PRECISION_DIRECT,
        is_netting: bool = True,
    ) -> User:
        """A new member. `wants_events` (default: not house) decides whether its private events are emitted.

        House users trade without collateral, fees and kept history.
        """
        if user_id in self._state.users:
            raise ValueError(f"user {user_id} exists")
        user = User(
            user_id=user_id,
            is_house=is_house,
            wants_events=not is_house if wants_events is None else wants_events,
            precision=precision,
            is_netting=is_netting,
        )
        self._state.users[user_id] = user
        return user

    def add_subaccount(self, member: str, number: int) -> User:
        """A subaccount (1 to 63) of a member: its own cash, positions, orders and groups; client ids are shared.

        Raises `ValueError` when it exists, `KeyError` for an unknown member.
        """
        main = self._user(member)
        user = self.add_user(account_id(member, number), precision=main.precision, is_netting=main.is_netting)
        user.spent_ids = main.spent_ids
        return user

    def subaccounts(self, member: str) -> list[int]:
        """The numbers of a member's accounts, 0 included."""
        split = map(split_account, self._state.users)
        return sorted(number for owner, number in split if owner == member)

    def set_netting(self, now: Micros, user_id: str, *, is_netting: bool) -> None:
        """Whether collateral of mutually exclusive events is returned. Raises `Refused` when the cash is not there."""
        self._begin(now)
        try:
            self._accounts.set_netting(self._user(user_id), is_netting=is_netting)
        finally:
            self._end()

    def deposit(self, now: Micros, user_id: str, exchange_index: int, amount: Money) -> None:
        """Add cash on a shard (opens the account there). A negative amount withdraws; may raise `Refused`."""
        self._begin(now)
        try:
            self._accounts.deposit(self._user(user_id), exchange_index, amount)
        finally:
            self._end()

    # --- orders ------------------------------------------------------------------------------------------------------

    def create(self, now: Micros, user_id: str, request: OrderRequest) -> WriteResult:
        """Place an order: match, then rest or cut. Raises `Refused`; then nothing was placed."""
        self._begin(now)
        try:
            return self._entry.create(self._user(user_id), request)
        finally:
            self._end()

    def amend(
        self,
        now: Micros,
        user_id: str,
        order_id: OrderId,
        request: AmendRequest,
        *,
        exchange_index: int | None = None,
    ) -> WriteResult:
        """Change price, total count or expiry. Raises `Refused`, leaving the order as it was.

        The queue place is kept by a size decrease and by an expiry-only amend, lost otherwise.
        """
        self._begin(now)
        try:
            return self._entry.amend(self._user(user_id), order_id, request, exchange_index)
        finally:
            self._end()

    def decrease(
        self,
        now: Micros,
        user_id: str,
        order_id: OrderId,
        *,
        reduce_by: Count | None = None,
        reduce_to: Count | None = None,
        exchange_index: int | None = None,
    ) -> WriteResult:
        """Lower the remaining count (exactly one of the two is given), keeping the queue place. To 0 cancels."""
        self._begin(now)
        try:
            return self._entry.decrease(self._user(user_id), order_id, reduce_by, reduce_to, exchange_index)
        finally:
            self._end()

    def cancel(
        self, now: Micros, user_id: str, order_id: OrderId, *, exchange_index: int | None = None
    ) -> WriteResult:
        """Cancel. `exchange_index` restricts the lookup to one shard; a miss is 404 whatever the reason."""
        self._begin(now)
        try:
            return self._entry.cancel(self._user(user_id), order_id, exchange_index)
        finally:
            self._end()

    def cancel_all(self, now: Micros, user_id: str) -> int:
        """Cancel everything of a user on every shard that allows it; how many orders were taken off."""
        self._begin(now)
        try:
            return self._entry.cancel_all(self._user(user_id))
        finally:
            self._end()

    # --- groups ------------------------------------------------------------------------------------------------------

    def create_group(
        self, now: Micros, user_id: str, *, contracts_limit: Count, exchange_index: int = 0
    ) -> OrderGroup:
        """A new order group on one shard. The limit is in `Count` units, 1 to 1,000,000 whole contracts."""
        self._begin(now)
        try:
            self._check_shard(exchange_index)
            return self._groups.create(self._user(user_id), contracts_limit, exchange_index)
        finally:
            self._end()

    def trigger_group(
        self, now: Micros, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> None:
        """Cancel all its orders and refuse creates until a reset. Safe to repeat."""
        self._begin(now)
        try:
            self._groups.trigger(self._group(user_id, group_id, exchange_index))
        finally:
            self._end()

    def reset_group(
        self, now: Micros, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> None:
        """Counter to zero, open again."""
        self._begin(now)
        try:
            self._groups.reset(self._group(user_id, group_id, exchange_index))
        finally:
            self._end()

    def delete_group(
        self, now: Micros, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> None:
        """Cancel all its orders and forget it."""
        self._begin(now)
        try:
            group = self._group(user_id, group_id, exchange_index)
            self._groups.delete(self._user(user_id), group)
        finally:
            self._end()

    def set_group_limit(
        self,
        now: Micros,
        user_id: str,
        group_id: GroupId,
        contracts_limit: Count,
        *,
        exchange_index: int | None = None,
    ) -> None:
        """Change the limit; triggers at once when the window already holds more."""
        self._begin(now)
        try:
            self._groups.set_limit(self._group(user_id, group_id, exchange_index), contracts_limit)
        finally:
            self._end()

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    def advance(self, now: Micros) -> Micros | None:
        """Work off every timer due by `now`, in time order; returns the next deadline (None: nothing is waiting)."""
        self._begin(now)
        self._end()
        return self.next_deadline

    @property
    def next_deadline(self) -> Micros | None:
        """When `advance` has something to do next. May be early (a timer of an order that is gone)."""
        timers = self._state.timers
        return timers[0][0] if timers else None

    def activate(self, now: Micros, ticker: MarketTicker) -> None:
        """inactive or closed (with a close time ahead) to active: cancels all that rests, emits `activated`."""
        self._begin(now)
        try:
            self._lifecycle.activate(ticker)
        finally:
            self._end()

    def deactivate(self, now: Micros, ticker: MarketTicker) -> None:
        """active to inactive: nothing trades, cancels work; emits `deactivated`."""
        self._begin(now)
        try:
            self._lifecycle.deactivate(ticker)
        finally:
            self._end()

    def set_close_time(self, now: Micros, ticker: MarketTicker, close_time: Micros) -> None:
        """Move the close, both ways; emits `close_date_updated`. A time not ahead closes now.

        A closed market whose close moves ahead is reopened by `activate`.
        """
        self._begin(now)
        try:
            self._lifecycle.set_close_time(ticker, close_time)
        finally:
            self._end()

    def determine(self, now: Micros, ticker: MarketTicker, value: Price) -> None:
        """Fix what one YES pays (0 to 1 dollar); closes a market that is still open; settles after its timer."""
        self._begin(now)
        try:
            self._lifecycle.determine(ticker, value)
        finally:
            self._end()

    def dispute(self, now: Micros, ticker: MarketTicker) -> None:
        """determined to disputed: the settlement timer stops."""
        self._begin(now)
        try:
            self._lifecycle.dispute(ticker)
        finally:
            self._end()

    def amend_result(self, now: Micros, ticker: MarketTicker, value: Price) -> None:
        """disputed to amended with a (new) value; the settlement timer starts again."""
        self._begin(now)
        try:
            self._lifecycle.amend_result(ticker, value)
        finally:
            self._end()

    def set_grid(self, now: Micros, ticker: MarketTicker, grid: TickGrid, structure: str) -> None:
        """Change the price grid of an open market; what rests stays."""
        self._begin(now)
        try:
            self._lifecycle.set_grid(ticker, grid, structure)
        finally:
            self._end()

    def update_metadata(self, now: Micros, ticker: MarketTicker, metadata: Mapping[str, Any]) -> None:
        """Replace keys of the market's metadata; emits `metadata_updated`."""
        self._begin(now)
        try:
            self._lifecycle.update_metadata(ticker, metadata)
        finally:
            self._end()

    def set_series_fees(
        self, now: Micros, series_ticker: str, fee_type: FeeType, multiplier: Fraction
    ) -> None:
        """Change a series' fees, for fills from now on."""
        self._begin(now)
        try:
            self._lifecycle.set_series_fees(series_ticker, fee_type, multiplier)
        finally:
            self._end()

    def set_event_fees(
        self, now: Micros, event_ticker: str, fee_type: FeeType | None, multiplier: Fraction | None
    ) -> None:
        """Change an event's overrides (None: the series' value), for fills from now on."""
        self._begin(now)
        try:
            self._lifecycle.set_event_fees(event_ticker, fee_type, multiplier)
        finally:
            self._end()

    def schedule_series_fees(
        self, now: Micros, series_ticker: str, fee_type: FeeType, multiplier: Fraction, when: Micros
    ) -> FeeChange:
        """Announce a change of a series' fees for `when`; at once if that is not ahead."""
        self._begin(now)
        try:
            return self._calendar.schedule_series_fees(series_ticker, fee_type, multiplier, when)
        finally:
            self._end()

    def schedule_event_fees(
        self,
        now: Micros,
        event_ticker: str,
        fee_type: FeeType | None,
        multiplier: Fraction | None,
        when: Micros,
    ) -> FeeChange:
        """Announce a change of an event's overrides (None: the series' value) for `when`."""
        self._begin(now)
        try:
            return self._calendar.schedule_event_fees(event_ticker, fee_type, multiplier, when)
        finally:
            self._end()

    def schedule_maintenance(self, now: Micros, start: Micros, end: Micros) -> MaintenanceWindow:
        """Announce a pause of trading on every shard from `start` to `end`."""
        self._begin(now)
        try:
            return self._calendar.schedule_maintenance(start, end)
        finally:
            self._end()

    def set_trading_active(self, now: Micros, exchange_index: int, is_active: bool) -> None:
        """Pause or resume trading on a shard: no creates and amends; cancels work; flagged orders are cancelled."""
        self._begin(now)
        try:
            self._lifecycle.set_trading_active(exchange_index, is_active)
        finally:
            self._end()

    def set_exchange_active(self, now: Micros, exchange_index: int, is_active: bool) -> None:
        """Pause or resume the exchange on a shard: cancels are refused too; flagged orders are cancelled."""
        self._begin(now)
        try:
            self._lifecycle.set_exchange_active(exchange_index, is_active)
        finally:
            self._end()

    def set_shard_up(self, exchange_index: int, *, is_up: bool) -> None:
        """Take a shard away, or bring it back: no write on it is answered, nothing on it is cancelled for that."""
        self._state.shard(exchange_index).is_up = is_up

    # --- one call ----------------------------------------------------------------------------------------------------

    def _begin(self, now: Micros) -> None:
        """Work off what is due, each at its own time, then set the clock (which never goes back)."""
        state = self._state
        timers = state.timers
        while timers and timers[0][0] <= now:
            when, _, what = heappop(timers)
            if when > state.now:
                state.now = when
            what()
        if now > state.now:
            state.now = now

    def _end(self) -> None:
        """Let groups act, then hand over what happened."""
        state = self._state
        if state.triggered:
            self._groups.act()
        if state.out:
            events, state.out = state.out, []
            if state.emit_to is not None:
                for event in events:
                    state.emit_to(event)

    def _group(self, user_id: str, group_id: GroupId, exchange_index: int | None) -> OrderGroup:
        group = self._groups.find(self._user(user_id), group_id, exchange_index)
        self._check_shard(group.exchange_index)
        return group

    def _check_shard(self, exchange_index: int) -> None:
        """Group writes cancel or allow orders: like cancels, they need the exchange up."""
        shard = self._state.shards.get(exchange_index)
        if shard is not None and not shard.is_up:
            raise shard_down()
        if shard is not None and not shard.exchange_active:
            raise exchange_paused()

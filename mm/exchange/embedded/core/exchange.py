"""`ExchangeCore`: the whole exchange behind synchronous calls.

Every call takes `now`. Timers that are due by then (expiries, closings, settlements) are worked off first, each at
its own time. Then the call does its work, and at its end everything that happened is handed to `emit`, in order.
A `Refused` call emits only what the timers did. `emit` must not call back into the core.
"""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, final

from mm.domain.fees import PRECISION_DIRECT, FeeType
from mm.domain.grid import TickGrid
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import GroupId, MarketTicker, OrderId
from mm.exchange.embedded.core.events import CoreEvent
from mm.exchange.embedded.core.model import (
    AmendRequest,
    BalanceView,
    EventSpec,
    FillRecord,
    IdSource,
    MarketSpec,
    OrderGroup,
    OrderRecord,
    OrderRequest,
    OrderStatus,
    PositionView,
    SeriesSpec,
    SettlementRecord,
    ShardStatus,
    Slice,
    TradeRecord,
    WriteResult,
)
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.core.state import MarketState, State, User


@final
class ExchangeCore:
    """The exchange. `ids` gives unique uuid-like strings; `emit` gets every event, in order, after each call."""

    def __init__(self, rules: Rules, ids: IdSource, emit: Callable[[CoreEvent], None] | None = None) -> None:
        self._state = State(rules, ids, emit)

    # --- what exists -------------------------------------------------------------------------------------------------

    def add_series(self, now: Micros, spec: SeriesSpec) -> None:
        """List a series. Raises `ValueError` when it exists."""
        raise NotImplementedError

    def add_event(self, now: Micros, spec: EventSpec) -> None:
        """List an event of a known series; emits `EventCreated`. Raises `ValueError` on a double or unknown series."""
        raise NotImplementedError

    def add_market(self, now: Micros, spec: MarketSpec) -> MarketState:
        """List a market of a known event; emits `created`. Active at once when its open time is past."""
        raise NotImplementedError

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
        raise NotImplementedError

    def deposit(self, now: Micros, user_id: str, exchange_index: int, amount: Money) -> None:
        """Add cash on a shard (opens the account there). A negative amount withdraws; may raise `Refused`."""
        raise NotImplementedError

    # --- orders ------------------------------------------------------------------------------------------------------

    def create(self, now: Micros, user_id: str, request: OrderRequest) -> WriteResult:
        """Place an order: match, then rest or cut. Raises `Refused`; then nothing was placed."""
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    def cancel(
        self, now: Micros, user_id: str, order_id: OrderId, *, exchange_index: int | None = None
    ) -> WriteResult:
        """Cancel. `exchange_index` restricts the lookup to one shard; a miss is 404 whatever the reason."""
        raise NotImplementedError

    def cancel_all(self, now: Micros, user_id: str) -> int:
        """Cancel everything of a user on every shard that allows it; how many orders were taken off."""
        raise NotImplementedError

    # --- groups ------------------------------------------------------------------------------------------------------

    def create_group(
        self, now: Micros, user_id: str, *, contracts_limit: Count, exchange_index: int = 0
    ) -> OrderGroup:
        """A new order group on one shard. The limit is in `Count` units, 1 to 1,000,000 whole contracts."""
        raise NotImplementedError

    def trigger_group(
        self, now: Micros, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> None:
        """Cancel all its orders and refuse creates until a reset. Safe to repeat."""
        raise NotImplementedError

    def reset_group(
        self, now: Micros, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> None:
        """Counter to zero, open again."""
        raise NotImplementedError

    def delete_group(
        self, now: Micros, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> None:
        """Cancel all its orders and forget it."""
        raise NotImplementedError

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
        raise NotImplementedError

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    def advance(self, now: Micros) -> Micros | None:
        """Work off every timer due by `now`, in time order; returns the next deadline (None: nothing is waiting)."""
        raise NotImplementedError

    @property
    def next_deadline(self) -> Micros | None:
        """When `advance` has something to do next. May be early (a timer of an order that is gone)."""
        raise NotImplementedError

    def activate(self, now: Micros, ticker: MarketTicker) -> None:
        """inactive or closed (with a close time ahead) to active: cancels all that rests, emits `activated`."""
        raise NotImplementedError

    def deactivate(self, now: Micros, ticker: MarketTicker) -> None:
        """active to inactive: nothing trades, cancels work; emits `deactivated`."""
        raise NotImplementedError

    def set_close_time(self, now: Micros, ticker: MarketTicker, close_time: Micros) -> None:
        """Move the close, both ways; emits `close_date_updated`. A time not ahead closes now.

        A closed market whose close moves ahead is reopened by `activate`.
        """
        raise NotImplementedError

    def determine(self, now: Micros, ticker: MarketTicker, value: Price) -> None:
        """Fix what one YES pays (0 to 1 dollar); closes a market that is still open; settles after its timer."""
        raise NotImplementedError

    def dispute(self, now: Micros, ticker: MarketTicker) -> None:
        """determined to disputed: the settlement timer stops."""
        raise NotImplementedError

    def amend_result(self, now: Micros, ticker: MarketTicker, value: Price) -> None:
        """disputed to amended with a (new) value; the settlement timer starts again."""
        raise NotImplementedError

    def set_grid(self, now: Micros, ticker: MarketTicker, grid: TickGrid, structure: str) -> None:
        """Change the price grid of an open market; what rests stays."""
        raise NotImplementedError

    def update_metadata(self, now: Micros, ticker: MarketTicker, metadata: Mapping[str, Any]) -> None:
        """Replace keys of the market's metadata; emits `metadata_updated`."""
        raise NotImplementedError

    def set_series_fees(
        self, now: Micros, series_ticker: str, fee_type: FeeType, multiplier: Fraction
    ) -> None:
        """Change a series' fees, for fills from now on."""
        raise NotImplementedError

    def set_event_fees(
        self, now: Micros, event_ticker: str, fee_type: FeeType | None, multiplier: Fraction | None
    ) -> None:
        """Change an event's overrides (None: the series' value), for fills from now on."""
        raise NotImplementedError

    def set_trading_active(self, now: Micros, exchange_index: int, is_active: bool) -> None:
        """Pause or resume trading on a shard: no creates and amends; cancels work; flagged orders are cancelled."""
        raise NotImplementedError

    def set_exchange_active(self, now: Micros, exchange_index: int, is_active: bool) -> None:
        """Pause or resume the exchange on a shard: cancels are refused too; flagged orders are cancelled."""
        raise NotImplementedError

    # --- reading -----------------------------------------------------------------------------------------------------

    def series(self) -> Mapping[str, SeriesSpec]:
        """All series by ticker."""
        return self._state.series

    def events(self) -> Mapping[str, EventSpec]:
        """All events by ticker."""
        return self._state.events

    def markets(self) -> Mapping[MarketTicker, MarketState]:
        """All markets by ticker, in listing order. Read only; `market.book` gives depth, `.trades` the prints."""
        return self._state.markets

    def users(self) -> Mapping[str, User]:
        """All users by id."""
        return self._state.users

    def shards(self) -> list[ShardStatus]:
        """The flags of every shard that exists (shard 0 always does)."""
        raise NotImplementedError

    def order(
        self, user_id: str, order_id: OrderId, *, exchange_index: int | None = None
    ) -> OrderRecord | None:
        """One order of a user, done or not (a live record: read it, don't keep it)."""
        raise NotImplementedError

    def orders(
        self,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None = None,
        event_tickers: Iterable[str] | None = None,
        status: OrderStatus | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        exchange_index: int | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[OrderRecord]:
        """Orders, newest first; `min_ts` and `max_ts` bound the creation time, both inclusive."""
        raise NotImplementedError

    def fills(
        self,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None = None,
        order_id: OrderId | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        exchange_index: int | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[FillRecord]:
        """Fills, newest first; time bounds inclusive."""
        raise NotImplementedError

    def settlements(
        self,
        user_id: str,
        *,
        ticker: MarketTicker | None = None,
        event_ticker: str | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        exchange_index: int | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[SettlementRecord]:
        """Settlements, newest first; time bounds inclusive."""
        raise NotImplementedError

    def trades(
        self,
        *,
        ticker: MarketTicker | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[TradeRecord]:
        """Public trades, newest first, as far back as they are kept."""
        raise NotImplementedError

    def positions(
        self,
        user_id: str,
        *,
        ticker: MarketTicker | None = None,
        event_ticker: str | None = None,
        exchange_index: int | None = None,
        is_settled: bool | None = False,
    ) -> list[PositionView]:
        """Every market that the user ever traded, by ticker (`is_settled` None: all)."""
        raise NotImplementedError

    def balances(self, user_id: str) -> list[BalanceView]:
        """Cash per shard on which the user has an account, by shard."""
        raise NotImplementedError

    def groups(self, user_id: str) -> list[OrderGroup]:
        """All groups of a user, oldest first."""
        raise NotImplementedError

    def group(
        self, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> OrderGroup | None:
        """One group."""
        raise NotImplementedError

    def queue_position(self, user_id: str, order_id: OrderId) -> Count | None:
        """Contracts ahead of a resting order, 0-based; None when it does not rest."""
        raise NotImplementedError

    def queue_positions(
        self,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None = None,
        event_ticker: str | None = None,
    ) -> list[tuple[OrderRecord, Count]]:
        """Queue positions of the user's resting orders, oldest order first."""
        raise NotImplementedError

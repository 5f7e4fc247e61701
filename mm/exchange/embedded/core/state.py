"""The state that the parts of the core share: markets, users, orders, groups, timers, and the emissions of a call.

Nobody but the core's own parts changes what is in here; the queries and the server read it.
"""

import heapq
from collections import deque
from collections.abc import Callable

import attrs

from mm.domain.fees import FeeSchedule
from mm.domain.fill import TradeId
from mm.domain.grid import TickGrid
from mm.domain.market import MarketStatus
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, Side
from mm.exchange.embedded.core.book import MatchingBook
from mm.exchange.embedded.core.events import CoreEvent
from mm.exchange.embedded.core.model import (
    EventSpec,
    FeeChange,
    FillRecord,
    IdSource,
    MaintenanceWindow,
    MarketSpec,
    OrderGroup,
    OrderRecord,
    SeriesSpec,
    SettlementRecord,
    TradeRecord,
)
from mm.exchange.embedded.core.rules import Refused, Rules


@attrs.define(eq=False, kw_only=True)
class MarketState:
    """A market as it is now."""

    spec: MarketSpec
    market_id: str
    event: EventSpec
    status: MarketStatus
    grid: TickGrid
    price_level_structure: str
    close_time: Micros
    created_at: Micros
    updated_at: Micros
    fees: FeeSchedule
    """Series with event overrides; the waiver is looked at per fill."""
    book: MatchingBook = attrs.field(factory=MatchingBook)
    result: str = ""
    settlement_value: Price | None = None
    determined_at: Micros | None = None
    settles_at: Micros | None = None
    settled_at: Micros | None = None
    last_price: Price | None = None
    last_trade_count: Count = Count(0)
    volume: Count = Count(0)
    dollar_volume: Money = Money(0)
    """YES price x count of all trades."""
    absolute_positions: int = 0
    """Sum of |position| over all users: twice the open interest."""
    trades: deque[TradeRecord]
    """The newest public trades, oldest first, bounded."""

    @property
    def ticker(self) -> MarketTicker:
        """Its ticker."""
        return self.spec.ticker

    @property
    def exchange_index(self) -> int:
        """Its shard."""
        return self.spec.exchange_index

    @property
    def open_interest(self) -> Count:
        """Contracts outstanding."""
        return Count(self.absolute_positions // 2)

    @property
    def best_bid(self) -> Price | None:
        """Best YES bid."""
        return self.book.bids.best

    @property
    def best_ask(self) -> Price | None:
        """Best YES ask."""
        return self.book.asks.best


@attrs.define(eq=False, kw_only=True)
class Holding:
    """What one (non-house) user has in one market: position, its cost, and what rests."""

    market: MarketState
    position: int = 0
    cost: int = 0
    realized_pnl: int = 0
    fees_paid: int = 0
    open_fees: int = 0
    total_traded: int = 0
    volume: int = 0
    updated_at: Micros = Micros(0)
    is_settled: bool = False
    bids: dict[OrderId, OrderRecord] = attrs.field(factory=dict)
    asks: dict[OrderId, OrderRecord] = attrs.field(factory=dict)
    gross: dict[Side, int] = attrs.field(factory=lambda: {Side.BID: 0, Side.ASK: 0})
    """What the resting orders of a side would need if no position covered them."""
    reserved: int = 0
    """Cash held for what rests here: gross less what the position covers."""

    def resting(self, side: Side) -> dict[OrderId, OrderRecord]:
        """The resting orders of one side."""
        return self.bids if side is Side.BID else self.asks


@attrs.define(eq=False, kw_only=True)
class User:
    """One member. A house user trades without collateral, fees and kept history."""

    user_id: str
    is_house: bool
    wants_events: bool
    precision: Money
    is_netting: bool
    """Whether collateral of mutually exclusive events is returned."""
    cash: dict[int, int] = attrs.field(factory=dict)
    """Per shard: money owned, with what is locked: deposits + sales - purchases - fees."""
    locked: dict[int, int] = attrs.field(factory=dict)
    """Per shard: collateral of short positions plus reserves of resting orders."""
    holdings: dict[MarketTicker, Holding] = attrs.field(factory=dict)
    event_locks: dict[str, int] = attrs.field(factory=dict)
    """Collateral of short positions, per event."""
    event_holdings: dict[str, list[Holding]] = attrs.field(factory=dict)
    resting: dict[OrderId, OrderRecord] = attrs.field(factory=dict)
    orders: list[OrderRecord] = attrs.field(factory=list)
    """All accepted orders, oldest first (house: none)."""
    fills: list[FillRecord] = attrs.field(factory=list)
    settlements: list[SettlementRecord] = attrs.field(factory=list)
    spent_ids: set[ClientOrderId] = attrs.field(factory=set)
    groups: dict[GroupId, OrderGroup] = attrs.field(factory=dict)
    house_positions: dict[MarketTicker, int] = attrs.field(factory=dict)
    house_cash: int = 0

    def available(self, exchange_index: int) -> Money:
        """Cash that may be spent on a shard."""
        return Money(self.cash.get(exchange_index, 0) - self.locked.get(exchange_index, 0))


@attrs.define(eq=False)
class Shard:
    """The pause flags of one shard."""

    exchange_index: int
    exchange_active: bool = True
    trading_active: bool = True
    is_up: bool = True
    """A shard that is down answers no write, and nothing on it is cancelled for that."""


@attrs.define(eq=False)
class State:
    """Everything. `now` never goes back."""

    rules: Rules
    ids: IdSource
    emit_to: Callable[[CoreEvent], None] | None
    now: Micros = Micros(0)
    seq: int = 0
    fees_collected: int = 0
    series: dict[str, SeriesSpec] = attrs.field(factory=dict)
    events: dict[str, EventSpec] = attrs.field(factory=dict)
    event_markets: dict[str, list[MarketState]] = attrs.field(factory=dict)
    markets: dict[MarketTicker, MarketState] = attrs.field(factory=dict)
    users: dict[str, User] = attrs.field(factory=dict)
    orders: dict[OrderId, OrderRecord] = attrs.field(factory=dict)
    """Resting orders of all, and done ones of non-house users."""
    settled_values: dict[str, int] = attrs.field(factory=dict)
    """Per mutually exclusive event: what its settled markets paid together; the rest can pay 1 dollar less that."""
    shards: dict[int, Shard] = attrs.field(factory=dict)
    fee_changes: list[FeeChange] = attrs.field(factory=list)
    """Announced changes, also those that have come to pass, in the order of their announcement."""
    maintenance: list[MaintenanceWindow] = attrs.field(factory=list)
    timers: list[tuple[Micros, int, Callable[[], None]]] = attrs.field(factory=list)
    """Heap of (when, tie breaker, what): expiries, openings, closings, settlements. Stale ones check and do nothing."""
    out: list[CoreEvent] = attrs.field(factory=list)
    triggered: list[OrderGroup] = attrs.field(factory=list)
    """Groups that went over their limit in this call; they act at its end."""

    def next_seq(self) -> int:
        """The next number of the one sequence that orders, trades, fills and timers share."""
        self.seq += 1
        return self.seq

    def at(self, when: Micros, what: Callable[[], None]) -> None:
        """Call `what` when time reaches `when` (in `advance`, or before the next call)."""
        heapq.heappush(self.timers, (when, self.next_seq(), what))

    def shard(self, exchange_index: int) -> Shard:
        """The flags of a shard."""
        found = self.shards.get(exchange_index)
        if found is None:
            found = self.shards[exchange_index] = Shard(exchange_index)
        return found

    def market(self, ticker: MarketTicker) -> MarketState:
        """A market. Raises `Refused` (market_not_found)."""
        found = self.markets.get(ticker)
        if found is None:
            raise Refused(self.rules.market_not_found_status, "market_not_found", "market not found")
        return found

    def new_order_id(self) -> OrderId:
        """A fresh order id."""
        return OrderId(self.ids())

    def new_trade_id(self) -> TradeId:
        """A fresh trade id."""
        return TradeId(self.ids())

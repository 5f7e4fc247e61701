"""The values of the core: specs that go in, records that are kept, results and views that come out.

Prices are YES prices, sides those of the YES book, money in `Money`, times in `Micros`. Nothing here is wire shaped.
"""

import enum
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Generic, TypeVar

import attrs

from mm.domain.fees import FeeAccumulator, FeeType
from mm.domain.fill import TradeId
from mm.domain.grid import TickGrid, uniform_grid
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Money, Price
from mm.domain.order import (
    ClientOrderId,
    GroupId,
    MarketTicker,
    OrderId,
    SelfTradePrevention,
    Side,
    TimeInForce,
)

T = TypeVar("T")

IdSource = Callable[[], str]
"""Gives uuid-like strings, never the same twice, also across starts: orders, trades, groups, markets."""


def account_id(member: str, subaccount: int) -> str:
    """The core's user of one subaccount of a member: each has its own cash, positions, orders and groups."""
    return f"{member}/{subaccount}" if subaccount else member


def split_account(user_id: str) -> tuple[str, int]:
    """The member and the subaccount of a user of the core."""
    member, _, number = user_id.partition("/")
    return member, int(number or 0)


def same_member(one: str, other: str) -> bool:
    """Whether two users of the core are accounts of one member."""
    return one == other or one.partition("/")[0] == other.partition("/")[0]


class OrderStatus(enum.Enum):
    """The venue's three states of an accepted order."""

    RESTING = "resting"
    CANCELED = "canceled"
    EXECUTED = "executed"


class Reason(enum.Enum):
    """`last_update_reason` of an order update. A fresh order that rests has none."""

    DECREASE = "Decrease"
    AMEND = "Amend"
    MARGIN_CANCEL = "MarginCancel"
    SELF_TRADE_CANCEL = "SelfTradeCancel"
    EXPIRY_CANCEL = "ExpiryCancel"
    CLOSE_CANCEL = "CloseCancel"
    HALT_CANCEL = "HaltCancel"
    TRADE = "Trade"
    POST_ONLY_CROSS_CANCEL = "PostOnlyCrossCancel"
    REDUCE_ONLY_CANCEL = "ReduceOnlyCancel"


# --- what exists -----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SeriesSpec:
    """A series and its fees. `metadata` is passed through to the listings untouched."""

    ticker: str
    title: str = ""
    category: str = "Sports"
    fee_type: FeeType = FeeType.QUADRATIC_WITH_MAKER_FEES
    fee_multiplier: Fraction = Fraction(1)
    exchange_index: int = 0
    updated_at: Micros = Micros(0)
    """Set by the core."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class EventSpec:
    """An event (a game). Mutually exclusive events are MECNET: guaranteed collateral of NO holdings is returned."""

    ticker: str
    series_ticker: str
    title: str = ""
    sub_title: str = ""
    is_mutually_exclusive: bool = False
    fee_type_override: FeeType | None = None
    fee_multiplier_override: Fraction | None = None
    exchange_index: int = 0
    updated_at: Micros = Micros(0)
    """Set by the core."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class MarketSpec:
    """A market as it is listed. `metadata` (rules texts, strikes, ...) goes to the listings untouched."""

    ticker: MarketTicker
    event_ticker: str
    open_time: Micros
    close_time: Micros
    grid: TickGrid = attrs.field(factory=uniform_grid)
    price_level_structure: str = "linear_cent"
    exchange_index: int = 0
    settlement_timer: Micros = Micros(60 * SECOND)
    """From determination to settlement."""
    can_close_early: bool = True
    title: str = ""
    yes_sub_title: str = ""
    no_sub_title: str = ""
    expected_expiration_time: Micros | None = None
    latest_expiration_time: Micros | None = None
    occurrence_time: Micros | None = None
    fee_waiver_until: Micros | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


# --- orders ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class OrderRequest:
    """A create. `exchange_index` None routes by ticker; a number must be the market's shard."""

    ticker: MarketTicker
    side: Side
    count: Count
    price: Price
    time_in_force: TimeInForce = TimeInForce.GTC
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.TAKER
    client_order_id: ClientOrderId | None = None
    expires_at: Micros | None = None
    post_only: bool = False
    reduce_only: bool = False
    cancel_on_pause: bool = False
    group_id: GroupId | None = None
    exchange_index: int | None = None


@attrs.frozen(kw_only=True)
class AmendRequest:
    """An amend. `count` is the new total (filled + wanted remaining); ticker and side must be the order's."""

    ticker: MarketTicker
    side: Side
    price: Price
    count: Count
    updated_client_order_id: ClientOrderId | None = None
    expires_at: Micros | None = None
    """None keeps the expiry, 0 removes it, another time sets it."""


@attrs.define(eq=False, kw_only=True)
class OrderRecord:
    """An order as the exchange holds it. Only the core changes one; events carry copies made by `snapshot`."""

    seq: int
    """Rises with every accepted order: the order of listings."""
    order_id: OrderId
    user_id: str
    client_order_id: ClientOrderId | None
    ticker: MarketTicker
    exchange_index: int
    side: Side
    price: Price
    """Limit, YES price; fills may be better."""
    initial_count: Count
    remaining: Count
    filled: Count = Count(0)
    status: OrderStatus = OrderStatus.RESTING
    last_update_reason: Reason | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.TAKER
    post_only: bool = False
    reduce_only: bool = False
    cancel_on_pause: bool = False
    group_id: GroupId | None = None
    expires_at: Micros | None = None
    created_at: Micros
    updated_at: Micros
    """Of a done order: its end."""
    taker_fill_cost: Money = Money(0)
    """YES price x count of its fills as taker."""
    maker_fill_cost: Money = Money(0)
    taker_fees: Money = Money(0)
    maker_fees: Money = Money(0)
    accumulator: FeeAccumulator | None = None
    reserved: Money = Money(0)
    """Worst case cost per the limit price plus fee of the remaining count (before what a position covers)."""

    def snapshot(self) -> "OrderRecord":
        """A copy that later changes do not touch."""
        copy: OrderRecord = _copy_slots(self)
        copy.accumulator = None
        return copy


_ORDER_FIELDS = tuple(field.name for field in attrs.fields(OrderRecord))


def _copy_slots(order: OrderRecord) -> OrderRecord:
    copy = OrderRecord.__new__(OrderRecord)
    for name in _ORDER_FIELDS:
        setattr(copy, name, getattr(order, name))
    return copy


@attrs.frozen(kw_only=True)
class WriteResult:
    """The answer to a create, amend, decrease or cancel."""

    order_id: OrderId
    client_order_id: ClientOrderId | None
    ts: Micros
    fill_count: Count = Count(0)
    """Filled by this very call."""
    remaining_count: Count = Count(0)
    reduced_by: Count = Count(0)
    """Taken off by a cancel or decrease."""
    fill_cost: Money = Money(0)
    """YES price x count of this call's fills."""
    fees: Money = Money(0)
    is_changed: bool = True
    """False for an amend that neither filled nor changed the resting size (the wire then leaves the counts out)."""

    @property
    def average_fill_price(self) -> Price | None:
        """YES price, rounded to 1/10,000 dollar; None when nothing filled."""
        if not self.fill_count:
            return None
        return Price((2 * self.fill_cost + self.fill_count) // (2 * self.fill_count))

    @property
    def average_fee_paid(self) -> Price | None:
        """Dollars per contract in 1/10,000, rounded; None when nothing filled."""
        if not self.fill_count:
            return None
        return Price((2 * self.fees + self.fill_count) // (2 * self.fill_count))


# --- what is announced -----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class FeeChange:
    """A change of fees, announced for `scheduled_at`: of a series, or of one event's overrides (`event_ticker`)."""

    change_id: str
    series_ticker: str
    event_ticker: str | None = None
    fee_type: FeeType | None
    """None (events only): the series' value holds."""
    multiplier: Fraction | None
    scheduled_at: Micros


@attrs.frozen(kw_only=True)
class MaintenanceWindow:
    """From `start` to `end` trading is paused on every shard."""

    start: Micros
    end: Micros


# --- what happened ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TradeRecord:
    """A public print."""

    seq: int
    trade_id: TradeId
    ticker: MarketTicker
    price: Price
    count: Count
    taker_side: Side
    ts: Micros
    is_block: bool = False


@attrs.frozen(kw_only=True)
class FillRecord:
    """One party's side of a trade. `trade_id` is the public trade's, and the counterparty's."""

    seq: int
    trade_id: TradeId
    order_id: OrderId
    user_id: str
    client_order_id: ClientOrderId | None
    ticker: MarketTicker
    exchange_index: int
    side: Side
    price: Price
    count: Count
    is_taker: bool
    fee: Money
    ts: Micros
    post_position: Count
    """Signed position after this fill."""


@attrs.frozen(kw_only=True)
class PositionView:
    """One user's position in one market."""

    ticker: MarketTicker
    event_ticker: str
    exchange_index: int
    position: Count
    """Signed: + YES, - NO."""
    cost: Money
    """What the open position cost (NO at 1 - price): its exposure."""
    realized_pnl: Money
    """Locked in by closing and by settlement, before fees."""
    fees_paid: Money
    open_fees: Money
    """The part of the fees that belongs to what is open."""
    total_traded: Money
    """Cost of all fills, own leg's price."""
    volume: Count
    """Contracts traded."""
    resting_orders: int
    is_settled: bool
    updated_at: Micros


@attrs.frozen(kw_only=True)
class SettlementRecord:
    """What a settled market paid to one user. Counts are those of the net position that settled."""

    seq: int
    ticker: MarketTicker
    event_ticker: str
    exchange_index: int
    result: str
    value: Price
    yes_count: Count
    yes_total_cost: Money
    no_count: Count
    no_total_cost: Money
    revenue: Money
    fee_cost: Money
    """All trade fees paid in the market."""
    ts: Micros


@attrs.frozen(kw_only=True)
class BalanceView:
    """Cash of one user on one shard."""

    exchange_index: int
    available: Money
    """What may be spent: after collateral of positions and resting orders."""
    reserved: Money
    """Held for resting orders, inside neither `available` nor the positions."""
    portfolio_value: Money
    """Open positions at what they could be sold for now (last price, then cost, where there is no book)."""


@attrs.define(eq=False, kw_only=True)
class OrderGroup:
    """An order group: cancels its orders when too much matches within the rolling window."""

    group_id: GroupId
    user_id: str
    exchange_index: int
    contracts_limit: Count
    created_at: Micros
    is_triggered: bool = False
    orders: dict[OrderId, OrderRecord] = attrs.field(factory=dict)
    """What of it rests."""
    matched: deque[tuple[Micros, Count]] = attrs.field(factory=deque)
    """Fills inside the window, oldest first."""
    matched_total: int = 0
    """Sum of `matched`."""


@attrs.frozen
class Slice(Generic[T]):
    """One page, newest first. `next_before` goes into the next call's `before`; None on the last page."""

    items: list[T]
    next_before: int | None


@attrs.frozen(kw_only=True)
class ShardStatus:
    """Whether a shard takes orders (`trading_active`) and anything at all (`exchange_active`)."""

    exchange_index: int
    exchange_active: bool
    trading_active: bool


def result_word(value: Price) -> str:
    """`yes`, `no` or `scalar` for a settlement value."""
    return "yes" if value == DOLLAR else "no" if value == 0 else "scalar"

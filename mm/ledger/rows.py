"""What the ledger holds, as frozen values. No SQL here."""

import enum

import attrs

from mm.domain.fill import Fill
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, OrderState, Side


class OrderKind(enum.Enum):
    """What an order of ours was for."""

    QUOTE = "quote"
    EXIT = "exit"
    """Reduce-only: a flatten."""


class FillKind(enum.Enum):
    """What a fill came from."""

    QUOTE = "quote"
    EXIT = "exit"
    FOREIGN = "foreign"
    """An order of this account that is not ours: it moves the position all the same."""
    UNKNOWN = "unknown"
    """Its order is in no ledger row yet; becomes one of the others when the order is recorded."""


@attrs.frozen(kw_only=True)
class FillRow:
    """A fill with what the ledger knows about it."""

    fill: Fill
    kind: FillKind
    session: str
    """The session that recorded it (not always the one that placed the order)."""
    recorded_at: Micros


@attrs.frozen(kw_only=True)
class OrderRow:
    """An order of ours, in the last state that was written."""

    client_order_id: ClientOrderId
    ticker: MarketTicker
    side: Side
    price: Price
    count: Count
    state: OrderState
    kind: OrderKind
    order_id: OrderId | None
    group_id: GroupId | None
    exchange_index: int
    session: str
    created_at: Micros
    updated_at: Micros


@attrs.frozen(kw_only=True)
class GroupRow:
    """An order group of ours."""

    group_id: GroupId
    exchange_index: int
    epoch: int
    session: str
    created_at: Micros
    triggered_at: Micros | None = None
    deleted_at: Micros | None = None


@attrs.frozen(kw_only=True)
class SettlementRow:
    """What a market of ours paid."""

    ticker: MarketTicker
    value: Price
    """Of one YES, 0 to 1 dollar."""
    settled_at: Micros
    yes_count: Count
    no_count: Count
    fee: Money


@attrs.frozen(kw_only=True)
class ArchivedRow:
    """What is left here of a settled market whose fills are in an archive."""

    ticker: MarketTicker
    value: Price
    settled_at: Micros
    fills: int
    bought: Count
    sold: Count
    cash: Money
    """Sales less purchases less fees."""
    fees: Money
    result: Money
    """Net of fees."""
    first_at: Micros
    last_at: Micros
    archive: str
    """Name of the file, beside the ledger."""


@attrs.frozen(kw_only=True)
class TriggerRow:
    """A risk rule that acted."""

    at: Micros
    session: str
    ticker: MarketTicker
    """Empty: all markets."""
    reason: str
    net: Count
    mark: Price | None


@attrs.frozen(kw_only=True)
class SessionRow:
    """One run of the bot. `ended_at` None: it runs, or it died without a word."""

    session: str
    started_at: Micros
    ended_at: Micros | None = None
    reason: str = ""
    exit_code: int | None = None


@attrs.frozen(kw_only=True)
class AlertRow:
    """A critical alert that may not have reached anybody yet."""

    alert_id: str
    """Unique per account; recording the same id again changes nothing."""
    raised_at: Micros
    kind: str
    text: str


@attrs.frozen(kw_only=True)
class PositionRow:
    """What the fills of one market add up to. Exact."""

    ticker: MarketTicker
    net: Count
    """Signed: + YES, - NO."""
    bought: Count
    sold: Count
    cash: Money
    """Sales less purchases less fees, in YES prices: realized P&L when `net` is 0."""
    fees: Money
    fills: int
    last_fill_at: Micros


@attrs.frozen(kw_only=True)
class Totals:
    """Sums over the fills of a span of time."""

    fills: int
    contracts: Count
    fees: Money

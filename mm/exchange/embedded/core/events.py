"""What the core emits, in order, after each call: book deltas, trades, fills, order, position, group, lifecycle news.

Events are values: nothing in them changes afterwards, so they may be delayed, shuffled or dropped by who gets them.
Private events of house users are left out unless the user was added with `wants_events`.
"""

import enum
from fractions import Fraction
from typing import Literal

import attrs

from mm.domain.fees import FeeType
from mm.domain.grid import TickGrid
from mm.domain.numbers import Count, Micros, Price, complement
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, Side
from mm.exchange.embedded.core.model import (
    EventSpec,
    FillRecord,
    MarketSpec,
    OrderRecord,
    PositionView,
    Reason,
    TradeRecord,
)


@attrs.frozen
class BookDelta:
    """A level changed by `change` (signed), because of one order of `user_id`."""

    ticker: MarketTicker
    side: Side
    price: Price
    """YES price."""
    change: Count
    ts: Micros
    user_id: str
    client_order_id: ClientOrderId | None

    @property
    def leg(self) -> Literal["yes", "no"]:
        """The leg whose book changed: bids rest in YES, asks in NO."""
        return "yes" if self.side is Side.BID else "no"

    @property
    def leg_price(self) -> Price:
        """The price in the leg's own terms."""
        return self.price if self.side is Side.BID else complement(self.price)


@attrs.frozen
class TradePrinted:
    """A public print."""

    trade: TradeRecord


@attrs.frozen
class FillReported:
    """One party's fill (for the `fill` channel)."""

    fill: FillRecord


@attrs.frozen
class OrderUpdated:
    """An order after a change; `order` is a copy. `order.last_update_reason` tells why."""

    order: OrderRecord

    @property
    def reason(self) -> Reason | None:
        """Why it changed; None for a fresh order that rests."""
        return self.order.last_update_reason


@attrs.frozen
class PositionChanged:
    """A position after a fill or a settlement."""

    user_id: str
    position: PositionView


class GroupChange(enum.Enum):
    """What happened to an order group."""

    CREATED = "created"
    TRIGGERED = "triggered"
    RESET = "reset"
    DELETED = "deleted"
    LIMIT_UPDATED = "limit_updated"


@attrs.frozen(kw_only=True)
class GroupUpdated:
    """News of an order group; `contracts_limit` for created and limit_updated."""

    user_id: str
    group_id: GroupId
    change: GroupChange
    contracts_limit: Count
    ts: Micros


class MarketChange(enum.Enum):
    """The lifecycle events that the exchange announces. Opening and closing by the clock are silent."""

    CREATED = "created"
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    CLOSE_DATE_UPDATED = "close_date_updated"
    DETERMINED = "determined"
    SETTLED = "settled"
    PRICE_LEVEL_STRUCTURE_UPDATED = "price_level_structure_updated"
    METADATA_UPDATED = "metadata_updated"


@attrs.frozen(kw_only=True)
class MarketUpdated:
    """News of a market; the fields that the kind of change carries are set."""

    ticker: MarketTicker
    change: MarketChange
    ts: Micros
    spec: MarketSpec
    close_time: Micros | None = None
    result: str | None = None
    settlement_value: Price | None = None
    grid: TickGrid | None = None
    price_level_structure: str | None = None


@attrs.frozen
class EventCreated:
    """A new event."""

    event: EventSpec
    ts: Micros


@attrs.frozen(kw_only=True)
class EventFeesUpdated:
    """An event's fee overrides changed (None: the series' value holds)."""

    event_ticker: str
    fee_type_override: FeeType | None
    fee_multiplier_override: Fraction | None
    ts: Micros


CoreEvent = (
    BookDelta
    | TradePrinted
    | FillReported
    | OrderUpdated
    | PositionChanged
    | GroupUpdated
    | MarketUpdated
    | EventCreated
    | EventFeesUpdated
)

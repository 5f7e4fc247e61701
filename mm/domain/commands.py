"""What the engine asks the shell to do. Values: nothing happens before the desk acts on them."""

import enum

import attrs

from mm.domain.numbers import Count, Price
from mm.domain.order import ClientOrderId, MarketTicker, Side


class FlattenReason(enum.Enum):
    """Why a position is closed."""

    DURATION_WEIGHTED = "duration_weighted"
    MAE_FAILSAFE = "mae_failsafe"
    EXTREME_PRICE = "extreme_price"
    PORTFOLIO_MAE = "portfolio_mae"
    DAILY_LOSS = "daily_loss"
    OPERATOR = "operator"
    GUARD = "guard"


@attrs.frozen(kw_only=True)
class Place:
    """Rest a new post-only quote."""

    ticker: MarketTicker
    side: Side
    price: Price
    count: Count
    is_replacement: bool = False
    """It follows a quote that was taken away for its price: counts for the churn brake."""


@attrs.frozen(kw_only=True)
class Amend:
    """Move a resting quote to another price in one write; it loses its place in the queue.

    Only asked for away from the market, so that the amended order cannot cross.
    """

    ticker: MarketTicker
    client_order_id: ClientOrderId
    side: Side
    price: Price
    leaves: Count
    """What shall rest afterwards. The wire wants already filled + this."""


@attrs.frozen(kw_only=True)
class Decrease:
    """Lower what rests; price and place in the queue stay."""

    ticker: MarketTicker
    client_order_id: ClientOrderId
    leaves: Count
    """What shall rest afterwards; less than now, more than 0."""


@attrs.frozen(kw_only=True)
class Cancel:
    """Take an order off."""

    ticker: MarketTicker
    client_order_id: ClientOrderId
    reason: str
    is_urgent: bool
    """It must go (risk, state, limits, crossing): never waits behind anything. Else its price is only out of date."""


@attrs.frozen(kw_only=True)
class Flatten:
    """Close the whole position: pull both quotes, then cross the spread, again until the venue says flat."""

    ticker: MarketTicker
    reason: FlattenReason


QuoteCommand = Place | Amend | Decrease | Cancel
"""What one side's plan may ask for."""
Command = QuoteCommand | Flatten

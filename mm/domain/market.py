"""Markets, events and series as the bot needs them. Times are `Micros`, volumes `Count`."""

import enum
from fractions import Fraction

import attrs

from mm.domain.fees import FeeType
from mm.domain.grid import TickGrid
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker


class MarketStatus(enum.Enum):
    """The life cycle of a market, in the venue's words."""

    INITIALIZED = "initialized"
    ACTIVE = "active"
    INACTIVE = "inactive"
    CLOSED = "closed"
    DETERMINED = "determined"
    DISPUTED = "disputed"
    AMENDED = "amended"
    FINALIZED = "finalized"

    @property
    def is_over(self) -> bool:
        """Past its close: nothing can rest or trade (barring a reopening, which is announced)."""
        return self in _OVER


_OVER = frozenset(
    {
        MarketStatus.CLOSED,
        MarketStatus.DETERMINED,
        MarketStatus.DISPUTED,
        MarketStatus.AMENDED,
        MarketStatus.FINALIZED,
    }
)


@attrs.frozen(kw_only=True)
class Market:
    """One market as the last listing (or lifecycle report) described it."""

    ticker: MarketTicker
    event_ticker: str
    status: MarketStatus
    grid: TickGrid
    exchange_index: int = 0
    title: str = ""
    yes_sub_title: str = ""
    open_time: Micros | None = None
    close_time: Micros | None = None
    expected_expiration: Micros | None = None
    volume: Count = Count(0)
    volume_24h: Count = Count(0)
    yes_bid: Price | None = None
    yes_ask: Price | None = None
    settlement_value: Price | None = None
    fee_waiver_until: Micros | None = None
    """Fills before this pay no fees."""
    """What one YES pays, when determined."""

    @property
    def series_ticker(self) -> str:
        """The ticker part before the first dash (a market object does not carry its series)."""
        return self.ticker.partition("-")[0]


@attrs.frozen(kw_only=True)
class Series:
    """A series and its fees."""

    ticker: str
    title: str = ""
    fee_type: FeeType = FeeType.QUADRATIC_WITH_MAKER_FEES
    fee_multiplier: Fraction = Fraction(1)


@attrs.frozen(kw_only=True)
class Incentive:
    """A program that pays for resting in a market, or for trading it."""

    ticker: MarketTicker
    is_liquidity: bool
    starts_at: Micros
    ends_at: Micros
    reward: Money
    """Of the whole period, for all who take part."""
    most: Money | None = None
    """What one account may get of it."""


@attrs.frozen(kw_only=True)
class Event:
    """An event (a game) and the fee overrides it may carry."""

    ticker: str
    title: str = ""
    is_mutually_exclusive: bool = False
    fee_type_override: FeeType | None = None
    fee_multiplier_override: Fraction | None = None

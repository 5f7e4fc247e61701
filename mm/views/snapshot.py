"""What there is to see, as frozen values: made by the session, shown by the views. Nothing here looks anything up."""

import attrs

from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker


@attrs.frozen(kw_only=True)
class QuoteView:
    """What we have working on one side."""

    price: Price
    count: Count
    """What may still be filled."""
    is_sure: bool = True
    """False: sent or unknown, not known to rest."""


@attrs.frozen(kw_only=True)
class MarketView:
    """One market that we quote or hold something in."""

    ticker: MarketTicker
    title: str = ""
    best_bid: Price | None = None
    best_ask: Price | None = None
    bid: QuoteView | None = None
    ask: QuoteView | None = None
    position: Count = Count(0)
    """Signed."""
    realized: Money = Money(0)
    """Net of fees."""
    unrealized: Money | None = None
    """None: there is a position, and no price to value it at."""
    state: str = ""
    reason: str = ""
    """Why it is not quoted; empty when it is."""


@attrs.frozen(kw_only=True)
class BudgetView:
    """A token bucket: what is left of what it holds."""

    level: float
    capacity: float
    waiting: int = 0
    """Writes that wait for tokens."""

    @property
    def share(self) -> float:
        """0 (empty) to 1 (full)."""
        return min(max(self.level / self.capacity, 0.0), 1.0) if self.capacity > 0 else 0.0


@attrs.frozen(kw_only=True)
class Snapshot:
    """The whole bot at one moment."""

    at: Micros
    started_at: Micros
    environment: str
    """`sim`, `demo`, `prod`."""
    is_paper: bool
    markets: tuple[MarketView, ...] = ()
    is_feed_up: bool = False
    last_frame_at: Micros | None = None
    """None: nothing came yet."""
    writes: BudgetView | None = None
    reads: BudgetView | None = None
    orders_placed: int = 0
    fills: int = 0
    """Of this run, like contracts, fees and realized."""
    contracts: Count = Count(0)
    fees: Money = Money(0)
    realized: Money = Money(0)
    """Net of fees."""
    unrealized: Money = Money(0)
    alerts: tuple[str, ...] = ()
    """The latest ones, newest last."""
    notice: str = ""
    """What the user should know now: no games until .., quoting switched off because .."""
    web_url: str = ""

    @property
    def feed_age_s(self) -> float | None:
        """Seconds since the last frame."""
        return None if self.last_frame_at is None else max(self.at - self.last_frame_at, 0) / 1e6

    @property
    def uptime_s(self) -> int:
        """Whole seconds since the start."""
        return max(self.at - self.started_at, 0) // 1_000_000

    @property
    def quoted(self) -> int:
        """Markets with at least one working quote."""
        return sum(1 for m in self.markets if m.bid or m.ask)

    @property
    def working_orders(self) -> int:
        """Quotes that work."""
        return sum((m.bid is not None) + (m.ask is not None) for m in self.markets)

    @property
    def net_position(self) -> Count:
        """Sum of the signed positions."""
        return Count(sum(m.position for m in self.markets))

    @property
    def gross_position(self) -> Count:
        """Sum of the positions without their signs."""
        return Count(sum(abs(m.position) for m in self.markets))

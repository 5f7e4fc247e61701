"""What there is to see, as frozen values: made by the session, shown by the views. Nothing here looks anything up."""

import attrs

from mm.domain.histogram import HistogramView
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side


@attrs.frozen(kw_only=True)
class QuoteView:
    """What we have working on one side."""

    price: Price
    count: Count
    """What may still be filled."""
    is_sure: bool = True
    """False: sent or unknown, not known to rest."""
    ahead: Count | None = None
    """What else rests at its price: at most so much stands before it in the queue. None: not known."""


@attrs.frozen(kw_only=True)
class MarketView:
    """One market that we quote or hold something in."""

    ticker: MarketTicker
    title: str = ""
    outcome: str = ""
    """What YES stands for."""
    event: str = ""
    """The event (the game) that it belongs to."""
    best_bid: Price | None = None
    best_ask: Price | None = None
    bid_size: Count = Count(0)
    """What rests at the best bid, our own included."""
    ask_size: Count = Count(0)
    mark: Price | None = None
    """What the rules value it at; None: nothing is known, or the book is not to be trusted."""
    bid: QuoteView | None = None
    ask: QuoteView | None = None
    position: Count = Count(0)
    """Signed."""
    entry: Price | None = None
    """Average price of what is held, rounded; None when flat."""
    worst: Count = Count(0)
    """The largest position, without sign, that our working orders can make of it."""
    realized: Money = Money(0)
    """Net of fees."""
    unrealized: Money | None = None
    """None: there is a position, and no price to value it at."""
    state: str = ""
    reason: str = ""
    """Why it is not quoted; empty when it is."""
    is_paused: bool = False
    """Held by an operator."""


@attrs.frozen(kw_only=True)
class FillView:
    """One fill of this run, and how the market moved after it."""

    key: str
    """Unique among fills."""
    at: Micros
    ticker: MarketTicker
    side: Side
    price: Price
    count: Count
    fee: Money
    is_maker: bool = True
    edge: int | None = None
    """What it was worth at once, per contract, in `Price` units: the mark less the price, seen from our side."""
    markouts: tuple[int | None, ...] = ()
    """The same with the mark some time later, one for each of `MARKOUTS_S`; None: not yet, or no mark then."""


MARKOUTS_S = (10, 60)
"""Seconds after a fill at which its markouts are taken."""


@attrs.frozen(kw_only=True)
class AlertView:
    """One alert."""

    at: Micros
    severity: str
    """info, warning, critical."""
    text: str


@attrs.frozen(kw_only=True)
class LimitView:
    """How much of a limit is used, in its own unit."""

    name: str
    """As in the settings."""
    used: float
    limit: float
    unit: str
    market: MarketTicker | None = None
    """Where, for a limit that counts market by market: the one that has used most."""

    @property
    def share(self) -> float:
        """0 (nothing) to 1 (all of it) and above."""
        return self.used / self.limit if self.limit > 0 else 0.0


@attrs.frozen(kw_only=True)
class LevelView:
    """One price of the book."""

    price: Price
    count: Count
    ours: Count = Count(0)
    """How much of it is our own."""


@attrs.frozen(kw_only=True)
class DecisionView:
    """One entry of a market's journal, in words."""

    at: Micros
    state: str
    actions: tuple[str, ...] = ()
    """What was sent."""
    why: str = ""


@attrs.frozen(kw_only=True)
class MarketDetail:
    """One market, closely."""

    market: MarketView
    bids: tuple[LevelView, ...] = ()
    """Best first."""
    asks: tuple[LevelView, ...] = ()
    decisions: tuple[DecisionView, ...] = ()
    """Newest first."""
    fills: tuple[FillView, ...] = ()
    """Newest first."""
    max_position: Count = Count(0)
    """MAX_INVENTORY_PER_MARKET."""


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
    worst_exposure: Count = Count(0)
    """Gross over all markets, each as bad as our working orders can make it."""
    orders_cancelled: int = 0
    orders_amended: int = 0
    orders_expired: int = 0
    """Quotes that ended by their expiry, mostly because the write budget did not carry their renewal."""
    orders_unknown: int = 0
    """Orders whose last write got no answer, now."""
    writes_refused: int = 0
    """Definite refusals of the venue, this run, throttling included."""
    writes_throttled: int = 0
    """Writes answered with 429."""
    drifts: int = 0
    """Markets whose position is not the exchange's at the moment."""
    decisions: int = 0
    connects: int = 0
    """Feed connections made, the first included."""
    gaps: int = 0
    """Times that the feed missed something and asked for a new book."""
    write_latency: HistogramView = HistogramView()
    """From a write's send to its answer, in seconds."""
    loop_lag_s: float = 0.0
    """How much later than asked the event loop woke a sleeper, the worst of the last minute."""
    limits: tuple[LimitView, ...] = ()
    recent_fills: tuple[FillView, ...] = ()
    """Of this run, newest first."""
    markout_averages: tuple[float | None, ...] = (None,) * (1 + len(MARKOUTS_S))
    """Edge and markouts per contract over this run's fills, in `Price` units; None: none known yet."""
    alert_list: tuple[AlertView, ...] = ()
    """The latest ones, newest first."""
    is_all_paused: bool = False
    """An operator holds every market."""
    stopping: str = ""
    """Why the bot is ending; empty while it is not."""
    alerts: tuple[str, ...] = ()
    """The latest ones, newest last."""
    quoting_off: str = ""
    """Why nothing new is quoted anywhere; empty when it is allowed."""
    notice: str = ""
    """What the user should know now: no games until .., quoting switched off because .."""
    web_url: str = ""
    """Where the dashboard is, with the token that lets its reader act: for the operator's own terminal only."""

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

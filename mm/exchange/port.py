"""The port to a venue. Domain types in and out, nothing of the wire.

Kalshi over the network, paper and any later venue stand behind these protocols; one shared suite of contract tests
runs against all of them, and whatever that suite does not ask, callers may not rely on.

Every method may be cancelled; a cancelled *write* leaves its outcome unknown, exactly like `OutcomeUnknown`.
Deadlines belong to the caller, except that each implementation bounds a single request (4 s by default).
"""

import enum
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Generic, NoReturn, Protocol, TypeVar

import attrs

from mm.domain.errors import MMError
from mm.domain.fill import Fill, Trade
from mm.domain.game import GameState
from mm.domain.grid import TickGrid
from mm.domain.market import Event, Incentive, Market, Series
from mm.domain.numbers import Count, Micros, Money, Price
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

# --- errors: did it happen? ------------------------------------------------------------------------------------------


class ExchangeError(MMError):
    """Base of what a venue answers. `code` is the venue's own word, `status` the HTTP status where there was one."""

    def __init__(
        self, message: str, *, endpoint: str = "", status: int | None = None, code: str = ""
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.status = status
        self.code = code

    def __str__(self) -> str:
        parts = [super().__str__()]
        if self.endpoint:
            parts.append(f"at {self.endpoint}")
        if self.status is not None:
            parts.append(f"(HTTP {self.status}{' ' + self.code if self.code else ''})")
        return " ".join(parts)


class ExchangeRejected(ExchangeError):
    """A definite no: this request changed nothing."""


class OrderIdSpent(ExchangeRejected):
    """409 `order_already_exists`: an order with this client id was accepted earlier, so the earlier send landed."""


class NotRestingHere(ExchangeRejected):
    """404 on a cancel, amend or read: not resting as far as that shard knows. Proves nothing by itself."""


class TradingPaused(ExchangeRejected):
    """The market, its shard or the exchange is paused or closed; nothing was accepted. Probe slowly."""


class ExchangeUnavailable(ExchangeError):
    """Definitely not done (no connection was made, or a read failed); may be tried again."""


class ClockRefused(ExchangeUnavailable):
    """The venue takes our clock for wrong and refuses signatures for it. What takes orders off works all the same."""


class OutcomeUnknown(ExchangeError):
    """A write was sent and no usable answer came: it may have been done. Reconcile, never blindly retry."""


class RateLimited(ExchangeError):
    """429: not executed. `retry_after` is a suggestion in seconds."""

    def __init__(
        self,
        message: str,
        *,
        endpoint: str = "",
        status: int | None = 429,
        code: str = "",
        retry_after: float = 0.1,
    ) -> None:
        super().__init__(message, endpoint=endpoint, status=status, code=code)
        self.retry_after = retry_after


class AuthError(ExchangeError):
    """The key, its signature or its scope was refused: stop, do not hammer."""


# --- values ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class NewOrder:
    """A create request. The same value sent twice has the same `client_order_id`: that is what makes it safe."""

    client_order_id: ClientOrderId
    ticker: MarketTicker
    side: Side
    price: Price
    """Limit in YES price, for both sides."""
    count: Count
    exchange_index: int
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = True
    reduce_only: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.TAKER
    group_id: GroupId | None = None
    expires_at: Micros | None = None
    """Whole seconds on the wire: rounded down there. Only with GTC."""
    cancel_on_pause: bool = False


@attrs.frozen(kw_only=True)
class PlaceAck:
    """The answer to a create. Fills in it are information: inventory moves by fills only."""

    order_id: OrderId
    filled: Count
    remaining: Count
    """What rests. 0 with `filled` 0: accepted and cancelled at once (IOC without a match, self-trade, post-only)."""


@attrs.frozen(kw_only=True)
class OrderRef:
    """What a write to an existing order needs so that it reaches the right shard."""

    order_id: OrderId
    ticker: MarketTicker
    exchange_index: int


class OrderStatus(enum.Enum):
    """The venue's word on an order."""

    RESTING = "resting"
    CANCELLED = "cancelled"
    EXECUTED = "executed"


@attrs.frozen(kw_only=True)
class OrderReport:
    """What the venue says about an order, by read or by socket. Reads lag writes."""

    order_id: OrderId
    client_order_id: ClientOrderId | None
    ticker: MarketTicker
    side: Side
    price: Price
    status: OrderStatus
    initial: Count
    filled: Count
    remaining: Count
    exchange_index: int = 0
    group_id: GroupId | None = None
    expires_at: Micros | None = None
    created_at: Micros | None = None
    updated_at: Micros | None = None
    reason: str = ""
    """`last_update_reason` where the venue tells it."""


@attrs.frozen(kw_only=True)
class OrderGroup:
    """An order group: a brake on fills and a fence against late creates."""

    group_id: GroupId
    exchange_index: int
    is_triggered: bool = False


@attrs.frozen(kw_only=True)
class VenuePosition:
    """The venue's word on our position in one market. Lags fills by about a second."""

    ticker: MarketTicker
    position: Count
    """Signed: + YES, - NO."""
    fees_paid: Money
    realized_pnl: Money
    exchange_index: int = 0


@attrs.frozen(kw_only=True)
class Balance:
    """Cash available: after the collateral of positions and resting orders."""

    total: Money
    by_exchange_index: dict[int, Money] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Settlement:
    """A settled market of ours."""

    ticker: MarketTicker
    value: Price
    """What one YES paid (0..1 dollar)."""
    settled_at: Micros
    yes_count: Count
    no_count: Count
    fee: Money


@attrs.frozen(kw_only=True)
class Bucket:
    """A token bucket: continuous refill."""

    refill_per_s: float
    capacity: float


@attrs.frozen(kw_only=True)
class RateLimits:
    """The account's budget and what calls cost."""

    tier: str
    read: Bucket
    write: Bucket
    default_cost: int = 10
    costs: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """Keyed by the values of `mm.exchange.endpoints` -> tokens, where not the default."""

    def cost(self, method: str, path: str) -> int:
        """Tokens of one call."""
        return self.costs.get((method, path), self.default_cost)


@attrs.frozen(kw_only=True)
class ExchangeStatus:
    """Whether the venue trades, per shard."""

    exchange_active: bool
    trading_active: bool
    shards: dict[int, tuple[bool, bool]] = attrs.field(factory=dict)
    """exchange_index -> (exchange_active, trading_active)."""


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
    """One page of a listing. `cursor` is None on the last page."""

    items: list[T]
    cursor: str | None


# --- the live feed ---------------------------------------------------------------------------------------------------


class MarketEventKind(enum.Enum):
    """What the lifecycle channel can say."""

    CREATED = "created"
    ACTIVATED = "activated"
    """Also: all resting orders of the market were cancelled by the venue."""
    DEACTIVATED = "deactivated"
    CLOSE_DATE_UPDATED = "close_date_updated"
    DETERMINED = "determined"
    SETTLED = "settled"
    GRID_CHANGED = "price_level_structure_updated"
    FEES_CHANGED = "event_fee_update"
    """An event's fee overrides changed: `event_ticker` is set, `ticker` is empty."""
    OTHER = "other"


@attrs.frozen(kw_only=True)
class MarketEvent:
    """A change in a market's life."""

    ticker: MarketTicker
    kind: MarketEventKind
    close_time: Micros | None = None
    settlement_value: Price | None = None
    grid: TickGrid | None = None
    event_ticker: str | None = None


class FeedSink(Protocol):
    """Where a feed delivers. All methods are plain calls, made in the feed's own task, in wire order.

    They must be quick and must not raise, save `InvariantError`, and save `BookOutOfSync` from `on_snapshot` and
    `on_delta` (a level would become negative): the feed then answers `on_out_of_sync` for that market and asks for a
    new snapshot. `on_read_end` is called once after everything that
    one read of the socket brought, so that a hundred deltas cause one decision.
    """

    def on_connected(self, now: Micros) -> None:
        """A socket is up and subscriptions are being made. Books are not synced before their snapshots."""

    def on_disconnected(self, now: Micros, why: str) -> None:
        """The socket is gone or judged dead: every book is stale from now on."""

    def on_alive(self, now: Micros) -> None:
        """A frame or a pong came: the socket is not dead."""

    def on_snapshot(
        self,
        ticker: MarketTicker,
        bids: list[tuple[Price, Count]],
        asks: list[tuple[Price, Count]],
        now: Micros,
    ) -> None:
        """The whole book, both sides in YES price. An empty list is an empty side."""

    def on_delta(self, ticker: MarketTicker, side: Side, price: Price, change: Count, ts: Micros) -> None:
        """A relative change of one level, YES price; `ts` is the venue's time (0 when it gave none)."""

    def on_out_of_sync(self, tickers: Sequence[MarketTicker], why: str) -> None:
        """These books missed something; a new snapshot has been asked for and will follow."""

    def on_trade(self, trade: Trade) -> None:
        """A public print."""

    def on_fill(self, fill: Fill) -> None:
        """One of our fills. Not sequenced: a missed one is only found by the reconciler."""

    def on_order(self, report: OrderReport) -> None:
        """One of our orders changed. Not sequenced either."""

    def on_market_event(self, event: MarketEvent) -> None:
        """A lifecycle change of any market of the venue."""

    def on_group_triggered(self, group_id: GroupId) -> None:
        """One of our order groups was triggered: all its orders are cancelled or about to be."""

    def on_read_end(self, now: Micros) -> None:
        """Everything of this read has been delivered."""


class Feed(Protocol):
    """One multiplexed connection. Opened by `Exchange.open_feed`, driven by `run`."""

    async def run(self, sink: FeedSink) -> None:
        """Connect, subscribe, deliver, reconnect with backoff; never returns. Raises `AuthError` only.

        A cancellation leaves no task and no socket.
        """

    async def watch(self, tickers: Sequence[MarketTicker]) -> None:
        """Add markets to the subscriptions (kept across reconnects). Snapshots follow through the sink."""

    async def unwatch(self, tickers: Sequence[MarketTicker]) -> None:
        """Take markets out of the subscriptions."""

    async def resync(self, tickers: Sequence[MarketTicker]) -> None:
        """Ask for fresh snapshots of these markets without changing the subscription."""

    def statistics(self) -> "FeedStatistics":
        """Counters since the start."""


@attrs.frozen(kw_only=True)
class FeedStatistics:
    """What a feed has seen. Nothing is dropped uncounted."""

    connects: int
    frames: int
    unknown_frames: int
    unknown_fields: int
    malformed_frames: int
    gaps: int
    last_frame_at: Micros


# --- the exchange ----------------------------------------------------------------------------------------------------


class Exchange(Protocol):
    """A venue for one account."""

    @property
    def account(self) -> str:
        """What separates one account's rows from another's in the ledger: REST host, key id, subaccount, live|paper."""

    # markets

    async def series(self, ticker: str) -> Series:
        """One series. Raises `NotRestingHere` (404) when it does not exist."""

    async def event(self, ticker: str) -> Event:
        """One event, with its fee overrides."""

    async def game(self, event_ticker: str) -> GameState | None:
        """The scoreboard of an event's game; None where the venue has none, or tells nothing that we know."""

    async def markets(
        self,
        *,
        series_ticker: str | None = None,
        event_ticker: str | None = None,
        status: str | None = None,
        tickers: Sequence[MarketTicker] | None = None,
    ) -> list[Market]:
        """All pages. `status` is the venue's filter word: unopened, open, paused, closed, settled."""

    async def open_markets_page(
        self, *, created_since: Micros | None = None, cursor: str | None = None
    ) -> Page[Market]:
        """One page of every open market of the venue, combos left out; with `created_since` only newer ones."""

    async def all_series(self) -> list[Series]:
        """Every series of the venue, in one call."""

    async def incentives_page(self, *, cursor: str | None = None) -> Page[Incentive]:
        """Programs that are paid for now."""

    async def status(self) -> ExchangeStatus:
        """Whether the venue trades."""

    async def limits(self) -> RateLimits:
        """Budget and costs."""

    # reads of the account

    async def balance(self) -> Balance:
        """Cash."""

    async def positions(self) -> list[VenuePosition]:
        """All unsettled positions, all pages."""

    async def fills_page(
        self, *, since: Micros | None = None, order_id: OrderId | None = None, cursor: str | None = None
    ) -> Page[Fill]:
        """Fills not older than `since` (whole seconds on the wire: rounded down), newest first."""

    async def orders_page(
        self,
        *,
        status: OrderStatus | None = None,
        ticker: MarketTicker | None = None,
        since: Micros | None = None,
        cursor: str | None = None,
    ) -> Page[OrderReport]:
        """Orders, newest first."""

    async def order(self, order_id: OrderId) -> OrderReport:
        """One order. Raises `NotRestingHere` (404) when unknown."""

    async def settlements_page(
        self, *, since: Micros | None = None, cursor: str | None = None
    ) -> Page[Settlement]:
        """Settlements, newest first."""

    async def user_data_age(self) -> Micros:
        """The time as of which balance, orders, fills and positions reads are true."""

    # writes

    async def place(self, order: NewOrder) -> PlaceAck:
        """Create an order. Raises the family above; `OrderIdSpent` means that an earlier send of it landed."""

    async def amend(
        self,
        ref: OrderRef,
        *,
        side: Side,
        price: Price,
        count: Count,
        expires_at: Micros | None = None,
    ) -> None:
        """Change price, or total count (already filled + wanted remaining), or the expiry only (None keeps it)."""

    async def decrease(self, ref: OrderRef, *, reduce_to: Count) -> None:
        """Lower the remaining count; keeps the queue place."""

    async def cancel(self, ref: OrderRef) -> Count:
        """Cancel; returns how much was taken off. Raises `NotRestingHere` on 404, which proves nothing."""

    async def cancel_batch(self, refs: Sequence[OrderRef]) -> list[ExchangeError | None]:
        """Cancel many in one request; one result per ref, in the same order, None = taken off."""

    async def create_group(self, *, contracts_limit: int, exchange_index: int) -> GroupId:
        """A new order group. `contracts_limit` in whole contracts per rolling 15 s."""

    async def trigger_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """Cancel all orders of the group and refuse later creates into it. Safe to repeat."""

    async def delete_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """Forget a group. Cancels what is in it."""

    async def groups(self) -> list[OrderGroup]:
        """All groups of the account."""

    # being ready

    async def keep_ready(self) -> NoReturn:
        """Prepare what writes will need (connections, signatures), as a task beside trading. Never returns.

        Nothing depends on it: without it every method works, a little later. Cancelled at any time.
        """
        raise NotImplementedError  # a protocol cannot say "never returns" with an empty body

    def expect(self, ref: OrderRef) -> None:
        """A write to this order may come soon. A hint: cheap, and never wrong."""

    # feed

    def open_feed(self) -> AbstractAsyncContextManager[Feed]:
        """The live feed. No task runs before `Feed.run`."""

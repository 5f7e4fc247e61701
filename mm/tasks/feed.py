"""The feed's end in the bot: frames become book changes, prints, fills and reports, by direct call in wire order.

Book deltas are never dropped: they are folded at once. Fills leave for the ledger on a bounded channel; a full one is
a bug or a dead disk, and stops trading rather than losing a fill.
"""

from collections.abc import Callable, Sequence

import attrs
import structlog
import trio

from mm.domain.errors import InvariantError, LedgerError
from mm.domain.fill import Fill, Trade
from mm.domain.market import MarketStatus
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, Side
from mm.exchange.port import Feed, MarketEvent, MarketEventKind, OrderReport
from mm.tasks.floor import Floor
from mm.tasks.goals import GoalKeeper

log = structlog.get_logger(__name__)


@attrs.define(eq=False, kw_only=True)
class FeedHandler:
    """A `FeedSink` that writes to the floor."""

    floor: Floor
    fills: trio.MemorySendChannel[Fill]
    """To the booking task."""
    on_feed_down: Callable[[str], None] = lambda why: None
    """The socket is gone: quotes must be pulled by what still works."""
    on_feed_up: Callable[[], None] = lambda: None
    on_market: Callable[[MarketEvent], None] = lambda event: None
    """Lifecycle of any market, for discovery and settlement."""
    on_fenced: Callable[[GroupId], None] = lambda group_id: None
    goals: GoalKeeper | None = None
    """Told of every change and print, and asked before decisions are made."""
    trades: int = 0
    deltas: int = 0

    def on_connected(self, now: Micros) -> None:
        """Subscriptions are being made; each book waits for its own snapshot."""
        self.floor.last_frame_at = now
        if not self.floor.is_feed_up:
            self.floor.is_feed_up = True
            self.floor.lift_all("feed")
            self.on_feed_up()

    def on_disconnected(self, now: Micros, why: str) -> None:
        """Every book is stale from now on."""
        self.floor.is_feed_up = False
        for book in self.floor.books.values():
            book.mark_out_of_sync()
        self.floor.hold_all("feed", "feed is down")
        log.info("feed lost", why=why)  # the puller tells people, when quotes had to go
        self.on_feed_down(why)

    def on_alive(self, now: Micros) -> None:
        """The socket lives."""
        self.floor.last_frame_at = now

    def on_snapshot(
        self,
        ticker: MarketTicker,
        bids: list[tuple[Price, Count]],
        asks: list[tuple[Price, Count]],
        now: Micros,
    ) -> None:
        """The whole book of a watched market."""
        book = self.floor.books.get(ticker)
        if book is None:
            return
        book.snapshot(bids, asks)
        self.floor.mark(ticker)
        if self.goals is not None:
            self.goals.on_snapshot(ticker)

    def on_delta(self, ticker: MarketTicker, side: Side, price: Price, change: Count, ts: Micros) -> None:
        """One level. Raises `BookOutOfSync`, which the feed answers with a resync."""
        floor = self.floor
        book = floor.books.get(ticker)
        if book is None:
            return
        self.deltas += 1
        before = book.best_bid if side is Side.BID else book.best_ask
        book.apply_delta(side, price, change)
        if ticker not in floor.dirty:
            floor.level_changed(ticker, side, price, change, before)
        if self.goals is not None:
            self.goals.on_change(ticker, side, price, change, floor.clock())

    def on_out_of_sync(self, tickers: Sequence[MarketTicker], why: str) -> None:
        """These books wait for a new snapshot; their quotes go."""
        log.warning("books out of sync", markets=len(tickers), why=why)
        for ticker in tickers:
            book = self.floor.books.get(ticker)
            if book is not None:
                book.mark_out_of_sync()
                self.floor.mark(ticker)

    def on_trade(self, trade: Trade) -> None:
        """A public print."""
        maker = self.floor.makers.get(trade.ticker)
        if maker is not None:
            self.trades += 1
            maker.on_trade(trade)
            self.floor.mark(trade.ticker)
            if self.goals is not None:
                self.goals.on_trade(trade, self.floor.clock())

    def on_fill(self, fill: Fill) -> None:
        """One of our fills: counts at once, then goes to the ledger."""
        if self.floor.apply_fill(fill):
            send_fill(self.fills, fill)

    def on_order(self, report: OrderReport) -> None:
        """One of our orders (or a foreign one, which the desk does not know)."""
        if self.floor.desk is not None:
            self.floor.desk.on_report(report)

    def on_market_event(self, event: MarketEvent) -> None:
        """Status and grid of quoted markets follow at once; discovery hears of every event."""
        maker = self.floor.makers.get(event.ticker)
        if maker is not None:
            self._follow(event)
            self.floor.mark(event.ticker)
        self.on_market(event)

    def on_group_triggered(self, group_id: GroupId) -> None:
        """All orders of the group are gone."""
        self.on_fenced(group_id)

    def on_read_end(self, now: Micros) -> None:
        """Decide once for everything that this read changed."""
        self.floor.last_frame_at = now
        if self.goals is not None:
            self.goals.look(now)
        self.floor.decide_dirty(now)

    def _follow(self, event: MarketEvent) -> None:
        maker = self.floor.makers[event.ticker]
        status = _STATUS_OF.get(event.kind)
        if status is not None:
            maker.market = attrs.evolve(maker.market, status=status)
        if event.kind is MarketEventKind.GRID_CHANGED and event.grid is not None:
            maker.market = attrs.evolve(maker.market, grid=event.grid)
        if event.kind is MarketEventKind.CLOSE_DATE_UPDATED and event.close_time is not None:
            is_past = event.close_time <= self.floor.clock()
            status = MarketStatus.CLOSED if is_past else maker.market.status
            maker.market = attrs.evolve(maker.market, close_time=event.close_time, status=status)
        log.info("market event", market=event.ticker, kind=event.kind.value)


_STATUS_OF = {
    MarketEventKind.ACTIVATED: MarketStatus.ACTIVE,
    MarketEventKind.DEACTIVATED: MarketStatus.INACTIVE,
    MarketEventKind.DETERMINED: MarketStatus.DETERMINED,
    MarketEventKind.SETTLED: MarketStatus.FINALIZED,
}


def send_fill(channel: trio.MemorySendChannel[Fill], fill: Fill) -> None:
    """Hand a fill to the booking task. Raises `LedgerError` when that is too far behind: trading stops."""
    try:
        channel.send_nowait(fill)
    except trio.WouldBlock:
        raise LedgerError("fills come faster than the ledger books them: the channel to it is full") from None
    except trio.BrokenResourceError:
        raise InvariantError("a fill came after the booking task had ended") from None


async def run_feed(
    feed: Feed, handler: FeedHandler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Drive the feed for ever. Raises `AuthError`. A cancellation leaves no socket."""
    task_status.started()
    await feed.run(handler)

"""The live feed with our paper orders in it: everything public passes through, everything private is ours alone.

The paper core hears of each book change and print in wire order, before the listener's next; what it does to our orders
follows right behind the frame that caused it. Events caused by requests are delivered by a second task of `run`.
Our orders stand in the book that is delivered, as they would in the venue's: who wants the book without them takes
them off, on paper as live.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn

import attrs
import structlog
import trio

from mm.domain.errors import BookOutOfSync
from mm.domain.fill import Fill, Trade
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, Side
from mm.exchange.paper.core import PaperCore
from mm.exchange.port import (
    AuthError,
    Feed,
    FeedSink,
    FeedStatistics,
    MarketEvent,
    OrderReport,
)

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class PaperSink:
    """Stands before the listener's sink."""

    _sink: FeedSink
    _core: PaperCore
    _clock: Callable[[], Micros]
    foreign: int = 0
    """Private frames of the live account: not of this account, so not passed on."""
    _shown: dict[MarketTicker, dict[tuple[Side, Price], int]] = attrs.field(factory=dict)
    """What of our orders the listener's books hold; a market that is not in it waits for a snapshot."""

    def deliver(self) -> bool:
        """Tell what happened to our orders; whether there was anything."""
        events = self._core.events
        if not events:
            return False
        for ticker in {event.ticker: None for event in events if not isinstance(event, str)}:
            self._show(ticker)
        while events:
            event = events.popleft()
            if isinstance(event, Fill):
                self._sink.on_fill(event)
            elif isinstance(event, OrderReport):
                self._sink.on_order(event)
            else:
                self._sink.on_group_triggered(event)
        return True

    def _show(self, ticker: MarketTicker) -> None:
        """Bring our part of the listener's book up to date."""
        shown = self._shown.get(ticker)
        if shown is None:
            return
        wanted: dict[tuple[Side, Price], int] = {}
        for order in self._core.market(ticker).resting():
            key = (order.side, order.price)
            wanted[key] = wanted.get(key, 0) + order.remaining
        self._shown[ticker] = wanted
        for key in {**shown, **wanted}:
            change = wanted.get(key, 0) - shown.get(key, 0)
            if change:
                self._sink.on_delta(ticker, *key, Count(change), Micros(0))

    def on_connected(self, now: Micros) -> None:
        """See the port."""
        self._sink.on_connected(now)

    def on_disconnected(self, now: Micros, why: str) -> None:
        """See the port. What the market does meanwhile fills nothing on paper."""
        self._shown.clear()
        for market in self._core.markets.values():
            market.mark_out_of_sync()
        self._sink.on_disconnected(now, why)

    def on_alive(self, now: Micros) -> None:
        """See the port."""
        self._core.expire(now)
        self.deliver()
        self._sink.on_alive(now)

    def on_snapshot(
        self,
        ticker: MarketTicker,
        bids: list[tuple[Price, Count]],
        asks: list[tuple[Price, Count]],
        now: Micros,
    ) -> None:
        """See the port."""
        self._core.on_snapshot(ticker, bids, asks, now)
        self._sink.on_snapshot(ticker, bids, asks, now)
        self._shown[ticker] = {}
        self._show(ticker)
        self.deliver()

    def on_delta(self, ticker: MarketTicker, side: Side, price: Price, change: Count, ts: Micros) -> None:
        """See the port."""
        try:
            self._core.on_delta(ticker, side, price, change, self._clock())
        except BookOutOfSync:
            self._shown.pop(ticker, None)
            raise
        self._sink.on_delta(ticker, side, price, change, ts)
        if self._core.events:
            self.deliver()

    def on_out_of_sync(self, tickers: Sequence[MarketTicker], why: str) -> None:
        """See the port."""
        for ticker in tickers:
            self._shown.pop(ticker, None)
            self._core.market(ticker).mark_out_of_sync()
        self._sink.on_out_of_sync(tickers, why)

    def on_trade(self, trade: Trade) -> None:
        """See the port."""
        self._core.on_trade(trade, self._clock())
        self._sink.on_trade(trade)
        self.deliver()

    def on_fill(self, fill: Fill) -> None:
        """A fill of the live account."""
        self._foreign("fill")

    def on_order(self, report: OrderReport) -> None:
        """An order of the live account."""
        self._foreign("order")

    def on_group_triggered(self, group_id: GroupId) -> None:
        """A group of the live account."""
        self._foreign("group")

    def on_market_event(self, event: MarketEvent) -> None:
        """See the port."""
        self._core.on_market_event(event, self._clock())
        self._sink.on_market_event(event)
        self.deliver()

    def on_read_end(self, now: Micros) -> None:
        """See the port."""
        self.deliver()
        self._sink.on_read_end(now)

    def _foreign(self, kind: str) -> None:
        self.foreign += 1
        if self.foreign == 1:
            log.warning("the live account is active while we trade on paper", kind=kind)


@attrs.define(eq=False)
class PaperFeed:
    """The live feed, wrapped."""

    _live: Feed
    _core: PaperCore
    _clock: Callable[[], Micros]
    _next_wake: Callable[[], trio.Event]

    async def run(self, sink: FeedSink) -> None:
        """See the port. As on the real venue, what happened before is not told: read it."""
        wrapped = PaperSink(sink, self._core, self._clock)
        refused: AuthError | None = None
        self._core.is_listened = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, wrapped, sink)
                await self._live.run(wrapped)
        except* AuthError as group:
            refused = next(error for error in group.exceptions if isinstance(error, AuthError))
        finally:
            self._core.is_listened = False
            self._core.events.clear()
        if refused is not None:
            raise refused  # bare, as the port promises

    async def watch(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port."""
        await self._live.watch(tickers)

    async def unwatch(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port. Orders left in these markets no longer fill."""
        for ticker in tickers:
            self._core.market(ticker).mark_out_of_sync()
        await self._live.unwatch(tickers)

    async def resync(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port."""
        await self._live.resync(tickers)

    def statistics(self) -> FeedStatistics:
        """See the port: the live feed's."""
        return self._live.statistics()

    async def _pump(self, wrapped: PaperSink, sink: FeedSink) -> NoReturn:
        """Deliver what requests caused, between the frames of the live feed."""
        while True:
            await self._next_wake().wait()
            if wrapped.deliver():
                sink.on_read_end(self._clock())

"""Recording: beside `mm run` where the settings ask for it, and `mm record`, which does nothing else."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fill import Fill, Trade
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, Side
from mm.engine.selection import select_markets
from mm.exchange.port import Exchange, ExchangeError, Feed, MarketEvent, OrderReport
from mm.session.looking import date_rule, look_around
from mm.session.surroundings import Surroundings, ThreadRunner, live_surroundings
from mm.session.trading import first_contact
from mm.session.venue import check_files, open_venue
from mm.settings import Settings
from mm.settings.kinds import EVERYTHING
from mm.tasks.budget import ReadBudget
from mm.tasks.ids import new_session
from mm.tasks.recorder import Recorder, open_recorder
from mm.tasks.signals import STOP_SIGNALS

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 60.0
"""How often the listing is read for new markets."""
ALL: Final = 100_000
"""More markets than there are: recording takes both of each game."""


@asynccontextmanager
async def recording_if_wanted(
    settings: Settings, surroundings: Surroundings, out: Path | None = None
) -> AsyncGenerator[Recorder | None, None]:
    """A recorder under `out` or, with RECORD set, under the data folder; else None. Raises `ConfigError`."""
    if out is None and not settings["RECORD"]:
        yield None
        return
    async with open_recorder(
        out if out is not None else settings.data_dir / "recordings",
        clock=surroundings.clock,
        runner=ThreadRunner(trio.CapacityLimiter(1)),  # its own: a slow disk must not keep the ledger waiting
        session=new_session(surroundings.random_below),
        use_yes_price=True,
    ) as recorder:
        yield recorder
    log.info("recording closed", summary=recorder.summary())


class Silent:
    """A sink that leaves everything to the recorder."""

    def on_connected(self, now: Micros) -> None:
        """See the port."""

    def on_disconnected(self, now: Micros, why: str) -> None:
        """See the port."""
        log.warning("not recorded until the next connection", why=why)

    def on_alive(self, now: Micros) -> None:
        """See the port."""

    def on_snapshot(
        self,
        ticker: MarketTicker,
        bids: list[tuple[Price, Count]],
        asks: list[tuple[Price, Count]],
        now: Micros,
    ) -> None:
        """See the port."""

    def on_delta(self, ticker: MarketTicker, side: Side, price: Price, change: Count, ts: Micros) -> None:
        """See the port."""

    def on_out_of_sync(self, tickers: Sequence[MarketTicker], why: str) -> None:
        """See the port."""

    def on_trade(self, trade: Trade) -> None:
        """See the port."""

    def on_fill(self, fill: Fill) -> None:
        """See the port."""

    def on_order(self, report: OrderReport) -> None:
        """See the port."""

    def on_market_event(self, event: MarketEvent) -> None:
        """See the port."""

    def on_group_triggered(self, group_id: GroupId) -> None:
        """See the port."""

    def on_read_end(self, now: Micros) -> None:
        """See the port."""


@attrs.define(eq=False)
class _Markets:
    """The markets of the settings' series and date, followed as they are listed."""

    exchange: Exchange
    feed: Feed
    settings: Settings
    surroundings: Surroundings
    reads: ReadBudget
    watched: set[MarketTicker] = attrs.field(factory=set)

    async def look(self) -> None:
        """Watch what is new. Raises `ExchangeError`."""
        found = []
        if self.settings["SERIES_TICKER"] == (EVERYTHING,):
            # A recording keeps what it began with: the best of the venue, not all of it.
            if not self.watched:
                selection, _ = await look_around(
                    self.exchange, self.reads.limits, self.settings, self.surroundings.clock
                )
                await self._watch([market.ticker for market in selection.chosen])
            return
        for series in self.settings["SERIES_TICKER"]:
            await self.reads.take()
            found += await self.exchange.markets(series_ticker=series, status="open")
        date = date_rule(self.settings["MARKET_DATE"], self.surroundings.clock())
        chosen = select_markets(found, date=date, max_markets=ALL, per_game=2, refused={}).chosen
        await self._watch([market.ticker for market in chosen if market.ticker not in self.watched])

    async def _watch(self, new: list[MarketTicker]) -> None:
        if new:
            self.watched.update(new)
            await self.feed.watch(new)
            sys.stderr.write(f"mm record: {len(self.watched)} markets\n")

    async def follow(self) -> None:
        """Look again and again; what the exchange refuses is told and tried later."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except ExchangeError as error:
                sys.stderr.write(f"mm record: listing not read: {error}\n")


async def record(
    settings: Settings,
    *,
    out: Path | None,
    minutes: float | None,
    surroundings: Surroundings | None = None,
    signals: AsyncIterator[int] | None = None,
) -> int:
    """`mm record`: every frame of the day's markets, until a signal or `minutes`. Places nothing.

    Raises `ConfigError`, `AuthError`, and `ExchangeError` when the exchange is not reached at the start.
    """
    check_files(settings)
    surroundings = surroundings or live_surroundings()
    root = out if out is not None else settings.data_dir / "recordings"
    with trio.open_signal_receiver(*STOP_SIGNALS) as received:
        async with (
            recording_if_wanted(settings, surroundings, root) as recorder,
            open_venue(
                settings,
                surroundings,
                force_paper=False,
                tap=recorder.frames_came if recorder is not None else None,
            ) as venue,
        ):
            assert recorder is not None
            limits = await first_contact(venue.exchange)
            reads = ReadBudget(limits, surroundings.clock)
            async with venue.exchange.open_feed() as feed, trio.open_nursery() as nursery:
                await nursery.start(recorder.run)
                markets = _Markets(venue.exchange, feed, settings, surroundings, reads)
                await markets.look()
                nursery.start_soon(feed.run, Silent())
                nursery.start_soon(markets.follow)
                sys.stderr.write(f"mm record: writing to {recorder.writer.folder}; Ctrl-C ends it\n")
                with trio.move_on_after(minutes * 60 if minutes is not None else float("inf")):
                    async for _ in signals or received:
                        break
                nursery.cancel_scope.cancel(reason="recording was ended")
    sys.stdout.write(f"{recorder.summary()}\n")
    return 1 if recorder.problem else 0

"""Discovery: finds the day's markets, starts their quoters, and takes them out when they are over.

It runs again when a market is created or ends, when a day begins in US Eastern, and every few seconds while there is
room for more. No games now is not an error: it says when it looks next and keeps running.

Over the whole venue (a catalogue is given) what is worth most for its write tokens is taken, and what others have become
worth much more than makes room: it is wound down, and let go once nothing of ours is left in it.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final, Literal

import attrs
import structlog
import trio

from mm.domain.errors import ConfigError
from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.market import Market
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import eastern_date, format_date_token, format_time, next_eastern_midnight, series_of
from mm.engine.selection import DateRule, Selection, make_room, select_by_worth, select_markets
from mm.exchange import endpoints
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    Feed,
    MarketEvent,
    MarketEventKind,
    NotRestingHere,
)
from mm.tasks.budget import ReadBudget
from mm.tasks.catalogue import Catalogue
from mm.tasks.floor import Floor
from mm.tasks.quoter import Quoter, QuoterTools

log = structlog.get_logger(__name__)

LOOK_PERIOD_S: Final = 5.0
"""Between two looks while there is room for more markets."""
FULL_PERIOD_S: Final = 60.0
"""And while there is none."""
WIDE_PERIOD_S: Final = 15.0
"""Between two looks at the whole venue while there is room: they read by name what is quoted."""
LISTING_TICKERS: Final = 50


@attrs.define(eq=False, kw_only=True)
class Discovery:
    """The task that decides which markets have a quoter."""

    exchange: Exchange
    floor: Floor
    tools: QuoterTools
    feed: Feed
    reads: ReadBudget
    clock: Callable[[], Micros]
    series: tuple[str, ...]
    market_date: dt.date | Literal["today", "any"]
    catalogue: Catalogue | None = None
    """The whole venue instead of `series` and `market_date`; somebody else runs it."""
    on_selection: Callable[[Selection], None] = lambda selection: None
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None
    on_settlement_due: Callable[[], None] = lambda: None
    last: Selection | None = None
    refused: dict[str, str] = attrs.field(factory=dict)
    taken_at: dict[MarketTicker, Micros] = attrs.field(factory=dict)
    """Since when each quoted market is."""
    rotated: int = 0
    """Markets that made room for better ones."""
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _said_none: dt.date | None = None

    def on_market_event(self, event: MarketEvent) -> None:
        """Lifecycle of any market: a new one of our series, or the end of one of ours, is worth a look."""
        is_ours = event.ticker in self.floor.makers
        is_known = self.catalogue is None or is_ours or event.ticker in self.floor.positions.histories
        if is_known and event.kind in (MarketEventKind.DETERMINED, MarketEventKind.SETTLED):
            self.on_settlement_due()
        is_new = event.kind in (MarketEventKind.CREATED, MarketEventKind.ACTIVATED)
        if is_ours or (is_new and series_of(event.ticker) in self.series):
            self._wanted.set()

    async def check_series(self) -> None:
        """Every series must exist. Raises `ConfigError` naming those that do not, `ExchangeError` when unreachable."""
        if self.catalogue is not None:
            return  # it reads the fees of all that there are
        problems = []
        for ticker in self.series:
            await self.reads.take(self.reads.limits.cost(*endpoints.SERIES))
            try:
                series = await self.exchange.series(ticker)
            except NotRestingHere:
                problems.append(f"SERIES_TICKER: the exchange knows no series {ticker!r}")
                continue
            if series.fee_type is FeeType.FLAT:
                self.refused[ticker] = "fee type flat is not understood"
            else:
                self.floor.fees[ticker] = FeeSchedule(series.fee_type, series.fee_multiplier)
        if problems:
            raise ConfigError(problems)

    async def run(
        self, nursery: trio.Nursery, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Look for ever; quoters are started in `nursery`. `started()` after the first successful look."""
        is_started = False
        delay = 0.5
        while True:
            self._wanted = trio.Event()
            try:
                await self._look(nursery)
                delay = 0.5
            except AuthError:
                raise
            except ExchangeError as exc:
                self.on_problem("discovery", exc)
                await trio.sleep(delay)
                delay = min(2 * delay, 10.0)
                continue
            if not is_started:
                is_started = True
                task_status.started()
            with trio.move_on_after(self._wait_s()):
                await self._wanted.wait()
            await trio.sleep(0.2)  # events come in bursts: one look for all of them

    async def select(self) -> Selection:
        """List the series' open markets and choose. Raises `ExchangeError`."""
        if self.catalogue is not None:
            return await self._select_by_worth(self.catalogue)
        markets: dict[MarketTicker, Market] = {}
        for ticker in self.series:
            await self.reads.take(self.reads.limits.cost(*endpoints.MARKETS))
            for market in await self.exchange.markets(series_ticker=ticker, status="open"):
                markets[market.ticker] = market
        await self._refresh_unlisted(markets)
        return select_markets(
            markets.values(),
            date=self._date(),
            max_markets=self.floor.parameters.max_markets_to_trade,
            per_game=self.floor.parameters.markets_per_game,
            taken=[t for t, m in self.floor.makers.items() if not m.market.status.is_over],
            held=[t for t in self._positions() if t not in self.floor.makers],
            refused=self.refused,
        )

    async def _select_by_worth(self, catalogue: Catalogue) -> Selection:
        """The same over the whole venue. What is quoted is asked for by name: the catalogue may be minutes old."""
        makers = self.floor.makers
        markets = {t: m for t, m in catalogue.markets.items() if t not in makers}
        await self._refresh_unlisted(markets)
        catalogue.add(markets[t] for t in makers if t in markets)
        return select_by_worth(
            markets.values(),
            catalogue.worth,
            max_markets=self.floor.parameters.max_markets_to_trade,
            per_game=self.floor.parameters.markets_per_game,
            taken=[t for t, m in makers.items() if not m.market.status.is_over],
            held=[t for t in self._positions() if t not in makers],
        )

    def _rotate(self, catalogue: Catalogue) -> None:
        """Begin to leave what others are worth much more than. With a position it is wound down first."""
        floor, most = self.floor, self.floor.parameters.max_markets_to_trade
        leaving = make_room(
            catalogue.worth,
            taken_at={t: at for t, at in self.taken_at.items() if t not in floor.leaving},
            wanted=[t for t in catalogue.best() if t not in floor.makers],
            room=most - len(floor.makers) + len(floor.leaving),
            now=self.clock(),
            max_markets=most,
        )
        for ticker in leaving:
            floor.wind_down(ticker)
        if leaving:
            self.rotated += len(leaving)
            log.info("markets make room for better ones", markets=leaving)

    async def _look(self, nursery: trio.Nursery) -> None:
        selection = await self.select()
        self.last = selection
        new = [m for m in selection.chosen if m.ticker not in self.floor.makers]
        await self._retire()
        if self.catalogue is not None:
            self._rotate(self.catalogue)
        if new:
            await self._take(nursery, new)
        self._say(selection, new)
        self.on_selection(selection)

    def _positions(self) -> list[MarketTicker]:
        positions = self.floor.positions
        return [
            t for t, h in positions.histories.items() if not h.state.is_flat and t not in positions.settled
        ]

    async def _refresh_unlisted(self, markets: dict[MarketTicker, Market]) -> None:
        """Quoted markets that are not listed as open any more, and held ones of other series: ask for them by name."""
        missing = [t for t in self.floor.makers if t not in markets]
        missing += [t for t in self._positions() if t not in markets and t not in missing]
        for start in range(0, len(missing), LISTING_TICKERS):
            part = missing[start : start + LISTING_TICKERS]
            await self.reads.take(self.reads.limits.cost(*endpoints.MARKETS))
            for market in await self.exchange.markets(tickers=part):
                markets[market.ticker] = market
        for ticker, maker in self.floor.makers.items():
            listed = markets.get(ticker)
            if listed is not None and (listed.status, listed.grid) != (
                maker.market.status,
                maker.market.grid,
            ):
                maker.market = listed
                self.floor.mark(ticker)
                self.floor.order_changed(ticker)

    async def _take(self, nursery: trio.Nursery, markets: Sequence[Market]) -> None:
        for market in markets:
            maker = self.floor.add_market(market)
            quoter = Quoter(maker, self.tools)
            self.floor.quoters[market.ticker] = quoter
            self.taken_at[market.ticker] = self.clock()
            await nursery.start(quoter.run)
        await self.feed.watch([m.ticker for m in markets])
        log.info("markets taken", markets=[m.ticker for m in markets])

    async def _retire(self) -> None:
        """Take out markets that are over or left, once nothing of ours is in them: no order that may rest, no fill to
        come, and in a market that goes on no position."""
        floor = self.floor
        over = [
            ticker
            for ticker, maker in floor.makers.items()
            if maker.market.status.is_over and not floor.orders(ticker)
        ]
        left = [
            ticker
            for ticker in floor.leaving
            if ticker not in over and not floor.orders(ticker) and floor.inventory(ticker).is_flat
        ]
        for ticker in (*over, *left):
            self.floor.quoters[ticker].scope.cancel(reason="market is over or left")
            self.floor.remove_market(ticker)
            self.taken_at.pop(ticker, None)
        if over:
            log.info("markets over", markets=over)
            self.on_settlement_due()
        if left:
            log.info("markets left", markets=left)
        if over or left:
            await self.feed.unwatch([*over, *left])

    def _date(self) -> DateRule:
        if self.market_date == "today":
            return eastern_date(self.clock())
        return self.market_date

    def _wait_s(self) -> float:
        now = self.clock()
        full = len(self.floor.makers) >= self.floor.parameters.max_markets_to_trade
        until_midnight = (next_eastern_midnight(now) - now) / SECOND + 1
        period = LOOK_PERIOD_S if self.catalogue is None else WIDE_PERIOD_S
        return min(FULL_PERIOD_S if full and not self.floor.leaving else period, until_midnight)

    def _say(self, selection: Selection, new: Sequence[Market]) -> None:
        date = self._date()
        if selection.chosen or date == "any" or self.catalogue is not None:
            self._said_none = None
            return
        if self._said_none == date:
            return
        self._said_none = date
        log.warning(
            "no games to quote now",
            series=",".join(self.series),
            date=format_date_token(date),
            next_look_s=LOOK_PERIOD_S,
            next_day=format_time(next_eastern_midnight(self.clock()), trim=True),
        )

"""The trading phase: its parts, wired once; recovery, the nursery of tasks, and the promise on the way out."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fill import Fill
from mm.domain.numbers import CONTRACT, SECOND, Micros, Money
from mm.domain.order import MarketTicker
from mm.engine.decisions.journal import DecisionJournal, JournalledBook, JournalledMaker
from mm.engine.limits import DailyLoss
from mm.engine.risk.guards import Guards, Measure, rolling_limit
from mm.engine.selection import Selection
from mm.exchange.port import AuthError, Exchange, ExchangeError, Feed, RateLimits
from mm.ledger import Ledger
from mm.session.guarding import guarded, guardian_config
from mm.session.leaving import Promise
from mm.session.notices import Notices
from mm.session.summary import Summary
from mm.session.surroundings import Surroundings
from mm.session.tape import Tape
from mm.session.venue import Venue
from mm.settings import Settings
from mm.settings.kinds import EVERYTHING
from mm.settings.proof import warnings
from mm.settings.sports import load_sports
from mm.tasks.alerts import Alerts
from mm.tasks.attribution import Attribution
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.catalogue import Catalogue, renewals_per_hour
from mm.tasks.desk import OrderDesk
from mm.tasks.discovery import Discovery
from mm.tasks.events import EventReader
from mm.tasks.feed import FeedHandler, run_feed
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.freshness import Moment
from mm.tasks.goals import GoalKeeper, Scoreboard
from mm.tasks.guardian import Guardian
from mm.tasks.guards import GuardKeeper
from mm.tasks.ids import OrderIds
from mm.tasks.killswitch import KillSwitch
from mm.tasks.monitor import Monitor
from mm.tasks.positions import Positions
from mm.tasks.probabilities import Probabilities
from mm.tasks.pull import Puller
from mm.tasks.quoter import QuoterTools
from mm.tasks.reconcile import Reconciler
from mm.tasks.resolve import Resolver

log = structlog.get_logger(__name__)

FILL_CHANNEL: Final = 10_000
"""Fills on their way to the ledger; full stops trading."""
START_DEADLINE_S: Final = 20.0
"""How long a venue that cannot be reached is tried at the start."""
EXIT_RESERVE: Final = 40.0
"""Write tokens a shard kept back for leaving: its group's trigger and the first cancels of the sweep."""


@attrs.define(eq=False, kw_only=True)
class Trading:
    """Everything that trades, wired. `run` once."""

    settings: Settings
    venue: Venue
    limits: RateLimits
    ledger: Ledger
    alerts: Alerts
    surroundings: Surroundings
    ids: OrderIds
    stop: Callable[[str], None]
    """Ends trading, with a reason."""
    summary: Summary
    decisions: DecisionJournal | None = None
    """Where the market makers note what they are told and what they decide; None: nowhere."""
    why_stopping: Callable[[], str] = lambda: ""
    """Why trading is being ended; empty while it is not."""
    notices: Notices = attrs.field(init=False)
    floor: Floor = attrs.field(init=False)
    writes: WriteBudget = attrs.field(init=False)
    reads: ReadBudget = attrs.field(init=False)
    fence: Fence = attrs.field(init=False)
    desk: OrderDesk = attrs.field(init=False)
    reconciler: Reconciler = attrs.field(init=False)
    puller: Puller = attrs.field(init=False)
    promise: Promise = attrs.field(init=False)
    feed: Feed | None = None
    discovery: Discovery | None = None
    """Made with the feed."""
    monitor: Monitor = attrs.field(init=False)
    tape: Tape = attrs.field(init=False)
    attribution: Attribution | None = None
    """Notes what becomes of each fill; None: nobody asked for it."""
    is_new_quoting_off: str = ""
    """Why no new quotes are allowed by hand (setting or kill switch); empty when they are."""
    _kill_switch_why: str = ""
    is_paused_by_operator: str = ""
    """Why an operator wants no quotes anywhere; empty when he does not. Exits go on."""
    guardian: Guardian | None = None
    is_unguarded: str = ""
    """Why there is no guardian; empty when there is one, or none is wanted."""
    realized_before: Money = Money(0)
    markets_seen: set[MarketTicker] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        clock, exchange, parameters = self.clock, self.exchange, self.settings.strategy
        self.notices = Notices(self.alerts, lambda ticker: self.floor.positions.net(ticker))
        positions = Positions(on_new_fill=self._filled)
        self.floor = Floor(
            parameters=parameters,
            clock=clock,
            positions=positions,
            strategies=self.settings.strategies,
            net_across=self.settings["NET_ACROSS_MARKETS"],
        )
        self.floor.exposure.exhaustive_series = self.settings["EXHAUSTIVE_SERIES"]
        if self.decisions is not None:
            self.floor.make_maker = partial(JournalledMaker, sink=self.decisions)
            self.floor.make_book = JournalledBook
        self.tape = Tape(self.floor.mark_of)
        self.writes = WriteBudget(self.limits, clock, min(EXIT_RESERVE, self.limits.write.capacity / 2))
        self.reads = ReadBudget(self.limits, clock)
        rolling = rolling_limit(self.settings[Measure.FILL_RATE.setting], parameters.max_global_inventory)
        self.fence = Fence(exchange, self.ledger, self.writes, max(1, rolling // CONTRACT))
        self.desk = OrderDesk(
            exchange, self.ledger, self.writes, clock, self.floor.order_changed, on_placed=self.notices.placed
        )
        self.floor.desk = self.desk
        self.desk.check = self.floor.exposure.refuse
        self.reconciler = Reconciler(
            exchange=exchange,
            ledger=self.ledger,
            floor=self.floor,
            reads=self.reads,
            writes=self.writes,
            ids=self.ids,
            clock=clock,
            listeners=attrs.evolve(
                self.notices.of_reconciler(), on_problem=lambda what, exc: self.puller.problem(what, exc)
            ),
        )
        self.puller = Puller(
            fence=self.fence,
            desk=self.desk,
            floor=self.floor,
            reconciler=self.reconciler,
            alerts=self.alerts,
            on_problem=self.notices.problem,
        )
        child = self.venue.child
        self.promise = Promise(
            exchange=exchange,
            ledger=self.ledger,
            alerts=self.alerts,
            writes=self.writes,
            puller=self.puller,
            reconciler=self.reconciler,
            clock=clock,
            prefix=self.ids.bot_prefix,
            summary=self.summary,
            is_exchange_dead=lambda: child is not None and not child.is_alive,
        )
        self.monitor = self._monitor()
        self._switched("")

    @property
    def exchange(self) -> Exchange:
        """The venue's port."""
        return self.venue.exchange

    @property
    def clock(self) -> Callable[[], Micros]:
        """Wall clock."""
        return self.surroundings.clock

    @property
    def is_leaving(self) -> bool:
        """Asked to stop, or past it: nothing is decided any more."""
        return bool(self.why_stopping()) or self.promise.is_proven_clean

    # --- the phases ---

    async def run(self, scope: trio.CancelScope, on_trading: Callable[[], None]) -> None:
        """Recover, trade until `scope` is cancelled, leave nothing behind.

        Raises what ended it: an `MMError`, or whatever a task raised; the sweep has been done by then.
        """
        async with self._guarded(), self.promise.no_orders_left():
            with scope:
                await self.promise.clear_leftovers(self.ids.session)
                self.reconciler.nothing_rests_since = Moment.now(self.clock)
                await self.reconciler.load()
                await self._trade(on_trading)

    async def _trade(self, on_trading: Callable[[], None]) -> None:
        send, receive = trio.open_memory_channel[Fill](FILL_CHANNEL)
        async with trio.open_nursery() as nursery, self.exchange.open_feed() as feed:
            nursery.start_soon(self.writes.run)
            nursery.start_soon(self.exchange.keep_ready)
            nursery.start_soon(self.puller.run)
            nursery.start_soon(self.puller.run_brake)
            if self.guardian is not None:
                nursery.start_soon(self.guardian.run)
            await nursery.start(self._kill_switch().run)
            await nursery.start(self.reconciler.book_fills, receive)
            await nursery.start(self.reconciler.run)
            nursery.start_soon(self.puller.watch_reads)
            self.realized_before = self.floor.positions.realized()
            tools = self._tools()
            events = self._event_reader()
            nursery.start_soon(events.run)

            def selected(selection: Selection) -> None:
                self.markets_seen.update(market.ticker for market in selection.chosen)
                events.on_selection(selection)

            catalogue = self._catalogue()
            if catalogue is not None:
                await nursery.start(catalogue.run)
            discovery = Discovery(
                exchange=self.exchange,
                floor=self.floor,
                tools=tools,
                feed=feed,
                reads=self.reads,
                clock=self.clock,
                series=self.settings["SERIES_TICKER"],
                market_date=self.settings["MARKET_DATE"],
                catalogue=catalogue,
                on_selection=selected,
                on_problem=self.notices.problem,
                on_settlement_due=lambda: self.reconciler.settlement_wanted.set(),
            )
            self.discovery, self.feed = discovery, feed
            await discovery.check_series()
            handler = FeedHandler(
                floor=self.floor,
                fills=send,
                on_feed_down=self.puller.feed_down,
                on_market=discovery.on_market_event,
                on_fenced=self.puller.fenced,
                goals=self._guard_goals(nursery),
            )
            await nursery.start(run_feed, feed, handler)
            nursery.start_soon(self.monitor.run)
            probabilities = self._probabilities()
            if probabilities is not None:
                nursery.start_soon(probabilities.run)
            await nursery.start(discovery.run, nursery)
            for text in warnings(self.settings, on_paper=self.venue.is_paper):
                self.alerts.risk("unproven strategy", text)
            self.alerts.started(f"{self.venue.label}: quoting {len(self.floor.makers)} markets")
            on_trading()

    def _catalogue(self) -> Catalogue | None:
        """Where the whole venue is asked for: what is worth looking at in it."""
        if self.settings["SERIES_TICKER"] != (EVERYTHING,):
            return None
        ttl_s: int | None = self.settings["QUOTE_TTL_SEC"]
        return Catalogue(
            exchange=self.exchange,
            reads=self.reads,
            clock=self.clock,
            parameters=lambda: self.floor.parameters,
            limits=self.limits,
            renewals_per_hour=renewals_per_hour(ttl_s),
            on_problem=self.notices.problem,
        )

    def _probabilities(self) -> Probabilities | None:
        """The file of probabilities from outside, where there is one."""
        path = self.settings["PROBABILITIES_FILE"]
        if not path:
            return None
        return Probabilities(
            path=Path(path).expanduser(),
            floor=self.floor,
            runner=self.surroundings.runner,
            clock=self.clock,
            on_problem=lambda text: self.alerts.error("probabilities", text),
        )

    def _guard_goals(self, nursery: trio.Nursery) -> GoalKeeper | None:
        """The goal guard and its scoreboard, where the setting asks for it."""
        if self.settings["GOAL_GUARD"] != "on":
            return None
        keeper = GoalKeeper(floor=self.floor, sports=load_sports(), tell=self.notices.goal_guarded)
        scoreboard = Scoreboard(
            keeper=keeper,
            exchange=self.exchange,
            reads=self.reads,
            clock=self.clock,
            on_problem=self.notices.problem,
        )
        nursery.start_soon(scoreboard.run)
        nursery.start_soon(scoreboard.watch_time)
        return keeper

    def _tools(self) -> QuoterTools:

        async def look_up_fills() -> None:
            try:
                await self.reconciler.pass_fills()
            except AuthError:
                raise
            except ExchangeError as exc:
                self.notices.problem("fills", exc)

        ttl_s: int | None = self.settings["QUOTE_TTL_SEC"]
        return QuoterTools(
            desk=self.desk,
            resolver=Resolver(self.exchange, self.desk, self.writes, self.reads, self.clock, look_up_fills),
            fence=self.fence,
            budget=self.writes,
            ids=self.ids,
            clock=self.clock,
            quote_ttl=None if ttl_s is None else Micros(ttl_s * SECOND),
            why_stopped=lambda: self.is_unguarded or self.is_new_quoting_off or self.is_paused_by_operator,
            is_fencing=lambda: self.floor.is_fencing,
            on_trouble=self.notices.trouble,
            on_group_closed=self.puller.fenced,
        )

    def _event_reader(self) -> EventReader:
        return EventReader(
            exchange=self.exchange,
            reads=self.reads,
            exposure=self.floor.exposure,
            on_problem=self.notices.problem,
            on_known=lambda tickers: self.floor.dirty.update(
                dict.fromkeys(t for t in tickers if t in self.floor.makers)
            ),
        )

    def _monitor(self) -> Monitor:
        return Monitor(
            floor=self.floor,
            clock=self.clock,
            daily_loss=DailyLoss(self.floor.parameters.daily_loss_limit),
            stop=self.stop,
            check_positions=self.reconciler.compare_positions,
            on_trigger=self.notices.triggered,
            on_portfolio=self.notices.portfolio,
            days=self.ledger,
            guards=self._guards(),
        )

    def _guards(self) -> GuardKeeper:
        steps = {measure: self.settings[measure.setting] for measure in Measure}
        return GuardKeeper(
            guards=Guards.of(steps),
            floor=self.floor,
            drifting=lambda: len(self.reconciler.drifts),
            refusals=lambda: self.desk.rejected,
            stop=self.stop,
            tell=self.notices.guarded,
            book=self.ledger,
        )

    def _filled(self, fill: Fill) -> None:
        self.tape.add(fill)
        if self.attribution is not None:
            self.attribution.add(fill)
        if self.monitor.guards is not None:
            self.monitor.guards.filled(fill.count, self.clock())
        self.notices.filled(fill)

    def _kill_switch(self) -> KillSwitch:

        def changed(why: str) -> None:
            self._switched(why)
            self.notices.switched(self.is_new_quoting_off)
            if not why and self.monitor.guards is not None:
                self.monitor.guards.resume()  # who takes the file away says that it may go on
            self.floor.wake_all()

        return KillSwitch(folder=self.settings.data_dir, runner=self.surroundings.runner, on_change=changed)

    def switch_again(self) -> None:
        """The settings have changed: is new quoting allowed by hand?"""
        self._switched(self._kill_switch_why)

    def _switched(self, why: str) -> None:
        self._kill_switch_why = why
        by_setting = "DISABLE_NEW_QUOTES is set" if self.settings["DISABLE_NEW_QUOTES"] else ""
        self.is_new_quoting_off = why or by_setting

    # --- the guardian ---

    @asynccontextmanager
    async def _guarded(self) -> AsyncGenerator[None, None]:
        spawn = self.surroundings.spawn_guardian
        if spawn is None or self.venue.is_paper:
            yield
            return
        async with guarded(
            guardian_config(self.settings, self.venue, self.limits, self.ids),
            spawn,
            self.clock,
            on_lost=self._guardian_lost,
            on_back=self._guardian_back,
            on_frozen=self.puller.frozen,
            is_clean=lambda: self.promise.is_proven_clean,
        ) as guardian:
            self.fence.acknowledge, self.fence.forget = guardian.acknowledge, guardian.forget
            self.guardian = guardian
            yield

    def _guardian_lost(self, why: str) -> None:
        self.is_unguarded = f"no guardian: {why}"
        self.alerts.error("guardian", f"the guardian is gone ({why}): no new quotes until it is back")
        self.floor.wake_all()

    def _guardian_back(self) -> None:
        self.is_unguarded = ""
        self.floor.wake_all()

    def finish(self) -> None:
        """Fill the summary with this run's figures."""
        if self.attribution is not None:
            self.attribution.close()
        summary, positions = self.summary, self.floor.positions
        summary.markets = len(self.markets_seen)
        summary.orders_placed = self.desk.placed
        summary.orders_cancelled += self.desk.cancelled
        summary.fills, summary.contracts, summary.fees = positions.fills, positions.contracts, positions.fees
        summary.realized_pnl = Money(positions.realized() - self.realized_before)
        summary.positions_match = self.reconciler.positions_match


async def first_contact(exchange: Exchange) -> RateLimits:
    """Budget and costs; proves that the venue is there and the key is good.

    Raises `AuthError` at once, another `ExchangeError` when the venue was not reached within `START_DEADLINE_S`.
    """
    deadline = trio.current_time() + START_DEADLINE_S
    delay = 0.2
    while True:
        try:
            return await exchange.limits()
        except AuthError:
            raise
        except ExchangeError as exc:
            if trio.current_time() + delay > deadline:
                raise
            log.warning("exchange not reached yet", error=str(exc))
            await trio.sleep(delay)
            delay = min(2 * delay, 3.0)

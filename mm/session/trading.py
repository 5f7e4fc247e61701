"""The trading phase: its parts, wired once; recovery, the nursery of tasks, and the promise on the way out."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fill import Fill
from mm.domain.numbers import CONTRACT, SECOND, Micros, Money
from mm.domain.order import GroupId, MarketTicker
from mm.engine.limits import DailyLoss
from mm.exchange import endpoints
from mm.exchange.port import AuthError, Exchange, ExchangeError, Feed, RateLimits
from mm.guard.protocol import Budget
from mm.ledger import GroupRow, Ledger
from mm.session.notices import Notices
from mm.session.summary import ExitCode, Summary
from mm.session.surroundings import Surroundings
from mm.session.tape import Tape
from mm.session.venue import Venue
from mm.settings import Settings
from mm.tasks.alerts import Alerts
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.desk import OrderDesk
from mm.tasks.discovery import Discovery
from mm.tasks.feed import FeedHandler, run_feed
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.guardian import Guardian, GuardianConfig, open_guardian
from mm.tasks.ids import OrderIds
from mm.tasks.killswitch import KillSwitch
from mm.tasks.monitor import Monitor
from mm.tasks.positions import Positions
from mm.tasks.quoter import QuoterTools
from mm.tasks.reconcile import Reconciler
from mm.tasks.resolve import Resolver
from mm.tasks.sweep import EXIT_DEADLINE_S, Sweeper, SweepReport

log = structlog.get_logger(__name__)

FILL_CHANNEL: Final = 10_000
"""Fills on their way to the ledger; full stops trading."""
START_DEADLINE_S: Final = 20.0
"""How long a venue that cannot be reached, or a sweep that is not proven, is tried at the start."""
TRIGGER_FIRST_S: Final = 2.0
"""At the exit the groups have so long before single orders are looked for; a shard that does not answer is tried on."""
FINAL_CHECK_S: Final = 6.0
"""For the last fills and the last comparison: longer than the read lag."""
EXIT_RESERVE: Final = 40.0
"""Write tokens a shard kept back for leaving: its group's trigger and the first cancels of the sweep."""
GROUP_BRAKE_S: Final = 5.0
"""No new quotes for so long after a group was triggered, not by us."""
CATCH_UP_RETRY_S: Final = 0.5
GROUP_REST: Final = Micros(600 * SECOND)
"""Groups are deleted no earlier than this after they were triggered."""


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
    why_stopping: Callable[[], str] = lambda: ""
    """Why trading is being ended; empty while it is not."""
    notices: Notices = attrs.field(init=False)
    floor: Floor = attrs.field(init=False)
    writes: WriteBudget = attrs.field(init=False)
    reads: ReadBudget = attrs.field(init=False)
    fence: Fence = attrs.field(init=False)
    desk: OrderDesk = attrs.field(init=False)
    reconciler: Reconciler = attrs.field(init=False)
    feed: Feed | None = None
    discovery: Discovery | None = None
    """Made with the feed."""
    monitor: Monitor = attrs.field(init=False)
    tape: Tape = attrs.field(init=False)
    is_new_quoting_off: str = ""
    """Why no new quotes are allowed by hand (setting or kill switch); empty when they are."""
    is_paused_by_operator: str = ""
    """Why an operator wants no quotes anywhere; empty when he does not. Exits go on."""
    is_proven_clean: bool = False
    """The exit sweep has proven that nothing rests."""
    guardian: Guardian | None = None
    is_unguarded: str = ""
    """Why there is no guardian; empty when there is one, or none is wanted."""
    realized_before: Money = Money(0)
    markets_seen: set[MarketTicker] = attrs.field(factory=set)
    _fence_wanted: trio.Event = attrs.field(factory=trio.Event)
    _fence_reason: str = ""
    _brake_wanted: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        clock, exchange, parameters = self.clock, self.exchange, self.settings.strategy
        self.notices = Notices(self.alerts, lambda ticker: self.floor.positions.net(ticker))
        positions = Positions(on_new_fill=self._filled)
        self.floor = Floor(parameters=parameters, clock=clock, positions=positions)
        self.tape = Tape(self.floor.mark_of)
        self.writes = WriteBudget(self.limits, clock, min(EXIT_RESERVE, self.limits.write.capacity / 2))
        self.reads = ReadBudget(self.limits, clock)
        self.fence = Fence(exchange, self.ledger, self.writes, parameters.max_global_inventory // CONTRACT)
        self.desk = OrderDesk(
            exchange, self.ledger, self.writes, clock, self.floor.order_changed, on_placed=self.notices.placed
        )
        self.floor.desk = self.desk
        self.reconciler = Reconciler(
            exchange=exchange,
            ledger=self.ledger,
            floor=self.floor,
            reads=self.reads,
            writes=self.writes,
            ids=self.ids,
            clock=clock,
            listeners=self.notices.of_reconciler(),
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

    # --- the phases ---

    async def run(self, scope: trio.CancelScope, on_trading: Callable[[], None]) -> None:
        """Recover, trade until `scope` is cancelled, leave nothing behind.

        Raises what ended it: an `MMError`, or whatever a task raised; the sweep has been done by then.
        """
        async with self._guarded(), self._no_orders_left():
            with scope:
                await self._recover()
                await self._trade(on_trading)

    async def _recover(self) -> None:
        """Whatever earlier lives left is taken off, and the books are brought up to date, before the first quote."""
        old = await self.ledger.groups(exclude_session=self.ids.session)
        sweeper = self._sweeper()
        pending = [(g.group_id, g.exchange_index) for g in old if g.triggered_at is None]
        failed = await sweeper.trigger_groups(pending)
        for group_id, _ in pending:
            if group_id not in failed:
                self.ledger.record_group_triggered(group_id)
        report = await sweeper.sweep(START_DEADLINE_S)
        if not report.is_proven:
            raise ExchangeError(f"start-up sweep: {report.problem}")
        if report.cancelled:
            log.warning("orders of an earlier run taken off", orders=report.cancelled)
            self.alerts.error("leftovers", f"{report.cancelled} orders of an earlier run were taken off")
        await self._delete_old_groups(old)
        await self.reconciler.load()

    async def _delete_old_groups(self, groups: list[GroupRow]) -> None:
        now = self.clock()
        for row in groups:
            if row.triggered_at is None or now - row.triggered_at < GROUP_REST:
                continue
            try:
                await self._delete_group(row)
            except ExchangeError as exc:
                log.info("old group not deleted", group=row.group_id, error=str(exc))
            else:
                self.ledger.record_group_deleted(row.group_id)

    async def _delete_group(self, row: GroupRow) -> None:
        await self.writes.take_for_exit(self.writes.limits.default_cost, row.exchange_index)
        await self.exchange.delete_group(row.group_id, exchange_index=row.exchange_index)

    async def _trade(self, on_trading: Callable[[], None]) -> None:
        send, receive = trio.open_memory_channel[Fill](FILL_CHANNEL)
        async with trio.open_nursery() as nursery, self.exchange.open_feed() as feed:
            nursery.start_soon(self.writes.run)
            nursery.start_soon(self._pull_when_blind)
            nursery.start_soon(self._release_brake)
            if self.guardian is not None:
                nursery.start_soon(self.guardian.run)
            await nursery.start(self._kill_switch().run)
            await nursery.start(self.reconciler.book_fills, receive)
            await nursery.start(self.reconciler.run)
            self.realized_before = self.floor.positions.realized()
            tools = self._tools()
            discovery = Discovery(
                exchange=self.exchange,
                floor=self.floor,
                tools=tools,
                feed=feed,
                reads=self.reads,
                clock=self.clock,
                series=self.settings["SERIES_TICKER"],
                market_date=self.settings["MARKET_DATE"],
                on_selection=lambda s: self.markets_seen.update(m.ticker for m in s.chosen),
                on_problem=self.notices.problem,
                on_settlement_due=lambda: self.reconciler.settlement_wanted.set(),
            )
            self.discovery, self.feed = discovery, feed
            await discovery.check_series()
            handler = FeedHandler(
                floor=self.floor,
                fills=send,
                on_feed_down=self._feed_down,
                on_market=discovery.on_market_event,
                on_fenced=self._fenced,
            )
            await nursery.start(run_feed, feed, handler)
            nursery.start_soon(self.monitor.run)
            await nursery.start(discovery.run, nursery)
            self.alerts.started(f"{self.venue.label}: quoting {len(self.floor.makers)} markets")
            on_trading()

    def _tools(self) -> QuoterTools:

        async def look_up_fills() -> None:
            try:
                await self.reconciler.pass_fills()
            except AuthError:
                raise
            except ExchangeError as exc:
                self.notices.problem("fills", exc)

        return QuoterTools(
            desk=self.desk,
            resolver=Resolver(self.exchange, self.desk, self.writes, self.reads, self.clock, look_up_fills),
            fence=self.fence,
            budget=self.writes,
            ids=self.ids,
            clock=self.clock,
            quote_ttl=Micros(self.settings["QUOTE_TTL_SEC"] * SECOND),
            why_stopped=lambda: self.is_unguarded or self.is_new_quoting_off or self.is_paused_by_operator,
            is_fencing=lambda: self.floor.is_fencing,
            on_trouble=self.notices.trouble,
            on_group_closed=self._fenced,
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
        )

    def _filled(self, fill: Fill) -> None:
        self.tape.add(fill)
        self.notices.filled(fill)

    def _kill_switch(self) -> KillSwitch:

        def changed(why: str) -> None:
            self._switched(why)
            self.notices.switched(self.is_new_quoting_off)
            self.floor.wake_all()

        return KillSwitch(folder=self.settings.data_dir, runner=self.surroundings.runner, on_change=changed)

    def _switched(self, why: str) -> None:
        by_setting = "DISABLE_NEW_QUOTES is set" if self.settings["DISABLE_NEW_QUOTES"] else ""
        self.is_new_quoting_off = why or by_setting

    # --- the guardian ---

    @asynccontextmanager
    async def _guarded(self) -> AsyncGenerator[None, None]:
        """A second process that pulls our orders should this one die or freeze; dismissed once nothing rests."""
        spawn = self.surroundings.spawn_guardian
        if spawn is None or self.venue.is_paper:
            yield
            return
        access, webhook = self.venue.access, self.settings["DISCORD_WEBHOOK_URL"]
        write = self.limits.write
        config = GuardianConfig(
            rest_url=access.rest_url,
            key_id=access.key_id,
            pem=access.pem,
            prefix=self.ids.session_prefix,
            log_path=self.settings.data_dir / "logs" / f"guardian-{self.ids.session}.log",
            budget=Budget(
                refill_per_s=write.refill_per_s,
                capacity=write.capacity,
                cancel_cost=self.limits.cost(*endpoints.CANCEL_BATCH),
            ),
            time_limit_s=max(60.0, self.settings["QUOTE_TTL_SEC"] + 10.0),
            webhook_url=webhook or None,
            keep_fds=(self.venue.child.hold_fd,) if self.venue.child is not None else (),
        )
        async with open_guardian(
            config,
            clock=self.clock,
            spawn=spawn,
            on_lost=self._guardian_lost,
            on_back=self._guardian_back,
            on_frozen=self._frozen,
        ) as guardian:
            self.fence.acknowledge, self.fence.forget = guardian.acknowledge, guardian.forget
            self.guardian = guardian
            try:
                yield
            finally:
                if self.is_proven_clean:
                    await guardian.goodbye()

    def _guardian_lost(self, why: str) -> None:
        self.is_unguarded = f"no guardian: {why}"
        self.alerts.error("guardian", f"the guardian is gone ({why}): no new quotes until it is back")
        self.floor.wake_all()

    def _guardian_back(self) -> None:
        self.is_unguarded = ""
        self.floor.wake_all()

    def _frozen(self, gap_s: float) -> None:
        """This process stood still for longer than the guardian waits: our groups have been triggered."""
        self._feed_down(f"this process stood still for {gap_s:.1f} s")

    # --- off the book at once ---

    def _feed_down(self, why: str) -> None:
        self._fence_reason = f"feed lost: {why}"
        self.floor.is_fencing = True
        self._fence_wanted.set()

    async def _pull_when_blind(self) -> None:
        """Without a feed every quote is stale: the groups take them off in one call a shard."""
        while True:
            await self._fence_wanted.wait()
            self._fence_wanted = trio.Event()
            await self._trigger_all(self._fence_reason)
            self.floor.hold_all("recovery", "catching up after quotes were pulled")
            # What could not be fenced is cancelled one by one by the quoters, which look again now.
            self.floor.is_fencing = False
            self.floor.wake_all()
            self.alerts.error("feed", f"quotes pulled, {self._fence_reason}")
            await self._catch_up()
            self.floor.lift_all("recovery")

    async def _catch_up(self) -> None:
        """What happened while we were blind or stood still is known before the first new quote."""
        while True:
            try:
                await self.reconciler.pass_fills()
                await self.reconciler.compare_orders()
                return
            except AuthError:
                raise
            except ExchangeError as exc:
                self.notices.problem("recovery", exc)
                await trio.sleep(CATCH_UP_RETRY_S)

    async def _trigger_all(self, reason: str) -> None:
        """Off the book by the groups; the desk knows its orders gone where that is proven."""
        before = set(self.fence.groups.values())
        failed = await self.fence.trigger_all(reason)
        for group_id in before - set(failed):
            self.desk.fenced(group_id)

    def _fenced(self, group_id: GroupId) -> None:
        """The venue says that a group was triggered: by us, by its fill limit, or by a guardian."""
        if group_id not in self.fence.groups.values() or group_id in self.fence.triggered:
            return
        log.error("order group was triggered, not by us", group=group_id)
        self.alerts.risk(
            "group",
            f"an order group was triggered at the exchange (more than {self.fence.contracts_limit} contracts in 15 s, "
            f"or a guardian): its quotes are gone, no new ones for {GROUP_BRAKE_S:g} s",
        )
        self.fence.mark_triggered(group_id)
        self.floor.hold_all("group", "order group was triggered")
        self.desk.fenced(group_id)
        self._brake_wanted.set()

    async def _release_brake(self) -> None:
        """So many fills in so little time deserve a breath before the next epoch begins."""
        while True:
            await self._brake_wanted.wait()
            await trio.sleep(GROUP_BRAKE_S)
            self._brake_wanted = trio.Event()
            self.floor.lift_all("group")

    # --- the promise ---

    def _sweeper(self) -> Sweeper:
        return Sweeper(self.exchange, self.writes, self.clock, self.ids.bot_prefix)

    @asynccontextmanager
    async def _no_orders_left(self) -> AsyncGenerator[None, None]:
        """Whatever ends the block, nothing of ours rests afterwards, or the exit code says that it may."""
        try:
            yield
        finally:
            sweeper = self._sweeper()
            report = SweepReport(
                is_proven=False,
                cancelled=0,
                remaining=(),
                seconds=EXIT_DEADLINE_S,
                problem=f"the groups could not be triggered within {EXIT_DEADLINE_S:g} s",
            )
            # From here on books that cannot be written must not keep us from taking orders off.
            self.ledger.begin_shutdown()
            try:
                with trio.move_on_after(EXIT_DEADLINE_S, shield=True):
                    with trio.move_on_after(TRIGGER_FIRST_S):
                        await self._trigger_all("leaving")
                    sweeper.note_write()
                    sweeper.fenced |= self.fence.triggered
                    sweeper.pending = self._unfenced()
                    report = await sweeper.sweep(EXIT_DEADLINE_S - 1.0)
            finally:
                self._swept(report)
            if report.is_proven:
                with trio.move_on_after(FINAL_CHECK_S, shield=True):
                    await self._final_books()

    def _unfenced(self) -> dict[GroupId, int]:
        """Groups not proven triggered, into which creates without an answer may still land."""
        unsure = {order.group_id for order in self.desk.live.values() if order.order_id is None}
        return {
            group_id: index
            for index, group_id in self.fence.groups.items()
            if group_id in unsure and group_id not in self.fence.triggered
        }

    def _swept(self, report: SweepReport) -> None:
        child_died = self.venue.child is not None and not self.venue.child.is_alive
        self.is_proven_clean = report.is_proven or child_died
        self.summary.orders_cancelled += report.cancelled
        if report.is_proven:
            self.summary.orders_resting_at_exit = 0
            log.info("nothing rests", seconds=round(report.seconds, 2), cancelled=report.cancelled)
        elif child_died:
            self.summary.orders_resting_at_exit = 0
            self.summary.exit_code = ExitCode.FAILED
            self.summary.reason = "the embedded exchange died, and everything on it"
        else:
            self.summary.orders_resting_at_exit = len(report.remaining) or None
            self.summary.exit_code = ExitCode.ORDERS_MAY_REST
            ids = ", ".join(report.remaining[:20]) or "unknown"
            self.summary.reason = f"{report.problem}. Order ids: {ids}. Run `mm cancel-all`, or cancel them on the exchange's site"
            log.critical("orders may rest", problem=report.problem, orders=ids)

    async def _final_books(self) -> None:
        """The last fills and the last comparison, so that the summary tells what the exchange would."""
        reconciler = self.reconciler
        while True:
            try:
                await reconciler.pass_fills()
                await reconciler.read_settlements()
                if await reconciler.compare_positions():
                    return
            except ExchangeError as exc:
                log.warning("final comparison failed", error=str(exc))
                if isinstance(exc, AuthError):
                    return
            await trio.sleep(0.3)

    def finish(self) -> None:
        """Fill the summary with this run's figures."""
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

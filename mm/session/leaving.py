"""The promise at both ends of a session: nothing of ours rests before the first quote, and nothing after the last."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import structlog
import trio

from mm.domain.numbers import SECOND, Micros
from mm.domain.order import GroupId
from mm.exchange import endpoints
from mm.exchange.port import AuthError, Exchange, ExchangeError
from mm.ledger import GroupRow, Ledger
from mm.session.summary import ExitCode, Summary
from mm.tasks.alerts import Alerts
from mm.tasks.budget import WriteBudget
from mm.tasks.pull import Puller
from mm.tasks.reconcile import Reconciler
from mm.tasks.sweep import EXIT_DEADLINE_S, Sweeper, SweepReport

log = structlog.get_logger(__name__)

START_SWEEP_S: Final = 20.0
"""How long the sweep at the start may take; not proven by then, nothing is quoted."""
TRIGGER_FIRST_S: Final = 2.0
"""At the exit the groups have so long before single orders are looked for; a shard that does not answer is tried on."""
SWEEP_ENDS_EARLIER_S: Final = 0.2
"""Than the deadline of leaving, so that it still tells what it found."""
FINAL_CHECK_S: Final = 6.0
"""For the last fills and the last comparison: longer than the read lag."""
SHOWN: Final = 20
"""Order ids in an alert."""
GROUP_REST: Final = Micros(600 * SECOND)
"""Groups are deleted no earlier than this after they were triggered."""


@attrs.define(eq=False, kw_only=True)
class Promise:
    """Sweeps at the start and at the end. An object without tasks: it works whatever has crashed."""

    exchange: Exchange
    ledger: Ledger
    alerts: Alerts
    writes: WriteBudget
    puller: Puller
    reconciler: Reconciler
    clock: Callable[[], Micros]
    prefix: str
    """Of this bot's order ids, in any session."""
    summary: Summary
    is_exchange_dead: Callable[[], bool] = lambda: False
    """The exchange was a process of ours and has died, with everything on it."""
    report: SweepReport = SweepReport(
        is_proven=False,
        cancelled=0,
        remaining=(),
        seconds=EXIT_DEADLINE_S,
        problem=f"the sweep did not end within {EXIT_DEADLINE_S:g} s",
    )
    """Of the exit."""
    old_groups: dict[GroupId, int] = attrs.field(factory=dict)
    """Of earlier lives, with their exchange_index, not known to be triggered."""
    is_proven_clean: bool = False
    """The exit sweep has proven that nothing rests."""

    # --- the start ---

    async def clear_leftovers(self, session: str) -> None:
        """Whatever earlier lives left is taken off before the first quote.

        Raises `ExchangeError` when that is not proven. A cancellation in between leaves the rest to the exit sweep.
        """
        old = await self.ledger.groups(exclude_session=session)
        sweeper = self._sweeper()
        pending = [(g.group_id, g.exchange_index) for g in old if g.triggered_at is None]
        self.old_groups = dict(pending)
        failed = await sweeper.trigger_groups(pending)
        # Creates of the last life may still be on their way into these: a clean listing alone proves nothing.
        sweeper.pending = {group_id: index for group_id, index in pending if group_id in failed}
        report = await sweeper.sweep(START_SWEEP_S)
        self.old_groups = sweeper.pending
        for group_id, _ in pending:
            if group_id not in self.old_groups:
                self.ledger.record_group_triggered(group_id)
        if not report.is_proven:
            raise ExchangeError(f"start-up sweep: {report.problem}")
        if report.cancelled:
            log.warning("orders of an earlier run taken off", orders=report.cancelled)
            self.alerts.error("leftovers", f"{report.cancelled} orders of an earlier run were taken off")
        await self._delete_old_groups(old)

    async def _delete_old_groups(self, groups: list[GroupRow]) -> None:
        now = self.clock()
        for row in groups:
            if row.triggered_at is None or now - row.triggered_at < GROUP_REST:
                continue
            cost = self.writes.limits.cost(*endpoints.DELETE_GROUP)
            try:
                await self.writes.take_for_exit(cost, row.exchange_index)
                await self.exchange.delete_group(row.group_id, exchange_index=row.exchange_index)
            except ExchangeError as exc:
                log.info("old group not deleted", group=row.group_id, error=str(exc))
            else:
                self.ledger.record_group_deleted(row.group_id)

    # --- the end ---

    @asynccontextmanager
    async def no_orders_left(self) -> AsyncGenerator[None, None]:
        """Whatever ends the block, nothing of ours rests afterwards, or the exit code says that it may."""
        try:
            yield
        finally:
            # From here on books that cannot be written must not keep us from taking orders off.
            self.ledger.begin_shutdown()
            try:
                if not self.is_exchange_dead():
                    await self._leave()
            finally:
                self._conclude(self.report)
            if self.report.is_proven:
                with trio.move_on_after(FINAL_CHECK_S, shield=True):
                    await self._final_books()

    async def _leave(self) -> None:
        """Fence and sweep inside the deadline; what came of it is in `report`, also when something in it raises."""
        with trio.move_on_after(EXIT_DEADLINE_S, shield=True) as scope:
            try:
                with trio.move_on_after(TRIGGER_FIRST_S):
                    await self.puller.trigger_all("leaving")
            finally:  # whatever is wrong with the groups, single orders are looked for
                self.report = await self._sweep_out(scope.deadline - SWEEP_ENDS_EARLIER_S)

    async def _sweep_out(self, deadline: float) -> SweepReport:
        sweeper = self._sweeper()
        sweeper.note_write()
        sweeper.fenced |= self.puller.fence.triggered
        sweeper.pending = self._unfenced()
        return await sweeper.sweep(max(0.0, deadline - trio.current_time()))

    def _unfenced(self) -> dict[GroupId, int]:
        """Groups not proven triggered, into which creates without an answer may still land."""
        fence, desk = self.puller.fence, self.puller.desk
        unsure = {order.group_id for order in desk.live.values() if order.order_id is None}
        return self.old_groups | {
            group_id: index
            for index, group_id in fence.groups.items()
            if group_id in unsure and group_id not in fence.triggered
        }

    def _conclude(self, report: SweepReport) -> None:
        is_dead = self.is_exchange_dead()
        self.is_proven_clean = report.is_proven or is_dead
        if is_dead and not report.is_proven:
            self.summary.is_swept = True
            self.summary.orders_cancelled += report.cancelled
            self.summary.orders_resting_at_exit = 0
            self.summary.exit_code = ExitCode.FAILED
            self.summary.reason = "the embedded exchange died, and everything on it"
        else:
            live = [o.order_id or o.client_order_id for o in self.puller.desk.live.values() if o.is_live]
            enter_sweep(self.summary, report, believed=live)

    async def _final_books(self) -> None:
        """The last fills and the last comparison, so that the summary tells what the exchange would."""
        while True:
            try:
                await self.reconciler.pass_fills()
                await self.reconciler.read_settlements()
                if await self.reconciler.compare_positions():
                    await self.reconciler.check_cash()
                    await self.reconciler.log_head()
                    return
            except ExchangeError as exc:
                log.warning("final comparison failed", error=str(exc))
                if isinstance(exc, AuthError):
                    return
            await trio.sleep(0.3)

    def _sweeper(self) -> Sweeper:
        return Sweeper(self.exchange, self.writes, self.clock, self.prefix)


def enter_sweep(summary: Summary, report: SweepReport, *, believed: Sequence[str] = ()) -> None:
    """What a sweep at the end found, in the summary: a reason that stands there already is kept in front.

    Args:
        believed: What rests as far as we know, for when the exchange could not be asked.
    """
    summary.is_swept = True
    summary.orders_cancelled += report.cancelled
    if report.is_proven:
        summary.orders_resting_at_exit = 0
        log.info("nothing rests", seconds=round(report.seconds, 2), cancelled=report.cancelled)
        return
    summary.orders_resting_at_exit = len(report.remaining) or None
    summary.exit_code = ExitCode.ORDERS_MAY_REST
    ids = _listed(report.remaining)
    if not ids:
        ids = f"{_listed(believed)}, as far as the bot knows" if believed else "unknown"
    todo = "Run `mm cancel-all`, or cancel them on the exchange's site"
    before = f"{summary.reason}. " if summary.reason else ""
    summary.reason = f"{before}{report.problem}. Order ids: {ids}. {todo}"
    log.critical("orders may rest", problem=report.problem, orders=ids)


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more


async def sweep_without_books(
    exchange: Exchange, clock: Callable[[], Micros], prefix: str, summary: Summary
) -> None:
    """For a session whose ledger failed before its own sweep: what an earlier life left is taken off all the same.

    Groups are known only from the leftovers themselves. Shielded, under the exit's deadline; never raises an
    `ExchangeError`.
    """
    problem = "the exchange could not be asked what rests"
    report = SweepReport(is_proven=False, cancelled=0, remaining=(), seconds=EXIT_DEADLINE_S, problem=problem)
    with trio.move_on_after(EXIT_DEADLINE_S, shield=True) as scope:
        try:
            writes = WriteBudget(await exchange.limits(), clock, reserve=0.0)
        except ExchangeError as exc:
            report = attrs.evolve(report, problem=f"{problem}: {exc}")
        else:
            ends_at = scope.deadline - SWEEP_ENDS_EARLIER_S
            sweeper = Sweeper(exchange, writes, clock, prefix)
            report = await sweeper.sweep(max(0.0, ends_at - trio.current_time()))
    enter_sweep(summary, report)

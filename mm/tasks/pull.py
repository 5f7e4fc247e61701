"""Off the book at once: what happens when quotes cannot be trusted any more, all of them.

The groups take the quotes off in one call a shard; then fills and orders are caught up before the first new quote.
"""

from collections.abc import Callable
from typing import Final, NoReturn

import attrs
import structlog
import trio

from mm.domain.order import GroupId
from mm.exchange.port import AuthError, ClockRefused, ExchangeError
from mm.tasks.alerts import Alerts
from mm.tasks.desk import OrderDesk
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.freshness import Moment, reads_show
from mm.tasks.reconcile import Reconciler

log = structlog.get_logger(__name__)

GROUP_BRAKE_S: Final = 5.0
"""No new quotes for so long after a group was triggered, not by us."""
CATCH_UP_RETRY_S: Final = 0.5
CATCH_UP_LOOK_S: Final = 0.1
BLIND_S: Final = 10.0
"""Fills that could not be read for so long may have been missed on the socket too: nothing may rest on old books."""
LOOK_S: Final = 0.5


@attrs.define(eq=False, kw_only=True)
class Puller:
    """Pulls everything, and lets quoting begin again when it may. `run`, `run_brake`, `watch_reads` are its tasks."""

    fence: Fence
    desk: OrderDesk
    floor: Floor
    reconciler: Reconciler
    alerts: Alerts
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _reason: str = ""
    _is_at_it: bool = False
    """From the wish to pull until quoting may begin again."""
    _brake_wanted: trio.Event = attrs.field(factory=trio.Event)

    def feed_down(self, why: str) -> None:
        """The feed is gone."""
        self.pull(f"feed lost: {why}")

    def frozen(self, gap_s: float) -> None:
        """This process stood still for longer than the guardian waits: our groups have been triggered."""
        self.pull(f"this process stood still for {gap_s:.1f} s")

    def pull(self, reason: str) -> None:
        """Take everything off, soon: quoters stand still until it is done."""
        self._reason, self._is_at_it = reason, True
        self.floor.is_fencing = True
        self._wanted.set()

    def fenced(self, group_id: GroupId) -> None:
        """The venue says that a group was triggered: by us, by its fill limit, or by a guardian."""
        if group_id not in self.fence.groups.values() or group_id in self.fence.triggered:
            return
        log.error("order group was triggered, not by us", group=group_id)
        self.alerts.risk(
            "group",
            f"an order group was triggered at the exchange (more than {self.fence.contracts_limit} contracts in 15 s, "
            f"`mm cancel-all`, or a guardian): its quotes are gone, no new ones for {GROUP_BRAKE_S:g} s",
        )
        self.fence.mark_triggered(group_id)
        self.floor.hold_all("group", "order group was triggered")
        self.desk.fenced(group_id)
        self._brake_wanted.set()

    def problem(self, what: str, exc: ExchangeError) -> None:
        """A read failed. When it was for our clock no time that we know is true, no expiry either: off the book."""
        self.on_problem(what, exc)
        if isinstance(exc, ClockRefused) and not self._is_at_it:
            self.pull("the exchange refuses our clock: check the time of this machine")

    async def trigger_all(self, reason: str) -> None:
        """Off the book by the groups; the desk knows its orders gone where that is proven."""
        before = set(self.fence.groups.values())
        failed = await self.fence.trigger_all(reason)
        for group_id in before - set(failed):
            self.desk.fenced(group_id)

    async def run(self) -> None:
        """Pull when asked, for ever. Raises `AuthError`, `LedgerError`."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await self.trigger_all(self._reason)
            pulled = Moment.now(self.reconciler.clock)
            self.floor.hold_all("recovery", "catching up after quotes were pulled")
            # What could not be fenced is cancelled one by one by the quoters, which look again now.
            self.floor.is_fencing = False
            self.floor.wake_all()
            self.alerts.error("feed", f"quotes pulled, {self._reason}")
            await self._catch_up(pulled)
            self.floor.lift_all("recovery")
            self._is_at_it = self._wanted.is_set()

    async def watch_reads(self) -> NoReturn:
        """Pull when the exchange lets no fills be read: REST is down for us, our clock or our budget is off."""
        seen, since = self.reconciler.passes, trio.current_time()
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            if self.reconciler.passes != seen:
                seen, since = self.reconciler.passes, now
            elif now - since > BLIND_S and not self._is_at_it:
                self.pull(f"fills could not be read for {now - since:.0f} s")

    async def run_brake(self) -> None:
        """So many fills in so little time deserve a breath before the next epoch begins. Never returns."""
        while True:
            await self._brake_wanted.wait()
            await trio.sleep(GROUP_BRAKE_S)
            self._brake_wanted = trio.Event()
            self.floor.lift_all("group")

    async def _catch_up(self, pulled: Moment) -> None:
        """What happened while we were blind or stood still is known before the first new quote.

        What was filled just before the quotes were pulled is shown by reads that are younger than that.
        """
        while True:
            try:
                while not await self._shows(pulled):
                    await trio.sleep(CATCH_UP_LOOK_S)
                await self.reconciler.pass_fills()
                await self.reconciler.compare_orders()
                if await self._shows(pulled):  # else reads have fallen back meanwhile
                    return
            except AuthError:
                raise
            except ExchangeError as exc:
                self.on_problem("recovery", exc)
                await trio.sleep(CATCH_UP_RETRY_S)

    async def _shows(self, moment: Moment) -> bool:
        return await reads_show(self.reconciler.exchange, moment, self.reconciler.clock)

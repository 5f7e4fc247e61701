"""The exit sweep: the promise that no order of ours rests when we are gone.

It trusts the exchange, not our memory: groups are triggered first (they cancel everything and fence off creates still
in flight), then what rests under our prefix is listed, cancelled and listed again, until two clean reads that are
younger than the last write. Start-up runs the same sweep before the first quote. Orders without our prefix are
foreign and never touched.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final

import attrs
import structlog
import trio

from mm.domain.numbers import Micros
from mm.domain.order import GroupId, OrderId
from mm.exchange import endpoints
from mm.exchange.paging import read_all
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    NotRestingHere,
    OrderRef,
    OrderReport,
    OrderStatus,
    RateLimited,
)
from mm.tasks.budget import WriteBudget
from mm.tasks.fence import trigger_group
from mm.tasks.freshness import Moment, reads_show

log = structlog.get_logger(__name__)

EXIT_DEADLINE_S: Final = 10.0
READ_LAG_S: Final = 0.6
"""Reads lag writes by hundreds of milliseconds; clean reads count from this long after the last write, or from when
the venue says that its reads are current, whichever proof comes."""
BATCH: Final = 20
"""Cancels a request: a batch is refused whole when the bucket does not hold all of it."""
CLEAN_READS: Final = 2
FENCE_S: Final = 1.0
"""Single cancels do not wait longer than this for a trigger that does not answer."""
LOOK_S: Final = 0.05
LATER_LOOK_S: Final = 0.25
"""Between looks once the first `EAGER_LOOKS` have passed: a look is two reads of 10 tokens, and the smallest tier refills 200 a
second. Eager for ever it would spend the account's reads, the guardian's and its own proof's too, on being refused."""
EAGER_LOOKS: Final = 14
KEY_REFUSALS: Final = 3
"""In a row; then nothing more is asked for."""


@attrs.frozen(kw_only=True)
class SweepReport:
    """What a sweep found and did."""

    is_proven: bool
    """Two clean reads past the read lag."""
    cancelled: int
    remaining: tuple[OrderId, ...]
    """What rested at the last look; empty and not proven: we could not look."""
    seconds: float
    problem: str = ""


@attrs.define(eq=False)
class Sweeper:
    """Takes everything of ours off the exchange and proves it. An object without tasks."""

    exchange: Exchange
    budget: WriteBudget
    clock: Callable[[], Micros]
    prefix: str
    """Orders whose client id starts with this are ours."""
    fences_leftovers: bool = True
    """Also trigger the groups that found orders are in, so that nothing more can land there."""
    fenced: set[GroupId] = attrs.field(factory=set)
    """Groups known to be triggered."""
    pending: dict[GroupId, int] = attrs.field(factory=dict)
    """Groups (with their exchange_index) into which creates may still be on their way: nothing is proven before they
    are triggered, so `sweep` goes on trying."""
    cancelled: int = 0
    _clean: int = 0
    """Clean reads in a row."""
    _remaining: tuple[OrderId, ...] = ()
    _problem: str = "no look at the exchange succeeded"
    _last_write: Moment = Moment(Micros(0), -math.inf)

    def note_write(self) -> None:
        """Something was written just now by others: reads count only from past its lag on."""
        self._last_write = Moment.now(self.clock)

    async def trigger_groups(self, groups: Iterable[tuple[GroupId, int]]) -> list[GroupId]:
        """Trigger groups (id, exchange_index), all at once; returns those not proven triggered."""
        failed: list[GroupId] = []
        async with trio.open_nursery() as nursery:
            for group_id, exchange_index in groups:
                nursery.start_soon(self._trigger, group_id, exchange_index, failed)
        self.note_write()
        return failed

    async def sweep(self, deadline_s: float) -> SweepReport:
        """List, cancel, list again, until proven or out of time. Never raises an `ExchangeError`."""
        started = trio.current_time()
        self._clean = 0
        with trio.move_on_after(deadline_s):
            async with trio.open_nursery() as nursery:
                if self.pending:
                    nursery.start_soon(self._fence_pending)
                await self._until_clean()
                nursery.cancel_scope.cancel(reason="the sweep is over")
        proven = self._clean >= CLEAN_READS
        return SweepReport(
            is_proven=proven,
            cancelled=self.cancelled,
            remaining=() if proven else self._remaining,
            seconds=trio.current_time() - started,
            problem="" if proven else f"not proven within {deadline_s:g} s: {self._problem}",
        )

    async def _until_clean(self) -> None:
        """The reads and cancels of a sweep; returns when it is proven, or the key is refused for good."""
        refused = looks = 0
        while self._clean < CLEAN_READS and refused < KEY_REFUSALS:
            looks += 1
            pause = LOOK_S if looks <= EAGER_LOOKS else LATER_LOOK_S
            last_write = self._last_write
            is_fresh = await self._is_past_lag()
            try:
                orders = await self.list_own()
            except ExchangeError as exc:
                self._problem = str(exc)
                log.warning("sweep cannot list orders", error=str(exc))
                refused += isinstance(exc, AuthError)
                await trio.sleep(exc.retry_after if isinstance(exc, RateLimited) else 0.25)
                continue
            self._remaining = tuple(order.order_id for order in orders)
            if orders:
                self._clean = 0
                self._problem = f"{len(orders)} orders rest"
                await self._fence(orders)
                await self._cancel(orders)
                if looks > CLEAN_READS:  # a listing that lags shows them again
                    await trio.sleep(pause)
            elif self.pending:
                self._problem = (
                    f"orders may be on their way into {len(self.pending)} groups not triggered yet"
                )
                await trio.sleep(pause)
            elif is_fresh and self._last_write == last_write:
                self._clean += 1
                if self._clean < CLEAN_READS:
                    await trio.sleep(0.1)
            else:
                await trio.sleep(pause)

    async def list_own(self) -> list[OrderReport]:
        """What rests under our prefix right now, all pages. Raises `ExchangeError`."""
        found = await read_all(
            lambda cursor: self.exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor),
            what="resting orders",
        )
        return [order for order in found if (order.client_order_id or "").startswith(self.prefix)]

    async def _fence_pending(self) -> None:
        """Beside the reads, because a shard that does not answer must not hold up the others."""
        while self.pending:
            failed = await self.trigger_groups(list(self.pending.items()))
            self.pending = {group_id: self.pending[group_id] for group_id in failed}
            if failed:
                await trio.sleep(0.25)

    async def _fence(self, orders: list[OrderReport]) -> None:
        """Trigger the groups of what was found: what rests may have sisters that are still on their way."""
        if not self.fences_leftovers:
            return
        found = {o.group_id: o.exchange_index for o in orders if o.group_id is not None}
        known = self.fenced | self.pending.keys()
        fresh = [(group_id, index) for group_id, index in found.items() if group_id not in known]
        if fresh:
            with trio.move_on_after(FENCE_S):
                await self.trigger_groups(fresh)

    async def _cancel(self, orders: list[OrderReport]) -> None:
        """Cancel in batches; one failing cancel does not stop its siblings, the next listing tells what is left."""
        cost = self.budget.limits.cost(*endpoints.CANCEL_BATCH)
        size = max(1, min(BATCH, int(self.budget.bucket(0).capacity) // cost))
        for start in range(0, len(orders), size):
            part = orders[start : start + size]
            refs = [
                OrderRef(order_id=o.order_id, ticker=o.ticker, exchange_index=o.exchange_index) for o in part
            ]
            await self.budget.take_for_exit(cost * len(refs), 0)
            try:
                results = await self.exchange.cancel_batch(refs)
            except RateLimited as exc:
                self.budget.refused(0)
                await trio.sleep(exc.retry_after)
            except ExchangeError as exc:
                self._problem = str(exc)
                log.warning("sweep cancel failed", orders=len(refs), error=str(exc))
                self.note_write()  # it may have been done
                await trio.sleep(0.1)
            else:
                if not all(isinstance(error, NotRestingHere) for error in results):
                    self.note_write()  # else a stale listing was cancelled again: the proof need not wait for that
                for ref, error in zip(refs, results, strict=False):
                    if error is None:
                        self.cancelled += 1
                    elif not isinstance(error, NotRestingHere):
                        self._problem = str(error)
                        log.warning("order not cancelled", order_id=ref.order_id, error=str(error))

    async def _is_past_lag(self) -> bool:
        """Whether a read made from now on shows the effect of our last write."""
        if self._last_write.age_s < READ_LAG_S:
            return False
        try:
            return await reads_show(self.exchange, self._last_write, self.clock)
        except ExchangeError:
            return False

    async def _trigger(self, group_id: GroupId, exchange_index: int, failed: list[GroupId]) -> None:
        if await trigger_group(self.exchange, self.budget, group_id, exchange_index):
            self.fenced.add(group_id)
        else:
            failed.append(group_id)

"""Order groups as a fence: one group per exchange shard and epoch.

Triggering a group cancels its orders and refuses creates that arrive later, so it is the quickest and the surest way
off the book. A triggered group is never reset (a reset would let creates still in flight land): going on means a new
epoch with new groups, recorded and acknowledged before its first order.

Groups carry no name of ours, so one whose answer was lost can be told from others' only by having come since we began.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs
import structlog
import trio

from mm.domain.order import GroupId
from mm.exchange import endpoints
from mm.exchange.port import Exchange, ExchangeError, NotRestingHere, OutcomeUnknown, RateLimited
from mm.tasks.budget import WriteBudget

log = structlog.get_logger(__name__)


CREATE_S: Final = 2.0
"""How long the answer to a create is waited for, also by somebody who is being cancelled."""


class GroupRecorder(Protocol):
    """Where groups are written down before their first order."""

    def record_group(self, group_id: GroupId, *, exchange_index: int, epoch: int) -> None:
        """A group was created."""

    def record_group_triggered(self, group_id: GroupId) -> None:
        """A group was triggered."""

    async def flush(self) -> None:
        """Everything recorded so far is on disk."""


async def _nobody_to_tell(group_id: GroupId, exchange_index: int) -> None:
    return


def _nothing_to_forget(group_id: GroupId) -> None:
    return


@attrs.define(eq=False)
class Fence:
    """The present epoch's groups. An object without tasks, usable in every cleanup."""

    exchange: Exchange
    recorder: GroupRecorder
    budget: WriteBudget
    contracts_limit: int
    """Contracts that may fill in 15 s before the venue pulls everything: the global limit, so that normal fills never do."""
    acknowledge: Callable[[GroupId, int], Awaitable[None]] = _nobody_to_tell
    """Tells the guardian and returns when it knows."""
    forget: Callable[[GroupId], None] = _nothing_to_forget
    """Tells the guardian that a group is triggered, so that at our death it loses no time on it."""
    epoch: int = 1
    groups: dict[int, GroupId] = attrs.field(factory=dict)
    """exchange_index -> the present epoch's group."""
    triggered: set[GroupId] = attrs.field(factory=set)
    _made: dict[int, GroupId] = attrs.field(factory=dict)
    """Created and recorded, but not acknowledged yet: no order goes into it."""
    _own: set[GroupId] = attrs.field(factory=set)
    _others: frozenset[GroupId] | None = None
    """What the account had before our first create: of earlier lives, or foreign."""
    _lost: Counter[int] = attrs.field(factory=Counter)
    """exchange_index -> creates without an answer."""
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    def is_current(self, group_id: GroupId | None) -> bool:
        """Whether orders may still be placed into this group."""
        return group_id is not None and group_id not in self.triggered

    async def group_for(self, exchange_index: int) -> GroupId:
        """The group that an order on this shard goes into; made, recorded and acknowledged when there is none.

        Raises `ExchangeError` when it cannot be made; then nothing may be quoted. A cancellation in between waits for
        the answer (`CREATE_S`), so that the group is known to `trigger_all` and to the next start.
        """
        async with self._lock:
            while (found := self.groups.get(exchange_index)) is None or found in self.triggered:
                await self._find_lost(exchange_index)
                group_id = self._made.get(exchange_index) or await self._create(exchange_index)
                await self.recorder.flush()
                await self.acknowledge(group_id, exchange_index)
                if self._made.pop(exchange_index, None) is not None:  # else it was triggered meanwhile
                    self.groups[exchange_index] = group_id
                    log.info(
                        "order group opened",
                        group=group_id,
                        exchange_index=exchange_index,
                        epoch=self.epoch,
                    )
            return found

    async def _create(self, exchange_index: int) -> GroupId:
        if self._others is None:
            self._others = frozenset(group.group_id for group in await self.exchange.groups())
        cost = self.budget.limits.cost(*endpoints.CREATE_GROUP)
        await self.budget.take_for_exit(cost, exchange_index)
        await trio.lowlevel.checkpoint_if_cancelled()
        group_id: GroupId | None = None
        self._lost[exchange_index] += 1
        with trio.move_on_after(CREATE_S, shield=True):
            try:
                group_id = await self.exchange.create_group(
                    contracts_limit=self.contracts_limit, exchange_index=exchange_index
                )
            except OutcomeUnknown:
                raise
            except ExchangeError:
                self._lost[exchange_index] -= 1  # a definite answer: there is none
                raise
        if group_id is None:
            raise OutcomeUnknown(f"order group on shard {exchange_index}: no answer in {CREATE_S:g} s")
        self._lost[exchange_index] -= 1
        self._keep(group_id, exchange_index)
        self._made[exchange_index] = group_id
        return group_id

    def _keep(self, group_id: GroupId, exchange_index: int) -> None:
        self._own.add(group_id)
        self.recorder.record_group(group_id, exchange_index=exchange_index, epoch=self.epoch)

    async def _find_lost(self, exchange_index: int) -> None:
        """Look for groups whose create got no answer, and trigger them. Raises `ExchangeError`.

        They are empty, as nobody knew their ids. Where more groups have come than we lost, some are foreign, and none is
        touched.
        """
        lost = self._lost[exchange_index]
        if not lost or self._others is None:
            return
        found = [
            group.group_id
            for group in await self.exchange.groups()
            if group.exchange_index == exchange_index and group.group_id not in self._others | self._own
        ]
        if len(found) > lost:
            log.warning("order groups without an owner: left alone", groups=found, lost=lost)
        else:
            for group_id in found:
                log.warning("order group found whose create was not answered", group=group_id)
                self._keep(group_id, exchange_index)
                if await trigger_group(self.exchange, self.budget, group_id, exchange_index):
                    self.mark_triggered(group_id)
        self._lost[exchange_index] = 0

    def mark_triggered(self, group_id: GroupId) -> None:
        """The venue says that this group was triggered (by us, by its limit, by a guardian)."""
        if group_id in self.triggered:
            return
        self.triggered.add(group_id)
        self.forget(group_id)
        self.recorder.record_group_triggered(group_id)

    async def trigger_all(self, reason: str, *, attempts: int = 3) -> list[GroupId]:
        """Trigger every group of the epoch and begin the next one. Returns the groups *not* proven triggered.

        One failing shard does not stop the others.
        """
        known = [*self.groups.items(), *self._made.items()]
        pending = {group: index for index, group in known if group not in self.triggered}
        failed: list[GroupId] = []
        async with trio.open_nursery() as nursery:
            for group_id, exchange_index in pending.items():
                nursery.start_soon(self._trigger, group_id, exchange_index, attempts, failed)
        if pending:
            log.warning("quotes pulled by group", reason=reason, epoch=self.epoch, failed=len(failed))
        for mapping in (self.groups, self._made):
            for index in [i for i, group in mapping.items() if group in self.triggered]:
                del mapping[index]
        self.epoch += 1
        return failed

    async def _trigger(
        self, group_id: GroupId, exchange_index: int, attempts: int, failed: list[GroupId]
    ) -> None:
        if await trigger_group(self.exchange, self.budget, group_id, exchange_index, attempts=attempts):
            self.mark_triggered(group_id)
        else:
            failed.append(group_id)


async def trigger_group(
    exchange: Exchange, budget: WriteBudget, group_id: GroupId, exchange_index: int, *, attempts: int = 3
) -> bool:
    """Trigger one group, from the reserve if need be; True when it is proven triggered (or gone, with its orders)."""
    for attempt in range(attempts):
        try:
            await budget.take_for_exit(budget.limits.cost(*endpoints.TRIGGER_GROUP), exchange_index)
            await exchange.trigger_group(group_id, exchange_index=exchange_index)
        except NotRestingHere:
            return True
        except RateLimited as exc:
            budget.refused(exchange_index)
            await trio.sleep(exc.retry_after)
        except ExchangeError as exc:
            log.warning("group trigger failed", group=group_id, attempt=attempt + 1, error=str(exc))
            await trio.sleep(0.1 * (attempt + 1))
        else:
            return True
    return False

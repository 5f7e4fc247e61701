"""Resting orders at the exchange against ours: orphans go, foreign orders stay, stale listings prove nothing."""

from pathlib import Path

import trio
from trio.testing import MockClock

from fake_exchange import refuse
from mm.domain.numbers import Count, Price
from mm.domain.order import ClientOrderId
from mm.exchange.port import ExchangeUnavailable, NewOrder
from mm.tasks.order_check import ORPHAN_AFTER_S
from task_rig import BID, GAME, TaskRig, open_books


def resting(name: str, price: int = 4_000) -> NewOrder:
    """A quote that nobody here remembers."""
    return NewOrder(
        client_order_id=ClientOrderId(name),
        ticker=GAME,
        side=BID,
        price=Price(price),
        count=Count(1_000),
        exchange_index=0,
    )


async def compared(folder: Path, rig: TaskRig, *waits: float) -> None:
    """Compare at once and after each wait, with the write scheduler running."""
    async with open_books(folder) as ledger, trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        reconciler = rig.reconciler(ledger)
        await reconciler.compare_orders()
        for wait in waits:
            await trio.sleep(wait)
            await reconciler.compare_orders()
        nursery.cancel_scope.cancel(reason="compared")


async def test_an_orphan_with_our_prefix_is_cancelled_once_it_is_no_read_lag(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A leftover of another session of this bot goes; not before the listing can be believed."""
    rig = TaskRig()
    prefix = rig.ids.bot_prefix
    rig.exchange.put(resting(f"{prefix}elsewhere-1"))

    await compared(tmp_path, rig)
    assert len(rig.exchange.resting()) == 1

    await compared(tmp_path, rig, ORPHAN_AFTER_S + 1)
    assert rig.exchange.resting() == []


async def test_foreign_orders_stay(autojump_clock: MockClock, tmp_path: Path) -> None:
    """What does not begin with our prefix is somebody else's, however long it rests."""
    rig = TaskRig()
    rig.exchange.put(resting("by-hand-1"))
    rig.exchange.put(resting(f"{rig.ids.bot_name}x-1-1"))

    await compared(tmp_path, rig, ORPHAN_AFTER_S + 1, 60.0)

    assert len(rig.exchange.resting()) == 2
    assert rig.exchange.called("cancel") == []


async def test_an_orphan_that_cannot_be_cancelled_does_not_keep_the_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The first cancel fails: the second orphan goes in the same pass, the first in the next."""
    rig = TaskRig()
    for number in (1, 2):
        rig.exchange.put(resting(f"{rig.ids.bot_prefix}elsewhere-{number}", 4_000 + 100 * number))
    rig.exchange.script("cancel", refuse(ExchangeUnavailable("no connection")))

    await compared(tmp_path, rig, ORPHAN_AFTER_S + 1)
    assert len(rig.exchange.resting()) == 1

    await compared(tmp_path, rig, ORPHAN_AFTER_S + 1)
    assert rig.exchange.resting() == []

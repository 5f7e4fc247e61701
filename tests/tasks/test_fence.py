"""Order groups: made and written down before their first order, triggered together, never used again."""

import pytest
import trio
from trio.testing import MockClock

from fake_exchange import FakeExchange, lost_after, lost_before, refuse, slow, virtual_clock
from mm.domain.order import GroupId
from mm.exchange.port import ExchangeError, ExchangeUnavailable, NotRestingHere, OutcomeUnknown, RateLimited
from mm.tasks.budget import WriteBudget
from mm.tasks.fence import CREATE_S, Fence
from task_rig import Records


def fence_on(exchange: FakeExchange, records: Records | None = None, **options: object) -> Fence:
    writes = WriteBudget(exchange.rate_limits(), virtual_clock, 40.0)
    return Fence(exchange, records or Records(), writes, 800, **options)  # type: ignore[arg-type]


async def test_a_group_is_recorded_flushed_and_acknowledged_before_it_is_used(
    autojump_clock: MockClock,
) -> None:
    """The guardian knows it and the disk has it before any order can carry it."""
    exchange, records = FakeExchange(), Records()
    told: list[tuple[GroupId, int]] = []

    async def acknowledge(group_id: GroupId, index: int) -> None:
        assert (records.groups, records.flushes) == ([group_id], 1)
        assert fence.groups == {}
        told.append((group_id, index))

    fence = fence_on(exchange, records, acknowledge=acknowledge)

    group = await fence.group_for(3)

    assert told == [(group, 3)]
    assert fence.groups == {3: group}
    assert exchange.called("create_group")[0].details == {"contracts_limit": 800}


async def test_many_markets_share_one_group_a_shard(autojump_clock: MockClock) -> None:
    """Sixteen quoters ask at once: one group is made."""
    exchange = FakeExchange()
    exchange.always("create_group", slow(0.2))
    fence = fence_on(exchange)
    found: list[GroupId] = []

    async def ask(index: int) -> None:
        found.append(await fence.group_for(index))

    async with trio.open_nursery() as nursery:
        for i in range(16):
            nursery.start_soon(ask, i % 2)

    assert len(set(found)) == len(exchange.group_index) == 2


async def test_trigger_all_takes_all_shards_at_once_and_begins_a_new_epoch(autojump_clock: MockClock) -> None:
    """One call a shard, side by side; the next group is a new one, never a reset one."""
    exchange, records = FakeExchange(), Records()
    fence = fence_on(exchange, records)
    old = [await fence.group_for(i) for i in range(3)]
    exchange.always("trigger_group", slow(1.0))

    started = trio.current_time()
    failed = await fence.trigger_all("test")

    assert failed == []
    assert trio.current_time() - started == pytest.approx(1.0, abs=0.1)
    assert exchange.triggered == set(old) == set(records.triggered)
    assert fence.epoch == 2
    assert not any(fence.is_current(group) for group in old)
    assert await fence.group_for(0) not in old


async def test_one_failing_shard_does_not_stop_the_others(autojump_clock: MockClock) -> None:
    """What could not be proven triggered is named, the others are triggered."""
    exchange = FakeExchange()
    fence = fence_on(exchange)
    first, second = await fence.group_for(0), await fence.group_for(1)
    exchange.group_index.pop(first)
    exchange.group_index[first] = 9  # its shard answers 404: gone, with its orders
    assert await fence.trigger_all("test") == []

    fence = fence_on(exchange)
    third, fourth = await fence.group_for(0), await fence.group_for(1)
    original = exchange.trigger_group

    async def broken(group_id: GroupId, *, exchange_index: int) -> None:
        if group_id == third:
            raise ExchangeUnavailable("connection refused")
        await original(group_id, exchange_index=exchange_index)

    exchange.trigger_group = broken  # type: ignore[method-assign]
    failed = await fence.trigger_all("test")

    assert failed == [third]
    assert fourth in exchange.triggered
    assert second in exchange.triggered
    assert third not in fence.triggered


@pytest.mark.parametrize(
    "error", [RateLimited("too many requests"), ExchangeUnavailable("reset")], ids=["429", "reset"]
)
async def test_a_trigger_is_tried_again(autojump_clock: MockClock, error: Exception) -> None:
    """Twice refused, then done."""
    exchange = FakeExchange()
    fence = fence_on(exchange)
    group = await fence.group_for(0)
    exchange.script("trigger_group", refuse(error), refuse(error))  # type: ignore[arg-type]

    assert await fence.trigger_all("test") == []
    assert exchange.triggered == {group}


async def test_a_group_that_is_not_there_is_as_good_as_triggered(autojump_clock: MockClock) -> None:
    """404: deleted, and its orders with it."""
    exchange = FakeExchange()
    fence = fence_on(exchange)
    await fence.group_for(0)
    exchange.script("trigger_group", refuse(NotRestingHere("not found", status=404)))

    assert await fence.trigger_all("test") == []
    assert len(exchange.called("trigger_group")) == 1


async def test_triggering_is_paid_from_the_reserve(autojump_clock: MockClock) -> None:
    """Quoting has spent everything it may: the way out costs no wait."""
    exchange = FakeExchange()
    fence = fence_on(exchange)
    await fence.group_for(0)
    bucket = fence.budget.bucket(0)
    bucket.refill(virtual_clock())
    bucket.tokens, bucket.refill_per_s = 40.0, 0.001

    started = trio.current_time()
    assert await fence.trigger_all("test") == []
    assert trio.current_time() == started


async def test_a_group_reported_as_triggered_is_not_used_again(autojump_clock: MockClock) -> None:
    """By its limit or by a guardian: recorded once, the next order goes into another."""
    exchange, records = FakeExchange(), Records()
    fence = fence_on(exchange, records)
    group = await fence.group_for(0)

    fence.mark_triggered(group)
    fence.mark_triggered(group)

    assert records.triggered == [group]
    assert await fence.group_for(0) != group
    await fence.trigger_all("leaving")
    assert group not in {call.value for call in exchange.called("trigger_group")}


async def test_nothing_is_quoted_when_no_group_can_be_made(autojump_clock: MockClock) -> None:
    """The error goes to whoever wanted to quote, and the next one may try again."""
    exchange = FakeExchange()
    exchange.script("create_group", refuse(ExchangeUnavailable("connection refused")))
    fence = fence_on(exchange)

    with pytest.raises(ExchangeUnavailable):
        await fence.group_for(0)
    assert fence.groups == {}
    assert await fence.group_for(0)


# --- groups made half way ---


async def test_a_cancelled_create_is_waited_for_and_the_group_is_known(autojump_clock: MockClock) -> None:
    """Leaving in the middle of a create: the group is written down, and triggered with the others."""
    exchange, records = FakeExchange(), Records()
    exchange.always("create_group", slow(0.1, 0.5))

    async def acknowledge(group_id: GroupId, index: int) -> None:
        await trio.lowlevel.checkpoint()

    fence = fence_on(exchange, records, acknowledge=acknowledge)
    with trio.move_on_after(0.3):
        await fence.group_for(0)
    (group,) = exchange.group_index
    assert (records.groups, fence.groups) == ([group], {})

    assert await fence.trigger_all("leaving") == []

    assert (exchange.triggered, records.triggered) == ({group}, [group])
    assert await fence.group_for(0) != group


async def test_an_exchange_that_does_not_answer_a_create_holds_up_no_exit(autojump_clock: MockClock) -> None:
    """Not even a cancelled one waits longer than two seconds."""
    exchange = FakeExchange()
    exchange.always("create_group", slow(3_600.0))
    fence = fence_on(exchange)
    started = trio.current_time()
    with trio.move_on_after(0.3):
        with pytest.raises(OutcomeUnknown):
            await fence.group_for(0)
    assert trio.current_time() - started == pytest.approx(CREATE_S)


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_group_whose_answer_was_lost_is_found_and_triggered(
    autojump_clock: MockClock, is_done: bool
) -> None:
    """Before the next one is made; a create that never arrived leaves nothing to find."""
    exchange, records = FakeExchange(), Records()
    exchange.group_index[GroupId("foreign-and-older")] = 0
    fence = fence_on(exchange, records)
    exchange.script("create_group", lost_after() if is_done else lost_before())
    with pytest.raises(ExchangeError):
        await fence.group_for(0)
    lost = set(exchange.group_index) - {GroupId("foreign-and-older")}

    group = await fence.group_for(0)

    assert len(lost) == is_done
    assert group not in lost
    assert exchange.triggered == set(records.triggered) == lost
    assert set(records.groups) == {group, *lost}


async def test_a_foreign_group_that_came_meanwhile_is_not_taken_for_a_lost_one(
    autojump_clock: MockClock,
) -> None:
    """Two have come and one was lost: which is whose cannot be told, so both are left alone. They are empty of ours."""
    exchange, records = FakeExchange(), Records()
    fence = fence_on(exchange, records)
    exchange.script("create_group", lost_after())
    with pytest.raises(ExchangeError):
        await fence.group_for(0)
    exchange.group_index[GroupId("foreign-and-newer")] = 0

    group = await fence.group_for(0)

    assert (exchange.triggered, records.groups) == (set(), [group])


async def test_a_group_that_no_guardian_took_is_used_at_the_next_try(autojump_clock: MockClock) -> None:
    """One group, however often the guardian is missing."""
    exchange, records = FakeExchange(), Records()
    tries: list[GroupId] = []

    async def acknowledge(group_id: GroupId, index: int) -> None:
        tries.append(group_id)
        if len(tries) < 3:
            raise ExchangeUnavailable("no guardian")

    fence = fence_on(exchange, records, acknowledge=acknowledge)
    for _ in range(2):
        with pytest.raises(ExchangeUnavailable):
            await fence.group_for(0)

    assert await fence.group_for(0) == tries[0] == tries[2]
    assert records.groups == [tries[0]]

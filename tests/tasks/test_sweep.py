"""The sweep on a scriptable exchange: ours and only ours, in spite of refusals, lag, paging and late creates."""

import pytest
import trio
from trio.testing import MockClock

from fake_exchange import FakeExchange, lost_before, refuse, slow, virtual_clock
from mm.domain.numbers import Count, Price
from mm.domain.order import ClientOrderId, GroupId, OrderId, Side
from mm.exchange.port import (
    AuthError,
    Bucket,
    ExchangeRejected,
    ExchangeUnavailable,
    NewOrder,
    NotRestingHere,
    OrderStatus,
    RateLimited,
)
from mm.tasks.budget import WriteBudget
from mm.tasks.sweep import Sweeper
from task_rig import GAME

SHARD = 3


def order(name: str, group: GroupId | None = None) -> NewOrder:
    return NewOrder(
        client_order_id=ClientOrderId(name),
        ticker=GAME,
        side=Side.BID,
        price=Price(100),
        count=Count(100),
        exchange_index=SHARD,
        group_id=group,
    )


def sweeper_on(exchange: FakeExchange) -> Sweeper:
    return Sweeper(exchange, WriteBudget(exchange.rate_limits(), virtual_clock, 0.0), virtual_clock, "mm-")


def names(exchange: FakeExchange) -> set[str]:
    return {str(report.client_order_id) for report in exchange.resting()}


async def a_group(exchange: FakeExchange) -> GroupId:
    return await exchange.create_group(contracts_limit=10, exchange_index=SHARD)


async def test_what_is_ours_goes_and_what_is_not_stays(autojump_clock: MockClock) -> None:
    """All pages are swept; ids that only look like ours are left alone; the proof is younger than the read lag."""
    exchange = FakeExchange(read_lag=0.4)
    foreign = {"by-hand-1", "mm", "mmm-a-1", "MM-a-1"}
    for name in foreign | {f"mm-old{n}-{n}" for n in range(11)}:
        exchange.put(order(name))
    await trio.sleep(1)

    report = await sweeper_on(exchange).sweep(10.0)

    assert report.is_proven
    assert report.cancelled == 11
    assert names(exchange) == foreign


async def test_the_groups_of_leftovers_are_fenced_before_their_orders_are_cancelled(
    autojump_clock: MockClock,
) -> None:
    """A sister of a leftover that is still on its way cannot land; groups of foreign orders stay open."""
    exchange = FakeExchange()
    ours, theirs = await a_group(exchange), await a_group(exchange)
    exchange.put(order("mm-old-1", ours))
    exchange.put(order("by-hand-1", theirs))

    report = await sweeper_on(exchange).sweep(10.0)

    assert report.is_proven
    assert exchange.triggered == {ours}
    with pytest.raises(ExchangeRejected, match="triggered"):
        await exchange.place(order("mm-old-2", ours))
    assert names(exchange) == {"by-hand-1"}


async def test_the_groups_of_foreign_orders_can_be_left_open(autojump_clock: MockClock) -> None:
    """Where foreign orders are cancelled by hand, their owner's groups are not closed."""
    exchange = FakeExchange()
    group = await a_group(exchange)
    exchange.put(order("by-hand-1", group))
    sweeper = sweeper_on(exchange)
    sweeper.prefix, sweeper.fences_leftovers = "", False

    assert (await sweeper.sweep(10.0)).is_proven
    assert exchange.triggered == set()
    assert names(exchange) == set()


async def test_a_404_is_checked_and_not_believed(autojump_clock: MockClock) -> None:
    """ "Not found" on a cancel proves nothing: the listing decides, and the cancel is sent again."""
    exchange = FakeExchange()
    exchange.put(order("mm-old-1"))
    not_here = NotRestingHere("not found", status=404)
    exchange.script("cancel_batch", refuse(not_here), refuse(not_here))

    assert (await sweeper_on(exchange).sweep(10.0)).is_proven
    assert names(exchange) == set()


async def test_one_cancel_that_fails_stops_no_other(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be cancelled is told with its id; all the rest is gone, and nothing is called proven."""
    exchange = FakeExchange()
    stuck = exchange.put(order("mm-old-0"))
    for n in range(1, 50):
        exchange.put(order(f"mm-old-{n}"))
    cancel = exchange._cancel

    def sticky(ref: object) -> Count:
        if getattr(ref, "order_id", None) == stuck:
            raise ExchangeRejected("cannot be cancelled now", status=409)
        return cancel(ref)  # type: ignore[arg-type]

    monkeypatch.setattr(exchange, "_cancel", sticky)

    report = await sweeper_on(exchange).sweep(10.0)

    assert not report.is_proven
    assert report.remaining == (stuck,)
    assert names(exchange) == {"mm-old-0"}


async def test_refusals_outages_and_lost_answers_are_tried_again(autojump_clock: MockClock) -> None:
    """429, 5xx and silence on lists and cancels: tried again until proven."""
    exchange = FakeExchange()
    for n in range(30):
        exchange.put(order(f"mm-old-{n}"))
    busy, down = RateLimited("slow down"), ExchangeUnavailable("down", status=503)
    exchange.script("orders_page", refuse(down), refuse(busy), refuse(down))
    exchange.script("cancel_batch", refuse(busy), lost_before(), refuse(down))
    exchange.script("user_data_age", refuse(down))

    assert (await sweeper_on(exchange).sweep(10.0)).is_proven
    assert names(exchange) == set()


async def test_an_empty_budget_is_waited_for(autojump_clock: MockClock) -> None:
    """With no token left the cancels come as the bucket fills, inside the deadline."""
    exchange = FakeExchange(write_bucket=Bucket(refill_per_s=100.0, capacity=200.0))
    sweeper = sweeper_on(exchange)
    for n in range(40):
        exchange.put(order(f"mm-old-{n}"))
    sweeper.budget.bucket(0).tokens = 0.0

    report = await sweeper.sweep(10.0)

    assert report.is_proven
    assert 3.0 < report.seconds < 10.0
    assert names(exchange) == set()


async def test_what_cannot_be_looked_at_is_not_called_clean(autojump_clock: MockClock) -> None:
    """No listing succeeds: not proven, with the reason, at the deadline."""
    exchange = FakeExchange()
    exchange.always("orders_page", refuse(ExchangeUnavailable("no route", status=503)))

    report = await sweeper_on(exchange).sweep(5.0)

    assert not report.is_proven
    assert report.remaining == ()
    assert "no route" in report.problem
    assert report.seconds == pytest.approx(5.0)


async def test_a_refused_key_is_not_hammered(autojump_clock: MockClock) -> None:
    """A key that is refused again and again ends the sweep early: not proven, after a handful of requests."""
    exchange = FakeExchange()
    exchange.always("orders_page", refuse(AuthError("unknown key", status=401)))

    report = await sweeper_on(exchange).sweep(10.0)

    assert not report.is_proven
    assert report.seconds < 2.0
    assert len(exchange.calls) < 10


async def test_a_clean_read_that_is_older_than_the_last_write_does_not_count(
    autojump_clock: MockClock,
) -> None:
    """An order that came just before the sweep shows in reads only later: it is found and taken off."""
    exchange = FakeExchange(read_lag=0.5)
    sweeper = sweeper_on(exchange)
    exchange.put(order("mm-new-1"))
    sweeper.note_write()

    assert (await sweeper.sweep(10.0)).is_proven
    assert names(exchange) == set()


async def test_without_a_word_on_freshness_time_is_proof_enough(autojump_clock: MockClock) -> None:
    """A venue whose clock is behind ours by hours: reads count from 5 s after the last write."""
    exchange = FakeExchange(age=lambda: virtual_clock() - 10_800_000_000)  # type: ignore[arg-type, return-value]
    sweeper = sweeper_on(exchange)
    sweeper.note_write()

    report = await sweeper.sweep(10.0)

    assert report.is_proven
    assert 5.0 <= report.seconds < 6.0


async def test_a_group_with_creates_on_their_way_must_be_triggered_first(autojump_clock: MockClock) -> None:
    """The group's trigger is refused for a while, and reads are clean: nothing is proven until the fence stands."""
    exchange = FakeExchange()
    group = await a_group(exchange)
    sweeper = sweeper_on(exchange)
    sweeper.pending = {group: SHARD}
    down = refuse(ExchangeUnavailable("down", status=503))
    exchange.script("trigger_group", *[down] * 7)

    report = await sweeper.sweep(10.0)

    assert report.is_proven
    assert exchange.triggered == {group}
    assert len(exchange.called("trigger_group")) == 8


async def test_a_fence_that_never_stands_is_told(autojump_clock: MockClock) -> None:
    """Without the trigger a create may still land: exit code 2 is the truth, and orders that rest go all the same."""
    exchange = FakeExchange()
    group = await a_group(exchange)
    exchange.put(order("mm-a-1", group))
    sweeper = sweeper_on(exchange)
    sweeper.pending = {group: SHARD}
    exchange.always("trigger_group", slow(delay=60.0))

    report = await sweeper.sweep(8.0)

    assert not report.is_proven
    assert "not triggered" in report.problem
    assert names(exchange) == set()


@pytest.mark.parametrize("is_listed", [False, True])
async def test_a_sweep_that_has_to_wait_does_not_eat_the_reads(
    autojump_clock: MockClock, is_listed: bool
) -> None:
    """Whether a fence does not stand or a stale listing shows what is gone: looks stay within the smallest tier's reads.

    Found by the simulation, seed 170: 390 tokens a second of 200, until reads were refused.
    """
    exchange = FakeExchange(read_lag=60.0 if is_listed else 0.0)
    group = await a_group(exchange)
    sweeper = sweeper_on(exchange)
    sweeper.pending = {group: SHARD}
    exchange.always("trigger_group", slow(delay=60.0))
    if is_listed:
        exchange.put(order("mm-a-1"))
        await trio.sleep(61.0)

    report = await sweeper.sweep(20.0)

    assert not report.is_proven
    looks = len(exchange.called("orders_page"))
    assert looks > 20
    assert looks * 2 * 10 <= 400 + 20.0 * 200 * 0.5


async def test_an_order_listed_twice_over_pages_is_no_trouble(autojump_clock: MockClock) -> None:
    """Orders that end while pages are read shift the pages; whatever is missed is found by the next listing."""
    exchange = FakeExchange()
    ids = [exchange.put(order(f"mm-old-{n}")) for n in range(7)]

    async def shrink() -> None:
        await trio.sleep(0.001)
        exchange.end(OrderId(ids[-1]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shrink)
        report = await sweeper_on(exchange).sweep(10.0)

    assert report.is_proven
    assert all(r.status is not OrderStatus.RESTING for r in map(exchange.now_of, ids))

"""Who may write next: order of service, the reserve, tickets withdrawn, and never more than the venue pays for."""

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fake_exchange import FakeExchange, virtual_clock
from mm.exchange.port import Bucket, RateLimits
from mm.tasks.budget import FAIR_EVERY, STARVING_S, ReadBudget, Ticket, Urgency, WriteBudget

U = Urgency


def budget(refill: float = 10.0, capacity: float = 100.0, *, reserve: float = 0.0) -> WriteBudget:
    limits = FakeExchange(write_bucket=Bucket(refill_per_s=refill, capacity=capacity)).rate_limits()
    return WriteBudget(limits, virtual_clock, reserve)


def empty(writes: WriteBudget, index: int = 0) -> WriteBudget:
    writes.bucket(index).tokens = 0.0
    return writes


@attrs.define
class Crowd:
    """Writers that ask and remember in which order they were served."""

    writes: WriteBudget
    nursery: trio.Nursery
    served: list[str] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)

    async def ask(self, name: str, ticket: Ticket) -> trio.CancelScope:
        """One more writer, standing in line when this returns."""
        scope = trio.CancelScope()

        async def writer() -> None:
            with scope:
                await self.writes.acquire(ticket)
                self.served.append(name)
                self.times.append(trio.current_time())

        self.nursery.start_soon(writer)
        await trio.testing.wait_all_tasks_blocked()
        return scope


async def test_the_most_urgent_is_served_first(autojump_clock: MockClock) -> None:
    """Exits, cancels, re-quotes, new quotes, renewals, whatever the order in which they asked."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        for urgency in (U.RENEW, U.NEW_QUOTE, U.EXIT, U.REQUOTE, U.CANCEL):
            await crowd.ask(urgency.name, Ticket(urgency, 10))
        nursery.start_soon(writes.run)
        await trio.sleep(6)
        nursery.cancel_scope.cancel()

    assert crowd.served == ["EXIT", "CANCEL", "REQUOTE", "NEW_QUOTE", "RENEW"]
    assert crowd.times == pytest.approx([1, 2, 3, 4, 5], abs=0.05)


async def test_among_equals_value_at_risk_per_token_decides_then_who_asked_first(
    autojump_clock: MockClock,
) -> None:
    """A cheap cancel that protects 50 goes before a dear amend that protects 60."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        await crowd.ask("first of two equals", Ticket(U.REQUOTE, 10, value=0))
        await crowd.ask("second of two equals", Ticket(U.REQUOTE, 10, value=0))
        await crowd.ask("60 for 10 tokens", Ticket(U.REQUOTE, 10, value=60))
        await crowd.ask("50 for 2 tokens", Ticket(U.REQUOTE, 2, value=50))
        nursery.start_soon(writes.run)
        await trio.sleep(6)
        nursery.cancel_scope.cancel()

    assert crowd.served == [
        "50 for 2 tokens",
        "60 for 10 tokens",
        "first of two equals",
        "second of two equals",
    ]


async def test_a_late_exit_overtakes_and_a_late_quote_does_not(autojump_clock: MockClock) -> None:
    """Tokens enough for a small new quote do not let it pass an exit that waits for more."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        await crowd.ask("exit", Ticket(U.EXIT, 50))
        await trio.sleep(2)
        await crowd.ask("quote", Ticket(U.NEW_QUOTE, 10))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()

    assert crowd.served == ["exit", "quote"]


async def test_shards_have_buckets_of_their_own(autojump_clock: MockClock) -> None:
    """An empty shard 0 holds up nobody on shard 3."""
    writes = empty(budget(), 0)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        await crowd.ask("shard 0", Ticket(U.EXIT, 10, exchange_index=0))
        await crowd.ask("shard 3", Ticket(U.RENEW, 10, exchange_index=3))
        assert crowd.served == ["shard 3"]
        nursery.cancel_scope.cancel()


async def test_the_reserve_is_never_granted_to_a_ticket(autojump_clock: MockClock) -> None:
    """40 of 100 tokens are for leaving: not even an exit of a market gets them; leaving gets them at once."""
    writes = budget(refill=0.001, capacity=100.0, reserve=40.0)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        for i in range(10):
            await crowd.ask(f"{i}", Ticket(U.EXIT, 10))
        await trio.sleep(60)
        assert len(crowd.served) == 6
        started = trio.current_time()
        await writes.take_for_exit(40, 0)
        assert trio.current_time() == started
        nursery.cancel_scope.cancel()


async def test_leaving_goes_ahead_of_everybody(autojump_clock: MockClock) -> None:
    """It needs more than the reserve, and a crowd takes every token above that: the crowd waits."""
    writes = empty(budget(refill=20.0, capacity=100.0, reserve=10.0))
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        for i in range(50):
            await crowd.ask(f"{i}", Ticket(U.EXIT, 10))
        started = trio.current_time()
        with trio.fail_after(10):
            await writes.take_for_exit(80, 0)
        took = trio.current_time() - started
        await trio.sleep(2)
        nursery.cancel_scope.cancel()

    assert took == pytest.approx(4.0, abs=0.3)
    assert crowd.served


async def test_a_reserve_larger_than_the_bucket_stops_nobody_for_ever(autojump_clock: MockClock) -> None:
    """A tiny tier: what the bucket can hold beside one request is all that can be kept back."""
    writes = budget(refill=10.0, capacity=20.0, reserve=40.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writes.run)
        with trio.fail_after(5):
            await writes.acquire(Ticket(U.RENEW, 10))
        nursery.cancel_scope.cancel()


async def test_a_withdrawn_ticket_costs_nothing_and_lets_the_next_one_pass(autojump_clock: MockClock) -> None:
    """The quote that waited is not wanted any more: its tokens go to whoever comes next."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        scope = await crowd.ask("dear", Ticket(U.REQUOTE, 90))
        await crowd.ask("cheap", Ticket(U.NEW_QUOTE, 10))
        await trio.sleep(2)
        assert crowd.served == []
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

        assert (crowd.served, writes.waiting()) == (["cheap"], 0)
        assert writes.level()[0] == pytest.approx(10.0, abs=0.2)
        nursery.cancel_scope.cancel()


async def test_tokens_granted_to_somebody_cancelled_at_that_moment_come_back(
    autojump_clock: MockClock,
) -> None:
    """The grant and the cancellation meet in one tick: nothing is lost."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        ticket = Ticket(U.REQUOTE, 10)
        scope = await crowd.ask("quote", ticket)
        await trio.sleep(5)
        scope.cancel()  # the waiter has not run yet, its ticket still waits
        writes._serve()
        assert ticket.granted.is_set()
        await trio.testing.wait_all_tasks_blocked()

        assert crowd.served == []
        assert writes.level()[0] == pytest.approx(50.0, abs=0.1)


async def test_a_ticket_made_more_urgent_while_it_waits_is_served_so(autojump_clock: MockClock) -> None:
    """A quote that must go stands where exits stand, at the price of a cancel."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        await crowd.ask("re-quote", Ticket(U.REQUOTE, 50))
        ticket = Ticket(U.NEW_QUOTE, 10)
        await crowd.ask("must go", ticket)
        await trio.sleep(0.5)
        ticket.urgency, ticket.cost = U.EXIT, 2
        writes.changed(ticket)
        await trio.sleep(0.01)

        assert crowd.served == ["must go"]
        nursery.cancel_scope.cancel()


async def test_a_refusal_empties_the_bucket_and_slows_it(autojump_clock: MockClock) -> None:
    """429: somebody else spends from the same key; half the pace for a while."""
    writes = budget(refill=10.0, capacity=100.0)
    writes.refused(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writes.run)
        await writes.acquire(Ticket(U.CANCEL, 10))
        assert trio.current_time() > 1.5
        nursery.cancel_scope.cancel()
    assert writes.refused_total == 1


@settings(max_examples=40, deadline=None)
@given(
    refill=st.sampled_from([5.0, 20.0, 100.0]),
    capacity=st.sampled_from([20.0, 60.0, 200.0]),
    reserve=st.sampled_from([0.0, 10.0, 40.0]),
    plan=st.lists(
        st.tuples(
            st.sampled_from(list(Urgency)),
            st.sampled_from([2, 10, 20]),
            st.integers(0, 100),
            st.sampled_from([0, 1]),
            st.floats(0, 1),
            st.one_of(st.none(), st.floats(0, 2)),
        ),
        max_size=25,
    ),
)
def test_random_crowds_never_overspend_and_never_starve(
    refill: float,
    capacity: float,
    reserve: float,
    plan: list[tuple[Urgency, int, int, int, float, float | None]],
) -> None:
    """Tickets come and go at random: no window gets more than a full bucket and its refill; everybody is served.

    Of two that wait on one shard at the same moment the less urgent one is never served before the other, unless it
    has been passed over for too long.
    """
    log: list[tuple[float, Ticket]] = []
    arrived: dict[int, float] = {}

    async def writer(writes: WriteBudget, ticket: Ticket, at: float, gives_up: float | None) -> None:
        await trio.sleep(at)
        arrived[id(ticket)] = trio.current_time()
        with trio.move_on_after(1e9 if gives_up is None else gives_up):
            await writes.acquire(ticket)
            log.append((trio.current_time(), ticket))
            return
        arrived.pop(id(ticket))

    async def main() -> None:
        writes = budget(refill, capacity, reserve=reserve)
        tickets = [(Ticket(u, c, value=v, exchange_index=i), at, end) for u, c, v, i, at, end in plan]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writes.run)
            async with trio.open_nursery() as crowd:
                for ticket, at, end in tickets:
                    crowd.start_soon(writer, writes, ticket, at, end)
            assert writes.waiting() == 0
            nursery.cancel_scope.cancel()
        for index in (0, 1):
            served = [(t, ticket) for t, ticket in log if ticket.exchange_index == index]
            for i in range(len(served)):
                for j in range(i, len(served)):
                    spent = sum(ticket.cost for _, ticket in served[i : j + 1])
                    assert spent <= capacity + refill * (served[j][0] - served[i][0]) + 0.1
            for i, (at, first) in enumerate(served):
                for _, later in served[i + 1 :]:
                    waited_too = arrived.get(id(later), 1e9) < at - 1e-6
                    was_passed_over = at - arrived[id(first)] >= STARVING_S - 1e-6
                    assert not (waited_too and later.rank < first.rank) or was_passed_over

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_waiting_adds_to_the_value_so_that_no_market_is_passed_for_ever(
    autojump_clock: MockClock,
) -> None:
    """Dear re-quotes come faster than the tokens; a cheap one goes before all that asked 4.5 seconds after it."""
    writes = empty(budget(refill=10.0, capacity=20.0))
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        await crowd.ask("cheap", Ticket(U.REQUOTE, 10, value=10_000))
        for i in range(40):
            await crowd.ask(f"dear {i}", Ticket(U.REQUOTE, 10, value=100_000))
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()

    at = crowd.served.index("cheap")
    assert crowd.served[:at] == [f"dear {i}" for i in range(at)]
    assert at in (9, 10)


async def test_one_grant_in_five_goes_to_a_class_that_another_one_starves(autojump_clock: MockClock) -> None:
    """Re-quotes alone want more than there is; new quotes of other markets get their share after ten seconds."""
    writes = empty(budget(refill=10.0, capacity=20.0))
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        for i in range(10):
            await crowd.ask(f"new {i}", Ticket(U.NEW_QUOTE, 10))
        for i in range(80):
            await crowd.ask(f"re-quote {i}", Ticket(U.REQUOTE, 10, value=100_000))
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()

    new = [t for name, t in zip(crowd.served, crowd.times, strict=True) if name.startswith("new")]
    assert new[0] >= STARVING_S
    late = [name for name, t in zip(crowd.served, crowd.times, strict=True) if t > STARVING_S + 1]
    share = sum(name.startswith("new") for name in late) / len(late)
    assert share == pytest.approx(1 / FAIR_EVERY, abs=0.05)


async def test_exits_and_cancels_are_never_held_up_by_fairness(autojump_clock: MockClock) -> None:
    """However long a new quote was passed over: what takes risk off goes first."""
    writes = empty(budget(refill=10.0, capacity=20.0))
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        nursery.start_soon(writes.run)
        await crowd.ask("new", Ticket(U.NEW_QUOTE, 10))
        for i in range(30):
            await crowd.ask(f"cancel {i}", Ticket(U.CANCEL, 10))
        await trio.sleep(25)
        assert "new" not in crowd.served
        nursery.cancel_scope.cancel()


async def test_a_ticket_keeps_its_place_when_its_value_changes(autojump_clock: MockClock) -> None:
    """The mark has moved on: what is worth more now goes first, and has not lost the time it waited."""
    writes = empty(budget())
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        first, second = Ticket(U.CANCEL, 2, value=100), Ticket(U.CANCEL, 2, value=50)
        await crowd.ask("first", first)
        await crowd.ask("second", second)
        second.value = 1_000
        writes.changed(second)
        assert second.asked_at == first.asked_at
        nursery.start_soon(writes.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert crowd.served == ["second", "first"]


async def test_withdrawn_tickets_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """A thousand quotes superseded before they were sent, behind one that waits: nothing grows, nothing is owed."""
    writes = empty(budget(refill=0.001))
    async with trio.open_nursery() as nursery:
        crowd = Crowd(writes, nursery)
        await crowd.ask("exit", Ticket(U.EXIT, 10))
        for i in range(1_000):
            scope = await crowd.ask(f"{i}", Ticket(U.RENEW, 10))
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        assert writes.waiting() == 1
        assert len(writes._lines[0].heap) < 100
        assert writes._lines[0].cost == 10
        nursery.cancel_scope.cancel()


async def test_a_shard_is_short_when_what_waits_needs_more_than_half_a_second(
    autojump_clock: MockClock,
) -> None:
    """Counted are the tokens above the reserve; another shard's line is another matter."""
    writes = budget(refill=100.0, capacity=100.0, reserve=40.0)
    assert not writes.is_short(0, 60)
    assert not writes.is_short(0, 105)
    assert writes.is_short(0, 115)
    empty(writes)
    assert writes.is_short(0, 10)
    assert not writes.is_short(1, 10)


# --- reads ---


async def test_readers_wait_their_turn_and_pollers_stretch(autojump_clock: MockClock) -> None:
    """A full bucket asks nobody to slow down, an empty one five times."""
    limits = RateLimits(
        tier="t",
        read=Bucket(refill_per_s=10.0, capacity=100.0),
        write=Bucket(refill_per_s=10.0, capacity=100.0),
    )
    reads = ReadBudget(limits, virtual_clock)
    assert reads.stretch() == 1.0
    for _ in range(10):
        await reads.take()
    assert trio.current_time() < 0.1
    assert reads.stretch() == pytest.approx(5.0, abs=0.1)
    await reads.take()

    assert trio.current_time() == pytest.approx(1.0, abs=0.1)
    assert reads.taken_total == 11

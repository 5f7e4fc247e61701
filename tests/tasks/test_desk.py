"""The desk: every answer and every report moves an order as the table says, and contracts are never lost sight of."""

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fake_exchange import Answer, FakeExchange, lost_after, lost_before, refuse, slow
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, Order, OrderId, OrderState, Side, TimeInForce
from mm.exchange.port import (
    AuthError,
    ExchangeError,
    ExchangeRejected,
    ExchangeUnavailable,
    NotRestingHere,
    OrderIdSpent,
    OrderReport,
    OrderStatus,
    RateLimited,
    TradingPaused,
)
from mm.tasks import desk as desk_module
from mm.tasks.desk import Verdict, as_new_order
from task_rig import BID, GAME, TaskRig


def quote(name: str = "mm-test-a", count: int = 1_000, **changes: object) -> Order:
    return Order(
        client_order_id=ClientOrderId(name),
        ticker=GAME,
        side=BID,
        price=Price(4_900),
        count=Count(count),
        **changes,  # type: ignore[arg-type]
    )


def exit_order(count: int = 1_000) -> Order:
    return quote("mm-test-x", count, time_in_force=TimeInForce.IOC, post_only=False, reduce_only=True)


def fill_of(order: Order, count: int, n: int = 1) -> Fill:
    return Fill(
        order_id=order.order_id or OrderId("order-1"),
        trade_id=TradeId(f"t{n}"),
        ticker=GAME,
        side=order.side,
        price=order.price,
        count=Count(count),
        fee=Money(0),
        liquidity=Liquidity.MAKER,
        ts=Micros(n),
    )


def silent_rig() -> TaskRig:
    """A rig whose exchange says nothing by socket."""
    rig = TaskRig()
    rig.exchange.sink = None
    return rig


async def test_a_quote_as_it_goes_out(autojump_clock: MockClock) -> None:
    """Post-only, pulled on a pause, with its expiry; the same request whenever it is made again."""
    order = quote(group_id=GroupId("g"), expires_at=Micros(5_000_000))

    request = as_new_order(order)

    assert (request.post_only, request.cancel_on_pause, request.reduce_only) == (True, True, False)
    assert (request.group_id, request.expires_at) == (GroupId("g"), Micros(5_000_000))
    assert as_new_order(order) == request


async def test_an_exit_as_it_goes_out(autojump_clock: MockClock) -> None:
    """IOC, reduce-only, not held back by a pause flag, no expiry."""
    request = as_new_order(exit_order())

    assert (request.post_only, request.cancel_on_pause, request.reduce_only) == (False, False, True)
    assert (request.time_in_force, request.expires_at) == (TimeInForce.IOC, None)


async def test_a_placed_order_rests_and_is_recorded_at_every_step(autojump_clock: MockClock) -> None:
    """Intent first, then the answer; the desk finds it by either id."""
    rig = silent_rig()
    order = quote()

    outcome = await rig.desk.place(order)

    assert outcome.verdict is Verdict.DONE
    assert (order.state, order.order_id) == (OrderState.RESTING, OrderId("order-1"))
    assert rig.desk.find(order.order_id) is order
    assert rig.desk.find(None, order.client_order_id) is order
    assert [state for _, state in rig.records.orders] == ["sent", "resting"]


@pytest.mark.parametrize(
    ("error", "verdict", "state"),
    [
        (TradingPaused("x", status=409), Verdict.PAUSED, OrderState.DONE),
        (RateLimited("x"), Verdict.THROTTLED, OrderState.DONE),
        (ExchangeUnavailable("x"), Verdict.UNAVAILABLE, OrderState.DONE),
        (ExchangeRejected("x", status=400), Verdict.REFUSED, OrderState.DONE),
        (NotRestingHere("x", status=404), Verdict.REFUSED, OrderState.DONE),
        (OrderIdSpent("x", status=409), Verdict.UNKNOWN, OrderState.UNKNOWN),
    ],
)
async def test_what_an_answer_to_a_create_means(
    autojump_clock: MockClock, error: ExchangeError, verdict: Verdict, state: OrderState
) -> None:
    """A definite no ends the order; a spent id means that something landed."""
    rig = silent_rig()
    rig.exchange.script("place", refuse(error))
    order = quote()

    outcome = await rig.desk.place(order)

    assert (outcome.verdict, order.state) == (verdict, state)
    assert outcome.error is error
    assert (order in rig.desk.of_market(GAME)) == (state is OrderState.UNKNOWN)


@pytest.mark.parametrize(
    ("error", "verdict", "state"),
    [
        (TradingPaused("x", status=409), Verdict.PAUSED, OrderState.RESTING),
        (RateLimited("x"), Verdict.THROTTLED, OrderState.RESTING),
        (ExchangeUnavailable("x"), Verdict.UNAVAILABLE, OrderState.RESTING),
        (ExchangeRejected("x", status=400), Verdict.REFUSED, OrderState.RESTING),
        (NotRestingHere("x", status=404), Verdict.CHECK, OrderState.UNKNOWN),
    ],
)
@pytest.mark.parametrize("write", ["cancel", "amend", "decrease"])
async def test_what_an_answer_to_a_later_write_means(
    autojump_clock: MockClock, write: str, error: ExchangeError, verdict: Verdict, state: OrderState
) -> None:
    """A definite no leaves the order as it was, size included; a 404 proves nothing."""
    rig = silent_rig()
    order = quote()
    await rig.desk.place(order)
    rig.exchange.script("cancel" if write == "cancel" else "amend", refuse(error))

    if write == "cancel":
        outcome = await rig.desk.cancel(order)
    elif write == "amend":
        outcome = await rig.desk.amend(order, price=Price(4_800), count=Count(1_500), expires_at=None)
    else:
        outcome = await rig.desk.decrease(order, reduce_to=Count(500))

    assert (outcome.verdict, order.state) == (verdict, state)
    # A larger size counts as at risk until it is known that the amend was not done.
    larger = write == "amend" and state is OrderState.UNKNOWN
    assert (order.price, order.count) == (4_900, 1_500 if larger else 1_000)
    assert order in rig.desk.of_market(GAME)


@pytest.mark.parametrize("answer", [lost_before(), lost_after()])
async def test_a_lost_answer_leaves_the_order_unknown_at_its_larger_size(
    autojump_clock: MockClock, answer: Answer
) -> None:
    """An amend to more contracts may have been done: they count as at risk."""
    rig = silent_rig()
    order = quote()
    await rig.desk.place(order)
    rig.exchange.script("amend", answer)

    await rig.desk.amend(order, price=Price(4_800), count=Count(1_500), expires_at=None)

    assert (order.state, order.at_risk) == (OrderState.UNKNOWN, Count(1_500))


async def test_a_cancelled_call_leaves_the_order_unknown(autojump_clock: MockClock) -> None:
    """Cut off in the middle of a create: it may rest, and is not forgotten."""
    rig = silent_rig()
    rig.exchange.script("place", slow(5.0))
    order = quote()
    with trio.move_on_after(1):
        await rig.desk.place(order)

    assert order.state is OrderState.UNKNOWN
    assert list(rig.desk.of_market(GAME)) == [order]


async def test_a_refused_key_is_raised_and_the_order_is_known_not_to_rest(autojump_clock: MockClock) -> None:
    """401 on a create: nothing was placed, and the caller hears of it as an error."""
    rig = silent_rig()
    rig.exchange.script("place", refuse(AuthError("bad key", status=401)))
    order = quote()
    with pytest.raises(AuthError):
        await rig.desk.place(order)

    assert order.state is OrderState.DONE


async def test_reported_and_not_booked_keeps_the_order_in_sight(autojump_clock: MockClock) -> None:
    """The answer to an exit says filled; until the fill is booked its contracts are at risk and the order is known."""
    rig = silent_rig()
    rig.exchange.others[GAME, Side.ASK] = [(Price(4_900), Count(700))]
    order = exit_order()

    await rig.desk.place(order)

    assert (order.state, order.reported_filled, order.at_risk) == (OrderState.DONE, Count(700), Count(700))
    assert rig.desk.has_unbooked()
    rig.desk.on_fill(rig.exchange.fills[0])
    assert list(rig.desk.of_market(GAME)) == []
    assert not rig.desk.has_unbooked()


async def test_a_reported_fill_that_never_was_is_given_up_when_the_venue_says_so(
    autojump_clock: MockClock,
) -> None:
    """A report said 7 filled and the venue, asked, knows of none: the order is out of sight then and not before."""
    rig = silent_rig()
    rig.exchange.others[GAME, Side.ASK] = [(Price(4_900), Count(700))]
    order = exit_order()
    await rig.desk.place(order)

    assert rig.desk.with_announced_fills() == [order]
    assert order in rig.desk.of_market(GAME)
    rig.desk.no_more_fills(order)

    assert list(rig.desk.of_market(GAME)) == []
    assert rig.desk.with_announced_fills() == []


async def test_a_fill_faster_than_the_answer_finds_its_order(autojump_clock: MockClock) -> None:
    """The socket knows only the venue's id: the fill waits for it, and then counts once."""
    rig = silent_rig()
    rig.exchange.script("place", slow(delay_after=1.0))
    order = quote()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.desk.place, order)
        await trio.sleep(0.5)
        rig.desk.on_fill(fill_of(order, 300))
        assert order.filled == 0

    assert (order.state, order.filled, order.leaves) == (OrderState.RESTING, 300, 700)


async def test_filled_whole_before_the_answer_is_done(autojump_clock: MockClock) -> None:
    """Reports and fills came first: the late 201 changes nothing."""
    rig = TaskRig()
    rig.exchange.script("place", slow(delay_after=1.0))
    order = quote()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.desk.place, order)
        await trio.sleep(0.5)
        rig.exchange.fill(OrderId("order-1"), 1_000)

    assert (order.state, order.filled) == (OrderState.DONE, 1_000)
    assert list(rig.desk.of_market(GAME)) == []


async def test_a_stale_report_after_the_end_changes_nothing(autojump_clock: MockClock) -> None:
    """Cancelled, acknowledged; then a read from before says that it rests."""
    rig = silent_rig()
    order = quote()
    await rig.desk.place(order)
    assert order.order_id is not None
    before = rig.exchange.now_of(order.order_id)
    await rig.desk.cancel(order)

    rig.desk.on_report(before)

    assert order.state is OrderState.DONE
    assert list(rig.desk.of_market(GAME)) == []


async def test_reports_of_orders_that_are_not_ours_are_ignored(autojump_clock: MockClock) -> None:
    """A foreign order's report, and its fill, touch no order of ours."""
    rig = silent_rig()
    order = quote()
    await rig.desk.place(order)
    assert order.order_id is not None
    foreign = attrs.evolve(
        rig.exchange.now_of(order.order_id),
        order_id=OrderId("foreign"),
        client_order_id=ClientOrderId("web-1"),
        status=OrderStatus.CANCELLED,
    )
    rig.desk.on_report(foreign)
    rig.desk.on_fill(attrs.evolve(fill_of(order, 100), order_id=OrderId("foreign")))

    assert (order.state, order.filled) == (OrderState.RESTING, 0)


async def test_a_decrease_beside_a_fill_that_has_not_come_leaves_what_we_count(
    autojump_clock: MockClock,
) -> None:
    """Filled and not told yet when it is made smaller: what rests is never more than what we think rests."""
    rig = silent_rig()
    order = quote()
    await rig.desk.place(order)
    assert order.order_id is not None
    fill = rig.exchange.fill(order.order_id, 300)
    await rig.desk.decrease(order, reduce_to=Count(500))
    rig.desk.on_fill(fill)

    assert rig.exchange.now_of(order.order_id).remaining == order.leaves == 200
    rig.desk.on_fill(rig.exchange.fill(order.order_id, 200))
    assert order.state is OrderState.DONE
    assert rig.exchange.resting() == []


async def test_a_reported_fill_counts_when_an_order_is_made_smaller(autojump_clock: MockClock) -> None:
    """The report came, the fill not yet: with what rests it is what was asked for, as the limits count it."""
    rig = TaskRig()
    order = quote()
    await rig.desk.place(order)
    assert order.order_id is not None
    rig.exchange.fill(order.order_id, 300, tell=False)
    await rig.desk.decrease(order, reduce_to=Count(500))

    assert rig.exchange.now_of(order.order_id).remaining == 200
    assert order.at_risk == 500


async def test_a_decrease_never_makes_an_order_larger(autojump_clock: MockClock) -> None:
    """Nearly all of it is reported as filled and nothing of that is booked: what rests stays as it is, or less."""
    rig = TaskRig()
    order = quote()
    await rig.desk.place(order)
    assert order.order_id is not None
    rig.exchange.fill(order.order_id, 800, tell=False)
    await rig.desk.decrease(order, reduce_to=Count(700))

    assert rig.exchange.now_of(order.order_id).remaining <= 200
    assert order.count <= 1_000


async def test_a_triggered_group_takes_its_orders_and_no_others(autojump_clock: MockClock) -> None:
    """Resting, on the wire or unknown: what was sent into the group is gone."""
    rig = silent_rig()
    inside, outside = quote("mm-test-a", group_id=GroupId("g")), quote("mm-test-b")
    lost = quote("mm-test-c", group_id=GroupId("g"))
    await rig.desk.place(inside)
    await rig.desk.place(outside)
    rig.exchange.script("place", lost_before())
    await rig.desk.place(lost)

    rig.desk.fenced(GroupId("g"))

    assert (inside.state, lost.state, outside.state) == (OrderState.DONE, OrderState.DONE, OrderState.RESTING)
    assert rig.desk.statistics().cancelled == 2


async def test_memory_of_done_orders_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late reports are routed for a while; the ledger knows the rest."""
    monkeypatch.setattr(desk_module, "REMEMBERED", 20)
    rig = TaskRig(exchange=FakeExchange())
    rig.exchange.sink = None
    for i in range(60):
        order = quote(f"mm-test-{i}")
        await rig.desk.place(order)
        await rig.desk.cancel(order)
        rig.desk.on_fill(attrs.evolve(fill_of(order, 100, i), order_id=OrderId(f"foreign-{i}")))

    assert len(rig.desk._done) == 20
    assert len(rig.desk._early_fills) == 20
    assert rig.desk.live == {}
    assert rig.desk._by_order_id == {}


STEPS = [
    "place",
    "cancel",
    "amend",
    "decrease",
    "fill",
    "unheard fill",
    "fill whole",
    "end",
    "stale report",
    "fence",
]


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=12),
    answers=st.lists(
        st.sampled_from(["ok", "lost before", "lost after", "refused", "late"]), min_size=12, max_size=12
    ),
    hears=st.booleans(),
)
def test_whatever_happens_the_desk_never_thinks_less_rests_than_does(
    steps: list[str], answers: list[str], hears: bool
) -> None:
    """Random writes, losses, fills, ends and stale reports: no impossible move, and no resting order forgotten."""
    kinds = {
        "ok": Answer(),
        "lost before": lost_before(),
        "lost after": lost_after(),
        "refused": refuse(ExchangeRejected("no", status=400)),
        "late": slow(0.1, 0.1),
    }

    async def main() -> None:
        rig = TaskRig()
        if not hears:
            rig.exchange.sink = None
        order = quote(group_id=GroupId("g"))
        rig.exchange.group_index[GroupId("g")] = 0
        reports: list[OrderReport] = []
        answer = iter(answers)
        for step in steps:
            known = order.order_id
            if step == "place" and order.state is OrderState.INTENDED:
                rig.exchange.script("place", kinds[next(answer)])
                await rig.desk.place(order)
            elif order.state is OrderState.RESTING and step in ("cancel", "amend", "decrease"):
                rig.exchange.script("cancel" if step == "cancel" else "amend", kinds[next(answer)])
                if step == "cancel":
                    await rig.desk.cancel(order)
                elif step == "amend":
                    total = Count(order.filled + 600)
                    await rig.desk.amend(order, price=Price(4_800), count=total, expires_at=None)
                elif order.leaves > 100:
                    await rig.desk.decrease(order, reduce_to=Count(order.leaves - 100))
                else:
                    rig.exchange._scripts.clear()
            elif known is not None and known in rig.exchange.history:
                now = rig.exchange.now_of(known)
                reports.append(now)
                rests = now.status is OrderStatus.RESTING
                if rests and step == "fill" and now.remaining > 100:
                    rig.floor.apply_fill(rig.exchange.fill(known, 100))
                elif rests and step == "unheard fill" and now.remaining > 100:
                    rig.exchange.fill(known, 100, tell=False, report=False)
                elif rests and step == "fill whole":
                    rig.floor.apply_fill(rig.exchange.fill(known, now.remaining))
                elif rests and step == "end":
                    rig.exchange.end(known, report=hears)
                elif step == "stale report":
                    rig.desk.on_report(reports[0])
                elif step == "fence":
                    await rig.exchange.trigger_group(GroupId("g"), exchange_index=0)
                    rig.desk.fenced(GroupId("g"))
            for report in rig.exchange.resting():
                assert rig.desk.live.get(order.client_order_id) is order
                assert order.is_live
                assert order.at_risk >= report.remaining

    trio.run(main, clock=MockClock(autojump_threshold=0))

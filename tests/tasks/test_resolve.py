"""Orders of unknown outcome: sent again under the same id, or looked up by reads that are young enough."""

import pytest
import trio
from trio.testing import MockClock

from fake_exchange import Answer, lost_after, lost_before, refuse, virtual_clock
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, Order, OrderState
from mm.exchange.port import (
    AuthError,
    ExchangeRejected,
    ExchangeUnavailable,
    NewOrder,
    NotRestingHere,
    OrderIdSpent,
    Page,
    RateLimited,
    TradingPaused,
)
from mm.tasks.freshness import LONG_READ_LAG_S
from task_rig import BID, GAME, TaskRig

CROSSES = ExchangeRejected("invalid order: post only cross", status=400, code="invalid_order")


def silent_rig(lag: float = 0.0) -> TaskRig:
    """The socket says nothing: only the resolver can find out."""
    rig = TaskRig()
    rig.exchange.sink = None
    rig.exchange.read_lag = lag
    return rig


async def lost_create(rig: TaskRig, answer: Answer, group_id: GroupId | None = None) -> Order:
    """A create whose answer was lost."""
    order = Order(
        client_order_id=ClientOrderId("mm-test-a"),
        ticker=GAME,
        side=BID,
        price=Price(4_900),
        count=Count(1_000),
        group_id=group_id,
    )
    rig.exchange.script("place", answer)
    await rig.desk.place(order)
    assert order.state is OrderState.UNKNOWN
    return order


async def resting_order(rig: TaskRig) -> Order:
    order = Order(
        client_order_id=ClientOrderId("mm-test-a"),
        ticker=GAME,
        side=BID,
        price=Price(4_900),
        count=Count(1_000),
    )
    await rig.desk.place(order)
    return order


async def settle(rig: TaskRig, order: Order, within: float = 30.0) -> float:
    """Resolve; the seconds it took."""
    started = trio.current_time()
    with trio.fail_after(within):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.writes.run)
            await rig.resolver.resolve(order)
            nursery.cancel_scope.cancel()
    return trio.current_time() - started


@pytest.mark.parametrize("answer", [lost_before(), lost_after()], ids=["never arrived", "arrived"])
@pytest.mark.parametrize("lag", [0.0, 1.0])
async def test_a_lost_create_becomes_one_resting_order(
    autojump_clock: MockClock, answer: Answer, lag: float
) -> None:
    """Same id again: 201 or 409, it rests once, and we know its id; a lagging list delays, never doubles."""
    rig = silent_rig(lag)
    order = await lost_create(rig, answer)

    took = await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert [r.order_id for r in rig.exchange.resting()] == [order.order_id]
    assert rig.look_ups == 1
    assert took < lag + 2


async def test_a_refused_repeat_does_not_prove_that_the_first_was_not_placed(
    autojump_clock: MockClock,
) -> None:
    """The first landed and rests; the repeat is refused for crossing (an odd venue): the order is found in the list."""
    rig = silent_rig(lag=0.5)
    order = await lost_create(rig, lost_after())
    rig.exchange.always("place", refuse(CROSSES))

    await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert len(rig.exchange.called("place")) >= 2


@pytest.mark.parametrize(
    "error", [CROSSES, TradingPaused("trading is paused", status=409, code="trading_is_paused")]
)
async def test_a_refused_repeat_of_what_never_landed_ends_it_when_reads_are_current(
    autojump_clock: MockClock, error: ExchangeRejected
) -> None:
    """Not in a list that is younger than the send: it was never placed. Not before that is proven."""
    rig = silent_rig(lag=2.0)
    order = await lost_create(rig, lost_before())
    rig.exchange.always("place", refuse(error))

    took = await settle(rig, order)

    assert order.state is OrderState.DONE
    assert list(rig.desk.of_market(GAME)) == []
    assert took >= 2.0


async def test_a_venue_that_does_not_say_how_old_its_reads_are_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    """`user_data_timestamp` stands still: absence counts after five seconds."""
    rig = silent_rig()
    rig.exchange.age = lambda: Micros(0)
    order = await lost_create(rig, lost_before())
    rig.exchange.always("place", refuse(CROSSES))

    took = await settle(rig, order)

    assert order.state is OrderState.DONE
    assert took >= LONG_READ_LAG_S - 0.5


async def test_a_create_into_a_group_triggered_meanwhile_is_gone(autojump_clock: MockClock) -> None:
    """The repeat is refused by the group; the first send never landed: nothing rests and that is known."""
    rig = silent_rig()
    group = await rig.fence.group_for(0)
    order = await lost_create(rig, lost_before(), group)
    rig.exchange.triggered.add(group)

    await settle(rig, order)

    assert order.state is OrderState.DONE


async def test_an_order_filled_whole_is_found_with_its_fills_reported(autojump_clock: MockClock) -> None:
    """Its answer was lost, it traded: done, and its contracts are waited for."""
    rig = silent_rig()
    order = await lost_create(rig, lost_after())
    rig.exchange.fill(rig.exchange.resting()[0].order_id, 1_000)

    await settle(rig, order)

    assert order.state is OrderState.DONE
    assert rig.positions.net(GAME) == 1_000


async def test_the_list_is_read_to_its_end(autojump_clock: MockClock) -> None:
    """The order stands on the third page."""
    rig = silent_rig()
    order = await lost_create(rig, lost_after())
    for i in range(7):
        newer_order(rig, i)
    await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert len(rig.exchange.called("orders_page")) == 3


def newer_order(rig: TaskRig, i: int) -> str:
    """A newer order of the same market."""
    return rig.exchange.put(
        NewOrder(
            client_order_id=ClientOrderId(f"web-{i}"),
            ticker=GAME,
            side=BID,
            price=Price(100),
            count=Count(100),
            exchange_index=0,
        )
    )


async def test_a_cursor_that_runs_in_a_circle_ends_the_look(autojump_clock: MockClock) -> None:
    """The venue answers a garbage cursor with a first page: the look ends, and the order stays unknown."""
    rig = silent_rig()
    found = await rig.resolver.find(GAME, ClientOrderId("nobody"), Micros(0))
    assert found is None

    async def circle(**_: object) -> object:
        return Page(items=[], cursor="again")

    rig.exchange.orders_page = circle  # type: ignore[assignment,method-assign]
    with trio.fail_after(1):
        assert await rig.resolver.find(GAME, ClientOrderId("nobody"), Micros(0)) is None


# --- amends and cancels ---


async def test_a_lost_cancel_that_was_executed(autojump_clock: MockClock) -> None:
    """The order's own page says cancelled: gone."""
    rig = silent_rig(lag=1.0)
    order = await resting_order(rig)
    await trio.sleep(3)
    rig.exchange.script("cancel", lost_after())
    await rig.desk.cancel(order)

    took = await settle(rig, order)

    assert order.state is OrderState.DONE
    assert took >= 1.0


async def test_a_lost_cancel_that_never_arrived(autojump_clock: MockClock) -> None:
    """Resting, by a read that is younger than the cancel: it rests, and may be cancelled again."""
    rig = silent_rig(lag=1.0)
    order = await resting_order(rig)
    await trio.sleep(3)
    rig.exchange.script("cancel", lost_before())
    await rig.desk.cancel(order)

    took = await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert took >= 1.0
    assert order.unknown_since is None


async def test_a_lost_amend_brings_the_venues_terms(autojump_clock: MockClock) -> None:
    """Price, size and expiry are what the venue has."""
    rig = silent_rig()
    order = await resting_order(rig)
    rig.exchange.script("amend", lost_after())
    expiry = Micros(virtual_clock() + 60 * SECOND)
    await rig.desk.amend(order, price=Price(4_700), count=Count(800), expires_at=expiry)

    await settle(rig, order)

    assert (order.state, order.price, order.count, order.expires_at) == (
        OrderState.RESTING,
        Price(4_700),
        Count(800),
        expiry,
    )


async def test_404_on_the_order_itself_ends_it_only_when_reads_are_current(autojump_clock: MockClock) -> None:
    """An order just made may be unknown to a read; once reads are current, unknown is gone."""
    rig = silent_rig(lag=2.0)
    order = await resting_order(rig)
    assert order.order_id is not None
    rig.exchange.script("cancel", lost_after())
    await rig.desk.cancel(order)
    rig.exchange.always("order", refuse(NotRestingHere("not found", status=404)))

    took = await settle(rig, order)

    assert order.state is OrderState.DONE
    assert took >= 2.0


async def test_a_404_by_reads_that_fell_back_proves_nothing(autojump_clock: MockClock) -> None:
    """Reads were current when asked, and lag again when the order is read: unknown to them is not gone."""
    rig = silent_rig()
    order = await resting_order(rig)
    assert order.order_id is not None
    rig.exchange.script("cancel", refuse(NotRestingHere("not found", status=404)))
    await rig.desk.cancel(order)
    assert order.state is OrderState.UNKNOWN

    def age() -> Micros:
        told = Micros(virtual_clock() - round(rig.exchange.read_lag * SECOND))
        if trio.current_time() > 0.5:
            rig.exchange.read_lag = 3.0
        return told

    rig.exchange.age = age

    await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert len(rig.exchange.resting()) == 1


# --- trouble on the way ---


async def test_trouble_is_retried_with_growing_pauses(autojump_clock: MockClock) -> None:
    """Unreachable for half a minute: a dozen tries, not hundreds, and it ends well."""
    rig = silent_rig()
    order = await lost_create(rig, lost_before())
    rig.exchange.always("place", refuse(ExchangeUnavailable("connection refused")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        nursery.start_soon(rig.resolver.resolve, order)
        await trio.sleep(30)
        assert order.state is OrderState.UNKNOWN
        assert 5 <= len(rig.exchange.called("place")) <= 16
        rig.exchange.always("place", None)
        await trio.sleep(4)
        assert order.state is OrderState.RESTING
        nursery.cancel_scope.cancel()


async def test_a_throttled_repeat_waits(autojump_clock: MockClock) -> None:
    """429: the write bucket is emptier than we thought."""
    rig = silent_rig()
    order = await lost_create(rig, lost_before())
    rig.exchange.script("place", refuse(RateLimited("too many requests", retry_after=2.0)))

    took = await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert took > 2.0
    assert rig.writes.refused_total == 1


async def test_a_throttled_read_is_no_refused_write(autojump_clock: MockClock) -> None:
    """429 on a look: writes of other markets are not slowed for it."""
    rig = silent_rig()
    order = await lost_create(rig, lost_after())
    rig.exchange.script("orders_page", refuse(RateLimited("too many requests")))

    await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert rig.writes.refused_total == 0


async def test_a_spent_id_not_yet_listed_is_looked_for_again(autojump_clock: MockClock) -> None:
    """409 says that it landed; the list says nothing for a while: it is never taken for not placed."""
    rig = silent_rig(lag=8.0)
    order = await lost_create(rig, lost_after())

    took = await settle(rig, order)

    assert order.state is OrderState.RESTING
    assert took >= 8.0
    assert {c.value.client_order_id for c in rig.exchange.called("place")} == {"mm-test-a"}


async def test_a_refused_key_comes_out(autojump_clock: MockClock) -> None:
    """401: no retry here, the session ends."""
    rig = silent_rig()
    order = await lost_create(rig, lost_before())
    rig.exchange.always("place", refuse(AuthError("bad key", status=401)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        with pytest.raises(AuthError):
            await rig.resolver.resolve(order)
        nursery.cancel_scope.cancel()
    assert order.state is OrderState.UNKNOWN


async def test_a_report_in_the_meantime_settles_it_without_a_second_send(autojump_clock: MockClock) -> None:
    """The socket brings the order while the resolver waits."""
    rig = silent_rig()
    order = await lost_create(rig, lost_after())
    report = rig.exchange.resting()[0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        nursery.start_soon(rig.resolver.resolve, order)
        await trio.sleep(0.1)
        rig.desk.on_report(report)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert order.state is OrderState.RESTING
    assert len(rig.exchange.called("place")) == 1
    assert rig.look_ups == 1


async def test_another_markets_order_of_the_same_id_is_not_confused(autojump_clock: MockClock) -> None:
    """The look is for our client id in that market, not for any order that rests there."""
    rig = silent_rig()
    assert await rig.resolver.find(MarketTicker("OTHER"), ClientOrderId("mm-test-a"), Micros(0)) is None
    order = await lost_create(rig, lost_after())

    assert await rig.resolver.find(GAME, ClientOrderId("mm-test-b"), Micros(0)) is None
    found = await rig.resolver.find(GAME, order.client_order_id, Micros(0))
    assert found is not None


async def test_spent_at_first_send_is_not_sent_under_a_new_id(autojump_clock: MockClock) -> None:
    """409 to the first send that we know of: the order is the one that landed."""
    rig = silent_rig()
    order = await lost_create(rig, Answer(error=OrderIdSpent("id was used", status=409)))

    await settle(rig, order)

    assert order.state is OrderState.RESTING

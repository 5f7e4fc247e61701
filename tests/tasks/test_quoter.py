"""One market's task: one write a side, lost answers, pauses, exits, renewals, and never a hot loop."""

import itertools

import attrs
import pytest
import trio
from trio.testing import MockClock

from fake_exchange import Answer, lost_after, lost_before, refuse, slow, virtual_clock
from mm.domain.commands import FlattenReason
from mm.domain.grid import uniform_grid
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker, OrderState, Side
from mm.engine.expiry import ENDING, ENDING_FROM, QUIET, RUNNING
from mm.engine.parameters import StrategyParameters
from mm.exchange.port import (
    AuthError,
    ExchangeRejected,
    ExchangeUnavailable,
    MarketEvent,
    MarketEventKind,
    NewOrder,
    NotRestingHere,
    OrderIdSpent,
    OrderStatus,
    RateLimited,
    TradingPaused,
)
from mm.tasks.quoter import BACKOFF_S, PAUSE_PROBE_S
from task_rig import ASK, BID, GAME, TaskRig, tight_budget

PAUSED = TradingPaused("trading is paused", status=409, code="trading_is_paused")


def placed(rig: TaskRig) -> list[NewOrder]:
    """Every create that was sent."""
    return [call.value for call in rig.exchange.called("place")]


def quotes_sent(rig: TaskRig, side: Side) -> list[NewOrder]:
    return [order for order in placed(rig) if order.side is side and order.post_only]


def at_most_one_a_side(rig: TaskRig) -> bool:
    return all(len(rig.resting(side)) <= 1 for side in Side)


# --- quoting ---


async def test_both_sides_rest_around_the_mid_in_the_epochs_group(autojump_clock: MockClock) -> None:
    """Post-only, cancelled on a pause, with an expiry and in the group that was written down before."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(0.1)

        assert rig.prices() == ([4_900], [5_100])
        group = rig.fence.groups[0]
        assert rig.records.groups == [group]
        assert rig.records.flushes == 1
        for order in placed(rig):
            assert order.post_only
            assert order.cancel_on_pause
            assert order.group_id == group
            assert order.expires_at is not None
            assert order.expires_at - virtual_clock() == pytest.approx(60 * SECOND, abs=SECOND)


async def test_one_write_a_side_is_in_flight_however_often_the_market_moves(
    autojump_clock: MockClock,
) -> None:
    """Answers take a second, the book moves every 50 ms: no second write starts before the first has ended."""
    rig = TaskRig()
    for name in ("place", "amend", "cancel"):
        rig.exchange.always(name, slow(0.5, 0.5))
    async with rig.with_quoter():
        for i in range(100):
            await trio.sleep(0.05)
            rig.book(4_000 + 100 * (i % 7), 6_000 + 100 * (i % 7))
            assert at_most_one_a_side(rig)
        await trio.sleep(3)

        starts: dict[Side, list[float]] = {BID: [], ASK: []}
        for call in rig.exchange.calls:
            if call.name in ("place", "amend", "cancel"):
                value = call.value
                side = value.side if call.name == "place" else rig.exchange.now_of(value.order_id).side
                starts[side].append(call.at)
        for moments in starts.values():
            assert len(moments) > 3
            assert all(b - a >= 1.0 for a, b in itertools.pairwise(moments))
        assert at_most_one_a_side(rig)


async def test_a_partly_filled_quote_is_not_topped_up(autojump_clock: MockClock) -> None:
    """Its remainder keeps its place in the queue: no write follows."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        bid = rig.only(BID)
        rig.exchange.fill(bid.order_id, 400)
        await trio.sleep(2)

        assert rig.only(BID).order_id == bid.order_id
        assert rig.only(BID).remaining == 600
        assert rig.exchange.writes() == ["place", "place"]
        assert rig.positions.net(GAME) == 400


async def test_a_remainder_below_a_contract_comes_back_at_full_size(autojump_clock: MockClock) -> None:
    """The crumb goes first, then the new quote comes."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.fill(rig.only(BID).order_id, 950)
        await trio.sleep(2)

        assert rig.only(BID).remaining == 1_000
        assert rig.exchange.writes() == ["place", "place", "cancel", "place"]


async def test_a_filled_quote_is_replaced_only_after_its_fill_is_booked(autojump_clock: MockClock) -> None:
    """The order report is faster than the fill: until that is booked the contracts count, and the room shrinks."""
    parameters = StrategyParameters(max_inventory_per_market=Count(1_500))
    rig = TaskRig(parameters=parameters)
    async with rig.with_quoter():
        await trio.sleep(1)
        bid = rig.only(BID)
        fill = rig.exchange.fill(bid.order_id, 1_000, tell=False)
        await trio.sleep(1)

        assert [r.remaining for r in rig.resting(BID)] == [500]
        rig.handler.on_fill(fill)
        await trio.sleep(1)
        assert rig.positions.net(GAME) == 1_000
        assert [r.remaining for r in rig.resting(BID)] == [500]


async def test_unbooked_contracts_count_in_the_limit_over_all_markets(autojump_clock: MockClock) -> None:
    """Reported as filled and not booked yet: the global limit takes them for filled."""
    parameters = StrategyParameters(max_global_inventory=Count(1_500))
    rig = TaskRig(parameters=parameters)
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.fill(rig.only(BID).order_id, 1_000, tell=False)
        await trio.sleep(1)

        assert sum(r.remaining for r in rig.resting(BID)) <= 500


async def test_the_cooldown_ends_without_a_message(autojump_clock: MockClock) -> None:
    """A move within the cooldown is followed when it ends, though nothing else arrives."""
    rig = TaskRig(parameters=StrategyParameters(quote_cooldown=Micros(5 * SECOND)))
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.book(3_000, 5_000)
        await trio.sleep(0.1)
        assert rig.prices()[0] == [4_900]
        await trio.sleep(4.5)

        assert rig.prices() == ([3_900], [4_100])


# --- must go ---


async def test_a_quote_that_must_go_jumps_the_queue(autojump_clock: MockClock) -> None:
    """No tokens for anything: the waiting quote becomes an urgent cancel and is served before other markets' quotes."""
    rig = TaskRig(exchange=tight_budget(10.0, 30.0))
    other = "KXNHLGAME-26SEP21VGKMIN-VGK"
    async with rig.with_quoter():
        await trio.sleep(5)
        rig.drain()
        quoter = rig.add_quoter(other)
        async with trio.open_nursery() as nursery:
            await nursery.start(quoter.run)
            rig.book(4_000, 6_000, quoter.ticker)
            await trio.sleep(0.01)
            assert rig.writes.waiting() == 2
            rig.floor.hold_all("test", "must go")
            await trio.sleep(2.1)

            assert rig.prices() == ([], [])
            assert [c.name for c in rig.exchange.calls[-2:]] == ["cancel", "cancel"]
            nursery.cancel_scope.cancel()


async def test_a_quote_superseded_before_it_was_sent_is_never_sent(autojump_clock: MockClock) -> None:
    """It waits for tokens, then is not wanted any more: the ticket is withdrawn and nothing was spent."""
    rig = TaskRig(exchange=tight_budget(10.0, 100.0))
    async with rig.with_quoter() as quoter:
        await trio.sleep(0.01)
        assert len(placed(rig)) == 2
        rig.exchange.end(rig.only(BID).order_id, report=True)
        rig.drain()
        await trio.sleep(0.35)
        assert rig.writes.waiting() == 1
        quoter.maker.holds["test"] = "not now"
        quoter.wake()
        await trio.sleep(0.01)
        waiting = rig.writes.waiting()
        await trio.sleep(3)

        assert len(quotes_sent(rig, BID)) == 1
        assert waiting == 1  # the ask's urgent cancel, nothing of the bid's
        assert rig.prices() == ([], [])


async def test_tokens_for_what_was_not_sent_after_all_come_back(autojump_clock: MockClock) -> None:
    """Its group is triggered while a quote waits for tokens: they pay for the next group and the next try."""
    rig = TaskRig(exchange=tight_budget(10.0, 1_000.0))
    async with rig.with_quoter():
        await trio.sleep(0.01)
        rig.exchange.end(rig.only(BID).order_id, report=True)
        rig.drain()
        await trio.sleep(0.5)
        assert rig.writes.waiting() == 1
        rig.fence.mark_triggered(rig.fence.groups[0])
        await trio.sleep(2.0)

        assert rig.only(BID).group_id == rig.fence.groups[0]  # 20 tokens: a group and a create


async def test_a_stopped_switch_pulls_and_lifts(autojump_clock: MockClock) -> None:
    """The kill switch: what rests goes, and comes back with the switch."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        rig.switched_off = "by hand"
        quoter.wake()
        await trio.sleep(1)
        assert rig.prices() == ([], [])
        rig.switched_off = ""
        quoter.wake()
        await trio.sleep(1)

        assert rig.prices() == ([4_900], [5_100])


async def test_while_the_groups_are_triggered_single_cancels_keep_out(autojump_clock: MockClock) -> None:
    """The fence does it in one call; what it left is cancelled one by one afterwards."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        rig.floor.is_fencing = True
        rig.floor.hold_all("feed", "feed is down")
        await trio.sleep(1)
        assert rig.exchange.called("cancel") == []
        rig.floor.is_fencing = False
        quoter.wake()
        await trio.sleep(1)

        assert rig.prices() == ([], [])


# --- lost answers ---


@pytest.mark.parametrize("answer", [lost_before(), lost_after()], ids=["never arrived", "arrived"])
async def test_a_lost_create_is_sent_again_with_the_same_id(
    autojump_clock: MockClock, answer: Answer
) -> None:
    """Whether or not it arrived: one order, under the first id, and fills are looked up before anything else."""
    rig = TaskRig()
    rig.exchange.sink = None  # a report would tell sooner
    rig.exchange.script("place", answer)
    async with rig.with_quoter():
        await trio.sleep(3)

        lost = placed(rig)[0]
        same = [o for o in placed(rig) if o.client_order_id == lost.client_order_id]
        assert len(same) == 2
        assert same[0] == same[1]
        assert rig.prices() == ([4_900], [5_100])
        assert rig.look_ups >= 1
        assert rig.desk.statistics().live == 2
        assert rig.troubles == [("create", "timed out")]


async def test_nothing_new_on_a_side_of_unknown_outcome(autojump_clock: MockClock) -> None:
    """The answers stay lost for ten seconds while the book moves: only that one id is ever sent on the side."""
    rig = TaskRig()
    rig.exchange.always("place", lost_before())
    async with rig.with_quoter():
        for i in range(20):
            await trio.sleep(0.5)
            rig.book(4_000 + 200 * (i % 5), 6_000 + 200 * (i % 5))
        for side in Side:
            assert len({o.client_order_id for o in quotes_sent(rig, side)}) == 1
        assert rig.exchange.called("cancel") == []
        rig.exchange.always("place", None)
        await trio.sleep(5)

        assert [len(rig.resting(side)) for side in Side] == [1, 1]
        assert all(o.state is OrderState.RESTING for o in rig.desk.of_market(GAME))


async def test_a_lost_create_that_was_filled_meanwhile_is_booked_and_not_doubled(
    autojump_clock: MockClock,
) -> None:
    """It landed, it traded, its answer was lost and the socket was silent: one fill, then one new quote."""
    rig = TaskRig()
    sink, rig.exchange.sink = rig.exchange.sink, None
    rig.exchange.script("place", lost_after())
    async with rig.with_quoter():
        await trio.sleep(0.01)
        bid = rig.only(BID)
        rig.exchange.fill(bid.order_id, 1_000)
        rig.exchange.sink = sink
        await trio.sleep(3)

        assert rig.positions.net(GAME) == 1_000
        assert rig.positions.fills == 1
        assert len(rig.resting(BID)) == 1
        assert rig.only(BID).client_order_id != bid.client_order_id


async def test_a_report_that_beats_the_answer_of_a_second_send_is_no_bug(autojump_clock: MockClock) -> None:
    """The first send never arrived, the second does: the socket's report of it comes before the 201."""
    rig = TaskRig()
    rig.exchange.script("place", lost_before(), slow(), slow(delay_after=0.5))
    async with rig.with_quoter():
        await trio.sleep(3)

        assert rig.prices() == ([4_900], [5_100])
        assert at_most_one_a_side(rig)


async def test_a_spent_id_is_an_order_that_landed(autojump_clock: MockClock) -> None:
    """409 on the very first send (a proxy repeated the request): looked up, not sent under a new id."""
    rig = TaskRig()
    spent = OrderIdSpent("id was used", status=409, code="order_already_exists")
    rig.exchange.script("place", Answer(error=spent))
    async with rig.with_quoter():
        await trio.sleep(3)

        assert rig.prices() == ([4_900], [5_100])
        assert len({o.client_order_id for o in placed(rig)}) == 2


@pytest.mark.parametrize("was_filled", [True, False])
async def test_a_404_on_cancel_is_looked_up(autojump_clock: MockClock, was_filled: bool) -> None:
    """Filled or cancelled by the venue, unknown to us: the order itself is asked, then the side goes on."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        bid = rig.only(BID)
        if was_filled:
            rig.exchange.fill(bid.order_id, 1_000, tell=False, report=False)
        else:
            rig.exchange.end(bid.order_id)
        rig.book(4_400, 6_400)
        await trio.sleep(3)

        assert len(rig.exchange.called("cancel")) == 1
        assert [c.value for c in rig.exchange.called("order")] == [bid.order_id]
        assert rig.positions.net(GAME) == (1_000 if was_filled else 0)
        assert rig.prices()[0] == [5_300]


async def test_a_404_on_a_resting_order_does_not_free_the_side(autojump_clock: MockClock) -> None:
    """The wrong shard answers 404 for a live order: it is found resting and cancelled again, never doubled."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.script("cancel", refuse(NotRestingHere("not found", status=404)))
        rig.book(4_400, 6_400)
        for _ in range(50):
            await trio.sleep(0.1)
            assert at_most_one_a_side(rig)

        assert len(rig.exchange.called("cancel")) == 2
        assert rig.prices()[0] == [5_300]


async def test_a_lost_cancel_is_not_believed_on_a_lagging_read(autojump_clock: MockClock) -> None:
    """Executed, answer lost, and reads trail by two seconds: "resting" is not taken for the truth."""
    rig = TaskRig()
    rig.exchange.read_lag = 2.0
    async with rig.with_quoter():
        await trio.sleep(5)
        rig.exchange.sink = None  # the socket is silent too
        rig.exchange.script("cancel", lost_after())
        rig.book(4_400, 6_400)
        await trio.sleep(1.5)
        (order,) = [o for o in rig.desk.of_market(GAME) if o.side is BID]
        assert order.state is OrderState.UNKNOWN
        await trio.sleep(3)

        assert len(rig.exchange.called("cancel")) == 1
        assert rig.prices()[0] == [5_300]


async def test_each_lost_write_is_measured_from_its_own_time(autojump_clock: MockClock) -> None:
    """An order was of unknown outcome once before: the old moment does not make a stale read current."""
    rig = TaskRig()
    rig.exchange.script("place", lost_after())
    rig.exchange.read_lag = 1.5
    async with rig.with_quoter():
        await trio.sleep(20)
        (order,) = [o for o in rig.desk.of_market(GAME) if o.side is BID]
        assert order.state is OrderState.RESTING
        rig.exchange.sink = None
        rig.exchange.script("cancel", lost_after())
        rig.book(4_400, 6_400)
        await trio.sleep(1.2)

        assert order.state is OrderState.UNKNOWN
        await trio.sleep(3)
        assert len(rig.exchange.called("cancel")) == 1


async def test_a_lost_amend_is_known_by_its_outcome(autojump_clock: MockClock) -> None:
    """The amend was done, its answer lost, and a fill report comes first: price and size are the new ones."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.script("amend", lost_after(delay_after=0.5))
        rig.book(3_400, 5_400)
        await trio.sleep(0.55)
        bid = rig.only(BID)
        assert bid.price == 4_300
        (order,) = [o for o in rig.desk.of_market(GAME) if o.side is BID]
        assert order.state is OrderState.UNKNOWN
        rig.exchange.fill(bid.order_id, 300)
        await trio.sleep(2)

        assert (order.state, order.price, order.leaves) == (OrderState.RESTING, Price(4_300), Count(700))


# --- refusals ---


async def test_a_paused_market_is_probed_slowly(autojump_clock: MockClock) -> None:
    """Half an hour of `trading_is_paused`: a create a side every 15 s at most, and quotes soon after the end."""
    rig = TaskRig()
    rig.exchange.always("place", refuse(PAUSED))
    async with rig.with_quoter() as quoter:
        minutes = 30
        await trio.sleep(1)
        assert "paused" in quoter.look().reason
        for _ in range(minutes * 60):
            await trio.sleep(1)
            rig.book(4_000, 6_000)
        tries = len(placed(rig))
        assert 2 * minutes <= tries <= 2 * (minutes * 60 / PAUSE_PROBE_S + 2)
        rig.exchange.always("place", None)
        await trio.sleep(PAUSE_PROBE_S + 1)

        assert rig.prices() == ([4_900], [5_100])


@pytest.mark.parametrize(
    "error",
    [
        PAUSED,
        ExchangeUnavailable("connection refused"),
        ExchangeRejected("not allowed", status=400, code="invalid_parameters"),
    ],
    ids=["paused", "unavailable", "refused"],
)
async def test_cancels_that_are_refused_back_off(autojump_clock: MockClock, error: Exception) -> None:
    """A quote must go and cannot: it is tried again and again, but never hot."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.always("cancel", refuse(error))  # type: ignore[arg-type]
        rig.floor.hold_all("test", "must go")
        for _ in range(120):
            await trio.sleep(0.5)
            rig.book(4_000, 6_000)

        assert 8 <= len(rig.exchange.called("cancel")) <= 2 * (60 / BACKOFF_S[-1] + len(BACKOFF_S) + 1)
        rig.exchange.always("cancel", None)
        await trio.sleep(BACKOFF_S[-1] + 1)
        assert rig.prices() == ([], [])


async def test_a_failing_market_backs_off_and_recovers(autojump_clock: MockClock) -> None:
    """Creates fail without reaching the venue: fewer and fewer tries, then quotes again."""
    rig = TaskRig()
    rig.exchange.always("place", refuse(ExchangeUnavailable("connection refused")))
    async with rig.with_quoter():
        for _ in range(120):
            await trio.sleep(0.5)
            rig.book(4_000, 6_000)
        assert len(placed(rig)) <= 2 * (60 / BACKOFF_S[-1] + len(BACKOFF_S) + 1)
        rig.exchange.always("place", None)
        await trio.sleep(BACKOFF_S[-1] + 1)

        assert rig.prices() == ([4_900], [5_100])


async def test_one_failing_market_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    """What one market's writes suffer is told once a try; the other market quotes on."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.always("place", refuse(ExchangeRejected("no", status=400, code="insufficient_balance")))
        other = rig.add_quoter("KXNHLGAME-26SEP21VGKMIN-VGK")
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            rig.book(4_000, 6_000, other.ticker)
            await trio.sleep(60)

            assert rig.prices() == ([4_900], [5_100])
            assert rig.resting(BID, other.ticker) == []
            assert 0 < len(rig.troubles) < 30
            nursery.cancel_scope.cancel()


async def test_a_post_only_refusal_is_no_trouble(autojump_clock: MockClock) -> None:
    """The book moved under the quote: no alert, no long rest, the next look prices it anew."""
    rig = TaskRig()
    cross = ExchangeRejected("invalid order: post only cross", status=400, code="invalid_order")
    rig.exchange.script("place", refuse(cross))
    async with rig.with_quoter():
        await trio.sleep(1)

        assert rig.troubles == []
        assert rig.prices() == ([4_900], [5_100])


async def test_a_429_is_waited_out(autojump_clock: MockClock) -> None:
    """Throttled writes were not executed; they follow when tokens are back, and refusals stay few."""
    rig = TaskRig(exchange=tight_budget(100.0, 200.0))
    rig.exchange.script("place", *[refuse(RateLimited("too many requests"))] * 4)
    async with rig.with_quoter():
        await trio.sleep(10)

        assert rig.prices() == ([4_900], [5_100])
        assert len(placed(rig)) == 6
        assert rig.writes.refused_total == 4


@pytest.mark.parametrize("name", ["place", "create_group", "cancel", "amend"])
async def test_a_refused_key_ends_the_session(autojump_clock: MockClock, name: str) -> None:
    """401 on any write comes out of the quoter's task; it is no market's private trouble."""
    rig = TaskRig()
    refused = refuse(AuthError("bad key", status=401))
    with pytest.RaisesGroup(AuthError, flatten_subgroups=True, allow_unwrapped=True):
        async with rig.with_quoter():
            if name in ("cancel", "amend"):
                await trio.sleep(1)
            rig.exchange.always(name, refused)
            if name == "cancel":
                rig.floor.hold_all("test", "must go")
            if name == "amend":
                rig.book(3_400, 5_400)
            await trio.sleep(20)


async def test_a_group_that_was_closed_is_not_filled_any_more(autojump_clock: MockClock) -> None:
    """The first refusal tells; the next quote goes into a new group."""
    rig = TaskRig()
    rig.tools.on_group_closed = rig.fence.mark_triggered
    async with rig.with_quoter():
        await trio.sleep(1)
        old = rig.fence.groups[0]
        rig.exchange.triggered.add(old)
        for side in Side:
            rig.exchange.end(rig.only(side).order_id, report=True)
        await trio.sleep(5)

        assert rig.fence.groups[0] != old
        assert rig.prices() == ([4_900], [5_100])
        assert all(r.group_id == rig.fence.groups[0] for r in rig.exchange.resting())


# --- renewals ---


async def test_a_renewal_keeps_the_price_and_the_place(autojump_clock: MockClock) -> None:
    """Half of its life is over: the expiry moves, nothing else, and no order is made for it."""
    rig = TaskRig(quote_ttl=Micros(20 * SECOND))
    async with rig.with_quoter():
        await trio.sleep(0.1)
        first = {side: rig.only(side) for side in Side}
        await trio.sleep(300)

        for side in Side:
            now = rig.only(side)
            assert (now.order_id, now.price, now.remaining) == (
                first[side].order_id,
                first[side].price,
                first[side].remaining,
            )
            assert now.expires_at is not None
            assert now.expires_at > virtual_clock() + 5 * SECOND
        assert len(placed(rig)) == 2
        assert 50 <= len(rig.exchange.called("amend")) <= 66


async def test_a_renewal_waits_for_spare_budget_and_is_not_pushed_back_by_every_wake(
    autojump_clock: MockClock,
) -> None:
    """A busy market wakes all the time; its renewal keeps its place in the line."""
    rig = TaskRig(exchange=tight_budget(2.0, 40.0), quote_ttl=Micros(20 * SECOND))
    async with rig.with_quoter() as quoter:
        await trio.sleep(9)
        rig.drain()
        await trio.sleep(2)
        assert rig.writes.waiting() == 2
        before = [ticket.serial for ticket in rig.writes.tickets()]
        quoter.wake()
        await trio.sleep(0.1)

        assert [ticket.serial for ticket in rig.writes.tickets()] == before


async def test_a_partly_filled_quote_is_renewed_at_its_total_size(autojump_clock: MockClock) -> None:
    """The amend names filled + remaining, so that the remainder is what it was."""
    rig = TaskRig(quote_ttl=Micros(20 * SECOND))
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.fill(rig.only(BID).order_id, 400)
        await trio.sleep(15)

        assert rig.only(BID).remaining == 600
        assert rig.exchange.called("amend")


async def test_what_the_budget_cannot_renew_expires_and_is_counted(autojump_clock: MockClock) -> None:
    """The exchange takes the quote off; the market is quoted anew once there are tokens."""
    rig = TaskRig(quote_ttl=Micros(20 * SECOND))
    async with rig.with_quoter():
        await trio.sleep(1)
        old = rig.only(BID).order_id
        rig.exchange.end(old, report=True)
        await trio.sleep(0.1)

        assert rig.desk.statistics().expired == 1
        assert rig.only(BID).order_id != old


async def test_a_renewal_without_tokens_lets_the_quote_expire_and_is_not_sent_late(
    autojump_clock: MockClock,
) -> None:
    """The budget is eaten by others for the whole life of the quote: it goes, is counted, and comes back anew."""
    rig = TaskRig(exchange=tight_budget(2.0, 40.0), quote_ttl=Micros(20 * SECOND))
    async with rig.with_quoter():
        await trio.sleep(1)
        old = rig.only(BID)
        while rig.exchange.now_of(old.order_id).status is OrderStatus.RESTING:
            rig.drain()
            await trio.sleep(0.5)
            if old.expires_at is not None and virtual_clock() >= old.expires_at:
                rig.exchange.end(old.order_id, report=True)
        assert (rig.desk.statistics().expired, rig.exchange.called("amend")) == (1, [])
        await trio.sleep(30)

        assert rig.only(BID).order_id != old.order_id


async def test_the_time_to_live_is_chosen_for_each_market(autojump_clock: MockClock) -> None:
    """By its event and by what the budget carries, at the moment of the quote; a renewal chooses again."""
    rig = TaskRig(exchange=tight_budget(100.0, 200.0), quote_ttl=None)
    ends_at = Micros(virtual_clock() + ENDING_FROM + 60 * SECOND)
    tickers = {MarketTicker("M-RUNNING"): ends_at, MarketTicker("M-QUIET"): None}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        for ticker, at in tickers.items():
            await nursery.start(rig.add_quoter(ticker, expected_expiration=at).run)
            rig.book(4_000, 6_000, ticker)
        await trio.sleep(0.5)
        began = virtual_clock()
        lives = [{o.expires_at - began for o in rig.exchange.resting(t) if o.expires_at} for t in tickers]
        assert all(RUNNING - SECOND < life <= RUNNING for life in lives[0])
        assert all(QUIET - SECOND < life <= QUIET for life in lives[1])
        await trio.sleep(100)  # its end is near now
        for order in rig.exchange.resting(MarketTicker("M-RUNNING")):
            assert order.expires_at is not None
            assert 0 < order.expires_at - virtual_clock() <= ENDING
        assert rig.desk.statistics().expired == 0
        nursery.cancel_scope.cancel()


async def test_quotes_placed_together_are_not_renewed_together(autojump_clock: MockClock) -> None:
    """Renewals of many markets are spread, so that they do not meet in the budget; none comes after half of its life."""
    rig = TaskRig(quote_ttl=Micros(32 * SECOND))
    async with rig.with_quoter():
        await trio.sleep(20)
        times = [call.at for call in rig.exchange.called("amend")]

    assert len(set(times)) == len(times) == 2
    assert all(12 <= at <= 17 for at in times)


# --- exits ---


def hold_position(rig: TaskRig, count: int) -> None:
    """We are long: the resting bid is filled."""
    rig.exchange.fill(rig.only(BID).order_id, count)


async def test_flatten_pulls_both_quotes_then_crosses_at_the_touch_then_deeper_until_flat(
    autojump_clock: MockClock,
) -> None:
    """IOC, reduce-only, no group, no expiry, for what is left; a cent deeper each time; done when our fills say flat."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        hold_position(rig, 1_000)
        await trio.sleep(1)
        rig.exchange.others[GAME, BID] = [(Price(4_000), Count(300)), (Price(3_900), Count(500))]
        quoter.maker.flatten(FlattenReason.OPERATOR)
        quoter.wake()
        await trio.sleep(0.4)
        rig.exchange.others[GAME, BID] = [(Price(3_900), Count(500)), (Price(3_800), Count(10_000))]
        await trio.sleep(5)

        exits = [order for order in placed(rig) if not order.post_only]
        assert [(o.side, o.price, o.count) for o in exits] == [
            (ASK, 4_000, 1_000),
            (ASK, 3_900, 700),
            (ASK, 3_800, 200),
        ]
        for order in exits:
            assert order.reduce_only
            assert order.time_in_force.value == "immediate_or_cancel"
            assert (order.group_id, order.expires_at) == (None, None)
        assert rig.positions.net(GAME) == 0
        assert quoter.maker.needs_position_check
        first_exit = next(
            i for i, c in enumerate(rig.exchange.calls) if c.name == "place" and not c.value.post_only
        )
        before = [c.name for c in rig.exchange.calls[:first_exit]]
        assert before.count("cancel") == 2
        assert rig.prices() == ([4_900], [5_100])


async def test_no_exit_while_anything_of_ours_works(autojump_clock: MockClock) -> None:
    """The ask that is being pulled could fill too: the exit waits for its end."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        hold_position(rig, 1_000)
        await trio.sleep(1)
        rig.exchange.always("cancel", slow(2.0))
        quoter.maker.flatten(FlattenReason.OPERATOR)
        quoter.wake()
        await trio.sleep(1.9)
        assert all(order.post_only for order in placed(rig))
        await trio.sleep(2)

        assert rig.positions.net(GAME) == 0


async def test_an_exit_of_unknown_outcome_is_not_sent_twice(autojump_clock: MockClock) -> None:
    """The order landed and filled, its answer and its fills are late: the position is closed once, not turned."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        hold_position(rig, 1_000)
        await trio.sleep(1)
        rig.exchange.sink = None
        rig.exchange.script("place", lost_after(delay_after=4.0))
        quoter.maker.flatten(FlattenReason.OPERATOR)
        quoter.wake()
        await trio.sleep(10)

        exits = [order for order in placed(rig) if not order.post_only]
        assert len({o.client_order_id for o in exits}) == 1
        assert sum(f.signed_count for f in rig.exchange.fills) == 0
        assert rig.positions.net(GAME) == 0


@pytest.mark.parametrize(
    "error",
    [
        PAUSED,
        ExchangeUnavailable("connection refused"),
        ExchangeRejected("no", status=400, code="invalid_parameters"),
    ],
    ids=["paused", "unavailable", "refused"],
)
async def test_exits_that_are_refused_back_off(autojump_clock: MockClock, error: Exception) -> None:
    """The position must go and the venue says no: tried for ever, slower and slower, told each time."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        hold_position(rig, 1_000)
        await trio.sleep(1)
        rig.exchange.always("place", refuse(error))  # type: ignore[arg-type]
        quoter.maker.flatten(FlattenReason.OPERATOR)
        quoter.wake()
        for _ in range(120):
            await trio.sleep(0.5)
            rig.book(4_000, 6_000)
        exits = [order for order in placed(rig) if not order.post_only]
        assert 4 <= len(exits) <= 60 / BACKOFF_S[-1] + len(BACKOFF_S) + 1
        rig.exchange.always("place", None)
        await trio.sleep(BACKOFF_S[-1] + 2)

        assert rig.positions.net(GAME) == 0


async def test_the_failsafe_comes_due_by_time_alone(autojump_clock: MockClock) -> None:
    """The mark creeps into breach without moving a quote, then silence: eight seconds later the position goes."""
    parameters = StrategyParameters(min_requote=Price(3_000))
    rig = TaskRig(parameters=parameters, quote_ttl=Micros(3_600 * SECOND))
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        hold_position(rig, 500)
        await trio.sleep(1)
        rig.book(3_900, 4_110)
        await trio.sleep(0.5)
        writes = len(rig.exchange.writes())
        assert quoter.maker.mark is not None
        assert quoter.maker.mark < 4_100
        await trio.sleep(7)
        assert len(rig.exchange.writes()) == writes
        assert rig.positions.net(GAME) == 500
        await trio.sleep(2)

        assert rig.positions.net(GAME) == 0
        assert [t[0] for t in quoter.maker.triggers] == [FlattenReason.MAE_FAILSAFE]


async def test_the_duration_rule_comes_due_by_time_alone(autojump_clock: MockClock) -> None:
    """10 contracts for 50 minutes without a message: closed at the first moment, not at the next message."""
    rig = TaskRig(quote_ttl=Micros(7_200 * SECOND))
    async with rig.with_quoter():
        await trio.sleep(1)
        hold_position(rig, 1_000)
        start = trio.current_time()
        while rig.positions.net(GAME):
            await trio.sleep(1)

        assert trio.current_time() - start == pytest.approx(3_000, abs=2)


# --- market events ---


async def test_a_new_grid_is_followed(autojump_clock: MockClock) -> None:
    """The tick becomes a tenth of a cent while the market is open: quotes may stand on it from now on."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        event = MarketEvent(ticker=GAME, kind=MarketEventKind.GRID_CHANGED, grid=uniform_grid(Price(10)))
        rig.handler.on_market_event(event)
        rig.book(4_250, 6_460)
        await trio.sleep(1)

        assert quoter.maker.market.grid.is_valid(Price(5_250))
        assert rig.prices() == ([5_250], [5_460])


async def test_a_deactivated_market_is_pulled_and_comes_back(autojump_clock: MockClock) -> None:
    """`deactivated`: nothing rests; `activated`: quotes again."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.handler.on_market_event(MarketEvent(ticker=GAME, kind=MarketEventKind.DEACTIVATED))
        rig.handler.on_read_end(virtual_clock())
        await trio.sleep(1)
        assert rig.prices() == ([], [])
        rig.handler.on_market_event(MarketEvent(ticker=GAME, kind=MarketEventKind.ACTIVATED))
        rig.handler.on_read_end(virtual_clock())
        await trio.sleep(1)

        assert rig.prices() == ([4_900], [5_100])


async def test_what_an_earlier_quoter_left_unknown_is_resolved_first(autojump_clock: MockClock) -> None:
    """A market's quoter was started again while an order's outcome is open: it is settled, then the side quotes."""
    rig = TaskRig()
    rig.exchange.script("place", lost_after(), lost_after())
    async with rig.with_quoter() as quoter:
        await trio.sleep(0.05)
        quoter.scope.cancel()
        await trio.sleep(0.05)
        assert {o.state for o in rig.desk.of_market(GAME)} == {OrderState.UNKNOWN}
        async with trio.open_nursery() as nursery:
            fresh = attrs.evolve(quoter, scope=trio.CancelScope())
            rig.floor.quoters[GAME] = fresh
            await nursery.start(fresh.run)
            await trio.sleep(3)

            assert rig.prices() == ([4_900], [5_100])
            assert {o.state for o in rig.desk.of_market(GAME)} == {OrderState.RESTING}
            assert all(r.status is OrderStatus.RESTING for r in rig.exchange.resting())
            nursery.cancel_scope.cancel()


async def test_the_quoter_never_spins(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle quoter looks only when something is due: a quiet ten minutes are a handful of decisions."""
    rig = TaskRig()
    looks = 0
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        original = type(quoter).look

        def counted(self: object) -> object:
            nonlocal looks
            looks += 1
            return original(self)  # type: ignore[arg-type]

        monkeypatch.setattr(type(quoter), "look", counted)
        await trio.sleep(600)

        assert looks < 400

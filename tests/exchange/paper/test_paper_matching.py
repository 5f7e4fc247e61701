"""The queue model of the paper venue, step by step."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.errors import BookOutOfSync
from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.fill import Fill, Liquidity, Trade
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import SelfTradePrevention, Side
from mm.exchange.paper.account import PaperAccount, PaperGroup
from mm.exchange.paper.matching import PaperMarket, PaperOrder

T0 = Micros(1_000_000_000)


def market(bids=((4000, 5000),), asks=((4400, 3000),)):
    """A market with this book displayed."""
    found = PaperMarket()
    found.snapshot(list(bids), list(asks))
    return found


def order(side, price, count, number=1):
    return PaperOrder(
        order_id=f"o{number}",
        client_order_id=f"c{number}",
        ticker="M-1",
        side=side,
        price=Price(price),
        initial=Count(count),
        remaining=Count(count),
        exchange_index=0,
        post_only=True,
        created_at=T0,
    )


def rest(where, side, price, count, number=1):
    placed = order(side, price, count, number)
    where.rest(placed)
    return placed


def trade(taker, price, count, **extra):
    return Trade(
        trade_id="t", ticker="M-1", price=Price(price), count=Count(count), taker_side=taker, ts=T0, **extra
    )


def fills(executions):
    return [(e.order.order_id, e.price, e.count) for e in executions]


def test_an_order_joins_behind_what_is_displayed():
    """Everything displayed at our price is ahead; at a new price nobody is."""
    m = market()

    assert rest(m, Side.BID, 4000, 1000).queue_ahead == 5000
    assert rest(m, Side.BID, 4100, 1000, 2).queue_ahead == 0


def test_trades_at_our_price_eat_the_queue_and_then_us():
    """50 ahead: 30 traded leave 20, 25 more fill 5 of ours."""
    m = market()
    ours = rest(m, Side.BID, 4000, 1000)

    assert m.trade(trade(Side.ASK, 4000, 3000), T0) == []
    assert ours.queue_ahead == 2000
    assert fills(m.trade(trade(Side.ASK, 4000, 2500), T0)) == [("o1", 4000, 500)]
    assert (ours.filled, ours.remaining, ours.queue_ahead) == (500, 500, 0)
    assert fills(m.trade(trade(Side.ASK, 4000, 9900), T0)) == [("o1", 4000, 500)]
    assert m.resting() == []


def test_a_trade_and_its_decrease_count_once_in_either_order():
    """The same 30 contracts come as a print and as a delta: the queue shrinks by 30, not by 60."""
    first = market()
    ours = rest(first, Side.BID, 4000, 1000)
    first.trade(trade(Side.ASK, 4000, 3000), T0)
    first.delta(Side.BID, Price(4000), Count(-3000), T0)
    assert ours.queue_ahead == 2000

    second = market()
    ours = rest(second, Side.BID, 4000, 1000)
    second.delta(Side.BID, Price(4000), Count(-3000), T0)
    second.trade(trade(Side.ASK, 4000, 3000), T0)
    assert ours.queue_ahead == 2000


def test_a_decrease_without_a_trade_is_spread_over_the_queue():
    """50 ahead, then 50 behind us: of 40 cancelled, 20 were ahead."""
    m = market()
    ours = rest(m, Side.BID, 4000, 1000)
    m.delta(Side.BID, Price(4000), Count(5000), T0)
    m.delta(Side.BID, Price(4000), Count(-4000), T0)

    assert ours.queue_ahead == 3000


def test_an_old_decrease_is_not_explained_by_a_later_trade():
    """More than two seconds apart they are two things: a cancellation, then a trade."""
    m = market()
    ours = rest(m, Side.BID, 4000, 1000)
    m.delta(Side.BID, Price(4000), Count(-3000), T0)
    m.trade(trade(Side.ASK, 4000, 1000), Micros(T0 + 3_000_000))

    assert ours.queue_ahead == 1000


def test_a_vanished_level_leaves_nobody_ahead():
    """All others cancelled: we are first, as soon as a trade can no longer be their leaving."""
    m = market()
    ours = rest(m, Side.BID, 4000, 1000)
    m.delta(Side.BID, Price(4000), Count(-5000), T0)

    assert ours.queue_ahead == 0
    later = Micros(T0 + 2_000_001)
    assert fills(m.trade(trade(Side.ASK, 4000, 300), later)) == [("o1", 4000, 300)]


def test_a_trade_through_our_price_fills_us_first_at_our_price():
    """A taker sold at 0.39: at 0.40 we were better, whatever was ahead; a small trade fills a small part."""
    m = market(bids=((4000, 5000), (3900, 5000)))
    ours = rest(m, Side.BID, 4000, 1000)

    assert fills(m.trade(trade(Side.ASK, 3900, 400), T0)) == [("o1", 4000, 400)]
    assert ours.queue_ahead == 0
    assert fills(m.trade(trade(Side.ASK, 3900, 4000), T0)) == [("o1", 4000, 600)]


def test_what_we_took_of_a_trade_is_not_there_for_our_next_order():
    """10 traded through a better order of ours with 6: the one at the trade's price sees 4, behind its queue."""
    m = market(bids=((4000, 300),))
    rest(m, Side.BID, 4100, 600, 1)
    rest(m, Side.BID, 4000, 600, 2)

    assert fills(m.trade(trade(Side.ASK, 4000, 1000), T0)) == [("o1", 4100, 600), ("o2", 4000, 100)]


def test_two_orders_at_one_price_fill_in_time_order():
    """The second waits for the first."""
    m = market(bids=((4000, 100),))
    rest(m, Side.BID, 4000, 200, 1)
    rest(m, Side.BID, 4000, 200, 2)

    assert fills(m.trade(trade(Side.ASK, 4000, 400), T0)) == [("o1", 4000, 200), ("o2", 4000, 100)]


@pytest.mark.parametrize(
    "seen",
    [
        trade(Side.BID, 4400, 9900),
        trade(Side.ASK, 4100, 9900),
        trade(Side.ASK, 3900, 9900, is_block=True),
    ],
    ids=["other side", "worse than ours is not reached", "block trade"],
)
def test_trades_that_do_not_reach_us(seen):
    """Takers on the other side, prints above our bid, block trades."""
    m = market()
    rest(m, Side.BID, 4000, 1000)

    assert m.trade(seen, T0) == []


def test_asks_mirror_bids():
    """The same model on the other side."""
    m = market()
    ours = rest(m, Side.ASK, 4400, 1000)

    assert ours.queue_ahead == 3000
    assert fills(m.trade(trade(Side.BID, 4400, 3500), T0)) == [("o1", 4400, 500)]
    assert fills(m.trade(trade(Side.BID, 4500, 9900), T0)) == [("o1", 4400, 500)]


def test_size_that_appears_through_our_price_fills_us():
    """An ask displayed at or below our bid would have met it: once, at our price."""
    m = market(bids=(), asks=((4400, 3000),))
    ours = rest(m, Side.BID, 4200, 1000)

    assert fills(m.delta(Side.ASK, Price(4200), Count(300), T0)) == [("o1", 4200, 300)]
    assert fills(m.delta(Side.ASK, Price(4100), Count(900), T0)) == [("o1", 4200, 700)]
    assert ours.remaining == 0
    assert m.available(Side.ASK, Price(4200)) == 0, "what filled us is gone for our own taking, too"
    assert m.available(Side.ASK, Price(4100)) == 200


def test_a_snapshot_that_crosses_us_fills_us_and_another_does_not_fill_again():
    """What happened while the feed was cut shows in the snapshot; the same size counts once."""
    m = market(bids=(), asks=((4400, 3000),))
    rest(m, Side.BID, 4200, 1000)

    assert fills(m.snapshot([], [(Price(4100), Count(400))])) == [("o1", 4200, 400)]
    assert m.snapshot([], [(Price(4100), Count(400))]) == []


def test_a_snapshot_moves_nobody_back_in_the_queue():
    """Not more than what is displayed is ahead, and not more than before."""
    m = market()
    ours = rest(m, Side.BID, 4000, 1000)
    m.snapshot([(Price(4000), Count(9000))], [])
    assert ours.queue_ahead == 5000
    m.snapshot([(Price(4000), Count(700))], [])
    assert ours.queue_ahead == 700


def test_taking_walks_the_displayed_depth_and_each_contract_once():
    """Best price first up to the limit; displayed size that we took stays taken while it stays displayed."""
    m = market(asks=((4400, 300), (4500, 300), (4700, 300)))
    first = m.take(order(Side.BID, 4500, 500), SelfTradePrevention.TAKER)
    second = m.take(order(Side.BID, 4500, 500, 2), SelfTradePrevention.TAKER)

    assert fills(first.executions) == [("o1", 4400, 300), ("o1", 4500, 200)]
    assert [e.liquidity for e in first.executions] == [Liquidity.TAKER] * 2
    assert fills(second.executions) == [("o2", 4500, 100)]
    m.delta(Side.ASK, Price(4400), Count(-300), T0)
    m.delta(Side.ASK, Price(4400), Count(200), T0)
    assert m.available(Side.ASK, Price(4400)) == 200


def test_an_incoming_order_gives_way_to_our_own_resting_one():
    """`taker_at_cross`: it trades with whoever is ahead of ours, then stops."""
    m = market(asks=((4400, 300), (4500, 300)))
    rest(m, Side.ASK, 4400, 1000)
    m.delta(Side.ASK, Price(4400), Count(500), T0)
    taking = m.take(order(Side.BID, 4500, 900, 2), SelfTradePrevention.TAKER)

    assert fills(taking.executions) == [("o2", 4400, 300)]
    assert taking.is_stopped


def test_a_resting_order_gives_way_in_maker_mode():
    """`maker`: ours is displaced, the incoming one goes on."""
    m = market(asks=((4400, 300), (4500, 300)))
    ours = rest(m, Side.ASK, 4400, 1000)
    taking = m.take(order(Side.BID, 4500, 900, 2), SelfTradePrevention.MAKER)

    assert taking.gave_way == [ours]
    assert fills(taking.executions) == [("o2", 4400, 300), ("o2", 4500, 300)]
    assert not taking.is_stopped


def test_crossing_counts_what_is_left_of_the_book_and_ourselves():
    """A level that we emptied is no obstacle; our own order is."""
    m = market(bids=(), asks=((4400, 300),))
    assert m.would_cross(Side.BID, Price(4400))
    assert not m.would_cross(Side.BID, Price(4300))
    m.take(order(Side.BID, 4400, 300), SelfTradePrevention.TAKER)
    assert not m.would_cross(Side.BID, Price(4400))
    rest(m, Side.ASK, 4400, 100, 2)
    assert m.would_cross(Side.BID, Price(4400))


def test_a_negative_level_is_told_like_by_any_book():
    """The live feed then asks for a snapshot."""
    m = market()
    with pytest.raises(BookOutOfSync):
        m.delta(Side.BID, Price(4000), Count(-5001), T0)


# --- whatever comes ---------------------------------------------------------------------------------------------------

PRICES = st.sampled_from([4000, 4100, 4200, 4300, 4400])
EVENTS = st.one_of(
    st.tuples(st.just("rest"), st.sampled_from(Side), PRICES, st.integers(1, 900)),
    st.tuples(st.just("delta"), st.sampled_from(Side), PRICES, st.integers(-900, 900)),
    st.tuples(st.just("trade"), st.sampled_from(Side), PRICES, st.integers(1, 900)),
    st.tuples(st.just("take"), st.sampled_from(Side), PRICES, st.integers(1, 900)),
)


@given(st.lists(EVENTS, max_size=30))
def test_no_sequence_breaks_the_model(events):
    """Counts add up, queues stay within what is displayed plus traded, no trade fills more than its size."""
    m = market()
    placed = []
    for number, (kind, side, price, count) in enumerate(events):
        if kind == "rest" and not m.would_cross(side, Price(price)):
            placed.append(rest(m, side, price, count, number))
        elif kind == "delta":
            if m.book.size_at(side, Price(price)) + count >= 0:
                m.delta(side, Price(price), Count(count), T0)
        elif kind == "trade":
            done = m.trade(trade(side, price, count), T0)
            assert sum(e.count for e in done) <= count
            assert all(e.order.side is side.opposite for e in done)
        elif kind == "take":
            incoming = order(side, price, count, number)
            before = {o: o.filled for o in placed}
            taking = m.take(incoming, SelfTradePrevention.TAKER)
            assert sum(e.count for e in taking.executions) == incoming.filled <= count
            assert before == {o: o.filled for o in placed}
        for each in placed:
            assert each.filled + each.remaining == each.initial
            assert each.queue_ahead >= 0
            assert (each in m.orders[each.side]) == (each.remaining > 0)
        assert all(m.available(s, Price(p)) >= 0 for s in Side for p in (4000, 4400))


# --- money ------------------------------------------------------------------------------------------------------------


def fill(side, price, count, fee=0):
    return Fill(
        order_id="o",
        trade_id="t",
        ticker="M-1",
        side=side,
        price=Price(price),
        count=Count(count),
        fee=Money(fee),
        liquidity=Liquidity.MAKER,
        ts=T0,
    )


def test_cash_of_a_round_trip_and_a_flip():
    """Buy 10 at 0.40, sell 15 at 0.50: 10 closed with a dollar gained, 5 short at a cost of 0.50 each."""
    account = PaperAccount(Money(100_000_000))
    account.book(fill(Side.BID, 4000, 1000, fee=5000), 0)
    assert account.cash == 96_000_000 - 5000
    account.book(fill(Side.ASK, 5000, 1500), 0)

    (view,) = account.views()
    assert (view.position, view.realized_pnl, view.fees_paid) == (-500, 1_000_000, 5000)
    assert account.cash == 100_000_000 - 4_000_000 + 5_000_000 - 2_500_000 - 5000


@pytest.mark.parametrize(
    ("side", "value", "payout"),
    [(Side.BID, 10_000, 10), (Side.BID, 0, 0), (Side.ASK, 0, 10), (Side.ASK, 2500, 7.5)],
)
def test_settlement_pays_each_leg(side, value, payout):
    """YES pays its value, NO the rest of the dollar, fair values in between."""
    account = PaperAccount(Money(100_000_000))
    account.book(fill(side, 5000, 1000), 3)
    settlement = account.settle("M-1", Price(value), T0)

    assert account.cash == 95_000_000 + payout * 1_000_000
    assert (settlement.yes_count, settlement.no_count) == ((1000, 0) if side is Side.BID else (0, 1000))
    assert account.views() == []
    assert account.settle("M-1", Price(value), T0) is None


def test_resting_orders_set_cash_aside_unless_they_close():
    """Ten long: an ask of ten closes and costs its fee only, ten more cost a dollar less their price."""
    schedules = {"M-1": FeeSchedule(FeeType.QUADRATIC, Fraction(1))}
    account = PaperAccount(Money(100_000_000))
    account.book(fill(Side.BID, 4000, 1000), 0)

    assert account.reserved([order(Side.ASK, 5000, 1000)], schedules) == 0
    assert account.reserved([order(Side.ASK, 6000, 2000)], schedules) == 4_000_000
    assert account.reserved([order(Side.BID, 3000, 1000)], schedules) == 3_000_000


def test_a_groups_rolling_sum():
    """More than the limit within 15 seconds trips; what is older does not count."""
    group = PaperGroup("g", 0, Count(1000))

    assert not group.matched(Count(1000), T0)
    assert not group.matched(Count(1000), Micros(T0 + 15_000_000))
    assert group.matched(Count(1), Micros(T0 + 29_999_999))

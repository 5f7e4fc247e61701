"""Amend, decrease, cancel: what keeps the queue place, what loses it, what is refused and leaves no trace."""

import pytest

from mm.domain.numbers import SECOND
from mm.domain.order import Side
from mm.exchange.embedded.core.model import OrderStatus
from mm.exchange.embedded.core.rules import Rules

TOR = "KXNHLGAME-26DEC01TORBOS-TOR"


def _ahead(venue, placed, user="ann"):
    return venue.core.queue_position(user, placed.order_id)


def test_size_decrease_and_expiry_keep_the_queue_place(venue):
    """A pure decrease and an expiry-only amend stay in front."""
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.place("bob", "bid", "0.41", "10")
    result = venue.amend("ann", mine, "0.41", "6")
    assert (result.remaining_count, result.is_changed) == (600, True)
    assert _ahead(venue, mine) == 0
    result = venue.amend("ann", mine, "0.41", "6", expires_at=venue.now + 90 * SECOND)
    assert not result.is_changed
    assert _ahead(venue, mine) == 0
    assert venue.order(mine).expires_at == venue.now + 90 * SECOND


@pytest.mark.parametrize(("price", "count", "ahead"), [("0.41", "11", 1000), ("0.40", "10", 1500)])
def test_price_change_and_size_increase_lose_the_place(venue, price, count, ahead):
    """The order goes to the end of the queue of its (new) level, with the same id."""
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.place("bob", "bid", "0.41", "10")
    venue.place("bob", "bid", "0.40", "5")
    venue.amend("ann", mine, price, count)
    assert _ahead(venue, mine) == ahead
    assert venue.order(mine).initial_count == int(count) * 100


def test_count_is_the_new_total(venue):
    """Filled contracts count in: total 6 with 4 filled leaves 2; a total at or below the filled is refused."""
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.place("bob", "ask", "0.41", "4")
    assert venue.amend("ann", mine, "0.41", "6").remaining_count == 200
    assert venue.refusal(venue.amend, "ann", mine, "0.41", "4")[:2] == (400, "invalid_parameters")
    assert venue.order(mine).remaining == 200


def test_amend_below_filled_may_cancel(make_venue):
    """The other guess about the venue, by switch."""
    venue = make_venue(Rules(amend_below_filled_cancels=True))
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.place("bob", "ask", "0.41", "4")
    venue.amend("ann", mine, "0.41", "4")
    assert venue.order(mine).status is OrderStatus.CANCELED


def test_amend_can_cross_and_trade_at_the_makers_price(venue):
    """The amended order is the taker; the rest rests at its new price."""
    venue.place("bob", "ask", "0.43", "3")
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.take_events()
    result = venue.amend("ann", mine, "0.44", "10")
    assert (result.fill_count, result.remaining_count, result.average_fill_price) == (300, 700, 4300)
    assert venue.book() == ([(4400, 700)], [])
    assert [t for t in venue.told() if t[0] in ("order", "delta")] == [
        ("delta", "yes", 4100, -1000, None),
        ("order", "ann", "resting", 1000, "Amend"),
        ("delta", "no", 5700, -300, None),
        ("order", "bob", "executed", 0, "Trade"),
        ("order", "ann", "resting", 700, "Trade"),
        ("delta", "yes", 4400, 700, None),
    ]
    assert venue.core.fills("ann").items[0].is_taker


def test_amend_that_fills_whole_executes(venue):
    """Nothing rests afterwards."""
    venue.place("bob", "ask", "0.43", "10")
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.amend("ann", mine, "0.43", "10")
    assert venue.order(mine).status is OrderStatus.EXECUTED
    assert venue.book() == ([], [])


def test_amend_into_the_own_order_is_cut_there(venue):
    """Self-trade prevention holds for an amend as for a create."""
    own = venue.place("ann", "ask", "0.43", "3")
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.amend("ann", mine, "0.43", "10")
    assert venue.order(mine).status is OrderStatus.CANCELED
    assert venue.order(own).remaining == 300


def test_post_only_amend_that_would_cross_leaves_the_order_as_it_was(venue):
    """Refused, still at its price and its place."""
    venue.place("bob", "ask", "0.43", "3")
    mine = venue.place("ann", "bid", "0.41", "10", post_only=True)
    venue.place("bob", "bid", "0.41", "1")
    assert venue.refusal(venue.amend, "ann", mine, "0.43", "10") == (400, "invalid_order", "post only cross")
    assert venue.order(mine).price == 4100
    assert _ahead(venue, mine) == 0


def test_post_only_amend_switch_cancels(make_venue):
    """By switch it is cancelled with PostOnlyCrossCancel."""
    venue = make_venue(Rules(post_only_amend_cancels=True))
    venue.place("bob", "ask", "0.43", "3")
    mine = venue.place("ann", "bid", "0.41", "10", post_only=True)
    venue.take_events()
    venue.amend("ann", mine, "0.43", "10")
    assert venue.told()[-1] == ("order", "ann", "canceled", 0, "PostOnlyCrossCancel")


def test_refused_amends_leave_the_order_as_it_was(venue):
    """Wrong side or ticker, off-grid price, past expiry, spent id, too little cash: no change at all."""
    mine = venue.place("ann", "bid", "0.41", "10", client_order_id="q-1")
    venue.place("ann", "bid", "0.40", "1", client_order_id="q-2")
    before = (venue.order(mine).snapshot(), venue.book(), venue.available())
    cases = [
        ({"side": "ask"}, "invalid_parameters"),
        ({"ticker": TOR[:-3] + "BOS"}, "invalid_parameters"),
        ({"price": "0.415"}, "invalid_price"),
        ({"price": "1"}, "invalid_price"),
        ({"expires_at": venue.now}, "invalid_parameters"),
        ({"updated_client_order_id": "q-2"}, "order_already_exists"),
        ({"updated_client_order_id": "a.b"}, "invalid_parameters"),
        ({"count": "9999"}, "insufficient_balance"),
        ({"count": "0"}, "invalid_parameters"),
    ]
    for change, code in cases:
        args = {"price": "0.42", "count": "10"} | change
        assert venue.refusal(venue.amend, "ann", mine, **args)[1] == code
    after = (venue.order(mine).snapshot(), venue.book(), venue.available())
    assert before[1:] == after[1:]
    assert [getattr(before[0], f) for f in ("price", "remaining", "expires_at", "client_order_id")] == [
        getattr(after[0], f) for f in ("price", "remaining", "expires_at", "client_order_id")
    ]


def test_amend_moves_and_removes_the_expiry(venue):
    """The old timer of a moved expiry does nothing; 0 removes it."""
    mine = venue.place("ann", "bid", "0.41", "10", expires_in=10)
    venue.amend("ann", mine, "0.41", "10", expires_at=venue.now + 20 * SECOND)
    venue.wait(15)
    assert venue.order(mine).status is OrderStatus.RESTING
    venue.amend("ann", mine, "0.41", "10", expires_at=0)
    venue.wait(15)
    assert venue.order(mine).status is OrderStatus.RESTING
    assert venue.order(mine).expires_at is None


def test_updated_client_order_id_is_spent_and_used(venue):
    """Both ids stay spent, deltas carry the new one."""
    mine = venue.place("ann", "bid", "0.41", "10", client_order_id="q-1")
    venue.amend("ann", mine, "0.42", "10", updated_client_order_id="q-2")
    assert venue.told()[-1] == ("delta", "yes", 4200, 1000, "q-2")
    for spent in ("q-1", "q-2"):
        assert venue.refusal(venue.place, "ann", "bid", "0.4", "1", client_order_id=spent)[0] == 409


def test_decrease_keeps_the_place(venue):
    """By and to, both in remaining terms; to 0 ends the order."""
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.place("bob", "bid", "0.41", "10")
    by = venue.core.decrease(venue.now, "ann", mine.order_id, reduce_by=300)
    assert (by.remaining_count, by.reduced_by) == (700, 300)
    to = venue.core.decrease(venue.now, "ann", mine.order_id, reduce_to=500)
    assert to.remaining_count == 500
    assert _ahead(venue, mine) == 0
    assert venue.book()[0] == [(4100, 1500)]
    venue.core.decrease(venue.now, "ann", mine.order_id, reduce_by=9999)
    assert venue.order(mine).status is OrderStatus.CANCELED


def test_decreased_and_then_filled_is_executed(venue):
    """What the owner took off is not missing."""
    mine = venue.place("ann", "bid", "0.41", "10")
    venue.core.decrease(venue.now, "ann", mine.order_id, reduce_to=500)
    venue.place("bob", "ask", "0.41", "5")
    assert venue.order(mine).status is OrderStatus.EXECUTED


@pytest.mark.parametrize(
    "args", [{}, {"reduce_by": 1, "reduce_to": 1}, {"reduce_by": 0}, {"reduce_to": 1001}, {"reduce_to": -1}]
)
def test_impossible_decreases(venue, args):
    """Exactly one of the two, within what remains."""
    mine = venue.place("ann", "bid", "0.41", "10")
    refusal = venue.refusal(venue.core.decrease, venue.now, "ann", mine.order_id, **args)
    assert refusal[:2] == (400, "invalid_parameters")


def test_404_tells_nothing(venue):
    """Unknown, done, somebody else's, other shard: the same answer for cancel, amend and decrease."""
    mine = venue.place("ann", "bid", "0.41", "10")
    gone = venue.place("ann", "bid", "0.41", "10")
    venue.cancel("ann", gone)
    expected = (404, "not_found", None)
    assert venue.refusal(venue.cancel, "ann", gone) == expected
    assert venue.refusal(venue.cancel, "bob", mine) == expected
    assert venue.refusal(venue.cancel, "ann", mine, exchange_index=1) == expected
    assert venue.refusal(venue.amend, "ann", gone, "0.40", "1") == expected
    assert venue.refusal(venue.core.decrease, venue.now, "ann", "nope", reduce_by=1) == expected
    assert venue.cancel("ann", mine, exchange_index=0).reduced_by == 1000


def test_cancel_all_takes_only_the_users_own(venue):
    """Every market of the user, nobody else's."""
    for ticker in (TOR, TOR[:-3] + "BOS"):
        venue.place("ann", "bid", "0.41", "1", ticker=ticker)
        venue.place("bob", "bid", "0.41", "1", ticker=ticker)
    assert venue.core.cancel_all(venue.now, "ann") == 2
    assert venue.core.orders("ann", status=OrderStatus.RESTING).items == []
    assert len(venue.core.orders("bob", status=OrderStatus.RESTING).items) == 2


def test_queue_position_counts_level_and_better(make_venue):
    """Contracts ahead at the level, and at better levels unless switched off."""
    for with_better, expected in ((True, 1200), (False, 700)):
        venue = make_venue(Rules(queue_counts_better=with_better))
        venue.place("bob", "ask", "0.42", "5")
        venue.place("bob", "ask", "0.43", "7")
        venue.place("bob", "ask", "0.44", "9")
        mine = venue.place("ann", "ask", "0.43", "1")
        assert _ahead(venue, mine) == expected
        assert venue.core.queue_positions("ann", tickers=[TOR])[0][1] == expected
        assert venue.core.queue_positions("ann", event_ticker="other") == []
    assert venue.core.queue_position("ann", "nope") is None
    assert venue.order(mine).side is Side.ASK

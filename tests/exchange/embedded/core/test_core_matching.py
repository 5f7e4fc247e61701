"""Matching: price-time priority, times in force, self-trade prevention, post-only, reduce-only, what is emitted."""

import pytest

from mm.domain.grid import PriceBand, tick_grid
from mm.domain.numbers import parse_count, parse_money
from mm.domain.order import SelfTradePrevention, TimeInForce
from mm.exchange.embedded.core.model import OrderStatus
from mm.exchange.embedded.core.rules import Rules

IOC, FOK = TimeInForce.IOC, TimeInForce.FOK
TOR = "KXNHLGAME-26DEC01TORBOS-TOR"


def test_best_price_first_then_first_come(venue):
    """A sweep takes the better price, then the older order at a price, at the makers' prices."""
    first = venue.place("bob", "ask", "0.44", "5")
    second = venue.place("house", "ask", "0.44", "5")
    best = venue.place("bob", "ask", "0.43", "1.37")
    taken = venue.place("ann", "bid", "0.45", "8")
    assert taken.fill_count == parse_count("8")
    assert taken.remaining_count == 0
    assert [(t.price, t.count) for t in reversed(venue.core.trades().items)] == [
        (4300, 137),
        (4400, 500),
        (4400, 163),
    ]
    assert venue.order(best, "bob").status is OrderStatus.EXECUTED
    assert venue.order(first, "bob").status is OrderStatus.EXECUTED
    assert venue.core.order("house", second.order_id).remaining == 337
    assert taken.average_fill_price == 4383  # (1.37 * 0.43 + 6.63 * 0.44) / 8 = 0.43829
    assert venue.book() == ([], [(4400, 337)])


def test_remainder_rests_at_its_limit_and_book_is_not_crossed(venue):
    """A crossing order trades what is there and rests the rest at its own limit."""
    venue.place("bob", "ask", "0.43", "2")
    placed = venue.place("ann", "bid", "0.44", "5")
    assert (placed.fill_count, placed.remaining_count) == (200, 300)
    assert venue.book() == ([(4400, 300)], [])


def test_emission_of_a_resting_placement_and_its_cancel(venue):
    """Placement: order, then delta on its leg with the owner's id. Cancel: delta, then order."""
    bid = venue.place("ann", "bid", "0.41", "10", client_order_id="q-1")
    ask = venue.place("ann", "ask", "0.43", "10", client_order_id="q-2")
    assert venue.told() == [
        ("order", "ann", "resting", 1000, None),
        ("delta", "yes", 4100, 1000, "q-1"),
        ("order", "ann", "resting", 1000, None),
        ("delta", "no", 5700, 1000, "q-2"),
    ]
    assert venue.cancel("ann", ask).reduced_by == 1000
    venue.cancel("ann", bid)
    assert venue.told()[:2] == [
        ("delta", "no", 5700, -1000, "q-2"),
        ("order", "ann", "canceled", 0, "Decrease"),
    ]
    order = venue.order(bid)
    assert (order.initial_count, order.remaining, order.filled) == (1000, 0, 0)


def test_emission_of_a_match_with_remainder(venue):
    """Per maker: trade, delta, both fills, both orders, both positions; then the taker's rest as a delta."""
    venue.place("bob", "ask", "0.43", "2", client_order_id="m")
    venue.take_events()
    venue.place("ann", "bid", "0.43", "5", client_order_id="t")
    assert venue.told() == [
        ("TradePrinted",),
        ("delta", "no", 5700, -200, "m"),
        ("fill", "bob", 200, 4300, -200),
        ("fill", "ann", 200, 4300, 200),
        ("order", "bob", "executed", 0, "Trade"),
        ("order", "ann", "resting", 300, "Trade"),
        ("PositionChanged",),
        ("PositionChanged",),
        ("delta", "yes", 4300, 300, "t"),
    ]


def test_events_are_not_changed_by_what_happens_later(venue):
    """A delayed order update still tells what was true when it was made."""
    placed = venue.place("ann", "bid", "0.41", "10")
    update = venue.take_events()[0]
    venue.cancel("ann", placed)
    assert update.order.status is OrderStatus.RESTING
    assert update.order.remaining == 1000


def test_both_fills_and_the_print_share_one_trade_id(venue):
    """The public trade and both parties' fills carry the same id; two makers mean two ids."""
    venue.place("bob", "ask", "0.43", "1")
    venue.place("bob", "ask", "0.44", "1")
    venue.place("ann", "bid", "0.44", "2")
    printed = [t.trade_id for t in venue.core.trades().items]
    assert len(set(printed)) == 2
    assert [f.trade_id for f in venue.core.fills("ann").items] == printed
    assert [f.trade_id for f in venue.core.fills("bob").items] == printed


def test_house_traders_are_heard_of_only_in_public(venue):
    """Private events of house users are not emitted; their done orders and fills are not kept."""
    resting = venue.place("house", "ask", "0.43", "2")
    venue.place("ann", "bid", "0.43", "2")
    assert [t for t in venue.told() if "house" in t] == []
    assert venue.core.order("house", resting.order_id) is None
    assert venue.core.fills("house").items == []
    assert venue.core.orders("house").items == []


def test_ioc_cuts_what_it_cannot_trade(venue):
    """An immediate order never rests: partly filled reads canceled, whole reads executed, none is no error."""
    venue.place("bob", "ask", "0.43", "2")
    partly = venue.place("ann", "bid", "0.43", "5", time_in_force=IOC)
    assert (partly.fill_count, partly.remaining_count) == (200, 0)
    assert venue.order(partly).status is OrderStatus.CANCELED
    nothing = venue.place("ann", "bid", "0.43", "5", time_in_force=IOC)
    assert (nothing.fill_count, nothing.remaining_count, nothing.average_fill_price) == (0, 0, None)
    assert venue.order(nothing).status is OrderStatus.CANCELED
    venue.place("bob", "ask", "0.43", "2")
    whole = venue.place("ann", "bid", "0.99", "2", time_in_force=IOC)
    assert venue.order(whole).status is OrderStatus.EXECUTED
    assert venue.order(whole).price == 9900
    assert venue.book() == ([], [])


def test_fok_is_all_or_nothing(venue):
    """Too little within the limit: 409, no order, nothing traded; enough over two levels: filled."""
    venue.place("bob", "ask", "0.43", "2")
    venue.place("house", "ask", "0.45", "2")
    args = ("ann", "bid", "0.44", "3")
    assert venue.refusal(venue.place, *args, time_in_force=FOK)[:2] == (
        409,
        "fill_or_kill_insufficient_resting_volume",
    )
    assert venue.core.orders("ann").items == []
    assert venue.place("ann", "bid", "0.45", "3", time_in_force=FOK).fill_count == 300


def test_fok_counts_no_own_volume(venue):
    """What self-trade prevention would take away is not volume: stop at it (taker) or step over it (maker)."""
    venue.place("bob", "ask", "0.43", "1")
    own = venue.place("ann", "ask", "0.44", "5")
    venue.place("bob", "ask", "0.45", "1")
    assert venue.refusal(venue.place, "ann", "bid", "0.45", "2", time_in_force=FOK)[0] == 409
    maker = SelfTradePrevention.MAKER
    done = venue.place("ann", "bid", "0.45", "2", time_in_force=FOK, self_trade_prevention=maker)
    assert done.fill_count == 200
    assert venue.order(own).status is OrderStatus.CANCELED


def test_taker_at_cross_stops_at_the_own_order(venue):
    """Earlier fills stand, the rest is cut, the resting order is untouched."""
    venue.place("bob", "ask", "0.43", "1")
    own = venue.place("ann", "ask", "0.44", "5")
    venue.place("bob", "ask", "0.45", "5")
    venue.take_events()
    taken = venue.place("ann", "bid", "0.45", "4")
    assert (taken.fill_count, taken.remaining_count) == (100, 0)
    assert venue.told()[-1] == ("order", "ann", "canceled", 0, "SelfTradeCancel")
    assert venue.order(own).remaining == 500
    assert venue.order(taken).status is OrderStatus.CANCELED


def test_maker_prevention_cancels_the_resting_order_and_goes_on(venue):
    """`maker`: the own resting order goes with SelfTradeCancel, the incoming one continues behind it."""
    own = venue.place("ann", "ask", "0.44", "5")
    venue.place("bob", "ask", "0.45", "5")
    venue.take_events()
    taken = venue.place("ann", "bid", "0.45", "4", self_trade_prevention=SelfTradePrevention.MAKER)
    assert taken.fill_count == 400
    assert ("order", "ann", "canceled", 0, "SelfTradeCancel") in venue.told()
    assert venue.order(own).status is OrderStatus.CANCELED


def test_post_only_that_would_cross_is_refused(venue):
    """Default: 400 with the recorded details; not crossing, it rests."""
    venue.place("bob", "ask", "0.43", "1")
    assert venue.refusal(venue.place, "ann", "bid", "0.43", "1", post_only=True) == (
        400,
        "invalid_order",
        "post only cross",
    )
    assert venue.place("ann", "bid", "0.42", "1", post_only=True).remaining_count == 100


def test_post_only_switch_accepts_then_cancels(make_venue):
    """The other documented path: 201 with nothing remaining, `PostOnlyCrossCancel` on the channel."""
    venue = make_venue(Rules(post_only_cross_cancels=True))
    venue.place("bob", "ask", "0.43", "1")
    venue.take_events()
    placed = venue.place("ann", "bid", "0.43", "1", post_only=True)
    assert (placed.fill_count, placed.remaining_count) == (0, 0)
    assert venue.told() == [("order", "ann", "canceled", 0, "PostOnlyCrossCancel")]


def test_reduce_only_is_capped_by_the_position(venue):
    """It closes at most what is held, and nothing when flat or on the wrong side."""
    venue.place("bob", "ask", "0.43", "3")
    venue.place("ann", "bid", "0.43", "3")
    venue.place("bob", "bid", "0.40", "10")
    closing = venue.place("ann", "ask", "0.40", "5", time_in_force=IOC, reduce_only=True)
    assert (closing.fill_count, closing.remaining_count) == (300, 0)
    order = venue.order(closing)
    assert (order.status, order.last_update_reason.value) == (OrderStatus.CANCELED, "ReduceOnlyCancel")
    assert venue.position().position == 0
    flat = venue.place("ann", "ask", "0.40", "5", time_in_force=IOC, reduce_only=True)
    assert flat.fill_count == 0
    assert venue.order(flat).status is OrderStatus.CANCELED


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({"reduce_only": True}, "invalid_parameters"),
        ({"reduce_only": True, "time_in_force": FOK}, "invalid_parameters"),
        ({"time_in_force": IOC, "expires_in": 60}, "invalid_parameters"),
        ({"time_in_force": IOC, "post_only": True}, "invalid_parameters"),
        ({"count": "0"}, "invalid_parameters"),
        ({"expires_in": 0}, "invalid_parameters"),
        ({"expires_in": -5}, "invalid_parameters"),
        ({"client_order_id": "a.b"}, "invalid_parameters"),
        ({"price": "0"}, "invalid_price"),
        ({"price": "1"}, "invalid_price"),
        ({"price": "0.415"}, "invalid_price"),
    ],
)
def test_impossible_orders_are_400(venue, extra, code):
    """Each is refused before anything happens."""
    args = {"side": "bid", "price": "0.41", "count": "1"} | extra
    assert venue.refusal(venue.place, "ann", **args)[:2] == (400, code)
    assert venue.core.orders("ann").items == []


def test_unknown_market_and_wrong_shard_are_not_told_apart(venue):
    """Both: market_not_found."""
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1", ticker="NO")[:2] == (404, "market_not_found")
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1", exchange_index=2)[:2] == (
        404,
        "market_not_found",
    )
    assert venue.place("ann", "bid", "0.4", "1", exchange_index=0).remaining_count == 100


def test_account_without_funds_record_on_the_shard(venue):
    """A member that never paid in on the shard is `user_not_found` with its id."""
    venue.core.add_user("eve")
    assert venue.refusal(venue.place, "eve", "bid", "0.4", "1")[:2] == (400, "user_not_found:_eve")


def test_client_order_ids_are_single_use_for_ever(venue):
    """409 while it rests, after it was cancelled, after it filled; others' ids do not matter."""
    placed = venue.place("ann", "bid", "0.41", "1", client_order_id="q-1")
    conflict = (409, "order_already_exists", None)
    assert venue.refusal(venue.place, "ann", "bid", "0.42", "1", client_order_id="q-1") == conflict
    venue.cancel("ann", placed)
    assert venue.refusal(venue.place, "ann", "bid", "0.42", "1", client_order_id="q-1") == conflict
    assert venue.place("bob", "bid", "0.42", "1", client_order_id="q-1").remaining_count == 100


@pytest.mark.parametrize("spends", [False, True])
def test_whether_a_refused_create_spends_its_id_is_a_switch(make_venue, spends):
    """Not established at the venue; default: it does not."""
    venue = make_venue(Rules(refused_spends_id=spends))
    venue.refusal(venue.place, "ann", "bid", "0.415", "1", client_order_id="q-1")
    if spends:
        assert venue.refusal(venue.place, "ann", "bid", "0.41", "1", client_order_id="q-1")[0] == 409
    else:
        assert venue.place("ann", "bid", "0.41", "1", client_order_id="q-1").remaining_count == 100


def test_orders_expire_at_their_time_and_not_before(venue):
    """Expiry cancels with ExpiryCancel at its own time, also when the clock is only looked at later."""
    placed = venue.place("ann", "bid", "0.41", "1", expires_in=60)
    assert venue.wait(59.999999) == venue.now + 1
    assert venue.order(placed).status is OrderStatus.RESTING
    venue.take_events()
    venue.wait(10)
    assert venue.told() == [
        ("delta", "yes", 4100, -100, None),
        ("order", "ann", "canceled", 0, "ExpiryCancel"),
    ]
    assert venue.order(placed).updated_at == venue.order(placed).expires_at


def test_an_order_past_its_expiry_cannot_trade(venue):
    """A taker that comes after the expiry finds nothing, even if nobody called advance."""
    venue.place("ann", "bid", "0.41", "1", expires_in=60)
    venue.now += 61_000_000
    assert venue.place("bob", "ask", "0.41", "1", time_in_force=IOC).fill_count == 0


def test_grid_is_the_markets_own_and_may_change_while_open(venue):
    """A finer grid takes finer prices at once; what rests off a coarser one stays and can still be cancelled."""
    assert venue.refusal(venue.place, "ann", "bid", "0.415", "1")[1] == "invalid_price"
    fine = tick_grid([PriceBand(0, 10_000, 10)])
    venue.core.set_grid(venue.now, TOR, fine, "deci_cent")
    placed = venue.place("ann", "bid", "0.415", "1")
    venue.core.set_grid(venue.now, TOR, tick_grid([PriceBand(0, 10_000, 100)]), "linear_cent")
    assert venue.book() == ([(4150, 100)], [])
    assert venue.cancel("ann", placed).reduced_by == 100


def test_open_order_limit(make_venue):
    """One more than allowed is refused."""
    venue = make_venue(Rules(max_open_orders=2))
    venue.place("ann", "bid", "0.41", "1")
    venue.place("ann", "bid", "0.41", "1")
    assert venue.refusal(venue.place, "ann", "bid", "0.41", "1")[0] == 400


def test_market_figures_follow_the_trades(venue):
    """Volume, last price, open interest."""
    venue.place("bob", "ask", "0.43", "5")
    venue.place("ann", "bid", "0.43", "5")
    market = venue.core.markets()[TOR]
    assert (market.volume, market.last_price, market.open_interest) == (500, 4300, 500)
    assert market.dollar_volume == parse_money("2.15")
    venue.place("bob", "bid", "0.40", "2")
    venue.place("ann", "ask", "0.40", "2")
    assert (market.volume, market.open_interest) == (700, 300)

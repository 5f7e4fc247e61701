"""Money: fees of real fills, collateral taken and returned, netting within an exclusive event, P&L, balances."""

from fractions import Fraction

import pytest

from mm.domain.fees import PRECISION_DIRECT, PRECISION_INTERMEDIATED, FeeType
from mm.domain.grid import PriceBand, tick_grid
from mm.domain.numbers import SECOND, parse_count, parse_money
from mm.domain.order import TimeInForce
from mm.exchange.embedded.core.model import SeriesSpec

IOC = TimeInForce.IOC
TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
FREE = SeriesSpec(ticker="KXNHLGAME", fee_multiplier=Fraction(0))
"""No fees: collateral in round numbers."""

M = parse_money


# --- fees ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_taker", "count", "price", "precision", "fees"),
    [
        (True, "1", "0.52", PRECISION_DIRECT, ["0.017500"]),
        (True, "1", "0.99", PRECISION_DIRECT, ["0.000700"]),
        (True, "7", "0.613", PRECISION_DIRECT, ["0.116300"]),
        (False, "10", "0.37", PRECISION_DIRECT, ["0.040800"]),
        (False, "0.30", "0.40", PRECISION_DIRECT, ["0.0013", "0.0013", "0.0012"]),
        (True, "100", "0.50", PRECISION_INTERMEDIATED, ["1.75"]),
        (True, "1", "0.055", PRECISION_INTERMEDIATED, ["0.005"] * 3),
    ],
)
def test_fee_vectors_through_fills(make_venue, is_taker, count, price, precision, fees):
    """Every documented vector, charged by the core to one order of a member."""
    venue = make_venue(precision=precision)
    venue.core.set_grid(venue.now, TOR, _fine_grid(), "deci_cent")
    total = str(int(float(count) * 100) * len(fees) / 100)
    if is_taker:
        for _ in fees:
            venue.place("house", "ask", price, count)
        placed = venue.place("ann", "bid", price, total)
    else:
        placed = venue.place("ann", "bid", price, total)
        for _ in fees:
            venue.place("house", "ask", price, count)
    fills = venue.core.fills("ann", order_id=placed.order_id).items[::-1]
    assert [fill.fee for fill in fills] == [M(fee) for fee in fees]
    order = venue.order(placed)
    assert (order.taker_fees, order.maker_fees)[not is_taker] == sum(M(fee) for fee in fees)
    assert venue.position().fees_paid == sum(M(fee) for fee in fees)


def _fine_grid():
    return tick_grid([PriceBand(0, 10_000, 10)])


def test_maker_pays_nothing_where_the_series_has_no_maker_fee(make_venue):
    """5 @ 0.30 as a maker in a plain quadratic series."""
    venue = make_venue(series=SeriesSpec(ticker="KXNHLGAME", fee_type=FeeType.QUADRATIC))
    venue.place("ann", "bid", "0.30", "5")
    assert venue.available() == M("998.5")  # no fee to reserve either
    venue.place("bob", "ask", "0.30", "5")
    assert [f.fee for f in venue.core.fills("ann").items] == [0]
    assert venue.core.fills("bob").items[0].fee > 0


def test_event_overrides_beat_the_series_per_field(make_venue):
    """The series' multiplier is 0.5; the event flips it to 1 and back; the type is overridden alone."""
    venue = make_venue(series=SeriesSpec(ticker="KXNHLGAME", fee_multiplier=Fraction(1, 2)))

    def taker_fee():
        venue.place("house", "ask", "0.50", "100")
        venue.place("ann", "bid", "0.50", "100")
        return venue.core.fills("ann").items[0].fee

    event = "KXNHLGAME-26DEC01TORBOS"
    assert taker_fee() == M("0.875")
    venue.take_events()
    venue.core.set_event_fees(venue.now, event, None, Fraction(1))
    assert venue.told() == [("EventFeesUpdated",)]
    assert taker_fee() == M("1.75")
    venue.core.set_event_fees(venue.now, event, FeeType.QUADRATIC, None)
    assert taker_fee() == M("0.875")
    venue.core.set_series_fees(venue.now, "KXNHLGAME", FeeType.QUADRATIC_WITH_MAKER_FEES, Fraction(2))
    assert taker_fee() == M("3.5")


def test_fee_waiver_until_its_time(make_venue):
    """No fees before, fees from then on."""
    probe = make_venue()
    venue = make_venue(market_extra={"fee_waiver_until": probe.now + 60 * SECOND})
    for fee in (M("0"), M("1.75")):
        venue.place("house", "ask", "0.50", "100")
        assert venue.place("ann", "bid", "0.50", "100").fees == fee
        venue.wait(60)


def test_average_fee_is_per_contract(venue):
    """2 contracts at 0.52: 0.034944 rounded up to 0.035, 0.0175 each."""
    venue.place("house", "ask", "0.52", "2")
    result = venue.place("ann", "bid", "0.52", "2")
    assert (result.fees, result.average_fee_paid, result.average_fill_price) == (M("0.035"), 175, 5200)


# --- collateral ------------------------------------------------------------------------------------------------------


def test_cash_is_taken_when_an_order_rests_and_released_when_it_goes(venue):
    """Bid at p: p x q; ask at p: (1 - p) x q; plus the worst maker fee. A cancel gives back to the last unit."""
    bid = venue.place("ann", "bid", "0.40", "10")
    taken = M("1000") - venue.available()
    assert M("4.042") <= taken <= M("4.0422")
    ask = venue.place("ann", "ask", "0.45", "10")
    assert M("5.5") < M("1000") - venue.available() - taken < M("5.55")
    assert venue.core.balances("ann")[0].reserved == M("1000") - venue.available()
    venue.cancel("ann", bid)
    venue.cancel("ann", ask)
    assert venue.available() == M("1000")


def test_expiry_and_decrease_release_too(make_venue):
    """Every way off the book releases."""
    venue = make_venue(series=FREE)
    placed = venue.place("ann", "bid", "0.40", "10", expires_in=60)
    venue.core.decrease(venue.now, "ann", placed.order_id, reduce_to=500)
    assert venue.available() == M("998")
    venue.amend("ann", placed, "0.20", "5")
    assert venue.available() == M("999")
    venue.wait(60)
    assert venue.available() == M("1000")


def test_insufficient_balance(make_venue):
    """What is locked by resting orders is not there for others; exactly enough is enough."""
    venue = make_venue(series=FREE)
    venue.place("ann", "bid", "0.50", "1000")
    assert venue.available() == M("500")
    refused = (400, "insufficient_balance", None)
    assert venue.refusal(venue.place, "ann", "ask", "0.60", "1250.01") == refused
    assert venue.refusal(venue.place, "ann", "ask", "0.60", "1250.01", time_in_force=IOC) == refused
    assert venue.place("ann", "ask", "0.60", "1250").remaining_count == 125_000
    assert venue.available() == 0


def test_the_fee_counts_in_the_check(venue):
    """Cash for the price but not for the fee is not enough."""
    assert venue.refusal(venue.place, "ann", "bid", "0.50", "2000")[1] == "insufficient_balance"


def test_house_has_no_limit(venue):
    """A house trader rests and trades what it likes; its position is still known."""
    venue.place("house", "ask", "0.50", "1000000")
    venue.place("ann", "bid", "0.50", "10")
    assert venue.core.users()["house"].house_positions == {TOR: -1000}


def test_selling_what_is_held_needs_no_cash_and_pays_back(make_venue):
    """Long 1000 with an empty purse: an ask closes for nothing; beyond the position it needs cash."""
    venue = make_venue(series=FREE)
    venue.place("bob", "ask", "0.50", "2000")
    venue.place("ann", "bid", "0.50", "2000")
    assert venue.available() == 0
    assert venue.refusal(venue.place, "ann", "ask", "0.60", "2000.01")[1] == "insufficient_balance"
    venue.place("ann", "ask", "0.60", "2000")
    assert venue.available() == 0
    venue.place("house", "bid", "0.60", "500")
    assert venue.available() == M("300")
    assert (venue.position().position, venue.position().realized_pnl) == (150_000, M("50"))


def test_two_asks_share_one_position(make_venue):
    """The position covers the best priced first; the rest needs its own cash."""
    venue = make_venue(series=FREE)
    venue.place("bob", "ask", "0.50", "10")
    venue.place("ann", "bid", "0.50", "10")
    venue.place("ann", "ask", "0.70", "10")
    assert venue.available() == M("995")
    venue.place("ann", "ask", "0.60", "4")  # 0.60 x 4 and 0.70 x 6 are covered, 0.70 x 4 is not
    assert venue.available() == M("995") - M("1.2")


def test_buying_no_while_long_yes_nets_at_once(make_venue):
    """One signed number per market; a closed short pays back its dollar."""
    venue = make_venue(series=FREE)
    venue.place("house", "bid", "0.40", "10")
    venue.place("ann", "ask", "0.40", "10")
    assert (venue.position().position, venue.available()) == (-1000, M("994"))
    assert venue.position().cost == M("6")
    venue.place("house", "ask", "0.30", "15")
    venue.place("ann", "bid", "0.30", "15")
    position = venue.position()
    assert (position.position, position.cost, position.realized_pnl) == (500, M("1.5"), M("1"))
    assert (position.total_traded, position.volume) == (M("10.5"), 2500)
    assert venue.available() == M("1000") + M("1") - M("1.5")


def test_exit_with_no_cash_cancels_the_quote_that_needed_the_position(make_venue):
    """An immediate exit is never refused for a resting ask on the same position: that one is MarginCancel-led."""
    venue = make_venue(series=FREE)
    venue.place("bob", "ask", "0.50", "2000")
    venue.place("ann", "bid", "0.50", "2000")
    quote = venue.place("ann", "ask", "0.60", "2000")
    venue.place("house", "bid", "0.10", "2000")
    assert venue.available() == 0
    done = venue.place("ann", "ask", "0.05", "2000", time_in_force=IOC, reduce_only=True)
    assert done.fill_count == parse_count("2000")
    assert venue.order(quote).last_update_reason.value == "MarginCancel"
    assert venue.available() == M("200")


# --- mutually exclusive events ---------------------------------------------------------------------------------------


def _short_both(venue, count="10"):
    for ticker, price in ((TOR, "0.60"), (BOS, "0.45")):
        venue.place("house", "bid", price, count, ticker=ticker)
        venue.place("ann", "ask", price, count, ticker=ticker)


def test_no_holdings_of_an_exclusive_event_return_collateral(make_venue):
    """NO on both teams for 0.40 + 0.55: one dollar is certain, so 0.95 - 1 = -0.05 per pair is all it ties up."""
    venue = make_venue(series=FREE)
    _short_both(venue)
    assert venue.available() == M("1000.5")
    plain = make_venue(series=FREE, is_exclusive=False)
    _short_both(plain)
    assert plain.available() == M("990.5")


def test_netting_is_the_members_choice(make_venue):
    """A member without netting keeps the full collateral."""
    venue = make_venue(series=FREE)
    venue.core.users()["ann"].is_netting = False
    _short_both(venue)
    assert venue.available() == M("990.5")


@pytest.mark.parametrize(("tor", "bos"), [(10_000, 0), (0, 10_000), (5_000, 5_000), (0, 0)])
def test_settling_an_exclusive_event_never_asks_for_more(make_venue, tor, bos):
    """In whatever order the two settle, the balance never falls, and ends at what is owed exactly."""
    venue = make_venue(series=FREE)
    _short_both(venue)
    seen = [venue.available()]
    for ticker, value in ((TOR, tor), (BOS, bos)):
        venue.core.determine(venue.now, ticker, value)
        venue.wait(60)
        seen.append(venue.available())
    assert seen == sorted(seen)
    assert seen[-1] == M("1010.5") - 1000 * (tor + bos)


def test_buying_back_one_of_two_netted_shorts_needs_cash(make_venue):
    """The other short still needs the dollar, so closing one is not free; closing the larger part is."""
    venue = make_venue(series=FREE)
    _short_both(venue)
    venue.place("ann", "bid", "0.20", "10")
    assert venue.available() == M("998.5")
    venue.place("house", "ask", "0.20", "10")
    assert venue.available() == M("998.5")
    venue.place("ann", "bid", "0.30", "10", ticker=BOS)  # now the only short: its buy-back frees its dollar
    assert venue.available() == M("998.5")
    venue.place("house", "ask", "0.30", "10", ticker=BOS)
    assert venue.available() == M("1005.5")


# --- balances --------------------------------------------------------------------------------------------------------


def test_balances_are_per_shard(venue):
    """A deposit opens an account on a shard; withdrawals take what is available, no more."""
    venue.core.deposit(venue.now, "ann", 2, M("50"))
    assert [(b.exchange_index, b.available) for b in venue.core.balances("ann")] == [
        (0, M("1000")),
        (2, M("50")),
    ]
    venue.core.deposit(venue.now, "ann", 2, M("-20"))
    assert (
        venue.refusal(venue.core.deposit, venue.now, "ann", 2, M("-30.000001"))[1] == "insufficient_balance"
    )
    venue.place("ann", "bid", "0.40", "10")
    assert venue.available(shard=2) == M("30")


def test_portfolio_value_is_what_closing_would_bring(make_venue):
    """At the bid for a long, the ask for a short, the last price without a book; returned collateral is not twice."""
    venue = make_venue(series=FREE)
    venue.place("bob", "ask", "0.50", "10")
    venue.place("ann", "bid", "0.50", "10")
    assert venue.core.balances("ann")[0].portfolio_value == M("5")
    venue.place("bob", "bid", "0.45", "1")
    assert venue.core.balances("ann")[0].portfolio_value == M("4.5")
    venue.place("bob", "ask", "0.60", "1")
    assert venue.core.balances("bob")[0].portfolio_value == M("4")
    netted = make_venue(series=FREE)
    _short_both(netted)
    balance = netted.core.balances("ann")[0]
    assert balance.available + balance.portfolio_value == M(
        "1000"
    )  # valued at the last prices: nothing gained

"""Lifecycle and pauses: what is refused when, what is cancelled and announced, and the timers in time order."""

from fractions import Fraction

import pytest

from mm.domain.fees import FeeType
from mm.domain.market import MarketStatus
from mm.domain.numbers import SECOND
from mm.exchange.embedded.core.events import MarketUpdated, OrderUpdated
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, OrderStatus, SeriesSpec
from mm.exchange.embedded.core.rules import Rules

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT = "KXNHLGAME-26DEC01TORBOS"


def _market(venue, ticker=TOR):
    return venue.core.markets()[ticker]


def _announced(venue):
    return [e.change.value for e in venue.take_events() if isinstance(e, MarketUpdated)]


def _spec(now, **changes):
    terms = {"ticker": "NEW", "event_ticker": EVENT, "open_time": now, "close_time": now + SECOND} | changes
    return MarketSpec(**terms)


def test_opens_at_its_time_without_a_word(venue):
    """initialized refuses orders; active from the open time on; nothing is announced."""
    spec = _spec(venue.now, open_time=venue.now + 10 * SECOND, close_time=venue.now + 20 * SECOND)
    venue.core.add_market(venue.now, spec)
    assert _announced(venue) == ["created"]
    assert _market(venue, "NEW").status is MarketStatus.INITIALIZED
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1", ticker="NEW")[:2] == (409, "market_closed")
    assert venue.wait(9) == venue.now + SECOND
    venue.wait(1)
    assert venue.place("ann", "bid", "0.4", "1", ticker="NEW").remaining_count == 100
    assert _announced(venue) == []


def test_close_refuses_everything_then_cancels_what_rests(venue):
    """After the close: create, amend, cancel, decrease 409; a moment later CloseCancel; no announcement."""
    mine = venue.place("ann", "bid", "0.41", "1")
    venue.now = _market(venue).close_time
    venue.core.advance(venue.now)
    closed = (409, "market_closed", None)
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1") == closed
    assert venue.refusal(venue.cancel, "ann", mine) == closed
    assert venue.refusal(venue.amend, "ann", mine, "0.4", "1") == closed
    assert venue.refusal(venue.core.decrease, venue.now, "ann", mine.order_id, reduce_by=1) == closed
    assert venue.core.cancel_all(venue.now, "ann") == 0
    assert venue.order(mine).status is OrderStatus.RESTING
    venue.take_events()
    venue.wait(1)
    assert venue.told() == [
        ("delta", "yes", 4100, -100, None),
        ("order", "ann", "canceled", 0, "CloseCancel"),
    ]
    assert _market(venue).status is MarketStatus.CLOSED


def test_close_time_moves_both_ways(venue):
    """Later: the old timer does nothing. Not ahead: closes at once. Both are announced."""
    old = _market(venue).close_time
    venue.core.set_close_time(venue.now, TOR, old + 100 * SECOND)
    venue.now = old
    venue.core.advance(venue.now)
    assert _market(venue).status is MarketStatus.ACTIVE
    assert _market(venue, BOS).status is MarketStatus.CLOSED
    venue.core.set_close_time(venue.now, TOR, venue.now)
    assert _market(venue).status is MarketStatus.CLOSED
    assert _announced(venue) == ["close_date_updated"] * 2


def test_a_closed_market_can_reopen(venue):
    """Its close moves ahead, then `activated`: nothing that rested comes back."""
    mine = venue.place("ann", "bid", "0.41", "1")
    venue.core.set_close_time(venue.now, TOR, venue.now)
    with pytest.raises(ValueError, match="cannot be activated"):
        venue.core.activate(venue.now, TOR)
    venue.core.set_close_time(venue.now, TOR, venue.now + 100 * SECOND)
    venue.core.activate(venue.now, TOR)
    assert venue.order(mine).status is OrderStatus.CANCELED
    other = venue.place("ann", "bid", "0.41", "1")
    venue.wait(50)  # the close cancel of the first close must not fire into the reopened market
    assert venue.order(other).status is OrderStatus.RESTING
    venue.wait(50)
    assert _market(venue).status is MarketStatus.CLOSED


def test_halt_keeps_orders_and_reactivation_wipes_them(venue):
    """inactive: creates and amends 409 trading_is_paused, cancels work; activated: all quotes of the market gone."""
    mine = venue.place("ann", "bid", "0.41", "1")
    gone = venue.place("ann", "bid", "0.40", "1")
    flagged = venue.place("ann", "bid", "0.39", "1", cancel_on_pause=True)
    elsewhere = venue.place("ann", "bid", "0.41", "1", ticker=BOS)
    venue.take_events()
    venue.core.deactivate(venue.now, TOR)
    assert venue.order(flagged).last_update_reason.value == "HaltCancel"
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1")[:2] == (409, "trading_is_paused")
    assert venue.refusal(venue.amend, "ann", mine, "0.4", "1")[:2] == (409, "trading_is_paused")
    assert venue.cancel("ann", gone).reduced_by == 100
    assert venue.order(mine).status is OrderStatus.RESTING
    venue.core.activate(venue.now, TOR)
    assert venue.order(mine).status is OrderStatus.CANCELED
    assert venue.order(elsewhere).status is OrderStatus.RESTING
    assert _announced(venue) == ["deactivated", "activated"]


def test_trading_pause_of_a_shard(venue):
    """No creates, no amends, cancels yes; flagged orders go with HaltCancel; decrease by switch."""
    mine = venue.place("ann", "bid", "0.41", "2")
    flagged = venue.place("ann", "ask", "0.45", "1", cancel_on_pause=True)
    venue.core.set_trading_active(venue.now, 0, False)
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1")[:2] == (409, "trading_is_paused")
    assert venue.refusal(venue.amend, "ann", mine, "0.4", "1")[:2] == (409, "trading_is_paused")
    decrease = (venue.core.decrease, venue.now, "ann", mine.order_id)
    assert venue.refusal(*decrease, reduce_by=1)[:2] == (409, "trading_is_paused")
    order = venue.order(flagged)
    assert (order.status, order.last_update_reason.value) == (OrderStatus.CANCELED, "HaltCancel")
    assert [s.trading_active for s in venue.core.shards()] == [False]
    assert venue.cancel("ann", mine).reduced_by == 200
    venue.core.set_trading_active(venue.now, 0, True)
    assert venue.place("ann", "bid", "0.4", "1").remaining_count == 100


def test_decrease_in_a_trading_pause_by_switch(make_venue):
    """The other guess: it passes like a cancel."""
    venue = make_venue(Rules(decrease_in_pause=True))
    mine = venue.place("ann", "bid", "0.41", "2")
    venue.core.set_trading_active(venue.now, 0, False)
    assert venue.core.decrease(venue.now, "ann", mine.order_id, reduce_by=1).remaining_count == 199


def test_exchange_pause_refuses_cancels_too(venue):
    """Nothing works on the shard, groups neither; unflagged orders stay."""
    group = venue.core.create_group(venue.now, "ann", contracts_limit=100)
    mine = venue.place("ann", "bid", "0.41", "2", group_id=group.group_id)
    flagged = venue.place("ann", "bid", "0.40", "2", cancel_on_pause=True)
    venue.core.set_exchange_active(venue.now, 0, False)
    paused = (409, "exchange_is_paused", None)
    venue.take_events()
    assert venue.refusal(venue.place, "ann", "bid", "0.4", "1") == paused
    assert venue.refusal(venue.cancel, "ann", mine) == paused
    assert venue.refusal(venue.core.trigger_group, venue.now, "ann", group.group_id) == paused
    assert venue.core.cancel_all(venue.now, "ann") == 0
    assert venue.order(mine).status is OrderStatus.RESTING
    assert venue.order(flagged).status is OrderStatus.CANCELED
    venue.core.set_exchange_active(venue.now, 0, True)
    assert venue.cancel("ann", mine).reduced_by == 200


def test_pauses_are_per_shard(venue):
    """Another shard's pause does not matter here."""
    venue.core.set_exchange_active(venue.now, 3, False)
    assert venue.place("ann", "bid", "0.4", "1").remaining_count == 100
    assert [(s.exchange_index, s.exchange_active) for s in venue.core.shards()] == [(0, True), (3, False)]


@pytest.mark.parametrize(
    ("value", "word", "paid"), [(10_000, "yes", 3_000_000), (0, "no", 0), (5_000, "scalar", 1_500_000)]
)
def test_determined_then_settled_after_the_timer(venue, value, word, paid):
    """A determination closes, cancels, announces; the payout comes after the timer, at any value 0 to 1."""
    venue.place("bob", "ask", "0.40", "3")
    venue.place("ann", "bid", "0.40", "5")
    venue.take_events()
    venue.core.determine(venue.now, TOR, value)
    told = venue.take_events()
    assert [e.order.last_update_reason.value for e in told if isinstance(e, OrderUpdated)] == ["CloseCancel"]
    news = [e for e in told if isinstance(e, MarketUpdated)]
    assert [e.change.value for e in news] == ["close_date_updated", "determined"]
    assert (news[-1].result, news[-1].settlement_value) == (word, value)
    before = venue.available()
    assert venue.position().position == 300
    venue.wait(59)
    assert _market(venue).status is MarketStatus.DETERMINED
    venue.wait(1)
    assert _market(venue).status is MarketStatus.FINALIZED
    assert _announced(venue) == ["settled"]
    assert venue.available() == before + paid
    row = venue.core.settlements("ann").items[0]
    assert (row.result, row.value, row.yes_count, row.revenue) == (word, value, 300, paid)
    assert (row.yes_total_cost, row.no_count, row.ts) == (1_200_000, 0, venue.now)
    other = venue.core.settlements("bob").items[0]
    assert (other.no_count, other.no_total_cost, other.revenue) == (300, 1_800_000, 3_000_000 - paid)
    assert venue.core.positions("ann") == []
    settled = venue.core.positions("ann", is_settled=True)[0]
    assert (settled.position, settled.realized_pnl) == (0, paid - 1_200_000)


def test_a_dispute_stops_the_timer_and_an_amended_result_starts_it_again(venue):
    """The first timer pays nothing."""
    venue.place("bob", "ask", "0.40", "3")
    venue.place("ann", "bid", "0.40", "3")
    venue.core.determine(venue.now, TOR, 10_000)
    venue.wait(30)
    venue.core.dispute(venue.now, TOR)
    venue.wait(60)
    assert _market(venue).status is MarketStatus.DISPUTED
    venue.core.amend_result(venue.now, TOR, 0)
    assert _market(venue).status is MarketStatus.AMENDED
    venue.wait(60)
    assert venue.core.settlements("ann").items[0].revenue == 0


def test_timers_run_in_time_order_each_at_its_own_time(venue):
    """One late advance: expiry, close, close cancel happen in their order and carry their own times."""
    close = _market(venue).close_time
    seconds_to_close = (close - venue.now) // SECOND
    venue.place("ann", "bid", "0.41", "1", expires_in=seconds_to_close - 1)
    venue.place("ann", "bid", "0.40", "1")
    late = venue.place("ann", "bid", "0.39", "1", expires_in=seconds_to_close + 60)
    venue.take_events()
    assert venue.wait(seconds_to_close + 30) is not None
    updates = [e.order for e in venue.take_events() if isinstance(e, OrderUpdated)]
    assert [(o.last_update_reason.value, o.updated_at - close) for o in updates] == [
        ("ExpiryCancel", -SECOND),
        ("CloseCancel", SECOND // 2),
        ("CloseCancel", SECOND // 2),
    ]
    venue.wait(60)
    assert venue.order(late).last_update_reason.value == "CloseCancel"
    assert venue.core.next_deadline is None


def test_time_never_goes_back(venue):
    """A clock that steps back does not undo anything: the core's time stands still."""
    first = venue.place("ann", "bid", "0.41", "1")
    venue.now -= 5 * SECOND
    second = venue.place("ann", "bid", "0.41", "1")
    assert second.ts == first.ts


@pytest.mark.parametrize(
    "call",
    [
        lambda core, now: core.activate(now, TOR),
        lambda core, now: core.dispute(now, TOR),
        lambda core, now: core.amend_result(now, TOR, 0),
        lambda core, now: core.determine(now, TOR, 10_001),
        lambda core, now: core.determine(now, "NO", 0),
        lambda core, now: core.set_event_fees(now, "NO", None, None),
        lambda core, now: core.add_market(now, core.markets()[TOR].spec),
        lambda core, now: core.add_user("ann"),
        lambda core, now: core.add_series(now, SeriesSpec(ticker="KXNHLGAME")),
        lambda core, now: core.add_event(now, EventSpec(ticker="E", series_ticker="NO")),
        lambda core, now: core.add_event(now, EventSpec(ticker=EVENT, series_ticker="KXNHLGAME")),
        lambda core, now: core.add_market(now, _spec(now, event_ticker="NO")),
        lambda core, now: core.add_market(now, _spec(now, close_time=now)),
        lambda core, now: core.add_market(now, _spec(now, exchange_index=1)),
        lambda core, now: core.set_series_fees(now, "NO", FeeType.QUADRATIC, Fraction(1)),
    ],
)
def test_operators_errors_are_value_errors(venue, call):
    """Not refusals: no member made them."""
    with pytest.raises(ValueError):
        call(venue.core, venue.now)


def test_new_metadata_is_announced(venue):
    """Replaced keys only."""
    venue.core.update_metadata(venue.now, TOR, {"rules_primary": "x"})
    assert _market(venue).spec.metadata == {"rules_primary": "x"}
    assert _announced(venue) == ["metadata_updated"]


def test_a_determined_market_moves_on_no_other_way(venue):
    """Neither reopened, halted, moved nor determined again; a dispute is the only way back."""
    venue.core.determine(venue.now, TOR, 10_000)
    for call in (
        lambda: venue.core.deactivate(venue.now, TOR),
        lambda: venue.core.activate(venue.now, TOR),
        lambda: venue.core.set_close_time(venue.now, TOR, venue.now + SECOND),
        lambda: venue.core.determine(venue.now, TOR, 0),
    ):
        with pytest.raises(ValueError, match="determined"):
            call()


def test_the_mass_cancel_of_a_close_may_come_at_once(make_venue):
    """Without a delay nothing rests the moment the market is closed."""
    venue = make_venue(Rules(close_cancel_delay=0))
    mine = venue.place("ann", "bid", "0.41", "1")
    venue.core.set_close_time(venue.now, TOR, venue.now)
    assert venue.order(mine).last_update_reason.value == "CloseCancel"


def test_a_flat_series_charges_the_old_table(make_venue):
    """`flat` is in no live use: takers pay half the quadratic rate, makers nothing, and nothing breaks."""
    venue = make_venue(series=SeriesSpec(ticker="KXNHLGAME", fee_type=FeeType.FLAT))
    venue.place("bob", "ask", "0.50", "100")
    assert venue.place("ann", "bid", "0.50", "100").fees == 875_000
    assert venue.core.fills("bob").items[0].fee == 0

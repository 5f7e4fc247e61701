"""Reads: filters, order, pages, and what is kept for how long."""

from mm.domain.numbers import SECOND
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import OrderStatus
from mm.exchange.embedded.core.rules import Rules

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT = "KXNHLGAME-26DEC01TORBOS"


def _pages(read, **filters):
    """All pages of two, flattened; checks that no page is empty but a lone one."""
    items, before = [], None
    while True:
        part = read(limit=2, before=before, **filters)
        items += part.items
        if part.next_before is None:
            return items
        assert len(part.items) == 2
        before = part.next_before


def _trade(venue, ticker=TOR, price="0.40"):
    venue.place("bob", "ask", price, "1", ticker=ticker)
    return venue.place("ann", "bid", price, "1", ticker=ticker)


def test_orders_newest_first_with_filters(venue):
    """By ticker, event, status, time, shard; done and resting alike."""
    start = venue.now
    first = venue.place("ann", "bid", "0.40", "1")
    venue.wait(10)
    second = venue.place("ann", "bid", "0.41", "1", ticker=BOS)
    gone = venue.place("ann", "bid", "0.42", "1")
    venue.cancel("ann", gone)
    venue.amend("ann", first, "0.39", "1")  # keeps its place in the listing

    def ids(**filters):
        return [
            order.order_id for order in _pages(lambda **page: venue.core.orders("ann", **page), **filters)
        ]

    assert ids() == [gone.order_id, second.order_id, first.order_id]
    assert ids(status=OrderStatus.RESTING) == [second.order_id, first.order_id]
    assert ids(status=OrderStatus.CANCELED) == [gone.order_id]
    assert ids(tickers=[TOR]) == [gone.order_id, first.order_id]
    assert ids(event_tickers=[EVENT], tickers=[BOS]) == [second.order_id]
    assert ids(event_tickers=["other"]) == []
    assert ids(min_ts=start + 1) == [gone.order_id, second.order_id]
    assert ids(max_ts=start) == [first.order_id]
    assert ids(exchange_index=1) == []
    assert len(ids(exchange_index=0)) == 3


def test_one_order_by_id(venue):
    """Own orders only, restricted by shard when asked."""
    mine = venue.place("ann", "bid", "0.40", "1")
    assert venue.core.order("ann", mine.order_id, exchange_index=0).price == 4000
    assert venue.core.order("ann", mine.order_id, exchange_index=1) is None
    assert venue.core.order("bob", mine.order_id) is None
    assert venue.core.order("ann", "nope") is None


def test_fills_newest_first_with_filters_and_stable_pages(venue):
    """A fill that comes while somebody pages does not repeat or hide any."""
    orders = [_trade(venue) for _ in range(5)]
    venue.wait(10)
    late = _trade(venue, BOS)
    first_page = venue.core.fills("ann", limit=2)
    _trade(venue)
    second_page = venue.core.fills("ann", limit=2, before=first_page.next_before)
    assert [f.order_id for f in first_page.items + second_page.items] == [
        late.order_id,
        *(o.order_id for o in orders[:1:-1]),
    ]
    assert [f.ticker for f in venue.core.fills("ann", tickers=[BOS]).items] == [BOS]
    assert len(venue.core.fills("ann", order_id=orders[0].order_id).items) == 1
    assert len(venue.core.fills("ann", min_ts=venue.now).items) == 2
    assert len(venue.core.fills("ann", max_ts=venue.now - 1).items) == 5
    assert venue.core.fills("ann", exchange_index=1).items == []
    assert len(_pages(lambda **page: venue.core.fills("ann", **page))) == 7


def test_trades_of_one_market_and_of_all(venue):
    """Newest first over all markets, with time bounds."""
    _trade(venue, TOR, "0.40")
    venue.wait(1)
    _trade(venue, BOS, "0.41")
    venue.wait(1)
    _trade(venue, TOR, "0.42")

    def prices(**filters):
        return [trade.price for trade in _pages(venue.core.trades, **filters)]

    assert prices() == [4200, 4100, 4000]
    assert prices(ticker=TOR) == [4200, 4000]
    assert prices(ticker="other") == []
    assert prices(min_ts=venue.now) == [4200]
    assert prices(max_ts=venue.now - SECOND) == [4100, 4000]


def test_public_trades_are_bounded(make_venue):
    """The oldest prints go first; fills of members stay."""
    venue = make_venue(Rules(trades_kept=3))
    for _ in range(5):
        _trade(venue)
    assert len(venue.core.trades(ticker=TOR).items) == 3
    assert len(venue.core.fills("ann").items) == 5


def test_positions_list_what_was_traded(venue):
    """A resting order alone is no position; a closed position still shows its P&L."""
    venue.place("ann", "bid", "0.20", "1", ticker=BOS)
    assert venue.core.positions("ann") == []
    _trade(venue)
    assert [p.ticker for p in venue.core.positions("ann", event_ticker=EVENT)] == [TOR]
    assert venue.core.positions("ann", ticker=BOS) == []
    assert venue.core.positions("ann", exchange_index=1) == []
    venue.place("bob", "bid", "0.40", "1")
    venue.place("ann", "ask", "0.40", "1")
    assert [(p.position, p.volume) for p in venue.core.positions("ann")] == [(0, 200)]


def test_settlements_filters(venue):
    """By market, event, time; newest first."""
    for ticker in (TOR, BOS):
        _trade(venue, ticker)
        venue.core.determine(venue.now, ticker, 0)
        venue.wait(60)
    rows = _pages(lambda **page: venue.core.settlements("ann", **page))
    assert [row.ticker for row in rows] == [BOS, TOR]
    assert [row.ticker for row in venue.core.settlements("ann", ticker=TOR).items] == [TOR]
    assert [row.ticker for row in venue.core.settlements("ann", min_ts=venue.now).items] == [BOS]
    assert venue.core.settlements("ann", event_ticker="other").items == []
    assert venue.core.settlements("ann", max_ts=venue.now - 1).items[0].fee_cost > 0


def test_position_updates_follow_fills_and_settlement(venue):
    """Each carries the whole position."""
    _trade(venue)
    venue.core.determine(venue.now, TOR, 10_000)
    venue.wait(60)
    positions = [
        e.position for e in venue.events if type(e).__name__ == "PositionChanged" and e.user_id == "ann"
    ]
    assert [(p.position, p.is_settled, p.realized_pnl) for p in positions] == [
        (100, False, 0),
        (0, True, 600_000),
    ]


def test_house_users_may_listen(venue):
    """With `wants_events` a house trader hears of its fills and orders, and still keeps no history."""
    venue.core.add_user("maker", is_house=True, wants_events=True)
    venue.place("maker", "ask", "0.40", "2")
    venue.take_events()
    venue.place("ann", "bid", "0.40", "2")
    told = venue.told()
    assert ("fill", "maker", 200, 4000, -200) in told
    assert ("order", "maker", "executed", 0, "Trade") in told
    assert venue.core.fills("maker").items == []


def test_ids_never_repeat_and_differ_between_starts():
    """One salt, one sequence; another salt, none of the same."""
    one, again, other = UuidSource(1), UuidSource(1), UuidSource(2)
    ids = [one() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [again() for _ in range(1000)] == ids
    assert not set(ids) & {other() for _ in range(1000)}
    assert all(len(text) == 36 and text.count("-") == 4 for text in ids)

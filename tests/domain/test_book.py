"""The order book: deltas folded in order give the book that a snapshot would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.book import OrderBook
from mm.domain.errors import BookOutOfSync
from mm.domain.numbers import Count, Price, complement
from mm.domain.order import Side

BID, ASK = Side.BID, Side.ASK

prices = st.integers(1, 99).map(lambda cents: Price(100 * cents))
levels = st.dictionaries(prices, st.integers(1, 5_000).map(Count), max_size=15)
changes = st.lists(st.tuples(st.sampled_from(Side), prices, st.integers(-3_000, 3_000)), max_size=40)


def synced(bids: dict[Price, Count], asks: dict[Price, Count]) -> OrderBook:
    book = OrderBook()
    book.snapshot(bids.items(), asks.items())
    return book


@given(bids=levels, asks=levels, deltas=changes)
def test_snapshot_and_deltas_are_the_rebuilt_book(
    bids: dict[Price, Count], asks: dict[Price, Count], deltas: list[tuple[Side, Price, int]]
) -> None:
    """After every delta: levels, best prices and depth are those of plain dictionaries."""
    book = synced(bids, asks)
    truth: dict[Side, dict[Price, int]] = {BID: dict(bids), ASK: dict(asks)}
    for side, price, change in deltas:
        count = truth[side].get(price, 0) + change
        before = book.version
        if count < 0:
            with pytest.raises(BookOutOfSync):
                book.apply_delta(side, price, Count(change))
            assert not book.is_synced
            return
        book.apply_delta(side, price, Count(change))
        truth[side][price] = count
        assert book.version > before
        rest = {side: {p: c for p, c in truth[side].items() if c} for side in Side}
        assert (book.bids, book.asks) == (rest[BID], rest[ASK])
        assert book.best_bid == max(rest[BID], default=None)
        assert book.best_ask == min(rest[ASK], default=None)
        assert book.depth(BID) == sorted(rest[BID].items(), reverse=True)
        assert book.depth(ASK, 2) == sorted(rest[ASK].items())[:2]
        assert book.size_at(side, price) == count


@given(bids=levels, asks=levels, deltas=changes)
def test_the_no_side_is_the_mirror(
    bids: dict[Price, Count], asks: dict[Price, Count], deltas: list[tuple[Side, Price, int]]
) -> None:
    """The same events seen from NO give the mirrored book: bids are asks at 1 - p."""
    yes = synced(bids, asks)
    no = synced({complement(p): c for p, c in asks.items()}, {complement(p): c for p, c in bids.items()})
    for side, price, change in deltas:
        try:
            yes.apply_delta(side, price, Count(change))
        except BookOutOfSync:
            with pytest.raises(BookOutOfSync):
                no.apply_delta(side.opposite, complement(price), Count(change))
            return
        no.apply_delta(side.opposite, complement(price), Count(change))
        assert no.bids == {complement(p): c for p, c in yes.asks.items()}
        assert no.best_bid == (None if yes.best_ask is None else complement(yes.best_ask))
        assert no.best_ask == (None if yes.best_bid is None else complement(yes.best_bid))
        assert no.is_crossed == yes.is_crossed


def test_nothing_is_folded_before_a_snapshot_or_after_a_break() -> None:
    """A delta without a base is refused; a new snapshot makes it whole again."""
    book = OrderBook()
    with pytest.raises(BookOutOfSync, match="before a snapshot"):
        book.apply_delta(BID, Price(4_000), Count(100))
    book.snapshot([(Price(4_000), Count(100))], [])
    book.mark_out_of_sync()
    with pytest.raises(BookOutOfSync):
        book.apply_delta(BID, Price(4_000), Count(100))
    book.snapshot([(Price(4_100), Count(100))], [])

    assert (book.is_synced, book.bids) == (True, {4_100: 100})


def test_a_level_that_would_be_negative_is_a_sign_of_a_missed_event() -> None:
    """The book stops being trusted; the other levels are not touched."""
    book = synced({Price(4_000): Count(100)}, {Price(6_000): Count(50)})

    with pytest.raises(BookOutOfSync, match="-50"):
        book.apply_delta(BID, Price(4_000), Count(-150))

    assert not book.is_synced
    assert book.asks == {6_000: 50}


def test_snapshots_leave_out_empty_levels_and_refuse_negative_ones() -> None:
    """A level of 0 does not exist; a negative one is nonsense."""
    book = OrderBook()
    book.snapshot([(Price(4_000), Count(0)), (Price(3_900), Count(5))], [])
    assert (book.best_bid, book.bids) == (3_900, {3_900: 5})
    with pytest.raises(BookOutOfSync):
        book.snapshot([(Price(4_000), Count(-1))], [])


def test_fractions_leave_no_phantom_level() -> None:
    """0.1 ten times in, 1.0 out: the level is gone (with floats a crumb stayed)."""
    book = synced({}, {})
    for _ in range(10):
        book.apply_delta(BID, Price(4_000), Count(10))
    book.apply_delta(BID, Price(4_000), Count(-100))

    assert (book.bids, book.best_bid) == ({}, None)


@pytest.mark.parametrize(
    ("bid", "ask", "crossed", "two_sided", "twice_mid"),
    [
        (4_000, 6_000, False, True, 10_000),
        (6_000, 6_000, True, True, 12_000),
        (6_100, 6_000, True, True, 12_100),
        (4_000, None, False, False, None),
        (None, 6_000, False, False, None),
        (None, None, False, False, None),
    ],
)
def test_shapes(
    bid: int | None, ask: int | None, crossed: bool, two_sided: bool, twice_mid: int | None
) -> None:
    """Crossed, one-sided, empty."""
    book = synced({Price(bid): Count(1)} if bid else {}, {Price(ask): Count(1)} if ask else {})

    assert (book.is_crossed, book.is_two_sided, book.twice_mid) == (crossed, two_sided, twice_mid)

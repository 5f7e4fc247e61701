"""The mark: exact average, order of a sweep, held within the touch."""

from hypothesis import given
from hypothesis import strategies as st

from mm.domain.fill import Trade, TradeId
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.mark import MidEma, Touch, sweep_order


def trade(i: int, price: int, taker: Side, ts: int, *, is_block: bool = False) -> Trade:
    return Trade(
        trade_id=TradeId(f"t{i:03}"),
        ticker=MarketTicker("M"),
        price=Price(price),
        count=Count(100),
        taker_side=taker,
        ts=Micros(ts),
        is_block=is_block,
    )


class TestAverage:
    def test_first_print_sets_it(self) -> None:
        """Nothing before the first print, then its price."""
        ema = MidEma()
        assert ema.mark is None

        ema.feed(Price(4_300))

        assert ema.mark == 4_300

    def test_three_tenths_of_the_way_each_print(self) -> None:
        """0.5 then 0.6: 0.53; then 0.6: 0.551."""
        ema = MidEma()
        for price in (5_000, 6_000, 6_000):
            ema.feed(Price(price))

        assert (ema.value, ema.mark) == (551_000, 5_510)

    def test_halves_round_up_at_both_places(self) -> None:
        """0.3 * 0.0100 + 0.7 * 0.000005 = 0.0030035: kept as 0.003004; 0.00005 is a mark of 0.0001."""
        ema = MidEma(value=5)
        ema.feed(Price(100))
        assert ema.value == 3_004

        assert MidEma(value=50).mark == 1
        assert MidEma(value=49).mark == 0

    def test_a_steady_price_brings_the_mark_onto_the_tick(self) -> None:
        """No float dust keeps the mark beside the price."""
        ema = MidEma()
        ema.feed(Price(9_900))
        for _ in range(60):
            ema.feed(Price(5_000))

        assert ema.mark == 5_000


class TestSweeps:
    @given(
        st.lists(
            st.tuples(st.integers(1, 99), st.sampled_from(Side), st.integers(0, 3)), min_size=1, max_size=12
        ),
        st.randoms(use_true_random=False),
    )
    def test_order_of_arrival_within_one_instant_decides_nothing(
        self, rows: list[tuple[int, Side, int]], random: object
    ) -> None:
        """Live prints of one timestamp in any order give what the sorted tape gives."""
        tape = sorted(
            (trade(i, cents * 100, side, ts) for i, (cents, side, ts) in enumerate(rows)), key=sweep_order
        )
        sorted_tape, live = MidEma(), MidEma()
        for one in tape:
            sorted_tape.feed(one.price)
        arrived = list(tape)
        random.shuffle(arrived)  # type: ignore[attr-defined]

        for one in sorted(arrived, key=lambda t: t.ts):
            live.on_trade(one)

        assert live.value == sorted_tape.value

    def test_prints_follow_the_book_as_it_was_eaten(self) -> None:
        """A buyer eats rising prices, a seller falling ones, the seller of the same instant first."""
        tape = [trade(1, 5_100, Side.BID, 7), trade(2, 4_800, Side.ASK, 7), trade(3, 4_900, Side.ASK, 7)]

        assert [t.price for t in sorted(tape, key=sweep_order)] == [4_900, 4_800, 5_100]

    def test_a_repeated_print_feeds_once(self) -> None:
        """A reconnect may send the newest prints again."""
        ema = MidEma()
        ema.on_trade(trade(1, 5_000, Side.BID, 7))
        ema.on_trade(trade(2, 6_000, Side.BID, 8))

        assert ema.on_trade(trade(2, 6_000, Side.BID, 8)) is False
        assert ema.value == 530_000

    def test_a_print_that_comes_late_is_booked_in_its_place(self) -> None:
        """Older than the newest instant: before that instant's prints, as if it had come in time."""
        in_time, late = MidEma(), MidEma()
        prints = [trade(1, 5_000, Side.BID, 7), trade(2, 6_000, Side.BID, 8), trade(3, 4_000, Side.BID, 9)]
        for one in prints:
            in_time.on_trade(one)
        for one in (prints[0], prints[2], prints[1]):
            late.on_trade(one)

        assert late.value == in_time.value

    def test_block_trades_feed_nothing(self) -> None:
        """They never touched the book."""
        ema = MidEma()

        assert ema.on_trade(trade(1, 5_000, Side.BID, 7, is_block=True)) is False
        assert ema.value is None


class TestLiveMark:
    def test_is_held_within_the_touch(self) -> None:
        """A stale average cannot quote or trigger against a book that has moved."""
        ema = MidEma(value=500_000)

        assert ema.live_mark(Touch(Price(5_600), Price(5_800))) == 5_600
        assert ema.live_mark(Touch(Price(4_000), Price(4_100))) == 4_100
        assert ema.live_mark(Touch(Price(4_900), Price(5_100))) == 5_000
        assert ema.live_mark(Touch(None, Price(4_100))) == 4_100

    def test_the_books_mid_serves_before_the_first_print(self) -> None:
        """Halves up; without two sides there is no mark."""
        assert MidEma().live_mark(Touch(Price(4_000), Price(4_101))) == 4_051
        assert MidEma().live_mark(Touch(Price(4_000), None)) is None

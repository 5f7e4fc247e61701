"""InventoryState: FIFO, exact, in YES terms; the same whatever the order of arrival."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.errors import InvariantError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.inventory import (
    HistoryTooShort,
    InventoryHistory,
    InventoryState,
    RealizedPart,
    fill_order,
)
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side

BID, ASK = Side.BID, Side.ASK
MINUTE = 60 * SECOND
CONTRACT_MINUTE = 100 * MINUTE


def apply(
    state: InventoryState, side: Side, price: int, count: int, ts: int = 0, fee: int = 0
) -> tuple[RealizedPart, ...]:
    """A fill in plain integers."""
    return state.apply(side, Price(price), Count(count), Money(fee), Micros(ts))


def make_fill(i: int, side: Side, price: int, count: int, ts: int, fee: int = 0) -> Fill:
    return Fill(
        order_id=OrderId(f"o{i}"),
        trade_id=TradeId(f"t{i:03}"),
        ticker=MarketTicker("M"),
        side=side,
        price=Price(price),
        count=Count(count),
        fee=Money(fee),
        liquidity=Liquidity.MAKER,
        ts=Micros(ts),
    )


fills = st.lists(
    st.tuples(
        st.sampled_from([BID, ASK]),
        st.integers(1, 9_999),
        st.integers(1, 3_000),
        st.integers(0, 50),
        st.integers(0, 100_000),
    ),
    max_size=30,
)


def totals(state: InventoryState) -> tuple[object, ...]:
    """Everything there is to compare."""
    return (state.layers, state.net, state.realized_gross, state.fees, state.bought, state.sold)


class TestFifo:
    def test_same_sign_appends_a_layer(self) -> None:
        """Two buys are two layers; the average is exact."""
        state = InventoryState()
        apply(state, BID, 5_000, 1_000)
        apply(state, BID, 5_100, 2_000)

        assert [layer.count for layer in state.layers] == [1_000, 2_000]
        assert state.vwap_entry == Fraction(15_200, 3)

    def test_other_sign_realizes_from_the_oldest(self) -> None:
        """The first layer goes first."""
        state = InventoryState()
        apply(state, BID, 5_000, 1_000, ts=1)
        apply(state, BID, 6_000, 1_000, ts=2)

        parts = apply(state, ASK, 5_500, 1_500, ts=10)

        assert [(p.count, p.gross, p.hold) for p in parts] == [(1_000, 500_000, 9), (500, -250_000, 8)]
        assert state.realized_gross == 250_000

    def test_short_layers_gain_when_the_price_falls(self) -> None:
        """A short layer realizes entry less exit."""
        state = InventoryState()
        apply(state, ASK, 6_000, 1_000)

        (part,) = apply(state, BID, 5_500, 1_000)

        assert part.gross == 500_000
        assert state.is_flat

    def test_the_remainder_opens_the_other_side(self) -> None:
        """What is left after the last layer is a new position, with its own price and time."""
        state = InventoryState()
        apply(state, BID, 5_000, 1_000, ts=1)

        apply(state, ASK, 5_200, 1_700, ts=9)

        assert state.net == -700
        assert [(x.count, x.price, x.ts) for x in state.layers] == [(700, 5_200, 9)]

    def test_fee_is_booked_once_and_allotted_pro_rata(self) -> None:
        """A closing fee over two layers and a remainder is split by quantity, and sums to what was charged."""
        state = InventoryState()
        apply(state, BID, 5_000, 1_000, fee=100)
        apply(state, BID, 5_000, 1_000, fee=50)

        parts = apply(state, ASK, 5_000, 3_000, fee=300)

        assert [p.fee for p in parts] == [100 + 100, 50 + 100]
        assert (state.fees, state.open_fees) == (450, 100)
        assert state.realized_net == -450

    @pytest.mark.parametrize("value, gross", [(DOLLAR, 4_000_000), (0, -6_000_000), (3_700, -2_300_000)])
    def test_settles_at_any_value(self, value: int, gross: int) -> None:
        """Everything is closed at the settlement value; counts of fills stay as they are."""
        state = InventoryState()
        apply(state, BID, 6_000, 1_000)

        state.settle(Price(value), Micros(5))

        assert (state.realized_gross, state.net, state.sold) == (gross, 0, 0)

    @pytest.mark.parametrize("price, count", [(-1, 100), (10_001, 100), (5_000, 0), (5_000, -100)])
    def test_refuses_what_cannot_be(self, price: int, count: int) -> None:
        """An impossible fill is a bug upstream, not something to book."""
        with pytest.raises(InvariantError):
            apply(InventoryState(), BID, price, count)


class TestMeasures:
    def test_mae_counts_the_wrong_side_only(self) -> None:
        """Below the entry when long, above it when short, nothing when flat."""
        long, short = InventoryState(), InventoryState()
        apply(long, BID, 5_000, 1_000)
        apply(short, ASK, 5_000, 1_000)

        assert (long.mae(Price(4_200)), long.mae(Price(5_800))) == (800, 0)
        assert (short.mae(Price(4_200)), short.mae(Price(5_800))) == (0, 800)
        assert InventoryState().mae(Price(1)) == 0

    def test_duration_weighted_exposure(self) -> None:
        """10 contracts for 50 minutes, or 50 for 10, are 500 contract-minutes."""
        for count, minutes in [(1_000, 50), (5_000, 10)]:
            state = InventoryState()
            apply(state, ASK, 5_000, count, ts=7)

            assert state.duration_weighted_exposure(Micros(7 + minutes * MINUTE)) == 500 * CONTRACT_MINUTE
            assert state.time_of_exposure(500 * CONTRACT_MINUTE) == 7 + minutes * MINUTE

    @given(fills, st.integers(1, 10**13))
    def test_the_deadline_is_the_first_microsecond(
        self, rows: list[tuple[Side, int, int, int, int]], limit: int
    ) -> None:
        """`time_of_exposure` is the first time at which the exposure holds, one microsecond before it does not."""
        state = InventoryState()
        for side, price, count, ts, fee in rows:
            apply(state, side, price, count, ts, fee)

        at = state.time_of_exposure(limit)

        if at is None:
            assert state.is_flat
        else:
            assert state.duration_weighted_exposure(at) >= limit
            assert state.duration_weighted_exposure(Micros(at - 1)) < limit

    def test_at_risk_is_each_layers_own(self) -> None:
        """A long layer risks its price, a short one the rest of the dollar, the other side nothing."""
        long, short = InventoryState(), InventoryState()
        apply(long, BID, 3_000, 1_000)
        apply(short, ASK, 3_000, 1_000)

        assert (long.at_risk(BID), long.at_risk(ASK)) == (3_000_000, 0)
        assert (short.at_risk(BID), short.at_risk(ASK)) == (0, 7_000_000)


class TestProperties:
    @given(fills, st.integers(1, 9_999))
    def test_realized_and_unrealized_are_cash_and_marked_position(
        self, rows: list[tuple[Side, int, int, int, int]], mark: int
    ) -> None:
        """Exactly: no rounding hides anywhere. Nor in the sums kept beside the layers."""
        state, cash, net = InventoryState(), 0, 0
        for side, price, count, ts, fee in rows:
            apply(state, side, price, count, ts, fee)
            cash -= side.sign * price * count + fee
            net += side.sign * count

        assert state.net == net
        assert state.marked_pnl(Price(mark)) == cash + net * mark
        assert sum(x.count for x in state.layers) == state.size
        assert state.duration_weighted_exposure(Micros(99)) == sum(
            x.count * (99 - x.ts) for x in state.layers
        )
        if state.vwap_entry is not None:
            assert state.vwap_entry == Fraction(sum(x.count * x.price for x in state.layers), state.size)
            assert state.mae_value(Price(mark)) == state.size * state.mae(Price(mark))

    @given(fills)
    def test_fees_of_parts_and_layers_are_the_fees_charged(
        self, rows: list[tuple[Side, int, int, int, int]]
    ) -> None:
        """Pro rata shares lose and invent nothing."""
        state, parts = InventoryState(), []
        for side, price, count, ts, fee in rows:
            parts += apply(state, side, price, count, ts, fee)

        assert sum(p.fee for p in parts) + state.open_fees == state.fees
        assert sum(p.gross for p in parts) == state.realized_gross

    @given(fills)
    def test_yes_and_no_are_mirrors(self, rows: list[tuple[Side, int, int, int, int]]) -> None:
        """Every fill mirrored (other side, 1 - price): the same results, the opposite position."""
        state, mirror = InventoryState(), InventoryState()
        for side, price, count, ts, fee in rows:
            apply(state, side, price, count, ts, fee)
            apply(mirror, side.opposite, DOLLAR - price, count, ts, fee)

        assert mirror.net == -state.net
        assert (mirror.realized_gross, mirror.fees) == (state.realized_gross, state.fees)
        assert mirror.mae(Price(DOLLAR - 4_321)) == state.mae(Price(4_321))
        assert (mirror.at_risk(ASK), mirror.at_risk(BID)) == (state.at_risk(BID), state.at_risk(ASK))

    @given(fills, st.randoms(use_true_random=False), st.integers(1, 40))
    def test_any_order_of_arrival_gives_the_same_state(
        self, rows: list[tuple[Side, int, int, int, int]], random: object, keep: int
    ) -> None:
        """Late fills are put in their place, duplicates change nothing; too late is said, and a rebuild agrees."""
        ordered = sorted(
            (
                make_fill(i, side, price, count, ts, fee)
                for i, (side, price, count, ts, fee) in enumerate(rows)
            ),
            key=fill_order,
        )
        expected = InventoryState()
        for one in ordered:
            expected.apply_fill(one)
        arrived = list(ordered)
        random.shuffle(arrived)  # type: ignore[attr-defined]
        history = InventoryHistory(keep)
        known: list[Fill] = []

        for one in [*arrived, *arrived[-1:]]:
            try:
                history.add(one)
            except HistoryTooShort:
                history = InventoryHistory.from_fills(
                    {fill_order(f): f for f in [*known, one]}.values(), keep
                )
            known.append(one)

        assert totals(history.state) == totals(expected)
        assert totals(InventoryState.from_fills(arrived)) == totals(expected)
        assert len(history.recent) < 2 * keep


class TestHistory:
    def test_the_same_fill_twice_is_one_fill(self) -> None:
        """From the socket and from the poll: booked once."""
        history = InventoryHistory()
        one = make_fill(1, BID, 5_000, 1_000, ts=5)

        assert (history.add(one), history.add(one)) == (True, False)
        assert history.state.net == 1_000

    def test_too_late_for_memory_changes_nothing(self) -> None:
        """A fill older than the checkpoint is refused whole; the caller rebuilds from the ledger."""
        history = InventoryHistory(keep=1)
        for i in range(4):
            history.add(make_fill(i, BID, 5_000, 100, ts=10 + i))
        before = totals(history.state)

        with pytest.raises(HistoryTooShort):
            history.add(make_fill(9, ASK, 5_000, 100, ts=1))

        assert totals(history.state) == before

    def test_no_fill_after_settlement(self) -> None:
        """A settled market cannot trade."""
        history = InventoryHistory()
        history.add(make_fill(1, BID, 5_000, 1_000, ts=5))
        history.settle(DOLLAR, Micros(9))

        with pytest.raises(InvariantError):
            history.add(make_fill(2, BID, 5_000, 1_000, ts=10))

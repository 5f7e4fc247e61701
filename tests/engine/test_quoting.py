"""Wanted quotes: state table, skew, rounding away from the mid, clamp to the touch, room."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mm.domain.grid import PriceBand, tick_grid, uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.numbers import CENT, CONTRACT, DOLLAR, Count, Micros, Money, Price
from mm.domain.order import Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters, build_parameters
from mm.engine.quoting import (
    QUOTED_SIDES,
    PositionState,
    may_quote,
    position_state,
    room,
    wanted_price,
    wanted_quotes,
)

BID, ASK = Side.BID, Side.ASK
DEFAULTS = StrategyParameters()
CENTS = uniform_grid(CENT)
TAPERED = tick_grid(
    [
        PriceBand(Price(0), Price(1_000), Price(10)),
        PriceBand(Price(1_000), Price(9_000), Price(100)),
        PriceBand(Price(9_000), DOLLAR, Price(10)),
    ]
)
FAR = Touch(Price(100), Price(9_900))
"""A touch that clamps nothing in the middle."""


def held(contracts: int, price: int = 5_000) -> InventoryState:
    """A signed position of whole contracts."""
    state = InventoryState()
    if contracts:
        side = BID if contracts > 0 else ASK
        state.apply(side, Price(price), Count(abs(contracts) * 100), Money(0), Micros(0))
    return state


class TestStateTable:
    @pytest.mark.parametrize(
        "net, state",
        [(0, "neutral"), (19.99, "neutral"), (-19.99, "neutral"), (20, "long"), (50, "long"), (-20, "short")],
    )
    def test_the_zones_edge_belongs_to_the_position(self, net: float, state: str) -> None:
        """abs(net) < 20 is neutral; 20 itself is long or short."""
        assert position_state(Count(round(net * 100)), DEFAULTS) is PositionState(state)

    def test_outside_the_zone_only_the_exit_is_quoted(self) -> None:
        """Long: ask only. Short: bid only."""
        sides = {
            net: [q.side for q in (quotes.bid, quotes.ask) if q]
            for net in (0, 20, -20)
            for quotes in [wanted_quotes(held(net), Price(5_000), FAR, CENTS, DEFAULTS)]
        }

        assert sides == {0: [BID, ASK], 20: [ASK], -20: [BID]}

    @pytest.mark.parametrize("net, want", [(0, 5_100), (19, 5_100), (20, 5_120), (50, 5_150)])
    def test_the_exit_leans_out_with_inventory(self, net: int, want: int) -> None:
        """s * (1 + net/C) from the zone's edge on, and its mirror."""
        ask = wanted_quotes(held(net), Price(5_000), FAR, CENTS, DEFAULTS).ask
        bid = wanted_quotes(held(-net), Price(5_000), FAR, CENTS, DEFAULTS).bid

        assert ask is not None
        assert bid is not None
        assert (ask.want, bid.want) == (want, 10_000 - want)

    def test_the_neutral_zone_follows_the_size(self) -> None:
        """Twice SIZE_PER_FILL unless it is set."""
        assert build_parameters({"SIZE_PER_FILL": "5"}).neutral_zone == 1_000
        assert build_parameters({"SIZE_PER_FILL": "5", "NEUTRAL_ZONE_CONTRACTS": "20"}).neutral_zone == 2_000


class TestPrice:
    def test_rounds_away_from_the_mid(self) -> None:
        """Bid down, ask up, never into the spread; the exact price is kept beside."""
        quotes = wanted_quotes(held(0), Price(4_970), FAR, CENTS, DEFAULTS)

        assert quotes.bid is not None
        assert quotes.ask is not None
        assert (quotes.bid.want, quotes.bid.price) == (4_870, 4_800)
        assert (quotes.ask.want, quotes.ask.price) == (5_070, 5_100)

    def test_one_tick_from_the_touch_it_would_reach(self) -> None:
        """The book has moved beyond the mark: never at or through the other side."""
        touch = Touch(Price(4_000), Price(4_100))

        bid = wanted_price(BID, Price(5_000), Count(0), touch, CENTS, DEFAULTS)
        ask = wanted_price(ASK, Price(3_000), Count(0), touch, CENTS, DEFAULTS)

        assert (bid, ask) == ((4_000, 4_000), (4_100, 4_100))

    def test_uses_the_markets_own_grid(self) -> None:
        """Fine ticks near the edges, cents between."""
        assert wanted_price(BID, Price(815), Count(0), FAR, TAPERED, DEFAULTS) == (715, 710)
        assert wanted_price(ASK, Price(915), Count(0), FAR, TAPERED, DEFAULTS) == (1_015, 1_100)
        touch = Touch(Price(900), Price(1_000))
        assert wanted_price(BID, Price(5_000), Count(0), touch, TAPERED, DEFAULTS) == (990, 990)

    @pytest.mark.parametrize("side, mark", [(BID, 150), (ASK, 9_850)])
    def test_no_quote_off_the_grid(self, side: Side, mark: int) -> None:
        """Below the lowest or above the highest price there is no quote."""
        assert wanted_price(side, Price(mark), Count(0), Touch(None, None), CENTS, DEFAULTS) is None

    def test_a_tick_wider_under_the_brake(self) -> None:
        """Both the exact and the rounded price move one tick out."""
        assert wanted_price(BID, Price(4_970), Count(0), FAR, CENTS, DEFAULTS, extra_ticks=1) == (
            4_770,
            4_700,
        )
        assert wanted_price(ASK, Price(4_970), Count(0), FAR, CENTS, DEFAULTS, extra_ticks=1) == (
            5_170,
            5_200,
        )

    @given(
        st.integers(1, 9_999),
        st.integers(-60, 60),
        st.integers(1, 98),
        st.integers(1, 98),
        st.sampled_from([CENTS, TAPERED, uniform_grid(Price(10))]),
    )
    def test_never_inside_the_half_spread_nor_through_the_touch_and_mirrored(
        self, mark: int, net: int, a: int, b: int, grid: object
    ) -> None:
        """On any grid: valid, at least s from the mark, short of the touch; and NO sees the same as YES."""
        assume(a != b)
        touch = Touch(Price(min(a, b) * 100), Price(max(a, b) * 100))
        mirror = Touch(Price(DOLLAR - touch.best_ask), Price(DOLLAR - touch.best_bid))  # type: ignore[operator]
        quotes = wanted_quotes(held(net), Price(mark), touch, grid, DEFAULTS)  # type: ignore[arg-type]
        mirrored = wanted_quotes(held(-net), Price(DOLLAR - mark), mirror, grid, DEFAULTS)  # type: ignore[arg-type]

        for side, quote in [(BID, quotes.bid), (ASK, quotes.ask)]:
            other = mirrored.of(side.opposite)
            assert (quote is None) == (other is None)
            if quote is None or other is None:
                continue
            assert grid.is_valid(quote.price)  # type: ignore[attr-defined]
            assert (mark - quote.price) * side.sign >= DEFAULTS.base_spread
            assert (quote.want - quote.price) * side.sign >= 0
            limit = touch.best_ask if side is BID else touch.best_bid
            assert (limit - quote.price) * side.sign > 0  # type: ignore[operator]
            assert (other.price, other.want, other.count) == (
                DOLLAR - quote.price,
                DOLLAR - quote.want,
                quote.count,
            )


class TestRoom:
    def test_defaults_never_bind(self) -> None:
        """At any state that quotes, ten contracts fit."""
        for net in range(-19, 20):
            for side in Side:
                assert room(side, Price(9_900 if side is BID else 100), held(net), DEFAULTS) == 1_000

    def test_position_limit(self) -> None:
        """What is left up to MAX_INVENTORY_PER_MARKET, whole contracts; the other way it grows."""
        tight = build_parameters({"MAX_INVENTORY_PER_MARKET": "33", "SIZE_PER_FILL": "50"})

        assert room(BID, Price(5_000), held(30), tight) == 300
        assert room(ASK, Price(5_000), held(30), tight) == 5_000
        assert room(ASK, Price(5_000), held(-40), tight) == -700

    def test_value_limit_when_adding(self) -> None:
        """(7.50 - 10 * 0.50) / 0.60 = 4.17: four contracts; an ask risks the rest of the dollar."""
        tight = build_parameters({"MAX_INVENTORY_VALUE": "7.5"})

        assert room(BID, Price(6_000), held(10, 5_000), tight) == 400
        assert room(ASK, Price(4_000), held(-10, 5_000), tight) == 400

    def test_value_limit_when_turning_over(self) -> None:
        """What closes risks nothing: 10 + 7.50 / 0.90 = 18.3."""
        tight = build_parameters({"MAX_INVENTORY_VALUE": "7.5", "SIZE_PER_FILL": "50"})

        assert room(BID, Price(9_000), held(-10), tight) == 1_800

    def test_orders_that_may_still_fill_count_as_filled(self) -> None:
        """Position: 33 - 10 - 8. Value: 20 - 10 * 0.50 - 8 * 0.80 leaves 8.60, 14 contracts at 0.60."""
        by_count = build_parameters({"MAX_INVENTORY_PER_MARKET": "33", "SIZE_PER_FILL": "50"})
        by_value = build_parameters({"MAX_INVENTORY_VALUE": "20", "SIZE_PER_FILL": "50"})
        pending = [(Price(8_000), Count(800))]

        assert room(BID, Price(6_000), held(10), by_count, pending) == 1_500
        assert room(BID, Price(6_000), held(10), by_value, pending) == 1_400

    def test_orders_that_close_first_leave_no_closing_to_the_new_one(self) -> None:
        """Short 10 with 12 pending at 0.80: 2 of them open, at 1.60; (20 - 1.60) / 0.60 = 30.6."""
        by_value = build_parameters({"MAX_INVENTORY_VALUE": "20", "SIZE_PER_FILL": "50"})

        assert room(BID, Price(6_000), held(-10), by_value, [(Price(8_000), Count(1_200))]) == 3_000

    def test_no_quote_below_one_contract(self) -> None:
        """Less than one whole contract of room is no room."""
        tight = build_parameters({"MAX_INVENTORY_PER_MARKET": "10.5", "NEUTRAL_ZONE_CONTRACTS": "100"})

        quotes = wanted_quotes(held(10), Price(5_000), FAR, CENTS, tight)

        assert quotes.bid is None
        assert quotes.ask is not None

    def test_limits_over_all_markets_cap_the_size(self) -> None:
        """The smaller of both; nothing left is no quote."""
        quotes = wanted_quotes(
            held(0),
            Price(5_000),
            FAR,
            CENTS,
            DEFAULTS,
            market_room=lambda side, price: Count({BID: 370, ASK: 99}[side]),
        )

        assert quotes.bid is not None
        assert (quotes.bid.count, quotes.ask) == (300, None)

    @given(
        st.integers(-30, 30),
        st.integers(1, 99),
        st.lists(st.tuples(st.sampled_from(Side), st.integers(1, 99), st.integers(1, 1_500)), max_size=3),
        st.integers(2, 98),
        st.permutations(range(5)),
        st.lists(st.sampled_from([0, 37, 100, 100]), min_size=5, max_size=5),
    )
    def test_no_subset_of_fills_exceeds_a_limit(
        self,
        net: int,
        entry: int,
        pending: list[tuple[Side, int, int]],
        mark: int,
        order: list[int],
        percent: list[int],
    ) -> None:
        """Both quotes and whatever else may fill, each in any part and in any order: the limits hold throughout."""
        tight = build_parameters(
            {
                "MAX_INVENTORY_PER_MARKET": "35",
                "MAX_INVENTORY_VALUE": "20",
                "SIZE_PER_FILL": "30",
                "NEUTRAL_ZONE_CONTRACTS": "100",
            }
        )
        inventory = held(net, entry * 100)
        extra = [(side, Price(cents * 100), Count(count)) for side, cents, count in pending]
        quotes = wanted_quotes(inventory, Price(mark * 100), Touch(None, None), CENTS, tight, pending=extra)
        working = list(extra)
        # Only what keeps the limits by itself is a fair start: room answers for what it adds.
        assume(all(_worst(side, inventory, working, tight) for side in Side))
        working += [(q.side, q.price, q.count) for q in (quotes.bid, quotes.ask) if q]

        for i in order:
            if i < len(working):
                side, price, count = working[i]
                part = count * percent[i] // 100
                if part:
                    inventory.apply(side, price, Count(part), Money(0), Micros(i))
            assert abs(inventory.net) <= tight.max_inventory_per_market
            assert inventory.at_risk(BID) <= tight.max_inventory_value
            assert inventory.at_risk(ASK) <= tight.max_inventory_value


def _worst(
    side: Side,
    inventory: InventoryState,
    working: list[tuple[Side, Price, Count]],
    parameters: StrategyParameters,
) -> bool:
    """Whether the orders of one side alone, the riskiest opening last, stay within both limits."""
    state = inventory.copy()
    same = sorted((o for o in working if o[0] is side), key=lambda o: o[1] * side.sign)
    for _, price, count in same:
        state.apply(side, price, count, Money(0), Micros(0))
    return (
        abs(state.net) <= parameters.max_inventory_per_market
        and state.at_risk(side) <= parameters.max_inventory_value
        and inventory.at_risk(side.opposite) <= parameters.max_inventory_value
        and abs(inventory.net) <= parameters.max_inventory_per_market
    )


class TestMayQuote:
    @pytest.mark.parametrize(
        "touch, why",
        [
            (Touch(None, None), "book is empty"),
            (Touch(Price(5_000), Price(5_000)), "book is crossed"),
            (Touch(Price(5_100), Price(5_000)), "book is crossed"),
            (Touch(Price(4_000), Price(4_400)), None),
            (Touch(None, Price(4_400)), None),
        ],
    )
    def test_books_that_are_not_quoted(self, touch: Touch, why: str | None) -> None:
        """Empty or crossed."""
        assert may_quote(touch, DEFAULTS) == why

    def test_wide_books_when_a_limit_is_set(self) -> None:
        """Wider than MAX_QUOTED_SPREAD, exactly; a one-sided book is wider than anything."""
        limited = build_parameters({"MAX_QUOTED_SPREAD": "0.04"})

        assert may_quote(Touch(Price(4_000), Price(4_400)), limited) is None
        assert may_quote(Touch(Price(4_000), Price(4_401)), limited) is not None
        assert may_quote(Touch(Price(4_000), None), limited) is not None


def test_sizes_are_whole_contracts_and_prices_exact() -> None:
    """A skew that does not divide evenly stays a fraction."""
    odd = build_parameters({"SIZE_CAP": "7", "NEUTRAL_ZONE_CONTRACTS": "3"})

    ask = wanted_quotes(held(3), Price(5_000), FAR, CENTS, odd).ask

    assert ask is not None
    assert ask.want == 5_000 + Fraction(1_000, 7)
    assert ask.count % CONTRACT == 0
    assert QUOTED_SIDES[PositionState.LONG] == (ASK,)

"""The fee model: every vector of the venue's fee rounding, and the properties that the rounding promises."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.fees import (
    PRECISION_DIRECT,
    PRECISION_INTERMEDIATED,
    FeeAccumulator,
    FeeSchedule,
    FeeType,
)
from mm.domain.fill import Liquidity
from mm.domain.numbers import Count, Money, Price, parse_count, parse_money, parse_price
from mm.domain.order import Side

MAKER, TAKER = Liquidity.MAKER, Liquidity.TAKER
WITH_MAKER = FeeSchedule(FeeType.QUADRATIC_WITH_MAKER_FEES)


@pytest.mark.parametrize(
    ("liquidity", "count", "price", "precision", "trade", "rounding", "fees"),
    [
        (TAKER, "1", "0.52", PRECISION_DIRECT, "0.017472", "0.000028", ["0.0175"]),
        (TAKER, "1", "0.99", PRECISION_DIRECT, "0.000693", "0.000007", ["0.0007"]),
        (TAKER, "7", "0.613", PRECISION_DIRECT, "0.116244", "0.000056", ["0.1163"]),
        (MAKER, "10", "0.37", PRECISION_DIRECT, "0.040793", "0.000007", ["0.0408"]),
        (MAKER, "0.30", "0.40", PRECISION_DIRECT, "0.00126", "0.00004", ["0.0013", "0.0013", "0.0012"]),
        (TAKER, "100", "0.50", PRECISION_INTERMEDIATED, "1.75", "0", ["1.75"]),
        (TAKER, "1", "0.055", PRECISION_INTERMEDIATED, "0.003639", "0.001361", ["0.005"] * 3),
    ],
)
def test_documented_vectors(liquidity, count, price, precision, trade, rounding, fees):
    """The table of section 4.6, each row as the fills of one order."""
    accumulator = FeeAccumulator(precision)
    parts = [
        accumulator.charge(WITH_MAKER, Side.BID, parse_price(price), parse_count(count), liquidity)
        for _ in fees
    ]
    assert {part.trade_fee for part in parts} == {parse_money(trade)}
    assert {part.rounding_fee for part in parts} == {parse_money(rounding)}
    assert [part.charged for part in parts] == [parse_money(fee) for fee in fees]


@pytest.mark.parametrize("price", ["0.52", "0.99", "0.37", "0.613", "0.05"])
def test_a_seller_pays_the_buyers_fee(price):
    """P * (1 - P) is symmetric, and a seller of YES at P is a buyer of NO at 1 - P: no side is dearer."""
    charges = {
        FeeAccumulator().charge(WITH_MAKER, side, parse_price(level), parse_count("7"), TAKER).charged
        for side in Side
        for level in (price, str(1 - Decimal(price)))
    }
    assert len(charges) == 1


def test_no_maker_fee_costs_nothing():
    """A maker in a series without maker fees pays 0, at either precision."""
    for precision in (PRECISION_DIRECT, PRECISION_INTERMEDIATED):
        fee = FeeAccumulator(precision).charge(
            FeeSchedule(FeeType.QUADRATIC), Side.BID, parse_price("0.30"), parse_count("5"), MAKER
        )
        assert fee.charged == 0


def test_published_table_with_cent_rounding():
    """100 @ 0.50: taker 1.75, maker 0.44; 1 @ 0.50: taker 0.02 once the cent rounding is added."""
    half = parse_price("0.50")
    assert FeeAccumulator(PRECISION_INTERMEDIATED).charge(
        WITH_MAKER, Side.BID, half, parse_count("100"), MAKER
    ).charged == parse_money("0.44")
    assert FeeAccumulator(PRECISION_INTERMEDIATED).charge(
        WITH_MAKER, Side.BID, half, parse_count("1"), TAKER
    ).charged == parse_money("0.02")


def test_multiplier_is_a_factor_and_combo_makers_pay_double():
    """M = 0.5 halves the fee, 0 removes it; combo makers pay 0.035."""
    price, count = parse_price("0.50"), parse_count("100")
    half = FeeSchedule(FeeType.QUADRATIC, Fraction(1, 2))
    assert half.trade_fee(price, count, TAKER) == parse_money("0.875")
    assert FeeSchedule(FeeType.QUADRATIC, Fraction(0)).trade_fee(price, count, TAKER) == 0
    combo = FeeSchedule(FeeType.QUADRATIC_WITH_COMBO_MAKER_FEES)
    assert combo.trade_fee(price, count, MAKER) == parse_money("0.875")


def test_flat_fees_are_refused():
    """Nobody knows the rates of `flat`: asking for them is an error, not a guess."""
    with pytest.raises(ValueError, match="flat"):
        FeeSchedule(FeeType.FLAT).rate(TAKER)


@given(
    fills=st.lists(st.tuples(st.integers(1, 9_999), st.integers(1, 5_000), st.booleans()), max_size=30),
    precision=st.sampled_from([PRECISION_DIRECT, PRECISION_INTERMEDIATED]),
    side=st.sampled_from(list(Side)),
)
def test_balance_stays_on_its_precision_and_rounding_is_given_back(fills, precision, side):
    """Whatever the fills: no negative fee, cash moves by whole units, and what was kept back is what is held."""
    accumulator = FeeAccumulator(Money(precision))
    charged = model = 0
    for price, count, is_taker in fills:
        liquidity = TAKER if is_taker else MAKER
        fee = accumulator.charge(WITH_MAKER, side, Price(price), Count(count), liquidity)
        leg = price if side is Side.BID else 10_000 - price
        assert fee.charged >= 0
        assert (leg * count + fee.charged) % precision == 0
        charged += fee.charged
        model += fee.trade_fee
    assert charged == model + accumulator.held
    assert accumulator.held >= 0

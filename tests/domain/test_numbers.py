"""Exact numbers: text to integer and back, and the roundings."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.numbers import (
    Count,
    Price,
    ceil_div,
    complement,
    format_count,
    format_decimal,
    format_money,
    format_price,
    notional,
    parse_count,
    parse_decimal,
    parse_money,
    parse_price,
    price_as_money,
    round_half_up_div,
    whole_contracts,
)


@given(value=st.integers(-(10**18), 10**18), places=st.integers(1, 8))
def test_what_is_written_is_read_back(value: int, places: int) -> None:
    """Any integer in any unit survives the way to the wire and back, sign included."""
    text = format_decimal(value, places)

    assert parse_decimal(text, places) == value
    assert len(text.partition(".")[2]) == places


@given(
    whole=st.integers(0, 10**9),
    fraction=st.text("0123456789", max_size=6),
    sign=st.sampled_from(["", "-", "+"]),
    zeros=st.integers(0, 8),
)
def test_reading_is_exact_whatever_the_number_of_decimals(
    whole: int, fraction: str, sign: str, zeros: int
) -> None:
    """Short, long, with trailing zeros: the same number as arithmetic says."""
    text = f"{sign}{whole}.{fraction}{'0' * zeros}"
    expected = Fraction(whole) + (Fraction(int(fraction), 10 ** len(fraction)) if fraction else 0)

    assert Fraction(parse_decimal(text, 6), 10**6) == (-expected if sign == "-" else expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5200", 5_200),
        (".52", 5_200),
        ("1", 10_000),
        ("1.", 10_000),
        ("0.52000000", 5_200),
        ("-0.01", -100),
    ],
)
def test_spellings_of_a_price(text: str, value: int) -> None:
    """As various venues and people write them."""
    assert parse_price(text) == value


@pytest.mark.parametrize(
    "text", ["", ".", "-", "+.", " 1", "1 ", "1e2", "1,5", "0x1", "nan", "inf", "1.2.3", "--1", "١", "1_000"]
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="not a decimal number"):
        parse_decimal(text, 4)


@pytest.mark.parametrize(
    ("read", "text"), [(parse_price, "0.00001"), (parse_count, "0.001"), (parse_money, "0.0000001")]
)
def test_finer_than_the_unit_is_refused_and_not_rounded(read: object, text: str) -> None:
    """A digit that cannot be held is an error."""
    with pytest.raises(ValueError, match="decimals"):
        read(text)  # type: ignore[operator]


def test_zero_has_no_sign() -> None:
    """Not even when it was written with one."""
    assert format_decimal(parse_decimal("-0.0", 4), 4) == "0.0000"


@given(price=st.integers(0, 10_000))
def test_the_other_outcome_of_the_other_outcome_is_the_first(price: int) -> None:
    """YES p is NO 1 - p, both ways."""
    assert complement(complement(Price(price))) == price
    assert parse_price(format_price(complement(Price(price)))) == 10_000 - price


@given(price=st.integers(0, 10_000), count=st.integers(0, 10**9))
def test_price_times_count_is_exact_money(price: int, count: int) -> None:
    """No rounding between the three units."""
    money = notional(Price(price), Count(count))

    assert Fraction(money, 10**6) == Fraction(price, 10**4) * Fraction(count, 100)
    assert parse_money(format_money(money)) == money
    assert price_as_money(Price(price)) == notional(Price(price), Count(100))


@given(count=st.integers(0, 10**9))
def test_whole_contracts(count: int) -> None:
    """Never more, and less than one contract less."""
    whole = whole_contracts(Count(count))

    assert whole % 100 == 0
    assert 0 <= count - whole < 100
    assert parse_count(format_count(Count(count))) == count


@given(numerator=st.integers(-(10**15), 10**15), denominator=st.integers(1, 10**6))
def test_roundings(numerator: int, denominator: int) -> None:
    """Up is the least integer not below; half up is the nearest, and of two nearest the upper."""
    exact = Fraction(numerator, denominator)
    up, nearest = ceil_div(numerator, denominator), round_half_up_div(numerator, denominator)

    assert up - 1 < exact <= up
    assert nearest - Fraction(1, 2) <= exact < nearest + Fraction(1, 2)

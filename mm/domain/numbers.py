"""Exact numbers. Integers inside, decimal strings on the wire, never a binary float.

| type    | unit                     | wire                |
|---------|--------------------------|---------------------|
| `Price` | 1/10,000 dollar          | `"0.5200"`          |
| `Count` | 1/100 contract           | `"10.00"`           |
| `Money` | 1/1,000,000 dollar       | `"0.017500"`        |

`price * count` is an exact `Money`. The three are distinct to the type checker and plain `int` at run time,
so arithmetic costs nothing; a result that is a quantity again is wrapped where it is made.
"""

import re
from typing import Final, NewType

Price = NewType("Price", int)
Count = NewType("Count", int)
Money = NewType("Money", int)

Micros = NewType("Micros", int)
"""A point in time: microseconds since the Unix epoch, UTC."""

DOLLAR: Final = Price(10_000)
"""One dollar as a price: what a YES contract pays when it wins."""
CONTRACT: Final = Count(100)
"""One whole contract."""
DOLLAR_MONEY: Final = Money(1_000_000)
CENT: Final = Price(100)
SECOND: Final = 1_000_000
"""One second in `Micros`."""

_DECIMAL: Final = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?", re.ASCII)


def parse_decimal(text: str, places: int) -> int:
    """Read a decimal string exactly, as an integer of `10**-places`.

    Raises:
        ValueError: Not a plain decimal, or more digits than `places` can hold.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"not a decimal number: {text!r}")
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    if not whole and not fraction:
        raise ValueError(f"not a decimal number: {text!r}")
    if len(fraction) > places:
        if fraction[places:].strip("0"):
            raise ValueError(f"more than {places} decimals: {text!r}")
        fraction = fraction[:places]
    value = int((whole or "0") + fraction.ljust(places, "0"))
    return -value if sign == "-" else value


def format_decimal(value: int, places: int) -> str:
    """Write an integer of `10**-places` as a decimal string with exactly `places` decimals. Zero has no sign."""
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**places)
    return f"{sign}{whole}.{fraction:0{places}d}"


def parse_price(text: str) -> Price:
    """Dollars as a string to a `Price`. Raises `ValueError` when it is finer than 1/10,000 dollar."""
    return Price(parse_decimal(text, 4))


def format_price(price: Price) -> str:
    """A `Price` as the wire wants it: dollars, 4 decimals."""
    return format_decimal(price, 4)


def parse_count(text: str) -> Count:
    """Contracts as a string to a `Count`. Raises `ValueError` when it is finer than 0.01 contract."""
    return Count(parse_decimal(text, 2))


def format_count(count: Count) -> str:
    """A `Count` as the wire wants it: contracts, 2 decimals."""
    return format_decimal(count, 2)


def parse_money(text: str) -> Money:
    """Dollars as a string to `Money`. Raises `ValueError` when it is finer than 1/1,000,000 dollar."""
    return Money(parse_decimal(text, 6))


def format_money(money: Money) -> str:
    """`Money` as dollars with 6 decimals."""
    return format_decimal(money, 6)


def complement(price: Price) -> Price:
    """The same level seen from the other outcome: a NO price as a YES price and back."""
    return Price(DOLLAR - price)


def notional(price: Price, count: Count) -> Money:
    """What `count` contracts cost at `price`, exactly."""
    return Money(price * count)


def price_as_money(price: Price) -> Money:
    """A price (per contract) in `Money` units."""
    return Money(price * 100)


def whole_contracts(count: Count) -> Count:
    """`count` without its fraction of a contract (rounded toward zero for positive counts)."""
    return Count(count // CONTRACT * CONTRACT)


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up; `denominator` > 0."""
    return -(-numerator // denominator)


def round_half_up_div(numerator: int, denominator: int) -> int:
    """Integer division rounded to the nearest integer, halves up; `denominator` > 0."""
    return (2 * numerator + denominator) // (2 * denominator)

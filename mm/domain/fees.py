"""The venue's fees: the quadratic model, its rounding, and the accumulator that an order carries.

Source: Kalshi's fee schedule and "fee rounding" page (the 6-decimal version of 2026). One fill of C contracts at
price P pays `k * C * P * (1 - P)`, rounded up to 1/1,000,000 dollar; the cash change of the fill is then floored to
the member's balance precision, and what the floor took is collected per order and given back when it reaches a
whole unit of that precision.
"""

import enum
from fractions import Fraction
from typing import Final

import attrs

from mm.domain.fill import Liquidity
from mm.domain.numbers import DOLLAR, Count, Money, Price, ceil_div
from mm.domain.order import Side

PRECISION_DIRECT: Final = Money(100)
"""Balance precision of a direct member: 0.0001 dollar."""
PRECISION_INTERMEDIATED: Final = Money(10_000)
"""Balance precision of a member behind a broker: 0.01 dollar."""


class FeeType(enum.Enum):
    """The series' fee model. `FLAT` is in no live use and not understood: do not quote it."""

    QUADRATIC = "quadratic"
    QUADRATIC_WITH_MAKER_FEES = "quadratic_with_maker_fees"
    QUADRATIC_WITH_COMBO_MAKER_FEES = "quadratic_with_combo_maker_fees"
    FLAT = "flat"


TAKER_RATE: Final = Fraction(7, 100)
MAKER_RATES: Final = {
    FeeType.QUADRATIC: Fraction(0),
    FeeType.QUADRATIC_WITH_MAKER_FEES: Fraction(175, 10_000),
    FeeType.QUADRATIC_WITH_COMBO_MAKER_FEES: Fraction(35, 1_000),
}


@attrs.frozen
class FeeSchedule:
    """Rates of one market: the series' type and multiplier with the event's overrides applied per field."""

    fee_type: FeeType = FeeType.QUADRATIC_WITH_MAKER_FEES
    multiplier: Fraction = Fraction(1)

    def rate(self, liquidity: Liquidity) -> Fraction:
        """k of the model fee. Raises `ValueError` for `FLAT`, which has no known rates."""
        if self.fee_type is FeeType.FLAT:
            raise ValueError("flat fees are not understood")
        if liquidity is Liquidity.TAKER:
            return TAKER_RATE * self.multiplier
        return MAKER_RATES[self.fee_type] * self.multiplier

    def trade_fee(self, price: Price, count: Count, liquidity: Liquidity) -> Money:
        """The model fee of one fill, rounded up to 1/1,000,000 dollar, before the balance rounding."""
        return model_fee(self.rate(liquidity), price, count, Money(1))


def model_fee(rate: Fraction, price: Price, count: Count, unit: Money) -> Money:
    """`rate * count * price * (1 - price)` rounded up to a multiple of `unit`.

    The product price * (1 - price) * count is in 1/10^10 dollar; `Money` is 1/10^6.
    """
    product = price * (DOLLAR - price) * count
    return Money(ceil_div(product * rate.numerator, rate.denominator * 10_000 * unit) * unit)


@attrs.frozen
class FeeBreakdown:
    """The parts of one fill's fee; `charged` is what leaves the account."""

    trade_fee: Money
    rounding_fee: Money
    rebate: Money

    @property
    def charged(self) -> Money:
        """trade + rounding - rebate, never negative."""
        return Money(self.trade_fee + self.rounding_fee - self.rebate)


@attrs.define(eq=False)
class FeeAccumulator:
    """The rounding account of one order, over all its fills, taker or maker."""

    precision: Money = PRECISION_DIRECT
    held: Money = Money(0)
    """Rounding collected and not yet given back."""

    def charge(
        self, schedule: FeeSchedule, side: Side, price: Price, count: Count, liquidity: Liquidity
    ) -> FeeBreakdown:
        """The fee of the order's next fill, at YES price `price`; moves the accumulator."""
        trade_fee = schedule.trade_fee(price, count, liquidity)
        # A buyer of YES pays P, a buyer of NO (our ask) pays 1 - P; a model of "own leg's price". Whether the fill
        # closes a position and is credited instead changes the revenue's sign, not its remainder modulo precision
        # when 1 dollar * count is a multiple of it; the venue is asked for the truth (fee_cost) in any case.
        own_leg = price if side is Side.BID else DOLLAR - price
        change = -own_leg * count - trade_fee
        floored = change // self.precision * self.precision
        rounding_fee = change - floored
        self.held = Money(self.held + rounding_fee)
        rebate = min(self.held, trade_fee + rounding_fee) // self.precision * self.precision
        self.held = Money(self.held - rebate)
        return FeeBreakdown(trade_fee, Money(rounding_fee), Money(rebate))

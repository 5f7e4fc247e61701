"""The mark: an exact exponential average of public prints, held within the touch where there is a book.

No float decides a tick: the average is kept in 1/1,000,000 dollar and rounded half up at each step.
"""

from bisect import insort
from fractions import Fraction
from typing import Final

import attrs

from mm.domain.fill import Trade
from mm.domain.numbers import Price, price_as_money, round_half_up_div
from mm.domain.order import Side

MID_EMA_ALPHA: Final = Fraction(3, 10)

SweepKey = tuple[int, int, int, str]


def sweep_order(trade: Trade) -> SweepKey:
    """Sort key of public prints: as the takers ate the book.

    Time; a selling taker before a buying one; price falling for the seller, rising for the buyer; trade id.
    """
    if trade.taker_side is Side.ASK:
        return (trade.ts, 0, -trade.price, trade.trade_id)
    return (trade.ts, 1, trade.price, trade.trade_id)


@attrs.frozen
class Touch:
    """The best prices of a market; None where a side is empty."""

    best_bid: Price | None
    best_ask: Price | None

    @property
    def is_crossed(self) -> bool:
        """Best bid at or above best ask."""
        return self.best_bid is not None and self.best_ask is not None and self.best_bid >= self.best_ask


@attrs.define(eq=False)
class MidEma:
    """The average of one market.

    `feed` takes prints that are already in order. `on_trade` takes them as they arrive: those of one timestamp
    are put in the order of `sweep_order` and the average is recomputed from before that timestamp, so that the
    order of arrival decides nothing.
    """

    alpha: Fraction = MID_EMA_ALPHA
    value: int | None = None
    """1/1,000,000 dollar; None before the first print."""
    _base: int | None = None
    """The average before the prints of `_group`."""
    _group: list[tuple[SweepKey, Price]] = attrs.field(factory=list)
    """Prints of the newest timestamp, in order."""

    def feed(self, price: Price) -> None:
        """One print, in order. The first sets the average."""
        self.value = self._step(self.value, price)
        self._base = self.value
        self._group.clear()

    def on_trade(self, trade: Trade) -> bool:
        """One print as it arrived; returns False when it was left out (block trade, or seen in this timestamp).

        A print older than the newest timestamp is booked before that timestamp's.
        """
        if trade.is_block:
            return False
        key = sweep_order(trade)
        newest = self._group[0][0][0] if self._group else None
        if newest is None or trade.ts > newest:
            self._base = self.value
            self._group = [(key, trade.price)]
            self.value = self._step(self.value, trade.price)
            return True
        if trade.ts < newest:
            self._base = self._step(self._base, trade.price)
        elif any(known == key for known, _ in self._group):
            return False
        else:
            insort(self._group, (key, trade.price))
        self.value = self._base
        for _, price in self._group:
            self.value = self._step(self.value, price)
        return True

    def _step(self, value: int | None, price: Price) -> int:
        money = price_as_money(price)
        if value is None:
            return money
        part, whole = self.alpha.numerator, self.alpha.denominator
        return round_half_up_div(part * money + (whole - part) * value, whole)

    @property
    def mark(self) -> Price | None:
        """The average in 1/10,000 dollar, halves up; None before the first print."""
        return None if self.value is None else Price(round_half_up_div(self.value, 100))

    def live_mark(self, touch: Touch) -> Price | None:
        """The mark where there is a book: the average within the touch; before the first print the book's mid."""
        bid, ask = touch.best_bid, touch.best_ask
        mark = self.mark
        if mark is None:
            if bid is None or ask is None or touch.is_crossed:
                return None
            return Price(round_half_up_div(bid + ask, 2))
        if touch.is_crossed:
            return mark
        if bid is not None and mark < bid:
            return bid
        if ask is not None and mark > ask:
            return ask
        return mark

"""`avellaneda-stoikov`: the reservation price and spread of Avellaneda and Stoikov (2008), in log-odds.

A probability moves little near 0 and 1; its log-odds x = ln(p / (1 - p)) move alike everywhere. There, with position q
(in quotes), risk aversion g, variance s2 a second and t seconds to go:

    reservation  r = x - q * g * s2 * t
    half-spread  d = g * s2 * t / 2 + ln(1 + g / k) / g

and both quotes go back through p = 1 / (1 + exp(-x)). The variance comes from the mid's moves of 30 s. `t` is the time
to the end, `horizon` at most: what we hold, the flow takes off us long before the game is over.
"""

import math
from typing import ClassVar, Final

import attrs

from mm.domain.numbers import CONTRACT, DOLLAR, SECOND, Count, Micros, Price
from mm.domain.order import Side
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.blocks import break_even, keep_place, micro_price, place, reduces, variation
from mm.engine.strategies.signals import MOVE_SPAN_S
from mm.engine.strategies.view import Quote, View

QUIET_MOVE: Final = 50.0
"""The 30 s move assumed until one has been seen: half a cent."""


@attrs.frozen(kw_only=True)
class AvellanedaStoikov(Strategy):
    """Symmetric around a reservation price that leans against the position."""

    name: ClassVar[str] = "avellaneda-stoikov"
    looks_every: ClassVar[Micros | None] = Micros(5 * SECOND)
    risk_aversion: float = 1.0
    arrival_decay: float = 20.0
    """k: how fast fills get rarer with distance, per unit of log-odds."""
    horizon: Micros = Micros(600 * SECOND)
    size: Count = Count(10 * CONTRACT)
    cap: Count = Count(40 * CONTRACT)
    lowest: Price = Price(700)
    """Below it, and above one dollar less it, only the side that reduces is quoted."""
    jitter: Price = Price(0)
    """Quotes are moved by up to so much, differently each quarter of a minute."""

    def own_fair_value(self, view: View) -> Price | None:
        """The micro-price: the mid, leaning to the side with less behind it."""
        return micro_price(view)

    def quote(self, view: View) -> Quote:
        """Two quotes at the model's prices, at least the fee away from fair value; a place worth more is kept."""
        fair = view.fair_value
        if fair is None or not 0 < fair < DOLLAR:
            return Quote()
        half, lean = self._model(view, fair)
        centre = math.log(fair) - math.log(DOLLAR - fair) - lean
        least = break_even(fair, view.fees)
        is_extreme = not self.lowest <= fair <= DOLLAR - self.lowest
        moved = variation(view, self.jitter)
        found = {}
        for side in (Side.BID, Side.ASK):
            if is_extreme and not reduces(view, side):
                continue
            want = _price(centre - side.sign * half) + moved
            want = min(want, fair - least) if side is Side.BID else max(want, fair + least)
            found[side] = place(view, side, keep_place(view, side, want, fair), self.size, self.cap)
        return Quote(found.get(Side.BID), found.get(Side.ASK))

    def _model(self, view: View, fair: Price) -> tuple[float, float]:
        """Half-spread, and how far the reservation price is below fair value, both in log-odds."""
        rms = view.signals.moves.rms if view.signals is not None else None
        move = (QUIET_MOVE if rms is None else rms) * DOLLAR / (fair * (DOLLAR - fair))
        variance = move * move / MOVE_SPAN_S
        left = view.time_to_end
        seconds = (self.horizon if left is None else min(left, self.horizon)) / SECOND
        risk = self.risk_aversion * variance * seconds
        half = risk / 2 + math.log1p(self.risk_aversion / self.arrival_decay) / self.risk_aversion
        return half, view.net / self.size * risk


def _price(log_odds: float) -> int:
    """Log-odds as a price, in whole 1/10,000 dollar; symmetric around half a dollar."""
    return DOLLAR // 2 + round(DOLLAR // 2 * math.tanh(log_odds / 2))

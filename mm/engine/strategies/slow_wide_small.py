"""`slow-wide-small`: quotes wide around a slow mean, in small size, and waits. A baseline to beat, not a promise.

Its rules were fixed before it was tried; what is known of them is that they lose 1.1 to 2.7 cents a contract on old
prints. Exits are passive, or settlement.
"""

import math
from typing import ClassVar

import attrs

from mm.domain.numbers import CONTRACT, SECOND, Count, Micros, Price
from mm.domain.order import Side
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.blocks import inventory_skew, not_improving, place, reduces
from mm.engine.strategies.view import Quote, View


@attrs.frozen(kw_only=True)
class SlowWideSmall(Strategy):
    """Half-spread the larger of 2 cents and the rms move of 30 s; 20 contracts at most."""

    name: ClassVar[str] = "slow-wide-small"
    looks_every: ClassVar[Micros | None] = Micros(5 * SECOND)
    least_half_spread: Price = Price(200)
    moves: float = 1.0
    """Half-spread in rms moves."""
    skew: Price = Price(200)
    """At full position and even odds."""
    size: Count = Count(10 * CONTRACT)
    cap: Count = Count(20 * CONTRACT)
    lowest: Price = Price(1_500)
    """Below it, and above one dollar less it, only the side that reduces is quoted."""

    def own_fair_value(self, view: View) -> Price | None:
        """The time-decayed mean of prints."""
        return None if view.signals is None else view.signals.prints.mean

    def quote(self, view: View) -> Quote:
        """Both sides within .15 to .85, else the reducing one; never better than the others' touch."""
        fair = view.fair_value
        if fair is None or view.signals is None:
            return Quote()
        moves = view.signals.moves.rms
        half = max(self.least_half_spread, math.ceil(self.moves * moves) if moves is not None else 0)
        middle = fair - inventory_skew(fair, view.net, self.cap, self.skew)
        is_extreme = not self.lowest <= fair <= 10_000 - self.lowest
        found = {}
        for side in (Side.BID, Side.ASK):
            if is_extreme and not reduces(view, side):
                continue
            want = not_improving(view, side, middle - side.sign * half)
            found[side] = place(view, side, want, self.size, self.cap)
        return Quote(found.get(Side.BID), found.get(Side.ASK))

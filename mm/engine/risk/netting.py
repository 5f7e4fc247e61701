"""The two markets of a game as one position, seen from one of them (`NET_ACROSS_MARKETS`).

In a game of two markets of which one pays, a YES of the other is a NO of this one: bought at p there is sold at 1 - p here.
The open layers of both markets, in order of time, netted first in, first out, are what the rules see: state and skew,
adverse excursion, duration. What a quote or an exit may trade remains the market's own position.
"""

from mm.domain.inventory import InventoryState
from mm.domain.numbers import DOLLAR, Money, Price
from mm.domain.order import Side

NO_FEE = Money(0)


def netted(own: InventoryState, other: InventoryState) -> InventoryState:
    """Both markets' open layers as one inventory of `own`'s market. Fees and realized results stay where they are."""
    if other.is_flat:
        return own
    layers = [(layer.ts, own.sign, layer.price, layer.count) for layer in own.layers]
    layers += [(layer.ts, -other.sign, Price(DOLLAR - layer.price), layer.count) for layer in other.layers]
    together = InventoryState()
    for ts, sign, price, count in sorted(layers):
        together.apply(Side.BID if sign > 0 else Side.ASK, price, count, NO_FEE, ts)
    return together

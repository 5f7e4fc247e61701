"""How a position is closed: the side, size and limit of the order that crosses the spread.

Inventory changes by fills alone; this only says what to send next.
"""

import attrs

from mm.domain.grid import TickGrid
from mm.domain.numbers import CENT, Count, Price
from mm.domain.order import Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters


@attrs.frozen(kw_only=True)
class ExitOrder:
    """An immediate-or-cancel, reduce-only order."""

    side: Side
    price: Price
    count: Count


def exit_order(
    net: Count, touch: Touch, grid: TickGrid, parameters: StrategyParameters, attempt: int = 0
) -> ExitOrder | None:
    """The next order towards flat; None when flat or nobody is there to trade with.

    The first goes at the touch; each further `attempt` reaches one cent deeper, at most `flatten_max_slippage`
    beyond the touch of the moment. There is no order "at any price".
    """
    if not net:
        return None
    slippage = min(attempt * CENT, parameters.flatten_max_slippage)
    if net > 0:
        if touch.best_bid is None:
            return None
        price = grid.at_or_above(max(touch.best_bid - slippage, grid.lowest))
        side = Side.ASK
    else:
        if touch.best_ask is None:
            return None
        price = grid.at_or_below(min(touch.best_ask + slippage, grid.highest))
        side = Side.BID
    return None if price is None else ExitOrder(side=side, price=price, count=Count(abs(net)))

"""`join`: the control. Joins both touches whatever the price; holds what it gets. What a rule earns beyond it is its own."""

from typing import ClassVar

import attrs

from mm.domain.numbers import Count
from mm.domain.order import Side
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.blocks import place
from mm.engine.strategies.view import Quote, View


@attrs.frozen(kw_only=True)
class Join(Strategy):
    """Stands at the others' best bid and best ask; no opinion, no skew, no exits."""

    name: ClassVar[str] = "join"
    uses_signals: ClassVar[bool] = False
    size: Count = Count(1_000)
    cap: Count = Count(5_000)
    """Position limit of its own."""

    def quote(self, view: View) -> Quote:
        """One quote at each touch there is."""
        bid, ask = view.others.best_bid, view.others.best_ask
        return Quote(
            None if bid is None else place(view, Side.BID, bid, self.size, self.cap),
            None if ask is None else place(view, Side.ASK, ask, self.size, self.cap),
        )

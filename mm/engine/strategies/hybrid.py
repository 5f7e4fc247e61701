"""`hybrid`: the user's own strategy, exactly. What it does stands in `mm.engine.quoting` and `mm.engine.hybrid_risk`."""

from typing import ClassVar

import attrs

from mm.engine.quoting import wanted_quotes
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.view import Quote, View


@attrs.frozen(kw_only=True)
class Hybrid(Strategy):
    """Quotes around the average of prints by the state table; exits by HybridRiskPolicy."""

    name: ClassVar[str] = "hybrid"
    has_exit_rules: ClassVar[bool] = True
    uses_signals: ClassVar[bool] = False

    def quote(self, view: View) -> Quote:
        """The reference strategy's wanted quotes. Only a fair-value source that was chosen moves it off the mark."""
        return wanted_quotes(
            view.ruled,
            view.mark if self.fair_value is None else self.fair_value(view),
            view.touch,
            view.market.grid,
            view.parameters,
            extra_ticks=view.extra_ticks,
            held=view.inventory,
            pending=view.pending,
            market_room=view.market_room,
            price_bound=view.price_bound,
        )

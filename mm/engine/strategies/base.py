"""What a strategy is, and what a fair-value source is. Third parties write classes of these shapes.

Both are values without memory: everything they need is in the view. So the same class runs live, on paper, in the
simulation and in a back-test, and a test is a call.
"""

from typing import ClassVar, Protocol

import attrs

from mm.domain.numbers import Micros, Price
from mm.engine.strategies.view import Quote, View


class FairValue(Protocol):
    """What one YES is worth."""

    def __call__(self, view: View) -> Price | None:
        """In 1/10,000 dollar; None when it does not know: then nothing is quoted."""


@attrs.frozen(kw_only=True)
class Strategy:
    """One way to quote. Subclass it as `attrs.frozen(kw_only=True)`; the fields are its parameters.

    Fields of type `int`, `float`, `bool`, `str`, `Price`, `Count` and `Micros` can be set by name from text
    (`registry.build_strategy`); each needs a default.
    """

    name: ClassVar[str] = ""
    has_exit_rules: ClassVar[bool] = False
    """HybridRiskPolicy and the extreme price gate watch the position and close it by crossing the spread."""
    uses_signals: ClassVar[bool] = True
    """The market maker keeps `View.signals`."""
    sees_depth: ClassVar[bool] = False
    """Sizes matter, not only the best prices: every change of the book is looked at."""
    looks_every: ClassVar[Micros | None] = None
    """Ask again after so long even if nothing has happened; None: only when something has."""
    fair_value: FairValue | None = None
    """Where fair value comes from; None: the strategy's own choice (`own_fair_value`)."""

    def own_fair_value(self, view: View) -> Price | None:
        """Fair value when no source was chosen: the mark."""
        return view.mark

    def quote(self, view: View) -> Quote:
        """What should rest now. Pure: no memory, no clock, no randomness.

        Asked only when the market is active, its book is whole and nothing holds it. Prices must be on the grid and
        not reach the other side's best; `blocks.place` sees to both, and to the limits.
        """
        raise NotImplementedError

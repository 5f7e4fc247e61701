"""What a market does at a goal: how far the price jumps at once, who knows first, how the first takers come.

`MEASURED` was fixed from recordings before any strategy was run against it, and is not to be tuned on results:

| parameter | value | from |
| --- | --- | --- |
| `jump_share` | 0.75 | 91 real NHL goals: the mid jumps 9.8 c on average (quartiles 3, 9.5, 14.5; most 41.5). The honest chance of our games moves 13.1 c (4.9, 13.5, 18.0; most 54) at a goal: three quarters of it are 9.8 c (3.7, 10.1, 13.5; most 41) |
| `rest_s` | 60 | asks at 69 NHL goals of 2026-02-28: at the moment of the goal's entry the price has gone half to nearly all of its way to the next entry, minutes later |
| `one_order_share` | 0.25 | public prints of Nov 2025, tennis and soccer: of 425 moves of 5 c within 3 s, 26% have one order through three levels or more, in 22% one order makes half of the move |
| `widening_cents`, `widening_s` | 4, 2.5 | the same 69 goals: both asks sum to 1.02, 1.035, 1.07 (quartiles) at the entry, to 1.01 to 1.02 at other times |
| `informed_s` | 0.3 to 1.0 | no recording tells it: assumed, as before |
| `lead_s` | -0.25 to 0.2 | no recording tells it: assumed, as before |
"""

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class GoalBehaviour:
    """The parameters. Times are wall seconds at any speed."""

    jump_share: float = 1.0
    """Of the honest move at a goal, what the market makes at once."""
    rest_s: float = 60.0
    """In which the rest of it fades in (to a third)."""
    one_order_share: float = 1.0
    """Of the informed takers, those whose order sweeps through all stale levels; the others eat level by level."""
    step_s: float = 0.08
    """Between two levels of such a taker."""
    informed_s: tuple[float, float] = (0.3, 1.0)
    """From the goal to an informed taker's order."""
    lead_s: tuple[float, float] = (-0.25, 0.2)
    """When the fast maker pulls everything, from the goal: before it, or after."""
    widening_cents: float = 4.0
    """By how much makers stand further out right after news, each side."""
    widening_s: float = 2.5
    """In which that fades (to a third)."""


PLAIN: Final = GoalBehaviour()
"""The whole move at once, and each informed taker one order."""
MEASURED: Final = GoalBehaviour(jump_share=0.75, one_order_share=0.25)
BEHAVIOURS: Final = {"plain": PLAIN, "measured": MEASURED}

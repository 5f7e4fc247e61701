"""When a working quote is touched at all: the replace rule, the cooldown, the churn brake.

Told the time, never asks for it. What commands follow is decided in `diff`.
"""

import enum
from collections import deque
from typing import Final

import attrs

from mm.domain.numbers import SECOND, Micros, Price
from mm.domain.order import Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import WantedQuote


class QuoteAction(enum.Enum):
    """What to do with one side now."""

    KEEP = "keep"
    """Nothing: what rests is right, or nothing rests and nothing is wanted."""
    PLACE = "place"
    REPLACE = "replace"
    """What rests stands at the wrong price."""
    REMOVE = "remove"
    """What rests must go now, cooldown or not."""
    WAIT = "wait"
    """Something should be placed or replaced; the cooldown has not passed."""


@attrs.frozen
class QuoteDecision:
    """An action, and for WAIT the end of the cooldown."""

    action: QuoteAction
    until: Micros | None = None


_KEEP: Final = QuoteDecision(QuoteAction.KEEP)
_REMOVE: Final = QuoteDecision(QuoteAction.REMOVE)


def would_cross(side: Side, price: Price, touch: Touch) -> bool:
    """Whether a quote at `price` reaches the other side's best price."""
    if side is Side.BID:
        return touch.best_ask is not None and price >= touch.best_ask
    return touch.best_bid is not None and price <= touch.best_bid


def decide_quote(
    side: Side,
    resting: Price | None,
    wanted: WantedQuote | None,
    touch: Touch,
    last_action: Micros | None,
    now: Micros,
    parameters: StrategyParameters,
    *,
    cooldown: Micros | None = None,
) -> QuoteDecision:
    """One side's decision.

    A resting quote that is not wanted or would cross goes at once. Otherwise it is replaced only when the wanted
    price, before rounding, is `min_requote` or more away from it. Placing and replacing wait for the cooldown
    after the side's last action.

    Args:
        cooldown: Instead of the parameters' (churn brake).
    """
    if resting is not None and (wanted is None or would_cross(side, resting, touch)):
        return _REMOVE
    if wanted is None:
        return _KEEP
    if resting is not None and -parameters.min_requote < wanted.want - resting < parameters.min_requote:
        return _KEEP
    rest = parameters.quote_cooldown if cooldown is None else cooldown
    if last_action is not None and now < last_action + rest:
        return QuoteDecision(QuoteAction.WAIT, Micros(last_action + rest))
    return QuoteDecision(QuoteAction.PLACE if resting is None else QuoteAction.REPLACE)


# --- churn brake -----------------------------------------------------------------------------------------------------

SHORT_WINDOW: Final = Micros(30 * SECOND)
LONG_WINDOW: Final = Micros(60 * SECOND)
WIDEN_AT: Final = (12, 18)
"""Replaces within the short and the long window that widen."""
STOP_AT: Final = (16, 24)
WIDEN_FOR: Final = Micros(12 * SECOND)
STOP_FOR: Final = Micros(30 * SECOND)


class BrakeState(enum.Enum):
    """How hard the churn brake holds."""

    OFF = "off"
    WIDER = "wider"
    """Quotes one tick wider, cooldown doubled."""
    STOPPED = "stopped"
    """No new quotes; exits and removals go on."""


@attrs.define(eq=False)
class ChurnBrake:
    """Counts one market's replaces, both sides together."""

    _replaces: deque[Micros] = attrs.field(factory=deque)
    _wider_until: Micros = Micros(0)
    _stopped_until: Micros = Micros(0)

    def note_replace(self, now: Micros) -> None:
        """A quote has been replaced."""
        self._replaces.append(now)
        while self._replaces[0] <= now - LONG_WINDOW:
            self._replaces.popleft()
        within_long = len(self._replaces)
        within_short = sum(moment > now - SHORT_WINDOW for moment in self._replaces)
        if within_short >= STOP_AT[0] or within_long >= STOP_AT[1]:
            self._stopped_until = Micros(now + STOP_FOR)
        if within_short >= WIDEN_AT[0] or within_long >= WIDEN_AT[1]:
            self._wider_until = Micros(now + WIDEN_FOR)

    def state(self, now: Micros) -> BrakeState:
        """How the brake stands at `now`."""
        if now < self._stopped_until:
            return BrakeState.STOPPED
        if now < self._wider_until:
            return BrakeState.WIDER
        return BrakeState.OFF

    def extra_ticks(self, now: Micros) -> int:
        """Ticks that quotes stand further out."""
        return 1 if self.state(now) is BrakeState.WIDER else 0

    def cooldown(self, parameters: StrategyParameters, now: Micros) -> Micros:
        """The cooldown in force."""
        factor = 2 if self.state(now) is BrakeState.WIDER else 1
        return Micros(factor * parameters.quote_cooldown)

    def released_at(self, now: Micros) -> Micros | None:
        """When the state next changes by time alone; None when off."""
        state = self.state(now)
        if state is BrakeState.STOPPED:
            return self._stopped_until
        return self._wider_until if state is BrakeState.WIDER else None

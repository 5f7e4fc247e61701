"""From what is wanted and what works to the fewest commands, one side of one market at a time.

At most one order works on a side: while one is on its way in any direction, nothing new is sent there. A place in the
queue is worth money, so a quote whose price stays is at most made smaller, in place.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from mm.domain.commands import Amend, Cancel, Decrease, Place, QuoteCommand
from mm.domain.numbers import CONTRACT, Micros
from mm.domain.order import MarketTicker, Order, OrderState, Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import WantedQuote
from mm.engine.requote import BrakeState, QuoteAction, QuoteDecision, decide_quote

_REMOVABLE: Final = frozenset({OrderState.RESTING, OrderState.AMENDING})
"""States in which a cancel can be sent; SENT has no id yet, CANCELLING has one under way, UNKNOWN is the desk's."""


@attrs.define(eq=False)
class SideTimer:
    """What one side of one market remembers between decisions."""

    last_action: Micros | None = None
    is_replacing: bool = False
    """The last action took a quote away for its price; the new one may follow without a second cooldown."""

    def record(self, plan: "SidePlan", now: Micros) -> None:
        """The plan's commands have been handed to the desk."""
        if plan.is_action:
            self.last_action = now
        self.is_replacing = plan.is_replacing


@attrs.frozen(kw_only=True)
class SidePlan:
    """Commands of one side, and what they mean for its timer."""

    commands: tuple[QuoteCommand, ...] = ()
    wake_at: Micros | None = None
    """Come back then: a cooldown ends."""
    is_action: bool = False
    """Starts the cooldown. A decrease in place does not: the quote stands where it stood."""
    is_replace: bool = False
    """Counts for the churn brake."""
    is_replacing: bool = False


def plan_side(
    ticker: MarketTicker,
    side: Side,
    wanted: WantedQuote | None,
    orders: Sequence[Order],
    touch: Touch,
    timer: SideTimer,
    now: Micros,
    parameters: StrategyParameters,
    *,
    brake: BrakeState = BrakeState.OFF,
    pull_reason: str = "not wanted",
) -> SidePlan:
    """The fewest commands that bring one side to what is wanted.

    Args:
        orders: Our orders of this side, any state; done ones are ignored.
        pull_reason: Said in the cancel when nothing is wanted.
    """
    working = [order for order in orders if order.state is not OrderState.DONE]
    if wanted is None:
        return _remove(ticker, [o for o in working if o.state in _REMOVABLE], pull_reason)
    if not working:
        return _place(ticker, wanted, touch, timer, now, parameters, brake)
    resting = [order for order in working if order.state is OrderState.RESTING]
    if not resting:
        # On its way in some direction: nothing new before that is known. An amend away from the market cannot cross.
        return SidePlan(is_replacing=timer.is_replacing)
    keep = min(resting, key=lambda order: (abs(wanted.want - order.price), order.created_at))
    if len(working) > 1:
        surplus = [o for o in working if o is not keep and o.state in _REMOVABLE]
        return _remove(ticker, surplus, "one order a side")
    return _keep_or_move(ticker, wanted, keep, touch, timer, now, parameters, brake)


def _keep_or_move(
    ticker: MarketTicker,
    wanted: WantedQuote,
    order: Order,
    touch: Touch,
    timer: SideTimer,
    now: Micros,
    parameters: StrategyParameters,
    brake: BrakeState,
) -> SidePlan:
    decision = _decide(wanted, order, touch, timer, now, parameters, brake)
    if decision.action is QuoteAction.REMOVE:
        return _remove(ticker, [order], "would cross")
    shrink: tuple[QuoteCommand, ...] = ()
    if wanted.count < order.leaves:
        # Limits do not wait for a cooldown.
        shrink = (Decrease(ticker=ticker, client_order_id=order.client_order_id, leaves=wanted.count),)
    if decision.action is QuoteAction.WAIT:
        return SidePlan(commands=shrink, wake_at=decision.until)
    if decision.action is QuoteAction.KEEP:
        return SidePlan(commands=shrink)
    away = (order.price - wanted.price) * wanted.side.sign > 0
    if away and brake is not BrakeState.STOPPED:
        # Away from the market an amend cannot cross, and costs one write where cancel and place cost two.
        amend = Amend(
            ticker=ticker,
            client_order_id=order.client_order_id,
            side=wanted.side,
            price=wanted.price,
            leaves=wanted.count,
        )
        return SidePlan(commands=(amend,), is_action=True, is_replace=True)
    why = "remainder below one contract" if order.leaves < CONTRACT else "price moved"
    cancel = Cancel(ticker=ticker, client_order_id=order.client_order_id, reason=why, is_urgent=False)
    return SidePlan(commands=(cancel,), is_action=True, is_replace=True, is_replacing=True)


def _decide(
    wanted: WantedQuote,
    order: Order,
    touch: Touch,
    timer: SideTimer,
    now: Micros,
    parameters: StrategyParameters,
    brake: BrakeState,
) -> QuoteDecision:
    cooldown = effective_cooldown(parameters, brake)
    decision = decide_quote(
        wanted.side, order.price, wanted, touch, timer.last_action, now, parameters, cooldown=cooldown
    )
    moves = (QuoteAction.REPLACE, QuoteAction.WAIT)
    if decision.action in moves and order.price == wanted.price and order.leaves >= CONTRACT:
        # A least move finer than the tick: the place in the queue is not given up to stand at the same price again.
        return QuoteDecision(QuoteAction.KEEP)
    if decision.action is QuoteAction.KEEP and order.leaves < CONTRACT:
        # Too little to be a quote: as if nothing rested, but what rests has to go first.
        fresh = decide_quote(
            wanted.side, None, wanted, touch, timer.last_action, now, parameters, cooldown=cooldown
        )
        return QuoteDecision(QuoteAction.REPLACE) if fresh.action is QuoteAction.PLACE else fresh
    return decision


def _place(
    ticker: MarketTicker,
    wanted: WantedQuote,
    touch: Touch,
    timer: SideTimer,
    now: Micros,
    parameters: StrategyParameters,
    brake: BrakeState,
) -> SidePlan:
    if brake is BrakeState.STOPPED:
        return SidePlan()
    last_action = None if timer.is_replacing else timer.last_action
    cooldown = effective_cooldown(parameters, brake)
    decision = decide_quote(wanted.side, None, wanted, touch, last_action, now, parameters, cooldown=cooldown)
    if decision.action is QuoteAction.WAIT:
        return SidePlan(wake_at=decision.until)
    place = Place(
        ticker=ticker,
        side=wanted.side,
        price=wanted.price,
        count=wanted.count,
        is_replacement=timer.is_replacing,
    )
    return SidePlan(commands=(place,), is_action=True)


def _remove(ticker: MarketTicker, orders: Sequence[Order], reason: str) -> SidePlan:
    cancels = tuple(
        Cancel(ticker=ticker, client_order_id=order.client_order_id, reason=reason, is_urgent=True)
        for order in orders
    )
    return SidePlan(commands=cancels, is_action=bool(cancels))


def effective_cooldown(parameters: StrategyParameters, brake: BrakeState) -> Micros:
    """The cooldown that the brake leaves in force."""
    return Micros(parameters.quote_cooldown * (2 if brake is BrakeState.WIDER else 1))

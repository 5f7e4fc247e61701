"""The reference back-test of one market: public prints, queue-share fills, no latency, profile `reference`.

The decisions are the live ones (`quoting`, `requote`, `hybrid_risk`, `mark`); here are only the order of events and
the fill model. What this profile leaves out: churn brake, limits over all markets, `MAX_QUOTED_SPREAD`, book mid.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from mm.domain.commands import FlattenReason
from mm.domain.errors import InvariantError
from mm.domain.fill import Trade
from mm.domain.grid import TickGrid, uniform_grid
from mm.domain.numbers import CENT, CONTRACT, Count, Micros, Price
from mm.domain.order import Side
from mm.engine.backtest.prints import Sweep, sweeps
from mm.engine.backtest.queue_share import queue_share
from mm.engine.backtest.result import Account, MarketResult
from mm.engine.hybrid_risk import ExtremePriceGate, HybridRiskPolicy
from mm.engine.mark import MidEma, Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import NO_QUOTES, WantedQuote, room, wanted_quotes
from mm.engine.requote import QuoteAction, decide_quote

TICK: Final = CENT
_BOTH: Final = (Side.BID, Side.ASK)


@attrs.define(eq=False)
class QuoteSlot:
    """One side: what rests, when it was last touched, until when it waits."""

    price: Price | None = None
    last_action: Micros | None = None
    waits_until: Micros | None = None


def touch_after(trade: Trade) -> Touch:
    """The touch as a print shows it: its own price on the side that was eaten, one tick away on the other."""
    if trade.taker_side is Side.BID:
        return Touch(Price(trade.price - TICK), trade.price)
    return Touch(trade.price, Price(trade.price + TICK))


@attrs.define(eq=False)
class ReferenceRun:
    """The state of one market while its sweeps go by."""

    parameters: StrategyParameters
    grid: TickGrid = attrs.field(factory=lambda: uniform_grid(TICK))
    account: Account = attrs.field(factory=Account)
    gate: ExtremePriceGate = attrs.field(factory=ExtremePriceGate)
    touch: Touch = Touch(None, None)
    slots: dict[Side, QuoteSlot] = attrs.field(factory=lambda: {side: QuoteSlot() for side in _BOTH})
    ema: MidEma = attrs.field(init=False)
    policy: HybridRiskPolicy = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ema = MidEma(self.parameters.mid_ema_alpha)
        self.policy = HybridRiskPolicy(self.parameters)

    def on_sweep(self, sweep: Sweep) -> None:
        """Everything that one sweep brings about, what was due before it included."""
        self._run_until(sweep.ts)
        self._fill(sweep)
        for trade in sweep.trades:
            self.ema.feed(trade.price)
        self.touch = touch_after(sweep.trades[-1])
        reason = self.policy.should_flatten(self.account.inventory, self.ema.mark, sweep.ts)
        if reason is not None:
            self._flatten(reason, sweep.ts)
        self._pass_gate(sweep.ts)
        self._requote(sweep.ts)

    def _fill(self, sweep: Sweep) -> None:
        side, price = sweep.hits, self.slots[sweep.hits].price
        if price is None:
            return
        offered = queue_share(sweep.size_through(price), self.parameters)
        count = Count(min(offered, room(side, price, self.account.inventory, self.parameters)))
        if count >= CONTRACT:
            self.account.quote_filled(side, price, count, sweep.ts)
            self.policy.on_fill(self.account.inventory)

    def _pass_gate(self, now: Micros) -> None:
        mark = self.ema.mark
        if mark is None or not self.gate.update(mark):
            return
        if self.account.inventory.is_flat:
            self._pull(now)
        else:
            self._flatten(FlattenReason.EXTREME_PRICE, now)

    def _flatten(self, reason: FlattenReason, now: Micros) -> None:
        self._pull(now)
        self.policy.reset()
        touch = self.touch.best_bid if self.account.inventory.net > 0 else self.touch.best_ask
        if touch is None:
            raise InvariantError("a position before the first print")
        price = min(max(touch, self.grid.lowest), self.grid.highest)
        self.account.flattened(price, now, reason)
        self.policy.on_fill(self.account.inventory)

    def _pull(self, now: Micros) -> None:
        for slot in self.slots.values():
            if slot.price is not None:
                slot.price, slot.last_action = None, now

    def _requote(self, now: Micros) -> None:
        wanted = NO_QUOTES
        if self.gate.is_open:
            wanted = wanted_quotes(
                self.account.inventory, self.ema.mark, self.touch, self.grid, self.parameters
            )
        for side in _BOTH:
            self._requote_side(side, wanted.of(side), now)

    def _requote_side(self, side: Side, wanted: WantedQuote | None, now: Micros) -> None:
        slot = self.slots[side]
        decision = decide_quote(side, slot.price, wanted, self.touch, slot.last_action, now, self.parameters)
        if decision.action is QuoteAction.REMOVE:
            slot.price, slot.last_action = None, now
            decision = decide_quote(side, None, wanted, self.touch, now, now, self.parameters)
        if wanted is not None and decision.action in (QuoteAction.PLACE, QuoteAction.REPLACE):
            slot.price, slot.last_action = wanted.price, now
        slot.waits_until = decision.until

    # time between sweeps

    def _run_until(self, now: Micros) -> None:
        """Let everything happen that is due at or before `now`, in order of time."""
        while (due := self._next_due()) is not None and due <= now:
            reason = None
            deadline = self.policy.next_deadline(self.account.inventory)
            if deadline == due:
                reason = self.policy.should_flatten(self.account.inventory, self.ema.mark, due)
            if reason is not None:
                self._flatten(reason, due)
            self._requote(due)
            if self._next_due() == due:
                raise InvariantError(f"what was due at {due} did not come about")

    def _next_due(self) -> Micros | None:
        waits = [slot.waits_until for slot in self.slots.values() if slot.waits_until is not None]
        deadline = self.policy.next_deadline(self.account.inventory)
        if deadline is not None:
            waits.append(deadline)
        return min(waits, default=None)


def run_reference(
    trades: Sequence[Trade], parameters: StrategyParameters, given: Price | None = None
) -> MarketResult:
    """Back-test one market.

    Args:
        trades: At least one, as `in_order` leaves them.
        given: The settlement price; inferred from the last print when None.
    """
    run = ReferenceRun(parameters)
    for sweep in sweeps(trades):
        run.on_sweep(sweep)
    return run.account.finish(trades, given)

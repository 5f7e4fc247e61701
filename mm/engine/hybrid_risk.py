"""HybridRiskPolicy: when a market's position must go; and the gate that keeps us out of extreme prices.

Answers only: who pulls quotes and crosses the spread is the shell. Both rules also come due by time alone, so
whoever drives this asks `next_deadline` and comes back then.
"""

from typing import Final

import attrs

from mm.domain.commands import FlattenReason
from mm.domain.inventory import InventoryState
from mm.domain.numbers import Micros, Price
from mm.engine.parameters import StrategyParameters

SHUT_AT_OR_BELOW: Final = Price(500)
SHUT_AT_OR_ABOVE: Final = Price(9_500)
OPEN_FROM: Final = Price(1_000)
OPEN_TO: Final = Price(9_000)


@attrs.define(eq=False)
class HybridRiskPolicy:
    """The two rules of one market and the timer of the second."""

    parameters: StrategyParameters
    breach_since: Micros | None = None
    """When the adverse excursion came into breach; None while it is not."""
    _sign: int = 0

    def should_flatten(
        self, inventory: InventoryState, mark: Price | None, now: Micros
    ) -> FlattenReason | None:
        """The reason to close the position now, or None. Moves the timer: call at each mark, fill and deadline."""
        self.on_fill(inventory)
        self._observe(inventory, mark, now)
        if inventory.is_flat:
            return None
        if inventory.duration_weighted_exposure(now) >= self.parameters.duration_limit_units:
            return FlattenReason.DURATION_WEIGHTED
        if mark is None or self.breach_since is None:
            return None  # without a mark nobody knows whether the breach lasts; the timer keeps its start
        if now - self.breach_since >= self.parameters.mae_activation_window:
            return FlattenReason.MAE_FAILSAFE
        return None

    def on_fill(self, inventory: InventoryState) -> None:
        """After each fill: going flat or changing sign resets the timer, even if the next fill takes it back."""
        if inventory.sign != self._sign:
            self._sign = inventory.sign
            self.breach_since = None

    def reset(self) -> None:
        """Clear the timer: a flatten has been decided."""
        self.breach_since = None

    def _observe(self, inventory: InventoryState, mark: Price | None, now: Micros) -> None:
        if mark is None:
            return
        # `inventory.mae(mark) < mae_failsafe`, both sides times |net| and the limit's denominator: no Fraction is made.
        limit = self.parameters.mae_failsafe
        if (
            inventory.is_flat
            or inventory.mae_value(mark) * limit.denominator < limit.numerator * inventory.size
        ):
            self.breach_since = None
        elif self.breach_since is None:
            self.breach_since = now

    def duration_deadline(self, inventory: InventoryState) -> Micros | None:
        """The first microsecond at which the duration rule holds if nothing is filled; None when flat."""
        return inventory.time_of_exposure(self.parameters.duration_limit_units)

    def mae_deadline(self) -> Micros | None:
        """When the running timer ends; None when it does not run."""
        if self.breach_since is None:
            return None
        return Micros(self.breach_since + self.parameters.mae_activation_window)

    def next_deadline(self, inventory: InventoryState) -> Micros | None:
        """The earliest moment at which a rule would hold by time alone; it may be in the past."""
        found = [d for d in (self.duration_deadline(inventory), self.mae_deadline()) if d is not None]
        return min(found, default=None)


@attrs.define(eq=False)
class ExtremePriceGate:
    """Shut at 0.05 and below or 0.95 and above; open again only within 0.10 .. 0.90."""

    is_open: bool = True

    def update(self, mark: Price) -> bool:
        """Follow the mark. Returns True at the moment the gate shuts: flatten or pull then."""
        if self.is_open:
            if mark <= SHUT_AT_OR_BELOW or mark >= SHUT_AT_OR_ABOVE:
                self.is_open = False
                return True
        elif OPEN_FROM <= mark <= OPEN_TO:
            self.is_open = True
        return False

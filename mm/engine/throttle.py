"""A token bucket that is told the time. Continuous refill, as the venue's own."""

from typing import Final

import attrs

from mm.domain.numbers import SECOND, Micros

_ROUNDING: Final = 1e-9
"""Tokens."""


@attrs.define(eq=False)
class TokenBucket:
    """Tokens refill at `refill_per_s` up to `capacity`. Starts full unless told otherwise."""

    refill_per_s: float
    capacity: float
    tokens: float
    updated_at: Micros
    pace: float = 1.0
    """Share of the refill that we believe is ours: halved by a refusal, recovering slowly. Others may use the key."""

    _RECOVERY_S = 30.0

    def refill(self, now: Micros) -> float:
        """Bring the level up to `now` and return it. A clock that steps back refills nothing."""
        seconds = (now - self.updated_at) / SECOND
        if seconds > 0:
            self.tokens = min(self.capacity, self.tokens + seconds * self.refill_per_s * self.pace)
            self.pace = min(1.0, self.pace + seconds / self._RECOVERY_S)
        self.updated_at = now
        return self.tokens

    def take(self, cost: float, now: Micros, *, keep: float = 0.0) -> bool:
        """Spend `cost` if that leaves at least `keep`; False (and nothing spent) otherwise."""
        if not self._has(cost + keep, now):
            return False
        self.tokens -= cost
        return True

    def wait_s(self, cost: float, now: Micros, *, keep: float = 0.0) -> float:
        """Seconds until `take` can succeed at the present pace; 0 when it can now."""
        if self._has(cost + keep, now):
            return 0.0
        return (cost + keep - self.tokens) / (self.refill_per_s * self.pace)

    def _has(self, wanted: float, now: Micros) -> bool:
        """What rounding alone makes missing is not missing."""
        return self.refill(now) + _ROUNDING >= wanted

    def give_back(self, cost: float) -> None:
        """Return tokens that were taken for something not sent after all."""
        self.tokens = min(self.capacity, self.tokens + cost)

    def refused(self, now: Micros) -> None:
        """The venue said 429: its bucket is emptier than ours, so ours is empty and fills slower for a while."""
        self.refill(now)
        self.tokens = 0.0
        self.pace = max(0.1, self.pace / 2)

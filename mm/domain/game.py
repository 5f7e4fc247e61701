"""A game as a scoreboard shows it: status, period, clock, score. What a venue calls these fields is its adapter's to know.

Which sport is played decides what a period is; nothing here knows a sport.
"""

import enum

import attrs

from mm.domain.numbers import Micros


class GameStatus(enum.Enum):
    """Before, during or after."""

    SCHEDULED = "scheduled"
    LIVE = "live"
    FINISHED = "finished"


@attrs.frozen(kw_only=True)
class GameState:
    """One look at the scoreboard."""

    status: GameStatus
    period: int = 0
    """1 is the first; 0 before the start."""
    clock_left: Micros | None = None
    """Left of the period; None where it is not told."""
    home: int = 0
    away: int = 0
    is_break: bool = False
    """Between two periods."""
    is_empty_net: bool = False
    """A goalie has left the ice (where the venue tells it)."""
    starts_at: Micros | None = None
    """The scheduled start."""
    seen_at: Micros = Micros(0)
    """When we read it, set by whoever does. The scoreboard itself is seconds older."""

    @property
    def score(self) -> tuple[int, int]:
        """(home, away)."""
        return (self.home, self.away)

    @property
    def lead(self) -> int:
        """Points between the two, without sign."""
        return abs(self.home - self.away)

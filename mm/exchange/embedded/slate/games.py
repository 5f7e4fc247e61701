"""A hockey game at one moment, and the honest chances from there. No markets, no clock of its own, no IO.

`win_probability` and its siblings are closed forms that an honest trader would quote from: they see the situation
and the teams' strengths, never the future. `script` draws what will happen.

Numbers are of the NHL's size: about three goals a team in 60 minutes, power plays of two minutes that double the
scoring, 18 minutes of intermission. A clock minute takes 1/`PLAY_SHARE` minutes, the stoppages being spread evenly.
"""

import enum
import math
from functools import lru_cache
from typing import Final

import attrs

PERIOD_S: Final = 1200.0
OVERTIME_S: Final = 300.0
INTERMISSION_S: Final = 1080.0
OVERTIME_BREAK_S: Final = 90.0
SHOOTOUT_BREAK_S: Final = 150.0
ATTEMPT_S: Final = 35.0
"""Between two shots of a shootout."""
PLAY_SHARE: Final = 0.55
"""Clock seconds per second of game time while a period is on."""
REGULATION_S: Final = 3 * PERIOD_S

POWER_PLAY_S: Final = 120.0
PENALTIES_PER_HOUR: Final = 3.2
"""Per team and 60 clock minutes."""
POWER_PLAY_FACTOR: Final = 2.2
SHORT_HANDED_FACTOR: Final = 0.4
PULL_GOALIE_S: Final = {1: 120.0, 2: 170.0}
"""Goals behind -> clock seconds before the end at which the goalie leaves."""
EMPTY_NET_FOR: Final = 1.8
"""Factor on the rate of the team with the extra attacker."""
EMPTY_NET_AGAINST: Final = 4.5
OVERTIME_FACTOR: Final = 1.9
"""Three on three: factor on both rates."""
SHOT_SCORES: Final = 0.32
"""Chance of one shootout attempt."""
_MAX_GOALS: Final = 18


class Team(enum.Enum):
    """One of the two teams."""

    HOME = "home"
    AWAY = "away"

    @property
    def other(self) -> "Team":
        """The opponent."""
        return Team.AWAY if self is Team.HOME else Team.HOME

    @property
    def sign(self) -> int:
        """+1 for home: what a goal does to the score difference."""
        return 1 if self is Team.HOME else -1


class Phase(enum.Enum):
    """Where a game is."""

    PRE_GAME = "pre_game"
    PLAY = "play"
    INTERMISSION = "intermission"
    OVERTIME = "overtime"
    SHOOTOUT = "shootout"
    FINISHED = "finished"


class GameEventKind(enum.Enum):
    """What can happen in a game."""

    START = "start"
    GOAL = "goal"
    POWER_PLAY = "power_play"
    POWER_PLAY_END = "power_play_end"
    GOALIE_PULLED = "goalie_pulled"
    PERIOD_START = "period_start"
    PERIOD_END = "period_end"
    SHOOTOUT_GOAL = "shootout_goal"
    SHOOTOUT_MISS = "shootout_miss"
    FINISH = "finish"

    @property
    def is_news(self) -> bool:
        """Moves the win probability by a jump, so that whoever knows it first has the better of it."""
        return self in (GameEventKind.GOAL, GameEventKind.SHOOTOUT_GOAL, GameEventKind.SHOOTOUT_MISS)


@attrs.frozen
class Strengths:
    """Expected goals in 60 clock minutes at even strength."""

    home: float
    away: float

    def rate(self, team: Team) -> float:
        """Goals per clock second."""
        return (self.home if team is Team.HOME else self.away) / REGULATION_S


@attrs.frozen(kw_only=True)
class Situation:
    """A game at one moment: all that a spectator knows."""

    phase: Phase
    period: int = 0
    """1-3, 4 overtime, 5 shootout; 0 before the start."""
    clock_left: float = 0.0
    """Clock seconds left in the period (the whole next period during an intermission)."""
    home: int = 0
    away: int = 0
    power_play: Team | None = None
    power_play_left: float = 0.0
    """Clock seconds."""
    empty_net: Team | None = None
    """The team whose goalie is off the ice."""
    shots: tuple[int, int] = (0, 0)
    """Shootout attempts taken by (home, away)."""
    shootout: tuple[int, int] = (0, 0)
    """Shootout goals of (home, away)."""

    @property
    def lead(self) -> int:
        """Home goals less away goals."""
        return self.home - self.away

    @property
    def regulation_left(self) -> float:
        """Clock seconds left of the three periods."""
        if self.phase is Phase.PRE_GAME:
            return REGULATION_S
        if self.period > 3 or self.phase is Phase.FINISHED:
            return 0.0
        return self.clock_left + (3 - self.period) * PERIOD_S


@attrs.frozen
class GameEvent:
    """Something that happened, with the situation right after it."""

    at: float
    """Game time, seconds since puck drop."""
    kind: GameEventKind
    team: Team | None
    after: Situation


# --- the closed forms ------------------------------------------------------------------------------------------------


def expected_goals(strengths: Strengths, now: Situation) -> tuple[float, float]:
    """Means of what (home, away) will still score in regulation, given who is a man up or has pulled the goalie.

    The present lead is taken to last while the net is empty: good to about a percent, and what traders do.
    """
    left = now.regulation_left
    mean = {Team.HOME: strengths.rate(Team.HOME) * left, Team.AWAY: strengths.rate(Team.AWAY) * left}
    if left and now.power_play is not None:
        up, span = now.power_play, min(now.power_play_left, left)
        mean[up] += strengths.rate(up) * span * (POWER_PLAY_FACTOR - 1)
        mean[up.other] += strengths.rate(up.other) * span * (SHORT_HANDED_FACTOR - 1)
    if left and abs(now.lead) in PULL_GOALIE_S:
        behind = Team.AWAY if now.lead > 0 else Team.HOME
        span = min(PULL_GOALIE_S[abs(now.lead)], left)
        # A game that is still long will mostly have another score by then: fade the effect out over ten minutes.
        weight = max(0.0, 1.0 - max(0.0, left - span) / 600.0)
        mean[behind] += weight * strengths.rate(behind) * span * (EMPTY_NET_FOR - 1)
        mean[behind.other] += weight * strengths.rate(behind.other) * span * (EMPTY_NET_AGAINST - 1)
    return mean[Team.HOME], mean[Team.AWAY]


def poisson(mean: float) -> list[float]:
    """Probabilities of 0, 1, 2, ... events; the last entry holds the rest, so that they sum to 1."""
    term = math.exp(-mean)
    found = [term]
    for k in range(1, _MAX_GOALS):
        term *= mean / k
        found.append(term)
    found.append(max(0.0, 1.0 - sum(found)))
    return found


def lead_probabilities(strengths: Strengths, now: Situation, margin: int = 0) -> tuple[float, float]:
    """The chances that the final regulation lead of home is above `margin`, and that it is equal to it (Skellam)."""
    mean_home, mean_away = expected_goals(strengths, now)
    home, away = poisson(mean_home), poisson(mean_away)
    above = [0.0] * (_MAX_GOALS + 2)  # above[k]: home scores k or more
    for k in range(_MAX_GOALS, -1, -1):
        above[k] = above[k + 1] + home[k]
    more = equal = 0.0
    for scored, chance in enumerate(away):
        need = margin - now.lead + scored  # home goals that make the lead exactly `margin`
        if need < 0:
            more += chance
        elif need <= _MAX_GOALS:
            equal += chance * home[need]
            more += chance * above[need + 1]
    return more, equal


def overtime_probability(strengths: Strengths, left: float) -> float:
    """Home's chance in sudden death with `left` clock seconds, an even shootout after it."""
    home = strengths.rate(Team.HOME) * OVERTIME_FACTOR
    away = strengths.rate(Team.AWAY) * OVERTIME_FACTOR
    nobody = math.exp(-(home + away) * left)
    return (1 - nobody) * home / (home + away) + nobody * 0.5


@lru_cache(maxsize=512)
def shootout_probability(shots: tuple[int, int], goals: tuple[int, int]) -> float:
    """Home's chance in a shootout: three rounds, the away team first, then round by round until one leads."""
    winner = shootout_winner(shots, goals)
    if winner is not None:
        return 1.0 if winner is Team.HOME else 0.0
    home_shots, away_shots = shots
    if home_shots == away_shots and home_shots >= 3:
        return 0.5  # level after whole rounds: both teams shoot alike
    if away_shots == home_shots:
        hit = shootout_probability((home_shots, away_shots + 1), (goals[0], goals[1] + 1))
        miss = shootout_probability((home_shots, away_shots + 1), goals)
    else:
        hit = shootout_probability((home_shots + 1, away_shots), (goals[0] + 1, goals[1]))
        miss = shootout_probability((home_shots + 1, away_shots), goals)
    return SHOT_SCORES * hit + (1 - SHOT_SCORES) * miss


def shootout_winner(shots: tuple[int, int], goals: tuple[int, int]) -> Team | None:
    """Who has won, as soon as the other cannot catch up any more."""
    rounds = max(3, *shots)
    if goals[0] > goals[1] + (rounds - shots[1]):
        return Team.HOME
    if goals[1] > goals[0] + (rounds - shots[0]):
        return Team.AWAY
    return None


def win_probability(strengths: Strengths, now: Situation) -> float:
    """Home's chance to win, overtime and shootout included; 1 or 0 once finished."""
    if now.phase is Phase.FINISHED:
        return 1.0 if now.lead > 0 else 0.0
    if now.period == 5:
        return shootout_probability(now.shots, now.shootout)
    if now.period == 4:
        return overtime_probability(strengths, now.clock_left)
    more, equal = lead_probabilities(strengths, now)
    return more + equal * overtime_probability(strengths, OVERTIME_S)


def total_probability(strengths: Strengths, now: Situation, line: int) -> float:
    """The chance of more than `line` goals in all. A game that goes on past regulation brings exactly one more."""
    have = now.home + now.away
    if now.phase is Phase.FINISHED:
        return 1.0 if have > line else 0.0
    if now.period >= 4:
        return 1.0 if have + 1 > line else 0.0
    mean_home, mean_away = expected_goals(strengths, now)
    mean = mean_home + mean_away
    chances = poisson(mean)
    _, equal = lead_probabilities(strengths, now)
    over = sum(chances[k] for k in range(len(chances)) if have + k > line)
    # The extra goal of overtime matters where regulation ends exactly on the line: an even total, in a tie.
    exactly = chances[line - have] if 0 <= line - have < len(chances) else 0.0
    on_line = min(1.0, 2 * equal) * exactly if line % 2 == 0 else 0.0
    return min(1.0, over + on_line)


def margin_probability(strengths: Strengths, now: Situation, team: Team, margin: int) -> float:
    """The chance that `team` wins by more than `margin` goals (`margin` >= 1: overtime wins by one)."""
    if now.phase is Phase.FINISHED:
        return 1.0 if now.lead * team.sign > margin else 0.0
    if now.period >= 4:
        return 0.0
    if team is Team.HOME:
        return lead_probabilities(strengths, now, margin)[0]
    more, equal = lead_probabilities(strengths, now, -margin)
    return max(0.0, 1.0 - more - equal)

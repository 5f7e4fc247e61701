"""A hockey game: drawn once from a seed, then read at any moment. No markets, no clock of its own, no IO.

Time here is *game time*: seconds since puck drop at speed 1, stoppages and intermissions included. A `GameScript`
holds everything that will happen (goals, penalties, the pulled goalie, overtime, shootout), so that what a game does
never depends on who trades on it. `win_probability` is the closed form that an honest trader would quote from; it
does not look into the script's future.

Numbers are of the NHL's size: about three goals a team in 60 minutes, power plays of two minutes that double the
scoring, 18 minutes of intermission. A clock minute takes 1/`PLAY_SHARE` minutes, the stoppages being spread evenly.
"""

import enum
import math
from bisect import bisect_right
from functools import lru_cache
from random import Random
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


# --- the script ------------------------------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class GameScript:
    """All that will happen in one game, in order of game time."""

    strengths: Strengths
    events: list[GameEvent]
    _times: list[float] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._times = [event.at for event in self.events]

    @property
    def duration(self) -> float:
        """Game time from puck drop to the end."""
        return self.events[-1].at

    @property
    def winner(self) -> Team:
        """Who wins. Known to the script, not to traders."""
        return Team.HOME if self.events[-1].after.lead > 0 else Team.AWAY

    @property
    def final(self) -> Situation:
        """The last situation."""
        return self.events[-1].after

    def situation(self, at: float) -> Situation:
        """The game at game time `at` (negative: before puck drop)."""
        i = bisect_right(self._times, at)
        if i == 0:
            return Situation(phase=Phase.PRE_GAME)
        last = self.events[i - 1]
        now = last.after
        if now.phase not in (Phase.PLAY, Phase.OVERTIME):
            return now
        played = (at - last.at) * PLAY_SHARE
        return attrs.evolve(
            now,
            clock_left=max(0.0, now.clock_left - played),
            power_play_left=max(0.0, now.power_play_left - played),
        )


def draw_strengths(rng: Random) -> Strengths:
    """Two teams of the league: most favourites at 50-65 %, a few at 75 %; home ice is worth a tenth of a goal."""
    edge = rng.gauss(0.0, 0.17)
    total = 6.0 * math.exp(rng.gauss(0.0, 0.06))
    home = total / 2 * math.exp(edge) * 1.03
    away = total / 2 * math.exp(-edge) / 1.03
    return Strengths(home, away)


def draw_game(strengths: Strengths, rng: Random) -> GameScript:
    """Play a whole game."""
    return _Drawing(strengths, rng).play()


@attrs.define(eq=False, repr=False)
class _Drawing:
    """The state while a game is drawn: goals and penalties as competing Poisson processes."""

    strengths: Strengths
    rng: Random
    at: float = 0.0
    now: Situation = Situation(phase=Phase.PRE_GAME)
    events: list[GameEvent] = attrs.field(factory=list)

    def play(self) -> GameScript:
        self.happen(GameEventKind.START, None, phase=Phase.PLAY, period=1, clock_left=PERIOD_S)
        for period in (1, 2, 3):
            if period > 1:
                self.at += INTERMISSION_S
                self.happen(GameEventKind.PERIOD_START, None, phase=Phase.PLAY, clock_left=PERIOD_S)
            self.play_until_end_of_period()
            if period < 3:
                self.happen(
                    GameEventKind.PERIOD_END,
                    None,
                    phase=Phase.INTERMISSION,
                    period=period + 1,
                    clock_left=PERIOD_S,
                )
        if self.now.lead == 0:
            self.play_overtime()
        if self.now.lead == 0:
            self.play_shootout()
        self.happen(GameEventKind.FINISH, None, phase=Phase.FINISHED, power_play=None, clock_left=0.0)
        return GameScript(self.strengths, self.events)

    def happen(self, kind: GameEventKind, team: Team | None, **changes: object) -> None:
        self.now = attrs.evolve(self.now, **changes)  # type: ignore[arg-type]
        self.events.append(GameEvent(self.at, kind, team, self.now))

    def score(self, team: Team) -> None:
        now = self.now
        changes: dict[str, object] = {"empty_net": None}
        if now.power_play is team:
            changes |= {"power_play": None, "power_play_left": 0.0}
        changes["home" if team is Team.HOME else "away"] = (now.home if team is Team.HOME else now.away) + 1
        self.happen(GameEventKind.GOAL, team, **changes)

    def rate(self, team: Team) -> float:
        """Goals per clock second of `team` in the present situation."""
        rate = self.strengths.rate(team)
        if self.now.power_play is not None:
            rate *= POWER_PLAY_FACTOR if self.now.power_play is team else SHORT_HANDED_FACTOR
        if self.now.empty_net is not None:
            rate *= EMPTY_NET_FOR if self.now.empty_net is team else EMPTY_NET_AGAINST
        return rate

    def advance(self, clock_s: float) -> None:
        self.at += clock_s / PLAY_SHARE
        self.now = attrs.evolve(
            self.now,
            clock_left=self.now.clock_left - clock_s,
            power_play_left=max(0.0, self.now.power_play_left - clock_s),
        )

    def play_until_end_of_period(self) -> None:
        penalty = PENALTIES_PER_HOUR / REGULATION_S
        while self.now.clock_left > 1e-9:
            home, away = self.rate(Team.HOME), self.rate(Team.AWAY)
            calls = 0.0 if self.now.power_play is not None else 2 * penalty
            total = home + away + calls
            wait = self.rng.expovariate(total)
            pick = self.rng.random() * total
            change = self.next_change()
            if wait >= change:  # memoryless: draw again after the change
                self.advance(change)
                self.apply_change()
            elif pick < home + away:
                self.advance(wait)
                self.score(Team.HOME if pick < home else Team.AWAY)
            else:
                self.advance(wait)
                up = Team.HOME if pick < home + away + penalty else Team.AWAY
                self.happen(GameEventKind.POWER_PLAY, up, power_play=up, power_play_left=POWER_PLAY_S)

    def next_change(self) -> float:
        """Clock seconds to the next moment at which the rates change by themselves."""
        now = self.now
        found = now.clock_left
        if now.power_play is not None:
            found = min(found, now.power_play_left)
        pull = self.pull_in()
        return found if pull is None else min(found, pull)

    def pull_in(self) -> float | None:
        now = self.now
        window = PULL_GOALIE_S.get(abs(now.lead))
        if now.period != 3 or window is None or now.empty_net is not None:
            return None
        return max(0.0, now.clock_left - window)

    def apply_change(self) -> None:
        if self.now.power_play is not None and self.now.power_play_left <= 1e-9:
            self.happen(
                GameEventKind.POWER_PLAY_END, self.now.power_play, power_play=None, power_play_left=0.0
            )
        pull = self.pull_in()
        if pull is not None and pull <= 1e-9 and self.now.clock_left > 1e-9:
            behind = Team.AWAY if self.now.lead > 0 else Team.HOME
            self.happen(GameEventKind.GOALIE_PULLED, behind, empty_net=behind)

    def play_overtime(self) -> None:
        changes = {"power_play": None, "power_play_left": 0.0, "empty_net": None}
        self.happen(
            GameEventKind.PERIOD_END,
            None,
            phase=Phase.INTERMISSION,
            period=4,
            clock_left=OVERTIME_S,
            **changes,
        )
        self.at += OVERTIME_BREAK_S
        self.happen(GameEventKind.PERIOD_START, None, phase=Phase.OVERTIME)
        home = self.strengths.rate(Team.HOME) * OVERTIME_FACTOR
        away = self.strengths.rate(Team.AWAY) * OVERTIME_FACTOR
        wait = self.rng.expovariate(home + away)
        first = Team.HOME if self.rng.random() * (home + away) < home else Team.AWAY
        self.advance(min(wait, OVERTIME_S))
        if wait < OVERTIME_S:
            self.score(first)

    def play_shootout(self) -> None:
        self.happen(GameEventKind.PERIOD_END, None, phase=Phase.SHOOTOUT, period=5, clock_left=0.0)
        self.at += SHOOTOUT_BREAK_S
        while (winner := shootout_winner(self.now.shots, self.now.shootout)) is None:
            self.at += ATTEMPT_S
            team = Team.AWAY if self.now.shots[0] == self.now.shots[1] else Team.HOME
            hit = self.rng.random() < SHOT_SCORES
            i = 0 if team is Team.HOME else 1
            shots, goals = list(self.now.shots), list(self.now.shootout)
            shots[i] += 1
            goals[i] += hit
            self.happen(
                GameEventKind.SHOOTOUT_GOAL if hit else GameEventKind.SHOOTOUT_MISS,
                team,
                shots=tuple(shots),
                shootout=tuple(goals),
            )
        # The league books a won shootout as one goal.
        self.now = attrs.evolve(
            self.now, home=self.now.home + (winner is Team.HOME), away=self.now.away + (winner is Team.AWAY)
        )

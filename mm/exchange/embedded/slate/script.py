"""What will happen in a hockey game: drawn once from a seed, then read at any moment.

Time here is *game time*: seconds since puck drop at speed 1, stoppages and intermissions included. A `GameScript`
holds everything (goals, penalties, the pulled goalie, overtime, shootout), so that what a game does never depends on
who trades on it.
"""

import math
from bisect import bisect_right
from random import Random

import attrs

from mm.exchange.embedded.slate.games import (
    ATTEMPT_S,
    EMPTY_NET_AGAINST,
    EMPTY_NET_FOR,
    INTERMISSION_S,
    OVERTIME_BREAK_S,
    OVERTIME_FACTOR,
    OVERTIME_S,
    PENALTIES_PER_HOUR,
    PERIOD_S,
    PLAY_SHARE,
    POWER_PLAY_FACTOR,
    POWER_PLAY_S,
    PULL_GOALIE_S,
    REGULATION_S,
    SHOOTOUT_BREAK_S,
    SHORT_HANDED_FACTOR,
    SHOT_SCORES,
    GameEvent,
    GameEventKind,
    Phase,
    Situation,
    Strengths,
    Team,
    shootout_winner,
)


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

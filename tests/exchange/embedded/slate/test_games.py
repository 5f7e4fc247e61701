"""The hockey model: what a game does, and that its probabilities are honest."""

from collections import Counter
from random import Random

import pytest

from mm.exchange.embedded.slate.games import (
    OVERTIME_S,
    PERIOD_S,
    GameEventKind,
    Phase,
    Situation,
    Strengths,
    Team,
    expected_goals,
    lead_probabilities,
    margin_probability,
    overtime_probability,
    poisson,
    shootout_probability,
    shootout_winner,
    total_probability,
    win_probability,
)
from mm.exchange.embedded.slate.script import GameScript, draw_game, draw_strengths

EVEN = Strengths(3.0, 3.0)


def in_play(period: int, clock_left: float, home: int, away: int, **more: object) -> Situation:
    return Situation(phase=Phase.PLAY, period=period, clock_left=clock_left, home=home, away=away, **more)  # type: ignore[arg-type]


def mirrored(now: Situation) -> Situation:
    return in_play(now.period, now.clock_left, now.away, now.home)


@pytest.fixture(name="scripts", scope="module")
def _scripts() -> list[GameScript]:
    rng = Random(20261124)
    return [draw_game(draw_strengths(rng), rng) for _ in range(1500)]


class TestWinProbability:
    def test_equal_teams_start_even(self) -> None:
        """Two equal teams have half a chance each before the game."""
        assert win_probability(EVEN, Situation(phase=Phase.PRE_GAME)) == pytest.approx(0.5)

    def test_a_goal_helps_more_the_later_it_falls(self) -> None:
        """The value of a lead rises as time runs out."""
        chances = [
            win_probability(EVEN, in_play(period, left, 1, 0))
            for period, left in ((1, 1000), (2, 1000), (3, 1000), (3, 300), (3, 60), (3, 1))
        ]

        assert chances == sorted(chances)
        assert 0.6 < chances[0] < 0.75
        assert chances[-1] > 0.99

    def test_mirror(self) -> None:
        """With sides and strengths swapped the chances swap."""
        strong, weak = Strengths(3.6, 2.5), Strengths(2.5, 3.6)
        for now in (in_play(1, 700, 0, 1), in_play(3, 100, 2, 1), in_play(2, 50, 4, 4)):
            assert win_probability(strong, now) + win_probability(weak, mirrored(now)) == pytest.approx(1.0)

    def test_a_power_play_is_worth_some_cents(self) -> None:
        """A fresh power play moves the chance by 1 to 6 cents."""
        without = win_probability(EVEN, in_play(2, 600, 1, 1))
        with_it = win_probability(EVEN, in_play(2, 600, 1, 1, power_play=Team.HOME, power_play_left=120.0))

        assert 0.01 < with_it - without < 0.06

    def test_an_empty_net_brings_goals_at_the_other_end(self) -> None:
        """In the last two minutes the team that leads by one expects more goals than at even strength."""
        home, away = expected_goals(EVEN, in_play(3, 100, 3, 2))

        assert home > 3 * EVEN.rate(Team.HOME) * 100
        assert away > EVEN.rate(Team.AWAY) * 100

    def test_finished_is_certain(self) -> None:
        """After the end the chance is 1 or 0."""
        assert win_probability(EVEN, Situation(phase=Phase.FINISHED, home=3, away=2)) == 1.0
        assert win_probability(EVEN, Situation(phase=Phase.FINISHED, home=2, away=3)) == 0.0

    def test_lead_probabilities_are_a_distribution(self) -> None:
        """Above, equal and below a margin sum to one."""
        now = in_play(2, 800, 2, 1)
        for margin in range(-6, 7):
            more, equal = lead_probabilities(EVEN, now, margin)
            next_more, _ = lead_probabilities(EVEN, now, margin - 1)
            assert more + equal == pytest.approx(next_more)

    def test_poisson_sums_to_one(self) -> None:
        """The tail is in the last entry."""
        for mean in (0.0, 0.3, 3.0, 9.0):
            assert sum(poisson(mean)) == pytest.approx(1.0)

    def test_overtime(self) -> None:
        """Sudden death between equals is even; with no time left the shootout decides."""
        assert overtime_probability(EVEN, OVERTIME_S) == pytest.approx(0.5)
        assert overtime_probability(Strengths(4.0, 2.0), OVERTIME_S) > 0.55
        assert overtime_probability(Strengths(4.0, 2.0), 0.0) == pytest.approx(0.5)

    def test_shootout_ends_when_it_cannot_be_caught(self) -> None:
        """Two goals ahead with one shot left for the other is over; level after three goes on."""
        assert shootout_winner((2, 2), (2, 0)) is Team.HOME
        assert shootout_winner((3, 3), (1, 1)) is None
        assert shootout_winner((3, 4), (1, 2)) is None
        assert shootout_winner((4, 4), (1, 2)) is Team.AWAY
        assert shootout_probability((0, 0), (0, 0)) == pytest.approx(0.5)
        assert shootout_probability((0, 1), (0, 1)) < 0.5


class TestLines:
    def test_totals_fall_with_the_line(self) -> None:
        """More goals are less likely, and what has been scored is certain."""
        now = in_play(3, 600, 3, 2)
        chances = [total_probability(EVEN, now, line) for line in range(3, 10)]

        assert chances == sorted(chances, reverse=True)
        assert chances[0] == pytest.approx(1.0)

    def test_a_tie_late_is_sure_to_bring_one_more_goal(self) -> None:
        """2-2 with a second left: overtime or shootout adds exactly one."""
        now = in_play(3, 1, 2, 2)

        assert total_probability(EVEN, now, 4) > 0.98
        assert total_probability(EVEN, now, 5) < 0.02

    def test_spread_needs_more_than_a_win(self) -> None:
        """Winning by more than one is less likely than winning; overtime wins are by one."""
        now = in_play(2, 600, 2, 1)

        assert margin_probability(EVEN, now, Team.HOME, 1) < win_probability(EVEN, now)
        assert (
            margin_probability(EVEN, Situation(phase=Phase.OVERTIME, period=4, clock_left=100), Team.HOME, 1)
            == 0.0
        )


class TestScript:
    def test_every_game_has_a_winner_and_runs_forward(self, scripts: list[GameScript]) -> None:
        """Times rise, the end is the end, nobody ties."""
        for script in scripts:
            times = [event.at for event in script.events]
            assert times == sorted(times)
            assert script.events[0].kind is GameEventKind.START
            assert [e.kind for e in script.events].count(GameEventKind.FINISH) == 1
            assert script.final.phase is Phase.FINISHED
            assert script.final.lead != 0

    def test_the_score_is_the_goals(self, scripts: list[GameScript]) -> None:
        """Each goal adds one to its team; a won shootout counts as one."""
        for script in scripts:
            goals = Counter(e.team for e in script.events if e.kind is GameEventKind.GOAL)
            extra = Counter([script.winner] if script.final.period == 5 else [])
            assert script.final.home == goals[Team.HOME] + extra[Team.HOME]
            assert script.final.away == goals[Team.AWAY] + extra[Team.AWAY]

    def test_league_averages(self, scripts: list[GameScript]) -> None:
        """About six to seven goals a game, a quarter to a fifth past regulation at most, home a little ahead."""
        games = len(scripts)
        goals = sum(s.final.home + s.final.away for s in scripts) / games
        late = sum(s.final.period >= 4 for s in scripts) / games
        home = sum(s.winner is Team.HOME for s in scripts) / games

        assert 5.8 < goals < 7.2
        assert 0.12 < late < 0.27
        assert 0.48 < home < 0.58

    def test_the_clock_runs_only_in_play(self, scripts: list[GameScript]) -> None:
        """During a period the clock falls, in the intermission it stands at a whole period."""
        script = scripts[0]
        breaks = [e for e in script.events if e.after.phase is Phase.INTERMISSION]

        assert script.situation(100.0).clock_left == pytest.approx(PERIOD_S - 55.0)
        assert script.situation(breaks[0].at + 500).clock_left == PERIOD_S
        assert script.situation(-1.0).phase is Phase.PRE_GAME
        assert script.situation(script.duration + 9).phase is Phase.FINISHED

    @pytest.mark.parametrize("at", [-1.0, 3000.0, 6800.0, 8000.0])
    def test_chances_come_true_as_often_as_they_say(self, scripts: list[GameScript], at: float) -> None:
        """Calibration: in each fifth of the forecasts the home team wins about as often as forecast."""
        bins: dict[int, list[tuple[float, bool]]] = {}
        for script in scripts:
            chance = win_probability(script.strengths, script.situation(at))
            bins.setdefault(min(int(chance * 5), 4), []).append((chance, script.winner is Team.HOME))

        for found in bins.values():
            said = sum(chance for chance, _ in found) / len(found)
            came = sum(won for _, won in found) / len(found)
            noise = 4 * (said * (1 - said) / len(found)) ** 0.5
            assert abs(said - came) < noise + 0.03

    def test_same_seed_same_game(self) -> None:
        """A script follows from its random stream alone."""
        first, second = (draw_game(EVEN, Random("x")) for _ in range(2))

        assert first.events == second.events
        assert first.events != draw_game(EVEN, Random("y")).events

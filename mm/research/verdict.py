"""What a sweep says: each trial's figures, the choice walked forward, and what is left of the best after so many trials.

Everything is by game: both markets of a match are one bet, and games are taken as independent of each other.

The best of many trials looks good by chance. Two corrections, both over all trials at once:

- The deflated Sharpe ratio (Bailey and Lopez de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40,
  2014): the probability that the best trial's Sharpe ratio by game is above what the best of so many worthless trials
  would be expected to show, given the spread of the trials' ratios, and skew and kurtosis of the best one's games.
- The maximum statistic under random signs (Romano and Wolf, "Exact and Approximate Stepdown Methods for Multiple
  Hypothesis Testing", JASA 100, 2005; White's reality check, Econometrica 68, 2000): games' results get random signs,
  the same for all trials, and how often the best t statistic then is at least the one that was found is the p value.
"""

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Final

import attrs

from mm.research.sums import Interval, interval
from mm.research.trials import GameResult

FLIPS: Final = 2_000
_EULER: Final = 0.5772156649015329


@attrs.frozen(kw_only=True)
class TrialResult:
    """One parameter set over everything."""

    number: int
    parameters: Mapping[str, str]
    games: Mapping[str, GameResult]
    """Each game once, by name."""

    @property
    def net(self) -> int:
        """After fees, `Money`."""
        return sum(game.net for game in self.games.values())

    @property
    def contracts(self) -> int:
        """`Count`."""
        return sum(game.contracts for game in self.games.values())

    @property
    def fills(self) -> int:
        """Quote and exit fills."""
        return sum(game.fills for game in self.games.values())

    def on(self, days: Iterable[str]) -> list[GameResult]:
        """The games of these days."""
        wanted = set(days)
        return [game for game in self.games.values() if game.day in wanted]

    @property
    def dollars_a_game(self) -> Interval:
        """Over all games, also those in which nothing was traded: not to trade is a choice of the parameters."""
        return dollars(self.games.values())


def dollars(games: Iterable[GameResult]) -> Interval:
    """Net, dollars a game."""
    return interval((game.game, game.net / 1e6, 1.0) for game in games)


@attrs.frozen(kw_only=True)
class Step:
    """One step of the walk: chosen on the days before, judged on those after."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    chosen: int
    in_sample: Interval
    out_of_sample: Interval


@attrs.frozen(kw_only=True)
class Verdict:
    """What all trials together say."""

    best: TrialResult
    steps: tuple[Step, ...]
    walked: Interval | None
    """Out of sample over all steps, dollars a game; None when there were not enough days."""
    tried: int
    """Trials that the corrections count."""
    sharpe: float
    """Of the best, by game."""
    expected_sharpe: float
    """That the best of so many worthless trials would show."""
    deflated: float | None
    """Probability that the best is better than that; None with fewer than three games."""
    p_value: float
    """Of the best under random signs, all trials taken into account."""


def judge(trials: Sequence[TrialResult], blocks: int, tried: int, seed: int) -> Verdict:
    """The verdict; `tried` counts trials made elsewhere too. Ties go to the lower number."""
    best = max(trials, key=lambda trial: (trial.dollars_a_game.value, -trial.number))
    steps = walk(trials, blocks)
    found = [game for step in steps for game in trials[step.chosen].on(step.test)]
    sharpe, expected, deflated = deflated_sharpe(trials, best, max(tried, len(trials)))
    return Verdict(
        best=best,
        steps=tuple(steps),
        walked=dollars(found) if steps else None,
        tried=max(tried, len(trials)),
        sharpe=sharpe,
        expected_sharpe=expected,
        deflated=deflated,
        p_value=best_by_chance(trials, seed),
    )


# --- walking forward --------------------------------------------------------------------------------------------------


def walk(trials: Sequence[TrialResult], blocks: int) -> list[Step]:
    """Days in `blocks` parts, in order; for each part but the first: the best on all days before it, on that part."""
    days = sorted({game.day for trial in trials for game in trial.games.values()})
    parts = [part for part in _parts(days, blocks) if part]
    steps = []
    for number in range(1, len(parts)):
        train = tuple(day for part in parts[:number] for day in part)
        chosen = max(trials, key=lambda trial: (dollars(trial.on(train)).value, -trial.number))
        steps.append(
            Step(
                train=train,
                test=parts[number],
                chosen=chosen.number,
                in_sample=dollars(chosen.on(train)),
                out_of_sample=dollars(chosen.on(parts[number])),
            )
        )
    return steps


def _parts(days: Sequence[str], blocks: int) -> list[tuple[str, ...]]:
    edges = [round(i * len(days) / blocks) for i in range(blocks + 1)]
    return [tuple(days[a:b]) for a, b in itertools.pairwise(edges)]


# --- so many trials ---------------------------------------------------------------------------------------------------


def _series(trials: Sequence[TrialResult]) -> tuple[list[str], list[list[float]]]:
    names = sorted({name for trial in trials for name in trial.games})
    nets = [[trial.games[n].net / 1e6 if n in trial.games else 0.0 for n in names] for trial in trials]
    return names, nets


def _moments(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, standard deviation (n - 1), skew, kurtosis (3 for a normal)."""
    n = len(values)
    mean = math.fsum(values) / n
    second, third, fourth = (math.fsum((v - mean) ** k for v in values) / n for k in (2, 3, 4))
    if n < 2 or second <= 0:
        return mean, 0.0, 0.0, 3.0
    return mean, math.sqrt(second * n / (n - 1)), third / second**1.5, fourth / second**2


def deflated_sharpe(
    trials: Sequence[TrialResult], best: TrialResult, tried: int
) -> tuple[float, float, float | None]:
    """The best trial's ratio by game, what chance alone would be expected to show, and the probability beyond it."""
    names, nets = _series(trials)
    ratios = [mean / deviation if deviation else 0.0 for mean, deviation, _, _ in map(_moments, nets)]
    _, spread, _, _ = _moments(ratios) if len(ratios) > 1 else (0.0, 0.0, 0.0, 3.0)
    normal = NormalDist()
    expected = 0.0
    if tried > 1:
        expected = spread * (
            (1 - _EULER) * normal.inv_cdf(1 - 1 / tried) + _EULER * normal.inv_cdf(1 - 1 / (tried * math.e))
        )
    place = next(i for i, trial in enumerate(trials) if trial.number == best.number)
    _, _, skew, kurtosis = _moments(nets[place])
    ratio = ratios[place]
    variance = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    if len(names) < 3 or variance <= 0:
        return ratio, expected, None
    return ratio, expected, normal.cdf((ratio - expected) * math.sqrt(len(names) - 1) / math.sqrt(variance))


def best_by_chance(trials: Sequence[TrialResult], seed: int) -> float:
    """How often random signs of the games give some trial a t statistic as high as the best one's."""
    names, nets = _series(trials)
    n = len(names)
    squares = [math.fsum(v * v for v in series) for series in nets]

    def statistic(total: float, square: float) -> float:
        variance = (square - total * total / n) / (n - 1) if n > 1 else 0.0
        return total / math.sqrt(n * variance) if variance > 1e-12 else 0.0

    highest = max(statistic(math.fsum(series), square) for series, square in zip(nets, squares, strict=True))
    chance = random.Random(f"{seed}/signs")  # noqa: S311 - repeatable on purpose
    every = 2**n <= FLIPS
    beyond = 0
    rounds = 2**n if every else FLIPS
    for number in range(rounds):
        signs = [1 if (number >> i if every else chance.getrandbits(1)) & 1 else -1 for i in range(n)]
        top = max(
            statistic(sum(map(float.__mul__, series, map(float, signs))), square)
            for series, square in zip(nets, squares, strict=True)
        )
        beyond += top >= highest - 1e-12
    return beyond / rounds if every else (beyond + 1) / (rounds + 1)

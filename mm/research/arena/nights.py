"""The games of a night: each window begins some minutes before one of the game's goals, while the game is open."""

from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import eastern_date
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.slate.games import GameEventKind, win_probability
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize
from mm.exchange.embedded.slate.goals import GoalBehaviour
from mm.exchange.embedded.slate.schedule import Fixture, Schedule, game_seed
from mm.exchange.embedded.slate.script import GameScript, draw_game, draw_strengths

WINDOW_S: Final = 1800.0
"""Half an hour of each game."""
BEFORE_S: Final = (300.0, 1500.0)
"""The chosen goal falls so long after the window's beginning."""
OPEN: Final = (0.14, 0.86)
"""The home team's chance when the window begins."""
GAMES: Final = 8
"""Games a night, all at once: sixteen markets share one write budget."""


@attrs.define(eq=False)
class Clock:
    """A `Driver` whose clock is set by hand."""

    core: ExchangeCore
    now: Micros

    def clock(self) -> Micros:
        """The time."""
        return self.now

    def batch_done(self) -> None:
        """Nobody waits for batches here."""


def window(rng: Random) -> tuple[GameScript, float]:
    """A game, and the game time at which its window begins; the game does not end within it."""
    while True:
        script = draw_game(draw_strengths(rng), rng)
        goals = [event.at for event in script.events if event.kind is GameEventKind.GOAL]
        if not goals:
            continue
        begin = rng.choice(goals) - rng.uniform(*BEFORE_S)
        if begin < 60.0 or begin + WINDOW_S > script.duration - 60.0:
            continue
        if OPEN[0] < win_probability(script.strengths, script.situation(begin)) < OPEN[1]:
            return script, begin


def open_night(
    seed: int, driver: Clock, behaviour: GoalBehaviour, listed: Callable[[], None], games: int = GAMES
) -> GeneratedSlate:
    """A slate with the night's games, all of them listed at the driver's time. `listed` is called after each."""
    slate = GeneratedSlate(seed=seed, speed=1.0, size=SlateSize(games=games), goals=behaviour)
    slate.prepare(driver)
    schedule, date = Schedule(seed), eastern_date(driver.clock())
    for number in range(games):
        script, begin = window(game_seed(seed, number, "window"))
        fixture = Fixture(number=number, pairing=schedule.next_pairing(date), script=script, starts_in=-begin)
        slate.announce(fixture, number)
        listed()
    return slate


def start_of(seed: int) -> Micros:
    """When a night begins: the same evening for all, a second apart, so that ids differ."""
    return Micros((1_795_500_000 + seed) * SECOND)

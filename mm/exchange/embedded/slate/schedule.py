"""Who plays whom, and when: the pairs of a day, the games' seeds, and how far each game is when the exchange starts.

Pure and seeded. A day has 992 pairings (each team at home against each other once); none comes twice on one day.
"""

import datetime as dt
import math
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Final

import attrs

from mm.exchange.embedded.slate.games import (
    win_probability,
)
from mm.exchange.embedded.slate.script import GameScript, draw_game, draw_strengths
from mm.exchange.embedded.slate.teams import CLUBS, Club

PRE_GAME_S: Final = 1500.0
"""Game time that a game of the first slate may still have before it."""
LATEST_START_S: Final = 7600.0
"""How far into it (game time) a game of the first slate may be: some ten clock minutes before the end."""
PAIRS_A_DAY: Final = len(CLUBS) * (len(CLUBS) - 1)
_OPEN_RANGE: Final = (0.14, 0.86)
"""A game of the first slate has its win probability in here when the exchange starts."""
_UNDECIDED_FOR_S: Final = 12.0
"""Wall seconds for which it stays so."""


class NoPairsLeft(Exception):
    """Every pairing of the day has been listed."""


@attrs.frozen
class Pairing:
    """Two teams, the guest first, as in tickers and titles."""

    away: Club
    home: Club


@attrs.frozen(kw_only=True)
class Fixture:
    """One game to be listed."""

    number: int
    """Counts the exchange's games; names their random streams."""
    pairing: Pairing
    script: GameScript
    starts_in: float
    """Game seconds from the listing to puck drop; negative when the game is on already."""


def game_seed(seed: int, number: int, purpose: str) -> Random:
    """The random stream of one purpose in one game: independent of all others and of the date."""
    return seeded(f"{seed}/{number}/{purpose}")


def seeded(name: str) -> Random:
    """The random stream of that name."""
    return Random(name)  # noqa: S311 - games, not secrets


def round_robin(rng: Random) -> Iterator[Pairing]:
    """All pairings, slate by slate: 31 rounds in which every team plays once, then the same with sides swapped."""
    clubs = list(CLUBS)
    rng.shuffle(clubs)
    fixed, ring = clubs[0], clubs[1:]
    rounds = list(range(len(ring)))
    rng.shuffle(rounds)
    for is_return in (False, True):
        for turn in rounds:
            order = [fixed, *ring[turn:], *ring[:turn]]
            pairs = [(order[i], order[-1 - i]) for i in range(len(order) // 2)]
            for i, (one, other) in enumerate(pairs):
                at_home = ((i + turn) % 2 == 0) != is_return
                yield Pairing(other, one) if at_home else Pairing(one, other)


@attrs.define(eq=False, repr=False)
class Schedule:
    """Hands out fixtures. Everything about them follows from the seed and their number."""

    seed: int
    _date: dt.date | None = None
    _pairs: Iterator[Pairing] = attrs.field(init=False)
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        self._pairs = iter(())

    def next_pairing(self, date: dt.date) -> Pairing:
        """A pairing not yet given out on `date`. Raises `NoPairsLeft` when the day's 992 are used up."""
        if date != self._date:
            self._date = date
            self._pairs = round_robin(seeded(f"{self.seed}/pairs"))
        try:
            return next(self._pairs)
        except StopIteration:
            raise NoPairsLeft(f"all {PAIRS_A_DAY} pairings of {date} are listed") from None

    def first_slate(self, games: int, date: dt.date, speed: float) -> list[Fixture]:
        """`games` fixtures spread evenly from before the start to late in the third period, none decided yet."""
        places = list(range(games))
        seeded(f"{self.seed}/places").shuffle(places)
        found = []
        for place in places:
            share = (place + 0.5) / games
            at = -PRE_GAME_S + share * (LATEST_START_S + PRE_GAME_S)
            found.append(self._fixture(self.next_pairing(date), partial(_open_game, at=at, speed=speed), -at))
        return found

    def next_fixture(self, date: dt.date) -> Fixture:
        """The game that follows one that ended: some minutes of pre-game trading, then puck drop."""
        rng = game_seed(self.seed, self._number, "wait")
        return self._fixture(
            self.next_pairing(date),
            lambda rng: draw_game(draw_strengths(rng), rng),
            rng.uniform(900.0, 2400.0),
        )

    def _fixture(self, pairing: Pairing, draw: Callable[[Random], GameScript], starts_in: float) -> Fixture:
        number, self._number = self._number, self._number + 1
        script = draw(game_seed(self.seed, number, "game"))
        return Fixture(number=number, pairing=pairing, script=script, starts_in=starts_in)


def _open_game(rng: Random, at: float, speed: float) -> GameScript:
    """A game that is open at game time `at` and for the first seconds after it."""
    low, high = _OPEN_RANGE
    script = draw_game(draw_strengths(rng), rng)
    for _ in range(2000):
        span = min(_UNDECIDED_FOR_S * speed, 900.0)
        moments = [at + span * k / 4 for k in range(5)]
        if all(
            low < win_probability(script.strengths, script.situation(moment)) < high for moment in moments
        ):
            return script
        script = draw_game(draw_strengths(rng), rng)
    return script


def clock_text(seconds: float) -> str:
    """Clock seconds as `MM:SS`, rounded up as a scoreboard does."""
    whole = math.ceil(seconds - 1e-9)
    return f"{whole // 60:02d}:{whole % 60:02d}"

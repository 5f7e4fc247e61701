"""A bare exchange for market sources: the core, a clock that the test moves, and everything that was emitted."""

import datetime as dt
import hashlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import from_datetime
from mm.exchange.embedded.core.events import CoreEvent
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize
from mm.exchange.embedded.slate.replay import Replay

START = from_datetime(dt.datetime(2026, 11, 24, 22, 0, tzinfo=dt.UTC))
STEP_S = 0.005


@attrs.define(eq=False, repr=False, slots=False)
class Venue:
    """A `Driver` without a loop: `play` moves the clock and lets a source work."""

    now: Micros = START
    log: list[CoreEvent] = attrs.field(factory=list)
    core: ExchangeCore = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        numbers = itertools.count()
        self.core = ExchangeCore(Rules(), lambda: f"id-{next(numbers)}", self.log.append)

    def clock(self) -> Micros:
        return self.now

    def batch_done(self) -> None:
        """Nothing to send to."""

    def play(
        self,
        source: GeneratedSlate | Replay,
        seconds: float,
        each: Callable[[], bool | None] | None = None,
        step_s: float = STEP_S,
    ) -> None:
        """Let wall time pass. `each` is called after every step; True ends the play."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.now = Micros(self.now + int(step_s * SECOND))
            self.core.advance(self.now)
            while source.work(self.now):
                pass
            if each is not None and each():
                return

    def trace(self) -> str:
        """A hash over everything that was emitted."""
        return hashlib.sha256("\n".join(map(repr, self.log)).encode()).hexdigest()


@pytest.fixture(name="venue")
def _venue() -> Venue:
    return Venue()


@pytest.fixture(name="make_venue")
def _make_venue() -> Callable[[], Venue]:
    return Venue


@pytest.fixture(name="open_slate")
def _open_slate() -> Callable[..., tuple[Venue, GeneratedSlate]]:
    """A factory: `open_slate(seed, speed, games=.., markets=..)` gives a venue with an opened slate."""

    def make(
        seed: int = 1,
        speed: float = 10.0,
        games: int = 16,
        markets: int | None = None,
        at: Micros = START,
    ) -> tuple[Venue, GeneratedSlate]:
        venue = Venue(now=at)
        slate = GeneratedSlate(seed=seed, speed=speed, size=SlateSize(games=games, markets=markets))
        slate.open(venue)
        return venue, slate

    return make


@pytest.fixture(name="recording_path")
def _recording_path() -> Callable[[str], Path]:
    """A factory: the path of a real recording, or a skip when the recordings are not on this machine."""
    root = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[4] / "../shared/data"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"the recording {name} is not here (MM_RECORDINGS)")
        return path

    return find

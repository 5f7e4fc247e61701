"""Probabilities from outside: a JSON file of ticker to probability, read again whenever it changes.

For `FAIR_VALUE=external`. Whoever works them out writes the file anew (best: writes beside it and renames). A file that
cannot be read leaves what was known to grow old, and is told once.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, NoReturn, Protocol

import attrs
import structlog
import trio

from mm.domain.numbers import DOLLAR, Micros, Price
from mm.domain.order import MarketTicker
from mm.tasks.floor import Floor

log = structlog.get_logger(__name__)

PERIOD_S: Final = 2.0
_Read = tuple[float, str]


class Runner(Protocol):
    """Runs blocking work off the event loop."""

    def __call__(self, work: Callable[[], _Read], /) -> Awaitable[_Read]: ...


def read_file(path: Path, known: float) -> _Read:
    """When the file was changed, and its text; empty when that is `known`. Blocks on the disk. Raises `OSError`."""
    changed = path.stat().st_mtime
    return changed, "" if changed == known else path.read_text()


def parse_probabilities(text: str) -> Mapping[MarketTicker, Price]:
    """Ticker to probability, rounded to 1/10,000. Raises `ValueError` naming what is wrong."""
    found = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    if not isinstance(found, dict):
        raise ValueError("must be an object of ticker to probability")
    prices: dict[MarketTicker, Price] = {}
    for ticker, value in found.items():
        try:
            probability = Decimal(value)
        except (InvalidOperation, TypeError):
            raise ValueError(f"{ticker}: {value!r} is no probability") from None
        if not 0 < probability < 1:
            raise ValueError(f"{ticker}: {value} lies outside 0..1")
        prices[MarketTicker(ticker)] = Price(
            min(max(int((probability * DOLLAR).to_integral_value()), 1), DOLLAR - 1)
        )
    return prices


@attrs.define(eq=False, kw_only=True)
class Probabilities:
    """The task. What a market is told stays until the file says something else; strategies see how old it is."""

    path: Path
    floor: Floor
    runner: Runner
    clock: Callable[[], Micros]
    on_problem: Callable[[str], None]
    prices: Mapping[MarketTicker, Price] = attrs.field(factory=dict)
    read_at: Micros = Micros(0)
    _changed: float = 0.0
    _problem: str = ""

    async def run(self) -> NoReturn:
        """Look at the file for ever."""
        while True:
            await self.look()
            await trio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Read the file if it has changed, and tell every market what it says of it."""
        try:
            changed, text = await self.runner(lambda: read_file(self.path, self._changed))
            if text:
                self.prices, self.read_at = parse_probabilities(text), self.clock()
            self._changed, self._problem = changed, ""
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            if why != self._problem:
                self._problem = why
                log.warning("probabilities", path=str(self.path), problem=why)
                self.on_problem(f"PROBABILITIES_FILE={str(self.path)!r}: {why}")
        for ticker, price in self.prices.items():
            maker = self.floor.makers.get(ticker)
            told = (price, self.read_at)
            if maker is not None and maker.context.external != told:
                maker.context.external = told
                self.floor.mark(ticker)
        self.floor.decide_dirty(self.clock())

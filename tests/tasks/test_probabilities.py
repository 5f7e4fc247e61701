"""Probabilities from a file: read when it changes, told to the markets, and a broken file is told once."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Micros
from mm.domain.order import MarketTicker
from mm.engine.parameters import StrategyParameters
from mm.tasks.floor import Floor
from mm.tasks.positions import Positions
from mm.tasks.probabilities import Probabilities, parse_probabilities

M = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
T0 = Micros(1_790_000_000 * SECOND)


async def inline(work: Callable[[], tuple[float, str]]) -> tuple[float, str]:
    return work()


async def test_what_the_file_says_reaches_its_market_and_a_broken_one_is_told_once(tmp_path: Path) -> None:
    """A new file replaces the old; what cannot be read leaves what was known."""
    floor = Floor(parameters=StrategyParameters(), clock=lambda: T0, positions=Positions())
    market = Market(ticker=M, event_ticker=M[:-4], status=MarketStatus.ACTIVE, grid=uniform_grid(CENT))
    maker = floor.add_market(market)
    path, problems = tmp_path / "p.json", list[str]()
    task = Probabilities(path=path, floor=floor, runner=inline, clock=lambda: T0, on_problem=problems.append)
    await task.look()
    await task.look()
    assert len(problems) == 1
    path.write_text(json.dumps({M: 0.613, "KXOTHER-X-Y": 0.5}))
    await task.look()
    assert maker.context.external == (6_130, T0)
    path.write_text("{}x")
    os.utime(path, (1, 1))
    await task.look()
    assert maker.context.external == (6_130, T0)
    assert len(problems) == 2


@pytest.mark.parametrize("text", ["[]", '{"A-B-C": 1}', '{"A-B-C": 0}', '{"A-B-C": "often"}', "no json"])
def test_what_is_no_probability_is_refused(text: str) -> None:
    """Strictly between 0 and 1, by ticker."""
    with pytest.raises(ValueError, match=r".+"):
        parse_probabilities(text)

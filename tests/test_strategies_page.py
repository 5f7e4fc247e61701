"""The examples of docs/strategies.md are run: the strategy quotes and trades in a back-test, the source answers."""

import re
from pathlib import Path
from typing import Any

from mm.domain.book import OrderBook
from mm.domain.grid import uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, Count, Micros, Price
from mm.domain.order import MarketTicker
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.registry import BUILT_IN, StrategyTable, build_strategy, check_strategy
from mm.engine.strategies.view import View
from mm.research.options import BacktestOptions
from mm.research.outcome import run_tape
from tapes import wandering_tape

PAGE = Path(__file__).resolve().parent.parent / "docs" / "strategies.md"


def example(name: str) -> dict[str, Any]:
    """The names that a marked code block of the page defines."""
    text = PAGE.read_text()
    code = re.search(rf"<!-- example: {name} -->\n\n```python\n(.*?)```", text, re.DOTALL)
    assert code is not None, name
    found: dict[str, Any] = {"__name__": f"example_{name.replace(' ', '_')}"}
    exec(compile(code.group(1), str(PAGE), "exec"), found)
    return found


def test_the_example_strategy_is_one_and_trades() -> None:
    """As the page says it: built by name, parameters from text, fills in a back-test."""
    cls = check_strategy(example("strategy")["Consensus"], "docs/strategies.md")
    strategy = build_strategy(cls, {"half_spread": "0.01", "size": "3"})
    tape = wandering_tape(4, markets=2, events=500)
    outcome = run_tape(tape, BacktestOptions(strategies=StrategyTable(strategy)))
    assert outcome.orders > 0
    assert all(fill.fill.count <= 300 for fill in outcome.fills)


def test_the_example_source_answers_a_price() -> None:
    """Half way from 0.40 to even odds is 0.45."""
    book = OrderBook()
    book.snapshot([(Price(3_900), Count(100))], [(Price(4_100), Count(100))])
    touch = Touch(Price(3_900), Price(4_100))
    ticker = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
    inventory = InventoryState()
    view = View(
        now=Micros(0),
        market=Market(
            ticker=ticker, event_ticker=ticker[:-4], status=MarketStatus.ACTIVE, grid=uniform_grid(CENT)
        ),
        book=book,
        touch=touch,
        others=touch,
        inventory=inventory,
        ruled=inventory,
        mark=Price(4_000),
        parameters=StrategyParameters(),
    )
    assert example("fair value")["half_way_home"](view) == 4_500


def test_the_page_names_every_strategy() -> None:
    """What can be chosen is on the page."""
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in BUILT_IN)

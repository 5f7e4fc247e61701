"""`mm evaluate`: gates 0 and 1 say pass or fail with figures, a cheat is caught, and the result is kept."""

import csv
import io
import json
import random
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from mm.domain.errors import ConfigError
from mm.domain.numbers import Count
from mm.domain.order import Side
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.blocks import place
from mm.engine.strategies.hybrid import Hybrid
from mm.engine.strategies.join import Join
from mm.engine.strategies.view import Quote, View
from mm.research.command import read_all
from mm.research.evaluate import find_prints, run_evaluate
from mm.research.gates import Examiner


def write_prints(folder: Path, markets: int = 2, prints: int = 90) -> list[Path]:
    """Prints of a price that wanders, a file a market."""
    paths = []
    for n in range(markets):
        chance = random.Random(f"prints {n}")
        path = folder / f"KXTESTGAME-25NOV08AAABB{n}-AAA.csv"
        price, second = 50, 0
        with path.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["ticker", "created_time", "price", "count", "taker_side", "trade_id"])
            for k in range(prints):
                price = min(max(price + chance.choice((-1, -1, 0, 1, 1)), 20), 80)
                second += chance.randrange(1, 20)
                rows.writerow(
                    [
                        path.stem,
                        f"2025-11-08T{10 + second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.250000Z",
                        f"{price / 100:.2f}",
                        chance.randrange(1, 400),
                        chance.choice(("yes", "no")),
                        f"{n}-{k}",
                    ]
                )
        paths.append(path)
    return paths


@attrs.frozen(kw_only=True)
class Lopsided(Strategy):
    """Only ever buys: a mirrored world makes it do something else."""

    name: ClassVar[str] = "lopsided"

    def quote(self, view: View) -> Quote:
        bid = view.others.best_bid
        return Quote(None if bid is None else place(view, Side.BID, bid, Count(500), Count(5_000)), None)


def test_the_inherited_rules_are_honest_and_no_better_than_themselves(tmp_path: Path) -> None:
    """Gate 0 passes on all six questions; gate 1 fails by definition, with equal figures on both sides."""
    found = Examiner(read_all(write_prints(tmp_path)), StrategyParameters()).evaluate(Hybrid())
    assert [check.is_passed for check in found.honesty if "latency" not in check.question] == [True] * 5
    assert not found.gate_1
    assert found.figures == found.baseline
    assert any("+0.00 c" in check.figures for check in found.prints)


def test_a_strategy_that_treats_the_two_outcomes_differently_fails_gate_0(tmp_path: Path) -> None:
    """The mirror shows it, with how many fills agree."""
    found = Examiner(read_all(write_prints(tmp_path)), StrategyParameters()).evaluate(Lopsided())
    failed = [check for check in found.honesty if not check.is_passed]
    assert any("mirrored" in check.question for check in failed)
    assert not found.gate_0


def test_the_command_says_it_in_words_and_keeps_it(tmp_path: Path) -> None:
    """Exit code 3 when a gate fails; the file has the gates and the strategy's fingerprint."""
    out = io.StringIO()
    code = run_evaluate("join", trades=write_prints(tmp_path), data_dir=tmp_path, stdout=out)
    kept = json.loads((tmp_path / "evaluations" / "join.json").read_text())
    assert code == (0 if kept["gates"]["0"] and kept["gates"]["1"] else 3)
    assert kept["gates"]["2"] is None
    assert kept["strategy"] == Join.name
    for words in ("gate 0, honesty", "gate 1, old prints", "gate 2, money: not run", "20% share", "kept in"):
        assert words in out.getvalue()


def test_without_recordings_it_says_what_is_missing(tmp_path: Path) -> None:
    """The setting, the folder, and what to do."""
    with pytest.raises(ConfigError, match=r"MM_RECORDINGS=.*no prints in trade_prints_nov2025"):
        find_prints(tmp_path)

"""`mm evaluate STRATEGY`: gates 0 and 1 on the recorded prints, said in words, and kept for the live report."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import attrs

from mm.domain.errors import ConfigError
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.base import Strategy
from mm.research.command import read_all
from mm.research.gates import Check, Evaluation, Examiner, ModelFigures
from mm.research.variants import make_variant, split_sets
from mm.settings.load import load_settings
from mm.settings.proof import evaluation_path, fingerprint
from mm.tasks.backtest import write_atomically

RECORDINGS: Final = "MM_RECORDINGS"
PRINTS: Final = "trade_prints_nov2025"
GATE_2: Final = "needs 80 matches recorded with depth and trades after the strategy was committed (`mm record`): there are none"


def recordings_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the recordings lie: `MM_RECORDINGS`, else beside the repository."""
    environ = os.environ if environ is None else environ
    return Path(environ.get(RECORDINGS) or "../shared/data")


def find_prints(folder: Path) -> list[Path]:
    """The prints that gate 1 is about. Raises `ConfigError` when they are not there."""
    found = sorted((folder / PRINTS).glob("*.csv.gz"))
    if not found:
        raise ConfigError(
            [
                f"{RECORDINGS}={str(folder)!r}: no prints in {PRINTS}/*.csv.gz; gates 0 and 1 need recordings of public"
                " trades (set MM_RECORDINGS to the folder that holds them, or name files with --trades)"
            ]
        )
    return found


def run_evaluate(
    name: str,
    *,
    trades: Sequence[Path] = (),
    sets: Sequence[str] = (),
    data_dir: Path | None = None,
    stdout: IO[str] | None = None,
) -> int:
    """The command: 0 when both gates are passed, 3 when one is not. Raises `ConfigError`."""
    stdout = stdout or sys.stdout
    variant = make_variant(name, name, split_sets(sets))
    paths = list(trades) or find_prints(recordings_folder())
    tape = read_all(paths)
    found = Examiner(tape, variant.parameters).evaluate(variant.strategy)
    stdout.write(in_words(found, len(paths)))
    folder = load_settings().data_dir if data_dir is None else data_dir
    path = evaluation_path(folder, variant.strategy)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document(found, variant.strategy, variant.parameters), indent=1) + "\n")
    stdout.write(f"kept in {path}\n")
    return 0 if found.gate_0 and found.gate_1 else 3


def document(found: Evaluation, strategy: Strategy, parameters: StrategyParameters) -> dict[str, Any]:
    """What is kept: the gates, and the figures that the live report shows beside the live ones."""
    return {
        "schema": 1,
        "strategy": found.strategy,
        "fingerprint": fingerprint(strategy, parameters),
        "gates": {"0": found.gate_0, "1": found.gate_1, "2": None},
        "markets": found.markets,
        "models": [_model(figures) for figures in found.figures],
        "hybrid": [_model(figures) for figures in found.baseline],
        "checks": [attrs.asdict(check) for check in (*found.honesty, *found.prints)],
    }


def _model(figures: ModelFigures) -> dict[str, Any]:
    cents = figures.cents
    return {
        "model": figures.model,
        "contracts": figures.contracts,
        "dollars": round(figures.dollars, 2),
        "cents": round(cents.value, 4),
        "low": None if cents.low is None else round(cents.low, 4),
        "high": None if cents.high is None else round(cents.high, 4),
    }


def in_words(found: Evaluation, files: int) -> str:
    """For people."""
    lines = [f"{found.strategy}: {found.markets} markets in {files} recordings of prints", ""]
    lines.append(f"gate 0, honesty: {_word(found.gate_0)}")
    lines += [_line(check) for check in found.honesty]
    lines.append(f"gate 1, old prints: {_word(found.gate_1)} (it can only fail a strategy)")
    lines += [_line(check) for check in found.prints]
    lines.append(f"gate 2, money: not run: {GATE_2}")
    lines.append("gate 3, pilot: not run: needs gate 2")
    lines.append("")
    for figures in found.figures:
        lines.append(f"{figures.model}: {figures.dollars:+.2f} dollars net, {figures.cents} c a contract")
    return "\n".join(lines) + "\n"


def _word(is_passed: bool) -> str:
    return "passed" if is_passed else "FAILED"


def _line(check: Check) -> str:
    return f"  {'ok  ' if check.is_passed else 'FAIL'} {check.question}: {check.figures}"

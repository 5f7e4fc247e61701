"""What a strategy has shown: the file that `mm evaluate` keeps, and whether it allows trading without an explicit word.

The file stands for one strategy with its parameters: another set of them is another strategy, and has shown nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import attrs

from mm.engine.parameters import PARAMETERS, StrategyParameters
from mm.engine.strategies.base import Strategy

FOLDER: Final = "evaluations"
NEEDED: Final = ("0", "1", "2")
"""Gates to be passed before a strategy may trade live on prod unasked."""
_NOT_STRATEGY: Final = frozenset({"DAILY_LOSS_LIMIT", "PORTFOLIO_MAE_LIMIT", "MAX_MARKETS_TO_TRADE"})


def evaluation_path(data_dir: Path, strategy: Strategy) -> Path:
    """Where the strategy's evaluation is kept."""
    return data_dir / FOLDER / f"{strategy.name}.json"


def fingerprint(strategy: Strategy, parameters: StrategyParameters) -> str:
    """Names a strategy with its parameters; equal for equal ones, in any process."""
    own = {
        f.name: str(getattr(strategy, f.name)) for f in attrs.fields(type(strategy)) if f.name != "fair_value"
    }
    shared = {
        row.name: str(getattr(parameters, row.attribute))
        for row in PARAMETERS
        if row.name not in _NOT_STRATEGY
    }
    source = strategy.fair_value
    fair = "" if source is None else getattr(source, "__qualname__", type(source).__qualname__)
    text = json.dumps([strategy.name, own, fair, shared], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_evaluation(data_dir: Path, strategy: Strategy) -> dict[str, Any] | None:
    """What is kept of the strategy, whatever its parameters; None where nothing (readable) is."""
    try:
        found = json.loads(evaluation_path(data_dir, strategy).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def why_unproven(data_dir: Path, strategy: Strategy, parameters: StrategyParameters) -> str:
    """Why the strategy is not proven, in words; empty when it is."""
    found = read_evaluation(data_dir, strategy)
    if found is None:
        return f"there is no evaluation of it; `mm evaluate {strategy.name}` makes one"
    if found.get("fingerprint") != fingerprint(strategy, parameters):
        return "its evaluation is of other parameters"
    gates = found.get("gates") or {}
    missing = [gate for gate in NEEDED if gates.get(gate) is not True]
    if not missing:
        return ""
    failed = [gate for gate in missing if gates.get(gate) is False]
    if failed:
        return f"it failed gate {' and '.join(failed)}"
    return f"gate {' and '.join(missing)} has not been run"

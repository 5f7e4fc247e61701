"""What a strategy has shown: the file that `mm evaluate` keeps, and whether it allows trading without an explicit word.

The file stands for one strategy with its parameters: another set of them is another strategy, and has shown nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import attrs

from mm.domain.errors import ConfigError
from mm.domain.numbers import CONTRACT, Count
from mm.engine.parameters import PARAMETERS, StrategyParameters
from mm.engine.strategies.base import Strategy
from mm.settings.kinds import Environment
from mm.settings.load import Settings

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


def unproven(settings: Settings, *, on_paper: bool) -> dict[str, str]:
    """Strategies that would trade live on prod without having shown what they must, each with why. Empty elsewhere."""
    is_live = settings.environment is Environment.PROD and not settings.orders_on_paper(on_paper)
    if not is_live:
        return {}
    found = {
        strategy.name: why_unproven(settings.data_dir, strategy, settings.strategy)
        for strategy in settings.strategies.all
    }
    return {name: why for name, why in found.items() if why}


def accepted_or_refused(settings: Settings, *, on_paper: bool) -> Settings:
    """What to trade with: the settings, with sizes capped while an unproven strategy is among them.

    Raises:
        ConfigError: A strategy that is not proven and was not accepted by name.
    """
    names = unproven(settings, on_paper=on_paper)
    if not names:
        return settings
    accepted = {name.strip() for name in settings["I_ACCEPT_UNPROVEN_STRATEGY"].split(",")}
    problems = [
        f"STRATEGY {name} has not passed gates 0 to 2: {why}. Live on prod it needs I_ACCEPT_UNPROVEN_STRATEGY={name}"
        for name, why in names.items()
        if name not in accepted
    ]
    if problems:
        raise ConfigError(problems)
    cap = settings["UNPROVEN_SIZE_CAP"]
    if cap is None:
        return settings
    most = Count(cap * CONTRACT)
    before = settings.strategy
    capped = attrs.evolve(
        before,
        size_per_fill=Count(min(before.size_per_fill, most)),
        max_inventory_per_market=Count(min(before.max_inventory_per_market, 2 * most)),
    )
    return attrs.evolve(settings, strategy=capped)


def warnings(settings: Settings, *, on_paper: bool) -> list[str]:
    """What a user is told at the start, a line for each unproven strategy."""
    cap = settings["UNPROVEN_SIZE_CAP"]
    size = "without a cap on its size" if cap is None else f"with quotes of at most {cap} contracts"
    return [
        f"strategy {name} trades live and is not proven ({why}), {size}"
        for name, why in unproven(settings, on_paper=on_paper).items()
    ]

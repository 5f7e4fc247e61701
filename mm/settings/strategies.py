"""The strategies that the settings ask for: names to classes, also those of third parties, with their parameters.

A class of a third party is named by its dotted path (`package.module.Class`), or by an entry point in the group
`mm.strategies` of an installed package.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from mm.domain.errors import ConfigError
from mm.engine.strategies.base import FairValue, Strategy
from mm.engine.strategies.fair import SOURCES, fair_value_source
from mm.engine.strategies.registry import (
    BUILT_IN,
    StrategyTable,
    build_strategy,
    check_strategy,
    parse_assignments,
)

GROUP: Final = "mm.strategies"
FAIR_GROUP: Final = "mm.fair_values"


def strategy_class(name: str) -> type[Strategy]:
    """The class of that name: built in, from an entry point, or a dotted path. Raises `ConfigError`."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    where = f"STRATEGY={name!r}"
    known = f"known: {', '.join(BUILT_IN)}, entry points of {GROUP}, package.module.Class"
    return check_strategy(_foreign(name, GROUP, where, known), where)


def fair_value(name: str) -> FairValue | None:
    """The fair-value source of that name; None for the empty name. Raises `ConfigError`."""
    if not name or name in SOURCES:
        return fair_value_source(name)
    where = f"FAIR_VALUE={name!r}"
    known = f"known: {', '.join(SOURCES)}, entry points of {FAIR_GROUP}, package.module.name"
    found = _foreign(name, FAIR_GROUP, where, known)
    source = found() if isinstance(found, type) else found
    if not callable(source):
        raise ConfigError([f"{where}: cannot be called with a view"])
    return source  # type: ignore[no-any-return]


def _foreign(name: str, group: str, where: str, known: str) -> Any:
    for point in entry_points(group=group):
        if point.name == name:
            return point.load()
    module, dot, attribute = name.rpartition(".")
    if not dot:
        raise ConfigError([f"{where}: no such name; {known}"])
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"{where}: {error}"]) from None


def parse_own_parameters(text: str) -> dict[str, dict[str, str]]:
    """`name.parameter=value,...` as strategy -> parameter -> text. Raises `ConfigError`."""
    found: dict[str, dict[str, str]] = {}
    problems = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        left, equals, value = part.partition("=")
        name, dot, parameter = left.strip().rpartition(".")
        if not equals or not dot or not name or not parameter:
            problems.append(f"STRATEGY_PARAMETERS: {part!r} must be STRATEGY.PARAMETER=VALUE")
        else:
            found.setdefault(name, {})[parameter] = value.strip()
    if problems:
        raise ConfigError(problems)
    return found


def load_strategies(values: Mapping[str, Any]) -> StrategyTable:
    """What `STRATEGY`, `STRATEGY_PARAMETERS` and `FAIR_VALUE` ask for.

    Raises:
        ConfigError: Naming the setting, and what is known.
    """
    default, by_prefix = parse_assignments(values["STRATEGY"])
    parameters = parse_own_parameters(values["STRATEGY_PARAMETERS"])
    source = fair_value(values["FAIR_VALUE"])
    built: dict[str, Strategy] = {}
    for name in (default, *by_prefix.values()):
        if name not in built:
            built[name] = build_strategy(strategy_class(name), parameters.get(name), source)
    idle = sorted(set(parameters) - set(built))
    if idle:
        raise ConfigError([f"STRATEGY_PARAMETERS: {', '.join(idle)} is not used by STRATEGY"])
    return StrategyTable(built[default], {prefix: built[name] for prefix, name in by_prefix.items()})

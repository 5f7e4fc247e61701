"""What `--strategy` asks for: a strategy and its parameters, under a label."""

from collections.abc import Mapping, Sequence

import attrs

from mm.domain.errors import ConfigError
from mm.engine.parameters import PARAMETERS_BY_NAME, StrategyParameters, build_parameters
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.registry import DEFAULT, StrategyTable, build_strategy
from mm.settings.strategies import strategy_class


@attrs.frozen(kw_only=True)
class Variant:
    """One strategy with its parameters."""

    label: str
    strategy: Strategy
    parameters: StrategyParameters

    @property
    def table(self) -> StrategyTable:
        """Every market gets it."""
        return StrategyTable(self.strategy)


def split_sets(sets: Sequence[str], what: str = "--set") -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping; of one name the last counts. Raises `ConfigError`."""
    problems = [f"{what} {text!r}: expected NAME=VALUE" for text in sets if "=" not in text]
    if problems:
        raise ConfigError(problems)
    pairs = (text.partition("=") for text in sets)
    return {name.strip(): value.strip() for name, _, value in pairs}


def make_variant(label: str, name: str, texts: Mapping[str, str]) -> Variant:
    """A variant; names of the strategy's own parameters and of `StrategyParameters` may be mixed. Raises `ConfigError`."""
    shared = {n: text for n, text in texts.items() if n in PARAMETERS_BY_NAME or n.isupper()}
    own = {n: text for n, text in texts.items() if n not in shared}
    problems: list[str] = []
    strategy, parameters = None, StrategyParameters()
    try:
        strategy = build_strategy(strategy_class(name), own)
    except ConfigError as error:
        problems += error.problems
    try:
        parameters = build_parameters(shared, PARAMETERS_BY_NAME)
    except ConfigError as error:
        problems += error.problems
    if problems or strategy is None:
        raise ConfigError(problems)
    return Variant(label=label, strategy=strategy, parameters=parameters)


def parse_variant(text: str, common: Mapping[str, str]) -> Variant:
    """`[LABEL=]NAME[:PARAMETER=VALUE,...]` over the common parameters. Raises `ConfigError`."""
    head, _, tail = text.partition(":")
    label, equals, name = head.partition("=")
    if not equals:
        label, name = text, head
    own = split_sets([part for part in tail.split(",") if part.strip()], f"--strategy {text!r}:")
    return make_variant(label.strip(), name.strip(), {**common, **own})


def parse_variants(texts: Sequence[str], sets: Sequence[str]) -> list[Variant]:
    """All that were asked for; the default strategy when none was. Raises `ConfigError` with every problem."""
    problems: list[str] = []
    found: list[Variant] = []
    try:
        split_sets(sets)
    except ConfigError as error:
        problems += error.problems
    common = split_sets([text for text in sets if "=" in text])
    for text in texts or [DEFAULT]:
        try:
            found.append(parse_variant(text, common))
        except ConfigError as error:
            problems += [p for p in error.problems if p not in problems]
    labels = [variant.label for variant in found]
    problems += [
        f"--strategy: {label!r} is given twice; name one LABEL=..."
        for label in dict.fromkeys(labels)
        if labels.count(label) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return found

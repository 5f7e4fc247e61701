"""Strategies by name, their parameters from text, and which market gets which.

Where classes of third parties come from (dotted paths, entry points) is the settings' to know: they hand a class in.
"""

import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from mm.domain.errors import ConfigError
from mm.domain.numbers import Count, Micros, Price, parse_decimal
from mm.domain.order import MarketTicker
from mm.engine.strategies.avellaneda_stoikov import AvellanedaStoikov
from mm.engine.strategies.base import FairValue, Strategy
from mm.engine.strategies.hybrid import Hybrid
from mm.engine.strategies.join import Join
from mm.engine.strategies.slow_wide_small import SlowWideSmall

BUILT_IN: Final[dict[str, type[Strategy]]] = {
    strategy.name: strategy for strategy in (Hybrid, SlowWideSmall, AvellanedaStoikov, Join)
}
DEFAULT: Final = Hybrid.name


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ValueError("must be true or false")
    return words[text.lower()]


_READERS: Final[dict[object, tuple[Callable[[str], Any], str]]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (_boolean, "true or false"),
    str: (str, "text"),
    Price: (lambda text: Price(parse_decimal(text, 4)), "dollars"),
    Count: (lambda text: Count(parse_decimal(text, 2)), "contracts"),
    Micros: (lambda text: Micros(parse_decimal(text, 6)), "seconds"),
}


def build_strategy(
    cls: type[Strategy], texts: Mapping[str, str] | None = None, fair_value: FairValue | None = None
) -> Strategy:
    """A strategy with parameters from text: prices in dollars, counts in contracts, times in seconds.

    Raises:
        ConfigError: A parameter that the class does not have, or a text that does not fit it; with what would.
    """
    types_of = typing.get_type_hints(cls)
    known = {
        field.name: types_of[field.name]
        for field in attrs.fields(cls)
        if field.name != "fair_value" and types_of[field.name] in _READERS
    }
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, text in (texts or {}).items():
        if name not in known:
            what = ", ".join(known) or "it has none"
            problems.append(f"{cls.name}: no parameter {name!r}; what can be set: {what}")
            continue
        read, unit = _READERS[known[name]]
        try:
            values[name] = read(text)
        except ValueError as error:
            problems.append(f"{cls.name}.{name}={text!r}: must be {unit} ({error})")
    if problems:
        raise ConfigError(problems)
    return cls(**values, fair_value=fair_value)


def check_strategy(cls: object, where: str) -> type[Strategy]:
    """`cls`, proven to be a strategy that can be built from nothing. Raises `ConfigError` naming `where` it came from."""
    if not isinstance(cls, type) or not issubclass(cls, Strategy):
        raise ConfigError([f"{where}: not a subclass of mm.engine.strategies.base.Strategy"])
    if not cls.name or "__attrs_attrs__" not in vars(cls):
        raise ConfigError([f"{where}: needs a name, and @attrs.frozen(kw_only=True)"])
    if cls.quote is Strategy.quote:
        raise ConfigError([f"{where}: has no quote(view)"])
    return cls


@attrs.frozen
class StrategyTable:
    """Which market gets which strategy: the longest ticker prefix that fits, else the default."""

    default: Strategy = attrs.field(factory=Hybrid)
    by_prefix: Mapping[str, Strategy] = attrs.field(factory=dict)

    def of(self, ticker: MarketTicker) -> Strategy:
        """The market's strategy."""
        fitting = [prefix for prefix in self.by_prefix if ticker.startswith(prefix)]
        return self.by_prefix[max(fitting, key=len)] if fitting else self.default

    @property
    def all(self) -> tuple[Strategy, ...]:
        """Every strategy in use, each once, the default first."""
        found = {strategy.name: strategy for strategy in (self.default, *self.by_prefix.values())}
        return tuple(found.values())

    def __str__(self) -> str:
        named = [f"{prefix}:{strategy.name}" for prefix, strategy in self.by_prefix.items()]
        return ",".join([self.default.name, *named])


def parse_assignments(text: str) -> tuple[str, dict[str, str]]:
    """`hybrid,KXNBAGAME:join` as the default's name and prefix -> name. Raises `ConfigError`."""
    default, by_prefix, problems = "", {}, []
    for part in (part.strip() for part in text.split(",")):
        prefix, colon, name = part.partition(":")
        if not part:
            continue
        if not colon:
            if default:
                problems.append(f"STRATEGY={text!r}: two defaults, {default} and {part}")
            default = part
        elif not prefix or not name:
            problems.append(f"STRATEGY={text!r}: {part!r} must be TICKER_PREFIX:NAME")
        elif prefix.upper() in by_prefix:
            problems.append(f"STRATEGY={text!r}: {prefix.upper()} is given twice")
        else:
            by_prefix[prefix.strip().upper()] = name.strip()
    if problems:
        raise ConfigError(problems)
    return default or DEFAULT, by_prefix

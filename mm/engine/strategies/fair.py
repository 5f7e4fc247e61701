"""Fair-value sources by name: the mark, the mid, the micro-price, the event's markets together, prints, the outside."""

from typing import Final

import attrs

from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros, Price
from mm.engine.strategies.base import FairValue
from mm.engine.strategies.blocks import micro_price, mid, sibling_consensus
from mm.engine.strategies.view import View


def mark(view: View) -> Price | None:
    """The reference strategy's: the average of prints held within the touch."""
    return view.mark


def slow_prints(view: View) -> Price | None:
    """The time-decayed mean of prints (5 minutes); for strategies that keep signals."""
    return None if view.signals is None else view.signals.prints.mean


@attrs.frozen
class External:
    """A probability that somebody else works out (a model, a sportsbook); not known once it is old."""

    most_age: Micros = Micros(120 * SECOND)

    def __call__(self, view: View) -> Price | None:
        """See `FairValue`."""
        told = view.context.external
        if told is None or view.now - told[1] > self.most_age:
            return None
        return told[0]


SOURCES: Final[dict[str, FairValue]] = {
    "mark": mark,
    "mid": mid,
    "micro-price": micro_price,
    "consensus": sibling_consensus,
    "slow-prints": slow_prints,
    "external": External(),
}


def fair_value_source(name: str) -> FairValue | None:
    """The source of that name; None for the empty name. Raises `ConfigError`."""
    if not name:
        return None
    if name not in SOURCES:
        raise ConfigError([f"FAIR_VALUE={name!r}: must be empty or one of {', '.join(SOURCES)}"])
    return SOURCES[name]

"""What a sweep does: parameter sets over recordings, cut into chunks of work. Nothing is run here.

The plan is data: the same command makes the same plan, and by its text a sweep is known again when it is resumed.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import attrs
import orjson

from mm.domain.errors import ConfigError
from mm.research.variants import make_variant

CHUNK: Final = 10
"""Parameter sets that one piece of work runs over one recording: enough to be worth the reading of it."""
MOST_TRIALS: Final = 100_000
SCHEMA: Final = 1


@attrs.frozen(kw_only=True)
class Settings:
    """What all trials share."""

    strategy: str = "hybrid"
    sets: Mapping[str, str] = attrs.field(factory=dict)
    fill_model: str = "queue"
    feed_us: int = 20_000
    order_us: int = 30_000
    jitter_us: int = 0
    trade_share: float = 0.5
    seed: int = 1


@attrs.frozen(kw_only=True)
class Recording:
    """One recording, as it was when the plan was made."""

    source: str
    size: int


@attrs.frozen
class Chunk:
    """Some trials over one recording."""

    recording: int
    trials: tuple[int, ...]

    @property
    def name(self) -> str:
        """What its result is called."""
        return f"{self.recording:05}-{self.trials[0]:06}"


@attrs.frozen(kw_only=True)
class Plan:
    """The whole sweep."""

    settings: Settings
    recordings: tuple[Recording, ...]
    trials: tuple[Mapping[str, str], ...]
    """The parameters in which each differs, as text."""

    def chunks(self) -> Iterator[Chunk]:
        """All the work, recording by recording."""
        for recording in range(len(self.recordings)):
            for begin in range(0, len(self.trials), CHUNK):
                yield Chunk(recording, tuple(range(begin, min(begin + CHUNK, len(self.trials)))))

    def text(self) -> bytes:
        """The plan as JSON, always the same for the same plan."""
        found: dict[str, Any] = {"schema": SCHEMA, "chunk": CHUNK, **attrs.asdict(self)}
        return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def make_trials(vary: Sequence[str], draws: int | None, seed: int) -> tuple[dict[str, str], ...]:
    """The parameter sets: every combination of the values, or `draws` different ones at random.

    Args:
        vary: `NAME=V1,V2,...`, or `NAME=LOW..HIGH` (random search only: every decimal of the finer of both is possible).

    Raises:
        ConfigError: With every problem.
    """
    problems: list[str] = []
    choices: dict[str, list[str]] = {}
    for text in vary:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not values.strip():
            problems.append(f"--vary {text!r}: expected NAME=V1,V2,... or NAME=LOW..HIGH")
        elif name in choices:
            problems.append(f"--vary {text!r}: {name} is given twice")
        elif ".." in values and draws is None:
            problems.append(f"--vary {text!r}: a range needs --random N; a grid takes values")
        else:
            try:
                choices[name] = _values(values)
            except ValueError as error:
                problems.append(f"--vary {text!r}: {error}")
    if not vary:
        problems.append("--vary is needed at least once: which parameter takes which values")
    if draws is not None and not 0 < draws <= MOST_TRIALS:
        problems.append(f"--random {draws}: allowed: 1 to {MOST_TRIALS}")
    there_are = math.prod(map(len, choices.values()))
    if not problems and draws is None and there_are > MOST_TRIALS:
        problems.append(f"--vary: {there_are:,} combinations, at most {MOST_TRIALS:,}; use --random N")
    if not problems and draws is not None and draws > there_are:
        problems.append(f"--random {draws}: there are only {there_are} different sets")
    if problems:
        raise ConfigError(problems)
    if draws is None:
        return tuple(
            dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
        )
    chance = random.Random(f"{seed}/sweep")  # noqa: S311 - repeatable on purpose
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < draws:
        drawn[tuple(chance.choice(values) for values in choices.values())] = None
    return tuple(dict(zip(choices, values, strict=True)) for values in drawn)


def _values(text: str) -> list[str]:
    low, dots, high = text.partition("..")
    if not dots:
        values = [value.strip() for value in text.split(",")]
        twice = sorted({v for v in values if values.count(v) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is given twice")
        return values
    try:
        first, last = Decimal(low.strip()), Decimal(high.strip())
    except ArithmeticError:
        raise ValueError("a range is two decimal numbers") from None
    digits = max(0, -int(first.as_tuple().exponent), -int(last.as_tuple().exponent))
    if not first < last:
        raise ValueError("the range is empty")
    steps = int((last - first).scaleb(digits))
    if steps > MOST_TRIALS:
        raise ValueError(f"more than {MOST_TRIALS} values: give fewer decimals")
    return [f"{first + Decimal(i).scaleb(-digits):f}" for i in range(steps + 1)]


def check_trials(settings: Settings, trials: Sequence[Mapping[str, str]]) -> None:
    """Every set can be run. Raises `ConfigError` with each problem once."""
    problems: dict[str, None] = {}
    for trial in trials:
        try:
            make_variant("", settings.strategy, {**settings.sets, **trial})
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise ConfigError(list(problems)[:20])

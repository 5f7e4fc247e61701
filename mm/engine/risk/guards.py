"""Guards: measures of trouble, each with steps, and a reaction that grows with the step reached.

A guard never opens anything by itself from `PULL` upwards: what has been pulled stays pulled until a person resumes.
The milder reactions end when the measure is back below half of their step. Guards judge; the shell acts and alerts.
"""

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from mm.domain.numbers import SECOND, Micros, parse_decimal


class Reaction(enum.IntEnum):
    """What is done, mildest first. A stronger one includes the milder ones."""

    NONE = 0
    WIDEN = 1
    """Quotes stand one tick further out."""
    REDUCE_ONLY = 2
    """Only quotes that reduce a position."""
    PULL = 3
    """No quotes; positions stay, their own rules go on."""
    FLATTEN = 4
    """No quotes, and every position is closed."""
    STOP = 5
    """The bot ends, leaving nothing behind."""

    @property
    def word(self) -> str:
        """As it is written in settings and alerts."""
        return self.name.lower().replace("_", "-")


REACTIONS: Final[Mapping[str, Reaction]] = {r.word: r for r in Reaction if r is not Reaction.NONE}
LATCHED_FROM: Final = Reaction.PULL


class Measure(enum.Enum):
    """What a guard looks at; the value says its unit."""

    DRAWDOWN = "dollars below the best marked result of the day"
    LOSS_RATE = "dollars lost within an hour, marked"
    FILL_RATE = "contracts filled within 15 seconds"
    REJECT_RATE = "orders refused within a minute"
    DRIFT = "markets whose position differs from the exchange's"
    GROSS = "contracts held, gross over all markets"
    NET = "contracts, the sum of all signed positions, without sign"

    @property
    def setting(self) -> str:
        """The name of its setting."""
        return f"GUARD_{self.name}"

    @property
    def window(self) -> Micros | None:
        """How far back it looks; None: at the present state."""
        return WINDOWS.get(self)


WINDOWS: Final[Mapping[Measure, Micros]] = {
    Measure.LOSS_RATE: Micros(3_600 * SECOND),
    Measure.FILL_RATE: Micros(15 * SECOND),
    Measure.REJECT_RATE: Micros(60 * SECOND),
}
DECIMALS: Final[Mapping[Measure, int]] = {
    Measure.DRAWDOWN: 6,
    Measure.LOSS_RATE: 6,
    Measure.FILL_RATE: 2,
    Measure.REJECT_RATE: 0,
    Measure.DRIFT: 0,
    Measure.GROSS: 2,
    Measure.NET: 2,
}
"""A measure's values are whole numbers of 1/10^decimals of its unit: `Money`, `Count` or a plain number."""


@attrs.frozen(order=True)
class Step:
    """From this value on, this reaction."""

    at: int
    reaction: Reaction


Steps = tuple[Step, ...]


def parse_steps(text: str, measure: Measure) -> Steps:
    """Read `20:widen,40:reduce-only,60:stop`; an empty text is no guard.

    Raises:
        ValueError: Saying what is allowed: values above 0 that rise, with reactions that grow.
    """
    allowed = f"VALUE:REACTION,... with rising values and growing reactions ({', '.join(REACTIONS)})"
    steps: list[Step] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        value, colon, word = part.partition(":")
        reaction = REACTIONS.get(word.strip().lower())
        try:
            at = parse_decimal(value.strip(), DECIMALS[measure])
        except ValueError:
            raise ValueError(allowed) from None
        if not colon or reaction is None or at <= 0:
            raise ValueError(allowed)
        if steps and (at <= steps[-1].at or reaction <= steps[-1].reaction):
            raise ValueError(allowed)
        steps.append(Step(at, reaction))
    return tuple(steps)


@attrs.frozen(kw_only=True)
class Trigger:
    """A guard reached a step: the moment to alert."""

    measure: Measure
    value: int
    step: Step
    is_latched: bool
    """A person must resume."""


@attrs.define(eq=False)
class Guard:
    """One measure against its steps."""

    measure: Measure
    steps: Steps
    reached: Step | None = None
    """The step in force."""
    value: int = 0
    """As last looked at."""

    def look(self, value: int) -> Trigger | None:
        """Judge the measure's present value; the trigger when a higher step than before is reached."""
        self.value = value
        now = max((step for step in self.steps if value >= step.at), default=None)
        before = self.reached
        if now is not None and (before is None or now > before):
            self.reached = now
            is_latched = now.reaction >= LATCHED_FROM
            return Trigger(measure=self.measure, value=value, step=now, is_latched=is_latched)
        if before is not None and before.reaction < LATCHED_FROM and 2 * value < before.at:
            self.reached = now
        return None

    def resume(self) -> None:
        """A person says that it may go on; what still stands above a step triggers anew."""
        self.reached = None

    @property
    def reaction(self) -> Reaction:
        """What it asks for now."""
        return self.reached.reaction if self.reached is not None else Reaction.NONE


# --- measures over time ----------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class RateWindow:
    """The sum of amounts within the last `length`."""

    length: Micros
    total: int = 0
    _amounts: "deque[tuple[Micros, int]]" = attrs.field(factory=deque)

    def add(self, amount: int, now: Micros) -> None:
        """Something happened."""
        self._amounts.append((now, amount))
        self.total += amount
        self.sum(now)

    def sum(self, now: Micros) -> int:
        """What happened within the window that ends now."""
        while self._amounts and self._amounts[0][0] <= now - self.length:
            self.total -= self._amounts.popleft()[1]
        return self.total

    def clear(self) -> None:
        """Forget everything."""
        self._amounts.clear()
        self.total = 0


@attrs.define(eq=False)
class FallFromBest:
    """How far a result lies below its best within the last `length` (None: since the start)."""

    length: Micros | None = None
    _best: "deque[tuple[Micros, int]]" = attrs.field(factory=deque)
    """Falling results, oldest first: the first is the best of the window."""

    def fall(self, result: int, now: Micros) -> int:
        """Take the newest result in; the fall, never negative."""
        best = self._best
        while best and best[-1][1] <= result:
            best.pop()
        if not best or self.length is not None:
            best.append((now, result))
        if self.length is not None:
            while best[0][0] <= now - self.length:
                best.popleft()
        return best[0][1] - result

    def clear(self) -> None:
        """Begin anew with the next result."""
        self._best.clear()


# --- all of them -----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Facts:
    """What the guards look at, besides what is told as it happens."""

    pnl: int
    """Marked result, any zero point, `Money`."""
    gross: int
    """Held, all markets without sign. What only works does not count: a reaction would take it off, and come undone."""
    net: int
    drifting: int
    """Markets halted because their position differs from the exchange's."""


@attrs.frozen(kw_only=True)
class GuardVerdict:
    """What all guards together ask for."""

    reaction: Reaction
    triggers: tuple[Trigger, ...] = ()
    """Reached by this look."""
    why: str = ""


@attrs.define(eq=False)
class Guards:
    """Every guard that has steps."""

    guards: dict[Measure, Guard] = attrs.field(factory=dict)
    _fills: RateWindow = attrs.field(factory=lambda: RateWindow(WINDOWS[Measure.FILL_RATE]))
    _refusals: RateWindow = attrs.field(factory=lambda: RateWindow(WINDOWS[Measure.REJECT_RATE]))
    _drawdown: FallFromBest = attrs.field(factory=FallFromBest)
    _loss: FallFromBest = attrs.field(factory=lambda: FallFromBest(WINDOWS[Measure.LOSS_RATE]))

    @classmethod
    def of(cls, steps: Mapping[Measure, Steps]) -> "Guards":
        """Guards for the measures that have steps."""
        return cls({measure: Guard(measure, found) for measure, found in steps.items() if found})

    def filled(self, count: int, now: Micros) -> None:
        """A fill of ours."""
        self._fills.add(count, now)

    def refused(self, now: Micros) -> None:
        """The venue refused an order of ours."""
        self._refusals.add(1, now)

    def observe(self, facts: Facts, now: Micros) -> GuardVerdict:
        """One look at everything."""
        if not self.guards:
            return GuardVerdict(reaction=Reaction.NONE)
        values = {
            Measure.DRAWDOWN: self._drawdown.fall(facts.pnl, now),
            Measure.LOSS_RATE: self._loss.fall(facts.pnl, now),
            Measure.FILL_RATE: self._fills.sum(now),
            Measure.REJECT_RATE: self._refusals.sum(now),
            Measure.DRIFT: facts.drifting,
            Measure.GROSS: facts.gross,
            Measure.NET: abs(facts.net),
        }
        triggers = [t for m, guard in self.guards.items() if (t := guard.look(values[m])) is not None]
        return GuardVerdict(reaction=self.reaction, triggers=tuple(triggers), why=self.why)

    def new_day(self) -> None:
        """The drawdown is one of the day."""
        self._drawdown.clear()

    def resume(self) -> None:
        """A person says that it may go on: losses and rates are counted from here."""
        for guard in self.guards.values():
            guard.resume()
        self._drawdown.clear()
        self._loss.clear()
        self._fills.clear()
        self._refusals.clear()

    @property
    def reaction(self) -> Reaction:
        """The strongest that any guard asks for."""
        return max((guard.reaction for guard in self.guards.values()), default=Reaction.NONE)

    @property
    def why(self) -> str:
        """Which guards ask for it, with their numbers; empty when none does."""
        strongest = self.reaction
        if strongest is Reaction.NONE:
            return ""
        return "; ".join(describe(g) for g in self.guards.values() if g.reaction is strongest)


def describe(guard: Guard) -> str:
    """The guard in words: its value and the step that it reached."""
    at = guard.reached.at if guard.reached is not None else 0
    places = DECIMALS[guard.measure]
    return (
        f"{guard.measure.setting}: {_text(guard.value, places)} {guard.measure.value} "
        f"(step {_text(at, places)}: {guard.reaction.word})"
    )


def _text(value: int, places: int) -> str:
    if not places:
        return str(value)
    whole, rest = divmod(abs(value), 10**places)
    digits = f"{rest:0{places}d}".rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def rolling_limit(steps: Iterable[Step], default: int) -> int:
    """The order group's limit of contracts within 15 seconds: the first step of the fill guard that pulls.

    The venue then pulls by itself what we would pull a poll later.
    """
    return min((step.at for step in steps if step.reaction >= LATCHED_FROM), default=default)

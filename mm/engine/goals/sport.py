"""One sport's parameters (`config/sports/*.toml`), and which regime a game is in.

Prices in cents and times in seconds in the file; here whole `Price` and `Micros`.
"""

import enum
from collections.abc import Mapping
from typing import Any, Final

import attrs

from mm.domain.errors import ConfigError
from mm.domain.game import GameState, GameStatus
from mm.domain.numbers import CENT, CONTRACT, SECOND, Count, Micros, Price
from mm.engine.strategies.view import Regime


class RegimeAction(enum.Enum):
    """What the guard does in a regime, beside what it sees."""

    QUOTE = "quote"
    WIDEN = "widen"
    """Quotes stand `widen_ticks` further out."""
    PULL = "pull"


def _seconds(value: float) -> Micros:
    return Micros(round(value * SECOND))


def _cents(value: float) -> Price:
    return Price(round(value * CENT))


@attrs.frozen(kw_only=True)
class Sport:
    """What a sport's games look like, and how its goals show on the tape."""

    name: str
    series: tuple[str, ...] = ()
    """Series tickers of its games."""
    # The scoreboard.
    periods: int = 3
    """Regular ones; any later one is overtime."""
    last_minutes: Micros = Micros(150 * SECOND)
    """Left of the last period."""
    close_lead: int = 2
    """The last minutes count while the lead is no larger."""
    regimes: Mapping[Regime, RegimeAction] = attrs.field(factory=dict)
    """Regimes not named: quote."""
    widen_ticks: int = 1
    # The tape: what looks like a goal.
    sweep: Price = Price(3 * CENT)
    """Prints of one direction run so far..."""
    sweep_within: Micros = Micros(SECOND // 4)
    """... within so long."""
    cancel_levels: int = 6
    """So many levels near the touch shrink without a trade, some on each side..."""
    cancel_share: float = 0.3
    """... each by this share at least..."""
    cancel_near: Price = Price(6 * CENT)
    """... so near to the touch..."""
    cancel_within: Micros = Micros(3 * SECOND // 10)
    """... within so long."""
    jump: Price = Price(3 * CENT)
    """The mid of one of the game's markets moves so far..."""
    jump_within: Micros = Micros(SECOND)
    """... within so long."""
    rate: Count = Count(2_000 * CONTRACT)
    """Takers of one direction bring so many contracts within a second..."""
    rate_factor: float = 10.0
    """... and so many times the usual flow..."""
    rate_move: Price = Price(2 * CENT)
    """... and the mid has moved so far within `jump_within`: size alone is no news."""
    # The way back.
    pull: Micros = Micros(3 * SECOND)
    """Nothing is quoted for so long at least."""
    settled: Micros = Micros(3 * SECOND)
    """The book counts as settled when no mid has moved by more than `settled_move` for so long..."""
    settled_move: Price = Price(CENT)
    settled_spread: Price = Price(4 * CENT)
    """... and no spread is wider than this."""
    longest_pull: Micros = Micros(90 * SECOND)
    """After so long it comes back, settled or not, at the widest step."""
    steps: tuple[int, ...] = (3, 1)
    """Ticks further out, step by step, before quotes stand where they would."""
    step: Micros = Micros(5 * SECOND)
    """How long each step lasts."""


_FIELDS: Final[dict[str, Any]] = {
    "name": str,
    "series": tuple,
    "periods": int,
    "last_minutes_s": _seconds,
    "close_lead": int,
    "widen_ticks": int,
    "sweep_cents": _cents,
    "sweep_within_s": _seconds,
    "cancel_levels": int,
    "cancel_share": float,
    "cancel_near_cents": _cents,
    "cancel_within_s": _seconds,
    "jump_cents": _cents,
    "jump_within_s": _seconds,
    "rate_contracts": lambda value: Count(round(value * CONTRACT)),
    "rate_factor": float,
    "rate_move_cents": _cents,
    "pull_s": _seconds,
    "settled_s": _seconds,
    "settled_move_cents": _cents,
    "settled_spread_cents": _cents,
    "longest_pull_s": _seconds,
    "steps_ticks": tuple,
    "step_s": _seconds,
}
_SUFFIXES: Final = ("_s", "_cents", "_contracts", "_ticks")


def parse_sport(table: Mapping[str, Any], where: str) -> Sport:
    """A sport from a file's table.

    Raises:
        ConfigError: A key that means nothing here, or a value that does not fit; each with `where` it stands.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "regimes":
            try:
                values["regimes"] = {Regime(k): RegimeAction(v) for k, v in value.items()}
            except (ValueError, AttributeError) as error:
                problems.append(f"{where}: regimes: {error}")
        elif key not in _FIELDS:
            problems.append(f"{where}: no such key {key!r}; known: regimes, {', '.join(_FIELDS)}")
        else:
            try:
                values[_attribute(key)] = _FIELDS[key](value)
            except (TypeError, ValueError) as error:
                problems.append(f"{where}: {key} = {value!r}: {error}")
    if "name" not in values and not problems:
        problems.append(f"{where}: name is missing")
    if problems:
        raise ConfigError(problems)
    return Sport(**values)


def _attribute(key: str) -> str:
    if key == "widen_ticks":
        return key
    for suffix in _SUFFIXES:
        if key.endswith(suffix):
            return key.removesuffix(suffix)
    return key


def regime_of(game: GameState | None, sport: Sport) -> Regime:
    """Which regime the scoreboard says a game is in."""
    if game is None:
        return Regime.UNKNOWN
    if game.status is GameStatus.SCHEDULED:
        return Regime.PRE_GAME
    if game.status is GameStatus.FINISHED:
        return Regime.FINAL
    if game.period > sport.periods:
        return Regime.OVERTIME
    if game.is_break:
        return Regime.BREAK
    if game.is_empty_net:
        return Regime.LAST_MINUTES
    is_last = game.period == sport.periods and game.lead <= sport.close_lead
    if is_last and game.clock_left is not None and game.clock_left <= sport.last_minutes:
        return Regime.LAST_MINUTES
    return Regime.PLAY

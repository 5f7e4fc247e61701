"""The strategy's parameters: names, units, defaults and allowed ranges, each said once.

`PARAMETERS` is the table that settings and the back-test's `--set` read; `StrategyParameters` is what the engine
sees: exact values, already in the units of `mm.domain.numbers`. Reading the environment is not done here.
"""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

import attrs

from mm.domain.errors import ConfigError
from mm.domain.numbers import CONTRACT, SECOND, Count, Micros, Money, Price, ceil_div, parse_decimal
from mm.engine.risk.portfolio import RiskLimits

MINUTE: Final = 60 * SECOND
"""One minute in `Micros`."""


@attrs.frozen(kw_only=True, slots=False)
class StrategyParameters:
    """Everything that decides about money. The defaults are the reference strategy's."""

    base_spread: Price = Price(100)
    """Half-spread s."""
    size_per_fill: Count = Count(1_000)
    """Size q of a quote."""
    neutral_zone_contracts: Count | None = None
    """Neutral zone N; None means twice `size_per_fill`."""
    size_cap: Count = Count(10_000)
    """C of the skew: the inventory at which the half-spread of the exit side has doubled."""
    mid_ema_alpha: Fraction = Fraction(3, 10)
    duration_weighted_limit: Fraction = Fraction(500)
    """Contract-minutes."""
    mae_failsafe_cents: Fraction = Fraction(8)
    mae_activation_window: Micros = Micros(8 * SECOND)
    flatten_max_slippage: Price = Price(500)
    """How far beyond the touch an exit may go."""
    min_requote: Price = Price(100)
    quote_cooldown: Micros = Micros(300_000)
    max_quoted_spread: Price | None = None
    """No quotes while the book's spread is wider; None is off."""
    max_inventory_value: Money = Money(100_000_000)
    """At risk per side and market."""
    max_inventory_per_market: Count = Count(5_000)
    max_global_inventory: Count = Count(80_000)
    """Gross, over all markets."""
    max_markets_to_trade: int = 16
    markets_per_game: int = 1
    daily_loss_limit: Money | None = None
    """None is off."""
    portfolio_mae_limit: Money = Money(50_000_000)
    """0 is off."""
    max_event_loss: Money | None = None
    """Worst outcome of one event; None means twice `max_inventory_value`, 0 is off. Likewise the next three."""
    max_series_loss: Money | None = None
    """None means `max_markets_to_trade` times `max_inventory_value`; also the day's and the portfolio's."""
    max_day_loss: Money | None = None
    max_portfolio_loss: Money | None = None
    max_night_loss: Money | None = None
    """Events of one series and day as correlated losses; None is off."""
    loss_correlation: Fraction = Fraction(1, 2)
    queue_share: Fraction = Fraction(1, 5)

    @cached_property
    def neutral_zone(self) -> Count:
        """N, with its default resolved."""
        if self.neutral_zone_contracts is None:
            return Count(2 * self.size_per_fill)
        return self.neutral_zone_contracts

    @cached_property
    def risk_limits(self) -> RiskLimits:
        """The limits by outcome, with their defaults resolved."""
        of_all = Money(self.max_markets_to_trade * self.max_inventory_value)

        def resolve(given: Money | None, default: int) -> Money | None:
            return (given or None) if given is not None else Money(default)

        return RiskLimits(
            event=resolve(self.max_event_loss, 2 * self.max_inventory_value),
            series=resolve(self.max_series_loss, of_all),
            day=resolve(self.max_day_loss, of_all),
            portfolio=resolve(self.max_portfolio_loss, of_all),
            night=self.max_night_loss or None,
            correlation=self.loss_correlation,
        )

    @cached_property
    def duration_limit_units(self) -> int:
        """`duration_weighted_limit` in `Count` x `Micros`: the least whole number that is at the limit."""
        limit = self.duration_weighted_limit * CONTRACT * MINUTE
        return ceil_div(limit.numerator, limit.denominator)

    @cached_property
    def mae_failsafe(self) -> Fraction:
        """`mae_failsafe_cents` in `Price` units."""
        return self.mae_failsafe_cents * 100


# --- the table -------------------------------------------------------------------------------------------------------

_FINE: Final = 12
"""Decimals that a parameter kept as a `Fraction` may have."""


def _price(text: str) -> Price:
    return Price(parse_decimal(text, 4))


def _cents(text: str) -> Price:
    return Price(parse_decimal(text, 2))


def _count(text: str) -> Count:
    return Count(parse_decimal(text, 2))


def _money(text: str) -> Money:
    return Money(parse_decimal(text, 6))


def _fraction(text: str) -> Fraction:
    return Fraction(parse_decimal(text, _FINE), 10**_FINE)


def _seconds(text: str) -> Micros:
    return Micros(parse_decimal(text, 6))


def _milliseconds(text: str) -> Micros:
    return Micros(parse_decimal(text, 3))


def _whole(text: str) -> int:
    return parse_decimal(text, 0)


@attrs.frozen(kw_only=True)
class Parameter:
    """One row of the table: how a parameter is called, read and bounded."""

    name: str
    """As the user writes it in the environment."""
    attribute: str
    """The field of `StrategyParameters`."""
    unit: str
    default: str
    """The default as text; an empty text means off (or, for the neutral zone, derived)."""
    minimum: str
    maximum: str
    read: Callable[[str], Any]
    """Decimal text to the exact value, without the range check."""
    is_optional: bool = False
    """An empty text is allowed and means None."""
    about: str = ""

    @property
    def allowed(self) -> str:
        """The range in words, for messages and documentation."""
        words = f"{self.minimum} to {self.maximum} {self.unit}"
        return f"{words}, or empty" if self.is_optional else words

    def parse(self, text: str) -> Any:
        """Read and check one value. Raises `ValueError`, whose text names value and allowed range."""
        text = text.strip()
        if not text and self.is_optional:
            return None
        try:
            value = self.read(text)
        except ValueError as error:
            raise ValueError(f"{self.name}={text!r}: {error}; allowed: {self.allowed}") from None
        if not self.read(self.minimum) <= value <= self.read(self.maximum):
            raise ValueError(f"{self.name}={text!r} is out of range; allowed: {self.allowed}")
        return value


def _row(
    name: str,
    attribute: str,
    unit: str,
    default: str,
    allowed: tuple[str, str],
    read: Callable[[str], Any],
    about: str,
    *,
    is_optional: bool = False,
) -> Parameter:
    return Parameter(
        name=name,
        attribute=attribute,
        unit=unit,
        default=default,
        minimum=allowed[0],
        maximum=allowed[1],
        read=read,
        is_optional=is_optional,
        about=about,
    )


PARAMETERS: Final[tuple[Parameter, ...]] = (
    _row("BASE_SPREAD", "base_spread", "dollars", "0.01", ("0.0001", "0.5"), _price, "half-spread"),
    _row("SIZE_PER_FILL", "size_per_fill", "contracts", "10", ("1", "100000"), _count, "size of a quote"),
    _row(
        "NEUTRAL_ZONE_CONTRACTS",
        "neutral_zone_contracts",
        "contracts",
        "",
        ("0.01", "1000000"),
        _count,
        "quote both sides below this inventory; empty: twice SIZE_PER_FILL",
        is_optional=True,
    ),
    _row(
        "SIZE_CAP",
        "size_cap",
        "contracts",
        "100",
        ("1", "1000000"),
        _count,
        "inventory that doubles the exit side's half-spread",
    ),
    _row(
        "MID_EMA_ALPHA",
        "mid_ema_alpha",
        "of the way to each print",
        "0.3",
        ("0.000001", "1"),
        _fraction,
        "weight of a print in the average",
    ),
    _row(
        "DURATION_WEIGHTED_LIMIT",
        "duration_weighted_limit",
        "contract-minutes",
        "500",
        ("0", "1000000000"),
        _fraction,
        "flatten at this exposure",
    ),
    _row(
        "MAE_FAILSAFE_CENTS",
        "mae_failsafe_cents",
        "cents",
        "8",
        ("0", "100"),
        _fraction,
        "flatten at this adverse excursion",
    ),
    _row(
        "MAE_ACTIVATION_WINDOW_SEC",
        "mae_activation_window",
        "seconds",
        "8",
        ("0", "86400"),
        _seconds,
        "how long an adverse excursion must last without a break",
    ),
    _row(
        "FLATTEN_MAX_SLIPPAGE_CENTS",
        "flatten_max_slippage",
        "cents",
        "5",
        ("0", "98"),
        _cents,
        "how far beyond the touch an exit may go",
    ),
    _row(
        "MIN_REQUOTE_CENTS",
        "min_requote",
        "cents",
        "1",
        ("0.01", "98"),
        _cents,
        "a working quote is replaced for no smaller move",
    ),
    _row(
        "QUOTE_COOLDOWN_MS",
        "quote_cooldown",
        "milliseconds",
        "300",
        ("0", "3600000"),
        _milliseconds,
        "rest of a side between two actions",
    ),
    _row(
        "MAX_QUOTED_SPREAD",
        "max_quoted_spread",
        "dollars",
        "",
        ("0.0001", "1"),
        _price,
        "no quotes in a wider book; empty: off",
        is_optional=True,
    ),
    _row(
        "MAX_INVENTORY_VALUE",
        "max_inventory_value",
        "dollars",
        "100",
        ("0", "100000000"),
        _money,
        "at risk per side and market",
    ),
    _row(
        "MAX_INVENTORY_PER_MARKET",
        "max_inventory_per_market",
        "contracts",
        "50",
        ("0", "100000000"),
        _count,
        "position limit of a market",
    ),
    _row(
        "MAX_GLOBAL_INVENTORY",
        "max_global_inventory",
        "contracts",
        "800",
        ("0", "1000000000"),
        _count,
        "gross, over all markets",
    ),
    _row(
        "MAX_MARKETS_TO_TRADE",
        "max_markets_to_trade",
        "markets",
        "16",
        ("1", "10000"),
        _whole,
        "how many markets are quoted",
    ),
    _row(
        "MARKETS_PER_GAME",
        "markets_per_game",
        "markets",
        "1",
        ("1", "2"),
        _whole,
        "1: the busier of a game's two markets",
    ),
    _row(
        "DAILY_LOSS_LIMIT",
        "daily_loss_limit",
        "dollars",
        "",
        ("0.000001", "100000000"),
        _money,
        "stop at this loss of a day, marked, over all markets; empty: off",
        is_optional=True,
    ),
    _row(
        "PORTFOLIO_MAE_LIMIT",
        "portfolio_mae_limit",
        "dollars",
        "50",
        ("0", "100000000"),
        _money,
        "adverse excursion over all markets; 0: off",
    ),
    _row(
        "MAX_EVENT_LOSS",
        "max_event_loss",
        "dollars",
        "",
        ("0", "100000000"),
        _money,
        "what one event may cost in its worst outcome, its realized loss included; 0: off; empty: "
        "twice MAX_INVENTORY_VALUE",
        is_optional=True,
    ),
    _row(
        "MAX_SERIES_LOSS",
        "max_series_loss",
        "dollars",
        "",
        ("0", "100000000"),
        _money,
        "the same, summed over the events of a series; 0: off; empty: "
        "MAX_MARKETS_TO_TRADE times MAX_INVENTORY_VALUE",
        is_optional=True,
    ),
    _row(
        "MAX_DAY_LOSS",
        "max_day_loss",
        "dollars",
        "",
        ("0", "100000000"),
        _money,
        "the same, summed over the events of a date; 0: off; empty: "
        "MAX_MARKETS_TO_TRADE times MAX_INVENTORY_VALUE",
        is_optional=True,
    ),
    _row(
        "MAX_PORTFOLIO_LOSS",
        "max_portfolio_loss",
        "dollars",
        "",
        ("0", "100000000"),
        _money,
        "the same, summed over all events; 0: off; empty: MAX_MARKETS_TO_TRADE times MAX_INVENTORY_VALUE",
        is_optional=True,
    ),
    _row(
        "MAX_NIGHT_LOSS",
        "max_night_loss",
        "dollars",
        "",
        ("0", "100000000"),
        _money,
        "events of one series and date together, as losses correlated by LOSS_CORRELATION; empty or 0: off",
        is_optional=True,
    ),
    _row(
        "LOSS_CORRELATION",
        "loss_correlation",
        "of 1",
        "0.5",
        ("0", "1"),
        _fraction,
        "correlation of the losses of one night's events: 1 sums them, 0 takes them as independent",
    ),
    _row(
        "QUEUE_SHARE",
        "queue_share",
        "of a trade's size",
        "0.20",
        ("0", "1"),
        _fraction,
        "what the old fill model gives a quote of each trade",
    ),
)

PARAMETERS_BY_NAME: Final[dict[str, Parameter]] = {parameter.name: parameter for parameter in PARAMETERS}


def build_parameters(texts: Mapping[str, str], names: Iterable[str] | None = None) -> StrategyParameters:
    """Parameters from decimal texts by name; what is not given keeps its default.

    Args:
        texts: Name to text. Names outside the table are a problem, so a misspelled one does not pass unnoticed.
        names: Which names may be set; all of the table when None.

    Raises:
        ConfigError: With every problem, each with name, value and allowed range.
    """
    allowed = set(PARAMETERS_BY_NAME if names is None else names)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in allowed:
            problems.append(f"{name}: cannot be set here; what can: {', '.join(sorted(allowed))}")
            continue
        parameter = PARAMETERS_BY_NAME[name]
        try:
            values[parameter.attribute] = parameter.parse(text)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    return StrategyParameters(**values)

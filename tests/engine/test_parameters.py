"""The table of parameters: complete, with the strategy's defaults, exact, and strict about what it is given."""

from fractions import Fraction

import attrs
import pytest

from mm.domain.errors import ConfigError
from mm.engine.parameters import PARAMETERS, PARAMETERS_BY_NAME, StrategyParameters, build_parameters


def test_every_field_has_its_row_and_the_rows_default_is_the_fields() -> None:
    """One source of truth told twice must agree."""
    defaults = StrategyParameters()

    assert sorted(row.attribute for row in PARAMETERS) == sorted(
        f.name for f in attrs.fields(StrategyParameters)
    )
    for row in PARAMETERS:
        assert row.parse(row.default) == getattr(defaults, row.attribute), row.name


def test_no_setting_is_the_default() -> None:
    """Nothing given, nothing moved."""
    assert build_parameters({}) == StrategyParameters()


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("BASE_SPREAD", "0.0125", 125),
        ("MAE_FAILSAFE_CENTS", "7.25", Fraction(29, 4)),
        ("QUEUE_SHARE", "0.58", Fraction(29, 50)),
        ("MAE_ACTIVATION_WINDOW_SEC", "0.5", 500_000),
        ("QUOTE_COOLDOWN_MS", "300", 300_000),
        ("MAX_INVENTORY_VALUE", "7.5", 7_500_000),
        ("SIZE_PER_FILL", " 5 ", 500),
        ("NEUTRAL_ZONE_CONTRACTS", "", None),
    ],
)
def test_values_are_exact(name: str, text: str, value: object) -> None:
    """Decimal text to the unit of the field, no float between."""
    parameters = build_parameters({name: text})

    assert getattr(parameters, PARAMETERS_BY_NAME[name].attribute) == value


def test_all_problems_are_told_together() -> None:
    """Each with name, value and allowed range."""
    with pytest.raises(ConfigError) as caught:
        build_parameters(
            {
                "BASE_SPREAD": "-0.01",
                "SIZE_PER_FILL": "ten",
                "QUEUE_SHARE": "1.01",
                "BASE_SPRAED": "1",
                "MARKETS_PER_GAME": "1.5",
            }
        )

    told = caught.value.problems
    assert len(told) == 5
    assert told[0] == "BASE_SPREAD='-0.01' is out of range; allowed: 0.0001 to 0.5 dollars"
    assert told[1].startswith("SIZE_PER_FILL='ten': not a decimal number")
    assert told[3].startswith("BASE_SPRAED: cannot be set here")


@pytest.mark.parametrize("text", ["nan", "inf", "1e2", "0x5", "1,5", "--1", ""])
def test_only_plain_decimals_are_numbers(text: str) -> None:
    """No exponents, no infinities, no empty text where one is needed."""
    with pytest.raises(ConfigError):
        build_parameters({"DURATION_WEIGHTED_LIMIT": text})


def test_the_duration_limit_is_the_first_whole_unit_at_it() -> None:
    """Exposure is a whole number of count x microseconds: the limit is rounded up to one, never down."""
    assert StrategyParameters().duration_limit_units == 500 * 100 * 60_000_000
    assert build_parameters({"DURATION_WEIGHTED_LIMIT": "0.000000000001"}).duration_limit_units == 1

"""The order that closes a position: at the touch, a bounded way beyond it, never at any price."""

import pytest

from mm.domain.grid import uniform_grid
from mm.domain.numbers import CENT, Count, Price
from mm.domain.order import Side
from mm.engine.exits import ExitOrder, exit_order
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters

CENTS = uniform_grid(CENT)


def exit_at(net: int, touch: Touch, attempt: int = 0) -> ExitOrder | None:
    return exit_order(Count(net), touch, CENTS, StrategyParameters(), attempt)


@pytest.mark.parametrize("attempt, deeper", [(0, 0), (1, 100), (5, 500), (6, 500), (99, 500)])
def test_reaches_deeper_by_a_cent_an_attempt_up_to_the_limit(attempt: int, deeper: int) -> None:
    """The whole position, from the touch of the moment."""
    touch = Touch(Price(4_800), Price(5_200))

    assert exit_at(1_234, touch, attempt) == ExitOrder(
        side=Side.ASK, price=Price(4_800 - deeper), count=Count(1_234)
    )
    assert exit_at(-1_234, touch, attempt) == ExitOrder(
        side=Side.BID, price=Price(5_200 + deeper), count=Count(1_234)
    )


def test_stays_on_the_grid() -> None:
    """Near the edges the slippage ends at the lowest and highest price."""
    edge = Touch(Price(200), Price(9_800))

    assert (exit_at(100, edge, 5), exit_at(-100, edge, 5)) == (
        ExitOrder(side=Side.ASK, price=Price(100), count=Count(100)),
        ExitOrder(side=Side.BID, price=Price(9_900), count=Count(100)),
    )


def test_nobody_there_or_nothing_held() -> None:
    """No order into an empty side, none when flat."""
    assert exit_at(100, Touch(None, Price(5_000))) is None
    assert exit_at(-100, Touch(Price(5_000), None)) is None
    assert exit_at(0, Touch(Price(4_800), Price(5_200))) is None

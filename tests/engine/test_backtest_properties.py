"""What must hold for every tape: the past does not know the future, and names, dates and sides do not matter."""

from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.fill import Trade, TradeId
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.backtest.legacy import run_legacy
from mm.engine.backtest.prints import in_order
from mm.engine.backtest.reference import run_reference
from mm.engine.backtest.result import BacktestFill, FillKind, MarketResult
from mm.engine.parameters import StrategyParameters

DEFAULTS = StrategyParameters()
PROFILES = pytest.mark.parametrize("run", [run_reference, run_legacy])

rows = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 150_000, 300_000, SECOND, 8 * SECOND, 90 * SECOND, 900 * SECOND]),
        st.integers(-7, 7),
        st.integers(1, 40_000),
        st.sampled_from(Side),
    ),
    min_size=1,
    max_size=60,
)
"""Gap to the print before, step of the price in cents, count, taker side."""


def tape(steps: list[tuple[int, int, int, Side]], *, at: int = 10**15, step_us: int = 0) -> list[Trade]:
    """A walk of prices with plausible times."""
    trades, price, ts = [], 50, at
    for i, (gap, move, count, side) in enumerate(steps):
        ts += gap + step_us
        price = min(max(price + move, 1), 99)
        trades.append(
            Trade(
                trade_id=TradeId(f"{i:03}"),
                ticker=MarketTicker("M"),
                price=Price(price * 100),
                count=Count(count),
                taker_side=side,
                ts=Micros(ts),
            )
        )
    return in_order(trades)


def trading(result: MarketResult) -> list[BacktestFill]:
    """Fills before settlement."""
    return [fill for fill in result.fills if fill.kind is not FillKind.SETTLEMENT]


@PROFILES
@given(rows, st.data())
def test_a_prefix_has_the_fills_of_the_whole_up_to_its_end(
    run: object, steps: list[tuple[int, int, int, Side]], data: st.DataObject
) -> None:
    """Nothing that comes later changes what happened."""
    trades = tape(steps)
    end = data.draw(st.sampled_from(sorted({t.ts for t in trades})))
    prefix = [t for t in trades if t.ts <= end]

    whole, part = run(trades, DEFAULTS), run(prefix, DEFAULTS)  # type: ignore[operator]

    assert trading(part) == [fill for fill in trading(whole) if fill.ts <= end]


@PROFILES
@given(rows, st.integers(-(10**14), 10**14))
def test_names_and_dates_do_not_matter(
    run: object, steps: list[tuple[int, int, int, Side]], shift: int
) -> None:
    """Another ticker, other trade ids in the same order, another day: the same fills at shifted times."""
    trades = tape(steps)
    moved = [
        attrs.evolve(
            t, ticker=MarketTicker("OTHER-26X"), trade_id=TradeId("z" + t.trade_id), ts=Micros(t.ts + shift)
        )
        for t in trades
    ]

    one, other = run(trades, DEFAULTS), run(moved, DEFAULTS)  # type: ignore[operator]

    shifted = [attrs.evolve(fill, ts=Micros(fill.ts + shift)) for fill in one.fills]
    assert shifted == list(other.fills)


@given(rows)
def test_mirrored_prices_give_mirrored_fills(steps: list[tuple[int, int, int, Side]]) -> None:
    """The market seen from NO: the same fills on the other side, the same money.

    With an average that follows at once: rounding halves up is the one thing that has a direction. And one taker
    side an instant: their order at one instant has a direction too.
    """
    parameters = attrs.evolve(DEFAULTS, mid_ema_alpha=Fraction(1))
    trades = tape(steps, step_us=1)
    mirrored = in_order(
        [attrs.evolve(t, price=Price(DOLLAR - t.price), taker_side=t.taker_side.opposite) for t in trades]
    )

    one, other = run_reference(trades, parameters), run_reference(mirrored, parameters)

    assert [
        attrs.evolve(f, side=f.side.opposite, price=Price(DOLLAR - f.price), net_after=Count(-f.net_after))
        for f in one.fills
    ] == list(other.fills)
    assert (one.realized_pnl_net, one.triggers) == (other.realized_pnl_net, other.triggers)


@PROFILES
@given(rows)
def test_the_books_balance(run: object, steps: list[tuple[int, int, int, Side]]) -> None:
    """Settled and flat: the result is the cash of all fills, and no fill ever exceeds the limits."""
    result = run(tape(steps), DEFAULTS)  # type: ignore[operator]

    cash = sum(-f.side.sign * f.price * f.count - f.fee for f in result.fills)
    assert result.realized_pnl_net == cash
    assert sum(f.side.sign * f.count for f in result.fills) == 0
    assert result.max_abs_position <= DEFAULTS.max_inventory_per_market


@given(rows)
def test_tight_limits_hold_in_every_fill(steps: list[tuple[int, int, int, Side]]) -> None:
    """The position limit binds and is never passed."""
    tight = attrs.evolve(
        DEFAULTS, max_inventory_per_market=Count(1_250), neutral_zone_contracts=Count(10_000)
    )

    result = run_reference(tape(steps), tight)

    assert all(abs(fill.net_after) <= 1_250 for fill in result.fills)

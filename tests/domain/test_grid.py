"""Tick grids: which prices exist, and the neighbours of any price."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.grid import PriceBand, TickGrid, tick_grid, uniform_grid
from mm.domain.numbers import CENT, DOLLAR, Price

FINE_EDGES = (
    PriceBand(Price(0), Price(1_000), Price(10)),
    PriceBand(Price(1_000), Price(9_000), Price(100)),
    PriceBand(Price(9_000), Price(10_000), Price(10)),
)


@st.composite
def grids(draw: st.DrawFn) -> TickGrid:
    """Bands of any steps, touching, overlapping or with gaps."""
    bands = []
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, 9_900))
        step = draw(st.sampled_from([1, 5, 10, 25, 100, 250]))
        bands.append(PriceBand(Price(start), Price(draw(st.integers(start, 10_000))), Price(step)))
    return TickGrid(tuple(bands))


@given(grid=grids(), price=st.integers(-500, 10_500))
def test_neighbours_are_those_of_the_list(grid: TickGrid, price: int) -> None:
    """At, below and above, by comparison with a plain search."""
    valid = [
        p
        for p in range(1, DOLLAR)
        if any(b.start <= p <= b.end and (p - b.start) % b.step == 0 for b in grid.bands)
    ]

    assert list(grid.prices) == valid
    assert grid.is_valid(Price(price)) == (price in valid)
    assert grid.at_or_below(price) == max((p for p in valid if p <= price), default=None)
    assert grid.at_or_above(price) == min((p for p in valid if p >= price), default=None)
    assert grid.tick_below(price) == max((p for p in valid if p < price), default=None)
    assert grid.tick_above(price) == min((p for p in valid if p > price), default=None)


@given(grid=grids())
def test_up_and_down_again(grid: TickGrid) -> None:
    """The tick above the tick below is the price itself, all along the grid."""
    for lower, upper in zip(grid.prices, grid.prices[1:], strict=False):
        assert grid.tick_above(lower) == upper
        assert grid.tick_below(upper) == lower
    if grid.prices:
        assert (grid.lowest, grid.highest) == (grid.prices[0], grid.prices[-1])
        assert grid.tick_below(grid.lowest) is None
        assert grid.tick_above(grid.highest) is None


def test_the_cent_grid() -> None:
    """0.01 to 0.99: 0 and 1 dollar are no prices."""
    grid = uniform_grid(CENT)

    assert (len(grid.prices), grid.lowest, grid.highest) == (99, 100, 9_900)
    assert not grid.is_valid(Price(0))
    assert not grid.is_valid(DOLLAR)


def test_the_step_changes_at_a_bands_border() -> None:
    """Tenths of a cent at the edges, cents between; the border price is on both sides."""
    grid = TickGrid(FINE_EDGES)

    assert grid.tick_below(1_000) == 990
    assert grid.tick_above(1_000) == 1_100
    assert grid.tick_above(9_000) == 9_010
    assert grid.at_or_below(1_050) == 1_000
    assert not grid.is_valid(Price(1_010))
    assert (grid.lowest, grid.highest) == (10, 9_990)


@pytest.mark.parametrize(
    "bands",
    [
        (),
        (PriceBand(Price(0), Price(100), Price(0)),),
        (PriceBand(Price(0), Price(100), Price(-1)),),
        (PriceBand(Price(200), Price(100), Price(1)),),
    ],
)
def test_impossible_bands_are_refused(bands: tuple[PriceBand, ...]) -> None:
    """A grid without a band, a step that does not move, an end before the start."""
    with pytest.raises(ValueError, match="band"):
        TickGrid(bands)


def test_equal_bands_share_one_grid() -> None:
    """Thousands of markets hold one table."""
    assert tick_grid(list(FINE_EDGES)) is tick_grid(FINE_EDGES)

"""Counts by size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.histogram import LATENCY_BOUNDS_S, Histogram, HistogramView


@given(st.lists(st.floats(0, 20), max_size=200))
def test_every_observation_is_in_one_bucket(values: list[float]) -> None:
    """Nothing lost, nothing twice; each in the first bucket whose bound it does not exceed."""
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    view = histogram.view()

    assert view.count == len(values)
    assert view.total == pytest.approx(sum(values))
    assert view.counts[0] == sum(v <= LATENCY_BOUNDS_S[0] for v in values)
    assert view.counts[-1] == sum(v > LATENCY_BOUNDS_S[-1] for v in values)


def test_quantiles_are_bounds() -> None:
    """The bucket that holds the share; infinite beyond the last; none without observations."""
    view = HistogramView(bounds=(0.1, 1.0), counts=(50, 49, 1), total=1.0)

    assert view.quantile(0.5) == 0.1
    assert view.quantile(0.99) == 1.0
    assert view.quantile(1.0) == float("inf")
    assert HistogramView().quantile(0.5) is None

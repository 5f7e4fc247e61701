"""Paper fidelity: the queue model against the embedded exchange's true queue, the same minutes."""

import pytest

from mm.research.fidelity import Fidelity, measure
from mm.research.fills import FillModel


def over(model: FillModel = FillModel.QUEUE, *, has_trades: bool = True) -> Fidelity:
    """Three short worlds together."""
    runs = [measure(seed, seconds=900, model=model, has_trades=has_trades) for seed in range(3)]
    return Fidelity(probes=tuple(probe for run in runs for probe in run.probes))


@pytest.mark.parametrize("has_trades", [True, False])
def test_paper_fills_as_much_as_the_real_queue(has_trades: bool) -> None:
    """0.8 to 1.2 contracts on paper for each real one; the same verdict on nine probes of ten."""
    found = over(has_trades=has_trades)
    print(found)
    assert len(found.probes) > 150
    assert sum(p.true_filled for p in found.probes) > 30_000
    assert 0.8 <= found.ratio <= 1.2
    assert found.agreement >= 0.9


def test_the_bounds_are_far_from_it_on_their_sides() -> None:
    """`touch` fills much more than the real queue, `through` much less: the queue is what decides."""
    assert over(FillModel.TOUCH).ratio > 1.5
    assert over(FillModel.THROUGH).ratio < 0.8

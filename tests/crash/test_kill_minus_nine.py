"""kill -9 at random moments while the exchange trades on: the short version of `make crash-test`."""

from pathlib import Path

import pytest

from crash_rounds import crash_rounds

pytestmark = pytest.mark.real


async def test_after_every_kill_the_ledger_is_the_exchange(tmp_path: Path) -> None:
    """Four lives killed, one ended: 0 fills lost, 0 doubled; positions, fees, settlements and cash are equal."""
    run, found, summary = await crash_rounds(tmp_path, rounds=4, seed=11)

    assert found.is_equal, found.table()
    assert (summary["exit_code"], summary["orders_resting_at_exit"], summary["positions_match"]) == (
        0,
        0,
        True,
    )
    assert any(r.was_quoting for r in run.rounds)
    assert sum(r.hits + r.by_hand for r in run.rounds) >= 4
    assert run.rounds[-1].at_exchange >= 4

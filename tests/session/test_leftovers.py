"""What an earlier life left is off and fenced before the first quote. On loopback."""

import pytest
import trio

from bot_rig import Rig, is_quoting
from mm.domain.order import GroupId
from mm.ledger import open_ledger
from mm.session import live_surroundings
from mm.session.summary import ExitCode

pytestmark = pytest.mark.real

TRIGGER = "PUT /portfolio/order_groups/*/trigger"


async def old_group(rig: Rig) -> GroupId:
    """A group that a killed bot left open, as its ledger knows it."""
    surroundings = live_surroundings()
    async with rig.client() as exchange:
        group = await exchange.create_group(contracts_limit=10, exchange_index=0)
        async with open_ledger(
            rig.data_dir / "ledger.sqlite3",
            account=exchange.account,
            runner=surroundings.runner,
            clock=surroundings.clock,
            session="killed",
        ) as ledger:
            ledger.record_group(group, exchange_index=0, epoch=1)
    return group


async def test_a_fence_that_cannot_be_put_up_keeps_the_bot_from_quoting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create of the last life could still land there: the start fails, says why, and does not call it proven."""
    monkeypatch.setattr("mm.session.leaving.START_SWEEP_S", 0.3)
    monkeypatch.setattr("mm.session.leaving.EXIT_DEADLINE_S", 1.0)
    await old_group(rig)
    await rig.control("faults", kind="error", match=TRIGGER, code=503, when="before")
    with trio.fail_after(20.0):
        summary = await rig.run_bot(is_quoting)

    assert (summary.exit_code, summary.orders_placed) == (ExitCode.ORDERS_MAY_REST, 0)
    assert "groups not triggered yet" in summary.reason

"""However a session ends, nothing of it rests afterwards: by the exchange's own word, on loopback."""

from typing import Any

import pytest
import trio

from bot_rig import DEADLINE_S, Rig, is_quoting
from mm.session.summary import ExitCode
from mm.session.trading import Trading
from mm.tasks.feed import FeedHandler
from mm.tasks.quoter import Quoter
from mm.tasks.reconcile import Reconciler

pytestmark = pytest.mark.real


class PlantedError(RuntimeError):
    """A bug."""


def fail_once_quoting(rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    """From the moment on that every market is quoted, `owner.method` raises."""
    original = getattr(owner, method)

    def planted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if rig.trading and is_quoting(rig.trading[-1]):
            raise PlantedError(f"planted in {owner.__name__}.{method}")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, planted)


async def test_a_stop_leaves_nothing_and_positions_agree(rig: Rig) -> None:
    """Asked to stop after some fills, the bot ends with code 0, equal positions, and nothing resting."""
    summary = await rig.run_bot(until=lambda t: is_quoting(t) and t.floor.positions.fills >= 3)

    assert summary.exit_code is ExitCode.CLEAN
    assert summary.orders_resting_at_exit == 0
    assert summary.positions_match is True
    assert summary.markets == 4
    assert await rig.resting() == []


@pytest.mark.parametrize(
    ("owner", "method"),
    [(FeedHandler, "on_read_end"), (Quoter, "look"), (Reconciler, "_pass_fills")],
    ids=["feed", "quoter", "reconciler"],
)
async def test_a_bug_in_any_task_leaves_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    """An exception out of a task ends the session with code 1 and a reason, and the sweep has been done."""
    fail_once_quoting(rig, monkeypatch, owner, method)

    summary = await rig.run_bot()

    assert rig.trading[0].desk.placed > 0
    assert summary.exit_code is ExitCode.FAILED
    assert "planted" in summary.reason
    assert summary.orders_resting_at_exit == 0
    assert await rig.resting() == []


async def test_cancellation_from_outside_leaves_nothing(rig: Rig) -> None:
    """A caller that cancels the whole session gets it back only when nothing rests."""
    with trio.fail_after(DEADLINE_S), trio.CancelScope() as outside:

        def cancel_when_quoting(trading: Trading) -> bool:
            if is_quoting(trading):
                outside.cancel(reason="from outside")
            return False

        await rig.run_bot(until=cancel_when_quoting)

    assert outside.cancelled_caught
    assert rig.trading[0].desk.placed > 0
    assert await rig.resting() == []

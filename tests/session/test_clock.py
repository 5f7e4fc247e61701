"""Our clock is wrong, by the exchange's word: quotes go by what still works, nothing new comes, right again it quotes."""

import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.order import ClientOrderId, Side
from mm.exchange.port import NewOrder
from mm.session.summary import ExitCode
from mm.session.trading import Trading

pytestmark = pytest.mark.real


def foreign_order(trading: Trading, name: str) -> NewOrder:
    """A far-away bid of somebody else with the same account."""
    market = next(iter(trading.floor.makers.values())).market
    return NewOrder(
        client_order_id=ClientOrderId(name),
        ticker=market.ticker,
        side=Side.BID,
        price=market.grid.lowest,
        count=trading.floor.parameters.size_per_fill,
        exchange_index=market.exchange_index,
    )


async def resting_names(rig: Rig) -> set[str]:
    """Listing works whatever the clock says."""
    return {str(report.client_order_id) for report in await rig.resting()}


@pytest.mark.parametrize("ahead_ms", [90_000, -90_000], ids=["behind", "ahead"])
async def test_a_wrong_clock_pulls_the_quotes_and_they_come_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, ahead_ms: int
) -> None:
    """The exchange refuses every signature for its time: the groups are triggered all the same, nothing is placed meanwhile.

    Right again, it catches up and quotes. Wrong once more when it is told to stop, it leaves nothing and proves it. A foreign
    order is there all the time.
    """
    monkeypatch.setattr("mm.tasks.freshness.LONG_READ_LAG_S", 1.0)
    monkeypatch.setattr("mm.session.leaving.FINAL_CHECK_S", 0.5)

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await trading.exchange.place(foreign_order(trading, "somebody-else-1"))
        old = set(trading.fence.groups.values())
        await rig.control("faults", kind="skew", ms=ahead_ms)
        began = trio.current_time()
        await eventually(lambda: old <= trading.fence.triggered, "pulled", 4.0)
        await eventually(lambda: not trading.desk.live, "nothing live", 2.0)
        print(f"off the book {trio.current_time() - began:.2f} s after the clock went wrong")
        placed = trading.desk.placed
        await trio.sleep(0.5)
        assert await resting_names(rig) == {"somebody-else-1"}
        assert trading.desk.placed == placed
        await rig.control("faults", kind="skew", ms=0)
        await eventually(lambda: is_quoting(trading), "quoting again", 10.0)
        assert old.isdisjoint(trading.fence.groups.values())
        await rig.control("faults", kind="skew", ms=ahead_ms)

    summary = await rig.run_bot(script=script, QUOTE_TTL_SEC="600")

    assert (summary.exit_code, summary.orders_resting_at_exit) == (ExitCode.CLEAN, 0)
    assert await resting_names(rig) == {"somebody-else-1"}


async def test_a_start_with_a_wrong_clock_is_refused_with_its_reason(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to do; nothing was placed."""
    monkeypatch.setattr("mm.session.trading.START_DEADLINE_S", 0.3)
    await rig.control("faults", kind="skew", ms=-90_000)

    summary = await rig.run_bot(is_quoting)

    assert (summary.exit_code, summary.orders_placed) == (ExitCode.FAILED, 0)
    assert "refuses our clock: check the time of this machine" in summary.reason

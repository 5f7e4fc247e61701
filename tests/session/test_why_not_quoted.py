"""A market without a quote says why, also where no rule forbids quoting."""

import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.numbers import SECOND
from mm.engine.requote import STOP_AT
from mm.session.trading import Trading
from mm.session.viewing import Viewer

pytestmark = pytest.mark.real


async def test_the_churn_brake_is_told(rig: Rig) -> None:
    """While it holds, the market's reason is the brake and its seconds; a market with a quote has none."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        viewer = Viewer(trading, trading.clock())
        ticker, maker = next(iter(trading.floor.makers.items()))
        now = trading.clock()
        for _ in range(STOP_AT[0]):
            maker.brake.note_replace(now)
        maker.holds["test"] = "pulled by the test"
        trading.floor.order_changed(ticker)
        trading.floor.mark(ticker)
        trading.floor.decide_dirty(trading.clock())
        await eventually(lambda: not trading.floor.orders(ticker), "pulled")
        maker.holds.clear()
        trading.floor.mark(ticker)
        trading.floor.decide_dirty(trading.clock())
        view = next(m for m in viewer.snapshot().markets if m.ticker == ticker)
        assert view.state == "held"
        assert view.reason.startswith("churn brake: no new quotes for ")
        quoted = [m for m in viewer.snapshot().markets if m.bid and m.ask]
        assert quoted
        assert {m.reason for m in quoted} == {""}
        assert trading.clock() - now < 20 * SECOND

    with trio.fail_after(40):
        summary = await rig.run_bot(script=script)
    assert summary.exit_code == 0, summary.reason

"""A run that was killed is told by the next one, by every way to people."""

import pytest
import trio

from bot_rig import Rig, is_quoting
from mm.ledger import open_ledger
from mm.session.surroundings import live_surroundings

pytestmark = pytest.mark.real


async def test_the_next_run_tells_that_the_last_one_died(rig: Rig) -> None:
    """After a run without an end; at the first start nothing is said."""

    async def said() -> list[str]:
        summary = await rig.run_bot(is_quoting)
        assert summary.exit_code == 0, summary.reason
        return [a.text for a in rig.trading[-1].alerts.recent if "died without a word" in a.text]

    with trio.fail_after(80):
        assert await said() == []
        surroundings = live_surroundings()
        async with open_ledger(
            rig.data_dir / "ledger.sqlite3",
            account=rig.trading[-1].exchange.account,
            runner=surroundings.runner,
            clock=surroundings.clock,
            session="killed",
        ) as ledger:
            ledger.record_session_start()
        assert len(await said()) == 1

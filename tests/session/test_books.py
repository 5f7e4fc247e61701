"""A damaged ledger: refused at the start with the way out, and the way out leads out. On loopback."""

import attrs
import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.errors import ConfigError
from mm.exchange.paging import read_all
from mm.ledger.reader import open_reader
from mm.session.books import rebuild
from mm.session.summary import ExitCode
from mm.session.trading import Trading

pytestmark = pytest.mark.real


async def test_a_damaged_ledger_is_rebuilt_from_the_exchange(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bot does not trade on it; after the rebuild fills and positions are the exchange's, and it trades again."""
    await rig.run_bot(until=lambda t: t.floor.positions.fills >= 4)
    path = rig.data_dir / "ledger.sqlite3"
    async with rig.client() as exchange:
        truth = {f.key: f for f in await read_all(lambda c: exchange.fills_page(cursor=c), what="fills")}
    content = path.read_bytes()
    trade_id = next(iter(truth))[1].encode()
    assert trade_id in content
    path.write_bytes(content.replace(trade_id, trade_id[::-1]))

    refused = await rig.run_bot()
    assert refused.exit_code is ExitCode.FAILED
    assert "mm ledger rebuild" in refused.reason
    assert refused.orders_placed == 0

    assert await rebuild(rig.settings()) == 0
    said = capsys.readouterr().out
    assert "damaged" in said
    assert "positions equal" in said
    with open_reader(path) as reader:
        (account,) = reader.accounts()
        rows = list(reader.fills(account))
        assert {row.fill.key: attrs.evolve(row.fill, client_order_id=None) for row in rows} == truth
        assert {row.kind.value for row in rows} == {"quote"}
        assert all((row.fill.client_order_id or "").startswith("mm-") for row in rows)
    assert len(list(rig.data_dir.glob("ledger-damaged-*.sqlite3"))) == 1

    again = await rig.run_bot(until=is_quoting)
    assert (again.exit_code, again.positions_match) == (ExitCode.CLEAN, True)


async def test_there_is_nothing_to_rebuild_from_in_simulation(rig: Rig) -> None:
    """Each start of the embedded exchange is a new account: said, and nothing is moved."""
    with pytest.raises(ConfigError, match="no history"):
        await rebuild(rig.settings(KALSHI_ENV="sim", KALSHI_REST_URL="", KALSHI_WS_URL=""))


async def test_what_a_run_leaves_in_the_books(rig: Rig) -> None:
    """Where the day began (once a day, whatever restarts), cash compared at the start and at the exit, a whole file."""
    path = rig.data_dir / "ledger.sqlite3"
    for life in (1, 2):
        await rig.run_bot(until=lambda t: is_quoting(t) and t.monitor.daily_loss.day is not None)
        reconciler = rig.trading[-1].reconciler
        assert reconciler.cash.is_equal is True
        with open_reader(path) as reader:
            assert reader.problems() == []
            assert reader.count("days") == 1
            assert reader.count("balances") == 2 * life
    first, second = (trading.monitor.daily_loss for trading in rig.trading)
    assert second.start == first.start


async def test_reads_that_lag_by_three_seconds_are_no_drift(rig: Rig) -> None:
    """Listings and positions are 3 s old all the time: fills on the socket, no alarm, no hold, equal at the end."""
    await rig.control("faults", kind="lag", ms=3_000)

    async def script(trading: Trading) -> None:
        await eventually(lambda: trading.floor.positions.fills >= 3, "fills", 20.0)
        compared = trading.reconciler.checks
        for _ in range(12):
            await trio.sleep(1.0)
            assert not any(drift.is_told for drift in compared.drifts.values())

    summary = await rig.run_bot(script=script)

    said = [alert.text for alert in rig.trading[0].alerts.recent]
    assert [text for text in said if "our position is" in text or "fee of trade" in text] == []
    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)

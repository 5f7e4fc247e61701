"""Archiving: the ledger shrinks, sums stay, nothing comes twice, and the archive is a ledger that verifies."""

import pytest

from mm.domain.errors import LedgerError
from mm.domain.order import OrderState, Side
from mm.ledger import SettlementRow, integrity
from mm.ledger.archive import DAY, KEEP_SETTLED
from mm.ledger.reader import open_reader

ACCOUNT = "sim|key|0|live"


def settle(ledger, ticker, at, value=2500):
    ledger.record_settlement(
        SettlementRow(ticker=ticker, value=value, settled_at=at, yes_count=0, no_count=0, fee=0)
    )


async def a_season(books, ledger, *, markets=5, fills=40):
    """Markets that were settled one day after the other, the first ten days ago; the last one is open."""
    for m in range(markets):
        await ledger.record_fills(
            [
                books.fill(100 * m + n, ticker=f"M{m}", order_id=f"o{m}", side=list(Side)[n % 3 % 2])
                for n in range(fills)
            ],
            m,
        )
        ledger.record_order(books.order(m, order_id=f"o{m}", state=OrderState.DONE))
        if m < markets - 1:
            settle(ledger, f"M{m}", books.now - (10 - m) * DAY)
    await ledger.flush()


async def test_old_settled_markets_move_and_all_sums_stay(books):
    """Results, cash and the open positions are the same before and after, and after a restart."""
    async with books.open() as ledger:
        await a_season(books, ledger)
        result, positions = await ledger.settled_result(), await ledger.positions()

        done = await ledger.archive()

        assert (done.markets, done.fills) == (3, 120)
        assert await ledger.settled_result() == result
        assert await ledger.positions() == positions
        assert await ledger.fills_of("M0") == []
        assert len(await ledger.fills_of("M3")) == 40
        assert done.bytes_after < done.bytes_before
    async with books.open(session="s2") as ledger:
        assert await ledger.settled_result() == result
        assert await ledger.mark() == 4
    with open_reader(books.path) as reader:
        assert [row.ticker for row in reader.archived(ACCOUNT)] == ["M0", "M1", "M2"]
        assert sum(row.fills for row in reader.archived(ACCOUNT)) == 120


async def test_fills_of_archived_markets_are_known_for_ever(books):
    """A listing read from its beginning brings them all again."""
    async with books.open() as ledger:
        await a_season(books, ledger)
        await ledger.archive()
        again = [books.fill(n, ticker="M0", order_id="o0") for n in range(3)]
        assert await ledger.record_fills([*again, books.fill(999, ticker="M4", order_id="o4")]) == [
            books.fill(999, ticker="M4", order_id="o4")
        ]
        assert await ledger.open_markets() == ["M4"]


async def test_the_archive_is_a_ledger_of_its_own_and_the_chain_goes_on(books):
    """It holds everything as it was, with the old chain; the new chain begins where that ended."""
    async with books.open() as ledger:
        await a_season(books, ledger)
        old = await ledger.chain_head()
        done = await ledger.archive()
        new = await ledger.chain_head()
        await ledger.record_fills([books.fill(5000, ticker="M4")])
    assert done.archive is not None
    with open_reader(done.archive) as reader:
        assert reader.chain_head() == old
        assert len(list(reader.fills(ACCOUNT))) == 200
        assert reader.archived(ACCOUNT) == []
    assert new.seq > old.seq
    first = books.connections[-1]
    with open_reader(books.path) as reader:
        first = reader._connection.execute(
            "SELECT seq, kind, content FROM chain ORDER BY seq LIMIT 1"
        ).fetchone()
        assert first == (old.seq + 1, "start", integrity.content(done.archive.name, old.digest.hex()))


async def test_nothing_old_enough_is_no_archive(books):
    """A market that was settled yesterday may still get a late fill."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(1, ticker="M0")])
        settle(ledger, "M0", books.now - KEEP_SETTLED + 1)
        done = await ledger.archive()
        assert (done.archive, done.fills) == (None, 0)
        assert await ledger.keep_small() is None
    assert list(books.folder.glob("*archive*")) == []


async def test_done_orders_are_dropped_and_live_ones_kept(books):
    """What may rest is never forgotten."""
    async with books.open() as ledger:
        ledger.record_order(books.order(1, order_id="o1", state=OrderState.DONE))
        ledger.record_order(books.order(2, order_id="o2", state=OrderState.UNKNOWN))
        await ledger.flush()
        books.now += 3 * DAY
        ledger.record_order(books.order(3, order_id="o3", state=OrderState.DONE))
        await ledger.flush()
        done = await ledger.archive()
        assert done.orders == 1
        assert set(await ledger.find_orders(["o1", "o2", "o3"])) == {"o2", "o3"}


async def test_an_error_while_archiving_removes_nothing(books):
    """At any statement: all fills are in the ledger, or all of the old ones are in an archive that verifies."""
    for step in range(60):
        async with books.open(account=f"a{step}") as ledger:
            await a_season(books, ledger, markets=2, fills=3)
            connection = books.connections[-1]
            connection.fail_at = step
            books.now += 1_000_000
            try:
                done = await ledger.archive()
            except LedgerError:
                connection.fail_at = None
                there = len(await ledger.fills_of("M0"))
                archives = list(books.folder.glob("*archive*"))
                assert there == 3 or len(archives) == 1
                with open_reader(books.path):
                    pass
                for path in archives:
                    path.unlink()
            else:
                connection.fail_at = None
                assert done.fills == 3
                break
    else:
        pytest.fail("the archive was never made")
    assert step > 6


async def test_other_accounts_keep_their_fills(books):
    """Only the account's own old markets move."""
    async with books.open(account="other") as ledger:
        await a_season(books, ledger)
    async with books.open() as ledger:
        await a_season(books, ledger)
        await ledger.archive()
    async with books.open(account="other") as ledger:
        assert len(await ledger.fills_of("M0")) == 40


async def test_a_large_ledger_archives_itself(books, monkeypatch):
    """Above the bound, at the start and every few hours."""
    monkeypatch.setattr("mm.ledger.ledger.ARCHIVE_ABOVE", 1)
    async with books.open() as ledger:
        await a_season(books, ledger)
        done = await ledger.keep_small()
        assert done is not None
        assert done.fills == 120

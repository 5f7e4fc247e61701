"""Reports read the ledger while the bot writes it."""

import sqlite3

import pytest

from mm.domain.errors import LedgerError
from mm.ledger.reader import open_reader


async def test_a_report_sees_what_is_committed_while_the_bot_runs(books):
    """Committed rows at once; queued ones not; the writer is not held up by an open report."""
    async with books.open(account="a") as ledger:
        ledger.record_session_start()
        await ledger.record_fills([books.fill(1)], high_water_mark=5)
        ledger.record_order(books.order(1))
        with open_reader(books.path) as reader:
            rows = reader.fills("a")
            first = next(rows)
            assert (first.fill, first.kind.value, first.session) == (books.fill(1), "unknown", "s1")
            await ledger.record_fills([books.fill(2)])
            rows.close()

            assert [row.fill for row in reader.fills("a", since=books.fill(2).ts)] == [books.fill(2)]
            assert list(reader.fills("a", ticker="other")) == []
            assert reader.accounts() == ["a"]
            assert reader.positions("a") == await ledger.positions()
            assert reader.totals("a").fills == 2
            assert reader.mark("a") == 5
            assert reader.sessions("a") == await ledger.sessions()
            assert reader.fills_of("a", books.fill().ticker) == [books.fill(1), books.fill(2)]
            assert (reader.settlements("a"), reader.groups("a")) == ([], [])


async def test_a_report_cannot_write(books):
    """Read-only means read-only."""
    async with books.open():
        pass
    with open_reader(books.path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM fills")


def test_no_ledger_is_told(tmp_path):
    """A report before the first run makes no file."""
    with pytest.raises(LedgerError, match="there is no ledger"):
        with open_reader(tmp_path / "ledger.sqlite3"):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_another_file_is_told(books):
    """Neither garbage nor another program's database is read as a ledger."""
    books.path.write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerError, match="damaged"):
        with open_reader(books.path):
            pass
    books.path.unlink()
    sqlite3.connect(books.path).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(LedgerError, match="not a ledger"):
        with open_reader(books.path):
            pass

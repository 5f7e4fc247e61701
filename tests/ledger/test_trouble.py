"""Disk full, locked, read-only, damaged, half-way errors: told with path and way out, and nothing half-written."""

import os
import sqlite3

import pytest
import trio

from mm.domain.errors import LedgerError
from mm.ledger.schema import VERSION


async def fill_up(books, ledger):
    """Record until the file takes no more; give how many batches were accepted."""
    for n in range(10_000):
        ledger.record_mark("before", n)
        await ledger.record_fills(
            [books.fill(2 * n, order_id="o" * 500), books.fill(2 * n + 1, order_id="o" * 500)], n
        )
    raise AssertionError("never full")


async def test_a_full_disk_stops_trading_and_leaves_whole_batches(books):
    """Fills, mark and queued records of the failing batch are all absent; those before are all there."""
    ordinary = books.connect

    def small(path):
        connection = ordinary(path)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    with pytest.raises(LedgerError, match="disk is full") as caught:
        async with books.open(connect=small) as ledger:
            await fill_up(books, ledger)
    assert str(books.path) in str(caught.value)

    async with books.open() as ledger:
        mark, queued = await ledger.mark(), await ledger.mark("before")
        # The record that was queued before the failing batch may still fit when the ledger closes.
        assert queued - mark in (0, 1)
        assert mark > 10
        assert 2 * (mark + 1) == len(await ledger.fills_of(books.fill().ticker))


async def test_after_a_full_disk_was_freed_what_waited_is_written(books):
    """The queue is kept, so a ledger that recovers has no hole."""
    async with books.open() as ledger:
        connection = books.connections[-1]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        ledger.record_mark("waiting" * 2_000, 1)
        with pytest.raises(LedgerError, match="disk is full"):
            await ledger.flush()
        connection.execute("PRAGMA max_page_count = 100000")
        await ledger.flush()

        assert await ledger.mark("waiting" * 2_000) == 1


async def test_an_error_at_any_statement_writes_nothing(books):
    """The statement of a batch that fails is moved from the first to the commit: all or nothing each time."""
    async with books.open() as ledger:
        connection = books.connections[-1]
        ledger.record_order(books.order(1, order_id="o1"))
        for step in range(100):
            connection.fail_at = step
            try:
                new = await ledger.record_fills([books.fill(1), books.fill(2)], high_water_mark=7)
            except LedgerError:
                assert not connection.in_transaction
                counts = [
                    connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
                    for table in ("fills", "marks", "orders")
                ]
                assert counts == [0, 0, 0]
                assert ledger.statistics().queued == 2
            else:
                assert len(new) == 2
                connection.fail_at = None
                break
        assert step > 6
        assert await ledger.mark() == 7


async def test_a_file_that_is_no_database_is_refused(books):
    """The message names the file and the way out, and the file is untouched."""
    books.path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(LedgerError, match=r"damaged.*mm ledger rebuild") as caught:
        async with books.open():
            pass
    assert str(books.path) in str(caught.value)
    assert books.path.read_bytes().startswith(b"not a database")


async def test_a_file_with_a_damaged_page_is_refused(books):
    """The check at the start reads the whole file."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(n) for n in range(300)])
    content = bytearray(books.path.read_bytes())
    content[8192 + 8 : 8192 + 40] = b"\xff" * 32
    books.path.write_bytes(content)
    with pytest.raises(LedgerError, match="damaged"):
        async with books.open():
            pass


async def test_a_truncated_file_is_refused(books):
    """Half a ledger is not taken for a small one."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(n) for n in range(300)])
    content = books.path.read_bytes()
    books.path.write_bytes(content[: len(content) // 8192 * 4096])
    with pytest.raises(LedgerError, match="damaged"):
        async with books.open():
            pass


async def test_another_programs_database_is_refused(books):
    """Nothing is written into a file that is not ours."""
    with sqlite3.connect(books.path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(LedgerError, match="another program's"):
        async with books.open():
            pass


async def test_a_newer_ledger_is_refused(books):
    """An older mm never writes into tables that it does not understand."""
    async with books.open():
        pass
    with sqlite3.connect(books.path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(LedgerError, match="newer mm"):
        async with books.open():
            pass


async def test_an_empty_file_becomes_a_ledger(books):
    """A run that died before its first commit left such a file."""
    books.path.touch()
    async with books.open() as ledger:
        assert await ledger.mark() is None


async def test_a_ledger_held_by_another_program_is_told(books):
    """Somebody's open transaction: not waited for without end."""
    async with books.open() as ledger:
        other = sqlite3.connect(books.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ledger.record_mark("a", 1)
        books.connections[-1].execute("PRAGMA busy_timeout = 20")
        with pytest.raises(LedgerError, match="locked by another program"):
            await ledger.flush()
        other.execute("ROLLBACK")
        other.close()

        assert await ledger.mark("a") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_read_only_folder_is_told_at_the_start(books):
    """Not at the first fill."""
    async with books.open():
        pass
    books.path.chmod(0o400)
    books.folder.chmod(0o500)
    try:
        with pytest.raises(LedgerError, match="rights"):
            async with books.open():
                pass
    finally:
        books.folder.chmod(0o700)


async def test_a_file_that_may_only_be_read_is_told_at_the_start(books):
    """Not at the first fill."""
    async with books.open():
        pass

    def read_only(path):
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    with pytest.raises(LedgerError, match=r"cannot be opened or written.*rights"):
        async with books.open(connect=read_only):
            pass


async def test_a_folder_that_cannot_be_made_is_told(books):
    """A file stands where the folder should be."""
    (books.folder / "file").write_text("x")
    with pytest.raises(LedgerError, match="MM_DATA_DIR"):
        async with books.open(path=books.folder / "file" / "ledger.sqlite3"):
            pass


async def test_a_folder_in_place_of_the_file_is_told(books):
    """The error names the path."""
    books.path.mkdir()
    with pytest.raises(LedgerError, match="cannot be opened"):
        async with books.open():
            pass


async def test_a_disk_that_hangs_at_the_end_is_given_up(books, autojump_clock):
    """Closing is bounded when the runner can be cancelled; what was not written is told."""
    is_hanging = False

    async def runner(work):
        if is_hanging:
            await trio.sleep_forever()
        return work()

    with pytest.raises(LedgerError, match=r"1 records were not written.*did not close within 5 s"):
        async with books.open(runner=runner) as ledger:
            ledger.record_mark("a", 1)
            is_hanging = True
    books.connections[-1].close()

"""A changed byte, a cut file, a forged row: found and told, or no value that is read is another one."""

import os
import random
import shutil
import sqlite3

import pytest

from mm.domain.errors import LedgerError
from mm.domain.order import OrderState, Side
from mm.ledger import AlertRow, SettlementRow, integrity
from mm.ledger.reader import open_reader
from mm.ledger.schema import MIGRATIONS, VERSION

PAGE = 1024


async def fill_a_small_one(books):
    """A ledger with rows of every kind, in small pages, and closed."""
    sqlite3.connect(books.path).execute(f"PRAGMA page_size = {PAGE}").connection.close()
    small = books.connect

    def connect(path):
        connection = small(path)
        connection.execute(f"PRAGMA page_size = {PAGE}")
        return connection

    async with books.open(connect=connect) as ledger:
        ledger.record_session_start()
        ledger.record_group("g1", exchange_index=0, epoch=1)
        ledger.record_order(books.order(1, order_id="o1", state=OrderState.RESTING))
        ledger.record_mark("settlements", 17)
        ledger.record_alert(AlertRow(alert_id="a1", raised_at=5, kind="error", text="words"))
        await ledger.record_fills([books.fill(1), books.fill(2, side=Side.ASK)], 9)
        await ledger.record_fills([books.fill(2, side=Side.ASK, fee=8600), books.fill(3, ticker="OVER")])
        ledger.record_settlement(settlement())
        ledger.record_session_end(reason="done", exit_code=0)


def settlement(value=2500):
    return SettlementRow(ticker="OVER", value=value, settled_at=5, yes_count=200, no_count=0, fee=0)


def values_of(path):
    """Everything that anybody reads, or None when the file is refused."""
    try:
        with open_reader(path) as reader:
            return [
                reader._connection.execute(
                    f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid"
                ).fetchall()
                for table, columns in integrity.SEALED.items()
            ]
    except LedgerError as exc:
        if str(path) not in str(exc):
            raise
        return None


async def test_a_byte_changed_anywhere_is_found_or_changes_nothing(books, tmp_path):
    """Every offset of the file in turn (a sample of them by default; all with MM_ALL_OFFSETS=1), each another way."""
    await fill_a_small_one(books)
    whole, expected = books.path.read_bytes(), values_of(books.path)
    assert expected is not None
    chance = random.Random(5)
    offsets = (
        range(len(whole)) if os.environ.get("MM_ALL_OFFSETS") else [*range(100), *range(100, len(whole), 61)]
    )
    refused = 0
    victim = tmp_path / "victim.sqlite3"
    for offset in offsets:
        content = bytearray(whole)
        content[offset] ^= chance.choice([0x01, 0x80, 0xFF, 1 << chance.randrange(8)])
        victim.write_bytes(content)
        found = values_of(victim)
        refused += found is None
        assert found in (None, expected), f"offset {offset}: other values were read"
    assert refused > len(list(offsets)) // 8
    print(f"{len(list(offsets))} of {len(whole)} offsets, {refused} refused, the rest changed nothing")


async def test_a_file_cut_anywhere_is_found(books, tmp_path):
    """At every page, and within some; an empty file is a new ledger, which is no damage."""
    await fill_a_small_one(books)
    whole = books.path.read_bytes()
    victim = tmp_path / "victim.sqlite3"
    for length in [1, 50, 100, *range(PAGE, len(whole), PAGE), *range(PAGE + 7, len(whole), 5 * PAGE)]:
        victim.write_bytes(whole[:length])
        assert values_of(victim) is None, f"cut to {length} of {len(whole)}"


async def test_the_bot_refuses_what_the_reader_refuses(books):
    """The same check stands before the first write, and the message names the way out."""
    await fill_a_small_one(books)
    content = books.path.read_bytes()
    assert content.count(b"t0002") > 1
    books.path.write_bytes(content.replace(b"t0002", b"t0009"))
    with pytest.raises(LedgerError, match=r"damaged.*mm ledger rebuild"):
        async with books.open():
            pass


@pytest.mark.parametrize(
    ("forgery", "told"),
    [
        ("UPDATE fills SET fee = fee - 100 WHERE id = 2", "row 2 of fills is not as it was written"),
        ("UPDATE marks SET at = at + 1", "of marks"),
        ("UPDATE orders SET state = 'done'", "of orders"),
        ("DELETE FROM fills WHERE id = 1", "row 1 of fills is missing"),
        ("DELETE FROM settlements", "of settlements is missing"),
        ("DELETE FROM chain WHERE seq = 2", "does not follow"),
        ("UPDATE chain SET content = x'00' WHERE seq = 2", "does not follow"),
    ],
)
async def test_what_another_program_changes_is_named(books, forgery, told):
    """Rows changed and removed with SQLite's own tools."""
    await fill_a_small_one(books)
    forge(books, forgery)
    with pytest.raises(LedgerError, match=told):
        async with books.open():
            pass


async def test_a_forger_who_seals_his_row_breaks_the_chain(books):
    """The seal can be computed by anybody; the chain's entries after it cannot be kept."""
    await fill_a_small_one(books)
    columns = ", ".join(integrity.SEALED["fills"])
    forge(
        books,
        "UPDATE fills SET fee = 1 WHERE id = 1",
        f"UPDATE fills SET seal = mm_seal('fills', {columns}) WHERE id = 1",
    )
    with pytest.raises(LedgerError, match="row 1 of fills does not hold the money"):
        async with books.open():
            pass


async def test_a_row_that_was_slipped_in_is_found(books):
    """With a seal of its own, but not in the chain."""
    await fill_a_small_one(books)
    columns = ", ".join(c for c in integrity.SEALED["fills"] if c not in ("id", "trade_id"))
    sealed = ", ".join(integrity.SEALED["fills"])
    forge(
        books,
        f"INSERT INTO fills (trade_id, {columns}) SELECT 'forged', {columns} FROM fills WHERE id = 1",
        f"UPDATE fills SET seal = mm_seal('fills', {sealed})",
    )
    with pytest.raises(LedgerError, match="row 4 of fills is not in the chain"):
        async with books.open():
            pass


def forge(books, *statements):
    with sqlite3.connect(books.path) as connection:
        integrity.prepare(connection)
        for statement in statements:
            connection.execute(statement)
    connection.close()


async def test_corrections_are_entries_of_their_own(books):
    """A fee that was corrected is not a forgery; the head moves with every money row."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(1)])
        first = await ledger.chain_head()
        await ledger.record_fills([books.fill(1, fee=8600)])
        second = await ledger.chain_head()
        await ledger.record_fills([books.fill(1, fee=8600, client_order_id="mm-s1-1")])
        assert (first.seq, second.seq) == (1, 2)
        assert await ledger.chain_head() == second
        ledger.record_settlement(settlement())
        ledger.record_settlement(settlement())
        ledger.record_settlement(settlement(2600))
        await ledger.flush()
        assert (await ledger.chain_head()).seq == 4
    async with books.open():
        pass


async def test_rows_written_before_there_were_seals_are_sealed(books):
    """A ledger of the first version becomes one of this version, with everything in it."""
    connection = sqlite3.connect(books.path)
    for step in MIGRATIONS[0]:
        connection.execute(step)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("PRAGMA application_id = 1835879527")
    for n in range(1, 4):
        connection.execute(
            "INSERT INTO fills VALUES (?, 'sim|key|0|live', 'o1', ?, 'T', 'bid', 4100, 200, 8500, 'maker', ?, NULL,"
            " 'unknown', 's0', 5)",
            (n, f"t{n}", n),
        )
    connection.execute("INSERT INTO marks VALUES ('sim|key|0|live', 'fills', 3)")
    connection.commit()
    connection.close()
    for _ in range(2):
        async with books.open() as ledger:
            assert [f.trade_id for f in await ledger.fills_of("T")] == ["t1", "t2", "t3"]
            assert await ledger.mark() == 3
            assert (await ledger.chain_head()).seq == 3
    assert sqlite3.connect(books.path).execute("PRAGMA user_version").fetchone() == (VERSION,)


async def test_a_migration_that_is_killed_leaves_the_old_version(books, tmp_path):
    """At any statement of it: the next start finds a whole file and finishes."""
    old = tmp_path / "old.sqlite3"
    connection = sqlite3.connect(old)
    for step in MIGRATIONS[0]:
        connection.execute(step)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("PRAGMA application_id = 1835879527")
    connection.execute("INSERT INTO marks VALUES ('sim|key|0|live', 'fills', 3)")
    connection.commit()
    connection.close()
    for step in range(100):
        shutil.copy(old, books.path)

        def connect(path, at=step):
            made = books.connect(path)
            made.fail_at = at
            made.on_crash = lambda: None
            return made

        is_over = False
        try:
            async with books.open(connect=connect) as ledger:
                books.connections[-1].fail_at = None
                assert await ledger.mark() == 3
                is_over = True
        except books.crash:
            books.connections[-1].close()
        async with books.open() as ledger:
            assert await ledger.mark() == 3
        for leftover in books.folder.glob("ledger.sqlite3*"):
            leftover.unlink()
        if is_over:
            break
    assert step > len(MIGRATIONS[1])


@pytest.mark.parametrize(
    ("forgery", "is_found"),
    [
        ("UPDATE marks SET at = at + 1", True),
        ("UPDATE fills SET fee = 1 WHERE id = 1", True),
        ("UPDATE fills SET fee = 1 WHERE ticker = 'OVER'", False),
    ],
)
async def test_a_large_file_is_checked_where_it_steers_the_bot(books, monkeypatch, forgery, is_found):
    """Marks and fills of open markets at every start; those of settled markets by `mm ledger verify`."""
    await fill_a_small_one(books)
    forge(books, forgery)
    monkeypatch.setattr("mm.ledger.store.CHECK_WHOLE_BYTES", 0)
    if is_found:
        with pytest.raises(LedgerError, match="not as it was written"):
            async with books.open():
                pass
        return
    async with books.open():
        pass
    with open_reader(books.path, is_checked=False) as reader:
        assert any("of fills" in problem for problem in reader.problems())

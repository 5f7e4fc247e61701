"""Backups: whole copies beside a writer, the way back, and what is never put in place."""

import sqlite3
from pathlib import Path
from typing import TypeVar

import pytest

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.ledger import open_ledger
from mm.ledger.backup import back_up, backups_in, restore
from mm.ledger.reader import open_reader
from mm.ledger.schema import VERSION

T = TypeVar("T")
NOW = Micros(1_796_166_601 * SECOND)
ACCOUNT = "host/key/0/live"


async def inline(work, /):
    return work()


def a_fill(n: int) -> Fill:
    return Fill(
        order_id=OrderId("o1"),
        trade_id=TradeId(f"t{n}"),
        ticker=MarketTicker("KXNHLGAME-26DEC01TORBOS-TOR"),
        side=Side.BID,
        price=Price(4_100),
        count=Count(100),
        fee=Money(8_500),
        liquidity=Liquidity.MAKER,
        ts=Micros(NOW + n * SECOND),
    )


def opened(path: Path):
    return open_ledger(path, account=ACCOUNT, runner=inline, clock=lambda: NOW, session="s1")


def fills_in(path: Path) -> tuple[int, Micros | None]:
    with open_reader(path) as reader:
        assert reader.problems() == []
        return reader.count("fills"), reader.mark(ACCOUNT)


async def test_a_copy_is_whole_while_the_bot_writes(tmp_path: Path) -> None:
    """Taken from an open ledger with a write-ahead log beside it; one file, verified, and what follows is not in it."""
    path = tmp_path / "ledger.sqlite3"
    async with opened(path) as ledger:
        await ledger.record_fills([a_fill(1), a_fill(2)], high_water_mark=NOW)
        copy, dropped = back_up(path, NOW)
        await ledger.record_fills([a_fill(3)], high_water_mark=Micros(NOW + SECOND))

    assert (fills_in(copy), dropped) == ((2, NOW), [])
    assert fills_in(path) == (3, NOW + SECOND)
    assert [found.path for found in backups_in(tmp_path)] == [copy]
    assert backups_in(tmp_path)[0].taken_at == NOW
    assert sorted(p.name for p in copy.parent.iterdir()) == [copy.name]


async def test_what_is_restored_knows_from_when_on_to_read(tmp_path: Path) -> None:
    """The mark is the copy's: the fills since then are asked of the exchange, and those known are not counted twice."""
    path = tmp_path / "ledger.sqlite3"
    async with opened(path) as ledger:
        await ledger.record_fills([a_fill(1), a_fill(2)], high_water_mark=Micros(NOW + 2 * SECOND))
    copy, _ = back_up(path, NOW)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    restore(copy, path)
    async with opened(path) as ledger:
        assert await ledger.mark() == NOW + 2 * SECOND
        new = await ledger.record_fills([a_fill(2), a_fill(3)], high_water_mark=Micros(NOW + 3 * SECOND))

    assert [fill.trade_id for fill in new] == ["t3"]
    assert fills_in(path) == (3, NOW + 3 * SECOND)


async def test_only_so_many_are_kept(tmp_path: Path) -> None:
    """The oldest go; files of other names stay."""
    path = tmp_path / "ledger.sqlite3"
    async with opened(path) as ledger:
        await ledger.record_fills([a_fill(1)], high_water_mark=NOW)
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "ledger-mine.sqlite3").write_text("not ours to drop")
    for n in range(5):
        back_up(path, Micros(NOW + n * 3_600 * SECOND), keep=3)

    assert [b.taken_at for b in backups_in(tmp_path)] == [NOW + n * 3_600 * SECOND for n in (2, 3, 4)]
    assert (folder / "ledger-mine.sqlite3").exists()


async def test_what_does_not_verify_is_not_put_in_place(tmp_path: Path) -> None:
    """A figure changed by hand, a file of something else, one of a newer program: named, and nothing is left behind."""
    path = tmp_path / "ledger.sqlite3"
    async with opened(path) as ledger:
        await ledger.record_fills([a_fill(1)], high_water_mark=NOW)
    copy, _ = back_up(path, NOW)
    target = tmp_path / "elsewhere" / "ledger.sqlite3"
    target.parent.mkdir()

    connection = sqlite3.connect(copy)
    connection.execute("UPDATE fills SET price = 1")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="fills"):
        restore(copy, target)
    connection = sqlite3.connect(copy)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(LedgerError, match="newer mm"):
        restore(copy, target)
    other = tmp_path / "other.sqlite3"
    sqlite3.connect(other).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(LedgerError, match="not a ledger of mm"):
        restore(other, target)
    with pytest.raises(LedgerError, match="there is no ledger"):
        back_up(tmp_path / "none.sqlite3", NOW)

    assert list(target.parent.iterdir()) == []

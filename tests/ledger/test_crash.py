"""kill -9 at any point of any write: what the next run finds is a whole earlier state."""

import shutil

import pytest

from mm.domain.order import OrderState


def copy_as_killed(books, folder):
    """The files as a killed process leaves them, in a folder of their own."""
    folder.mkdir()
    for suffix in ("", "-wal", "-shm"):
        source = books.path.with_name(books.path.name + suffix)
        if source.exists():
            shutil.copy(source, folder / source.name)
    return folder / books.path.name


async def life(books, ledger):
    """A few writes of every kind; each transaction moves fills and mark together."""
    ledger.record_session_start()
    ledger.record_group("g1", exchange_index=0, epoch=1)
    await ledger.flush()
    for n in range(1, 5):
        ledger.record_order(books.order(n, order_id=f"o{n}", state=OrderState.RESTING))
        await ledger.record_fills(
            [books.fill(10 * n, order_id=f"o{n}"), books.fill(10 * n + 1, order_id=f"o{n}")], n
        )
        ledger.record_order(books.order(n, order_id=f"o{n}", state=OrderState.DONE))


async def check_whole(books, path):
    """Fills, orders and mark agree, and the rest of the life can be lived on top of it exactly once."""
    async with books.open(path=path, session="s2") as ledger:
        mark = await ledger.mark() or 0
        fills = await ledger.fills_of(books.fill().ticker)
        assert len(fills) == 2 * mark
        orders = await ledger.find_orders([f"o{n}" for n in range(1, 5)])
        assert set(orders) == {f"o{n}" for n in range(1, mark + 1)}
        await life(books, ledger)
        assert len(await ledger.fills_of(books.fill().ticker)) == 8
        assert await ledger.mark() == 4
        assert (await ledger.groups(exclude_session="s2") == []) == (mark == 0 and not await is_old(ledger))
    return mark


async def is_old(ledger):
    """Whether the first life got as far as its group."""
    return any(group.session == "s1" for group in await ledger.groups())


async def test_killed_at_any_commit(books, tmp_path):
    """The files copied right after each commit."""
    copies = []

    def on_commit():
        copies.append(copy_as_killed(books, tmp_path / f"commit{len(copies)}"))

    async with books.open(on_commit=on_commit) as ledger:
        await life(books, ledger)

    marks = [await check_whole(books, path) for path in list(copies)]
    assert marks[0] == 0
    assert sorted(set(marks)) == [0, 1, 2, 3, 4]


async def test_killed_at_any_statement(books, tmp_path):
    """The files copied between any two statements, inside transactions too, opening and migrating included."""
    marks = set()
    for step in range(1_000):
        folder = tmp_path / f"life{step}"
        folder.mkdir()
        books.folder = folder
        copies = []

        def connect(path, at=step, copies=copies):
            connection = books.connect(path)
            connection.fail_at = at
            connection.on_crash = lambda: copies.append(copy_as_killed(books, tmp_path / f"copy{at}"))
            return connection

        try:
            async with books.open(connect=connect) as ledger:
                await life(books, ledger)
        except books.crash:
            marks.add(await check_whole(books, copies[0]))
        else:
            break
    else:
        pytest.fail("the life never ended")
    assert marks == {0, 1, 2, 3, 4}

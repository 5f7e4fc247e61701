"""Plain calls queue, the writer commits, reads see what was recorded before them."""

import pytest
import trio

from mm.domain.errors import LedgerError
from mm.domain.order import OrderState
from mm.ledger import AlertRow, GroupRow, SessionRow
from mm.ledger.store import connect_sqlite


async def test_the_writer_commits_a_burst_as_one_transaction(books, autojump_clock):
    """A hundred records within the gather time are one commit."""
    async with books.open() as ledger, trio.open_nursery() as nursery:
        await nursery.start(ledger.run_writer)
        before = ledger.statistics().commits
        for n in range(100):
            ledger.record_mark(f"m{n}", n)
        await trio.sleep(1)

        assert (before + 1, 0) == (ledger.statistics().commits, ledger.statistics().queued)
        ledger.record_mark("late", 1)
        await trio.sleep(1)
        assert before + 2 == ledger.statistics().commits
        nursery.cancel_scope.cancel(reason="done")


async def test_a_full_queue_stops_trading_and_drops_nothing(books):
    """The queue is bounded; what was accepted is still written."""
    async with books.open(capacity=3) as ledger:
        for n in range(3):
            ledger.record_mark(f"m{n}", n)
        with pytest.raises(LedgerError, match="does not keep up: 3"):
            ledger.record_mark("m3", 3)
        await ledger.flush()
        ledger.record_mark("m3", 3)

        assert [await ledger.mark(f"m{n}") for n in range(4)] == [0, 1, 2, 3]


async def test_in_shutdown_a_full_queue_is_counted_and_told_at_the_end(books):
    """Taking orders off never fails because of the books, but the loss is told."""
    with pytest.raises(LedgerError, match="2 records were not written"):
        async with books.open(capacity=1) as ledger:
            ledger.begin_shutdown()
            for n in range(3):
                ledger.record_mark(f"m{n}", n)
            assert ledger.statistics().lost == 2


async def test_a_failed_write_keeps_the_queue_and_refuses_more(books):
    """After a failure the records wait, new ones are refused, and a flush that works brings everything back."""
    async with books.open() as ledger:
        ledger.record_mark("a", 1)
        books.connections[-1].fail_at = 1
        with pytest.raises(LedgerError, match=r"ledger\.sqlite3"):
            await ledger.flush()
        with pytest.raises(LedgerError, match="failed before"):
            ledger.record_mark("b", 2)

        assert await ledger.mark("a") == 1
        ledger.record_mark("b", 2)
        assert await ledger.mark("b") == 2


async def test_the_writer_ends_with_the_error(books, autojump_clock):
    """A ledger that cannot be written ends its task, so its nursery, so trading."""
    async with books.open() as ledger:
        with pytest.RaisesGroup(LedgerError):
            async with trio.open_nursery() as nursery:
                await nursery.start(ledger.run_writer)
                books.connections[-1].fail_at = 0
                ledger.record_mark("a", 1)


async def test_a_cancelled_flush_loses_nothing(books):
    """Cancelled before the work began: still queued, and written when the ledger closes."""

    async def never(work):
        await trio.lowlevel.checkpoint()
        return work()

    async with books.open(runner=never) as ledger:
        ledger.record_mark("a", 1)
        with trio.CancelScope() as scope:
            scope.cancel(reason="test")
            await ledger.flush()
        assert scope.cancelled_caught
        assert ledger.statistics().queued == 1
    async with books.open() as ledger:
        assert await ledger.mark("a") == 1


async def test_closing_inside_a_cancelled_scope_still_writes(books):
    """The last records of a session that was cancelled from outside are in the file."""
    with trio.CancelScope() as scope:
        async with books.open() as ledger:
            ledger.record_session_end(reason="cancelled", exit_code=0)
            scope.cancel(reason="test")
            await trio.sleep_forever()
    async with books.open() as ledger:
        (session,) = await ledger.sessions()
        assert session.reason == "cancelled"


async def test_an_error_of_the_body_is_not_hidden_by_the_ledgers(books):
    """What went wrong first is what is raised; the ledger's trouble is a note on it."""
    with pytest.raises(ZeroDivisionError) as caught:
        async with books.open() as ledger:
            ledger.record_mark("a", 1)
            books.connections[-1].fail_at = 0
            raise ZeroDivisionError
    assert "1 records were not written" in caught.value.__notes__[0]


async def test_orders_are_brought_up_to_date_and_found_by_both_ids(books):
    """One row an order; the venue's id, once known, stays."""
    async with books.open() as ledger:
        ledger.record_order(books.order(1))
        ledger.record_order(books.order(1, order_id="o1", state=OrderState.RESTING, group_id="g1"))
        ledger.record_order(books.order(1, state=OrderState.CANCELLING, price=4200))
        ledger.record_order(books.order(2, order_id="o2", state=OrderState.DONE))

        found = await ledger.find_orders(["o1", "o2", "strange"])
        assert {"o1", "o2"} == set(found)
        assert (
            found["o1"].client_order_id,
            found["o1"].price,
            found["o1"].state,
            found["o1"].group_id,
            found["o1"].session,
        ) == ("mm-s1-1", 4200, OrderState.CANCELLING, "g1", "s1")
        assert found["o1"] == await ledger.find_order("mm-s1-1")
        assert [found["o1"]] == await ledger.live_orders()
        assert await ledger.find_orders([]) == {}


async def test_finding_more_orders_than_one_statement_takes(books):
    """Long lists are looked up in parts."""
    async with books.open() as ledger:
        ledger.record_order(books.order(1, order_id="o1199"))
        assert list(await ledger.find_orders([f"o{n}" for n in range(1300)])) == ["o1199"]


async def test_groups_of_earlier_sessions_are_found_until_deleted(books):
    """What a session that died left behind is known to the next one."""
    async with books.open(session="old") as ledger:
        ledger.record_group("g1", exchange_index=0, epoch=1)
        ledger.record_group("g2", exchange_index=3, epoch=1)
        ledger.record_group("g3", exchange_index=0, epoch=2)
        ledger.record_group_triggered("g2")
        ledger.record_group_deleted("g3")
    books.now += 5
    async with books.open(session="new") as ledger:
        ledger.record_group("g9", exchange_index=0, epoch=1)
        ledger.record_group_triggered("g2")
        left = GroupRow(group_id="g1", exchange_index=0, epoch=1, session="old", created_at=books.now - 5)

        first, second = await ledger.groups(exclude_session="new")
        assert left == first
        assert ("g2", 3, books.now - 5) == (second.group_id, second.exchange_index, second.triggered_at)
        assert len(await ledger.groups()) == 3


async def test_a_session_that_died_has_no_end(books):
    """Start without end: killed. The end is written over the start's row."""
    async with books.open(session="dead") as ledger:
        ledger.record_session_start()
    books.now += 1
    async with books.open(session="well") as ledger:
        ledger.record_session_start()
        books.now += 1
        ledger.record_session_end(reason="operator", exit_code=0)

        assert [
            SessionRow(
                session="well",
                started_at=books.now - 1,
                ended_at=books.now,
                reason="operator",
                exit_code=0,
            ),
            SessionRow(session="dead", started_at=books.now - 2),
        ] == await ledger.sessions()


async def test_critical_alerts_wait_until_they_are_delivered(books):
    """The next run tells what this one could not."""
    rows = [AlertRow(alert_id=f"a{n}", raised_at=n, kind="orders may rest", text="2 orders") for n in (2, 1)]
    async with books.open() as ledger:
        for row in [*rows, rows[0]]:
            ledger.record_alert(row)
        ledger.record_alert_delivered("a2")
    async with books.open() as ledger:
        assert [rows[1]] == await ledger.undelivered_alerts()


async def test_commits_are_flushed_to_the_disk(books):
    """A power cut takes back nothing that somebody built on."""
    made = []

    def connect(path):
        made.append(connect_sqlite(path))
        return made[-1]

    async with books.open(connect=connect):
        assert made[0].execute("PRAGMA synchronous").fetchone() == (2,)
        assert made[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.real
async def test_in_a_thread_many_tasks_share_one_writer(books):
    """With the live runner: concurrent fills, reads and records, nothing lost, nothing doubled."""
    limiter = trio.CapacityLimiter(1)

    async def in_thread(work):
        return await trio.to_thread.run_sync(work, limiter=limiter)

    new = []

    async def deliver(ledger, numbers):
        for n in numbers:
            ledger.record_order(books.order(n, order_id=f"o{n}"))
            new.extend(await ledger.record_fills([books.fill(n, order_id=f"o{n}")], high_water_mark=n))

    with trio.fail_after(20):
        async with books.open(runner=in_thread) as ledger:
            async with trio.open_nursery() as tasks:
                await tasks.start(ledger.run_writer)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(deliver, ledger, range(20))
                    nursery.start_soon(deliver, ledger, range(10, 30))
                tasks.cancel_scope.cancel(reason="done")

            assert sorted(f.trade_id for f in new) == [books.fill(n).trade_id for n in range(30)]
            assert await ledger.mark() == 29
            assert {"quote"} == {row[0] for row in books.connections[-1].execute("SELECT kind FROM fills")}

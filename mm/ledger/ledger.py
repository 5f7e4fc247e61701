"""The ledger as the bot sees it: plain calls that queue, awaited calls that commit.

`record_*` append to a bounded queue and never wait; `flush` writes what is queued in one transaction through the
runner; `run_writer` flushes by itself. Reads flush first, so that they see what was recorded before them. Fills have
a call of their own: they are committed together with the mark before anybody builds on them.

No task lives here: a ledger is usable in every cleanup, under a shield with a deadline.
"""

import datetime as dt
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar, final

import attrs
import trio

from mm.domain.errors import LedgerError, MMError
from mm.domain.fill import Fill
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, Order, OrderId
from mm.ledger import statements
from mm.ledger.archive import ARCHIVE_ABOVE, KEEP_SETTLED, Archived, archive
from mm.ledger.reads import LedgerReads
from mm.ledger.rows import (
    AlertRow,
    SettlementRow,
)
from mm.ledger.statements import Statement
from mm.ledger.store import Connect, Store, connect_sqlite

T = TypeVar("T")

QUEUE_CAPACITY: Final = 10_000
GATHER_S: Final = 0.005
"""How long the writer waits for company before it commits: a burst of quotes is one transaction."""
CLOSE_TIMEOUT_S: Final = 5.0


class Runner(Protocol):
    """Runs a blocking callable: in a thread when live, inline in simulation.

    Contract: when cancelled before the work began it raises and the work never runs; once begun, it returns the
    work's result even if cancelled meanwhile (as `trio.to_thread.run_sync` does).
    """

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Run `work` and give its result."""


@attrs.frozen(kw_only=True)
class LedgerStatistics:
    """Counters since the ledger was opened."""

    queued: int
    capacity: int
    commits: int
    fills_recorded: int
    duplicates: int
    """Fills that were known already."""
    corrected: int
    """Known fills whose fee, liquidity or place a later report changed."""
    lost: int
    """Records dropped after `begin_shutdown` because the file or the queue took no more."""


@asynccontextmanager
async def open_ledger(
    path: Path,
    *,
    account: str,
    runner: Runner,
    clock: Callable[[], Micros],
    session: str = "",
    capacity: int = QUEUE_CAPACITY,
    connect: Connect = connect_sqlite,
    on_commit: Callable[[], None] | None = None,
) -> AsyncGenerator["Ledger", None]:
    """Open (or make) the ledger file for one account; at the end write what is queued and close it.

    Args:
        path: The SQLite file; its folder is made when missing. Rows of other accounts in it are invisible.
        account: See `Exchange.account`.
        runner: Runs blocking work; see `Runner`.
        clock: Wall clock, for the rows' own times.
        session: The id that marks this run's rows.
        capacity: Bound of the queue.
        connect: Makes the SQLite connection; a test's or a simulation's place to put its own.
        on_commit: Called after each commit, in whatever thread the runner uses.

    Raises:
        LedgerError: Not usable (damaged, locked, read-only, disk full, made by a newer version), with the path and
            what to do; or, at the end, what was queued could not be written. When the block itself raised, that
            error goes on and carries the ledger's as a note.
    """
    store = await runner(lambda: Store.open(path, account=account, connect=connect, on_commit=on_commit))
    ledger = Ledger(store=store, runner=runner, clock=clock, session=session, capacity=capacity)
    try:
        yield ledger
    except BaseException as exc:
        error = await ledger._close()
        if error is not None:
            exc.add_note(f"and the ledger did not close well: {error}")
        raise
    error = await ledger._close()
    if error is not None:
        raise error


@final
@attrs.define(eq=False, kw_only=True)
class Ledger(LedgerReads):
    """An open ledger. Made by `open_ledger` only. Plain calls belong to the trio thread."""

    _store: Store
    _runner: Runner
    _clock: Callable[[], Micros]
    session: str
    """The id that marks rows of this run."""
    _capacity: int
    _queue: deque[Statement] = attrs.field(factory=deque, init=False)
    _busy: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _failure: LedgerError | None = attrs.field(default=None, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _is_shutting_down: bool = attrs.field(default=False, init=False)
    _lost: int = attrs.field(default=0, init=False)
    _fills_recorded: int = attrs.field(default=0, init=False)
    _duplicates: int = attrs.field(default=0, init=False)
    _corrected: int = attrs.field(default=0, init=False)
    _changed: set[MarketTicker] = attrs.field(factory=set, init=False)

    @property
    def account(self) -> str:
        """Whose rows these are."""
        return self._store.account

    @property
    def path(self) -> Path:
        """The file."""
        return self._store.path

    # --- plain calls: queued, written by the next flush -------------------------------------------------------------

    def record_order(self, order: Order) -> None:
        """An order's intent, or its newest state; one row per client order id.

        Raises:
            LedgerError: The queue is full or the last write failed: trading must stop. (All `record_*`.)
        """
        self._put(statements.order(self.account, order, session=self.session, now=self._clock()))
        if order.order_id is not None:
            # Fills may have been recorded before the order's venue id was known: name them now.
            self._put(statements.name_fills(self.account, order))

    def record_foreign_order(self, order_id: OrderId) -> None:
        """An order of this account that is not ours: its fills are marked as foreign."""
        self._put(statements.foreign_order(self.account, order_id))

    def record_order_name(self, order_id: OrderId, client_order_id: ClientOrderId) -> None:
        """The venue's id of an order of ours was learned from a read; its fills get our id and their kind."""
        for statement in statements.order_names(self.account, order_id, client_order_id):
            self._put(statement)

    def record_group(self, group_id: GroupId, *, exchange_index: int, epoch: int) -> None:
        """A new order group. Flush before its first order, so that a restart knows of it."""
        self._put(
            statements.group(
                self.account,
                group_id,
                exchange_index=exchange_index,
                epoch=epoch,
                session=self.session,
                now=self._clock(),
            )
        )

    def record_group_triggered(self, group_id: GroupId) -> None:
        """A group was triggered; the first time counts."""
        self._put(statements.group_triggered(self.account, group_id, now=self._clock()))

    def record_group_deleted(self, group_id: GroupId) -> None:
        """A group is gone at the venue."""
        self._put(statements.group_deleted(self.account, group_id, now=self._clock()))

    def record_settlement(self, row: SettlementRow) -> None:
        """A settled market; a later row for the same market replaces the earlier (the venue amended it)."""
        self._put(statements.settlement(self.account, row))

    def record_mark(self, name: str, at: Micros) -> None:
        """Advance a high-water mark; it never goes back. For fills use `record_fills`."""
        self._put(statements.mark(self.account, name, at))

    def record_session_start(self) -> None:
        """This session has begun."""
        self._put(statements.session_start(self.account, self.session, now=self._clock()))

    def record_session_end(self, *, reason: str, exit_code: int) -> None:
        """This session has ended."""
        self._put(
            statements.session_end(
                self.account, self.session, now=self._clock(), reason=reason, exit_code=exit_code
            )
        )

    def record_day_start(self, day: dt.date, pnl: Money) -> None:
        """The marked result, from the beginning of the ledger, with which a day began; the first one counts."""
        self._put(statements.day_start(self.account, day, pnl, now=self._clock()))

    def record_trigger(
        self, ticker: MarketTicker | None, reason: str, net: Count, mark: Price | None
    ) -> None:
        """A risk rule acted in a market (None: in all of them)."""
        self._put(
            statements.trigger(self.account, self.session, ticker or "", reason, net, mark, now=self._clock())
        )

    def record_balance(self, *, balance: Money, expected: Money, unexplained: Money) -> None:
        """A comparison of cash: what the venue told, what we expected, and what was paid in by that."""
        self._put(
            statements.balance(self.account, self.session, balance, expected, unexplained, now=self._clock())
        )

    def record_alert(self, row: AlertRow) -> None:
        """A critical alert that must reach somebody, in this run or the next."""
        self._put(statements.alert(self.account, row))

    def record_alert_delivered(self, alert_id: str) -> None:
        """It was delivered."""
        self._put(statements.alert_delivered(self.account, alert_id, now=self._clock()))

    def begin_shutdown(self) -> None:
        """From now on `record_*` do not raise: what cannot be kept is counted as lost and told when the ledger closes.

        For the exit: taking orders off must not fail because the books cannot be written.
        """
        self._is_shutting_down = True

    # --- awaited calls ----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write everything queued, in one transaction. Nothing is taken from the queue before it is committed.

        Raises:
            LedgerError: Not written; what was queued is still queued and a later flush tries again.
        """
        async with self._busy:
            batch = list(self._queue)
            if not batch:
                return
            await self._run(lambda: self._store.write(batch))
            self._forget(len(batch))

    async def run_writer(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Flush soon after something is queued; never returns. Raises `LedgerError`, which ends trading.

        A cancellation leaves the rest queued for the last flush when the ledger closes.
        """
        task_status.started()
        while True:
            await self._wake.wait()
            await trio.sleep(GATHER_S)
            self._wake = trio.Event()
            await self.flush()

    async def record_fills(self, fills: Sequence[Fill], high_water_mark: Micros | None = None) -> list[Fill]:
        """Commit fills and the mark in one transaction (with what is queued before them); give those that were new.

        The same fill over both sources is one fill. What a later report adds to a known one (our client id, a finer
        time) is kept; a later report with another fee or liquidity replaces them. Markets in which that may have
        changed the order or the money of known fills are named by `take_changed`.

        Args:
            fills: In any order.
            high_water_mark: Everything up to this time has been read; None leaves the mark alone. Never goes back.

        Returns:
            The new ones, in exchange order (time, then trade id). Cancelled before the work began, nothing was
            written and a repetition is harmless.

        Raises:
            LedgerError: Nothing of it was written.
            InvariantError: A known fill came again with another market, side, price or count.
        """
        async with self._busy:
            batch = list(self._queue)
            now = self._clock()
            result = await self._run(
                lambda: self._store.record_fills(
                    batch, fills, mark=high_water_mark, session=self.session, now=now
                )
            )
            self._forget(len(batch))
        self._fills_recorded += len(result.new)
        self._duplicates += len(fills) - len(result.new)
        self._corrected += result.corrected
        self._changed |= result.changed
        return result.new

    def take_changed(self) -> set[MarketTicker]:
        """Markets whose inventory must be rebuilt from `fills_of`: a known fill moved or changed. Empties the set."""
        changed, self._changed = self._changed, set()
        return changed

    async def archive(self, *, keep_settled: Micros = KEEP_SETTLED) -> Archived:
        """Move markets settled long ago to an archive and drop old done orders; see `mm.ledger.archive`."""
        async with self._busy:
            now = self._clock()
            return await self._run(lambda: archive(self._store, now=now, keep_settled=keep_settled))

    async def keep_small(self) -> Archived | None:
        """`archive` when the file has grown above `ARCHIVE_ABOVE` bytes."""
        if await self._read(lambda store: store.size()) <= ARCHIVE_ABOVE:
            return None
        return await self.archive()

    def statistics(self) -> LedgerStatistics:
        """Counters."""
        return LedgerStatistics(
            queued=len(self._queue),
            capacity=self._capacity,
            commits=self._store.commits,
            fills_recorded=self._fills_recorded,
            duplicates=self._duplicates,
            corrected=self._corrected,
            lost=self._lost,
        )

    # --- inside -----------------------------------------------------------------------------------------------------

    def _put(self, statement: Statement) -> None:
        if self._is_closed:
            raise LedgerError(f"the ledger {self.path} is closed")
        if len(self._queue) >= self._capacity:
            if self._is_shutting_down:
                self._lost += 1
                return
            raise LedgerError(
                f"the ledger {self.path} does not keep up: {len(self._queue)} records are waiting to be written"
            )
        if self._failure is not None and not self._is_shutting_down:
            raise LedgerError(f"the ledger failed before: {self._failure}") from self._failure
        self._queue.append(statement)
        self._wake.set()

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._is_closed:
            raise LedgerError(f"the ledger {self.path} is closed")
        try:
            result = await self._runner(work)
        except LedgerError as exc:
            self._failure = exc
            raise
        self._failure = None
        return result

    async def _read(self, query: Callable[[Store], T]) -> T:
        """Flush and read in one go, so that what was recorded before is seen."""
        async with self._busy:
            batch = list(self._queue)
            result = await self._run(lambda: self._store.read(batch, query))
            self._forget(len(batch))
            return result

    async def _close(self) -> MMError | None:
        """Write the rest and close; give the error instead of raising it."""
        self._is_shutting_down = True
        error: MMError | None = None
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True) as scope:
            try:
                await self.flush()
            except MMError as exc:
                error = exc
            try:
                async with self._busy:
                    await self._run(self._store.close)
            except MMError as exc:
                error = error or exc
        self._is_closed = True
        lost = self._lost + len(self._queue)
        if scope.cancelled_caught:
            error = LedgerError(f"the ledger {self.path} did not close within {CLOSE_TIMEOUT_S:g} s")
        if lost:
            error = LedgerError(f"{lost} records were not written to {self.path}: {error or 'queue full'}")
        return error

"""The blocking half of the ledger: one SQLite connection, transactions, and what its errors mean to people.

Called through the ledger's runner, one call at a time. Nothing here knows trio.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import attrs

from mm.domain.errors import InvariantError, LedgerError
from mm.domain.fill import Fill
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker
from mm.ledger import integrity, queries, statements
from mm.ledger.rows import FillKind
from mm.ledger.schema import APPLICATION_ID, MIGRATIONS, VERSION
from mm.ledger.statements import Statement

T = TypeVar("T")
Connect = Callable[[str], sqlite3.Connection]

BUSY_TIMEOUT_S: Final = 2.0
"""How long to wait for another program's lock on the file before saying so."""

CHECK_WHOLE_BYTES: Final = 25_000_000
"""Above this the check at the start leaves out that indexes match their tables: it would take seconds."""

_INSERT_FILL: Final = """
INSERT INTO fills (account, order_id, trade_id, ticker, side, price, count, fee, liquidity, ts, client_order_id,
                   kind, session, recorded_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, order_id, trade_id) DO NOTHING
"""


def connect_sqlite(path: str) -> sqlite3.Connection:
    """The connection of a live ledger. Transactions are ours to open; the runner's thread may change."""
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


@attrs.frozen(kw_only=True)
class RecordedFills:
    """What one transaction of fills did."""

    new: list[Fill]
    """In exchange order."""
    corrected: int
    changed: set[MarketTicker]


@attrs.define(eq=False, kw_only=True)
class Store:
    """One open file. Every method raises `LedgerError` with the path and what to do; nothing is half-written."""

    path: Path
    account: str
    connection: sqlite3.Connection
    _on_commit: Callable[[], None] | None = None
    commits: int = 0

    @classmethod
    def open(
        cls, path: Path, *, account: str, connect: Connect, on_commit: Callable[[], None] | None = None
    ) -> "Store":
        """Open or make the file, check it whole, bring its tables up to date, and prove that it can be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise LedgerError(
                f"cannot make the folder of the ledger {path}: {exc.strerror or exc}; choose another with MM_DATA_DIR"
            ) from exc
        with told(path):
            connection = connect(str(path))
        store = cls(path=path, account=account, connection=connection, on_commit=on_commit)
        try:
            with told(path):
                store._prepare()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Close the file; SQLite folds the write-ahead log into it."""
        with told(self.path):
            self.connection.close()

    def write(self, batch: Sequence[Statement]) -> None:
        """All of `batch` in one transaction, or nothing of it."""
        with told(self.path), self.transaction():
            self._execute(batch)

    def read(self, batch: Sequence[Statement], query: Callable[["Store"], T]) -> T:
        """Write `batch`, then read."""
        if batch:
            self.write(batch)
        with told(self.path):
            return query(self)

    def record_fills(
        self,
        batch: Sequence[Statement],
        fills: Sequence[Fill],
        *,
        mark: Micros | None,
        session: str,
        now: Micros,
    ) -> RecordedFills:
        """`batch`, the fills and the mark in one transaction."""
        new: list[Fill] = []
        changed: set[MarketTicker] = set()
        corrected = 0
        with told(self.path), self.transaction():
            self._execute(batch)
            # A listing read from its beginning tells of archived markets too: they are known.
            known = queries.archived_among(self.connection, self.account, {fill.ticker for fill in fills})
            for fill in fills:
                if fill.ticker in known:
                    continue
                if self._insert_fill(fill, session=session, now=now):
                    new.append(fill)
                elif self._merge_fill(fill):
                    corrected += 1
                    changed.add(fill.ticker)
            if mark is not None:
                self._execute([statements.mark(self.account, "fills", mark)])
        return RecordedFills(new=sorted(new, key=queries.position_of), corrected=corrected, changed=changed)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _execute(self, batch: Sequence[Statement]) -> None:
        for sql, values in batch:
            self.connection.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException as exc:
            self._roll_back(exc)
            raise
        self.commits += 1
        if self._on_commit is not None:
            self._on_commit()

    def _roll_back(self, cause: BaseException) -> None:
        # Some errors (a full disk among them) have rolled back already; a rollback that fails as well leaves nothing
        # written either, since nothing was committed.
        if self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except sqlite3.Error as exc:
                cause.add_note(f"and the rollback failed: {exc}")

    def _prepare(self) -> None:
        connection = self.connection
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
        self._refuse_strangers()
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode not in ("wal", "memory"):
            raise LedgerError(
                f"the file system of {self.path} cannot hold a write-ahead log (got {mode!r}): "
                "put MM_DATA_DIR on a local disk"
            )
        # FULL: a commit survives a power cut, so what the guardian and a restart rely on is there.
        connection.execute("PRAGMA synchronous = FULL")
        integrity.prepare(connection)
        if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
            self._check()
        with self.transaction():
            self._migrate()
            # Proves now, not at the first fill, that the file can be written.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        integrity.watch(connection)

    def _check(self) -> None:
        found = integrity.problems(self.connection, is_quick=self.size() > CHECK_WHOLE_BYTES)
        if found:
            raise LedgerError(damaged(self.path, "; ".join(found)))

    def size(self) -> int:
        """Bytes of the file, without its log."""
        pages: int = self.connection.execute("PRAGMA page_count").fetchone()[0]
        size: int = self.connection.execute("PRAGMA page_size").fetchone()[0]
        return pages * size

    def _refuse_strangers(self) -> None:
        connection = self.connection
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if tables and application == APPLICATION_ID and not version:
            raise LedgerError(damaged(self.path, "it has tables and no version"))
        if tables and application != APPLICATION_ID:
            raise LedgerError(f"{self.path} is another program's database: move it away, or set MM_DATA_DIR")
        if version > VERSION:
            raise LedgerError(
                f"the ledger {self.path} was written by a newer mm (version {version}, this one knows {VERSION}): "
                "use that one, or a data folder of its own"
            )

    def _migrate(self) -> None:
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if 0 < version < VERSION:
            # Nothing in an older file can prove itself: its structure is all there is to check.
            said = [row[0] for row in self.connection.execute("PRAGMA integrity_check(3)")]
            if said != ["ok"]:
                raise LedgerError(damaged(self.path, "; ".join(said)))
        for steps in MIGRATIONS[version:]:
            for step in steps:
                self.connection.execute(step)
        if version < VERSION:
            integrity.seal_all(self.connection)
        self.connection.execute(f"PRAGMA user_version = {VERSION}")

    def _insert_fill(self, fill: Fill, *, session: str, now: Micros) -> bool:
        client_order_id, kind = self._origin(fill)
        cursor = self.connection.execute(
            _INSERT_FILL,
            (
                self.account,
                fill.order_id,
                fill.trade_id,
                fill.ticker,
                fill.side.value,
                fill.price,
                fill.count,
                fill.fee,
                fill.liquidity.value,
                fill.ts,
                client_order_id,
                kind.value,
                session,
                now,
            ),
        )
        return cursor.rowcount == 1

    def _origin(self, fill: Fill) -> tuple[str | None, FillKind]:
        """Our id of the fill's order and what it was for, as far as the ledger knows it."""
        row = self.connection.execute(
            "SELECT client_order_id, kind FROM orders WHERE account = ? AND order_id = ?"
            " UNION ALL SELECT client_order_id, kind FROM orders WHERE account = ? AND client_order_id = ? LIMIT 1",
            (self.account, fill.order_id, self.account, fill.client_order_id),
        ).fetchone()
        if row is None:
            return fill.client_order_id, FillKind.UNKNOWN
        return row[0], FillKind(row[1])

    def _merge_fill(self, fill: Fill) -> bool:
        """Add what this report of a known fill says beyond the first; whether its place among the others or its money may have changed."""
        key = (self.account, fill.order_id, fill.trade_id)
        ticker, side, price, count, fee, liquidity, ts, client_order_id = self.connection.execute(
            "SELECT ticker, side, price, count, fee, liquidity, ts, client_order_id FROM fills"
            " WHERE account = ? AND order_id = ? AND trade_id = ?",
            key,
        ).fetchone()
        if (ticker, side, price, count) != (fill.ticker, fill.side.value, fill.price, fill.count):
            raise InvariantError(
                f"fill {fill.trade_id} of order {fill.order_id} came twice with different contents: "
                f"{ticker} {side} {count} at {price}, then {fill.ticker} {fill.side.value} {fill.count} at {fill.price}"
            )
        if client_order_id is None and fill.client_order_id is not None:
            self.connection.execute(
                "UPDATE fills SET client_order_id = ? WHERE account = ? AND order_id = ? AND trade_id = ?",
                (fill.client_order_id, *key),
            )
        better_ts = fill.ts if is_finer(fill.ts, than=ts) else ts
        is_corrected = (fee, liquidity) != (fill.fee, fill.liquidity.value)
        if not is_corrected and better_ts == ts:
            return False
        self.connection.execute(
            "UPDATE fills SET fee = ?, liquidity = ?, ts = ?"
            " WHERE account = ? AND order_id = ? AND trade_id = ?",
            (fill.fee, fill.liquidity.value, better_ts, *key),
        )
        return is_corrected or self._has_neighbour(fill, after=ts, until=better_ts)

    def _has_neighbour(self, fill: Fill, *, after: Micros, until: Micros) -> bool:
        """Whether a fill that moved from `after` to `until` may have passed another one of its market."""
        row = self.connection.execute(
            "SELECT 1 FROM fills WHERE account = ? AND ticker = ? AND ts BETWEEN ? AND ?"
            " AND NOT (order_id = ? AND trade_id = ?) LIMIT 1",
            (self.account, fill.ticker, after, until, fill.order_id, fill.trade_id),
        ).fetchone()
        return row is not None


def is_finer(ts: Micros, *, than: Micros) -> bool:
    """Whether `than` is `ts` cut to milliseconds or seconds: the socket's times are coarser than the poll's."""
    return ts != than and than in (ts // 1000 * 1000, ts // SECOND * SECOND)


def damaged(path: Path, what: str) -> str:
    """The message for a file that is not whole."""
    return (
        f"the ledger {path} is damaged ({what}): nothing was changed. `mm ledger rebuild` moves it away and reads the "
        "fills and settlements anew from the exchange"
    )


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into the house's, with the path and the way out."""
    try:
        yield
    except sqlite3.IntegrityError as exc:
        raise InvariantError(f"the ledger {path} refused a record: {exc}") from exc
    except sqlite3.Error as exc:
        raise LedgerError(_advice(path, exc)) from exc
    except UnicodeDecodeError as exc:
        # SQLite keeps text as it was written, and only we write: these bytes were changed.
        raise LedgerError(damaged(path, "text in it cannot be read")) from exc


def _advice(path: Path, exc: sqlite3.Error) -> str:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return f"the disk is full: the ledger {path} could not be written. Free some space and start again"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"the ledger {path} is locked by another program ({exc}): close it and start again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH):
        return f"the ledger {path} cannot be opened or written ({exc}): check the rights of the file and its folder"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(exc))
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk failed under the ledger {path} ({exc}): check the disk, then start again"
    return f"the ledger {path} failed ({type(exc).__name__}: {exc})"

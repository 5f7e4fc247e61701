"""Reading a ledger for reports while a bot may be writing it. Never writes, never blocks the writer, takes no lock.

Blocking and synchronous: reports are commands of their own.
"""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final
from urllib.parse import quote

import attrs

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill
from mm.domain.numbers import Micros
from mm.domain.order import MarketTicker
from mm.ledger import integrity, queries
from mm.ledger.rows import (
    ArchivedRow,
    FillRow,
    GroupRow,
    PositionRow,
    SessionRow,
    SettlementRow,
    Totals,
    TriggerRow,
)
from mm.ledger.schema import APPLICATION_ID, VERSION
from mm.ledger.store import BUSY_TIMEOUT_S, CHECK_WHOLE_BYTES, damaged, told


@contextmanager
def open_reader(path: Path, *, is_checked: bool = True) -> Iterator["LedgerReader"]:
    """Open a ledger file read-only.

    Args:
        is_checked: Check the file first (seals, chain, structure; a large one not wholly, see `mm ledger verify`).
            A look at a figure now and then can do without.

    Raises:
        LedgerError: There is none, it is damaged, or of another version; `LedgerReader`'s methods raise it too.
    """
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}: run the bot first, or set MM_DATA_DIR")
    with told(path):
        connection = _connect(path)
    try:
        with told(path):
            _check(path, connection)
            if is_checked:
                _check_contents(path, connection)
        yield LedgerReader(path=path, connection=connection)
    finally:
        connection.close()


@final
@attrs.define(eq=False, kw_only=True)
class LedgerReader:
    """An open ledger, all its accounts. Each call sees one committed state."""

    path: Path
    _connection: sqlite3.Connection

    def accounts(self) -> list[str]:
        """Every account that has rows, sorted."""
        with told(self.path):
            return queries.accounts(self._connection)

    def fills(
        self,
        account: str,
        *,
        ticker: MarketTicker | None = None,
        since: Micros = Micros(0),  # noqa: B008 - an int
    ) -> Iterator[FillRow]:
        """Fills in order of time, one by one."""
        with told(self.path):
            yield from queries.fill_rows(self._connection, account, ticker=ticker, since=since)

    def fills_of(self, account: str, ticker: MarketTicker) -> list[Fill]:
        """All fills of one market in exchange order."""
        with told(self.path):
            return queries.fills_of(self._connection, account, ticker)

    def traded_markets(self, account: str) -> list[MarketTicker]:
        """Every market with fills here, settled or not, sorted."""
        with told(self.path):
            return queries.traded_markets(self._connection, account)

    def positions(self, account: str) -> dict[MarketTicker, PositionRow]:
        """Sums of the fills of unsettled markets."""
        with told(self.path):
            return queries.positions(self._connection, account)

    def settlements(
        self, account: str, tickers: Collection[MarketTicker] | None = None
    ) -> list[SettlementRow]:
        """Settlements, oldest first."""
        with told(self.path):
            return queries.settlements(self._connection, account, tickers)

    def archived(self, account: str) -> list[ArchivedRow]:
        """Settled markets whose fills are in an archive."""
        with told(self.path):
            return queries.archived(self._connection, account)

    def triggers(self, account: str) -> list[TriggerRow]:
        """What risk rules did, oldest first."""
        with told(self.path):
            return queries.triggers(self._connection, account)

    def problems(self) -> list[str]:
        """Everything that is wrong with the file, in words: structure, every seal, the whole chain."""
        integrity.prepare(self._connection)
        with told(self.path):
            return integrity.problems(self._connection)

    def count(self, table: str) -> int:
        """Rows of one of the sealed tables, all accounts."""
        with told(self.path):
            return queries.count(self._connection, table)

    def chain(self) -> Iterator[integrity.Head]:
        """Every state that the chain has been in since its beginning here."""
        with told(self.path):
            for seq, digest in self._connection.execute("SELECT seq, digest FROM chain ORDER BY seq"):
                yield integrity.Head(seq, digest)

    def chain_head(self) -> integrity.Head:
        """The newest entry of the chain over the money rows."""
        with told(self.path):
            return integrity.head(self._connection)

    def sessions(self, account: str, limit: int = 20) -> list[SessionRow]:
        """The last sessions, newest first."""
        with told(self.path):
            return queries.sessions(self._connection, account, limit)

    def groups(self, account: str) -> list[GroupRow]:
        """Order groups not deleted yet."""
        with told(self.path):
            return queries.groups(self._connection, account, None)

    def critical_alerts(self, *, since: Micros) -> list[tuple[str, str, Micros | None]]:
        """(kind, text, when it was delivered) of all accounts, oldest first."""
        with told(self.path):
            return queries.critical_alerts(self._connection, since)

    def totals(self, account: str, *, since: Micros = Micros(0)) -> Totals:  # noqa: B008 - an int
        """Sums over fills since a time."""
        with told(self.path):
            return queries.totals(self._connection, account, since)

    def mark(self, account: str, name: str = "fills") -> Micros | None:
        """A high-water mark."""
        with told(self.path):
            return queries.mark(self._connection, account, name)


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        return _open_checked(uri)
    except sqlite3.OperationalError:
        if path.with_name(path.name + "-wal").exists():
            raise
    # On a read-only medium SQLite cannot make the files that guard a write-ahead log; without a log there is
    # nothing to guard.
    return _open_checked(f"{uri}&immutable=1")


def _open_checked(uri: str) -> sqlite3.Connection:
    """A connection that has read something: opening alone touches nothing."""
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise LedgerError(f"{path} is not a ledger of mm")
    if version != VERSION:
        raise LedgerError(
            f"the ledger {path} is of version {version}, this mm reads {VERSION}: start the bot once to bring an "
            "older file up to date, or use the newer mm"
        )


def _check_contents(path: Path, connection: sqlite3.Connection) -> None:
    integrity.prepare(connection)
    connection.execute("BEGIN")  # one state, whatever a bot writes meanwhile
    try:
        found = integrity.problems(connection, is_quick=path.stat().st_size > CHECK_WHOLE_BYTES)
    finally:
        connection.execute("ROLLBACK")
    if found:
        raise LedgerError(damaged(path, "; ".join(found)))

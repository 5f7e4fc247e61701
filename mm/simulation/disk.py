"""The disk under the ledger: what was committed survives a crash, nothing else does. Also slow, also full.

The file is kept in memory; SQLite itself is the real one. The runner is inline: no thread, but a turn of the scheduler
before and after the work, so that a crash can fall between a commit and what the bot does with it.
"""

import sqlite3
from collections.abc import Callable
from random import Random
from typing import TypeVar, final

import attrs
import trio

T = TypeVar("T")


@attrs.define(eq=False)
class Disk:
    """Holds the one ledger file over all lives of the bot."""

    random: Random
    image: bytes = b""
    """The file as a clean close or a crash left it."""
    slow_until: float = 0.0
    is_full: bool = False
    commits: int = 0
    on_commit: Callable[[], None] | None = None
    """Called right after each commit, amid the step that made it."""
    _open: "_Connection | None" = None
    _committed: trio.Event = attrs.field(factory=trio.Event)

    def connect(self, path: str) -> sqlite3.Connection:
        """Open the file (its name does not matter: there is one)."""
        del path
        connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, factory=_Connection
        )
        assert isinstance(connection, _Connection)
        connection.disk = self
        if self.image:
            connection.deserialize(self.image)
        self._open = connection
        return connection

    def crash(self) -> None:
        """The power goes: open transactions are gone, commits are not."""
        if self._open is not None:
            if self._open.in_transaction:
                sqlite3.Connection.execute(self._open, "ROLLBACK")
            self._open.close()

    def crash_in_commit(self) -> None:
        """The power goes right after a commit, amid a step that is not over: what the step still does is for nothing."""
        if self._open is not None:
            self.image = self._open.serialize()
            self._open = None

    def calm(self) -> None:
        """No trouble from now on."""
        self.is_full, self.slow_until = False, 0.0

    def closing(self, connection: "_Connection") -> None:
        """Keep what the connection committed."""
        if self._open is connection:
            self.image = connection.serialize()
            self._open = None

    async def when_committed(self, wanted: int) -> None:
        """Return as soon as so many commits were made; who calls runs before the bot goes on."""
        while self.commits < wanted:
            await self._committed.wait()

    def committed(self) -> None:
        """Called after each commit."""
        self.commits += 1
        self._committed.set()
        self._committed = trio.Event()
        if self.on_commit is not None:
            self.on_commit()

    async def run(self, work: Callable[[], T], /) -> T:
        """See `mm.ledger.Runner`."""
        await trio.lowlevel.checkpoint()
        with trio.CancelScope(shield=True):
            if trio.current_time() < self.slow_until:
                await trio.sleep(self.random.uniform(0.05, 0.8))
            result = work()
            await trio.lowlevel.checkpoint()
        return result


@final
class _Connection(sqlite3.Connection):
    """A connection that fails when the disk is full and hands its file back when it closes."""

    disk: Disk

    def execute(self, sql: str, /, *arguments: object) -> sqlite3.Cursor:
        if self.disk.is_full and sql.startswith(("INSERT", "UPDATE")):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        cursor = super().execute(sql, *arguments)  # type: ignore[arg-type]
        if sql == "COMMIT":
            self.disk.committed()
        return cursor

    def close(self) -> None:
        self.disk.closing(self)
        super().close()

"""Keeping the ledger small: settled markets move to an archive, and what only served its day is dropped.

An archive is a whole copy of the ledger as it was, made by SQLite, with its chain: `mm ledger verify` and `mm report`
read it like any ledger. In the ledger one row a market remains of what it held, so that sums over all time stay the
same, and the chain begins again with an entry that holds the head of the one before.
"""

import sqlite3
from pathlib import Path
from typing import Final

import attrs

from mm.domain.errors import LedgerError
from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import format_time
from mm.ledger import integrity
from mm.ledger.store import Store, damaged, told

DAY: Final = 86_400 * SECOND
KEEP_SETTLED: Final = Micros(7 * DAY)
"""A market is archived no earlier than this after it was settled: until then late fills may come."""
KEEP_DONE: Final = Micros(2 * DAY)
"""Done orders, deleted groups and delivered alerts are kept for so long."""
SHRINK_SHARE: Final = 0.2
"""Of the file that must be free before it is written anew; free pages are used again in any case."""
ARCHIVE_ABOVE: Final = 64_000_000
"""Bytes above which a ledger is archived by itself."""

_OLD: Final = (
    "(SELECT s.ticker FROM settlements s WHERE s.account = ? AND s.settled_at < ?"
    " AND EXISTS (SELECT 1 FROM fills f WHERE f.account = s.account AND f.ticker = s.ticker))"
)


@attrs.frozen(kw_only=True)
class Archived:
    """What was done."""

    archive: Path | None
    """None: no market was old enough."""
    markets: int = 0
    fills: int = 0
    orders: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


def archive(store: Store, *, now: Micros, keep_settled: Micros = KEEP_SETTLED) -> Archived:
    """Archive the account's markets that were settled before `now - keep_settled`, drop old done orders, shrink the file.

    Raises:
        LedgerError: Nothing was removed; a copy that could not be finished or does not verify is deleted.
    """
    with told(store.path):
        before = store.size()
        orders = _drop_done(store, Micros(now - KEEP_DONE))
        horizon = Micros(now - keep_settled)
        (markets,) = store.connection.execute(
            f"SELECT COUNT(*) FROM {_OLD}",  # noqa: S608 - a constant
            (store.account, horizon),
        ).fetchone()
        copy = _copy(store, now) if markets else None
        fills = _move(store, horizon, copy.name) if copy is not None else 0
        (free,) = store.connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
        if free > pages * SHRINK_SHARE:
            store.connection.execute("VACUUM")
            store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Archived(
            archive=copy,
            markets=markets,
            fills=fills,
            orders=orders,
            bytes_before=before,
            bytes_after=store.size(),
        )


def _drop_done(store: Store, before: Micros) -> int:
    with store.transaction():
        orders = store.connection.execute(
            "DELETE FROM orders WHERE account = ? AND state = 'done' AND updated_at < ?",
            (store.account, before),
        ).rowcount
        store.connection.execute(
            "DELETE FROM groups WHERE account = ? AND deleted_at < ?", (store.account, before)
        )
        store.connection.execute(
            "DELETE FROM alerts WHERE account = ? AND delivered_at < ?", (store.account, before)
        )
    return orders


def _copy(store: Store, now: Micros) -> Path:
    """A verified copy beside the ledger."""
    stamp = format_time(now, trim=True).replace(":", "").replace(".", "-")
    path = store.path.with_name(f"{store.path.stem}-archive-{stamp}{store.path.suffix}")
    if path.exists():
        raise LedgerError(f"there is an archive {path} already: move it away")
    try:
        store.connection.execute("VACUUM INTO ?", (str(path),))
        _verify(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _verify(path: Path) -> None:
    with told(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with told(path):
            integrity.prepare(connection)
            found = integrity.problems(connection)
    finally:
        connection.close()
    if found:
        raise LedgerError(damaged(path, "; ".join(found)))


def _move(store: Store, horizon: Micros, name: str) -> int:
    values = (store.account, horizon)
    with store.transaction():
        store.connection.execute(
            "INSERT INTO archived (account, ticker, value, settled_at, fills, bought, sold, cash, fees, result,"
            " first_at, last_at, archive) SELECT f.account, f.ticker, s.value, s.settled_at, COUNT(*),"
            " SUM(CASE side WHEN 'bid' THEN count ELSE 0 END), SUM(CASE side WHEN 'ask' THEN count ELSE 0 END),"
            " SUM(CASE side WHEN 'bid' THEN -price * count ELSE price * count END - f.fee), SUM(f.fee),"
            " SUM(CASE side WHEN 'bid' THEN s.value - price ELSE price - s.value END * count - f.fee),"
            " MIN(ts), MAX(ts), ? FROM fills f JOIN settlements s ON s.account = f.account AND s.ticker = f.ticker"
            " WHERE s.account = ? AND s.settled_at < ? GROUP BY f.ticker",
            (name, *values),
        )
        fills = store.connection.execute(
            f"DELETE FROM fills WHERE account = ? AND ticker IN {_OLD}",  # noqa: S608 - a constant
            (store.account, *values),
        ).rowcount
        integrity.chain_anew(store.connection, name)
    return fills

"""Is the file what was written? Seals on every row, a chain over the money rows, and the check of both.

SQLite notices broken structure, not a changed digit. So every row carries a seal, a hash of its values, and the money
rows (fills, settlements) are entries of a chain: each entry is a hash of its row's money and of the entry before it.
A row that was changed, added or removed by anything but the ledger is found and named. Both are kept by triggers of
the connection (temporary ones: they are not in the file, so other programs can read it, and what they write shows).

The chain cannot know that its newest entries were cut off together with everything that tells of them; its head is
written to the log when a run ends, and `mm ledger verify` prints it.
"""

# ruff: noqa: S608 - the SQL is put together from the names of tables and columns below, never from values

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b, sha256
from typing import Final

import attrs

from mm.domain.numbers import SECOND
from mm.ledger.schema import MIGRATIONS

SEALED: Final[dict[str, tuple[str, ...]]] = {
    "fills": (
        *("id", "account", "order_id", "trade_id", "ticker", "side", "price", "count", "fee", "liquidity"),
        *("ts", "client_order_id", "kind", "session", "recorded_at"),
    ),
    "orders": (
        *(
            "id",
            "account",
            "client_order_id",
            "order_id",
            "ticker",
            "side",
            "price",
            "count",
            "state",
            "kind",
        ),
        *("group_id", "exchange_index", "session", "created_at", "updated_at"),
    ),
    "groups": (
        *("account", "group_id", "exchange_index", "epoch", "session", "created_at"),
        *("triggered_at", "deleted_at"),
    ),
    "marks": ("account", "name", "at"),
    "settlements": ("account", "ticker", "value", "settled_at", "yes_count", "no_count", "fee"),
    "sessions": ("account", "session", "started_at", "ended_at", "reason", "exit_code"),
    "alerts": ("account", "alert_id", "raised_at", "kind", "text", "delivered_at"),
    "days": ("account", "day", "start_pnl", "at"),
    "balances": ("id", "account", "at", "session", "balance", "expected", "unexplained"),
    "triggers": ("id", "account", "at", "session", "ticker", "reason", "net", "mark"),
    "archived": (
        *("account", "ticker", "value", "settled_at", "fills", "bought", "sold", "cash", "fees", "result"),
        *("first_at", "last_at", "archive"),
    ),
}
"""Table -> every column but the seal."""

MONEY: Final[dict[str, tuple[str, ...]]] = {
    "fills": ("account", "order_id", "trade_id", "ticker", "side", "price", "count", "fee"),
    "settlements": ("account", "ticker", "value"),
}
"""Table -> the columns whose values its entries in the chain hold. `fills` adds the second of its time."""

KEYS: Final = {"fills": "{0}id", "settlements": "{0}account || ' ' || {0}ticker"}
"""Table -> which row an entry is of, as SQL with the prefix of its columns. Not the rowid of a table without a column
for it: `VACUUM` may change those."""

START: Final = b"\0" * 32
_TOLD: Final = 20
"""Problems named in full; the rest are counted."""


def seal(*values: object) -> int:
    """A row's hash, as SQLite keeps integers. The first value is the table's name."""
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=8).digest(), "big", signed=True)


def content(*values: object) -> bytes:
    """The hash of a row's money."""
    return sha256(repr(values).encode()).digest()


def link(previous: object, kind: object, key: object, money: object) -> bytes:
    """The hash of an entry: of the entry before it and of its own content. Takes what a damaged file may hold."""
    return sha256(repr((previous or START, kind, key, money)).encode()).digest()


def prepare(connection: sqlite3.Connection) -> None:
    """Register the functions. The triggers come with `watch`, once the tables are there."""
    connection.create_function("mm_seal", -1, seal, deterministic=True)
    connection.create_function("mm_content", -1, content, deterministic=True)
    connection.create_function("mm_link", 4, link, deterministic=True)


def watch(connection: sqlite3.Connection) -> None:
    """From now on every write of this connection is sealed and chained. Not inside a transaction."""
    script: list[str] = []
    for table in SEALED:
        body = f"BEGIN UPDATE {table} SET seal = {_seal_of(table, 'NEW.')} WHERE rowid = NEW.rowid; END"
        script.append(f"CREATE TEMP TRIGGER seal_new_{table} AFTER INSERT ON {table} {body}")
        columns = ", ".join(SEALED[table])
        script.append(f"CREATE TEMP TRIGGER seal_old_{table} AFTER UPDATE OF {columns} ON {table} {body}")
    for table in MONEY:
        entry = f"BEGIN {_entry_sql(table, 'NEW.')}; END"
        script.append(f"CREATE TEMP TRIGGER chain_new_{table} AFTER INSERT ON {table} {entry}")
        columns = ", ".join(MONEY[table] + (("ts",) if table == "fills" else ()))
        changed = f"{_content_of(table, 'NEW.')} <> {_content_of(table, 'OLD.')}"
        script.append(
            f"CREATE TEMP TRIGGER chain_old_{table} AFTER UPDATE OF {columns} ON {table} WHEN {changed} {entry}"
        )
    connection.executescript(";\n".join(script))


def seal_all(connection: sqlite3.Connection) -> None:
    """Seal and chain rows that were written before there were seals."""
    for table in SEALED:
        connection.execute(f"UPDATE {table} SET seal = {_seal_of(table, '')} WHERE seal IS NULL")
    if head(connection).seq:
        return
    for table in MONEY:
        _chain_table(connection, table)


def chain_anew(connection: sqlite3.Connection, note: str) -> None:
    """Begin the chain again over the rows that are left; its first entry holds the old head and the note."""
    old = head(connection)
    connection.execute("DELETE FROM chain")
    money = content(note, old.digest.hex())
    connection.execute(
        "INSERT INTO chain (seq, kind, key, content, digest) VALUES (?, 'start', 0, ?, ?)",
        (old.seq + 1, money, link(old.digest, "start", 0, money)),
    )
    for table in MONEY:
        _chain_table(connection, table)


def _chain_table(connection: sqlite3.Connection, table: str) -> None:
    # Row by row: every entry needs the one before it.
    rows = connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid")
    connection.executemany(f"{_entry_sql(table, 't.')} FROM {table} t WHERE t.rowid = ?", rows)


@attrs.frozen
class Head:
    """The newest entry of the chain."""

    seq: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest.hex()}"


def head(connection: sqlite3.Connection) -> Head:
    """Where the chain stands. Nobody can change an earlier money row without changing this."""
    row = connection.execute("SELECT seq, digest FROM chain ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(0, START) if row is None else Head(*row)


# --- checking --------------------------------------------------------------------------------------------------------


def problems(connection: sqlite3.Connection, *, is_quick: bool = False) -> list[str]:
    """Everything that is wrong with the file, in words; empty: nothing. Raises `sqlite3.Error` where it cannot be read.

    Args:
        is_quick: Leave out what takes seconds in a large file: indexes against tables, the chain, and the seals of
            fills of settled markets and of done orders.
    """
    found = list(_structure(connection, is_quick=is_quick))
    if found:
        return found
    try:
        found += _few(_broken_seals(connection, is_quick=is_quick))
        if not is_quick:
            found += _few(_broken_chain(connection))
    except sqlite3.OperationalError as exc:
        if "user-defined function" not in str(exc):
            raise
        found.append("a row holds bytes that are no text")  # they could not even be handed to the hash
    return found


def _structure(connection: sqlite3.Connection, *, is_quick: bool) -> Iterator[str]:
    check = "quick_check" if is_quick else "integrity_check"
    said = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(3)")]
    if said != ["ok"]:
        yield "; ".join(said)
        return
    if _schema(connection) != _expected_schema():
        yield "its tables are not those of this version"


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name"
    ).fetchall()


@cache
def _expected_schema() -> list[tuple[str, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        for step in (step for steps in MIGRATIONS for step in steps):
            connection.execute(step)
        return _schema(connection)
    finally:
        connection.close()


def _broken_seals(connection: sqlite3.Connection, *, is_quick: bool) -> Iterator[str]:
    only = {
        "fills": " AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.account = fills.account"
        " AND s.ticker = fills.ticker)",
        "orders": " AND state <> 'done'",
    }
    for table in SEALED:
        condition = only.get(table, "") if is_quick else ""
        rows = connection.execute(
            f"SELECT rowid FROM {table} WHERE seal IS NOT {_seal_of(table, '')}{condition}"
        )
        for (row,) in rows:
            yield f"row {row} of {table} is not as it was written"


def _broken_chain(connection: sqlite3.Connection) -> Iterator[str]:
    previous: object = None
    next_seq: int | None = None
    for seq, kind, key, money, digest in connection.execute(
        "SELECT seq, kind, key, content, digest FROM chain ORDER BY seq"
    ):
        if next_seq is None:
            # The first entry of all follows nothing; what a later beginning is linked to is in the archive.
            is_linked = kind == "start" or (seq == 1 and digest == link(None, kind, key, money))
        else:
            is_linked = seq == next_seq and digest == link(previous, kind, key, money)
        if not is_linked:
            yield f"entry {seq} of the chain ({kind} {key}) does not follow the one before it"
        previous, next_seq = digest, seq + 1
    for table in MONEY:
        yield from _unchained(connection, table)


def _unchained(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    """Rows that the chain does not hold as they are, and entries without a row: both in order of their keys."""
    rows = connection.execute(
        f"SELECT {KEYS[table].format('')} AS key, {_content_of(table, '')} FROM {table} ORDER BY key"
    )
    entries = connection.execute(
        "SELECT key, content, MAX(seq) FROM chain WHERE kind = ? GROUP BY key ORDER BY key", (table,)
    )
    row, entry = rows.fetchone(), entries.fetchone()
    while row is not None or entry is not None:
        is_same = row is not None and entry is not None and row[0] == entry[0]
        if not is_same and (entry is None or (row is not None and _rank(row[0]) < _rank(entry[0]))):
            yield f"row {row[0]} of {table} is not in the chain"
            row = rows.fetchone()
        elif not is_same:
            yield f"row {entry[0]} of {table} is missing"
            entry = entries.fetchone()
        else:
            if row[1] != entry[1]:
                yield f"row {row[0]} of {table} does not hold the money that the chain says"
            row, entry = rows.fetchone(), entries.fetchone()


def _rank(key: object) -> tuple[int, object]:
    """SQLite's order of values of several types: a damaged file may hold any."""
    return (2, key) if isinstance(key, bytes) else (1, key) if isinstance(key, str) else (0, key)


def _few(texts: Iterator[str]) -> list[str]:
    found = list(texts)
    more = len(found) - _TOLD
    return found if more <= 0 else [*found[:_TOLD], f"and {more} more"]


# --- SQL -------------------------------------------------------------------------------------------------------------


def _seal_of(table: str, prefix: str) -> str:
    return f"mm_seal('{table}', {_listed(SEALED[table], prefix)})"


def _content_of(table: str, prefix: str) -> str:
    # The socket's times are coarser than the poll's: only the second is part of the money.
    time = f", {prefix}ts / {SECOND}" if table == "fills" else ""
    return f"mm_content({_listed(MONEY[table], prefix)}{time})"


def _entry_sql(table: str, prefix: str) -> str:
    money, key = _content_of(table, prefix), KEYS[table].format(prefix)
    previous = "(SELECT digest FROM chain ORDER BY seq DESC LIMIT 1)"
    return (
        f"INSERT INTO chain (kind, key, content, digest) SELECT '{table}', {key}, {money},"
        f" mm_link({previous}, '{table}', {key}, {money})"
    )


def _listed(columns: Sequence[str], prefix: str) -> str:
    return ", ".join(f"{prefix}{column}" for column in columns)

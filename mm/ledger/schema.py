"""The tables of the ledger and how an older file becomes a current one.

Money is 1/1,000,000 dollar, prices 1/10,000 dollar, counts 1/100 contract, times microseconds since 1970 UTC: whole
numbers all. `docs/ledger.md` explains the tables to people who read the file with other tools.
"""

from typing import Final

APPLICATION_ID: Final = 0x6D6D4C67
"""Marks the file as ours ("mmLg"), so that another program's database is never written to."""

_V1: Final = (
    """
    CREATE TABLE fills (
        id INTEGER PRIMARY KEY,
        account TEXT NOT NULL,
        order_id TEXT NOT NULL,
        trade_id TEXT NOT NULL,
        ticker TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('bid', 'ask')),
        price INTEGER NOT NULL CHECK (typeof(price) = 'integer' AND price BETWEEN 0 AND 10000),
        count INTEGER NOT NULL CHECK (typeof(count) = 'integer' AND count > 0),
        fee INTEGER NOT NULL CHECK (typeof(fee) = 'integer'),
        liquidity TEXT NOT NULL CHECK (liquidity IN ('maker', 'taker')),
        ts INTEGER NOT NULL CHECK (typeof(ts) = 'integer'),
        client_order_id TEXT,
        kind TEXT NOT NULL CHECK (kind IN ('quote', 'exit', 'foreign', 'unknown')),
        session TEXT NOT NULL,
        recorded_at INTEGER NOT NULL,
        UNIQUE (account, order_id, trade_id)
    )
    """,
    "CREATE INDEX fills_in_exchange_order ON fills (account, ticker, ts, trade_id, order_id)",
    "CREATE INDEX fills_by_time ON fills (account, ts)",
    """
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY,
        account TEXT NOT NULL,
        client_order_id TEXT NOT NULL,
        order_id TEXT,
        ticker TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('bid', 'ask')),
        price INTEGER NOT NULL CHECK (typeof(price) = 'integer'),
        count INTEGER NOT NULL CHECK (typeof(count) = 'integer'),
        state TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('quote', 'exit')),
        group_id TEXT,
        exchange_index INTEGER NOT NULL,
        session TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        UNIQUE (account, client_order_id)
    )
    """,
    "CREATE INDEX orders_by_venue_id ON orders (account, order_id)",
    "CREATE INDEX orders_live ON orders (account, created_at) WHERE state <> 'done'",
    """
    CREATE TABLE groups (
        account TEXT NOT NULL,
        group_id TEXT NOT NULL,
        exchange_index INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        session TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        triggered_at INTEGER,
        deleted_at INTEGER,
        PRIMARY KEY (account, group_id)
    )
    """,
    "CREATE TABLE marks (account TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL,"
    " PRIMARY KEY (account, name))",
    """
    CREATE TABLE settlements (
        account TEXT NOT NULL,
        ticker TEXT NOT NULL,
        value INTEGER NOT NULL CHECK (typeof(value) = 'integer' AND value BETWEEN 0 AND 10000),
        settled_at INTEGER NOT NULL,
        yes_count INTEGER NOT NULL,
        no_count INTEGER NOT NULL,
        fee INTEGER NOT NULL CHECK (typeof(fee) = 'integer'),
        PRIMARY KEY (account, ticker)
    )
    """,
    """
    CREATE TABLE sessions (
        account TEXT NOT NULL,
        session TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        reason TEXT NOT NULL DEFAULT '',
        exit_code INTEGER,
        PRIMARY KEY (account, session)
    )
    """,
    """
    CREATE TABLE alerts (
        account TEXT NOT NULL,
        alert_id TEXT NOT NULL,
        raised_at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        delivered_at INTEGER,
        PRIMARY KEY (account, alert_id)
    )
    """,
)

_V2: Final = (
    # Every row carries a seal, money rows are chained: see `mm.ledger.integrity`, which also fills them in.
    *(
        f"ALTER TABLE {table} ADD COLUMN seal INTEGER"
        for table in ("fills", "orders", "groups", "marks", "settlements", "sessions", "alerts")
    ),
    "CREATE TABLE chain (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key NOT NULL,"
    " content BLOB NOT NULL, digest BLOB NOT NULL)",
    # The marked result with which a day began: the daily loss is counted from it, also after a restart.
    "CREATE TABLE days (account TEXT NOT NULL, day TEXT NOT NULL, start_pnl INTEGER NOT NULL, at INTEGER NOT NULL,"
    " seal INTEGER, PRIMARY KEY (account, day))",
    """
    CREATE TABLE balances (
        id INTEGER PRIMARY KEY,
        account TEXT NOT NULL,
        at INTEGER NOT NULL,
        session TEXT NOT NULL,
        balance INTEGER NOT NULL,
        expected INTEGER NOT NULL,
        unexplained INTEGER NOT NULL,
        seal INTEGER
    )
    """,
    "CREATE INDEX balances_in_order ON balances (account, at)",
    # One row for each settled market whose fills have been moved to an archive.
    """
    CREATE TABLE archived (
        account TEXT NOT NULL,
        ticker TEXT NOT NULL,
        value INTEGER NOT NULL CHECK (typeof(value) = 'integer' AND value BETWEEN 0 AND 10000),
        settled_at INTEGER NOT NULL,
        fills INTEGER NOT NULL,
        bought INTEGER NOT NULL,
        sold INTEGER NOT NULL,
        cash INTEGER NOT NULL,
        fees INTEGER NOT NULL,
        result INTEGER NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        archive TEXT NOT NULL,
        seal INTEGER,
        PRIMARY KEY (account, ticker)
    )
    """,
)

_V3: Final = (
    # What the risk rules did, for reports.
    """
    CREATE TABLE triggers (
        id INTEGER PRIMARY KEY,
        account TEXT NOT NULL,
        at INTEGER NOT NULL,
        session TEXT NOT NULL,
        ticker TEXT NOT NULL,
        reason TEXT NOT NULL,
        net INTEGER NOT NULL,
        mark INTEGER,
        seal INTEGER,
        UNIQUE (account, at, ticker, reason)
    )
    """,
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_V1, _V2, _V3)
"""MIGRATIONS[n] takes a file from version n to n + 1, in one transaction with the new version number. Only ever
appended to: what was released is not edited."""

VERSION: Final = len(MIGRATIONS)

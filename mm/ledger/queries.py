"""The reads of the ledger: plain functions of a connection and an account, for the bot and for reports alike."""

import datetime as dt
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, OrderState, Side
from mm.ledger.integrity import SEALED
from mm.ledger.rows import (
    AlertRow,
    ArchivedRow,
    FillKind,
    FillRow,
    GroupRow,
    OrderKind,
    OrderRow,
    PositionRow,
    SessionRow,
    SettlementRow,
    Totals,
    TriggerRow,
)

FillPosition = tuple[Micros, TradeId, OrderId]
"""Where a fill stands in the exchange's order of its market."""

_PLACEHOLDERS: Final = 500
"""Values per statement; SQLite allows 999 in its oldest builds."""

_FILL: Final = (
    "SELECT order_id, trade_id, ticker, side, price, count, fee, liquidity, ts, client_order_id FROM fills"
)
_FILL_ROW: Final = (
    "SELECT order_id, trade_id, ticker, side, price, count, fee, liquidity, ts, client_order_id,"
    " kind, session, recorded_at FROM fills"
)
_ORDER: Final = (
    "SELECT client_order_id, ticker, side, price, count, state, kind, order_id, group_id, exchange_index,"
    " session, created_at, updated_at FROM orders"
)
_IN_ORDER: Final = " ORDER BY ts, trade_id, order_id"


def position_of(fill: Fill) -> FillPosition:
    """The key of the exchange's order: time, then trade id (then order id, for a trade with ourselves)."""
    return (fill.ts, fill.trade_id, fill.order_id)


def mark(connection: sqlite3.Connection, account: str, name: str) -> Micros | None:
    """One mark."""
    row = connection.execute(
        "SELECT at FROM marks WHERE account = ? AND name = ?", (account, name)
    ).fetchone()
    return None if row is None else Micros(row[0])


def open_markets(connection: sqlite3.Connection, account: str) -> list[MarketTicker]:
    """Markets with fills and no settlement."""
    rows = connection.execute(
        "SELECT DISTINCT ticker FROM fills f WHERE account = ? AND NOT EXISTS"
        " (SELECT 1 FROM settlements s WHERE s.account = f.account AND s.ticker = f.ticker) ORDER BY ticker",
        (account,),
    )
    return [MarketTicker(row[0]) for row in rows]


def traded_markets(connection: sqlite3.Connection, account: str) -> list[MarketTicker]:
    """Markets with fills."""
    rows = connection.execute(
        "SELECT DISTINCT ticker FROM fills WHERE account = ? ORDER BY ticker", (account,)
    )
    return [MarketTicker(row[0]) for row in rows]


def fills_of(connection: sqlite3.Connection, account: str, ticker: MarketTicker) -> list[Fill]:
    """All fills of one market, in exchange order."""
    rows = connection.execute(f"{_FILL} WHERE account = ? AND ticker = ?{_IN_ORDER}", (account, ticker))
    return [_to_fill(row) for row in rows]


def fills_of_orders(
    connection: sqlite3.Connection, account: str, order_ids: Sequence[OrderId]
) -> dict[OrderId, list[Fill]]:
    """All fills of some orders, each order's in exchange order."""
    found: dict[OrderId, list[Fill]] = {}
    for start in range(0, len(order_ids), _PLACEHOLDERS):
        some = order_ids[start : start + _PLACEHOLDERS]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(
            f"{_FILL} WHERE account = ? AND order_id IN ({marks}){_IN_ORDER}", (account, *some)
        )
        for fill in map(_to_fill, rows):
            found.setdefault(fill.order_id, []).append(fill)
    return found


def day_start(connection: sqlite3.Connection, account: str, day: dt.date) -> Money | None:
    """With which marked result a day began."""
    row = connection.execute(
        "SELECT start_pnl FROM days WHERE account = ? AND day = ?", (account, day.isoformat())
    ).fetchone()
    return None if row is None else Money(row[0])


def settled_result(connection: sqlite3.Connection, account: str) -> Money:
    """Net result of all settled markets: cash of the fills, less fees, plus what the positions were paid."""
    (total,) = connection.execute(
        "SELECT COALESCE(SUM(CASE side WHEN 'bid' THEN s.value - price ELSE price - s.value END * count - f.fee), 0)"
        " FROM fills f JOIN settlements s ON s.account = f.account AND s.ticker = f.ticker WHERE f.account = ?",
        (account,),
    ).fetchone()
    (archived,) = connection.execute(
        "SELECT COALESCE(SUM(result), 0) FROM archived WHERE account = ?", (account,)
    ).fetchone()
    return Money(total + archived)


def cash_flow(connection: sqlite3.Connection, account: str) -> Money:
    """All money that fills, their fees and settlements have moved."""
    (open_cash,) = connection.execute(
        "SELECT COALESCE(SUM(CASE side WHEN 'bid' THEN -price * count ELSE price * count END - fee), 0)"
        " FROM fills f WHERE account = ? AND NOT EXISTS"
        " (SELECT 1 FROM settlements s WHERE s.account = f.account AND s.ticker = f.ticker)",
        (account,),
    ).fetchone()
    return Money(open_cash + settled_result(connection, account))


def last_unexplained(connection: sqlite3.Connection, account: str) -> Money | None:
    """What was paid in by the last comparison of cash."""
    row = connection.execute(
        "SELECT unexplained FROM balances WHERE account = ? ORDER BY at DESC, id DESC LIMIT 1", (account,)
    ).fetchone()
    return None if row is None else Money(row[0])


def last_trigger(connection: sqlite3.Connection, account: str, beginning: str) -> tuple[Micros, str] | None:
    """Time and reason of the newest trigger whose reason begins so."""
    row = connection.execute(
        "SELECT at, reason FROM triggers WHERE account = ? AND substr(reason, 1, ?) = ? ORDER BY at DESC, id DESC LIMIT 1",
        (account, len(beginning), beginning),
    ).fetchone()
    return None if row is None else (Micros(row[0]), row[1])


def triggers(connection: sqlite3.Connection, account: str) -> list[TriggerRow]:
    """What risk rules did, oldest first."""
    rows = connection.execute(
        "SELECT at, session, ticker, reason, net, mark FROM triggers WHERE account = ? ORDER BY at, id",
        (account,),
    )
    return [
        TriggerRow(
            at=Micros(at),
            session=session,
            ticker=MarketTicker(ticker),
            reason=reason,
            net=Count(net),
            mark=None if mark is None else Price(mark),
        )
        for at, session, ticker, reason, net, mark in rows
    ]


def archived_among(
    connection: sqlite3.Connection, account: str, tickers: Collection[MarketTicker]
) -> set[MarketTicker]:
    """Which of these markets have been archived."""
    return {
        ticker
        for ticker in tickers
        if connection.execute(
            "SELECT 1 FROM archived WHERE account = ? AND ticker = ?", (account, ticker)
        ).fetchone()
    }


def archived(connection: sqlite3.Connection, account: str) -> list[ArchivedRow]:
    """Archived markets, the longest settled first."""
    rows = connection.execute(
        "SELECT ticker, value, settled_at, fills, bought, sold, cash, fees, result, first_at, last_at, archive"
        " FROM archived WHERE account = ? ORDER BY settled_at, ticker",
        (account,),
    )
    return [
        ArchivedRow(
            ticker=MarketTicker(ticker),
            value=Price(value),
            settled_at=Micros(settled_at),
            fills=fills,
            bought=Count(bought),
            sold=Count(sold),
            cash=Money(cash),
            fees=Money(fees),
            result=Money(result),
            first_at=Micros(first_at),
            last_at=Micros(last_at),
            archive=archive,
        )
        for ticker, value, settled_at, fills, bought, sold, cash, fees, result, first_at, last_at, archive in rows
    ]


def fills_after(
    connection: sqlite3.Connection, account: str, ticker: MarketTicker, after: FillPosition | None, limit: int
) -> list[Fill]:
    """The next `limit` fills of one market, in exchange order."""
    ts, trade_id, order_id = after or (-1, "", "")
    rows = connection.execute(
        f"{_FILL} WHERE account = ? AND ticker = ? AND (ts, trade_id, order_id) > (?, ?, ?){_IN_ORDER} LIMIT ?",
        (account, ticker, ts, trade_id, order_id, limit),
    )
    return [_to_fill(row) for row in rows]


def fill_rows(
    connection: sqlite3.Connection, account: str, *, ticker: MarketTicker | None, since: Micros
) -> Iterator[FillRow]:
    """Fills since a time, in order of time, one by one."""
    one_market = "" if ticker is None else " AND ticker = ?"
    cursor = connection.execute(
        f"{_FILL_ROW} WHERE account = ? AND ts >= ?{one_market}{_IN_ORDER}",
        (account, since) if ticker is None else (account, since, ticker),
    )
    for row in cursor:
        yield FillRow(
            fill=_to_fill(row[:10]), kind=FillKind(row[10]), session=row[11], recorded_at=Micros(row[12])
        )


def positions(connection: sqlite3.Connection, account: str) -> dict[MarketTicker, PositionRow]:
    """Sums of the fills of every unsettled market. SQLite adds integers exactly, or raises."""
    rows = connection.execute(
        "SELECT ticker, SUM(CASE side WHEN 'bid' THEN count ELSE 0 END),"
        " SUM(CASE side WHEN 'ask' THEN count ELSE 0 END),"
        " SUM(CASE side WHEN 'bid' THEN -price * count ELSE price * count END), SUM(fee), COUNT(*), MAX(ts)"
        " FROM fills f WHERE account = ? AND NOT EXISTS"
        " (SELECT 1 FROM settlements s WHERE s.account = f.account AND s.ticker = f.ticker)"
        " GROUP BY ticker ORDER BY ticker",
        (account,),
    )
    return {
        MarketTicker(ticker): PositionRow(
            ticker=MarketTicker(ticker),
            net=Count(bought - sold),
            bought=Count(bought),
            sold=Count(sold),
            cash=Money(cash - fees),
            fees=Money(fees),
            fills=fills,
            last_fill_at=Micros(last),
        )
        for ticker, bought, sold, cash, fees, fills, last in rows
    }


def totals(connection: sqlite3.Connection, account: str, since: Micros) -> Totals:
    """Sums since a time."""
    fills, contracts, fees = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(count), 0), COALESCE(SUM(fee), 0) FROM fills WHERE account = ? AND ts >= ?",
        (account, since),
    ).fetchone()
    return Totals(fills=fills, contracts=Count(contracts), fees=Money(fees))


def find_orders(
    connection: sqlite3.Connection, account: str, order_ids: Sequence[OrderId]
) -> dict[OrderId, OrderRow]:
    """Our orders by venue id."""
    found: dict[OrderId, OrderRow] = {}
    for start in range(0, len(order_ids), _PLACEHOLDERS):
        some = order_ids[start : start + _PLACEHOLDERS]
        marks = ", ".join("?" * len(some))
        for row in connection.execute(
            f"{_ORDER} WHERE account = ? AND order_id IN ({marks})", (account, *some)
        ):
            order = _to_order(row)
            if order.order_id is not None:
                found[order.order_id] = order
    return found


def find_order(
    connection: sqlite3.Connection, account: str, client_order_id: ClientOrderId
) -> OrderRow | None:
    """One order by our id."""
    row = connection.execute(
        f"{_ORDER} WHERE account = ? AND client_order_id = ?", (account, client_order_id)
    ).fetchone()
    return None if row is None else _to_order(row)


def unknown_orders(connection: sqlite3.Connection, account: str, limit: int) -> list[OrderId]:
    """Orders of fills in open markets that are neither ours nor foreign as far as the ledger knows."""
    rows = connection.execute(
        "SELECT order_id, MAX(ts) AS newest FROM fills f WHERE account = ? AND kind = 'unknown' AND NOT EXISTS"
        " (SELECT 1 FROM settlements s WHERE s.account = f.account AND s.ticker = f.ticker)"
        " GROUP BY order_id ORDER BY newest DESC LIMIT ?",
        (account, limit),
    )
    return [OrderId(row[0]) for row in rows]


def live_orders(connection: sqlite3.Connection, account: str) -> list[OrderRow]:
    """Orders not known to be done."""
    rows = connection.execute(
        f"{_ORDER} WHERE account = ? AND state <> 'done' ORDER BY created_at, id", (account,)
    )
    return [_to_order(row) for row in rows]


def groups(connection: sqlite3.Connection, account: str, exclude_session: str | None) -> list[GroupRow]:
    """Groups not deleted yet."""
    rows = connection.execute(
        "SELECT group_id, exchange_index, epoch, session, created_at, triggered_at, deleted_at FROM groups"
        " WHERE account = ? AND deleted_at IS NULL AND session IS NOT ? ORDER BY created_at, group_id",
        (account, exclude_session),
    )
    return [
        GroupRow(
            group_id=GroupId(group_id),
            exchange_index=exchange_index,
            epoch=epoch,
            session=session,
            created_at=Micros(created_at),
            triggered_at=_micros(triggered_at),
            deleted_at=_micros(deleted_at),
        )
        for group_id, exchange_index, epoch, session, created_at, triggered_at, deleted_at in rows
    ]


def settlements(
    connection: sqlite3.Connection, account: str, tickers: Collection[MarketTicker] | None
) -> list[SettlementRow]:
    """Settlements, oldest first."""
    wanted = None if tickers is None else set(tickers)
    rows = connection.execute(
        "SELECT ticker, value, settled_at, yes_count, no_count, fee FROM settlements WHERE account = ?"
        " ORDER BY settled_at, ticker",
        (account,),
    )
    return [
        SettlementRow(
            ticker=MarketTicker(ticker),
            value=Price(value),
            settled_at=Micros(settled_at),
            yes_count=Count(yes_count),
            no_count=Count(no_count),
            fee=Money(fee),
        )
        for ticker, value, settled_at, yes_count, no_count, fee in rows
        if wanted is None or ticker in wanted
    ]


def sessions(connection: sqlite3.Connection, account: str, limit: int) -> list[SessionRow]:
    """The newest sessions first."""
    rows = connection.execute(
        "SELECT session, started_at, ended_at, reason, exit_code FROM sessions WHERE account = ?"
        " ORDER BY started_at DESC, rowid DESC LIMIT ?",
        (account, limit),
    )
    return [
        SessionRow(
            session=session,
            started_at=Micros(started_at),
            ended_at=_micros(ended_at),
            reason=reason,
            exit_code=exit_code,
        )
        for session, started_at, ended_at, reason, exit_code in rows
    ]


def undelivered_alerts(connection: sqlite3.Connection, account: str) -> list[AlertRow]:
    """Alerts to be told, oldest first."""
    rows = connection.execute(
        "SELECT alert_id, raised_at, kind, text FROM alerts WHERE account = ? AND delivered_at IS NULL"
        " ORDER BY raised_at, rowid",
        (account,),
    )
    return [AlertRow(alert_id=a, raised_at=Micros(r), kind=k, text=t) for a, r, k, t in rows]


def critical_alerts(connection: sqlite3.Connection, since: Micros) -> list[tuple[str, str, Micros | None]]:
    """(kind, text, delivered at) of every account's critical alerts, oldest first."""
    rows = connection.execute(
        "SELECT kind, text, delivered_at FROM alerts WHERE raised_at >= ? ORDER BY raised_at, rowid", (since,)
    )
    return [(kind, text, _micros(delivered)) for kind, text, delivered in rows]


def count(connection: sqlite3.Connection, table: str) -> int:
    """Rows of a table. Raises `ValueError` for a name that is none of the ledger's."""
    if table not in SEALED:
        raise ValueError(f"no such table: {table}")
    rows: int = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608 - checked above
    return rows


def accounts(connection: sqlite3.Connection) -> list[str]:
    """Every account that has rows."""
    rows = connection.execute("SELECT account FROM sessions UNION SELECT account FROM fills ORDER BY 1")
    return [row[0] for row in rows]


def _micros(value: int | None) -> Micros | None:
    return None if value is None else Micros(value)


def _to_fill(row: Sequence[object]) -> Fill:
    order_id, trade_id, ticker, side, price, count, fee, liquidity, ts, client_order_id = row
    return Fill(
        order_id=OrderId(str(order_id)),
        trade_id=TradeId(str(trade_id)),
        ticker=MarketTicker(str(ticker)),
        side=Side(side),
        price=Price(_whole(price)),
        count=Count(_whole(count)),
        fee=Money(_whole(fee)),
        liquidity=Liquidity(liquidity),
        ts=Micros(_whole(ts)),
        client_order_id=None if client_order_id is None else ClientOrderId(str(client_order_id)),
    )


def _to_order(row: Sequence[object]) -> OrderRow:
    (
        client_order_id,
        ticker,
        side,
        price,
        count,
        state,
        kind,
        order_id,
        group_id,
        shard,
        session,
        made,
        changed,
    ) = row
    return OrderRow(
        client_order_id=ClientOrderId(str(client_order_id)),
        ticker=MarketTicker(str(ticker)),
        side=Side(side),
        price=Price(_whole(price)),
        count=Count(_whole(count)),
        state=OrderState(state),
        kind=OrderKind(kind),
        order_id=None if order_id is None else OrderId(str(order_id)),
        group_id=None if group_id is None else GroupId(str(group_id)),
        exchange_index=_whole(shard),
        session=str(session),
        created_at=Micros(_whole(made)),
        updated_at=Micros(_whole(changed)),
    )


def _whole(value: object) -> int:
    """The integer that the column's CHECK promises."""
    assert isinstance(value, int)
    return value

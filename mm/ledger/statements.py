"""The writes of the ledger as data: SQL text with its values.

Every statement may be run twice with the same effect, because a batch whose commit could not be confirmed is written
again.
"""

import datetime as dt
from typing import Final

from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, Order, OrderId
from mm.ledger.rows import AlertRow, FillKind, OrderKind, SettlementRow

Value = str | int | None
Statement = tuple[str, tuple[Value, ...]]

_ORDER: Final = """
INSERT INTO orders (account, client_order_id, order_id, ticker, side, price, count, state, kind, group_id,
                    exchange_index, session, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, client_order_id) DO UPDATE SET
    order_id = COALESCE(excluded.order_id, order_id), price = excluded.price, count = excluded.count,
    state = excluded.state, group_id = COALESCE(excluded.group_id, group_id), updated_at = excluded.updated_at
"""
# The first mention of a group decides where it belongs; a second one (the same epoch written again) changes nothing.
_GROUP: Final = """
INSERT INTO groups (account, group_id, exchange_index, epoch, session, created_at)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (account, group_id) DO NOTHING
"""
_SETTLEMENT: Final = """
INSERT INTO settlements (account, ticker, value, settled_at, yes_count, no_count, fee)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, ticker) DO UPDATE SET
    value = excluded.value, settled_at = excluded.settled_at, yes_count = excluded.yes_count,
    no_count = excluded.no_count, fee = excluded.fee
"""
_MARK: Final = """
INSERT INTO marks (account, name, at) VALUES (?, ?, ?)
ON CONFLICT (account, name) DO UPDATE SET at = MAX(at, excluded.at)
"""


def kind_of(order: Order) -> OrderKind:
    """What the order is for."""
    return OrderKind.EXIT if order.reduce_only else OrderKind.QUOTE


def order(account: str, order: Order, *, session: str, now: Micros) -> Statement:
    """The order's row, new or brought up to date."""
    return _ORDER, (
        account,
        order.client_order_id,
        order.order_id,
        order.ticker,
        order.side.value,
        order.price,
        order.count,
        order.state.value,
        kind_of(order).value,
        order.group_id,
        order.exchange_index,
        session,
        order.created_at or now,
        now,
    )


def name_fills(account: str, order: Order) -> Statement:
    """Give fills that came before the order's venue id was known their client id and kind."""
    return (
        "UPDATE fills SET kind = ?, client_order_id = COALESCE(client_order_id, ?)"
        " WHERE account = ? AND order_id = ? AND kind = ?",
        (kind_of(order).value, order.client_order_id, account, order.order_id, FillKind.UNKNOWN.value),
    )


def order_names(account: str, order_id: OrderId, client_order_id: ClientOrderId) -> list[Statement]:
    """An order's venue id is learned by our id of it: the order's row, where there is one, and its fills follow.

    What has no row any more was a quote as far as anybody knows.
    """
    return [
        (
            "UPDATE orders SET order_id = COALESCE(order_id, ?) WHERE account = ? AND client_order_id = ?",
            (order_id, account, client_order_id),
        ),
        (
            "UPDATE fills SET client_order_id = COALESCE(client_order_id, ?), kind = COALESCE("
            "(SELECT kind FROM orders WHERE account = ? AND client_order_id = ?), ?)"
            " WHERE account = ? AND order_id = ? AND kind = ?",
            (
                client_order_id,
                account,
                client_order_id,
                FillKind.QUOTE.value,
                account,
                order_id,
                FillKind.UNKNOWN.value,
            ),
        ),
    ]


def foreign_order(account: str, order_id: OrderId) -> Statement:
    """Mark the fills of an order that is not ours."""
    return (
        "UPDATE fills SET kind = ? WHERE account = ? AND order_id = ? AND kind = ?",
        (FillKind.FOREIGN.value, account, order_id, FillKind.UNKNOWN.value),
    )


def group(
    account: str, group_id: GroupId, *, exchange_index: int, epoch: int, session: str, now: Micros
) -> Statement:
    """A new group."""
    return _GROUP, (account, group_id, exchange_index, epoch, session, now)


def group_triggered(account: str, group_id: GroupId, *, now: Micros) -> Statement:
    """The first trigger of a group."""
    return (
        "UPDATE groups SET triggered_at = COALESCE(triggered_at, ?) WHERE account = ? AND group_id = ?",
        (now, account, group_id),
    )


def group_deleted(account: str, group_id: GroupId, *, now: Micros) -> Statement:
    """The end of a group."""
    return (
        "UPDATE groups SET deleted_at = COALESCE(deleted_at, ?) WHERE account = ? AND group_id = ?",
        (now, account, group_id),
    )


def settlement(account: str, row: SettlementRow) -> Statement:
    """A market's settlement."""
    return _SETTLEMENT, (
        account,
        row.ticker,
        row.value,
        row.settled_at,
        row.yes_count,
        row.no_count,
        row.fee,
    )


def mark(account: str, name: str, at: Micros) -> Statement:
    """Advance a mark."""
    return _MARK, (account, name, at)


def session_start(account: str, session: str, *, now: Micros) -> Statement:
    """A session's start."""
    return (
        "INSERT INTO sessions (account, session, started_at) VALUES (?, ?, ?)"
        " ON CONFLICT (account, session) DO NOTHING",
        (account, session, now),
    )


def session_end(account: str, session: str, *, now: Micros, reason: str, exit_code: int) -> Statement:
    """A session's end. Inserts the row when the start was never written."""
    return (
        "INSERT INTO sessions (account, session, started_at, ended_at, reason, exit_code)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (account, session) DO UPDATE SET"
        " ended_at = excluded.ended_at, reason = excluded.reason, exit_code = excluded.exit_code",
        (account, session, now, now, reason, exit_code),
    )


def day_start(account: str, day: dt.date, pnl: Money, *, now: Micros) -> Statement:
    """Where a day began; a second word about it changes nothing."""
    return (
        "INSERT INTO days (account, day, start_pnl, at) VALUES (?, ?, ?, ?) ON CONFLICT (account, day) DO NOTHING",
        (account, day.isoformat(), pnl, now),
    )


def balance(
    account: str, session: str, balance: Money, expected: Money, unexplained: Money, *, now: Micros
) -> Statement:
    """A comparison of cash; written twice it is one."""
    return (
        "INSERT INTO balances (account, at, session, balance, expected, unexplained) SELECT ?, ?, ?, ?, ?, ?"
        " WHERE NOT EXISTS (SELECT 1 FROM balances WHERE account = ? AND at = ?)",
        (account, now, session, balance, expected, unexplained, account, now),
    )


def trigger(
    account: str, session: str, ticker: str, reason: str, net: Count, mark: Price | None, *, now: Micros
) -> Statement:
    """A risk rule acted; written twice it is once."""
    return (
        "INSERT INTO triggers (account, at, session, ticker, reason, net, mark) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (account, at, ticker, reason) DO NOTHING",
        (account, now, session, ticker, reason, net, mark),
    )


def alert(account: str, row: AlertRow) -> Statement:
    """An undelivered alert."""
    return (
        "INSERT INTO alerts (account, alert_id, raised_at, kind, text) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (account, alert_id) DO NOTHING",
        (account, row.alert_id, row.raised_at, row.kind, row.text),
    )


def alert_delivered(account: str, alert_id: str, *, now: Micros) -> Statement:
    """Its delivery."""
    return (
        "UPDATE alerts SET delivered_at = COALESCE(delivered_at, ?) WHERE account = ? AND alert_id = ?",
        (now, account, alert_id),
    )

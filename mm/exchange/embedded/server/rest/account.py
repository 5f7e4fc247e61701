"""Reads of the account: balance, positions, fills, orders, queue, settlements, limits, subaccounts."""

from collections.abc import Callable
from typing import Final

from mm.domain.numbers import SECOND, Money
from mm.domain.order import MarketTicker, OrderId
from mm.exchange.embedded.core.model import OrderRecord, OrderStatus, PositionView
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.errors import not_found
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.paging import decode_position, page_by_key, position_cursor
from mm.exchange.embedded.server.service import Call, Json

_SETTLED: Final = {"unsettled": False, "settled": True, "all": None}


def _is_other_subaccount(call: Call) -> bool:
    """Only subaccount 0 exists: the listings of any other are empty."""
    return bool(call.query.subaccount())


def _shard(call: Call) -> int | None:
    index = call.query.exchange_index()
    return None if index == -1 else index


def _tickers(call: Call, name: str, *, most: int) -> list[MarketTicker] | None:
    found = call.query.words(name, most=most)
    return None if found is None else [MarketTicker(ticker) for ticker in found]


def limits(call: Call) -> Response:
    """`GET /account/limits`."""
    return call.ok(call.service.budget(call.user_id).as_limits())


def balance(call: Call) -> Response:
    """`GET /portfolio/balance`: without `exchange_index` the total of all shards."""
    wanted = _shard(call)
    views = [
        view
        for view in call.core.balances(call.user_id)
        if (wanted is None or view.exchange_index == wanted) and not _is_other_subaccount(call)
    ]
    total = Money(sum(view.available for view in views))
    return call.ok(
        {
            "balance": wire.cents(total),
            "balance_dollars": wire.balance_text(total),
            "portfolio_value": wire.cents(Money(sum(view.portfolio_value for view in views))),
            "updated_ts": call.now // SECOND,
            "balance_breakdown": [
                {"exchange_index": view.exchange_index, "balance": wire.balance_text(view.available)}
                for view in views
            ],
        }
    )


def positions(call: Call) -> Response:
    """`GET /portfolio/positions`. A cursor belongs to the `settlement_status` it was made with."""
    query = call.query
    limit = query.limit(default=100, highest=1_000)
    settled = query.word("settlement_status", tuple(_SETTLED)) or "unsettled"
    counts = query.words("count_filter") or []
    if not set(counts) <= {"position", "total_traded"}:
        raise query.fail("count_filter", "oneof")
    ticker, event_ticker = query.text("ticker"), query.text("event_ticker")
    views: list[PositionView] = []
    if not _is_other_subaccount(call):
        views = call.core.positions(
            call.user_id,
            ticker=None if ticker is None else MarketTicker(ticker),
            event_ticker=event_ticker,
            exchange_index=_shard(call),
            is_settled=_SETTLED[settled],
        )
    views = call.service.reads.positions(call.now, call.user_id, views)
    if "position" in counts:
        views = [view for view in views if view.position]
    if "total_traded" in counts:
        views = [view for view in views if view.total_traded]
    page, cursor = page_by_key(
        f"positions {settled}", views, lambda view: view.ticker, limit=limit, cursor=query.text("cursor")
    )
    return call.ok(
        {
            "market_positions": [wire.position(view) for view in page],
            "event_positions": wire.event_positions(page),
            "cursor": cursor,
        }
    )


def fills(call: Call) -> Response:
    """`GET /portfolio/fills`, newest first."""
    query = call.query
    order_id = query.text("order_id")
    limit = query.limit(default=100, highest=1_000)
    min_ts, max_ts = query.seconds("min_ts"), query.seconds("max_ts")
    tickers, shard = _tickers(call, "ticker", most=100), _shard(call)
    if _is_other_subaccount(call):
        return call.ok({"fills": [], "cursor": ""})
    visible = call.service.reads.as_of(call.now)
    page = call.core.fills(
        call.user_id,
        tickers=tickers,
        order_id=None if order_id is None else OrderId(order_id),
        min_ts=min_ts,
        max_ts=visible if max_ts is None else min(max_ts, visible),
        exchange_index=shard,
        limit=limit,
        before=decode_position("fills", query.text("cursor")),
    )
    cursor = position_cursor("fills", page.next_before)
    return call.ok({"fills": [wire.fill(record) for record in page.items], "cursor": cursor})


def orders(call: Call) -> Response:
    """`GET /portfolio/orders`, newest first."""
    query = call.query
    status = query.word("status", tuple(word.value for word in OrderStatus))
    limit = query.limit(default=100, highest=1_000)
    min_ts, max_ts = query.seconds("min_ts"), query.seconds("max_ts")
    tickers, events, shard = (
        _tickers(call, "ticker", most=100),
        query.words("event_ticker", most=10),
        _shard(call),
    )
    if _is_other_subaccount(call):
        return call.ok({"orders": [], "cursor": ""})
    found, after = call.service.reads.orders(
        call.core,
        call.now,
        call.user_id,
        tickers=tickers,
        event_tickers=events,
        status=None if status is None else OrderStatus(status),
        min_ts=min_ts,
        max_ts=max_ts,
        exchange_index=shard,
        limit=limit,
        before=decode_position("orders", query.text("cursor")),
    )
    cursor = position_cursor("orders", after)
    return call.ok({"orders": [wire.order(record) for record in found], "cursor": cursor})


def _order(call: Call) -> OrderRecord:
    record = call.core.order(call.user_id, OrderId(call.path["order_id"]))
    shown = None if record is None else call.service.reads.order(call.now, record)
    if shown is None:
        raise not_found()
    return shown


def order(call: Call) -> Response:
    """`GET /portfolio/orders/{order_id}`."""
    return call.ok({"order": wire.order(_order(call))})


def queue_position(call: Call) -> Response:
    """`GET /portfolio/orders/{order_id}/queue_position`."""
    ahead = call.core.queue_position(call.user_id, OrderId(call.path["order_id"]))
    if ahead is None:
        raise not_found()
    return call.ok({"queue_position_fp": wire.count_text(ahead)})


def queue_positions(call: Call) -> Response:
    """`GET /portfolio/orders/queue_positions`: `market_tickers` or `event_ticker` is needed."""
    tickers, event_ticker = _tickers(call, "market_tickers", most=1_000), call.query.text("event_ticker")
    if tickers is None and event_ticker is None:
        raise call.query.fail("market_tickers", "required_without")
    found = call.core.queue_positions(call.user_id, tickers=tickers, event_ticker=event_ticker)
    items: list[Json] = [
        {
            "order_id": record.order_id,
            "market_ticker": record.ticker,
            "queue_position_fp": wire.count_text(ahead),
        }
        for record, ahead in found
        if not _is_other_subaccount(call)
    ]
    return call.ok({"queue_positions": items})


def settlements(call: Call) -> Response:
    """`GET /portfolio/settlements`, newest first."""
    query = call.query
    ticker = query.text("ticker")
    limit = query.limit(default=100, highest=1_000)
    min_ts, max_ts = query.seconds("min_ts"), query.seconds("max_ts")
    if _is_other_subaccount(call):
        return call.ok({"settlements": [], "cursor": ""})
    page = call.core.settlements(
        call.user_id,
        ticker=None if ticker is None else MarketTicker(ticker),
        event_ticker=query.text("event_ticker"),
        min_ts=min_ts,
        max_ts=max_ts,
        exchange_index=_shard(call),
        limit=limit,
        before=decode_position("settlements", query.text("cursor")),
    )
    cursor = position_cursor("settlements", page.next_before)
    return call.ok({"settlements": [wire.settlement(record) for record in page.items], "cursor": cursor})


def resting_value(call: Call) -> Response:
    """`GET /portfolio/summary/total_resting_order_value`, in cents."""
    views = call.core.balances(call.user_id)
    return call.ok(
        {
            "total_resting_order_value": wire.cents(Money(sum(view.reserved for view in views))),
            "resting_order_value_breakdown": [
                {"exchange_index": view.exchange_index, "balance": wire.balance_text(view.reserved)}
                for view in views
            ],
        }
    )


def subaccount_balances(call: Call) -> Response:
    """`GET /portfolio/subaccounts/balances`: subaccount 0 only."""
    items: list[Json] = [
        {
            "subaccount_number": 0,
            "exchange_index": view.exchange_index,
            "balance": wire.balance_text(view.available),
            "updated_ts": call.now // SECOND,
        }
        for view in call.core.balances(call.user_id)
    ]
    return call.ok({"subaccount_balances": items})


def subaccount_netting(call: Call) -> Response:
    """`GET /portfolio/subaccounts/netting`."""
    user = call.core.users()[call.user_id]
    return call.ok(
        {"netting_configs": [{"subaccount_number": 0, "enabled": user.is_netting, "exchange_index": 0}]}
    )


def api_keys(call: Call) -> Response:
    """`GET /api_keys`: the member's keys. Nothing here expires by region."""
    items: list[Json] = [
        {"api_key_id": key_id, "name": f"key {i}", "scopes": ["read", "write"]}
        for i, key_id in enumerate(call.service.keys_of(call.user_id), start=1)
    ]
    return call.ok({"api_keys": items})


def no_positions(call: Call) -> Response:
    """`GET /historical/positions`: nothing has been archived."""
    call.query.limit(default=100, highest=1_000)
    return call.ok({"market_positions": [], "event_positions": [], "cursor": ""})


def no_history(name: str) -> Callable[[Call], Response]:
    """An operation whose list is always empty here (deposits, withdrawals, transfers)."""

    def operation(call: Call) -> Response:
        call.query.limit(default=100, highest=1_000)
        return call.ok({name: [], "cursor": ""})

    return operation

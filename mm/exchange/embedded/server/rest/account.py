"""Reads of the account: balance, positions, fills, orders, queue, settlements."""

from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Final, Protocol, TypeVar

from mm.domain.numbers import SECOND, Micros, Money
from mm.domain.order import MarketTicker, OrderId
from mm.exchange.embedded.core.model import (
    FillRecord,
    OrderRecord,
    OrderStatus,
    PositionView,
    Slice,
)
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.errors import not_found
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.paging import decode_position, page_by_key, position_cursor
from mm.exchange.embedded.server.service import Call, Json

_SETTLED: Final = {"unsettled": False, "settled": True, "all": None}


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...


N = TypeVar("N", bound=_Numbered)


def merged(slices: Iterable[Slice[N]], limit: int) -> Slice[N]:
    """One page, newest first, of the same page of several accounts."""
    found = list(slices)
    if len(found) == 1:
        return found[0]  # by far the most common
    items = [item for one in found for item in one.items]
    newest = nlargest(limit, items, key=lambda item: item.seq)
    is_more = len(items) > limit or any(one.next_before is not None for one in found)
    return Slice(newest, newest[-1].seq if newest and is_more else None)


def _shard(call: Call) -> int | None:
    index = call.query.exchange_index()
    return None if index == -1 else index


def _tickers(call: Call, name: str, *, most: int) -> list[MarketTicker] | None:
    found = call.query.words(name, most=most)
    return None if found is None else [MarketTicker(ticker) for ticker in found]


def balance(call: Call) -> Response:
    """`GET /portfolio/balance`: without `exchange_index` the total of all shards."""
    wanted = _shard(call)
    views = [
        view
        for account in call.account_or_none(call.query.subaccount())
        for view in call.service.reads.balances(call.core, call.now, account)
        if wanted is None or view.exchange_index == wanted
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


def positions(call: Call, *, is_archive: bool = False) -> Response:
    """`GET /portfolio/positions`. A cursor belongs to the `settlement_status` it was made with."""
    query = call.query
    limit = query.limit(default=100, highest=1_000)
    settled = query.word("settlement_status", tuple(_SETTLED)) or ("all" if is_archive else "unsettled")
    counts = query.words("count_filter") or []
    if not set(counts) <= {"position", "total_traded"}:
        raise query.fail("count_filter", "oneof")
    ticker, event_ticker = query.text("ticker"), query.text("event_ticker")
    cutoff, shard = call.service.cutoff(call.now), _shard(call)
    views: list[PositionView] = []
    for account in call.account_or_none(query.subaccount()):
        present = call.core.positions(
            account,
            ticker=None if ticker is None else MarketTicker(ticker),
            event_ticker=event_ticker,
            exchange_index=shard,
            is_settled=_SETTLED[settled],
        )
        views += call.service.reads.positions(call.now, account, present)
    views = [view for view in views if (view.is_settled and view.updated_at < cutoff) is is_archive]
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


def fills(call: Call, *, is_archive: bool = False) -> Response:
    """`GET /portfolio/fills`, newest first."""
    query = call.query
    order_id = query.text("order_id")
    limit = query.limit(default=100, highest=1_000)
    low, high = query.seconds("min_ts"), query.seconds("max_ts")
    tickers, shard = _tickers(call, "ticker", most=100), _shard(call)
    before = decode_position("fills", query.text("cursor"))
    low, high = _window(call, low, high, is_archive=is_archive)

    def read(account: str) -> Slice[FillRecord]:
        return call.core.fills(
            account,
            tickers=tickers,
            order_id=None if order_id is None else OrderId(order_id),
            min_ts=low,
            max_ts=high,
            exchange_index=shard,
            limit=limit,
            before=before,
        )

    page = merged(map(read, call.accounts(query.subaccount())), limit)
    cursor = position_cursor("fills", page.next_before)
    return call.ok({"fills": [wire.fill(record) for record in page.items], "cursor": cursor})


def _window(
    call: Call, low: Micros | None, high: Micros | None, *, is_archive: bool
) -> tuple[Micros, Micros]:
    """What of a time window is visible: as far as the reads' lag, on this side of the cut to the archive."""
    visible, cutoff = call.service.reads.as_of(call.now), call.service.cutoff(call.now)
    last = Micros(min(visible, cutoff - 1)) if is_archive else visible
    first = Micros(0) if is_archive else cutoff
    return max(low or Micros(0), first), last if high is None else min(high, last)


def orders(call: Call, *, is_archive: bool = False) -> Response:
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
    before = decode_position("orders", query.text("cursor"))
    keep = _archive_rule(call, is_archive=is_archive)

    def read(account: str) -> Slice[OrderRecord]:
        return call.service.reads.orders(
            call.core,
            call.now,
            account,
            tickers=tickers,
            event_tickers=events,
            status=None if status is None else OrderStatus(status),
            min_ts=min_ts,
            max_ts=max_ts,
            exchange_index=shard,
            limit=limit,
            before=before,
            keep=keep,
        )

    page = merged(map(read, call.accounts(query.subaccount())), limit)
    cursor = position_cursor("orders", page.next_before)
    return call.ok({"orders": [wire.order(record) for record in page.items], "cursor": cursor})


def _archive_rule(call: Call, *, is_archive: bool) -> Callable[[OrderRecord], bool] | None:
    """Which orders a listing shows; done orders move to the archive when they are old enough."""
    cutoff = call.service.cutoff(call.now)
    if call.service.archive_after is None and not is_archive:
        return None
    return lambda order: (order.status is not OrderStatus.RESTING and order.updated_at < cutoff) is is_archive


def _order(call: Call) -> tuple[str, OrderRecord]:
    """The account and the order that a path names."""
    for account in call.accounts(None):
        record = call.core.order(account, OrderId(call.path["order_id"]))
        shown = None if record is None else call.service.reads.order(call.now, record)
        if shown is not None:
            return account, shown
    raise not_found()


def order(call: Call) -> Response:
    """`GET /portfolio/orders/{order_id}`."""
    return call.ok({"order": wire.order(_order(call)[1])})


def queue_position(call: Call) -> Response:
    """`GET /portfolio/orders/{order_id}/queue_position`."""
    account, record = _order(call)
    ahead = call.core.queue_position(account, record.order_id)
    if ahead is None:
        raise not_found()
    return call.ok({"queue_position_fp": wire.count_text(ahead)})


def queue_positions(call: Call) -> Response:
    """`GET /portfolio/orders/queue_positions`: `market_tickers` or `event_ticker` is needed."""
    tickers, event_ticker = _tickers(call, "market_tickers", most=1_000), call.query.text("event_ticker")
    if tickers is None and event_ticker is None:
        raise call.query.fail("market_tickers", "required_without")
    found = [
        item
        for account in call.account_or_none(call.query.subaccount())
        for item in call.core.queue_positions(account, tickers=tickers, event_ticker=event_ticker)
    ]
    items: list[Json] = [
        {
            "order_id": record.order_id,
            "market_ticker": record.ticker,
            "queue_position_fp": wire.count_text(ahead),
        }
        for record, ahead in found
    ]
    return call.ok({"queue_positions": items})


def settlements(call: Call) -> Response:
    """`GET /portfolio/settlements`, newest first."""
    query = call.query
    ticker, event_ticker = query.text("ticker"), query.text("event_ticker")
    limit = query.limit(default=100, highest=1_000)
    min_ts, max_ts = query.seconds("min_ts"), query.seconds("max_ts")
    before, shard = decode_position("settlements", query.text("cursor")), _shard(call)
    page = merged(
        (
            call.core.settlements(
                account,
                ticker=None if ticker is None else MarketTicker(ticker),
                event_ticker=event_ticker,
                min_ts=min_ts,
                max_ts=max_ts,
                exchange_index=shard,
                limit=limit,
                before=before,
            )
            for account in call.accounts(query.subaccount())
        ),
        limit,
    )
    cursor = position_cursor("settlements", page.next_before)
    return call.ok({"settlements": [wire.settlement(record) for record in page.items], "cursor": cursor})


def resting_value(call: Call) -> Response:
    """`GET /portfolio/summary/total_resting_order_value`, in cents."""
    by_shard: dict[int, int] = {}
    for account in call.accounts(None):
        for view in call.core.balances(account):
            by_shard[view.exchange_index] = by_shard.get(view.exchange_index, 0) + view.reserved
    return call.ok(
        {
            "total_resting_order_value": wire.cents(Money(sum(by_shard.values()))),
            "resting_order_value_breakdown": [
                {"exchange_index": shard, "balance": wire.balance_text(Money(reserved))}
                for shard, reserved in sorted(by_shard.items())
            ],
        }
    )

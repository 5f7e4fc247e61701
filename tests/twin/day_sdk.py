"""A trading day with kalshi-sdk 22.4.0: REST through its models, and its feed with sequence checks and local books."""

import asyncio
import logging
import time
from uuid import uuid4

import day
from day import control, need
from kalshi import AsyncKalshiClient, KalshiConfig
from kalshi.errors import KalshiError
from kalshi.models.orders import (
    AmendOrderV2Request,
    BatchCancelOrdersV2Request,
    BatchCreateOrdersV2Request,
    CreateOrderV2Request,
    DecreaseOrderV2Request,
)
from kalshi.ws import KalshiWebSocket


class Complaints(logging.Handler):
    """Everything that the client finds worth a warning: gaps, resyncs, frames that its models refuse."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.found = []

    def emit(self, record):
        """Keep it."""
        self.found.append(self.format(record))


class Trader:
    """Calls the client by resource and operation, and counts."""

    def __init__(self, client):
        self.client = client
        self.count = day.Count()

    async def __call__(self, resource, operation, *args, **kwargs):
        answer = await getattr(getattr(self.client, resource), operation)(*args, **kwargs)
        self.count.add("calls")
        self.count.add(f"{resource}.{operation}")
        return answer

    async def all(self, resource, operation, **kwargs):
        """Every item of a paged listing."""
        found = [item async for item in getattr(getattr(self.client, resource), operation)(**kwargs)]
        self.count.add("calls")
        self.count.add(f"{resource}.{operation}")
        return found


def order(ticker, side, price, count, **more):
    """A create."""
    fields = {
        "ticker": ticker,
        "client_order_id": str(uuid4()),
        "side": side,
        "price": price,
        "count": count,
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
    }
    return CreateOrderV2Request(**(fields | more))


async def look_around(call):
    """Public reads; the markets to trade in."""
    for resource, operation in (
        ("exchange", "status"),
        ("exchange", "schedule"),
        ("exchange", "user_data_timestamp"),
        ("series", "fee_changes"),
        ("events", "fee_changes"),
        ("series", "list"),
        ("account", "limits"),
        ("account", "endpoint_costs"),
        ("account", "volume_progress"),
        ("api_keys", "list"),
    ):
        await call(resource, operation)
    await call("series", "get", day.SERIES, include_volume=True)
    events = await call.all("events", "list_all", series_ticker=day.SERIES, with_nested_markets=True, limit=2)
    need(len(events) >= 6, f"{len(events)} events")
    await call("events", "get", events[0].event_ticker, with_nested_markets=True)
    await call("events", "metadata", events[0].event_ticker)
    await call("events", "list_multivariate")
    markets = await call.all("markets", "list_all", status="open", limit=3)
    need(len(markets) >= 12, f"{len(markets)} markets")
    fit = [m for m in markets if 0.2 < float(m.yes_bid) < 0.8]
    one = fit[0]
    other = next(m for m in fit if m.event_ticker != one.event_ticker)
    now = int(time.time())
    window = {"start_ts": now - 3600, "end_ts": now + 60, "period_interval": 1}
    await call("markets", "get", one.ticker)
    await call("markets", "orderbook", one.ticker, depth=3)
    await call("markets", "bulk_orderbooks", tickers=[one.ticker, other.ticker])
    await call("markets", "list_trades", ticker=one.ticker)
    await call("markets", "candlesticks", day.SERIES, one.ticker, **window)
    await call("markets", "bulk_candlesticks", market_tickers=[one.ticker, other.ticker], **window)
    await call("series", "event_candlesticks", day.SERIES, one.event_ticker, **window)
    games = await call.all("milestones", "list_all", limit=3)
    game = next(g for g in games if one.event_ticker in g.related_event_tickers)
    await call("milestones", "get", game.id)
    await call("live_data", "get", game.id)
    await call("live_data", "get_typed", "hockey_game", game.id)
    await call("live_data", "batch", milestone_ids=[game.id])
    await call("live_data", "game_stats", game.id)
    await call("live_data", "get_event", one.event_ticker)
    await call.all("incentive_programs", "list_all", status="active")
    return one.ticker, other.ticker, one.event_ticker


async def trade(call, ticker, other, event):
    """Every write."""
    group = await call("order_groups", "create", contracts_limit=500)
    group_id = group.order_group_id
    price, _ = day.book(ticker)[0][0]
    low = day.text(day.cents(price) - 300)
    soon = int(time.time()) + 600
    first = order(
        ticker,
        "bid",
        low,
        "10",
        post_only=True,
        order_group_id=group_id,
        expiration_time=soon,
        exchange_index=0,
    )
    made = await call("orders", "create_v2", request=first)
    await call("orders", "get", made.order_id)
    await call("orders", "queue_position", made.order_id)
    await call("orders", "queue_positions", event_ticker=event)
    need((await call("order_groups", "get", group_id)).orders == [made.order_id], "the group's orders")
    await call("order_groups", "list")
    lower = day.text(day.cents(low) - 100)
    change = AmendOrderV2Request(
        ticker=ticker, side="bid", price=lower, count="12", expiration_time=soon + 60
    )
    await call("orders", "amend_v2", made.order_id, request=change)
    less = await call("orders", "decrease_v2", made.order_id, request=DecreaseOrderV2Request(reduce_by="2"))
    need(less.remaining_count == 10, f"{less}")
    await call("portfolio", "total_resting_order_value")
    await call("orders", "cancel_v2", made.order_id, market_ticker=ticker)
    try:
        await call("orders", "cancel_v2", made.order_id, market_ticker=ticker)
        need(False, "a second cancel was accepted")
    except KalshiError:
        call.count.add("refusals")
    taken = await call(
        "orders", "create_v2", request=order(ticker, "bid", "0.99", "3", time_in_force="immediate_or_cancel")
    )
    need(taken.fill_count == 3, f"{taken}")
    both = [order(ticker, "ask", "0.98", "2"), order(other, "bid", "0.03", "2")]
    batch = await call("orders", "batch_create_v2", request=BatchCreateOrdersV2Request(orders=both))
    need(all(item.order_id for item in batch.orders), f"{batch}")
    gone = [
        {"order_id": item.order_id, "market_ticker": o.ticker}
        for item, o in zip(batch.orders, both, strict=True)
    ]
    await call("orders", "batch_cancel_v2", request=BatchCancelOrdersV2Request(orders=gone))
    for verb in ("trigger", "reset", "delete"):
        if verb == "delete":
            await call("order_groups", "update_limit", group_id, contracts_limit=100)
        await call("order_groups", verb, group_id)
    for _ in range(20):
        price, ahead = day.book(ticker)[0][0]
        made = await call("orders", "create_v2", request=order(ticker, "bid", price, "5"))
        sell = {"ticker": ticker, "side": "ask", "price": price, "count": f"{float(ahead) + 100_000:.2f}"}
        control("POST", "order", sell)
        if float((await call("orders", "get", made.order_id)).fill_count) > 0:
            call.count.add("maker_fills")
            return
    need(False, "no maker fill in 20 tries")


async def look_at_the_account(call, ticker):
    """Every read of the account, and money between accounts."""
    await call("portfolio", "balance")
    fills = await call.all("portfolio", "fills_all", ticker=ticker, limit=2)
    need(fills, "no fills")
    call.count.add("fills", len(fills))
    await call.all("portfolio", "positions_all", limit=2)
    await call.all("orders", "list_all", limit=3)
    await call("portfolio", "deposits")
    await call("portfolio", "withdrawals")
    number = (await call("subaccounts", "create")).subaccount_number
    ids = {"client_transfer_id": str(uuid4()), "from_subaccount": 0, "to_subaccount": number}
    await call("subaccounts", "transfer", amount_cents=1_000, **ids)
    await call("subaccounts", "list_balances")
    await call("subaccounts", "list_transfers")
    await call("subaccounts", "update_netting", subaccount_number=number, enabled=True)
    await call("subaccounts", "get_netting")
    await call("account", "upgrade")
    await call("portfolio", "target_balance_allocation")
    await call("portfolio", "intra_exchange_transfers")


async def drain(queue, kept):
    """Keep everything that a subscription gives."""
    async for message in queue:
        kept.append(message)


async def end_the_day(call, ticker):
    """A result, its settlement, the archive."""
    control("POST", "determine", {"ticker": ticker, "value": "0.0000"})
    end = time.monotonic() + 60
    while not (rows := (await call("portfolio", "settlements", ticker=ticker)).items):
        need(time.monotonic() < end, "the market never settled")
        await asyncio.sleep(0.2)
    call.count.add("settlements", len(rows))
    await call("markets", "get", ticker)
    await call("orders", "cancel_all_v2")
    need(not await call.all("orders", "list_all", status="resting"), "orders rest")
    await asyncio.sleep(1.1)
    control("POST", "archive", {"after_ms": 1000})
    now = int(time.time())
    await call("historical", "cutoff")
    await call("historical", "market", ticker)
    await call("historical", "candlesticks", ticker, start_ts=now - 3600, end_ts=now + 60, period_interval=1)
    for name in ("markets_all", "fills_all", "orders_all", "positions_all"):
        await call.all("historical", name)
    await call("historical", "trades", limit=10)
    control("POST", "archive", {})


async def compare_books(ws, tickers):
    """With trading paused, the client's own books are the exchange's."""
    for ticker in tickers:
        control("POST", "pause", {"ticker": ticker})
    await asyncio.sleep(1.0)
    for ticker in tickers:
        ours = ws._orderbook_mgr.get(ticker)
        bids, asks = day.book(ticker)
        yes = {(day.cents(level.price), float(level.quantity)) for level in ours.yes}
        no = {(10_000 - day.cents(level.price), float(level.quantity)) for level in ours.no}
        need(yes == {(day.cents(p), float(c)) for p, c in bids}, f"bids of {ticker} differ")
        need(no == {(day.cents(p), float(c)) for p, c in asks}, f"asks of {ticker} differ")
        control("POST", "resume", {"ticker": ticker})


async def main():
    complaints = Complaints()
    logging.getLogger("kalshi").addHandler(complaints)
    config = KalshiConfig(base_url=day.REST, ws_base_url=day.WS)
    async with AsyncKalshiClient(key_id=day.KEY_ID, private_key_path=day.KEY_PATH, config=config) as client:
        call = Trader(client)
        ticker, other, event = await look_around(call)
        ws = KalshiWebSocket(auth=client._auth, config=config)
        frames = {}
        async with ws.connect() as session, asyncio.TaskGroup() as tasks:
            queues = {
                "ticker": await session.subscribe_ticker(maxsize=100_000),
                "trade": await session.subscribe_trade(maxsize=100_000),
                "fill": await session.subscribe_fill(),
                "user_orders": await session.subscribe_user_orders(),
                "market_positions": await session.subscribe_market_positions(),
                "order_group_updates": await session.subscribe_order_group(),
                "market_lifecycle_v2": await session.subscribe_market_lifecycle(),
                # The last one: this client throws away what arrives while it waits for an acknowledgement.
                "orderbook_delta": await session.subscribe_orderbook_delta(
                    tickers=[ticker, other], maxsize=100_000
                ),
            }
            for channel, queue in queues.items():
                tasks.create_task(drain(queue, frames.setdefault(channel, [])))
            await trade(call, ticker, other, event)
            await look_at_the_account(call, ticker)
            await asyncio.sleep(5.0)
            await compare_books(session, [ticker, other])
            await end_the_day(call, ticker)
            await asyncio.sleep(0.5)
            await session._stop()
        for channel, kept in frames.items():
            need(kept, f"nothing came on {channel}")
            call.count.add("frames", len(kept))
        kinds = [message.type for message in frames["orderbook_delta"]]
        need(
            kinds.count("orderbook_snapshot") == 2, f"{kinds.count('orderbook_snapshot')} snapshots: a resync"
        )
        call.count.add("deltas", kinds.count("orderbook_delta"))
        need(not complaints.found, "the client complained:\n" + "\n".join(complaints.found[:5]))
        call.count.tell()


asyncio.run(main())

"""A trading day with kalshi-python-async 3.34.0: every operation of a trader through its pydantic models."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import day
from day import control, need
from kalshi_python_async import Configuration, KalshiClient
from kalshi_python_async.exceptions import ConflictException, NotFoundException


class Trader:
    """Calls the client by operation name and counts."""

    def __init__(self, client):
        self.client = client
        self.count = day.Count()
        self.apis = {
            name.removesuffix("_api").strip("_"): value
            for name, value in vars(client).items()
            if name.endswith("_api")
        }

    async def __call__(self, api, operation, *args, **kwargs):
        answer = await getattr(self.apis[api], operation)(*args, **kwargs)
        self.count.add("calls")
        self.count.add(f"{api}.{operation}")
        return answer


def order(ticker, side, price, count, **more):
    """The fields of a create."""
    return {
        "ticker": ticker,
        "side": side,
        "price": price,
        "count": count,
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
        "client_order_id": str(uuid4()),
        **more,
    }


async def look_around(call):
    """Exchange, series, events, markets, games; the market to trade in."""
    await call("exchange", "get_exchange_status")
    await call("exchange", "get_exchange_schedule")
    await call("exchange", "get_user_data_timestamp")
    await call("exchange", "get_series_fee_changes", show_historical=True)
    await call("events", "get_event_fee_changes")
    await call("market", "get_series_list", include_product_metadata=True, include_volume=True)
    await call("market", "get_series", day.SERIES)
    events = await call("events", "get_events", series_ticker=day.SERIES, with_nested_markets=True, limit=200)
    event = events.events[0]
    await call("events", "get_event", event.event_ticker, with_nested_markets=True)
    await call("events", "get_event_metadata", event.event_ticker)
    await call("events", "get_multivariate_events")
    seen, cursor = [], None
    while True:
        page = await call("market", "get_markets", limit=3, cursor=cursor, status="open")
        seen += page.markets
        cursor = page.cursor
        if not cursor:
            break
    need(len(seen) == len({market.ticker for market in seen}) >= 8, f"{len(seen)} markets")
    open_ones = [m for m in seen if 0.2 < float(m.yes_bid_dollars) < 0.8]
    one, other = open_ones[0], next(m for m in open_ones if m.event_ticker != open_ones[0].event_ticker)
    tickers = [one.ticker, other.ticker]
    now = int(time.time())
    window = {"start_ts": now - 3600, "end_ts": now + 60, "period_interval": 1}
    await call("market", "get_market", one.ticker)
    await call("market", "get_market_orderbook", one.ticker, depth=5)
    await call("market", "get_market_orderbooks", tickers)
    await call("market", "get_trades", limit=50)
    await call("market", "get_market_candlesticks", day.SERIES, one.ticker, **window)
    await call("market", "batch_get_market_candlesticks", ",".join(tickers), **window)
    await call("events", "get_market_candlesticks_by_event", one.event_ticker, day.SERIES, **window)
    games = await call("milestone", "get_milestones", 50, competition="Pro Hockey")
    game = next(g for g in games.milestones if one.event_ticker in g.related_event_tickers)
    await call("milestone", "get_milestone", game.id)
    await call("live_data", "get_live_data_by_milestone", game.id)
    await call("live_data", "get_live_data", "hockey_game", game.id)
    await call("live_data", "get_live_datas", [game.id])
    await call("live_data", "get_game_stats", game.id)
    await call("live_data", "get_event_live_data", one.event_ticker)
    await call("incentive_programs", "get_incentive_programs", status="active")
    return one.ticker, other.ticker, one.event_ticker


async def trade(call, ticker, other, event):
    """Creates, amends, decreases, cancels, batches, groups, fills on both sides of the market."""
    group = await call("order_groups", "create_order_group", contracts_limit=500)
    group_id = group.order_group_id
    low = day.text(day.cents(day.book(ticker)[0][0][0]) - 300)
    quote = await call(
        "orders",
        "create_order_v2",
        **order(
            ticker,
            "bid",
            low,
            "10.00",
            post_only=True,
            cancel_order_on_pause=True,
            order_group_id=group_id,
            expiration_time=int(time.time()) + 600,
        ),
    )
    need(quote.remaining_count == "10.00", f"{quote}")
    order_id = quote.order_id
    await call("orders", "get_order", order_id)
    await call("orders", "get_order_queue_position", order_id)
    await call("orders", "get_order_queue_positions", event_ticker=event)
    found = await call("order_groups", "get_order_group", group_id)
    need(found.orders == [order_id], f"{found}")
    await call("order_groups", "get_order_groups")
    lower = day.text(day.cents(low) - 100)
    await call("orders", "amend_order_v2", order_id, ticker=ticker, side="bid", price=lower, count="12.00")
    left = await call("orders", "decrease_order_v2", order_id, reduce_by="2.00")
    need(left.remaining_count == "10.00", f"{left}")
    await call("portfolio", "get_portfolio_resting_order_total_value")
    gone = await call("orders", "cancel_order_v2", order_id, market_ticker=ticker)
    need(gone.reduced_by == "10.00", f"{gone}")
    try:
        await call("orders", "cancel_order_v2", order_id, market_ticker=ticker)
        need(False, "a second cancel was accepted")
    except NotFoundException:
        call.count.add("refusals")
    twice = order(ticker, "bid", low, "1.00")
    await call("orders", "create_order_v2", **twice)
    try:
        await call("orders", "create_order_v2", **twice)
        need(False, "the same client id was accepted twice")
    except ConflictException:
        call.count.add("refusals")
    taken = await call(
        "orders",
        "create_order_v2",
        **order(ticker, "bid", "0.9900", "3.00", time_in_force="immediate_or_cancel"),
    )
    need(taken.fill_count == "3.00" and taken.average_fill_price, f"{taken}")
    batch = await call(
        "orders",
        "batch_create_orders_v2",
        orders=[order(ticker, "ask", "0.9800", "2.00"), order(other, "bid", "0.0300", "2.00")],
    )
    need(not any(item.error for item in batch.orders), f"{batch}")
    await call(
        "orders",
        "batch_cancel_orders_v2",
        orders=[{"order_id": item.order_id, "exchange_index": 0} for item in batch.orders],
    )
    await be_hit(call, ticker)
    for verb in ("trigger_order_group", "reset_order_group"):
        await call("order_groups", verb, group_id)
    await call("order_groups", "update_order_group_limit", group_id, contracts_limit=100)
    await call("order_groups", "delete_order_group", group_id)


async def be_hit(call, ticker):
    """Rest a quote at the touch and have somebody sell through it."""
    for _ in range(20):
        price, ahead = day.book(ticker)[0][0]
        made = await call("orders", "create_order_v2", **order(ticker, "bid", price, "5.00"))
        sell = {"ticker": ticker, "side": "ask", "price": price, "count": f"{float(ahead) + 100_000:.2f}"}
        control("POST", "order", sell)
        now = await call("orders", "get_order", made.order_id)
        if float(now.order.maker_fill_cost_dollars) > 0:
            call.count.add("maker_fills")
            return
    need(False, "no maker fill in 20 tries")


async def look_at_the_account(call, ticker):
    """Every read of the portfolio, and money moving."""
    balance = await call("portfolio", "get_balance")
    need(balance.balance_dollars, f"{balance}")
    fills = await call("portfolio", "get_fills", ticker=ticker, limit=2)
    need(len(fills.fills) == 2, f"{fills}")
    call.count.add("fills", len(fills.fills))
    await call("portfolio", "get_fills", cursor=fills.cursor or None)
    await call("portfolio", "get_positions", ticker=ticker)
    await call("orders", "get_orders", status="executed")
    await call("orders", "get_orders", status="canceled", limit=1)
    await call("portfolio", "get_deposits")
    await call("portfolio", "get_withdrawals")
    number = (await call("portfolio", "create_subaccount")).subaccount_number
    await call(
        "portfolio",
        "apply_subaccount_transfer",
        client_transfer_id=str(uuid4()),
        from_subaccount=0,
        to_subaccount=number,
        amount_cents=1000,
    )
    await call("portfolio", "get_subaccount_balances")
    await call("portfolio", "get_subaccount_transfers")
    await call("portfolio", "update_subaccount_netting", subaccount_number=number, enabled=False)
    await call("portfolio", "get_subaccount_netting")
    await call(
        "portfolio",
        "set_target_balance_allocation",
        allocations=[{"exchange_index": 0, "percent": 100}],
    )
    await call("portfolio", "get_target_balance_allocation")
    await call("portfolio", "get_intra_exchange_instance_transfers")
    await call("account", "get_account_api_limits")
    await call("account", "get_account_endpoint_costs")
    await call("account", "get_account_api_usage_level_volume_progress")
    await call("account", "upgrade_account_api_usage_level")
    await call("api_keys", "get_api_keys")
    made = await call("api_keys", "generate_api_key", name="twin", key_type="ed25519")
    await call("api_keys", "delete_api_key", made.api_key_id)


async def end_the_day(call, ticker):
    """A result, its settlement, the archive, and nothing left behind."""
    control("POST", "determine", {"ticker": ticker, "value": "1.0000"})
    for _ in range(900):
        rows = await call("portfolio", "get_settlements", ticker=ticker)
        if rows.settlements:
            break
        await asyncio.sleep(0.1)
    need(rows.settlements, "the market never settled")
    await call("market", "get_market", ticker)
    await call("portfolio", "get_positions", settlement_status="all")
    await call("orders", "cancel_all_orders")
    left = await call("orders", "get_orders", status="resting")
    need(left.orders == [], f"{left}")
    await asyncio.sleep(1.1)
    control("POST", "archive", {"after_ms": 1000})
    now = int(time.time())
    await call("historical", "get_historical_cutoff")
    page = await call("historical", "get_historical_markets", tickers=ticker)
    need(len(page.markets) == 1, f"{page}")
    await call("historical", "get_historical_market", ticker)
    await call(
        "historical",
        "get_market_candlesticks_historical",
        ticker,
        start_ts=now - 3600,
        end_ts=now + 60,
        period_interval=1,
    )
    for what in ("get_fills_historical", "get_historical_orders", "get_historical_positions"):
        await call("historical", what)
    await call("historical", "get_trades_historical", limit=10)
    control("POST", "archive", {})


async def main(pem):
    configuration = Configuration(host=day.REST)
    configuration.api_key_id = day.KEY_ID
    configuration.private_key_pem = pem
    client = KalshiClient(configuration)
    call = Trader(client)
    try:
        ticker, other, event = await look_around(call)
        await trade(call, ticker, other, event)
        await look_at_the_account(call, ticker)
        await end_the_day(call, ticker)
    finally:
        await client.close()
    call.count.tell()


asyncio.run(main(Path(day.KEY_PATH).read_text()))

"""Every REST answer against the table of operations and fields of OpenAPI 3.34.0, and the listings' own rules."""

import re

import orjson
import pytest
import trio

from contract_table import check
from mm.exchange.embedded.server.routes import ROUTES

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT, SERIES = "KXNHLGAME-26DEC01TORBOS", "KXNHLGAME"
ORDERS = "/portfolio/events/orders"


async def lively(rig):
    """Something of everything: resting and done orders, fills, positions, a group, a settled market."""
    rig.house("bid", "0.4000", "50.00")
    rig.house("ask", "0.4300", "20.00")
    rig.house("bid", "0.5000", "5.00", BOS)
    resting = (await rig.create("bid", "0.3900", client_order_id="c-1")).json["order_id"]
    await rig.create("bid", "0.4300", "2.00", expiration_time=rig.clock() // 1_000_000 + 3_600)
    await rig.create("ask", "0.5000", "3.00", BOS)
    group = await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit": 5})
    group_id = group.json["order_group_id"]
    await rig.create("bid", "0.3800", order_group_id=group_id)
    return {"order_id": resting, "order_group_id": group_id}


READS = [
    "/exchange/status",
    "/exchange/schedule",
    "/exchange/user_data_timestamp",
    "/series/{series_ticker}?include_volume=true",
    "/series?limit=5&category=Sports",
    "/series/fee_changes",
    "/events/fee_changes",
    "/events?with_nested_markets=true&with_milestones=true",
    "/events/{event_ticker}",
    "/events/{event_ticker}?with_nested_markets=true",
    "/events/{event_ticker}/metadata",
    "/events/multivariate",
    "/markets",
    "/markets/{ticker}",
    "/markets/{ticker}/orderbook",
    "/markets/orderbooks?tickers=" + TOR + "&tickers=" + BOS,
    "/markets/trades",
    "/markets/candlesticks?market_tickers=" + TOR + "&period_interval=1&start_ts=0&end_ts=600000",
    "/milestones?limit=10",
    "/live_data/batch?milestone_ids=a",
    "/incentive_programs",
    "/account/limits",
    "/account/endpoint_costs",
    "/portfolio/balance",
    "/portfolio/positions?settlement_status=all",
    "/portfolio/fills",
    "/portfolio/settlements",
    "/portfolio/orders",
    "/portfolio/orders/{order_id}",
    "/portfolio/orders/{order_id}/queue_position",
    "/portfolio/orders/queue_positions?event_ticker=" + EVENT,
    "/portfolio/order_groups",
    "/portfolio/order_groups/{order_group_id}",
    "/portfolio/summary/total_resting_order_value",
    "/portfolio/subaccounts/balances",
    "/portfolio/subaccounts/netting",
    "/portfolio/subaccounts/transfers",
    "/portfolio/deposits",
    "/api_keys",
    "/historical/cutoff",
    "/historical/markets",
    "/historical/trades",
    "/historical/fills",
    "/historical/orders",
    "/historical/positions",
    "/portfolio/withdrawals",
]


@pytest.mark.parametrize("template", READS)
async def test_reads_have_the_shape_of_the_contract(rig, contract, template, autojump_clock):
    """Required fields, types, enums, decimals and times of every read."""
    names = {"series_ticker": SERIES, "event_ticker": EVENT, "ticker": TOR, **await lively(rig)}
    if "settlements" in template:
        await rig.control("POST", "determine", {"ticker": TOR, "value": "1.0000"})
        await trio.sleep(100)
    reply = await rig.call("GET", template.format(**names))
    assert reply.status == 200, reply
    path = template.partition("?")[0]
    operation = next(o for o in contract["operations"] if o["method"] == "GET" and o["path"] == path)
    check(contract, operation["responses"]["200"], reply.json)
    if "settlements" in template:
        assert reply.json["settlements"], "the check must not pass on an empty list"
    assert list(reply.json) == sorted(reply.json), "keys come in alphabetical order"


async def test_writes_have_the_shape_of_the_contract(rig, contract, autojump_clock):
    """The answers of every order write."""
    made = await lively(rig)
    good = {
        "ticker": TOR,
        "side": "bid",
        "count": "1.00",
        "price": "0.1000",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "maker",
    }
    one = await rig.call("POST", ORDERS, {**good, "client_order_id": "w-1"})
    check(contract, "CreateOrderV2Response", one.json)
    batch = await rig.call("POST", f"{ORDERS}/batched", {"orders": [good, {**good, "price": "2"}]})
    check(contract, "BatchCreateOrdersV2Response", batch.json)
    path = f"{ORDERS}/{made['order_id']}"
    amended = {"ticker": TOR, "side": "bid", "price": "0.3500", "count": "9.00"}
    check(contract, "AmendOrderV2Response", (await rig.call("POST", f"{path}/amend", amended)).json)
    reduced = await rig.call("POST", f"{path}/decrease", {"reduce_by": "1"})
    check(contract, "DecreaseOrderV2Response", reduced.json)
    check(contract, "CancelOrderV2Response", (await rig.call("DELETE", path)).json)
    items = [{"order_id": batch.json["orders"][0]["order_id"]}, {"order_id": "nobody"}]
    gone = await rig.call("DELETE", f"{ORDERS}/batched", {"orders": items})
    check(contract, "BatchCancelOrdersV2Response", gone.json)
    group = await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit_fp": "7.00"})
    check(contract, "CreateOrderGroupResponse", group.json)


async def test_every_public_read_of_the_contract_that_we_serve_is_public(rig, contract, autojump_clock):
    """No signature needed where the contract needs none, and one needed everywhere else."""
    by_path = {
        (o["method"], re.sub(r"\{(\w+)\}", r":\1", o["path"])): o["auth"] for o in contract["operations"]
    }
    served = [route for route in ROUTES if (route.method, route.template) in by_path]
    assert len(served) > 40
    for route in served:
        assert route.is_public == (not by_path[route.method, route.template]), route.template


# --- the rules of the listings ---


@pytest.mark.parametrize(
    "query",
    [
        "limit=1001",
        "status=active",
        "status=open,closed",
        "mve_filter=some",
        "min_close_ts=5&status=open",
        "min_created_ts=5&min_close_ts=5",
        "min_settled_ts=5&status=open",
        "min_updated_ts=5",
        "max_close_ts=abc",
    ],
)
async def test_market_filters_that_do_not_go_together_are_refused(rig, query, autojump_clock):
    """400 with the `msg` shape."""
    reply = await rig.call("GET", f"/markets?{query}")
    assert reply.status == 400
    assert set(reply.json) == {"msg"}


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", 3),
        ("status=open", 3),
        ("status=settled", 0),
        (f"event_ticker={EVENT}", 2),
        (f"series_ticker={SERIES}&status=open", 2),
        (f"tickers={TOR},{BOS},NONE", 2),
        ("mve_filter=exclude", 3),
        ("mve_filter=only", 0),
        ("min_created_ts=0&status=open", 3),
        ("max_created_ts=5", 0),
        ("min_updated_ts=0&mve_filter=exclude", 3),
        ("min_close_ts=0&status=closed", 0),
        ("unknown=whatever", 3),
    ],
)
async def test_markets_are_filtered(rig, query, expected, autojump_clock):
    """By event, series, tickers, status, windows; unknown parameters are ignored."""
    reply = await rig.call("GET", f"/markets?{query}")
    assert (reply.status, len(reply.json["markets"])) == (200, expected)


async def test_markets_are_paged_to_an_empty_cursor(rig, autojump_clock):
    """Each market once; garbage cursors give the first page."""
    seen, cursor = [], ""
    while True:
        page = (await rig.call("GET", f"/markets?limit=1&cursor={cursor}", headers={})).json
        seen += [market["ticker"] for market in page["markets"]]
        cursor = page["cursor"]
        if not cursor:
            break
        assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert len(seen) == len(set(seen)) == 3
    garbage = (await rig.call("GET", "/markets?limit=1&cursor=garbage-cursor-fixture")).json
    assert garbage["markets"][0]["ticker"] == seen[0]


async def test_a_market_looks_like_the_recording(rig, recordings, autojump_clock):
    """Every field that the real market had and that was not removed since is there, in the same format."""
    folder = recordings("rest_ws_demo_jun2026")
    seen = orjson.loads((folder / "markets__single.json").read_bytes())["market"]
    removed = {"fractional_trading_enabled", "response_price_units"}
    ours = (await rig.call("GET", f"/markets/{TOR}")).json["market"]
    optional = {"custom_strike", "early_close_condition", "strike_type", "occurrence_datetime"}
    missing = set(seen) - set(ours) - removed - optional - {"expected_expiration_time"}
    assert not missing
    for name in set(seen) & set(ours):
        assert type(seen[name]) is type(ours[name]), name


async def test_an_empty_side_reads_zero_or_one_and_depth_keeps_the_best(rig, autojump_clock):
    """Market: 0 and 1 for empty sides. Book: rising, best last, `depth` keeps the best."""
    market = (await rig.call("GET", f"/markets/{TOR}")).json["market"]
    assert (market["yes_bid_dollars"], market["yes_ask_dollars"]) == ("0.0000", "1.0000")
    for cents in (35, 36, 37):
        rig.house("bid", f"0.{cents}00", "1.00")
        rig.house("ask", f"0.{cents + 10}00", "2.00")
    book = (await rig.call("GET", f"/markets/{TOR}/orderbook?depth=2")).json["orderbook_fp"]
    assert book["yes_dollars"] == [["0.3600", "1.00"], ["0.3700", "1.00"]]
    assert book["no_dollars"] == [["0.5400", "2.00"], ["0.5500", "2.00"]]
    assert (await rig.call("GET", f"/markets/{TOR}/orderbook?depth=101")).status == 400
    assert (await rig.call("GET", "/markets/NONE/orderbook")).status == 404


async def test_candles_tell_open_low_high_close(rig, contract, autojump_clock):
    """Trades of a minute become one candle, minutes become hours."""
    await rig.create("ask", "0.4300", "20.00")
    rig.house("bid", "0.4300", "2.00", rest=False)
    await rig.create("ask", "0.4200", "5.00")
    rig.house("bid", "0.4200", "5.00", rest=False)
    await trio.sleep(61)
    rig.house("bid", "0.4300", "1.00", rest=False)
    now = rig.clock() // 1_000_000
    path = f"/series/{SERIES}/markets/{TOR}/candlesticks?start_ts={now - 3600}&end_ts={now + 3600}"
    minutes = (await rig.call("GET", f"{path}&period_interval=1")).json
    check(contract, "GetMarketCandlesticksResponse", minutes)
    first, second = minutes["candlesticks"]
    assert (first["price"]["open_dollars"], first["price"]["low_dollars"]) == ("0.4300", "0.4200")
    assert (first["volume_fp"], second["volume_fp"]) == ("7.00", "1.00")
    assert second["price"]["previous_dollars"] == "0.4200"
    hours = (await rig.call("GET", f"{path}&period_interval=60")).json["candlesticks"]
    assert sum(float(candle["volume_fp"]) for candle in hours) == 8
    for bad in ("", "&period_interval=7"):
        assert (await rig.call("GET", path + bad)).status == 400

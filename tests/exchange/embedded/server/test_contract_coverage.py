"""All operations that a trader uses, against the table of the contract: every declared success is reached, every field
of every schema is produced once, nothing is sent that the contract does not know. `make contract-report` shows the rest.
"""

import re
from uuid import UUID

import trio

from contract_table import STILL_SENT, Coverage
from mm.domain.numbers import SECOND
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, SeriesSpec
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize

NOT_SERVED = {
    r"/fcm/": "for clearing members",
    r"/communications/": "quotes on request and block trades",
    r"/multivariate_event_collections": "making combos",
    r"/search/|/structured_targets": "browsing, for web pages",
    r"forecast_percentile_history": "numeric markets",
    r"/live_data/weather": "weather markets",
}
NEVER_SENT = {
    ("ApiKey", "fcm_subtrader_id"): "clearing members only",
    ("CreateApiKeyResponse", "warning"): "no warning is known",
    ("GenerateApiKeyResponse", "warning"): "no warning is known",
}
TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT, SERIES, MLB = "KXNHLGAME-26DEC01TORBOS", "KXNHLGAME", "KXMLBGAME-26DEC011840COLCIN-COL"
ORDERS = "/portfolio/events/orders"
GROUPS = "/portfolio/order_groups"
KEY_PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"


def served(contract):
    """The operations of the contract that belong to a trader."""
    return [o for o in contract["operations"] if not any(re.search(p, o["path"]) for p in NOT_SERVED)]


class Caller:
    """Calls operations by the contract's paths, and tells the coverage what came back."""

    def __init__(self, rig, coverage):
        self.rig = rig
        self.coverage = coverage

    async def __call__(self, method, path, query="", body=None, expect=None, headers=None, **names):
        target = path.format(**names) + ("?" + query if query else "")
        reply = await self.rig.call(method, target, body, headers=headers)
        assert expect is None or reply.status == expect, (method, target, reply)
        assert reply.status < 500, (method, target, reply)
        content = reply.json if reply.body else None
        self.coverage.answer(method, path, reply.status, reply.body, content)
        return content


def order(side="bid", price="0.1000", count="1.00", ticker=TOR, **more):
    """The body of a create."""
    return {
        "ticker": ticker,
        "side": side,
        "count": count,
        "price": price,
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
        **more,
    }


def list_oddities(rig):
    """Markets with every field that a plain game does not have."""
    core, now = rig.server.core, rig.clock()
    core.add_series(
        now,
        SeriesSpec(
            ticker="KXODD",
            title="Odd",
            metadata={
                "tags": ["Odd"],
                "settlement_sources": [{"name": "A", "url": "https://a.example"}],
                "additional_prohibitions": ["nobody"],
                "product_metadata": {"competition": "Odd League", "competition_scope": "Game"},
            },
        ),
    )
    core.add_event(
        now,
        EventSpec(
            ticker="KXODD-1",
            series_ticker="KXODD",
            metadata={
                "settlement_sources": [{"name": "A", "url": "https://a.example"}],
                "product_metadata": {"competition": "Odd League", "competition_scope": "Game"},
                "strike_date": "2026-12-02T00:00:00Z",
                "strike_period": "weekly",
            },
        ),
    )
    core.add_series(now, SeriesSpec(ticker="KXMVESPORTS"))
    core.add_event(now, EventSpec(ticker="KXMVESPORTS-1", series_ticker="KXMVESPORTS"))
    later = now + 86_400 * SECOND
    plain = {"open_time": now, "close_time": later, "fee_waiver_until": later, "occurrence_time": later}
    core.add_market(
        now,
        MarketSpec(
            ticker="KXODD-1-A",
            event_ticker="KXODD-1",
            expected_expiration_time=later,
            metadata={
                "strike_type": "between",
                "floor_strike": 1.5,
                "cap_strike": 2.5,
                "functional_strike": "x",
                "custom_strike": {"a": "b"},
                "settlement_bounds_type": "floor",
                "settlement_floor_dollars": "0.1000",
                "early_close_condition": "It may.",
                "primary_participant_key": "p",
                "is_provisional": True,
            },
            **plain,
        ),
    )
    leg = {
        "event_ticker": EVENT,
        "market_ticker": TOR,
        "side": "yes",
        "yes_settlement_value_dollars": "1.0000",
    }
    combo = {"mve_collection_ticker": "KXMVESPORTS", "mve_selected_legs": [leg]}
    core.add_market(
        now,
        MarketSpec(ticker="KXMVESPORTS-1-A", event_ticker="KXMVESPORTS-1", metadata=combo, **plain),
    )


async def trade(rig, go):
    """Every order write, resting and done orders, fills, positions."""
    rig.house("bid", "0.4000", "50.00")
    rig.house("ask", "0.4300", "20.00")
    rig.house("bid", "0.5000", "5.00", BOS)
    soon = rig.clock() // SECOND + 3_600
    group = await go("POST", f"{GROUPS}/create", body={"contracts_limit": 50}, expect=201)
    group_id = group["order_group_id"]
    resting = await go(
        "POST",
        ORDERS,
        body=order(
            "bid", "0.3900", "9", client_order_id="c-1", order_group_id=group_id, expiration_time=soon
        ),
        expect=201,
    )
    await go("POST", ORDERS, body=order("bid", "0.4300", "2.00"), expect=201)
    await go("POST", ORDERS, body=order("ask", "0.5000", "3.00", BOS), expect=201)
    await go("POST", ORDERS, body=order("bid", "0.2000", "3.00", MLB, exchange_index=3), expect=201)
    path = f"{ORDERS}/{{order_id}}"
    which = {"order_id": resting["order_id"]}
    amend = {"ticker": TOR, "side": "bid", "price": "0.4300", "count": "10", "updated_client_order_id": "c-2"}
    amended = await go("POST", f"{path}/amend", body=amend, expect=200, **which)
    assert amended["fill_count"] == "10.00"
    second = await go("POST", ORDERS, body=order("bid", "0.3800", "9", client_order_id="c-3"), expect=201)
    which = {"order_id": second["order_id"]}
    await go("POST", f"{path}/decrease", body={"reduce_by": "1"}, expect=200, **which)
    await go("GET", "/portfolio/orders/{order_id}", expect=200, **which)
    await go("GET", "/portfolio/orders/{order_id}/queue_position", expect=200, **which)
    await go("GET", "/portfolio/orders/queue_positions", f"event_ticker={EVENT}", expect=200)
    await go("GET", f"{GROUPS}/{{order_group_id}}", expect=200, order_group_id=group_id)
    await go("GET", GROUPS, expect=200)
    both = [order("bid", "0.4300", "1", client_order_id="b-1"), order(price="2"), order(count="0")]
    batch = await go("POST", f"{ORDERS}/batched", body={"orders": both}, expect=201)
    assert batch["orders"][1]["error"]["code"] == "invalid_price"
    assert batch["orders"][2]["error"]["details"] == "count is not a valid count"
    third = await go("POST", ORDERS, body=order("bid", "0.3700", client_order_id="c-4"), expect=201)
    items = [{"order_id": third["order_id"]}, {"order_id": "nobody"}]
    gone = await go("DELETE", f"{ORDERS}/batched", body={"orders": items}, expect=200)
    assert gone["orders"][0]["client_order_id"] == "c-4"
    await go("GET", "/portfolio/summary/total_resting_order_value", expect=200)
    await go("DELETE", path, f"market_ticker={TOR}", expect=200, **which)
    for verb in ("trigger", "reset"):
        await go("PUT", f"{GROUPS}/{{order_group_id}}/{verb}", expect=200, order_group_id=group_id)
    limit = {"contracts_limit_fp": "9.00"}
    await go("PUT", f"{GROUPS}/{{order_group_id}}/limit", body=limit, expect=200, order_group_id=group_id)
    await go("DELETE", f"{GROUPS}/{{order_group_id}}", expect=200, order_group_id=group_id)


async def move_money(rig, go):
    """Subaccounts, transfers, allocation, deposits."""
    number = (await go("POST", "/portfolio/subaccounts", body={}, expect=201))["subaccount_number"]
    body = {
        "client_transfer_id": str(UUID(int=1)),
        "from_subaccount": 0,
        "to_subaccount": number,
        "amount_cents": 12_345,
    }
    await go("POST", "/portfolio/subaccounts/transfer", body=body, expect=200)
    await go("GET", "/portfolio/subaccounts/transfers", expect=200)
    balances = await go("GET", "/portfolio/subaccounts/balances", expect=200)
    assert {"123.4500", "0.0000"} <= {b["balance"] for b in balances["subaccount_balances"]}
    netting = {"subaccount_number": number, "enabled": False}
    await go("PUT", "/portfolio/subaccounts/netting", body=netting, expect=200)
    await go("GET", "/portfolio/subaccounts/netting", expect=200)
    body = {"source": "event_contract", "destination": "event_contract", "amount": 10_000}
    shards = {"source_exchange_shard": 0, "destination_exchange_shard": 3}
    path = "/portfolio/intra_exchange_instance_transfer"
    moved = await go("POST", path, body=body | shards, expect=200)
    await go("GET", f"{path}s/{{transfer_id}}", expect=200, **moved)
    await go("GET", f"{path}s", expect=200)
    share = [{"exchange_index": 0, "percent": 90}, {"exchange_index": 3, "percent": 10}]
    path = "/portfolio/target_balance_allocation"
    await go("POST", path, body={"allocations": share}, expect=200)
    await go("GET", path, expect=200)
    await rig.control("POST", "deposit", {"amount": "-5"})
    await go("GET", "/portfolio/deposits", expect=200)
    await go("GET", "/portfolio/withdrawals", expect=200)
    await go("GET", "/portfolio/balance", expect=200)


async def manage_keys(rig, go):
    """Keys, limits, tiers."""
    key = {"name": "mine", "public_key": KEY_PEM, "subaccount": 0, "scopes": ["read"]}
    made = await go("POST", "/api_keys", body=key, expect=201)
    await go("POST", "/api_keys/generate", body={"name": "theirs", "key_type": "ed25519"}, expect=201)
    await go("GET", "/api_keys", expect=200)
    await go("DELETE", "/api_keys/{api_key}", expect=204, api_key=made["api_key_id"])
    await go("GET", "/account/limits", expect=200)
    await go("POST", "/account/api_usage_level/upgrade", expect=201)
    await go("GET", "/account/limits", expect=200)
    await go("GET", "/account/api_usage_level/volume_progress", expect=200)
    await go("GET", "/account/endpoint_costs", expect=200, headers={})


async def read_public(rig, go):
    """What everybody may read, while the markets are open."""
    await trio.sleep(61)
    await rig.control("POST", "order", {"ticker": TOR, "side": "ask", "price": "0.4", "count": "1"})
    now = rig.clock() // SECOND
    window = f"start_ts={now - 3_600}&end_ts={now + 3_600}&period_interval=1"
    await go("GET", "/exchange/user_data_timestamp", expect=200)
    await go("GET", "/series", "include_product_metadata=true&include_volume=true", expect=200)
    await go("GET", "/series/{series_ticker}", "include_volume=true", expect=200, series_ticker="KXODD")
    await go("GET", "/events", "with_nested_markets=true&with_milestones=true", expect=200)
    for ticker in (EVENT, "KXODD-1"):
        await go("GET", "/events/{event_ticker}", expect=200, event_ticker=ticker)
        await go("GET", "/events/{event_ticker}/metadata", expect=200, event_ticker=ticker)
    await go("GET", "/events/multivariate", "with_nested_markets=true", expect=200)
    await go("GET", "/markets", expect=200)
    await go("GET", "/markets/{ticker}", expect=200, ticker="KXODD-1-A")
    await go("GET", "/markets/{ticker}/orderbook", expect=200, ticker=TOR)
    await go("GET", "/markets/orderbooks", f"tickers={TOR}&tickers={BOS}", expect=200)
    await go("GET", "/markets/trades", expect=200)
    names = {"series_ticker": SERIES, "ticker": TOR}
    candles = "/series/{series_ticker}/markets/{ticker}/candlesticks"
    found = await go("GET", candles, window, expect=200, **names)
    assert found["candlesticks"]
    candles = "/series/{series_ticker}/events/{ticker}/candlesticks"
    await go("GET", candles, window, expect=200, series_ticker=SERIES, ticker=EVENT)
    found = await go("GET", "/markets/candlesticks", f"market_tickers={TOR},{BOS}&{window}", expect=200)
    assert [item["market_ticker"] for item in found["markets"]] == [TOR, BOS]


async def watch_games(rig, go):
    """The calendar and what is behind it."""
    found = await go("GET", "/milestones", "limit=10&competition=Pro Hockey".replace(" ", "%20"), expect=200)
    game = found["milestones"][0]
    milestone, event = {"milestone_id": game["id"]}, game["primary_event_tickers"][0]
    await go("GET", "/milestones/{milestone_id}", expect=200, **milestone)
    await go("GET", "/live_data/milestone/{milestone_id}", expect=200, **milestone)
    typed = "/live_data/{type}/milestone/{milestone_id}"
    await go("GET", typed, expect=200, type="hockey_game", **milestone)
    await go("GET", typed, expect=404, type="baseball_game", **milestone)
    stats = await go("GET", "/live_data/milestone/{milestone_id}/game_stats", expect=200, **milestone)
    assert stats["pbp"]["periods"][0]["events"]
    await go("GET", "/live_data/batch", f"milestone_ids={game['id']}", expect=200)
    await go("GET", "/live_data/events/{event_ticker}", expect=200, event_ticker=event)
    found = await go("GET", "/incentive_programs", "status=active&type=liquidity", expect=200)
    assert found["incentive_programs"]


async def announce(rig, go):
    """Fees and maintenance to come, and a pause with an estimated end."""
    when = {"in_ms": 60_000, "fee_multiplier": 0.5}
    change = {"series_ticker": SERIES, "fee_type": "quadratic_with_maker_fees", **when}
    assert (await rig.control("POST", "fees", change)).status == 200
    change = {"event_ticker": EVENT, "fee_type": "quadratic", **when}
    assert (await rig.control("POST", "fees", change)).status == 200
    assert (await go("GET", "/series/fee_changes", expect=200))["series_fee_change_arr"]
    assert (await go("GET", "/events/fee_changes", expect=200))["event_fee_changes"]
    await rig.control("POST", "maintenance", {"in_ms": 1_000, "for_ms": 30_000})
    assert (await go("GET", "/exchange/schedule", expect=200))["schedule"]["maintenance_windows"]
    await trio.sleep(10)
    status = await go("GET", "/exchange/status", expect=200)
    assert not status["trading_active"]
    assert status["exchange_estimated_resume_time"]
    await trio.sleep(90)
    assert (await go("GET", "/exchange/status", expect=200))["trading_active"]
    await go("GET", "/events/{event_ticker}", expect=200, event_ticker=EVENT)


async def settle(rig, go):
    """Portfolio reads, the end of a market, and its way into the archive."""
    await rig.control("POST", "determine", {"ticker": TOR, "value": "0.3300"})
    await trio.sleep(100)
    for status in ("unsettled", "all"):
        await go("GET", "/portfolio/positions", f"settlement_status={status}", expect=200)
    assert (await go("GET", "/portfolio/settlements", expect=200))["settlements"]
    await go("GET", "/markets/{ticker}", expect=200, ticker=TOR)
    await go("GET", "/portfolio/fills", expect=200)
    await go("GET", "/portfolio/orders", expect=200)
    await go("DELETE", ORDERS, expect=204)
    await trio.sleep(10)
    await rig.control("POST", "archive", {"after_ms": 5_000})
    await go("GET", "/historical/cutoff", expect=200)
    names = {"ticker": TOR}
    await go("GET", "/markets/{ticker}", expect=404, **names)
    await go("GET", "/historical/markets/{ticker}", expect=200, **names)
    found = await go("GET", "/historical/markets", f"tickers={TOR}", expect=200)
    assert [market["ticker"] for market in found["markets"]] == [TOR]
    now = rig.clock() // SECOND
    window = f"start_ts={now - 3_600}&end_ts={now + 86_400}&period_interval="
    for period in ("1", "1440"):
        await go("GET", "/historical/markets/{ticker}/candlesticks", window + period, expect=200, **names)
    for name in ("trades", "fills", "orders"):
        assert (await go("GET", f"/historical/{name}", expect=200))[name], name
        if name != "trades":
            assert not (await go("GET", f"/portfolio/{name}", expect=200))[name], name
    found = await go("GET", "/milestones", "limit=10", expect=200)
    assert any(game["end_date"] for game in found["milestones"])
    found = await go("GET", "/historical/positions", expect=200)
    assert TOR in [position["ticker"] for position in found["market_positions"]]


async def be_refused(rig, go, operations):
    """401 wherever a signature is needed, and 404 for what is not there."""
    names = dict.fromkeys(
        ["order_id", "order_group_id", "ticker", "event_ticker", "series_ticker", "milestone_id", "type"],
        "no",
    ) | {"transfer_id": "no", "api_key": "no"}
    bodies = {
        "AmendOrderV2Request": {"ticker": TOR, "side": "bid", "price": "0.5", "count": "1"},
        "DecreaseOrderV2Request": {"reduce_by": "1"},
        "UpdateOrderGroupLimitRequest": {"contracts_limit": 1},
    }
    for o in operations:
        if o["auth"]:
            await go(o["method"], o["path"], expect=401, headers={}, **names)
        if "404" in o["responses"] and "{" in o["path"]:
            query = "start_ts=0&end_ts=60&period_interval=1" if "candle" in o["path"] else ""
            await go(o["method"], o["path"], query, body=bodies.get(o["body"]), expect=404, **names)


async def live(nursery, open_rig, contract):
    """A life of an exchange in which everything happens that the contract tells of; what was seen."""
    slate = GeneratedSlate(seed=5, speed=100.0, size=SlateSize(games=2), most_events=20.0)
    # Cancels that name the client's id: the contract allows it, recordings show none.
    rules = Rules(cancel_names_client_order_id=True)
    rig = await open_rig(nursery, tier="premier", games=slate, rules=rules)
    list_oddities(rig)
    coverage = Coverage(contract, served(contract))
    go = Caller(rig, coverage)
    await nursery.start(slate.run, rig.server.driver)
    await trade(rig, go)
    await read_public(rig, go)
    await watch_games(rig, go)
    await move_money(rig, go)
    await manage_keys(rig, go)
    await announce(rig, go)
    await settle(rig, go)
    await be_refused(rig, go, coverage.operations)
    return coverage


async def test_every_operation_status_and_field_of_the_contract_is_produced(
    nursery, open_rig, contract, autojump_clock
):
    """And nothing else. The report (`make contract-report`) says what else was reached."""
    coverage = await live(nursery, open_rig, contract)
    print("\n" + coverage.report())
    assert len(coverage.operations) > 75
    assert coverage.missing_statuses() == []
    assert set(coverage.missing_fields()) <= set(NEVER_SENT)
    assert coverage.unknown <= STILL_SENT

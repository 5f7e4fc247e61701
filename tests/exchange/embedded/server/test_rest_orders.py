"""Order writes and reads as the wire has them: answers, refusals in their own words, batches, groups, paging."""

import orjson
import pytest
import trio

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
MLB = "KXMLBGAME-26DEC011840COLCIN-COL"
ORDERS = "/portfolio/events/orders"


def recorded(recordings, name):
    """The recorded body without the field that is gone, its status and request body."""
    folder = recordings("rest_ws_demo_jun2026")
    body = orjson.loads((folder / f"{name}.json").read_bytes())
    meta = orjson.loads((folder / f"{name}.meta.json").read_bytes())
    if isinstance(body.get("error"), dict):
        body["error"].pop("service", None)
    return body, meta["status"], meta["request_body"]


async def replay(rig, request, **changes):
    """A recorded create against our market."""
    return await rig.call("POST", ORDERS, {**request, "ticker": TOR, **changes})


async def test_a_create_that_rests_answers_like_the_recording(rig, recordings, autojump_clock):
    """Same keys, same formats; an accepted order can be read at once."""
    body, status, request = recorded(recordings, "orders__create_v2_maker")
    reply = await replay(rig, request)
    assert (reply.status, set(reply.json)) == (status, set(body))
    assert (reply.json["fill_count"], reply.json["remaining_count"]) == ("0.00", "1.00")
    order = (await rig.call("GET", f"/portfolio/orders/{reply.json['order_id']}")).json["order"]
    seen, _, _ = recorded(recordings, "orders__get_after_create")
    assert set(seen["order"]) <= set(order)
    assert {k: order[k] for k in ("side", "action", "book_side", "outcome_side", "status", "type")} == {
        k: seen["order"][k] for k in ("side", "action", "book_side", "outcome_side", "status", "type")
    }


async def test_a_taker_gets_averages_and_fees(rig, recordings, autojump_clock):
    """An IOC at 0.99 filled at 0.52: averages in the answer, the recorded fee, the limit price on the order."""
    body, status, request = recorded(recordings, "orders__create_v2_taker_ioc")
    rig.house("ask", "0.5200", "5.00")
    reply = await replay(rig, request)
    assert reply.status == status
    assert {k: v for k, v in reply.json.items() if k not in ("order_id", "ts_ms")} == {
        k: v for k, v in body.items() if k not in ("order_id", "ts_ms")
    }
    order = (await rig.call("GET", f"/portfolio/orders/{reply.json['order_id']}")).json["order"]
    assert (order["yes_price_dollars"], order["status"]) == ("0.9900", "executed")
    fill = (await rig.call("GET", "/portfolio/fills")).json["fills"][0]
    assert (fill["yes_price_dollars"], fill["fee_cost"], fill["is_taker"]) == ("0.5200", "0.017500", True)
    assert fill["ts"] == int(reply.json["ts_ms"] / 1000)


@pytest.mark.parametrize(
    "name",
    [
        "orders__insufficient_balance",
        "orders__invalid_price_structure",
        "orders__numeric_field_types",
        "orders__post_only_cross",
    ],
)
async def test_refused_creates_speak_like_the_recording(rig, recordings, name, autojump_clock):
    """Status and body of each recorded refusal."""
    body, status, request = recorded(recordings, name)
    rig.house("ask", "0.5200", "5.00")
    changes = {"count": "20000.00", "price": "0.5100"} if name.endswith("balance") else {}
    reply = await replay(rig, request, **changes)
    assert (reply.status, reply.json) == (status, body)
    assert (await rig.call("GET", "/portfolio/orders")).json["orders"] == []


async def test_a_client_id_is_spent_for_ever(rig, recordings, autojump_clock):
    """409 for the second use, also after a cancel."""
    body, status, request = recorded(recordings, "orders__duplicate_client_order_id")
    order_id = (await replay(rig, request)).json["order_id"]
    assert (await replay(rig, request)).json == body
    cancelled = await rig.call("DELETE", f"{ORDERS}/{order_id}?market_ticker={TOR}")
    seen, _, _ = recorded(recordings, "orders__cancel_v2")
    assert (cancelled.status, set(cancelled.json)) == (200, set(seen))
    reply = await replay(rig, request)
    assert (reply.status, reply.json) == (status, body)


async def test_a_cancel_of_what_does_not_rest_is_always_the_same_404(rig, recordings, autojump_clock):
    """Cancelled, unknown, and on another shard: byte for byte alike."""
    body, status, _ = recorded(recordings, "orders__cancel_unknown_id")
    order_id = (await rig.create()).json["order_id"]
    elsewhere = await rig.call("DELETE", f"{ORDERS}/{order_id}?exchange_index=3")
    unknown = await rig.call("DELETE", f"{ORDERS}/00000000-0000-0000-0000-000000000000")
    wrong_market = await rig.call("DELETE", f"{ORDERS}/{order_id}?market_ticker={MLB}")
    await rig.call("DELETE", f"{ORDERS}/{order_id}")
    again = await rig.call("DELETE", f"{ORDERS}/{order_id}")
    for reply in (elsewhere, unknown, wrong_market, again):
        assert (reply.status, reply.json) == (status, body)
    gone = (await rig.call("GET", f"/portfolio/orders/{order_id}")).json["order"]
    assert (gone["status"], gone["remaining_count_fp"], gone["initial_count_fp"]) == (
        "canceled",
        "0.00",
        "10.00",
    )


async def test_a_cancel_without_shard_or_market_misses_other_shards(rig, autojump_clock):
    """It goes to shard 0; with the ticker or the index it arrives."""
    first = (await rig.create(ticker=MLB)).json["order_id"]
    second = (await rig.create(ticker=MLB, price="0.4100")).json["order_id"]
    assert (await rig.call("DELETE", f"{ORDERS}/{first}")).status == 404
    assert (await rig.call("DELETE", f"{ORDERS}/{first}?market_ticker={MLB}")).status == 200
    assert (await rig.call("DELETE", f"{ORDERS}/{second}?exchange_index=3")).status == 200


@pytest.mark.parametrize(
    "change, code",
    [
        ({"side": "yes"}, "invalid_parameters"),
        ({"side": None}, "invalid_parameters"),
        ({"ticker": ""}, "invalid_parameters"),
        ({"time_in_force": "GTT"}, "invalid_parameters"),
        ({"self_trade_prevention_type": None}, "invalid_parameters"),
        ({"count": "0"}, "invalid_parameters"),
        ({"count": "-1.00"}, "invalid_parameters"),
        ({"count": "1.001"}, "invalid_parameters"),
        ({"count": "1" * 50}, "invalid_parameters"),
        ({"price": "0.0000"}, "invalid_price"),
        ({"price": "1.0000"}, "invalid_price"),
        ({"price": "abc"}, "invalid_price"),
        ({"price": "0.12345"}, "invalid_price"),
        ({"client_order_id": "a.b"}, "invalid_parameters"),
        ({"subaccount": 5}, "invalid_parameters"),
        ({"subaccount": 64}, "invalid_parameters"),
        ({"expiration_time": 1}, "invalid_parameters"),
        ({"ticker": "KXNONE-1-A"}, "market_not_found"),
        ({"order_group_id": "nobody"}, "not_found"),
    ],
)
async def test_creates_that_say_nothing_sensible_are_refused(rig, change, code, autojump_clock):
    """Each with its code; nothing is placed."""
    reply = await rig.create(**change)
    assert 400 <= reply.status < 410
    assert reply.json["error"]["code"] == code
    assert (await rig.call("GET", "/portfolio/orders")).json["orders"] == []


@pytest.mark.parametrize(
    "raw, status",
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"x"', 400),
        (b"\xff", 400),
        (b"[" * 5_000, 400),
    ],
)
async def test_bodies_that_do_not_decode_are_refused(rig, raw, status, autojump_clock):
    """Flat or nested shape, always 400 with a code."""
    reply = await rig.call("POST", ORDERS, raw=raw)
    assert reply.status == status
    assert reply.json.get("code") or reply.json["error"]["code"]


async def test_a_body_without_its_content_type_is_refused(rig, autojump_clock):
    """400 invalid_content_type."""
    headers = rig.signed("POST", "/trade-api/v2" + ORDERS)
    reply = await rig.call("POST", ORDERS, raw=b"{}", headers={**headers, "Content-Type": "text/plain"})
    assert reply.json["error"]["code"] == "invalid_content_type"


async def test_legacy_writes_are_gone(rig, autojump_clock):
    """410 with its own code, for every one of them."""
    for method, path in (
        ("POST", "/portfolio/orders"),
        ("DELETE", "/portfolio/orders/x"),
        ("POST", "/portfolio/orders/x/amend"),
        ("POST", "/portfolio/orders/x/decrease"),
        ("POST", "/portfolio/orders/batched"),
        ("DELETE", "/portfolio/orders/batched"),
    ):
        reply = await rig.call(method, path, {})
        assert (reply.status, reply.json["error"]["code"]) == (410, "deprecated_v1_order_endpoint")


async def test_an_amend_moves_an_order_and_may_change_only_its_expiry(rig, autojump_clock):
    """Price and total change; an expiry-only amend answers without counts; 0 removes the expiry."""
    placed = (await rig.create()).json
    path = f"{ORDERS}/{placed['order_id']}/amend"
    same = {"ticker": TOR, "side": "bid", "price": "0.4000", "count": "10.00"}
    expires = rig.clock() // 1_000_000 + 60
    reply = await rig.call("POST", path, {**same, "expiration_time": expires})
    assert (reply.status, set(reply.json)) == (200, {"order_id", "ts_ms"})
    order = (await rig.call("GET", f"/portfolio/orders/{placed['order_id']}")).json["order"]
    assert order["expiration_time"].endswith("Z")
    await rig.call("POST", path, {**same, "expiration_time": 0})
    order = (await rig.call("GET", f"/portfolio/orders/{placed['order_id']}")).json["order"]
    assert "expiration_time" not in order
    reply = await rig.call("POST", path, {**same, "price": "0.4200", "count": "12.00"})
    assert reply.json["remaining_count"] == "12.00"
    wrong = await rig.call("POST", path, {**same, "side": "ask"})
    assert wrong.status == 400
    missing = await rig.call("POST", f"{ORDERS}/nobody/amend", same)
    assert missing.status == 404


async def test_a_decrease_takes_exactly_one_of_its_two_fields(rig, autojump_clock):
    """`reduce_by` and `reduce_to`, in terms of what remains."""
    order_id = (await rig.create()).json["order_id"]
    path = f"{ORDERS}/{order_id}/decrease"
    assert (await rig.call("POST", path, {"reduce_by": "3"})).json["remaining_count"] == "7.00"
    assert (await rig.call("POST", path, {"reduce_to": "2.50"})).json["remaining_count"] == "2.50"
    for body in ({}, {"reduce_by": "1", "reduce_to": "1"}, {"reduce_by": 1}):
        assert (await rig.call("POST", path, body)).status == 400
    assert (await rig.call("POST", path, {"reduce_to": "0"})).json["remaining_count"] == "0.00"
    assert (await rig.call("POST", path, {"reduce_by": "1"})).status == 404


async def test_an_order_expires_on_time_without_anybody_asking(rig, autojump_clock):
    """The exchange's own timer cancels it; its end is told in `last_update_time`."""
    expires = rig.clock() // 1_000_000 + 30
    order_id = (await rig.create(expiration_time=expires)).json["order_id"]
    await trio.sleep(29)
    assert rig.server.core.users()[rig.server.auth.keys["key"].user_id].resting
    await trio.sleep(1.5)
    assert not rig.server.core.users()[rig.server.auth.keys["key"].user_id].resting
    order = (await rig.call("GET", f"/portfolio/orders/{order_id}")).json["order"]
    assert (order["status"], order["last_update_time"]) == ("canceled", order["expiration_time"])


async def test_batches_tell_the_fate_of_each_item(rig, autojump_clock):
    """In the order of the request; a bad item does not spoil the others, one that does not decode does."""
    good = {
        "ticker": TOR,
        "side": "bid",
        "count": "1.00",
        "price": "0.1000",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
    }
    bodies = [{**good, "client_order_id": "a"}, {**good, "price": "0.1050", "client_order_id": "b"}, good]
    reply = await rig.call("POST", f"{ORDERS}/batched", {"orders": bodies})
    first, second, third = reply.json["orders"]
    assert reply.status == 201
    assert first["client_order_id"] == "a"
    assert (second["client_order_id"], second["error"]["code"]) == ("b", "invalid_price")
    assert "order_id" not in second
    whole = await rig.call("POST", f"{ORDERS}/batched", {"orders": [good, {**good, "count": 1}]})
    assert (whole.status, whole.json["code"]) == (400, "bad_request")
    items = [
        {"order_id": first["order_id"], "market_ticker": TOR},
        {"order_id": "nobody"},
        {"order_id": third["order_id"], "exchange_index": 0},
    ]
    reply = await rig.call("DELETE", f"{ORDERS}/batched", {"orders": items})
    assert reply.status == 200
    assert [item["reduced_by"] for item in reply.json["orders"]] == ["1.00", "0.00", "1.00"]
    assert reply.json["orders"][1]["error"]["code"] == "not_found"


async def test_cancel_all_reaches_every_shard(rig, autojump_clock):
    """204, and nothing rests anywhere."""
    await rig.create()
    await rig.create(ticker=MLB)
    await trio.sleep(5)  # it takes a full bucket
    assert (await rig.call("DELETE", ORDERS)).status == 204
    listed = (await rig.call("GET", "/portfolio/orders?status=resting")).json["orders"]
    assert listed == []


async def test_orders_are_listed_newest_first_and_paged_to_an_end(rig, autojump_clock):
    """Filters, pages, an empty cursor at the end, and a garbage cursor that is silently the first page."""
    ids = [(await rig.create(client_order_id=f"c-{i}")).json["order_id"] for i in range(7)]
    await rig.call("DELETE", f"{ORDERS}/{ids[0]}")
    seen, cursor, pages = [], "", 0
    while True:
        page = (await rig.call("GET", f"/portfolio/orders?limit=3&cursor={cursor}")).json
        seen += [order["order_id"] for order in page["orders"]]
        pages, cursor = pages + 1, page["cursor"]
        if not cursor:
            break
    assert (seen, pages) == (ids[::-1], 3)
    resting = (await rig.call("GET", f"/portfolio/orders?status=resting&ticker={TOR}")).json["orders"]
    assert [order["order_id"] for order in resting] == ids[:0:-1]
    garbage = (await rig.call("GET", "/portfolio/orders?limit=3&cursor=garbage-cursor-fixture")).json
    assert [order["order_id"] for order in garbage["orders"]] == ids[:3:-1]
    assert (await rig.call("GET", "/portfolio/orders?subaccount=7")).json["orders"] == []
    for bad in ("status=open", "limit=1001", "limit=x", "subaccount=99", "min_ts=-1"):
        reply = await rig.call("GET", f"/portfolio/orders?{bad}")
        assert reply.status == 400
        assert reply.json["msg"].startswith("Parameter validation failed for GetOrders")


async def test_fills_positions_and_balance_follow_a_trade(rig, autojump_clock):
    """A maker fill: fill, position, balance and queue all tell the same story."""
    order_id = (await rig.create("ask", "0.4500", "10.00")).json["order_id"]
    await rig.create("ask", "0.4600", "5.00")
    queue = (await rig.call("GET", f"/portfolio/orders/{order_id}/queue_position")).json
    assert queue == {"queue_position_fp": "0.00"}
    both = (await rig.call("GET", f"/portfolio/orders/queue_positions?market_tickers={TOR}")).json
    assert [item["queue_position_fp"] for item in both["queue_positions"]] == ["0.00", "10.00"]
    rig.house("bid", "0.4500", "4.00", rest=False)
    fill = (await rig.call("GET", f"/portfolio/fills?order_id={order_id}")).json["fills"][0]
    assert (fill["book_side"], fill["outcome_side"], fill["count_fp"]) == ("ask", "no", "4.00")
    assert (fill["yes_price_dollars"], fill["no_price_dollars"]) == ("0.4500", "0.5500")
    position = (await rig.call("GET", "/portfolio/positions")).json["market_positions"][0]
    assert (position["ticker"], position["position_fp"]) == (TOR, "-4.00")
    assert position["market_exposure_dollars"] == "2.200000"
    balance = (await rig.call("GET", "/portfolio/balance?exchange_index=0")).json
    assert balance["balance"] == int(float(balance["balance_dollars"]) * 100)
    assert len(balance["balance_dollars"].partition(".")[2]) == 4
    total = (await rig.call("GET", "/portfolio/balance")).json["balance_breakdown"]
    assert [item["exchange_index"] for item in total] == [0, 3]
    assert (await rig.call("GET", "/portfolio/fills?ticker=OTHER")).json["fills"] == []
    assert (await rig.call("GET", "/portfolio/orders/queue_positions")).status == 400


async def test_groups_trip_trigger_and_reset(rig, autojump_clock):
    """A triggered group cancels what is in it, refuses creates, and opens again after a reset."""
    made = await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit": 1})
    assert (made.status, made.json["exchange_index"]) == (201, 0)
    group_id = made.json["order_group_id"]
    order_id = (await rig.create(order_group_id=group_id)).json["order_id"]
    details = (await rig.call("GET", f"/portfolio/order_groups/{group_id}")).json
    assert (details["orders"], details["contracts_limit_fp"]) == ([order_id], "1.00")
    for body in (None, {}):
        assert (await rig.call("PUT", f"/portfolio/order_groups/{group_id}/trigger", body)).json == {}
    assert not (await rig.call("GET", "/portfolio/order_groups")).json["order_groups"][0][
        "is_auto_cancel_enabled"
    ]
    assert (await rig.create(order_group_id=group_id)).status == 409
    assert (await rig.call("PUT", f"/portfolio/order_groups/{group_id}/reset")).status == 200
    assert (await rig.create(order_group_id=group_id)).status == 201
    limit = {"contracts_limit": 5, "contracts_limit_fp": "5.00"}
    assert (await rig.call("PUT", f"/portfolio/order_groups/{group_id}/limit", limit)).status == 200
    for body in ({}, {"contracts_limit": 0}, {"contracts_limit": 2, "contracts_limit_fp": "3"}):
        assert (await rig.call("POST", "/portfolio/order_groups/create", body)).status == 400
    assert (await rig.call("DELETE", f"/portfolio/order_groups/{group_id}")).status == 200
    assert (await rig.call("GET", f"/portfolio/order_groups/{group_id}")).status == 404
    assert (await rig.call("PUT", "/portfolio/order_groups/nobody/trigger")).status == 404


async def test_a_paused_shard_refuses_with_its_own_words(rig, autojump_clock):
    """Trading paused: creates refused, cancels work. Exchange paused: cancels refused too."""
    order_id = (await rig.create()).json["order_id"]
    await rig.control("POST", "pause", {"exchange_index": 0})
    reply = await rig.create()
    assert (reply.status, reply.json["error"]) == (
        409,
        {"code": "trading_is_paused", "message": "trading is paused"},
    )
    assert not (await rig.call("GET", "/exchange/status")).json["trading_active"]
    await rig.control("POST", "pause", {"exchange_index": 0, "what": "exchange"})
    refused = await rig.call("DELETE", f"{ORDERS}/{order_id}")
    assert (refused.status, refused.json["error"]["code"]) == (409, "exchange_is_paused")
    await rig.control("POST", "resume", {"what": "exchange"})
    await rig.control("POST", "resume", {})
    assert (await rig.call("DELETE", f"{ORDERS}/{order_id}")).status == 200

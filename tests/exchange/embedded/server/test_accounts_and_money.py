"""Subaccounts, keys with bounds, transfers, netting, allocations, lagging balances, the archive, announced changes."""

from uuid import UUID

import trio

from mm.domain.numbers import SECOND, parse_money
from mm.domain.tickers import parse_time

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT, MLB = "KXNHLGAME-26DEC01TORBOS", "KXMLBGAME-26DEC011840COLCIN-COL"
USER = "77aa0000-0000-4000-8000-000000000001"


async def subaccount(rig, dollars):
    """A new subaccount with some money; its number."""
    number = (await rig.call("POST", "/portfolio/subaccounts", {})).json["subaccount_number"]
    if dollars:
        assert (await move(rig, 0, number, dollars * 100)).status == 200
    return number


async def move(rig, source, destination, cents, number=1, **more):
    """A transfer between subaccounts."""
    body = {
        "client_transfer_id": str(UUID(int=number)),
        "from_subaccount": source,
        "to_subaccount": destination,
        "amount_cents": cents,
        **more,
    }
    return await rig.call("POST", "/portfolio/subaccounts/transfer", body)


async def balance(rig, query=""):
    """What may be spent, as text."""
    return (await rig.call("GET", f"/portfolio/balance{query}")).json["balance_dollars"]


# --- subaccounts ---


async def test_a_subaccount_has_its_own_cash_orders_positions_and_groups(rig, autojump_clock):
    """Listings of orders and fills show all, positions and balance the main account, unless one is named."""
    one = await subaccount(rig, 100)
    rig.house("ask", "0.4300", "20.00")
    await rig.create("bid", "0.4300", "5.00", subaccount=one, client_order_id="sub")
    await rig.create("bid", "0.4300", "3.00", client_order_id="main")
    fills = (await rig.call("GET", "/portfolio/fills")).json["fills"]
    assert [(f["count_fp"], f["subaccount_number"]) for f in fills] == [("3.00", 0), ("5.00", one)]
    orders = (await rig.call("GET", f"/portfolio/orders?subaccount={one}")).json["orders"]
    assert [(o["client_order_id"], o["user_id"]) for o in orders] == [("sub", USER)]
    main = (await rig.call("GET", "/portfolio/positions")).json["market_positions"]
    theirs = (await rig.call("GET", f"/portfolio/positions?subaccount={one}")).json["market_positions"]
    assert (main[0]["position_fp"], theirs[0]["position_fp"]) == ("3.00", "5.00")
    assert float(await balance(rig, f"?subaccount={one}")) < 98
    group = await rig.call(
        "POST", "/portfolio/order_groups/create", {"contracts_limit": 5, "subaccount": one}
    )
    group_id = group.json["order_group_id"]
    assert (await rig.call("GET", f"/portfolio/order_groups/{group_id}")).status == 404
    assert (await rig.call("GET", f"/portfolio/order_groups/{group_id}?subaccount={one}")).status == 200


async def test_a_subaccount_cannot_spend_what_another_has(rig, autojump_clock):
    """Its cash is its own; client ids are the member's."""
    one = await subaccount(rig, 1)
    refused = await rig.create("bid", "0.5000", "10.00", subaccount=one)
    assert (refused.status, refused.json["error"]["code"]) == (400, "insufficient_balance")
    await rig.create("bid", "0.1000", "1.00", client_order_id="same")
    again = await rig.create("bid", "0.1000", "1.00", client_order_id="same", subaccount=one)
    assert (again.status, again.json["error"]["code"]) == (409, "order_already_exists")
    unknown = await rig.create("bid", "0.1000", "1.00", subaccount=9)
    assert unknown.status == 400


async def test_self_trade_prevention_sees_the_whole_member(rig, autojump_clock):
    """An order of one account does not trade with an order of another."""
    one = await subaccount(rig, 100)
    await rig.create("bid", "0.4000", "5.00")
    reply = await rig.create("ask", "0.4000", "5.00", subaccount=one, time_in_force="immediate_or_cancel")
    assert (reply.status, reply.json["fill_count"], reply.json["remaining_count"]) == (201, "0.00", "0.00")


async def test_orders_of_a_subaccount_are_amended_and_cancelled_under_its_number(rig, autojump_clock):
    """Without the number they are not found; cancel-all takes all accounts, or the one named."""
    one = await subaccount(rig, 100)
    order_id = (await rig.create("bid", "0.4000", "5.00", subaccount=one)).json["order_id"]
    path = f"/portfolio/events/orders/{order_id}"
    assert (await rig.call("DELETE", f"{path}?market_ticker={TOR}")).status == 404
    change = {"ticker": TOR, "side": "bid", "price": "0.3900", "count": "5"}
    assert (await rig.call("POST", f"{path}/amend?subaccount={one}", change)).status == 200
    assert (await rig.call("POST", f"{path}/decrease?subaccount={one}", {"reduce_by": "1"})).status == 200
    assert (await rig.call("GET", f"/portfolio/orders/{order_id}")).json["order"]["subaccount_number"] == one
    await rig.create("bid", "0.2000", "1.00")
    await trio.sleep(5)
    assert (await rig.call("DELETE", "/portfolio/events/orders?subaccount=0")).status == 204
    resting = (await rig.call("GET", "/portfolio/orders?status=resting")).json["orders"]
    assert [o["order_id"] for o in resting] == [order_id]
    await trio.sleep(5)
    assert (await rig.call("DELETE", "/portfolio/events/orders")).status == 204
    assert (await rig.call("GET", "/portfolio/orders?status=resting")).json["orders"] == []


async def test_pages_run_over_all_accounts_without_losing_or_repeating(rig, autojump_clock):
    """Orders of three accounts, two at a time, newest first."""
    numbers = [0, await subaccount(rig, 100), await subaccount(rig, 0)]
    await move(rig, 0, numbers[2], 5_000, number=7)
    made = []
    for i in range(9):
        reply = await rig.create("bid", "0.1000", "1.00", subaccount=numbers[i % 3])
        made.append(reply.json["order_id"])
    seen, cursor = [], ""
    while True:
        page = (await rig.call("GET", f"/portfolio/orders?limit=2&cursor={cursor}")).json
        seen += [order["order_id"] for order in page["orders"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert seen == made[::-1]


async def test_private_frames_name_the_subaccount(rig, autojump_clock):
    """Fills, orders, positions and own deltas of every account reach the member's socket."""
    one = await subaccount(rig, 100)
    socket = await rig.socket()
    channels = ["fill", "user_orders", "market_positions", "orderbook_delta", "order_group_updates"]
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": channels, "market_ticker": TOR}})
    rig.house("ask", "0.4300", "2.00")
    await rig.create("bid", "0.4300", "5.00", subaccount=one, client_order_id="mine")
    frames = await socket.rest()
    by_type = {frame["type"]: frame["msg"] for frame in frames}
    assert by_type["fill"]["subaccount"] == one
    assert (by_type["user_order"]["user_id"], by_type["user_order"]["subaccount_number"]) == (USER, one)
    assert (by_type["market_position"]["user_id"], by_type["market_position"]["subaccount"]) == (USER, one)
    assert (by_type["orderbook_delta"]["client_order_id"], by_type["orderbook_delta"]["subaccount"]) == (
        "mine",
        one,
    )


async def test_a_key_bound_to_a_subaccount_sees_and_trades_there_only(rig, autojump_clock):
    """Its default is that account; another one is refused; its sockets are filtered."""
    one = await subaccount(rig, 100)
    rig.server.add_key("bound", USER, rig.private_key.public_key(), subaccount=one)
    main_id, rig.key_id = rig.key_id, "bound"
    socket = await rig.socket()
    await socket.ask("subscribe", {"channels": ["user_orders"]})
    made = await rig.create("bid", "0.1000", "1.00")
    assert made.status == 201
    assert (await rig.create("bid", "0.1000", "1.00", subaccount=0)).status == 403
    assert (await rig.call("GET", "/portfolio/balance?subaccount=0")).status == 403
    rig.key_id = main_id
    await rig.create("bid", "0.2000", "1.00")
    frames = await socket.rest()
    assert [frame["msg"]["subaccount_number"] for frame in frames] == [one]
    orders = (await rig.call("GET", "/portfolio/orders")).json["orders"]
    assert [order["subaccount_number"] for order in orders] == [0, one]


async def test_a_key_may_do_what_its_scopes_say(rig, autojump_clock):
    """A reading key places nothing; a trading key reads nothing."""
    for name, scopes in (("reader", ("read",)), ("trader", ("write::trade",))):
        rig.server.add_key(name, USER, rig.private_key.public_key(), scopes=scopes)
    rig.key_id = "reader"
    assert (await rig.call("GET", "/portfolio/balance")).status == 200
    assert (await rig.create("bid", "0.1000", "1.00")).status == 403
    rig.key_id = "trader"
    assert (await rig.call("GET", "/portfolio/balance")).status == 403
    assert (await rig.create("bid", "0.1000", "1.00")).status == 201
    assert (await move(rig, 0, 1, 5)).status == 403


async def test_a_generated_key_signs_and_a_deleted_one_does_not(rig, autojump_clock):
    """The private half is in the answer; after the delete the key is not found."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    for kind in ("rsa", "ed25519"):
        made = (await rig.call("POST", "/api_keys/generate", {"name": "n", "key_type": kind})).json
        key = load_pem_private_key(made["private_key"].encode(), None)
        path = "/trade-api/v2/portfolio/balance"

        def signed(key=key, made=made, path=path):
            return rig.signed("GET", path, key=key, key_id=made["api_key_id"])

        assert (await rig.call("GET", "/portfolio/balance", headers=signed())).status == 200
        assert (await rig.call("DELETE", f"/api_keys/{made['api_key_id']}")).status == 204
        gone = await rig.call("GET", "/portfolio/balance", headers=signed())
        assert gone.json["error"]["details"] == "NOT_FOUND"


# --- money ---


async def test_a_transfer_moves_once_and_only_what_is_there(rig, autojump_clock):
    """The same id again moves nothing; more than there is is refused and moves nothing."""
    one = await subaccount(rig, 0)
    for _ in range(2):
        assert (await move(rig, 0, one, 1_234, number=5)).status == 200
    assert await balance(rig, f"?subaccount={one}") == "12.3400"
    too_much = await move(rig, one, 0, 999_999, number=6)
    assert (too_much.status, too_much.json["error"]["code"]) == (400, "insufficient_balance")
    assert await balance(rig, f"?subaccount={one}") == "12.3400"
    assert (await move(rig, one, one, 5, number=8)).status == 400
    assert (
        await rig.call("POST", "/portfolio/subaccounts/transfer", {"client_transfer_id": "x"})
    ).status == 400


async def test_money_moves_between_shards_and_pays_there(rig, autojump_clock):
    """Centicents; the other shard's orders are paid from the other shard's balance."""
    body = {
        "source": "event_contract",
        "destination": "event_contract",
        "amount": 4_990_000,
        "source_exchange_shard": 3,
        "destination_exchange_shard": 0,
    }
    assert (await rig.call("POST", "/portfolio/intra_exchange_instance_transfer", body)).status == 200
    assert await balance(rig, "?exchange_index=3") == "1.0000"
    assert await balance(rig, "?exchange_index=0") == "10499.0000"
    refused = await rig.create("bid", "0.5000", "10.00", MLB, exchange_index=3)
    assert refused.json["error"]["code"] == "insufficient_balance"
    bad = body | {"destination": "margined"}
    assert (await rig.call("POST", "/portfolio/intra_exchange_instance_transfer", bad)).status == 403
    bad = body | {"destination_exchange_shard": 55}
    assert (await rig.call("POST", "/portfolio/intra_exchange_instance_transfer", bad)).status == 400


async def test_an_allocation_spreads_what_is_available(rig, autojump_clock):
    """Percents of the whole; nothing appears or vanishes."""
    share = [{"exchange_index": 0, "percent": 33}, {"exchange_index": 3, "percent": 67}]
    path = "/portfolio/target_balance_allocation"
    assert (await rig.call("POST", path, {"allocations": share})).status == 200
    assert (await balance(rig, "?exchange_index=0"), await balance(rig)) == ("3465.0000", "10500.0000")
    assert (await rig.call("POST", path, {"allocations": share[:1]})).status == 400


async def test_netting_can_be_turned_off_while_it_is_affordable(rig, autojump_clock):
    """Two NO positions of one game: netted they lock one dollar a pair, apart two."""
    rig.house("bid", "0.5000", "100.00", TOR)
    rig.house("bid", "0.5000", "100.00", BOS)
    for ticker in (TOR, BOS):
        await rig.create("ask", "0.5000", "100.00", ticker, time_in_force="immediate_or_cancel")
    before = float(await balance(rig, "?exchange_index=0"))
    switch = {"subaccount_number": 0, "enabled": False}
    assert (await rig.call("PUT", "/portfolio/subaccounts/netting", switch)).status == 200
    assert before - float(await balance(rig, "?exchange_index=0")) == 100.0
    assert (await rig.call("PUT", "/portfolio/subaccounts/netting", switch | {"enabled": True})).status == 200
    assert float(await balance(rig, "?exchange_index=0")) == before
    rig.server.core.deposit(rig.clock(), USER, 0, -parse_money(f"{before - 50:.4f}"))
    refused = await rig.call("PUT", "/portfolio/subaccounts/netting", switch)
    assert refused.json["error"]["code"] == "insufficient_balance"
    assert await balance(rig, "?exchange_index=0") == "50.0000"


async def test_balance_reads_lag_like_the_others(rig, autojump_clock):
    """With a lag, a balance is what it was; after it, what it is."""
    await rig.control("POST", "faults", {"spec": "lag,ms=400"})
    await rig.create("bid", "0.5000", "100.00")
    assert await balance(rig, "?exchange_index=0") == "10000.0000"
    await trio.sleep(0.5)
    assert float(await balance(rig, "?exchange_index=0")) < 9_951
    stamp = (await rig.call("GET", "/exchange/user_data_timestamp")).json["as_of_time"]
    assert parse_time(stamp) == rig.clock() - 400_000


# --- what is announced, what is old ---


async def test_announced_fees_are_listed_come_true_and_are_told(rig, autojump_clock):
    """As with baseball games: the series pays half, the event the whole from the first pitch on."""
    socket = await rig.socket()
    await socket.ask("subscribe", {"channels": ["market_lifecycle_v2"]})
    half = {"series_ticker": "KXNHLGAME", "fee_type": "quadratic_with_maker_fees", "fee_multiplier": 0.5}
    await rig.control("POST", "fees", half)
    whole = {"event_ticker": EVENT, "fee_type": "quadratic_with_maker_fees", "fee_multiplier": 1}
    await rig.control("POST", "fees", {**whole, "in_ms": 60_000})
    assert (await rig.call("GET", "/series/fee_changes")).json["series_fee_change_arr"] == []
    past = (await rig.call("GET", "/series/fee_changes?show_historical=true")).json["series_fee_change_arr"]
    assert [change["fee_multiplier"] for change in past] == [0.5]
    listed = (await rig.call("GET", f"/events/fee_changes?event_ticker={EVENT}")).json["event_fee_changes"]
    assert [change["fee_multiplier_override"] for change in listed] == [1]
    rig.house("ask", "0.5000", "200.00")
    await rig.create("bid", "0.5000", "100.00")
    await trio.sleep(61)
    await rig.create("bid", "0.5000", "100.00")
    fees = [fill["fee_cost"] for fill in (await rig.call("GET", "/portfolio/fills")).json["fills"]]
    assert fees == ["1.750000", "0.875000"]
    told = [frame["msg"] for frame in await socket.rest() if frame["type"] == "event_fee_update"]
    expected = {"fee_type_override": "quadratic_with_maker_fees", "fee_multiplier_override": 1}
    assert told == [{"event_ticker": EVENT, **expected}]
    series = (await rig.call("GET", "/series/KXNHLGAME")).json["series"]
    assert series["fee_multiplier"] == 0.5


async def test_maintenance_pauses_every_shard_and_ends(rig, autojump_clock):
    """Announced in the schedule, told in the status; flagged orders go, others stay, cancels work."""
    flagged = (await rig.create("bid", "0.1000", "1.00", cancel_order_on_pause=True)).json["order_id"]
    kept = (await rig.create("bid", "0.1000", "1.00")).json["order_id"]
    await rig.control("POST", "maintenance", {"in_ms": 1_000, "for_ms": 5_000})
    await trio.sleep(2)
    for ticker in (TOR, MLB):
        refused = await rig.create("bid", "0.1000", "1.00", ticker)
        assert refused.json["error"]["code"] == "trading_is_paused"
    resting = (await rig.call("GET", "/portfolio/orders?status=resting")).json["orders"]
    assert [order["order_id"] for order in resting] == [kept]
    assert (await rig.call("GET", f"/portfolio/orders/{flagged}")).json["order"]["status"] == "canceled"
    assert (await rig.call("DELETE", f"/portfolio/events/orders/{kept}")).status == 200
    await trio.sleep(5)
    assert (await rig.create("bid", "0.1000", "1.00")).status == 201
    assert "exchange_estimated_resume_time" not in (await rig.call("GET", "/exchange/status")).json


async def test_what_is_old_is_found_in_the_archive_and_only_there(rig, autojump_clock):
    """Settled markets, done orders, fills, positions; what rests stays live however old."""
    rig.house("ask", "0.4300", "5.00")
    await rig.create("bid", "0.4300", "5.00", client_order_id="done")
    await rig.create("bid", "0.1000", "5.00", BOS, client_order_id="rests")
    await rig.control("POST", "determine", {"ticker": TOR, "value": "1.0000"})
    await trio.sleep(100)
    await rig.control("POST", "archive", {"after_ms": 20_000})
    live = (await rig.call("GET", "/portfolio/orders")).json["orders"]
    old = (await rig.call("GET", "/historical/orders")).json["orders"]
    assert ([o["client_order_id"] for o in live], [o["client_order_id"] for o in old]) == (
        ["rests"],
        ["done"],
    )
    listed = (await rig.call("GET", "/markets?status=settled")).json["markets"]
    archived = (await rig.call("GET", "/historical/markets")).json["markets"]
    assert (listed, [m["ticker"] for m in archived]) == ([], [TOR])
    assert (await rig.call("GET", f"/historical/markets/{BOS}")).status == 404
    assert len((await rig.call("GET", "/historical/fills")).json["fills"]) == 1
    assert len((await rig.call("GET", "/historical/trades")).json["trades"]) == 1
    assert (await rig.call("GET", "/markets/trades")).json["trades"] == []
    positions = (await rig.call("GET", "/historical/positions")).json["market_positions"]
    assert [p["ticker"] for p in positions] == [TOR]
    await rig.control("POST", "archive", {})
    assert len((await rig.call("GET", "/portfolio/fills")).json["fills"]) == 1


async def test_the_tier_can_be_upgraded_once_an_order_was_placed(basic_rig, autojump_clock):
    """403 before; then Advanced, with its buckets, for ever."""
    rig, path = basic_rig, "/account/api_usage_level/upgrade"
    assert (await rig.call("POST", path)).status == 403
    await trio.sleep(2)
    await rig.create("bid", "0.1000", "1.00")
    assert (await rig.call("POST", path)).status == 201
    limits = (await rig.call("GET", "/account/limits")).json
    assert (limits["usage_tier"], limits["write"]["bucket_capacity"]) == ("advanced", 600)
    assert [grant["source"] for grant in limits["grants"]] == ["self_serve"]
    await trio.sleep(10)
    statuses = [(await rig.create("bid", "0.1000", "1.00")).status for _ in range(40)]
    assert set(statuses) == {201}


async def test_keys_end_with_their_attestation(rig, autojump_clock):
    """The moment is in the list of keys, a year away unless told otherwise."""
    found = (await rig.call("GET", "/api_keys")).json
    assert found["api_key_region_expiration_ts"] > rig.clock() // SECOND + 300 * 86_400
    await rig.control("POST", "region", {"expires_in_ms": 60_000})
    found = (await rig.call("GET", "/api_keys")).json
    assert found["api_key_region_expiration_ts"] == rig.clock() // SECOND + 60


async def test_the_operator_is_told_what_cannot_be(rig, autojump_clock):
    """A market in the wrong state, an unknown structure or event: 400, and the exchange lives on."""
    for name, body in (
        ("resume", {"ticker": TOR}),
        ("dispute", {"ticker": TOR}),
        ("grid", {"ticker": TOR, "structure": "none"}),
        ("fees", {"event_ticker": "none", "fee_type": "quadratic"}),
        ("fees", {"series_ticker": "KXNHLGAME"}),
        ("maintenance", {"in_ms": 0}),
        ("deposit", {"amount": "-99999999"}),
    ):
        reply = await rig.control("POST", name, body)
        assert reply.status == 400, (name, reply)
    assert (await rig.call("GET", "/exchange/status")).status == 200

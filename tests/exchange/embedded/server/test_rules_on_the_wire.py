"""Rules seen through the wire: shards and their routing, netting of exclusive events, self-trade, grids, fee flips."""

import pytest
import trio

from mm.domain.numbers import parse_money
from mm.exchange.embedded.core.model import EventSpec, MarketSpec
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT, MLB = "KXNHLGAME-26DEC01TORBOS", "KXMLBGAME-26DEC011840COLCIN-COL"
ORDERS, GROUPS = "/portfolio/events/orders", "/portfolio/order_groups"


async def balance(rig, shard=0):
    """What may be spent on a shard, in dollars."""
    return float(
        (await rig.call("GET", f"/portfolio/balance?exchange_index={shard}")).json["balance_dollars"]
    )


# --- shards ---


async def test_a_slate_is_spread_over_shards(nursery, open_rig, autojump_clock):
    """Games go to the shards in turn; the status lists them; each pays from its own cash and its own bucket."""
    slate = GeneratedSlate(seed=3, speed=10.0, size=SlateSize(games=8), shards=4, most_events=20.0)
    rig = await open_rig(nursery, tier="basic", games=slate)
    await nursery.start(slate.run, rig.server.driver)
    markets = (await rig.call("GET", "/markets?status=open&series_ticker=KXNHLGAME&limit=100")).json[
        "markets"
    ]
    by_shard = {}
    for market in markets:
        by_shard.setdefault(market["exchange_index"], []).append(market["ticker"])
    assert {shard: len(tickers) for shard, tickers in by_shard.items()} == {0: 6, 1: 4, 2: 4, 3: 4}
    events = (await rig.call("GET", "/events?series_ticker=KXNHLGAME")).json["events"]
    assert {event["exchange_index"] for event in events} == {0, 1, 2, 3}
    status = (await rig.call("GET", "/exchange/status")).json["exchange_index_statuses"]
    assert [shard["exchange_index"] for shard in status] == [0, 1, 2, 3]
    poor = await rig.create("bid", "0.0100", "1.00", by_shard[1][0], exchange_index=1)
    assert poor.status == 400
    assert poor.json["error"]["code"].startswith("user_not_found")
    rig.server.core.deposit(rig.clock(), rig.server.auth.keys["key"].user_id, 1, parse_money("50"))
    await trio.sleep(5)
    codes = [
        (await rig.create("bid", "0.0100", "1.00", by_shard[1][0], exchange_index=1)).status
        for _ in range(12)
    ]
    assert codes == [201] * 10 + [429] * 2
    assert (await rig.create("bid", "0.0100", "1.00", by_shard[0][0], exchange_index=0)).status == 201
    assert await balance(rig, 1) == pytest.approx(49.9, abs=0.05)


@pytest.mark.parametrize(
    "index, status, code",
    [
        (0, 404, "market_not_found"),
        (7, 404, "market_not_found"),
        (3, 201, None),
        (-1, 201, None),
        (None, 201, None),
    ],
)
async def test_a_create_goes_to_the_shard_it_names(rig, index, status, code, autojump_clock):
    """The market's own, or routed; any other is told that there is no such market."""
    more = {} if index is None else {"exchange_index": index}
    reply = await rig.create("bid", "0.1000", "1.00", MLB, **more)
    assert reply.status == status
    if code:
        assert reply.json["error"]["code"] == code


@pytest.mark.parametrize("verb", ["amend", "decrease"])
async def test_changes_on_the_wrong_shard_find_nothing(rig, verb, autojump_clock):
    """404, as for an order that is gone; on its own shard it is changed."""
    order_id = (await rig.create("bid", "0.1000", "5.00", MLB)).json["order_id"]
    body = (
        {"reduce_by": "1"}
        if verb == "decrease"
        else {"ticker": MLB, "side": "bid", "price": "0.11", "count": "5"}
    )
    path = f"{ORDERS}/{order_id}/{verb}"
    assert (await rig.call("POST", path, body | {"exchange_index": 0})).status == 404
    assert (await rig.call("POST", path, body | {"exchange_index": 3})).status == 200


async def test_batches_route_item_by_item(rig, autojump_clock):
    """One item's wrong shard is its own error; without shard and ticker a cancel looks on shard 0."""
    good = {
        "side": "bid",
        "count": "1.00",
        "price": "0.1000",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
    }
    items = [
        good | {"ticker": TOR, "exchange_index": 0},
        good | {"ticker": MLB, "exchange_index": 0},
        good | {"ticker": MLB, "exchange_index": 3},
        good | {"ticker": MLB},
    ]
    made = (await rig.call("POST", f"{ORDERS}/batched", {"orders": items})).json["orders"]
    codes = [item.get("error", {}).get("code") for item in made]
    assert codes == [None, "market_not_found", None, None]
    ids = [item["order_id"] for item in made if "order_id" in item]
    gone = [{"order_id": ids[0]}, {"order_id": ids[1]}, {"order_id": ids[2], "market_ticker": MLB}]
    done = (await rig.call("DELETE", f"{ORDERS}/batched", {"orders": gone})).json["orders"]
    assert [item["reduced_by"] for item in done] == ["1.00", "0.00", "1.00"]


async def test_groups_live_on_one_shard(rig, autojump_clock):
    """Orders of another shard are refused; writes with another shard's number find no group."""
    made = await rig.call("POST", f"{GROUPS}/create", {"contracts_limit": 5, "exchange_index": 3})
    group_id = made.json["order_group_id"]
    wrong = await rig.create("bid", "0.1000", "1.00", TOR, order_group_id=group_id)
    assert (wrong.status, wrong.json["error"]["code"]) == (404, "not_found")
    right = await rig.create("bid", "0.1000", "1.00", MLB, order_group_id=group_id)
    assert right.status == 201
    assert (await rig.call("PUT", f"{GROUPS}/{group_id}/trigger?exchange_index=0")).status == 404
    assert (await rig.call("PUT", f"{GROUPS}/{group_id}/trigger?exchange_index=3")).status == 200
    assert (await rig.call("GET", f"/portfolio/orders/{right.json['order_id']}")).json["order"][
        "status"
    ] == "canceled"


async def test_listings_can_be_narrowed_to_a_shard(rig, autojump_clock):
    """Orders, fills, positions."""
    for ticker in (TOR, MLB):
        rig.house("ask", "0.4300", "5.00", ticker)
        await rig.create("bid", "0.4300", "1.00", ticker)
    for listing, key in (("orders", "orders"), ("fills", "fills"), ("positions", "market_positions")):
        for shard, ticker in ((0, TOR), (3, MLB)):
            rows = (await rig.call("GET", f"/portfolio/{listing}?exchange_index={shard}")).json[key]
            assert [(row["ticker"], row["exchange_index"]) for row in rows] == [(ticker, shard)]


# --- netting of mutually exclusive markets ---


def list_field(rig, *names):
    """An exclusive event with as many markets as names, all bid at 50 cents by the house."""
    core, now = rig.server.core, rig.clock()
    event = "KXNHLGAME-26DEC02FIELD"
    core.add_event(now, EventSpec(ticker=event, series_ticker="KXNHLGAME", is_mutually_exclusive=True))
    core.set_series_fees(
        now, "KXNHLGAME", core.series()["KXNHLGAME"].fee_type, core.series()["KXNHLGAME"].fee_multiplier * 0
    )
    tickers = [f"{event}-{name}" for name in names]
    for ticker in tickers:
        core.add_market(
            now, MarketSpec(ticker=ticker, event_ticker=event, open_time=now, close_time=now + 10**12)
        )
        rig.house("bid", "0.5000", "1000.00", ticker)
    return tickers


@pytest.mark.parametrize(
    "counts, locked",
    [
        ([100], 100),
        ([100, 100], 100),
        ([100, 40], 100),
        ([40, 100], 100),
        ([100, 100, 100], 100),
        ([10, 20, 30], 30),
    ],
)
async def test_no_holdings_lock_only_the_largest(rig, counts, locked, autojump_clock):
    """NO on k exclusive markets can lose at most one of them: 1 dollar a contract of the largest, the rest is returned.

    Each sale brings 50 cents in; without netting every contract would lock its dollar.
    """
    tickers = list_field(rig, "A", "B", "C")
    before = await balance(rig)
    for ticker, count in zip(tickers, counts, strict=False):
        await rig.create("ask", "0.5000", str(count), ticker, time_in_force="immediate_or_cancel")
    assert before - await balance(rig) == pytest.approx(locked - sum(counts) * 0.5)


@pytest.mark.parametrize("winner", ["A", "B", None])
async def test_what_was_returned_is_never_asked_for_again(rig, winner, autojump_clock):
    """Whoever wins (or nobody), settlement pays k - 1 or k dollars a set, and the cash is what was won."""
    tickers = list_field(rig, "A", "B")
    before = await balance(rig)
    for ticker in tickers:
        await rig.create("ask", "0.5000", "100", ticker, time_in_force="immediate_or_cancel")
    assert await balance(rig) == pytest.approx(before)
    for ticker in tickers:
        value = "1.0000" if ticker.endswith(f"-{winner}") else "0.0000"
        await rig.control("POST", "determine", {"ticker": ticker, "value": value})
    await trio.sleep(100)
    won = 0 if winner else 100
    assert await balance(rig) == pytest.approx(before + won)
    rows = (await rig.call("GET", "/portfolio/settlements")).json["settlements"]
    assert sum(row["revenue"] for row in rows) == (10_000 if winner else 20_000)


async def test_yes_of_one_and_no_of_the_other_are_two_positions(rig, autojump_clock):
    """Equal in worth, but the books and the positions stay apart, and YES is paid in full."""
    one, other = list_field(rig, "A", "B")
    rig.house("ask", "0.5100", "1000.00", one)
    before = await balance(rig)
    await rig.create("bid", "0.5100", "100", one, time_in_force="immediate_or_cancel")
    await rig.create("ask", "0.5000", "100", other, time_in_force="immediate_or_cancel")
    assert before - await balance(rig) == pytest.approx(51 + 50)
    rows = (await rig.call("GET", "/portfolio/positions")).json["market_positions"]
    assert [row["position_fp"] for row in rows] == ["100.00", "-100.00"]


# --- self-trade prevention, maker ---


async def test_maker_prevention_on_the_wire(rig, autojump_clock):
    """The own resting order goes (`SelfTradeCancel`), the incoming one trades on with others and rests."""
    socket = await rig.socket()
    params = {"channels": ["user_orders", "orderbook_delta", "trade"], "market_ticker": TOR}
    await socket.send({"id": 1, "cmd": "subscribe", "params": params})
    mine = (await rig.create("ask", "0.4200", "5.00", client_order_id="mine")).json["order_id"]
    rig.house("ask", "0.4300", "3.00")
    await socket.rest()
    maker = {"self_trade_prevention_type": "maker"}
    reply = (await rig.create("bid", "0.4400", "10.00", client_order_id="in", **maker)).json
    assert (reply["fill_count"], reply["remaining_count"]) == ("3.00", "7.00")
    frames = await socket.rest()
    updates = [
        (f["msg"]["client_order_id"], f["msg"]["status"], f["msg"].get("last_update_reason"))
        for f in frames
        if f["type"] == "user_order"
    ]
    assert ("mine", "canceled", "SelfTradeCancel") in updates
    assert updates[-1] == ("in", "resting", "Trade")
    deltas = [(f["msg"]["side"], f["msg"]["delta_fp"]) for f in frames if f["type"] == "orderbook_delta"]
    assert deltas == [("no", "-5.00"), ("no", "-3.00"), ("yes", "7.00")]
    assert (await rig.call("GET", f"/portfolio/orders/{mine}")).json["order"]["status"] == "canceled"


# --- grids ---


async def test_a_grid_changes_while_the_market_is_open(rig, autojump_clock):
    """Announced with its bands; what rests stays and may be cancelled; new prices follow the new grid."""
    socket = await rig.socket()
    await socket.ask("subscribe", {"channels": ["market_lifecycle_v2"]})
    assert (await rig.create("bid", "0.3950", "1.00")).json["error"]["code"] == "invalid_price"
    await rig.control("POST", "grid", {"ticker": TOR, "structure": "center_half_edge_deci_cent"})
    told = (await socket.next("market_lifecycle_v2"))["msg"]
    bands = [
        {"start": "0.0000", "end": "0.1000", "step": "0.0010"},
        {"start": "0.1000", "end": "0.9000", "step": "0.0050"},
        {"start": "0.9000", "end": "1.0000", "step": "0.0010"},
    ]
    structure = "center_half_edge_deci_cent"
    assert told == {
        "market_ticker": TOR,
        "event_type": "price_level_structure_updated",
        "price_level_structure": structure,
        "price_ranges": bands,
    }
    market = (await rig.call("GET", f"/markets/{TOR}")).json["market"]
    assert (market["price_level_structure"], market["price_ranges"]) == (structure, bands)
    fine = (await rig.create("bid", "0.3950", "1.00", client_order_id="fine")).json["order_id"]
    for price, status in (("0.0990", 201), ("0.9010", 201), ("0.3960", 400), ("0.0995", 400)):
        reply = await rig.create("ask" if price > "0.5" else "bid", price, "1.00")
        assert reply.status == status, price
    await rig.control("POST", "grid", {"ticker": TOR, "structure": "linear_cent"})
    resting = (await rig.call("GET", f"/portfolio/orders/{fine}")).json["order"]
    assert (resting["status"], resting["yes_price_dollars"]) == ("resting", "0.3950")
    path = f"{ORDERS}/{fine}"
    smaller = {"ticker": TOR, "side": "bid", "price": "0.3950", "count": "0.50"}
    assert (await rig.call("POST", f"{path}/amend", smaller)).status == 200, "its own price stays good"
    moved = await rig.call("POST", f"{path}/amend", smaller | {"price": "0.3850"})
    assert moved.json["error"]["code"] == "invalid_price"
    assert (await rig.call("DELETE", f"{path}?market_ticker={TOR}")).status == 200


# --- fees that flip with the game ---


async def test_a_slate_flips_its_fees_at_puck_drop(nursery, open_rig, autojump_clock):
    """Half before, the whole from the start on: in the lists before it happens, in the frames when it does."""
    slate = GeneratedSlate(seed=3, speed=10.0, size=SlateSize(games=4), has_fee_flips=True, most_events=20.0)
    rig = await open_rig(nursery, games=slate, tier="prestige")
    core = rig.server.core
    half = core.series()["KXNHLGAME"]
    core.set_series_fees(rig.clock(), "KXNHLGAME", half.fee_type, half.fee_multiplier / 2)
    socket = await rig.socket()
    await socket.ask("subscribe", {"channels": ["market_lifecycle_v2"]})
    await nursery.start(slate.run, rig.server.driver)
    changes = (await rig.call("GET", "/events/fee_changes")).json["event_fee_changes"]
    assert len(changes) == 4
    now = (await rig.call("GET", "/exchange/user_data_timestamp")).json["as_of_time"]
    ahead = [change for change in changes if change["scheduled_ts"] > now]
    assert 1 <= len(ahead) < 4, "some games are on, some are to come"
    ticker = ahead[0]["event_ticker"]
    before = (await rig.call("GET", f"/events/{ticker}")).json["event"]
    assert "fee_multiplier_override" not in before
    await socket.rest()
    for _ in range(2):
        await trio.sleep(80)
        await rig.call("GET", "/exchange/status")
    assert (await rig.call("GET", f"/events/{ticker}")).json["event"]["fee_multiplier_override"] == 1
    told = [frame["msg"] for frame in await socket.rest() if frame["type"] == "event_fee_update"]
    assert ticker in [message["event_ticker"] for message in told]

"""The rest of the faults, each seen on the wire: late creates, cut bodies, cursors that lead astray, frames out of order
or twice, sockets that are half open or slow, a clock that is off, a shard that is gone. See docs/exchange.md.
"""

import h11
import orjson
import pytest
import trio
from wsproto.events import Ping

from mm.exchange.embedded.server.server import GARBAGE, SocketQuota

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
MLB = "KXMLBGAME-26DEC011840COLCIN-COL"
ORDERS = "/portfolio/events/orders"


async def add(rig, spec):
    """Add rules by their text, as `--faults` does."""
    reply = await rig.control("POST", "faults", {"spec": spec})
    assert reply.status == 200, reply


async def resting(rig):
    """The client ids that rest, by the back door."""
    account = (await rig.control("GET", "account")).json["accounts"][0]
    return [order["client_order_id"] for order in account["resting"]]


def hang_up(rig):
    """The kept connection is gone; the next call makes a new one."""
    rig._client = None


async def subscribed(rig, channels, **params):
    """A socket with subscriptions, their replies and snapshots read."""
    socket = await rig.socket()
    await socket.send(
        {"id": 1, "cmd": "subscribe", "params": {"channels": channels, "market_ticker": TOR, **params}}
    )
    await socket.rest()
    return socket


# --- requests ---


async def test_a_fault_strikes_at_the_nth_call_only(rig, autojump_clock):
    """Counted over the requests that it is meant for."""
    await add(rig, "error,match=GET /exchange/status,nth=3,code=504")
    statuses = []
    for _ in range(4):
        statuses.append((await rig.call("GET", "/exchange/status")).status)
        await rig.call("GET", "/portfolio/balance")
    assert statuses == [200, 200, 504, 200]


@pytest.mark.parametrize("seconds", [1, 60])
async def test_a_late_create_rests_long_after_its_answer_was_lost(rig, seconds, autojump_clock):
    """The client sees the end of the connection; the order appears up to a minute later, once."""
    await add(rig, f"late,match=POST {ORDERS},ms={seconds * 1_000},times=1")
    with pytest.raises(EOFError):
        await rig.create(client_order_id="late")
    hang_up(rig)
    assert await resting(rig) == []
    await trio.sleep(seconds - 0.1)
    assert await resting(rig) == []
    await trio.sleep(0.2)
    assert await resting(rig) == ["late"]
    assert (await rig.create(client_order_id="late")).status == 409


async def test_a_late_create_that_was_sent_again_is_placed_once(rig, autojump_clock):
    """The second request wins, the late one finds its id spent. A code answers instead of hanging up."""
    await add(rig, f"late,match=POST {ORDERS},ms=5000,times=1,code=503")
    assert (await rig.create(client_order_id="once")).status == 503
    assert (await rig.create(client_order_id="once")).status == 201
    await trio.sleep(10)
    assert await resting(rig) == ["once"]


async def test_a_late_create_meets_a_triggered_group(rig, autojump_clock):
    """The fence holds: what comes after the trigger is refused."""
    group = (await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit": 50})).json
    await add(rig, f"late,match=POST {ORDERS},ms=3000,times=1,code=503")
    await rig.create(client_order_id="late", order_group_id=group["order_group_id"])
    await rig.call("PUT", f"/portfolio/order_groups/{group['order_group_id']}/trigger")
    await trio.sleep(10)
    assert await resting(rig) == []


async def test_a_late_request_needs_a_signature(rig, autojump_clock):
    """Nothing is executed for whoever is nobody."""
    await add(rig, f"late,match=POST {ORDERS},ms=10")
    with pytest.raises(EOFError):
        await rig.call("POST", ORDERS, {"ticker": TOR}, headers={"KALSHI-ACCESS-KEY": "nobody"})
    await trio.sleep(1)
    assert await resting(rig) == []


async def test_a_body_ends_in_its_middle(rig, autojump_clock):
    """The length promises more than comes; the request was executed."""
    await add(rig, f"truncate,match=POST {ORDERS},times=1")
    with pytest.raises(EOFError):
        await rig.create(client_order_id="half")
    assert rig._client.protocol.their_state is h11.SEND_BODY, "the head came, the body began"
    hang_up(rig)
    assert await resting(rig) == ["half"]


async def test_a_cursor_leads_astray(rig, autojump_clock):
    """Every page claims that there is more, and following gives the first page again: clients must see the loop."""
    for i in range(3):
        await rig.create("bid", "0.1000", "1.00", client_order_id=f"o-{i}")
    await add(rig, "cursor,match=GET /portfolio/orders")
    first = (await rig.call("GET", "/portfolio/orders?limit=2")).json
    again = (await rig.call("GET", f"/portfolio/orders?limit=2&cursor={first['cursor']}")).json
    assert first["cursor"] == again["cursor"] == GARBAGE
    assert first["orders"] == again["orders"]
    assert (await rig.call("GET", "/portfolio/fills")).json["cursor"] == ""


@pytest.mark.parametrize("skew_s, status", [(-15, 200), (-55, 200), (-65, 401), (15, 200), (25, 401)])
async def test_our_clock_is_off(rig, skew_s, status, autojump_clock):
    """Ours ahead: requests look old (20 s are allowed); ours behind: they look early (60 s)."""
    await add(rig, f"skew,ms={skew_s * 1_000}")
    reply = await rig.call("GET", "/portfolio/balance")
    assert reply.status == status
    if status == 401:
        assert reply.json["error"]["code"] == "header_timestamp_expired"
        with pytest.raises(AssertionError, match="status=401"):
            await rig.socket()
    await rig.control("DELETE", "faults")
    assert (await rig.call("GET", "/portfolio/balance")).status == 200


async def test_a_shard_is_gone_and_comes_back(rig, autojump_clock):
    """503 for every write on it, nothing cancelled; the others trade; the status says which."""
    kept = (
        await rig.create("bid", "0.1000", "1.00", MLB, client_order_id="kept", cancel_order_on_pause=True)
    ).json
    await add(rig, "shard_down,index=3")
    path = f"{ORDERS}/{kept['order_id']}?exchange_index=3"
    for reply in (
        await rig.create("bid", "0.1000", "1.00", MLB),
        await rig.create("bid", "0.1000", "1.00", MLB, exchange_index=3),
        await rig.call("DELETE", path),
        await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit": 5, "exchange_index": 3}),
    ):
        assert (reply.status, reply.json["error"]["code"]) == (503, "service_unavailable")
    batch = await rig.call(
        "DELETE", f"{ORDERS}/batched", {"orders": [{"order_id": kept["order_id"], "exchange_index": 3}]}
    )
    assert batch.json["orders"][0]["error"]["code"] == "service_unavailable"
    assert (await rig.create("bid", "0.1000", "1.00", client_order_id="other")).status == 201
    shards = (await rig.call("GET", "/exchange/status")).json["exchange_index_statuses"]
    assert [(s["exchange_index"], s["exchange_active"]) for s in shards] == [(0, True), (3, False)]
    assert sorted(await resting(rig)) == ["kept", "other"]
    await add(rig, "shard_down,index=3,up=1")
    assert (await rig.call("DELETE", path)).status == 200


# --- frames ---


async def test_frames_come_twice_with_one_number(rig, autojump_clock):
    """A sequenced frame repeats its seq; another one is simply there twice."""
    socket = await subscribed(rig, ["orderbook_delta", "user_orders"])
    await add(rig, "duplicate,channel=orderbook_delta,times=1; duplicate,channel=user_orders,times=1")
    await rig.create("bid", "0.1000", "1.00")
    await rig.create("bid", "0.1100", "1.00")
    frames = await socket.rest()
    assert [frame["seq"] for frame in frames if frame["type"] == "orderbook_delta"] == [2, 2, 3]
    orders = [frame["msg"]["order_id"] for frame in frames if frame["type"] == "user_order"]
    assert (len(orders), orders[0]) == (3, orders[1])


async def test_frames_without_numbers_are_lost_in_silence(rig, autojump_clock):
    """By chance and channel; those with numbers leave a gap."""
    socket = await subscribed(rig, ["orderbook_delta", "fill", "user_orders"])
    await add(rig, "lose,channel=fill; lose,channel=orderbook_delta,nth=2")
    rig.house("ask", "0.4300", "5.00")
    await rig.create("bid", "0.4300", "1.00")
    await rig.create("bid", "0.1000", "1.00")
    frames = await socket.rest()
    kinds = [frame["type"] for frame in frames]
    assert "fill" not in kinds
    assert "user_order" in kinds
    assert [frame["seq"] for frame in frames if frame["type"] == "orderbook_delta"] == [2, 4]


async def test_a_number_is_skipped_by_rule(rig, autojump_clock):
    """Nothing is lost, but the client cannot know."""
    socket = await subscribed(rig, ["orderbook_delta"])
    await add(rig, "gap,channel=orderbook_delta,nth=2")
    for price in ("0.1000", "0.1100", "0.1200"):
        await rig.create("bid", price, "1.00")
    assert [frame["seq"] for frame in await socket.rest()] == [2, 4, 5]


async def test_frames_of_different_subscriptions_change_places(rig, autojump_clock):
    """Within one subscription the order and the numbers hold; between them it does not."""
    socket = await subscribed(rig, ["orderbook_delta", "trade", "fill", "user_orders"])
    await add(rig, "shuffle,channel=orderbook_delta,ms=300; shuffle,channel=fill,ms=100")
    rig.house("ask", "0.4300", "50.00")
    for i in range(30):
        await rig.create("bid", "0.4300", "1.00", client_order_id=f"s-{i}")
        await trio.sleep(0.02)
    await rig.call("GET", "/exchange/status")
    await trio.sleep(1)
    frames = await socket.rest()
    by_channel = {}
    for frame in frames:
        by_channel.setdefault(frame["type"], []).append(frame)
    numbers = [frame["seq"] for frame in by_channel["orderbook_delta"]]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(set(numbers)) == 31
    fills = [frame["msg"]["client_order_id"] for frame in by_channel["fill"]]
    assert fills == [f"s-{i}" for i in range(30)]
    told = [
        (frame["type"], frame["msg"].get("ts_ms") or frame["msg"]["last_updated_ts_ms"]) for frame in frames
    ]
    assert [ts for _, ts in told] != sorted(ts for _, ts in told), "somebody overtook somebody"


async def test_replies_keep_their_place_among_frames_that_are_held(rig, autojump_clock):
    """An `ok` takes a number of the stream, and comes when it is its turn."""
    socket = await subscribed(rig, ["orderbook_delta"])
    await add(rig, "shuffle,channel=orderbook_delta,ms=500")
    await rig.create("bid", "0.1000", "1.00")
    params = {"sid": 1, "action": "add_markets", "market_tickers": [BOS]}
    await socket.send({"id": 2, "cmd": "update_subscription", "params": params})
    await trio.sleep(2)
    frames = await socket.rest()
    assert [(frame["type"], frame["seq"]) for frame in frames] == [
        ("orderbook_delta", 2),
        ("ok", 3),
        ("orderbook_snapshot", 4),
    ]


# --- sockets ---


@pytest.mark.parametrize("by", ["rule", "command"])
async def test_a_half_open_socket_neither_speaks_nor_hangs_up(rig, by, autojump_clock):
    """No frame, no pong, no reply, no heartbeat; the connection stays for as long as the client likes."""
    if by == "rule":
        await add(rig, "half_open,ms=2000,times=1")
    socket = await subscribed(rig, ["orderbook_delta"])
    if by == "rule":
        await trio.sleep(2.1)
    else:
        assert (await rig.control("POST", "sockets/half_open")).json["sockets"] == 1
    await socket.stream.send_all(socket.protocol.send(Ping(payload=b"anybody?")))
    await socket.send({"id": 9, "cmd": "list_subscriptions"})
    await rig.create("bid", "0.1000", "1.00")
    with trio.move_on_after(60) as silence:
        await socket.read()
    assert silence.cancelled_caught
    assert socket.pings == []
    assert socket.close is None
    other = await subscribed(rig, ["orderbook_delta"])
    await rig.create("bid", "0.1100", "1.00")
    assert (await other.next())["type"] == "orderbook_delta"


async def test_a_slow_socket_delivers_late_and_then_overflows(nursery, open_rig, slow_limits, autojump_clock):
    """A thousand bytes a second: frames come in order and late, until the queue is full (25). REST is as fast as ever."""
    rig = await open_rig(nursery, tier="prestige", socket_limits=slow_limits)
    socket = await subscribed(rig, ["orderbook_delta"])
    await add(rig, "slow,bps=1000")
    begun = trio.current_time()
    for i in range(40):
        await rig.create("bid", f"0.{10 + i}00", "1.00")
    assert trio.current_time() - begun < 1
    frames = []
    while not frames or frames[-1]["type"] != "error":
        frames.append(await socket.next())
    assert trio.current_time() - begun > 3
    assert frames[-1]["msg"]["code"] == 25
    assert [frame["seq"] for frame in frames] == list(range(2, len(frames) + 2))


@pytest.mark.parametrize("how, code", [("close", 1001), ("drop", None), ("reset", None)])
async def test_sockets_are_cut_by_rule(rig, how, code, autojump_clock):
    """Some time after they were opened, with and without a close frame; the next one is fine."""
    await add(rig, f"cut,how={how},ms=3000,times=1")
    socket = await subscribed(rig, ["trade"])
    begun = trio.current_time()
    with pytest.raises((EOFError, trio.BrokenResourceError)):
        while True:
            await socket.next()
    assert 2 < trio.current_time() - begun < 6
    assert (socket.close.code if socket.close else None) == code
    again = await subscribed(rig, ["trade"])
    await trio.sleep(5)
    assert (await again.ask("list_subscriptions"))["type"] == "ok"


async def test_too_many_commands_and_too_many_sockets_are_refused(nursery, open_rig, autojump_clock):
    """Error 27 within the second, 429 at the handshake; both end by themselves."""
    rig = await open_rig(nursery, quota=SocketQuota(connections=2, commands_a_second=5))
    one, _two = await rig.socket(), await rig.socket()
    with pytest.raises(AssertionError, match="status=429"):
        await rig.socket()
    for _ in range(7):
        await one.send({"id": 1, "cmd": "list_subscriptions"})
    replies = await one.rest()
    assert [reply["type"] for reply in replies] == ["ok"] * 5 + ["error"] * 2
    assert replies[-1]["msg"] == {"code": 27, "msg": "Too many requests"}
    await trio.sleep(1)
    assert (await one.ask("list_subscriptions"))["type"] == "ok"
    await one.stream.aclose()
    await trio.sleep(1)
    await rig.socket()


async def test_faults_of_the_command_line_hold_from_the_start(nursery, open_rig, faults_of, autojump_clock):
    """The same text as at run time: a lag, a shard down, a skew."""
    rig = await open_rig(nursery, faults=faults_of("shard_down,index=0; skew,ms=-5000; lag,ms=100"))
    assert (await rig.create("bid", "0.1000", "1.00")).status == 503
    shown = (await rig.control("GET", "faults")).json
    assert (shown["shards_down"], shown["skew_ms"], shown["lag_ms"]) == ([0], -5000, 100)
    cleared = (await rig.control("DELETE", "faults")).json
    assert (cleared["shards_down"], cleared["skew_ms"], cleared["lag_ms"]) == ([], 0, 0)
    assert (await rig.create("bid", "0.1000", "1.00")).status == 201
    assert orjson.dumps(shown)

"""The WebSocket: handshake, commands, channels, sequence numbers, snapshots, heartbeats, slow readers."""

import orjson
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto.events import BytesMessage, CloseConnection, Ping

from mm.domain.book import OrderBook
from mm.domain.numbers import complement, parse_count, parse_price
from mm.domain.order import Side

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
WS = "/trade-api/ws/v2"
ORDERS = "/portfolio/events/orders"


def bare(frame):
    """A frame without the envelope's clock."""
    return {name: value for name, value in frame.items() if name != "sending_ts_ms"}


async def subscribed(rig, channels, tickers=(TOR,), **params):
    """A socket with one subscription per channel, its replies read."""
    socket = await rig.socket()
    markets = {"market_tickers": list(tickers)} if tickers else {}
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": channels, **markets, **params}})
    for _ in channels:
        assert (await socket.next("subscribed"))["id"] == 1
    return socket


# --- handshake ---


async def test_the_handshake_needs_a_signature(rig, autojump_clock):
    """401 with the body of the REST errors."""
    from_elsewhere = rig.signed("GET", "/trade-api/v2/portfolio/balance")
    for headers, details in (({}, None), (from_elsewhere, "INCORRECT_API_KEY_SIGNATURE")):
        with pytest.raises(AssertionError, match="status=401") as failure:
            await rig.socket(headers=headers)
        if details:
            assert details in str(failure.value)


@pytest.mark.parametrize(
    "change, status",
    [
        ({"Upgrade": "h2c"}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"Sec-WebSocket-Key": "abc"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 426),
    ],
)
async def test_a_request_that_is_no_handshake_is_refused(rig, change, status, autojump_clock):
    """Plain HTTP errors, and 426 for another version."""
    with pytest.raises(AssertionError, match=f"status={status}"):
        await rig.socket(headers={**rig.signed("GET", WS), **change})


# --- commands ---


async def test_several_channels_make_several_subscriptions(rig, autojump_clock):
    """One `subscribed` each, all with the command's id, sids from 1."""
    socket = await rig.socket()
    channels = ["orderbook_delta", "trade", "fill"]
    await socket.send({"id": 9, "cmd": "subscribe", "params": {"channels": channels, "market_ticker": TOR}})
    frames = await socket.rest()
    replies = [bare(frame) for frame in frames if frame["type"] == "subscribed"]
    assert replies == [
        {"type": "subscribed", "id": 9, "msg": {"channel": channel, "sid": i + 1}}
        for i, channel in enumerate(channels)
    ]
    assert all(isinstance(frame["sending_ts_ms"], int) for frame in frames)
    listed = await socket.ask("list_subscriptions", command_id=2)
    assert listed["msg"] == [{"channel": channel, "sid": i + 1} for i, channel in enumerate(channels)]


@pytest.mark.parametrize(
    "text, code",
    [
        ("nonsense", 1),
        ("[]", 1),
        ('{"cmd":"dance"}', 5),
        ("{}", 5),
        ('{"cmd":"subscribe"}', 2),
        ('{"cmd":"subscribe","params":{}}', 3),
        ('{"cmd":"subscribe","params":{"channels":["ticker_v2"]}}', 8),
        ('{"cmd":"subscribe","params":{"channels":[7]}}', 8),
        ('{"cmd":"subscribe","params":{"channels":["orderbook_delta"]}}', 14),
        (
            '{"cmd":"subscribe","params":{"channels":["ticker"],"market_ticker":"A","market_tickers":["B"]}}',
            11,
        ),
        ('{"cmd":"subscribe","params":{"channels":["ticker"],"market_tickers":"A"}}', 11),
        ('{"cmd":"subscribe","params":{"channels":["ticker"],"send_initial_snapshot":"x"}}', 11),
        ('{"cmd":"unsubscribe","params":{}}', 4),
        ('{"cmd":"unsubscribe","params":{"sids":[99]}}', 7),
        ('{"cmd":"update_subscription","params":{}}', 12),
        ('{"cmd":"update_subscription","params":{"sids":[1,2]}}', 12),
        ('{"cmd":"update_subscription","params":{"sid":1,"sids":[1]}}', 12),
        ('{"cmd":"update_subscription","params":{"sid":99,"action":"add_markets"}}', 7),
        ('{"cmd":"update_subscription","params":{"sid":1}}', 15),
        ('{"cmd":"update_subscription","params":{"sid":1,"action":"dance"}}', 13),
        ('{"cmd":"update_subscription","params":{"sid":1,"action":"add_markets"}}', 14),
        (
            '{"cmd":"update_subscription","params":{"sid":2,"action":"get_snapshot","market_tickers":["A"]}}',
            13,
        ),
    ],
)
async def test_bad_commands_get_their_code(rig, text, code, autojump_clock):
    """An error frame each; the connection and its subscriptions go on."""
    socket = await subscribed(rig, ["orderbook_delta", "fill"])
    await socket.rest()
    content = text if not text.startswith("{") or text == "{}" else '{"id":5,' + text[1:]
    await socket.send(content)
    frame = await socket.next()
    assert (frame["type"], frame["msg"]["code"]) == ("error", code)
    assert frame.get("id") == (5 if '"id"' in content else None)
    assert len((await socket.ask("list_subscriptions"))["msg"]) == 2


async def test_ids_of_zero_are_not_echoed(rig, autojump_clock):
    """0 or missing: no id in the reply."""
    socket = await rig.socket()
    for message in ({"cmd": "list_subscriptions", "id": 0}, {"cmd": "list_subscriptions"}):
        await socket.send(message)
        assert "id" not in await socket.next()


# --- the book ---


async def test_a_book_stream_is_a_snapshot_and_deltas_with_one_sequence(rig, autojump_clock):
    """Numbers from 1 over all markets; NO levels in NO price; own deltas carry our id, others don't."""
    rig.house("bid", "0.4000", "50.00")
    rig.house("ask", "0.4300", "20.00")
    socket = await subscribed(rig, ["orderbook_delta"], [TOR, BOS])
    first, second = await socket.next(), await socket.next()
    assert (first["seq"], second["seq"]) == (1, 2)
    assert first["msg"]["yes_dollars_fp"] == [["0.4000", "50.00"]]
    assert first["msg"]["no_dollars_fp"] == [["0.5700", "20.00"]]
    assert set(second["msg"]) == {"market_ticker", "market_id"}, "an empty side's key is absent"
    order_id = (await rig.create(client_order_id="q-1")).json["order_id"]
    rig.house("ask", "0.4300", "5.00", BOS)
    await rig.call("DELETE", f"{ORDERS}/{order_id}")
    own, foreign, gone = await socket.next(), await socket.next(), await socket.next()
    assert [frame["seq"] for frame in (own, foreign, gone)] == [3, 4, 5]
    assert own["msg"] | {"market_id": "", "ts": ""} == {
        "market_ticker": TOR,
        "market_id": "",
        "price_dollars": "0.4000",
        "delta_fp": "10.00",
        "side": "yes",
        "client_order_id": "q-1",
        "subaccount": 0,
        "ts": "",
        "ts_ms": own["msg"]["ts_ms"],
    }
    assert (foreign["msg"]["side"], foreign["msg"]["price_dollars"]) == ("no", "0.5700")
    assert "client_order_id" not in foreign["msg"]
    assert (gone["msg"]["delta_fp"], gone["msg"]["client_order_id"]) == ("-10.00", "q-1")


async def test_use_yes_price_turns_the_no_leg(rig, autojump_clock):
    """Snapshot and deltas of the NO side in YES price."""
    rig.house("ask", "0.4300", "20.00")
    rig.house("ask", "0.4400", "7.00")
    socket = await subscribed(rig, ["orderbook_delta"], use_yes_price=True)
    assert sorted((await socket.next())["msg"]["no_dollars_fp"]) == [["0.4300", "20.00"], ["0.4400", "7.00"]]
    rig.house("ask", "0.4300", "1.00")
    assert (await socket.next())["msg"]["price_dollars"] == "0.4300"


async def test_updates_take_numbers_of_the_stream(rig, autojump_clock):
    """`ok` and `unsubscribed` count; added markets bring snapshots; the full set is listed."""
    socket = await subscribed(rig, ["orderbook_delta"])
    await socket.rest()
    update = {"sid": 1, "action": "add_markets", "market_tickers": [BOS, TOR]}
    ok = await socket.ask("update_subscription", update, command_id=4)
    assert bare(ok) == {"type": "ok", "id": 4, "sid": 1, "seq": 2, "msg": {"market_tickers": [TOR, BOS]}}
    snapshot = await socket.next()
    assert (snapshot["type"], snapshot["seq"], snapshot["msg"]["market_ticker"]) == (
        "orderbook_snapshot",
        3,
        BOS,
    )
    again = {"sids": [1], "action": "get_snapshot", "market_tickers": [TOR]}
    frame = await socket.ask("update_subscription", again, command_id=5)
    assert (frame["type"], frame["id"], frame["sid"], frame["seq"]) == ("orderbook_snapshot", 5, 1, 4)
    less = {"sid": 1, "action": "delete_markets", "market_ticker": TOR}
    ok = await socket.ask("update_subscription", less, command_id=6)
    assert (ok["seq"], ok["msg"]["market_tickers"]) == (5, [BOS])
    rig.house("bid", "0.4000", "1.00", TOR)
    rig.house("bid", "0.4000", "1.00", BOS)
    delta = await socket.next()
    assert (delta["seq"], delta["msg"]["market_ticker"]) == (6, BOS)
    gone = await socket.ask("unsubscribe", {"sids": [1]}, command_id=7)
    assert bare(gone) == {"type": "unsubscribed", "id": 7, "sid": 1, "seq": 7}
    rig.house("bid", "0.4000", "1.00", BOS)
    assert await socket.rest() == []


async def test_unknown_markets_are_passed_over(rig, autojump_clock):
    """Accepted without a snapshot."""
    socket = await subscribed(rig, ["orderbook_delta"], ["KXNONE-1-A", TOR])
    assert [frame["msg"]["market_ticker"] for frame in await socket.rest()] == [TOR]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["bid", "ask"]),
            st.integers(30, 60),
            st.integers(1, 3_000),
            st.booleans(),
        ),
        max_size=30,
    ),
    use_yes_price=st.booleans(),
)
def test_a_folded_stream_is_the_exchange_s_book(virtual_exchange, steps, use_yes_price):
    """Snapshot plus deltas, in integers, equal the book at the end, in either price convention."""

    async def main(rig):
        half = len(steps) // 2
        for side, cents, hundredths, rest in steps[:half]:
            rig.house(side, f"0.{cents}00", f"{hundredths / 100:.2f}", rest=rest)
        socket = await subscribed(rig, ["orderbook_delta"], use_yes_price=use_yes_price)
        for side, cents, hundredths, rest in steps[half:]:
            rig.house(side, f"0.{cents}00", f"{hundredths / 100:.2f}", rest=rest)
        book = OrderBook()
        for i, frame in enumerate(await socket.rest()):
            assert frame["seq"] == i + 1
            fold(book, frame, use_yes_price=use_yes_price)
        state = rig.server.core.markets()[TOR]
        assert book.depth(Side.BID) == state.book.bids.depth()
        assert book.depth(Side.ASK) == state.book.asks.depth()

    virtual_exchange(main)


def fold(book, frame, *, use_yes_price):
    """One frame into a book of ours."""
    msg = frame["msg"]

    def yes(text):
        return parse_price(text) if use_yes_price else complement(parse_price(text))

    if frame["type"] == "orderbook_snapshot":
        bids = [(parse_price(p), parse_count(c)) for p, c in msg.get("yes_dollars_fp", [])]
        asks = [(yes(p), parse_count(c)) for p, c in msg.get("no_dollars_fp", [])]
        book.snapshot(bids, asks)
    elif msg["side"] == "yes":
        book.apply_delta(Side.BID, parse_price(msg["price_dollars"]), parse_count(msg["delta_fp"]))
    else:
        book.apply_delta(Side.ASK, yes(msg["price_dollars"]), parse_count(msg["delta_fp"]))


# --- the other channels ---


async def test_a_trade_reaches_every_channel_it_concerns(rig, autojump_clock):
    """trade, fill, user_order, market_position and ticker, each with or without numbers as documented."""
    channels = ["trade", "fill", "user_orders", "market_positions", "ticker"]
    socket = await subscribed(rig, channels)
    order_id = (await rig.create(client_order_id="q-1")).json["order_id"]
    rig.house("ask", "0.4000", "4.00", rest=False)
    frames = await socket.rest()
    by_type = {}
    for frame in frames:
        by_type.setdefault(frame["type"], []).append(frame)
    assert set(by_type) == {"trade", "fill", "user_order", "market_position", "ticker"}
    assert [frame["seq"] for frame in by_type["trade"]] == [1]
    assert not any("seq" in frame for frame in frames if frame["type"] != "trade")
    trade, fill = by_type["trade"][0]["msg"], by_type["fill"][0]["msg"]
    assert (trade["trade_id"], trade["taker_book_side"], trade["taker_side"]) == (
        fill["trade_id"],
        "ask",
        "no",
    )
    assert (fill["client_order_id"], fill["post_position_fp"], fill["is_taker"]) == ("q-1", "4.00", False)
    resting, traded = (frame["msg"] for frame in by_type["user_order"])
    assert (resting["status"], resting["order_id"]) == ("resting", order_id)
    assert "last_update_reason" not in resting
    assert (traded["last_update_reason"], traded["remaining_count_fp"]) == ("Trade", "6.00")
    assert by_type["market_position"][0]["msg"]["position_fp"] == "4.00"
    assert by_type["ticker"][-1]["msg"]["yes_bid_size_fp"] == "6.00"
    assert by_type["ticker"][-1]["msg"]["last_trade_size_fp"] == "4.00"


async def test_private_channels_are_private(rig, rsa_key, autojump_clock):
    """Another member's socket sees the public side only."""
    rig.server.add_account("other", {0: 1_000_000})
    rig.server.add_key("other-key", "other", rsa_key.public_key())
    headers = rig.signed("GET", WS, key=rsa_key, key_id="other-key")
    socket = await rig.socket(headers=headers)
    channels = ["fill", "user_orders", "orderbook_delta", "order_group_updates", "market_positions"]
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": channels, "market_ticker": TOR}})
    await socket.rest()
    await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit": 5})
    await rig.create(client_order_id="secret")
    rig.house("ask", "0.4000", "4.00", rest=False)
    frames = await socket.rest()
    assert {frame["type"] for frame in frames} == {"orderbook_delta"}
    assert b"secret" not in orjson.dumps(frames)


async def test_an_expired_order_and_a_group_say_why(rig, autojump_clock):
    """ExpiryCancel on user_orders; created and triggered on order_group_updates, with numbers."""
    socket = await subscribed(rig, ["user_orders", "order_group_updates"], ())
    made = await rig.call("POST", "/portfolio/order_groups/create", {"contracts_limit": 5})
    group_id = made.json["order_group_id"]
    await rig.create(expiration_time=rig.clock() // 1_000_000 + 2, order_group_id=group_id)
    await trio.sleep(3)
    await rig.call("PUT", f"/portfolio/order_groups/{group_id}/trigger", {})
    frames = await socket.rest()
    orders = [frame["msg"] for frame in frames if frame["type"] == "user_order"]
    assert (orders[0]["order_group_id"], "expiration_ts_ms" in orders[0]) == (group_id, True)
    assert (orders[1]["status"], orders[1]["last_update_reason"]) == ("canceled", "ExpiryCancel")
    groups = [frame for frame in frames if frame["type"] == "order_group_updates"]
    assert [(frame["seq"], frame["msg"]["event_type"]) for frame in groups] == [
        (1, "created"),
        (2, "triggered"),
    ]
    assert groups[0]["msg"]["contracts_limit_fp"] == "5.00"


async def test_the_life_of_a_market_is_told_to_all(rig, autojump_clock):
    """market_lifecycle_v2 ignores a ticker filter; times in seconds; the settlement value in dollars."""
    socket = await subscribed(rig, ["market_lifecycle_v2"], ["KXNONE-1-A"])
    await rig.control("POST", "pause", {"ticker": TOR})
    await rig.control("POST", "resume", {"ticker": TOR})
    await rig.control("POST", "determine", {"ticker": TOR, "value": "1.0000"})
    await trio.sleep(70)
    frames = await socket.rest()
    told = [(frame["seq"], frame["msg"]["event_type"]) for frame in frames]
    kinds = [kind for _, kind in told]
    assert [seq for seq, _ in told] == list(range(1, len(told) + 1))
    assert kinds[:2] == ["deactivated", "activated"]
    assert kinds[-2:] == ["determined", "settled"]
    determined = frames[-2]["msg"]
    assert (determined["result"], determined["settlement_value"]) == ("yes", "1.0000")
    assert determined["determination_ts"] == pytest.approx(rig.clock() // 1_000_000, abs=100)


async def test_ticker_may_start_with_the_present_state(rig, autojump_clock):
    """`send_initial_snapshot` gives a first frame per market, by ticker or by id."""
    market_id = rig.server.core.markets()[TOR].market_id
    for params in ({"market_tickers": [TOR]}, {"market_ids": [market_id]}):
        socket = await rig.socket()
        params |= {"channels": ["ticker"], "send_initial_snapshot": True}
        await socket.send({"id": 1, "cmd": "subscribe", "params": params})
        assert [f["msg"]["market_ticker"] for f in await socket.rest() if f["type"] == "ticker"] == [TOR]


# --- the connection ---


async def test_the_server_pings_every_ten_seconds(rig, autojump_clock):
    """Payload `heartbeat`; a client's ping is answered."""
    socket = await rig.socket()
    start = trio.current_time()
    while len(socket.pings) < 3:
        await socket.read()
    assert trio.current_time() - start == pytest.approx(30, abs=0.1)
    assert set(socket.pings) == {b"heartbeat"}
    await socket.stream.send_all(socket.protocol.send(Ping(payload=b"mine")))
    assert (await socket.next("pong"))["payload"] == "mine"


async def test_a_close_is_answered(rig, autojump_clock):
    """The closing handshake, then the end of the stream; nothing is left of the session."""
    socket = await subscribed(rig, ["orderbook_delta"])
    await socket.stream.send_all(socket.protocol.send(CloseConnection(code=1000)))
    with trio.fail_after(5):
        while await socket.read():
            pass
    assert socket.close.code == 1000
    await trio.testing.wait_all_tasks_blocked()
    assert not rig.server.hub.sessions


async def test_binary_and_oversized_messages_end_the_connection(rig, autojump_clock):
    """1003 and 1009, with a close frame."""
    for event, code in ((BytesMessage(data=b"x"), 1003), ("x" * 1_100_000, 1009)):
        socket = await rig.socket()
        if isinstance(event, str):
            await socket.send(event)
        else:
            await socket.stream.send_all(socket.protocol.send(event))
        with trio.fail_after(10):
            while await socket.read():
                pass
        assert socket.close.code == code


async def test_a_slow_reader_loses_its_subscription_and_nobody_else_s(slow_rig, autojump_clock):
    """Error 25 with the stream's next number; a fast reader on the same market misses nothing."""
    fast = await subscribed(slow_rig, ["orderbook_delta"])
    slow = await slow_rig.socket(pair=trio.testing.lockstep_stream_pair)
    await slow.send(
        {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_ticker": TOR}}
    )
    await slow.next("orderbook_snapshot")
    for i in range(100):
        slow_rig.house("bid", "0.4000", "1.00")
        if i % 10 == 9:
            await trio.sleep(0.01)
    assert [frame["seq"] for frame in await fast.rest()] == list(range(1, 102))
    frames = await slow.rest()
    last = frames[-1]
    assert (last["type"], last["msg"]["code"], last["sid"]) == ("error", 25, 1)
    assert [frame["seq"] for frame in frames] == list(range(2, len(frames) + 2))
    assert len(frames) < 60
    assert (await slow.ask("list_subscriptions"))["msg"] == []
    again = {"channels": ["orderbook_delta"], "market_ticker": TOR}
    reply = await slow.ask("subscribe", again, command_id=2)
    assert reply["msg"]["sid"] == 2
    assert (await slow.next("orderbook_snapshot"))["msg"]["yes_dollars_fp"] == [["0.4000", "100.00"]]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**60), 2**60)
            | st.text(max_size=10)
            | st.floats(allow_nan=False),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "id",
                            "cmd",
                            "params",
                            "channels",
                            "sids",
                            "sid",
                            "action",
                            "market_tickers",
                            "market_id",
                        ]
                    ),
                    inner
                    | st.sampled_from(
                        [
                            "subscribe",
                            "update_subscription",
                            "unsubscribe",
                            "ticker",
                            "orderbook_delta",
                            "fill",
                            TOR,
                        ]
                    ),
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
    )
)
def test_no_frame_breaks_the_connection_of_others(virtual_exchange, data):
    """Random bytes and random commands: an error, a close or silence, and a second client that goes on."""

    async def main(rig):
        witness = await subscribed(rig, ["orderbook_delta"])
        await witness.rest()
        socket = await rig.socket()
        if isinstance(data, bytes):
            await socket.stream.send_all(data)
        else:
            await socket.send(
                orjson.dumps(data, option=orjson.OPT_PASSTHROUGH_DATACLASS, default=str).decode()
            )
        with trio.move_on_after(1):
            while await socket.read():
                pass
        rig.house("bid", "0.4000", "1.00")
        assert (await witness.next())["msg"]["delta_fp"] == "1.00"

    virtual_exchange(main)

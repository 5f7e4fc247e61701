"""Faults on command: what was executed and what was not, what the client sees, and how it ends."""

from random import Random

import pytest
import trio
import trio.testing

from mm.exchange.embedded.server.faults import Faults

TOR = "KXNHLGAME-26DEC01TORBOS-TOR"
ORDERS = "/portfolio/events/orders"


async def add(rig, spec):
    """Add rules by their text."""
    reply = await rig.control("POST", "faults", {"spec": spec})
    assert reply.status == 200, reply


async def placed(rig):
    """How many orders rest, by the back door."""
    return len((await rig.control("GET", "account")).json["accounts"][0]["resting"])


def hang_up(rig):
    """The kept connection is gone; the next call makes a new one."""
    rig._client = None


@pytest.mark.parametrize("when, resting", [("before", 0), ("after", 1)])
async def test_a_dropped_create_was_executed_or_not(rig, when, resting, autojump_clock):
    """The client sees only the end of the connection; the book tells the difference."""
    await add(rig, f"drop,match=POST {ORDERS},when={when},times=1")
    with pytest.raises(EOFError):
        await rig.create(client_order_id="once")
    hang_up(rig)
    assert await placed(rig) == resting
    again = await rig.create(client_order_id="once")
    assert again.status == (409 if resting else 201)


@pytest.mark.parametrize("when, resting", [("before", 0), ("after", 1)])
async def test_a_503_proves_nothing(rig, when, resting, autojump_clock):
    """The same status, whether it happened or not."""
    await add(rig, f"error,match=POST {ORDERS},when={when},code=503,times=1")
    reply = await rig.create()
    assert (reply.status, reply.json["error"]["code"]) == (503, "service_unavailable")
    assert await placed(rig) == resting


async def test_delays_hold_the_answer_or_the_execution(rig, autojump_clock):
    """After: done at once, told late. Before: done late."""
    await add(rig, f"delay,match=POST {ORDERS},ms=2000,times=1")
    start = trio.current_time()
    reply = await rig.create()
    assert trio.current_time() - start == pytest.approx(2, abs=0.01)
    assert reply.json["ts_ms"] <= rig.clock() // 1_000 - 2_000
    await add(rig, f"delay,match=POST {ORDERS},ms=2000,when=before,times=1")
    reply = await rig.create()
    assert reply.json["ts_ms"] == rig.clock() // 1_000


async def test_a_hanging_request_ends_with_a_hang_up(rig, autojump_clock):
    """No answer for a minute, then the end."""
    await add(rig, "hang,match=GET /portfolio/fills")
    start = trio.current_time()
    with pytest.raises(EOFError):
        await rig.call("GET", "/portfolio/fills")
    assert trio.current_time() - start == pytest.approx(60, abs=1)


async def test_throttled_requests_are_not_executed(rig, autojump_clock):
    """429 with the real body."""
    await add(rig, f"throttle,match=* {ORDERS}*")
    reply = await rig.create()
    assert (reply.status, reply.body) == (429, b'{"error":"too many requests"}')
    assert await placed(rig) == 0


async def test_faults_are_counted_and_cleared(rig, autojump_clock):
    """The list shows how often each struck; DELETE ends them."""
    await add(rig, "error,match=GET /markets,p=1,code=500")
    assert (await rig.call("GET", "/markets")).status == 500
    assert (await rig.call("GET", "/markets/" + TOR)).status == 200
    assert (await rig.control("GET", "faults")).json["rules"][0]["hits"] == 1
    await rig.control("DELETE", "faults")
    assert (await rig.call("GET", "/markets")).status == 200


async def test_reads_lag_writes_when_told_to(rig, autojump_clock):
    """For the lag, a cancelled order reads as resting, a new one and a new fill are not there."""
    order_id = (await rig.create()).json["order_id"]
    await trio.sleep(1)
    await add(rig, "lag,ms=400")
    await rig.call("DELETE", f"{ORDERS}/{order_id}")
    fresh = (await rig.create("bid", "0.4100")).json["order_id"]
    rig.house("ask", "0.4100", "3.00", rest=False)
    one = (await rig.call("GET", f"/portfolio/orders/{order_id}")).json["order"]
    assert (one["status"], one["remaining_count_fp"]) == ("resting", "10.00")
    listed = (await rig.call("GET", "/portfolio/orders?status=resting")).json["orders"]
    assert [order["order_id"] for order in listed] == [order_id]
    assert (await rig.call("GET", f"/portfolio/orders/{fresh}")).status == 404
    assert (await rig.call("GET", "/portfolio/fills")).json["fills"] == []
    assert (await rig.call("GET", "/portfolio/positions")).json["market_positions"] == []
    await trio.sleep(0.5)
    listed = (await rig.call("GET", "/portfolio/orders?status=resting")).json["orders"]
    assert [(o["order_id"], o["remaining_count_fp"]) for o in listed] == [(fresh, "7.00")]
    assert len((await rig.call("GET", "/portfolio/fills")).json["fills"]) == 1
    assert (await rig.call("GET", "/portfolio/positions")).json["market_positions"][0][
        "position_fp"
    ] == "3.00"


# --- sockets ---


async def subscribed(rig, channels=("orderbook_delta",)):
    """A socket with its first frames read."""
    socket = await rig.socket()
    params = {"channels": list(channels), "market_ticker": TOR}
    await socket.send({"id": 1, "cmd": "subscribe", "params": params})
    await socket.rest()
    return socket


@pytest.mark.parametrize("how, code", [("close", 1001), ("drop", None), ("reset", None)])
async def test_sockets_are_cut_with_and_without_a_close_frame(rig, how, code, autojump_clock):
    """The stream ends either way."""
    socket = await subscribed(rig)
    assert (await rig.control("POST", "sockets/cut", {"how": how})).json == {"sockets": 1}
    with trio.fail_after(5):
        while await socket.read():
            pass
    assert (socket.close.code if socket.close else None) == code
    await trio.sleep(3)
    assert (await rig.control("GET", "state")).json["sockets"] == 0


async def test_a_stalled_socket_gets_everything_when_it_resumes(rig, autojump_clock):
    """Open, silent, and nothing lost."""
    socket = await subscribed(rig)
    await rig.control("POST", "sockets/stall")
    rig.house("bid", "0.4000", "1.00")
    assert await socket.rest() == []
    await rig.control("POST", "sockets/resume")
    assert [frame["seq"] for frame in await socket.rest()] == [2]


async def test_a_skipped_number_is_a_gap(rig, autojump_clock):
    """The next frame's number is one too high."""
    socket = await subscribed(rig)
    await rig.control("POST", "skip_seq", {"channel": "orderbook_delta"})
    rig.house("bid", "0.4000", "1.00")
    assert (await socket.next())["seq"] == 3


async def test_frames_of_a_channel_are_lost_on_request(rig, autojump_clock):
    """A lost fill shows in no number; a lost delta does."""
    socket = await subscribed(rig, ("orderbook_delta", "fill"))
    await rig.create()
    await socket.rest()
    for channel in ("fill", "orderbook_delta"):
        await rig.control("POST", "drop_frames", {"channel": channel})
    for _ in range(2):
        rig.house("ask", "0.4000", "1.00", rest=False)
    frames = await socket.rest()
    assert [frame["type"] for frame in frames] == ["orderbook_delta", "fill"]
    assert frames[0]["seq"] == 4


@pytest.mark.parametrize("code", [10, 25])
async def test_a_channel_error_ends_the_subscription(rig, code, autojump_clock):
    """Terminal for the subscription, not for the socket."""
    socket = await subscribed(rig)
    await rig.control("POST", "channel_error", {"channel": "orderbook_delta", "code": code})
    frame = await socket.next("error")
    assert (frame["msg"]["code"], frame["sid"]) == (code, 1)
    assert (await socket.ask("list_subscriptions"))["msg"] == []


async def test_an_outage_cuts_everyone_and_lets_nobody_in(rig, autojump_clock):
    """Connections end; new ones are hung up on until it is over."""
    socket = await subscribed(rig)
    await rig.call("GET", "/markets")
    await rig.control("POST", "outage", {"ms": 3_000})
    with trio.fail_after(2):
        while await socket.read():
            pass
    for _ in range(2):
        hang_up(rig)
        with pytest.raises(EOFError):
            await rig.call("GET", "/markets")
    await trio.sleep(3)
    hang_up(rig)
    assert (await rig.call("GET", "/markets")).status == 200


async def test_latency_delays_frames_and_keeps_their_order(rig, autojump_clock):
    """Every frame is late; none overtakes another."""
    socket = await subscribed(rig)
    await add(rig, "latency,ms=50,jitter=100")
    start = trio.current_time()
    for _ in range(10):
        rig.house("bid", "0.4000", "1.00")
    seen = [(await socket.next())["seq"] for _ in range(10)]
    assert seen == list(range(2, 12))
    assert 0.05 <= trio.current_time() - start <= 0.16


async def test_the_back_door_tells_the_truth_and_takes_no_nonsense(rig, autojump_clock):
    """Book, account, errors; and it is not reachable below the API's prefix."""
    await rig.create()
    book = (await rig.control("GET", f"book/{TOR}")).json
    assert (book["bids"], book["asks"], book["status"]) == ([["0.4000", "10.00"]], [], "active")
    hit = await rig.control("POST", "order", {"ticker": TOR, "side": "ask", "price": "0.40", "count": "4"})
    assert hit.json["fill_count"] == "4.00"
    account = (await rig.control("GET", "account")).json["accounts"][0]
    assert (account["positions"], account["fills"]) == ({TOR: "4.00"}, 1)
    for method, path, body, status in (
        ("GET", "nothing", None, 404),
        ("GET", "book/NONE", None, 404),
        ("POST", "nothing", {}, 404),
        ("PUT", "faults", {}, 405),
        ("POST", "faults", {"spec": "explode"}, 400),
        ("POST", "faults", {"kind": "drop", "p": "2"}, 400),
        ("POST", "skip_seq", {"channel": "x"}, 400),
        ("POST", "sockets/cut", {"how": "x"}, 400),
        ("POST", "pause", {"what": "x"}, 400),
    ):
        assert (await rig.control(method, path, body)).status == status, path
    assert (await rig.call("GET", "/control/state")).status == 404


@pytest.mark.parametrize(
    "spec, word",
    [
        ("explode", "explode"),
        ("drop,p=2", "p must"),
        ("drop,p=x", "p must"),
        ("delay,ms=-1", "ms"),
        ("delay,ms", "name=value"),
        ("drop,when=never", "when"),
        ("error,code=200", "code"),
        ("drop,pp=1", "pp"),
        ("drop,nth=0", "nth"),
        ("late,ms=60001", "60000"),
        ("cut,how=softly", "how"),
        ("shuffle,match=GET /markets", "match"),
        ("skew,ms=soon", "ms"),
        ("shard_down,shard=3", "shard"),
    ],
)
def test_bad_fault_texts_are_named(spec, word):
    """The message says what is wrong."""
    with pytest.raises(ValueError, match=word):
        Faults(random=Random(1)).add_spec(spec)


def test_a_seed_repeats_its_faults():
    """Same seed, same requests: same fates."""

    def fates(seed):
        faults = Faults(random=Random(seed))
        faults.add_spec("drop,p=0.3; error,p=0.2,when=before; latency,ms=1,jitter=5")
        plans = [faults.plan("GET", "/markets") for _ in range(200)]
        return [(plan.drop_after, plan.answer_before is not None, plan.delay_after_s) for plan in plans]

    assert fates(3) == fates(3) != fates(4)

"""Whatever a client sends: an answer below 500, soon, with a body of one of the known shapes; and the exchange lives on.

An exception in the server would end the test by itself: nothing there catches what it does not expect.
"""

from urllib.parse import quote, urlencode

import orjson
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm.exchange.embedded.server.routes import ROUTES

TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT, MLB = "KXNHLGAME-26DEC01TORBOS", "KXMLBGAME-26DEC011840COLCIN-COL"
QUIET = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
GROUPS = "/portfolio/order_groups"

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, -1, 63, 64, 2**31, 2**53, 10**18, 0.1, 1e308, -0.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        [
            "",
            "0",
            "-1",
            "1.00",
            "0.5",
            "0.01",
            "1e3",
            "NaN",
            "0x10",
            "١",
            "9" * 400,
            TOR,
            BOS,
            MLB,
            EVENT,
            "bid",
            "ask",
            "maker",
            "taker_at_cross",
            "good_till_canceled",
            "immediate_or_cancel",
            "fill_or_kill",
            "event_contract",
            "00000000-0000-0000-0000-000000000001",
            "\x00",
            "\ud7ff",
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


def bodies(contract, name, depth=0):
    """Objects that look like a request of the contract, with any value in any field."""
    fields = contract["schemas"].get(name, {}).get("fields", {})

    def value(rule):
        inner = (rule.get("items") or {}).get("$ref") or rule.get("items.$ref")
        if inner and depth < 2:
            return st.lists(bodies(contract, inner, depth + 1), max_size=3) | VALUES
        return VALUES

    return st.fixed_dictionaries({}, optional={field: value(rule) for field, rule in fields.items()}) | VALUES


def likely(contract, name):
    """Bodies that are nearly right: a good one with a field or two replaced."""
    good = {
        "CreateOrderV2Request": order(),
        "BatchCreateOrdersV2Request": {"orders": [order(), order(ticker=MLB)]},
        "AmendOrderV2Request": {"ticker": TOR, "side": "bid", "price": "0.1", "count": "2"},
        "DecreaseOrderV2Request": {"reduce_by": "1"},
        "CreateOrderGroupRequest": {"contracts_limit": 5},
        "UpdateOrderGroupLimitRequest": {"contracts_limit": 5},
        "ApplySubaccountTransferRequest": {
            "client_transfer_id": "00000000-0000-0000-0000-000000000001",
            "from_subaccount": 0,
            "to_subaccount": 1,
            "amount_cents": 5,
        },
        "IntraExchangeInstanceTransferRequest": {
            "source": "event_contract",
            "destination": "event_contract",
            "amount": 5,
            "destination_exchange_shard": 3,
        },
        "SetTargetBalanceAllocationRequest": {"allocations": [{"exchange_index": 0, "percent": 100}]},
        "UpdateSubaccountNettingRequest": {"subaccount_number": 0, "enabled": True},
        "CreateApiKeyRequest": {"name": "n", "public_key": "x"},
        "GenerateApiKeyRequest": {"name": "n", "key_type": "ed25519"},
    }.get(name)
    if good is None:
        return st.just({})
    fields = list(contract["schemas"][name]["fields"])
    changes = st.dictionaries(st.sampled_from(fields), VALUES, max_size=2)
    return changes.map(lambda change: good | change)


def order(**more):
    """A good create."""
    return {
        "ticker": TOR,
        "side": "bid",
        "price": "0.1000",
        "count": "1.00",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
        **more,
    }


PARAMETERS = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "1",
            "-1",
            "1001",
            "9" * 30,
            "true",
            "TRUE",
            "open",
            "abc",
            "1.5",
            TOR,
            f"{TOR},{BOS}",
            EVENT,
        ]
    ),
    st.sampled_from(
        ["2026-13-01", "2026-12-01T00:00:00Z", "all", "settled", "resting", "Z2FyYmFnZQ", "%", ","]
    ),
    st.text(max_size=12),
)


@st.composite
def requests(draw, contract):
    """A method, a target below the prefix and a body: of a served operation more often than not."""
    operation = draw(st.sampled_from(contract["served"]))
    path = operation["path"]
    for name in operation["pathParams"]:
        value = draw(
            st.sampled_from([TOR, EVENT, "KXNHLGAME", "no", "..", "%00", "a b"]) | st.text(max_size=6)
        )
        path = path.replace("{" + name + "}", quote(value, safe="") or "x")
    names = [*operation["query"], "unknown"]
    query = draw(st.lists(st.tuples(st.sampled_from(names), PARAMETERS), max_size=4))
    body = None
    if operation["body"]:
        body = draw(likely(contract, operation["body"]) | bodies(contract, operation["body"]))
    method = draw(
        st.sampled_from([operation["method"]] * 9 + ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
    )
    return method, path + ("?" + urlencode(query) if query else ""), body


def known(contract):
    """The contract, with the operations that are served."""
    paths = {(route.method, route.template) for route in ROUTES}

    def template(path):
        return path.replace("{", ":").replace("}", "")

    served = [o for o in contract["operations"] if (o["method"], template(o["path"])) in paths]
    assert len(served) > 75
    return {**contract, "served": served}


def is_error(content):
    """One of the four shapes."""
    if not isinstance(content, dict):
        return False
    error = content.get("error")
    return (
        error == "too many requests"
        or (isinstance(error, dict) and {"code", "message"} <= set(error))
        or {"code", "message"} <= set(content)
        or "msg" in content
    )


def test_no_request_brings_the_exchange_down(virtual_exchange, contract):
    """Bodies, queries and paths of every operation, by the contract and beside it."""
    table = known(contract)
    seen = set()

    @QUIET
    @given(calls=st.lists(requests(table), min_size=10, max_size=30))
    def run(calls):
        async def main(rig):
            rig.house("ask", "0.6000", "50.00")
            for method, target, body in calls:
                try:
                    raw = orjson.dumps(body)
                except TypeError:
                    raw = b"{"  # what JSON cannot say: surrogates, huge integers
                with trio.fail_after(30):
                    reply = await rig.call(method, target, raw=raw if body is not None else None)
                seen.add((reply.status, method))
                assert reply.status < 500, (method, target, body, reply)
                if reply.status >= 400 and method != "HEAD":
                    assert is_error(reply.json), (method, target, body, reply)
                if reply.headers.get("connection") == "close":
                    rig._client = None
            assert (await rig.call("GET", "/exchange/status")).status == 200

        virtual_exchange(main)

    run()
    assert {status for status, _ in seen} >= {200, 201, 400, 404, 405}


COMMANDS = st.fixed_dictionaries(
    {},
    optional={
        "id": LEAVES,
        "cmd": st.sampled_from(["subscribe", "unsubscribe", "update_subscription", "list_subscriptions"])
        | LEAVES,
        "params": st.fixed_dictionaries(
            {},
            optional={
                "channels": st.lists(
                    st.sampled_from(["orderbook_delta", "ticker", "trade", "fill", "user_orders", "none", 5]),
                    max_size=4,
                )
                | VALUES,
                "market_ticker": st.just(TOR) | LEAVES,
                "market_tickers": st.just([TOR, BOS]) | VALUES,
                "market_id": LEAVES,
                "market_ids": VALUES,
                "sid": st.just(1) | LEAVES,
                "sids": st.just([1]) | VALUES,
                "action": st.sampled_from(["add_markets", "delete_markets", "get_snapshot"]) | LEAVES,
                "use_yes_price": st.booleans() | LEAVES,
                "send_initial_snapshot": st.booleans() | LEAVES,
                "skip_ticker_ack": st.booleans() | LEAVES,
            },
        )
        | VALUES,
    },
)


def test_no_command_brings_a_socket_down(virtual_exchange):
    """Every command gets one reply at least, and the socket still answers an honest one."""

    @QUIET
    @given(commands=st.lists(COMMANDS | VALUES, min_size=5, max_size=25))
    def run(commands):
        async def main(rig):
            rig.house("ask", "0.6000", "50.00")
            socket = await rig.socket()
            for command in commands:
                try:
                    text = orjson.dumps(command).decode()
                except TypeError:
                    continue
                await socket.send(text)
            await socket.send({"id": 77_777, "cmd": "list_subscriptions"})
            with trio.fail_after(30):
                while True:
                    frame = await socket.next()
                    if frame.get("id") == 77_777:
                        break
            assert frame["type"] == "ok"
            errors = [f["msg"]["code"] for f in socket.frames if f["type"] == "error"]
            assert set(errors) <= {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 14, 15}
            rig.house("bid", "0.1000", "1.00")

        virtual_exchange(main)

    run()


def test_no_command_of_the_operator_brings_the_exchange_down(virtual_exchange):
    """The back door refuses nonsense too."""
    names = [
        "faults",
        "sockets/cut",
        "skip_seq",
        "drop_frames",
        "channel_error",
        "pause",
        "resume",
        "order",
        "close",
        "determine",
        "dispute",
        "amend_result",
        "grid",
        "fees",
        "maintenance",
        "deposit",
        "archive",
        "region",
    ]
    fields = [
        "ticker",
        "value",
        "in_ms",
        "for_ms",
        "structure",
        "fee_type",
        "fee_multiplier",
        "event_ticker",
        "series_ticker",
        "exchange_index",
        "what",
        "side",
        "price",
        "count",
        "amount",
        "after_ms",
        "kind",
        "spec",
        "channel",
        "ms",
    ]
    commands = st.tuples(st.sampled_from(names), st.dictionaries(st.sampled_from(fields), VALUES, max_size=5))

    @QUIET
    @given(calls=st.lists(commands, min_size=5, max_size=20))
    def run(calls):
        async def main(rig):
            for name, body in calls:
                try:
                    orjson.dumps(body)
                except TypeError:
                    continue
                reply = await rig.control("POST", name, body)
                assert reply.status < 500, (name, body, reply)
                await rig.control("DELETE", "faults")

        virtual_exchange(main)

    run()

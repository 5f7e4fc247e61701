"""A trader's recorded evening on the real (demo) exchange, held again with the embedded one: same requests, same answers.

Each recorded request is sent in its order and at its time; the answer must have the recorded status, error code,
message and details, the same fields, and the same values where they do not name a moment or an id. What has changed
since June 2026 is listed here, with its reason, and nowhere else.
"""

import gzip

import attrs
import orjson
import pytest
import trio

from mm.domain.numbers import SECOND, parse_money
from mm.domain.order import Side
from mm.exchange.embedded.core.grids import grid_of
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, SeriesSpec
from mm.exchange.embedded.server.limits import TIERS

FOLDER = "rest_ws_demo_jun2026"
TICKER = "KXWTACHALLENGERMATCH-26JUN11JIMLEP-LEP"
USER = "77aa0000-0000-4000-8000-000000000001"
EVENT, SERIES = "KXWTACHALLENGERMATCH-26JUN11JIMLEP", "KXWTACHALLENGERMATCH"

SINCE = {
    "orders__legacy_create": (410, "deprecated_v1_order_endpoint", "the old writes ended on 2026-06-18"),
    "orders__legacy_cancel": (410, "deprecated_v1_order_endpoint", "the old writes ended on 2026-06-18"),
}
"""Answered otherwise today: status, error code, why."""
NOT_HELD = {
    "markets__high_temp": "no request was recorded with it",
    "trades__public_recorded": "from another market and day; its shape is compared below",
    "ws__orderbook_trade_noleg": "a socket; below",
    "ws__orderbook_trade_yes": "a socket; below",
}
GONE = {"service", "fractional_trading_enabled", "response_price_units"}
"""Fields removed from the protocol since: `service` on 2026-08-06, the two of markets on 2026-07-09."""
MOMENTS = {
    "ts_ms",
    "ts",
    "created_time",
    "last_update_time",
    "order_id",
    "fill_id",
    "trade_id",
    "user_id",
    "cursor",
    "grants",
}
SHAPE_ONLY = ("markets__", "exchange__", "account__", "portfolio__orders_list", "fills__after_taker")
"""Other markets, earlier orders: compared field by field, not value by value."""


@attrs.frozen
class Turn:
    """One recorded request and its answer."""

    name: str
    meta: dict
    answer: object

    @property
    def at(self):
        """When it was asked, in ms."""
        return self.meta["recorded_at_epoch_ms"]


def read(folder):
    """All turns that name their request, in their order."""
    found = []
    for path in folder.glob("*.meta.json"):
        name = path.name.removesuffix(".meta.json")
        meta = orjson.loads(path.read_bytes())
        body = folder / f"{name}.json"
        packed = folder / f"{name}.json.gz"
        if body.exists():
            found.append(Turn(name, meta, orjson.loads(body.read_bytes())))
        elif packed.exists():
            found.append(Turn(name, meta, orjson.loads(gzip.decompress(packed.read_bytes()))))
    return sorted((turn for turn in found if turn.name not in NOT_HELD), key=lambda turn: turn.at)


def list_match(rig):
    """The tennis match of the recording, with the book that it had."""
    core, now = rig.server.core, rig.clock()
    core.add_series(now, SeriesSpec(ticker=SERIES, title="Challenger WTA"))
    core.add_event(now, EventSpec(ticker=EVENT, series_ticker=SERIES, is_mutually_exclusive=True))
    for side in ("JIM", "LEP"):
        core.add_market(
            now,
            MarketSpec(
                ticker=f"{EVENT}-{side}",
                event_ticker=EVENT,
                open_time=now - SECOND,
                close_time=now + 1_209_600 * SECOND,
                expected_expiration_time=now + 10_800 * SECOND,
                occurrence_time=now,
                grid=grid_of("linear_cent"),
                metadata={
                    "strike_type": "structured",
                    "custom_strike": {"tennis_competitor": "367dcce8"},
                    "early_close_condition": "This market will close and expire after a winner is declared.",
                },
            ),
        )
    rig.house("bid", "0.4700", "3.00", TICKER)
    rig.house("ask", "0.5200", "3.00", TICKER)


def headers(rig, turn):
    """Signed as the recorded request was."""
    method, path = turn.meta["method"], turn.meta["path"]
    kind, name = turn.meta["auth"], turn.name
    if kind == "unauthenticated":
        return {}
    if kind == "signed-skewed":
        skew = {"minus30s": -30, "minus5min": -300, "plus5min": 300}[name.rpartition("_")[2]]
        return rig.signed(method, path, skew_ms=skew * 1_000)
    if kind == "bad-signature":
        return rig.signed(method, path + "/other")
    if kind == "unknown-key-id":
        return rig.signed(method, path, key_id="00000000-0000-0000-0000-000000000000")
    signed = rig.signed(method, path)
    if kind == "missing-signature-header":
        del signed["KALSHI-ACCESS-SIGNATURE"]
    else:
        assert kind == "signed", kind
    return signed


def alike(recorded, ours, path, *, values, optional=frozenset()):
    """Every recorded field is there (save those that are gone), of the same kind, and equal where that means anything."""
    if isinstance(recorded, dict):
        assert isinstance(ours, dict), path
        for name, value in recorded.items():
            if name in GONE:
                assert name not in ours, f"{path}.{name} is gone from the protocol"
                continue
            if name not in ours and name in optional:
                continue
            assert name in ours, f"{path}.{name} is missing"
            if name == "cursor":
                assert isinstance(ours[name], str)
                continue
            alike(
                value, ours[name], f"{path}.{name}", values=values and name not in MOMENTS, optional=optional
            )
    elif isinstance(recorded, list):
        assert isinstance(ours, list), path
        if values:
            assert len(ours) == len(recorded), path
        for one, other in zip(recorded, ours, strict=False):
            alike(one, other, f"{path}[]", values=values, optional=optional)
    elif values:
        assert ours == recorded, path
    elif recorded is not None and ours is not None:
        assert type(ours) is type(recorded), path


def only_new(recorded, ours, contract):
    """Fields that the recording has not are those that the protocol has got since: in the contract of today."""
    known = {field for schema in contract["schemas"].values() for field in schema.get("fields", {})}
    fresh = set(ours) - set(recorded)
    assert fresh <= known | {"liquidity_dollars", "market_id"}, fresh - known


async def test_the_recorded_conversation_is_held_again(
    nursery, open_rig, recordings, contract, autojump_clock
):
    """About 50 requests of five minutes: signatures, skew, pages, order life, refusals, self-trade, lagging reads."""
    turns = read(recordings(FOLDER))
    assert len(turns) > 45
    rig = await open_rig(nursery, tier="basic")
    list_match(rig)
    rig.server.core.deposit(rig.clock(), USER, 0, parse_money("-8"))
    await rig.control("POST", "faults", {"spec": "lag,ms=500"})
    begun, start = turns[0].at, trio.current_time()
    ids = {}
    for turn in turns:
        if start + (turn.at - begun) / 1_000 > trio.current_time() + 100:
            rig._client = None  # the exchange has hung up by then
        await trio.sleep_until(start + (turn.at - begun) / 1_000)
        meta = turn.meta
        path = meta["path"].removeprefix("/trade-api/v2")
        for recorded, ours in ids.items():
            path = path.replace(recorded, ours)
        if turn.name == "markets__page2" or turn.name == "markets__page3":
            continue  # the recorded cursors belong to the real exchange; paging is tested with our own
        signed = headers(rig, attrs.evolve(turn, meta={**meta, "path": "/trade-api/v2" + path}))
        reply = await rig.call(meta["method"], path, meta["request_body"], headers=signed)
        if turn.name in SINCE:
            status, code, _why = SINCE[turn.name]
            assert (reply.status, reply.json["error"]["code"]) == (status, code), turn.name
            continue
        assert reply.status == meta["status"], (turn.name, reply)
        if isinstance(turn.answer, dict) and "order_id" in turn.answer:
            ids[turn.answer["order_id"]] = reply.json["order_id"]
        is_shape = turn.name.startswith(SHAPE_ONLY) and reply.status == 200
        fields = contract["schemas"]["Market"]["fields"]
        # Pages of other markets: what only some markets have may be missing.
        optional = {name for name, rule in fields.items() if not rule["required"]} if is_shape else set()
        alike(turn.answer, reply.json, turn.name, values=not is_shape, optional=optional)
        for kind in ("order", "market"):
            if kind in turn.answer:
                only_new(turn.answer[kind], reply.json[kind], contract)


async def test_what_was_compared_by_shape_has_the_recorded_numbers(recordings, autojump_clock):
    """The tier and the costs of the recording, save for what the documents say has changed."""
    folder = recordings(FOLDER)
    limits = orjson.loads((folder / "account__limits.json").read_bytes())
    tier = TIERS[limits["usage_tier"]]
    assert limits["write"] == {"bucket_capacity": tier.write_capacity, "refill_rate": tier.write_rate}
    assert limits["read"]["refill_rate"] == tier.read_rate
    assert tier.read_capacity == 2 * limits["read"]["bucket_capacity"], (
        "Basic reads hold 400 since the summer"
    )


async def test_the_costs_of_the_recording_are_charged(rig, recordings, autojump_clock):
    """Every recorded cost of an operation that is served."""
    recorded = orjson.loads((recordings(FOLDER) / "account__endpoint_costs.json").read_bytes())
    ours = (await rig.call("GET", "/account/endpoint_costs")).json
    assert ours["default_cost"] == recorded["default_cost"]
    costs = {(c["method"], c["path"]): c["cost"] for c in ours["endpoint_costs"]}
    served = [
        c for c in recorded["endpoint_costs"] if "/events/orders" in c["path"] or "upgrade" in c["path"]
    ]
    assert served
    for cost in served:
        assert costs[cost["method"], cost["path"]] == cost["cost"], cost


async def test_a_recorded_print_has_our_fields(rig, recordings, autojump_clock):
    """The public trades of another market, one by one."""
    recorded = orjson.loads((recordings(FOLDER) / "trades__public_recorded.json").read_bytes())
    ticker = "KXNHLGAME-26DEC01TORBOS-TOR"
    rig.house("ask", "0.4300", "20.00")
    await rig.create("bid", "0.4300", "7.77")
    ours = (await rig.call("GET", f"/markets/trades?ticker={ticker}&limit=12")).json
    alike(recorded["trades"][:1], ours["trades"], "trades", values=False)
    assert set(ours["trades"][0]) == set(recorded["trades"][0])


@pytest.mark.parametrize("name", ["noleg", "yes"])
async def test_recorded_frames_are_sent_again(nursery, open_rig, recordings, name, autojump_clock):
    """The recorded subscribe command, and the changes of the book that its deltas tell of: the same frames in order."""
    folder = recordings(FOLDER)
    command = orjson.loads((folder / f"ws__orderbook_trade_{name}.meta.json").read_bytes())["subscribe_cmd"]
    lines = (folder / f"ws__orderbook_trade_{name}.jsonl").read_bytes().splitlines()
    frames = [orjson.loads(line) for line in lines if line.strip()]
    rig = await open_rig(nursery)
    list_match(rig)
    snapshot = next(frame["msg"] for frame in frames if frame["type"] == "orderbook_snapshot")
    remake(rig, snapshot, is_yes=bool(command["params"].get("use_yes_price")))
    socket = await rig.socket()
    await socket.send(command)
    for recorded in frames:
        msg = recorded["msg"]
        if recorded["type"] == "orderbook_delta":
            change(rig, msg, is_yes=bool(command["params"].get("use_yes_price")))
        ours = await socket.next()
        while ours["type"] == "trade" and recorded["type"] != "trade":
            ours = await socket.next()
        assert ours["type"] == recorded["type"]
        assert ours.get("seq") == recorded.get("seq")
        skipped = {"market_id", "ts", "ts_ms"}
        for field in set(msg) - skipped:
            assert ours["msg"][field] == msg[field], (field, ours, recorded)
        assert set(msg) - skipped - set(ours["msg"]) == set()


def remake(rig, snapshot, *, is_yes):
    """The book of a snapshot, on the exchange."""
    core, now = rig.server.core, rig.clock()
    house = core.users()["house"]
    for order_id in list(house.resting):
        core.cancel(now, "house", order_id)
    for price, count in snapshot.get("yes_dollars_fp", []):
        rig.house("bid", price, count, TICKER)
    for price, count in snapshot.get("no_dollars_fp", []):
        rig.house("ask", price if is_yes else f"{1 - float(price):.4f}", count, TICKER)


def change(rig, msg, *, is_yes):
    """What made a delta: an order of somebody, or a cancel."""
    side = "bid" if msg["side"] == "yes" else "ask"
    is_as_told = side == "bid" or is_yes
    price = msg["price_dollars"] if is_as_told else f"{1 - float(msg['price_dollars']):.4f}"
    count = float(msg["delta_fp"])
    if count > 0:
        rig.house(side, price, f"{count:.2f}", TICKER)
        return
    core, ticks = rig.server.core, round(float(price) * 10_000)
    for order in list(core.users()["house"].resting.values()):
        if order.side is Side(side) and order.price == ticks and order.ticker == TICKER:
            taken = min(order.remaining, round(-count * 100))
            core.decrease(rig.clock(), "house", order.order_id, reduce_by=taken)
            return
    raise AssertionError(f"nothing rests that could shrink: {msg}")

"""Signatures, the clock window, the exchange's own words for refusals; the token budget."""

import orjson
import pytest
import trio

from mm.exchange.embedded.server.auth import ClockWindow, make_keypair
from mm.exchange.embedded.server.limits import TIERS, Budget

BALANCE = "/portfolio/balance"
PREFIX = "/trade-api/v2"


def recorded(recordings, name):
    """The body and status of a recorded answer."""
    folder = recordings("rest_ws_demo_jun2026")
    body = orjson.loads((folder / f"{name}.json").read_bytes())
    meta = orjson.loads((folder / f"{name}.meta.json").read_bytes())
    if isinstance(body.get("error"), dict):
        body["error"].pop("service", None)  # gone since August 2026
    return body, meta["status"]


async def test_rsa_and_ed25519_signatures_are_accepted(rig, rsa_key, autojump_clock):
    """Both kinds of key, the query string not being signed."""
    path = PREFIX + BALANCE
    assert (await rig.call("GET", BALANCE + "?subaccount=0")).status == 200
    rsa = rig.signed("GET", path, key=rsa_key, key_id="rsa-key")
    assert (await rig.call("GET", BALANCE, headers=rsa)).status == 200


@pytest.mark.parametrize(
    "name, change",
    [
        ("auth__bad_signature", lambda rig, key: rig.signed("POST", PREFIX + BALANCE)),
        ("auth__bad_signature", lambda rig, key: rig.signed("GET", PREFIX + BALANCE, key=key)),
        ("auth__unknown_key_id", lambda rig, key: rig.signed("GET", PREFIX + BALANCE, key_id="nobody")),
        ("auth__skew_minus30s", lambda rig, key: rig.signed("GET", PREFIX + BALANCE, skew_ms=-30_000)),
        ("auth__skew_minus5min", lambda rig, key: rig.signed("GET", PREFIX + BALANCE, skew_ms=-300_000)),
        ("auth__skew_plus5min", lambda rig, key: rig.signed("GET", PREFIX + BALANCE, skew_ms=300_000)),
        (
            "auth__missing_signature_header",
            lambda rig, key: {
                name: value
                for name, value in rig.signed("GET", PREFIX + BALANCE).items()
                if not name.endswith("SIGNATURE")
            },
        ),
    ],
)
async def test_refusals_are_word_for_word(rig, recordings, rsa_key, name, change, autojump_clock):
    """Every recorded authentication error, byte for byte."""
    body, status = recorded(recordings, name)
    reply = await rig.call("GET", BALANCE, headers=change(rig, rsa_key))
    assert (reply.status, reply.json) == (status, body)


@pytest.mark.parametrize("skew_ms, status", [(-19_000, 200), (-21_000, 401), (59_000, 200), (61_000, 401)])
async def test_the_clock_window_has_edges(rig, skew_ms, status, autojump_clock):
    """The default window: 20 s back, 60 s ahead."""
    headers = rig.signed("GET", PREFIX + BALANCE, skew_ms=skew_ms)
    assert (await rig.call("GET", BALANCE, headers=headers)).status == status


async def test_the_clock_window_can_be_set(rig, autojump_clock):
    """Wider or narrower, as a test wants it."""
    rig.server.auth.window = ClockWindow(oldest_s=-1, newest_s=1)
    headers = rig.signed("GET", PREFIX + BALANCE, skew_ms=-2_000)
    assert (await rig.call("GET", BALANCE, headers=headers)).status == 401


@pytest.mark.parametrize("timestamp", ["", "abc", "-5", "1" * 400, "1.5e9", "١٢٣"])
async def test_a_timestamp_that_is_none_is_refused(rig, timestamp, autojump_clock):
    """Not a crash, whatever it is."""
    headers = rig.signed("GET", PREFIX + BALANCE)
    headers["KALSHI-ACCESS-TIMESTAMP"] = timestamp
    assert (await rig.call("GET", BALANCE, headers=headers)).status == 401


@pytest.mark.parametrize("signature", ["!!!", "AAAA", "====", "A" * 5_000])
async def test_a_signature_that_is_none_is_refused(rig, rsa_key, signature, autojump_clock):
    """For both kinds of key."""
    for key_id in ("key", "rsa-key"):
        headers = rig.signed("GET", PREFIX + BALANCE, key_id=key_id)
        headers["KALSHI-ACCESS-SIGNATURE"] = signature
        reply = await rig.call("GET", BALANCE, headers=headers)
        assert (reply.status, reply.json["error"]["details"]) == (401, "INCORRECT_API_KEY_SIGNATURE")


async def test_public_operations_ignore_bad_headers(rig, autojump_clock):
    """Headers on a public endpoint are harmless, even wrong ones."""
    headers = rig.signed("GET", PREFIX + "/elsewhere")
    assert (await rig.call("GET", "/markets", headers=headers)).status == 200


def test_a_key_pair_is_readable_by_its_owner_only(tmp_path):
    """Mode 0600, a PEM that loads, and no overwriting."""
    for kind in ("rsa", "ed25519"):
        pair = make_keypair(tmp_path, f"id-{kind}", kind=kind)
        assert pair.private_key_path.stat().st_mode & 0o777 == 0o600
        assert pair.private_key_path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
        assert "public_key" not in repr(pair)
        with pytest.raises(FileExistsError):
            make_keypair(tmp_path, f"id-{kind}", kind=kind)


# --- the budget ---


async def test_a_spent_bucket_answers_429_and_refills(basic_rig, autojump_clock):
    """100 write tokens: 10 creates, then 429 with the bare body and nothing placed; 100 ms later one more."""
    for i in range(10):
        assert (await basic_rig.create(client_order_id=f"a-{i}")).status == 201
    reply = await basic_rig.create(client_order_id="b")
    assert (reply.status, reply.body) == (429, b'{"error":"too many requests"}')
    assert "retry-after" not in reply.headers
    await trio.sleep(0.1)
    assert (await basic_rig.create(client_order_id="b")).status == 201
    assert (await basic_rig.create(client_order_id="c")).status == 429


async def test_cancels_cost_two(basic_rig, autojump_clock):
    """After 8 creates 20 tokens are left: exactly ten cancels' worth."""
    ids = [(await basic_rig.create(client_order_id=f"a-{i}")).json["order_id"] for i in range(8)]
    statuses = [
        (await basic_rig.call("DELETE", f"/portfolio/events/orders/{ids[i % 8]}?exchange_index=0")).status
        for i in range(11)
    ]
    assert statuses == [200] * 8 + [404] * 2 + [429]


async def test_reads_have_their_own_bucket(basic_rig, autojump_clock):
    """Writes that are exhausted leave reads alone, and the other way round."""
    for i in range(11):
        await basic_rig.create(client_order_id=f"a-{i}")
    statuses = [(await basic_rig.call("GET", "/portfolio/fills")).status for _ in range(41)]
    assert statuses == [200] * 40 + [429]


async def test_a_batch_is_paid_whole_or_not_at_all(basic_rig, autojump_clock):
    """11 creates in one request cost more than the bucket holds: none is placed."""
    template = {
        "ticker": "KXNHLGAME-26DEC01TORBOS-TOR",
        "side": "bid",
        "count": "1.00",
        "price": "0.1000",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
    }
    path = "/portfolio/events/orders/batched"
    reply = await basic_rig.call("POST", path, {"orders": [template] * 11})
    assert reply.status == 429
    assert (await basic_rig.call("GET", "/portfolio/orders")).json["orders"] == []
    reply = await basic_rig.call("POST", path, {"orders": [template] * 10})
    assert [item["remaining_count"] for item in reply.json["orders"]] == ["1.00"] * 10


async def test_shards_have_their_own_write_buckets(basic_rig, autojump_clock):
    """Direct writes to shard 3 are paid there; a routed one is billed to every shard."""
    mlb = {"ticker": "KXMLBGAME-26DEC011840COLCIN-COL", "count": "1.00"}
    for i in range(10):
        reply = await basic_rig.create(client_order_id=f"m-{i}", exchange_index=3, **mlb)
        assert reply.status == 201
    assert (await basic_rig.create(client_order_id="m", exchange_index=3, **mlb)).status == 429
    assert (await basic_rig.create(client_order_id="n", exchange_index=0)).status == 201
    assert (await basic_rig.create(client_order_id="o")).status == 429, "routed: shard 3 is empty"


async def test_cancel_all_takes_the_whole_bucket(basic_rig, autojump_clock):
    """It costs what the largest batch cancel would, and answers 204 without a body."""
    await trio.sleep(2)
    reply = await basic_rig.call("DELETE", "/portfolio/events/orders")
    assert (reply.status, reply.body) == (204, b"")
    assert (await basic_rig.create()).status == 429


async def test_limits_and_costs_are_published(basic_rig, autojump_clock):
    """What the account may spend, and what calls cost."""
    limits = (await basic_rig.call("GET", "/account/limits")).json
    assert limits["usage_tier"] == "basic"
    assert limits["write"] == {"refill_rate": 100, "bucket_capacity": 100}
    costs = (await basic_rig.call("GET", "/account/endpoint_costs", headers={})).json
    by_path = {(c["method"], c["path"]): c["cost"] for c in costs["endpoint_costs"]}
    assert costs["default_cost"] == 10
    assert by_path["DELETE", "/trade-api/v2/portfolio/events/orders/:order_id"] == 2


def test_a_bucket_never_gives_more_than_its_rate():
    """Whatever the rhythm of requests: never above capacity plus refill."""
    now = [0]
    budget = Budget("basic", lambda: now[0])
    tier, paid = TIERS["basic"], 0
    for step in range(2_000):
        now[0] += (step * 7_919) % 50_000
        if budget.spend_write(10):
            paid += 10
        assert paid <= tier.write_capacity + now[0] * tier.write_rate / 1_000_000
    assert paid >= now[0] * tier.write_rate / 1_000_000 * 0.95

"""The guardian's calls on the wire: what is asked, where, and how answers are read."""

import json
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mm.exchange.kalshi.signing import load_signer
from mm.guard.http import Headers, NoAnswer
from mm.guard.protocol import Address, Hello
from mm.guard.venue import Refused, Resting, Venue

PEM = (
    ed25519.Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
HELLO = Hello(
    rest=Address(is_secure=True, host="venue.example", port=443, path="/trade-api/v2"),
    key_id="key-1",
    key=PEM,
    prefix="mm-s1-",
)


@attrs.define(eq=False)
class Wire:
    """Stands where the connection is; answers in turn and remembers what was asked."""

    answers: list[tuple[int, Any]]
    asked: list[tuple[str, str, Any]] = attrs.field(factory=list)
    headers: Headers = attrs.field(factory=list)

    def request(
        self, method: str, target: str, headers: Headers, body: bytes | None, *, deadline_s: float
    ) -> tuple[int, bytes]:
        self.asked.append((method, target, None if body is None else json.loads(body)))
        self.headers = headers
        status, answer = self.answers.pop(0)
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def venue(*answers: tuple[int, Any], **changes: Any) -> tuple[Venue, Wire]:
    hello = HELLO._replace(**changes)
    wire = Wire(list(answers))
    return Venue(hello, load_signer(hello.key_id, hello.key), wire), wire  # type: ignore[arg-type]


def row(order_id: str, client_order_id: str | None, **more: Any) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "client_order_id": client_order_id,
        "ticker": "T-1",
        "exchange_index": 2,
        **more,
    }


def test_a_group_is_triggered_on_its_shard() -> None:
    """With an empty JSON body, and signed without the query."""
    calls, wire = venue((200, {}))
    calls.trigger("g/1", 3)
    assert wire.asked == [
        ("PUT", "/trade-api/v2/portfolio/order_groups/g%2F1/trigger?exchange_index=3", {}),
    ]
    assert [name for name, _ in wire.headers] == [
        "KALSHI-ACCESS-KEY",
        "KALSHI-ACCESS-TIMESTAMP",
        "KALSHI-ACCESS-SIGNATURE",
    ]


def test_only_orders_of_the_session_are_listed_over_all_pages() -> None:
    """Foreign orders, other sessions' and those without an id are none of ours."""
    calls, wire = venue(
        (200, {"orders": [row("a", "mm-s1-1"), row("b", "mm-s2-1"), row("c", None)], "cursor": "n=="}),
        (200, {"orders": [row("d", ""), row("e", "mm-s1-2", order_group_id="g")], "cursor": ""}),
    )
    assert calls.resting() == [Resting("a", "T-1", 2, None), Resting("e", "T-1", 2, "g")]
    first, second = (target for _, target, _ in wire.asked)
    assert first == "/trade-api/v2/portfolio/orders?subaccount=0&status=resting&limit=1000"
    assert second == f"{first}&cursor=n%3D%3D"


def test_a_listing_that_turns_in_circles_is_no_listing() -> None:
    """A garbage cursor gets a first-looking page."""
    calls, _ = venue(*[(200, {"orders": [], "cursor": "again"})] * 3)
    with pytest.raises(NoAnswer, match="circles"):
        calls.resting()


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"orders": None}, {"orders": [1]}, {"orders": [{"client_order_id": "mm-s1-1"}]}, b"<html>"],
)
def test_a_listing_that_cannot_be_read_is_no_listing(answer: Any) -> None:
    """Never taken for an empty one."""
    calls, _ = venue((200, answer))
    with pytest.raises(NoAnswer):
        calls.resting()


def test_a_batch_names_shard_and_market_and_tells_what_it_did_not_cancel() -> None:
    """Results are matched by id; one that is missing was not cancelled."""
    orders = [Resting(name, "T-1", 2, None) for name in ("a", "b", "c")]
    calls, wire = venue(
        (
            200,
            {
                "orders": [
                    {"order_id": "b", "error": {"code": "not_found"}},
                    {"order_id": "a", "reduced_by": "1.00"},
                ]
            },
        )
    )
    assert calls.cancel_batch(orders) == ["b", "c"]
    method, target, body = wire.asked[0]
    assert (method, target) == ("DELETE", "/trade-api/v2/portfolio/events/orders/batched")
    assert body["orders"][0] == {"order_id": "a", "exchange_index": 2, "market_ticker": "T-1"}


def test_a_single_cancel_names_shard_and_market() -> None:
    """Without them a live order answers 404."""
    calls, wire = venue((200, {"order_id": "a", "reduced_by": "1.00"}))
    calls.cancel(Resting("a", "T-1", 2, None))
    assert wire.asked[0][:2] == (
        "DELETE",
        "/trade-api/v2/portfolio/events/orders/a?exchange_index=2&market_ticker=T-1",
    )


def test_a_subaccount_is_named_everywhere() -> None:
    """Else the first one would be meant."""
    order = Resting("a", "T-1", 2, None)
    calls, wire = venue((200, {}), (200, {"orders": []}), (200, {"orders": []}), (200, {}), subaccount=5)
    calls.trigger("g", 0)
    calls.resting()
    calls.cancel_batch([order])
    calls.cancel(order)
    trigger, listing, batch, single = wire.asked
    assert "subaccount=5" in trigger[1]
    assert "subaccount=5" in listing[1]
    assert batch[2]["orders"][0]["subaccount"] == 5
    assert "subaccount=5" in single[1]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (429, {"error": "too many requests"}, "too many requests"),
        (409, {"error": {"code": "trading_is_paused", "message": "trading is paused"}}, "trading_is_paused"),
        (400, {"code": "bad_request", "message": "x"}, "bad_request"),
        (400, {"msg": "limit too large"}, "limit too large"),
        (502, b"<html>", "HTTP 502"),
    ],
)
def test_refusals_of_every_shape_are_told(status: int, answer: Any, said: str) -> None:
    """By the exchange's own word."""
    calls, _ = venue((status, answer))
    with pytest.raises(Refused, match=said) as caught:
        calls.trigger("g", 0)
    assert caught.value.status == status
    assert caught.value.is_throttled == (status == 429)
    assert caught.value.is_final == (status in (400, 409))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-24T10:00:00Z", 1795514400.0),
        ("2026-11-24T10:00:00.5Z", 1795514400.5),
        ("2026-11-24T10:00:00.123456Z", 1795514400.123456),
    ],
)
def test_the_age_of_reads_is_read_however_short_its_fraction(text: str, seconds: float) -> None:
    """Trailing zeros are left out on the wire."""
    calls, _ = venue((200, {"as_of_time": text}))
    assert calls.data_time() == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("answer", [{}, {"as_of_time": None}, {"as_of_time": "soon"}])
def test_an_age_that_cannot_be_read_is_none(answer: Any) -> None:
    """Then the long lag applies."""
    calls, _ = venue((200, answer))
    with pytest.raises(NoAnswer):
        calls.data_time()

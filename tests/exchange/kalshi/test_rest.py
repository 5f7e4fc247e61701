"""Every failure of a request answers one question: did it happen?"""

import json

import httpx
import pytest
import trio

from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, Side, TimeInForce
from mm.exchange import port

TICKER = MarketTicker("KXNHLGAME-26DEC01TORBOS-TOR")
ORDER = port.NewOrder(
    client_order_id=ClientOrderId("mm-s1-1"),
    ticker=TICKER,
    side=Side.BID,
    price=Price(4100),
    count=Count(1000),
    exchange_index=2,
)
REF = port.OrderRef(order_id=OrderId("o/1"), ticker=TICKER, exchange_index=2)

WRITES = {
    "place": lambda x: x.place(ORDER),
    "amend": lambda x: x.amend(REF, side=Side.BID, price=Price(4100), count=Count(500)),
    "decrease": lambda x: x.decrease(REF, reduce_to=Count(100)),
    "cancel": lambda x: x.cancel(REF),
    "cancel_batch": lambda x: x.cancel_batch([REF]),
    "create_group": lambda x: x.create_group(contracts_limit=5, exchange_index=2),
    "trigger_group": lambda x: x.trigger_group(GroupId("g"), exchange_index=2),
    "delete_group": lambda x: x.delete_group(GroupId("g"), exchange_index=2),
}
READS = {
    "series": lambda x: x.series("KXNHLGAME"),
    "event": lambda x: x.event("KXNHLGAME-26DEC01TORBOS"),
    "markets": lambda x: x.markets(series_ticker="KXNHLGAME"),
    "limits": lambda x: x.limits(),
    "balance": lambda x: x.balance(),
    "positions": lambda x: x.positions(),
    "fills": lambda x: x.fills_page(),
    "orders": lambda x: x.orders_page(),
    "order": lambda x: x.order(OrderId("o")),
    "settlements": lambda x: x.settlements_page(),
    "age": lambda x: x.user_data_age(),
    "groups": lambda x: x.groups(),
}
LOST = [
    pytest.param(lambda r: httpx.ReadTimeout("", request=r), id="read-timeout"),
    pytest.param(lambda r: httpx.WriteTimeout("", request=r), id="write-timeout"),
    pytest.param(lambda r: httpx.ReadError("reset", request=r), id="read-reset"),
    pytest.param(lambda r: httpx.WriteError("reset", request=r), id="write-reset"),
    pytest.param(lambda r: httpx.RemoteProtocolError("cut", request=r), id="cut"),
    pytest.param(lambda r: httpx.Response(500, text="oops"), id="500"),
    pytest.param(lambda r: httpx.Response(502, text="<html>"), id="502"),
    pytest.param(
        lambda r: httpx.Response(503, json={"error": {"code": "unavailable", "message": "down"}}), id="503"
    ),
    pytest.param(lambda r: httpx.Response(504), id="504"),
    pytest.param(lambda r: httpx.Response(302, headers={"Location": "https://x.test"}), id="redirect"),
    pytest.param(lambda r: httpx.Response(408), id="proxy-408"),
    pytest.param(lambda r: httpx.Response(200, text="not json"), id="200-not-json"),
]
NEVER_SENT = [
    pytest.param(lambda r: httpx.ConnectError("refused", request=r), id="refused"),
    pytest.param(lambda r: httpx.ConnectTimeout("", request=r), id="connect-timeout"),
    pytest.param(lambda r: httpx.PoolTimeout("", request=r), id="pool"),
]


def handler_of(outcome):
    def handle(request):
        result = outcome(request)
        if isinstance(result, Exception):
            raise result
        return result

    return handle


@pytest.mark.parametrize("outcome", LOST)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_write_without_a_usable_answer_is_unknown(open_client, write, outcome):
    """Sent, and nobody knows how far it got."""
    async with open_client(handler_of(outcome)) as exchange:
        with pytest.raises(port.OutcomeUnknown):
            await write(exchange)


@pytest.mark.parametrize("outcome", NEVER_SENT)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_write_that_was_never_sent_did_not_happen(open_client, write, outcome):
    """Without a connection nothing was done."""
    async with open_client(handler_of(outcome)) as exchange:
        with pytest.raises(port.ExchangeUnavailable):
            await write(exchange)


@pytest.mark.parametrize("outcome", LOST + NEVER_SENT)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_a_failed_read_may_be_tried_again(open_client, read, outcome):
    """A read has no outcome to be unknown."""
    async with open_client(handler_of(outcome)) as exchange:
        with pytest.raises(port.ExchangeUnavailable):
            await read(exchange)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            409,
            {"error": {"code": "order_already_exists", "message": "order already exists"}},
            port.OrderIdSpent,
        ),
        (409, {"error": {"code": "trading_is_paused", "message": "trading is paused"}}, port.TradingPaused),
        (409, {"error": {"code": "exchange_is_paused"}}, port.TradingPaused),
        (409, {"error": {"code": "market_closed"}}, port.TradingPaused),
        (
            409,
            {"error": {"code": "fill_or_kill_insufficient_resting_volume"}},
            port.ExchangeRejected,
        ),
        (400, {"error": {"code": "invalid_order", "details": "post only cross"}}, port.ExchangeRejected),
        (400, {"code": "bad_request", "message": "bad request"}, port.ExchangeRejected),
        (400, {"msg": "Parameter validation failed"}, port.ExchangeRejected),
        (400, {"error": {"code": "user_not_found:_0000"}}, port.ExchangeRejected),
        (404, {"error": {"code": "market_not_found"}}, port.ExchangeRejected),
        (410, {"error": {"code": "deprecated_v1_order_endpoint"}}, port.ExchangeRejected),
        (429, {"error": "too many requests"}, port.RateLimited),
        (401, {"error": {"code": "authentication_error", "details": "NOT_FOUND"}}, port.AuthError),
        (403, {"error": {"code": "forbidden"}}, port.AuthError),
        (201, {"error": {"code": "strange"}}, port.OutcomeUnknown),
        (201, {"client_order_id": "mm-s1-1"}, port.OutcomeUnknown),
        (201, {"order_id": "o", "fill_count": 1, "remaining_count": "0.00"}, port.OutcomeUnknown),
        (204, None, port.OutcomeUnknown),
    ],
)
async def test_answers_to_a_create(open_client, status, body, expected):
    """The venue's code decides, never the status alone; a success without an order id proves nothing."""

    def handle(request):
        return httpx.Response(status, json=body) if body is not None else httpx.Response(status)

    async with open_client(handle) as exchange:
        with pytest.raises(expected) as caught:
            await exchange.place(ORDER)

    assert type(caught.value) is expected
    if status >= 300:
        assert caught.value.status == status
    assert caught.value.endpoint == "POST /portfolio/events/orders"


@pytest.mark.parametrize("write", [WRITES["cancel"], WRITES["amend"], WRITES["decrease"]])
async def test_404_on_an_existing_order_is_not_resting_here(open_client, write):
    """It may be filled, cancelled, unknown or on another shard: no proof of anything."""
    body = {"error": {"code": "not_found", "message": "not found"}}
    async with open_client(lambda r: httpx.Response(404, json=body)) as exchange:
        with pytest.raises(port.NotRestingHere):
            await write(exchange)


async def test_429_tells_when_to_try_again(open_client):
    """There is no Retry-After today; where one comes it is used."""
    async with open_client(
        lambda r: httpx.Response(429, json={"error": "too many requests"}, headers={"Retry-After": "2"})
    ) as exchange:
        with pytest.raises(port.RateLimited, match="too many requests") as caught:
            await exchange.balance()

    assert caught.value.retry_after == 2.0


async def test_a_refused_timestamp_is_signed_again_with_a_fresh_clock(open_client):
    """A laptop that slept signs once more; the second request carries a new time."""
    stamps = []
    times = iter([Micros(1_000_000_000_000), Micros(2_000_000_000_000)])

    def handle(request):
        stamps.append(request.headers["KALSHI-ACCESS-TIMESTAMP"])
        if len(stamps) == 1:
            return httpx.Response(401, json={"error": {"code": "header_timestamp_expired"}})
        return httpx.Response(201, json={"order_id": "o1", "fill_count": "0.00", "remaining_count": "10.00"})

    async with open_client(handle, clock=lambda: next(times)) as exchange:
        ack = await exchange.place(ORDER)

    assert ack == port.PlaceAck(order_id=OrderId("o1"), filled=Count(0), remaining=Count(1000))
    assert stamps == ["1000000000", "2000000000"]


async def test_a_clock_that_stays_wrong_is_no_fault_of_the_key(open_client):
    """Two refusals for the time: not done, and the message says what to look at."""
    calls = []

    def handle(request):
        calls.append(request)
        return httpx.Response(401, json={"error": {"code": "header_timestamp_expired"}})

    async with open_client(handle) as exchange:
        with pytest.raises(port.ExchangeUnavailable, match="clock"):
            await exchange.place(ORDER)

    assert len(calls) == 2


async def test_no_answer_within_the_deadline(open_client, autojump_clock):
    """A request takes at most 4 seconds."""

    async def handle(request):
        await trio.sleep_forever()

    async with open_client(handle) as exchange:
        with pytest.raises(port.OutcomeUnknown, match="4 s"):
            await exchange.place(ORDER)
        with pytest.raises(port.ExchangeUnavailable):
            await exchange.balance()

    assert trio.current_time() == pytest.approx(8.0)


async def test_what_a_create_says(open_client):
    """All fields as the venue wants them: decimal strings, whole seconds, shard always."""
    seen = []

    def handle(request):
        seen.append(json.loads(request.content))
        return httpx.Response(201, json={"order_id": "o1", "fill_count": "2.00", "remaining_count": "8.00"})

    quote = port.NewOrder(
        client_order_id=ClientOrderId("mm-s1-1"),
        ticker=TICKER,
        side=Side.ASK,
        price=Price(4350),
        count=Count(1050),
        exchange_index=0,
        group_id=GroupId("g1"),
        expires_at=Micros(1_795_400_060_999_999),
        cancel_on_pause=True,
    )
    exit_order = port.NewOrder(
        client_order_id=ClientOrderId("mm-s1-2"),
        ticker=TICKER,
        side=Side.BID,
        price=Price(9900),
        count=Count(100),
        exchange_index=1,
        time_in_force=TimeInForce.IOC,
        post_only=False,
        reduce_only=True,
    )
    async with open_client(handle) as exchange:
        ack = await exchange.place(quote)
        await exchange.place(exit_order)

    assert (ack.filled, ack.remaining) == (200, 800)
    assert seen[0] == {
        "ticker": TICKER,
        "client_order_id": "mm-s1-1",
        "side": "ask",
        "count": "10.50",
        "price": "0.4350",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
        "exchange_index": 0,
        "post_only": True,
        "cancel_order_on_pause": True,
        "order_group_id": "g1",
        "expiration_time": 1_795_400_060,
    }
    assert seen[1] == {
        "ticker": TICKER,
        "client_order_id": "mm-s1-2",
        "side": "bid",
        "count": "1.00",
        "price": "0.9900",
        "time_in_force": "immediate_or_cancel",
        "self_trade_prevention_type": "taker_at_cross",
        "exchange_index": 1,
        "reduce_only": True,
    }


@pytest.mark.parametrize(
    ("write", "method", "path", "query", "body"),
    [
        (
            WRITES["cancel"],
            "DELETE",
            "/trade-api/v2/portfolio/events/orders/o%2F1",
            {"exchange_index": "2", "market_ticker": TICKER},
            {},
        ),
        (
            WRITES["amend"],
            "POST",
            "/trade-api/v2/portfolio/events/orders/o%2F1/amend",
            {},
            {"ticker": TICKER, "side": "bid", "price": "0.4100", "count": "5.00", "exchange_index": 2},
        ),
        (
            lambda x: x.amend(
                REF, side=Side.ASK, price=Price(1), count=Count(1), expires_at=Micros(9_999_999)
            ),
            "POST",
            "/trade-api/v2/portfolio/events/orders/o%2F1/amend",
            {},
            {
                "ticker": TICKER,
                "side": "ask",
                "price": "0.0001",
                "count": "0.01",
                "exchange_index": 2,
                "expiration_time": 9,
            },
        ),
        (
            WRITES["decrease"],
            "POST",
            "/trade-api/v2/portfolio/events/orders/o%2F1/decrease",
            {},
            {"reduce_to": "1.00", "exchange_index": 2, "market_ticker": TICKER},
        ),
        (
            WRITES["cancel_batch"],
            "DELETE",
            "/trade-api/v2/portfolio/events/orders/batched",
            {},
            {"orders": [{"order_id": "o/1", "exchange_index": 2, "market_ticker": TICKER}]},
        ),
        (
            WRITES["create_group"],
            "POST",
            "/trade-api/v2/portfolio/order_groups/create",
            {},
            {"contracts_limit": 5, "exchange_index": 2},
        ),
        (
            WRITES["trigger_group"],
            "PUT",
            "/trade-api/v2/portfolio/order_groups/g/trigger",
            {"exchange_index": "2"},
            {},
        ),
        (
            WRITES["delete_group"],
            "DELETE",
            "/trade-api/v2/portfolio/order_groups/g",
            {"exchange_index": "2"},
            {},
        ),
    ],
)
async def test_what_the_other_writes_say(open_client, write, method, path, query, body):
    """Every write that takes them carries the shard and the market; a DELETE may carry a body."""
    seen = []

    def handle(request):
        seen.append(request)
        return httpx.Response(
            200, json={"reduced_by": "8.00", "order_group_id": "g", "orders": [], "remaining_count": "1.00"}
        )

    async with open_client(handle) as exchange:
        await write(exchange)

    (request,) = seen
    assert request.method == method
    assert request.url.raw_path.partition(b"?")[0].decode() == path
    assert dict(request.url.params) == query
    assert json.loads(request.content) == body
    assert request.headers["Content-Type"] == "application/json"


async def test_a_batch_cancel_has_one_result_an_order_matched_by_id(open_client):
    """Order of results is promised nowhere; a missing one is unknown, an error is told by its code."""
    refs = [port.OrderRef(order_id=OrderId(i), ticker=TICKER, exchange_index=0) for i in "abcde"]
    reply = {
        "orders": [
            {"order_id": "b", "reduced_by": "0.00", "error": {"code": "not_found", "message": "not found"}},
            {"order_id": "a", "reduced_by": "5.00"},
            {"order_id": "e", "reduced_by": "0.00", "error": {"code": "exchange_is_paused"}},
            {"order_id": "d", "reduced_by": "0.00"},
        ]
    }
    async with open_client(lambda r: httpx.Response(200, json=reply)) as exchange:
        results = await exchange.cancel_batch(refs)

    kinds = [type(result) for result in results]
    assert kinds == [
        type(None),
        port.NotRestingHere,
        port.OutcomeUnknown,
        port.NotRestingHere,
        port.TradingPaused,
    ]


async def test_an_empty_batch_is_not_sent(open_client):
    """Nothing to cancel costs nothing."""

    def handle(request):
        raise AssertionError("sent")

    async with open_client(handle) as exchange:
        assert await exchange.cancel_batch([]) == []


async def test_a_cancelled_write_raises_nothing_but_the_cancellation(open_client, autojump_clock):
    """The caller's own scope ends the request; what the write did is then unknown to everybody."""

    async def handle(request):
        await trio.sleep_forever()

    async with open_client(handle) as exchange:
        with trio.move_on_after(1) as scope:
            await exchange.place(ORDER)

    assert scope.cancelled_caught


async def test_a_subaccount_stands_on_everything(open_client):
    """Another program on another subaccount of the same key is not seen and not touched."""
    seen = []

    def handle(request):
        seen.append(request)
        if request.method == "GET":
            return httpx.Response(200, json={"fills": [], "cursor": ""})
        return httpx.Response(200, json={"reduced_by": "1.00"})

    async with open_client(handle, subaccount=7) as exchange:
        await exchange.fills_page()
        await exchange.cancel(REF)
        assert exchange.account == "venue.test/test-key/7/live"

    assert [request.url.params["subaccount"] for request in seen] == ["7", "7"]


async def test_errors_show_no_header_of_the_request(open_client):
    """The text of an error, which is logged, holds neither key id nor signature."""
    sent = {}

    def handle(request):
        sent.update(request.headers)
        raise httpx.ConnectError("refused", request=request)

    async with open_client(handle) as exchange:
        with pytest.raises(port.ExchangeUnavailable) as caught:
            await exchange.place(ORDER)

    assert sent["kalshi-access-signature"] not in str(caught.value) + repr(caught.value)
    assert "test-key" not in str(caught.value) + repr(caught.value)

"""Signatures made ahead: young, only where something will be sent, never needed, and given up where they are refused."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ed25519

from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, Side
from mm.exchange import port
from mm.exchange.kalshi import presign
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.presign import ReadySignatures

START = 1_795_400_000 * SECOND
PLACE = ("POST", "/trade-api/v2/portfolio/events/orders")
REF = port.OrderRef(order_id=OrderId("o1"), ticker=MarketTicker("M-1"), exchange_index=0)
ORDER = port.NewOrder(
    client_order_id=ClientOrderId("mm-s1-1"),
    ticker=MarketTicker("M-1"),
    side=Side.BID,
    price=Price(4100),
    count=Count(1000),
    exchange_index=0,
)


@attrs.define
class CountingSigner:
    """Signs, and says how often and where."""

    key: ed25519.Ed25519PrivateKey = attrs.field(factory=ed25519.Ed25519PrivateKey.generate)
    key_id: str = "test-key"
    signed: list[bytes] = attrs.field(factory=list)

    def sign(self, text: bytes) -> bytes:
        self.signed.append(text)
        return self.key.sign(text)


def virtual() -> Micros:
    return Micros(START + round(trio.current_time() * SECOND))


async def inline(work: Callable[[], None]) -> None:
    await trio.lowlevel.checkpoint()
    work()


@pytest.fixture(name="shelf")
async def _shelf(nursery: trio.Nursery) -> ReadySignatures:
    shelf = ReadySignatures(CountingSigner(), virtual)
    nursery.start_soon(shelf.run, inline)
    return shelf


def stamp_of(lines: bytes) -> int:
    """The timestamp in header lines, in `Micros`."""
    return int(lines.split(b"TIMESTAMP: ")[1].split(b"\r\n")[0]) * 1_000


async def test_a_path_in_use_is_ready_and_always_young(
    shelf: ReadySignatures, autojump_clock: object
) -> None:
    """Over a minute every look finds lines made ahead, none older than the limit."""
    shelf.keep(*PLACE)
    await trio.sleep(1)
    for _ in range(120):
        lines, was_ready = shelf.lines(*PLACE)
        assert was_ready
        assert 0 <= virtual() - stamp_of(lines) < presign.MAX_AGE
        await trio.sleep(0.5)
    assert shelf.in_line == 0


async def test_lines_are_what_signing_in_line_gives(shelf: ReadySignatures, autojump_clock: object) -> None:
    """The same three headers, over the same text: timestamp, method, path."""
    shelf.keep(*PLACE)
    await trio.sleep(1)
    lines, _ = shelf.lines(*PLACE)
    names = [line.split(b": ")[0] for line in lines.split(b"\r\n")[:-1]]

    assert names == [b"KALSHI-ACCESS-KEY", b"KALSHI-ACCESS-TIMESTAMP", b"KALSHI-ACCESS-SIGNATURE"]
    assert shelf.signer.signed[-1] == f"{stamp_of(lines) // 1000}{PLACE[0]}{PLACE[1]}".encode()


async def test_without_its_task_every_request_is_signed_in_line(autojump_clock: object) -> None:
    """In a cleanup nobody fills the shelf: what is on it is used while it is young, and then no more."""
    shelf = ReadySignatures(CountingSigner(), virtual)
    shelf.keep(*PLACE)
    assert not shelf.lines(*PLACE)[1]
    assert shelf.lines(*PLACE)[1]
    await trio.sleep(presign.MAX_AGE / SECOND + 0.01)
    assert not shelf.lines(*PLACE)[1]


async def test_a_clock_that_steps_makes_ready_lines_useless() -> None:
    """Forward they are old, backward they are from the future: both are signed anew."""
    now = [START]
    shelf = ReadySignatures(CountingSigner(), lambda: Micros(now[0]))
    shelf.keep(*PLACE)
    shelf.lines(*PLACE)
    for step in (-60 * SECOND, 60 * SECOND):
        now[0] += step
        lines, was_ready = shelf.lines(*PLACE)
        assert not was_ready
        assert stamp_of(lines) == now[0]


async def test_orders_are_ready_only_while_they_are_expected_to_move(
    shelf: ReadySignatures, autojump_clock: object
) -> None:
    """And at most so many at once; a new one takes the place of one that has not been expected for a while."""
    await trio.sleep(0.1)
    for number in range(200):
        shelf.expect("DELETE", f"/o/{number}")
    await trio.sleep(1)
    assert len(shelf.signer.signed) == presign.MOST_EXPECTED
    assert shelf.lines("DELETE", "/o/0")[1]
    assert not shelf.lines("DELETE", "/o/199")[1]
    await trio.sleep(4)
    shelf.expect("DELETE", "/o/199")
    await trio.sleep(1)
    assert shelf.lines("DELETE", "/o/199")[1]
    assert not shelf.lines("DELETE", "/o/0")[1]
    await trio.sleep(12)
    before = len(shelf.signer.signed)
    await trio.sleep(60)
    assert len(shelf.signer.signed) == before


async def test_nothing_is_made_ahead_when_that_is_switched_off(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    """SIGN_AHEAD=false: one signature a request, made when it is sent."""
    shelf = ReadySignatures(CountingSigner(), virtual, is_ahead=False)
    nursery.start_soon(shelf.run, inline)
    shelf.keep(*PLACE)
    await trio.sleep(10)
    assert shelf.signer.signed == []
    assert not shelf.lines(*PLACE)[1]
    assert not shelf.lines(*PLACE)[1]
    assert len(shelf.signer.signed) == 2


def test_a_key_id_that_is_no_header_value_is_refused_at_once() -> None:
    """It could otherwise smuggle a line into every request."""
    with pytest.raises(ConfigError, match="KALSHI_API_KEY"):
        ReadySignatures(CountingSigner(key_id="a\r\nX: y"), virtual)


@asynccontextmanager
async def opened(
    handler: Callable[[httpx.Request], httpx.Response], signer: CountingSigner
) -> AsyncGenerator[port.Exchange, None]:
    async def refuse(host: str, number: int) -> trio.abc.Stream:
        raise OSError("no socket here")

    async with open_kalshi(
        kalshi_options("https://venue.test/trade-api/v2", "wss://venue.test/trade-api/ws/v2"),
        signer,
        clock=virtual,
        randomness=None,  # type: ignore[arg-type]
        connect=refuse,
        transport=httpx.MockTransport(handler),
    ) as exchange:
        yield exchange


async def test_an_order_s_way_is_signed_ahead(nursery: trio.Nursery, autojump_clock: object) -> None:
    """Create from the second on, cancel and amend of what rests, the trigger of a group: no signature in line."""
    signer = CountingSigner()
    times: list[bytes] = []
    paths: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        times.append(request.headers["KALSHI-ACCESS-TIMESTAMP"])
        if request.url.path.endswith("create"):
            return httpx.Response(201, json={"order_group_id": "g1"})
        if request.method == "POST" and request.url.path.endswith("orders"):
            return httpx.Response(
                201, json={"order_id": "o1", "fill_count": "0.00", "remaining_count": "10.00"}
            )
        if request.method == "DELETE":
            paths.append(request.url.path)
            return httpx.Response(200, json={"orders": [{"order_id": "o1", "reduced_by": "10.00"}]})
        return httpx.Response(200, json={})

    async with opened(handle, signer) as exchange:
        nursery.start_soon(exchange.keep_ready)
        group = await exchange.create_group(contracts_limit=5, exchange_index=0)
        await exchange.place(ORDER)
        await trio.sleep(1)
        before = len(signer.signed)
        await exchange.place(ORDER)
        await exchange.amend(REF, side=Side.BID, price=Price(4200), count=Count(1000))
        await exchange.cancel(REF)
        await exchange.trigger_group(group, exchange_index=0)
        assert len(signer.signed) == before
        assert paths == ["/trade-api/v2/portfolio/events/orders/batched"]
        await exchange.trigger_group(GroupId("other"), exchange_index=0)
        assert len(signer.signed) == before + 1


async def test_a_venue_that_refuses_them_gets_each_signed_by_itself(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    """A 401 to a ready signature is tried once more with a fresh one; if that passes, none is made ahead any more."""
    signer = CountingSigner()
    seen: set[str] = set()

    def handle(request: httpx.Request) -> httpx.Response:
        signature = request.headers["KALSHI-ACCESS-SIGNATURE"]
        if signature in seen:
            return httpx.Response(
                401, json={"error": {"code": "authentication_error", "message": "used before"}}
            )
        seen.add(signature)
        return httpx.Response(201, json={"order_id": "o1", "fill_count": "0.00", "remaining_count": "10.00"})

    async with opened(handle, signer) as exchange:
        nursery.start_soon(exchange.keep_ready)
        for _ in range(5):
            await exchange.place(ORDER)
            await trio.sleep(1.1)
        await exchange.place(ORDER)
        await trio.sleep(0.01)
        await exchange.place(ORDER)
        await trio.sleep(10)
        before = len(signer.signed)
        for _ in range(3):
            await exchange.place(ORDER)
            await trio.sleep(0.01)
        assert len(signer.signed) == before + 3


async def test_a_bad_key_is_still_told_after_two_requests(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    """A refused key is refused with a fresh signature as well."""
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(401, json={"error": {"code": "authentication_error", "message": "no"}})

    async with opened(handle, CountingSigner()) as exchange:
        nursery.start_soon(exchange.keep_ready)
        with pytest.raises(port.AuthError):
            await exchange.place(ORDER)
        await trio.sleep(1)
        with pytest.raises(port.AuthError):
            await exchange.place(ORDER)

    assert len(calls) == 3


@pytest.mark.parametrize(
    "reply, kind",
    [
        (
            {"orders": [{"order_id": "o1", "reduced_by": "0.00", "error": {"code": "not_found"}}]},
            port.NotRestingHere,
        ),
        ({"orders": [{"order_id": "o1", "reduced_by": "0.00"}]}, port.NotRestingHere),
        ({"orders": [{"order_id": "o1"}]}, port.OutcomeUnknown),
        ({"orders": []}, port.OutcomeUnknown),
        ({"orders": [{"order_id": "o1", "error": {"code": "trading_is_paused"}}]}, port.TradingPaused),
    ],
)
async def test_a_cancel_sent_as_a_batch_of_one_fails_as_a_cancel_does(
    nursery: trio.Nursery, autojump_clock: object, reply: dict[str, object], kind: type[port.ExchangeError]
) -> None:
    """The batch's success says nothing; the one result in it does."""
    async with opened(lambda request: httpx.Response(200, json=reply), CountingSigner()) as exchange:
        nursery.start_soon(exchange.keep_ready)
        await trio.sleep(1)
        with pytest.raises(kind):
            await exchange.cancel(REF)


async def test_other_shards_pay_their_own_cancels(nursery: trio.Nursery, autojump_clock: object) -> None:
    """A batch is billed to shard 0, whatever is in it: elsewhere an order is cancelled by its own path."""
    seen = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, json={"order_id": "o1", "reduced_by": "10.00"})

    async with opened(handle, CountingSigner()) as exchange:
        nursery.start_soon(exchange.keep_ready)
        await trio.sleep(1)
        assert await exchange.cancel(attrs.evolve(REF, exchange_index=3)) == 1_000
    assert seen == ["/trade-api/v2/portfolio/events/orders/o1"]

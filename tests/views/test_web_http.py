"""One HTTP connection: what a client does wrong, too slowly or not at all costs its own connection only."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from mm.views.web.http import (
    MAX_BODY,
    REQUEST_S,
    WRITE_S,
    Request,
    Response,
    Send,
    Streaming,
    serve_connection,
)
from web_rig import Client

Answer = Callable[[Request], Awaitable[Response | Streaming]]


async def echo(request: Request) -> Response:
    """What was asked for, as the answer's body."""
    return Response(body=f"{request.method} {request.path}?{request.query} {request.body!r}".encode())


async def flood(request: Request) -> Streaming:
    """An answer that never ends."""

    async def run(send: Send) -> None:
        while True:
            await send(b"x" * 10_000)

    return Streaming(run=run, content_type="text/plain")


async def raw(data: bytes, handler: Answer = echo) -> bytes:
    """Send bytes, say no more, and return everything that comes back."""
    near, far = trio.testing.memory_stream_pair()
    found = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, far, handler)
        await near.send_all(data)
        await near.send_stream.aclose()
        while chunk := await near.receive_some(65_536):
            found += bytes(chunk)
    return found


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """Two requests on one connection get two answers."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, far, echo)
        client = Client(near)
        for path in ("/one?a=b", "/two"):
            head = await client.get(path)
            assert head.status_code == 200
            assert (await client.body()).decode().startswith(f"GET {path}")
            client.parser.start_next_cycle()
        await near.aclose()


async def test_head_gets_the_headers_and_no_body() -> None:
    """HEAD tells the length of what GET would send."""
    answer = await raw(b"HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: 12" in head.lower()
    assert body == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n" + b"z" * 9_999, b"413"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ],
    ids=["nonsense", "no host", "two hosts", "long head", "long body", "TLS"],
)
async def test_bad_requests_are_refused_and_closed(data: bytes, status: bytes) -> None:
    """What is no request gets a status that says so (or nothing), and the connection is closed."""
    answer = await raw(data)

    assert answer[9:12] == status


async def test_a_body_up_to_the_bound_is_taken() -> None:
    """The bound itself is allowed."""
    head = f"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {MAX_BODY}\r\n\r\n".encode()

    assert (await raw(head + b"z" * MAX_BODY)).startswith(b"HTTP/1.1 200")


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    """curl asks before it sends a body."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, far, echo)
        await near.send_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert bytes(await near.receive_some(1_000)).startswith(b"HTTP/1.1 100")
        await near.send_all(b"{}")
        assert bytes(await near.receive_some(1_000)).startswith(b"HTTP/1.1 200")
        await near.aclose()


async def test_a_client_that_says_nothing_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    """Half a request, or none, is waited for no longer than the bound."""
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(b"GET / HT")
    started = trio.current_time()
    await serve_connection(far, echo)

    assert trio.current_time() - started == pytest.approx(REQUEST_S)


async def test_a_client_that_does_not_read_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    """An answer that nobody takes is not sent for ever."""
    near, far = trio.testing.lockstep_stream_pair()
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, far, flood)
        await near.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await near.receive_some(100)

    assert trio.current_time() - started == pytest.approx(WRITE_S)


async def test_a_client_that_does_not_read_keeps_nobody_from_ending(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A cancelled server ends at once, whatever its clients do (see docs/adr/0009)."""
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, far, flood)
        await near.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await near.receive_some(100)
        await trio.sleep(1)
        cancelled_at = trio.current_time()
        nursery.cancel_scope.cancel()

    assert trio.current_time() == cancelled_at

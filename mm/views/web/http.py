"""HTTP/1.1 for one connection, on h11 and any trio stream. What is answered is the handler's business.

Every read and every write has a deadline and none is shielded: a browser that stops reading loses its connection and
keeps nobody from ending.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs
import h11
import trio

MAX_HEAD: Final = 16_384
MAX_BODY: Final = 4_096
RECEIVE_SIZE: Final = 16_384
REQUEST_S: Final = 20.0
"""From the first wait for a request to its last byte; also how long an idle connection is kept."""
WRITE_S: Final = 10.0
"""For one piece of an answer to reach the client's side of the wire."""

Send = Callable[[bytes], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Request:
    """A whole request."""

    method: str
    path: str
    """Without the query; percent escapes as they came."""
    query: str = ""
    headers: dict[str, str] = attrs.field(factory=dict)
    """Names in lower case; of a repeated one the last. h11 refuses a repeated Host."""
    body: bytes = b""


@attrs.frozen(kw_only=True)
class Response:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen(kw_only=True)
class Streaming:
    """An answer that goes on for as long as `run` does; the connection is closed after it."""

    run: Callable[[Send], Awaitable[None]]
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


class Handler(Protocol):
    """Answers requests."""

    async def __call__(self, request: Request, /) -> Response | Streaming: ...


class _TooLarge(Exception):
    """A body beyond `MAX_BODY`."""


async def serve_connection(stream: trio.abc.Stream, handler: Handler) -> None:
    """Answer requests until either side has had enough; the stream is closed afterwards.

    What the client does wrong or fails to do ends this connection only. Raises what the handler raises.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        while True:
            request = None
            with trio.move_on_after(REQUEST_S):
                request = await _read_request(connection, stream)
            if request is None:
                return
            await _answer(connection, stream, request, await handler(request))
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
    except h11.RemoteProtocolError as exc:
        await _refuse(connection, stream, exc.error_status_hint, str(exc))
    except _TooLarge:
        await _refuse(connection, stream, 413, "too large")
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        return  # gone, or not reading any more: nobody is left to tell
    finally:
        await trio.aclose_forcefully(stream)


async def _read_request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                await _send(stream, connection.send(h11.InformationalResponse(status_code=100, headers=[])))
            connection.receive_data(bytes(await stream.receive_some(RECEIVE_SIZE)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if len(body) > MAX_BODY:
                raise _TooLarge
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _as_request(head, body)
        else:
            return None  # closed between two requests


def _as_request(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("latin-1").partition("?")
    return Request(
        method=head.method.decode("ascii"),
        path=path,
        query=query,
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        body=body,
    )


async def _answer(
    connection: h11.Connection, stream: trio.abc.Stream, request: Request, answer: Response | Streaming
) -> None:
    headers = [("content-type", answer.content_type), *answer.headers]
    if isinstance(answer, Streaming):
        headers.append(("connection", "close"))
        await _send(stream, connection.send(h11.Response(status_code=200, headers=headers)))

        async def send(data: bytes) -> None:
            await _send(stream, connection.send(h11.Data(data=data)))

        if request.method != "HEAD":
            await answer.run(send)
        await _send(stream, connection.send(h11.EndOfMessage()))
        return
    if answer.status != 304:
        headers.append(("content-length", str(len(answer.body))))
    data = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    if request.method != "HEAD" and answer.body:
        data += connection.send(h11.Data(data=answer.body)) or b""
    await _send(stream, data + (connection.send(h11.EndOfMessage()) or b""))


async def _refuse(connection: h11.Connection, stream: trio.abc.Stream, status: int, why: str) -> None:
    """Tell the client what it did wrong, if it still listens."""
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    body = why.encode()
    headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    try:
        data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        data += connection.send(h11.Data(data=body)) or b""
        await _send(stream, data + (connection.send(h11.EndOfMessage()) or b""))
    except (h11.LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        return


async def _send(stream: trio.abc.Stream, data: bytes | None) -> None:
    """Raises `trio.TooSlowError` when the client does not take it in time."""
    with trio.fail_after(WRITE_S):
        await stream.send_all(data or b"")

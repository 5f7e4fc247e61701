"""HTTP/1.1 on h11 over any trio stream: requests in, responses out, and the upgrade to something else.

Knows nothing of the exchange. A peer may send anything: what is not a request is answered with 4xx and the
connection is closed; nothing here raises for the peer's mistakes, and no wait for the peer is without a limit.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl, unquote

import attrs
import h11
import orjson
import trio

READ_SIZE: Final = 65_536
_JSON: Final = ("Content-Type", "application/json")


@attrs.frozen(kw_only=True)
class HttpLimits:
    """What a peer may make us hold or wait for. Bytes and seconds."""

    max_header_bytes: int = 65_536
    max_body_bytes: int = 1_048_576
    idle_s: float = 120.0
    """Between two requests on a kept connection."""
    request_s: float = 15.0
    """From the first byte of a request to its last."""
    send_s: float = 30.0
    """For the peer to take a whole response."""


@attrs.frozen(kw_only=True)
class Request:
    """A request as it came, body read to its end. Header names are lower case, the last of equal names wins."""

    method: str
    raw_path: str
    """Without the query, not decoded: the text that is signed."""
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter; an empty one counts as absent."""
        for key, value in self.query:
            if key == name and value:
                return value
        return None


@attrs.frozen(kw_only=True)
class Response:
    """An answer with a body of bytes."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    truncate: bool = False
    """Hang up in the middle of the body, on purpose."""

    @classmethod
    def json(cls, status: int, content: object, *, headers: tuple[tuple[str, str], ...] = ()) -> "Response":
        """A JSON answer, keys in alphabetical order as on the real wire."""
        body = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        return cls(status=status, body=body, headers=(_JSON, *headers))


@attrs.frozen(kw_only=True)
class Upgrade:
    """The connection leaves HTTP: `headers` go out with the 101, then `run(stream, first_bytes)` owns it."""

    headers: tuple[tuple[str, str], ...]
    run: Callable[[trio.abc.Stream, bytes], Awaitable[None]]


class CutConnection(Exception):
    """Raised by a handler: drop this connection now, without an answer."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("connection cut on purpose")
        self.reset = reset


Handler = Callable[[Request], Awaitable[Response | Upgrade]]


class _Refused(Exception):
    """What the peer sent is no request that we take; `status` and `details` make the answer."""

    def __init__(self, status: int, details: str) -> None:
        super().__init__(details)
        self.status = status
        self.details = details


def bad_request(status: int, details: str) -> Response:
    """The answer to something that is not a proper request; the connection ends with it."""
    code = {413: "request_too_large", 408: "request_timeout"}.get(status, "bad_request")
    content = {"code": code, "message": code.replace("_", " "), "details": details}
    return attrs.evolve(Response.json(status, content), close=True)


async def serve_connection(
    stream: trio.abc.Stream,
    handler: Handler,
    *,
    limits: HttpLimits | None = None,
    date: Callable[[], str] | None = None,
) -> None:
    """Serve one connection until either side ends it. Closes the stream, also when cancelled.

    `date` makes the Date header; None leaves it out (a simulation must not read the clock behind one's back).
    """
    server = _HttpConnection(stream, handler, limits or HttpLimits(), date)
    try:
        await server.serve()
    except CutConnection as cut:
        if cut.reset:
            reset_on_close(stream)
        await trio.aclose_forcefully(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        await trio.aclose_forcefully(stream)
    finally:
        with trio.move_on_after(1.0, shield=True):
            await stream.aclose()


def reset_on_close(stream: trio.abc.Stream) -> None:
    """Make the coming close a RST where the stream is a socket; memory streams are simply closed."""
    if isinstance(stream, trio.SocketStream):
        # l_onoff=1, l_linger=0: close discards what is queued and sends RST.
        stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class _HttpConnection:
    """One HTTP connection: the h11 state, the stream, the loop."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: Handler,
        limits: HttpLimits,
        date: Callable[[], str] | None,
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._limits = limits
        self._date = date
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)

    async def serve(self) -> None:
        """Request after request, until the connection is not reusable any more."""
        while True:
            try:
                request = await self._read_request()
            except h11.RemoteProtocolError as error:
                # h11's hint is 400, 431 (header too long) or 501.
                await self._refuse(error.error_status_hint, str(error))
                return
            except _Refused as refused:
                await self._refuse(refused.status, refused.details)
                return
            if request is None:
                return
            answer = await self._handler(request)
            if isinstance(answer, Upgrade):
                await self._upgrade(answer)
                return
            await self._send(answer, head_only=request.method == "HEAD")
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                await self._linger()
                return
            self._h11.start_next_cycle()

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                await self._stream.send_all(self._h11.send(go_on) or b"")
            self._h11.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))

    async def _read_request(self) -> Request | None:
        """The next request; None when the peer is done or stayed idle too long."""
        with trio.move_on_after(self._limits.idle_s) as scope:
            if not self._h11.trailing_data[0]:
                self._h11.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))
        if scope.cancelled_caught:
            return None
        with trio.move_on_after(self._limits.request_s):
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                return None
            return _to_request(head, await self._read_body(head))
        raise _Refused(408, "the request did not arrive in time")

    async def _read_body(self, head: h11.Request) -> bytes:
        for name, value in head.headers:
            # The length of the number first: int() refuses thousands of digits with an error of its own.
            if name == b"content-length" and (len(value) > 18 or int(value) > self._limits.max_body_bytes):
                raise _Refused(413, f"the body is larger than {self._limits.max_body_bytes} bytes")
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.max_body_bytes:
                    raise _Refused(413, f"the body is larger than {self._limits.max_body_bytes} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                # The peer went away in the middle, or asks for a protocol we did not offer.
                raise _Refused(400, "the request has no end")

    async def _send(self, answer: Response, *, head_only: bool = False) -> None:
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        if answer.status == 204:
            headers = list(answer.headers)
        if self._date is not None:
            headers.append(("Date", self._date()))
        if answer.close:
            headers.append(("Connection", "close"))
        response = h11.Response(status_code=answer.status, headers=headers, reason=_reason(answer.status))
        out = self._h11.send(response) or b""
        if answer.truncate:
            out += answer.body[: len(answer.body) // 2]
            with trio.fail_after(self._limits.send_s):
                await self._stream.send_all(out)
            raise CutConnection
        if answer.body and not head_only and answer.status != 204:
            out += self._h11.send(h11.Data(data=answer.body)) or b""
        out += self._h11.send(h11.EndOfMessage()) or b""
        with trio.fail_after(self._limits.send_s):
            await self._stream.send_all(out)

    async def _refuse(self, status: int, details: str) -> None:
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send(bad_request(status, details))
        await self._linger()

    async def _linger(self) -> None:
        """Let the peer read our last words: closing with its bytes unread would reset the connection."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        with trio.move_on_after(1.0):
            while await self._stream.receive_some(READ_SIZE):
                pass

    async def _upgrade(self, answer: Upgrade) -> None:
        switch = h11.InformationalResponse(
            status_code=101, headers=list(answer.headers), reason=b"Switching Protocols"
        )
        first_bytes, _ = self._h11.trailing_data
        with trio.fail_after(self._limits.send_s):
            await self._stream.send_all(self._h11.send(switch) or b"")
        await answer.run(self._stream, first_bytes)


def _to_request(head: h11.Request, body: bytes) -> Request:
    target = head.target.decode("latin-1")
    if target.startswith(("http://", "https://")):
        # Absolute form, as to a proxy: legal, the authority is ignored.
        target = "/" + target.split("://", 1)[1].partition("/")[2]
    raw_path, _, query = target.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=2_000)
        path = unquote(raw_path, errors="strict")
    except ValueError:
        raise _Refused(400, "the request target is not UTF-8") from None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(
        method=head.method.decode("ascii"),
        raw_path=raw_path,
        path=path,
        query=tuple(pairs),
        headers=headers,
        body=body,
    )


_REASONS: Final = {
    200: b"OK",
    201: b"Created",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    413: b"Content Too Large",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def _reason(status: int) -> bytes:
    return _REASONS.get(status, b"")

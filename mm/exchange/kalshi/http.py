"""HTTP/1.1 over warm streams: what an order takes from its body to the wire, and from the wire to its answer.

The fast path: one request at a time on a connection, the whole request in one write, a plain answer (a head without
surprises, a body of known length) cut out of the read by one regular expression. Anything else that HTTP allows goes to
h11, from the answer's first byte; the two are held together by a differential test. What a failure proves is in its
type: `NotSent`, or `AnswerLost`. A connection on which anything went wrong, a cancellation included, is closed.
"""

import re
import ssl
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NoReturn, Protocol, final

import attrs
import h11
import trio

from mm.exchange.kalshi.options import Address, Connect

MAX_HEAD: Final = 65_536
MAX_BODY: Final = 64 * 2**20
"""Bytes: a page of a thousand markets is a fiftieth of it."""
READ_BYTES: Final = 65_536
SETTLE_S: Final = 0.25
"""How long a fresh TLS connection is read for the tickets that servers send behind the handshake."""

_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [ -~]*)?\r\n((?:[-A-Za-z0-9]+:[ ]?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
"""A plain head; one that a server may send and that does not fit is h11's to judge."""
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
"""As h11 finds it."""
_LENGTH: Final = re.compile(rb"(?:^|\n)content-length: ?([0-9]{1,9})\r")
_CONNECTION: Final = re.compile(rb"(?:^|\n)connection: ?([^\r]*)\r")
_ODD: Final = (b"transfer-encoding", b"content-encoding", b"upgrade")
_NO_BODY: Final = (b"204", b"304")


class NotSent(Exception):
    """Nothing of the request has left: there was no connection to send it on."""


class AnswerLost(Exception):
    """The request, or a part of it, may have been read, and no whole answer came."""


@attrs.frozen
class Reply:
    """An answer: what it says, whole."""

    status: int
    content: bytes
    fields: bytes = b""
    """The head's lines after the first, as they came."""

    @property
    def phrase(self) -> str:
        """The status in words; empty where it has none."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return ""

    def header(self, name: str) -> str | None:
        """The first field of that name."""
        wanted = name.lower().encode("ascii")
        for line in self.fields.split(b"\r\n"):
            key, _, value = line.partition(b":")
            if key.lower() == wanted:
                return value.strip().decode("latin-1")
        return None


class HttpClient(Protocol):
    """Sends one request and reads its answer. Usable by any number of tasks at once."""

    async def request(self, method: str, target: str, fields: bytes, body: bytes | None) -> Reply:
        """Send and read, within the client's own deadline.

        Args:
            method: GET, POST, PUT or DELETE.
            target: Path and query, already escaped.
            fields: Header lines, each with its line end; host and length are the client's.
            body: None where a request has none (GET).

        Raises:
            NotSent: Nothing of it left. The text says why.
            AnswerLost: No whole answer: broken, cut, unreadable, too late.
        """


# --- one answer, without IO -------------------------------------------------------------------------------------------


class BadAnswer(Exception):
    """What came is no answer, or ended before it was whole."""


@final
@attrs.define(eq=False)
class ReplyReader:
    """Bytes in, one answer out; the same for any cut of the byte stream."""

    method: str
    keeps: bool = False
    """Once the answer is there: whether the connection may be used again."""
    _parts: list[bytes] = attrs.field(factory=list)
    _have: int = 0
    _need: int = 0
    """Length of head and body together, once the head is known; 0 before."""
    _head: "re.Match[bytes] | None" = None
    _careful: "_CarefulReader | None" = None

    def receive(self, data: bytes | bytearray) -> Reply | None:
        """The answer once these bytes complete it; `b""` is the end of the stream. Raises `BadAnswer`."""
        if self._careful is not None:
            return self._by_h11(data)
        if not data:
            return self._by_h11(b"".join(self._parts), is_end=True)
        self._parts.append(bytes(data))
        self._have += len(data)
        if self._have < self._need:
            return None
        buffer = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if not self._need:
            self._parts = [buffer]
            head = _HEAD.match(buffer)
            if head is None or (length := _plain_length(head)) is None:
                if head is None and len(buffer) < MAX_HEAD and not _END_OF_HEAD.search(buffer):
                    return None  # not whole yet: h11 is asked when it is
                return self._by_h11(buffer)
            self._head, self._need = head, head.end() + length
            if self._have < self._need:
                return None
        assert self._head is not None
        self.keeps = self._have == self._need
        return Reply(int(self._head[1]), buffer[self._head.end() : self._need], self._head[2])

    def _by_h11(self, data: bytes | bytearray, *, is_end: bool = False) -> Reply | None:
        if self._careful is None:
            self._careful = _CarefulReader(self.method)
        reply = self._careful.receive(data)
        if is_end and data and reply is None:
            reply = self._careful.receive(b"")
        self.keeps = self._careful.keeps
        return reply


def _plain_length(head: "re.Match[bytes]") -> int | None:
    """The length of the body where the head says it plainly; None where h11 should read it."""
    fields = head[2].lower()
    if any(word in fields for word in _ODD) or head[1] in _NO_BODY:
        return None
    lengths = _LENGTH.findall(fields)
    connection = _CONNECTION.findall(fields)
    if len(lengths) != 1 or fields.count(b"content-length") != 1 or connection not in ([], [b"keep-alive"]):
        return None
    length = int(lengths[0])
    return length if length <= MAX_BODY else None


class _CarefulReader:
    """The same by h11: chunks, encodings, interim answers, answers that end with the connection."""

    def __init__(self, method: str) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._connection.send(h11.Request(method=method, target="/", headers=[("Host", "venue")]))
        self._connection.send(h11.EndOfMessage())
        self._response: h11.Response | None = None
        self._body = bytearray()
        self.keeps = False

    def receive(self, data: bytes | bytearray) -> Reply | None:
        try:
            self._connection.receive_data(bytes(data))
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.Response):
                    self._response = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY:
                        raise BadAnswer("a body without end")
                elif isinstance(event, h11.EndOfMessage):
                    return self._finish()
                elif not isinstance(event, h11.InformationalResponse):
                    raise BadAnswer("the server closed the connection without an answer")
        except h11.RemoteProtocolError as error:
            raise BadAnswer(str(error)) from None

    def _finish(self) -> Reply:
        assert self._response is not None
        connection = self._connection
        self.keeps = (
            connection.their_state is h11.DONE
            and connection.our_state is h11.DONE
            and connection.trailing_data == (b"", False)
        )
        raw = [bytes(name) + b": " + bytes(value) for name, value in self._response.headers.raw_items()]
        reply = Reply(self._response.status_code, bytes(self._body), b"\r\n".join(raw))
        encoding = (reply.header("content-encoding") or "identity").strip().lower()
        return reply if encoding == "identity" else attrs.evolve(reply, content=_decoded(encoding, reply))


def _decoded(encoding: str, reply: Reply) -> bytes:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadAnswer(f"content encoding {encoding}")
    try:
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
        content = unpack.decompress(reply.content, MAX_BODY)
    except zlib.error as error:
        raise BadAnswer(f"content encoding {encoding}: {error}") from None
    if unpack.unconsumed_tail or not unpack.eof:
        raise BadAnswer(f"content encoding {encoding}: not whole, or without end")
    return content


# --- connections ------------------------------------------------------------------------------------------------------


@final
@attrs.define(eq=False)
class _Idle:
    """A connection that waits for its next request."""

    stream: trio.abc.Stream
    since: float


@final
@attrs.define(eq=False, kw_only=True)
class WarmHttp:
    """Connections to one server, kept open between requests. No task lives here unless `keep_warm` is run."""

    connect: Connect
    address: Address
    ssl_context: ssl.SSLContext | None
    deadline_s: float
    """A request's whole time, waiting for a connection included."""
    connect_timeout_s: float
    """Waiting for a free connection, and making one, each: shorter than the deadline, so that "never sent" can be told."""
    most: int = 20
    warm: int = 4
    keep_s: float = 20.0
    """An idle connection is given up after so long: servers close theirs some time, too, and ours must be first."""
    busy: int = 0
    dialled: int = 0
    _idle: list[_Idle] = attrs.field(factory=list)
    """Newest last, and used first: what is needed only in bursts grows old and goes."""
    _slots: trio.Semaphore = attrs.field(init=False)
    _host: bytes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = trio.Semaphore(self.most)
        self._host = b" HTTP/1.1\r\nHost: " + self.address.netloc.encode("ascii") + b"\r\n"

    async def request(self, method: str, target: str, fields: bytes, body: bytes | None) -> Reply:
        """See `HttpClient`. A cancellation closes the connection."""
        head = f"{method} {target}".encode("ascii") + self._host + fields
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        data = head + length + b"\r\n" + (body or b"")
        is_sent = False
        try:
            with trio.fail_after(self.deadline_s):
                await self._wait_for_slot()
                self.busy += 1
                try:
                    stream = await self._take()
                    is_sent = True
                    return await self._exchange(stream, method, data)
                finally:
                    self.busy -= 1
                    self._slots.release()
        except trio.TooSlowError:
            kind: Callable[[str], Exception] = AnswerLost if is_sent else NotSent
            raise kind(f"no answer within {self.deadline_s:g} s") from None

    async def _wait_for_slot(self) -> None:
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(self.connect_timeout_s):
                await self._slots.acquire()
                return
            raise NotSent(f"no free connection within {self.connect_timeout_s:g} s") from None

    async def _exchange(self, stream: trio.abc.Stream, method: str, data: bytes) -> Reply:
        reader = ReplyReader(method)
        reply: Reply | None = None
        try:
            await stream.send_all(data)
            while reply is None:
                reply = reader.receive(await stream.receive_some(READ_BYTES))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, BadAnswer) as error:
            raise AnswerLost(_why(error)) from error
        finally:
            if reply is not None and reader.keeps:
                self._idle.append(_Idle(stream, trio.current_time()))
            else:
                await _discard(stream)
        return reply

    async def _take(self) -> trio.abc.Stream:
        """An idle connection that is still whole, else a new one. Raises `NotSent`."""
        while self._idle:
            idle = self._idle.pop()
            if trio.current_time() - idle.since < self.keep_s and not has_input(idle.stream):
                return idle.stream
            await _discard(idle.stream)
        return await self._dial()

    async def _dial(self) -> trio.abc.Stream:
        self.dialled += 1
        stream: trio.abc.Stream | None = None
        is_whole = False
        try:
            with trio.fail_after(self.connect_timeout_s):
                stream = await self.connect(self.address.host, self.address.port)
                if self.address.is_secure:
                    assert self.ssl_context is not None
                    secure = trio.SSLStream(
                        stream, self.ssl_context, server_hostname=self.address.host, https_compatible=True
                    )
                    await secure.do_handshake()
                    stream = secure
            is_whole = True
            return stream
        except trio.TooSlowError:
            raise NotSent(f"no connection within {self.connect_timeout_s:g} s") from None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NotSent(_why(error)) from error
        finally:
            if stream is not None and not is_whole:
                await _discard(stream)

    async def keep_warm(self) -> NoReturn:
        """Keep a few connections ready, so that an order waits for no handshake. Never returns.

        Cancelled: what was being dialled is closed; the others stay until `aclose`.
        """
        while True:
            await self._drop_old()
            try:
                while len(self._idle) < min(self.warm, self._slots.value):
                    await self._add_warm()
            except NotSent:
                pass  # requests tell it; the next look tries again
            await trio.sleep(1.0)

    async def _add_warm(self) -> None:
        self._slots.acquire_nowait()  # what is being dialled counts: a request that waits meanwhile gets it
        try:
            await self._dial_warm()
        finally:
            self._slots.release()

    async def _dial_warm(self) -> None:
        stream = await self._dial()
        is_whole = False
        try:
            if isinstance(stream, trio.SSLStream):
                # Tickets lie unread behind the handshake: read now, so that later "something to read" means closed.
                with trio.move_on_after(SETTLE_S):
                    await stream.receive_some(1)
                    raise NotSent("closed behind the handshake")
            is_whole = True
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NotSent(_why(error)) from error
        finally:
            if is_whole:
                self._idle.insert(0, _Idle(stream, trio.current_time()))
            else:
                await _discard(stream)

    async def _drop_old(self) -> None:
        now = trio.current_time()
        old = [idle for idle in self._idle if now - idle.since >= self.keep_s or has_input(idle.stream)]
        for idle in old:
            self._idle.remove(idle)
        for idle in old:
            await _discard(idle.stream)

    async def aclose(self) -> None:
        """Close the idle connections; those in use are their requests' own."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await _discard(connection.stream)


def has_input(stream: trio.abc.Stream) -> bool:
    """Whether an idle stream has something to read: its end, or what nobody asked for. Never waits."""
    inner: Any = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    source = getattr(inner, "socket", inner)
    probe: Callable[[], bool] | None = getattr(source, "is_readable", None)
    return probe() if probe is not None else False


async def _discard(stream: trio.abc.Stream) -> None:
    """Close at once, without a goodbye, also when we are being cancelled."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def _why(error: BaseException) -> str:
    while not str(error) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__

"""The order client: what it sends, what it reads, and what is left after every kind of trouble."""

import random
import ssl
import zlib

import h11
import pytest
import trio
import trio.testing
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.exchange.kalshi.http import AnswerLost, BadAnswer, NotSent, Reply, ReplyReader, WarmHttp
from mm.exchange.kalshi.options import Address

PLAIN = Address("http", "venue.test", 80, "")
SECURE = Address("https", "venue.test", 443, "")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


# --- answers, by the fast reader and by h11 ---------------------------------------------------------------------------


def by_h11(data: bytes, method: str) -> tuple[int, bytes, bool] | None:
    """The plain library's reading of a whole stream: status, body, whether the connection may go on; None: no answer."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=65_536)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(data)
        is_over = False
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if is_over:
                    return None
                is_over = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                keeps = connection.their_state is h11.DONE and connection.our_state is h11.DONE
                return status, body, keeps and not is_over and connection.trailing_data[0] == b""
            elif isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


def by_reader(pieces: list[bytes], method: str) -> tuple[int, bytes, bool] | None:
    """Ours, piece by piece, the end of the stream behind them. Bytes after the answer make the connection unusable."""
    reader = ReplyReader(method)
    try:
        for number, piece in enumerate(pieces):
            reply = reader.receive(piece)
            if reply is not None:
                return reply.status, reply.content, reader.keeps and number == len(pieces) - 1
        reply = reader.receive(b"")
        return None if reply is None else (reply.status, reply.content, False)
    except BadAnswer:
        return None


NAMES = st.sampled_from(
    ["Content-Type", "Date", "X-Request-Id", "Retry-After", "Connection", "Vary", "content-length"]
)
VALUES = st.sampled_from(
    ["keep-alive", "close", "application/json", "1", "a b", "", "\t x", "caf\xe9", "0", "Keep-Alive"]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer as servers send them, and as they should not: odd heads, lengths that lie, chunks, interim answers."""
    body = draw(st.binary(max_size=200))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 401, 404, 409, 429, 500, 503, 999]))
    reason = draw(st.sampled_from(["OK", "", "Not Found", "caf\xe9"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0"]))
    end = draw(st.sampled_from(["\r\n"] * 8 + ["\n"]))
    lines = [
        f"HTTP/{version} {status} {reason}" if draw(st.booleans()) or reason else f"HTTP/{version} {status}"
    ]
    lines += [
        f"{name}:{' ' * draw(st.integers(0, 2))}{value}"
        for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    ]
    kind = draw(st.sampled_from(["length"] * 6 + ["lie", "chunked", "close", "twice"]))
    if kind in ("length", "twice"):
        lines.append(f"Content-Length: {len(body)}")
    if kind == "twice":
        lines.append(f"Content-Length: {len(body) + draw(st.integers(0, 1))}")
    if kind == "lie":
        lines.append(f"Content-Length: {max(len(body) + draw(st.integers(-5, 5)), 0)}")
    if kind == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" if draw(st.integers(0, 9)) == 0 else b""
    behind = draw(st.binary(max_size=3)) if draw(st.integers(0, 5)) == 0 else b""
    data = interim + end.join([*lines, "", ""]).encode("latin-1") + body + behind
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 5)) == 0 else data


@settings(max_examples=600, deadline=None)
@given(answers(), st.sampled_from(["GET", "POST", "DELETE"]), st.randoms(use_true_random=False))
def test_any_cut_of_any_answer_reads_as_h11_reads_it(data: bytes, method: str, chance: random.Random) -> None:
    """Status, body and whether the connection may go on; whole, byte by byte, and cut at random."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    expected = by_h11(data, method)
    for cut in ([data] if data else [], pieces, [data[i : i + 1] for i in range(len(data))]):
        found = by_reader(cut, method)
        if found is None or expected is None:
            assert found is None, (found, expected)
            assert expected is None, (found, expected)
        else:
            assert found[:2] == expected[:2]
            # Cut behind the answer, ours has not seen what follows; the connection is judged when it is next taken.
            assert found[2] == expected[2] or (len(cut) > 1 and not expected[2])


def test_compressed_answers_are_unpacked() -> None:
    """Nobody asks for it, but a proxy may do it all the same."""
    packed = zlib.compress(b'{"a":1}')
    data = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    )

    assert ReplyReader("GET").receive(data) == Reply(200, b'{"a":1}', data[17 : data.index(b"\r\n\r\n")])


@pytest.mark.parametrize(
    "encoding, body", [("br", b"x"), ("gzip", b"nonsense"), ("gzip", zlib.compress(b"x")[:-2])]
)
def test_what_cannot_be_unpacked_is_no_answer(encoding: str, body: bytes) -> None:
    """A reply that nobody can read leaves the outcome open."""
    data = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (
        encoding.encode(),
        len(body),
    )
    with pytest.raises(BadAnswer):
        ReplyReader("GET").receive(data + body)


# --- requests, by a strict server -------------------------------------------------------------------------------------


async def read_request(
    stream: trio.abc.Stream, connection: h11.Connection
) -> tuple[h11.Request, bytes] | None:
    """One request, read by the plain library in its strict role; None at the end of the connection."""
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return request, body
        else:
            return None


class Server:
    """Answers requests in memory; `script` may answer, hang, cut, or close."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.streams: list[trio.StapledStream] = []
        self.seen: list[tuple[str, bytes, dict[str, str], bytes]] = []
        self.answer = OK
        self.context: ssl.SSLContext | None = None
        self.hangs = False
        self.refuses = False
        self.open_most = 0
        self.open_now = 0

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        assert host == "venue.test"
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.streams.append(theirs)
        self.nursery.start_soon(self.serve, theirs)
        return ours

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            if self.context is not None:
                stream = trio.SSLStream(stream, self.context, server_side=True, https_compatible=True)
            connection = h11.Connection(h11.SERVER)
            while (found := await read_request(stream, connection)) is not None:
                request, body = found
                headers = {bytes(k).decode(): bytes(v).decode() for k, v in request.headers}
                self.seen.append((bytes(request.method).decode(), bytes(request.target), headers, body))
                if self.hangs:
                    await trio.sleep_forever()
                connection.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
                connection.send(h11.Data(data=b"{}"))
                connection.send(h11.EndOfMessage())
                await stream.send_all(self.answer)
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            self.open_now -= 1


def client(server: Server, address: Address = PLAIN, **overrides: object) -> WarmHttp:
    options = {
        "connect": server.connect,
        "most": 3,
        "warm": 2,
        "ssl_context": None,
        "deadline_s": 4.0,
        "connect_timeout_s": 3.0,
    } | overrides
    return WarmHttp(address=address, **options)  # type: ignore[arg-type]


@pytest.fixture(name="server")
async def _server(nursery: trio.Nursery) -> Server:
    return Server(nursery)


async def test_a_strict_server_reads_what_was_meant(server: Server, autojump_clock: object) -> None:
    """Method, target, fields and body come out of h11 as they went in, over one connection."""
    http = client(server)
    for method, body in (("GET", None), ("POST", b'{"a":1}'), ("PUT", b""), ("DELETE", b"{}")):
        assert await http.request(
            method, "/a/b%2F?x=1", b"Accept: application/json\r\nX: y\r\n", body
        ) == Reply(200, b"{}", OK[17 : OK.index(b"\r\n\r\n") + 2])
    assert [(method, target, body) for method, target, _, body in server.seen] == [
        ("GET", b"/a/b%2F?x=1", b""),
        ("POST", b"/a/b%2F?x=1", b'{"a":1}'),
        ("PUT", b"/a/b%2F?x=1", b""),
        ("DELETE", b"/a/b%2F?x=1", b"{}"),
    ]
    expected = {"host": "venue.test", "accept": "application/json", "x": "y"}
    assert [headers for *_, headers, _ in server.seen] == [
        expected,
        expected | {"content-length": "7"},
        expected | {"content-length": "0"},
        expected | {"content-length": "2"},
    ]
    assert http.dialled == 1


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", OK[:-1], b"nonsense\r\n\r\n"], ids=["none", "cut", "short", "odd"]
)
async def test_a_connection_that_ends_early_leaves_the_outcome_open(
    server: Server, answer: bytes, autojump_clock: object
) -> None:
    """Also a kept one that the server closed before it read: nothing proves that it had not read. Then it works again."""
    http = client(server)
    await http.request("GET", "/", b"", None)
    server.answer = answer

    async with trio.open_nursery() as nursery:
        nursery.start_soon(self_close, server, len(server.seen) + 1)
        with pytest.raises(AnswerLost):
            await http.request("POST", "/", b"", b"{}")
    server.answer = OK

    assert (await http.request("POST", "/", b"", b"{}")).status == 200
    assert http.dialled == 2


async def self_close(server: Server, after: int) -> None:
    """Close the server's end once it has seen so many requests."""
    while len(server.seen) < after:
        await trio.sleep(0.01)
    await trio.sleep(0.05)
    await server.streams[-1].send_stream.aclose()


async def test_an_idle_connection_that_was_closed_is_not_used(server: Server, autojump_clock: object) -> None:
    """The end lies in the socket and is seen before anything is sent: the request goes out on a new connection."""

    async def closing(host: str, port: int) -> trio.abc.Stream:
        stream = await server.connect(host, port)
        stream.is_readable = lambda: server.is_closed  # type: ignore[attr-defined]
        return stream

    server.is_closed = False  # type: ignore[attr-defined]
    http = client(server)
    http.connect = closing
    await http.request("POST", "/", b"", b"{}")
    server.is_closed = True  # type: ignore[attr-defined]

    assert (await http.request("POST", "/", b"", b"{}")).status == 200
    assert (http.dialled, len(server.seen)) == (2, 2)


async def test_an_old_connection_is_not_used(server: Server, autojump_clock: object) -> None:
    """Servers close idle connections, some without a word."""
    http = client(server)
    await http.request("GET", "/", b"", None)
    await trio.sleep(http.keep_s + 1)
    await http.request("GET", "/", b"", None)

    assert http.dialled == 2


async def test_a_server_that_does_not_answer_leaves_the_outcome_open_in_time(
    server: Server, autojump_clock: object
) -> None:
    """After the deadline; the connection is closed, for its answer may still come."""
    server.hangs = True
    http = client(server)
    began = trio.current_time()
    with pytest.raises(AnswerLost, match="no answer within 4 s"):
        await http.request("POST", "/", b"", b"{}")

    assert trio.current_time() - began == pytest.approx(4.0, abs=0.1)
    assert http.busy == 0
    server.hangs = False
    assert (await http.request("POST", "/", b"", b"{}")).status == 200
    assert http.dialled == 2


async def test_without_a_connection_nothing_was_sent(server: Server, autojump_clock: object) -> None:
    """Refused, too slow, or all in use: each is told as never sent, within the connect timeout."""
    http = client(server)
    server.refuses = True
    with pytest.raises(NotSent, match="Connection refused"):
        await http.request("POST", "/", b"", b"{}")

    async def never(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    http.connect = never
    with pytest.raises(NotSent, match="no connection within 3 s"):
        await http.request("POST", "/", b"", b"{}")
    server.refuses, server.hangs = False, True
    http.connect = server.connect
    with trio.move_on_after(3.9):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(http.request, "POST", "/", b"", b"{}")
            await trio.sleep(0.1)
            with pytest.raises(NotSent, match="no free connection"):
                await http.request("POST", "/", b"", b"{}")
            nursery.cancel_scope.cancel(reason="seen")
    assert http.busy == 0


async def test_a_cancelled_request_closes_its_connection(server: Server, autojump_clock: object) -> None:
    """What was sent is sent; the answer that comes later must not be read by the next request."""
    http = client(server)
    server.hangs = True
    with trio.move_on_after(1) as scope:
        await http.request("POST", "/", b"", b"{}")
    assert scope.cancelled_caught

    await trio.testing.wait_all_tasks_blocked()
    server.hangs = False
    assert (await http.request("POST", "/", b"", b"{}")).status == 200
    assert (http.dialled, http.busy) == (2, 0)


async def test_connections_are_bounded_and_all_requests_served(
    server: Server, autojump_clock: object
) -> None:
    """64 at once over three connections: nothing is lost, and no fourth is opened, keeper or not."""
    http = client(server)
    replies = []

    async def ask() -> None:
        replies.append(await http.request("POST", "/", b"", b"{}"))

    async with trio.open_nursery() as keeper:
        keeper.start_soon(http.keep_warm)
        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(ask)
        keeper.cancel_scope.cancel(reason="enough")

    assert len(replies) == len(server.seen) == 64
    assert server.open_most <= 3


async def test_a_connection_being_warmed_counts_as_one(server: Server, autojump_clock: object) -> None:
    """Requests that come while the keeper still dials do not make it one too many."""
    is_slow = True

    async def connect(host: str, port: int) -> trio.abc.Stream:
        if is_slow:
            await trio.sleep(1.0)
        return await server.connect(host, port)

    http = client(server, connect=connect)
    async with trio.open_nursery() as keeper:
        keeper.start_soon(http.keep_warm)
        await trio.sleep(0.5)
        is_slow = False
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(http.request, "POST", "/", b"", b"{}")
        await trio.sleep(5.0)
        keeper.cancel_scope.cancel(reason="enough")

    assert len(server.seen) == 3
    assert server.open_most <= 3


async def test_warm_connections_are_there_before_the_first_request(
    server: Server, autojump_clock: object
) -> None:
    """And are made anew when they have grown old."""
    http = client(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.keep_warm)
        await trio.sleep(0.5)
        assert http.dialled == 2
        await http.request("POST", "/", b"", b"{}")
        assert http.dialled == 2
        await trio.sleep(60)
        before = http.dialled
        await http.request("POST", "/", b"", b"{}")
        assert http.dialled == before
        nursery.cancel_scope.cancel(reason="seen")
    await http.aclose()


async def test_the_keeper_bears_a_server_that_is_away(server: Server, autojump_clock: object) -> None:
    """It tries again and again, and never fails anybody."""
    http = client(server)
    server.refuses = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.keep_warm)
        await trio.sleep(5)
        server.refuses = False
        await trio.sleep(2)
        assert len(http._idle) == 2
        nursery.cancel_scope.cancel(reason="seen")


@pytest.mark.real
async def test_tls_connections_are_warm_and_used(nursery: trio.Nursery) -> None:
    """Over sockets: tickets behind the handshake are not taken for a close, a real close is noticed, a wrong name refused."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(serving)
    server = Server(nursery)
    server.context = serving
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    accepted: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        accepted.append(stream)
        await server.serve(stream)

    nursery.start_soon(trio.serve_listeners, serve, [listener])
    port = listener.socket.getsockname()[1]
    http = WarmHttp(
        connect=trio.open_tcp_stream,
        address=Address("https", "localhost", port, ""),
        ssl_context=trusting,
        deadline_s=4.0,
        connect_timeout_s=3.0,
        warm=1,
    )
    with trio.fail_after(20):
        async with trio.open_nursery() as keeper:
            keeper.start_soon(http.keep_warm)
            while not http._idle:
                await trio.sleep(0.01)
            for _ in range(3):
                assert (await http.request("POST", "/", b"", b"{}")).status == 200
            assert http.dialled == 1
            keeper.cancel_scope.cancel(reason="enough")
        await accepted[0].aclose()
        await trio.sleep(0.1)
        assert (await http.request("POST", "/", b"", b"{}")).status == 200
        assert http.dialled == 2
        await http.aclose()
        http.address = Address("https", "127.0.0.1", port, "")
        with pytest.raises(NotSent, match="certificate"):
            await http.request("POST", "/", b"", b"{}")
    nursery.cancel_scope.cancel(reason="seen")

"""The socket's frame cutter says the same as the plain library, for any cut of the bytes; the handshake's ends."""

import struct

import pytest
import trio
import trio.testing
import wsproto
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from mm.exchange.kalshi.websocket import (
    FrameCutter,
    HandshakeFailed,
    HandshakeRefused,
    SocketClosed,
    open_client_socket,
)

FRAME = st.one_of(
    st.tuples(st.just("text"), st.text(max_size=300)),
    st.tuples(st.just("text"), st.integers(120, 130).map(lambda n: "x" * n)),
    st.tuples(st.just("text"), st.integers(65_530, 65_540).map(lambda n: "y" * n)),
    st.tuples(st.just("fragments"), st.lists(st.text(max_size=20), min_size=2, max_size=4)),
    st.tuples(st.just("bytes"), st.binary(max_size=50)),
    st.tuples(st.just("ping"), st.binary(max_size=20)),
    st.tuples(st.just("pong"), st.binary(max_size=20)),
    st.tuples(st.just("close"), st.just("bye")),
)


def opened() -> tuple[wsproto.WSConnection, wsproto.WSConnection]:
    """A client and a server that have shaken hands in memory."""
    client, server = (wsproto.WSConnection(kind) for kind in (ConnectionType.CLIENT, ConnectionType.SERVER))
    server.receive_data(client.send(Request(host="h", target="/")))
    list(server.events())
    client.receive_data(server.send(AcceptConnection()))
    list(client.events())
    return client, server


def on_the_wire(server: wsproto.WSConnection, frames: list[tuple[str, object]]) -> bytes:
    """The frames as a server sends them; nothing follows a close."""
    data = b""
    for kind, content in frames:
        if kind == "text":
            data += server.send(TextMessage(data=content))
        elif kind == "fragments":
            assert isinstance(content, list)
            for part in content[:-1]:
                data += server.send(TextMessage(data=part, message_finished=False))
            data += server.send(TextMessage(data=content[-1]))
        elif kind == "bytes":
            data += server.send(BytesMessage(data=content))
        elif kind == "ping":
            data += server.send(Ping(payload=content))
        elif kind == "pong":
            data += server.send(Pong(payload=content))
        else:
            data += server.send(CloseConnection(code=1000, reason=content))
            break
    return data


def as_said(item: object) -> tuple[str, object]:
    """A message or event in one form for both."""
    if isinstance(item, str):
        return "text", item.encode()
    if isinstance(item, bytes):
        return "text", item
    if isinstance(item, Ping | Pong):
        return type(item).__name__, bytes(item.payload)
    assert isinstance(item, CloseConnection)
    return "close", item.code


def plainly(client: wsproto.WSConnection, data: bytes) -> list[tuple[str, object]]:
    """What the library alone makes of the bytes."""
    client.receive_data(data)
    found: list[tuple[str, object]] = []
    part = b""
    for event in client.events():
        if isinstance(event, TextMessage | BytesMessage):
            part += event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
            if event.message_finished:
                found.append(("text", part))
                part = b""
        else:
            found.append(as_said(event))
    return found


class TestFrameCutter:
    @given(st.lists(FRAME, max_size=8), st.data())
    def test_any_cut_gives_what_the_library_gives(
        self, frames: list[tuple[str, object]], data: st.DataObject
    ) -> None:
        """Messages and control events, in order, equal those of plain wsproto fed with everything at once."""
        client, server = opened()
        wire = on_the_wire(server, frames)
        expected = plainly(opened()[0], wire)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
        cutter = FrameCutter(client)

        found = []
        for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            found += [as_said(item) for item in cutter.receive(wire[start:stop])]

        assert found == expected

    @pytest.mark.parametrize(
        "frame",
        [
            b"\xc1\x01x",  # a reserved bit
            b"\x81\x81\0\0\0\0x",  # masked by a server
            b"\x81\x7e\x00\x05hello",  # a length longer than it need be
            b"\x83\x01x",  # an opcode that does not exist
            b"\x80\x01x",  # a continuation of nothing
        ],
    )
    def test_what_the_protocol_forbids_is_an_error(self, frame: bytes) -> None:
        """Nothing odd passes the quick way: the library ends the connection with a protocol error."""
        found = FrameCutter(opened()[0]).receive(frame)

        assert [as_said(item) for item in found] == [("close", 1002)]

    def test_a_message_without_bounds_is_an_error(self) -> None:
        """Before a byte of it is waited for."""
        with pytest.raises(ProtocolError):
            FrameCutter(opened()[0]).receive(b"\x81\x7f" + struct.pack(">Q", 2**40))

    def test_a_text_inside_a_fragmented_message_is_an_error(self) -> None:
        """The quick way is shut while a message is open."""
        cutter = FrameCutter(opened()[0])
        assert cutter.receive(b"\x01\x02he") == []

        assert [as_said(item) for item in cutter.receive(b"\x81\x02xx")] == [("close", 1002)]


async def answer(stream: trio.abc.Stream, reply: bytes) -> None:
    """A server that answers the upgrade with fixed bytes and hangs up."""
    await stream.receive_some(65_536)
    await stream.send_all(reply)
    await stream.aclose()


class TestHandshake:
    @pytest.mark.parametrize(
        ("reply", "status", "body"),
        [
            (b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nnope", 401, b"nope"),
            (b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html>", 502, b"<html>"),
            (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503, b""),
        ],
    )
    async def test_an_http_error_is_told_with_its_body(
        self, autojump_clock: trio.testing.MockClock, reply: bytes, status: int, body: bytes
    ) -> None:
        """With a length, without one, without a body."""
        client, server = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, server, reply)
            with pytest.raises(HandshakeRefused) as caught:
                await open_client_socket(client, "h", "/", [])

        assert (caught.value.status, caught.value.body) == (status, body)

    @pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 101 Sw", b"nonsense\r\n\r\n", b"x" * 70_000])
    async def test_no_answer_is_a_failure(self, autojump_clock: trio.testing.MockClock, reply: bytes) -> None:
        """An end too early, half an answer, or something else altogether."""
        client, server = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, server, reply)
            with pytest.raises(HandshakeFailed):
                await open_client_socket(client, "h", "/", [])

    async def test_frames_behind_the_answer_are_not_lost(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """A server may send its first frame in the same packet; a close after it comes as the end."""
        client, server = trio.testing.memory_stream_pair()
        protocol = wsproto.WSConnection(ConnectionType.SERVER)

        async def serve() -> None:
            protocol.receive_data(bytes(await server.receive_some(65_536)))
            list(protocol.events())
            reply = protocol.send(AcceptConnection()) + protocol.send(TextMessage(data="first"))
            await server.send_all(reply + protocol.send(CloseConnection(code=1001)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            socket = await open_client_socket(client, "h", "/", [("X-Name", "value")])
            assert await socket.receive() == [b"first"]
            with pytest.raises(SocketClosed) as caught:
                await socket.receive()

        assert caught.value.code == 1001

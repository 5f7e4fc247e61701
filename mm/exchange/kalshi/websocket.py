"""The client's end of a WebSocket over any stream: handshake, frames cut fast, everything else by wsproto.

Nearly every frame of a market feed is a whole, unmasked text frame. Those are cut out of the read by the few lines of
`FrameCutter.receive` and handed on as bytes; every other frame (control, fragments, anything odd) goes whole to wsproto,
which knows the protocol and judges it. A text that is not UTF-8 is found by the JSON decoder instead. No task lives
here: whoever owns the socket reads it in its own loop, and a hundred frames of one read cost one turn of the scheduler.
"""

from typing import Final, final

import attrs
import trio
import wsproto
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError, RemoteProtocolError

READ_BYTES: Final = 65_536
MAX_MESSAGE: Final = 16 * 2**20
"""Bytes: a snapshot of a book with every level is a fraction of it."""
MAX_HEAD: Final = 65_536
NOT_SYNCED: Final = 1006
"""Close code of a connection that ended without a close frame."""
_WHOLE_TEXT: Final = 0x81
_MASKED: Final = 0x80

Message = bytes | str


class SocketClosed(Exception):
    """The other end closed the socket, with a close frame or (1006) without one."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed: {code}{' ' + reason if reason else ''}")
        self.code = code
        self.reason = reason


class HandshakeRefused(Exception):
    """The upgrade was answered with an HTTP error."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


class HandshakeFailed(Exception):
    """The connection ended, or said something that is no answer, before the upgrade was answered."""


@final
@attrs.define(eq=False)
class FrameCutter:
    """Bytes in, messages and control events out. Sans-IO; the same for any cut of the byte stream."""

    protocol: wsproto.WSConnection
    max_message: int = MAX_MESSAGE
    _buffer: bytearray = attrs.field(factory=bytearray)
    _parts: list[Message] = attrs.field(factory=list)
    """Of a fragmented message."""
    _is_inside_message: bool = False

    def receive(self, data: bytes | bytearray) -> list[Message | Event]:
        """What these bytes complete, in order: whole messages, and `Ping`, `Pong`, `CloseConnection`.

        Raises `ProtocolError` on what the protocol forbids, or a message above `max_message`.
        """
        found: list[Message | Event] = []
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= 2:
            first, second = buffer[at], buffer[at + 1]
            length, head = second & 0x7F, 2
            is_plain = first == _WHOLE_TEXT and second < _MASKED and not self._is_inside_message
            if length >= 126:
                wide = 2 if length == 126 else 8
                head += wide
                if end - at < head:
                    break
                length = int.from_bytes(buffer[at + 2 : at + head], "big")
                is_plain = is_plain and length > (125 if wide == 2 else 0xFFFF)
            if length > self.max_message:
                raise RemoteProtocolError(f"a frame of {length} bytes")
            if second >= _MASKED:
                head += 4
            stop = at + head + length
            if stop > end:
                break
            if is_plain:
                found.append(bytes(buffer[at + head : stop]))
            else:
                found.extend(self._by_protocol(bytes(buffer[at:stop])))
            at = stop
        del buffer[:at]
        return found

    def _by_protocol(self, frame: bytes) -> list[Message | Event]:
        self.protocol.receive_data(frame)
        found: list[Message | Event] = []
        for event in self.protocol.events():
            if not isinstance(event, TextMessage | BytesMessage):
                found.append(event)
                continue
            self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            self._is_inside_message = not event.message_finished
            if sum(map(len, self._parts)) > self.max_message:
                raise RemoteProtocolError("a message in too many fragments")
            if event.message_finished:
                found.append(_joined(self._parts))
                self._parts.clear()
        return found


def _joined(parts: list[Message]) -> Message:
    if all(isinstance(part, str) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


@final
@attrs.define(eq=False)
class ClientSocket:
    """An open socket. One task reads; any task may send."""

    _stream: trio.abc.Stream
    _protocol: wsproto.WSConnection
    _cutter: FrameCutter
    _held: list[Message | Event]
    """What came together with the answer to the handshake."""
    _sending: trio.Lock = attrs.field(factory=trio.Lock)
    pongs: int = 0
    """Answers to our pings so far."""

    async def receive(self) -> list[Message]:
        """The messages of one read, none when it brought only control frames (which are answered here).

        Raises:
            SocketClosed: The end, after every message before it has been returned.
            ProtocolError: What came is no WebSocket.
            trio.BrokenResourceError: The connection broke.

        Cancelled, no message is lost: it is cancelled before bytes are taken, or the socket is given up.
        """
        found = self._held
        self._held = []
        if not found:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                raise SocketClosed(NOT_SYNCED)
            found = self._cutter.receive(data)
        messages: list[Message] = []
        for number, item in enumerate(found):
            if isinstance(item, bytes | str):
                messages.append(item)
            elif isinstance(item, CloseConnection) and messages:
                self._held = found[number:]
                break
            else:
                await self._answer(item)
        return messages

    async def send(self, text: str) -> None:
        """Send one text message. Raises `trio.BrokenResourceError`, `trio.ClosedResourceError`."""
        await self._send(TextMessage(data=text))

    async def ping(self, payload: bytes) -> None:
        """Send a ping; its answer counts in `pongs`."""
        await self._send(Ping(payload=payload))

    async def _answer(self, event: Event) -> None:
        if isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, Pong):
            self.pongs += 1
        elif isinstance(event, CloseConnection):
            with trio.move_on_after(1.0):
                await self._send(event.response())
            raise SocketClosed(event.code, event.reason or "")

    async def _send(self, event: Event) -> None:
        # Framed under the lock: frames must reach the wire in the order in which the protocol made them.
        async with self._sending:
            await self._stream.send_all(self._protocol.send(event))


async def open_client_socket(
    stream: trio.abc.Stream,
    host: str,
    path: str,
    headers: list[tuple[str, str]],
    *,
    max_message: int = MAX_MESSAGE,
) -> ClientSocket:
    """The upgrade, over an open stream. The caller bounds its time.

    Raises:
        HandshakeRefused: An HTTP error came instead.
        HandshakeFailed: No whole answer came.
    """
    protocol = wsproto.WSConnection(ConnectionType.CLIENT)
    extra = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    try:
        await stream.send_all(protocol.send(Request(host=host, target=path, extra_headers=extra)))
        head, rest = await _read_head(stream)
        if not head.startswith(b"HTTP/1.1 101"):
            raise await _refusal(stream, protocol, head + rest)
        protocol.receive_data(head)
        if not any(isinstance(event, AcceptConnection) for event in protocol.events()):
            raise HandshakeFailed("the answer to the handshake accepts nothing")
        cutter = FrameCutter(protocol, max_message)
        return ClientSocket(stream, protocol, cutter, cutter.receive(rest))
    except ProtocolError as error:
        raise HandshakeFailed(f"no answer to a handshake: {error}") from None
    except trio.BrokenResourceError as error:
        raise HandshakeFailed("the connection broke during the handshake") from error


async def _read_head(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """The answer's head with its empty line, and what came behind it."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > MAX_HEAD:
            raise HandshakeFailed("an endless answer to the handshake")
        more = await stream.receive_some(READ_BYTES)
        if not more:
            raise HandshakeFailed("the connection ended during the handshake")
        data += more
    return bytes(data[: end + 4]), bytes(data[end + 4 :])


async def _refusal(stream: trio.abc.Stream, protocol: wsproto.WSConnection, data: bytes) -> HandshakeRefused:
    """Read the error's body, as far as there is one."""
    status, body = 0, b""
    while True:
        protocol.receive_data(data)
        for event in protocol.events():
            if isinstance(event, RejectConnection):
                status = event.status_code
                if not event.has_body:
                    return HandshakeRefused(status, b"")
            elif isinstance(event, RejectData):
                body += bytes(event.data)
                if event.body_finished or len(body) > MAX_HEAD:
                    return HandshakeRefused(status, body)
        data = bytes(await stream.receive_some(READ_BYTES))
        if not data:
            if not status:
                raise HandshakeFailed("the connection ended during the handshake")
            return HandshakeRefused(status, body)

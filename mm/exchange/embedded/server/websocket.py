"""One WebSocket connection on wsproto over any trio stream: text messages in, a bounded queue of frames out.

Knows nothing of channels. Sending is a plain call that never waits: a writer task empties the queue, so one peer
that does not read costs its own queue and nobody else's time.
"""

import struct
from base64 import b64decode
from binascii import Error as BadBase64
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import generate_accept_token

from mm.exchange.embedded.server.http import READ_SIZE, Request, reset_on_close

HEARTBEAT: Final = b"heartbeat"


@attrs.frozen(kw_only=True)
class SocketLimits:
    """What one peer may make us hold or wait for."""

    queue_frames: int = 20_000
    """Data frames that may wait for a peer before its subscription overflows."""
    queue_bytes: int = 8_388_608
    max_message_bytes: int = 1_048_576
    heartbeat_s: float | None = 10.0
    """Between two pings of ours; None sends none."""
    close_s: float = 2.0
    """For the peer to answer our close frame."""


def text_frame(payload: bytes) -> bytes:
    """A whole, unmasked text frame. By hand, because wsproto would decode and encode each of thousands of payloads."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def handshake(request: Request) -> tuple[tuple[str, str], ...] | str:
    """The headers of the 101 that answers an upgrade request, or why it is not one (RFC 6455, 4.2.1)."""
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket":
        return "the upgrade header is not websocket"
    if "upgrade" not in [part.strip().lower() for part in headers.get("connection", "").split(",")]:
        return "the connection header does not ask for an upgrade"
    if headers.get("sec-websocket-version", "") != "13":
        return "the websocket version is not 13"
    key = headers.get("sec-websocket-key", "")
    try:
        is_key = len(b64decode(key, validate=True)) == 16
    except (BadBase64, ValueError):
        is_key = False
    if not is_key:
        return "the websocket key is not 16 bytes of base64"
    return (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", generate_accept_token(key.encode("ascii")).decode("ascii")),
    )


@attrs.define(eq=False)
class WebSocket:
    """An open WebSocket, server side. `send` may be called by anyone; `run` is called once."""

    stream: trio.abc.Stream
    limits: SocketLimits = attrs.field(factory=SocketLimits)
    delay: Callable[[], float] | None = None
    """Seconds by which the next frame is held back (a simulated network); frames keep their order."""
    rate: Callable[[], float | None] | None = None
    """Bytes a second that the peer takes (a slow line); None: no limit."""
    on_flushed: Callable[[], None] | None = None
    """Called when everything queued is with the transport: someone who was too slow may be fit again."""
    queued_frames: int = 0
    queued_bytes: int = 0
    _queue: deque[tuple[float, bytes]] = attrs.field(factory=deque)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _proto: Connection = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _closing: bool = False
    _stalled: trio.Event | None = None
    _is_deaf: bool = False
    _parts: list[str] = attrs.field(factory=list)
    _size: int = 0

    @property
    def is_full(self) -> bool:
        """No more data frames may be queued."""
        return self.queued_frames >= self.limits.queue_frames or self.queued_bytes >= self.limits.queue_bytes

    def send(self, payload: bytes) -> None:
        """Queue a text message. The bound is the caller's to respect (`is_full`), so that replies still get out."""
        if not self._closing and not self._is_deaf:
            self._put(text_frame(payload))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Queue a close frame; the connection ends when the peer answers, or `close_s` later."""
        if self._closing:
            return
        if self._proto.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self._put(self._proto.send(CloseConnection(code=code, reason=reason)))
        self._closing = True
        self._scope.deadline = trio.current_time() + self.limits.close_s
        self._wake.set()

    def cut(self, *, reset: bool = False) -> None:
        """End the connection now, without a close frame and without what is queued."""
        if reset:
            reset_on_close(self.stream)
        self._scope.cancel(reason="the socket was cut")

    def end(self, how: str) -> None:
        """End it in one of the ways of the faults: `close` (1001), `drop`, `reset`, `half_open`."""
        if how == "close":
            self.close(1001, "going away")
        elif how == "half_open":
            self.half_open()
        else:
            self.cut(reset=how == "reset")

    def half_open(self) -> None:
        """From now on neither send nor listen, and keep the connection: our half of it is gone without a word."""
        self._is_deaf = True
        self._queue.clear()
        self.queued_frames = self.queued_bytes = 0

    def stall(self) -> None:
        """Write nothing more until `resume`; the queue grows, the TCP connection stays."""
        if self._stalled is None:
            self._stalled = trio.Event()

    def resume(self) -> None:
        """Write again."""
        if self._stalled is not None:
            self._stalled.set()
            self._stalled = None

    async def run(self, first_bytes: bytes, on_text: Callable[[str], None]) -> None:
        """Read until the end, calling `on_text` for each message. The stream is closed afterwards."""
        self._proto = Connection(ConnectionType.SERVER, trailing_data=first_bytes)
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                if self.limits.heartbeat_s is not None:
                    nursery.start_soon(self._ping, self.limits.heartbeat_s)
                await self._read(on_text)
        await trio.aclose_forcefully(self.stream)

    # --- reading ---

    async def _read(self, on_text: Callable[[str], None]) -> None:
        try:
            while True:
                if self._handle(on_text):
                    break
                data = await self.stream.receive_some(READ_SIZE)
                if self._is_deaf and data:
                    continue
                self._proto.receive_data(bytes(data) or None)
            # Reading on keeps our close frame from being lost to a reset; `close` has set the time limit.
            while await self.stream.receive_some(READ_SIZE):
                pass
            self._scope.cancel(reason="the peer closed")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._scope.cancel(reason="the peer is gone")

    def _handle(self, on_text: Callable[[str], None]) -> bool:
        """Deal with what has arrived; true when the connection is over."""
        for event in self._proto.events():
            if self._closing and not isinstance(event, CloseConnection):
                continue
            if isinstance(event, TextMessage):
                self._size += len(event.data)
                if self._size > self.limits.max_message_bytes:
                    self.close(1009, "message too big")
                    return True
                self._parts.append(event.data)
                if event.message_finished:
                    text = "".join(self._parts)
                    self._parts.clear()
                    self._size = 0
                    on_text(text)
            elif isinstance(event, BytesMessage):
                self.close(1003, "text only")
                return True
            elif isinstance(event, Ping):
                self._put(self._proto.send(event.response()))
            elif isinstance(event, Pong):
                continue
            elif isinstance(event, CloseConnection):
                self._answer_close(event)
                return True
        return False

    def _answer_close(self, event: CloseConnection) -> None:
        if self._proto.state is ConnectionState.CLOSED:
            # The end of the bytes, or the answer to our own close: nobody is left to talk to.
            self._scope.cancel(reason="the peer closed")
        elif self._proto.state is ConnectionState.OPEN:
            self.close(event.code, "protocol error")  # bytes that are no frames; wsproto chose the code
        else:
            self.close(_echoed(event.code))

    # --- writing ---

    def _put(self, frame: bytes) -> None:
        if self._is_deaf:
            return
        held = 0.0 if self.delay is None else self.delay()
        due = trio.current_time() + held if held else 0.0
        self._queue.append((due, frame))
        self.queued_frames += 1
        self.queued_bytes += len(frame)
        self._wake.set()

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    if self._stalled is not None:
                        await self._stalled.wait()
                    if not self._queue:
                        break
                    await trio.sleep_until(self._queue[0][0])
                    batch = self._take()
                    await self.stream.send_all(batch)
                    bytes_a_second = self.rate() if self.rate is not None else None
                    if bytes_a_second:
                        await trio.sleep(len(batch) / bytes_a_second)
                if self._closing and self._proto.state is not ConnectionState.LOCAL_CLOSING:
                    self._scope.cancel(reason="closed")
                    return
                if self.on_flushed is not None:
                    self.on_flushed()
                self._wake = trio.Event()
                await self._wake.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._scope.cancel(reason="the peer is gone")

    def _take(self) -> bytes:
        """What is due, up to about one read of the peer, as one write."""
        now = trio.current_time()
        batch: list[bytes] = []
        size = 0
        most = READ_SIZE if self.rate is None or self.rate() is None else 1
        while self._queue and size < most and self._queue[0][0] <= now:
            frame = self._queue.popleft()[1]
            batch.append(frame)
            size += len(frame)
        self.queued_frames -= len(batch)
        self.queued_bytes -= size
        return b"".join(batch)

    async def _ping(self, every_s: float) -> None:
        while not self._closing:
            await trio.sleep(every_s)
            if not self._closing:
                self._put(self._proto.send(Ping(payload=HEARTBEAT)))


def _echoed(code: int) -> int:
    """The close code to answer with: the peer's, unless it is one that may not be sent."""
    return 1000 if code in (1005, 1006, 1015) else code

"""A byte stream in memory that behaves like TCP: latency, order, half-close, reset, silence. No tasks of its own.

Each direction is a queue of (due, bytes); the reader sleeps until the next piece is due. A cut of the network holds
pieces back, as TCP's retransmission would, and never loses any.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

WINDOW: Final = 1 << 18
"""Bytes on their way before a sender waits."""
_EOF: Final = b""


@attrs.define(eq=False)
class Pipe:
    """One direction."""

    arrival: Callable[[], float]
    """When (trio's clock) something that is sent now arrives."""
    on_bytes: Callable[[bytes], None]
    pieces: deque[tuple[float, bytes]] = attrs.field(factory=deque)
    waiting_bytes: int = 0
    reset_at: float | None = None
    """From then on the reader finds the connection reset."""
    deaf_from: float | None = None
    """From then on the sender knows that nobody reads any more."""
    last_due: float = 0.0
    changed: trio.Event = attrs.field(factory=trio.Event)

    def put(self, data: bytes) -> None:
        """Send a piece; `b""` is the end."""
        self.last_due = max(self.last_due, self.arrival())
        self.pieces.append((self.last_due, data))
        self.waiting_bytes += len(data)
        if data:
            self.on_bytes(data)
        self.wake()

    def wake(self) -> None:
        """Something changed: who waits looks again."""
        self.changed.set()
        self.changed = trio.Event()

    def take(self, most: int, now: float) -> bytes:
        """What is due, at most `most` bytes."""
        found = bytearray()
        while self.pieces and self.pieces[0][0] <= now and len(found) < most:
            due, data = self.pieces[0]
            if data is _EOF or not data:
                break
            self.pieces.popleft()
            if len(found) + len(data) > most:
                rest = most - len(found)
                self.pieces.appendleft((due, data[rest:]))
                data = data[:rest]
            found += data
        self.waiting_bytes -= len(found)
        return bytes(found)


@final
@attrs.define(eq=False)
class MemoryStream(trio.abc.HalfCloseableStream):
    """One end. `abort` is what happens when its process dies: the peer sees a reset."""

    _inbound: Pipe
    _outbound: Pipe
    name: str = ""
    is_closed: bool = False
    heard_at: float = float("-inf")
    """When a read last brought something."""
    _sent_eof: bool = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio. Bytes that the peer does not want any more raise `BrokenResourceError` once that is known here."""
        await trio.lowlevel.checkpoint()
        self._check_sendable()
        while self._outbound.waiting_bytes > WINDOW:
            await self._outbound.changed.wait()
            self._check_sendable()
        if data:
            self._outbound.put(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """See trio."""
        await trio.lowlevel.checkpoint()
        while self._outbound.waiting_bytes > WINDOW and not self.is_closed:
            await self._outbound.changed.wait()

    async def send_eof(self) -> None:
        """See trio."""
        await trio.lowlevel.checkpoint()
        if not self._sent_eof:
            self._check_sendable()
            self._sent_eof = True
            self._outbound.put(_EOF)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio."""
        await trio.lowlevel.checkpoint()
        pipe = self._inbound
        while True:
            if self.is_closed:
                raise trio.ClosedResourceError
            now = trio.current_time()
            if pipe.reset_at is not None and pipe.reset_at <= now:
                raise trio.BrokenResourceError("connection reset by peer")
            if pipe.pieces and pipe.pieces[0][0] <= now:
                if not pipe.pieces[0][1]:
                    return b""
                found = pipe.take(max_bytes or 1 << 16, now)
                self.heard_at = now
                pipe.wake()
                return found
            due = [pipe.reset_at, pipe.pieces[0][0] if pipe.pieces else None]
            changed = pipe.changed
            with trio.move_on_at(min((d for d in due if d is not None), default=float("inf"))):
                await changed.wait()

    async def aclose(self) -> None:
        """See trio: the peer reads what was sent, then the end; what it still sends is refused."""
        self._close()
        await trio.lowlevel.checkpoint()

    def abort(self, *, reset: bool) -> None:
        """The process at this end is gone: its system closes the connection, by a reset or in good order."""
        if self.is_closed:
            return
        if reset:
            self._outbound.reset_at = max(self._outbound.last_due, self._outbound.arrival())
        self._close()

    def is_readable(self) -> bool:
        """Whether a read would not wait."""
        now = trio.current_time()
        pipe = self._inbound
        return bool(pipe.pieces and pipe.pieces[0][0] <= now) or (
            pipe.reset_at is not None and pipe.reset_at <= now
        )

    def _close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if not self._sent_eof:
            self._sent_eof = True
            self._outbound.put(_EOF)
        self._inbound.deaf_from = self._outbound.arrival()
        self._inbound.wake()
        self._outbound.wake()

    def _check_sendable(self) -> None:
        if self.is_closed or self._sent_eof:
            raise trio.ClosedResourceError
        now = trio.current_time()
        gone = self._outbound.deaf_from is not None and self._outbound.deaf_from <= now
        if gone or (self._inbound.reset_at is not None and self._inbound.reset_at <= now):
            raise trio.BrokenResourceError("the peer is gone")

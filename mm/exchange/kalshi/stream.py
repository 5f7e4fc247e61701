"""The one multiplexed WebSocket: connect, keep alive, deliver in batches, reconnect.

The socket is trio-websocket's over a stream that somebody else opens. It counts as alive by any frame or by the pong to
our own ping (the venue's pings stay away for over a minute on busy sockets). What frames mean is `session`'s.
"""

import itertools
import math
import ssl
from collections.abc import Sequence
from typing import Any, Final, NoReturn, cast

import attrs
import structlog
import trio
import trio_websocket
import wsproto.utilities

from mm.domain.order import MarketTicker
from mm.exchange.kalshi.frames import FrameReader
from mm.exchange.kalshi.options import Clock, Connect, KalshiOptions, Randomness
from mm.exchange.kalshi.reading import Codec, read_error
from mm.exchange.kalshi.rest import CLOCK_REFUSED
from mm.exchange.kalshi.session import FeedLost, FeedSession, FrameCounts
from mm.exchange.kalshi.signing import Signer, signed_headers
from mm.exchange.kalshi.subscriptions import Subscriptions
from mm.exchange.port import AuthError, FeedSink, FeedStatistics

MAX_BATCH: Final = 500
"""Frames delivered before `on_read_end`, at most: a flood must not keep decisions waiting."""
_QUEUE: Final = 1000
_READ_BYTES: Final = 65_536
_MAX_MESSAGE: Final = 16 * 2**20
"""Bytes: a snapshot of a book with every level is a fraction of it."""
_BROKEN: Final = (
    FeedLost,
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    wsproto.utilities.ProtocolError,
)
"""The ways in which a connection ends; each means: reconnect."""

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class WatchedStream(trio.abc.Stream):
    """The stream under the socket, watched for what trio-websocket does not tell.

    During the handshake its end is an error at once: the library waits without noticing it, and reads a refusal
    without a length to an end that it never learns of. Afterwards it knows when the library asks for more bytes, which
    is when everything of the last read has been queued.
    """

    _stream: trio.abc.Stream
    is_open: bool = False
    is_idle: bool = False
    """The library waits for bytes."""
    until_idle: trio.CancelScope | None = None
    """Cancelled when the library asks for bytes."""
    _head: bytes = b""

    @property
    def status(self) -> int | None:
        """The HTTP status of the answer to the handshake, as soon as it is there."""
        words = self._head.split(b" ", 2)
        if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1][:3].isdigit():
            return int(words[1][:3])
        return None

    @property
    def is_refused(self) -> bool:
        """The venue answered the handshake with an error."""
        return not self.is_open and self.status is not None and self.status >= 400

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio."""
        self.is_idle = True
        if self.until_idle is not None:
            self.until_idle.cancel(reason="everything of this read was delivered")
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, OSError) as error:
            if self.is_open:
                raise
            raise FeedLost("the connection broke during the handshake") from error
        finally:
            self.is_idle = False
        if not self.is_open:
            if not data:
                raise FeedLost("the connection ended during the handshake")
            if len(self._head) < 64:
                self._head += bytes(data[:64])
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See trio."""
        await self._stream.aclose()


@attrs.define(eq=False, kw_only=True)
class KalshiFeed:
    """The live feed. `run` drives it; the other methods may be called at any time, by any task."""

    _options: KalshiOptions
    _signer: Signer
    _clock: Clock
    _randomness: Randomness
    _connect: Connect
    _ssl_context: ssl.SSLContext | None
    _codec: Codec = attrs.field(factory=Codec)
    _counts: FrameCounts = attrs.field(factory=FrameCounts)
    _connects: int = 0
    _wanted: dict[MarketTicker, None] = attrs.field(factory=dict)
    _session: FeedSession | None = None
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _last_alive: float = -math.inf
    _is_running: bool = False

    async def watch(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port. Never waits for the venue."""
        for ticker in tickers:
            self._wanted.setdefault(ticker)
        self._wake.set()
        await trio.lowlevel.checkpoint()

    async def unwatch(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port. Nothing more of these markets is delivered from now on."""
        for ticker in tickers:
            self._wanted.pop(ticker, None)
        if self._session is not None:
            self._session.subscriptions.forget(tickers)
        self._wake.set()
        await trio.lowlevel.checkpoint()

    async def resync(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port. Without a connection there is nothing to ask: the next one begins with snapshots."""
        if self._session is not None:
            self._session.subscriptions.ask_again(tickers, trio.current_time())
        self._wake.set()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> FeedStatistics:
        """See the port."""
        tally = self._codec.tally
        return FeedStatistics(
            connects=self._connects,
            frames=self._counts.frames,
            unknown_frames=tally.unknown_frames,
            unknown_fields=tally.unknown_fields,
            malformed_frames=tally.malformed,
            gaps=self._counts.gaps,
            last_frame_at=self._counts.last_frame_at,
        )

    async def run(self, sink: FeedSink) -> NoReturn:
        """See the port.

        Raises:
            AuthError: The handshake was refused with 401 or 403 for another reason than our clock.
        """
        if self._is_running:
            raise RuntimeError("this feed is already running")
        self._is_running = True
        attempt = 0
        try:
            while True:
                connected_at, why = await self._serve(sink)
                if trio.current_time() - connected_at >= self._options.healthy_after_s:
                    attempt = 0
                delay = self.backoff(attempt)
                attempt += 1
                log.warning("feed lost", why=why, reconnect_in_s=round(delay, 3))
                await trio.sleep(delay)
        finally:
            self._is_running = False

    def backoff(self, attempt: int) -> float:
        """Seconds before the reconnect after `attempt` failures: doubled each time, capped, half of it by chance."""
        options = self._options
        whole = min(options.backoff_first_s * 2.0 ** min(attempt, 30), options.backoff_cap_s)
        return whole * (0.5 + 0.5 * self._randomness.random())

    async def _serve(self, sink: FeedSink) -> tuple[float, str]:
        """One connection from dialling to its end; returns when it was connected (infinity if never) and why it ended.

        A cancellation closes the stream and leaves no task; the sink hears that it is disconnected.
        """
        connected_at = math.inf
        why = "the feed was stopped"
        stream: WatchedStream | None = None
        rejected: list[trio_websocket.ConnectionRejected] = []
        try:
            try:
                stream = await self._open_stream()
                async with trio.open_nursery() as nursery:
                    connection = await self._handshake(nursery, stream)
                    connected_at = trio.current_time()
                    await self._serve_connection(nursery, connection, stream, sink)
            except* trio_websocket.ConnectionRejected as group:
                rejected = [e for e in _leaves(group) if isinstance(e, trio_websocket.ConnectionRejected)]
            except* _BROKEN as group:
                why = "; ".join(dict.fromkeys(_describe(error) for error in _leaves(group)))
            if rejected or (stream is not None and stream.is_refused):
                why = self._judge_refusal(stream, rejected)
        finally:
            self._session = None
            # Before the await below, which raises when the feed itself is being cancelled.
            if connected_at < math.inf:
                sink.on_disconnected(self._clock(), why)
            if stream is not None:
                await trio.aclose_forcefully(stream)
        return connected_at, why

    async def _open_stream(self) -> WatchedStream:
        """Dial, with TLS where the address wants it. Raises one of `_BROKEN`."""
        address = self._options.ws
        with trio.fail_after(self._options.handshake_timeout_s):
            stream = await self._connect(address.host, address.port)
            if address.is_secure:
                assert self._ssl_context is not None
                stream = trio.SSLStream(
                    stream, self._ssl_context, server_hostname=address.host, https_compatible=True
                )
        return WatchedStream(stream)

    async def _handshake(
        self, nursery: trio.Nursery, stream: WatchedStream
    ) -> trio_websocket.WebSocketConnection:
        """The signed upgrade. The TLS handshake happens within it, under the same deadline."""
        address = self._options.ws
        headers = signed_headers(self._signer, self._clock(), "GET", address.path)
        with trio.fail_after(self._options.handshake_timeout_s):
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                cast("Any", stream),  # any stream does, whatever the annotation says
                address.netloc,
                address.path,
                extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                message_queue_size=_QUEUE,
                max_message_size=_MAX_MESSAGE,
                receive_buffer_size=_READ_BYTES,
            )
        stream.is_open = True
        return connection

    def _judge_refusal(
        self, stream: WatchedStream | None, rejected: list[trio_websocket.ConnectionRejected]
    ) -> str:
        """Why the handshake was refused. Raises `AuthError` when trying again would be hammering."""
        body = b""
        status = stream.status if stream is not None else None
        if rejected:
            status, body = rejected[0].status_code, rejected[0].body or b""
        problem = read_error(body)
        if status in (401, 403) and not problem.code.startswith(CLOCK_REFUSED):
            text = problem.text or "the key was refused"
            raise AuthError(text, endpoint="WebSocket handshake", status=status, code=problem.code)
        return f"handshake refused (HTTP {status} {problem.code or problem.text})".replace(" )", ")")

    async def _serve_connection(
        self,
        nursery: trio.Nursery,
        connection: trio_websocket.WebSocketConnection,
        stream: WatchedStream,
        sink: FeedSink,
    ) -> NoReturn:
        self._connects += 1
        self._last_alive = trio.current_time()
        session = FeedSession(
            sink,
            Subscriptions(self._wanted, self._options.use_yes_price),
            self._codec,
            FrameReader(self._codec.tally, self._options.use_yes_price),
            self._counts,
            self._options.subaccount,
        )
        self._session = session
        log.info("feed connected", connects=self._connects, markets=len(self._wanted))
        sink.on_connected(self._clock())
        nursery.start_soon(self._write, connection, session)
        nursery.start_soon(self._ping, connection, sink)
        nursery.start_soon(self._watch_silence)
        await self._read(connection, stream, session, sink)

    async def _read(
        self,
        connection: trio_websocket.WebSocketConnection,
        stream: WatchedStream,
        session: FeedSession,
        sink: FeedSink,
    ) -> NoReturn:
        """Deliver what comes; `on_read_end` after everything that one read of the stream brought."""
        while True:
            message: str | bytes | None = await connection.get_message()
            ended: trio_websocket.ConnectionClosed | None = None
            now = self._clock()
            at = self._last_alive = trio.current_time()
            for _ in range(MAX_BATCH):
                if message is None:
                    break
                session.receive(message, now, at)
                try:
                    message = await _rest_of_read(connection, stream)
                except trio_websocket.ConnectionClosed as error:
                    ended, message = error, None
            else:
                if message is not None:
                    session.receive(message, now, at)
            sink.on_alive(now)
            sink.on_read_end(now)
            if session.has_work:
                self._wake.set()
            if ended is not None:
                raise ended

    async def _write(self, connection: trio_websocket.WebSocketConnection, session: FeedSession) -> NoReturn:
        """Send what the subscriptions want, when something changed or is due."""
        while True:
            self._wake = trio.Event()
            at = trio.current_time()
            sick = session.subscriptions.overdue(at)
            if sick is not None:
                raise FeedLost(sick)
            for command in session.commands(at):
                await connection.send_message(command)
            # The floor keeps a mistake in the plan from becoming a hot loop.
            with trio.move_on_at(max(session.subscriptions.next_due(), at + 0.02)):
                await self._wake.wait()

    async def _ping(self, connection: trio_websocket.WebSocketConnection, sink: FeedSink) -> NoReturn:
        """Ask for a sign of life at a fixed rate, whether or not the last one was answered."""
        for number in itertools.count():
            next_at = trio.current_time() + self._options.ping_every_s
            with trio.move_on_at(next_at):
                # Our own payload: the library's default would be drawn from the global random source.
                await connection.ping(number.to_bytes(4, "big"))
                self._last_alive = trio.current_time()
                sink.on_alive(self._clock())
            await trio.sleep_until(next_at)
        raise AssertionError("unreachable")

    async def _watch_silence(self) -> NoReturn:
        """Give the connection up when neither frame nor pong came for long enough."""
        while True:
            deadline = self._last_alive + self._options.silence_s
            if trio.current_time() >= deadline:
                raise FeedLost(f"silent for {self._options.silence_s:g} s")
            await trio.sleep_until(deadline)


async def _rest_of_read(
    connection: trio_websocket.WebSocketConnection, stream: WatchedStream
) -> str | bytes | None:
    """The next message of the read that is being delivered, None when it brought no more.

    The library queues one message a turn of the scheduler and then asks for bytes: waiting until it does so takes no
    time and loses nothing, since a message that was handed over is returned in spite of the cancellation.
    """
    if stream.is_idle:
        return None
    message: str | bytes | None = None
    with trio.CancelScope() as scope:
        stream.until_idle = scope
        try:
            message = await connection.get_message()
        finally:
            stream.until_idle = None
    return message


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _describe(error: BaseException) -> str:
    if isinstance(error, trio_websocket.ConnectionClosed):
        reason = error.reason
        return "the venue closed the socket" if reason is None else f"closed: {reason.code} {reason.name}"
    if isinstance(error, trio.TooSlowError):
        return "no connection in time"
    return str(error) or type(error).__name__

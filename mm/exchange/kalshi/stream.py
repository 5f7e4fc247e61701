"""The one multiplexed WebSocket: connect, keep alive, deliver in batches, reconnect.

The socket is `websocket`'s over a stream that somebody else opens. It counts as alive by any frame or by the pong to
our own ping (the venue's pings stay away for over a minute on busy sockets). What frames mean is `session`'s.
"""

import itertools
import math
import ssl
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import attrs
import structlog
import trio
import wsproto.utilities

from mm.domain.order import MarketTicker
from mm.exchange.kalshi.frames import FrameReader
from mm.exchange.kalshi.options import Clock, Connect, KalshiOptions, Randomness, Tap
from mm.exchange.kalshi.reading import Codec, read_error
from mm.exchange.kalshi.rest import CLOCK_REFUSED
from mm.exchange.kalshi.session import FeedLost, FeedSession, FrameCounts
from mm.exchange.kalshi.signing import Signer, signed_headers
from mm.exchange.kalshi.subscriptions import UNFILTERED, Channel, Subscriptions
from mm.exchange.kalshi.websocket import (
    ClientSocket,
    HandshakeFailed,
    HandshakeRefused,
    SocketClosed,
    open_client_socket,
)
from mm.exchange.port import AuthError, FeedSink, FeedStatistics

MAX_BATCH: Final = 500
"""Frames delivered before `on_read_end`, at most: a flood must not keep decisions waiting."""
_BROKEN: Final = (
    FeedLost,
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    SocketClosed,
    HandshakeFailed,
    wsproto.utilities.ProtocolError,
)
"""The ways in which a connection ends; each means: reconnect."""

log = structlog.get_logger(__name__)


@attrs.define(eq=False, kw_only=True)
class KalshiFeed:
    """The live feed. `run` drives it; the other methods may be called at any time, by any task."""

    _options: KalshiOptions
    _signer: Signer
    _clock: Clock
    _randomness: Randomness
    _connect: Connect
    _ssl_context: ssl.SSLContext | None
    _tap: Tap | None = None
    _channels: tuple[Channel, ...] = UNFILTERED
    """The channels that take no list of markets; none of them on a further connection."""
    _on_full: Callable[[Sequence[MarketTicker]], None] | None = None
    """Told of markets that the venue refuses on this connection for a limit of its own."""
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

    def distrust_all(self) -> None:
        """Every book of this connection is to begin anew with a snapshot; deltas before that are not delivered."""
        if self._session is not None:
            self._session.subscriptions.out_of_sync(list(self._wanted), trio.current_time())
        self._wake.set()

    @property
    def watched(self) -> list[MarketTicker]:
        """What this connection is to carry."""
        return list(self._wanted)

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
        stream: trio.abc.Stream | None = None
        refused: BaseException | None = None
        try:
            try:
                stream = await self._open_stream()
                socket = await self._handshake(stream)
                connected_at = trio.current_time()
                async with trio.open_nursery() as nursery:
                    await self._serve_connection(nursery, socket, sink)
            except* HandshakeRefused as group:
                refused = _leaves(group)[0]
            except* _BROKEN as group:
                why = "; ".join(dict.fromkeys(_describe(error) for error in _leaves(group)))
            if refused is not None:
                why = _judge_refusal(refused)  # outside `except*`, so that its error comes bare
        finally:
            self._session = None
            # Before the await below, which raises when the feed itself is being cancelled.
            if connected_at < math.inf:
                sink.on_disconnected(self._clock(), why)
            if stream is not None:
                await trio.aclose_forcefully(stream)
        return connected_at, why

    async def _open_stream(self) -> trio.abc.Stream:
        """Dial, with TLS where the address wants it. Raises one of `_BROKEN`."""
        address = self._options.ws
        with trio.fail_after(self._options.handshake_timeout_s):
            stream = await self._connect(address.host, address.port)
            if address.is_secure:
                assert self._ssl_context is not None
                stream = trio.SSLStream(
                    stream, self._ssl_context, server_hostname=address.host, https_compatible=True
                )
        return stream

    async def _handshake(self, stream: trio.abc.Stream) -> ClientSocket:
        """The signed upgrade. The TLS handshake happens within it, under the same deadline."""
        address = self._options.ws
        headers = signed_headers(self._signer, self._clock(), "GET", address.path)
        with trio.fail_after(self._options.handshake_timeout_s):
            return await open_client_socket(stream, address.netloc, address.path, headers)

    async def _serve_connection(
        self,
        nursery: trio.Nursery,
        socket: ClientSocket,
        sink: FeedSink,
    ) -> NoReturn:
        self._connects += 1
        self._last_alive = trio.current_time()
        session = FeedSession(
            sink,
            Subscriptions(self._wanted, self._options.use_yes_price, self._channels),
            self._codec,
            FrameReader(self._codec.tally, self._options.use_yes_price),
            self._counts,
            self._options.subaccount,
            self._on_full,
        )
        self._session = session
        log.info("feed connected", connects=self._connects, markets=len(self._wanted))
        sink.on_connected(self._clock())
        nursery.start_soon(self._write, socket, session)
        nursery.start_soon(self._ping, socket)
        nursery.start_soon(self._watch_silence)
        await self._read(socket, session, sink)

    async def _read(self, socket: ClientSocket, session: FeedSession, sink: FeedSink) -> NoReturn:
        """Deliver what comes; `on_read_end` after everything that one read of the stream brought."""
        while True:
            messages = await socket.receive()
            now = self._clock()
            at = self._last_alive = trio.current_time()
            if self._tap is not None:
                self._tap(self._connects, messages, now)
            sink.on_alive(now)
            for start in range(0, len(messages), MAX_BATCH):
                session.receive_all(messages[start : start + MAX_BATCH], now, at)
                sink.on_read_end(now)
            if session.has_work:
                self._wake.set()

    async def _write(self, socket: ClientSocket, session: FeedSession) -> NoReturn:
        """Send what the subscriptions want, when something changed or is due."""
        while True:
            self._wake = trio.Event()
            at = trio.current_time()
            sick = session.subscriptions.overdue(at)
            if sick is not None:
                raise FeedLost(sick)
            for command in session.commands(at):
                await socket.send(command)
            # The floor keeps a mistake in the plan from becoming a hot loop.
            with trio.move_on_at(max(session.subscriptions.next_due(), at + 0.02)):
                await self._wake.wait()

    async def _ping(self, socket: ClientSocket) -> NoReturn:
        """Ask for a sign of life at a fixed rate; the reader notices the answer."""
        for number in itertools.count():
            next_at = trio.current_time() + self._options.ping_every_s
            await socket.ping(number.to_bytes(4, "big"))  # one that cannot be sent is found by the silence
            await trio.sleep_until(next_at)
        raise AssertionError("unreachable")

    async def _watch_silence(self) -> NoReturn:
        """Give the connection up when neither frame nor pong came for long enough."""
        while True:
            deadline = self._last_alive + self._options.silence_s
            if trio.current_time() >= deadline:
                raise FeedLost(f"silent for {self._options.silence_s:g} s")
            await trio.sleep_until(deadline)


def _judge_refusal(error: BaseException) -> str:
    """Why the handshake was refused. Raises `AuthError` when trying again would be hammering."""
    assert isinstance(error, HandshakeRefused)
    problem = read_error(error.body)
    if error.status in (401, 403) and not problem.code.startswith(CLOCK_REFUSED):
        text = problem.text or "the key was refused"
        raise AuthError(text, endpoint="WebSocket handshake", status=error.status, code=problem.code)
    return f"handshake refused (HTTP {error.status} {problem.code or problem.text})".replace(" )", ")")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _describe(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no connection in time"
    return str(error) or type(error).__name__

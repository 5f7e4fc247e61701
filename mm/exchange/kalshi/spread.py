"""The feed over as many connections as its markets need: the first carries the private channels, further ones only markets.

To the listener it is one feed. The first connection is up or down for all; a further one that is lost makes the books of its own
markets stale and nobody else's. With few markets there is only the first.
"""

from collections.abc import Callable, Sequence
from typing import Final, NoReturn, Protocol

import attrs
import structlog
import trio

from mm.domain.numbers import Micros
from mm.domain.order import MarketTicker
from mm.exchange.kalshi.options import Tap
from mm.exchange.kalshi.stream import KalshiFeed
from mm.exchange.kalshi.subscriptions import UNFILTERED, Channel
from mm.exchange.port import AuthError, FeedSink, FeedStatistics

MARKETS_A_CONNECTION: Final = 5_000
"""Far below the venue's 500,000 a session: what one lost connection makes stale."""
MOST_CONNECTIONS: Final = 40
"""The lowest tier's published limit is 200 a user; others may use the key."""

FURTHER: Final = 1_000
"""In a recording the connections of the second line are numbered from 1,001, of the third from 2,001, ..."""

OnFull = Callable[[Sequence[MarketTicker]], None]

log = structlog.get_logger(__name__)


def numbered(tap: Tap, offset: int) -> Tap:
    """The same tap, for a line whose connections must not be taken for the first one's."""

    def shown(number: int, messages: Sequence["str | bytes"], now: Micros) -> None:
        tap(offset + number, messages, now)

    return shown


class MakeLine(Protocol):
    """Makes one connection's feed."""

    def __call__(self, channels: tuple[Channel, ...], on_full: OnFull, /) -> KalshiFeed:
        """With these channels beside those of markets."""


@attrs.define(eq=False)
class Line:
    """One connection, and how many markets it takes."""

    feed: KalshiFeed
    limit: int


@attrs.define(eq=False)
class SpreadFeed:
    """A `Feed`. `run` drives it; the other methods may be called at any time, by any task."""

    _make: MakeLine
    markets_a_connection: int = MARKETS_A_CONNECTION
    lines: list[Line] = attrs.field(factory=list)
    owners: dict[MarketTicker, Line] = attrs.field(factory=dict)
    refused: int = 0
    """Markets that no connection may carry."""
    _nursery: trio.Nursery | None = None
    _sink: FeedSink | None = None

    def __attrs_post_init__(self) -> None:
        self._add_line()

    @property
    def first(self) -> KalshiFeed:
        """The connection that is always there."""
        return self.lines[0].feed

    async def watch(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port."""
        for line, part in self._place(tickers):
            await line.feed.watch(part)
        await trio.lowlevel.checkpoint()

    async def unwatch(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port. A connection without markets stays: it is cheap, and the next markets fill it."""
        for line, part in self._by_line(tickers):
            for ticker in part:
                self.owners.pop(ticker, None)
            await line.feed.unwatch(part)
        await trio.lowlevel.checkpoint()

    async def resync(self, tickers: Sequence[MarketTicker]) -> None:
        """See the port."""
        for line, part in self._by_line(tickers):
            await line.feed.resync(part)
        await trio.lowlevel.checkpoint()

    def statistics(self) -> FeedStatistics:
        """See the port: of all connections together. What was odd is counted once for all by their codec."""
        found = [line.feed.statistics() for line in self.lines]
        return attrs.evolve(
            found[0],
            connects=sum(s.connects for s in found),
            frames=sum(s.frames for s in found),
            gaps=sum(s.gaps for s in found),
            last_frame_at=max((s.last_frame_at for s in found), key=int),
        )

    async def run(self, sink: FeedSink) -> NoReturn:
        """See the port. Raises `AuthError` from any connection."""
        if self._nursery is not None:
            raise RuntimeError("this feed is already running")
        problem: AuthError | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self._sink = nursery, sink
                for line in self.lines[1:]:
                    self._start(line)
                await self.first.run(FirstSink(sink, self))
        except* AuthError as group:
            problem = _first_of(group)
        finally:
            self._nursery = self._sink = None
        if problem is not None:
            raise problem  # bare, as one connection raises it
        raise AssertionError("unreachable")

    def distrust_further(self) -> None:
        """The listener has given up every book: those of the further connections begin anew, too."""
        for line in self.lines[1:]:
            line.feed.distrust_all()

    # --- inside ---

    def _place(self, tickers: Sequence[MarketTicker]) -> list[tuple[Line, list[MarketTicker]]]:
        parts: dict[int, list[MarketTicker]] = {}
        sizes = [len(line.feed.watched) for line in self.lines]
        for ticker in tickers:
            if ticker in self.owners:
                continue
            at = next((i for i, line in enumerate(self.lines) if sizes[i] < line.limit), None)
            if at is None:
                if len(self.lines) >= MOST_CONNECTIONS:
                    self.refused += 1
                    continue
                self._start(self._add_line())
                sizes.append(0)
                at = len(self.lines) - 1
            sizes[at] += 1
            self.owners[ticker] = self.lines[at]
            parts.setdefault(at, []).append(ticker)
        if self.refused:
            log.error("markets without a connection", refused=self.refused, connections=len(self.lines))
        return [(self.lines[at], part) for at, part in parts.items()]

    def _by_line(self, tickers: Sequence[MarketTicker]) -> list[tuple[Line, list[MarketTicker]]]:
        parts: dict[Line, list[MarketTicker]] = {}
        for ticker in tickers:
            owner = self.owners.get(ticker)
            if owner is not None:
                parts.setdefault(owner, []).append(ticker)
        return list(parts.items())

    def _add_line(self) -> Line:
        def full(tickers: Sequence[MarketTicker]) -> None:
            self._overflow(line, tickers)

        line = Line(self._make(() if self.lines else UNFILTERED, full), self.markets_a_connection)
        self.lines.append(line)
        return line

    def _overflow(self, line: Line, tickers: Sequence[MarketTicker]) -> None:
        """The venue takes no more on this connection than it has: another one must."""
        line.limit = len(line.feed.watched)
        log.warning("a connection is full", markets=line.limit, moved=len(tickers))
        moved = [ticker for ticker in tickers if self.owners.pop(ticker, None) is line]
        if line.limit and self._nursery is not None:
            self._nursery.start_soon(self.watch, moved)
        elif moved:
            self.refused += len(moved)

    def _start(self, line: Line) -> None:
        if self._nursery is not None and self._sink is not None:
            self._nursery.start_soon(line.feed.run, FurtherSink(self._sink, line))


class _Through:
    """Hands everything on: the listener's own methods, so that a delta costs nothing more."""

    def __init__(self, sink: FeedSink) -> None:
        self._sink = sink
        self.on_alive = sink.on_alive
        self.on_snapshot = sink.on_snapshot
        self.on_delta = sink.on_delta
        self.on_out_of_sync = sink.on_out_of_sync
        self.on_trade = sink.on_trade
        self.on_fill = sink.on_fill
        self.on_order = sink.on_order
        self.on_market_event = sink.on_market_event
        self.on_group_triggered = sink.on_group_triggered
        self.on_read_end = sink.on_read_end


class FirstSink(_Through):
    """Of the first connection: when it is back, every book begins anew."""

    def __init__(self, sink: FeedSink, feed: SpreadFeed) -> None:
        super().__init__(sink)
        self._feed = feed
        self.on_disconnected = sink.on_disconnected

    def on_connected(self, now: Micros) -> None:
        """See `FeedSink`."""
        self._sink.on_connected(now)
        self._feed.distrust_further()


class FurtherSink(_Through):
    """Of a further connection: its coming and going concerns its own markets."""

    def __init__(self, sink: FeedSink, line: Line) -> None:
        super().__init__(sink)
        self._line = line

    def on_connected(self, now: Micros) -> None:
        """Its books come with its subscriptions."""

    def on_disconnected(self, now: Micros, why: str) -> None:
        """Their quotes go by the next decision."""
        self._sink.on_out_of_sync(self._line.feed.watched, why)
        self._sink.on_read_end(now)


def _first_of(group: BaseExceptionGroup[AuthError]) -> AuthError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, AuthError)
    return found

"""Reads recordings of the exchange's socket into a tape. What the frames mean is the adapter's to know.

`{"recv_ns", "conn", "frame"}` and `{"recv_ns", "conn", "event"}`, or `{"received_ms", "frame"}`. Of several connections
the newest with a snapshot of a market speaks for it. After a gap in `seq` a book is unknown until its next snapshot.
What the recording bot's own orders did to the book (the venue marks those deltas) is taken out again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from mm.domain.book import Level, OrderBook
from mm.domain.grid import uniform_grid
from mm.domain.numbers import CENT, DOLLAR, SECOND, Count, Micros, Price, parse_count, parse_price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import parse_time, series_of
from mm.exchange.embedded.slate.recording import infer_grid
from mm.exchange.kalshi.frames import FrameReader
from mm.exchange.kalshi.reading import Tally
from mm.research.lines import BadRecording, Lines, first_line
from mm.research.tape import BookSource, Kind, Tape, TapeMarket

OWN: Final = b'"event":"recording"'
"""Stands in the first line of what `mm record` writes: such a file may end anywhere."""
BACKWARDS: Final = Micros(SECOND)
"""A clock that steps back this far is not jitter."""
EXPECTED: Final = "frames of the exchange's socket with recv_ns or received_ms"


@attrs.define(eq=False)
class _Channel:
    """One subscription of one connection."""

    last_seq: int | None = None
    live: set[str] = attrs.field(factory=set)
    """Markets with a snapshot since the last gap."""


@attrs.define(eq=False)
class _Frames:
    lines: Lines
    tape: Tape
    now: int = 0
    reader: FrameReader = attrs.field(factory=lambda: FrameReader(Tally(), use_yes_price=False))
    channels: dict[tuple[int, int], _Channel] = attrs.field(factory=dict)
    owners: dict[str, int] = attrs.field(factory=dict)
    places: dict[str, int] = attrs.field(factory=dict)
    books: dict[str, OrderBook] = attrs.field(factory=dict)
    prices: dict[str, set[Price]] = attrs.field(factory=dict)
    volumes: dict[str, int] = attrs.field(factory=dict)
    closes: dict[str, Micros] = attrs.field(factory=dict)
    own: dict[tuple[str, Side, Price], int] = attrs.field(factory=dict)
    """What of our own orders stands at a level of the recorded book and was left out of the tape."""

    def take(self, line: dict[str, Any]) -> None:
        """One line."""
        at = line["recv_ns"] // 1_000 if "recv_ns" in line else line["received_ms"] * 1_000
        if at < self.now - BACKWARDS:
            raise ValueError(f"its time is {(self.now - at) / SECOND:.1f} s before the line above")
        self.now = max(self.now, at)
        frame = line.get("frame")
        if frame is None:
            self.event(line)
            return
        conn = line.get("conn", 0)
        channel = self.channels.get((conn, frame.get("sid", 0)))
        if channel is None:
            channel = self.channels[conn, frame.get("sid", 0)] = _Channel()
        seq = frame.get("seq")
        if seq is not None:
            if channel.last_seq is not None and seq != channel.last_seq + 1:
                self.gap(conn, channel)
            channel.last_seq = seq
        kind = frame.get("type")
        if kind == "orderbook_delta":
            self.delta(conn, channel, frame["msg"])
        elif kind == "orderbook_snapshot":
            self.snapshot(conn, channel, frame["msg"])
        elif kind == "trade":
            self.trade(frame)
        elif kind == "ticker":
            self.ticker(frame["msg"])
        elif kind == "market_lifecycle_v2":
            self.lifecycle(frame["msg"])
        else:
            self.tape.note(f"frame {kind}")

    def event(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "watch_market":
            market = line["market"]
            self.closes[market["market_ticker"]] = parse_time(market["close_time"])
        elif event == "recording":
            self.reader.use_yes_price = bool(line["info"]["use_yes_price"])
        elif event == "dropped":
            self.tape.note("dropped by the recorder", line["info"]["frames"])
            for (conn, _), channel in self.channels.items():
                self.gap(conn, channel)
        elif event == "disconnected":
            for (conn, _), channel in self.channels.items():
                if conn == line.get("conn", 0):
                    self.gap(conn, channel)

    def gap(self, conn: int, channel: _Channel) -> None:
        """What this channel carried is unknown from now on."""
        for ticker in sorted(channel.live):
            if self.owners.get(ticker) == conn:
                self.tape.add(self.now, Kind.STALE, self.places[ticker])
                self.books[ticker].mark_out_of_sync()
            for level in [level for level in self.own if level[0] == ticker]:
                del self.own[level]  # what became of ours meanwhile is not known
        if channel.live:
            self.tape.note("gap")
        channel.live.clear()

    def place(self, ticker: str) -> int:
        place = self.places.get(ticker)
        if place is None:
            place = self.places[ticker] = len(self.tape.markets)
            self.tape.markets.append(
                TapeMarket(
                    ticker=MarketTicker(ticker),
                    grid=uniform_grid(CENT),
                    source=BookSource.DEPTH,
                    has_trades=False,
                )
            )
        return place

    def delta(self, conn: int, channel: _Channel, msg: dict[str, Any]) -> None:
        ticker, side, price, change, _ = self.reader.delta(msg)
        owner = self.owners.get(ticker)
        if conn != owner:
            self.tape.note("superseded" if owner is not None else "delta before a snapshot")
            return
        if ticker not in channel.live:
            self.tape.note("delta after a gap")
            return
        if not 0 < price < DOLLAR:
            raise ValueError(f"price {price} lies outside 0..1 dollar")
        if "client_order_id" in msg:
            self.tape.note("change by our own orders")
            change = self.without_own((ticker, side, price), change)
            if not change:
                return
        self.books[ticker].apply_delta(side, price, change)
        self.prices[ticker].add(price)
        kind = Kind.DELTA_BID if side is Side.BID else Kind.DELTA_ASK
        self.tape.add(self.now, kind, self.places[ticker], price, change)

    def without_own(self, level: tuple[str, Side, Price], change: Count) -> Count:
        """What of our own change concerns the tape: nothing, unless the order came in with a snapshot, unknown."""
        known = self.own.get(level, 0) + change
        self.own[level] = max(known, 0)
        return Count(min(known, 0))

    def snapshot(self, conn: int, channel: _Channel, msg: dict[str, Any]) -> None:
        ticker, bids, asks = self.reader.snapshot(msg)
        if conn < self.owners.get(ticker, conn):
            self.tape.note("superseded")
            return
        self.owners[ticker] = conn
        channel.live.add(ticker)
        place = self.place(ticker)
        bids = self.others(ticker, Side.BID, bids)
        asks = self.others(ticker, Side.ASK, asks)
        self.books.setdefault(ticker, OrderBook()).snapshot(bids, asks)
        self.prices.setdefault(ticker, set()).update(price for price, _ in bids + asks)
        self.tape.snapshot(self.now, place, bids, asks)

    def others(self, ticker: str, side: Side, levels: list[Level]) -> list[Level]:
        """A snapshot's levels without what we know to be ours."""
        left = [(price, Count(count - self.own.get((ticker, side, price), 0))) for price, count in levels]
        return [(price, count) for price, count in left if count > 0]

    def trade(self, frame: dict[str, Any]) -> None:
        trade = self.reader.trade(frame["msg"], frame.get("sending_ts_ms"), Micros(self.now))
        if trade.is_block:
            self.tape.note("block trade")
        elif trade.ticker not in self.owners:
            self.tape.note("trade before a book")
        else:
            place = self.place(trade.ticker)
            self.tape.markets[place].has_trades = True
            self.tape.trade(self.now, place, trade.price, trade.count, trade.taker_side, trade.ts)

    def ticker(self, msg: dict[str, Any]) -> None:
        """The volume says how much was traded since the last one, and the price at which the last of it was."""
        ticker, volume = msg["market_ticker"], parse_count(msg["volume_fp"])
        before = self.volumes.get(ticker)
        self.volumes[ticker] = volume
        if before is None or volume <= before or ticker not in self.owners:
            return
        price = parse_price(msg["price_dollars"])
        self.tape.add(self.now, Kind.LAST_PRICE, self.place(ticker), price, volume - before)

    def lifecycle(self, msg: dict[str, Any]) -> None:
        ticker, event = msg.get("market_ticker"), msg.get("event_type")
        if ticker not in self.places:
            self.tape.note("lifecycle of a market without a book")
            return
        kinds = {"activated": Kind.RESUME, "deactivated": Kind.PAUSE}
        if event in kinds:
            self.tape.add(self.now, kinds[event], self.places[ticker])
        elif event == "determined":
            result = {"yes": DOLLAR, "no": Price(0)}.get(msg.get("result", ""))
            value = msg.get("settlement_value")
            self.tape.markets[self.places[ticker]].result = parse_price(value) if value else result
        elif event == "close_date_updated" and msg.get("close_ts"):
            self.closes[ticker] = Micros(int(msg["close_ts"]) * SECOND)

    def finish(self) -> Tape:
        tape = self.tape
        if not len(tape):
            raise BadRecording(self.lines.path, None, "holds no order book snapshot")
        grids: dict[str, set[Price]] = {}
        for ticker, prices in self.prices.items():
            grids.setdefault(series_of(ticker), set()).update(prices)
        for ticker, place in self.places.items():
            market = tape.markets[place]
            market.grid = infer_grid(grids[series_of(ticker)])
            market.close_time = self.closes.get(ticker)
            if market.close_time is not None and market.close_time <= self.now:
                tape.add(market.close_time, Kind.CLOSE, place)
        tape.sort()
        return tape


def read_frames(path: Path) -> Tape:
    """A recording of the exchange's socket. Raises `BadRecording`."""
    return read_parts([path], path.name)


def read_parts(paths: Sequence[Path], name: str) -> Tape:
    """A recording in several files, each going on where the one before it ended. Raises `BadRecording`."""
    frames = _Frames(Lines(paths[0]), Tape(name=name))
    for path in paths:
        frames.lines = lines = Lines(path, may_be_torn=OWN in first_line(path))
        lines.each(lines.objects(), frames.take, EXPECTED)
        if lines.is_torn:
            frames.tape.note("torn end")
    return frames.finish()


def read_bare_frames(path: Path) -> Tape:
    """Frames as they came off the socket, without a time of receipt: the exchange's own times stand in.

    What comes before the first frame with a time (subscriptions, the snapshot) is taken to be of that moment. Raises
    `BadRecording`.
    """
    lines = Lines(path)
    frames = _Frames(lines, Tape(name=path.name))
    early: list[dict[str, Any]] = []
    now: int | None = None

    def take(frame: dict[str, Any]) -> None:
        nonlocal now
        msg = frame.get("msg")
        told = msg.get("ts_ms") if isinstance(msg, dict) else None
        if told is None and now is None:
            early.append(frame)
            return
        now = told if told is not None else now
        for one in (*early, frame):
            frames.take({"received_ms": now, "frame": one})
        early.clear()

    lines.each(lines.objects(), take, "frames of the exchange's socket with ts_ms")
    return frames.finish()

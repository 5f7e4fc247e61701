"""Reading a recording of the exchange's socket: what its books did, step by step. No core, no clock.

Two line formats, plain or gzip, one JSON object a line: `{"received_ms", "frame"}` (one connection) and
`{"recv_ns", "conn", "frame"}` with `{"recv_ns", "conn", "event"}` lines between. Frames are as they came off the
socket. Order book frames of each market are taken from one connection at a time: a snapshot on a newer connection
takes over, what the older one still says is left out. `ok` and other replies that carry `seq` count in the sequence.
After a gap in `seq` the books of that subscription are unknown; their deltas are left out (and counted) until the
next snapshot.
"""

import enum
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from mm.domain.book import Level, OrderBook
from mm.domain.errors import BookOutOfSync, MMError
from mm.domain.grid import PriceBand, TickGrid, tick_grid
from mm.domain.numbers import (
    CENT,
    DOLLAR,
    Count,
    Micros,
    Price,
    complement,
    parse_count,
    parse_price,
)
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import parse_time, series_of

_GZIP_MAGIC: Final = b"\x1f\x8b"
_EDGE_LOW: Final = Price(1_000)
_EDGE_HIGH: Final = Price(9_000)


class ReplayError(MMError):
    """A recording that cannot be replayed; the message names the file and, where there is one, the line."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        where = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{where}: {problem}")
        self.path = path
        self.line = line


class StepKind(enum.Enum):
    """What a recorded step does."""

    SNAPSHOT = "snapshot"
    DELTA = "delta"
    TRADE = "trade"


@attrs.frozen
class Step:
    """One change of one recorded market."""

    at: Micros
    """The recorder's clock; never goes back from step to step."""
    kind: StepKind
    ticker: MarketTicker
    side: Side = Side.BID
    """Of the level, or the taker's."""
    price: Price = Price(0)
    count: Count = Count(0)
    """Signed change of the level, or the size of the trade."""
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()


@attrs.frozen(repr=False)
class Recording:
    """A whole recording in memory."""

    path: Path
    steps: list[Step]
    closes: dict[MarketTicker, Micros]
    """Recorded close times, where the recorder noted them."""
    grids: dict[str, TickGrid]
    """Per series, the coarsest known grid that holds every recorded price."""
    ignored: Counter[str]
    """Frames of other kinds, frames of superseded connections (`superseded`), deltas after a gap (`after gap`)."""

    @property
    def tickers(self) -> list[MarketTicker]:
        """The recorded markets, in order of appearance."""
        return list(dict.fromkeys(step.ticker for step in self.steps))

    def books_at_end(self) -> dict[MarketTicker, OrderBook]:
        """The books after the last step, by folding the recording and nothing else."""
        books: dict[MarketTicker, OrderBook] = {}
        for step in self.steps:
            apply_step(books.setdefault(step.ticker, OrderBook()), step)
        return books


def apply_step(book: OrderBook, step: Step) -> None:
    """Fold one step into a plain book. Raises `BookOutOfSync`."""
    if step.kind is StepKind.SNAPSHOT:
        book.snapshot(step.bids, step.asks)
    elif step.kind is StepKind.DELTA:
        book.apply_delta(step.side, step.price, step.count)


def load_recording(path: Path) -> Recording:
    """Read and check a whole recording.

    Raises:
        ReplayError: Not readable, damaged (with the line), or without any order book.
    """
    return _Reader(path).read()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(2) == _GZIP_MAGIC
            plain.seek(0)
            with gzip.open(plain) if is_gzip else plain as file:
                for line in file:
                    number += 1
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReplayError(path, number + 1, f"the gzip data is damaged: {error}") from error
    except OSError as error:
        raise ReplayError(path, None, f"cannot be read: {error.strerror or error}") from error


@attrs.define(eq=False, repr=False)
class _Stream:
    """One subscription of one connection."""

    last_seq: int | None = None
    tickers: set[MarketTicker] = attrs.field(factory=set)
    """Markets with a snapshot since the last gap."""


@attrs.define(eq=False, repr=False)
class _Reader:
    path: Path
    line: int = 0
    now: Micros = Micros(0)
    steps: list[Step] = attrs.field(factory=list)
    closes: dict[MarketTicker, Micros] = attrs.field(factory=dict)
    books: dict[MarketTicker, OrderBook] = attrs.field(factory=dict)
    prices: dict[str, set[Price]] = attrs.field(factory=dict)
    ignored: Counter[str] = attrs.field(factory=Counter)
    streams: dict[tuple[int, int], _Stream] = attrs.field(factory=dict)
    owners: dict[MarketTicker, int] = attrs.field(factory=dict)
    """Which connection a market's book is taken from."""
    uses_yes_price: bool = False

    def read(self) -> Recording:
        for number, text in _lines(self.path):
            self.line = number
            if text.strip():
                self.take_line(text)
        if not self.steps:
            raise ReplayError(self.path, None, "holds no order book snapshot")
        grids = {series: infer_grid(prices) for series, prices in self.prices.items()}
        return Recording(self.path, self.steps, self.closes, grids, self.ignored)

    def fail(self, problem: str) -> ReplayError:
        return ReplayError(self.path, self.line, problem)

    def take_line(self, text: bytes) -> None:
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise self.fail(f"not JSON ({error})") from error
        if not isinstance(record, dict):
            raise self.fail("not a JSON object")
        try:
            self.take_record(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise self.fail(f"not a recorded frame: {what}") from error
        except BookOutOfSync as error:
            raise self.fail(f"does not fit the book before it: {error}") from error

    def take_record(self, record: dict[str, Any]) -> None:
        micros = record["recv_ns"] // 1000 if "recv_ns" in record else record["received_ms"] * 1000
        self.now = Micros(max(self.now, micros))
        if "frame" in record:
            self.take_frame(record.get("conn", 0), record["frame"])
            return
        if record["event"] == "watch_market":
            market = record["market"]
            self.closes[MarketTicker(market["market_ticker"])] = parse_time(market["close_time"])
        self.uses_yes_price = record.get("use_yes_price", self.uses_yes_price)

    def take_frame(self, conn: int, frame: dict[str, Any]) -> None:
        stream = self.streams.setdefault((conn, frame.get("sid", 0)), _Stream())
        self.follow_seq(stream, frame.get("seq"))
        kind = frame["type"]
        if kind == "orderbook_snapshot":
            self.take_snapshot(conn, stream, frame["msg"])
        elif kind == "orderbook_delta":
            self.take_delta(conn, stream, frame["msg"])
        elif kind == "trade":
            self.take_trade(frame["msg"])
        else:
            self.ignored[kind] += 1

    def follow_seq(self, stream: _Stream, seq: int | None) -> None:
        if seq is None:
            return
        if stream.last_seq is not None and seq != stream.last_seq + 1:
            stream.tickers.clear()
        stream.last_seq = seq

    def take_snapshot(self, conn: int, stream: _Stream, msg: dict[str, Any]) -> None:
        ticker = MarketTicker(msg["market_ticker"])
        if conn < self.owners.get(ticker, conn):
            self.ignored["superseded"] += 1
            return
        self.owners[ticker] = conn
        stream.tickers.add(ticker)
        bids = [(parse_price(p), parse_count(c)) for p, c in msg.get("yes_dollars_fp") or ()]
        asks = [(self.ask_price(p), parse_count(c)) for p, c in msg.get("no_dollars_fp") or ()]
        step = Step(self.now, StepKind.SNAPSHOT, ticker, bids=tuple(bids), asks=tuple(asks))
        self.keep(step, [price for price, _ in bids + asks])

    def take_delta(self, conn: int, stream: _Stream, msg: dict[str, Any]) -> None:
        ticker = MarketTicker(msg["market_ticker"])
        owner = self.owners.get(ticker)
        if owner is None or (conn == owner and ticker not in stream.tickers):
            self.ignored["after gap"] += 1
            return
        if conn != owner:
            self.ignored["superseded"] += 1
            return
        is_bid = {"yes": True, "no": False}[msg["side"]]
        price = parse_price(msg["price_dollars"]) if is_bid else self.ask_price(msg["price_dollars"])
        side = Side.BID if is_bid else Side.ASK
        step = Step(self.now, StepKind.DELTA, ticker, side, price, parse_count(msg["delta_fp"]))
        self.keep(step, [price])

    def take_trade(self, msg: dict[str, Any]) -> None:
        if msg.get("is_block_trade"):
            self.ignored["block trade"] += 1
            return
        taker = msg.get("taker_book_side") or {"yes": "bid", "no": "ask"}[msg["taker_side"]]
        price, count = parse_price(msg["yes_price_dollars"]), parse_count(msg["count_fp"])
        ticker = MarketTicker(msg["market_ticker"])
        if ticker not in self.owners:
            self.ignored["trade before book"] += 1
            return
        self.steps.append(Step(self.now, StepKind.TRADE, ticker, Side(taker), price, count))

    def ask_price(self, text: str) -> Price:
        price = parse_price(text)
        return price if self.uses_yes_price else complement(price)

    def keep(self, step: Step, prices: list[Price]) -> None:
        for price in prices:
            if not 0 < price < DOLLAR:
                raise ValueError(f"price {price} lies outside 0..1 dollar")
        apply_step(self.books.setdefault(step.ticker, OrderBook()), step)
        self.prices.setdefault(series_of(step.ticker), set()).update(prices)
        self.steps.append(step)


def infer_grid(prices: set[Price]) -> TickGrid:
    """The coarsest of the exchange's usual grids that holds all these prices."""
    odd = {price for price in prices if price % CENT}
    tenth = Price(CENT // 10)
    if not odd:
        return tick_grid([PriceBand(Price(0), DOLLAR, CENT)])
    if any(price % tenth for price in odd):
        return tick_grid([PriceBand(Price(0), DOLLAR, Price(1))])
    if all(price < _EDGE_LOW or price > _EDGE_HIGH for price in odd):
        return tick_grid(
            [
                PriceBand(Price(0), _EDGE_LOW, tenth),
                PriceBand(_EDGE_LOW, _EDGE_HIGH, CENT),
                PriceBand(_EDGE_HIGH, DOLLAR, tenth),
            ]
        )
    return tick_grid([PriceBand(Price(0), DOLLAR, tenth)])


def structure_name(grid: TickGrid) -> str:
    """The exchange's name for a grid of `infer_grid`."""
    steps = [band.step for band in grid.bands]
    if len(steps) > 1:
        return "tapered_deci_cent"
    return {100: "linear_cent", 10: "deci_cent"}.get(steps[0], "center_centi_edge_centi_cent")

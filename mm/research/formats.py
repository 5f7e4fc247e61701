"""Readers of every known format of recorded books and prints: one plain function each, all into a `Tape`.

| function | what it reads |
|---|---|
| `read_frames` | the exchange's socket, a frame a line with its time of receipt (`mm record`'s own, and two others) |
| `read_bare_frames` | the same without a time of receipt: the exchange's own times stand in |
| `read_trade_pages` | JSON pages of public trades, as the exchange's REST answers them |
| `read_prints` | CSV of public prints, as `mm backtest --trades` takes |
| `read_game_ticks` | JSON lines: `meta`, then polls of a game market's best prices with the state of the game |
| `read_snapshots` | JSON lines of best prices in cents, several markets in turn |
| `read_depth` | JSON lines of whole books from REST, a pass now and then |
| `read_quotes` | CSV of best prices: dollars or cents, several spellings |
| `read_candles` | JSON lines or CSV of one-minute candles with closing bid and ask |
| `columns.read_columns` | Parquet that `mm convert` made of any of these |

Prices that come as binary floats are rounded to the 0.1 cent they were made from. Polled and candle tapes have no
prints: what fills there is a book that moves through a quote.
"""

import itertools
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from mm.domain.book import Level
from mm.domain.fill import Trade, TradeId
from mm.domain.grid import TickGrid, uniform_grid
from mm.domain.numbers import CENT, DOLLAR, SECOND, Count, Micros, Price, parse_count, parse_price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import parse_time, series_of
from mm.engine.backtest.prints import in_order
from mm.exchange.embedded.slate.recording import infer_grid
from mm.research.columns import is_columns, read_columns
from mm.research.frames import read_bare_frames, read_frames, read_parts
from mm.research.lines import BadRecording, Lines, first_line
from mm.research.tape import UNKNOWN_SIZE, BookSource, Kind, Tape, TapeMarket
from mm.tasks.backtest import BadTradesFile, read_trades

UNSORTED_BY: Final = Micros(60 * SECOND)
"""A line this much older than the one before it: the file is not in order."""
MINUTE: Final = 60 * SECOND


@attrs.define(eq=False)
class Touches:
    """Builds a tape from best prices; what did not change is not written again."""

    path: Path
    lines: Lines
    tape: Tape = attrs.field(init=False)
    _last: dict[int, tuple[list[Level], list[Level]]] = attrs.field(factory=dict)
    _places: dict[str, int] = attrs.field(factory=dict)
    _prices: dict[str, set[Price]] = attrs.field(factory=dict)
    _now: Micros = Micros(0)

    def __attrs_post_init__(self) -> None:
        self.tape = Tape(name=self.path.name)

    def place(self, ticker: str, source: BookSource = BookSource.TOUCH) -> int:
        """The market's place in the tape."""
        if not ticker:
            raise ValueError("no ticker")
        if ticker not in self._places:
            self._places[ticker] = len(self.tape.markets)
            market = TapeMarket(
                ticker=MarketTicker(ticker), grid=uniform_grid(CENT), source=source, has_trades=False
            )
            self.tape.markets.append(market)
        return self._places[ticker]

    def when(self, at: Micros) -> Micros:
        """A line's time, never before the last one's. Raises `ValueError` when the file is not in order."""
        if at < self._now - UNSORTED_BY:
            raise ValueError(f"it is {(self._now - at) / SECOND:.0f} s older than the line before it")
        self._now = max(self._now, at)
        return self._now

    def book(self, at: Micros, place: int, bids: list[Level], asks: list[Level]) -> None:
        """A book as it was at `at`."""
        for price, count in bids + asks:
            if not 0 < price < DOLLAR or count <= 0:
                raise ValueError(f"{count} contracts at {price / 100:g} cents")
        if bids and asks and bids[0][0] >= asks[0][0]:
            self.tape.note("crossed")
            return
        if self._last.get(place) == (bids, asks):
            return
        self._last[place] = (bids, asks)
        series = series_of(self.tape.markets[place].ticker)
        self._prices.setdefault(series, set()).update(price for price, _ in bids + asks)
        self.tape.snapshot(at, place, bids, asks)

    def finish(self) -> Tape:
        """The tape. Raises `BadRecording` when nothing of use was read."""
        for market in self.tape.markets:
            prices = self._prices.get(series_of(market.ticker))
            if prices:
                market.grid = infer_grid(prices)
        if not len(self.tape):
            raise BadRecording(self.path, None, "holds no book and no print")
        self.tape.sort()
        return self.tape


def _price(dollars: Any) -> Price:
    """A float of dollars, or its text, as the 0.1 cent it was made from."""
    return Price(round(Decimal(str(dollars)) * 1_000) * 10)


def _level(dollars: Any, size: Any = None) -> list[Level]:
    """One level, or none where the price is missing, 0 or 1 (an empty side). An unknown size is `UNKNOWN_SIZE`."""
    if dollars in (None, ""):
        return []
    price = _price(dollars)
    count = UNKNOWN_SIZE if size in (None, "") else Count(round(Decimal(str(size)) * 100))
    return [(price, count)] if 0 < price < DOLLAR and count > 0 else []


def read_prints(path: Path) -> Tape:
    """CSV of public prints. The book is made from them: the last price, and one tick beside it.

    Raises `BadRecording`.
    """
    try:
        markets = read_trades(path)
    except BadTradesFile as error:
        raise BadRecordingText(str(error)) from error
    return _of_prints(path, markets)


def read_trade_pages(path: Path) -> Tape:
    """Pages of `GET /markets/trades`, one JSON object a line: `trades`, each with ticker, price, count and taker side."""
    lines = Lines(path)
    markets: dict[MarketTicker, list[Trade]] = {}
    left_out: list[str] = []

    def take(page: dict[str, Any]) -> None:
        for row in page["trades"]:
            found = markets.setdefault(MarketTicker(row["ticker"]), [])
            if row.get("is_block_trade"):
                left_out.append("block trade")
                continue
            taker = {"yes": Side.BID, "no": Side.ASK}[row["taker_side"]]
            trade = Trade(
                trade_id=TradeId(row["trade_id"]),
                ticker=MarketTicker(row["ticker"]),
                price=parse_price(row["yes_price_dollars"]),
                count=parse_count(row["count_fp"]),
                taker_side=taker,
                ts=parse_time(row["created_time"]),
            )
            found.append(trade)

    lines.each(
        lines.objects(), take, "trades with ticker, created_time, yes_price_dollars, count_fp, taker_side"
    )
    tape = _of_prints(path, markets)
    for what in left_out:
        tape.note(what)
    return tape


def _of_prints(path: Path, markets: Mapping[MarketTicker, list[Trade]]) -> Tape:
    """A tape of prints, and of the book that they show."""
    tape = Tape(name=path.name)
    for ticker in sorted(markets):
        trades = in_order(markets[ticker])
        grid = infer_grid({trade.price for trade in trades})
        place = len(tape.markets)
        tape.markets.append(TapeMarket(ticker=ticker, grid=grid, source=BookSource.PRINTS, has_trades=True))
        sweeps = itertools.groupby(trades, key=lambda trade: (trade.ts, trade.taker_side))
        for (ts, taker), sweep in sweeps:
            last: Price | None = None
            for trade in sweep:
                tape.trade(ts, place, trade.price, trade.count, taker, ts)
                last = trade.price
            assert last is not None
            tape.snapshot(ts, place, *_touch_beside(last, taker, grid))
    if not len(tape):
        raise BadRecording(path, None, "holds no print with a taker side")
    tape.sort()
    return tape


class BadRecordingText(BadRecording):
    """The same, with a message that was made elsewhere."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)


def _touch_beside(price: Price, taker: Side, grid: TickGrid) -> tuple[list[Level], list[Level]]:
    """What a print shows of the book: its own price on the side that was eaten, one tick away on the other."""
    below, above = grid.tick_below(price), grid.tick_above(price)
    bid, ask = (below, price) if taker is Side.BID else (price, above)
    return (
        [(bid, UNKNOWN_SIZE)] if bid is not None else [],
        [(ask, UNKNOWN_SIZE)] if ask is not None else [],
    )


def read_game_ticks(path: Path) -> Tape:
    """A `meta` line, then polls with `market` and `game`."""
    lines = Lines(path)
    touches = Touches(path, lines)
    place = -1

    def take(line: dict[str, Any]) -> None:
        nonlocal place
        if "meta" in line:
            place = touches.place(line["meta"]["ticker"])
            result = line["meta"].get("kalshi_result")
            if result in ("yes", "no"):
                touches.tape.markets[place].result = DOLLAR if result == "yes" else Price(0)
            return
        market = line["market"]
        at = touches.when(parse_time(line["ts"]))
        bids = _level(market["yes_bid"], market["yes_bid_size"])
        asks = _level(market["yes_ask"], market["yes_ask_size"])
        touches.book(at, place, bids, asks)

    lines.each(lines.objects(), take, "a meta line, then lines with ts, market.yes_bid, market.yes_ask")
    return touches.finish()


def read_snapshots(path: Path) -> Tape:
    """Best prices in cents (floats), sizes as decimal strings."""
    lines = Lines(path)
    touches = Touches(path, lines)

    def take(line: dict[str, Any]) -> None:
        at = touches.when(Micros(int(line["ts"]) * 1_000))
        bid, ask = line["yes_bid"], line["yes_ask"]
        bids = _level(None if bid is None else bid / 100, line["yes_bid_sz"])
        asks = _level(None if ask is None else ask / 100, line["yes_ask_sz"])
        touches.book(at, touches.place(line["ticker"]), bids, asks)

    lines.each(lines.objects(), take, "ts, ticker, yes_bid, yes_ask, yes_bid_sz, yes_ask_sz")
    return touches.finish()


def read_depth(path: Path) -> Tape:
    """Whole books from REST: `yes_bids` and `no_bids`, best first."""
    lines = Lines(path)
    touches = Touches(path, lines)

    def take(line: dict[str, Any]) -> None:
        at = touches.when(parse_time(line["captured_at"]))
        bids = [level for price, size in line["yes_bids"] for level in _level(price, size)]
        asks = [level for price, size in line["no_bids"] for level in _level(1 - Decimal(str(price)), size)]
        touches.book(at, touches.place(line["ticker"]), bids, asks)

    lines.each(lines.objects(), take, "captured_at, ticker, yes_bids, no_bids")
    return touches.finish()


_QUOTE_COLUMNS: Final = (
    # time, ticker, bid, ask, bid size, ask size, cents a unit of price
    ("timestamp", "market_ticker", "best_yes_bid", "implied_yes_ask", None, None, 1),
    ("timestamp", "ticker", "yes_best_bid", "yes_imp_ask", "yes_bid_qty", "yes_ask_qty", 1),
    ("timestamp", "ticker", "yes_bid", "yes_ask", None, None, 100),
)


def read_quotes(path: Path) -> Tape:
    """CSV of best prices. A row whose fetch failed is left out and counted."""
    lines = Lines(path)
    touches = Touches(path, lines)

    def take(row: dict[str, str]) -> None:
        if row.get("fetch_success") == "False":
            touches.tape.note("fetch failed")
            return
        time, ticker, bid, ask, bid_size, ask_size, cents = next(
            names for names in _QUOTE_COLUMNS if all(name in row for name in names[1:4])
        )
        at = touches.when(parse_time(row[time]))

        def level(name: str, size: str | None) -> list[Level]:
            dollars = Decimal(row[name]) * cents / 100 if row[name] else None
            return _level(dollars, row[size] if size else None)

        touches.book(at, touches.place(row[ticker]), level(bid, bid_size), level(ask, ask_size))

    lines.each(lines.rows(), take, "a time, a ticker, a bid and an ask")
    return touches.finish()


def read_candles(path: Path) -> Tape:
    """One-minute candles: closing bid and ask, known at the end of the minute and not before."""
    lines = Lines(path)
    touches = Touches(path, lines)

    def game(line: dict[str, Any]) -> None:
        place = touches.place(line["game"]["ticker"])
        before = 0
        for candle in line["candles"]:
            at = Micros(int(candle["ts"]) * SECOND)
            if at <= before:
                raise ValueError(f"a candle of {line['game']['ticker']} is not later than the one before it")
            before = at
            touches.book(at, place, _level(candle["yb"]), _level(candle["ya"]))
        if line["candles"]:
            # A line is a whole game: nobody looked any longer.
            touches.tape.add(int(line["candles"][-1]["ts"]) * SECOND, Kind.CLOSE, place)

    def row(row: dict[str, str]) -> None:
        at = touches.when(Micros(int(row["ts"]) * SECOND + MINUTE))
        place = touches.place(path.name.split(".")[0])
        touches.book(at, place, _level(row["bid_close"]), _level(row["ask_close"]))

    if first_line(path).lstrip().startswith(b"{"):
        lines.each(lines.objects(), game, "a game with its candles: ts, yb, ya")
    else:
        lines.each(lines.rows(), row, "ts, bid_close, ask_close")
    return touches.finish()


# --- which is it ------------------------------------------------------------------------------------------------------

_JSON: Final[tuple[tuple[frozenset[str], Callable[[Path], Tape]], ...]] = (
    (frozenset({"recv_ns"}), read_frames),
    (frozenset({"received_ms"}), read_frames),
    (frozenset({"type", "msg"}), read_bare_frames),
    (frozenset({"trades"}), read_trade_pages),
    (frozenset({"meta"}), read_game_ticks),
    (frozenset({"game", "candles"}), read_candles),
    (frozenset({"captured_at", "yes_bids"}), read_depth),
    (frozenset({"ts", "ticker", "yes_bid"}), read_snapshots),
)
_CSV: Final[tuple[tuple[frozenset[str], Callable[[Path], Tape]], ...]] = (
    (frozenset({"trade_id", "taker_side"}), read_prints),
    (frozenset({"market_ticker", "best_yes_bid"}), read_quotes),
    (frozenset({"ticker", "yes_best_bid"}), read_quotes),
    (frozenset({"timestamp", "ticker", "yes_bid"}), read_quotes),
    (frozenset({"ts", "bid_close"}), read_candles),
)


def reader_of(path: Path) -> Callable[[Path], Tape]:
    """The reader of a file's format, by its first line. Raises `BadRecording`."""
    head = first_line(path)
    if not head:
        raise BadRecording(path, None, "is empty")
    names: set[str]
    if head.lstrip().startswith(b"{"):
        try:
            names = set(orjson.loads(head))
        except orjson.JSONDecodeError as error:
            raise BadRecording(path, 1, f"not JSON: {error}") from error
        known = _JSON
    else:
        names = {name.strip() for name in head.decode("utf-8-sig", "replace").split(",")}
        known = _CSV
    for wanted, reader in known:
        if wanted <= names:
            return reader
    raise BadRecording(
        path,
        1,
        f"no known format; found {', '.join(sorted(names)[:8])!r}; expected frames with recv_ns or received_ms, "
        "prints (trade_id, taker_side), or best prices (see docs/research.md)",
    )


def read_recording(source: Path | str) -> Tape:
    """Any known format, the folder of one session that `mm record` wrote, or the address of a converted recording.

    Raises `BadRecording`, and `ConfigError` where a converted recording needs the research extra.
    """
    if "://" in str(source):
        return read_columns(str(source))
    path = Path(source)
    if is_columns(path):
        return read_columns(path)
    if path.is_dir():
        parts = sorted(path.glob("part-*.jsonl.gz"))
        if not parts:
            raise BadRecording(
                path, None, "a folder without part-*.jsonl.gz; expected one session of `mm record`"
            )
        return read_parts(parts, path.name)
    return reader_of(path)(path)

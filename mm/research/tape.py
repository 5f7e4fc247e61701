"""The tape: what recorded markets did, as columns of integers on one clock. No files are read here.

One row is one change; a snapshot is a row followed by one row a level. Columns rather than objects, because a back-test
goes over them by the hundred thousand and mostly only looks at two numbers.
"""

import enum
from array import array
from collections.abc import Iterable, Sequence

import attrs

from mm.domain.book import Level
from mm.domain.fees import FeeSchedule
from mm.domain.grid import TickGrid
from mm.domain.numbers import CONTRACT, Count, Micros, Price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import event_of

UNKNOWN_SIZE: Count = Count(500 * CONTRACT)
"""Contracts that are taken to rest at a price where the recording does not say: what must trade before we do."""


class Kind(enum.IntEnum):
    """What a row says. The columns that a kind does not name are 0."""

    SNAPSHOT = 0
    """The whole book of a market: as many level rows as `count` says follow."""
    LEVEL_BID = 1
    LEVEL_ASK = 2
    DELTA_BID = 3
    """A level changed by `count` (signed)."""
    DELTA_ASK = 4
    BOUGHT = 5
    """A taker bought `count` at `price`: it ate asks. `ts` is the venue's time."""
    SOLD = 6
    LAST_PRICE = 7
    """The venue's last trade was at `price`, `count` since the last such row; which side ate is not known."""
    STALE = 8
    """The recorder lost something: the book is unknown until the next snapshot."""
    CLOSE = 9
    """The market closed."""
    PAUSE = 10
    RESUME = 11


class BookSource(enum.Enum):
    """How a market's book came to be, which decides what may fill a quote."""

    DEPTH = "depth"
    """Every level, as recorded."""
    TOUCH = "touch"
    """Best prices only, polled; sizes where the recording has them."""
    PRINTS = "prints"
    """Made from prints: the last price and one tick beside it. Only prints fill."""


@attrs.define(kw_only=True)
class TapeMarket:
    """What is known of a recorded market beside its rows."""

    ticker: MarketTicker
    grid: TickGrid
    source: BookSource
    has_trades: bool
    """Prints with their taker's side were recorded: a shrinking level without one was cancelled."""
    close_time: Micros | None = None
    result: Price | None = None
    """What one YES paid, where the recording knows."""
    fees: FeeSchedule = attrs.field(factory=FeeSchedule)

    @property
    def event(self) -> str:
        """The event that it is a market of; empty when its ticker names none."""
        return event_of(self.ticker)


@attrs.define(eq=False, kw_only=True)
class Tape:
    """Rows in order of time, and the markets that their `market` column counts through."""

    name: str
    markets: list[TapeMarket] = attrs.field(factory=list)
    at: "array[int]" = attrs.field(factory=lambda: array("q"))
    """When the recorder got it (`Micros`)."""
    kind: "array[int]" = attrs.field(factory=lambda: array("b"))
    market: "array[int]" = attrs.field(factory=lambda: array("i"))
    price: "array[int]" = attrs.field(factory=lambda: array("i"))
    count: "array[int]" = attrs.field(factory=lambda: array("q"))
    ts: "array[int]" = attrs.field(factory=lambda: array("q"))
    """The venue's time of a print; 0 elsewhere."""
    notes: dict[str, int] = attrs.field(factory=dict)
    """What reading left out, by reason. Nothing is dropped uncounted."""

    def __len__(self) -> int:
        return len(self.at)

    def add(self, at: int, kind: int, market: int, price: int = 0, count: int = 0, ts: int = 0) -> None:
        """Append one row."""
        self.at.append(at)
        self.kind.append(kind)
        self.market.append(market)
        self.price.append(price)
        self.count.append(count)
        self.ts.append(ts)

    def snapshot(self, at: int, market: int, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Append a whole book."""
        self.add(at, Kind.SNAPSHOT, market, 0, len(bids) + len(asks))
        for price, count in bids:
            self.add(at, Kind.LEVEL_BID, market, price, count)
        for price, count in asks:
            self.add(at, Kind.LEVEL_ASK, market, price, count)

    def trade(self, at: int, market: int, price: Price, count: Count, taker: Side, ts: int) -> None:
        """Append a print."""
        self.add(at, Kind.BOUGHT if taker is Side.BID else Kind.SOLD, market, price, count, ts)

    def note(self, what: str, count: int = 1) -> None:
        """Count something that was left out."""
        self.notes[what] = self.notes.get(what, 0) + count

    @property
    def span(self) -> tuple[Micros, Micros]:
        """The first and the last moment. The tape must have rows."""
        return Micros(self.at[0]), Micros(self.at[-1])

    def prefix(self, rows: int) -> "Tape":
        """The first rows only, moved to the end of the snapshot that they may cut."""
        while 0 < rows < len(self) and self.kind[rows] in (Kind.LEVEL_BID, Kind.LEVEL_ASK):
            rows += 1
        return attrs.evolve(self, **{name: getattr(self, name)[:rows] for name in COLUMNS})

    def sort(self) -> None:
        """Put the rows in order of time; rows of one moment keep their order, so that a snapshot stays whole."""
        at = self.at
        if all(at[i] <= at[i + 1] for i in range(len(at) - 1)):
            return
        order = sorted(range(len(at)), key=at.__getitem__)
        for name in COLUMNS:
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, [column[i] for i in order]))


COLUMNS = ("at", "kind", "market", "price", "count", "ts")


def merge(tapes: Iterable[Tape]) -> Tape:
    """Several tapes on one clock. A market that is in more than one is one market: book from one, prints from another."""
    tapes = list(tapes)
    if len(tapes) == 1:
        return tapes[0]
    merged = Tape(name=", ".join(tape.name for tape in tapes))
    places: dict[MarketTicker, int] = {}
    has_book = {m.ticker for tape in tapes for m in tape.markets if m.source is not BookSource.PRINTS}
    last_of = {
        m.ticker: tape.span[1] for tape in sorted(tapes, key=lambda t: t.span[1]) for m in tape.markets
    }
    for tape in tapes:
        moved = [_place(merged, places, market) for market in tape.markets]
        made_up = [m.source is BookSource.PRINTS and m.ticker in has_book for m in tape.markets]
        places_of = array("i", [moved[market] for market in tape.market])
        rows: Sequence[int] | None = None
        if any(made_up):  # a recorded book is better than one made from prints
            rows = [r for r, m in enumerate(tape.market) if not (made_up[m] and tape.kind[r] in _BOOK_ROWS)]
        for name in COLUMNS:
            column = places_of if name == "market" else getattr(tape, name)
            kept = column if rows is None else array(column.typecode, [column[row] for row in rows])
            getattr(merged, name).extend(kept)
        end = tape.span[1]
        for market in tape.markets:
            if last_of[market.ticker] == end:
                # Nobody looked any more: what rests there must not wait in a frozen book for the other tapes to end.
                merged.add(end, Kind.CLOSE, places[market.ticker])
        for what, count in tape.notes.items():
            merged.note(what, count)
    merged.sort()
    return merged


_BOOK_ROWS = frozenset({Kind.SNAPSHOT, Kind.LEVEL_BID, Kind.LEVEL_ASK, Kind.DELTA_BID, Kind.DELTA_ASK})


def _place(merged: Tape, places: dict[MarketTicker, int], market: TapeMarket) -> int:
    place = places.get(market.ticker)
    if place is None:
        places[market.ticker] = len(merged.markets)
        merged.markets.append(attrs.evolve(market))
        return places[market.ticker]
    known = merged.markets[place]
    if known.source is BookSource.PRINTS and market.source is not BookSource.PRINTS:
        known.source, known.grid = market.source, market.grid
    known.has_trades = known.has_trades or market.has_trades
    known.close_time = known.close_time or market.close_time
    known.result = market.result if known.result is None else known.result
    return place


def mirrored(tape: Tape) -> Tape:
    """The same world seen from the other outcome: prices 1-p, sides swapped. For checks of honesty.

    The default fee model is symmetric in the price, so a mirrored run must end with the same money.
    """
    swap = {
        Kind.LEVEL_BID: Kind.LEVEL_ASK,
        Kind.LEVEL_ASK: Kind.LEVEL_BID,
        Kind.DELTA_BID: Kind.DELTA_ASK,
        Kind.DELTA_ASK: Kind.DELTA_BID,
        Kind.BOUGHT: Kind.SOLD,
        Kind.SOLD: Kind.BOUGHT,
    }
    kind = array("b", [swap.get(Kind(k), Kind(k)) for k in tape.kind])
    priced = [bool(price) for price in tape.price]
    price = array("i", [10_000 - p if has else 0 for p, has in zip(tape.price, priced, strict=True)])
    markets = [
        attrs.evolve(m, result=None if m.result is None else Price(10_000 - m.result)) for m in tape.markets
    ]
    return attrs.evolve(tape, kind=kind, price=price, markets=markets)

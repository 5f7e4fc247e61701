"""Made-up tapes: books that fit themselves, takers that eat them, prices that wander."""

import random

from mm.domain.book import OrderBook
from mm.domain.grid import uniform_grid
from mm.domain.numbers import CENT, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker, Side
from mm.research.tape import BookSource, Kind, Tape, TapeMarket

START = Micros(1_790_000_000 * SECOND)


def wandering_tape(
    seed: int, *, events: int = 2_000, markets: int = 1, has_trades: bool = True, name: str = "made-up"
) -> Tape:
    """About `events` rows in each market, a few a second."""
    chance = random.Random(seed)
    tape = Tape(name=name)
    books = []
    for number in range(markets):
        ticker = MarketTicker(f"KXNHLGAME-26OCT12AAABB{number // 2}-{'AB'[number % 2]}{number // 2}")
        tape.markets.append(
            TapeMarket(ticker=ticker, grid=uniform_grid(CENT), source=BookSource.DEPTH, has_trades=has_trades)
        )
        middle = chance.randrange(30, 70)
        bids = [(Price((middle - i) * CENT), Count(chance.randrange(500, 9_000))) for i in range(1, 6)]
        asks = [(Price((middle + i) * CENT), Count(chance.randrange(500, 9_000))) for i in range(1, 6)]
        book = OrderBook()
        book.snapshot(bids, asks)
        tape.snapshot(START, number, bids, asks)
        books.append(book)
    at = int(START)
    drift = 0.0
    while len(tape) < events * markets:
        at += round(chance.expovariate(4.0 * markets) * SECOND)
        drift = 0.97 * drift + chance.gauss(0, 0.12)
        _event(tape, chance.randrange(markets), books, at, chance, drift, has_trades)
    return tape


def _event(
    tape: Tape,
    place: int,
    books: list[OrderBook],
    at: int,
    chance: random.Random,
    drift: float,
    has_trades: bool,
) -> None:
    book = books[place]
    side = Side.BID if chance.random() < 0.5 + drift / 2 else Side.ASK
    if chance.random() < 0.3:
        _sweep(tape, place, book, at, side, chance, has_trades)
    elif chance.random() < 0.35:
        levels = book.depth(side)
        if len(levels) > 1:
            price, count = chance.choice(levels)
            _change(tape, place, book, at, side, price, -chance.randrange(1, count + 1))
    else:
        other = book.best_ask if side is Side.BID else book.best_bid
        best = book.best_bid if side is Side.BID else book.best_ask
        anchor = best if best is not None else (other or 5_000) - side.sign * 2 * CENT
        price = anchor + side.sign * CENT * chance.choice((1, 0, 0, -1, -1, -2))
        crosses = other is not None and (price - other) * side.sign >= 0
        if not crosses and 0 < price < 10_000:
            _change(tape, place, book, at, side, Price(price), chance.randrange(100, 6_000))


def _sweep(
    tape: Tape, place: int, book: OrderBook, at: int, taker: Side, chance: random.Random, has_trades: bool
) -> None:
    left = chance.randrange(100, 7_000)
    for price, count in book.depth(taker.opposite)[:2]:
        size = min(left, count)
        if size <= 0 or len(book.depth(taker.opposite)) == 1:
            return
        left -= size
        if has_trades:
            tape.trade(at, place, price, Count(size), taker, at)
        _change(tape, place, book, at, taker.opposite, price, -size)


def _change(tape: Tape, place: int, book: OrderBook, at: int, side: Side, price: Price, change: int) -> None:
    book.apply_delta(side, price, Count(change))
    tape.add(at, Kind.DELTA_BID if side is Side.BID else Kind.DELTA_ASK, place, price, change)

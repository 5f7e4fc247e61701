"""What the journal of decisions costs a market: the same reads with a plain market maker and with one that notes.

    python bench/decision_journal.py [READS]

One market: each read folds two book deltas and decides, every tenth brings a print; plans are obeyed at once. Three runs of
the same reads, in turns, best of five: plain; noting (what stands in the way of a decision); noting, encoding and packing
(what the loop and a thread do once a second). CPU time.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from mm.domain.book import OrderBook
from mm.domain.commands import Cancel, Place
from mm.domain.fill import Trade, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side
from mm.engine.decisions.journal import DecisionJournal, JournalledBook, JournalledMaker
from mm.engine.decisions.lines import Encoder
from mm.engine.decisions.player import Player
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.tasks.decision_log import SegmentWriter

ROUNDS = 5
FLUSH_EVERY = 200
"""Reads between two flushes."""
T0 = Micros(1_790_000_000 * SECOND)
SIDES = (Side.BID, Side.ASK)


@attrs.define(eq=False)
class Reads:
    """The reads of one market, the same for everybody who is given the same seed."""

    make: Callable[..., MarketMaker]
    book: OrderBook
    count: int
    orders: list[Order] = attrs.field(factory=list)
    maker: MarketMaker = attrs.field(init=False)
    commands: int = 0

    def __attrs_post_init__(self) -> None:
        self.maker = self.make(
            market=Market(
                ticker=MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR"),
                event_ticker="KXNHLGAME-26SEP21TORBOS",
                status=MarketStatus.ACTIVE,
                grid=uniform_grid(CENT),
            ),
            parameters=StrategyParameters(),
            book=self.book,
            orders=lambda: list(self.orders),
            market_room=lambda side, *_: Count(10**6),
        )

    def run(self, each: Callable[[int], None]) -> float:
        """CPU seconds for all reads; `each` is called after each read, and counts."""
        chance = random.Random(1)
        levels = [(Price(3_000 + 100 * n), Count(50_000)) for n in range(20)]
        self.book.snapshot(levels, [(Price(5_200 + 100 * n), Count(50_000)) for n in range(20)])
        steps = [
            [
                (chance.choice(SIDES), chance.randrange(20), chance.choice((-100, 100, -49_000, 49_000)))
                for _ in range(2)
            ]
            for _ in range(self.count)
        ]
        began = time.process_time()
        for n, changes in enumerate(steps):
            for side, place, change in changes:
                price = Price(4_900 - 100 * place if side is Side.BID else 5_200 + 100 * place)
                if self.book.size_at(side, price) + change >= 0:
                    self.book.apply_delta(side, price, Count(change))
            now = Micros(T0 + n * 50_000)
            if n % 10 == 0:
                self.maker.on_trade(print_at(n, now))
            self.obey(self.maker, now)
            each(n)
        return time.process_time() - began

    def obey(self, maker: MarketMaker, now: Micros) -> None:
        """Decide, and do what was decided."""
        decision = maker.decide(now)
        for side in SIDES:
            plan = decision.plan(side)
            if not plan.commands:
                continue
            maker.plan_sent(side, plan, now)
            for command in plan.commands:
                self.commands += 1
                if isinstance(command, Place):
                    self.orders.append(resting(command, self.commands, now))
                elif isinstance(command, Cancel):
                    self.orders = [o for o in self.orders if o.client_order_id != command.client_order_id]
                else:
                    (order,) = [o for o in self.orders if o.client_order_id == command.client_order_id]
                    order.count = command.leaves
                    order.price = getattr(command, "price", order.price)


def print_at(n: int, now: Micros) -> Trade:
    """A public print around the touch."""
    return Trade(
        trade_id=TradeId(f"t{n}"),
        ticker=MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR"),
        price=Price(4_900 + 100 * (n // 10 % 4)),
        count=Count(300),
        taker_side=Side.BID,
        ts=now,
    )


def resting(command: Place, number: int, now: Micros) -> Order:
    """The order that a place becomes."""
    return Order(
        client_order_id=ClientOrderId(f"mm-b-{number}"),
        ticker=command.ticker,
        side=command.side,
        price=command.price,
        count=command.count,
        state=OrderState.RESTING,
        order_id=OrderId(f"o{number}"),
        created_at=now,
    )


@attrs.define(eq=False)
class Flusher:
    """What is done with the entries once a second, in one thread here."""

    sink: DecisionJournal
    writer: SegmentWriter
    encoder: Encoder = attrs.field(factory=Encoder)
    entries: int = 0
    raw: int = 0

    def __call__(self, n: int) -> None:
        if n % FLUSH_EVERY:
            return
        lines = [orjson.dumps(self.encoder(entry)) + b"\n" for entry in self.sink.take()]
        self.entries += len(lines)
        self.raw += sum(map(len, lines))
        self.writer.write(lines, T0)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    count = int(arguments[0]) if arguments else 20_000
    best = {"plain": float("inf"), "noting": float("inf"), "noting, encoding, packing": float("inf")}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            plain = Reads(MarketMaker, OrderBook(), count)
            best["plain"] = min(best["plain"], plain.run(lambda n: None))
            sink = DecisionJournal()
            noting = Reads(lambda **k: JournalledMaker(sink=sink, **k), JournalledBook(), count)  # noqa: B023
            best["noting"] = min(
                best["noting"],
                noting.run(lambda n: None if n % FLUSH_EVERY else sink.entries.clear()),  # noqa: B023
            )
            full_sink = DecisionJournal()
            writer = SegmentWriter(folder=Path(folder) / str(turn), header={})
            flusher = Flusher(full_sink, writer)
            full = Reads(lambda **k: JournalledMaker(sink=full_sink, **k), JournalledBook(), count)  # noqa: B023
            took = full.run(flusher)
            best["noting, encoding, packing"] = min(best["noting, encoding, packing"], took)
            flusher(0)
            writer.close(T0)
        size = writer.segments[0].size
        replayed, took = replay_time(Path(folder) / str(ROUNDS - 1) / writer.segments[0].name)
    base = best["plain"]
    print(f"{count:,} reads, {plain.commands:,} commands, {flusher.entries:,} entries")
    for name, seconds in best.items():
        per_read = seconds / count * 1e6
        print(
            f"{name:28} {per_read:8.2f} us a read   +{per_read - base / count * 1e6:6.2f} us   x {seconds / base:.2f}"
        )
    print(f"{'on disk':28} {size / count:8.1f} bytes a read, {flusher.raw / size:.1f} to 1")
    print(f"{'replayed':28} {took / replayed * 1e6:8.2f} us a decision, {replayed:,} decisions, all the same")


def replay_time(path: Path) -> tuple[int, float]:
    """Decisions and CPU seconds of playing a segment. Raises `AssertionError` when something differs."""
    import zlib

    lines: list[Any] = zlib.decompress(path.read_bytes(), 31).splitlines()[1:]
    player = Player()
    began = time.process_time()
    for line in lines:
        player.play(orjson.loads(line))
    assert not player.differences, player.differences
    return player.decisions, time.process_time() - began


if __name__ == "__main__":
    main(sys.argv[1:])

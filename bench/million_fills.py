"""Memory over a million fills: the bot's own books (reconciler, positions, ledger on disk), fed by listing and socket.

Markets come and go as slates do: 32 are open at a time, each gets its share of fills, is settled, and the next one
opens. Half of the fills come over the socket and the listing, the rest by the listing alone. Printed every 100,000
fills: resident memory, the file, and how long it took; at the end the growth since the first line.

    python bench/million_fills.py [--fills 1000000]
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio
from trio.testing import MockClock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from fake_exchange import FakeExchange, virtual_clock
from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.market import Series
from mm.domain.numbers import SECOND, Count, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.exchange.port import Page, Settlement
from mm.ledger import open_ledger
from task_rig import TaskRig

OPEN_MARKETS = 32
FILLS_A_MARKET = 2_000
FILLS_A_PASS = 250
FLAT_BYTES = 24_000_000
"""Growth from the first 100,000 fills to the last that still counts as flat."""


def rss() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096


@attrs.define(eq=False)
class Listing(FakeExchange):
    """A listing that keeps only what a pass with its overlap can ask for."""

    recent: list[Fill] = attrs.field(factory=list)

    async def fills_page(self, *, since: Any = None, order_id: Any = None, cursor: Any = None) -> Page[Fill]:
        """Newest first, one page."""
        return Page(items=[f for f in reversed(self.recent) if since is None or f.ts >= since], cursor=None)

    async def settlements_page(self, *, since: Any = None, cursor: Any = None) -> Page[Settlement]:
        """The newest ones."""
        return Page(
            items=[s for s in self.settled[::-1] if since is None or s.settled_at >= since], cursor=None
        )


def make_fills(first: int, count: int) -> Sequence[Fill]:
    """The next fills, spread over the open markets."""
    made = []
    for n in range(first, first + count):
        slate = n // (OPEN_MARKETS * FILLS_A_MARKET)
        market = MarketTicker(f"KXNHLGAME-26S{slate:04d}G{n % OPEN_MARKETS:02d}-TOR")
        price = Price(3_000 + n * 37 % 4_000 // 100 * 100)
        made.append(
            Fill(
                order_id=OrderId(f"order-{n // 3:032d}"),
                trade_id=TradeId(f"trade-{n:032d}"),
                ticker=market,
                side=Side.BID if n // OPEN_MARKETS % 2 else Side.ASK,
                price=price,
                count=Count(100),
                fee=Money(0),
                liquidity=Liquidity.MAKER,
                ts=virtual_clock(),
            )
        )
    return made


async def feed(folder: Path, total: int) -> list[tuple[int, int]]:
    """Feed all of them; (fills, resident bytes) at every tenth."""

    async def inline(work: Any, /) -> Any:
        return work()

    exchange = Listing()
    exchange.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME", fee_type=FeeType.QUADRATIC)
    rig = TaskRig(exchange=exchange)
    points: list[tuple[int, int]] = []
    path = folder / "ledger.sqlite3"
    began = time.monotonic()
    async with open_ledger(
        path, account=exchange.account, runner=inline, clock=virtual_clock, session="bench"
    ) as ledger:
        reconciler = rig.reconciler(ledger)
        await reconciler.load()
        for first in range(0, total, FILLS_A_PASS):
            await trio.sleep(30)
            made = make_fills(first, FILLS_A_PASS)
            exchange.recent = [f for f in exchange.recent if f.ts > virtual_clock() - 90 * SECOND] + list(
                made
            )
            for fill in made[::2]:
                rig.handler.on_fill(fill)
            while rig.fills.statistics().current_buffer_used:
                await reconciler.book_now(rig.fills, [rig.fills.receive_nowait()])
            await reconciler.pass_fills()
            done = first + FILLS_A_PASS
            if done % (OPEN_MARKETS * FILLS_A_MARKET) == 0:
                exchange.settled = [
                    Settlement(
                        ticker=ticker,
                        value=Price(10_000),
                        settled_at=virtual_clock(),
                        yes_count=Count(0),
                        no_count=Count(0),
                        fee=Money(0),
                    )
                    for ticker in sorted(rig.positions.histories)
                ]
                await reconciler.read_settlements()
                await trio.sleep(86_400)
                await reconciler._keep_small()
            if done % (total // 10) == 0:
                points.append((done, rss()))
                print(
                    f"{done:>9} fills  RSS {rss() / 1e6:6.1f} MB  ledger {path.stat().st_size / 1e6:7.1f} MB"
                    f"  {time.monotonic() - began:6.0f} s",
                    flush=True,
                )
        assert rig.positions.fills == total
    return points


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fills", type=int, default=1_000_000)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="mm-bench-") as folder:
        points = trio.run(feed, Path(folder), arguments.fills, clock=MockClock(autojump_threshold=0))
    growth = points[-1][1] - points[0][1]
    print(f"growth of RSS from {points[0][0]} to {points[-1][0]} fills: {growth / 1e6:.1f} MB")
    return 0 if growth < FLAT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())

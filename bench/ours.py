"""Our side of the bench: the real adapter, feed, floor, quoters, desk, scheduler and ledger, wired as the session wires them.

Left out are what stands beside trading (guardian, reconciler, discovery, views) and waits of the strategy that would
hide the machine (cooldown 0) or stop it (limits, budget: without bound). Started by `bench/run.py`.
"""

import json
import os
import random
import signal
import ssl
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

import structlog
import trio
from names import tickers

from mm.domain.book import OrderBook
from mm.domain.fill import Fill
from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money
from mm.domain.order import MarketTicker
from mm.engine.parameters import StrategyParameters
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import load_signer
from mm.exchange.port import Bucket, RateLimits
from mm.ledger import open_ledger
from mm.session.surroundings import live_surroundings
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.desk import OrderDesk
from mm.tasks.feed import FeedHandler
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.ids import OrderIds
from mm.tasks.positions import Positions
from mm.tasks.quoter import Quoter, QuoterTools
from mm.tasks.resolve import Resolver

ENDLESS = Count(10**12)
PARAMETERS = StrategyParameters(
    quote_cooldown=Micros(0),
    max_global_inventory=ENDLESS,
    max_inventory_per_market=ENDLESS,
    max_inventory_value=Money(10**15),
    max_markets_to_trade=10_000,
)


class Sampler:
    """Looks at what the loop is doing, by the CPU time that it uses, until told to write it down."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stacks: Counter[tuple[str, ...]] = Counter()
        signal.signal(signal.SIGPROF, self.look)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)

    def look(self, number: int, frame: FrameType | None) -> None:
        """One sample."""
        stack: list[str] = []
        while frame is not None:
            code = frame.f_code
            stack.append(f"{Path(code.co_filename).stem}.{code.co_name}")
            frame = frame.f_back
        self.stacks[tuple(reversed(stack))] += 1
        if os.path.exists(self.path + ".write"):
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            rows = [[list(stack), count] for stack, count in self.stacks.items()]
            Path(self.path).write_text(json.dumps(rows))


async def nothing() -> None:
    """No fill has to be looked up here."""


async def run(options: dict, folder: Path) -> None:  # type: ignore[type-arg]
    """Watch, quote, follow the feed until the process is told to end."""
    names = tickers(options["markets"])
    surroundings = live_surroundings()
    clock = surroundings.clock
    bucket = Bucket(refill_per_s=1e9, capacity=1e9)
    limits = RateLimits(tier="bench", read=bucket, write=bucket)
    context = ssl.create_default_context(cafile=options["ca"]) if options["ca"] else None
    signer = load_signer("bench", Path(options["key"]).read_text())  # noqa: ASYNC240 - at the start
    urls = options["rest"] + "/trade-api/v2", options["ws"] + "/trade-api/ws/v2"
    async with (
        open_kalshi(
            kalshi_options(*urls),
            signer,
            clock=clock,
            randomness=random.Random(1),
            connect=surroundings.connect,
            ssl_context=context,
            run_blocking=surroundings.signing_runner,
            sign_ahead=options.get("sign_ahead", True),
        ) as exchange,
        open_ledger(
            folder / "ledger.sqlite3", account="bench", runner=surroundings.runner, clock=clock, session="b"
        ) as ledger,
    ):
        floor = Floor(parameters=PARAMETERS, clock=clock, positions=Positions())
        writes, reads = WriteBudget(limits, clock, 40.0), ReadBudget(limits, clock)
        desk = OrderDesk(exchange, ledger, writes, clock, floor.order_changed)
        floor.desk = desk
        fence = Fence(exchange, ledger, writes, 10**6)
        tools = QuoterTools(
            desk=desk,
            resolver=Resolver(exchange, desk, writes, reads, clock, nothing),
            fence=fence,
            budget=writes,
            ids=OrderIds("mm", "bench"),
            clock=clock,
            quote_ttl=Micros(options["ttl_s"] * SECOND),
        )
        send, receive = trio.open_memory_channel[Fill](1)
        async with send, receive, exchange.open_feed() as feed, trio.open_nursery() as nursery:
            await nursery.start(ledger.run_writer)
            nursery.start_soon(writes.run)
            nursery.start_soon(exchange.keep_ready)
            for number, ticker in enumerate(map(MarketTicker, names)):
                market = Market(
                    ticker=ticker,
                    event_ticker=ticker.rpartition("-")[0],
                    status=MarketStatus.ACTIVE,
                    grid=uniform_grid(CENT),
                )
                if number < options["quoted"]:
                    quoter = Quoter(floor.add_market(market), tools)
                    floor.quoters[ticker] = quoter
                    await nursery.start(quoter.run)
                else:
                    floor.books[ticker] = OrderBook()
            await feed.watch([MarketTicker(t) for t in names])
            handler = FeedHandler(floor=floor, fills=send, on_feed_down=lambda why: sys.exit(0))
            nursery.start_soon(feed.run, handler)
            while not all(book.is_synced for book in floor.books.values()):
                await trio.sleep(0.02)
            quiet_memory()


def quiet_memory() -> None:
    """As the session does once it has warmed up."""
    from mm.session.warm import freeze_memory

    freeze_memory()


if __name__ == "__main__":
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(40),
    )
    arguments = json.loads(sys.argv[1])
    if arguments.get("profile"):
        Sampler(arguments["profile"])
    with tempfile.TemporaryDirectory() as name:
        trio.run(run, arguments, Path(name))

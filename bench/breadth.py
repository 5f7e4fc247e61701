"""What breadth costs: CPU a message, lag and memory of the bot's feed, from 16 to 10,000 watched markets.

    python bench/breadth.py [--markets 16,64,1000,10000] [--rate 10000] [--seconds 10] [--quoted 16]

The real adapter reads from a loopback socket what another process sends; every delta is folded into its book, and what
it changes in a quoted market is decided on. Each row is a process of its own, so that its memory is its own. Printed
and returned by `measure` are, a row: markets, messages a second, CPU microseconds a message, percent of a core, lag
(from the moment at which the sender had the delta due to the end of the decision) p50 and p99, RSS. The rows run at the same
rate, so that only the number of markets differs. Linux only (reads /proc).
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")
HERE = Path(__file__).resolve().parent
WARM_UP_S = 2.0
ROWS = ((16, 10_000.0), (64, 10_000.0), (1_000, 10_000.0), (10_000, 10_000.0), (1_000, 1_000.0))
"""Markets and deltas a second: the same rate over ever more markets, and 1,000 markets at 1 delta a second each."""
MAX_LAG_P99_MS = 50.0
MAX_GROWTH = 1.5
"""CPU a message over the most markets against the fewest, at one rate: flat, but for noise and the cache."""


def rss_mb() -> float:
    """This process's resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def measure(markets: int, rate: float, seconds: float = 10.0, *, quoted: int = 16) -> dict[str, float]:
    """One row, in processes of its own: see the module."""
    command = [sys.executable, str(HERE / "breadth_sender.py"), "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        arguments = [
            "--markets",
            str(markets),
            "--seconds",
            str(seconds),
            "--quoted",
            str(min(quoted, markets)),
        ]
        port = sender.stdout.readline().strip()
        bot = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--child", port, *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert bot.stdout is not None
            assert bot.stdout.readline().strip() == "synced", "the books did not come"
            sender.stdin.write("go\n")
            sender.stdin.flush()
            found: dict[str, float] = json.loads(bot.stdout.read())
        finally:
            bot.kill()
            bot.wait()
            sender.kill()
    return found


# --- the bot's side, in the child ------------------------------------------------------------------------------------


def watch(port: int, markets: int, seconds: float, quoted: int) -> None:
    """Connect, watch, measure, print one JSON line."""
    import structlog
    import trio
    from cryptography.hazmat.primitives.asymmetric import ed25519

    from mm.domain.grid import uniform_grid
    from mm.domain.market import Market, MarketStatus
    from mm.domain.numbers import CENT, SECOND, Count, Micros
    from mm.engine.parameters import StrategyParameters
    from mm.exchange.kalshi.client import open_kalshi
    from mm.exchange.kalshi.options import kalshi_options
    from mm.exchange.kalshi.signing import Ed25519Signer
    from mm.exchange.port import Bucket, RateLimits
    from mm.tasks.budget import ReadBudget, WriteBudget
    from mm.tasks.desk import OrderDesk
    from mm.tasks.feed import FeedHandler
    from mm.tasks.fence import Fence
    from mm.tasks.floor import Floor
    from mm.tasks.ids import OrderIds
    from mm.tasks.positions import Positions
    from mm.tasks.quoter import Quoter, QuoterTools
    from mm.tasks.resolve import Resolver

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    class Nothing:
        """A recorder that keeps nothing: no order is sent here."""

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    lags: list[int] = []
    due: list[int] = []

    class Timed(FeedHandler):
        """Notes the lag of one delta in sixteen."""

        def on_delta(self, ticker: Any, side: Any, price: Any, change: Any, ts: Any) -> None:
            FeedHandler.on_delta(self, ticker, side, price, change, ts)
            if not self.deltas & 15:
                due.append(ts)

        def on_read_end(self, now: Any) -> None:
            FeedHandler.on_read_end(self, now)
            if due:
                at = clock()
                lags.extend(at - ts for ts in due)
                due.clear()

    def clock() -> Micros:
        return Micros(time.time_ns() // 1_000)

    async def look_up() -> None: ...

    async def run() -> None:
        bucket = Bucket(refill_per_s=100.0, capacity=100.0)
        limits = RateLimits(tier="basic", read=bucket, write=bucket)
        options = kalshi_options(
            f"http://127.0.0.1:{port}/trade-api/v2", f"ws://127.0.0.1:{port}/trade-api/ws/v2"
        )
        signer = Ed25519Signer("bench", ed25519.Ed25519PrivateKey.generate())
        async with open_kalshi(
            options, signer, clock=clock, randomness=random.Random(1), connect=trio.open_tcp_stream
        ) as exchange:
            floor = Floor(parameters=StrategyParameters(), clock=clock, positions=Positions())
            writes, reads = WriteBudget(limits, clock, 40.0), ReadBudget(limits, clock)
            records: Any = Nothing()
            desk = OrderDesk(exchange, records, writes, clock, floor.order_changed)
            floor.desk = desk
            tools = QuoterTools(
                desk=desk,
                resolver=Resolver(exchange, desk, writes, reads, clock, look_up),
                fence=Fence(exchange, records, writes, 800),
                budget=writes,
                ids=OrderIds("mm", "bench"),
                clock=clock,
                quote_ttl=Micros(60 * SECOND),
            )
            names = [f"KXBENCH{n % 40:02d}-26DEC01G{n:05d}-A" for n in range(markets)]
            for n, ticker in enumerate(names):
                market = Market(
                    ticker=ticker,
                    event_ticker=ticker[:-2],
                    status=MarketStatus.ACTIVE,
                    grid=uniform_grid(CENT),
                    volume=Count(100),
                )
                if n < quoted:
                    floor.quoters[market.ticker] = Quoter(floor.add_market(market), tools)
                else:
                    floor.books[market.ticker] = floor.make_book()
            send, receive = trio.open_memory_channel[Any](1)
            async with receive, send, exchange.open_feed() as feed, trio.open_nursery() as nursery:
                handler = Timed(floor=floor, fills=send)
                await feed.watch(names)
                nursery.start_soon(feed.run, handler)
                with trio.fail_after(60):
                    while not all(book.is_synced for book in floor.books.values()):
                        await trio.sleep(0.05)
                gc.collect()
                gc.freeze()
                print("synced", flush=True)
                while not handler.deltas:
                    await trio.sleep(0.01)
                await trio.sleep(WARM_UP_S)
                lags.clear()
                decisions, before, cpu, begun = (
                    floor.decisions,
                    handler.deltas,
                    time.process_time(),
                    time.monotonic(),
                )
                await trio.sleep(seconds)
                cpu, wall = time.process_time() - cpu, time.monotonic() - begun
                messages = handler.deltas - before
                ordered = sorted(lags) or [0]
                statistics = feed.statistics()
                row = {
                    "markets": markets,
                    "messages_per_s": round(messages / wall, 1),
                    "cpu_us_per_msg": round(1e6 * cpu / max(1, messages), 2),
                    "cpu_percent": round(100 * cpu / wall, 2),
                    "lag_p50_ms": round(ordered[len(ordered) // 2] / 1000, 2),
                    "lag_p99_ms": round(ordered[int(len(ordered) * 0.99)] / 1000, 2),
                    "rss_mb": round(rss_mb(), 1),
                    "decisions_per_s": round((floor.decisions - decisions) / wall, 1),
                    "gaps": statistics.gaps,
                    "connects": statistics.connects,
                }
                nursery.cancel_scope.cancel(reason="measured")
        print(json.dumps(row), flush=True)

    trio.run(run)


def main() -> int:
    """Measure and print; exit code 1 when breadth costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", default="")
    parser.add_argument("--rate", type=float, default=10_000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--quoted", type=int, default=16)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        watch(options.child, int(options.markets), options.seconds, options.quoted)
        return 0
    rows = ROWS
    if options.markets:
        rows = tuple((int(count), options.rate) for count in options.markets.split(","))
    found = []
    print(
        f"{'markets':>8} {'msgs/s':>9} {'us/msg':>7} {'% core':>7} {'lag p50':>8} {'p99 ms':>8} {'RSS MB':>7}"
    )
    for markets, rate in rows:
        row = measure(markets, rate, options.seconds, quoted=options.quoted)
        found.append(row)
        print(
            f"{row['markets']:>8,} {row['messages_per_s']:>9,.0f} {row['cpu_us_per_msg']:>7.1f} "
            f"{row['cpu_percent']:>7.1f} {row['lag_p50_ms']:>8.2f} {row['lag_p99_ms']:>8.2f} {row['rss_mb']:>7.1f}",
            flush=True,
        )
    problems = judge(found, rows)
    for problem in problems:
        print(f"TOO MUCH: {problem}")
    return 1 if problems else 0


def judge(found: Sequence[dict[str, float]], rows: Sequence[tuple[int, float]]) -> list[str]:
    """What is outside of what breadth may cost; empty when nothing is."""
    problems = []
    by_rate: dict[float, list[float]] = {}
    for row, (markets, rate) in zip(found, rows, strict=True):
        by_rate.setdefault(rate, []).append(row["cpu_us_per_msg"])
        what = f"{markets:,} markets at {rate:,.0f} messages a second"
        if row["messages_per_s"] < 0.98 * rate:
            problems.append(f"{what}: only {row['messages_per_s']:,.0f} a second kept up with")
        if row["lag_p99_ms"] >= MAX_LAG_P99_MS:
            problems.append(f"{what}: lag p99 {row['lag_p99_ms']} ms")
        most = (10.0, 200.0) if markets <= 1_000 and rate <= 1_000 else (100.0, 300.0)
        if row["cpu_percent"] >= most[0] or row["rss_mb"] >= most[1]:
            problems.append(f"{what}: {row['cpu_percent']} % of a core, {row['rss_mb']} MB")
    for rate, costs in by_rate.items():
        if costs[-1] > MAX_GROWTH * costs[0]:
            problems.append(
                f"at {rate:,.0f} a second the CPU a message grows from {costs[0]} to {costs[-1]} us"
            )
    return problems


if __name__ == "__main__":
    sys.exit(main())

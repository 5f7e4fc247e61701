"""Everything that is claimed of speed, side by side in one run: `make bench` (ten minutes at most), `make bench-quick` (one).

    python bench/run.py [--quick] [--only tick,ingest,rates,idle,breadth,exit,backtest]

Prints the ratios and writes bench/latest.json. `bench/README.md` says how to read them.
"""

import argparse
import datetime as dt
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from loopback import BASE_ASK, BASE_BID, NEXT_ASK, SIZE, Loopback
from names import tickers

HERE = Path(__file__).resolve().parent
PAGE = os.sysconf("SC_PAGE_SIZE")
BOTS = ("usual", "ours", "limit")
SCRIPTS = {"usual": "usual.py", "ours": "ours.py", "limit": "bare.py"}
MARKETS = 256
GROUP = 32
"""Markets that are awake at once; 64 quotes."""
AHEAD = 20
DECK = 64
MOVING = 0.065
"""Share of deltas that move the best price: 6.4 % of 76,647 in the one full-depth recording that there is."""


def cpu_s(pid: int) -> float:
    """CPU seconds of a process over all its threads, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return (
        ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))] if ordered else float("nan")
    )


class Rig:
    """Keys, certificates, and bots on loopback."""

    def __init__(self, folder: Path) -> None:
        import trustme
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self.key = folder / "key.pem"
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self.context)

    def start(
        self,
        bot: str,
        *,
        secure: bool = False,
        markets: int,
        quoted: int,
        ttl_s: int = 3_600,
        profile: str = "",
    ) -> "Running":
        """A bot that has its books and its quotes."""
        venue = Loopback(self.context if secure else None)
        s = "s" if secure else ""
        options = {
            "rest": f"http{s}://localhost:{venue.ports['rest']}",
            "ws": f"ws{s}://localhost:{venue.ports['ws']}",
            "ca": str(self.ca) if secure else "",
            "key": str(self.key),
            "markets": markets,
            "quoted": quoted,
            "ttl_s": ttl_s,
            "profile": profile,
        }
        process = subprocess.Popen(
            [sys.executable, str(HERE / SCRIPTS[bot]), json.dumps(options)], stderr=subprocess.PIPE
        )
        running = Running(bot, process, venue, tickers(markets))

        def is_quoting() -> bool:
            if process.poll() is not None:
                raise SystemExit(f"{bot} ended: {process.stderr.read().decode()[-3_000:]}")  # type: ignore[union-attr]
            return venue.book is not None and (bot == "limit" or venue.orders >= 2 * quoted)

        if not venue.wait(is_quoting, 60.0):
            raise SystemExit(f"{bot} does not quote: {venue.orders} of {2 * quoted} orders")
        venue.settle(0.5)
        return running


class Running:
    """A bot at work, and what is done to it."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", venue: Loopback, names: list[str]
    ) -> None:
        self.name = name
        self.process = process
        self.venue = venue
        self.names = names
        self.is_up: dict[str, bool] = {}

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()  # type: ignore[union-attr]
        self.venue.close()

    def jump(self, ticker: str) -> bytes:
        """One delta that moves the middle by a cent, up and down in turn: both quotes must move."""
        is_up = self.is_up[ticker] = not self.is_up.get(ticker, False)
        return self.venue.delta(ticker, BASE_ASK, f"-{SIZE}" if is_up else SIZE, "no")

    def stir(self, ticker: str) -> bytes:
        """Life before the jump, as an event has it: the touch moves by half of what a quote would follow, and back."""
        over = BASE_BID + 100
        return self.venue.delta(ticker, over, "5.00", "yes") + self.venue.delta(ticker, over, "-5.00", "yes")

    def deep(self, ticker: str, number: int) -> bytes:
        """A change that nobody follows."""
        price, side = (BASE_BID, "yes") if number % 2 else (NEXT_ASK, "no")
        return self.venue.delta(ticker, price, "1.00", side)

    def wake(self, group: list[str]) -> None:
        """Make these markets awake, and give the bot the second that events give."""
        for ticker in group:
            self.venue.send(self.stir(ticker))
            self.venue.pump(0.0)
        self.venue.settle(0.8)

    def tick(self, ticker: str, ahead: list[str]) -> float:
        """Microseconds from the send of a jump to the last byte of the first request; `ahead` stands before it."""
        venue = self.venue
        data = b"".join(self.deep(other, n) for n, other in enumerate(ahead)) + self.jump(ticker)
        seen = len(venue.requests)
        began = venue.send(data)
        if not venue.wait(lambda: len(venue.requests) > seen, 5.0):
            raise SystemExit(f"{self.name}: no order for {ticker}")
        taken = (venue.requests[seen].at - began) / 1000
        venue.settle(0.004)
        return taken

    def burst(self, group: list[str]) -> float:
        """Milliseconds from the send of 32 jumps to the last byte of the last of 64 first moves."""
        venue = self.venue
        data = b"".join(self.jump(ticker) for ticker in group)
        seen = len(venue.requests)
        began = venue.send(data)
        moves = 2 * len(group)
        if not venue.wait(lambda: sum(r.is_move for r in venue.requests[seen:]) >= moves, 10.0):
            raise SystemExit(f"{self.name}: {sum(r.is_move for r in venue.requests[seen:])} of {moves} moves")
        last = [request for request in venue.requests[seen:] if request.is_move][moves - 1]
        venue.settle(0.05)
        return (last.at - began) / 1e6

    def ingest(self, messages: int, seed: int) -> float:
        """Messages a CPU second when they come as fast as they are taken; one in fifteen moves the touch."""
        venue, chance = self.venue, random.Random(seed)
        names = self.names[:DECK]
        held: dict[tuple[str, int, str], bool] = {}
        chunks: list[bytes] = []
        chunk: list[bytes] = []
        for _ in range(messages):
            ticker = chance.choice(names)
            if chance.random() < MOVING:
                price, side = BASE_BID + 100, "yes"
            else:
                price, side = chance.choice(
                    [
                        (BASE_BID - 100 * chance.randrange(1, 39), "yes"),
                        (NEXT_ASK + 100 * chance.randrange(1, 38), "no"),
                    ]
                )
            is_on = held[ticker, price, side] = not held.get((ticker, price, side), False)
            chunk.append(venue.delta(ticker, price, "2.00" if is_on else "-2.00", side))
            if len(chunk) == 250:
                chunks.append(b"".join(chunk))
                chunk = []
        for (ticker, price, side), is_on in held.items():
            if is_on:
                chunk.append(venue.delta(ticker, price, "-2.00", side))
        sent = messages + sum(held.values())
        target = self.names[DECK]
        chunk.append(self.jump(target))
        chunks.append(b"".join(chunk))
        seen = len(venue.requests)
        before = cpu_s(self.process.pid)
        for chunk_bytes in chunks:
            venue.send(chunk_bytes)
            venue.pump(0.0)
        if not venue.wait(lambda: any(r.is_move for r in venue.requests[seen:]), 60.0):
            raise SystemExit(f"{self.name}: the end of the messages was not seen")
        taken = cpu_s(self.process.pid) - before
        venue.settle(0.3)
        return sent / taken

    def paced(self, rate: float, seconds: float, markets: int, seed: int) -> tuple[float, int]:
        """CPU seconds and messages over so long: each message a send of its own, one in fifteen moves the touch."""
        venue, chance = self.venue, random.Random(seed)
        held: dict[tuple[str, int, str], bool] = {}
        sent = 0
        before, began = cpu_s(self.process.pid), time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            due = int((now - began) * rate * markets)
            while sent < due:
                ticker = chance.choice(self.names[:markets])
                if chance.random() < MOVING:
                    price, side = BASE_BID + 100, "yes"
                else:
                    price, side = NEXT_ASK + 100 * chance.randrange(1, 38), "no"
                is_on = held[ticker, price, side] = not held.get((ticker, price, side), False)
                venue.send(venue.delta(ticker, price, "2.00" if is_on else "-2.00", side))
                sent += 1
            venue.pump(max(0.0005, 1 / (rate * markets) / 2))
        return cpu_s(self.process.pid) - before, sent


# --- the measures -----------------------------------------------------------------------------------------------------


class Results:
    """What was found, as it will stand in latest.json."""

    def __init__(self) -> None:
        self.ticks: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        self.bursts: dict[str, list[list[float]]] = defaultdict(list)
        self.ingest: dict[str, list[float]] = defaultdict(list)
        self.paced: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.bursty: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.idle: list[dict[str, float]] = []
        self.breadth: list[dict[str, float]] = []
        self.exit: dict[str, float] = {}
        self.backtest: dict[str, float] = {}

    def as_json(self) -> dict[str, Any]:
        """Exactly the keys that readers of the file rely on."""
        found: dict[str, Any] = {"tick_to_order": {}}
        for kind in ("quiet", "busy", "tls"):
            found["tick_to_order"][kind] = {
                f"{bot}_us": {
                    name: round(self.tick(kind, bot, share), 1)
                    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
                }
                for bot in BOTS
                if self.ticks[kind, bot]
            }
        found["goal_burst_64"] = {
            f"{bot}_ms": round(statistics.median([v for r in self.bursts[bot] for v in r]), 3)
            for bot in ("usual", "ours")
            if self.bursts[bot]
        }
        found["ingest"] = {
            f"{bot}_msgs_per_cpu_s": round(statistics.median(self.ingest[bot]))
            for bot in ("usual", "ours")
            if self.ingest[bot]
        }
        found["breadth"] = self.breadth
        found["idle"] = self.idle
        found["exit"] = self.exit
        found["backtest"] = self.backtest
        return found

    def tick(self, kind: str, bot: str, share: float) -> float:
        """The median over the rounds; p99.9 over all of them together, since a round has too few for it."""
        rounds = self.ticks[kind, bot]
        if share > 0.99:
            return percentile([value for values in rounds for value in values], share)
        return statistics.median(percentile(values, share) for values in rounds)


def tick_round(rig: Rig, found: Results, number: int, quick: bool) -> None:
    """One round of every bot, plain and over TLS, each in its turn."""
    order, markets = list(BOTS), 128 if quick else MARKETS
    random.Random(number).shuffle(order)
    for secure in (False, True):
        for bot in order:
            running = rig.start(bot, secure=secure, markets=markets, quoted=0 if bot == "limit" else markets)
            try:
                chance = random.Random(f"{number}/{secure}")
                names = list(running.names)
                groups = [names[i : i + GROUP] for i in range(0, markets, GROUP)]
                quiet, busy = (1, 1) if quick else (8, 4)
                if secure:
                    quiet, busy = (1, 0) if quick else (4, 0)
                values: dict[str, list[float]] = {"quiet": [], "busy": []}
                for kind, count in (("quiet", quiet), ("busy", busy)):
                    for group in groups[:count]:
                        running.wake(group)
                        others = [name for name in names if name not in group]
                        for ticker in chance.sample(group, len(group)):
                            ahead = chance.sample(others, AHEAD) if kind == "busy" else []
                            values[kind].append(running.tick(ticker, ahead))
                if secure:
                    found.ticks["tls", bot].append(values["quiet"])
                    continue
                found.ticks["quiet", bot].append(values["quiet"])
                found.ticks["busy", bot].append(values["busy"])
                if bot == "limit":
                    continue
                bursts = []
                for group in groups[2:3] if quick else groups[4:8]:
                    for _ in range(2):
                        running.wake(group)
                        bursts.append(running.burst(group))
                found.bursts[bot].append(bursts)
                found.ingest[bot].append(running.ingest(10_000 if quick else 40_000, number))
            finally:
                running.stop()


def rates_round(rig: Rig, found: Results, number: int, quick: bool) -> None:
    """32 markets at 10 deltas a second each, then a burst of 200 a second over all."""
    for bot in ("usual", "ours"):
        running = rig.start(bot, markets=32, quoted=32, ttl_s=60)
        try:
            seconds = 1.5 if quick else 6.0
            taken, sent = running.paced(10.0, seconds, 32, number)
            found.paced[bot].append((100 * taken / seconds, 1e6 * taken / sent * 1000 / 1e6))
            taken, sent = running.paced(200.0, 1.0 if quick else 4.0, 32, number + 100)
            found.bursty[bot].append((100 * taken / (1.0 if quick else 4.0), taken / sent * 1000))
        finally:
            running.stop()


def idle(rig: Rig, found: Results, quick: bool) -> None:
    """CPU and memory of ours when nothing comes but pongs."""
    for markets in (16, 10_000) if quick else (16, 64, 1_000, 10_000):
        running = rig.start("ours", markets=markets, quoted=min(markets, 64), ttl_s=60)
        try:
            # A fresh order's amend is kept signed for ten seconds: idle begins after that.
            begun = time.monotonic()
            while time.monotonic() - begun < (1.0 if quick else 11.0):
                running.venue.pump(0.2)
            seconds = 1.5 if quick else 8.0
            before, began = cpu_s(running.process.pid), time.monotonic()
            while time.monotonic() - began < seconds:
                running.venue.pump(0.2)
            percent = 100 * (cpu_s(running.process.pid) - before) / (time.monotonic() - began)
            found.idle.append(
                {
                    "markets": markets,
                    "cpu_percent": round(percent, 2),
                    "rss_mb": round(rss_mb(running.process.pid), 1),
                }
            )
        finally:
            running.stop()


def breadth(found: Results, quick: bool) -> None:
    """CPU a message, lag and memory over ever more markets: see bench/breadth.py."""
    import breadth as wide

    for markets in (16, 10_000) if quick else (16, 64, 1_000, 10_000):
        row = wide.measure(markets, 10_000.0, 1.0 if quick else 10.0)
        found.breadth.append(
            {
                "markets": markets,
                "cpu_us_per_msg": round(row["cpu_us_per_msg"], 2),
                "lag_p99_ms": round(row["lag_p99_ms"], 2),
                "rss_mb": round(row["rss_mb"], 1),
            }
        )


def leave(found: Results) -> None:
    """From the signal to nothing resting, at the embedded exchange: see bench/leaving.py."""
    reply = subprocess.run(
        [sys.executable, str(HERE / "leaving.py")], capture_output=True, text=True, timeout=120, check=False
    )
    if reply.returncode:
        raise SystemExit(f"bench/leaving.py failed: {reply.stderr[-3_000:]}")
    found.exit = json.loads(reply.stdout.splitlines()[-1])


def backtest(found: Results, quick: bool) -> None:
    """Rows of a tape a CPU second, with the live engine and the queue model."""
    reply = subprocess.run(
        [sys.executable, str(HERE / "backtest_rate.py"), "40000" if quick else "200000"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if reply.returncode:
        raise SystemExit(f"bench/backtest_rate.py failed: {reply.stderr[-3_000:]}")
    found.backtest = {"events_per_s": round(float(reply.stdout.split()[-1]))}


# --- what people see --------------------------------------------------------------------------------------------------


def show(found: Results) -> None:
    """The tables and the ratios."""
    line = "{:22} {:>12} {:>12} {:>12} {:>14}"
    print(line.format("tick to order, us", "usual", "ours", "limit", "usual / ours"))
    for kind in ("quiet", "busy", "tls"):
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            if not all(found.ticks[kind, bot] for bot in BOTS):
                continue
            usual, ours, limit = (found.tick(kind, bot, share) for bot in BOTS)
            print(
                line.format(
                    f"  {kind} {name}", f"{usual:.0f}", f"{ours:.0f}", f"{limit:.0f}", f"{usual / ours:.1f}"
                )
            )
    if found.bursts["ours"]:
        usual, ours = (statistics.median([v for r in found.bursts[b] for v in r]) for b in ("usual", "ours"))
        print(line.format("goal: 64th quote, ms", f"{usual:.1f}", f"{ours:.2f}", "", f"{usual / ours:.1f}"))
        usual, ours = (statistics.median(found.ingest[bot]) for bot in ("usual", "ours"))
        print(
            line.format(
                "messages / CPU second", f"{usual:.0f}", f"{ours:.0f}", "", f"{ours / usual:.1f} (more)"
            )
        )
    for text, rows in (("32 markets, 10/s each", found.paced), ("the same, 200/s each", found.bursty)):
        if rows["ours"]:
            usual, ours = (statistics.median(p for p, _ in rows[bot]) for bot in ("usual", "ours"))
            print(line.format(f"{text}, % core", f"{usual:.2f}", f"{ours:.2f}", "", f"{usual / ours:.1f}"))
            usual, ours = (statistics.median(m for _, m in rows[bot]) for bot in ("usual", "ours"))
            print(
                line.format(
                    "  CPU s / 1,000 messages", f"{usual:.4f}", f"{ours:.4f}", "", f"{usual / ours:.1f}"
                )
            )
    for row in found.idle:
        print(
            f"idle, {row['markets']:>6,} markets: {row['cpu_percent']:.2f} % of a core, {row['rss_mb']:.1f} MB"
        )
    for row in found.breadth:
        print(
            f"wide, {row['markets']:>6,} markets at 10,000/s: {row['cpu_us_per_msg']:.2f} us a message, "
            f"lag p99 {row['lag_p99_ms']:.2f} ms, {row['rss_mb']:.1f} MB"
        )
    if found.exit:
        print(f"exit: nothing rests after {found.exit['seconds']:.3f} s and {found.exit['calls']} calls")
    if found.backtest:
        print(f"back-test: {found.backtest['events_per_s']:,} events/s")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="tick,rates,idle,breadth,exit,backtest")
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    wanted = options.only.split(",")
    rounds = options.rounds or (1 if options.quick else 3)
    found, began = Results(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        for number in range(rounds):
            if "tick" in wanted:
                say(began, f"round {number + 1} of {rounds}: tick to order, bursts, ingest")
                tick_round(rig, found, number, options.quick)
            if "rates" in wanted:
                say(began, f"round {number + 1} of {rounds}: 32 markets at their own pace")
                rates_round(rig, found, number, options.quick)
        for name, measure in (
            ("idle", lambda: idle(rig, found, options.quick)),
            ("breadth", lambda: breadth(found, options.quick)),
            ("exit", lambda: leave(found)),
            ("backtest", lambda: backtest(found, options.quick)),
        ):
            if name in wanted:
                say(began, name)
                measure()
    print(
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {rounds} rounds, "
        f"load {os.getloadavg()[0]:.1f} at the end, {time.monotonic() - began:.0f} s, Python "
        f"{sys.version.split()[0]}"
    )
    show(found)
    if set(wanted) >= {"tick", "idle", "breadth", "exit", "backtest"}:
        (HERE / "latest.json").write_text(json.dumps(found.as_json(), indent=2) + "\n")
    return 0


def say(began: float, text: str) -> None:
    """Where it is, for whoever waits."""
    print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

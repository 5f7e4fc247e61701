"""kill -9, again and again: a bot on one data folder, an exchange that trades on, and a comparison at the end.

Each round starts `mm run`, lets the house and the generated traders hit its quotes, kills the process with SIGKILL at
a random moment (while it starts, sweeps, quotes, or writes), trades on with what it left resting, and by hand on the
same account, and starts the next one. The last one is stopped with SIGTERM; then fills, positions, fees and cash in
the ledger must be the exchange's.

    python tests/support/crash_rounds.py --rounds 30 --seed 7
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from bot_rig import Rig
from mm.domain.fill import Fill
from mm.domain.numbers import DOLLAR, Count, Price, format_count, format_money, parse_money
from mm.domain.order import ClientOrderId, MarketTicker, Side, TimeInForce
from mm.exchange.embedded.server.app import Ready
from mm.exchange.paging import read_all
from mm.exchange.port import ExchangeError, NewOrder
from mm.ledger.reader import open_reader

START_S: Final = 30.0
END_S: Final = 60.0
BALANCE: Final = "10000"


@attrs.frozen(kw_only=True)
class Round:
    """What one life came to."""

    number: int
    lived_s: float
    was_quoting: bool
    hits: int
    """Our quotes traded with by the house, while it lived and after it died."""
    by_hand: int
    """Orders of the account that are not the bot's and traded."""
    in_ledger: int
    at_exchange: int


@attrs.define(kw_only=True)
class Comparison:
    """Both sides, as text, and whether they are equal."""

    rows: list[tuple[str, str, str, bool]] = attrs.field(factory=list)
    """(what, ledger, exchange, equal)."""

    def add(self, what: str, ledger: object, exchange: object) -> None:
        """One figure of both."""
        self.rows.append((what, str(ledger), str(exchange), ledger == exchange))

    @property
    def is_equal(self) -> bool:
        """Every figure is."""
        return all(equal for *_, equal in self.rows)

    def table(self) -> str:
        """For people."""
        lines = [f"{'':28} {'ledger':>20} {'exchange':>20}"]
        lines += [
            f"{what:28} {a:>20} {b:>20}  {'' if same else 'DIFFERENT'}" for what, a, b, same in self.rows
        ]
        return "\n".join(lines)


@attrs.define(eq=False, kw_only=True)
class CrashRun:
    """One exchange, one data folder, many lives."""

    rig: Rig
    folder: Path
    chance: random.Random
    rounds: list[Round] = attrs.field(factory=list)
    _names: int = 0

    # --- lives ---

    async def life(self, number: int) -> None:
        """Start a bot, kill it at a random moment, trade on."""
        began = trio.current_time()
        left = {order["order_id"] for order in await self._resting()}
        process = await self._start()
        waits_for_quotes = self.chance.random() < 0.65
        lasts = self.chance.uniform(0.2, 3.0)
        hits, was_quoting = 0, False
        with trio.move_on_after(START_S if waits_for_quotes else lasts):
            while not (was_quoting and waits_for_quotes):
                was_quoting = any(order["order_id"] not in left for order in await self._resting())
                await trio.sleep(0.05)
        if waits_for_quotes:
            until = trio.current_time() + lasts * self.chance.random()
            while trio.current_time() < until:
                hits += await self._hit()
                await trio.sleep(self.chance.uniform(0.0, 0.1))
        if process.poll() is not None:
            raise AssertionError(f"the bot ended by itself in round {number}: {self._said()}")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        lived = trio.current_time() - began
        by_hand = 0
        for _ in range(self.chance.randrange(4)):
            hits += await self._hit()
            by_hand += await self._by_hand()
            await trio.sleep(self.chance.uniform(0.0, 0.4))
        self.rounds.append(
            Round(
                number=number,
                lived_s=lived,
                was_quoting=was_quoting,
                hits=hits,
                by_hand=by_hand,
                in_ledger=self._ledger_fills(),
                at_exchange=(await self._account())["fills"],
            )
        )

    async def last_life(self) -> dict[str, Any]:
        """Start once more, let it quote and catch up, end it properly; its summary."""
        summary = self.folder / "summary.json"
        left = {order["order_id"] for order in await self._resting()}
        process = await self._start("--summary", str(summary))
        with trio.fail_after(START_S):
            while all(order["order_id"] in left for order in await self._resting()):
                await trio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_S):
            await process.wait()
        found: dict[str, Any] = json.loads(summary.read_text())
        return found

    async def _start(self, *arguments: str) -> trio.Process:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "KALSHI_ENV": "demo",
            "LIVE_TRADING_ENABLED": "true",
            "KALSHI_REST_URL": self.rig.ready.rest_url,
            "KALSHI_WS_URL": self.rig.ready.ws_url,
            "KALSHI_API_KEY": self.rig.ready.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(self.rig.ready.private_key_path),
            "MM_DATA_DIR": str(self.rig.data_dir),
            "WEB_ADDRESS": "off",
        }
        with (self.folder / "bot.txt").open("wb") as out:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", "mm", "run", *arguments],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def _said(self) -> str:
        return (self.folder / "bot.txt").read_text(errors="replace")[-2_000:]

    # --- the world ---

    async def _account(self) -> dict[str, Any]:
        base = self.rig.ready.rest_url.removesuffix("/trade-api/v2")
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{base}/control/account")
        accounts: list[dict[str, Any]] = response.json()["accounts"]
        (found,) = accounts
        return found

    async def _resting(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._account())["resting"]
        return found

    async def _hit(self) -> int:
        """The house trades with one of the account's resting orders, wholly or in part."""
        resting = await self._resting()
        if not resting:
            return 0
        order = self.chance.choice(resting)
        rest = round(float(order["remaining_count_fp"]) * 100)
        try:
            answer = await self.rig.control(
                "order",
                ticker=order["ticker"],
                side="ask" if order["book_side"] == "bid" else "bid",
                price=order["yes_price_dollars"],
                count=format_count(Count(self.chance.choice([rest, 1 + self.chance.randrange(rest)]))),
            )
        except httpx.HTTPStatusError:
            return 0  # a market that was closed meanwhile
        return int(answer["fill_count"] != "0.00")

    async def _by_hand(self) -> int:
        """The account's owner trades a little, without the bot."""
        async with self.rig.client() as exchange:
            markets = await exchange.markets(status="open", series_ticker="KXNHLGAME")
            if not markets:
                return 0
            market = self.chance.choice(markets)
            side = self.chance.choice(list(Side))
            self._names += 1
            order = NewOrder(
                client_order_id=ClientOrderId(f"hand-{self.chance.getrandbits(40):x}-{self._names}"),
                ticker=market.ticker,
                side=side,
                price=market.grid.highest if side is Side.BID else market.grid.lowest,
                count=Count(1 + self.chance.randrange(300)),
                exchange_index=market.exchange_index,
                time_in_force=TimeInForce.IOC,
                post_only=False,
            )
            try:
                return int((await exchange.place(order)).filled > 0)
            except ExchangeError:
                return 0

    # --- the comparison ---

    def _ledger_fills(self) -> int:
        path = self.rig.data_dir / "ledger.sqlite3"
        if not path.exists():
            return 0
        try:
            with open_reader(path, is_checked=False) as reader:
                return sum(reader.totals(account).fills for account in reader.accounts())
        except Exception:  # noqa: BLE001 - a figure for the table, of a file that may be half made
            return -1

    async def compare(self) -> Comparison:
        """The ledger against the exchange, figure by figure."""
        async with self.rig.client() as exchange:
            theirs = await read_all(lambda cursor: exchange.fills_page(cursor=cursor), what="fills")
            held = {p.ticker: p.position for p in await exchange.positions() if p.position}
            paid = await read_all(lambda cursor: exchange.settlements_page(cursor=cursor), what="settlements")
            balance = await exchange.balance()
        with open_reader(self.rig.data_dir / "ledger.sqlite3") as reader:
            (account,) = reader.accounts()
            ours = [row.fill for row in reader.fills(account)]
            positions = {t: row.net for t, row in reader.positions(account).items() if row.net}
            settled = {row.ticker: row.value for row in reader.settlements(account)}
        found = Comparison()
        our_keys, their_keys = Counter(f.key for f in ours), Counter(f.key for f in theirs)
        found.add("fills", len(ours), len(theirs))
        found.add("lost", 0, len(their_keys - our_keys))
        found.add("doubled", sum((our_keys - their_keys).values()), 0)
        found.add("contents differ", len(_contents(ours) ^ _contents(theirs)), 0)
        found.add("contracts", format_count(_contracts(ours)), format_count(_contracts(theirs)))
        found.add("fees", format_money(_fees(ours)), format_money(_fees(theirs)))
        found.add("open positions", len(positions), len(held))
        found.add("positions differ", len(positions.items() ^ held.items()), 0)
        found.add("settled markets", len(settled), len(settled.keys() | {row.ticker for row in paid}))
        found.add("settlement values differ", len(settled.items() ^ {(r.ticker, r.value) for r in paid}), 0)
        found.add("cash", format_money(expected_cash(ours, settled)), format_money(balance.total))
        found.add("false alarms", self._alarms(), 0)
        return found

    def _alarms(self) -> int:
        """What the bots told about differences of positions, fees and cash: there were none to tell."""
        logs = "".join(
            path.read_text(errors="replace") for path in (self.rig.data_dir / "logs").glob("*.log*")
        )
        if "ledger read" not in logs:
            return -1  # nothing can be told from these
        return sum(logs.count(what) for what in ("position differs", "fee differs", "cash differs"))


def _contents(fills: list[Fill]) -> set[tuple[object, ...]]:
    return {(*f.key, f.ticker, f.side, f.price, f.count, f.fee, f.liquidity, f.ts) for f in fills}


def _contracts(fills: list[Fill]) -> Count:
    return Count(sum(f.count for f in fills))


def _fees(fills: list[Fill]) -> Any:
    return sum(f.fee for f in fills)


def expected_cash(fills: list[Fill], settled: dict[MarketTicker, Price]) -> Any:
    """What the account must have available with nothing resting, by the ledger alone (whole 0.0001 dollars).

    What was paid in, less purchases and fees, plus sales and settlements, less what open NO positions owe at worst:
    one dollar a contract, and in a game only the larger of its two, as at most one team wins.
    """
    cash = parse_money(BALANCE) + sum(-f.price * f.signed_count - f.fee for f in fills)
    net: dict[MarketTicker, int] = defaultdict(int)
    for fill in fills:
        net[fill.ticker] += fill.signed_count
    paid_in_event: dict[str, int] = defaultdict(int)
    owed: dict[str, int] = defaultdict(int)
    for ticker, value in settled.items():
        cash += net.pop(ticker, 0) * value
        paid_in_event[ticker.rpartition("-")[0]] += value
    for ticker, position in net.items():
        event = ticker.rpartition("-")[0]
        owed[event] = max(owed[event], -position)
    locked = sum(count * max(DOLLAR - paid_in_event[event], 0) for event, count in owed.items())
    return (cash - locked) // 100 * 100


@asynccontextmanager
async def open_exchange(folder: Path, *, seed: int, speed: float, games: int) -> AsyncGenerator[Ready, None]:
    """`mm exchange` as a child, ended with the block."""
    ready_file = folder / "ready.json"
    command = [sys.executable, "-m", "mm", "exchange", "--seed", str(seed), "--speed", str(speed)]
    command += ["--games", str(games), "--tier", "advanced", "--balance", BALANCE]
    command += ["--ready-file", str(ready_file)]
    with (folder / "exchange.txt").open("wb") as out:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        with trio.fail_after(START_S):
            while not ready_file.exists() or not ready_file.read_text().strip():
                if process.poll() is not None:
                    raise AssertionError((folder / "exchange.txt").read_text())
                await trio.sleep(0.05)
        content = json.loads(ready_file.read_text())
        yield Ready(**(content | {"private_key_path": Path(content["private_key_path"])}))
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def crash_rounds(
    folder: Path, *, rounds: int, seed: int, speed: float = 20.0, games: int = 4, is_loud: bool = False
) -> tuple[CrashRun, Comparison, dict[str, Any]]:
    """All rounds, the last life and the comparison, in `folder`."""
    chance = random.Random(seed)
    async with open_exchange(folder, seed=seed, speed=speed, games=games) as ready:
        run = CrashRun(rig=Rig(ready, folder / "data"), folder=folder, chance=chance)
        for number in range(1, rounds + 1):
            await run.life(number)
            if is_loud:
                _show(run.rounds[-1])
        summary = await run.last_life()
        return run, await run.compare(), summary


def _show(row: Round) -> None:
    print(
        f"{row.number:5} {row.lived_s:7.2f} {'yes' if row.was_quoting else 'no':>7} {row.hits:5} {row.by_hand:7}"
        f" {row.in_ledger:9} {row.at_exchange:11}",
        flush=True,
    )


async def _main(rounds: int, seed: int, speed: float, games: int) -> int:
    print(f"seed {seed}, {rounds} rounds, one data folder")
    print("round   lived quoting  hits by hand in ledger at exchange")
    with tempfile.TemporaryDirectory(prefix="mm-crash-") as folder:
        run, found, summary = await crash_rounds(
            Path(folder), rounds=rounds, seed=seed, speed=speed, games=games, is_loud=True
        )
    print()
    print(found.table())
    print()
    print(f"last life: exit code {summary['exit_code']}, positions_match {summary['positions_match']}")
    print(f"killed while quoting: {sum(r.was_quoting for r in run.rounds)} of {len(run.rounds)}")
    is_good = found.is_equal and summary["exit_code"] == 0 and summary["positions_match"] is True
    print("equal" if is_good else f"NOT EQUAL (seed {seed})")
    return 0 if is_good else 1


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--seed", type=int, default=None, help="which moments; without it a fresh one, printed"
    )
    parser.add_argument("--speed", type=float, default=20.0)
    parser.add_argument("--games", type=int, default=4)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    return trio.run(_main, arguments.rounds, seed, arguments.speed, arguments.games)


if __name__ == "__main__":
    sys.exit(main())

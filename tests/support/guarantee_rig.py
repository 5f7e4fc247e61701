"""Bots as processes, deaths of every kind, and a stop-watch: how long until nothing of the bot rests.

What rests is asked at the exchange's back door, which knows no read lag, no budget and no fault.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from bot_rig import Rig
from mm.domain.numbers import CONTRACT
from mm.domain.order import ClientOrderId, Side
from mm.exchange.port import NewOrder, OutcomeUnknown
from terminal import Terminal

TTL_S: Final = 10
"""The shortest QUOTE_TTL_SEC that is allowed."""
WITHIN_S: Final = 30.0
FOREIGN: Final = frozenset({"by-hand-1", "mmm-other-1", "mm"})
"""Orders of the same account that are not the bot's, however their ids look."""
POLL_S: Final = 0.02

TIMES: Final[dict[str, list[float]]] = defaultdict(list)
"""What was measured: seconds by what happened."""


STARTS: Final[dict[str, list[float]]] = defaultdict(list)
"""Seconds from the start of a bot to its quotes."""


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def report() -> list[str]:
    """The measured times, a line each."""
    return [
        f"{what:<58} n={len(times):<3} p50 {percentile(times, 0.5):5.2f} s  p99 {percentile(times, 0.99):5.2f} s  "
        f"max {max(times):5.2f} s"
        for what, times in (*sorted(TIMES.items()), *STARTS.items())
    ]


@attrs.define(eq=False)
class Bot:
    """A running `mm run`."""

    process: trio.Process
    folder: Path

    @property
    def pid(self) -> int:
        """The bot's process id."""
        return self.process.pid

    @property
    def summary(self) -> dict[str, Any]:
        """What it wrote at its end."""
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    @property
    def errors(self) -> str:
        """What it said on stderr."""
        return (self.folder / "err.txt").read_text()

    def guardian(self) -> int | None:
        """The process id of its guardian, while there is one."""
        return next((pid for pid in children(self.pid) if is_guardian(pid)), None)

    async def ended(self, within_s: float = WITHIN_S) -> int:
        """Its exit code."""
        with trio.fail_after(within_s):
            return await self.process.wait()


@attrs.define(eq=False)
class Ground:
    """An exchange with foreign orders on the account, and bots that are started and end badly."""

    rig: Rig
    folder: Path
    client: httpx.AsyncClient
    settings: dict[str, str] = attrs.field(factory=dict)
    bots: list[Bot] = attrs.field(factory=list)
    pids: set[int] = attrs.field(factory=set)
    """Everything that must be gone when a test ends."""

    async def begin(self) -> None:
        """Put the foreign orders there."""
        for name in sorted(FOREIGN):
            await self.place_foreign(name)

    async def place_foreign(self, name: str, *, is_lost: bool = False) -> None:
        """An order of somebody else with the same account; `is_lost`: its answer will not come."""
        async with self.rig.client() as exchange:
            market = (await exchange.markets(series_ticker="KXNHLGAME", status="open"))[0]
            order = NewOrder(
                client_order_id=ClientOrderId(name),
                ticker=market.ticker,
                side=Side.BID,
                price=market.grid.lowest,
                count=CONTRACT,
                exchange_index=market.exchange_index,
            )
            try:
                await exchange.place(order)
            except OutcomeUnknown:
                if not is_lost:
                    raise

    async def start(
        self, *, terminal: Terminal | None = None, program: Sequence[str] = ("-m", "mm"), **settings: str
    ) -> Bot:
        """Start a bot and wait until it quotes."""
        bot = await self.launch(terminal=terminal, program=program, **settings)
        took = await self.until(lambda names: len(names) >= 4, "quotes", bot)
        STARTS["start of the process to four quotes"].append(took)
        guardian = bot.guardian()
        if guardian is not None:
            self.pids.add(guardian)
        return bot

    async def launch(
        self,
        *command: str,
        terminal: Terminal | None = None,
        program: Sequence[str] = ("-m", "mm"),
        **settings: str,
    ) -> Bot:
        """Start a bot, with a terminal of its own or without any; `program`: another Python program than `mm`."""
        folder = self.folder / f"bot{len(self.bots) + 1}"
        folder.mkdir()
        values = {
            "PATH": os.environ.get("PATH", ""),
            "KALSHI_ENV": "demo",
            "LIVE_TRADING_ENABLED": "true",
            "KALSHI_REST_URL": self.rig.ready.rest_url,
            "KALSHI_WS_URL": self.rig.ready.ws_url,
            "KALSHI_API_KEY": self.rig.ready.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(self.rig.ready.private_key_path),
            "MM_DATA_DIR": str(self.folder / "data"),
            "WEB_ADDRESS": "off",
            "QUOTE_TTL_SEC": str(TTL_S),
        }
        values |= self.settings | settings
        with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
            process = await trio.lowlevel.open_process(
                [sys.executable, *program, "run", "--summary", str(folder / "summary.json"), *command],
                env={name: value for name, value in values.items() if value},
                cwd=folder,
                stdin=terminal.slave if terminal is not None else subprocess.DEVNULL,
                stdout=terminal.slave if terminal is not None else out,
                stderr=err,
                start_new_session=True,
                preexec_fn=terminal.adopt() if terminal is not None else None,
            )
        if terminal is not None:
            terminal.started()
        bot = Bot(process, folder)
        self.bots.append(bot)
        self.pids.add(process.pid)
        return bot

    async def resting(self) -> set[str]:
        """Client ids of what rests on the account, in truth."""
        base = self.rig.ready.rest_url.removesuffix("/trade-api/v2")
        accounts = (await self.client.get(f"{base}/control/account")).json()["accounts"]
        return {order["client_order_id"] for account in accounts for order in account["resting"]}

    async def ours(self) -> set[str]:
        """What rests of the bot's."""
        return {name for name in await self.resting() if name.startswith("mm-")}

    async def order_ids(self) -> set[str]:
        """The exchange's ids of what rests of the bot's."""
        base = self.rig.ready.rest_url.removesuffix("/trade-api/v2")
        accounts = (await self.client.get(f"{base}/control/account")).json()["accounts"]
        ours = [o for a in accounts for o in a["resting"] if o["client_order_id"].startswith("mm-")]
        return {order["order_id"] for order in ours}

    async def struck(self) -> int:
        """How often the exchange's faults have struck."""
        base = self.rig.ready.rest_url.removesuffix("/trade-api/v2")
        return sum(rule["hits"] for rule in (await self.client.get(f"{base}/control/faults")).json()["rules"])

    async def until(
        self,
        condition: Callable[[set[str]], bool],
        what: str,
        bot: Bot | None = None,
        within_s: float = WITHIN_S,
    ) -> float:
        """Wait until what rests of ours fulfils the condition; gives the seconds. Raises `AssertionError`."""
        started = trio.current_time()
        with trio.move_on_after(within_s):
            while not condition(await self.ours()):
                await trio.sleep(POLL_S)
            return trio.current_time() - started
        said = "" if bot is None else f"; the bot says: {bot.errors[-2_000:]}"
        raise AssertionError(f"not within {within_s:g} s: {what}; resting: {await self.ours()}{said}")

    async def nothing_rests(self, within_s: float, what: str, since: float | None = None) -> float:
        """Wait until nothing of ours rests, note how long it took, check that foreign orders are there.

        It has to stay so: an order on its way may land later.
        """
        started = trio.current_time() if since is None else since
        await self.until(lambda names: not names, f"nothing rests after {what}", within_s=within_s)
        took = trio.current_time() - started
        TIMES[what].append(took)
        print(f"{what}: nothing rests after {took:.2f} s")
        await trio.sleep(0.3)
        assert await self.resting() == FOREIGN
        return took

    async def gone(self, pid: int, within_s: float, what: str) -> None:
        """Wait until a process that is not our child has ended."""
        with trio.move_on_after(within_s):
            while is_alive(pid):
                await trio.sleep(POLL_S)
            return
        raise AssertionError(f"{what} (pid {pid}) is still there after {within_s:g} s")

    async def end(self) -> None:
        """Whatever a failed test left."""
        for pid in self.pids:
            for number in (signal.SIGCONT, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    break
        for bot in self.bots:
            await bot.process.wait()


@asynccontextmanager
async def open_ground(rig: Rig, folder: Path) -> AsyncGenerator[Ground, None]:
    """A prepared ground; whatever runs at the end is killed."""
    async with httpx.AsyncClient() as client:
        ground = Ground(rig, folder, client)
        await ground.begin()
        try:
            yield ground
            # Whatever the test did to bots, networks and the exchange itself:
            assert await ground.resting() >= FOREIGN, "foreign orders are gone"
        finally:
            with trio.CancelScope(shield=True):
                await ground.end()


@asynccontextmanager
async def alert_sink() -> AsyncGenerator[tuple[str, list[str]], None]:
    """(address of a webhook, what was said to it)."""
    said: list[str] = []

    async def hear(stream: trio.SocketStream) -> None:
        data = b""
        async for chunk in stream:
            data += chunk
            head, found, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            if found and length is not None and len(body) >= int(length[1]):
                said.append(json.dumps(json.loads(body), ensure_ascii=False))
                await stream.send_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, hear, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/hook", said
        nursery.cancel_scope.cancel()


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`. Linux."""
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [int(entry.name) for entry in entries if _parent_of(entry) == pid]


def memory_of(pid: int) -> int:
    """Bytes of address space. Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def command_of(pid: int) -> str:
    """How a process was started; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_guardian(pid: int) -> bool:
    """Whether the process is an `mm guard`."""
    return command_of(pid).endswith("-m mm guard ")


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not fetched by its parent does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state not in "ZX"


def _parent_of(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1

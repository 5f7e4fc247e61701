"""The guardian as a process: the bot is killed, frozen or sent home, and what rests is looked at from outside."""

import json
import os
import pty
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import certifi
import httpx
import pytest
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bot_rig import Rig, eventually
from mm.domain.numbers import Count, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, Side, TimeInForce
from mm.exchange.embedded.server.app import ExchangeOptions, serve
from mm.exchange.embedded.server.faults import Faults, Plan
from mm.exchange.port import Exchange, ExchangeError, NewOrder

pytestmark = pytest.mark.real

ROUNDS: Final = int(os.environ.get("MM_GUARDIAN_ROUNDS", "1"))
"""How often the timed tests are done; 30 for the figures of the documentation."""
STUB: Final = Path(__file__).parent.parent / "support" / "guarded_stub.py"
PREFIX: Final = "mm-session1-"
FOREIGN: Final = ("by-hand-1", "mm-session2-1", "mm-session1", "mmm-session1-1")
LIGHT_KB: Final = 30 * 1024


@attrs.define(eq=False)
class Stub:
    """A running stub bot."""

    process: trio.Process
    said: list[dict[str, Any]]
    alive_fd: int
    """Reads end-of-file when the stub and every guardian of it are gone."""
    log_path: Path

    def find(self, what: str) -> list[dict[str, Any]]:
        return [message for message in self.said if message["is"] == what]

    async def heard(self, what: str, times: int = 1) -> dict[str, Any]:
        await eventually(lambda: len(self.find(what)) >= times, f"{what} from the stub")
        return self.find(what)[times - 1]

    @property
    def guardian(self) -> int:
        """The process id of the newest guardian."""
        return [m for m in self.said if m["is"] in ("ready", "back")][-1]["pid"]  # type: ignore[no-any-return]

    async def tell(self, command: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(command + b"\n")

    async def all_gone(self, within_s: float) -> None:
        """Wait until stub and guardian have ended."""
        with trio.fail_after(within_s):
            await trio.lowlevel.wait_readable(self.alive_fd)
            assert os.read(self.alive_fd, 1) == b""

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@attrs.define(eq=False)
class Scene:
    """An exchange, an account with orders of several owners, and stub bots."""

    rig: Rig
    exchange: Exchange
    nursery: trio.Nursery
    folder: Path
    ticker: MarketTicker
    shard: int
    requests: list[tuple[str, str]]
    """What the exchange was asked, from anybody."""
    client: httpx.AsyncClient
    count: int = 0

    async def place(self, client_order_id: str, group: GroupId | None = None) -> None:
        await self.exchange.place(self.order(client_order_id, group))

    def order(self, client_order_id: str, group: GroupId | None) -> NewOrder:
        self.count += 1
        return NewOrder(
            client_order_id=ClientOrderId(client_order_id),
            ticker=self.ticker,
            side=Side.BID,
            price=Price(100),
            count=Count(100),
            exchange_index=self.shard,
            time_in_force=TimeInForce.GTC,
            post_only=True,
            group_id=group,
        )

    async def group(self) -> GroupId:
        return await self.exchange.create_group(contracts_limit=1000, exchange_index=self.shard)

    async def quotes(self, groups: int = 1, orders: int = 3) -> list[GroupId]:
        """Orders of the session in groups, one outside of any, and some that are none of the guardian's business."""
        made = [await self.group() for _ in range(groups)]
        for number, group in enumerate(made):
            for order in range(orders):
                await self.place(f"{PREFIX}{number}-{order}", group)
        await self.place(f"{PREFIX}alone")
        for name in FOREIGN:
            await self.place(name)
        return made

    async def resting(self) -> set[str]:
        """By the exchange's own truth: without a read lag, a budget or a fault in the way."""
        base = self.rig.ready.rest_url.removesuffix("/trade-api/v2")
        accounts = (await self.client.get(f"{base}/control/account")).json()["accounts"]
        return {order["client_order_id"] for account in accounts for order in account["resting"]}

    async def only_foreign_left(self, within_s: float) -> float:
        """Seconds until nothing of the session rests."""
        started = trio.current_time()
        with trio.fail_after(within_s):
            while any(name.startswith(PREFIX) for name in await self.resting()):
                await trio.sleep(0.02)
        took = trio.current_time() - started
        assert await self.resting() == set(FOREIGN)
        return took

    async def stub(
        self, groups: list[GroupId], *, webhook: str = "", time_limit_s: float = 30.0, **access: str
    ) -> Stub:
        """Start a stub bot whose guardian knows these groups."""
        alive_fd, held_fd = os.pipe()
        log_path = self.folder / "logs" / "guardian-session1.log"
        setup = {
            "rest_url": self.rig.ready.rest_url,
            "key_id": self.rig.ready.key_id,
            "pem_path": str(self.rig.ready.private_key_path),
            "prefix": PREFIX,
            "log_path": str(log_path),
            "webhook_url": webhook,
            "groups": [(group, self.shard) for group in groups],
            "keep_fds": [held_fd],
            "time_limit_s": time_limit_s,
            "ca_file": None,
        } | access
        process = await trio.lowlevel.open_process(
            [sys.executable, str(STUB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(held_fd,),
            env={**os.environ, "KALSHI_API_SECRET": self.rig.ready.private_key_path.read_text()},
        )
        os.close(held_fd)
        stub = Stub(process, [], alive_fd, log_path)
        self.nursery.start_soon(_listen, stub)
        await stub.tell(json.dumps(setup).encode())
        await stub.heard("ready")
        return stub


async def _listen(stub: Stub) -> None:
    rest = b""
    assert stub.process.stdout is not None
    async for data in stub.process.stdout:
        *lines, rest = (rest + data).split(b"\n")
        stub.said += [json.loads(line) for line in lines]


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene, None]:
    requests: list[tuple[str, str]] = []
    plan = Faults.plan

    def recorded(faults: Faults, method: str, path: str) -> Plan:
        requests.append((method, path))
        return plan(faults, method, path)

    monkeypatch.setattr(Faults, "plan", recorded)
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(serve, ExchangeOptions(games=2, speed=1, seed=7, tier="advanced"))
        rig = Rig(ready, tmp_path)
        async with rig.client() as exchange, httpx.AsyncClient() as client:
            market = (await exchange.markets(series_ticker="KXNHLGAME", status="open"))[0]
            scene = Scene(
                rig, exchange, nursery, tmp_path, market.ticker, market.exchange_index, requests, client
            )
            stubs: list[Stub] = []
            start = scene.stub

            async def remembered(*args: Any, **kwargs: Any) -> Stub:
                stubs.append(await start(*args, **kwargs))
                return stubs[-1]

            monkeypatch.setattr(Scene, "stub", staticmethod(remembered))
            try:
                yield scene
            finally:
                with trio.CancelScope(shield=True):
                    for stub in stubs:
                        await _end(stub)
        nursery.cancel_scope.cancel()


async def _end(stub: Stub) -> None:
    """Whatever a failed test left of it."""
    for pid in {stub.process.pid, *(m["pid"] for m in stub.said if "pid" in m)}:
        try:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.close(stub.alive_fd)
    await stub.process.wait()
    assert stub.process.stdin is not None
    await stub.process.stdin.aclose()


async def test_a_killed_bot_leaves_nothing(scene: Scene) -> None:
    """SIGKILL: all gone in under 3 seconds, the guardian 4 seconds later, others' orders untouched."""
    times = []
    for round_number in range(ROUNDS):
        groups = await scene.quotes(groups=2) if not round_number else [await scene.group()]
        if round_number:
            await scene.place(f"{PREFIX}round-{round_number}", groups[0])
        stub = await scene.stub(groups)
        stub.process.send_signal(signal.SIGKILL)
        times.append(await scene.only_foreign_left(3.0))
        await stub.all_gone(4.0)
        assert "nothing rests" in stub.log
    print(f"from SIGKILL to nothing resting: {', '.join(f'{took:.2f}' for took in sorted(times))} s")
    assert max(times) < 3.0


async def test_a_frozen_bot_leaves_nothing_and_hears_of_it_when_it_thaws(scene: Scene) -> None:
    """SIGSTOP: all gone in under 3 seconds. Revived, it is told to assume that it was fenced, and is guarded anew."""
    times = []
    for round_number in range(ROUNDS):
        groups = await scene.quotes() if not round_number else [await scene.group()]
        if round_number:
            await scene.place(f"{PREFIX}round-{round_number}", groups[0])
        stub = await scene.stub(groups)
        first = stub.guardian
        stub.process.send_signal(signal.SIGSTOP)
        times.append(await scene.only_foreign_left(3.0))
        await _ended(first, within_s=4.0)
        stub.process.send_signal(signal.SIGCONT)
        assert (await stub.heard("frozen"))["gap_s"] > 2.0
        assert (await stub.heard("back"))["pid"] != first
        assert len(stub.find("frozen")) == 1
        await stub.tell(b"goodbye")
        await stub.all_gone(3.0)
    print(f"from SIGSTOP to nothing resting: {', '.join(f'{took:.2f}' for took in sorted(times))} s")
    assert max(times) < 3.0


async def test_goodbye_makes_no_request(scene: Scene) -> None:
    """A bot that left in good order is believed."""
    groups = await scene.quotes()
    before = await scene.resting()
    asked = len(scene.requests)
    stub = await scene.stub(groups)
    await stub.tell(b"goodbye")
    await stub.heard("dismissed")
    await stub.all_gone(3.0)
    assert scene.requests[asked:] == []
    assert await scene.resting() == before
    assert stub.find("lost") == []


async def test_a_bot_that_crashes_without_a_goodbye_is_cleaned_up_after(scene: Scene) -> None:
    """An exit that is not proven: the end of the pipe is enough."""
    stub = await scene.stub(await scene.quotes())
    await stub.tell(b"crash")
    await scene.only_foreign_left(3.0)
    await stub.all_gone(4.0)


async def test_a_killed_guardian_is_replaced_by_one_that_knows_the_groups(scene: Scene) -> None:
    """Nothing is swept by the death of a guardian, and everything by the death of the bot after it."""
    stub = await scene.stub(await scene.quotes(groups=2))
    before = await scene.resting()
    first = stub.guardian
    os.kill(first, signal.SIGKILL)
    await stub.heard("lost")
    await stub.heard("back")
    assert stub.guardian != first
    assert await scene.resting() == before
    stub.process.send_signal(signal.SIGKILL)
    await scene.only_foreign_left(3.0)
    await stub.all_gone(4.0)
    assert "2 groups to trigger" in stub.log


async def test_a_frozen_guardian_is_replaced(scene: Scene) -> None:
    """One that answers no beat is killed; it sweeps nothing."""
    stub = await scene.stub(await scene.quotes())
    before = await scene.resting()
    first = stub.guardian
    os.kill(first, signal.SIGSTOP)
    await stub.heard("back")
    assert not _runs(first)
    assert await scene.resting() == before


async def test_signals_for_the_bot_do_not_end_its_guardian(scene: Scene) -> None:
    """Ctrl-C, a closed terminal, a service manager that signals everything: it goes on watching."""
    stub = await scene.stub(await scene.quotes())
    guardian = stub.guardian
    assert os.getsid(guardian) == guardian
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(guardian, number)
    stub.process.send_signal(signal.SIGKILL)
    await scene.only_foreign_left(3.0)
    await stub.all_gone(4.0)
    assert stub.find("lost") == []


@pytest.mark.parametrize(
    "faults",
    [
        "throttle,match=PUT *,times=3; throttle,match=GET /portfolio/orders,times=2",
        "error,match=PUT *,code=500,when=before,times=3; error,match=DELETE *batched,code=500,when=before,times=1",
        "drop,match=PUT *,when=after,times=1; drop,match=GET *,when=before,reset=1,times=3",
        "throttle,match=DELETE *batched,times=3; lag,ms=400",
        "error,match=DELETE *batched,code=404,when=before",
    ],
    ids=["429", "500", "cut", "429 on batches, slow reads", "no batches"],
)
async def test_refusals_and_lost_answers_are_tried_again(scene: Scene, faults: str) -> None:
    """Whatever goes wrong on the way, in the end nothing rests, and that is proven."""
    stub = await scene.stub(await scene.quotes(groups=2))
    await scene.rig.control("faults", spec=faults)
    stub.process.send_signal(signal.SIGKILL)
    await scene.only_foreign_left(8.0)
    await stub.all_gone(10.0)
    assert "nothing rests" in stub.log
    assert "NOT PROVEN" not in stub.log


async def test_a_clock_that_the_exchange_refuses_keeps_no_order_there(scene: Scene) -> None:
    """Every signature is refused for its time: the guardian goes by the exchange's clock."""
    stub = await scene.stub(await scene.quotes())
    await scene.rig.control("faults", kind="skew", ms=90_000)
    stub.process.send_signal(signal.SIGKILL)

    await scene.only_foreign_left(2.0)
    await stub.all_gone(6.0)
    assert "nothing rests" in stub.log


async def test_a_guardian_waits_for_the_network(scene: Scene) -> None:
    """The exchange is out of reach when the bot dies; what rests goes when it is back."""
    stub = await scene.stub(await scene.quotes())
    await scene.rig.control("outage", ms=2000)
    stub.process.send_signal(signal.SIGKILL)
    await trio.sleep(2.1)
    await scene.only_foreign_left(5.0)
    await stub.all_gone(6.0)
    assert "nothing rests" in stub.log


async def test_a_guardian_does_not_try_for_ever(scene: Scene) -> None:
    """After its time limit it says what is not proven, and ends."""
    stub = await scene.stub(await scene.quotes(), time_limit_s=1.5)
    await scene.rig.control("faults", spec="error,match=*,code=503,when=before")
    stub.process.send_signal(signal.SIGKILL)
    await stub.all_gone(4.0)
    assert "NOT PROVEN" in stub.log


async def test_an_order_that_is_still_on_its_way_does_not_land(scene: Scene) -> None:
    """The fence: a create that the exchange takes up after the groups were triggered is refused, without more sweeps."""
    groups = await scene.quotes()
    stub = await scene.stub(groups)
    await scene.rig.control("faults", spec="delay,match=POST /portfolio/events/orders,when=before,ms=2500")
    outcome: list[str] = []

    async def late() -> None:
        try:
            await scene.exchange.place(scene.order(f"{PREFIX}late", groups[0]))
        except ExchangeError as exc:
            outcome.append(str(exc))
        else:
            outcome.append("accepted")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        await trio.sleep(0.1)
        stub.process.send_signal(signal.SIGKILL)
        await stub.all_gone(2.3)
    assert outcome
    assert outcome != ["accepted"]
    assert await scene.resting() == set(FOREIGN)


async def test_it_is_small_and_holds_no_secret_where_others_look(scene: Scene) -> None:
    """RSS under 30 MB; the key is in no argument, no variable and no log, though the bot's environment has it."""
    stub = await scene.stub(await scene.quotes())
    proc = Path("/proc") / str(stub.guardian)
    pem = scene.rig.ready.private_key_path.read_text().splitlines()[1]
    if proc.exists():
        print(f"on guard without TLS: {memory_kb(stub.guardian)} kB")
        assert 0 < memory_kb(stub.guardian) < LIGHT_KB
        for name in ("cmdline", "environ"):
            content = (proc / name).read_bytes().decode()
            assert pem not in content
            assert "KALSHI" not in content
    stub.process.send_signal(signal.SIGKILL)
    await scene.only_foreign_left(3.0)
    await stub.all_gone(4.0)
    assert pem not in stub.log
    assert scene.rig.ready.key_id not in stub.log
    assert oct(stub.log_path.stat().st_mode & 0o777) == "0o600"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")
@pytest.mark.parametrize("is_rsa", [True, False], ids=["rsa", "ed25519"])
async def test_it_stays_small_over_tls(scene: Scene, is_rsa: bool) -> None:
    """The most that it ever takes, its work done over TLS, with eight shards at once and either kind of key."""
    context, ca_file = _localhost_tls(scene.folder)
    pem_path = scene.rig.ready.private_key_path
    async with trio.open_nursery() as nursery:
        serve_tls = partial(
            trio.serve_ssl_over_tcp, partial(_forward, scene.rig.ready.port), 0, context, host="localhost"
        )
        listeners = await nursery.start(serve_tls)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        if not is_rsa:  # the exchange does not know it: that much is enough to see what it takes
            pem_path = scene.folder / "ed25519.pem"
            key = ed25519.Ed25519PrivateKey.generate()
            pem_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        stub = await scene.stub(
            await scene.quotes(groups=8),
            rest_url=f"https://localhost:{port}/trade-api/v2",
            ca_file=str(ca_file),
            pem_path=str(pem_path),
        )
        idle = most = memory_kb(stub.guardian)
        stub.process.send_signal(signal.SIGKILL)
        with trio.fail_after(10.0):
            while now := memory_kb(stub.guardian):
                most = max(most, now)
                await trio.sleep(0.002)
        await stub.all_gone(4.0)
        nursery.cancel_scope.cancel()
    print(f"on guard over TLS: {idle} kB, at most {most} kB")
    assert 0 < idle <= most < LIGHT_KB
    if is_rsa:
        assert await scene.resting() == set(FOREIGN)
    else:
        assert "refuses the key" in stub.log


def _localhost_tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """(of a server, whom to trust: all the world's authorities, and the one that signed it)."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(authority.cert_pem.bytes() + Path(certifi.where()).read_bytes())
    return context, ca_file


async def _forward(port: int, client: trio.SSLStream[trio.SocketStream]) -> None:
    """One TLS connection, passed on to the exchange."""

    async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                await sink.send_all(data)
        nursery.cancel_scope.cancel()

    async with await trio.open_tcp_stream("127.0.0.1", port) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server)
            nursery.start_soon(pump, server, client)
    await trio.aclose_forcefully(client)


def memory_kb(pid: int) -> int:
    """The most memory that a process ever had resident, in kB; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


async def test_people_are_told_when_it_had_to_act(scene: Scene) -> None:
    """One message to the webhook, which is not in the log."""
    bodies: list[bytes] = []
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve_webhook, nursery, bodies)
        port = listeners[0].socket.getsockname()[1]
        url = f"http://127.0.0.1:{port}/hook/the-secret-token"
        stub = await scene.stub(await scene.quotes(), webhook=url)
        stub.process.send_signal(signal.SIGKILL)
        await stub.all_gone(5.0)
        nursery.cancel_scope.cancel()
    assert len(bodies) == 1
    head, _, body = bodies[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook/the-secret-token HTTP/1.1")
    assert "nothing rests" in json.loads(body)["content"]
    assert "alert sent" in stub.log
    assert "secret-token" not in stub.log


async def _serve_webhook(
    nursery: trio.Nursery, bodies: list[bytes], *, task_status: trio.TaskStatus[list[trio.SocketListener]]
) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
            data += await stream.receive_some()
        bodies.append(data)
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    await trio.serve_tcp(handle, 0, host="127.0.0.1", handler_nursery=nursery, task_status=task_status)


def test_it_loads_nothing_heavy() -> None:
    """What the import rule cannot see, the interpreter does: `mm guard` comes around the command line."""
    command = [sys.executable, "-X", "importtime", "-m", "mm", "guard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, "the bot was gone before it said whom to guard" in done.stderr) == (1, True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "mm.guard.watch" in loaded
    heavy = {
        "trio",
        "httpx",
        "trio_websocket",
        "structlog",
        "attrs",
        "dataclasses",
        "inspect",
        "cryptography.hazmat.primitives.serialization",
        "cattrs",
        "orjson",
        "decouple",
        "asyncio",
        "logging",
    }
    heavy |= {
        "mm.cli",
        "mm.settings",
        "mm.session",
        "mm.tasks",
        "mm.views",
        "mm.ledger",
        "ssl",
        "http.client",
    }
    assert loaded & heavy == set()


def test_it_is_a_command_that_says_what_it_is_for() -> None:
    """In the list of commands, with a help of its own; typed at a terminal it explains itself and ends."""
    for arguments, words in ((["--help"], "guard"), (["guard", "--help"], "Started by mm run")):
        done = subprocess.run(
            [sys.executable, "-m", "mm", *arguments], capture_output=True, text=True, check=True
        )
        assert words in done.stdout
    terminal, end = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mm", "guard"], stdin=end, capture_output=True, text=True, check=False
        )
    finally:
        os.close(terminal)
        os.close(end)
    assert (done.returncode, "of no use by hand" in done.stderr) == (1, True)


async def _ended(pid: int, within_s: float) -> None:
    await eventually(lambda: not _runs(pid), f"process {pid} ends", within_s=within_s)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")

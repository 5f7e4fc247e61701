"""`mm exchange`: the embedded exchange as a program. Options, sockets, signals, the ready line, exit codes."""

import errno
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import attrs
import orjson
import trio

from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros, Money, parse_money
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.server.auth import make_keypair
from mm.exchange.embedded.server.faults import Faults
from mm.exchange.embedded.server.limits import PREFIX, TIERS
from mm.exchange.embedded.server.server import WS_PATH, ExchangeServer, open_exchange_server
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize
from mm.exchange.embedded.slate.recording import ReplayError
from mm.exchange.embedded.slate.replay import Replay
from mm.exchange.embedded.slate.source import MarketSource
from mm.exchange.embedded.slate.wide import WideSlate

SLATE_SPEED: Final = 10.0
WIDE_MARKETS: Final = 84_000
"""As many as the venue listed in autumn 2026."""
REPLAY_SPEED: Final = 1.0


@attrs.frozen(kw_only=True)
class ExchangeOptions:
    """What `mm exchange` was asked for."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    seed: int | None = None
    """None: a fresh one, told in the ready line."""
    speed: float | None = None
    """Game seconds per second (10), or recorded seconds per second of a replay (1)."""
    games: int = 16
    markets: int | None = None
    """Markets in all; None: two a game."""
    wide: bool = False
    """`markets` markets of many series instead of games: as wide as the real venue, and as dead."""
    replay: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """Serve a recording instead of a generated slate."""
    shards: int = 1
    """Over so many shards the games are spread; the balance too."""
    fee_flips: bool = False
    """Events' fees flip at puck drop, as baseball's do."""
    archive_after_s: float | None = None
    """Settled markets, trades and done orders move to the archive when they are so old; None: never."""
    infer_trades: bool = False
    """In a recording without trades a best level that shrinks counts as traded."""
    settle: bool = False
    """Markets of a recording that close are determined by their last book, and settle."""
    faults: str = ""
    tier: str = "basic"
    balance: str = "10000"
    """Dollars on the account, split over the shards that have markets."""
    ready_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    exit_with_fd: int | None = None
    """End when this inherited descriptor reads end-of-file: its last holder is gone."""
    key_kind: str = "rsa"
    """`rsa` or `ed25519`."""


@attrs.frozen(kw_only=True)
class Ready:
    """Where a running exchange is and who may trade there."""

    rest_url: str
    ws_url: str
    key_id: str
    private_key_path: Path
    tier: str
    port: int
    seed: int
    user_id: str

    def line(self) -> bytes:
        """The ready line, without its newline."""
        content = attrs.asdict(self) | {"private_key_path": str(self.private_key_path)}
        return orjson.dumps(content)


def wall_clock() -> Micros:
    """The time of day."""
    return Micros(time.time_ns() // 1_000)


def monotonic_clock() -> Callable[[], Micros]:
    """A wall clock that never goes back: a step of the system's clock must not undo what has happened."""
    last = wall_clock()

    def clock() -> Micros:
        nonlocal last
        last = max(last, wall_clock())
        return last

    return clock


def check_options(options: ExchangeOptions) -> tuple[Faults, Money]:
    """What the options mean. Raises `ConfigError` with every problem."""
    problems: list[str] = []
    faults = Faults(random=Random(options.seed))  # noqa: S311 - chances of faults, repeatable by seed
    try:
        faults.add_spec(options.faults)
    except ValueError as error:
        problems.append(f"--faults: {error}")
    if options.tier not in TIERS:
        problems.append(f"--tier: {options.tier!r} is none of {', '.join(TIERS)}")
    balance = Money(0)
    try:
        balance = parse_money(options.balance)
    except ValueError:
        problems.append(f"--balance: {options.balance!r} is no amount of dollars")
    if balance < 0:
        problems.append("--balance: must not be negative")
    if not 0 <= options.port <= 65_535:
        problems.append(f"--port: {options.port} is not between 0 and 65535")
    if options.archive_after_s is not None and options.archive_after_s < 0:
        problems.append("--archive-after: must not be negative")
    if options.exit_with_fd is not None:
        try:
            os.fstat(options.exit_with_fd)
        except OSError:
            problems.append(f"--exit-with-fd: {options.exit_with_fd} is not an open descriptor")
    if problems:
        raise ConfigError(problems)
    return faults, balance


def make_source(options: ExchangeOptions, seed: int) -> MarketSource:
    """The generated slate or the recording. Raises `ConfigError` for options, `ReplayError` for a bad recording."""
    try:
        if options.replay is not None:
            return Replay.load(
                options.replay,
                speed=REPLAY_SPEED if options.speed is None else options.speed,
                infers_trades=options.infer_trades,
                settles=options.settle,
            )
        if options.wide:
            return WideSlate(seed=seed, markets=options.markets or WIDE_MARKETS, shards=options.shards)
        return GeneratedSlate(
            seed=seed,
            speed=SLATE_SPEED if options.speed is None else options.speed,
            size=SlateSize(games=options.games, markets=options.markets),
            shards=options.shards,
            has_fee_flips=options.fee_flips,
        )
    except ValueError as error:
        raise ConfigError([str(error)]) from None


async def serve(
    options: ExchangeOptions,
    *,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the exchange on sockets; started with where it is, once markets and account are there. Never returns.

    Raises:
        ConfigError: Options that cannot be served, all of them named.
        ReplayError: The recording is damaged; names the line.
        OSError: The port cannot be had, or the key cannot be written.

    A cancellation closes every socket and removes the key file.
    """
    faults, balance = check_options(options)
    seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
    source = make_source(options, seed)
    listeners = await trio.open_tcp_listeners(options.port, host=options.host)
    folder = Path(tempfile.mkdtemp(prefix="mm-exchange-"))
    try:
        async with trio.open_nursery() as nursery:
            server = open_exchange_server(
                clock=monotonic_clock(),
                random=Random(seed),  # noqa: S311 - faults, repeatable by seed
                ids=UuidSource(SystemRandom().getrandbits(80)),
                tier=options.tier,
                games=source,
                faults=faults,
                date=lambda: formatdate(time.time() + faults.skew_ms / 1_000, usegmt=True),
            )
            if options.archive_after_s is not None:
                server.service.archive_after = Micros(int(options.archive_after_s * SECOND))
            await nursery.start(source.run, server.driver)
            nursery.start_soon(server.driver.run_timers)
            ready = _open_account(server, options, balance, folder, listeners, seed)
            await nursery.start(partial(trio.serve_listeners, server.serve_stream, listeners))
            task_status.started(ready)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_account(
    server: ExchangeServer,
    options: ExchangeOptions,
    balance: Money,
    folder: Path,
    listeners: list[trio.SocketListener],
    seed: int,
) -> Ready:
    """The member that may trade, its money and its key."""
    ids = server.new_id
    user_id, key_id = ids(), ids()
    server.add_account(user_id, _split(balance, server))
    pair = make_keypair(folder, key_id, kind=options.key_kind)
    server.add_key(key_id, user_id, pair.public_key)
    port = listeners[0].socket.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    return Ready(
        rest_url=f"http://{host}:{port}{PREFIX}",
        ws_url=f"ws://{host}:{port}{WS_PATH}",
        key_id=key_id,
        private_key_path=pair.private_key_path,
        tier=options.tier,
        port=port,
        seed=seed,
        user_id=user_id,
    )


def _split(balance: Money, server: ExchangeServer) -> dict[int, Money]:
    """Equal parts for the shards that have markets; what does not divide goes to the first."""
    shards = sorted({state.exchange_index for state in server.core.markets().values()}) or [0]
    part, rest = divmod(balance, len(shards))
    return {shard: Money(part + (rest if shard == shards[0] else 0)) for shard in shards}


async def run_exchange(options: ExchangeOptions) -> int:
    """`mm exchange`: serve until SIGINT, SIGTERM or the end of `exit_with_fd`. The exit code.

    The ready line goes to stdout and to the ready file, everything about a failed start to stderr.
    """
    problems: list[str] = []
    try:
        check_options(options)
    except ConfigError as error:
        return _complain(error.problems)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            stop = nursery.cancel_scope
            nursery.start_soon(_stop_on_signal, signals, stop)
            if options.exit_with_fd is not None:
                nursery.start_soon(_stop_at_end_of, options.exit_with_fd, stop)
            try:
                async with trio.open_nursery() as serving:
                    ready: Ready = await serving.start(serve, options)
                    _tell(ready, options.ready_file)
            except* (ConfigError, ReplayError) as group:
                problems.extend(text for error in _leaves(group) for text in str(error).splitlines())
            except* OSError as group:
                problems.extend(_told(options, error) for error in _leaves(group))
            stop.cancel(reason="the exchange has ended")
    return _complain(problems)


def _complain(problems: list[str]) -> int:
    """Say on stderr what was wrong, if anything; the exit code."""
    for problem in problems:
        sys.stderr.write(f"mm exchange: {problem}\n")
    return 1 if problems else 0


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors inside a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _told(options: ExchangeOptions, error: BaseException) -> str:
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    number = getattr(inner, "errno", None) or getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {options.port} on {options.host} is in use; choose another with --port, or 0 for a free one"
    return str(error)


def _tell(ready: Ready, ready_file: Path | None) -> None:
    """The ready line: in the file whole or not at all, then on stdout."""
    line = ready.line() + b"\n"
    if ready_file is not None:
        partial_file = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
        partial_file.write_bytes(line)
        os.replace(partial_file, ready_file)
    sys.stdout.write(line.decode("utf-8"))
    sys.stdout.flush()


async def _stop_on_signal(signals: AsyncIterator[int], stop: trio.CancelScope) -> None:
    async for number in signals:
        stop.cancel(reason=signal.Signals(number).name)
        return


async def _stop_at_end_of(descriptor: int, stop: trio.CancelScope) -> None:
    """Whoever started us holds the other end; when the last holder is gone there is nobody to serve."""
    async with trio.lowlevel.FdStream(os.dup(descriptor)) as held:
        while await held.receive_some(4096):
            pass
    stop.cancel(reason="the one who started this exchange is gone")

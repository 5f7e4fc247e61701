"""The guardian's process in a world without processes: its own code, whole, on greenlets instead of threads.

`mm.guard` blocks: it reads pipes and sockets, sleeps, waits for threads. Here each of its threads is a greenlet, and each
call that would block hands a coroutine to the trio task that carries the greenlet, which awaits it in virtual time.
So nothing of `mm.guard` is replaced but the modules through which it touches the machine (`os`, `select`, `socket`,
`threading`, `time`). A guardian is a life of its own: it goes on when the bot dies, and may be killed itself.
"""

import errno
import socket as real_socket
import time as real_time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, TypeVar, final
from unittest import mock

import attrs
import trio
from greenlet import getcurrent, greenlet

import mm.guard.http
import mm.guard.sweep
import mm.guard.venue
import mm.guard.watch
from mm.guard.watch import BotLine, Watch
from mm.simulation.lives import LIFE, Life
from mm.simulation.streams import MemoryStream
from mm.tasks.guardian_process import GuardianCommand, GuardianProcess

T = TypeVar("T")
PIPE_BYTES: Final = 65_536
"""What a pipe holds; a writer that does not wait is refused beyond it."""
_READ_FD: Final = 0
_WRITE_FD: Final = 1
_ERROR_FD: Final = 2


@final
@attrs.define(eq=False)
class OneWay(trio.abc.SendStream, trio.abc.ReceiveStream):
    """A pipe of the system: what was written can be read when the writer is gone."""

    data: bytearray = attrs.field(factory=bytearray)
    is_finished: bool = False
    """Nobody writes any more."""
    is_unread: bool = False
    """Nobody reads any more."""
    changed: trio.Event = attrs.field(factory=trio.Event)

    def wake(self) -> None:
        """Something changed: who waits looks again."""
        self.changed.set()
        self.changed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio."""
        await trio.lowlevel.checkpoint()
        while len(self.data) >= PIPE_BYTES and not self.is_unread:
            await self.changed.wait()
        if self.is_unread or self.is_finished:
            raise trio.BrokenResourceError("nobody reads this pipe")
        self.data += data
        self.wake()

    async def wait_send_all_might_not_block(self) -> None:
        """See trio."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio."""
        await trio.lowlevel.checkpoint()
        while not self.data and not self.is_finished:
            await self.changed.wait()
        return self.take(max_bytes or PIPE_BYTES)

    def take(self, most: int) -> bytes:
        """What is there, at most `most` bytes."""
        found = bytes(self.data[:most])
        del self.data[:most]
        self.wake()
        return found

    async def aclose(self) -> None:
        """See trio: either end."""
        self.is_finished = self.is_unread = True
        self.wake()
        await trio.lowlevel.checkpoint()


class Fiber(greenlet):
    """A thread of a guardian."""

    process: "SimulatedGuardian"


def _wait(call: Callable[[], Awaitable[T]]) -> T:
    """From the guardian's code: have something awaited by the task that carries this thread."""
    fiber = getcurrent()
    assert isinstance(fiber, Fiber)
    assert fiber.parent is not None
    result: T = fiber.parent.switch(call)
    return result


def _process() -> "SimulatedGuardian":
    fiber = getcurrent()
    assert isinstance(fiber, Fiber)
    return fiber.process


async def carry(fiber: Fiber, ended: trio.Event) -> None:
    """Run a thread of a guardian to its end, awaiting for it whatever it waits for."""
    wanted = fiber.switch()
    while not fiber.dead:
        try:
            result = await wanted()
        except BaseException as exc:  # noqa: BLE001 - it goes on in the thread, and out of it if nothing there minds
            wanted = fiber.throw(exc)
        else:
            wanted = fiber.switch(result)
    ended.set()


@final
@attrs.define(eq=False, kw_only=True)
class SimulatedGuardian:
    """See `mm.tasks.guardian_process.GuardianProcess`."""

    pid: int
    clock: Callable[[], int]
    """The machine's wall clock, microseconds."""
    dial: Callable[[str, int], Awaitable[MemoryStream]]
    note: Callable[[str], None]
    commands: OneWay = attrs.field(factory=OneWay)
    answers: OneWay = attrs.field(factory=OneWay)
    life: Life = attrs.field(init=False)
    ended: trio.Event = attrs.field(factory=trio.Event)
    is_ready: bool = False
    """It has said so."""
    exit_code: int | None = None
    _tasks: trio.Nursery | None = None
    _loop: greenlet | None = None
    """Where trio runs."""

    def __attrs_post_init__(self) -> None:
        self.life = Life(-self.pid, is_bot=False)

    async def run(self) -> None:
        """Its main thread, and those that it starts, in a task of the world."""
        LIFE.set(self.life)
        self._loop = getcurrent()
        try:
            await self._run()
        except BaseException:
            if not self.life.is_dead:  # else it is unwound when nobody looks any more
                raise

    async def _run(self) -> None:
        async with trio.open_nursery() as self._tasks:

            def main() -> None:
                watch = Watch(BotLine(_READ_FD, _WRITE_FD), trio.current_time)
                self.exit_code = watch.run()

            await carry(self.fiber(main), trio.Event())
            self._tasks.cancel_scope.cancel(reason="its main thread has ended")
        self._gone()

    def fiber(self, work: Callable[[], object]) -> Fiber:
        """One more thread, not started."""
        fiber = Fiber(work, self._loop)
        fiber.process = self
        return fiber

    def start_thread(self, work: Callable[[], object], ended: trio.Event) -> None:
        """Let one more thread run, in a task of its own."""
        assert self._tasks is not None
        self._tasks.start_soon(carry, self.fiber(work), ended, name="guardian's thread")

    def bot_died(self) -> None:
        """The system closes the bot's ends of both pipes."""
        self.commands.is_finished = self.answers.is_unread = True
        self.commands.wake()

    def kill(self) -> None:
        """See `GuardianProcess`."""
        if not self.ended.is_set():
            self.life.crash(reset=False)
            self._gone()

    def _gone(self) -> None:
        self.answers.is_finished = self.commands.is_unread = True
        self.answers.wake()
        self.commands.wake()
        self.ended.set()

    async def wait(self) -> None:
        """See `GuardianProcess`."""
        await self.ended.wait()

    def leave(self) -> None:
        """See `GuardianProcess`."""


@attrs.define(eq=False, kw_only=True)
class Guardians:
    """All guardians of a world. `serve` runs in a task of the world, so that they inherit nothing of the bot."""

    clock: Callable[[], int]
    dial: Callable[[str, int], Awaitable[MemoryStream]]
    note: Callable[[str], None]
    start_s: Callable[[], float]
    """How long the next one takes to start."""
    all: list[SimulatedGuardian] = attrs.field(factory=list)
    _new: "trio.MemorySendChannel[SimulatedGuardian]" = attrs.field(init=False)
    _queue: "trio.MemoryReceiveChannel[SimulatedGuardian]" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._new, self._queue = trio.open_memory_channel[SimulatedGuardian](1_000)

    async def serve(self) -> None:
        """Let every new one run. Never returns."""
        async with trio.open_nursery() as nursery:
            async for process in self._queue:
                nursery.start_soon(process.run, name=f"guardian {process.pid}")

    def spawner(self, life: Life) -> Callable[[GuardianCommand], Awaitable[GuardianProcess]]:
        """What starts guardians for a life of the bot."""

        async def spawn(command: GuardianCommand) -> GuardianProcess:
            del command
            await trio.sleep(self.start_s())
            process = SimulatedGuardian(
                pid=len(self.all) + 1, clock=self.clock, dial=self.dial, note=self.note
            )
            self.all.append(process)
            life.guardians.append(process)
            self._new.send_nowait(process)
            return process

        return spawn


# --- the machine, as the guardian sees it ---


class _Poll:
    def register(self, fd: int, events: int) -> None:
        """There is but one to look at."""

    def poll(self, timeout_ms: int) -> list[int]:
        """Wait for the bot's pipe."""
        pipe = _process().commands

        async def wait() -> bool:
            await trio.lowlevel.checkpoint()
            with trio.move_on_after(timeout_ms / 1_000):
                while not pipe.data and not pipe.is_finished:
                    await pipe.changed.wait()
            return bool(pipe.data) or pipe.is_finished

        return [_READ_FD] if _wait(wait) else []


def _read(fd: int, most: int) -> bytes:
    assert fd == _READ_FD
    return _process().commands.take(most)


def _write(fd: int, data: bytes) -> int:
    process = _process()
    if fd == _ERROR_FD:
        process.note(
            f"{trio.current_time():.6f} GUARDIAN {process.pid} {data.decode().rstrip().partition(' ')[2]}"
        )
        return len(data)
    if process.answers.is_unread:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    if len(process.answers.data) + len(data) > PIPE_BYTES:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    process.is_ready = process.is_ready or b'"ready"' in data
    process.answers.data += data
    process.answers.wake()
    return len(data)


class _Socket:
    def __init__(self, family: int, kind: int) -> None:
        del family, kind
        self._timeout_s = float("inf")
        self._stream: MemoryStream | None = None

    def settimeout(self, seconds: float) -> None:
        self._timeout_s = seconds

    def setsockopt(self, *what: int) -> None:
        del what

    def connect(self, address: tuple[Any, ...]) -> None:
        process = _process()
        self._stream = self._within(partial(process.dial, address[0], address[1]))
        process.life.streams.append(self._stream)

    def sendall(self, data: bytes) -> None:
        try:
            self._within(partial(self._open().send_all, data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe") from None

    def recv(self, most: int) -> bytes:
        try:
            return self._within(partial(self._open().receive_some, most))
        except trio.BrokenResourceError:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer") from None

    def close(self) -> None:
        if self._stream is not None:
            self._stream.abort(reset=False)

    def _open(self) -> MemoryStream:
        assert self._stream is not None
        return self._stream

    def _within(self, call: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            with trio.fail_after(max(0.0, self._timeout_s)):
                return await call()

        try:
            return _wait(bounded)
        except trio.TooSlowError:
            raise TimeoutError("timed out") from None


class _Event:
    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        async def bounded() -> bool:
            with trio.move_on_after(float("inf") if timeout is None else max(0.0, timeout)):
                await self._event.wait()
            return self._event.is_set()

        return _wait(bounded)


class _Thread:
    def __init__(
        self, *, target: Callable[..., object], args: tuple[Any, ...] = (), daemon: bool = False
    ) -> None:
        del daemon
        self._work = partial(target, *args)
        self._ended = trio.Event()

    def start(self) -> None:
        _process().start_thread(self._work, self._ended)

    def join(self, timeout: float | None = None) -> None:
        async def bounded() -> None:
            with trio.move_on_after(float("inf") if timeout is None else max(0.0, timeout)):
                await self._ended.wait()

        _wait(bounded)


def _time_us() -> int:
    return _process().clock()


@contextmanager
def on_greenlets() -> Iterator[None]:
    """While the block runs, `mm.guard` sees the simulated machine."""
    clock = SimpleNamespace(
        monotonic=trio.current_time,
        time=lambda: _time_us() / 1e6,
        time_ns=lambda: _time_us() * 1_000,
        sleep=lambda seconds: _wait(partial(trio.sleep, seconds)),
        gmtime=real_time.gmtime,
        strftime=real_time.strftime,
    )
    threads = SimpleNamespace(Thread=_Thread, Event=_Event)
    system = SimpleNamespace(
        read=_read, write=_write, getpid=lambda: _process().pid, set_blocking=lambda fd, is_blocking: None
    )
    look = SimpleNamespace(poll=_Poll, POLLIN=1, POLLHUP=16, POLLERR=8)
    names = ("AF_INET", "AF_INET6", "SOCK_STREAM", "IPPROTO_TCP", "TCP_NODELAY", "inet_pton", "getaddrinfo")
    sockets = SimpleNamespace(socket=_Socket, **{name: getattr(real_socket, name) for name in names})
    with (
        mock.patch.multiple(mm.guard.watch, os=system, select=look, time=clock),
        mock.patch.multiple(mm.guard.sweep, threading=threads, time=clock),
        mock.patch.multiple(mm.guard.http, threading=threads, socket=sockets, time=clock),
        mock.patch.object(mm.guard.venue, "time", clock),
    ):
        yield

"""Starting a guardian as a process of its own: the one place where the bot forks it.

The key goes over the pipe, never into arguments or environment, and of the bot's environment (which may hold the key
in `KALSHI_API_SECRET`) only what Python and TLS need is handed on.
"""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, final

import attrs
import trio

import mm

_HANDED_ON: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "LANG",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


class GuardianProcess(Protocol):
    """A started guardian as the bot sees it: two streams and a way to end it."""

    @property
    def pid(self) -> int:
        """Its process id, for messages."""

    @property
    def commands(self) -> trio.abc.SendStream:
        """What the bot tells it. Closed without a goodbye it acts."""

    @property
    def answers(self) -> trio.abc.ReceiveStream:
        """What it says. Ends when it ends."""

    def kill(self) -> None:
        """End it at once, so that it does not act. Harmless when it has ended."""

    async def wait(self) -> None:
        """Return when it has ended and is reaped. May be cancelled."""

    def leave(self) -> None:
        """It stays at work when the bot ends: nobody will wait for it."""


@attrs.frozen(kw_only=True)
class GuardianCommand:
    """How a guardian process is started."""

    log_path: Path | None = None
    """Its log (appended to); None discards it."""
    keep_fds: Sequence[int] = ()
    """Descriptors that it holds open, under the same numbers, until it ends."""


Spawn = Callable[[GuardianCommand], Awaitable[GuardianProcess]]
"""Starts a guardian. Raises `OSError`. Must not leave a process behind when it is cancelled."""


@final
@attrs.define(eq=False)
class ChildProcess:
    """A guardian that runs as a child of this process, in a session of its own."""

    commands: trio.abc.SendStream
    answers: trio.abc.ReceiveStream
    _popen: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        """See `GuardianProcess`."""
        return self._popen.pid

    def kill(self) -> None:
        """See `GuardianProcess`."""
        self._popen.kill()

    async def wait(self) -> None:
        """See `GuardianProcess`."""
        # The answers have ended before anybody waits here, so this turns a few times at most.
        while self._popen.poll() is None:
            await trio.sleep(0.01)

    def leave(self) -> None:
        """See `GuardianProcess`."""
        if self._popen.poll() is None:
            self._popen.returncode = 0  # else its destructor would warn about a child that still runs


async def spawn_guardian(command: GuardianCommand) -> GuardianProcess:
    """Start `mm guard`. Blocks in a worker thread for the fork; not abandoned by a cancellation."""
    popen = await trio.to_thread.run_sync(_start, command)
    assert popen.stdin is not None
    assert popen.stdout is not None
    # The streams own their descriptors from here; the files around them must not close them a second time.
    writes, reads = os.dup(popen.stdin.fileno()), os.dup(popen.stdout.fileno())
    popen.stdin.close()
    popen.stdout.close()
    return ChildProcess(trio.lowlevel.FdStream(writes), trio.lowlevel.FdStream(reads), popen)


def _start(command: GuardianCommand) -> "subprocess.Popen[bytes]":
    package_parent = str(Path(mm.__file__).resolve().parent.parent)
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    environment["MALLOC_ARENA_MAX"] = "1"  # its threads share one heap
    arguments = [sys.executable, "-P", "-m", "mm", "guard"]
    log = subprocess.DEVNULL
    opened = -1
    try:
        if command.log_path is not None:
            command.log_path.parent.mkdir(parents=True, exist_ok=True)
            log = opened = os.open(
                command.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd="/",  # it holds no folder that somebody may want to remove
            start_new_session=True,  # Ctrl-C and the closing of the terminal do not reach it
            pass_fds=tuple(command.keep_fds),
            bufsize=0,
        )
    finally:
        if opened >= 0:
            os.close(opened)

"""A terminal for a process under test, which can be hung up like a closed window."""

import fcntl
import os
import pty
import termios
from collections.abc import Callable

import attrs
import trio


@attrs.define(eq=False)
class Terminal:
    """A pseudo terminal. What is written to it is read away, so that nobody waits for it."""

    master: int
    slave: int
    said: bytearray = attrs.field(factory=bytearray)

    @classmethod
    def open(cls, columns: int = 100, lines: int = 30) -> "Terminal":
        """A fresh one of that size."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (lines, columns))
        os.set_blocking(master, False)
        return cls(master, slave)

    def adopt(self) -> Callable[[], None]:
        """For `preexec_fn` of a process that has its own session: it gets this as its controlling terminal."""
        slave = self.slave
        return lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    def started(self) -> None:
        """The process has its own copies of the slave."""
        os.close(self.slave)

    async def drain(self) -> None:
        """Read what is written, until it is hung up. For a nursery."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self.master)
                self.said += os.read(self.master, 65_536)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return

    def hang_up(self) -> None:
        """Close the window."""
        trio.lowlevel.notify_closing(self.master)
        os.close(self.master)

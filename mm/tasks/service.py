"""What a service manager (systemd) is told: ready, reloading, stopping, and again and again: alive.

The protocol is `sd_notify(3)`: datagrams of NAME=VALUE lines. The heartbeat is sent by a task on the event loop itself, so
it stops exactly when the loop does; whoever watches then kills the process, and the guardian takes the orders off.
"""

from collections.abc import Callable
from typing import Final, NoReturn, final

import attrs
import trio

BEATS: Final = 3
"""Heartbeats within the time that the manager waits for one."""


@final
@attrs.define(eq=False, kw_only=True)
class ServiceManager:
    """Plain calls that never wait and never raise, and the heartbeat as a task."""

    send: Callable[[bytes], None] = attrs.field(repr=False)
    """Brings one datagram to the manager, or drops it."""
    watchdog_s: float | None = None
    """How long the manager waits for a sign of life; None: it does not watch."""
    monotonic: Callable[[], int] = lambda: 0
    """CLOCK_MONOTONIC in microseconds, which a reload is told with."""

    def ready(self, status: str) -> None:
        """The start, or a reload, is over."""
        self.send(f"READY=1\nSTATUS={_line(status)}".encode())

    def reloading(self) -> None:
        """Settings are being read anew; `ready` follows."""
        self.send(f"RELOADING=1\nMONOTONIC_USEC={self.monotonic()}".encode())

    def stopping(self, reason: str) -> None:
        """Orders are being taken off."""
        self.send(f"STOPPING=1\nSTATUS={_line(reason)}".encode())

    async def run(self) -> NoReturn:
        """Beat for ever."""
        if self.watchdog_s is None:
            await trio.sleep_forever()
        while True:
            self.send(b"WATCHDOG=1")
            await trio.sleep(self.watchdog_s / BEATS)


def _line(text: str) -> str:
    return " ".join(text.split())

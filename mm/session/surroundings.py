"""What a session takes from the world: clock, randomness, connections, a runner for blocking work.

Everything below the session gets these from here and from nowhere else, so that a simulation can give others.
"""

import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from mm.domain.numbers import Micros
from mm.ledger import Runner
from mm.ledger.store import Connect, connect_sqlite
from mm.session.service_socket import service_manager
from mm.tasks.guardian_process import Spawn, spawn_guardian
from mm.tasks.service import ServiceManager

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Surroundings:
    """The outside, injected."""

    clock: Callable[[], Micros]
    """Wall clock."""
    randomness: random.Random
    """For jitter: nothing that must not be guessed."""
    random_below: Callable[[int], int]
    """For session ids: must not repeat over restarts."""
    connect: Callable[[str, int], Awaitable[trio.abc.Stream]]
    runner: Runner
    transport: "httpx.AsyncBaseTransport | None" = None
    """What httpx sends through beside trading; None: sockets."""
    signing_runner: Runner | None = None
    """Makes signatures ahead, beside the ledger's runner; None: in the loop itself."""
    alert_transport: "httpx.AsyncBaseTransport | None" = None
    mail_runner: Runner | None = None
    """Runs what talks to a mail server, beside the ledger's runner; may leave a thread behind when cancelled."""
    file_runner: Runner | None = None
    """Runs the writes of the decision journal, beside the ledger's; None: there is no such journal (simulation)."""
    spawn_guardian: Spawn | None = None
    """Starts the guardian's process; None: no guardian (simulation has its own)."""
    service: ServiceManager | None = None
    """Who is told that we are alive; None: nobody asked."""
    connect_ledger: Connect = connect_sqlite
    """Opens the ledger's file."""


def wall_clock() -> Micros:
    """The machine's clock in `Micros`."""
    return Micros(time.time_ns() // 1_000)


async def connect_tcp(host: str, port: int) -> trio.abc.Stream:
    """A TCP stream without Nagle's delay. Raises `OSError`."""
    return await trio.open_tcp_stream(host, port)


@attrs.frozen
class ThreadRunner:
    """Runs blocking work in a worker thread, one piece at a time."""

    limiter: trio.CapacityLimiter
    leaves_behind: bool = False
    """A cancellation does not wait for the work: not for what must be known to have been done."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """See `mm.ledger.Runner`."""
        return await trio.to_thread.run_sync(work, limiter=self.limiter, abandon_on_cancel=self.leaves_behind)


def live_surroundings() -> Surroundings:
    """Sockets, threads, the machine's clock. Call it inside `trio.run`, once: what a service manager put into the
    environment is taken out of it."""
    return Surroundings(
        clock=wall_clock,
        randomness=random.Random(),  # noqa: S311 - jitter
        random_below=secrets.randbelow,
        connect=connect_tcp,
        runner=ThreadRunner(trio.CapacityLimiter(1)),
        signing_runner=ThreadRunner(trio.CapacityLimiter(1)),
        mail_runner=ThreadRunner(trio.CapacityLimiter(1), leaves_behind=True),
        file_runner=ThreadRunner(trio.CapacityLimiter(1)),
        spawn_guardian=spawn_guardian,
        service=service_manager(os.environ),
    )

"""Signals: the first asks to stop, with its name as the reason; later ones change nothing. SIGHUP may mean: reload."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_signals(
    received: AsyncIterator[int],
    stop: Callable[[str], None],
    reload: Callable[[], Awaitable[None]] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `stop` at the first signal. Never returns; a second Ctrl-C must not cut the sweep short.

    Args:
        received: An open `trio.open_signal_receiver`, held open by the caller through all of the cleanup.
        stop: Ends trading.
        reload: What SIGHUP asks for where no terminal can hang up; None: it stops like the others.
    """
    task_status.started()
    asked = False
    async for number in received:
        name = signal.Signals(number).name
        if asked:
            log.warning("already stopping: taking orders off comes first", signal=name)
            continue
        if number == signal.SIGHUP and reload is not None:
            await reload()
            continue
        asked = True
        stop(name)

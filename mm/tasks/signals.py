"""Signals: the first asks to stop, with its name as the reason; later ones change nothing."""

import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_signals(
    received: AsyncIterator[int],
    stop: Callable[[str], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `stop` at the first signal. Never returns; a second Ctrl-C must not cut the sweep short.

    `received` is an open `trio.open_signal_receiver`, held open by the caller through all of the cleanup.
    """
    task_status.started()
    asked = False
    async for number in received:
        name = signal.Signals(number).name
        if asked:
            log.warning("already stopping: taking orders off comes first", signal=name)
            continue
        asked = True
        stop(name)

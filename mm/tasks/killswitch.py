"""The kill switch for people: a file in the data folder. While it is there nothing new is quoted, and exits go on.

It needs no running shell of ours, no key and no tool: `touch STOP_QUOTING` by anybody who may write to the folder.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn, Protocol

import attrs
import structlog
import trio

log = structlog.get_logger(__name__)

FILE_NAME: Final = "STOP_QUOTING"
PERIOD_S: Final = 1.0


class Runner(Protocol):
    """Runs blocking work off the event loop."""

    def __call__(self, work: Callable[[], str], /) -> Awaitable[str]: ...


def why_off(folder: Path) -> str:
    """Why the folder says that nothing new may be quoted; empty when it does not. Blocks on the disk."""
    try:
        is_there = (folder / FILE_NAME).exists()
    except OSError as exc:  # who cannot look does not know that it is allowed
        return f"cannot look for {FILE_NAME} in {folder}: {exc.strerror}"
    return f"the file {FILE_NAME} is in {folder}" if is_there else ""


@attrs.define(eq=False, kw_only=True)
class KillSwitch:
    """Looks for the file once a second."""

    folder: Path
    runner: Runner
    on_change: Callable[[str], None]
    """Told why quoting is off, or the empty string when it is allowed again."""
    why: str = ""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Look for ever; started once the first look is done, so that nothing is quoted before it."""
        await self._look()
        task_status.started()
        while True:
            await trio.sleep(PERIOD_S)
            await self._look()

    async def _look(self) -> None:
        why = await self.runner(lambda: why_off(self.folder))
        if why != self.why:
            self.why = why
            log.warning("kill switch", quoting="off" if why else "allowed", why=why)
            self.on_change(why)

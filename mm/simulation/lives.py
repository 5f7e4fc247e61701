"""Lives of bot and guardian: which tasks belong to one, how it is killed to the step, and the trace of what runs.

A crash freezes: from the next step on not one more instruction of the life runs, shielded cleanup included. At the
end of the world the frozen tasks are torn down by an exception at every step, when nobody looks any more. A life may
also be frozen for a while (SIGSTOP, a starved machine): its tasks then go on where they stood.
"""

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import structlog
import trio
from trio._core._traps import WaitTaskRescheduled

from mm.simulation.streams import MemoryStream

if TYPE_CHECKING:
    from mm.simulation.guardians import SimulatedGuardian

MOST_STEPS: Final = 1_000_000
"""A long world takes about 50,000."""
LIFE: "ContextVar[Life | None]" = ContextVar("life", default=None)
"""Set in the tasks of a bot's life; server and world tasks have none."""


class Killed(BaseException):
    """Unwinds the tasks of a dead life once the world is over."""


@attrs.define(eq=False)
class Life:
    """One run of the bot or of a guardian, from its start to its end or its crash."""

    number: int
    is_bot: bool = True
    is_dead: bool = False
    is_frozen: bool = False
    began_at: float = 0.0
    streams: list[MemoryStream] = attrs.field(factory=list)
    sockets: list[MemoryStream] = attrs.field(factory=list)
    """Those of them that are WebSockets."""
    parked: list[trio.lowlevel.Task] = attrs.field(factory=list)
    steps: int = 0
    prefix: str = ""
    """Of its session's orders; empty before it traded."""
    guardians: "list[SimulatedGuardian]" = attrs.field(factory=list)
    """Those that it started."""
    _frozen: list[tuple[trio.lowlevel.Task, Any, Any]] = attrs.field(factory=list)

    def crash(self, *, reset: bool) -> None:
        """Kill it now; call from a task that is not of this life."""
        self.is_dead = True
        self.parked += [task for task, _, _ in self._frozen]
        self._frozen.clear()
        for stream in self.streams:
            stream.abort(reset=reset)
        for guardian in self.guardians:
            guardian.bot_died()

    def hold(self, task: trio.lowlevel.Task) -> None:
        """Instead of a step of a frozen life: keep what the step was to begin with."""
        self._frozen.append((task, task._next_send_fn, task._next_send))
        task._next_send_fn, task._next_send = _park, None

    def thaw(self) -> None:
        """Its tasks go on where they stood."""
        self.is_frozen = False
        frozen, self._frozen = self._frozen, []
        for task, send, what in frozen:
            trio.lowlevel.reschedule(task)
            task._next_send_fn, task._next_send = send, what


@final
@attrs.define(eq=False)
class Recorder(trio.abc.Instrument):
    """Freezes dead lives, and hashes (task, virtual time) of every step and every byte on the wire."""

    digest: Any = attrs.field(factory=hashlib.sha256)
    steps: int = 0
    wire_bytes: int = 0
    is_over: bool = False
    on_too_many: Callable[[], None] = lambda: None
    """Called when the world has taken `MOST_STEPS`: something loops hot."""
    write: Callable[[str], None] | None = None
    """Gets the trace as text; None keeps only its hash."""
    on_step: Callable[[str], None] | None = None
    """Called before each step of a bot that lives, with the task's name; it may kill the bot."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Before every step of every task."""
        life = task.context.get(LIFE)
        if life is not None and self.on_step is not None and life.is_bot and not life.is_dead:
            self.on_step(task.name)
        if life is not None and life.is_dead:
            self._stop(task, life)
            return
        if life is not None and life.is_frozen:
            life.hold(task)
            return
        self.steps += 1
        if self.steps == MOST_STEPS:
            self.on_too_many()
        if life is not None:
            life.steps += 1
        self.note(f"{trio.current_time():.6f} {task.name}")

    def note(self, line: str) -> None:
        """Enter a line into the trace."""
        self.digest.update(line.encode())
        if self.write is not None:
            self.write(line)

    def log(self, logger: object, name: str, event: Any) -> Any:
        """A structlog processor: what the bot logs goes into the text of the trace, not into its hash."""
        del logger
        if self.write is not None:
            fields = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
            self.write(f"{trio.current_time():.6f} LOG {name} {event.get('event')} {fields}")
        raise structlog.DropEvent

    def on_bytes(self, name: str, data: bytes) -> None:
        """Bytes were sent."""
        self.wire_bytes += len(data)
        self.digest.update(name.encode())
        self.digest.update(data)
        if self.write is not None:
            self.write(f"{trio.current_time():.6f} {name} {data!r}")

    def release(self, life: Life) -> None:
        """The verdict is in: unwind what was frozen."""
        parked, life.parked = life.parked, []
        for task in parked:
            trio.lowlevel.reschedule(task)

    def _stop(self, task: trio.lowlevel.Task, life: Life) -> None:
        if self.is_over:
            nurseries = task.child_nurseries
            if nurseries and nurseries[-1]._closed:
                return  # its children are gone; an exception here would leave the nursery on trio's books
            task._next_send_fn, task._next_send = task.coro.throw, Killed()
            return
        life.parked.append(task)
        task._next_send_fn, task._next_send = _park, None


def _park(_: object) -> WaitTaskRescheduled:
    """What a step of a dead task does instead: wait for ever, deaf to cancellation."""
    return WaitTaskRescheduled(lambda raise_cancel: trio.lowlevel.Abort.FAILED)


def tasks_of(life: Life) -> list[str]:
    """Names of the tasks that belong to a life, wherever in the tree they hang; not the calling one."""
    here = trio.lowlevel.current_task()
    root = trio.lowlevel.current_root_task()
    waiting, found = [root] if root is not None else [], []
    while waiting:
        task = waiting.pop()
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        if task is not here and task.context.get(LIFE) is life:
            found.append(task.name)
    return sorted(found)

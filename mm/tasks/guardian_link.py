"""The line to one guardian process: what is said to it, what it says, and whether it is still there."""

from collections import deque
from typing import Final

import attrs
import structlog
import trio

from mm.domain.order import GroupId
from mm.guard.protocol import BadMessage, LineSplitter, Message, decode, encode
from mm.tasks.guardian_process import GuardianProcess

log = structlog.get_logger(__name__)

REAP_S: Final = 1.0
"""How long an ended guardian may take to be gone before it is killed."""
_CHUNK: Final = 65_536


@attrs.define(eq=False)
class GuardianLink:
    """One guardian. `tend` must be running; everything else is synchronous and harmless once it has ended."""

    process: GuardianProcess
    ready: trio.Event = attrs.field(factory=trio.Event)
    """It has understood the hello and loaded the key."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    """It is gone and reaped (or was left at work)."""
    reason: str = ""
    """Why it ended, as far as it is known."""
    acting_after_s: float | None = None
    """It has begun to pull our orders, after so long a silence."""
    heard_at: float = attrs.field(factory=trio.current_time)
    is_left: bool = False
    """It is to stay at work when we go."""
    _outbox: deque[bytes] = attrs.field(factory=deque)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _acks: dict[GroupId, trio.Event] = attrs.field(factory=dict)
    _news: trio.Event = attrs.field(factory=trio.Event)

    def send(self, line: bytes) -> None:
        """Queue a line; it is on its way with the next step of the loop."""
        if not self.ended.is_set():
            self._outbox.append(line)
            self._wake.set()

    def send_group(self, group_id: GroupId, exchange_index: int) -> trio.Event:
        """Tell it a group; the event is set when it knows."""
        event = self._acks.setdefault(group_id, trio.Event())
        self.send(encode("group", id=group_id, exchange_index=exchange_index))
        return event

    def forget(self, group_id: GroupId) -> None:
        """It need not guard this group any longer."""
        self._acks.pop(group_id, None)
        self.send(encode("forget", id=group_id))

    def kill(self, reason: str) -> None:
        """End it before it acts on the silence of a bot that lives."""
        self.reason = self.reason or reason
        self.process.kill()

    async def wait_news(self) -> None:
        """Return when it began to act, became ready or ended."""
        await self._news.wait()

    async def tend(self) -> None:
        """Carry lines both ways until it ends. Cancelled: it is killed, unless it `is_left` at work."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel(reason="the guardian has ended")
            await self._reap()
        finally:
            if self.is_left:
                self.process.leave()
            else:
                self.process.kill()
            with trio.CancelScope(shield=True):
                # Only now: the end of the commands without a goodbye makes a guardian act.
                await trio.aclose_forcefully(self.process.commands)
                await trio.aclose_forcefully(self.process.answers)
            if not self.is_left:
                with trio.move_on_after(REAP_S, shield=True):
                    await self.process.wait()
            self.ended.set()
            self._tell()

    async def _reap(self) -> None:
        with trio.move_on_after(REAP_S):
            await self.process.wait()
            return
        self.kill("closed its answers, but did not end")
        await self.process.wait()

    async def _write(self) -> None:
        try:
            while True:
                while self._outbox:
                    data = b"".join(self._outbox)
                    self._outbox.clear()
                    await self.process.commands.send_all(data)
                self._wake = trio.Event()
                await self._wake.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.reason = self.reason or "takes no more messages"

    async def _read(self) -> None:
        splitter = LineSplitter()
        try:
            while data := await self.process.answers.receive_some(_CHUNK):
                self.heard_at = trio.current_time()
                for line in splitter.feed(bytes(data)):
                    self._hear(*decode(line))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except BadMessage as exc:
            log.error("guardian not understood", pid=self.process.pid, problem=str(exc))
            self.kill(f"not understood: {exc}")
        self.reason = self.reason or "its process ended"

    def _hear(self, kind: str, message: Message) -> None:
        if kind == "beat":
            return
        if kind == "ready":
            self.ready.set()
        elif kind == "group":
            self._acks.setdefault(GroupId(message["id"]), trio.Event()).set()
        elif kind == "acting":
            self.acting_after_s = float(message.get("silent_s", 0.0))
            self.reason = self.reason or "it pulled our orders"
            log.error("guardian acts", pid=self.process.pid, silent_s=self.acting_after_s)
        elif kind == "done":
            log.warning("guardian is through", pid=self.process.pid, proven=message.get("proven"))
        elif kind == "refused":
            self.reason = str(message.get("reason", "it refused"))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

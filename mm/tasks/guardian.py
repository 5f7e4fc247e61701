"""The guardian as the bot sees it: a small process that pulls our orders when this one dies or freezes.

It is told every order group before the group's first order, and a beat of the event loop four times a second. When the
beats or the pipe end without a goodbye, it triggers the groups and sweeps what rests under the session's prefix
(`mm.guard`). Here it is started, fed, watched and replaced. While there is none, the bot must not quote.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn, Protocol
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from mm.domain.numbers import SECOND, Micros
from mm.domain.order import GroupId
from mm.exchange.port import ExchangeUnavailable
from mm.guard.protocol import Address, Budget, Hello, encode, encode_hello
from mm.tasks.guardian_link import GuardianLink
from mm.tasks.guardian_process import GuardianCommand, Spawn, spawn_guardian

log = structlog.get_logger(__name__)

GOODBYE_S: Final = 2.0
"""A guardian that was dismissed ends within this, or is killed."""
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_CAP_S: Final = 2.0


class GuardianGone(ExchangeUnavailable):
    """There is no guardian and none could be started in time: nothing may be quoted. May be tried again."""


class Hidden(Protocol):
    """A secret that never shows itself."""

    def reveal(self) -> str:
        """The value."""


@attrs.frozen(kw_only=True)
class GuardianConfig:
    """Whom and how to guard. Times are seconds."""

    rest_url: str
    """Base of the REST interface, as in `KALSHI_REST_URL`."""
    key_id: str
    key: Hidden
    """The private key in the form that the guardian reads (`portable_key`), or as PEM."""
    prefix: str
    """The session's prefix of order ids."""
    subaccount: int = 0
    log_path: Path | None = None
    budget: Budget = attrs.field(factory=Budget)
    webhook_url: Hidden | None = None
    """Where its last word goes, when it had to act."""
    ca_file: str | None = None
    """Absolute path of the certificates to trust; the system's without."""
    keep_fds: tuple[int, ...] = ()
    """Descriptors that every guardian holds open until it ends. They stay the caller's."""
    beat_s: float = 0.25
    silence_s: float = 2.0
    """Without a beat for so long the guardian acts; a gap so long in our own beats means that it has."""
    deaf_s: float = 3.0
    """A guardian that answers no beat for so long is replaced."""
    start_s: float = 5.0
    """A guardian not ready after so long has failed."""
    acknowledge_s: float = 3.0
    """How long a group waits for a guardian, restarts included."""
    time_limit_s: float = 60.0
    """It gives up this long after it began to act. Best not shorter than the time to live of a quote."""


def _ignore(_: object) -> None:
    return


def _ignore_it() -> None:
    return


@attrs.define(eq=False)
class Guardian:
    """The link to whichever guardian is on duty. Made by `open_guardian`; `run` must be running.

    The callbacks are synchronous and called from its tasks. They may be replaced at any time.
    """

    config: GuardianConfig
    clock: Callable[[], Micros]
    spawn: Spawn
    on_lost: Callable[[str], None] = _ignore
    """There is no guardian (with the reason): stop quoting."""
    on_back: Callable[[], None] = _ignore_it
    """There is one again, and it knows every group."""
    on_frozen: Callable[[float], None] = _ignore
    """We did not run for so many seconds, so the guardian fenced us: assume it, recover before quoting."""
    restarts: int = 0
    _hello: bytes = attrs.field(init=False, repr=False)
    _groups: dict[GroupId, int] = attrs.field(factory=dict, init=False)
    _on_duty: GuardianLink | None = attrs.field(default=None, init=False)
    _links: list[GuardianLink] = attrs.field(factory=list, init=False)
    """Every guardian that has not ended: the one on duty, and spent ones on their way out."""
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _tasks: trio.Nursery | None = attrs.field(default=None, init=False)
    _beats: int = attrs.field(default=0, init=False)
    _froze_at: float = attrs.field(default=float("-inf"), init=False)
    _is_closing: bool = attrs.field(default=False, init=False)
    _was_used: bool = attrs.field(default=False, init=False)
    """A group was acknowledged: orders may have been placed."""

    def __attrs_post_init__(self) -> None:
        self._hello = encode_hello(_hello_of(self.config))

    @property
    def is_on_duty(self) -> bool:
        """Whether a guardian watches that knows every group."""
        return self._on_duty is not None

    @property
    def pid(self) -> int | None:
        """Process id of the one on duty."""
        return None if self._on_duty is None else self._on_duty.process.pid

    async def acknowledge(self, group_id: GroupId, exchange_index: int) -> None:
        """Return when a guardian knows the group. Only then may orders go into it.

        Raises `GuardianGone` when there is none for `acknowledge_s`. Failed or cancelled, the group stays among those
        guarded, which is harmless.
        """
        self._groups[group_id] = exchange_index
        with trio.move_on_after(self.config.acknowledge_s):
            while not self._is_closing:
                changed, link = self._changed, self._on_duty
                if link is None:
                    await changed.wait()
                    continue
                known = link.send_group(group_id, exchange_index)
                while not known.is_set() and link is self._on_duty:
                    await _first_of(known, self._changed)
                if known.is_set() and link is self._on_duty:
                    self._was_used = True
                    return
        raise GuardianGone(
            f"no guardian took order group {group_id} in time ({self.config.acknowledge_s:g} s)"
        )

    def forget(self, group_id: GroupId) -> None:
        """The group was triggered or deleted, proven: it need not be guarded any longer."""
        if self._groups.pop(group_id, None) is not None and self._on_duty is not None:
            self._on_duty.forget(group_id)

    async def goodbye(self) -> None:
        """Nothing of ours rests, proven: dismiss every guardian and wait until it is gone.

        Shielded, at most a few seconds. No guardian is started afterwards, and no group acknowledged.
        """
        self._is_closing = True
        with trio.CancelScope(shield=True):
            await self._dismiss(list(self._links))
        self._set_duty(None)

    async def run(self) -> NoReturn:
        """Replace every guardian that is lost. Cancelled: the present one stays on duty, and none follows it."""
        delay = _BACKOFF_FIRST_S
        while True:
            changed = self._changed
            if self._on_duty is not None or self._is_closing:
                await changed.wait()
                continue
            spent = list(self._links)
            try:
                await self._take_on()
            except GuardianGone as exc:
                log.error("guardian cannot be started", error=str(exc), again_in_s=delay)
                await trio.sleep(delay)
                delay = min(2 * delay, _BACKOFF_CAP_S)
                continue
            delay = _BACKOFF_FIRST_S
            self.restarts += 1
            log.warning("guardian is back", pid=self.pid, groups=len(self._groups))
            self.on_back()
            assert self._tasks is not None
            # A guardian that took us for dead may still be at work: from here on ours looks after everything.
            self._tasks.start_soon(self._dismiss, spent)

    # --- inside ---

    async def _take_on(self) -> None:
        """Start a guardian and tell it everything. Raises `GuardianGone`. Cancelled, nothing of it is left."""
        assert self._tasks is not None
        command = GuardianCommand(log_path=self.config.log_path, keep_fds=self.config.keep_fds)
        try:
            process = await self.spawn(command)
        except OSError as exc:
            raise GuardianGone(f"the guardian cannot be started: {exc}") from exc
        link = GuardianLink(process)
        self._links.append(link)
        self._tasks.start_soon(self._tend, link)
        link.send(self._hello)
        known = [link.ready, *(link.send_group(group, index) for group, index in self._groups.items())]
        try:
            with trio.move_on_after(self.config.start_s):
                for event in known:
                    await _first_of(event, link.ended)
                if not link.ended.is_set() and link.acting_after_s is None:
                    link.heard_at = trio.current_time()
                    self._set_duty(link)
        finally:
            if link is not self._on_duty:
                link.kill(f"not ready within {self.config.start_s:g} s")
        if link is not self._on_duty:
            raise GuardianGone(f"the guardian did not start: {link.reason}")

    async def _tend(self, link: GuardianLink) -> None:
        """Look after one guardian until it ends; tell when it was the one on duty."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, link)
            await link.tend()
            nursery.cancel_scope.cancel(reason="the guardian has ended")
        self._links.remove(link)
        if link is self._on_duty:
            if link.acting_after_s is None:
                self._lose(link.reason)
            else:
                self._froze(link.acting_after_s)

    async def _watch(self, link: GuardianLink) -> None:
        while link.acting_after_s is None:
            await link.wait_news()
        if link is self._on_duty:
            self._froze(link.acting_after_s)

    async def _beat(self) -> NoReturn:
        """Say that the loop turns, and find out when it did not."""
        seen, wall = trio.current_time(), self.clock()
        while True:
            await trio.sleep(self.config.beat_s)
            before, wall_before = seen, wall
            seen, wall = trio.current_time(), self.clock()
            # The wall clock goes on while the machine sleeps, the other one need not.
            gap = max(seen - before, (wall - wall_before) / SECOND)
            if gap > self.config.silence_s:
                self._froze(gap)
                continue
            self._beats += 1
            for link in self._links:
                link.send(encode("beat", n=self._beats))
            link_on_duty = self._on_duty
            if link_on_duty is None:
                continue
            if gap > self.config.deaf_s / 4:
                link_on_duty.heard_at = seen  # its answers may lie unread because of us
            if seen - link_on_duty.heard_at > self.config.deaf_s:
                link_on_duty.kill("answers no beat")
                self._lose(f"it answered no beat for {self.config.deaf_s:g} s")

    def _froze(self, gap_s: float) -> None:
        """Told by our own beats, or by a guardian that acted, mostly by both: one freeze is told once."""
        now = trio.current_time()
        if now - self._froze_at < self.config.silence_s and self._on_duty is None:
            return
        self._froze_at = now
        log.error("this process did not run", seconds=round(gap_s, 3))
        if self._on_duty is not None:
            self._lose(f"it took us for dead: we did not run for {gap_s:.1f} s")
        self.on_frozen(gap_s)

    def _lose(self, reason: str) -> None:
        self._set_duty(None)
        if not self._is_closing:
            log.error("guardian lost", reason=reason)
            self.on_lost(reason)

    def _set_duty(self, link: GuardianLink | None) -> None:
        self._on_duty = link
        self._changed.set()
        self._changed = trio.Event()

    async def _dismiss(self, links: list[GuardianLink]) -> None:
        """Goodbye to these; whoever does not go is killed: somebody else looks after the orders."""
        for link in links:
            link.send(encode("goodbye"))
        with trio.move_on_after(GOODBYE_S):
            for link in links:
                await link.ended.wait()
        for link in links:
            if not link.ended.is_set():
                link.kill("did not go when it was dismissed")
        with trio.move_on_after(GOODBYE_S):
            for link in links:
                await link.ended.wait()

    async def _host(self, keep: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
        """The nursery of everything that outlives a cancellation of the block: beats go on while it sweeps."""
        with keep:
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._beat)
                task_status.started()
                await trio.sleep_forever()

    async def _leave(self) -> None:
        """End of the block. Without a goodbye a guardian stays at work, if orders were ever possible."""
        if self._is_closing:
            return
        if not self._was_used:
            await self.goodbye()
            return
        self._is_closing = True
        if self._on_duty is None and self._tasks is not None:
            with trio.move_on_after(self.config.acknowledge_s, shield=True):
                try:
                    await self._take_on()
                except GuardianGone as exc:
                    log.critical("no guardian for what may rest", error=str(exc))
        for link in self._links:
            link.is_left = True
        log.warning("guardian left at work", pid=self.pid, groups=len(self._groups))


@asynccontextmanager
async def open_guardian(
    config: GuardianConfig,
    *,
    clock: Callable[[], Micros],
    spawn: Spawn = spawn_guardian,
    on_lost: Callable[[str], None] = _ignore,
    on_back: Callable[[], None] = _ignore_it,
    on_frozen: Callable[[float], None] = _ignore,
) -> AsyncGenerator[Guardian, None]:
    """A guardian on duty for the time of the block, beaten from a task that no cancellation from outside stops.

    Call `goodbye` inside the block once it is proven that nothing rests. Without it the guardian stays when the block
    ends and sweeps on its own, unless no group was ever acknowledged, when nothing can rest.

    Raises `GuardianGone` when none can be started. That, and what the block raises, comes in an exception group.
    """
    guardian = Guardian(config, clock, spawn, on_lost=on_lost, on_back=on_back, on_frozen=on_frozen)
    keep = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(guardian._host, keep)
        try:
            await guardian._take_on()
            yield guardian
        finally:
            await guardian._leave()
            keep.cancel(reason="the guardian's block has ended")


async def _first_of(*events: trio.Event) -> None:
    """Return when one of them is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel(reason="one of several events came")

        for event in events:
            nursery.start_soon(wait, event)


def _hello_of(config: GuardianConfig) -> Hello:
    webhook = config.webhook_url.reveal() if config.webhook_url is not None else ""
    return Hello(
        rest=_address(config.rest_url),
        key_id=config.key_id,
        key=config.key.reveal(),
        prefix=config.prefix,
        subaccount=config.subaccount,
        budget=config.budget,
        webhook=_address(webhook) if webhook else None,
        ca_file=config.ca_file,
        silence_s=config.silence_s,
        time_limit_s=config.time_limit_s,
    )


def _address(url: str) -> Address:
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    assert parts.hostname, "settings have checked that it is an absolute URL"
    return Address(
        is_secure=is_secure,
        host=parts.hostname,
        port=parts.port or (443 if is_secure else 80),
        path=parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else ""),
    )

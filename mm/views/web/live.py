"""Live data by server-sent events: one snapshot a second, encoded once, however many watch.

A watcher gets what changed since its last message; one that was too slow for a version gets the whole at its next
turn. Nothing is queued for anybody, so a slow browser costs nothing and never sees old news for new. While nobody
watches nothing is made.
"""

from collections.abc import Callable
from typing import Final, NoReturn

import attrs
import orjson
import trio

from mm.views.snapshot import Snapshot
from mm.views.web.http import Send
from mm.views.web.payload import Payloads

PERIOD_S: Final = 1.0
MAX_WATCHERS: Final = 16


@attrs.define(eq=False, kw_only=True)
class Live:
    """The newest version of everything, and those who wait for the next. `run` is its task."""

    source: Callable[[], Snapshot]
    period_s: float = PERIOD_S
    watchers: int = 0
    skipped: int = 0
    """Versions that a watcher was too slow for."""
    _payloads: Payloads = attrs.field(factory=Payloads)
    _version: int = 0
    _full: bytes | None = None
    """Encoded when first wanted."""
    _changes: bytes = b""
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _wanted: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> NoReturn:
        """Publish for ever, while anybody watches."""
        while True:
            if not self.watchers:
                await self._wanted.wait()
            self.publish()
            await trio.sleep(self.period_s)

    def publish(self) -> None:
        """Make the next version and wake whoever waits for it."""
        self._version += 1
        self._changes = _event(self._payloads.changes(self.source(), self._version))
        self._full = None
        self._changed.set()
        self._changed = trio.Event()

    @property
    def is_full(self) -> bool:
        """No more watchers are taken."""
        return self.watchers >= MAX_WATCHERS

    async def watch(self, send: Send) -> None:
        """Send versions to one browser for ever. Raises what `send` raises when it is gone or too slow."""
        self.watchers += 1
        self._wanted.set()
        seen = 0
        try:
            while True:
                if seen == self._version:
                    await self._changed.wait()
                    continue
                is_next = seen == self._version - 1 and seen > 0
                self.skipped += max(self._version - seen - 1, 0) if seen else 0
                seen, message = self._version, self._changes if is_next else self._whole()
                await send(message)
        finally:
            self.watchers -= 1
            if not self.watchers:
                self._wanted = trio.Event()

    def _whole(self) -> bytes:
        if self._full is None:
            self._full = _event(self._payloads.whole(self._version))
        return self._full


def _event(payload: object) -> bytes:
    """JSON has no raw line breaks, so that one `data` line holds it."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"

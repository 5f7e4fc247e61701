"""The web view's tasks: accept, answer, publish. Binding and wiring are the session's."""

from collections.abc import Sequence
from typing import Final

import attrs
import structlog
import trio

from mm.views.web.app import WebApp
from mm.views.web.http import serve_connection

log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 64
SEND_BUFFER: Final = 262_144
"""A browser that stalls finds at most this much old news when it wakes."""


@attrs.define(eq=False)
class WebServer:
    """Serves one app. `run` once."""

    app: WebApp
    connections: int = 0
    turned_away: int = 0
    """Connections closed because there were too many."""
    _told: bool = False

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve for ever; a cancellation closes every connection and listener. Raises what the app raises."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.app.live.run)
            await nursery.start(trio.serve_listeners, self.handle, list(listeners))
            task_status.started()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last."""
        if self.connections >= MAX_CONNECTIONS:
            self.turned_away += 1
            if not self._told:
                self._told = True
                log.warning("too many web connections", most=MAX_CONNECTIONS)
            await trio.aclose_forcefully(stream)
            return
        if isinstance(stream, trio.SocketStream):
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER)
        self.connections += 1
        try:
            await serve_connection(stream, self.app)
        finally:
            self.connections -= 1

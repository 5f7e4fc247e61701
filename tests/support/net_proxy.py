"""A TCP proxy that can lose one direction of a network, or all of it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio


@attrs.define(eq=False)
class NetProxy:
    """Between a bot and its exchange. What is cut is swallowed in silence: no close, no reset, as a dead line does."""

    target_port: int
    port: int = 0
    loses_requests: bool = False
    """What the bot sends does not arrive."""
    loses_answers: bool = False
    """What the exchange sends does not arrive."""
    _healed: trio.Event = attrs.field(factory=trio.Event)
    _streams: set[trio.abc.AsyncResource] = attrs.field(factory=set)

    def cut(self, *, requests: bool, answers: bool) -> None:
        """Lose these directions from now on, on old connections and new ones."""
        self.loses_requests, self.loses_answers = requests, answers

    async def heal(self) -> None:
        """New connections work. The old ones are dead for good: bytes are missing in them."""
        self.loses_requests = self.loses_answers = False
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    async def serve(self, client: trio.SocketStream) -> None:
        """One connection."""
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target_port)
        except OSError:
            await client.aclose()
            return
        self._streams |= {client, server}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, True, nursery.cancel_scope)
                nursery.start_soon(self._pump, server, client, False, nursery.cancel_scope)
        finally:
            self._streams -= {client, server}
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(client)
                await trio.aclose_forcefully(server)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, is_request: bool, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                if not (self.loses_requests if is_request else self.loses_answers):
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel(reason="one end is closed")


@asynccontextmanager
async def open_proxy(target_port: int) -> AsyncGenerator[NetProxy, None]:
    """A proxy on a port of its own."""
    proxy = NetProxy(target_port)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel(reason="the proxy is closed")

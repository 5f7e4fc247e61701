"""The network between bot and exchange: latency, silence in either direction, refused and lost connects, DNS failure.

Also the two ways in for the bot: `connect` for the WebSocket, and an httpx transport whose real pool dials here.
"""

import socket
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final, final

import attrs
import httpcore
import httpx
import trio

from mm.simulation.streams import MemoryStream, Pipe

UP: Final = 0
"""Bot to exchange."""
DOWN: Final = 1

_BACKLOG: Final = 1_000


@attrs.define(eq=False, kw_only=True)
class Network:
    """One link to one listener. Chances are drawn from `random`, so a seed repeats them."""

    random: Random
    on_bytes: Callable[[str, bytes], None]
    """Told of all that is sent: a name and the bytes."""
    latency_s: float = 0.004
    jitter_s: float = 0.002
    silent_until: list[float] = attrs.field(factory=lambda: [0.0, 0.0])
    """Per direction: nothing arrives before."""
    refuses_until: float = 0.0
    no_dns_until: float = 0.0
    splits: float = 0.0
    """Chance that a piece arrives in two."""
    dialled: int = 0
    _accept: "trio.MemorySendChannel[MemoryStream]" = attrs.field(init=False)
    incoming: "trio.MemoryReceiveChannel[MemoryStream]" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._accept, self.incoming = trio.open_memory_channel[MemoryStream](_BACKLOG)

    @property
    def is_silent(self) -> bool:
        """A direction is cut at the moment."""
        return trio.current_time() < max(self.silent_until)

    def calm(self) -> None:
        """No trouble from now on."""
        now = trio.current_time()
        self.silent_until = [min(now, moment) for moment in self.silent_until]
        self.refuses_until = self.no_dns_until = 0.0

    async def dial(self, host: str, port: int) -> MemoryStream:
        """A new connection to the listener. Raises `OSError` as the system would."""
        del port
        if trio.current_time() < self.no_dns_until:
            await trio.sleep(0.01)
            raise socket.gaierror(socket.EAI_AGAIN, f"Temporary failure in name resolution: {host}")
        await trio.sleep(self._delay() * 2)
        while (silence := max(self.silent_until) - trio.current_time()) > 0:
            await trio.sleep(silence)
        if trio.current_time() < self.refuses_until:
            raise ConnectionRefusedError(111, "Connection refused")
        self.dialled += 1
        name = f"c{self.dialled}"
        up = Pipe(lambda: self._arrival(UP), lambda data: self.on_bytes(name + ">", data))
        down = Pipe(lambda: self._arrival(DOWN), lambda data: self.on_bytes(name + "<", data))
        # The server's end leaves by a channel: its tasks must not inherit the bot's context.
        self._accept.send_nowait(MemoryStream(up, down, name + " server"))
        return MemoryStream(down, up, name + " client")

    def _delay(self) -> float:
        return self.latency_s + self.random.random() * self.jitter_s

    def _arrival(self, direction: int) -> float:
        return max(trio.current_time() + self._delay(), self.silent_until[direction])


@final
@attrs.define(eq=False)
class _PoolStream(httpcore.AsyncNetworkStream):
    """A stream as httpcore wants it."""

    _stream: MemoryStream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(_seconds(timeout)):
                return await self._stream.receive_some(max_bytes)
        except trio.TooSlowError as exc:
            raise httpcore.ReadTimeout(exc) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpcore.ReadError(exc) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with trio.fail_after(_seconds(timeout)):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as exc:
            raise httpcore.WriteTimeout(exc) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpcore.WriteError(exc) from exc

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.is_readable() if info == "is_readable" else None


@final
@attrs.define(eq=False)
class _Backend(httpcore.AsyncNetworkBackend):
    """Where httpcore's pool dials."""

    _dial: Callable[[str, int], Any]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        del local_address, socket_options
        try:
            with trio.fail_after(_seconds(timeout)):
                return _PoolStream(await self._dial(host, port))
        except trio.TooSlowError as exc:
            raise httpcore.ConnectTimeout(exc) from exc
        except OSError as exc:
            raise httpcore.ConnectError(exc) from exc

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def _seconds(timeout: float | None) -> float:
    return float("inf") if timeout is None else timeout


def http_transport(dial: Callable[[str, int], Any]) -> httpx.AsyncHTTPTransport:
    """httpx's own transport and pool, as the adapter makes them, over `dial`."""
    transport = httpx.AsyncHTTPTransport(verify=False)
    transport._pool = httpcore.AsyncConnectionPool(
        max_connections=20,
        max_keepalive_connections=20,
        keepalive_expiry=20.0,
        network_backend=_Backend(dial),
    )
    return transport

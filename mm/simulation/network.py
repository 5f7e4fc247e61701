"""The network between bot and exchange: latency, silence in either direction, refused and lost connects, DNS failure.

The bot's own adapter dials here, for requests and for the WebSocket.
"""

import socket
from collections.abc import Callable
from random import Random
from typing import Final

import attrs
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

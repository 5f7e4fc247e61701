"""Same seed and same requests at the same virtual times: the same bytes, with games, traders and a client in it."""

from random import Random

import trio
import trio.testing

from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.server.faults import Faults
from mm.exchange.embedded.server.server import open_exchange_server
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize

CHANNELS = ["orderbook_delta", "trade", "ticker", "fill", "user_orders", "market_lifecycle_v2"]
START = 1_796_166_600 * 1_000_000


class Recorded(trio.abc.Stream):
    """A stream that notes every byte read and when."""

    def __init__(self, stream, into):
        self.stream, self.into = stream, into

    async def receive_some(self, max_bytes=None):
        """Read and note."""
        data = await self.stream.receive_some(max_bytes)
        self.into.append((trio.current_time(), bytes(data)))
        return data

    async def send_all(self, data):
        """Write."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        """As the stream below."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self):
        """Close."""
        await self.stream.aclose()


def life(monkeypatch, rig_type, seed, *, spec="latency,ms=3,jitter=4"):
    """Eight virtual seconds of an exchange with three games and one client that trades; all bytes it got."""
    seen = []
    # The scheduler's order of a batch is random unless told otherwise.
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio._core._run, "_r", Random(seed))

    async def main():
        def clock():
            return int(START + trio.current_time() * 1_000_000)

        faults = Faults(random=Random(seed))
        faults.add_spec(spec)
        slate = GeneratedSlate(seed=seed, speed=30, size=SlateSize(games=3))
        server = open_exchange_server(
            clock=clock,
            random=Random(seed),
            ids=UuidSource(seed),
            faults=faults,
            games=slate,
            tier="prestige",
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(slate.run, server.driver)
            nursery.start_soon(server.driver.run_timers)
            rig = rig_type(nursery, server, wrap=lambda stream: Recorded(stream, seen))
            server.add_account("member", {0: 10_000_000_000})
            server.add_key("key", "member", rig.private_key.public_key())
            await trade(rig, server)
            nursery.cancel_scope.cancel(reason="done")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return seen


async def trade(rig, server):
    """Subscribe to everything; quote one market over and over."""
    socket = await rig.socket()
    tickers = list(server.core.markets())
    params = {"channels": CHANNELS, "market_tickers": tickers}
    await socket.send({"id": 1, "cmd": "subscribe", "params": params})
    for i in range(8):
        await rig.create("bid", "0.4500", "5.00", tickers[i % 6], client_order_id=f"b-{i}")
        await rig.create("ask", "0.5500", "5.00", tickers[i % 6], client_order_id=f"a-{i}")
        with trio.move_on_after(1):
            while await socket.read():
                pass
    await rig.call("GET", "/portfolio/fills")
    await rig.call("GET", "/portfolio/orders")


def test_a_life_repeats_byte_for_byte(monkeypatch, rig_type):
    """Every frame and every answer, with its virtual time."""
    first, second = (life(monkeypatch, rig_type, 11) for _ in range(2))
    assert first == second
    text = b"".join(data for _, data in first)
    assert text.count(b'"orderbook_delta"') > 300
    assert b'"type":"fill"' in text


def test_another_seed_is_another_life(monkeypatch, rig_type):
    """The check above must be able to fail."""
    assert life(monkeypatch, rig_type, 11) != life(monkeypatch, rig_type, 12)

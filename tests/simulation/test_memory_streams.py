"""The streams in memory behave like TCP: order and latency, half-close, reset, silence, refused connects."""

from random import Random

import pytest
import trio
import trio.testing

from mm.simulation.network import DOWN, Network
from mm.simulation.streams import MemoryStream


async def dialled(network: Network) -> tuple[MemoryStream, MemoryStream]:
    """Both ends of a new connection: the client's, the server's."""
    client = await network.dial("127.0.0.1", 80)
    return client, await network.incoming.receive()


@pytest.fixture(name="network")
def _network() -> Network:
    return Network(random=Random(1), on_bytes=lambda name, data: None, latency_s=0.5, jitter_s=0.0)


async def test_bytes_arrive_late_whole_and_in_order(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """What is sent now is read half a second later."""
    client, server = await dialled(network)
    sent_at = trio.current_time()
    await client.send_all(b"one")
    await client.send_all(b"two")

    assert await server.receive_some(4) == b"onet"
    assert trio.current_time() == pytest.approx(sent_at + 0.5)
    assert await server.receive_some() == b"wo"


async def test_half_close_leaves_the_other_direction(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """After our end of file the peer still answers."""
    client, server = await dialled(network)
    await client.send_eof()

    assert await server.receive_some() == b""
    await server.send_all(b"answer")
    assert await client.receive_some() == b"answer"
    with pytest.raises(trio.ClosedResourceError):
        await client.send_all(b"more")


async def test_a_reset_breaks_the_peer_after_what_was_sent(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """The reader finds the connection reset, the writer too."""
    client, server = await dialled(network)
    client.abort(reset=True)

    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"too late")


async def test_silence_holds_back_and_loses_nothing(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """A cut direction delivers when it is back; the other one goes on."""
    client, server = await dialled(network)
    network.silent_until[DOWN] = trio.current_time() + 9
    back_at = network.silent_until[DOWN]
    await server.send_all(b"late")
    await client.send_all(b"in time")

    assert await server.receive_some() == b"in time"
    assert trio.current_time() < back_at
    assert await client.receive_some() == b"late"
    assert trio.current_time() == pytest.approx(back_at)


async def test_connects_are_refused_and_names_not_found(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """Both are what a system raises: `OSError`s."""
    network.refuses_until = trio.current_time() + 5
    with pytest.raises(ConnectionRefusedError):
        await network.dial("127.0.0.1", 80)
    network.no_dns_until = trio.current_time() + 1
    with pytest.raises(OSError, match="name resolution"):
        await network.dial("127.0.0.1", 80)

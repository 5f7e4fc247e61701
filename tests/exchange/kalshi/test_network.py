"""What mock transports cannot show: real sockets that refuse, cut and answer, and TLS under the WebSocket."""

import ssl
from functools import partial

import pytest
import trio
import trio.testing
import trio_websocket
import trustme

from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import ClientOrderId, MarketTicker, Side
from mm.exchange import port
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options

ORDER = port.NewOrder(
    client_order_id=ClientOrderId("mm-s1-1"),
    ticker=MarketTicker("M-1"),
    side=Side.BID,
    price=Price(4100),
    count=Count(1000),
    exchange_index=0,
)
PLACED = b'{"order_id":"o1","fill_count":"0.00","remaining_count":"10.00"}'


class Low:
    """The smallest randomness."""

    def random(self):
        return 0.0


def client(signer, port_number):
    url = f"127.0.0.1:{port_number}/trade-api"
    return open_kalshi(
        kalshi_options(f"http://{url}/v2", f"ws://{url}/ws/v2"),
        signer,
        clock=lambda: Micros(1_795_400_000_000_000),
        randomness=Low(),
        connect=trio.open_tcp_stream,
    )


@pytest.mark.real
async def test_a_refused_connection_means_that_nothing_was_sent(signer):
    """Nobody listens: the order was certainly not placed."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    number = listener.socket.getsockname()[1]
    await listener.aclose()

    async with client(signer, number) as exchange:
        with trio.fail_after(10), pytest.raises(port.ExchangeUnavailable):
            await exchange.place(ORDER)


@pytest.mark.real
async def test_a_cut_after_the_request_leaves_the_outcome_unknown(signer):
    """The server reads the create and hangs up: it may have been placed. The next request works again."""
    requests = []

    async def serve(stream):
        async with stream:
            while b"\r\n\r\n" not in (head := await stream.receive_some()):
                pass
            requests.append(head)
            if len(requests) > 1:
                length = str(len(PLACED)).encode()
                await stream.send_all(
                    b"HTTP/1.1 201 Created\r\nContent-Length: " + length + b"\r\n\r\n" + PLACED
                )

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1"),
        )
        with trio.fail_after(10):
            async with client(signer, listener.socket.getsockname()[1]) as exchange:
                with pytest.raises(port.OutcomeUnknown):
                    await exchange.place(ORDER)
                ack = await exchange.place(ORDER)
        nursery.cancel_scope.cancel()

    assert ack.order_id == "o1"
    assert requests[0].startswith(b"POST /trade-api/v2/portfolio/events/orders HTTP/1.1\r\n")


async def test_the_feed_speaks_tls_and_checks_the_certificate(autojump_clock, signer):
    """wss: the shared context is used, and a certificate for another name is refused again and again."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    names = ["wrong.test", "ws.venue.test"]
    connected = trio.Event()
    seen = []

    async with trio.open_nursery() as nursery:

        async def serve(stream, name):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert(name).configure_cert(context)
            try:
                async with trio.open_nursery() as inner:
                    secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                    request = await trio_websocket.wrap_server_stream(inner, secure)
                    await request.accept()
                    await trio.sleep_forever()
            except* (trio.BrokenResourceError, trio_websocket.ConnectionClosed):
                pass

        async def connect(host, port_number):
            assert (host, port_number) == ("ws.venue.test", 443)
            ours, theirs = trio.testing.memory_stream_pair()
            seen.append(names[0])
            nursery.start_soon(serve, theirs, names.pop(0))
            return ours

        class Sink:
            def on_connected(self, now):
                connected.set()

            def __getattr__(self, name):
                return lambda *args: None

        async with open_kalshi(
            kalshi_options("https://venue.test/trade-api/v2", "wss://ws.venue.test/trade-api/ws/v2"),
            signer,
            clock=lambda: Micros(1_795_400_000_000_000),
            randomness=Low(),
            connect=connect,
            ssl_context=trusting,
        ) as exchange:
            async with exchange.open_feed() as feed:
                nursery.start_soon(feed.run, Sink())
                with trio.fail_after(30):
                    await connected.wait()
                nursery.cancel_scope.cancel()

    assert seen == ["wrong.test", "ws.venue.test"]

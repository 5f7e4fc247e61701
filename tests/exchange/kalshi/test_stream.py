"""The socket over memory streams and virtual time: keep-alive, reconnects, batches, refusals."""

import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
import trio_websocket

from mm.domain.book import OrderBook
from mm.domain.errors import InvariantError
from mm.domain.numbers import Micros
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.stream import KalshiFeed
from mm.exchange.port import AuthError

START = 1_796_166_600_000_000
CHANNELS = ("orderbook_delta", "trade", "fill", "user_orders", "market_lifecycle_v2", "order_group_updates")
LEVELS = {"yes_dollars_fp": [["0.4000", "50.00"]], "no_dollars_fp": [["0.4400", "30.00"]]}


class Link(trio.abc.Stream):
    """The client's end of a wire that can fall silent, be cut or be reset."""

    def __init__(self, stream):
        self.stream = stream
        self.is_stalled = False
        self.reset = trio.Event()

    async def receive_some(self, max_bytes=None):
        received = []

        async def read(scope):
            received.append(await self.stream.receive_some(max_bytes))
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, nursery.cancel_scope)
            await self.reset.wait()
            nursery.cancel_scope.cancel()
        if not received:
            raise trio.BrokenResourceError("connection reset")
        if self.is_stalled:
            await trio.sleep_forever()
        return received[0]

    async def send_all(self, data):
        if not self.is_stalled:
            await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self):
        await self.stream.aclose()


class Talk:
    """The venue's side of one accepted connection."""

    def __init__(self, venue, connection, link, headers):
        self.venue = venue
        self.connection = connection
        self.link = link
        self.headers = headers
        self.sids = {}
        self.seq = {}
        self.commands = []

    async def send(self, *frames):
        for frame in frames:
            await self.connection.send_message(json.dumps(frame) + "\n")

    def numbered(self, channel, kind, msg, **extra):
        sid = self.sids[channel]
        self.seq[sid] = self.seq.get(sid, 0) + 1
        return {"type": kind, "sid": sid, "seq": self.seq[sid], "msg": msg, **extra}

    def snapshot(self, ticker, **extra):
        return self.numbered(
            "orderbook_delta", "orderbook_snapshot", {"market_ticker": ticker, **LEVELS}, **extra
        )

    def delta(self, ticker, change="1.00"):
        msg = {
            "market_ticker": ticker,
            "price_dollars": "0.4000",
            "delta_fp": change,
            "side": "yes",
            "ts_ms": 1,
        }
        return self.numbered("orderbook_delta", "orderbook_delta", msg)

    async def answer(self):
        """Grant everything, like the real one."""
        while True:
            command = json.loads(await self.connection.get_message())
            self.commands.append(command)
            params = command["params"]
            tickers = params.get("market_tickers", [])
            if command["cmd"] == "subscribe":
                (channel,) = params["channels"]
                self.sids[channel] = self.venue.next_sid()
                granted = {"channel": channel, "sid": self.sids[channel]}
                await self.send({"type": "subscribed", "id": command["id"], "msg": granted})
                if channel == "orderbook_delta":
                    await self.send(*[self.snapshot(ticker) for ticker in tickers])
            elif params.get("action") == "get_snapshot":
                await self.send(*[self.snapshot(ticker, id=command["id"]) for ticker in tickers])
            elif params.get("action") == "add_markets":
                channel = next(c for c, sid in self.sids.items() if sid == params["sids"][0])
                await self.send(self.numbered(channel, "ok", {"market_tickers": tickers}, id=command["id"]))
                if channel == "orderbook_delta":
                    await self.send(*[self.snapshot(ticker) for ticker in tickers])


class Venue:
    """A WebSocket server over memory streams. `script` holds what the next connections meet; then all is well."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.script = []
        self.dials = []
        self.talks = []
        self._sid = 0
        self._accepted = trio.Event()

    def next_sid(self):
        self._sid += 1
        return self._sid

    async def connect(self, host, port):
        self.dials.append(trio.current_time())
        assert (host, port) == ("127.0.0.1", 8123)
        behaviour = self.script.pop(0) if self.script else "accept"
        if behaviour == "refuse":
            raise OSError("connection refused")
        if behaviour == "hang":
            await trio.sleep_forever()
        ours, theirs = trio.testing.memory_stream_pair()
        link = Link(ours)
        self.nursery.start_soon(self._serve, behaviour, theirs, link)
        return link

    async def _serve(self, behaviour, stream, link):
        if behaviour == "eof":
            await stream.receive_some()
            await stream.aclose()
            return
        if isinstance(behaviour, bytes):
            await stream.receive_some()
            await stream.send_all(behaviour)
            await stream.aclose()
            return
        if behaviour == "mute":
            await trio.sleep_forever()
        try:
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(nursery, stream)
                if behaviour != "accept":
                    status, body = behaviour
                    await request.reject(status, body=json.dumps(body).encode())
                    nursery.cancel_scope.cancel()
                    return
                talk = Talk(self, await request.accept(), link, dict(request.headers))
                self.talks.append(talk)
                self._accepted.set()
                await talk.answer()
        except* (trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def accepted(self, number=1):
        """The talk with this number, as soon as it is there."""
        while len(self.talks) < number:
            self._accepted = trio.Event()
            await self._accepted.wait()
        return self.talks[number - 1]


class Sink:
    """Notes everything with its virtual time, and folds books."""

    def __init__(self):
        self.log = []
        self.books = {}
        self.read_ends = 0
        self.alive_at = []
        self._changed = trio.Event()

    def _note(self, *what):
        self.log.append((round(trio.current_time(), 3), *what))
        self._changed.set()

    def names(self):
        return [entry[1] for entry in self.log]

    def at(self, name):
        return [entry[0] for entry in self.log if entry[1] == name]

    async def until(self, name, times=1):
        with trio.fail_after(600):
            while self.names().count(name) < times:
                self._changed = trio.Event()
                await self._changed.wait()

    def on_connected(self, now):
        self._note("connected")

    def on_disconnected(self, now, why):
        self._note("disconnected", why)

    def on_alive(self, now):
        self.alive_at.append(trio.current_time())

    def on_snapshot(self, ticker, bids, asks, now):
        self.books.setdefault(ticker, OrderBook()).snapshot(bids, asks)
        self._note("snapshot", ticker)

    def on_delta(self, ticker, side, price, change, ts):
        self.books[ticker].apply_delta(side, price, change)
        self._note("delta", ticker, self.read_ends)

    def on_out_of_sync(self, tickers, why):
        self._note("out_of_sync", list(tickers))

    def on_read_end(self, now):
        self.read_ends += 1

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self._note(name, *args)


class Fixed:
    """Randomness that always says the same."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


OPTIONS = kalshi_options("http://127.0.0.1:8123/trade-api/v2", "ws://127.0.0.1:8123/trade-api/ws/v2")


@asynccontextmanager
async def running(signer, *, tickers=("A", "B"), randomness=None, script=(), sink=None):
    """A feed at work against a venue."""
    async with trio.open_nursery() as nursery:
        venue = Venue(nursery)
        venue.script = list(script)
        clock = lambda: Micros(START + round(trio.current_time() * 1e6))  # noqa: E731
        async with open_kalshi(
            OPTIONS, signer, clock=clock, randomness=randomness or Fixed(0.999), connect=venue.connect
        ) as exchange:
            async with exchange.open_feed() as feed:
                sink = sink or Sink()
                await feed.watch(list(tickers))
                nursery.start_soon(feed.run, sink)
                yield venue, feed, sink
                nursery.cancel_scope.cancel()


async def test_it_connects_signed_subscribes_and_delivers(autojump_clock, signer):
    """One socket, one subscription a channel, books in YES price."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        talk = await venue.accepted()
        await talk.send(talk.delta("A", "2.50"))
        await sink.until("delta")

        assert sink.names() == ["connected", "snapshot", "snapshot", "delta"]
        assert sink.books["A"].bids == {4000: 5250}
        assert sink.books["A"].asks == {4400: 3000}
        assert {c["params"]["channels"][0] for c in talk.commands} == set(CHANNELS)
        assert talk.headers[b"kalshi-access-key"] == b"test-key"
        assert len(talk.headers[b"kalshi-access-signature"]) == 88
        assert talk.headers[b"kalshi-access-timestamp"] == str(START // 1000).encode()
        assert feed.statistics().connects == 1
        assert feed.statistics().unknown_frames == 0


async def test_markets_added_later_use_the_same_subscription(autojump_clock, signer):
    """`watch` at any time; the first answer is a snapshot."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        await feed.watch(["C"])
        await sink.until("snapshot", 3)
        talk = await venue.accepted()

        added = [c["params"] for c in talk.commands if c["cmd"] == "update_subscription"]
        assert [(p["action"], p["market_tickers"]) for p in added] == [("add_markets", ["C"])] * 2
        assert feed.statistics().gaps == 0


async def test_a_gap_is_healed_by_a_snapshot(autojump_clock, signer):
    """The venue skips a number: all books are stale, then whole again, on the same connection."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        talk = await venue.accepted()
        talk.delta("A")  # takes a number and is never sent
        await talk.send(talk.delta("A"))
        await sink.until("out_of_sync")
        await sink.until("snapshot", 4)
        await talk.send(talk.delta("A"))
        await sink.until("delta")

        assert sink.log[3][2] == ["A", "B"]
        assert sink.books["A"].bids == {4000: 5100}
        assert feed.statistics().gaps == 1
        assert feed.statistics().connects == 1


async def test_error_25_is_answered_with_a_new_subscription(autojump_clock, signer):
    """A slow consumer loses its subscription, not its socket."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        talk = await venue.accepted()
        overflow = {"code": 25, "msg": "Subscription buffer overflow"}
        await talk.send(talk.numbered("orderbook_delta", "error", overflow))
        await sink.until("out_of_sync")
        await sink.until("snapshot", 4)

        assert feed.statistics().connects == 1
        assert [c["params"]["channels"] for c in talk.commands].count(["orderbook_delta"]) == 2


async def test_resync_on_demand(autojump_clock, signer):
    """A caller that distrusts a book gets a new snapshot of it."""
    async with running(signer) as (_venue, feed, sink):
        await sink.until("snapshot", 2)
        await feed.resync(["B", "unknown"])
        await sink.until("snapshot", 3)

        assert sink.log[-1][1:] == ("snapshot", "B")


async def test_a_quiet_socket_lives_by_its_pongs(autojump_clock, signer):
    """Nothing but pongs for ten minutes is no reason to reconnect; proof of life comes every 2 seconds."""
    async with running(signer) as (_venue, feed, sink):
        await sink.until("snapshot", 2)
        await trio.sleep(600)

        assert feed.statistics().connects == 1
        gaps = [b - a for a, b in zip(sink.alive_at, sink.alive_at[1:], strict=False)]
        assert max(gaps) <= 2.001


async def test_a_silent_socket_is_given_up_within_4_seconds_and_replaced(autojump_clock, signer):
    """Half-open: nothing comes, nothing is refused. The quotes' 4 seconds begin with the last sign of life."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        await trio.sleep(7.1)
        last_sign = sink.alive_at[-1]
        (await venue.accepted()).link.is_stalled = True
        await sink.until("disconnected")

        assert trio.current_time() - last_sign <= 4.0
        assert "silent" in sink.log[-1][2]
        await sink.until("snapshot", 4)
        assert feed.statistics().connects == 2
        assert trio.current_time() - last_sign < 5.0


async def test_a_cut_without_a_close_frame_then_502_then_all_again(autojump_clock, signer):
    """The recorded way in which the venue restarts: reset, 502 on redial, then everything is subscribed anew."""
    bad = (502, {"error": {"code": "bad_gateway"}})
    async with running(signer, script=["accept", bad, bad, "refuse", "eof"]) as (venue, _feed, sink):
        await sink.until("snapshot", 2)
        await trio.sleep(10)
        cut_at = trio.current_time()
        (await venue.accepted()).link.reset.set()
        await sink.until("disconnected")
        assert trio.current_time() == pytest.approx(cut_at)
        await sink.until("snapshot", 4)

        talk = await venue.accepted(2)
        assert {c["params"]["channels"][0] for c in talk.commands} == set(CHANNELS)
        waits = [b - a for a, b in zip([cut_at, *venue.dials[1:]], venue.dials[1:], strict=False)]
        assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.0], rel=0.01)
        assert sink.names().count("connected") == 2
        assert sink.names().count("disconnected") == 1


async def test_a_clean_close_by_the_venue_is_followed_by_a_reconnect(autojump_clock, signer):
    """A close frame is as good a reason as any."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        talk = await venue.accepted()
        with trio.move_on_after(1):
            await talk.connection.aclose(1012, "restart")
        await sink.until("snapshot", 4)

        (entry,) = [entry for entry in sink.log if entry[1] == "disconnected"]
        assert "1012" in entry[2]
        assert feed.statistics().connects == 2


@pytest.mark.parametrize("kind", ["hang", "mute"])
async def test_a_dial_that_leads_nowhere_ends(autojump_clock, signer, kind):
    """Neither a blackholed connect nor a server that never answers the upgrade holds the feed for long."""
    async with running(signer, script=[kind]) as (venue, _feed, sink):
        await sink.until("snapshot", 2)

        assert venue.dials[1] <= 4.0 + 0.2 + 0.001


@pytest.mark.parametrize("value", [0.0, 0.5, 0.999999])
def test_backoff_is_bounded_and_jittered(signer, value):
    """Never below half of the doubled delay, never above 3 seconds, however often it fails."""
    feed = KalshiFeed(
        options=OPTIONS,
        signer=signer,
        clock=lambda: 0,
        randomness=Fixed(value),
        connect=None,
        ssl_context=None,
    )
    delays = [feed.backoff(attempt) for attempt in (*range(8), 1000)]

    for delay, whole in zip(delays, [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0, 3.0, 3.0], strict=True):
        assert whole / 2 <= delay <= whole
        assert delay == pytest.approx(whole * (0.5 + value / 2))


async def test_backoff_starts_anew_after_a_healthy_connection(autojump_clock, signer):
    """Trouble of an hour ago does not make today's reconnect slow; a connection that dies at once does."""
    script = ["refuse"] * 6
    async with running(signer, script=script) as (venue, _feed, sink):
        await sink.until("snapshot", 2)
        await trio.sleep(60)
        (await venue.accepted()).link.reset.set()
        await sink.until("disconnected")
        lost_at = trio.current_time()
        await sink.until("connected", 2)
        assert venue.dials[-1] - lost_at == pytest.approx(0.2, rel=0.01)

        (await venue.accepted(2)).link.reset.set()
        await sink.until("disconnected", 2)
        lost_at = trio.current_time()
        await sink.until("connected", 3)
        assert venue.dials[-1] - lost_at == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize(
    "answer",
    [
        (401, {"error": {"code": "authentication_error", "details": "NOT_FOUND"}}),
        (403, {"error": {"code": "forbidden"}}),
        b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n{}",
    ],
    ids=["401", "403", "without-length"],
)
async def test_a_refused_key_ends_the_feed(autojump_clock, signer, answer):
    """No retry storm: the first refusal of the key is the last attempt."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(signer, script=[answer]) as (venue, _feed, _sink):
            await trio.sleep_forever()

    matched, rest = caught.value.split(AuthError)
    assert matched is not None
    assert rest is None
    assert len(venue.dials) == 1


async def test_a_refused_clock_is_no_refused_key(autojump_clock, signer):
    """After a sleep of the machine the next attempt signs a new time."""
    answer = (401, {"error": {"code": "header_timestamp_expired"}})
    async with running(signer, script=[answer]) as (venue, _feed, sink):
        await sink.until("snapshot", 2)

        assert len(venue.dials) == 2


async def test_what_one_read_brings_ends_with_one_read_end(autojump_clock, signer):
    """A hundred deltas in one go cause one decision, not a hundred."""
    async with running(signer) as (venue, _feed, sink):
        await sink.until("snapshot", 2)
        talk = await venue.accepted()
        await trio.sleep(1)
        before = sink.read_ends
        chunk = b"".join(_text_frame(json.dumps(talk.delta("A"))) for _ in range(100))
        await talk.connection._stream.send_all(chunk)
        await sink.until("delta", 100)
        await trio.testing.wait_all_tasks_blocked()

        assert sink.read_ends - before <= 2
        assert sink.books["A"].bids == {4000: 15_000}


def _text_frame(text):
    data = text.encode()
    assert 125 < len(data) < 65_536
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data


async def test_unknown_frames_and_fields_are_counted_and_harmless(autojump_clock, signer):
    """Whatever comes, the feed goes on."""
    async with running(signer) as (venue, feed, sink):
        await sink.until("snapshot", 2)
        talk = await venue.accepted()
        odd = talk.delta("A")
        odd["msg"]["novel"] = True
        await talk.send({"type": "news", "msg": {}}, {"type": "news"}, odd)
        await talk.connection.send_message("not json")
        await talk.connection.send_message("\n")
        await talk.send(talk.delta("A"))
        await sink.until("delta", 2)

        statistics = feed.statistics()
        assert (statistics.unknown_frames, statistics.unknown_fields) == (2, 1)
        assert statistics.malformed_frames == 1
        assert statistics.connects == 1
        assert statistics.last_frame_at >= START


async def test_a_bug_behind_the_sink_comes_through_and_leaves_no_socket(autojump_clock, signer):
    """An `InvariantError` is never swallowed by the reconnect loop."""

    class Broken(Sink):
        def on_delta(self, *args):
            raise InvariantError("bug")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(signer, sink=Broken()) as (venue, _feed, sink):
            await sink.until("snapshot", 2)
            talk = await venue.accepted()
            await talk.send(talk.delta("A"))
            await trio.sleep_forever()

    matched, rest = caught.value.split(InvariantError)
    assert matched is not None
    assert rest is None
    assert sink.names()[-1] == "disconnected"


async def test_a_cancelled_feed_says_that_it_is_disconnected(autojump_clock, signer):
    """After a cancellation no task and no socket is left, and books count as stale."""
    async with trio.open_nursery() as nursery:
        venue = Venue(nursery)
        sink = Sink()
        feed = KalshiFeed(
            options=OPTIONS,
            signer=signer,
            clock=lambda: Micros(START),
            randomness=Fixed(0),
            connect=venue.connect,
            ssl_context=None,
        )
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(feed.run, sink)
                await sink.until("connected")
                scope.cancel(reason="test")

        assert sink.names() == ["connected", "disconnected"]
        with pytest.raises(trio.ClosedResourceError):
            await venue.talks[0].link.stream.send_all(b"x")

        # It may be run again.
        with trio.move_on_after(5):
            await feed.run(sink)
        assert sink.names().count("connected") == 2
        nursery.cancel_scope.cancel()


async def test_two_runs_at_once_are_a_mistake(autojump_clock, signer):
    """One feed is one connection."""
    async with running(signer) as (_venue, feed, sink):
        await sink.until("connected")
        with pytest.raises(RuntimeError, match="already running"):
            await partial(feed.run, sink)()

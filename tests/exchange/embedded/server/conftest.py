"""An exchange behind memory streams on the virtual clock, and raw clients that speak h11 and wsproto to it."""

import os
from base64 import b64encode
from pathlib import Path
from random import Random

import attrs
import h11
import orjson
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from mm.domain.numbers import SECOND, parse_count, parse_money, parse_price
from mm.domain.order import Side, TimeInForce
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, OrderRequest, SeriesSpec
from mm.exchange.embedded.server.faults import Faults
from mm.exchange.embedded.server.server import WS_PATH, open_exchange_server
from mm.exchange.embedded.server.websocket import SocketLimits

START = 1_796_166_600 * SECOND
TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT, SERIES = "KXNHLGAME-26DEC01TORBOS", "KXNHLGAME"
MLB = "KXMLBGAME-26DEC011840COLCIN-COL"
PREFIX = "/trade-api/v2"
USER, HOUSE = "77aa0000-0000-4000-8000-000000000001", "house"
_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
_ED = ed25519.Ed25519PrivateKey.generate()


@attrs.frozen
class Reply:
    """A response as it came."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        """The decoded body."""
        return orjson.loads(self.body)


@attrs.define(eq=False)
class HttpClient:
    """One connection, request after request, on h11."""

    stream: trio.abc.Stream
    protocol: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))

    async def send(self, method, target, headers=None, body=b""):
        """Send a request."""
        lines = {"Host": "twin.test", **(headers or {})}
        if body or method in ("POST", "PUT"):
            lines["Content-Length"] = str(len(body))
        pairs = [(name, value.encode("utf-8")) for name, value in lines.items()]
        out = self.protocol.send(h11.Request(method=method, target=target, headers=pairs))
        if body:
            out += self.protocol.send(h11.Data(data=body))
        await self.stream.send_all(out + self.protocol.send(h11.EndOfMessage()))

    async def receive(self):
        """Read a response to its end."""
        head, body = None, b""
        while True:
            event = self.protocol.next_event()
            if event is h11.NEED_DATA:
                data = await self.stream.receive_some(65_536)
                if not data:
                    raise EOFError("the server hung up without an answer")
                self.protocol.receive_data(data)
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                head = event
                if event.status_code == 101:
                    break
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        if self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE:
            self.protocol.start_next_cycle()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Reply(head.status_code, headers, body)


@attrs.define(eq=False)
class SocketClient:
    """A WebSocket client that keeps every frame it reads."""

    stream: trio.abc.Stream
    protocol: Connection
    frames: list = attrs.field(factory=list)
    pings: list = attrs.field(factory=list)
    close: CloseConnection | None = None
    _text: str = ""
    _taken: int = 0

    async def send(self, content):
        """Send one command."""
        text = content if isinstance(content, str) else orjson.dumps(content).decode()
        await self.stream.send_all(self.protocol.send(TextMessage(data=text)))

    async def read(self):
        """One read of the stream; false at its end."""
        data = await self.stream.receive_some(1_000_000)
        if not data:
            return False
        self.protocol.receive_data(data)
        for event in self.protocol.events():
            if isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    self.frames.append(orjson.loads(self._text))
                    self._text = ""
            elif isinstance(event, Ping):
                self.pings.append(bytes(event.payload))
                await self.stream.send_all(self.protocol.send(event.response()))
            elif isinstance(event, Pong):
                self.frames.append({"type": "pong", "payload": bytes(event.payload).decode()})
            elif isinstance(event, CloseConnection):
                self.close = event
        return True

    async def next(self, kind=None):
        """The next frame (of a type); EOFError when the connection ends first."""
        while True:
            while self._taken < len(self.frames):
                self._taken += 1
                frame = self.frames[self._taken - 1]
                if kind is None or frame["type"] == kind:
                    return frame
            with trio.fail_after(60):
                if not await self.read():
                    raise EOFError("the connection ended")

    async def rest(self):
        """Everything that is on its way, as far as a moment of silence."""
        with trio.move_on_after(0.5):
            while await self.read():
                pass
        fresh = self.frames[self._taken :]
        self._taken = len(self.frames)
        return fresh

    async def ask(self, cmd, params=None, command_id=1):
        """Send a command and take the next frame."""
        await self.send({"id": command_id, "cmd": cmd} | ({} if params is None else {"params": params}))
        return await self.next()


@attrs.define(eq=False)
class Rig:
    """The exchange with one member (`key` Ed25519, `rsa-key` RSA) and a house trader."""

    nursery: trio.Nursery
    server: object
    private_key: object = _ED
    key_id: str = "key"
    wrap: object = None
    """Put around each of our streams, when set."""
    _client: HttpClient | None = None

    def clock(self):
        """The exchange's wall clock."""
        return int(START + trio.current_time() * SECOND)

    def connect(self, pair=trio.testing.memory_stream_pair):
        """A new stream to the exchange."""
        ours, theirs = pair()
        self.nursery.start_soon(self.server.serve_stream, theirs)
        return self.wrap(ours) if self.wrap else ours

    def signed(self, method, path, *, skew_ms=0, key=None, key_id=None):
        """The three headers."""
        timestamp = str(self.clock() // 1_000 + skew_ms)
        text = f"{timestamp}{method}{path.partition('?')[0]}".encode()
        key = key or self.private_key
        if isinstance(key, rsa.RSAPrivateKey):
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            signature = key.sign(text, pss, hashes.SHA256())
        else:
            signature = key.sign(text)
        return {
            "KALSHI-ACCESS-KEY": key_id or self.key_id,
            "KALSHI-ACCESS-TIMESTAMP": timestamp,
            "KALSHI-ACCESS-SIGNATURE": b64encode(signature).decode(),
        }

    async def call(self, method, path, body=None, *, headers=None, raw=None):
        """A signed request below the prefix on the kept connection, and its answer."""
        if self._client is None:
            self._client = HttpClient(self.connect())
        target = PREFIX + path
        lines = self.signed(method, target) if headers is None else headers
        content = raw or b""
        if body is not None:
            content = orjson.dumps(body)
        if content:
            lines = {"Content-Type": "application/json", **lines}
        await self._client.send(method, target, lines, content)
        with trio.fail_after(90):
            return await self._client.receive()

    async def control(self, method, path, body=None):
        """A request to the back door, on a connection of its own."""
        client = HttpClient(self.connect())
        content = b"" if body is None else orjson.dumps(body)
        lines = {"Content-Type": "application/json"} if content else {}
        await client.send(method, "/control/" + path, lines, content)
        reply = await client.receive()
        await client.stream.aclose()
        return reply

    async def socket(self, *, headers=None, pair=trio.testing.memory_stream_pair):
        """An open WebSocket."""
        client = HttpClient(self.connect(pair))
        lines = self.signed("GET", WS_PATH) if headers is None else headers
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        await client.send("GET", WS_PATH, {**upgrade, **lines})
        reply = await client.receive()
        assert reply.status == 101, reply
        first = client.protocol.trailing_data[0]
        return SocketClient(client.stream, Connection(ConnectionType.CLIENT, trailing_data=first))

    async def create(self, side="bid", price="0.4000", count="10.00", ticker=TOR, **more):
        """A create request."""
        body = {
            "ticker": ticker,
            "side": side,
            "count": count,
            "price": price,
            "time_in_force": "good_till_canceled",
            "self_trade_prevention_type": "taker_at_cross",
            **more,
        }
        return await self.call("POST", "/portfolio/events/orders", body)

    def house(self, side, price, count, ticker=TOR, *, rest=True):
        """An order of somebody else."""
        request = OrderRequest(
            ticker=ticker,
            side=Side(side),
            price=parse_price(price),
            count=parse_count(count),
            time_in_force=TimeInForce.GTC if rest else TimeInForce.IOC,
        )
        return self.server.core.create(self.clock(), HOUSE, request)


async def open_rig(nursery, **options):
    """A rig on whatever clock runs: one NHL game on shard 0, one MLB market on shard 3."""
    rig = Rig(nursery, None)
    server = rig.server = open_exchange_server(
        clock=rig.clock, random=Random(7), ids=UuidSource(0xABCDEF), **options
    )
    core, now = server.core, rig.clock()
    core.add_series(now, SeriesSpec(ticker=SERIES, title="NHL Game"))
    core.add_series(now, SeriesSpec(ticker="KXMLBGAME", exchange_index=3))
    core.add_event(now, EventSpec(ticker=EVENT, series_ticker=SERIES, is_mutually_exclusive=True))
    core.add_event(now, EventSpec(ticker=MLB.rpartition("-")[0], series_ticker="KXMLBGAME", exchange_index=3))
    for ticker, index in ((TOR, 0), (BOS, 0), (MLB, 3)):
        core.add_market(
            now,
            MarketSpec(
                ticker=ticker,
                event_ticker=ticker.rpartition("-")[0],
                open_time=now - SECOND,
                close_time=now + 172_800 * SECOND,
                exchange_index=index,
                yes_sub_title=ticker[-3:],
                no_sub_title=ticker[-3:],
            ),
        )
    server.add_account(USER, {0: parse_money("10000"), 3: parse_money("500")})
    server.add_key("key", USER, _ED.public_key())
    server.add_key("rsa-key", USER, _RSA.public_key())
    core.add_user(HOUSE, is_house=True)
    nursery.start_soon(server.driver.run_timers)
    return rig


@pytest.fixture(name="rig")
async def _rig(nursery):
    """The exchange on the virtual clock, with a tier that is not in the way."""
    return await open_rig(nursery, tier="prestige")


@pytest.fixture(name="slow_rig")
async def _slow_rig(nursery):
    """The exchange with small socket queues and no pings."""
    limits = SocketLimits(queue_frames=20, heartbeat_s=None)
    return await open_rig(nursery, tier="prestige", socket_limits=limits)


@pytest.fixture(name="slow_limits")
def _slow_limits():
    """Small socket queues and no pings."""
    return SocketLimits(queue_frames=20, heartbeat_s=None)


@pytest.fixture(name="faults_of")
def _faults_of():
    """`faults_of(text)`: the faults of a `--faults` text."""

    def made(text):
        faults = Faults(random=Random(7))
        faults.add_spec(text)
        return faults

    return made


@pytest.fixture(name="basic_rig")
async def _basic_rig(nursery):
    """The exchange with the smallest budget."""
    return await open_rig(nursery, tier="basic")


@pytest.fixture(name="rsa_key")
def _rsa_key():
    """The member's RSA key."""
    return _RSA


@pytest.fixture(name="virtual_exchange")
def _virtual_exchange():
    """`run(main)`: a rig on a virtual clock of its own, for tests that are not trio tests themselves."""

    def run(main, **options):
        async def go():
            async with trio.open_nursery() as nursery:
                rig = await open_rig(nursery, tier="prestige", **options)
                with trio.fail_after(300):
                    await main(rig)
                nursery.cancel_scope.cancel(reason="done")

        trio.run(go, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


@pytest.fixture(name="recordings")
def _recordings():
    """The folder of a recording by name; skips when it is absent."""
    root = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[5] / "shared" / "data"))

    def folder(name):
        path = root / name
        if not path.is_dir():
            pytest.skip(f"no recording {name} (see MM_RECORDINGS)")
        return path

    return folder


@pytest.fixture(name="contract")
def _contract():
    """The REST contract table; skips when it is absent."""
    root = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[5] / "shared" / "data"))
    path = root.parent / "spec" / "rest-contract-3.34.0.json"
    if not path.is_file():
        pytest.skip("no contract table beside the recordings (see MM_RECORDINGS)")
    return orjson.loads(path.read_bytes())


@pytest.fixture(name="open_rig")
def _open_rig():
    """The function that opens a rig, for a test that chooses its options."""
    return open_rig


@pytest.fixture(name="rig_type")
def _rig_type():
    """The class of the rigs, for a test that makes its own."""
    return Rig

"""How much the embedded exchange carries: orders a second in, book updates a second out, and what bounds it.

    python bench/exchange.py [--seconds 5] [--no-profile]

The exchange runs in this process on loopback sockets; whoever trades or reads is a process of its own. Measured:

- core: creates and cancels by plain calls, nothing on the wire;
- orders: signed POSTs over kept connections, answered one after the other on each;
- feed: a house trader changes the books as fast as the exchange can, one reader takes every frame;
- feed beside a reader that does not read: the same, and the sleeper must end with error 25.

Then the profile of the order run: the share of each part. Exit code 1 when a slow reader cost the fast one more than a
third of its frames.
"""

import argparse
import base64
import cProfile
import json
import pstats
import socket
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import trio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mm.domain.numbers import CENT, CONTRACT, SECOND, Count, Money, Price
from mm.domain.order import Side
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, OrderRequest, SeriesSpec
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.server.app import monotonic_clock
from mm.exchange.embedded.server.server import ExchangeServer, open_exchange_server

ORDERS = "/trade-api/v2/portfolio/events/orders"
WS = "/trade-api/ws/v2"
MARKETS = 32
MEMBERS = 8
TICKERS = [f"KXNHLGAME-26DEC01G{i:02d}-{i % 2}" for i in range(MARKETS)]


def list_markets(core: ExchangeCore, now: int) -> None:
    """32 markets of one series."""
    core.add_series(now, SeriesSpec(ticker="KXNHLGAME"))
    core.add_event(now, EventSpec(ticker="KXNHLGAME-26DEC01", series_ticker="KXNHLGAME"))
    for ticker in TICKERS:
        core.add_market(
            now,
            MarketSpec(
                ticker=ticker, event_ticker="KXNHLGAME-26DEC01", open_time=now, close_time=now + 10**12
            ),
        )
    core.add_user("house", is_house=True)


# --- the load, in processes of its own ---


def signed(key: rsa.RSAPrivateKey, key_id: str, method: str, path: str) -> bytes:
    """The three headers; the body is not signed, so one signature serves for a while."""
    stamp = str(int(time.time() * 1000))
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    signature = key.sign(f"{stamp}{method}{path}".encode(), pss, hashes.SHA256())
    text = base64.b64encode(signature).decode()
    return (
        f"KALSHI-ACCESS-KEY: {key_id}\r\nKALSHI-ACCESS-TIMESTAMP: {stamp}\r\nKALSHI-ACCESS-SIGNATURE: {text}\r\n"
    ).encode()


def load_key(pem: str) -> rsa.RSAPrivateKey:
    """The throw-away key that was handed over."""
    return serialization.load_pem_private_key(pem.encode(), None)


async def send_orders(
    port: int, key: rsa.RSAPrivateKey, key_id: str, end: float, told: dict[str, int]
) -> None:
    """One connection, one order after the other."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    rng, fresh, headers = Random(key_id), 0.0, b""
    while time.monotonic() < end:
        if time.monotonic() > fresh:
            headers, fresh = signed(key, key_id, "POST", ORDERS), time.monotonic() + 5
        body = json.dumps(
            {
                "ticker": rng.choice(TICKERS),
                "side": rng.choice(("bid", "ask")),
                "count": "1.00",
                "price": f"0.{rng.randrange(40, 61)}00",
                "time_in_force": "good_till_canceled",
                "self_trade_prevention_type": "maker",
                "exchange_index": 0,
            }
        ).encode()
        head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        await stream.send_all(head.encode() + headers + b"\r\n" + body)
        answer = await stream.receive_some(65_536)
        told[answer[9:12].decode()] = told.get(answer[9:12].decode(), 0) + 1


async def trade(port: int, pem: str, seconds: float, connections: int) -> None:
    """`connections` traders, spread over the members; prints how often each status came."""
    key, told = load_key(pem), {}
    end = time.monotonic() + seconds
    async with trio.open_nursery() as nursery:
        for i in range(connections):
            nursery.start_soon(send_orders, port, key, f"key-{i % MEMBERS}", end, told)
    print(json.dumps(told))


def subscribe(port: int, pem: str) -> socket.socket:
    """A WebSocket with all books, by hand: nothing of a client's cost is in the figures."""
    line = socket.create_connection(("127.0.0.1", port))
    head = f"GET {WS} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    line.sendall(head.encode() + signed(load_key(pem), "key-0", "GET", WS) + b"\r\n")
    assert b" 101 " in line.recv(4096)
    text = json.dumps(
        {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": TICKERS}}
    )
    frame = bytes((0x81, 0x80 | 126)) + len(text).to_bytes(2, "big") + b"\0\0\0\0" + text.encode()
    line.sendall(frame)
    return line


def read_feed(port: int, pem: str, seconds: float) -> None:
    """Take every byte and count the deltas; prints how many came."""
    line = subscribe(port, pem)
    line.settimeout(1.0)
    count, tail, end = 0, b"", time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(TimeoutError):
            data = tail + line.recv(1_048_576)
            count += data.count(b'"orderbook_delta","sid"')
            tail = data[-24:] if not data.endswith(b"}\n") else b""
    print(json.dumps({"deltas": count}))


def sleep_on_feed(port: int, pem: str, seconds: float) -> None:
    """Subscribe and read nothing; afterwards read what is there: it must end with error 25."""
    line = subscribe(port, pem)
    time.sleep(seconds)
    line.settimeout(2.0)
    data = b""
    with suppress(TimeoutError, ConnectionError):
        while piece := line.recv(1_048_576):
            data = data[-4096:] + piece
            if b'"code":25' in data:
                break
    print(json.dumps({"overflowed": b'"code":25' in data}))


def child(
    mode: str, port: int, pem_file: Path, seconds: float, connections: int = 16
) -> subprocess.Popen[str]:
    """Start one of the above."""
    command = [sys.executable, __file__, "--child", mode, "--port", str(port), "--pem", str(pem_file)]
    command += ["--seconds", str(seconds), "--connections", str(connections)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# --- what is measured ---


def bench_core(seconds: float) -> float:
    """Creates and cancels a second by plain calls."""
    events = 0

    def emit(event: object) -> None:
        nonlocal events
        events += 1

    core, rng, now = ExchangeCore(Rules(), UuidSource(1), emit), Random(1), 1_796_166_600 * SECOND
    list_markets(core, now)
    for i in range(MEMBERS):
        core.add_user(f"m-{i}")
        core.deposit(now, f"m-{i}", 0, Money(10**14))
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        user = f"m-{done % MEMBERS}"
        request = OrderRequest(
            ticker=rng.choice(TICKERS),
            side=rng.choice((Side.BID, Side.ASK)),
            count=Count(CONTRACT),
            price=Price(rng.randrange(40, 61) * CENT),
        )
        result = core.create(now + done, user, request)
        done += 1
        if result.remaining_count and rng.random() < 0.5:
            core.cancel(now + done, user, result.order_id)
            done += 1
    return done / (time.perf_counter() - begun)


async def churn(server: ExchangeServer, told: dict[str, int], end: float) -> None:
    """The house puts levels up and takes them down, a batch at a time, for as long as readers keep up."""
    core, rng, resting = server.core, Random(5), []
    while time.monotonic() < end:
        now = server.driver.clock()
        for _ in range(100):
            if resting and rng.random() < 0.5:
                core.cancel(now, "house", resting.pop(rng.randrange(len(resting))))
            else:
                side = rng.choice((Side.BID, Side.ASK))
                cents = rng.randrange(30, 50) if side is Side.BID else rng.randrange(51, 70)
                request = OrderRequest(
                    ticker=rng.choice(TICKERS), side=side, count=Count(CONTRACT), price=Price(cents * CENT)
                )
                resting.append(core.create(now, "house", request).order_id)
            told["made"] = told.get("made", 0) + 1
        await trio.lowlevel.checkpoint()
        # A producer that ran away would measure the queue, not the wire.
        while any(s.socket.queued_frames > 5_000 for s in server.hub.sessions if not s.socket.is_full):
            if all(s.socket.queued_frames > 5_000 for s in server.hub.sessions):
                await trio.sleep(0.001)
            else:
                break


async def finish(process: subprocess.Popen[str]) -> dict[str, int]:
    """What a child printed."""
    out = await trio.to_thread.run_sync(process.communicate)
    return json.loads(out[0].strip().splitlines()[-1])


async def with_server(folder: Path, work):
    """Run `work(server, port, pem file)` beside a listening exchange."""
    server = open_exchange_server(
        clock=monotonic_clock(), random=Random(1), ids=UuidSource(2), tier="prestige"
    )
    list_markets(server.core, server.driver.clock())
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    for i in range(MEMBERS):
        server.add_account(f"member-{i}", {0: Money(10**14)})
        server.add_key(f"key-{i}", f"member-{i}", key.public_key())
    pem_file = folder / "bench.pem"
    pem_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(server.driver.run_timers)
        nursery.start_soon(trio.serve_listeners, server.serve_stream, listeners)
        found = await work(server, listeners[0].socket.getsockname()[1], pem_file)
        nursery.cancel_scope.cancel(reason="measured")
    return found


async def orders(seconds: float, connections: int, server: ExchangeServer, port: int, pem: Path):
    """Orders answered a second, and statuses."""
    del server
    return await finish(child("trade", port, pem, seconds, connections))


async def feed(seconds: float, server: ExchangeServer, port: int, pem: Path, *, sleeper: bool):
    """Book updates that reached the reader, a second."""
    readers = [child("read", port, pem, seconds)]
    if sleeper:
        readers.append(child("sleep", port, pem, seconds))
    while len(server.hub.sessions) < len(readers) or not all(s.subscriptions for s in server.hub.sessions):
        await trio.sleep(0.01)
    told: dict[str, int] = {}
    cpu, begun = time.process_time(), time.monotonic()
    await churn(server, told, begun + seconds - 0.5)
    spent = time.process_time() - cpu
    results = [await finish(reader) for reader in readers]
    overflowed = bool(results[1]["overflowed"]) if sleeper else None
    return results[0]["deltas"] / (seconds - 0.5), spent / (seconds - 0.5), overflowed


PARTS = (
    ("signature check", ("cryptography", "auth.py", "verify")),
    ("HTTP (h11)", ("h11",)),
    ("HTTP (ours)", ("server/http.py",)),
    ("trio and sockets", ("trio", "socket", "epoll", "selectors")),
    ("matching core", ("embedded/core", "domain")),
    (
        "REST layer",
        ("server/rest", "server/service", "server/fields", "server/wire", "server/routes", "server/server"),
    ),
    (
        "feed",
        ("server/hub", "server/frames", "server/websocket", "server/candles", "server/lag", "server/listing"),
    ),
    ("JSON", ("orjson",)),
)


def shares(profile: cProfile.Profile) -> list[tuple[str, float]]:
    """CPU by part, in percent of what was spent."""
    spent: dict[str, float] = defaultdict(float)
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():
        where = f"{file} {name}"
        if "poll" in name or "wait" in name:
            continue
        part = next((part for part, marks in PARTS if any(mark in where for mark in marks)), "the rest")
        spent[part] += own
    total = sum(spent.values())
    return sorted(((part, 100 * own / total) for part, own in spent.items()), key=lambda item: -item[1])


def main() -> int:
    """Measure and print."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--child")
    parser.add_argument("--port", type=int)
    parser.add_argument("--pem", type=Path)
    options = parser.parse_args()
    if options.child:
        pem = options.pem.read_text()
        if options.child == "trade":
            trio.run(trade, options.port, pem, options.seconds, options.connections)
        else:
            run = read_feed if options.child == "read" else sleep_on_feed
            run(options.port, pem, options.seconds)
        return 0
    seconds = options.seconds
    print(
        f"core, plain calls            {bench_core(min(seconds, 3.0)):>10,.0f} creates and cancels a second"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for connections in (1, options.connections):
            cpu = time.process_time()
            told = trio.run(with_server, folder, partial(orders, seconds, connections))
            cpu = time.process_time() - cpu
            answered = sum(told.values())
            each = cpu / max(answered, 1)
            print(
                f"orders, {connections:2} connections       {answered / seconds:>10,.0f} a second "
                f"with {100 * cpu / seconds:.0f}% of a core ({1e6 * each:,.0f} us each: {1 / each:,.0f} a second "
                f"with a whole one), statuses {told}"
            )
        alone, busy, _ = trio.run(with_server, folder, partial(feed, seconds, sleeper=False))
        print(
            f"feed, one reader             {alone:>10,.0f} book updates a second, {100 * busy:.0f}% of a core"
        )
        beside, busy, overflowed = trio.run(with_server, folder, partial(feed, seconds, sleeper=True))
        print(
            f"feed, beside one that sleeps {beside:>10,.0f} book updates a second with {100 * busy:.0f}% of a core, "
            f"the sleeper {'lost its subscription (25)' if overflowed else 'DID NOT overflow'}"
        )
        if not options.no_profile:
            for title, work in (
                ("an order", partial(orders, seconds, options.connections)),
                ("a book update", partial(feed, seconds, sleeper=False)),
            ):
                profile = cProfile.Profile()
                profile.enable()
                trio.run(with_server, folder, work)
                profile.disable()
                told_shares = ", ".join(
                    f"{part} {share:.0f}%" for part, share in shares(profile) if share >= 1
                )
                print(f"where {title} goes: {told_shares}")
    return 0 if overflowed and beside > alone * 2 / 3 else 1


if __name__ == "__main__":
    raise SystemExit(main())

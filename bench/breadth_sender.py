"""A venue's feed that sends as many deltas a second as it is told, over any number of markets. Started by `breadth`.

    python bench/breadth_sender.py --rate 10000

Prints the port, serves the WebSocket side of the protocol on loopback (any number of connections: subscriptions,
snapshots, pings), and begins to send when a line comes on stdin. A market's delta goes out on the connection that
subscribed to it. `ts_ms` is the time at which the delta was due, so that a sender that falls behind shows as lag, too.
No book ever runs dry: what a delta adds, the market's next one takes away.
"""

import argparse
import base64
import hashlib
import selectors
import socket
import sys
import time

import orjson
import wsproto
from frames import framed
from wsproto.events import CloseConnection, Ping, Request, TextMessage

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TICK_S = 0.001
LEVELS = 10
AHEAD = 5_000
"""Deltas that may be due at once after a stall; beyond, the clock of the sender is moved."""


class Line:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.protocol: wsproto.WSConnection | None = None
        self.head = b""
        self.text = ""
        self.channels: dict[int, str] = {}
        self.seq: dict[int, int] = {}
        self.book_sid = 0

    def upgrade(self, data: bytes) -> None:
        """The handshake, by hand."""
        self.head += data
        if b"\r\n\r\n" not in self.head:
            return
        key = next(
            line.split(b":", 1)[1].strip()
            for line in self.head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.socket.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        self.protocol.receive_data(self.head)
        assert isinstance(next(self.protocol.events()), Request)
        self.protocol.send(wsproto.events.AcceptConnection())

    def numbered(self, sid: int, kind: str, msg: object) -> bytes:
        """A frame with the next number of its subscription."""
        self.seq[sid] = self.seq.get(sid, 0) + 1
        return framed(orjson.dumps({"type": kind, "sid": sid, "seq": self.seq[sid], "msg": msg}) + b"\n")


class Sender:
    """The venue."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.selector.register(sys.stdin, selectors.EVENT_READ, "stdin")
        self.markets: dict[str, Line] = {}
        self.heads: list[tuple[Line, bytes, bytes]] = []
        self.is_going = False
        self.at = 0
        self.round = 0
        self.sent = 0

    def run(self) -> None:
        """Serve until stdin ends."""
        print(self.listener.getsockname()[1], flush=True)
        next_at = 0.0
        while True:
            wait = max(0.0, next_at - time.time()) if self.is_going else None
            for key, _ in self.selector.select(wait):
                if key.data is None:
                    sock, _ = self.listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.selector.register(sock, selectors.EVENT_READ, Line(sock))
                elif key.data == "stdin":
                    if not sys.stdin.readline():
                        return
                    self.start()
                    next_at = time.time()
                else:
                    self.receive(key.data)
            if self.is_going and time.time() >= next_at:
                self.burst(next_at)
                next_at = max(next_at + TICK_S, time.time() - AHEAD / self.rate)

    def receive(self, line: Line) -> None:
        """What a client says."""
        try:
            data = line.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self.selector.unregister(line.socket)
            line.socket.close()
            self.markets = {ticker: owner for ticker, owner in self.markets.items() if owner is not line}
            return
        if line.protocol is None:
            line.upgrade(data)
            return
        line.protocol.receive_data(data)
        for event in line.protocol.events():
            if isinstance(event, Ping):
                line.socket.sendall(line.protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                return
            elif isinstance(event, TextMessage):
                line.text += event.data
                if event.message_finished:
                    self.command(line, orjson.loads(line.text))
                    line.text = ""

    def command(self, line: Line, command: dict) -> None:
        """Subscribe and add markets; anything else is only acknowledged."""
        params, out = command["params"], bytearray()
        tickers = params.get("market_tickers") or []
        if command["cmd"] == "subscribe":
            channel = params["channels"][0]
            sid = len(line.channels) + 1
            line.channels[sid] = channel
            reply = {"type": "subscribed", "id": command["id"], "msg": {"channel": channel, "sid": sid}}
            out += framed(orjson.dumps(reply) + b"\n")
        else:
            sid = params["sids"][0]
            channel = line.channels[sid]
            out += line.numbered(sid, "ok", {"market_tickers": []})
        if channel == "orderbook_delta" and params.get("action") != "delete_markets":
            line.book_sid = sid
            for ticker in tickers:
                self.markets[ticker] = line
                bids = [[f"{0.50 - i / 100:.4f}", "100.00"] for i in range(1, 1 + LEVELS)]
                asks = [[f"{0.50 + i / 100:.4f}", "100.00"] for i in range(1, 1 + LEVELS)]
                msg = {"market_ticker": ticker, "market_id": "0d9c", "yes_dollars_fp": bids}
                out += line.numbered(sid, "orderbook_snapshot", {**msg, "no_dollars_fp": asks})
        line.socket.sendall(bytes(out))

    def start(self) -> None:
        """Prepare what stands in every delta of a market."""
        self.heads = []
        for number, (ticker, line) in enumerate(self.markets.items()):
            side, sign = ("yes", -1) if number % 2 else ("no", 1)
            # One delta in five moves the touch, the others a level behind it.
            price = 0.50 + sign * (1 + number % LEVELS) / 100
            middle = (
                f'"msg":{{"market_ticker":"{ticker}","market_id":"0d9c6f5e-1111-4222-8333-444455556666",'
                f'"price_dollars":"{price:.4f}","delta_fp":"'
            )
            tail = f'","side":"{side}","ts":"2026-12-01T23:10:00.123456Z","ts_ms":'
            self.heads.append((line, middle.encode(), tail.encode()))
        self.is_going = True

    def burst(self, due: float) -> None:
        """Everything of one tick, one send a connection."""
        count = max(1, round(self.rate * TICK_S)) if self.rate >= 1 / TICK_S else 1
        stamp = b"%d}}\n" % int(due * 1000)
        out: dict[Line, bytearray] = {}
        for _ in range(count):
            line, middle, tail = self.heads[self.at]
            sid = line.book_sid
            seq = line.seq[sid] = line.seq[sid] + 1
            change = b"-25.00" if self.round % 2 else b"25.00"
            body = b'{"type":"orderbook_delta","sid":%d,"seq":%d,%b%b%b%b' % (
                sid,
                seq,
                middle,
                change,
                tail,
                stamp,
            )
            out.setdefault(line, bytearray()).extend(b"\x81\x7e" + len(body).to_bytes(2, "big") + body)
            self.at += 1
            if self.at == len(self.heads):
                self.at, self.round = 0, self.round + 1
        for line, data in out.items():
            try:
                line.socket.sendall(data)
            except OSError:
                self.is_going = False
                return
        self.sent += count


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, required=True)
    Sender(parser.parse_args().rate).run()

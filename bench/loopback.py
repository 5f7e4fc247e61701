"""The venue's side of the bench: a WebSocket and a REST server on loopback that stamp what they send and read.

Bare sockets and one epoll loop, so that little of what is measured is ours: a request's time is taken when the read that
brought its last byte has returned. Every request is answered at once with what the venue would say; nothing is matched.
"""

import base64
import hashlib
import select
import socket
import ssl
import time
from dataclasses import dataclass, field

import orjson
import wsproto
from frames import framed
from wsproto.events import CloseConnection, Ping, TextMessage

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
STEP, BASE_BID, BASE_ASK, NEXT_ASK = 100, 5_000, 5_200, 5_400
"""Ticks of a cent. Taking the level at BASE_ASK away moves the middle by exactly one cent: both quotes must move."""
SIZE = "30.00"


def price_text(price: int) -> str:
    """A price as the wire has it."""
    return f"{price / 10_000:.4f}"


@dataclass(slots=True)
class Request:
    """One request, read to its last byte at `at` (perf_counter_ns)."""

    at: int
    method: str
    path: str

    @property
    def is_move(self) -> bool:
        """Takes away or moves a resting quote: the first thing that a quote at the wrong price needs."""
        return (self.method == "DELETE" and "/orders/" in self.path) or self.path.endswith("/amend")


@dataclass(eq=False)
class Line:
    """One accepted connection."""

    socket: socket.socket
    kind: str
    buffer: bytearray = field(default_factory=bytearray)
    protocol: wsproto.WSConnection | None = None
    channels: dict[int, str] = field(default_factory=dict)
    seq: dict[int, int] = field(default_factory=dict)
    book_sid: int = 0
    text: str = ""
    pongs: int = 0


class Loopback:
    """Both servers. `pump` serves whatever has come; nothing happens in between."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.poll = select.epoll()
        self.lines: dict[int, Line] = {}
        self.listeners: dict[int, tuple[socket.socket, str]] = {}
        self.ports: dict[str, int] = {}
        for kind in ("rest", "ws"):
            listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            self.listeners[listener.fileno()] = (listener, kind)
            self.ports[kind] = listener.getsockname()[1]
            self.poll.register(listener.fileno(), select.EPOLLIN)
        self.requests: list[Request] = []
        self.book: Line | None = None
        self.orders = 0

    def close(self) -> None:
        """Close everything."""
        for line in self.lines.values():
            line.socket.close()
        for listener, _ in self.listeners.values():
            listener.close()
        self.poll.close()

    # --- what the measures use ---

    def delta(self, ticker: str, price: int, change: str, side: str) -> bytes:
        """One framed delta, numbered."""
        line = self.book
        assert line is not None
        line.seq[line.book_sid] += 1
        stamp = time.time_ns()
        payload = (
            f'{{"type":"orderbook_delta","sid":{line.book_sid},"seq":{line.seq[line.book_sid]},'
            f'"msg":{{"market_ticker":"{ticker}","market_id":"0d9c6f5e-1111-4222-8333-444455556666",'
            f'"price_dollars":"{price_text(price)}","delta_fp":"{change}","side":"{side}",'
            f'"ts":"2026-12-01T23:10:00.123456Z","ts_ms":{stamp // 1_000_000}}}}}\n'
        )
        return framed(payload.encode())

    def send(self, data: bytes) -> int:
        """Send on the feed; returns when it began."""
        assert self.book is not None
        began = time.perf_counter_ns()
        self._send(self.book, data)
        return began

    def pump(self, timeout_s: float) -> None:
        """Serve what comes within the time, at most one round of it."""
        for number, _ in self.poll.poll(timeout_s):
            listener = self.listeners.get(number)
            if listener is not None:
                self._accept(*listener)
            else:
                self._receive(self.lines[number])

    def wait(self, is_done, timeout_s: float = 20.0) -> bool:  # type: ignore[no-untyped-def]
        """Serve until a condition holds; whether it does."""
        deadline = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > deadline:
                return False
            self.pump(0.05)
        return True

    def settle(self, quiet_s: float) -> None:
        """Serve until nothing has come for so long."""
        last = time.monotonic()
        seen = len(self.requests)
        while time.monotonic() - last < quiet_s:
            self.pump(quiet_s / 2)
            if len(self.requests) != seen:
                seen, last = len(self.requests), time.monotonic()

    # --- serving ---

    def _accept(self, listener: socket.socket, kind: str) -> None:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:
            try:
                accepted = self.context.wrap_socket(accepted, server_side=True)
            except OSError:
                return
        accepted.setblocking(False)
        self.lines[accepted.fileno()] = Line(accepted, kind)
        self.poll.register(accepted.fileno(), select.EPOLLIN)

    def _receive(self, line: Line) -> None:
        while True:
            try:
                data = line.socket.recv(65_536)
            except (ssl.SSLWantReadError, BlockingIOError):
                return
            except OSError:
                data = b""
            at = time.perf_counter_ns()
            if not data:
                number = line.socket.fileno()
                self.poll.unregister(number)
                del self.lines[number]
                line.socket.close()
                return
            line.buffer += data
            if line.kind == "rest":
                self._rest(line, at)
            else:
                self._socket(line)

    def _send(self, line: Line, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[line.socket.send(view) :]
            except (ssl.SSLWantWriteError, BlockingIOError):
                select.select([], [line.socket], [], 5.0)

    def _rest(self, line: Line, at: int) -> None:
        buffer = line.buffer
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[:end])
            place = head.lower().find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(buffer) < end + 4 + length:
                return
            body = bytes(buffer[end + 4 : end + 4 + length])
            del buffer[: end + 4 + length]
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.requests.append(Request(at, method, target.partition("?")[0]))
            self._send(line, self._answer(method, target.partition("?")[0], body))

    def _answer(self, method: str, path: str, sent: bytes) -> bytes:
        status, body = "200 OK", b"{}"
        last = path.rsplit("/", 1)[1]
        if path.endswith("/order_groups/create"):
            status, body = "201 Created", b'{"order_group_id":"group-1"}'
        elif method == "POST" and last == "orders":
            self.orders += 1
            status = "201 Created"
            body = (
                b'{"order_id":"00000000-0000-4000-8000-%012d","fill_count":"0.00","remaining_count":"10.00","ts_ms":1}'
                % self.orders
            )
        elif last == "batched":
            gone = [
                {"order_id": item["order_id"], "reduced_by": "10.00"} for item in orjson.loads(sent)["orders"]
            ]
            body = orjson.dumps({"orders": gone})
        elif method == "DELETE":
            body = b'{"order_id":"%s","reduced_by":"10.00","ts_ms":1}' % last.encode()
        elif last == "amend":
            body = (
                b'{"order_id":"%s","fill_count":"0.00","remaining_count":"10.00","ts_ms":1}' % last.encode()
            )
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def _socket(self, line: Line) -> None:
        if line.protocol is None:
            if b"\r\n\r\n" not in line.buffer:
                return
            head = bytes(line.buffer)
            line.buffer.clear()
            key = next(
                row.split(b":", 1)[1].strip()
                for row in head.split(b"\r\n")
                if row.lower().startswith(b"sec-websocket-key")
            )
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            self._send(
                line,
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n",
            )
            line.protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
            line.protocol.receive_data(head)
            next(line.protocol.events())
            line.protocol.send(wsproto.events.AcceptConnection())
            return
        line.protocol.receive_data(bytes(line.buffer))
        line.buffer.clear()
        for event in line.protocol.events():
            if isinstance(event, Ping):
                self._send(line, line.protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                return
            elif isinstance(event, TextMessage):
                line.text += event.data
                if event.message_finished:
                    self._command(line, orjson.loads(line.text))
                    line.text = ""

    def _command(self, line: Line, command: dict) -> None:  # type: ignore[type-arg]
        params, out = command["params"], bytearray()
        if command["cmd"] == "subscribe":
            channel = params["channels"][0]
            sid = len(line.channels) + 1
            line.channels[sid], line.seq[sid] = channel, 0
            reply = {"type": "subscribed", "id": command["id"], "msg": {"channel": channel, "sid": sid}}
            out += framed(orjson.dumps(reply) + b"\n")
        else:
            sid = params["sids"][0]
            channel = line.channels[sid]
            out += self._numbered(line, sid, "ok", {"market_tickers": []})
        if channel == "orderbook_delta":
            line.book_sid, self.book = sid, line
            for ticker in params.get("market_tickers") or []:
                bids = [[price_text(BASE_BID - i * STEP), SIZE] for i in range(40)]
                asks = [[price_text(p), SIZE] for p in (BASE_ASK, *range(NEXT_ASK, NEXT_ASK + 3_900, STEP))]
                msg = {"market_ticker": ticker, "market_id": "0d9c", "yes_dollars_fp": bids}
                out += self._numbered(line, sid, "orderbook_snapshot", {**msg, "no_dollars_fp": asks})
        self._send(line, bytes(out))

    def _numbered(self, line: Line, sid: int, kind: str, msg: object) -> bytes:
        line.seq[sid] += 1
        return framed(orjson.dumps({"type": kind, "sid": sid, "seq": line.seq[sid], "msg": msg}) + b"\n")

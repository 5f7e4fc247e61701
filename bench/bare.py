"""The limit: blocking sockets, a book of ints, the bytes of a request ready but for price and order. No framework, no care.

What a Python process on this machine cannot go below; nobody should trade with it. Started by `bench/run.py`.
"""

import base64
import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from names import tickers


def connect(url: str, ca: str) -> socket.socket:
    """A connected socket, with TLS where a certificate is given."""
    host, port = url.split("://")[1].split(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if ca:
        sock = ssl.create_default_context(cafile=ca).wrap_socket(sock, server_hostname=host)
    return sock


def main(options: dict) -> None:  # type: ignore[type-arg]
    """Everything."""
    key = load_pem_private_key(Path(options["key"]).read_bytes(), password=None)
    stamp = str(int(time.time() * 1000))
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    signature = base64.b64encode(key.sign(f"{stamp}POST/x".encode(), pss, hashes.SHA256())).decode()  # type: ignore[union-attr,call-arg]
    signed = f"KALSHI-ACCESS-KEY: bench\r\nKALSHI-ACCESS-TIMESTAMP: {stamp}\r\nKALSHI-ACCESS-SIGNATURE: {signature}\r\n"
    rest, feed = connect(options["rest"], options["ca"]), connect(options["ws"], options["ca"])
    feed.sendall(
        b"GET /trade-api/ws/v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n\r\n"
    )
    buffer = bytearray()
    while b"\r\n\r\n" not in buffer:
        buffer += feed.recv(65_536)
    buffer = buffer[buffer.index(b"\r\n\r\n") + 4 :]
    params = {"channels": ["orderbook_delta"], "market_tickers": tickers(options["markets"])}
    payload = json.dumps({"id": 1, "cmd": "subscribe", "params": params}).encode()
    size = len(payload)
    length = b"\xfe" + size.to_bytes(2, "big") if 125 < size < 65_536 else b"\xff" + size.to_bytes(8, "big")
    feed.sendall(b"\x81" + length + bytes(4) + payload)
    books: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    wanted: dict[str, int] = {}
    head = f" HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n{signed}Content-Type: application/json\r\n".encode()
    prices = {f"{p / 10_000:.4f}": p for p in range(0, 10_001, 100)}
    while True:
        at, end = 0, len(buffer)
        while end - at >= 2:
            length, start = buffer[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if start + length > end:
                break
            message = (
                orjson.loads(bytes(buffer[start : start + length])) if buffer[at] == 0x81 else {"type": ""}
            )
            at = start + length
            msg = message.get("msg")
            if message["type"] == "orderbook_delta":
                ticker = msg["market_ticker"]
                bids, asks = books[ticker]
                levels = bids if msg["side"] == "yes" else asks
                price = prices[msg["price_dollars"]]
                count = levels.get(price, 0) + int(msg["delta_fp"].replace(".", ""))
                if count:
                    levels[price] = count
                else:
                    del levels[price]
                middle = (max(bids) + min(asks)) // 2
                if abs(middle - wanted[ticker]) >= 100:
                    wanted[ticker] = middle
                    body = b'{"ticker":"%s","side":"bid","price":"%.4f","count":"10.00"}' % (
                        ticker.encode(),
                        (middle - 100) / 10_000,
                    )
                    rest.sendall(
                        b"POST /trade-api/v2/portfolio/events/orders/00000000-0000-4000-8000-000000000001/amend"
                        + head
                        + b"Content-Length: %d\r\n\r\n" % len(body)
                        + body
                    )
                    rest.recv(65_536)
            elif message["type"] == "orderbook_snapshot":
                ticker = msg["market_ticker"]
                books[ticker] = (
                    {prices[p]: int(s.replace(".", "")) for p, s in msg["yes_dollars_fp"]},
                    {prices[p]: int(s.replace(".", "")) for p, s in msg["no_dollars_fp"]},
                )
                wanted[ticker] = (max(books[ticker][0]) + min(books[ticker][1])) // 2
        del buffer[:at]
        data = feed.recv(65_536)
        if not data:
            return
        buffer += data


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

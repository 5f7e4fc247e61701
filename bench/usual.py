"""The usual bot, for comparison: asyncio, websockets, httpx, json, Decimal, a signature for each request.

Written as such bots are written, by someone who knows these libraries: one keep-alive client with enough connections,
uvloop left out as most leave it out, no logging, no waiting in the feed's loop (requests are tasks), a quote touched
only when the best price moved and its own price is a cent off. Started by `bench/run.py`.
"""

import asyncio
import base64
import json
import ssl
import sys
import time
import uuid
from decimal import Decimal
from pathlib import Path

import httpx
import websockets
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from names import tickers

CENT = Decimal("0.01")


class Market:
    """A book of Decimals and the two quotes in it."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}
        self.touch: tuple[Decimal, Decimal] | None = None
        self.quotes: dict[str, tuple[str, Decimal]] = {}
        """Side -> order id and price."""


class Bot:
    """Quotes a cent either side of the middle in every market."""

    def __init__(self, options: dict) -> None:  # type: ignore[type-arg]
        self.options = options
        self.key = load_pem_private_key(Path(options["key"]).read_bytes(), password=None)
        self.names = tickers(options["markets"])
        self.markets = {ticker: Market() for ticker in self.names}
        context: ssl.SSLContext | bool = False
        if options["ca"]:
            context = ssl.create_default_context(cafile=options["ca"])
        self.context = context
        self.base = options["rest"]
        self.http = httpx.AsyncClient(
            verify=context, limits=httpx.Limits(max_connections=20, max_keepalive_connections=20), timeout=4.0
        )
        self.tasks: set[asyncio.Task[None]] = set()

    def headers(self, method: str, path: str) -> dict[str, str]:
        """The signature of one request."""
        timestamp = str(int(time.time() * 1000))
        signature = self.key.sign(  # type: ignore[union-attr,call-arg]
            f"{timestamp}{method}{path}".encode(),
            padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH),
            hashes.SHA256(),
        )
        return {
            "KALSHI-ACCESS-KEY": "bench",
            "KALSHI-ACCESS-TIMESTAMP": timestamp,
            "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
        }

    async def write(self, method: str, path: str, body: dict) -> dict:  # type: ignore[type-arg]
        """One signed request."""
        path = "/trade-api/v2" + path
        reply = await self.http.request(
            method, self.base + path, json=body, headers=self.headers(method, path)
        )
        reply.raise_for_status()
        return reply.json()  # type: ignore[no-any-return]

    async def place(self, ticker: str, side: str, price: Decimal) -> None:
        """A first quote."""
        body = {
            "ticker": ticker,
            "client_order_id": str(uuid.uuid4()),
            "side": side,
            "count": "10.00",
            "price": f"{price:.4f}",
            "time_in_force": "good_till_canceled",
            "post_only": True,
        }
        reply = await self.write("POST", "/portfolio/events/orders", body)
        self.markets[ticker].quotes[side] = (reply["order_id"], price)

    async def move(self, ticker: str, side: str, price: Decimal) -> None:
        """Another price for a quote that rests."""
        order_id, _ = self.markets[ticker].quotes[side]
        self.markets[ticker].quotes[side] = (order_id, price)
        body = {"ticker": ticker, "side": side, "price": f"{price:.4f}", "count": "10.00"}
        await self.write("POST", f"/portfolio/events/orders/{order_id}/amend", body)

    def decide(self, ticker: str, market: Market) -> None:
        """Best prices, middle, quotes; start what must be sent."""
        if not market.bids or not market.asks:
            return
        touch = max(market.bids), min(market.asks)
        if touch == market.touch:
            return
        market.touch = touch
        middle = (touch[0] + touch[1]) / 2
        for side, wanted in (("bid", middle - CENT), ("ask", middle + CENT)):
            quote = market.quotes.get(side)
            if quote is not None and abs(wanted - quote[1]) >= CENT:
                task = asyncio.create_task(self.move(ticker, side, wanted.quantize(CENT)))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    def on_message(self, text: str | bytes) -> None:
        """One frame."""
        message = json.loads(text)
        kind = message["type"]
        if kind == "orderbook_delta":
            msg = message["msg"]
            ticker = msg["market_ticker"]
            market = self.markets[ticker]
            levels = market.bids if msg["side"] == "yes" else market.asks
            price = Decimal(msg["price_dollars"])
            size = levels.get(price, Decimal(0)) + Decimal(msg["delta_fp"])
            if size > 0:
                levels[price] = size
            else:
                levels.pop(price, None)
            self.decide(ticker, market)
        elif kind == "orderbook_snapshot":
            msg = message["msg"]
            market = self.markets[msg["market_ticker"]]
            market.bids = {Decimal(p): Decimal(s) for p, s in msg.get("yes_dollars_fp", [])}
            market.asks = {Decimal(p): Decimal(s) for p, s in msg.get("no_dollars_fp", [])}

    async def run(self) -> None:
        """Subscribe, place the quotes, follow the feed until it ends."""
        path = "/trade-api/ws/v2"
        context = self.context if isinstance(self.context, ssl.SSLContext) else None
        async with websockets.connect(
            self.options["ws"] + path,
            additional_headers=self.headers("GET", path),
            ssl=context,
            compression=None,
            max_size=None,
        ) as socket:
            command = {
                "id": 1,
                "cmd": "subscribe",
                "params": {"channels": ["orderbook_delta"], "market_tickers": self.names},
            }
            await socket.send(json.dumps(command))
            while not all(market.bids for market in self.markets.values()):
                self.on_message(await socket.recv())
            for ticker in self.names[: self.options["quoted"]]:
                await asyncio.gather(
                    self.place(ticker, "bid", Decimal("0.50")), self.place(ticker, "ask", Decimal("0.52"))
                )
            async for text in socket:
                self.on_message(text)


if __name__ == "__main__":
    asyncio.run(Bot(json.loads(sys.argv[1])).run())

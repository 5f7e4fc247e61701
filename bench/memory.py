"""Whether memory stays flat: hours of the whole bot on a virtual clock, with millions of messages and real churn.

    python bench/memory.py [--hours 8] [--messages 5000000] [--markets 64]

The session as `mm run` runs it (discovery, feed adapter, strategy, scheduler, desk, reconciler, ledger on disk, monitor),
against a venue in this process that keeps no more than is asked of it: books drift, quotes are replaced, takers fill them,
exits cross. Every frame goes through the real adapter over a stream in memory. Printed: RSS every half hour of virtual
time, its slope over the last three quarters (least squares), orders, messages, and the longest garbage collection by
generation. Exit code 1 when the slope is 1 MB an hour or more, a full collection took more than 2 ms, or there were too few
orders or messages. Linux only (reads /proc).
"""

import argparse
import base64
import gc
import hashlib
import itertools
import logging
import os
import sys
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import attrs
import orjson
import structlog
import trio
import wsproto
from cryptography.hazmat.primitives.asymmetric import ed25519
from frames import framed
from trio.testing import MockClock, memory_stream_pair

from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.market import Event, Market, MarketStatus, Series
from mm.domain.numbers import (
    CENT,
    DOLLAR,
    SECOND,
    Count,
    Micros,
    Money,
    Price,
    format_count,
    format_price,
)
from mm.domain.order import GroupId, MarketTicker, OrderId, Side, TimeInForce
from mm.exchange import endpoints
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import Ed25519Signer
from mm.exchange.port import (
    Balance,
    Bucket,
    ExchangeError,
    ExchangeRejected,
    ExchangeStatus,
    Feed,
    NewOrder,
    NotRestingHere,
    OrderGroup,
    OrderRef,
    OrderReport,
    OrderStatus,
    Page,
    PlaceAck,
    RateLimits,
    VenuePosition,
)
from mm.session import run as session_run
from mm.session.run import RunOptions, run_session
from mm.session.surroundings import Surroundings
from mm.session.trading import Trading
from mm.session.venue import Access, Venue
from mm.session.warm import freeze_memory
from mm.settings import Secret, load_settings

PAGE = os.sysconf("SC_PAGE_SIZE")
START = 1_790_000_000 * SECOND
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEPT_ORDERS = 2_000
KEPT_FILLS = 300
LEVELS = 5
TICK_S = 5.0
DRIFT_EACH_S = 20.0
TAKE_EACH_S = 3.0
MAX_SLOPE = 1.0
MAX_PAUSE_MS = 2.0


def clock() -> Micros:
    """The wall clock that goes with the virtual one."""
    return Micros(START + round(trio.current_time() * SECOND))


def rss_mb() -> float:
    """This process's resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


@attrs.define(eq=False)
class Tape:
    """The market data side: books that drift, one connection at a time."""

    names: list[MarketTicker]
    rng: Random
    a_tick: int
    """Deltas a tick."""
    mids: dict[MarketTicker, int] = attrs.field(factory=dict)
    """In cents."""
    levels: dict[MarketTicker, dict[tuple[str, int], int]] = attrs.field(factory=dict)
    watched: list[MarketTicker] = attrs.field(factory=list)
    known: set[MarketTicker] = attrs.field(factory=set)
    stream: trio.abc.Stream | None = None
    sids: dict[str, int] = attrs.field(factory=dict)
    seqs: dict[int, int] = attrs.field(factory=dict)
    out: bytearray = attrs.field(factory=bytearray)
    messages: int = 0
    sending: trio.Lock = attrs.field(factory=trio.Lock)

    def __attrs_post_init__(self) -> None:
        for name in self.names:
            self.mids[name] = self.rng.randrange(35, 65)
            self.levels[name] = {}
            self.settle(name, silent=True)

    def wanted(self, name: MarketTicker) -> dict[tuple[str, int], int]:
        """The book that belongs to the mid: levels each side of it, with the far sizes as they are."""
        mid, old = self.mids[name], self.levels[name]
        keys = [("yes", mid - 1 - i) for i in range(LEVELS)] + [("no", mid + 1 + i) for i in range(LEVELS)]
        return {key: old.get(key, 10_000) for key in keys}

    def settle(self, name: MarketTicker, *, silent: bool = False) -> None:
        """Bring the book to its mid, what goes before what comes."""
        old, new = self.levels[name], self.wanted(name)
        if not silent:
            for key, size in old.items():
                if key not in new:
                    self.delta(name, key, -size)
            for key, size in new.items():
                if key not in old:
                    self.delta(name, key, size)
        self.levels[name] = new

    def delta(self, name: MarketTicker, key: tuple[str, int], change: int) -> None:
        """One level, on the wire."""
        sid = self.sids.get("orderbook_delta")
        if sid is None or name not in self.known:
            return
        self.numbered(
            sid,
            "orderbook_delta",
            {
                "market_ticker": name,
                "market_id": "0d9c",
                "price_dollars": f"{key[1] / 100:.4f}",
                "delta_fp": f"{change / 100:.2f}",
                "side": key[0],
                "ts_ms": clock() // 1000,
            },
        )

    def trade(self, name: MarketTicker, price: int, count: int, taker: Side) -> None:
        """A print."""
        sid = self.sids.get("trade")
        if sid is not None:
            msg = {"trade_id": f"p-{self.messages}", "market_ticker": name, "ts_ms": clock() // 1000}
            msg |= {"yes_price_dollars": format_price(Price(price)), "count_fp": format_count(Count(count))}
            msg |= {"taker_book_side": taker.value, "is_block_trade": False}
            self.numbered(sid, "trade", msg)

    def numbered(self, sid: int, kind: str, msg: object) -> None:
        """A frame with the next number of its subscription."""
        self.seqs[sid] = self.seqs.get(sid, 0) + 1
        self.messages += 1
        self.out += framed(orjson.dumps({"type": kind, "sid": sid, "seq": self.seqs[sid], "msg": msg}))

    def private(self, channel: str, kind: str, msg: object) -> None:
        """A frame of a channel without numbers."""
        sid = self.sids.get(channel)
        if sid is not None:
            self.messages += 1
            self.out += framed(orjson.dumps({"type": kind, "sid": sid, "msg": msg}))

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """A connection to this tape; an earlier one is given up."""
        del host, port
        ours, theirs = memory_stream_pair()
        self.stream, self.sids, self.seqs = theirs, {}, {}
        self.watched, self.known = [], set()
        return ours

    async def serve(self) -> None:
        """Answer commands of the connection that is there."""
        while True:
            stream = self.stream
            if stream is None:
                await trio.sleep(0.05)
                continue
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some(65_536)
            key = next(
                line.split(b":", 1)[1].strip()
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"sec-websocket-key")
            )
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            await stream.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
            protocol.receive_data(head)
            list(protocol.events())
            protocol.send(wsproto.events.AcceptConnection())
            text = ""
            while data := await stream.receive_some(65_536):
                protocol.receive_data(bytes(data))
                for event in protocol.events():
                    if isinstance(event, wsproto.events.Ping):
                        self.out += protocol.send(event.response())
                    elif isinstance(event, wsproto.events.TextMessage):
                        text += event.data
                        if event.message_finished:
                            self.command(orjson.loads(text))
                            text = ""
                await self.flush()
            self.stream = None

    def command(self, command: dict[str, Any]) -> None:
        """Subscribe, add markets, ask for snapshots."""
        params = command["params"]
        tickers = params.get("market_tickers") or []
        if command["cmd"] == "subscribe":
            channel = params["channels"][0]
            sid = self.sids[channel] = len(self.seqs) + len(self.sids) + 1
            reply = {"type": "subscribed", "id": command["id"], "msg": {"channel": channel, "sid": sid}}
            self.out += framed(orjson.dumps(reply))
        else:
            sid = params["sids"][0]
            self.numbered(sid, "ok", {"market_tickers": []})
        if sid == self.sids.get("orderbook_delta") and params.get("action") != "delete_markets":
            for name in tickers:
                if name not in self.known:
                    self.watched.append(name)
                    self.known.add(name)
                sides: dict[str, list[list[str]]] = {"yes": [], "no": []}
                for (side, cents), size in self.levels[name].items():
                    sides[side].append([f"{cents / 100:.4f}", f"{size / 100:.2f}"])
                msg = {"market_ticker": name, "market_id": "0d9c", "yes_dollars_fp": sides["yes"]}
                self.numbered(sid, "orderbook_snapshot", {**msg, "no_dollars_fp": sides["no"]})

    async def flush(self) -> None:
        """Send what has gathered."""
        async with self.sending:
            if self.out and self.stream is not None:
                data, self.out = bytes(self.out), bytearray()
                await self.stream.send_all(data)

    def tick(self) -> None:
        """The deltas of a tick: some books drift, the rest is noise behind the touch and at it."""
        before = self.messages
        for name in self.watched:
            if self.rng.random() < TICK_S / DRIFT_EACH_S:
                self.mids[name] = min(80, max(20, self.mids[name] + self.rng.choice((-2, -1, 1, 2))))
                self.settle(name)
        while self.watched and self.messages - before < self.a_tick:
            name = self.rng.choice(self.watched)
            key = self.rng.choice(tuple(self.levels[name]))
            size = self.rng.randrange(2_000, 20_000, 100)
            if change := size - self.levels[name][key]:
                self.delta(name, key, change)
                self.levels[name][key] = size


@attrs.define(eq=False)
class TapedVenue:
    """The account side: orders and fills, the newest few kept."""

    tape: Tape
    limits_: RateLimits
    account: str = "bench"
    live: dict[OrderId, OrderReport] = attrs.field(factory=dict)
    done: "OrderedDict[OrderId, OrderReport]" = attrs.field(factory=OrderedDict)
    spent_ids: int = 0
    fills: deque[Fill] = attrs.field(factory=lambda: deque(maxlen=KEPT_FILLS))
    nets: dict[MarketTicker, int] = attrs.field(factory=dict)
    cash: int = 10_000_000_000
    group_index: dict[GroupId, int] = attrs.field(factory=dict)
    triggered: set[GroupId] = attrs.field(factory=set)
    created: int = 0
    all_fills: int = 0
    _ids: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    # --- takers ---

    def take(self) -> None:
        """Somebody meets one of the resting quotes."""
        if self.live:
            report = self.tape.rng.choice(list(self.live.values()))
            self.fill(
                report,
                report.price,
                min(int(report.remaining), self.tape.rng.randrange(100, 600)),
                Liquidity.MAKER,
            )
            self.tape.trade(report.ticker, report.price, 300, report.side.opposite)

    def fill(self, report: OrderReport, price: int, count: int, liquidity: Liquidity) -> OrderReport:
        """Book it, tell it."""
        number = next(self._ids)
        fill = Fill(
            order_id=report.order_id,
            trade_id=TradeId(f"t-{number}"),
            ticker=report.ticker,
            side=report.side,
            price=Price(price),
            count=Count(count),
            fee=Money(0),
            liquidity=liquidity,
            ts=clock(),
        )
        self.fills.append(fill)
        self.all_fills += 1
        signed = count * report.side.sign
        self.nets[report.ticker] = self.nets.get(report.ticker, 0) + signed
        self.cash -= price * signed
        self.tape.private(
            "fill",
            "fill",
            {
                "order_id": report.order_id,
                "trade_id": fill.trade_id,
                "market_ticker": report.ticker,
                "count_fp": format_count(fill.count),
                "yes_price_dollars": format_price(fill.price),
                "is_taker": liquidity is Liquidity.TAKER,
                "fee_cost": "0.000000",
                "book_side": report.side.value,
                "client_order_id": report.client_order_id,
                "ts_ms": clock() // 1000,
            },
        )
        left = Count(report.remaining - count)
        changed = attrs.evolve(
            report,
            filled=Count(report.filled + count),
            remaining=left,
            status=OrderStatus.RESTING if left else OrderStatus.EXECUTED,
            updated_at=clock(),
        )
        self.keep(changed)
        return changed

    def keep(self, report: OrderReport) -> None:
        """The order as it is now."""
        if report.status is OrderStatus.RESTING:
            self.live[report.order_id] = report
            return
        self.live.pop(report.order_id, None)
        self.done[report.order_id] = report
        while len(self.done) > KEPT_ORDERS:
            self.done.popitem(last=False)

    def expire(self) -> None:
        """What nobody has renewed goes."""
        for report in [r for r in self.live.values() if r.expires_at is not None and r.expires_at <= clock()]:
            self.keep(
                attrs.evolve(report, status=OrderStatus.CANCELLED, remaining=Count(0), updated_at=clock())
            )

    # --- the port ---

    async def series(self, ticker: str) -> Series:
        """The one there is."""
        await trio.sleep(0.003)
        return Series(ticker=ticker, fee_multiplier=Fraction(0))

    async def event(self, ticker: str) -> Event:
        """Without overrides."""
        await trio.sleep(0.003)
        return Event(ticker=ticker)

    async def markets(self, **filters: Any) -> list[Market]:
        """All of them, or those asked for."""
        await trio.sleep(0.003)
        tickers = filters.get("tickers")
        return [
            Market(
                ticker=name,
                event_ticker=name.rpartition("-")[0],
                status=MarketStatus.ACTIVE,
                grid=uniform_grid(CENT),
                close_time=Micros(START + 10 * 86_400 * SECOND),
                volume=Count(100_000),
            )
            for name in self.tape.names
            if tickers is None or name in tickers
        ]

    async def status(self) -> ExchangeStatus:
        """It trades."""
        await trio.sleep(0.003)
        return ExchangeStatus(exchange_active=True, trading_active=True)

    async def limits(self) -> RateLimits:
        """As given."""
        await trio.sleep(0.003)
        return self.limits_

    async def balance(self) -> Balance:
        """Cash after what short positions owe."""
        await trio.sleep(0.003)
        return Balance(total=Money(self.cash - DOLLAR * sum(-n for n in self.nets.values() if n < 0)))

    async def positions(self) -> list[VenuePosition]:
        """What the fills add up to."""
        await trio.sleep(0.003)
        return [
            VenuePosition(ticker=t, position=Count(n), fees_paid=Money(0), realized_pnl=Money(0))
            for t, n in self.nets.items()
        ]

    async def fills_page(
        self, *, since: Micros | None = None, order_id: Any = None, cursor: Any = None
    ) -> Page[Fill]:
        """Newest first."""
        await trio.sleep(0.003)
        floor = 0 if since is None else since - since % SECOND
        found = list(itertools.takewhile(lambda f: f.ts >= floor, reversed(self.fills)))
        return Page(items=[f for f in found if order_id in (None, f.order_id)], cursor=None)

    async def orders_page(
        self, *, status: Any = None, ticker: Any = None, since: Any = None, cursor: Any = None
    ) -> Page[OrderReport]:
        """Newest first."""
        await trio.sleep(0.003)
        rows = list(self.live.values())
        if status is not OrderStatus.RESTING:
            rows += self.done.values()
        found = [
            r
            for r in reversed(rows)
            if status in (None, r.status)
            and ticker in (None, r.ticker)
            and (since is None or (r.created_at or 0) >= since)
        ]
        return Page(items=found, cursor=None)

    async def order(self, order_id: OrderId) -> OrderReport:
        """One order."""
        await trio.sleep(0.003)
        found = self.live.get(order_id) or self.done.get(order_id)
        if found is None:
            raise NotRestingHere("no such order", status=404, code="not_found")
        return found

    async def settlements_page(self, **more: Any) -> Page[Any]:
        """Nothing settles here."""
        await trio.sleep(0.003)
        return Page(items=[], cursor=None)

    async def user_data_age(self) -> Micros:
        """Reads do not lag."""
        await trio.sleep(0.003)
        return clock()

    async def groups(self) -> list[OrderGroup]:
        """All of them."""
        await trio.sleep(0.003)
        return [
            OrderGroup(group_id=g, exchange_index=i, is_triggered=g in self.triggered)
            for g, i in self.group_index.items()
        ]

    async def place(self, order: NewOrder) -> PlaceAck:
        """Rest it, or meet the book at its best price."""
        await trio.sleep(0.006)
        mid = self.tape.mids[order.ticker] * CENT
        best = mid + CENT if order.side is Side.BID else mid - CENT
        meets = (order.price - best) * order.side.sign >= 0
        if order.post_only and meets:
            raise ExchangeRejected("invalid order: post only cross", status=400, code="invalid_order")
        if order.group_id in self.triggered:
            raise ExchangeRejected("order group is triggered", status=409, code="order_group_triggered")
        self.created += 1
        report = OrderReport(
            order_id=OrderId(f"o-{next(self._ids)}"),
            client_order_id=order.client_order_id,
            ticker=order.ticker,
            side=order.side,
            price=order.price,
            status=OrderStatus.RESTING,
            initial=order.count,
            filled=Count(0),
            remaining=order.count,
            group_id=order.group_id,
            expires_at=order.expires_at,
            created_at=clock(),
            updated_at=clock(),
        )
        if meets:
            report = self.fill(report, best, int(order.count), Liquidity.TAKER)
        elif order.time_in_force is TimeInForce.IOC:
            report = attrs.evolve(report, status=OrderStatus.CANCELLED, remaining=Count(0))
        self.keep(report)
        await self.tape.flush()
        return PlaceAck(order_id=report.order_id, filled=report.filled, remaining=report.remaining)

    async def amend(
        self, ref: OrderRef, *, side: Side, price: Price, count: Count, expires_at: Micros | None = None
    ) -> None:
        """Change a resting order."""
        await trio.sleep(0.006)
        order = self.resting(ref.order_id)
        if count <= order.filled:
            raise ExchangeRejected("count is filled already", status=400, code="invalid_parameters")
        left = Count(count - order.filled)
        expiry = expires_at or order.expires_at
        self.keep(
            attrs.evolve(
                order, price=price, initial=count, remaining=left, expires_at=expiry, updated_at=clock()
            )
        )

    async def decrease(self, ref: OrderRef, *, reduce_to: Count) -> None:
        """Not used by the bot."""
        raise ExchangeRejected("not here", status=400)

    async def cancel(self, ref: OrderRef) -> Count:
        """Take it off."""
        await trio.sleep(0.006)
        return self.off(ref.order_id)

    def off(self, order_id: OrderId) -> Count:
        """The same without the way there."""
        order = self.resting(order_id)
        self.keep(attrs.evolve(order, status=OrderStatus.CANCELLED, remaining=Count(0), updated_at=clock()))
        return order.remaining

    async def cancel_batch(self, refs: Sequence[OrderRef]) -> list[ExchangeError | None]:
        """Each by itself."""
        await trio.sleep(0.006)
        found: list[ExchangeError | None] = []
        for ref in refs:
            try:
                self.off(ref.order_id)
                found.append(None)
            except ExchangeError as exc:
                found.append(exc)
        return found

    def resting(self, order_id: OrderId) -> OrderReport:
        """Raises `NotRestingHere`."""
        if order_id not in self.live:
            raise NotRestingHere("not found", status=404, code="not_found")
        return self.live[order_id]

    async def create_group(self, *, contracts_limit: int, exchange_index: int) -> GroupId:
        """A new group."""
        await trio.sleep(0.006)
        group_id = GroupId(f"g-{next(self._ids)}")
        self.group_index[group_id] = exchange_index
        return group_id

    async def trigger_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """All its orders go."""
        await trio.sleep(0.006)
        self.triggered.add(group_id)
        for report in [r for r in self.live.values() if r.group_id == group_id]:
            self.off(report.order_id)

    async def delete_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """Forget it."""
        await trio.sleep(0.006)
        self.group_index.pop(group_id, None)

    async def keep_ready(self) -> Any:
        """Nothing to prepare."""
        await trio.sleep_forever()

    def expect(self, ref: OrderRef) -> None:
        """Nothing to prepare."""

    def open_feed(self) -> AbstractAsyncContextManager[Feed]:
        """The real adapter's feed, over a stream in memory."""

        @asynccontextmanager
        async def opened() -> AsyncGenerator[Feed, None]:
            options = kalshi_options("http://127.0.0.1:1/trade-api/v2", "ws://127.0.0.1:1/trade-api/ws/v2")
            signer = Ed25519Signer("bench", ed25519.Ed25519PrivateKey.generate())
            async with (
                open_kalshi(
                    options, signer, clock=clock, randomness=Random(1), connect=self.tape.connect
                ) as exchange,
                exchange.open_feed() as feed,
            ):
                yield feed

        return opened()


class Pauses:
    """The longest collections, by generation."""

    def __init__(self) -> None:
        self.longest = [0.0, 0.0, 0.0]
        self.count = [0, 0, 0]
        self.is_on = False
        self._begun = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        elif self.is_on:
            generation = info["generation"]
            self.count[generation] += 1
            self.longest[generation] = max(self.longest[generation], time.perf_counter() - self._begun)


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Least squares, MB an hour."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


async def live(options: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """One life of the bot."""
    seconds = options.hours * 3_600
    names = [MarketTicker(f"KXNHLGAME-26SEP21G{i:03d}-A") for i in range(options.markets)]
    a_tick = round(options.messages / seconds * TICK_S * 1.05) + 2
    tape = Tape(names, Random(7), a_tick)
    bucket = Bucket(refill_per_s=300.0, capacity=600.0)
    limits = RateLimits(
        tier="advanced",
        read=Bucket(refill_per_s=400.0, capacity=800.0),
        write=bucket,
        costs={endpoints.CANCEL: 2},
    )
    exchange: Any = TapedVenue(tape, limits)
    pauses: Pauses = found["pauses"]

    async def inline(work: Any, /) -> Any:
        await trio.lowlevel.checkpoint()
        return work()

    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncGenerator[Venue, None]:
        access = Access(rest_url="", ws_url="", key_id="", pem=Secret(""), pem_setting="")
        yield Venue(exchange=exchange, access=access, is_paper=False, label="bench")

    settings = load_settings(
        {
            "KALSHI_ENV": "demo",
            "LIVE_TRADING_ENABLED": "true",
            "KALSHI_API_KEY": "key",
            "KALSHI_API_SECRET": "secret",
            "MM_DATA_DIR": str(folder),
            "WEB_ADDRESS": "off",
            "MARKET_DATE": "any",
            "MAX_MARKETS_TO_TRADE": str(options.markets),
            "MAX_GLOBAL_INVENTORY": "100000",
            "MAX_INVENTORY_PER_MARKET": "50",
            "PORTFOLIO_MAE_LIMIT": "0",
            "DAILY_LOSS_LIMIT": "1000000",
            **dict(pair.split("=", 1) for pair in options.set),
        },
        environ={},
        dotenv=Path("/nonexistent/.env"),
    )
    surroundings = Surroundings(
        clock=clock,
        randomness=Random(1),
        random_below=Random(2).randrange,
        connect=tape.connect,
        runner=inline,
    )

    async def play(trading: Trading) -> None:
        await trio.sleep(30)
        begun, next_take, next_sample = trio.current_time(), 0.0, 0.0
        freeze_memory()  # as `mm run` does once it is warm
        pauses.is_on = True
        while (at := trio.current_time() - begun) < seconds:
            tape.tick()
            if at >= next_take:
                next_take = at + tape.rng.expovariate(1 / TAKE_EACH_S)
                exchange.take()
            exchange.expire()
            await tape.flush()
            if at >= next_sample:
                next_sample += 300.0
                found["samples"].append((at / 3_600, rss_mb()))
                if round(at) % 1_800 < TICK_S:
                    print(
                        f"{at / 3_600:5.1f} h  RSS {rss_mb():6.1f} MB  messages {tape.messages:>9,}  "
                        f"orders {exchange.created:>8,}  fills {exchange.all_fills:>7,}  "
                        f"wall {time.monotonic() - found['started']:6.0f} s  "
                        f"slope of the last hour {slope(found['samples'][-12:]):+.2f} MB/h",
                        flush=True,
                    )
            await trio.sleep(TICK_S)
        pauses.is_on = False
        found.update(messages=tape.messages, orders=exchange.created, fills=exchange.all_fills)
        trading.stop("the hours are over")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tape.serve)
        with mock.patch.object(session_run, "open_venue", opened):
            found["summary"] = await run_session(
                settings,
                surroundings,
                RunOptions(on_trading=lambda trading, tasks: tasks.start_soon(play, trading)),
            )
        nursery.cancel_scope.cancel(reason="the hours are over")


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--messages", type=int, default=5_000_000)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--markets", type=int, default=64)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found: dict[str, Any] = {"samples": [], "pauses": Pauses(), "started": time.monotonic()}
    # In memory where there is such a folder: what is measured is not the disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        trio.run(live, options, Path(name), found, clock=MockClock(autojump_threshold=0))
    samples, pauses, summary = found["samples"], found["pauses"], found["summary"]
    print(f"summary: {summary.reason}, exit code {int(summary.exit_code)}")
    if "messages" not in found:
        print("the bot ended before its hours were over")
        return 1
    late = [sample for sample in samples if sample[0] >= options.hours / 4]
    growth = slope(late)
    full_ms = 1_000 * pauses.longest[2]
    print(f"{found['messages']:,} messages, {found['orders']:,} orders, {found['fills']:,} fills")
    print(f"RSS slope over the last {options.hours * 3 / 4:g} hours: {growth:+.3f} MB an hour")
    print(
        "longest collection: "
        + ", ".join(
            f"generation {g} {1_000 * pauses.longest[g]:.2f} ms of {pauses.count[g]:,}" for g in range(3)
        )
    )
    is_good = growth < MAX_SLOPE and full_ms <= MAX_PAUSE_MS
    is_enough = found["messages"] >= options.messages and found["orders"] >= options.orders
    print(
        "flat" if is_good else "NOT FLAT, or a pause too long",
        "" if is_enough else "(TOO FEW orders or messages)",
    )
    return 0 if is_good and is_enough else 1


if __name__ == "__main__":
    sys.exit(main())

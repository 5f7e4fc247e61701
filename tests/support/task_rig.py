"""The bot's parts wired to the fake exchange, for tests on trio's virtual clock."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from fake_exchange import FakeExchange, virtual_clock
from mm.domain.fill import Fill, Trade, TradeId
from mm.domain.grid import TickGrid, uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, Order, Side
from mm.engine.parameters import StrategyParameters
from mm.exchange.port import Bucket, ExchangeError, OrderReport
from mm.ledger import Ledger, open_ledger
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.desk import OrderDesk
from mm.tasks.feed import FeedHandler
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.ids import OrderIds
from mm.tasks.positions import Positions
from mm.tasks.quoter import Quoter, QuoterTools
from mm.tasks.reconcile import Reconciler
from mm.tasks.resolve import Resolver

GAME = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
"""The market of most tests; `START` of the fake exchange lies on that day."""
CENTS = uniform_grid(CENT)
_CHANNELS: list[object] = []
"""Kept for good: trio warns about channels that are dropped without being closed, and a rig has no end to close in."""
BID, ASK = Side.BID, Side.ASK


def make_market(ticker: str = GAME, *, grid: TickGrid = CENTS, **changes: Any) -> Market:
    """An active market."""
    settings: dict[str, Any] = {
        "ticker": MarketTicker(ticker),
        "event_ticker": ticker.rpartition("-")[0],
        "status": MarketStatus.ACTIVE,
        "grid": grid,
    }
    return Market(**(settings | changes))


@attrs.define
class Records:
    """A recorder that only remembers."""

    orders: list[tuple[str, str]] = attrs.field(factory=list)
    """(client id, state), as recorded."""
    groups: list[GroupId] = attrs.field(factory=list)
    triggered: list[GroupId] = attrs.field(factory=list)
    flushes: int = 0

    def record_order(self, order: Order) -> None:
        """Remember it."""
        self.orders.append((order.client_order_id, order.state.value))

    def record_group(self, group_id: GroupId, *, exchange_index: int, epoch: int) -> None:
        """Remember it."""
        self.groups.append(group_id)

    def record_group_triggered(self, group_id: GroupId) -> None:
        """Remember it."""
        self.triggered.append(group_id)

    async def flush(self) -> None:
        """Count it."""
        self.flushes += 1


@attrs.define(eq=False, kw_only=True)
class TaskRig:
    """Everything that a quoter needs, on a fake exchange. Use `with_quoter` for a running one."""

    exchange: FakeExchange = attrs.field(factory=FakeExchange)
    parameters: StrategyParameters = attrs.field(factory=StrategyParameters)
    reserve: float = 0.0
    quote_ttl: Micros | None = Micros(60 * SECOND)
    positions: Positions = attrs.field(factory=Positions)
    records: Records = attrs.field(factory=Records)
    troubles: list[tuple[str, str]] = attrs.field(factory=list)
    """(write, message) of what quoters reported."""
    look_ups: int = 0
    switched_off: str = ""
    floor: Floor = attrs.field(init=False)
    writes: WriteBudget = attrs.field(init=False)
    reads: ReadBudget = attrs.field(init=False)
    desk: OrderDesk = attrs.field(init=False)
    fence: Fence = attrs.field(init=False)
    resolver: Resolver = attrs.field(init=False)
    ids: OrderIds = attrs.field(factory=lambda: OrderIds("mm", "test"))
    tools: QuoterTools = attrs.field(init=False)
    handler: FeedHandler = attrs.field(init=False)
    fills: trio.MemoryReceiveChannel[Fill] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        exchange, clock = self.exchange, virtual_clock
        limits = exchange.rate_limits()
        self.floor = Floor(parameters=self.parameters, clock=clock, positions=self.positions)
        self.floor.is_feed_up = True
        self.writes = WriteBudget(limits, clock, self.reserve)
        self.reads = ReadBudget(limits, clock)
        self.desk = OrderDesk(exchange, self.records, self.writes, clock, self.floor.order_changed)
        self.floor.desk = self.desk
        self.fence = Fence(exchange, self.records, self.writes, 800)
        self.resolver = Resolver(exchange, self.desk, self.writes, self.reads, clock, self._look_up)
        self.tools = QuoterTools(
            desk=self.desk,
            resolver=self.resolver,
            fence=self.fence,
            budget=self.writes,
            ids=self.ids,
            clock=clock,
            quote_ttl=self.quote_ttl,
            why_stopped=lambda: self.switched_off,
            is_fencing=lambda: self.floor.is_fencing,
            on_trouble=self._trouble,
        )
        send, self.fills = trio.open_memory_channel(1_000)
        _CHANNELS.extend((send, self.fills))
        self.handler = FeedHandler(floor=self.floor, fills=send)
        exchange.sink = self.handler

    async def _look_up(self) -> None:
        self.look_ups += 1
        for fill in self.exchange.fills:
            self.floor.apply_fill(fill)

    def _trouble(self, ticker: MarketTicker, what: str, exc: ExchangeError) -> None:
        self.troubles.append((what, str(exc)))

    # --- moving the world ---

    def drain(self) -> None:
        """All write tokens of shard 0 are gone."""
        bucket = self.writes.bucket(0)
        bucket.refill(virtual_clock())
        bucket.tokens = 0.0

    def book(self, bid: int, ask: int, ticker: MarketTicker = GAME) -> None:
        """The whole book is now 100 contracts at each of two prices; then the read ends."""
        size = Count(10_000)
        self.exchange.others[ticker, BID] = [(Price(bid), size)]
        self.exchange.others[ticker, ASK] = [(Price(ask), size)]
        now = virtual_clock()
        self.handler.on_snapshot(ticker, [(Price(bid), size)], [(Price(ask), size)], now)
        self.handler.on_read_end(now)

    def print(self, price: int, ticker: MarketTicker = GAME, *, taker: Side = BID) -> None:
        """A public trade; then the read ends."""
        now = virtual_clock()
        self.handler.on_trade(
            Trade(
                trade_id=TradeId(f"p{now}-{price}"),
                ticker=ticker,
                price=Price(price),
                count=Count(100),
                taker_side=taker,
                ts=now,
            )
        )
        self.handler.on_read_end(now)

    def add_quoter(self, ticker: MarketTicker = GAME, **changes: Any) -> Quoter:
        """The market's maker and quoter; the task is not started."""
        quoter = Quoter(self.floor.add_market(make_market(ticker, **changes)), self.tools)
        self.floor.quoters[ticker] = quoter
        return quoter

    @asynccontextmanager
    async def with_quoter(self, bid: int = 4_000, ask: int = 6_000) -> AsyncGenerator[Quoter, None]:
        """A running quoter and budget; the book is given. Everything is cancelled at the end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writes.run)
            quoter = self.add_quoter()
            await nursery.start(quoter.run)
            self.book(bid, ask)
            yield quoter
            nursery.cancel_scope.cancel()

    def resting(self, side: Side, ticker: MarketTicker = GAME) -> list[OrderReport]:
        """Our quotes of a side that rest, by the exchange's own word."""
        return [r for r in self.exchange.resting(ticker) if r.side is side]

    def only(self, side: Side) -> OrderReport:
        """The one quote that rests on a side."""
        (found,) = self.resting(side)
        return found

    def prices(self) -> tuple[list[int], list[int]]:
        """Prices of our resting bids and asks."""
        return [r.price for r in self.resting(BID)], [r.price for r in self.resting(ASK)]

    def reconciler(self, ledger: Ledger) -> Reconciler:
        """A reconciler over the same floor."""
        return Reconciler(
            exchange=self.exchange,
            ledger=ledger,
            floor=self.floor,
            reads=self.reads,
            writes=self.writes,
            ids=self.ids,
            clock=virtual_clock,
        )


def tight_budget(refill_per_s: float, capacity: float) -> FakeExchange:
    """An exchange whose write budget is small."""
    return FakeExchange(write_bucket=Bucket(refill_per_s=refill_per_s, capacity=capacity))


def open_books(folder: Path, session: str = "s1") -> AbstractAsyncContextManager[Ledger]:
    """A ledger that works inline, so that the virtual clock stays true."""

    async def inline(work: Any, /) -> Any:
        return work()

    return open_ledger(
        folder / "ledger.sqlite3",
        account="fake|key|0|live",
        runner=inline,
        clock=virtual_clock,
        session=session,
    )

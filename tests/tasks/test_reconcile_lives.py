"""Any interleaving of fills over both sources, with loss, delay, doubling, disorder, crashes and restarts.

Whatever happened, once the exchange can be read the ledger is its history, each fill once, and the results add up.
"""

import sqlite3
import tempfile
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from hypothesis import given, note, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fake_exchange import FakeExchange, virtual_clock
from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.market import Series
from mm.domain.numbers import Count, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.exchange.port import Settlement
from mm.ledger import Ledger, open_ledger
from mm.tasks.reconcile import Reconciler
from task_rig import GAME, TaskRig

MARKETS = (GAME, MarketTicker("KXNHLGAME-26SEP21TORBOS-BOS"))


class Killed(BaseException):
    """The process is gone: nothing of it runs on."""


class Connection(sqlite3.Connection):
    """Dies at a chosen statement, as a killed process does: what was not committed is lost."""

    left: int | None = None

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        if sql == "PRAGMA synchronous = FULL":
            sql = "PRAGMA synchronous = OFF"  # the same for a kill, without waiting for the disk
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = 0  # and not one statement more
                raise Killed
        return super().execute(sql, values)


@attrs.frozen
class Trade:
    """Somebody trades with the account; the socket tells it `times` times."""

    market: int
    side: Side
    price: int
    count: int
    times: int
    is_late: bool
    is_hidden: bool
    """Reads do not show it before the next long wait, though they show younger ones."""


@attrs.frozen
class Later:
    """Held back frames of the socket arrive, in another order."""

    seed: int


@attrs.frozen
class Poll:
    """A pass of the reconciler; with `lag` seconds."""

    lag: float


@attrs.frozen
class Book:
    """The booking task writes what waits."""


@attrs.frozen
class Wait:
    """Time passes."""

    seconds: float


@attrs.frozen
class Settle:
    """A market pays."""

    market: int
    value: int


@attrs.frozen
class Kill:
    """The process dies at the `statement`th statement of the ledger from now on (at once, when it writes none)."""

    statement: int


prices = st.integers(1, 99).map(lambda cents: cents * 100)
trades = st.builds(
    Trade,
    market=st.integers(0, 1),
    side=st.sampled_from(Side),
    price=prices,
    count=st.integers(1, 900),
    times=st.integers(0, 2),
    is_late=st.booleans(),
    is_hidden=st.sampled_from([False, False, True]),
)
steps = st.one_of(
    trades,
    trades,
    trades,
    st.builds(Poll, lag=st.just(0.0)),
    st.builds(Later, seed=st.integers(0, 5)),
    st.builds(Poll, lag=st.sampled_from([0.0, 0.0, 3.0])),
    st.builds(Book),
    st.builds(Wait, seconds=st.sampled_from([0.0005, 0.3, 4.0, 100.0])),
    st.builds(Settle, market=st.integers(0, 1), value=st.integers(0, 100).map(lambda cents: cents * 100)),
    st.builds(Kill, statement=st.integers(0, 25)),
)


@attrs.define(eq=False)
class World:
    """The exchange, and one life of the bot's books after the other on one file."""

    folder: Path
    exchange: FakeExchange = attrs.field(factory=FakeExchange)
    late: list[Fill] = attrs.field(factory=list)
    hidden: list[Fill] = attrs.field(factory=list)
    lives: int = 0
    serial: int = 0
    rig: TaskRig = attrs.field(init=False)
    ledger: Ledger = attrs.field(init=False)
    reconciler: Reconciler = attrs.field(init=False)
    connection: Connection = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.exchange.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME", fee_type=FeeType.QUADRATIC)

    @asynccontextmanager
    async def life(self) -> AsyncGenerator[None, None]:
        """A new life reads the file; ends as after kill -9: what was not committed is gone."""
        self.lives += 1
        self.rig = TaskRig(exchange=self.exchange)

        def connect(path: str) -> sqlite3.Connection:
            self.connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, factory=Connection
            )
            return self.connection

        async def inline(work: Any, /) -> Any:
            return work()

        try:
            async with open_ledger(
                self.folder / "ledger.sqlite3",
                account=self.exchange.account,
                runner=inline,
                clock=virtual_clock,
                session=f"s{self.lives}",
                connect=connect,
            ) as self.ledger:
                self.reconciler = self.rig.reconciler(self.ledger)
                await self.reconciler.load()
                yield
                raise Killed
        except Killed:
            self.connection.close()

    async def step(self, step: Any) -> None:
        """One thing happens."""
        if isinstance(step, Trade):
            await trio.sleep(0.000_7)  # no two at the same microsecond, some in the same millisecond
            self._trade(step)
        elif isinstance(step, Later):
            late, self.late = self.late, []
            for fill in sorted(
                late, key=lambda f: (f.ts * (step.seed + 1) % 7, f.trade_id[:: (-1) ** step.seed])
            ):
                self.rig.handler.on_fill(fill)
        elif isinstance(step, Poll):
            self.exchange.read_lag = step.lag
            await self.reconciler.pass_fills()
            await self.reconciler.read_settlements()
        elif isinstance(step, Book):
            while self.rig.fills.statistics().current_buffer_used:
                await self.reconciler.book_now(self.rig.fills, [self.rig.fills.receive_nowait()])
        elif isinstance(step, Wait):
            if step.seconds > 10:
                self._show_hidden()
            await trio.sleep(step.seconds)
        elif isinstance(step, Settle):
            self._settle(step)
        else:
            self.connection.left = step.statement

    def _trade(self, step: Trade) -> None:
        ticker = MARKETS[step.market]
        if any(row.ticker == ticker for row in self.exchange.settled):
            return
        self.serial += 1
        fill = Fill(
            order_id=OrderId(f"o{self.serial % 3}-{ticker}-{step.side.value}"),
            trade_id=TradeId(f"t{self.serial * 7_919 % 1_000:03d}-{self.serial}"),
            ticker=ticker,
            side=step.side,
            price=Price(step.price),
            count=Count(step.count),
            fee=Money(0),
            liquidity=Liquidity.MAKER,
            ts=virtual_clock(),
        )
        (self.hidden if step.is_hidden else self.exchange.fills).append(fill)
        for _ in range(step.times):
            # The socket's times are in milliseconds.
            frame = attrs.evolve(fill, ts=fill.ts // 1000 * 1000)
            if step.is_late:
                self.late.append(frame)
            else:
                self.rig.handler.on_fill(frame)

    def _show_hidden(self) -> None:
        self.exchange.fills += self.hidden
        self.hidden.clear()

    def _settle(self, step: Settle) -> None:
        ticker = MARKETS[step.market]
        if all(row.ticker != ticker for row in self.exchange.settled):
            self.exchange.settled.append(
                Settlement(
                    ticker=ticker,
                    value=Price(step.value),
                    settled_at=virtual_clock(),
                    yes_count=Count(0),
                    no_count=Count(0),
                    fee=Money(0),
                )
            )

    async def check(self) -> None:
        """Reads are current: after two passes everything is equal, in the ledger and in memory."""
        self.exchange.read_lag = 0.0
        self._show_hidden()
        await trio.sleep(1)
        for _ in range(2):
            await self.step(Poll(0.0))
        await self.step(Book())
        theirs = {fill.key: fill for fill in self.exchange.fills}
        settled = {row.ticker: row.value for row in self.exchange.settled}
        ours = [fill for ticker in MARKETS for fill in await self.ledger.fills_of(ticker)]
        assert len(ours) == len(theirs)
        assert {fill.key: fill for fill in ours} == theirs
        cash = sum(-f.price * f.signed_count for f in ours)
        marked = 0
        for n, ticker in enumerate(MARKETS):
            net = sum(fill.signed_count for fill in ours if fill.ticker == ticker)
            if ticker in settled:
                cash += net * settled[ticker]
                assert self.rig.positions.net(ticker) == 0
                continue
            mark = Price(3_300 + 1_000 * n)
            state = self.rig.positions.inventory(ticker)
            assert state.net == net
            assert [layer.ts for layer in state.layers] == sorted(layer.ts for layer in state.layers)
            cash += net * mark
            marked += state.unrealized(mark)
        assert self.rig.positions.realized() + marked == cash
        await self.ledger.flush()
        rows = await self.ledger.settlements()
        traded = {fill.ticker for fill in ours}
        assert {row.ticker: row.value for row in rows if row.ticker in traded} == {
            ticker: value for ticker, value in settled.items() if ticker in traded
        }


async def live(folder: Path, script: list[Any]) -> None:
    """Play the script; a killed life is followed by the next one, the last one is checked, and the file alone too."""
    world = World(folder)
    ahead = deque(script)
    checks = 0
    while checks < 2:
        async with world.life():
            while ahead:
                await world.step(ahead.popleft())
            await world.check()
            checks += 1


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=8, max_size=40))
def test_the_ledger_is_the_exchanges_history_whatever_happens(script: list[Any]) -> None:
    """Fills equal, each once, in order; realized and unrealized equal cash flow and marked position."""
    note(str(script))
    with tempfile.TemporaryDirectory() as folder:
        trio.run(live, Path(folder), script, clock=MockClock(autojump_threshold=0))

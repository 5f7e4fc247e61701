"""Builders for ledger tests: fills, orders, and an opener whose runner works inline."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side
from mm.ledger import Ledger, open_ledger

T = TypeVar("T")


async def inline(work: Callable[[], T], /) -> T:
    """The simulation's runner."""
    return work()


@attrs.define
class Crash(BaseException):
    """The process is gone: nothing of it may run on."""


class FaultyConnection(sqlite3.Connection):
    """Fails at the statement numbered `fail_at` (0 is the next one).

    With `on_crash` the process dies there: it is called once, and not one statement runs afterwards.
    """

    fail_at: int | None = None
    on_crash: Callable[[], None] | None = None
    is_dead = False

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        if self.is_dead:
            raise Crash
        if sql == "PRAGMA synchronous = FULL":
            # What a killed process leaves is the same without waiting for the disk, and the tests are 20 times faster.
            sql = "PRAGMA synchronous = OFF"
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                self.fail_at = None
                self.is_dead = self.on_crash is not None
                if self.on_crash is None:
                    raise sqlite3.OperationalError("injected")
                self.on_crash()
                raise Crash
        return super().execute(sql, values)


def make_fill(n: int = 1, **changes: Any) -> Fill:
    """Fill number `n` of order `o1`: its time grows with `n`."""
    fill = Fill(
        order_id=OrderId("o1"),
        trade_id=TradeId(f"t{n:04d}"),
        ticker=MarketTicker("KXNHLGAME-26DEC01TORBOS-TOR"),
        side=Side.BID,
        price=Price(4100),
        count=Count(200),
        fee=Money(8500),
        liquidity=Liquidity.MAKER,
        ts=Micros(1_700_000_000_000_000 + n * 1_000_123),
    )
    return attrs.evolve(fill, **changes)


def make_order(n: int = 1, **changes: Any) -> Order:
    """Order number `n`: client id `mm-s1-n`, no venue id yet."""
    settings: dict[str, Any] = {
        "client_order_id": ClientOrderId(f"mm-s1-{n}"),
        "ticker": MarketTicker("KXNHLGAME-26DEC01TORBOS-TOR"),
        "side": Side.BID,
        "price": Price(4100),
        "count": Count(1000),
        "state": OrderState.SENT,
    }
    return Order(**(settings | changes))


@attrs.define
class Books:
    """Makes ledgers on one folder, with a clock that is a number."""

    folder: Path
    now: int = 1_700_000_000_000_000
    connections: list[FaultyConnection] = attrs.field(factory=list)
    crash: type[BaseException] = Crash
    inline: Any = staticmethod(inline)
    fill: Callable[..., Fill] = staticmethod(make_fill)
    order: Callable[..., Order] = staticmethod(make_order)

    @property
    def path(self) -> Path:
        return self.folder / "ledger.sqlite3"

    def connect(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=0.05, isolation_level=None, check_same_thread=False, factory=FaultyConnection
        )
        self.connections.append(connection)
        return connection

    def open(self, **options: Any) -> AbstractAsyncContextManager[Ledger]:
        path = options.pop("path", self.path)
        settings = {
            "account": "sim|key|0|live",
            "runner": inline,
            "clock": lambda: Micros(self.now),
            "session": "s1",
            "connect": self.connect,
        }
        return open_ledger(path, **(settings | options))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    for connection in made.connections:
        connection.close()


@pytest.fixture(scope="session")
def books_for() -> type[Books]:
    """For tests that make folders themselves."""
    return Books

"""Each fill with its afterlife: the book's mid at the fill and 1 s, 5 s, 30 s and 5 min later, and what it belongs to.

One line of JSON a fill, appended to `attribution.jsonl` in the data folder once its last look is over (or at the end of the
session, with what is known by then): market, side, strategy, regime, place in the queue. Prices in 1/10,000 dollar, counts in
1/100 contract, money in 1/1,000,000 dollar, times in microseconds. `mm attribution` sums it up. It decides nothing, and a
disk that refuses costs lines, which are counted, and no trading.
"""

import json
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

import attrs
import structlog
import trio

from mm.domain.fill import Fill, Liquidity
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import ClientOrderId, MarketTicker, OrderId
from mm.engine.strategies.signals import QueuePlace
from mm.tasks.floor import Floor

log = structlog.get_logger(__name__)

FILE_NAME: Final = "attribution.jsonl"
HORIZONS_S: Final = (1, 5, 30, 300)
TICK_S: Final = 0.25
"""Between two looks; a mid is taken at most so late."""
LATE: Final = Micros(2 * SECOND)
"""A look that comes later than this is no look."""
KEPT: Final = 20_000
"""Fills that wait for their last look; older ones are written early when there are more."""


class Runner(Protocol):
    """Runs blocking work off the event loop."""

    def __call__(self, work: Callable[[], None], /) -> Awaitable[None]: ...


@attrs.define(eq=False)
class _Waiting:
    """A fill whose looks are not all over."""

    row: dict[str, Any]
    at: Micros
    ticker: MarketTicker
    next: int = 0
    """Of `HORIZONS_S`."""


@attrs.define(eq=False, kw_only=True)
class Attribution:
    """Notes fills and looks again. `add` is told of each new fill, after the inventory moved."""

    floor: Floor
    clock: Callable[[], Micros]
    path: Path
    runner: Runner
    session: str = ""
    lost: int = 0
    """Lines that could not be written."""
    _waiting: deque[_Waiting] = attrs.field(factory=deque)
    _done: list[str] = attrs.field(factory=list)
    _queues: dict[MarketTicker, QueuePlace] = attrs.field(factory=dict)
    _places: dict[OrderId, ClientOrderId] = attrs.field(factory=dict)

    def add(self, fill: Fill) -> None:
        """A new fill of ours."""
        maker = self.floor.makers.get(fill.ticker)
        own = self._places.get(fill.order_id) or fill.client_order_id
        queue = self._queues.get(fill.ticker)
        row = {
            "at": fill.ts,
            "trade": f"{fill.order_id} {fill.trade_id}",
            "market": fill.ticker,
            "side": fill.side.value,
            "price": fill.price,
            "count": fill.count,
            "fee": fill.fee,
            "maker": fill.liquidity is Liquidity.MAKER,
            "strategy": maker.strategy.name if maker is not None else "",
            "regime": maker.context.regime.value if maker is not None else "unknown",
            "ahead": queue.ahead(own) if queue is not None and own is not None else None,
            "mid": self._twice_mid(fill.ticker),
            "later": [],
            "session": self.session,
        }
        self._waiting.append(_Waiting(row=row, at=fill.ts, ticker=fill.ticker))
        if len(self._waiting) > KEPT:
            self._finish(self._waiting.popleft())

    async def run(self) -> NoReturn:
        """Look for ever; what is complete is written. A cancellation leaves the rest to `close`."""
        while True:
            await trio.sleep(TICK_S)
            self.look()
            await self.write()

    def look(self) -> None:
        """Take the mids that have come due, and note where our quotes stand in their queues."""
        now = self.clock()
        for waiting in self._waiting:
            while waiting.next < len(HORIZONS_S):
                due = waiting.at + HORIZONS_S[waiting.next] * SECOND
                if now < due:
                    break
                in_time = now - due <= LATE
                waiting.row["later"].append(self._twice_mid(waiting.ticker) if in_time else None)
                waiting.next += 1
        while self._waiting and self._waiting[0].next == len(HORIZONS_S):
            self._finish(self._waiting.popleft())
        for ticker in self.floor.makers:
            orders = self.floor.orders(ticker)
            if orders:
                book = self.floor.books[ticker]
                if book.is_synced:
                    self._queues.setdefault(ticker, QueuePlace()).observe(orders, book)
                for order in orders:
                    if order.order_id is not None:
                        self._places[order.order_id] = order.client_order_id
        while len(self._places) > KEPT:
            del self._places[next(iter(self._places))]

    def close(self) -> None:
        """The session ends: what waits is written as it is, at once."""
        while self._waiting:
            self._finish(self._waiting.popleft())
        lines, self._done = self._done, []
        try:
            if lines:
                self._append("".join(lines))
        except OSError as exc:
            self.lost += len(lines)
            log.warning("attribution not written", path=str(self.path), error=exc.strerror, lost=self.lost)

    def _append(self, text: str) -> None:
        with self.path.open("a") as stream:
            stream.write(text)

    async def write(self) -> None:
        """Append what is complete."""
        if not self._done:
            return
        lines, self._done = self._done, []
        text = "".join(lines)
        try:
            await self.runner(lambda: self._append(text))
        except OSError as exc:
            self.lost += len(lines)
            log.warning("attribution not written", path=str(self.path), error=exc.strerror, lost=self.lost)

    def _finish(self, waiting: _Waiting) -> None:
        row = waiting.row
        row["later"] += [None] * (len(HORIZONS_S) - len(row["later"]))
        self._done.append(json.dumps(row, separators=(",", ":")) + "\n")

    def _twice_mid(self, ticker: MarketTicker) -> int | None:
        book = self.floor.books.get(ticker)
        return book.twice_mid if book is not None and book.is_synced else None

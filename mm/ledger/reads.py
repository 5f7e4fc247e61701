"""The awaited reads of an open ledger. Each sees everything that was recorded before it."""

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from mm.domain.fill import Fill
from mm.domain.numbers import Micros, Money
from mm.domain.order import ClientOrderId, MarketTicker, OrderId
from mm.ledger import integrity, queries
from mm.ledger.integrity import Head
from mm.ledger.rows import AlertRow, GroupRow, OrderRow, PositionRow, SessionRow, SettlementRow, Totals
from mm.ledger.store import Store

T = TypeVar("T")

FILLS_MARK: Final = "fills"
"""Name of the reconciler's high-water mark."""
REPLAY_CHUNK: Final = 2_000


class LedgerReads(ABC):
    """What can be asked; `Ledger` says how a question reaches the file. All raise `LedgerError`."""

    @abstractmethod
    async def _read(self, query: Callable[[Store], T]) -> T:
        """Run the question in one go after what is queued."""

    async def mark(self, name: str = FILLS_MARK) -> Micros | None:
        """A high-water mark, None when never set."""
        return await self._read(lambda store: queries.mark(store.connection, store.account, name))

    async def open_markets(self) -> list[MarketTicker]:
        """Markets with fills and without a settlement, sorted."""
        return await self._read(lambda store: queries.open_markets(store.connection, store.account))

    async def fills_of(self, ticker: MarketTicker) -> list[Fill]:
        """All fills of one market in exchange order (time, trade id): what its inventory is computed from."""
        return await self._read(lambda store: queries.fills_of(store.connection, store.account, ticker))

    async def fills_of_orders(self, order_ids: Iterable[OrderId]) -> dict[OrderId, list[Fill]]:
        """All fills of these orders, each order's in exchange order: what its fees are computed from."""
        wanted = list(order_ids)
        return await self._read(
            lambda store: queries.fills_of_orders(store.connection, store.account, wanted)
        )

    async def day_start(self, day: dt.date) -> Money | None:
        """With which marked result a day began; None when it has not."""
        return await self._read(lambda store: queries.day_start(store.connection, store.account, day))

    async def cash_flow(self) -> Money:
        """All money that fills, their fees and settlements have moved since the beginning."""
        return await self._read(lambda store: queries.cash_flow(store.connection, store.account))

    async def last_unexplained(self) -> Money | None:
        """What was paid in by the last comparison of cash; None before the first."""
        return await self._read(lambda store: queries.last_unexplained(store.connection, store.account))

    async def chain_head(self) -> Head:
        """The newest entry of the chain over the money rows."""
        return await self._read(lambda store: integrity.head(store.connection))

    async def settled_result(self) -> Money:
        """What all settled markets brought, net of fees."""
        return await self._read(lambda store: queries.settled_result(store.connection, store.account))

    async def replay_fills(self, fold: Callable[[Fill], None]) -> int:
        """Call `fold` for every fill of every open market, each market's fills in exchange order; give their number.

        Reads in chunks: memory does not grow with the number of fills.
        """
        total = 0
        for ticker in await self.open_markets():
            after: queries.FillPosition | None = None
            while True:
                chunk = await self._read(
                    lambda store, t=ticker, a=after: queries.fills_after(  # type: ignore[misc]
                        store.connection, store.account, t, a, REPLAY_CHUNK
                    )
                )
                for fill in chunk:
                    fold(fill)
                total += len(chunk)
                if len(chunk) < REPLAY_CHUNK:
                    break
                after = queries.position_of(chunk[-1])
        return total

    async def positions(self) -> dict[MarketTicker, PositionRow]:
        """What the fills of every unsettled market add up to, flat ones included."""
        return await self._read(lambda store: queries.positions(store.connection, store.account))

    async def totals(self, *, since: Micros = Micros(0)) -> Totals:  # noqa: B008 - an int
        """Number, contracts and fees of the fills made at or after `since`."""
        return await self._read(lambda store: queries.totals(store.connection, store.account, since))

    async def find_orders(self, order_ids: Iterable[OrderId]) -> dict[OrderId, OrderRow]:
        """Our orders among these venue ids; the others are not in the result."""
        wanted = list(order_ids)
        return await self._read(lambda store: queries.find_orders(store.connection, store.account, wanted))

    async def find_order(self, client_order_id: ClientOrderId) -> OrderRow | None:
        """The order with this client id."""
        return await self._read(
            lambda store: queries.find_order(store.connection, store.account, client_order_id)
        )

    async def unknown_orders(self, limit: int = 1_000) -> list[OrderId]:
        """Orders with fills in open markets of which nobody knows whose they are, the newest first."""
        return await self._read(lambda store: queries.unknown_orders(store.connection, store.account, limit))

    async def live_orders(self) -> list[OrderRow]:
        """Orders of any session whose last written state is not DONE, oldest first."""
        return await self._read(lambda store: queries.live_orders(store.connection, store.account))

    async def groups(self, *, exclude_session: str | None = None) -> list[GroupRow]:
        """Groups not yet deleted, oldest first; `exclude_session` leaves one session's out (at start: our own)."""
        return await self._read(
            lambda store: queries.groups(store.connection, store.account, exclude_session)
        )

    async def settlements(self, tickers: Collection[MarketTicker] | None = None) -> list[SettlementRow]:
        """Settlements, oldest first; of these markets only, when given."""
        return await self._read(lambda store: queries.settlements(store.connection, store.account, tickers))

    async def sessions(self, limit: int = 20) -> list[SessionRow]:
        """The last sessions, newest first."""
        return await self._read(lambda store: queries.sessions(store.connection, store.account, limit))

    async def last_trigger(self, beginning: str) -> tuple[Micros, str] | None:
        """When, and which reason: the newest row of a risk rule whose reason begins so."""
        return await self._read(
            lambda store: queries.last_trigger(store.connection, store.account, beginning)
        )

    async def undelivered_alerts(self) -> list[AlertRow]:
        """Critical alerts that nobody was told yet, oldest first."""
        return await self._read(lambda store: queries.undelivered_alerts(store.connection, store.account))

"""Reading: the lists that a REST server needs, with their filters, newest first, in pages by sequence number."""

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import takewhile
from typing import Final, Protocol, TypeVar

import attrs

from mm.domain.numbers import DOLLAR, Count, Micros, Money
from mm.domain.order import MarketTicker, OrderId, Side
from mm.exchange.embedded.core.accounts import position_view
from mm.exchange.embedded.core.model import (
    BalanceView,
    FillRecord,
    OrderRecord,
    OrderStatus,
    PositionView,
    SettlementRecord,
    Slice,
    TradeRecord,
)
from mm.exchange.embedded.core.state import Holding, State, User


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...


N = TypeVar("N", bound=_Numbered)
_ALWAYS: Final = Micros(0)


def page(newest_first: Iterable[N], keep: Callable[[N], bool], *, limit: int, before: int | None) -> Slice[N]:
    """The next `limit` items that are kept and older than `before`."""
    found: list[N] = []
    for item in newest_first:
        if (before is not None and item.seq >= before) or not keep(item):
            continue
        if len(found) == limit:
            return Slice(found, found[-1].seq)
        found.append(item)
    return Slice(found, None)


@attrs.define(eq=False)
class Queries:
    """Reads of the state."""

    _state: State

    def orders(
        self,
        user: User,
        *,
        tickers: Iterable[MarketTicker] | None,
        event_tickers: Iterable[str] | None,
        status: OrderStatus | None,
        min_ts: Micros | None,
        max_ts: Micros | None,
        exchange_index: int | None,
        limit: int,
        before: int | None,
        also: Callable[[OrderRecord], bool] | None = None,
    ) -> Slice[OrderRecord]:
        """A user's orders by creation, newest first. Of a house user: what rests."""
        if status is OrderStatus.RESTING or user.is_house:
            source: Iterable[OrderRecord] = sorted(user.resting.values(), key=lambda order: -order.seq)
        else:
            source = reversed(user.orders)
        wanted = None if tickers is None else frozenset(tickers)
        if event_tickers is not None:
            of_events = frozenset(
                market.ticker
                for event in event_tickers
                for market in self._state.event_markets.get(event, ())
            )
            wanted = of_events if wanted is None else wanted & of_events

        def keep(order: OrderRecord) -> bool:
            return (
                (wanted is None or order.ticker in wanted)
                and (status is None or order.status is status)
                and (max_ts is None or order.created_at <= max_ts)
                and exchange_index in (None, order.exchange_index)
                and (also is None or also(order))
            )

        source = takewhile(lambda order: order.created_at >= (min_ts or _ALWAYS), source)
        return page(source, keep, limit=limit, before=before)

    def fills(
        self,
        user: User,
        *,
        tickers: Iterable[MarketTicker] | None,
        order_id: OrderId | None,
        min_ts: Micros | None,
        max_ts: Micros | None,
        exchange_index: int | None,
        limit: int,
        before: int | None,
    ) -> Slice[FillRecord]:
        """A user's fills, newest first."""
        wanted = None if tickers is None else frozenset(tickers)

        def keep(fill: FillRecord) -> bool:
            return (
                (wanted is None or fill.ticker in wanted)
                and order_id in (None, fill.order_id)
                and (max_ts is None or fill.ts <= max_ts)
                and exchange_index in (None, fill.exchange_index)
            )

        source = takewhile(lambda fill: fill.ts >= (min_ts or _ALWAYS), reversed(user.fills))
        return page(source, keep, limit=limit, before=before)

    def settlements(
        self,
        user: User,
        *,
        ticker: MarketTicker | None,
        event_ticker: str | None,
        min_ts: Micros | None,
        max_ts: Micros | None,
        exchange_index: int | None,
        limit: int,
        before: int | None,
    ) -> Slice[SettlementRecord]:
        """A user's settlements, newest first."""

        def keep(row: SettlementRecord) -> bool:
            return (
                ticker in (None, row.ticker)
                and event_ticker in (None, row.event_ticker)
                and (max_ts is None or row.ts <= max_ts)
                and exchange_index in (None, row.exchange_index)
            )

        source = takewhile(lambda row: row.ts >= (min_ts or _ALWAYS), reversed(user.settlements))
        return page(source, keep, limit=limit, before=before)

    def trades(
        self,
        *,
        ticker: MarketTicker | None,
        min_ts: Micros | None,
        max_ts: Micros | None,
        limit: int,
        before: int | None,
    ) -> Slice[TradeRecord]:
        """Public trades of one market or of all, newest first."""
        source = takewhile(lambda trade: trade.ts >= (min_ts or _ALWAYS), self._newest_trades(ticker))
        return page(source, lambda trade: max_ts is None or trade.ts <= max_ts, limit=limit, before=before)

    def _newest_trades(self, ticker: MarketTicker | None) -> Iterator[TradeRecord]:
        if ticker is not None:
            market = self._state.markets.get(ticker)
            return reversed(market.trades) if market else iter(())
        traded = [reversed(market.trades) for market in self._state.markets.values() if market.trades]
        return merge(*traded, key=lambda trade: -trade.seq)

    def positions(
        self,
        user: User,
        *,
        ticker: MarketTicker | None,
        event_ticker: str | None,
        exchange_index: int | None,
        is_settled: bool | None,
    ) -> list[PositionView]:
        """Markets that the user traded, by ticker."""
        return [
            position_view(holding)
            for _, holding in sorted(user.holdings.items())
            if holding.volume
            and ticker in (None, holding.market.ticker)
            and event_ticker in (None, holding.market.event.ticker)
            and exchange_index in (None, holding.market.exchange_index)
            and is_settled in (None, holding.is_settled)
        ]

    def balances(self, user: User) -> list[BalanceView]:
        """Cash per shard."""
        return [
            BalanceView(
                exchange_index=shard,
                available=user.available(shard),
                reserved=Money(sum(holding.reserved for holding in _on_shard(user, shard))),
                portfolio_value=self._portfolio_value(user, shard),
            )
            for shard in sorted(user.cash)
        ]

    def _portfolio_value(self, user: User, shard: int) -> Money:
        """Positions at what they would bring now, less collateral that was returned already."""
        value = shorts = 0
        for holding in _on_shard(user, shard):
            value += _worth(holding)
            shorts += max(-holding.position, 0)
        locked = sum(
            user.event_locks.get(event, 0)
            for event, holdings in user.event_holdings.items()
            if holdings[0].market.exchange_index == shard
        )
        return Money(value - (shorts * DOLLAR - locked))

    def queue_position(self, order: OrderRecord) -> Count:
        """Contracts ahead of a resting order."""
        book = self._state.markets[order.ticker].book
        return book.side(order.side).ahead_of(order, with_better=self._state.rules.queue_counts_better)

    def queue_positions(
        self, user: User, tickers: Iterable[MarketTicker] | None, event_ticker: str | None
    ) -> list[tuple[OrderRecord, Count]]:
        """All resting orders of the user with their queue positions, oldest first."""
        wanted = None if tickers is None else frozenset(tickers)
        return [
            (order, self.queue_position(order))
            for order in sorted(user.resting.values(), key=lambda order: order.seq)
            if (wanted is None or order.ticker in wanted)
            and event_ticker in (None, self._state.markets[order.ticker].event.ticker)
        ]


def _on_shard(user: User, shard: int) -> list[Holding]:
    return [holding for holding in user.holdings.values() if holding.market.exchange_index == shard]


def _worth(holding: Holding) -> int:
    """A position at the price at which it could be closed now; else at the last price; else at cost."""
    market, position = holding.market, holding.position
    if not position:
        return 0
    exit_side = Side.BID if position > 0 else Side.ASK
    price = market.book.side(exit_side).best
    if market.settlement_value is not None:
        price = market.settlement_value
    elif price is None:
        price = market.last_price
    if price is None:
        return holding.cost
    return position * price if position > 0 else -position * (DOLLAR - price)

"""The reading half of `ExchangeCore`. Nothing here changes anything or looks at the clock.

Records that are handed out are live: read them at once, or copy.
"""

from collections.abc import Callable, Iterable, Mapping

from mm.domain.numbers import Count, Micros
from mm.domain.order import GroupId, MarketTicker, OrderId
from mm.exchange.embedded.core.model import (
    BalanceView,
    EventSpec,
    FeeChange,
    FillRecord,
    MaintenanceWindow,
    OrderGroup,
    OrderRecord,
    OrderStatus,
    PositionView,
    SeriesSpec,
    SettlementRecord,
    ShardStatus,
    Slice,
    TradeRecord,
)
from mm.exchange.embedded.core.queries import Queries
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.core.state import MarketState, State, User


class Reading:
    """Reads of the exchange, for a REST server, for traders, for tests. Pages are newest first."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._queries = Queries(state)

    @property
    def rules(self) -> Rules:
        """The switches in force."""
        return self._state.rules

    def series(self) -> Mapping[str, SeriesSpec]:
        """All series by ticker."""
        return self._state.series

    def events(self) -> Mapping[str, EventSpec]:
        """All events by ticker."""
        return self._state.events

    def markets(self) -> Mapping[MarketTicker, MarketState]:
        """All markets by ticker, in listing order. Read only; `market.book` gives depth, `.trades` the prints."""
        return self._state.markets

    def users(self) -> Mapping[str, User]:
        """All users by id."""
        return self._state.users

    def shards(self) -> list[ShardStatus]:
        """The flags of every shard that exists (shard 0 always does)."""
        return [
            ShardStatus(
                exchange_index=index,
                exchange_active=shard.exchange_active and shard.is_up,
                trading_active=shard.trading_active and shard.is_up,
            )
            for index, shard in sorted(self._state.shards.items())
        ]

    def fee_changes(self) -> list[FeeChange]:
        """Every announced change of fees, past ones too, in the order of their times."""
        return sorted(self._state.fee_changes, key=lambda change: change.scheduled_at)

    def maintenance(self) -> list[MaintenanceWindow]:
        """Every announced maintenance window, past ones too, in the order of their times."""
        return sorted(self._state.maintenance, key=lambda window: window.start)

    def order(
        self, user_id: str, order_id: OrderId, *, exchange_index: int | None = None
    ) -> OrderRecord | None:
        """One order of a user, done or not (a live record: read it, don't keep it)."""
        order = self._state.orders.get(order_id)
        if order is None or order.user_id != user_id or exchange_index not in (None, order.exchange_index):
            return None
        return order

    def orders(
        self,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None = None,
        event_tickers: Iterable[str] | None = None,
        status: OrderStatus | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        exchange_index: int | None = None,
        limit: int = 100,
        before: int | None = None,
        also: Callable[[OrderRecord], bool] | None = None,
    ) -> Slice[OrderRecord]:
        """Orders, newest first; `min_ts` and `max_ts` bound the creation time, both inclusive; `also` picks further."""
        return self._queries.orders(
            self._user(user_id),
            tickers=tickers,
            event_tickers=event_tickers,
            status=status,
            min_ts=min_ts,
            max_ts=max_ts,
            exchange_index=exchange_index,
            limit=limit,
            before=before,
            also=also,
        )

    def fills(
        self,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None = None,
        order_id: OrderId | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        exchange_index: int | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[FillRecord]:
        """Fills, newest first; time bounds inclusive."""
        return self._queries.fills(
            self._user(user_id),
            tickers=tickers,
            order_id=order_id,
            min_ts=min_ts,
            max_ts=max_ts,
            exchange_index=exchange_index,
            limit=limit,
            before=before,
        )

    def settlements(
        self,
        user_id: str,
        *,
        ticker: MarketTicker | None = None,
        event_ticker: str | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        exchange_index: int | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[SettlementRecord]:
        """Settlements, newest first; time bounds inclusive."""
        return self._queries.settlements(
            self._user(user_id),
            ticker=ticker,
            event_ticker=event_ticker,
            min_ts=min_ts,
            max_ts=max_ts,
            exchange_index=exchange_index,
            limit=limit,
            before=before,
        )

    def trades(
        self,
        *,
        ticker: MarketTicker | None = None,
        min_ts: Micros | None = None,
        max_ts: Micros | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Slice[TradeRecord]:
        """Public trades, newest first, as far back as they are kept."""
        return self._queries.trades(ticker=ticker, min_ts=min_ts, max_ts=max_ts, limit=limit, before=before)

    def positions(
        self,
        user_id: str,
        *,
        ticker: MarketTicker | None = None,
        event_ticker: str | None = None,
        exchange_index: int | None = None,
        is_settled: bool | None = False,
    ) -> list[PositionView]:
        """Every market that the user ever traded, by ticker (`is_settled` None: all)."""
        return self._queries.positions(
            self._user(user_id),
            ticker=ticker,
            event_ticker=event_ticker,
            exchange_index=exchange_index,
            is_settled=is_settled,
        )

    def balances(self, user_id: str) -> list[BalanceView]:
        """Cash per shard on which the user has an account, by shard."""
        return self._queries.balances(self._user(user_id))

    def groups(self, user_id: str) -> list[OrderGroup]:
        """All groups of a user, oldest first."""
        return list(self._user(user_id).groups.values())

    def group(
        self, user_id: str, group_id: GroupId, *, exchange_index: int | None = None
    ) -> OrderGroup | None:
        """One group."""
        group = self._user(user_id).groups.get(group_id)
        return group if group is not None and exchange_index in (None, group.exchange_index) else None

    def queue_position(self, user_id: str, order_id: OrderId) -> Count | None:
        """Contracts ahead of a resting order, 0-based; None when it does not rest."""
        order = self._user(user_id).resting.get(order_id)
        return None if order is None else self._queries.queue_position(order)

    def queue_positions(
        self,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None = None,
        event_ticker: str | None = None,
    ) -> list[tuple[OrderRecord, Count]]:
        """Queue positions of the user's resting orders, oldest order first."""
        return self._queries.queue_positions(self._user(user_id), tickers, event_ticker)

    def _user(self, user_id: str) -> User:
        """A user. An unknown one is the caller's bug (`KeyError`), not a refusal: the server knows who asks."""
        return self._state.users[user_id]

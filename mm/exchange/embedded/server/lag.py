"""Reads that lag writes: what the account's listings say is what was true a little while ago.

The core changes its records at once; this keeps, for as long as the lag lasts, what they were before.
"""

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from mm.domain.numbers import Count, Micros
from mm.domain.order import MarketTicker, OrderId
from mm.exchange.embedded.core.events import CoreEvent, OrderUpdated, PositionChanged
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import BalanceView, OrderRecord, OrderStatus, PositionView, Slice

_ALL: Final = 1_000_000
_SWEEP_ABOVE: Final = 1_000


@attrs.define(eq=False)
class LaggedReads:
    """Answers order and position reads as of `lag` ago. With a lag of 0 it holds nothing and asks the core."""

    lag: Micros = Micros(0)
    _orders: dict[OrderId, list[OrderRecord]] = attrs.field(factory=dict)
    """Versions of orders that changed within the lag, oldest first, with one older version where there is one."""
    _balances: dict[str, list[tuple[Micros, list[BalanceView]]]] = attrs.field(factory=dict)
    """Per account: its balances after each change within the lag, oldest first, with one older version."""
    _positions: dict[tuple[str, MarketTicker], list[PositionView]] = attrs.field(factory=dict)

    def set_lag(self, core: ExchangeCore, lag: Micros) -> None:
        """Change the lag; what was kept for another one is forgotten, the present is what reads start from."""
        self.lag = lag
        self._orders.clear()
        self._positions.clear()
        self._balances.clear()
        for user in core.users().values():
            if not user.is_house:
                self.note_balance(core, Micros(0), user.user_id)

    def observe(self, core: ExchangeCore, event: CoreEvent) -> None:
        """Take note of a change (a call per event of the core)."""
        if not self.lag:
            return
        if isinstance(event, OrderUpdated):
            self.note_balance(core, event.order.updated_at, event.order.user_id)
        elif isinstance(event, PositionChanged):
            self.note_balance(core, event.position.updated_at, event.user_id)
        if isinstance(event, OrderUpdated):
            self._orders.setdefault(event.order.order_id, []).append(event.order)
            if len(self._orders) > _SWEEP_ABOVE:
                self._sweep(Micros(event.order.updated_at - self.lag))
        elif isinstance(event, PositionChanged):
            self._positions.setdefault((event.user_id, event.position.ticker), []).append(event.position)

    def note_balance(self, core: ExchangeCore, now: Micros, account: str) -> None:
        """The cash of an account may have changed at `now`."""
        if not self.lag:
            return
        versions = self._balances.setdefault(account, [])
        views = core.balances(account)
        if versions and versions[-1][1] == views:
            return
        versions.append((now, views))
        while len(versions) > 1 and versions[1][0] <= now - self.lag:
            del versions[0]

    def balances(self, core: ExchangeCore, now: Micros, account: str) -> list[BalanceView]:
        """Balances as a read shows them. What was before our first note is not known: then the present ones."""
        horizon = self.as_of(now)
        visible = [views for ts, views in self._balances.get(account, ()) if ts <= horizon]
        return visible[-1] if self.lag and visible else core.balances(account)

    def _sweep(self, horizon: Micros) -> None:
        old = [order_id for order_id, seen in self._orders.items() if seen[-1].updated_at <= horizon]
        for order_id in old:
            del self._orders[order_id]

    def as_of(self, now: Micros) -> Micros:
        """The time as of which reads are true."""
        return Micros(now - self.lag)

    def order(self, now: Micros, record: OrderRecord) -> OrderRecord | None:
        """The order as a read shows it; None when its creation is not visible yet."""
        if not self.lag:
            return record
        horizon = self.as_of(now)
        if record.created_at > horizon:
            return None
        versions = self._orders.get(record.order_id, [])
        if not versions or versions[-1].updated_at <= horizon:
            return record
        visible = [version for version in versions if version.updated_at <= horizon]
        if visible:
            return visible[-1]
        # It changed within the lag, and what it was before is older than our notes: it rested, untouched.
        first = versions[0].snapshot()
        first.status = OrderStatus.RESTING
        first.last_update_reason = None
        first.filled = Count(0)
        first.remaining = first.initial_count
        first.updated_at = first.created_at
        return first

    def orders(
        self,
        core: ExchangeCore,
        now: Micros,
        user_id: str,
        *,
        tickers: Iterable[MarketTicker] | None,
        event_tickers: Iterable[str] | None,
        status: OrderStatus | None,
        min_ts: Micros | None,
        max_ts: Micros | None,
        exchange_index: int | None,
        limit: int,
        before: int | None,
        keep: Callable[[OrderRecord], bool] | None = None,
    ) -> Slice[OrderRecord]:
        """A page of orders, newest first."""
        found = core.orders(
            user_id,
            tickers=tickers,
            event_tickers=event_tickers,
            status=None if self.lag else status,
            min_ts=min_ts,
            max_ts=max_ts,
            exchange_index=exchange_index,
            limit=_ALL if self.lag else limit,
            before=before,
            also=None if self.lag else keep,
        )
        if not self.lag:
            return found
        seen = [shown for record in found.items if (shown := self.order(now, record)) is not None]
        matching = [
            record
            for record in seen
            if (status is None or record.status is status) and (keep is None or keep(record))
        ]
        page = matching[:limit]
        return Slice(page, page[-1].seq if len(matching) > limit else None)

    def positions(self, now: Micros, user_id: str, views: list[PositionView]) -> list[PositionView]:
        """Positions as a read shows them."""
        if not self.lag:
            return views
        horizon = self.as_of(now)
        shown: list[PositionView] = []
        for view in views:
            versions = self._positions.get((user_id, view.ticker))
            if versions is None:
                shown.append(view)
                continue
            while len(versions) > 1 and versions[1].updated_at <= horizon:
                del versions[0]
            if versions[0].updated_at <= horizon:
                shown.append(versions[0])
        return shown

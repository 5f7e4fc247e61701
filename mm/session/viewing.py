"""The running parts as a frozen snapshot: the only thing that views get to see."""

from collections.abc import Iterable

import attrs

from mm.domain.numbers import Micros, Money
from mm.domain.order import MarketTicker, Order, OrderState, Side, TimeInForce
from mm.session.trading import Trading
from mm.views.snapshot import BudgetView, MarketView, QuoteView, Snapshot

SHOWN_ALERTS = 3
_SURE = frozenset({OrderState.RESTING, OrderState.AMENDING, OrderState.CANCELLING})


@attrs.define(eq=False)
class Viewer:
    """Makes snapshots of one trading session."""

    trading: Trading
    started_at: Micros

    def snapshot(self) -> Snapshot:
        """Everything worth showing, now."""
        trading = self.trading
        floor, positions = trading.floor, trading.floor.positions
        level, capacity = trading.writes.level()
        read = trading.reads.bucket
        now = trading.clock()
        return Snapshot(
            at=now,
            started_at=self.started_at,
            environment=trading.settings.environment.value,
            is_paper=trading.venue.is_paper,
            markets=tuple(self._market(ticker) for ticker in self._shown()),
            is_feed_up=floor.is_feed_up,
            last_frame_at=floor.last_frame_at or None,
            writes=BudgetView(level=level, capacity=capacity, waiting=trading.writes.waiting()),
            reads=BudgetView(level=read.refill(now), capacity=read.capacity),
            orders_placed=trading.desk.placed,
            fills=positions.fills,
            contracts=positions.contracts,
            fees=positions.fees,
            realized=Money(positions.realized() - trading.realized_before),
            unrealized=floor.unrealized(),
            alerts=tuple(alert.text for alert in list(trading.alerts.recent)[-SHOWN_ALERTS:]),
            notice=self._notice(),
        )

    def _shown(self) -> Iterable[MarketTicker]:
        """Quoted markets first, then those in which we only hold something."""
        floor = self.trading.floor
        held = [
            ticker
            for ticker, history in floor.positions.histories.items()
            if ticker not in floor.makers and not history.state.is_flat
        ]
        return [*floor.makers, *held]

    def _market(self, ticker: MarketTicker) -> MarketView:
        floor = self.trading.floor
        maker, inventory = floor.makers.get(ticker), floor.inventory(ticker)
        mark = floor.mark_of(ticker)
        unrealized = Money(0) if inventory.is_flat else None if mark is None else inventory.unrealized(mark)
        view = MarketView(
            ticker=ticker,
            position=inventory.net,
            realized=inventory.realized_net,
            unrealized=unrealized,
            state="held over",
        )
        if maker is None:
            return view
        orders = floor.orders(ticker)
        last = maker.last
        return attrs.evolve(
            view,
            title=maker.market.title or maker.market.yes_sub_title,
            best_bid=maker.touch.best_bid,
            best_ask=maker.touch.best_ask,
            bid=_quote(orders, Side.BID),
            ask=_quote(orders, Side.ASK),
            state="starting" if last is None else last.state.value,
            reason="" if last is None else last.reason,
        )

    def _notice(self) -> str:
        trading = self.trading
        if trading.is_new_quoting_off:
            return f"no new quotes: {trading.is_new_quoting_off}"
        if trading.floor.portfolio_hold:
            return f"no new quotes: {trading.floor.portfolio_hold}"
        if trading.floor.makers:
            return ""
        return "no markets to quote now; looking again every few seconds"


def _quote(orders: Iterable[Order], side: Side) -> QuoteView | None:
    for order in orders:
        if order.side is side and order.time_in_force is TimeInForce.GTC and order.leaves:
            return QuoteView(price=order.price, count=order.leaves, is_sure=order.state in _SURE)
    return None

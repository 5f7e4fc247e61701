"""The running parts as a frozen snapshot: the only thing that views get to see."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from mm.domain.numbers import CONTRACT, DOLLAR_MONEY, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.quoter import Decision, MakerState, MarketMaker
from mm.engine.requote import BrakeState
from mm.engine.risk.guards import Reaction
from mm.session.explaining import decision_view
from mm.session.trading import Trading
from mm.views.snapshot import (
    AlertView,
    BudgetView,
    LevelView,
    LimitView,
    MarketDetail,
    MarketView,
    QuoteView,
    Snapshot,
)

SHOWN_ALERTS: Final = 3
SHOWN_FILLS: Final = 100
SHOWN_LEVELS: Final = 8
OPERATOR_HOLD: Final = "operator"
"""The cause under which an operator's pause is kept in a market's holds."""
_SURE: Final = frozenset({OrderState.RESTING, OrderState.AMENDING, OrderState.CANCELLING})
_NO_ORDERS: Final[Sequence[Order]] = ()


@attrs.define(eq=False)
class Viewer:
    """Makes snapshots of one trading session."""

    trading: Trading
    started_at: Micros
    web_url: str = ""
    """With its token; set once the dashboard listens."""
    loop_lag_s: float = 0.0
    """Set by whoever measures it."""

    def snapshot(self) -> Snapshot:
        """Everything worth showing, now. Takes about 10 µs a market."""
        trading = self.trading
        floor, positions, desk = trading.floor, trading.floor.positions, trading.desk
        level, capacity = trading.writes.level()
        read = trading.reads.bucket
        now = trading.clock()
        orders = _by_market(desk.live.values())
        feed = trading.feed.statistics() if trading.feed is not None else None
        alerts = list(trading.alerts.recent)
        markets = tuple(self._market(ticker, orders.get(ticker, _NO_ORDERS)) for ticker in self._shown())
        return Snapshot(
            at=now,
            started_at=self.started_at,
            environment=trading.settings.environment.value,
            is_paper=trading.venue.is_paper,
            markets=markets,
            is_feed_up=floor.is_feed_up,
            last_frame_at=floor.last_frame_at or None,
            writes=BudgetView(level=level, capacity=capacity, waiting=trading.writes.waiting()),
            reads=BudgetView(level=read.refill(now), capacity=read.capacity),
            orders_placed=desk.placed,
            orders_cancelled=desk.cancelled,
            orders_amended=desk.amended,
            orders_expired=desk.expired,
            orders_unknown=sum(1 for o in desk.live.values() if o.state is OrderState.UNKNOWN),
            writes_refused=desk.refused,
            writes_throttled=trading.writes.refused_total,
            fills=positions.fills,
            contracts=positions.contracts,
            fees=positions.fees,
            realized=Money(positions.realized() - trading.realized_before),
            unrealized=Money(sum(m.unrealized or 0 for m in markets)),
            worst_exposure=floor.gross.total,
            drifts=len(trading.reconciler.drifts),
            decisions=floor.decisions,
            connects=feed.connects if feed is not None else 0,
            gaps=feed.gaps if feed is not None else 0,
            write_latency=desk.latency.view(),
            loop_lag_s=self.loop_lag_s,
            limits=self._limits(markets),
            recent_fills=trading.tape.fills[:SHOWN_FILLS],
            markout_averages=trading.tape.averages,
            alert_list=tuple(
                AlertView(at=a.at, severity=a.severity.name.lower(), text=a.text) for a in reversed(alerts)
            ),
            is_all_paused=bool(trading.is_paused_by_operator),
            stopping=trading.why_stopping(),
            alerts=tuple(alert.text for alert in alerts[-SHOWN_ALERTS:]),
            quoting_off=self._quoting_off(),
            notice=self._notice(),
            web_url=self.web_url,
        )

    def detail(self, ticker: MarketTicker) -> MarketDetail | None:
        """One market closely; None when it is not shown."""
        trading = self.trading
        maker = trading.floor.makers.get(ticker)
        if maker is None and trading.floor.inventory(ticker).is_flat:
            return None
        orders = trading.floor.orders(ticker)
        detail = MarketDetail(
            market=self._market(ticker, orders),
            fills=tuple(f for f in trading.tape.fills if f.ticker == ticker),
            max_position=trading.floor.parameters.max_inventory_per_market,
        )
        if maker is None:
            return detail
        parameters = trading.floor.parameters
        return attrs.evolve(
            detail,
            bids=_levels(maker, Side.BID, orders),
            asks=_levels(maker, Side.ASK, orders),
            decisions=tuple(decision_view(entry, parameters) for entry in reversed(maker.journal)),
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

    def _market(self, ticker: MarketTicker, orders: Sequence[Order]) -> MarketView:
        floor = self.trading.floor
        maker, inventory = floor.makers.get(ticker), floor.inventory(ticker)
        vwap = inventory.vwap_entry
        entry = None if vwap is None else Price(round(vwap))
        if maker is None:
            return MarketView(
                ticker=ticker,
                position=inventory.net,
                entry=entry,
                worst=Count(abs(inventory.net)),
                realized=inventory.realized_net,
                unrealized=Money(0) if inventory.is_flat else None,
                state="held over",
            )
        mark = _mark(maker)
        touch, book, last = maker.touch, maker.book, maker.last
        bid, ask = _quote(maker, orders, Side.BID), _quote(maker, orders, Side.ASK)
        waits = self._why_none(maker, bid or ask)
        return MarketView(
            ticker=ticker,
            title=maker.market.title,
            outcome=maker.market.yes_sub_title,
            event=maker.market.event_ticker,
            best_bid=touch.best_bid,
            best_ask=touch.best_ask,
            bid_size=Count(0) if touch.best_bid is None else book.size_at(Side.BID, touch.best_bid),
            ask_size=Count(0) if touch.best_ask is None else book.size_at(Side.ASK, touch.best_ask),
            mark=mark,
            bid=bid,
            ask=ask,
            position=inventory.net,
            entry=entry,
            worst=floor.gross.exposure(ticker).worst,
            realized=inventory.realized_net,
            unrealized=Money(0)
            if inventory.is_flat
            else None
            if mark is None
            else inventory.unrealized(mark),
            state=self._ending(orders) or _state(last, waits),
            reason="" if last is None or self._ending(orders) else last.reason or waits,
            is_paused=OPERATOR_HOLD in maker.holds,
        )

    def _why_none(self, maker: MarketMaker, quote: QuoteView | None) -> str:
        """Why a market that may be quoted has no quote at all; empty when it has one, or will in a moment."""
        now = self.trading.clock()
        if quote is not None:
            return ""
        if maker.brake.state(now) is BrakeState.STOPPED:
            left = ((maker.brake.released_at(now) or now) - now) / SECOND
            return f"churn brake: no new quotes for {left:.0f} s"
        if maker.last_wanted.bid is None and maker.last_wanted.ask is None:
            return "no quote fits the rules and limits now"
        return ""

    def _ending(self, orders: Sequence[Order]) -> str:
        """The state of a market while the bot leaves, when no rule decides there any more; empty before."""
        if not self.trading.is_leaving:
            return ""
        return "leaving" if orders else "left"

    def _limits(self, markets: Sequence[MarketView]) -> tuple[LimitView, ...]:
        trading, parameters = self.trading, self.trading.floor.parameters
        widest = max(markets, key=lambda m: m.worst, default=None)
        found = [
            LimitView(
                name="MAX_GLOBAL_INVENTORY",
                used=trading.floor.gross.total / CONTRACT,
                limit=parameters.max_global_inventory / CONTRACT,
                unit="contracts",
            ),
            LimitView(
                name="MAX_INVENTORY_PER_MARKET",
                used=widest.worst / CONTRACT if widest is not None else 0.0,
                limit=parameters.max_inventory_per_market / CONTRACT,
                unit="contracts",
                market=widest.ticker if widest is not None and widest.worst else None,
            ),
        ]
        inventories = {m.ticker: trading.floor.inventory(m.ticker) for m in markets if m.position}
        at_risk = {t: max(i.at_risk(Side.BID), i.at_risk(Side.ASK)) for t, i in inventories.items()}
        dearest = max(at_risk, key=lambda t: at_risk[t], default=None)
        found.append(
            LimitView(
                name="MAX_INVENTORY_VALUE",
                used=at_risk[dearest] / DOLLAR_MONEY if dearest is not None else 0.0,
                limit=parameters.max_inventory_value / DOLLAR_MONEY,
                unit="dollars",
                market=dearest,
            )
        )
        if parameters.portfolio_mae_limit:
            found.append(
                LimitView(
                    name="PORTFOLIO_MAE_LIMIT",
                    used=self._adverse(markets) / DOLLAR_MONEY,
                    limit=parameters.portfolio_mae_limit / DOLLAR_MONEY,
                    unit="dollars",
                )
            )
        found += self._loss_limits()
        loss = trading.monitor.daily_loss
        if loss.limit is not None:
            lost = max(loss.start - trading.floor.marked_pnl(), 0) if loss.day is not None else 0
            found.append(
                LimitView(
                    name="DAILY_LOSS_LIMIT",
                    used=lost / DOLLAR_MONEY,
                    limit=loss.limit / DOLLAR_MONEY,
                    unit="dollars",
                )
            )
        found.append(
            LimitView(
                name="MAX_MARKETS_TO_TRADE",
                used=len(trading.floor.makers),
                limit=parameters.max_markets_to_trade,
                unit="markets",
            )
        )
        return tuple(found)

    def _loss_limits(self) -> list[LimitView]:
        """What may be lost in the worst outcomes: of each kind of limit the fullest one."""
        fullest: dict[str, LimitView] = {}
        for use in self.trading.floor.exposure.portfolio.uses():
            fullest.setdefault(
                use.scope,
                LimitView(
                    name=f"MAX_{use.scope.upper()}_LOSS",
                    used=use.loss / DOLLAR_MONEY,
                    limit=use.limit / DOLLAR_MONEY,
                    unit="dollars",
                    market=None if use.scope == "portfolio" else MarketTicker(use.name),
                ),
            )
        return list(fullest.values())

    def _adverse(self, markets: Sequence[MarketView]) -> int:
        """The cross-market MAE as it stands, in `Money` units."""
        inventory = self.trading.floor.inventory
        return sum(
            inventory(m.ticker).mae_value(m.mark) for m in markets if m.position and m.mark is not None
        )

    def _quoting_off(self) -> str:
        trading = self.trading
        by_hand = trading.is_new_quoting_off or trading.is_paused_by_operator
        guards = trading.monitor.guards
        by_guard = f"guard: {guards.why}" if guards is not None and guards.done >= Reaction.PULL else ""
        return trading.is_unguarded or by_hand or by_guard or trading.floor.portfolio_hold

    def _notice(self) -> str:
        if self.trading.is_leaving:
            why = self.trading.why_stopping() or "trading has ended"
            is_done = self.trading.promise.is_proven_clean
            return f"stopped ({why}): nothing rests" if is_done else f"stopping ({why}): taking orders off"
        if why := self._quoting_off():
            return f"no new quotes: {why}"
        return "" if self.trading.floor.makers else "no markets to quote now; looking again every few seconds"


def _state(last: Decision | None, waits: str) -> str:
    """In a word; quoting without any quote is called what it looks like."""
    if last is None:
        return MakerState.STARTING.value
    return MakerState.HELD.value if waits and last.state is MakerState.QUOTING else last.state.value


def _mark(maker: MarketMaker) -> Price | None:
    """As the last decision saw it (every change of the book leads to one), else the last average."""
    return maker.last_mark if maker.last_mark is not None else maker.mid.mark


def _by_market(orders: Iterable[Order]) -> Mapping[MarketTicker, list[Order]]:
    found: dict[MarketTicker, list[Order]] = {}
    for order in orders:
        found.setdefault(order.ticker, []).append(order)
    return found


def _quote(maker: MarketMaker, orders: Iterable[Order], side: Side) -> QuoteView | None:
    for order in orders:
        if order.side is side and order.time_in_force is TimeInForce.GTC and order.leaves:
            is_sure = order.state in _SURE
            ahead = None
            if is_sure and maker.book.is_synced:
                ahead = Count(max(maker.book.size_at(side, order.price) - order.leaves, 0))
            return QuoteView(price=order.price, count=order.leaves, is_sure=is_sure, ahead=ahead)
    return None


def _levels(maker: MarketMaker, side: Side, orders: Iterable[Order]) -> tuple[LevelView, ...]:
    if not maker.book.is_synced:
        return ()
    ours: dict[Price, int] = {}
    for order in orders:
        if order.side is side and order.state in _SURE:
            ours[order.price] = ours.get(order.price, 0) + order.leaves
    return tuple(
        LevelView(price=price, count=count, ours=Count(min(ours.get(price, 0), count)))
        for price, count in maker.book.depth(side, SHOWN_LEVELS)
    )

"""What all our positions and orders can cost, kept up to date; asked before a quote is wanted and before it is sent.

An object without tasks. The floor tells it of every change; market makers ask it for room and price bounds, and the
order desk asks it once more, for every single order, just before the order leaves: whatever decided on it, no order that
could break a limit is sent.
"""

from collections.abc import Callable, Iterable

import attrs

from mm.domain.inventory import InventoryState
from mm.domain.numbers import DOLLAR, Count, Money, Price, format_count, format_money, format_price
from mm.domain.order import MarketTicker, Order, OrderState, Side, TimeInForce
from mm.domain.tickers import event_of, format_date_token, parse_event_token, series_of
from mm.engine.limits import GlobalInventory, MarketExposure
from mm.engine.parameters import StrategyParameters
from mm.engine.risk import EventShape, FreeMoney, Holding, PortfolioRisk, WorkingOrder, own_prices
from mm.engine.risk.free_money import OwnPrices
from mm.engine.risk.guards import Reaction
from mm.exchange.port import ExchangeRejected


class RiskRefused(ExchangeRejected):
    """An order that we refused ourselves: it could have broken a limit. Nothing was sent."""


@attrs.define(eq=False, kw_only=True)
class Exposure:
    """The limits over all markets."""

    parameters: StrategyParameters
    inventory: Callable[[MarketTicker], InventoryState]
    orders: Callable[[MarketTicker], list[Order]]
    """A market's orders that may rest or have fills to come."""
    portfolio: PortfolioRisk = attrs.field(init=False)
    gross: GlobalInventory = attrs.field(init=False)
    is_netted: bool = False
    """Losses of one market are set against gains of another of the same game (`NET_ACROSS_MARKETS`): only where the rules
    see them as one position, too. Rules that may close one market alone would leave the other without its hedge."""
    exhaustive_series: frozenset[str] = frozenset()
    """Series of whose events one market is certain to pay (`EXHAUSTIVE_SERIES`)."""
    reaction: Reaction = Reaction.NONE
    """What the guards ask for now."""
    refused: int = 0
    """Orders that the last check kept from being sent."""

    def __attrs_post_init__(self) -> None:
        self.portfolio = PortfolioRisk(self.parameters.risk_limits, _slack(self.parameters))
        self.gross = GlobalInventory(self.parameters.max_global_inventory)

    def use(self, parameters: StrategyParameters) -> None:
        """Go by other limits from now on."""
        self.parameters = parameters
        self.gross.limit = parameters.max_global_inventory
        self.portfolio.use(parameters.risk_limits, _slack(parameters))

    # --- what is told ---

    def know_market(self, ticker: MarketTicker) -> None:
        """A market that is quoted or held. Its event is known by its own markets until `know_event`."""
        event = event_of(ticker)
        shape = self.portfolio.shape_of(event)
        if shape is None:
            self._set_event(event, EventShape(markets=(ticker,), is_netted=self.is_netted))
        elif ticker not in shape.markets:
            self._set_event(event, attrs.evolve(shape, markets=(*shape.markets, ticker)))

    def know_event(
        self, event: str, markets: Iterable[MarketTicker], *, is_mutually_exclusive: bool | None
    ) -> None:
        """What a listing says of an event: all its markets (those known before stay), and whether one excludes the
        others."""
        shape = self.portfolio.shape_of(event)
        before = shape.markets if shape is not None else ()
        together = tuple(dict.fromkeys((*before, *markets)))
        if is_mutually_exclusive is None and shape is not None:
            is_mutually_exclusive = shape.is_mutually_exclusive
        found = EventShape(
            markets=together,
            is_mutually_exclusive=is_mutually_exclusive,
            is_exhaustive=len(together) > 1 and series_of(event) in self.exhaustive_series,
            is_netted=self.is_netted,
        )
        if found != shape:
            self._set_event(event, found)

    def unknown_events(self) -> list[str]:
        """Events of several markets of which it is not known whether they exclude each other."""
        return self.portfolio.unknown_events()

    def forget_market(self, ticker: MarketTicker) -> None:
        """A market is no longer quoted. With the last market of its event that holds or works anything the event goes."""
        self.update(ticker)
        event = event_of(ticker)
        shape = self.portfolio.shape_of(event)
        if shape is None:
            return
        if not any(self.inventory(t).net or self.orders(t) for t in shape.markets):
            self.portfolio.remove_event(event)

    def _set_event(self, event: str, shape: EventShape) -> None:
        token = parse_event_token(event)
        day = format_date_token(token.date) if token is not None else ""
        self.portfolio.set_event(event, shape, series=series_of(event), day=day)
        for ticker in shape.markets:
            self._value(ticker)

    def update(self, ticker: MarketTicker) -> None:
        """Recount one market: position, and everything that may still fill."""
        bids = asks = 0
        for order in self.orders(ticker):
            if order.side is Side.BID:
                bids += order.at_risk
            else:
                asks += order.at_risk
        net = self.inventory(ticker).net
        if net or bids or asks:
            self.know_market(ticker)
            self.gross.update(ticker, MarketExposure(net, Count(bids), Count(asks)))
        else:
            self.gross.remove(ticker)
        self._value(ticker)

    def _value(self, ticker: MarketTicker) -> None:
        inventory = self.inventory(ticker)
        self.portfolio.update(
            ticker,
            Holding.of(inventory),
            [w for order in self.orders(ticker) for w in _as_working(order)],
            realized=inventory.realized_net,
        )

    # --- what is asked ---

    @property
    def is_tight(self) -> bool:
        """A limit over all markets may hold a quote back somewhere, so that every change is to be looked at."""
        if self.gross.limit - self.gross.total < self.parameters.size_per_fill:
            return True
        return self.portfolio.is_tight or self.reaction is not Reaction.NONE

    def opposite(self, ticker: MarketTicker) -> MarketTicker | None:
        """The other market of a game that has two, of which one pays."""
        shape = self.portfolio.shape_of(event_of(ticker))
        if shape is None or len(shape.markets) != 2 or not shape.is_mutually_exclusive:
            return None
        return next(t for t in shape.markets if t != ticker)

    def siblings(self, ticker: MarketTicker) -> tuple[MarketTicker, ...]:
        """The other markets of its event that we know."""
        shape = self.portfolio.shape_of(event_of(ticker))
        if shape is None or len(shape.markets) < 2:
            return ()
        return tuple(t for t in shape.markets if t != ticker)

    def room(self, ticker: MarketTicker, side: Side, price: Price) -> Count:
        """What the limits leave for a quote of that side and price, its own present order not counted (it will be gone
        before the new one comes). What ended with its fills still to come counts: it will move the position."""
        self.know_market(ticker)
        net = self.inventory(ticker).net
        if self.reaction >= Reaction.REDUCE_ONLY and net * side.sign >= 0:
            return Count(0)
        orders = self.orders(ticker)
        unbooked = 0
        for order in orders:
            if order.side is side and order.state is OrderState.DONE:
                unbooked += order.unbooked
        by_gross = self.gross.room(ticker, side, net, Count(unbooked))
        by_loss = self.portfolio.sure_room(ticker)
        if by_loss is None or by_loss < self.parameters.max_inventory_per_market:
            beside = [w for order in orders if not _is_present_quote(order, side) for w in _as_working(order)]
            by_loss = self.portfolio.room(ticker, side, price, beside)
        room = Count(min(by_gross, by_loss))
        if self.reaction >= Reaction.REDUCE_ONLY:
            room = Count(min(room, abs(net)))
        return room

    def bound(self, ticker: MarketTicker, side: Side) -> Price | None:
        """The highest bid or lowest ask that gives nothing away beside our quotes on the event's other markets."""
        shape = self.portfolio.shape_of(event_of(ticker))
        if shape is None or len(shape.markets) < 2 or shape.is_mutually_exclusive is False:
            return None
        others: dict[MarketTicker, OwnPrices] = {}
        for other in shape.markets:
            if other != ticker and (orders := self.orders(other)):
                others[other] = own_prices(orders)
        return FreeMoney(shape).bound(ticker, side, others) if others else None

    # --- the last check ---

    def refuse(self, order: Order, price: Price, count: Count) -> RiskRefused | None:
        """Why an order must not be sent (or amended to that price and total count); None when it may.

        An exit is never refused: it is reduce-only, and nothing of it can rest.
        """
        if order.time_in_force is not TimeInForce.GTC:
            return None
        why = self._why_not(order, price, Count(count - order.filled))
        if why is None:
            return None
        self.refused += 1
        return RiskRefused(
            f"{order.ticker}: {order.side.value} {format_count(count)} at {format_price(price)} not sent: {why}",
            code="risk_limit",
        )

    def _why_not(self, order: Order, price: Price, count: Count) -> str | None:
        ticker, side = order.ticker, order.side
        self.know_market(ticker)
        others = [o for o in self.orders(ticker) if o is not order]
        net = self.inventory(ticker).net
        pending = sum(o.at_risk for o in others if o.side is side)
        toward = net * side.sign + pending
        closing = max(-toward, 0)
        limit = self.parameters.max_inventory_per_market
        if count > max(limit - toward, closing):
            return f"MAX_INVENTORY_PER_MARKET {format_count(limit)}: {format_count(Count(toward))} held or working"
        by_gross = self.gross.room(ticker, side, net, Count(pending))
        if count > by_gross:
            return f"MAX_GLOBAL_INVENTORY {format_count(self.gross.limit)}: room {format_count(by_gross)}"
        beside = [w for o in others for w in _as_working(o)]
        room = self.portfolio.room(ticker, side, price, beside)
        if count > room:
            return f"loss limits: room {format_count(room)}, {self._tightest(ticker)}"
        bound = self.bound(ticker, side)
        if bound is not None and (price > bound if side is Side.BID else price < bound):
            word = "at most" if side is Side.BID else "at least"
            return f"free money: beside our other quotes of the event it may be {format_price(bound)} {word}"
        return None

    def _tightest(self, ticker: MarketTicker) -> str:
        event = event_of(ticker)
        worst = self.portfolio.worst_of(event)
        return (
            f"{event} may cost {format_money(worst)}, all events {format_money(self.portfolio.total)} dollars"
        )


def _slack(parameters: StrategyParameters) -> Money:
    """Ten quotes at their worst price: while so much is left, nothing decided now can be held back."""
    return Money(10 * parameters.size_per_fill * DOLLAR)


def _is_present_quote(order: Order, side: Side) -> bool:
    return (
        order.side is side and order.state is not OrderState.DONE and order.time_in_force is TimeInForce.GTC
    )


def _as_working(order: Order) -> tuple[WorkingOrder, ...]:
    """What may still fill of an order; at the worse of two prices while an amend is out."""
    if not order.at_risk:
        return ()
    price = order.price
    if order.amending_to is not None:
        price = (max if order.side is Side.BID else min)(price, order.amending_to, key=int)
    return (WorkingOrder(side=order.side, price=price, count=order.at_risk),)

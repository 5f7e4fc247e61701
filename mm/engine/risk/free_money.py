"""Our quotes on the markets of one event never add up to free money for a taker.

At most one market of a mutually exclusive event pays. Who sells us all of them at our bids receives the sum of the bids
and pays at most one dollar: the bids must not sum to more than one dollar. Who buys all of them at our asks is paid one
dollar for certain when the markets are all there are: the asks must not sum to less. Fees are left out, which only makes
both rules stricter. Every order that may rest counts, at every price that it may have.
"""

from collections.abc import Iterable, Mapping

import attrs

from mm.domain.numbers import DOLLAR, Price
from mm.domain.order import MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.risk.scenarios import EventShape


@attrs.frozen
class OwnPrices:
    """The best prices that our orders of one market may have now; None where none may rest."""

    bid: Price | None = None
    ask: Price | None = None


def own_prices(orders: Iterable[Order]) -> OwnPrices:
    """The prices at which our quotes of a market may rest (exits never rest: they are immediate-or-cancel)."""
    bids: list[Price] = []
    asks: list[Price] = []
    for order in orders:
        if order.state is OrderState.DONE or order.time_in_force is not TimeInForce.GTC:
            continue
        prices = bids if order.side is Side.BID else asks
        prices.append(order.price)
        if order.amending_to is not None:
            prices.append(order.amending_to)
    return OwnPrices(max(bids, default=None), min(asks, default=None))


@attrs.frozen
class FreeMoney:
    """The rule for one event."""

    shape: EventShape

    def bound(
        self, ticker: MarketTicker, side: Side, others: Mapping[MarketTicker, OwnPrices]
    ) -> Price | None:
        """The highest bid or the lowest ask that the market may have; None when nothing binds it.

        Args:
            others: Our prices in the event's markets (`ticker`'s own are not looked at). May lie outside 0..1 dollar:
                then no quote of that side is possible.
        """
        if self.shape.is_mutually_exclusive is False or len(self.shape.markets) < 2:
            return None
        rest = [others.get(t, OwnPrices()) for t in self.shape.markets if t != ticker]
        if side is Side.BID:
            return Price(DOLLAR - sum(prices.bid for prices in rest if prices.bid is not None))
        asks = [prices.ask for prices in rest if prices.ask is not None]
        # A market in which we sell nothing may be the one that pays: then nothing is certain.
        return Price(DOLLAR - sum(asks)) if len(asks) == len(rest) else None

    def allows(
        self, ticker: MarketTicker, side: Side, price: Price, others: Mapping[MarketTicker, OwnPrices]
    ) -> bool:
        """Whether a quote at `price` gives nothing away."""
        bound = self.bound(ticker, side, others)
        return bound is None or (price <= bound if side is Side.BID else price >= bound)

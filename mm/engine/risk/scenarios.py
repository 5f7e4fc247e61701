"""One event valued by outcome: what is held, and every order that may still fill, in each way the event can end.

The markets of a mutually exclusive event are one bet seen several times: at most one of them pays. Its outcomes are
"market k pays" for each k, and "none of these pays", unless the markets are known to be all there are (`is_exhaustive`;
a market of the event that we do not follow may win as well). In an event whose markets exclude nothing each
market is an event of its own. A settlement between 0 and 1 dollar (a void game) lies between these outcomes, and so
does its value.

An order fills in part, in full or never, in the way that is worst for us: in each outcome exactly those orders count
that lose in it. So no sequence of fills of any subset of them can cost more than the number given here.

Losses are `Money`, positive when we lose. The collateral that the venue returns for NO positions of a mutually exclusive
event is the same number seen from its side: all but one of them are certain to pay.
"""

from collections.abc import Iterable, Mapping

import attrs

from mm.domain.errors import InvariantError
from mm.domain.inventory import InventoryState
from mm.domain.numbers import DOLLAR, Count, Money, Price, ceil_div
from mm.domain.order import MarketTicker, Side

FEE_BOUND = 7
"""Hundredths of `count * p * (1 - p)`: the taker rate, which bounds the fee of any fill of a series at multiplier 1."""


@attrs.frozen(kw_only=True)
class EventShape:
    """Which ways an event can end, as far as our markets see it."""

    markets: tuple[MarketTicker, ...]
    """The markets that we know of, in any order, each once."""
    is_mutually_exclusive: bool | None = None
    """At most one of them pays. None: not known yet, and taken for whichever is worse."""
    is_exhaustive: bool = False
    """One of `markets` is certain to pay. Says nothing where they are not mutually exclusive."""
    is_netted: bool = True
    """What one market would lose may be set against what another would gain. False where the rules may close one of them
    alone, and leave the other without its hedge: then each market is taken at its own worst."""

    @property
    def outcomes(self) -> tuple[MarketTicker | None, ...]:
        """Of a mutually exclusive event: who pays; None: nobody of these."""
        nobody: tuple[MarketTicker | None, ...] = () if self.is_exhaustive else (None,)
        return (*self.markets, *nobody)


@attrs.frozen(kw_only=True)
class Holding:
    """A position in one market: signed contracts, and what was paid for them (negative: received)."""

    net: Count = Count(0)
    cost: Money = Money(0)

    @classmethod
    def of(cls, inventory: InventoryState) -> "Holding":
        """The open layers of an inventory."""
        # What a settlement at 0 would make of them, turned round: exactly what they cost.
        return cls(net=inventory.net, cost=Money(-inventory.unrealized(Price(0))))


@attrs.frozen(kw_only=True)
class WorkingOrder:
    """An order that may rest, or have fills to come: its side, YES price and what may still fill."""

    side: Side
    price: Price
    count: Count


def loss_per_contract(side: Side, price: Price, pays: bool) -> int:
    """What one hundredth of a contract bought or sold at `price` loses, in 1/10,000 cent, the largest fee included."""
    paid = price - (DOLLAR if pays else 0)
    return paid * side.sign + fee_per_contract(price)


def fee_per_contract(price: Price) -> int:
    """The most that one hundredth of a contract may be charged at `price`, in 1/1,000,000 dollar, rounded up."""
    return ceil_div(FEE_BOUND * price * (DOLLAR - price), 100 * DOLLAR)


Losses = dict[MarketTicker | None, Money]
"""Outcome -> what we lose in it (negative: win)."""


MarketLosses = tuple[int, int]
"""One market's part of an outcome in which it pays nothing, and of one in which it pays."""
NO_LOSSES: MarketLosses = (0, 0)


def market_losses(holding: Holding, orders: Iterable[WorkingOrder]) -> MarketLosses:
    """The position, and the orders that lose in that outcome."""
    lost, paid = int(holding.cost), holding.cost - holding.net * DOLLAR
    for order in orders:
        price, fee = order.price, fee_per_contract(order.price)
        # A bid loses its price where the market pays nothing and gains the rest of the dollar where it pays; an ask
        # the other way round. The gain never outweighs what another order loses: it may not fill.
        if order.side is Side.BID:
            lost += (price + fee) * order.count
            if price + fee > DOLLAR:
                paid += (price + fee - DOLLAR) * order.count
        else:
            paid += (DOLLAR - price + fee) * order.count
            if fee > price:
                lost += (fee - price) * order.count
    return lost, paid


def event_losses(shape: EventShape, markets: Mapping[MarketTicker, MarketLosses]) -> Losses:
    """Loss by outcome of a mutually exclusive event; markets that are not given hold and work nothing.

    Raises:
        InvariantError: The event's markets exclude nothing: its outcomes are their product, see `worst_loss`.
    """
    if not shape.is_mutually_exclusive:
        raise InvariantError("outcomes are listed for mutually exclusive events only")
    all_lost = sum(markets.get(ticker, NO_LOSSES)[0] for ticker in shape.markets)
    found: Losses = {}
    for ticker in shape.markets:
        lost, paid = markets.get(ticker, NO_LOSSES)
        found[ticker] = Money(all_lost - lost + paid)
    if not shape.is_exhaustive:
        found[None] = Money(all_lost)
    return found


def worst_loss(shape: EventShape, markets: Mapping[MarketTicker, MarketLosses]) -> Money:
    """The largest loss over all outcomes; never negative (nothing need fill, and an event may be nothing to us)."""
    if shape.is_mutually_exclusive and shape.is_netted:
        return Money(max(0, *event_losses(shape, markets).values()))
    return Money(max(0, sum(max(markets.get(ticker, NO_LOSSES)) for ticker in shape.markets)))

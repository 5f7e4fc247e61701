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

    def loss(self, pays: bool) -> Money:
        """What is lost when the market pays one dollar a YES, or nothing."""
        return Money(self.cost - (self.net * DOLLAR if pays else 0))


NOTHING_HELD = Holding()


@attrs.frozen(kw_only=True)
class WorkingOrder:
    """An order that may rest, or have fills to come: its side, YES price and what may still fill."""

    side: Side
    price: Price
    count: Count

    def loss(self, pays: bool) -> Money:
        """What its fills lose in that outcome, fees bounded; negative when they win."""
        return Money(loss_per_contract(self.side, self.price, pays) * self.count)


def loss_per_contract(side: Side, price: Price, pays: bool) -> int:
    """What one hundredth of a contract bought or sold at `price` loses, in 1/10,000 cent, the largest fee included."""
    paid = price - (DOLLAR if pays else 0)
    return paid * side.sign + fee_per_contract(price)


def fee_per_contract(price: Price) -> int:
    """The most that one hundredth of a contract may be charged at `price`, in 1/1,000,000 dollar, rounded up."""
    return ceil_div(FEE_BOUND * price * (DOLLAR - price), 100 * DOLLAR)


Losses = dict[MarketTicker | None, Money]
"""Outcome -> what we lose in it (negative: win)."""


def market_loss(holding: Holding, orders: Iterable[WorkingOrder], pays: bool) -> int:
    """One market's part of an outcome: the position, and the orders that lose in it."""
    return holding.loss(pays) + sum(max(order.loss(pays), 0) for order in orders)


def event_losses(
    shape: EventShape,
    holdings: Mapping[MarketTicker, Holding],
    orders: Mapping[MarketTicker, Iterable[WorkingOrder]],
) -> Losses:
    """Loss by outcome of a mutually exclusive event.

    Raises:
        InvariantError: The event's markets exclude nothing: its outcomes are their product, see `worst_loss`.
    """
    if not shape.is_mutually_exclusive:
        raise InvariantError("outcomes are listed for mutually exclusive events only")
    lost, paid = {}, {}
    for ticker in shape.markets:
        holding, working = holdings.get(ticker, NOTHING_HELD), tuple(orders.get(ticker, ()))
        lost[ticker] = market_loss(holding, working, pays=False)
        paid[ticker] = market_loss(holding, working, pays=True)
    all_lost = sum(lost.values())
    return {
        winner: Money(all_lost if winner is None else all_lost - lost[winner] + paid[winner])
        for winner in shape.outcomes
    }


def worst_loss(
    shape: EventShape,
    holdings: Mapping[MarketTicker, Holding],
    orders: Mapping[MarketTicker, Iterable[WorkingOrder]],
) -> Money:
    """The largest loss over all outcomes; never negative (nothing need fill, and an event may be nothing to us)."""
    if shape.is_mutually_exclusive:
        return Money(max(0, *event_losses(shape, holdings, orders).values()))
    total = 0
    for ticker in shape.markets:
        holding, working = holdings.get(ticker, NOTHING_HELD), tuple(orders.get(ticker, ()))
        total += max(market_loss(holding, working, pays) for pays in (False, True))
    return Money(max(0, total))

"""An execution as the venue reported it. Fills are the only thing that moves inventory."""

import enum
from typing import NewType

import attrs

from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, OrderId, Side

TradeId = NewType("TradeId", str)
"""The venue's id of a trade (= its fill id); unique together with the order id."""


class Liquidity(enum.Enum):
    """Who was there first. Decides the fee."""

    MAKER = "maker"
    TAKER = "taker"


@attrs.frozen(kw_only=True)
class Fill:
    """We bought (`side` BID) or sold (ASK) `count` YES contracts at YES price `price`."""

    order_id: OrderId
    trade_id: TradeId
    ticker: MarketTicker
    side: Side
    price: Price
    count: Count
    fee: Money
    """As charged; never negative."""
    liquidity: Liquidity
    ts: Micros
    """The venue's time of the trade."""
    client_order_id: ClientOrderId | None = None
    """Only the socket tells it."""

    @property
    def key(self) -> tuple[OrderId, TradeId]:
        """What makes a fill the same fill, whichever way it came."""
        return (self.order_id, self.trade_id)

    @property
    def signed_count(self) -> int:
        """The change of the signed position, in `Count` units."""
        return self.count * self.side.sign


@attrs.frozen(kw_only=True)
class Trade:
    """A public print. `taker_side` BID means that the taker bought YES."""

    trade_id: TradeId
    ticker: MarketTicker
    price: Price
    count: Count
    taker_side: Side
    ts: Micros
    is_block: bool = False
    """Block trades do not touch the book and feed no average."""

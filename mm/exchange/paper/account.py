"""Money, positions and order groups of a paper account. Pure: no clock, no IO.

Fully collateralised: a long contract costs its price, a short one (NO) a dollar less its price; closing pays back. Cash
for resting orders is set aside while they rest. Gains across the markets of one event are not netted.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from mm.domain.fees import FeeSchedule
from mm.domain.fill import Fill, Liquidity
from mm.domain.numbers import CONTRACT, SECOND, Count, Micros, Money, Price, complement, notional
from mm.domain.order import GroupId, MarketTicker, Side
from mm.exchange.paper.matching import PaperOrder
from mm.exchange.port import OrderGroup, Settlement, VenuePosition

GROUP_WINDOW: Final = 15 * SECOND


@attrs.define(eq=False)
class PaperPosition:
    """What we hold in one market."""

    exchange_index: int
    net: Count = Count(0)
    cost: Money = Money(0)
    """What the open contracts cost, average method."""
    realized: Money = Money(0)
    fees: Money = Money(0)


@attrs.define(eq=False)
class PaperGroup:
    """An order group with its rolling sum."""

    group_id: GroupId
    exchange_index: int
    limit: Count
    is_triggered: bool = False
    _matched: "deque[tuple[Micros, Count]]" = attrs.field(factory=deque)

    def matched(self, count: Count, now: Micros) -> bool:
        """Count a fill; whether more than the limit has matched within 15 seconds."""
        self._matched.append((now, count))
        while self._matched[0][0] <= now - GROUP_WINDOW:
            self._matched.popleft()
        return sum(count for _, count in self._matched) > self.limit

    def view(self) -> OrderGroup:
        """As the port tells it."""
        return OrderGroup(
            group_id=self.group_id, exchange_index=self.exchange_index, is_triggered=self.is_triggered
        )


@attrs.define(eq=False)
class PaperAccount:
    """Cash and positions."""

    cash: Money
    positions: dict[MarketTicker, PaperPosition] = attrs.field(factory=dict)
    settlements: list[Settlement] = attrs.field(factory=list)

    def net(self, ticker: MarketTicker) -> Count:
        """The signed position."""
        position = self.positions.get(ticker)
        return Count(0) if position is None else position.net

    def book(self, fill: Fill, exchange_index: int) -> None:
        """Move cash and position by a fill."""
        position = self.positions.setdefault(fill.ticker, PaperPosition(exchange_index))
        own_price = fill.price if fill.side is Side.BID else complement(fill.price)
        sign = fill.side.sign
        closing = Count(min(fill.count, max(-position.net * sign, 0)))
        opening = Count(fill.count - closing)
        if closing:
            # Closing gives back what the other leg is worth at this price.
            proceeds = notional(complement(own_price), closing)
            cost = Money(position.cost * closing // abs(position.net))
            position.cost = Money(position.cost - cost)
            position.realized = Money(position.realized + proceeds - cost)
            self.cash = Money(self.cash + proceeds)
        if opening:
            cost = notional(own_price, opening)
            position.cost = Money(position.cost + cost)
            self.cash = Money(self.cash - cost)
        position.net = Count(position.net + fill.signed_count)
        position.fees = Money(position.fees + fill.fee)
        self.cash = Money(self.cash - fill.fee)

    def settle(self, ticker: MarketTicker, value: Price, now: Micros) -> Settlement | None:
        """Pay a market out; None when nothing is held there."""
        position = self.positions.pop(ticker, None)
        if position is None or not position.net:
            return None
        each = value if position.net > 0 else complement(value)
        self.cash = Money(self.cash + notional(each, Count(abs(position.net))))
        settlement = Settlement(
            ticker=ticker,
            value=value,
            settled_at=now,
            yes_count=Count(max(position.net, 0)),
            no_count=Count(max(-position.net, 0)),
            fee=position.fees,
        )
        self.settlements.append(settlement)
        return settlement

    def reserved(self, orders: Iterable[PaperOrder], schedules: Mapping[MarketTicker, FeeSchedule]) -> Money:
        """Cash set aside for resting orders: what opens positions, best price first, with its maker fee."""
        total = 0
        closable: dict[tuple[MarketTicker, Side], int] = {}
        for order in sorted(orders, key=lambda o: -o.price * o.side.sign):
            key = (order.ticker, order.side)
            free = closable.setdefault(key, max(-self.net(order.ticker) * order.side.sign, 0))
            closing = min(free, order.remaining)
            closable[key] = free - closing
            total += opening_cost(order.side, order.price, Count(order.remaining - closing))
            total += schedules[order.ticker].trade_fee(order.price, order.remaining, Liquidity.MAKER)
        return Money(total)

    def views(self) -> list[VenuePosition]:
        """Unsettled positions as the port tells them."""
        return [
            VenuePosition(
                ticker=ticker,
                position=position.net,
                fees_paid=position.fees,
                realized_pnl=position.realized,
                exchange_index=position.exchange_index,
            )
            for ticker, position in self.positions.items()
        ]


def opening_cost(side: Side, price: Price, count: Count) -> Money:
    """What opening `count` costs: the price of a YES, or a dollar less it."""
    return notional(price if side is Side.BID else complement(price), count)


def group_limit(contracts: int) -> Count:
    """A limit in whole contracts as a `Count`."""
    return Count(contracts * CONTRACT)

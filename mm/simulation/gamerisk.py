"""What a game may cost and what its quotes give away, judged by the exchange's own books after every change of an order.

The bot counts with what it knows; here the truth is counted: cash that every fill really moved, fees as charged, positions and
resting orders as the matching core has them. Written apart from `mm.engine.risk`, so that a mistake there is one only once.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import attrs

from mm.domain.numbers import DOLLAR, Money, format_money
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import event_of
from mm.exchange.embedded.core.model import FillRecord, OrderRecord
from mm.exchange.embedded.core.state import User


@attrs.define(eq=False, kw_only=True)
class GameRisk:
    """One account's games."""

    limit: Money | None
    """`MAX_EVENT_LOSS`."""
    fail: Callable[[str, str], None]
    _cash: "Counter[MarketTicker]" = attrs.field(factory=Counter)
    """By market: what its fills brought (+) and cost (-), fees included."""
    _not_ours: set[str] = attrs.field(factory=set)
    """Events in which somebody traded by hand: no limit of the bot kept that."""

    def filled(self, fill: FillRecord, *, is_ours: bool) -> None:
        """A fill of the account."""
        self._cash[fill.ticker] -= fill.side.sign * fill.price * fill.count + fill.fee
        if not is_ours:
            self._not_ours.add(event_of(fill.ticker))

    def check(self, user: User, orders: Iterable[OrderRecord]) -> None:
        """After any change: `orders` are the bot's that rest."""
        working: dict[str, list[OrderRecord]] = defaultdict(list)
        for order in orders:
            working[event_of(order.ticker)].append(order)
        held = {event_of(ticker) for ticker, holding in user.holdings.items() if not holding.is_settled}
        for event in sorted(held | working.keys()):
            self._check_gift(event, working[event])
            if self.limit is not None and event not in self._not_ours:
                self._check_loss(event, user, working[event])

    def _check_gift(self, event: str, orders: list[OrderRecord]) -> None:
        """A taker who meets the bot's quotes of both teams must not gain for certain."""
        bids: dict[MarketTicker, int] = {}
        asks: dict[MarketTicker, int] = {}
        for order in orders:
            if order.side is Side.BID:
                bids[order.ticker] = max(bids.get(order.ticker, 0), order.price)
            else:
                asks[order.ticker] = min(asks.get(order.ticker, DOLLAR), order.price)
        if sum(bids.values()) > DOLLAR:
            self.fail("free money", f"{event}: bids {bids}")
        if len(asks) == 2 and sum(asks.values()) < DOLLAR:
            self.fail("free money", f"{event}: asks {asks}")

    def _check_loss(self, event: str, user: User, orders: list[OrderRecord]) -> None:
        """In no ending, whatever of the resting orders fills, does the game cost more than its limit."""
        assert self.limit is not None
        markets = {t for t in user.holdings if event_of(t) == event} | {order.ticker for order in orders}
        if any(t in user.holdings and user.holdings[t].is_settled for t in markets):
            return
        for winner in (None, *markets):
            result = 0
            for ticker in markets:
                value = DOLLAR if ticker == winner else 0
                position = user.holdings[ticker].position if ticker in user.holdings else 0
                result += self._cash[ticker] + position * value
                for order in orders:
                    if order.ticker == ticker:
                        result += min(0, (value - order.price) * order.side.sign * order.remaining)
            if -result > self.limit:
                lost, limit = format_money(Money(-result)), format_money(self.limit)
                self.fail(
                    "event limit", f"{event}: {lost} may be lost of {limit} if {winner or 'nobody'} wins"
                )

"""What a strategy sees of its market at one moment, and what it answers.

Cheap to make: whatever not every strategy looks at is worked out when it is asked for.
"""

import enum
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from mm.domain.book import OrderBook
from mm.domain.fees import FeeSchedule
from mm.domain.game import GameState
from mm.domain.grid import TickGrid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import WantedQuotes
from mm.engine.strategies.signals import Signals

Quote: TypeAlias = WantedQuotes
"""A strategy's answer: the wanted quote of each side, `NO_QUOTES` for none."""


class Regime(enum.Enum):
    """Which part of a game it is, as far as known."""

    UNKNOWN = "unknown"
    """No scoreboard: nobody knows."""
    PRE_GAME = "pre_game"
    PLAY = "play"
    BREAK = "break"
    """Between two periods."""
    LAST_MINUTES = "last_minutes"
    """The end of the last regular period, while the game is close; or a goalie is off the ice."""
    OVERTIME = "overtime"
    FINAL = "final"
    """Over, though the market may still trade."""


@attrs.frozen(kw_only=True)
class Sibling:
    """Another market of the same event."""

    ticker: MarketTicker
    touch: Touch
    """Without our own orders; empty while its book cannot be trusted."""
    net: Count = Count(0)


def _no_siblings() -> Sequence[Sibling]:
    return ()


@attrs.define(eq=False, kw_only=True)
class Context:
    """What the shell tells a market maker beside book, prints and fills. Every part may be missing."""

    fees: FeeSchedule = attrs.field(factory=FeeSchedule)
    """Of the market, as listed."""
    regime: Regime = Regime.UNKNOWN
    game: GameState | None = None
    ends_at: Micros | None = None
    """When the market is expected to be decided."""
    siblings: Callable[[], Sequence[Sibling]] = _no_siblings
    external: tuple[Price, Micros] | None = None
    """A probability from outside, and when it was told."""
    seed: int = 0
    """Of the variation against predictability."""
    goal_ticks: int = 0
    """How much wider the goal guard wants the quotes now."""


_NO_CONTEXT = Context()


@attrs.frozen(kw_only=True)
class View:
    """One market at one moment. Prices in `Price`, sizes in `Count`, times in `Micros`."""

    now: Micros
    market: Market
    book: OrderBook
    """As the venue shows it: our own orders are in it. Not to be changed."""
    touch: Touch
    """Its best prices."""
    others: Touch
    """The best prices without our own orders."""
    inventory: InventoryState
    """The market's own: what a quote or an exit may trade."""
    ruled: InventoryState
    """What rules about state, skew and risk go by: the same, or the event's netted over its markets."""
    mark: Price | None
    """The average of prints held within the others' touch; never None where `quote` is asked."""
    parameters: StrategyParameters
    orders: Sequence[Order] = ()
    """Ours, any that may rest or have fills to come."""
    pending: Sequence[tuple[Side, Price, Count]] = ()
    """Fills still to come of orders that have ended: (side, price, count)."""
    market_room: Callable[[Side, Price], Count] | None = None
    """What the limits over all markets leave for a quote of that side and price; None: no such limit."""
    price_bound: Callable[[Side], Price | None] | None = None
    """The highest bid or lowest ask that our quotes on the event's other markets leave; None: nothing binds."""
    extra_ticks: int = 0
    """How many ticks further out quotes have to stand (churn brake, guards)."""
    signals: Signals | None = None
    """Averages of the market's past; there for strategies with `uses_signals`."""
    context: Context = _NO_CONTEXT
    fair: "Callable[[View], Price | None] | None" = None
    """The fair-value source in force; None: the mark."""

    @property
    def ticker(self) -> MarketTicker:
        """The market's."""
        return self.market.ticker

    @property
    def grid(self) -> TickGrid:
        """The market's prices."""
        return self.market.grid

    @property
    def net(self) -> Count:
        """Our position as the rules see it, long positive."""
        return self.ruled.net

    @property
    def fair_value(self) -> Price | None:
        """What one YES is worth, by the source in force; None when it does not know."""
        return self.mark if self.fair is None else self.fair(self)

    @property
    def regime(self) -> Regime:
        """Which part of the game it is."""
        return self.context.regime

    @property
    def siblings(self) -> Sequence[Sibling]:
        """The other markets of the event, as far as they are watched."""
        return self.context.siblings()

    @property
    def fees(self) -> FeeSchedule:
        """What the venue charges here."""
        return self.context.fees

    @property
    def time_to_start(self) -> Micros | None:
        """Until the scheduled start, negative once past; None where it is not known."""
        game = self.context.game
        if game is None or game.starts_at is None:
            return None
        return Micros(game.starts_at - self.now)

    @property
    def time_to_end(self) -> Micros | None:
        """Until the market is expected to be decided, at least 0; None where nobody said."""
        ends_at = self.context.ends_at or self.market.expected_expiration
        return None if ends_at is None else Micros(max(0, ends_at - self.now))

    def resting(self, side: Side) -> Order | None:
        """Our quote of that side, if one rests."""
        for order in self.orders:
            if (
                order.side is side
                and order.state is OrderState.RESTING
                and order.time_in_force is TimeInForce.GTC
            ):
                return order
        return None

    def ahead(self, side: Side) -> Count | None:
        """Contracts before our resting quote in its queue, at most; None when none rests or nobody counts."""
        order = self.resting(side)
        if order is None or self.signals is None:
            return None
        return self.signals.queue.ahead(order.client_order_id)

    def others_size(self, side: Side, price: Price) -> Count:
        """What others have resting at `price`."""
        own = sum(
            order.leaves
            for order in self.orders
            if order.side is side
            and order.price == price
            and order.time_in_force is TimeInForce.GTC
            and order.state in _IN_THE_BOOK
        )
        return Count(max(0, self.book.size_at(side, price) - own))


_IN_THE_BOOK = frozenset({OrderState.RESTING, OrderState.AMENDING, OrderState.CANCELLING})

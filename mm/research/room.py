"""One market of a run, and what whoever watches a run is told. How it moves is `loop`'s."""

from typing import Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.commands import Command, FlattenReason
from mm.domain.fill import Fill
from mm.domain.numbers import DOLLAR, Micros, Price
from mm.domain.order import MarketTicker, Order, Side
from mm.engine.quoter import Decision, MarketMaker
from mm.research.fills import ModelMarket
from mm.research.quiet import Quiet
from mm.research.tape import TapeMarket

NEVER: Final = 1 << 62


class Watcher:
    """What wants to know of a run. Every method may be left as it is."""

    due: int = NEVER
    """From when on `on_time` is called; whoever watches moves it."""

    def on_time(self, now: Micros) -> None:
        """Everything up to and with the moment before `now` has happened. Called when `due` has come."""

    def on_fill(self, room: "Room", fill: Fill) -> None:
        """A fill of ours, after the inventory moved."""

    def on_decision(self, room: "Room", decision: Decision, now: Micros) -> None:
        """The engine was asked."""

    def on_command(self, room: "Room", command: Command, now: Micros) -> None:
        """A command was sent."""

    def on_exit(self, room: "Room", order: Order, now: Micros) -> None:
        """An exit order was sent."""

    def on_trigger(self, ticker: MarketTicker, reason: FlattenReason, now: Micros) -> None:
        """A flatten began."""


@attrs.define(eq=False)
class Lane:
    """One side of a market's book, and where a change of it concerns our orders at the exchange."""

    room: "Room"
    side: Side
    hot: frozenset[int] = frozenset()
    """Prices at which orders of ours stand, or of which something was taken or traded: never passed over."""
    meets: int = 0
    """Size that appears at this price, or beyond it, meets an order of ours on the other side."""
    mine: int = 0
    """The best price of our own orders on this side; beyond all prices when there is none."""


@attrs.define(eq=False)
class Room:
    """One market of the run."""

    place: int
    info: TapeMarket
    paper: ModelMarket
    maker: MarketMaker
    busy: dict[Side, bool] = attrs.field(factory=lambda: {Side.BID: False, Side.ASK: False})
    is_exiting: bool = False
    wake_at: int = 0
    """When a wake stands in the heap; 0: none does."""
    holds_until: dict[str, Micros] = attrs.field(factory=dict)
    own_prices: frozenset[int] = frozenset()
    """Prices at which we know an order of ours: a change of size there may matter."""
    twice_mid: int | None = None
    """Twice the mid of the recorded book, as of the last finished read."""
    last_twice_mid: int | None = None
    """The last one that there was."""
    is_over: bool = False
    sisters: "list[Room]" = attrs.field(factory=list)
    """The other markets of its event: what we quote here may bind there."""
    quiet: Quiet | None = None
    """Within these bounds the engine would say again what it said last; None: it has to be asked."""
    average: Price | None = None
    """The engine's average of prints, as its rules see it."""
    sees_depth: bool = False
    """Its strategy looks at sizes: every change is told."""
    book: OrderBook = attrs.field(init=False)
    """The recorded book, without our orders."""
    bids: Lane = attrs.field(init=False)
    asks: Lane = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.book = self.paper.book
        self.sees_depth = self.maker.strategy.sees_depth
        self.bids, self.asks = Lane(self, Side.BID), Lane(self, Side.ASK)
        self.refresh()

    def refresh(self) -> None:
        """Look at our orders anew: after anything that is not a plain change of a level."""
        bids, asks, paper = self.bids, self.asks, self.paper
        if self.sees_depth:
            bids.meets, asks.meets = -1, DOLLAR + 1  # every change concerns somebody
            return
        own_bids = [order.price for order in paper.orders[Side.BID]]
        own_asks = [order.price for order in paper.orders[Side.ASK]]
        best_bid, best_ask = max(own_bids, default=-1), min(own_asks, default=DOLLAR + 1)
        bids.mine = asks.meets = best_bid
        asks.mine = bids.meets = best_ask
        known = paper.touched_levels()
        bids.hot = self.own_prices.union(own_bids, [price for side, price in known if side is Side.BID])
        asks.hot = self.own_prices.union(own_asks, [price for side, price in known if side is Side.ASK])

    @property
    def ticker(self) -> MarketTicker:
        """The market."""
        return self.info.ticker

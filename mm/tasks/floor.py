"""The trading floor: everything the tasks share, in one object without tasks.

One writer per piece of state: the feed writes books, the desk writes orders, fills write inventories. Who changes
something marks its market; marked markets are decided on once per read of the feed, by direct call, and their quoter
is woken when there is something to send.
"""

from collections.abc import Callable

import attrs
import structlog

from mm.domain.book import OrderBook
from mm.domain.fees import FeeSchedule
from mm.domain.fill import Fill
from mm.domain.inventory import InventoryState
from mm.domain.market import Market
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Order, Side
from mm.engine.limits import GlobalInventory
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.engine.risk.netting import netted
from mm.engine.strategies.registry import StrategyTable
from mm.engine.strategies.view import Sibling
from mm.tasks.desk import OrderDesk
from mm.tasks.exposure import Exposure
from mm.tasks.positions import Positions
from mm.tasks.quoter import Quoter

log = structlog.get_logger(__name__)


@attrs.define(eq=False, kw_only=True)
class Floor:
    """Books, makers, quoters, inventories and the limits over all of them."""

    parameters: StrategyParameters
    clock: Callable[[], Micros]
    positions: Positions
    net_across: bool = False
    """Rules see the two markets of a game as one position (`NET_ACROSS_MARKETS`)."""
    fees: dict[str, FeeSchedule] = attrs.field(factory=dict)
    """By series, as listed; written by discovery."""
    strategies: StrategyTable = attrs.field(factory=StrategyTable)
    """Which market gets which strategy."""
    make_maker: Callable[..., MarketMaker] = MarketMaker
    make_book: Callable[[], OrderBook] = OrderBook
    """Others than the plain ones note what they are told and what they decide, see `mm.engine.decisions`."""
    books: dict[MarketTicker, OrderBook] = attrs.field(factory=dict)
    """Every watched market."""
    makers: dict[MarketTicker, MarketMaker] = attrs.field(factory=dict)
    """Every market that has a quoter."""
    quoters: dict[MarketTicker, Quoter] = attrs.field(factory=dict)
    exposure: Exposure = attrs.field(init=False)
    desk: OrderDesk | None = None
    """Set by the session once it is made (desk and floor know each other)."""
    dirty: dict[MarketTicker, None] = attrs.field(factory=dict)
    """Markets to be decided on, in the order in which they were marked."""
    unseen: dict[MarketTicker, None] = attrs.field(factory=dict)
    """Markets in which this read changed only what no decision looks at; looked at while a limit over all binds."""
    portfolio_hold: str = ""
    """Why nothing may be quoted anywhere; empty when quoting is allowed."""
    holds: dict[str, str] = attrs.field(factory=dict)
    """Cause -> why nothing is quoted anywhere, markets still to be taken included."""
    market_holds: dict[MarketTicker, dict[str, str]] = attrs.field(factory=dict)
    """The same for single markets, taken or not."""
    leaving: set[MarketTicker] = attrs.field(factory=set)
    """Markets that are being wound down: quotes may only make the position smaller."""
    is_feed_up: bool = False
    is_fencing: bool = False
    """All groups are being triggered: quoters wait for the end of it."""
    guard_ticks: int = 0
    """How many ticks further out the guards want every quote."""
    last_frame_at: Micros = Micros(0)
    decisions: int = 0

    def __attrs_post_init__(self) -> None:
        self.exposure = Exposure(
            parameters=self.parameters,
            inventory=self.positions.inventory,
            orders=self.orders,
            is_netted=self.net_across,
        )

    @property
    def gross(self) -> GlobalInventory:
        """The limit in contracts over all markets."""
        return self.exposure.gross

    # --- markets ---

    def add_market(self, market: Market) -> MarketMaker:
        """Make the state machine of a market that is to be quoted; its book starts empty and not synced."""
        ticker = market.ticker
        maker = self.make_maker(
            market=market,
            parameters=self.parameters,
            strategy=self.strategies.of(ticker),
            book=self.books.setdefault(ticker, self.make_book()),
            inventory=lambda: self.positions.inventory(ticker),
            orders=lambda: self.orders(ticker),
            event_inventory=(lambda: self.netted(ticker)) if self.net_across else None,
            market_room=lambda side, price: self.market_room(ticker, side, price),
            price_bound=lambda side: self.exposure.bound(ticker, side),
        )
        maker.context.fees = self.fees.get(market.series_ticker, maker.context.fees)
        maker.context.siblings = lambda: self._siblings(ticker)
        if not self.is_feed_up:
            maker.holds["feed"] = "feed is down"
        maker.guard_ticks = self.guard_ticks
        maker.holds.update(self.holds | self.market_holds.get(ticker, {}))
        self.makers[ticker] = maker
        self.update_exposure(ticker)
        return maker

    def _siblings(self, ticker: MarketTicker) -> list[Sibling]:
        """The quoted markets of the same event, as its strategy may look at them."""
        found = []
        for other in self.exposure.siblings(ticker):
            maker = self.makers.get(other)
            if maker is not None:
                found.append(Sibling(ticker=other, touch=maker.others_touch, net=self.positions.net(other)))
        return found

    def remove_market(self, ticker: MarketTicker) -> None:
        """Forget a market that is over and flat, and has no order left."""
        self.makers.pop(ticker, None)
        self.quoters.pop(ticker, None)
        self.books.pop(ticker, None)
        self.dirty.pop(ticker, None)
        self.leaving.discard(ticker)
        self.exposure.forget_market(ticker)

    def orders(self, ticker: MarketTicker) -> list[Order]:
        """Our orders of a market that may rest or have fills to come."""
        return self.desk.of_market(ticker) if self.desk is not None else []

    def wind_down(self, ticker: MarketTicker) -> None:
        """Nothing new in this market: quotes that would add to its position go, those that close it stay."""
        self.leaving.add(ticker)
        self.mark(ticker)
        self.order_changed(ticker)

    # --- changes ---

    def mark(self, ticker: MarketTicker) -> None:
        """Something of this market changed: decide again at the end of the read."""
        if ticker in self.makers:
            self.dirty[ticker] = None

    def level_changed(
        self, ticker: MarketTicker, side: Side, price: Price, change: Count, best_before: Price | None
    ) -> None:
        """One level of the book moved: decide again at the end of the read, if a decision could see it."""
        maker = self.makers.get(ticker)
        if maker is None:
            return
        if maker.sees(side, price, change, best_before):
            self.dirty[ticker] = None
        else:
            self.unseen[ticker] = None

    def order_changed(self, ticker: MarketTicker) -> None:
        """One of our orders moved: exposure is different, and its quoter should look."""
        maker = self.makers.get(ticker)
        if maker is not None:
            maker.is_own_known = False
        self.update_exposure(ticker)
        for changed in (ticker, *self.exposure.siblings(ticker)):
            # The markets of one event leave each other room and prices.
            quoter = self.quoters.get(changed)
            if quoter is not None:
                quoter.wake()

    def apply_fill(self, fill: Fill) -> bool:
        """A fill from either source. Moves the inventory and its order when new; returns whether it was."""
        if not self.positions.apply(fill):
            return False
        if self.desk is not None:
            self.desk.on_fill(fill)
        self.update_exposure(fill.ticker)
        maker = self.makers.get(fill.ticker)
        if maker is not None:
            maker.on_fill()
            self.mark(fill.ticker)
            self.order_changed(fill.ticker)
        return True

    def decide_dirty(self, now: Micros) -> None:
        """One decision for every marked market; wakes the quoters that have something to send, now or soon."""
        if self.unseen:
            if self.is_tight:
                self.dirty.update(self.unseen)
            self.unseen.clear()
        if not self.dirty:
            return
        marked, self.dirty = self.dirty, {}
        for ticker in marked:
            quoter = self.quoters.get(ticker)
            if quoter is None:
                continue
            self.decisions += 1
            decision = quoter.look()
            if decision.has_work:
                quoter.hear(decision)
                continue
            if quoter.would_oversleep(decision):
                quoter.wake()  # to look again at once: a flatten that has just ended may quote in the same instant
                continue
            quoter.hear_nothing(decision)
            if self.desk is not None:
                self.desk.expect(ticker, now)

    def wake_all(self) -> None:
        """Every quoter looks again."""
        for quoter in self.quoters.values():
            quoter.wake()

    def hold_all(self, cause: str, why: str) -> None:
        """No quotes anywhere until `lift_all`; what rests is pulled."""
        self.holds[cause] = why
        for ticker, maker in self.makers.items():
            maker.holds[cause] = why
            self.order_changed(ticker)

    def lift_all(self, cause: str) -> None:
        """The cause is over."""
        self.holds.pop(cause, None)
        for ticker, maker in self.makers.items():
            if maker.holds.pop(cause, None) is not None:
                self.order_changed(ticker)

    def hold(self, ticker: MarketTicker, cause: str, why: str) -> None:
        """No quotes in this market until `lift`, whether it is taken now or later."""
        self.market_holds.setdefault(ticker, {})[cause] = why
        if ticker in self.makers:
            self.makers[ticker].holds[cause] = why
            self.order_changed(ticker)

    def lift(self, ticker: MarketTicker, cause: str) -> None:
        """The market's cause is over."""
        self.market_holds.get(ticker, {}).pop(cause, None)
        if ticker in self.makers and self.makers[ticker].holds.pop(cause, None) is not None:
            self.order_changed(ticker)

    # --- limits over all markets ---

    def update_exposure(self, ticker: MarketTicker) -> None:
        """Recount one market's worst case: position, and everything that may still fill."""
        was_tight = self.is_tight
        self.exposure.update(ticker)
        if was_tight and not self.is_tight:
            self.dirty.update(dict.fromkeys(self.makers))  # whoever was held back may have room now

    @property
    def is_tight(self) -> bool:
        """A limit over all markets may hold a quote back somewhere: every change is looked at then."""
        return self.exposure.is_tight

    def market_room(self, ticker: MarketTicker, side: Side, price: Price) -> Count:
        """What the limits over all markets leave for a quote, its own present order not counted."""
        room = self.exposure.room(ticker, side, price)
        if ticker not in self.leaving:
            return room
        towards_flat = -self.positions.net(ticker) * side.sign
        return Count(min(room, max(0, towards_flat)))

    # --- money ---

    def mark_of(self, ticker: MarketTicker) -> Price | None:
        """The price a position is valued at: the maker's mark, else the last average, else nothing."""
        maker = self.makers.get(ticker)
        if maker is None:
            return None
        return maker.mark if maker.mark is not None else maker.mid.mark

    def inventory(self, ticker: MarketTicker) -> InventoryState:
        """A market's inventory."""
        return self.positions.inventory(ticker)

    def netted(self, ticker: MarketTicker) -> InventoryState:
        """The position of a game of two markets, seen from one of them; the market's own in any other event."""
        own, sibling = self.inventory(ticker), self.exposure.opposite(ticker)
        return own if sibling is None else netted(own, self.inventory(sibling))

    def unrealized(self) -> Money:
        """Of all positions that can be valued."""
        total = 0
        for ticker, history in self.positions.histories.items():
            if not history.state.is_flat and (mark := self.mark_of(ticker)) is not None:
                total += history.state.unrealized(mark)
        return Money(total)

    def marked_pnl(self) -> Money:
        """Realized net and unrealized, over all markets."""
        return Money(self.positions.realized() + self.unrealized())

"""One market's decisions: book, prints, inventory and our orders in; commands out.

A `MarketMaker` is a synchronous state machine. The shell tells it what happened and asks `decide`; between two awaits
of the shell nothing changes here, so no lock is needed. What it answers is a wish: the shell sends it when the write
budget allows, and asks again just before it sends.
"""

import enum
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from mm.domain.book import OrderBook
from mm.domain.commands import FlattenReason, QuoteCommand
from mm.domain.fill import Trade
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import Order, OrderState, Side, TimeInForce
from mm.engine.diff import SidePlan, SideTimer, plan_side
from mm.engine.exits import ExitOrder, exit_order
from mm.engine.hybrid_risk import ExtremePriceGate, HybridRiskPolicy
from mm.engine.journal import JournalEntry, new_journal
from mm.engine.mark import MidEma, Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import NO_QUOTES, WantedQuotes, may_quote
from mm.engine.requote import ChurnBrake
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.hybrid import Hybrid
from mm.engine.strategies.signals import Signals
from mm.engine.strategies.view import Context, View

EXIT_PAUSE: Micros = Micros(300_000)
"""Rest between two attempts to exit: the book and our fills must have a chance to arrive."""


_NO_TOUCH = Touch(None, None)
_IN_THE_BOOK = frozenset({OrderState.RESTING, OrderState.AMENDING, OrderState.CANCELLING})


class MakerState(enum.Enum):
    """What a market is doing, for people."""

    STARTING = "starting"
    QUOTING = "quoting"
    HELD = "held"
    """Not quoted, for the reason given."""
    FLATTENING = "flattening"


@attrs.frozen(kw_only=True)
class Decision:
    """What one market should do now."""

    bid: SidePlan
    ask: SidePlan
    exit: ExitOrder | None
    state: MakerState
    reason: str
    """Why it does not quote, in words; empty when it does."""
    wake_at: Micros | None
    """Decide again then, even if nothing happens."""

    def plan(self, side: Side) -> SidePlan:
        """The plan of that side."""
        return self.bid if side is Side.BID else self.ask

    @property
    def has_work(self) -> bool:
        """Something should be sent."""
        return bool(self.bid.commands or self.ask.commands or self.exit is not None)


def _flat() -> InventoryState:
    return InventoryState()


@attrs.define(eq=False, kw_only=True)
class MarketMaker:
    """The state machine of one quoted market."""

    market: Market
    parameters: StrategyParameters
    book: OrderBook
    inventory: Callable[[], InventoryState] = _flat
    """The market's inventory, moved by fills elsewhere."""
    event_inventory: Callable[[], InventoryState] | None = None
    """The event's position, netted over its markets and seen from this one, where the rules are to go by that."""
    orders: Callable[[], Sequence[Order]] = tuple
    """Our orders of this market that may rest or have fills to come."""
    market_room: Callable[[Side, Price], Count] | None = None
    """What the limits over all markets leave for a quote of that side and price."""
    price_bound: Callable[[Side], Price | None] | None = None
    """The highest bid or lowest ask that our quotes on the event's other markets leave; None: nothing binds."""
    guard_ticks: int = 0
    """How many ticks further out the guards want the quotes."""
    strategy: Strategy = attrs.field(factory=Hybrid)
    """Asked which quotes are wanted."""
    context: Context = attrs.field(factory=Context)
    """What strategies see beside book and prints; written by the shell."""
    signals: Signals | None = attrs.field(init=False, default=None)
    """Kept for strategies that look at them."""
    mid: MidEma = attrs.field(factory=MidEma)
    policy: HybridRiskPolicy = attrs.field(init=False)
    gate: ExtremePriceGate = attrs.field(factory=ExtremePriceGate)
    brake: ChurnBrake = attrs.field(factory=ChurnBrake)
    timers: dict[Side, SideTimer] = attrs.field(
        factory=lambda: {Side.BID: SideTimer(), Side.ASK: SideTimer()}
    )
    holds: dict[str, str] = attrs.field(factory=dict)
    """Cause -> why nothing may be quoted. Several may hold at once; each is lifted by who set it."""
    exit_holds: dict[str, str] = attrs.field(factory=dict)
    """Cause -> why nothing at all may be sent (market paused, outcome of an exit unknown)."""
    flattening: FlattenReason | None = None
    exit_attempt: int = 0
    next_exit_at: Micros = Micros(0)
    needs_position_check: bool = False
    """Our fills say flat; the venue's own position has the last word."""
    triggers: list[tuple[FlattenReason, Count, Price | None]] = attrs.field(factory=list)
    """Flattens begun and not yet told to anybody: reason, position, mark."""
    last: Decision | None = None
    last_mark: Price | None = None
    """What the last decision saw."""
    last_wanted: WantedQuotes = NO_QUOTES
    journal: deque[JournalEntry] = attrs.field(factory=new_journal)
    is_own_known: bool = False
    """Whether `sees` knows what of ours stands at the best prices; whoever changes an order makes it False."""
    _own_bid: int = 0
    _own_ask: int = 0

    def __attrs_post_init__(self) -> None:
        self.policy = HybridRiskPolicy(self.parameters)
        self.mid.alpha = self.parameters.mid_ema_alpha
        if self.strategy.uses_signals:
            self.signals = Signals()

    # --- what happened ---

    def on_trade(self, trade: Trade) -> None:
        """A public print of this market."""
        if self.mid.on_trade(trade) and self.signals is not None:
            self.signals.on_trade(trade)

    def on_fill(self) -> None:
        """The inventory has moved by one of our fills."""
        self.policy.on_fill(self.ruled())

    def flatten(self, reason: FlattenReason) -> None:
        """Close the position, whatever the rules say."""
        if self.flattening is None and not self.inventory().is_flat:
            self._start_flatten(reason)

    def exit_sent(self, now: Micros) -> None:
        """An exit order was sent: the next one waits, and reaches deeper."""
        self.exit_attempt += 1
        self.next_exit_at = Micros(now + EXIT_PAUSE)
        if self.last is not None and self.last.exit is not None:
            self._enter(self.last, now, (self.last.exit,))

    def exit_refused(self) -> None:
        """That exit order never met the book: the next one reaches no deeper for it."""
        self.exit_attempt -= 1

    def plan_sent(self, side: Side, plan: SidePlan, now: Micros) -> None:
        """A side's plan has been handed to the desk."""
        self.timers[side].record(plan, now)
        if self.last is not None:
            self._enter(self.last, now, plan.commands)
        if plan.is_replace:
            self.brake.note_replace(now)

    def take_triggers(self) -> list[tuple[FlattenReason, Count, Price | None]]:
        """Flattens begun since the last call."""
        taken, self.triggers = self.triggers, []
        return taken

    # --- what to do ---

    def ruled(self) -> InventoryState:
        """The inventory that the rules see: the market's own, or the event's."""
        return self.inventory() if self.event_inventory is None else self.event_inventory()

    @property
    def touch(self) -> Touch:
        """The best prices, empty while the book cannot be trusted."""
        if not self.book.is_synced:
            return _NO_TOUCH
        return Touch(self.book.best_bid, self.book.best_ask)

    @property
    def mark(self) -> Price | None:
        """The price that every rule sees; None while the book is not to be trusted or nothing is known."""
        if not self.book.is_synced:
            return None
        return self.mid.live_mark(self.others_touch)

    @property
    def others_touch(self) -> Touch:
        """The best prices without our own orders: a mark held within our own quotes would follow itself."""
        return self._others_touch(self.orders())

    def _others_touch(self, orders: Sequence[Order]) -> Touch:
        book = self.book
        if not book.is_synced:
            return _NO_TOUCH
        bid, ask = book.best_bid, book.best_ask
        for order in orders:
            # Only what stands at the best price can hide behind it whose price is the best of the others.
            if (
                (order.price == bid if order.side is Side.BID else order.price == ask)
                and order.state in _IN_THE_BOOK
                and order.time_in_force is TimeInForce.GTC
            ):
                return Touch(
                    self._others_best(Side.BID, bid, orders), self._others_best(Side.ASK, ask, orders)
                )
        return Touch(bid, ask)

    def _others_best(self, side: Side, best: Price | None, orders: Sequence[Order]) -> Price | None:
        if best is None:
            return None
        own: dict[Price, int] = {}
        for order in orders:
            if order.side is side and order.state in _IN_THE_BOOK and order.time_in_force is TimeInForce.GTC:
                own[order.price] = own.get(order.price, 0) + order.leaves
        if self.book.size_at(side, best) > own.get(best, 0):
            return best
        for price, count in self.book.depth(side):
            if count > own.get(price, 0):
                return price
        return None

    def sees(self, side: Side, price: Price, change: Count, best_before: Price | None) -> bool:
        """Whether a change of the level at `price` may change what is decided: call it after the book has moved.

        Decisions look at the best prices, with and without our own orders, and at no other level. So a change that
        leaves the best as it was is seen only where what we have there may be all that there is, before or after:
        then the next level counts, too.
        """
        if side is Side.BID:
            best, levels, own = self.book.best_bid, self.book.bids, self._own_bid
        else:
            best, levels, own = self.book.best_ask, self.book.asks, self._own_ask
        if best != best_before or not self.is_own_known or self.strategy.sees_depth:
            return True
        if not own or best is None:
            return False
        size = levels[best]
        return size <= own or (price == best and size - change <= own)

    def _note_own(self, orders: Sequence[Order]) -> None:
        """Remember how much of ours stands at the best prices, or may; it holds until an order or the best changes."""
        best_bid, best_ask, bid, ask = self.book.best_bid, self.book.best_ask, 0, 0
        for order in orders:
            if order.side is Side.BID:
                if order.price == best_bid:
                    bid += order.leaves
            elif order.price == best_ask:
                ask += order.leaves
        self._own_bid, self._own_ask, self.is_own_known = bid, ask, True

    def decide(self, now: Micros) -> Decision:
        """What to send now. Moves the rules' timers; asking twice at one moment changes nothing."""
        touch, inventory, orders = self.touch, self.inventory(), self.orders()
        self._note_own(orders)
        others = self._others_touch(orders)
        mark = self.mid.live_mark(others) if self.book.is_synced else None
        if self.strategy.has_exit_rules:
            self._watch_risk(inventory, self.ruled(), mark, now)
        if self.signals is not None and self.book.is_synced:
            self.signals.observe(now, others.best_bid, others.best_ask, orders, self.book)
        quotes = [o for o in orders if o.time_in_force is TimeInForce.GTC]
        reason = self._why_not(mark, others)
        wanted = NO_QUOTES
        if self.flattening is not None:
            decision = self._decide_exit(inventory, touch, orders, quotes, now)
        else:
            wanted = NO_QUOTES if reason else self._wanted(inventory, mark, touch, others, orders, now)
            decision = self._decide_quotes(wanted, quotes, touch, now, reason)
        before, self.last = self.last, decision
        self.last_mark, self.last_wanted = mark, wanted
        if before is None or before.state is not decision.state or before.reason != decision.reason:
            self._enter(decision, now, ())
        return decision

    def _enter(self, decision: Decision, now: Micros, commands: Sequence[QuoteCommand | ExitOrder]) -> None:
        self.journal.append(
            JournalEntry(
                at=now,
                state=decision.state.value,
                reason=decision.reason,
                commands=tuple(commands),
                mark=self.last_mark,
                touch=self.others_touch,
                net=self.inventory().net,
                wanted=self.last_wanted,
                extra_ticks=self._extra_ticks(now),
            )
        )

    def _watch_risk(
        self, inventory: InventoryState, ruled: InventoryState, mark: Price | None, now: Micros
    ) -> None:
        reason = self.policy.should_flatten(ruled, mark, now)
        if reason is not None and (ruled is inventory or not inventory.is_flat):
            self._start_flatten(reason)
        if mark is not None:
            self.gate.update(mark)
            # Not only at the moment it shuts: a fill on its way then would stay in the market for good.
            if not self.gate.is_open and not inventory.is_flat:
                self._start_flatten(FlattenReason.EXTREME_PRICE)

    def _start_flatten(self, reason: FlattenReason) -> None:
        if self.flattening is not None:
            return
        self.flattening = reason
        self.exit_attempt = 0
        self.policy.reset()
        self.triggers.append((reason, self.inventory().net, self.mark))

    def _why_not(self, mark: Price | None, others: Touch) -> str:
        """Why this market is not quoted; empty when it may be."""
        for holds in (self.exit_holds, self.holds):
            if holds:
                return "; ".join(holds.values())
        if self.market.status is not MarketStatus.ACTIVE:
            return f"market is {self.market.status.value}"
        if not self.book.is_synced:
            return "waiting for the book"
        if mark is None:
            return "no price yet"
        if not self.gate.is_open:
            return "extreme price"
        return may_quote(others, self.parameters) or ""

    def _wanted(
        self,
        inventory: InventoryState,
        mark: Price | None,
        touch: Touch,
        others: Touch,
        orders: Sequence[Order],
        now: Micros,
    ) -> WantedQuotes:
        pending = [(o.side, o.price, o.unbooked) for o in orders if o.state is OrderState.DONE and o.unbooked]
        strategy = self.strategy
        return strategy.quote(
            View(
                now=now,
                market=self.market,
                book=self.book,
                touch=touch,
                others=others,
                inventory=inventory,
                ruled=inventory if self.event_inventory is None else self.event_inventory(),
                mark=mark,
                parameters=self.parameters,
                orders=orders,
                pending=pending,
                market_room=self.market_room,
                price_bound=self.price_bound,
                extra_ticks=self._extra_ticks(now),
                signals=self.signals,
                context=self.context,
                fair=strategy.fair_value or strategy.own_fair_value,
            )
        )

    def _extra_ticks(self, now: Micros) -> int:
        return self.brake.extra_ticks(now) + self.guard_ticks + self.context.goal_ticks

    def _decide_quotes(
        self, wanted: WantedQuotes, quotes: Sequence[Order], touch: Touch, now: Micros, reason: str
    ) -> Decision:
        why = reason or "not wanted"
        bid = self._plan(Side.BID, wanted, quotes, touch, now, why)
        ask = self._plan(Side.ASK, wanted, quotes, touch, now, why)
        state = MakerState.HELD if reason else MakerState.QUOTING
        deadlines = [
            bid.wake_at,
            ask.wake_at,
            self.policy.next_deadline(self.ruled()),
            self.brake.released_at(now),
        ]
        every = self.strategy.looks_every
        if every is not None and not reason:
            deadlines.append(Micros(now + every))
        return Decision(
            bid=bid, ask=ask, exit=None, state=state, reason=reason, wake_at=_earliest(deadlines, now)
        )

    def _decide_exit(
        self,
        inventory: InventoryState,
        touch: Touch,
        orders: Sequence[Order],
        quotes: Sequence[Order],
        now: Micros,
    ) -> Decision:
        """Pull both quotes; when nothing of ours works any more, cross; again until flat."""
        assert self.flattening is not None
        why = f"flatten: {self.flattening.value}"
        bid, ask = (self._plan(side, NO_QUOTES, quotes, touch, now, why) for side in (Side.BID, Side.ASK))
        exit_now: ExitOrder | None = None
        wake_at: Micros | None = None
        if not orders:
            if inventory.is_flat:
                self.flattening = None
                self.needs_position_check = True
                wake_at = now
            elif self.exit_holds:
                why = "; ".join([why, *self.exit_holds.values()])
            elif now < self.next_exit_at:
                wake_at = self.next_exit_at
            else:
                exit_now = exit_order(
                    inventory.net, touch, self.market.grid, self.parameters, attempt=self.exit_attempt
                )
                if exit_now is None:
                    why += ", nobody to trade with"
        return Decision(
            bid=bid, ask=ask, exit=exit_now, state=MakerState.FLATTENING, reason=why, wake_at=wake_at
        )

    def _plan(
        self,
        side: Side,
        wanted: WantedQuotes,
        quotes: Sequence[Order],
        touch: Touch,
        now: Micros,
        pull_reason: str,
    ) -> SidePlan:
        return plan_side(
            self.market.ticker,
            side,
            wanted.of(side),
            [o for o in quotes if o.side is side],
            touch,
            self.timers[side],
            now,
            self.parameters,
            brake=self.brake.state(now),
            pull_reason=pull_reason,
        )


def _earliest(moments: Sequence[Micros | None], now: Micros) -> Micros | None:
    """The first moment still to come (one that is due already has been looked at)."""
    return min((m for m in moments if m is not None and m > now), default=None)

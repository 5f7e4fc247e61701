"""The journal of decisions: a market maker that notes what it is told and what it answers. Knows no file.

Entries are appended to one list for all markets, in the order of events; somebody takes the list from time to time. What
is noted is what crosses the maker's boundary, whatever the strategy behind it is: book changes, prints, our orders,
inventory, holds, the room that the limits leave, `now`, and the decision. A market's entries begin with a checkpoint of its
whole state, so that any part of a journal that has one can be played again without what came before.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs

from mm.domain.book import Level, OrderBook
from mm.domain.commands import FlattenReason
from mm.domain.fill import Trade
from mm.domain.inventory import InventoryState
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import Order, Side
from mm.engine.decisions.codec import NotPlain, pack
from mm.engine.diff import SidePlan
from mm.engine.quoter import Decision, MarketMaker
from mm.engine.strategies.view import Context

MAX_ENTRIES: Final = 200_000
"""That wait to be taken, over all markets (about 60 MB at worst)."""
MAX_FRAME_BYTES: Final = 16 * 2**20
"""Of raw frames that wait to be taken; what comes beyond is left out and counted."""
MAX_BOOK_CHANGES: Final = 2_000
"""Of one book between two decisions; with more a checkpoint of the book is shorter."""

Entry = tuple[Any, ...]
"""Kind, market's number, and what belongs to it; values that do not change any more."""

_STEADY: Final = frozenset({int, type(None), bool, str, float})
"""Types of answers that are noted as they are; others may change before they are written."""

LINKS: Final = frozenset({"book", "inventory", "orders", "context", "journal"})
"""Fields of a maker that lead elsewhere: what they give is noted instead. Other functions that a maker holds are
questions (the room that the limits leave): each call with its answer is part of the decision."""
LOOSE: Final = frozenset({"triggers", "needs_position_check"})
"""Fields that others change and no decision looks at."""
ORDER_FIELDS: Final = tuple(field.name for field in attrs.fields(Order))
_order_values = attrgetter(*ORDER_FIELDS)


def state_fields() -> tuple[str, ...]:
    """The fields that make up a maker's own state, questions among them."""
    return tuple(field.name for field in attrs.fields(MarketMaker) if field.name not in LINKS)


def is_question(value: object) -> bool:
    """Whether a field's value is a function to be asked, not a value."""
    return callable(value) and not attrs.has(type(value)) and not isinstance(value, type)


_COMPARED: Final = tuple(name for name in state_fields() if name not in LOOSE)
_state_values = attrgetter(*_COMPARED)
_WHOLE: Final = frozenset({"parameters", "strategy", "policy", "mid", "gate", "brake", "timers", "signals"})
"""Fields that share their values with others: when one is set from outside, all of the state is noted anew."""
CONTEXT_FIELDS: Final = tuple(field.name for field in attrs.fields(Context))
_context_values = attrgetter(*CONTEXT_FIELDS)


@attrs.define(eq=False)
class DecisionJournal:
    """What all markets noted since `take`. Switched off it costs the markets one comparison a call."""

    is_on: bool = True
    epoch: int = 1
    """Counted up when what follows must stand by itself: every market begins with a checkpoint then."""
    lost: int = 0
    """Entries that were left out because nobody took them."""
    frames_lost: int = 0
    """Raw frames that were left out for the same reason."""
    problem: str = ""
    """Why it was switched off; empty while it was not, or because it was meant to be."""
    entries: list[Entry] = attrs.field(factory=list)
    _markets: int = 0
    _frame_bytes: int = 0

    def number(self) -> int:
        """A number for a new market maker."""
        self._markets += 1
        return self._markets

    def add(self, entry: Entry) -> None:
        """Note it. When too much waits, all of it is dropped and counted, and every market begins anew."""
        if len(self.entries) >= MAX_ENTRIES:
            self.lost += len(self.entries)
            lost, self.entries = len(self.entries), []
            self.entries.append(("gap", 0, lost))
            self.epoch += 1
            return
        self.entries.append(entry)

    def frames_came(self, conn: int, messages: Sequence[str | bytes], now: Micros) -> None:
        """Raw frames of the exchange's socket, for people who read an incident: replay does not need them."""
        if not self.is_on:
            return
        size = sum(map(len, messages))
        if self._frame_bytes + size > MAX_FRAME_BYTES:
            self.frames_lost += len(messages)
            return
        self._frame_bytes += size
        self.add(("frames", 0, now, conn, messages))

    def take(self, *, new_epoch: bool = False) -> list[Entry]:
        """Everything noted so far; with `new_epoch` what comes later can be played without it."""
        taken, self.entries, self._frame_bytes = self.entries, [], 0
        if new_epoch:
            self.epoch += 1
        return taken

    def switch_off(self, problem: str = "") -> None:
        """Nothing is noted any more."""
        self.is_on = False
        self.problem = self.problem or problem
        self.entries = []


@attrs.frozen
class Packed:
    """Plain data already."""

    data: Any


@attrs.define(eq=False)
class JournalledBook(OrderBook):
    """A book that remembers its changes until the market's next decision."""

    changes: list[tuple[Any, ...]] = attrs.field(factory=list)

    def snapshot(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """See `OrderBook`."""
        bids, asks = list(bids), list(asks)
        self.changes = [("snapshot", bids, asks)]  # whatever came before is in it
        super().snapshot(bids, asks)

    def apply_delta(self, side: Side, price: Price, change: Count) -> None:
        """See `OrderBook`."""
        self.changes.append((side, price, change))
        super().apply_delta(side, price, change)

    def mark_out_of_sync(self) -> None:
        """See `OrderBook`."""
        self.changes.append(("lost",))
        super().mark_out_of_sync()


def inventory_values(inventory: InventoryState) -> tuple[Any, ...]:
    """Everything an inventory is made of."""
    return (
        inventory.layers,
        inventory.realized_gross,
        inventory.fees,
        inventory.bought,
        inventory.sold,
    )


@attrs.define(eq=False, kw_only=True)
class JournalledMaker(MarketMaker):
    """A market maker that notes what it is told and what it answers. Decides exactly as `MarketMaker` does."""

    sink: DecisionJournal
    number: int = attrs.field(init=False)
    _epoch: int = attrs.field(default=0, init=False)
    _is_inside: bool = attrs.field(default=False, init=False)
    """One of our own methods runs: what it calls of us is part of it."""
    _asked: list[tuple[Any, ...]] = attrs.field(factory=list, init=False)
    """Questions of the present decision: name, answer, arguments."""
    _seen_state: tuple[Any, ...] = attrs.field(default=(), init=False)
    _seen_orders: tuple[Any, ...] = attrs.field(default=(), init=False)
    _seen_inventory: tuple[Any, ...] = attrs.field(default=(), init=False)
    _seen_holds: tuple[Any, ...] = attrs.field(default=(), init=False)
    _seen_context: tuple[Any, ...] = attrs.field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.number = self.sink.number()
        for name in state_fields():
            if is_question(ask := getattr(self, name)):
                setattr(self, name, self._noting(name, ask))

    def _noting(self, name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            answer = ask(*args)
            if self._is_inside:
                self._asked.append((name, answer if type(answer) in _STEADY else Packed(pack(answer)), *args))
            return answer

        noted.is_noting = True  # type: ignore[attr-defined]
        return noted

    def _note_context(self) -> None:
        """What the shell tells strategies is changed in place: look whether it was."""
        context = self.context
        values = _context_values(context)
        if values == self._seen_context:
            return
        for name in CONTEXT_FIELDS:
            ask = getattr(context, name)
            if is_question(ask) and not hasattr(ask, "is_noting"):
                setattr(context, name, self._noting(f"context.{name}", ask))
        self._seen_context = _context_values(context)
        self.sink.add(("context", self.number, context_data(context)))

    # --- what happened ---

    def on_trade(self, trade: Trade) -> None:
        """See `MarketMaker`."""
        if self.sink.is_on and not self._is_inside:
            self._look()
            self.sink.add(("trade", self.number, trade))
        super().on_trade(trade)

    def on_fill(self) -> None:
        """See `MarketMaker`."""
        self._do(("fill", self.number), super().on_fill)

    def flatten(self, reason: FlattenReason) -> None:
        """See `MarketMaker`."""
        self._do(("flatten", self.number, reason), lambda: super(JournalledMaker, self).flatten(reason))

    def exit_sent(self, now: Micros) -> None:
        """See `MarketMaker`."""
        self._do(("exit_sent", self.number, now), lambda: super(JournalledMaker, self).exit_sent(now))

    def exit_refused(self) -> None:
        """See `MarketMaker`."""
        self._do(("exit_refused", self.number), super().exit_refused)

    def plan_sent(self, side: Side, plan: SidePlan, now: Micros) -> None:
        """See `MarketMaker`."""
        last = self.last
        known = last is not None and plan == last.plan(side)
        self._do(
            ("sent", self.number, now, side, None if known else plan),
            lambda: super(JournalledMaker, self).plan_sent(side, plan, now),
        )

    def _do(self, entry: Entry, act: Callable[[], None]) -> None:
        if self._is_inside or not self.sink.is_on:
            act()
            return
        self._look()
        self._is_inside, self._asked = True, []
        try:
            act()
        finally:
            self._is_inside = False
            self._seen_state = _state_values(self)
            self.sink.add((*entry[:2], self._asked, *entry[2:]))

    # --- what to do ---

    def decide(self, now: Micros) -> Decision:
        """See `MarketMaker`."""
        sink = self.sink
        if self._is_inside or not sink.is_on:
            return super().decide(now)
        self._look()
        self._is_inside, self._asked = True, []
        try:
            decision = super().decide(now)
        except Exception as exc:
            sink.add(("raised", self.number, now, self._asked, type(exc).__name__, str(exc)))
            raise
        finally:
            self._is_inside = False
        sink.add(
            (
                "decide",
                self.number,
                now,
                self._asked,
                (decision, self.last_mark, self.last_wanted, self.flattening),
            )
        )
        self._seen_state = _state_values(self)
        return decision

    def _look(self) -> None:
        """Note what others have changed since our last call. What cannot be noted ends the journal, never the market."""
        try:
            self._note_changes()
        except NotPlain as exc:
            self.sink.switch_off(f"{self.market.ticker}: {exc}")

    def _note_changes(self) -> None:
        sink, book = self.sink, self.book
        state = _state_values(self)
        if self._epoch != sink.epoch or state != self._seen_state:
            changed = self._set_from_outside(state)
            if self._epoch != sink.epoch or changed & _WHOLE:
                self._checkpoint(changed)
                return
            sink.add(("set", self.number, {name: pack(getattr(self, name)) for name in sorted(changed)}))
            self._seen_state = state
        self._note_context()
        if isinstance(book, JournalledBook) and book.changes:
            if len(book.changes) > MAX_BOOK_CHANGES:
                self._checkpoint({"book"})
                return
            sink.add(("book", self.number, book.changes))
            book.changes = []
        orders = tuple(map(_order_values, self.orders()))
        if orders != self._seen_orders:
            self._seen_orders = orders
            sink.add(("orders", self.number, orders))
        inventory = self.inventory()
        values = inventory_values(inventory)
        if values != self._seen_inventory:
            self._seen_inventory = values
            sink.add(("inventory", self.number, pack(inventory)))
        holds = tuple(self.holds.items()), tuple(self.exit_holds.items())
        if holds != self._seen_holds:
            self._seen_holds = holds
            sink.add(("holds", self.number, *holds))

    def _set_from_outside(self, state: tuple[Any, ...]) -> set[str]:
        """Fields into which somebody has put another value since our last call."""
        pairs = zip(_COMPARED, self._seen_state, state, strict=False)
        return {name for name, a, b in pairs if a is not b and a != b}

    def _checkpoint(self, changed: set[str]) -> None:
        """Note everything; `changed` says what a replay up to here cannot know."""
        orders, inventory, book = self.orders(), self.inventory(), self.book
        if isinstance(book, JournalledBook):
            book.changes = []
        self._epoch = self.sink.epoch
        self._seen_state = _state_values(self)
        self._seen_orders = tuple(map(_order_values, orders))
        self._seen_inventory = inventory_values(inventory)
        self._seen_holds = tuple(self.holds.items()), tuple(self.exit_holds.items())
        self._seen_context = ()
        self.sink.add(("checkpoint", self.number, sorted(changed), checkpoint(self, orders, inventory)))
        self._note_context()


def checkpoint(maker: MarketMaker, orders: Iterable[Order], inventory: InventoryState) -> dict[str, Any]:
    """A market's whole state as plain data."""
    book = maker.book
    return {
        "ticker": maker.market.ticker,
        "state": {n: pack(v) for n in state_fields() if not is_question(v := getattr(maker, n))},
        "book": {
            "bids": list(book.bids.items()),
            "asks": list(book.asks.items()),
            "best_bid": book.best_bid,
            "best_ask": book.best_ask,
            "is_synced": book.is_synced,
        },
        "orders": [list(map(pack, _order_values(order))) for order in orders],
        "inventory": pack(inventory),
        "context": context_data(maker.context),
    }


def context_data(context: Context) -> dict[str, Any]:
    """What the shell tells strategies, as plain data; questions are left out."""
    return {n: pack(v) for n in CONTEXT_FIELDS if not is_question(v := getattr(context, n))}

"""The order desk: every write of a quoter goes through here, and every order of ours is known here.

An object, not a task: it is called in the quoter's own task and errors come back to the caller as an `Outcome`. The
desk moves orders through the state table; inventory it never touches (fills do that). What a lost answer leaves
behind is an order in UNKNOWN, which `mm.tasks.resolve` settles before its side of the market sends anything new.
"""

import enum
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import attrs
import structlog
import trio

from mm.domain.fill import Fill
from mm.domain.histogram import Histogram
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import (
    ClientOrderId,
    GroupId,
    MarketTicker,
    Order,
    OrderEvent,
    OrderId,
    OrderState,
    TimeInForce,
)
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    ExchangeRejected,
    ExchangeUnavailable,
    NewOrder,
    NotRestingHere,
    OrderIdSpent,
    OrderRef,
    OrderReport,
    OrderStatus,
    OutcomeUnknown,
    PlaceAck,
    RateLimited,
    TradingPaused,
)
from mm.tasks.budget import WriteBudget

log = structlog.get_logger(__name__)
T = TypeVar("T")


REMEMBERED: Final = 5_000
"""Done orders kept in memory to route late reports; the ledger knows the rest."""


EXPIRY: Final = "ExpiryCancel"
"""The venue's word for an order that ended by its expiration time."""


class Verdict(enum.Enum):
    """What became of a write."""

    DONE = "done"
    REFUSED = "refused"
    PAUSED = "paused"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    CHECK = "check"
    """404: not resting there, which proves nothing; look."""


@attrs.frozen
class Outcome:
    """Answer to a write: the verdict, and the venue's error where there was one."""

    verdict: Verdict
    error: ExchangeError | None = None
    ack: PlaceAck | None = None


class OrderRecorder(Protocol):
    """Where orders are written down. Queued, not awaited: what rests is found at the venue in any case."""

    def record_order(self, order: Order) -> None:
        """An order was made or changed state."""


@attrs.frozen
class DeskStatistics:
    """Counters since the start."""

    placed: int
    cancelled: int
    amended: int
    decreased: int
    refused: int
    unknown: int
    live: int
    expired: int


@attrs.define(eq=False)
class OrderDesk:
    """All our orders, and the writes that move them."""

    exchange: Exchange
    recorder: OrderRecorder
    budget: WriteBudget
    clock: Callable[[], Micros]
    on_change: Callable[[MarketTicker], None]
    """Told when an order of a market changed, so that the market is looked at again."""
    on_placed: Callable[[Order], None] = lambda order: None
    check: Callable[[Order, Price, Count], ExchangeRejected | None] = lambda order, price, count: None
    """The last look at an order before it leaves, or is amended to that price and total count: why it must not."""
    live: dict[ClientOrderId, Order] = attrs.field(factory=dict)
    """Every order that may rest or has fills not booked yet."""
    _by_market: dict[MarketTicker, dict[ClientOrderId, Order]] = attrs.field(factory=dict)
    _by_order_id: dict[OrderId, Order] = attrs.field(factory=dict)
    _done: "OrderedDict[OrderId, Order]" = attrs.field(factory=OrderedDict)
    _early_fills: "OrderedDict[OrderId, list[Fill]]" = attrs.field(factory=OrderedDict)
    _expected_next: dict[MarketTicker, Micros] = attrs.field(factory=dict)
    placed: int = 0
    cancelled: int = 0
    amended: int = 0
    decreased: int = 0
    refused: int = 0
    rejected: int = 0
    """Orders that the venue refused for good (not: paused, throttled, unavailable)."""
    unknown: int = 0
    expired: int = 0
    """Quotes that ended by their expiry: the budget did not carry their renewal, or nobody could renew."""
    latency: Histogram = attrs.field(factory=Histogram)
    """From a write's send to its answer, whatever that was, in seconds."""

    def statistics(self) -> DeskStatistics:
        """A snapshot of the counters."""
        return DeskStatistics(
            self.placed,
            self.cancelled,
            self.amended,
            self.decreased,
            self.refused,
            self.unknown,
            len(self.live),
            self.expired,
        )

    # --- writes (tokens are the caller's, already granted) ---

    async def place(self, order: Order) -> Outcome:
        """Send a create, unless `check` refuses it. Cancelled: the order is UNKNOWN."""
        order.created_at = self.clock()
        refused = self.check(order, order.price, order.count)
        if refused is not None:
            log.error("order kept back", market=order.ticker, why=str(refused))
            return self._no(order, OrderEvent.REFUSED, Verdict.REFUSED, refused)
        order.apply(OrderEvent.SEND)
        self.live[order.client_order_id] = order
        self._by_market.setdefault(order.ticker, {})[order.client_order_id] = order
        self.recorder.record_order(order)
        self.on_change(order.ticker)  # it counts against the limits before the next market decides
        self.placed += 1
        outcome = await self._send(
            order, self.exchange.place(as_new_order(order)), lambda ack: self.accept(order, ack)
        )
        if outcome.verdict is Verdict.DONE and order.post_only:
            self.on_placed(order)
        return outcome

    async def amend(self, order: Order, *, price: Price, count: Count, expires_at: Micros | None) -> Outcome:
        """Change price and total count (and the expiry where given). Loses the queue place unless only smaller."""
        assert order.order_id is not None
        refused = None if price == order.price and count <= order.count else self.check(order, price, count)
        if refused is not None:
            log.error("amend kept back", market=order.ticker, why=str(refused))
            self.refused += 1
            return Outcome(Verdict.REFUSED, refused)
        order.apply(OrderEvent.AMEND_SENT)
        self.amended += 1
        # Until the answer is here the order may stand at either size and price: the worse of them counts.
        if price != order.price:
            order.amending_to = price
        old_count = order.count
        order.count = max(old_count, count, key=int)
        self.on_change(order.ticker)

        def accepted(_: None) -> None:
            order.price, order.count, order.amending_to = price, count, None
            if expires_at is not None:
                order.expires_at = expires_at
            self._rested(order)

        call = self.exchange.amend(
            self._ref(order), side=order.side, price=price, count=count, expires_at=expires_at
        )
        outcome = await self._send(order, call, accepted)
        if (
            order.state is not OrderState.UNKNOWN
            and outcome.verdict is not Verdict.DONE
            and (order.count != old_count or order.amending_to is not None)
        ):
            order.count, order.amending_to = old_count, None
            self.on_change(order.ticker)
        return outcome

    async def decrease(self, order: Order, *, reduce_to: Count) -> Outcome:
        """Lower what may still fill to `reduce_to`, or less if more was filled than is booked; keeps the queue place.

        What is reported as filled and not booked yet counts as what may still fill, as it does against the limits.
        Sent as an amend of the total count, not as the venue's decrease, which names what remains: beside a fill that
        has not reached us that would leave more resting than we count.
        """
        order.apply(OrderEvent.AMEND_SENT)
        self.decreased += 1
        total = Count(order.filled + reduce_to)
        if (
            total <= order.reported_filled
        ):  # more is filled already than was to be left: as little as can rest
            total = Count(min(order.count, order.reported_filled + reduce_to))

        def accepted(_: None) -> None:
            order.count = total
            self._rested(order)

        call = self.exchange.amend(self._ref(order), side=order.side, price=order.price, count=total)
        return await self._send(order, call, accepted)

    async def cancel(self, order: Order) -> Outcome:
        """Take an order off. DONE only when the venue acknowledged it; `CHECK` on 404."""
        order.apply(OrderEvent.CANCEL_SENT)

        def accepted(reduced_by: Count) -> None:
            self.cancelled += 1
            self.gone(order, filled=Count(order.count - reduced_by) if reduced_by else None)

        return await self._send(order, self.exchange.cancel(self._ref(order)), accepted)

    def expect(self, ticker: MarketTicker, now: Micros) -> None:
        """A market's best prices move: what rests there may have to move soon. Says so once a second, at most."""
        found = self._by_market.get(ticker)
        if found and now >= self._expected_next.get(ticker, 0):
            self._expected_next[ticker] = Micros(now + SECOND)
            for order in found.values():
                if order.state is OrderState.RESTING:
                    self.exchange.expect(self._ref(order))

    # --- what the venue tells ---

    def accept(self, order: Order, ack: PlaceAck) -> None:
        """The answer to a create (or to its repetition)."""
        if order.order_id is None:
            self._learn_id(order, ack.order_id)
        order.reported_filled = max(order.reported_filled, ack.filled, key=int)
        if ack.remaining or order.state is OrderState.DONE:
            self._rested(order)
        else:
            self.gone(order, filled=ack.filled)

    def on_report(self, report: OrderReport) -> None:
        """An order report, from the socket or a read; may be late, doubled, or of an order that is not ours."""
        order = self.find(report.order_id, report.client_order_id)
        if order is None:
            return
        if order.order_id is None:
            self._learn_id(order, report.order_id)
        order.reported_filled = max(order.reported_filled, report.filled, key=int)
        is_newer = report.updated_at is not None and report.updated_at > order.reported_at
        if is_newer:
            order.reported_at = report.updated_at or order.reported_at
        if report.status is OrderStatus.RESTING:
            if order.state is OrderState.UNKNOWN or (is_newer and order.state is OrderState.RESTING):
                # What a lost (or late) write has made of it is told here; its next loss is a matter of its own time.
                order.price, order.count = report.price, Count(report.filled + report.remaining)
                order.expires_at = report.expires_at or order.expires_at
                order.unknown_since = order.amending_to = None
            if order.state is not OrderState.DONE:
                order.apply(OrderEvent.SEEN_RESTING)
                self.on_change(order.ticker)
            return
        if order.state is not OrderState.DONE and report.reason == EXPIRY:
            self.expired += 1
            log.info("quote expired", market=order.ticker, order_id=report.order_id, expired=self.expired)
        self.gone(order, filled=report.filled)

    def on_fill(self, fill: Fill) -> None:
        """A new fill (each once). Routes it to its order; inventory is moved elsewhere."""
        order = self.find(fill.order_id, fill.client_order_id)
        if order is None:
            # The socket may be faster than the answer that tells us the order's id.
            self._early_fills.setdefault(fill.order_id, []).append(fill)
            while len(self._early_fills) > REMEMBERED:
                self._early_fills.popitem(last=False)
            return
        if order.order_id is None:
            self._learn_id(order, fill.order_id)
        self._fill_order(order, fill)

    def gone(self, order: Order, *, filled: Count | None) -> None:
        """Proof that nothing of the order rests. `filled` is the venue's count where it told one."""
        if filled is not None:
            order.reported_filled = max(order.reported_filled, filled, key=int)
        if order.state is not OrderState.DONE:
            order.apply(OrderEvent.GONE)
            order.done_at = self.clock()
            self.recorder.record_order(order)
        self._retire(order)
        self.on_change(order.ticker)

    def fenced(self, group_id: GroupId) -> None:
        """A group was triggered: none of its orders rests, and none sent into it will."""
        for order in [o for o in self.live.values() if o.group_id == group_id]:
            if order.state is not OrderState.DONE:
                self.cancelled += 1
            self.gone(order, filled=None)

    def with_announced_fills(self) -> list[Order]:
        """Done orders of which more is reported as filled than has been booked."""
        return [order for order in self.live.values() if order.done_at is not None and order.unbooked]

    def no_more_fills(self, order: Order) -> None:
        """The venue, asked about a done order, knows of no more fills than we have booked."""
        order.reported_filled = order.filled
        self._retire(order)
        self.on_change(order.ticker)

    # --- look-ups ---

    def find(self, order_id: OrderId | None, client_order_id: ClientOrderId | None = None) -> Order | None:
        """An order of ours by either id, live or recently done."""
        if client_order_id is not None and client_order_id in self.live:
            return self.live[client_order_id]
        if order_id is None:
            return None
        return self._by_order_id.get(order_id) or self._done.get(order_id)

    def of_market(self, ticker: MarketTicker) -> list[Order]:
        """Orders of a market that may rest or have fills to come; the list is the caller's."""
        found = self._by_market.get(ticker)
        return list(found.values()) if found else []

    def has_unbooked(self) -> bool:
        """Whether any order is done (by report) with fills that have not come."""
        return any(order.done_at is not None for order in self.live.values())

    # --- inside ---

    async def _send(self, order: Order, call: Awaitable[T], accepted: Callable[[T], None]) -> Outcome:
        """Await one write and move the order by what came of it."""
        creating = order.state is OrderState.SENT
        no = OrderEvent.REFUSED if creating else OrderEvent.WRITE_REFUSED
        try:
            answer = await self._timed(call)
        except trio.Cancelled:
            self._lost(order)
            raise
        except OutcomeUnknown as exc:
            self._lost(order)
            return Outcome(Verdict.UNKNOWN, exc)
        except OrderIdSpent as exc:
            self._lost(order)  # an earlier send of it landed; which order it is, a look tells
            return Outcome(Verdict.UNKNOWN, exc)
        except NotRestingHere as exc:
            if creating:
                return self._no(order, no, Verdict.REFUSED, exc)
            self._lost(order)
            return Outcome(Verdict.CHECK, exc)
        except TradingPaused as exc:
            return self._no(order, no, Verdict.PAUSED, exc)
        except RateLimited as exc:
            self.budget.refused(order.exchange_index)
            return self._no(order, no, Verdict.THROTTLED, exc)
        except ExchangeUnavailable as exc:
            return self._no(order, no, Verdict.UNAVAILABLE, exc)
        except AuthError:
            self._no(order, no, Verdict.REFUSED, None)
            raise
        except ExchangeRejected as exc:
            self.rejected += creating
            return self._no(order, no, Verdict.REFUSED, exc)
        accepted(answer)
        return Outcome(Verdict.DONE, ack=answer if isinstance(answer, PlaceAck) else None)

    async def _timed(self, call: Awaitable[T]) -> T:
        sent = trio.current_time()
        try:
            return await call
        finally:
            self.latency.observe(trio.current_time() - sent)

    def _no(self, order: Order, event: OrderEvent, verdict: Verdict, exc: ExchangeError | None) -> Outcome:
        self.refused += 1
        if order.state is not OrderState.DONE:
            order.apply(event)
        if order.state is OrderState.DONE:
            order.done_at = order.done_at or self.clock()
            self._retire(order)
        self.recorder.record_order(order)
        self.on_change(order.ticker)
        return Outcome(verdict, exc)

    def _lost(self, order: Order) -> None:
        if order.state is OrderState.DONE:
            return
        self.unknown += 1
        order.apply(OrderEvent.ANSWER_LOST)
        order.unknown_since = order.unknown_since or self.clock()
        self.recorder.record_order(order)
        self.on_change(order.ticker)

    def _rested(self, order: Order) -> None:
        order.apply(OrderEvent.ACCEPTED)
        order.unknown_since = None
        self.recorder.record_order(order)
        if order.state is not OrderState.DONE and order.filled >= order.count:
            self.gone(order, filled=None)
        self.on_change(order.ticker)

    def _learn_id(self, order: Order, order_id: OrderId) -> None:
        order.order_id = order_id
        self._by_order_id[order_id] = order
        for fill in self._early_fills.pop(order_id, []):
            self._fill_order(order, fill)

    def _fill_order(self, order: Order, fill: Fill) -> None:
        order.filled = Count(order.filled + fill.count)
        if order.state in (OrderState.RESTING, OrderState.DONE) and order.filled >= order.count:
            self.gone(order, filled=order.filled)
        elif order.state is OrderState.DONE:
            self._retire(order)
        self.on_change(order.ticker)

    def _retire(self, order: Order) -> None:
        """Move a done order out of the live ones once its fills are all booked."""
        if order.unbooked:
            return
        self.live.pop(order.client_order_id, None)
        of_market = self._by_market.get(order.ticker, {})
        of_market.pop(order.client_order_id, None)
        if not of_market:
            self._by_market.pop(order.ticker, None)
            self._expected_next.pop(order.ticker, None)
        if order.order_id is None:
            return
        self._by_order_id.pop(order.order_id, None)
        self._done[order.order_id] = order
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def _ref(self, order: Order) -> OrderRef:
        assert order.order_id is not None
        return OrderRef(order_id=order.order_id, ticker=order.ticker, exchange_index=order.exchange_index)


def as_new_order(order: Order) -> NewOrder:
    """The create request of an order: the same each time, so that sending it again is safe."""
    is_quote = order.time_in_force is TimeInForce.GTC
    return NewOrder(
        client_order_id=order.client_order_id,
        ticker=order.ticker,
        side=order.side,
        price=order.price,
        count=order.count,
        exchange_index=order.exchange_index,
        time_in_force=order.time_in_force,
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        group_id=order.group_id,
        expires_at=order.expires_at if is_quote else None,
        cancel_on_pause=is_quote,
    )

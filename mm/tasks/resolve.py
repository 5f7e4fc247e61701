"""Orders of unknown outcome: find out what happened, never guess.

A lost create is sent again *with the same client id*: 201 means it is placed now, 409 that the first one landed (then
it is looked up, allowing for read lag). A lost amend or cancel, and a 404, are looked up by order id, by a read that
is provably younger than the write. Until this ends the side of the market sends nothing new.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import structlog
import trio

from mm.domain.numbers import SECOND, Micros
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderEvent, OrderState
from mm.exchange import endpoints
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    ExchangeRejected,
    NotRestingHere,
    OrderIdSpent,
    OrderReport,
    OrderStatus,
    RateLimited,
)
from mm.tasks.budget import ReadBudget, Ticket, Urgency, WriteBudget
from mm.tasks.desk import OrderDesk, as_new_order
from mm.tasks.freshness import LONG_READ_LAG_S, Moment, reads_show

log = structlog.get_logger(__name__)

FIRST_DELAY_S: Final = 0.2
MAX_DELAY_S: Final = 3.0
CLOCK_TOLERANCE: Final = Micros(2 * SECOND)


@attrs.define(eq=False)
class Resolver:
    """Settles one order at a time, in the task of its quoter."""

    exchange: Exchange
    desk: OrderDesk
    writes: WriteBudget
    reads: ReadBudget
    clock: Callable[[], Micros]
    look_up_fills: Callable[[], Awaitable[None]]
    """One pass of the reconciler: fills are looked up before anything is created anew."""
    _begun: dict[ClientOrderId, float] = attrs.field(factory=dict)
    """When resolving began, by a clock that does not step."""

    async def resolve(self, order: Order) -> None:
        """Return when the order is known to rest or to be gone. Cancelled: it stays UNKNOWN.

        Raises `AuthError` and nothing else of the exchange's: everything else is tried again.
        """
        delay = FIRST_DELAY_S
        self._begun[order.client_order_id] = trio.current_time()
        while order.state is OrderState.UNKNOWN:
            await trio.sleep(delay)
            delay = min(2 * delay, MAX_DELAY_S)
            try:
                if order.order_id is None:
                    await self._send_again(order)
                else:
                    await self._look_at(order)
            except RateLimited as exc:
                self.reads.refused()
                await trio.sleep(exc.retry_after)
            except AuthError:
                raise
            except ExchangeError as exc:
                log.info("not resolved yet", order=order.client_order_id, error=str(exc))
        self._begun.pop(order.client_order_id, None)
        log.info("order resolved", order=order.client_order_id, state=order.state.value)
        await self.look_up_fills()

    async def find(
        self, ticker: MarketTicker, client_order_id: ClientOrderId, since: Micros
    ) -> OrderReport | None:
        """An order of ours by client id, by paging through the market's recent orders."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            await self.reads.take()
            page = await self.exchange.orders_page(ticker=ticker, since=since, cursor=cursor)
            for report in page.items:
                if report.client_order_id == client_order_id:
                    return report
            if page.cursor is None or page.cursor in seen:
                return None
            seen.add(page.cursor)
            cursor = page.cursor

    async def _send_again(self, order: Order) -> None:
        await self.writes.acquire(
            Ticket(
                urgency=Urgency.CANCEL,
                cost=self.writes.limits.cost(*endpoints.PLACE),
                exchange_index=order.exchange_index,
            )
        )
        if order.state is not OrderState.UNKNOWN:
            return  # a report came while we waited
        try:
            ack = await self.exchange.place(as_new_order(order))
        except OrderIdSpent:
            await self._identify(order)
        except RateLimited as exc:
            self.writes.refused(order.exchange_index)
            await trio.sleep(exc.retry_after)
        except ExchangeRejected as exc:
            # This attempt was refused, the lost one may have been accepted all the same (its price may cross by now,
            # its group may have been closed since), and may even be on its way yet: given up, not taken back. Only a
            # listing tells, and only one made long after.
            is_late = self._waited_s(order) >= LONG_READ_LAG_S
            if not await self._identify(order) and is_late:
                log.info("the lost create never landed", order=order.client_order_id, error=str(exc))
                self._refused(order)
        else:
            self.desk.accept(order, ack)

    async def _identify(self, order: Order) -> bool:
        """Look for the order by its client id; True when found (the desk then knows its state)."""
        report = await self.find(
            order.ticker, order.client_order_id, Micros(order.created_at - CLOCK_TOLERANCE)
        )
        if report is None:
            return False
        self.desk.on_report(report)
        return True

    async def _look_at(self, order: Order) -> None:
        """Read the order itself, by a read younger than the write in question."""
        assert order.order_id is not None
        current = await self._is_current(order)
        await self.reads.take()
        try:
            report = await self.exchange.order(order.order_id)
        except NotRestingHere:
            # Asked again: reads may have fallen back in between, and then this one proves nothing.
            if current and await self._is_current(order):
                log.warning(
                    "order unknown to the venue", order=order.client_order_id, order_id=order.order_id
                )
                self.desk.gone(order, filled=None)
            return
        if report.status is not OrderStatus.RESTING:
            self.desk.on_report(report)
            return
        if not current or not await self._is_current(order):
            return  # "resting" may be what it was before the write
        self.desk.on_report(report)

    async def _is_current(self, order: Order) -> bool:
        """Whether reads made from now on show the effect of the write whose answer was lost."""
        moment = Moment(order.unknown_since or self.clock(), trio.current_time() - self._waited_s(order))
        await self.reads.take()
        return await reads_show(self.exchange, moment, self.clock)

    def _waited_s(self, order: Order) -> float:
        """Seconds since resolving began."""
        now = trio.current_time()
        return now - self._begun.get(order.client_order_id, now)

    def _refused(self, order: Order) -> None:
        if order.state is OrderState.UNKNOWN:
            order.apply(OrderEvent.REFUSED)
            self.desk.gone(order, filled=None)

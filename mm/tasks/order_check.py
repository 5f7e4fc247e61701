"""Resting orders here against resting orders at the exchange; announced fills that do not come; fills of unknown orders.

Orphans with our prefix are cancelled, ours that vanished are looked at one by one. What an order report announced as
filled stays counted as at risk until its fills are booked, or the exchange, asked about the order, says otherwise.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import attrs
import structlog
import trio

from mm.domain.fill import Fill
from mm.domain.numbers import SECOND, Micros, format_count
from mm.domain.order import ClientOrderId, Order, OrderId, OrderState, TimeInForce
from mm.exchange import endpoints
from mm.exchange.paging import read_all
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    NotRestingHere,
    OrderRef,
    OrderReport,
    OrderStatus,
    Page,
)
from mm.tasks.budget import ReadBudget, Ticket, Urgency, WriteBudget
from mm.tasks.desk import OrderDesk
from mm.tasks.freshness import Moment, reads_show
from mm.tasks.ids import OrderIds, closes_positions

log = structlog.get_logger(__name__)

ORPHAN_AFTER_S: Final = 5.0
"""Listings lag: what they show or miss is believed only after so long."""
ANNOUNCED_PERIOD_S: Final = 2.0
ANNOUNCED_MARGIN: Final = Micros(2 * SECOND)
ANNOUNCED_TOLD_AFTER: Final = Micros(60 * SECOND)


IDENTIFIED_A_PASS: Final = 5
"""Unknown orders that are asked for in one pass of the reconciler."""
IDENTIFY_TRIES: Final = 5
MAX_UNKNOWN: Final = 10_000


class FillNames(Protocol):
    """Where it is kept whose a fill is. The ledger is one."""

    def record_order_name(self, order_id: OrderId, client_order_id: ClientOrderId) -> None:
        """An order of ours: its fills get our id."""

    def record_foreign_order(self, order_id: OrderId) -> None:
        """An order of the account that is not ours."""

    def record_order(self, order: Order) -> None:
        """An order of ours that nobody has written down: its fills get its id and its kind."""


@attrs.define(eq=False, kw_only=True)
class OrderCheck:
    """Compares orders."""

    exchange: Exchange
    desk: OrderDesk
    reads: ReadBudget
    writes: WriteBudget
    ids: OrderIds
    clock: Callable[[], Micros]
    book: Callable[[Sequence[Fill]], Awaitable[object]]
    """Book fills that a read brought."""
    on_missing: Callable[[Order, str], None]
    """Fills of an order are announced and do not come: what to tell."""
    names: FillNames
    _unknown: "OrderedDict[OrderId, int]" = attrs.field(factory=OrderedDict)
    """Orders that fills were read of and nobody here knows, with how often they were asked for in vain."""
    not_identified: int = 0
    """Orders that nobody asked for, because too many waited: their fills stay of unknown kind until the next start."""
    _orphans: dict[OrderId, float] = attrs.field(factory=dict)
    _looked_at: float = -ANNOUNCED_PERIOD_S
    _done_since: dict[ClientOrderId, Moment] = attrs.field(factory=dict)
    """When orders with fills to come were first seen done, and a margin."""
    _told: set[OrderId] = attrs.field(factory=set)

    async def compare(self) -> None:
        """Resting orders at the exchange against ours. Raises `ExchangeError`."""
        started = self.clock()

        async def read(cursor: str | None) -> Page[OrderReport]:
            await self.reads.take(self.reads.limits.cost(*endpoints.ORDERS))
            return await self.exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor)

        listed = {report.order_id: report for report in await read_all(read, what="resting orders")}
        now = trio.current_time()
        for report in listed.values():
            await self._look_at_listed(report, now)
        self._orphans = {i: since for i, since in self._orphans.items() if i in listed}
        settled_since = Micros(started - round(ORPHAN_AFTER_S * SECOND))
        for order in list(self.desk.live.values()):
            is_old = order.state is OrderState.RESTING and order.created_at < settled_since
            if is_old and order.order_id is not None and order.order_id not in listed:
                await self._look_at_missing(order.order_id)

    async def _look_at_listed(self, report: OrderReport, now: float) -> None:
        client_id = report.client_order_id or ""
        if not client_id.startswith(self.ids.bot_prefix):
            return  # foreign: never touched
        known = self.desk.find(report.order_id, report.client_order_id)
        if known is not None and known.state is OrderState.UNKNOWN:
            return  # the resolver asks for this order by a read of known age; this listing may be older than the write
        if known is not None and known.state is not OrderState.DONE:
            self.desk.on_report(report)
            return
        since = self._orphans.setdefault(report.order_id, now)
        if now - since < ORPHAN_AFTER_S:
            return  # a listing lags: it may show what was cancelled just now
        log.error("orphan order", order_id=report.order_id, client_order_id=client_id, market=report.ticker)
        ticket = Ticket(
            Urgency.EXIT,
            self.writes.limits.cost(*endpoints.CANCEL),
            exchange_index=report.exchange_index,
        )
        await self.writes.acquire(ticket)
        try:
            await self.exchange.cancel(
                OrderRef(order_id=report.order_id, ticker=report.ticker, exchange_index=report.exchange_index)
            )
        except NotRestingHere:
            log.info("orphan was gone already", order_id=report.order_id)
        except AuthError:
            raise
        except ExchangeError as exc:
            # The next pass tries again; the other orphans must not wait for this one.
            log.warning("orphan not cancelled yet", order_id=report.order_id, error=str(exc))

    async def _look_at_missing(self, order_id: OrderId) -> None:
        """One of ours is not listed: it ended without a report reaching us, or the listing lags."""
        order = self.desk.find(order_id)
        if order is None or order.state is not OrderState.RESTING:
            return
        report = await self._read(order_id)
        if report is None:
            log.warning("order not found", order_id=order_id, market=order.ticker)
        elif report.status is not OrderStatus.RESTING:
            log.info("order had ended", order_id=order_id, market=order.ticker, reason=report.reason)
            self.desk.on_report(report)

    async def _read(self, order_id: OrderId) -> OrderReport | None:
        await self.reads.take(self.reads.limits.cost(*endpoints.ORDER))
        try:
            return await self.exchange.order(order_id)
        except NotRestingHere:
            return None

    # --- announced fills ---

    async def look_at_announced(self) -> None:
        """Done orders with fills to come: ask for those that should have come by now. Raises `ExchangeError`."""
        if trio.current_time() - self._looked_at < ANNOUNCED_PERIOD_S:
            return
        waiting = self.desk.with_announced_fills()
        self._told &= {order.order_id for order in waiting if order.order_id is not None}
        # By a clock that does not step: the other may have, and then says nothing of what reads show.
        self._done_since = {
            order.client_order_id: self._done_since.get(order.client_order_id) or self._in_a_while()
            for order in waiting
        }
        if not waiting:
            return
        self._looked_at = trio.current_time()
        for order in waiting:
            since = self._done_since[order.client_order_id]
            if order.order_id is not None and await self._shows(since):
                await self._ask(order, order.order_id, since)

    def _in_a_while(self) -> Moment:
        return Moment(Micros(self.clock() + ANNOUNCED_MARGIN), trio.current_time())

    async def _shows(self, moment: Moment) -> bool:
        await self.reads.take(self.reads.limits.cost(*endpoints.USER_DATA_TIMESTAMP))
        return await reads_show(self.exchange, moment, self.clock)

    async def _ask(self, order: Order, order_id: OrderId, since: Moment) -> None:
        async def read(cursor: str | None) -> Page[Fill]:
            await self.reads.take(self.reads.limits.cost(*endpoints.FILLS))
            return await self.exchange.fills_page(order_id=order_id, cursor=cursor)

        await self.book(await read_all(read, what="fills of an order"))
        if not order.unbooked:
            return
        report = await self._read(order_id)
        if not order.unbooked:
            return  # it came while we read
        if not await self._shows(since) or not order.unbooked:
            return  # reads have fallen back in between, or it came
        if report is None or report.filled <= order.filled:
            log.warning(
                "reported fill never was", order=order.client_order_id, contracts=format_count(order.unbooked)
            )
            self.desk.no_more_fills(order)
        elif order_id not in self._told and self._is_long_ago(order):
            self._told.add(order_id)
            self.on_missing(
                order,
                f"{order.ticker}: order {order_id} is reported as filled with {format_count(report.filled)}, the "
                f"exchange's fills of it add up to {format_count(order.filled)}",
            )

    def _is_long_ago(self, order: Order) -> bool:
        return self.clock() - (order.done_at or self.clock()) >= ANNOUNCED_TOLD_AFTER

    # --- fills of unknown orders ---

    def note_unknown(self, order_ids: Iterable[OrderId]) -> None:
        """Fills were read of these orders, and neither desk nor ledger knows them."""
        for order_id in order_ids:
            if len(self._unknown) < MAX_UNKNOWN:
                self._unknown.setdefault(order_id, 0)
            else:
                self.not_identified += 1
                if self.not_identified == 1:
                    log.warning(
                        "too many unknown orders: the next start looks up whose they are", kept=MAX_UNKNOWN
                    )

    async def identify(self) -> None:
        """Ask for some of the unknown orders, by order id: a fill that was read carries no id of ours.

        Ours is what has our prefix: an earlier life's, or one whose answer is still on its way. The rest is foreign.
        Raises `ExchangeError`.
        """
        for order_id in list(self._unknown)[:IDENTIFIED_A_PASS]:
            tries = self._unknown.pop(order_id, None)
            if tries is None:
                continue  # another pass asks for it at this moment
            try:
                report = await self._read(order_id)
            except BaseException:
                self._unknown[order_id] = tries
                raise
            if report is None:
                if tries + 1 < IDENTIFY_TRIES:
                    self._unknown[order_id] = tries + 1  # reads lag: asked for again, at the end of the queue
                else:
                    log.warning("a fill's order is unknown to the exchange", order_id=order_id)
                continue
            client_id = report.client_order_id
            if client_id is None or not client_id.startswith(self.ids.bot_prefix):
                self.names.record_foreign_order(order_id)
            elif self.desk.find(order_id, client_id) is not None:
                self.desk.on_report(report)
            elif closes_positions(client_id):
                self.names.record_order(_flattened(report, client_id))
            else:
                self.names.record_order_name(order_id, client_id)


def _flattened(report: OrderReport, client_order_id: ClientOrderId) -> Order:
    """An order that `mm flatten` sent beside us."""
    return Order(
        client_order_id=client_order_id,
        ticker=report.ticker,
        side=report.side,
        price=report.price,
        count=report.initial,
        time_in_force=TimeInForce.IOC,
        post_only=False,
        reduce_only=True,
        exchange_index=report.exchange_index,
        state=OrderState.DONE,
        order_id=report.order_id,
        reported_filled=report.filled,
        created_at=report.created_at or Micros(0),
    )

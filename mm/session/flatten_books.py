"""What `mm flatten` writes down: its orders before they are sent, and their fills once the exchange shows them.

Only where it holds the data folder and finds a ledger there. Beside a running bot the ledger is the bot's: it reads the
fills from the exchange and knows by our order ids what they are (`mm.tasks.ids`). Books that fail stop nobody from
getting flat: what is missing is read from the exchange by the next start, and told by the order ids to be ours.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import structlog
import trio

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill
from mm.domain.order import Order, OrderEvent, OrderId
from mm.exchange.paging import read_all
from mm.exchange.port import Exchange, ExchangeError, PlaceAck
from mm.ledger import Ledger, open_ledger
from mm.session.operator import Operator

log = structlog.get_logger(__name__)

FILLS_S: Final = 5.0
"""How long fills are waited for: reads lag by about a second."""
_AGAIN_S: Final = 0.2


@attrs.define(eq=False, kw_only=True)
class FlattenBooks:
    """The books of one `mm flatten`; without a ledger it keeps none."""

    operator: Operator
    ledger: Ledger | None
    _sent: dict[OrderId, Order] = attrs.field(factory=dict)

    async def intend(self, order: Order) -> None:
        """Write an order down before it is sent."""
        order.created_at = self.operator.surroundings.clock()
        order.apply(OrderEvent.SEND)
        await self._write(order)

    async def answered(self, order: Order, ack: PlaceAck) -> None:
        """It was placed: immediate-or-cancel, so it is done."""
        order.order_id, order.reported_filled = ack.order_id, ack.filled
        order.apply(OrderEvent.GONE)
        self._sent[ack.order_id] = order
        await self._write(order)

    async def failed(self, order: Order, *, is_unknown: bool) -> None:
        """It was refused, or got no answer."""
        order.apply(OrderEvent.ANSWER_LOST if is_unknown else OrderEvent.REFUSED)
        await self._write(order)

    async def book_fills(self) -> None:
        """Read the fills of our orders until they add up to what was answered, and write them."""
        wanted = {order_id: order for order_id, order in self._sent.items() if order.reported_filled}
        if self.ledger is None or not wanted:
            return
        found: dict[OrderId, list[Fill]] = {}
        with trio.move_on_after(FILLS_S):
            while len(found) < len(wanted):
                for order_id, order in wanted.items():
                    fills = await _fills_of(self.operator.exchange, order_id)
                    if sum(fill.count for fill in fills) >= order.reported_filled:
                        found[order_id] = [
                            attrs.evolve(f, client_order_id=order.client_order_id) for f in fills
                        ]
                await trio.sleep(0 if len(found) == len(wanted) else _AGAIN_S)
        try:
            await self.ledger.record_fills([fill for fills in found.values() for fill in fills])
        except LedgerError as exc:
            self.give_up(exc)
        if len(found) < len(wanted):
            log.warning(
                "fills not shown by the exchange yet: the next start books them",
                orders=len(wanted) - len(found),
            )

    async def _write(self, order: Order) -> None:
        if self.ledger is None:
            return
        try:
            self.ledger.record_order(order)
            await self.ledger.flush()
        except LedgerError as exc:
            self.give_up(exc)

    def give_up(self, exc: LedgerError) -> None:
        """No more books: being flat comes first."""
        self.operator.say(f"not written to the ledger, the next start of the bot does it: {exc}")
        if self.ledger is not None:
            self.ledger.begin_shutdown()
        self.ledger = None


async def _fills_of(exchange: Exchange, order_id: OrderId) -> list[Fill]:
    """Empty where they cannot be read now."""
    try:
        return await read_all(
            lambda cursor: exchange.fills_page(order_id=order_id, cursor=cursor), what="fills of an order"
        )
    except ExchangeError as exc:
        log.warning("fills cannot be read", order_id=order_id, error=str(exc))
        return []


@asynccontextmanager
async def open_books(
    operator: Operator, session: str, *, is_alone: bool
) -> AsyncGenerator[FlattenBooks, None]:
    """The books for the time of the block. A ledger that cannot be used is told, not raised."""
    books = FlattenBooks(operator=operator, ledger=None)
    path = operator.settings.data_dir / "ledger.sqlite3"
    is_file: bool = await operator.surroundings.runner(path.is_file)
    if not is_alone or not is_file:
        yield books
        return
    async with AsyncExitStack() as stack:
        try:
            books.ledger = await stack.enter_async_context(
                open_ledger(
                    path,
                    account=operator.exchange.account,
                    runner=operator.surroundings.runner,
                    clock=operator.surroundings.clock,
                    session=session,
                    connect=operator.surroundings.connect_ledger,
                )
            )
        except LedgerError as exc:
            books.give_up(exc)
        try:
            yield books
        finally:
            try:
                await stack.aclose()
            except LedgerError as exc:
                books.give_up(exc)

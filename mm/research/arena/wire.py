"""The way to the core: the live desk's requests as hops that stop where they wait for the exchange, and what they cost."""

from collections.abc import Callable, Generator
from typing import Any, Final

import attrs

from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import Order, Side
from mm.exchange import endpoints
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import AmendRequest, OrderRequest
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.port import (
    Bucket,
    ExchangeRejected,
    NewOrder,
    NotRestingHere,
    OrderRef,
    PlaceAck,
    RateLimits,
)
from mm.tasks.desk import OrderDesk

USER: Final = "arena"
CASH: Final = Money(10_000_000_000)
BASIC: Final = RateLimits(
    tier="basic",
    read=Bucket(refill_per_s=200, capacity=400),
    write=Bucket(refill_per_s=100, capacity=100),
    costs={endpoints.CANCEL: 2, endpoints.CANCEL_BATCH: 2},
)
RESERVE: Final = 40.0
"""Kept back for leaving, as live."""


class Hop:
    """Awaited by the desk: handed out to the loop, which sends back the answer."""

    def __init__(self, call: Callable[[Micros], Any]) -> None:
        self.call = call

    def __await__(self) -> Generator[Callable[[Micros], Any], Any, Any]:
        return (yield self.call)


@attrs.define(eq=False)
class Wire:
    """The exchange as the desk sees it: each request is a hop into the core."""

    core: ExchangeCore

    async def place(self, new: NewOrder) -> PlaceAck:
        request = OrderRequest(
            ticker=new.ticker,
            side=new.side,
            count=new.count,
            price=new.price,
            time_in_force=new.time_in_force,
            self_trade_prevention=new.self_trade_prevention,
            client_order_id=new.client_order_id,
            post_only=new.post_only,
            reduce_only=new.reduce_only,
        )
        found = await Hop(lambda now: _asked(lambda: self.core.create(now, USER, request)))
        return PlaceAck(order_id=found.order_id, filled=found.fill_count, remaining=found.remaining_count)

    async def amend(
        self, ref: OrderRef, *, side: Side, price: Price, count: Count, expires_at: Micros | None = None
    ) -> None:
        del expires_at
        request = AmendRequest(ticker=ref.ticker, side=side, price=price, count=count)
        await Hop(lambda now: _asked(lambda: self.core.amend(now, USER, ref.order_id, request)))

    async def cancel(self, ref: OrderRef) -> Count:
        found = await Hop(lambda now: _asked(lambda: self.core.cancel(now, USER, ref.order_id)))
        return found.reduced_by  # type: ignore[no-any-return]


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Refused as refused:
        if refused.status == 404:
            raise NotRestingHere(str(refused), status=404, code=refused.code) from refused
        raise ExchangeRejected(str(refused), status=refused.status, code=refused.code) from refused


class ArenaDesk(OrderDesk):
    """The live desk, without a stopwatch on the machine's clock."""

    async def _timed(self, call: Any) -> Any:
        return await call


class NoRecorder:
    def record_order(self, order: Order) -> None:
        """Nowhere."""

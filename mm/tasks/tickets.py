"""What a plan is worth to the write scheduler: how urgent it is, what it costs, what money stands behind it, how long it lives."""

from mm.domain.commands import Amend, Cancel, Command, Decrease, Place
from mm.domain.errors import InvariantError
from mm.domain.market import Market
from mm.domain.numbers import Micros, notional
from mm.domain.order import Order
from mm.engine.diff import SidePlan
from mm.engine.expiry import quote_life
from mm.engine.quoter import MarketMaker
from mm.exchange import endpoints
from mm.exchange.port import RateLimits
from mm.tasks.budget import Ticket, Urgency
from mm.tasks.desk import OrderDesk

NO_MARK_DISTANCE = 100
"""Without a price, a stale quote counts as a cent off."""


def ticket_for(plan: SidePlan, maker: MarketMaker, desk: OrderDesk, limits: RateLimits) -> Ticket:
    """A ticket for everything in the plan, as urgent as its most urgent part. The plan must not be empty."""
    value = 0
    for command in plan.commands:
        if isinstance(command, Place):
            value += notional(command.price, command.count)
        else:
            value += stale_value(order_of(command, desk), maker)
    return Ticket(
        urgency=min(urgency_of(command) for command in plan.commands),
        cost=sum(cost_of(command, limits) for command in plan.commands),
        value=value,
        exchange_index=maker.market.exchange_index,
    )


def order_of(command: Command, desk: OrderDesk) -> Order | None:
    """The order that a command moves; None when it has ended. Raises `InvariantError` for what moves none."""
    if isinstance(command, Amend | Cancel | Decrease):
        return desk.live.get(command.client_order_id)
    raise InvariantError(f"a quoter cannot execute {command!r}")


def stale_value(order: Order | None, maker: MarketMaker) -> int:
    """What a stale quote may give away: its distance on the wrong side of the mark times what is left of it."""
    if order is None:
        return 0
    mark = maker.mark
    distance = NO_MARK_DISTANCE if mark is None else max(0, (order.price - mark) * order.side.sign) + 1
    return distance * int(order.leaves)


def urgency_of(command: Command) -> Urgency:
    """Its place in the order of service."""
    if isinstance(command, Cancel):
        return Urgency.EXIT if command.is_urgent else Urgency.CANCEL
    if isinstance(command, Decrease):
        return Urgency.EXIT  # only limits make a quote smaller in place
    is_new = isinstance(command, Place) and not command.is_replacement
    return Urgency.NEW_QUOTE if is_new else Urgency.REQUOTE


def cost_of(command: Command, limits: RateLimits) -> int:
    """Its tokens."""
    if isinstance(command, Place):
        return limits.cost(*endpoints.PLACE)
    if isinstance(command, Amend | Decrease):  # a decrease is sent as an amend of the total
        return limits.cost(*endpoints.AMEND)
    return limits.cost(*endpoints.CANCEL)


def chosen_life(market: Market, desk: OrderDesk, limits: RateLimits, now: Micros) -> Micros:
    """How long a quote of the market lives that is placed or renewed now; see `mm.engine.expiry`."""
    return quote_life(
        now,
        market.expected_expiration,
        quotes=max(2, len(desk.live)),
        renewal_cost=limits.cost(*endpoints.AMEND),
        refill_per_s=limits.write.refill_per_s,
    )

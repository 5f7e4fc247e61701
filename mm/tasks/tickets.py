"""What a plan is worth to the write scheduler: how urgent it is, what it costs, what money stands behind it, how long it lives.

Money behind a write is what it saves or may earn, both measured from the mark: a quote that stands `d` nearer than our
half-spread gives `d` a contract away, one that is missing earns nothing. So a cancel, an amend and a new quote can be
compared, token by token.
"""

from mm.domain.commands import Amend, Cancel, Command, Decrease, Place
from mm.domain.errors import InvariantError
from mm.domain.market import Market
from mm.domain.numbers import Micros
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
            value += earning(command, maker)
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
    """What a quote gives away where it stands: how much nearer to the mark than our half-spread, or beyond it, times what
    is left of it. Away from there it gives nothing away, and counts for one step of the price."""
    if order is None:
        return 0
    mark, half_spread = maker.mark, maker.parameters.base_spread
    nearer = NO_MARK_DISTANCE if mark is None else (order.price - mark) * order.side.sign + half_spread
    return max(1, nearer) * int(order.leaves)


def earning(command: Place, maker: MarketMaker) -> int:
    """What a new quote earns when it is met: its distance from the mark, at most our half-spread, times its size.

    A quote that stands further out, for what we hold already, is met less often: it counts for no more.
    """
    mark, half_spread = maker.mark, maker.parameters.base_spread
    edge = half_spread if mark is None else (mark - command.price) * command.side.sign
    return min(max(1, edge), max(1, half_spread)) * int(command.count)


def is_at_risk(plan: SidePlan, maker: MarketMaker, desk: OrderDesk) -> bool:
    """Whether an order that the plan moves stands at the mark or beyond it, where meeting it costs us money."""
    mark = maker.mark
    orders = [order_of(c, desk) for c in plan.commands if not isinstance(c, Place)]
    return any(o is not None and (mark is None or (o.price - mark) * o.side.sign >= 0) for o in orders)


def is_moved(ticket: Ticket, fresh: Ticket) -> bool:
    """Whether a waiting ticket should stand elsewhere in its line: not for every tick of the mark."""
    if (fresh.urgency, fresh.cost) != (ticket.urgency, ticket.cost):
        return True
    return abs(fresh.value - ticket.value) * 8 > ticket.value


def within(plan: SidePlan, tokens: int, limits: RateLimits) -> SidePlan:
    """The plan itself, or the cheapest way to the same end where it costs more than `tokens`.

    An amend away from the market takes the risk off and puts the new quote up in one write; a cancel only takes the risk
    off, for a fifth of the tokens. When tokens are short five bad quotes gone are worth more than one corrected; the new
    one follows in its own turn.
    """
    if len(plan.commands) != 1 or not isinstance(plan.commands[0], Amend):
        return plan
    amend, cost = plan.commands[0], limits.cost(*endpoints.AMEND)
    if cost <= tokens or limits.cost(*endpoints.CANCEL) >= cost:
        return plan
    cancel = Cancel(
        ticker=amend.ticker, client_order_id=amend.client_order_id, reason="price moved", is_urgent=False
    )
    return SidePlan(commands=(cancel,), is_action=True, is_replace=True, is_replacing=True)


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

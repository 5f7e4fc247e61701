"""One quoted market's task: it owns the market's scope, its writes and its recovery.

It wakes when there is something to send, asks the market maker again at the moment of sending, and sends at most one
write a side at a time. Decisions themselves are made by direct call, once per read of the feed, not here.
"""

from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from mm.domain.commands import Amend, Cancel, Command, Decrease, Place
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import GroupId, MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.diff import SidePlan
from mm.engine.exits import ExitOrder
from mm.engine.expiry import renew_at
from mm.engine.quoter import Decision, MarketMaker
from mm.exchange import endpoints
from mm.exchange.port import AuthError, ExchangeError, ExchangeRejected
from mm.tasks.budget import Ticket, Urgency, WriteBudget
from mm.tasks.desk import OrderDesk, Outcome, Verdict
from mm.tasks.fence import Fence
from mm.tasks.guardian import GuardianGone
from mm.tasks.ids import OrderIds
from mm.tasks.resolve import Resolver
from mm.tasks.tickets import chosen_life, cost_of, is_at_risk, is_moved, order_of, ticket_for, within

log = structlog.get_logger(__name__)

PAUSE_PROBE_S: Final = 15.0
"""A paused market is probed this slowly, never hammered."""
REFUSED_REST_S: Final = 5.0
"""After a refusal that will not cure itself within a cooldown (balance, unknown reason)."""
GUARDIAN_REST_S: Final = 1.0
BACKOFF_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


@attrs.define(eq=False, kw_only=True)
class QuoterTools:
    """What every quoter works with. One object for all of them."""

    desk: OrderDesk
    resolver: Resolver
    fence: Fence
    budget: WriteBudget
    ids: OrderIds
    clock: Callable[[], Micros]
    quote_ttl: Micros | None = None
    """How long every quote lives; None: as `mm.engine.expiry` chooses for the market."""
    why_stopped: Callable[[], str] = lambda: ""
    """Why new quotes are switched off everywhere (kill switch, guardian missing); empty when they are not."""
    is_fencing: Callable[[], bool] = lambda: False
    """All groups are being triggered at this moment: single cancels would only be in the way."""
    on_trouble: Callable[[MarketTicker, str, ExchangeError], None] = lambda ticker, what, exc: None
    on_group_closed: Callable[[GroupId], None] = lambda group_id: None
    """A create was refused because its group is triggered: the answer is faster than the socket's report."""


@attrs.define(eq=False)
class _SideWork:
    """The write of one side that waits for tokens or is on the wire."""

    ticket: Ticket | None = None
    waiting: trio.CancelScope | None = None
    is_busy: bool = False
    is_renewal: bool = False
    rest_until: Micros = Micros(0)
    """A cancel was refused: the next write, however urgent, waits until then."""
    failures: int = 0
    """Cancels refused in a row."""


@attrs.define(eq=False)
class Quoter:
    """The task of one market. `wake` may be called by anybody, any number of times."""

    maker: MarketMaker
    tools: QuoterTools
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _sides: dict[Side, _SideWork] = attrs.field(
        factory=lambda: {Side.BID: _SideWork(), Side.ASK: _SideWork()}
    )
    _exiting: bool = False
    _failures: int = 0
    _heard: Decision | None = None
    """What the reader has just decided, for this task to begin with; what is sent is decided once more."""
    _wakes_at: Micros | None = None
    """When it looks again by itself; None when only a wake will do."""
    _holds_until: dict[str, Micros] = attrs.field(factory=dict)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def ticker(self) -> MarketTicker:
        """The market."""
        return self.maker.market.ticker

    def wake(self) -> None:
        """Something changed: look again."""
        self._heard = None
        self._wake.set()

    def hear(self, decision: Decision) -> None:
        """Something is to be sent: `decision` says what. Looked at by the task, unless somebody wakes it before."""
        self._heard = decision
        self._wake.set()

    def hear_nothing(self, decision: Decision) -> None:
        """The newest decision asks for nothing: what was heard before it, and not looked at yet, no longer counts."""
        if self._heard is not None:
            self._heard = decision

    def would_oversleep(self, decision: Decision) -> bool:
        """Whether something of `decision` comes due before this task looks again by itself."""
        due = decision.wake_at
        return due is not None and (self._wakes_at is None or due < self._wakes_at)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Quote until cancelled. Orders left behind by a cancellation are the sweep's (or the next quoter's).

        Raises `InvariantError` and `AuthError`, which end the session; what the venue refuses is handled here.
        """
        with self.scope:
            async with trio.open_nursery() as nursery:
                for order in self.tools.desk.of_market(self.ticker):
                    if order.state is OrderState.UNKNOWN:
                        nursery.start_soon(self.tools.resolver.resolve, order)
                task_status.started()
                while True:
                    self._wake = trio.Event()
                    heard, self._heard = self._heard, None
                    decision = heard or self.look()
                    self._start_work(nursery, decision)
                    await self._rest(decision)

    def look(self) -> Decision:
        """Decide now, with holds that have run out lifted."""
        now = self.tools.clock()
        for cause in [c for c, until in self._holds_until.items() if until <= now]:
            del self._holds_until[cause]
            self.maker.holds.pop(cause, None)
            self.maker.exit_holds.pop(cause, None)
        if why := self.tools.why_stopped():
            self.maker.holds["switch"] = why
        else:
            self.maker.holds.pop("switch", None)
        return self.maker.decide(now)

    async def _rest(self, decision: Decision) -> None:
        """Sleep until woken, or until time alone changes something."""
        now = self.tools.clock()
        rests = [work.rest_until for work in self._sides.values() if work.rest_until > now]
        candidates = (decision.wake_at, self._next_renewal(), *self._holds_until.values(), *rests)
        self._wakes_at = min((m for m in candidates if m is not None), default=None)
        if self._wakes_at is None:
            await self._wake.wait()
            return
        with trio.move_on_after(max(0.001, (self._wakes_at - now) / SECOND)):
            await self._wake.wait()

    # --- starting writes ---

    def _start_work(self, nursery: trio.Nursery, decision: Decision) -> None:
        if self.tools.is_fencing():
            return  # the end of it wakes us
        now = self.tools.clock()
        for side, work in self._sides.items():
            plan = decision.plan(side)
            if work.is_busy:
                self._revise(work, plan)
            elif work.rest_until > now:
                continue
            elif plan.commands:
                work.is_busy, work.is_renewal = True, False
                nursery.start_soon(self._work_side, side, work, self._ticket(plan))
            elif (order := self._to_renew(side)) is not None:
                work.is_busy, work.is_renewal = True, True
                nursery.start_soon(self._renew, order, work)
        if decision.exit is not None and not self._exiting:
            self._exiting = True
            nursery.start_soon(self._work_exit)

    def _revise(self, work: _SideWork, plan: SidePlan) -> None:
        """The side waits for tokens and the plan has changed: more urgent, cheaper, or not wanted any more."""
        ticket = work.ticket
        if ticket is None or ticket.granted.is_set():
            return
        if not plan.commands:
            if work.waiting is not None and not work.is_renewal:
                work.waiting.cancel(reason="superseded before it was sent")
            return
        fresh = self._ticket(plan)
        if is_moved(ticket, fresh):
            ticket.urgency, ticket.cost, ticket.value = fresh.urgency, fresh.cost, fresh.value
            self.tools.budget.changed(ticket)

    def _ticket(self, plan: SidePlan) -> Ticket:
        """For the plan; for the cheaper way to the same end where money is at risk and the shard is short of tokens."""
        budget, limits = self.tools.budget, self.tools.budget.limits
        is_short = budget.is_short(
            self.maker.market.exchange_index, sum(self._cost(c) for c in plan.commands)
        )
        if is_short and is_at_risk(plan, self.maker, self.tools.desk):
            plan = within(plan, 0, limits)
        return ticket_for(plan, self.maker, self.tools.desk, limits)

    def _cost(self, command: Command) -> int:
        return cost_of(command, self.tools.budget.limits)

    # --- writes ---

    async def _work_side(self, side: Side, work: _SideWork, ticket: Ticket) -> None:
        """Wait for tokens, decide again, send; at the end the side is free and the market is looked at again."""
        try:
            with trio.CancelScope() as waiting:
                work.ticket, work.waiting = ticket, waiting
                await self._prepare(ticket)
                await self.tools.budget.acquire(ticket)
                work.waiting = None
            if waiting.cancelled_caught:
                return
            work.ticket = None
            now = self.tools.clock()
            plan = within(self.look().plan(side), ticket.cost, self.tools.budget.limits)
            if (
                self.scope.cancel_called
                or not plan.commands
                or sum(self._cost(c) for c in plan.commands) > ticket.cost
            ):
                self.tools.budget.give_back(ticket)
                return
            self.maker.plan_sent(side, plan, now)
            self.wake()  # a replace may have moved the churn brake, which holds for the other side, too
            spent = 0
            for command in plan.commands:
                if await self._execute(command):
                    spent += self._cost(command)
            if spent < ticket.cost:
                self.tools.budget.give_back(ticket, spent)
        except AuthError:
            raise
        except ExchangeError as exc:
            self._back_off("order group", exc)
        except GuardianGone as exc:
            self._hold("guardian", str(exc), GUARDIAN_REST_S)
        finally:
            work.ticket = work.waiting = None
            work.is_busy = False
            self.wake()

    async def _prepare(self, ticket: Ticket) -> None:
        """New orders need a group: make it before the tokens are asked for, so that the decision is not old."""
        if ticket.urgency >= Urgency.REQUOTE:
            await self.tools.fence.group_for(self.maker.market.exchange_index)

    async def _execute(self, command: Command) -> bool:
        """Send it, unless there is nothing to send any more; whether it was sent."""
        desk = self.tools.desk
        if isinstance(command, Place):
            return await self._place(command)
        order = order_of(command, desk)
        if order is None or order.order_id is None:
            return False  # it ended while we waited
        if isinstance(command, Cancel):
            if order.state not in (OrderState.RESTING, OrderState.AMENDING):
                return False
            await self._settle(order, await desk.cancel(order), "cancel")
        elif order.state is not OrderState.RESTING:
            return False
        elif isinstance(command, Amend):
            total = Count(order.filled + command.leaves)
            outcome = await desk.amend(order, price=command.price, count=total, expires_at=self._expiry())
            await self._settle(order, outcome, "amend")
        elif isinstance(command, Decrease):
            await self._settle(order, await desk.decrease(order, reduce_to=command.leaves), "decrease")
        return True

    async def _place(self, command: Place) -> bool:
        index = self.maker.market.exchange_index
        group_id = self.tools.fence.groups.get(index)
        if not self.tools.fence.is_current(group_id):
            return False  # fenced between the grant and now: the next look makes a new epoch
        order = Order(
            client_order_id=self.tools.ids.next(),
            ticker=self.ticker,
            side=command.side,
            price=command.price,
            count=command.count,
            group_id=group_id,
            exchange_index=index,
            expires_at=self._expiry(),
        )
        await self._settle(order, await self.tools.desk.place(order), "create")
        return True

    async def _work_exit(self) -> None:
        budget = self.tools.budget
        ticket = Ticket(
            urgency=Urgency.EXIT,
            cost=budget.limits.cost(*endpoints.PLACE),
            exchange_index=self.maker.market.exchange_index,
        )
        try:
            await budget.acquire(ticket)
            # Called off in the same turn (the market is over): an order sent now would have nobody to ask after it.
            wanted = None if self.scope.cancel_called else self.look().exit
            if wanted is None:
                budget.give_back(ticket)
                return
            await self._send_exit(wanted)
        finally:
            self._exiting = False
            self.wake()

    async def _send_exit(self, wanted: ExitOrder) -> None:
        order = Order(
            client_order_id=self.tools.ids.next(),
            ticker=self.ticker,
            side=wanted.side,
            price=wanted.price,
            count=wanted.count,
            time_in_force=TimeInForce.IOC,
            post_only=False,
            reduce_only=True,
            exchange_index=self.maker.market.exchange_index,
        )
        self.maker.exit_sent(self.tools.clock())
        log.info(
            "exit sent", market=self.ticker, side=wanted.side.value, price=wanted.price, count=wanted.count
        )
        outcome = await self.tools.desk.place(order)
        await self._settle(order, outcome, "exit")

    async def _renew(self, order: Order, work: _SideWork) -> None:
        """Extend a quote's life; keeps its place in the queue. Only spare budget is spent on it."""
        try:
            ticket = Ticket(
                urgency=Urgency.RENEW,
                cost=self.tools.budget.limits.cost(*endpoints.AMEND),
                exchange_index=order.exchange_index,
            )
            with trio.CancelScope() as waiting:
                work.ticket, work.waiting = ticket, waiting
                await self.tools.budget.acquire(ticket)
                work.waiting = None
            work.ticket = None
            if waiting.cancelled_caught:
                return
            if order.state is not OrderState.RESTING or self.look().plan(order.side).commands:
                self.tools.budget.give_back(ticket)
                return
            outcome = await self.tools.desk.amend(
                order, price=order.price, count=order.count, expires_at=self._expiry()
            )
            await self._settle(order, outcome, "renewal")
        finally:
            work.ticket = work.waiting = None
            work.is_busy = False
            self.wake()

    def _expiry(self) -> Micros:
        return Micros(self.tools.clock() + self._life())

    def _life(self) -> Micros:
        """How long a quote of this market lives from now on, if it is not renewed."""
        tools = self.tools
        if tools.quote_ttl is not None:
            return tools.quote_ttl
        return chosen_life(self.maker.market, tools.desk, tools.budget.limits, tools.clock())

    def _to_renew(self, side: Side) -> Order | None:
        """The side's resting quote, when half of its life is over."""
        now = self.tools.clock()
        for order in self.tools.desk.of_market(self.ticker):
            if (
                order.side is side
                and order.state is OrderState.RESTING
                and (self._renew_at(order) or now) < now
            ):
                return order
        return None

    def _next_renewal(self) -> Micros | None:
        now = self.tools.clock()
        free = [side for side, work in self._sides.items() if not work.is_busy and work.rest_until <= now]
        found = [
            Micros(due + 1)
            for order in self.tools.desk.of_market(self.ticker)
            if order.side in free and order.state is OrderState.RESTING and (due := self._renew_at(order))
        ]
        return min(found, default=None)

    def _renew_at(self, order: Order) -> Micros | None:
        """When it is due for renewal; None: never."""
        if order.expires_at is None:
            return None
        return renew_at(order.expires_at, self._life(), int(order.client_order_id.rpartition("-")[2]))

    # --- what came of it ---

    async def _settle(self, order: Order, outcome: Outcome, what: str) -> None:
        """React to a write's outcome. The side stays busy until an unknown one is resolved."""
        if outcome.verdict is Verdict.DONE:
            self._failures = self._sides[order.side].failures = 0
            return
        if outcome.verdict in (Verdict.UNKNOWN, Verdict.CHECK):
            if outcome.verdict is Verdict.UNKNOWN and outcome.error is not None:
                self.tools.on_trouble(self.ticker, what, outcome.error)
            await self.tools.resolver.resolve(order)
            return
        exc = outcome.error
        assert exc is not None
        if what == "exit":
            self.maker.exit_refused()
        elif what == "cancel" and outcome.verdict is not Verdict.THROTTLED:
            # Holds do not stop a quote that must go: without a rest of its own the side would try for ever, hot.
            work = self._sides[order.side]
            work.rest_until = Micros(self.tools.clock() + round(_backoff_s(work.failures) * SECOND))
            work.failures += 1
        if outcome.verdict is Verdict.PAUSED:
            self._hold("paused", f"paused: {exc.code or exc}", PAUSE_PROBE_S, exits_too=True)
        elif outcome.verdict is Verdict.THROTTLED:
            await trio.sleep(0.1)
        elif outcome.verdict is Verdict.UNAVAILABLE:
            self._back_off(what, exc)
        else:
            self._refused(order, what, exc)

    def _refused(self, order: Order, what: str, exc: ExchangeError) -> None:
        if is_post_only_cross(exc):
            return  # the book moved under us: the cooldown is rest enough
        if order.group_id is not None and is_group_closed(exc):
            self.tools.on_group_closed(order.group_id)
            return
        self.tools.on_trouble(self.ticker, what, exc)
        log.warning("write refused", market=self.ticker, write=what, error=str(exc))
        least = 0.0 if what == "exit" else REFUSED_REST_S
        why = f"{what} refused: {exc.code or exc}"
        self._hold("refused", why, self._next_backoff(least), exits_too=what == "exit")

    def _back_off(self, what: str, exc: ExchangeError) -> None:
        self.tools.on_trouble(self.ticker, what, exc)
        log.warning("venue unavailable", market=self.ticker, write=what, error=str(exc))
        why = f"{what} failed: {exc}"
        self._hold("unavailable", why, self._next_backoff(0.0), exits_too=what == "exit")

    def _next_backoff(self, least: float) -> float:
        seconds = _backoff_s(self._failures)
        self._failures += 1
        return max(least, seconds)

    def _hold(self, cause: str, why: str, seconds: float, *, exits_too: bool = False) -> None:
        self.maker.holds[cause] = why
        if exits_too:
            self.maker.exit_holds[cause] = why
        self._holds_until[cause] = Micros(self.tools.clock() + round(seconds * SECOND))


def _backoff_s(failures: int) -> float:
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


def is_post_only_cross(exc: ExchangeError) -> bool:
    """The venue refused a post-only quote because it would have traded."""
    return isinstance(exc, ExchangeRejected) and "post only" in str(exc).lower()


def is_group_closed(exc: ExchangeError) -> bool:
    """The venue refused a create because its order group is triggered. Its code is not documented: match the words."""
    words = f"{exc.code} {exc}".lower().replace("_", " ")
    return isinstance(exc, ExchangeRejected) and "order group" in words

"""What we send and what comes back: the live desk over a wire of plain calls, and the commands that travel on it.

A request is a coroutine that stops where it waits for the exchange; the agenda lets it go on when the answer is due. No
task and no clock: moments are the tape's.
"""

import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Final, TypeVar, cast

import attrs

from mm.domain.commands import Amend, Cancel, Command, Decrease, Place
from mm.domain.errors import InvariantError
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side, TimeInForce
from mm.exchange.paper.core import PaperCore
from mm.exchange.port import (
    Exchange,
    ExchangeError,
    NewOrder,
    NotRestingHere,
    OrderRef,
    OrderReport,
    PlaceAck,
)
from mm.research.options import Latency
from mm.research.room import Room, Watcher
from mm.tasks.budget import Urgency, WriteBudget
from mm.tasks.desk import OrderDesk, Outcome, Verdict
from mm.tasks.quoter import PAUSE_PROBE_S, REFUSED_REST_S, is_post_only_cross

T = TypeVar("T")
UNAVAILABLE_REST_S: Final = 0.5


@attrs.define(eq=False)
class Agenda:
    """The present moment, and what is due later."""

    now: Micros = Micros(0)
    """Nothing later is known to anybody."""
    heap: list[tuple[int, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    def later(self, after: int, act: Callable[[], None]) -> None:
        """Do `act` then; of one moment in the order of asking."""
        heapq.heappush(self.heap, (self.now + after, next(self._numbers), act))

    def next_number(self) -> int:
        """A number that nobody else has."""
        return next(self._numbers)


class _Hop:
    """Awaited by the desk: handed out to the loop, which sends back the answer."""

    def __init__(self, call: Callable[[Micros], Any]) -> None:
        self.call = call

    def __await__(self) -> Generator[Callable[[Micros], Any], Any, Any]:
        return (yield self.call)


@attrs.define(eq=False)
class _Wire:
    """The exchange as the desk sees it: each request is a hop."""

    core: PaperCore

    async def place(self, order: NewOrder) -> PlaceAck:
        ack: PlaceAck = await _Hop(lambda now: self.core.place(order, now))
        return ack

    async def amend(
        self, ref: OrderRef, *, side: Side, price: Price, count: Count, expires_at: Micros | None = None
    ) -> None:
        await _Hop(lambda now: self.core.amend(ref, side, price, count, expires_at, now))

    async def cancel(self, ref: OrderRef) -> Count:
        taken: Count = await _Hop(lambda now: self.core.cancel(ref, now))
        return taken

    async def order(self, order_id: OrderId) -> OrderReport:
        report: OrderReport = await _Hop(lambda now: self._look_up(order_id))
        return report

    def _look_up(self, order_id: OrderId) -> OrderReport:
        for order in (*self.core.live.values(), *self.core.done):
            if order.order_id == order_id:
                return order.report()
        raise NotRestingHere("not found", status=404, code="not_found")


@attrs.define(eq=False)
class _Recorder:
    """Where the desk's orders would be written down."""

    def record_order(self, order: Order) -> None:
        """Nowhere."""


@attrs.define(eq=False)
class _Desk(OrderDesk):
    """The live desk, without a stopwatch on the machine's clock."""

    async def _timed(self, call: Awaitable[T]) -> T:
        return await call


@attrs.define(eq=False)
class _NoBudget:
    """Stands for the write budget: 429 is not modelled."""

    def refused(self, exchange_index: int) -> None:
        """Cannot happen."""
        raise InvariantError("paper does not refuse for the rate")


def make_desk(
    core: PaperCore, clock: Callable[[], Micros], on_change: Callable[[MarketTicker], None]
) -> OrderDesk:
    """The live desk over a wire to `core`."""
    wire = cast("Exchange", _Wire(core))
    return _Desk(wire, _Recorder(), cast("WriteBudget", _NoBudget()), clock, on_change)


@attrs.define(eq=False, kw_only=True)
class Errands:
    """Carries commands out, as `mm.tasks.quoter` does; a test holds the two together."""

    desk: OrderDesk
    agenda: Agenda
    latency: Latency
    chance: random.Random
    watcher: Watcher
    mark: Callable[[Room], None]
    """The market is to be looked at again."""
    deliver: Callable[[], None]
    """Something happened at the exchange: tell it on."""
    orders: int = 0
    refusals: dict[str, int] = attrs.field(factory=dict)

    def send(self, room: Room, side: Side, commands: tuple[Command, ...]) -> None:
        """Begin a side's commands; the side is busy until the last answer."""
        room.busy[side] = True
        self._resume(self._work_side(room, side, commands))

    def send_exit(self, room: Room, side: Side, price: Price, count: Count) -> None:
        """Begin an exit."""
        room.is_exiting = True
        self._resume(self._work_exit(room, side, price, count))

    async def _work_side(self, room: Room, side: Side, commands: tuple[Command, ...]) -> None:
        for command in commands:
            self.watcher.on_command(room, command, self.agenda.now)
            await self._execute(room, command)
        room.busy[side] = False
        self.mark(room)

    async def _execute(self, room: Room, command: Command) -> None:
        desk = self.desk
        if isinstance(command, Place):
            placed = self._order(room, command.side, command.price, command.count)
            await self._settle(room, placed, await desk.place(placed), "create")
            return
        assert isinstance(command, Cancel | Amend | Decrease)
        order = desk.live.get(command.client_order_id)
        if order is None:
            return
        if isinstance(command, Cancel):
            if order.state in (OrderState.RESTING, OrderState.AMENDING) and order.order_id is not None:
                await self._settle(room, order, await desk.cancel(order), "cancel")
        elif order.state is not OrderState.RESTING:
            return
        elif isinstance(command, Amend):
            total = Count(order.filled + command.leaves)
            outcome = await desk.amend(order, price=command.price, count=total, expires_at=None)
            await self._settle(room, order, outcome, "amend")
        else:
            await self._settle(room, order, await desk.decrease(order, reduce_to=command.leaves), "decrease")

    async def _work_exit(self, room: Room, side: Side, price: Price, count: Count) -> None:
        order = self._order(room, side, price, count)
        order.time_in_force, order.post_only, order.reduce_only = TimeInForce.IOC, False, True
        room.maker.exit_sent(self.agenda.now)
        self.watcher.on_exit(room, order, self.agenda.now)
        await self._settle(room, order, await self.desk.place(order), "exit")
        room.is_exiting = False
        self.mark(room)

    def _order(self, room: Room, side: Side, price: Price, count: Count) -> Order:
        self.orders += 1
        return Order(
            client_order_id=ClientOrderId(f"mm-backtest-{self.orders}"),
            ticker=room.ticker,
            side=side,
            price=price,
            count=count,
        )

    async def _settle(self, room: Room, order: Order, outcome: Outcome, what: str) -> None:
        if outcome.verdict is Verdict.DONE:
            return
        error = outcome.error
        if outcome.verdict in (Verdict.UNKNOWN, Verdict.CHECK):
            if order.state is OrderState.UNKNOWN and order.order_id is not None:
                self.desk.on_report(await self.desk.exchange.order(order.order_id))
            return
        code = error.code if error is not None and error.code else "refused"
        if error is not None and is_post_only_cross(error):
            self._refused("post only cross")
            return
        self._refused(f"{what}: {code}")
        if what == "exit":
            room.maker.exit_refused()
        rest = {Verdict.PAUSED: PAUSE_PROBE_S, Verdict.UNAVAILABLE: UNAVAILABLE_REST_S}
        seconds = rest.get(outcome.verdict, REFUSED_REST_S)
        room.maker.holds["refused"] = f"{what} refused: {code}"
        if what == "exit" or outcome.verdict is Verdict.PAUSED:
            room.maker.exit_holds["refused"] = f"{what} refused: {code}"
        room.holds_until["refused"] = Micros(self.agenda.now + round(seconds * SECOND))

    def _refused(self, what: str) -> None:
        self.refusals[what] = self.refusals.get(what, 0) + 1

    # --- requests on their way ---

    def _resume(self, work: Coroutine[Any, Any, None], answer: Any = None, *, error: Any = None) -> None:
        """Let one piece of work go on until its next request, which is then on its way."""
        try:
            call = work.send(answer) if error is None else work.throw(error)
        except StopIteration:
            return
        latency = self.latency
        travel = latency.feed + latency.order
        if latency.jitter:
            travel += int(self.chance.random() * latency.jitter)
        self.agenda.later(travel, lambda: self._arrive(work, call))

    def _arrive(self, work: Coroutine[Any, Any, None], call: Callable[[Micros], Any]) -> None:
        answer: Any = None
        refused: ExchangeError | None = None
        try:
            answer = call(self.agenda.now)
        except ExchangeError as error:
            refused = error
        self.deliver()
        back = self.latency.back
        if back:
            self.agenda.later(back, lambda: self._resume(work, answer, error=refused))
        else:
            self._resume(work, answer, error=refused)


def urgency(commands: Sequence[Command]) -> int:
    """The order in which the write scheduler would let them go, tokens being there."""
    return min((_urgency_of(command) for command in commands), default=Urgency.RENEW)


def _urgency_of(command: Command) -> Urgency:
    if isinstance(command, Cancel):
        return Urgency.EXIT if command.is_urgent else Urgency.CANCEL
    if isinstance(command, Decrease):
        return Urgency.EXIT
    is_new = isinstance(command, Place) and not command.is_replacement
    return Urgency.NEW_QUOTE if is_new else Urgency.REQUOTE


def ref_of(order_id: Any, ticker: MarketTicker) -> OrderRef:
    return OrderRef(order_id=order_id, ticker=ticker, exchange_index=0)

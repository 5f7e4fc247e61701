"""The back-test: the live engine, desk and floor in a plain loop over a tape. No tasks, no SQLite, no clock but the tape's.

One cursor goes over the tape; the engine is called with the time of the row it has just passed, so it cannot be told
anything later: there is no way to ask. What our requests do at the exchange, and when the answers are back, stands in
one heap by time.

Latency. What the recorder got at T we get at T; the exchange did it `feed` earlier. An order sent at T is at the exchange
`order` later, when the recorder sees what the exchange did at T + order + feed. So requests arrive `feed` + `order`
after they were sent, on the tape's clock, and nothing is lost by keeping one book instead of two. Answers may not
overtake the feed.
"""

import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Final, TypeVar, cast

import attrs

from mm.domain.commands import Amend, Cancel, Command, Decrease, FlattenReason, Place
from mm.domain.errors import InvariantError
from mm.domain.fill import Fill
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderState, Side, TimeInForce
from mm.domain.tickers import eastern_date, event_of
from mm.engine.limits import DailyLoss, PortfolioMae
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import Decision, MarketMaker
from mm.exchange.paper.account import PaperAccount
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
from mm.research.fills import TRADE_SHARE, FillModel, ModelMarket, model_market
from mm.research.tape import Tape, TapeMarket
from mm.tasks.budget import Urgency, WriteBudget
from mm.tasks.desk import OrderDesk, Outcome, Verdict
from mm.tasks.floor import Floor
from mm.tasks.positions import Positions
from mm.tasks.quoter import PAUSE_PROBE_S, REFUSED_REST_S, is_post_only_cross

T = TypeVar("T")
CASH: Final = Money(10**18)
"""Enough: the back-test asks whether quotes make money, not whether we can afford them."""
MONITOR_EVERY: Final = Micros(SECOND)
UNAVAILABLE_REST_S: Final = 0.5
LEAST_REST: Final = Micros(1_000)
"""A quoter never looks again sooner than this by itself."""


@attrs.frozen(kw_only=True)
class Latency:
    """How long things take. The defaults are guesses for a host near the exchange, to be measured."""

    feed: Micros = Micros(20_000)
    """From the exchange's deed to our knowing it."""
    order: Micros = Micros(30_000)
    """From our sending to the exchange's acting."""
    jitter: Micros = Micros(0)
    """Up to so much more for each request, evenly spread."""
    answer: Micros | None = None
    """From the exchange's acting to the answer in our hands; None: as the feed."""

    @property
    def back(self) -> Micros:
        """By how much an answer comes later than what the feed says of the same moment."""
        return Micros(0 if self.answer is None else max(self.answer - self.feed, 0))


@attrs.frozen(kw_only=True)
class BacktestOptions:
    """What a run may differ in."""

    parameters: StrategyParameters = attrs.field(factory=StrategyParameters)
    model: FillModel = FillModel.QUEUE
    latency: Latency = attrs.field(factory=Latency)
    trade_share: float = TRADE_SHARE
    seed: int = 1
    decide_always: bool = False
    """Ask the engine after every read, also where nothing that it looks at has changed. Slow; must change nothing."""
    decides_nothing: bool = False
    """Never ask it: what is left is the price of going over the tape."""


class Watcher:
    """What wants to know of a run. Every method may be left as it is."""

    def on_time(self, now: Micros) -> None:
        """Everything up to and with the moment before `now` has happened."""

    def on_fill(self, room: "Room", fill: Fill) -> None:
        """A fill of ours, after the inventory moved."""

    def on_decision(self, room: "Room", decision: Decision, now: Micros) -> None:
        """The engine was asked."""

    def on_command(self, room: "Room", command: Command, now: Micros) -> None:
        """A command was sent."""

    def on_exit(self, room: "Room", order: Order, now: Micros) -> None:
        """An exit order was sent."""

    def on_trigger(self, ticker: MarketTicker, reason: FlattenReason, now: Micros) -> None:
        """A flatten began."""


@attrs.define(eq=False)
class Room:
    """One market of the run."""

    place: int
    info: TapeMarket
    paper: ModelMarket
    maker: MarketMaker
    busy: dict[Side, bool] = attrs.field(factory=lambda: {Side.BID: False, Side.ASK: False})
    is_exiting: bool = False
    wake_at: int = 0
    """When a wake stands in the heap; 0: none does."""
    holds_until: dict[str, Micros] = attrs.field(factory=dict)
    own_prices: frozenset[int] = frozenset()
    """Prices at which we know an order of ours: a change of size there may matter."""
    twice_mid: int | None = None
    """Twice the mid of the recorded book, as of the last finished read."""
    last_twice_mid: int | None = None
    """The last one that there was."""
    is_over: bool = False
    rows: int = 0

    @property
    def ticker(self) -> MarketTicker:
        """The market."""
        return self.info.ticker


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

    async def order(self, ref: OrderRef) -> OrderReport:
        report: OrderReport = await _Hop(lambda now: self._look_up(ref))
        return report

    def _look_up(self, ref: OrderRef) -> OrderReport:
        for order in (*self.core.live.values(), *self.core.done):
            if order.order_id == ref.order_id:
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


@attrs.define(eq=False)
class Backtest:
    """One run over one tape. `run` once."""

    tape: Tape
    options: BacktestOptions
    watcher: Watcher = attrs.field(factory=Watcher)
    now: Micros = Micros(0)
    """The present moment: nothing later is known to anybody."""
    rooms: list[Room] = attrs.field(factory=list)
    by_ticker: dict[MarketTicker, Room] = attrs.field(factory=dict)
    core: PaperCore = attrs.field(init=False)
    floor: Floor = attrs.field(init=False)
    desk: OrderDesk = attrs.field(init=False)
    mae: PortfolioMae = attrs.field(init=False)
    loss: DailyLoss = attrs.field(init=False)
    refusals: dict[str, int] = attrs.field(factory=dict)
    decisions: int = 0
    orders: int = 0
    _wire: _Wire = attrs.field(init=False)
    _heap: list[tuple[int, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))
    _dirty: dict[int, Room] = attrs.field(factory=dict)
    _chance: random.Random = attrs.field(init=False)
    _is_watching: bool = False

    def __attrs_post_init__(self) -> None:
        options, clock = self.options, lambda: self.now
        self._chance = random.Random(f"{options.seed}/latency")  # noqa: S311 - repeatable on purpose
        self.core = PaperCore(f"backtest{options.seed}", PaperAccount(CASH), is_listened=True)
        self._wire = _Wire(self.core)
        self.floor = Floor(parameters=options.parameters, clock=clock, positions=Positions())
        self.floor.is_feed_up = True
        self.desk = _Desk(
            cast("Exchange", self._wire),
            _Recorder(),
            cast("WriteBudget", _NoBudget()),
            clock,
            self._order_changed,
        )
        self.floor.desk = self.desk
        self.mae = PortfolioMae(options.parameters)
        self.loss = DailyLoss(options.parameters.daily_loss_limit)
        for place, info in enumerate(self.tape.markets):
            self._open(place, info)

    def _open(self, place: int, info: TapeMarket) -> None:
        options = self.options
        market = Market(
            ticker=info.ticker, event_ticker=event_of(info.ticker), status=MarketStatus.ACTIVE, grid=info.grid
        )
        paper = model_market(options.model, info, options.parameters, options.trade_share, f"{options.seed}")
        self.core.markets[info.ticker] = paper
        self.core.listed[info.ticker] = market
        self.core.schedules[info.ticker] = info.fees
        self.floor.books[info.ticker] = paper.book
        room = Room(place, info, paper, self.floor.add_market(market))
        self.rooms.append(room)
        self.by_ticker[info.ticker] = room

    # --- the loop ---

    def run(self, on_progress: Callable[[int], None] | None = None) -> None:
        """Go over the whole tape. `on_progress` is told the row now and then.

        Raises `InvariantError` when the tape goes back in time, `BookOutOfSync` when it does not fit itself.
        """
        tape, rooms = self.tape, self.rooms
        level: list[list[tuple[Price, Count]]] = [[], []]
        left = 0
        columns = zip(tape.at, tape.kind, tape.market, tape.price, tape.count, tape.ts, strict=True)
        for row, (at, kind, place, price, count, ts) in enumerate(columns):
            if at != self.now:
                self._advance(at)
                if on_progress is not None and not row & 0xFFF:
                    on_progress(row)
            room = rooms[place]
            if kind == 3 or kind == 4:
                self._delta(room, Side.BID if kind == 3 else Side.ASK, price, count)
            elif kind == 0:
                left, level = count, [[], []]
                if not left:
                    self._snapshot(room, [], [])
            elif kind <= 2:
                level[kind - 1].append((Price(price), Count(count)))
                left -= 1
                if not left:
                    self._snapshot(room, level[0], level[1])
            else:
                self._other(room, kind, Price(price), Count(count), Micros(ts))
        self._finish_read()

    def _advance(self, at: int) -> None:
        """Finish what was read, and let everything happen that is due before `at` or at it."""
        if at < self.now:
            raise InvariantError(f"the tape goes back in time: {at} after {self.now}")
        self._finish_read()
        heap = self._heap
        while heap and heap[0][0] <= at:
            moment = heap[0][0]
            if moment > self.now:
                self.watcher.on_time(Micros(moment))
                self.now = Micros(moment)
            while heap and heap[0][0] == moment:  # what arrives together is seen together
                heapq.heappop(heap)[2]()
            self._finish_read()
        if at > self.now:
            self.watcher.on_time(Micros(at))
            self.now = Micros(at)

    def _later(self, after: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + after, next(self._numbers), act))

    def _finish_read(self) -> None:
        """Decide once for every market that changed."""
        if self.options.decide_always:
            self._dirty.update((room.place, room) for room in self.rooms if not room.is_over)
        while self._dirty:
            marked, self._dirty = self._dirty, {}
            for room in marked.values():
                if room.is_over:
                    continue
                book = room.paper.book
                room.twice_mid = book.twice_mid if book.is_synced and not book.is_crossed else None
                room.last_twice_mid = room.twice_mid or room.last_twice_mid
                if not self.options.decides_nothing:
                    self._decide(room)

    # --- what the tape says ---

    def _delta(self, room: Room, side: Side, price: int, change: int) -> None:
        paper, book = room.paper, room.paper.book
        before = book.best_bid if side is Side.BID else book.best_ask
        if room.own_prices or paper.is_touched:
            done = paper.delta(side, Price(price), Count(change), self.now)
            if done:
                self._executed(room, done)
            if price in room.own_prices:
                self._dirty[room.place] = room
        else:
            book.apply_delta(side, Price(price), Count(change))
        after = book.best_bid if side is Side.BID else book.best_ask
        if after != before:
            self._dirty[room.place] = room

    def _snapshot(self, room: Room, bids: list[tuple[Price, Count]], asks: list[tuple[Price, Count]]) -> None:
        self._executed(room, room.paper.snapshot(bids, asks))
        self._dirty[room.place] = room

    def _other(self, room: Room, kind: int, price: Price, count: Count, ts: Micros) -> None:
        if kind in (5, 6):
            trade = room.paper.print_of(room.ticker, price, count, kind == 5, ts, next(self._numbers))
            self._executed(room, room.paper.trade(trade, self.now))
            room.maker.on_trade(trade)
        elif kind == 7:
            if not room.info.has_trades:
                room.maker.mid.feed(price)
        elif kind == 8:
            room.paper.mark_out_of_sync()
        else:
            status = {9: MarketStatus.CLOSED, 10: MarketStatus.INACTIVE, 11: MarketStatus.ACTIVE}[kind]
            self._change_status(room, status)
        self._dirty[room.place] = room

    def _change_status(self, room: Room, status: MarketStatus) -> None:
        if room.is_over:
            return
        room.maker.market = market = attrs.evolve(room.maker.market, status=status)
        if status is not MarketStatus.CLOSED:
            for order in [o for o in self.core.live.values() if o.ticker == room.ticker]:
                self.core.cancel(_ref(order.order_id, room.ticker), self.now)
        else:
            room.is_over = True
        self.core.learn(market, self.now)
        self._deliver()

    def _executed(self, room: Room, executions: list[Any]) -> None:
        if executions:
            self.core.executed(executions, self.now)
            self._deliver()

    def _deliver(self) -> None:
        """What happened to our orders, as the private channels tell it."""
        events = self.core.events
        while events:
            event = events.popleft()
            if isinstance(event, Fill):
                self.floor.apply_fill(event)
                room = self.by_ticker[event.ticker]
                self._dirty[room.place] = room
                self.watcher.on_fill(room, event)
                if not self._is_watching:
                    self._is_watching = True
                    self._later(MONITOR_EVERY, self._monitor)
            elif isinstance(event, OrderReport):
                self.desk.on_report(event)

    def _order_changed(self, ticker: MarketTicker) -> None:
        self.floor.update_exposure(ticker)
        room = self.by_ticker[ticker]
        room.own_prices = frozenset(o.price for o in self.desk.live.values() if o.ticker == ticker)
        self._dirty[room.place] = room

    def _monitor(self) -> None:
        """The limits over all markets, once a second while anything is held."""
        floor = self.floor
        if self.loss.observe(floor.marked_pnl(), eastern_date(self.now)):
            floor.hold_all("loss", "daily loss limit")
        at_risk: dict[MarketTicker, tuple[Count, Money]] = {}
        for ticker, history in floor.positions.histories.items():
            inventory, mark = history.state, floor.mark_of(ticker)
            if not inventory.is_flat and mark is not None and not self.by_ticker[ticker].is_over:
                at_risk[ticker] = (inventory.net, inventory.mae_value(mark))
        was_tripped = self.mae.is_tripped
        verdict = self.mae.observe(at_risk, self.now)
        if verdict.just_tripped:
            floor.hold_all("portfolio", "portfolio MAE limit")
        elif was_tripped and not verdict.is_tripped:
            floor.lift_all("portfolio")
        for ticker in verdict.flatten:
            floor.makers[ticker].flatten(FlattenReason.PORTFOLIO_MAE)
            self._dirty[self.by_ticker[ticker].place] = self.by_ticker[ticker]
        self._is_watching = bool(at_risk) or self.mae.is_tripped
        if self._is_watching:
            self._later(MONITOR_EVERY, self._monitor)

    def _tell_triggers(self, room: Room) -> None:
        for reason, _, _ in room.maker.take_triggers():
            self.watcher.on_trigger(room.ticker, reason, self.now)

    # --- what we do ---

    def _look(self, room: Room) -> Decision:
        """Ask the engine, with our orders in the book as the exchange would show it."""
        for cause in [c for c, until in room.holds_until.items() if until <= self.now]:
            del room.holds_until[cause]
            room.maker.holds.pop(cause, None)
            room.maker.exit_holds.pop(cause, None)
        book = room.paper.book
        shown = room.paper.resting() if book.is_synced else []
        for order in shown:
            book.apply_delta(order.side, order.price, order.remaining)
        decision = room.maker.decide(self.now)
        for order in shown:
            book.apply_delta(order.side, order.price, Count(-order.remaining))
        self.decisions += 1
        if room.maker.triggers:
            self._tell_triggers(room)
        self.watcher.on_decision(room, decision, self.now)
        return decision

    def _decide(self, room: Room) -> None:
        decision = self._look(room)
        plans = [(side, decision.plan(side)) for side in Side if not room.busy[side]]
        for side, plan in sorted(plans, key=lambda item: _urgency(item[1].commands)):
            if not plan.commands:
                continue
            room.busy[side] = True
            room.maker.plan_sent(side, plan, self.now)
            self._resume(self._work_side(room, side, plan.commands))
            # What was just sent counts against the limits, and may move the churn brake: decide anew.
            self._dirty[room.place] = room
            return
        if decision.exit is not None and not room.is_exiting:
            room.is_exiting = True
            self._resume(self._work_exit(room, decision.exit.side, decision.exit.price, decision.exit.count))
        due = [d for d in (decision.wake_at, *room.holds_until.values()) if d is not None]
        if due:
            at = max(min(due), self.now + LEAST_REST)
            if not room.wake_at or at < room.wake_at:
                room.wake_at = at
                self._later(at - self.now, lambda: self._wake(room))

    def _wake(self, room: Room) -> None:
        if room.wake_at <= self.now:
            room.wake_at = 0
        self._dirty[room.place] = room

    async def _work_side(self, room: Room, side: Side, commands: tuple[Command, ...]) -> None:
        for command in commands:
            self.watcher.on_command(room, command, self.now)
            await self._execute(room, command)
        room.busy[side] = False
        self._dirty[room.place] = room

    async def _execute(self, room: Room, command: Command) -> None:
        """As `mm.tasks.quoter` does; a test holds the two together."""
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
        room.maker.exit_sent(self.now)
        self.watcher.on_exit(room, order, self.now)
        await self._settle(room, order, await self.desk.place(order), "exit")
        room.is_exiting = False
        self._dirty[room.place] = room

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
                self.desk.on_report(await self._wire.order(_ref(order.order_id, room.ticker)))
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
        room.holds_until["refused"] = Micros(self.now + round(seconds * SECOND))

    def _refused(self, what: str) -> None:
        self.refusals[what] = self.refusals.get(what, 0) + 1

    # --- requests on their way ---

    def _resume(self, work: Coroutine[Any, Any, None], answer: Any = None, *, error: Any = None) -> None:
        """Let one piece of work go on until its next request, which is then on its way."""
        try:
            call = work.send(answer) if error is None else work.throw(error)
        except StopIteration:
            return
        latency = self.options.latency
        travel = latency.feed + latency.order
        if latency.jitter:
            travel += int(self._chance.random() * latency.jitter)
        self._later(travel, lambda: self._arrive(work, call))

    def _arrive(self, work: Coroutine[Any, Any, None], call: Callable[[Micros], Any]) -> None:
        answer: Any = None
        refused: ExchangeError | None = None
        try:
            answer = call(self.now)
        except ExchangeError as error:
            refused = error
        self._deliver()
        back = self.options.latency.back
        if back:
            self._later(back, lambda: self._resume(work, answer, error=refused))
        else:
            self._resume(work, answer, error=refused)


def _urgency(commands: Sequence[Command]) -> int:
    """The order in which the write scheduler would let them go, tokens being there."""
    return min((_urgency_of(command) for command in commands), default=Urgency.RENEW)


def _urgency_of(command: Command) -> Urgency:
    if isinstance(command, Cancel):
        return Urgency.EXIT if command.is_urgent else Urgency.CANCEL
    if isinstance(command, Decrease):
        return Urgency.EXIT
    is_new = isinstance(command, Place) and not command.is_replacement
    return Urgency.NEW_QUOTE if is_new else Urgency.REQUOTE


def _ref(order_id: Any, ticker: MarketTicker) -> OrderRef:
    return OrderRef(order_id=order_id, ticker=ticker, exchange_index=0)

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
import random
from collections.abc import Callable
from typing import Any, Final

import attrs

from mm.domain.commands import FlattenReason
from mm.domain.errors import InvariantError
from mm.domain.fill import Fill
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import eastern_date, event_of
from mm.engine.limits import DailyLoss, PortfolioMae
from mm.engine.quoter import Decision
from mm.exchange.paper.account import PaperAccount
from mm.exchange.paper.core import PaperCore
from mm.exchange.port import OrderReport
from mm.research.errands import Agenda, Errands, make_desk, ref_of, urgency
from mm.research.fills import model_market
from mm.research.options import BacktestOptions
from mm.research.room import Room, Watcher
from mm.research.tape import Tape, TapeMarket
from mm.tasks.desk import OrderDesk
from mm.tasks.floor import Floor
from mm.tasks.positions import Positions

CASH: Final = Money(10**18)
"""Enough: the back-test asks whether quotes make money, not whether we can afford them."""
MONITOR_EVERY: Final = Micros(SECOND)
LEAST_REST: Final = Micros(1_000)
"""A quoter never looks again sooner than this by itself."""


@attrs.define(eq=False)
class Backtest:
    """One run over one tape. `run` once."""

    tape: Tape
    options: BacktestOptions
    watcher: Watcher = attrs.field(factory=Watcher)
    agenda: Agenda = attrs.field(factory=Agenda)
    rooms: list[Room] = attrs.field(factory=list)
    by_ticker: dict[MarketTicker, Room] = attrs.field(factory=dict)
    core: PaperCore = attrs.field(init=False)
    floor: Floor = attrs.field(init=False)
    desk: OrderDesk = attrs.field(init=False)
    mae: PortfolioMae = attrs.field(init=False)
    loss: DailyLoss = attrs.field(init=False)
    errands: Errands = attrs.field(init=False)
    decisions: int = 0
    _dirty: dict[int, Room] = attrs.field(factory=dict)
    _is_watching: bool = False

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.core = PaperCore(f"backtest{options.seed}", PaperAccount(CASH), is_listened=True)
        self.floor = Floor(parameters=options.parameters, clock=self._clock, positions=Positions())
        self.floor.is_feed_up = True
        self.desk = self.floor.desk = make_desk(self.core, self._clock, self._order_changed)
        self.errands = Errands(
            desk=self.desk,
            agenda=self.agenda,
            latency=options.latency,
            chance=random.Random(f"{options.seed}/latency"),  # noqa: S311 - repeatable on purpose
            watcher=self.watcher,
            mark=self._mark,
            deliver=self._deliver,
        )
        self.mae = PortfolioMae(options.parameters)
        self.loss = DailyLoss(options.parameters.daily_loss_limit)
        for place, info in enumerate(self.tape.markets):
            self._open(place, info)

    @property
    def now(self) -> Micros:
        """The present moment: nothing later is known to anybody."""
        return self.agenda.now

    def _clock(self) -> Micros:
        return self.agenda.now

    def _mark(self, room: Room) -> None:
        self._dirty[room.place] = room

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
        agenda, heap = self.agenda, self.agenda.heap
        while heap and heap[0][0] <= at:
            moment = heap[0][0]
            if moment > agenda.now:
                self.watcher.on_time(Micros(moment))
                agenda.now = Micros(moment)
            while heap and heap[0][0] == moment:  # what arrives together is seen together
                heapq.heappop(heap)[2]()
            self._finish_read()
        if at > agenda.now:
            self.watcher.on_time(Micros(at))
            agenda.now = Micros(at)

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
            trade = room.paper.print_of(room.ticker, price, count, kind == 5, ts, self.agenda.next_number())
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
                self.core.cancel(ref_of(order.order_id, room.ticker), self.now)
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
                    self.agenda.later(MONITOR_EVERY, self._monitor)
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
            self.agenda.later(MONITOR_EVERY, self._monitor)

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
        for side, plan in sorted(plans, key=lambda item: urgency(item[1].commands)):
            if not plan.commands:
                continue
            room.maker.plan_sent(side, plan, self.now)
            self.errands.send(room, side, plan.commands)
            # What was just sent counts against the limits, and may move the churn brake: decide anew.
            self._dirty[room.place] = room
            return
        if decision.exit is not None and not room.is_exiting:
            self.errands.send_exit(room, decision.exit.side, decision.exit.price, decision.exit.count)
        due = [d for d in (decision.wake_at, *room.holds_until.values()) if d is not None]
        if due:
            at = max(min(due), self.now + LEAST_REST)
            if not room.wake_at or at < room.wake_at:
                room.wake_at = at
                self.agenda.later(at - self.now, lambda: self._wake(room))

    def _wake(self, room: Room) -> None:
        if room.wake_at <= self.now:
            room.wake_at = 0
        self._dirty[room.place] = room

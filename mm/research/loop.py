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

from mm.domain.book import Level
from mm.domain.errors import InvariantError
from mm.domain.fill import Fill
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import event_of
from mm.engine.quoter import Decision
from mm.exchange.paper.account import PaperAccount
from mm.exchange.paper.core import PaperCore
from mm.exchange.port import OrderReport
from mm.research.errands import Agenda, Errands, make_desk, ref_of, urgency
from mm.research.fills import model_market
from mm.research.options import BacktestOptions
from mm.research.overall import Overall
from mm.research.quiet import Quiet, quiet_after
from mm.research.room import Room, Watcher
from mm.research.tape import Kind, Tape, TapeMarket
from mm.tasks.desk import OrderDesk
from mm.tasks.floor import Floor
from mm.tasks.positions import Positions

CASH: Final = Money(10**18)
"""Enough: the back-test asks whether quotes make money, not whether we can afford them."""
CHUNK: Final = 8_192
"""Rows between two reports of progress."""
_STATUS: Final = {
    Kind.CLOSE: MarketStatus.CLOSED,
    Kind.PAUSE: MarketStatus.INACTIVE,
    Kind.RESUME: MarketStatus.ACTIVE,
}
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
    overall: Overall = attrs.field(init=False)
    errands: Errands = attrs.field(init=False)
    decisions: int = 0
    _dirty: dict[int, Room] = attrs.field(factory=dict)
    _is_tight: bool = False
    """A limit over all markets may hold some quote back: every change is looked at then."""
    _levels: tuple[list[Level], list[Level]] = attrs.field(factory=lambda: ([], []))
    _levels_left: int = 0

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.core = PaperCore(f"backtest{options.seed}", PaperAccount(CASH), is_listened=True)
        self.floor = Floor(
            parameters=options.parameters,
            clock=self._clock,
            positions=Positions(),
            strategies=options.strategies,
        )
        self.floor.is_feed_up = True
        self.desk = self.floor.desk = make_desk(self.core, self._clock, self._order_changed)
        self.desk.check = self.floor.exposure.refuse  # as the session does
        self.errands = Errands(
            desk=self.desk,
            agenda=self.agenda,
            latency=options.latency,
            chance=random.Random(f"{options.seed}/latency"),  # noqa: S311 - repeatable on purpose
            watcher=self.watcher,
            mark=self._mark,
            deliver=self._deliver,
        )
        self.overall = Overall(
            floor=self.floor,
            agenda=self.agenda,
            rooms=self.by_ticker,
            mark=self._mark,
        )
        for place, info in enumerate(self.tape.markets):
            self._open(place, info)
        for room in self.rooms:
            event = room.info.event
            room.sisters = [r for r in self.rooms if r is not room and event and r.info.event == event]

    @property
    def now(self) -> Micros:
        """The present moment: nothing later is known to anybody."""
        return self.agenda.now

    def _clock(self) -> Micros:
        return self.agenda.now

    def _mark(self, room: Room) -> None:
        """Something of ours changed, or time has come: the engine has to be asked."""
        room.quiet = None
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
        self.floor.exposure.know_market(info.ticker)
        room = Room(place, info, paper, self.floor.add_market(market))
        room.maker.context.fees = info.fees
        self.rooms.append(room)
        self.by_ticker[info.ticker] = room

    # --- the loop ---

    def run(self, on_progress: Callable[[int], None] | None = None) -> None:
        """Go over the whole tape. `on_progress` is told the row now and then.

        Raises `InvariantError` when the tape goes back in time, `BookOutOfSync` when it does not fit itself.
        """
        rows = len(self.tape)
        for begin in range(0, rows, CHUNK):
            self._fold(begin, min(begin + CHUNK, rows))
            if on_progress is not None:
                on_progress(min(begin + CHUNK, rows))
        self._finish_read()

    def _fold(self, begin: int, end: int) -> None:
        """Some rows. What plainly concerns nobody but the book is done here, without a call; the rest is `_delta`'s."""
        tape, rooms, dirty, watcher = self.tape, self.rooms, self._dirty, self.watcher
        agenda, heap = self.agenda, self.agenda.heap
        now = agenda.now
        columns = (column[begin:end] for column in (tape.at, tape.kind, tape.market, tape.price, tape.count))
        for row, (at, kind, place, price, count) in enumerate(zip(*columns, strict=True), begin):
            if at != now:
                if dirty or at < now or at >= watcher.due or (heap and heap[0][0] <= at):
                    self._advance(at)
                agenda.now = now = Micros(at)
            room = rooms[place]
            if kind == 3:
                lane, book = room.bids, room.book
                best = book.best_bid
                if (
                    best is None
                    or price in lane.hot
                    or price >= lane.meets
                    or (price == best and price < lane.mine)
                ):
                    self._delta(room, Side.BID, price, count)
                    continue
                levels = book.bids
                left = levels.get(price, 0) + count
                if left > 0:
                    levels[price] = left
                    if price > best:
                        book.best_bid = price
                        dirty[place] = room
                elif left or not book.is_synced:
                    self._delta(room, Side.BID, price, count)
                else:
                    levels.pop(price, None)
                    if price == best:
                        book.best_bid = max(levels, default=None)
                        dirty[place] = room
            elif kind == 4:
                lane, book = room.asks, room.book
                best = book.best_ask
                if (
                    best is None
                    or price in lane.hot
                    or price <= lane.meets
                    or (price == best and price > lane.mine)
                ):
                    self._delta(room, Side.ASK, price, count)
                    continue
                levels = book.asks
                left = levels.get(price, 0) + count
                if left > 0:
                    levels[price] = left
                    if price < best:
                        book.best_ask = price
                        dirty[place] = room
                elif left or not book.is_synced:
                    self._delta(room, Side.ASK, price, count)
                else:
                    levels.pop(price, None)
                    if price == best:
                        book.best_ask = min(levels, default=None)
                        dirty[place] = room
            elif kind <= 2:
                self._level(room, kind, price, count)
            else:
                self._other(room, kind, Price(price), Count(count), Micros(tape.ts[row]))

    def _level(self, room: Room, kind: int, price: int, count: int) -> None:
        """A row of a snapshot; with its last one the book is there."""
        if kind == Kind.SNAPSHOT:
            self._levels_left, self._levels = count, ([], [])
        else:
            self._levels[kind - 1].append((Price(price), Count(count)))
            self._levels_left -= 1
        if not self._levels_left:
            self._snapshot(room, *self._levels)

    def _advance(self, at: int) -> None:
        """Finish what was read, and let everything happen that is due before `at` or at it."""
        agenda, heap, watcher = self.agenda, self.agenda.heap, self.watcher
        if at < agenda.now:
            raise InvariantError(f"the tape goes back in time: {at} after {agenda.now}")
        self._finish_read()
        while heap and heap[0][0] <= at:
            moment = heap[0][0]
            if moment > agenda.now:
                if moment >= watcher.due:
                    watcher.on_time(Micros(moment))
                agenda.now = Micros(moment)
            while heap and heap[0][0] == moment:  # what arrives together is seen together
                heapq.heappop(heap)[2]()
            self._finish_read()
        if at >= watcher.due:
            watcher.on_time(Micros(at))
        agenda.now = Micros(at)

    def _finish_read(self) -> None:
        """Decide once for every market that changed, where the last decision may not stand."""
        dirty, options = self._dirty, self.options
        if options.decide_always:
            for room in self.rooms:
                if not room.is_over:
                    self._mark(room)
        if dirty and self.overall.rests_since:
            self.overall.watch_again()
        while dirty:
            marked = list(dirty.values())
            dirty.clear()
            asked = [room for room in marked if not room.is_over and not self._stands(room)]
            if options.decides_nothing:
                continue
            if len(asked) > 1 and any(room.sisters for room in asked):
                # All decide before the first write is let go, and that one by its urgency: what it leaves the sisters
                # is seen when they look again just before they send.
                asked.sort(key=lambda room: self._most_urgent(self._look(room)))
            for room in asked:
                self._decide(room)

    def _stands(self, room: Room) -> bool:
        """Note the mid; whether the engine, asked now, would say what it said last."""
        book = room.book
        bid, ask = book.best_bid, book.best_ask
        if bid is None or ask is None or bid >= ask or not book.is_synced:
            room.twice_mid = None
            return False
        room.twice_mid = room.last_twice_mid = bid + ask
        quiet = room.quiet
        return quiet is not None and not self._is_tight and quiet.stands(bid, ask, room.average)

    @staticmethod
    def _most_urgent(decision: Decision) -> int:
        return min(urgency(decision.plan(side).commands) for side in Side)

    # --- what the tape says ---

    def _delta(self, room: Room, side: Side, price: int, change: int) -> None:
        """A change of a level that may concern our orders."""
        paper, book = room.paper, room.book
        lane = room.bids if side is Side.BID else room.asks
        before = book.best_bid if side is Side.BID else book.best_ask
        done = paper.delta(side, Price(price), Count(change), self.agenda.now)
        if done:
            self._executed(room, done)
        elif price in lane.hot and price not in room.own_prices:
            room.refresh()
        after = book.best_bid if side is Side.BID else book.best_ask
        if after != before or room.sees_depth or (room.quiet is None and price in room.own_prices):
            self._dirty[room.place] = room

    def _snapshot(self, room: Room, bids: list[Level], asks: list[Level]) -> None:
        self._executed(room, room.paper.snapshot(bids, asks))
        room.refresh()
        self._dirty[room.place] = room

    def _other(self, room: Room, kind: int, price: Price, count: Count, ts: Micros) -> None:
        if kind in (Kind.BOUGHT, Kind.SOLD):
            bought = kind == Kind.BOUGHT
            trade = room.paper.print_of(room.ticker, price, count, bought, ts, self.agenda.next_number())
            self._executed(room, room.paper.trade(trade, self.now))
            room.maker.on_trade(trade)
            room.average = room.maker.mid.mark
            room.refresh()
        elif kind == Kind.LAST_PRICE:
            if not room.info.has_trades:
                room.maker.mid.feed(price)
                room.average = room.maker.mid.mark
        elif kind == Kind.STALE:
            room.paper.mark_out_of_sync()
            room.quiet = None
        else:
            self._change_status(room, _STATUS[Kind(kind)])
            room.quiet = None
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
                self._ours_changed(room)
                self.watcher.on_fill(room, event)
                self.overall.watch()
            elif isinstance(event, OrderReport):
                self.desk.on_report(event)
                room = self.by_ticker[event.ticker]
                self._mark(room)
                room.refresh()

    def _order_changed(self, ticker: MarketTicker) -> None:
        self.floor.update_exposure(ticker)
        self._ours_changed(self.by_ticker[ticker])

    def _ours_changed(self, room: Room) -> None:
        """An order or the position of a market: it and its sisters are to be looked at."""
        self._is_tight = self.overall.may_bind
        room.own_prices = frozenset(o.price for o in self.desk.of_market(room.ticker))
        room.refresh()
        self._mark(room)

        for sister in room.sisters:
            self._mark(sister)

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
            self._mark(room)
            return
        if decision.exit is not None and not room.is_exiting:
            self.errands.send_exit(room, decision.exit.side, decision.exit.price, decision.exit.count)
        if not self.options.decide_always:
            room.quiet = self._quiet(room, decision)
        due = [d for d in (decision.wake_at, *room.holds_until.values()) if d is not None]
        if due:
            at = max(min(due), self.now + LEAST_REST)
            if not room.wake_at or at < room.wake_at:
                room.wake_at = at
                self.agenda.later(at - self.now, lambda: self._wake(room, at))

    def _quiet(self, room: Room, decision: Decision) -> Quiet | None:
        if self._is_tight:
            return None
        is_roomy = self.overall.is_roomy(room.info.event)
        return quiet_after(room.maker, room.paper, room.busy, decision, self.now, is_roomy=is_roomy)

    def _wake(self, room: Room, at: int) -> None:
        if room.wake_at == at:  # else an earlier one has taken its place, and made a new appointment
            room.wake_at = 0
            self._mark(room)

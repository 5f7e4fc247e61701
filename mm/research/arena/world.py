"""One night: the exchange's core with its traders, and the bot's engine, floor and desk beside it, on one agenda.

What the exchange does at T reaches us at T + `feed`; what we send at T reaches it at T + `order`, and the answer is back
`feed` after that. Writes are granted as the live scheduler grants them, out of the tier's bucket: by urgency, then by value
at risk a token; when the grant comes, the engine is asked again.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, cast

import attrs

from mm.domain.commands import Amend, Cancel, Command, Decrease, FlattenReason, Place
from mm.domain.errors import InvariantError
from mm.domain.fees import FeeSchedule
from mm.domain.fill import Fill, Liquidity, Trade
from mm.domain.game import GameState, GameStatus
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side, TimeInForce
from mm.engine.goals.sport import Sport
from mm.engine.limits import PortfolioMae
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.engine.strategies.registry import StrategyTable
from mm.engine.throttle import TokenBucket
from mm.exchange.embedded.core.events import BookDelta, CoreEvent, FillReported, OrderUpdated, TradePrinted
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.slate.games import Phase
from mm.exchange.embedded.slate.generated import GeneratedSlate
from mm.exchange.embedded.slate.goals import MEASURED, GoalBehaviour
from mm.exchange.embedded.slate.live import LiveGame
from mm.exchange.port import (
    Exchange,
    ExchangeError,
)
from mm.research.arena.measure import HORIZONS, Meter
from mm.research.arena.nights import GAMES, WINDOW_S, Clock, open_night, start_of
from mm.research.arena.wire import BASIC, CASH, RESERVE, USER, ArenaDesk, NoRecorder, Wire
from mm.tasks.budget import Ticket, WriteBudget
from mm.tasks.desk import OrderDesk, Outcome, Verdict
from mm.tasks.floor import Floor
from mm.tasks.goals import GoalKeeper
from mm.tasks.positions import Positions
from mm.tasks.quoter import REFUSED_REST_S, is_post_only_cross
from mm.tasks.tickets import cost_of, ticket_for

SCOREBOARD_EVERY: Final = Micros(5 * SECOND)
SCOREBOARD_LAG: Final = Micros(8 * SECOND)
"""How old what the scoreboard says is: nobody has measured the real one's."""
LEAST_REST: Final = Micros(1_000)


@attrs.frozen(kw_only=True)
class ArenaOptions:
    """What a night is played with."""

    strategies: StrategyTable = attrs.field(factory=StrategyTable)
    parameters: StrategyParameters = attrs.field(
        factory=lambda: StrategyParameters(markets_per_game=2, max_markets_to_trade=2 * GAMES)
    )
    sport: Sport | None = None
    """With it the goal guard is on."""
    is_quoting: bool = True
    behaviour: GoalBehaviour = MEASURED
    feed: Micros = Micros(20_000)
    order: Micros = Micros(30_000)
    games: int = GAMES
    window_s: float = WINDOW_S


@attrs.define(eq=False)
class _Lane:
    """One side of one market: a ticket that waits, or a write on its way."""

    ticket: Ticket | None = None
    is_busy: bool = False
    rest_until: Micros = Micros(0)


@attrs.define(eq=False)
class _Room:
    """One quoted market."""

    maker: MarketMaker
    lanes: dict[Side, _Lane] = attrs.field(factory=lambda: {Side.BID: _Lane(), Side.ASK: _Lane()})
    is_exiting: bool = False
    wake_at: int = 0
    held_until: Micros = Micros(0)


@attrs.define(eq=False)
class Night:
    """One night with one strategy. `play` once."""

    seed: int
    options: ArenaOptions = attrs.field(factory=ArenaOptions)
    now: Micros = attrs.field(init=False)
    core: ExchangeCore = attrs.field(init=False)
    slate: GeneratedSlate = attrs.field(init=False)
    floor: Floor = attrs.field(init=False)
    desk: OrderDesk = attrs.field(init=False)
    meter: Meter = attrs.field(init=False)
    keeper: GoalKeeper | None = None
    mae: PortfolioMae = attrs.field(init=False)
    refusals: Counter[str] = attrs.field(factory=Counter)
    decisions: int = 0
    bucket: TokenBucket = attrs.field(init=False)
    _driver: Clock = attrs.field(init=False)
    _rooms: dict[MarketTicker, _Room] = attrs.field(factory=dict)
    _heap: list[tuple[int, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))
    _told: list[CoreEvent] = attrs.field(factory=list)
    """What the exchange did in this moment."""
    _is_listed: bool = False
    _grant_at: int = 0
    _orders: int = 0

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.now = start_of(self.seed)
        ids = (f"{self.seed}-{n}" for n in itertools.count(1))
        self.core = ExchangeCore(Rules(), lambda: next(ids), self._emit)
        self.core.add_user(USER)
        self.core.deposit(self.now, USER, 0, CASH)
        self.meter = Meter(core=self.core, user=USER)
        self.floor = Floor(
            parameters=options.parameters,
            clock=lambda: self.now,
            positions=Positions(),
            strategies=options.strategies,
        )
        self.floor.is_feed_up = True
        self.desk = self.floor.desk = ArenaDesk(
            cast("Exchange", Wire(self.core)),
            NoRecorder(),
            cast("WriteBudget", None),
            lambda: self.now,
            self._order_changed,
            check=self.floor.exposure.refuse,
        )
        self.mae = PortfolioMae(options.parameters)
        self.bucket = TokenBucket(
            BASIC.write.refill_per_s, BASIC.write.capacity, BASIC.write.capacity, self.now
        )
        self._driver = Clock(self.core, self.now)
        self.slate = open_night(self.seed, self._driver, options.behaviour, lambda: None, games=options.games)
        self._told.clear()
        self._is_listed = True
        if options.sport is not None:
            sports = dict.fromkeys(options.sport.series, options.sport)
            self.keeper = GoalKeeper(floor=self.floor, sports=sports)

    def play(self) -> list[dict[str, Any]]:
        """From the beginning of the windows to their end; the results, game by game."""
        end = Micros(self.now + round(self.options.window_s * SECOND))
        for game in self.slate.games:
            note = self.meter.follow(game)
            for moment in self.meter.goals_ahead(note, end):
                self._at(moment, lambda note=note, moment=moment: self.meter.goal(note, moment))  # type: ignore[misc]
            if self.options.is_quoting:
                self._take(game)
                if self.keeper is not None:
                    self._scoreboard(game)
        if self.options.is_quoting:
            self._at(self.now + SECOND, self._monitor)
        self._finish_read()
        while True:
            due = self.slate.agenda.next_due
            due_at = min(due if due is not None else end, self._heap[0][0] if self._heap else end)
            if due_at >= end:
                break
            self.now = Micros(max(self.now, due_at))
            self._driver.now = self.now
            # A goal is noted before the traders hear of it.
            while self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
            self.slate.work(self.now, 1_000)
            self._send_on()
            self._finish_read()
        return self.meter.results(end)

    # --- the agenda ---

    def _at(self, moment: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (moment, next(self._numbers), act))

    def _emit(self, event: CoreEvent) -> None:
        if not self._is_listed:
            return
        if isinstance(event, OrderUpdated):
            self.meter.order(event, self.now)
        elif isinstance(event, FillReported):
            self.meter.fill(event.fill)
            if not event.fill.is_taker:
                for horizon in HORIZONS:
                    self._at(
                        event.fill.ts + horizon * SECOND,
                        lambda fill=event.fill, h=horizon: self.meter.mark(fill, h),  # type: ignore[misc]
                    )
        if self.options.is_quoting:
            self._told.append(event)

    def _send_on(self) -> None:
        """What the exchange did goes on its way to us."""
        if self._told:
            told, self._told = self._told, []
            self._at(self.now + self.options.feed, lambda: self._hear(told))

    # --- the feed ---

    def _take(self, game: LiveGame) -> None:
        tickers = [line.ticker for line in game.listing.lines]
        for ticker in tickers:
            listed = self.core.markets()[ticker]
            maker = self.floor.add_market(
                Market(
                    ticker=ticker,
                    event_ticker=listed.spec.event_ticker,
                    status=MarketStatus.ACTIVE,
                    grid=listed.grid,
                    expected_expiration=listed.spec.expected_expiration_time,
                )
            )
            maker.context.fees = FeeSchedule()
            self._rooms[ticker] = _Room(maker)
            sides = {
                side: [(level.price, Count(level.total)) for level in listed.book.side(side).best_first()]
                for side in Side
            }
            self.floor.books[ticker].snapshot(sides[Side.BID], sides[Side.ASK])
            self.floor.mark(ticker)
            if self.keeper is not None:
                self.keeper.guard_of(ticker)
        event = self.core.markets()[tickers[0]].spec.event_ticker
        self.floor.exposure.know_event(event, tickers, is_mutually_exclusive=True)

    def _hear(self, told: list[CoreEvent]) -> None:
        floor, keeper = self.floor, self.keeper
        for event in told:
            if isinstance(event, BookDelta):
                book = floor.books.get(event.ticker)
                if book is None:
                    continue
                before = book.best_bid if event.side is Side.BID else book.best_ask
                book.apply_delta(event.side, event.price, event.change)
                floor.level_changed(event.ticker, event.side, event.price, event.change, before)
                if keeper is not None:
                    keeper.on_change(event.ticker, event.side, event.price, event.change, self.now)
            elif isinstance(event, TradePrinted):
                self._print(event)
            elif isinstance(event, FillReported):
                found = event.fill
                floor.apply_fill(
                    Fill(
                        order_id=found.order_id,
                        trade_id=found.trade_id,
                        ticker=found.ticker,
                        side=found.side,
                        price=found.price,
                        count=found.count,
                        fee=found.fee,
                        liquidity=Liquidity.TAKER if found.is_taker else Liquidity.MAKER,
                        ts=found.ts,
                        client_order_id=found.client_order_id,
                    )
                )
                self._mark_game(found.ticker)

    def _print(self, event: TradePrinted) -> None:
        told = event.trade
        maker = self.floor.makers.get(told.ticker)
        if maker is None:
            return
        trade = Trade(
            trade_id=told.trade_id,
            ticker=told.ticker,
            price=told.price,
            count=told.count,
            taker_side=told.taker_side,
            ts=told.ts,
        )
        maker.on_trade(trade)
        self.floor.mark(told.ticker)
        if self.keeper is not None:
            self.keeper.on_trade(trade, self.now)

    def _scoreboard(self, game: LiveGame) -> None:
        assert self.keeper is not None
        keeper = self.keeper
        situation = game.situation(Micros(self.now - SCOREBOARD_LAG))
        is_over = situation.phase is Phase.FINISHED
        status = GameStatus.FINISHED if is_over else GameStatus.LIVE
        is_break = situation.phase is Phase.INTERMISSION
        state = GameState(
            status=GameStatus.SCHEDULED if situation.phase is Phase.PRE_GAME else status,
            period=max(situation.period - is_break, 1),
            clock_left=Micros(0 if is_break else round(situation.clock_left * SECOND)),
            home=situation.home,
            away=situation.away,
            is_break=is_break,
            is_empty_net=situation.empty_net is not None,
            starts_at=game.start,
            seen_at=self.now,
        )
        keeper.on_game(game.listing.lines[0].ticker, state, self.now)
        self._at(self.now + SCOREBOARD_EVERY, lambda: self._scoreboard(game))

    # --- decisions ---

    def _order_changed(self, ticker: MarketTicker) -> None:
        self.floor.update_exposure(ticker)
        self._mark_game(ticker)

    def _mark_game(self, ticker: MarketTicker) -> None:
        for changed in (ticker, *self.floor.exposure.siblings(ticker)):
            self.floor.mark(changed)

    def _finish_read(self) -> None:
        floor = self.floor
        if floor.unseen:
            if floor.is_tight:
                floor.dirty.update(floor.unseen)
            floor.unseen.clear()
        if self.keeper is not None:
            self.keeper.look(self.now)
            due = self.keeper.wake_at
            if due is not None and due > self.now:
                self._at(due, lambda: None)
        while floor.dirty:
            marked, floor.dirty = floor.dirty, {}
            for ticker in marked:
                self._decide(self._rooms[ticker])
            self._grant()

    def _decide(self, room: _Room) -> None:
        if room.held_until and room.held_until <= self.now:
            room.held_until = Micros(0)
            room.maker.holds.pop("refused", None)
        self.decisions += 1
        decision = room.maker.decide(self.now)
        room.maker.take_triggers()
        for side, lane in room.lanes.items():
            plan = decision.plan(side)
            if lane.is_busy or lane.rest_until > self.now or not plan.commands:
                lane.ticket = None
                continue
            fresh = ticket_for(plan, room.maker, self.desk, BASIC)
            asked = lane.ticket
            fresh.serial = asked.serial if asked is not None else next(self._numbers)
            fresh.asked_at = asked.asked_at if asked is not None else self.now
            lane.ticket = fresh
        if decision.exit is not None and not room.is_exiting and self.bucket.take(10, self.now):
            room.is_exiting = True
            wanted = decision.exit
            self._resume(self._exit(room, wanted.side, wanted.price, wanted.count))
        elif decision.exit is not None and not room.is_exiting:
            self._wake(room, self.now + SECOND // 10)
        if decision.wake_at is not None:
            self._wake(room, max(decision.wake_at, self.now + LEAST_REST))

    def _wake(self, room: _Room, at: int) -> None:
        if room.wake_at <= self.now or at < room.wake_at:
            room.wake_at = at
            self._at(at, lambda: self.floor.mark(room.maker.market.ticker))

    def _grant(self) -> None:
        """Let writes go while there are tokens, the most urgent first."""
        while True:
            waiting = [
                (lane.ticket.rank, room, side)
                for room in self._rooms.values()
                for side, lane in room.lanes.items()
                if lane.ticket is not None
            ]
            if not waiting:
                return
            _, room, side = min(waiting, key=lambda entry: entry[0])
            lane = room.lanes[side]
            ticket = lane.ticket
            assert ticket is not None
            if not self.bucket.take(ticket.cost, self.now, keep=RESERVE):
                wait = self.bucket.wait_s(ticket.cost, self.now, keep=RESERVE)
                at = self.now + int(wait * SECOND) + 1
                if self._grant_at <= self.now or at < self._grant_at:
                    self._grant_at = at
                    self._at(at, partial(self.floor.mark, room.maker.market.ticker))
                return
            lane.ticket = None
            plan = room.maker.decide(self.now).plan(side)
            cost = sum(cost_of(command, BASIC) for command in plan.commands)
            if not plan.commands or cost > ticket.cost:
                self.bucket.give_back(ticket.cost)
                continue
            self.bucket.give_back(ticket.cost - cost)
            room.maker.plan_sent(side, plan, self.now)
            lane.is_busy = True
            self._resume(self._work(room, side, plan.commands))

    def _monitor(self) -> None:
        """The limit over all markets on adverse excursion, as the live monitor keeps it."""
        floor = self.floor
        at_risk: dict[MarketTicker, tuple[Count, Money]] = {}
        for ticker, maker in floor.makers.items():
            inventory, mark = floor.inventory(ticker), maker.mark
            if not inventory.is_flat and mark is not None:
                at_risk[ticker] = (inventory.net, inventory.mae_value(mark))
        was_tripped = self.mae.is_tripped
        verdict = self.mae.observe(at_risk, self.now)
        if verdict.just_tripped:
            floor.hold_all("portfolio", "portfolio MAE limit")
        elif was_tripped and not verdict.is_tripped:
            floor.lift_all("portfolio")
        for ticker in verdict.flatten:
            floor.makers[ticker].flatten(FlattenReason.PORTFOLIO_MAE)
        if verdict.is_tripped or was_tripped:
            for ticker in floor.makers:
                floor.mark(ticker)
        self._at(self.now + SECOND, self._monitor)

    # --- writes ---

    def _resume(
        self, work: Coroutine[Any, Any, None], answer: Any = None, *, error: ExchangeError | None = None
    ) -> None:
        """Let one piece of work go on until its next request, which is then on its way."""
        try:
            call = work.send(answer) if error is None else work.throw(error)
        except StopIteration:
            return
        self._at(self.now + self.options.order, lambda: self._arrive(work, call))

    def _arrive(self, work: Coroutine[Any, Any, None], call: Callable[[Micros], Any]) -> None:
        answer: Any = None
        refused: ExchangeError | None = None
        try:
            answer = call(self.now)
        except ExchangeError as error:
            refused = error
        self._send_on()
        self._at(self.now + self.options.feed, lambda: self._resume(work, answer, error=refused))

    async def _work(self, room: _Room, side: Side, commands: tuple[Command, ...]) -> None:
        for command in commands:
            await self._execute(room, command)
        room.lanes[side].is_busy = False
        self.floor.mark(room.maker.market.ticker)

    async def _execute(self, room: _Room, command: Command) -> None:
        desk = self.desk
        if isinstance(command, Place):
            order = self._order(room, command.side, command.price, command.count)
            self._settle(room, order, await desk.place(order), "create")
            return
        if not isinstance(command, Cancel | Amend | Decrease):
            raise InvariantError(f"cannot execute {command!r}")
        found = desk.live.get(command.client_order_id)
        if found is None or found.order_id is None:
            return
        if isinstance(command, Cancel):
            if found.state in (OrderState.RESTING, OrderState.AMENDING):
                self._settle(room, found, await desk.cancel(found), "cancel")
        elif found.state is not OrderState.RESTING:
            return
        elif isinstance(command, Amend):
            total = Count(found.filled + command.leaves)
            outcome = await desk.amend(found, price=command.price, count=total, expires_at=None)
            self._settle(room, found, outcome, "amend")
        else:
            outcome = await desk.decrease(found, reduce_to=command.leaves)
            self._settle(room, found, outcome, "decrease")

    async def _exit(self, room: _Room, side: Side, price: Price, count: Count) -> None:
        order = self._order(room, side, price, count)
        order.time_in_force, order.post_only, order.reduce_only = TimeInForce.IOC, False, True
        room.maker.exit_sent(self.now)
        self._settle(room, order, await self.desk.place(order), "exit")
        room.is_exiting = False
        self.floor.mark(room.maker.market.ticker)

    def _order(self, room: _Room, side: Side, price: Price, count: Count) -> Order:
        self._orders += 1
        return Order(
            client_order_id=ClientOrderId(f"mm-arena-{self._orders}"),
            ticker=room.maker.market.ticker,
            side=side,
            price=price,
            count=count,
        )

    def _settle(self, room: _Room, order: Order, outcome: Outcome, what: str) -> None:
        if outcome.verdict is Verdict.DONE:
            return
        if outcome.verdict in (Verdict.UNKNOWN, Verdict.CHECK):
            self._look_up(order)
            return
        error = outcome.error
        if error is not None and is_post_only_cross(error):
            self.refusals["post only cross"] += 1
            return
        code = error.code or str(error) if error is not None else "refused"
        self.refusals[f"{what}: {code}"] += 1
        if what == "exit":
            room.maker.exit_refused()
        room.maker.holds["refused"] = f"{what} refused: {code}"
        room.held_until = Micros(self.now + round(REFUSED_REST_S * SECOND))
        self._wake(room, room.held_until)

    def _look_up(self, order: Order) -> None:
        """404: it was filled before our write came. The core knows at once."""
        assert order.order_id is not None
        found = self.core.order(USER, OrderId(order.order_id))
        if found is None:
            raise InvariantError(f"the exchange does not know {order.order_id}")
        self.desk.gone(order, filled=found.filled)

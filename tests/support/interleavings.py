"""Every order in which the world can answer one order of ours, to a depth: the real quoter, desk, resolver, reconciler.

A word says what the world does, a letter at a time, each when the bot has nothing left to do:

    A accepted     the write on the wire is executed and answered
    R rejected     it is refused, definitely
    E executed     it (or one whose answer was lost less than 4 s ago) is executed; no answer yet
    F filled       somebody trades with the order that rests: a part first, then the rest
    C cancelled    the exchange takes it off by itself
    L lost         the answer is lost; what has not been executed may still be, later (E)
    G lagging      from now on reads are two seconds old
    T retry        time passes until the bot asks or writes again, 3.2 s at most

Letters that can do nothing at a place (a fill while nothing rests) are left out there, so words that differ in them alone are
played once. After the word the world is honest: what is on the wire is answered, what is lost stays lost, reads are fresh.
Six variants: the bot wants the order to stay, to go, or to stand elsewhere, each with the socket telling and silent.

Demanded, at every letter and at the end: never two orders of ours on a side, never two under one id, fills counted once,
what may still move our position never above what we count; at the end what is wanted rests (stuck 0), and no order
is or was UNKNOWN for longer than the bound.
"""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
import trio
import trio.testing

from fake_exchange import Call, FakeExchange
from mm.domain.market import Series
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import MarketTicker, Order, OrderState, Side
from mm.engine.parameters import StrategyParameters
from mm.exchange.port import ExchangeRejected, OrderReport, OutcomeUnknown
from mm.ledger import Ledger
from mm.tasks.quoter import Quoter
from task_rig import TaskRig

T = TypeVar("T")

LETTERS: Final = "AREFCLGT"
DEPTH: Final = 6
HELD: Final = frozenset({"place", "amend", "cancel"})
ASKS: Final = HELD | {"order", "orders_page"}
"""Calls that end a T."""
DEADLINE_S: Final = 4.0
"""A request that is not answered by then is given up by the adapter; what was sent may land until then."""
LAG_S: Final = 2.0
TURN_S: Final = 3.2
HEALED_WITHIN_S: Final = 45.0
"""From the end of the word; refused writes rest for up to 15 s."""
UNKNOWN_BOUND_S: Final = 10.0
"""Five seconds until a read proves something whatever the exchange says of its age, and the waiting between two looks."""
BID = Side.BID
_IDS: "itertools.count[int]" = itertools.count(1)


@attrs.define(eq=False)
class Flight:
    """A write of the bot on its way."""

    name: str
    work: Callable[[], Any]
    sent_at: float
    done: trio.Event = attrs.field(factory=trio.Event)
    is_executed: bool = False
    error: Exception | None = None
    result: Any = None

    def execute(self) -> None:
        """The exchange does it, with whatever comes of it."""
        self.is_executed = True
        try:
            self.result = self.work()
        except Exception as exc:  # noqa: BLE001 - handed to the caller, who waits for it
            self.error = exc


@attrs.define(eq=False, kw_only=True, slots=False)
class Stage(FakeExchange):
    """The fake exchange, whose writes wait for their letter."""

    is_honest: bool = False
    flights: list[Flight] = attrs.field(factory=list)
    """On the wire, not answered."""
    limbo: list[Flight] = attrs.field(factory=list)
    """Given up by the bot, not executed: may land yet."""
    asked: trio.Event = attrs.field(factory=trio.Event)

    async def _call(self, name: str, value: Any, work: Callable[[], T], **details: Any) -> T:
        if name in ASKS:
            self.asked.set()
        if name not in HELD or self.is_honest:
            return await super()._call(name, value, work, **details)
        self.calls.append(Call(name, value, trio.current_time(), details))
        flight = Flight(name, work, trio.current_time())
        self.flights.append(flight)
        with trio.move_on_after(DEADLINE_S):
            await flight.done.wait()
        if flight in self.flights:
            self.lose(flight)
        if flight.error is not None:
            raise flight.error
        return flight.result  # type: ignore[no-any-return]

    def lose(self, flight: Flight) -> None:
        """Its answer never comes."""
        self.flights.remove(flight)
        if not flight.is_executed:
            self.limbo.append(attrs.evolve(flight, done=trio.Event()))
        flight.error = OutcomeUnknown("timed out")
        flight.done.set()

    def answer(self, flight: Flight) -> None:
        """Executed if it was not yet, and answered."""
        if not flight.is_executed:
            flight.execute()
        self.flights.remove(flight)
        flight.done.set()

    def late(self) -> list[Flight]:
        """What may still land."""
        return [flight for flight in self.limbo if trio.current_time() - flight.sent_at < DEADLINE_S]


class Wrong(Exception):
    """Something that must not be."""


@attrs.frozen
class Variant:
    """What the bot wants, and whether the socket tells it anything."""

    wish: str
    """stay, go or move."""
    is_told: bool

    def __str__(self) -> str:
        return f"{self.wish}-{'told' if self.is_told else 'silent'}"


VARIANTS: Final = tuple(Variant(wish, told) for wish in ("stay", "go", "move") for told in (True, False))


@attrs.define(eq=False)
class Run:
    """One word, played. Where it ends before the depth, the first letter that can do something goes on with it."""

    variant: Variant
    start: str
    ledger: Ledger
    number: int
    depth: int = DEPTH
    choose: Callable[[int, str], str] = lambda place, enabled: enabled[0]
    """Which letter follows at a place beyond `start`, of those that can do something."""
    word: str = ""
    """What was played."""
    rig: TaskRig = attrs.field(init=False)
    stage: Stage = attrs.field(init=False)
    quoter: Quoter = attrs.field(init=False)
    ticker: MarketTicker = attrs.field(init=False)
    enabled: list[str] = attrs.field(factory=list)
    """Before each letter: which could be played."""
    orders: dict[str, Order] = attrs.field(factory=dict)
    """Every order of ours."""
    unknown_since: dict[str, float] = attrs.field(factory=dict)
    longest_unknown: float = 0.0
    times_unknown: int = 0
    healed_after: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.ticker = MarketTicker(f"KXNHLGAME-26SEP21TORBOS-N{self.number}")
        self.stage = Stage(ids=_IDS)
        self.stage.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME")
        self.rig = TaskRig(
            exchange=self.stage,
            parameters=StrategyParameters(daily_loss_limit=None),
            quote_ttl=Micros(3_600 * SECOND),
        )
        if not self.variant.is_told:
            self.stage.sink = None
        self.rig.desk.on_change = self._changed

    # --- the bot ---

    async def play(self) -> None:
        """Play the word. Raises `Wrong`, and what the bot raises."""
        rig = self.rig
        reconciler = rig.reconciler(self.ledger)
        rig.resolver.look_up_fills = self._look_up(reconciler.pass_fills)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.writes.run)
            nursery.start_soon(reconciler.book_fills, rig.fills)
            nursery.start_soon(every, 0.75, reconciler.pass_fills)
            nursery.start_soon(every, 5.0, reconciler.compare_orders)
            self.quoter = rig.add_quoter(self.ticker)
            self.quoter.maker.market_room = lambda side, _: Count(100_000 if side is BID else 0)
            await nursery.start(self.quoter.run)
            rig.book(4_000, 6_000, self.ticker)
            await trio.testing.wait_all_tasks_blocked()
            if not self.stage.flights:
                raise Wrong("no order was sent")
            for place in range(self.depth):
                enabled = "".join(filter(self._can, LETTERS))
                letter = self.start[place] if place < len(self.start) else self.choose(place, enabled)
                self.enabled.append(enabled)
                self.word += letter
                if letter not in enabled:
                    raise Wrong(f"the letter can do nothing here, only {enabled} can")
                await self._letter(letter)
                if place == 0:
                    self._wish()
                await trio.testing.wait_all_tasks_blocked()
                self._check()
            await self._heal()
            nursery.cancel_scope.cancel()
        await self._count_fills()

    def _look_up(self, passing: Callable[[], Any]) -> Callable[[], Any]:
        async def look_up() -> None:
            await passing()

        return look_up

    def _wish(self) -> None:
        """What the bot wants changes after the first letter."""
        if self.variant.wish == "go":
            self.rig.floor.hold(self.ticker, "test", "not wanted")
        elif self.variant.wish == "move":
            self.rig.book(3_000, 5_000, self.ticker)

    def _changed(self, ticker: MarketTicker) -> None:
        self.rig.floor.order_changed(ticker)
        now = trio.current_time()
        for order in self.rig.desk.of_market(ticker):
            self.orders[order.client_order_id] = order
        for name, order in self.orders.items():
            if order.state is OrderState.UNKNOWN:
                if name not in self.unknown_since:
                    self.unknown_since[name] = now
                    self.times_unknown += 1
            elif name in self.unknown_since:
                self.longest_unknown = max(self.longest_unknown, now - self.unknown_since.pop(name))

    # --- the world ---

    def _resting(self) -> list[OrderReport]:
        return self.stage.resting(self.ticker)

    def _can(self, letter: str) -> bool:
        """Whether a letter could do anything now."""
        flights = self.stage.flights
        if letter in "AL":
            return bool(flights)
        if letter == "R":
            return any(not flight.is_executed for flight in flights)
        if letter == "E":
            return any(not flight.is_executed for flight in flights) or bool(self.stage.late())
        if letter in "FC":
            return bool(self._resting())
        if letter == "G":
            return not self.stage.read_lag
        return not flights or any(o.state is OrderState.UNKNOWN for o in self.orders.values())

    async def _letter(self, letter: str) -> None:
        stage = self.stage
        if letter == "A":
            stage.answer(stage.flights[0])
        elif letter == "L":
            stage.lose(stage.flights[0])
        elif letter == "R":
            flight = next(flight for flight in stage.flights if not flight.is_executed)
            flight.is_executed, flight.error = (
                True,
                ExchangeRejected("refused", status=400, code="invalid_order"),
            )
            stage.answer(flight)
        elif letter == "E":
            waiting = [flight for flight in stage.flights if not flight.is_executed] or stage.late()
            waiting[0].execute()
            if waiting[0] in stage.limbo:
                stage.limbo.remove(waiting[0])
        elif letter == "F":
            (order,) = self._resting()
            is_first = not order.filled
            stage.fill(order.order_id, 300 if is_first and order.remaining > 300 else order.remaining)
        elif letter == "C":
            (order,) = self._resting()
            stage.end(order.order_id, report=True)
        elif letter == "G":
            stage.read_lag = LAG_S
        else:
            stage.asked = trio.Event()
            with trio.move_on_after(TURN_S):
                await stage.asked.wait()

    async def _heal(self) -> None:
        """The world is honest from now on: everything must come right."""
        stage, began = self.stage, trio.current_time()
        stage.is_honest, stage.read_lag = True, 0.0
        for flight in list(stage.flights):
            stage.answer(flight)
        while trio.current_time() < began + HEALED_WITHIN_S:
            await trio.testing.wait_all_tasks_blocked()
            self._check()
            if self._is_well():
                self.healed_after = trio.current_time() - began
                return
            await trio.sleep(0.25)
        states = {name: order.state.value for name, order in self.orders.items()}
        raise Wrong(f"stuck: after {HEALED_WITHIN_S:g} s {states}, at the exchange {self._resting()}")

    # --- what must be ---

    def _check(self) -> None:
        resting = self._resting()
        if len(resting) > 1:
            raise Wrong(f"two orders rest: {resting}")
        for name in self.orders:
            if len(self.stage.by_client_id(name)) > 1:
                raise Wrong(f"two orders under the id {name}")
        true_net = sum(fill.signed_count for fill in self.stage.fills)
        known = self.rig.positions.net(self.ticker)
        if known > true_net:
            raise Wrong(f"counted {known} of {true_net} filled")
        at_risk = sum(order.at_risk for order in self.rig.desk.of_market(self.ticker))
        truly = true_net + sum(report.remaining for report in resting)
        if known + at_risk < truly:
            raise Wrong(f"{truly} may be held, {known} + {at_risk} are counted")
        for name, since in self.unknown_since.items():
            if trio.current_time() - since > UNKNOWN_BOUND_S:
                raise Wrong(f"{name} UNKNOWN for {trio.current_time() - since:.1f} s")

    def _is_well(self) -> bool:
        """Everything known, everything booked, and what is wanted rests."""
        desk, resting = self.rig.desk, self._resting()
        live = desk.of_market(self.ticker)
        if self.rig.positions.net(self.ticker) != sum(fill.signed_count for fill in self.stage.fills):
            return False
        if self.variant.wish == "go":
            return not resting and not live
        if len(resting) != 1 or len(live) != 1:
            return False
        (order,), (report,) = live, resting
        wanted = self.quoter.maker.last_wanted.bid
        return (
            order.state is OrderState.RESTING
            and (order.order_id, order.price, order.leaves)
            == (report.order_id, report.price, report.remaining)
            and wanted is not None
            and abs(wanted.price - order.price) < self.rig.parameters.min_requote
        )

    async def _count_fills(self) -> None:
        booked = await self.ledger.fills_of(self.ticker)
        if Counter(fill.key for fill in booked) != Counter(fill.key for fill in self.stage.fills):
            raise Wrong(f"the ledger has {len(booked)} fills, the exchange {len(self.stage.fills)}")


async def every(period_s: float, work: Callable[[], Any]) -> None:
    """Again and again."""
    while True:
        await work()
        await trio.sleep(period_s)

"""How true the queue model is: the same minutes traded on the embedded exchange for real, and on paper.

Makers and takers act by a list of intentions fixed beforehand, so that the world does not depend on us. Once it runs
without our orders, and its public feed is the tape; probes are then filled by the model on that tape. Once it runs with
the probes truly in the book, and price-time priority fills them. Both fills are compared, probe by probe.
"""

import random
from array import array
from typing import Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.grid import uniform_grid
from mm.domain.numbers import CENT, CONTRACT, SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, OrderId, Side, TimeInForce
from mm.engine.parameters import StrategyParameters
from mm.exchange.embedded.core.events import BookDelta, CoreEvent, TradePrinted
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, OrderRequest, SeriesSpec
from mm.exchange.embedded.core.rules import Refused, Rules
from mm.exchange.paper.matching import PaperOrder
from mm.research.fills import FillModel, ModelMarket, model_market
from mm.research.tape import BookSource, Kind, Tape, TapeMarket

START: Final = Micros(1_796_166_600 * SECOND)
TICKER: Final = MarketTicker("KXNHLGAME-26DEC01TORBOS-TOR")
EVENT: Final = "KXNHLGAME-26DEC01TORBOS"
MAKER, TAKER, PROBE = "maker", "taker", "probe"
PROBE_EVERY: Final = 30 * SECOND
PROBE_LIVES: Final = 25 * SECOND
PROBE_SIZE: Final = Count(10 * CONTRACT)


@attrs.frozen
class Intention:
    """What somebody does at a moment, whatever the book looks like then."""

    at: Micros
    user: str
    side: Side
    price: Price
    count: Count
    cancels: int | None = None
    """The number of an earlier maker order, taken off if it still rests."""


def intentions(seed: int, seconds: int) -> list[Intention]:
    """About 6 a second around a wandering price: 60% new orders, 25% cancels, 15% takers."""
    chance = random.Random(f"{seed}/world")  # noqa: S311 - repeatable on purpose
    found: list[Intention] = []
    at, centre = float(START), 50.0
    end = START + seconds * SECOND
    made = 0
    while at < end:
        at += chance.expovariate(6.0) * SECOND
        centre = min(max(centre + chance.gauss(0, 0.06), 15.0), 85.0)
        side = Side.BID if chance.random() < 0.5 else Side.ASK
        moment, what = Micros(round(at)), chance.random()
        if what < 0.60:
            away = chance.choice((1, 1, 1, 2, 2, 3))
            price = Price(round(centre - side.sign * (away - 0.5)) * CENT)
            found.append(Intention(moment, MAKER, side, price, Count(chance.randrange(1, 40) * CONTRACT)))
            made += 1
        elif what < 0.85 and made:
            number = made - 1 - min(int(chance.expovariate(1 / 20)), made - 1)
            found.append(Intention(moment, MAKER, side, Price(0), Count(0), number))
        else:
            price = Price(round(centre + side.sign * 4) * CENT)
            found.append(Intention(moment, TAKER, side, price, Count(chance.randrange(1, 60) * CONTRACT)))
    return found


@attrs.define(eq=False)
class World:
    """The exchange with its makers and takers, and their public feed without the probes."""

    tape: Tape
    core: ExchangeCore = attrs.field(init=False)
    now: Micros = START
    _orders: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.core = ExchangeCore(Rules(), UuidSource(7), self._on_event)
        self.core.add_series(START, SeriesSpec(ticker="KXNHLGAME"))
        self.core.add_event(START, EventSpec(ticker=EVENT, series_ticker="KXNHLGAME"))
        close = Micros(START + 86_400 * SECOND)
        self.core.add_market(
            START, MarketSpec(ticker=TICKER, event_ticker=EVENT, open_time=START, close_time=close)
        )
        for user in (MAKER, TAKER):
            self.core.add_user(user, is_house=True)
        self.core.add_user(PROBE)
        self.core.deposit(START, PROBE, 0, Money(10**12))

    def _on_event(self, event: CoreEvent) -> None:
        if isinstance(event, BookDelta) and event.user_id != PROBE:
            kind = Kind.DELTA_BID if event.side is Side.BID else Kind.DELTA_ASK
            self.tape.add(self.now, kind, 0, event.price, event.change)
        elif isinstance(event, TradePrinted):
            trade = event.trade
            self.tape.trade(self.now, 0, trade.price, trade.count, trade.taker_side, self.now)

    def act(self, intention: Intention) -> None:
        """Do it, if the exchange lets it be done."""
        self.now = intention.at
        if intention.cancels is not None:
            order_id = self._orders[intention.cancels]
            order = self.core.order(MAKER, OrderId(order_id)) if order_id else None
            if order is not None and order.remaining:
                self.core.cancel(self.now, MAKER, OrderId(order_id))
            return
        is_taker = intention.user == TAKER
        try:
            result = self.core.create(
                self.now,
                intention.user,
                OrderRequest(
                    ticker=TICKER,
                    side=intention.side,
                    count=intention.count,
                    price=intention.price,
                    time_in_force=TimeInForce.IOC if is_taker else TimeInForce.GTC,
                    post_only=not is_taker,
                ),
            )
        except Refused:
            if not is_taker:
                self._orders.append("")
            return
        if not is_taker:
            self._orders.append(result.order_id)


@attrs.define
class Probe:
    """One of our orders and what became of it, for real and on paper."""

    at: Micros
    side: Side
    price: Price
    true_filled: int = 0
    true_at: int | None = None
    """Time to the first fill."""
    model_filled: int = 0
    model_at: int | None = None


@attrs.frozen(kw_only=True)
class Fidelity:
    """Real against paper, over many probes."""

    probes: tuple[Probe, ...]

    @property
    def ratio(self) -> float:
        """Contracts that paper fills for each that is really filled. The target is 0.8 to 1.2."""
        true = sum(p.true_filled for p in self.probes)
        return sum(p.model_filled for p in self.probes) / true if true else float("nan")

    @property
    def agreement(self) -> float:
        """Share of probes for which both say filled, or both not."""
        same = sum(bool(p.true_filled) == bool(p.model_filled) for p in self.probes)
        return same / len(self.probes)

    @property
    def count_error(self) -> float:
        """Mean of the absolute difference in contracts, a probe of 10."""
        return sum(abs(p.true_filled - p.model_filled) for p in self.probes) / len(self.probes) / CONTRACT

    def times(self) -> tuple[float, float, float]:
        """Median seconds to the first fill, really and on paper, and the mean absolute difference where both filled."""
        true = sorted(p.true_at / SECOND for p in self.probes if p.true_at is not None)
        model = sorted(p.model_at / SECOND for p in self.probes if p.model_at is not None)
        both = [
            abs(p.true_at - p.model_at) / SECOND
            for p in self.probes
            if p.true_at is not None and p.model_at is not None
        ]
        if not true or not model or not both:
            return float("nan"), float("nan"), float("nan")
        return true[len(true) // 2], model[len(model) // 2], sum(both) / len(both)

    def __str__(self) -> str:
        true, model, error = self.times()
        return (
            f"{len(self.probes)} probes: contracts on paper / real {self.ratio:.3f}; same verdict {self.agreement:.0%}; "
            f"count error {self.count_error:.2f} of 10; first fill after {true:.1f} s real, {model:.1f} s paper "
            f"(medians), {error:.2f} s apart"
        )


def measure(
    seed: int, *, seconds: int = 1_800, model: FillModel = FillModel.QUEUE, has_trades: bool = True
) -> Fidelity:
    """One world of `seconds`, a probe every 30 s on each side, at the touch or one cent behind it.

    Args:
        has_trades: The model sees the prints; else it has to guess which decreases were trades.
    """
    plan = intentions(seed, seconds)
    tape = _tape(has_trades=True)
    alone = World(tape)
    for intention in plan:
        alone.act(intention)
    probes = _probes(tape, seed, seconds)
    _play_model(tape if has_trades else _without_trades(tape), probes, model, seed)
    _play_for_real(plan, probes)
    return Fidelity(probes=tuple(probes))


def _tape(*, has_trades: bool) -> Tape:
    market = TapeMarket(
        ticker=TICKER, grid=uniform_grid(CENT), source=BookSource.DEPTH, has_trades=has_trades
    )
    tape = Tape(name="embedded exchange", markets=[market])
    tape.snapshot(START, 0, [], [])
    return tape


def _without_trades(tape: Tape) -> Tape:
    kept = [i for i, kind in enumerate(tape.kind) if kind not in (Kind.BOUGHT, Kind.SOLD)]
    other = _tape(has_trades=False)
    for name in ("at", "kind", "market", "price", "count", "ts"):
        column = getattr(tape, name)
        setattr(other, name, array(column.typecode, [column[i] for i in kept]))
    return other


def _probes(tape: Tape, seed: int, seconds: int) -> list[Probe]:
    """Where probes are to stand: by the book of the world without them."""
    chance = random.Random(f"{seed}/probes")  # noqa: S311 - repeatable on purpose
    found: list[Probe] = []
    book, row = OrderBook(), 0
    for at in range(START + PROBE_EVERY, START + seconds * SECOND - PROBE_LIVES, PROBE_EVERY):
        while row < len(tape) and tape.at[row] <= at:
            _fold(book, tape, row)
            row += 1
        for side in Side:
            best = book.best_bid if side is Side.BID else book.best_ask
            if best is not None:
                behind = chance.choice((0, 0, 1)) * CENT
                found.append(Probe(Micros(at), side, Price(best - side.sign * behind)))
    return found


def _fold(book: OrderBook, tape: Tape, row: int) -> None:
    kind = tape.kind[row]
    if kind == Kind.SNAPSHOT:
        book.snapshot([], [])
    elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
        side = Side.BID if kind == Kind.DELTA_BID else Side.ASK
        book.apply_delta(side, Price(tape.price[row]), Count(tape.count[row]))


def _play_model(tape: Tape, probes: list[Probe], model: FillModel, seed: int) -> None:
    market = model_market(model, tape.markets[0], StrategyParameters(), 0.5, f"{seed}")
    resting: list[tuple[Probe, PaperOrder]] = []
    waiting = list(probes)
    for row, at in enumerate(tape.at):
        for probe, order in [pair for pair in resting if pair[0].at + PROBE_LIVES < at]:
            resting.remove((probe, order))
            if order.remaining:
                market.remove(order)
        while waiting and waiting[0].at < at:
            probe = waiting.pop(0)
            order = _order(probe)
            if not market.would_cross(probe.side, probe.price):
                market.rest(order)
                resting.append((probe, order))
        _feed(market, tape, row)
        for probe, order in resting:
            if order.filled and probe.model_at is None:
                probe.model_at = at - probe.at
            probe.model_filled = order.filled


def _order(probe: Probe) -> PaperOrder:
    name = f"probe-{probe.at}-{probe.side.value}"
    return PaperOrder(
        order_id=OrderId(name),
        client_order_id=ClientOrderId(name),
        ticker=TICKER,
        side=probe.side,
        price=probe.price,
        initial=PROBE_SIZE,
        remaining=PROBE_SIZE,
        exchange_index=0,
        post_only=True,
        created_at=probe.at,
    )


def _feed(market: ModelMarket, tape: Tape, row: int) -> None:
    kind, price, count = tape.kind[row], Price(tape.price[row]), Count(tape.count[row])
    now = Micros(tape.at[row])
    if kind == Kind.SNAPSHOT:
        market.snapshot([], [])
    elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
        market.delta(Side.BID if kind == Kind.DELTA_BID else Side.ASK, price, count, now)
    else:
        market.trade(market.print_of(TICKER, price, count, kind == Kind.BOUGHT, now, row), now)


def _play_for_real(plan: list[Intention], probes: list[Probe]) -> None:
    world = World(_tape(has_trades=True))
    waiting = list(probes)
    resting: list[tuple[Probe, str]] = []
    for intention in plan:
        at = intention.at
        for probe, order_id in [pair for pair in resting if pair[0].at + PROBE_LIVES < at]:
            resting.remove((probe, order_id))
            order = world.core.order(PROBE, OrderId(order_id))
            if order is not None and order.remaining:
                world.core.cancel(Micros(probe.at + PROBE_LIVES), PROBE, OrderId(order_id))
        while waiting and waiting[0].at < at:
            probe = waiting.pop(0)
            request = OrderRequest(
                ticker=TICKER, side=probe.side, count=PROBE_SIZE, price=probe.price, post_only=True
            )
            try:
                resting.append((probe, world.core.create(probe.at, PROBE, request).order_id))
            except Refused:
                continue  # our earlier fills have changed the book: it would cross
        world.act(intention)
        for probe, order_id in resting:
            order = world.core.order(PROBE, OrderId(order_id))
            if order is not None and order.filled:
                probe.true_filled = order.filled
                if probe.true_at is None:
                    probe.true_at = at - probe.at

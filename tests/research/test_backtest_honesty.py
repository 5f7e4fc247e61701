"""Gate 0: what any back-test must hold before its figures mean anything, and attempts to look into the future."""

import random
from array import array
from fractions import Fraction

import attrs
import pytest

from mm.domain.commands import Command
from mm.domain.errors import InvariantError
from mm.domain.fill import Fill, Liquidity
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, Side
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import Decision
from mm.engine.requote import ChurnBrake
from mm.exchange.paper.matching import PaperOrder
from mm.research.fills import FillModel, model_market
from mm.research.loop import Backtest
from mm.research.options import BacktestOptions, Latency
from mm.research.outcome import run_tape
from mm.research.room import Room, Watcher
from mm.research.tape import COLUMNS, Kind, Tape, merge, mirrored
from tapes import START, wandering_tape

MODELS = list(FillModel)


@attrs.define(eq=False)
class Log(Watcher):
    """Everything that a run did, in order."""

    lines: list[tuple[object, ...]] = attrs.field(factory=list)

    def on_command(self, room: Room, command: Command, now: Micros) -> None:
        self.lines.append((int(now), room.place, repr(command).replace(room.ticker, "T")))

    def on_exit(self, room: Room, order: Order, now: Micros) -> None:
        self.lines.append((int(now), room.place, "exit", order.side.value, order.price, order.count))

    def on_fill(self, room: Room, fill: Fill) -> None:
        self.lines.append((int(fill.ts), room.place, "fill", fill.side.value, fill.price, fill.count))


def log_of(tape: Tape, **options: object) -> list[tuple[object, ...]]:
    """A run's log."""
    log = Log()
    Backtest(tape, BacktestOptions(**options), log).run()  # type: ignore[arg-type]
    return log.lines


def fills_of(lines: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [line for line in lines if line[2] == "fill"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("has_trades", [True, False])
def test_a_prefix_of_the_tape_gives_the_beginning_of_the_run(model: FillModel, has_trades: bool) -> None:
    """Whatever comes later cannot have mattered: commands and fills up to the cut are the whole run's."""
    tape = wandering_tape(1, has_trades=has_trades, events=1_200)
    whole = log_of(tape, model=model)
    assert len(whole) > 20
    for cut in (400, 800):
        part = tape.prefix(cut)
        until = part.at[-1]
        begun = [line for line in log_of(part, model=model) if line[0] < until]
        assert begun == [line for line in whole if line[0] < until]


@pytest.mark.parametrize("model", MODELS)
def test_a_forged_future_changes_nothing_before_it(model: FillModel) -> None:
    """Everything after a moment is replaced by a market gone mad. What was done before it stays, to the microsecond."""
    tape = wandering_tape(2, markets=2, events=500)
    half = len(tape) // 2
    begin = tape.at[half]
    forged = tape.prefix(half)
    chance = random.Random(0)
    for step in range(500):
        at = begin + step * 10_000
        place = chance.randrange(2)
        forged.snapshot(at, place, [(Price(chance.randrange(1, 50) * 100), 10_000)], [(Price(9_900), 10_000)])  # type: ignore[list-item]
        forged.trade(at, place, Price(chance.randrange(1, 99) * 100), 50_000, Side.ASK, at)  # type: ignore[arg-type]
    honest, mad = log_of(tape, model=model), log_of(forged, model=model)
    assert [line for line in honest if line[0] < begin] == [line for line in mad if line[0] < begin]
    assert honest != mad


def test_every_decision_was_made_on_what_had_been_seen() -> None:
    """At each decision the engine's book is the fold of the rows up to now, its clock the last row's or a wake's."""
    tape = wandering_tape(3)
    seen: list[int] = []

    class Spy(Watcher):
        def on_decision(self, room: Room, decision: Decision, now: Micros) -> None:
            seen.append(int(now))
            rows = sum(1 for at in tape.at if at <= now)
            last = tape.prefix(rows)
            assert last.at[-1] <= now
            book = fold(last)
            assert room.paper.book.bids == book.bids
            assert room.paper.book.asks == book.asks

    Backtest(tape.prefix(300), BacktestOptions(), Spy()).run()
    assert seen == sorted(seen)
    assert len(seen) > 50


def fold(tape: Tape) -> Backtest:
    """The recorded book of a one-market tape, by folding and nothing else."""
    from mm.domain.book import OrderBook

    book = OrderBook()
    levels: dict[int, list[tuple[Price, int]]] = {1: [], 2: []}
    for kind, price, count in zip(tape.kind, tape.price, tape.count, strict=True):
        if kind in levels:
            levels[kind].append((Price(price), count))
            book.snapshot(levels[1], levels[2])  # type: ignore[arg-type]
        elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
            book.apply_delta(Side.BID if kind == Kind.DELTA_BID else Side.ASK, Price(price), count)  # type: ignore[arg-type]
    return book  # type: ignore[return-value]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("has_trades", [True, False])
def test_the_mirrored_market_gives_the_mirrored_fills(
    model: FillModel, has_trades: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices 1-p and sides swapped: the same fills from the other side, the same money.

    Two things of the engine have no mirror image and are left out: the average rounds halves up (alpha 1: no average),
    and of two replaces at one instant the bid's comes first, so that the churn brake may widen the other.
    """
    monkeypatch.setattr(ChurnBrake, "note_replace", lambda self, now: None)
    tape = wandering_tape(4, has_trades=has_trades, events=1_200)
    options = BacktestOptions(model=model, parameters=StrategyParameters(mid_ema_alpha=Fraction(1)))
    mine, other = run_tape(tape, options), run_tape(mirrored(tape), options)
    turned = [
        (f.fill.ts, f.fill.side.opposite, 10_000 - f.fill.price, f.fill.count, f.fill.fee)
        for f in other.fills
    ]
    assert turned == [(f.fill.ts, f.fill.side, f.fill.price, f.fill.count, f.fill.fee) for f in mine.fills]
    assert mine.net == other.net


def test_names_and_dates_do_not_matter() -> None:
    """Renamed tickers, moved by 40 days: the same fills, moved."""
    tape = wandering_tape(5, events=1_000)
    moved = attrs.evolve(
        tape,
        markets=[attrs.evolve(m, ticker=MarketTicker("KXNBAGAME-27JAN01XXXYYY-XXX")) for m in tape.markets],
        at=array("q", [at + 40 * 86_400 * SECOND for at in tape.at]),
        ts=array("q", [ts and ts + 40 * 86_400 * SECOND for ts in tape.ts]),
    )
    here, there = fills_of(log_of(tape)), fills_of(log_of(moved))
    assert here
    assert here == [(line[0] - 40 * 86_400 * SECOND, *line[1:]) for line in there]  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(4))
def test_the_shortcut_decides_what_asking_always_would(seed: int) -> None:
    """The loop asks the engine only where something it looks at has changed. Asked after every read, it does the same."""
    tape = wandering_tape(seed, markets=2, has_trades=bool(seed % 2), events=500)
    assert log_of(tape) == log_of(tape, decide_always=True)


@pytest.mark.parametrize("has_trades", [True, False])
@pytest.mark.parametrize("side", list(Side))
def test_the_bounds_bound(side: Side, has_trades: bool) -> None:
    """One order left alone: at every moment `touch` has filled at least as much of it as `queue`, `queue` as `through`."""
    more = 0
    for seed in range(12):
        tape = wandering_tape(seed, events=250, has_trades=has_trades)
        filled = {model: filled_over_time(tape, model, side) for model in MODELS}
        touch, queue = filled[FillModel.TOUCH], filled[FillModel.QUEUE]
        for most, middle, least in zip(touch, queue, filled[FillModel.THROUGH], strict=True):
            assert most >= middle >= least
        more += touch != queue
    assert more


def filled_over_time(tape: Tape, model: FillModel, side: Side) -> list[int]:
    """What of one order at the first touch is filled, after each row."""
    market = model_market(model, tape.markets[0], StrategyParameters(), 0.25, "seed")
    order: PaperOrder | None = None
    found = []
    level: dict[int, list[tuple[Price, Count]]] = {1: [], 2: []}
    for row, (at, kind, price, count) in enumerate(
        zip(tape.at, tape.kind, tape.price, tape.count, strict=True)
    ):
        if kind in level:
            level[kind].append((Price(price), Count(count)))
            market.snapshot(level[1], level[2])
        elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
            market.delta(
                Side.BID if kind == Kind.DELTA_BID else Side.ASK, Price(price), Count(count), Micros(at)
            )
        elif kind in (Kind.BOUGHT, Kind.SOLD):
            ticker = tape.markets[0].ticker
            market.trade(
                market.print_of(ticker, Price(price), Count(count), kind == Kind.BOUGHT, Micros(at), row),
                Micros(at),
            )
        if row == 10:
            best = market.book.best_bid if side is Side.BID else market.book.best_ask
            assert best is not None
            order = PaperOrder(
                order_id=OrderId("o"),
                client_order_id=ClientOrderId("c"),
                ticker=tape.markets[0].ticker,
                side=side,
                price=best,
                initial=Count(5_000),
                remaining=Count(5_000),
                exchange_index=0,
                post_only=True,
                created_at=Micros(at),
            )
            market.rest(order)
        found.append(int(order.filled) if order is not None else 0)
    return found


@pytest.mark.parametrize("model", [FillModel.QUEUE, FillModel.THROUGH, FillModel.QUEUE_SHARE])
def test_every_quote_fill_has_a_print_at_or_through_its_price_behind_it(model: FillModel) -> None:
    """Where prints are recorded a quote is filled by one, or by a book that came to its price."""
    tape = wandering_tape(6)
    outcome = run_tape(tape, BacktestOptions(model=model))
    quotes = [f.fill for f in outcome.fills if f.is_quote]
    assert quotes
    for fill in quotes:
        rows = [i for i, at in enumerate(tape.at) if at == fill.ts]
        hits = Kind.SOLD if fill.side is Side.BID else Kind.BOUGHT
        levels = Kind.DELTA_ASK if fill.side is Side.BID else Kind.DELTA_BID
        assert any(
            tape.kind[i] in (hits, levels) and (tape.price[i] - fill.price) * fill.side.sign <= 0
            for i in rows
        )


def test_cash_is_the_inventory_is_the_equity() -> None:
    """Three ways to count the money agree to the micro-dollar."""
    outcome = run_tape(wandering_tape(7, markets=4), BacktestOptions())
    assert outcome.fills
    for market in outcome.markets:
        assert market.cash_pnl() == market.net
    assert outcome.equity[-1][1] == outcome.net
    assert outcome.fees == sum(f.fill.fee for f in outcome.fills)


def test_the_split_adds_up_to_the_result() -> None:
    """Against the mid, then from the mid to the settlement: together the gross result of each market."""
    outcome = run_tape(wandering_tape(8), BacktestOptions())
    (market,) = outcome.markets
    assert market.fills
    twice = 0
    for f in market.fills:
        assert f.twice_mid is not None
        spread = f.twice_spread()
        assert spread is not None
        twice += spread + (2 * market.settlement_price - f.twice_mid) * f.fill.signed_count
    assert twice == 2 * market.gross


def test_latency_delays_what_is_done_and_nothing_arrives_early() -> None:
    """The first quote is sent at the first book and cannot be filled before it has arrived."""
    tape = wandering_tape(9)
    slow = Latency(feed=Micros(400_000), order=Micros(600_000))
    for latency in (Latency(feed=Micros(0), order=Micros(0)), slow):
        outcome = run_tape(tape, BacktestOptions(latency=latency))
        assert all(f.fill.ts >= START + latency.feed + latency.order for f in outcome.fills)


def test_a_tape_that_goes_back_in_time_is_refused() -> None:
    """There is one clock, and it only goes forward."""
    tape = wandering_tape(10, events=50)
    tape.at[30] = tape.at[29] - 1
    with pytest.raises(InvariantError, match="back in time"):
        Backtest(tape, BacktestOptions()).run()


def test_two_tapes_on_one_clock_are_the_sum_of_their_runs() -> None:
    """Markets that share no limit do not feel each other; each ends with its own recording."""
    one, two = wandering_tape(11), wandering_tape(12)
    two.markets[0].ticker = MarketTicker("KXNHLGAME-26OCT13CCCDDD-CCC")
    two.at = array("q", [at + 37 for at in two.at])
    both = run_tape(merge([one, two]), BacktestOptions())
    alone = [run_tape(t, BacktestOptions()) for t in (one, two)]
    by_market = {m.ticker: m for m in both.markets}
    for outcome in alone:
        (market,) = outcome.markets
        together = by_market[market.ticker]
        # The last moment differs: alone the run ends there, together the market closes.
        assert [f.fill.ts for f in together.fills] == [f.fill.ts for f in market.fills]


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_run_and_maker_fills_pay_the_maker_rate(model: FillModel) -> None:
    """Chance is seeded; fees are the exchange's, per order."""
    tape = wandering_tape(13, has_trades=False, events=1_000)
    first, again = run_tape(tape, BacktestOptions(model=model)), run_tape(tape, BacktestOptions(model=model))
    assert [f.fill for f in first.fills] == [f.fill for f in again.fills]
    for f in first.fills:
        rate = 175 if f.fill.liquidity is Liquidity.MAKER else 700
        exact = rate * f.fill.price * (10_000 - f.fill.price) * f.fill.count / 10_000 / 10_000
        assert abs(f.fill.fee - exact) <= 200
    assert set(COLUMNS) <= {field.name for field in attrs.fields(Tape)}

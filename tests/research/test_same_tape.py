"""One tape, two ways: the plain loop, and the live parts (feed handler, floor, quoter, desk, paper) on trio's virtual clock."""

from collections.abc import Callable, Sequence

import attrs
import pytest
import trio
import trio.testing

from mm.domain.fill import Fill, Trade
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import GroupId, MarketTicker, Order, Side
from mm.domain.tickers import event_of
from mm.engine.parameters import StrategyParameters
from mm.engine.requote import ChurnBrake
from mm.exchange.paper.account import PaperAccount
from mm.exchange.paper.core import PaperCore
from mm.exchange.paper.feed import PaperFeed
from mm.exchange.paper.venue import Latency as PaperLatency
from mm.exchange.paper.venue import PaperExchange
from mm.exchange.port import Bucket, FeedSink, FeedStatistics, RateLimits
from mm.research.fills import FillModel, model_market
from mm.research.loop import Backtest
from mm.research.options import BacktestOptions, Latency
from mm.research.room import Watcher
from mm.research.tape import Kind, Tape
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.desk import OrderDesk
from mm.tasks.feed import FeedHandler
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.ids import OrderIds
from mm.tasks.positions import Positions
from mm.tasks.quoter import Quoter, QuoterTools
from mm.tasks.resolve import Resolver
from tapes import START, wandering_tape

ONE_WAY_S = 0.05
LONG = Micros(10_000 * SECOND)

Line = tuple[object, ...]


def virtual_clock() -> Micros:
    return Micros(START - SECOND + round(trio.current_time() * SECOND))


class Spy(PaperCore):
    """A paper core that writes down what reaches the exchange, and what it fills."""

    lines: list[Line]

    def place(self, new, now):  # type: ignore[no-untyped-def]
        self.lines.append((int(now), "place", new.side.value, new.price, new.count, new.time_in_force.value))
        return super().place(new, now)

    def amend(self, ref, side, price, count, expires_at, now):  # type: ignore[no-untyped-def]
        self.lines.append((int(now), "amend", side.value, price, count))
        super().amend(ref, side, price, count, expires_at, now)

    def cancel(self, ref, now):  # type: ignore[no-untyped-def]
        self.lines.append((int(now), "cancel"))
        return super().cancel(ref, now)

    def executed(self, executions, now, *, rests=True):  # type: ignore[no-untyped-def]
        for e in executions:
            self.lines.append((int(now), "fill", e.order.side.value, e.price, e.count, e.liquidity.value))
        super().executed(executions, now, rests=rests)


@attrs.define(eq=False)
class TapeFeed:
    """The tape as a live feed: each moment's rows, then the end of the read."""

    tape: Tape

    async def run(self, sink: FeedSink) -> None:
        sink.on_connected(virtual_clock())
        tape = self.tape
        levels: dict[int, list[tuple[Price, Count]]] = {}
        for row, at in enumerate(tape.at):
            if at > virtual_clock():
                if row:
                    sink.on_read_end(virtual_clock())
                await trio.sleep_until((at - START + SECOND) / SECOND)
            ticker = tape.markets[tape.market[row]].ticker
            kind, price, count = tape.kind[row], Price(tape.price[row]), Count(tape.count[row])
            if kind == Kind.SNAPSHOT:
                levels = {Kind.LEVEL_BID: [], Kind.LEVEL_ASK: []}
                left = count
            elif kind in (Kind.LEVEL_BID, Kind.LEVEL_ASK):
                levels[kind].append((price, count))
                left = Count(left - 1)
                if not left:
                    sink.on_snapshot(ticker, levels[Kind.LEVEL_BID], levels[Kind.LEVEL_ASK], virtual_clock())
            elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
                sink.on_delta(
                    ticker, Side.BID if kind == Kind.DELTA_BID else Side.ASK, price, count, Micros(at)
                )
            else:
                taker = Side.BID if kind == Kind.BOUGHT else Side.ASK
                sink.on_trade(
                    Trade(
                        trade_id=f"{row:09d}",  # type: ignore[arg-type]
                        ticker=ticker,
                        price=price,
                        count=count,
                        taker_side=taker,
                        ts=Micros(tape.ts[row]),
                    )
                )
        sink.on_read_end(virtual_clock())

    async def watch(self, tickers: Sequence[MarketTicker]) -> None: ...

    async def unwatch(self, tickers: Sequence[MarketTicker]) -> None: ...

    async def resync(self, tickers: Sequence[MarketTicker]) -> None:
        raise AssertionError("the tape fits itself")

    def statistics(self) -> FeedStatistics:
        raise NotImplementedError


class Records:
    """Writes nothing down."""

    def record_order(self, order: Order) -> None: ...

    def record_group(self, group_id: GroupId, *, exchange_index: int, epoch: int) -> None: ...

    def record_group_triggered(self, group_id: GroupId) -> None: ...

    async def flush(self) -> None: ...


async def play_live(tape: Tape, parameters: StrategyParameters) -> list[Line]:
    """The tape through everything that the live bot would use, save socket, ledger and guardian."""
    core = Spy("live", PaperAccount(Money(10**18)))
    core.lines = []
    live = attrs.make_class("Live", [])()
    exchange = PaperExchange(
        account="paper",
        live=live,
        core=core,
        clock=virtual_clock,
        randomness=attrs.make_class("NoChance", [], bases=(object,))(),
        latency=PaperLatency(base_s=ONE_WAY_S, jitter_s=0.0),
    )
    type(exchange._randomness).random = lambda self: 0.0  # type: ignore[attr-defined]
    plenty = Bucket(refill_per_s=1e9, capacity=1e9)
    limits = RateLimits(tier="plenty", read=plenty, write=plenty)
    floor = Floor(parameters=parameters, clock=virtual_clock, positions=Positions())
    writes = WriteBudget(limits, virtual_clock, 0.0)
    desk = OrderDesk(exchange, Records(), writes, virtual_clock, floor.order_changed)
    floor.desk = desk
    desk.check = floor.exposure.refuse
    fence = Fence(exchange, Records(), writes, 10**6)

    async def nothing() -> None: ...

    tools = QuoterTools(
        desk=desk,
        resolver=Resolver(exchange, desk, writes, ReadBudget(limits, virtual_clock), virtual_clock, nothing),
        fence=fence,
        budget=writes,
        ids=OrderIds("mm", "tape"),
        clock=virtual_clock,
        quote_ttl=LONG,
        on_trouble=lambda ticker, what, error: pytest.fail(f"{what}: {error}"),
    )
    send, _receive = trio.open_memory_channel[Fill](100_000)
    handler = FeedHandler(floor=floor, fills=send)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writes.run)
        await fence.group_for(0)
        for info in tape.markets:
            market = Market(
                ticker=info.ticker,
                event_ticker=event_of(info.ticker),
                status=MarketStatus.ACTIVE,
                grid=info.grid,
            )
            core.markets[info.ticker] = model_market(FillModel.QUEUE, info, parameters, 0.25, "1")
            core.listed[info.ticker] = market
            core.schedules[info.ticker] = info.fees
            quoter = Quoter(floor.add_market(market), tools)
            floor.quoters[info.ticker] = quoter
            await nursery.start(quoter.run)
        await PaperFeed(TapeFeed(tape), core, virtual_clock, exchange._next_wake).run(
            stop_after(handler, tape, nursery.cancel_scope)
        )
    return core.lines


def stop_after(handler: FeedHandler, tape: Tape, scope: trio.CancelScope) -> FeedHandler:
    """The handler, ending everything with the tape's last read."""
    last = tape.at[-1]
    decide: Callable[[Micros], None] = handler.on_read_end

    def on_read_end(now: Micros) -> None:
        decide(now)
        if now >= last:
            scope.cancel()

    sink = attrs.make_class("Sink", [])()
    for name in dir(FeedSink):
        if name.startswith("on_"):
            setattr(type(sink), name, staticmethod(getattr(handler, name)))
    type(sink).on_read_end = staticmethod(on_read_end)
    return sink  # type: ignore[no-any-return]


def play_plain(tape: Tape, parameters: StrategyParameters, monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """The tape through the back-test."""
    latency = Latency(
        feed=Micros(0), order=Micros(round(ONE_WAY_S * SECOND)), answer=Micros(round(ONE_WAY_S * SECOND))
    )
    monkeypatch.setattr("mm.research.loop.PaperCore", Spy)
    monkeypatch.setattr(Spy, "lines", [], raising=False)
    options = BacktestOptions(parameters=parameters, latency=latency)
    Backtest(tape, options, Watcher()).run()
    return Spy.lines


class InOrder:
    """Trio's scheduler without its dice: tasks run in the order in which they were started."""

    def shuffle(self, batch: object) -> None: ...

    def random(self) -> float:
        return 0.9


@pytest.mark.parametrize(
    ("seed", "has_brake"), [(seed, True) for seed in range(5)] + [(seed, False) for seed in range(5, 12)]
)
def test_the_plain_loop_and_the_live_parts_do_the_same(
    seed: int, has_brake: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request reaches the exchange at the same microsecond with the same price and size, every fill is the same.

    Of two writes decided at one instant the live bot's two tasks may send either first. That matters to one rule only:
    a replace of one side may trip the churn brake, which then holds for the other. The dice are taken away here, and in
    the runs that meet such a race all the same, the brake.
    """
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr("trio._core._run._r", InOrder())
    if not has_brake:
        monkeypatch.setattr(ChurnBrake, "note_replace", lambda self, now: None)
    tape = wandering_tape(seed, events=500, markets=1 + seed % 2)
    parameters = StrategyParameters()
    plain = play_plain(tape, parameters, monkeypatch)
    clock = trio.testing.MockClock(autojump_threshold=0)
    live = trio.run(play_live, tape, parameters, clock=clock)
    last = tape.at[-1]
    mine = sorted(map(repr, (line for line in plain if line[0] < last)))  # type: ignore[operator]
    theirs = sorted(map(repr, (line for line in live if line[0] < last)))  # type: ignore[operator]
    assert mine == theirs
    assert sum("fill" in line for line in mine) > 3

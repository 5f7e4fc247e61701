"""What guards ask for is done in every market, told, kept over a restart, and undone by a person alone."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from trio.testing import MockClock

from fake_exchange import virtual_clock
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.engine.limits import DailyLoss
from mm.engine.parameters import StrategyParameters
from mm.engine.risk.guards import Guards, Measure, Reaction, Trigger, parse_steps
from mm.tasks.guards import RESUMED, ROW, GuardKeeper
from mm.tasks.monitor import Monitor
from task_rig import ASK, BID, GAME, TaskRig, open_books

OTHER = MarketTicker("KXNHLGAME-26SEP21VGKMIN-VGK")


@attrs.define
class Book:
    """A ledger that only remembers."""

    rows: list[tuple[Micros, str]] = attrs.field(factory=list)

    def record_trigger(
        self, ticker: MarketTicker | None, reason: str, net: Count, mark: Price | None
    ) -> None:
        self.rows.append((virtual_clock(), reason))

    async def last_trigger(self, beginning: str) -> tuple[Micros, str] | None:
        return next((row for row in reversed(self.rows) if row[1].startswith(beginning)), None)


@attrs.define(eq=False)
class Guarded:
    """A floor with two quoters, a monitor with guards, and what they did."""

    rig: TaskRig
    keeper: GuardKeeper
    book: Book
    stops: list[str]
    told: list[tuple[Measure, str]]
    drifts: list[int]

    def fill(self, contracts: int, cents: int, side: Side = BID) -> None:
        """A fill by somebody's hand: it moves the position and no quote of ours."""
        fill = Fill(
            order_id=OrderId("hand"),
            trade_id=TradeId(f"hand-{self.rig.positions.fills}"),
            ticker=GAME,
            side=side,
            price=Price(cents * 100),
            count=Count(contracts * 100),
            fee=Money(0),
            liquidity=Liquidity.TAKER,
            ts=virtual_clock(),
        )
        self.rig.exchange.fills.append(fill)
        self.rig.handler.on_fill(fill)
        self.keeper.filled(fill.count, fill.ts)

    def prices(self, ticker: MarketTicker = GAME) -> dict[Side, Price]:
        return {o.side: o.price for o in self.rig.floor.orders(ticker)}


@asynccontextmanager
async def guarded(book: Book | None = None, **steps: str) -> AsyncGenerator[Guarded, None]:
    rig = TaskRig(parameters=StrategyParameters(mae_failsafe_cents=100))
    book = book or Book()
    stops: list[str] = []
    told: list[tuple[Measure, str]] = []
    drifts = [0]

    def tell(trigger: Trigger, text: str) -> None:
        told.append((trigger.measure, text))

    keeper = GuardKeeper(
        guards=Guards.of({Measure[name]: parse_steps(text, Measure[name]) for name, text in steps.items()}),
        floor=rig.floor,
        drifting=lambda: drifts[0],
        refusals=lambda: rig.desk.rejected,
        stop=stops.append,
        tell=tell,
        book=book,
    )

    async def agree() -> bool:
        return True

    monitor = Monitor(
        floor=rig.floor,
        clock=virtual_clock,
        daily_loss=DailyLoss(None),
        stop=stops.append,
        check_positions=agree,
        guards=keeper,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        for ticker in (GAME, OTHER):
            quoter = rig.add_quoter(ticker)
            await nursery.start(quoter.run)
            rig.book(4_900, 5_100, ticker)
        await nursery.start(monitor.run)
        await trio.sleep(1)
        yield Guarded(rig, keeper, book, stops, told, drifts)
        nursery.cancel_scope.cancel()


BOTH = {BID: 4_900, ASK: 5_100}


async def test_widen_moves_every_quote_one_tick_out_and_back(autojump_clock: MockClock) -> None:
    """New markets quote wide too."""
    async with guarded(DRIFT="2:widen") as g:
        assert g.prices() == BOTH
        g.drifts[0] = 2
        await trio.sleep(2)
        assert g.prices() == g.prices(OTHER) == {BID: 4_800, ASK: 5_200}
        assert g.rig.floor.guard_ticks == 1
        g.drifts[0] = 0
        await trio.sleep(2)
        assert g.prices() == g.prices(OTHER) == BOTH
        assert [m for m, _ in g.told] == [Measure.DRIFT]


async def test_reduce_only_leaves_the_quotes_that_close(autojump_clock: MockClock) -> None:
    async with guarded(GROSS="7:reduce-only") as g:
        g.fill(7, 50)
        await trio.sleep(2)
        assert g.prices() == {ASK: 5_200}, "a stronger reaction includes the milder ones"
        assert g.prices(OTHER) == {}
        assert [o.count for o in g.rig.floor.orders(GAME)] == [700]


async def test_pull_takes_every_quote_off_and_only_a_person_brings_them_back(
    autojump_clock: MockClock,
) -> None:
    async with guarded(DRIFT="1:pull") as g:
        g.drifts[0] = 1
        await trio.sleep(1)
        assert g.prices() == g.prices(OTHER) == {}
        g.drifts[0] = 0
        await trio.sleep(30)
        assert g.prices() == {}
        assert "GUARD_DRIFT" in g.rig.floor.makers[GAME].holds["guard"]
        g.keeper.resume()
        await trio.sleep(2)
        assert g.prices() == g.prices(OTHER) == BOTH
        assert [reason for _, reason in g.book.rows] == [f"{ROW}GUARD_DRIFT:pull", RESUMED]


async def test_resumed_while_the_trouble_lasts_it_is_pulled_again(autojump_clock: MockClock) -> None:
    async with guarded(DRIFT="1:pull") as g:
        g.drifts[0] = 1
        await trio.sleep(1)
        g.keeper.resume()
        await trio.sleep(2)
        assert g.prices() == {}
        assert len(g.told) == 2


async def test_flatten_closes_positions_and_what_comes_in_afterwards(autojump_clock: MockClock) -> None:
    async with guarded(DRAWDOWN="1:flatten") as g:
        g.fill(40, 50)
        await trio.sleep(1)
        g.rig.book(4_500, 4_700)
        await trio.sleep(3)
        assert g.keeper.done is Reaction.FLATTEN
        exits = [call.value for call in g.rig.exchange.called("place") if call.value.reduce_only]
        assert {(o.side, o.count) for o in exits} == {(ASK, Count(4_000))}


async def test_stop_ends_trading_with_the_guards_numbers(autojump_clock: MockClock) -> None:
    async with guarded(FILL_RATE="15:widen,30:stop") as g:
        g.fill(20, 50)
        await trio.sleep(1)
        assert g.stops == []
        g.fill(20, 50, ASK)
        await trio.sleep(1)
        assert g.stops == ["guard: GUARD_FILL_RATE: 40 contracts filled within 15 seconds (step 30: stop)"]


async def test_what_an_earlier_run_pulled_stays_pulled_until_a_person_resumes(
    autojump_clock: MockClock,
) -> None:
    book = Book([(Micros(1_790_000_000_000_000), f"{ROW}GUARD_DRAWDOWN:stop")])
    async with guarded(book, DRIFT="5:pull") as g:
        assert g.prices() == {}
        assert "GUARD_DRAWDOWN:stop at 2026-09-21T" in g.keeper.why
        g.keeper.resume()
        await trio.sleep(2)
        assert g.prices() == BOTH
        assert book.rows[-1][1] == RESUMED
    async with guarded(book, DRIFT="5:pull") as again:
        assert again.prices() == BOTH


async def test_a_mild_reaction_of_an_earlier_run_is_over_with_it(autojump_clock: MockClock) -> None:
    book = Book([(Micros(1), f"{ROW}GUARD_DRIFT:widen")])
    async with guarded(book, DRIFT="5:pull") as g:
        assert g.prices() == BOTH


async def test_without_guards_nothing_is_looked_at(autojump_clock: MockClock) -> None:
    async with guarded() as g:
        g.drifts[0] = 99
        await trio.sleep(1)
        assert g.prices() == BOTH
        assert g.told == []


async def test_the_ledger_tells_the_newest_row_of_a_guard_and_no_other_rules(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Over a restart; what other rules did in between is not a guard's."""
    async with open_books(tmp_path, "s1") as ledger:
        assert await ledger.last_trigger(ROW) is None
        for reason in (f"{ROW}GUARD_DRIFT:widen", f"{ROW}GUARD_DRAWDOWN:pull", "daily_loss"):
            ledger.record_trigger(None, reason, Count(0), None)
        await ledger.flush()
    async with open_books(tmp_path, "s2") as ledger:
        found = await ledger.last_trigger(ROW)
        assert found is not None
        assert found[1] == f"{ROW}GUARD_DRAWDOWN:pull"
        ledger.record_trigger(None, RESUMED, Count(0), None)
        await ledger.flush()
        found = await ledger.last_trigger(ROW)
        assert found is not None
        assert found[1] == RESUMED

"""Each fill with its afterlife: the book's mid at the fill and at the horizons, grouped, beside what was promised."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import attrs

from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.join import Join
from mm.engine.strategies.registry import StrategyTable
from mm.research.attribution import promised, run_attribution
from mm.tasks.attribution import FILE_NAME, Attribution
from mm.tasks.floor import Floor
from mm.tasks.positions import Positions

M = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
T0 = Micros(1_790_000_000 * SECOND)


@attrs.define(eq=False)
class Desk:
    """A floor with one market, and a clock set by hand."""

    folder: Path
    now: Micros = T0
    floor: Floor = attrs.field(init=False)
    attribution: Attribution = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.floor = Floor(
            parameters=StrategyParameters(),
            clock=lambda: self.now,
            positions=Positions(),
            strategies=StrategyTable(Join()),
        )
        self.floor.add_market(
            Market(ticker=M, event_ticker=M[:-4], status=MarketStatus.ACTIVE, grid=uniform_grid(CENT))
        )
        self.attribution = Attribution(
            floor=self.floor, clock=lambda: self.now, path=self.folder / FILE_NAME, runner=inline
        )

    def mid(self, cents: int) -> None:
        book = self.floor.books[M]
        book.snapshot([(Price(100 * cents - 100), Count(100))], [(Price(100 * cents + 100), Count(100))])

    def at(self, seconds: float) -> None:
        self.now = Micros(T0 + round(seconds * SECOND))
        self.attribution.look()


async def inline(work: Callable[[], None]) -> None:
    work()


def a_fill(price: int = 4_900) -> Fill:
    return Fill(
        order_id=OrderId("o1"),
        trade_id=TradeId("t1"),
        ticker=M,
        side=Side.BID,
        price=Price(price),
        count=Count(1_000),
        fee=Money(40_000),
        liquidity=Liquidity.MAKER,
        ts=T0,
    )


async def test_a_fill_is_looked_at_after_1_5_30_and_300_seconds(tmp_path: Path) -> None:
    """The mids of those moments are kept, whatever the price did in between; then the line is written."""
    desk = Desk(tmp_path)
    desk.mid(50)
    desk.attribution.add(a_fill())
    for seconds, cents in ((0.5, 90), (1.1, 51), (3, 90), (5.2, 52), (30.1, 48), (200, 10)):
        desk.mid(cents)
        desk.at(seconds)
    await desk.attribution.write()
    assert not (tmp_path / FILE_NAME).exists()
    desk.mid(40)
    desk.at(300.2)
    await desk.attribution.write()
    row = json.loads((tmp_path / FILE_NAME).read_text())
    assert [row["mid"], *row["later"]] == [10_000, 10_200, 10_400, 9_600, 8_000]
    assert (row["strategy"], row["regime"], row["maker"]) == ("join", "unknown", True)


async def test_a_look_that_comes_too_late_is_none(tmp_path: Path) -> None:
    """A loop that stood still for a while does not put the later price under the earlier horizon."""
    desk = Desk(tmp_path)
    desk.mid(50)
    desk.attribution.add(a_fill())
    desk.at(20)
    desk.attribution.close()
    row = json.loads((tmp_path / FILE_NAME).read_text())
    assert row["later"] == [None, None, None, None]


def test_a_disk_that_refuses_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    """Lost lines are counted."""
    desk = Desk(tmp_path / "missing")
    desk.attribution.add(a_fill())
    desk.attribution.close()
    assert desk.attribution.lost == 1


def test_the_command_sums_up_and_says_what_was_promised(tmp_path: Path) -> None:
    """Bought at 0.49 with 0.4 c of fee: worth 0.6 c at once at a mid of 0.50, and 2.6 c more a second later at 0.52."""
    desk = Desk(tmp_path)
    desk.mid(50)
    desk.attribution.add(a_fill())
    desk.mid(52)
    desk.at(1.1)
    desk.attribution.close()
    out = io.StringIO()
    assert run_attribution(data_dir=tmp_path, stdout=out) == 0
    text = out.getvalue()
    row = next(line for line in text.splitlines() if line.startswith("join "))
    assert row.split() == ["join", "10", "+0.60", "+2.60", "-", "-", "-", "-"]
    assert "mm evaluate join" in text
    (tmp_path / "evaluations").mkdir()
    found = {"models": [{"model": "20% share", "cents": -1.5}], "gates": {"0": True, "1": False, "2": None}}
    (tmp_path / "evaluations" / "join.json").write_text(json.dumps(found))
    assert promised(tmp_path, ["join"]) == [
        "join: back-test on old prints, net a contract: 20% share -1.50 c; gate 0 passed, gate 1 failed, gate 2 not run"
    ]

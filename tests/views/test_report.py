"""`mm report`: hand-computed figures per market, game and day, and exports that say the same."""

import csv
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mm.cli import run_cli
from mm.domain.errors import ConfigError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side
from mm.ledger import Ledger, SettlementRow, open_ledger
from mm.ledger.archive import DAY
from mm.ledger.reader import open_reader
from mm.views.report import Span, build_report, choose_account

TOR = MarketTicker("KXNHLGAME-26NOV01TORBOS-TOR")
BOS = MarketTicker("KXNHLGAME-26NOV01TORBOS-BOS")
VGK = MarketTicker("KXNHLGAME-26NOV02VGKMIN-VGK")
NOON = Micros(round(dt.datetime(2026, 11, 1, 17, 0, tzinfo=dt.UTC).timestamp()) * SECOND)
"""1 November 2026, noon in the US East."""
FIRST, SECOND_DAY = dt.date(2026, 11, 1), dt.date(2026, 11, 2)
ACCOUNT = "demo|key|0|live"


def fill(n: int, side: Side, price: int, count: int, **changes: Any) -> Fill:
    """Fill number `n`, a minute after the one before; a fee of one cent."""
    values: dict[str, Any] = {
        "order_id": OrderId("o1"),
        "trade_id": TradeId(f"t{n}"),
        "ticker": TOR,
        "side": side,
        "price": Price(price),
        "count": Count(count),
        "fee": Money(10_000),
        "liquidity": Liquidity.MAKER,
        "ts": Micros(NOON + n * 60 * SECOND),
    }
    return Fill(**(values | changes))


FILLS = [
    fill(1, Side.BID, 4_000, 1_000),
    fill(2, Side.ASK, 4_500, 600, order_id=OrderId("o2")),  # 6 closed: 0.30
    fill(3, Side.ASK, 3_900, 200),  # 2 closed: -0.02; 2 left
    fill(4, Side.ASK, 6_000, 300, ticker=BOS),  # short 3
    fill(60 * 12, Side.BID, 5_500, 100, ticker=BOS),  # just after midnight in the East: 1 closed: 0.05
    fill(60 * 13, Side.BID, 3_000, 250, ticker=VGK),  # open
    fill(60 * 14, Side.BID, 3_300, 50, ticker=VGK),  # unrealized at 0.33: 2.5 x 0.03 = 0.075
]


async def write_books(path: Path, more: Callable[[Ledger], Any] | None = None, now: int = NOON) -> None:
    async def inline(work: Any, /) -> Any:
        return work()

    async with open_ledger(
        path, account=ACCOUNT, runner=inline, clock=lambda: Micros(now), session="s1"
    ) as ledger:
        ledger.record_session_start()
        ledger.record_order(
            Order(
                client_order_id=ClientOrderId("mm-s1-2"),
                order_id=OrderId("o2"),
                ticker=TOR,
                side=Side.ASK,
                price=Price(4_500),
                count=Count(600),
                reduce_only=True,
                state=OrderState.DONE,
            )
        )
        await ledger.record_fills(FILLS, Micros(NOON))
        # Toronto wins: 2 contracts at 0.40 bring 1.20; the short 2 of Boston bring 1.20 as well. On the second day.
        for ticker, value in ((TOR, 10_000), (BOS, 0)):
            ledger.record_settlement(
                SettlementRow(
                    ticker=ticker,
                    value=Price(value),
                    settled_at=Micros(NOON + DAY),
                    yes_count=Count(0),
                    no_count=Count(0),
                    fee=Money(0),
                )
            )
        ledger.record_trigger(TOR, "mae", Count(400), Price(3_900))
        if more is not None:
            await more(ledger)


@pytest.fixture(name="books")
def _books(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    trio.run(write_books, path)
    return path


def test_figures_per_market_game_and_day(books: Path) -> None:
    """Hand-computed, to the micro-dollar; days are Eastern; all three add up to the same."""
    with open_reader(books) as reader:
        report = build_report(reader, ACCOUNT, Span())
    tor, bos, vgk = (report.markets[ticker] for ticker in (TOR, BOS, VGK))
    assert (tor.realized, tor.settlement, tor.fees, tor.net) == (280_000, 1_200_000, 30_000, 1_450_000)
    assert (bos.realized, bos.settlement, bos.fees, bos.net) == (50_000, 1_200_000, 20_000, 1_230_000)
    assert (vgk.realized, vgk.settlement, vgk.fees, vgk.net) == (0, 0, 20_000, -20_000)
    assert (vgk.position, vgk.unrealized) == (300, 75_000)
    assert (tor.fills, tor.contracts, tor.position) == (3, 1_800, 0)
    game = report.games["KXNHLGAME-26NOV01TORBOS"]
    assert (game.net, game.fills) == (2_680_000, 5)
    first, second = report.days[FIRST], report.days[SECOND_DAY]
    assert (first.fills, first.realized, first.settlement, first.fees) == (4, 280_000, 0, 40_000)
    assert (second.fills, second.realized, second.settlement, second.fees) == (3, 50_000, 2_400_000, 30_000)
    assert report.total.net == first.net + second.net == 2_660_000


def test_a_span_of_days_holds_what_happened_on_them(books: Path) -> None:
    """The entry of the day before is known, its realization is not counted twice."""
    with open_reader(books) as reader:
        first = build_report(reader, ACCOUNT, Span(until=FIRST))
        second = build_report(reader, ACCOUNT, Span(since=SECOND_DAY))
    assert list(first.days) == [FIRST]
    assert list(second.days) == [SECOND_DAY]
    assert first.total.net + second.total.net == 2_660_000
    assert second.markets[BOS].realized == 50_000


def test_the_three_logs_and_the_tables_as_csv(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact decimals; the realizations add up to what the report says."""
    out = books.parent / "out"
    assert run_cli(["report", "--ledger", str(books), "--csv", str(out), "--json", str(out / "r.json")]) == 0
    text = capsys.readouterr().out
    assert "1.4500" in text
    assert "KXNHLGAME-26NOV01TORBOS-TOR" in text
    rows = {path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in out.glob("*.csv")}
    assert set(rows) == {"fills", "realizations", "triggers", "markets", "games", "days"}
    assert len(rows["fills"]) == len(FILLS)
    assert rows["fills"][1]["kind"] == "exit"
    assert rows["fills"][0]["price"] == "0.4000"
    assert rows["fills"][0]["time"].startswith("2026-11-01T17:01:00")
    closed = [row for row in rows["realizations"] if row["market"] == TOR]
    assert [(r["contracts"], r["gross"], r["how"]) for r in closed] == [
        ("6.00", "0.300000", "exit"),
        ("2.00", "-0.020000", "unknown"),
        ("2.00", "1.200000", "settlement"),
    ]
    assert next((r["position"], r["held_seconds"]) for r in rows["realizations"] if r["market"] == BOS) == (
        "short",
        "42960.000000",
    )
    assert sum(round(float(r["gross"]) * 1e6) for r in rows["realizations"]) == 2_730_000
    (trigger,) = rows["triggers"]
    assert (trigger["market"], trigger["reason"], trigger["position"], trigger["mark"]) == (
        TOR,
        "mae",
        "4.00",
        "0.3900",
    )
    document = json.loads((out / "r.json").read_text())
    assert document["total"]["net"] == "2.660000"
    assert document["markets"][TOR]["settlement_value"] == "1.0000"
    assert document["days"]["2026-11-02"]["settlement"] == "2.400000"


def test_archived_markets_keep_their_results(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The total is the same before and after archiving, and the archive can be reported by itself."""

    async def archive(ledger: Ledger) -> None:
        await ledger.archive()

    trio.run(write_books, books, archive, NOON + 30 * DAY)
    with open_reader(books) as reader:
        report = build_report(reader, ACCOUNT, Span())
    assert (report.total.net, report.total.fees, report.total.fills) == (2_660_000, 70_000, 7)
    assert set(report.archived) == {TOR, BOS}
    assert report.markets[TOR].net == 1_450_000
    assert sum(figures.net for figures in report.days.values()) == 2_660_000
    assert run_cli(["report", "--ledger", str(books)]) == 0
    assert report.archived[TOR] in capsys.readouterr().out
    with open_reader(books.parent / report.archived[TOR]) as reader:
        assert build_report(reader, ACCOUNT, Span()).total.net == 2_660_000


def test_accounts_are_chosen_by_name_or_by_the_last_session(books: Path) -> None:
    """A part of the name is enough when it is one account's."""
    with open_reader(books) as reader:
        assert choose_account(reader, None) == ACCOUNT
        assert choose_account(reader, "demo") == ACCOUNT
        with pytest.raises(ConfigError, match="not one of"):
            choose_account(reader, "prod")


def test_a_damaged_ledger_is_not_reported(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong figures are worse than none; verify says what is wrong."""
    content = books.read_bytes()
    books.write_bytes(content.replace(b"t" + str(60 * 12).encode(), b"t999"))
    assert run_cli(["report", "--ledger", str(books)]) == 1
    assert "mm ledger rebuild" in capsys.readouterr().err
    assert run_cli(["ledger", "verify", "--ledger", str(books)]) == 1
    assert "fills" in capsys.readouterr().err


def test_verify_prints_the_head_and_knows_earlier_ones(
    books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A head noted down after an earlier run must still be in the chain."""
    assert run_cli(["ledger", "verify", "--ledger", str(books)]) == 0
    said = capsys.readouterr().out
    head = said.rsplit(maxsplit=1)[-1]
    assert "7 fills" in said

    async def more(ledger: Ledger) -> None:
        await ledger.record_fills([attrs.evolve(FILLS[0], trade_id=TradeId("later"))])

    trio.run(write_books, books, more)
    assert run_cli(["ledger", "verify", "--ledger", str(books), "--head", head]) == 0
    capsys.readouterr()
    assert run_cli(["ledger", "verify", "--ledger", str(books), "--head", "3:00"]) == 1
    assert "not in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["report", "--since", "2026-11-02", "--until", "2026-11-01"], ["ledger", "archive", "--days", "0"]],
)
def test_bad_arguments_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1."""
    assert run_cli(arguments) == 1
    assert "mm: --" in capsys.readouterr().err

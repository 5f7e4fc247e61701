"""The reconciler on the virtual clock: what the socket missed, what came late, what reads do not show yet."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import fake_exchange
from fake_exchange import START, FakeExchange, virtual_clock
from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.market import Event, Series
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, Side
from mm.exchange.port import (
    Bucket,
    ExchangeUnavailable,
    NewOrder,
    Page,
    RateLimits,
    Settlement,
)
from mm.ledger import Ledger, SettlementRow
from mm.ledger.reader import open_reader
from mm.tasks import positions as positions_module
from mm.tasks.budget import ReadBudget
from mm.tasks.cash_check import CashMismatch
from mm.tasks.drift import DriftReport
from mm.tasks.fee_check import FeeMismatch
from mm.tasks.freshness import LONG_READ_LAG_S, Moment
from mm.tasks.reconcile import Listeners, Reconciler
from task_rig import BID, GAME, TaskRig, make_market, open_books

PAST = START - 10_000 * SECOND
"""Fills and settlements of the tests are numbered in seconds from here."""
OTHER = MarketTicker("KXNHLGAME-26SEP21TORBOS-BOS")


@attrs.define(eq=False)
class Desk:
    """A rig with a ledger and a reconciler, and what the reconciler told."""

    rig: TaskRig
    ledger: Ledger
    reconciler: Reconciler
    drifts: list[DriftReport]
    agreed: list[tuple[str, int, int]]
    fees: list[FeeMismatch]
    cash: list[CashMismatch]
    missing: list[str]
    problems: list[str]

    @property
    def exchange(self) -> FakeExchange:
        return self.rig.exchange

    @property
    def alarms(self) -> list[object]:
        return [*self.drifts, *self.fees, *self.cash, *self.missing, *self.problems]

    def net(self, ticker: MarketTicker = GAME) -> int:
        return self.rig.positions.net(ticker)


@asynccontextmanager
async def at_work(
    folder: Path, rig: TaskRig | None = None, session: str = "s1"
) -> AsyncGenerator[Desk, None]:
    """A loaded reconciler; `run` is not started."""
    rig = rig or TaskRig()
    drifts: list[DriftReport] = []
    agreed: list[tuple[str, int, int]] = []
    fees: list[FeeMismatch] = []
    cash: list[CashMismatch] = []
    missing: list[str] = []
    problems: list[str] = []
    async with open_books(folder, session) as ledger:
        reconciler = Reconciler(
            exchange=rig.exchange,
            ledger=ledger,
            floor=rig.floor,
            reads=rig.reads,
            writes=rig.writes,
            ids=rig.ids,
            clock=virtual_clock,
            listeners=Listeners(
                on_drift=drifts.append,
                on_agreed=lambda ticker, before, now: agreed.append((ticker, before, now)),
                on_fee=fees.append,
                on_cash=cash.append,
                on_missing_fills=lambda order, text: missing.append(text),
                on_problem=lambda what, exc: problems.append(f"{what}: {exc}"),
            ),
        )
        await reconciler.load()
        yield Desk(rig, ledger, reconciler, drifts, agreed, fees, cash, missing, problems)


@asynccontextmanager
async def running(
    folder: Path, rig: TaskRig | None = None, session: str = "s1"
) -> AsyncGenerator[Desk, None]:
    """The reconciler's tasks at work; cancelled at the end."""
    async with at_work(folder, rig, session) as desk, trio.open_nursery() as nursery:
        await nursery.start(desk.reconciler.book_fills, desk.rig.fills)
        nursery.start_soon(desk.rig.writes.run)
        await nursery.start(desk.reconciler.run)
        yield desk
        nursery.cancel_scope.cancel()


def fill(n: int = 1, **changes: Any) -> Fill:
    """Fill number `n` of a quote of ours: 2 contracts bought at 41 cents, `n` seconds after `PAST`."""
    values: dict[str, Any] = {
        "order_id": OrderId("o1"),
        "trade_id": TradeId(f"t{n:05d}"),
        "ticker": GAME,
        "side": BID,
        "price": Price(4_100),
        "count": Count(200),
        "fee": Money(8_500),
        "liquidity": Liquidity.MAKER,
        "ts": Micros(PAST + n * SECOND),
    }
    return Fill(**(values | changes))


def free_of_fees(rig: TaskRig) -> None:
    """Fills of the fake cost nothing, and that is right."""
    rig.exchange.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME", fee_type=FeeType.QUADRATIC)


def quiet() -> TaskRig:
    """A rig whose fills are free and rightly so."""
    rig = TaskRig()
    free_of_fees(rig)
    return rig


def resting(rig: TaskRig, count: int = 1_000) -> OrderId:
    """An order of the account that nobody here knows."""
    return rig.exchange.put(
        NewOrder(
            client_order_id=ClientOrderId(f"hand-{len(rig.exchange.history)}"),
            ticker=GAME,
            side=BID,
            price=Price(4_100),
            count=Count(count),
            exchange_index=0,
        )
    )


# --- fills -----------------------------------------------------------------------------------------------------------


async def test_a_night_of_fills_is_caught_up_in_one_pass_within_the_budget(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 fills of orders that rested while nobody ran: one pass, six pages, seconds; inventory exact."""
    monkeypatch.setattr(fake_exchange, "PAGE", 1_000)
    rig = quiet()
    rig.reads = ReadBudget(
        RateLimits(
            tier="basic",
            read=Bucket(refill_per_s=200, capacity=200),
            write=Bucket(refill_per_s=100, capacity=100),
        ),
        virtual_clock,
    )
    async with at_work(tmp_path, rig) as desk:
        rig.exchange.fills += [fill(0, fee=Money(0))]
        await desk.reconciler.pass_fills()
    night = [
        fill(
            10 + n,
            fee=Money(0),
            order_id=OrderId(f"o{n % 40}"),
            ticker=(GAME, OTHER)[n % 2],
            side=list(Side)[n % 3 % 2],
        )
        for n in range(5_000)
    ]
    rig = attrs.evolve(rig, positions=type(rig.positions)())
    rig.exchange.fills += night

    async with at_work(tmp_path, rig, session="s2") as desk:
        rig.exchange.calls.clear()
        before, began = trio.current_time(), time.monotonic()
        found = await desk.reconciler.pass_fills()
        took, worked = trio.current_time() - before, time.monotonic() - began

        assert found == 5_000
        assert len(rig.exchange.called("fills_page")) == 6
        assert took < 5
        assert worked < 10
        assert desk.alarms == []
        for ticker in (GAME, OTHER):
            ours = [f for f in rig.exchange.fills if f.ticker == ticker]
            state = rig.positions.inventory(ticker)
            assert state.net == sum(f.signed_count for f in ours)
            assert state.realized_gross + state.unrealized(Price(0)) == sum(
                -f.price * f.signed_count for f in ours
            )
        assert (await desk.ledger.totals()).fills == 5_001
        assert await desk.reconciler.pass_fills() == 0


async def test_a_cursor_in_circles_loses_nothing_and_invents_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The exchange answers a garbage cursor with the first page, for ever: what came is booked, the mark stays."""
    rig = quiet()
    rig.exchange.fills += [fill(n, fee=Money(0)) for n in range(1, 8)]
    real = rig.exchange.fills_page

    async def circles(**query: Any) -> Page[Fill]:
        page = await real(**(query | {"cursor": None}))
        return Page(items=page.items, cursor="garbage")

    async with at_work(tmp_path, rig) as desk:
        rig.exchange.fills_page = circles  # type: ignore[method-assign]
        with pytest.raises(ExchangeUnavailable, match="circle"):
            await desk.reconciler.pass_fills()
        assert desk.net() == 3 * 200
        assert await desk.ledger.mark() is None

        rig.exchange.fills_page = real  # type: ignore[method-assign]
        assert await desk.reconciler.pass_fills() == 4
        assert (desk.net(), desk.drifts) == (7 * 200, [])
        assert await desk.ledger.mark() == fill(7).ts


async def test_a_fill_of_both_sources_counts_once_whichever_is_first(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Socket then poll, and poll then socket."""
    rig = quiet()
    async with running(tmp_path, rig) as desk:
        first, second = resting(rig), resting(rig)
        rig.exchange.fill(first, 300)
        await trio.sleep(2)
        late = rig.exchange.fill(second, 500, tell=False)
        await trio.sleep(2)
        rig.handler.on_fill(late)
        await trio.sleep(2)

        assert desk.net() == 800
        assert (rig.positions.fills, (await desk.ledger.totals()).fills) == (2, 2)
        assert desk.alarms == []


async def test_late_fills_take_their_place_and_the_inventory_is_computed_anew(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """First in, first out by the exchange's times: the late fill's layer is closed first."""
    rig = quiet()
    a = fill(1, fee=Money(0), price=Price(1_000))
    b = fill(2, fee=Money(0), price=Price(2_000))
    c = fill(3, fee=Money(0), price=Price(3_000), side=Side.ASK)
    async with at_work(tmp_path, rig) as desk:
        rig.exchange.fills += [b, c]
        await desk.reconciler.pass_fills()
        assert rig.positions.inventory(GAME).realized_gross == 200 * 1_000
        rig.exchange.fills += [a]
        await desk.reconciler.pass_fills()

        assert rig.positions.inventory(GAME).realized_gross == 200 * 2_000
        assert desk.net() == 200


async def test_a_doubled_frame_that_memory_has_forgotten_counts_once(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket repeats a fill long after its id was forgotten: the ledger knows it."""
    monkeypatch.setattr(positions_module, "REMEMBERED_FILLS", 5)
    monkeypatch.setattr(fake_exchange, "PAGE", 1_000)
    rig = quiet()
    async with running(tmp_path, rig) as desk:
        order = resting(rig, 300_000)
        first = rig.exchange.fill(order, 700)
        for n in range(1_200):
            rig.exchange.fill(order, 1)
            if n % 300 == 0:
                await trio.sleep(0.5)
        await trio.sleep(2)
        rig.handler.on_fill(first)
        await trio.sleep(2)

        assert desk.net() == 1_900
        assert desk.alarms == []


async def kinds(desk: Desk) -> dict[str, tuple[str, str | None]]:
    """Order -> (kind, our id) of its fills, as the ledger has them."""
    await desk.ledger.flush()
    with open_reader(desk.ledger.path) as reader:
        return {
            row.fill.order_id: (row.kind.value, row.fill.client_order_id)
            for row in reader.fills(desk.exchange.account)
        }


async def test_fills_that_carry_no_id_of_ours_are_routed_by_asking_for_their_order(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Somebody's hand, an order of an earlier life whose answer was lost with it, and one that reads do not show yet."""
    rig = quiet()
    hand = resting(rig)
    lost = rig.exchange.put(
        NewOrder(
            client_order_id=ClientOrderId("mm-dead-1"),
            ticker=GAME,
            side=BID,
            price=Price(4_000),
            count=Count(500),
            exchange_index=0,
        )
    )
    unseen = OrderId("unseen")
    async with running(tmp_path, rig) as desk:
        desk.ledger.record_order(
            Order(
                client_order_id=ClientOrderId("mm-dead-1"),
                ticker=GAME,
                side=BID,
                price=Price(4_000),
                count=Count(500),
                reduce_only=True,
            )
        )
        rig.exchange.fill(hand, 100, tell=False)
        rig.exchange.fill(lost, 100, tell=False)
        rig.exchange.fills.append(fill(1, order_id=unseen, fee=Money(0)))
        await trio.sleep(5)

        assert await kinds(desk) == {
            hand: ("foreign", None),
            lost: ("exit", "mm-dead-1"),
            unseen: ("unknown", None),
        }
        assert (await desk.ledger.find_orders([lost]))[lost].client_order_id == "mm-dead-1"
    again = quiet()
    again.exchange.fills, again.exchange.history = rig.exchange.fills, rig.exchange.history
    again.exchange.history[unseen] = [(Micros(0), attrs.evolve(rig.exchange.now_of(hand), order_id=unseen))]
    async with running(tmp_path, again, session="s2") as desk:
        await trio.sleep(5)
        assert (await kinds(desk))[unseen] == ("foreign", None)


# --- reads that lag --------------------------------------------------------------------------------------------------


async def test_reads_that_lag_by_three_seconds_raise_no_alarm(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The socket is at once, every read is 3 s old, and the position moves every second to and fro."""
    rig = quiet()
    rig.exchange.read_lag = 3.0
    buys = resting(rig, 100_000)
    async with running(tmp_path, rig) as desk:
        for n in range(60):
            await trio.sleep(1.03)
            made = rig.exchange.fill(buys, 100, tell=False)
            if n % 2:
                made = attrs.evolve(made, side=Side.ASK, trade_id=TradeId(f"back-{n}"))
                rig.exchange.fills[-1] = made
            rig.handler.on_fill(made)
        await trio.sleep(30)

        assert desk.alarms == []
        assert desk.reconciler.positions_match is True
        assert (desk.net(), rig.positions.fills) == (0, 60)


async def test_lagging_reads_alone_find_every_fill(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The socket is silent: fills are found when the reads show them, and no alarm is raised meanwhile."""
    rig = quiet()
    rig.exchange.read_lag = 3.0
    buys = resting(rig, 100_000)
    async with running(tmp_path, rig) as desk:
        for _ in range(40):
            await trio.sleep(0.7)
            rig.exchange.fill(buys, 100, tell=False, report=False)
        await trio.sleep(10)

        assert desk.alarms == []
        assert desk.net() == 4_000


async def test_a_listing_that_misses_the_newest_orders_costs_none_of_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A quote younger than the lag is not listed: it is neither taken for gone nor placed twice."""
    rig = quiet()
    rig.exchange.read_lag = 4.0
    async with running(tmp_path, rig) as desk, rig.with_quoter():
        for step in range(12):
            await trio.sleep(1.7)
            rig.book(3_800 + 100 * (step % 3), 6_200)
            assert len(rig.resting(Side.BID)) <= 1
            assert len(rig.resting(Side.ASK)) <= 1
        await trio.sleep(6)
        assert (len(rig.resting(Side.BID)), len(rig.resting(Side.ASK))) == (1, 1)
        assert desk.alarms == []


async def test_a_fill_thirty_seconds_after_its_cancel_raises_no_alarm(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The cancel's answer says that 4 of 10 had been filled; the position shows them; the fill itself is late."""
    rig = quiet()
    async with running(tmp_path, rig) as desk, rig.with_quoter():
        await trio.sleep(1)
        quote = rig.only(BID)
        held_back = rig.exchange.fill(quote.order_id, 400, tell=False, report=False)
        rig.exchange.fills.remove(held_back)
        rig.exchange.foreign_positions[GAME] = Count(400)
        rig.book(3_000, 7_000)  # the quote has to move: it is cancelled or amended
        await trio.sleep(30)
        assert rig.exchange.now_of(quote.order_id).filled == 400
        assert desk.alarms == []
        assert rig.floor.gross.exposure(GAME).worst >= 400  # what is announced counts as a risk all the time

        del rig.exchange.foreign_positions[GAME]
        rig.exchange.fills.append(held_back)
        rig.handler.on_fill(attrs.evolve(held_back, client_order_id=None))
        await trio.sleep(12)

        assert desk.net() == 400
        assert desk.alarms == []
        assert desk.reconciler.positions_match is True


async def test_an_announced_fill_is_not_given_up_on_the_word_of_a_clock_that_is_behind(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Our clock is 4 s behind: reads that lag by 3 s look newer than the end of the order, and are not."""
    rig = quiet()
    async with running(tmp_path, rig) as desk, rig.with_quoter():
        rig.exchange.read_lag = 3.0
        rig.exchange.age = lambda: Micros(virtual_clock() - 3 * SECOND)
        await trio.sleep(4)
        order = next(o for o in rig.desk.live.values() if o.side is BID)
        rig.exchange.fill(rig.only(BID).order_id, int(order.count), tell=False, report=True)
        assert order.done_at is not None
        order.done_at = Micros(order.done_at - 4 * SECOND)
        while rig.desk.with_announced_fills():
            await trio.sleep(0.05)

        assert desk.net() == order.count  # at risk until booked


async def test_recovery_ends_with_reads_that_show_what_went_before(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A fill just before the start, and reads that fall back by 2 s: quoting waits until it is booked."""
    rig = quiet()
    rig.exchange.read_lag = 2.0
    rig.exchange.fills.append(fill(ts=virtual_clock()))
    async with at_work(tmp_path, rig) as desk, trio.open_nursery() as nursery:
        desk.reconciler.nothing_rests_since = Moment.now(virtual_clock)

        await nursery.start(desk.reconciler.run)

        assert desk.net() == 200
        assert trio.current_time() < LONG_READ_LAG_S
        nursery.cancel_scope.cancel(reason="seen")


async def test_an_announced_fill_that_was_none_is_given_up(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A report overstated what was filled; the order itself, asked, does not know of it."""
    rig = quiet()
    async with running(tmp_path, rig) as desk, rig.with_quoter():
        await trio.sleep(1)
        order = next(o for o in rig.desk.live.values() if o.side is BID)
        order.reported_filled = Count(300)
        rig.exchange.end(rig.only(BID).order_id, report=True)
        assert rig.desk.with_announced_fills() == [order]
        await trio.sleep(8)

        assert rig.desk.with_announced_fills() == []
        assert desk.alarms == []


# --- drift -----------------------------------------------------------------------------------------------------------


async def test_drift_is_told_with_both_numbers_and_the_history_and_holds_the_market(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A position that no fill explains: after the lag the market is held, and the alert has what is needed to judge."""
    rig = quiet()
    rig.add_quoter()
    async with running(tmp_path, rig) as desk:
        order = resting(rig)
        rig.exchange.fill(order, 200)
        await trio.sleep(12)
        rig.exchange.foreign_positions[GAME] = Count(500)
        known = rig.exchange.fill(order, 100)
        await trio.sleep(4)
        assert desk.drifts == []
        await trio.sleep(20)

        (report,) = desk.drifts
        assert (report.ours, report.theirs) == (300, 800)
        assert report.agreed is not None
        assert report.agreed.position == 200
        assert report.fills == (known,)
        text = report.text()
        assert "3.00" in text
        assert "8.00" in text
        assert known.trade_id in text
        assert "drift" in rig.floor.makers[GAME].holds
        assert desk.net() == 300  # never overwritten

        del rig.exchange.foreign_positions[GAME]
        await trio.sleep(12)
        assert desk.agreed == [(GAME, 300, 300)]
        assert "drift" not in rig.floor.makers[GAME].holds


async def test_drift_is_told_in_a_market_that_trades_all_the_time(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Both numbers move with every comparison; the difference stays, and is found all the same."""
    rig = quiet()
    order = resting(rig, 100_000)
    async with running(tmp_path, rig) as desk:
        rig.exchange.foreign_positions[GAME] = Count(5_000)
        for _ in range(30):
            await trio.sleep(1.0)
            rig.exchange.fill(order, 100)

        assert len(desk.drifts) == 1


async def test_a_fill_that_both_sources_missed_is_repaired_from_the_history(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It appears in the listing behind the overlap: the comparison finds the hole, the repair reads it."""
    rig = quiet()
    rig.add_quoter()
    async with running(tmp_path, rig) as desk:
        await trio.sleep(1_000)
        order = resting(rig)
        rig.exchange.fill(order, 200)
        await trio.sleep(10)
        rig.exchange.fills.append(fill(5, fee=Money(0)))
        await trio.sleep(30)

        assert len(desk.drifts) == 1
        assert desk.net() == 400
        assert desk.agreed == [(GAME, 200, 400)]
        assert desk.reconciler.positions_match is True


async def test_a_difference_that_stays_is_read_anew_only_now_and_then(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The whole history is read at most every 30 s for it."""
    rig = quiet()
    rig.exchange.fills.append(fill(0, fee=Money(0)))
    async with running(tmp_path, rig) as desk:
        rig.exchange.foreign_positions[GAME] = Count(500)
        await trio.sleep(200)
        whole = [call for call in rig.exchange.called("fills_page") if call.value is None]

        assert len(desk.drifts) == 1
        assert 2 <= len(whole) <= 9


# --- settlements -----------------------------------------------------------------------------------------------------


def settled(value: int = 10_000, at: int = 100, ticker: MarketTicker = GAME) -> Settlement:
    return Settlement(
        ticker=ticker,
        value=Price(value),
        settled_at=Micros(PAST + at * SECOND),
        yes_count=Count(0),
        no_count=Count(0),
        fee=Money(0),
    )


@pytest.mark.parametrize("value", [0, 10_000, 3_700])
async def test_a_market_settled_while_away_realizes_its_result(
    autojump_clock: MockClock, tmp_path: Path, value: int
) -> None:
    """Fills and the settlement both happened while nobody ran; the result is to the micro-dollar."""
    async with at_work(tmp_path, quiet()) as desk:
        desk.exchange.fills += [fill(1, fee=Money(0))]
        await desk.reconciler.pass_fills()
    rig = quiet()
    rig.exchange.fills += [fill(1, fee=Money(0)), fill(2, fee=Money(0), side=Side.ASK, count=Count(50))]
    rig.exchange.settled += [settled(value)]
    async with running(tmp_path, rig, session="s2") as desk:
        await trio.sleep(15)

        assert rig.positions.realized() == 150 * (value - 4_100)
        assert desk.net() == 0
        assert rig.positions.settled[GAME].result == 150 * (value - 4_100)
        assert desk.alarms == []
        assert desk.reconciler.positions_match is True
    async with at_work(tmp_path, quiet(), session="s3") as desk:
        assert desk.rig.positions.realized() == 150 * (value - 4_100)


async def test_fills_of_a_market_settled_in_an_earlier_life_do_not_open_it_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """They lie in the overlap of the next start; one of them was even unknown: it changes the result, not the position."""
    rig = quiet()
    rig.exchange.fills += [fill(1, fee=Money(0)), fill(2, fee=Money(0))]
    rig.exchange.fills += [fill(0, fee=Money(0), ticker=OTHER, price=Price(10_000))]
    rig.exchange.settled += [settled(at=10), settled(at=500, ticker=OTHER)]
    async with running(tmp_path, rig) as desk:
        await trio.sleep(3)
        assert rig.positions.realized() == 400 * 5_900
    again = quiet()
    again.exchange.fills += [*rig.exchange.fills, fill(3, fee=Money(0))]
    again.exchange.settled += [*rig.exchange.settled]
    async with running(tmp_path, again, session="s2") as desk:
        await trio.sleep(20)

        assert (desk.net(), again.positions.fills) == (0, 1)
        assert again.positions.realized() == 600 * 5_900
        assert desk.alarms == []


async def test_a_late_fill_after_the_settlement_changes_the_result(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The last fill before the close reaches us after the market has paid."""
    rig = quiet()
    rig.exchange.fills += [fill(1, fee=Money(0))]
    rig.exchange.settled += [settled(at=20)]
    async with running(tmp_path, rig) as desk:
        await trio.sleep(20)
        rig.exchange.fills += [fill(15, fee=Money(0), side=Side.ASK, price=Price(9_000))]
        await trio.sleep(10)

        assert (desk.net(), rig.positions.realized()) == (0, 200 * (9_000 - 4_100))
        assert desk.alarms == []


async def test_an_amended_settlement_replaces_the_result(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The venue paid 1 dollar and then corrected itself to 25 cents."""
    rig = quiet()
    rig.exchange.fills += [fill(1, fee=Money(0))]
    rig.exchange.settled += [settled(at=2)]
    async with running(tmp_path, rig) as desk:
        assert rig.positions.realized() == 200 * 5_900
        rig.exchange.settled += [settled(2_500, at=30)]
        await trio.sleep(40)

        assert rig.positions.realized() == 200 * (2_500 - 4_100)
        (row,) = await desk.ledger.settlements()
        assert isinstance(row, SettlementRow)
        assert row.value == 2_500


# --- fees ------------------------------------------------------------------------------------------------------------


def with_fees(multiplier: int = 1, fee_type: FeeType = FeeType.QUADRATIC_WITH_MAKER_FEES) -> TaskRig:
    """A rig whose series charges fees."""
    from fractions import Fraction

    rig = TaskRig()
    rig.exchange.known_series["KXNHLGAME"] = Series(
        ticker="KXNHLGAME", fee_type=fee_type, fee_multiplier=Fraction(multiplier)
    )
    return rig


def maker_fills(*fees: int, order: str = "o1") -> list[Fill]:
    """Fills of 0.30 contracts at 40 cents: the published example of the order's rounding account."""
    return [
        fill(
            n,
            count=Count(30),
            price=Price(4_000),
            fee=Money(fee),
            order_id=OrderId(order),
            trade_id=TradeId(f"{order}-{n}"),
        )
        for n, fee in enumerate(fees, 1)
    ]


def at_one_instant(fills: list[Fill]) -> list[Fill]:
    """The same, in one microsecond."""
    return [attrs.evolve(f, ts=fills[0].ts) for f in fills]


async def test_fees_that_the_rules_explain_are_silent(autojump_clock: MockClock, tmp_path: Path) -> None:
    """0.0013, 0.0013, 0.0012: the third fill of the order gives back what rounding had taken."""
    rig = with_fees()
    rig.exchange.fills += maker_fills(1_300, 1_300, 1_200)
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()

        assert desk.alarms == []
        assert desk.reconciler.fees.checked == 3


async def test_a_fee_off_by_a_hundredth_of_a_cent_names_the_fill(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The third fill was charged as if there were no account to give anything back from."""
    rig = with_fees()
    rig.exchange.fills += maker_fills(1_300, 1_300, 1_300)
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()
        await desk.reconciler.pass_fills()

        (mismatch,) = desk.fees
        assert (mismatch.fill.trade_id, mismatch.fill.fee, mismatch.expected) == ("o1-3", 1_300, 1_200)
        assert "o1-3" in mismatch.text()
        assert "0.001300" in mismatch.text()
        assert "0.001200" in mismatch.text()


async def test_fills_of_one_instant_are_explained_in_whatever_order_they_were_charged(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """One taker met the order three times in a microsecond, and the ids say nothing about which was first."""
    rig = with_fees()
    rig.exchange.fills += at_one_instant(maker_fills(1_200, 1_300, 1_300))
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()

        assert desk.alarms == []
        assert desk.reconciler.fees.checked == 3


async def test_fees_of_one_instant_that_no_order_explains_are_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The search for an order hides nothing."""
    rig = with_fees()
    rig.exchange.fills += at_one_instant(maker_fills(1_200, 1_200, 1_300))
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()

        assert len(desk.fees) >= 1


async def test_fills_of_one_order_in_two_passes_share_one_account(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Even with a restart between them."""
    rig = with_fees()
    fills = maker_fills(1_300, 1_300, 1_200)
    rig.exchange.fills += fills[:2]
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()
    again = with_fees()
    again.exchange.fills += fills
    async with at_work(tmp_path, again, session="s2") as desk:
        await desk.reconciler.pass_fills()

        assert desk.alarms == []


async def test_an_events_fees_that_changed_meanwhile_are_read_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Fills before and after the change are right under the schedule of their time."""
    rig = with_fees()
    rig.exchange.fills += maker_fills(1_300, 1_300)
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()
        await trio.sleep(60)
        rig.exchange.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME", fee_type=FeeType.QUADRATIC)
        rig.exchange.fills += [fill(50, fee=Money(0)), *maker_fills(1_300, order="o3")]
        await desk.reconciler.pass_fills()

        assert desk.alarms == []


async def test_an_overridden_event_charges_its_own(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event's multiplier beats the series'."""
    from fractions import Fraction

    rig = with_fees()

    async def event(ticker: str) -> Event:
        return Event(ticker=ticker, fee_multiplier_override=Fraction(0))

    monkeypatch.setattr(rig.exchange, "event", event)
    rig.exchange.fills += maker_fills(0, 0)
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()

        assert desk.alarms == []


async def test_a_waived_fee_is_right(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The market says that fills pay nothing until a time; the next one pays."""
    rig = with_fees()
    rig.floor.add_market(make_market(fee_waiver_until=Micros(PAST + 2 * SECOND)))
    rig.exchange.fills += [maker_fills(0)[0], *maker_fills(1_300, 1_300, order="o2")[1:]]
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()

        assert desk.alarms == []


async def test_a_fee_model_that_is_not_understood_is_told(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Flat fees have no known rates."""
    rig = with_fees(fee_type=FeeType.FLAT)
    rig.exchange.fills += maker_fills(1_300)
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()

        (mismatch,) = desk.fees
        assert mismatch.expected is None


async def test_a_schedule_that_cannot_be_read_now_is_read_later(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The check is put off, not dropped."""
    rig = with_fees()
    rig.exchange.fills += maker_fills(1_400)
    rig.exchange.script("series", fake_exchange.refuse(ExchangeUnavailable("no")))
    async with at_work(tmp_path, rig) as desk:
        await desk.reconciler.pass_fills()
        assert (desk.fees, len(desk.problems)) == ([], 1)
        await desk.reconciler.pass_fills()

        assert [m.fill.fee for m in desk.fees] == [1_400]


# --- cash ------------------------------------------------------------------------------------------------------------


async def test_cash_is_equal_to_the_last_digit_over_restarts(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Fills on both sides, fees and a settlement, some of it while nobody ran."""
    rig = quiet()
    free = {"fee": Money(0)}
    async with running(tmp_path, rig) as desk:
        assert desk.reconciler.cash.is_equal is True
        rig.exchange.fills += [
            fill(1, **free),
            fill(2, **free, ticker=OTHER, side=Side.ASK, count=Count(333)),
        ]
        await trio.sleep(2)
        assert await desk.reconciler.check_cash() is True
    again = quiet()
    again.exchange.fills += [*rig.exchange.fills, fill(3, **free, ticker=OTHER, price=Price(6_107))]
    again.exchange.settled += [settled(2_500)]
    async with running(tmp_path, again, session="s2") as desk:
        # The other market of the game is still open with NO in it: what that owes now nobody knows to the digit.
        assert "is settled" in desk.reconciler.cash.why_not
        again.exchange.settled += [settled(7_500, ticker=OTHER, at=200)]
        await trio.sleep(20)
        assert await desk.reconciler.check_cash() is True
        assert desk.alarms == []


async def test_cash_that_nothing_explains_is_told_once_with_both_numbers(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Five dollars were withdrawn by hand: told at the next start, and then part of what was paid in."""
    async with running(tmp_path, quiet()) as desk:
        assert desk.reconciler.cash.is_equal is True
    for life in range(2):
        rig = quiet()
        rig.exchange.paid_in -= 5_000_000
        async with running(tmp_path, rig, session=f"after{life}") as desk:
            assert len(desk.cash) == (1 if life == 0 else 0)
            if desk.cash:
                assert "9995.000000" in desk.cash[0].text()
                assert "10000.000000" in desk.cash[0].text()


async def test_cash_is_not_compared_while_anything_rests(autojump_clock: MockClock, tmp_path: Path) -> None:
    """What the exchange sets aside for resting orders is not known to the digit: it says so, and raises no alarm."""
    rig = quiet()
    resting(rig)
    async with running(tmp_path, rig) as desk:
        assert desk.reconciler.cash.is_equal is None
        assert "rest" in desk.reconciler.cash.why_not
        assert desk.alarms == []


async def test_netting_of_a_game_is_accepted_and_not_assumed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """NO in both markets of a game: not compared before something is known, then both readings are right."""
    rig = quiet()
    both = [
        fill(1, fee=Money(0), side=Side.ASK),
        fill(2, fee=Money(0), side=Side.ASK, ticker=OTHER, count=Count(100)),
    ]
    rig.exchange.fills += both
    async with running(tmp_path / "first", rig) as desk:
        assert "netted" in desk.reconciler.cash.why_not
    for extra in (0, 1_000_000):
        async with running(tmp_path / f"then{extra}", quiet()) as desk:
            assert desk.reconciler.cash.is_equal is True
            desk.exchange.fills += both
            desk.exchange.paid_in += extra  # the exchange frees the smaller of the two
            await trio.sleep(2)
            assert await desk.reconciler.check_cash() is True

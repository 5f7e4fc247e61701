"""The portfolio monitor: loss of the day, cross-market MAE, and the venue's word after a flatten."""

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from fake_exchange import START, virtual_clock
from mm.domain.commands import FlattenReason
from mm.domain.errors import InvariantError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.domain.tickers import eastern_date
from mm.engine.limits import DailyLoss, PortfolioVerdict
from mm.engine.parameters import StrategyParameters
from mm.exchange.port import AuthError, ExchangeUnavailable
from mm.tasks.monitor import Monitor
from task_rig import ASK, BID, GAME, TaskRig, open_books

OTHER = MarketTicker("KXNHLGAME-26SEP21VGKMIN-VGK")


@attrs.define(eq=False)
class Watch:
    """A monitor and what it did."""

    rig: TaskRig
    monitor: Monitor
    stops: list[str] = attrs.field(factory=list)
    checks: int = 0
    check_error: Exception | None = None
    triggers: list[tuple[MarketTicker, FlattenReason]] = attrs.field(factory=list)
    verdicts: list[PortfolioVerdict] = attrs.field(factory=list)


def watch(loss_limit: int | None = None, **parameters: Any) -> Watch:
    rig = TaskRig(parameters=StrategyParameters(**parameters))
    found: Watch

    async def check() -> bool:
        found.checks += 1
        if found.check_error is not None:
            raise found.check_error
        return True

    monitor = Monitor(
        floor=rig.floor,
        clock=virtual_clock,
        daily_loss=DailyLoss(Money(loss_limit * 1_000_000) if loss_limit else None),
        stop=lambda reason: found.stops.append(reason),
        check_positions=check,
        on_trigger=lambda t, r, n, m: found.triggers.append((t, r)),
        on_portfolio=lambda verdict: found.verdicts.append(verdict),
    )
    found = Watch(rig, monitor)
    return found


@asynccontextmanager
async def running(found: Watch, *tickers: MarketTicker) -> AsyncGenerator[None, None]:
    """Quoters of these markets, the budget and the monitor."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.rig.writes.run)
        for ticker in tickers or (GAME,):
            quoter = found.rig.add_quoter(ticker)
            await nursery.start(quoter.run)
            found.rig.book(4_900, 5_100, ticker)
        await nursery.start(found.monitor.run)
        yield
        nursery.cancel_scope.cancel()


def buy(rig: TaskRig, count: int, price: int, ticker: MarketTicker = GAME, side: Side = BID) -> None:
    """A fill by somebody's hand: it moves the position and no quote of ours."""
    now = virtual_clock()
    fill = Fill(
        order_id=OrderId("hand"),
        trade_id=TradeId(f"hand-{now}-{rig.positions.fills}"),
        ticker=ticker,
        side=side,
        price=Price(price),
        count=Count(count),
        fee=Money(0),
        liquidity=Liquidity.TAKER,
        ts=now,
    )
    rig.exchange.fills.append(fill)
    rig.handler.on_fill(fill)


async def test_the_loss_of_the_day_stops_trading(autojump_clock: MockClock) -> None:
    """Marked, over all markets, at the limit: stop, with the number in the reason."""
    found = watch(loss_limit=4, mae_failsafe_cents=100)
    async with running(found, GAME, OTHER):
        await trio.sleep(1)
        buy(found.rig, 2_000, 5_000)
        buy(found.rig, 2_000, 5_000, OTHER)
        await trio.sleep(1)
        assert found.stops == []
        found.rig.book(3_900, 4_100)
        found.rig.book(3_910, 4_110, OTHER)
        await trio.sleep(1)
        assert found.stops == []
        found.rig.book(3_900, 4_100, OTHER)
        await trio.sleep(1)

        assert found.stops
        assert "daily loss limit: 4.000000" in found.stops[0]


async def test_a_restart_does_not_forget_the_loss_of_the_day(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Half of the limit is lost before the restart, half of it after: that is the limit."""
    for life in range(2):
        found = watch(loss_limit=4, mae_failsafe_cents=100)
        async with open_books(tmp_path, f"s{life}") as ledger:
            found.monitor.days = ledger
            reconciler = found.rig.reconciler(ledger)
            await reconciler.load()
            async with running(found):
                if not life:
                    await trio.sleep(1)
                    buy(found.rig, 2_000, 5_000)
                await trio.sleep(1)
                assert found.stops == []
                found.rig.book(3_900 - 1_000 * life, 4_100 - 1_000 * life)
                await trio.sleep(1)
                assert bool(found.stops) == bool(life)
            await ledger.record_fills(found.rig.exchange.fills)


async def test_positions_without_a_price_yet_are_no_loss(autojump_clock: MockClock, tmp_path: Path) -> None:
    """After a restart nothing is judged before what is held has a price, however the day began."""
    found = watch(loss_limit=1, mae_failsafe_cents=100)
    async with open_books(tmp_path) as ledger:
        found.monitor.days = ledger
        buy(found.rig, 2_000, 5_000)
        ledger.record_day_start(eastern_date(virtual_clock()), Money(2_000 * 3_000))
        await ledger.flush()
        async with trio.open_nursery() as nursery:
            await nursery.start(found.monitor.run)
            await trio.sleep(20)
            assert found.stops == []  # at cost it would be a loss of 6 dollars
            await nursery.start(found.rig.add_quoter().run)
            found.rig.book(7_900, 8_100)
            await trio.sleep(20)
            assert found.stops == []
            nursery.cancel_scope.cancel()


async def test_no_limit_no_stop(autojump_clock: MockClock) -> None:
    """Off in simulation."""
    found = watch(mae_failsafe_cents=100)
    async with running(found):
        buy(found.rig, 5_000, 5_000)
        found.rig.book(700, 900)
        await trio.sleep(2)

        assert found.stops == []


async def test_a_new_day_begins_at_midnight_in_the_east(autojump_clock: MockClock) -> None:
    """Yesterday's loss is yesterday's."""
    found = watch(loss_limit=1, mae_failsafe_cents=100)
    almost_midnight = round(dt.datetime(2026, 9, 22, 3, 59, 50, tzinfo=dt.UTC).timestamp() * SECOND)
    offset = almost_midnight - START
    found.monitor.clock = lambda: Micros(virtual_clock() + offset)
    async with running(found):
        buy(found.rig, 1_000, 5_000)
        await trio.sleep(1)
        found.rig.book(4_100, 4_300)
        await trio.sleep(20)
        found.rig.book(3_300, 3_500)
        await trio.sleep(1)
        assert found.stops == []
        found.rig.book(3_100, 3_300)
        await trio.sleep(1)

        assert found.stops


async def test_cross_market_mae_pulls_all_and_flattens_the_worst(autojump_clock: MockClock) -> None:
    """8 s at the limit without a break: nothing is quoted anywhere, the worst market goes, the rest stays held."""
    found = watch(portfolio_mae_limit=Money(2_000_000), mae_failsafe_cents=100)
    rig = found.rig
    async with running(found, GAME, OTHER):
        await trio.sleep(1)
        buy(rig, 3_000, 5_000)
        buy(rig, 1_000, 5_000, OTHER)
        rig.book(4_300, 4_500)
        rig.book(4_700, 4_900, OTHER)
        await trio.sleep(7)
        assert found.verdicts == []
        await trio.sleep(2)

        (verdict,) = found.verdicts
        assert verdict.flatten == (GAME,)
        assert [row.ticker for row in verdict.table] == [GAME, OTHER]
        assert rig.positions.net(GAME) == 0
        assert rig.positions.net(OTHER) == 1_000
        assert (GAME, FlattenReason.PORTFOLIO_MAE) in found.triggers
        await trio.sleep(1)
        # below half of the limit now: quoting is back, the hold lifted everywhere
        assert rig.floor.holds == {}
        assert rig.resting(BID, OTHER)


async def test_a_market_taken_while_the_hold_lasts_is_held_too(autojump_clock: MockClock) -> None:
    """No new quotes anywhere means there as well."""
    found = watch(portfolio_mae_limit=Money(2_000_000), mae_failsafe_cents=100)
    rig = found.rig
    async with running(found):
        await trio.sleep(1)
        buy(rig, 3_000, 5_000)
        rig.print(5_000)
        rig.exchange.others[GAME, BID] = []
        rig.handler.on_snapshot(GAME, [], [(Price(4_300), Count(10_000))], virtual_clock())
        rig.handler.on_read_end(virtual_clock())
        await trio.sleep(10)
        assert rig.positions.net(GAME) == 3_000
        maker = rig.add_quoter(OTHER).maker

        assert "portfolio" in maker.holds


async def test_a_breach_that_is_interrupted_starts_anew(autojump_clock: MockClock) -> None:
    """Six seconds in breach, one out, six in: no trip."""
    found = watch(portfolio_mae_limit=Money(2_000_000), mae_failsafe_cents=100)
    async with running(found):
        await trio.sleep(1)
        buy(found.rig, 3_000, 5_000)
        for _ in range(3):
            found.rig.book(4_200, 4_300)
            await trio.sleep(6)
            found.rig.book(4_900, 5_100)
            await trio.sleep(1)

        assert found.verdicts == []


async def test_after_a_flatten_the_exchange_is_asked(autojump_clock: MockClock) -> None:
    """Our fills say flat: its own position has the last word; a failed question is asked again."""
    found = watch()
    rig = found.rig
    async with running(found):
        await trio.sleep(1)
        buy(rig, 1_000, 5_000)
        await trio.sleep(1)
        assert found.checks == 0
        found.check_error = ExchangeUnavailable("reset")
        rig.floor.makers[GAME].flatten(FlattenReason.OPERATOR)
        rig.floor.order_changed(GAME)
        await trio.sleep(2)
        assert rig.positions.net(GAME) == 0
        assert found.checks >= 2
        found.check_error = None
        await trio.sleep(1)
        done = found.checks
        await trio.sleep(5)

        assert found.checks == done
        assert found.triggers == [(GAME, FlattenReason.OPERATOR)]


async def test_a_refused_key_comes_out(autojump_clock: MockClock) -> None:
    """401 on the question ends the session."""
    found = watch()
    found.check_error = AuthError("bad key", status=401)
    with pytest.RaisesGroup(AuthError, flatten_subgroups=True, allow_unwrapped=True):
        async with running(found):
            found.rig.floor.makers[GAME].needs_position_check = True
            await trio.sleep(1)


async def test_books_that_contradict_themselves_stop_everything(autojump_clock: MockClock) -> None:
    """A bug, not a market's private trouble."""
    found = watch()
    with pytest.RaisesGroup(InvariantError, flatten_subgroups=True, allow_unwrapped=True):
        async with running(found):
            buy(found.rig, 1_000, 5_000)
            found.rig.positions.inventory(GAME).bought = Count(1)
            await trio.sleep(1)


async def test_triggers_are_told_once(autojump_clock: MockClock) -> None:
    """Each flatten, when it begins, whoever began it."""
    found = watch(mae_activation_window=Micros(2 * SECOND))
    async with running(found):
        await trio.sleep(1)
        buy(found.rig, 1_000, 5_000, side=ASK)
        found.rig.book(5_900, 6_100)
        await trio.sleep(6)

        assert found.triggers == [(GAME, FlattenReason.MAE_FAILSAFE)]
        assert found.rig.positions.net(GAME) == 0

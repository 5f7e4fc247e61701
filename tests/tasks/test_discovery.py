"""Discovery: the day's markets get a quoter, what is over loses it, and nothing needs a restart."""

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import trio
from trio.testing import MockClock

from fake_exchange import FakeExchange, refuse, virtual_clock
from mm.domain.errors import ConfigError
from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus, Series
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId
from mm.engine.parameters import StrategyParameters
from mm.engine.selection import Selection
from mm.exchange.port import (
    AuthError,
    ExchangeError,
    ExchangeUnavailable,
    MarketEvent,
    MarketEventKind,
)
from mm.tasks.discovery import FULL_PERIOD_S, LOOK_PERIOD_S, Discovery
from task_rig import BID, TaskRig, make_market, open_books

TODAY, TOMORROW, YESTERDAY = "26SEP21", "26SEP22", "26SEP20"
"""The virtual clock starts at 14:13 UTC, 10:13 Eastern, of TODAY."""


def game(name: str, team: str, date: str = TODAY, volume: int = 0, **changes: Any) -> Market:
    return make_market(f"KXNHLGAME-{date}{name}-{team}", volume=Count(volume), **changes)


@attrs.define(eq=False)
class Scout:
    """A discovery on a fake exchange, and what it told."""

    rig: TaskRig
    discovery: Discovery
    selections: list[Selection] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)
    settlements: int = 0

    @property
    def quoted(self) -> set[str]:
        """Last parts of the quoted tickers."""
        return {ticker.rpartition("-")[2] for ticker in self.rig.floor.quoters}

    def list(self, *markets: Market) -> None:
        """The venue's listing from now on."""
        self.rig.exchange.listing = list(markets)

    def event(self, market: Market, kind: MarketEventKind) -> None:
        """The lifecycle channel speaks."""
        event = MarketEvent(ticker=market.ticker, kind=kind)
        self.rig.handler.on_market_event(event)
        self.rig.handler.on_read_end(virtual_clock())


def scout(
    *markets: Market,
    date: dt.date | Literal["today", "any"] = "today",
    series: tuple[str, ...] = ("KXNHLGAME",),
    **parameters: Any,
) -> Scout:
    exchange = FakeExchange(listing=list(markets))
    exchange.known_series = {ticker: Series(ticker=ticker) for ticker in series}
    rig = TaskRig(exchange=exchange, parameters=StrategyParameters(**parameters))
    discovery = Discovery(
        exchange=exchange,
        floor=rig.floor,
        tools=rig.tools,
        feed=exchange.feed,
        reads=rig.reads,
        clock=virtual_clock,
        series=series,
        market_date=date,
    )
    found = Scout(rig, discovery)

    def problem(what: str, exc: ExchangeError) -> None:
        found.problems.append(f"{what}: {exc}")

    def settlement_due() -> None:
        found.settlements += 1

    discovery.on_selection = found.selections.append
    discovery.on_problem = problem
    discovery.on_settlement_due = settlement_due
    rig.handler.on_market = discovery.on_market_event
    return found


@asynccontextmanager
async def running(found: Scout) -> AsyncGenerator[trio.Nursery, None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.rig.writes.run)
        await nursery.start(found.discovery.run, nursery)
        yield nursery
        nursery.cancel_scope.cancel()


def position(rig: TaskRig, ticker: str, count: int = 500) -> None:
    rig.positions.load(
        Fill(
            order_id=OrderId("old"),
            trade_id=TradeId("old"),
            ticker=MarketTicker(ticker),
            side=BID,
            price=Price(5_000),
            count=Count(count),
            fee=Money(0),
            liquidity=Liquidity.MAKER,
            ts=Micros(1),
        )
    )


async def test_the_days_games_are_taken_and_watched(autojump_clock: MockClock) -> None:
    """One market a game, the busier; a quoter each, its book asked for; the rest has its reasons."""
    found = scout(
        game("VGKMIN", "VGK", volume=900),
        game("VGKMIN", "MIN", volume=800),
        game("TORBOS", "TOR", volume=100),
        game("EDMCGY", "EDM", TOMORROW, volume=999),
    )
    async with running(found):
        assert found.quoted == {"VGK", "TOR"}
        assert found.rig.exchange.feed.watched == set(found.rig.floor.quoters)
        assert found.discovery.last is not None
        assert len(found.discovery.last.candidates) == 4


async def test_it_is_started_only_after_a_look_succeeded(autojump_clock: MockClock) -> None:
    """The venue is down at first: tried again with growing pauses, and told."""
    found = scout(game("VGKMIN", "VGK"))
    down = refuse(ExchangeUnavailable("connection refused"))
    found.rig.exchange.script("markets", *[down] * 4)
    async with running(found):
        assert trio.current_time() > 3
        assert found.quoted == {"VGK"}
        assert len(found.problems) == 4


async def test_a_refused_key_comes_out(autojump_clock: MockClock) -> None:
    """401: not retried here."""
    found = scout()
    found.rig.exchange.always("markets", refuse(AuthError("bad key", status=401)))
    with pytest.RaisesGroup(AuthError, flatten_subgroups=True, allow_unwrapped=True):
        async with running(found):
            pass
    assert len(found.rig.exchange.called("markets")) == 1


async def test_no_games_now_keeps_looking(autojump_clock: MockClock) -> None:
    """Nothing to quote is no error; a market that is created is taken at once, without a restart."""
    found = scout()
    async with running(found):
        await trio.sleep(60)
        assert found.quoted == set()
        new = game("VGKMIN", "VGK")
        found.list(new)
        found.event(new, MarketEventKind.CREATED)
        await trio.sleep(1)

        assert found.quoted == {"VGK"}


async def test_a_missed_event_is_made_up_for_by_the_next_look(autojump_clock: MockClock) -> None:
    """The socket said nothing: within a few seconds the new game is found all the same."""
    found = scout()
    async with running(found):
        found.list(game("VGKMIN", "VGK"))
        await trio.sleep(LOOK_PERIOD_S + 1)

        assert found.quoted == {"VGK"}


async def test_a_burst_of_events_is_one_look(autojump_clock: MockClock) -> None:
    """Sixty markets are created in one second: not sixty listings."""
    found = scout()
    async with running(found):
        before = len(found.rig.exchange.called("markets"))
        markets = [game(f"G{i:02}", "AAA") for i in range(60)]
        found.list(*markets)
        for market in markets:
            found.event(market, MarketEventKind.CREATED)
            await trio.sleep(1 / 60)
        await trio.sleep(1)

        assert len(found.rig.exchange.called("markets")) - before <= 8
        assert len(found.quoted) <= 1 or len(found.rig.floor.quoters) == 16


async def test_other_series_events_cause_no_look(autojump_clock: MockClock) -> None:
    """The lifecycle channel speaks of the whole venue."""
    found = scout()
    async with running(found):
        before = len(found.rig.exchange.called("markets"))
        for i in range(100):
            found.event(make_market(f"KXBTC-26SEP21-{i}"), MarketEventKind.CREATED)
        await trio.sleep(1)

        assert len(found.rig.exchange.called("markets")) == before


async def test_the_day_turns_at_midnight_in_the_east(autojump_clock: MockClock) -> None:
    """Tomorrow's games are taken when it is tomorrow in New York, not in Greenwich; today's stay until they end."""
    tonight, tomorrow = game("VGKMIN", "VGK"), game("EDMCGY", "EDM", TOMORROW)
    found = scout(tonight, tomorrow)
    async with running(found):
        to_midnight = (dt.datetime(2026, 9, 22, 4, tzinfo=dt.UTC).timestamp()) - virtual_clock() / SECOND
        await trio.sleep(to_midnight - 3 * 3_600)
        assert found.quoted == {"VGK"}  # it is the 22nd in UTC
        await trio.sleep(3 * 3_600 + 10)

        assert found.quoted == {"VGK", "EDM"}


async def test_a_market_that_is_over_is_let_go_when_nothing_of_ours_is_left(
    autojump_clock: MockClock,
) -> None:
    """Its quoter ends, its book is not watched any more, its place is free, its settlement is asked for."""
    old, new = game("VGKMIN", "VGK", volume=9), game("TORBOS", "TOR")
    found = scout(old, new, max_markets_to_trade=1)
    async with running(found):
        found.rig.book(4_000, 6_000, old.ticker)
        await trio.sleep(1)
        assert found.rig.resting(BID, old.ticker)
        found.list(attrs.evolve(old, status=MarketStatus.DETERMINED), new)
        found.event(old, MarketEventKind.DETERMINED)
        await trio.sleep(15)

        assert found.quoted == {"TOR"}
        assert found.rig.exchange.feed.watched == {new.ticker}
        assert found.rig.resting(BID, old.ticker) == []
        assert found.settlements >= 1
        assert old.ticker not in found.rig.floor.books


async def test_a_paused_market_keeps_its_place(autojump_clock: MockClock) -> None:
    """It leaves the list of open markets while it is paused: asked for by name, held, and quoted again."""
    market = game("VGKMIN", "VGK")
    found = scout(market)
    async with running(found):
        found.rig.book(4_000, 6_000, market.ticker)
        await trio.sleep(1)
        found.list(attrs.evolve(market, status=MarketStatus.INACTIVE))
        await trio.sleep(LOOK_PERIOD_S + 2)
        assert found.quoted == {"VGK"}
        assert found.rig.resting(BID, market.ticker) == []
        found.list(market)
        await trio.sleep(LOOK_PERIOD_S + 2)

        assert found.rig.resting(BID, market.ticker)


async def test_yesterdays_market_in_which_we_hold_something_is_taken_at_the_start(
    autojump_clock: MockClock,
) -> None:
    """The game ran past midnight and the bot was restarted: the position is looked after."""
    old = game("VGKMIN", "VGK", YESTERDAY)
    found = scout(old, game("EDMCGY", "EDM", YESTERDAY))
    position(found.rig, old.ticker)
    async with running(found):
        assert found.quoted == {"VGK"}


async def test_a_held_market_of_another_series_is_asked_for_by_name(autojump_clock: MockClock) -> None:
    """SERIES_TICKER was changed between two runs: what we hold of the old series is still managed."""
    other = make_market("KXNBAGAME-26SEP20LALBOS-LAL")
    found = scout(game("VGKMIN", "VGK"), other)
    position(found.rig, other.ticker)
    async with running(found):
        assert found.quoted == {"VGK", "LAL"}


async def test_a_market_taken_after_its_position_was_found_to_differ_is_held(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The exchange holds 5 for us that no fill explains, in a market not quoted yet: taken, it is not quoted."""
    market = game("VGKMIN", "VGK")
    found = scout()
    found.rig.exchange.foreign_positions[market.ticker] = Count(500)
    async with open_books(tmp_path) as ledger, running(found) as nursery:
        await nursery.start(found.rig.reconciler(ledger).run)
        await trio.sleep(20)
        found.list(market)
        found.event(market, MarketEventKind.CREATED)
        await trio.sleep(1)
        found.rig.book(4_000, 6_000, market.ticker)
        await trio.sleep(1)
        assert found.quoted == {"VGK"}
        assert found.rig.resting(BID, market.ticker) == []
        assert "drift" in found.rig.floor.makers[market.ticker].holds
        found.rig.exchange.foreign_positions.clear()
        await trio.sleep(10)

        assert found.rig.resting(BID, market.ticker)


async def test_several_series_are_one_list(autojump_clock: MockClock) -> None:
    """Sorted by volume over all of them."""
    found = scout(
        game("VGKMIN", "VGK", volume=5),
        make_market("KXNBAGAME-26SEP21LALBOS-LAL", volume=Count(9)),
        series=("KXNHLGAME", "KXNBAGAME"),
        max_markets_to_trade=1,
    )
    async with running(found):
        assert found.quoted == {"LAL"}


async def test_unknown_series_are_named_all_at_once(autojump_clock: MockClock) -> None:
    """Before anything is quoted."""
    found = scout(series=("KXNHLGAME",))
    found.discovery.series = ("KXNHLGAME", "KXNOSUCH", "KXNEITHER")

    with pytest.raises(ConfigError) as caught:
        await found.discovery.check_series()

    assert len(caught.value.problems) == 2
    assert "KXNOSUCH" in str(caught.value)
    assert "KXNEITHER" in str(caught.value)


async def test_a_series_whose_fees_are_not_understood_is_not_quoted(autojump_clock: MockClock) -> None:
    """Flat fees: left out, with the reason."""
    found = scout(game("VGKMIN", "VGK"))
    found.rig.exchange.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME", fee_type=FeeType.FLAT)
    await found.discovery.check_series()
    async with running(found):
        assert found.quoted == set()
        assert found.discovery.last is not None
        assert "fee type" in found.discovery.last.candidates[0].why


async def test_a_full_slate_is_looked_at_rarely(autojump_clock: MockClock) -> None:
    """No room for more: the listing is read once a minute."""
    found = scout(game("VGKMIN", "VGK"), max_markets_to_trade=1)
    async with running(found):
        before = len(found.rig.exchange.called("markets"))
        await trio.sleep(10 * FULL_PERIOD_S)

        assert len(found.rig.exchange.called("markets")) - before <= 11


async def test_a_new_grid_in_the_listing_is_followed(autojump_clock: MockClock) -> None:
    """The lifecycle event was missed: the next look brings the grid."""
    market = game("VGKMIN", "VGK")
    found = scout(market)
    async with running(found):
        fine = uniform_grid(Price(10))
        found.list(attrs.evolve(market, grid=fine))
        await trio.sleep(LOOK_PERIOD_S + 1)

        assert found.rig.floor.makers[market.ticker].market.grid is fine


async def test_a_slate_that_ends_is_followed_by_the_next(autojump_clock: MockClock) -> None:
    """All games end; the next slate is listed: taken within ten seconds, without a restart."""
    first = [game(f"A{i}", "AAA") for i in range(4)]
    second = [game(f"B{i}", "BBB") for i in range(4)]
    found = scout(*first, max_markets_to_trade=4)
    async with running(found):
        found.list(*(attrs.evolve(m, status=MarketStatus.FINALIZED) for m in first), *second)
        for market in first:
            found.event(market, MarketEventKind.SETTLED)
        await trio.sleep(10)

        assert set(found.rig.floor.quoters) == {m.ticker for m in second}

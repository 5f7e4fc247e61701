"""The whole venue: walked within the read budget, kept small, new markets found, and markets rotated cleanly."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from fake_exchange import PAGE, FakeExchange, refuse, virtual_clock
from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.market import Incentive, Market, MarketStatus, Series
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import OrderId
from mm.engine.parameters import StrategyParameters
from mm.engine.selection import MIN_STAY
from mm.exchange.port import Bucket, ExchangeUnavailable
from mm.tasks import catalogue as catalogue_module
from mm.tasks.catalogue import NEW_EVERY_S, WALK_EVERY_S, Catalogue
from mm.tasks.discovery import Discovery
from task_rig import BID, TaskRig, make_market


def wide(number: int, volume: int = 2_400_000, *, series: str = "KXWIDE", **changes: Any) -> Market:
    values: dict[str, Any] = {
        "yes_bid": Price(4_800),
        "yes_ask": Price(5_200),
        "volume_24h": Count(volume),
        "expected_expiration": Micros(virtual_clock() + 24 * 3_600 * SECOND),
    }
    return make_market(f"{series}-E{number:05d}-A", **(values | changes))


def rig_of(*markets: Market, **parameters: Any) -> tuple[TaskRig, Catalogue]:
    exchange = FakeExchange(listing=list(markets))
    exchange.known_series = {
        "KXWIDE": Series(ticker="KXWIDE", fee_type=FeeType.QUADRATIC),
        "KXFLAT": Series(ticker="KXFLAT", fee_type=FeeType.FLAT),
    }
    rig = TaskRig(exchange=exchange, parameters=StrategyParameters(**parameters))
    found = Catalogue(
        exchange=exchange,
        reads=rig.reads,
        clock=virtual_clock,
        parameters=lambda: rig.floor.parameters,
        limits=exchange.rate_limits(),
    )
    return rig, found


async def test_a_walk_reads_every_page_and_keeps_what_is_worth_it(autojump_clock: MockClock) -> None:
    """Ten markets at three a page; flat fees and dead markets are not kept."""
    markets = [wide(n) for n in range(8)] + [wide(8, series="KXFLAT"), wide(9, volume=0)]
    rig, found = rig_of(*markets)

    await found.walk()

    assert found.pages == -(-10 // PAGE)
    assert found.listed == 10
    assert sorted(found.markets) == [m.ticker for m in markets[:8]]
    assert len(rig.exchange.called("all_series")) == 1


async def test_only_the_best_are_kept_however_many_are_listed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is for what may be quoted."""
    markets = [wide(n, volume=1_000_000 + 10_000 * n) for n in range(300)]
    _, found = rig_of(*markets, max_markets_to_trade=2)
    _, other = rig_of()
    monkeypatch.setattr(catalogue_module, "LEAST_KEPT", 1_000)
    other.fees = {"KXWIDE": FeeSchedule(FeeType.QUADRATIC)}
    other.add(markets)
    monkeypatch.setattr(catalogue_module, "LEAST_KEPT", 20)

    await found.walk()

    assert len(found.markets) == 20
    assert (
        sorted(w.per_token for w in found.worth.values())
        == sorted(w.per_token for w in other.worth.values())[-20:]
    )


async def test_the_first_walk_leaves_half_of_the_read_bucket_alone(autojump_clock: MockClock) -> None:
    """A venue of 300 pages takes as long as the refill: the reconciler's tokens are not spent."""
    rig, found = rig_of(*(wide(n) for n in range(300)))
    limits = attrs.evolve(found.limits, read=Bucket(refill_per_s=200.0, capacity=400.0))
    rig.reads.limits = found.limits = limits
    lowest = 400.0

    async def watch() -> None:
        nonlocal lowest
        while True:
            lowest = min(lowest, rig.reads.bucket.refill(virtual_clock()))
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await found.walk()
        nursery.cancel_scope.cancel()

    assert lowest >= 190.0
    assert (
        3.0 <= trio.current_time() <= 6.0
    )  # 100 pages at 10 tokens: 1,000 less 200 at the start, at 200 a second


async def test_what_is_gone_at_the_next_walk_is_forgotten_and_new_ones_are_found_before(
    autojump_clock: MockClock,
) -> None:
    """Incremental between walks; whole walks are far apart and slow."""
    rig, found = rig_of(*(wide(n) for n in range(7)))
    async with trio.open_nursery() as nursery:
        await nursery.start(found.run)
        first = len(rig.exchange.called("open_markets_page"))
        rig.exchange.listing = [wide(n) for n in range(1, 8)]
        rig.exchange.newborn = {wide(7).ticker}
        await trio.sleep(NEW_EVERY_S + 1)
        assert wide(7).ticker in found.markets
        assert wide(0).ticker in found.markets
        new = rig.exchange.called("open_markets_page")[first:]
        assert all(call.details["created_since"] is not None for call in new)
        await trio.sleep(WALK_EVERY_S + 60)
        assert wide(0).ticker not in found.markets
        assert found.walks == 2
        nursery.cancel_scope.cancel()


async def test_trouble_is_told_and_outlived(autojump_clock: MockClock) -> None:
    """A venue that cannot be listed now is listed later."""
    rig, found = rig_of(wide(1))
    told: list[str] = []
    found.on_problem = lambda what, exc: told.append(f"{what}: {exc}")
    rig.exchange.script("open_markets_page", refuse(ExchangeUnavailable("away")))
    async with trio.open_nursery() as nursery:
        await nursery.start(found.run)
        nursery.cancel_scope.cancel()

    assert told == ["catalogue: away"]
    assert list(found.markets) == [wide(1).ticker]


async def test_incentives_lift_a_market(autojump_clock: MockClock) -> None:
    """A program of 100 dollars over ten hours: a twentieth of it an hour is what we count on."""
    rig, found = rig_of(wide(1), wide(2))
    now = virtual_clock()
    rig.exchange.incentives = [
        Incentive(
            ticker=wide(1).ticker,
            is_liquidity=True,
            starts_at=Micros(now - 3_600 * SECOND),
            ends_at=Micros(now + 9 * 3_600 * SECOND),
            reward=Money(100_000_000),
        )
    ]
    await found.walk()

    assert found.rewards == {wide(1).ticker: 500_000}
    assert found.best()[0] == wide(1).ticker


@attrs.define(eq=False)
class Wide:
    """A discovery over the whole venue on a fake exchange."""

    rig: TaskRig
    catalogue: Catalogue
    discovery: Discovery

    def relist(self, *markets: Market) -> None:
        """The venue's listing from now on, and the catalogue's as a walk would leave it."""
        self.rig.exchange.listing = list(markets)
        self.catalogue.markets.clear()
        self.catalogue.worth.clear()
        self.catalogue.add(markets)


@asynccontextmanager
async def everywhere(*markets: Market, **parameters: Any) -> AsyncGenerator[Wide, None]:
    rig, catalogue = rig_of(*markets, **parameters)
    await catalogue.walk()
    discovery = Discovery(
        exchange=rig.exchange,
        floor=rig.floor,
        tools=rig.tools,
        feed=rig.exchange.feed,
        reads=rig.reads,
        clock=virtual_clock,
        series=("*",),
        market_date="today",
        catalogue=catalogue,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        await discovery.check_series()
        await nursery.start(discovery.run, nursery)
        yield Wide(rig, catalogue, discovery)
        nursery.cancel_scope.cancel()


async def test_the_best_of_the_venue_are_quoted_whatever_their_series_and_date(
    autojump_clock: MockClock,
) -> None:
    """No date is in these tickers; only what is quoted is watched."""
    async with everywhere(
        *(wide(n, volume=1_000_000 * (n + 1)) for n in range(9)), max_markets_to_trade=3
    ) as world:
        best = {wide(n).ticker for n in (8, 7, 6)}
        assert set(world.rig.floor.quoters) == best
        assert world.rig.exchange.feed.watched == best


async def test_a_market_that_is_worth_little_now_makes_room_and_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    """Its quotes go first, then its book and its subscription; the better one comes at the look after."""
    async with everywhere(wide(1), wide(2), max_markets_to_trade=2) as world:
        rig = world.rig
        for n in (1, 2):
            rig.book(4_800, 5_200, wide(n).ticker)
        await trio.sleep(2)
        assert len(rig.exchange.resting()) == 4
        await trio.sleep(MIN_STAY / SECOND)
        world.relist(wide(1, volume=100_000), wide(2), wide(3, volume=9_000_000))
        await trio.sleep(180)

        assert set(rig.floor.quoters) == {wide(2).ticker, wide(3).ticker}
        assert rig.exchange.resting(wide(1).ticker) == []
        assert wide(1).ticker not in rig.floor.books
        assert wide(1).ticker not in rig.exchange.feed.watched
        assert not rig.floor.leaving
        assert world.discovery.rotated == 1


async def test_a_market_with_a_position_is_wound_down_and_not_dropped(autojump_clock: MockClock) -> None:
    """Only the side that closes is quoted, at no more than is held; once it is flat the market goes."""
    async with everywhere(wide(1), max_markets_to_trade=1) as world:
        rig, ticker = world.rig, wide(1).ticker
        rig.book(4_800, 5_200, ticker)
        await trio.sleep(1)
        bought = next(r for r in rig.resting(BID, ticker))
        rig.exchange.fill(bought.order_id, 400)
        await trio.sleep(1)
        await trio.sleep(MIN_STAY / SECOND)
        world.relist(wide(1, volume=100_000), wide(3, volume=9_000_000))
        await trio.sleep(180)

        assert ticker in rig.floor.leaving
        assert set(rig.floor.quoters) == {ticker}
        resting = rig.exchange.resting(ticker)
        assert [(r.side.value, r.remaining) for r in resting] == [("ask", 400)]

        rig.exchange.fill(resting[0].order_id, 400)
        await trio.sleep(180)
        assert set(rig.floor.quoters) == {wide(3).ticker}


async def test_an_order_of_unknown_outcome_keeps_its_market(autojump_clock: MockClock) -> None:
    """However flat it looks: something may rest there."""
    async with everywhere(wide(1), max_markets_to_trade=1) as world:
        rig, ticker = world.rig, wide(1).ticker
        rig.book(4_800, 5_200, ticker)
        await trio.sleep(1)
        cut = refuse(ExchangeUnavailable("away"))
        for name in ("cancel", "order", "orders_page"):
            rig.exchange.always(name, cut)
        rig.floor.wind_down(ticker)
        await trio.sleep(30)
        await world.discovery._retire()
        assert ticker in rig.floor.quoters
        for name in ("cancel", "order", "orders_page"):
            rig.exchange.always(name, None)
        await trio.sleep(60)
        assert ticker not in rig.floor.quoters or not rig.floor.leaving


async def test_a_market_held_from_an_earlier_run_is_taken_whatever_it_is_worth(
    autojump_clock: MockClock,
) -> None:
    """Somebody has to look after it."""
    rig, catalogue = rig_of(wide(1), wide(2, volume=0), max_markets_to_trade=2)
    rig.positions.load(
        Fill(
            order_id=OrderId("old"),
            trade_id=TradeId("old"),
            ticker=wide(2).ticker,
            side=BID,
            price=Price(5_000),
            count=Count(500),
            fee=Money(0),
            liquidity=Liquidity.MAKER,
            ts=Micros(1),
        )
    )
    await catalogue.walk()
    discovery = Discovery(
        exchange=rig.exchange,
        floor=rig.floor,
        tools=rig.tools,
        feed=rig.exchange.feed,
        reads=rig.reads,
        clock=virtual_clock,
        series=("*",),
        market_date="today",
        catalogue=catalogue,
    )

    assert {m.ticker for m in (await discovery.select()).chosen} == {wide(1).ticker, wide(2).ticker}


async def test_a_status_told_by_the_socket_is_not_undone_by_an_old_listing(autojump_clock: MockClock) -> None:
    """What is quoted is asked for by name."""
    async with everywhere(wide(1), max_markets_to_trade=1) as world:
        maker = world.rig.floor.makers[wide(1).ticker]
        world.rig.exchange.listing = [wide(1, status=MarketStatus.INACTIVE)]
        await world.discovery.select()
        assert maker.market.status is MarketStatus.INACTIVE

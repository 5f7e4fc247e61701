"""The life of games and markets: ends, follow-ups, pauses; and determinism."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import trio

from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, DOLLAR, SECOND, Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import from_datetime, parse_event_token
from mm.exchange.embedded.core.events import (
    MarketChange,
    MarketUpdated,
)
from mm.exchange.embedded.slate.generated import GeneratedSlate

START = from_datetime(dt.datetime(2026, 11, 24, 22, 0, tzinfo=dt.UTC))
OpenSlate = Callable[..., tuple[Any, GeneratedSlate]]


class TestLife:
    def test_end_of_a_game(self, open_slate: OpenSlate) -> None:
        """close_date_updated, determined, settled after the timer; the winner pays a dollar; the next game came before."""
        venue, slate = open_slate(seed=3, speed=300.0, games=4)
        first = list(slate.games)
        venue.play(slate, 60, step_s=0.02)
        news: dict[MarketTicker, list[tuple[MarketChange, Micros]]] = defaultdict(list)
        for event in venue.log:
            if isinstance(event, MarketUpdated):
                news[event.ticker].append((event.change, event.ts))
        created = sorted(
            ts for told in news.values() for change, ts in told if change is MarketChange.CREATED
        )

        assert len(slate.games) > 8
        for game in first:
            for line in game.listing.lines:
                changes = [change for change, _ in news[line.ticker]]
                market = venue.core.markets()[line.ticker]
                assert changes == [
                    MarketChange.CREATED,
                    MarketChange.CLOSE_DATE_UPDATED,
                    MarketChange.DETERMINED,
                    MarketChange.SETTLED,
                ]
                assert market.status is MarketStatus.FINALIZED
                assert market.settlement_value == (DOLLAR if line.team is game.fixture.script.winner else 0)
                settled = dict(news[line.ticker])[MarketChange.SETTLED]
                finished = game.start + int(game.fixture.script.duration / slate.speed * SECOND)
                assert any(finished <= ts < settled for ts in created)

    def test_games_follow_each_other_with_new_pairs(self, open_slate: OpenSlate) -> None:
        """There are always as many open games as places, every ticker is new and carries the same date."""
        venue, slate = open_slate(seed=3, speed=400.0, games=3)
        venue.play(slate, 90, step_s=0.02)
        tickers = list(venue.core.markets())
        active = [m for m in venue.core.markets().values() if m.status is MarketStatus.ACTIVE]

        assert len(tickers) == len(set(tickers)) >= 12
        assert len({parse_event_token(ticker).date for ticker in tickers}) == 1
        assert 6 <= len(active) <= 12

    def test_prices_end_where_the_game_ends(self, open_slate: OpenSlate) -> None:
        """Before the close the loser's market is at the bottom, the winner's at the top."""
        venue, slate = open_slate(seed=9, speed=20.0, games=1)
        game = slate.games[0]
        finish = game.start + int(game.fixture.script.duration / slate.speed * SECOND)
        venue.play(slate, (finish - venue.now) / SECOND + 0.7, step_s=0.02)

        for crowd, line in zip(game.crowds, game.listing.lines, strict=True):
            if line.team is game.fixture.script.winner:
                assert crowd.market.last_price >= 90 * CENT or crowd.market.best_bid >= 90 * CENT
            else:
                assert crowd.market.last_price <= 10 * CENT or crowd.market.best_ask <= 10 * CENT

    def test_a_pause_is_survived(self, open_slate: OpenSlate) -> None:
        """Traders are refused while the exchange is paused and stand again afterwards, with no order left behind."""
        venue, slate = open_slate(seed=2, speed=10.0, games=2)
        venue.play(slate, 2)
        venue.core.set_exchange_active(venue.now, 0, False)
        venue.play(slate, 5)
        assert slate.floor.refusals["exchange_is_paused"]
        venue.core.set_exchange_active(venue.now, 0, True)
        venue.play(slate, 10)

        for game in slate.games:
            for crowd in game.crowds:
                assert crowd.market.best_bid is not None
                assert abs((crowd.market.best_bid + crowd.market.best_ask) / 2 / CENT - crowd.fair) < 6

    def test_a_reactivated_market_is_filled_again(self, open_slate: OpenSlate) -> None:
        """`activate` cancels everything that rests; within seconds the makers are back."""
        venue, slate = open_slate(seed=2, speed=10.0, games=1)
        market = slate.games[0].crowds[0].market
        venue.core.deactivate(venue.now, market.ticker)
        venue.play(slate, 1)
        venue.core.activate(venue.now, market.ticker)
        assert market.best_bid is None

        venue.play(slate, 5)

        assert market.best_ask - market.best_bid <= 4 * CENT


class TestDeterminism:
    def test_same_seed_same_trace(self, open_slate: OpenSlate) -> None:
        """Two runs of one seed emit the same events, byte for byte; another seed does not."""
        traces = []
        for seed in (7, 7, 8):
            venue, slate = open_slate(seed, speed=20.0)
            venue.play(slate, 4)
            traces.append(venue.trace())

        assert traces[0] == traces[1]
        assert traces[0] != traces[2]

    async def test_on_the_virtual_clock(
        self, make_venue: Callable[[], Any], autojump_clock: trio.testing.MockClock
    ) -> None:
        """`run` on trio: started with books there, then the same events on every run."""

        async def trace() -> str:
            venue = make_venue()
            begun = trio.current_time()
            venue.clock = lambda: Micros(  # type: ignore[method-assign]
                START + round((trio.current_time() - begun) * SECOND)
            )
            slate = GeneratedSlate(seed=5, speed=10.0)
            async with trio.open_nursery() as nursery:
                await nursery.start(slate.run, venue)
                assert all(market.best_bid for market in venue.core.markets().values())
                await trio.sleep(3)
                nursery.cancel_scope.cancel(reason="enough")
            return venue.trace()

        assert await trace() == await trace()

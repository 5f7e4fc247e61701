"""How the markets behave: books like the real ones, goals, informed takers."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import pytest

from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, CONTRACT, DOLLAR, SECOND, Count, Micros, Money
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import from_datetime
from mm.exchange.embedded.core.events import (
    BookDelta,
    FillReported,
    TradePrinted,
)
from mm.exchange.embedded.core.model import OrderRequest
from mm.exchange.embedded.slate.games import GameEventKind
from mm.exchange.embedded.slate.generated import GeneratedSlate
from mm.exchange.embedded.slate.live import LiveGame
from mm.exchange.embedded.slate.makers import INFORMED, Floor

START = from_datetime(dt.datetime(2026, 11, 24, 22, 0, tzinfo=dt.UTC))
OpenSlate = Callable[..., tuple[Any, GeneratedSlate]]


def spreads_and_depths(venue: Any) -> Iterable[tuple[int, float]]:
    """(spread in cents, contracts at the best bid) of every active two-sided market."""
    for market in venue.core.markets().values():
        if market.best_bid is not None and market.best_ask is not None:
            yield (market.best_ask - market.best_bid) // CENT, market.book.bids.best_level.total / CONTRACT


class TestBooks:
    def test_spread_depth_and_rate_at_speed_one(self, open_slate: OpenSlate) -> None:
        """Mostly one or two cents wide, thousands of contracts at the touch, 3-15 book changes/s a market."""
        venue, slate = open_slate(seed=4, speed=1.0)
        venue.log.clear()
        seen: list[tuple[int, float]] = []
        venue.play(slate, 30, each=lambda: seen.extend(spreads_and_depths(venue)), step_s=0.5)
        deltas = Counter(event.ticker for event in venue.log if isinstance(event, BookDelta))
        rates = [count / 30 for count in deltas.values()]

        assert sum(spread <= 2 for spread, _ in seen) > 0.9 * len(seen)
        assert 1000 < median(depth for _, depth in seen) < 20_000
        assert sum(depth < 150 for _, depth in seen) > 0.02 * len(seen)
        assert 3 < sum(rates) / 32 < 15

    def test_rates_stop_growing_at_two_thousand(self, open_slate: OpenSlate) -> None:
        """Ten times the speed at 100 does not mean ten times the traders: about 2,000 changes/s, thinned evenly."""
        counts = {}
        for speed in (10.0, 100.0):
            venue, slate = open_slate(seed=4, speed=speed)
            venue.log.clear()
            venue.play(slate, 10)
            deltas = Counter(event.ticker for event in venue.log if isinstance(event, BookDelta))
            counts[speed] = sum(deltas.values()) / 10
            assert len(deltas) >= 32

        assert 1000 < counts[10.0] < 2600
        assert 1000 < counts[100.0] < 3500

    def test_never_crossed(self, open_slate: OpenSlate) -> None:
        """No book is crossed or locked at any time."""
        venue, slate = open_slate(seed=6, speed=50.0)

        venue.play(slate, 20, each=lambda: any(spread <= 0 for spread, _ in spreads_and_depths(venue)))

        assert all(spread > 0 for spread, _ in spreads_and_depths(venue))

    def test_the_two_markets_of_a_game_agree(self, open_slate: OpenSlate) -> None:
        """The asks of a pair cost 1-4 cents more than a dollar nearly always: there is nothing free for long."""
        venue, slate = open_slate(seed=2, speed=5.0)
        costs: list[int] = []

        def look() -> None:
            for game in slate.games:
                pair = [crowd.market for crowd in game.crowds]
                if all(m.best_ask is not None and m.status is MarketStatus.ACTIVE for m in pair):
                    costs.append((sum(m.best_ask for m in pair) - DOLLAR) // CENT)

        venue.play(slate, 30, each=look, step_s=0.25)

        assert sum(0 <= cost <= 5 for cost in costs) > 0.9 * len(costs)
        assert sum(cost < 0 for cost in costs) < 0.02 * len(costs)

    def test_prints_come_in_all_sizes(self, open_slate: OpenSlate) -> None:
        """From one contract to hundreds, some with a fraction, some sweeps over several levels."""
        venue, slate = open_slate(seed=3, speed=10.0)
        venue.log.clear()
        venue.play(slate, 30)
        trades = [event.trade for event in venue.log if isinstance(event, TradePrinted)]
        counts = [trade.count for trade in trades]

        assert min(counts) <= CONTRACT
        assert max(counts) > 500 * CONTRACT
        assert 3 * CONTRACT < median(counts) < 100 * CONTRACT
        assert any(count % CONTRACT for count in counts)
        assert {trade.taker_side for trade in trades} == {Side.BID, Side.ASK}


def next_goal(slate: GeneratedSlate, after: Micros, least_jump: float = 8.0) -> tuple[LiveGame, Micros]:
    """The first goal after a moment that moves an undecided game."""
    found = []
    for game in slate.games:
        for before, event in zip(game.fixture.script.events, game.fixture.script.events[1:], strict=False):
            due = Micros(game.start + int(event.at / slate.speed * SECOND))
            if event.kind is not GameEventKind.GOAL or due <= after:
                continue
            line, strengths = game.listing.lines[0], game.fixture.script.strengths
            jump = line.probability(strengths, event.after) - line.probability(strengths, before.after)
            if abs(jump) * 100 >= least_jump and 0.2 < line.probability(strengths, before.after) < 0.8:
                found.append((due, game))
    due, game = min(found, key=lambda pair: pair[0])
    return game, due


class TestGoals:
    @pytest.fixture(name="goal")
    def _goal(self, open_slate: OpenSlate) -> tuple[Any, GeneratedSlate, LiveGame, Micros]:
        """A slate played to two seconds before a goal that matters."""
        venue, slate = open_slate(seed=8, speed=4.0)
        game, due = next_goal(slate, Micros(venue.now + 5 * SECOND))
        venue.play(slate, (due - venue.now) / SECOND - 2.0, step_s=0.02)
        return venue, slate, game, due

    def test_price_follows_within_seconds(self, goal: tuple[Any, GeneratedSlate, LiveGame, Micros]) -> None:
        """Five seconds after the goal the mid is near the new probability, in both markets."""
        venue, slate, game, _ = goal
        before = [crowd.market.best_bid for crowd in game.crowds]

        venue.play(slate, 7)

        for crowd, old in zip(game.crowds, before, strict=True):
            mid = (crowd.market.best_bid + crowd.market.best_ask) / 2 / CENT
            assert abs(mid - crowd.fair) < 3
            assert abs(mid - old / CENT) > 4

    def test_burst_mass_cancel_and_wide_market(
        self, goal: tuple[Any, GeneratedSlate, LiveGame, Micros]
    ) -> None:
        """Around a goal: over 100 changes in a second, the fast maker gone, the spread wide, then narrow again."""
        venue, slate, game, due = goal
        ticker = game.crowds[0].market.ticker
        venue.log.clear()
        widest = 0

        def look() -> None:
            nonlocal widest
            market = game.crowds[0].market
            if market.best_bid is not None and market.best_ask is not None:
                widest = max(widest, (market.best_ask - market.best_bid) // CENT)

        venue.play(slate, 17, each=look)
        per_tenth = Counter(
            event.ts // (SECOND // 10)
            for event in venue.log
            if isinstance(event, BookDelta) and event.ticker == ticker
        )
        start = due // (SECOND // 10)
        busiest = max(sum(per_tenth[start + i + k] for k in range(10)) for i in range(-5, 15))

        assert 100 <= busiest <= 450
        assert widest >= 5
        assert game.crowds[0].market.best_ask - game.crowds[0].market.best_bid <= 3 * CENT

    def test_informed_takers_hit_a_stale_quote_within_a_second(
        self, goal: tuple[Any, GeneratedSlate, LiveGame, Micros]
    ) -> None:
        """A client's quote left at the old price is gone within 1.2 s of the goal, taken by those who know."""
        venue, slate, game, due = goal
        venue.core.add_user("client")
        venue.core.deposit(venue.now, "client", 0, Money(1_000_000_000))
        crowd = game.crowds[0]
        venue.play(slate, (due - venue.now) / SECOND - 0.3)
        bid, ask = crowd.market.best_bid, crowd.market.best_ask
        for side, price in ((Side.BID, bid), (Side.ASK, ask)):
            venue.core.create(
                venue.now,
                "client",
                OrderRequest(
                    ticker=crowd.market.ticker, side=side, price=price, count=Count(1000), post_only=True
                ),
            )
        venue.log.clear()

        venue.play(slate, 3)

        hits = [
            event.fill
            for event in venue.log
            if isinstance(event, FillReported) and event.fill.user_id == "client"
        ]
        rising = crowd.fair > (bid + ask) / 2 / CENT
        stale = Side.ASK if rising else Side.BID
        assert any(fill.side is stale and 0.2 <= (fill.ts - due) / SECOND <= 1.2 for fill in hits)
        assert sum(fill.count for fill in hits if fill.side is stale) == 1000

    def test_reactions_are_wall_time_at_any_speed(
        self, open_slate: OpenSlate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At speed 60 too the informed taker needs 0.3 to 1 s of wall time."""
        venue, slate = open_slate(seed=8, speed=60.0)
        game, due = next_goal(slate, Micros(venue.now + 2 * SECOND))
        tickers = {crowd.market.ticker for crowd in game.crowds}
        venue.play(slate, (due - venue.now) / SECOND + 0.28)
        taken: list[float] = []
        take = Floor.take

        def spy(floor: Floor, user: str, ticker: MarketTicker, side: Side, limit: int, count: Count) -> Count:
            if user == INFORMED and ticker in tickers:
                taken.append((floor.now - due) / SECOND)
            return take(floor, user, ticker, side, limit, count)

        monkeypatch.setattr(Floor, "take", spy)
        venue.play(slate, 0.75)

        assert taken
        assert min(taken) >= 0.29

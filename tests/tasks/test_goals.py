"""The goal guard at work: a game's markets are held together, new ones join, the scoreboard is read, quotes come back."""

import attrs
import pytest

from mm.domain.game import GameState, GameStatus
from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.view import Regime
from mm.exchange.kalshi.games import to_game
from mm.settings.sports import load_sports
from mm.tasks.floor import Floor
from mm.tasks.goals import CAUSE, GoalKeeper
from mm.tasks.positions import Positions

TOR, BOS, OTHER = (
    MarketTicker(f"KXNHLGAME-26SEP21{game}") for game in ("TORBOS-TOR", "TORBOS-BOS", "NYRCHI-NYR")
)
T0 = Micros(1_790_000_000 * SECOND)


@attrs.define(eq=False)
class Evening:
    """Two games on a floor, with a guard; the clock is set by hand."""

    told: list[tuple[str, str]] = attrs.field(factory=list)
    floor: Floor = attrs.field(init=False)
    keeper: GoalKeeper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.floor = Floor(parameters=StrategyParameters(), clock=lambda: T0, positions=Positions())
        self.keeper = GoalKeeper(
            floor=self.floor, sports=load_sports(), tell=lambda game, reason: self.told.append((game, reason))
        )
        for ticker in (TOR, OTHER):
            self.take(ticker)
        self.keeper.look(T0)

    def take(self, ticker: MarketTicker) -> None:
        market = Market(
            ticker=ticker, event_ticker=ticker[:-4], status=MarketStatus.ACTIVE, grid=uniform_grid(CENT)
        )
        self.floor.add_market(market)
        self.book(ticker, 4_900)

    def book(self, ticker: MarketTicker, bid: int) -> None:
        self.floor.books[ticker].snapshot([(Price(bid), Count(10_000))], [(Price(bid + 200), Count(10_000))])
        self.keeper.on_snapshot(ticker)

    def held(self, ticker: MarketTicker) -> str:
        return self.floor.makers[ticker].holds.get(CAUSE, "")


def test_a_goal_holds_every_market_of_its_game_and_no_other() -> None:
    """All of the game, with the reason in words; told once; marked to be decided at once."""
    evening = Evening()
    evening.take(BOS)
    evening.keeper.look(T0)
    evening.floor.dirty.clear()
    evening.book(TOR, 5_400)
    evening.keeper.look(Micros(T0 + SECOND // 2))
    assert "jumped" in evening.held(TOR)
    assert evening.held(BOS) == evening.held(TOR)
    assert evening.held(OTHER) == ""
    assert set(evening.floor.dirty) == {TOR, BOS}
    assert [game for game, _ in evening.told] == ["nhl 26SEP21TORBOS"]


def test_a_market_taken_while_its_game_is_pulled_is_held_too() -> None:
    """Discovery takes the sister market in the middle of it."""
    evening = Evening()
    evening.book(TOR, 5_400)
    evening.keeper.look(Micros(T0 + SECOND // 2))
    evening.take(BOS)
    evening.keeper.look(Micros(T0 + SECOND))
    assert evening.held(BOS) != ""


def test_quotes_come_back_wider_and_then_as_they_were() -> None:
    """Three ticks further out, one, none; the hold is gone."""
    evening = Evening()
    evening.book(TOR, 5_400)
    evening.keeper.look(Micros(T0 + SECOND // 2))
    ticks = []
    for second in (5, 10, 15, 20):
        evening.keeper.look(Micros(T0 + second * SECOND))
        ticks.append(evening.floor.makers[TOR].context.goal_ticks)
    assert evening.held(TOR) == ""
    assert ticks == [3, 1, 0, 0]
    assert evening.keeper.wake_at is None


def test_the_scoreboard_sets_the_regime_and_a_goal_on_it_pulls() -> None:
    """Strategies see the regime; a goal that the tape has not shown pulls as well."""
    evening = Evening()
    state = GameState(status=GameStatus.LIVE, period=2, clock_left=Micros(300 * SECOND), home=1)
    evening.keeper.on_game(TOR, state, T0)
    evening.keeper.look(T0)
    assert evening.floor.makers[TOR].context.regime is Regime.PLAY
    evening.keeper.on_game(TOR, attrs.evolve(state, home=2), Micros(T0 + 5 * SECOND))
    evening.keeper.look(Micros(T0 + 5 * SECOND))
    assert "2-0 on the scoreboard" in evening.held(TOR)


def test_a_game_whose_markets_are_gone_is_forgotten() -> None:
    """Memory is bounded by the games that are on."""
    evening = Evening()
    evening.keeper.on_change(TOR, Side.BID, Price(4_900), 100, T0)
    evening.floor.remove_market(TOR)
    evening.keeper.forget_ended()
    assert list(evening.keeper.guards) == ["nhl 26SEP21NYRCHI"]


def test_a_series_of_no_known_sport_is_left_alone() -> None:
    """No guard, no hold, no error."""
    evening = Evening()
    ticker = MarketTicker("KXBTCD-26SEP2117-T100")
    evening.take(ticker)
    evening.book(ticker, 6_000)
    evening.keeper.look(Micros(T0 + SECOND))
    assert evening.keeper.guard_of(ticker) is None
    assert evening.held(ticker) == ""


def test_live_data_is_read_as_the_venue_tells_it() -> None:
    """Status, round, clock, points, empty net; 00:00 in play is a break; an unknown status says nothing."""
    details = {
        "status": "live",
        "round": 3,
        "final_round_time_left": "01:30",
        "home_points": 2,
        "away_points": 3,
        "empty_net": "home",
    }
    found = to_game({"live_data": {"type": "hockey_game", "details": details}})
    assert found == GameState(
        status=GameStatus.LIVE,
        period=3,
        clock_left=Micros(90 * SECOND),
        home=2,
        away=3,
        is_empty_net=True,
    )
    pause = to_game({"live_data": {"details": {**details, "final_round_time_left": "00:00"}}})
    assert pause is not None
    assert pause.is_break
    assert to_game({"live_data": {"details": {"status": "rain"}}}) is None
    assert to_game({"live_data": None}) is None
    with pytest.raises(ValueError, match="not MM:SS"):
        to_game({"live_data": {"details": {**details, "final_round_time_left": "soon"}}})

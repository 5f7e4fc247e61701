"""The goal guard: what looks like a goal pulls a whole game, ordinary trading does not, and quotes come back in steps."""

from pathlib import Path

import attrs
import pytest

from mm.domain.book import OrderBook
from mm.domain.errors import ConfigError
from mm.domain.fill import Trade, TradeId
from mm.domain.game import GameState, GameStatus
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderState, Side
from mm.engine.goals.guard import GoalGuard, Phase, value_at_risk
from mm.engine.goals.sport import RegimeAction, Sport, parse_sport, regime_of
from mm.engine.strategies.view import Regime
from mm.settings.sports import load_sports

BID, ASK = Side.BID, Side.ASK
ONE, TWO = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR"), MarketTicker("KXNHLGAME-26SEP21TORBOS-BOS")
T0 = Micros(1_790_000_000 * SECOND)


def at(seconds: float) -> Micros:
    return Micros(T0 + round(seconds * SECOND))


@attrs.define(eq=False)
class Rink:
    """A guard with two books of ten levels a side."""

    guard: GoalGuard = attrs.field(factory=lambda: GoalGuard(load_sports()["KXNHLGAME"]))
    books: dict[MarketTicker, OrderBook] = attrs.field(factory=dict)
    prints: int = 0

    def __attrs_post_init__(self) -> None:
        for ticker in (ONE, TWO):
            self.set_book(ticker, 4_900)

    def set_book(self, ticker: MarketTicker, bid: int, ask: int | None = None) -> None:
        book = self.books.setdefault(ticker, OrderBook())
        ask = bid + 200 if ask is None else ask
        book.snapshot(
            [(Price(bid - 100 * n), Count(100_000)) for n in range(10)],
            [(Price(ask + 100 * n), Count(100_000)) for n in range(10)],
        )
        self.guard.tape(ticker).is_changed = True

    def change(self, ticker: MarketTicker, side: Side, price: int, change: int, seconds: float) -> None:
        self.books[ticker].apply_delta(side, Price(price), Count(change))
        self.guard.on_change(ticker, side, Price(price), change, at(seconds))

    def trade(self, ticker: MarketTicker, price: int, contracts: int, side: Side, seconds: float) -> None:
        self.prints += 1
        trade = Trade(
            trade_id=TradeId(f"t{self.prints}"),
            ticker=ticker,
            price=Price(price),
            count=Count(contracts * 100),
            taker_side=side,
            ts=at(seconds),
        )
        self.guard.on_trade(trade, at(seconds))

    def look(self, seconds: float) -> Phase:
        self.guard.look(self.books, at(seconds))
        return self.guard.phase


def game(home: int = 1, away: int = 1, **changes: object) -> GameState:
    found: dict[str, object] = {
        "status": GameStatus.LIVE,
        "period": 2,
        "clock_left": Micros(600 * SECOND),
        "home": home,
        "away": away,
    }
    return GameState(**{**found, **changes})  # type: ignore[arg-type]


def test_levels_cancelled_on_both_sides_at_once_pull_the_game() -> None:
    """Somebody who sees the goal takes everything off: six levels, some on each side, without a trade."""
    rink = Rink()
    assert rink.look(0) is Phase.CLEAR
    for n in range(3):
        rink.change(ONE, BID, 4_900 - 100 * n, -60_000, 1.0)
        rink.change(ONE, ASK, 5_100 + 100 * n, -60_000, 1.0)
    assert rink.look(1.0) is Phase.PULLED
    assert "cancelled" in rink.guard.reason


def test_levels_that_were_traded_away_are_no_cancels() -> None:
    """A print explains what its level lost."""
    rink = Rink()
    rink.look(0)
    for n in range(2):
        rink.change(ONE, ASK, 5_100 + 100 * n, -60_000, 1.0)
        rink.trade(ONE, 5_100 + 100 * n, 600, BID, 1.0)
        rink.change(ONE, BID, 4_900 - 100 * n, -60_000, 1.0)
        rink.trade(ONE, 4_900 - 100 * n, 600, ASK, 1.0)
    assert rink.look(1.0) is Phase.CLEAR


def test_one_side_that_is_moved_by_a_maker_is_no_goal() -> None:
    """Levels go on one side and come back a cent away: a maker follows the price."""
    rink = Rink()
    rink.look(0)
    for n in range(7):
        rink.change(ONE, BID, 4_900 - 100 * n, -60_000, 1.0)
    assert rink.look(1.0) is Phase.CLEAR


def test_an_order_that_sweeps_through_three_cents_pulls_the_game() -> None:
    """The same print times, prices running one way."""
    rink = Rink()
    rink.look(0)
    for price in (5_100, 5_200, 5_300, 5_400):
        rink.trade(TWO, price, 5, BID, 1.0)
    assert rink.look(1.0) is Phase.PULLED
    assert "bought through 3 c" in rink.guard.reason


def test_a_jump_of_the_sister_market_pulls_both() -> None:
    """Nothing happens in our market; the other one moves four cents within a second."""
    rink = Rink()
    rink.look(0)
    rink.set_book(TWO, 5_300)
    assert rink.look(0.8) is Phase.PULLED
    assert TWO in rink.guard.reason


def test_the_same_move_within_a_minute_is_no_jump() -> None:
    """A price that drifts is not news."""
    rink = Rink()
    for n in range(5):
        rink.set_book(ONE, 4_900 + 100 * n)
        assert rink.look(12.0 * n) is Phase.CLEAR


def test_a_large_order_that_moves_nothing_is_no_goal() -> None:
    """Size alone is no news."""
    rink = Rink()
    rink.look(0)
    rink.trade(ONE, 5_100, 50_000, BID, 1.0)
    assert rink.look(1.0) is Phase.CLEAR


def test_quotes_come_back_in_steps_once_the_book_has_settled() -> None:
    """Not before 3 s, not while the mid moves or the book is wide; then three ticks further out, one, none."""
    rink = Rink()
    rink.look(0)
    rink.set_book(ONE, 5_500, 6_500)
    rink.set_book(TWO, 3_800, 4_800)
    assert rink.look(0.5) is Phase.PULLED
    assert rink.look(8.0) is Phase.PULLED  # ten cents wide
    rink.set_book(ONE, 5_900)
    rink.set_book(TWO, 3_900)
    assert rink.look(9.0) is Phase.PULLED  # just moved
    assert rink.look(11.9) is Phase.PULLED
    assert rink.guard.look(rink.books, at(12.1)).ticks == 3
    assert rink.guard.look(rink.books, at(17.2)).ticks == 1
    clear = rink.guard.look(rink.books, at(22.2))
    assert (clear.ticks, clear.is_pulled, clear.reason) == (0, False, "")


def test_a_book_that_never_settles_does_not_keep_us_out_for_ever() -> None:
    """After a minute and a half it comes back at the widest step."""
    rink = Rink()
    rink.look(0)
    rink.set_book(ONE, 5_500, 6_500)
    assert rink.look(0.5) is Phase.PULLED
    assert rink.look(90.0) is Phase.PULLED
    assert rink.look(90.6) is Phase.WIDER


def test_a_goal_on_the_scoreboard_pulls_unless_the_tape_has_told_it() -> None:
    """The scoreboard is late: what the tape has seen is confirmed, not pulled again."""
    rink = Rink()
    rink.guard.on_game(game(1, 1), at(0))
    rink.look(0)
    rink.guard.on_game(game(2, 1), at(5))
    assert rink.look(5) is Phase.PULLED
    assert "2-1" in rink.guard.reason

    other = Rink()
    other.guard.on_game(game(1, 1), at(0))
    other.look(0)
    other.set_book(ONE, 5_500)
    other.look(0.5)
    assert (other.guard.goals_seen, other.guard.confirmed) == (1, 0)
    for n in range(20):
        other.look(1.0 + n)
    other.guard.on_game(game(2, 1), at(30))
    assert other.look(30) is Phase.CLEAR
    assert (other.guard.goals_seen, other.guard.confirmed) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": GameStatus.SCHEDULED, "period": 0}, Regime.PRE_GAME),
        ({}, Regime.PLAY),
        ({"is_break": True, "clock_left": Micros(0)}, Regime.BREAK),
        ({"period": 3, "clock_left": Micros(100 * SECOND)}, Regime.LAST_MINUTES),
        ({"period": 3, "clock_left": Micros(100 * SECOND), "home": 6}, Regime.PLAY),
        ({"is_empty_net": True}, Regime.LAST_MINUTES),
        ({"period": 4}, Regime.OVERTIME),
        ({"status": GameStatus.FINISHED}, Regime.FINAL),
    ],
)
def test_the_scoreboard_says_which_regime_a_game_is_in(changes: dict[str, object], expected: Regime) -> None:
    """Status, period, clock, score and empty net."""
    assert regime_of(game(**changes), Sport(name="nhl")) is expected  # type: ignore[arg-type]


def test_the_last_minutes_of_a_close_game_are_not_quoted() -> None:
    """A regime holds the game by itself, and frees it when it is over."""
    rink = Rink()
    rink.guard.on_game(game(period=3, clock_left=Micros(60 * SECOND)), at(0))
    verdict = rink.guard.look(rink.books, at(0))
    assert verdict.is_pulled
    assert "last minutes" in verdict.reason


def test_value_at_risk_counts_what_a_jump_goes_through() -> None:
    """Ten contracts at the mid lose the whole jump, those far away nothing."""

    def order(price: int) -> Order:
        return Order(
            client_order_id=ClientOrderId(f"mm-s-{price}"),
            ticker=ONE,
            side=BID,
            price=Price(price),
            count=Count(1_000),
            state=OrderState.RESTING,
        )

    assert value_at_risk([order(5_000)], Price(5_000)) == 980 * 1_000
    assert value_at_risk([order(4_800)], Price(5_000)) == 780 * 1_000
    assert value_at_risk([order(3_000)], Price(5_000)) == 0


def test_a_sports_file_is_checked_key_by_key(tmp_path: Path) -> None:
    """A key that means nothing is told with the file's name; two sports cannot claim one series."""
    with pytest.raises(ConfigError, match="here: no such key 'sweep'"):
        parse_sport({"name": "x", "sweep": 3}, "here")
    with pytest.raises(ConfigError, match="regimes"):
        parse_sport({"name": "x", "regimes": {"halftime": "pull"}}, "here")
    found = parse_sport({"name": "x", "sweep_cents": 2, "regimes": {"break": "widen"}}, "here")
    assert (found.sweep, found.regimes[Regime.BREAK]) == (200, RegimeAction.WIDEN)
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\nseries = ["KXSAME"]\n')
    with pytest.raises(ConfigError, match="KXSAME belongs to a"):
        load_sports(tmp_path)

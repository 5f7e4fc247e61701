"""Defects that the old bot had, by their number in the strategy's list: those of the books and of the decisions."""

import datetime as dt
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import mm
from mm.domain.grid import uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import eastern_date, next_eastern_midnight, parse_time, read_time
from mm.engine.diff import SideTimer, plan_side
from mm.engine.mark import MidEma, Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import position_state, wanted_quotes
from mm.engine.requote import QuoteAction, decide_quote
from mm.engine.selection import select_markets
from mm.exchange.kalshi import codec, wire
from mm.exchange.kalshi.reading import Codec

BID, ASK = Side.BID, Side.ASK
DEFAULTS = StrategyParameters()
CENTS = uniform_grid(CENT)
FAR = Touch(Price(100), Price(9_900))


def fill_row(**changes: Any) -> dict[str, Any]:
    """A fill as the venue lists it: we sold YES at 0.60, which it also calls NO at 0.40."""
    return {
        "fill_id": "t1",
        "trade_id": "t1",
        "order_id": "o1",
        "ticker": "KXNHLGAME-26OCT12VGKMIN-VGK",
        "market_ticker": "KXNHLGAME-26OCT12VGKMIN-VGK",
        "exchange_index": 0,
        "side": "no",
        "action": "sell",
        "outcome_side": "no",
        "book_side": "ask",
        "count_fp": "10.00",
        "yes_price_dollars": "0.6000",
        "no_price_dollars": "0.4000",
        "is_taker": False,
        "fee_cost": "0.042000",
        "created_time": "2026-10-12T23:10:01.25Z",
        **changes,
    }


def booked(**changes: Any) -> InventoryState:
    """The inventory after that fill, read from the wire."""
    state = InventoryState()
    state.apply_fill(codec.to_fill(Codec().structure(fill_row(**changes), wire.Fill)))
    return state


def test_defect_01_a_sell_no_fill_is_no_long() -> None:
    """A fill that reads sell/no is a sale of YES: it opens a short and closes a long."""
    assert booked().net == -1_000

    state = InventoryState()
    state.apply(BID, Price(5_000), Count(1_000), Money(0), Micros(0))
    state.apply_fill(codec.to_fill(Codec().structure(fill_row(), wire.Fill)))

    assert (state.net, state.realized_gross) == (0, 1_000_000)


def test_defect_02_no_prices_never_reach_vwap_or_pnl() -> None:
    """Short at YES 0.60 (NO 0.40), settled at 0.50: one dollar gained, not lost; the average entry is 0.60."""
    state = booked()

    assert state.vwap_entry == 6_000
    assert state.mae(Price(6_800)) == 800
    state.settle(Price(5_000), Micros(9))
    assert state.realized_gross == 1_000_000


def test_defect_03_a_sell_fill_when_flat_opens_a_short() -> None:
    """Nothing is dropped: the contracts sold from flat are a short position."""
    state = InventoryState()

    state.apply(ASK, Price(6_000), Count(700), Money(0), Micros(5))

    assert (state.net, [(x.count, x.price) for x in state.layers]) == (-700, [(700, 6_000)])


@pytest.mark.parametrize(
    "value",
    [
        "2026-10-12T23:10:01.250000Z",
        "2026-10-12T23:10:01.25Z",
        "2026-10-12T19:10:01.25-04:00",
        1_791_846_601_250,
        "1791846601250",
        1_791_846_601_250_000,
    ],
)
def test_defect_09_fill_times_as_text_or_as_integer(value: str | int) -> None:
    """One moment however it is spelled; a reader of fills never stumbles over it."""
    assert read_time(value) == parse_time("2026-10-12T23:10:01.25Z")
    (layer,) = booked(created_time=value).layers
    assert layer.ts == parse_time("2026-10-12T23:10:01.25Z")


@pytest.mark.parametrize("value", ["", "yesterday", "-5", 10**18, -1])
def test_defect_09_what_is_no_time_is_refused_once(value: str | int) -> None:
    """Nonsense is an error with the value in it, not a date in 1970."""
    with pytest.raises(ValueError, match="not a"):
        read_time(value)


def market(ticker: str, volume: int = 0) -> Market:
    return Market(
        ticker=MarketTicker(ticker),
        event_ticker=ticker.rpartition("-")[0],
        status=MarketStatus.ACTIVE,
        grid=CENTS,
        volume=Count(volume),
    )


def test_defect_13_today_is_the_us_eastern_day() -> None:
    """At 01:30 UTC of the 13th it is still the 12th in New York: tonight's games are today's, tomorrow's are not."""
    now = parse_time("2026-10-13T01:30:00Z")
    tonight, tomorrow = market("KXNHLGAME-26OCT12VGKMIN-VGK"), market("KXNHLGAME-26OCT13TORBOS-TOR")

    chosen = select_markets([tonight, tomorrow], date=eastern_date(now), max_markets=16, per_game=1).chosen

    assert eastern_date(now) == dt.date(2026, 10, 12)
    assert chosen == [tonight]
    assert next_eastern_midnight(now) == parse_time("2026-10-13T04:00:00Z")
    assert eastern_date(next_eastern_midnight(now)) == dt.date(2026, 10, 13)


def test_defect_13_the_day_changes_with_daylight_saving() -> None:
    """The day on which the clocks go back has 25 hours, and no date is ever written into the code."""
    start = parse_time("2026-11-01T04:00:00Z")

    assert next_eastern_midnight(start) - start == 25 * 3_600 * SECOND


def test_defect_14_two_markets_of_one_game_are_one_game() -> None:
    """With room for two: two games, the busier market of each; both markets only when that is asked for."""
    listing = [
        market("KXNHLGAME-26OCT12VGKMIN-VGK", 900),
        market("KXNHLGAME-26OCT12VGKMIN-MIN", 800),
        market("KXNHLGAME-26OCT12TORBOS-TOR", 100),
        market("KXNHLGAME-26OCT12TORBOS-BOS", 200),
    ]
    day = dt.date(2026, 10, 12)

    one_each = select_markets(listing, date=day, max_markets=2, per_game=1).chosen
    both = select_markets(listing, date=day, max_markets=4, per_game=2).chosen

    assert [m.ticker.rpartition("-")[2] for m in one_each] == ["VGK", "BOS"]
    assert len(both) == 4


def test_defect_17_one_rule_decides_the_state() -> None:
    """Only `quoting` compares a position with the neutral zone (and the old bot's gap, on purpose, in `legacy`)."""
    root = Path(mm.__file__).parent
    users = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "neutral_zone" in path.read_text(encoding="utf-8").replace("neutral_zone_contracts", "")
    }

    assert users == {"engine/parameters.py", "engine/quoting.py", "engine/backtest/legacy.py"}


@pytest.mark.parametrize("contracts", [-50, -21, -20, -19, 0, 19, 20, 21, 50])
def test_defect_17_skew_and_sides_follow_the_same_state(contracts: int) -> None:
    """At and around the zone's edge the half-spread leans exactly when one side only is quoted."""
    state = InventoryState()
    if contracts:
        state.apply(
            BID if contracts > 0 else ASK, Price(5_000), Count(abs(contracts) * 100), Money(0), Micros(0)
        )

    quotes = wanted_quotes(state, Price(5_000), FAR, CENTS, DEFAULTS)

    offsets = {q.side: abs(q.want - 5_000) for q in (quotes.bid, quotes.ask) if q}
    if position_state(state.net, DEFAULTS).value == "neutral":
        assert offsets == {BID: 100, ASK: 100}
    else:
        assert offsets == {state.exit_side: 100 * (1 + Fraction(abs(contracts), 100))}


def test_defect_18_a_wiggle_of_the_average_moves_no_quote() -> None:
    """Prints bounce between 0.50 and 0.51 for a minute: the quotes made at the start are never touched."""
    ema, resting, actions = MidEma(), dict.fromkeys(Side, None), []
    ema.feed(Price(5_050))
    for i in range(60):
        ema.feed(Price(5_000 if i % 2 else 5_100))
        quotes = wanted_quotes(InventoryState(), ema.mark, FAR, CENTS, DEFAULTS)
        for side in Side:
            wanted = quotes.of(side)
            found = decide_quote(side, resting[side], wanted, FAR, None, Micros(i * SECOND), DEFAULTS)
            if found.action is not QuoteAction.KEEP:
                actions.append(found.action)
                resting[side] = wanted.price if wanted else None

    assert actions == [QuoteAction.PLACE, QuoteAction.PLACE]


def test_defect_18_a_real_move_waits_for_the_cooldown_but_a_crossing_quote_does_not() -> None:
    """Rest between two replaces of a side; risk does not rest."""
    quotes = wanted_quotes(InventoryState(), Price(5_500), FAR, CENTS, DEFAULTS)
    timer = SideTimer(last_action=Micros(0))

    early = plan_side(MarketTicker("M"), BID, quotes.bid, [], FAR, timer, Micros(299_999), DEFAULTS)
    later = plan_side(MarketTicker("M"), BID, quotes.bid, [], FAR, timer, Micros(300_000), DEFAULTS)

    assert (early.commands, early.wake_at) == ((), 300_000)
    assert len(later.commands) == 1

"""What a market may earn for its write tokens, and who makes room for whom."""

from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker
from mm.engine.parameters import StrategyParameters
from mm.engine.selection import BETTER_BY, KEPT_AT, LEAVE_AT_ONCE, MIN_STAY, make_room, select_by_worth
from mm.engine.worth import HOUR, TokenCosts, Worth, estimate

NOW = Micros(1_790_000_000 * SECOND)
PARAMETERS = StrategyParameters()
COSTS = TokenCosts()
FREE = FeeSchedule(FeeType.QUADRATIC)
PAID = FeeSchedule(FeeType.QUADRATIC_WITH_MAKER_FEES)
COMBO = FeeSchedule(FeeType.QUADRATIC_WITH_COMBO_MAKER_FEES)


def listed(ticker: str = "KXA-E1-A", **changes: Any) -> Market:
    values: dict[str, Any] = {
        "ticker": MarketTicker(ticker),
        "event_ticker": ticker.rpartition("-")[0],
        "status": MarketStatus.ACTIVE,
        "grid": uniform_grid(CENT),
        "yes_bid": Price(4_800),
        "yes_ask": Price(5_200),
        "volume_24h": Count(2_400_000),
        "expected_expiration": Micros(NOW + 3 * HOUR),
    }
    return Market(**(values | changes))


def worth(market: Market, fees: FeeSchedule | None = FREE, reward: int = 0) -> Worth:
    return estimate(market, fees, Money(reward), NOW, PARAMETERS, COSTS)


def test_the_figures_of_one_market_by_hand() -> None:
    """1,000 contracts an hour, a fifth of them ours, a cent each: 2 dollars an hour, less a little for the time."""
    found = worth(listed())

    gross = 200 * 10_000  # 200 contracts x 1 cent, in 1/1,000,000 dollar
    assert found.income == gross * (7 * 24) // (7 * 24 + 3)
    # 240 renewals, 20 quotes met, 2 x 12 moved: at 10 and 12 tokens.
    assert found.tokens == 240 * 10 + (20 + 2 * 12) * 12
    assert found.per_token == found.income // found.tokens


def test_more_volume_is_worth_more_and_fees_are_worth_less() -> None:
    """Maker fees by type, a waiver, and a spread too narrow for our half-spread."""
    plain = worth(listed())
    assert worth(listed(volume_24h=Count(4_800_000))).per_token > plain.per_token
    assert worth(listed(), PAID).per_token < plain.per_token
    assert worth(listed(), COMBO).per_token < worth(listed(), PAID).per_token
    assert worth(listed(fee_waiver_until=Micros(NOW + HOUR)), PAID) == plain
    assert worth(listed(yes_bid=Price(4_950), yes_ask=Price(5_050))).income < plain.income


def test_an_incentive_counts_and_a_far_event_counts_less() -> None:
    """Half after a week."""
    plain = worth(listed())
    assert worth(listed(), reward=1_000_000).income > plain.income
    in_a_week = worth(listed(expected_expiration=Micros(NOW + 7 * 24 * HOUR)))
    now = worth(listed(expected_expiration=Micros(NOW + HOUR)))
    assert in_a_week.income == pytest.approx(now.income / 2, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": MarketStatus.INACTIVE}, "market is inactive"),
        ({"yes_bid": None}, "no two-sided market"),
        ({"yes_bid": Price(300), "yes_ask": Price(500)}, "extreme price"),
        ({"expected_expiration": Micros(NOW + 60 * SECOND)}, "about to end"),
        ({"volume_24h": Count(0)}, "nobody trades it"),
    ],
)
def test_what_is_not_to_be_quoted_says_why(changes: dict[str, Any], why: str) -> None:
    """And is worth nothing."""
    assert worth(listed(**changes)).why_not == why


def test_fees_that_are_not_known_or_not_understood_are_not_quoted() -> None:
    """Whatever the rest promises; nor is what earns less than its fees."""
    assert worth(listed(), None).why_not == "the fees of its series are not known"
    assert worth(listed(), FeeSchedule(FeeType.FLAT)).why_not == "fee type flat is not understood"
    dear = FeeSchedule(FeeType.QUADRATIC_WITH_MAKER_FEES, Fraction(10))
    assert worth(listed(), dear).why_not == "earns less than its fees"


def test_a_book_wider_than_the_limit_is_left_out() -> None:
    """The strategy would not quote it either."""
    narrow = attrs.evolve(PARAMETERS, max_quoted_spread=Price(300))
    assert estimate(listed(), FREE, Money(0), NOW, narrow, COSTS).why_not == "wider than MAX_QUOTED_SPREAD"


def values(**of: int) -> dict[MarketTicker, Worth]:
    return {MarketTicker(f"KXA-E{t}-A"): Worth(income=Money(v), tokens=1) for t, v in of.items()}


def test_the_best_are_chosen_taken_and_held_ones_first() -> None:
    """One of an event, unless more are allowed."""
    table = values(a=10, b=50, c=30, d=40)
    markets = [listed(t) for t in table] + [listed("KXA-Eb-B")]
    table[MarketTicker("KXA-Eb-B")] = Worth(income=Money(49), tokens=1)

    found = select_by_worth(
        markets,
        table,
        max_markets=3,
        per_game=1,
        taken=[MarketTicker("KXA-Ea-A")],
        held=[MarketTicker("KXA-Ec-A")],
    )

    assert {m.ticker for m in found.chosen} == {"KXA-Ea-A", "KXA-Ec-A", "KXA-Eb-A"}
    why = {c.market.ticker: c.why for c in found.candidates}
    assert why["KXA-Eb-B"] == "another market of the same event is worth more"
    assert why["KXA-Ed-A"] == "beyond MAX_MARKETS_TO_TRADE"


def test_a_market_makes_room_only_for_one_that_is_worth_much_more() -> None:
    """Not for a little more, not before its time, and not where there is room anyway."""
    table = values(a=10, b=20, x=16, y=12)
    taken_at = {MarketTicker(f"KXA-E{t}-A"): Micros(NOW - MIN_STAY) for t in "ab"}
    wanted = [MarketTicker("KXA-Ex-A"), MarketTicker("KXA-Ey-A")]

    def leave(**changes: Any) -> list[MarketTicker]:
        given: dict[str, Any] = {
            "taken_at": taken_at,
            "wanted": wanted,
            "room": 0,
            "now": NOW,
            "max_markets": 2,
        }
        return make_room(table, **(given | changes))

    assert leave() == ["KXA-Ea-A"]
    assert leave(room=1) == []
    assert leave(now=Micros(NOW - 1)) == []
    assert leave(wanted=wanted[1:]) == []


@given(
    mine=st.lists(st.integers(0, 1_000), min_size=1, max_size=60),
    theirs=st.lists(st.integers(0, 1_000), max_size=60),
    room=st.integers(0, 5),
    most=st.integers(1, 200),
)
def test_whatever_leaves_is_beaten_by_far(mine: list[int], theirs: list[int], room: int, most: int) -> None:
    """And never more at once than a share of all."""
    table = values(**{f"m{i}": v for i, v in enumerate(mine)}, **{f"t{i}": v for i, v in enumerate(theirs)})
    wanted = sorted(
        (MarketTicker(f"KXA-Et{i}-A") for i in range(len(theirs))), key=lambda t: (-table[t].per_token, t)
    )
    leaving = make_room(
        table,
        taken_at={MarketTicker(f"KXA-Em{i}-A"): Micros(0) for i in range(len(mine))},
        wanted=wanted,
        room=room,
        now=NOW,
        max_markets=most,
    )

    assert len(leaving) <= max(1, most // LEAVE_AT_ONCE)
    for ticker, other in zip(leaving, wanted[room:], strict=False):
        assert KEPT_AT * table[other].per_token > BETTER_BY * table[ticker].per_token

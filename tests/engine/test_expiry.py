"""How long quotes live: by the event, by what the budget carries, never beyond the longest."""

import pytest

from mm.domain.numbers import SECOND, Micros
from mm.engine.expiry import (
    ENDING,
    ENDING_FROM,
    LONGEST,
    MEAN_RENEWAL,
    QUIET,
    RENEWALS_SHARE,
    RUNNING,
    RUNNING_FROM,
    STEPS,
    quote_life,
    renew_at,
)

NOW = Micros(1_795_400_000 * SECOND)


def life(ends_in: int | None = None, *, quotes: int = 2, refill: float = 100.0, cost: int = 10) -> Micros:
    ends_at = None if ends_in is None else Micros(NOW + ends_in)
    return quote_life(NOW, ends_at, quotes=quotes, renewal_cost=cost, refill_per_s=refill)


@pytest.mark.parametrize(
    ("ends_in", "expected"),
    [
        (None, QUIET),
        (RUNNING_FROM + 1, QUIET),
        (RUNNING_FROM, RUNNING),
        (ENDING_FROM + 1, RUNNING),
        (ENDING_FROM, ENDING),
        (0, ENDING),
        (-7_200 * SECOND, ENDING),
    ],
)
def test_the_nearer_the_end_the_shorter(ends_in: int | None, expected: Micros) -> None:
    """Unknown is quiet; overtime is the end."""
    assert life(ends_in) == expected


@pytest.mark.parametrize("refill", [100.0, 300.0, 600.0, 4_000.0])
@pytest.mark.parametrize("quotes", [2, 32, 64, 200, 1_000])
def test_renewals_never_take_more_than_their_share(quotes: int, refill: float) -> None:
    """Unless the longest life is too short for it: then what is over expires."""
    found = life(0, quotes=quotes, refill=refill)
    a_second = quotes * 10 / (found / SECOND * MEAN_RENEWAL)
    assert found == LONGEST or a_second <= RENEWALS_SHARE * refill * 1.001
    assert ENDING <= found <= LONGEST


def test_a_small_tier_lives_longer_and_a_large_one_as_it_wants() -> None:
    """16 games of two markets, both sides, at the end of all games: Basic cannot carry 20 s, Premier can."""
    assert life(0, quotes=64) > RUNNING > ENDING
    assert life(0, quotes=64, refill=1_000.0) == ENDING
    assert life(0, quotes=100_000) == LONGEST
    assert life(0, quotes=2, refill=0.0) == LONGEST


def test_renewals_of_neighbours_are_spread_and_none_is_late() -> None:
    """Eight different moments in the second eighth before half of the life; on average at `MEAN_RENEWAL`."""
    span = Micros(64 * SECOND)
    expires_at = Micros(NOW + span)
    times = [renew_at(expires_at, span, number) - NOW for number in range(2 * STEPS)]
    assert len(set(times)) == STEPS
    assert span * 3 // 8 <= min(times) < max(times) == span // 2
    assert sum(times) / len(times) == pytest.approx(MEAN_RENEWAL * span)

"""The wide slate: many markets, few of them alive, one seed one slate."""

from collections import Counter

import attrs
import pytest

from mm.domain.numbers import SECOND, Micros
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.rules import Rules
from mm.exchange.embedded.server.paging import page_of_filtered
from mm.exchange.embedded.slate.wide import BOOKED_SHARE, REWARDED, WideSlate

START = Micros(1_796_166_600 * SECOND)


@attrs.define(eq=False)
class Stand:
    """A driver whose clock stands where it is put."""

    core: ExchangeCore
    now: Micros = START

    def clock(self) -> Micros:
        return self.now

    def batch_done(self) -> None:
        """Nobody listens."""


def listed(markets: int, seed: int = 1) -> tuple[Stand, WideSlate]:
    stand = Stand(ExchangeCore(Rules(), UuidSource(1), lambda event: None))
    slate = WideSlate(seed=seed, markets=markets)
    for _ in slate.prepare(stand):
        pass
    return stand, slate


def test_it_lists_exactly_as_many_as_asked_for_and_few_have_a_book() -> None:
    """Popularity falls steeply, so that selection has something to find."""
    stand, slate = listed(2_000)
    states = stand.core.markets()

    assert len(states) == 2_000
    booked = [state for state in states.values() if state.book.bids.best is not None]
    assert len(slate.booked) == 2_000 // BOOKED_SHARE
    assert 0.9 * len(slate.booked) <= len(booked) <= len(slate.booked)
    volumes = sorted((state.volume for state in states.values()), reverse=True)
    assert volumes[0] > 10 * volumes[50] > 0
    assert len(slate.incentive_programs(START)) == REWARDED


def test_a_minute_moves_the_busy_ones_and_leaves_the_rest_alone() -> None:
    """About 200 happenings a second, however many are listed."""
    stand, slate = listed(2_000)
    before = {ticker: state.volume for ticker, state in stand.core.markets().items()}
    for second in range(60):
        stand.now = Micros(START + (second + 1) * SECOND)
        slate.work(stand.now)

    traded = Counter(t for t, state in stand.core.markets().items() if state.volume != before[t])
    assert 10 <= len(traded) <= 100
    assert not slate.floor.refusals["insufficient_balance"]


def test_one_seed_one_slate() -> None:
    """Another seed, another one."""
    (_, one), (_, same), (_, other) = listed(300), listed(300), listed(300, seed=2)

    assert [(m.ticker, m.middle) for m in one.booked] == [(m.ticker, m.middle) for m in same.booked]
    assert [m.ticker for m in one.booked] != [m.ticker for m in other.booked]


@pytest.mark.parametrize("markets", [0, 200_001])
def test_an_impossible_number_is_refused(markets: int) -> None:
    """With what is possible."""
    with pytest.raises(ValueError, match="1 to 200000"):
        WideSlate(seed=1, markets=markets)


def test_pages_of_a_filtered_mapping_hold_each_item_once() -> None:
    """Also when the item that the cursor names does not pass the filter any more."""
    items = {f"k{i:02d}": i for i in range(20)}
    found: list[int] = []
    cursor: str | None = ""
    passes = {i for i in range(20) if i % 3}
    while cursor is not None:
        page, cursor_text = page_of_filtered("x", items, passes.__contains__, limit=4, cursor=cursor)
        found += page
        passes.discard(page[-1])
        cursor = cursor_text or None

    assert found == [i for i in range(20) if i % 3]

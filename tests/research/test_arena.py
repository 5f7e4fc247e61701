"""The arena: the same night twice is the same, exits and quotes go through the real core, the guard keeps quotes out of goals."""

import attrs
import pytest

from mm.domain.errors import ConfigError
from mm.exchange.embedded.slate.games import GameEventKind
from mm.exchange.embedded.slate.schedule import game_seed
from mm.research.arena.nights import BEFORE_S, WINDOW_S, window
from mm.research.arena.run import options_of
from mm.research.arena.table import END, into_page, percentile, ratio, table
from mm.research.arena.world import Night


def short(variant: str, seconds: float = 90.0, games: int = 2) -> Night:
    return Night(17, attrs.evolve(options_of(variant), window_s=seconds, games=games))


def test_a_night_is_the_same_every_time() -> None:
    """Seeded throughout: two plays give equal results, to the micro-dollar."""
    first, second = short("join").play(), short("join").play()
    assert first == second
    assert sum(game["contracts"] for game in first) > 0


def test_every_variant_meets_the_same_games() -> None:
    """Paired: the games and their goals do not depend on who quotes."""
    played = [short(variant, 30.0).play() for variant in ("none", "join", "avellaneda-stoikov")]
    assert len({tuple(game["game"] for game in games) for games in played}) == 1
    assert sum(game["contracts"] for game in played[0]) == 0


def test_each_window_holds_a_goal_and_ends_before_the_game() -> None:
    """The chosen goal falls 5 to 25 minutes after the window begins."""
    for number in range(20):
        script, begin = window(game_seed(3, number, "window"))
        goals = [event.at for event in script.events if event.kind is GameEventKind.GOAL]
        assert any(BEFORE_S[0] - 1 <= goal - begin <= BEFORE_S[1] + 1 for goal in goals)
        assert begin + WINDOW_S < script.duration


def test_money_is_what_the_exchange_booked() -> None:
    """The meter's sums are those of the exchange's own list of our fills, and no taker could have had money for nothing."""
    night = short("hybrid")
    results = night.play()
    booked = night.core.fills("arena", limit=1_000).items
    assert booked
    assert sum(fill.count for fill in booked) == sum(game["contracts"] for game in results)
    assert sum(fill.fee for fill in booked) == sum(game["fees"] for game in results)
    assert all(game["riskless"] == 0 for game in results)


def test_a_variant_that_there_is_not_is_told() -> None:
    """With the names of those there are."""
    with pytest.raises(ConfigError, match="no variant 'hybird'"):
        options_of("hybird")
    assert options_of("hybrid+guard").sport is not None
    assert options_of("hybrid@late").behaviour.lead_s[0] > 0


def test_the_table_compares_only_nights_that_all_have() -> None:
    """A night that one variant lacks is left out, and intervals are clustered by game."""
    entry = {"seed": 1, "variant": "hybrid", "games": short("hybrid", 30.0).play()}
    other = {**entry, "variant": "hybrid+guard"}
    alone = {**entry, "seed": 2}
    text = table([entry, other, alone], ["hybrid", "hybrid+guard"])
    assert text.startswith("1 nights, 2 games")
    assert "no night" in table([alone], ["hybrid", "join"])
    found = ratio([(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)])
    assert found.value == 1.0
    assert found.low < 1.0 < found.high
    assert percentile([1, 2, 3, 4], 0.99) == 4
    assert into_page(f"a <!-- arena --> old {END} b", "new") == f"a <!-- arena -->\n\nnew\n\n{END} b"

"""The simulation repeats, hears its seed, and finds nothing in seeds that once found something."""

import json
import os
import subprocess
import sys
from typing import Any
from unittest import mock

import attrs
import pytest

from mm.domain.errors import ConfigError
from mm.guard.sweep import Report, Sweep
from mm.simulation.everywhere import replay_point
from mm.simulation.mutants import MUTANTS
from mm.simulation.plan import KEPT, LATEST_ERA, Crash, draw_plan
from mm.simulation.play import Result, run_world

MUTANT = {mutant.name: mutant for mutant in MUTANTS}


def play(seed: int, *, is_full: bool = False, era: int = LATEST_ERA) -> Result:
    """One seed's world."""
    return run_world(draw_plan(seed, is_full=is_full, era=era))


@pytest.mark.parametrize("seed", range(1, 9))
def test_short_seeds_hold_and_repeat(seed: int) -> None:
    """Every invariant holds, and a second run is the same to the byte and to the scheduler's step."""
    first, second = play(seed), play(seed)

    assert [v.text() for v in first.violations] == []
    assert first.hash == second.hash
    assert first.steps > 500


@pytest.mark.parametrize("is_full, era, seed", KEPT)
def test_seeds_that_once_failed(is_full: bool, era: int, seed: int) -> None:
    """They hold now; docs/simulation.md tells what they found."""
    assert [v.text() for v in play(seed, is_full=is_full, era=era).violations] == []


@pytest.mark.parametrize("seed", [1, 2])
def test_full_seeds_hold(seed: int) -> None:
    """Long lives, with several crashes."""
    result = play(seed, is_full=True)

    assert [v.text() for v in result.violations] == []
    assert result.crashes >= 1


def test_guardians_take_everything_off_when_the_bot_dies_or_freezes() -> None:
    """Over a few seeds: within 3 s by the guardian."""
    results = [play(seed) for seed in (9, 17)]

    assert [v.text() for result in results for v in result.violations] == []
    assert sum(result.guarded for result in results) >= 2


def test_the_expiry_takes_off_what_bot_and_guardian_leave() -> None:
    """Both die in the same moment, and nobody comes back before the quotes' time to live is over."""
    plan = draw_plan(9)
    plan = attrs.evolve(
        plan,
        faults=(),
        crashes=(Crash(at=15.0, gap=13.0, takes_guardian=True),),
        settings={**plan.settings, "QUOTE_TTL_SEC": "10"},
    )

    result = run_world(plan)

    assert [v.text() for v in result.violations] == []
    assert (result.crashes, result.expired) == (1, 1)


def test_an_invariant_finds_a_guardian_that_does_nothing() -> None:
    """With a guardian that only looks on, orders outlive the bot by more than 3 s, and that is told."""
    with mock.patch.object(Sweep, "run", return_value=Report(True, 0, (), 0, (), 0.0)):
        found = {v.invariant for seed in (9, 17) for v in play(seed).violations}

    assert "guardian too late" in found


def alone(program: str) -> dict[str, Any]:
    """What a program prints as JSON, run in a process of its own: one that forks must have no threads from elsewhere."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=110
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.real
def test_the_bot_is_killed_everywhere_in_a_part_of_a_life() -> None:
    """By fork, at steps and at commits: in order again every time. (`make crash-everywhere` takes them all.)"""
    found = alone(
        """
import json
from mm.simulation.everywhere import Choice, count_points, crash_everywhere
from mm.simulation.plan import draw_plan
plan = draw_plan(4)
counted = count_points(plan)
choice, outcomes = Choice(every=counted.steps // 8, offset=3), []
is_whole = crash_everywhere(plan, choice, jobs=2, on_outcome=outcomes.append)
print(json.dumps({
    "is_whole": is_whole, "taken": counted.taken(choice), "points": [o.point.name for o in outcomes],
    "violations": [text for o in outcomes for text in o.violations],
}))
"""
    )

    assert found["is_whole"]
    assert len(found["points"]) == found["taken"]
    assert {name[0] for name in found["points"]} == {"s", "c"}
    assert found["violations"] == []


@pytest.mark.parametrize("point", ["s1", "s401", "c1", "c5"])
def test_a_point_is_replayed_in_one_process(point: str) -> None:
    """What a child does is done without a fork: the trace can be had, and the verdict is the same each time."""
    lines: list[str] = []
    first = replay_point(draw_plan(4), point, lines.append)

    assert first == replay_point(draw_plan(4), point, None)
    assert (first.point.name, first.violations) == (point, ())
    assert "killed" in lines


def test_a_world_without_such_a_point_is_told() -> None:
    """The message says which points there are."""
    with pytest.raises(ConfigError, match="has s1 to s"):
        replay_point(draw_plan(4), "s999999", None)


@pytest.mark.parametrize(
    "name",
    [
        "orders do not change the exposure",
        "a fill is marked seen before it is booked",
        "the sweep takes everything for ours",
        "a hold is never lifted",
    ],
)
def test_planted_bugs_are_caught(name: str) -> None:
    """A few of `make simulate-mutants`: some invariant breaks within a few seeds."""
    mutant = MUTANT[name]

    found = []
    for seed in range(1, 5):
        with mutant.plant():
            found += play(seed).violations
        if found:
            break

    assert found


@pytest.mark.real
def test_canary_two_processes_one_seed() -> None:
    """Equal in processes that hash strings differently and ran other seeds before; different between seeds."""
    program = (
        "import sys\n"
        "from mm.simulation.run import run_seed\n"
        "for seed in map(int, sys.argv[1:]): print(seed, run_seed(seed, False).hash)\n"
    )

    def hashes(hash_seed: str, *seeds: int) -> dict[str, str]:
        found = subprocess.run(
            [sys.executable, "-c", program, *map(str, seeds)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=110,
        )
        return dict(line.split() for line in found.stdout.splitlines())

    one, other = hashes("1", 3, 4), hashes("2", 5, 4, 3)

    assert one["3"] == other["3"]
    assert one["4"] == other["4"]
    assert len({*one.values(), *other.values()}) == 3


def test_a_world_without_anybody_watching_is_counted() -> None:
    """Lives, orders, fills and faults are told."""
    result = play(8)

    assert result.crashes >= 1
    assert result.orders > 0
    assert result.fills > 0
    assert result.faults
    assert "sent accepted" in result.transitions

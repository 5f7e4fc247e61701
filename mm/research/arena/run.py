"""Many nights in several processes, one line of JSON a night and variant; what is done already is not done again."""

import gc
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import attrs
import structlog

from mm.domain.errors import ConfigError
from mm.engine.goals.sport import Sport
from mm.engine.strategies.registry import BUILT_IN, StrategyTable, build_strategy
from mm.exchange.embedded.slate.goals import MEASURED
from mm.research.arena.world import ArenaOptions, Night
from mm.settings.sports import load_sports

VARIANTS: Final = ("none", "hybrid", "hybrid+guard", "slow-wide-small", "avellaneda-stoikov", "join")
"""In the order of the table. `none` does not quote; `+guard` has the goal guard on."""
LATE: Final = "@late"
"""Marks a variant played against makers that learn of a goal last: nobody pulls before the informed takers come."""
LATE_LEAD_S: Final = (0.3, 1.0)
FIRST_SEED: Final = 1_001
"""Nights before it were for trying things out."""


def options_of(variant: str) -> ArenaOptions:
    """What a variant is played with. Raises `ConfigError` for one that there is not."""
    name, at, late = variant.partition("@")
    name, plus, guard = name.partition("+")
    if (name not in BUILT_IN and name != "none") or (plus and guard != "guard") or (at and late != "late"):
        raise ConfigError(
            [f"no variant {variant!r}; there are none, {', '.join(BUILT_IN)}, each with +guard, @late"]
        )
    sport: Sport | None = load_sports()["KXNHLGAME"] if plus else None
    behaviour = attrs.evolve(MEASURED, lead_s=LATE_LEAD_S) if at else MEASURED
    strategy = build_strategy(BUILT_IN.get(name, BUILT_IN["hybrid"]))
    return ArenaOptions(
        strategies=StrategyTable(strategy), sport=sport, is_quoting=name != "none", behaviour=behaviour
    )


def play(task: tuple[int, str]) -> dict[str, Any]:
    """One night of one variant."""
    seed, variant = task
    began = time.monotonic()
    night = Night(seed, options_of(variant))
    games = night.play()
    return {
        "seed": seed,
        "variant": variant,
        "games": games,
        "refusals": dict(night.refusals),
        "pulls": sum(guard.goals_seen for guard in night.keeper.guards.values()) if night.keeper else 0,
        "seconds": round(time.monotonic() - began, 1),
    }


def _quiet(niceness: int) -> None:
    os.nice(niceness)
    gc.set_threshold(200_000, 50, 50)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def read_done(path: Path) -> list[dict[str, Any]]:
    """The nights in a file; a line torn by an end in the middle is left out."""
    found = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def run_nights(
    variants: Sequence[str],
    nights: int,
    out: Path,
    *,
    jobs: int = 2,
    niceness: int = 10,
    stderr: IO[str] | None = None,
) -> list[dict[str, Any]]:
    """Play what is missing in `out`, night by night over all variants, and return everything in it."""
    stderr = stderr or sys.stderr
    for variant in variants:
        options_of(variant)
    known = {(entry["seed"], entry["variant"]) for entry in read_done(out)}
    tasks = [
        (seed, variant)
        for seed in range(FIRST_SEED, FIRST_SEED + nights)
        for variant in variants
        if (seed, variant) not in known
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _quiet, (niceness,)) as pool, out.open("a") as stream:
        for done, entry in enumerate(pool.imap_unordered(play, tasks), 1):
            stream.write(json.dumps(entry, separators=(",", ":")) + "\n")
            stream.flush()
            left = (time.monotonic() - began) / done * (len(tasks) - done)
            stderr.write(
                f"{done}/{len(tasks)} nights: {entry['variant']} of {entry['seed']}, about {left / 60:.0f} min left\n"
            )
            stderr.flush()
    return [entry for entry in read_done(out) if entry["variant"] in variants]

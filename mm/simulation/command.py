"""`mm simulate`: parse the range, run, tell. Exit code 0 when every invariant held in every seed."""

import os
import sys
import time
from pathlib import Path
from typing import Final

import attrs
import orjson

from mm.domain.errors import ConfigError
from mm.domain.order import TRANSITIONS
from mm.simulation.everywhere import Choice, run_everywhere
from mm.simulation.plan import KEPT, KINDS, LATEST_ERA, draw_plan
from mm.simulation.play import Result, run_world
from mm.simulation.run import Progress, Totals, resumed, run_seeds, shrunk

SHRINK_MOST: Final = 3
"""Failing seeds whose schedule is shrunk."""


def simulate(
    *,
    seeds: str = "1-20",
    full: bool = False,
    jobs: int | None = None,
    minutes: float | None = None,
    trace: Path | None = None,
    json: Path | None = None,
    twice: int = 0,
    shrink: bool = True,
    era: int | None = None,
    kept: bool = False,
    crash_everywhere: str | None = None,
    every: int = 1,
    offset: int = 0,
    point: str = "",
) -> int:
    """Run seeds of the simulation; 0 when all held, 1 when one failed.

    Args:
        seeds: `A-B`, or one number.
        full: Long lives, with more games and faults.
        jobs: Processes; without it one a core. Results do not depend on it.
        minutes: Stop handing out seeds after so long.
        trace: Write the whole trace of the seeds (one process) to this file.
        json: Write the results here; an unfinished file of the same code is gone on from.
        twice: Run the first so many seeds a second time and compare the hashes.
        shrink: Shrink the fault schedule of failing seeds.
        era: 1 plays the worlds of before there were guardians in them; without it the latest.
        kept: Instead, play the seeds that once found something.
        crash_everywhere: Instead, kill the bot at every point of these seeds' lives.
        every: Take every K-th of the steps only.
        offset: Begin with step N + 1.
        point: Only the point of this name, in this process.
    """
    numbers = parse_seeds(seeds)
    workers = jobs if jobs is not None else os.cpu_count() or 1
    if workers < 1:
        raise ConfigError([f"--jobs {workers}: must be 1 or more"])
    if minutes is not None and minutes <= 0:
        raise ConfigError([f"--minutes {minutes:g}: must be above 0"])
    if crash_everywhere is not None:
        choice = Choice(every=every, offset=offset, only=point)
        chosen = parse_seeds(crash_everywhere, "--crash-everywhere")
        return run_everywhere(chosen, choice, jobs=workers, json=json, trace=trace)
    era = LATEST_ERA if era is None else era
    if not 1 <= era <= LATEST_ERA:
        raise ConfigError([f"--era {era}: 1 to {LATEST_ERA}"])
    if kept:
        return _play_kept(workers)
    if trace is not None:
        return _trace(numbers, full, era, trace)
    totals = resumed(json, is_full=full, era=era) if json is not None else Totals()
    todo = [seed for seed in numbers if seed not in totals.hashes]
    started, before = time.monotonic(), totals.wall_s
    until = started + minutes * 60 if minutes is not None else None
    failed: list[Result] = []
    progress = Progress(len(todo))
    done = 0
    interrupted = False
    try:
        for result in run_seeds(todo, is_full=full, jobs=workers, until=until, era=era):
            done += 1
            totals.add(result)
            if result.violations:
                failed.append(result)
                progress.end()
                _tell_failure(result, era)
            progress.show(done, totals)
    except KeyboardInterrupt:
        interrupted = True
    progress.end()
    unequal = [] if interrupted else _compare(numbers[:twice], totals, full, era, workers)
    totals.wall_s = before + time.monotonic() - started
    if json is not None:
        json.write_bytes(
            orjson.dumps(totals.as_json(is_full=full, era=era), option=orjson.OPT_INDENT_2) + b"\n"
        )
    if shrink and not interrupted:
        for result in failed[:SHRINK_MOST]:
            _tell_shrunk(result, era)
    _tell_totals(totals, twice=twice, unequal=unequal, left=len(todo) - done, interrupted=interrupted)
    return 1 if totals.failures or unequal or interrupted else 0


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """`A-B` or `A`. Raises `ConfigError`."""
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last if dash else first)
    except ValueError:
        raise ConfigError([f"{option} {text!r}: A-B, or one number"]) from None
    if low > high:
        raise ConfigError([f"{option} {text!r}: the first is above the last"])
    return list(range(low, high + 1))


def _trace(numbers: list[int], full: bool, era: int, path: Path) -> int:
    failed = False
    with path.open("w") as file:
        for seed in numbers:
            plan = draw_plan(seed, is_full=full, era=era)
            file.write(f"{attrs.evolve(plan, faults=())}\n")
            result = run_world(plan, write=lambda line: file.writelines((line, "\n")))
            failed |= bool(result.violations)
            sys.stdout.write(f"seed {seed}: {result.hash} {'failed' if result.violations else 'held'}\n")
            for violation in result.violations:
                sys.stdout.write(f"  {violation.text()}\n")
    return 1 if failed else 0


def _play_kept(jobs: int) -> int:
    """The seeds that once found something: they must hold."""
    started, bad = time.monotonic(), 0
    for is_full in (False, True):
        for era in range(1, LATEST_ERA + 1):
            seeds = [seed for full, when, seed in KEPT if (full, when) == (is_full, era)]
            for result in (
                run_seeds(seeds, is_full=is_full, jobs=min(jobs, len(seeds)), until=None, era=era)
                if seeds
                else ()
            ):
                if result.violations:
                    bad += 1
                    _tell_failure(result, era)
    sys.stdout.write(f"{len(KEPT)} seeds that once found something, in {time.monotonic() - started:.0f} s\n")
    sys.stdout.write(f"{len(KEPT) - bad} held, {bad} failed\n")
    return 1 if bad else 0


def _compare(numbers: list[int], totals: Totals, full: bool, era: int, jobs: int) -> list[int]:
    """Seeds whose second run has another hash."""
    again = run_seeds(
        [n for n in numbers if n in totals.hashes], is_full=full, jobs=jobs, until=None, era=era
    )
    return [result.seed for result in again if result.hash != totals.hashes[result.seed]]


def _replay(seed: int, is_full: bool, era: int) -> str:
    more = (" --full" if is_full else "") + (f" --era {era}" if era != LATEST_ERA else "")
    return f"mm simulate --seeds {seed}{more} --trace trace-{seed}.txt"


def _tell_failure(result: Result, era: int) -> None:
    out = sys.stdout
    out.write(f"seed {result.seed} failed: {result.violations[0].text()}\n")
    for violation in result.violations[1:4]:
        out.write(f"  also {violation.text()}\n")
    out.write(f"  replay: {_replay(result.seed, result.is_full, era)}\n")
    out.flush()


def _tell_shrunk(result: Result, era: int) -> None:
    lines = shrunk(result, era=era, tell=lambda text: None)
    sys.stdout.write(f"seed {result.seed}, what it takes for {result.violations[0].invariant!r}:\n")
    sys.stdout.writelines(f"  {line}\n" for line in lines)


def _tell_totals(totals: Totals, *, twice: int, unequal: list[int], left: int, interrupted: bool) -> None:
    out = sys.stdout
    bad = sorted({failure["seed"] for failure in totals.failures})
    unseen = [kind for kind in KINDS if kind not in totals.faults]
    out.write(
        f"{len(totals.hashes)} seeds, {totals.simulated_s / 3600:.2f} simulated hours in {totals.wall_s:.0f} s "
        f"({totals.simulated_s / max(totals.wall_s, 1e-9):.0f}x life), {totals.orders} orders, "
        f"{totals.fills} fills, {totals.crashes} crashes\n"
        f"guardians: {totals.guarded} times all off within 3 s of a death or freeze; {totals.expired} times "
        "watched to the end of the time to live\n"
    )
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(totals.faults.items()))
    out.write(f"faults: {counts or 'none'}\n")
    if unseen:
        out.write(f"kinds of faults not seen: {', '.join(unseen)}\n")
    possible = {f"{state.value} {event.value}" for state, event in TRANSITIONS}
    missed = sorted(possible - totals.transitions.keys())
    out.write(f"order-state transitions taken: {len(possible) - len(missed)} of {len(possible)}")
    out.write(f"; not taken: {', '.join(missed)}\n" if missed else "\n")
    if interrupted:
        out.write(f"interrupted, {left} seeds not run\n")
    elif left:
        out.write(f"out of time, {left} seeds not run\n")
    if twice:
        out.write(f"run twice: {twice - len(unequal)} equal, {len(unequal)} different {unequal or ''}\n")
    out.write(f"{len(totals.hashes) - len(bad)} held, {len(bad)} failed{': ' if bad else ''}")
    out.write(", ".join(map(str, bad[:50])) + "\n")

"""Many seeds: over processes, in any order, with the same results; progress, failures, the JSON, and where it was left."""

import hashlib
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

import mm
from mm.simulation.plan import LATEST_ERA, draw_plan
from mm.simulation.play import Result, run_world

SEEDS_A_PROCESS: Final = 60
"""Then a worker is replaced: memory of worlds gone by is not kept for ever."""


@attrs.define
class Totals:
    """What many seeds came to."""

    hashes: dict[int, str] = attrs.field(factory=dict)
    failures: list[dict[str, Any]] = attrs.field(factory=list)
    faults: Counter[str] = attrs.field(factory=Counter)
    transitions: Counter[str] = attrs.field(factory=Counter)
    simulated_s: float = 0.0
    wall_s: float = 0.0
    crashes: int = 0
    fills: int = 0
    orders: int = 0
    guarded: int = 0
    expired: int = 0

    def add(self, result: Result) -> None:
        """One more seed."""
        self.hashes[result.seed] = result.hash
        self.failures += [
            {"seed": result.seed, "invariant": v.invariant, "at": round(v.at, 3), "detail": v.detail}
            for v in result.violations
        ]
        self.faults.update(result.faults)
        self.transitions.update(result.transitions)
        self.simulated_s += result.simulated_s
        self.crashes += result.crashes
        self.fills += result.fills
        self.orders += result.orders
        self.guarded += result.guarded
        self.expired += result.expired

    def as_json(self, *, is_full: bool, era: int) -> dict[str, Any]:
        """The document of `--json`, from which a later run goes on."""
        return {
            "seeds": len(self.hashes),
            "failures": sorted(self.failures, key=lambda f: (f["seed"], f["at"])),
            "hashes": {str(seed): self.hashes[seed] for seed in sorted(self.hashes)},
            "simulated_hours": round(self.simulated_s / 3600, 3),
            "wall_seconds": round(self.wall_s, 1),
            "faults": dict(sorted(self.faults.items())),
            "transitions": dict(sorted(self.transitions.items())),
            "crashes": self.crashes,
            "fills": self.fills,
            "orders": self.orders,
            "guarded": self.guarded,
            "expired": self.expired,
            "era": era,
            "full": is_full,
            "code": code_digest(),
        }


def resumed(path: Path, *, is_full: bool, era: int) -> Totals:
    """Where an earlier run with the same code and kind of seeds left off; empty when there is no such thing."""
    if not path.exists():
        return Totals()
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return Totals()
    if (found.get("code"), found.get("full"), found.get("era")) != (code_digest(), is_full, era):
        return Totals()
    return Totals(
        hashes={int(seed): digest for seed, digest in found["hashes"].items()},
        failures=found["failures"],
        faults=Counter(found["faults"]),
        transitions=Counter(found["transitions"]),
        simulated_s=found["simulated_hours"] * 3600,
        wall_s=found["wall_seconds"],
        crashes=found["crashes"],
        fills=found["fills"],
        orders=found["orders"],
        guarded=found["guarded"],
        expired=found["expired"],
    )


def code_digest() -> str:
    """Names the code: results of other code are not gone on from."""
    digest = hashlib.sha256()
    root = Path(mm.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def run_seed(seed: int, is_full: bool, era: int = LATEST_ERA) -> Result:
    """One seed, in whatever process."""
    return run_world(draw_plan(seed, is_full=is_full, era=era))


def run_seeds(
    seeds: Sequence[int], *, is_full: bool, jobs: int, until: float | None, era: int = LATEST_ERA
) -> Iterator[Result]:
    """The results as they come. Stops handing out seeds at `until` (`time.monotonic`).

    A `KeyboardInterrupt` or the end of the iteration ends the workers at once.
    """
    if jobs == 1:
        for seed in seeds:
            if until is not None and time.monotonic() >= until:
                return
            yield run_seed(seed, is_full, era)
        return
    # Spawned, not forked: a worker begins with a clean scheduler and clean caches, whatever ran here before.
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=SEEDS_A_PROCESS
    )
    running: set[Future[Result]] = set()
    try:
        for seed in seeds:
            if until is not None and time.monotonic() >= until:
                break
            running.add(pool.submit(run_seed, seed, is_full, era))
            if len(running) >= 2 * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def shrunk(
    result: Result, *, era: int = LATEST_ERA, tell: Callable[[str], None], most_runs: int = 60
) -> list[str]:
    """The fewest faults and crashes of a failing seed that still break the same invariant, as text.

    Leaves one out after the other, largest pieces first; every attempt is a run of its own.
    """
    wanted = result.violations[0].invariant
    plan = draw_plan(result.seed, is_full=result.is_full, era=era)
    runs = 0
    size = max(1, len(plan.faults) // 2)
    while size and runs < most_runs:
        start = 0
        while start < len(plan.faults) and runs < most_runs:
            smaller = attrs.evolve(plan, faults=plan.faults[:start] + plan.faults[start + size :])
            runs += 1
            if any(v.invariant == wanted for v in run_world(smaller).violations):
                plan = smaller
                tell(f"{len(plan.faults)} faults left")
            else:
                start += size
        size //= 2
    for crash in plan.crashes:
        smaller = attrs.evolve(plan, crashes=tuple(c for c in plan.crashes if c is not crash))
        if any(v.invariant == wanted for v in run_world(smaller).violations):
            plan = smaller
    return [crash.text() for crash in plan.crashes] + [fault.text() for fault in plan.faults]


@attrs.define
class Progress:
    """A line on stderr that is overwritten on a terminal, and written now and then elsewhere."""

    total: int
    is_terminal: bool = attrs.field(factory=lambda: sys.stderr.isatty())
    started: float = attrs.field(factory=time.monotonic)
    _last: float = 0.0

    def show(self, done: int, totals: Totals) -> None:
        """After each seed."""
        now = time.monotonic()
        if now - self._last < (0.2 if self.is_terminal else 15.0) and done < self.total:
            return
        self._last = now
        wall = max(now - self.started, 1e-9)
        width = 24
        filled = width * done // max(self.total, 1)
        text = (
            f"[{'#' * filled}{'.' * (width - filled)}] {done}/{self.total} seeds, {done / wall:.2f}/s, "
            f"{totals.simulated_s / wall:.0f}x life, {len({f['seed'] for f in totals.failures})} failed"
        )
        sys.stderr.write(f"\r{text}\x1b[K" if self.is_terminal else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self.is_terminal:
            sys.stderr.write("\n")

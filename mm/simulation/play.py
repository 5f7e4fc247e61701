"""One seed from plan to result: a folder, everything pinned, one `trio.run`."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import attrs
import trio
import trio.testing

from mm.domain import order as orders
from mm.simulation.determinism import pinned
from mm.simulation.guardians import on_greenlets
from mm.simulation.invariants import Violation
from mm.simulation.lives import Recorder
from mm.simulation.plan import Plan
from mm.simulation.world import World


@attrs.frozen(kw_only=True)
class Result:
    """What a seed came to."""

    seed: int
    is_full: bool
    hash: str
    violations: tuple[Violation, ...]
    simulated_s: float
    wall_s: float
    steps: int
    events: int
    orders: int
    fills: int
    crashes: int
    faults: dict[str, int]
    transitions: dict[str, int]
    guarded: int
    expired: int


def run_world(plan: Plan, *, write: Callable[[str], None] | None = None) -> Result:
    """Play one world and judge it. Blocks; must not be called inside another `trio.run`.

    Args:
        plan: What happens.
        write: Gets the trace line by line; None keeps only its hash.
    """
    started = time.perf_counter()
    worlds: list[World] = []
    play_world(plan, attach=worlds.append, write=write)
    (world,) = worlds
    watch, recorder = world.watch, world.recorder
    return Result(
        seed=plan.seed,
        is_full=plan.is_full,
        hash=recorder.digest.hexdigest(),
        violations=tuple(watch.violations),
        simulated_s=world.ended_at,
        wall_s=time.perf_counter() - started,
        steps=recorder.steps,
        events=watch.events,
        orders=watch.orders,
        fills=watch.fills,
        crashes=world.crashes,
        faults=dict(sorted(world.faults.items())),
        transitions=dict(sorted(world.transitions.items())),
        guarded=watch.guarded,
        expired=watch.expired,
    )


def play_world(
    plan: Plan, *, attach: Callable[[World], object], write: Callable[[str], None] | None = None
) -> None:
    """Play one world. `attach` gets it once it is built, before anything runs."""
    recorder = Recorder(write=write)
    folder = Path(tempfile.mkdtemp(prefix="mm-sim-"))
    world = World(plan=plan, recorder=recorder, folder=folder)
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def run() -> None:
        world.build()
        attach(world)
        await world.play()
        world.ended_at = trio.current_time()

    try:
        with (
            pinned(plan.seed, recorder.log if write is not None else None),
            on_greenlets(),
            _count_moves(world.transitions),
        ):
            trio.run(run, clock=clock, instruments=[recorder])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _count_moves(counts: Counter[str]) -> Iterator[None]:
    """Count how often each transition of the orders' state table is taken."""
    original = orders.next_state

    def counting(state: orders.OrderState, event: orders.OrderEvent) -> orders.OrderState:
        counts[f"{state.value} {event.value}"] += 1
        return original(state, event)

    with mock.patch.object(orders, "next_state", counting):
        yield

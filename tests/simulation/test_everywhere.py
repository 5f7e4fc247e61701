"""What the crash-everywhere run does with its children."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import orjson

from mm.simulation.everywhere import Forker, Outcome, Point


def test_children_are_waited_for_before_trio_ends_its_run() -> None:
    """A child shares the run's wakeup socket with its parent; one that outlived the world let the parent wait for ever."""
    world: Any = SimpleNamespace(recorder=SimpleNamespace(), disk=SimpleNamespace(), on_over=None)
    outcomes: list[Outcome] = []
    forker = Forker(world=world, choice=None, on_outcome=outcomes.append)
    forker.attach()
    reads, writes = os.pipe()
    os.write(writes, orjson.dumps({"violations": [], "healed_s": 1.5}))
    os.close(writes)
    child = subprocess.Popen([sys.executable, "-c", ""])
    forker._children[reads] = (child.pid, Point(name="s1", at=0.5, where="a task"))

    world.on_over(None)

    assert not forker._children
    assert [outcome.healed_s for outcome in outcomes] == [1.5]
    child.returncode = 0  # waited for by the forker

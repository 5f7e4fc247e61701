"""Cancelled from outside, or failing, at any step of its life, the bot leaves nothing: not then, and not a minute later.

CI takes every `MM_CANCEL_STRIDE`-th step from an offset that is printed (`MM_CANCEL_OFFSET` repeats it); `make
cancel-everywhere` takes them all.
"""

import os
import random
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from mm.session.summary import ExitCode
from short_session import FOREIGN, Life, live

STRIDE: Final = int(os.environ.get("MM_CANCEL_STRIDE", "20"))
SCRIPT: Final = frozenset({"two quotes", "a re-quote", "a fill", "a late answer", "an exit"})


def offset() -> int:
    """Where the steps begin; another one each time, unless told."""
    given = os.environ.get("MM_CANCEL_OFFSET")
    return int(given) if given else random.randrange(1, STRIDE + 1)


def check(life: Life, where: str) -> None:
    assert life.resting == (), where
    assert life.foreign == (FOREIGN,), where
    if life.summary is not None:
        assert life.summary.exit_code is ExitCode.CLEAN, where


def test_a_whole_life_does_everything(tmp_path: Path) -> None:
    """Uncut, the script is played to its end, twice the same."""
    first, second = live(tmp_path / "1"), live(tmp_path / "2")

    check(first, "uncut")
    assert first.did == SCRIPT
    assert first.summary is not None
    assert (first.summary.fills >= 2, first.summary.positions_match) == (True, True)
    assert first.trace == second.trace
    assert first.steps < 3_000


@pytest.mark.timeout(1_200)
def test_cut_at_every_step_nothing_rests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the step, and however late the writes land that nobody waits for any more."""
    steps = live(tmp_path / "0").steps
    begin = offset()
    cut = late = exits = 0
    for at in range(begin, steps + 1, STRIDE):
        life = live(tmp_path / str(at), at, late_s=(30.0, 60.0, 0.5)[at % 3])
        check(life, f"cut before step {at} of {steps} ({life.trace[-1]})")
        cut += life.is_cut
        late += bool(life.late_creates)
        exits += any("immediate_or_cancel" in text for text in life.late_creates)
    lives = len(range(begin, steps + 1, STRIDE))
    with capsys.disabled():
        print(
            f"\n{lives} of {steps} steps (every {STRIDE}. from {begin}): {cut} lives cut, {late} with creates that arrived "
            f"late, {exits} of them exits, which never rest; 0 orders rest"
        )
    assert cut > 0


@pytest.mark.timeout(1_200)
def test_a_bug_at_every_step_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception out of any checkpoint of any task: nothing rests, the code is 1, and there is a reason.

    In the sweep itself a bug means that nothing is proven: then the code is 2, although nothing rests here either.
    """
    uncut = live(tmp_path / "0")
    begin = offset()
    codes: Counter[ExitCode] = Counter()
    for at in range(begin, uncut.steps + 1, STRIDE):
        life = live(tmp_path / str(at), at, raises=True)
        where = f"a bug at step {at} of {uncut.steps} ({life.trace[at - 1]})"
        assert (life.resting, life.foreign) == ((), (FOREIGN,)), where
        assert life.summary is not None, where
        code = life.summary.exit_code
        if life.is_cut:
            assert code is ExitCode.FAILED or (code is ExitCode.ORDERS_MAY_REST and at > uncut.stopped_at), (
                where
            )
            assert life.summary.reason, where
            codes[code] += 1
    with capsys.disabled():
        print(
            f"\n{codes.total()} bugs in {uncut.steps} steps (every {STRIDE}. from {begin}): 0 orders rest, "
            f"{codes[ExitCode.FAILED]} with code 1, {codes[ExitCode.ORDERS_MAY_REST]} in the sweep with code 2"
        )
    assert codes.total() > 0

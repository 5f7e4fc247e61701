"""`mm sweep`: the plan, what is done by whom, what is done again after a kill, and what is said of the best of many."""

import io
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm.domain.errors import ConfigError
from mm.research.plan import make_trials
from mm.research.sweep import SweepRequest, run_sweep
from mm.research.trials import GameResult
from mm.research.verdict import TrialResult, best_by_chance, deflated_sharpe, judge, walk
from tapes import wandering_tape

pytest.importorskip("pyarrow", reason="needs the research extra: pyarrow")
pytest.importorskip("distributed", reason="needs the research extra: distributed")

from mm.research.columns import write_columns

VARY = ["BASE_SPREAD=0.010..0.040", "SIZE_PER_FILL=5,10"]


def test_a_grid_is_every_combination_and_a_search_draws_different_ones() -> None:
    """The same seed draws the same; a range has the decimals that it was written with."""
    grid = make_trials(["BASE_SPREAD=0.01,0.02", "SIZE_PER_FILL=5,10,20"], None, 1)
    assert len(grid) == 6
    assert grid[0] == {"BASE_SPREAD": "0.01", "SIZE_PER_FILL": "5"}
    drawn = make_trials(["BASE_SPREAD=0.005..0.040", "SIZE_PER_FILL=5,10"], 60, 7)
    assert drawn == make_trials(["BASE_SPREAD=0.005..0.040", "SIZE_PER_FILL=5,10"], 60, 7)
    assert len({tuple(trial.items()) for trial in drawn}) == 60
    assert all(0.005 <= float(trial["BASE_SPREAD"]) <= 0.04 for trial in drawn)
    assert drawn != make_trials(["BASE_SPREAD=0.005..0.040", "SIZE_PER_FILL=5,10"], 60, 8)


@pytest.mark.parametrize(
    ("vary", "draws", "problem"),
    [
        ([], None, "--vary is needed"),
        (["BASE_SPREAD"], None, "expected NAME=V1,V2"),
        (["BASE_SPREAD=0.01..0.02"], None, "a range needs --random"),
        (["BASE_SPREAD=0.02..0.01"], 1, "the range is empty"),
        (["BASE_SPREAD=0.01,0.01"], None, "is given twice"),
        (["BASE_SPREAD=0.01,0.02"], 3, "only 2 different"),
        (["BASE_SPREAD=a..b"], 3, "two decimal numbers"),
    ],
)
def test_what_cannot_be_planned_is_told(vary: list[str], draws: int | None, problem: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=problem):
        make_trials(vary, draws, 1)


def recordings(folder: Path, count: int = 3, events: int = 150) -> list[str]:
    paths = []
    for number in range(count):
        tape = wandering_tape(number, events=events, markets=2, name=f"day{number}")
        for market in tape.markets:
            market.ticker = market.ticker.replace("26OCT12", f"26OCT{12 + number}")  # type: ignore[assignment]
        for column in (tape.at, tape.ts):
            for row, at in enumerate(column):
                column[row] = at + number * 86_400_000_000
        paths.append(str(folder / f"day{number}.parquet"))
        write_columns(tape, paths[-1])
    return paths


def sweep(folder: Path, out: str, **more: object) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    paths = sorted(str(path) for path in folder.glob("*.parquet"))
    request = SweepRequest(recordings=paths, out=str(folder / out), vary=VARY, draws=24, jobs=1, **more)  # type: ignore[arg-type]
    return run_sweep(request, stdout, stderr), stdout.getvalue(), stderr.getvalue()


def test_a_sweep_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """What is done is not done again, what is missing is; the table is the same. Another sweep is not mixed in."""
    recordings(tmp_path)
    code, said, _ = sweep(tmp_path, "one")
    assert code == 0
    assert "24 parameter sets over 3 recordings" in said
    table = (tmp_path / "one" / "table.csv").read_text()
    done = sorted((tmp_path / "one" / "done").iterdir())
    assert len(table.splitlines()) == 25
    kept = done[1].stat().st_mtime_ns
    done[0].unlink()
    code, _, complaints = sweep(tmp_path, "one")
    assert code == 0
    assert "8 of 9 pieces are done already" in complaints
    assert done[1].stat().st_mtime_ns == kept
    assert (tmp_path / "one" / "table.csv").read_text() == table
    code, _, complaints = sweep(tmp_path, "one", fill_model="touch")
    assert code == 1
    assert "holds another sweep" in complaints
    done[2].write_bytes(b"[[")
    code, _, complaints = sweep(tmp_path, "one")
    assert code == 1
    assert "delete it" in complaints


def test_the_same_game_in_two_recordings_is_refused(tmp_path: Path) -> None:
    """It would count twice."""
    path = recordings(tmp_path, 1)[0]
    (tmp_path / "again.parquet").write_bytes(Path(path).read_bytes())
    code, _, complaints = sweep(tmp_path, "one")
    assert code == 1
    assert "is in another of the recordings too" in complaints


def test_all_problems_of_a_sweep_are_told_at_once(tmp_path: Path) -> None:
    """Nothing is written for them."""
    stderr = io.StringIO()
    request = SweepRequest(
        recordings=[str(tmp_path / "none.parquet")],
        out=str(tmp_path / "out"),
        vary=["BASE_SPREAD=7", "nope=1"],
        blocks=1,
    )
    assert run_sweep(request, io.StringIO(), stderr) == 1
    for part in ("none.parquet: cannot be read", "BASE_SPREAD='7'", "'nope'", "--blocks"):
        assert part in stderr.getvalue()
    assert not (tmp_path / "out").exists()


def until(what: Callable[[], bool], process: "subprocess.Popen[bytes]", within: float = 60.0) -> None:
    """Wait for a condition under a deadline; without an event loop that is looking again and again."""
    deadline = time.monotonic() + within
    while not what():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.mark.real
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_and_a_killed_sweep_change_nothing_but_time(tmp_path: Path) -> None:
    """Two workers give the table of one process; kill -9 of the sweep, then of a worker of the resumed one: the same table."""
    recordings(tmp_path, 2, events=250)
    command = [sys.executable, "-m", "mm", "sweep", *sorted(str(p) for p in tmp_path.glob("*.parquet"))]
    for vary in VARY:
        command += ["--vary", vary]
    command += ["--random", "50"]
    together = [*command, "--out", str(tmp_path / "two"), "--jobs", "2"]
    done = tmp_path / "two" / "done"

    def count() -> int:
        return len(list(done.glob("*.json"))) if done.exists() else 0

    with subprocess.Popen(together, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        until(lambda: count() >= 1, first)
        first.kill()
    left = count()
    assert 0 < left < 10
    with subprocess.Popen(together, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as second:
        until(lambda: count() > left and bool(workers_of(second.pid)), second)
        os.kill(workers_of(second.pid)[0], signal.SIGKILL)
        _, complaints = second.communicate(timeout=90)
        assert second.returncode == 0, complaints
    assert f"{left} of 10 pieces are done already".encode() in complaints
    alone = [*command, "--out", str(tmp_path / "one"), "--jobs", "1"]
    subprocess.run(alone, check=True, capture_output=True, timeout=90)
    assert (tmp_path / "one" / "table.csv").read_bytes() == (tmp_path / "two" / "table.csv").read_bytes()
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()


# --- what is said of the best -----------------------------------------------------------------------------------------


def trials_of(nets: list[list[float]]) -> list[TrialResult]:
    return [
        TrialResult(
            number=number,
            parameters={"A": str(number)},
            games={
                f"G{i:03}": GameResult(
                    game=f"G{i:03}",
                    day=f"2026-10-{1 + i // 2:02}",
                    net=round(net * 1e6),
                    fees=0,
                    contracts=100,
                    fills=1,
                    triggers=0,
                )
                for i, net in enumerate(series)
            },
        )
        for number, series in enumerate(nets)
    ]


def test_the_best_of_many_worthless_trials_does_not_convince_and_a_good_one_does() -> None:
    """100 trials of noise over 30 games; then one of them with an edge of a whole deviation a game."""
    chance = random.Random(5)
    noise = [[chance.gauss(0, 10) for _ in range(30)] for _ in range(100)]
    worthless = judge(trials_of(noise), blocks=4, tried=0, seed=1)
    assert worthless.best.net > 0
    assert worthless.p_value > 0.1
    assert worthless.deflated is not None
    assert worthless.deflated < 0.9
    noise[17] = [value + 12 for value in noise[17]]
    good = judge(trials_of(noise), blocks=4, tried=0, seed=1)
    assert good.best.number == 17
    assert good.p_value < 0.01
    assert good.deflated is not None
    assert good.deflated > 0.95
    assert {step.chosen for step in good.steps} == {17}


def test_more_trials_made_before_deflate_more() -> None:
    """Trials that were made elsewhere count."""
    chance = random.Random(6)
    trials = trials_of([[chance.gauss(1, 10) for _ in range(30)] for _ in range(20)])
    few, many = judge(trials, 4, 0, 1), judge(trials, 4, 2_000, 1)
    assert few.deflated is not None
    assert many.deflated is not None
    assert many.deflated < few.deflated
    assert many.tried == 2_000


def test_the_deflated_ratio_of_one_trial_is_the_probabilistic_one() -> None:
    """With one trial nothing is deflated: the value follows from mean, deviation, skew and kurtosis alone."""
    values = [3.0, -1.0, 2.0, 0.5, 1.5, -0.5, 2.5, 1.0]
    (trial,) = trials = trials_of([values])
    ratio, expected, deflated = deflated_sharpe(trials, trial, 1)
    n, mean = len(values), sum(values) / len(values)
    second = sum((v - mean) ** 2 for v in values) / n
    skew = sum((v - mean) ** 3 for v in values) / n / second**1.5
    kurtosis = sum((v - mean) ** 4 for v in values) / n / second**2
    assert ratio == pytest.approx(mean / math.sqrt(second * n / (n - 1)))
    assert expected == 0.0
    z = ratio * math.sqrt(n - 1) / math.sqrt(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2)
    assert deflated == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))))


def test_the_p_value_over_few_games_counts_every_sign() -> None:
    """Three games won by one trial: only the same three signs do as well, one of eight."""
    assert best_by_chance(trials_of([[1.0, 2.0, 1.5]]), 1) == 1 / 8


def test_the_walk_never_looks_ahead() -> None:
    """What is chosen for a part does not change with that part or what follows; training days lie before it."""
    chance = random.Random(7)
    nets = [[chance.gauss(0, 10) for _ in range(40)] for _ in range(30)]
    steps = walk(trials_of(nets), 5)
    assert len(steps) == 4
    forged = [series[:24] + [chance.gauss(0, 99) for _ in range(16)] for series in nets]
    for step, other in zip(steps, walk(trials_of(forged), 5), strict=True):
        assert max(step.train) < min(step.test)
        if max(step.train) <= "2026-10-12":
            assert step.chosen == other.chosen
    assert [s.chosen for s in steps] != [s.chosen for s in walk(trials_of(forged), 5)]

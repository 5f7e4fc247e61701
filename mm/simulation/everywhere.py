"""Crash everywhere: one seed's world is forked at every step of its bot and at every commit of its ledger.

The child kills the bot at that point: not one more instruction of it runs, and nothing of its ledger is left but what
was committed. All faults end with it; then the bot is started again, must be in order within the usual bound, is
stopped, and is judged like any world. The parent goes on to the next point as if nothing had been. Points are named
`s17` (before the 17th step of the bot) and `c4` (right after the 4th commit, amid the step that made it).
"""

import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import orjson

from mm.domain.errors import ConfigError
from mm.simulation.plan import Plan, draw_plan
from mm.simulation.play import play_world
from mm.simulation.world import World

CHILD_S: Final = 180
"""Real seconds after which a child that has not ended has stuck."""


@attrs.frozen(kw_only=True)
class Point:
    """A moment at which the bot may be killed."""

    name: str
    at: float
    """Seconds of virtual time."""
    where: str
    """The task whose step it is."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a world whose bot was killed at a point."""

    point: Point
    violations: tuple[str, ...]
    healed_s: float
    """Until everything was in order again, of virtual time."""


@attrs.frozen(kw_only=True)
class Choice:
    """Which points are taken: every commit, and of the steps every `every`-th, beginning with number `offset` + 1."""

    every: int = 1
    offset: int = 0
    only: str = ""
    """The name of the one point that is taken, without a fork."""

    def takes(self, kind: str, number: int) -> bool:
        """Whether point `number` (from 1) of that kind is taken."""
        if self.only:
            return self.only == f"{kind}{number}"
        return kind == "c" or (number - 1 - self.offset) % self.every == 0


@attrs.frozen(kw_only=True)
class Counted:
    """How many points a seed's life has."""

    steps: int
    commits: int

    def taken(self, choice: Choice) -> int:
        """How many of them are taken."""
        return sum(
            choice.takes(kind, number)
            for kind, most in (("s", self.steps), ("c", self.commits))
            for number in range(1, most + 1)
        )


@attrs.define(eq=False, kw_only=True)
class Forker:
    """Counts the points of a world as it is played, and forks at those that are taken."""

    world: World
    choice: Choice | None
    """None: points are counted, nothing is forked."""
    jobs: int = 1
    on_outcome: Callable[[Outcome], None] = lambda outcome: None
    steps: int = 0
    commits: int = 0
    is_interrupted: bool = False
    is_child: bool = False
    _children: dict[int, tuple[int, Point]] = attrs.field(factory=dict)
    """Read end of its pipe -> process id and point."""
    _point: Point | None = None
    _writes_to: int = -1

    def attach(self) -> None:
        """Listen to the world."""
        self.world.recorder.on_step = self._step
        self.world.disk.on_commit = self._commit
        # Before trio's run ends: children share its wakeup socket, and one that still ran took the byte with which trio wakes itself
        # at its own end (it then waited for ever; met on busy machines).
        self.world.on_over = lambda problem: self.finish()

    def _step(self, task_name: str) -> None:
        if not self.is_child and self.world.can_be_killed:
            self.steps += 1
            self._consider("s", self.steps, task_name)

    def _commit(self) -> None:
        if not self.is_child and self.world.can_be_killed:
            self.commits += 1
            self._consider("c", self.commits, "a commit")

    def _consider(self, kind: str, number: int, where: str) -> None:
        if self.is_interrupted:
            self.world.abandon()
            return
        if self.choice is None or not self.choice.takes(kind, number):
            return
        point = Point(name=f"{kind}{number}", at=self.world.now, where=where)
        if self.choice.only:
            self.is_child, self._point = True, point
            self.world.kill_here(is_in_commit=kind == "c")
            return
        while len(self._children) >= self.jobs:
            self._collect()
        self._fork(point)

    def _fork(self, point: Point) -> None:
        reads, writes = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writes)
            self._children[reads] = (pid, point)
            return
        os.close(reads)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
        signal.alarm(CHILD_S)
        self.is_child, self._point, self._writes_to = True, point, writes
        self._children.clear()
        self.world.folder = Path(tempfile.mkdtemp(dir=self.world.folder))
        self.world.on_over = self._report
        self.world.kill_here(is_in_commit=point.name.startswith("c"))

    def _report(self, problem: BaseException | None) -> NoReturn:
        """In the child: the world is over, and so are we."""
        told = [v.text() for v in self.world.watch.violations]
        if problem is not None:
            told.append("failed: " + "".join(traceback.format_exception(problem))[-2_000:])
        data = orjson.dumps({"violations": told, "healed_s": self.world.healed_s})
        while data:
            data = data[os.write(self._writes_to, data) :]
        os._exit(0)

    def _collect(self) -> None:
        """Wait until a child has ended, and take its verdict."""
        readable, _, _ = select.select(list(self._children), [], [])
        for reads in readable:
            pid, point = self._children.pop(reads)
            with open(reads, "rb") as pipe:
                told = pipe.read()
            _, status = os.waitpid(pid, 0)
            if told:
                verdict = orjson.loads(told)
                violations, healed_s = tuple(verdict["violations"]), verdict["healed_s"]
            else:
                violations, healed_s = (f"no verdict: {_fate(status)}",), 0.0
            self.on_outcome(Outcome(point=point, violations=violations, healed_s=healed_s))

    def finish(self) -> None:
        """Wait for the last children; after an interrupt they are ended."""
        if self.is_interrupted:
            for pid, _ in self._children.values():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            for reads in self._children:
                os.close(reads)
            self._children.clear()
        while self._children:
            self._collect()


def _fate(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        late = f" (not over after {CHILD_S} s)" if number == signal.SIGALRM else ""
        return f"ended by signal {number}{late}"
    return f"exit code {os.WEXITSTATUS(status)}"


def count_points(plan: Plan) -> Counted:
    """Play the world once without killing anything."""
    forkers: list[Forker] = []

    def attach(world: World) -> None:
        forkers.append(Forker(world=world, choice=None))
        forkers[0].attach()

    play_world(plan, attach=attach)
    return Counted(steps=forkers[0].steps, commits=forkers[0].commits)


def crash_everywhere(plan: Plan, choice: Choice, *, jobs: int, on_outcome: Callable[[Outcome], None]) -> bool:
    """Kill the bot at every chosen point of a world; False when it was interrupted (SIGINT)."""
    forkers: list[Forker] = []

    def attach(world: World) -> None:
        forkers.append(Forker(world=world, choice=choice, jobs=jobs, on_outcome=on_outcome))
        forkers[0].attach()

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        for forker in forkers:
            forker.is_interrupted = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        play_world(plan, attach=attach)
    finally:
        for forker in forkers:
            forker.finish()
        signal.signal(signal.SIGINT, before)
    return not forkers[0].is_interrupted


def replay_point(plan: Plan, point: str, write: Callable[[str], None] | None) -> Outcome:
    """One point again, in this process. Raises `ConfigError` when the world has no such point."""
    worlds: list[tuple[World, Forker]] = []

    def attach(world: World) -> None:
        forker = Forker(world=world, choice=Choice(only=point))
        forker.attach()
        worlds.append((world, forker))

    play_world(plan, attach=attach, write=write)
    world, forker = worlds[0]
    if forker._point is None:
        raise ConfigError(
            [f"--point {point}: seed {plan.seed} has s1 to s{forker.steps} and c1 to c{forker.commits}"]
        )
    violations = tuple(v.text() for v in world.watch.violations)
    return Outcome(point=forker._point, violations=violations, healed_s=world.healed_s)


@attrs.define(kw_only=True)
class Tally:
    """What came of one seed, as it is told."""

    seed: int
    counted: Counted
    taken: int
    done: int = 0
    bad: list[Outcome] = attrs.field(factory=list)
    healed: list[float] = attrs.field(factory=list)
    started: float = attrs.field(factory=time.monotonic)
    _shown: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """One more point."""
        self.done += 1
        self.healed.append(outcome.healed_s)
        if outcome.violations:
            self.bad.append(outcome)
            sys.stdout.write(
                f"seed {self.seed}, killed at {outcome.point.name} ({outcome.point.at:.3f} s, {outcome.point.where}): "
                f"{outcome.violations[0]}\n"
                f"  replay: mm simulate --crash-everywhere {self.seed} --point {outcome.point.name} "
                f"--trace trace-{self.seed}-{outcome.point.name}.txt\n"
            )
            sys.stdout.flush()
        self._show()

    def _show(self) -> None:
        now, is_terminal = time.monotonic(), sys.stderr.isatty()
        if now - self._shown < (0.2 if is_terminal else 15.0) and self.done < self.taken:
            return
        self._shown = now
        filled = 24 * self.done // max(self.taken, 1)
        text = (
            f"[{'#' * filled}{'.' * (24 - filled)}] seed {self.seed}: {self.done}/{self.taken} points, "
            f"{self.done / max(now - self.started, 1e-9):.1f}/s, {len(self.bad)} failed"
        )
        end = "\x1b[K" + ("\n" if self.done == self.taken else "") if is_terminal else "\n"
        sys.stderr.write(("\r" if is_terminal else "") + text + end)
        sys.stderr.flush()

    @property
    def seconds(self) -> float:
        """Real time so far."""
        return time.monotonic() - self.started

    def text(self) -> str:
        """The verdict in a line."""
        counted, wall = self.counted, self.seconds
        healed = sorted(self.healed) or [0.0]
        whole = counted.steps + counted.commits
        told = (
            f"seed {self.seed}: {self.done} of {whole} points ({100 * self.done / max(whole, 1):.1f}%; "
            f"{counted.steps} steps, {counted.commits} commits) in {wall:.0f} s; "
            f"in order again after {healed[len(healed) // 2]:.1f} s (median), {healed[-1]:.1f} s at most; "
            f"{self.done - len(self.bad)} converged, {len(self.bad)} failed"
        )
        if self.done < whole and self.done:
            told += f"; all of them would take about {whole * wall / self.done / 60:.1f} min"
        return told

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "seed": self.seed,
            "steps": self.counted.steps,
            "commits": self.counted.commits,
            "points": self.done,
            "failures": [
                {"point": o.point.name, "at": round(o.point.at, 3), "violations": list(o.violations)}
                for o in self.bad
            ],
            "healed_seconds_most": round(max(self.healed, default=0.0), 3),
            "wall_seconds": round(self.seconds, 1),
        }


def run_everywhere(
    seeds: list[int], choice: Choice, *, jobs: int, json: Path | None, trace: Path | None
) -> int:
    """The command: every seed, its counts and time; 0 when every point converged."""
    if choice.every < 1 or not 0 <= choice.offset < choice.every:
        raise ConfigError(
            [f"--every {choice.every} --offset {choice.offset}: K of 1 or more, and N from 0 to K - 1"]
        )
    if choice.only:
        return _replay(seeds, choice.only, trace)
    tallies: list[Tally] = []
    is_whole = True
    for seed in seeds:
        plan = draw_plan(seed)
        counted = count_points(plan)
        tallies.append(Tally(seed=seed, counted=counted, taken=counted.taken(choice)))
        is_whole = crash_everywhere(plan, choice, jobs=jobs, on_outcome=tallies[-1].add)
        sys.stdout.write(tallies[-1].text() + "\n")
        sys.stdout.flush()
        if not is_whole:
            sys.stdout.write("interrupted\n")
            break
    if json is not None:
        json.write_bytes(
            orjson.dumps([tally.as_json() for tally in tallies], option=orjson.OPT_INDENT_2) + b"\n"
        )
    bad = sum(len(tally.bad) for tally in tallies)
    sys.stdout.write(f"{sum(tally.done for tally in tallies) - bad} converged, {bad} failed\n")
    return 0 if is_whole and not bad else 1


def _replay(seeds: list[int], point: str, trace: Path | None) -> int:
    if len(seeds) != 1:
        raise ConfigError(["--point names a point of one seed"])
    lines: list[str] | None = None if trace is None else []
    outcome = replay_point(draw_plan(seeds[0]), point, None if lines is None else lines.append)
    if trace is not None and lines is not None:
        trace.write_text("".join(f"{line}\n" for line in lines))
    held = "failed" if outcome.violations else "converged"
    sys.stdout.write(f"seed {seeds[0]}, {point} at {outcome.point.at:.3f} ({outcome.point.where}): {held}\n")
    sys.stdout.writelines(f"  {text}\n" for text in outcome.violations)
    return 1 if outcome.violations else 0

"""`mm sweep`: parameter sets over recordings, on all cores or a cluster, resumable; a table, a verdict and plots.

Exit code 0: done; 1: not, and what is missing is done by the same command.
"""

import csv
import io
import os
import sys
import time
from collections.abc import Sequence
from typing import IO

import attrs

from mm.domain.errors import ConfigError, MMError
from mm.domain.numbers import Money, format_count, format_money
from mm.research.crew import work_here, work_together
from mm.research.fills import TRADE_SHARE, FillModel
from mm.research.plan import Chunk, Plan, Recording, Settings, check_trials, make_trials
from mm.research.store import Store, size_of
from mm.research.sweep_page import sweep_page
from mm.research.trials import GameResult
from mm.research.variants import split_sets
from mm.research.verdict import TrialResult, Verdict, judge

TABLE, PAGE = "table.csv", "report.html"
TOP = 10


@attrs.frozen(kw_only=True)
class SweepRequest:
    """What the command line asked for."""

    recordings: Sequence[str]
    out: str
    vary: Sequence[str]
    draws: int | None = None
    strategy: str = "hybrid"
    sets: Sequence[str] = ()
    fill_model: str = "queue"
    feed_ms: float = 20.0
    order_ms: float = 30.0
    jitter_ms: float = 0.0
    trade_share: float | None = None
    seed: int = 1
    blocks: int = 5
    tried: int = 0
    jobs: int | None = None
    scheduler: str | None = None


def run_sweep(request: SweepRequest, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> int:
    """The whole command."""
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        plan = make_plan(request)
        store = Store(request.out)
        store.begin(plan)
        _work(plan, store, request, stderr)
        trials = gather(plan, store)
        verdict = judge(trials, request.blocks, request.tried + len(trials), request.seed)
        store.write(TABLE, table(trials).encode())
        store.write(PAGE, sweep_page(plan, trials, verdict).encode())
    except ConfigError as error:
        stderr.write("".join(f"mm sweep: {problem}\n" for problem in error.problems))
        return 1
    except (MMError, OSError) as error:
        stderr.write(f"mm sweep: {error}\n")
        return 1
    except KeyboardInterrupt:
        stderr.write(
            f"\nmm sweep: interrupted; the same command goes on, what is done lies in {request.out}\n"
        )
        return 1
    stdout.write(summary(plan, trials, verdict, request.out))
    return 0


def make_plan(request: SweepRequest) -> Plan:
    """The plan. Raises `ConfigError` with every problem."""
    problems: list[str] = []
    trials: tuple[dict[str, str], ...] = ()
    settings = Settings()
    for name, value, most in (
        ("--feed-ms", request.feed_ms, 60_000),
        ("--order-ms", request.order_ms, 60_000),
        ("--jitter-ms", request.jitter_ms, 60_000),
        ("--trade-share", request.trade_share or 0, 1),
        ("--blocks", request.blocks - 2, 998),
        ("--jobs", (request.jobs or 1) - 1, 1_023),
    ):
        if not 0 <= value <= most:
            problems.append(f"{name} is out of range")
    try:
        settings = Settings(
            strategy=request.strategy,
            sets=split_sets(request.sets),
            fill_model=FillModel(request.fill_model).value,
            feed_us=round(request.feed_ms * 1_000),
            order_us=round(request.order_ms * 1_000),
            jitter_us=round(request.jitter_ms * 1_000),
            trade_share=TRADE_SHARE if request.trade_share is None else request.trade_share,
            seed=request.seed,
        )
        trials = make_trials(request.vary, request.draws, request.seed)
        check_trials(settings, trials)
    except ConfigError as error:
        problems += error.problems
    if not request.recordings:
        problems.append("at least one recording is needed")
    twice = sorted({r for r in request.recordings if list(request.recordings).count(r) > 1})
    problems += [f"{source}: given twice" for source in twice]
    recordings = []
    for given in request.recordings:
        # Workers may stand in another folder than we do.
        source = given if "://" in given else os.path.abspath(given)
        try:
            recordings.append(Recording(source=source, size=size_of(source)))
        except (OSError, ImportError, ValueError) as error:
            problems.append(f"{source}: cannot be read: {error}")
    if problems:
        raise ConfigError(problems)
    return Plan(settings=settings, recordings=tuple(recordings), trials=trials)


def _work(plan: Plan, store: Store, request: SweepRequest, stderr: IO[str]) -> None:
    done = store.done()
    every = list(plan.chunks())
    left = [chunk for chunk in every if chunk.name not in done]
    if len(left) < len(every):
        stderr.write(f"mm sweep: {len(every) - len(left)} of {len(every)} pieces are done already\n")
    began, kept, told = time.monotonic(), 0, 0.0

    def keep(chunk: Chunk, result: list[list[dict[str, object]]]) -> None:
        nonlocal kept, told
        store.keep(chunk, result)
        kept += 1
        now = time.monotonic()
        if now - told >= 1 or kept == len(left):
            told = now
            rate = kept / max(now - began, 1e-9)
            line = f"mm sweep: {kept} of {len(left)} pieces, {rate:.1f} a second, {(len(left) - kept) / rate:.0f} s left"
            stderr.write(f"\r{line:<90}" if stderr.isatty() else "")
            stderr.flush()

    jobs = request.jobs if request.jobs is not None else os.cpu_count() or 1
    if not left:
        return
    if request.scheduler is None and jobs == 1:
        work_here(plan, left, keep)
    else:
        work_together(plan, left, keep, jobs=jobs, scheduler=request.scheduler)
    if stderr.isatty():
        stderr.write("\n")


def gather(plan: Plan, store: Store) -> list[TrialResult]:
    """All results. Raises `MMError` when a game is in more than one recording."""
    games: list[dict[str, GameResult]] = [{} for _ in plan.trials]
    for chunk in plan.chunks():
        for number, found in zip(chunk.trials, store.result(chunk), strict=True):
            for fields in found:
                game = GameResult(**fields)
                if game.game in games[number]:
                    source = plan.recordings[chunk.recording].source
                    raise MMError(f"{source}: {game.game} is in another of the recordings too")
                games[number][game.game] = game
    return [
        TrialResult(number=n, parameters=parameters, games=found)
        for n, (parameters, found) in enumerate(zip(plan.trials, games, strict=True))
    ]


def table(trials: Sequence[TrialResult]) -> str:
    """All trials as CSV, in their order: exact figures, and the interval by game."""
    out = io.StringIO()
    names = list(trials[0].parameters)
    writer = csv.writer(out, lineterminator="\n")
    head = ["trial", *names, "net", "fees", "contracts", "fills", "triggers", "games"]
    writer.writerow([*head, "dollars_a_game", "low_90", "high_90"])
    for trial in trials:
        found = trial.dollars_a_game
        games = trial.games.values()
        writer.writerow(
            [
                trial.number,
                *(trial.parameters[name] for name in names),
                format_money(Money(trial.net)),
                format_money(Money(sum(game.fees for game in games))),
                format_count(trial.contracts),  # type: ignore[arg-type]
                trial.fills,
                sum(game.triggers for game in games),
                len(games),
                f"{found.value:.6f}",
                "" if found.low is None else f"{found.low:.6f}",
                "" if found.high is None else f"{found.high:.6f}",
            ]
        )
    return out.getvalue()


def summary(plan: Plan, trials: Sequence[TrialResult], verdict: Verdict, out: str) -> str:
    """The verdict in lines, the best trials in a table."""
    games = len({name for trial in trials for name in trial.games})
    ranked = sorted(trials, key=lambda trial: (-trial.dollars_a_game.value, trial.number))
    lines = [
        f"sweep: {len(trials)} parameter sets over {len(plan.recordings)} recordings, {games} games; fill model "
        f"{plan.settings.fill_model}, strategy {plan.settings.strategy}",
        "",
        f"{'trial':>6} {'net $':>10} {'fills':>7}  dollars a game (90%)   parameters",
    ]
    for trial in ranked[:TOP]:
        parameters = " ".join(f"{name}={value}" for name, value in trial.parameters.items())
        lines.append(
            f"{trial.number:>6} {trial.net / 1e6:>10.2f} {trial.fills:>7}  {trial.dollars_a_game}   {parameters}"
        )
    lines += ["", *told(verdict), f"table: {out}/{TABLE}   page: {out}/{PAGE}"]
    return "\n".join(lines) + "\n"


def told(verdict: Verdict) -> list[str]:
    """What is left of the best."""
    lines = [
        f"walked forward: {len(verdict.steps)} steps, out of sample {verdict.walked} dollars a game"
        if verdict.walked is not None
        else "walked forward: not possible, all games are of one day"
    ]
    lines.append(
        f"the best of {verdict.tried} trials: Sharpe ratio by game {verdict.sharpe:+.3f}, by chance alone {verdict.expected_sharpe:+.3f} "
        f"would be expected; deflated: "
        + (
            "not known (too few games)"
            if verdict.deflated is None
            else f"{verdict.deflated:.3f} (0.95 would convince)"
        )
    )
    lines.append(
        f"p value of the best under random signs, all trials taken into account: {verdict.p_value:.3f}"
    )
    return lines

"""`mm backtest RECORDING...`: files in, the loop over them, a summary, JSON and a page out. Nothing is written in part."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import attrs
import structlog

from mm.domain.errors import BookOutOfSync, ConfigError, MMError
from mm.domain.numbers import Micros, Price
from mm.research.fills import TRADE_SHARE, FillModel
from mm.research.formats import read_recording
from mm.research.lines import BadRecording
from mm.research.options import BacktestOptions, Latency
from mm.research.outcome import Outcome, run_tape
from mm.research.page import page
from mm.research.report import document, summary
from mm.research.tape import BookSource, Tape, merge
from mm.research.variants import Variant, parse_variants
from mm.tasks.backtest import parse_result, write_atomically

PROGRESS_EVERY_S: Final = 0.5
WIDTH: Final = 30
"""Of the bar."""
CLEARED: Final = 100


@attrs.frozen(kw_only=True)
class Request:
    """What the command line asked for."""

    recordings: Sequence[Path | str]
    fill_model: str = "queue"
    result: str | None = None
    sets: Sequence[str] = ()
    strategies: Sequence[str] = ()
    """`[LABEL=]NAME[:PARAMETER=VALUE,...]`, side by side; the default strategy when empty."""
    feed_ms: float = 20.0
    order_ms: float = 30.0
    jitter_ms: float = 0.0
    trade_share: float | None = None
    seed: int = 1
    bounds: bool = True
    json_out: Path | None = None
    html_out: Path | None = None


def quiet() -> None:
    """The live parts log what happens to a bot; thousands of such lines are no help here. For the whole process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run_recordings(request: Request, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> int:
    """The whole command: 0, or 1 with every problem on stderr and nothing written."""
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        options, given, variants = _options(request)
        tape = read_all(request.recordings)
        outcome = _run(tape, options, given, stderr)
        bounds: dict[str, Outcome] = {}
        if request.bounds and options.model is FillModel.QUEUE:
            for model in (FillModel.TOUCH, FillModel.THROUGH):
                bounds[model.value] = _run(tape, attrs.evolve(options, model=model), given, stderr)
        label = variants[0].label
        others = {
            v.label: _run(
                tape,
                attrs.evolve(options, parameters=v.parameters, strategies=v.table),
                given,
                stderr,
                v.label,
            )
            for v in variants[1:]
        }
        if request.json_out is not None:
            whole = document(outcome, tape, bounds, others, label)
            write_atomically(request.json_out, json.dumps(whole, indent=1) + "\n")
        if request.html_out is not None:
            write_atomically(request.html_out, page(outcome, tape, bounds, others, label))
    except ConfigError as error:
        for problem in error.problems:
            stderr.write(f"mm backtest: {problem}\n")
        return 1
    except MMError as error:
        stderr.write(f"mm backtest: {error}\n")
        return 1
    except OSError as error:
        stderr.write(f"mm backtest: cannot write {error.filename}: {error.strerror or error}\n")
        return 1
    stdout.write(summary(outcome, tape, bounds, others, label))
    return 0


def read_all(paths: Sequence[Path | str]) -> Tape:
    """All files on one clock. Raises `BadRecording`."""
    tapes = [read_recording(path) for path in paths]
    spans: dict[str, list[tuple[int, int, Path | str]]] = {}
    for path, tape in zip(paths, tapes, strict=True):
        first, last = tape.span
        for market in tape.markets:
            kind = "prints of" if market.source is BookSource.PRINTS else "book of"
            for other_first, other_last, other in spans.setdefault(f"{kind} {market.ticker}", []):
                if first <= other_last and other_first <= last:
                    raise BadRecording(
                        path, None, f"the {kind} {market.ticker} is also in {other}, at the same time"
                    )
            spans[f"{kind} {market.ticker}"].append((first, last, path))
    return merge(tapes)


def _options(request: Request) -> tuple[BacktestOptions, Price | None, list[Variant]]:
    problems: list[str] = []
    variants: list[Variant] = []
    given, model = None, FillModel.QUEUE
    if not request.recordings:
        problems.append("at least one recording is needed")
    try:
        model = FillModel(request.fill_model)
    except ValueError:
        allowed = ", ".join(m.value for m in FillModel)
        problems.append(f"--fill-model {request.fill_model!r}: allowed: {allowed}")
    for name, value in (
        ("--feed-ms", request.feed_ms),
        ("--order-ms", request.order_ms),
        ("--jitter-ms", request.jitter_ms),
    ):
        if not 0 <= value <= 60_000:
            problems.append(f"{name} {value:g}: allowed: 0 to 60000 milliseconds")
    share = TRADE_SHARE if request.trade_share is None else request.trade_share
    if not 0 <= share <= 1:
        problems.append(f"--trade-share {share:g}: allowed: 0 to 1")
    try:
        given = None if request.result is None else parse_result(request.result)
    except ValueError as error:
        problems.append(str(error))
    try:
        variants = parse_variants(request.strategies, request.sets)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    latency = Latency(
        feed=Micros(round(request.feed_ms * 1_000)),
        order=Micros(round(request.order_ms * 1_000)),
        jitter=Micros(round(request.jitter_ms * 1_000)),
    )
    return (
        BacktestOptions(
            parameters=variants[0].parameters,
            strategies=variants[0].table,
            model=model,
            latency=latency,
            trade_share=share,
            seed=request.seed,
        ),
        given,
        variants,
    )


def _run(
    tape: Tape, options: BacktestOptions, given: Price | None, stderr: IO[str], label: str = ""
) -> Outcome:
    progress = Progress(label or options.model.value, len(tape), stderr)
    try:
        return run_tape(tape, options, given=given, on_progress=progress.at)
    except BookOutOfSync as error:
        raise MMError(f"the recordings do not fit each other: {error}") from error
    finally:
        progress.done()


@attrs.define(eq=False)
class Progress:
    """One line on a terminal: how far, how fast, how long still. Silent where nobody looks."""

    what: str
    rows: int
    stream: IO[str]
    _began: float = attrs.field(factory=time.monotonic)
    _told: float = 0.0

    def at(self, row: int) -> None:
        """Now and then."""
        now = time.monotonic()
        if not self.stream.isatty() or now - self._told < PROGRESS_EVERY_S:
            return
        self._told = now
        rate = row / max(now - self._began, 1e-9)
        left = (self.rows - row) / rate if rate else 0
        bar = "#" * (row * WIDTH // max(self.rows, 1))
        line = f"{self.what}: [{bar:{WIDTH}}] {row / max(self.rows, 1):4.0%}  {rate:,.0f} rows/s  {left:.0f} s left"
        self.stream.write(f"\r{line:<{CLEARED}}")
        self.stream.flush()

    def done(self) -> None:
        """Take the line away."""
        if self._told:
            self.stream.write("\r" + " " * CLEARED + "\r")

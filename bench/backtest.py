"""How fast the back-test goes over columns, and what bounds it; and how true its queue model is.

    python bench/backtest.py [RECORDING...]      without arguments a made-up tape of 200,000 rows

Three passes over the same rows: the loop that only folds the books (the engine is never asked), the whole thing, and the
whole thing told to ask the engine after every read. The difference between the first two, divided by the decisions, is
the price of one decision of the live engine: that, and how often the touch moves, is what bounds the second figure.
"""

import logging
import sys
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from mm.research.fidelity import Fidelity, measure
from mm.research.fills import FillModel
from mm.research.formats import read_recording
from mm.research.loop import Backtest
from mm.research.options import BacktestOptions
from mm.research.tape import Tape, merge


def timed(tape: Tape, what: str, options: BacktestOptions) -> tuple[float, Backtest]:
    """One pass, in CPU seconds."""
    run = Backtest(tape, options)
    began = time.process_time()
    run.run()
    took = time.process_time() - began
    print(
        f"{what:34} {len(tape) / took:>12,.0f} rows/s   {took:7.2f} s   {run.decisions:>8,} decisions   "
        f"{run.errands.orders:>6,} orders   {run.floor.positions.fills:>6,} fills"
    )
    return took, run


def main(paths: list[str]) -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if paths:
        began = time.process_time()
        tape = merge([read_recording(Path(path)) for path in paths])
        took = time.process_time() - began
        print(f"{'read from the raw files':34} {len(tape) / took:>12,.0f} rows/s   {took:7.2f} s")
    else:
        from tapes import wandering_tape

        tape = wandering_tape(1, events=200_000)
    idle, _ = timed(
        tape,
        "books only (engine never asked)",
        BacktestOptions(decides_nothing=True),
    )
    whole, run = timed(tape, "live engine, queue model", BacktestOptions())
    print(
        f"{'one decision costs':34} {(whole - idle) / max(run.decisions, 1) * 1e6:>12,.0f} us, orders and fills included"
    )
    if len(tape) <= 300_000:
        timed(tape, "the same, asked after every read", BacktestOptions(decide_always=True))
    for name, arguments in (
        ("queue", {}),
        ("queue, prints unknown", {"has_trades": False}),
        ("touch", {"model": FillModel.TOUCH}),
        ("through", {"model": FillModel.THROUGH}),
    ):
        probes = [p for seed in range(6) for p in measure(seed, **arguments).probes]  # type: ignore[arg-type]
        print(f"against the embedded exchange, {name}: {Fidelity(probes=tuple(probes))}")


if __name__ == "__main__":
    main(sys.argv[1:])

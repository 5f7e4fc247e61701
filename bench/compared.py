"""The back-test's loop beside hftbacktest and nautilus-trader: the same recorded events, events a second, what each models.

    python bench/compared.py [RECORDING...] [--environments FOLDER] [--rounds 3]

Each library lives in an environment of its own under FOLDER, made with pip at the first run; where pip cannot install one,
it is left out and pip's message printed. Without recordings: a made-up market. Everybody quotes one bid and one ask of 10 contracts a cent
from the mid, at most every 300 ms, in one market at a time; what fills is each one's own model. So loops are compared, and
how dear a decision is in each: not results.

CPU seconds, the best of the rounds, which take turns. Numba's compilation is left out (a first run on the same data), and
so is the making of nautilus' objects.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import attrs
import structlog

from mm.domain.book import OrderBook
from mm.domain.numbers import Count, Price
from mm.domain.order import Side
from mm.research.formats import read_recording
from mm.research.loop import Backtest
from mm.research.options import BacktestOptions
from mm.research.tape import COLUMNS, Kind, Tape, merge

HERE = Path(__file__).parent
OTHERS = {
    "hftbacktest": HERE / "compared_hftbacktest.py",
    "nautilus-trader": HERE / "compared_nautilus.py",
}
MM_MODELS = (
    "every market on one clock, live engine and desk (all risk rules, state table of orders, amend/cancel/IOC), queue place "
    "from depth with cancels and inferred trades, feed 20 ms + order 30 ms, exact fees, settlement"
)


def made_up() -> Tape:
    """Where there are no recordings."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from tapes import wandering_tape

    return wandering_tape(1, events=100_000, has_trades=False)


def one_market(tape: Tape, place: int) -> Tape:
    """Only that market's rows."""
    rows = [row for row, market in enumerate(tape.market) if market == place]
    alone = attrs.evolve(tape, markets=[tape.markets[place]])
    for name in COLUMNS:
        column = getattr(tape, name)
        setattr(
            alone, name, type(column)(column.typecode, [0 if name == "market" else column[r] for r in rows])
        )
    return alone


def absolute(tape: Tape) -> list[tuple[int, int, int, int]]:
    """Rows as the others want them: (time, side: 1 bid, 2 ask, 0 the book is emptied, price, the level's new size)."""
    book, found = OrderBook(), []
    level: dict[int, list[tuple[Price, Count]]] = {}
    left = 0
    for at, kind, price, count in zip(tape.at, tape.kind, tape.price, tape.count, strict=True):
        if kind == Kind.SNAPSHOT:
            left, level = count, {Kind.LEVEL_BID: [], Kind.LEVEL_ASK: []}
            found.append((at, 0, 0, 0))
            if not left:
                book.snapshot([], [])
        elif kind in (Kind.LEVEL_BID, Kind.LEVEL_ASK):
            level[kind].append((Price(price), Count(count)))
            found.append((at, kind, price, count))
            left -= 1
            if not left:
                book.snapshot(level[Kind.LEVEL_BID], level[Kind.LEVEL_ASK])
        elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
            side = Side.BID if kind == Kind.DELTA_BID else Side.ASK
            book.apply_delta(side, Price(price), Count(count))
            found.append((at, 1 if side is Side.BID else 2, price, book.size_at(side, Price(price))))
    return found


def ours(tape: Tape) -> tuple[float, str]:
    """One run of the whole thing."""
    run = Backtest(tape, BacktestOptions())
    began = time.process_time()
    run.run()
    took = time.process_time() - began
    return took, f"{run.errands.orders} orders, {run.floor.positions.fills} fills, {run.decisions} decisions"


def theirs(python: str, script: Path, data: Path) -> tuple[float, str, str]:
    """One run of another's loop over all markets, in its own interpreter."""
    done = subprocess.run([python, str(script), str(data)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["did"], found["models"]


def interpreter(name: str, folder: Path) -> str:
    """The Python of an environment with that package. Raises `RuntimeError` with pip's words."""
    python = folder / name / "bin" / "python"
    marker = folder / name / "installed"
    if not marker.exists():
        print(f"installing {name} into {folder / name}", file=sys.stderr)
        venv.create(folder / name, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", name]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(" / ".join(done.stderr.strip().splitlines()[-2:]))
        marker.touch()
    return str(python)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--environments", type=Path, default=Path(".venv-bench"))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    tape = merge([read_recording(path) for path in asked.recordings]) if asked.recordings else made_up()
    alone = [one_market(tape, place) for place in range(len(tape.markets))]
    pythons, why_not = {}, {}
    for name in OTHERS:
        try:
            pythons[name] = interpreter(name, asked.environments)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            why_not[name] = str(error)
    best: dict[str, tuple[float, str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "events.json"
        data.write_text(json.dumps([absolute(market) for market in alone]))
        events = sum(len(market) for market in json.loads(data.read_text()))
        for _ in range(asked.rounds):
            took, did = ours(tape)
            best["mm"] = min(best.get("mm", (1e9, "", "")), (took, did, MM_MODELS))
            idle = Backtest(tape, BacktestOptions(decides_nothing=True))
            began = time.process_time()
            idle.run()
            took = time.process_time() - began
            best["mm, books only"] = min(
                best.get("mm, books only", (1e9, "", "")), (took, "", "no decisions")
            )
            for name, python in pythons.items():
                try:
                    found = theirs(python, OTHERS[name], data)
                except RuntimeError as error:
                    why_not[name] = str(error)
                    continue
                best[name] = min(best.get(name, (1e9, "", "")), found)
    print(f"{events:,} events of {len(tape.markets)} markets, CPU seconds, best of {asked.rounds}")
    for name, (took, did, models) in best.items():
        print(f"{name:16} {events / took:>12,.0f} events/s {took:8.2f} s   {did}\n{'':17}models: {models}")
    for name, why in why_not.items():
        print(f"{name:16} not run: {why}")


if __name__ == "__main__":
    main()

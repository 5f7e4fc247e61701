"""`mm attribution`: what fills were worth afterwards, by strategy, market, side, regime and place in the queue.

Worth is per contract, against the book's mid after 1 s, 5 s, 30 s and 5 min, and against the settlement, each less the fee.
Each strategy's figures stand beside what its evaluation promised.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from mm.domain.errors import ConfigError
from mm.engine.strategies.registry import BUILT_IN
from mm.ledger.reader import open_reader
from mm.settings.load import load_settings
from mm.settings.proof import FOLDER
from mm.tasks.attribution import FILE_NAME, HORIZONS_S

Row = Mapping[str, Any]
BUCKETS: Final = ((0, "first"), (10_000, "up to 100 before"), (100_000, "up to 1,000 before"))
"""Places in the queue, by contracts before us when it was last looked at (1/100 contract)."""
GROUPS: Final = ("strategy", "side", "regime", "queue", "market")


def read_rows(path: Path) -> list[Row]:
    """The fills in the file, each once; torn lines are left out. Raises `ConfigError` when there is no file."""
    found: dict[str, Row] = {}
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}; the bot writes it while it trades"]) from None
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["trade"]] = row
    return list(found.values())


def worth(row: Row, value: int | None, *, twice: bool) -> float | None:
    """Cents a contract that the fill is worth at a price (twice a price), less its fee; None when nobody knows."""
    if value is None:
        return None
    sign = 1 if row["side"] == "bid" else -1
    moved = (value / 2 if twice else value) - row["price"]
    return float(moved * sign / 100 - row["fee"] / row["count"] / 100)


def queue_of(row: Row) -> str:
    """The bucket of its place in the queue."""
    ahead = row.get("ahead")
    if not row["maker"]:
        return "exit"
    if ahead is None:
        return "unknown"
    return next((name for most, name in BUCKETS if ahead <= most), "more before")


def key_of(row: Row, group: str) -> str:
    """What the row counts under."""
    return queue_of(row) if group == "queue" else str(row[group])


def table(rows: Iterable[Row], group: str, settled: Mapping[str, int]) -> str:
    """One group's table: contracts, and the mean worth at each horizon, weighted by contracts."""
    sums: dict[str, list[list[float]]] = {}
    for row in rows:
        found = sums.setdefault(key_of(row, group), [[0.0, 0.0] for _ in range(len(HORIZONS_S) + 2)])
        contracts = row["count"] / 100
        values = [worth(row, row["mid"], twice=True)]
        values += [worth(row, later, twice=True) for later in row["later"]]
        values.append(worth(row, settled.get(row["market"]), twice=False))
        for place, value in enumerate(values):
            if value is not None:
                found[place][0] += value * contracts
                found[place][1] += contracts
    names = ("at once", *(f"{h} s" if h < 60 else f"{h // 60} min" for h in HORIZONS_S), "settled")
    width = max([len(key) for key in sums] + [len(group)])
    lines = [f"{group:{width}} {'contracts':>10} " + " ".join(f"{name:>8}" for name in names)]
    for key, found in sorted(sums.items()):
        contracts = sum(row["count"] for row in rows if key_of(row, group) == key) / 100
        cells = " ".join(f"{top / n:>+8.2f}" if n else f"{'-':>8}" for top, n in found)
        lines.append(f"{key:{width}} {contracts:>10,.0f} {cells}")
    return "\n".join(lines)


def promised(data_dir: Path, strategies: Iterable[str]) -> list[str]:
    """A line for each strategy: what its evaluation said."""
    lines = []
    for name in sorted(set(strategies)):
        try:
            found = json.loads((data_dir / FOLDER / f"{name}.json").read_text())
            models = ", ".join(f"{m['model']} {m['cents']:+.2f} c" for m in found["models"])
            gates = ", ".join(
                f"gate {gate} {'passed' if ok else 'not run' if ok is None else 'failed'}"
                for gate, ok in found["gates"].items()
            )
            lines.append(f"{name}: back-test on old prints, net a contract: {models}; {gates}")
        except (OSError, ValueError, KeyError, TypeError):
            known = "" if name in BUILT_IN or not name else " (a strategy of your own)"
            lines.append(f"{name or 'no strategy'}{known}: no evaluation; `mm evaluate {name}` makes one")
    return lines


def run_attribution(*, data_dir: Path | None = None, stdout: IO[str] | None = None) -> int:
    """The command. Raises `ConfigError`."""
    stdout = stdout or sys.stdout
    folder = load_settings().data_dir if data_dir is None else data_dir
    rows = read_rows(folder / FILE_NAME)
    settled: dict[str, int] = {}
    ledger = folder / "ledger.sqlite3"
    if ledger.exists():
        with open_reader(ledger, is_checked=False) as reader:
            for account in reader.accounts():
                settled |= {str(row.ticker): int(row.value) for row in reader.settlements(account)}
    stdout.write(f"{len(rows)} fills; cents a contract against the book's mid, less the fee\n\n")
    for group in GROUPS:
        stdout.write(table(rows, group, settled) + "\n\n")
    stdout.write("\n".join(promised(folder, (str(row["strategy"]) for row in rows))) + "\n")
    return 0

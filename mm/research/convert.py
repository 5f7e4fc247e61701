"""`mm convert RECORDING... --out PLACE`: recordings of any known format into columns, one Parquet file each."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mm.domain.errors import ConfigError, MMError
from mm.research.columns import SUFFIX, write_columns
from mm.research.formats import read_recording

_ENDINGS = (".gz", ".jsonl", ".json", ".csv")


def target_of(recording: "Path | str", out: str) -> str:
    """Where a recording's columns go: its name without endings, under `out`."""
    name = Path(str(recording)).name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return f"{out.rstrip('/')}/{name}{SUFFIX}"


def convert(
    recordings: Sequence["Path | str"], out: str, stdout: IO[str] | None = None, stderr: IO[str] | None = None
) -> int:
    """The whole command: 0, or 1 when any could not be converted; the others are."""
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    targets = [target_of(recording, out) for recording in recordings]
    twice = sorted({target for target in targets if targets.count(target) > 1})
    if twice or not recordings:
        for target in twice:
            stderr.write(
                f"mm convert: two recordings would both be {target}; convert them to different places\n"
            )
        return 1
    if "://" not in out:
        Path(out).mkdir(parents=True, exist_ok=True)
    failed = 0
    for recording, target in zip(recordings, targets, strict=True):
        try:
            tape = read_recording(recording)
            size = write_columns(tape, target)
        except ConfigError as error:
            stderr.write("".join(f"mm convert: {problem}\n" for problem in error.problems))
            return 1
        except (MMError, OSError) as error:
            stderr.write(f"mm convert: {error}\n")
            failed += 1
            continue
        left_out = ", ".join(f"{n} {what}" for what, n in sorted(tape.notes.items()))
        stdout.write(
            f"{target}: {len(tape):,} rows of {len(tape.markets)} markets, {size:,} bytes"
            + (f"; left out: {left_out}" if left_out else "")
            + "\n"
        )
    return 1 if failed else 0

"""Tapes as Parquet: six columns of integers, and what is known of the markets in the file's metadata.

Written whole or not at all. The same rows in the same order as the recording they came from, so that a back-test of
either gives the same result. Local paths and every object store that fsspec knows (`s3://`, `gs://`, `memory://`).
Needs the extra `mm[research]`; nothing that the bot imports comes here.
"""

import importlib
import io
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import orjson

from mm.domain.errors import ConfigError
from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.grid import PriceBand, tick_grid
from mm.domain.numbers import Micros, Price
from mm.domain.order import MarketTicker
from mm.research.lines import BadRecording
from mm.research.tape import COLUMNS, BookSource, Kind, Tape, TapeMarket

FORMAT: Final = "mm-tape/1"
MAGIC: Final = b"PAR1"
SUFFIX: Final = ".parquet"
EXPECTED: Final = f"a Parquet file of `mm convert` ({FORMAT})"
_TYPES: Final = {
    "at": "int64",
    "kind": "int8",
    "market": "int32",
    "price": "int32",
    "count": "int64",
    "ts": "int64",
}
_ROW_GROUP: Final = 1 << 20
_LIBRARIES: Final = ("pyarrow", "pyarrow.parquet", "fsspec")


def write_columns(tape: Tape, target: "str | Path") -> int:
    """Write a tape; returns its size in bytes. Raises `OSError` and, without the extra, `ConfigError`."""
    pyarrow, parquet, fsspec = _libraries()
    types = {name: getattr(pyarrow, kind)() for name, kind in _TYPES.items()}
    columns = [
        pyarrow.Array.from_buffers(kind, len(tape), [None, pyarrow.py_buffer(getattr(tape, name))])
        for name, kind in types.items()
    ]
    schema = pyarrow.schema(
        [pyarrow.field(name, kind, nullable=False) for name, kind in types.items()],
        metadata={"mm": orjson.dumps(_header(tape))},
    )
    buffer = io.BytesIO()
    parquet.write_table(
        pyarrow.Table.from_arrays(columns, schema=schema),
        buffer,
        compression="zstd",
        use_dictionary=["kind", "market", "price"],
        column_encoding={"at": "DELTA_BINARY_PACKED", "ts": "DELTA_BINARY_PACKED"},
        row_group_size=_ROW_GROUP,
    )
    data = buffer.getvalue()
    system, path = fsspec.core.url_to_fs(str(target))
    with system.transaction, system.open(path, "wb") as file:  # a reader sees the whole file or none
        file.write(data)
    return len(data)


def read_columns(source: "str | Path") -> Tape:
    """Read a tape. Raises `BadRecording`, and `ConfigError` without the extra."""
    pyarrow, parquet, fsspec = _libraries()
    try:
        system, inside = fsspec.core.url_to_fs(str(source))
        with system.open(inside, "rb") as file:
            table = parquet.read_table(file)
    except OSError as error:
        raise BadRecording(
            source, None, f"cannot be read: {error.strerror or error} (expected {EXPECTED})"
        ) from error
    except (pyarrow.ArrowException, ValueError, ImportError) as error:
        raise BadRecording(source, None, f"damaged or cut off: {error} (expected {EXPECTED})") from error
    header = (table.schema.metadata or {}).get(b"mm")
    found = {field.name: str(field.type) for field in table.schema}
    if header is None or found != _TYPES:
        raise BadRecording(source, None, f"columns {found}, expected {EXPECTED}")
    tape = _tape(header, source)
    for name in COLUMNS:
        values: array[int] = getattr(tape, name)
        for chunk in table.column(name).chunks:
            if chunk.null_count:
                raise BadRecording(source, None, f"column {name} has nulls, expected {EXPECTED}")
            begin = chunk.offset * values.itemsize
            values.frombytes(memoryview(chunk.buffers()[1])[begin : begin + len(chunk) * values.itemsize])
    _check(tape, source)
    return tape


def is_columns(path: Path) -> bool:
    """Whether a local file is Parquet, by its first bytes; False where it cannot be read at all."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _header(tape: Tape) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": tape.name,
        "notes": tape.notes,
        "markets": [
            {
                "ticker": m.ticker,
                "bands": [[band.start, band.end, band.step] for band in m.grid.bands],
                "source": m.source.value,
                "has_trades": m.has_trades,
                "close_time": m.close_time,
                "result": m.result,
                "fees": _fees(m.fees),
            }
            for m in tape.markets
        ],
    }


def _fees(schedule: FeeSchedule) -> dict[str, Any]:
    return {"type": schedule.fee_type.value, "multiplier": str(schedule.multiplier)}


def _tape(header: bytes, source: "str | Path") -> Tape:
    """The tape without its rows."""
    try:
        told = orjson.loads(header)
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']!r}")
        tape = Tape(name=told["name"], notes={str(what): int(n) for what, n in told["notes"].items()})
        for m in told["markets"]:
            bands = [PriceBand(Price(a), Price(b), Price(step)) for a, b, step in m["bands"]]
            fees = FeeSchedule(FeeType(m["fees"]["type"]), Fraction(m["fees"]["multiplier"]))
            market = TapeMarket(
                ticker=MarketTicker(m["ticker"]),
                grid=tick_grid(bands),
                source=BookSource(m["source"]),
                has_trades=m["has_trades"],
                close_time=None if m["close_time"] is None else Micros(m["close_time"]),
                result=None if m["result"] is None else Price(m["result"]),
                fees=fees,
            )
            tape.markets.append(market)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecording(
            source, None, f"metadata not understood: {error!r} (expected {EXPECTED})"
        ) from error
    return tape


def _check(tape: Tape, source: "str | Path") -> None:
    """What the loop relies on: time, kinds, markets, whole snapshots."""
    if not len(tape):
        raise BadRecording(source, None, "has no rows")
    last, left = 0, 0
    markets, known = len(tape.markets), max(Kind)
    levels = (Kind.LEVEL_BID, Kind.LEVEL_ASK)
    for row, (at, kind, market, count) in enumerate(
        zip(tape.at, tape.kind, tape.market, tape.count, strict=True)
    ):
        problem = ""
        if at < last:
            problem = f"time {at} after {last}"
        elif not 0 <= kind <= known:
            problem = f"kind {kind}"
        elif not 0 <= market < markets:
            problem = f"market {market} of {markets}"
        elif (kind in levels) != (left > 0):
            problem = "a snapshot's levels are not where they should be"
        if problem:
            raise BadRecording(source, row + 1, f"{problem} (expected rows as `mm convert` writes them)")
        last = at
        if left:
            left -= 1
        elif not kind:
            left = count
    if left:
        raise BadRecording(source, len(tape), "the last snapshot is cut off")


def _libraries() -> Any:
    try:
        return [importlib.import_module(name) for name in _LIBRARIES]
    except ImportError as error:
        raise ConfigError(
            [f"Parquet needs the research extra: pip install 'mm[research]' ({error})"]
        ) from error

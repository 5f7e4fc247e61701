"""Recordings as Parquet: the same rows, the same result to the micro-dollar; what is damaged is refused, what is written is whole."""

import io
import json
import os
from pathlib import Path

import attrs
import pytest

from mm.domain.fees import FeeSchedule, FeeType
from mm.research.app import convert
from mm.research.columns import read_columns, write_columns
from mm.research.command import Request, run_recordings
from mm.research.formats import read_recording
from mm.research.lines import BadRecording
from mm.research.tape import COLUMNS, Kind, Tape, TapeMarket
from tapes import wandering_tape

pytest.importorskip("pyarrow", reason="needs the research extra: pyarrow")
pytest.importorskip("fsspec", reason="needs the research extra: fsspec")

DATA = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[2] / "../shared/data"))
needs_recordings = pytest.mark.skipif(not DATA.is_dir(), reason="no recordings (MM_RECORDINGS)")


def fields(market: TapeMarket) -> dict[str, object]:
    return {field.name: getattr(market, field.name) for field in attrs.fields(TapeMarket)}


def same(one: Tape, other: Tape) -> bool:
    return (
        all(getattr(one, name) == getattr(other, name) for name in COLUMNS)
        and [fields(m) for m in one.markets] == [fields(m) for m in other.markets]
        and (one.name, one.notes) == (other.name, other.notes)
    )


@pytest.mark.parametrize("has_trades", [True, False])
def test_what_is_written_is_what_is_read(tmp_path: Path, has_trades: bool) -> None:
    """Rows, grids, fees, results and what reading had left out."""
    tape = wandering_tape(3, markets=3, has_trades=has_trades, events=300)
    tape.markets[1].fees = FeeSchedule(FeeType.QUADRATIC)
    tape.markets[2].result = tape.markets[2].grid.highest
    tape.note("gap", 2)
    path = tmp_path / "made-up.parquet"
    size = write_columns(tape, path)
    assert size == path.stat().st_size
    assert same(tape, read_columns(path))
    assert list(tmp_path.iterdir()) == [path]


def test_an_object_store_is_as_good_as_a_disk() -> None:
    """fsspec's in-memory store stands for the others."""
    tape = wandering_tape(4, events=100)
    write_columns(tape, "memory://days/one.parquet")
    assert same(tape, read_recording("memory://days/one.parquet"))


@needs_recordings
@pytest.mark.parametrize(
    "name",
    [
        "ws_mlb_wnba_verbatim/ws_orderbook_stream.jsonl.gz",
        "trade_prints_nov2025/KXALEAGUEGAME-25NOV09BRRNUJ-NUJ.csv.gz",
        "nba_wnba_top_of_book/20260523_NYK_CLE.jsonl.gz",
        "worldcup_top_of_book/snapshots_spain_austria.jsonl.gz",
        "mlb_candles_1m/candles_DETNYY_ML.csv",
    ],
)
def test_a_back_test_of_the_columns_gives_the_same_result(tmp_path: Path, name: str) -> None:
    """Fills, money, markouts, curves: the two documents are equal, character for character."""
    assert convert(str(DATA / name), out=str(tmp_path)) == 0
    (columns,) = tmp_path.glob("*.parquet")
    texts = []
    for number, path in enumerate((DATA / name, columns)):
        out = tmp_path / f"{number}.json"
        assert run_recordings(Request(recordings=[path], bounds=False, json_out=out), io.StringIO()) == 0
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["rows"] > 0


def damaged(tape: Tape, row: int, **values: int) -> Tape:
    for name, value in values.items():
        getattr(tape, name)[row] = value
    return tape


@pytest.mark.parametrize(
    ("row", "values", "problem"),
    [
        (40, {"at": 5}, "line 41: time 5 after"),
        (40, {"kind": 77}, "line 41: kind 77"),
        (40, {"market": 3}, "line 41: market 3 of 1"),
        (5, {"kind": int(Kind.DELTA_BID)}, "line 6: a snapshot's levels"),
        (0, {"count": 9_999_999}, "a snapshot's levels"),
    ],
)
def test_columns_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, row: int, values: dict[str, int], problem: str
) -> None:
    """With the file, the row and what was expected."""
    path = tmp_path / "bad.parquet"
    write_columns(damaged(wandering_tape(5, events=60), row, **values), path)
    with pytest.raises(BadRecording) as caught:
        read_recording(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_cut_off_or_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Named, with what was expected; and nothing is written for it."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "cut.parquet"
    write_columns(wandering_tape(6, events=60), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadRecording, match=r"cut\.parquet: damaged or cut off.*expected a Parquet file of"):
        read_recording(path)
    other = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(BadRecording, match=r"other\.parquet: columns .*expected a Parquet file of"):
        read_recording(other)
    assert convert(str(path), str(other), out=str(tmp_path / "out")) == 1
    assert not list((tmp_path / "out").iterdir())


def test_two_recordings_of_one_name_are_not_written_over_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is read."""
    assert convert("a/one.csv", "b/one.jsonl.gz", out=str(tmp_path)) == 1
    assert "one.parquet" in capsys.readouterr().err

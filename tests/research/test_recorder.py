"""The recorder: what comes back from its files, also when they end anywhere, and what it does when the disk does not."""

import errno
import random
import zlib
from pathlib import Path

import orjson
import pytest
import trio

from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros
from mm.exchange.embedded.slate.recording import load_recording
from mm.research.formats import read_recording
from mm.research.frames import read_frames
from mm.research.lines import BadRecording
from mm.research.tape import Kind
from mm.tasks.recorder import PartWriter, Recorder, open_recorder

HEADER = {"format": "mm/1", "session": "test", "use_yes_price": True}
T0 = 1_790_000_000 * SECOND
TICKER = "KXNHLGAME-26OCT12VGKMIN-VGK"


def now_at(step: int) -> Micros:
    return Micros(T0 + step * SECOND)


def snapshot(seq: int) -> str:
    msg = {
        "market_ticker": TICKER,
        "yes_dollars_fp": [["0.4000", "100.00"]],
        "no_dollars_fp": [["0.4500", "50.00"]],
    }
    return orjson.dumps({"type": "orderbook_snapshot", "sid": 1, "seq": seq, "msg": msg}).decode()


def delta(seq: int) -> str:
    msg = {"market_ticker": TICKER, "price_dollars": "0.4000", "delta_fp": "1.00", "side": "yes", "ts_ms": 1}
    return orjson.dumps({"type": "orderbook_delta", "sid": 1, "seq": seq, "msg": msg}).decode()


async def inline(work):  # type: ignore[no-untyped-def]
    await trio.lowlevel.checkpoint()
    return work()


def write_seconds(folder: Path, seconds: int, **limits: int) -> PartWriter:
    """A snapshot, then 20 deltas a second, a flush a second; never closed."""
    writer = PartWriter(folder, dict(HEADER), **limits)  # type: ignore[arg-type]
    seq = 1
    writer.write([(now_at(0), 1, [snapshot(seq)])], 0, now_at(0))
    for step in range(1, seconds):
        batch = [delta(seq + i) for i in range(1, 21)]
        seq += 20
        writer.write([(now_at(step), 1, batch)], 0, now_at(step))
    return writer


def test_what_was_recorded_comes_back(tmp_path: Path) -> None:
    """Every frame, at its time, in the tape; the embedded exchange reads the same file."""
    write_seconds(tmp_path, 5).close(now_at(5))
    tape = read_recording(tmp_path)
    assert [k for k in tape.kind if k == Kind.DELTA_BID] == [Kind.DELTA_BID] * 80
    assert tape.price[1:3].tolist() == [4_000, 4_500]  # NO levels came in YES price, as asked for
    assert (tape.at[0], tape.at[-1]) == (now_at(0), now_at(4))
    assert len(load_recording(tmp_path / "part-0001.jsonl.gz").steps) == 81
    index = [orjson.loads(line) for line in (tmp_path / "index.jsonl").read_bytes().splitlines()]
    assert index[0]["part"] == "part-0001.jsonl.gz"
    assert index[1]["lines"] == 82


def test_a_torn_end_loses_at_most_the_last_second(tmp_path: Path) -> None:
    """Killed at any byte: everything up to the flush before it is there, and what is there is a beginning."""
    writer = PartWriter(tmp_path, dict(HEADER))
    path = tmp_path / "part-0001.jsonl.gz"
    safe = []
    seq = 1
    writer.write([(now_at(0), 1, [snapshot(seq)])], 0, now_at(0))
    for step in range(1, 8):
        batch = [delta(seq + i) for i in range(1, 21)]
        seq += 20
        writer.write([(now_at(step), 1, batch)], 0, now_at(step))
        safe.append((path.stat().st_size, 20 * step))
    assert writer._file is not None
    writer._file.close()  # as a kill does: nothing more is written
    whole = path.read_bytes()
    torn = tmp_path / "torn.jsonl.gz"
    chance = random.Random(1)
    for size in [*(chance.randrange(safe[0][0], len(whole)) for _ in range(40)), len(whole)]:
        torn.write_bytes(whole[:size])
        tape = read_frames(torn)
        found = sum(k == Kind.DELTA_BID for k in tape.kind)
        least = max(deltas for at, deltas in safe if at <= size)
        assert least <= found <= least + 20
        assert tape.notes.get("torn end") == 1


def test_a_torn_file_of_somebody_else_is_refused_with_its_line(tmp_path: Path) -> None:
    """Only our own recordings may end anywhere: elsewhere a cut file has lost nobody knows what."""
    path = tmp_path / "other.jsonl.gz"
    line = b'{"recv_ns":1790000000000000000,"conn":0,"frame":' + snapshot(1).encode() + b"}\n"
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    path.write_bytes(packer.compress(line * 3) + packer.flush(zlib.Z_SYNC_FLUSH))
    with pytest.raises(BadRecording, match="line 4: the gzip data is damaged or cut off"):
        read_frames(path)


def test_parts_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    """Rotation by time: later parts have no snapshot of their own; the folder is one recording."""
    write_seconds(tmp_path, 10, part_time=3 * SECOND).close(now_at(10))
    assert len(list(tmp_path.glob("part-*"))) == 4
    tape = read_recording(tmp_path)
    assert sum(k == Kind.DELTA_BID for k in tape.kind) == 180
    assert not tape.notes
    with pytest.raises(BadRecording, match="no order book snapshot"):
        read_recording(tmp_path / "part-0002.jsonl.gz")


def test_dropped_frames_are_counted_and_stand_in_the_recording(tmp_path: Path) -> None:
    """Slow disk: the books are unknown from there to the next snapshot, not silently wrong."""
    writer = PartWriter(tmp_path, dict(HEADER))
    writer.write([(now_at(0), 1, [snapshot(1), delta(2)])], 0, now_at(0))
    writer.write([(now_at(1), 1, [delta(3)])], 7, now_at(1))
    writer.write([(now_at(2), 1, [delta(11), snapshot(12), delta(13)])], 0, now_at(2))
    writer.close(now_at(3))
    tape = read_recording(tmp_path)
    assert tape.notes == {"dropped by the recorder": 7, "gap": 1, "delta after a gap": 1}
    assert list(tape.kind).count(Kind.STALE) == 1
    assert list(tape.kind)[-1] == Kind.DELTA_BID


async def test_a_full_buffer_drops_for_the_recording_only(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """`frames_came` never waits: beyond the bound frames are counted, and recording goes on after the flush."""
    recorder = Recorder(
        clock=lambda: now_at(0), runner=inline, writer=PartWriter(tmp_path, dict(HEADER)), max_pending=1_000
    )
    for seq in range(1, 51):
        recorder.frames_came(1, [snapshot(seq)], now_at(0))
    assert recorder.frames + recorder.dropped == 50
    assert recorder.dropped > 0
    async with trio.open_nursery() as nursery:
        await nursery.start(recorder.run)
        await trio.sleep(1.5)
        recorder.frames_came(1, [snapshot(51)], now_at(1))
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    await recorder.close()
    assert f"{recorder.dropped} frames are missing" in recorder.summary()
    assert sum(k == Kind.SNAPSHOT for k in read_recording(tmp_path).kind) == recorder.frames


async def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path) -> None:
    """The task lives on; what comes is not kept; the summary says why."""

    class FullDisk(PartWriter):
        def write(self, entries, dropped, now):  # type: ignore[no-untyped-def]
            raise OSError(errno.ENOSPC, "No space left on device", "part")

    recorder = Recorder(clock=lambda: now_at(0), runner=inline, writer=FullDisk(tmp_path, dict(HEADER)))
    recorder.frames_came(1, [snapshot(1)], now_at(0))
    await recorder.flush()
    recorder.frames_came(1, [snapshot(2)], now_at(1))
    await recorder.close()
    assert recorder.frames == 1
    assert "No space left on device" in recorder.summary()


async def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(tmp_path: Path) -> None:
    """`--out` below a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="recording to"):
        async with open_recorder(
            tmp_path / "file", clock=lambda: now_at(0), runner=inline, session="x", use_yes_price=True
        ):
            raise AssertionError("unreachable")


async def test_frames_that_are_no_json_object_do_not_spoil_the_file(tmp_path: Path) -> None:
    """Written down as unreadable, with their text; the rest is read as ever."""
    writer = PartWriter(tmp_path, dict(HEADER))
    writer.write([(now_at(0), 1, [snapshot(1), "garbage", b'{"type":\n"x"}'])], 0, now_at(0))
    writer.close(now_at(1))
    tape = read_recording(tmp_path)
    assert tape.notes == {"frame x": 1}

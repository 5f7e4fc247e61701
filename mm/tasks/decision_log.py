"""The journal of decisions on disk: what all market makers noted, written once a second into segments.

A segment is a gzip file of JSON lines that can be played by itself: its first line says what wrote it, each market in it
begins with a checkpoint. Each second ends in a sync flush, so that whoever is killed loses at most the last second. Two
uses: a ring, of which segments older than the window (or beyond its size) are deleted, and a recording, which keeps all.

Nothing here is in the way of trading. Markets append to a list; encoding is done in small slices between other tasks,
packing and writing in a thread. A disk that refuses ends the journal, never the trading.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs
import orjson
import structlog
import trio

from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import format_time
from mm.engine.decisions.codec import NotPlain
from mm.engine.decisions.journal import DecisionJournal, Entry
from mm.engine.decisions.lines import Encoder
from mm.ledger import Runner

log = structlog.get_logger(__name__)

FORMAT: Final = "mm-decisions/1"
FLUSH_EVERY_S: Final = 1.0
SLICE: Final = 64 * 2**10
"""Bytes of lines that are encoded at a stretch: a millisecond or two."""
LEVEL: Final = 3
SEGMENT: Final = "decisions-{:06d}.jsonl.gz"
PATTERN: Final = "decisions-*.jsonl.gz"


@attrs.frozen
class Segment:
    """A closed file of the journal."""

    name: str
    began: Micros
    ended: Micros
    size: int
    """Bytes on disk."""
    lines: int


@attrs.define(eq=False, kw_only=True)
class SegmentWriter:
    """Writes segments and deletes old ones. Blocking: called in a thread, one call at a time."""

    folder: Path
    header: dict[str, Any]
    segments: list[Segment] = attrs.field(factory=list)
    """Closed, on disk, oldest first."""
    number: int = 0
    size: int = 0
    """Bytes of the segment that is being written."""
    _began: Micros = Micros(0)
    _lines: int = 0
    _file: BinaryIO | None = None
    _packer: "zlib._Compress | None" = None

    @property
    def name(self) -> str:
        """The present segment's file name."""
        return SEGMENT.format(self.number)

    @property
    def began(self) -> Micros | None:
        """When the present segment was begun; None: there is none."""
        return self._began if self._file is not None else None

    def write(self, lines: Sequence[bytes], now: Micros) -> None:
        """Append lines; they outlive this process. Raises `OSError`."""
        if self._file is None:
            self._open(now)
        assert self._file is not None
        assert self._packer is not None
        self._lines += len(lines)
        data = self._packer.compress(b"".join(lines)) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        self._file.write(data)
        self._file.flush()
        self.size += len(data)

    def close(self, now: Micros) -> None:
        """End the present segment. Raises `OSError`."""
        if self._file is None or self._packer is None:
            return
        file, packer = self._file, self._packer
        self._file = self._packer = None
        with file:
            file.write(packer.flush(zlib.Z_FINISH))
            size = file.tell()
        self.segments.append(Segment(self.name, self._began, now, size, self._lines))

    def drop(self, *, before: Micros, max_bytes: int) -> None:
        """Delete closed segments that ended before that time, and the oldest until the rest fits. Raises `OSError`."""
        while self.segments and (
            self.segments[0].ended < before or sum(s.size for s in self.segments) + self.size > max_bytes
        ):
            (self.folder / self.segments.pop(0).name).unlink(missing_ok=True)

    def _open(self, now: Micros) -> None:
        self.number += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
        self._began, self._lines, self.size = now, 0, 0
        head = {"format": FORMAT, "segment": self.number, "began": format_time(now), **self.header}
        self.write([orjson.dumps(head) + b"\n"], now)


@attrs.define(eq=False, kw_only=True)
class DecisionLog:
    """Takes the markets' entries to disk, in its own task (`run`)."""

    clock: Callable[[], Micros]
    runner: Runner
    writer: SegmentWriter
    journal: DecisionJournal = attrs.field(factory=DecisionJournal)
    segment_time: Micros
    window: Micros | None
    """Segments that ended longer ago are deleted; None keeps all."""
    bundle_window: Micros
    """How much of it goes into an incident bundle."""
    max_bytes: int
    """Of all segments of a ring together. A tenth of it at most is one segment."""
    scrub: Callable[[str], str] = lambda text: text
    """Takes secrets out of a text: an exchange's or a library's words may stand in a hold's reason."""
    problem: str = ""
    """Why nothing is written any more; empty while it is."""
    entries: int = 0
    _encoder: Encoder = attrs.field(factory=Encoder)
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write once a second, for ever. A cancellation leaves what came since to `close`."""
        task_status.started()
        while True:
            await trio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self, *, end_segment: bool = False) -> None:
        """Write what has come. A disk that refuses ends the journal; nobody else hears of it but the log.

        Not to be cancelled: a few milliseconds, and a second of entries is not lost.
        """
        with trio.CancelScope(shield=True):
            async with self._lock:
                if self.problem:
                    return
                if self.journal.problem:
                    self._failed(self.journal.problem)
                    return
                try:
                    await self._write(end_segment or self._is_segment_full())
                except OSError as error:
                    self._failed(f"{error.filename or self.writer.folder}: {error.strerror or error}")
                except (NotPlain, TypeError) as error:
                    self._failed(f"an entry cannot be written: {error}")

    def _is_segment_full(self) -> bool:
        began = self.writer.began
        if began is None:
            return False
        is_large = self.window is not None and self.writer.size > self.max_bytes // 10
        return is_large or self.clock() - began >= self.segment_time

    async def _write(self, end_segment: bool) -> None:
        taken = self.journal.take(new_epoch=end_segment)
        lines: list[bytes] = []
        stretch = 0
        for entry in taken:
            lines.append(self._line(entry))
            stretch += len(lines[-1])
            if stretch >= SLICE:
                stretch = 0
                await trio.lowlevel.checkpoint()
        self.entries += len(taken)
        now = self.clock()

        def work() -> None:
            if lines:
                self.writer.write(lines, now)
            if end_segment:
                self.writer.close(now)
            if self.window is not None:
                self.writer.drop(before=Micros(now - self.window), max_bytes=self.max_bytes)

        if end_segment:
            self._encoder = Encoder()
        await self.runner(work)

    def _line(self, entry: Entry) -> bytes:
        data = orjson.dumps(self._encoder(entry))
        if _has_words(entry):
            data = self.scrub(data.decode()).encode()
        return data + b"\n"

    async def close(self) -> None:
        """Write the rest and end the segment."""
        await self.flush(end_segment=True)
        self.journal.switch_off()

    def _failed(self, why: str) -> None:
        self.problem = why
        self.journal.switch_off(why)
        log.error("journal of decisions ended", why=why)


def _has_words(entry: Entry) -> bool:
    """Whether an entry may carry text that was not made here."""
    kind = entry[0]
    if kind == "decide":
        return bool(entry[4][0].reason)
    if kind == "checkpoint":
        state = entry[3]["state"]
        last = state.get("last")
        return bool(state["holds"]["$m"] or state["exit_holds"]["$m"] or (last and last["reason"]))
    return kind in ("holds", "raised", "call")


def log_for_recording(
    folder: Path,
    header: dict[str, Any],
    *,
    clock: Callable[[], Micros],
    runner: Runner,
    scrub: Callable[[str], str],
    bundle_window: Micros,
) -> DecisionLog:
    """A journal that keeps everything, beside recorded frames."""
    return DecisionLog(
        clock=clock,
        runner=runner,
        writer=SegmentWriter(folder=folder, header=header),
        scrub=scrub,
        segment_time=Micros(300 * SECOND),
        window=None,
        bundle_window=bundle_window,
        max_bytes=0,
    )


def log_for_ring(
    folder: Path,
    header: dict[str, Any],
    *,
    clock: Callable[[], Micros],
    runner: Runner,
    scrub: Callable[[str], str],
    window: Micros,
    max_bytes: int,
) -> DecisionLog:
    """A journal of the last `window`, in five to six segments, in at most `max_bytes` on disk (the newest second aside)."""
    return DecisionLog(
        clock=clock,
        runner=runner,
        writer=SegmentWriter(folder=folder, header=header),
        scrub=scrub,
        segment_time=Micros(window // 5),
        window=window,
        bundle_window=window,
        max_bytes=max_bytes,
    )

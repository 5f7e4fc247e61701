"""The recorder: every frame of the exchange's socket with the time of its receipt, on disk, whatever happens to us.

Nothing of it is in the way of trading. The socket's task appends to a list; a task of the recorder's own hands the list
to a thread once a second. When the disk is too slow the list is full, frames are left out of the recording (and only
of the recording), counted, and the gap is written down. A full disk ends the recording, never the trading.

On disk: a folder of its own a session, `part-0001.jsonl.gz` and so on, and `index.jsonl` with a line when a part is
opened and one when it is closed. Each second ends in a sync flush of the gzip stream and of the file: whoever is
killed, or loses power, loses at most the last second. gzip from the standard library rather than zstd: with one stream a
part it packs these frames 12 to 1, at a few percent of a core, every reader here understands it, and the bot needs no
further package.
"""

import os
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import attrs
import orjson
import structlog
import trio

from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import format_time, to_datetime

log = structlog.get_logger(__name__)
T = TypeVar("T")

FLUSH_EVERY_S: Final = 1.0
MAX_PENDING: Final = 32 * 2**20
"""Bytes of frames that may wait for the disk."""
PART_BYTES: Final = 512 * 2**20
"""A part holds about so much, unpacked."""
PART_TIME: Final = Micros(3_600 * SECOND)
CLOSE_WITHIN_S: Final = 5.0
_LEVEL: Final = 6


class Runner(Protocol):
    """Runs blocking work."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of `work`."""


Entry = tuple[Micros, int, Sequence["str | bytes"]]
"""When they came, on which connection, and the frames of one read as they came off the socket."""


@attrs.define(eq=False)
class PartWriter:
    """Writes parts and the index. Blocking: called in a thread, one call at a time."""

    folder: Path
    header: dict[str, object]
    part_bytes: int = PART_BYTES
    part_time: Micros = PART_TIME
    parts: int = 0
    lines: int = 0
    _file: BinaryIO | None = None
    _packer: "zlib._Compress | None" = None
    _opened_at: Micros = Micros(0)
    _raw: int = 0
    _part_lines: int = 0

    def write(self, entries: Sequence[Entry], dropped: int, now: Micros) -> None:
        """Append entries and make them safe. Raises `OSError`."""
        if self._file is not None and (
            self._raw >= self.part_bytes or now - self._opened_at >= self.part_time
        ):
            self.close(now)
        if self._file is None:
            self._open(now)
        lines = [_line(now, conn, message) for now, conn, messages in entries for message in messages]
        if dropped:
            lines.append(_event(now, "dropped", {"frames": dropped}))
        self._append(lines)

    def _open(self, now: Micros) -> None:
        self.parts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
        self._opened_at, self._raw, self._part_lines = now, 0, 0
        self._note({"part": self.name, "opened": format_time(now)})
        self._append([_event(now, "recording", self.header | {"part": self.parts}, self.header)])

    @property
    def name(self) -> str:
        """The present part's file name."""
        return f"part-{self.parts:04d}.jsonl.gz"

    def _append(self, lines: list[bytes]) -> None:
        assert self._file is not None
        assert self._packer is not None
        data = b"".join(lines)
        self._raw += len(data)
        self._part_lines += len(lines)
        self.lines += len(lines)
        self._file.write(self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, now: Micros) -> None:
        """End the part. Raises `OSError`."""
        if self._file is None or self._packer is None:
            return
        file, packer = self._file, self._packer
        self._file = self._packer = None
        with file:
            file.write(packer.flush(zlib.Z_FINISH))
            size = file.tell()
        note = {"part": self.name, "closed": format_time(now), "lines": self._part_lines}
        self._note(note | {"bytes": size, "unpacked": self._raw})

    def _note(self, entry: dict[str, object]) -> None:
        with (self.folder / "index.jsonl").open("ab") as index:
            index.write(orjson.dumps(entry) + b"\n")


def _line(now: Micros, conn: int, message: "str | bytes") -> bytes:
    data = message if isinstance(message, bytes) else message.encode()
    if b"\n" in data:
        data = data.replace(b"\n", b" ")  # between the tokens of a JSON text; within a string it cannot stand
    if not data.startswith(b"{"):
        return _event(now, "unreadable", {"conn": conn, "text": data[:200].decode("utf-8", "replace")})
    return b'{"recv_ns":%d,"conn":%d,"frame":%b}\n' % (now * 1_000, conn, data)


def _event(now: Micros, event: str, info: dict[str, object], also: dict[str, object] | None = None) -> bytes:
    # The field `event` stands where a look at the first line finds it, see `mm.research.frames`.
    return (
        orjson.dumps({"recv_ns": now * 1_000, "conn": 0, "event": event, "info": info, **(also or {})})
        + b"\n"
    )


@attrs.define(eq=False, kw_only=True)
class Recorder:
    """Takes frames by plain call; writes them in its own task."""

    clock: Callable[[], Micros]
    runner: Runner
    writer: PartWriter
    max_pending: int = MAX_PENDING
    frames: int = 0
    dropped: int = 0
    """Frames that are not in the recording because the disk was too slow."""
    problem: str = ""
    """Why nothing is written any more; empty while it is."""
    _pending: list[Entry] = attrs.field(factory=list)
    _bytes: int = 0
    _dropped_since: int = 0

    def frames_came(self, conn: int, messages: Sequence["str | bytes"], now: Micros) -> None:
        """A read of the socket brought these. Never waits, never raises."""
        if self.problem:
            return
        if self._bytes >= self.max_pending:
            if not self._dropped_since:
                log.warning("the disk is too slow: frames are left out of the recording")
            self.dropped += len(messages)
            self._dropped_since += len(messages)
            return
        self.frames += len(messages)
        self._pending.append((now, conn, messages))
        self._bytes += sum(map(len, messages))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write once a second, for ever. A cancellation leaves what came since to `close`."""
        task_status.started()
        while True:
            await trio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what has come. A disk that refuses ends the recording; nobody else hears of it but the log."""
        if self.problem:
            return
        entries, dropped, now = self._pending, self._dropped_since, self.clock()
        if not entries and not dropped:
            return
        self._pending, self._bytes, self._dropped_since = [], 0, 0
        try:
            await self.runner(lambda: self.writer.write(entries, dropped, now))
        except OSError as error:
            self._failed(error)

    async def close(self) -> None:
        """Write the rest and end the part."""
        await self.flush()
        try:
            await self.runner(lambda: self.writer.close(self.clock()))
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.problem = f"{error.filename or self.writer.folder}: {error.strerror or error}"
        log.error("recording ended", why=self.problem)

    def summary(self) -> str:
        """What was recorded, for people."""
        text = f"{self.frames} frames in {self.writer.parts} parts under {self.writer.folder}"
        if self.dropped:
            text += f"; {self.dropped} frames are missing, the disk was too slow"
        return text + (f"; ended early: {self.problem}" if self.problem else "")


@asynccontextmanager
async def open_recorder(
    root: Path, *, clock: Callable[[], Micros], runner: Runner, session: str, use_yes_price: bool
) -> AsyncGenerator[Recorder, None]:
    """A recorder with a folder of its own under `root`. The caller starts `run`. What came is on disk at the end.

    Raises `ConfigError` when the folder cannot be made.
    """
    now = clock()
    folder = root / f"{to_datetime(now).strftime('%Y%m%dT%H%M%SZ')}-{session}"
    header: dict[str, object] = {"format": "mm/1", "session": session, "use_yes_price": use_yes_price}
    recorder = Recorder(clock=clock, runner=runner, writer=PartWriter(folder, header))

    def begin() -> None:
        recorder.writer.write([], 0, now)

    try:
        await runner(begin)
    except OSError as error:
        raise ConfigError([f"recording to {folder}: {error.strerror or error}"]) from None
    try:
        yield recorder
    finally:
        with trio.move_on_after(CLOSE_WITHIN_S, shield=True):
            await recorder.close()

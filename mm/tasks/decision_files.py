"""Reading journals of decisions: which files, in which order, whole or damaged. Blocking, no task."""

import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from mm.domain.errors import MMError
from mm.tasks.decision_log import FORMAT, PATTERN

MANIFEST: Final = "manifest.json"
BUNDLE_FORMAT: Final = "mm-incident/1"
_CHUNK: Final = 1 << 16
_NUMBER: Final = re.compile(r"decisions-(\d+)\.jsonl\.gz")


class DamagedJournal(MMError):
    """Files that are not what they should be; the message names file and line."""


@attrs.define(kw_only=True)
class JournalFiles:
    """The segments of one journal, in order."""

    folder: Path
    segments: list[Path]
    manifest: dict[str, Any] | None = None
    """Of an incident bundle."""
    note: str = ""
    """How it ends when it does not end as it should; known when it has been read."""
    headers: list[dict[str, Any]] = attrs.field(factory=list)
    """First lines of the segments read so far."""

    def entries(self) -> Iterator[tuple[Path, int, list[Any]]]:
        """File, line and entry, in order. Raises `DamagedJournal` at the place of the damage."""
        for path in self.segments:
            is_last = path is self.segments[-1]
            for number, line in self._lines(path, is_last):
                if number == 1:
                    self.headers.append(_header(path, line))
                    continue
                try:
                    entry = orjson.loads(line)
                except orjson.JSONDecodeError as exc:
                    raise DamagedJournal(f"{path}, line {number}: not JSON ({exc})") from None
                if not isinstance(entry, list) or len(entry) < 2:
                    raise DamagedJournal(f"{path}, line {number}: expected an entry [kind, market, ...]")
                yield path, number, entry

    def _lines(self, path: Path, may_be_torn: bool) -> Iterator[tuple[int, bytes]]:
        unpacker, rest, number, size = zlib.decompressobj(31), b"", 0, 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                try:
                    data = unpacker.decompress(chunk)
                except zlib.error as exc:
                    raise DamagedJournal(
                        f"{path}, after line {number}: not readable as gzip ({exc}); expected a segment of a journal of "
                        "decisions"
                    ) from None
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    number += 1
                    yield number, line
        if unpacker.eof and not rest:
            return
        if not may_be_torn:
            raise DamagedJournal(f"{path}: cut off after line {number} ({size} bytes); the end is missing")
        self.note = (
            f"{path.name} ends without an end after line {number}: its writer was killed, or the file was cut"
        )


def find_journal(path: Path) -> JournalFiles:
    """The journal at `path`: a bundle, a recorded session, a ring, or a single segment.

    Raises:
        DamagedJournal: There is none, a segment is missing, or a file is shorter than the bundle says.
    """
    if path.is_file():
        return JournalFiles(folder=path.parent, segments=[path])
    if not path.is_dir():
        raise DamagedJournal(f"{path}: there is no such file or folder")
    segments = sorted(path.glob(PATTERN))
    manifest = _manifest(path)
    if manifest is not None:
        _check_against(path, manifest)
    if not segments:
        what = (
            "frames only (`mm record` decides nothing)"
            if list(path.glob("part-*.jsonl.gz"))
            else "nothing of it"
        )
        raise DamagedJournal(f"{path}: no journal of decisions ({PATTERN}) in it, {what}")
    _check_numbers(segments)
    return JournalFiles(folder=path, segments=segments, manifest=manifest)


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as exc:
        raise DamagedJournal(
            f"{path}: not JSON ({exc}); expected the manifest of an incident bundle"
        ) from None
    if not isinstance(found, dict) or found.get("format") != BUNDLE_FORMAT:
        raise DamagedJournal(f'{path}: expected "format": "{BUNDLE_FORMAT}"')
    return found


def _check_against(folder: Path, manifest: dict[str, Any]) -> None:
    for row in manifest.get("segments", []):
        path = folder / str(row.get("name"))
        if not path.is_file():
            raise DamagedJournal(f"{path}: is missing; {MANIFEST} lists it")
        size = path.stat().st_size
        if size != row.get("bytes"):
            raise DamagedJournal(
                f"{path}: {size} bytes, {MANIFEST} says {row.get('bytes')}: cut off or changed"
            )


def _check_numbers(segments: list[Path]) -> None:
    numbers = [int(found[1]) for path in segments if (found := _NUMBER.fullmatch(path.name))]
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise DamagedJournal(
                f"{segments[0].parent}: segment {before + 1} is missing (from {before} to {after})"
            )


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        shown = line[:60].decode("utf-8", "replace")
        raise DamagedJournal(f'{path}, line 1: expected {{"format": "{FORMAT}", ...}}, found {shown!r}')
    return found

"""Lines of a file that may be gzip, with errors that name file and line. Formats are `formats`'."""

import csv
import gzip
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

import attrs
import orjson

from mm.domain.errors import BookOutOfSync, MMError

_GZIP: Final = b"\x1f\x8b"
T = TypeVar("T")


class BadRecording(MMError):
    """A file that cannot be used; the message names it, the line where there is one, and what was expected."""

    def __init__(self, path: Path | str, line: int | None, problem: str) -> None:
        where = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{where}: {problem}")


@attrs.define(eq=False)
class Lines:
    """The lines of one file, counted as they are read."""

    path: Path
    may_be_torn: bool = False
    """The writer may have been killed: a cut end is then the end."""
    number: int = 0
    is_torn: bool = False

    def __iter__(self) -> Generator[bytes, None, None]:
        try:
            with open_bytes(self.path) as file:
                for line in file:
                    self.number += 1
                    if not line.endswith(b"\n") and self.may_be_torn:
                        self.is_torn = True  # the last write was cut
                        return
                    yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if self.may_be_torn and isinstance(error, EOFError):
                self.is_torn = True
                return
            raise BadRecording(
                self.path, self.number + 1, f"the gzip data is damaged or cut off: {error}"
            ) from error
        except OSError as error:
            raise BadRecording(self.path, None, f"cannot be read: {error.strerror or error}") from error

    def fail(self, problem: str) -> BadRecording:
        """An error at the present line."""
        return BadRecording(self.path, self.number, problem)

    def objects(self) -> Iterator[dict[str, Any]]:
        """Each line as a JSON object; blank lines are skipped."""
        for text in self:
            if not text.strip():
                continue
            try:
                found = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise self.fail(f"not JSON: {error}") from error
            if not isinstance(found, dict):
                raise self.fail("expected a JSON object")
            yield found

    def rows(self) -> Iterator[dict[str, str]]:
        """Each line of a CSV as a dict by the names of its first line."""

        def texts() -> Iterator[str]:
            for line in self:
                try:
                    yield line.decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    raise self.fail(f"not UTF-8: {error.reason}") from error

        reader = csv.reader(texts(), strict=True)
        try:
            names = next(reader, [])
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise self.fail(f"{len(row)} fields, the first line names {len(names)}")
                yield dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise self.fail(f"not CSV: {error}") from error

    def each(self, found: Iterator[T], take: Callable[[T], None], expected: str) -> None:
        """`take` each of `found`; what does not fit becomes a `BadRecording` that says what was expected."""
        for one in found:
            try:
                take(one)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, BookOutOfSync) as error:
                cause = error.__cause__ if isinstance(error.__cause__, KeyError) else error
                what = f"{cause} is missing" if isinstance(cause, KeyError) else str(error)
                raise self.fail(f"{what} (expected {expected})") from error


@contextmanager
def open_bytes(path: Path) -> Generator[IO[bytes], None, None]:
    """A file's bytes, unpacked when they are gzip. Raises `OSError`."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        if not is_gzip:
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast("IO[bytes]", unpacked)


def first_line(path: Path) -> bytes:
    """The first line that is not blank; empty when there is none. Raises `BadRecording`."""
    with closing(iter(Lines(path))) as lines:
        return next((line for line in lines if line.strip()), b"")

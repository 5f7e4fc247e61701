"""Logging: one place where lines are rendered, redacted, and written to a rotated file and to people.

Every module says `structlog.get_logger(__name__)`; the session opens `open_logs` around everything. A secret that
reaches a log line, in a field, in a traceback or through a library, is replaced before the line is written anywhere.
"""

import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO, final

import attrs
import structlog

from mm.domain.numbers import Micros
from mm.domain.tickers import to_datetime

FILE_NAME: Final = "mm.log"
MAX_BYTES: Final = 10_000_000
KEPT_FILES: Final = 5
REDACTED: Final = "<redacted>"
SHORTEST_SECRET: Final = 8
"""Shorter parts are no secret by themselves and would blacken ordinary text."""

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_PATTERNS: Final = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    r"https?://[^\s\"']*/api/(?:v\d+/)?webhooks/[^\s\"']+",
)
_PLAIN: Final = re.compile(r"[^\s\"'=\\]+")


@final
class Redactor:
    """Takes secrets out of text: those given, each part of them, and whatever looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        parts: set[str] = set()
        for secret in secrets:
            parts.add(secret.strip())
            # A PEM shows up with real line ends, with `\n` in two characters, or line by line.
            parts.update(re.split(r"\s+|\\n", secret))
            # A webhook shows up without its host.
            parts.update(re.findall(r"/api/\S+", secret))
        exact = sorted(
            (p for p in parts if len(p) >= SHORTEST_SECRET and "-----" not in p), key=len, reverse=True
        )
        self._pattern = re.compile("|".join([*_PATTERNS, *map(re.escape, exact)]), re.DOTALL)

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        return self._pattern.sub(REDACTED, text)

    def __repr__(self) -> str:
        return "Redactor(...)"


@final
class RotatingFile:
    """A log file that is renamed to `.1`, `.2` .. when it has grown to its bound. Raises `OSError`."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def write(self, line: str) -> None:
        """Append one line, which reaches the file at once."""
        data = (line + "\n").encode("utf-8", "backslashreplace")
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        os.write(self._descriptor, data)
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        for n in range(self._kept - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{n}")
            if older.exists():
                os.replace(older, self._path.with_name(f"{self._path.name}.{n + 1}"))
        os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
        os.close(self._descriptor)
        self._open()


@final
@attrs.define(eq=False, kw_only=True)
class Logs:
    """Where lines go. Made by `open_logs`."""

    _file: RotatingFile | None
    _human: Callable[[str], None]
    _human_level: int
    _redact: Redactor
    _clock: Callable[[], Micros]
    path: Path | None = None
    lost: int = 0
    """Lines that the file did not take (disk full)."""

    @contextmanager
    def divert(self, note: Callable[[str], None], level: str = "warning") -> Iterator[None]:
        """While the block runs, people get their lines through `note`, and only from `level` on."""
        human, human_level = self._human, self._human_level
        self._human, self._human_level = note, max(_LEVELS[level], human_level)
        try:
            yield
        finally:
            self._human, self._human_level = human, human_level

    def emit(self, level: str, fields: Mapping[str, Any]) -> None:
        """Render one event and write it. Never raises: a log that cannot be written stops nobody."""
        moment = to_datetime(self._clock())
        line = self._redact(render_line(level, fields))
        if self._file is not None:
            try:
                self._file.write(f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z {line}")
            except OSError as exc:
                self.lost += 1
                if self.lost == 1:
                    self._tell(f"{moment:%H:%M:%S} [error] log file cannot be written: {exc.strerror}")
        if _LEVELS.get(level, logging.ERROR) >= self._human_level:
            self._tell(f"{moment:%H:%M:%S} {line}")

    def _tell(self, line: str) -> None:
        try:
            self._human(line)
        except (OSError, ValueError):
            # Nobody listens on stderr any more (closed pipe): the file has it.
            self.lost += 1


@contextmanager
def open_logs(
    folder: Path | None,
    *,
    clock: Callable[[], Micros],
    secrets: Iterable[str] = (),
    human: TextIO,
    human_level: str = "info",
    file_level: str = "info",
) -> Iterator[Logs]:
    """Send all logging, structlog's and the standard library's, to a file in `folder` and to people on `human`.

    Args:
        folder: Made when missing; None: no file.
        clock: Wall clock.
        secrets: Never to be written: PEM, webhook. A key id is none.
        human: Mostly stderr. A stream that fails is left alone.
        human_level: Where there is no table: `info`.
        file_level: The lowest level that is rendered at all.

    Raises:
        OSError: The file cannot be made.
    """
    file = None if folder is None else RotatingFile(folder / FILE_NAME)

    def to_stream(line: str) -> None:
        human.write(line + "\n")
        human.flush()

    logs = Logs(
        file=file,
        human=to_stream,
        human_level=_LEVELS[human_level],
        redact=Redactor(secrets),
        clock=clock,
        path=None if folder is None else folder / FILE_NAME,
    )
    lowest = min(_LEVELS[file_level], _LEVELS[human_level])
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _to_sink],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *args: _Sink(logs, args[0] if args else ""),
        cache_logger_on_first_use=False,
    )
    # Libraries: warnings only. The HTTP client tells every address at INFO, and one of them is a secret.
    bridge = _Bridge(logs)
    root = logging.getLogger()
    root.addHandler(bridge)
    try:
        yield logs
    finally:
        root.removeHandler(bridge)
        structlog.configure(**before)
        if file is not None:
            file.close()


def render_line(level: str, fields: Mapping[str, Any]) -> str:
    """`[warning] event key=value ..`, the traceback, if any, on lines of its own."""
    rest = dict(fields)
    event = str(rest.pop("event", ""))
    exc_info = rest.pop("exc_info", None)
    stack = rest.pop("stack_info", None)
    words = [
        f"[{level}]",
        event.replace("\n", "\n    "),
        *(f"{key}={_value(value)}" for key, value in rest.items()),
    ]
    line = " ".join(words)
    for block in (_traceback(exc_info), str(stack) if stack and stack is not True else ""):
        if block:
            line += "\n    " + block.rstrip().replace("\n", "\n    ")
    return line


def _value(value: object) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, int | float) else repr(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _traceback(exc_info: object) -> str:
    """The traceback without the values of variables."""
    match exc_info:
        case BaseException() as exc:
            return "".join(traceback.format_exception(exc))
        case (type(), BaseException() as exc, TracebackType() | None):
            return "".join(traceback.format_exception(exc))
        case True:
            text = traceback.format_exc()
            return "" if text.startswith("NoneType") else text
        case _:
            return ""


def _to_sink(logger: object, method: str, fields: Any) -> tuple[tuple[str, Any], dict[str, Any]]:
    """structlog's last processor: hand level and fields over unrendered."""
    return (method, dict(fields)), {}


@attrs.frozen
class _Sink:
    """What structlog calls at the end: one method a level."""

    _logs: Logs
    _name: str

    def _emit(self, level: str, fields: Mapping[str, Any]) -> None:
        level = "error" if level == "exception" else level
        self._logs.emit(level, {**fields, "logger": self._name} if self._name else fields)

    debug = info = warning = error = critical = exception = msg = log = _emit


@final
class _Bridge(logging.Handler):
    """The standard library's records, as events."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record over."""
        fields = {"event": record.getMessage(), "exc_info": record.exc_info, "logger": record.name}
        self._logs.emit(record.levelname.lower(), fields)

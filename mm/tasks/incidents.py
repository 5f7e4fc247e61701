"""Incident bundles: what an alert or a failed run leaves behind, so that its decisions can be made again elsewhere.

A bundle is a folder: the segments of the decision journal's ring, the end of the log, and `manifest.json`, written last,
with causes, versions and settings (no secret among them). Alerts that come together share a bundle. A ring that an
earlier life left (it was killed) becomes a bundle at the next start. Bundles are bounded in number and size; what is deleted
for that is told.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
import structlog
import trio

from mm.domain.numbers import Micros
from mm.domain.tickers import format_time, to_datetime
from mm.ledger import Runner
from mm.tasks.alert_values import Alert, Severity
from mm.tasks.decision_files import BUNDLE_FORMAT, MANIFEST
from mm.tasks.decision_log import FLUSH_EVERY_S, PATTERN, DecisionLog

log = structlog.get_logger(__name__)

SETTLE_S: Final = 5.0
"""A bundle is made so long after its first alert: what follows from it is in it."""
APART_S: Final = 60.0
"""Between two bundles of a session; alerts in between share the next."""
CAUSES: Final = 50
LOG_TAIL: Final = 500_000
"""Bytes of the log that go into a bundle."""
CLOSE_WITHIN_S: Final = 10.0
LOG_NAME: Final = "log.txt"


@attrs.frozen(kw_only=True)
class Cause:
    """Why a bundle was made."""

    at: Micros
    kind: str
    severity: str
    text: str


@attrs.define(eq=False, kw_only=True)
class Bundles:
    """The folder of bundles. Blocking: called in a thread, one call at a time."""

    folder: Path
    about: dict[str, Any]
    """Versions and settings, as the manifest shows them."""
    scrub: Callable[[str], str]
    """Takes secrets out of a text."""
    log_file: Path
    kept: int
    made: int = 0
    deleted: int = 0

    def make(
        self, causes: Sequence[Cause], segments: Sequence[Path], now: Micros, extra: dict[str, Any]
    ) -> Path:
        """A new bundle of these segments, whole or not at all; the oldest beyond `kept` go. Raises `OSError`."""
        name = f"{to_datetime(now).strftime('%Y%m%dT%H%M%SZ')}-{causes[0].kind if causes else 'run'}"
        part = self.folder / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, mode=0o700)
        rows = []
        for path in segments:
            _link(path, part / path.name)
            rows.append({"name": path.name, "bytes": (part / path.name).stat().st_size})
        # By lines: in one piece it would keep the interpreter, and with it the event loop, for tens of milliseconds.
        lines = map(self.scrub, _tail(self.log_file).splitlines(keepends=True))
        (part / LOG_NAME).write_text("".join(lines), encoding="utf-8")
        manifest = {
            "format": BUNDLE_FORMAT,
            "made": format_time(now),
            "causes": [attrs.asdict(c) | {"at": format_time(c.at)} for c in causes],
            **extra,
            **self.about,
            "segments": rows,
            "log": LOG_NAME,
        }
        text = self.scrub(orjson.dumps(manifest, option=orjson.OPT_INDENT_2).decode())
        (part / MANIFEST).write_text(text, encoding="utf-8")
        target = self.folder / name
        number = 1
        while target.exists():
            number += 1
            target = self.folder / f"{name}-{number}"
        os.replace(part, target)
        self.made += 1
        self._prune()
        return target

    def adopt(self, rings: Path, now: Micros) -> list[Path]:
        """Rings that earlier lives left become bundles. Raises `OSError`."""
        found = []
        for ring in sorted(rings.iterdir()) if rings.is_dir() else []:
            segments = sorted(ring.glob(PATTERN))
            if segments:
                text = "an earlier run ended without a word: killed, or the machine went down"
                cause = Cause(at=_changed_at(segments[-1]), kind="killed", severity="critical", text=text)
                found.append(self.make([cause], segments, now, {"ring": ring.name}))
            shutil.rmtree(ring, ignore_errors=True)
        return found

    def _prune(self) -> None:
        bundles = sorted(p for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        for old in bundles[: max(0, len(bundles) - self.kept)]:
            shutil.rmtree(old, ignore_errors=True)
            self.deleted += 1
            log.info("old incident bundle deleted", bundle=old.name, kept=self.kept)


@attrs.define(eq=False, kw_only=True)
class Incidents:
    """Listens to alerts and makes bundles, in its own task (`run`), and one at the end of a failed run (`close`)."""

    decisions: DecisionLog
    bundles: Bundles | None
    """None: only the journal is kept."""
    clock: Callable[[], Micros]
    runner: Runner
    session: str = ""
    left_out: int = 0
    """Causes beyond those that the next bundle names."""
    _causes: list[Cause] = attrs.field(factory=list)
    _due: float = float("inf")
    _last: float = float("-inf")

    def alert(self, alert: Alert) -> None:
        """An alert was told to people. Never waits, never raises."""
        if self.bundles is None or alert.severity < Severity.WARNING:
            return
        severity = alert.severity.name.lower()
        self._note(Cause(at=alert.at, kind=alert.kind.value, severity=severity, text=alert.text))

    def _note(self, cause: Cause) -> None:
        if len(self._causes) >= CAUSES:
            self.left_out += 1
        else:
            self._causes.append(cause)
        self._due = min(self._due, max(trio.current_time() + SETTLE_S, self._last + APART_S))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write the journal once a second and bundles when they are due, for ever."""
        task_status.started()
        while True:
            await trio.sleep(FLUSH_EVERY_S)
            await self.decisions.flush()
            if trio.current_time() >= self._due:
                await self.make()

    async def make(self) -> None:
        """A bundle of what the ring holds. A disk that refuses is told in the log, nowhere else."""
        bundles = self.bundles
        if bundles is None:
            return
        self._due, self._last = float("inf"), trio.current_time()
        causes, self._causes = self._causes, []
        extra = {
            "session": self.session,
            "causes_left_out": self.left_out,
            "entries_lost": self.decisions.journal.lost,
            "frames_lost": self.decisions.journal.frames_lost,
        }
        extra |= {"journal_ended_early": self.decisions.problem} if self.decisions.problem else {}
        self.left_out = 0
        await self.decisions.flush(end_segment=True)
        writer, window = self.decisions.writer, self.decisions.bundle_window
        now = self.clock()
        segments = [writer.folder / s.name for s in writer.segments if s.ended >= now - window]
        try:
            with trio.CancelScope(shield=True):
                made = await self.runner(lambda: bundles.make(causes, segments, now, extra))
        except OSError as error:
            log.error("incident bundle not made", why=f"{error.filename}: {error.strerror or error}")
            return
        log.warning("incident bundle made", bundle=str(made), replay=f"mm replay {made}")

    async def adopt(self, rings: Path) -> None:
        """Make bundles of what killed lives left."""
        bundles, now = self.bundles, self.clock()
        if bundles is None:
            return
        try:
            found = await self.runner(lambda: bundles.adopt(rings, now))
        except OSError as error:
            log.error("incident bundle not made", why=f"{error.filename}: {error.strerror or error}")
            return
        for made in found:
            log.warning("incident bundle made of a killed run", bundle=str(made), replay=f"mm replay {made}")

    async def close(self, failure: str, *, is_ring: bool) -> None:
        """The end of the run: a bundle when it failed or alerts are open; a ring has done its work then."""
        with trio.move_on_after(CLOSE_WITHIN_S, shield=True):
            if failure and self.bundles is not None:
                self._note(Cause(at=self.clock(), kind="failed", severity="critical", text=failure))
            if self._causes:
                await self.make()
            await self.decisions.close()
            if is_ring:
                folder = self.decisions.writer.folder
                await self.runner(lambda: shutil.rmtree(folder, ignore_errors=True))


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name: free where the file system has hard links, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL))
            data = file.read()
    except FileNotFoundError:
        return ""
    if size > LOG_TAIL:
        data = data[data.find(b"\n") + 1 :]
    return data.decode("utf-8", "replace")


def _changed_at(path: Path) -> Micros:
    return Micros(path.stat().st_mtime_ns // 1_000)

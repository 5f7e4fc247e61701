"""Backups of a ledger: a verified copy while the bot writes, and the way back.

A copy that is restored is older than the exchange. That loses nothing: the bot's first pass reads every fill and
settlement since the mark that the copy holds. What only the ledger knows (alerts to be told, what orders were intended)
is lost from the backup on; the exchange is swept at the start whatever the ledger says.
"""

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs

from mm.domain.errors import LedgerError
from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import format_time, parse_time
from mm.ledger import integrity
from mm.ledger.schema import APPLICATION_ID, VERSION
from mm.ledger.store import BUSY_TIMEOUT_S, damaged, told

FOLDER: Final = "backups"
KEEP: Final = 14
PAGES: Final = 2_000
"""Copied at a time (8 MB): between two the bot may write."""
_NAME: Final = re.compile(r"(.+)-(\d{4}-\d{2}-\d{2}T\d{2})(\d{2})(\d{2}Z)\.sqlite3")


@attrs.frozen(order=True)
class Backup:
    """One of the files."""

    taken_at: Micros
    path: Path = attrs.field(order=False)


def backups_in(folder: Path) -> list[Backup]:
    """Backups beside the ledger of this data folder, oldest first."""
    found = []
    for path in (folder / FOLDER).glob("*.sqlite3"):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            _, hour, minute, second = match.groups()
            found.append(Backup(parse_time(f"{hour}:{minute}:{second}"), path))
    return sorted(found)


def back_up(
    path: Path, now: Micros, *, folder: Path | None = None, keep: int = KEEP
) -> tuple[Path, list[Path]]:
    """Copy the ledger, verify the copy, and drop all but the newest `keep` backups of the folder.

    Works beside a running bot; archives that the ledger names are copied along, once.

    Returns:
        The copy, and what was dropped.

    Raises:
        LedgerError: There is no ledger, no room, or the copy does not verify; then there is no copy.
    """
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}")
    folder = path.parent / FOLDER if folder is None else folder
    stamp = format_time(Micros(now // SECOND * SECOND), trim=True).replace(":", "")
    target = folder / f"{path.stem}-{stamp}{path.suffix}"
    partial = target.with_name(target.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy(path, partial)
        verify_whole(partial)
        partial.rename(target)
        for archive in path.parent.glob(f"{path.stem}-archive-*{path.suffix}"):
            if not (folder / archive.name).exists():
                shutil.copy2(archive, folder / archive.name)
        dropped = _drop(folder, path.stem, keep)
    except OSError as exc:
        raise LedgerError(f"cannot write a backup into {folder}: {exc.strerror}") from exc
    finally:
        for left in folder.glob(f"{partial.name}*"):
            left.unlink(missing_ok=True)
    return target, dropped


def restore(backup: Path, path: Path) -> None:
    """Put a verified copy of `backup` where the ledger was. The caller holds the data folder's lock and has moved the
    old file away. Raises `LedgerError`; then nothing was put there."""
    partial = path.with_name(path.name + ".part")
    try:
        _copy(backup, partial)
        verify_whole(partial)
        for archive in backup.parent.glob(f"{path.stem}-archive-*{path.suffix}"):
            if not (path.parent / archive.name).exists():
                shutil.copy2(archive, path.parent / archive.name)
        partial.rename(path)
    except OSError as exc:
        raise LedgerError(f"cannot restore to {path}: {exc.strerror}") from exc
    finally:
        for left in path.parent.glob(f"{partial.name}*"):
            left.unlink(missing_ok=True)


def verify_whole(path: Path) -> None:
    """Every seal, the whole chain. Raises `LedgerError`, also for a file of a newer program or none of ours."""
    with told(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with told(path):
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                raise LedgerError(f"{path} is not a ledger of mm")
            if version > VERSION:
                raise LedgerError(
                    f"{path} was made by a newer mm (version {version}, this one has {VERSION})"
                )
            if version < VERSION:
                return  # sealed otherwise: checked and brought up to date by the bot's next start
            integrity.prepare(connection)
            found = integrity.problems(connection)
    finally:
        connection.close()
    if found:
        raise LedgerError(damaged(path, "; ".join(found)))


def _copy(source: Path, target: Path) -> None:
    """One committed state of `source`, whoever writes to it meanwhile."""
    target.unlink(missing_ok=True)
    with told(source):
        reading = sqlite3.connect(
            f"file:{quote(str(source.absolute()))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S
        )
    try:
        with told(target):
            writing = sqlite3.connect(target)
        try:
            with told(source):
                reading.backup(writing, pages=PAGES)
                # One file that can be copied and read anywhere, without a log beside it.
                writing.execute("PRAGMA journal_mode = DELETE")
        finally:
            writing.close()
    finally:
        reading.close()


def _drop(folder: Path, stem: str, keep: int) -> list[Path]:
    found = sorted(path for path in folder.glob(f"{stem}-*.sqlite3") if _NAME.fullmatch(path.name))
    old = found[:-keep]
    for path in old:
        path.unlink()
    return old

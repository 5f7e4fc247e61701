"""One bot on one data folder: an advisory file lock, held by the bot's process alone.

The lock belongs to the open file, which no child inherits (close-on-exec), so a guardian that is still at work never
blocks a restart; the system drops it when the process ends, however it ends. The file itself is never removed: a
removed lock file could be locked twice.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mm.domain.errors import LedgerError

LOCK_NAME: Final = "bot.lock"
_TRIES: Final = 5
_AGAIN_S: Final = 0.01


class DataFolderInUse(LedgerError):
    """Another bot runs on this data folder."""


@contextmanager
def lock_data_folder(folder: Path) -> Iterator[None]:
    """Hold the folder for this process while the block runs. Makes the folder when it is missing.

    Raises:
        DataFolderInUse: Another process holds it; the message names its pid.
        LedgerError: The folder or the file cannot be made or opened.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise LedgerError(
            f"cannot use the data folder {folder}: {exc.strerror or exc}; choose another with MM_DATA_DIR"
        ) from exc
    try:
        _lock(descriptor, folder)
        _write_pid(descriptor)
        try:
            yield
        finally:
            _forget_pid(descriptor)
            # Said aloud, not left to the close: a child that is just being started holds the open file until its exec.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise LedgerError(f"cannot lock the data folder {folder}: {exc.strerror or exc}") from exc
            if not tries_left:
                pid = _pid_in(descriptor)
                raise DataFolderInUse(
                    f"another bot (pid {pid or 'unknown'}) runs on the data folder {folder}: "
                    "stop it first, or set MM_DATA_DIR to a folder of its own"
                ) from exc
            time.sleep(_AGAIN_S)  # it may be no bot, but a look that is over in microseconds
        else:
            return


def _write_pid(descriptor: int) -> None:
    # The pid is only for the message of the next one; a full disk must not keep a bot from cleaning up, and a
    # write that fails here is told by the ledger's own first write.
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise LedgerError(f"cannot write the lock file: {exc.strerror or exc}") from exc


def _forget_pid(descriptor: int) -> None:
    with suppress(OSError):
        os.ftruncate(descriptor, 0)


def _pid_in(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()


def holder_of(folder: Path) -> int | None:
    """The pid of the bot that runs on the folder, or None; decided by the lock, not by the pid, which may be another's.

    Shares the lock for an instant, and only where a killed bot left its pid; a bot that starts just then tries again.
    """
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid = int(_pid_in(descriptor))
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except ValueError:
        return None  # nobody there, or just starting
    except OSError as exc:
        return pid if exc.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    finally:
        os.close(descriptor)
    return None

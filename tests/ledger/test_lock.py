"""One bot on one data folder."""

import os
import subprocess
import sys

import pytest

from mm.domain.errors import LedgerError
from mm.ledger import DataFolderInUse, lock_data_folder
from mm.ledger.lock import holder_of

HOLDER = """
import sys
from pathlib import Path
from mm.ledger import lock_data_folder
with lock_data_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.real
def test_the_second_bot_is_refused_until_the_first_is_gone(tmp_path):
    """The message names the first one's pid; SIGKILL frees the folder."""
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(DataFolderInUse, match=rf"pid {first.pid}\).*{tmp_path}"):
            with lock_data_folder(tmp_path):
                pass
        first.kill()
        first.wait(10)
    with lock_data_folder(tmp_path):
        assert (tmp_path / "bot.lock").read_text() == f"{os.getpid()}\n"


@pytest.mark.real
def test_a_child_does_not_keep_the_lock(tmp_path):
    """A guardian still at work never blocks a restart."""
    with lock_data_folder(tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False
        )
    with child, lock_data_folder(tmp_path):
        child.stdin.close()


def test_the_same_process_cannot_hold_it_twice(tmp_path):
    """Two sessions in one process are two bots as well."""
    with lock_data_folder(tmp_path), pytest.raises(DataFolderInUse):
        with lock_data_folder(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    """With the setting that changes it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="MM_DATA_DIR"):
        with lock_data_folder(tmp_path / "file" / "folder"):
            pass


def test_a_look_tells_who_holds_the_folder_and_takes_nothing(tmp_path):
    """Also where the pid of a killed bot is now somebody else's: the lock decides, not the pid."""
    assert holder_of(tmp_path) is None
    with lock_data_folder(tmp_path):
        assert holder_of(tmp_path) == os.getpid()
    assert holder_of(tmp_path) is None
    (tmp_path / "bot.lock").write_text(
        f"{os.getpid()}\n"
    )  # as a bot leaves it that is killed; its pid lives on
    assert holder_of(tmp_path) is None
    with lock_data_folder(tmp_path):
        assert holder_of(tmp_path) == os.getpid()


@pytest.mark.real
def test_a_look_keeps_no_bot_from_starting(tmp_path):
    """A look every millisecond, beside a stale pid: every start succeeds."""
    (tmp_path / "bot.lock").write_text(f"{os.getpid()}\n")
    code = (
        "import sys, time; from pathlib import Path; from mm.ledger.lock import holder_of\n"
        "print('looking', flush=True)\n"
        # Not for anything to happen: it is how often the other process looks.
        "while True: holder_of(Path(sys.argv[1])), time.sleep(0.001)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as looker:
        assert looker.stdout.readline() == b"looking\n"
        for _ in range(200):
            (tmp_path / "bot.lock").write_text(f"{os.getpid()}\n")
            with lock_data_folder(tmp_path):  # refused, it would raise
                assert (tmp_path / "bot.lock").read_text() == f"{os.getpid()}\n"
        assert looker.poll() is None, "it looked to the end"
        looker.kill()

"""Logs: to a rotated file and to people, without secrets, and never in the way."""

import io
import logging
import os

import pytest
import structlog

from mm.views.logs import KEPT_FILES, Redactor, RotatingFile, open_logs, render_line

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----\n"
WEBHOOK = "https://discord.com/api/webhooks/112233445566778899/s3cr3t-t0ken-0123456789"
NOW = 1_796_166_601_000_000


@pytest.fixture
def human():
    return io.StringIO()


@pytest.fixture
def logs(tmp_path, human):
    with open_logs(tmp_path / "logs", clock=lambda: NOW, secrets=[PEM, WEBHOOK], human=human) as opened:
        yield opened


def test_events_reach_the_file_and_people(logs, human):
    """With time, level, fields and the module's name."""
    log = structlog.get_logger("mm.tasks.desk")
    log.info("order placed", market="KXNHLGAME-26DEC01TORBOS-TOR", price="0.4100", why="a b", count=3)
    log.debug("too fine")

    line = '[info] order placed market=KXNHLGAME-26DEC01TORBOS-TOR price=0.4100 why="a b" count=3 logger=mm.tasks.desk\n'
    assert logs.path.read_text() == "2026-12-01T23:10:01.000000Z " + line
    assert human.getvalue() == "23:10:01 " + line


def test_the_file_is_for_its_owner_alone(logs):
    """Trades are nobody else's business."""
    structlog.get_logger().info("x")
    assert logs.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "leak",
    [
        lambda log: log.info("key", pem=PEM),
        lambda log: log.info("key", pem=PEM.replace("\n", "\\n")),
        lambda log: log.info("key", part=PEM.splitlines()[1]),
        lambda log: log.info(f"posting to {WEBHOOK}"),
        lambda log: log.warning(
            "failed", url=WEBHOOK.removeprefix("https://discord.com"), nested={"a": [WEBHOOK]}
        ),
        lambda log: log.info(
            "other", url="https://discord.com/api/v10/webhooks/998877665544332211/unregistered-token"
        ),
        lambda log: log.info("other", pem="-----BEGIN RSA PRIVATE KEY-----\nunregisteredunregistered"),
        lambda log: logging.getLogger("httpx").warning("POST %s", WEBHOOK),
        lambda log: raise_and_log(log),
    ],
)
def test_secrets_are_written_nowhere(logs, human, leak):
    """In a field, an event, a traceback, a library's record; registered or only looking like one."""
    leak(structlog.get_logger())

    for text in (logs.path.read_text(), human.getvalue()):
        assert "<redacted>" in text
        for secret in ("s3cr3t", "112233445566778899", "MIIEvQ", "BKcwgg", "unregistered", "998877"):
            assert secret not in text


def raise_and_log(log):
    """An exception whose message carries the secret."""
    try:
        raise ValueError(f"cannot reach {WEBHOOK}")
    except ValueError:
        log.exception("unexpected")


def test_a_key_id_is_no_secret():
    """It names the account in every report."""
    text = "account=demo-api.kalshi.co|0b1c2d3e-aaaa-bbbb-cccc-1234567890ab|0|live"
    assert Redactor([PEM, WEBHOOK])(text) == text


def test_no_secrets_given_changes_nothing():
    """An empty setting does not blacken everything."""
    assert Redactor(["", "  ", "a"])("a plain line") == "a plain line"


def test_libraries_are_heard_from_warnings_on(logs, human):
    """The HTTP client's line for every request is not wanted, and one of its addresses is a secret."""
    logging.getLogger("httpx").info("HTTP Request: POST %s", WEBHOOK)
    logging.getLogger("h11").warning("odd frame")

    assert human.getvalue() == "23:10:01 [warning] odd frame logger=h11\n"


def test_a_traceback_stands_on_its_own_lines(logs, human):
    """Readable, and without the values of variables."""
    try:
        {}["missing"]
    except KeyError:
        structlog.get_logger().exception("unexpected", market="M1")

    lines = human.getvalue().splitlines()
    assert lines[0] == "23:10:01 [error] unexpected market=M1"
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    KeyError: 'missing'"


def test_while_diverted_people_get_only_warnings_through_the_table(logs, human):
    """And the stream gets nothing until it is over."""
    notes = []
    log = structlog.get_logger()
    with logs.divert(notes.append):
        log.info("quiet")
        log.warning("loud")
    log.info("again")

    assert notes == ["23:10:01 [warning] loud"]
    assert human.getvalue() == "23:10:01 [info] again\n"
    assert logs.path.read_text().count("\n") == 3


def test_the_file_rotates_by_size_and_old_ones_go(tmp_path):
    """At most so many files of at most such a size, no line lost in between."""
    file = RotatingFile(tmp_path / "mm.log", max_bytes=100)
    for n in range(60):
        file.write(f"line {n:03d} {'x' * 20}")
    file.close()

    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["mm.log", *(f"mm.log.{n}" for n in range(1, KEPT_FILES + 1))]
    assert all(p.stat().st_size <= 100 for p in tmp_path.iterdir())
    kept = "".join((tmp_path / name).read_text() for name in [*reversed(names[1:]), "mm.log"])
    numbers = [int(line.split()[1]) for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 60))


def test_a_restart_appends(tmp_path):
    """The size of what was there counts."""
    for _ in range(2):
        file = RotatingFile(tmp_path / "mm.log", max_bytes=100)
        file.write("x" * 60)
        file.close()
    assert (tmp_path / "mm.log.1").exists()


def test_a_disk_that_is_full_stops_nobody(logs, human, monkeypatch):
    """Told once, counted always."""

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        structlog.get_logger().info("x")

    assert logs.lost == 3
    assert human.getvalue().count("log file cannot be written: No space left on device") == 1


def test_people_who_went_away_stop_nobody(tmp_path):
    """A closed pipe on stderr: the file has the line."""

    class Broken(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    with open_logs(tmp_path, clock=lambda: NOW, human=Broken()) as logs:
        structlog.get_logger().warning("x")
    assert logs.lost == 1
    assert "[warning] x" in logs.path.read_text()


def test_without_a_folder_there_is_no_file(human):
    """For commands that only look."""
    with open_logs(None, clock=lambda: NOW, human=human, human_level="warning"):
        structlog.get_logger().info("quiet")
        structlog.get_logger().error("loud")
    assert human.getvalue() == "23:10:01 [error] loud\n"


def test_afterwards_everything_is_as_before(human):
    """No handler and no configuration stays behind."""
    before, handlers = structlog.get_config(), list(logging.getLogger().handlers)
    with open_logs(None, clock=lambda: NOW, human=human):
        pass
    assert structlog.get_config() == before
    assert logging.getLogger().handlers == handlers


def test_values_are_one_word_or_quoted():
    """A line can be taken apart again; a line break in a value makes no new line."""
    assert render_line("info", {"event": "e", "a": 'x"y', "b": "x\ny", "c": None, "d": "", "e": True}) == (
        '[info] e a="x\\"y" b="x\\ny" c=None d="" e=True'
    )

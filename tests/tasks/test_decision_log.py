"""The decision journal on disk: a bounded ring, readable after a kill, and clear about damage."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import orjson
import pytest
import trio

from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker
from mm.engine.decisions.journal import JournalledBook, JournalledMaker
from mm.engine.decisions.player import Player
from mm.engine.parameters import StrategyParameters
from mm.session.replaying import DIFFERENT, SAME, UNREADABLE, replay
from mm.tasks.alert_values import Alert, AlertKind, Severity
from mm.tasks.decision_files import DamagedJournal, JournalFiles, find_journal
from mm.tasks.decision_log import DecisionLog, log_for_ring
from mm.tasks.incidents import Bundles, Incidents

T = TypeVar("T")
T0 = Micros(1_790_000_000 * SECOND)
SECRET = "planted-secret-0123456789"


def clock() -> Micros:
    return Micros(T0 + round(trio.current_time() * SECOND))


async def inline(work: Callable[[], T], /) -> T:
    await trio.lowlevel.checkpoint()
    return work()


def ring(folder: Path, *, window_s: float = 100.0, max_bytes: int = 2**20) -> DecisionLog:
    return log_for_ring(
        folder,
        {"mm": "test"},
        clock=clock,
        runner=inline,
        scrub=lambda text: text.replace(SECRET, "***"),
        window=Micros(round(window_s * SECOND)),
        max_bytes=max_bytes,
    )


@attrs.define(eq=False)
class TwoMarkets:
    """Makers whose books walk up and down; each `step` is a read with two decisions."""

    log: DecisionLog
    makers: list[JournalledMaker] = attrs.field(factory=list)
    steps: int = 0

    def __attrs_post_init__(self) -> None:
        for name in ("TOR", "BOS"):
            maker = JournalledMaker(
                sink=self.log.journal,
                market=Market(
                    ticker=MarketTicker(f"KXNHLGAME-26SEP21TORBOS-{name}"),
                    event_ticker="KXNHLGAME-26SEP21TORBOS",
                    status=MarketStatus.ACTIVE,
                    grid=uniform_grid(CENT),
                ),
                parameters=StrategyParameters(),
                book=JournalledBook(),
            )
            self.makers.append(maker)

    def step(self) -> None:
        self.steps += 1
        for shift, maker in enumerate(self.makers):
            bid = 4_000 + 100 * ((self.steps + shift) % 7)
            maker.book.snapshot([(Price(bid), Count(900))], [(Price(bid + 500), Count(800))])
            decision = maker.decide(clock())
            for side, plan in zip(maker.timers, (decision.bid, decision.ask), strict=True):
                if plan.commands:
                    maker.plan_sent(side, plan, clock())

    async def live(self, seconds: int, log: DecisionLog) -> None:
        for _ in range(seconds):
            self.step()
            await trio.sleep(1)
            await log.flush()


def played(files: JournalFiles) -> Player:
    player = Player()
    for _, _, entry in files.entries():
        player.play(entry)
    return player


async def test_a_ring_keeps_the_window_and_no_more(tmp_path: Path, autojump_clock: object) -> None:
    """Segments older than the window go; what is left can be played by itself, states at the seams included."""
    log = ring(tmp_path / "r")
    markets = TwoMarkets(log)
    await markets.live(400, log)
    await log.close()
    files = find_journal(tmp_path / "r")
    assert 5 <= len(files.segments) <= 7
    player = played(files)
    assert player.differences == []
    assert 200 <= player.decisions <= 250
    assert player.checkpoints >= 2 * 4
    assert player.first_at is not None
    assert player.first_at >= clock() - 125 * SECOND


async def test_a_ring_is_bounded_in_bytes(tmp_path: Path, autojump_clock: object) -> None:
    """However much is decided, the folder stays below the bound (one second's writes aside)."""
    log = ring(tmp_path / "r", window_s=10_000, max_bytes=40_000)
    markets = TwoMarkets(log)
    largest = 0
    for _ in range(40):
        for _ in range(60):
            markets.step()
        await trio.sleep(1)
        await log.flush()
        largest = max(largest, sum(p.stat().st_size for p in (tmp_path / "r").iterdir()))
    await log.close()
    assert log.writer.number > 10
    assert 20_000 < largest < 45_000
    assert played(find_journal(tmp_path / "r")).differences == []


async def test_what_a_killed_process_leaves_can_be_played(tmp_path: Path, autojump_clock: object) -> None:
    """No end was written: all but the last second is there, and how it ends is told."""
    log = ring(tmp_path / "r")
    markets = TwoMarkets(log)
    await markets.live(10, log)
    markets.step()
    shutil.copytree(tmp_path / "r", tmp_path / "killed")
    await log.close()
    files = find_journal(tmp_path / "killed")
    player = played(files)
    assert (player.decisions, player.differences) == (20, [])
    assert "ends without an end after line" in files.note


async def test_a_disk_that_refuses_ends_the_journal_and_not_the_markets(
    tmp_path: Path, autojump_clock: object
) -> None:
    """The folder cannot be made: decisions go on, nothing is kept in memory, the reason is there."""
    (tmp_path / "file").write_text("in the way")
    log = ring(tmp_path / "file" / "r")
    markets = TwoMarkets(log)
    await markets.live(5, log)
    assert markets.makers[0].last is not None
    assert "Not a directory" in log.problem
    assert (log.journal.is_on, log.journal.entries) == (False, [])


async def finished(folder: Path, seconds: int = 90) -> TwoMarkets:
    """A journal of several closed segments."""
    log = ring(folder)
    markets = TwoMarkets(log)
    await markets.live(seconds, log)
    await log.close()
    return markets


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(bytes(data))


async def test_damage_is_told_with_file_and_line(
    tmp_path: Path, autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut off, changed, missing, not ours: exit code 1 and a message that says which file, and what was expected."""
    await finished(tmp_path / "whole")
    first, second = "decisions-000001.jsonl.gz", "decisions-000002.jsonl.gz"

    def cut(folder: Path) -> None:
        data = (folder / first).read_bytes()
        (folder / first).write_bytes(data[: len(data) // 2])

    def change(folder: Path) -> None:
        flip(folder / first, (folder / first).stat().st_size // 2)

    def garbage(folder: Path) -> None:
        (folder / first).write_bytes(b"not gzip at all")

    def other_header(folder: Path) -> None:
        (folder / first).write_bytes(gzip.compress(b'{"format":"mm/1"}\n'))

    def bad_line(folder: Path) -> None:
        lines = gzip.decompress((folder / first).read_bytes()).splitlines()
        lines[4] = b'["decide",1]'
        (folder / first).write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))

    def foreign_class(folder: Path) -> None:
        text = gzip.decompress((folder / first).read_bytes())
        text = text.replace(b"mm.engine.mark:MidEma", b"subprocess:Popen")
        (folder / first).write_bytes(gzip.compress(text))

    expected: list[tuple[Callable[[Path], None], str]] = [
        (cut, f"{first}: cut off after line"),
        (change, f"{first}"),
        (garbage, f"{first}, after line 0: not readable as gzip"),
        (other_header, f'{first}, line 1: expected {{"format": "mm-decisions/1", ...}}'),
        (bad_line, f"{first}, line 5: not an entry of a journal"),
        (foreign_class, f"{first}, line 2: subprocess:Popen is not of the engine"),
    ]
    for damage, message in expected:
        folder = tmp_path / damage.__name__
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder)
        assert replay(folder, market=None, sets=(), trust=(), json=None) == UNREADABLE, damage.__name__
        assert message in capsys.readouterr().err, damage.__name__
    shutil.copytree(tmp_path / "whole", tmp_path / "hole")
    (tmp_path / "hole" / second).unlink()
    with pytest.raises(DamagedJournal, match="segment 2 is missing"):
        find_journal(tmp_path / "hole")
    with pytest.raises(DamagedJournal, match="no such file or folder"):
        find_journal(tmp_path / "nothing")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "part-0001.jsonl.gz").write_bytes(b"")
    with pytest.raises(DamagedJournal, match="frames only"):
        find_journal(tmp_path / "frames")


async def test_replay_says_the_same_or_shows_the_first_difference(
    tmp_path: Path, autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, or 3 with market, time, field and both values; the JSON says the same."""
    await finished(tmp_path / "r")
    assert replay(tmp_path / "r", market=None, sets=(), trust=(), json=tmp_path / "same.json") == SAME
    assert "the same decisions, every one" in capsys.readouterr().out
    same = orjson.loads((tmp_path / "same.json").read_bytes())
    assert (same["exit_code"], same["decisions"], same["differences"]) == (0, 180, [])
    code = replay(
        tmp_path / "r", market=None, sets=["BASE_SPREAD=0.03"], trust=(), json=tmp_path / "other.json"
    )
    out = capsys.readouterr().out
    assert code == DIFFERENT
    assert "NOT the same. The first difference:" in out
    for word in (
        "market    KXNHLGAME-26SEP21TORBOS-",
        "time      2026-09-",
        "field     wanted.",
        "replayed  ",
    ):
        assert word in out
    other: dict[str, Any] = orjson.loads((tmp_path / "other.json").read_bytes())
    assert len(other["differences"]) == 2
    one = replay(
        tmp_path / "r", market="KXNHLGAME-26SEP21TORBOS-BOS", sets=["BASE_SPREAD=0.03"], trust=(), json=None
    )
    assert one == DIFFERENT
    assert "TORBOS-TOR" not in capsys.readouterr().out


def bundles(folder: Path, kept: int = 3) -> Bundles:
    return Bundles(
        folder=folder,
        about={"versions": {"mm": "test"}, "settings": {"BOT_NAME": "mm"}},
        scrub=lambda text: text.replace(SECRET, "***"),
        log_file=folder.parent / "mm.log",
        kept=kept,
    )


def incidents(tmp_path: Path, kept: int = 3) -> Incidents:
    return Incidents(
        decisions=ring(tmp_path / "journal" / "r"),
        bundles=bundles(tmp_path / "incidents", kept),
        clock=clock,
        runner=inline,
        session="s1",
    )


def alert(severity: Severity, text: str = "limit hit") -> Alert:
    return Alert(alert_id="a", kind=AlertKind.RISK, severity=severity, text=text, at=clock())


def made(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "incidents"
    return sorted(folder.iterdir()) if folder.is_dir() else []


async def test_alerts_leave_a_bundle_that_replays(
    tmp_path: Path, autojump_clock: object, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings and worse that come together share one bundle; information makes none; a later one waits its turn."""
    found = incidents(tmp_path)
    markets = TwoMarkets(found.decisions)
    (tmp_path / "mm.log").write_text(f"a line with {SECRET} in it\n")
    await nursery.start(found.run)

    async def live(seconds: int) -> None:
        for _ in range(seconds):
            markets.step()
            await trio.sleep(1)

    found.alert(alert(Severity.INFO))
    await live(10)
    assert made(tmp_path) == []
    markets.makers[0].holds["trouble"] = f"the exchange said {SECRET}"
    found.alert(alert(Severity.WARNING, f"with {SECRET}"))
    found.alert(alert(Severity.CRITICAL))
    await live(10)
    (bundle,) = made(tmp_path)
    found.alert(alert(Severity.WARNING))
    await live(10)
    assert len(made(tmp_path)) == 1
    await live(60)
    assert len(made(tmp_path)) == 2
    await found.close("", is_ring=True)
    manifest = orjson.loads((bundle / "manifest.json").read_bytes())
    assert [cause["severity"] for cause in manifest["causes"]] == ["warning", "critical"]
    assert (manifest["session"], manifest["versions"], manifest["entries_lost"]) == ("s1", {"mm": "test"}, 0)
    for path in bundle.iterdir():
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        assert SECRET.encode() not in data, path.name
        assert path.name == "manifest.json" or len(data) > 20
    assert replay(bundle, market=None, sets=(), trust=(), json=None) == SAME
    assert "critical: limit hit" in capsys.readouterr().out


async def test_only_so_many_bundles_are_kept(tmp_path: Path, autojump_clock: object) -> None:
    """The oldest goes when there are more, and is counted."""
    found = incidents(tmp_path, kept=3)
    markets = TwoMarkets(found.decisions)
    for _ in range(5):
        markets.step()
        found.alert(alert(Severity.WARNING))
        await found.make()
        await trio.sleep(2)
    assert found.bundles is not None
    assert (found.bundles.made, found.bundles.deleted, len(made(tmp_path))) == (5, 2, 3)


async def test_a_failed_run_leaves_a_bundle_and_a_clean_one_nothing(
    tmp_path: Path, autojump_clock: object
) -> None:
    """The ring is gone after both."""
    clean = incidents(tmp_path)
    await TwoMarkets(clean.decisions).live(3, clean.decisions)
    await clean.close("", is_ring=True)
    assert made(tmp_path) == []
    failed = incidents(tmp_path)
    await TwoMarkets(failed.decisions).live(3, failed.decisions)
    await failed.close("InvariantError: planted", is_ring=True)
    (bundle,) = made(tmp_path)
    assert (
        orjson.loads((bundle / "manifest.json").read_bytes())["causes"][0]["text"]
        == "InvariantError: planted"
    )
    assert not list((tmp_path / "journal").iterdir())
    assert replay(bundle, market=None, sets=(), trust=(), json=None) == SAME


async def test_the_ring_of_a_killed_run_becomes_a_bundle_at_the_next_start(
    tmp_path: Path, autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the earlier life had written until a second before its end can be played."""
    killed = ring(tmp_path / "alive")
    await TwoMarkets(killed).live(30, killed)
    shutil.copytree(tmp_path / "alive", tmp_path / "journal" / "old")
    await killed.close()
    found = incidents(tmp_path)
    await found.adopt(tmp_path / "journal")
    (bundle,) = made(tmp_path)
    assert bundle.name.endswith("-killed")
    assert not (tmp_path / "journal" / "old").exists()
    assert replay(bundle, market=None, sets=(), trust=(), json=None) == SAME
    assert "an earlier run ended without a word" in capsys.readouterr().out


async def test_a_bundle_cut_short_is_told_from_one_of_a_killed_run(
    tmp_path: Path, autojump_clock: object
) -> None:
    """The manifest knows the sizes: a segment that lost bytes on its way is damage, not a kill."""
    found = incidents(tmp_path)
    await TwoMarkets(found.decisions).live(30, found.decisions)
    found.alert(alert(Severity.WARNING))
    await found.make()
    (bundle,) = made(tmp_path)
    segment = max(bundle.glob("decisions-*.gz"))
    segment.write_bytes(segment.read_bytes()[:-100])
    with pytest.raises(DamagedJournal, match=r"bytes, manifest.json says \d+: cut off or changed"):
        find_journal(bundle)

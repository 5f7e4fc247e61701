"""Incident bundles of a real run: alerts and failures leave one, it replays, and no secret is in it. On loopback."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.errors import InvariantError
from mm.engine.diff import SidePlan, plan_side
from mm.session.incidents import incidents_if_wanted
from mm.session.replaying import DIFFERENT, SAME, replay
from mm.session.summary import ExitCode, Summary
from mm.session.surroundings import live_surroundings
from mm.session.trading import Trading
from mm.settings import load_settings

pytestmark = pytest.mark.real

PLANTED = "planted-password-0123456789"


def bundles(rig: Rig) -> list[Path]:
    folder = rig.data_dir / "incidents"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def result(path: Path, out: Path, *sets: str) -> tuple[int, dict[str, object]]:
    code = replay(path, market=None, sets=sets, trust=(), json=out)
    return code, orjson.loads(out.read_bytes())


def texts(bundle: Path) -> dict[str, str]:
    """Every file of a bundle, unpacked."""
    return {
        path.name: (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        for path in bundle.iterdir()
        for data in [path.read_bytes()]
    }


async def test_an_alert_leaves_a_bundle_that_decides_the_same_and_holds_no_secret(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quotes, fills, a cut socket and an alert whose words hold secrets: the bundle replays; neither key nor password in it.

    Another parameter shows the first difference. The ring of the run is gone, and what it held when a kill would have
    come becomes a bundle of the next start.
    """
    key_lines = [line for line in rig.ready.private_key_path.read_text().split() if len(line) > 40]

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await eventually(lambda: trading.floor.positions.fills >= 3, "fills", 30.0)
        trading.floor.hold_all("trouble", f"a library's error text: {PLANTED} {key_lines[3]}")
        trading.alerts.risk("test", f"told with {PLANTED} and {key_lines[2]}")
        await trio.sleep(0.2)
        trading.floor.lift_all("trouble")
        await eventually(lambda: is_quoting(trading), "quoting again")
        await trio.sleep(1.1)  # more than what is lost at a kill
        (ring,) = (rig.data_dir / "journal").iterdir()
        shutil.copytree(ring, tmp_path / "killed")

    summary = await rig.run_bot(script=script, SMTP_PASSWORD=PLANTED)

    assert summary.exit_code is ExitCode.CLEAN
    assert list((rig.data_dir / "journal").iterdir()) == []
    bundle = bundles(rig)[0]
    code, found = result(bundle, tmp_path / "r.json")
    out = capsys.readouterr().out
    assert code == SAME, out
    assert isinstance(found["decisions"], int)
    assert found["decisions"] > 100
    for beside in ("frames", "calls"):
        assert isinstance(found[beside], int)
        assert found[beside] > 10
    assert len(found["markets"]) == len(summary_markets(bundle)) > 0  # type: ignore[arg-type]
    assert "warning: told with <redacted> and <redacted>" in out
    for name, text in texts(bundle).items():
        assert PLANTED not in text, name
        for line in key_lines:
            assert line not in text, name
    decisions = [text for name, text in texts(bundle).items() if name.startswith("decisions")]
    assert any("a library's error text: <redacted> <redacted>" in text for text in decisions)
    manifest = orjson.loads((bundle / "manifest.json").read_bytes())
    assert manifest["settings"]["SMTP_PASSWORD"] == "(set, not shown)"
    assert manifest["settings"]["KALSHI_ENV"] == "demo"
    assert manifest["versions"]["trio"] == trio.__version__
    assert result(bundle, tmp_path / "d.json", "BASE_SPREAD=0.03")[0] == DIFFERENT
    assert "NOT the same. The first difference:" in capsys.readouterr().out

    shutil.copytree(tmp_path / "killed", rig.data_dir / "journal" / "killed")
    await rig.run_bot(until=is_quoting)
    killed = next(path for path in bundles(rig) if path.name.endswith("-killed"))
    assert result(killed, tmp_path / "k.json")[0] == SAME


def summary_markets(bundle: Path) -> set[str]:
    """The markets whose checkpoints are in a bundle."""
    lines = [
        line for name, text in texts(bundle).items() if "decisions" in name for line in text.splitlines()
    ]
    entries = [orjson.loads(line) for line in lines]
    return {e[3]["ticker"] for e in entries if isinstance(e, list) and e[0] == "checkpoint"}


async def test_a_failing_task_leaves_a_bundle(rig: Rig, tmp_path: Path) -> None:
    """A planted bug ends the run with code 1; the bundle names it, and its decisions come out the same."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        raise InvariantError("planted")

    summary = await rig.run_bot(script=script)

    assert summary.exit_code is ExitCode.FAILED
    bundle = bundles(rig)[-1]
    causes = orjson.loads((bundle / "manifest.json").read_bytes())["causes"]
    assert "InvariantError: planted" in [cause["text"] for cause in causes]
    assert result(bundle, tmp_path / "r.json")[0] == SAME


async def test_a_failing_decision_is_played_to_the_same_failure(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug in the engine itself: replayed with the bug it fails the same; with the bug gone the difference is shown."""
    with monkeypatch.context() as patch:

        async def script(trading: Trading) -> None:
            await eventually(lambda: is_quoting(trading), "quoting")
            trading.floor.hold_all("test", "the bug's hour")
            await trio.sleep(5)

        patch.setattr("mm.engine.quoter.plan_side", plan_or_explode)

        summary = await rig.run_bot(script=script)
        assert summary.exit_code is ExitCode.FAILED
        bundle = bundles(rig)[-1]
        assert result(bundle, tmp_path / "r.json")[0] == SAME
    code, found = result(bundle, tmp_path / "r.json")
    assert code == DIFFERENT
    assert "raised" in capsys.readouterr().out
    assert found["differences"][0]["recorded"] == "InvariantError: a planted bug"  # type: ignore[index]


def plan_or_explode(*args: Any, **options: Any) -> SidePlan:
    if options["pull_reason"] == "the bug's hour":
        raise InvariantError("a planted bug")
    return plan_side(*args, **options)


@pytest.mark.parametrize("paper", [False, True], ids=["live", "paper"])
async def test_a_recorded_session_decides_the_same(rig: Rig, tmp_path: Path, *, paper: bool) -> None:
    """RECORD keeps every decision from the first; replay of the whole session makes them again, live and on paper."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await trio.sleep(0.5)

    live = "false" if paper else "true"
    summary = await rig.run_bot(script=script, RECORD="true", INCIDENT_MINUTES="0", LIVE_TRADING_ENABLED=live)

    assert summary.exit_code is ExitCode.CLEAN
    (session,) = (rig.data_dir / "recordings").iterdir()
    code, found = result(session, tmp_path / "r.json")
    assert code == SAME
    assert found["damage"] == ""
    assert isinstance(found["commands"], int)
    assert found["commands"] >= summary.orders_placed > 0
    assert bundles(rig) == []


async def test_switched_off_nothing_is_kept(tmp_path: Path) -> None:
    """INCIDENT_MINUTES=0 without RECORD: no journal, no folder."""
    settings = load_settings(
        {"INCIDENT_MINUTES": "0", "MM_DATA_DIR": str(tmp_path)}, environ={}, dotenv=tmp_path / "none"
    )
    async with incidents_if_wanted(settings, live_surroundings(), Summary(), None) as incidents:
        assert incidents is None
    assert names(tmp_path) == []

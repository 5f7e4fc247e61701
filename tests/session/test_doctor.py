"""`mm doctor`: everything looked at against an exchange, nothing placed, and each trouble named with its fix."""

from pathlib import Path

import pytest
import structlog
import trio

from bot_rig import Rig
from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros
from mm.ledger import AlertRow, open_ledger
from mm.ledger.backup import back_up
from mm.session.doctor import look_at_everything
from mm.session.readiness import check_readiness
from mm.session.surroundings import live_surroundings
from mm.settings import Settings, load_settings
from mm.views.doctor import Finding, Level, exit_code, finding_text

HOUR = 3_600 * SECOND
NOW = Micros(1_796_166_601 * SECOND)


async def look(rig: Rig, **overrides: str) -> dict[str, Finding]:
    """The findings by name; the last of a name."""
    found: dict[str, Finding] = {}

    def tell(finding: Finding) -> None:
        found[finding.name] = finding

    with trio.fail_after(40), structlog.testing.capture_logs():
        await look_at_everything(
            lambda: rig.settings(**overrides),
            live_surroundings(),
            tell,
            test_alerts=False,
            live_readiness=False,
        )
    return found


@pytest.mark.real
async def test_everything_is_looked_at_and_nothing_is_placed(rig: Rig) -> None:
    """Against a sound exchange each line is ok, save that nobody is told of alerts."""
    found = await look(rig)

    named = {
        "python", "settings", "key file", "disk", "bot", "ledger", "dns", "latency", "clock", "key", "subaccount",
        "region", "budget", "status", "schedule", "fees", "markets", "balance", "orders", "websocket", "alerts",
    }  # fmt: skip
    assert named <= found.keys()
    assert {name: f.says for name, f in found.items() if f.level is not Level.OK and name != "alerts"} == {}
    assert found["alerts"].level is Level.WARN
    assert exit_code(list(found.values())) == 0
    assert "30 creates/s" in found["budget"].says
    assert "shard 0: " in found["balance"].says
    assert await rig.resting() == []


@pytest.mark.real
async def test_troubles_are_named_with_what_to_do(rig: Rig, tmp_path: Path) -> None:
    """An attestation that ends soon or has ended, an unknown series, a key that others can read, a wrong key."""
    await rig.control("region", expires_in_ms=3_600_000)
    key = tmp_path / "key.pem"
    key.write_text(rig.ready.private_key_path.read_text())
    key.chmod(0o644)
    found = await look(rig, SERIES_TICKER="KXNOSUCH", KALSHI_PRIVATE_KEY_PATH=str(key))
    assert (found["region"].level, found["series"].level, found["key file"].level) == (
        Level.WARN, Level.FAIL, Level.WARN,
    )  # fmt: skip
    assert "KXNOSUCH" in found["series"].says
    assert found["key file"].fix == f"chmod 600 {key}"
    await rig.control("region", expires_in_ms=0)
    found = await look(rig, KALSHI_API_KEY="00000000-0000-4000-8000-000000000000")
    assert found["key"].level is Level.FAIL
    assert "KALSHI_API_KEY" in found["key"].fix
    assert exit_code(list(found.values())) == 1
    found = await look(rig)
    assert (found["region"].level, found["websocket"].level) == (Level.FAIL, Level.OK)


async def test_bad_settings_are_lines_too() -> None:
    """All of them, and nothing is connected to."""
    found: list[Finding] = []

    def load() -> Settings:
        raise ConfigError(["A=1: must be 2", "B is empty"])

    await look_at_everything(load, live_surroundings(), found.append, test_alerts=False, live_readiness=False)
    assert [f.says for f in found if f.level is Level.FAIL] == ["A=1: must be 2", "B is empty"]


def test_a_line_steers_no_terminal() -> None:
    """Whatever an exchange calls a key."""
    text = finding_text(Finding(level=Level.OK, name="key", says="\x1b[2Jevil\nfail  x"))
    assert "\x1b" not in text
    assert "\n" not in text


# --- the checklist before real money ---------------------------------------------------------------------------------


async def inline(work, /):
    return work()


async def life(
    folder: Path, account: str, session: str, start: int, hours: float, reason: str | None, critical: str = ""
) -> None:
    """A run in the past; `reason` None: it was killed."""
    now = [Micros(NOW - start * HOUR)]
    async with open_ledger(
        folder / "ledger.sqlite3", account=account, runner=inline, clock=lambda: now[0], session=session
    ) as ledger:
        ledger.record_session_start()
        await ledger.flush()
        if critical:
            ledger.record_alert(
                AlertRow(alert_id=f"{session}-1", raised_at=now[0], kind="risk", text=critical)
            )
            ledger.record_alert_delivered(f"{session}-1")
        now[0] = Micros(now[0] + round(hours * HOUR))
        if reason is not None:
            ledger.record_session_end(reason=reason, exit_code=0)


def judged(folder: Path, **values: str) -> dict[str, Finding]:
    given = {"MM_DATA_DIR": str(folder), "DAILY_LOSS_LIMIT": "25"} | values
    settings = load_settings(given, environ={}, dotenv=Path("/nonexistent/.env"))
    return {finding.name: finding for finding in check_readiness(settings, NOW)}


async def test_the_checklist_is_read_from_what_happened(tmp_path: Path) -> None:
    """Paper and demo hours on real data, clean books, stops, a kill survived, alerts seen, a backup."""
    paper, demo, sim = "api.test/key/0/paper", "demo.test/key/0/live", "127.0.0.1:4000/key/0/live"
    await life(tmp_path, sim, "s0", 200, 100, "SIGINT")
    found = judged(tmp_path)
    bad = {name for name, finding in found.items() if finding.level is Level.FAIL}
    assert bad == {
        "paper hours",
        "demo hours",
        "fills",
        "reconciliation",
        "shutdown",
        "kill -9",
        "alerts seen",
    }

    await life(tmp_path, paper, "p1", 100, 25, "SIGINT")
    await life(tmp_path, demo, "d1", 60, 1, None)
    await life(tmp_path, demo, "d2", 50, 9, "SIGTERM")
    back_up(tmp_path / "ledger.sqlite3", NOW)
    (tmp_path / "alerts-tested.json").write_text('{"discord": "2026-12-01T00:00:00Z"}')
    found = judged(tmp_path, DISCORD_WEBHOOK_URL="https://discord.test/x")
    bad = {name for name, finding in found.items() if finding.level is Level.FAIL}
    assert bad == {"fills"}
    assert found["paper hours"].says == "25 h 00 min on paper in 30 days, of 24 h"
    assert found["kill -9"].says.startswith("survived 1 times")
    assert found["backup"].level is Level.OK

    await life(
        tmp_path, demo, "d3", 20, 1, "SIGINT",
        critical="M1: our position is 1.00, the exchange's 2.00; the market is held",
    )  # fmt: skip
    assert judged(tmp_path)["reconciliation"].level is Level.FAIL

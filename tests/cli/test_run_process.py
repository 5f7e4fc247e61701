"""`mm run` as a process: signals, exit codes, the summary, bad input. Against an exchange on loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from bot_rig import Rig

pytestmark = pytest.mark.real

WITHIN_S = 40.0


def environment(rig: Rig, **overrides: str) -> dict[str, str]:
    """A bare environment that points a bot at the rig's exchange."""
    values = {
        "PATH": os.environ.get("PATH", ""),
        "KALSHI_ENV": "demo",
        "LIVE_TRADING_ENABLED": "true",
        "KALSHI_REST_URL": rig.ready.rest_url,
        "KALSHI_WS_URL": rig.ready.ws_url,
        "KALSHI_API_KEY": rig.ready.key_id,
        "KALSHI_PRIVATE_KEY_PATH": str(rig.ready.private_key_path),
        "MM_DATA_DIR": str(rig.data_dir),
        "WEB_ADDRESS": "off",
    }
    return {name: value for name, value in (values | overrides).items() if value}


async def start(
    rig: Rig, tmp_path: Path, *arguments: str, command: str = "run", **overrides: str
) -> trio.Process:
    """The program in a process of its own, without a terminal, from a folder that is not the project's."""
    if command == "run":
        arguments = ("--summary", str(tmp_path / "s.json"), *arguments)
    with (tmp_path / "out.txt").open("wb") as out, (tmp_path / "err.txt").open("wb") as err:
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "mm", command, *arguments],
            env=environment(rig, **overrides),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )


async def until_resting(rig: Rig) -> None:
    """Wait until the bot has orders on the exchange."""
    with trio.fail_after(WITHIN_S):
        while not await rig.resting():
            await trio.sleep(0.1)


async def end_of(process: trio.Process, tmp_path: Path) -> dict[str, Any]:
    """Wait for the end; the summary it wrote."""
    with trio.fail_after(WITHIN_S):
        await process.wait()
    found: dict[str, Any] = json.loads((tmp_path / "s.json").read_text())
    return found


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_a_signal_ends_it_cleanly(rig: Rig, tmp_path: Path, name: str) -> None:
    """The bot stops with code 0, says why, and nothing rests by the exchange's own word."""
    process = await start(rig, tmp_path)
    await until_resting(rig)
    process.send_signal(signal.Signals[name])
    summary = await end_of(process, tmp_path)

    assert process.returncode == 0
    assert (summary["exit_code"], summary["orders_resting_at_exit"], summary["reason"]) == (0, 0, name)
    assert summary["positions_match"] is True
    assert await rig.resting() == []


async def test_a_second_ctrl_c_does_not_cut_the_sweep_short(rig: Rig, tmp_path: Path) -> None:
    """Impatience changes nothing: still code 0 and nothing rests."""
    process = await start(rig, tmp_path)
    await until_resting(rig)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        await trio.sleep(0.05)
    summary = await end_of(process, tmp_path)

    assert process.returncode == 0
    assert summary["orders_resting_at_exit"] == 0
    assert await rig.resting() == []


async def test_minutes_end_it_like_ctrl_c(rig: Rig, tmp_path: Path) -> None:
    """`--minutes` stops by itself, with the figures of this run in the summary."""
    process = await start(rig, tmp_path, "--minutes", "0.05")
    summary = await end_of(process, tmp_path)

    assert process.returncode == 0
    assert summary["markets"] == 4
    assert summary["orders_placed"] >= 8
    assert "Traceback" not in (tmp_path / "err.txt").read_text()


def run_badly(rig: Rig, **overrides: str) -> tuple[int, str]:
    """Exit code and stderr of a start that must fail before anything connects."""
    done = subprocess.run(
        [sys.executable, "-m", "mm", "run"],
        env=environment(rig, **overrides),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return done.returncode, done.stderr


async def test_bad_settings_are_told_together(rig: Rig) -> None:
    """Every bad setting by name, with what is allowed; exit code 1; no traceback."""
    code, said = await trio.to_thread.run_sync(
        lambda: run_badly(
            rig, KALSHI_ENV="live", BASE_SPREAD="-0.01", SIZE_PER_FILL="ten", MAX_GLOBAL_INVENTORY="-5"
        )
    )

    assert code == 1
    assert all(
        name in said for name in ("KALSHI_ENV", "BASE_SPREAD", "SIZE_PER_FILL", "MAX_GLOBAL_INVENTORY")
    )
    assert "sim, demo" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", ["missing", "malformed", "folder"])
async def test_an_unusable_key_file_is_named(rig: Rig, tmp_path: Path, kind: str) -> None:
    """The setting is named, its content never; exit code 1; no traceback."""
    path = tmp_path / "key.pem"
    if kind == "malformed":
        path.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0LWNvbnRlbnQ=\n-----END PRIVATE KEY-----\n")
    elif kind == "folder":
        path.mkdir()
    code, said = await trio.to_thread.run_sync(lambda: run_badly(rig, KALSHI_PRIVATE_KEY_PATH=str(path)))

    assert code == 1
    assert "KALSHI_PRIVATE_KEY_PATH" in said
    assert "c2VjcmV0" not in said
    assert "Traceback" not in said


async def test_a_pem_with_literal_line_breaks_works(rig: Rig, tmp_path: Path) -> None:
    r"""`KALSHI_API_SECRET` with `\n` written out, as `.env` files have it."""
    pem = rig.ready.private_key_path.read_text().strip().replace("\n", "\\n")
    process = await start(
        rig, tmp_path, command="discover", KALSHI_PRIVATE_KEY_PATH="", KALSHI_API_SECRET=pem
    )
    with trio.fail_after(WITHIN_S):
        await process.wait()

    assert process.returncode == 0, (tmp_path / "err.txt").read_text()
    assert "4 markets would be quoted" in (tmp_path / "out.txt").read_text()


async def test_an_unknown_command_is_told_without_a_traceback(rig: Rig) -> None:
    """Exit code 1 and a hint."""
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-m", "mm", "runn"],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    )

    assert done.returncode == 1
    assert "mm --help" in done.stderr
    assert "Traceback" not in done.stderr

"""`mm run` as a service: its manager is told, and SIGHUP reads the settings anew without a restart."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from bot_rig import Rig

pytestmark = pytest.mark.real

WITHIN_S = 40.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    with trio.move_on_after(WITHIN_S):
        while not condition():
            await trio.sleep(0.05)
        return
    raise AssertionError(f"not within {WITHIN_S:g} s: {what}")


async def test_a_service_tells_its_manager_and_reloads(rig: Rig, tmp_path: Path) -> None:
    """READY once it trades, a heartbeat again and again; a bad setting changes nothing and is named; a good one is
    applied to what already quotes, and what needs a restart is named; SIGTERM tells STOPPING and ends with code 0."""
    dotenv = tmp_path / ".env"
    base = {
        "KALSHI_ENV": "demo",
        "LIVE_TRADING_ENABLED": "true",
        "KALSHI_REST_URL": rig.ready.rest_url,
        "KALSHI_WS_URL": rig.ready.ws_url,
        "KALSHI_API_KEY": rig.ready.key_id,
        "KALSHI_PRIVATE_KEY_PATH": str(rig.ready.private_key_path),
        "MM_DATA_DIR": str(rig.data_dir),
        "WEB_ADDRESS": "off",
    }

    def write(**values: str) -> None:
        dotenv.write_text("".join(f"{name}={value}\n" for name, value in (base | values).items()))

    told: list[str] = []

    async def listen(channel: trio.socket.SocketType) -> None:
        while True:
            told.append((await channel.recv(4_096)).decode())

    write()
    channel = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await channel.bind(str(tmp_path / "notify"))
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "600000",
    }
    errors = tmp_path / "err.txt"
    with channel, errors.open("wb") as err, ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, channel)
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "mm", "run"],
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                start_new_session=True,
            )
            stack.callback(process.kill)
            await until(lambda: any(t.startswith("READY=1") for t in told), "READY")
            with trio.fail_after(WITHIN_S):
                while not await rig.resting():
                    await trio.sleep(0.1)
            await until(lambda: told.count("WATCHDOG=1") >= 5, "heartbeats")

            write(SIZE_PER_FILL="many")
            process.send_signal(signal.SIGHUP)
            await until(lambda: "the old ones stay" in errors.read_text(), "the refusal")
            assert "SIZE_PER_FILL='many'" in errors.read_text()
            assert process.poll() is None

            write(SIZE_PER_FILL="3", SERIES_TICKER="KXNBAGAME")
            process.send_signal(signal.SIGHUP)
            await until(lambda: "settings reloaded" in errors.read_text(), "the reload")
            said = errors.read_text()
            assert "SIZE_PER_FILL (default) -> 3" in said
            assert "needs a restart, not applied: SERIES_TICKER KXNHLGAME -> KXNBAGAME" in said

            process.send_signal(signal.SIGTERM)
            await until(lambda: any(t.startswith("STOPPING=1") for t in told), "STOPPING")
            with trio.fail_after(WITHIN_S):
                assert await process.wait() == 0
            nursery.cancel_scope.cancel()
    assert [t for t in told if t.startswith("RELOADING=1\nMONOTONIC_USEC=")]
    assert await rig.resting() == []

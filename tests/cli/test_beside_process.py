"""`mm cancel-all`, `mm flatten`, `mm status` as processes: exit codes, what goes to stdout, Ctrl-C, no terminal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from bot_rig import Rig, is_quoting
from mm.domain.numbers import CONTRACT
from mm.domain.order import ClientOrderId, Side
from mm.exchange.port import NewOrder

pytestmark = pytest.mark.real

WITHIN_S = 30.0


def environment(rig: Rig, **overrides: str) -> dict[str, str]:
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


async def mm(rig: Rig, *arguments: str, **overrides: str) -> "subprocess.CompletedProcess[str]":
    """One command, without a terminal."""
    return await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-m", "mm", *arguments],
            env=environment(rig, **overrides),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    )


async def put(rig: Rig, *names: str) -> None:
    async with rig.client() as exchange:
        market = (await exchange.markets(series_ticker="KXNHLGAME", status="open"))[0]
        for name in names:
            await exchange.place(
                NewOrder(
                    client_order_id=ClientOrderId(name),
                    ticker=market.ticker,
                    side=Side.BID,
                    price=market.grid.lowest,
                    count=CONTRACT,
                    exchange_index=market.exchange_index,
                )
            )


async def resting(rig: Rig) -> set[str]:
    return {str(order.client_order_id) for order in await rig.resting()}


async def test_cancel_all_and_its_options(rig: Rig) -> None:
    """Dry run 0; `--everything` is refused without a terminal and the flag; ours go, then all; 2 for a bad key."""
    await put(rig, "mm-dead-1", "by-hand-1")

    dry = await mm(rig, "cancel-all", "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "mm-dead-1" in dry.stdout

    refused = await mm(rig, "cancel-all", "--everything")
    assert refused.returncode == 1
    assert "--yes-cancel-foreign-orders" in refused.stderr
    assert await resting(rig) == {"mm-dead-1", "by-hand-1"}

    bad_key = await mm(rig, "cancel-all", KALSHI_API_KEY="00000000-0000-0000-0000-000000000000")
    assert bad_key.returncode == 2
    assert "Traceback" not in bad_key.stderr + bad_key.stdout

    assert (await mm(rig, "cancel-all")).returncode == 0
    assert await resting(rig) == {"by-hand-1"}

    everything = await mm(rig, "cancel-all", "--everything", "--yes-cancel-foreign-orders")
    assert everything.returncode == 0
    assert await resting(rig) == set()


async def test_status_as_json_has_nothing_else_on_stdout(rig: Rig) -> None:
    """A document; 0 after a good run, 2 when orders rest without a bot, 1 when there is nothing to see."""
    await rig.run_bot(until=is_quoting)
    await put(rig, "by-hand-1")
    good = await mm(rig, "status", "--json")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["foreign_orders"] == 1

    await put(rig, "mm-dead-1")
    resting = await mm(rig, "status", "--json")
    assert resting.returncode == 2
    assert [order["client_order_id"] for order in json.loads(resting.stdout)["orders"]] == ["mm-dead-1"]

    nothing = await mm(
        rig, "status", KALSHI_REST_URL="http://127.0.0.1:9/trade-api/v2", MM_DATA_DIR="/nonexistent/mm"
    )
    assert nothing.returncode == 1
    assert "Traceback" not in nothing.stderr


async def test_watching_ends_with_ctrl_c(rig: Rig, tmp_path: Path) -> None:
    """Looks again and again, a document a look; Ctrl-C: code 0, no traceback."""
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "mm", "status", "--watch", "--json"],
            env=environment(rig),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    with trio.fail_after(WITHIN_S):
        while (tmp_path / "out").read_text().count("\n") < 2:
            await trio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        await process.wait()

    assert process.returncode == 0
    assert "Traceback" not in (tmp_path / "err").read_text()


async def test_flatten_with_nothing_to_do(rig: Rig) -> None:
    """Flat is flat: 0. On paper: refused with 1, naming the setting."""
    assert (await mm(rig, "flatten")).returncode == 0
    refused = await mm(rig, "flatten", LIVE_TRADING_ENABLED="false")
    assert refused.returncode == 1
    assert "LIVE_TRADING_ENABLED" in refused.stderr


async def test_a_simulated_exchange_is_found_beside_its_bot(rig: Rig, tmp_path: Path) -> None:
    """In `sim` the bot's exchange has a port and a key of its own: commands on the same data folder find them."""
    sim = {
        "KALSHI_ENV": "sim",
        "KALSHI_REST_URL": "",
        "KALSHI_WS_URL": "",
        "MM_DATA_DIR": str(tmp_path / "sim"),
    }
    sim |= {"SIM_GAMES": "2"}
    with (tmp_path / "out").open("wb") as out:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "mm", "run"],
            env=environment(rig, **sim),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        with trio.fail_after(WITHIN_S):
            while True:
                looked = await mm(rig, "status", "--json", **sim)
                if looked.stdout and json.loads(looked.stdout)["orders"]:
                    break
        document = json.loads(looked.stdout)
        assert (looked.returncode, document["bot"]["pid"]) == (0, process.pid)
        cancelled = await mm(rig, "cancel-all", **sim)
        assert cancelled.returncode == 0
        assert f"pid {process.pid}" in cancelled.stdout
        assert (await mm(rig, "flatten", **sim)).returncode == 1
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(WITHIN_S, shield=True):
            await process.wait()
    assert process.returncode == 0
    after = await mm(rig, "status", "--json", **sim)
    assert (after.returncode, json.loads(after.stdout)["bot"]["exit_code"]) == (0, 0)

"""Ten minutes without a way to people: the same orders at the same moments, no critical alert lost, no flood after."""

from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import attrs
import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

import short_session
from mm.domain.order import Side
from mm.session import run as session_run
from mm.session.run import RunOptions, run_session
from mm.session.trading import Trading
from mm.settings import load_settings
from mm.simulation.determinism import pinned
from mm.tasks.alerts import Severity
from task_rig import GAME

OUTAGE_S = 600.0
AFTER_S = 120.0
WEBHOOK = "https://discord.test/api/webhooks/1/s3cr3t-t0ken"


@attrs.define
class Discord(httpx.AsyncBaseTransport):
    """Answers as `how` says until the outage is over, then takes everything."""

    how: str
    until: float = OUTAGE_S
    taken: list[tuple[float, str]] = attrs.field(factory=list)
    asked: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await trio.sleep(0.05)
        if trio.current_time() < self.until and self.how != "up":
            if self.how == "429":
                return httpx.Response(429, json={"retry_after": 5.0})
            await trio.sleep(10.0)
            raise httpx.ReadTimeout("no answer", request=request)
        self.taken.append((trio.current_time(), orjson.loads(request.content)["content"]))
        return httpx.Response(204)


def live(folder: Path, discord: Discord) -> list[tuple[str, float]]:
    """A life of twelve minutes with a book that moves and an alert of each kind now and then: every write, and when."""

    async def main() -> list[tuple[str, float]]:
        async with trio.open_nursery() as world:
            exchange = short_session._exchange(world, 30.0)

            async def script(trading: Trading) -> None:
                feed = exchange.feed
                assert isinstance(feed, short_session.LoudFeed)
                turn = 0
                while trio.current_time() < OUTAGE_S + AFTER_S:
                    turn += 1
                    feed.book(4_000 + 100 * (turn % 4), 6_000 + 100 * (turn % 4))
                    if turn % 3 == 0:
                        trading.alerts.risk(f"c{turn}", f"critical {turn}", severity=Severity.CRITICAL)
                    trading.alerts.error("loop", f"the same again {turn}")
                    bids = [
                        r
                        for r in exchange.resting(GAME)
                        if r.side is Side.BID and r.client_order_id != short_session.FOREIGN
                    ]
                    if turn % 8 == 0 and bids:
                        exchange.fill(bids[0].order_id, 100)
                    await trio.sleep(20.0)
                trading.stop("the script is over")

            surroundings = attrs.evolve(
                short_session._surroundings(), alert_transport=discord, randomness=Random(7)
            )
            values = {
                "KALSHI_ENV": "demo",
                "LIVE_TRADING_ENABLED": "true",
                "KALSHI_API_KEY": "key",
                "KALSHI_API_SECRET": "secret",
                "MM_DATA_DIR": str(folder),
                "WEB_ADDRESS": "off",
                "DISCORD_WEBHOOK_URL": WEBHOOK,
            }
            settings = load_settings(values, environ={}, dotenv=Path("/nonexistent/.env"))
            options = RunOptions(on_trading=lambda trading, nursery: nursery.start_soon(script, trading))
            with mock.patch.object(session_run, "open_venue", short_session._open_venue(exchange)):
                summary = await run_session(settings, surroundings, options)
            assert summary.exit_code == 0, summary.reason
            world.cancel_scope.cancel()
        return [(call.name, call.at) for call in exchange.calls if call.name in short_session._WRITES]

    with pinned(1):
        return trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What is written while every alert is taken at once."""
    return live(tmp_path_factory.mktemp("up"), Discord("up"))


@pytest.mark.parametrize("how", ["429", "silent"])
def test_ten_minutes_without_discord(how: str, undisturbed: list[Any], tmp_path: Path) -> None:
    """Every order is sent at the very same moment; afterwards a few messages bring every critical alert."""
    discord = Discord(how)
    written = live(tmp_path, discord)

    assert len(undisturbed) > 50
    assert written == undisturbed
    told = "\n".join(text for _, text in discord.taken)
    criticals = [f"critical {turn}" for turn in range(3, 37, 3)]
    assert [text for text in criticals if f"] {text}" not in told] == []
    first_minute = [text for at, text in discord.taken if at < discord.taken[0][0] + 60]
    print(
        f"{how}: {len(written)} writes, {discord.asked} requests, {len(first_minute)} messages in the minute after"
    )
    assert len(first_minute) <= 15
    assert "left out while this was not reached" in told
    assert discord.asked < 300

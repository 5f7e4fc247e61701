"""A whole session lives through midnight in US Eastern: the day's figures are told, and the loss of the day begins anew."""

import datetime as dt
from pathlib import Path
from random import Random
from unittest import mock

import attrs
import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

import fake_exchange
import short_session
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import Side
from mm.domain.tickers import EASTERN, from_datetime
from mm.session import run as session_run
from mm.session.run import RunOptions, run_session
from mm.session.trading import Trading
from mm.settings import load_settings
from mm.simulation.determinism import pinned
from task_rig import GAME


@pytest.mark.parametrize("day", [dt.date(2026, 12, 1), dt.date(2026, 11, 1), dt.date(2027, 3, 14)])
def test_a_session_lives_through_midnight(
    day: dt.date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at the end of the days on which clocks change; quoting goes on, and a day's loss starts from there."""
    midnight = from_datetime(dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), EASTERN))
    start = Micros(midnight - 60 * SECOND)
    for module in (fake_exchange, short_session):
        monkeypatch.setattr(module, "START", start)
    told: list[str] = []

    def discord(request: httpx.Request) -> httpx.Response:
        told.append(orjson.loads(request.content)["content"])
        return httpx.Response(204)

    loss: list[dt.date | None] = []

    async def main() -> None:
        async with trio.open_nursery() as world:
            exchange = short_session._exchange(world, 30.0)

            async def script(trading: Trading) -> None:
                await trio.sleep(20)
                bid = next(
                    r
                    for r in exchange.resting(GAME)
                    if r.side is Side.BID and r.client_order_id != short_session.FOREIGN
                )
                exchange.fill(bid.order_id, Count(200))
                await trio.sleep(20)
                loss.append(trading.monitor.daily_loss.day)
                await trio.sleep(50)
                loss.append(trading.monitor.daily_loss.day)
                assert len(exchange.resting(GAME)) > 1
                trading.stop("the script is over")

            surroundings = attrs.evolve(
                short_session._surroundings(),
                alert_transport=httpx.MockTransport(discord),
                randomness=Random(7),
            )
            values = {
                "KALSHI_ENV": "demo",
                "LIVE_TRADING_ENABLED": "true",
                "KALSHI_API_KEY": "key",
                "KALSHI_API_SECRET": "secret",
                "MM_DATA_DIR": str(tmp_path),
                "WEB_ADDRESS": "off",
                "MARKET_DATE": "any",
                "DISCORD_WEBHOOK_URL": "https://discord.test/api/webhooks/1/x",
            }
            settings = load_settings(values, environ={}, dotenv=Path("/nonexistent/.env"))
            options = RunOptions(on_trading=lambda trading, nursery: nursery.start_soon(script, trading))
            with mock.patch.object(session_run, "open_venue", short_session._open_venue(exchange)):
                summary = await run_session(settings, surroundings, options)
            assert summary.exit_code == 0, summary.reason
            world.cancel_scope.cancel()

    with pinned(1):
        trio.run(main, clock=MockClock(autojump_threshold=0))

    assert loss == [day, day + dt.timedelta(days=1)]
    lines = [line for text in told for line in text.splitlines() if "in US Eastern: result" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"[INFO] {day} in US Eastern: result ")
    assert "1 fill (2 contracts)" in lines[0]
    assert "held now: 2 contracts in 1 market" in lines[0]

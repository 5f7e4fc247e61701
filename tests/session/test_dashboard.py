"""The dashboard of a running bot, on loopback: what it shows is true, what it does reaches the exchange."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import structlog
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.order import MarketTicker
from mm.session.summary import ExitCode
from mm.session.trading import Trading
from mm.session.viewing import Viewer
from mm.session.web import Dashboard, bind
from mm.views.web.guard import TOKEN_HEADER
from mm.views.web.metrics import Metrics

pytestmark = pytest.mark.real

FREE = "127.0.0.1:0"


@attrs.define
class Page:
    """A user with the printed address."""

    client: httpx.AsyncClient
    dashboard: Dashboard

    async def get(self, path: str) -> dict[str, object]:
        """Read JSON."""
        response = await self.client.get(path)
        response.raise_for_status()
        found: dict[str, object] = response.json()
        return found

    async def post(self, path: str, **body: object) -> httpx.Response:
        """Act."""
        return await self.client.post(path, json=body, headers={TOKEN_HEADER: self.dashboard.token})


@asynccontextmanager
async def opened(trading: Trading, address: str = FREE) -> AsyncGenerator[Page, None]:
    """The dashboard of a bot, and a user of it."""
    dashboard = Dashboard(trading=trading, viewer=Viewer(trading, trading.clock()), address=address)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(dashboard.run)
        async with httpx.AsyncClient(base_url=url.partition("#")[0], timeout=5.0) as client:
            yield Page(client, dashboard)
        nursery.cancel_scope.cancel()


def orders_of(trading: Trading, ticker: str) -> int:
    """Our orders of a market that may rest."""
    return sum(1 for o in trading.desk.live.values() if o.ticker == ticker)


async def test_it_shows_the_bot_as_it_is(rig: Rig) -> None:
    """The slate, the totals, one market's book and reasons, history and metrics agree with the running parts."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading) and trading.floor.positions.fills >= 2, "fills", 30)
        async with opened(trading) as page:
            await trio.sleep(1.2)
            state = await page.get("/api/state")
            assert {m["ticker"] for m in state["markets"]} == set(trading.floor.makers)  # type: ignore[attr-defined]
            assert state["totals"]["fills"] >= 2  # type: ignore[index]
            quoted = next(m for m in state["markets"] if m["bid"] and m["ask"])  # type: ignore[attr-defined]
            assert quoted["best_bid"] < quoted["best_ask"]
            assert quoted["state"] == "quoting"
            detail = await page.get(f"/api/markets/{quoted['ticker']}")
            assert any(level["ours"] for level in detail["bids"])  # type: ignore[attr-defined]
            whys = [d["why"] for d in detail["decisions"] if d["actions"]]  # type: ignore[attr-defined]
            assert any("mark" in why and "bid =" in why for why in whys)
            assert len((await page.get("/api/history"))["at"]) >= 1  # type: ignore[arg-type]
            metrics = (await page.client.get("/metrics")).text
            assert "mm_fills_total" in metrics
            assert 'mm_markets{state="quoting"}' in metrics

    summary = await rig.run_bot(script=script)

    assert summary.exit_code is ExitCode.CLEAN


async def test_pause_pulls_the_quotes_and_resume_brings_them_back(rig: Rig) -> None:
    """A paused market rests nothing at the exchange and says why; the others go on."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting", 30)
        ticker = next(iter(trading.floor.makers))
        async with opened(trading) as page:
            assert (await page.post(f"/api/markets/{ticker}/pause")).status_code == 200
            await eventually(lambda: orders_of(trading, ticker) == 0, "its quotes are gone")
            assert ticker not in {o.ticker for o in await rig.resting()}
            state = await page.get("/api/state")
            row = next(m for m in state["markets"] if m["ticker"] == ticker)  # type: ignore[attr-defined]
            assert row["is_paused"]
            assert row["reason"] == "paused by the operator"
            await trio.sleep(1.0)
            assert orders_of(trading, ticker) == 0
            assert orders_of(trading, next(t for t in trading.floor.makers if t != ticker)) > 0
            assert (await page.post(f"/api/markets/{ticker}/resume")).status_code == 200
            await eventually(lambda: orders_of(trading, ticker) > 0, "it is quoted again")

    summary = await rig.run_bot(script=script)

    assert summary.exit_code is ExitCode.CLEAN


async def test_pause_all_holds_everything(rig: Rig) -> None:
    """No order of ours rests anywhere until it is lifted."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting", 30)
        async with opened(trading) as page:
            assert (await page.post("/api/pause")).status_code == 200
            await eventually(lambda: not trading.desk.live, "no quotes anywhere")
            assert await rig.resting() == []
            state = await page.get("/api/state")
            assert state["totals"]["is_all_paused"]  # type: ignore[index]
            assert state["totals"]["notice"] == "no new quotes: paused by the operator"  # type: ignore[index]
            assert (await page.post("/api/resume")).status_code == 200
            await eventually(lambda: is_quoting(trading), "quoting again")

    await rig.run_bot(script=script)


async def test_flatten_closes_the_position_and_stays_out(rig: Rig) -> None:
    """The exchange's own position is zero afterwards, and the market is not quoted again when asked so."""

    async def script(trading: Trading) -> None:
        positions = trading.floor.positions

        def held() -> list[MarketTicker]:
            return [
                t
                for t, h in positions.histories.items()
                if abs(h.state.net) >= 100 and t in trading.floor.makers
            ]

        await eventually(lambda: bool(held()), "a position", 30)
        async with opened(trading) as page:
            ticker = held()[0]
            assert (await page.post(f"/api/markets/{ticker}/flatten", pause=True)).status_code == 200
            await eventually(
                lambda: positions.net(ticker) == 0 and orders_of(trading, ticker) == 0, "flat", 20
            )
            assert ticker not in await rig.positions()
            await trio.sleep(1.0)
            assert orders_of(trading, ticker) == 0
            again = await page.post(f"/api/markets/{ticker}/flatten")
            assert again.status_code == 409
            assert "flat already" in again.json()["error"]

    summary = await rig.run_bot(script=script)

    assert summary.positions_match is True


async def test_stop_ends_the_bot_cleanly(rig: Rig) -> None:
    """The button does what Ctrl-C does."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting", 30)
        async with opened(trading) as page:
            assert (await page.client.post("/api/stop", json={})).status_code == 403
            assert (
                await page.client.post("/api/stop", json={}, headers={TOKEN_HEADER: "x"})
            ).status_code == 403
            assert not trading.why_stopping()
            assert (await page.post("/api/stop")).status_code == 200

    summary = await rig.run_bot(script=script)

    assert summary.reason == "web"
    assert summary.exit_code is ExitCode.CLEAN
    assert await rig.resting() == []


async def test_a_taken_port_is_replaced_by_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops nobody: a warning, and the address that is used instead."""
    taken = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = taken[0].socket.getsockname()[1]
    with structlog.testing.capture_logs() as lines:
        found = await bind(f"127.0.0.1:{port}")

    assert found[0].socket.getsockname()[1] not in (0, port)
    assert [line["log_level"] for line in lines] == ["warning"]
    assert str(port) in lines[0]["address"]
    for listener in (*taken, *found):
        await listener.aclose()


async def test_an_impossible_address_stops_nobody() -> None:
    """No dashboard then, and an error that says so."""
    with structlog.testing.capture_logs() as lines:
        assert await bind("192.0.2.1:8750") == []

    assert lines[-1]["log_level"] == "error"


async def test_localhost_listens_on_one_port() -> None:
    """Two addresses of one name would have two free ports, and the printed one only half a chance."""
    found = await bind("localhost:0")

    assert len(found) == 1
    await found[0].aclose()


async def test_a_fault_in_the_page_does_not_end_trading(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that a request sets off is told, the dashboard comes back, quotes go on."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting", 30)
        async with opened(trading) as page:
            app = page.dashboard.app
            assert app is not None
            with monkeypatch.context() as patch, pytest.raises(httpx.HTTPError):
                patch.setattr(Metrics, "render", lambda self, snapshot: 1 / 0)
                await page.client.get("/metrics")
            await eventually(lambda: page.dashboard.app is not app, "a new app")
            with trio.fail_after(5):
                while True:
                    try:
                        await page.get("/api/state")
                        break
                    except httpx.TransportError:
                        await trio.sleep(0.1)
            assert is_quoting(trading)

    summary = await rig.run_bot(script=script)

    assert summary.exit_code is ExitCode.CLEAN


def test_off_imports_nothing_of_it() -> None:
    """Who switches it off pays no memory: neither our view nor the metrics library is loaded."""
    probe = (
        "import sys, mm.cli, mm.session.front, mm.session.run\n"
        "print([m for m in sys.modules if m.startswith(('mm.views.web', 'mm.session.web', 'mm.session.controls',"
        " 'prometheus_client'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "[]"

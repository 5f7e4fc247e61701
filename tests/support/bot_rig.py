"""A whole bot against the embedded exchange on loopback, in one process, through the real adapters."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from mm.domain.numbers import Count
from mm.exchange.embedded.server.app import Ready
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import load_signer
from mm.exchange.paging import read_all
from mm.exchange.port import Exchange, OrderReport, OrderStatus
from mm.session import RunOptions, Summary, live_surroundings, run_session
from mm.session.trading import Trading
from mm.settings import Settings, load_settings

DEADLINE_S = 40.0


@attrs.define
class Rig:
    """A running exchange, and the means to start bots on it."""

    ready: Ready
    data_dir: Path
    trading: list[Trading] = attrs.field(factory=list)

    def settings(self, **overrides: str) -> Settings:
        """Settings that point a bot at this exchange; nothing comes from the environment."""
        values = {
            "KALSHI_ENV": "demo",
            "LIVE_TRADING_ENABLED": "true",
            "KALSHI_REST_URL": self.ready.rest_url,
            "KALSHI_WS_URL": self.ready.ws_url,
            "KALSHI_API_KEY": self.ready.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(self.ready.private_key_path),
            "MM_DATA_DIR": str(self.data_dir),
            "WEB_ADDRESS": "off",
        }
        return load_settings(values | overrides, environ={}, dotenv=Path("/nonexistent/.env"))

    async def run_bot(
        self,
        until: Callable[[Trading], bool] | None = None,
        *,
        on_trading: Callable[[Trading], Any] = lambda trading: None,
        script: Callable[[Trading], Awaitable[None]] | None = None,
        **overrides: str,
    ) -> Summary:
        """Run a bot until a condition holds or a script is over (then it is asked to stop), or it ends by itself."""

        def begin(trading: Trading, nursery: trio.Nursery) -> None:
            self.trading.append(trading)
            on_trading(trading)
            if until is not None:
                nursery.start_soon(stop_when, trading, until)
            if script is not None:
                nursery.start_soon(play, trading, script)

        with trio.fail_after(DEADLINE_S):
            return await run_session(
                self.settings(**overrides), live_surroundings(), RunOptions(on_trading=begin)
            )

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Exchange, None]:
        """A second pair of eyes: the same account, through an adapter of its own."""
        surroundings = live_surroundings()
        signer = load_signer(self.ready.key_id, self.ready.private_key_path.read_text())
        async with open_kalshi(
            kalshi_options(self.ready.rest_url, self.ready.ws_url),
            signer,
            clock=surroundings.clock,
            randomness=surroundings.randomness,
            connect=surroundings.connect,
        ) as exchange:
            yield exchange

    async def resting(self) -> list[OrderReport]:
        """What rests on the account, by the exchange's own word."""
        async with self.client() as exchange:
            return await read_all(
                lambda cursor: exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor),
                what="resting orders",
            )

    async def control(self, path: str, **body: object) -> dict[str, Any]:
        """Ask the exchange's back door: faults on command, and its own truth."""
        base = self.ready.rest_url.removesuffix("/trade-api/v2")
        async with httpx.AsyncClient() as client:
            response = await client.post(f"{base}/control/{path}", json=body)
            response.raise_for_status()
            return response.json() if response.content else {}  # type: ignore[no-any-return]

    async def calm(self) -> None:
        """No faults any more."""
        base = self.ready.rest_url.removesuffix("/trade-api/v2")
        async with httpx.AsyncClient() as client:
            (await client.delete(f"{base}/control/faults")).raise_for_status()

    async def positions(self) -> dict[str, Count]:
        """Positions on the account, by the exchange's own word."""
        async with self.client() as exchange:
            return {p.ticker: p.position for p in await exchange.positions() if p.position}


async def play(trading: Trading, script: Callable[[Trading], Awaitable[None]]) -> None:
    """Run a test's script beside the bot, then ask the bot to stop."""
    await script(trading)
    trading.stop("the script is over")


async def stop_when(trading: Trading, condition: Callable[[Trading], bool]) -> None:
    """Ask the bot to stop once `condition` holds; the test's deadline bounds the wait."""
    while not condition(trading):
        await trio.sleep(0.05)
    trading.stop("condition reached")


def is_quoting(trading: Trading) -> bool:
    """Every taken market has an order resting."""
    quoted = {order.ticker for order in trading.desk.live.values() if order.order_id is not None}
    return bool(trading.floor.makers) and quoted == set(trading.floor.makers)


async def eventually(condition: Callable[[], bool], what: str, within_s: float = 10.0) -> None:
    """Wait until `condition` holds. Raises `AssertionError` naming `what` when it does not in time."""
    with trio.move_on_after(within_s):
        while not condition():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not within {within_s:g} s: {what}")

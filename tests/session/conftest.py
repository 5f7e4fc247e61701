"""Fixtures of whole sessions on loopback."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from bot_rig import Rig
from mm.exchange.embedded.server.app import ExchangeOptions, Ready, serve


@pytest.fixture(name="rig")
async def _rig(tmp_path: Path) -> AsyncGenerator[Rig, None]:
    options = ExchangeOptions(games=4, speed=20, seed=7, tier="advanced")
    async with trio.open_nursery() as nursery:
        ready: Ready = await nursery.start(serve, options)
        yield Rig(ready, tmp_path / "data")
        nursery.cancel_scope.cancel()

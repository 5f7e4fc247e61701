"""For all tests: plain log lines, without rich tracebacks (which print local variables, and take minutes); the rig."""

import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import structlog
import trio

from bot_rig import Rig
from mm.exchange.embedded.server.app import ExchangeOptions, Ready, serve

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: the processes that tests start would inherit it and never hear of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    # For each test anew: commands quieten the logs of their whole process.
    structlog.reset_defaults()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ]
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say why a test on trio was skipped: pytest-trio raises its skip anew, without the reason."""
    del item
    skipped = None if call.excinfo is None else call.excinfo.value
    if isinstance(skipped, pytest.skip.Exception) and not skipped.msg:
        first = skipped.__context__
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, pytest.skip.Exception):
            skipped.msg = first.msg
    return (yield)


@pytest.fixture(name="rig")
async def _rig(tmp_path: Path) -> AsyncGenerator[Rig, None]:
    # An exchange on loopback in this process, and the means to start bots on it.
    options = ExchangeOptions(games=4, speed=20, seed=7, tier="advanced")
    async with trio.open_nursery() as nursery:
        ready: Ready = await nursery.start(serve, options)
        yield Rig(ready, tmp_path / "data")
        nursery.cancel_scope.cancel()

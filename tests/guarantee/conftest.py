"""The ground for every test here, and the measured times at the end of the run."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from bot_rig import Rig
from guarantee_rig import Ground, open_ground, report


@pytest.fixture
async def ground(rig: Rig, tmp_path: Path) -> AsyncGenerator[Ground, None]:
    if sys.platform != "linux":
        pytest.skip("looks for processes in /proc")
    async with open_ground(rig, tmp_path) as ground:
        yield ground


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = report()
    if lines:
        terminalreporter.section("seconds until nothing rests")
        for line in lines:
            terminalreporter.write_line(line)

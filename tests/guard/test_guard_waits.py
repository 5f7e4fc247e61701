"""The guardian waits while there is time left: it never turns round without waiting."""

import os
from collections.abc import Iterator

import pytest

from mm.guard.watch import BotLine, Watch


class FrozenPoll:
    """Remembers how long it was asked to wait, milliseconds, and hears nothing."""

    def __init__(self) -> None:
        self.waits: list[int] = []

    def register(self, fd: int, events: int) -> None:
        """There is but one."""

    def poll(self, timeout_ms: int) -> list[int]:
        self.waits.append(timeout_ms)
        return []


@pytest.fixture(name="line")
def _line(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[BotLine, FrozenPoll]]:
    poll = FrozenPoll()
    monkeypatch.setattr("mm.guard.watch.select.poll", lambda: poll)
    reads, writes = os.pipe()
    try:
        yield BotLine(reads, writes), poll
    finally:
        os.close(reads)
        os.close(writes)


@pytest.mark.parametrize(
    "seconds, milliseconds",
    [(0.0, 0), (-1.0, 0), (1e-12, 1), (0.0001, 1), (0.001, 1), (0.0011, 2), (2.0, 2_000)],
)
def test_a_rest_of_time_however_short_is_waited_for(
    line: tuple[BotLine, FrozenPoll], seconds: float, milliseconds: int
) -> None:
    """Rounded up: a wait of nothing would leave the clock where it is, and be repeated until the clock moved by itself."""
    bot, poll = line
    assert bot.hear(seconds) == []
    assert poll.waits == [milliseconds]


def test_a_pause_whose_end_is_missed_by_a_rounding_error_waits_once_more(
    line: tuple[BotLine, FrozenPoll],
) -> None:
    """Found by the simulation, seeds 338, 542 and 571: on a clock that moves only while one waits it never ended."""
    bot, poll = line

    def now() -> float:
        # The first wait ends a hair too early.
        return max(0.0, sum(poll.waits) / 1_000 - 1e-12)

    Watch(bot, now)._pause(0.05)
    assert poll.waits == [50, 1]

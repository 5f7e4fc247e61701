"""What a source of markets is to the exchange that runs it. `generated` and `replay` hold the two sources."""

from typing import Final, Protocol

import trio

from mm.domain.numbers import SECOND, Micros
from mm.exchange.embedded.core.exchange import ExchangeCore

QUANTUM_S: Final = 0.005
"""A source wakes up at most this often and does all that is due in one go."""


class Driver(Protocol):
    """What the exchange gives to its source of markets."""

    @property
    def core(self) -> ExchangeCore:
        """The exchange."""

    def clock(self) -> Micros:
        """The wall clock (virtual in simulation). Never goes back."""

    def batch_done(self) -> None:
        """Called after each batch of changes, before the source sleeps: a good moment to send what has gathered."""


class MarketSource(Protocol):
    """Lists markets in the core and makes them move. Also answers for the games behind them."""

    async def run(
        self, driver: Driver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """List the markets, report started when their first books are there, then move them until cancelled.

        Never returns. Cancellation leaves the core as the last whole batch left it.
        """

    def milestones(self, now: Micros) -> list[dict[str, object]]:
        """The games as the REST API shows them, oldest start first. Empty where the source knows none."""

    def live_data(self, now: Micros, milestone_id: str) -> dict[str, object] | None:
        """`{"type", "details", "milestone_id"}` as of `now`; None for an unknown milestone."""

    def game_stats(self, now: Micros, milestone_id: str) -> dict[str, object] | None:
        """`{"pbp": {"periods": [{"events": [...]}]}}` as of `now`; None for an unknown milestone."""

    def incentive_programs(self, now: Micros) -> list[dict[str, object]]:
        """Incentive programs as the REST API shows them, oldest start first."""


class NoGames:
    """The part of a source that knows no games behind its markets, and no incentives."""

    def milestones(self, now: Micros) -> list[dict[str, object]]:
        """None."""
        del now
        return []

    def live_data(self, now: Micros, milestone_id: str) -> dict[str, object] | None:
        """None."""
        del now, milestone_id
        return None

    def game_stats(self, now: Micros, milestone_id: str) -> dict[str, object] | None:
        """None."""
        del now, milestone_id
        return None

    def incentive_programs(self, now: Micros) -> list[dict[str, object]]:
        """None."""
        del now
        return []


async def sleep_until(driver: Driver, due: Micros | None) -> None:
    """Sleep until the wall clock reaches `due` (None: for ever), at least for `QUANTUM_S`: a busy source stays cheap."""
    if due is None:
        await trio.sleep_forever()
    await trio.sleep(max((due - driver.clock()) / SECOND, QUANTUM_S))

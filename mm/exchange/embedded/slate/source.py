"""What a source of markets is to the exchange that runs it. `generated` and `replay` are the two sources."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import trio

from mm.domain.numbers import Micros
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.slate.listings import Milestone

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


@attrs.frozen(kw_only=True)
class LiveData:
    """The state of the game behind a milestone."""

    milestone_id: str
    type: str
    details: Mapping[str, Any]
    plays: Sequence[Mapping[str, Any]] = ()
    """Play by play, oldest first: each with `period`, `clock`, `event`, `team` and the score after it."""


class MarketSource(Protocol):
    """Lists markets in the core and makes them move."""

    async def run(
        self, driver: Driver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """List the markets, report started when their first books are there, then move them until cancelled.

        Never returns. Cancellation leaves the core as the last whole batch left it.
        """

    def milestones(self) -> Sequence[Milestone]:
        """The games, oldest listing first. Empty where the source knows none."""

    def live_data(self, milestone_id: str, now: Micros) -> LiveData | None:
        """The game behind a milestone as of `now`; None when there is no such milestone."""


async def sleep_until(driver: Driver, due: Micros) -> None:
    """Sleep until the wall clock reaches `due`, at least for `QUANTUM_S` (so that a busy source stays cheap)."""
    wait = (due - driver.clock()) / 1_000_000
    await trio.sleep(max(wait, QUANTUM_S))

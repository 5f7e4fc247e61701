"""Do reads show it yet? Reads lag writes, and the wall clock may step: what proves that a read is young enough."""

from collections.abc import Callable
from typing import Final

import attrs
import trio

from mm.domain.numbers import SECOND, Micros
from mm.exchange.port import Exchange

LONG_READ_LAG_S: Final = 5.0
"""From here on a read counts whatever the venue says of its freshness (its clock may not be ours)."""
CLOCKS_APART: Final = Micros(SECOND // 4)
"""How far our clock and the venue's may be apart. A venue whose reads are newer than our present by more than this has
another clock: its times prove nothing."""


@attrs.frozen
class Moment:
    """When something happened, on the wall clock (to compare with the venue's) and on one that never steps."""

    wall: Micros
    at: float

    @classmethod
    def now(cls, clock: Callable[[], Micros]) -> "Moment":
        """This moment."""
        return cls(clock(), trio.current_time())

    @property
    def age_s(self) -> float:
        """Seconds since then."""
        return trio.current_time() - self.at


async def reads_show(exchange: Exchange, moment: Moment, clock: Callable[[], Micros]) -> bool:
    """Whether reads made from now on show the effect of what was sent before `moment`. Raises `ExchangeError`."""
    if moment.age_s >= LONG_READ_LAG_S:
        return True
    as_of = await exchange.user_data_age()
    return moment.wall + CLOCKS_APART < as_of <= clock() + CLOCKS_APART

"""What one market decided and why, the newest entries: for people who ask why a quote stands where it stands.

Kept where decisions are made, read by nobody who decides. Only changes are entered: a new state or reason, and plans
that were sent, so that the cost is that of the writes, not of the market's messages.
"""

from collections import deque
from typing import Final

import attrs

from mm.domain.commands import QuoteCommand
from mm.domain.numbers import Count, Micros, Price
from mm.engine.exits import ExitOrder
from mm.engine.mark import Touch
from mm.engine.quoting import NO_QUOTES, WantedQuotes

KEPT_ENTRIES: Final = 60
"""Entries a market; at about 300 bytes each a thousand markets keep 18 MB."""


@attrs.frozen(kw_only=True)
class JournalEntry:
    """One change, with what the decision saw."""

    at: Micros
    state: str
    reason: str = ""
    """Why it does not quote; empty when it does."""
    commands: tuple[QuoteCommand | ExitOrder, ...] = ()
    """What was sent; empty: only the state or its reason changed."""
    mark: Price | None = None
    touch: Touch = Touch(None, None)
    """Without our own orders, as the rules see it."""
    net: Count = Count(0)
    wanted: WantedQuotes = NO_QUOTES
    extra_ticks: int = 0
    """How much wider the churn brake and the guards made the quotes."""


def new_journal() -> deque[JournalEntry]:
    """An empty one; the oldest entry goes when it is full."""
    return deque(maxlen=KEPT_ENTRIES)

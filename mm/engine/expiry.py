"""How long a quote lives when nobody renews it: the time within which it is gone if everything else is.

Short where a quote that nobody watches costs most (the game is on, its end is near), long where the account's write
budget could not carry the renewals. Pure arithmetic; who renews is `mm.tasks.quoter`.
"""

from typing import Final

from mm.domain.numbers import SECOND, Micros

QUIET: Final = Micros(60 * SECOND)
RUNNING: Final = Micros(30 * SECOND)
ENDING: Final = Micros(20 * SECOND)
LONGEST: Final = Micros(600 * SECOND)
"""However little the budget carries. What cannot be renewed within this expires and is counted."""
RUNNING_FROM: Final = Micros(3 * 3_600 * SECOND)
"""Before its expected end an event counts as running: a hockey game is announced as 3 hours."""
ENDING_FROM: Final = Micros(20 * 60 * SECOND)
"""Before the expected end, and from then on: prices jump to 0 or 1."""
RENEWALS_SHARE: Final = 0.25
"""Of the write refill: what renewals may take of it."""
STEPS: Final = 8
"""Quotes placed together are renewed in so many groups."""
MEAN_RENEWAL: Final = 0.5 - (STEPS - 1) / 2 / (8 * STEPS)
"""The share of its life after which a quote is renewed, on average; see `renew_at`."""


def quote_life(
    now: Micros, ends_at: Micros | None, *, quotes: int, renewal_cost: int, refill_per_s: float
) -> Micros:
    """The time to live of a quote placed or renewed now.

    Args:
        ends_at: When the market is expected to be decided; None where nobody said.
        quotes: Quotes that share the budget, this one included.
        renewal_cost: Write tokens of one renewal.
        refill_per_s: Write tokens that the account gets a second.
    """
    left = None if ends_at is None else ends_at - now
    if left is None or left > RUNNING_FROM:
        wanted = QUIET
    elif left > ENDING_FROM:
        wanted = RUNNING
    else:
        wanted = ENDING
    spare = max(RENEWALS_SHARE * refill_per_s, 0.001)
    carried = quotes * renewal_cost / spare / MEAN_RENEWAL
    return min(LONGEST, max(wanted, Micros(int(carried * SECOND))))


def renew_at(expires_at: Micros, life: Micros, number: int) -> Micros:
    """At half of its life, a little earlier for some: quotes that were placed together are not renewed together.

    Args:
        number: The order's own; neighbours differ.
    """
    step = number % STEPS
    return Micros(expires_at - life // 2 - step * (life // (8 * STEPS)))

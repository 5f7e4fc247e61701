"""The old bot's fill model: a quote that a trade reaches gets a fixed share of the trade's size."""

from mm.domain.numbers import CONTRACT, Count
from mm.engine.parameters import StrategyParameters


def queue_share(size: Count, parameters: StrategyParameters) -> Count:
    """`floor(QUEUE_SHARE * size)` in whole contracts."""
    share = parameters.queue_share
    return Count(size * share.numerator // (share.denominator * CONTRACT) * CONTRACT)

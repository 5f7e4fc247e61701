"""What one run of the back-test may differ in: parameters, fill model, latency, chance."""

import attrs

from mm.domain.numbers import Micros
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.registry import StrategyTable
from mm.research.fills import TRADE_SHARE, FillModel


@attrs.frozen(kw_only=True)
class Latency:
    """How long things take. The defaults are guesses for a host near the exchange, to be measured."""

    feed: Micros = Micros(20_000)
    """From the exchange's deed to our knowing it."""
    order: Micros = Micros(30_000)
    """From our sending to the exchange's acting."""
    jitter: Micros = Micros(0)
    """Up to so much more for each request, evenly spread."""
    answer: Micros | None = None
    """From the exchange's acting to the answer in our hands; None: as the feed."""

    @property
    def back(self) -> Micros:
        """By how much an answer comes later than what the feed says of the same moment."""
        return Micros(0 if self.answer is None else max(self.answer - self.feed, 0))


@attrs.frozen(kw_only=True)
class BacktestOptions:
    """What a run may differ in."""

    parameters: StrategyParameters = attrs.field(factory=StrategyParameters)
    strategies: StrategyTable = attrs.field(factory=StrategyTable)
    """Which market gets which strategy."""
    model: FillModel = FillModel.QUEUE
    latency: Latency = attrs.field(factory=Latency)
    trade_share: float = TRADE_SHARE
    seed: int = 1
    decide_always: bool = False
    """Ask the engine after every read, also where nothing that it looks at has changed. Slow; must change nothing."""
    decides_nothing: bool = False
    """Never ask it: what is left is the price of going over the tape."""

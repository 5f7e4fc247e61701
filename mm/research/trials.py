"""One piece of a sweep's work: some parameter sets over one recording. Runs in any process, also of a cluster.

What comes back are whole numbers by game, so that who ran it, and where, cannot be seen in it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from mm.domain.numbers import Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import eastern_date
from mm.research.fills import FillModel
from mm.research.formats import read_recording
from mm.research.options import BacktestOptions, Latency
from mm.research.outcome import Outcome, market_spans, run_tape
from mm.research.plan import Settings
from mm.research.tape import Tape
from mm.research.variants import make_variant


@attrs.frozen(kw_only=True)
class GameResult:
    """One game under one trial."""

    game: str
    day: str
    """US Eastern date of its first row."""
    net: int
    """`Money`: after fees."""
    fees: int
    contracts: int
    """`Count`."""
    fills: int
    triggers: int


@functools.lru_cache(maxsize=2)
def _tape(source: str, size: int) -> Tape:
    """Read once a process; the size tells another file under the same name apart."""
    return read_recording(source)


def options_of(settings: Settings, trial: Mapping[str, str]) -> BacktestOptions:
    """A trial as the back-test's options."""
    variant = make_variant("", settings.strategy, {**settings.sets, **trial})
    return BacktestOptions(
        parameters=variant.parameters,
        strategies=variant.table,
        model=FillModel(settings.fill_model),
        latency=Latency(
            feed=Micros(settings.feed_us),
            order=Micros(settings.order_us),
            jitter=Micros(settings.jitter_us),
        ),
        trade_share=settings.trade_share,
        seed=settings.seed,
    )


def run_chunk(
    settings: dict[str, Any], source: str, size: int, trials: Sequence[Mapping[str, str]]
) -> list[list[dict[str, Any]]]:
    """For each trial its games, in the order of the tape. Raises `BadRecording`."""
    from mm.research.command import quiet

    quiet()
    shared, tape = Settings(**settings), _tape(source, size)
    first = {m.ticker: span[0] for m, span in zip(tape.markets, market_spans(tape), strict=True)}
    found = []
    for trial in trials:
        outcome = run_tape(tape, options_of(shared, trial), curves=False)
        found.append([attrs.asdict(game) for game in _games(outcome, first)])
    return found


def _games(outcome: Outcome, first: Mapping[MarketTicker, int]) -> list[GameResult]:
    games: dict[str, GameResult] = {}
    for market in outcome.markets:
        day = eastern_date(Micros(first[market.ticker])).isoformat()
        known = games.get(market.game)
        mine = GameResult(
            game=market.game,
            day=day if known is None else min(day, known.day),
            net=market.net + (known.net if known else 0),
            fees=market.fees + (known.fees if known else 0),
            contracts=market.contracts + (known.contracts if known else 0),
            fills=len(market.fills) + (known.fills if known else 0),
            triggers=sum(market.triggers.values()) + (known.triggers if known else 0),
        )
        games[market.game] = mine
    return list(games.values())

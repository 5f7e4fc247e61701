"""The gates that a strategy passes before it is called anything: 0, honesty of the back-test with it; 1, old prints.

| gate | asks |
| --- | --- |
| 0 | fills on the beginning of a tape are the whole run's; prices 1-p with sides swapped give the mirrored fills; other tickers and dates give equal fills; a second of latency costs at most 0.3 c more than a quarter; every quote fill has a print at or through its price; cash is the ledger's result |
| 1 | under three fill models: at least 15% of the inherited rules' contracts, fills in 75% of the markets, at least 0.5 c a contract better, a dollar loss of at most 30% of theirs |
| 2 | 80 matches recorded with depth and trades after the strategy was committed: nothing here can stand in for them |

Gate 1 can only fail a strategy. What a pass is worth, and what is not, says docs/strategies.md.
"""

from array import array
from collections.abc import Sequence
from typing import Final

import attrs

from mm.domain.errors import InvariantError
from mm.domain.numbers import DOLLAR, SECOND, Micros
from mm.domain.order import MarketTicker, Side
from mm.engine.parameters import StrategyParameters
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.hybrid import Hybrid
from mm.engine.strategies.registry import StrategyTable
from mm.research.fills import FillModel
from mm.research.options import BacktestOptions, Latency
from mm.research.outcome import Outcome, run_tape
from mm.research.sums import Interval, cents_a_contract
from mm.research.tape import COLUMNS, Kind, Tape, mirrored

MODELS: Final = {
    "20% share": FillModel.QUEUE_SHARE,
    "through only": FillModel.THROUGH,
    "500 ahead": FillModel.QUEUE,
}
"""Gate 1's three; on prints alone `queue` puts 500 contracts ahead of every quote."""
QUARTER: Final = Latency(feed=Micros(20_000), order=Micros(230_000))
"""250 ms from what the exchange did to our answer there."""
WHOLE: Final = Latency(feed=Micros(20_000), order=Micros(980_000))
MOST_LATENCY_COST: Final = 0.3
LEAST_CONTRACTS: Final = 0.15
LEAST_MARKETS: Final = 0.75
LEAST_BETTER: Final = 0.5
MOST_LOSS: Final = 0.30
DAYS_MOVED: Final = 371
"""Gate 0 moves a tape by so many days: other dates, other weekdays."""

Fills = list[tuple[int, int, str, int, int]]
"""(time, market's place, side, price, count) in order of time."""


@attrs.frozen(kw_only=True)
class Check:
    """One question and its answer."""

    question: str
    is_passed: bool
    figures: str


@attrs.frozen(kw_only=True)
class ModelFigures:
    """A strategy under one fill model."""

    model: str
    contracts: float
    dollars: float
    cents: Interval
    markets: int


@attrs.frozen(kw_only=True)
class Evaluation:
    """What the gates said of one strategy."""

    strategy: str
    honesty: tuple[Check, ...]
    prints: tuple[Check, ...]
    figures: tuple[ModelFigures, ...]
    baseline: tuple[ModelFigures, ...]
    """The inherited rules on the same tape."""
    markets: int

    @property
    def gate_0(self) -> bool:
        """Passed."""
        return all(check.is_passed for check in self.honesty)

    @property
    def gate_1(self) -> bool:
        """Passed, which only says that it is not worse than it may be."""
        return all(check.is_passed for check in self.prints)


def fills_of(outcome: Outcome) -> Fills:
    """A run's fills."""
    found = [
        (int(f.fill.ts), place, f.fill.side.value, int(f.fill.price), int(f.fill.count))
        for place, market in enumerate(outcome.markets)
        for f in market.fills
    ]
    return sorted(found)


def only(tape: Tape, place: int) -> Tape:
    """One market of a tape."""
    rows = [row for row, market in enumerate(tape.market) if market == place]
    columns = {
        name: array(getattr(tape, name).typecode, [getattr(tape, name)[r] for r in rows]) for name in COLUMNS
    }
    columns["market"] = array(tape.market.typecode, [0] * len(rows))
    return attrs.evolve(tape, markets=[tape.markets[place]], **columns)  # type: ignore[arg-type]


@attrs.define(eq=False)
class Examiner:
    """Runs one strategy over one tape of prints."""

    tape: Tape
    parameters: StrategyParameters

    def run(
        self,
        strategy: Strategy,
        tape: Tape | None = None,
        model: FillModel = FillModel.QUEUE_SHARE,
        latency: Latency = QUARTER,
    ) -> Outcome:
        """One run."""
        options = BacktestOptions(
            parameters=self.parameters,
            strategies=StrategyTable(strategy),
            model=model,
            latency=latency,
        )
        return run_tape(self.tape if tape is None else tape, options)

    def evaluate(self, strategy: Strategy) -> Evaluation:
        """Gates 0 and 1."""
        runs = {name: self.run(strategy, model=model) for name, model in MODELS.items()}
        theirs = {name: self.run(Hybrid(), model=model) for name, model in MODELS.items()}
        figures = [_figures(name, outcome) for name, outcome in runs.items()]
        baseline = [_figures(name, outcome) for name, outcome in theirs.items()]
        return Evaluation(
            strategy=strategy.name,
            honesty=tuple(self._honesty(strategy, runs["20% share"])),
            prints=tuple(self._against(figures, baseline)),
            figures=tuple(figures),
            baseline=tuple(baseline),
            markets=len(self.tape.markets),
        )

    # --- gate 0 ---

    def _honesty(self, strategy: Strategy, whole: Outcome) -> list[Check]:
        fills = fills_of(whole)
        slow = self.run(strategy, latency=WHOLE)
        fast_cents, slow_cents = cents_a_contract(whole).value, cents_a_contract(slow).value
        cost = fast_cents - slow_cents
        return [
            self._prefixes(strategy, fills),
            self._mirror(strategy, fills),
            self._elsewhere(strategy, fills),
            Check(
                question=f"1 s of latency costs at most {MOST_LATENCY_COST} c more than 250 ms",
                is_passed=cost <= MOST_LATENCY_COST,
                figures=f"{fast_cents:+.2f} c at 250 ms, {slow_cents:+.2f} c at 1 s: {cost:+.2f} c",
            ),
            self._prints_behind(whole),
            self._cash(whole),
        ]

    def _prefixes(self, strategy: Strategy, fills: Fills) -> Check:
        cuts, wrong = 0, 0
        for part in (1, 2, 3):
            tape = self.tape.prefix(len(self.tape) * part // 4)
            until = tape.at[-1]
            begun = [fill for fill in fills_of(self.run(strategy, tape)) if fill[0] < until]
            cuts += 1
            wrong += begun != [fill for fill in fills if fill[0] < until]
        return Check(
            question="fills on the beginning of a tape are the whole run's",
            is_passed=not wrong,
            figures=f"{cuts - wrong} of {cuts} beginnings, {len(fills)} fills in all",
        )

    def _mirror(self, strategy: Strategy, fills: Fills) -> Check:
        """Market by market: an event turned round, of whose markets all but one pay, is no event of this world."""
        del fills
        other = {Side.BID.value: Side.ASK.value, Side.ASK.value: Side.BID.value}
        found: Fills = []
        expected: Fills = []
        for place in range(len(self.tape.markets)):
            tape = only(self.tape, place)
            found += [(at, place, *rest) for at, _, *rest in fills_of(self.run(strategy, mirrored(tape)))]  # type: ignore[misc]
            expected += [
                (at, place, other[side], DOLLAR - price, count)
                for at, _, side, price, count in fills_of(self.run(strategy, tape))
            ]
        return _equal(
            "prices 1-p and sides swapped give the mirrored fills, market by market",
            sorted(found),
            sorted(expected),
        )

    def _elsewhere(self, strategy: Strategy, fills: Fills) -> Check:
        moved = DAYS_MOVED * 86_400 * SECOND
        tape = attrs.evolve(
            self.tape,
            at=array(self.tape.at.typecode, [at + moved for at in self.tape.at]),
            ts=array(self.tape.ts.typecode, [ts + moved if ts else ts for ts in self.tape.ts]),
            markets=[
                attrs.evolve(market, ticker=MarketTicker(f"KXOTHER-{market.ticker.partition('-')[2]}"))
                for market in self.tape.markets
            ],
        )
        found = [(at - moved, *rest) for at, *rest in fills_of(self.run(strategy, tape))]
        return _equal("renamed tickers and moved dates give equal fills", found, fills)

    def _prints_behind(self, outcome: Outcome) -> Check:
        prints: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for at, kind, place, price in zip(
            self.tape.at, self.tape.kind, self.tape.market, self.tape.price, strict=True
        ):
            if kind in (Kind.BOUGHT, Kind.SOLD):
                prints.setdefault((place, at), []).append((kind, price))
        bare = quotes = 0
        for place, market in enumerate(outcome.markets):
            for fill in (f.fill for f in market.fills if f.is_quote):
                quotes += 1
                hit = Kind.SOLD if fill.side is Side.BID else Kind.BOUGHT
                behind = prints.get((place, int(fill.ts)), [])
                bare += not any(
                    kind == hit and (fill.price - price) * fill.side.sign >= 0 for kind, price in behind
                )
        return Check(
            question="every quote fill has a print at or through its price",
            is_passed=not bare,
            figures=f"{quotes - bare} of {quotes}",
        )

    def _cash(self, outcome: Outcome) -> Check:
        wrong = [m.ticker for m in outcome.markets if m.cash_pnl() != m.net]
        return Check(
            question="cash is the ledger's result",
            is_passed=not wrong,
            figures=f"{len(outcome.markets) - len(wrong)} of {len(outcome.markets)} markets",
        )

    # --- gate 1 ---

    def _against(self, figures: Sequence[ModelFigures], baseline: Sequence[ModelFigures]) -> list[Check]:
        found: list[Check] = []
        markets = len(self.tape.markets)
        for own, theirs in zip(figures, baseline, strict=True):
            if own.model != theirs.model:
                raise InvariantError("gate 1 compares like with like")
            share = own.contracts / theirs.contracts if theirs.contracts else 0.0
            better = own.cents.value - theirs.cents.value
            most = MOST_LOSS * max(-theirs.dollars, 0.0)
            found += [
                Check(
                    question=f"{own.model}: at least {LEAST_CONTRACTS:.0%} of the inherited rules' contracts",
                    is_passed=share >= LEAST_CONTRACTS,
                    figures=f"{own.contracts:,.0f} of {theirs.contracts:,.0f}: {share:.0%}",
                ),
                Check(
                    question=f"{own.model}: fills in {LEAST_MARKETS:.0%} of the markets",
                    is_passed=own.markets >= LEAST_MARKETS * markets,
                    figures=f"{own.markets} of {markets}",
                ),
                Check(
                    question=f"{own.model}: at least {LEAST_BETTER} c a contract better",
                    is_passed=better >= LEAST_BETTER,
                    figures=f"{own.cents.value:+.2f} c against {theirs.cents.value:+.2f} c: {better:+.2f} c",
                ),
                Check(
                    question=f"{own.model}: a loss of at most {MOST_LOSS:.0%} of theirs",
                    is_passed=-own.dollars <= most,
                    figures=f"{own.dollars:+.2f} dollars against {theirs.dollars:+.2f}",
                ),
            ]
        return found


def _figures(model: str, outcome: Outcome) -> ModelFigures:
    return ModelFigures(
        model=model,
        contracts=outcome.contracts / 100,
        dollars=outcome.net / 1_000_000,
        cents=cents_a_contract(outcome),
        markets=sum(bool(m.fills) for m in outcome.markets),
    )


def _equal(question: str, found: Sequence[object], expected: Sequence[object]) -> Check:
    found, expected = list(found), list(expected)
    same = sum(1 for one, other in zip(found, expected, strict=False) if one == other)
    return Check(
        question=question,
        is_passed=found == expected,
        figures=f"{same} of {len(expected)} fills"
        + ("" if len(found) == len(expected) else f", {len(found)} found"),
    )

"""Fills summed up, and how sure the sums are. What a fill is stands in `outcome`."""

from collections.abc import Iterable
from typing import Final

import attrs

from mm.domain.numbers import Count, Micros, Money
from mm.research.outcome import HORIZONS, FillOutcome, Outcome

SETTLEMENT: Final = Micros(1 << 62)
"""Stands among the horizons for the settlement."""
ALL_HORIZONS: Final[tuple[Micros, ...]] = (*HORIZONS, SETTLEMENT)


@attrs.frozen(kw_only=True)
class Split:
    """The money of some fills, taken apart. All but `fees` are doubled."""

    fills: int
    contracts: Count
    fees: Money
    twice_spread: int
    """Better than the mid at the fill, together."""
    twice_markouts: dict[Micros, int]
    """What the mid did afterwards, over the fills for which it is known."""
    counted: dict[Micros, Count]
    """Contracts for which it is known."""
    unpriced: int
    """Fills in a one-sided book: in no sum."""


def twice_markout(fill: FillOutcome, horizon: Micros) -> int | None:
    """Twice the money that the mid moved our way up to the horizon, the settlement included among them."""
    return fill.twice_to_settlement() if horizon == SETTLEMENT else fill.twice_markout(horizon)


def kept(fills: Iterable[FillOutcome], horizon: Micros) -> "Interval":
    """What fills are worth after the horizon in cents a contract: better than the mid, what the mid did, less the fee."""
    pairs = []
    for fill in fills:
        spread, moved = fill.twice_spread(), twice_markout(fill, horizon)
        if spread is not None and moved is not None:
            worth = (spread + moved) / 2 - fill.fill.fee
            pairs.append((fill.game, worth / 10_000, fill.fill.count / 100))
    return interval(pairs)


def split(fills: Iterable[FillOutcome]) -> Split:
    """Sum some fills up."""
    fills = list(fills)
    spreads = [s for f in fills if (s := f.twice_spread()) is not None]
    marks = {
        h: [(m, f.fill.count) for f in fills if (m := twice_markout(f, h)) is not None] for h in ALL_HORIZONS
    }
    return Split(
        fills=len(fills),
        contracts=Count(sum(f.fill.count for f in fills)),
        fees=Money(sum(f.fill.fee for f in fills)),
        twice_spread=sum(spreads),
        twice_markouts={h: sum(m for m, _ in found) for h, found in marks.items()},
        counted={h: Count(sum(c for _, c in found)) for h, found in marks.items()},
        unpriced=len(fills) - len(spreads),
    )


@attrs.frozen
class Interval:
    """A figure with its 90% jackknife interval over games; without bounds when there are fewer than two games."""

    value: float
    low: float | None
    high: float | None
    games: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:+.2f} (no interval: {self.games} game)"
        return f"{self.value:+.2f} ({self.low:+.2f} .. {self.high:+.2f}, {self.games} games)"


_T95: Final = {
    1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860, 9: 1.833, 10: 1.812,
    12: 1.782, 15: 1.753, 20: 1.725, 30: 1.697, 60: 1.671, 120: 1.658,
}  # fmt: skip
"""Student's t, 95% one-sided, by degrees of freedom; between two rows the upper one, which is wider."""


def interval(pairs: Iterable[tuple[str, float, float]]) -> Interval:
    """Sum of numerators over sum of denominators, jackknifed over the games named first.

    Games whose denominator is 0 (nothing traded) say nothing and are left out.
    """
    games: dict[str, tuple[float, float]] = {}
    for game, top, bottom in pairs:
        before = games.get(game, (0.0, 0.0))
        games[game] = (before[0] + top, before[1] + bottom)
    used = [(top, bottom) for top, bottom in games.values() if bottom]
    top, bottom = sum(t for t, _ in used), sum(b for _, b in used)
    if not bottom:
        return Interval(0.0, None, None, 0)
    n, value = len(used), top / bottom
    if n < 2:
        return Interval(value, None, None, n)
    without = [(top - t) / (bottom - b) for t, b in used]
    mean = sum(without) / n
    error = ((n - 1) / n * sum((w - mean) ** 2 for w in without)) ** 0.5
    reach = error * next(t for df, t in sorted(_T95.items(), reverse=True) if df <= n - 1)
    return Interval(value, value - reach, value + reach, n)


def cents_a_contract(outcome: Outcome) -> Interval:
    """Net result in cents a contract."""
    return interval((m.game, m.net / 10_000, m.contracts / 100) for m in outcome.markets)


def dollars_a_game(outcome: Outcome) -> Interval:
    """Net result in dollars a game that traded."""
    games: dict[str, int] = {}
    for market in outcome.markets:
        if market.fills:
            games[market.game] = games.get(market.game, 0) + market.net
    return interval((game, net / 1e6, 1.0) for game, net in games.items())


@attrs.frozen(kw_only=True)
class Ledger:
    """The net result taken apart, in money that adds up. All but `fees` and `net` are doubled, so that they are whole."""

    twice_spread: int
    """Quotes: how much better than the mid they were filled."""
    twice_crossing: int
    """Exits: how much worse than the mid (negative)."""
    twice_adverse: int
    """What the mid did to quotes within the horizon."""
    twice_inventory: int
    """All the rest: what positions made or lost later, settlement included, and fills in one-sided books."""
    fees: Money
    net: Money


def take_apart(outcome: Outcome, horizon: Micros) -> Ledger:
    """Where the money went, with adverse selection taken up to `horizon` (where the mid then is known)."""
    quotes = split(f for f in outcome.fills if f.is_quote)
    exits = split(f for f in outcome.fills if not f.is_quote)
    adverse = quotes.twice_markouts[horizon]
    gross = outcome.net + outcome.fees
    return Ledger(
        twice_spread=quotes.twice_spread,
        twice_crossing=exits.twice_spread,
        twice_adverse=adverse,
        twice_inventory=2 * gross - quotes.twice_spread - exits.twice_spread - adverse,
        fees=outcome.fees,
        net=outcome.net,
    )


def difference(one: Outcome, other: Outcome) -> "Interval":
    """How much more the one makes, in dollars a game, game by game: what both went through is taken out."""
    games: dict[str, float] = {}
    for sign, outcome in ((1, one), (-1, other)):
        for market in outcome.markets:
            games[market.game] = games.get(market.game, 0.0) + sign * market.net / 1e6
    traded = {m.game for outcome in (one, other) for m in outcome.markets if m.fills}
    return interval((game, games[game], 1.0) for game in sorted(traded))

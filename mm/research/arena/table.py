"""The arena's nights summed up: one row a variant, with 95% intervals clustered by game (a jackknife over games)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from mm.domain.errors import ConfigError

_Z: Final = 1.96
Entry = Mapping[str, Any]


@attrs.frozen
class Ratio:
    """A sum over a sum with its 95% interval; every game one cluster."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} .. {self.high:+.2f})"


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Numerators over denominators, jackknifed over the pairs. All zeros where nothing was traded."""
    top, bottom = sum(t for t, _ in pairs), sum(b for _, b in pairs)
    if not bottom or len(pairs) < 2:
        return Ratio(0.0, 0.0, 0.0)
    without = [(top - t) / (bottom - b) for t, b in pairs if bottom - b]
    mean, n = sum(without) / len(without), len(without)
    error = ((n - 1) / n * sum((w - mean) ** 2 for w in without)) ** 0.5
    value = top / bottom
    return Ratio(value, value - _Z * error, value + _Z * error)


def mean(values: Sequence[float]) -> Ratio:
    """The mean of one number a game."""
    return ratio([(value, 1.0) for value in values])


def games_of(entries: Sequence[Entry], variant: str) -> dict[tuple[int, str], dict[str, Any]]:
    """(seed, game) -> what came of it."""
    return {
        (entry["seed"], game["game"]): game
        for entry in entries
        if entry["variant"] == variant
        for game in entry["games"]
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(entries: Sequence[Entry], variants: Sequence[str]) -> str:
    """Everything in words and Markdown. Only nights that all variants have are compared."""
    nights = set.intersection(*({e["seed"] for e in entries if e["variant"] == v} for v in variants))
    entries = [entry for entry in entries if entry["seed"] in nights]
    if not nights:
        return "no night has been played with all of these variants"
    by_variant = {variant: games_of(entries, variant) for variant in variants}
    games = len(by_variant[variants[0]])
    goals = sum(len(game["goals"]) for game in by_variant[variants[0]].values())
    parts = [
        f"{len(nights)} nights, {games} games, {goals} goals in their windows",
        "",
        _money(by_variant),
        _goals(by_variant),
    ]
    guarded = [v for v in variants if "+guard" in v and v.replace("+guard", "") in by_variant]
    parts += [_compared(by_variant[v.replace("+guard", "")], by_variant[v], v) for v in guarded]
    return "\n".join(parts)


BEGIN: Final = "<!-- arena -->"
END: Final = "<!-- end of arena -->"


def into_page(page: str, text: str) -> str:
    """The page with the table between its marks. Raises `ConfigError` when they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError([f"the page has no {BEGIN} and {END}"])
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def _money(by_variant: Mapping[str, Mapping[tuple[int, str], Any]]) -> str:
    lines = [
        "| strategy | contracts | net, dollars | net, cents a contract (95%) | dollars a game (95%) |"
        " markout 1 s | 5 s | 30 s | 5 min | riskless, dollars |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, games in by_variant.items():
        found = list(games.values())
        cents = ratio([(game["pnl"] / 10_000, game["contracts"] / 100) for game in found])
        dollars = mean([game["pnl"] / 1e6 for game in found])
        marks = [_mark(found, horizon) for horizon in ("1", "5", "30", "300")]
        lines.append(
            f"| {variant} | {sum(g['contracts'] for g in found) / 100:,.0f} | {sum(g['pnl'] for g in found) / 1e6:+,.2f} |"
            f" {cents} | {dollars} | {' | '.join(marks)} | {max(g['riskless'] for g in found) / 1e6:.2f} |"
        )
    lines.append("| not quoting | 0 | 0.00 | 0 | 0 | | | | | 0.00 |")
    return "\n".join(lines) + "\n"


def _mark(games: Sequence[Mapping[str, Any]], horizon: str) -> str:
    twice = sum(game["marks"][horizon][0] for game in games)
    count = sum(game["marks"][horizon][1] for game in games)
    return f"{twice / 200 / count:+.2f}" if count else ""


def _goals(by_variant: Mapping[str, Mapping[tuple[int, str], Any]]) -> str:
    lines = [
        "| strategy | result of fills within 10 s after goals, dollars | their contracts | contracts outside |"
        " goals with a stale quote | last one gone p50, ms | p99, ms | of these ended by a fill |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, games in by_variant.items():
        found = list(games.values())
        goals = [goal for game in found for goal in game["goals"] if goal["stale"]]
        gone = [goal["gone_ms"] for goal in goals if goal["gone_ms"] is not None]
        times = f"{percentile(gone, 0.5):,.0f} | {percentile(gone, 0.99):,.0f}" if gone else "- | -"
        near, outside = (
            sum(g["near_contracts"] for g in found),
            sum(g["contracts"] - g["near_contracts"] for g in found),
        )
        lines.append(
            f"| {variant} | {sum(g['near_result'] for g in found) / 1e6:+,.2f} | {near / 100:,.0f} | {outside / 100:,.0f} |"
            f" {len(goals)} | {times} | {sum(g['filled'] for g in goals)} of {sum(g['stale'] for g in goals)} quotes |"
        )
    return "\n".join(lines) + "\n"


def _compared(plain: Mapping[tuple[int, str], Any], guarded: Mapping[tuple[int, str], Any], name: str) -> str:
    keys = sorted(plain.keys() & guarded.keys())
    alone = sum(plain[k]["near_result"] for k in keys) / 1e6
    kept = sum(guarded[k]["near_result"] for k in keys) / 1e6
    difference = mean([(guarded[k]["near_result"] - plain[k]["near_result"]) / 1e6 for k in keys])
    outside = [
        sum(side[k]["contracts"] - side[k]["near_contracts"] for k in keys) / 100 for side in (plain, guarded)
    ]
    lower = (1 - min(kept, 0.0) / alone) if alone < 0 else 0.0
    net = mean([(guarded[k]["pnl"] - plain[k]["pnl"]) / 1e6 for k in keys])
    return (
        f"{name} against without: losses to fills within 10 s after goals {alone:+.2f} to {kept:+.2f} dollars"
        f" ({lower:.0%} lower; {difference} dollars a game); contracts outside {outside[0]:,.0f} to {outside[1]:,.0f}"
        f" ({outside[1] / outside[0] - 1:+.1%}); net {net} dollars a game.\n"
        if outside[0]
        else f"{name}: nothing was traded without it\n"
    )

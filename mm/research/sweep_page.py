"""A sweep as one HTML page that needs nothing else: verdict, the walk, the best trials, and how each parameter matters."""

from collections.abc import Sequence
from html import escape
from typing import Final

from mm.research.page import STYLE, table_of
from mm.research.plan import Plan
from mm.research.sums import Interval
from mm.research.verdict import TrialResult, Verdict

WIDTH: Final = 1_080
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 22
BEST: Final = 25
MOST_VALUES: Final = 40


def sweep_page(plan: Plan, trials: Sequence[TrialResult], verdict: Verdict) -> str:
    """The page."""
    ranked = sorted(trials, key=lambda trial: (-trial.dollars_a_game.value, trial.number))
    games = len({name for trial in trials for name in trial.games})
    names = list(trials[0].parameters)
    body = [
        f"<h1>Sweep: {len(trials)} parameter sets, {games} games</h1>",
        f"<p>Strategy <b>{escape(plan.settings.strategy)}</b>, fill model <b>{plan.settings.fill_model}</b>, "
        f"{len(plan.recordings)} recordings; {_common(plan)}</p>",
        _tiles(verdict),
        "<h2>Walked forward</h2><p>Chosen as the best on all days before, judged on the days after.</p>",
        _walk(verdict),
        "<h2>All trials, best first: dollars a game with 90% interval</h2>",
        f'<div class="card">{_ranking(ranked)}</div>',
        "<h2>The best trials</h2>",
        table_of(
            ("trial", *names, "net $", "fills", "dollars a game (90%)"),
            (
                (
                    str(t.number),
                    *(escape(t.parameters[n]) for n in names),
                    f"{t.net / 1e6:.2f}",
                    f"{t.fills:,}",
                    escape(str(t.dollars_a_game)),
                )
                for t in ranked[:BEST]
            ),
        ),
        "<h2>Each parameter</h2><p>Mean over all trials with that value, dollars a game; the whiskers are the worst and the best of them.</p>",
        *(f'<div class="card"><h3>{escape(name)}</h3>{_effect(name, trials)}</div>' for name in names),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>mm sweep</title><style>{STYLE}</style><main>{''.join(body)}</main></html>\n"
    )


def _common(plan: Plan) -> str:
    sets = ", ".join(f"{escape(name)}={escape(value)}" for name, value in plan.settings.sets.items())
    return f"in all of them {sets}" if sets else "everything else as usual"


def _tiles(verdict: Verdict) -> str:
    best = verdict.best.dollars_a_game
    tiles = [
        (f"{best.value:+.2f}", f"the best, dollars a game (trial {verdict.best.number})"),
        ("-" if verdict.walked is None else f"{verdict.walked.value:+.2f}", "walked forward, out of sample"),
        (
            "-" if verdict.deflated is None else f"{verdict.deflated:.3f}",
            f"deflated Sharpe ratio, {verdict.tried} trials",
        ),
        (f"{verdict.p_value:.3f}", "p value of the best, random signs"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{big}</b><span>{escape(small)}</span></div>' for big, small in tiles)
        + "</div>"
    )


def _walk(verdict: Verdict) -> str:
    if not verdict.steps:
        return "<p>Not possible: all games are of one day.</p>"
    rows = [
        (
            f"{step.train[0]} .. {step.train[-1]}",
            f"{step.test[0]} .. {step.test[-1]}",
            str(step.chosen),
            escape(str(step.in_sample)),
            escape(str(step.out_of_sample)),
        )
        for step in verdict.steps
    ]
    rows.append(("all steps", "", "", "", escape(str(verdict.walked))))
    return table_of(("chosen on", "judged on", "trial", "in sample", "out of sample"), rows)


class _Scale:
    """Values up and down a picture."""

    def __init__(self, low: float, high: float, height: int) -> None:
        pad = (high - low) * 0.06 or 1.0
        self.low, self.high, self.height = low - pad, high + pad, height

    def y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (self.height - TOP - BOTTOM)

    def frame(self) -> str:
        parts = []
        for i in range(5):
            value = self.low + (self.high - self.low) * i / 4
            y = self.y(value)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e7ec"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
            )
        if self.low < 0 < self.high:
            zero = self.y(0)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#98a2b3"/>'
            )
        return "".join(parts)


def _svg(height: int, inside: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{inside}</svg>'


def _ends(found: Interval) -> tuple[float, float]:
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return low, high


def _ranking(ranked: Sequence[TrialResult]) -> str:
    ends = [_ends(trial.dollars_a_game) for trial in ranked]
    scale = _Scale(min(low for low, _ in ends), max(high for _, high in ends), 300)
    parts = [scale.frame()]
    step = (WIDTH - LEFT - RIGHT) / len(ranked)
    for place, (trial, (low, high)) in enumerate(zip(ranked, ends, strict=True)):
        x = LEFT + (place + 0.5) * step
        value = trial.dollars_a_game.value
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(low):.1f}" y2="{scale.y(high):.1f}" stroke="#d0d5dd" '
            f'stroke-width="{min(step * 0.6, 4):.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{scale.y(value):.1f}" r="{min(step * 0.45, 3):.1f}" fill="{_colour(value)}">'
            f"<title>trial {trial.number}: {escape(str(trial.dollars_a_game))}</title></circle>"
        )
    return _svg(300, "".join(parts))


def _colour(value: float) -> str:
    return "#067647" if value > 0 else "#b42318"


def _effect(name: str, trials: Sequence[TrialResult]) -> str:
    values: dict[str, list[float]] = {}
    for trial in trials:
        values.setdefault(trial.parameters[name], []).append(trial.dollars_a_game.value)
    shown = sorted(values, key=_as_number)
    if len(shown) > MOST_VALUES:  # a range with many values: neighbours together
        size = -(-len(shown) // MOST_VALUES)
        groups = [shown[i : i + size] for i in range(0, len(shown), size)]
        values = {
            g[0] if len(g) == 1 else f"{g[0]}..{g[-1]}": [v for n in g for v in values[n]] for g in groups
        }
        shown = list(values)
    every = [v for found in values.values() for v in found]
    scale = _Scale(min(every), max(every), 200)
    parts, step = [scale.frame()], (WIDTH - LEFT - RIGHT) / len(shown)
    for place, value in enumerate(shown):
        found = values[value]
        mean, x = sum(found) / len(found), LEFT + (place + 0.5) * step
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(min(found)):.1f}" y2="{scale.y(max(found)):.1f}" stroke="#98a2b3"/>'
            f'<circle cx="{x:.1f}" cy="{scale.y(mean):.1f}" r="4" fill="{_colour(mean)}"><title>{len(found)} trials: {mean:+.3f}</title></circle>'
        )
        if place % max(1, len(shown) // 12) == 0:
            parts.append(f'<text x="{x:.1f}" y="194" text-anchor="middle">{escape(value)}</text>')
    return _svg(200, "".join(parts))


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text

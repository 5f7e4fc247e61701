"""The report as one HTML page that needs nothing else: no script, no font, no address. Curves are drawn here, as SVG."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Final

from mm.domain.numbers import Micros, format_price, parse_decimal
from mm.domain.order import Side
from mm.domain.tickers import format_time, to_datetime
from mm.engine.strategies.registry import DEFAULT
from mm.research.outcome import FillOutcome, MarketOutcome, Outcome
from mm.research.report import (
    ADVERSE,
    WIDE,
    dollars,
    gross_of,
    groups,
    per_contract,
    seconds,
    split_fields,
    triggers,
)
from mm.research.sums import (
    ALL_HORIZONS,
    SETTLEMENT,
    Interval,
    cents_a_contract,
    difference,
    dollars_a_game,
    kept,
    split,
)
from mm.research.tape import BookSource, Tape

WIDTH: Final = 1_080
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 24
MOST_MARKETS: Final = 12
"""Markets drawn, those with most fills first."""
MOST_GROUPS: Final = 40

STYLE: Final = """
:root { --ink:#1d2433; --soft:#667085; --line:#e4e7ec; --bid:#1570ef; --ask:#d92d20; --good:#067647; --bad:#b42318; --band:#eef2f6 }
* { box-sizing:border-box }
body { margin:0; font:14px/1.45 system-ui,sans-serif; color:var(--ink); background:#f8f9fb }
main { max-width:1140px; margin:0 auto; padding:24px 16px 64px }
h1 { font-size:22px; margin:0 0 4px } h2 { font-size:17px; margin:32px 0 8px } h3 { font-size:14px; margin:20px 0 4px }
p { margin:4px 0; color:var(--soft) } .card { background:#fff; border:1px solid var(--line); border-radius:8px; padding:12px 14px; margin:10px 0; overflow-x:auto }
.tiles { display:flex; flex-wrap:wrap; gap:10px } .tile { background:#fff; border:1px solid var(--line); border-radius:8px; padding:10px 14px; min-width:150px }
.tile b { display:block; font-size:20px; font-variant-numeric:tabular-nums } .tile > span { color:var(--soft); font-size:12px }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums } th { text-align:right; font-weight:600; color:var(--soft); font-size:12px }
td { text-align:right; border-top:1px solid var(--line); padding:3px 8px } th { padding:3px 8px } td:first-child, th:first-child { text-align:left }
.good { color:var(--good) } .bad { color:var(--bad) } svg { display:block; width:100%; height:auto } svg text { font:11px system-ui,sans-serif; fill:var(--soft) }
.key i { display:inline-block; width:10px; height:10px; border-radius:2px; margin:0 4px 0 12px }
"""


def page(
    outcome: Outcome,
    tape: Tape,
    bounds: Mapping[str, Outcome],
    others: Mapping[str, Outcome] | None = None,
    label: str = DEFAULT,
) -> str:
    """The page. `others` are the strategies beside the first, by label."""
    first, last = tape.span
    options = outcome.options
    latency = options.latency
    body = [
        f"<h1>Back-test: {'profit' if outcome.net > 0 else 'loss' if outcome.net < 0 else 'nothing'} of "
        f"{dollars(abs(outcome.net))} dollars, net of fees</h1>",
        f"<p>{len(tape):,} rows of {len(outcome.markets)} markets, {format_time(first)[:19]} to "
        f"{format_time(last)[:19]} UTC. Fill model <b>{options.model.value}</b>; feed {latency.feed / 1000:g} ms, "
        f"orders {latency.order / 1000:g} ms. {escape(_sources(tape))}</p>",
        _tiles(outcome),
        "<h2>What the fill model is worth</h2>",
        _models({options.model.value: outcome, **bounds}),
        *_strategies(label, outcome, others or {}),
        "<h2>Where the money goes</h2>",
        _split(outcome),
        _money(outcome),
        "<h2>Equity, drawdown, contracts held</h2>",
        f'<div class="card">{_equity(outcome)}</div>',
        *_grouped(outcome),
        "<h2>Markets</h2>",
        _markets(outcome.markets),
        *_charts(outcome),
        f"<h2>How to read this</h2><p>{escape(NOTES)}</p>",
        f"<p>Left out while reading: {escape(_left_out(tape))}. Files: {escape(tape.name)}.</p>",
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>mm back-test</title><style>{STYLE}</style><main>{''.join(body)}</main></html>\n"
    )


NOTES: Final = (
    "Spread captured: how much better than the recorded mid a quote was filled. Markout: how far the mid moved our way "
    f"afterwards (negative: adverse selection). Intervals: {WIDE}; with few games they say little. "
    "Our quotes are not in the recorded book, so nobody reacts to them; touch and through bound what the queue model guesses."
)


def _sources(tape: Tape) -> str:
    names = {
        BookSource.DEPTH: "full depth",
        BookSource.TOUCH: "polled best prices",
        BookSource.PRINTS: "prints only (book made from them)",
    }
    found = [f"{n} of {names[s]}" for s in BookSource if (n := sum(m.source is s for m in tape.markets))]
    without = sum(not m.has_trades for m in tape.markets)
    if without:
        found.append(f"{without} without recorded prints")
    return "Markets: " + ", ".join(found) + "."


def _left_out(tape: Tape) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(tape.notes.items())) or "nothing"


def _sign(value: float, text: str) -> str:
    return f'<span class="{"good" if value > 0 else "bad" if value < 0 else ""}">{text}</span>'


def _tiles(outcome: Outcome) -> str:
    cents = cents_a_contract(outcome)
    tiles = [
        (_sign(outcome.net, dollars(outcome.net)), "net, dollars"),
        (dollars(gross_of(outcome)), "gross, dollars"),
        (dollars(outcome.fees), "fees, dollars"),
        (_sign(cents.value, f"{cents.value:+.2f}"), "net, cents a contract"),
        (f"{outcome.contracts / 100:,.0f}", f"contracts in {len(outcome.fills):,} fills"),
        (dollars(outcome.drawdown), "deepest drawdown, dollars"),
        (", ".join(f"{n} {r}" for r, n in triggers(outcome).items()) or "none", "exits triggered"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{big}</b><span>{escape(small)}</span></div>' for big, small in tiles)
        + "</div>"
    )


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table on a card; the cells are HTML."""
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="card"><table><tr>{top}</tr>{body}</table></div>'


def _models(runs: Mapping[str, Outcome]) -> str:
    names = {"touch": "touch (optimistic bound)", "through": "through (pessimistic bound)"}
    rows = [
        (
            escape(names.get(name, name)),
            f"{len(run.fills):,}",
            f"{run.contracts / 100:,.0f}",
            _sign(run.net, dollars(run.net)),
            escape(str(cents_a_contract(run))),
            escape(str(dollars_a_game(run))),
        )
        for name, run in runs.items()
    ]
    return table_of(
        ("fill model", "fills", "contracts", "net $", "cents a contract (90%)", "dollars a game (90%)"), rows
    )


def _money(outcome: Outcome) -> str:
    def row(name: str, fills: list[FillOutcome]) -> Sequence[str]:
        found = split(fills)
        each = found.contracts / 100 or 1.0
        spread = found.twice_spread / 2 / 1e4
        marks = [per_contract(found, h) for h in ALL_HORIZONS]
        return (
            name,
            f"{found.fills:,}",
            f"{found.contracts / 100:,.0f}",
            _sign(spread, f"{spread / each:+.2f}"),
            *("-" if m is None else _sign(m, f"{m:+.2f}") for m in marks),
            _sign(-found.fees, f"{-found.fees / 1e4 / each:+.2f}"),
        )

    rows = [
        row(name, [f for f in outcome.fills if f.is_quote is wanted])
        for name, wanted in (("quotes that were hit", True), ("exits (we crossed)", False))
    ]
    head = ("cents a contract", "fills", "contracts", "against the mid")
    return table_of((*head, *_MARKS, "fees"), rows)


_MARKS: Final = tuple("to settlement" if h == SETTLEMENT else f"mid after {seconds(h)}" for h in ALL_HORIZONS)


def _grouped(outcome: Outcome) -> Iterable[str]:
    titles = {
        "market": "Quote fills by market",
        "game": "Quote fills by game",
        "side": "Quote fills by side",
        "hour": "Quote fills by hour (UTC)",
        "queue_place": "Quote fills by place in the queue (contracts displayed at the price when the quote came)",
    }
    head = ("cents a contract", "fills", "contracts", "spread captured", *_MARKS, "fees")
    sure = (f"kept after {seconds(ADVERSE)} (90%)", "kept at settlement (90%)")
    for way, found in groups(outcome).items():
        rows = []
        for key, fills in list(found.items())[:MOST_GROUPS]:
            sums = split(fills)
            each = sums.contracts / 100 or 1.0
            marks = [per_contract(sums, h) for h in ALL_HORIZONS]
            rows.append(
                (
                    escape(key),
                    f"{sums.fills:,}",
                    f"{sums.contracts / 100:,.0f}",
                    f"{sums.twice_spread / 2 / 1e4 / each:+.2f}",
                    *("-" if m is None else _sign(m, f"{m:+.2f}") for m in marks),
                    f"{-sums.fees / 1e4 / each:+.2f}",
                    *(_short(kept(fills, h)) for h in (ADVERSE, SETTLEMENT)),
                )
            )
        if rows:
            yield f"<h2>{titles[way]}</h2>"
            yield table_of((*head, *sure), rows)
            if len(found) > MOST_GROUPS:
                yield f"<p>{len(found) - MOST_GROUPS} more are in the JSON only.</p>"


def _short(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.2f} (1 game)"
    return f"{found.value:+.2f} ({found.low:+.2f} .. {found.high:+.2f})"


def _split(outcome: Outcome) -> str:
    names = {
        "spread_captured": "spread captured by quotes",
        f"adverse_selection_{seconds(ADVERSE)}": f"adverse selection: the mid's move within {seconds(ADVERSE)} of a quote fill",
        "crossing_at_exits": "paid to cross at exits",
        "inventory": "inventory: all later moves, settlement included",
        "fees": "fees",
        "net": "net result",
    }
    rows = [
        (names[key], _sign(money := parse_decimal(text, 6), dollars(money)))
        for key, text in split_fields(outcome).items()
    ]
    return table_of(("of the result", "dollars"), rows)


def _strategies(label: str, outcome: Outcome, others: Mapping[str, Outcome]) -> Iterable[str]:
    if not others:
        return
    rows = [
        (
            escape(name),
            f"{len(run.fills):,}",
            f"{run.contracts / 100:,.0f}",
            _sign(run.net, dollars(run.net)),
            dollars(run.drawdown),
            escape(str(cents_a_contract(run))),
            "-" if run is outcome else escape(str(difference(run, outcome))),
        )
        for name, run in ((label, outcome), *others.items())
    ]
    yield "<h2>Strategies side by side</h2>"
    yield table_of(
        (
            "strategy",
            "fills",
            "contracts",
            "net $",
            "drawdown $",
            "cents a contract (90%)",
            "more than the first, dollars a game (90%)",
        ),
        rows,
    )


def _markets(markets: Sequence[MarketOutcome]) -> str:
    rows = [
        (
            escape(m.ticker),
            f"{len(m.fills):,}",
            f"{m.contracts / 100:,.0f}",
            _sign(m.gross, dollars(m.gross)),
            dollars(m.fees),
            _sign(m.net, dollars(m.net)),
            f"{m.max_abs_position / 100:g}",
            f"{m.final_position / 100:g}",
            f"{format_price(m.settlement_price)} ({m.settlement_source.value})",
        )
        for m in sorted(markets, key=lambda m: m.net)
        if m.fills
    ]
    head = (
        "market",
        "fills",
        "contracts",
        "gross $",
        "fees $",
        "net $",
        "largest position",
        "at the end",
        "settled at",
    )
    return table_of(head, rows) if rows else "<p>No market was traded.</p>"


# --- curves -----------------------------------------------------------------------------------------------------------


class _Axes:
    """Maps moments and values onto a picture of `height` and draws its frame."""

    def __init__(
        self, times: tuple[int, int], values: tuple[float, float], height: int, top: int = 0
    ) -> None:
        self.first, self.last = times[0], max(times[1], times[0] + 1)
        low, high = values
        pad = (high - low) * 0.06 or 1.0
        self.low, self.high = low - pad, high + pad
        self.height, self.top = height, top

    def x(self, at: int) -> float:
        return LEFT + (at - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        inner = self.height - TOP - BOTTOM
        return self.top + TOP + (self.high - value) / (self.high - self.low) * inner

    def frame(self, unit: Callable[[float], str]) -> str:
        parts = []
        for i in range(5):
            value = self.low + (self.high - self.low) * i / 4
            y = self.y(value)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e7ec"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(unit(value))}</text>'
            )
        wide = self.last - self.first > 36 * 3_600_000_000
        for i in range(7):
            at = self.first + (self.last - self.first) * i // 6
            text = to_datetime(Micros(at)).strftime("%m-%d %H:%M" if wide else "%H:%M:%S")
            anchor = "start" if i == 0 else "end" if i == 6 else "middle"
            parts.append(
                f'<text x="{self.x(at):.1f}" y="{self.top + self.height - 6}" text-anchor="{anchor}">{text}</text>'
            )
        return "".join(parts)

    def steps(self, points: Iterable[tuple[int, float | None]], colour: str, width: float = 1.2) -> str:
        """A line that jumps where the value changes and is broken where there is none."""
        path: list[str] = []
        last: float | None = None
        for at, value in points:
            if value is None:
                last = None
                continue
            x, y = self.x(at), self.y(value)
            path.append(f"M{x:.1f} {y:.1f}" if last is None else f"H{x:.1f}V{y:.1f}")
            last = value
        return (
            f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
            if path
            else ""
        )


def _svg(height: int, inside: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{inside}</svg>'


def _equity(outcome: Outcome) -> str:
    points: list[tuple[int, float | None]] = [(int(at), value / 1e6) for at, value in outcome.equity]
    falls: list[tuple[int, float | None]] = []
    height = 0.0
    for at, value in outcome.equity:
        height = max(height, value / 1e6)
        falls.append((int(at), value / 1e6 - height))
    held: list[tuple[int, float | None]] = [(int(at), count / 100) for at, count in outcome.held]
    times = (points[0][0], points[-1][0])
    colour = "#067647" if outcome.equity[-1][1] >= 0 else "#b42318"
    parts, top = [], 0
    for curve, height_, name, line in (
        (points, 240, "equity, dollars", colour),
        (falls, 110, "drawdown, dollars", "#b54708"),
        (held, 110, "contracts held, all markets", "#475467"),
    ):
        values = [value for _, value in curve if value is not None] + [0.0]
        axes = _Axes(times, (min(values), max(values)), height_, top)
        zero = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axes.y(0):.1f}" y2="{axes.y(0):.1f}" stroke="#98a2b3"/>'
        label = f'<text x="{WIDTH - RIGHT - 6}" y="{top + TOP + 12}" text-anchor="end">{name}</text>'
        unit = "{:.0f}" if max(values) - min(values) > 20 else "{:.2f}"
        parts += [axes.frame(unit.format), zero, axes.steps(curve, line, 1.6), label]
        top += height_
    return _svg(top, "".join(parts))


def _charts(outcome: Outcome) -> Iterable[str]:
    chosen = sorted((m for m in outcome.markets if m.fills and m.samples), key=lambda m: -len(m.fills))
    if chosen:
        yield (
            '<h2>Quotes over the book</h2><p class="key"><i style="background:#98a2b3"></i>recorded best bid and ask'
            '<i style="background:#1570ef"></i>our bid, and buys<i style="background:#d92d20"></i>our ask, and sells; '
            "filled triangles: quotes that were hit, hollow: exits</p>"
        )
    for market in chosen[:MOST_MARKETS]:
        yield f'<div class="card"><h3>{escape(market.ticker)}: net {dollars(market.net)} dollars</h3>{_market(market)}</div>'
    if len(chosen) > MOST_MARKETS:
        yield f"<p>{len(chosen) - MOST_MARKETS} more markets are in the table only.</p>"


def _market(market: MarketOutcome) -> str:
    samples = market.samples
    prices = [p for s in samples for p in (s.bid, s.ask, s.our_bid, s.our_ask) if p is not None]
    prices += [f.fill.price for f in market.fills]
    times = (samples[0].at, max(samples[-1].at, market.fills[-1].fill.ts))
    book = _Axes(times, (min(prices) / 100, max(prices) / 100), 300)

    def line(pick: Callable[[int], int | None]) -> list[tuple[int, float | None]]:
        return [(s.at, None if (p := pick(i)) is None else p / 100) for i, s in enumerate(samples)]

    parts = [
        book.frame(lambda v: f"{v:.1f}c"),
        book.steps(line(lambda i: samples[i].bid), "#98a2b3", 0.9),
        book.steps(line(lambda i: samples[i].ask), "#98a2b3", 0.9),
        book.steps(line(lambda i: samples[i].our_bid), "#1570ef"),
        book.steps(line(lambda i: samples[i].our_ask), "#d92d20"),
        *(_marker(book, f) for f in market.fills),
    ]
    nets = [s.net / 100 for s in samples] + [0.0]
    held = _Axes(times, (min(nets), max(nets)), 110, 300)
    positions: list[tuple[int, float | None]] = [(int(market.samples[0].at), 0.0)]
    positions += [(int(f.fill.ts), f.net_after / 100) for f in market.fills]
    parts += [held.frame(lambda v: f"{v:.0f}"), held.steps(positions, "#475467", 1.4)]
    return _svg(410, "".join(parts))


def _marker(axes: _Axes, outcome: FillOutcome) -> str:
    fill = outcome.fill
    x, y = axes.x(fill.ts), axes.y(fill.price / 100)
    up = fill.side is Side.BID
    colour = "#1570ef" if up else "#d92d20"
    tip = f"M{x:.1f} {y:.1f}l-4 {8 if up else -8}h8z"
    fills = colour if outcome.is_quote else "#fff"
    text = f"{format_time(fill.ts)[11:23]} {fill.side.value} {fill.count / 100:g} at {fill.price / 100:g}c"
    return f'<path d="{tip}" fill="{fills}" stroke="{colour}"><title>{text}</title></path>'

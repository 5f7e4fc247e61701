"""The result of a back-test as a JSON document and as lines for people. Pages are `page`'s.

Decimal strings as in `mm backtest --trades`: money 6 decimals, price 4, count 2. Intervals are floats: they are estimates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mm.domain.numbers import SECOND, Micros, Money, format_count, format_decimal, format_money, format_price
from mm.domain.tickers import format_time, to_datetime
from mm.engine.parameters import PARAMETERS, StrategyParameters
from mm.engine.strategies.registry import DEFAULT
from mm.research.outcome import HORIZONS, FillOutcome, MarketOutcome, Outcome
from mm.research.sums import (
    ALL_HORIZONS,
    SETTLEMENT,
    Interval,
    Split,
    cents_a_contract,
    difference,
    dollars_a_game,
    kept,
    split,
    take_apart,
)
from mm.research.tape import Tape

ADVERSE: Final = HORIZONS[2]
"""Up to here what the mid does to a quote counts as adverse selection, later as inventory."""
PLACES: Final = (0, 100, 1_000, 10_000)
"""Bounds of the groups by place in the queue, in contracts."""
WIDE: Final = "90% jackknife interval, one game (both markets of a match) left out at a time"


def half_money(twice: int) -> str:
    """Doubled money as dollars, 6 decimals, halves away from zero."""
    return format_decimal((abs(twice) + 1) // 2 * (1 if twice >= 0 else -1), 6)


def seconds(horizon: Micros) -> str:
    """A horizon's name: `1s`, `300s`, `settlement`."""
    return "settlement" if horizon == SETTLEMENT else f"{horizon // SECOND}s"


def group(fills: Sequence[FillOutcome]) -> dict[str, Any]:
    """The split of some fills, as JSON."""
    found = split(fills)
    return {
        "fills": found.fills,
        "contracts": format_count(found.contracts),
        "spread_captured": half_money(found.twice_spread),
        "markouts": {
            seconds(h): {
                "money": half_money(found.twice_markouts[h]),
                "contracts": format_count(found.counted[h]),
                "cents_per_contract": per_contract(found, h),
            }
            for h in ALL_HORIZONS
        },
        "fees": format_money(found.fees),
        "kept_cents_per_contract": {
            seconds(h): interval_fields(kept(fills, h)) for h in (ADVERSE, SETTLEMENT)
        },
        "fills_in_one_sided_books": found.unpriced,
    }


def per_contract(found: Split, horizon: Micros) -> float | None:
    """A markout in cents a contract; None when none is known."""
    counted = found.counted[horizon]
    return round(found.twice_markouts[horizon] / 2 / 100 / counted, 4) if counted else None


def groups(outcome: Outcome) -> dict[str, dict[str, list[FillOutcome]]]:
    """The quote fills by market, game, side, hour (UTC) and place in the queue."""
    ways: dict[str, Callable[[MarketOutcome, FillOutcome], str]] = {
        "market": lambda m, f: m.ticker,
        "game": lambda m, f: m.game,
        "side": lambda m, f: f.fill.side.value,
        "hour": lambda m, f: to_datetime(f.fill.ts).strftime("%H"),
        "queue_place": lambda m, f: queue_place(f),
    }
    found: dict[str, dict[str, list[FillOutcome]]] = {}
    for way, key in ways.items():
        kept: dict[str, list[FillOutcome]] = {}
        for market in outcome.markets:
            for fill in market.fills:
                if fill.is_quote:
                    kept.setdefault(key(market, fill), []).append(fill)
        found[way] = dict(sorted(kept.items()))
    return found


def queue_place(fill: FillOutcome) -> str:
    """How many contracts stood at its price when the quote came to it, in words that sort."""
    if fill.behind is None:
        return "unknown"
    behind = fill.behind / 100
    for number, bound in enumerate(PLACES):
        if behind <= bound:
            return f"{number}: first at its price" if not bound else f"{number}: behind up to {bound:,}"
    return f"{len(PLACES)}: behind more than {PLACES[-1]:,}"


def document(
    outcome: Outcome,
    tape: Tape,
    bounds: Mapping[str, Outcome],
    others: Mapping[str, Outcome] | None = None,
    label: str = DEFAULT,
) -> dict[str, Any]:
    """The whole result. `others` are the strategies beside the first, by label."""
    first, last = tape.span
    options = outcome.options
    return {
        "schema": 1,
        "kind": "recordings",
        "fill_model": options.model.value,
        "recordings": tape.name.split(", "),
        "first": format_time(first),
        "last": format_time(last),
        "rows": len(tape),
        "left_out": tape.notes,
        "parameters": parameters(outcome),
        "latency_ms": {
            "feed": options.latency.feed / 1_000,
            "order": options.latency.order / 1_000,
            "jitter": options.latency.jitter / 1_000,
        },
        "trade_share": options.trade_share,
        "seed": options.seed,
        "totals": totals(outcome),
        "bounds": {name: totals(found) for name, found in bounds.items()},
        "strategy": label,
        "strategies": {
            name: totals(found)
            | {
                "parameters": parameters(found),
                "dollars_per_game_more": interval_fields(difference(found, outcome)),
            }
            for name, found in (others or {}).items()
        },
        "split": split_fields(outcome),
        "exits": group([f for f in outcome.fills if not f.is_quote]),
        "quotes": group([f for f in outcome.fills if f.is_quote]),
        "by": {
            way: {key: group(fills) for key, fills in found.items()} for way, found in groups(outcome).items()
        },
        "equity": [[format_time(at), format_money(value)] for at, value in outcome.equity],
        "held": [[format_time(at), format_count(count)] for at, count in outcome.held],
        "markets": [market_fields(m) for m in sorted(outcome.markets, key=lambda m: m.ticker)],
    }


def split_fields(outcome: Outcome) -> dict[str, str]:
    """Where the money went, in dollars that add up to the net result."""
    found = take_apart(outcome, ADVERSE)
    return {
        "spread_captured": half_money(found.twice_spread),
        f"adverse_selection_{seconds(ADVERSE)}": half_money(found.twice_adverse),
        "crossing_at_exits": half_money(found.twice_crossing),
        "inventory": half_money(found.twice_inventory),
        "fees": format_money(Money(-found.fees)),
        "net": format_money(found.net),
    }


def parameters(outcome: Outcome) -> dict[str, str]:
    """The parameters that differ from the defaults, as text."""
    mine, usual = outcome.options.parameters, StrategyParameters()
    return {
        row.name: str(getattr(mine, row.attribute))
        for row in PARAMETERS
        if getattr(mine, row.attribute) != getattr(usual, row.attribute)
    }


def totals(outcome: Outcome) -> dict[str, Any]:
    """What a run came to, in a few figures."""
    settled = sum(m.settlement_pnl for m in outcome.markets)
    return {
        "markets_traded": sum(bool(m.fills) for m in outcome.markets),
        "fills": len(outcome.fills),
        "contracts": format_count(outcome.contracts),
        "gross": format_money(gross_of(outcome)),
        "fees": format_money(outcome.fees),
        "net": format_money(outcome.net),
        "settlement_pnl": format_money(Money(settled)),
        "drawdown": format_money(outcome.drawdown),
        "cents_per_contract": interval_fields(cents_a_contract(outcome)),
        "dollars_per_game": interval_fields(dollars_a_game(outcome)),
        "triggers": triggers(outcome),
        "decisions": outcome.decisions,
        "orders": outcome.orders,
        "refusals": outcome.refusals,
    }


def gross_of(outcome: Outcome) -> Money:
    """Before fees, over all markets."""
    return Money(sum(m.gross for m in outcome.markets))


def triggers(outcome: Outcome) -> dict[str, int]:
    """Flattens by reason."""
    found: dict[str, int] = {}
    for market in outcome.markets:
        for reason, count in market.triggers.items():
            found[reason.value] = found.get(reason.value, 0) + count
    return dict(sorted(found.items()))


def interval_fields(found: Interval) -> dict[str, Any]:
    """An interval as JSON."""
    return {
        "value": round(found.value, 4),
        "low": None if found.low is None else round(found.low, 4),
        "high": None if found.high is None else round(found.high, 4),
        "games": found.games,
        "method": WIDE,
    }


def market_fields(market: MarketOutcome) -> dict[str, Any]:
    """One market, with its fills."""
    return {
        "ticker": market.ticker,
        "game": market.game,
        "settlement_price": format_price(market.settlement_price),
        "settlement_source": market.settlement_source.value,
        "gross": format_money(market.gross),
        "fees": format_money(market.fees),
        "net": format_money(market.net),
        "settlement_pnl": format_money(market.settlement_pnl),
        "max_abs_position": format_count(market.max_abs_position),
        "final_position_before_settlement": format_count(market.final_position),
        "triggers": {reason.value: count for reason, count in market.triggers.items()},
        "quotes": group([f for f in market.fills if f.is_quote]),
        "fills": [fill_fields(f) for f in market.fills],
    }


def fill_fields(outcome: FillOutcome) -> dict[str, Any]:
    """One fill."""
    fill = outcome.fill
    return {
        "ts": format_time(fill.ts),
        "side": fill.side.value,
        "price": format_price(fill.price),
        "count": format_count(fill.count),
        "fee": format_money(fill.fee),
        "kind": "quote" if outcome.is_quote else "flatten",
        "net_after": format_count(outcome.net_after),
        "behind": None if outcome.behind is None else format_count(outcome.behind),
        "spread_captured": _maybe(outcome.twice_spread()),
        "markouts": {seconds(h): _maybe(outcome.twice_markout(h)) for h in HORIZONS},
        "to_settlement": _maybe(outcome.twice_to_settlement()),
    }


def _maybe(twice: int | None) -> str | None:
    return None if twice is None else half_money(twice)


# --- for people -------------------------------------------------------------------------------------------------------


def dollars(money: int) -> str:
    """Money with two decimals, halves away from zero."""
    return format_decimal((abs(money) + 5_000) // 10_000 * (1 if money >= 0 else -1), 2)


def summary(
    outcome: Outcome,
    tape: Tape,
    bounds: Mapping[str, Outcome],
    others: Mapping[str, Outcome] | None = None,
    label: str = DEFAULT,
) -> str:
    """A few lines and a table."""
    first, last = tape.span
    quotes = split([f for f in outcome.fills if f.is_quote])
    latency = outcome.options.latency
    lines = [
        f"back-test: {len(tape):,} rows, {len(outcome.markets)} markets, {format_time(first)[:19]} to "
        f"{format_time(last)[:19]}; fill model {outcome.options.model.value}, "
        f"feed {latency.feed / 1000:g} ms + order {latency.order / 1000:g} ms"
    ]
    if tape.notes:
        lines.append(
            "left out: " + ", ".join(f"{count} {what}" for what, count in sorted(tape.notes.items()))
        )
    lines += ["", _table(outcome)]
    lines += ["net, cents a contract: " + str(cents_a_contract(outcome)) + f"   [{WIDE}]"]
    lines += ["net, dollars a game:   " + str(dollars_a_game(outcome))]
    if quotes.contracts:
        spread = quotes.twice_spread / 2 / 100 / quotes.contracts
        marks = ", ".join(
            f"{seconds(h)} {m:+.2f}" for h in HORIZONS if (m := per_contract(quotes, h)) is not None
        )
        lines.append(
            f"quote fills, cents a contract: spread captured {spread:+.2f}; mid afterwards {marks}; "
            f"fees {-quotes.fees / 100 / quotes.contracts:+.2f}"
        )
    for name, found in bounds.items():
        lines.append(
            f"bound {name}: net {dollars(found.net)} dollars, {cents_a_contract(found)} c a contract, {len(found.fills)} fills"
        )
    if others:
        lines += ["", *_side_by_side(label, outcome, others)]
    if outcome.refusals:
        lines.append("refused: " + ", ".join(f"{n} {what}" for what, n in sorted(outcome.refusals.items())))
    return "\n".join(lines) + "\n"


def _side_by_side(label: str, outcome: Outcome, others: Mapping[str, Outcome]) -> list[str]:
    width = max(len(name) for name in (label, *others))
    rows = [
        f"{'strategy':{width}} {'fills':>6} {'net $':>10}  cents a contract; more than {label}, dollars a game"
    ]
    for name, found in ((label, outcome), *others.items()):
        more = "" if found is outcome else f"; {difference(found, outcome)}"
        rows.append(
            f"{name:{width}} {len(found.fills):>6} {dollars(found.net):>10}  {cents_a_contract(found)}{more}"
        )
    return rows


def _table(outcome: Outcome) -> str:
    traded = [m for m in outcome.markets if m.fills]
    width = max([len(m.ticker) for m in traded] + [12])
    head = f"{'market':{width}} {'fills':>6} {'contr.':>9} {'gross $':>10} {'fees $':>8} {'net $':>10} {'settled':>8}  triggers"
    rows = [head]
    for m in sorted(traded, key=lambda m: m.ticker):
        why = ", ".join(f"{reason.value} {n}" for reason, n in m.triggers.items()) or "-"
        rows.append(
            f"{m.ticker:{width}} {len(m.fills):>6} {m.contracts / 100:>9.2f} {dollars(m.gross):>10} {dollars(m.fees):>8}"
            f" {dollars(m.net):>10} {format_price(m.settlement_price):>8}  {why}"
        )
    idle = len(outcome.markets) - len(traded)
    rows.append(
        f"{'total':{width}} {len(outcome.fills):>6} {outcome.contracts / 100:>9.2f}"
        f" {dollars(gross_of(outcome)):>10} {dollars(outcome.fees):>8} {dollars(outcome.net):>10}"
        + (f"  ({idle} more markets without a fill)" if idle else "")
    )
    return "\n".join(rows)

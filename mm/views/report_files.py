"""A report as text, JSON and CSV. Money is in dollars with 6 decimals, prices with 4, counts with 2, times in UTC."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from mm.domain.numbers import Money, format_count, format_decimal, format_money, format_price
from mm.domain.tickers import format_time
from mm.ledger.reader import LedgerReader
from mm.ledger.rows import FillRow, TriggerRow
from mm.views import report as reports
from mm.views.report import Figures, Realization, Report, Span

_COLUMNS: Final = ("fills", "contracts", "realized", "settlement", "fees", "net", "unrealized", "position")


FILL_COLUMNS: Final = (
    "time",
    "market",
    "side",
    "price",
    "contracts",
    "fee",
    "liquidity",
    "kind",
    "order_id",
    "trade_id",
    "client_order_id",
    "session",
)
REALIZATION_COLUMNS: Final = (
    "time",
    "market",
    "position",
    "contracts",
    "entry_price",
    "exit_price",
    "entry_time",
    "held_seconds",
    "gross",
    "fees",
    "net",
    "how",
)
TRIGGER_COLUMNS: Final = ("time", "market", "reason", "position", "mark", "session")


def report_text(report: Report) -> str:
    """For the terminal."""
    parts = [f"Account {report.account}{_span_text(report.span)}", ""]
    parts += _table("market", report.markets, _market_notes(report))
    parts += ["", *_table("game", report.games)]
    parts += ["", *_table("day", {str(day): figures for day, figures in report.days.items()})]
    parts += ["", *_table("", {"total": report.total})]
    if report.total.position or any(f.position for f in report.markets.values()):
        parts += ["", "Open positions are valued at the price of our last fill."]
    if report.archived:
        files = ", ".join(sorted(set(report.archived.values())))
        parts += ["", f"* single fills are in {files}: `mm report --ledger FILE`"]
    return "\n".join(parts) + "\n"


def _span_text(span: Span) -> str:
    since = f" since {span.since}" if span.since else ""
    return since + (f" until {span.until}" if span.until else "")


def _market_notes(report: Report) -> dict[str, str]:
    notes = {str(t): f"settled at {format_price(value)}" for t, value in report.values.items()}
    return notes | {str(t): f"{notes.get(t, '')} *".strip() for t in report.archived}


def _table(name: str, rows: Mapping[Any, Figures], notes: Mapping[str, str] | None = None) -> list[str]:
    width = max([len(name), *(len(str(key)) for key in rows)], default=0)
    lines = [f"{name:{width}} " + " ".join(f"{column:>12}" for column in _COLUMNS)]
    for key, figures in rows.items():
        note = (notes or {}).get(str(key), "")
        lines.append(
            f"{key!s:{width}} "
            + " ".join(f"{c:>12}" for c in _short(figures))
            + (f"  {note}" if note else "")
        )
    return lines


def _short(figures: Figures) -> list[str]:
    money = (figures.realized, figures.settlement, figures.fees, figures.net, figures.unrealized)
    return [
        str(figures.fills),
        format_count(figures.contracts),
        *(_four_decimals(each) for each in money),
        format_count(figures.position),
    ]


def _four_decimals(money: Money) -> str:
    text = format_money(Money(round(money, -2)))
    return text[:-2]


def report_json(report: Report) -> bytes:
    """The report as one document."""
    document = {
        "account": report.account,
        "since": report.span.since and report.span.since.isoformat(),
        "until": report.span.until and report.span.until.isoformat(),
        "markets": {
            t: _exact(f)
            | {"game": reports.game_of(t)}
            | ({"settlement_value": format_price(report.values[t])} if t in report.values else {})
            | ({"archive": report.archived[t]} if t in report.archived else {})
            for t, f in report.markets.items()
        },
        "games": {name: _exact(f) for name, f in report.games.items()},
        "days": {day.isoformat(): _exact(f) for day, f in report.days.items()},
        "total": _exact(report.total),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def _exact(figures: Figures) -> dict[str, str | int]:
    return {
        "fills": figures.fills,
        "contracts": format_count(figures.contracts),
        "realized": format_money(figures.realized),
        "settlement": format_money(figures.settlement),
        "fees": format_money(figures.fees),
        "net": format_money(figures.net),
        "unrealized": format_money(figures.unrealized),
        "position": format_count(figures.position),
    }


def write_csv(folder: Path, report: Report, reader: LedgerReader) -> list[Path]:
    """Write the tables and the three logs (fills, realizations, triggers) into `folder`. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    account, span = report.account, report.span
    tables: dict[str, Mapping[Any, Figures]] = {
        "market": report.markets,
        "game": report.games,
        "day": report.days,
    }
    written = [
        _write(
            folder / f"{name}s.csv",
            (name, *_COLUMNS),
            ((key, *(_exact(figures)[column] for column in _COLUMNS)) for key, figures in rows.items()),
        )
        for name, rows in tables.items()
    ]
    fills = map(_fill_row, reports.fills(reader, account, span))
    closed = map(_realization_row, reports.realizations(reader, account, span))
    triggers = map(_trigger_row, reports.triggers(reader, account, span))
    written.append(_write(folder / "fills.csv", FILL_COLUMNS, fills))
    written.append(_write(folder / "realizations.csv", REALIZATION_COLUMNS, closed))
    written.append(_write(folder / "triggers.csv", TRIGGER_COLUMNS, triggers))
    return written


def _fill_row(row: FillRow) -> Sequence[str]:
    fill = row.fill
    return (
        format_time(fill.ts),
        fill.ticker,
        fill.side.value,
        format_price(fill.price),
        format_count(fill.count),
        format_money(fill.fee),
        fill.liquidity.value,
        row.kind.value,
        fill.order_id,
        fill.trade_id,
        fill.client_order_id or "",
        row.session,
    )


def _realization_row(row: Realization) -> Sequence[str]:
    part = row.part
    return (
        format_time(row.at),
        row.ticker,
        "long" if row.sign > 0 else "short",
        format_count(part.count),
        format_price(part.entry_price),
        format_price(part.exit_price),
        format_time(part.entry_ts),
        format_decimal(part.hold, 6),
        format_money(part.gross),
        format_money(part.fee),
        format_money(part.net),
        row.how,
    )


def _trigger_row(row: TriggerRow) -> Sequence[str]:
    return (
        format_time(row.at),
        row.ticker or "all",
        row.reason,
        format_count(row.net),
        "" if row.mark is None else format_price(row.mark),
        row.session,
    )


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path

"""`mm backtest`: reads prints, runs the engine's back-test over them, writes the result and a summary.

The only task without trio: it is a plain loop over files. Neither environment nor `.env` is looked at.
"""

import csv
import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from mm.domain.errors import ConfigError, MMError
from mm.domain.fill import Trade, TradeId
from mm.domain.numbers import (
    DOLLAR,
    Price,
    format_count,
    format_decimal,
    format_money,
    format_price,
    parse_count,
    parse_price,
)
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import format_time, parse_time
from mm.engine.backtest.legacy import run_legacy
from mm.engine.backtest.prints import in_order
from mm.engine.backtest.reference import run_reference
from mm.engine.backtest.result import BacktestFill, MarketResult
from mm.engine.parameters import StrategyParameters, build_parameters

PROFILES: Final[dict[str, Callable[[Sequence[Trade], StrategyParameters, Price | None], MarketResult]]] = {
    "reference": run_reference,
    "legacy": run_legacy,
}
FILL_MODELS: Final = ("queue-share",)
SETTABLE: Final = (
    "BASE_SPREAD",
    "SIZE_PER_FILL",
    "NEUTRAL_ZONE_CONTRACTS",
    "DURATION_WEIGHTED_LIMIT",
    "MAE_FAILSAFE_CENTS",
    "MAE_ACTIVATION_WINDOW_SEC",
    "QUEUE_SHARE",
    "MAX_INVENTORY_PER_MARKET",
    "MAX_INVENTORY_VALUE",
)
COLUMNS: Final = ("ticker", "created_time", "price", "count", "taker_side", "trade_id")
_TAKER_SIDES: Final = {"yes": Side.BID, "no": Side.ASK}


class BadTradesFile(MMError):
    """A file of prints cannot be read; the message names the file, and the line where there is one."""


# --- reading ---------------------------------------------------------------------------------------------------------


def read_trades(path: Path) -> dict[MarketTicker, list[Trade]]:
    """The prints of a CSV file, plain or gzip, by ticker; rows without a taker side are left out.

    A ticker all of whose rows were left out is there with an empty list.

    Raises:
        BadTradesFile: Missing, damaged, or a row that makes no sense.
    """
    markets: dict[MarketTicker, list[Trade]] = {}
    try:
        with _open_text(path) as file:
            for ticker, trade in _parse_rows(path, csv.reader(file, strict=True)):
                found = markets.setdefault(ticker, [])
                if trade is not None:
                    found.append(trade)
    except OSError as error:
        # gzip's own complaints are OSErrors without a strerror.
        raise BadTradesFile(f"{path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise BadTradesFile(f"{path}: damaged gzip data: {error}") from error
    return markets


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if is_gzip:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("r", encoding="utf-8-sig", newline="")


def _parse_rows(path: Path, rows: Any) -> Iterator[tuple[MarketTicker, Trade | None]]:
    """Rows of a `csv.reader`, whose line number says where an error is."""
    try:
        header = next(rows, None)
        if header is None:
            raise BadTradesFile(f"{path}: empty file; expected the columns {', '.join(COLUMNS)}")
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise BadTradesFile(f"{path}, line 1: missing columns: {', '.join(missing)}")
        places = [header.index(name) for name in COLUMNS]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(f"{len(row)} fields, the header has {len(header)}")
            yield _parse_row([row[place] for place in places])
    except UnicodeDecodeError as error:
        raise BadTradesFile(f"{path}, after line {rows.line_num}: not UTF-8: {error.reason}") from error
    except (ValueError, csv.Error) as error:
        raise BadTradesFile(f"{path}, line {rows.line_num}: {error}") from error


def _parse_row(fields: list[str]) -> tuple[MarketTicker, Trade | None]:
    ticker, created_time, price_text, count_text, taker_side, trade_id = (text.strip() for text in fields)
    if not ticker:
        raise ValueError("no ticker")
    if not taker_side:
        return MarketTicker(ticker), None
    if taker_side not in _TAKER_SIDES:
        raise ValueError(f"taker_side is {taker_side!r}; allowed: yes, no or empty")
    if not trade_id:
        raise ValueError("no trade_id")
    price, count = parse_price(price_text), parse_count(count_text)
    if not 0 < price < DOLLAR:
        raise ValueError(f"price {price_text} is not between 0 and 1 dollar")
    if count <= 0:
        raise ValueError(f"count {count_text} is not above 0")
    trade = Trade(
        trade_id=TradeId(trade_id),
        ticker=MarketTicker(ticker),
        price=price,
        count=count,
        taker_side=_TAKER_SIDES[taker_side],
        ts=parse_time(created_time),
    )
    return trade.ticker, trade


# --- the run ---------------------------------------------------------------------------------------------------------


def parse_result(text: str) -> Price:
    """`yes`, `no` or a price in dollars as a settlement price. Raises `ValueError`."""
    if text in ("yes", "no"):
        return DOLLAR if text == "yes" else Price(0)
    try:
        value = parse_price(text)
    except ValueError:
        value = None
    if value is None or not 0 <= value <= DOLLAR:
        raise ValueError(f"--result {text!r}: allowed: yes, no or a price from 0 to 1 dollar, 4 decimals")
    return value


def parse_sets(sets: Iterable[str]) -> StrategyParameters:
    """The profile's parameters with `NAME=VALUE` texts applied; of one name the last counts.

    Raises:
        ConfigError: With every problem.
    """
    texts: dict[str, str] = {}
    problems: list[str] = []
    for text in sets:
        name, equals, value = text.partition("=")
        if equals:
            texts[name.strip()] = value
        else:
            problems.append(f"--set {text!r}: expected NAME=VALUE")
    try:
        parameters = build_parameters(texts, SETTABLE)
    except ConfigError as error:
        raise ConfigError(problems + error.problems) from None
    if problems:
        raise ConfigError(problems)
    return parameters


def backtest_file(
    path: Path, profile: str, parameters: StrategyParameters, given: Price | None
) -> list[MarketResult]:
    """All markets of one file that have prints, sorted by ticker. Raises `BadTradesFile`."""
    run = PROFILES[profile]
    markets = read_trades(path)
    return [
        run(in_order(markets[ticker]), parameters, given) for ticker in sorted(markets) if markets[ticker]
    ]


def run_backtest(
    trades: Sequence[Path],
    *,
    profile: str = "reference",
    result: str | None = None,
    sets: Sequence[str] = (),
    fill_model: str = "queue-share",
    out: Path | None = None,
    stdout: IO[str] | None = None,
    stderr: IO[str] | None = None,
) -> int:
    """The whole command: 0, or 1 with every problem told on stderr and OUT untouched."""
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        parameters, given = _choices(trades, profile, result, sets, fill_model)
        results = [market for path in trades for market in backtest_file(path, profile, parameters, given)]
        if out is not None:
            write_atomically(out, document(profile, fill_model, results))
    except ConfigError as error:
        for problem in error.problems:
            stderr.write(f"mm backtest: {problem}\n")
        return 1
    except BadTradesFile as error:
        stderr.write(f"mm backtest: {error}\n")
        return 1
    except OSError as error:
        stderr.write(f"mm backtest: cannot write {out}: {error.strerror or error}\n")
        return 1
    stdout.write(summary(profile, fill_model, results))
    return 0


def _choices(
    trades: Sequence[Path], profile: str, result: str | None, sets: Sequence[str], fill_model: str
) -> tuple[StrategyParameters, Price | None]:
    problems: list[str] = []
    parameters, given = StrategyParameters(), None
    if not trades:
        problems.append("--trades: at least one file is needed")
    if profile not in PROFILES:
        problems.append(f"--profile {profile!r}: allowed: {', '.join(PROFILES)}")
    if fill_model not in FILL_MODELS:
        problems.append(f"--fill-model {fill_model!r}: allowed: {', '.join(FILL_MODELS)}")
    try:
        given = None if result is None else parse_result(result)
    except ValueError as error:
        problems.append(str(error))
    try:
        parameters = parse_sets(sets)
    except ConfigError as error:
        problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return parameters, given


# --- writing ---------------------------------------------------------------------------------------------------------


def document(profile: str, fill_model: str, results: Sequence[MarketResult]) -> str:
    """OUT as text: valid JSON, one fill a line."""
    head = {"schema": 1, "profile": profile, "fill_model": fill_model}
    lines = ["{", *(f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items())]
    markets = ",\n".join(_market_text(result) for result in results)
    lines.append(f' "markets": [\n{markets}\n ]' if results else ' "markets": []')
    return "\n".join([*lines, "}\n"])


def _market_text(result: MarketResult) -> str:
    fields = market_fields(result)
    fills = ",\n".join(f"   {json.dumps(fill)}" for fill in fields.pop("fills"))
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in fields.items()]
    lines.append(f'  "fills": [\n{fills}\n  ]' if fills else '  "fills": []')
    return "\n".join([" {", *lines, " }"])


def market_fields(result: MarketResult) -> dict[str, Any]:
    """One market as OUT has it."""
    hold = result.median_hold
    return {
        "ticker": result.ticker,
        "settlement_price": format_price(result.settlement_price),
        "settlement_source": result.settlement_source.value,
        "trades": result.trades,
        "fill_count": result.fill_count,
        "contracts_bought": format_count(result.contracts_bought),
        "contracts_sold": format_count(result.contracts_sold),
        "triggers": {reason.value: count for reason, count in result.triggers.items()},
        "realized_pnl_gross": format_money(result.realized_pnl_gross),
        "settlement_pnl": format_money(result.settlement_pnl),
        "fees": format_money(result.fees),
        "realized_pnl_net": format_money(result.realized_pnl_net),
        "max_abs_position": format_count(result.max_abs_position),
        "final_position_before_settlement": format_count(result.final_position_before_settlement),
        "median_hold_seconds": None if hold is None else format_decimal(hold, 6),
        "fills": [_fill_fields(fill) for fill in result.fills],
    }


def _fill_fields(fill: BacktestFill) -> dict[str, str]:
    return {
        "ts": format_time(fill.ts),
        "side": fill.side.value,
        "price": format_price(fill.price),
        "count": format_count(fill.count),
        "fee": format_money(fill.fee),
        "kind": fill.kind.value,
        "net_after": format_count(fill.net_after),
    }


def write_atomically(out: Path, text: str) -> None:
    """Write a file whole or not at all: what stood there before stays until the new text is complete.

    Something that is no regular file (a terminal, a pipe) is written to directly. Raises `OSError`.
    """
    target = out.resolve()
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(None, "is a directory", str(out))
        with target.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def summary(profile: str, fill_model: str, results: Sequence[MarketResult]) -> str:
    """A table for people: one line a market, and the sum."""
    width = max([len(result.ticker) for result in results] + [len("market"), len("total")])
    head = f"{'market':{width}} {'trades':>7} {'fills':>6} {'gross $':>10} {'fees $':>9} {'net $':>10} {'settled':>8}  triggers"
    lines = [f"back-test: profile {profile}, fill model {fill_model}", head]
    lines.extend(_summary_line(result, width) for result in results)
    gross = sum(result.realized_pnl_gross for result in results)
    fees = sum(result.fees for result in results)
    lines.append(
        f"{'total':{width}} {sum(r.trades for r in results):>7} {sum(r.fill_count for r in results):>6}"
        f" {_dollars(gross):>10} {_dollars(fees):>9} {_dollars(gross - fees):>10}"
    )
    return "\n".join(lines) + "\n"


def _summary_line(result: MarketResult, width: int) -> str:
    triggers = ", ".join(f"{reason.value} {count}" for reason, count in result.triggers.items() if count)
    return (
        f"{result.ticker:{width}} {result.trades:>7} {result.fill_count:>6}"
        f" {_dollars(result.realized_pnl_gross):>10} {_dollars(result.fees):>9}"
        f" {_dollars(result.realized_pnl_net):>10} {format_price(result.settlement_price):>8}  {triggers or '-'}"
    )


def _dollars(money: int) -> str:
    return format_decimal((abs(money) + 5_000) // 10_000 * (1 if money >= 0 else -1), 2)

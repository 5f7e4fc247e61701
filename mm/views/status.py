"""`mm status` as values, as text and as JSON. Pure; `mm.session.status` looks things up."""

from collections.abc import Iterable, Iterator

import attrs

from mm.domain.numbers import SECOND, Count, Micros, Money, format_count, format_money, format_price
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import format_time
from mm.exchange.port import OrderReport
from mm.ledger.rows import SessionRow, Totals
from mm.views.texts import cents, contracts, dollars, duration

SHOWN = 40
"""Orders listed one by one."""


@attrs.frozen(kw_only=True)
class PositionView:
    """One market's position; None where that side could not be asked."""

    ticker: MarketTicker
    ledger: Count | None
    exchange: Count | None

    @property
    def differs(self) -> bool:
        """Both are known, and not the same (for a moment after a fill that is no error)."""
        return None not in (self.ledger, self.exchange) and self.ledger != self.exchange


@attrs.frozen(kw_only=True)
class ExchangeView:
    """What the exchange said."""

    balance: Money
    is_trading: bool
    orders: tuple[OrderReport, ...]
    """Ours that rest."""
    foreign_orders: int
    positions: dict[MarketTicker, Count]


@attrs.frozen(kw_only=True)
class LedgerView:
    """What the ledger of the data folder said."""

    account: str
    last: SessionRow | None
    positions: dict[MarketTicker, Count]
    today: Totals


@attrs.frozen(kw_only=True)
class Status:
    """One look."""

    at: Micros
    data_dir: str
    pid: int | None
    """Of the bot that runs on the data folder."""
    kill_switch: str
    """Why no new quotes are allowed by hand; empty when they are."""
    ledger: LedgerView | None
    ledger_problem: str = ""
    exchange: ExchangeView | None = None
    exchange_problem: str = ""

    @property
    def exit_code(self) -> int:
        """0; 1 when there was nothing to see; 2 when orders rest here without a bot."""
        if self.exchange is None and self.ledger is None:
            return 1
        has_run_here = self.ledger is not None and self.ledger.last is not None
        rests = self.exchange is not None and bool(self.exchange.orders)
        return 2 if rests and has_run_here and self.pid is None else 0

    @property
    def is_paper(self) -> bool:
        """The last run kept its orders in its own process: its positions are not the exchange's."""
        return self.ledger is not None and "/paper" in self.ledger.account

    def positions(self) -> list[PositionView]:
        """Every market in which either side knows a position; on paper our side alone."""
        ours = None if self.ledger is None else self.ledger.positions
        theirs = None if self.exchange is None or self.is_paper else self.exchange.positions
        return [
            PositionView(
                ticker=ticker,
                ledger=None if ours is None else ours.get(ticker, Count(0)),
                exchange=None if theirs is None else theirs.get(ticker, Count(0)),
            )
            for ticker in sorted((ours or {}).keys() | (theirs or {}).keys())
        ]


def bot_sentence(status: Status) -> str:
    """Whether it runs, since when, or how it ended."""
    last = None if status.ledger is None else status.ledger.last
    if status.pid is not None:
        since = "" if last is None else f" for {duration((status.at - last.started_at) / SECOND)}"
        return f"running{since} (pid {status.pid})"
    if last is None:
        return "has not run on this data folder"
    if last.ended_at is None:
        return f"died without a word; started {format_time(last.started_at)[:19]}Z"
    return f"ended {format_time(last.ended_at)[:19]}Z, exit code {last.exit_code}: {last.reason or 'done'}"


def status_text(status: Status) -> str:
    """For people."""
    return "\n".join(_lines(status)) + "\n"


def watch_text(status: Status, columns: int, lines: int) -> str:
    """The same for a screen that is looked at again and again: a row a market, and never more lines than it has."""
    heading = [
        f"mm status at {format_time(status.at)[11:19]} UTC, every 2 s; Ctrl-C ends it",
        "",
        *_heading(status),
    ]
    rows = _market_rows(status)
    foot = (
        []
        if status.exchange is None
        else [
            "",
            f"{len(status.exchange.orders)} orders of ours rest, {status.exchange.foreign_orders} of others",
        ]
    )
    table = [f"{'market':<36}{'position':>10}{'our bid':>14}{'our ask':>14}", *rows] if rows else []
    room = max(lines - 1 - len(heading) - len(foot) - 1, 2)
    if len(table) > room:
        table = [*table[: room - 1], f"and {len(table) - room + 1} more"]
    return "\n".join(line[:columns] for line in [*heading, "", *table, *foot])


def _market_rows(status: Status) -> list[str]:
    """Markets with a position or an order, the largest positions first."""
    positions = {row.ticker: row for row in status.positions()}
    quotes: dict[MarketTicker, dict[Side, list[str]]] = {}
    for order in () if status.exchange is None else status.exchange.orders:
        side = quotes.setdefault(order.ticker, {}).setdefault(order.side, [])
        side.append(f"{contracts(order.remaining)}@{cents(order.price)}")
    found = []
    for ticker in sorted(positions.keys() | quotes.keys(), key=lambda t: (-_size(positions.get(t)), t)):
        row, sides = positions.get(ticker), quotes.get(ticker, {})
        held = "0" if row is None else _held(row)
        bid, ask = (", ".join(sides.get(side, [])) or "-" for side in (Side.BID, Side.ASK))
        differs = "  DIFFERS from the ledger" if row is not None and row.differs else ""
        found.append(f"{ticker:<36}{held:>10}{bid:>14}{ask:>14}{differs}")
    return found


def _size(row: PositionView | None) -> int:
    return 0 if row is None else abs(row.exchange if row.exchange is not None else row.ledger or 0)


def _held(row: PositionView) -> str:
    known = row.exchange if row.exchange is not None else row.ledger
    return "?" if known is None else contracts(known, sign=True)


def _lines(status: Status) -> Iterator[str]:
    yield from _heading(status)
    yield from _position_lines(status.positions())
    if status.exchange is not None:
        yield from _order_lines(status.exchange.orders)
        yield f"foreign     {status.exchange.foreign_orders} orders"


def _heading(status: Status) -> Iterator[str]:
    yield f"bot         {bot_sentence(status)}"
    yield f"data folder {status.data_dir}{' (orders on paper)' if status.is_paper else ''}"
    if status.kill_switch:
        yield f"quoting     no new quotes: {status.kill_switch}"
    exchange = status.exchange
    if exchange is None:
        yield f"exchange    {status.exchange_problem}"
    else:
        yield (
            f"exchange    {'trading' if exchange.is_trading else 'NOT trading'}, "
            f"cash {dollars(exchange.balance)} dollars"
        )
    if status.ledger is None:
        yield f"ledger      {status.ledger_problem}"
    else:
        today = status.ledger.today
        yield (
            f"today       {today.fills} fills, {contracts(today.contracts)} contracts, "
            f"fees {dollars(today.fees)} dollars (US Eastern day)"
        )


def _position_lines(positions: Iterable[PositionView]) -> Iterator[str]:
    shown = list(positions)
    yield f"positions   {len(shown)}"
    for row in shown:
        if row.differs:
            assert row.ledger is not None
            note = f"  DIFFERS: our ledger says {contracts(row.ledger, sign=True)}"
        else:
            note = ""
        known = row.ledger if row.exchange is None else row.exchange
        yield f"  {row.ticker:<36} {contracts(known or Count(0), sign=True):>8}{note}"


def _order_lines(orders: tuple[OrderReport, ...]) -> Iterator[str]:
    yield f"resting     {len(orders)} orders"
    for order in orders[:SHOWN]:
        yield f"  {order.ticker:<36} {order.side.value} {contracts(order.remaining):>6} at {cents(order.price)}"
    if len(orders) > SHOWN:
        yield f"  and {len(orders) - SHOWN} more"


def status_document(status: Status) -> dict[str, object]:
    """For programs. Counts and money as decimal strings, times RFC 3339; what could not be asked is null."""
    ledger, exchange = status.ledger, status.exchange
    last = None if ledger is None else ledger.last
    return {
        "at": format_time(status.at),
        "data_dir": status.data_dir,
        "account": None if ledger is None else ledger.account,
        "bot": {
            "is_running": status.pid is not None,
            "pid": status.pid,
            "session": None if last is None else last.session,
            "started_at": None if last is None else format_time(last.started_at),
            "ended_at": None if last is None or last.ended_at is None else format_time(last.ended_at),
            "reason": None if last is None else last.reason,
            "exit_code": None if last is None else last.exit_code,
        },
        "kill_switch": status.kill_switch,
        "ledger_problem": status.ledger_problem,
        "exchange_problem": status.exchange_problem,
        "exchange": None
        if exchange is None
        else {"is_trading": exchange.is_trading, "balance": format_money(exchange.balance)},
        "fills_today": None
        if ledger is None
        else {
            "fills": ledger.today.fills,
            "contracts": format_count(ledger.today.contracts),
            "fees": format_money(ledger.today.fees),
        },
        "positions": [
            {
                "ticker": row.ticker,
                "ledger": None if row.ledger is None else format_count(row.ledger),
                "exchange": None if row.exchange is None else format_count(row.exchange),
            }
            for row in status.positions()
        ],
        "orders": None if exchange is None else [_order(order) for order in exchange.orders],
        "foreign_orders": None if exchange is None else exchange.foreign_orders,
    }


def _order(order: OrderReport) -> dict[str, object]:
    return {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "ticker": order.ticker,
        "side": order.side.value,
        "price": format_price(order.price),
        "remaining": format_count(order.remaining),
        "expires_at": None if order.expires_at is None else format_time(order.expires_at),
    }

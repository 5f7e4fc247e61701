"""The result in figures: per market, game and day, from the ledger alone.

realized    what closing trades brought, first in first out, before fees
settlement  what the settlement brought for what was held then
fees        as charged, on the day of the fill
net         realized + settlement - fees
unrealized  open positions at the price of our last fill there: the ledger knows no later one

Days are US Eastern. Sums over markets, games and days are the same to the micro-dollar.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import attrs

from mm.domain.errors import ConfigError
from mm.domain.inventory import InventoryState, RealizedPart
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker
from mm.domain.tickers import eastern_date
from mm.ledger.reader import LedgerReader
from mm.ledger.rows import ArchivedRow, FillRow, SettlementRow, TriggerRow

SETTLEMENT: Final = "settlement"


@attrs.frozen(kw_only=True)
class Span:
    """Days of a report, both included; None: open."""

    since: dt.date | None = None
    until: dt.date | None = None

    def holds(self, at: Micros) -> bool:
        """Whether a moment lies on one of the days."""
        if self.since is None and self.until is None:
            return True
        day = eastern_date(at)
        return (self.since is None or day >= self.since) and (self.until is None or day <= self.until)


@attrs.define(kw_only=True)
class Figures:
    """Sums of a market, a game, a day, or everything."""

    fills: int = 0
    contracts: Count = Count(0)
    fees: Money = Money(0)
    realized: Money = Money(0)
    settlement: Money = Money(0)
    unrealized: Money = Money(0)
    position: Count = Count(0)
    """Open at the end; signed."""

    @property
    def net(self) -> Money:
        """Realized and settlement less fees."""
        return Money(self.realized + self.settlement - self.fees)

    def add(self, other: "Figures") -> None:
        """Sum up."""
        for field in attrs.fields(Figures):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@attrs.frozen(kw_only=True)
class Realization:
    """Contracts of one layer closed by one fill or by the settlement: a line of the log of realizations."""

    ticker: MarketTicker
    at: Micros
    part: RealizedPart
    sign: int
    """+1: a long position was closed."""
    how: str
    """quote, exit, foreign or unknown: the closing fill's order; or settlement."""


@attrs.frozen(kw_only=True)
class Report:
    """Everything, ready to be shown."""

    account: str
    span: Span
    markets: dict[MarketTicker, Figures]
    days: dict[dt.date, Figures]
    """What was realized and charged on each day; positions and unrealized are no day's."""
    values: dict[MarketTicker, Price]
    """Of settled markets."""
    archived: dict[MarketTicker, str]
    """Markets whose single fills are in an archive: their whole result is counted on the day of their settlement."""

    @property
    def games(self) -> dict[str, Figures]:
        """Markets of one event together."""
        found: dict[str, Figures] = {}
        for ticker, figures in self.markets.items():
            found.setdefault(game_of(ticker), Figures()).add(figures)
        return found

    @property
    def total(self) -> Figures:
        """All markets."""
        total = Figures()
        for figures in self.markets.values():
            total.add(figures)
        return total


def game_of(ticker: MarketTicker) -> str:
    """The event that a market belongs to."""
    return ticker.rpartition("-")[0] or ticker


def choose_account(reader: LedgerReader, wanted: str | None) -> str:
    """The wanted account, or the one that traded last. Raises `ConfigError` naming those there are."""
    accounts = reader.accounts()
    if wanted is not None:
        found = [account for account in accounts if wanted in (account, "")] or [
            account for account in accounts if wanted in account
        ]
        if len(found) == 1:
            return found[0]
        raise ConfigError(
            [f"--account {wanted!r}: {'not one of' if not found else 'more than one of'} {accounts}"]
        )
    if not accounts:
        raise ConfigError(["the ledger is empty: nothing was traded yet"])

    def newest(account: str) -> int:
        sessions = reader.sessions(account, limit=1)
        return sessions[0].started_at if sessions else 0

    return max(accounts, key=newest)


def build_report(reader: LedgerReader, account: str, span: Span) -> Report:
    """Read the account's fills, market by market."""
    settled = {row.ticker: row for row in reader.settlements(account)}
    markets: dict[MarketTicker, Figures] = {}
    days: dict[dt.date, Figures] = defaultdict(Figures)
    for ticker in reader.traded_markets(account):
        figures = _market(reader, account, ticker, settled.get(ticker), span, days)
        if figures != Figures():
            markets[ticker] = figures
    archived = [row for row in reader.archived(account) if span.holds(row.settled_at)]
    for row in archived:
        figures = _archived(row)
        markets.setdefault(row.ticker, Figures()).add(figures)
        days[eastern_date(row.settled_at)].add(figures)
    return Report(
        account=account,
        span=span,
        markets=dict(sorted(markets.items())),
        days=dict(sorted(days.items())),
        values={t: row.value for t, row in settled.items() if t in markets},
        archived={row.ticker: row.archive for row in archived},
    )


def _market(
    reader: LedgerReader,
    account: str,
    ticker: MarketTicker,
    settlement: SettlementRow | None,
    span: Span,
    days: dict[dt.date, Figures],
) -> Figures:
    total = Figures()

    def count(at: Micros, figures: Figures) -> None:
        if span.holds(at):
            total.add(figures)
            days[eastern_date(at)].add(figures)

    last: FillRow | None = None
    state = InventoryState()
    for row in reader.fills(account, ticker=ticker):
        last = row
        parts = state.apply_fill(row.fill)
        gross = Money(sum(part.gross for part in parts))
        count(row.fill.ts, Figures(fills=1, contracts=row.fill.count, fees=row.fill.fee, realized=gross))
    if settlement is not None:
        parts = state.settle(settlement.value, settlement.settled_at)
        count(settlement.settled_at, Figures(settlement=Money(sum(part.gross for part in parts))))
    if last is not None and span.until is None:
        total.position = state.net
        total.unrealized = state.unrealized(last.fill.price)
    return total


def _archived(row: ArchivedRow) -> Figures:
    # How much of it was the settlement's is in the archive; together they are what they were.
    return Figures(
        fills=row.fills,
        contracts=Count(row.bought + row.sold),
        fees=row.fees,
        realized=Money(row.result + row.fees),
    )


def realizations(reader: LedgerReader, account: str, span: Span) -> Iterator[Realization]:
    """Every contract that was closed, market by market, in the exchange's order."""
    settled = {row.ticker: row for row in reader.settlements(account)}
    for ticker in reader.traded_markets(account):
        state = InventoryState()
        for row in reader.fills(account, ticker=ticker):
            sign = state.sign
            for part in state.apply_fill(row.fill):
                if span.holds(row.fill.ts):
                    yield Realization(ticker=ticker, at=row.fill.ts, part=part, sign=sign, how=row.kind.value)
        settlement = settled.get(ticker)
        if settlement is None or not span.holds(settlement.settled_at):
            continue
        sign = state.sign
        for part in state.settle(settlement.value, settlement.settled_at):
            yield Realization(ticker=ticker, at=settlement.settled_at, part=part, sign=sign, how=SETTLEMENT)


def fills(reader: LedgerReader, account: str, span: Span) -> Iterator[FillRow]:
    """The log of fills, in order of time."""
    return (row for row in reader.fills(account) if span.holds(row.fill.ts))


def triggers(reader: LedgerReader, account: str, span: Span) -> list[TriggerRow]:
    """The log of risk triggers."""
    return [row for row in reader.triggers(account) if span.holds(row.at)]

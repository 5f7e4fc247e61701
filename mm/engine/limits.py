"""Limits over all markets: gross inventory, cross-market MAE, daily loss.

The limits of one market are in `quoting.room`. Everything working or unknown counts as if filled, each market at its
worse side. These objects judge; the shell acts and alerts.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Final

import attrs

from mm.domain.numbers import Count, Micros, Money
from mm.domain.order import MarketTicker, Side
from mm.engine.parameters import StrategyParameters

NOTHING: Final = Count(0)


@attrs.frozen
class MarketExposure:
    """One market's position and the leaves of all its orders that may still fill."""

    net: Count
    bids: Count = NOTHING
    asks: Count = NOTHING

    @property
    def worst(self) -> Count:
        """The largest position, without sign, that any subset of the fills can make."""
        return Count(max(abs(self.net + self.bids), abs(self.net - self.asks), abs(self.net)))


@attrs.define(eq=False)
class GlobalInventory:
    """Gross exposure over all markets."""

    limit: Count
    total: Count = Count(0)
    """Sum of the markets' worst positions."""
    _markets: dict[MarketTicker, MarketExposure] = attrs.field(factory=dict)

    def update(self, ticker: MarketTicker, exposure: MarketExposure) -> None:
        """The market's newest exposure, orders just decided included."""
        self.remove(ticker)
        self._markets[ticker] = exposure
        self.total = Count(self.total + exposure.worst)

    def remove(self, ticker: MarketTicker) -> None:
        """Forget a market (settled, or flat and no longer quoted)."""
        old = self._markets.pop(ticker, None)
        if old is not None:
            self.total = Count(self.total - old.worst)

    def exposure(self, ticker: MarketTicker) -> MarketExposure:
        """What is known of a market."""
        return self._markets.get(ticker, MarketExposure(Count(0)))

    @property
    def is_exceeded(self) -> bool:
        """The worst case is above the limit."""
        return self.total > self.limit

    def room(self, ticker: MarketTicker, side: Side, net: Count, pending: Count = NOTHING) -> Count:
        """What one more order of this side may have, at most; never less than what only closes the position.

        Args:
            pending: Leaves of the market's other orders on the same side, which may fill too.
        """
        others = self.total - self.exposure(ticker).worst
        toward = net * side.sign + pending
        closing = max(-toward, 0)
        return Count(max(self.limit - others - toward, closing, 0))


# --- cross-market MAE ------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class MaeRow:
    """One market's part of the cross-market MAE."""

    ticker: MarketTicker
    net: Count
    value: Money
    """`abs(net) * mae(mark)`, exactly."""


@attrs.frozen(kw_only=True)
class PortfolioVerdict:
    """What the cross-market MAE asks for now."""

    total: Money
    is_tripped: bool
    """No new quotes anywhere."""
    just_tripped: bool
    """Tripped by this look: the moment to alert."""
    flatten: tuple[MarketTicker, ...]
    """Markets to close, worst first, just enough to bring the sum below half of the limit."""
    table: tuple[MaeRow, ...]
    """Every market with a part in the sum, worst first."""


@attrs.define(eq=False)
class PortfolioMae:
    """`PORTFOLIO_MAE_LIMIT`: trips after the window, holds until the sum is below half of the limit."""

    parameters: StrategyParameters
    breach_since: Micros | None = None
    is_tripped: bool = False

    def observe(self, positions: Mapping[MarketTicker, tuple[Count, Money]], now: Micros) -> PortfolioVerdict:
        """Judge all markets' (net, `InventoryState.mae_value(mark)`) at `now`."""
        rows = sorted(
            (MaeRow(ticker=t, net=net, value=value) for t, (net, value) in positions.items() if value > 0),
            key=lambda row: (-row.value, row.ticker),
        )
        total = Money(sum(row.value for row in rows))
        limit = self.parameters.portfolio_mae_limit
        was_tripped = self.is_tripped
        if not limit:
            self.breach_since, self.is_tripped = None, False
        else:
            self._advance(total, limit, now)
        return PortfolioVerdict(
            total=total,
            is_tripped=self.is_tripped,
            just_tripped=self.is_tripped and not was_tripped,
            flatten=_worst_until_half(rows, total, limit) if self.is_tripped else (),
            table=tuple(rows),
        )

    def _advance(self, total: Money, limit: Money, now: Micros) -> None:
        if self.is_tripped:
            self.is_tripped = 2 * total >= limit
            return
        if total < limit:
            self.breach_since = None
            return
        if self.breach_since is None:
            self.breach_since = now
        if now - self.breach_since >= self.parameters.mae_activation_window:
            self.is_tripped, self.breach_since = True, None

    def next_deadline(self) -> Micros | None:
        """When it would trip by time alone; None when the timer does not run."""
        if self.breach_since is None:
            return None
        return Micros(self.breach_since + self.parameters.mae_activation_window)


def _worst_until_half(rows: list[MaeRow], total: int, limit: int) -> tuple[MarketTicker, ...]:
    chosen: list[MarketTicker] = []
    for row in rows:
        if 2 * total < limit:
            break
        chosen.append(row.ticker)
        total -= row.value
    return tuple(chosen)


# --- daily loss ------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class DailyLoss:
    """`DAILY_LOSS_LIMIT`: the loss since the day began, marked, over all markets. Once hit it stays hit that day."""

    limit: Money | None
    day: dt.date | None = None
    start: Money = Money(0)
    """The marked P&L with which the day began; a restart sets it, with `day`, from the ledger."""
    is_hit: bool = False

    def observe(self, pnl: Money, day: dt.date) -> bool:
        """The marked P&L (realized net + unrealized, any zero point) on that US Eastern day; True when it is hit."""
        if day != self.day:
            self.day, self.start, self.is_hit = day, pnl, False
        if self.limit is not None and self.start - pnl >= self.limit:
            self.is_hit = True
        return self.is_hit

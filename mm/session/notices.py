"""What a session tells people: log lines and alerts, in one place. Decides nothing."""

from collections.abc import Callable

import attrs
import structlog

from mm.domain.commands import FlattenReason
from mm.domain.fill import Fill
from mm.domain.numbers import Count, Price, format_count, format_money, format_price
from mm.domain.order import MarketTicker, Order
from mm.engine.limits import PortfolioVerdict
from mm.exchange.port import ExchangeError
from mm.tasks.alerts import Alerts, Severity

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class Notices:
    """Callbacks for the tasks."""

    alerts: Alerts
    position_of: Callable[[MarketTicker], Count]

    def filled(self, fill: Fill) -> None:
        """A new fill, inventory moved already."""
        position = self.position_of(fill.ticker)
        log.info(
            "fill",
            market=fill.ticker,
            side=fill.side.value,
            price=format_price(fill.price),
            count=format_count(fill.count),
            position=format_count(position),
        )
        self.alerts.filled(fill, position=position)

    def placed(self, order: Order) -> None:
        """A quote was placed."""
        self.alerts.placed(order.ticker, order.count)

    def triggered(self, ticker: MarketTicker, reason: FlattenReason, net: Count, mark: Price | None) -> None:
        """A position is being flattened."""
        at = format_price(mark) if mark is not None else "unknown"
        self.alerts.risk(
            f"{ticker} {reason.value}", f"{ticker}: flatten {format_count(net)} at mark {at}: {reason.value}"
        )

    def portfolio(self, verdict: PortfolioVerdict) -> None:
        """The cross-market MAE limit was hit."""
        rows = "\n".join(
            f"{row.ticker} {format_count(row.net)} {format_money(row.value)}" for row in verdict.table
        )
        self.alerts.risk(
            "portfolio MAE",
            f"portfolio MAE {format_money(verdict.total)} dollars: no new quotes, flattening worst first\n{rows}",
            severity=Severity.CRITICAL,
        )

    def drifted(self, ticker: MarketTicker, ours: Count, theirs: Count) -> None:
        """Our position is not the exchange's."""
        self.alerts.risk(
            f"drift {ticker}",
            f"{ticker}: our position is {format_count(ours)}, the exchange's {format_count(theirs)}; "
            "the market is held until they agree",
            severity=Severity.CRITICAL,
        )

    def problem(self, what: str, exc: ExchangeError) -> None:
        """A read of the exchange failed."""
        log.warning("exchange problem", what=what, error=str(exc))
        self.alerts.error(what, f"{what}: {exc}")

    def trouble(self, ticker: MarketTicker, what: str, exc: ExchangeError) -> None:
        """A write was refused, or its answer lost."""
        self.alerts.error(f"{what} {exc.code}", f"{ticker}: {what}: {exc}")

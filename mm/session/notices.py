"""What a session tells people: log lines and alerts, in one place. Decides nothing."""

from collections.abc import Callable

import attrs
import structlog

from mm.domain.commands import FlattenReason
from mm.domain.fill import Fill
from mm.domain.numbers import Count, Price, format_count, format_money, format_price
from mm.domain.order import MarketTicker, Order
from mm.engine.limits import PortfolioVerdict
from mm.engine.risk.guards import Trigger
from mm.exchange.port import ExchangeError
from mm.tasks.alerts import Alerts, Severity
from mm.tasks.drift import DriftReport
from mm.tasks.fee_check import FeeMismatch
from mm.tasks.reconcile import Listeners

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

    def guarded(self, trigger: Trigger, text: str) -> None:
        """A guard reached a step."""
        resume = "; stays so until a person resumes" if trigger.is_latched else ""
        severity = Severity.CRITICAL if trigger.is_latched else Severity.WARNING
        self.alerts.risk(f"guard {trigger.measure.name}", f"{text}{resume}", severity=severity)

    def goal_guarded(self, game: str, reason: str) -> None:
        """A game's quotes were pulled for what looks like a goal, or for the part of the game it is in."""
        self.alerts.risk(f"goal guard {game}", f"{game}: all quotes pulled: {reason}", severity=Severity.INFO)

    def of_reconciler(self) -> Listeners:
        """What the reconciler finds."""
        return Listeners(
            on_drift=self.drifted,
            on_agreed=self.agreed_again,
            on_fee=self.fee_differs,
            on_cash=lambda mismatch: self.alerts.risk("cash", mismatch.text(), severity=Severity.CRITICAL),
            on_missing_fills=lambda order, text: self.alerts.risk(f"fills {order.order_id}", text),
            on_problem=self.problem,
        )

    def drifted(self, report: DriftReport) -> None:
        """Positions differ: both numbers, and the history since they last agreed."""
        self.alerts.risk(f"drift {report.ticker}", report.text(), severity=Severity.CRITICAL)

    def agreed_again(self, ticker: MarketTicker, before: int, now: int) -> None:
        """A difference that was told is over."""
        self.alerts.risk(
            f"drift over {ticker}",
            f"{ticker}: positions agree again at {format_count(Count(now))}, ours was "
            f"{format_count(Count(before))}; the market is quoted again",
        )

    def fee_differs(self, mismatch: FeeMismatch) -> None:
        """A fee that the exchange's own rules do not explain."""
        self.alerts.risk(f"fee {mismatch.fill.ticker}", mismatch.text(), severity=Severity.CRITICAL)

    def switched(self, why: str) -> None:
        """New quotes were switched off (`why`) or on (empty) by hand."""
        self.alerts.risk(f"switch {why}", f"no new quotes: {why}" if why else "new quotes are allowed again")

    def problem(self, what: str, exc: ExchangeError) -> None:
        """A read of the exchange failed."""
        log.warning("exchange problem", what=what, error=str(exc))
        self.alerts.error(what, f"{what}: {exc}")

    def trouble(self, ticker: MarketTicker, what: str, exc: ExchangeError) -> None:
        """A write was refused, or its answer lost."""
        self.alerts.error(f"{what} {exc.code}", f"{ticker}: {what}: {exc}")

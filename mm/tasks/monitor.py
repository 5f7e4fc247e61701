"""The portfolio monitor: limits over all markets, and what people must be told about risk.

Rules that come due by time alone are looked at here four times a second, whether or not anything arrives.
"""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs
import structlog
import trio

from mm.domain.commands import FlattenReason
from mm.domain.numbers import Count, Micros, Money, Price, format_money
from mm.domain.order import MarketTicker
from mm.domain.tickers import eastern_date
from mm.engine.limits import DailyLoss, PortfolioMae, PortfolioVerdict
from mm.exchange.port import AuthError, ExchangeError
from mm.tasks.floor import Floor
from mm.tasks.guards import GuardKeeper
from mm.tasks.positions import check_signs

log = structlog.get_logger(__name__)

PERIOD_S: Final = 0.25
VALUED_WITHIN_S: Final = 30.0
"""After a start positions have no price yet. So long the loss of the day is not judged; then what has none counts at
what was paid for it."""


class RiskBook(Protocol):
    """Where it is kept with which result a day began, so that a restart does not forget a loss, and what risk rules
    did. The ledger is one."""

    def record_trigger(
        self, ticker: MarketTicker | None, reason: str, net: Count, mark: Price | None
    ) -> None:
        """A rule acted in a market, or in all of them."""

    def record_day_start(self, day: dt.date, pnl: Money) -> None:
        """The first one of a day counts."""

    async def day_start(self, day: dt.date) -> Money | None:
        """None when the day has not begun."""


@attrs.define(eq=False, kw_only=True)
class Monitor:
    """Watches the whole floor."""

    floor: Floor
    clock: Callable[[], Micros]
    daily_loss: DailyLoss
    stop: Callable[[str], None]
    """Ends trading, with a reason."""
    check_positions: Callable[[], Awaitable[bool]]
    """Ask the exchange whether positions agree: the last word after a flatten."""
    on_trigger: Callable[[MarketTicker, FlattenReason, Count, Price | None], None] = lambda t, r, n, m: None
    on_portfolio: Callable[[PortfolioVerdict], None] = lambda verdict: None
    days: RiskBook | None = None
    guards: GuardKeeper | None = None
    _is_valued: bool = False
    _started_at: float = 0.0
    mae: PortfolioMae = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.mae = PortfolioMae(self.floor.parameters)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for ever. Raises `InvariantError` when the books contradict themselves."""
        await self._load_day()
        if self.guards is not None:
            await self.guards.load()
        self._started_at = trio.current_time()
        task_status.started()
        while True:
            self.look()
            await self._confirm_flat()
            await trio.sleep(PERIOD_S)

    def look(self) -> None:
        """One look at everything."""
        now = self.clock()
        check_signs(self.floor.positions)
        self._tell_triggers()
        self._watch_loss(now)
        self._watch_mae(now)
        if self.guards is not None and self._can_be_valued():
            self.guards.look(now)

    def _tell_triggers(self) -> None:
        for ticker, maker in self.floor.makers.items():
            for reason, net, mark in maker.take_triggers():
                log.warning("flatten", market=ticker, reason=reason.value, net=net, mark=mark)
                if self.days is not None:
                    self.days.record_trigger(ticker, reason.value, net, mark)
                self.on_trigger(ticker, reason, net, mark)

    async def _load_day(self) -> None:
        """An earlier run of this day has set where it began."""
        if self.days is None:
            return
        today = eastern_date(self.clock())
        start = await self.days.day_start(today)
        if start is not None:
            self.daily_loss.day, self.daily_loss.start = today, start
            log.info("day began before this run", day=str(today), pnl=format_money(start))

    def _can_be_valued(self) -> bool:
        if not self._is_valued:
            positions = self.floor.positions
            self._is_valued = trio.current_time() - self._started_at >= VALUED_WITHIN_S or all(
                history.state.is_flat or self.floor.mark_of(ticker) is not None
                for ticker, history in positions.histories.items()
            )
        return self._is_valued

    def _watch_loss(self, now: Micros) -> None:
        if not self._can_be_valued():
            return
        pnl, day = self.floor.marked_pnl(), eastern_date(now)
        is_new = day != self.daily_loss.day
        was_hit = self.daily_loss.is_hit and not is_new
        is_hit = self.daily_loss.observe(pnl, day)
        if is_new and self.guards is not None:
            self.guards.guards.new_day()
        if is_new and self.days is not None:
            self.days.record_day_start(day, self.daily_loss.start)
        if is_hit and not was_hit and self.days is not None:
            self.days.record_trigger(None, "daily_loss", Count(0), None)
        if is_hit:
            loss = Money(self.daily_loss.start - pnl)
            self.stop(f"daily loss limit: {format_money(loss)} dollars lost today")

    def _watch_mae(self, now: Micros) -> None:
        at_risk: dict[MarketTicker, tuple[Count, Money]] = {}
        for ticker in self.floor.makers:
            inventory = self.floor.inventory(ticker)
            if inventory.is_flat:
                continue
            mark = self.floor.mark_of(ticker)
            if mark is not None:
                at_risk[ticker] = (inventory.net, inventory.mae_value(mark))
        was_tripped = self.mae.is_tripped
        verdict = self.mae.observe(at_risk, now)
        if verdict.just_tripped:
            self.floor.portfolio_hold = "portfolio MAE limit"
            self.floor.hold_all("portfolio", self.floor.portfolio_hold)
            log.error("portfolio MAE limit", total=format_money(verdict.total))
            self.on_portfolio(verdict)
        elif was_tripped and not verdict.is_tripped:
            self.floor.portfolio_hold = ""
            self.floor.lift_all("portfolio")
            log.info("portfolio MAE is back below half of the limit")
        for ticker in verdict.flatten:
            maker = self.floor.makers[ticker]
            if maker.flattening is None:
                maker.flatten(FlattenReason.PORTFOLIO_MAE)
                self.floor.order_changed(ticker)

    async def _confirm_flat(self) -> None:
        """After a flatten our fills say flat; ask the exchange (a difference is then the reconciler's to hold)."""
        wanted = [m for m in self.floor.makers.values() if m.needs_position_check]
        if not wanted:
            return
        for maker in wanted:
            maker.needs_position_check = False
        try:
            await self.check_positions()
        except AuthError:
            raise
        except ExchangeError as exc:
            log.warning("positions not checked after a flatten", error=str(exc))
            for maker in wanted:
                maker.needs_position_check = True

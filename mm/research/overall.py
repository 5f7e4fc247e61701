"""The limits over all markets, as the live monitor keeps them: once a second while anything is held."""

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from mm.domain.commands import FlattenReason
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Money
from mm.domain.order import MarketTicker
from mm.domain.tickers import eastern_date
from mm.engine.limits import DailyLoss, PortfolioMae
from mm.research.errands import Agenda
from mm.research.room import Room
from mm.tasks.floor import Floor

EVERY: Final = Micros(SECOND)


@attrs.define(eq=False, kw_only=True)
class Overall:
    """Cross-market MAE and daily loss. Where nothing moves it would say the same, and rests."""

    floor: Floor
    agenda: Agenda
    rooms: Mapping[MarketTicker, Room]
    mark: Callable[[Room], None]
    """The market is to be looked at again."""
    mae: PortfolioMae = attrs.field(init=False)
    loss: DailyLoss = attrs.field(init=False)
    rests_since: Micros = Micros(0)
    """When it last looked, if nothing has moved since; else 0."""
    _is_watching: bool = False

    def __attrs_post_init__(self) -> None:
        parameters = self.floor.parameters
        self.mae = PortfolioMae(parameters)
        self.loss = DailyLoss(parameters.daily_loss_limit)

    @property
    def may_bind(self) -> bool:
        """Whether a limit over all markets or events could hold some quote back."""
        parameters = self.floor.parameters
        limits = parameters.risk_limits
        if self.floor.is_tight or limits.night is not None:
            return True
        shared = [limit for limit in (limits.series, limits.day, limits.portfolio) if limit is not None]
        most = parameters.size_per_fill * DOLLAR  # that one quote can add
        return bool(shared) and self.floor.exposure.portfolio.total + most > min(shared)

    def is_roomy(self, event: str) -> bool:
        """Whether the event's own loss limit is so far off that no quote of its markets can feel it."""
        parameters, limit = self.floor.parameters, self.floor.parameters.risk_limits.event
        most = 2 * parameters.size_per_fill * DOLLAR
        return limit is None or self.floor.exposure.portfolio.worst_of(event) + most <= limit

    def watch(self) -> None:
        """Something was filled."""
        if not self._is_watching:
            self._is_watching = True
            self.agenda.later(EVERY, self._look)

    def watch_again(self) -> None:
        """Something moved: the next look is where it would have been without the rest."""
        past = self.agenda.now - self.rests_since
        self.rests_since = Micros(0)
        self.agenda.later(EVERY - past % EVERY, self._look)

    def _look(self) -> None:
        floor, now = self.floor, self.agenda.now
        if self.loss.limit is not None and self.loss.observe(floor.marked_pnl(), eastern_date(now)):
            floor.hold_all("loss", "daily loss limit")
            self._mark_all()
        at_risk = self._at_risk()
        was_tripped = self.mae.is_tripped
        verdict = self.mae.observe(at_risk, now)
        if verdict.just_tripped:
            floor.hold_all("portfolio", "portfolio MAE limit")
        elif was_tripped and not verdict.is_tripped:
            floor.lift_all("portfolio")
        if was_tripped != verdict.is_tripped:
            self._mark_all()
        for ticker in verdict.flatten:
            floor.makers[ticker].flatten(FlattenReason.PORTFOLIO_MAE)
            self.mark(self.rooms[ticker])
        self._is_watching = bool(at_risk) or self.mae.is_tripped
        if not self._is_watching:
            return
        if self.mae.is_tripped or self.mae.breach_since is not None or self.loss.limit is not None:
            self.agenda.later(EVERY, self._look)
        else:
            self.rests_since = now

    def _at_risk(self) -> dict[MarketTicker, tuple[Count, Money]]:
        found: dict[MarketTicker, tuple[Count, Money]] = {}
        for ticker, history in self.floor.positions.histories.items():
            if history.state.is_flat or self.rooms[ticker].is_over:
                continue
            mark = self.floor.mark_of(ticker)
            if mark is not None:
                found[ticker] = (history.state.net, history.state.mae_value(mark))
        return found

    def _mark_all(self) -> None:
        for room in self.rooms.values():
            self.mark(room)

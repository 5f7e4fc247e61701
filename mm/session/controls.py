"""What an operator may do to a running session from the dashboard. Plain calls, each told in the log and as an alert."""

from typing import final

import attrs
import structlog

from mm.domain.commands import FlattenReason
from mm.domain.order import MarketTicker
from mm.engine.quoter import MarketMaker
from mm.session.trading import Trading
from mm.session.viewing import OPERATOR_HOLD
from mm.views.web.actions import ActionRefused, UnknownMarket

log = structlog.get_logger(__name__)

PAUSED: str = "paused by the operator"


@final
@attrs.define(eq=False)
class Controls:
    """`mm.views.web.actions.Actions` for one trading session."""

    trading: Trading

    def pause(self, ticker: MarketTicker) -> None:
        """See `Actions`. Raises `UnknownMarket`."""
        self._maker(ticker).holds[OPERATOR_HOLD] = PAUSED
        self._look_again(ticker)
        self._tell("pause", ticker)

    def resume(self, ticker: MarketTicker) -> None:
        """See `Actions`. Raises `UnknownMarket`."""
        self._maker(ticker).holds.pop(OPERATOR_HOLD, None)
        self._look_again(ticker)
        self._tell("resume", ticker)

    def flatten(self, ticker: MarketTicker, *, pause: bool) -> None:
        """See `Actions`. Raises `UnknownMarket`, and `ActionRefused` when there is nothing to close."""
        maker = self._maker(ticker)
        if maker.inventory().is_flat:
            raise ActionRefused(f"{ticker} is flat already")
        if pause:
            maker.holds[OPERATOR_HOLD] = PAUSED
        maker.flatten(FlattenReason.OPERATOR)
        self._look_again(ticker)
        self._tell("flatten", ticker, pause=pause)

    def pause_all(self) -> None:
        """See `Actions`."""
        self.trading.is_paused_by_operator = PAUSED
        self.trading.floor.wake_all()
        self._tell("pause all", None)

    def resume_all(self) -> None:
        """See `Actions`."""
        self.trading.is_paused_by_operator = ""
        if self.trading.monitor.guards is not None:
            self.trading.monitor.guards.resume()
        self.trading.floor.wake_all()
        self._tell("resume all", None)

    def stop(self) -> None:
        """See `Actions`."""
        self._tell("stop", None)
        self.trading.stop("web")

    def _maker(self, ticker: MarketTicker) -> MarketMaker:
        maker = self.trading.floor.makers.get(ticker)
        if maker is None:
            raise UnknownMarket(
                f"{ticker} is not traded by this bot now; `mm flatten` closes what is held there"
            )
        return maker

    def _look_again(self, ticker: MarketTicker) -> None:
        self.trading.floor.mark(ticker)
        self.trading.floor.decide_dirty(self.trading.clock())
        self.trading.floor.order_changed(ticker)

    def _tell(self, action: str, ticker: MarketTicker | None, **fields: object) -> None:
        log.warning("operator", action=action, market=ticker, **fields)
        where = f" {ticker}" if ticker is not None else ""
        self.trading.alerts.risk(f"operator {action}{where}", f"operator on the dashboard: {action}{where}")

"""What an event's markets exclude: asked of the exchange once for every event that is quoted or held.

Until it is known an event is taken for the worse of both: its markets' losses are added up, and its quotes are kept from
summing to free money all the same.
"""

from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import attrs
import structlog
import trio

from mm.domain.order import MarketTicker
from mm.engine.selection import Selection
from mm.exchange import endpoints
from mm.exchange.port import AuthError, Exchange, ExchangeError
from mm.tasks.budget import ReadBudget
from mm.tasks.exposure import Exposure

log = structlog.get_logger(__name__)

REST_S: Final = 5.0
"""After a read that failed."""


@attrs.define(eq=False, kw_only=True)
class EventReader:
    """The task that learns which events are mutually exclusive."""

    exchange: Exchange
    reads: ReadBudget
    exposure: Exposure
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None
    on_known: Callable[[Iterable[MarketTicker]], None] = lambda tickers: None
    """Told of the markets of an event of which more is known now."""
    _wanted: trio.Event = attrs.field(factory=trio.Event)

    def on_selection(self, selection: Selection) -> None:
        """A listing was looked through: events with a chosen market have these markets."""
        # In the order of the selection: that of a set of strings would differ from run to run.
        markets: dict[str, list[MarketTicker]] = {market.event_ticker: [] for market in selection.chosen}
        for candidate in selection.candidates:
            if candidate.market.event_ticker in markets:
                markets[candidate.market.event_ticker].append(candidate.market.ticker)
        for event, tickers in markets.items():
            self.exposure.know_event(event, sorted(tickers), is_mutually_exclusive=None)
        self._wanted.set()

    async def run(self) -> NoReturn:
        """Read what is not known, for ever. Cancelled: what was read stays known."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            for event in self.exposure.unknown_events():
                if not await self._learn(event):
                    await trio.sleep(REST_S)
                    self._wanted.set()
                    break

    async def _learn(self, event_ticker: str) -> bool:
        await self.reads.take(self.reads.limits.cost(*endpoints.EVENT))
        try:
            event = await self.exchange.event(event_ticker)
        except AuthError:
            raise
        except ExchangeError as exc:
            self.on_problem(f"event {event_ticker}", exc)
            return False
        self.exposure.know_event(event_ticker, (), is_mutually_exclusive=event.is_mutually_exclusive)
        shape = self.exposure.portfolio.shape_of(event_ticker)
        log.info("event known", event_ticker=event_ticker, exclusive=event.is_mutually_exclusive)
        self.on_known(shape.markets if shape is not None else ())
        return True

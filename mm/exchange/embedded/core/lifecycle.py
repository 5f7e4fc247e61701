"""The life of markets and shards: opening, halts, closing, determination, settlement, pauses.

initialized > active <> inactive > closed > determined (> disputed > amended) > finalized. Opening and closing by the
clock are silent; everything else is announced.
"""

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import attrs

from mm.domain.fees import FeeType
from mm.domain.grid import TickGrid
from mm.domain.market import MarketStatus
from mm.domain.numbers import DOLLAR, Micros, Price
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.accounts import Accounts, fee_schedule
from mm.exchange.embedded.core.events import EventCreated, EventFeesUpdated, MarketChange, MarketUpdated
from mm.exchange.embedded.core.model import (
    EventSpec,
    MarketSpec,
    OrderRecord,
    Reason,
    SeriesSpec,
    result_word,
)
from mm.exchange.embedded.core.resting import Resting
from mm.exchange.embedded.core.state import MarketState, State

_OPEN = frozenset({MarketStatus.ACTIVE, MarketStatus.INACTIVE})
_BEFORE_RESULT = _OPEN | {MarketStatus.INITIALIZED, MarketStatus.CLOSED}


@attrs.define(eq=False)
class Lifecycle:
    """Lists series, events and markets and moves them along. Wrong calls are `ValueError`: operators, not members."""

    _state: State
    _accounts: Accounts
    _resting: Resting

    # --- listing -----------------------------------------------------------------------------------------------------

    def add_series(self, spec: SeriesSpec) -> None:
        """List a series."""
        if spec.ticker in self._state.series:
            raise ValueError(f"series {spec.ticker} exists")
        self._state.series[spec.ticker] = attrs.evolve(spec, updated_at=self._state.now)

    def add_event(self, spec: EventSpec) -> None:
        """List an event of a known series."""
        if spec.ticker in self._state.events:
            raise ValueError(f"event {spec.ticker} exists")
        if spec.series_ticker not in self._state.series:
            raise ValueError(f"unknown series {spec.series_ticker}")
        spec = attrs.evolve(spec, updated_at=self._state.now)
        self._state.events[spec.ticker] = spec
        self._state.event_markets[spec.ticker] = []
        self._state.out.append(EventCreated(spec, self._state.now))

    def add_market(self, spec: MarketSpec) -> MarketState:
        """List a market of a known event, with timers for its opening and closing."""
        state = self._state
        if spec.ticker in state.markets:
            raise ValueError(f"market {spec.ticker} exists")
        event = state.events.get(spec.event_ticker)
        if event is None:
            raise ValueError(f"unknown event {spec.event_ticker}")
        if spec.close_time <= max(spec.open_time, state.now):
            raise ValueError(f"market {spec.ticker} would be closed at once")
        siblings = state.event_markets[event.ticker]
        if siblings and siblings[0].exchange_index != spec.exchange_index:
            raise ValueError(f"markets of event {event.ticker} must be on one shard")
        market = MarketState(
            spec=spec,
            market_id=state.ids(),
            event=event,
            status=MarketStatus.INITIALIZED if spec.open_time > state.now else MarketStatus.ACTIVE,
            grid=spec.grid,
            price_level_structure=spec.price_level_structure,
            close_time=spec.close_time,
            created_at=state.now,
            updated_at=state.now,
            fees=fee_schedule(state.series[event.series_ticker], event),
            trades=deque(maxlen=state.rules.trades_kept),
        )
        state.markets[spec.ticker] = market
        siblings.append(market)
        state.shard(spec.exchange_index)
        if market.status is MarketStatus.INITIALIZED:
            state.at(spec.open_time, partial(self._open, market))
        state.at(spec.close_time, partial(self._close_if_due, market, spec.close_time))
        self._announce(
            market,
            MarketChange.CREATED,
            close_time=market.close_time,
            grid=market.grid,
            price_level_structure=market.price_level_structure,
        )
        return market

    # --- open and close ----------------------------------------------------------------------------------------------

    def activate(self, ticker: MarketTicker) -> None:
        """Back to active: everything that rests is cancelled."""
        market = self._market(ticker)
        is_reopened = market.status is MarketStatus.CLOSED and market.close_time > self._state.now
        if market.status is not MarketStatus.INACTIVE and not is_reopened:
            raise ValueError(f"market {ticker} is {market.status.value}: cannot be activated")
        self._cancel_resting(market, self._state.rules.activation_cancel_reason)
        market.status = MarketStatus.ACTIVE
        self._announce(market, MarketChange.ACTIVATED)

    def deactivate(self, ticker: MarketTicker) -> None:
        """Halt one market."""
        market = self._market(ticker)
        if market.status is not MarketStatus.ACTIVE:
            raise ValueError(f"market {ticker} is {market.status.value}: cannot be deactivated")
        market.status = MarketStatus.INACTIVE
        if self._state.rules.halt_cancels_flagged:
            self._cancel_flagged([market])
        self._announce(market, MarketChange.DEACTIVATED)

    def set_close_time(self, ticker: MarketTicker, close_time: Micros) -> None:
        """Move the close; a time that is not ahead closes at once."""
        market = self._market(ticker)
        if market.status not in _BEFORE_RESULT:
            raise ValueError(f"market {ticker} is {market.status.value}: its close cannot move")
        market.close_time = close_time
        self._announce(market, MarketChange.CLOSE_DATE_UPDATED, close_time=close_time)
        if close_time > self._state.now:
            self._state.at(close_time, partial(self._close_if_due, market, close_time))
        elif market.status is not MarketStatus.CLOSED:
            self._close(market)

    def _open(self, market: MarketState) -> None:
        if market.status is MarketStatus.INITIALIZED:
            market.status = MarketStatus.ACTIVE

    def _close_if_due(self, market: MarketState, close_time: Micros) -> None:
        if market.close_time == close_time and (
            market.status in _OPEN or market.status is MarketStatus.INITIALIZED
        ):
            self._close(market)

    def _close(self, market: MarketState) -> None:
        market.status = MarketStatus.CLOSED
        delay = self._state.rules.close_cancel_delay
        if delay:
            self._state.at(Micros(self._state.now + delay), partial(self._close_cancel, market))
        else:
            self._close_cancel(market)

    def _close_cancel(self, market: MarketState) -> None:
        if market.status.is_over:
            self._cancel_resting(market, Reason.CLOSE_CANCEL)

    # --- result ------------------------------------------------------------------------------------------------------

    def determine(self, ticker: MarketTicker, value: Price) -> None:
        """Fix the result; the settlement timer starts."""
        market = self._market(ticker)
        if market.status not in _BEFORE_RESULT:
            raise ValueError(f"market {ticker} is {market.status.value}: cannot be determined")
        _check_value(value)
        if market.status is not MarketStatus.CLOSED:
            self.set_close_time(ticker, self._state.now)
        self._cancel_resting(market, Reason.CLOSE_CANCEL)
        self._fix(market, MarketStatus.DETERMINED, value)

    def dispute(self, ticker: MarketTicker) -> None:
        """Stop the settlement timer."""
        market = self._market(ticker)
        if market.status is not MarketStatus.DETERMINED:
            raise ValueError(f"market {ticker} is {market.status.value}: nothing to dispute")
        market.status = MarketStatus.DISPUTED
        market.settles_at = None

    def amend_result(self, ticker: MarketTicker, value: Price) -> None:
        """A result after a dispute; the settlement timer starts again."""
        market = self._market(ticker)
        if market.status is not MarketStatus.DISPUTED:
            raise ValueError(f"market {ticker} is {market.status.value}: its result is not disputed")
        _check_value(value)
        self._fix(market, MarketStatus.AMENDED, value)

    def _fix(self, market: MarketState, status: MarketStatus, value: Price) -> None:
        now = self._state.now
        market.status = status
        market.result = result_word(value)
        market.settlement_value = value
        market.determined_at = now
        market.settles_at = Micros(now + market.spec.settlement_timer)
        self._state.at(market.settles_at, partial(self._settle, market, market.settles_at))
        self._announce(market, MarketChange.DETERMINED, result=market.result, settlement_value=value)

    def _settle(self, market: MarketState, settles_at: Micros) -> None:
        if market.settles_at != settles_at or market.status is MarketStatus.FINALIZED:
            return
        assert market.settlement_value is not None
        market.status = MarketStatus.FINALIZED
        market.settled_at = self._state.now
        self._announce(
            market,
            MarketChange.SETTLED,
            result=market.result,
            settlement_value=market.settlement_value,
        )
        self._accounts.settle(market, market.settlement_value)

    # --- terms -------------------------------------------------------------------------------------------------------

    def set_grid(self, ticker: MarketTicker, grid: TickGrid, structure: str) -> None:
        """Change the price grid; what rests stays."""
        market = self._market(ticker)
        market.grid = grid
        market.price_level_structure = structure
        self._announce(
            market,
            MarketChange.PRICE_LEVEL_STRUCTURE_UPDATED,
            grid=grid,
            price_level_structure=structure,
        )

    def update_metadata(self, ticker: MarketTicker, metadata: Mapping[str, Any]) -> None:
        """Replace some of the market's metadata."""
        market = self._market(ticker)
        market.spec = attrs.evolve(market.spec, metadata={**market.spec.metadata, **metadata})
        market.updated_at = self._state.now
        self._announce(market, MarketChange.METADATA_UPDATED)

    def set_series_fees(self, series_ticker: str, fee_type: FeeType, multiplier: Fraction) -> None:
        """Change a series' fees for its events' markets."""
        state = self._state
        if series_ticker not in state.series:
            raise ValueError(f"unknown series {series_ticker}")
        series = attrs.evolve(
            state.series[series_ticker], fee_type=fee_type, fee_multiplier=multiplier, updated_at=state.now
        )
        state.series[series_ticker] = series
        for event in state.events.values():
            if event.series_ticker == series_ticker:
                self._apply_fees(event)

    def set_event_fees(
        self, event_ticker: str, fee_type: FeeType | None, multiplier: Fraction | None
    ) -> None:
        """Change an event's overrides."""
        state = self._state
        if event_ticker not in state.events:
            raise ValueError(f"unknown event {event_ticker}")
        event = attrs.evolve(
            state.events[event_ticker],
            fee_type_override=fee_type,
            fee_multiplier_override=multiplier,
            updated_at=state.now,
        )
        state.events[event_ticker] = event
        self._apply_fees(event)
        state.out.append(
            EventFeesUpdated(
                event_ticker=event_ticker,
                fee_type_override=fee_type,
                fee_multiplier_override=multiplier,
                ts=state.now,
            )
        )

    def _apply_fees(self, event: EventSpec) -> None:
        schedule = fee_schedule(self._state.series[event.series_ticker], event)
        for market in self._state.event_markets[event.ticker]:
            market.event = event
            market.fees = schedule

    # --- pauses ------------------------------------------------------------------------------------------------------

    def set_trading_active(self, exchange_index: int, is_active: bool) -> None:
        """Pause or resume trading on a shard."""
        shard = self._state.shard(exchange_index)
        if shard.trading_active and not is_active:
            self._cancel_flagged(self._markets_of(exchange_index))
        shard.trading_active = is_active

    def set_exchange_active(self, exchange_index: int, is_active: bool) -> None:
        """Pause or resume the exchange on a shard."""
        shard = self._state.shard(exchange_index)
        if shard.exchange_active and not is_active:
            self._cancel_flagged(self._markets_of(exchange_index))
        shard.exchange_active = is_active

    # --- shared ------------------------------------------------------------------------------------------------------

    def _market(self, ticker: MarketTicker) -> MarketState:
        market = self._state.markets.get(ticker)
        if market is None:
            raise ValueError(f"unknown market {ticker}")
        return market

    def _markets_of(self, exchange_index: int) -> list[MarketState]:
        return [m for m in self._state.markets.values() if m.exchange_index == exchange_index]

    def _cancel_flagged(self, markets: list[MarketState]) -> None:
        for market in markets:
            for order in _resting(market):
                if order.cancel_on_pause:
                    self._resting.take_off(order, Reason.HALT_CANCEL)

    def _cancel_resting(self, market: MarketState, reason: Reason) -> None:
        for order in _resting(market):
            self._resting.take_off(order, reason)

    def _announce(
        self,
        market: MarketState,
        change: MarketChange,
        *,
        close_time: Micros | None = None,
        result: str | None = None,
        settlement_value: Price | None = None,
        grid: TickGrid | None = None,
        price_level_structure: str | None = None,
    ) -> None:
        self._state.out.append(
            MarketUpdated(
                ticker=market.ticker,
                change=change,
                ts=self._state.now,
                spec=market.spec,
                close_time=close_time,
                result=result,
                settlement_value=settlement_value,
                grid=grid,
                price_level_structure=price_level_structure,
            )
        )


def _check_value(value: Price) -> None:
    if not 0 <= value <= DOLLAR:
        raise ValueError(f"a contract pays between 0 and 1 dollar, not {value}")


def _resting(market: MarketState) -> list[OrderRecord]:
    return [*market.book.bids.orders(), *market.book.asks.orders()]

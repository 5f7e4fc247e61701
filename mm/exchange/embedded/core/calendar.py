"""What is announced for later: changes of fees, and maintenance windows that pause trading on every shard."""

from fractions import Fraction
from functools import partial

import attrs

from mm.domain.fees import FeeType
from mm.domain.numbers import Micros
from mm.exchange.embedded.core.lifecycle import Lifecycle
from mm.exchange.embedded.core.model import FeeChange, MaintenanceWindow
from mm.exchange.embedded.core.state import State


@attrs.define(eq=False)
class Calendar:
    """Keeps the announcements and carries them out. Wrong calls are `ValueError`, as in the lifecycle."""

    _state: State
    _lifecycle: Lifecycle

    def schedule_series_fees(
        self, series_ticker: str, fee_type: FeeType, multiplier: Fraction, when: Micros
    ) -> FeeChange:
        """Announce a change of a series' fees."""
        if series_ticker not in self._state.series:
            raise ValueError(f"unknown series {series_ticker}")
        return self._schedule(
            FeeChange(
                change_id=self._state.ids(),
                series_ticker=series_ticker,
                fee_type=fee_type,
                multiplier=multiplier,
                scheduled_at=when,
            )
        )

    def schedule_event_fees(
        self, event_ticker: str, fee_type: FeeType | None, multiplier: Fraction | None, when: Micros
    ) -> FeeChange:
        """Announce a change of an event's overrides."""
        event = self._state.events.get(event_ticker)
        if event is None:
            raise ValueError(f"unknown event {event_ticker}")
        return self._schedule(
            FeeChange(
                change_id=self._state.ids(),
                series_ticker=event.series_ticker,
                event_ticker=event_ticker,
                fee_type=fee_type,
                multiplier=multiplier,
                scheduled_at=when,
            )
        )

    def schedule_maintenance(self, start: Micros, end: Micros) -> MaintenanceWindow:
        """Announce a window; one that has begun pauses at once."""
        if end <= max(start, self._state.now):
            raise ValueError("a maintenance window must end after it starts, and not in the past")
        window = MaintenanceWindow(start=start, end=end)
        self._state.maintenance.append(window)
        self._at(start, partial(self._set_trading, is_active=False))
        self._state.at(end, partial(self._set_trading, is_active=True))
        return window

    def _schedule(self, change: FeeChange) -> FeeChange:
        self._state.fee_changes.append(change)
        self._at(change.scheduled_at, partial(self._apply, change))
        return change

    def _at(self, when: Micros, what: partial[None]) -> None:
        if when <= self._state.now:
            what()
        else:
            self._state.at(when, what)

    def _apply(self, change: FeeChange) -> None:
        if change.event_ticker is not None:
            self._lifecycle.set_event_fees(change.event_ticker, change.fee_type, change.multiplier)
        else:
            assert change.fee_type is not None
            assert change.multiplier is not None
            self._lifecycle.set_series_fees(change.series_ticker, change.fee_type, change.multiplier)

    def _set_trading(self, *, is_active: bool) -> None:
        for index in list(self._state.shards):
            self._lifecycle.set_trading_active(index, is_active)

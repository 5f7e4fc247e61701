"""The events' worst losses summed, against the limits; and what they leave for one more order.

Per event: what is held and works, valued by outcome (`scenarios`), and what the event has lost already (a gain made in
it does not pay for new risk). Events are summed per series, per day and over all of them as if each ended in its worst
way at once. The night limit takes the events of one series and day together in a milder way, as losses that are
correlated: `sqrt((1 - rho) * sum of squares + rho * square of sum)`, the standard deviation of a sum of equally
correlated terms (Markowitz 1952), with each event's worst loss for its deviation: `rho = 1` is the plain sum, `rho = 0`
independent games.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import isqrt
from typing import Final

import attrs

from mm.domain.numbers import DOLLAR, Count, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.risk.scenarios import (
    NO_LOSSES,
    EventShape,
    Holding,
    MarketLosses,
    WorkingOrder,
    event_losses,
    fee_per_contract,
    loss_per_contract,
    market_losses,
    worst_loss,
)

UNLIMITED: Final = Count(10**12)
NO_MONEY: Final = Money(0)
NOTHING_HELD: Final = Holding()
DEAREST: Final = DOLLAR + fee_per_contract(Price(DOLLAR // 2))
"""No contract can lose more than so much for each hundredth of it, fee included."""
_PARTS: Final = 1_000_000
"""The correlation is held in millionths."""


@attrs.frozen(kw_only=True)
class RiskLimits:
    """What may be lost at most, in money; None is off."""

    event: Money | None = None
    series: Money | None = None
    day: Money | None = None
    """Events of one US Eastern date, all series."""
    portfolio: Money | None = None
    night: Money | None = None
    """Events of one series and day, taken as correlated losses."""
    correlation: Fraction = Fraction(1, 2)
    """rho of the night limit, 0..1."""


@attrs.frozen(kw_only=True)
class ScopeUse:
    """How much of one limit is used."""

    scope: str
    """`event`, `series`, `day`, `portfolio` or `night`."""
    name: str
    loss: Money
    limit: Money


@attrs.define(eq=False, kw_only=True)
class _Event:
    """One event's books."""

    ticker: str
    series: str
    day: str
    shape: EventShape
    holdings: dict[MarketTicker, Holding] = attrs.field(factory=dict)
    losses: dict[MarketTicker, MarketLosses] = attrs.field(factory=dict)
    """By market, with everything that works."""
    realized: dict[MarketTicker, Money] = attrs.field(factory=dict)
    worst: int = 0

    @property
    def realized_loss(self) -> int:
        """What the event has lost for good; a gain counts as nothing."""
        return max(0, -sum(self.realized.values()))

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """The sums that this event is part of."""
        return (("series", self.series), ("day", self.day), ("portfolio", ""))

    @property
    def night(self) -> tuple[str, str]:
        """The group of the correlated limit."""
        return (self.series, self.day)


@attrs.define(eq=False)
class PortfolioRisk:
    """All events that are anything to us. Told of every change; asked before every order."""

    limits: RiskLimits = attrs.field(factory=RiskLimits)
    slack: Money = NO_MONEY
    """Less than so much left in a limit over several events makes it tight."""
    _events: dict[str, _Event] = attrs.field(factory=dict)
    _event_of: dict[MarketTicker, str] = attrs.field(factory=dict)
    _sums: dict[tuple[str, str], int] = attrs.field(factory=dict)
    _squares: dict[tuple[str, str], int] = attrs.field(factory=dict)
    _firsts: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """Sum of the worst losses of a night's events (the squares stand beside it)."""
    _tight: set[tuple[str, str]] = attrs.field(factory=set)
    """The sums that are near their limit."""

    # --- what is told ---

    def set_event(self, event_ticker: str, shape: EventShape, *, series: str, day: str) -> None:
        """An event's markets and what they exclude; told again when more is known."""
        event = self._events.get(event_ticker)
        if event is None:
            event = _Event(ticker=event_ticker, series=series, day=day, shape=shape)
            self._events[event_ticker] = event
        event.shape = shape
        for ticker in shape.markets:
            self._event_of[ticker] = event_ticker
        self._recount(event)
        self._note_tight(event)

    def use(self, limits: RiskLimits, slack: Money) -> None:
        """Go by other limits from now on."""
        self.limits, self.slack = limits, slack
        self._tight.clear()
        for event in self._events.values():
            self._note_tight(event)

    def shape_of(self, event_ticker: str) -> EventShape | None:
        """What is known of an event; None when nothing is."""
        event = self._events.get(event_ticker)
        return event.shape if event is not None else None

    def unknown_events(self) -> list[str]:
        """Events of several markets of which it is not known whether one excludes the others."""
        return [
            name
            for name, event in self._events.items()
            if event.shape.is_mutually_exclusive is None and len(event.shape.markets) > 1
        ]

    def update(
        self,
        ticker: MarketTicker,
        holding: Holding,
        orders: Iterable[WorkingOrder],
        *,
        realized: Money = NO_MONEY,
    ) -> None:
        """One market's newest state: position, every order that may fill, and what it has brought net of fees."""
        event = self._events.get(self._event_of.get(ticker, ""))
        if event is None:
            return
        event.holdings[ticker], event.losses[ticker] = holding, market_losses(holding, orders)
        event.realized[ticker] = realized
        self._recount(event)

    def remove_event(self, event_ticker: str) -> None:
        """The event is over and settled: it counts no more."""
        event = self._events.pop(event_ticker, None)
        if event is None:
            return
        for ticker in event.shape.markets:
            self._event_of.pop(ticker, None)
        self._add(event, -event.worst, -event.worst * event.worst)
        for sums in (self._sums, self._firsts, self._squares):
            for key in [key for key, value in sums.items() if not value]:
                del sums[key]

    def _recount(self, event: _Event) -> None:
        worst = event.realized_loss + worst_loss(event.shape, event.losses)
        if worst != event.worst:
            self._add(event, worst - event.worst, worst * worst - event.worst * event.worst)
            event.worst = worst

    def _add(self, event: _Event, difference: int, of_squares: int) -> None:
        for key in event.keys:
            self._sums[key] = self._sums.get(key, 0) + difference
        self._firsts[event.night] = self._firsts.get(event.night, 0) + difference
        self._squares[event.night] = self._squares.get(event.night, 0) + of_squares
        self._note_tight(event)

    def _note_tight(self, event: _Event) -> None:
        limits = self._limit_by_scope()
        for key in event.keys:
            limit = limits[key[0]]
            self._set_tight(key, limit is not None and limit - self._sums.get(key, 0) < self.slack)
        night = self.limits.night
        if night is not None:
            self._set_tight(event.night, night - self.night_loss(*event.night) < self.slack)

    def _set_tight(self, key: tuple[str, str], is_tight: bool) -> None:
        if is_tight:
            self._tight.add(key)
        else:
            self._tight.discard(key)

    @property
    def is_tight(self) -> bool:
        """A limit over several events may hold some order back."""
        return bool(self._tight)

    def _limit_by_scope(self) -> dict[str, Money | None]:
        limits = self.limits
        return {"series": limits.series, "day": limits.day, "portfolio": limits.portfolio}

    # --- what is asked ---

    def worst_of(self, event_ticker: str) -> Money:
        """What the event can cost, realized losses included."""
        event = self._events.get(event_ticker)
        return Money(event.worst if event is not None else 0)

    @property
    def total(self) -> Money:
        """The sum over all events."""
        return Money(self._sums.get(("portfolio", ""), 0))

    def room(
        self,
        ticker: MarketTicker,
        side: Side,
        price: Price,
        beside: Iterable[WorkingOrder] | None = None,
    ) -> Count:
        """How much one more order of that side and price may have; never less than what makes nothing worse.

        Args:
            beside: The market's orders that may fill besides this one; all that were told when None (a quote that will be
                gone before the new one comes is left out by the caller).
        """
        event = self._events.get(self._event_of.get(ticker, ""))
        if event is None:
            return UNLIMITED
        allowed = self._allowed(event)
        if allowed is None:
            return UNLIMITED
        markets = event.losses
        if beside is not None:
            markets = {**markets, ticker: market_losses(event.holdings.get(ticker, NOTHING_HELD), beside)}
        room: int = UNLIMITED
        for pays, others in _outcomes(event.shape, ticker, markets):
            per_unit = loss_per_contract(side, price, pays)
            if per_unit > 0:
                room = min(room, (allowed - event.realized_loss - others) // per_unit)
        return Count(max(room, 0))

    def sure_room(self, ticker: MarketTicker) -> Count | None:
        """So much is left for any one more order of the market, at any price; None: `room` has to be asked.

        The cheap answer for the usual case, far from every limit.
        """
        event = self._events.get(self._event_of.get(ticker, ""))
        if event is None:
            return UNLIMITED
        limit = self.limits.event
        if self._tight or (limit is not None and event.worst + self.slack > limit):
            return None
        return Count(self.slack // DEAREST)

    def _allowed(self, event: _Event) -> int | None:
        """The largest worst loss that the event may have; at least what it has now (what makes nothing worse may go on).

        None when no limit is set.
        """
        bounds: list[int] = []
        if self.limits.event is not None:
            bounds.append(self.limits.event)
        limits = self._limit_by_scope()
        for scope, name in event.keys:
            limit = limits[scope]
            if limit is not None:
                bounds.append(limit - (self._sums.get((scope, name), 0) - event.worst))
        if self.limits.night is not None:
            bounds.append(self._night_bound(event, self.limits.night))
        return max(min(bounds), event.worst) if bounds else None

    def _night_bound(self, event: _Event, limit: Money) -> int:
        """The largest w with `(1 - rho) * (S2 + w^2) + rho * (S1 + w)^2 <= limit^2`, rounded down."""
        rho = self._rho
        first = self._firsts.get(event.night, 0) - event.worst
        square = self._squares.get(event.night, 0) - event.worst * event.worst
        rest = limit * limit * _PARTS - (_PARTS - rho) * square - rho * first * first
        if rest < 0:
            return -1
        # w^2 + 2 * rho * S1 * w <= rest, everything in millionths of squared money.
        half = rho * first
        return (isqrt(half * half + _PARTS * rest) - half) // _PARTS

    @property
    def _rho(self) -> int:
        return int(self.limits.correlation * _PARTS)

    def night_loss(self, series: str, day: str) -> Money:
        """The correlated loss of one series and day, rounded up."""
        first, square = self._firsts.get((series, day), 0), self._squares.get((series, day), 0)
        value = ((_PARTS - self._rho) * square + self._rho * first * first) // _PARTS
        root = isqrt(value)
        return Money(root if root * root == value else root + 1)

    def uses(self) -> tuple[ScopeUse, ...]:
        """Every limit that is set and used, fullest first; that of the portfolio also when nothing is at risk."""
        limits = self.limits
        found: list[ScopeUse] = []
        if limits.event is not None:
            found += [_use("event", e.ticker, e.worst, limits.event) for e in self._events.values()]
        of_sums = self._limit_by_scope()
        for (scope, name), loss in self._sums.items():
            limit = of_sums[scope]
            if limit is not None and scope != "portfolio":
                found.append(_use(scope, name, loss, limit))
        if limits.night is not None:
            for series, day in self._firsts:
                found.append(_use("night", f"{series} {day}", self.night_loss(series, day), limits.night))
        found = [use for use in found if use.loss]
        if limits.portfolio is not None:
            found.append(_use("portfolio", "all events", self.total, limits.portfolio))
        return tuple(
            sorted(found, key=lambda use: (-Fraction(use.loss, max(use.limit, 1)), use.scope, use.name))
        )


def _outcomes(
    shape: EventShape, ticker: MarketTicker, markets: Mapping[MarketTicker, MarketLosses]
) -> list[tuple[bool, int]]:
    """Each outcome as (this market pays, loss without the order that is asked about)."""
    if shape.is_mutually_exclusive and shape.is_netted:
        return [(winner == ticker, loss) for winner, loss in event_losses(shape, markets).items()]
    others = sum(max(markets.get(t, NO_LOSSES)) for t in shape.markets if t != ticker)
    lost, paid = markets.get(ticker, NO_LOSSES)
    return [(False, others + lost), (True, others + paid)]


def _use(scope: str, name: str, loss: int, limit: Money) -> ScopeUse:
    return ScopeUse(scope=scope, name=name, loss=Money(loss), limit=limit)

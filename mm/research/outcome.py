"""What a run came to: its fills with what the market did after them, and the money taken apart.

The identity behind the split, per fill of `count` at `price` with sign +1 for a buy: against the mid of the moment, the
fill earned `(mid - price) * sign * count`; what the position was worth later moved by `(later - mid) * sign * count`.
Summed to the settlement both are the gross result. Mids are kept doubled, so that they stay whole numbers.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from mm.domain.commands import FlattenReason
from mm.domain.errors import InvariantError
from mm.domain.fill import Fill, Liquidity
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Money, Price, round_half_up_div
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import event_of
from mm.engine.backtest.result import NO_TO, YES_FROM, SettlementSource
from mm.research.loop import Backtest
from mm.research.options import BacktestOptions
from mm.research.room import NEVER, Room, Watcher
from mm.research.tape import Tape

HORIZONS: Final[tuple[Micros, ...]] = tuple(Micros(s * SECOND) for s in (1, 5, 30, 300))
"""After a fill, when the mid is looked at again."""
SAMPLES: Final = 1_500
"""Points of a run's equity, at most about so many."""
MARKET_SAMPLES: Final = 600
"""Points of one market's curves, at most about so many."""
CHARTED: Final = 100
"""Markets whose curves are kept, when there are more than twice as many."""


@attrs.define(kw_only=True)
class FillOutcome:
    """One fill and its afterlife."""

    fill: Fill
    net_after: Count
    twice_mid: int | None
    """Twice the recorded book's mid before the fill; None when it was one-sided."""
    behind: Count | None = None
    """Contracts displayed at the price when the quote came to it; None of an exit."""
    later: dict[Micros, int | None] = attrs.field(factory=dict)
    """Horizon -> twice the mid then; None (or absent) when nobody knows."""
    settled_at: Price | None = None
    """What one YES paid, or is taken to have paid."""

    @property
    def is_quote(self) -> bool:
        """A resting quote was hit; else we crossed to get out."""
        return self.fill.liquidity is Liquidity.MAKER

    def twice_spread(self) -> int | None:
        """Twice the money by which the fill was better than the mid."""
        if self.twice_mid is None:
            return None
        return (self.twice_mid - 2 * self.fill.price) * self.fill.signed_count

    def twice_markout(self, horizon: Micros) -> int | None:
        """Twice the money that the mid moved our way (negative: against us) up to the horizon."""
        later = self.later.get(horizon)
        if later is None or self.twice_mid is None:
            return None
        return (later - self.twice_mid) * self.fill.signed_count

    def twice_to_settlement(self) -> int | None:
        """Twice the money that the mid moved our way up to the settlement."""
        if self.settled_at is None or self.twice_mid is None:
            return None
        return (2 * self.settled_at - self.twice_mid) * self.fill.signed_count

    @property
    def game(self) -> str:
        """What is one bet: both markets of a match belong together."""
        return event_of(self.fill.ticker) or self.fill.ticker


@attrs.frozen
class Sample:
    """A market at a moment, for curves."""

    at: Micros
    bid: Price | None
    ask: Price | None
    our_bid: Price | None
    our_ask: Price | None
    net: Count


@attrs.frozen(kw_only=True)
class MarketOutcome:
    """One market's result."""

    ticker: MarketTicker
    settlement_price: Price
    settlement_source: SettlementSource
    fills: tuple[FillOutcome, ...]
    triggers: dict[FlattenReason, int]
    gross: Money
    fees: Money
    settlement_pnl: Money
    max_abs_position: Count
    final_position: Count
    samples: tuple[Sample, ...]

    @property
    def game(self) -> str:
        """What is one bet: both markets of a match belong together."""
        return event_of(self.ticker) or self.ticker

    @property
    def net(self) -> Money:
        """After fees."""
        return Money(self.gross - self.fees)

    @property
    def contracts(self) -> Count:
        """Quote and flatten fills."""
        return Count(sum(f.fill.count for f in self.fills))

    def cash_pnl(self) -> Money:
        """The net result from cash alone: what was paid and got, and the payout. Must equal `net`."""
        cash = sum(-f.fill.price * f.fill.signed_count - f.fill.fee for f in self.fills)
        return Money(cash + self.final_position * self.settlement_price)


@attrs.frozen(kw_only=True)
class Outcome:
    """One run's result."""

    options: BacktestOptions
    markets: tuple[MarketOutcome, ...]
    equity: tuple[tuple[Micros, Money], ...]
    """Marked net result over all markets."""
    held: tuple[tuple[Micros, Count], ...]
    """Contracts held, without sign, over all markets."""
    decisions: int
    orders: int
    refusals: dict[str, int]

    @property
    def net(self) -> Money:
        """After fees."""
        return Money(sum(m.net for m in self.markets))

    @property
    def fees(self) -> Money:
        """All of them."""
        return Money(sum(m.fees for m in self.markets))

    @property
    def contracts(self) -> Count:
        """Traded."""
        return Count(sum(m.contracts for m in self.markets))

    @property
    def fills(self) -> list[FillOutcome]:
        """Of all markets, market by market."""
        return [f for m in self.markets for f in m.fills]

    @property
    def drawdown(self) -> Money:
        """The deepest fall of the equity from a height before it."""
        height = deepest = 0
        for _, value in self.equity:
            height = max(height, value)
            deepest = max(deepest, height - value)
        return Money(deepest)


@attrs.define(eq=False)
class Observer(Watcher):
    """Watches a run and sums it up."""

    step: Micros
    """Between two samples."""
    _fills: dict[MarketTicker, list[FillOutcome]] = attrs.field(factory=dict)
    _due: dict[Micros, "deque[tuple[int, Room, FillOutcome]]"] = attrs.field(
        factory=lambda: {horizon: deque() for horizon in HORIZONS}
    )
    _triggers: dict[MarketTicker, list[FlattenReason]] = attrs.field(factory=dict)
    _peaks: dict[MarketTicker, int] = attrs.field(factory=dict)
    _samples: dict[MarketTicker, list[Sample]] = attrs.field(factory=dict)
    _equity: list[tuple[Micros, Money]] = attrs.field(factory=list)
    _held: list[tuple[Micros, Count]] = attrs.field(factory=list)
    _run: Backtest | None = None
    _next_sample: int = 0
    _next_due: int = NEVER
    _looks: list[tuple[int, int, int, int]] = attrs.field(factory=list)
    """(next look at a market, its place, every so long, until then), a heap."""

    def watch(self, run: Backtest, *, curves: bool = True) -> None:
        """Before the run. Without curves only sums are kept."""
        self._run = run
        if not curves:
            self._next_sample = NEVER
            return
        for place, (first, last) in enumerate(market_spans(run.tape)):
            if place < CHARTED or len(run.rooms) <= 2 * CHARTED:
                step = max(SECOND // 4, (last - first) // MARKET_SAMPLES)
                heapq.heappush(self._looks, (first + 1, place, step, last))

        self._set_due()

    def on_time(self, now: Micros) -> None:
        """See `Watcher`."""
        if now > self._next_due:
            self._look_back(now)
        if self._looks and now >= self._looks[0][0]:
            self._look(now)
        if now >= self._next_sample:
            self._sample(now)
        self._set_due()

    def _set_due(self) -> None:
        look = self._looks[0][0] if self._looks else NEVER
        self.due = min(self._next_due + 1, look, self._next_sample)

    def _look_back(self, now: int) -> None:
        """Marks that have come due: the mid as it stood then is the mid now, nothing has happened since."""
        self._next_due = NEVER
        for horizon, waiting in self._due.items():
            while waiting and waiting[0][0] < now:
                _, room, fill = waiting.popleft()
                fill.later[horizon] = None if room.is_over else room.twice_mid
            if waiting:
                self._next_due = min(self._next_due, waiting[0][0])

    def _sample(self, now: Micros) -> None:
        run = self._run
        assert run is not None
        self._next_sample = now + self.step
        total = held = 0
        for room in run.rooms:
            inventory = run.floor.inventory(room.ticker)
            if room.ticker in self._fills:
                mid = round_half_up_div(room.last_twice_mid or 0, 2)
                total += inventory.marked_pnl(Price(mid))
                held += abs(inventory.net)
        self._equity.append((now, Money(total)))
        self._held.append((now, Count(held)))

    def _look(self, now: Micros) -> None:
        """Keep what markets look like now that are due."""
        assert self._run is not None
        while self._looks and self._looks[0][0] <= now:
            _, place, step, until = heapq.heappop(self._looks)
            room = self._run.rooms[place]
            if room.is_over or now > until:
                continue
            heapq.heappush(self._looks, (now + step, place, step, until))
            book, orders = room.paper.book, room.paper.orders
            self._samples.setdefault(room.ticker, []).append(
                Sample(
                    at=now,
                    bid=book.best_bid,
                    ask=book.best_ask,
                    our_bid=max((o.price for o in orders[Side.BID]), default=None),
                    our_ask=min((o.price for o in orders[Side.ASK]), default=None),
                    net=self._run.floor.inventory(room.ticker).net,
                )
            )

    def on_fill(self, room: Room, fill: Fill) -> None:
        """See `Watcher`."""
        assert self._run is not None
        net = self._run.floor.inventory(room.ticker).net
        behind = room.paper.joined_behind.get(fill.order_id) if fill.liquidity is Liquidity.MAKER else None
        outcome = FillOutcome(fill=fill, net_after=net, twice_mid=room.twice_mid, behind=behind)
        self._fills.setdefault(room.ticker, []).append(outcome)
        self._peaks[room.ticker] = max(self._peaks.get(room.ticker, 0), abs(net))
        for horizon, waiting in self._due.items():
            waiting.append((fill.ts + horizon, room, outcome))
            self._next_due = min(self._next_due, fill.ts + horizon)
        self._set_due()

    def on_trigger(self, ticker: MarketTicker, reason: FlattenReason, now: Micros) -> None:
        """See `Watcher`."""
        self._triggers.setdefault(ticker, []).append(reason)

    def finish(self, given: Price | None = None) -> Outcome:
        """Settle what is left, and sum up. `given` is the settlement price of every market; else see `_value`.

        Raises `InvariantError` when cash and inventory disagree.
        """
        run = self._run
        assert run is not None
        end = run.now
        self._look_back(end + 1)
        self._sample(end)
        found = tuple(self._market(room, given, end) for room in run.rooms)
        self._equity.append((end, Money(sum(m.net for m in found))))
        return Outcome(
            options=run.options,
            markets=found,
            equity=tuple(self._equity),
            held=tuple(self._held),
            decisions=run.decisions,
            orders=run.errands.orders,
            refusals=run.errands.refusals,
        )

    def _market(self, room: Room, given: Price | None, end: Micros) -> MarketOutcome:
        assert self._run is not None
        inventory = self._run.floor.inventory(room.ticker)
        fills = tuple(self._fills.get(room.ticker, ()))
        value, source = _value(room, given)
        for fill in fills:
            fill.settled_at = value
        final = inventory.net
        settlement = sum(part.gross for part in inventory.settle(value, end)) if final else 0
        triggers: dict[FlattenReason, int] = {}
        for reason in self._triggers.get(room.ticker, ()):
            triggers[reason] = triggers.get(reason, 0) + 1
        found = MarketOutcome(
            ticker=room.ticker,
            settlement_price=value,
            settlement_source=source,
            fills=fills,
            triggers=triggers,
            gross=inventory.realized_gross if fills else Money(0),
            fees=inventory.fees if fills else Money(0),
            settlement_pnl=Money(settlement),
            max_abs_position=Count(self._peaks.get(room.ticker, 0)),
            final_position=final,
            samples=tuple(self._samples.get(room.ticker, ())),
        )
        if found.cash_pnl() != found.net:
            raise InvariantError(f"{room.ticker}: cash says {found.cash_pnl()}, inventory {found.net}")
        return found


def _value(room: Room, given: Price | None) -> tuple[Price, SettlementSource]:
    """The settlement price: given, recorded, decided by the last mid, else that mid itself."""
    if given is not None:
        return given, SettlementSource.GIVEN
    if room.info.result is not None:
        return room.info.result, SettlementSource.GIVEN
    if room.last_twice_mid is None:
        return Price(0), SettlementSource.LAST_PRICE
    last = Price(round_half_up_div(room.last_twice_mid, 2))
    if last >= YES_FROM:
        return DOLLAR, SettlementSource.INFERRED
    if last <= NO_TO:
        return Price(0), SettlementSource.INFERRED
    return last, SettlementSource.LAST_PRICE


def market_spans(tape: Tape) -> list[tuple[int, int]]:
    """The first and the last moment of each market; (0, 0) for one without rows."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for at, place in zip(tape.at, tape.market, strict=True):
        first.setdefault(place, at)
        last[place] = at
    return [(first.get(place, 0), last.get(place, 0)) for place in range(len(tape.markets))]


def run_tape(
    tape: Tape,
    options: BacktestOptions,
    *,
    given: Price | None = None,
    on_progress: Callable[[int], None] | None = None,
    curves: bool = True,
) -> Outcome:
    """One run from beginning to end; without `curves` only sums and fills are kept."""
    first, last = tape.span
    observer = Observer(Micros(max(SECOND, (last - first) // SAMPLES)))
    run = Backtest(tape, options, observer)
    observer.watch(run, curves=curves)
    run.run(on_progress)
    return observer.finish(given)

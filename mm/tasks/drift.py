"""Positions here against positions at the exchange, and what is done when they differ.

Reads lag: the exchange may tell a position that was ours two seconds ago, or one that a fill still on its way explains.
A difference counts as drift only when no state of ours since the age of the read explains it, nor a fill that an order
report has announced. Drift that outlives `DRIFT_AFTER_S` holds the market, is told with both numbers and the history
since the last agreement, and is repaired from the exchange's fills. It is never overwritten.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain, combinations
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fill import Fill
from mm.domain.numbers import SECOND, Count, Micros, format_count, format_price
from mm.domain.order import MarketTicker, Order
from mm.domain.tickers import format_time
from mm.exchange import endpoints
from mm.exchange.port import Exchange
from mm.tasks.budget import ReadBudget
from mm.tasks.floor import Floor

log = structlog.get_logger(__name__)

DRIFT_AFTER_S: Final = 6.0
"""An unexplained difference younger than this is not acted on."""
REPAIR_PERIOD_S: Final = 30.0
"""Between two readings of the whole history for a difference that stays."""
AGE_MARGIN: Final = Micros(2 * SECOND)
"""The exchange's clock of its reads is taken for so much less exact."""
TOLD_FILLS: Final = 20
_ANNOUNCED: Final = 4
"""Orders with announced fills that are considered in all combinations."""


@attrs.frozen
class Agreement:
    """When both sides last told the same."""

    at: Micros
    position: Count


@attrs.define(eq=False, kw_only=True)
class Drift:
    """A difference that nothing explains."""

    ours: Count
    theirs: Count
    since: float
    """Monotonic."""
    is_told: bool = False
    repairs: int = 0
    repaired_at: float = -REPAIR_PERIOD_S


@attrs.frozen(kw_only=True)
class DriftReport:
    """What people are told."""

    ticker: MarketTicker
    ours: Count
    theirs: Count
    agreed: Agreement | None
    fills: tuple[Fill, ...]
    """Ours since the agreement, the newest `TOLD_FILLS` of them."""
    fill_count: int
    announced: tuple[Order, ...] = ()
    """Orders whose reports tell of fills that have not come."""

    def text(self) -> str:
        """Both numbers and the history since the last agreement."""
        lines = [
            f"{self.ticker}: our position is {format_count(self.ours)}, the exchange's {format_count(self.theirs)}; "
            "the market is held until they agree, and the exchange's fills are read anew"
        ]
        if self.agreed is None:
            lines.append("They have not agreed since the start.")
        else:
            lines.append(
                f"They last agreed at {format_time(self.agreed.at)} on {format_count(self.agreed.position)}."
            )
        lines.append(f"Our fills since then: {self.fill_count or 'none'}")
        if self.fill_count > len(self.fills):
            lines.append(f"(the last {len(self.fills)} of them)")
        lines += [
            f"{format_time(f.ts)} {f.side.value} {format_count(f.count)} at {format_price(f.price)}"
            f" trade {f.trade_id} order {f.order_id}"
            for f in self.fills
        ]
        lines += [
            f"order {o.order_id} reports {format_count(o.unbooked)} filled that we have no fill of"
            for o in self.announced
        ]
        return "\n".join(lines)


@attrs.define(eq=False, kw_only=True)
class PositionCheck:
    """Compares positions; holds and frees markets."""

    exchange: Exchange
    floor: Floor
    reads: ReadBudget
    clock: Callable[[], Micros]
    read_fills: Callable[[], Awaitable[object]]
    """A pass of the reconciler."""
    repair: Callable[[MarketTicker, Micros | None], Awaitable[None]]
    """Read the exchange's fills anew since a time (None: all) and rebuild the market."""
    want_settlements: Callable[[], None]
    on_drift: Callable[[DriftReport], None]
    on_agreed: Callable[[MarketTicker, Count, Count], None]
    """A told drift is over: position before, position now."""
    drifts: dict[MarketTicker, Drift] = attrs.field(factory=dict)
    is_equal: bool | None = None
    """Result of the last comparison; None before the first."""
    _agreed: dict[MarketTicker, Agreement] = attrs.field(factory=dict)

    async def compare(self) -> bool:
        """Whether all positions are the same on both sides, right now. Raises `ExchangeError`."""
        theirs = await self._read()
        different = self._different(theirs)
        if different:
            # How old a read may be must be asked before it; what is to be compared with it is read after it.
            await self.reads.take(self.reads.limits.cost(*endpoints.USER_DATA_TIMESTAMP))
            as_of = await self.exchange.user_data_age()
            theirs = await self._read()
            await self.read_fills()
            different = self._different(theirs)
        else:
            as_of = Micros(0)
        self._agree(theirs, different)
        for ticker in different:
            await self._look(ticker, theirs.get(ticker, Count(0)), as_of)
        self.is_equal = not different
        return not different

    async def _read(self) -> dict[MarketTicker, Count]:
        await self.reads.take(self.reads.limits.cost(*endpoints.POSITIONS))
        return {p.ticker: p.position for p in await self.exchange.positions()}

    def _different(self, theirs: dict[MarketTicker, Count]) -> list[MarketTicker]:
        positions = self.floor.positions
        return sorted(
            ticker
            for ticker in theirs.keys() | positions.histories.keys()
            # A settled market's position may still be listed for a while.
            if ticker not in positions.settled and positions.net(ticker) != theirs.get(ticker, 0)
        )

    def _agree(self, theirs: dict[MarketTicker, Count], different: Sequence[MarketTicker]) -> None:
        now = self.clock()
        apart = set(different)
        histories = self.floor.positions.histories
        for ticker in histories:
            if ticker not in apart:
                self._agreed[ticker] = Agreement(now, self.floor.positions.net(ticker))
        for ticker in [t for t in self._agreed if t not in histories]:
            del self._agreed[ticker]
        for ticker in [t for t in self.drifts if t not in apart]:
            self._over(ticker)

    def _over(self, ticker: MarketTicker) -> None:
        drift = self.drifts.pop(ticker)
        if drift.is_told:
            now = self.floor.positions.net(ticker)
            log.warning("positions agree again", market=ticker, before=drift.ours, now=now)
            self.floor.lift(ticker, "drift")
            self.on_agreed(ticker, drift.ours, now)

    async def _look(self, ticker: MarketTicker, theirs: Count, as_of: Micros) -> None:
        ours = self.floor.positions.net(ticker)
        drift = self.drifts.get(ticker)
        if drift is None or not drift.is_told:
            if theirs in self._possible(ticker, as_of):
                self.drifts.pop(ticker, None)
                return
            if ours and not theirs:
                self.want_settlements()  # a market that was settled has no position at the venue any more
        now = trio.current_time()
        if drift is None:
            self.drifts[ticker] = Drift(ours=ours, theirs=theirs, since=now)
            return
        drift.ours, drift.theirs = (drift.ours if drift.is_told else ours), theirs
        if now - drift.since < DRIFT_AFTER_S:
            return
        if not drift.is_told:
            drift.is_told = True
            log.error("position differs", market=ticker, ours=ours, exchange=theirs)
            self.floor.hold(ticker, "drift", "our position is not the exchange's")
            self.on_drift(self._report(ticker, ours, theirs))
        await self._repair(ticker, drift)

    async def _repair(self, ticker: MarketTicker, drift: Drift) -> None:
        """First from the last agreement on, then everything, and that not too often."""
        now = trio.current_time()
        if drift.repairs > 1 and now - drift.repaired_at < REPAIR_PERIOD_S:
            return
        agreed = self._agreed.get(ticker)
        since = agreed.at if agreed is not None and not drift.repairs else None
        drift.repairs += 1
        drift.repaired_at = now
        await self.repair(ticker, since)

    def _possible(self, ticker: MarketTicker, as_of: Micros) -> set[int]:
        """Every position that a read as old as `as_of` may show without contradicting what we know."""
        states = set(self._states_since(ticker, Micros(as_of - AGE_MARGIN)))
        announced = [o.unbooked * o.side.sign for o in self._announced(ticker)][:_ANNOUNCED]
        subsets = chain.from_iterable(combinations(announced, n) for n in range(len(announced) + 1))
        extra = {sum(subset) for subset in subsets}
        return {state + more for state in states for more in extra}

    def _states_since(self, ticker: MarketTicker, since: Micros) -> Iterator[int]:
        position = int(self.floor.positions.net(ticker))
        yield position
        history = self.floor.positions.histories.get(ticker)
        for fill in reversed(history.recent if history is not None else ()):
            if fill.ts < since:
                return
            position -= fill.signed_count
            yield position

    def _announced(self, ticker: MarketTicker) -> list[Order]:
        return [order for order in self.floor.orders(ticker) if order.unbooked]

    def _report(self, ticker: MarketTicker, ours: Count, theirs: Count) -> DriftReport:
        history = self.floor.positions.histories.get(ticker)
        recent = history.recent if history is not None else ()
        agreed = self._agreed.get(ticker)
        since = Micros(agreed.at - AGE_MARGIN) if agreed is not None else Micros(0)
        fills = tuple(fill for fill in recent if fill.ts >= since)
        return DriftReport(
            ticker=ticker,
            ours=ours,
            theirs=theirs,
            agreed=agreed,
            fills=fills[-TOLD_FILLS:],
            fill_count=len(fills),
            announced=tuple(self._announced(ticker)),
        )

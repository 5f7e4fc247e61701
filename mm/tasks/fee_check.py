"""Is every fee what the exchange's own rules make of the fill? To the micro-dollar, or an alert names the fill.

The fills of an order are run through its rounding account in their order. The schedule is the series' with the
event's overrides; both are read when they are first needed, and again when a fee does not fit, as they change while
markets are open. Fills made before a change are held against the schedule of their time.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from itertools import groupby, permutations
from operator import attrgetter
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fees import PRECISION_DIRECT, PRECISION_INTERMEDIATED, FeeAccumulator, FeeSchedule, FeeType
from mm.domain.fill import Fill, TradeId
from mm.domain.numbers import Micros, Money, format_count, format_money, format_price
from mm.domain.order import MarketTicker, OrderId
from mm.exchange import endpoints
from mm.exchange.port import Exchange
from mm.tasks.budget import ReadBudget

log = structlog.get_logger(__name__)

REREAD_S: Final = 30.0
"""A schedule younger than this is not read again for another fee that does not fit."""
MOST_AT_ONCE: Final = 6
"""Fills of one order at one instant whose order is looked for: 720 ways at most."""
KEPT_VERSIONS: Final = 4
KEPT_EVENTS: Final = 512
_WAIVED: Final = FeeSchedule(FeeType.QUADRATIC, Fraction(0))

FillKey = tuple[OrderId, TradeId]


@attrs.frozen(kw_only=True)
class FeeMismatch:
    """A fee that the model does not explain."""

    fill: Fill
    expected: Money | None
    """None: the venue's fee model is not one we know."""

    def text(self) -> str:
        """Names the fill and both numbers."""
        fill = self.fill
        expected = "no fee model" if self.expected is None else f"{format_money(self.expected)} dollars"
        return (
            f"{fill.ticker}: fee of trade {fill.trade_id}, order {fill.order_id} "
            f"({fill.liquidity.value} {fill.side.value} {format_count(fill.count)} at {format_price(fill.price)}): "
            f"charged {format_money(fill.fee)} dollars, expected {expected}"
        )


@attrs.define(eq=False)
class _Event:
    """What is known of an event's fees: newest first."""

    versions: list[FeeSchedule] = attrs.field(factory=list)
    read_at: float = -REREAD_S


@attrs.define(eq=False, kw_only=True)
class FeeCheck:
    """Checks fees of fills that the exchange has confirmed by a read."""

    exchange: Exchange
    reads: ReadBudget
    fills_of_orders: Callable[[Sequence[OrderId]], Awaitable[dict[OrderId, list[Fill]]]]
    """All fills of these orders, each order's in exchange order."""
    waived_until: Callable[[MarketTicker], Micros | None]
    on_mismatch: Callable[[FeeMismatch], None]
    precision: Money = PRECISION_DIRECT
    """The account's; found out by what fits."""
    checked: int = 0
    mismatches: int = 0
    _events: "OrderedDict[str, _Event]" = attrs.field(factory=OrderedDict)

    async def check(self, fills: Sequence[Fill]) -> None:
        """Check these fills, each within its order. Raises `ExchangeError` when a schedule could not be read."""
        if not fills:
            return
        wanted = {fill.key for fill in fills}
        orders = await self.fills_of_orders(sorted({fill.order_id for fill in fills}))
        for history in orders.values():
            for wrong in await self._check_order(history):
                if wrong.fill.key in wanted:
                    self.mismatches += 1
                    log.error("fee differs", fill=wrong.text())
                    self.on_mismatch(wrong)
        self.checked += len(wanted)

    async def _check_order(self, fills: Sequence[Fill]) -> list[FeeMismatch]:
        ticker = fills[0].ticker
        event = await self._event(ticker, is_reread=False)
        wrong = self._run(fills, event, self.precision)
        if wrong:
            event = await self._event(ticker, is_reread=True)
            wrong = self._run(fills, event, self.precision)
        if wrong:
            other = PRECISION_INTERMEDIATED if self.precision == PRECISION_DIRECT else PRECISION_DIRECT
            if not self._run(fills, event, other) and any(fill.fee for fill in fills):
                log.info("balance precision of the account", precision=format_money(other))
                self.precision = other
                return []
        return wrong

    def _run(self, fills: Sequence[Fill], event: _Event, precision: Money) -> list[FeeMismatch]:
        held = Money(0)
        wrong: list[FeeMismatch] = []
        for _, together in groupby(fills, key=attrgetter("ts")):
            for fill in self._as_charged(list(together), event, precision, held):
                expected, after = self._charge(fill, event, precision, held)
                if expected is None:
                    wrong.append(FeeMismatch(fill=fill, expected=None))
                    continue
                held = after
                if expected != fill.fee:
                    wrong.append(FeeMismatch(fill=fill, expected=expected))
        return wrong

    def _as_charged(self, fills: list[Fill], event: _Event, precision: Money, held: Money) -> Sequence[Fill]:
        """Fills of one instant in an order that explains their fees, else as they are.

        One taker may meet an order several times within a microsecond; their ids are random, so the order in which
        the rounding account saw them can only be told from the fees.
        """
        if not 1 < len(fills) <= MOST_AT_ONCE:
            return fills
        for order in permutations(fills):
            account = held
            for fill in order:
                expected, account = self._charge(fill, event, precision, account)
                if expected != fill.fee:
                    break
            else:
                return order
        return fills

    def _charge(self, fill: Fill, event: _Event, precision: Money, held: Money) -> tuple[Money | None, Money]:
        """What one fill should be charged (None: no model knows), and the order's account afterwards."""
        until = self.waived_until(fill.ticker)
        versions = event.versions if until is None or fill.ts >= until else [_WAIVED, *event.versions]
        expected: Money | None = None
        after = held
        for schedule in versions:
            if schedule.fee_type is FeeType.FLAT:
                continue
            account = FeeAccumulator(precision, held)
            charged = account.charge(schedule, fill.side, fill.price, fill.count, fill.liquidity).charged
            if expected is None or charged == fill.fee:
                expected, after = charged, account.held
            if charged == fill.fee:
                break
        return expected, after

    async def _event(self, ticker: MarketTicker, *, is_reread: bool) -> _Event:
        name = ticker.rpartition("-")[0]
        event = self._events.setdefault(name, _Event())
        self._events.move_to_end(name)
        while len(self._events) > KEPT_EVENTS:
            self._events.popitem(last=False)
        now = trio.current_time()
        if not event.versions or (is_reread and now - event.read_at >= REREAD_S):
            schedule = await self._read(name, ticker.partition("-")[0])
            event.read_at = now
            if schedule in event.versions:
                event.versions.remove(schedule)
            event.versions.insert(0, schedule)
            del event.versions[KEPT_VERSIONS:]
        return event

    async def _read(self, event_ticker: str, series_ticker: str) -> FeeSchedule:
        await self.reads.take(self.reads.limits.cost(*endpoints.SERIES))
        series = await self.exchange.series(series_ticker)
        await self.reads.take(self.reads.limits.cost(*endpoints.EVENT))
        event = await self.exchange.event(event_ticker)
        multiplier = event.fee_multiplier_override
        return FeeSchedule(
            event.fee_type_override or series.fee_type,
            series.fee_multiplier if multiplier is None else multiplier,
        )

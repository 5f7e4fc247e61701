"""What a back-test of one market found: its fills and the numbers over them."""

import enum
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import attrs

from mm.domain.commands import FlattenReason
from mm.domain.fees import TAKER_RATE, model_fee
from mm.domain.fill import Trade
from mm.domain.inventory import InventoryState, RealizedPart
from mm.domain.numbers import DOLLAR, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side

QUOTE_RATE: Final = Fraction(175, 10_000)
"""The back-test charges every series the same: this for a quote, `TAKER_RATE` for a flatten, nothing to settle."""
FEE_UNIT: Final = Money(100)
"""Fees are rounded up to 0.0001 dollar, each fill for itself."""
YES_FROM: Final = Price(9_700)
NO_TO: Final = Price(300)


class FillKind(enum.Enum):
    """How a fill came about."""

    QUOTE = "quote"
    FLATTEN = "flatten"
    SETTLEMENT = "settlement"


class SettlementSource(enum.Enum):
    """Where the settlement price comes from."""

    GIVEN = "given"
    INFERRED = "inferred"
    """The last print was so near 0 or 1 that the outcome is taken as decided."""
    LAST_PRICE = "last_price"


@attrs.frozen(kw_only=True)
class BacktestFill:
    """One fill. `side` BID: we bought."""

    ts: Micros
    side: Side
    price: Price
    count: Count
    fee: Money
    kind: FillKind
    net_after: Count
    reason: FlattenReason | None = None
    """Of a flatten."""


@attrs.frozen(kw_only=True)
class MarketResult:
    """One market's back-test."""

    ticker: MarketTicker
    settlement_price: Price
    settlement_source: SettlementSource
    trades: int
    """Prints used."""
    contracts_bought: Count
    contracts_sold: Count
    triggers: dict[FlattenReason, int]
    realized_pnl_gross: Money
    settlement_pnl: Money
    fees: Money
    max_abs_position: Count
    final_position_before_settlement: Count
    median_hold: Micros | None
    fills: tuple[BacktestFill, ...]

    @property
    def fill_count(self) -> int:
        """Quote and flatten fills."""
        return sum(fill.kind is not FillKind.SETTLEMENT for fill in self.fills)

    @property
    def realized_pnl_net(self) -> Money:
        """After fees."""
        return Money(self.realized_pnl_gross - self.fees)


TRIGGERS: Final = (
    FlattenReason.DURATION_WEIGHTED,
    FlattenReason.MAE_FAILSAFE,
    FlattenReason.EXTREME_PRICE,
)


@attrs.define(eq=False)
class Account:
    """Books a back-test's fills into an inventory and keeps what the result needs."""

    inventory: InventoryState = attrs.field(factory=InventoryState)
    fills: list[BacktestFill] = attrs.field(factory=list)
    _closed: list[RealizedPart] = attrs.field(factory=list)
    _max_abs_position: int = 0

    def quote_filled(self, side: Side, price: Price, count: Count, ts: Micros) -> None:
        """A resting quote was hit."""
        fee = model_fee(QUOTE_RATE, price, count, FEE_UNIT)
        self._book(side, price, count, fee, ts, FillKind.QUOTE, None)

    def flattened(self, price: Price, ts: Micros, reason: FlattenReason) -> None:
        """The whole position was closed by taking. Nothing happens when flat."""
        if self.inventory.is_flat:
            return
        count = self.inventory.size
        fee = model_fee(TAKER_RATE, price, count, FEE_UNIT)
        self._book(self.inventory.exit_side, price, count, fee, ts, FillKind.FLATTEN, reason)

    def _book(
        self,
        side: Side,
        price: Price,
        count: Count,
        fee: Money,
        ts: Micros,
        kind: FillKind,
        reason: FlattenReason | None,
    ) -> None:
        self._closed.extend(self.inventory.apply(side, price, count, fee, ts))
        self._max_abs_position = max(self._max_abs_position, self.inventory.size)
        self.fills.append(
            BacktestFill(
                ts=ts,
                side=side,
                price=price,
                count=count,
                fee=fee,
                kind=kind,
                net_after=self.inventory.net,
                reason=reason,
            )
        )

    def finish(self, trades: Sequence[Trade], given: Price | None) -> MarketResult:
        """Settle what is left and sum up. `trades` are the prints used, in order, at least one."""
        last = trades[-1]
        value, source = settlement_of(last.price, given)
        inventory = self.inventory
        before = inventory.net
        settlement_pnl = 0
        if before:
            side = inventory.exit_side
            settlement_pnl = sum(part.gross for part in inventory.settle(value, last.ts))
            self.fills.append(
                BacktestFill(
                    ts=last.ts,
                    side=side,
                    price=value,
                    count=Count(abs(before)),
                    fee=Money(0),
                    kind=FillKind.SETTLEMENT,
                    net_after=inventory.net,
                )
            )
        return MarketResult(
            ticker=last.ticker,
            settlement_price=value,
            settlement_source=source,
            trades=len(trades),
            contracts_bought=inventory.bought,
            contracts_sold=inventory.sold,
            triggers={reason: sum(f.reason is reason for f in self.fills) for reason in TRIGGERS},
            realized_pnl_gross=inventory.realized_gross,
            settlement_pnl=Money(settlement_pnl),
            fees=inventory.fees,
            max_abs_position=Count(self._max_abs_position),
            final_position_before_settlement=before,
            median_hold=median_hold(self._closed),
            fills=tuple(self.fills),
        )


def settlement_of(last_price: Price, given: Price | None) -> tuple[Price, SettlementSource]:
    """The settlement price: the given one, else decided by the last print, else that print's own price."""
    if given is not None:
        return given, SettlementSource.GIVEN
    if last_price >= YES_FROM:
        return DOLLAR, SettlementSource.INFERRED
    if last_price <= NO_TO:
        return Price(0), SettlementSource.INFERRED
    return last_price, SettlementSource.LAST_PRICE


def median_hold(parts: Sequence[RealizedPart]) -> Micros | None:
    """The smallest holding time that at least half of the closed contracts do not exceed; None when none closed."""
    total = sum(part.count for part in parts)
    reached = 0
    for part in sorted(parts, key=lambda part: part.hold):
        reached += part.count
        if 2 * reached >= total:
            return part.hold
    return None

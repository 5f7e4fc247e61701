"""What we hold in one market: FIFO layers, realized results, and the exact measures that the risk rules ask for.

Everything is in YES terms: a NO fill at p has become the opposite YES fill at 1 - p before it gets here. Integers
throughout; where a quotient is needed (`vwap_entry`, `mae`) it is a `Fraction`. Marks come from outside; when a
position should be closed is decided in `mm.engine`.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final

import attrs

from mm.domain.errors import InvariantError, MMError
from mm.domain.fill import Fill
from mm.domain.numbers import DOLLAR, Count, Micros, Money, Price
from mm.domain.order import Side


@attrs.frozen
class Layer:
    """Contracts opened by one fill and not yet closed. `count` > 0; the sign is the inventory's."""

    count: Count
    price: Price
    ts: Micros
    fee: Money
    """The part of the opening fill's fee that belongs to `count`."""


@attrs.frozen(kw_only=True)
class RealizedPart:
    """`count` contracts of one layer closed by one fill."""

    count: Count
    entry_price: Price
    exit_price: Price
    entry_ts: Micros
    exit_ts: Micros
    gross: Money
    """Before fees."""
    fee: Money
    """Pro rata: the matched quantity's share of the opening and of the closing fee."""

    @property
    def net(self) -> Money:
        """After both shares of fees."""
        return Money(self.gross - self.fee)

    @property
    def hold(self) -> Micros:
        """How long the contracts were held."""
        return Micros(self.exit_ts - self.entry_ts)


@attrs.define(eq=False)
class InventoryState:
    """One market's inventory. Moves by `apply` (fills) and `settle` alone.

    Fills must come in the venue's order (time, then id); `InventoryHistory` puts a late one in its place.
    """

    _layers: deque[Layer] = attrs.field(factory=deque)
    _net: int = 0
    _cost: int = 0
    """Sum of count * price over the layers, unsigned."""
    _moments: int = 0
    """Sum of count * ts over the layers, unsigned."""
    realized_gross: Money = Money(0)
    """All matched quantity so far, settlement included, before fees."""
    fees: Money = Money(0)
    """All fees as charged, once per fill."""
    bought: Count = Count(0)
    sold: Count = Count(0)
    """Contracts of fills, without settlement."""

    @classmethod
    def from_fills(cls, fills: Iterable[Fill]) -> "InventoryState":
        """The state after these fills, whatever order they are given in."""
        state = cls()
        for fill in sorted(fills, key=fill_order):
            state.apply_fill(fill)
        return state

    # what moves it

    def apply_fill(self, fill: Fill) -> tuple[RealizedPart, ...]:
        """`apply` for a domain `Fill`."""
        return self.apply(fill.side, fill.price, fill.count, fill.fee, fill.ts)

    def apply(
        self, side: Side, price: Price, count: Count, fee: Money, ts: Micros
    ) -> tuple[RealizedPart, ...]:
        """Book one execution: close layers of the other sign from the oldest, open a layer with what is left.

        Args:
            side: BID: we bought YES. ASK: we sold YES.
            fee: As charged for the whole fill; its parts go pro rata to what it closed and what it opened.

        Returns:
            What it closed, oldest layer first; empty when it only opened.

        Raises:
            InvariantError: A count that is not positive, or a price outside 0..1 dollar.
        """
        if count <= 0 or not 0 <= price <= DOLLAR:
            raise InvariantError(f"impossible fill: {side.value} {count} at {price}")
        self.fees = Money(self.fees + fee)
        if side is Side.BID:
            self.bought = Count(self.bought + count)
        else:
            self.sold = Count(self.sold + count)
        return self._match(side.sign, price, count, fee, ts)

    def settle(self, value: Price, ts: Micros) -> tuple[RealizedPart, ...]:
        """The market paid `value` for each YES: everything is closed there, without a fee."""
        if not 0 <= value <= DOLLAR:
            raise InvariantError(f"impossible settlement value {value}")
        if not self._net:
            return ()
        return self._match(-1 if self._net > 0 else 1, value, Count(abs(self._net)), Money(0), ts)

    def _match(self, sign: int, price: Price, count: int, fee: int, ts: Micros) -> tuple[RealizedPart, ...]:
        parts: list[RealizedPart] = []
        while count and self._net * sign < 0:
            layer = self._layers[0]
            closed = min(count, layer.count)
            # Floor shares of what remains, the last share takes the rest: parts always sum to the whole fee.
            exit_fee = fee * closed // count
            entry_fee = layer.fee * closed // layer.count
            gross = Money(closed * (layer.price - price) * sign)
            parts.append(
                RealizedPart(
                    count=Count(closed),
                    entry_price=layer.price,
                    exit_price=price,
                    entry_ts=layer.ts,
                    exit_ts=ts,
                    gross=gross,
                    fee=Money(entry_fee + exit_fee),
                )
            )
            self._consume(layer, closed, entry_fee)
            self._net += closed * sign
            self.realized_gross = Money(self.realized_gross + gross)
            count -= closed
            fee -= exit_fee
        if count:
            self._layers.append(Layer(Count(count), price, ts, Money(fee)))
            self._net += count * sign
            self._cost += count * price
            self._moments += count * ts
        return tuple(parts)

    def _consume(self, layer: Layer, closed: int, fee: int) -> None:
        self._cost -= closed * layer.price
        self._moments -= closed * layer.ts
        if closed == layer.count:
            self._layers.popleft()
        else:
            self._layers[0] = attrs.evolve(
                layer, count=Count(layer.count - closed), fee=Money(layer.fee - fee)
            )

    def copy(self) -> "InventoryState":
        """An independent copy."""
        return attrs.evolve(self, layers=deque(self._layers))

    # what can be asked

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Open layers, oldest first."""
        return tuple(self._layers)

    @property
    def net(self) -> Count:
        """Signed position: + long YES, - short YES."""
        return Count(self._net)

    @property
    def size(self) -> Count:
        """Contracts held, without sign."""
        return Count(abs(self._net))

    @property
    def is_flat(self) -> bool:
        """Nothing is held."""
        return not self._net

    @property
    def sign(self) -> int:
        """+1 long, -1 short, 0 flat."""
        return (self._net > 0) - (self._net < 0)

    @property
    def exit_side(self) -> Side:
        """The side that reduces the position. Raises `InvariantError` when flat."""
        if not self._net:
            raise InvariantError("a flat inventory has no exit side")
        return Side.ASK if self._net > 0 else Side.BID

    @property
    def vwap_entry(self) -> Fraction | None:
        """Average entry price of the layers in `Price` units, exactly; None when flat."""
        return Fraction(self._cost, abs(self._net)) if self._net else None

    def mae(self, mark: Price) -> Fraction:
        """How far `mark` lies on the wrong side of the average entry, in `Price` units, never negative."""
        if not self._net:
            return Fraction(0)
        against = (self._cost - mark * abs(self._net)) * self.sign
        return Fraction(max(against, 0), abs(self._net))

    def mae_value(self, mark: Price) -> Money:
        """`abs(net) * mae(mark)`: the adverse excursion in money, exactly."""
        return Money(max((self._cost - mark * abs(self._net)) * self.sign, 0))

    def duration_weighted_exposure(self, now: Micros) -> int:
        """Sum of count * age over the layers, in `Count` x `Micros` (6,000,000,000 are one contract-minute)."""
        return abs(self._net) * now - self._moments

    def time_of_exposure(self, limit: int) -> Micros | None:
        """The first microsecond at which `duration_weighted_exposure` is at least `limit`; None when flat."""
        if not self._net:
            return None
        return Micros(-(-(limit + self._moments) // abs(self._net)))

    def at_risk(self, side: Side) -> Money:
        """What the layers of a side can lose: count * price when long (BID), count * (1 - price) when short (ASK).

        0 for the side we are not on.
        """
        if self._net * side.sign <= 0:
            return Money(0)
        return Money(self._cost if side is Side.BID else abs(self._net) * DOLLAR - self._cost)

    def unrealized(self, mark: Price) -> Money:
        """Result of closing everything at `mark`, before fees."""
        return Money((mark * abs(self._net) - self._cost) * self.sign)

    @property
    def realized_net(self) -> Money:
        """Realized result less all fees charged."""
        return Money(self.realized_gross - self.fees)

    @property
    def open_fees(self) -> Money:
        """Fees paid for what is still open: charged, in `fees`, but in no `RealizedPart` yet."""
        return Money(sum(layer.fee for layer in self._layers))

    def marked_pnl(self, mark: Price) -> Money:
        """Realized net and unrealized together."""
        return Money(self.realized_net + self.unrealized(mark))


FillKey = tuple[int, str, str]
"""The order of fills: venue time, trade id, order id."""


def fill_order(fill: Fill) -> FillKey:
    """Sort key: the venue's order, never that of arrival."""
    return (fill.ts, fill.trade_id, fill.order_id)


class HistoryTooShort(MMError):
    """A fill is older than what memory holds: the state must be rebuilt from the ledger."""


KEEP_FILLS: Final = 512


@attrs.define(eq=False)
class InventoryHistory:
    """An inventory that can take a late fill: a checkpoint, and the newest fills after it, in order.

    Memory is bounded by twice `keep` fills. The same fill given twice changes nothing while it is in memory; beyond
    that, and for good, the ledger decides what is a duplicate.
    """

    keep: int = KEEP_FILLS
    state: InventoryState = attrs.field(factory=InventoryState)
    _base: InventoryState = attrs.field(factory=InventoryState)
    _base_key: FillKey | None = None
    _fills: list[Fill] = attrs.field(factory=list)
    _is_settled: bool = False

    @classmethod
    def from_fills(cls, fills: Iterable[Fill], keep: int = KEEP_FILLS) -> "InventoryHistory":
        """Rebuilt from all fills of the market, in any order."""
        history = cls(keep)
        for fill in sorted(fills, key=fill_order):
            history.add(fill)
        return history

    @property
    def recent(self) -> Sequence[Fill]:
        """The fills since the checkpoint, in order."""
        return tuple(self._fills)

    def add(self, fill: Fill) -> bool:
        """Book one fill in its place; returns False when it was in memory already (nothing changes then).

        Raises:
            HistoryTooShort: It is older than the checkpoint. Nothing changed; rebuild with `from_fills`.
            InvariantError: The market has been settled here.
        """
        if self._is_settled:
            raise InvariantError(f"fill {fill.trade_id} after settlement of {fill.ticker}")
        key = fill_order(fill)
        if self._base_key is not None and key <= self._base_key:
            raise HistoryTooShort(
                f"fill {fill.trade_id} of {fill.ticker} is older than the inventory's memory"
            )
        place = bisect_left(self._fills, key, key=fill_order)
        if place < len(self._fills) and fill_order(self._fills[place]) == key:
            return False
        self._fills.insert(place, fill)
        if place == len(self._fills) - 1:
            self.state.apply_fill(fill)
        else:
            self._recompute()
        if len(self._fills) >= 2 * self.keep:
            self._fold(len(self._fills) - self.keep)
        return True

    def settle(self, value: Price, ts: Micros) -> tuple[RealizedPart, ...]:
        """Close everything at the settlement value; no fill may follow."""
        self._is_settled = True
        return self.state.settle(value, ts)

    def _recompute(self) -> None:
        self.state = self._base.copy()
        for fill in self._fills:
            self.state.apply_fill(fill)

    def _fold(self, count: int) -> None:
        for fill in self._fills[:count]:
            self._base.apply_fill(fill)
        self._base_key = fill_order(self._fills[count - 1])
        del self._fills[:count]

"""Which quotes we want: the state table, the skew, the clamp to the touch, the size that the limits leave.

Prices are wanted exactly (`Exact`, in `Price` units) and rounded to the market's grid away from the mid; both are
kept, because the replace rule compares the exact one. Whether a wanted quote is sent is decided in `requote`.
"""

import enum
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

import attrs

from mm.domain.grid import TickGrid
from mm.domain.inventory import InventoryState
from mm.domain.numbers import CONTRACT, DOLLAR, Count, Price, whole_contracts
from mm.domain.order import Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters

Exact: TypeAlias = int | Fraction
"""An exact price in `Price` units: an int where it is whole, which it nearly always is and which is ten times faster."""


class PositionState(enum.Enum):
    """The row of the state table that applies."""

    NEUTRAL = "neutral"
    LONG = "long"
    SHORT = "short"

    __hash__ = object.__hash__  # members are singletons; enum's own hashes the name, in Python


def position_state(net: Count, parameters: StrategyParameters) -> PositionState:
    """The one rule for the state: neutral strictly inside the zone, else long or short."""
    if abs(net) < parameters.neutral_zone:
        return PositionState.NEUTRAL
    return PositionState.LONG if net > 0 else PositionState.SHORT


QUOTED_SIDES: dict[PositionState, tuple[Side, ...]] = {
    PositionState.NEUTRAL: (Side.BID, Side.ASK),
    PositionState.LONG: (Side.ASK,),
    PositionState.SHORT: (Side.BID,),
}
"""The state table: outside the neutral zone only the side that reduces is quoted."""


@attrs.frozen(kw_only=True)
class WantedQuote:
    """A quote that should rest."""

    side: Side
    want: Exact
    """The price before rounding."""
    price: Price
    """Rounded to the grid, bid down, ask up; never at or through the touch."""
    count: Count


@attrs.frozen
class WantedQuotes:
    """The wanted quote of each side, None where none is wanted."""

    bid: WantedQuote | None = None
    ask: WantedQuote | None = None

    def of(self, side: Side) -> WantedQuote | None:
        """The wanted quote of that side."""
        return self.bid if side is Side.BID else self.ask


NO_QUOTES = WantedQuotes()


def skewed_half_spread(net: Count, parameters: StrategyParameters) -> Exact:
    """s in the neutral zone, else `s * (1 + abs(net) / C)`."""
    if position_state(net, parameters) is PositionState.NEUTRAL:
        return parameters.base_spread
    cap = parameters.size_cap
    numerator = parameters.base_spread * (cap + abs(net))
    whole, rest = divmod(numerator, cap)
    return Fraction(numerator, cap) if rest else whole


def wanted_price(
    side: Side,
    mark: Price,
    net: Count,
    touch: Touch,
    grid: TickGrid,
    parameters: StrategyParameters,
    *,
    extra_ticks: int = 0,
    bound: Price | None = None,
) -> tuple[Exact, Price] | None:
    """The exact and the rounded price of a side; None when the grid has no such price.

    Args:
        touch: A side that is None does not clamp.
        extra_ticks: How many ticks further out (churn brake, guards).
        bound: The highest bid or lowest ask that may be, whatever is wanted (`mm.engine.risk.free_money`).
    """
    half = skewed_half_spread(net, parameters)
    if side is Side.BID:
        want = mark - half
        if touch.best_ask is not None:
            inside = one_tick_inside(Side.BID, touch.best_ask, grid)
            if inside < want:
                want = inside
        price = grid.at_or_below(math.floor(want))
    else:
        want = mark + half
        if touch.best_bid is not None:
            inside = one_tick_inside(Side.ASK, touch.best_bid, grid)
            if inside > want:
                want = inside
        price = grid.at_or_above(math.ceil(want))
    for _ in range(extra_ticks):
        if price is None:
            return None
        further = grid.tick_below(price) if side is Side.BID else grid.tick_above(price)
        if further is not None:
            want += further - price
        price = further
    if price is None:
        return None
    if bound is not None and (bound < price if side is Side.BID else bound > price):
        want = bound
        price = grid.at_or_below(bound) if side is Side.BID else grid.at_or_above(bound)
    return None if price is None else (want, price)


def one_tick_inside(side: Side, opposite: Price, grid: TickGrid) -> int:
    """The best price that a quote of `side` may have without reaching `opposite`, the other side's best.

    One tick away from it; where `opposite` is no price of the grid (a touch derived from prints), the width of the
    tick there decides. The result may lie off the grid and outside 0..1 dollar: it is a bound, not a price.
    """
    if grid.is_valid(opposite):
        neighbour = grid.tick_below(opposite) if side is Side.BID else grid.tick_above(opposite)
        if neighbour is not None:
            return neighbour
    step = next((band.step for band in grid.bands if band.start <= opposite <= band.end), grid.bands[0].step)
    return opposite - side.sign * step


def room(
    side: Side,
    price: Price,
    inventory: InventoryState,
    parameters: StrategyParameters,
    pending: Sequence[tuple[Price, Count]] = (),
) -> Count:
    """How many whole contracts a quote at `price` may have: size, position limit and value limit; may be negative.

    Args:
        price: A valid price, strictly between 0 and 1 dollar.
        pending: Other orders of the same side of this market that may still fill (working or unknown), as
            (price, leaves). They count as if filled, those that risk most last.
    """
    net = inventory.net
    toward = net if side is Side.BID else -net
    by_position = parameters.max_inventory_per_market - toward
    value = parameters.max_inventory_value - inventory.at_risk(side)
    to_close = max(-toward, 0)
    if pending:
        by_position -= sum(count for _, count in pending)
        for level, count in sorted(pending, key=lambda order: risk_per_contract(side, order[0])):
            closes = min(count, to_close)
            to_close -= closes
            value -= risk_per_contract(side, level) * (count - closes)
    by_value = to_close + value // risk_per_contract(side, price)
    return whole_contracts(Count(min(parameters.size_per_fill, by_position, by_value)))


def risk_per_contract(side: Side, price: Price) -> Price:
    """What one contract bought (BID) or sold (ASK) at `price` can lose."""
    return price if side is Side.BID else Price(DOLLAR - price)


def wanted_quotes(
    inventory: InventoryState,
    mark: Price | None,
    touch: Touch,
    grid: TickGrid,
    parameters: StrategyParameters,
    *,
    extra_ticks: int = 0,
    held: InventoryState | None = None,
    pending: Sequence[tuple[Side, Price, Count]] = (),
    market_room: Callable[[Side, Price], Count] | None = None,
    price_bound: Callable[[Side], Price | None] | None = None,
) -> WantedQuotes:
    """Both sides' wanted quotes by state table, clamp, grid and room.

    Not looked at here: gates, halts, the book's health (`may_quote`).

    Args:
        inventory: What state and skew go by.
        held: The market's own position, for its limits, where that is another.
        pending: Orders of ours that may fill besides the quote to be decided, see `room`.
        market_room: What the limits over all markets leave a quote of that side and price.
        price_bound: The highest bid or lowest ask that may be; None where nothing binds.
    """
    if mark is None:
        return NO_QUOTES
    found: dict[Side, WantedQuote] = {}
    net = inventory.net
    for side in QUOTED_SIDES[position_state(net, parameters)]:
        bound = price_bound(side) if price_bound is not None else None
        prices = wanted_price(side, mark, net, touch, grid, parameters, extra_ticks=extra_ticks, bound=bound)
        if prices is None:
            continue
        want, price = prices
        same_side = [(level, count) for other, level, count in pending if other is side] if pending else ()
        count = room(side, price, inventory if held is None else held, parameters, same_side)
        if market_room is not None and count >= CONTRACT:
            count = Count(min(count, whole_contracts(market_room(side, price))))
        if count >= CONTRACT:
            found[side] = WantedQuote(side=side, want=want, price=price, count=count)
    return WantedQuotes(found.get(Side.BID), found.get(Side.ASK))


def may_quote(touch: Touch, parameters: StrategyParameters) -> str | None:
    """Why this book must not be quoted, or None: empty, crossed, or wider than `MAX_QUOTED_SPREAD`.

    A one-sided book has no spread: it is too wide when that limit is set. Staleness is the shell's to know.
    """
    bid, ask = touch.best_bid, touch.best_ask
    if bid is None and ask is None:
        return "book is empty"
    if touch.is_crossed:
        return "book is crossed"
    limit = parameters.max_quoted_spread
    if limit is not None and (bid is None or ask is None or ask - bid > limit):
        return "spread is wider than MAX_QUOTED_SPREAD"
    return None

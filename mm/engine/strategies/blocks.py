"""Building blocks that strategies share. Pure functions of a view; prices in whole 1/10,000 dollar.

Each is symmetric: the same market seen from the other outcome gives the mirrored answer.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.fill import Liquidity
from mm.domain.numbers import CONTRACT, DOLLAR, SECOND, Count, Micros, Price, ceil_div, whole_contracts
from mm.domain.order import Side
from mm.engine.quoting import WantedQuote, one_tick_inside, room
from mm.engine.strategies.view import View

MIDDLE: Final = DOLLAR // 2
PATIENCE_S: Final = 60.0
"""Over so long the flow to a queue is counted when a place in it is valued."""
VARIATION_PERIOD: Final = Micros(15 * SECOND)


# --- what it is worth ------------------------------------------------------------------------------------------------


def mid(view: View) -> Price | None:
    """The middle of the others' touch; None when a side is empty."""
    bid, ask = view.others.best_bid, view.others.best_ask
    return None if bid is None or ask is None else _around_middle(Fraction(bid + ask, 2))


def micro_price(view: View) -> Price | None:
    """The touch weighted with the size on the other side: the mid, leaning to where less stands in the way."""
    bid, ask = view.others.best_bid, view.others.best_ask
    if bid is None or ask is None:
        return None
    bid_size, ask_size = view.others_size(Side.BID, bid), view.others_size(Side.ASK, ask)
    if not bid_size + ask_size:
        return mid(view)
    return _around_middle(Fraction(bid * ask_size + ask * bid_size, bid_size + ask_size))


def sibling_consensus(view: View) -> Price | None:
    """The mean of what this market says of itself and what the event's other markets say of it.

    For events of which exactly one market pays: the others' mids say one dollar less their sum. The tighter of the two
    opinions counts more, by its spread. Without all of the others: this market's mid alone.
    """
    own = mid(view)
    siblings = view.siblings
    if own is None or not siblings:
        return own
    twice, spread = 2 * DOLLAR, 0
    for sibling in siblings:
        bid, ask = sibling.touch.best_bid, sibling.touch.best_ask
        if bid is None or ask is None or bid >= ask:
            return own
        twice -= bid + ask
        spread += ask - bid
    bid, ask = view.others.best_bid, view.others.best_ask
    assert bid is not None
    assert ask is not None
    own_spread = max(ask - bid, 1)
    mine = Fraction(bid + ask, 2)
    return _around_middle((mine * spread + Fraction(twice, 2) * own_spread) / (spread + own_spread))


def _around_middle(price: Fraction) -> Price:
    """To a whole price; halves to the even distance from the middle, so that mirrored prices round alike."""
    return Price(min(max(MIDDLE + round(price - MIDDLE), 1), DOLLAR - 1))


# --- where to stand --------------------------------------------------------------------------------------------------


def break_even(price: Price, fees: FeeSchedule) -> int:
    """How far from fair value a resting quote must be to pay its own maker fee, rounded up."""
    if fees.fee_type is FeeType.FLAT:
        raise ValueError("flat fees are not understood")
    rate = fees.rate(Liquidity.MAKER)
    return ceil_div(rate.numerator * price * (DOLLAR - price), rate.denominator * DOLLAR)


def inventory_skew(price: int, net: Count, cap: Count, most: int) -> int:
    """How far a quote's middle goes down for what we hold: `most * 4p(1-p) * net / cap`, rounded to a whole price."""
    return round(Fraction(most * 4 * price * (DOLLAR - price) * net, DOLLAR * DOLLAR * cap))


def not_improving(view: View, side: Side, want: int) -> int:
    """`want`, or the others' best price of that side where `want` is better."""
    if side is Side.BID:
        best = view.others.best_bid
        return want if best is None else min(want, best)
    best = view.others.best_ask
    return want if best is None else max(want, best)


def reduces(view: View, side: Side) -> bool:
    """A fill of that side makes our position smaller."""
    return view.net * side.sign < 0


def fill_chance(ahead: float, rate: float) -> float:
    """How likely the flow of a minute reaches a quote with `ahead` contracts before it: `v / (v + ahead)`.

    `rate` is contracts a second. A shape, not a fit: certain at the front, even odds where a minute's flow equals the
    queue. Prints alone cannot settle more.
    """
    volume = rate * PATIENCE_S
    return volume / (volume + ahead) if volume > 0 else 0.0


def keep_place(view: View, side: Side, want: int, fair: int) -> int:
    """`want`, or the price of our resting quote where staying there earns more than moving.

    Earning is distance from fair value, less the maker fee, times the chance of a fill: of our present place when we
    stay, behind everybody when we move. A quote with no edge left is never kept.
    """
    order, signals = view.resting(side), view.signals
    if order is None or signals is None or order.price == want:
        return want
    rate = signals.flow.rate(side, view.now)
    fee = break_even(Price(fair), view.fees)
    stays = (fair - order.price) * side.sign - fee
    ahead = view.ahead(side)
    if stays <= 0 or ahead is None:
        return want
    moves = (fair - want) * side.sign - fee
    behind = view.others_size(side, Price(want)) / CONTRACT
    return (
        order.price
        if stays * fill_chance(ahead / CONTRACT, rate) >= moves * fill_chance(behind, rate)
        else want
    )


# --- how much --------------------------------------------------------------------------------------------------------


def size_ladder(edge: int, rungs: Sequence[tuple[int, Count]]) -> Count:
    """The size for a quote `edge` away from fair value: that of the highest rung (edge from, size) reached, else 0."""
    return max((rung for rung in rungs if edge >= rung[0]), default=(0, Count(0)))[1]


def place(view: View, side: Side, want: int, size: Count, cap: Count) -> WantedQuote | None:
    """The quote nearest to `want` that may stand: off the touch, on the grid, within every limit. None: there is none.

    Args:
        size: What is wanted; the user's `SIZE_PER_FILL` bounds it too.
        cap: The strategy's own position limit, which does not widen the user's.
    """
    grid = view.market.grid
    if side is Side.BID:
        if view.touch.best_ask is not None:
            want = min(want, one_tick_inside(side, view.touch.best_ask, grid))
        price = grid.at_or_below(want)
    else:
        if view.touch.best_bid is not None:
            want = max(want, one_tick_inside(side, view.touch.best_bid, grid))
        price = grid.at_or_above(want)
    for _ in range(view.extra_ticks):
        if price is None:
            return None
        further = grid.tick_below(price) if side is Side.BID else grid.tick_above(price)
        if further is not None:
            want += further - price
        price = further
    bound = view.price_bound(side) if view.price_bound is not None else None
    if price is not None and bound is not None and (bound - price) * side.sign < 0:
        want = bound
        price = grid.at_or_below(bound) if side is Side.BID else grid.at_or_above(bound)
    if price is None:
        return None
    toward = view.net * side.sign
    pending = [(level, count) for other, level, count in view.pending if other is side]
    count = min(
        size,
        room(side, price, view.inventory, view.parameters, pending),
        cap - toward - sum(left for _, left in pending),
    )
    if view.market_room is not None and count >= CONTRACT:
        count = min(count, view.market_room(side, price))
    count = whole_contracts(Count(max(count, 0)))
    return WantedQuote(side=side, want=want, price=price, count=count) if count >= CONTRACT else None


# --- against predictability ------------------------------------------------------------------------------------------


def variation(view: View, most: int) -> int:
    """A whole number from -`most` to `most` that changes every 15 s; the same for the same seed, market and time.

    Nobody who watches the quotes can tell the next one; whoever knows the seed can repeat the run.
    """
    if not most:
        return 0
    value = view.context.seed
    for part in (*view.ticker.encode(), view.now // VARIATION_PERIOD):
        value = _mix(value ^ part)
    return value % (2 * most + 1) - most


def _mix(value: int) -> int:
    """The finisher of splitmix64."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def log_odds(price: int) -> float:
    """ln(p / (1 - p)); exactly antisymmetric around half a dollar."""
    return math.log(price) - math.log(DOLLAR - price)

"""When the engine need not be asked: how far the market may move before its answer could be another.

After a decision that sends nothing, and while nothing of ours changes, the engine's answer depends on the recorded best
prices, the average of prints and the time alone. `quiet_after` turns the rules round: it says within which bounds the
same answer would come back. Time is not in it: whoever waits has the decision's own `wake_at`.

This is a shortcut of the back-test and no second strategy: where a case is not plainly covered the answer is None, and
the engine is asked. A test asks it always, and demands the same run.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

import attrs

from mm.domain.grid import PriceBand, TickGrid
from mm.domain.inventory import InventoryState
from mm.domain.numbers import CONTRACT, DOLLAR, Micros, Price
from mm.domain.order import Order, OrderState, Side, TimeInForce
from mm.engine.hybrid_risk import OPEN_FROM, OPEN_TO, SHUT_AT_OR_ABOVE, SHUT_AT_OR_BELOW
from mm.engine.quoter import Decision, MakerState, MarketMaker
from mm.engine.quoting import QUOTED_SIDES, position_state, room, skewed_half_spread
from mm.engine.requote import BrakeState
from mm.engine.strategies.hybrid import Hybrid
from mm.exchange.paper.matching import PaperMarket

NO_LIMIT: Final = DOLLAR
_IN_THE_BOOK: Final = frozenset({OrderState.RESTING, OrderState.AMENDING, OrderState.CANCELLING})


@attrs.define
class Quiet:
    """Bounds, each inclusive, within which the last decision stands."""

    low: int
    """Of the mark."""
    high: int
    bid_to: int = DOLLAR
    """The best bid of the others may not be above: it would meet our ask."""
    ask_from: int = 0
    widest: int = NO_LIMIT
    """The spread."""

    def stands(self, bid: Price, ask: Price, average: Price | None) -> bool:
        """Whether the engine, asked now, would say the same, where no limit over all markets binds.

        Args:
            bid: The best bid of the recorded book, ours not in it; below `ask`.
            average: The rounded average of prints; None before the first.
        """
        if bid > self.bid_to or ask < self.ask_from:
            return False
        middle = (bid + ask + 1) // 2 if average is None else average
        mark = bid if middle < bid else min(middle, ask)
        return self.low <= mark <= self.high and ask - bid <= self.widest

    def within(self, low: int, high: int) -> None:
        """Tighten the bounds of the mark."""
        self.low, self.high = max(self.low, low), min(self.high, high)


def quiet_after(
    maker: MarketMaker,
    paper: PaperMarket,
    busy: Mapping[Side, bool],
    decision: Decision,
    now: Micros,
    *,
    is_roomy: bool = False,
) -> Quiet | None:
    """The bounds within which `decision`, made at `now`, stands; None when it has to be made again at any change.

    Args:
        busy: Sides with a request on its way: what the engine wants of them is not asked before the answer.
        is_roomy: No limit over events and markets is anywhere near.
    """
    if not _is_known(maker):
        return None
    if decision.exit is not None or decision.state is MakerState.FLATTENING or maker.exit_holds:
        return None
    orders = maker.orders()
    if not _are_as_we_know(orders, paper, busy):
        return None
    inventory = maker.inventory()
    if decision.state is MakerState.HELD:
        return _held(maker, inventory, bool(orders))
    return _Bounds(maker, inventory, decision, now, is_roomy).within_the_rules(orders, busy)


def _is_known(maker: MarketMaker) -> bool:
    """Only the default strategy's rules are turned round here, and not what guards and sister markets add."""
    strategy = maker.strategy
    if maker.guard_ticks or type(strategy) is not Hybrid or strategy.fair_value is not None:
        return False
    return maker.price_bound is None or all(maker.price_bound(side) is None for side in Side)


def _are_as_we_know(orders: Sequence[Order], paper: PaperMarket, busy: Mapping[Side, bool]) -> bool:
    """What we think stands in the book is what stands there, one order a side at most."""
    shown = {Side.BID: 0, Side.ASK: 0}
    for order in orders:
        if order.time_in_force is not TimeInForce.GTC or (
            not busy[order.side] and order.state is not OrderState.RESTING
        ):
            return False
        if order.state is OrderState.SENT:
            continue
        resting = paper.orders[order.side]
        if order.state not in _IN_THE_BOOK or len(resting) != 1 or order.leaves < CONTRACT:
            return False
        if resting[0].price != order.price or resting[0].remaining != order.leaves:
            return False
        shown[order.side] += 1
    return all(len(paper.orders[side]) == count for side, count in shown.items())


def _held(maker: MarketMaker, inventory: InventoryState, has_orders: bool) -> Quiet | None:
    """Not quoted: nothing can come of a change but the gate's."""
    if has_orders or not inventory.is_flat or not maker.book.is_synced:
        return None
    if maker.gate.is_open:
        return Quiet(SHUT_AT_OR_BELOW + 1, SHUT_AT_OR_ABOVE - 1) if maker.holds else None
    mark = maker.mark
    if mark is None:
        return None
    return Quiet(0, OPEN_FROM - 1) if mark < OPEN_FROM else Quiet(OPEN_TO + 1, DOLLAR)


@attrs.define(eq=False)
class _Bounds:
    """The rules of quoting, each as bounds of the mark."""

    maker: MarketMaker
    inventory: InventoryState
    decision: Decision
    now: Micros
    is_roomy: bool
    half: "int | Fraction" = 0
    step: int = 0
    """The widest tick of the grid."""
    brake: BrakeState = BrakeState.OFF
    quiet: Quiet = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        parameters = self.maker.parameters
        self.brake = self.maker.brake.state(self.now)
        self.step = max(band.step for band in self.maker.market.grid.bands)
        self.half = skewed_half_spread(self.inventory.net, parameters)
        self.quiet = Quiet(SHUT_AT_OR_BELOW + 1, SHUT_AT_OR_ABOVE - 1)
        if parameters.max_quoted_spread is not None:
            self.quiet.widest = parameters.max_quoted_spread

    def within_the_rules(self, orders: Sequence[Order], busy: Mapping[Side, bool]) -> Quiet | None:
        """All rules together."""
        if self.half < self.step or not (self.inventory.is_flat or self._mae()):
            return None  # narrower than a tick the touch may hold the wanted price
        quoted = QUOTED_SIDES[position_state(self.inventory.net, self.maker.parameters)]
        own = {order.side: order for order in orders if order.state in _IN_THE_BOOK}
        for side in Side:
            if busy[side]:
                continue
            order, is_waiting = own.get(side), self.decision.plan(side).wake_at is not None
            if side not in quoted:
                if order is not None:
                    return None
            elif order is None:
                # Waiting for a cooldown or for the brake: whatever is wanted by then.
                if not is_waiting and self.brake is not BrakeState.STOPPED:
                    return None
            elif not self._rests(order, own.get(side.opposite), is_waiting):
                return None
        return self.quiet

    def _mae(self) -> bool:
        """The timer of the adverse excursion neither starts nor stops."""
        entry, failsafe = self.inventory.vwap_entry, self.maker.parameters.mae_failsafe
        assert entry is not None
        if failsafe <= 0:
            return False
        is_running = self.maker.policy.breach_since is not None
        if self.inventory.sign > 0:
            edge = math.floor(entry - failsafe)  # in breach at or below
            low, high = (0, edge) if is_running else (edge + 1, DOLLAR)
        else:
            edge = math.ceil(entry + failsafe)
            low, high = (edge, DOLLAR) if is_running else (0, edge - 1)
        self.quiet.within(low, high)
        return True

    def _rests(self, order: Order, other: Order | None, is_waiting: bool) -> bool:
        """Bounds for a resting quote: it crosses nobody, its size stays allowed, its price is near enough."""
        maker, quiet, side, grid = self.maker, self.quiet, order.side, self.maker.market.grid
        sign, half = side.sign, self.half
        if other is not None and (other.price - order.price) * sign <= 0:
            return False
        dearest = grid.highest if side is Side.BID else grid.lowest  # where a contract risks most
        if room(side, dearest, self.inventory, maker.parameters) < order.leaves:
            return False
        if (
            not self.is_roomy
            and maker.market_room is not None
            and maker.market_room(side, dearest) < order.leaves
        ):
            return False
        band = next((b for b in grid.bands if b.start <= order.price <= b.end), None)
        if band is None:
            return False
        if side is Side.BID:
            quiet.ask_from = max(quiet.ask_from, order.price + 1)
        else:
            quiet.bid_to = min(quiet.bid_to, order.price - 1)
        further = band.step if self.brake is BrakeState.WIDER else 0
        if further:
            # One tick further out is as wide as here only while both prices lie in this band.
            self._wants(
                side,
                max(band.start, grid.lowest) + further * (side is Side.BID),
                _top(band, grid, side, further),
            )
        else:
            self._wants(side, grid.lowest, grid.highest)
        if is_waiting:
            return True
        centre, reach = order.price + sign * (half + further), maker.parameters.min_requote
        quiet.within(math.floor(centre - reach) + 1, math.ceil(centre + reach) - 1)
        if other is not None:
            # Our own order on the other side must not be what keeps the wanted price back.
            bound = other.price + sign * (half - self.step)
            if side is Side.BID:
                quiet.within(0, math.floor(bound))
            else:
                quiet.within(math.ceil(bound), DOLLAR)
        return True

    def _wants(self, side: Side, low: int, high: int) -> None:
        """The wanted price, before it is moved out by a tick, lies within these."""
        self.quiet.within(math.ceil(low + side.sign * self.half), math.floor(high + side.sign * self.half))


def _top(band: PriceBand, grid: TickGrid, side: Side, further: int) -> int:
    return min(band.end, grid.highest) - further * (side is Side.ASK)

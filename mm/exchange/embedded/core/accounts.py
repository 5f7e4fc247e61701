"""Money: cash, collateral, positions and their cost, fees. House users pass through with two additions a fill.

The model is linear and exact. A fill moves `cash` by price x count (a sale adds, a purchase takes), so that all cash
plus the fees collected never changes. A short position of n owes n dollars at worst: that much is *locked*. In a
mutually exclusive event at most one market ends YES, so the shorts of one user owe together only their largest:
the lock is that, which gives the guaranteed part back as cash (MECNET). What rests is locked as well: bids at p, asks
at 1 - p, plus the worst maker fee, less the part that closes a position (best priced orders first, as they trade
first). `available` = cash - locked.
"""

from fractions import Fraction
from typing import Final

import attrs

from mm.domain.fees import FeeAccumulator, FeeBreakdown, FeeSchedule, FeeType, model_fee
from mm.domain.fill import Liquidity
from mm.domain.numbers import DOLLAR, Count, Money, Price
from mm.domain.order import Side
from mm.exchange.embedded.core.events import PositionChanged
from mm.exchange.embedded.core.model import (
    EventSpec,
    OrderRecord,
    PositionView,
    SeriesSpec,
    SettlementRecord,
    result_word,
)
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.core.state import Holding, MarketState, State, User

_WAIVED: Final = FeeSchedule(FeeType.QUADRATIC, Fraction(0))
_FLAT: Final = FeeSchedule(FeeType.QUADRATIC, Fraction(1, 2))
"""No live series is flat; an older schedule's table for it was 0.035 for takers, nothing for makers."""

_Claim = tuple[Price, int, int, Liquidity]
"""(limit price, count, what it reserves when nothing covers it, the worst fee it may pay)."""


def fee_schedule(series: SeriesSpec, event: EventSpec) -> FeeSchedule:
    """The series' fees with the event's overrides, per field."""
    fee_type = event.fee_type_override or series.fee_type
    multiplier = event.fee_multiplier_override
    if multiplier is None:
        multiplier = series.fee_multiplier
    return _FLAT if fee_type is FeeType.FLAT else FeeSchedule(fee_type, multiplier)


def own_leg(side: Side, price: Price) -> int:
    """What one contract costs its buyer: P for YES, 1 - P for NO."""
    return price if side is Side.BID else DOLLAR - price


@attrs.define(eq=False)
class Accounts:
    """The money side of the state. Never called for house users, save `apply_fill` and `settle`."""

    _state: State

    def deposit(self, user: User, exchange_index: int, amount: Money) -> None:
        """Put cash in (or take it out); opens the account on the shard. Raises `Refused` when it is not there."""
        if amount < 0 and amount + user.available(exchange_index) < 0:
            raise Refused(400, "insufficient_balance", "insufficient balance")
        user.cash[exchange_index] = user.cash.get(exchange_index, 0) + amount
        user.locked.setdefault(exchange_index, 0)

    def set_netting(self, user: User, *, is_netting: bool) -> None:
        """Turn the return of collateral on or off, for what is held too. Raises `Refused` when the cash is not there."""
        was = user.is_netting
        user.is_netting = is_netting
        self._refresh_all(user)
        if any(user.available(shard) < 0 for shard in user.cash):
            user.is_netting = was
            self._refresh_all(user)
            raise Refused(400, "insufficient_balance", "insufficient balance")

    def _refresh_all(self, user: User) -> None:
        for holdings in user.event_holdings.values():
            for holding in holdings:
                self._refresh_event(user, holding.market)

    # --- what rests --------------------------------------------------------------------------------------------------

    def rest(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """An order starts to rest: take its reserve."""
        holding = self.holding(user, market)
        holding.resting(order.side)[order.order_id] = order
        self.resized(user, market, order)

    def resized(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """A resting order's remaining count (or the order itself) went: give back what it no longer needs."""
        holding = self.holding(user, market)
        is_resting = order.remaining > 0 and order.order_id in holding.resting(order.side)
        reserve = self.reserve(user, market, order.side, order.price, order.remaining) if is_resting else 0
        holding.gross[order.side] += reserve - order.reserved
        order.reserved = Money(reserve)
        if not order.remaining:
            holding.resting(order.side).pop(order.order_id, None)
        self._refresh_reserve(user, holding)

    def unrest(self, user: User, market: MarketState, order: OrderRecord) -> None:
        """A resting order leaves the book whole: release its reserve. Its remaining count is not looked at."""
        holding = self.holding(user, market)
        del holding.resting(order.side)[order.order_id]
        holding.gross[order.side] -= order.reserved
        order.reserved = Money(0)
        self._refresh_reserve(user, holding)

    def reserve(
        self,
        user: User,
        market: MarketState,
        side: Side,
        price: Price,
        count: int,
        liquidity: Liquidity = Liquidity.MAKER,
    ) -> int:
        """Cash for `count` at a limit price, worst fee included, when no position covers it.

        The limit is the worst case for a taker too: what a better price saves is more than its fee can add.
        """
        if count <= 0:
            return 0
        rate = self.schedule(market).rate(liquidity)
        fee = 0
        if rate:
            # Once more the precision: what the accumulator may hold back at the end of the order's fills.
            fee = model_fee(rate, price, Count(count), user.precision) + user.precision
        return own_leg(side, price) * count + fee

    def check_can_rest(
        self,
        user: User,
        market: MarketState,
        order: OrderRecord,
        count: int,
        liquidity: Liquidity,
        replaced: OrderRecord | None = None,
    ) -> None:
        """Whether `count` at the order's price may join what rests. Raises `Refused` (insufficient_balance)."""
        holding = self.holding(user, market)
        reserve = self.reserve(user, market, order.side, order.price, count, liquidity)
        claim = (order.price, count, reserve, liquidity)
        wanted = self._required(user, holding, order.side, claim, replaced) - holding.reserved
        self._check(user, market, wanted)

    def check_can_take(self, user: User, market: MarketState, order: OrderRecord, count: int) -> None:
        """Whether an immediate order may trade `count`: its closing part is free, whatever else rests.

        What that takes away from resting orders that counted on the position is settled by `margin_call`.
        """
        holding = self.holding(user, market)
        opening = count - min(count, self._cover(user, holding, order.side))
        cost = self.reserve(user, market, order.side, order.price, opening, Liquidity.TAKER)
        self._check(user, market, cost)

    def is_short_of_cash(self, user: User, exchange_index: int) -> bool:
        """Whether more is locked than there is (resting orders lost the position that covered them)."""
        return user.available(exchange_index) < 0

    def _check(self, user: User, market: MarketState, wanted: int) -> None:
        if wanted > 0 and wanted > user.available(market.exchange_index):
            raise Refused(400, "insufficient_balance", "insufficient balance")

    # --- fills -------------------------------------------------------------------------------------------------------

    def apply_fill(
        self,
        user: User,
        market: MarketState,
        order: OrderRecord,
        price: Price,
        count: Count,
        *,
        is_taker: bool,
    ) -> tuple[Money, Count]:
        """Book one fill of an order whose counts are already moved; returns (fee charged, position after)."""
        change = count * order.side.sign
        if user.is_house:
            before = user.house_positions.get(market.ticker, 0)
            user.house_positions[market.ticker] = before + change
            user.house_cash -= price * change
            market.absolute_positions += abs(before + change) - abs(before)
            return Money(0), Count(before + change)
        holding = self.holding(user, market)
        fee = self._charge(user, market, order, price, count, is_taker=is_taker).charged
        shard = market.exchange_index
        user.cash[shard] -= price * change + fee
        self._state.fees_collected += fee
        market.absolute_positions += abs(holding.position + change) - abs(holding.position)
        _book_cost(holding, order.side, price, count, fee)
        holding.updated_at = self._state.now
        if not is_taker:
            self.resized(user, market, order)
        self._refresh_event(user, market)
        return fee, Count(holding.position)

    def schedule(self, market: MarketState) -> FeeSchedule:
        """The fees of a fill made now."""
        waived_until = market.spec.fee_waiver_until
        return market.fees if waived_until is None or self._state.now >= waived_until else _WAIVED

    def _charge(
        self,
        user: User,
        market: MarketState,
        order: OrderRecord,
        price: Price,
        count: Count,
        *,
        is_taker: bool,
    ) -> FeeBreakdown:
        if order.accumulator is None:
            order.accumulator = FeeAccumulator(user.precision)
        liquidity = Liquidity.TAKER if is_taker else Liquidity.MAKER
        fee = order.accumulator.charge(self.schedule(market), order.side, price, count, liquidity)
        cost = price * count
        if is_taker:
            order.taker_fees = Money(order.taker_fees + fee.charged)
            order.taker_fill_cost = Money(order.taker_fill_cost + cost)
        else:
            order.maker_fees = Money(order.maker_fees + fee.charged)
            order.maker_fill_cost = Money(order.maker_fill_cost + cost)
        return fee

    # --- settlement --------------------------------------------------------------------------------------------------

    def settle(self, market: MarketState, value: Price) -> None:
        """Pay every position in a market at `value` a contract. Nothing of the market rests any more."""
        event = market.event
        if event.is_mutually_exclusive:
            self._state.settled_values[event.ticker] = self._state.settled_values.get(event.ticker, 0) + value
        for user in self._state.users.values():
            if user.is_house:
                user.house_cash += user.house_positions.pop(market.ticker, 0) * value
            elif (holding := user.holdings.get(market.ticker)) is not None and not holding.is_settled:
                self._settle_holding(user, holding, value)
            if event.is_mutually_exclusive and event.ticker in user.event_holdings:
                self._refresh_event(user, market)  # what is at stake in the event's other markets shrank
        market.absolute_positions = 0

    def _settle_holding(self, user: User, holding: Holding, value: Price) -> None:
        state, market = self._state, holding.market
        position, shard = holding.position, market.exchange_index
        user.cash[shard] += position * value
        revenue = position * value if position > 0 else -position * (DOLLAR - value)
        if position:
            user.settlements.append(
                SettlementRecord(
                    seq=state.next_seq(),
                    ticker=market.ticker,
                    event_ticker=market.event.ticker,
                    exchange_index=shard,
                    result=result_word(value),
                    value=value,
                    yes_count=Count(max(position, 0)),
                    yes_total_cost=Money(holding.cost if position > 0 else 0),
                    no_count=Count(max(-position, 0)),
                    no_total_cost=Money(holding.cost if position < 0 else 0),
                    revenue=Money(revenue),
                    fee_cost=Money(holding.fees_paid),
                    ts=state.now,
                )
            )
        holding.realized_pnl += revenue - holding.cost
        holding.position = holding.cost = holding.open_fees = 0
        holding.is_settled = True
        holding.updated_at = state.now
        self._refresh_event(user, market)
        self.report_position(user, market)

    # --- reading -----------------------------------------------------------------------------------------------------

    def holding(self, user: User, market: MarketState) -> Holding:
        """The user's holding in a market, made when first asked for."""
        found = user.holdings.get(market.ticker)
        if found is None:
            found = user.holdings[market.ticker] = Holding(market=market, updated_at=self._state.now)
            user.event_holdings.setdefault(market.event.ticker, []).append(found)
        return found

    def report_position(self, user: User, market: MarketState) -> None:
        """Emit the user's position in a market."""
        if user.wants_events and not user.is_house:
            view = position_view(user.holdings[market.ticker])
            self._state.out.append(PositionChanged(user.user_id, view))

    # --- collateral --------------------------------------------------------------------------------------------------

    def _cover(self, user: User, holding: Holding, side: Side) -> int:
        """How many contracts of a new order on `side` would close a position and so need no cash of their own."""
        position = holding.position
        if side is Side.ASK:
            return max(position, 0)
        if position >= 0:
            return 0
        event = holding.market.event
        if not (event.is_mutually_exclusive and user.is_netting):
            return -position
        # Buying back frees collateral only as far as this short is the event's largest. After a first settlement of
        # the event the lock is scaled down; then nothing is counted on.
        if self._state.settled_values.get(event.ticker, 0):
            return 0
        others = max(
            (-other.position for other in user.event_holdings[event.ticker] if other is not holding),
            default=0,
        )
        return max(-position - max(others, 0), 0)

    def _required(
        self,
        user: User,
        holding: Holding,
        side: Side | None = None,
        claim: _Claim | None = None,
        without: OrderRecord | None = None,
    ) -> int:
        """Cash that the holding's resting orders need, with one more claim and without one order, if given."""
        total = 0
        for each in (Side.BID, Side.ASK):
            total += holding.gross[each]
            if without is not None and without.side is each:
                total -= without.reserved
            extra = claim if each is side else None
            if extra is not None:
                total += extra[2]
            if cover := self._cover(user, holding, each):
                total -= self._covered(user, holding, each, cover, extra, without)
        return total

    def _covered(
        self,
        user: User,
        holding: Holding,
        side: Side,
        cover: int,
        extra: _Claim | None,
        without: OrderRecord | None,
    ) -> int:
        """What a position saves the orders that close it, best priced first."""
        claims: list[_Claim] = [
            (order.price, order.remaining, order.reserved, Liquidity.MAKER)
            for order in holding.resting(side).values()
            if order is not without
        ]
        if extra is not None:
            claims.append(extra)
        claims.sort(key=lambda item: -item[0] * side.sign)
        saved = 0
        for price, count, reserved, liquidity in claims:
            if cover <= 0:
                break
            left = count - min(count, cover)
            saved += reserved - self.reserve(user, holding.market, side, price, left, liquidity)
            cover -= count
        return saved

    def _refresh_reserve(self, user: User, holding: Holding) -> None:
        required = self._required(user, holding)
        user.locked[holding.market.exchange_index] += required - holding.reserved
        holding.reserved = required

    def _refresh_event(self, user: User, market: MarketState) -> None:
        """A position changed: the event's lock, and what positions cover, follow."""
        event, shard = market.event, market.exchange_index
        holdings = user.event_holdings[event.ticker]
        shorts = [-holding.position for holding in holdings if holding.position < 0]
        if event.is_mutually_exclusive and user.is_netting:
            at_stake = max(DOLLAR - self._state.settled_values.get(event.ticker, 0), 0)
            lock = at_stake * max(shorts, default=0)
            for holding in holdings:
                self._refresh_reserve(user, holding)
        else:
            lock = DOLLAR * sum(shorts)
            self._refresh_reserve(user, user.holdings[market.ticker])
        user.locked[shard] += lock - user.event_locks.get(event.ticker, 0)
        user.event_locks[event.ticker] = lock


def _book_cost(holding: Holding, side: Side, price: Price, count: Count, fee: Money) -> None:
    """Average cost: closing takes its share of cost and open fees out (the last one takes what is left)."""
    position = holding.position
    leg = own_leg(side, price)
    closing = min(count, abs(position)) if position * side.sign < 0 else 0
    if closing:
        removed = holding.cost * closing // abs(position)
        holding.open_fees -= holding.open_fees * closing // abs(position)
        holding.cost -= removed
        holding.realized_pnl += (DOLLAR - leg) * closing - removed
    opening = count - closing
    holding.cost += leg * opening
    holding.open_fees += fee * opening // count
    holding.fees_paid += fee
    holding.total_traded += leg * count
    holding.volume += count
    holding.position = position + count * side.sign


def position_view(holding: Holding) -> PositionView:
    """A holding as a value."""
    market = holding.market
    return PositionView(
        ticker=market.ticker,
        event_ticker=market.event.ticker,
        exchange_index=market.exchange_index,
        position=Count(holding.position),
        cost=Money(holding.cost),
        realized_pnl=Money(holding.realized_pnl),
        fees_paid=Money(holding.fees_paid),
        open_fees=Money(holding.open_fees),
        total_traded=Money(holding.total_traded),
        volume=Count(holding.volume),
        resting_orders=len(holding.bids) + len(holding.asks),
        is_settled=holding.is_settled,
        updated_at=holding.updated_at,
    )

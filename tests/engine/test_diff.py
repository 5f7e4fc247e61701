"""From wanted quotes and working orders to commands: the fewest, and the place in the queue is kept."""

from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.commands import Amend, Cancel, Decrease, Place
from mm.domain.numbers import CONTRACT, Count, Micros, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side
from mm.engine.diff import SidePlan, SideTimer, plan_side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import WantedQuote
from mm.engine.requote import BrakeState

BID, ASK = Side.BID, Side.ASK
M = MarketTicker("M")
FAR = Touch(Price(100), Price(9_900))
DEFAULTS = StrategyParameters()
LATER = 10**9


def order(
    price: int,
    count: int = 1_000,
    *,
    filled: int = 0,
    state: OrderState = OrderState.RESTING,
    side: Side = BID,
    name: str = "a",
    created: int = 0,
) -> Order:
    return Order(
        client_order_id=ClientOrderId(name),
        ticker=M,
        side=side,
        price=Price(price),
        count=Count(count),
        filled=Count(filled),
        state=state,
        order_id=OrderId(f"id-{name}"),
        created_at=Micros(created),
    )


def wanted(price: int, count: int = 1_000, *, side: Side = BID, want: Fraction | None = None) -> WantedQuote:
    return WantedQuote(
        side=side, want=Fraction(price) if want is None else want, price=Price(price), count=Count(count)
    )


def plan(
    quote: WantedQuote | None,
    orders: list[Order],
    *,
    side: Side = BID,
    touch: Touch = FAR,
    timer: SideTimer | None = None,
    now: int = LATER,
    brake: BrakeState = BrakeState.OFF,
) -> SidePlan:
    return plan_side(M, side, quote, orders, touch, timer or SideTimer(), Micros(now), DEFAULTS, brake=brake)


def test_a_quote_whose_price_stays_is_not_replaced_however_small_the_least_move() -> None:
    """With a MIN_REQUOTE_CENTS finer than the tick the price before rounding may be far enough away, the price the same."""
    fine = attrs.evolve(DEFAULTS, min_requote=Price(50))
    quote = wanted(4_800, want=Fraction(4_890))
    for brake in (BrakeState.OFF, BrakeState.WIDER):
        found = plan_side(
            M,
            BID,
            quote,
            [order(4_800)],
            FAR,
            SideTimer(last_action=Micros(0)),
            Micros(LATER),
            fine,
            brake=brake,
        )
        assert found == SidePlan()
    smaller = plan_side(
        M, BID, attrs.evolve(quote, count=Count(500)), [order(4_800)], FAR, SideTimer(), Micros(LATER), fine
    )
    assert [type(command) for command in smaller.commands] == [Decrease]
    crumb = plan_side(M, BID, quote, [order(4_800, 1_000, filled=950)], FAR, SideTimer(), Micros(LATER), fine)
    assert [type(command) for command in crumb.commands] == [Cancel]


class TestPlacing:
    def test_nothing_there(self) -> None:
        """One create."""
        found = plan(wanted(4_900), [order(4_000, state=OrderState.DONE)])

        assert found.commands == (Place(ticker=M, side=BID, price=Price(4_900), count=Count(1_000)),)
        assert found.is_action

    def test_already_right(self) -> None:
        """No command at all."""
        assert plan(wanted(4_900), [order(4_900)]) == SidePlan()

    def test_cooldown(self) -> None:
        """Nothing before it ends, but a time to come back."""
        found = plan(wanted(4_900), [], timer=SideTimer(Micros(LATER - 1)))

        assert (found.commands, found.wake_at) == ((), LATER - 1 + 300_000)

    @pytest.mark.parametrize(
        "state",
        [
            OrderState.INTENDED,
            OrderState.SENT,
            OrderState.AMENDING,
            OrderState.CANCELLING,
            OrderState.UNKNOWN,
        ],
    )
    def test_nothing_new_while_something_is_on_its_way(self, state: OrderState) -> None:
        """An unknown outcome blocks the side like an unanswered write."""
        assert plan(wanted(4_900), [order(4_000, state=state)]).commands == ()


class TestMoving:
    def test_towards_the_market_the_old_one_goes_first(self) -> None:
        """Cancel; the new one follows when the old is gone, without waiting a second cooldown."""
        timer = SideTimer()
        first = plan(wanted(5_000), [order(4_900)], timer=timer)
        timer.record(first, Micros(LATER))

        (cancel,) = first.commands
        assert cancel == Cancel(
            ticker=M, client_order_id=ClientOrderId("a"), reason="price moved", is_urgent=False
        )
        assert first.is_replace
        gone = [order(4_900, state=OrderState.CANCELLING)]
        assert plan(wanted(5_000), gone, timer=timer, now=LATER + 10).commands == ()
        second = plan(wanted(5_000), [], timer=timer, now=LATER + 20)
        assert second.commands == (
            Place(ticker=M, side=BID, price=Price(5_000), count=Count(1_000), is_replacement=True),
        )
        assert not second.is_replace  # counted once

    @pytest.mark.parametrize("side, price", [(BID, 4_700), (ASK, 5_300)])
    def test_away_from_the_market_one_write_moves_it(self, side: Side, price: int) -> None:
        """An amend cannot cross there; it comes back at full size."""
        resting = order(4_900 if side is BID else 5_100, filled=400, side=side)

        found = plan(wanted(price, side=side), [resting], side=side)

        assert found.commands == (
            Amend(
                ticker=M,
                client_order_id=ClientOrderId("a"),
                side=side,
                price=Price(price),
                leaves=Count(1_000),
            ),
        )
        assert found.is_replace

    def test_crossing_goes_at_once(self) -> None:
        """Inside the cooldown, and urgently."""
        found = plan(
            wanted(4_700),
            [order(4_900)],
            touch=Touch(Price(4_700), Price(4_800)),
            timer=SideTimer(Micros(LATER - 1)),
        )

        (cancel,) = found.commands
        assert isinstance(cancel, Cancel)
        assert cancel.is_urgent

    @pytest.mark.parametrize("state", [OrderState.RESTING, OrderState.AMENDING])
    def test_not_wanted_goes_at_once(self, state: OrderState) -> None:
        """Also while an amend is on the wire."""
        found = plan(None, [order(4_900, state=state)], timer=SideTimer(Micros(LATER - 1)))

        (cancel,) = found.commands
        assert isinstance(cancel, Cancel)
        assert cancel.is_urgent
        assert not found.is_replace

    def test_one_order_a_side(self) -> None:
        """Of two that rest, the one nearest to what is wanted stays."""
        found = plan(wanted(4_900), [order(4_700, name="x"), order(4_900, name="y")])

        assert [c.client_order_id for c in found.commands if isinstance(c, Cancel)] == ["x"]


class TestSize:
    def test_shrinks_in_place(self) -> None:
        """Limits leave less: a decrease keeps the place, waits for no cooldown and starts none."""
        found = plan(wanted(4_900, 300), [order(4_900)], timer=SideTimer(Micros(LATER - 1)))

        assert found.commands == (Decrease(ticker=M, client_order_id=ClientOrderId("a"), leaves=Count(300)),)
        assert not found.is_action

    @pytest.mark.parametrize("resting", [order(4_900, filled=400), order(4_900, 600)])
    def test_is_not_topped_up(self, resting: Order) -> None:
        """A partly filled or shrunk quote keeps its place with what is left."""
        assert plan(wanted(4_900), [resting]) == SidePlan()

    def test_comes_back_when_less_than_a_contract_is_left(self) -> None:
        """The crumb goes, then a full quote comes; within the cooldown it waits."""
        crumb = order(4_900, filled=901)

        found = plan(wanted(4_900), [crumb])
        waits = plan(wanted(4_900), [crumb], timer=SideTimer(Micros(LATER - 1)))

        (cancel,) = found.commands
        assert isinstance(cancel, Cancel)
        assert (cancel.reason, cancel.is_urgent) == ("remainder below one contract", False)
        assert (waits.commands, waits.wake_at) == ((), LATER - 1 + 300_000)


class TestBrake:
    def test_stopped_places_nothing_new(self) -> None:
        """No quotes while it holds; what rests rightly may stay, what must go goes."""
        assert plan(wanted(4_900), [], brake=BrakeState.STOPPED).commands == ()
        assert plan(wanted(4_900), [order(4_900)], brake=BrakeState.STOPPED).commands == ()
        assert plan(None, [order(4_900)], brake=BrakeState.STOPPED).commands != ()

    def test_stopped_takes_a_wrong_price_away(self) -> None:
        """A quote that may not be replaced is not left to go stale."""
        (cancel,) = plan(wanted(4_700), [order(4_900)], brake=BrakeState.STOPPED).commands

        assert isinstance(cancel, Cancel)

    def test_wider_doubles_the_cooldown(self) -> None:
        """600 ms."""
        timer = SideTimer(Micros(LATER - 400_000))

        assert plan(wanted(4_900), [], timer=timer, brake=BrakeState.WIDER).wake_at == LATER + 200_000


def act(orders: list[Order], found: SidePlan, i: int) -> list[Order]:
    """A venue that obeys at once."""
    for command in found.commands:
        if isinstance(command, Place):
            orders = [*orders, order(command.price, command.count, name=f"n{i}", side=command.side)]
            continue
        (named,) = (o for o in orders if o.client_order_id == command.client_order_id)
        rest = [o for o in orders if o is not named]
        if isinstance(command, Cancel):
            orders = rest
        elif isinstance(command, Amend):
            moved = attrs.evolve(named, price=command.price, count=Count(named.filled + command.leaves))
            orders = [*rest, moved]
        else:
            assert 0 < command.leaves < named.leaves
            orders = [*rest, attrs.evolve(named, count=Count(named.filled + command.leaves))]
    return orders


@given(
    st.lists(
        st.tuples(st.integers(1, 97), st.integers(1, 1_000), st.integers(0, 999)),
        max_size=3,
        unique_by=lambda o: o[0],
    ),
    st.none() | st.tuples(st.integers(200, 9_700), st.integers(1, 10)),
    st.sampled_from(Side),
    st.integers(10**9, 10**9 + 300_000),
)
def test_commands_lead_from_what_rests_to_what_is_wanted(
    resting: list[tuple[int, int, int]], quote: tuple[int, int] | None, side: Side, last: int
) -> None:
    """Whatever rests: obeyed commands end at one order, within a cent of the wanted price and no larger, and stop.

    In at most six steps, and never is there a second order beside one that rests.
    """
    touch = Touch(None, Price(9_900)) if side is BID else Touch(Price(100), None)
    target = None
    if quote is not None:
        want, contracts = quote
        price = want // 100 * 100 if side is BID else -(-want // 100) * 100
        target = wanted(price, contracts * 100, side=side, want=Fraction(want))
    orders = [
        order(
            cents * 100 if side is BID else 10_000 - cents * 100,
            count,
            filled=min(filled, count - 1),
            side=side,
            name=f"o{cents}",
        )
        for cents, count, filled in resting
    ]
    timer, now = SideTimer(Micros(last)), 10**9
    for step in range(12):
        found = plan(target, orders, side=side, touch=touch, timer=timer, now=now)
        if not found.commands and found.wake_at is None:
            break
        assert not (orders and any(isinstance(c, Place) for c in found.commands))
        orders = act(orders, found, step)
        timer.record(found, Micros(now))
        now = found.wake_at or now + 1_000

    assert plan(target, orders, side=side, touch=touch, timer=timer, now=now) == SidePlan()
    if target is None:
        assert orders == []
    else:
        (left,) = orders
        assert abs(target.want - left.price) < DEFAULTS.min_requote
        assert CONTRACT <= left.leaves <= target.count

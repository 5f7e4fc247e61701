"""What a write is worth to the scheduler, and the cheaper way to the same end when tokens are short."""

import attrs
import pytest
import trio
from trio.testing import MockClock

from fake_exchange import FakeExchange
from mm.domain.commands import Amend, Cancel, Place
from mm.domain.numbers import Count, Price
from mm.domain.order import ClientOrderId, Order, OrderState
from mm.engine.diff import SidePlan
from mm.exchange import endpoints
from mm.exchange.port import Bucket
from mm.tasks.budget import Ticket, Urgency
from mm.tasks.tickets import earning, is_moved, stale_value, within
from task_rig import ASK, BID, GAME, TaskRig

LIMITS = attrs.evolve(FakeExchange().rate_limits(), costs={endpoints.CANCEL: 2})
AMEND = Amend(
    ticker=GAME, client_order_id=ClientOrderId("mm-t-1"), side=BID, price=Price(4_800), leaves=Count(1_000)
)


def resting(side: object, price: int, count: int = 1_000) -> Order:
    return Order(
        client_order_id=ClientOrderId("mm-t-1"),
        ticker=GAME,
        side=side,  # type: ignore[arg-type]
        price=Price(price),
        count=Count(count),
        state=OrderState.RESTING,
    )


async def test_a_quote_is_stale_by_how_much_nearer_than_our_half_spread_it_stands(
    autojump_clock: MockClock,
) -> None:
    """The mark is 0.50, the half-spread a cent: at 0.49 nothing is given away, at the mark a cent, beyond it more."""
    rig = TaskRig()
    maker = rig.add_quoter().maker
    rig.book(4_900, 5_100)

    assert stale_value(resting(BID, 4_900), maker) == 1_000
    assert stale_value(resting(BID, 5_000), maker) == 100 * 1_000
    assert stale_value(resting(BID, 5_200), maker) == 300 * 1_000
    assert stale_value(resting(ASK, 4_800), maker) == 300 * 1_000
    assert stale_value(None, maker) == 0


async def test_a_new_quote_is_worth_what_it_earns_when_it_is_met(autojump_clock: MockClock) -> None:
    """At most the half-spread: a quote far out is met too seldom to count for more."""
    rig = TaskRig()
    maker = rig.add_quoter().maker
    rig.book(4_900, 5_100)

    near, far = (Place(ticker=GAME, side=BID, price=Price(p), count=Count(1_000)) for p in (4_950, 4_000))
    assert earning(near, maker) == 50 * 1_000
    assert earning(far, maker) == 100 * 1_000


def test_an_amend_becomes_a_cancel_when_tokens_are_short() -> None:
    """The risk goes for two tokens instead of ten; the side knows that the new quote is to follow."""
    plan = SidePlan(commands=(AMEND,), is_action=True, is_replace=True)

    assert within(plan, 10, LIMITS) is plan
    cheap = within(plan, 2, LIMITS)
    assert cheap.commands == (
        Cancel(ticker=GAME, client_order_id=AMEND.client_order_id, reason="price moved", is_urgent=False),
    )
    assert cheap.is_replacing


def test_nothing_else_has_a_cheaper_way() -> None:
    """Nor has an amend where a cancel costs as much."""
    place = SidePlan(commands=(Place(ticker=GAME, side=BID, price=Price(1), count=Count(100)),))
    plan = SidePlan(commands=(AMEND,))

    assert within(place, 0, LIMITS) is place
    assert within(plan, 0, attrs.evolve(LIMITS, costs={})) is plan


@pytest.mark.parametrize(("value", "moved"), [(100, False), (110, False), (120, True), (80, True)])
def test_a_ticket_moves_in_its_line_only_for_a_change_worth_it(value: int, moved: bool) -> None:
    """An eighth of its value, or any change of urgency and cost."""
    ticket = Ticket(Urgency.CANCEL, 2, value=100)

    assert is_moved(ticket, Ticket(Urgency.CANCEL, 2, value=value)) is moved
    assert is_moved(ticket, Ticket(Urgency.EXIT, 2, value=100))
    assert is_moved(ticket, Ticket(Urgency.CANCEL, 10, value=100))


async def test_in_a_burst_risk_goes_first_and_the_new_quotes_follow(autojump_clock: MockClock) -> None:
    """Tokens for cancels, not for an amend: the bad quote is gone at once, and the new one comes as tokens do."""
    exchange = FakeExchange(write_bucket=Bucket(refill_per_s=20.0, capacity=100.0))
    rig = TaskRig(exchange=exchange)
    rig.writes.limits = attrs.evolve(rig.writes.limits, costs=LIMITS.costs)
    async with rig.with_quoter(4_900, 5_100):
        await trio.sleep(1)
        assert len(rig.resting(BID)) == 1
        rig.writes.bucket(0).tokens = 4.0
        rig.book(4_400, 4_600)
        await trio.sleep(0.2)
        assert len(rig.resting(BID)) == 0
        await trio.sleep(3)
        assert [report.price for report in rig.resting(BID)] == [4_400]

"""The state table of orders: total where it must be, and no way back from the end."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.errors import InvariantError
from mm.domain.numbers import Count, Price
from mm.domain.order import (
    TRANSITIONS,
    ClientOrderId,
    MarketTicker,
    Order,
    OrderEvent,
    OrderState,
    Side,
    next_state,
)

S, E = OrderState, OrderEvent


def order(state: OrderState = S.INTENDED, count: int = 1_000, **changes: int) -> Order:
    made = Order(
        client_order_id=ClientOrderId("mm-s-1"),
        ticker=MarketTicker("M"),
        side=Side.BID,
        price=Price(4_900),
        count=Count(count),
        **changes,  # type: ignore[arg-type]
    )
    made.state = state
    return made


def test_the_end_is_the_end() -> None:
    """No event leads out of DONE."""
    assert {after for (state, _), after in TRANSITIONS.items() if state is S.DONE} == {S.DONE}


@given(events=st.lists(st.sampled_from(list(E)), max_size=30))
def test_done_is_never_left_by_any_sequence(events: list[OrderEvent]) -> None:
    """Random events: impossible ones raise and change nothing; once done, done for ever."""
    found = order()
    was_done = False
    for event in events:
        before = found.state
        try:
            found.apply(event)
        except InvariantError:
            assert found.state is before
        was_done = was_done or found.state is S.DONE
        assert not was_done or found.state is S.DONE


@pytest.mark.parametrize("state", [s for s in S if s is not S.INTENDED])
@pytest.mark.parametrize("event", [E.GONE, E.SEEN_RESTING])
def test_what_the_venue_may_say_at_any_time_is_always_possible(state: OrderState, event: OrderEvent) -> None:
    """Reports come late, doubled and in any order: they are never a bug of ours."""
    next_state(state, event)


@pytest.mark.parametrize("state", [S.SENT, S.AMENDING, S.CANCELLING, S.UNKNOWN, S.DONE])
def test_an_answer_can_be_lost_whenever_a_write_is_out(state: OrderState) -> None:
    """Then the order is unknown, unless its end is proven already."""
    assert next_state(state, E.ANSWER_LOST) is (S.DONE if state is S.DONE else S.UNKNOWN)


@pytest.mark.parametrize("state", [S.SENT, S.RESTING, S.AMENDING, S.CANCELLING, S.UNKNOWN, S.DONE])
def test_the_late_answer_to_a_create_or_amend_is_always_possible(state: OrderState) -> None:
    """A report may have overtaken it in every state that a write can be in."""
    assert next_state(state, E.ACCEPTED) in (S.RESTING, S.CANCELLING, S.DONE)


def test_unknown_ends_by_proof_only() -> None:
    """Seen, accepted, refused or gone; nothing is sent about it and nothing else frees the side."""
    out = {event for (state, event) in TRANSITIONS if state is S.UNKNOWN}

    assert out == {E.ACCEPTED, E.SEEN_RESTING, E.REFUSED, E.ANSWER_LOST, E.GONE}


def test_every_state_is_reached_and_every_other_pair_refused() -> None:
    """The table is the whole truth: what it lacks raises, naming both."""
    reached, frontier = {S.INTENDED}, [S.INTENDED]
    while frontier:
        state = frontier.pop()
        for (before, _), after in TRANSITIONS.items():
            if before is state and after not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == set(S)
    for state, event in itertools.product(S, E):
        if (state, event) not in TRANSITIONS:
            with pytest.raises(InvariantError, match=f"{event.value}.*{state.value}"):
                next_state(state, event)


@given(
    state=st.sampled_from(list(S)),
    count=st.integers(0, 2_000),
    filled=st.integers(0, 2_500),
    reported=st.integers(0, 2_500),
)
def test_what_may_still_move_the_position(state: OrderState, count: int, filled: int, reported: int) -> None:
    """At risk is what may fill, or what is reported and not booked; never less than either, never negative."""
    found = order(state, count, filled=filled, reported_filled=reported)

    assert found.leaves == (0 if state is S.DONE else max(count - filled, 0))
    assert found.unbooked == max(reported - filled, 0)
    assert found.at_risk == max(found.leaves, found.unbooked)
    assert found.is_live == (state not in (S.DONE, S.INTENDED))


def test_sides() -> None:
    """A bid adds, an ask takes away; each is the other's opposite."""
    assert (Side.BID.sign, Side.ASK.sign) == (1, -1)
    assert [side.opposite.opposite for side in Side] == list(Side)

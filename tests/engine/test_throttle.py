"""A token bucket that is told the time: never more than its rate, whatever is asked of it and when."""

from hypothesis import example, given
from hypothesis import strategies as st

from mm.domain.numbers import SECOND, Micros
from mm.engine.throttle import TokenBucket


def bucket(refill: float = 10.0, capacity: float = 100.0, tokens: float | None = None) -> TokenBucket:
    return TokenBucket(refill, capacity, capacity if tokens is None else tokens, Micros(0))


@given(
    refill=st.floats(0.1, 1_000),
    capacity=st.floats(1, 1_000),
    asks=st.lists(st.tuples(st.integers(0, 5 * SECOND), st.floats(0, 300), st.floats(0, 50)), max_size=40),
)
def test_never_more_than_a_bucket_and_its_refill_in_any_window(
    refill: float, capacity: float, asks: list[tuple[int, float, float]]
) -> None:
    """Over every window what was granted is at most capacity + rate x time; what must be kept is kept."""
    tokens, now = bucket(refill, capacity), 0
    granted: list[tuple[int, float]] = []
    for pause, cost, keep in asks:
        now += pause
        if tokens.take(cost, Micros(now), keep=keep):
            granted.append((now, cost))
            assert tokens.tokens >= keep - 1e-6
        assert -1e-6 <= tokens.tokens <= capacity
    for i in range(len(granted)):
        spent = 0.0
        for at, cost in granted[i:]:
            spent += cost
            assert spent <= capacity + refill * (at - granted[i][0]) / SECOND + 1e-3


@example(tokens=1.0, cost=1.0, keep=1e-09, refusals=0)
@given(
    tokens=st.floats(0, 100),
    cost=st.floats(0.1, 100),
    keep=st.floats(0, 50),
    refusals=st.integers(0, 4),
)
def test_after_the_told_wait_it_is_granted(tokens: float, cost: float, keep: float, refusals: int) -> None:
    """`wait_s` is never too short, at whatever pace; and not much too long."""
    found = bucket(10.0, 1_000.0, tokens)
    for _ in range(refusals):
        found.refused(Micros(0))
    wait = found.wait_s(cost, Micros(0), keep=keep)
    if wait == 0:
        assert found.take(cost, Micros(0), keep=keep)
        return
    assert not bucket(10.0, 1_000.0, found.tokens).take(cost, Micros(0), keep=keep)
    assert found.take(cost, Micros(round((wait + 1e-5) * SECOND)), keep=keep)


def test_a_refusal_is_not_forgotten_at_once() -> None:
    """Empty, half the pace; full pace again after a while."""
    found = bucket()
    found.refused(Micros(0))
    assert not found.take(1, Micros(0))
    assert found.take(5, Micros(SECOND))
    assert not found.take(4, Micros(SECOND))
    found.refill(Micros(120 * SECOND))

    assert found.pace == 1.0


def test_many_refusals_do_not_stop_it() -> None:
    """A tenth of the pace is the least."""
    found = bucket()
    for _ in range(20):
        found.refused(Micros(0))

    assert found.wait_s(1, Micros(0)) <= 1.0 + 1e-9


def test_tokens_given_back_never_exceed_the_bucket() -> None:
    """Returned tokens are usable at once, and a full bucket stays full."""
    found = bucket()
    assert found.take(100, Micros(0))
    found.give_back(40)
    assert found.take(40, Micros(0))
    found.give_back(1_000)

    assert found.tokens == 100


def test_a_clock_that_steps_back_refills_nothing() -> None:
    """No tokens for time that did not pass."""
    found = bucket(tokens=0.0)
    found.refill(Micros(SECOND))
    assert found.refill(Micros(0)) == 10.0

"""Guards react in grades, stay pulled until a person resumes, and let the milder reactions end by themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.numbers import SECOND, Micros
from mm.engine.risk.guards import (
    Facts,
    FallFromBest,
    Guard,
    Guards,
    Measure,
    RateWindow,
    Reaction,
    Step,
    describe,
    parse_steps,
    rolling_limit,
)

CALM = Facts(pnl=0, gross=0, net=0, drifting=0)


def at(seconds: float) -> Micros:
    return Micros(round(seconds * SECOND))


def test_steps_are_read_exactly_and_in_the_units_of_their_measure() -> None:
    assert parse_steps("20:widen, 40.5:reduce-only,60:STOP", Measure.DRAWDOWN) == (
        Step(20_000_000, Reaction.WIDEN),
        Step(40_500_000, Reaction.REDUCE_ONLY),
        Step(60_000_000, Reaction.STOP),
    )
    assert parse_steps("100:pull", Measure.FILL_RATE) == (Step(10_000, Reaction.PULL),)
    assert parse_steps("", Measure.DRIFT) == ()


@pytest.mark.parametrize(
    "text",
    ["20", "20:explode", "x:pull", "0:pull", "-1:pull", "20:pull,10:stop", "20:pull,30:widen", "1.5:pull"],
)
def test_steps_that_make_no_sense_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="rising values and growing reactions"):
        parse_steps(text, Measure.REJECT_RATE)


def test_each_higher_step_triggers_once() -> None:
    guard = Guard(Measure.DRIFT, parse_steps("2:widen,4:reduce-only", Measure.DRIFT))
    assert guard.look(1) is None
    first = guard.look(2)
    assert first is not None
    assert first.step.reaction is Reaction.WIDEN
    assert guard.look(3) is None
    second = guard.look(5)
    assert second is not None
    assert (second.step.reaction, second.is_latched) == (Reaction.REDUCE_ONLY, False)


def test_a_mild_reaction_ends_below_half_of_its_step_and_can_come_again() -> None:
    guard = Guard(Measure.DRIFT, parse_steps("4:widen", Measure.DRIFT))
    guard.look(4)
    guard.look(2)
    assert guard.reaction is Reaction.WIDEN
    guard.look(1)
    assert guard.reaction is Reaction.NONE
    assert guard.look(4) is not None


def test_what_was_pulled_stays_pulled_until_a_person_resumes() -> None:
    guard = Guard(Measure.DRIFT, parse_steps("4:pull", Measure.DRIFT))
    trigger = guard.look(4)
    assert trigger is not None
    assert trigger.is_latched
    guard.look(0)
    assert guard.reaction is Reaction.PULL
    guard.resume()
    assert guard.reaction is Reaction.NONE
    assert guard.look(5) is not None, "what still stands above the step triggers anew"


def test_the_drawdown_is_measured_from_the_best_result_since_the_day_began_or_a_person_resumed() -> None:
    guards = Guards.of({Measure.DRAWDOWN: parse_steps("10:pull", Measure.DRAWDOWN)})
    for second, pnl in enumerate((0, 5, 20, 12)):
        assert not guards.observe(_pnl(pnl), at(second)).triggers
    verdict = guards.observe(_pnl(10), at(5))
    assert verdict.reaction is Reaction.PULL
    assert [t.value for t in verdict.triggers] == [10_000_000]
    assert verdict.why == (
        "GUARD_DRAWDOWN: 10 dollars below the best marked result of the day (step 10: pull)"
    )
    guards.resume()
    assert guards.observe(_pnl(10), at(6)).reaction is Reaction.NONE
    assert guards.observe(_pnl(0), at(7)).reaction is Reaction.PULL


def test_the_loss_rate_forgets_what_is_older_than_an_hour() -> None:
    guards = Guards.of({Measure.LOSS_RATE: parse_steps("10:reduce-only", Measure.LOSS_RATE)})
    guards.observe(_pnl(20), at(0))
    assert guards.observe(_pnl(11), at(3_599)).reaction is Reaction.NONE
    assert guards.observe(_pnl(10), at(3_599.5)).reaction is Reaction.REDUCE_ONLY
    assert guards.observe(_pnl(10), at(3_600)).reaction is Reaction.NONE, "the best of the hour is 11 now"


def test_fills_and_refusals_are_counted_within_their_windows() -> None:
    guards = Guards.of(
        {
            Measure.FILL_RATE: parse_steps("30:widen", Measure.FILL_RATE),
            Measure.REJECT_RATE: parse_steps("2:flatten", Measure.REJECT_RATE),
        }
    )
    guards.filled(2_000, at(0))
    guards.filled(1_000, at(14))
    guards.refused(at(0))
    assert guards.observe(CALM, at(14)).reaction is Reaction.WIDEN
    assert guards.observe(CALM, at(30)).reaction is Reaction.NONE
    guards.refused(at(59))
    assert guards.observe(CALM, at(59)).reaction is Reaction.FLATTEN


def test_gross_net_and_drift_are_judged_as_they_are() -> None:
    steps = {m: parse_steps("5:pull", m) for m in (Measure.GROSS, Measure.NET, Measure.DRIFT)}
    for facts in (
        Facts(pnl=0, gross=500, net=0, drifting=0),
        Facts(pnl=0, gross=0, net=-500, drifting=0),
        Facts(pnl=0, gross=0, net=0, drifting=5),
    ):
        verdict = Guards.of(steps).observe(facts, at(0))
        assert len(verdict.triggers) == 1
        assert verdict.reaction is Reaction.PULL


def test_without_steps_nothing_is_guarded() -> None:
    guards = Guards.of({Measure.DRIFT: ()})
    assert (
        guards.observe(Facts(pnl=-(10**12), gross=10**9, net=0, drifting=9), at(0)).reaction is Reaction.NONE
    )


def test_the_order_groups_rolling_limit_is_the_fill_guards_first_step_that_pulls() -> None:
    steps = parse_steps("30:widen,50:pull,70:stop", Measure.FILL_RATE)
    assert rolling_limit(steps, 80_000) == 5_000
    assert rolling_limit(steps[:1], 80_000) == 80_000


def test_a_guard_is_described_with_its_numbers() -> None:
    guard = Guard(Measure.FILL_RATE, parse_steps("30.5:widen", Measure.FILL_RATE))
    guard.look(4_025)
    assert describe(guard) == "GUARD_FILL_RATE: 40.25 contracts filled within 15 seconds (step 30.5: widen)"


def _pnl(dollars: int) -> Facts:
    return Facts(pnl=dollars * 1_000_000, gross=0, net=0, drifting=0)


@given(
    moves=st.lists(st.tuples(st.integers(0, 5), st.integers(-50, 50)), min_size=1, max_size=60),
    length=st.sampled_from([None, 3, 10]),
)
def test_the_fall_from_the_best_equals_a_plain_look_back(
    moves: list[tuple[int, int]], length: int | None
) -> None:
    """Against a list that keeps everything."""
    fall = FallFromBest(None if length is None else Micros(length))
    seen: list[tuple[int, int]] = []
    now = 0
    for wait, result in moves:
        now += wait
        seen.append((now, result))
        window = [r for t, r in seen if length is None or t > now - length]
        assert fall.fall(result, Micros(now)) == max(window) - result


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
def test_a_rate_window_equals_a_plain_sum(events: list[tuple[int, int]]) -> None:
    """Against a list that keeps everything."""
    window, seen, now = RateWindow(Micros(7)), [], 0
    for wait, amount in events:
        now += wait
        seen.append((now, amount))
        window.add(amount, Micros(now))
        assert window.sum(Micros(now)) == sum(a for t, a in seen if t > now - 7)

"""HybridRiskPolicy and the gate: the scenarios of the strategy, to the microsecond."""

import pytest

from mm.domain.commands import FlattenReason
from mm.domain.inventory import InventoryState
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import Side
from mm.engine.hybrid_risk import ExtremePriceGate, HybridRiskPolicy
from mm.engine.parameters import StrategyParameters, build_parameters

MINUTE = 60 * SECOND


def long(contracts: int, price: int = 5_000, ts: int = 0, side: Side = Side.BID) -> InventoryState:
    """A position opened in one fill."""
    state = InventoryState()
    state.apply(side, Price(price), Count(contracts * 100), Money(0), Micros(ts))
    return state


def at(seconds: float) -> Micros:
    return Micros(round(seconds * SECOND))


@pytest.fixture(name="policy")
def _policy() -> HybridRiskPolicy:
    return HybridRiskPolicy(StrategyParameters())


class TestAdverseExcursion:
    def test_a_dip_that_recovers_in_six_seconds_does_nothing(self, policy: HybridRiskPolicy) -> None:
        """12c down, back at -4c after 6 s: no trigger, then or later."""
        held = long(10)

        found = [
            policy.should_flatten(held, Price(mark), at(seconds))
            for seconds, mark in [(0, 5_000), (1, 3_800), (4, 3_800), (7, 4_600), (9, 4_600), (30, 4_600)]
        ]

        assert found == [None] * 6
        assert policy.mae_deadline() is None

    def test_a_fall_that_stays_triggers_at_eight_seconds(self, policy: HybridRiskPolicy) -> None:
        """15c down at 1 s: due at 9 s exactly, not a microsecond earlier, by time alone."""
        held = long(10)
        policy.should_flatten(held, Price(3_500), at(1))

        assert policy.mae_deadline() == policy.next_deadline(held) == at(9)
        assert policy.should_flatten(held, Price(3_500), Micros(at(9) - 1)) is None
        assert policy.should_flatten(held, Price(3_500), at(9)) is FlattenReason.MAE_FAILSAFE

    def test_eight_cents_exactly_are_a_breach(self, policy: HybridRiskPolicy) -> None:
        """Included; one price unit less is not, and an average entry is not rounded first."""
        policy.should_flatten(long(10), Price(4_201), at(0))
        assert policy.breach_since is None

        policy.should_flatten(long(10), Price(4_200), at(0))
        assert policy.breach_since == 0

    def test_the_average_entry_is_not_rounded_before_it_is_compared(self, policy: HybridRiskPolicy) -> None:
        """An excursion of 7.9999...c is none: 2/3 of a unit decide."""
        held = long(10, price=5_000)
        held.apply(Side.BID, Price(5_001), Count(2_000), Money(0), Micros(0))  # vwap 5000 2/3

        policy.should_flatten(held, Price(4_201), at(0))
        assert policy.breach_since is None
        policy.should_flatten(held, Price(4_200), at(0))
        assert policy.breach_since == 0

    def test_a_mark_out_of_breach_restarts_the_timer(self, policy: HybridRiskPolicy) -> None:
        """Without a break means without a break."""
        held = long(10)
        for seconds, mark in [(0, 4_000), (7, 4_300), (7.5, 4_000)]:
            assert policy.should_flatten(held, Price(mark), at(seconds)) is None

        assert policy.should_flatten(held, Price(4_000), at(15.4)) is None
        assert policy.should_flatten(held, Price(4_000), at(15.5)) is FlattenReason.MAE_FAILSAFE

    @pytest.mark.parametrize("sold", [10, 25])
    def test_going_flat_or_turning_over_resets_the_timer(self, policy: HybridRiskPolicy, sold: int) -> None:
        """Even when the next fill takes it back before anybody looks."""
        held = long(10)
        policy.should_flatten(held, Price(4_000), at(0))
        for side, contracts in [(Side.ASK, sold), (Side.BID, sold)]:
            held.apply(side, Price(5_000), Count(contracts * 100), Money(0), at(5))
            policy.on_fill(held)

        assert held.net == 1_000
        assert policy.should_flatten(held, Price(4_000), at(8)) is None
        assert policy.mae_deadline() == at(16)

    def test_a_change_of_sign_is_seen_without_being_told(self, policy: HybridRiskPolicy) -> None:
        """From long under water to short under water between two looks: the timer begins anew."""
        held = long(10)
        policy.should_flatten(held, Price(4_000), at(0))
        held.apply(Side.ASK, Price(3_000), Count(2_000), Money(0), at(5))

        assert held.mae(Price(4_000)) == 1_000
        assert policy.should_flatten(held, Price(4_000), at(8)) is None
        assert policy.mae_deadline() == at(16)

    def test_a_short_suffers_from_a_rise(self, policy: HybridRiskPolicy) -> None:
        """The mirror."""
        held = long(10, side=Side.ASK)
        policy.should_flatten(held, Price(5_800), at(0))

        assert policy.should_flatten(held, Price(5_800), at(8)) is FlattenReason.MAE_FAILSAFE

    @pytest.mark.parametrize("back, reason", [(4_000, FlattenReason.MAE_FAILSAFE), (4_600, None)])
    def test_a_book_that_is_gone_neither_fires_nor_resets(
        self, policy: HybridRiskPolicy, back: int, reason: FlattenReason | None
    ) -> None:
        """Without a mark there is no verdict; the first mark after it decides, with the time that has passed."""
        held = long(10)
        policy.should_flatten(held, Price(4_000), at(0))

        assert policy.should_flatten(held, None, at(9)) is None
        assert policy.should_flatten(held, Price(back), at(10)) is reason

    def test_a_window_of_nothing_fires_at_once(self) -> None:
        """MAE_ACTIVATION_WINDOW_SEC=0: at the mark that is in breach."""
        policy = HybridRiskPolicy(build_parameters({"MAE_ACTIVATION_WINDOW_SEC": "0"}))

        assert policy.should_flatten(long(10), Price(4_200), at(3)) is FlattenReason.MAE_FAILSAFE


class TestDurationWeighted:
    @pytest.mark.parametrize(
        "contracts, minutes", [(10, 50), (50, 10), (12, 42)], ids=["10x50", "50x10", "12x42=504"]
    )
    def test_triggers(self, policy: HybridRiskPolicy, contracts: int, minutes: int) -> None:
        """500 contract-minutes, however they are made up."""
        held = long(contracts)

        found = policy.should_flatten(held, Price(5_000), Micros(minutes * MINUTE))

        assert found is FlattenReason.DURATION_WEIGHTED

    def test_fires_by_time_alone_at_its_first_microsecond(self, policy: HybridRiskPolicy) -> None:
        """The deadline is exact."""
        held = long(12, ts=5)
        due = policy.next_deadline(held)

        assert due == 5 + 500 * MINUTE // 12 + 1 - (500 * MINUTE % 12 == 0)
        assert policy.should_flatten(held, Price(5_000), Micros(due - 1)) is None
        assert policy.should_flatten(held, Price(5_000), due) is FlattenReason.DURATION_WEIGHTED

    def test_comes_before_the_failsafe(self, policy: HybridRiskPolicy) -> None:
        """Both hold: the first rule names the reason."""
        held = long(10)
        policy.should_flatten(held, Price(1_000), at(0))

        assert (
            policy.should_flatten(held, Price(1_000), Micros(50 * MINUTE)) is FlattenReason.DURATION_WEIGHTED
        )

    def test_works_without_a_mark(self, policy: HybridRiskPolicy) -> None:
        """A book that is gone does not stop the clock."""
        assert policy.should_flatten(long(10), None, Micros(50 * MINUTE)) is FlattenReason.DURATION_WEIGHTED

    def test_flat_is_never_flattened(self) -> None:
        """Not even with limits of zero."""
        policy = HybridRiskPolicy(
            build_parameters({"DURATION_WEIGHTED_LIMIT": "0", "MAE_FAILSAFE_CENTS": "0"})
        )

        assert policy.should_flatten(InventoryState(), Price(5_000), at(99)) is None
        assert policy.next_deadline(InventoryState()) is None


class TestExtremePriceGate:
    @pytest.mark.parametrize("mark", [500, 9_500, 1, 9_999])
    def test_shuts_at_the_edges(self, mark: int) -> None:
        """0.05 and 0.95 included; told once."""
        gate = ExtremePriceGate()

        assert (gate.update(Price(mark)), gate.update(Price(mark)), gate.is_open) == (True, False, False)

    @pytest.mark.parametrize("mark", [501, 9_499])
    def test_stays_open_inside(self, mark: int) -> None:
        """One unit inside is inside."""
        gate = ExtremePriceGate()

        assert (gate.update(Price(mark)), gate.is_open) == (False, True)

    @pytest.mark.parametrize("mark, is_open", [(999, False), (1_000, True), (9_000, True), (9_001, False)])
    def test_opens_only_well_inside(self, mark: int, is_open: bool) -> None:
        """Shut until 0.10 .. 0.90, both included."""
        gate = ExtremePriceGate(is_open=False)
        gate.update(Price(mark))

        assert gate.is_open is is_open

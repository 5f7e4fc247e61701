"""When a working quote is touched: the replace rule, the cooldown, the churn brake."""

from fractions import Fraction

import pytest

from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoting import WantedQuote
from mm.engine.requote import BrakeState, ChurnBrake, QuoteAction, QuoteDecision, decide_quote

BID, ASK = Side.BID, Side.ASK
DEFAULTS = StrategyParameters()
FAR = Touch(Price(100), Price(9_900))
MS = 1_000


def wanted(want: float, side: Side = BID) -> WantedQuote:
    """A wanted quote whose price is rounded to the cent."""
    price = int(want // 100 * 100) if side is BID else int(-(-want // 100) * 100)
    return WantedQuote(side=side, want=Fraction(want), price=Price(price), count=Count(1_000))


def decide(
    resting: int | None,
    quote: WantedQuote | None,
    *,
    touch: Touch = FAR,
    last: int | None = None,
    now: int = 10**9,
    side: Side = BID,
) -> QuoteDecision:
    return decide_quote(
        side,
        None if resting is None else Price(resting),
        quote,
        touch,
        None if last is None else Micros(last),
        Micros(now),
        DEFAULTS,
    )


class TestReplaceRule:
    @pytest.mark.parametrize(
        "want, action",
        [
            (4_900, QuoteAction.KEEP),
            (4_801, QuoteAction.KEEP),
            (4_999, QuoteAction.KEEP),
            (4_800, QuoteAction.REPLACE),
            (5_000, QuoteAction.REPLACE),
        ],
    )
    def test_only_a_whole_cent_of_the_exact_price_moves_it(self, want: float, action: QuoteAction) -> None:
        """Resting at 0.49: 0.4801 rounds to another tick and still stays; 0.4800 is a cent away and moves."""
        assert decide(4_900, wanted(want)).action is action

    def test_the_first_quote_needs_no_cooldown(self) -> None:
        """No action yet: it rests at once."""
        assert decide(None, wanted(4_900)).action is QuoteAction.PLACE

    @pytest.mark.parametrize("resting", [None, 4_700])
    def test_placing_and_replacing_wait_for_the_cooldown(self, resting: int | None) -> None:
        """300 ms exactly are enough, a microsecond less is not; the end is told."""
        expected = QuoteAction.PLACE if resting is None else QuoteAction.REPLACE

        early = decide(resting, wanted(4_900), last=1_000, now=1_000 + 300 * MS - 1)

        assert early == QuoteDecision(QuoteAction.WAIT, Micros(1_000 + 300 * MS))
        assert decide(resting, wanted(4_900), last=1_000, now=1_000 + 300 * MS).action is expected

    def test_what_must_go_never_waits(self) -> None:
        """Not wanted, or crossing: at once, inside the cooldown too."""
        assert decide(4_900, None, last=10, now=11).action is QuoteAction.REMOVE
        for ask in (4_900, 4_800):
            crossed = decide(4_900, wanted(4_900), touch=Touch(Price(100), Price(ask)), last=10, now=11)
            assert crossed.action is QuoteAction.REMOVE
        over = decide(5_100, wanted(5_100, ASK), touch=Touch(Price(5_100), None), side=ASK, last=10, now=11)
        assert over.action is QuoteAction.REMOVE

    def test_nothing_wanted_and_nothing_there_is_peace(self) -> None:
        """No action, no wake-up."""
        assert decide(None, None) == QuoteDecision(QuoteAction.KEEP)


class TestChurnBrake:
    def brake(self, count: int, *, every: float, start: float = 0) -> tuple[ChurnBrake, int]:
        """A brake after `count` replaces, and the time of the last."""
        brake = ChurnBrake()
        now = 0
        for i in range(count):
            now = round((start + i * every) * SECOND)
            brake.note_replace(Micros(now))
        return brake, now

    @pytest.mark.parametrize(
        "count, every, state",
        [
            (11, 1, BrakeState.OFF),
            (12, 1, BrakeState.WIDER),
            (15, 1, BrakeState.WIDER),
            (16, 1, BrakeState.STOPPED),
            (17, 3, BrakeState.OFF),
            (18, 3, BrakeState.WIDER),
            (23, 2.5, BrakeState.WIDER),
            (24, 2.5, BrakeState.STOPPED),
            (40, 4, BrakeState.OFF),
        ],
    )
    def test_thresholds(self, count: int, every: float, state: BrakeState) -> None:
        """12 in 30 s or 18 in 60 s widen; 16 or 24 stop; a steady 15 a minute do neither."""
        brake, now = self.brake(count, every=every)

        assert brake.state(Micros(now)) is state

    @pytest.mark.parametrize("early, late, window", [(11, 1, 30), (9, 9, 60)])
    def test_a_replace_leaves_its_window_to_the_microsecond(self, early: int, late: int, window: int) -> None:
        """What is exactly 30 (60) seconds old no longer counts, a microsecond younger it does."""
        for shift, state in [(0, BrakeState.OFF), (-1, BrakeState.WIDER)]:
            brake, now = ChurnBrake(), Micros(window * SECOND + shift)
            for moment in [Micros(0)] * early + [now] * late:
                brake.note_replace(moment)

            assert brake.state(now) is state

    def test_wider_for_twelve_seconds_with_a_double_cooldown(self) -> None:
        """And then off by time alone."""
        brake, now = self.brake(12, every=1)
        end = Micros(now + 12 * SECOND)

        assert (brake.extra_ticks(Micros(now)), brake.cooldown(DEFAULTS, Micros(now))) == (1, 600 * MS)
        assert brake.released_at(Micros(now)) == end
        assert (brake.extra_ticks(end), brake.cooldown(DEFAULTS, end)) == (0, 300 * MS)
        assert brake.released_at(end) is None

    def test_stopped_for_thirty_seconds(self) -> None:
        """Then quoting may go on."""
        brake, now = self.brake(16, every=1)

        assert brake.state(Micros(now + 30 * SECOND - 1)) is BrakeState.STOPPED
        assert brake.state(Micros(now + 30 * SECOND)) is BrakeState.OFF

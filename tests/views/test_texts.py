"""Numbers and results in words."""

import attrs
import pytest

from mm.views.texts import age, cents, clip, contracts, dollars, duration, short_names, summary_text


@pytest.mark.parametrize(
    "money, text",
    [
        (0, "0.00"),
        (4_999, "0.00"),
        (5_000, "+0.01"),
        (-5_000, "-0.01"),
        (-4_999, "0.00"),
        (12_345_678, "+12.35"),
    ],
)
def test_dollars_are_rounded_to_cents_half_away_from_zero(money, text):
    """And a rounded zero has no sign."""
    assert dollars(money, sign=True) == text


def test_prices_are_cents_without_idle_zeros():
    """Whole cents, parts of cents, none."""
    assert [cents(p) for p in (4100, 4150, 4125, 10_000, None)] == ["41", "41.5", "41.25", "100", "-"]


def test_contracts_have_no_idle_zeros():
    """Also those that end in zeros before the point."""
    assert [contracts(c) for c in (0, 37, 1000, 10_000, 1050)] == ["0", "0.37", "10", "100", "10.5"]
    assert [contracts(c, sign=True) for c in (1000, -1000, 0)] == ["+10", "-10", "0"]


def test_durations_and_ages():
    """In the unit that fits."""
    assert [duration(s) for s in (0, 59.9, 60, 3599, 3600, 90_061)] == [
        "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 01 min",
    ]  # fmt: skip
    assert [age(s) for s in (None, 0.04, 9.94, 12)] == ["never", "0.0 s", "9.9 s", "12 s"]


def test_short_names_stay_unique():
    """Series and date go where nothing is lost by it; otherwise the whole ticker stays."""
    one, other = "KXNHLGAME-26OCT12VGKMIN-VGK", "KXNHLGAME-26OCT12VGKMIN-MIN"
    assert short_names([one, other]) == {one: "VGKMIN-VGK", other: "VGKMIN-MIN"}
    tomorrow = "KXNHLGAME-26OCT13VGKMIN-VGK"
    assert short_names([one, tomorrow]) == {one: "26OCT12VGKMIN-VGK", tomorrow: "26OCT13VGKMIN-VGK"}
    spread = "KXNHLSPREAD-26OCT12VGKMIN-VGK"
    assert short_names([one, spread]) == {one: one, spread: spread}
    assert short_names(["KXBTC15M-26OCT121215-15"]) == {"KXBTC15M-26OCT121215-15": "KXBTC15M-26OCT121215-15"}
    assert short_names([]) == {}


def test_clip_marks_what_it_cuts():
    """With one character."""
    assert (clip("abcdef", 6), clip("abcdefg", 6)) == ("abcdef", "abcde…")


@attrs.define(kw_only=True)
class Result:
    """A run that went well."""

    exit_code: int = 0
    reason: str = "SIGINT"
    markets: int = 16
    orders_placed: int = 120
    orders_cancelled: int = 100
    orders_resting_at_exit: int | None = 0
    fills: int = 5
    contracts: int = 5037
    realized_pnl: int = -1_230_000
    fees: int = 87_500
    positions_match: bool | None = True


def test_the_last_text_of_a_good_run():
    """Nothing rests, positions equal, exit code 0."""
    assert summary_text(Result()).splitlines() == [
        "mm has ended: SIGINT",
        "  markets quoted   16",
        "  orders           120 placed, 100 cancelled",
        "  resting at exit  0",
        "  fills            5 (50.37 contracts)",
        "  realized P&L     -1.23 dollars net, fees 0.09",
        "  positions        equal to the exchange's",
        "  exit code        0",
    ]


def test_the_last_text_shouts_when_orders_may_rest():
    """And says what to do."""
    text = summary_text(Result(exit_code=2, orders_resting_at_exit=None, positions_match=False))
    assert "unknown: ORDERS MAY REST. Run `mm cancel-all`" in text
    assert "DIFFER" in text
    assert "not compared" in summary_text(Result(positions_match=None, exit_code=1))

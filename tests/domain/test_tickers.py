"""Tickers, and the calendar of US Eastern."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import (
    eastern_date,
    event_of,
    format_date_token,
    format_time,
    from_datetime,
    next_eastern_midnight,
    parse_date_token,
    parse_event_token,
    parse_time,
    read_time,
    series_of,
    to_datetime,
)

HOUR = 3_600 * SECOND
moments = st.integers(0, 4_000_000_000 * SECOND).map(Micros)
dates = st.dates(dt.date(2000, 1, 1), dt.date(2099, 12, 31))


@pytest.mark.parametrize(
    ("ticker", "date", "start", "rest"),
    [
        ("KXNHLGAME-26OCT12VGKMIN-VGK", dt.date(2026, 10, 12), None, "VGKMIN"),
        ("KXNHLGAME-26OCT12VGKMIN", dt.date(2026, 10, 12), None, "VGKMIN"),
        ("KXMLBGAME-26APR291840COLCIN-COL", dt.date(2026, 4, 29), dt.time(18, 40), "COLCIN"),
        ("KXATPMATCH-25NOV08MUSDJO-MUS", dt.date(2025, 11, 8), None, "MUSDJO"),
        ("KXBTC15M-26FEB290000-00", None, None, None),
        ("KXNHL-27-VGK", None, None, None),
        ("KXNHLGAME", None, None, None),
        ("KXNHLGAME-26XYZ12VGKMIN-VGK", None, None, None),
        ("KXNHLGAME-26OCT32VGKMIN-VGK", None, None, None),
        ("KXMLBGAME-26APR299940COLCIN-COL", dt.date(2026, 4, 29), None, "COLCIN"),
    ],
)
def test_the_dated_token(ticker: str, date: dt.date | None, start: dt.time | None, rest: str | None) -> None:
    """Series, date, optional start, teams; what is no date is no date."""
    token = parse_event_token(ticker)

    if date is None:
        assert token is None
    else:
        assert token is not None
        assert (token.date, token.start, token.rest) == (date, start, rest)


def test_parts_of_a_ticker() -> None:
    """The series is before the first dash, the event before the last."""
    assert series_of("KXNHLGAME-26OCT12VGKMIN-VGK") == "KXNHLGAME"
    assert event_of("KXNHLGAME-26OCT12VGKMIN-VGK") == "KXNHLGAME-26OCT12VGKMIN"


@given(date=dates)
def test_date_tokens_round_trip(date: dt.date) -> None:
    """Every day of the century."""
    assert parse_date_token(format_date_token(date)) == date


@pytest.mark.parametrize(
    "token", ["", "26OCT", "26OCT1", "2026OCT12", "26OCT12X", "26OCT121900", "26oct12", "26FEB30"]
)
def test_what_is_no_date_token(token: str) -> None:
    """Refused with the text in the message."""
    with pytest.raises(ValueError, match="not a date token"):
        parse_date_token(token)


@given(now=moments)
def test_the_next_midnight_begins_the_next_day(now: Micros) -> None:
    """A microsecond before it is today, at it tomorrow; a day has 23, 24 or 25 hours."""
    midnight = next_eastern_midnight(now)

    assert now < midnight <= now + 25 * HOUR
    assert eastern_date(Micros(midnight - 1)) == eastern_date(now)
    assert eastern_date(midnight) == eastern_date(now) + dt.timedelta(days=1)
    assert next_eastern_midnight(midnight) - midnight in (23 * HOUR, 24 * HOUR, 25 * HOUR)


@pytest.mark.parametrize(
    ("utc", "date"),
    [
        ("2026-10-13T03:59:59.999999Z", dt.date(2026, 10, 12)),
        ("2026-10-13T04:00:00Z", dt.date(2026, 10, 13)),
        ("2026-12-13T04:59:59Z", dt.date(2026, 12, 12)),
        ("2026-12-13T05:00:00Z", dt.date(2026, 12, 13)),
        ("2027-01-01T00:30:00Z", dt.date(2026, 12, 31)),
        # the clocks go forward at 07:00 UTC, back at 06:00 UTC
        ("2026-03-08T04:59:59Z", dt.date(2026, 3, 7)),
        ("2026-03-08T05:00:00Z", dt.date(2026, 3, 8)),
        ("2026-03-09T03:59:59Z", dt.date(2026, 3, 8)),
        ("2026-03-09T04:00:00Z", dt.date(2026, 3, 9)),
        ("2026-11-01T03:59:59Z", dt.date(2026, 10, 31)),
        ("2026-11-01T04:00:00Z", dt.date(2026, 11, 1)),
        ("2026-11-02T04:59:59Z", dt.date(2026, 11, 1)),
        ("2026-11-02T05:00:00Z", dt.date(2026, 11, 2)),
    ],
)
def test_the_day_in_the_east(utc: str, date: dt.date) -> None:
    """Around midnight, in summer and winter, over New Year and the changes of the clocks."""
    assert eastern_date(parse_time(utc)) == date


@given(moment=st.integers(0, 4_000_000_000 * SECOND).map(Micros), trim=st.booleans())
def test_times_round_trip(moment: Micros, trim: bool) -> None:
    """To text and back, with and without trailing zeros, and through datetime."""
    assert parse_time(format_time(moment, trim=trim)) == moment
    assert from_datetime(to_datetime(moment)) == moment
    if trim:
        assert not format_time(moment, trim=True).removesuffix("Z").endswith(".")


@given(moment=moments, zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu"]))
def test_any_offset_is_the_same_moment(moment: Micros, zone: str) -> None:
    """Written with another zone's offset."""
    text = to_datetime(moment).astimezone(ZoneInfo(zone)).isoformat()

    assert parse_time(text) == moment


@given(fraction=st.text("0123456789", min_size=1, max_size=12))
def test_fractions_of_any_length(fraction: str) -> None:
    """The venue trims zeros, others write nanoseconds: the microseconds count."""
    found = parse_time(f"2026-10-12T23:10:01.{fraction}Z")

    assert found - parse_time("2026-10-12T23:10:01Z") == int(fraction[:6].ljust(6, "0"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-10-12",
        "2026-10-12T23:10Z",
        "12.10.2026 23:10:01",
        "2026-13-12T00:00:00Z",
        "2026-10-12T24:00:00Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    """Refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(seconds=st.integers(10**8, 4 * 10**9))
def test_the_unit_of_a_number_is_told_by_its_size(seconds: int) -> None:
    """Seconds, milliseconds or microseconds, as a number or as text."""
    for number in (seconds, seconds * 1_000, seconds * SECOND):
        assert read_time(number) == read_time(str(number)) == seconds * SECOND

"""The anatomy of sports tickers and the calendar they use.

`KXNHLGAME-26OCT12VGKMIN-VGK`: series, event token (date, optional HHMM start, both teams), outcome. The date is the
scheduled local date in US Eastern, so "today" is a day in that zone and never the UTC day.
"""

import datetime as dt
import re
from typing import Final
from zoneinfo import ZoneInfo

import attrs

from mm.domain.numbers import SECOND, Micros

EASTERN: Final = ZoneInfo("America/New_York")
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_TOKEN: Final = re.compile(r"(\d{2})([A-Z]{3})(\d{2})(\d{4})?(.*)", re.ASCII)


@attrs.frozen
class EventToken:
    """The middle part of a dated ticker."""

    date: dt.date
    start: dt.time | None
    """Local start in US Eastern where the ticker carries one (MLB and others)."""
    rest: str
    """Both team codes, joined; they cannot be split by length."""


def series_of(ticker: str) -> str:
    """The series of a market or event ticker."""
    return ticker.partition("-")[0]


def event_of(ticker: str) -> str:
    """The event of a market ticker: all but its last part."""
    return ticker.rpartition("-")[0]


def parse_event_token(ticker: str) -> EventToken | None:
    """The dated token of a market or event ticker, or None when it has none."""
    parts = ticker.split("-")
    if len(parts) < 2:
        return None
    match = _TOKEN.fullmatch(parts[1])
    if match is None or match.group(2) not in _MONTHS:
        return None
    try:
        date = dt.date(2000 + int(match.group(1)), _MONTHS.index(match.group(2)) + 1, int(match.group(3)))
    except ValueError:
        return None
    start = None
    if match.group(4):
        hour, minute = int(match.group(4)[:2]), int(match.group(4)[2:])
        if hour < 24 and minute < 60:
            start = dt.time(hour, minute)
    return EventToken(date, start, match.group(5))


def format_date_token(date: dt.date) -> str:
    """A date as tickers write it: `26OCT12`."""
    return f"{date.year % 100:02d}{_MONTHS[date.month - 1]}{date.day:02d}"


def parse_date_token(token: str) -> dt.date:
    """A token such as `26MAY13` as a date. Raises `ValueError` when it is none."""
    found = parse_event_token(f"X-{token}")
    if found is None or found.rest or found.start:
        raise ValueError(f"not a date token such as 26MAY13: {token!r}")
    return found.date


def eastern_date(now: Micros) -> dt.date:
    """The calendar day in US Eastern at `now`."""
    return to_datetime(now).astimezone(EASTERN).date()


def next_eastern_midnight(now: Micros) -> Micros:
    """The instant at which the next day begins in US Eastern (23, 24 or 25 hours after the last one)."""
    tomorrow = eastern_date(now) + dt.timedelta(days=1)
    return from_datetime(dt.datetime.combine(tomorrow, dt.time(), EASTERN))


def eastern_midnight(now: Micros) -> Micros:
    """The instant at which the present day began in US Eastern."""
    return from_datetime(dt.datetime.combine(eastern_date(now), dt.time(), EASTERN))


def to_datetime(moment: Micros) -> dt.datetime:
    """`Micros` as an aware UTC datetime."""
    seconds, micros = divmod(moment, SECOND)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=micros)


def from_datetime(moment: dt.datetime) -> Micros:
    """An aware datetime as `Micros`, exactly."""
    delta = moment - _EPOCH
    return Micros((delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds)


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(Z|z|[+-]\d{2}:\d{2})?", re.ASCII
)


def parse_time(text: str) -> Micros:
    """RFC 3339 with a fraction of any length (the venue trims zeros). No zone means UTC. Raises `ValueError`."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    micros = int((fraction or "0").ljust(6, "0")[:6])
    offset = dt.timedelta()
    if zone and zone not in "Zz":
        offset = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        if zone[0] == "-":
            offset = -offset
    moment = dt.datetime(
        int(year), int(month), int(day), int(hour), int(minute), int(second), micros, tzinfo=dt.UTC
    )
    return from_datetime(moment - offset)


def read_time(value: str | int) -> Micros:
    """A time as venues have written it: RFC 3339 text, or a number of seconds, milliseconds or microseconds.

    A number may come as text. Its unit is told by its size: each unit is taken to lie in the years 1973 to 5138.
    Raises `ValueError`.
    """
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        return parse_time(value)
    number = int(value)
    for limit, micros in _UNITS:
        if 0 <= number < limit:
            return Micros(number * micros)
    raise ValueError(f"not a time: {value!r}")


_UNITS: Final = ((10**11, SECOND), (10**14, 1_000), (10**17, 1))


def format_time(moment: Micros, *, trim: bool = False) -> str:
    """RFC 3339 UTC with 6 decimals, or, with `trim`, without trailing zeros of the fraction (as Kalshi writes)."""
    text = to_datetime(moment).strftime("%Y-%m-%dT%H:%M:%S.%f")
    if trim:
        text = text.rstrip("0").rstrip(".")
    return text + "Z"

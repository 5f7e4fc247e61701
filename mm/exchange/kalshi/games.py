"""The venue's live data of a game as a `GameState`.

`details` is an open object without a schema; these are the field names that clients have read for hockey: `status`
(none, live, finished), `round`, `final_round_time_left` ("MM:SS", 00:00 between rounds), `home_points`, `away_points`, and
`empty_net` where it is told. What is missing stays unknown; how old the scoreboard is nobody has measured.
"""

from collections.abc import Mapping
from typing import Any, Final

from mm.domain.game import GameState, GameStatus
from mm.domain.numbers import SECOND, Micros

_STATUS: Final = {
    "none": GameStatus.SCHEDULED,
    "scheduled": GameStatus.SCHEDULED,
    "live": GameStatus.LIVE,
    "finished": GameStatus.FINISHED,
}


def to_game(body: Mapping[str, Any]) -> GameState | None:
    """A reply of `GET /live_data/events/{event_ticker}`; None where it tells no status that we know.

    Raises:
        ValueError: A field of another shape.
    """
    data = body.get("live_data")
    details = data.get("details") if isinstance(data, Mapping) else None
    if not isinstance(details, Mapping):
        return None
    status = _STATUS.get(str(details.get("status", "")).lower())
    if status is None:
        return None
    left = _clock(details.get("final_round_time_left"))
    period = _whole(details.get("round"), "round")
    is_live = status is GameStatus.LIVE
    return GameState(
        status=status,
        period=period,
        clock_left=left,
        home=_whole(details.get("home_points"), "home_points"),
        away=_whole(details.get("away_points"), "away_points"),
        is_break=is_live and left == 0 and period > 0,
        is_empty_net=bool(details.get("empty_net")),
    )


def _whole(value: object, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name} is {value!r}, not a whole number")
    return int(value)


def _clock(value: object) -> Micros | None:
    if value in (None, ""):
        return None
    minutes, colon, seconds = str(value).partition(":")
    if not colon or not minutes.isdigit() or not seconds.isdigit():
        raise ValueError(f"final_round_time_left is {value!r}, not MM:SS")
    return Micros((int(minutes) * 60 + int(seconds)) * SECOND)

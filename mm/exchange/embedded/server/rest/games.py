"""The calendar of games, what is going on in them, and incentive programs."""

from typing import Final

from mm.domain.tickers import parse_time
from mm.exchange.embedded.server.errors import not_found
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.paging import page_by_key
from mm.exchange.embedded.server.service import Call, Json

_RANGES: Final = ("1h", "1d", "all")


def related(milestone: Json) -> list[str]:
    """The events that belong to a milestone."""
    found = milestone.get("related_event_tickers")
    return [str(ticker) for ticker in found] if isinstance(found, list) else []


def get_milestone(call: Call) -> Response:
    """`GET /milestones/{milestone_id}`."""
    for item in call.service.games.milestones(call.now):
        if item["id"] == call.path["milestone_id"]:
            return call.ok({"milestone": item})
    raise not_found()


def get_milestones(call: Call) -> Response:
    """`GET /milestones`: `limit` is required."""
    query = call.query
    if query.text("limit") is None:
        raise query.fail("limit", "required")
    limit = query.limit(default=100, highest=500)
    start = query.moment("minimum_start_date")
    event_ticker = query.text("related_event_ticker")
    updated = query.seconds("min_updated_ts")
    exact = {name: query.text(name) for name in ("category", "source_id", "type")}
    competition = query.text("competition")
    found: list[Json] = []
    for item in call.service.games.milestones(call.now):
        if start is not None and parse_time(str(item["start_date"])) < start:
            continue
        if event_ticker is not None and event_ticker not in related(item):
            continue
        if updated is not None and parse_time(str(item["last_updated_ts"])) < updated:
            continue
        if any(value is not None and item.get(name) != value for name, value in exact.items()):
            continue
        details = item.get("details")
        if competition is not None and not (
            isinstance(details, dict) and competition in (details.get("competition"), details.get("league"))
        ):
            continue
        found.append(item)
    page, cursor = page_by_key(
        "milestones", found, lambda item: str(item["id"]), limit=limit, cursor=query.text("cursor")
    )
    return call.ok({"milestones": page, "cursor": cursor})


def live_data(call: Call) -> Response:
    """`GET /live_data/milestone/{milestone_id}`."""
    found = call.service.games.live_data(call.now, call.path["milestone_id"])
    if found is None:
        raise not_found()
    return call.ok({"live_data": found})


def live_data_by_type(call: Call) -> Response:
    """`GET /live_data/{type}/milestone/{milestone_id}`: 404 when it is of another type."""
    found = call.service.games.live_data(call.now, call.path["milestone_id"])
    if found is None or found["type"] != call.path["type"]:
        raise not_found()
    return call.ok({"live_data": found})


def event_live_data(call: Call) -> Response:
    """`GET /live_data/events/{event_ticker}`: the live data of the event's game. The game is short: one range."""
    call.query.word("range", _RANGES)
    for item in call.service.games.milestones(call.now):
        if call.path["event_ticker"] in related(item):
            found = call.service.games.live_data(call.now, str(item["id"]))
            if found is not None:
                details = found["details"]
                is_over = isinstance(details, dict) and details.get("status") == "finished"
                return call.ok(
                    {
                        "live_data": {
                            "type": found["type"],
                            "details": details,
                            "is_historical": is_over,
                            "default_range": _RANGES[-1],
                            "range_options": list(_RANGES),
                        }
                    }
                )
    raise not_found()


def live_data_batch(call: Call) -> Response:
    """`GET /live_data/batch`: unknown milestones are left out."""
    wanted = call.query.words("milestone_ids", most=100) or []
    found = [data for one in wanted if (data := call.service.games.live_data(call.now, one)) is not None]
    return call.ok({"live_datas": found})


def game_stats(call: Call) -> Response:
    """`GET /live_data/milestone/{milestone_id}/game_stats`."""
    found = call.service.games.game_stats(call.now, call.path["milestone_id"])
    if found is None:
        raise not_found()
    return call.ok(found)


_PHASES: Final = ("all", "active", "upcoming", "closed", "paid_out")
_KINDS: Final = ("all", "liquidity", "volume", "margin_maker_volume", "margin_taker_volume")


def incentive_programs(call: Call) -> Response:
    """`GET /incentive_programs`: the source's programs."""
    query = call.query
    phase = query.word("status", _PHASES) or "all"
    kind = query.word("type", _KINDS) or "all"
    description = query.text("incentive_description")
    limit = query.limit(default=100, highest=10_000)
    found = [
        item
        for item in call.service.games.incentive_programs(call.now)
        if phase in ("all", _phase(call, item))
        and kind in ("all", item["incentive_type"])
        and description in (None, item["incentive_description"])
    ]
    page, cursor = page_by_key(
        "incentives", found, lambda item: str(item["id"]), limit=limit, cursor=query.text("cursor")
    )
    return call.ok({"incentive_programs": page, "next_cursor": cursor})


def _phase(call: Call, program: Json) -> str:
    if program["paid_out"]:
        return "paid_out"
    if parse_time(str(program["start_date"])) > call.now:
        return "upcoming"
    return "active" if parse_time(str(program["end_date"])) > call.now else "closed"

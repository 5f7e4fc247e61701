"""Operations that need no signature: the exchange, series, events, markets, books, trades, candles, games."""

from typing import Final

from mm.domain.market import MarketStatus
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import parse_time, series_of
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server import listing, wire
from mm.exchange.embedded.server.errors import ParameterError, not_found
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.limits import endpoint_costs
from mm.exchange.embedded.server.paging import decode_position, page_by_key, position_cursor
from mm.exchange.embedded.server.service import Call, Json, Service

_SHARD_NAMES: Final = {0: "Default", 1: "Combos", 2: "Crypto", 3: "Tennis & Baseball"}
_STATUSES: Final = tuple(listing.STATUS_FILTERS)
_PERIODS: Final = (1, 60, 1440)
_MAX_CANDLES: Final = 10_000


# --- the exchange ----------------------------------------------------------------------------------------------------


def exchange_status(call: Call) -> Response:
    """`GET /exchange/status`."""
    shards = call.core.shards()
    first = shards[0]
    return call.ok(
        {
            "exchange_active": first.exchange_active,
            "trading_active": first.trading_active,
            "intra_exchange_transfers_active": first.exchange_active,
            "exchange_index_statuses": [
                {
                    "exchange_index": shard.exchange_index,
                    "description": _SHARD_NAMES.get(shard.exchange_index, f"Shard {shard.exchange_index}"),
                    "exchange_active": shard.exchange_active,
                    "trading_active": shard.trading_active,
                    "intra_exchange_transfers_active": shard.exchange_active,
                }
                for shard in shards
            ],
        }
    )


def exchange_schedule(call: Call) -> Response:
    """`GET /exchange/schedule`: always open, no maintenance."""
    days = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    hours: Json = {day: [{"open_time": "00:00", "close_time": "23:59"}] for day in days}
    year = 365 * 86_400 * SECOND
    hours["start_time"] = wire.time_text(Micros(call.now // SECOND * SECOND - year))
    hours["end_time"] = wire.time_text(Micros(call.now // SECOND * SECOND + year))
    return call.ok({"schedule": {"standard_hours": [hours], "maintenance_windows": []}})


def user_data_timestamp(call: Call) -> Response:
    """`GET /exchange/user_data_timestamp`."""
    return call.ok({"as_of_time": wire.time_text(call.service.reads.as_of(call.now))})


def costs(call: Call) -> Response:
    """`GET /account/endpoint_costs`."""
    return call.ok(endpoint_costs())


def historical_cutoff(call: Call) -> Response:
    """`GET /historical/cutoff`: nothing has moved to the archive, so the cut lies before everything."""
    moment = wire.time_text(Micros(call.now // SECOND * SECOND - 90 * 86_400 * SECOND))
    names = (
        "market_settled_ts",
        "trades_created_ts",
        "orders_updated_ts",
        "market_positions_last_updated_ts",
    )
    return call.ok(dict.fromkeys(names, moment))


# --- series and events -----------------------------------------------------------------------------------------------


def get_series(call: Call) -> Response:
    """`GET /series/{series_ticker}`."""
    spec = call.core.series().get(call.path["series_ticker"])
    if spec is None:
        raise not_found()
    found = listing.series(spec)
    if call.query.flag("include_volume"):
        found["volume_fp"] = _series_volume(call.service, spec.ticker)
    return call.ok({"series": found})


def get_series_list(call: Call) -> Response:
    """`GET /series`, unpaginated."""
    category, tags = call.query.text("category"), call.query.words("tags")
    with_volume = call.query.flag("include_volume")
    found: list[Json] = []
    for spec in call.core.series().values():
        item = listing.series(spec)
        if category is not None and spec.category != category:
            continue
        own_tags = item["tags"]
        if tags is not None and not (isinstance(own_tags, list) and set(tags) & set(own_tags)):
            continue
        if with_volume:
            item["volume_fp"] = _series_volume(call.service, spec.ticker)
        found.append(item)
    return call.ok({"series": found})


def _series_volume(service: Service, ticker: str) -> str:
    volume = sum(m.volume for m in service.core.markets().values() if series_of(m.ticker) == ticker)
    return wire.count_text(Count(volume))


def series_fee_changes(call: Call) -> Response:
    """`GET /series/fee_changes`: none is scheduled."""
    return call.ok({"series_fee_change_arr": []})


def event_fee_changes(call: Call) -> Response:
    """`GET /events/fee_changes`: none is scheduled."""
    call.query.limit(default=100, highest=1_000)
    return call.ok({"event_fee_changes": [], "cursor": ""})


def _markets_of(service: Service, event_ticker: str) -> list[MarketState]:
    return [state for state in service.core.markets().values() if state.spec.event_ticker == event_ticker]


def _event(call: Call, ticker: str, *, nested: bool) -> Json:
    spec = call.core.events()[ticker]
    category = call.core.series()[spec.series_ticker].category
    found = listing.event(spec, category)
    if nested:
        found["markets"] = [listing.market(state) for state in _markets_of(call.service, ticker)]
    return found


def get_event(call: Call) -> Response:
    """`GET /events/{event_ticker}`."""
    ticker = call.path["event_ticker"]
    if ticker not in call.core.events():
        raise not_found()
    nested = bool(call.query.flag("with_nested_markets"))
    # The top-level list is deprecated, but the contract still requires the key.
    markets = [] if nested else [listing.market(state) for state in _markets_of(call.service, ticker)]
    return call.ok({"event": _event(call, ticker, nested=nested), "markets": markets})


def get_events(call: Call) -> Response:
    """`GET /events`."""
    query = call.query
    limit = query.limit(default=200, highest=200)
    status = query.word("status", ("unopened", "open", "closed", "settled"))
    series, tickers = query.text("series_ticker"), query.words("tickers")
    min_close = query.seconds("min_close_ts")
    query.seconds("min_updated_ts")
    by_event: dict[str, list[MarketState]] = {}
    for state in call.core.markets().values():
        by_event.setdefault(state.spec.event_ticker, []).append(state)
    passing: list[str] = []
    for ticker, spec in call.core.events().items():
        children = by_event.get(ticker, [])
        if series is not None and spec.series_ticker != series:
            continue
        if tickers is not None and ticker not in tickers:
            continue
        if status is not None and not any(map(listing.with_status(status), children)):
            continue
        if min_close is not None and not any(state.close_time >= min_close for state in children):
            continue
        passing.append(ticker)
    page, cursor = page_by_key("events", passing, str, limit=limit, cursor=query.text("cursor"))
    nested = bool(query.flag("with_nested_markets"))
    content: Json = {"events": [_event(call, t, nested=nested) for t in page], "cursor": cursor}
    if query.flag("with_milestones"):
        content["milestones"] = [
            item for item in call.service.games.milestones(call.now) if set(_related(item)) & set(page)
        ]
    return call.ok(content)


def event_metadata(call: Call) -> Response:
    """`GET /events/{event_ticker}/metadata`."""
    if call.path["event_ticker"] not in call.core.events():
        raise not_found()
    return call.ok({"image_url": "", "market_details": [], "settlement_sources": []})


def multivariate_events(call: Call) -> Response:
    """`GET /events/multivariate`: no combos here."""
    return call.ok({"events": [], "cursor": ""})


# --- markets ---------------------------------------------------------------------------------------------------------


def get_market(call: Call) -> Response:
    """`GET /markets/{ticker}`."""
    return call.ok({"market": listing.market(call.service.market(call.path["ticker"]))})


_WINDOWS: Final = {
    "created": lambda state: state.created_at,
    "close": lambda state: state.close_time,
    "settled": lambda state: state.settled_at,
    "updated": lambda state: state.updated_at,
}
_WINDOW_STATUSES: Final = {
    "created": (None, "unopened", "open"),
    "close": (None, "closed"),
    "settled": (None, "settled"),
    "updated": (None,),
}
"""Which status filter each time window may be combined with."""


def _market_filters(call: Call) -> list[listing.MarketFilter]:
    query = call.query
    filters: list[listing.MarketFilter] = []
    status = query.word("status", _STATUSES)
    event_ticker, series = query.text("event_ticker"), query.text("series_ticker")
    tickers = query.words("tickers")
    mve = query.word("mve_filter", ("only", "exclude"))
    windows = [(name, query.seconds(f"min_{name}_ts"), query.seconds(f"max_{name}_ts")) for name in _WINDOWS]
    used = [(name, low, high) for name, low, high in windows if low is not None or high is not None]
    if len(used) > 1:
        raise ParameterError("timestamp filters are mutually exclusive")
    for name, low, high in used:
        if status not in _WINDOW_STATUSES[name]:
            raise ParameterError(f"{name} timestamp filters cannot be combined with status {status}")
        if name == "updated" and (mve != "exclude" or event_ticker or tickers):
            raise ParameterError("min_updated_ts needs mve_filter=exclude and no filter but series_ticker")
        filters.append(listing.within(_WINDOWS[name], low, high))
    if status is not None:
        filters.append(listing.with_status(status))
    if event_ticker is not None:
        filters.append(lambda state: state.spec.event_ticker == event_ticker)
    if series is not None:
        filters.append(listing.in_series(series))
    if tickers is not None:
        wanted = set(tickers)
        filters.append(lambda state: state.ticker in wanted)
    if mve == "only":
        filters.append(lambda state: state.ticker.startswith("KXMVE"))
    elif mve == "exclude":
        filters.append(lambda state: not state.ticker.startswith("KXMVE"))
    return filters


def get_markets(call: Call) -> Response:
    """`GET /markets`."""
    limit = call.query.limit(default=100, highest=1_000)
    filters = _market_filters(call)
    passing = [state for state in call.core.markets().values() if all(passes(state) for passes in filters)]
    page, cursor = page_by_key(
        "markets", passing, lambda state: state.ticker, limit=limit, cursor=call.query.text("cursor")
    )
    return call.ok({"markets": [listing.market(state) for state in page], "cursor": cursor})


def _orderbook(state: MarketState, depth: int | None) -> Json:
    yes, no = listing.legs(state, depth)
    return {"yes_dollars": yes, "no_dollars": no}


def get_orderbook(call: Call) -> Response:
    """`GET /markets/{ticker}/orderbook`: bids of both legs, rising, best last."""
    depth = call.query.integer("depth", lowest=0, highest=100)
    state = call.service.market(call.path["ticker"])
    return call.ok({"orderbook_fp": _orderbook(state, depth or None)})


def get_orderbooks(call: Call) -> Response:
    """`GET /markets/orderbooks`: unknown tickers are left out."""
    tickers = call.query.words("tickers", most=100)
    if tickers is None:
        raise call.query.fail("tickers", "required")
    known = call.core.markets()
    found = [state for ticker in tickers if (state := known.get(MarketTicker(ticker))) is not None]
    books = [{"ticker": state.ticker, "orderbook_fp": _orderbook(state, None)} for state in found]
    return call.ok({"orderbooks": books})


def get_trades(call: Call) -> Response:
    """`GET /markets/trades`, newest first."""
    query = call.query
    ticker = query.text("ticker")
    limit = query.limit(default=100, highest=1_000)
    min_ts, max_ts = query.seconds("min_ts"), query.seconds("max_ts")
    before = decode_position("trades", query.text("cursor"))
    if query.flag("is_block_trade"):
        return call.ok({"trades": [], "cursor": ""})
    page = call.core.trades(
        ticker=None if ticker is None else MarketTicker(ticker),
        min_ts=min_ts,
        max_ts=max_ts,
        limit=limit,
        before=before,
    )
    cursor = position_cursor("trades", page.next_before)
    return call.ok({"trades": [wire.trade(record) for record in page.items], "cursor": cursor})


# --- candles ---------------------------------------------------------------------------------------------------------


def _candles(call: Call, state: MarketState) -> list[Json]:
    query = call.query
    start, end = query.seconds("start_ts"), query.seconds("end_ts")
    minutes = query.integer("period_interval", lowest=1, highest=1_440)
    for name, value in (("start_ts", start), ("end_ts", end), ("period_interval", minutes)):
        if value is None:
            raise query.fail(name, "required")
    assert start is not None and end is not None and minutes is not None  # noqa: PT018 - told apart above
    if minutes not in _PERIODS:
        raise query.fail("period_interval", "oneof")
    if end < start or (end - start) // (minutes * 60 * SECOND) > _MAX_CANDLES:
        raise ParameterError("the candlestick range is empty or too large")
    with_latest = bool(query.flag("include_latest_before_start"))
    candles = call.service.candles.between(
        state.ticker, start, end, minutes=minutes, with_latest_before=with_latest
    )
    return [candle.as_json() for candle in candles]


def market_candlesticks(call: Call) -> Response:
    """`GET /series/{series}/markets/{ticker}/candlesticks`."""
    state = call.service.market(call.path["ticker"])
    if series_of(state.ticker) != call.path["series_ticker"]:
        raise not_found()
    return call.ok({"ticker": state.ticker, "candlesticks": _candles(call, state)})


def batch_candlesticks(call: Call) -> Response:
    """`GET /markets/candlesticks`."""
    tickers = call.query.words("market_tickers", most=100)
    if tickers is None:
        raise call.query.fail("market_tickers", "required")
    known = call.core.markets()
    found = [state for ticker in tickers if (state := known.get(MarketTicker(ticker))) is not None]
    items = [{"market_ticker": state.ticker, "candlesticks": _candles(call, state)} for state in found]
    return call.ok({"markets": items})


def event_candlesticks(call: Call) -> Response:
    """`GET /series/{series}/events/{ticker}/candlesticks`."""
    ticker = call.path["ticker"]
    if ticker not in call.core.events():
        raise not_found()
    states = [s for s in _markets_of(call.service, ticker) if s.status is not MarketStatus.INITIALIZED]
    return call.ok(
        {
            "market_tickers": [state.ticker for state in states],
            "market_candlesticks": [_candles(call, state) for state in states],
            "adjusted_end_ts": call.query.integer("end_ts", lowest=0, highest=10**11) or 0,
        }
    )


# --- games and incentives --------------------------------------------------------------------------------------------


def _related(milestone: Json) -> list[str]:
    related = milestone.get("related_event_tickers")
    return [str(ticker) for ticker in related] if isinstance(related, list) else []


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
    related = query.text("related_event_ticker")
    exact = {name: query.text(name) for name in ("category", "source_id", "type")}
    competition = query.text("competition")
    found: list[Json] = []
    for item in call.service.games.milestones(call.now):
        if start is not None and parse_time(str(item["start_date"])) < start:
            continue
        if related is not None and related not in _related(item):
            continue
        if any(value is not None and item.get(name) != value for name, value in exact.items()):
            continue
        details = item.get("details")
        named = details.get("league") if isinstance(details, dict) else None
        if competition is not None and competition not in (named, item.get("competition")):
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


def incentive_programs(call: Call) -> Response:
    """`GET /incentive_programs`: there are none."""
    call.query.word("status", ("all", "active", "upcoming", "closed", "paid_out"))
    call.query.limit(default=100, highest=10_000)
    return call.ok({"incentive_programs": [], "next_cursor": ""})

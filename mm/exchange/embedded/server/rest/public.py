"""Operations that need no signature: the exchange, series, events, markets, books, trades, candles, games."""

from collections.abc import Mapping
from typing import Final

from mm.domain.market import MarketStatus
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import series_of
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server import listing, wire
from mm.exchange.embedded.server.candles import Candle
from mm.exchange.embedded.server.errors import ParameterError, not_found
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.limits import endpoint_costs
from mm.exchange.embedded.server.paging import decode_position, page_by_key, page_of_filtered, position_cursor
from mm.exchange.embedded.server.rest.games import related
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
    resumes = [window.end for window in call.core.maintenance() if window.start <= call.now < window.end]
    hopes: Json = {}
    if resumes and not first.trading_active:
        hopes["exchange_estimated_resume_time"] = wire.time_text(max(resumes))
    return call.ok(
        {
            **hopes,
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
    """`GET /exchange/schedule`: open round the clock, save for the maintenance that was announced."""
    days = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    hours: Json = {day: [{"open_time": "00:00", "close_time": "23:59"}] for day in days}
    year = 365 * 86_400 * SECOND
    hours["start_time"] = wire.time_text(Micros(call.now // SECOND * SECOND - year))
    hours["end_time"] = wire.time_text(Micros(call.now // SECOND * SECOND + year))
    windows = [
        {"start_datetime": wire.time_text(window.start), "end_datetime": wire.time_text(window.end)}
        for window in call.core.maintenance()
        if window.end > call.now
    ]
    return call.ok({"schedule": {"standard_hours": [hours], "maintenance_windows": windows}})


def user_data_timestamp(call: Call) -> Response:
    """`GET /exchange/user_data_timestamp`."""
    return call.ok({"as_of_time": wire.time_text(call.service.reads.as_of(call.now))})


def costs(call: Call) -> Response:
    """`GET /account/endpoint_costs`."""
    return call.ok(endpoint_costs())


# --- series and events -----------------------------------------------------------------------------------------------


def get_series(call: Call) -> Response:
    """`GET /series/{series_ticker}`."""
    spec = call.core.series().get(call.path["series_ticker"])
    if spec is None:
        raise not_found()
    found = listing.series(spec, with_product=True)
    if call.query.flag("include_volume"):
        found["volume_fp"] = _series_volume(call.service, spec.ticker)
    return call.ok({"series": found})


def get_series_list(call: Call) -> Response:
    """`GET /series`, unpaginated."""
    category, tags = call.query.text("category"), call.query.words("tags")
    with_volume = call.query.flag("include_volume")
    with_product = bool(call.query.flag("include_product_metadata"))
    updated = call.query.seconds("min_updated_ts")
    found: list[Json] = []
    for spec in call.core.series().values():
        item = listing.series(spec, with_product=with_product)
        if updated is not None and spec.updated_at < updated:
            continue
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
    """`GET /series/fee_changes`: what is to come, and with `show_historical` what has been."""
    series, with_past = call.query.text("series_ticker"), bool(call.query.flag("show_historical"))
    found: list[Json] = [
        {
            "id": change.change_id,
            "series_ticker": change.series_ticker,
            "fee_type": change.fee_type.value,
            "fee_multiplier": wire.multiplier(change.multiplier),
            "scheduled_ts": wire.time_text(change.scheduled_at),
        }
        for change in call.core.fee_changes()
        if change.event_ticker is None
        and change.fee_type is not None
        and series in (None, change.series_ticker)
        and (with_past or change.scheduled_at > call.now)
    ]
    return call.ok({"series_fee_change_arr": found})


def event_fee_changes(call: Call) -> Response:
    """`GET /events/fee_changes`: announced overrides, past ones too, in the order of their times."""
    limit, ticker = call.query.limit(default=100, highest=1_000), call.query.text("event_ticker")
    found = [
        change
        for change in call.core.fee_changes()
        if change.event_ticker is not None and ticker in (None, change.event_ticker)
    ]
    page, cursor = page_by_key(
        "fee_changes", found, lambda change: change.change_id, limit=limit, cursor=call.query.text("cursor")
    )
    items: list[Json] = [
        {
            "id": change.change_id,
            "event_ticker": change.event_ticker,
            "series_ticker": change.series_ticker,
            "fee_type_override": None if change.fee_type is None else change.fee_type.value,
            "fee_multiplier_override": wire.multiplier(change.multiplier),
            "scheduled_ts": wire.time_text(change.scheduled_at),
        }
        for change in page
    ]
    return call.ok({"event_fee_changes": items, "cursor": cursor})


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
    min_close, min_updated = query.seconds("min_close_ts"), query.seconds("min_updated_ts")
    by_event: dict[str, list[MarketState]] = {}
    for state in call.core.markets().values():
        by_event.setdefault(state.spec.event_ticker, []).append(state)
    passing: list[str] = []
    for ticker, spec in call.core.events().items():
        children = by_event.get(ticker, [])
        if listing.is_combo(ticker):
            continue
        updated = max([spec.updated_at, *(state.updated_at for state in children)])
        if min_updated is not None and updated < min_updated:
            continue
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
            item for item in call.service.games.milestones(call.now) if set(related(item)) & set(page)
        ]
    return call.ok(content)


def event_metadata(call: Call) -> Response:
    """`GET /events/{event_ticker}/metadata`: pictures there are none."""
    ticker = call.path["event_ticker"]
    spec = call.core.events().get(ticker)
    if spec is None:
        raise not_found()
    found = listing.event(spec, "")
    product = found.get("product_metadata")
    details: list[Json] = [
        {"market_ticker": state.ticker, "image_url": "", "color_code": ""}
        for state in _markets_of(call.service, ticker)
    ]
    content: Json = {
        "image_url": "",
        "featured_image_url": "",
        "market_details": details,
        "settlement_sources": found["settlement_sources"],
    }
    if isinstance(product, dict):
        content |= {key: product[key] for key in ("competition", "competition_scope") if key in product}
    return call.ok(content)


def multivariate_events(call: Call) -> Response:
    """`GET /events/multivariate`: combos, which only a test lists here."""
    query = call.query
    limit, series = query.limit(default=100, highest=200), query.text("series_ticker")
    nested = bool(query.flag("with_nested_markets"))
    found = [
        ticker
        for ticker, spec in call.core.events().items()
        if listing.is_combo(ticker) and series in (None, spec.series_ticker)
    ]
    page, cursor = page_by_key("combos", found, str, limit=limit, cursor=query.text("cursor"))
    return call.ok({"events": [_event(call, ticker, nested=nested) for ticker in page], "cursor": cursor})


# --- markets ---------------------------------------------------------------------------------------------------------


def get_market(call: Call) -> Response:
    """`GET /markets/{ticker}`."""
    state = call.service.market(call.path["ticker"])
    if call.service.is_archived(call.now, state):
        raise not_found()
    return call.ok({"market": listing.market(state)})


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
        filters.append(lambda state: listing.is_combo(state.ticker))
    elif mve == "exclude":
        filters.append(lambda state: not listing.is_combo(state.ticker))
    if call.service.archive_after is not None:
        filters.append(lambda state: not call.service.is_archived(call.now, state))
    return filters


def get_markets(call: Call) -> Response:
    """`GET /markets`."""
    limit = call.query.limit(default=100, highest=1_000)
    filters = _market_filters(call)
    found: Mapping[MarketTicker, MarketState] = call.core.markets()
    tickers = call.query.words("tickers")
    if tickers is not None:  # a few of what may be tens of thousands
        found = {t: found[t] for t in map(MarketTicker, tickers) if t in found}
    page, cursor = page_of_filtered(
        "markets",
        found,
        lambda state: all(passes(state) for passes in filters),
        limit=limit,
        cursor=call.query.text("cursor"),
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


def get_trades(call: Call, *, is_archive: bool = False) -> Response:
    """`GET /markets/trades`, newest first."""
    query = call.query
    ticker = query.text("ticker")
    limit = query.limit(default=100, highest=1_000)
    min_ts, max_ts = query.seconds("min_ts"), query.seconds("max_ts")
    before = decode_position("trades", query.text("cursor"))
    cutoff = call.service.cutoff(call.now)
    if is_archive:
        max_ts = Micros(min(cutoff - 1, cutoff if max_ts is None else max_ts))
    else:
        min_ts = max(cutoff, min_ts or cutoff)
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


def candles_of(call: Call, state: MarketState) -> list[Candle]:
    """The candles that a query asks for. Raises `ApiError`."""
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
    return call.service.candles.between(
        state.ticker, start, end, minutes=minutes, with_latest_before=with_latest
    )


def _candles(call: Call, state: MarketState) -> list[Json]:
    return [candle.as_json() for candle in candles_of(call, state)]


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

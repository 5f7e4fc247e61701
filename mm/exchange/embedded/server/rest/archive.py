"""What is too old for the live listings (`/historical`): settled markets, trades, done orders, fills, positions.

By default nothing ever gets that old (`--archive-after`): the lists are there, and empty.
"""

from typing import Final

from mm.domain.numbers import DOLLAR, Count
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server import listing, wire
from mm.exchange.embedded.server.candles import Candle, Span
from mm.exchange.embedded.server.errors import not_found
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.paging import page_by_key
from mm.exchange.embedded.server.rest import account, public
from mm.exchange.embedded.server.service import Call, Json

_CUTOFFS: Final = (
    "market_settled_ts",
    "trades_created_ts",
    "orders_updated_ts",
    "market_positions_last_updated_ts",
)


def cutoff(call: Call) -> Response:
    """`GET /historical/cutoff`: one moment for all four."""
    return call.ok(dict.fromkeys(_CUTOFFS, wire.time_text(call.service.cutoff(call.now))))


def markets(call: Call) -> Response:
    """`GET /historical/markets`."""
    query = call.query
    limit = query.limit(default=100, highest=1_000)
    tickers, event_ticker = query.words("tickers"), query.text("event_ticker")
    series, mve = query.text("series_ticker"), query.word("mve_filter", ("only", "exclude"))
    passes = listing.in_series(series) if series is not None else _everything
    found = [
        state
        for state in call.core.markets().values()
        if call.service.is_archived(call.now, state)
        and (tickers is None or state.ticker in tickers)
        and event_ticker in (None, state.spec.event_ticker)
        and passes(state)
        and (mve is None or listing.is_combo(state.ticker) is (mve == "only"))
    ]
    page, after = page_by_key(
        "archive", found, lambda state: state.ticker, limit=limit, cursor=query.text("cursor")
    )
    return call.ok({"markets": [listing.market(state) for state in page], "cursor": after})


def _everything(state: MarketState) -> bool:
    del state
    return True


def _market(call: Call) -> MarketState:
    state = call.core.markets().get(MarketTicker(call.path["ticker"]))
    if state is None or not call.service.is_archived(call.now, state):
        raise not_found()
    return state


def market(call: Call) -> Response:
    """`GET /historical/markets/{ticker}`."""
    return call.ok({"market": listing.market(_market(call))})


def candlesticks(call: Call) -> Response:
    """`GET /historical/markets/{ticker}/candlesticks`: other field names than the live ones."""
    state = _market(call)
    found = public.candles_of(call, state)
    return call.ok({"ticker": state.ticker, "candlesticks": [_candle(candle) for candle in found]})


def _candle(candle: Candle) -> Json:
    previous = None if candle.previous is None else wire.PRICE_TEXT[candle.previous]
    price: Json = dict.fromkeys(("open", "low", "high", "close", "mean"))
    if candle.price is not None:
        price = {**_span(candle.price), "mean": wire.PRICE_TEXT[candle.value // candle.volume]}
    return {
        "end_period_ts": candle.end // 1_000_000,
        "yes_bid": _span(candle.bid),
        "yes_ask": _span(candle.ask),
        "price": {**price, "previous": previous},
        "volume": wire.count_text(Count(candle.volume)),
        "open_interest": wire.count_text(candle.open_interest),
    }


def _span(span: Span) -> Json:
    assert 0 <= span.low <= span.high <= DOLLAR
    return {
        "open": wire.PRICE_TEXT[span.open],
        "low": wire.PRICE_TEXT[span.low],
        "high": wire.PRICE_TEXT[span.high],
        "close": wire.PRICE_TEXT[span.close],
    }


def trades(call: Call) -> Response:
    """`GET /historical/trades`."""
    return public.get_trades(call, is_archive=True)


def fills(call: Call) -> Response:
    """`GET /historical/fills`."""
    return account.fills(call, is_archive=True)


def orders(call: Call) -> Response:
    """`GET /historical/orders`."""
    return account.orders(call, is_archive=True)


def positions(call: Call) -> Response:
    """`GET /historical/positions`."""
    return account.positions(call, is_archive=True)

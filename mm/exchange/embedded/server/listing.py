"""Series, events and markets as the listings show them, and the filters of the listings."""

from collections.abc import Callable
from typing import Final

from mm.domain.market import MarketStatus
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Price, complement
from mm.domain.tickers import series_of
from mm.exchange.embedded.core.model import EventSpec, SeriesSpec
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server.wire import (
    PRICE_TEXT,
    Json,
    collateral_return,
    count_text,
    fee_override,
    multiplier,
    price_ranges,
    time_text,
)

STATUS_FILTERS: Final = {
    "unopened": frozenset({MarketStatus.INITIALIZED}),
    "open": frozenset({MarketStatus.ACTIVE}),
    "paused": frozenset({MarketStatus.INACTIVE}),
    "closed": frozenset(
        {MarketStatus.CLOSED, MarketStatus.DETERMINED, MarketStatus.DISPUTED, MarketStatus.AMENDED}
    ),
    "settled": frozenset({MarketStatus.FINALIZED}),
}
"""The filter's words -> states of a market."""


def is_combo(ticker: str) -> bool:
    """Whether a market or event is a combo (`KXMVE`): those have lists of their own."""
    return ticker.startswith("KXMVE")


def series(spec: SeriesSpec, *, with_product: bool) -> Json:
    """A series; its product metadata only when asked for."""
    found: Json = {
        "frequency": "custom",
        "categories": [spec.category],
        "tags": [],
        "settlement_sources": [],
        "contract_url": "",
        "contract_terms_url": "",
        "additional_prohibitions": [],
        **spec.metadata,
        "ticker": spec.ticker,
        "title": spec.title,
        "category": spec.category,
        "fee_type": spec.fee_type.value,
        "fee_multiplier": multiplier(spec.fee_multiplier),
        "last_updated_ts": time_text(spec.updated_at),
        "exchange_index": spec.exchange_index,
    }
    if not with_product:
        found.pop("product_metadata", None)
    return found


def event(spec: EventSpec, category: str) -> Json:
    """An event without its markets. Overrides are left out where there are none."""
    overrides = {name: value for name, value in fee_override(spec).items() if value is not None}
    return {
        "settlement_sources": [],
        "category": category,
        **spec.metadata,
        "event_ticker": spec.ticker,
        "series_ticker": spec.series_ticker,
        "title": spec.title,
        "sub_title": spec.sub_title,
        "collateral_return_type": collateral_return(spec),
        "mutually_exclusive": spec.is_mutually_exclusive,
        "last_updated_ts": time_text(spec.updated_at),
        "exchange_index": spec.exchange_index,
        **overrides,
    }


def market(state: MarketState) -> Json:
    """A market. What its spec's metadata says comes between the defaults and what is known here."""
    spec = state.spec
    latest = spec.latest_expiration_time or spec.close_time
    found: Json = {
        "market_type": "binary",
        "subtitle": spec.yes_sub_title,
        "notional_value_dollars": "1.0000",
        "liquidity_dollars": "0.0000",  # gone from the contract, still required by a published client
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask_dollars": "0.0000",
        "previous_price_dollars": "0.0000",
        "settlement_bounds_type": "default",
        "expiration_value": "",
        "rules_primary": "",
        "rules_secondary": "",
        **spec.metadata,
        "ticker": spec.ticker,
        "event_ticker": spec.event_ticker,
        "title": spec.title,
        "yes_sub_title": spec.yes_sub_title,
        "no_sub_title": spec.no_sub_title,
        "status": state.status.value,
        "result": state.result,
        "can_close_early": spec.can_close_early,
        "created_time": time_text(state.created_at),
        "updated_time": time_text(state.updated_at),
        "open_time": time_text(spec.open_time),
        "close_time": time_text(state.close_time),
        "expiration_time": time_text(latest),
        "latest_expiration_time": time_text(latest),
        "settlement_timer_seconds": spec.settlement_timer // SECOND,
        "last_price_dollars": PRICE_TEXT[state.last_price or 0],
        "volume_fp": count_text(state.volume),
        "volume_24h_fp": count_text(state.volume),
        "open_interest_fp": count_text(state.open_interest),
        "price_level_structure": state.price_level_structure,
        "price_ranges": price_ranges(state.grid),
        "exchange_index": spec.exchange_index,
        **_top(state),
    }
    _add_times(found, state)
    if state.settlement_value is not None:
        found["settlement_value_dollars"] = PRICE_TEXT[state.settlement_value]
    return found


def _add_times(found: Json, state: MarketState) -> None:
    spec = state.spec
    for name, moment in (
        ("expected_expiration_time", spec.expected_expiration_time),
        ("occurrence_datetime", spec.occurrence_time),
        ("fee_waiver_expiration_time", spec.fee_waiver_until),
        ("settlement_ts", state.settled_at),
    ):
        if moment is not None:
            found[name] = time_text(moment)


def best_sizes(state: MarketState) -> tuple[Count, Count]:
    """What rests at the best bid and at the best ask."""
    bid, ask = state.book.bids.best_level, state.book.asks.best_level
    return Count(bid.total if bid else 0), Count(ask.total if ask else 0)


def _top(state: MarketState) -> Json:
    """Best prices and sizes. An empty side reads 0 (bids) or 1 (asks), never absent."""
    bid, ask = state.best_bid or Price(0), DOLLAR if state.best_ask is None else state.best_ask
    bid_size, ask_size = best_sizes(state)
    return {
        "yes_bid_dollars": PRICE_TEXT[bid],
        "yes_bid_size_fp": count_text(bid_size),
        "yes_ask_dollars": PRICE_TEXT[ask],
        "yes_ask_size_fp": count_text(ask_size),
        "no_bid_dollars": PRICE_TEXT[complement(ask)],
        "no_ask_dollars": PRICE_TEXT[complement(bid)],
    }


def legs(state: MarketState, depth: int | None = None) -> tuple[list[list[str]], list[list[str]]]:
    """The YES bids and the NO bids, each in its own price, rising, the best last; at most `depth` of each."""
    bids = state.book.bids.depth()[:depth]
    asks = state.book.asks.depth()[:depth]
    yes = [[PRICE_TEXT[price], count_text(count)] for price, count in reversed(bids)]
    no = [[PRICE_TEXT[complement(price)], count_text(count)] for price, count in reversed(asks)]
    return yes, no


def snapshot(state: MarketState, *, use_yes_price: bool) -> Json:
    """`orderbook_snapshot`. The key of an empty side is absent."""
    yes, no = legs(state)
    if use_yes_price:
        no = [[PRICE_TEXT[price], count_text(count)] for price, count in reversed(state.book.asks.depth())]
    found: Json = {"market_ticker": state.ticker, "market_id": state.market_id}
    if yes:
        found["yes_dollars_fp"] = yes
    if no:
        found["no_dollars_fp"] = no
    return found


def ticker_frame(state: MarketState, now: Micros) -> Json:
    """`ticker`."""
    bid, ask = state.best_bid or Price(0), DOLLAR if state.best_ask is None else state.best_ask
    bid_size, ask_size = best_sizes(state)
    return {
        "market_id": state.market_id,
        "market_ticker": state.ticker,
        "price_dollars": PRICE_TEXT[state.last_price or 0],
        "yes_bid_dollars": PRICE_TEXT[bid],
        "yes_ask_dollars": PRICE_TEXT[ask],
        "volume_fp": count_text(state.volume),
        "open_interest_fp": count_text(state.open_interest),
        "dollar_volume": state.dollar_volume // 1_000_000,
        "dollar_open_interest": state.open_interest * (state.last_price or 0) // 1_000_000,
        "yes_bid_size_fp": count_text(bid_size),
        "yes_ask_size_fp": count_text(ask_size),
        "last_trade_size_fp": count_text(state.last_trade_count),
        "ts": now // SECOND,
        "ts_ms": now // 1_000,
        "time": time_text(now),
    }


def ticker_key(state: MarketState) -> tuple[object, ...]:
    """What a `ticker` frame would say; equal keys need no new frame."""
    return (
        state.best_bid,
        state.best_ask,
        *best_sizes(state),
        state.last_price,
        state.volume,
        state.open_interest,
    )


MarketFilter = Callable[[MarketState], bool]


def in_series(series_ticker: str) -> MarketFilter:
    """Markets of a series."""
    return lambda state: series_of(state.ticker) == series_ticker


def with_status(word: str) -> MarketFilter:
    """Markets in a state that the filter's word covers."""
    states = STATUS_FILTERS[word]
    return lambda state: state.status in states


def within(
    moment: Callable[[MarketState], Micros | None], low: Micros | None, high: Micros | None
) -> MarketFilter:
    """Markets whose `moment` lies in a window, ends included; one without that moment is outside."""

    def passes(state: MarketState) -> bool:
        found = moment(state)
        if found is None:
            return False
        return (low is None or found >= low) and (high is None or found <= high)

    return passes

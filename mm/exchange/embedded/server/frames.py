"""The `msg` of socket frames, and nothing of their envelopes. Times in seconds and ms where the channel has them so."""

from mm.domain.numbers import SECOND, complement, format_money
from mm.domain.order import Side
from mm.exchange.embedded.core.events import (
    BookDelta,
    EventCreated,
    EventFeesUpdated,
    GroupChange,
    GroupUpdated,
    MarketChange,
    MarketUpdated,
)
from mm.exchange.embedded.core.model import FillRecord, OrderRecord, PositionView, TradeRecord, split_account
from mm.exchange.embedded.server.wire import (
    PRICE_TEXT,
    Json,
    action,
    collateral_return,
    count_text,
    fee_override,
    outcome,
    price_ranges,
    time_text,
)


def delta_frame(event: BookDelta, market_id: str, *, use_yes_price: bool, is_own: bool) -> Json:
    """`orderbook_delta`. NO levels come in NO price unless `use_yes_price`; the client id only to its owner."""
    price = event.price if use_yes_price else event.leg_price
    found: Json = {
        "market_ticker": event.ticker,
        "market_id": market_id,
        "price_dollars": PRICE_TEXT[price],
        "delta_fp": count_text(event.change),
        "side": event.leg,
        "ts": time_text(event.ts),
        "ts_ms": event.ts // 1_000,
    }
    if is_own and event.client_order_id:
        found["client_order_id"] = event.client_order_id
        found["subaccount"] = split_account(event.user_id)[1]
    return found


def trade_frame(record: TradeRecord) -> Json:
    """`trade`."""
    return {
        "trade_id": record.trade_id,
        "market_ticker": record.ticker,
        "yes_price_dollars": PRICE_TEXT[record.price],
        "no_price_dollars": PRICE_TEXT[complement(record.price)],
        "count_fp": count_text(record.count),
        "taker_side": outcome(record.taker_side),
        "taker_outcome_side": outcome(record.taker_side),
        "taker_book_side": record.taker_side.value,
        "is_block_trade": record.is_block,
        "ts": record.ts // SECOND,
        "ts_ms": record.ts // 1_000,
    }


def fill_frame(record: FillRecord) -> Json:
    """`fill`."""
    found: Json = {
        "trade_id": record.trade_id,
        "order_id": record.order_id,
        "market_ticker": record.ticker,
        "exchange_index": record.exchange_index,
        "is_taker": record.is_taker,
        "side": outcome(record.side),
        "yes_price_dollars": PRICE_TEXT[record.price],
        "count_fp": count_text(record.count),
        "fee_cost": format_money(record.fee),
        "action": action(record.side),
        "ts": record.ts // SECOND,
        "ts_ms": record.ts // 1_000,
        "post_position_fp": count_text(record.post_position),
        "purchased_side": outcome(record.side),
        "outcome_side": outcome(record.side),
        "book_side": record.side.value,
        "subaccount": split_account(record.user_id)[1],
    }
    if record.client_order_id:
        found["client_order_id"] = record.client_order_id
    return found


def order_frame(record: OrderRecord) -> Json:
    """`user_order`."""
    member, subaccount = split_account(record.user_id)
    found: Json = {
        "order_id": record.order_id,
        "user_id": member,
        "ticker": record.ticker,
        "exchange_index": record.exchange_index,
        "status": record.status.value,
        "side": outcome(record.side),
        "is_yes": record.side is Side.BID,
        "outcome_side": outcome(record.side),
        "book_side": record.side.value,
        "yes_price_dollars": PRICE_TEXT[record.price],
        "fill_count_fp": count_text(record.filled),
        "remaining_count_fp": count_text(record.remaining),
        "initial_count_fp": count_text(record.initial_count),
        "taker_fill_cost_dollars": format_money(record.taker_fill_cost),
        "maker_fill_cost_dollars": format_money(record.maker_fill_cost),
        "taker_fees_dollars": format_money(record.taker_fees),
        "maker_fees_dollars": format_money(record.maker_fees),
        "client_order_id": record.client_order_id or "",
        "self_trade_prevention_type": record.self_trade_prevention.value,
        "created_time": time_text(record.created_at),
        "created_ts_ms": record.created_at // 1_000,
        "last_update_time": time_text(record.updated_at),
        "last_updated_ts_ms": record.updated_at // 1_000,
        "subaccount_number": subaccount,
    }
    if record.last_update_reason is not None:
        found["last_update_reason"] = record.last_update_reason.value
    if record.expires_at is not None:
        found["expiration_time"] = time_text(record.expires_at)
        found["expiration_ts_ms"] = record.expires_at // 1_000
    if record.group_id is not None:
        found["order_group_id"] = record.group_id
    return found


def position_frame(user_id: str, view: PositionView) -> Json:
    """`market_position`."""
    member, subaccount = split_account(user_id)
    return {
        "user_id": member,
        "market_ticker": view.ticker,
        "position_fp": count_text(view.position),
        "position_cost_dollars": format_money(view.cost),
        "realized_pnl_dollars": format_money(view.realized_pnl),
        "fees_paid_dollars": format_money(view.fees_paid),
        "position_fee_cost_dollars": format_money(view.open_fees),
        "volume_fp": count_text(view.volume),
        "subaccount": subaccount,
    }


def group_frame(event: GroupUpdated) -> Json:
    """`order_group_updates`."""
    found: Json = {
        "event_type": event.change.value,
        "order_group_id": event.group_id,
        "ts_ms": event.ts // 1_000,
    }
    if event.change in (GroupChange.CREATED, GroupChange.LIMIT_UPDATED):
        found["contracts_limit_fp"] = count_text(event.contracts_limit)
    return found


def market_frame(event: MarketUpdated) -> Json:
    """`market_lifecycle_v2`; times in seconds."""
    found: Json = {"market_ticker": event.ticker, "event_type": event.change.value}
    match event.change:
        case MarketChange.CREATED:
            found |= _created(event)
        case MarketChange.ACTIVATED | MarketChange.DEACTIVATED:
            found["is_deactivated"] = event.change is MarketChange.DEACTIVATED
        case MarketChange.CLOSE_DATE_UPDATED:
            found["close_ts"] = (event.close_time or event.spec.close_time) // SECOND
        case MarketChange.DETERMINED:
            found["determination_ts"] = event.ts // SECOND
            found["result"] = event.result or ""
            if event.settlement_value is not None:
                found["settlement_value"] = PRICE_TEXT[event.settlement_value]
        case MarketChange.SETTLED:
            found["settled_ts"] = event.ts // SECOND
        case MarketChange.PRICE_LEVEL_STRUCTURE_UPDATED:
            found["price_level_structure"] = event.price_level_structure or event.spec.price_level_structure
            found["price_ranges"] = price_ranges(event.grid or event.spec.grid)
        case MarketChange.METADATA_UPDATED:
            for name in ("strike_type", "floor_strike", "cap_strike", "custom_strike"):
                if name in event.spec.metadata:
                    found[name] = event.spec.metadata[name]
            found["yes_sub_title"] = event.spec.yes_sub_title
    return found


def _created(event: MarketUpdated) -> Json:
    spec = event.spec
    extra: Json = {
        "name": spec.yes_sub_title,
        "title": spec.title,
        "yes_sub_title": spec.yes_sub_title,
        "no_sub_title": spec.no_sub_title,
        "rules_primary": spec.metadata.get("rules_primary", ""),
        "rules_secondary": spec.metadata.get("rules_secondary", ""),
        "can_close_early": spec.can_close_early,
        "event_ticker": spec.event_ticker,
        "expected_expiration_ts": (spec.expected_expiration_time or spec.close_time) // SECOND,
    }
    for name in ("strike_type", "floor_strike", "cap_strike", "custom_strike"):
        if name in spec.metadata:
            extra[name] = spec.metadata[name]
    return {
        "exchange_index": spec.exchange_index,
        "open_ts": spec.open_time // SECOND,
        "close_ts": spec.close_time // SECOND,
        "additional_metadata": extra,
        "price_level_structure": spec.price_level_structure,
        "price_ranges": price_ranges(spec.grid),
    }


def event_frame(event: EventCreated) -> Json:
    """`event_lifecycle`."""
    spec = event.event
    return {
        "event_ticker": spec.ticker,
        "exchange_index": spec.exchange_index,
        "title": spec.title,
        "subtitle": spec.sub_title,
        "collateral_return_type": collateral_return(spec),
        "series_ticker": spec.series_ticker,
    }


def event_fee_frame(event: EventFeesUpdated) -> Json:
    """`event_fee_update`."""
    return {"event_ticker": event.event_ticker, **fee_override(event)}

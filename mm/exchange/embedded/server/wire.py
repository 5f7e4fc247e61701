"""The exchange's values as REST objects. With `frames` and `listing` the only writer of wire names.

Prices have 4 decimals, counts 2, costs and fees 6; the fraction of an RFC 3339 time is trimmed. The deprecated
direction fields (`side`, `action`, `taker_side`) are still sent: published clients require them.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Final

from mm.domain.grid import TickGrid
from mm.domain.numbers import (
    SECOND,
    Count,
    Micros,
    Money,
    Price,
    complement,
    format_count,
    format_decimal,
    format_money,
    format_price,
)
from mm.domain.order import Side
from mm.domain.tickers import format_time
from mm.exchange.embedded.core.events import (
    EventFeesUpdated,
)
from mm.exchange.embedded.core.model import (
    EventSpec,
    FillRecord,
    OrderGroup,
    OrderRecord,
    PositionView,
    SettlementRecord,
    TradeRecord,
    WriteResult,
    split_account,
)

Json = dict[str, object]

PRICE_TEXT: Final = tuple(format_price(Price(p)) for p in range(10_001))
"""Every price there is, written once: a burst of deltas formats nothing."""


@lru_cache(maxsize=4_096)
def count_text(count: Count) -> str:
    """A count, remembered: sizes repeat."""
    return format_count(count)


@lru_cache(maxsize=256)
def time_text(moment: Micros) -> str:
    """RFC 3339, fraction trimmed."""
    return format_time(moment, trim=True)


def outcome(side: Side) -> str:
    """The outcome that a side of the YES book is positioned for."""
    return "yes" if side is Side.BID else "no"


def action(side: Side) -> str:
    """The deprecated verb of a side."""
    return "buy" if side is Side.BID else "sell"


def cents(money: Money) -> int:
    """Whole cents, truncated towards minus infinity as the exchange's integer fields are."""
    return money // 10_000


def balance_text(money: Money) -> str:
    """Balances come with 4 decimals."""
    return format_decimal(money // 100, 4)


# --- REST ------------------------------------------------------------------------------------------------------------


def order(record: OrderRecord) -> Json:
    """An order of the account."""
    member, subaccount = split_account(record.user_id)
    found: Json = {
        "order_id": record.order_id,
        "user_id": member,
        "client_order_id": record.client_order_id or "",
        "ticker": record.ticker,
        "exchange_index": record.exchange_index,
        "side": "yes",
        "action": action(record.side),
        "outcome_side": outcome(record.side),
        "book_side": record.side.value,
        "type": "limit",
        "status": record.status.value,
        "yes_price_dollars": PRICE_TEXT[record.price],
        "no_price_dollars": PRICE_TEXT[complement(record.price)],
        "fill_count_fp": count_text(record.filled),
        "remaining_count_fp": count_text(record.remaining),
        "initial_count_fp": count_text(record.initial_count),
        "taker_fill_cost_dollars": format_money(record.taker_fill_cost),
        "maker_fill_cost_dollars": format_money(record.maker_fill_cost),
        "taker_fees_dollars": format_money(record.taker_fees),
        "maker_fees_dollars": format_money(record.maker_fees),
        "created_time": time_text(record.created_at),
        "last_update_time": time_text(record.updated_at),
        "self_trade_prevention_type": record.self_trade_prevention.value,
        "cancel_order_on_pause": record.cancel_on_pause,
        "subaccount_number": subaccount,
    }
    if record.expires_at is not None:
        found["expiration_time"] = time_text(record.expires_at)
    if record.group_id is not None:
        found["order_group_id"] = record.group_id
    return found


def fill(record: FillRecord) -> Json:
    """A fill of the account; no client id since 2026-03-30."""
    return {
        "fill_id": record.trade_id,
        "trade_id": record.trade_id,
        "order_id": record.order_id,
        "exchange_index": record.exchange_index,
        "ticker": record.ticker,
        "market_ticker": record.ticker,
        "side": outcome(record.side),
        "action": action(record.side),
        "outcome_side": outcome(record.side),
        "book_side": record.side.value,
        "count_fp": count_text(record.count),
        "yes_price_dollars": PRICE_TEXT[record.price],
        "no_price_dollars": PRICE_TEXT[complement(record.price)],
        "is_taker": record.is_taker,
        "fee_cost": format_money(record.fee),
        "created_time": time_text(record.ts),
        "subaccount_number": split_account(record.user_id)[1],
        "ts": record.ts // SECOND,
    }


def trade(record: TradeRecord) -> Json:
    """A public print."""
    return {
        "trade_id": record.trade_id,
        "ticker": record.ticker,
        "count_fp": count_text(record.count),
        "yes_price_dollars": PRICE_TEXT[record.price],
        "no_price_dollars": PRICE_TEXT[complement(record.price)],
        "taker_side": outcome(record.taker_side),
        "taker_outcome_side": outcome(record.taker_side),
        "taker_book_side": record.taker_side.value,
        "created_time": time_text(record.ts),
        "is_block_trade": record.is_block,
    }


def position(view: PositionView) -> Json:
    """A position of the account in one market."""
    return {
        "ticker": view.ticker,
        "exchange_index": view.exchange_index,
        "total_traded_dollars": format_money(view.total_traded),
        "position_fp": count_text(view.position),
        "market_exposure_dollars": format_money(view.cost),
        "realized_pnl_dollars": format_money(view.realized_pnl),
        "fees_paid_dollars": format_money(view.fees_paid),
        "last_updated_ts": time_text(view.updated_at),
    }


def event_positions(views: list[PositionView]) -> list[Json]:
    """The same positions, summed by event."""
    by_event: dict[str, list[PositionView]] = {}
    for view in views:
        by_event.setdefault(view.event_ticker, []).append(view)
    return [
        {
            "event_ticker": ticker,
            "total_cost_dollars": format_money(Money(sum(v.total_traded for v in of_event))),
            "total_cost_shares_fp": count_text(Count(sum(v.volume for v in of_event))),
            "event_exposure_dollars": format_money(Money(sum(v.cost for v in of_event))),
            "realized_pnl_dollars": format_money(Money(sum(v.realized_pnl for v in of_event))),
            "fees_paid_dollars": format_money(Money(sum(v.fees_paid for v in of_event))),
        }
        for ticker, of_event in by_event.items()
    ]


def settlement(record: SettlementRecord) -> Json:
    """A settled market of the account; `revenue` and `value` are whole cents."""
    return {
        "ticker": record.ticker,
        "exchange_index": record.exchange_index,
        "event_ticker": record.event_ticker,
        "market_result": record.result,
        "yes_count_fp": count_text(record.yes_count),
        "yes_total_cost_dollars": format_money(record.yes_total_cost),
        "no_count_fp": count_text(record.no_count),
        "no_total_cost_dollars": format_money(record.no_total_cost),
        "revenue": cents(record.revenue),
        "settled_time": time_text(record.ts),
        "fee_cost": format_money(record.fee_cost),
        "value": record.value // 100,
    }


def group(record: OrderGroup) -> Json:
    """An order group in a listing."""
    return {
        "id": record.group_id,
        "contracts_limit_fp": count_text(record.contracts_limit),
        "is_auto_cancel_enabled": not record.is_triggered,
        "exchange_index": record.exchange_index,
    }


def group_details(record: OrderGroup) -> Json:
    """One order group with its resting orders."""
    return {
        "is_auto_cancel_enabled": not record.is_triggered,
        "contracts_limit_fp": count_text(record.contracts_limit),
        "orders": list(record.orders),
        "exchange_index": record.exchange_index,
    }


def price_ranges(grid: TickGrid) -> list[Json]:
    """A grid as bands."""
    return [
        {
            "start": PRICE_TEXT[band.start],
            "end": PRICE_TEXT[band.end],
            "step": PRICE_TEXT[band.step],
        }
        for band in grid.bands
    ]


def _ack(result: WriteResult) -> Json:
    found: Json = {"order_id": result.order_id, "ts_ms": result.ts // 1_000}
    if result.client_order_id:
        found["client_order_id"] = result.client_order_id
    return found


def _averages(result: WriteResult) -> Json:
    price, fee = result.average_fill_price, result.average_fee_paid
    if price is None or fee is None:
        return {}
    return {"average_fill_price": PRICE_TEXT[price], "average_fee_paid": format_price(fee)}


def create_ack(result: WriteResult) -> Json:
    """The answer to a create."""
    return {
        **_ack(result),
        **_averages(result),
        "fill_count": count_text(result.fill_count),
        "remaining_count": count_text(result.remaining_count),
    }


def amend_ack(result: WriteResult) -> Json:
    """The answer to an amend; the counts only when something filled or the resting size changed."""
    if not result.is_changed:
        return _ack(result)
    return create_ack(result)


def decrease_ack(result: WriteResult) -> Json:
    """The answer to a decrease."""
    return {**_ack(result), "remaining_count": count_text(result.remaining_count)}


def cancel_ack(result: WriteResult, *, with_client_order_id: bool = False) -> Json:
    """The answer to a cancel; recorded ones carried no client id."""
    named: Json = {}
    if with_client_order_id and result.client_order_id:
        named["client_order_id"] = result.client_order_id
    return {
        **named,
        "order_id": result.order_id,
        "reduced_by": count_text(result.reduced_by),
        "ts_ms": result.ts // 1_000,
    }


def collateral_return(spec: EventSpec) -> str:
    """How collateral comes back inside an event."""
    return "MECNET" if spec.is_mutually_exclusive else ""


def multiplier(value: Fraction | None) -> int | float | None:
    """A fee multiplier as the number that the wire has, whole ones without a point."""
    if value is None:
        return None
    return int(value) if value.denominator == 1 else float(value)


def fee_override(event: EventFeesUpdated | EventSpec) -> Json:
    """The fee overrides of an event, null where the series' value holds."""
    return {
        "fee_type_override": None if event.fee_type_override is None else event.fee_type_override.value,
        "fee_multiplier_override": multiplier(event.fee_multiplier_override),
    }

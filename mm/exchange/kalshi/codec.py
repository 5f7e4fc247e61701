"""From Kalshi's objects to domain values and back: the only place, with `frames`, that knows what the wire means.

Strict where a guess would cost money (a fill without a side), careful where the venue may grow (an unknown market
status is not traded, an unknown fee model not quoted). Only `book_side` and `outcome_side` tell a direction; the
deprecated `side` and `action` are never read.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Final, TypeVar

from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.grid import PriceBand, TickGrid, tick_grid
from mm.domain.market import Event, Incentive, Market, MarketStatus, Series
from mm.domain.numbers import CENT, DOLLAR, SECOND, Count, Micros, Money, Price, format_count, format_price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, Side
from mm.exchange import endpoints, port
from mm.exchange.kalshi import wire
from mm.exchange.kalshi.reading import Codec, JsonObject, Malformed, Tally, items

CENTI_CENT: Final = 100
"""In `Money`."""
_ORDER_STATUS: Final = {
    "resting": port.OrderStatus.RESTING,
    "canceled": port.OrderStatus.CANCELLED,
    "executed": port.OrderStatus.EXECUTED,
}


def read_markets(codec: Codec, body: JsonObject) -> list[Market]:
    """The markets of a listing. One that cannot be read is left out and counted: it must not hide the others."""
    return readable_markets(codec, market_rows(body))


def market_rows(body: JsonObject) -> list[Any]:
    """The rows of a listing, unread. Raises `Malformed`."""
    if "markets" not in body:
        raise Malformed("no markets in the reply")
    return items(body["markets"], "markets")


def readable_markets(codec: Codec, rows: Iterable[Any]) -> list[Market]:
    """What can be read of these rows."""
    return _readable(
        codec, rows, "market", "ticker", lambda row: to_market(codec.structure(row, wire.Market), codec.tally)
    )


def readable_series(codec: Codec, rows: Iterable[Any]) -> list[Series]:
    """What can be read of these rows."""
    return _readable(
        codec, rows, "series", "ticker", lambda row: to_series(codec.structure(row, wire.Series), codec.tally)
    )


def readable_incentives(codec: Codec, rows: Iterable[Any]) -> list[Incentive]:
    """What can be read of these rows."""
    return _readable(
        codec,
        rows,
        "incentive",
        "market_ticker",
        lambda row: to_incentive(codec.structure(row, wire.Incentive)),
    )


T = TypeVar("T")


def _readable(codec: Codec, rows: Iterable[Any], what: str, key: str, read: Callable[[Any], T]) -> list[T]:
    found: list[T] = []
    for row in rows:
        try:
            found.append(read(row))
        except ValueError as error:
            name = str(row.get(key, "?")) if isinstance(row, dict) else "?"
            codec.tally.skip(f"{what} {name}", str(error))
    return found


def side_of(book_side: str | None, outcome_side: str | None) -> Side:
    """The side of the YES book; bid and yes are the same direction, always. Raises `Malformed`."""
    if book_side == "bid" or (not book_side and outcome_side == "yes"):
        return Side.BID
    if book_side == "ask" or (not book_side and outcome_side == "no"):
        return Side.ASK
    raise Malformed(f"no direction in book_side {book_side!r}, outcome_side {outcome_side!r}")


def to_grid(ranges: list[wire.PriceRange]) -> TickGrid:
    """The price grid. Raises `Malformed` on an empty or impossible one."""
    try:
        return tick_grid(PriceBand(band.start, band.end, band.step) for band in ranges)
    except ValueError as error:
        raise Malformed(str(error)) from None


def to_market(market: wire.Market, tally: Tally) -> Market:
    """A market. A status we do not know reads as inactive: not to be traded, and counted."""
    try:
        status = MarketStatus(market.status)
    except ValueError:
        tally.skip("market status", market.status)
        status = MarketStatus.INACTIVE
    value = market.settlement_value_dollars
    if value is None and market.result in ("yes", "no"):
        value = DOLLAR if market.result == "yes" else Price(0)
    return Market(
        ticker=MarketTicker(market.ticker),
        event_ticker=market.event_ticker,
        status=status,
        grid=to_grid(market.price_ranges),
        exchange_index=market.exchange_index or 0,
        title=market.title or "",
        yes_sub_title=market.yes_sub_title or "",
        open_time=market.open_time,
        close_time=market.close_time,
        expected_expiration=market.expected_expiration_time,
        volume=market.volume_fp or Count(0),
        volume_24h=market.volume_24h_fp or Count(0),
        yes_bid=_real_price(market.yes_bid_dollars),
        yes_ask=_real_price(market.yes_ask_dollars),
        settlement_value=value,
        fee_waiver_until=market.fee_waiver_expiration_time,
    )


def _real_price(price: Price | None) -> Price | None:
    # An empty side is written as 0 or 1 dollar, which are no prices.
    return price if price is not None and 0 < price < DOLLAR else None


def to_fee_type(text: str, tally: Tally) -> FeeType:
    """A fee model; one we do not know reads as `FLAT`: not understood, not to be quoted."""
    try:
        return FeeType(text)
    except ValueError:
        tally.skip("fee type", text)
        return FeeType.FLAT


def _fraction(number: float) -> Fraction:
    # Through the shortest decimal that gives this float: 0.07 on the wire is 7/100, not its binary neighbour.
    return Fraction(repr(number))


def to_series(series: wire.Series, tally: Tally) -> Series:
    """A series."""
    return Series(
        ticker=series.ticker,
        title=series.title or "",
        fee_type=to_fee_type(series.fee_type, tally),
        fee_multiplier=_fraction(series.fee_multiplier),
    )


def to_incentive(program: wire.Incentive) -> Incentive:
    """A program. Rewards come in centi-cents: hundredths of a cent."""
    most = program.max_reward_per_account
    return Incentive(
        ticker=MarketTicker(program.market_ticker),
        is_liquidity=program.incentive_type == "liquidity",
        starts_at=program.start_date,
        ends_at=program.end_date,
        reward=Money(program.period_reward * CENTI_CENT),
        most=None if most is None else Money(most * CENTI_CENT),
    )


def to_event(event: wire.Event, tally: Tally) -> Event:
    """An event."""
    multiplier = event.fee_multiplier_override
    return Event(
        ticker=event.event_ticker,
        title=event.title or "",
        is_mutually_exclusive=bool(event.mutually_exclusive),
        fee_type_override=to_fee_type(event.fee_type_override, tally) if event.fee_type_override else None,
        fee_multiplier_override=None if multiplier is None else _fraction(multiplier),
    )


def to_status(status: wire.ExchangeStatus) -> port.ExchangeStatus:
    """The venue's state."""
    shards = {
        shard.exchange_index: (shard.exchange_active, shard.trading_active)
        for shard in status.exchange_index_statuses or []
    }
    return port.ExchangeStatus(
        exchange_active=status.exchange_active, trading_active=status.trading_active, shards=shards
    )


def to_limits(limits: wire.Limits, costs: wire.EndpointCosts) -> port.RateLimits:
    """Budget and costs."""
    return port.RateLimits(
        tier=limits.usage_tier,
        read=port.Bucket(refill_per_s=limits.read.refill_rate, capacity=limits.read.bucket_capacity),
        write=port.Bucket(refill_per_s=limits.write.refill_rate, capacity=limits.write.bucket_capacity),
        default_cost=costs.default_cost,
        costs={endpoints.canonical(row.method, row.path): row.cost for row in costs.endpoint_costs or []},
    )


def to_balance(balance: wire.Balance) -> port.Balance:
    """Cash."""
    shards = {row.exchange_index: row.balance for row in balance.balance_breakdown or []}
    return port.Balance(total=balance.balance_dollars, by_exchange_index=shards)


def to_position(position: wire.Position) -> port.VenuePosition:
    """A position as the venue sees it."""
    return port.VenuePosition(
        ticker=MarketTicker(position.ticker),
        position=position.position_fp,
        fees_paid=position.fees_paid_dollars,
        realized_pnl=position.realized_pnl_dollars,
        exchange_index=position.exchange_index or 0,
    )


def to_fill(fill: wire.Fill) -> Fill:
    """A fill from the listing. Raises `Malformed` when it has no direction or no time."""
    if fill.created_time is not None:
        ts = fill.created_time
    elif fill.ts is not None:
        ts = Micros(fill.ts * SECOND)
    else:
        raise Malformed(f"fill {fill.trade_id} has no time")
    return Fill(
        order_id=OrderId(fill.order_id),
        trade_id=TradeId(fill.trade_id),
        ticker=MarketTicker(fill.ticker),
        side=side_of(fill.book_side, fill.outcome_side),
        price=fill.yes_price_dollars,
        count=fill.count_fp,
        fee=fill.fee_cost,
        liquidity=Liquidity.TAKER if fill.is_taker else Liquidity.MAKER,
        ts=ts,
    )


def to_fill_from_frame(fill: wire.FillFrame, now: Micros) -> Fill:
    """A fill from the socket; `now` stands in where the frame has no time at all."""
    ts = Micros(fill.ts_ms * 1000) if fill.ts_ms is not None else now
    if fill.ts_ms is None and fill.ts is not None:
        ts = Micros(fill.ts * SECOND)
    return Fill(
        order_id=OrderId(fill.order_id),
        trade_id=TradeId(fill.trade_id),
        ticker=MarketTicker(fill.market_ticker),
        side=side_of(fill.book_side, fill.outcome_side),
        price=fill.yes_price_dollars,
        count=fill.count_fp,
        fee=fill.fee_cost,
        liquidity=Liquidity.TAKER if fill.is_taker else Liquidity.MAKER,
        ts=ts,
        client_order_id=ClientOrderId(fill.client_order_id) if fill.client_order_id else None,
    )


def to_report(order: wire.Order | wire.OrderFrame) -> port.OrderReport:
    """What the venue says about an order. Raises `Malformed` on a status that we do not know."""
    status = _ORDER_STATUS.get(order.status)
    if status is None:
        raise Malformed(f"order {order.order_id} has status {order.status!r}")
    expires, created, updated = order.expiration_time, order.created_time, order.last_update_time
    if isinstance(order, wire.OrderFrame):
        expires = expires if expires is not None else _from_ms(order.expiration_ts_ms)
        created = created if created is not None else _from_ms(order.created_ts_ms)
        updated = updated if updated is not None else _from_ms(order.last_updated_ts_ms)
    return port.OrderReport(
        order_id=OrderId(order.order_id),
        client_order_id=ClientOrderId(order.client_order_id) if order.client_order_id else None,
        ticker=MarketTicker(order.ticker),
        side=side_of(order.book_side, order.outcome_side),
        price=order.yes_price_dollars,
        status=status,
        initial=order.initial_count_fp,
        filled=order.fill_count_fp,
        remaining=order.remaining_count_fp,
        exchange_index=order.exchange_index or 0,
        group_id=GroupId(order.order_group_id) if order.order_group_id else None,
        expires_at=expires,
        created_at=created,
        updated_at=updated,
        reason=order.last_update_reason or "",
    )


def _from_ms(milliseconds: int | None) -> Micros | None:
    return None if milliseconds is None else Micros(milliseconds * 1000)


def to_settlement(settlement: wire.Settlement) -> port.Settlement:
    """A settlement. Raises `Malformed` when what YES paid cannot be told."""
    if settlement.value is not None:
        value = Price(settlement.value * CENT)
    elif settlement.market_result in ("yes", "no"):
        value = DOLLAR if settlement.market_result == "yes" else Price(0)
    else:
        raise Malformed(f"settlement of {settlement.ticker} without a value")
    return port.Settlement(
        ticker=MarketTicker(settlement.ticker),
        value=value,
        settled_at=settlement.settled_time,
        yes_count=settlement.yes_count_fp,
        no_count=settlement.no_count_fp,
        fee=settlement.fee_cost,
    )


def to_group(group: wire.Group) -> port.OrderGroup:
    """A group. That a triggered group reads as "auto cancel not enabled" is inferred, not documented."""
    return port.OrderGroup(
        group_id=GroupId(group.id),
        exchange_index=group.exchange_index or 0,
        is_triggered=not group.is_auto_cancel_enabled,
    )


_EVENT_KINDS: Final = {kind.value: kind for kind in port.MarketEventKind}


def to_market_event(event: wire.Lifecycle) -> port.MarketEvent:
    """A change in a market's life; kinds we have no word for are `OTHER`."""
    value = event.settlement_value
    if value is None and event.result in ("yes", "no"):
        value = DOLLAR if event.result == "yes" else Price(0)
    metadata = event.additional_metadata
    return port.MarketEvent(
        ticker=MarketTicker(event.market_ticker),
        kind=_EVENT_KINDS.get(event.event_type, port.MarketEventKind.OTHER),
        close_time=None if event.close_ts is None else Micros(event.close_ts * SECOND),
        settlement_value=value,
        grid=to_grid(event.price_ranges) if event.price_ranges else None,
        event_ticker=metadata.event_ticker if metadata else None,
    )


# --- domain to wire --------------------------------------------------------------------------------------------------


def create_body(order: port.NewOrder, subaccount: int) -> JsonObject:
    """The body of a create. `exchange_index` always stands in it: auto-routing costs every shard's budget."""
    body: JsonObject = {
        "ticker": order.ticker,
        "client_order_id": order.client_order_id,
        "side": order.side.value,
        "count": format_count(order.count),
        "price": format_price(order.price),
        "time_in_force": order.time_in_force.value,
        "self_trade_prevention_type": order.self_trade_prevention.value,
        "exchange_index": order.exchange_index,
    }
    if order.post_only:
        body["post_only"] = True
    if order.reduce_only:
        body["reduce_only"] = True
    if order.cancel_on_pause:
        body["cancel_order_on_pause"] = True
    if order.group_id is not None:
        body["order_group_id"] = order.group_id
    if order.expires_at is not None:
        body["expiration_time"] = order.expires_at // SECOND
    if subaccount:
        body["subaccount"] = subaccount
    return body


def amend_body(
    ref: port.OrderRef, side: Side, price: Price, count: Count, expires_at: Micros | None
) -> JsonObject:
    """The body of an amend; no expiry in it keeps the one there is."""
    body: JsonObject = {
        "ticker": ref.ticker,
        "side": side.value,
        "price": format_price(price),
        "count": format_count(count),
        "exchange_index": ref.exchange_index,
    }
    if expires_at is not None:
        body["expiration_time"] = expires_at // SECOND
    return body


def decrease_body(ref: port.OrderRef, reduce_to: Count) -> JsonObject:
    """The body of a decrease."""
    return {
        "reduce_to": format_count(reduce_to),
        "exchange_index": ref.exchange_index,
        "market_ticker": ref.ticker,
    }


def cancel_item(ref: port.OrderRef, subaccount: int) -> JsonObject:
    """One entry of a batch cancel; also the query of a single cancel (without `order_id` there)."""
    item: JsonObject = {
        "order_id": ref.order_id,
        "exchange_index": ref.exchange_index,
        "market_ticker": ref.ticker,
    }
    if subaccount:
        item["subaccount"] = subaccount
    return item

"""Kalshi's objects as they stand on the wire, only the fields that are read. No meaning is given to them here.

Names are the venue's; numbers are already exact integers (the converter in `codec` reads the decimal strings), times
are `Micros`. Fields that the venue documents and we do not read are listed in `IGNORED`, so that a field in neither
place is news and is reported once.
"""

from typing import Any, Final

import attrs

from mm.domain.numbers import Count, Micros, Money, Price


@attrs.frozen(kw_only=True)
class PriceRange:
    """One band of a price grid."""

    start: Price
    end: Price
    step: Price


@attrs.frozen(kw_only=True)
class Market:
    """An object of `/markets`."""

    ticker: str
    event_ticker: str
    status: str
    price_ranges: list[PriceRange]
    exchange_index: int | None = None
    title: str | None = None
    yes_sub_title: str | None = None
    open_time: Micros | None = None
    close_time: Micros | None = None
    expected_expiration_time: Micros | None = None
    fee_waiver_expiration_time: Micros | None = None
    volume_fp: Count | None = None
    volume_24h_fp: Count | None = None
    yes_bid_dollars: Price | None = None
    yes_ask_dollars: Price | None = None
    settlement_value_dollars: Price | None = None
    result: str | None = None


@attrs.frozen(kw_only=True)
class Series:
    """`series` of `/series/{ticker}`."""

    ticker: str
    fee_type: str
    fee_multiplier: float
    title: str | None = None


@attrs.frozen(kw_only=True)
class Incentive:
    """A row of `/incentive_programs`; rewards in centi-cents."""

    market_ticker: str
    incentive_type: str
    start_date: Micros
    end_date: Micros
    period_reward: int
    max_reward_per_account: int | None = None


@attrs.frozen(kw_only=True)
class Event:
    """`event` of `/events/{ticker}`."""

    event_ticker: str
    title: str | None = None
    mutually_exclusive: bool | None = None
    fee_type_override: str | None = None
    fee_multiplier_override: float | None = None


@attrs.frozen(kw_only=True)
class ShardStatus:
    """One shard in `/exchange/status`."""

    exchange_index: int
    exchange_active: bool
    trading_active: bool


@attrs.frozen(kw_only=True)
class ExchangeStatus:
    """`/exchange/status`."""

    exchange_active: bool
    trading_active: bool
    exchange_index_statuses: list[ShardStatus] | None = None


@attrs.frozen(kw_only=True)
class Bucket:
    """A token bucket of `/account/limits`."""

    refill_rate: float
    bucket_capacity: float


@attrs.frozen(kw_only=True)
class Limits:
    """`/account/limits`."""

    usage_tier: str
    read: Bucket
    write: Bucket


@attrs.frozen(kw_only=True)
class EndpointCost:
    """One row of `/account/endpoint_costs`."""

    method: str
    path: str
    cost: int


@attrs.frozen(kw_only=True)
class EndpointCosts:
    """`/account/endpoint_costs`."""

    default_cost: int
    endpoint_costs: list[EndpointCost] | None = None


@attrs.frozen(kw_only=True)
class ShardBalance:
    """The cash on one shard."""

    exchange_index: int
    balance: Money


@attrs.frozen(kw_only=True)
class Balance:
    """`/portfolio/balance`; the cents in `balance` are truncated and not read."""

    balance_dollars: Money
    balance_breakdown: list[ShardBalance] | None = None


@attrs.frozen(kw_only=True)
class Position:
    """A row of `market_positions`."""

    ticker: str
    position_fp: Count
    realized_pnl_dollars: Money
    fees_paid_dollars: Money
    exchange_index: int | None = None


@attrs.frozen(kw_only=True)
class Fill:
    """A row of `/portfolio/fills`. `side` and `action` are deprecated traps and never read."""

    order_id: str
    trade_id: str
    ticker: str
    count_fp: Count
    yes_price_dollars: Price
    is_taker: bool
    fee_cost: Money
    book_side: str | None = None
    outcome_side: str | None = None
    created_time: Micros | None = None
    ts: int | None = None


@attrs.frozen(kw_only=True)
class FillFrame:
    """`msg` of a `fill` frame."""

    order_id: str
    trade_id: str
    market_ticker: str
    count_fp: Count
    yes_price_dollars: Price
    is_taker: bool
    fee_cost: Money
    book_side: str | None = None
    outcome_side: str | None = None
    client_order_id: str | None = None
    ts_ms: int | None = None
    ts: int | None = None
    subaccount: int | None = None


@attrs.frozen(kw_only=True)
class Order:
    """A row of `/portfolio/orders`."""

    order_id: str
    ticker: str
    status: str
    yes_price_dollars: Price
    fill_count_fp: Count
    remaining_count_fp: Count
    initial_count_fp: Count
    book_side: str | None = None
    outcome_side: str | None = None
    client_order_id: str | None = None
    order_group_id: str | None = None
    exchange_index: int | None = None
    expiration_time: Micros | None = None
    created_time: Micros | None = None
    last_update_time: Micros | None = None
    last_update_reason: str | None = None


@attrs.frozen(kw_only=True)
class OrderFrame:
    """`msg` of a `user_order` frame."""

    order_id: str
    ticker: str
    status: str
    yes_price_dollars: Price
    fill_count_fp: Count
    remaining_count_fp: Count
    initial_count_fp: Count
    book_side: str | None = None
    outcome_side: str | None = None
    client_order_id: str | None = None
    order_group_id: str | None = None
    exchange_index: int | None = None
    expiration_ts_ms: int | None = None
    expiration_time: Micros | None = None
    created_ts_ms: int | None = None
    created_time: Micros | None = None
    last_updated_ts_ms: int | None = None
    last_update_time: Micros | None = None
    last_update_reason: str | None = None
    subaccount_number: int | None = None


@attrs.frozen(kw_only=True)
class Settlement:
    """A row of `/portfolio/settlements`; `value` is cents for one YES."""

    ticker: str
    market_result: str
    settled_time: Micros
    yes_count_fp: Count
    no_count_fp: Count
    fee_cost: Money
    value: int | None = None


@attrs.frozen(kw_only=True)
class Group:
    """A row of `/portfolio/order_groups`."""

    id: str
    is_auto_cancel_enabled: bool
    exchange_index: int | None = None


@attrs.frozen(kw_only=True)
class UserDataTimestamp:
    """`/exchange/user_data_timestamp`."""

    as_of_time: Micros


@attrs.frozen(kw_only=True)
class Placed:
    """The answer to a create."""

    order_id: str
    fill_count: Count
    remaining_count: Count


@attrs.frozen(kw_only=True)
class Cancelled:
    """The answer to a cancel. Advisory: it has been seen to name another order than the one asked for."""

    reduced_by: Count


@attrs.frozen(kw_only=True)
class BatchItem:
    """One result of a batch cancel."""

    order_id: str | None = None
    reduced_by: Count | None = None
    error: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class GroupCreated:
    """The answer to a group's creation."""

    order_group_id: str


@attrs.frozen(kw_only=True)
class LifecycleMetadata:
    """`additional_metadata` of a `created` lifecycle frame."""

    event_ticker: str | None = None


@attrs.frozen(kw_only=True)
class Lifecycle:
    """`msg` of a `market_lifecycle_v2` frame; times in whole seconds."""

    market_ticker: str
    event_type: str
    close_ts: int | None = None
    result: str | None = None
    settlement_value: Price | None = None
    price_ranges: list[PriceRange] | None = None
    additional_metadata: LifecycleMetadata | None = None


@attrs.frozen(kw_only=True)
class FeeUpdate:
    """`msg` of an `event_fee_update` frame."""

    event_ticker: str


@attrs.frozen(kw_only=True)
class GroupUpdate:
    """`msg` of an `order_group_updates` frame."""

    event_type: str
    order_group_id: str


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_COSTS: Final = (
    "taker_fill_cost_dollars maker_fill_cost_dollars taker_fees_dollars maker_fees_dollars no_price_dollars "
)

IGNORED: Final[dict[type, frozenset[str]]] = {
    Market: names(
        "market_type subtitle no_sub_title created_time updated_time expiration_time latest_expiration_time"
        " settlement_timer_seconds yes_bid_size_fp yes_ask_size_fp no_bid_dollars no_ask_dollars last_price_dollars"
        " can_close_early open_interest_fp notional_value_dollars previous_yes_bid_dollars"
        " previous_yes_ask_dollars previous_price_dollars settlement_ts settlement_bounds_type"
        " settlement_floor_dollars expiration_value occurrence_datetime"
        " early_close_condition strike_type floor_strike cap_strike functional_strike custom_strike rules_primary"
        " rules_secondary mve_collection_ticker mve_selected_legs primary_participant_key price_level_structure"
        " is_provisional liquidity_dollars"
    ),
    Series: names(
        "frequency category categories tags settlement_sources contract_url contract_terms_url product_metadata"
        " additional_prohibitions volume_fp last_updated_ts exchange_index"
    ),
    Incentive: names("id market_id incentive_description paid_out discount_factor_bps target_size_fp"),
    Event: names(
        "series_ticker sub_title collateral_return_type category strike_date strike_period markets product_metadata"
        " settlement_sources last_updated_ts exchange_index available_on_brokers"
    ),
    ShardStatus: names("description intra_exchange_transfers_active"),
    ExchangeStatus: names("intra_exchange_transfers_active exchange_estimated_resume_time"),
    Limits: names("grants"),
    Balance: names("balance portfolio_value updated_ts"),
    Position: names("total_traded_dollars market_exposure_dollars last_updated_ts"),
    Fill: names("fill_id exchange_index market_ticker side action no_price_dollars subaccount_number"),
    FillFrame: names("exchange_index side action no_price_dollars post_position_fp purchased_side"),
    Order: names(
        _COSTS + "user_id side action type self_trade_prevention_type cancel_order_on_pause subaccount_number"
    ),
    OrderFrame: names(_COSTS + "user_id side is_yes self_trade_prevention_type cancel_order_on_pause"),
    Settlement: names("exchange_index event_ticker yes_total_cost_dollars no_total_cost_dollars revenue"),
    Group: names("contracts_limit_fp"),
    Placed: names("client_order_id average_fill_price average_fee_paid ts_ms"),
    Cancelled: names("order_id client_order_id ts_ms"),
    BatchItem: names("client_order_id ts_ms"),
    GroupCreated: names("subaccount exchange_index"),
    LifecycleMetadata: names(
        "name title yes_sub_title no_sub_title rules_primary rules_secondary can_close_early expected_expiration_ts"
        " strike_type floor_strike cap_strike custom_strike"
    ),
    Lifecycle: names(
        "exchange_index open_ts price_level_structure is_deactivated determination_ts settled_ts strike_type"
        " floor_strike cap_strike custom_strike yes_sub_title market_id"
    ),
    FeeUpdate: names("fee_type_override fee_multiplier_override"),
    GroupUpdate: names("contracts_limit_fp ts_ms"),
}
"""Documented fields that nobody here reads."""

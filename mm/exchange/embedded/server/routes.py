"""Which method and path is which operation, and whether it needs a signature."""

from collections.abc import Callable
from typing import Final

import attrs

from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.rest import account, archive, games, keys, money, orders, public
from mm.exchange.embedded.server.service import Call

Operation = Callable[[Call], Response]


_ORDERS: Final = "/portfolio/events/orders"
_LEGACY: Final = "/portfolio/orders"
_SHARDS: Final = "/portfolio/intra_exchange_instance_transfer"
_ALLOCATION: Final = "/portfolio/target_balance_allocation"
_GROUPS: Final = "/portfolio/order_groups"


@attrs.frozen
class Route:
    """One operation. Reads pay their tokens before they run; writes pay when their shard is known."""

    method: str
    template: str
    """Below `/trade-api/v2`, parameters as `:name`."""
    name: str
    """As the exchange's validator calls it."""
    run: Operation
    is_public: bool = False

    @property
    def scope(self) -> str:
        """What a key must be allowed to do."""
        if self.is_read:
            return "read"
        if self.template.startswith(("/account", "/api_keys")):
            return "write"
        if self.template.startswith(("/portfolio/subaccounts", _SHARDS, _ALLOCATION)):
            return "write::transfer"
        return "write::trade"

    @property
    def is_read(self) -> bool:
        """Whether it is paid from the read bucket."""
        return self.method == "GET"


def _public(template: str, name: str, run: Operation) -> Route:
    return Route("GET", template, name, run, is_public=True)


ROUTES: Final = (
    _public("/exchange/status", "GetExchangeStatus", public.exchange_status),
    _public("/exchange/schedule", "GetExchangeSchedule", public.exchange_schedule),
    _public("/exchange/user_data_timestamp", "GetUserDataTimestamp", public.user_data_timestamp),
    _public("/historical/cutoff", "GetHistoricalCutoff", archive.cutoff),
    _public("/historical/markets", "GetHistoricalMarkets", archive.markets),
    _public("/historical/markets/:ticker", "GetHistoricalMarket", archive.market),
    _public(
        "/historical/markets/:ticker/candlesticks",
        "GetMarketCandlesticksHistorical",
        archive.candlesticks,
    ),
    _public("/historical/trades", "GetHistoricalTrades", archive.trades),
    Route("GET", "/historical/fills", "GetHistoricalFills", archive.fills),
    Route("GET", "/historical/orders", "GetHistoricalOrders", archive.orders),
    Route("GET", "/historical/positions", "GetHistoricalPositions", archive.positions),
    Route("GET", "/api_keys", "GetApiKeys", keys.api_keys),
    Route("POST", "/api_keys", "CreateApiKey", keys.create_key),
    Route("POST", "/api_keys/generate", "GenerateApiKey", keys.generate_key),
    Route("DELETE", "/api_keys/:api_key", "DeleteApiKey", keys.delete_key),
    _public("/series", "GetSeriesList", public.get_series_list),
    _public("/series/fee_changes", "GetSeriesFeeChanges", public.series_fee_changes),
    _public("/series/:series_ticker", "GetSeries", public.get_series),
    _public(
        "/series/:series_ticker/markets/:ticker/candlesticks",
        "GetMarketCandlesticks",
        public.market_candlesticks,
    ),
    _public(
        "/series/:series_ticker/events/:ticker/candlesticks",
        "GetEventCandlesticks",
        public.event_candlesticks,
    ),
    _public("/events", "GetEvents", public.get_events),
    _public("/events/fee_changes", "GetEventFeeChanges", public.event_fee_changes),
    _public("/events/multivariate", "GetMultivariateEvents", public.multivariate_events),
    _public("/events/:event_ticker", "GetEvent", public.get_event),
    _public("/events/:event_ticker/metadata", "GetEventMetadata", public.event_metadata),
    _public("/markets", "GetMarkets", public.get_markets),
    _public("/markets/trades", "GetTrades", public.get_trades),
    _public("/markets/orderbooks", "GetMarketOrderbooks", public.get_orderbooks),
    _public("/markets/candlesticks", "BatchGetMarketCandlesticks", public.batch_candlesticks),
    _public("/markets/:ticker", "GetMarket", public.get_market),
    _public("/markets/:ticker/orderbook", "GetMarketOrderbook", public.get_orderbook),
    _public("/milestones", "GetMilestones", games.get_milestones),
    _public("/milestones/:milestone_id", "GetMilestone", games.get_milestone),
    _public("/live_data/batch", "GetLiveDatas", games.live_data_batch),
    _public("/live_data/milestone/:milestone_id", "GetLiveData", games.live_data),
    _public("/live_data/milestone/:milestone_id/game_stats", "GetGameStats", games.game_stats),
    _public("/live_data/:type/milestone/:milestone_id", "GetLiveDataByType", games.live_data_by_type),
    _public("/live_data/events/:event_ticker", "GetEventLiveData", games.event_live_data),
    _public("/incentive_programs", "GetIncentivePrograms", games.incentive_programs),
    _public("/account/endpoint_costs", "GetEndpointCosts", public.costs),
    Route("GET", "/account/limits", "GetAccountLimits", keys.limits),
    Route("GET", "/account/api_usage_level/volume_progress", "GetVolumeProgress", keys.volume_progress),
    Route("POST", "/account/api_usage_level/upgrade", "UpgradeUsageLevel", keys.upgrade),
    Route("GET", "/portfolio/balance", "GetBalance", account.balance),
    Route("GET", "/portfolio/positions", "GetPositions", account.positions),
    Route("GET", "/portfolio/fills", "GetFills", account.fills),
    Route("GET", "/portfolio/settlements", "GetSettlements", account.settlements),
    Route("GET", "/portfolio/orders", "GetOrders", account.orders),
    Route("GET", "/portfolio/orders/queue_positions", "GetQueuePositions", account.queue_positions),
    Route("GET", "/portfolio/orders/:order_id", "GetOrder", account.order),
    Route("GET", "/portfolio/orders/:order_id/queue_position", "GetQueuePosition", account.queue_position),
    Route("GET", "/portfolio/summary/total_resting_order_value", "GetRestingValue", account.resting_value),
    Route("GET", "/portfolio/subaccounts/balances", "GetSubaccountBalances", money.subaccount_balances),
    Route("GET", "/portfolio/subaccounts/netting", "GetSubaccountNetting", money.subaccount_netting),
    Route("GET", "/portfolio/subaccounts/transfers", "GetTransfers", money.transfers),
    Route("GET", "/portfolio/deposits", "GetDeposits", money.deposits),
    Route("GET", "/portfolio/withdrawals", "GetWithdrawals", money.withdrawals),
    Route("POST", "/portfolio/subaccounts", "CreateSubaccount", money.create_subaccount),
    Route("PUT", "/portfolio/subaccounts/netting", "UpdateSubaccountNetting", money.set_netting),
    Route("POST", "/portfolio/subaccounts/transfer", "ApplySubaccountTransfer", money.transfer),
    Route("POST", _SHARDS, "IntraExchangeInstanceTransfer", money.shard_transfer),
    Route("GET", f"{_SHARDS}s", "GetIntraExchangeInstanceTransfers", money.shard_transfers),
    Route("GET", f"{_SHARDS}s/:transfer_id", "GetIntraExchangeInstanceTransfer", money.get_shard_transfer),
    Route("GET", _ALLOCATION, "GetTargetBalanceAllocation", money.target_allocation),
    Route("POST", _ALLOCATION, "SetTargetBalanceAllocation", money.set_target_allocation),
    Route("POST", _ORDERS, "CreateOrderV2", orders.create),
    Route("DELETE", _ORDERS, "CancelAllOrders", orders.cancel_all),
    Route("POST", f"{_ORDERS}/batched", "BatchCreateOrdersV2", orders.batch_create),
    Route("DELETE", f"{_ORDERS}/batched", "BatchCancelOrdersV2", orders.batch_cancel),
    Route("DELETE", f"{_ORDERS}/:order_id", "CancelOrderV2", orders.cancel),
    Route("POST", f"{_ORDERS}/:order_id/amend", "AmendOrderV2", orders.amend),
    Route("POST", f"{_ORDERS}/:order_id/decrease", "DecreaseOrderV2", orders.decrease),
    Route("POST", _LEGACY, "CreateOrder", orders.legacy_write),
    Route("POST", f"{_LEGACY}/batched", "BatchCreateOrders", orders.legacy_write),
    Route("DELETE", f"{_LEGACY}/batched", "BatchCancelOrders", orders.legacy_write),
    Route("DELETE", f"{_LEGACY}/:order_id", "CancelOrder", orders.legacy_write),
    Route("POST", f"{_LEGACY}/:order_id/amend", "AmendOrder", orders.legacy_write),
    Route("POST", f"{_LEGACY}/:order_id/decrease", "DecreaseOrder", orders.legacy_write),
    Route("POST", f"{_GROUPS}/create", "CreateOrderGroup", orders.create_group),
    Route("GET", _GROUPS, "GetOrderGroups", orders.groups),
    Route("GET", f"{_GROUPS}/:order_group_id", "GetOrderGroup", orders.group),
    Route("PUT", f"{_GROUPS}/:order_group_id/reset", "ResetOrderGroup", orders.reset_group),
    Route("PUT", f"{_GROUPS}/:order_group_id/trigger", "TriggerOrderGroup", orders.trigger_group),
    Route("PUT", f"{_GROUPS}/:order_group_id/limit", "UpdateOrderGroupLimit", orders.limit_group),
    Route("DELETE", f"{_GROUPS}/:order_group_id", "DeleteOrderGroup", orders.delete_group),
)


@attrs.frozen
class Match:
    """Where a request belongs: its route and path parameters, or the methods that the path would take."""

    route: Route | None
    path: dict[str, str]
    allowed: tuple[str, ...]


_BY_LENGTH: Final[dict[int, list[tuple[tuple[str, ...], Route]]]] = {}
for _route in ROUTES:
    _parts = tuple(_route.template.strip("/").split("/"))
    _BY_LENGTH.setdefault(len(_parts), []).append((_parts, _route))


def find(method: str, path: str) -> Match:
    """The operation for a path below the prefix. Literal parts win over parameters, whatever the order above."""
    parts = path.strip("/").split("/")
    best: tuple[int, Route, dict[str, str]] | None = None
    allowed: list[str] = []
    for template, route in _BY_LENGTH.get(len(parts), []):
        found = _match(template, parts)
        if found is None:
            continue
        if route.method != method:
            allowed.append(route.method)
        elif best is None or len(found) < best[0]:
            best = (len(found), route, found)
    if best is None:
        return Match(None, {}, tuple(sorted(set(allowed))))
    return Match(best[1], best[2], ())


def _match(template: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for wanted, part in zip(template, parts, strict=True):
        if wanted.startswith(":"):
            if not part:
                return None
            found[wanted[1:]] = part
        elif wanted != part:
            return None
    return found

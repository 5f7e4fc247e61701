"""Which call of the venue's interface stands behind each method of the port, so that its cost can be asked.

`RateLimits.costs` is keyed by these values. The venue writes path templates with its prefix and with its own names of
parameters (`/trade-api/v2/portfolio/events/orders/:order_id`); here the prefix is left out and every parameter is `:id`.
A method that pages costs its call once a page; `CANCEL_BATCH` costs its call once an order in it.
"""

import re
from typing import Final

Endpoint = tuple[str, str]
"""(METHOD, path template)."""

SERIES: Final[Endpoint] = ("GET", "/series/:id")
EVENT: Final[Endpoint] = ("GET", "/events/:id")
EVENT_LIVE_DATA: Final[Endpoint] = ("GET", "/live_data/events/:id")
SERIES_LIST: Final[Endpoint] = ("GET", "/series")
INCENTIVES: Final[Endpoint] = ("GET", "/incentive_programs")
MARKETS: Final[Endpoint] = ("GET", "/markets")
STATUS: Final[Endpoint] = ("GET", "/exchange/status")
USER_DATA_TIMESTAMP: Final[Endpoint] = ("GET", "/exchange/user_data_timestamp")
LIMITS: Final[Endpoint] = ("GET", "/account/limits")
ENDPOINT_COSTS: Final[Endpoint] = ("GET", "/account/endpoint_costs")
BALANCE: Final[Endpoint] = ("GET", "/portfolio/balance")
POSITIONS: Final[Endpoint] = ("GET", "/portfolio/positions")
FILLS: Final[Endpoint] = ("GET", "/portfolio/fills")
ORDERS: Final[Endpoint] = ("GET", "/portfolio/orders")
ORDER: Final[Endpoint] = ("GET", "/portfolio/orders/:id")
SETTLEMENTS: Final[Endpoint] = ("GET", "/portfolio/settlements")
GROUPS: Final[Endpoint] = ("GET", "/portfolio/order_groups")

PLACE: Final[Endpoint] = ("POST", "/portfolio/events/orders")
AMEND: Final[Endpoint] = ("POST", "/portfolio/events/orders/:id/amend")
DECREASE: Final[Endpoint] = ("POST", "/portfolio/events/orders/:id/decrease")
CANCEL: Final[Endpoint] = ("DELETE", "/portfolio/events/orders/:id")
CANCEL_BATCH: Final[Endpoint] = ("DELETE", "/portfolio/events/orders/batched")
CREATE_GROUP: Final[Endpoint] = ("POST", "/portfolio/order_groups/create")
TRIGGER_GROUP: Final[Endpoint] = ("PUT", "/portfolio/order_groups/:id/trigger")
DELETE_GROUP: Final[Endpoint] = ("DELETE", "/portfolio/order_groups/:id")

CALLS: Final[dict[str, tuple[Endpoint, ...]]] = {
    "series": (SERIES,),
    "event": (EVENT,),
    "game": (EVENT_LIVE_DATA,),
    "markets": (MARKETS,),
    "open_markets_page": (MARKETS,),
    "all_series": (SERIES_LIST,),
    "incentives_page": (INCENTIVES,),
    "status": (STATUS,),
    "user_data_age": (USER_DATA_TIMESTAMP,),
    "limits": (LIMITS, ENDPOINT_COSTS),
    "balance": (BALANCE,),
    "positions": (POSITIONS,),
    "fills_page": (FILLS,),
    "orders_page": (ORDERS,),
    "order": (ORDER,),
    "settlements_page": (SETTLEMENTS,),
    "groups": (GROUPS,),
    "place": (PLACE,),
    "amend": (AMEND,),
    "decrease": (DECREASE,),
    "cancel": (CANCEL,),
    "cancel_batch": (CANCEL_BATCH,),
    "create_group": (CREATE_GROUP,),
    "trigger_group": (TRIGGER_GROUP,),
    "delete_group": (DELETE_GROUP,),
}
"""Port method -> the calls it makes."""

_PREFIX: Final = re.compile(r"^/trade-api/v\d+", re.ASCII)
_PARAMETER: Final = re.compile(r"/(?::[^/]+|\{[^/]+\}|\*[^/]*)", re.ASCII)


def canonical(method: str, path: str) -> Endpoint:
    """The venue's way of writing a call as one of the values above: no prefix, every parameter `:id`."""
    return method.upper(), _PARAMETER.sub("/:id", _PREFIX.sub("", path))

"""Order writes: create, amend, decrease, cancel, batches, cancel-all; and order groups. Legacy writes are gone."""

from typing import Final

from mm.domain.numbers import CONTRACT, SECOND, Count, Micros
from mm.domain.order import (
    ClientOrderId,
    GroupId,
    MarketTicker,
    OrderId,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from mm.exchange.embedded.core.model import AmendRequest, OrderRequest, WriteResult, split_account
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.errors import ApiError, BodyError, not_found
from mm.exchange.embedded.server.fields import Body, invalid
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.limits import UNSCOPED
from mm.exchange.embedded.server.service import Call, Json, Service

_SIDES: Final = tuple(side.value for side in Side)
_TIMES: Final = tuple(word.value for word in TimeInForce)
_STPS: Final = tuple(word.value for word in SelfTradePrevention)
_FAR: Final = 10**11
_MAX_LIMIT: Final = 1_000_000


def refusal(refused: Refused) -> ApiError:
    """What the core refused, in the words of the wire: the message is the code in plain words unless it says more."""
    message = None if refused.message == refused.code else refused.message
    return ApiError(refused.status, refused.code, message=message, details=refused.details or "")


def _account_of(call: Call, body: Body) -> str:
    """The account that a body names with its `subaccount`."""
    return call.account(body.integer("subaccount", lowest=0, highest=63))


def _shard_of(body: Body) -> int | None:
    """The shard a body names; None asks for routing by ticker."""
    index = body.integer("exchange_index", lowest=-1, highest=1_000)
    return None if index == -1 else index


# --- create ----------------------------------------------------------------------------------------------------------


def _order_request(body: Body) -> OrderRequest:
    expires = body.integer("expiration_time", lowest=0, highest=_FAR)
    group_id = body.text("order_group_id")
    client_order_id = body.client_order_id()
    return OrderRequest(
        ticker=MarketTicker(body.need_text("ticker")),
        side=Side(body.word("side", _SIDES)),
        count=body.need_count("count"),
        price=body.need_price("price"),
        time_in_force=TimeInForce(body.word("time_in_force", _TIMES)),
        self_trade_prevention=SelfTradePrevention(body.word("self_trade_prevention_type", _STPS)),
        client_order_id=None if client_order_id is None else ClientOrderId(client_order_id),
        expires_at=Micros(expires * SECOND) if expires else None,
        post_only=body.flag("post_only"),
        reduce_only=body.flag("reduce_only"),
        cancel_on_pause=body.flag("cancel_order_on_pause"),
        group_id=None if group_id is None else GroupId(group_id),
        exchange_index=_shard_of(body),
    )


def create(call: Call) -> Response:
    """`POST /portfolio/events/orders`."""
    body = call.body("CreateOrderV2Request")
    request, account = _order_request(body), _account_of(call, body)
    call.pay_write(shard=request.exchange_index)
    result = call.core.create(call.now, account, request)
    return Response.json(201, wire.create_ack(result))


def _batch(call: Call, struct: str, item_struct: str) -> list[Body]:
    """The items of a batch; one that does not decode spoils the whole, as a decoder would have it."""
    items = call.body(struct).items("orders")
    return [Body.from_value(item, item_struct) for item in items]


def batch_create(call: Call) -> Response:
    """`POST /portfolio/events/orders/batched`: 201 whatever became of the items."""
    bodies = _batch(call, "BatchCreateOrdersV2Request", "CreateOrderV2Request")
    requests: list[tuple[str, OrderRequest] | ApiError] = []
    for body in bodies:
        try:
            requests.append((_account_of(call, body), _order_request(body)))
        except BodyError:
            raise
        except ApiError as error:
            requests.append(error)
    call.pay_write(items=len(bodies))
    results: list[Json] = []
    for body, request in zip(bodies, requests, strict=True):
        try:
            if isinstance(request, ApiError):
                raise request
            account, order = request
            results.append(wire.create_ack(call.core.create(call.now, account, order)))
        except Refused as refused:
            results.append(_failed_create(body, refusal(refused)))
        except ApiError as error:
            results.append(_failed_create(body, error))
    return Response.json(201, {"orders": results})


def _failed_create(body: Body, error: ApiError) -> Json:
    found: Json = {"error": error.content}
    client_order_id = body.values.get("client_order_id")
    if isinstance(client_order_id, str) and client_order_id:
        found["client_order_id"] = client_order_id
    return found


# --- cancel ----------------------------------------------------------------------------------------------------------


def _cancel_shard(service: Service, index: int | None, ticker: str | None) -> int:
    """Where a cancel looks: the shard it names, else the market's, else shard 0."""
    if index is not None and index >= 0:
        return index
    if ticker is None:
        return 0
    state = service.core.markets().get(MarketTicker(ticker))
    if state is None:
        raise not_found()
    return state.exchange_index


def cancel(call: Call) -> Response:
    """`DELETE /portfolio/events/orders/{order_id}`."""
    index, ticker = call.query.exchange_index(), call.query.text("market_ticker")
    account = call.account(call.query.subaccount())
    is_routed = ticker is not None and (index is None or index < 0)
    call.pay_write(shard=None if is_routed else max(index or 0, 0))
    shard = _cancel_shard(call.service, index, ticker)
    result = call.core.cancel(call.now, account, OrderId(call.path["order_id"]), exchange_index=shard)
    return call.ok(_cancel_ack(call, result))


def _cancel_ack(call: Call, result: WriteResult) -> Json:
    return wire.cancel_ack(result, with_client_order_id=call.core.rules.cancel_names_client_order_id)


def batch_cancel(call: Call) -> Response:
    """`DELETE /portfolio/events/orders/batched`: 200 whatever became of the items."""
    bodies = _batch(call, "BatchCancelOrdersV2Request", "BatchCancelOrdersV2RequestOrder")
    wanted = [
        (
            body.need_text("order_id"),
            body.integer("subaccount", lowest=0, highest=63),
            body.integer("exchange_index", lowest=-1, highest=1_000),
            body.text("market_ticker"),
        )
        for body in bodies
    ]
    call.pay_write(items=len(bodies))
    results: list[Json] = []
    for order_id, subaccount, index, ticker in wanted:
        try:
            account = call.account(subaccount)
            shard = _cancel_shard(call.service, index, ticker)
            result = call.core.cancel(call.now, account, OrderId(order_id), exchange_index=shard)
            results.append(_cancel_ack(call, result))
        except Refused as refused:
            results.append(_failed_cancel(order_id, refusal(refused)))
        except ApiError as error:
            results.append(_failed_cancel(order_id, error))
    return call.ok({"orders": results})


def _failed_cancel(order_id: str, error: ApiError) -> Json:
    return {"order_id": order_id, "reduced_by": "0.00", "error": error.content}


def cancel_all(call: Call) -> Response:
    """`DELETE /portfolio/events/orders`: every order on every shard, for practically the whole write bucket."""
    accounts = call.accounts(call.query.subaccount())
    call.pay_write(tokens=call.service.budget(call.user_id).cancel_all_cost)
    for account in accounts:
        call.core.cancel_all(call.now, account)
    return Response(status=204)


# --- amend and decrease ----------------------------------------------------------------------------------------------


def amend(call: Call) -> Response:
    """`POST /portfolio/events/orders/{order_id}/amend`."""
    body = call.body("AmendOrderV2Request")
    account = call.account(call.query.subaccount())
    expires = body.integer("expiration_time", lowest=0, highest=_FAR)
    updated = body.client_order_id("updated_client_order_id")
    shard = _shard_of(body)
    request = AmendRequest(
        ticker=MarketTicker(body.need_text("ticker")),
        side=Side(body.word("side", _SIDES)),
        price=body.need_price("price"),
        count=body.need_count("count"),
        updated_client_order_id=None if updated is None else ClientOrderId(updated),
        expires_at=None if expires is None else Micros(expires * SECOND),
    )
    call.pay_write(shard=shard)
    result = call.core.amend(call.now, account, OrderId(call.path["order_id"]), request, exchange_index=shard)
    return call.ok(wire.amend_ack(result))


def decrease(call: Call) -> Response:
    """`POST /portfolio/events/orders/{order_id}/decrease`: exactly one of `reduce_by` and `reduce_to`."""
    body = call.body("DecreaseOrderV2Request")
    account = call.account(call.query.subaccount())
    by, to = body.count("reduce_by"), body.count("reduce_to", may_be_zero=True)
    if (by is None) == (to is None):
        raise invalid("exactly one of reduce_by and reduce_to is needed")
    index, ticker = body.integer("exchange_index", lowest=-1, highest=1_000), body.text("market_ticker")
    is_routed = ticker is not None and (index is None or index < 0)
    call.pay_write(shard=None if is_routed else max(index or 0, 0))
    shard = _cancel_shard(call.service, index, ticker)
    result = call.core.decrease(
        call.now,
        account,
        OrderId(call.path["order_id"]),
        reduce_by=by,
        reduce_to=to,
        exchange_index=shard,
    )
    return call.ok(wire.decrease_ack(result))


def legacy_write(call: Call) -> Response:
    """The old `/portfolio/orders` writes: 410 since June 2026."""
    del call
    raise ApiError(410, "deprecated_v1_order_endpoint")


# --- groups ----------------------------------------------------------------------------------------------------------


def _group_limit(body: Body) -> Count:
    whole = body.integer("contracts_limit", lowest=1, highest=_MAX_LIMIT)
    exact = body.count("contracts_limit_fp")
    if whole is None and exact is None:
        raise invalid("contracts_limit or contracts_limit_fp is required")
    if whole is not None and exact is not None and exact != whole * CONTRACT:
        raise invalid("contracts_limit and contracts_limit_fp do not match")
    limit = Count(whole * CONTRACT) if whole is not None else exact
    assert limit is not None
    if not CONTRACT <= limit <= _MAX_LIMIT * CONTRACT:
        raise invalid(f"the limit must be between 1 and {_MAX_LIMIT} contracts")
    return limit


def create_group(call: Call) -> Response:
    """`POST /portfolio/order_groups/create`."""
    body = call.body("CreateOrderGroupRequest")
    account = _account_of(call, body)
    limit, shard = _group_limit(body), max(_shard_of(body) or 0, 0)
    call.pay_write(shard=shard)
    group = call.core.create_group(call.now, account, contracts_limit=limit, exchange_index=shard)
    return Response.json(
        201,
        {
            "order_group_id": group.group_id,
            "subaccount": split_account(account)[1],
            "exchange_index": group.exchange_index,
        },
    )


def groups(call: Call) -> Response:
    """`GET /portfolio/order_groups`."""
    found = [one for account in call.accounts(call.query.subaccount()) for one in call.core.groups(account)]
    return call.ok({"order_groups": [wire.group(record) for record in found]})


def group(call: Call) -> Response:
    """`GET /portfolio/order_groups/{order_group_id}`."""
    found = call.core.group(call.account(call.query.subaccount()), GroupId(call.path["order_group_id"]))
    if found is None:
        raise not_found()
    return call.ok(wire.group_details(found))


def _group_target(call: Call) -> tuple[str, GroupId, int | None]:
    """The account and group of a write and the shard it names; pays for the call."""
    account = call.account(call.query.subaccount())
    index = call.query.exchange_index()
    shard = None if index is None or index < 0 else index
    call.pay_write(shard=shard or UNSCOPED)
    return account, GroupId(call.path["order_group_id"]), shard


def reset_group(call: Call) -> Response:
    """`PUT /portfolio/order_groups/{order_group_id}/reset`. No body, an empty one and `{}` are all fine."""
    account, group_id, shard = _group_target(call)
    call.core.reset_group(call.now, account, group_id, exchange_index=shard)
    return call.ok({})


def trigger_group(call: Call) -> Response:
    """`PUT /portfolio/order_groups/{order_group_id}/trigger`."""
    account, group_id, shard = _group_target(call)
    call.core.trigger_group(call.now, account, group_id, exchange_index=shard)
    return call.ok({})


def limit_group(call: Call) -> Response:
    """`PUT /portfolio/order_groups/{order_group_id}/limit`."""
    limit = _group_limit(call.body("UpdateOrderGroupLimitRequest"))
    account, group_id, shard = _group_target(call)
    call.core.set_group_limit(call.now, account, group_id, limit, exchange_index=shard)
    return call.ok({})


def delete_group(call: Call) -> Response:
    """`DELETE /portfolio/order_groups/{order_group_id}`."""
    account, group_id, shard = _group_target(call)
    call.core.delete_group(call.now, account, group_id, exchange_index=shard)
    return call.ok({})

"""The member's keys, tier and limits."""

from typing import Final

from mm.domain.numbers import CONTRACT, SECOND, Count
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.auth import ApiKey, PublicKey, private_pem, public_pem
from mm.exchange.embedded.server.errors import ApiError, not_found
from mm.exchange.embedded.server.fields import Body, invalid
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.limits import TIERS
from mm.exchange.embedded.server.service import Call, Json

SCOPES: Final = (
    "read",
    "write",
    "read::block_trade_accept",
    "read::portfolio_balance",
    "write::trade",
    "write::transfer",
    "write::fcm_risk",
    "write::block_trade_accept",
)
_YEAR: Final = 365 * 86_400 * SECOND
_GOALS: Final = {"expert": 1_000_000, "premier": 5_000_000, "paragon": 20_000_000}
"""Contracts in 30 days that would earn a tier: made up, the real numbers are not published."""


def limits(call: Call) -> Response:
    """`GET /account/limits`."""
    return call.ok(call.service.budget(call.user_id).as_limits())


def upgrade(call: Call) -> Response:
    """`POST /account/api_usage_level/upgrade`: Advanced for ever, for whoever has placed an order by API."""
    call.pay_write()
    if not any(call.core.orders(account, limit=1).items for account in call.accounts(None)):
        raise ApiError(403, "forbidden", details="no API order among the last 100")
    call.service.budget(call.user_id).grant("advanced")
    return Response.json(201, {})


def volume_progress(call: Call) -> Response:
    """`GET /account/api_usage_level/volume_progress`: contracts traded since the start."""
    traded = sum(
        view.volume
        for account in call.accounts(None)
        for view in call.core.positions(account, is_settled=None)
    )
    goals: list[Json] = [
        {
            "level": level,
            "earn_volume_goal_fp": wire.count_text(Count(goal * CONTRACT)),
            "keep_volume_goal_fp": wire.count_text(Count(goal // 2 * CONTRACT)),
        }
        for level, goal in _GOALS.items()
        if level in TIERS
    ]
    progress: Json = {
        "computed_ts": call.now // SECOND,
        "trailing_30d_volume_fp": wire.count_text(Count(traded)),
        "goals": goals,
    }
    return call.ok({"volume_progress": [progress]})


# --- keys ------------------------------------------------------------------------------------------------------------


def api_keys(call: Call) -> Response:
    """`GET /api_keys`: the member's keys, and when their location attestation ends."""
    expires = call.service.region_expires_at
    return call.ok(
        {
            "api_keys": [_key_json(key) for key in call.service.auth.keys_of(call.user_id)],
            "api_key_region_expiration_ts": (call.now + _YEAR if expires is None else expires) // SECOND,
        }
    )


def _key_json(key: ApiKey) -> Json:
    found: Json = {"api_key_id": key.key_id, "name": key.name, "scopes": list(key.scopes)}
    if key.subaccount is not None:
        found["subaccount"] = key.subaccount
    return found


def create_key(call: Call) -> Response:
    """`POST /api_keys`: a key whose private half the member holds."""
    body = call.body("CreateApiKeyRequest")
    try:
        public_key = public_pem(body.need_text("public_key"))
    except ValueError as error:
        raise invalid(f"public_key: {error}") from None
    return Response.json(201, {"api_key_id": _add(call, body, public_key)})


def generate_key(call: Call) -> Response:
    """`POST /api_keys/generate`: a key of ours; the private half is in the answer and nowhere else."""
    body = call.body("GenerateApiKeyRequest")
    kind = body.text("key_type") or "rsa"
    if kind not in ("rsa", "ed25519"):
        raise invalid("key_type must be rsa or ed25519")
    _check_key(call, body)
    pem, public_key = private_pem(kind)
    key_id = _add(call, body, public_key)
    return Response.json(201, {"api_key_id": key_id, "key_type": kind, "private_key": pem})


def _check_key(call: Call, body: Body) -> tuple[str, tuple[str, ...], int | None]:
    """Name, scopes and subaccount of a new key."""
    scopes = body.values.get("scopes") or ["read", "write"]
    if not isinstance(scopes, list) or not all(scope in SCOPES for scope in scopes):
        raise invalid(f"scopes must be some of {', '.join(SCOPES)}")
    if "write" in scopes and "read" not in scopes:
        raise invalid("write needs read too")
    subaccount = body.integer("subaccount", lowest=0, highest=63)
    call.account(subaccount)
    return body.need_text("name"), tuple(scopes), subaccount


def _add(call: Call, body: Body, public_key: PublicKey) -> str:
    name, scopes, subaccount = _check_key(call, body)
    call.pay_write()
    key = ApiKey(
        key_id=call.service.new_id(),
        user_id=call.user_id,
        public_key=public_key,
        name=name,
        scopes=scopes,
        subaccount=subaccount,
    )
    call.service.auth.add(key)
    return key.key_id


def delete_key(call: Call) -> Response:
    """`DELETE /api_keys/{api_key}`: 204."""
    key = call.service.auth.keys.get(call.path["api_key"])
    if key is None or key.user_id != call.user_id:
        raise not_found()
    call.pay_write()
    call.service.auth.remove(key.key_id)
    return Response(status=204)

"""Where the money is and where it goes: subaccounts, transfers between them and between shards, deposits."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from mm.domain.numbers import CENT, SECOND, Micros, Money
from mm.exchange.embedded.core.model import account_id
from mm.exchange.embedded.server import wire
from mm.exchange.embedded.server.errors import ApiError, not_found
from mm.exchange.embedded.server.fields import Body, invalid
from mm.exchange.embedded.server.http import Response
from mm.exchange.embedded.server.paging import page_by_key
from mm.exchange.embedded.server.service import Allocation, Call, CashMove, Json

MAX_SUBACCOUNT: Final = 63
_CENT: Final = 100 * CENT
_CENTICENT: Final = 100
"""In `Money`."""
_INSTANCES: Final = ("event_contract", "margined")
_RESERVATIONS: Final = ("none", "max", "sum")
_MOST: Final = 10**15


# --- subaccounts -----------------------------------------------------------------------------------------------------


def create_subaccount(call: Call) -> Response:
    """`POST /portfolio/subaccounts`: the next free number."""
    call.body("CreateSubaccountRequest", may_be_empty=True)
    call.pay_write()
    number = call.core.subaccounts(call.user_id)[-1] + 1
    if number > MAX_SUBACCOUNT:
        raise invalid(f"no more than {MAX_SUBACCOUNT} subaccounts")
    user = call.core.add_subaccount(call.user_id, number)
    for view in call.core.balances(call.user_id):
        # An account on every shard where the member has one, empty.
        call.core.deposit(call.now, user.user_id, view.exchange_index, Money(0))
        call.service.reads.note_balance(call.core, call.now, user.user_id)
    return Response.json(201, {"subaccount_number": number})


def subaccount_balances(call: Call) -> Response:
    """`GET /portfolio/subaccounts/balances`: every account on every shard."""
    items: list[Json] = [
        {
            "subaccount_number": number,
            "exchange_index": view.exchange_index,
            "balance": wire.balance_text(view.available),
            "updated_ts": call.now // SECOND,
        }
        for number in call.core.subaccounts(call.user_id)
        for view in call.service.reads.balances(call.core, call.now, account_id(call.user_id, number))
    ]
    return call.ok({"subaccount_balances": items})


def subaccount_netting(call: Call) -> Response:
    """`GET /portfolio/subaccounts/netting`."""
    users = call.core.users()
    configs: list[Json] = [
        {
            "subaccount_number": number,
            "enabled": users[account_id(call.user_id, number)].is_netting,
            "exchange_index": shard,
        }
        for number in call.core.subaccounts(call.user_id)
        for shard in call.service.shard_numbers()
    ]
    return call.ok({"netting_configs": configs})


def set_netting(call: Call) -> Response:
    """`PUT /portfolio/subaccounts/netting`: 200. The contract names no body; a published client reads JSON."""
    body = call.body("UpdateSubaccountNettingRequest")
    number = body.integer("subaccount_number", lowest=0, highest=MAX_SUBACCOUNT)
    if number is None or "enabled" not in body.values:
        raise invalid("subaccount_number and enabled are required")
    account, is_netting = call.account(number), body.flag("enabled")
    call.pay_write()
    call.core.set_netting(call.now, account, is_netting=is_netting)
    return call.ok({})


def transfer(call: Call) -> Response:
    """`POST /portfolio/subaccounts/transfer`: cents between two accounts, on one shard."""
    body = call.body("ApplySubaccountTransferRequest")
    transfer_id = _transfer_id(body, required=True)
    numbers = [_need_integer(body, f"{end}_subaccount", MAX_SUBACCOUNT) for end in ("from", "to")]
    amount = _need_integer(body, "amount_cents", _MOST)
    shard = body.integer("exchange_index", lowest=0, highest=100) or 0
    source, destination = (call.account(number) for number in numbers)
    if not amount or source == destination:
        raise invalid("a transfer moves something to somewhere else")
    call.pay_write()
    if not _is_known(call, transfer_id):
        money = Money(amount * _CENT)
        _move(call, (source, shard), (destination, shard), money)
        call.service.cash_moves.append(
            CashMove(
                move_id=transfer_id,
                user_id=call.user_id,
                kind="subaccount",
                amount=money,
                ts=call.now,
                source=numbers[0],
                destination=numbers[1],
                exchange_index=shard,
            )
        )
    return call.ok({})


def transfers(call: Call) -> Response:
    """`GET /portfolio/subaccounts/transfers`, newest first."""
    return _listing(call, "transfers", _moves(call, "subaccount"), _transfer_json)


def _transfer_json(move: CashMove) -> Json:
    return {
        "transfer_id": move.move_id,
        "from_subaccount": move.source,
        "to_subaccount": move.destination,
        "amount_cents": move.amount // _CENT,
        "created_ts": move.ts // SECOND,
        "exchange_index": move.exchange_index,
    }


# --- shards ----------------------------------------------------------------------------------------------------------


def shard_transfer(call: Call) -> Response:
    """`POST /portfolio/intra_exchange_instance_transfer`: centicents between shards. The same id moves only once."""
    body = call.body("IntraExchangeInstanceTransferRequest")
    transfer_id = _transfer_id(body, required=False) or call.service.new_id()
    for end in ("source", "destination"):
        if body.word(end, _INSTANCES) != "event_contract":
            raise ApiError(403, "forbidden", details="no margined account")
    amount = _need_integer(body, "amount", _MOST)
    shards = [
        body.integer(f"{e}_exchange_shard", lowest=0, highest=100) or 0 for e in ("source", "destination")
    ]
    accounts = [
        call.account(body.integer(f"{end}_subaccount", lowest=0, highest=MAX_SUBACCOUNT))
        for end in ("source", "destination")
    ]
    if not set(shards) <= set(call.service.shard_numbers()):
        raise invalid("no such shard")
    if not amount or (shards[0], accounts[0]) == (shards[1], accounts[1]):
        raise invalid("a transfer moves something to somewhere else")
    call.pay_write()
    if not _is_known(call, transfer_id):
        money = Money(amount * _CENTICENT)
        _move(call, (accounts[0], shards[0]), (accounts[1], shards[1]), money)
        call.service.cash_moves.append(
            CashMove(
                move_id=transfer_id,
                user_id=call.user_id,
                kind="shard",
                amount=money,
                ts=call.now,
                source=shards[0],
                destination=shards[1],
            )
        )
    return call.ok({"transfer_id": transfer_id})


def shard_transfers(call: Call) -> Response:
    """`GET /portfolio/intra_exchange_instance_transfers`, newest first."""
    return _listing(call, "transfers", _moves(call, "shard"), _shard_transfer_json)


def get_shard_transfer(call: Call) -> Response:
    """`GET /portfolio/intra_exchange_instance_transfers/{transfer_id}`."""
    for move in _moves(call, "shard"):
        if move.move_id == call.path["transfer_id"]:
            return call.ok({"transfer": _shard_transfer_json(move)})
    raise not_found()


def _shard_transfer_json(move: CashMove) -> Json:
    return {
        "transfer_id": move.move_id,
        "source": "event_contract",
        "destination": "event_contract",
        "source_exchange_shard": move.source,
        "destination_exchange_shard": move.destination,
        "amount": wire.balance_text(move.amount),
        "status": "complete",
        "created_ts": move.ts // SECOND,
    }


def target_allocation(call: Call) -> Response:
    """`GET /portfolio/target_balance_allocation`: empty until one is set."""
    found = call.service.allocations.get(call.user_id, Allocation(percents={}))
    return call.ok(
        {
            "allocations": [
                {"exchange_index": shard, "percent": percent} for shard, percent in found.percents.items()
            ],
            "resting_margin_reservation": found.reservation,
        }
    )


def set_target_allocation(call: Call) -> Response:
    """`POST /portfolio/target_balance_allocation`: percents that make 100; what is available is spread at once.

    Afterwards the money stays where trading leaves it: how often the real exchange rebalances is not established.
    """
    body = call.body("SetTargetBalanceAllocationRequest")
    items = [Body.from_value(item, "TargetBalanceAllocationInput") for item in body.items("allocations")]
    percents = {
        _need_integer(item, "exchange_index", 100): _need_integer(item, "percent", 100) for item in items
    }
    if len(percents) != len(items) or sum(percents.values()) != 100:
        raise invalid("the percents of different shards must make 100")
    if not set(percents) <= set(call.service.shard_numbers()):
        raise invalid("no such shard")
    reservation = body.text("resting_margin_reservation") or "none"
    if reservation not in _RESERVATIONS:
        raise invalid(f"resting_margin_reservation must be one of {', '.join(_RESERVATIONS)}")
    call.pay_write()
    call.service.allocations[call.user_id] = Allocation(percents=percents, reservation=reservation)
    _spread(call, percents)
    return call.ok({})


def _spread(call: Call, percents: dict[int, int]) -> None:
    available = {view.exchange_index: view.available for view in call.core.balances(call.user_id)}
    total = sum(available.values())
    wanted = {shard: total * percent // 100 for shard, percent in percents.items()}
    first = next(iter(percents))
    wanted[first] += total - sum(wanted.values())
    for shard in sorted(available.keys() | wanted.keys()):
        change = wanted.get(shard, 0) - available.get(shard, 0)
        call.core.deposit(call.now, call.user_id, shard, Money(change))
    call.service.reads.note_balance(call.core, call.now, call.user_id)


# --- in and out ------------------------------------------------------------------------------------------------------


def deposits(call: Call) -> Response:
    """`GET /portfolio/deposits`, newest first."""
    return _listing(call, "deposits", _moves(call, "deposit"), _cash_json)


def withdrawals(call: Call) -> Response:
    """`GET /portfolio/withdrawals`, newest first."""
    return _listing(call, "withdrawals", _moves(call, "withdrawal"), _cash_json)


def _cash_json(move: CashMove) -> Json:
    return {
        "id": move.move_id,
        "status": "applied",
        "type": "ach",
        "amount_cents": wire.cents(move.amount),
        "fee_cents": 0,
        "created_ts": move.ts // SECOND,
        "finalized_ts": move.ts // SECOND,
    }


# --- shared ----------------------------------------------------------------------------------------------------------


def _moves(call: Call, kind: str) -> list[CashMove]:
    moves = call.service.cash_moves
    return [move for move in reversed(moves) if move.kind == kind and move.user_id == call.user_id]


def _is_known(call: Call, transfer_id: str) -> bool:
    """A client's transfer id moves money once, however often it is sent."""
    return any(m.move_id == transfer_id and m.user_id == call.user_id for m in call.service.cash_moves)


def _listing(call: Call, name: str, moves: list[CashMove], shown: Callable[[CashMove], Json]) -> Response:
    limit = call.query.limit(default=100, highest=500)
    page, cursor = page_by_key(
        name, moves, lambda move: move.move_id, limit=limit, cursor=call.query.text("cursor")
    )
    return call.ok({name: [shown(move) for move in page], "cursor": cursor})


def _move(call: Call, source: tuple[str, int], destination: tuple[str, int], amount: Money) -> None:
    """Raises `Refused` when the source has not so much to spend; then nothing moved."""
    call.core.deposit(call.now, source[0], source[1], Money(-amount))
    call.core.deposit(call.now, destination[0], destination[1], amount)
    for account in (source[0], destination[0]):
        call.service.reads.note_balance(call.core, Micros(call.now), account)


def _need_integer(body: Body, name: str, highest: int) -> int:
    value = body.integer(name, lowest=0, highest=highest)
    if value is None:
        raise invalid(f"{name} is required")
    return value


def _transfer_id(body: Body, *, required: bool) -> str:
    text = body.need_text("client_transfer_id") if required else body.text("client_transfer_id")
    if text is None:
        return ""
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid("client_transfer_id is no UUID") from None

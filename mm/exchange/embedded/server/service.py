"""What every REST operation works on: the core, the clock, the users' budgets, and the data beside the core.

Also the `Call`: one request with its user, its parameters and its price.
"""

from collections.abc import Callable
from typing import Final, Protocol

import attrs

from mm.domain.numbers import SECOND, Micros, Money
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import IdSource, account_id, split_account
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server.auth import ApiKey, Authenticator
from mm.exchange.embedded.server.candles import CandleRecorder
from mm.exchange.embedded.server.errors import ApiError, TooManyRequests, not_found
from mm.exchange.embedded.server.fields import Body, Query
from mm.exchange.embedded.server.http import Request, Response
from mm.exchange.embedded.server.lag import LaggedReads
from mm.exchange.embedded.server.limits import DEFAULT_COST, ENDPOINT_COSTS, UNSCOPED, Budget

Json = dict[str, object]
_LIVE_WINDOW: Final = Micros(90 * 86_400 * SECOND)


class GameData(Protocol):
    """Milestones and live data, as the wire has them; a market source may offer them."""

    def milestones(self, now: Micros) -> list[Json]:
        """Milestone objects, oldest start first."""

    def live_data(self, now: Micros, milestone_id: str) -> Json | None:
        """`{"type", "details", "milestone_id"}`; None for an unknown milestone."""

    def game_stats(self, now: Micros, milestone_id: str) -> Json | None:
        """`{"pbp": ...}`; None for an unknown milestone."""

    def incentive_programs(self, now: Micros) -> list[Json]:
        """Incentive programs, oldest start first."""


class NoGameData:
    """For sources that have none."""

    def milestones(self, now: Micros) -> list[Json]:
        """None."""
        del now
        return []

    def live_data(self, now: Micros, milestone_id: str) -> Json | None:
        """None."""
        del now, milestone_id
        return None

    def game_stats(self, now: Micros, milestone_id: str) -> Json | None:
        """None."""
        del now, milestone_id
        return None

    def incentive_programs(self, now: Micros) -> list[Json]:
        """None."""
        del now
        return []


@attrs.frozen(kw_only=True)
class CashMove:
    """Money that came, went, or changed places. `kind` is `deposit`, `withdrawal`, `subaccount` or `shard`."""

    move_id: str
    user_id: str
    """The member."""
    kind: str
    amount: Money
    ts: Micros
    source: int = 0
    """The subaccount or the shard that it left."""
    destination: int = 0
    exchange_index: int = 0
    """The shard, for all but `shard`."""


@attrs.frozen(kw_only=True)
class Allocation:
    """How a member wants its funds spread over the shards: percents by shard, and the reservation's name."""

    percents: dict[int, int]
    reservation: str = "none"


@attrs.define(eq=False, kw_only=True)
class Service:
    """The exchange behind the wire."""

    core: ExchangeCore
    clock: Callable[[], Micros]
    candles: CandleRecorder
    reads: LaggedReads
    auth: Authenticator
    new_id: IdSource
    tier: str = "basic"
    games: GameData = attrs.field(factory=NoGameData)
    budgets: dict[str, Budget] = attrs.field(factory=dict)
    cash_moves: list[CashMove] = attrs.field(factory=list)
    """Of all members, oldest first."""
    allocations: dict[str, Allocation] = attrs.field(factory=dict)
    """By member; none until set."""
    archive_after: Micros | None = None
    """Age at which settled markets, trades and done orders move to the archive (`/historical`); None: never."""
    region_expires_at: Micros | None = None
    """When the location attestation of the keys ends; None: a year from now."""

    def budget(self, user_id: str) -> Budget:
        """The token budget of a user, made at the first use."""
        found = self.budgets.get(user_id)
        if found is None:
            found = self.budgets[user_id] = Budget(self.tier, self.clock)
        return found

    def cutoff(self, now: Micros) -> Micros:
        """What is older lies in the archive; with no archive, before everything there is."""
        return Micros(now - (_LIVE_WINDOW if self.archive_after is None else self.archive_after))

    def is_archived(self, now: Micros, state: MarketState) -> bool:
        """Whether a settled market is old enough to be found under `/historical` only."""
        return state.settled_at is not None and state.settled_at < self.cutoff(now)

    def move_cash(self, now: Micros, account: str, exchange_index: int, amount: Money) -> None:
        """A deposit, or with a negative amount a withdrawal. Raises `Refused` when the cash is not there."""
        self.core.deposit(now, account, exchange_index, amount)
        self.cash_moves.append(
            CashMove(
                move_id=self.new_id(),
                user_id=split_account(account)[0],
                kind="deposit" if amount >= 0 else "withdrawal",
                amount=Money(abs(amount)),
                ts=now,
                exchange_index=exchange_index,
            )
        )
        self.reads.note_balance(self.core, now, account)

    def shard_numbers(self) -> list[int]:
        """All shards."""
        return [shard.exchange_index for shard in self.core.shards()]

    def market(self, ticker: str) -> MarketState:
        """A market by ticker. Raises `ApiError` (404)."""
        found = self.core.markets().get(MarketTicker(ticker))
        if found is None:
            raise not_found()
        return found


@attrs.frozen(kw_only=True)
class Call:
    """One REST request on its way to an operation."""

    service: Service
    request: Request
    operation: str
    template: str
    """The path as cost tables write it, e.g. `/portfolio/orders/:order_id`."""
    path: dict[str, str]
    now: Micros
    key: ApiKey | None
    """None for an anonymous caller (public operations only)."""

    @property
    def user_id(self) -> str:
        """The member who asks; empty for nobody."""
        return "" if self.key is None else self.key.user_id

    @property
    def core(self) -> ExchangeCore:
        """The exchange."""
        return self.service.core

    @property
    def query(self) -> Query:
        """The query parameters."""
        return Query(self.operation, self.request)

    @property
    def cost(self) -> int:
        """Tokens of this call, or of one item of it when it is a batch."""
        return ENDPOINT_COSTS.get((self.request.method, self.template), DEFAULT_COST)

    def account(self, subaccount: int | None) -> str:
        """The core's user for one subaccount (None: the key's own, or 0). Raises `ApiError` when it may not act there."""
        found = self._account(subaccount)
        if found not in self.core.users():
            # What the real exchange says to an unknown one is not established.
            raise ApiError(400, "invalid_parameters", details="subaccount does not exist")
        return found

    def account_or_none(self, subaccount: int | None) -> list[str]:
        """The same for a read: none for a subaccount that does not exist, whose lists are empty."""
        found = self._account(subaccount)
        return [found] if found in self.core.users() else []

    def accounts(self, subaccount: int | None) -> list[str]:
        """The same for a listing where None means all of them that the key may see."""
        if subaccount is not None or (self.key is not None and self.key.subaccount is not None):
            return self.account_or_none(subaccount)
        return [account_id(self.user_id, number) for number in self.core.subaccounts(self.user_id)]

    def _account(self, subaccount: int | None) -> str:
        bound = None if self.key is None else self.key.subaccount
        number = (bound or 0) if subaccount is None else subaccount
        if bound is not None and number != bound:
            raise ApiError(403, "forbidden", details="the key is bound to another subaccount")
        return account_id(self.user_id, number)

    def body(self, struct: str, *, may_be_empty: bool = False) -> Body:
        """The decoded body. Raises `ApiError`."""
        return Body.of(self.request, struct, may_be_empty=may_be_empty)

    def pay_read(self) -> None:
        """Take the tokens of a read. Raises `TooManyRequests`. Anonymous callers have no published limit."""
        if self.user_id and not self.service.budget(self.user_id).spend_read(self.cost):
            raise TooManyRequests

    def pay_write(self, *, shard: int | None = UNSCOPED, items: int = 1, tokens: int | None = None) -> None:
        """Take the tokens of a write. `shard` None: routed by ticker, so every shard's bucket pays.

        Raises `TooManyRequests`; then nothing was taken.
        """
        shards = self.service.shard_numbers() if shard is None else [shard]
        amount = self.cost * items if tokens is None else tokens
        if not self.service.budget(self.user_id).spend_write(amount, shards):
            raise TooManyRequests

    def ok(self, content: object) -> Response:
        """200."""
        return Response.json(200, content)

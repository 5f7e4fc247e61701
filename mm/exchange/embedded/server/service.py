"""What every REST operation works on: the core, the clock, the users' budgets, and the data beside the core.

Also the `Call`: one request with its user, its parameters and its price.
"""

from collections.abc import Callable
from typing import Protocol

import attrs

from mm.domain.numbers import Micros
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server.candles import CandleRecorder
from mm.exchange.embedded.server.errors import TooManyRequests, not_found
from mm.exchange.embedded.server.fields import Body, Query
from mm.exchange.embedded.server.http import Request, Response
from mm.exchange.embedded.server.lag import LaggedReads
from mm.exchange.embedded.server.limits import DEFAULT_COST, ENDPOINT_COSTS, UNSCOPED, Budget

Json = dict[str, object]


class GameData(Protocol):
    """Milestones and live data, as the wire has them; a market source may offer them."""

    def milestones(self, now: Micros) -> list[Json]:
        """Milestone objects, oldest start first."""

    def live_data(self, now: Micros, milestone_id: str) -> Json | None:
        """`{"type", "details", "milestone_id"}`; None for an unknown milestone."""

    def game_stats(self, now: Micros, milestone_id: str) -> Json | None:
        """`{"pbp": ...}`; None for an unknown milestone."""


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


@attrs.define(eq=False, kw_only=True)
class Service:
    """The exchange behind the wire."""

    core: ExchangeCore
    clock: Callable[[], Micros]
    candles: CandleRecorder
    reads: LaggedReads
    tier: str = "basic"
    games: GameData = attrs.field(factory=NoGameData)
    keys_of: Callable[[str], list[str]] = lambda user_id: []
    """The key ids of a member."""
    budgets: dict[str, Budget] = attrs.field(factory=dict)

    def budget(self, user_id: str) -> Budget:
        """The token budget of a user, made at the first use."""
        found = self.budgets.get(user_id)
        if found is None:
            found = self.budgets[user_id] = Budget(self.tier, self.clock)
        return found

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
    user_id: str
    """Empty for an anonymous caller (public operations only)."""

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

"""The catalogue: what the whole venue lists, walked page by page within the read budget, and what of it is worth quoting.

Of some 80,000 open markets it keeps the few thousand worth most, each as the last look at it described it. A first walk is
made at once, later ones slowly, a page now and then; between them new markets come by a listing of what is newer than the
last look. Fees are read once a walk for all series, incentive programs too.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fees import FeeSchedule
from mm.domain.market import Market
from mm.domain.numbers import SECOND, Micros, Money
from mm.domain.order import MarketTicker
from mm.engine.parameters import StrategyParameters
from mm.engine.worth import HOUR, TokenCosts, Worth, estimate
from mm.exchange import endpoints
from mm.exchange.port import AuthError, Exchange, ExchangeError, RateLimits
from mm.tasks.budget import ReadBudget

log = structlog.get_logger(__name__)

WALK_EVERY_S: Final = 900.0
"""Between the beginnings of two walks."""
SLOW_PAGE_S: Final = 1.5
"""Between two pages of a later walk: 168 pages in four minutes, for 7 tokens a second."""
NEW_EVERY_S: Final = 30.0
"""Between two looks for new markets."""
OVERLAP: Final = 60 * SECOND
"""By so much two such looks overlap: the venue's clock is not ours."""
KEPT_PER_PLACE: Final = 4
LEAST_KEPT: Final = 1_000
"""Markets kept: so many for each that may be quoted, and at least so many."""
KEEP_READS: Final = 0.5
"""The first walk leaves this share of the read bucket to those who look after money."""
REWARD_SHARE: Final = 20
"""Of an incentive's pot we count on one part in so many: others rest there, too."""


AUTO_TTL_S: Final = 60
"""Taken for the time to live of a quote where it is chosen per market."""


def renewals_per_hour(ttl_s: int | None) -> int:
    """Of two quotes that are renewed at half of their life."""
    return 2 * 3_600 * 2 // (AUTO_TTL_S if ttl_s is None else ttl_s)


@attrs.define(eq=False, kw_only=True)
class Catalogue:
    """What is listed and worth looking at. `run` keeps it fresh; it may be read at any time."""

    exchange: Exchange
    reads: ReadBudget
    clock: Callable[[], Micros]
    parameters: Callable[[], StrategyParameters]
    limits: RateLimits
    renewals_per_hour: int = 240
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None
    markets: dict[MarketTicker, Market] = attrs.field(factory=dict)
    """Worth looking at, by ticker."""
    worth: dict[MarketTicker, Worth] = attrs.field(factory=dict)
    fees: dict[str, FeeSchedule] = attrs.field(factory=dict)
    """Series -> its fees; events may override them for a while, so an estimate may be off by that much."""
    rewards: dict[MarketTicker, Money] = attrs.field(factory=dict)
    """What programs may pay us an hour."""
    listed: int = 0
    """Open markets seen in the last whole walk."""
    walks: int = 0
    pages: int = 0
    _asked_new_at: Micros = Micros(0)
    _seen: set[MarketTicker] = attrs.field(factory=set)
    """Kept markets that the present walk has met."""
    _walked_at: float = 0.0
    _cursor: str | None = None
    """Of the page after the last one read."""

    @property
    def kept(self) -> int:
        """How many markets are kept at most."""
        return max(LEAST_KEPT, KEPT_PER_PLACE * self.parameters().max_markets_to_trade)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Walk for ever; `started()` after the first whole walk. Raises `AuthError`; other trouble is told and outlived."""
        delay = 0.5
        while True:
            try:
                if not self.walks or trio.current_time() - self._walked_at >= WALK_EVERY_S:
                    await self.walk()
                    if self.walks == 1:
                        task_status.started()
                else:
                    await self.look_for_new()
                delay = 0.5
            except AuthError:
                raise
            except ExchangeError as exc:
                self.on_problem("catalogue", exc)
                await trio.sleep(delay)
                delay = min(2 * delay, 30.0)
                continue
            await trio.sleep(NEW_EVERY_S)

    async def walk(self) -> None:
        """Every open market once. Raises `ExchangeError`; what was read until then is kept."""
        begun, started = self.clock(), trio.current_time()
        await self._read_fees()
        await self._read_rewards()
        self._seen, seen, cursor, cursors = set(), 0, None, set[str]()
        while True:
            page = await self._page(None, cursor)
            seen += len(page)
            self.add(page)
            cursor = self._cursor
            if cursor is None or cursor in cursors:  # a garbage cursor answers the first page for ever
                break
            cursors.add(cursor)
        self._forget_unseen()
        self.walks += 1
        self.listed = seen
        self._walked_at, self._asked_new_at = started, begun
        log.info("venue walked", markets=seen, kept=len(self.markets), pages=self.pages)

    async def look_for_new(self) -> None:
        """What was listed since the last look. Raises `ExchangeError`."""
        since, begun = Micros(self._asked_new_at - OVERLAP), self.clock()
        cursor: str | None = None
        cursors = set[str]()
        while True:
            self.add(await self._page(since, cursor))
            cursor = self._cursor
            if cursor is None or cursor in cursors:
                break
            cursors.add(cursor)
        self._asked_new_at = begun

    def add(self, markets: Iterable[Market]) -> None:
        """Estimate these and keep what is worth it."""
        now, parameters, costs = self.clock(), self.parameters(), self._costs()
        for market in markets:
            ticker = market.ticker
            worth = estimate(
                market,
                self.fees.get(market.series_ticker),
                self.rewards.get(ticker, Money(0)),
                now,
                parameters,
                costs,
            )
            if worth.why_not:
                self._drop(ticker)
                continue
            self.markets[ticker], self.worth[ticker] = market, worth
            self._seen.add(ticker)
        if len(self.markets) > 2 * self.kept:
            self._prune()

    def best(self) -> list[MarketTicker]:
        """All that is kept, what is worth most first."""
        return sorted(self.worth, key=lambda t: (-self.worth[t].per_token, t))

    # --- inside ---

    async def _page(self, created_since: Micros | None, cursor: str | None) -> list[Market]:
        cost = self.limits.cost(*endpoints.MARKETS)
        if self.walks and cursor is not None:
            await trio.sleep(SLOW_PAGE_S * self.reads.stretch())
        await self.reads.take(cost, keep=KEEP_READS * self.limits.read.capacity)
        page = await self.exchange.open_markets_page(created_since=created_since, cursor=cursor)
        self.pages += 1
        self._cursor = page.cursor
        return page.items

    async def _read_fees(self) -> None:
        await self.reads.take(self.limits.cost(*endpoints.SERIES_LIST))
        found = await self.exchange.all_series()
        self.fees = {s.ticker: FeeSchedule(s.fee_type, s.fee_multiplier) for s in found}

    async def _read_rewards(self) -> None:
        rewards: dict[MarketTicker, Money] = {}
        now, cursor, cursors = self.clock(), None, set[str]()
        while True:
            await self.reads.take(self.limits.cost(*endpoints.INCENTIVES))
            page = await self.exchange.incentives_page(cursor=cursor)
            for program in page.items:
                if not program.is_liquidity or not program.starts_at <= now < program.ends_at:
                    continue
                ours = program.reward // REWARD_SHARE
                if program.most is not None:
                    ours = min(ours, program.most)
                per_hour = ours * HOUR // (program.ends_at - program.starts_at)
                rewards[program.ticker] = Money(rewards.get(program.ticker, 0) + per_hour)
            cursor = page.cursor
            if cursor is None or cursor in cursors:
                break
            cursors.add(cursor)
        self.rewards = rewards

    def _costs(self) -> TokenCosts:
        return TokenCosts(
            create=self.limits.cost(*endpoints.PLACE),
            cancel=self.limits.cost(*endpoints.CANCEL),
            amend=self.limits.cost(*endpoints.AMEND),
            renewals_per_hour=self.renewals_per_hour,
        )

    def _prune(self) -> None:
        keep = set(heapq.nlargest(self.kept, self.worth, key=lambda t: (self.worth[t].per_token, t)))
        for ticker in [t for t in self.markets if t not in keep]:
            self._drop(ticker)

    def _forget_unseen(self) -> None:
        for ticker in [t for t in self.markets if t not in self._seen]:
            self._drop(ticker)
        self._prune()

    def _drop(self, ticker: MarketTicker) -> None:
        self.markets.pop(ticker, None)
        self.worth.pop(ticker, None)
        self._seen.discard(ticker)

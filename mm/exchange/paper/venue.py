"""The paper venue as an `Exchange`: what concerns markets is asked of the live venue, what concerns orders stays here.

Orders take time to arrive and answers to come back (`Latency`); in between the market moves, as it would. No task of its
own runs outside `Feed.run`. Nothing survives the process: each run is an account of its own, so that a ledger never
expects positions that no longer exist anywhere.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, NoReturn, Protocol, TypeVar

import attrs
import trio

from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.fill import Fill
from mm.domain.game import GameState
from mm.domain.market import Event, Incentive, Market, Series
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import GroupId, MarketTicker, OrderId, Side
from mm.exchange.paper.account import PaperAccount
from mm.exchange.paper.core import PaperCore
from mm.exchange.paper.feed import PaperFeed
from mm.exchange.port import (
    Balance,
    Exchange,
    ExchangeError,
    ExchangeRejected,
    ExchangeStatus,
    Feed,
    NewOrder,
    NotRestingHere,
    OrderGroup,
    OrderRef,
    OrderReport,
    OrderStatus,
    Page,
    PlaceAck,
    RateLimits,
    Settlement,
    VenuePosition,
)

T = TypeVar("T")

DEFAULT_CASH: Final = Money(10_000_000_000)
"""10,000 dollars."""


class Randomness(Protocol):
    """What is needed of a `random.Random`."""

    def random(self) -> float:
        """Uniform in [0, 1)."""


@attrs.frozen(kw_only=True)
class Latency:
    """How long a request takes to the venue, and its answer back: `base_s` and up to `jitter_s` more, each way."""

    base_s: float = 0.015
    jitter_s: float = 0.015


@attrs.define(eq=False, kw_only=True)
class PaperExchange:
    """A paper account over the data of a live venue."""

    account: str
    _live: Exchange
    _core: PaperCore
    _clock: Callable[[], Micros]
    _randomness: Randomness
    _latency: Latency
    _wake: trio.Event = attrs.field(factory=trio.Event)

    # markets: the live venue's

    async def series(self, ticker: str) -> Series:
        """See the port."""
        return await self._live.series(ticker)

    async def event(self, ticker: str) -> Event:
        """See the port."""
        return await self._live.event(ticker)

    async def game(self, event_ticker: str) -> GameState | None:
        """See the port."""
        return await self._live.game(event_ticker)

    async def open_markets_page(
        self, *, created_since: Micros | None = None, cursor: str | None = None
    ) -> Page[Market]:
        """See the port."""
        return await self._live.open_markets_page(created_since=created_since, cursor=cursor)

    async def all_series(self) -> list[Series]:
        """See the port."""
        return await self._live.all_series()

    async def incentives_page(self, *, cursor: str | None = None) -> Page[Incentive]:
        """See the port."""
        return await self._live.incentives_page(cursor=cursor)

    async def markets(
        self,
        *,
        series_ticker: str | None = None,
        event_ticker: str | None = None,
        status: str | None = None,
        tickers: Sequence[MarketTicker] | None = None,
    ) -> list[Market]:
        """See the port. A listing that shows a result pays out on paper."""
        found = await self._live.markets(
            series_ticker=series_ticker, event_ticker=event_ticker, status=status, tickers=tickers
        )
        now = self._clock()
        for market in found:
            self._core.learn(market, now)
        self._tell()
        return found

    async def status(self) -> ExchangeStatus:
        """See the port."""
        return await self._live.status()

    async def limits(self) -> RateLimits:
        """See the port: the live account's, so that paper is as fast as the real thing and not faster."""
        return await self._live.limits()

    # the account: ours

    async def balance(self) -> Balance:
        """See the port."""
        await self._travel()
        balance = Balance(total=self._core.available(self._clock()))
        self._tell()
        return balance

    async def positions(self) -> list[VenuePosition]:
        """See the port."""
        await self._travel()
        return self._core.account.views()

    async def fills_page(
        self, *, since: Micros | None = None, order_id: OrderId | None = None, cursor: str | None = None
    ) -> Page[Fill]:
        """See the port. One page holds all."""
        await self._travel()
        found = [
            fill
            for fill in reversed(self._core.fills)
            if (since is None or fill.ts >= since) and (order_id is None or fill.order_id == order_id)
        ]
        return Page(items=found, cursor=None)

    async def orders_page(
        self,
        *,
        status: OrderStatus | None = None,
        ticker: MarketTicker | None = None,
        since: Micros | None = None,
        cursor: str | None = None,
    ) -> Page[OrderReport]:
        """See the port. One page holds all."""
        await self._travel()
        found = [
            order.report()
            for order in self._core.orders(self._clock())
            if (status is None or order.status is status)
            and (ticker is None or order.ticker == ticker)
            and (since is None or order.created_at >= since)
        ]
        self._tell()
        return Page(items=found, cursor=None)

    async def order(self, order_id: OrderId) -> OrderReport:
        """See the port."""
        await self._travel()
        orders = self._core.orders(self._clock())
        self._tell()
        for order in orders:
            if order.order_id == order_id:
                return order.report()
        raise NotRestingHere("not found", status=404, code="not_found")

    async def settlements_page(
        self, *, since: Micros | None = None, cursor: str | None = None
    ) -> Page[Settlement]:
        """See the port. One page holds all."""
        await self._travel()
        found = [s for s in self._core.settlements() if since is None or s.settled_at >= since]
        return Page(items=found, cursor=None)

    async def user_data_age(self) -> Micros:
        """See the port: reads here lag nothing."""
        await self._travel()
        return self._clock()

    async def groups(self) -> list[OrderGroup]:
        """See the port."""
        await self._travel()
        return [group.view() for group in self._core.groups.values()]

    # writes

    async def place(self, order: NewOrder) -> PlaceAck:
        """See the port. Cancelled before it arrived: nothing happened; afterwards: it stands. Nobody is told which."""
        await self._know(order.ticker)
        return await self._round_trip(lambda now: self._core.place(order, now))

    async def amend(
        self,
        ref: OrderRef,
        *,
        side: Side,
        price: Price,
        count: Count,
        expires_at: Micros | None = None,
    ) -> None:
        """See the port. A new price that would trade at once is refused, for every order."""
        await self._round_trip(lambda now: self._core.amend(ref, side, price, count, expires_at, now))

    async def decrease(self, ref: OrderRef, *, reduce_to: Count) -> None:
        """See the port."""
        await self._round_trip(lambda now: self._core.decrease(ref, reduce_to, now))

    async def cancel(self, ref: OrderRef) -> Count:
        """See the port."""
        return await self._round_trip(lambda now: self._core.cancel(ref, now))

    async def cancel_batch(self, refs: Sequence[OrderRef]) -> list[ExchangeError | None]:
        """See the port."""

        def cancel_all(now: Micros) -> list[ExchangeError | None]:
            results: list[ExchangeError | None] = []
            for ref in refs:
                try:
                    self._core.cancel(ref, now)
                except ExchangeError as error:
                    results.append(error)
                else:
                    results.append(None)
            return results

        return await self._round_trip(cancel_all)

    async def create_group(self, *, contracts_limit: int, exchange_index: int) -> GroupId:
        """See the port."""
        return await self._round_trip(lambda now: self._core.create_group(contracts_limit, exchange_index))

    async def trigger_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """See the port."""
        await self._round_trip(lambda now: self._core.trigger_group(group_id, exchange_index, now))

    async def delete_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """See the port."""
        await self._round_trip(lambda now: self._core.delete_group(group_id, exchange_index, now))

    # being ready

    async def keep_ready(self) -> NoReturn:
        """See the port: orders never leave the process, so there is nothing to prepare."""
        await trio.sleep_forever()

    def expect(self, ref: OrderRef) -> None:
        """See the port."""

    # feed

    def open_feed(self) -> AbstractAsyncContextManager[Feed]:
        """See the port: the live feed, with our own orders' events in it."""
        return self._feed()

    @asynccontextmanager
    async def _feed(self) -> AsyncGenerator[Feed, None]:
        async with self._live.open_feed() as live:
            yield PaperFeed(live, self._core, self._clock, self._next_wake)

    # help

    def _next_wake(self) -> trio.Event:
        """Set when a request left events that the feed should deliver."""
        if self._wake.is_set():
            self._wake = trio.Event()
        return self._wake

    def _tell(self) -> None:
        if self._core.events:
            self._wake.set()

    async def _travel(self) -> None:
        """One way between us and the venue."""
        await trio.sleep(self._latency.base_s + self._latency.jitter_s * self._randomness.random())

    async def _round_trip(self, act: Callable[[Micros], T]) -> T:
        """A request that acts when it arrives, and whose answer takes its time, too."""
        await self._travel()
        try:
            result = act(self._clock())
        except ExchangeError:
            self._tell()  # what had expired was seen on the way
            await self._travel()
            raise
        self._tell()
        await self._travel()
        return result

    async def _know(self, ticker: MarketTicker) -> None:
        """Make sure that a market and its fees are known. Raises `ExchangeUnavailable` when the live venue is silent."""
        core = self._core
        if ticker in core.schedules and ticker not in core.stale_fees:
            return
        if ticker not in core.listed:
            await self.markets(tickers=[ticker])
        if ticker not in core.listed:
            raise ExchangeRejected("market not found", status=404, code="market_not_found")
        core.stale_fees.discard(ticker)  # before asking: what changes meanwhile makes them stale again
        try:
            core.schedules[ticker] = await self._schedule(core.listed[ticker])
        except BaseException:
            core.stale_fees.add(ticker)
            raise

    async def _schedule(self, market: Market) -> FeeSchedule:
        series = await self._live.series(market.series_ticker)
        try:
            event = await self._live.event(market.event_ticker)
        except NotRestingHere:
            event = Event(ticker=market.event_ticker)
        fee_type = event.fee_type_override or series.fee_type
        multiplier = event.fee_multiplier_override
        if fee_type is FeeType.FLAT:
            raise ExchangeRejected("the fees of this market are not understood", code="fees_unknown")
        return FeeSchedule(fee_type, series.fee_multiplier if multiplier is None else multiplier)


@asynccontextmanager
async def open_paper(
    live: Exchange,
    *,
    clock: Callable[[], Micros],
    randomness: Randomness,
    latency: Latency | None = None,
    cash: Money = DEFAULT_CASH,
) -> AsyncGenerator[Exchange, None]:
    """Paper over `live`, for as long as the block lasts; `live` is never sent a write.

    Args:
        live: Where markets, books and trades come from. It stays the caller's to close.
        clock: The wall clock.
        randomness: For the run's name in ids, and for latency.
        latency: Travelling times of requests.
        cash: What the account begins with.
    """
    run = f"{clock():x}{int(randomness.random() * 2**32):08x}"
    yield PaperExchange(
        account=f"{live.account.removesuffix('/live')}/paper-{run}",
        live=live,
        core=PaperCore(run, PaperAccount(cash)),
        clock=clock,
        randomness=randomness,
        latency=latency or Latency(),
    )

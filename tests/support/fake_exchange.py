"""A scriptable exchange in memory, for tests of the bot's tasks on trio's virtual clock.

It keeps orders, fills, groups and settlements, and answers at once unless a test scripted the next answers of a call.
It is no twin: no fees, no collateral, no queue. What it does know, tests lean on: client ids are single use, reads lag
writes by `read_lag`, a triggered group cancels its orders and refuses later creates, a 404 tells nothing.
"""

import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, TypeVar

import attrs
import trio

from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.game import GameState
from mm.domain.market import Event, Incentive, Market, Series
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, OrderId, Side, TimeInForce
from mm.exchange.port import (
    Balance,
    Bucket,
    ExchangeError,
    ExchangeRejected,
    ExchangeStatus,
    Feed,
    FeedSink,
    FeedStatistics,
    NewOrder,
    NotRestingHere,
    OrderGroup,
    OrderIdSpent,
    OrderRef,
    OrderReport,
    OrderStatus,
    OutcomeUnknown,
    Page,
    PlaceAck,
    RateLimits,
    Settlement,
    VenuePosition,
)

T = TypeVar("T")

START = 1_790_000_000 * SECOND
"""Wall clock at virtual time 0."""
PAGE = 3
"""Items a page: small, so that paging is always exercised."""


def virtual_clock() -> Micros:
    """The wall clock that goes with trio's (virtual) one."""
    return Micros(START + round(trio.current_time() * SECOND))


@attrs.frozen(kw_only=True)
class Answer:
    """How one call is answered: after `delay`, done or not, then another `delay_after`, then `error` if any."""

    error: ExchangeError | None = None
    is_done: bool = True
    delay: float = 0.0
    delay_after: float = 0.0


def refuse(error: ExchangeError) -> Answer:
    """Nothing is done and `error` comes back."""
    return Answer(error=error, is_done=False)


def lost_before() -> Answer:
    """The request never arrives, and nobody can know."""
    return Answer(error=OutcomeUnknown("timed out"), is_done=False)


def lost_after(delay_after: float = 0.0) -> Answer:
    """The request is executed and its answer is lost."""
    return Answer(error=OutcomeUnknown("timed out"), delay_after=delay_after)


def slow(delay: float = 0.0, delay_after: float = 0.0) -> Answer:
    """Done, but it takes a while on the way there or back."""
    return Answer(delay=delay, delay_after=delay_after)


@attrs.frozen
class Call:
    """One call as it came in."""

    name: str
    value: Any
    """The order, the ref, the group: what the call was about."""
    at: float
    """Virtual time."""
    details: dict[str, Any] = attrs.field(factory=dict)


@attrs.define(eq=False)
class FakeFeed:
    """A feed that does nothing by itself: tests call the exchange's sink."""

    watched: set[MarketTicker] = attrs.field(factory=set)
    resynced: list[MarketTicker] = attrs.field(factory=list)

    async def run(self, sink: FeedSink) -> None:
        """Connected for ever."""
        sink.on_connected(virtual_clock())
        await trio.sleep_forever()

    async def watch(self, tickers: Sequence[MarketTicker]) -> None:
        """Remember them."""
        self.watched.update(tickers)

    async def unwatch(self, tickers: Sequence[MarketTicker]) -> None:
        """Forget them."""
        self.watched.difference_update(tickers)

    async def resync(self, tickers: Sequence[MarketTicker]) -> None:
        """Remember that it was asked."""
        self.resynced.extend(tickers)

    def statistics(self) -> FeedStatistics:
        """Nothing was seen."""
        return FeedStatistics(
            connects=1,
            frames=0,
            unknown_frames=0,
            unknown_fields=0,
            malformed_frames=0,
            gaps=0,
            last_frame_at=Micros(0),
        )


@attrs.define(eq=False, kw_only=True, slots=False)
class FakeExchange:
    """The port, in memory. `sink`, where set, is told of order reports and fills at once."""

    account: str = "fake|key|0|live"
    clock: Callable[[], Micros] = virtual_clock
    sink: FeedSink | None = None
    read_lag: float = 0.0
    """Seconds by which reads of orders, fills and positions trail the truth."""
    age: Callable[[], Micros] | None = None
    """Instead of the honest answer to `user_data_age`."""
    listing: list[Market] = attrs.field(factory=list)
    known_series: dict[str, Series] = attrs.field(factory=dict)
    newborn: set[MarketTicker] = attrs.field(factory=set)
    """Markets that a listing of new ones shows."""
    incentives: list[Incentive] = attrs.field(factory=list)
    games: dict[str, GameState] = attrs.field(factory=dict)
    """Event -> its scoreboard."""
    exclusive: set[str] = attrs.field(factory=set)
    """Events of which one market at most pays."""
    others: dict[tuple[MarketTicker, Side], list[tuple[Price, Count]]] = attrs.field(factory=dict)
    """What other people rest, best first: post-only orders must not meet it, others trade with it."""
    history: dict[OrderId, list[tuple[Micros, OrderReport]]] = attrs.field(factory=dict)
    """Every state an order ever had, with the time from which it held."""
    fills: list[Fill] = attrs.field(factory=list)
    settled: list[Settlement] = attrs.field(factory=list)
    paid_in: int = 10_000_000_000
    """Deposits less withdrawals, as `Money`."""
    foreign_positions: dict[MarketTicker, Count] = attrs.field(factory=dict)
    """Positions that no fill explains."""
    group_index: dict[GroupId, int] = attrs.field(factory=dict)
    triggered: set[GroupId] = attrs.field(factory=set)
    write_bucket: Bucket = Bucket(refill_per_s=1_000.0, capacity=1_000.0)
    feed: FakeFeed = attrs.field(factory=FakeFeed)
    calls: list[Call] = attrs.field(factory=list)
    _scripts: dict[str, deque[Answer]] = attrs.field(factory=dict)
    _standing: dict[str, Answer] = attrs.field(factory=dict)
    _ids: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    # --- what tests do ---

    def script(self, name: str, *answers: Answer) -> None:
        """The next calls of that method are answered so, one after the other."""
        self._scripts.setdefault(name, deque()).extend(answers)

    def always(self, name: str, answer: Answer | None) -> None:
        """Every call of that method from now on (None: as usual again); scripted answers go first."""
        if answer is None:
            self._standing.pop(name, None)
        else:
            self._standing[name] = answer

    def called(self, name: str) -> list[Call]:
        """The calls of one method."""
        return [call for call in self.calls if call.name == name]

    def writes(self) -> list[str]:
        """Names of all order writes, in order."""
        return [c.name for c in self.calls if c.name in ("place", "amend", "decrease", "cancel")]

    def now_of(self, order_id: OrderId) -> OrderReport:
        """The order as it is."""
        return self.history[order_id][-1][1]

    def resting(self, ticker: MarketTicker | None = None) -> list[OrderReport]:
        """What rests, in truth."""
        found = [versions[-1][1] for versions in self.history.values()]
        return [r for r in found if r.status is OrderStatus.RESTING and ticker in (None, r.ticker)]

    def by_client_id(self, client_order_id: str) -> list[OrderReport]:
        """All orders ever created under that id (more than one would be a bug of this class)."""
        found = [versions[-1][1] for versions in self.history.values()]
        return [r for r in found if r.client_order_id == client_order_id]

    def fill(self, order_id: OrderId, count: int, *, tell: bool = True, report: bool = True) -> Fill:
        """Somebody trades with a resting order. `tell`: the fill goes out on the socket; `report`: the order too."""
        order = self.now_of(order_id)
        assert order.status is OrderStatus.RESTING
        assert count <= order.remaining
        fill = self._book(order, order.price, Count(count), Liquidity.MAKER)
        self._trade(order_id, Count(count), report=report)
        if tell and self.sink is not None:
            self.sink.on_fill(fill)
        return fill

    def end(self, order_id: OrderId, reason: str = "ExpiryCancel", *, report: bool = False) -> None:
        """The venue takes an order off by itself."""
        self._change(order_id, report=report, status=OrderStatus.CANCELLED, remaining=Count(0), reason=reason)

    def put(self, order: NewOrder) -> OrderId:
        """An order appears without a call (somebody else's, or a leftover)."""
        return self._create(order).order_id

    # --- the port: markets ---

    async def series(self, ticker: str) -> Series:
        """One series."""
        return await self._call("series", ticker, lambda: self._known_series(ticker))

    async def event(self, ticker: str) -> Event:
        """Any event exists, without overrides."""
        found = Event(ticker=ticker, is_mutually_exclusive=ticker in self.exclusive)
        return await self._call("event", ticker, lambda: found)

    async def game(self, event_ticker: str) -> GameState | None:
        """No event has a scoreboard, save those in `games`."""
        return await self._call("game", event_ticker, lambda: self.games.get(event_ticker))

    async def markets(
        self,
        *,
        series_ticker: str | None = None,
        event_ticker: str | None = None,
        status: str | None = None,
        tickers: Sequence[MarketTicker] | None = None,
    ) -> list[Market]:
        """The listing, filtered; "open" means active."""

        def read() -> list[Market]:
            return [
                m
                for m in self.listing
                if series_ticker in (None, m.series_ticker)
                and event_ticker in (None, m.event_ticker)
                and (status != "open" or m.status.value == "active")
                and (tickers is None or m.ticker in tickers)
            ]

        return await self._call("markets", series_ticker or tickers, read)

    async def open_markets_page(
        self, *, created_since: Micros | None = None, cursor: str | None = None
    ) -> Page[Market]:
        """What is active, `PAGE` at a time; markets have no birthday here, so `created_since` finds those in `newborn`."""

        def read() -> Page[Market]:
            found = [m for m in self.listing if m.status.value == "active"]
            return _page([m for m in found if created_since is None or m.ticker in self.newborn], cursor)

        return await self._call("open_markets_page", cursor, read, created_since=created_since)

    async def all_series(self) -> list[Series]:
        """Those that are known."""
        return await self._call("all_series", None, lambda: list(self.known_series.values()))

    async def incentives_page(self, *, cursor: str | None = None) -> Page[Incentive]:
        """`PAGE` at a time."""
        return await self._call("incentives_page", cursor, lambda: _page(self.incentives, cursor))

    async def status(self) -> ExchangeStatus:
        """It trades."""
        return await self._call(
            "status", None, lambda: ExchangeStatus(exchange_active=True, trading_active=True)
        )

    async def limits(self) -> RateLimits:
        """A generous budget unless `write_bucket` says otherwise."""
        return await self._call("limits", None, self.rate_limits)

    def rate_limits(self) -> RateLimits:
        """The same without a call."""
        return RateLimits(
            tier="fake", read=Bucket(refill_per_s=10_000.0, capacity=10_000.0), write=self.write_bucket
        )

    # --- the port: reads of the account ---

    async def balance(self) -> Balance:
        """10,000 dollars, moved by fills and settlements; NO positions owe a dollar each; resting orders nothing."""

        def read() -> Balance:
            total, net = self.paid_in, dict[MarketTicker, int]()
            for fill in self._visible_fills():
                total -= fill.price * fill.signed_count + fill.fee
                net[fill.ticker] = net.get(fill.ticker, 0) + fill.signed_count
            for ticker, value in {row.ticker: row.value for row in self.settled}.items():
                total += net.pop(ticker, 0) * value
            return Balance(total=Money(total - DOLLAR * sum(-n for n in net.values() if n < 0)))

        return await self._call("balance", None, read)

    async def positions(self) -> list[VenuePosition]:
        """What the fills add up to, without settled markets, after the lag."""

        def read() -> list[VenuePosition]:
            totals = dict(self.foreign_positions)
            for fill in self._visible_fills():
                totals[fill.ticker] = Count(totals.get(fill.ticker, 0) + fill.signed_count)
            over = {row.ticker for row in self.settled}
            return [
                VenuePosition(ticker=t, position=n, fees_paid=Money(0), realized_pnl=Money(0))
                for t, n in totals.items()
                if t not in over
            ]

        return await self._call("positions", None, read)

    async def fills_page(
        self, *, since: Micros | None = None, order_id: OrderId | None = None, cursor: str | None = None
    ) -> Page[Fill]:
        """Newest first, `PAGE` at a time."""

        def read() -> Page[Fill]:
            found = [
                attrs.evolve(f, client_order_id=None)  # only the socket tells it
                for f in self._visible_fills()
                if (since is None or f.ts >= since - since % SECOND) and order_id in (None, f.order_id)
            ]
            return _page(sorted(found, key=lambda f: (-f.ts, f.trade_id)), cursor)

        return await self._call("fills_page", since, read)

    async def orders_page(
        self,
        *,
        status: OrderStatus | None = None,
        ticker: MarketTicker | None = None,
        since: Micros | None = None,
        cursor: str | None = None,
    ) -> Page[OrderReport]:
        """Newest first, `PAGE` at a time, as they were `read_lag` ago."""

        def read() -> Page[OrderReport]:
            found = [
                r
                for r in map(self._seen, self.history)
                if r is not None
                and status in (None, r.status)
                and ticker in (None, r.ticker)
                and (since is None or (r.created_at or 0) >= since)
            ]
            return _page(found[::-1], cursor)

        return await self._call("orders_page", ticker, read)

    async def order(self, order_id: OrderId) -> OrderReport:
        """One order, as it was `read_lag` ago."""

        def read() -> OrderReport:
            found = self._seen(order_id) if order_id in self.history else None
            if found is None:
                raise NotRestingHere("no such order", status=404, code="not_found")
            return found

        return await self._call("order", order_id, read)

    async def settlements_page(
        self, *, since: Micros | None = None, cursor: str | None = None
    ) -> Page[Settlement]:
        """Newest first."""

        def read() -> Page[Settlement]:
            return _page([s for s in self.settled[::-1] if since is None or s.settled_at >= since], cursor)

        return await self._call("settlements_page", since, read)

    async def user_data_age(self) -> Micros:
        """Now less the lag, or what `age` says."""
        return await self._call("user_data_age", None, self.age or self._horizon)

    # --- the port: writes ---

    async def place(self, order: NewOrder) -> PlaceAck:
        """Create."""
        return await self._call("place", order, lambda: self._create(order))

    async def amend(
        self, ref: OrderRef, *, side: Side, price: Price, count: Count, expires_at: Micros | None = None
    ) -> None:
        """Change a resting order."""

        def write() -> None:
            order = self._live(ref)
            if count <= order.filled:
                raise ExchangeRejected("count is filled already", status=400, code="invalid_parameters")
            self._change(
                ref.order_id,
                price=price,
                initial=count,
                remaining=Count(count - order.filled),
                expires_at=expires_at or order.expires_at,
            )

        await self._call("amend", ref, write, price=price, count=count, expires_at=expires_at)

    async def decrease(self, ref: OrderRef, *, reduce_to: Count) -> None:
        """Make a resting order smaller."""

        def write() -> None:
            order = self._live(ref)
            if reduce_to >= order.remaining:
                raise ExchangeRejected("nothing to reduce", status=400, code="invalid_parameters")
            self._change(ref.order_id, remaining=reduce_to, initial=Count(order.filled + reduce_to))

        await self._call("decrease", ref, write, reduce_to=reduce_to)

    async def cancel(self, ref: OrderRef) -> Count:
        """Take a resting order off."""
        return await self._call("cancel", ref, lambda: self._cancel(ref))

    async def cancel_batch(self, refs: Sequence[OrderRef]) -> list[ExchangeError | None]:
        """Each by itself."""

        def write() -> list[ExchangeError | None]:
            results: list[ExchangeError | None] = []
            for ref in refs:
                try:
                    self._cancel(ref)
                except ExchangeError as exc:
                    results.append(exc)
                else:
                    results.append(None)
            return results

        return await self._call("cancel_batch", list(refs), write)

    async def create_group(self, *, contracts_limit: int, exchange_index: int) -> GroupId:
        """A new group."""

        def write() -> GroupId:
            group_id = GroupId(f"group-{next(self._ids)}")
            self.group_index[group_id] = exchange_index
            return group_id

        return await self._call("create_group", exchange_index, write, contracts_limit=contracts_limit)

    async def trigger_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """Cancel all of its orders; refuse creates into it from now on."""

        def write() -> None:
            if self.group_index.get(group_id) != exchange_index:
                raise NotRestingHere("no such group", status=404, code="not_found")
            self.triggered.add(group_id)
            for report in self.resting():
                if report.group_id == group_id:
                    self.end(report.order_id, "HaltCancel", report=True)

        await self._call("trigger_group", group_id, write)

    async def delete_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """Forget it."""
        await self._call("delete_group", group_id, lambda: self.group_index.pop(group_id, None))

    async def groups(self) -> list[OrderGroup]:
        """All of them."""

        def read() -> list[OrderGroup]:
            return [
                OrderGroup(group_id=g, exchange_index=i, is_triggered=g in self.triggered)
                for g, i in self.group_index.items()
            ]

        return await self._call("groups", None, read)

    async def keep_ready(self) -> NoReturn:
        """Nothing to prepare."""
        await trio.sleep_forever()

    def expect(self, ref: OrderRef) -> None:
        """Nothing to prepare."""

    def open_feed(self) -> AbstractAsyncContextManager[Feed]:
        """The one feed."""

        @asynccontextmanager
        async def opened() -> AsyncGenerator[Feed, None]:
            yield self.feed

        return opened()

    # --- inside ---

    async def _call(self, name: str, value: Any, work: Callable[[], T], **details: Any) -> T:
        self.calls.append(Call(name, value, trio.current_time(), details))
        scripted = self._scripts.get(name)
        answer = scripted.popleft() if scripted else self._standing.get(name, Answer())
        await trio.sleep(answer.delay)
        result = work() if answer.is_done else None
        if answer.delay_after:
            await trio.sleep(answer.delay_after)
        if answer.error is not None:
            raise answer.error
        return result  # type: ignore[return-value]

    def _known_series(self, ticker: str) -> Series:
        if ticker not in self.known_series:
            raise NotRestingHere(f"no series {ticker}", status=404, code="not_found")
        return self.known_series[ticker]

    def _horizon(self) -> Micros:
        return Micros(self.clock() - round(self.read_lag * SECOND))

    def _seen(self, order_id: OrderId) -> OrderReport | None:
        seen = [report for at, report in self.history[order_id] if at <= self._horizon()]
        return seen[-1] if seen else None

    def _visible_fills(self) -> list[Fill]:
        return [fill for fill in self.fills if fill.ts <= self._horizon()]

    def _create(self, order: NewOrder) -> PlaceAck:
        if self.by_client_id(order.client_order_id):
            raise OrderIdSpent("id was used", status=409, code="order_already_exists")
        if order.group_id is not None and order.group_id in self.triggered:
            raise ExchangeRejected("order group is triggered", status=409, code="order_group_triggered")
        opposite = self.others.get((order.ticker, order.side.opposite), [])
        matched = [level for level in opposite if (order.price - level[0]) * order.side.sign >= 0]
        if order.post_only and matched:
            raise ExchangeRejected("invalid order: post only cross", status=400, code="invalid_order")
        order_id = OrderId(f"order-{next(self._ids)}")
        report = OrderReport(
            order_id=order_id,
            client_order_id=ClientOrderId(order.client_order_id),
            ticker=order.ticker,
            side=order.side,
            price=order.price,
            status=OrderStatus.RESTING,
            initial=order.count,
            filled=Count(0),
            remaining=order.count,
            exchange_index=order.exchange_index,
            group_id=order.group_id,
            expires_at=order.expires_at,
            created_at=self.clock(),
        )
        self._keep(report)
        self._tell(report)
        self._take(report, matched)
        if order.time_in_force is not TimeInForce.GTC and self.now_of(order_id).remaining:
            self.end(order_id, "", report=True)
        now = self.now_of(order_id)
        return PlaceAck(order_id=order_id, filled=now.filled, remaining=now.remaining)

    def _take(self, report: OrderReport, levels: list[tuple[Price, Count]]) -> None:
        left = report.remaining
        theirs = self.others.get((report.ticker, report.side.opposite), [])
        for price, size in levels:
            if not left:
                break
            traded = min(left, size, key=int)
            left = Count(left - traded)
            theirs.remove((price, size))
            if size > traded:
                theirs.insert(0, (price, Count(size - traded)))
            fill = self._book(report, price, traded, Liquidity.TAKER)
            self._trade(report.order_id, traded, report=True)
            if self.sink is not None:
                self.sink.on_fill(fill)

    def _book(self, report: OrderReport, price: Price, count: Count, liquidity: Liquidity) -> Fill:
        fill = Fill(
            order_id=report.order_id,
            trade_id=TradeId(f"trade-{next(self._ids):06d}"),
            ticker=report.ticker,
            side=report.side,
            price=price,
            count=count,
            fee=Money(0),
            liquidity=liquidity,
            ts=self.clock(),
            client_order_id=report.client_order_id,
        )
        self.fills.append(fill)
        return fill

    def _trade(self, order_id: OrderId, count: Count, *, report: bool) -> None:
        order = self.now_of(order_id)
        left = Count(order.remaining - count)
        status = order.status if left else OrderStatus.EXECUTED
        self._change(
            order_id, report=report, filled=Count(order.filled + count), remaining=left, status=status
        )

    def _live(self, ref: OrderRef) -> OrderReport:
        order = self.now_of(ref.order_id) if ref.order_id in self.history else None
        if (
            order is None
            or order.status is not OrderStatus.RESTING
            or (order.ticker, order.exchange_index) != (ref.ticker, ref.exchange_index)
        ):
            raise NotRestingHere("not found", status=404, code="not_found")
        return order

    def _cancel(self, ref: OrderRef) -> Count:
        order = self._live(ref)
        self._change(ref.order_id, status=OrderStatus.CANCELLED, remaining=Count(0), reason="Decrease")
        return order.remaining

    def _change(self, order_id: OrderId, *, report: bool = True, **changes: Any) -> None:
        changed = attrs.evolve(self.now_of(order_id), updated_at=self.clock(), **changes)
        self._keep(changed)
        if report:
            self._tell(changed)

    def _keep(self, report: OrderReport) -> None:
        self.history.setdefault(report.order_id, []).append((self.clock(), report))

    def _tell(self, report: OrderReport) -> None:
        if self.sink is not None:
            self.sink.on_order(report)


def _page(items: list[T], cursor: str | None) -> Page[T]:
    start = int(cursor or 0)
    rest = start + PAGE
    return Page(items=items[start:rest], cursor=str(rest) if rest < len(items) else None)

"""Kalshi as an `Exchange`: the port's methods over `Rest`, and the feed.

No task runs here outside `Feed.run`, so the object is usable in every cleanup. Connections, clock and randomness come
from outside.
"""

import itertools
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import attrs
import certifi
import structlog
import trio

from mm.domain.fill import Fill
from mm.domain.game import GameState
from mm.domain.market import Event, Incentive, Market, Series
from mm.domain.numbers import SECOND, Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, OrderId, Side
from mm.exchange import endpoints as at
from mm.exchange.kalshi import codec, wire
from mm.exchange.kalshi.games import to_game
from mm.exchange.kalshi.http import HttpClient, WarmHttp
from mm.exchange.kalshi.options import Clock, Connect, KalshiOptions, Randomness, Tap
from mm.exchange.kalshi.presign import ReadySignatures, Runner, Work
from mm.exchange.kalshi.reading import Codec, JsonObject, Malformed, error_of, items, next_cursor
from mm.exchange.kalshi.rest import Params, Rest, error_for_code
from mm.exchange.kalshi.signing import Signer
from mm.exchange.kalshi.spread import FURTHER, OnFull, SpreadFeed, numbered
from mm.exchange.kalshi.stream import KalshiFeed
from mm.exchange.kalshi.subscriptions import Channel
from mm.exchange.paging import read_all
from mm.exchange.port import (
    Balance,
    Exchange,
    ExchangeError,
    ExchangeStatus,
    ExchangeUnavailable,
    Feed,
    NewOrder,
    NotRestingHere,
    OrderGroup,
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

if TYPE_CHECKING:
    import httpx  # only for whoever brings a transport of its own: it takes 9 MB

T = TypeVar("T")
R = TypeVar("R")

PAGE_SIZE: Final = 1000
"""Rows a page: the venue's maximum, since a page costs the same whatever it holds."""
WIDE_PAGE_SIZE: Final = 500
"""The same while the whole venue is walked: reading 500 rows holds nothing up for long."""
ROWS_AT_ONCE: Final = 50
"""Rows of a wide page read before others get a turn."""
TICKERS_A_REQUEST: Final = 50
"""Keeps the URL of a listing by tickers short."""
_STATUS_WORDS: Final = {
    OrderStatus.RESTING: "resting",
    OrderStatus.CANCELLED: "canceled",
    OrderStatus.EXECUTED: "executed",
}

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class KalshiExchange:
    """One account at Kalshi. Opened by `open_kalshi`; see `mm.exchange.port.Exchange` for what methods promise."""

    account: str
    _rest: Rest
    _codec: Codec
    _feed_factory: Callable[[], SpreadFeed]
    _run_blocking: Runner

    # markets

    async def series(self, ticker: str) -> Series:
        """See the port."""
        body = await self._rest.read(at.SERIES, ticker)
        return self._understood(
            at.SERIES,
            lambda: codec.to_series(self._codec.one(body, "series", wire.Series), self._codec.tally),
        )

    async def event(self, ticker: str) -> Event:
        """See the port."""
        body = await self._rest.read(at.EVENT, ticker)
        return self._understood(
            at.EVENT, lambda: codec.to_event(self._codec.one(body, "event", wire.Event), self._codec.tally)
        )

    async def game(self, event_ticker: str) -> GameState | None:
        """See the port."""
        try:
            body = await self._rest.read(at.EVENT_LIVE_DATA, event_ticker)
        except NotRestingHere:
            return None
        return self._understood(at.EVENT_LIVE_DATA, lambda: to_game(body))

    async def markets(
        self,
        *,
        series_ticker: str | None = None,
        event_ticker: str | None = None,
        status: str | None = None,
        tickers: Sequence[MarketTicker] | None = None,
    ) -> list[Market]:
        """See the port. Without any ticker all but combos are listed."""
        filters: dict[str, str | int | None] = {
            "series_ticker": series_ticker,
            "event_ticker": event_ticker,
            "status": status,
        }
        if tickers is None:
            if series_ticker is None and event_ticker is None:
                filters["mve_filter"] = "exclude"
            return await self._all_markets(filters)
        found: list[Market] = []
        for start in range(0, len(tickers), TICKERS_A_REQUEST):
            chunk = ",".join(tickers[start : start + TICKERS_A_REQUEST])
            found += await self._all_markets({**filters, "tickers": chunk})
        return found

    async def open_markets_page(
        self, *, created_since: Micros | None = None, cursor: str | None = None
    ) -> Page[Market]:
        """See the port. Pages are half of the venue's longest, and read with pauses: a feed goes on beside it."""
        filters: Params = {
            "status": "open",
            "mve_filter": "exclude",
            "min_created_ts": _seconds(created_since),
            "limit": WIDE_PAGE_SIZE,
            "cursor": cursor,
        }
        body = await self._rest.read(at.MARKETS, params=filters)
        rows = self._understood(at.MARKETS, lambda: codec.market_rows(body))
        found: list[Market] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            found += codec.readable_markets(self._codec, rows[start : start + ROWS_AT_ONCE])
            await trio.lowlevel.checkpoint()
        return Page(items=found, cursor=next_cursor(body))

    async def all_series(self) -> list[Series]:
        """See the port. One that cannot be read is left out and counted."""
        body = await self._rest.read(at.SERIES_LIST)
        rows = self._understood(at.SERIES_LIST, lambda: items(body.get("series"), "series"))
        found: list[Series] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            found += codec.readable_series(self._codec, rows[start : start + ROWS_AT_ONCE])
            await trio.lowlevel.checkpoint()
        return found

    async def incentives_page(self, *, cursor: str | None = None) -> Page[Incentive]:
        """See the port. One that cannot be read is left out and counted."""
        filters: Params = {"status": "active", "limit": PAGE_SIZE, "cursor": cursor}
        body = await self._rest.read(at.INCENTIVES, params=filters)
        rows = self._understood(at.INCENTIVES, lambda: items(body.get("incentive_programs"), "programs"))
        next_one = body.get("next_cursor")
        return Page(
            items=codec.readable_incentives(self._codec, rows),
            cursor=next_one if isinstance(next_one, str) and next_one else None,
        )

    async def _all_markets(self, filters: Params) -> list[Market]:
        async def page(cursor: str | None) -> Page[Market]:
            body = await self._rest.read(at.MARKETS, params={**filters, "limit": PAGE_SIZE, "cursor": cursor})
            found = self._understood(at.MARKETS, lambda: codec.read_markets(self._codec, body))
            return Page(items=found, cursor=next_cursor(body))

        return await read_all(page, what="GET /markets")

    async def status(self) -> ExchangeStatus:
        """See the port."""
        body = await self._rest.read(at.STATUS, also=(503, 504))  # these may still say how things stand
        return self._understood(
            at.STATUS, lambda: codec.to_status(self._codec.structure(body, wire.ExchangeStatus))
        )

    async def limits(self) -> RateLimits:
        """See the port."""
        limits = await self._rest.read(at.LIMITS)
        costs = await self._rest.read(at.ENDPOINT_COSTS)
        return self._understood(
            at.LIMITS,
            lambda: codec.to_limits(
                self._codec.structure(limits, wire.Limits),
                self._codec.structure(costs, wire.EndpointCosts),
            ),
        )

    # reads of the account

    async def balance(self) -> Balance:
        """See the port."""
        body = await self._rest.read(at.BALANCE, params=self._mine())
        return self._understood(
            at.BALANCE, lambda: codec.to_balance(self._codec.structure(body, wire.Balance))
        )

    async def positions(self) -> list[VenuePosition]:
        """See the port."""

        async def page(cursor: str | None) -> Page[VenuePosition]:
            return await self._page(
                at.POSITIONS, "market_positions", wire.Position, codec.to_position, {}, cursor
            )

        return await read_all(page, what="GET /portfolio/positions")

    async def fills_page(
        self, *, since: Micros | None = None, order_id: OrderId | None = None, cursor: str | None = None
    ) -> Page[Fill]:
        """See the port."""
        filters: Params = {"min_ts": _seconds(since), "order_id": order_id}
        return await self._page(at.FILLS, "fills", wire.Fill, codec.to_fill, filters, cursor)

    async def orders_page(
        self,
        *,
        status: OrderStatus | None = None,
        ticker: MarketTicker | None = None,
        since: Micros | None = None,
        cursor: str | None = None,
    ) -> Page[OrderReport]:
        """See the port."""
        filters: Params = {
            "status": None if status is None else _STATUS_WORDS[status],
            "ticker": ticker,
            "min_ts": _seconds(since),
        }
        return await self._page(at.ORDERS, "orders", wire.Order, codec.to_report, filters, cursor)

    async def order(self, order_id: OrderId) -> OrderReport:
        """See the port."""
        body = await self._rest.read(at.ORDER, order_id)
        return self._understood(at.ORDER, lambda: codec.to_report(self._codec.one(body, "order", wire.Order)))

    async def settlements_page(
        self, *, since: Micros | None = None, cursor: str | None = None
    ) -> Page[Settlement]:
        """See the port."""
        filters: Params = {"min_ts": _seconds(since)}
        return await self._page(
            at.SETTLEMENTS, "settlements", wire.Settlement, codec.to_settlement, filters, cursor
        )

    async def user_data_age(self) -> Micros:
        """See the port."""
        body = await self._rest.read(at.USER_DATA_TIMESTAMP)
        return self._understood(
            at.USER_DATA_TIMESTAMP,
            lambda: self._codec.structure(body, wire.UserDataTimestamp).as_of_time,
        )

    async def groups(self) -> list[OrderGroup]:
        """See the port."""
        body = await self._rest.read(at.GROUPS, params=self._mine())

        def read() -> list[OrderGroup]:
            if "order_groups" not in body:  # optional in the contract: no groups
                return []
            return [codec.to_group(group) for group in self._codec.many(body, "order_groups", wire.Group)]

        return self._understood(at.GROUPS, read)

    # writes

    async def place(self, order: NewOrder) -> PlaceAck:
        """See the port. A cancellation leaves the outcome unknown."""
        body = await self._rest.write(
            at.PLACE, body=codec.create_body(order, self._subaccount), gone_is_normal=False
        )
        placed = self._answered(at.PLACE, lambda: self._codec.structure(body, wire.Placed))
        if placed.remaining_count:
            self._rest.expect(at.AMEND, placed.order_id)
        return PlaceAck(
            order_id=OrderId(placed.order_id), filled=placed.fill_count, remaining=placed.remaining_count
        )

    async def amend(
        self,
        ref: OrderRef,
        *,
        side: Side,
        price: Price,
        count: Count,
        expires_at: Micros | None = None,
    ) -> None:
        """See the port. The answer's body is advisory and not read."""
        await self._rest.write(
            at.AMEND,
            ref.order_id,
            params=self._mine_if_named(),
            body=codec.amend_body(ref, side, price, count, expires_at),
        )

    async def decrease(self, ref: OrderRef, *, reduce_to: Count) -> None:
        """See the port."""
        await self._rest.write(
            at.DECREASE,
            ref.order_id,
            params=self._mine_if_named(),
            body=codec.decrease_body(ref, reduce_to),
        )

    async def cancel(self, ref: OrderRef) -> Count:
        """See the port. Sent as a batch of one where that path's signature is ready: same price, no time to sign.

        Batches bill the bucket of shard 0, so only there.
        """
        if ref.exchange_index == 0 and self._rest.is_ready(at.CANCEL_BATCH):
            return await self._cancel_in_batch(ref)
        query = codec.cancel_item(ref, self._subaccount)
        del query["order_id"]
        body = await self._rest.write(at.CANCEL, ref.order_id, params=query)
        self._rest.forget(at.AMEND, ref.order_id)
        return self._answered(at.CANCEL, lambda: self._codec.structure(body, wire.Cancelled).reduced_by)

    async def _cancel_in_batch(self, ref: OrderRef) -> Count:
        item = codec.cancel_item(ref, self._subaccount)
        body = await self._rest.write(at.CANCEL_BATCH, body={"orders": [item]})
        results = self._answered(at.CANCEL_BATCH, lambda: self._codec.many(body, "orders", wire.BatchItem))
        if len(results) != 1:
            raise OutcomeUnknown(f"{len(results)} results for one order", endpoint=" ".join(at.CANCEL_BATCH))
        if (error := _batch_result(results[0])) is not None:
            raise error
        self._rest.forget(at.AMEND, ref.order_id)
        assert results[0].reduced_by is not None  # `_batch_result` has looked
        return results[0].reduced_by

    async def cancel_batch(self, refs: Sequence[OrderRef]) -> list[ExchangeError | None]:
        """See the port. The whole batch must fit into the write bucket, else it is refused whole (429)."""
        if not refs:
            return []
        body = await self._rest.write(
            at.CANCEL_BATCH,
            body={"orders": [codec.cancel_item(ref, self._subaccount) for ref in refs]},
        )
        results = self._answered(at.CANCEL_BATCH, lambda: self._codec.many(body, "orders", wire.BatchItem))
        by_id = {item.order_id: item for item in results if item.order_id}
        in_order = len(results) == len(refs) and not by_id
        found: list[ExchangeError | None] = []
        for position, ref in enumerate(refs):
            # By id, since the order of results is promised nowhere; by place only when no result names its order.
            item = results[position] if in_order else by_id.get(ref.order_id)
            found.append(_batch_result(item))
        return found

    async def create_group(self, *, contracts_limit: int, exchange_index: int) -> GroupId:
        """See the port."""
        body: JsonObject = {"contracts_limit": contracts_limit, "exchange_index": exchange_index}
        if self._subaccount:
            body["subaccount"] = self._subaccount
        reply = await self._rest.write(at.CREATE_GROUP, body=body, gone_is_normal=False)
        created = self._answered(at.CREATE_GROUP, lambda: self._codec.structure(reply, wire.GroupCreated))
        self._rest.keep(at.TRIGGER_GROUP, created.order_group_id)
        return GroupId(created.order_group_id)

    async def trigger_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """See the port."""
        await self._rest.write(at.TRIGGER_GROUP, group_id, params=self._of_shard(exchange_index))
        self._rest.forget(at.TRIGGER_GROUP, group_id)

    async def delete_group(self, group_id: GroupId, *, exchange_index: int) -> None:
        """See the port."""
        await self._rest.write(at.DELETE_GROUP, group_id, params=self._of_shard(exchange_index))

    # being ready

    async def keep_ready(self) -> NoReturn:
        """See the port: warm connections, and signatures made ahead."""
        self._rest.keep(at.PLACE)
        self._rest.keep(at.CANCEL_BATCH)
        async with trio.open_nursery() as nursery:
            if isinstance(self._rest.http, WarmHttp):
                nursery.start_soon(self._rest.http.keep_warm)
            await self._rest.signatures.run(self._run_blocking)

    def expect(self, ref: OrderRef) -> None:
        """See the port."""
        self._rest.expect(at.AMEND, ref.order_id)

    # feed

    def open_feed(self) -> AbstractAsyncContextManager[Feed]:
        """See the port."""
        return self._feed()

    @asynccontextmanager
    async def _feed(self) -> AsyncGenerator[Feed, None]:
        yield self._feed_factory()

    # help

    @property
    def _subaccount(self) -> int:
        return self._rest.options.subaccount

    def _mine(self) -> dict[str, str | int | None]:
        """Reads default to all subaccounts here and to the first one there: always say which."""
        return {"subaccount": self._subaccount}

    def _mine_if_named(self) -> Params | None:
        return {"subaccount": self._subaccount} if self._subaccount else None

    def _of_shard(self, exchange_index: int) -> Params:
        return {"exchange_index": exchange_index, **(self._mine_if_named() or {})}

    async def _page(
        self,
        endpoint: at.Endpoint,
        key: str,
        cls: type[R],
        convert: Callable[[R], T],
        filters: Params,
        cursor: str | None,
    ) -> Page[T]:
        body = await self._rest.read(
            endpoint, params={**self._mine(), **filters, "limit": PAGE_SIZE, "cursor": cursor}
        )
        rows = self._understood(endpoint, lambda: [convert(row) for row in self._codec.many(body, key, cls)])
        return Page(items=rows, cursor=next_cursor(body))

    def _understood(self, endpoint: at.Endpoint, read: Callable[[], T]) -> T:
        """What a reply to a read means. A row that cannot be read fails the whole read: money has no gaps."""
        try:
            return read()
        except ValueError as error:
            self._codec.tally.bad(" ".join(endpoint), str(error))
            raise ExchangeUnavailable(f"unusable reply: {error}", endpoint=" ".join(endpoint)) from None

    def _answered(self, endpoint: at.Endpoint, read: Callable[[], T]) -> T:
        """What a 2xx answer to a write means; without the fields it must have, nobody knows what was done."""
        try:
            return read()
        except Malformed as error:
            self._codec.tally.bad(" ".join(endpoint), str(error))
            raise OutcomeUnknown(f"unusable answer: {error}", endpoint=" ".join(endpoint)) from None


def _seconds(moment: Micros | None) -> int | None:
    return None if moment is None else moment // SECOND


def _batch_result(item: wire.BatchItem | None) -> ExchangeError | None:
    name = " ".join(at.CANCEL_BATCH)
    if item is None:
        return OutcomeUnknown("no result for this order", endpoint=name)
    if item.error:
        return error_for_code(error_of(item.error), endpoint=name, status=None, gone_is_normal=True)
    if item.reduced_by is None:
        return OutcomeUnknown("a result without a count", endpoint=name)
    if item.reduced_by == 0:
        return NotRestingHere("nothing was taken off", endpoint=name)
    return None


@asynccontextmanager
async def open_kalshi(
    options: KalshiOptions,
    signer: Signer,
    *,
    clock: Clock,
    randomness: Randomness,
    connect: Connect,
    transport: "httpx.AsyncBaseTransport | None" = None,
    ssl_context: ssl.SSLContext | None = None,
    tap: Tap | None = None,
    run_blocking: Runner | None = None,
    sign_ahead: bool = True,
) -> AsyncGenerator[Exchange, None]:
    """Kalshi as an `Exchange`, for as long as the block lasts. Nothing is sent before the first method is called.

    Args:
        options: Where, and how patient.
        signer: As whom.
        clock: The wall clock, for signatures and for what the feed delivers.
        randomness: For the jitter of reconnects.
        connect: Opens the byte streams, without TLS.
        transport: Send requests through this, with httpx, instead of over `connect`.
        ssl_context: Shared by all connections; made when needed (it costs about 15 ms) and not given.
        tap: Is shown every frame of the socket, as it came.
        run_blocking: Where signatures are made ahead; None: in the loop itself.
        sign_ahead: False: every request is signed when it is sent.
    """
    context = ssl_context
    if context is None and (options.rest.is_secure or options.ws.is_secure):
        context = trusting_context()
    reader = Codec()
    account = f"{options.rest.netloc}/{signer.key_id}/{options.subaccount}/live"

    further = itertools.count(1)

    def line(channels: tuple[Channel, ...], on_full: OnFull) -> KalshiFeed:
        shown = tap if tap is None or channels else numbered(tap, next(further) * FURTHER)
        return KalshiFeed(
            options=options,
            signer=signer,
            clock=clock,
            randomness=randomness,
            connect=connect,
            ssl_context=context,
            tap=shown,
            codec=reader,
            channels=channels,
            on_full=on_full,
        )

    signatures = ReadySignatures(signer, clock, is_ahead=sign_ahead)
    http: HttpClient
    if transport is not None:
        from mm.exchange.kalshi.plain_http import HttpxClient

        base_url = f"{options.rest.scheme}://{options.rest.netloc}"
        http = HttpxClient(base_url, transport, options.request_deadline_s)
    else:
        http = WarmHttp(
            connect=connect,
            address=options.rest,
            ssl_context=context,
            deadline_s=options.request_deadline_s,
            connect_timeout_s=options.connect_timeout_s,
        )
    try:
        yield KalshiExchange(
            account,
            Rest(http, options, signatures),
            reader,
            lambda: SpreadFeed(line),
            run_blocking or _in_the_loop,
        )
    finally:
        if isinstance(http, WarmHttp):
            await http.aclose()


def trusting_context() -> ssl.SSLContext:
    """TLS that trusts what the environment names (SSL_CERT_FILE, SSL_CERT_DIR), else certifi's list."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return ssl.create_default_context(cafile=file, capath=folder)
    return ssl.create_default_context(cafile=certifi.where())


async def _in_the_loop(work: Work) -> None:
    await trio.lowlevel.checkpoint()
    work()

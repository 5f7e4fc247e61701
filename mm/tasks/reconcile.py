"""The fill reconciler: what the socket missed, what happened while we were away, and whether our books are the exchange's.

Every 750 ms it reads fills from a stored high-water mark with an overlap, pages to the end, and books what is new.
More slowly it compares resting orders, positions and settlements. A difference that outlives the read lag holds the
market, is told with both numbers, and is repaired from the exchange's history, never by overwriting.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fill import Fill, TradeId
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import MarketTicker, OrderId, OrderState
from mm.exchange import endpoints
from mm.exchange.paging import read_all
from mm.exchange.port import (
    AuthError,
    Exchange,
    ExchangeError,
    NotRestingHere,
    OrderRef,
    OrderReport,
    OrderStatus,
    Page,
    RateLimited,
    Settlement,
)
from mm.ledger import Ledger, SettlementRow
from mm.ledger.ledger import FILLS_MARK
from mm.tasks.budget import ReadBudget, Ticket, Urgency, WriteBudget
from mm.tasks.floor import Floor
from mm.tasks.ids import OrderIds
from mm.tasks.positions import REMEMBERED_FILLS

log = structlog.get_logger(__name__)

FILL_PERIOD_S: Final = 0.75
ORDER_PERIOD_S: Final = 5.0
POSITION_PERIOD_S: Final = 5.0
SETTLEMENT_PERIOD_S: Final = 15.0
OVERLAP: Final = Micros(60 * SECOND)
"""Fills this much older than the mark are read again: reports come late and out of order."""
DRIFT_AFTER_S: Final = 6.0
"""A difference of positions younger than this is read lag."""
ORPHAN_AFTER_S: Final = 5.0
BOOKING_BATCH: Final = 500


@attrs.define(eq=False)
class Drift:
    """A difference between our position and the exchange's."""

    ours: Count
    theirs: Count
    since: float
    is_told: bool = False


@attrs.define(eq=False, kw_only=True)
class Reconciler:
    """Compares and books. `run` and `book_fills` are its tasks; `pass_fills` may be called by anybody."""

    exchange: Exchange
    ledger: Ledger
    floor: Floor
    reads: ReadBudget
    writes: WriteBudget
    ids: OrderIds
    clock: Callable[[], Micros]
    on_drift: Callable[[MarketTicker, Count, Count], None] = lambda ticker, ours, theirs: None
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None
    high_water: Micros | None = None
    """Newest fill time that a whole pass has read."""
    drifts: dict[MarketTicker, Drift] = attrs.field(factory=dict)
    positions_match: bool | None = None
    """Result of the last comparison; None before the first."""
    settlement_wanted: trio.Event = attrs.field(factory=trio.Event)
    passes: int = 0
    _busy: trio.Lock = attrs.field(factory=trio.Lock)
    _orphans: dict[str, float] = attrs.field(factory=dict)
    _confirmed: "OrderedDict[tuple[OrderId, TradeId], None]" = attrs.field(factory=OrderedDict)
    """Fills that a read has brought and the ledger holds."""

    # --- start ---

    async def load(self) -> None:
        """Rebuild every inventory from the ledger, in exchange order."""
        self.high_water = await self.ledger.mark(FILLS_MARK)
        count = await self.ledger.replay_fills(self.floor.positions.load)
        for ticker in self.floor.positions.histories:
            self.floor.update_exposure(ticker)
        log.info("ledger read", fills=count, markets=len(self.floor.positions.histories))

    # --- fills ---

    async def pass_fills(self) -> int:
        """One whole pass over the fills since the mark; returns how many were new to us. Raises `ExchangeError`."""
        async with self._busy:
            return await self._pass_fills()

    async def _pass_fills(self) -> int:
        since = Micros(max(self.high_water - OVERLAP, 0)) if self.high_water is not None else None
        newest = self.high_water

        async def read(cursor: str | None) -> Page[Fill]:
            await self.reads.take(self.reads.limits.cost(*endpoints.FILLS))
            return await self.exchange.fills_page(since=since, cursor=cursor)

        found = await read_all(read, what="fills")
        applied: list[Fill] = []
        for fill in sorted(found, key=lambda f: (f.ts, f.trade_id)):
            newest = fill.ts if newest is None else max(newest, fill.ts, key=int)
            if self.floor.apply_fill(fill):
                applied.append(fill)
                log.info("fill found by the reconciler", market=fill.ticker, trade_id=fill.trade_id)
        # Known ones are written once more as well: a read has the finer time, and the ledger keeps the better row.
        fresh = [fill for fill in found if fill.key not in self._confirmed]
        if fresh or newest != self.high_water:
            await self._book(fresh, applied, newest)
        self.high_water = newest
        self.passes += 1
        if self.floor.desk is not None and self.floor.desk.has_unbooked():
            await self._confirm_unbooked()
        self.floor.decide_dirty(self.clock())
        return len(applied)

    async def _confirm_unbooked(self) -> None:
        """Orders ended by report with fills to come: when reads are current, what has not come was no fill."""
        assert self.floor.desk is not None
        await self.reads.take(self.reads.limits.cost(*endpoints.USER_DATA_TIMESTAMP))
        as_of = await self.exchange.user_data_age()
        self.floor.desk.fills_complete(Micros(as_of - 2 * SECOND))

    async def _book(self, fresh: Sequence[Fill], applied: Sequence[Fill], mark: Micros | None) -> None:
        new = {fill.key for fill in await self.ledger.record_fills(fresh, mark)}
        for fill in applied:
            if fill.key not in new:
                self.floor.positions.take_back(fill)
        for fill in fresh:
            self._confirmed[fill.key] = None
        while len(self._confirmed) > REMEMBERED_FILLS:
            self._confirmed.popitem(last=False)
        await self._rebuild()

    async def _rebuild(self) -> None:
        stale = self.ledger.take_changed() | self.floor.positions.to_rebuild
        for ticker in sorted(stale):
            self.floor.positions.rebuilt(ticker, await self.ledger.fills_of(ticker))
            self.floor.update_exposure(ticker)
            self.floor.mark(ticker)

    async def book_fills(
        self,
        channel: trio.MemoryReceiveChannel[Fill],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write the fills that came over the socket; ends when the channel is closed. Raises `LedgerError`."""
        task_status.started()
        async for fill in channel:
            await self.book_now(channel, [fill])

    async def book_now(self, channel: trio.MemoryReceiveChannel[Fill], batch: list[Fill]) -> None:
        """Write a batch and everything that waits behind it, in one transaction."""
        while len(batch) < BOOKING_BATCH:
            try:
                batch.append(channel.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        await self.ledger.record_fills(batch)
        await self._rebuild()

    # --- the loop ---

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, then reconcile for ever. `started()` after the first clean pass: that is recovery.

        Raises `AuthError`, `LedgerError`, `InvariantError`.
        """
        await self._until_clean()
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, FILL_PERIOD_S, "fills", self._fills_once)
            nursery.start_soon(self._every, ORDER_PERIOD_S, "orders", self.compare_orders)
            nursery.start_soon(self._every, POSITION_PERIOD_S, "positions", self.compare_positions)
            nursery.start_soon(self._settlements)

    async def _until_clean(self) -> None:
        delay = 0.2
        while True:
            try:
                await self.pass_fills()
                await self.read_settlements()
                return
            except AuthError:
                raise
            except ExchangeError as exc:
                self.on_problem("recovery", exc)
                await trio.sleep(delay)
                delay = min(2 * delay, 3.0)

    async def _fills_once(self) -> None:
        await self.pass_fills()

    async def _every(self, period_s: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
        failures = 0
        while True:
            started = trio.current_time()
            try:
                await work()
                failures = 0
            except AuthError:
                raise
            except RateLimited:
                self.reads.refused()
            except ExchangeError as exc:
                failures += 1
                self.on_problem(what, exc)
            wait = period_s * self.reads.stretch() * min(2**failures, 8)
            await trio.sleep(max(0.05, started + wait - trio.current_time()))

    # --- orders ---

    async def compare_orders(self) -> None:
        """Resting orders at the venue against ours: orphans are cancelled, what vanished is looked at."""
        assert self.floor.desk is not None
        started = self.clock()

        async def read(cursor: str | None) -> Page[OrderReport]:
            await self.reads.take(self.reads.limits.cost(*endpoints.ORDERS))
            return await self.exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor)

        listed = {report.order_id: report for report in await read_all(read, what="resting orders")}
        now = trio.current_time()
        for report in listed.values():
            await self._look_at_listed(report, now)
        self._orphans = {i: since for i, since in self._orphans.items() if i in listed}
        settled_since = Micros(started - round(ORPHAN_AFTER_S * SECOND))
        for order in list(self.floor.desk.live.values()):
            is_old = order.state is OrderState.RESTING and order.created_at < settled_since
            if is_old and order.order_id is not None and order.order_id not in listed:
                await self._look_at_missing(order.order_id)

    async def _look_at_listed(self, report: OrderReport, now: float) -> None:
        client_id = report.client_order_id or ""
        if not client_id.startswith(self.ids.bot_prefix):
            return  # foreign: never touched
        assert self.floor.desk is not None
        known = self.floor.desk.find(report.order_id, report.client_order_id)
        if known is not None and known.state is OrderState.UNKNOWN:
            return  # a listing lags: what the lost write did is the resolver's to find out
        if known is not None and known.state is not OrderState.DONE:
            self.floor.desk.on_report(report)
            return
        since = self._orphans.setdefault(report.order_id, now)
        if now - since < ORPHAN_AFTER_S:
            return  # a listing lags: it may show what was cancelled just now
        log.error("orphan order", order_id=report.order_id, client_order_id=client_id, market=report.ticker)
        ticket = Ticket(
            Urgency.EXIT,
            self.writes.limits.cost(*endpoints.CANCEL),
            exchange_index=report.exchange_index,
        )
        await self.writes.acquire(ticket)
        try:
            await self.exchange.cancel(
                OrderRef(order_id=report.order_id, ticker=report.ticker, exchange_index=report.exchange_index)
            )
        except NotRestingHere:
            log.info("orphan was gone already", order_id=report.order_id)

    async def _look_at_missing(self, order_id: OrderId) -> None:
        """One of ours is not listed: it ended without a report reaching us, or the listing lags."""
        assert self.floor.desk is not None
        order = self.floor.desk.find(order_id)
        if order is None or order.state is not OrderState.RESTING:
            return
        await self.reads.take(self.reads.limits.cost(*endpoints.ORDER))
        try:
            report = await self.exchange.order(order_id)
        except NotRestingHere:
            log.warning("order not found", order_id=order_id, market=order.ticker)
            return
        if report.status is not OrderStatus.RESTING:
            log.info("order had ended", order_id=order_id, market=order.ticker, reason=report.reason)
            self.floor.desk.on_report(report)

    # --- positions ---

    async def compare_positions(self) -> bool:
        """Positions at the venue against ours; returns whether all agree. Raises `ExchangeError`."""
        await self.reads.take(self.reads.limits.cost(*endpoints.POSITIONS))
        theirs = {p.ticker: p.position for p in await self.exchange.positions()}
        ours = {
            ticker: history.state.net
            for ticker, history in self.floor.positions.histories.items()
            if ticker not in self.floor.positions.settled
        }
        now = trio.current_time()
        different = {
            t: (ours.get(t, Count(0)), theirs.get(t, Count(0)))
            for t in sorted(ours.keys() | theirs.keys())
            if ours.get(t, Count(0)) != theirs.get(t, Count(0))
        }
        for ticker in [t for t in self.drifts if t not in different]:
            drift = self.drifts.pop(ticker)
            if drift.is_told:
                log.info("positions agree again", market=ticker)
                self._hold(ticker, None)
        for ticker, (mine, venue) in different.items():
            await self._drift(ticker, mine, venue, now)
        self.positions_match = not different
        return not different

    async def _drift(self, ticker: MarketTicker, ours: Count, theirs: Count, now: float) -> None:
        drift = self.drifts.get(ticker)
        if drift is None or (drift.ours, drift.theirs) != (ours, theirs):
            # Both sides move while trading; only a difference that stands still outlives the lag.
            since = now if drift is None or not drift.is_told else drift.since
            self.drifts[ticker] = Drift(ours, theirs, since, drift is not None and drift.is_told)
            return
        if now - drift.since < DRIFT_AFTER_S:
            return
        if ours and not theirs:
            self.settlement_wanted.set()  # a market that was settled has no position at the venue any more
        if not drift.is_told:
            drift.is_told = True
            log.error("position differs", market=ticker, ours=ours, exchange=theirs)
            self._hold(ticker, "our position is not the exchange's")
            self.on_drift(ticker, ours, theirs)
        await self._repair(ticker)

    async def _repair(self, ticker: MarketTicker) -> None:
        """Read the whole history again, from the exchange: what is missing will be there."""
        async with self._busy:
            self.high_water, kept = None, self.high_water
            try:
                await self._pass_fills()
            finally:
                self.high_water = max(filter(None, (self.high_water, kept)), default=None)
        self.floor.positions.rebuilt(ticker, await self.ledger.fills_of(ticker))
        self.floor.update_exposure(ticker)
        self.floor.mark(ticker)

    def _hold(self, ticker: MarketTicker, why: str | None) -> None:
        maker = self.floor.makers.get(ticker)
        if maker is None:
            return
        if why is None:
            maker.holds.pop("drift", None)
        else:
            maker.holds["drift"] = why
        self.floor.order_changed(ticker)

    # --- settlements ---

    async def _settlements(self) -> None:
        while True:
            with trio.move_on_after(SETTLEMENT_PERIOD_S):
                await self.settlement_wanted.wait()
            self.settlement_wanted = trio.Event()
            try:
                await self.read_settlements()
            except AuthError:
                raise
            except ExchangeError as exc:
                self.on_problem("settlements", exc)
            await trio.sleep(0.5)

    async def read_settlements(self) -> None:
        """Settle every market of ours that the venue has settled, also while we were away. Raises `ExchangeError`."""
        open_positions = [t for t in self.floor.positions.histories if t not in self.floor.positions.settled]
        if not open_positions:
            return
        newest = await self.ledger.mark("settlements")
        since = Micros(newest - OVERLAP) if newest is not None else None

        async def read(cursor: str | None) -> Page[Settlement]:
            await self.reads.take(self.reads.limits.cost(*endpoints.SETTLEMENTS))
            return await self.exchange.settlements_page(since=since, cursor=cursor)

        for row in await read_all(read, what="settlements"):
            newest = row.settled_at if newest is None else max(newest, row.settled_at, key=int)
            if self.floor.positions.settle(row.ticker, row.value, row.settled_at):
                log.info("market settled", market=row.ticker, value=row.value)
                self.floor.update_exposure(row.ticker)
            self.ledger.record_settlement(
                SettlementRow(
                    ticker=row.ticker,
                    value=row.value,
                    settled_at=row.settled_at,
                    yes_count=row.yes_count,
                    no_count=row.no_count,
                    fee=row.fee,
                )
            )
        if newest is not None:
            self.ledger.record_mark("settlements", newest)

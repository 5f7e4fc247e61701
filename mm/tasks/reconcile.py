"""The fill reconciler: what the socket missed, what happened while we were away, and whether our books are the exchange's.

Every 750 ms it reads fills from a stored high-water mark with an overlap, pages to the end, and books what is new.
More slowly it compares resting orders, positions and settlements. A difference that outlives the read lag holds the
market, is told with both numbers, and is repaired from the exchange's history, never by overwriting.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

import attrs
import structlog
import trio

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill, TradeId
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker, Order, OrderId
from mm.exchange import endpoints
from mm.exchange.paging import pages
from mm.exchange.port import AuthError, Exchange, ExchangeError, Page, RateLimited
from mm.ledger import Ledger
from mm.ledger.reads import FILLS_MARK
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.cash_check import CashCheck, CashMismatch
from mm.tasks.drift import Drift, DriftReport, PositionCheck
from mm.tasks.fee_check import FeeCheck, FeeMismatch
from mm.tasks.floor import Floor
from mm.tasks.freshness import Moment, reads_show
from mm.tasks.ids import OrderIds
from mm.tasks.order_check import OrderCheck
from mm.tasks.positions import REMEMBERED_FILLS
from mm.tasks.settling import SettlementReader

log = structlog.get_logger(__name__)

FILL_PERIOD_S: Final = 0.75
ORDER_PERIOD_S: Final = 5.0
POSITION_PERIOD_S: Final = 5.0
SETTLEMENT_PERIOD_S: Final = 15.0
RECOVERY_LOOK_S: Final = 0.1
HOUSEKEEPING_PERIOD_S: Final = 6 * 3_600.0
OVERLAP: Final = Micros(60 * SECOND)
"""Fills this much older than the mark are read again: reports come late and out of order."""
BOOKING_BATCH: Final = 500
READING_BATCH: Final = 10_000
"""Fills of one pass that are held in memory before they are booked."""


@attrs.frozen(kw_only=True)
class Listeners:
    """Who is told what the reconciler finds. Plain calls that must not raise."""

    on_drift: Callable[[DriftReport], None] = lambda report: None
    """Positions differ for longer than the read lag: the market is held."""
    on_agreed: Callable[[MarketTicker, int, int], None] = lambda ticker, before, now: None
    """They agree again: our position before the repair and now."""
    on_fee: Callable[[FeeMismatch], None] = lambda mismatch: None
    on_cash: Callable[[CashMismatch], None] = lambda mismatch: None
    on_missing_fills: Callable[[Order, str], None] = lambda order, text: None
    """An order's announced fills do not come."""
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None


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
    listeners: Listeners = attrs.field(factory=Listeners)
    high_water: Micros | None = None
    """Newest fill time that a whole pass has read."""
    nothing_rests_since: Moment | None = None
    """When the sweep at the start was through: recovery ends with reads that show all that was filled before."""
    settlement_wanted: trio.Event = attrs.field(factory=trio.Event)
    passes: int = 0
    checks: PositionCheck = attrs.field(init=False)
    fees: FeeCheck = attrs.field(init=False)
    cash: CashCheck = attrs.field(init=False)
    _settlement_reader: SettlementReader = attrs.field(init=False)
    _orders: OrderCheck | None = None
    _busy: trio.Lock = attrs.field(factory=trio.Lock)
    _confirmed: "OrderedDict[tuple[OrderId, TradeId], None]" = attrs.field(factory=OrderedDict)
    """Fills that a read has brought and the ledger holds."""
    _to_check: "OrderedDict[tuple[OrderId, TradeId], Fill]" = attrs.field(factory=OrderedDict)
    """Confirmed fills whose fees have not been checked."""
    _checked_before: Micros = Micros(0)
    """Fills that an earlier life confirmed end here."""

    def __attrs_post_init__(self) -> None:
        self.checks = PositionCheck(
            exchange=self.exchange,
            floor=self.floor,
            reads=self.reads,
            clock=self.clock,
            read_fills=self.pass_fills,
            repair=self._repair,
            want_settlements=lambda: self.settlement_wanted.set(),
            on_drift=self.listeners.on_drift,
            on_agreed=self.listeners.on_agreed,
        )
        self.fees = FeeCheck(
            exchange=self.exchange,
            reads=self.reads,
            fills_of_orders=self.ledger.fills_of_orders,
            waived_until=self._waived_until,
            on_mismatch=self.listeners.on_fee,
        )
        self._settlement_reader = SettlementReader(
            exchange=self.exchange, ledger=self.ledger, floor=self.floor, reads=self.reads
        )
        self.cash = CashCheck(
            exchange=self.exchange,
            ledger=self.ledger,
            reads=self.reads,
            positions=self.floor.positions,
            on_mismatch=self.listeners.on_cash,
        )

    @property
    def drifts(self) -> dict[MarketTicker, Drift]:
        """Markets whose position differs without an explanation, for however short a time."""
        return self.checks.drifts

    @property
    def positions_match(self) -> bool | None:
        """Result of the last comparison; None before the first."""
        return self.checks.is_equal

    # --- start ---

    async def load(self) -> None:
        """Rebuild every inventory from the ledger, in exchange order."""
        await self._keep_small()
        self.high_water = await self.ledger.mark(FILLS_MARK)
        self._checked_before = self.high_water or Micros(0)
        positions = self.floor.positions
        positions.settled_before = await self.ledger.settled_result()
        count = await self.ledger.replay_fills(positions.load)
        if self.floor.desk is not None:
            self._order_check().note_unknown(await self.ledger.unknown_orders())
        for ticker in positions.histories:
            self.floor.update_exposure(ticker)
        log.info("ledger read", fills=count, markets=len(positions.histories))

    async def _keep_small(self) -> None:
        try:
            done = await self.ledger.keep_small()
        except LedgerError as exc:
            # Nothing was removed: the ledger is only larger than it should be.
            log.error("ledger not archived", error=str(exc))
            return
        if done is not None:
            log.info(
                "ledger archived",
                archive=str(done.archive),
                markets=done.markets,
                fills=done.fills,
                before=done.bytes_before,
                now=done.bytes_after,
            )

    async def _housekeeping(self) -> None:
        while True:
            await trio.sleep(HOUSEKEEPING_PERIOD_S)
            await self._keep_small()

    # --- fills ---

    async def pass_fills(self) -> int:
        """One whole pass over the fills since the mark; returns how many were new to us. Raises `ExchangeError`."""
        async with self._busy:
            since = Micros(max(self.high_water - OVERLAP, 0)) if self.high_water is not None else None
            found = await self._pass_fills(since)
        if self.floor.desk is not None:
            if self.floor.desk.has_unbooked():
                await self._order_check().look_at_announced()
            if self.reads.stretch() == 1.0:
                await self._order_check().identify()
        await self._check_fees()
        return found

    async def _pass_fills(self, since: Micros | None) -> int:
        """Read from `since` to the end of the listing; what was read is booked even if the listing breaks off."""
        newest, found = self.high_water, 0
        part: list[Fill] = []

        async def read(cursor: str | None) -> Page[Fill]:
            await self.reads.take(self.reads.limits.cost(*endpoints.FILLS))
            return await self.exchange.fills_page(since=since, cursor=cursor)

        try:
            async with aclosing(pages(read, what="fills")) as listing:
                async for page in listing:
                    part += page
                    newest = max(filter(None, (newest, *(fill.ts for fill in page))), default=None)
                    if len(part) >= READING_BATCH:
                        found += await self._book(part, None)
                        part = []
        except ExchangeError:
            # Every fill that came is true, though others may be missing: the mark stays.
            await self._book(part, None)
            raise
        found += await self._book(part, newest)
        self.high_water = newest
        self.passes += 1
        self.floor.decide_dirty(self.clock())
        return found

    async def _book(self, fills: Sequence[Fill], mark: Micros | None) -> int:
        """Commit what a read brought, then move the positions by what nobody had told before; gives its number."""
        # Known ones are written once more as well: a read has the finer time, and the ledger keeps the better row.
        fresh = [fill for fill in fills if fill.key not in self._confirmed]
        if not fresh and (mark is None or mark == self.high_water):
            return 0
        await self._learn_settled(fresh)
        found = 0
        new = await self.ledger.record_fills(fresh, mark)
        for fill in new:
            if self.floor.apply_fill(fill):
                found += 1
                log.info("fill found by the reconciler", market=fill.ticker, trade_id=fill.trade_id)
        await self._note_unknown(new)
        keys = {fill.key for fill in new}
        for fill in fresh:
            self._confirmed[fill.key] = None
            if fill.key in keys or fill.ts > self._checked_before:
                self._to_check[fill.key] = fill
        while len(self._confirmed) > REMEMBERED_FILLS:
            self._confirmed.popitem(last=False)
        await self._rebuild()
        return found

    async def _note_unknown(self, fills: Sequence[Fill]) -> None:
        desk = self.floor.desk
        strange = sorted(
            {
                f.order_id
                for f in fills
                if desk is not None and desk.find(f.order_id, f.client_order_id) is None
            }
        )
        if strange:
            known = await self.ledger.find_orders(strange)
            self._order_check().note_unknown(i for i in strange if i not in known)

    async def _book_more(self, fills: Sequence[Fill]) -> None:
        async with self._busy:
            await self._book(fills, None)

    async def _learn_settled(self, fills: Sequence[Fill]) -> None:
        """Fills of markets that an earlier life has settled must not open them again."""
        positions = self.floor.positions
        strange = {fill.ticker for fill in fills} - positions.histories.keys() - positions.settled.keys()
        if not strange:
            return
        for row in await self.ledger.settlements(strange):
            positions.settled_earlier(
                row.ticker, await self.ledger.fills_of(row.ticker), row.value, row.settled_at
            )

    async def _check_fees(self) -> None:
        while self._to_check:
            part = list(self._to_check.values())[:BOOKING_BATCH]
            try:
                await self.fees.check(part)
            except AuthError:
                raise
            except ExchangeError as exc:
                self.listeners.on_problem("fee schedules", exc)
                return  # checked with the next pass
            for fill in part:
                self._to_check.pop(fill.key, None)  # another pass may have checked it meanwhile

    def _waived_until(self, ticker: MarketTicker) -> Micros | None:
        maker = self.floor.makers.get(ticker)
        return maker.market.fee_waiver_until if maker is not None else None

    async def _rebuild(self) -> None:
        stale = self.ledger.take_changed() | self.floor.positions.to_rebuild
        for ticker in sorted(stale):
            await self._rebuild_market(ticker)

    async def _rebuild_market(self, ticker: MarketTicker) -> None:
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
        recorded = await self.ledger.record_fills(batch)
        await self._note_unknown(recorded)
        new = {fill.key for fill in recorded}
        # Known already: a poll was faster, or memory had forgotten it and counted it twice. The ledger tells.
        self.floor.positions.to_rebuild |= {fill.ticker for fill in batch if fill.key not in new}
        await self._rebuild()

    # --- the loop ---

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, then reconcile for ever. `started()` after the first clean pass: that is recovery.

        Nothing rests then, so that is when cash is compared.

        Raises `AuthError`, `LedgerError`, `InvariantError`.
        """
        await self._until_clean()
        await self.check_cash()
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, FILL_PERIOD_S, "fills", self._fills_once)
            nursery.start_soon(self._every, ORDER_PERIOD_S, "orders", self.compare_orders)
            nursery.start_soon(self._every, POSITION_PERIOD_S, "positions", self.compare_positions)
            nursery.start_soon(self._settlements)
            nursery.start_soon(self._housekeeping)

    async def _until_clean(self) -> None:
        delay = 0.2
        while True:
            try:
                while not await self._shows_the_past():
                    await trio.sleep(RECOVERY_LOOK_S)
                await self.pass_fills()
                await self.read_settlements()
                if await self._shows_the_past():  # else reads have fallen back meanwhile
                    return
            except AuthError:
                raise
            except ExchangeError as exc:
                self.listeners.on_problem("recovery", exc)
                await trio.sleep(delay)
                delay = min(2 * delay, 3.0)

    async def _shows_the_past(self) -> bool:
        since = self.nothing_rests_since
        if since is None:
            return True
        await self.reads.take(self.reads.limits.cost(*endpoints.USER_DATA_TIMESTAMP))
        return await reads_show(self.exchange, since, self.clock)

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
                self.listeners.on_problem(what, exc)
            wait = period_s * self.reads.stretch() * min(2**failures, 8)
            await trio.sleep(max(0.05, started + wait - trio.current_time()))

    # --- orders and positions ---

    def _order_check(self) -> OrderCheck:
        """Made when first needed: the desk comes after the reconciler."""
        if self._orders is None:
            assert self.floor.desk is not None
            self._orders = OrderCheck(
                exchange=self.exchange,
                desk=self.floor.desk,
                reads=self.reads,
                writes=self.writes,
                ids=self.ids,
                clock=self.clock,
                book=self._book_more,
                on_missing=self.listeners.on_missing_fills,
                names=self.ledger,
            )
        return self._orders

    async def compare_orders(self) -> None:
        """Resting orders at the venue against ours. Raises `ExchangeError`."""
        await self._order_check().compare()

    async def compare_positions(self) -> bool:
        """Positions at the venue against ours; returns whether all agree. Raises `ExchangeError`."""
        return await self.checks.compare()

    async def check_cash(self) -> bool | None:
        """Cash at the venue against ours; None when that could not be compared. See `CashCheck`."""
        try:
            return await self.cash.check()
        except AuthError:
            raise
        except ExchangeError as exc:
            self.listeners.on_problem("cash", exc)
            return None

    async def log_head(self) -> None:
        """Leave the head of the chain over the money rows in the log, where a change of the ledger does not reach."""
        log.info("books closed", chain_head=str(await self.ledger.chain_head()))

    async def _repair(self, ticker: MarketTicker, since: Micros | None) -> None:
        """Read the exchange's fills anew, from a time on or all of them: what is missing will be there."""
        start = Micros(max(since - OVERLAP, 0)) if since is not None else None
        self._confirmed.clear()
        async with self._busy:
            await self._pass_fills(start)
        if since is None:
            await self.read_settlements(is_whole=True)
        await self._rebuild_market(ticker)

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
                self.listeners.on_problem("settlements", exc)
            await trio.sleep(0.5)

    async def read_settlements(self, *, is_whole: bool = False) -> None:
        """Settle every market of ours that the venue has settled, also while we were away. Raises `ExchangeError`."""
        await self._settlement_reader.read(is_whole=is_whole)
        await self._rebuild()

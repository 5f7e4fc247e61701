"""A recording as a source of markets: its books stand in the core as house orders, so that clients trade against them.

How the recorded book and ours stay together. The house keeps, per recorded level, orders that sum to the recorded
size less its *deficit*: what clients took from that level and the recording does not know about. So the public book
less the clients' own orders is the recorded book, save for their own fills; a level's deficit never exceeds what the
recording shows there, and is forgotten when the level goes.

- A recorded order that comes in at or through a client's resting order trades with it first, as it would have.
- A level that shrinks without a recorded trade is taken as a cancel of the newest orders in it: a client's place in
  the queue is then never better than it would have been. Most recordings have no trades; with `infers_trades` a best
  level that shrinks in one of those counts as traded, from the front of the queue. Some of these fills would not have
  happened, so it is off by default.
- A recorded trade eats the queue from its front, clients included; the house then stands again as recorded.
- Recorded books cross for moments (the recorder saw the new order before the end of the old one). The core never
  crosses: the newer level waits until the older one is gone.

The tickers keep their recorded dates (run a bot with `MARKET_DATE=any`). A market is listed when its first snapshot
comes and closes when the recording says so (a noted close time, shifted to now and scaled by speed). No result is
recorded: with `settles` a closed market ends as its last book said (YES from 50 cents on), otherwise it stays closed.
At the end of the file the last books stay until the exchange is stopped.
"""

from collections import Counter
from pathlib import Path
from typing import Final

import attrs
import trio

from mm.domain.book import OrderBook
from mm.domain.fees import FeeType
from mm.domain.market import MarketStatus
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker, Side, TimeInForce
from mm.domain.tickers import event_of, parse_event_token, series_of
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import (
    EventSpec,
    MarketSpec,
    OrderRecord,
    OrderRequest,
    OrderStatus,
    SeriesSpec,
)
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.slate.recording import (
    Recording,
    Step,
    StepKind,
    apply_step,
    load_recording,
    structure_name,
)
from mm.exchange.embedded.slate.source import Driver, NoGames, sleep_until

RECORDED: Final = "house-recorded"
TAKERS: Final = "house-recorded-takers"
OPEN_FOR: Final = Micros(72 * 3600 * SECOND)
"""From the listing to the close, where the recording names none."""
FIRST_BOOKS: Final = 10 * SECOND
"""Markets whose first snapshot lies within this recorded time are listed at once."""
BATCH: Final = 500
"""Steps worked off before others get a turn."""
_EXCLUSIVE: Final = ("GAME", "MATCH", "FIGHT")


@attrs.define(eq=False, repr=False)
class _Level:
    """The house's orders at one recorded price, oldest first."""

    orders: list[OrderRecord] = attrs.field(factory=list)
    counted: int = 0
    """How much of the fills of `orders` is in `deficit` (or was the recording's own trade)."""
    deficit: int = 0
    """What clients took and the recording still shows."""

    @property
    def stands(self) -> int:
        """What rests."""
        return sum(order.remaining for order in self.orders)

    @property
    def filled(self) -> int:
        """What of `orders` was filled."""
        return sum(order.filled for order in self.orders)

    @property
    def was_wiped(self) -> bool:
        """Whether the exchange itself cancelled here (a market that was reactivated)."""
        return any(order.status is OrderStatus.CANCELED for order in self.orders)

    def settle_up(self) -> None:
        """Book what was filled since the last look as taken by clients, and forget orders that are gone."""
        self.deficit += self.filled - self.counted
        self.orders = [order for order in self.orders if order.status is OrderStatus.RESTING]
        self.counted = self.filled


@attrs.define(eq=False, repr=False)
class ReplayedMarket:
    """One recorded market and the house orders that stand for its book."""

    core: ExchangeCore
    state: MarketState
    infers_trades: bool = False
    """Whether a best level that shrinks was traded."""
    recorded: OrderBook = attrs.field(factory=OrderBook)
    """The recorded book, folded and nothing else."""
    refusals: Counter[str] = attrs.field(factory=Counter)
    """What the exchange refused (pauses), by code; the book is made whole afterwards."""
    _levels: dict[Side, dict[Price, _Level]] = attrs.field(factory=lambda: {Side.BID: {}, Side.ASK: {}})
    _waiting: dict[tuple[Side, Price], None] = attrs.field(factory=dict)
    """Levels that would cross, in order of arrival."""
    _is_behind: bool = False
    """Something could not be placed or cancelled: every level has to be looked at."""

    def take(self, step: Step, now: Micros) -> None:
        """Do one recorded step."""
        inferred = self._inferred(step) if self.infers_trades else None
        if step.kind is not StepKind.TRADE:
            apply_step(self.recorded, step)
        if self.state.status is not MarketStatus.ACTIVE:
            self._is_behind = True
            return
        try:
            if self._is_behind or step.kind is StepKind.SNAPSHOT or self._was_wiped():
                self._is_behind = False
                self._match_all(now)
            if inferred is not None:
                self._trade(inferred, now)
            if step.kind is StepKind.TRADE:
                self._trade(step, now)
            elif step.kind is StepKind.DELTA:
                self._match(step.side, step.price, now)
            for side, price in list(self._waiting):
                self._match(side, price, now)
        except Refused as refused:
            self.refusals[refused.code] += 1
            self._is_behind = True

    def _inferred(self, step: Step) -> Step | None:
        """The trade that a shrinking best level stands for; None for any other step."""
        best = self.recorded.best_bid if step.side is Side.BID else self.recorded.best_ask
        if step.kind is not StepKind.DELTA or step.count >= 0 or step.price != best:
            return None
        return attrs.evolve(step, kind=StepKind.TRADE, side=step.side.opposite, count=Count(-step.count))

    @property
    def verdict(self) -> Price:
        """What the last book says that one YES pays."""
        bid, ask = self.recorded.best_bid, self.recorded.best_ask
        middle = ((0 if bid is None else bid) + (DOLLAR if ask is None else ask)) / 2
        return DOLLAR if middle >= DOLLAR / 2 else Price(0)

    def deficit(self, side: Side, price: Price) -> Count:
        """What clients took from a level that the recording still shows."""
        level = self._levels[side].get(price)
        return Count(0 if level is None else level.deficit + level.filled - level.counted)

    def is_waiting(self, side: Side, price: Price) -> bool:
        """Whether the level is held back because the recorded book is crossed there."""
        return (side, price) in self._waiting

    def _was_wiped(self) -> bool:
        best = ((Side.BID, self.recorded.best_bid), (Side.ASK, self.recorded.best_ask))
        levels = [self._levels[side].get(price) for side, price in best if price is not None]
        return any(level is not None and level.was_wiped for level in levels)

    def _match_all(self, now: Micros) -> None:
        """Every level. What is gone first: new levels may stand where the old other side stood."""
        held = [(side, price) for side in Side for price in self._levels[side]]
        recorded = [(Side.BID, price) for price in self.recorded.bids]
        recorded += [(Side.ASK, price) for price in self.recorded.asks]
        gone = [key for key in held if not self.recorded.size_at(*key)]
        for side, price in gone + recorded:
            self._match(side, price, now)

    def _match(self, side: Side, price: Price, now: Micros) -> None:
        """Make the house's orders at a level what the recording shows, less the deficit. May raise `Refused`."""
        wanted = self.recorded.size_at(side, price)
        self._waiting.pop((side, price), None)
        level = self._levels[side].get(price)
        if level is None:
            if not wanted:
                return
            level = self._levels[side][price] = _Level()
        level.settle_up()
        level.deficit = min(level.deficit, wanted)
        missing = wanted - level.deficit - level.stands
        if missing > 0 and self._would_cross(side, price):
            self._waiting[side, price] = None
        elif missing > 0:
            self._add(level, side, price, Count(missing), now)
        elif missing < 0:
            self._shrink(level, -missing, now)
        if not wanted:
            del self._levels[side][price]

    def _would_cross(self, side: Side, price: Price) -> bool:
        """Whether the house itself stands at or through `price` on the other side."""
        others = self._levels[side.opposite].items()
        if side is Side.BID:
            return any(other <= price and level.stands for other, level in others)
        return any(other >= price and level.stands for other, level in others)

    def _add(self, level: _Level, side: Side, price: Price, count: Count, now: Micros) -> None:
        request = OrderRequest(ticker=self.state.ticker, side=side, count=count, price=price)
        result = self.core.create(now, RECORDED, request)
        level.deficit += result.fill_count
        if result.remaining_count:
            order = self.core.order(RECORDED, result.order_id)
            assert order is not None, "an order that rests can be read"
            level.orders.append(order)
            level.counted += order.filled

    def _shrink(self, level: _Level, by: int, now: Micros) -> None:
        """Take `by` off a level, the newest orders first."""
        while by:
            order = level.orders[-1]
            if order.remaining > by:
                self.core.decrease(now, RECORDED, order.order_id, reduce_by=Count(by))
                return
            by -= order.remaining
            self.core.cancel(now, RECORDED, order.order_id)
            level.orders.pop()
            level.counted -= order.filled

    def _trade(self, step: Step, now: Micros) -> None:
        """A recorded print: eat the queue up to its price, then stand as recorded again."""
        if not self.state.grid.is_valid(step.price):
            return
        side = step.side.opposite
        for level in self._levels[side].values():
            level.settle_up()
        request = OrderRequest(
            ticker=self.state.ticker,
            side=step.side,
            count=step.count,
            price=step.price,
            time_in_force=TimeInForce.IOC,
        )
        self.core.create(now, TAKERS, request)
        for price, level in list(self._levels[side].items()):
            if level.filled != level.counted:
                # The recording's own trade, not a client's: its book will tell what is left.
                level.counted = level.filled
                self._match(side, price, now)


@attrs.define(eq=False, kw_only=True, repr=False)
class Replay(NoGames):
    """A `MarketSource` that plays one recording once. `run` drives it on trio; `open` and `work` without a loop."""

    recording: Recording
    speed: float = 1.0
    infers_trades: bool = False
    """In a recording without trades a best level that shrinks counts as traded."""
    settles: bool = False
    """Markets that close are determined by their last book, and settle."""
    markets: dict[MarketTicker, ReplayedMarket] = attrs.field(factory=dict)
    _core: ExchangeCore | None = None
    _begun: Micros = Micros(0)
    _next: int = 0
    _worked: Micros = Micros(0)
    """Up to when everything is done."""

    def __attrs_post_init__(self) -> None:
        if not 0.01 <= self.speed <= 10_000:
            raise ValueError(f"speed must be between 0.01 and 10000, not {self.speed}")

    @classmethod
    def load(
        cls, path: Path, *, speed: float = 1.0, infers_trades: bool = False, settles: bool = False
    ) -> "Replay":
        """Read a recording into memory. Raises `ReplayError`."""
        recording = load_recording(path)
        has_trades = any(step.kind is StepKind.TRADE for step in recording.steps)
        return cls(
            recording=recording,
            speed=speed,
            infers_trades=infers_trades and not has_trades,
            settles=settles,
        )

    @property
    def core(self) -> ExchangeCore:
        """The exchange, once opened."""
        assert self._core is not None, "open() comes first"
        return self._core

    @property
    def is_at_end(self) -> bool:
        """Whether the whole recording has been played."""
        return self._next >= len(self.recording.steps)

    # --- without a loop ----------------------------------------------------------------------------------------------

    def open(self, driver: Driver) -> None:
        """List the series and everything that the recording knows at its first moment."""
        self._core = driver.core
        self._begun = driver.clock()
        for user in (RECORDED, TAKERS):
            self._core.add_user(user, is_house=True)
        for step in self._first_books():
            self._market(step.ticker, self._begun).take(step, self._begun)
        while self.work(self._begun):
            pass

    def _first_books(self) -> list[Step]:
        """The first snapshot of every market that appears within the first seconds: all are listed at once.

        They come again at their time in the recording, which changes nothing: no delta comes before them.
        """
        steps = self.recording.steps
        found: dict[MarketTicker, Step] = {}
        for step in steps:
            if step.at > steps[0].at + FIRST_BOOKS:
                break
            if step.kind is StepKind.SNAPSHOT:
                found.setdefault(step.ticker, step)
        return list(found.values())

    def work(self, now: Micros, most: int = BATCH) -> bool:
        """Play what is due by `now`, at most `most` steps; whether something due is left."""
        steps = self.recording.steps
        self.core.advance(now)
        self._worked = now
        if self.settles:
            self._settle_closed(now)
        while self._next < len(steps):
            if self._due(steps[self._next].at) > now:
                return False
            if not most:
                return True
            most -= 1
            step = steps[self._next]
            self._next += 1
            self._market(step.ticker, now).take(step, now)
        return False

    def _settle_closed(self, now: Micros) -> None:
        for ticker in self.recording.closes:
            market = self.markets.get(ticker)
            if market is not None and market.state.status is MarketStatus.CLOSED:
                self.core.determine(now, ticker, market.verdict)

    @property
    def duration(self) -> Micros:
        """Wall time from the first step to the last."""
        return Micros(self._due(self.recording.steps[-1].at) - self._begun)

    @property
    def next_due(self) -> Micros | None:
        """When something is due next; None at the end."""
        due = [] if self.is_at_end else [self._due(self.recording.steps[self._next].at)]
        if self.settles:
            closes = [market.state.close_time for market in self.markets.values()]
            due += [close for close in closes if close > self._worked]
        return min(due, default=None)

    def _due(self, recorded: Micros) -> Micros:
        return Micros(self._begun + int((recorded - self.recording.steps[0].at) / self.speed))

    def _market(self, ticker: MarketTicker, now: Micros) -> ReplayedMarket:
        """A market; listed when it appears for the first time."""
        found = self.markets.get(ticker)
        if found is None:
            found = self.markets[ticker] = ReplayedMarket(
                self.core, self._list(ticker, now), self.infers_trades
            )
        return found

    def _list(self, ticker: MarketTicker, now: Micros) -> MarketState:
        core = self.core
        series, event = series_of(ticker), event_of(ticker)
        if series not in core.series():
            core.add_series(now, _series_spec(series))
        if event not in core.events():
            core.add_event(now, _event_spec(event, series))
        grid = self.recording.grids[series]
        closes = self.recording.closes.get(ticker)
        close_time = Micros(now + OPEN_FOR) if closes is None else max(self._due(closes), now)
        return core.add_market(
            now,
            MarketSpec(
                ticker=ticker,
                event_ticker=event,
                open_time=now,
                close_time=close_time,
                grid=grid,
                price_level_structure=structure_name(grid),
                title=f"{event} {ticker.rpartition('-')[2]}",
                yes_sub_title=ticker.rpartition("-")[2],
                no_sub_title=ticker.rpartition("-")[2],
                expected_expiration_time=close_time,
                latest_expiration_time=close_time,
                metadata={"rules_primary": "Recorded market.", "rules_secondary": ""},
            ),
        )

    # --- on trio -----------------------------------------------------------------------------------------------------

    async def run(
        self, driver: Driver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `MarketSource.run`. After the last step the last books stay."""
        self.open(driver)
        driver.batch_done()
        task_status.started()
        while True:
            is_behind = self.work(driver.clock())
            driver.batch_done()
            if is_behind:
                await trio.lowlevel.checkpoint()
            else:
                await sleep_until(driver, self.next_due)


def _series_spec(series: str) -> SeriesSpec:
    """Fees as that kind of series has them: games with maker fees, the crypto series without."""
    has_maker_fees = series.endswith(_EXCLUSIVE)
    return SeriesSpec(
        ticker=series,
        title=series,
        category="Sports" if has_maker_fees else "Other",
        fee_type=FeeType.QUADRATIC_WITH_MAKER_FEES if has_maker_fees else FeeType.QUADRATIC,
    )


def _event_spec(event: str, series: str) -> EventSpec:
    token = parse_event_token(event)
    return EventSpec(
        ticker=event,
        series_ticker=series,
        title=event,
        sub_title=token.rest if token is not None else "",
        is_mutually_exclusive=series.endswith(_EXCLUSIVE),
    )

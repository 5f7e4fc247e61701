"""The wide slate: as many markets as the real venue lists, cheap, to try what looks at all of it.

Series of several kinds and fee types, events of one to twelve markets, popularity by a power law as on the real venue: a few
thousand markets have a book and have been traded, a few hundred trade now, the rest is dead. The busy ones move by ticks and
are met by takers, `MOST_EVENTS` a second in all however many are listed; the busiest carry a liquidity program. Nothing ends
here by itself. One seed, one slate; what happens depends on the clock and on who else trades.
"""

from bisect import bisect
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from random import Random
from typing import Final

import attrs
import trio

from mm.domain.fees import FeeType
from mm.domain.numbers import CONTRACT, SECOND, Count, Micros
from mm.domain.order import MarketTicker, OrderId, Side
from mm.domain.tickers import format_time
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, SeriesSpec
from mm.exchange.embedded.slate.makers import DEEP, FAST, NOISE, Floor
from mm.exchange.embedded.slate.source import Driver, NoGames, sleep_until

MOST_MARKETS: Final = 200_000
MOST_EVENTS: Final = 200.0
"""Book changes and takers a second over all markets."""
SERIES: Final = 240
BOOKED_SHARE: Final = 8
"""One market in so many has a book, and at most `MOST_BOOKED`."""
MOST_BOOKED: Final = 10_000
BUSY_SHARE: Final = 20
"""One booked market in so many moves."""
LEAST_BUSY: Final = 50
REWARDED: Final = 100
"""The busiest markets that carry a program."""
LISTED_AT_ONCE: Final = 500
"""Markets listed before others get a turn."""
HOUR: Final = 3_600 * SECOND
KINDS: Final = (
    (FeeType.QUADRATIC, Fraction(1)),
    (FeeType.QUADRATIC, Fraction(1)),
    (FeeType.QUADRATIC_WITH_MAKER_FEES, Fraction(1)),
    (FeeType.QUADRATIC_WITH_MAKER_FEES, Fraction(1, 2)),
    (FeeType.FLAT, Fraction(1)),
)
CATEGORIES: Final = ("Politics", "Economics", "Sports", "Entertainment", "Climate and Weather", "Crypto")


@attrs.define(eq=False)
class WideMarket:
    """One market with a book."""

    ticker: MarketTicker
    middle: int
    """In cents."""
    half: int
    """Of its spread, in cents."""
    quotes: list[OrderId] = attrs.field(factory=list)


@attrs.define(eq=False, kw_only=True, repr=False)
class WideSlate(NoGames):
    """A `MarketSource` of `markets` markets. Raises `ValueError` for a number out of range."""

    seed: int
    markets: int
    shards: int = 1
    booked: list[WideMarket] = attrs.field(factory=list)
    """Most popular first."""
    _rng: Random = attrs.field(init=False)
    _floor: Floor | None = None
    _busy: list[float] = attrs.field(factory=list)
    """Of the busy markets, the sums of their weights."""
    _next: Micros = Micros(0)

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.markets <= MOST_MARKETS:
            raise ValueError(f"a wide slate has 1 to {MOST_MARKETS} markets, not {self.markets}")
        self._rng = Random(f"{self.seed}/wide")  # noqa: S311 - repeatable on purpose

    @property
    def floor(self) -> Floor:
        """Where the house trades, once listed."""
        assert self._floor is not None, "prepare() comes first"
        return self._floor

    def prepare(self, driver: Driver) -> Iterator[None]:
        """List everything, a part at each step."""
        now = driver.clock()
        self._floor = Floor(driver.core, now)
        self._floor.open_accounts()
        for n in range(SERIES):
            fee_type, multiplier = KINDS[n % len(KINDS)]
            spec = SeriesSpec(
                ticker=f"KXWIDE{n:03d}",
                title=f"Wide {n}",
                category=CATEGORIES[n % len(CATEGORIES)],
                fee_type=fee_type,
                fee_multiplier=multiplier,
                exchange_index=n % self.shards,
            )
            driver.core.add_series(now, spec)
        tickers: list[MarketTicker] = []
        event = 0
        while len(tickers) < self.markets:
            tickers += self._list_event(driver, event, self.markets - len(tickers))
            event += 1
            if event % (LISTED_AT_ONCE // 6) == 0:
                yield
        self._rng.shuffle(tickers)
        count = min(MOST_BOOKED, max(1, self.markets // BOOKED_SHARE))
        for rank, ticker in enumerate(tickers[:count]):
            self._open_book(ticker, rank)
            if rank % LISTED_AT_ONCE == LISTED_AT_ONCE - 1:
                yield
        busy = self.booked[: max(LEAST_BUSY, count // BUSY_SHARE)]
        self._busy = list(accumulate(1.0 / (rank + 3) for rank in range(len(busy))))
        self._next = now

    def work(self, now: Micros) -> None:
        """Everything that is due by `now`."""
        self.floor.now = now
        self.floor.free_stuck()
        while self._next <= now:
            self._next = Micros(self._next + max(1, int(self._rng.expovariate(MOST_EVENTS) * SECOND)))
            at = bisect(self._busy, self._rng.random() * self._busy[-1])
            self._move(self.booked[min(at, len(self._busy) - 1)])

    def _list_event(self, driver: Driver, number: int, most: int) -> list[MarketTicker]:
        rng, now = self._rng, driver.clock()
        series = rng.randrange(SERIES)
        ticker = f"KXWIDE{series:03d}-E{number:05d}"
        ends = Micros(now + int(HOUR * 10 ** rng.uniform(0, 3.5)))
        listed = Micros(now - HOUR * rng.randrange(1, 48))
        driver.core.add_event(
            now,
            EventSpec(
                ticker=ticker, series_ticker=ticker.partition("-")[0], exchange_index=series % self.shards
            ),
        )
        found: list[MarketTicker] = []
        for i in range(min(most, rng.choice((1, 1, 2, 2, 3, 6, 12)))):
            spec = MarketSpec(
                ticker=MarketTicker(f"{ticker}-{i}"),
                event_ticker=ticker,
                open_time=listed,
                close_time=Micros(ends + HOUR),
                expected_expiration_time=ends,
                exchange_index=series % self.shards,
                title=f"Will outcome {i} of event {number} come true?",
            )
            driver.core.add_market(now, spec)
            found.append(spec.ticker)
        return found

    def _open_book(self, ticker: MarketTicker, rank: int) -> None:
        rng = self._rng
        market = WideMarket(ticker, rng.randrange(8, 93), rng.choice((1, 1, 2, 3, 5)))
        self.booked.append(market)
        self._quote(market)
        volume = Count(int(400_000 / (rank + 3)) * CONTRACT)
        if volume and market.quotes:
            # What was traded before we came: one print, so that listings show who is popular.
            self.floor.rest(DEEP, ticker, Side.ASK, market.middle + market.half, volume)
            self.floor.take(NOISE, ticker, Side.BID, market.middle + market.half, volume)
            self._quote(market)

    def _quote(self, market: WideMarket) -> None:
        """The house's two quotes at the market's middle, the old ones gone."""
        for order_id in market.quotes:
            self.floor.cancel(FAST, order_id)
        market.quotes.clear()
        for side, cents in ((Side.BID, market.middle - market.half), (Side.ASK, market.middle + market.half)):
            resting = self.floor.rest(FAST, market.ticker, side, cents, Count(500 * CONTRACT))
            if resting is not None:
                market.quotes.append(resting)

    def _move(self, market: WideMarket) -> None:
        rng = self._rng
        if rng.random() < 0.3:
            side = rng.choice((Side.BID, Side.ASK))
            reach = market.middle + side.sign * market.half
            self.floor.take(NOISE, market.ticker, side, reach, Count(rng.randrange(1, 40) * CONTRACT))
        else:
            market.middle = min(92, max(8, market.middle + rng.choice((-1, 0, 1))))
            self._quote(market)

    # --- a `MarketSource` ---

    async def run(
        self, driver: Driver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `MarketSource.run`."""
        for _ in self.prepare(driver):
            driver.batch_done()
            await trio.lowlevel.checkpoint()
        task_status.started()
        while True:
            self.work(driver.clock())
            driver.batch_done()
            await sleep_until(driver, self._next)

    def incentive_programs(self, now: Micros) -> list[dict[str, object]]:
        """A liquidity program for each of the busiest markets: 20 dollars a day."""
        begun = Micros(now - now % (24 * HOUR))
        return [
            {
                "id": f"wide-{market.ticker}",
                "market_id": market.ticker,
                "market_ticker": market.ticker,
                "incentive_type": "liquidity",
                "incentive_description": "Liquidity incentive",
                "start_date": format_time(begun, trim=True),
                "end_date": format_time(Micros(begun + 24 * HOUR), trim=True),
                "period_reward": 200_000,
                "paid_out": False,
                "discount_factor_bps": 5_000,
                "target_size_fp": "1000.00",
                "max_reward_per_account": 100_000,
            }
            for market in self.booked[:REWARDED]
        ]

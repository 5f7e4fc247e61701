"""Everybody who trades in one market: makers, retail orders, noise takers, informed takers.

What each *intends* (when, which side, how much) is drawn from the market's own random stream in an order that no
trade can change; what comes of it depends on the book. So the same seed gives the same intentions whoever else is
there. Prices in cents. Rates are per second of wall time, already scaled by speed and thinned (`Pace`); reaction
delays are wall time at any speed.

The quantities follow recordings of real sports books: a spread of 1-2 cents, thousands of contracts at most touches
but one in ten nearly empty, prints of a few to some hundred contracts, now and then one that eats two or three
levels, a rush of cancels at a goal and a wide market for some seconds after it.
"""

import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from mm.domain.numbers import CENT, CONTRACT, SECOND, Count, Micros
from mm.domain.order import OrderId, Side
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.slate.agenda import Agenda
from mm.exchange.embedded.slate.goals import PLAIN, GoalBehaviour
from mm.exchange.embedded.slate.makers import (
    DEEP,
    FAST,
    HIGHEST,
    INFORMED,
    LOWEST,
    NOISE,
    RETAIL,
    SLOW,
    Floor,
    Layers,
)

HALF_SPREAD: Final = 0.2
"""Cents from fair value to the touch at least: a 1 cent spread 60 % of the time, else 2."""
STICKINESS: Final = 0.15
"""Cents by which fair value may leave its place before the touch follows."""
SLOW_EXTRA: Final = 0.3
"""The slow maker keeps this much more distance."""
NEWS_CENTS: Final = 2.5
"""A jump of fair value from here on is news."""
STALE_CENTS: Final = 1.0
"""Informed takers want at least this edge."""
RETAIL_ORDERS: Final = 10
"""Small resting orders of others in a market."""
CATCH_UP: Final = 2 * SECOND
"""An exchange that stood still for longer lets its traders skip what they missed."""
FULL_OFFSETS: Final = ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4), (5, 6, 8, 11, 15, 21, 30, 45))
LEAN_OFFSETS: Final = ((0, 1, 2), (), (4, 9))
"""Levels of the fast, slow and deep maker: full books, and those of an exchange with hundreds of markets."""


@attrs.frozen(kw_only=True)
class Pace:
    """How fast traders act, per second of wall time in a market of average interest during play."""

    churn: float
    """Events of makers and retail orders."""
    takers: float
    burst: float
    """Extra events in the second after news."""
    is_lean: bool = False


@attrs.define(eq=False, repr=False)
class Crowd:
    """The traders of one market."""

    floor: Floor
    agenda: Agenda
    market: MarketState
    rng: Random
    pace: Pace
    interest: Callable[[], float]
    """How much attention the game has now, 1 = average play."""
    goals: GoalBehaviour = PLAIN
    busyness: float = attrs.field(init=False)
    fair: float = 50.0
    """Cents; what an informed trader would pay."""
    is_over: bool = False
    _sizes: tuple[int, ...] = attrs.field(init=False)
    _fast: Layers = attrs.field(init=False)
    _slow: Layers = attrs.field(init=False)
    _deep: Layers = attrs.field(init=False)
    _retail: deque[OrderId] = attrs.field(factory=deque)
    _bid: int = 0
    _ask: int = 100
    """The touch that the fast maker wants."""
    _deep_at: int = -100
    _silent_until: Micros = Micros(0)
    """The fast maker does not quote before: it waits for the dust to settle after news."""
    _news_at: Micros | None = None
    _burst_until: Micros = Micros(0)
    _slow_is_due: bool = False
    _last_turn: int = 0

    def __attrs_post_init__(self) -> None:
        rng = self.rng
        self.busyness = math.exp(rng.gauss(0.0, 0.3))
        self._sizes = _level_sizes(rng)
        ticker = self.market.ticker
        fast, slow, deep = LEAN_OFFSETS if self.pace.is_lean else FULL_OFFSETS
        self._fast = Layers(self.floor, FAST, ticker, fast, self._sizes)
        self._slow = Layers(self.floor, SLOW, ticker, slow, self._sizes, turn=11)
        self._deep = Layers(self.floor, DEEP, ticker, deep, self._sizes, turn=23)

    # --- the start ---------------------------------------------------------------------------------------------------

    def open(self, now: Micros, fair: float) -> None:
        """The first books and a few prints; from here on the traders act by themselves."""
        self.fair = fair
        self.requote(now)
        self._requote_slow(now)
        for _ in range(3 + int(4 * self.busyness)):
            self._take_noise(*self._draw_taker())
        self.requote(now)
        self.agenda.at(now + self._wait(self.pace.churn), self._churn)
        self.agenda.at(now + self._wait(self.pace.takers), self._noise)

    # --- fair value moves --------------------------------------------------------------------------------------------

    def follow(self, now: Micros, fair: float) -> None:
        """Fair value drifts: the fast maker follows at once, the slow one after a moment."""
        self.fair = fair
        if self.is_over or now < self._silent_until:
            return
        before = (self._bid, self._ask)
        self.requote(now)
        moved = before != (self._bid, self._ask)
        if moved:
            self._plan_slow(now, 0.1, 0.8)

    def expect_news(self, at: Micros) -> None:
        """Something will happen at `at`. The fast maker's own feed tells it a moment before or after the fact."""
        self.agenda.at(at + int(self.rng.uniform(*self.goals.lead_s) * SECOND), self._pull_fast)

    def news(self, at: Micros, fair: float) -> None:
        """Fair value jumps at `at`: quotes are stale now, and for how long depends on who owns them."""
        rng = self.rng
        self.fair = fair
        self._news_at = at
        self._silent_until = Micros(at + int(rng.uniform(1.0, 2.0) * SECOND))
        self._burst_until = Micros(at + int(rng.uniform(0.8, 1.6) * SECOND))
        for _ in range(3):
            delay = rng.uniform(*self.goals.informed_s)
            contracts = int(math.exp(rng.gauss(math.log(400), 0.9)))
            self.agenda.at(at + int(delay * SECOND), _Informed(self, contracts))
        self._plan_slow(at, 0.5, 1.4)
        self.agenda.at(self._silent_until, self._come_back)
        if self.pace.burst:
            self.agenda.at(at + self._wait(self.pace.burst), self._burst)

    def requote(self, now: Micros) -> None:
        """The fast and the deep maker move to where fair value is now, and refill what was eaten."""
        wide = self._widening(now)
        self._bid, self._ask = self._touch(HALF_SPREAD + wide, self._bid, self._ask)
        self._fast.turn += 1
        self._pick_off(self._bid, self._ask, now)
        self._fast.quote(self._bid, self._ask)
        middle = self._bid + self._ask
        if abs(middle - self._deep_at) >= 6:
            self._deep_at = middle
            self._deep.turn += 1
            self._deep.quote(self._bid, self._ask)

    def close(self) -> None:
        """The market is over; nobody acts in it any more."""
        self.is_over = True

    def _touch(self, half: float, bid: int, ask: int) -> tuple[int, int]:
        fair = self.fair
        low, high = half - STICKINESS, half + 1 + STICKINESS
        if not low <= fair - bid <= high:
            bid = math.floor(fair - half)
        if not low <= ask - fair <= high:
            ask = math.ceil(fair + half)
        return max(bid, LOWEST - 1), min(ask, HIGHEST + 1)

    def _widening(self, now: Micros) -> float:
        """Extra half-spread after news: some cents that decay over seconds."""
        if self._news_at is None:
            return 0.0
        age = (now - self._news_at) / SECOND
        return self.goals.widening_cents * math.exp(-age / self.goals.widening_s) if age < 15 else 0.0

    def _pick_off(self, bid: int, ask: int, now: Micros) -> None:
        """A quote on the wrong side of fair value is taken, in part, by whoever is quick."""
        best_bid, best_ask = self.market.best_bid, self.market.best_ask
        turn = self._fast.turn
        if best_bid is not None and best_bid >= ask * CENT:
            self.floor.take(INFORMED, self.market.ticker, Side.ASK, ask, self._pick_size(turn))
        elif best_ask is not None and best_ask <= bid * CENT:
            self.floor.take(INFORMED, self.market.ticker, Side.BID, bid, self._pick_size(turn))

    def _pick_size(self, turn: int) -> Count:
        return Count((20 + self._sizes[turn % len(self._sizes)] % 400) * CONTRACT)

    def _plan_slow(self, now: Micros, least: float, most: float) -> None:
        delay = self.rng.uniform(least, most)
        if self._slow_is_due:
            return
        self._slow_is_due = True
        self.agenda.at(now + int(delay * SECOND), self._requote_slow)

    def _requote_slow(self, due: Micros) -> None:
        self._slow_is_due = False
        if self.is_over:
            return
        bid, ask = self._touch(HALF_SPREAD + SLOW_EXTRA + self._widening(due), -1000, 1000)
        self._slow.turn += 1
        self._slow.quote(bid, ask)

    def _pull_fast(self, due: Micros) -> None:
        if not self.is_over:
            self._silent_until = Micros(max(self._silent_until, due + SECOND // 2))
            self._fast.pull()

    def _come_back(self, due: Micros) -> None:
        if not self.is_over and due >= self._silent_until:
            self.requote(due)
            self._plan_slow(due, 0.2, 1.0)

    # --- the stream of events ----------------------------------------------------------------------------------------

    def _wait(self, rate: float) -> int:
        """Microseconds to the next event of a Poisson stream."""
        rate *= self.busyness * self.interest()
        return int(self.rng.expovariate(max(rate, 1e-4)) * SECOND)

    def _next(self, due: Micros, rate: float) -> int:
        return max(due + self._wait(rate), self.agenda.now - CATCH_UP)

    def _churn(self, due: Micros) -> None:
        if self.is_over:
            return
        self._stir(due)
        self.agenda.at(self._next(due, self.pace.churn), self._churn)

    def _burst(self, due: Micros) -> None:
        if self.is_over or due >= self._burst_until:
            return
        self._stir(due)
        self.agenda.at(self._next(due, self.pace.burst), self._burst)

    def _stir(self, due: Micros) -> None:
        """One act of a maker or of a small order's owner."""
        rng = self.rng
        what, where, who = rng.random(), rng.random(), rng.random()
        contracts = _small_size(rng)
        side = Side.BID if who < 0.5 else Side.ASK
        level = int(-math.log(1.0 - where) * 1.6)
        is_quiet = due >= self._silent_until
        if what >= 0.5 or not is_quiet:
            self._stir_retail(side, level - (where < 0.12), contracts)
        elif what < 0.03:
            self._fast.replace(side, self._bid if side is Side.BID else self._ask, level)
        elif what < 0.4 or not self._slow.offsets:
            self._fast.flicker(side, self._bid if side is Side.BID else self._ask, level)
        else:
            self._slow.flicker(side, self._bid - 1 if side is Side.BID else self._ask + 1, level)

    def _stir_retail(self, side: Side, level: int, contracts: int) -> None:
        """A small order comes, or the oldest one goes. Level -1 is inside the spread, where there is room."""
        if len(self._retail) >= RETAIL_ORDERS:
            self.floor.cancel(RETAIL, self._retail.popleft())
            return
        if level < 0 and self._ask - self._bid < 2:
            level = 0
        cents = self._bid - level if side is Side.BID else self._ask + level
        if LOWEST <= cents <= HIGHEST:
            placed = self.floor.rest(RETAIL, self.market.ticker, side, cents, Count(contracts * CONTRACT))
            if placed is not None:
                self._retail.append(placed)

    def _noise(self, due: Micros) -> None:
        if self.is_over:
            return
        self._take_noise(*self._draw_taker())
        self.agenda.at(self._next(due, self.pace.takers), self._noise)

    def _draw_taker(self) -> tuple[Side, Count, int, int]:
        """A noise taker's intention: side, size, ticks beyond the touch it would pay, levels it eats whole."""
        rng = self.rng
        side = Side.BID if rng.random() < 0.5 else Side.ASK
        count = min(math.exp(rng.gauss(math.log(14), 1.4)), 800.0)
        fraction = rng.random()
        style = rng.random()
        hundredths = int(count * 100) if fraction < 0.08 else max(1, int(count)) * CONTRACT
        slack = 1 if style < 0.15 else 0
        sweep = 0 if style < 0.988 else 2 if style < 0.996 else 3
        return side, Count(max(hundredths, 1)), slack, sweep

    def _take_noise(self, side: Side, count: Count, slack: int, sweep: int) -> None:
        best = self.market.best_ask if side is Side.BID else self.market.best_bid
        if best is None:
            return
        limit = best // CENT + (slack if side is Side.BID else -slack)
        if sweep:
            levels = self.market.book.side(side.opposite).best_first()
            total = 0
            for _, level in zip(range(sweep), levels, strict=False):
                total += level.total
                limit = level.price // CENT
            count = Count(max(total, count))
        self.floor.take(NOISE, self.market.ticker, side, limit, count)

    def _strike(self, due: Micros, contracts: int) -> None:
        """An informed taker takes what is still offered on the wrong side of fair value."""
        if self.is_over:
            return
        best_bid, best_ask = self.market.best_bid, self.market.best_ask
        count = Count(max(contracts, 1) * CONTRACT)
        if best_ask is not None and best_ask / CENT <= self.fair - STALE_CENTS:
            side, best, limit = Side.BID, best_ask // CENT, math.floor(self.fair - STALE_CENTS)
        elif best_bid is not None and best_bid / CENT >= self.fair + STALE_CENTS:
            side, best, limit = Side.ASK, best_bid // CENT, math.ceil(self.fair + STALE_CENTS)
        else:
            return
        is_sweep = self._is_sweep(contracts)
        got = self.floor.take(INFORMED, self.market.ticker, side, limit if is_sweep else best, count)
        left = contracts - got // CONTRACT
        if not is_sweep and got and left > 0:
            self.agenda.at(due + int(self.goals.step_s * SECOND), _Informed(self, left))

    def _is_sweep(self, contracts: int) -> bool:
        """Whether that taker sends one order for all levels: drawn from its size, so that no other draw moves."""
        share = self.goals.one_order_share
        return share >= 1.0 or contracts * 7919 % 1000 < 1000 * share


@attrs.frozen(repr=False)
class _Informed:
    """One informed taker on its way."""

    crowd: Crowd
    contracts: int

    def __call__(self, due: Micros) -> None:
        self.crowd._strike(due, self.contracts)


def _level_sizes(rng: Random) -> tuple[int, ...]:
    """Contracts at a maker's levels: thousands, one in ten next to nothing."""
    found = []
    for _ in range(31):
        if rng.random() < 0.1:
            found.append(int(math.exp(rng.gauss(math.log(60), 1.0))) + 1)
        else:
            found.append(int(math.exp(rng.gauss(math.log(2200), 0.8))) + 1)
    return tuple(found)


def _small_size(rng: Random) -> int:
    """Contracts of a small resting order."""
    return int(math.exp(rng.gauss(math.log(35), 1.2))) + 1

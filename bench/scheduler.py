"""What the write scheduler is worth: value-weighted staleness against first come, first served, on the same tape.

    python bench/scheduler.py [--minutes 10] [--seeds 1,2,3] [--quotes 64] [--tier basic]

The bot's own tasks (quoters, desk, scheduler, strategy) quote 32 markets, both sides, on a virtual clock against a venue
that answers after 6 ms and counts tokens as the exchange does. The tape is simulated from a seed: quiet drift by ticks, and goals,
at which the markets of a game, and with them a third of all, jump by several cents at once. Both runs see the same tape;
they differ in the scheduler alone:

- first come, first served: tickets in the order in which they asked, every plan as the strategy made it;
- ours: class, value at risk per token, waiting, fairness, and the cheaper write when tokens are short.

Either one sends newest decisions only (a quote superseded before it is sent is never sent), so what is compared is order and
choice, not coalescing. Staleness is the integral over time of what the resting quotes give away: for each, how far it stands on
the wrong side of the market's mid times its size, in dollar seconds. Exit code 1 when ours is not at least 50% lower, or any
write was refused with 429.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
import structlog
import trio
from trio.testing import MockClock

from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Price
from mm.domain.order import GroupId, MarketTicker, OrderId, Side
from mm.engine.parameters import StrategyParameters
from mm.engine.throttle import TokenBucket
from mm.exchange import endpoints
from mm.exchange.port import Bucket, ExchangeRejected, NotRestingHere, PlaceAck, RateLimited, RateLimits
from mm.session.trading import EXIT_RESERVE
from mm.tasks.budget import ReadBudget, WriteBudget
from mm.tasks.desk import OrderDesk
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.ids import OrderIds
from mm.tasks.positions import Positions
from mm.tasks.quoter import Quoter, QuoterTools
from mm.tasks.resolve import Resolver

TIERS = {"basic": (100.0, 100.0), "advanced": (300.0, 600.0), "premier": (1_000.0, 2_000.0)}
"""Write tokens a second and the bucket's capacity."""
START = 1_790_000_000 * SECOND
LATENCY_S = 0.003
STEP_S = 0.1
DRIFT_EACH_S = 4.0
"""A market's mid moves by half a cent or a cent about so often."""
GOAL_EACH_S = 20.0
NEEDED = 0.5


def clock() -> Micros:
    """The wall clock that goes with the virtual one."""
    return Micros(START + round(trio.current_time() * SECOND))


@attrs.frozen
class Move:
    """The mid of a market at a time, in half cents."""

    at: float
    market: int
    mid: int


def make_tape(seed: int, markets: int, seconds: float) -> list[Move]:
    """Moves of all markets in order of time."""
    rng, moves = Random(seed), list[Move]()
    mids = [rng.randrange(60, 140) for _ in range(markets)]
    moves += [Move(0.0, i, mid) for i, mid in enumerate(mids)]
    next_goal, at = rng.expovariate(1 / GOAL_EACH_S), 0.0
    while at < seconds:
        at += STEP_S
        for i in range(markets):
            if rng.random() < STEP_S / DRIFT_EACH_S:
                mids[i] += rng.choice((-2, -1, 1, 2))
                mids[i] = min(180, max(20, mids[i]))
                moves.append(Move(at, i, mids[i]))
        if at >= next_goal:
            next_goal = at + rng.expovariate(1 / GOAL_EACH_S)
            for i in rng.sample(range(markets), markets // 3):
                jump = rng.choice((-1, 1)) * rng.randrange(4, 21)
                mids[i] = min(180, max(20, mids[i] + jump))
                moves.append(Move(at, i, mids[i]))
    return moves


@attrs.define(eq=False)
class Resting:
    """A quote as the venue holds it."""

    ticker: MarketTicker
    side: Side
    price: int
    count: int


@attrs.define(eq=False)
class Venue:
    """Takes orders and counts tokens; nobody trades here, so that both runs live through the same tape."""

    limits: RateLimits
    mids: dict[MarketTicker, int] = attrs.field(factory=dict)
    resting: dict[str, Resting] = attrs.field(factory=dict)
    writes: dict[str, int] = attrs.field(factory=dict)
    refused: int = 0
    bucket: TokenBucket = attrs.field(init=False)
    account: str = "bench"
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        write = self.limits.write
        self.bucket = TokenBucket(write.refill_per_s, write.capacity, write.capacity, clock())

    @asynccontextmanager
    async def _write(self, name: str, endpoint: endpoints.Endpoint) -> Any:
        await trio.sleep(LATENCY_S)
        if not self.bucket.take(self.limits.cost(*endpoint), clock()):
            self.refused += 1
            raise RateLimited("too many requests")
        self.writes[name] = self.writes.get(name, 0) + 1
        yield
        await trio.sleep(LATENCY_S)

    async def place(self, order: Any) -> PlaceAck:
        """Create; a post-only order that would cross is refused."""
        async with self._write("create", endpoints.PLACE):
            bid, ask = touch(self.mids[order.ticker])
            if order.price >= ask if order.side is Side.BID else order.price <= bid:
                raise ExchangeRejected("post only cross", status=400, code="invalid_order")
            self._number += 1
            order_id = OrderId(f"o-{self._number}")
            self.resting[order_id] = Resting(order.ticker, order.side, order.price, order.count)
        return PlaceAck(order_id=order_id, filled=Count(0), remaining=order.count)

    async def amend(
        self, ref: Any, *, side: Side, price: Price, count: Count, expires_at: Micros | None = None
    ) -> None:
        """Change price and size, or only the expiry."""
        async with self._write("amend", endpoints.AMEND):
            order = self.resting[ref.order_id]
            order.price, order.count = price, count

    async def cancel(self, ref: Any) -> Count:
        """Take off."""
        async with self._write("cancel", endpoints.CANCEL):
            order = self.resting.pop(ref.order_id, None)
            if order is None:
                raise NotRestingHere("not found", status=404)
        return Count(order.count)

    async def create_group(self, *, contracts_limit: int, exchange_index: int) -> GroupId:
        """Groups cost a write."""
        async with self._write("group", endpoints.CREATE_GROUP):
            return GroupId("g-1")

    async def groups(self) -> list[Any]:
        """None of an earlier life."""
        await trio.sleep(LATENCY_S)
        return []

    def expect(self, ref: Any) -> None:
        """No signature to make ready."""

    def stale(self) -> int:
        """What the quotes give away now, in 1/1,000,000 dollar."""
        total = 0
        for order in self.resting.values():
            wrong = (order.price - self.mids[order.ticker] * CENT // 2) * order.side.sign
            total += max(0, wrong) * order.count
        return total


def touch(mid: int) -> tuple[int, int]:
    """Best bid and ask around a mid in half cents: two cents wide or three."""
    price = mid * CENT // 2
    return (price - CENT) // CENT * CENT, -(-(price + CENT) // CENT) * CENT


class Nothing:
    """A recorder that keeps nothing."""

    def record_order(self, order: object) -> None: ...
    def record_group(self, group_id: object, **more: object) -> None: ...
    def record_group_triggered(self, group_id: object) -> None: ...
    async def flush(self) -> None: ...


class NoCheaperWay(WriteBudget):
    """First come, first served."""

    def is_short(self, exchange_index: int, cost: int) -> bool:
        """Every plan is sent as it was made."""
        del exchange_index, cost
        return False


@attrs.frozen
class Result:
    """One run."""

    stale_dollar_s: float
    refused: int
    writes: dict[str, int]
    worst_wait_s: float
    up: float
    """Share of the quotes that rested, over time: what is not there cannot be stale, so both figures belong together."""


def run_tape(tape: Sequence[Move], markets: int, seconds: float, tier: str, *, ours: bool) -> Result:
    """Quote through the tape."""
    return trio.run(_run, tape, markets, seconds, tier, ours, clock=MockClock(autojump_threshold=0))


async def _run(tape: Sequence[Move], markets: int, seconds: float, tier: str, ours: bool) -> Result:
    refill, capacity = TIERS[tier]
    bucket = Bucket(refill_per_s=refill, capacity=capacity)
    limits = RateLimits(tier=tier, read=bucket, write=bucket, costs={endpoints.CANCEL: 2})
    venue: Any = Venue(limits)
    reserve = min(EXIT_RESERVE, capacity / 2)
    if ours:
        writes = WriteBudget(limits, clock, reserve)
    else:
        writes = NoCheaperWay(limits, clock, reserve, rank=lambda ticket: (0, 0.0, ticket.serial))
    floor = Floor(
        parameters=StrategyParameters(
            max_markets_to_trade=markets,
            max_global_inventory=Count(10_000_000),
            max_inventory_per_market=Count(100_000),
        ),
        clock=clock,
        positions=Positions(),
    )
    records: Any = Nothing()
    desk = OrderDesk(venue, records, writes, clock, floor.order_changed)
    floor.desk, floor.is_feed_up = desk, True

    async def look_up() -> None: ...

    tools = QuoterTools(
        desk=desk,
        resolver=Resolver(venue, desk, writes, ReadBudget(limits, clock), clock, look_up),
        fence=Fence(venue, records, writes, 100_000),
        budget=writes,
        ids=OrderIds("mm", "bench"),
        clock=clock,
        quote_ttl=Micros(600 * SECOND),
    )
    names = [MarketTicker(f"KXBENCH-26DEC01G{i:03d}-A") for i in range(markets)]
    staleness, last, worst, up = 0.0, 0.0, 0.0, 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writes.run)
        for name, move in zip(names, tape, strict=False):
            venue.mids[name] = move.mid
            market = Market(
                ticker=name, event_ticker=name[:-2], status=MarketStatus.ACTIVE, grid=uniform_grid(CENT)
            )
            quoter = Quoter(floor.add_market(market), tools)
            floor.quoters[name] = quoter
            show(floor, name, move.mid)
            await nursery.start(quoter.run)
        at = 0.0
        index = markets
        while at < seconds:
            # Between two steps of the tape the venue changes too: its quotes are looked at every 10 ms.
            await trio.sleep(0.01)
            at = trio.current_time()
            staleness += venue.stale() / 1e6 * (at - last)
            up += len(venue.resting) / (2 * markets) * (at - last)
            last = at
            waiting = writes.tickets()
            if waiting:
                worst = max(worst, (clock() - min(t.asked_at for t in waiting)) / SECOND)
            is_moved = False
            while index < len(tape) and tape[index].at <= at:
                name, mid = names[tape[index].market], tape[index].mid
                venue.mids[name] = mid
                show(floor, name, mid)
                index, is_moved = index + 1, True
            if is_moved:
                floor.decide_dirty(clock())
        nursery.cancel_scope.cancel(reason="the tape is over")
    return Result(staleness, venue.refused, venue.writes, worst, up / last)


def show(floor: Floor, name: MarketTicker, mid: int) -> None:
    """The market's book as the venue would tell it."""
    bid, ask = touch(mid)
    size = Count(50_000)
    floor.books[name].snapshot([(Price(bid), size)], [(Price(ask), size)])
    floor.mark(name)


def main() -> int:
    """Run both over every tape and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--quotes", type=int, default=64)
    parser.add_argument("--tier", choices=tuple(TIERS), default="basic")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    markets, seconds = options.quotes // 2, options.minutes * 60
    print(f"{options.quotes} quotes, tier {options.tier}, {options.minutes:g} virtual minutes a seed")
    totals, refused = [0.0, 0.0], 0
    for seed in map(int, options.seeds.split(",")):
        tape = make_tape(seed, markets, seconds)
        found = [run_tape(tape, markets, seconds, options.tier, ours=ours) for ours in (False, True)]
        for name, result in zip(("first come, first served", "ours"), found, strict=True):
            print(
                f"seed {seed}: {name:<25} stale {result.stale_dollar_s:>10.2f} dollar s, 429s {result.refused}, "
                f"longest wait {result.worst_wait_s:.1f} s, quotes up {result.up:.1%}, {result.writes}"
            )
        totals = [total + result.stale_dollar_s for total, result in zip(totals, found, strict=True)]
        refused += sum(result.refused for result in found)
    less = 1 - totals[1] / totals[0]
    print(
        f"value-weighted staleness: {totals[0]:.1f} against {totals[1]:.1f} dollar seconds: {less:.1%} lower; 429s: {refused}"
    )
    return 0 if less >= NEEDED and not refused else 1


if __name__ == "__main__":
    sys.exit(main())

"""The write scheduler and the read budget: who may send next, and when.

One scheduler for all markets. A writer asks with a `Ticket`. Each shard has a bucket and a line of its own. In a line the
class of urgency decides, within it value at risk per token, and waiting adds to the value, so that nobody is passed for
ever; one grant in `FAIR_EVERY` goes to whoever has waited too long, so that no class starves another for ever either.
A ticket that waits may be changed (a quote that must go became more urgent) or withdrawn (a quote superseded before it was
sent is never sent). The reserve that pays for leaving is never granted here. A line is a heap: to stand in it, to be served
and to leave it costs the logarithm of how many wait.
"""

import enum
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mm.domain.numbers import SECOND, Micros
from mm.engine.throttle import TokenBucket
from mm.exchange.port import RateLimits

Clock = Callable[[], Micros]

WAIT_VALUE: Final = 2_000.0
"""What a second of waiting adds to a ticket's value per token. As a measure: ten contracts at a price one cent off are
100,000 (1/1,000,000 dollar), so 10,000 per token of an amend: five seconds of waiting outweigh them."""
STARVING_S: Final = 10.0
"""From so long a wait on a ticket counts as passed over."""
FAIR_EVERY: Final = 5
"""One grant in so many goes to the ticket that was passed over longest; the others keep to the order."""
SHORT_S: Final = 0.5
"""A shard is short when what waits for it needs more than so many seconds of refill."""


class Urgency(enum.IntEnum):
    """Order of service; lower first."""

    EXIT = 0
    """Exits and cancels for risk."""
    CANCEL = 1
    """Cancels of stale quotes, and questions about orders of unknown outcome."""
    REQUOTE = 2
    NEW_QUOTE = 3
    RENEW = 4
    """Expiry renewals: what the budget has left."""


_UNFAIR: Final = (Urgency.EXIT, Urgency.CANCEL, Urgency.RENEW)
"""Never passed over, or of right: the first two go first anyway, and a renewal lives on what is left."""


@attrs.define(eq=False)
class Ticket:
    """One wish to write. `value` is what the write saves or may earn, in 1/1,000,000 dollar."""

    urgency: Urgency
    cost: int
    value: int = 0
    exchange_index: int = 0
    granted: trio.Event = attrs.field(factory=trio.Event)
    serial: int = 0
    asked_at: Micros = Micros(0)

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sorts the most urgent first, then by value a token with what waiting has added, then by who asked first.

        All tickets gain by waiting at one rate, so that the order of two that wait never changes with time: what counts
        is when they asked.
        """
        worth = self.value / max(self.cost, 1) - WAIT_VALUE * self.asked_at / SECOND
        return (self.urgency, -worth, self.serial)


@attrs.define(eq=False)
class _Line:
    """Who waits for one shard. `heap` may hold entries of tickets that have left or changed; they are passed over."""

    waiting: dict[Ticket, tuple[int, float, int]] = attrs.field(factory=dict)
    """In the order of asking, with the rank that counts."""
    heap: list[tuple[tuple[int, float, int], int, Ticket]] = attrs.field(factory=list)
    cost: int = 0
    """Of all that wait."""
    grants: int = 0
    """Since the last one out of turn."""
    _costs: dict[Ticket, int] = attrs.field(factory=dict)
    _pushes: int = 0

    def put(self, ticket: Ticket, rank: tuple[int, float, int]) -> None:
        """Let a ticket stand in line, anew when it stands there already."""
        self.cost += ticket.cost - self._costs.get(ticket, 0)
        self._costs[ticket] = ticket.cost
        self.waiting[ticket] = rank
        self._pushes += 1
        heapq.heappush(self.heap, (rank, self._pushes, ticket))
        if len(self.heap) > 2 * len(self.waiting) + 64:  # left by what was withdrawn
            self.heap = [entry for entry in self.heap if self.waiting.get(entry[2]) == entry[0]]
            heapq.heapify(self.heap)

    def remove(self, ticket: Ticket) -> None:
        """The ticket was served or withdrawn."""
        self.waiting.pop(ticket, None)
        self.cost -= self._costs.pop(ticket, 0)

    def best(self) -> Ticket | None:
        """The first in order."""
        while self.heap:
            rank, _, ticket = self.heap[0]
            if self.waiting.get(ticket) == rank:
                return ticket
            heapq.heappop(self.heap)
        return None

    def next(self, now: Micros) -> Ticket | None:
        """Whose turn it is."""
        first = self.best()
        if first is None or self.grants < FAIR_EVERY - 1 or first.urgency < Urgency.REQUOTE:
            return first
        for ticket in self.waiting:  # the oldest ones first: the look ends at the first that is young
            if now - ticket.asked_at < STARVING_S * SECOND:
                break
            if ticket.urgency not in _UNFAIR:
                return ticket
        return first


@attrs.define(eq=False)
class WriteBudget:
    """Token buckets a shard, and the tickets waiting for them. `run` must be running for waiters to be served."""

    limits: RateLimits
    clock: Clock
    reserve: float
    """Tokens a shard that only `take_for_exit` may spend."""
    rank: Callable[[Ticket], tuple[int, float, int]] = lambda ticket: ticket.rank
    """The order of service: lower first."""
    _buckets: dict[int, TokenBucket] = attrs.field(factory=dict)
    _lines: dict[int, _Line] = attrs.field(factory=dict)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _serial: "itertools.count[int]" = attrs.field(factory=itertools.count)
    _leaving: Counter[int] = attrs.field(factory=Counter)
    """Shards on which somebody leaves and waits for tokens: nobody else gets any there."""
    granted_total: int = 0
    refused_total: int = 0
    """429 answers."""

    def bucket(self, exchange_index: int) -> TokenBucket:
        """The bucket of a shard (shard 0 and batches share the unscoped one)."""
        found = self._buckets.get(exchange_index)
        if found is None:
            write = self.limits.write
            found = TokenBucket(write.refill_per_s, write.capacity, write.capacity, self.clock())
            self._buckets[exchange_index] = found
        return found

    async def acquire(self, ticket: Ticket) -> None:
        """Wait for the ticket's tokens. Cancelled: the ticket is withdrawn and, if already granted, given back."""
        ticket.serial = next(self._serial)
        ticket.asked_at = self.clock()
        if not self._ahead_of(ticket) and self._grant(ticket):
            return
        line = self._line(ticket.exchange_index)
        line.put(ticket, self.rank(ticket))
        self._wake.set()
        try:
            await ticket.granted.wait()
        except trio.Cancelled:
            if ticket.granted.is_set():
                self.give_back(ticket)
            raise
        finally:
            if ticket in line.waiting:
                line.remove(ticket)
                self._wake.set()  # whoever stood behind it may be next

    def changed(self, ticket: Ticket) -> None:
        """A waiting ticket's urgency, cost or value was changed by its owner. It keeps the time at which it asked."""
        line = self._line(ticket.exchange_index)
        if ticket in line.waiting:
            line.put(ticket, self.rank(ticket))
            self._wake.set()

    def give_back(self, ticket: Ticket, spent: int = 0) -> None:
        """Tokens were granted, and less was sent than they pay for: nothing, or writes of `spent` tokens."""
        self.bucket(ticket.exchange_index).give_back(ticket.cost - spent)
        self._wake.set()

    def refused(self, exchange_index: int) -> None:
        """A write was answered with 429."""
        self.refused_total += 1
        self.bucket(exchange_index).refused(self.clock())

    async def take_for_exit(self, cost: int, exchange_index: int) -> None:
        """Tokens for leaving: the reserve included, ahead of everybody, waiting for refill if it must."""
        bucket = self.bucket(exchange_index)
        cost = min(cost, int(bucket.capacity))
        self._leaving[exchange_index] += 1
        try:
            while not bucket.take(cost, self.clock()):
                await trio.sleep(min(0.25, max(0.005, bucket.wait_s(cost, self.clock()))))
        finally:
            self._leaving[exchange_index] -= 1
            self._wake.set()

    async def run(self) -> None:
        """Serve tickets as tokens come in; never returns. Cancelled: waiters are left to their own cancellation."""
        while True:
            delay = self._serve()
            self._wake = trio.Event()
            if not self.waiting():
                await self._wake.wait()
            else:
                with trio.move_on_after(delay):
                    await self._wake.wait()

    def level(self) -> tuple[float, float]:
        """(tokens left, capacity) of the unscoped bucket."""
        bucket = self.bucket(0)
        return bucket.refill(self.clock()), bucket.capacity

    def waiting(self) -> int:
        """Tickets not served yet."""
        return sum(len(line.waiting) for line in self._lines.values())

    def tickets(self) -> list[Ticket]:
        """Those, shard by shard, in the order of asking."""
        return [ticket for line in self._lines.values() for ticket in line.waiting]

    def is_short(self, exchange_index: int, cost: int) -> bool:
        """Whether a write of `cost` more would wait for `SHORT_S` or longer if it stood last in line."""
        bucket = self.bucket(exchange_index)
        waiting = self._line(exchange_index).cost + cost
        return bucket.wait_s(waiting, self.clock(), keep=self._keep(bucket, 0)) >= SHORT_S

    def _line(self, exchange_index: int) -> _Line:
        return self._lines.setdefault(exchange_index, _Line())

    def _ahead_of(self, ticket: Ticket) -> bool:
        if self._leaving[ticket.exchange_index] > 0:
            return True
        first = self._line(ticket.exchange_index).best()
        return first is not None and self.rank(first) < self.rank(ticket)

    def _keep(self, bucket: TokenBucket, cost: int) -> float:
        # A reserve larger than what the bucket can hold beside one request would stop everything for ever.
        return min(self.reserve, max(0.0, bucket.capacity - cost))

    def _grant(self, ticket: Ticket) -> bool:
        bucket = self.bucket(ticket.exchange_index)
        if not bucket.take(ticket.cost, self.clock(), keep=self._keep(bucket, ticket.cost)):
            return False
        self.granted_total += 1
        ticket.granted.set()
        return True

    def _serve(self) -> float:
        """Grant what can be granted; seconds until the next one may be."""
        delay = 3_600.0
        for index, line in self._lines.items():
            while not self._leaving[index] and (ticket := line.next(self.clock())) is not None:
                if not self._grant(ticket):
                    bucket = self.bucket(index)
                    keep = self._keep(bucket, ticket.cost)
                    delay = min(delay, bucket.wait_s(ticket.cost, self.clock(), keep=keep))
                    break
                line.grants = line.grants + 1 if ticket is line.best() else 0
                line.remove(ticket)
        return max(delay, 0.001)


_MIN_READ_SHARE: Final = 0.2


@attrs.define(eq=False)
class ReadBudget:
    """The read bucket. Readers wait their turn; `stretch` tells pollers to slow down when it runs low."""

    limits: RateLimits
    clock: Clock
    _bucket: TokenBucket | None = None
    taken_total: int = 0

    @property
    def bucket(self) -> TokenBucket:
        """The account's read bucket as we believe it to be."""
        if self._bucket is None:
            read = self.limits.read
            self._bucket = TokenBucket(read.refill_per_s, read.capacity, read.capacity, self.clock())
        return self._bucket

    async def take(self, cost: int | None = None, *, keep: float = 0.0) -> None:
        """Wait for the tokens of one read; with `keep`, until so many are left for others."""
        price = float(self.limits.default_cost if cost is None else cost)
        bucket = self.bucket
        keep = min(keep, max(0.0, bucket.capacity - price))
        while not bucket.take(price, self.clock(), keep=keep):
            await trio.sleep(max(0.005, bucket.wait_s(price, self.clock(), keep=keep)))
        self.taken_total += 1

    def refused(self) -> None:
        """A read was answered with 429."""
        self.bucket.refused(self.clock())

    def stretch(self) -> float:
        """Factor by which pollers lengthen their period: 1 while the bucket is well filled, up to 5 when empty."""
        share = self.bucket.refill(self.clock()) / self.bucket.capacity
        return 1.0 if share >= 0.5 else 1.0 / max(_MIN_READ_SHARE, 2 * share)


def seconds_between(earlier: Micros, later: Micros) -> float:
    """A span of `Micros` in seconds."""
    return (later - earlier) / SECOND

"""The write scheduler and the read budget: who may send next, and when.

One scheduler for all markets. A writer asks with a `Ticket`; the most urgent ticket of a shard is served first, ties
by value at risk per token. A ticket that waits may be changed (a quote that must go became more urgent) or withdrawn
(a quote superseded before it was sent is never sent). The reserve that pays for leaving is never granted here.
"""

import enum
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


@attrs.define(eq=False)
class Ticket:
    """One wish to write. `value` is money at risk (any unit, compared among equals)."""

    urgency: Urgency
    cost: int
    value: int = 0
    exchange_index: int = 0
    granted: trio.Event = attrs.field(factory=trio.Event)
    serial: int = 0

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sorts the most urgent first."""
        return (self.urgency, -self.value / max(self.cost, 1), self.serial)


@attrs.define(eq=False)
class WriteBudget:
    """Token buckets a shard, and the tickets waiting for them. `run` must be running for waiters to be served."""

    limits: RateLimits
    clock: Clock
    reserve: float
    """Tokens a shard that only `take_for_exit` may spend."""
    _buckets: dict[int, TokenBucket] = attrs.field(factory=dict)
    _waiting: list[Ticket] = attrs.field(factory=list)
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
        if not self._ahead_of(ticket) and self._grant(ticket):
            return
        self._waiting.append(ticket)
        self._wake.set()
        try:
            await ticket.granted.wait()
        except trio.Cancelled:
            if ticket.granted.is_set():
                self.give_back(ticket)
            raise
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._wake.set()  # whoever stood behind it may be next

    def changed(self) -> None:
        """A waiting ticket's urgency or cost was changed by its owner."""
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
            if not self._waiting:
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
        return len(self._waiting)

    def _ahead_of(self, ticket: Ticket) -> bool:
        return self._leaving[ticket.exchange_index] > 0 or any(
            other.exchange_index == ticket.exchange_index and other.rank < ticket.rank
            for other in self._waiting
        )

    def _grant(self, ticket: Ticket) -> bool:
        bucket = self.bucket(ticket.exchange_index)
        # A reserve larger than what the bucket can hold beside one request would stop everything for ever.
        keep = min(self.reserve, max(0.0, bucket.capacity - ticket.cost))
        if not bucket.take(ticket.cost, self.clock(), keep=keep):
            return False
        self.granted_total += 1
        ticket.granted.set()
        return True

    def _serve(self) -> float:
        """Grant what can be granted; seconds until the next one may be."""
        delay = 3_600.0
        blocked = {index for index, leaving in self._leaving.items() if leaving}
        for ticket in sorted(self._waiting, key=lambda t: t.rank):
            if ticket.exchange_index in blocked:
                continue
            if self._grant(ticket):
                self._waiting.remove(ticket)
                continue
            blocked.add(ticket.exchange_index)
            bucket = self.bucket(ticket.exchange_index)
            keep = min(self.reserve, max(0.0, bucket.capacity - ticket.cost))
            delay = min(delay, bucket.wait_s(ticket.cost, self.clock(), keep=keep))
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

    async def take(self, cost: int | None = None) -> None:
        """Wait for the tokens of one read."""
        price = float(self.limits.default_cost if cost is None else cost)
        bucket = self.bucket
        while not bucket.take(price, self.clock()):
            await trio.sleep(max(0.005, bucket.wait_s(price, self.clock())))
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

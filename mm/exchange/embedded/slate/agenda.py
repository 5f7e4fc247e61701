"""What happens next: a heap of (time, order of entry, call). Deterministic; knows no clock."""

import heapq
from collections.abc import Callable

import attrs

from mm.domain.numbers import Micros

Happening = Callable[[Micros], None]
"""Called with the time it was due at (not the time at which it was found to be due)."""


@attrs.define(eq=False, repr=False)
class Agenda:
    """Happenings in order of time, then of entry."""

    now: Micros = Micros(0)
    """The time of the batch being worked off; never earlier than what it calls is due."""
    done: int = 0
    _heap: list[tuple[Micros, int, Happening]] = attrs.field(factory=list)
    _count: int = 0

    def at(self, due: int, what: Happening) -> None:
        """Call `what` at `due`; at once in the present batch when that is past."""
        self._count += 1
        heapq.heappush(self._heap, (Micros(due), self._count, what))

    def work(self, now: Micros, most: int) -> bool:
        """Do what is due by `now`, at most `most` calls; whether something due is left."""
        self.now = now
        heap = self._heap
        while heap and heap[0][0] <= now:
            if not most:
                return True
            most -= 1
            self.done += 1
            due, _, what = heapq.heappop(heap)
            what(due)
        return False

    @property
    def next_due(self) -> Micros | None:
        """When the next one is due; None when nothing is planned."""
        return self._heap[0][0] if self._heap else None

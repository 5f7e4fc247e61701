"""What a guardian does when the bot is gone: trigger, list, cancel, list again, until it is proven that nothing rests.

The same rule as the bot's own exit (`mm.tasks.sweep`): groups first, because triggering cancels everything in them and
refuses what is still on its way; then clean reads that are younger than the last write.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from mm.guard.http import NoAnswer
from mm.guard.protocol import Hello
from mm.guard.venue import Refused, Resting

CLEAN_READS: Final = 2
BATCH: Final = 20
"""Cancels a request: a batch is refused whole when the bucket does not hold all of it."""
_WORKERS: Final = 8
_FIRST_LOOK_S: Final = 1.0
"""Listing does not wait longer than this for the groups."""
_SETTLE_S: Final = 1.0
"""An order of a triggered group that is still listed after this is cancelled by itself."""
_CLOCKS_APART_S: Final = 0.25
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_CAP_S: Final = 2.0
_REFUSALS: Final = 3
"""Definite refusals of a trigger after which the sweep no longer waits for it."""
_KEY_REFUSALS: Final = 5

Log = Callable[[str], None]


class Calls(Protocol):
    """What is asked of the exchange; see `mm.guard.venue.Venue`."""

    def trigger(self, group_id: str, exchange_index: int) -> None:
        """Cancel a group's orders and close it."""

    def resting(self) -> list[Resting]:
        """The session's resting orders."""

    def cancel_batch(self, orders: list[Resting]) -> list[str]:
        """Cancel; gives the ids not called cancelled."""

    def cancel(self, order: Resting) -> None:
        """Cancel one."""

    def data_time(self) -> float:
        """Freshness of reads."""


class KeyRefused(Exception):
    """The exchange will not have our key: nothing can be done."""


class Report(NamedTuple):
    """What came of it."""

    is_proven: bool
    """Two clean reads past the read lag, and every group triggered, gone or definitely refused."""
    triggered: int
    untriggered: tuple[str, ...]
    cancelled: int
    remaining: tuple[str, ...]
    """Orders that rested at the last look; empty and not proven: there was no look."""
    seconds: float
    problem: str = ""

    def __str__(self) -> str:
        result = "nothing rests" if self.is_proven else f"NOT PROVEN that nothing rests: {self.problem}"
        parts = [f"{result}; {self.triggered} groups triggered, {self.cancelled} orders cancelled"]
        if self.untriggered:
            parts.append(f"not triggered: {', '.join(self.untriggered)}")
        if self.remaining:
            more = f" and {len(self.remaining) - 20} more" if len(self.remaining) > 20 else ""
            parts.append(f"resting: {', '.join(self.remaining[:20])}{more}")
        return f"{'; '.join(parts)} ({self.seconds:.2f} s)"


class Sweep:
    """One sweep over one session's orders. `run` it once, in the main thread.

    Args:
        groups: group id -> exchange_index.
        connect: A line to the exchange for one thread.
        pause: Sleeps so many seconds (or raises when the sweep is called off).
    """

    def __init__(
        self,
        hello: Hello,
        groups: dict[str, int],
        connect: Callable[[], Calls],
        pause: Callable[[float], None],
        log: Log,
    ) -> None:
        self.hello = hello
        self.groups = groups
        self.connect = connect
        self.pause = pause
        self.log = log
        self._started = time.monotonic()
        self._open = set(groups)
        """Groups not known to be triggered."""
        self._triggered_at: dict[str, float] = {}
        self._refused: dict[str, int] = {}
        self._settled: set[str] = set()
        self._is_over = threading.Event()
        self._key_refusals = 0
        self._last_write = time.time()
        """By the wall clock, to be compared with the venue's."""
        self._last_write_at = self._started
        self._writes = 0
        self._cancelled = 0
        self._remaining: tuple[str, ...] = ()
        self._problem = "no look at the exchange succeeded"
        self._singly: set[str] = set()
        """Orders that a batch did not take off."""
        budget = hello.budget
        self._batch = max(1, min(BATCH, int(budget.capacity // max(budget.cancel_cost, 0.01))))

    def run(self) -> Report:
        """Sweep until proven, out of time, or called off by `pause`, whose exception passes through."""
        try:
            self._start_triggers()
            self._wait_for_triggers()
            is_proven = self._sweep()
        except KeyRefused as exc:
            is_proven, self._problem = False, str(exc)
        finally:
            self._is_over.set()
        return Report(
            is_proven=is_proven,
            triggered=len(self.groups) - len(self._open),
            untriggered=tuple(sorted(self._open)),
            cancelled=self._cancelled,
            remaining=() if is_proven else self._remaining,
            seconds=time.monotonic() - self._started,
            problem="" if is_proven else self._problem,
        )

    @property
    def _has_time(self) -> bool:
        return time.monotonic() - self._started < self.hello.time_limit_s

    # --- groups: each in its own thread, so that a hanging shard holds up none of the others ---

    def _start_triggers(self) -> None:
        waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        for item in reversed(self.groups.items()):  # the newest first: those of the present epoch
            waiting.put(item)
        for _ in range(min(_WORKERS, len(self.groups))):
            thread = threading.Thread(target=self._trigger_some, args=(waiting,), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads for us: one after the other then
                self._trigger_some(waiting)

    def _wait_for_triggers(self) -> None:
        while self._unsettled() and time.monotonic() - self._started < _FIRST_LOOK_S:
            self.pause(0.005)

    def _unsettled(self) -> set[str]:
        return self._open - self._settled

    def _trigger_some(self, waiting: "queue.SimpleQueue[tuple[str, int]]") -> None:
        calls = self.connect()
        while True:
            try:
                group_id, exchange_index = waiting.get_nowait()
            except queue.Empty:
                return
            self._trigger(calls, group_id, exchange_index)

    def _trigger(self, calls: Calls, group_id: str, exchange_index: int) -> None:
        delay = _BACKOFF_FIRST_S
        while self._has_time and not self._is_over.is_set():
            self._wrote()
            try:
                calls.trigger(group_id, exchange_index)
            except NoAnswer as exc:
                self.log(f"group {group_id}: {exc}")
            except Refused as exc:
                self.log(f"group {group_id}: {exc}")
                if exc.is_gone:
                    self._open.discard(group_id)
                    return
                if exc.is_key:
                    self._key_refusals += 1
                if exc.is_final:
                    self._refused[group_id] = self._refused.get(group_id, 0) + 1
                    if self._refused[group_id] >= _REFUSALS:
                        self._settled.add(group_id)
            else:
                self.log(f"group {group_id}: triggered")
                self._wrote()
                self._triggered_at[group_id] = time.monotonic()
                self._open.discard(group_id)
                return
            self._is_over.wait(delay)
            delay = min(2 * delay, _BACKOFF_CAP_S)

    def _wrote(self) -> None:
        self._last_write = time.time()
        self._last_write_at = time.monotonic()
        self._writes += 1

    # --- orders ---

    def _sweep(self) -> bool:
        calls = self.connect()
        clean, writes, delay = 0, self._writes, _BACKOFF_FIRST_S
        while self._has_time:
            if self._key_refusals >= _KEY_REFUSALS:
                raise KeyRefused("the exchange refuses the key")
            is_fresh = self._is_past_lag(calls)
            try:
                orders = calls.resting()
            except (NoAnswer, Refused) as exc:
                self._note(f"cannot list orders: {exc}", exc)
                self.pause(delay)
                delay = min(2 * delay, _BACKOFF_CAP_S)
                continue
            delay = _BACKOFF_FIRST_S
            self._remaining = tuple(order.order_id for order in orders)
            if writes != self._writes:
                clean, writes = 0, self._writes
                is_fresh = False
            if orders:
                clean = 0
                self._problem = f"{len(orders)} orders rest"
                self._cancel(calls, orders)
            elif is_fresh and not self._unsettled():
                clean += 1
                if clean == CLEAN_READS:
                    return True
                self.pause(0.1)
            else:
                if is_fresh:
                    self._problem = "not every group is triggered, so an order on its way may still land"
                self.pause(0.05)
        self._problem = f"not within {self.hello.time_limit_s:g} s: {self._problem}"
        return False

    def _is_past_lag(self, calls: Calls) -> bool:
        """Whether a read made from now on shows the effect of our last write."""
        last_write = self._last_write
        elapsed = time.monotonic() - self._last_write_at
        if elapsed < self.hello.read_lag_s:
            return False
        if elapsed >= self.hello.long_read_lag_s:
            return True
        try:
            # Reads from the future are by another clock than ours: they prove nothing.
            return last_write < calls.data_time() <= time.time() + _CLOCKS_APART_S
        except (NoAnswer, Refused):
            return False

    def _cancel(self, calls: Calls, orders: list[Resting]) -> None:
        """Cancel what no triggered group is known to have taken; the next listing tells what is left."""
        todo = [order for order in orders if not self._was_just_triggered(order.group_id)]
        if not todo:
            self.pause(0.1)  # the listing lags behind the trigger
            return
        batched = [order for order in todo if order.order_id not in self._singly]
        start = 0
        while start < len(batched) and self._has_time:
            part = batched[start : start + self._batch]
            start += len(part)
            self._cancel_part(calls, part)
        for order in [order for order in todo if order not in batched]:
            if not self._has_time:
                return
            self._cancel_one(calls, order)
        self.pause(0.05)

    def _was_just_triggered(self, group_id: str | None) -> bool:
        at = None if group_id is None else self._triggered_at.get(group_id)
        return at is not None and time.monotonic() - at < _SETTLE_S

    def _cancel_part(self, calls: Calls, part: list[Resting]) -> None:
        self._wrote()
        try:
            failed = calls.cancel_batch(part)
        except Refused as exc:
            self._note(f"batch of {len(part)} cancels: {exc}", exc)
            if exc.is_throttled:
                self._await_refill(len(part))
                self._batch = max(1, self._batch // 2)
            else:
                self._singly.update(order.order_id for order in part)
                self.pause(_BACKOFF_FIRST_S)
        except NoAnswer as exc:
            self._note(f"batch of {len(part)} cancels: {exc}", exc)
            self.pause(_BACKOFF_FIRST_S)
        else:
            self._wrote()
            self._cancelled += len(part) - len(failed)
            self._singly.update(failed)
            self.log(f"{len(part) - len(failed)} of {len(part)} orders cancelled")

    def _cancel_one(self, calls: Calls, order: Resting) -> None:
        self._wrote()
        try:
            calls.cancel(order)
        except Refused as exc:
            if not exc.is_gone:
                self._note(f"order {order.order_id}: {exc}", exc)
                if exc.is_throttled:
                    self._await_refill(1)
                else:
                    self.pause(_BACKOFF_FIRST_S)
        except NoAnswer as exc:
            self._note(f"order {order.order_id}: {exc}", exc)
            self.pause(_BACKOFF_FIRST_S)
        else:
            self._wrote()
            self._cancelled += 1

    def _await_refill(self, cancels: int) -> None:
        budget = self.hello.budget
        self.pause(min(2.0, max(0.05, cancels * budget.cancel_cost / max(budget.refill_per_s, 1.0))))

    def _note(self, text: str, exc: Exception) -> None:
        self._problem = text
        self.log(text)
        if isinstance(exc, Refused) and exc.is_key:
            self._key_refusals += 1

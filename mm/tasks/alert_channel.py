"""One way to people: its own queue, pace and patience, so that a receiver that is down holds up no other."""

from collections.abc import Callable
from typing import Final, NoReturn, final

import attrs
import structlog
import trio

from mm.domain.numbers import SECOND, Micros
from mm.tasks.alert_texts import compose, plural, with_time
from mm.tasks.alert_values import Alert, AlertKind, AlertOptions, Severity
from mm.tasks.senders import Message, MessageRefused, NotSent, ReceiverGone, Route

log = structlog.get_logger(__name__)

LATE_AFTER: Final = 30 * SECOND
"""An alert older than this is told with its time."""
NEWS_FOR: Final = 60 * SECOND
"""After an outage a notice (INFO) older than this is counted only: nobody wants to read ten minutes of fills at once."""


@final
@attrs.define(eq=False, kw_only=True)
class Channel:
    """What waits for one receiver. `offer` is a plain call; `run` is the task; the others work without it."""

    route: Route
    clock: Callable[[], Micros]
    jitter: Callable[[], float]
    options: AlertOptions
    on_settled: Callable[[Alert, "Channel", bool], None]
    """An alert is off this channel: delivered, or (False) never will be."""
    on_gone: Callable[[], None]
    """The receiver was found to know us no more: what is owed to it need not wait for it."""
    outbox: list[Alert] = attrs.field(factory=list, init=False)
    not_before: float = attrs.field(default=0.0, init=False)
    failures: int = attrs.field(default=0, init=False)
    is_gone: bool = attrs.field(default=False, init=False)
    """The receiver knows us no more, as far as the last try showed."""
    messages: int = attrs.field(default=0, init=False)
    retries: int = attrs.field(default=0, init=False)
    dropped: dict[Severity, int] = attrs.field(factory=lambda: dict.fromkeys(Severity, 0), init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)

    def takes(self, alert: Alert) -> bool:
        """It matters enough for this receiver."""
        return alert.severity >= self.route.floor

    def offer(self, alert: Alert) -> None:
        """Let it wait; when too much waits, the oldest of the lowest severity goes (and is counted)."""
        self.outbox.append(alert)
        if len(self.outbox) > self.options.capacity:
            victim = min(self.outbox, key=lambda a: a.severity)
            self._drop([victim], is_settled=victim.severity < Severity.CRITICAL)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Deliver what is offered, for ever. A cancellation leaves the rest in the outbox."""
        while True:
            if self.outbox and trio.current_time() >= self.not_before:
                await self.deliver()
                continue
            with trio.move_on_at(self.not_before if self.outbox else float("inf")):
                await self._wake.wait()
            self._wake = trio.Event()
            if self.outbox:
                await trio.sleep_until(self.not_before)

    async def deliver(self) -> None:
        """Send one message with as much as fits, worst first; afterwards `not_before` says when the next may go."""
        left_out = self._leave_out_old_news()
        waiting = sorted(self.outbox, key=lambda a: -a.severity)
        now = self.clock()
        entries = [
            (a.severity.name, with_time(a.text, a.at) if now - a.at > LATE_AFTER else a.text) for a in waiting
        ]
        text, count = compose(entries)
        sent = waiting[:count]
        try:
            pause = await self.route.sender.send(Message(text=text, alerts=tuple(sent)))
        except MessageRefused as exc:
            log.error("alert message refused", channel=self.route.name, error=str(exc), alerts=len(sent))
            self._drop(sent, is_settled=True)
            pause = 0.0
        except ReceiverGone as exc:
            if not self.failures:
                log.error("alerts cannot be delivered", channel=self.route.name, error=str(exc))
            self._failed(self.options.gone_backoff_s, is_gone=True)
            return
        except NotSent as exc:
            wait = self.backoff(self.failures, exc.retry_after)
            log.info(
                "alert message not sent yet",
                channel=self.route.name,
                error=str(exc),
                again_in_s=round(wait, 1),
            )
            self.retries += 1
            self._failed(wait, is_gone=False)
            return
        else:
            self.delivered(sent)
            if left_out:
                log.info("old notices left out", channel=self.route.name, alerts=left_out)
        self.failures, self.is_gone = 0, False
        between = self.route.min_interval_s or self.options.min_interval_s
        self.not_before = trio.current_time() + max(pause, between)

    def delivered(self, alerts: list[Alert]) -> None:
        """One message with these has been accepted."""
        self.messages += 1
        for alert in alerts:
            if alert in self.outbox:
                self.outbox.remove(alert)
            self.on_settled(alert, self, True)

    def backoff(self, failures: int, retry_after: float | None) -> float:
        """What the receiver asks for, or 1, 2, 4 .. 60 s, each shortened by up to half at random."""
        if retry_after is not None:
            return retry_after + 0.1
        doubled: float = self.options.first_backoff_s * 2 ** min(failures, 16)
        longest = min(doubled, self.options.longest_backoff_s)
        return longest * (1 - self.jitter() / 2)

    async def flush(self) -> None:
        """Send what is left until cancelled or until the receiver asks for more patience than there is."""
        while self.outbox and self.not_before < trio.current_effective_deadline():
            await trio.sleep_until(self.not_before)
            await self.deliver()

    def give_up(self) -> None:
        """The end: what is left is counted; what is critical stays in the ledger."""
        if self.outbox:
            log.warning("alerts not delivered", channel=self.route.name, alerts=len(self.outbox))
            self._drop(list(self.outbox), is_settled=False)

    def _failed(self, wait: float, *, is_gone: bool) -> None:
        self.failures += 1
        self.is_gone = is_gone
        self.not_before = trio.current_time() + wait
        if is_gone:
            self.on_gone()

    def _leave_out_old_news(self) -> int:
        """After an outage, notices that are news no more become one line with their number."""
        if not self.failures:
            return 0
        now = self.clock()
        old = [
            a
            for a in self.outbox
            if a.severity is Severity.INFO and a.kind is not AlertKind.SUMMARY and now - a.at > NEWS_FOR
        ]
        if len(old) < 2:
            return 0
        self._drop(old, is_settled=True)
        note = f"{plural(len(old), 'notice')} left out while this was not reached; the log has them"
        first = old[0]
        self.outbox.append(
            Alert(
                alert_id=f"{first.alert_id}-out",
                kind=AlertKind.ERROR,
                severity=Severity.INFO,
                text=note,
                at=now,
            )
        )
        return len(old)

    def _drop(self, alerts: list[Alert], *, is_settled: bool) -> None:
        for alert in alerts:
            if alert in self.outbox:
                self.outbox.remove(alert)
                self.dropped[alert.severity] += 1
                if is_settled:
                    self.on_settled(alert, self, False)

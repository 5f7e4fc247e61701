"""Alerts to people: batched, de-duplicated, rate-limited, and never in the way of quoting.

Plain calls note what happened and return at once; they never raise and never wait. `Alerts.run` composes messages and
delivers them with retries. Critical alerts are written to the ledger until they are delivered, so that a later run
tells what this one could not. `send_now` is for last words, when no task runs any more.
"""

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, NoReturn, final

import attrs
import structlog
import trio

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill
from mm.domain.numbers import SECOND, Count, Micros
from mm.domain.order import MarketTicker
from mm.ledger import AlertRow
from mm.tasks.alert_texts import FillBatch, PlacementBatch, compose, with_time
from mm.tasks.alert_values import Alert, AlertBook, AlertKind, AlertOptions, AlertStatistics, Severity
from mm.tasks.discord import MessageRefused, NotSent, ReceiverGone, Sender

__all__ = [
    "Alert",
    "AlertBook",
    "AlertKind",
    "AlertOptions",
    "AlertStatistics",
    "Alerts",
    "Severity",
    "open_alerts",
]

log = structlog.get_logger(__name__)

LATE_AFTER: Final = 30 * SECOND
"""An alert older than this is told with its time."""


@attrs.define(eq=False)
class _Cause:
    """A cause that was told at `until` less the window; what came since is only counted."""

    kind: AlertKind
    severity: Severity
    text: str
    until: float
    repeats: int = 0


@asynccontextmanager
async def open_alerts(
    *,
    sender: Sender | None,
    clock: Callable[[], Micros],
    jitter: Callable[[], float],
    session: str,
    book: AlertBook | None = None,
    options: AlertOptions = AlertOptions(),  # noqa: B008 - frozen
) -> AsyncGenerator["Alerts", None]:
    """Alerts for a session. No task runs before `Alerts.run`; at the end what is left is sent under a deadline.

    Args:
        sender: Where to; None: alerts are only logged and shown.
        clock: Wall clock, for the texts.
        jitter: A random number in 0..1, for the backoff.
        session: Makes alert ids unique.
        book: Keeps undelivered critical alerts over restarts.
        options: Times and bounds.
    """
    alerts = Alerts(sender=sender, clock=clock, jitter=jitter, session=session, book=book, options=options)
    if book is not None:
        alerts._adopt(await book.undelivered_alerts())
    try:
        yield alerts
    finally:
        await alerts._flush()


@final
@attrs.define(eq=False, kw_only=True)
class Alerts:
    """Made by `open_alerts` only."""

    _sender: Sender | None = attrs.field(repr=False)
    _clock: Callable[[], Micros]
    _jitter: Callable[[], float]
    _session: str
    _book: AlertBook | None = attrs.field(repr=False)
    _options: AlertOptions
    _outbox: list[Alert] = attrs.field(factory=list, init=False)
    _causes: OrderedDict[tuple[AlertKind, str], _Cause] = attrs.field(factory=OrderedDict, init=False)
    _placements: PlacementBatch = attrs.field(factory=PlacementBatch, init=False)
    _placements_due: float | None = attrs.field(default=None, init=False)
    _fills: FillBatch = attrs.field(factory=FillBatch, init=False)
    _fills_due: float | None = attrs.field(default=None, init=False)
    _not_before: float = attrs.field(default=0.0, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _counter: int = attrs.field(default=0, init=False)
    _messages: int = attrs.field(default=0, init=False)
    _retries: int = attrs.field(default=0, init=False)
    _repeats: int = attrs.field(default=0, init=False)
    _dropped: dict[Severity, int] = attrs.field(factory=lambda: dict.fromkeys(Severity, 0), init=False)
    recent: deque[Alert] = attrs.field(factory=lambda: deque(maxlen=20), init=False)
    """The last alerts, for the console."""

    # --- plain calls ------------------------------------------------------------------------------------------------

    def placed(self, ticker: MarketTicker, count: Count) -> None:
        """An order was placed. Told as counts per market, one message a window."""
        if self._sender is None:
            return
        self._placements.add(ticker, count)
        if self._placements_due is None:
            self._placements_due = trio.current_time() + self._options.placements_window_s
            self._wake.set()

    def filled(self, fill: Fill, *, position: Count | None = None) -> None:
        """We were filled; `position` is the signed one after it."""
        if self._sender is None:
            return
        self._fills.add(fill, position)
        if self._fills_due is None:
            self._fills_due = trio.current_time() + self._options.fills_window_s
            self._wake.set()

    def risk(self, cause: str, text: str, *, severity: Severity = Severity.WARNING) -> None:
        """A risk rule fired, a limit was hit, books differ."""
        self.tell(AlertKind.RISK, cause, text, severity=severity)

    def error(self, cause: str, text: str, *, severity: Severity = Severity.WARNING) -> None:
        """Something failed."""
        self.tell(AlertKind.ERROR, cause, text, severity=severity)

    def started(self, text: str) -> None:
        """The bot quotes."""
        self.tell(AlertKind.START, "start", text, severity=Severity.INFO)

    def stopped(self, text: str, *, severity: Severity = Severity.INFO) -> None:
        """The bot has stopped; delivered at the latest when the block ends."""
        self.tell(AlertKind.STOP, "stop", text, severity=severity)

    def tell(self, kind: AlertKind, cause: str, text: str, *, severity: Severity) -> None:
        """Tell `text`, unless `cause` was told within the repeat window: then it is counted and told at its end."""
        known = self._causes.get((kind, cause))
        now = trio.current_time()
        if known is not None and (now < known.until or known.repeats) and severity <= known.severity:
            known.repeats += 1
            known.text = text
            self._repeats += 1
            return
        if known is not None:
            self._end_window((kind, cause), known, now, renew=False)
        elif len(self._causes) >= self._options.capacity:
            self._end_window(*self._causes.popitem(last=False), now, renew=False)
        self._causes[kind, cause] = _Cause(kind, severity, text, now + self._options.repeat_window_s)
        self._causes.move_to_end((kind, cause))
        self._post(kind, severity, text)

    def statistics(self) -> AlertStatistics:
        """Counters."""
        return AlertStatistics(
            waiting=len(self._outbox),
            messages=self._messages,
            retries=self._retries,
            repeats=self._repeats,
            dropped=dict(self._dropped),
        )

    # --- awaited calls ----------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Deliver what is told, for ever. A cancellation leaves the rest for the end of the block."""
        task_status.started()
        while True:
            now = trio.current_time()
            due = self._collect(now)
            if self._outbox and now >= self._not_before:
                await self._deliver()
                continue
            if self._outbox:
                due = min(due, self._not_before)
            with trio.move_on_at(due):
                await self._wake.wait()
            self._wake = trio.Event()

    async def send_now(self, kind: AlertKind, text: str, *, severity: Severity = Severity.CRITICAL) -> bool:
        """Last words: deliver at once, in front of everything that waits, within `send_now_timeout_s`.

        Needs no running task and is shielded, so that it works in any cleanup. Whether it was delivered; an
        undelivered critical one is in the ledger for the next run.
        """
        alert = self._make(kind, severity, text)
        self._remember(alert)
        if self._sender is None:
            return False
        message, _ = compose([(alert.severity.name, alert.text)])
        with trio.move_on_after(self._options.send_now_timeout_s, shield=True):
            attempt = 0
            while True:
                try:
                    await self._sender.send(message)
                except (MessageRefused, ReceiverGone) as exc:
                    log.error("last words refused", error=str(exc), text=text)
                    break
                except NotSent as exc:
                    self._retries += 1
                    await trio.sleep(self._backoff(attempt, exc.retry_after))
                    attempt += 1
                else:
                    self._messages += 1
                    self._delivered(alert)
                    return True
        log.error("last words not delivered", text=text)
        self._dropped[severity] += 1
        return False

    # --- inside: from what happened to what waits -------------------------------------------------------------------

    def _adopt(self, rows: list[AlertRow]) -> None:
        for row in rows:
            kind = AlertKind(row.kind) if row.kind in {k.value for k in AlertKind} else AlertKind.ERROR
            alert = Alert(
                alert_id=row.alert_id,
                kind=kind,
                severity=Severity.CRITICAL,
                text=f"from an earlier run: {row.text}",
                at=row.raised_at,
            )
            self.recent.append(alert)
            self._queue(alert)

    def _make(self, kind: AlertKind, severity: Severity, text: str) -> Alert:
        self._counter += 1
        return Alert(
            alert_id=f"{self._session}-{self._counter}",
            kind=kind,
            severity=severity,
            text=text,
            at=self._clock(),
        )

    def _post(self, kind: AlertKind, severity: Severity, text: str) -> None:
        alert = self._make(kind, severity, text)
        self._remember(alert)
        self._queue(alert)
        self._wake.set()

    def _remember(self, alert: Alert) -> None:
        write = (log.info, log.warning, log.error)[alert.severity]
        write("alert", kind=alert.kind.value, severity=alert.severity.name.lower(), text=alert.text)
        self.recent.append(alert)
        if alert.severity is Severity.CRITICAL and self._book is not None:
            row = AlertRow(
                alert_id=alert.alert_id, raised_at=alert.at, kind=alert.kind.value, text=alert.text
            )
            try:
                self._book.record_alert(row)
            except LedgerError as exc:
                # The ledger's own failure stops trading elsewhere; this alert still goes out.
                log.error("alert not kept for a later run", error=str(exc))

    def _queue(self, alert: Alert) -> None:
        """Let it wait; when too much waits, the oldest of the lowest severity goes (and is counted)."""
        if self._sender is None:
            return
        self._outbox.append(alert)
        if len(self._outbox) > self._options.capacity:
            victim = min(self._outbox, key=lambda a: a.severity)
            self._outbox.remove(victim)
            self._dropped[victim.severity] += 1

    def _collect(self, now: float) -> float:
        """Put what is due into the outbox; give the time at which the next thing is due."""
        if self._placements_due is not None and now >= self._placements_due:
            self._close_placements()
        if self._fills_due is not None and now >= self._fills_due:
            self._close_fills()
        for key, cause in list(self._causes.items()):
            if now >= cause.until:
                del self._causes[key]
                self._end_window(key, cause, now, renew=True)
        waits = [self._placements_due, self._fills_due, *(c.until for c in self._causes.values())]
        return min((w for w in waits if w is not None), default=float("inf"))

    def _close_placements(self) -> None:
        if self._placements.orders:
            text = self._placements.text(self._options.placements_window_s)
            self._queue(self._make(AlertKind.PLACEMENTS, Severity.INFO, text))
        self._placements, self._placements_due = PlacementBatch(), None

    def _close_fills(self) -> None:
        if self._fills.fills:
            self._queue(self._make(AlertKind.FILLS, Severity.INFO, self._fills.text()))
        self._fills, self._fills_due = FillBatch(), None

    def _end_window(self, key: tuple[AlertKind, str], cause: _Cause, now: float, *, renew: bool) -> None:
        """Tell how often it came again; a cause that keeps coming keeps its window."""
        if not cause.repeats:
            return
        times = f"{cause.repeats} more time{'s' if cause.repeats > 1 else ''}"
        self._post(
            cause.kind, cause.severity, f"{cause.text} ({times} in {self._options.repeat_window_s:g} s)"
        )
        if renew:
            until = now + self._options.repeat_window_s
            self._causes[key] = _Cause(cause.kind, cause.severity, cause.text, until)

    # --- inside: from what waits to people --------------------------------------------------------------------------

    async def _deliver(self) -> None:
        """Send one message with as much as fits, worst first; afterwards `_not_before` says when the next may go."""
        assert self._sender is not None
        options = self._options
        waiting = sorted(self._outbox, key=lambda a: -a.severity)
        now = self._clock()
        message, count = compose(
            [
                (a.severity.name, with_time(a.text, a.at) if now - a.at > LATE_AFTER else a.text)
                for a in waiting
            ]
        )
        sent = waiting[:count]
        try:
            pause = await self._sender.send(message)
        except MessageRefused as exc:
            log.error("alert message refused", error=str(exc), alerts=len(sent))
            self._drop(sent)
            pause = 0.0
        except ReceiverGone as exc:
            if not self._failures:
                log.error("alerts cannot be delivered", error=str(exc))
            self._failures += 1
            self._not_before = trio.current_time() + options.gone_backoff_s
            return
        except NotSent as exc:
            wait = self._backoff(self._failures, exc.retry_after)
            log.info("alert message not sent yet", error=str(exc), again_in_s=round(wait, 1))
            self._failures += 1
            self._retries += 1
            self._not_before = trio.current_time() + wait
            return
        else:
            self._messages += 1
            for alert in sent:
                self._delivered(alert)
        self._failures = 0
        self._not_before = trio.current_time() + max(pause, options.min_interval_s)

    def _delivered(self, alert: Alert) -> None:
        if alert in self._outbox:
            self._outbox.remove(alert)
        if alert.severity is Severity.CRITICAL and self._book is not None:
            try:
                self._book.record_alert_delivered(alert.alert_id)
            except LedgerError as exc:
                log.error("delivery not recorded", error=str(exc))

    def _drop(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            if alert in self._outbox:
                self._outbox.remove(alert)
                self._dropped[alert.severity] += 1

    def _backoff(self, failures: int, retry_after: float | None) -> float:
        """What the receiver asks for, or 1, 2, 4 .. 60 s, each shortened by up to half at random."""
        if retry_after is not None:
            return retry_after + 0.1
        doubled: float = self._options.first_backoff_s * 2 ** min(failures, 16)
        longest = min(doubled, self._options.longest_backoff_s)
        return longest * (1 - self._jitter() / 2)

    async def _flush(self) -> None:
        """Send what is left under a deadline of its own; count what stays."""
        if self._sender is None:
            return
        self._close_placements()
        self._close_fills()
        for key, cause in list(self._causes.items()):
            self._end_window(key, cause, trio.current_time(), renew=False)
        self._causes.clear()
        with trio.move_on_after(self._options.flush_timeout_s, shield=True):
            while self._outbox and self._not_before < trio.current_effective_deadline():
                await trio.sleep_until(self._not_before)
                await self._deliver()
        if self._outbox:
            log.warning("alerts not delivered", alerts=len(self._outbox))
            self._drop(list(self._outbox))

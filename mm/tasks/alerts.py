"""Alerts to people: batched, de-duplicated, rate-limited, and never in the way of quoting.

Plain calls note what happened and return at once; they never raise and never wait. `Alerts.run` turns what happened
into alerts and hands them to the channels (`mm.tasks.alert_channel`), each of which delivers with retries. Critical
alerts are written to the ledger until every channel has settled them and one at least has delivered them, so that a
later run tells what this one could not. `send_now` is for last words, when no task runs any more.
"""

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn, final

import attrs
import structlog
import trio

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill
from mm.domain.numbers import Count, Micros
from mm.domain.order import MarketTicker
from mm.ledger import AlertRow
from mm.tasks.alert_channel import Channel
from mm.tasks.alert_texts import FillBatch, PlacementBatch, compose
from mm.tasks.alert_values import Alert, AlertBook, AlertKind, AlertOptions, AlertStatistics, Severity
from mm.tasks.senders import Message, MessageRefused, NotSent, ReceiverGone, Route

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


@attrs.define(eq=False)
class _Cause:
    """A cause that was told at `until` less the window; what came since is only counted."""

    kind: AlertKind
    severity: Severity
    text: str
    until: float
    repeats: int = 0


@attrs.define(eq=False)
class _Delivery:
    """Of a critical alert."""

    waiting: list[Channel]
    is_delivered: bool = False


@asynccontextmanager
async def open_alerts(
    *,
    routes: Sequence[Route],
    clock: Callable[[], Micros],
    jitter: Callable[[], float],
    session: str,
    book: AlertBook | None = None,
    options: AlertOptions = AlertOptions(),  # noqa: B008 - frozen
) -> AsyncGenerator["Alerts", None]:
    """Alerts for a session. No task runs before `Alerts.run`; at the end what is left is sent under a deadline.

    Args:
        routes: Where to; none: alerts are only logged and shown.
        clock: Wall clock, for the texts.
        jitter: A random number in 0..1, for the backoff.
        session: Makes alert ids unique.
        book: Keeps undelivered critical alerts over restarts.
        options: Times and bounds.
    """
    alerts = Alerts(clock=clock, session=session, book=book, options=options)
    for route in routes:
        alerts._add_channel(route, jitter)
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

    _clock: Callable[[], Micros]
    _session: str
    _book: AlertBook | None = attrs.field(repr=False)
    _options: AlertOptions
    channels: list[Channel] = attrs.field(factory=list, init=False)
    _unsettled: dict[str, "_Delivery"] = attrs.field(factory=dict, init=False)
    """Critical alerts that are in the ledger, by id."""
    _causes: OrderedDict[tuple[AlertKind, str], _Cause] = attrs.field(factory=OrderedDict, init=False)
    _placements: PlacementBatch = attrs.field(factory=PlacementBatch, init=False)
    _placements_due: float | None = attrs.field(default=None, init=False)
    _fills: FillBatch = attrs.field(factory=FillBatch, init=False)
    _fills_due: float | None = attrs.field(default=None, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _counter: int = attrs.field(default=0, init=False)
    _repeats: int = attrs.field(default=0, init=False)
    _unheard: dict[Severity, int] = attrs.field(factory=lambda: dict.fromkeys(Severity, 0), init=False)
    """Last words that reached nobody."""
    recent: deque[Alert] = attrs.field(factory=lambda: deque(maxlen=20), init=False)
    """The last alerts, for the console."""
    on_alert: Callable[[Alert], None] = attrs.field(default=lambda alert: None, init=False)
    """Told of each alert as it is raised, whether anybody can be reached or not."""

    # --- plain calls ------------------------------------------------------------------------------------------------

    def placed(self, ticker: MarketTicker, count: Count) -> None:
        """An order was placed. Told as counts per market, one message a window."""
        if not self.channels:
            return
        self._placements.add(ticker, count)
        if self._placements_due is None:
            self._placements_due = trio.current_time() + self._options.placements_window_s
            self._wake.set()

    def filled(self, fill: Fill, *, position: Count | None = None) -> None:
        """We were filled; `position` is the signed one after it."""
        if not self.channels:
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

    def summary(self, text: str) -> None:
        """The day that is over, in figures."""
        self._post(AlertKind.SUMMARY, Severity.INFO, text)

    def statistics(self) -> AlertStatistics:
        """Counters, over all channels."""
        channels = self.channels
        return AlertStatistics(
            waiting=sum(len(c.outbox) for c in channels),
            messages=sum(c.messages for c in channels),
            retries=sum(c.retries for c in channels),
            repeats=self._repeats,
            dropped={s: self._unheard[s] + sum(c.dropped[s] for c in channels) for s in Severity},
        )

    # --- awaited calls ----------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Deliver what is told, for ever. A cancellation leaves the rest for the end of the block."""
        async with trio.open_nursery() as nursery:
            for channel in self.channels:
                nursery.start_soon(channel.run)
            task_status.started()
            while True:
                due = self._collect(trio.current_time())
                with trio.move_on_at(due):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def send_now(self, kind: AlertKind, text: str, *, severity: Severity = Severity.CRITICAL) -> bool:
        """Last words: deliver at once, in front of everything that waits, within `send_now_timeout_s`.

        Needs no running task and is shielded, so that it works in any cleanup. Whether somebody got it; an
        undelivered critical one is in the ledger for the next run.
        """
        alert = self._make(kind, severity, text)
        self._remember(alert)
        channels = [channel for channel in self.channels if channel.takes(alert)]
        self._track(alert, channels)
        heard: list[bool] = []

        async def tell(channel: Channel) -> None:
            heard.append(await self._last_words(channel, alert))

        with trio.move_on_after(self._options.send_now_timeout_s, shield=True):
            async with trio.open_nursery() as nursery:
                for channel in channels:
                    nursery.start_soon(tell, channel)
        if not any(heard) and channels:
            log.error("last words not delivered", text=text)
            self._unheard[severity] += 1
        return any(heard)

    async def _last_words(self, channel: Channel, alert: Alert) -> bool:
        """Until one channel has them or refuses them."""
        text, _ = compose([(alert.severity.name, alert.text)])
        attempt = 0
        while True:
            try:
                await channel.route.sender.send(Message(text=text, alerts=(alert,)))
            except (MessageRefused, ReceiverGone) as exc:
                log.error("last words refused", channel=channel.route.name, error=str(exc), text=alert.text)
                return False
            except NotSent as exc:
                channel.retries += 1
                await trio.sleep(channel.backoff(attempt, exc.retry_after))
                attempt += 1
            else:
                channel.delivered([alert])
                return True

    # --- inside: from what happened to what waits -------------------------------------------------------------------

    def _add_channel(self, route: Route, jitter: Callable[[], float]) -> None:
        self.channels.append(
            Channel(
                route=route,
                clock=self._clock,
                jitter=jitter,
                options=self._options,
                on_settled=self._settled,
                on_gone=self._look_at_owed,
            )
        )

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
        self.on_alert(alert)
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
        """Hand it to every channel that takes it."""
        channels = [channel for channel in self.channels if channel.takes(alert)]
        self._track(alert, channels)
        for channel in channels:
            channel.offer(alert)

    def _track(self, alert: Alert, channels: Sequence[Channel]) -> None:
        if alert.severity is Severity.CRITICAL and self._book is not None:
            self._unsettled[alert.alert_id] = _Delivery(waiting=list(channels))

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

    def _settled(self, alert: Alert, channel: Channel, is_delivered: bool) -> None:
        """A channel is done with an alert. A critical one leaves the ledger when it was delivered somewhere and no
        channel that can still be reached owes it."""
        delivery = self._unsettled.get(alert.alert_id)
        if delivery is None or self._book is None:
            return
        delivery.is_delivered |= is_delivered
        if channel in delivery.waiting:
            delivery.waiting.remove(channel)
        self._forget_when_done(alert.alert_id, delivery)

    def _look_at_owed(self) -> None:
        """A channel is gone: what waits for it alone, and was delivered elsewhere, is done."""
        for alert_id, delivery in list(self._unsettled.items()):
            self._forget_when_done(alert_id, delivery)

    def _forget_when_done(self, alert_id: str, delivery: _Delivery) -> None:
        if not delivery.is_delivered or not all(other.is_gone for other in delivery.waiting):
            return
        assert self._book is not None
        del self._unsettled[alert_id]
        try:
            self._book.record_alert_delivered(alert_id)
        except LedgerError as exc:
            log.error("delivery not recorded", error=str(exc))

    async def _flush(self) -> None:
        """Send what is left under a deadline of its own; count what stays."""
        if not self.channels:
            return
        self._close_placements()
        self._close_fills()
        for key, cause in list(self._causes.items()):
            self._end_window(key, cause, trio.current_time(), renew=False)
        self._causes.clear()
        with trio.move_on_after(self._options.flush_timeout_s, shield=True):
            async with trio.open_nursery() as nursery:
                for channel in self.channels:
                    nursery.start_soon(channel.flush)
        for channel in self.channels:
            channel.give_up()

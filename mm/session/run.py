"""The session: opens the blocks, builds the nursery tree, and keeps the promise on the way out.

venue > ledger > alerts                    blocks without tasks: usable in every cleanup
  session nursery: signals, alerts, ledger writer, guardian link
    recovery                               the sweep of whatever earlier lives left, then the first clean pass
    no_orders_left                         the promise: its exit sweeps and verifies
      trading scope                        cancelled with a reason by signals, monitor, operator
        nursery: write scheduler, booking, reconciler, feed, discovery, monitor, one quoter a market
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import structlog
import trio

from mm.domain.errors import ConfigError, InvariantError, LedgerError, MMError
from mm.domain.numbers import Count
from mm.domain.tickers import format_time
from mm.exchange.kalshi.options import Tap
from mm.exchange.port import AuthError, RateLimits
from mm.ledger import Ledger, lock_data_folder, open_ledger
from mm.session.channels import open_routes
from mm.session.incidents import incidents_if_wanted
from mm.session.leaving import sweep_without_books
from mm.session.recording import recording_if_wanted
from mm.session.reload import Reloader
from mm.session.summary import ExitCode, Summary
from mm.session.surroundings import Surroundings
from mm.session.trading import Trading, first_contact
from mm.session.venue import Venue, open_venue, shown_to_people
from mm.settings import Settings
from mm.settings.proof import accepted_or_refused
from mm.tasks.alerts import AlertKind, Alerts, Severity, open_alerts
from mm.tasks.daily import DailySummary
from mm.tasks.ids import OrderIds, new_session
from mm.tasks.incidents import Incidents
from mm.tasks.noted_exchange import noted
from mm.tasks.recorder import Recorder
from mm.tasks.signals import run_signals

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class RunOptions:
    """What the command line adds to the settings."""

    force_paper: bool = False
    minutes: float | None = None
    """End by itself after so long, like Ctrl-C."""
    summary_path: Path | None = None
    reload_settings: Callable[[], Settings] | None = None
    """Reads all settings anew when SIGHUP asks for it; None: SIGHUP stops the bot, as a terminal that hangs up must."""
    on_trading: Callable[[Trading, trio.Nursery], None] = lambda trading, nursery: None
    """Called once trading has begun, with the nursery of the views."""

    def with_views(self, show: Callable[[Trading, trio.Nursery], None]) -> "RunOptions":
        """The same, with views started once trading has begun."""
        return attrs.evolve(self, on_trading=show)


@attrs.define(eq=False)
class Stop:
    """The one way to end trading on purpose."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    reason: str = ""
    on_stop: Callable[[str], None] = lambda reason: None

    def __call__(self, reason: str) -> None:
        """End trading; the first reason is kept."""
        if not self.reason:
            self.reason = reason
            log.warning("stopping", reason=reason)
            self.on_stop(reason)
            self.scope.cancel(reason=reason)


async def run_session(
    settings: Settings,
    surroundings: Surroundings,
    options: RunOptions,
    *,
    signals: AsyncIterator[int] | None = None,
) -> Summary:
    """Run the bot until it is asked to stop or fails; what rests is off the exchange when this returns or raises.

    Args:
        signals: An open signal receiver, held by the caller beyond this call; None: no signals are heard.

    Returns:
        The summary, with the exit code.

    Raises:
        ConfigError: Found before or at the very start; nothing was placed.
        trio.Cancelled: The caller was cancelled; the sweep has been done.
    """
    settings = accepted_or_refused(settings, on_paper=options.force_paper)
    summary = Summary()
    service = surroundings.service
    stop = Stop(on_stop=service.stopping if service is not None else lambda reason: None)
    try:
        async with AsyncExitStack() as stack:
            stack.enter_context(lock_data_folder(settings.data_dir))
            recorder = await stack.enter_async_context(recording_if_wanted(settings, surroundings))
            incidents = await stack.enter_async_context(
                incidents_if_wanted(settings, surroundings, summary, recorder)
            )
            venue = await stack.enter_async_context(
                open_venue(
                    settings,
                    surroundings,
                    force_paper=options.force_paper,
                    tap=_tap(recorder, incidents),
                )
            )
            if incidents is not None:
                calls = noted(venue.exchange, incidents.decisions.journal, surroundings.clock)
                venue = attrs.evolve(venue, exchange=calls)
            stack.enter_context(shown_to_people(venue, settings.data_dir))
            try:
                await _run_on(
                    venue, settings, surroundings, options, stop, summary, signals, recorder, incidents
                )
            except* LedgerError as group:
                if not summary.is_swept:
                    _blame(summary, _first_of(group))
                    prefix = OrderIds(settings["BOT_NAME"], "").bot_prefix
                    await sweep_without_books(venue.exchange, surroundings.clock, prefix, summary)
                raise
    except* ConfigError as group:
        raise _first_of(group) from None
    except* Exception as group:
        exc = _first_of(group)
        log.error("failed", error=str(exc), kind=type(exc).__name__, exc_info=None if _is_told(exc) else exc)
        _blame(summary, exc)
    return summary


def _tap(recorder: Recorder | None, incidents: Incidents | None) -> Tap | None:
    """Who is shown the socket's frames: the recording, else the journal of decisions, else nobody."""
    if recorder is not None:
        return recorder.frames_came
    return incidents.decisions.journal.frames_came if incidents is not None else None


def _is_told(exc: BaseException) -> bool:
    """Raised on purpose, with a message for people: needs no traceback."""
    return isinstance(exc, MMError) and not isinstance(exc, InvariantError)


def _blame(summary: Summary, exc: BaseException) -> str:
    """Enter what failed; an exit code that says more is kept."""
    if isinstance(exc, AuthError):
        reason = f"the exchange refuses the key (KALSHI_API_KEY and its private key): {exc}"
    else:
        reason = f"{type(exc).__name__}: {exc}"
    if summary.exit_code is ExitCode.CLEAN:
        summary.exit_code = ExitCode.FAILED
    summary.reason = summary.reason or reason
    return reason


async def _run_on(
    venue: Venue,
    settings: Settings,
    surroundings: Surroundings,
    options: RunOptions,
    stop: Stop,
    summary: Summary,
    signals: AsyncIterator[int] | None,
    recorder: Recorder | None,
    incidents: Incidents | None,
) -> None:
    session = new_session(surroundings.random_below)
    async with (
        open_ledger(
            settings.data_dir / "ledger.sqlite3",
            account=venue.exchange.account,
            runner=surroundings.runner,
            clock=surroundings.clock,
            session=session,
            connect=surroundings.connect_ledger,
        ) as ledger,
        open_routes(settings, surroundings) as routes,
        open_alerts(
            routes=routes,
            clock=surroundings.clock,
            jitter=surroundings.randomness.random,
            session=session,
            book=ledger,
        ) as alerts,
    ):
        await _tell_of_a_death(ledger, alerts)
        ledger.record_session_start()
        trading: Trading | None = None
        service = surroundings.service
        try:
            async with trio.open_nursery() as nursery:
                if service is not None:
                    nursery.start_soon(service.run)
                if signals is not None:
                    reload = _reload(options, surroundings, alerts, lambda: trading)
                    await nursery.start(run_signals, signals, stop, reload)
                await nursery.start(alerts.run)
                await nursery.start(ledger.run_writer)
                if recorder is not None:
                    await nursery.start(recorder.run)
                if incidents is not None:
                    incidents.session, alerts.on_alert = session, incidents.alert
                    await nursery.start(incidents.run)
                if options.minutes is not None:
                    nursery.start_soon(_end_after, options.minutes, stop)
                limits: RateLimits | None = None
                with trio.CancelScope() as stop.scope:
                    limits = await first_contact(venue.exchange)
                if limits is not None:
                    trading = Trading(
                        settings=settings,
                        venue=venue,
                        limits=limits,
                        ledger=ledger,
                        alerts=alerts,
                        surroundings=surroundings,
                        ids=OrderIds(settings["BOT_NAME"], session),
                        stop=stop,
                        summary=summary,
                        decisions=incidents.decisions.journal if incidents is not None else None,
                        why_stopping=lambda: stop.reason,
                    )
                    await _trade(trading, stop, options, nursery)
                nursery.cancel_scope.cancel(reason="session is over")
        except* ConfigError:
            raise
        except* Exception as group:
            exc = _first_of(group)
            alerts.error(type(exc).__name__, _blame(summary, exc), severity=Severity.CRITICAL)
            raise
        finally:
            ledger.begin_shutdown()
            if trading is not None:
                trading.finish()
            summary.reason = summary.reason or stop.reason
            ledger.record_session_end(reason=summary.reason, exit_code=int(summary.exit_code))
            await _last_words(alerts, summary)


async def _trade(trading: Trading, stop: Stop, options: RunOptions, nursery: trio.Nursery) -> None:
    if stop.reason:
        return
    stop.scope = trio.CancelScope()

    def begun() -> None:
        if trading.surroundings.service is not None:
            trading.surroundings.service.ready(trading.venue.label)
        nursery.start_soon(_daily_summary(trading).run)
        options.on_trading(trading, nursery)

    await trading.run(stop.scope, begun)


def _daily_summary(trading: Trading) -> DailySummary:
    def held() -> tuple[int, Count]:
        nets = [abs(h.state.net) for h in trading.floor.positions.histories.values() if not h.state.is_flat]
        return len(nets), Count(sum(nets))

    return DailySummary(
        book=trading.ledger,
        clock=trading.clock,
        held=held,
        is_wanted=lambda: trading.settings["DAILY_SUMMARY"],
        tell=trading.alerts.summary,
    )


def _reload(
    options: RunOptions, surroundings: Surroundings, alerts: Alerts, trading: Callable[[], Trading | None]
) -> Callable[[], Awaitable[None]] | None:
    """What SIGHUP asks for; None where it stops the bot."""
    if options.reload_settings is None:
        return None
    reloader = Reloader(
        read=options.reload_settings, runner=surroundings.runner, trading=trading, alerts=alerts
    )
    service = surroundings.service

    async def reload() -> None:
        if service is not None:
            service.reloading()
        await reloader.reload()
        if service is not None:
            service.ready("settings reloaded")

    return reload


async def _tell_of_a_death(ledger: Ledger, alerts: Alerts) -> None:
    """The run before could not say that it was killed, and its guardian only where it has a way to."""
    for earlier in await ledger.sessions(limit=1):
        if earlier.ended_at is None:
            began = format_time(earlier.started_at)[:19]
            alerts.error(
                "died",
                f"the run before, begun {began}Z, died without a word (killed, out of memory, power): its guardian or "
                "this start's sweep took its orders off",
            )


async def _end_after(minutes: float, stop: Stop) -> None:
    await trio.sleep(minutes * 60)
    stop(f"ran for {minutes:g} minutes")


async def _last_words(alerts: Alerts, summary: Summary) -> None:
    """Orders that may rest are told at once, whatever else is on its way."""
    if summary.exit_code is ExitCode.ORDERS_MAY_REST:
        await alerts.send_now(AlertKind.STOP, f"Orders may rest. {summary.reason}")


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc

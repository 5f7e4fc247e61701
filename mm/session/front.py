"""The session in front of people: signals, logs, the console, the summary, the exit code."""

import os
import signal
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TextIO

import attrs
import structlog
import trio

from mm.domain.errors import ConfigError
from mm.session.looking import look_around, selection_text
from mm.session.run import RunOptions, run_session
from mm.session.secrets import secrets_of
from mm.session.summary import ExitCode, Summary
from mm.session.surroundings import Surroundings, live_surroundings, wall_clock
from mm.session.trading import Trading, first_contact
from mm.session.venue import check_files, open_venue
from mm.session.viewing import Viewer
from mm.session.warm import freeze_memory
from mm.settings import Settings, load_settings
from mm.tasks.attribution import FILE_NAME as ATTRIBUTION_FILE
from mm.tasks.attribution import Attribution
from mm.tasks.signals import STOP_SIGNALS
from mm.views.logs import Logs, open_logs
from mm.views.plain import PlainLines
from mm.views.texts import summary_text

log = structlog.get_logger(__name__)


async def run_bot(settings: Settings, options: RunOptions) -> int:
    """`mm run`. Returns the exit code; raises `ConfigError` for what is wrong before anything starts."""
    check_files(settings)
    surroundings = live_surroundings()
    if hang_up_reloads(surroundings):
        options = attrs.evolve(options, reload_settings=load_settings)
    with ExitStack() as stack:
        logs = stack.enter_context(open_log_files(settings))
        for number in STOP_SIGNALS:  # restored when the receiver closes: by then the exit code is decided
            signal.signal(number, signal.SIG_IGN)
        signals = stack.enter_context(trio.open_signal_receiver(*STOP_SIGNALS))
        options = options.with_views(lambda trading, nursery: show(trading, nursery, logs))
        summary = await run_session(settings, surroundings, options, signals=signals)
        log.info("ended", reason=summary.reason, exit_code=int(summary.exit_code))
    tell_end(summary, options)
    return int(summary.exit_code)


def hang_up_reloads(surroundings: Surroundings) -> bool:
    """Whether SIGHUP asks for the settings to be read anew. Otherwise it stops the bot.

    It does where no terminal can have hung up (there is none, or `nohup` told us to outlive it), and somebody may have
    something to tell: a service manager, or a file `.env`. The environment alone cannot change while we run.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and has_terminal():
        return False
    return surroundings.service is not None or Path(".env").is_file()


def has_terminal() -> bool:
    """There is a controlling terminal, which hangs up when its window is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def show(trading: Trading, nursery: trio.Nursery, logs: Logs) -> None:
    """Start the console and the dashboard beside the trading."""
    viewer = Viewer(trading, trading.clock())
    trading.attribution = attribution = Attribution(
        floor=trading.floor,
        clock=trading.clock,
        path=trading.settings.data_dir / ATTRIBUTION_FILE,
        runner=trading.surroundings.runner,
        session=trading.ids.session,
    )
    nursery.start_soon(attribution.run)
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    tell = say_nothing
    if is_terminal:
        from mm.views.console import Console, terminal_writer  # with rich, which is large

        writer = terminal_writer(sys.stdout, trio.CapacityLimiter(1))
        console = Console(write=writer, is_terminal=True, logs=logs)
        nursery.start_soon(console.run, viewer.snapshot)
        tell = console.note
    else:
        nursery.start_soon(PlainLines().run, viewer.snapshot)
    if trading.settings["WEB_ADDRESS"] != "off":
        # Imported only here: who switches the dashboard off does not pay for it.
        from mm.session.web import Dashboard

        dashboard = Dashboard(
            trading=trading,
            viewer=viewer,
            address=trading.settings["WEB_ADDRESS"],
            names=trading.settings["WEB_HOSTS"],
            tell=tell,
        )
        nursery.start_soon(dashboard.run)
    freeze_memory()


def say_nothing(line: str) -> None:
    """Where there is no screen to print on."""


def open_log_files(settings: Settings) -> AbstractContextManager[Logs]:
    """The log file under the data folder, and lines for people on stderr. Raises `ConfigError`."""
    folder = settings.data_dir / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError([f"MM_DATA_DIR={str(settings.data_dir)!r}: {exc.strerror}"]) from None
    return open_logs(folder, clock=wall_clock, secrets=secrets_of(settings), human=sys.stderr)


def tell_end(summary: Summary, options: RunOptions) -> None:
    """The last lines: to stdout when all is well, to stderr when it is not; and the summary file."""
    out = sys.stdout if summary.exit_code is ExitCode.CLEAN else sys.stderr
    say(summary_text(summary), out)
    if options.summary_path is None:
        return
    try:
        summary.write(options.summary_path)
    except OSError as exc:
        say(f"mm: --summary {options.summary_path}: {exc.strerror}", sys.stderr)


def say(text: str, out: TextIO) -> None:
    """A line for people. Where nobody can read it any more (a closed terminal, a pipe whose reader is gone), it and
    whatever waits in the stream are let go of: the exit code tells how trading ended, not how printing did."""
    try:
        out.write(text + "\n")
        out.flush()
    except OSError:  # the log is closed by now: there is nobody left to tell
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


async def print_discovery(settings: Settings) -> int:
    """`mm discover`: what would be traded, and why the rest would not. Places nothing."""
    check_files(settings)
    surroundings = live_surroundings()
    async with open_venue(settings, surroundings, force_paper=False) as venue:
        limits = await first_contact(venue.exchange)
        selection, series = await look_around(venue.exchange, limits, settings, surroundings.clock)
    sys.stdout.write(selection_text(selection, series))
    return 0

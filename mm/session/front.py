"""The session in front of people: signals, logs, the console, the summary, the exit code."""

import sys

import structlog
import trio

from mm.domain.numbers import format_money
from mm.session.looking import look_around, selection_text
from mm.session.run import RunOptions, run_session
from mm.session.summary import ExitCode, Summary
from mm.session.surroundings import live_surroundings
from mm.session.trading import first_contact
from mm.session.venue import check_files, open_venue
from mm.settings import Settings
from mm.tasks.signals import STOP_SIGNALS

log = structlog.get_logger(__name__)


async def run_bot(settings: Settings, options: RunOptions) -> int:
    """`mm run`. Returns the exit code; raises `ConfigError` for what is wrong before anything starts."""
    check_files(settings)
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        summary = await run_session(settings, live_surroundings(), options, signals=signals)
    if options.summary_path is not None:
        summary.write(options.summary_path)
    tell_end(summary)
    return int(summary.exit_code)


def tell_end(summary: Summary) -> None:
    """The last lines: to stdout when all is well, to stderr when it is not."""
    out = sys.stdout if summary.exit_code is ExitCode.CLEAN else sys.stderr
    out.write(f"{summary.reason or 'ended'}\n")
    resting = summary.orders_resting_at_exit
    match = {True: "equal the exchange's", False: "DIFFER from the exchange's", None: "not compared"}
    out.write(
        f"{'unknown' if resting is None else resting} orders rest; {summary.orders_placed} placed, "
        f"{summary.fills} fills, realized {format_money(summary.realized_pnl)}, "
        f"fees {format_money(summary.fees)}; positions {match[summary.positions_match]}; "
        f"exit code {int(summary.exit_code)}\n"
    )


async def print_discovery(settings: Settings) -> int:
    """`mm discover`: what would be traded, and why the rest would not. Places nothing."""
    check_files(settings)
    surroundings = live_surroundings()
    async with open_venue(settings, surroundings, force_paper=False) as venue:
        limits = await first_contact(venue.exchange)
        selection, series = await look_around(venue.exchange, limits, settings, surroundings.clock)
    sys.stdout.write(selection_text(selection, series))
    return 0

"""The commands beside the bot, as the command line calls them: checked files, quiet logs, live surroundings."""

import sys
from contextlib import AbstractContextManager

from mm.session.flatten import flatten
from mm.session.operator import ask_terminal, cancel_all
from mm.session.secrets import secrets_of
from mm.session.status import show_status
from mm.session.surroundings import live_surroundings, wall_clock
from mm.session.venue import check_files
from mm.settings import Settings
from mm.views.logs import Logs, open_logs


def quiet_logs(settings: Settings) -> AbstractContextManager[Logs]:
    """Warnings to stderr and no file (the bot's may be in use): stdout is for what commands say."""
    secrets = secrets_of(settings)
    return open_logs(
        None,
        clock=wall_clock,
        secrets=secrets,
        human=sys.stderr,
        human_level="warning",
        file_level="warning",
    )


async def run_cancel_all(settings: Settings, dry_run: bool, everything: bool, must_ask: bool) -> int:
    """`mm cancel-all`."""
    check_files(settings)
    with quiet_logs(settings):
        return await cancel_all(
            settings,
            live_surroundings(),
            dry_run=dry_run,
            everything=everything,
            ask=ask_terminal if must_ask else None,
        )


async def run_flatten(settings: Settings, tickers: tuple[str, ...], dry_run: bool, beside_bot: bool) -> int:
    """`mm flatten`."""
    check_files(settings)
    with quiet_logs(settings):
        return await flatten(
            settings, live_surroundings(), tickers=tickers, dry_run=dry_run, beside_bot=beside_bot
        )


async def run_status(settings: Settings, watch: bool, as_json: bool) -> int:
    """`mm status`."""
    check_files(settings)
    with quiet_logs(settings):
        return await show_status(settings, live_surroundings(), watch=watch, as_json=as_json)

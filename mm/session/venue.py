"""Which venue a session trades on: Kalshi, the embedded exchange as a child process, or paper over either."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from mm.domain.errors import ConfigError, MMError
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import Tap, kalshi_options
from mm.exchange.kalshi.signing import load_signer
from mm.exchange.paper import open_paper
from mm.exchange.port import Exchange
from mm.session.surroundings import Surroundings
from mm.settings import Secret, Settings
from mm.settings.load import read_private_key

log = structlog.get_logger(__name__)

CHILD_START_S: Final = 20.0
CHILD_STOP_S: Final = 5.0
CHILD_FILE: Final = "exchange.json"
"""In the data folder: where the embedded exchange of the running bot listens, for commands beside it."""


@attrs.frozen(kw_only=True)
class Access:
    """Where the exchange listens, and as whom we come."""

    rest_url: str
    ws_url: str
    key_id: str
    pem: Secret
    pem_setting: str
    """The setting that held the key, for messages."""


@attrs.define(eq=False, kw_only=True)
class Venue:
    """An open venue."""

    exchange: Exchange
    access: Access
    is_paper: bool
    label: str
    """For people: sim, demo, prod, with (paper) where orders stay here."""
    child: "ExchangeChild | None" = None


@attrs.define(eq=False)
class ExchangeChild:
    """The embedded exchange, running as a process of its own in its own session, so that Ctrl-C never reaches it."""

    process: trio.Process
    hold_fd: int
    """Our end of the pipe it watches: it ends by itself when every holder of this end is gone."""
    ready: dict[str, str]

    @property
    def is_alive(self) -> bool:
        """Still running."""
        return self.process.poll() is None


@asynccontextmanager
async def open_venue(
    settings: Settings, surroundings: Surroundings, *, force_paper: bool, tap: Tap | None = None
) -> AsyncGenerator[Venue, None]:
    """Open the venue that the settings ask for; `tap` is shown the socket's frames. Raises `ConfigError`, or `MMError` when the child does not start."""
    paper = settings.orders_on_paper(force_paper)
    if settings.uses_child_exchange:
        async with open_child(settings) as child:
            access = _access_to_child(child.ready)
            async with _open(settings, access, surroundings, paper=paper, tap=tap) as venue:
                venue.child = child
                yield venue
        return
    async with _open(settings, _access_by_settings(settings), surroundings, paper=paper, tap=tap) as venue:
        yield venue


@contextmanager
def shown_to_people(venue: Venue, data_dir: Path) -> Iterator[None]:
    """While the block runs, commands beside the bot find its embedded exchange. The data folder's lock is held."""
    if venue.child is None:
        yield
        return
    path = data_dir / CHILD_FILE
    try:
        path.write_text(json.dumps(venue.child.ready))
    except OSError as exc:  # a full disk is told by the ledger
        log.warning("commands will not find the embedded exchange", error=exc.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


class NoExchange(MMError):
    """There is no exchange to talk to: the embedded one of this data folder does not run, so nothing rests on it."""


@asynccontextmanager
async def open_for_people(settings: Settings, surroundings: Surroundings) -> AsyncGenerator[Venue, None]:
    """The exchange where orders of these settings may rest, for a command beside the bot. Never paper, starts nothing.

    Raises `ConfigError`; `NoExchange` in `sim` when no bot of this data folder has its exchange running.
    """
    if settings.uses_child_exchange:
        access = await _find_child(settings.data_dir / CHILD_FILE)
    else:
        access = _access_by_settings(settings)
    async with _open(settings, access, surroundings, paper=False) as venue:
        yield venue


def _access_by_settings(settings: Settings) -> Access:
    setting = "KALSHI_API_SECRET" if settings["KALSHI_API_SECRET"] else "KALSHI_PRIVATE_KEY_PATH"
    return Access(
        rest_url=settings.rest_url,
        ws_url=settings.ws_url,
        key_id=settings["KALSHI_API_KEY"],
        pem=read_private_key(settings),
        pem_setting=setting,
    )


def _access_to_child(ready: dict[str, str]) -> Access:
    return Access(
        rest_url=ready["rest_url"],
        ws_url=ready["ws_url"],
        key_id=ready["key_id"],
        pem=Secret(_read(Path(ready["private_key_path"]))),
        pem_setting="the embedded exchange's key",
    )


async def _find_child(path: Path) -> Access:
    """The embedded exchange that a bot of this data folder has started. Raises `NoExchange`."""
    absent = NoExchange(
        "the embedded exchange of this data folder does not run: nothing rests there, and nothing is held"
    )
    try:
        access = _access_to_child(json.loads(_read(path) or "{}"))
    except (ValueError, KeyError):
        raise absent from None
    if not access.pem:
        raise absent  # it takes its key along when it ends
    return access


@asynccontextmanager
async def _open(
    settings: Settings, access: Access, surroundings: Surroundings, *, paper: bool, tap: Tap | None = None
) -> AsyncGenerator[Venue, None]:
    options = kalshi_options(access.rest_url, access.ws_url)
    signer = load_signer(access.key_id, access.pem.reveal(), setting=access.pem_setting)
    label = settings.environment.value + (" (paper)" if paper else "")
    async with open_kalshi(
        options,
        signer,
        clock=surroundings.clock,
        randomness=surroundings.randomness,
        connect=surroundings.connect,
        tap=tap,
        run_blocking=surroundings.signing_runner,
        sign_ahead=settings["SIGN_AHEAD"],
    ) as exchange:
        if not paper:
            yield Venue(exchange=exchange, access=access, is_paper=False, label=label)
            return
        async with open_paper(
            exchange, clock=surroundings.clock, randomness=surroundings.randomness
        ) as on_paper:
            yield Venue(exchange=on_paper, access=access, is_paper=True, label=label)


@asynccontextmanager
async def open_child(settings: Settings) -> AsyncGenerator[ExchangeChild, None]:
    """Start `mm exchange` and wait until it is ready; stop it when the block ends.

    Raises `MMError` with what it said when it does not start.
    """
    read_fd, hold_fd = os.pipe()
    with tempfile.TemporaryDirectory(prefix="mm-exchange-") as folder:
        ready_file = Path(folder) / "ready.json"
        errors = Path(folder) / "stderr.txt"
        command = [sys.executable, "-m", "mm", "exchange", "--port", "0", "--ready-file", str(ready_file)]
        command += ["--seed", str(settings["SIM_SEED"]), "--speed", str(settings["SIM_SPEED"])]
        command += ["--games", str(settings["SIM_GAMES"]), "--exit-with-fd", str(read_fd)]
        with errors.open("wb") as stderr:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(read_fd,),
                start_new_session=True,
            )
        os.close(read_fd)
        try:
            ready = await _wait_ready(process, ready_file, errors)
            yield ExchangeChild(process, hold_fd, ready)
        finally:
            os.close(hold_fd)
            with trio.CancelScope(shield=True):
                await _stop(process)


async def _wait_ready(process: trio.Process, ready_file: Path, errors: Path) -> dict[str, str]:
    with trio.move_on_after(CHILD_START_S):
        while process.poll() is None:
            if text := _read(ready_file):
                found: dict[str, str] = json.loads(text)
                return found
            await trio.sleep(0.02)
    said = _read(errors).strip()[-2_000:]
    raise MMError(
        f"the embedded exchange did not start (exit code {process.poll()}): {said or 'it said nothing'}"
    )


def _read(path: Path) -> str:
    """A small local file's text; empty when there is none."""
    return path.read_text(errors="replace") if path.exists() else ""


async def _stop(process: trio.Process) -> None:
    """The pipe's end tells it to go; ask louder when it does not."""
    with trio.move_on_after(CHILD_STOP_S):
        await process.wait()
        return
    process.terminate()
    with trio.move_on_after(CHILD_STOP_S):
        await process.wait()
        return
    log.warning("the embedded exchange had to be killed")
    process.kill()
    await process.wait()


def check_files(settings: Settings) -> None:
    """What must be readable before anything starts. Raises `ConfigError`."""
    if settings.uses_child_exchange:
        return
    pem = read_private_key(settings)
    problems: list[str] = []
    setting = "KALSHI_API_SECRET" if settings["KALSHI_API_SECRET"] else "KALSHI_PRIVATE_KEY_PATH"
    try:
        load_signer(settings["KALSHI_API_KEY"], pem.reveal(), setting=setting)
    except ConfigError as exc:
        problems += exc.problems
    if problems:
        raise ConfigError(problems)

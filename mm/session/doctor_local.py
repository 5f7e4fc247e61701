"""`mm doctor` on this machine: Python, disk, data folder, ledger, key file, switches. Blocking, sends nothing."""

import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from mm.domain.errors import ConfigError, LedgerError
from mm.ledger.lock import holder_of
from mm.ledger.reader import open_reader
from mm.session.books import LEDGER_NAME
from mm.session.venue import check_files
from mm.settings import Environment, Settings
from mm.tasks.killswitch import FILE_NAME, why_off
from mm.views.doctor import Finding, fail, ok, warn

GIGABYTE: Final = 1_000_000_000
DISK_FAIL: Final = GIGABYTE // 5
DISK_WARN: Final = 2 * GIGABYTE
DESCRIPTORS: Final = 256


def check_program() -> Iterator[Finding]:
    """The interpreter and what it may open."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield ok("python", f"{version}, trio {trio.__version__}, {platform.system()} {platform.machine()}")
    descriptors = _descriptors()
    if descriptors is not None and descriptors < DESCRIPTORS:
        yield warn(
            "descriptors",
            f"{descriptors} files and sockets at once",
            f"ulimit -n {DESCRIPTORS} or more",
        )


def _descriptors() -> int | None:
    try:
        import resource  # POSIX only
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def check_settings(settings: Settings) -> Iterator[Finding]:
    """What they come to. That each is allowed has been checked by whoever read them."""
    given = sorted(name for name, source in settings.sources.items() if source not in ("", "default"))
    paper = settings.orders_on_paper(False)
    where = f"KALSHI_ENV={settings.environment.value}, orders {'on paper' if paper else 'at the exchange'}"
    yield ok("settings", f"{where}; {len(given)} set by you or the profile, the rest by default")
    if settings.environment is Environment.PROD and not paper:
        strategy = settings.strategy
        yield warn(
            "real money",
            f"orders go to Kalshi: up to {strategy.max_markets_to_trade} markets, "
            f"DAILY_LOSS_LIMIT {settings.texts.get('DAILY_LOSS_LIMIT', '?')} dollars",
            "nothing, if that is what you want; else LIVE_TRADING_ENABLED=false",
        )
    if settings["DISABLE_NEW_QUOTES"]:
        yield warn("quoting", "DISABLE_NEW_QUOTES is set", "set it to false to quote")
    elif why := why_off(settings.data_dir):
        yield warn("quoting", why, f"remove {settings.data_dir / FILE_NAME} to quote")


def check_key_file(settings: Settings) -> Iterator[Finding]:
    """The private key can be read and used, and nobody else can read it."""
    if settings.uses_child_exchange:
        yield ok("key file", "none needed: the embedded exchange brings its own")
        return
    try:
        check_files(settings)
    except ConfigError as exc:
        for problem in exc.problems:
            yield fail("key file", problem, "give the PEM file that Kalshi showed once, or make a new key")
        return
    setting = "KALSHI_API_SECRET" if settings["KALSHI_API_SECRET"] else "KALSHI_PRIVATE_KEY_PATH"
    if setting == "KALSHI_PRIVATE_KEY_PATH":
        path = Path(settings[setting]).expanduser()
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield warn("key file", f"{path} can be read by others", f"chmod 600 {path}")
            return
    yield ok("key file", f"{setting} holds a usable private key")


def check_data_folder(settings: Settings) -> Iterator[Finding]:
    """It can be written, has room, and its ledger is whole."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        yield fail("data folder", f"{folder}: {exc.strerror}", "set MM_DATA_DIR to a folder of yours")
        return
    if not is_writable:
        yield fail("data folder", f"{folder} cannot be written", "set MM_DATA_DIR to a folder of yours")
    room = f"{free / GIGABYTE:.1f} GB free at {folder}"
    if free < DISK_FAIL:
        yield fail("disk", room, "make room: a ledger that cannot be written stops trading")
    elif free < DISK_WARN:
        yield warn("disk", room, "make room soon: logs, ledger and recordings grow")
    else:
        yield ok("disk", room)
    pid = holder_of(folder)
    yield ok("bot", f"runs here as process {pid}" if pid is not None else "does not run here now")
    yield from _check_ledger(folder / LEDGER_NAME)


def _check_ledger(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield ok("ledger", "none yet: the first run makes it")
        return
    try:
        with open_reader(path) as reader:
            yield ok("ledger", f"whole, {reader.count('fills')} fills, {path.stat().st_size / 1e6:.1f} MB")
    except LedgerError as exc:
        yield fail("ledger", str(exc), "restore a backup (`mm ledger restore`) or `mm ledger rebuild`")

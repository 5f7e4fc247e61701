"""`mm doctor --live-readiness`: the checklist before real money, read from facts in ledger and data folder, not asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from mm.domain.errors import LedgerError
from mm.domain.numbers import SECOND, Micros
from mm.exchange.kalshi.options import is_loopback
from mm.ledger.backup import backups_in
from mm.ledger.reader import LedgerReader, open_reader
from mm.ledger.rows import SessionRow
from mm.session.books import LEDGER_NAME
from mm.session.channels import SECRETS
from mm.session.doctor_channels import TESTED_FILE, tested
from mm.settings import Environment, Settings
from mm.tasks.killswitch import FILE_NAME
from mm.views.doctor import Finding, fail, ok, warn
from mm.views.texts import duration

PAPER_HOURS: Final = 24
"""Of paper on real data, over the last `WITHIN_DAYS`."""
DEMO_HOURS: Final = 8
WITHIN_DAYS: Final = 30
CLEAN_DAYS: Final = 7
CLEAN_STOPS: Final = 3
BACKUP_DAYS: Final = 7
SESSIONS: Final = 10_000
_DAY: Final = 86_400 * SECOND


def check_readiness(settings: Settings, now: Micros) -> list[Finding]:
    """Every line of the list. Blocking, reads only."""
    found = [*_settings(settings), *_alerts(settings)]
    path = settings.data_dir / LEDGER_NAME
    try:
        with open_reader(path) as reader:
            found += _history(_History.read(reader, now))
            found.append(ok("books whole", "every seal and the chain over the money rows"))
    except LedgerError as exc:
        found.append(
            fail("ledger", str(exc), "run on paper first: the list is read from what happened there")
        )
    found += _backups(path, now)
    return found


@attrs.frozen(kw_only=True)
class _History:
    """What happened here lately."""

    paper: list[SessionRow]
    """On real data; the embedded exchange and other servers on this machine do not count."""
    live: list[SessionRow]
    """At demo or prod, orders at the exchange."""
    everything: list[SessionRow]
    """The embedded exchange's too, newest first."""
    troubles: list[str]
    """Texts of critical alerts of the last days about books that did not agree."""
    undelivered: int
    fills: int
    now: Micros

    @classmethod
    def read(cls, reader: LedgerReader, now: Micros) -> "_History":
        """From a ledger. Raises `LedgerError`."""
        paper: list[SessionRow] = []
        live: list[SessionRow] = []
        everything: list[SessionRow] = []
        fills = 0
        for account in reader.accounts():
            rows = [
                row
                for row in reader.sessions(account, SESSIONS)
                if now - row.started_at < WITHIN_DAYS * _DAY and row.session != "rebuild"
            ]
            everything += rows
            host = account.partition("/")[0].rpartition(":")[0] or account.partition("/")[0]
            if is_loopback(host.strip("[]")):
                continue
            fills += reader.totals(account, since=Micros(now - WITHIN_DAYS * _DAY)).fills
            (paper if "/paper" in account else live).extend(rows)
        everything.sort(key=lambda row: row.started_at, reverse=True)
        alerts = reader.critical_alerts(since=Micros(now - CLEAN_DAYS * _DAY))
        troubles = [
            text
            for kind, text, _ in alerts
            if kind == "risk" and ("the exchange's" in text or "cash: " in text or "fee of trade" in text)
        ]
        return cls(
            paper=paper,
            live=live,
            everything=everything,
            troubles=troubles,
            undelivered=sum(1 for *_, delivered in alerts if delivered is None),
            fills=fills,
            now=now,
        )


def _hours(rows: list[SessionRow]) -> float:
    """Of sessions that ended; one that runs or died counts nothing, as nobody knows until when it worked."""
    return sum(row.ended_at - row.started_at for row in rows if row.ended_at is not None) / SECOND / 3_600


def _history(history: _History) -> Iterator[Finding]:
    yield _enough(
        "paper hours", _hours(history.paper), PAPER_HOURS, "on paper", "KALSHI_ENV=prod mm run --paper"
    )
    yield _enough(
        "demo hours",
        _hours(history.live),
        DEMO_HOURS,
        "at demo with orders there",
        "KALSHI_ENV=demo with LIVE_TRADING_ENABLED=true",
    )
    if history.fills:
        yield ok("fills", f"{history.fills} on real data")
    else:
        yield fail("fills", "none on real data: nothing has been reconciled yet", "run until there are some")
    if history.troubles:
        yield fail(
            "reconciliation",
            f"{len(history.troubles)} differences in {CLEAN_DAYS} days, the last: {history.troubles[-1][:160]}",
            "find the cause (docs/troubleshooting.md), then run clean for a week",
        )
    elif not history.paper and not history.live:
        yield fail("reconciliation", "nothing ran on real data yet", "run on paper, then on demo")
    else:
        yield ok("reconciliation", f"positions, fees and cash agreed for {CLEAN_DAYS} days")
    if history.undelivered:
        yield fail(
            "alerts owed",
            f"{history.undelivered} critical alerts reached nobody",
            "repair the channel; the next run delivers them",
        )
    stops = [
        row
        for row in history.everything
        if row.exit_code == 0 and row.reason in ("SIGINT", "SIGTERM", "SIGHUP", "web")
    ]
    if len(stops) >= CLEAN_STOPS:
        yield ok("shutdown", f"{len(stops)} stops by signal or dashboard with nothing resting")
    else:
        yield fail(
            "shutdown",
            f"{len(stops)} of {CLEAN_STOPS} stops by signal or dashboard with code 0",
            "stop it with Ctrl-C, by `kill`, and on the dashboard",
        )
    yield _deaths(history)
    resting = [row for row in history.everything if row.exit_code == 2]
    if resting:
        yield warn(
            "left orders",
            f"{len(resting)} runs in {WITHIN_DAYS} days could not prove that nothing rests",
            "read their reasons: `mm report` and the logs",
        )


def _deaths(history: _History) -> Finding:
    """A run without an end, with a later one: it was killed, and the next one cleaned up."""
    rows = history.everything
    killed = [
        row
        for i, row in enumerate(rows)
        if row.ended_at is None and any(later.ended_at is not None for later in rows[:i])
    ]
    if killed:
        return ok("kill -9", f"survived {len(killed)} times: a later run started and ended")
    return fail(
        "kill -9",
        "never tried",
        "`kill -9` it once on demo: see that nothing rests within 3 s, and start it again",
    )


def _enough(name: str, hours: float, wanted: int, where: str, how: str) -> Finding:
    text = f"{duration(hours * 3_600)} {where} in {WITHIN_DAYS} days, of {wanted} h"
    return ok(name, text) if hours >= wanted else fail(name, text, f"go on: {how}")


def _settings(settings: Settings) -> Iterator[Finding]:
    strategy = settings.strategy
    if strategy.daily_loss_limit is None:
        yield fail("loss limit", "DAILY_LOSS_LIMIT is not set", "set it to what you can lose in a day")
    else:
        yield ok("loss limit", f"DAILY_LOSS_LIMIT {settings.texts.get('DAILY_LOSS_LIMIT')} dollars")
    if settings.environment is Environment.PROD:
        yield ok("environment", "these are the settings for prod")
    else:
        yield warn(
            "environment",
            f"KALSHI_ENV={settings.environment.value}: this list judges these settings",
            "run it with the settings you will trade with",
        )
    if (settings.data_dir / FILE_NAME).exists():
        yield warn("kill switch", f"{FILE_NAME} is there", "remove it to quote")


def _alerts(settings: Settings) -> Iterator[Finding]:
    if not any(settings[name] for name in (*SECRETS, "EMAIL_TO")):
        yield fail("alerts seen", "no channel is configured", "see docs/alerts.md")
        return
    seen = tested(settings.data_dir / TESTED_FILE)
    if seen:
        yield ok("alerts seen", ", ".join(f"{name} at {when}" for name, when in sorted(seen.items())))
    else:
        yield fail("alerts seen", "no test message was ever delivered from here", "mm doctor --test-alerts")


def _backups(path: Path, now: Micros) -> Iterator[Finding]:
    newest = max(backups_in(path.parent), default=None)
    if newest is None:
        yield warn("backup", "there is none", "mm ledger backup")
        return
    age = (now - newest.taken_at) / _DAY
    text = f"{newest.path.name}, {age:.1f} days old"
    yield ok("backup", text) if age <= BACKUP_DAYS else warn("backup", text, "mm ledger backup")

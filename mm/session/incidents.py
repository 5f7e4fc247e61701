"""The decision journal of a run and its incident bundles, wired: what is kept where, and what a manifest says of us."""

import platform
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any, Final

import mm
from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import to_datetime
from mm.ledger import Runner
from mm.session.secrets import secrets_of
from mm.session.summary import Summary
from mm.session.surroundings import Surroundings
from mm.settings import SETTINGS, Settings
from mm.tasks.decision_log import DecisionLog, log_for_recording, log_for_ring
from mm.tasks.ids import new_session
from mm.tasks.incidents import Bundles, Incidents
from mm.tasks.recorder import Recorder
from mm.views.logs import FILE_NAME, Redactor

RINGS: Final = "journal"
"""Folder of rings under the data folder: one, of the run that is on, and those of killed ones until the next start."""
BUNDLES: Final = "incidents"
_PACKAGES: Final = ("trio", "httpx", "trio-websocket", "attrs", "orjson", "cryptography")


@asynccontextmanager
async def incidents_if_wanted(
    settings: Settings, surroundings: Surroundings, summary: Summary, recorder: Recorder | None
) -> AsyncGenerator[Incidents | None, None]:
    """The journal of decisions, and bundles when something goes wrong; None where nobody wants it or no disk is given.

    The caller starts `Incidents.run`. When the block ends with a failed summary, or by an exception, a bundle is made.
    """
    minutes, runner = settings["INCIDENT_MINUTES"], surroundings.file_runner
    if runner is None or not (minutes or recorder is not None):
        yield None
        return
    redact = Redactor(secrets_of(settings))
    incidents = Incidents(
        decisions=_log(
            settings, surroundings.clock, runner, new_session(surroundings.random_below), recorder, redact
        ),
        bundles=_bundles(settings, redact) if minutes else None,
        clock=surroundings.clock,
        runner=runner,
    )
    await incidents.adopt(settings.data_dir / RINGS)
    failure = ""
    try:
        yield incidents
    except ConfigError:
        raise  # found before anything was decided, and told where it belongs
    except Exception as exc:
        failure = f"{type(exc).__name__}: {exc}"
        raise
    finally:
        if not failure and summary.exit_code:
            failure = f"exit code {int(summary.exit_code)}: {summary.reason}"
        elif failure and summary.reason:
            failure = summary.reason
        await incidents.close(failure, is_ring=recorder is None)


def _log(
    settings: Settings,
    clock: Callable[[], Micros],
    runner: Runner,
    name: str,
    recorder: Recorder | None,
    redact: Redactor,
) -> DecisionLog:
    header: dict[str, Any] = {"mm": mm.__version__, "python": platform.python_version()}
    window = Micros(round(settings["INCIDENT_MINUTES"] * 60 * SECOND))
    if recorder is not None:
        return log_for_recording(
            recorder.writer.folder, header, clock=clock, runner=runner, scrub=redact, bundle_window=window
        )
    started = to_datetime(clock()).strftime("%Y%m%dT%H%M%SZ")
    return log_for_ring(
        settings.data_dir / RINGS / f"{started}-{name}",
        header,
        clock=clock,
        runner=runner,
        scrub=redact,
        window=window,
        max_bytes=settings["INCIDENT_MAX_MB"] * 2**20,
    )


def _bundles(settings: Settings, redact: Redactor) -> Bundles:
    return Bundles(
        folder=settings.data_dir / BUNDLES,
        about={"versions": versions(), "settings": shown_settings(settings)},
        scrub=redact,
        log_file=settings.data_dir / "logs" / FILE_NAME,
        kept=settings["INCIDENTS_KEPT"],
    )


def versions() -> dict[str, str]:
    """What runs here."""
    found = {"mm": mm.__version__, "python": sys.version.split()[0], "platform": platform.platform()}
    return found | {name: metadata.version(name) for name in _PACKAGES}


def shown_settings(settings: Settings) -> dict[str, str]:
    """Every setting that is not a secret, as it was given; of a secret whether there is one."""
    found = {}
    for name, row in SETTINGS.items():
        if row.is_secret:
            found[name] = "(set, not shown)" if settings[name] else ""
        else:
            found[name] = settings.texts.get(name, row.default)
    return found | {name: text for name, text in settings.texts.items() if name not in SETTINGS}

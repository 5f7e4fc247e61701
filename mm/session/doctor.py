"""`mm doctor`: looks at everything that a first order depends on. Reads only: it places, amends and cancels nothing.

Each check answers with findings; one that raises an `ExchangeError` becomes a finding itself, so that a person sees all
that is wrong at once.
"""

import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

import orjson

from mm.domain.errors import ConfigError, MMError
from mm.exchange.kalshi.checkup import open_checkup
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import load_signer
from mm.ledger.lock import holder_of
from mm.session.beside import quiet_logs
from mm.session.doctor_channels import check_channels, send_tests
from mm.session.doctor_exchange import Look
from mm.session.doctor_local import check_data_folder, check_key_file, check_program, check_settings
from mm.session.readiness import check_readiness
from mm.session.surroundings import Surroundings
from mm.session.venue import Venue, open_for_people, open_venue
from mm.settings import Settings
from mm.views.doctor import Finding, Level, closing_text, document, exit_code, fail, finding_text, ok


async def run_doctor(
    load: Callable[[], Settings],
    surroundings: Surroundings,
    *,
    as_json: bool,
    test_alerts: bool,
    live_readiness: bool,
) -> int:
    """Print every finding as it is found. Returns the exit code: 1 when one has failed, else 0."""
    findings: list[Finding] = []
    is_terminal = sys.stdout.isatty()

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            print(finding_text(finding, is_terminal=is_terminal), flush=True)  # noqa: T201 - for people

    await look_at_everything(load, surroundings, tell, test_alerts=test_alerts, live_readiness=live_readiness)
    print(  # noqa: T201
        orjson.dumps(document(findings)).decode() if as_json else closing_text(findings), flush=True
    )
    return exit_code(findings)


async def look_at_everything(
    load: Callable[[], Settings],
    surroundings: Surroundings,
    tell: Callable[[Finding], None],
    *,
    test_alerts: bool,
    live_readiness: bool,
) -> None:
    """Everything, from the near to the far."""

    def tell_all(findings: Iterable[Finding]) -> None:
        for finding in findings:
            tell(finding)

    tell_all(check_program())
    try:
        settings = load()
    except ConfigError as exc:
        tell_all(
            fail("settings", p, "see docs/settings.md; nothing else was looked at") for p in exc.problems
        )
        return
    if live_readiness:
        tell_all(await surroundings.runner(lambda: check_readiness(settings, surroundings.clock())))
        return

    def local() -> list[Finding]:
        return [*check_settings(settings), *check_key_file(settings), *check_data_folder(settings)]

    found = await surroundings.runner(local)
    tell_all(found)
    if not any(finding.name == "key file" and finding.level is Level.FAIL for finding in found):
        with quiet_logs(settings):
            await _at_the_exchange(settings, surroundings, tell)
    tell_all(await check_channels(settings, surroundings))
    if test_alerts:
        tell_all(await send_tests(settings, surroundings))


@asynccontextmanager
async def _open(settings: Settings, surroundings: Surroundings) -> AsyncGenerator[tuple[Venue, bool], None]:
    """The exchange where these settings trade, and whether it was started for this look only."""
    if not settings.uses_child_exchange:
        async with open_for_people(settings, surroundings) as venue:
            yield venue, False
        return
    if await surroundings.runner(lambda: holder_of(settings.data_dir)) is not None:
        async with open_for_people(settings, surroundings) as venue:
            yield venue, False
        return
    async with open_venue(settings, surroundings, force_paper=False) as venue:
        yield venue, True


async def _at_the_exchange(
    settings: Settings, surroundings: Surroundings, tell: Callable[[Finding], None]
) -> None:
    try:
        async with _open(settings, surroundings) as (venue, is_own):
            if is_own:
                tell(ok("exchange", "no bot runs: an embedded exchange was started for this look"))
            access = venue.access
            signer = load_signer(access.key_id, access.pem.reveal(), setting=access.pem_setting)
            async with open_checkup(
                kalshi_options(access.rest_url, access.ws_url),
                signer,
                clock=surroundings.clock,
            ) as checkup:
                await Look(
                    settings=settings, surroundings=surroundings, venue=venue, checkup=checkup, tell=tell
                ).everything()
    except ConfigError as exc:
        for problem in exc.problems:
            tell(fail("exchange", problem, "see docs/settings.md"))
    except MMError as exc:
        tell(fail("exchange", str(exc), "see docs/troubleshooting.md"))

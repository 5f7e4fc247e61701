"""`mm doctor` on the ways to people: each is asked whether it knows us; with `--test-alerts` each gets a message."""

import json
import smtplib
from pathlib import Path
from typing import Final

import httpx
import trio

from mm.domain.numbers import Micros
from mm.domain.tickers import format_time
from mm.session.channels import TIMEOUT_S, open_routes
from mm.session.surroundings import Surroundings
from mm.settings import Settings
from mm.tasks.alert_values import Alert, AlertKind, Severity
from mm.tasks.senders import Message, NotSent, Route
from mm.tasks.webhooks import TELEGRAM_URL
from mm.views.doctor import Finding, fail, ok, warn

TESTED_FILE: Final = "alerts-tested.json"
"""In the data folder: channel -> when a test message was last delivered."""
HOW: Final = "`mm doctor --test-alerts` sends a message"


async def check_channels(settings: Settings, surroundings: Surroundings) -> list[Finding]:
    """Whether each configured way exists. Sends no message."""
    async with open_routes(settings, surroundings) as routes:
        if not routes:
            return [
                warn(
                    "alerts",
                    "nobody is told: no channel is configured",
                    "set DISCORD_WEBHOOK_URL or another one, see docs/alerts.md",
                )
            ]
        async with httpx.AsyncClient(
            transport=surroundings.alert_transport, timeout=TIMEOUT_S, follow_redirects=False
        ) as client:
            return [await _check(route, settings, surroundings, client) for route in routes]


async def _check(
    route: Route, settings: Settings, surroundings: Surroundings, client: httpx.AsyncClient
) -> Finding:
    from_ = f"from {route.floor.name.lower()} on"
    match route.name:
        case "discord":
            # A webhook tells about itself when asked; nothing is posted.
            return await _ask(client, "discord", settings["DISCORD_WEBHOOK_URL"].reveal(), from_)
        case "telegram":
            token, chat = settings["TELEGRAM_BOT_TOKEN"].reveal(), settings["TELEGRAM_CHAT_ID"]
            url = str(httpx.URL(f"{TELEGRAM_URL}/bot{token}/getChat", params={"chat_id": chat}))
            return await _ask(client, "telegram", url, from_)
        case "email":
            return await _ask_mail(settings, surroundings, from_)
        case name:
            return ok(name, f"configured, {from_}; it can be tried only with a message: {HOW}")


async def _ask(client: httpx.AsyncClient, name: str, url: str, from_: str) -> Finding:
    try:
        response = await client.get(url)
    except httpx.HTTPError as exc:
        return fail(name, f"not reached: {type(exc).__name__}", "check the network and the setting")
    if response.is_success:
        return ok(name, f"knows us, {from_}")
    if response.status_code == 429:
        return warn(name, "asks to wait (HTTP 429)", "try again in a minute")
    return fail(name, f"refuses us (HTTP {response.status_code})", "make a new address or token and set it")


async def _ask_mail(settings: Settings, surroundings: Surroundings, from_: str) -> Finding:
    host, port = settings["SMTP_SERVER"]
    runner = surroundings.mail_runner or surroundings.runner

    def greet() -> None:
        kind = smtplib.SMTP_SSL if port == 465 else smtplib.SMTP
        with kind(host, port, timeout=TIMEOUT_S) as client:
            client.noop()

    try:
        await runner(greet)
    except (OSError, smtplib.SMTPException) as exc:
        return fail("email", f"{host}:{port} not reached: {type(exc).__name__}", "check SMTP_SERVER")
    return ok("email", f"{host}:{port} answers, {from_}; {HOW}")


async def send_tests(settings: Settings, surroundings: Surroundings) -> list[Finding]:
    """One message by every way, and a note in the data folder of those that took it."""
    now = surroundings.clock()
    alert = Alert(
        alert_id="doctor", kind=AlertKind.ERROR, severity=Severity.CRITICAL,
        text=f"a test by `mm doctor` of {settings['BOT_NAME']}: nothing is wrong", at=now,
    )  # fmt: skip
    message = Message(text=f"[TEST] {alert.text}", alerts=(alert,))
    found: list[Finding] = []
    done: list[str] = []
    async with open_routes(settings, surroundings) as routes:
        for route in routes:
            try:
                with trio.fail_after(2 * TIMEOUT_S):
                    await route.sender.send(message)
            except (NotSent, trio.TooSlowError) as exc:
                found.append(
                    fail(
                        route.name,
                        f"test message: {exc}" if str(exc) else "test message: no answer",
                        "correct the setting, try again",
                    )
                )
            else:
                done.append(route.name)
                found.append(ok(route.name, "took the test message: look whether it is there"))
    await surroundings.runner(lambda: _note(settings.data_dir / TESTED_FILE, done, now))
    return found


def _note(path: Path, names: list[str], now: Micros) -> None:
    known = tested(path)
    known.update(dict.fromkeys(names, format_time(now)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known))


def tested(path: Path) -> dict[str, str]:
    """Channel -> when its test message was delivered."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

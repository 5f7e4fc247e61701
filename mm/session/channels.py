"""The ways to people that the settings name: one `Route` each, for `mm.tasks.alerts`."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from mm.exchange.kalshi.options import is_loopback
from mm.session.surroundings import Surroundings
from mm.settings import Secret, Settings
from mm.tasks.alert_values import Severity
from mm.tasks.mail import MailSender, MailServer
from mm.tasks.senders import Route, Sender

if TYPE_CHECKING:
    import httpx  # 6 MB with what it brings along: loaded where a way to people is configured

TIMEOUT_S: Final = 10.0
MIN_INTERVALS_S: Final = {"telegram": 3.0, "email": 30.0}
"""Telegram takes 20 messages a minute into a group; nobody wants a mail every two seconds."""
SECRETS: Final = (
    "DISCORD_WEBHOOK_URL",
    "SLACK_WEBHOOK_URL",
    "TELEGRAM_BOT_TOKEN",
    "ALERT_WEBHOOK_URL",
    "SMTP_PASSWORD",
)
"""Settings of channels that are never shown."""


@asynccontextmanager
async def open_routes(settings: Settings, surroundings: Surroundings) -> AsyncGenerator[list[Route], None]:
    """Every configured way to people. Nothing is sent; while none is configured nothing is made."""
    if not any(settings[name] for name in (*SECRETS, "EMAIL_TO")):
        yield []
        return
    import httpx

    async with httpx.AsyncClient(
        transport=surroundings.alert_transport, timeout=TIMEOUT_S, follow_redirects=False
    ) as client:
        floors: dict[str, Severity] = {
            name: Severity[word.upper()] for name, word in settings["ALERT_ROUTES"].items()
        }
        yield [
            Route(name=name, sender=sender, floor=floors[name], min_interval_s=MIN_INTERVALS_S.get(name))
            for name, sender in _senders(settings, surroundings, client)
        ]


def _senders(
    settings: Settings, surroundings: Surroundings, client: "httpx.AsyncClient"
) -> Iterator[tuple[str, Sender]]:
    from mm.tasks.webhooks import discord, generic, slack, telegram

    def revealed(name: str) -> str:
        found: Secret = settings[name]
        return found.reveal()

    if url := revealed("DISCORD_WEBHOOK_URL"):
        yield "discord", discord(client, url)
    if url := revealed("SLACK_WEBHOOK_URL"):
        yield "slack", slack(client, url)
    if token := revealed("TELEGRAM_BOT_TOKEN"):
        yield "telegram", telegram(client, token, settings["TELEGRAM_CHAT_ID"])
    if url := revealed("ALERT_WEBHOOK_URL"):
        yield "webhook", generic(client, url, settings["BOT_NAME"])
    if settings["EMAIL_TO"]:
        host, port = settings["SMTP_SERVER"]
        server = MailServer(
            host=host,
            port=port,
            user=settings["SMTP_USER"],
            password=revealed("SMTP_PASSWORD"),
            is_loopback=is_loopback(host),
        )
        yield (
            "email",
            MailSender(
                server=server,
                sender=settings["EMAIL_FROM"],
                to=settings["EMAIL_TO"],
                bot=settings["BOT_NAME"],
                clock=surroundings.clock,
                runner=surroundings.mail_runner or surroundings.runner,
            ),
        )

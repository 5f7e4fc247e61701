"""Alerts by HTTP: Discord, Slack, Telegram, and a webhook that takes JSON.

Addresses and tokens are secrets: they are in no error, no log line and no repr from here.
"""

from collections.abc import Callable, Mapping
from typing import Final, final

import attrs
import httpx

from mm.domain.tickers import format_time
from mm.tasks.senders import Message, MessageRefused, NotSent, ReceiverGone

DISCORD_LIMIT: Final = 2_000
"""Characters of one message, by Discord's rule. Slack's and Telegram's are above it."""
LONGEST_WAIT_S: Final = 600.0
"""A server that asks for more than this is asked again all the same."""
TELEGRAM_URL: Final = "https://api.telegram.org"
_GONE: Final = frozenset({401, 403, 404, 410})

Body = Callable[[Message], Mapping[str, object]]


@final
@attrs.define(eq=False)
class WebhookSender:
    """Posts a message as JSON to one address. The client's timeouts bound a request."""

    _client: httpx.AsyncClient = attrs.field(repr=False)
    _url: str = attrs.field(repr=False)
    _body: Body = attrs.field(repr=False)
    setting: str
    """What to check when the receiver does not know us."""

    async def send(self, message: Message) -> float:
        """See `Sender.send`."""
        try:
            response = await self._client.post(self._url, json=self._body(message))
        except httpx.HTTPError as exc:
            # Without its cause: the request that the cause carries has the address in it.
            raise NotSent(f"{type(exc).__name__}: {self._redacted(str(exc))}") from None
        status = response.status_code
        if response.is_success:
            return _wait_after(response.headers)
        if status == 429:
            raise NotSent("too many messages (HTTP 429)", retry_after=_retry_after(response))
        if status in _GONE:
            raise ReceiverGone(f"the receiver refuses us (HTTP {status}): check {self.setting}")
        if 400 <= status < 500 and status != 408:
            raise MessageRefused(f"message refused (HTTP {status}): {self._redacted(response.text[:200])}")
        raise NotSent(
            f"the receiver failed (HTTP {status})", retry_after=_seconds(response.headers, "Retry-After")
        )

    def _redacted(self, text: str) -> str:
        """`text` without the address, its path or any part of the path long enough to be the token."""
        url = httpx.URL(self._url)
        secrets = [self._url, url.path, *(part for part in url.path.split("/") if len(part) > 8)]
        secrets += [part for part in url.query.decode("ascii", "replace").split("&") if len(part) > 8]
        for secret in secrets:
            if len(secret) > 1:
                text = text.replace(secret, "<address>")
        return text


def discord(client: httpx.AsyncClient, url: str) -> WebhookSender:
    """A Discord webhook. Mentions in a message notify nobody."""
    return WebhookSender(
        client,
        url,
        lambda message: {"content": message.text[:DISCORD_LIMIT], "allowed_mentions": {"parse": []}},
        "DISCORD_WEBHOOK_URL",
    )


def slack(client: httpx.AsyncClient, url: str) -> WebhookSender:
    """A Slack incoming webhook. What would be a mention or a link there is shown as text."""

    def body(message: Message) -> Mapping[str, object]:
        text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": text, "unfurl_links": False}

    return WebhookSender(client, url, body, "SLACK_WEBHOOK_URL")


def telegram(client: httpx.AsyncClient, token: str, chat: str) -> WebhookSender:
    """A Telegram bot that writes to one chat, as plain text."""
    return WebhookSender(
        client,
        f"{TELEGRAM_URL}/bot{token}/sendMessage",
        lambda message: {
            "chat_id": chat,
            "text": message.text,
            "link_preview_options": {"is_disabled": True},
        },
        "TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID",
    )


def generic(client: httpx.AsyncClient, url: str, bot: str) -> WebhookSender:
    """Any receiver of JSON: `text` for those that show it (Mattermost, Rocket.Chat), and the alerts one by one."""

    def body(message: Message) -> Mapping[str, object]:
        return {
            "text": message.text,
            "bot": bot,
            "severity": message.severity.name.lower(),
            "alerts": [
                {
                    "id": alert.alert_id,
                    "kind": alert.kind.value,
                    "severity": alert.severity.name.lower(),
                    "at": format_time(alert.at),
                    "text": alert.text,
                }
                for alert in message.alerts
            ],
        }

    return WebhookSender(client, url, body, "ALERT_WEBHOOK_URL")


def _wait_after(headers: Mapping[str, str]) -> float:
    """How long to wait when this message used up the allowance (Discord says so)."""
    if headers.get("X-RateLimit-Remaining") == "0":
        return _seconds(headers, "X-RateLimit-Reset-After") or 0.0
    return 0.0


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait: a number in the body (Discord's, Telegram's) is the exact one, the header's is rounded."""
    try:
        body = response.json()
    except ValueError:
        body = None
    found = body if isinstance(body, dict) else {}
    nested = found.get("parameters")
    value = found.get("retry_after", nested.get("retry_after") if isinstance(nested, dict) else None)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(float(value))
    return _seconds(response.headers, "Retry-After") or _seconds(response.headers, "X-RateLimit-Reset-After")


def _seconds(headers: Mapping[str, str], name: str) -> float | None:
    try:
        return _bounded(float(headers[name]))
    except (KeyError, ValueError):
        return None


def _bounded(seconds: float) -> float:
    # `max` and `min` in this order make NaN a zero.
    return min(max(0.0, seconds), LONGEST_WAIT_S)

"""Messages to a Discord webhook. The address is a secret: it is in no error, no log line and no repr from here."""

from collections.abc import Mapping
from typing import Final, Protocol, final

import attrs
import httpx

from mm.domain.errors import MMError

CONTENT_LIMIT: Final = 2_000
"""Characters of one message, by Discord's rule."""
LONGEST_WAIT_S: Final = 600.0
"""A server that asks for more than this is asked again all the same."""
_GONE: Final = frozenset({401, 403, 404})


class NotSent(MMError):
    """A message was not accepted, or nobody knows. Try again after `retry_after` seconds, or when you see fit."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MessageRefused(NotSent):
    """This message will never be accepted; another one may."""


class ReceiverGone(NotSent):
    """The webhook does not exist or does not let us in: no message will be accepted until somebody repairs it."""


class Sender(Protocol):
    """Where alerts go."""

    async def send(self, text: str) -> float:
        """Deliver one message; give the seconds that the receiver wants to have no further one (mostly 0).

        Raises `NotSent` or one of its kinds. Cancelled, the message may have been delivered or not.
        """


@final
@attrs.define(eq=False)
class DiscordWebhook:
    """One webhook. The client's timeouts bound a request."""

    _client: httpx.AsyncClient = attrs.field(repr=False)
    _url: str = attrs.field(repr=False)

    async def send(self, text: str) -> float:
        """Post one message; see `Sender.send`. Mentions in it notify nobody."""
        body = {"content": text[:CONTENT_LIMIT], "allowed_mentions": {"parse": []}}
        try:
            response = await self._client.post(self._url, json=body)
        except httpx.HTTPError as exc:
            # Without its cause: the request that the cause carries has the address in it.
            raise NotSent(f"{type(exc).__name__}: {self._redacted(str(exc))}") from None
        status = response.status_code
        if response.is_success:
            return _wait_after(response.headers)
        if status == 429:
            raise NotSent("too many messages (HTTP 429)", retry_after=_retry_after(response))
        if status in _GONE:
            raise ReceiverGone(f"the webhook refuses us (HTTP {status}): check DISCORD_WEBHOOK_URL")
        if 400 <= status < 500 and status != 408:
            raise MessageRefused(f"message refused (HTTP {status}): {self._redacted(response.text[:200])}")
        raise NotSent(
            f"the webhook failed (HTTP {status})", retry_after=_seconds(response.headers, "Retry-After")
        )

    def _redacted(self, text: str) -> str:
        """`text` without the address, its path or any part of the path long enough to be the token."""
        url = httpx.URL(self._url)
        secrets = [self._url, url.path, *(part for part in url.path.split("/") if len(part) > 8)]
        for secret in secrets:
            if len(secret) > 1:
                text = text.replace(secret, "<webhook>")
        return text


def _wait_after(headers: Mapping[str, str]) -> float:
    """How long to wait when this message used up the allowance."""
    if headers.get("X-RateLimit-Remaining") == "0":
        return _seconds(headers, "X-RateLimit-Reset-After") or 0.0
    return 0.0


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait: the body's number is the exact one, the header's is rounded."""
    try:
        body = response.json()
    except ValueError:
        body = None
    value = body.get("retry_after") if isinstance(body, dict) else None
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

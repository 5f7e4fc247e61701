"""Requests to Kalshi's REST interface, signed anew for each attempt, and what their failures prove.

The question that every failure answers is *did it happen?* A write that was never sent raises `ExchangeUnavailable`;
one that was sent and got no usable answer raises `OutcomeUnknown`; a definite no raises an `ExchangeRejected`. A
cancellation in the middle of a write leaves its outcome unknown as well, and says nothing: it is the caller's to know.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote

import attrs
import httpx
import orjson
import structlog
import trio

from mm.exchange.endpoints import Endpoint
from mm.exchange.kalshi.options import Clock, KalshiOptions
from mm.exchange.kalshi.reading import JsonObject, Malformed, VenueError, read_error, read_object
from mm.exchange.kalshi.signing import Signer, signed_headers
from mm.exchange.port import (
    AuthError,
    ExchangeError,
    ExchangeRejected,
    ExchangeUnavailable,
    NotRestingHere,
    OrderIdSpent,
    OutcomeUnknown,
    RateLimited,
    TradingPaused,
)

Params = Mapping[str, str | int | None]

CLOCK_REFUSED: Final = "header_timestamp_expired"
_PAUSED: Final = (
    "trading_is_paused",
    "exchange_is_paused",
    "market_closed",
    "market_inactive",
    "market_is_closed",
)
_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)

log = structlog.get_logger(__name__)


def error_for_code(
    error: VenueError, *, endpoint: str, status: int | None, gone_is_normal: bool
) -> ExchangeError:
    """The error of a definite no, by the venue's code first: one status means several things.

    `gone_is_normal`: a "not found" is about an order, event or group that may have existed (`NotRestingHere`).
    """
    code = error.code
    text = error.text or httpx.codes.get_reason_phrase(status or 0) or "refused"
    kind: type[ExchangeError] = ExchangeRejected
    if code.startswith("order_already_exists"):
        kind = OrderIdSpent
    elif code.startswith(_PAUSED):
        kind = TradingPaused
    elif status in (401, 403):
        kind = AuthError
    elif gone_is_normal and (status == 404 or code.startswith("not_found")):
        kind = NotRestingHere
    return kind(text, endpoint=endpoint, status=status, code=code)


@attrs.define(eq=False)
class Rest:
    """Sends requests and judges answers. Stateless between requests, so usable in every cleanup."""

    http: httpx.AsyncClient
    options: KalshiOptions
    signer: Signer
    clock: Clock

    async def read(
        self, endpoint: Endpoint, *ids: str, params: Params | None = None, also: tuple[int, ...] = ()
    ) -> JsonObject:
        """A GET. May be cancelled and repeated freely. Statuses in `also` carry a usable body like a 200.

        Raises:
            NotRestingHere: 404.
            ExchangeRejected: Another 4xx: the question itself was wrong.
            AuthError, RateLimited: 401 and 403, 429.
            ExchangeUnavailable: Everything else that went wrong.
        """
        name = " ".join(endpoint)
        response = await self._send(endpoint, ids, params, None, is_write=False)
        if response.status_code >= 300 and response.status_code not in also:
            raise _refusal(response, name, is_write=False, gone_is_normal=True)
        try:
            return read_object(response.content)
        except Malformed as error:
            raise ExchangeUnavailable(
                f"unusable reply: {error}", endpoint=name, status=response.status_code
            ) from None

    async def write(
        self,
        endpoint: Endpoint,
        *ids: str,
        params: Params | None = None,
        body: JsonObject | None = None,
        gone_is_normal: bool = True,
    ) -> JsonObject:
        """A POST, PUT or DELETE; returns the object of a 2xx reply (empty when it had no body).

        Raises:
            ExchangeUnavailable: Never sent, or refused twice for the clock: nothing happened.
            OutcomeUnknown: Sent; timeout, reset, 5xx or an answer that cannot be read.
            ExchangeRejected: A definite no, by kind.
            AuthError, RateLimited: Not executed.
        """
        name = " ".join(endpoint)
        response = await self._send(endpoint, ids, params, body or {}, is_write=True)
        if response.status_code >= 300:
            raise _refusal(response, name, is_write=True, gone_is_normal=gone_is_normal)
        if not response.content.strip():
            return {}
        try:
            reply = read_object(response.content)
        except Malformed as error:
            raise OutcomeUnknown(
                f"unusable answer: {error}", endpoint=name, status=response.status_code
            ) from None
        if reply.get("error"):
            # An error object under a 2xx was seen once on a create; what it means for the order is not known.
            problem = read_error(response.content)
            raise OutcomeUnknown(
                f"an error under a success: {problem.text}",
                endpoint=name,
                status=response.status_code,
                code=problem.code,
            )
        return reply

    async def _send(
        self,
        endpoint: Endpoint,
        ids: tuple[str, ...],
        params: Params | None,
        body: JsonObject | None,
        *,
        is_write: bool,
    ) -> httpx.Response:
        """One request; a second one, with a fresh reading of the clock, when the first was refused for its time."""
        name = " ".join(endpoint)
        response = await self._attempt(endpoint, ids, params, body, is_write=is_write)
        if not _is_clock_refused(response):
            return response
        log.warning("timestamp refused, signing again", endpoint=name)
        response = await self._attempt(endpoint, ids, params, body, is_write=is_write)
        if _is_clock_refused(response):
            raise ExchangeUnavailable(
                "the venue refuses our clock: check the time of this machine",
                endpoint=name,
                status=response.status_code,
                code=CLOCK_REFUSED,
            )
        return response

    async def _attempt(
        self,
        endpoint: Endpoint,
        ids: tuple[str, ...],
        params: Params | None,
        body: JsonObject | None,
        *,
        is_write: bool,
    ) -> httpx.Response:
        method, template = endpoint
        name = f"{method} {template}"
        path = self.options.rest.path + fill_template(template, ids)
        headers = signed_headers(self.signer, self.clock(), method, path)
        headers += [("Host", self.options.rest.netloc), ("Accept", "application/json")]
        content = b""
        if body is not None:
            content = orjson.dumps(body)
            headers.append(("Content-Type", "application/json"))
        if method != "GET":
            headers.append(("Content-Length", str(len(content))))
        query = {key: value for key, value in (params or {}).items() if value is not None}
        request = httpx.Request(
            method,
            f"{self.options.rest.scheme}://{self.options.rest.netloc}{path}",
            params=query or None,
            headers=headers,
            stream=_Body(content),
        )
        lost = OutcomeUnknown if is_write else ExchangeUnavailable
        try:
            with trio.fail_after(self.options.request_deadline_s):
                return await self.http.send(request)
        except _NEVER_SENT as error:
            raise ExchangeUnavailable(f"no connection: {_why(error)}", endpoint=name) from error
        except httpx.RequestError as error:
            raise lost(f"the connection failed: {_why(error)}", endpoint=name) from error
        except trio.TooSlowError:
            raise lost(f"no answer within {self.options.request_deadline_s:g} s", endpoint=name) from None


class _Body(httpx.AsyncByteStream):
    """A request's body in one piece.

    httpx's own is an async generator, which a cancellation in the middle of the send leaves suspended for the garbage
    collector to complain about; this iterator has nothing to leave.
    """

    def __init__(self, content: bytes) -> None:
        self._left = [content] if content else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def fill_template(template: str, ids: tuple[str, ...]) -> str:
    """The path with its `:id` places filled, each escaped."""
    parts = template.split(":id")
    if len(parts) != len(ids) + 1:
        raise ValueError(f"{template} takes {len(parts) - 1} ids, not {len(ids)}")
    path = parts[0]
    for value, part in zip(ids, parts[1:], strict=True):
        path += quote(value, safe="") + part
    return path


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_clock_refused(response: httpx.Response) -> bool:
    return response.status_code == 401 and read_error(response.content).code.startswith(CLOCK_REFUSED)


def _refusal(
    response: httpx.Response, endpoint: str, *, is_write: bool, gone_is_normal: bool
) -> ExchangeError:
    """The error of an answer that is no 2xx."""
    status = response.status_code
    problem = read_error(response.content)
    if status == 429:
        text = problem.text or "too many requests"
        return RateLimited(
            text, endpoint=endpoint, code=problem.code, retry_after=_retry_after(response, 0.1)
        )
    if 400 <= status < 500 and status not in (408, 425):
        return error_for_code(problem, endpoint=endpoint, status=status, gone_is_normal=gone_is_normal)
    # 5xx, redirects, and 408 of a proxy: for a write nobody knows how far it got.
    kind = OutcomeUnknown if is_write else ExchangeUnavailable
    text = problem.text or response.reason_phrase or "no usable answer"
    return kind(text, endpoint=endpoint, status=status, code=problem.code)


def _retry_after(response: httpx.Response, default: float) -> float:
    try:
        return min(max(float(response.headers["Retry-After"]), default), 60.0)
    except (KeyError, ValueError):
        return default

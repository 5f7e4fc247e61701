"""Requests to Kalshi's REST interface, and what their failures prove.

The question that every failure answers is *did it happen?* A write that was never sent raises `ExchangeUnavailable`;
one that was sent and got no usable answer raises `OutcomeUnknown`; a definite no raises an `ExchangeRejected`. A
cancellation in the middle of a write leaves its outcome unknown as well, and says nothing: it is the caller's to know.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import attrs
import orjson
import structlog

from mm.domain.numbers import SECOND
from mm.exchange import endpoints
from mm.exchange.endpoints import Endpoint
from mm.exchange.kalshi.http import AnswerLost, HttpClient, NotSent, Reply
from mm.exchange.kalshi.options import KalshiOptions
from mm.exchange.kalshi.presign import ReadySignatures
from mm.exchange.kalshi.reading import JsonObject, Malformed, VenueError, read_error, read_object
from mm.exchange.port import (
    AuthError,
    ClockRefused,
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
_LEAVING: Final = frozenset(
    {
        endpoints.TRIGGER_GROUP,
        endpoints.CANCEL,
        endpoints.CANCEL_BATCH,
        endpoints.ORDERS,
        endpoints.USER_DATA_TIMESTAMP,
    }
)
"""What takes orders off and proves it: it has to work whatever our clock says, so it is signed with the venue's time."""
_PAUSED: Final = (
    "trading_is_paused",
    "exchange_is_paused",
    "market_closed",
    "market_inactive",
    "market_is_closed",
)
_ACCEPT: Final = b"Accept: application/json\r\n"
_ACCEPT_AND_TYPE: Final = _ACCEPT + b"Content-Type: application/json\r\n"

log = structlog.get_logger(__name__)


def error_for_code(
    error: VenueError, *, endpoint: str, status: int | None, gone_is_normal: bool
) -> ExchangeError:
    """The error of a definite no, by the venue's code first: one status means several things.

    `gone_is_normal`: a "not found" is about an order, event or group that may have existed (`NotRestingHere`).
    """
    code = error.code
    text = error.text or (Reply(status, b"").phrase if status else "") or "refused"
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

    http: HttpClient
    options: KalshiOptions
    signatures: ReadySignatures

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
        if response.status >= 300 and response.status not in also:
            raise _refusal(response, name, is_write=False, gone_is_normal=True)
        try:
            return read_object(response.content)
        except Malformed as error:
            raise ExchangeUnavailable(
                f"unusable reply: {error}", endpoint=name, status=response.status
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
        if response.status >= 300:
            raise _refusal(response, name, is_write=True, gone_is_normal=gone_is_normal)
        if not response.content.strip():
            return {}
        try:
            reply = read_object(response.content)
        except Malformed as error:
            raise OutcomeUnknown(f"unusable answer: {error}", endpoint=name, status=response.status) from None
        if reply.get("error"):
            # An error object under a 2xx was seen once on a create; what it means for the order is not known.
            problem = read_error(response.content)
            raise OutcomeUnknown(
                f"an error under a success: {problem.text}",
                endpoint=name,
                status=response.status,
                code=problem.code,
            )
        return reply

    def keep(self, endpoint: Endpoint, *ids: str) -> None:
        """Its signature is to be ready always, from now on."""
        self.signatures.keep(endpoint[0], self.options.rest.path + fill_template(endpoint[1], ids))

    def expect(self, endpoint: Endpoint, *ids: str) -> None:
        """Its signature is to be ready for a while."""
        self.signatures.expect(endpoint[0], self.options.rest.path + fill_template(endpoint[1], ids))

    def is_ready(self, endpoint: Endpoint) -> bool:
        """Whether a request there would find its signature made ahead."""
        return self.signatures.is_ready(endpoint[0], self.options.rest.path + endpoint[1])

    def forget(self, endpoint: Endpoint, *ids: str) -> None:
        """It will not be needed any more."""
        self.signatures.drop(endpoint[0], self.options.rest.path + fill_template(endpoint[1], ids))

    async def _send(
        self,
        endpoint: Endpoint,
        ids: tuple[str, ...],
        params: Params | None,
        body: JsonObject | None,
        *,
        is_write: bool,
    ) -> Reply:
        """One request; a second one, signed anew, when the first was refused for its time or its ready signature."""
        response, was_ready = await self._attempt(endpoint, ids, params, body, is_write=is_write)
        if response.status != 401 or not (was_ready or _is_clock_refused(response)):
            return response
        name = " ".join(endpoint)
        why = read_error(response.content).text
        log.warning("signature refused, signing again", endpoint=name, was_made_ahead=was_ready, why=why)
        was_clock = _is_clock_refused(response)
        shift = self._shift_to(response) if was_clock and endpoint in _LEAVING else 0
        response, _ = await self._attempt(
            endpoint, ids, params, body, is_write=is_write, fresh=True, shift=shift
        )
        if was_ready and not was_clock and response.status != 401:
            log.warning("signatures made ahead are refused: from now on each request is signed by itself")
            self.signatures.give_up()
        if _is_clock_refused(response):
            raise ClockRefused(
                "the venue refuses our clock: check the time of this machine",
                endpoint=name,
                status=response.status,
                code=CLOCK_REFUSED,
            )
        return response

    def _shift_to(self, response: Reply) -> int:
        """From our clock to the venue's, by its answer; 0 where that does not tell."""
        try:
            theirs = parsedate_to_datetime(response.header("Date") or "").timestamp()
        except ValueError:
            return 0
        return round(theirs * SECOND) + SECOND // 2 - self.signatures.clock()

    async def _attempt(
        self,
        endpoint: Endpoint,
        ids: tuple[str, ...],
        params: Params | None,
        body: JsonObject | None,
        *,
        is_write: bool,
        fresh: bool = False,
        shift: int = 0,
    ) -> tuple[Reply, bool]:
        """One request, and whether its signature was made ahead. `fresh` and `shift`: see `ReadySignatures.lines`."""
        method, template = endpoint
        path = self.options.rest.path + (fill_template(template, ids) if ids else template)
        if is_write and not ids:
            self.signatures.keep(method, path)  # the same for every order: from now on it is made ahead
        lines, was_ready = self.signatures.lines(method, path, fresh=fresh, shift=shift)
        content = None if method == "GET" else orjson.dumps(body) if body is not None else b""
        fields = lines + (_ACCEPT if body is None else _ACCEPT_AND_TYPE)
        lost = OutcomeUnknown if is_write else ExchangeUnavailable
        try:
            return await self.http.request(method, path + _query(params), fields, content), was_ready
        except NotSent as error:
            raise ExchangeUnavailable(f"no connection: {error}", endpoint=f"{method} {template}") from error
        except AnswerLost as error:
            raise lost(f"the connection failed: {error}", endpoint=f"{method} {template}") from error


@lru_cache(8_192)
def _escaped(text: str) -> str:
    return quote(text, safe="")


def _query(params: Params | None) -> str:
    if not params:
        return ""
    parts = [
        f"{key}={value if isinstance(value, int) else _escaped(value)}"
        for key, value in params.items()
        if value is not None
    ]
    return "?" + "&".join(parts) if parts else ""


def fill_template(template: str, ids: tuple[str, ...]) -> str:
    """The path with its `:id` places filled, each escaped."""
    parts = template.split(":id")
    if len(parts) != len(ids) + 1:
        raise ValueError(f"{template} takes {len(parts) - 1} ids, not {len(ids)}")
    path = parts[0]
    for value, part in zip(ids, parts[1:], strict=True):
        path += _escaped(value) + part
    return path


def _is_clock_refused(response: Reply) -> bool:
    return response.status == 401 and read_error(response.content).code.startswith(CLOCK_REFUSED)


def _refusal(response: Reply, endpoint: str, *, is_write: bool, gone_is_normal: bool) -> ExchangeError:
    """The error of an answer that is no 2xx."""
    status = response.status
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
    text = problem.text or response.phrase or "no usable answer"
    return kind(text, endpoint=endpoint, status=status, code=problem.code)


def _retry_after(response: Reply, default: float) -> float:
    try:
        return min(max(float(response.header("Retry-After") or ""), default), 60.0)
    except ValueError:
        return default

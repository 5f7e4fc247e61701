"""What a person wants to know before trading, and the bot does not ask: the key's rights, the exchange's hours, its clock.

Reads only. The bot's own reads are in `client`; these are for `mm doctor`.
"""

import base64
import email.utils
import statistics
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import attrs
import httpx
import trio

from mm.domain.numbers import SECOND, Micros
from mm.domain.tickers import read_time
from mm.exchange.endpoints import Endpoint
from mm.exchange.kalshi.options import Clock, KalshiOptions
from mm.exchange.kalshi.reading import JsonObject, read_error, read_object
from mm.exchange.kalshi.signing import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer
from mm.exchange.port import AuthError, ExchangeUnavailable

T = TypeVar("T")

API_KEYS: Final[Endpoint] = ("GET", "/api_keys")
SCHEDULE: Final[Endpoint] = ("GET", "/exchange/schedule")
FEE_CHANGES: Final[Endpoint] = ("GET", "/series/fee_changes")
PROBES: Final = 7


@attrs.frozen(kw_only=True)
class KeyInfo:
    """What the exchange says of our key."""

    name: str
    scopes: tuple[str, ...]
    subaccount: int | None
    """The only one it may use; None: any."""
    region_expires_at: Micros | None
    """From then on it may not trade sports, elections or entertainment until the place is attested anew."""

    @property
    def may_read(self) -> bool:
        """Orders, fills, positions."""
        return "read" in self.scopes

    @property
    def may_trade(self) -> bool:
        """Orders and groups."""
        return bool({"write", "write::trade"} & set(self.scopes))


@attrs.frozen(kw_only=True)
class Maintenance:
    """An announced pause."""

    start: Micros
    end: Micros


@attrs.frozen(kw_only=True)
class Timing:
    """How far away the exchange is, and how late its clock is."""

    latency_s: float
    """Median of `PROBES` small reads over an open connection."""
    worst_s: float
    skew_s: float | None
    """Ours less theirs, at the least that the answers allow: their header tells whole seconds. None: not told."""


@attrs.define(eq=False)
class Checkup:
    """Made by `open_checkup`."""

    _http: httpx.AsyncClient
    _options: KalshiOptions
    _signer: Signer
    _clock: Clock

    async def key(self) -> KeyInfo | None:
        """Our key as the exchange lists it; None when it lists others only. Raises `ExchangeError`."""
        body = await self._read(API_KEYS)
        return _understood(lambda: _key_of(body, self._signer.key_id))

    async def maintenance(self) -> list[Maintenance]:
        """What has been announced, soonest first. Raises `ExchangeError`."""
        body = await self._read(SCHEDULE)
        return _understood(lambda: _windows(body))

    async def fee_changes(self, series: str) -> list[tuple[Micros, str]]:
        """Fee changes to come of a series: when, and what fees will be. Raises `ExchangeError`."""
        body = await self._read(FEE_CHANGES, params={"series_ticker": series})
        return _understood(lambda: _changes(body, self._clock()))

    async def _read(self, endpoint: Endpoint, params: dict[str, str] | None = None) -> JsonObject:
        method, template = endpoint
        path = self._options.rest.path + template
        stamp = self._clock() // 1_000
        signature = self._signer.sign(f"{stamp}{method}{path}".encode())
        headers = {
            KEY_HEADER: self._signer.key_id,
            TIMESTAMP_HEADER: str(stamp),
            SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }
        name = f"{method} {template}"
        try:
            response = await self._http.get(self._options.rest.url + template, headers=headers, params=params)
        except httpx.HTTPError as exc:
            raise ExchangeUnavailable(f"no answer: {type(exc).__name__}", endpoint=name) from None
        if not response.is_success:
            problem = read_error(response.content)
            kind = AuthError if response.status_code in (401, 403) else ExchangeUnavailable
            raise kind(
                problem.text or "refused", endpoint=name, status=response.status_code, code=problem.code
            )
        return _understood(lambda: read_object(response.content))

    async def timing(self) -> Timing:
        """A few small reads, one after the other. Raises `ExchangeUnavailable`."""
        url = f"{self._options.rest.url}/exchange/status"
        took: list[float] = []
        lows: list[float] = []
        highs: list[float] = []
        for turn in range(PROBES + 1):
            sent_at, started = self._clock(), trio.current_time()
            try:
                response = await self._http.get(url)
            except httpx.HTTPError as exc:
                raise ExchangeUnavailable(f"no answer: {type(exc).__name__}", endpoint=url) from None
            if turn:  # the first one opens the connection
                took.append(trio.current_time() - started)
            said = email.utils.parsedate_tz(response.headers.get("Date", ""))
            if said is not None:
                # Their clock was in [second, second + 1) at some moment between our two readings.
                second = email.utils.mktime_tz(said)
                lows.append(sent_at / SECOND - (second + 1))
                highs.append(self._clock() / SECOND - second)
        skew = _least(max(lows), min(highs)) if lows else None
        return Timing(latency_s=statistics.median(took), worst_s=max(took), skew_s=skew)


def _least(low: float, high: float) -> float:
    """The smallest difference of the clocks, without regard to sign, that lies in low..high."""
    if low <= 0 <= high:
        return 0.0
    return low if low > 0 else high


def _key_of(body: JsonObject, key_id: str) -> KeyInfo | None:
    expires = body.get("api_key_region_expiration_ts")
    for row in body["api_keys"]:
        if row["api_key_id"] != key_id:
            continue
        subaccount = row.get("subaccount")
        return KeyInfo(
            name=str(row.get("name", "")),
            scopes=tuple(str(scope) for scope in row.get("scopes") or ()),
            subaccount=None if subaccount is None else int(subaccount),
            region_expires_at=None if not expires else Micros(int(expires) * SECOND),
        )
    return None


def _windows(body: JsonObject) -> list[Maintenance]:
    windows = body["schedule"].get("maintenance_windows") or []
    found = [
        Maintenance(start=read_time(row["start_datetime"]), end=read_time(row["end_datetime"]))
        for row in windows
    ]
    return sorted(found, key=lambda window: window.start)


def _changes(body: JsonObject, now: Micros) -> list[tuple[Micros, str]]:
    rows = [
        (read_time(row["scheduled_ts"]), f"{row['fee_type']} x {row['fee_multiplier']}")
        for row in body.get("series_fee_change_arr") or []
    ]
    return sorted(row for row in rows if row[0] > now)


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError) as exc:
        raise ExchangeUnavailable(f"unusable reply: {type(exc).__name__} {exc}") from None


@asynccontextmanager
async def open_checkup(
    options: KalshiOptions,
    signer: Signer,
    *,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[Checkup, None]:
    """A `Checkup` for as long as the block lasts."""
    async with httpx.AsyncClient(
        transport=transport, timeout=options.request_deadline_s, follow_redirects=False, trust_env=False
    ) as http:
        yield Checkup(http, options, signer, clock)

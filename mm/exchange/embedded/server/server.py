"""The exchange on the wire: takes any stream, answers REST, upgrades to WebSocket, applies faults.

Everything that this needs from the world (clock, randomness, ids) is handed in; it opens nothing and starts nothing
but what belongs to a connection that it was given.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Final

import attrs
import orjson
import trio

from mm.domain.numbers import SECOND, Micros, Money
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.events import CoreEvent
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import IdSource
from mm.exchange.embedded.core.rules import Refused, Rules
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server.auth import KEY_HEADER, ApiKey, Authenticator, PublicKey
from mm.exchange.embedded.server.candles import CandleRecorder
from mm.exchange.embedded.server.control import Control, apply_settings
from mm.exchange.embedded.server.errors import ApiError, not_found
from mm.exchange.embedded.server.faults import Faults, Plan
from mm.exchange.embedded.server.http import (
    CutConnection,
    HttpLimits,
    Request,
    Response,
    Upgrade,
    serve_connection,
)
from mm.exchange.embedded.server.hub import Hub, Session
from mm.exchange.embedded.server.lag import LaggedReads
from mm.exchange.embedded.server.limits import PREFIX
from mm.exchange.embedded.server.rest.orders import refusal
from mm.exchange.embedded.server.routes import Route, find
from mm.exchange.embedded.server.service import Call, GameData, NoGameData, Service
from mm.exchange.embedded.server.session import Commands
from mm.exchange.embedded.server.websocket import SocketLimits, WebSocket, handshake

WS_PATH: Final = "/trade-api/ws/v2"
CONTROL: Final = "/control/"
GARBAGE: Final = "Z2FyYmFnZQ"
"""A cursor that means nothing: whoever follows it gets the first page, again and again."""
_IDLE_S: Final = 3_600.0


@attrs.frozen(kw_only=True)
class SocketQuota:
    """What a member may have of sockets. Only the first two are published."""

    connections: int = 200
    commands_a_second: int = 10_000
    markets: int | None = None
    """In one subscription."""


@attrs.define(eq=False, kw_only=True)
class Driver:
    """The core with its clock and its timers: what a source of markets gets, and what keeps expiries on time."""

    core: ExchangeCore
    clock: Callable[[], Micros]
    _planned: Micros | None = None
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _later: list[tuple[Micros, int, Callable[[], None]]] = attrs.field(factory=list)
    _laters: int = 0

    def later(self, when: Micros, what: Callable[[], None]) -> None:
        """Call `what` when the clock reaches `when`; equal times in the order of the calls."""
        self._laters += 1
        heappush(self._later, (when, self._laters, what))
        if self._planned is None or when < self._planned:
            self._wake.set()

    def batch_done(self) -> None:
        """To be called after changes: an earlier timer may have come up."""
        deadline = self.core.next_deadline
        if deadline is not None and (self._planned is None or deadline < self._planned):
            self._wake.set()

    async def run_timers(self) -> None:
        """Work off the core's timers when nobody else calls it. Never returns."""
        while True:
            self._wake = trio.Event()
            self._planned = self.core.advance(self.clock())
            while self._later and self._later[0][0] <= self.clock():
                heappop(self._later)[2]()
            if self._later and (self._planned is None or self._later[0][0] < self._planned):
                self._planned = self._later[0][0]
            wait_s = _IDLE_S
            if self._planned is not None:
                # Never a busy loop, whatever the core says.
                wait_s = max((self._planned - self.clock()) / SECOND, 0.001)
            with trio.move_on_after(wait_s):
                await self._wake.wait()


@attrs.define(eq=False, kw_only=True)
class ExchangeServer:
    """The parts of one exchange, wired. `serve_stream` is all that a listener needs."""

    driver: Driver
    service: Service
    auth: Authenticator
    hub: Hub
    faults: Faults
    control: Control
    http_limits: HttpLimits
    socket_limits: SocketLimits
    date: Callable[[], str] | None
    quota: SocketQuota
    new_id: IdSource
    connections: int = 0
    """Streams ever served."""

    @property
    def core(self) -> ExchangeCore:
        """The exchange itself."""
        return self.driver.core

    def add_account(self, user_id: str, balances: dict[int, Money]) -> None:
        """A new member with cash per shard."""
        now = self.driver.clock()
        self.core.add_user(user_id)
        for exchange_index, amount in balances.items():
            self.service.move_cash(now, user_id, exchange_index, amount)

    def add_key(
        self,
        key_id: str,
        user_id: str,
        public_key: PublicKey,
        *,
        scopes: tuple[str, ...] = ("read", "write"),
        subaccount: int | None = None,
    ) -> None:
        """A key that may sign for a member, for one subaccount only if a number is given."""
        name = f"key {len(self.auth.keys_of(user_id)) + 1}"
        self.auth.add(
            ApiKey(
                key_id=key_id,
                user_id=user_id,
                public_key=public_key,
                name=name,
                scopes=scopes,
                subaccount=subaccount,
            )
        )

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end, and close it. A cancellation closes it too."""
        self.connections += 1
        with trio.CancelScope() as scope:
            handler = partial(self._handle, is_local=_is_local(stream), caller=scope)
            self.control.streams[scope] = stream
            try:
                await serve_connection(stream, handler, limits=self.http_limits, date=self.date)
            finally:
                del self.control.streams[scope]

    async def _handle(
        self, request: Request, *, is_local: bool, caller: trio.CancelScope
    ) -> Response | Upgrade:
        path = request.path
        if path.startswith(CONTROL) and is_local:
            response = self.control.answer(request, caller)
            self.driver.batch_done()
            return response
        if self.control.is_out():
            raise CutConnection
        if path == WS_PATH:
            return await self._with_faults(request, "/ws/v2", self._upgrade)
        if not path.startswith(PREFIX + "/"):
            return not_found().response()
        return await self._with_faults(request, path[len(PREFIX) :], self._answer)

    async def _with_faults(
        self, request: Request, path: str, work: Callable[[Request, str], Response | Upgrade]
    ) -> Response | Upgrade:
        plan = self.faults.plan(request.method, path)
        await _pause(plan.delay_before_s)
        if plan.hang_before:
            await _hang(plan)
        if plan.drop_before:
            raise CutConnection(reset=plan.reset)
        if plan.answer_before is not None:
            return plan.answer_before
        if plan.late_s is not None:
            self._do_late(request, path, plan.late_s)
            if plan.answer_after is None:
                raise CutConnection
            return plan.answer_after
        answer = work(request, path)
        self.driver.batch_done()
        await _pause(plan.delay_after_s)
        if plan.hang_s is not None:
            await _hang(plan)
        if plan.drop_after:
            raise CutConnection(reset=plan.reset)
        answer = plan.answer_after or answer
        return _spoiled(answer, plan) if isinstance(answer, Response) else answer

    def _do_late(self, request: Request, path: str, late_s: float) -> None:
        """Execute a request when nobody waits for it any more. Its signature is judged now."""
        match = find(request.method, path)
        if match.route is None:
            return
        try:
            key = self._key(match.route, request)
        except ApiError:
            return
        route, values = match.route, match.path

        def run() -> None:
            with suppress(ApiError, Refused):
                self._run(route, values, request, key)

        self.driver.later(Micros(self.driver.clock() + int(late_s * SECOND)), run)

    # --- REST ---

    def _answer(self, request: Request, path: str) -> Response:
        match = find(request.method, path)
        if match.route is None:
            if match.allowed:
                allow = (("Allow", ", ".join(match.allowed)),)
                content = ApiError(405, "method_not_allowed").content
                return Response.json(405, {"error": content}, headers=allow)
            return not_found().response()
        try:
            return self._run(match.route, match.path, request, self._key(match.route, request))
        except ApiError as error:
            return error.response()
        except Refused as refused:
            return refusal(refused).response()

    def _run(self, route: Route, path: dict[str, str], request: Request, key: ApiKey | None) -> Response:
        call = Call(
            service=self.service,
            request=request,
            operation=route.name,
            template=route.template,
            path=path,
            now=self.driver.clock(),
            key=key,
        )
        if route.is_read:
            call.pay_read()
        return route.run(call)

    def _key(self, route: Route, request: Request) -> ApiKey | None:
        """Who asks; on public operations whoever cannot show it is anonymous, headers or not."""
        if not route.is_public:
            key = self.auth.key_of(request.method, request.raw_path, request.headers)
            if not key.may(route.scope):
                # How the real exchange words this is not established.
                raise ApiError(403, "insufficient_scope", details=f"the key lacks {route.scope}")
            return key
        if KEY_HEADER not in request.headers:
            return None
        try:
            return self.auth.key_of(request.method, request.raw_path, request.headers)
        except ApiError:
            return None

    # --- WebSocket ---

    def _upgrade(self, request: Request, path: str) -> Response | Upgrade:
        del path
        headers = handshake(request)
        if isinstance(headers, str):
            version = (("Sec-WebSocket-Version", "13"),)
            status = 426 if "version" in headers else 400
            content = ApiError(status, "bad_request", details=headers).content
            return Response.json(status, {"error": content}, headers=version)
        try:
            key = self.auth.key_of(request.method, request.raw_path, request.headers)
        except ApiError as error:
            return error.response()
        open_now = sum(session.user_id == key.user_id for session in self.hub.sessions)
        if open_now >= self.quota.connections:
            return Response.json(429, {"error": "too many requests"})
        return Upgrade(headers=headers, run=partial(self._serve_socket, key))

    async def _serve_socket(self, key: ApiKey, stream: trio.abc.Stream, first_bytes: bytes) -> None:
        faults = self.faults
        socket = WebSocket(stream, self.socket_limits, delay=faults.network_delay, rate=faults.socket_rate)
        session = Session(user_id=key.user_id, subaccount=key.subaccount, socket=socket)
        commands = Commands(
            hub=self.hub,
            session=session,
            max_markets=self.quota.markets,
            max_commands=self.quota.commands_a_second,
        )
        self.hub.open(session)
        fate = faults.socket_fate()
        if fate is not None:
            due = Micros(self.driver.clock() + int(fate.after_s * SECOND))
            self.driver.later(due, partial(socket.end, fate.kind))
        try:
            await socket.run(first_bytes, commands.on_text)
        finally:
            self.hub.close(session)


def _spoiled(answer: Response, plan: Plan) -> Response:
    """An answer whose cursor leads astray, or that ends in its middle."""
    if plan.garble_cursor and answer.status == 200:
        content = orjson.loads(answer.body)
        for name in ("cursor", "next_cursor"):
            if isinstance(content, dict) and name in content:
                content[name] = GARBAGE
        answer = Response.json(200, content)
    return attrs.evolve(answer, truncate=True) if plan.truncate else answer


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await trio.sleep(seconds)


async def _hang(plan: Plan) -> None:
    """Say nothing for a while, then hang up."""
    await _pause(plan.hang_s or 0.0)
    raise CutConnection(reset=plan.reset)


def _is_local(stream: trio.abc.Stream) -> bool:
    """Whether the peer is on this machine; memory streams are."""
    if not isinstance(stream, trio.SocketStream):
        return True
    try:
        peer = stream.socket.getpeername()
    except OSError:
        return False
    host = peer[0] if isinstance(peer, tuple) and peer else ""
    return host == "::1" or str(host).startswith("127.")


def open_exchange_server(
    *,
    clock: Callable[[], Micros],
    random: Random,
    ids: IdSource,
    rules: Rules | None = None,
    tier: str = "basic",
    games: GameData | None = None,
    faults: Faults | None = None,
    http_limits: HttpLimits | None = None,
    socket_limits: SocketLimits | None = None,
    date: Callable[[], str] | None = None,
    quota: SocketQuota | None = None,
    observer: Callable[[CoreEvent], None] | None = None,
) -> ExchangeServer:
    """A new, empty exchange: core, hub, wire. Starts nothing; `server.driver.run_timers` must be run by the caller.

    `date` None leaves the Date header out, as a simulation needs it. `observer` sees every event of the core, at once
    and before anybody on the wire.
    """
    observers: list[Callable[[CoreEvent], None]] = [] if observer is None else [observer]

    def emit(event: CoreEvent) -> None:
        for observe in observers:
            observe(event)

    core = ExchangeCore(rules or Rules(), ids, emit)

    def market_of(ticker: MarketTicker) -> MarketState:
        return core.markets()[ticker]

    faults = faults or Faults(random=random)
    reads = LaggedReads(Micros(faults.lag_ms * 1_000))
    driver = Driver(core=core, clock=clock)
    hub = Hub(clock=clock, markets=core.markets, faults=faults, later=driver.later)
    auth = Authenticator(clock=clock)
    service = Service(
        core=core,
        clock=clock,
        candles=CandleRecorder(market_of),
        reads=reads,
        tier=tier,
        games=games or NoGameData(),
        auth=auth,
        new_id=ids,
    )
    observers.extend((service.candles.observe, partial(reads.observe, core), hub.publish))
    apply_settings(service, faults)
    return ExchangeServer(
        driver=driver,
        service=service,
        auth=auth,
        hub=hub,
        faults=faults,
        control=Control(service=service, hub=hub, faults=faults),
        http_limits=http_limits or HttpLimits(),
        socket_limits=socket_limits or SocketLimits(),
        date=date,
        quota=quota or SocketQuota(),
        new_id=ids,
    )

"""The dashboard in a session: binds an address, wires the views to trading, and keeps its failures away from trading."""

import secrets
from collections.abc import Callable
from typing import Final, NoReturn
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from mm.domain.numbers import Count, Money
from mm.session.controls import Controls
from mm.session.trading import Trading
from mm.session.viewing import Viewer
from mm.views.series import Point, Series
from mm.views.web.app import Sources, WebApp
from mm.views.web.guard import Guard
from mm.views.web.live import Live
from mm.views.web.metrics import Metrics
from mm.views.web.server import WebServer

log = structlog.get_logger(__name__)

SAMPLE_S: Final = 1.0
LAG_WINDOW: Final = 60
"""Samples whose worst lag is told."""
RESTART_S: Final = (1.0, 5.0, 30.0)
TOKEN_BYTES: Final = 18


@attrs.define(eq=False, kw_only=True)
class Dashboard:
    """The web view of one trading session. `run` is its task."""

    trading: Trading
    viewer: Viewer
    address: str
    """host:port."""
    names: frozenset[str] = frozenset()
    """Host names by which it may be called besides localhost."""
    tell: Callable[[str], None] = lambda line: None
    """Brings a line to whoever looks at the terminal."""
    token: str = attrs.field(factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)
    series: Series = attrs.field(factory=Series)
    app: WebApp | None = None

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` with the URL, or an empty text when nothing could be bound.

        A fault in here is told and the view starts again: it must not be what ends trading.
        """
        listeners = await bind(self.address)
        if not listeners:
            task_status.started("")
            return
        host, port = _address_of(listeners[0])
        guard = Guard(token=self.token, is_public=not is_loopback(host), names=self.names)
        app = self.app = self._make_app(guard)
        plain = f"http://{_in_url(host)}:{port}/"
        self.viewer.web_url = f"{plain}#{self.token}"
        log.info("dashboard", url=self.viewer.web_url)
        self.tell(f"dashboard: {self.viewer.web_url}")
        if guard.is_public:
            log.warning(
                "the dashboard is reachable from other machines, without encryption", address=self.address
            )
        task_status.started(self.viewer.web_url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample)
            await self._serve(app, listeners, port)

    def _make_app(self, guard: Guard) -> WebApp:
        return WebApp(
            sources=Sources(
                snapshot=self.viewer.snapshot, detail=self.viewer.detail, history=self.series.points
            ),
            actions=Controls(self.trading),
            guard=guard,
            live=Live(source=self.viewer.snapshot),
            metrics=Metrics(),
        )

    async def _serve(self, app: WebApp, listeners: list[trio.SocketListener], port: int) -> NoReturn:
        host, failures = self.address.rpartition(":")[0], 0
        while True:
            try:
                await WebServer(app).run(listeners)
            except* Exception as group:
                # Whatever a browser or a fault of ours in drawing a page can cause must not take trading down.
                log.error(
                    "the dashboard failed and starts again", error=str(group.exceptions[0]), exc_info=group
                )
            await trio.sleep(RESTART_S[min(failures, len(RESTART_S) - 1)])
            failures += 1
            app = self.app = self._make_app(app.guard)
            listeners = await bind(f"{host}:{port}")

    async def _sample(self) -> NoReturn:
        """Once a second: a point of the charts, markouts that are due, and how late we were woken."""
        trading = self.trading
        lags = [0.0] * LAG_WINDOW
        turn = 0
        while True:
            wanted = trio.current_time() + SAMPLE_S
            await trio.sleep_until(wanted)
            lags[turn % LAG_WINDOW] = trio.current_time() - wanted
            turn += 1
            self.viewer.loop_lag_s = max(lags)
            now, floor = trading.clock(), trading.floor
            trading.tape.take_markouts(now)
            self.series.add(
                Point(
                    at=now,
                    realized=Money(floor.positions.realized() - trading.realized_before),
                    unrealized=floor.unrealized(),
                    worst_exposure=floor.gross.total,
                    gross=Count(sum(abs(int(h.state.net)) for h in floor.positions.histories.values())),
                )
            )


async def bind(address: str) -> list[trio.SocketListener]:
    """Listen on `host:port`; where the port is taken, on a free one, with a warning. Empty when it is impossible."""
    parts = urlsplit(f"//{address}")
    host, port = parts.hostname or "127.0.0.1", parts.port or 0
    for wanted in dict.fromkeys((port, 0)):
        try:
            found = await trio.open_tcp_listeners(wanted, host=host)
        except OSError as exc:
            log.warning(
                "WEB_ADDRESS cannot be used", address=f"{host}:{wanted}", error=exc.strerror or str(exc)
            )
            continue
        # `localhost` may mean two addresses, which have two ports when those are chosen for us: one is enough.
        for extra in found[1:]:
            await extra.aclose()
        return found[:1]
    log.error("no dashboard: nothing could be bound", address=address)
    return []


def is_loopback(host: str) -> bool:
    """Only this machine can connect there."""
    return host == "::1" or host.startswith("127.")


def _address_of(listener: trio.SocketListener) -> tuple[str, int]:
    name = listener.socket.getsockname()
    return str(name[0]), int(name[1])


def _in_url(host: str) -> str:
    """The host as a URL has it; for `every address` one that works here."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{shown}]" if ":" in shown else shown

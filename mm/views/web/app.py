"""The routes: what each address answers. Reading is free on loopback, acting needs the token."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import attrs
import orjson
import structlog

from mm.domain.order import MarketTicker
from mm.views.series import Point
from mm.views.snapshot import MarketDetail, Snapshot
from mm.views.web import payload
from mm.views.web.actions import ActionRefused, Actions, UnknownMarket
from mm.views.web.guard import SECURITY_HEADERS, Guard
from mm.views.web.http import Request, Response, Streaming
from mm.views.web.live import Live
from mm.views.web.metrics import CONTENT_TYPE, Metrics

log = structlog.get_logger(__name__)

STATIC: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
JSON: Final = "application/json"
TOLD_REFUSALS: Final = 20
"""So many are logged one by one, then every hundredth: a stubborn client must not fill the log."""
_NO_STORE: Final = ("cache-control", "no-store")


@attrs.frozen(kw_only=True)
class Sources:
    """Where the page's data comes from. Plain calls, answered at once."""

    snapshot: Callable[[], Snapshot]
    detail: Callable[[MarketTicker], MarketDetail | None]
    history: Callable[[], list[Point]]


@attrs.frozen
class _Asset:
    body: bytes
    content_type: str
    etag: str


@attrs.define(eq=False, kw_only=True)
class WebApp:
    """Answers requests. `live.run` must be running for `/api/events` to say anything."""

    sources: Sources
    actions: Actions
    guard: Guard
    live: Live
    metrics: Metrics
    refused: int = 0
    """Requests turned away: unknown host, foreign origin, wrong token."""
    _assets: dict[str, _Asset] = attrs.field(factory=lambda: read_assets())

    async def __call__(self, request: Request) -> Response | Streaming:
        """One request. Raises what a source raises (a bug)."""
        answer = self._route(request)
        headers = (*SECURITY_HEADERS, *answer.headers)
        if not any(name == "cache-control" for name, _ in answer.headers):
            headers = (*headers, _NO_STORE)
        return attrs.evolve(answer, headers=headers)

    def _route(self, request: Request) -> Response | Streaming:
        refusal = self.guard.may_connect(request)
        if refusal is not None:
            return self._refuse(request, refusal.status, refusal.why)
        if request.method in ("GET", "HEAD"):
            return self._get(request)
        if request.method == "POST":
            return self._post(request)
        return problem(405, "only GET and POST are answered here", allow="GET, HEAD, POST")

    # --- reading ---

    def _get(self, request: Request) -> Response | Streaming:
        path = request.path
        asset = self._assets.get("/index.html" if path == "/" else path)
        if asset is not None:
            return _serve(asset, request)
        if path == "/healthz":
            return Response(body=b"ok\n")
        if path == "/metrics":
            return Response(body=self.metrics.render(self.sources.snapshot()), content_type=CONTENT_TYPE)
        if path.startswith("/api/"):
            refusal = self.guard.may_read(request)
            if refusal is not None:
                return self._refuse(request, refusal.status, refusal.why)
            return self._api(request, path)
        return problem(404, "nothing here")

    def _api(self, request: Request, path: str) -> Response | Streaming:
        if path == "/api/events":
            if self.live.is_full:
                return problem(503, "too many browsers watch already")
            return Streaming(run=self.live.watch, content_type="text/event-stream; charset=utf-8")
        if path == "/api/state":
            return _json(payload.state(self.sources.snapshot()))
        if path == "/api/history":
            return _json(payload.history(self.sources.history()))
        if path == "/api/access":
            return _json({"may_act": self.guard.may_act(request) is None})
        ticker = path.removeprefix("/api/markets/")
        if ticker != path and ticker and "/" not in ticker:
            found = self.sources.detail(MarketTicker(unquote(ticker)))
            return problem(404, "no such market") if found is None else _json(payload.detail(found))
        return problem(404, "nothing here")

    # --- acting ---

    def _post(self, request: Request) -> Response:
        refusal = self.guard.may_act(request)
        if refusal is not None:
            return self._refuse(request, refusal.status, refusal.why)
        if request.headers.get("content-type", "").partition(";")[0].strip() != JSON:
            return problem(415, f"the body must be {JSON}")
        try:
            body = orjson.loads(request.body or b"{}")
        except orjson.JSONDecodeError:
            return problem(400, "the body is not JSON")
        if not isinstance(body, dict):
            return problem(400, "the body is not a JSON object")
        try:
            return self._act(request.path, body)
        except UnknownMarket as exc:
            return problem(404, str(exc))
        except ActionRefused as exc:
            return problem(409, str(exc))

    def _act(self, path: str, body: dict[str, Any]) -> Response:
        match path.strip("/").split("/"):
            case ["api", "markets", ticker, "pause"]:
                self.actions.pause(MarketTicker(unquote(ticker)))
            case ["api", "markets", ticker, "resume"]:
                self.actions.resume(MarketTicker(unquote(ticker)))
            case ["api", "markets", ticker, "flatten"]:
                pause = body.get("pause", False)
                if not isinstance(pause, bool):
                    return problem(400, "pause must be true or false")
                self.actions.flatten(MarketTicker(unquote(ticker)), pause=pause)
            case ["api", "pause"]:
                self.actions.pause_all()
            case ["api", "resume"]:
                self.actions.resume_all()
            case ["api", "stop"]:
                self.actions.stop()
            case _:
                return problem(404, "nothing here")
        self._publish_soon()
        return _json({"done": True})

    def _publish_soon(self) -> None:
        """Whoever acted sees it at once, and so does everybody else."""
        if self.live.watchers:
            self.live.publish()

    def _refuse(self, request: Request, status: int, why: str) -> Response:
        self.refused += 1
        self.metrics.refused_requests = self.refused
        if self.refused <= TOLD_REFUSALS or self.refused % 100 == 0:
            log.warning(
                "web request refused",
                method=request.method,
                path=request.path[:80],
                why=why,
                so_far=self.refused,
            )
        return problem(status, why)


def problem(status: int, why: str, *, allow: str = "") -> Response:
    """An answer that says what is wrong."""
    headers = (("allow", allow),) if allow else ()
    return Response(status=status, body=orjson.dumps({"error": why}), content_type=JSON, headers=headers)


def _json(value: object) -> Response:
    return Response(body=orjson.dumps(value), content_type=JSON)


def _serve(asset: _Asset, request: Request) -> Response:
    headers = (("etag", asset.etag), ("cache-control", "no-cache"))
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status=304, content_type=asset.content_type, headers=headers)
    return Response(body=asset.body, content_type=asset.content_type, headers=headers)


def read_assets(folder: Path = STATIC) -> dict[str, _Asset]:
    """Every file of the page, by its path, in memory: nothing else of the disk can be asked for."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            found[f"/{path.relative_to(folder).as_posix()}"] = _Asset(body, TYPES[path.suffix], etag)
    return found

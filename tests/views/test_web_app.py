"""The routes: what each address answers, and to whom."""

import re

import attrs
import orjson
import pytest

from mm.views.web.app import STATIC
from mm.views.web.http import Response, Streaming
from web_rig import HOSTILE, TOKEN, WebRig, make_market

EVERY_GET = [
    "/",
    "/style.css",
    "/js/main.js",
    "/metrics",
    "/healthz",
    "/api/state",
    "/api/history",
    "/api/access",
    "/nothing",
]
ACTIONS = [
    ("/api/markets/KX-1/pause", ("pause", "KX-1", False)),
    ("/api/markets/KX-1/resume", ("resume", "KX-1", False)),
    ("/api/markets/KX-1/flatten", ("flatten", "KX-1", True)),
    ("/api/pause", ("pause all", "", False)),
    ("/api/resume", ("resume all", "", False)),
    ("/api/stop", ("stop", "", False)),
]


@pytest.fixture(name="rig")
def _rig() -> WebRig:
    return WebRig()


@pytest.mark.parametrize("path", EVERY_GET)
async def test_every_answer_has_the_security_headers(rig: WebRig, path: str) -> None:
    """Scripts from here only, no framing, no sniffing, no referrer, errors included."""
    headers = dict((await rig.whole("GET", path)).headers)

    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] in ("no-store", "no-cache")


@pytest.mark.parametrize("path", ["/api/state", "/api/history", "/metrics", "/api/access", "/"])
async def test_the_token_is_told_to_nobody(rig: WebRig, path: str) -> None:
    """Who may read must not learn how to act: the snapshot's own address has the token, answers do not."""
    assert TOKEN in rig.snapshot.web_url
    assert TOKEN.encode() not in (await rig.whole("GET", path)).body


async def test_the_state_is_the_snapshot(rig: WebRig) -> None:
    """Totals, markets, fills and alerts, in the integers of the books."""
    state = orjson.loads((await rig.whole("GET", "/api/state")).body)

    assert state["totals"]["realized"] == 12_345_678
    assert state["totals"]["quoted"] == 3
    assert [m["ticker"] for m in state["markets"]] == [m.ticker for m in rig.snapshot.markets]
    assert state["markets"][0]["bid"] == {"price": 4100, "count": 1000, "is_sure": True, "ahead": 119_000}
    assert state["fills"][0]["markouts"] == [-150, None]
    assert state["alerts"][0]["severity"] == "warning"


async def test_one_market_closely(rig: WebRig) -> None:
    """Book, decisions and limits of one market; 404 for none."""
    ticker = rig.snapshot.markets[1].ticker
    detail = orjson.loads((await rig.whole("GET", f"/api/markets/{ticker}")).body)

    assert detail["market"]["ticker"] == ticker
    assert detail["bids"] == [{"price": 4100, "count": 120_000, "ours": 1000}]
    assert detail["decisions"][0]["actions"] == ["place bid 10 @ 41"]
    assert (await rig.whole("GET", "/api/markets/KXNONE")).status == 404


@pytest.mark.parametrize(("path", "call"), ACTIONS)
async def test_actions_need_the_token(rig: WebRig, path: str, call: tuple[str, str, bool]) -> None:
    """Without the right one 403 and nothing happens; with it the action is called once."""
    for token in (None, "", "wrong"):
        assert (await rig.ask("POST", path, token=token, body=b'{"pause": true}')).status == 403  # type: ignore[union-attr]
    assert rig.actions.calls == []
    assert rig.app.refused == 3

    answer = await rig.ask("POST", path, token=TOKEN, body=b'{"pause": true}')

    assert isinstance(answer, Response)
    assert answer.status == 200
    assert rig.actions.calls == [call]


async def test_actions_are_never_done_by_get(rig: WebRig) -> None:
    """A link, an image or a prefetch cannot act."""
    for path, _ in ACTIONS:
        assert (await rig.ask("GET", path, token=TOKEN)).status == 404  # type: ignore[union-attr]
    assert rig.actions.calls == []


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"body": b"{"}, 400),
        ({"body": b"[]"}, 400),
        ({"origin": "http://evil.example"}, 403),
        ({"host": "evil.example"}, 421),
    ],
)
async def test_a_good_token_alone_is_not_enough(rig: WebRig, options: dict[str, str], status: int) -> None:
    """Forms of other sites, foreign origins and rebound names are refused with the right token too."""
    answer = await rig.ask("POST", "/api/stop", token=TOKEN, **options)  # type: ignore[arg-type]

    assert isinstance(answer, Response)
    assert answer.status == status
    assert rig.actions.calls == []


async def test_refusals_of_the_session_are_told(rig: WebRig) -> None:
    """Unknown market: 404. Not possible now: 409 with the session's words."""
    assert (await rig.ask("POST", "/api/markets/NONE/pause", token=TOKEN)).status == 404  # type: ignore[union-attr]
    rig.actions.refusal = "it is flat already"
    answer = await rig.ask("POST", "/api/markets/KX-1/flatten", token=TOKEN)

    assert isinstance(answer, Response)
    assert answer.status == 409
    assert orjson.loads(answer.body) == {"error": "it is flat already"}


async def test_a_flatten_without_words_does_not_pause(rig: WebRig) -> None:
    """An empty body is allowed; a wrong type is not."""
    await rig.ask("POST", "/api/markets/KX-1/flatten", token=TOKEN)
    assert rig.actions.calls == [("flatten", "KX-1", False)]
    answer = await rig.ask("POST", "/api/markets/KX-1/flatten", token=TOKEN, body=b'{"pause": "yes"}')
    assert answer.status == 400  # type: ignore[union-attr]


async def test_tickers_in_addresses_are_unescaped(rig: WebRig) -> None:
    """What a browser escapes arrives as it was."""
    await rig.ask("POST", "/api/markets/KX%2D1/pause", token=TOKEN)

    assert rig.actions.calls == [("pause", "KX-1", False)]


async def test_other_methods_are_refused(rig: WebRig) -> None:
    """OPTIONS too: no preflight ever succeeds."""
    for method in ("OPTIONS", "PUT", "DELETE", "PATCH"):
        assert (await rig.whole(method, "/api/state")).status == 405


async def test_beyond_loopback_data_needs_the_token_and_the_page_does_not() -> None:
    """The page must load before it can send the token; metrics are for Prometheus, which has none."""
    rig = WebRig(is_public=True)

    for path in ("/api/state", "/api/history", "/api/events", "/api/markets/x", "/api/access"):
        assert (await rig.whole("GET", path)).status == 403
    assert (await rig.ask("GET", "/api/state", token=TOKEN)).status == 200  # type: ignore[union-attr]
    assert (await rig.whole("GET", "/")).status == 200
    assert (await rig.whole("GET", "/metrics")).status == 200


async def test_assets_are_not_sent_twice(rig: WebRig) -> None:
    """A browser that has the file gets 304."""
    first = await rig.whole("GET", "/js/main.js")
    etag = dict(first.headers)["etag"]
    second = await rig.whole("GET", "/js/main.js", if_none_match=etag)

    assert first.status == 200
    assert (second.status, second.body) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/../app.py", "/js/../../app.py", "/%2e%2e/app.py", "//etc/passwd", "/js", "/js/"]
)
async def test_nothing_else_of_the_disk_is_served(rig: WebRig, path: str) -> None:
    """Only files that were read at the start have an address."""
    assert (await rig.whole("GET", path)).status == 404


async def test_hostile_text_stays_text(rig: WebRig) -> None:
    """A title is data in JSON, never part of the page's markup."""
    rig.snapshot = attrs.evolve(rig.snapshot, markets=(make_market(0, title=HOSTILE),))
    answer = await rig.whole("GET", "/api/state")

    assert answer.content_type == "application/json"
    assert orjson.loads(answer.body)["markets"][0]["title"] == HOSTILE
    assert HOSTILE.encode() not in (await rig.whole("GET", "/")).body


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No CDN, no font server, no inline script, no markup made of strings: works offline and under its own policy."""
    for path in STATIC.rglob("*"):
        if path.suffix not in (".html", ".js", ".css"):
            continue
        text = path.read_text()
        allowed = ("http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot")
        urls = [
            u
            for u in re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)*]*", text)
            if u not in allowed
        ]
        assert urls == [], path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), path
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=", page)


def test_the_chart_library_comes_with_its_licence() -> None:
    """What is not ours is told."""
    assert "MIT" in (STATIC / "vendor" / "uplot-license.txt").read_text()


async def test_too_many_browsers_are_told_so(rig: WebRig) -> None:
    """The bound on watchers is a 503, not a hang."""
    assert isinstance(await rig.ask("GET", "/api/events"), Streaming)
    rig.app.live.watchers = 10_000

    assert (await rig.whole("GET", "/api/events")).status == 503

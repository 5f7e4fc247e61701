"""Who may ask and who may act: rebinding, other sites, tokens."""

import pytest

from mm.views.web.guard import TOKEN_HEADER, Guard
from mm.views.web.http import Request
from web_rig import TOKEN

GUARD = Guard(token=TOKEN, is_public=False, names=frozenset({"bot"}))


def request(method: str = "GET", **headers: str) -> Request:
    """A request; header names with `_` for `-`."""
    return Request(
        method=method, path="/api/state", headers={n.replace("_", "-"): v for n, v in headers.items()}
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8750", "localhost", "LOCALHOST:1", "[::1]:8750", "10.0.0.7", "bot:80"]
)
def test_own_names_and_addresses_are_known(host: str) -> None:
    """Addresses cannot be rebound; names are those that are ours."""
    assert GUARD.may_connect(request(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8750",
        "",
        "bot.evil.example",
        "[evil]",
    ],
)
def test_foreign_names_are_misdirected(host: str) -> None:
    """A name that somebody else may point at us is not served: that is how rebinding begins."""
    refusal = GUARD.may_connect(request(host=host))

    assert refusal is not None
    assert refusal.status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
    ],
)
def test_other_sites_pages_are_refused(headers: dict[str, str]) -> None:
    """Another origin, another port of this machine included, neither reads nor acts."""
    for method in ("GET", "POST"):
        refusal = GUARD.may_connect(request(method, host="127.0.0.1:8750", **headers))

        assert refusal is not None
        assert refusal.status == 403


def test_a_link_on_another_site_may_open_the_page() -> None:
    """Following a link is a user's act, and the page alone tells nothing."""
    headers = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}

    assert GUARD.may_connect(request(host="127.0.0.1:8750", **headers)) is None
    assert GUARD.may_connect(request("POST", host="127.0.0.1:8750", **headers)) is not None


def test_own_page_is_served() -> None:
    """What a browser sends for this page's own requests passes."""
    assert (
        GUARD.may_connect(
            request(
                "POST", host="127.0.0.1:8750", origin="http://127.0.0.1:8750", sec_fetch_site="same-origin"
            )
        )
        is None
    )


def test_acting_needs_the_token_reading_does_not_on_loopback() -> None:
    """Wrong, empty, missing: refused."""
    assert GUARD.may_read(request()) is None
    assert GUARD.may_act(request(**{TOKEN_HEADER: TOKEN})) is None
    for wrong in ("", "x", TOKEN + "x", TOKEN[:-1], "tökén"):
        refusal = GUARD.may_act(request(**{TOKEN_HEADER: wrong}))
        assert refusal is not None
        assert refusal.status == 403
    assert GUARD.may_act(request()) is not None


def test_beyond_loopback_reading_needs_the_token_too() -> None:
    """Positions and results are nobody else's business."""
    guard = Guard(token=TOKEN, is_public=True)

    assert guard.may_read(request()) is not None
    assert guard.may_read(request(**{TOKEN_HEADER: TOKEN})) is None


def test_the_token_is_not_in_the_repr() -> None:
    """A guard that reaches a log says nothing."""
    assert TOKEN not in repr(GUARD)

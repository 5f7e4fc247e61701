"""Who may ask, and who may act: Host and Origin checks, the token, and the headers of every answer.

A page on another site must not read this one (DNS rebinding) nor act through the user's browser (CSRF); a title that
the exchange sends must not become a script. Acting needs a token, random for each run, which reaches the browser in the
fragment of the printed URL: fragments are not sent to servers and do not end in logs or referrers. It is not a cookie,
because cookies are shared by all ports of a host.
"""

import hmac
import ipaddress
from typing import Final

import attrs

from mm.views.web.http import Request

TOKEN_HEADER: Final = "x-mm-token"  # noqa: S105 - a name
SECURITY_HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
)
_LOOPBACK_NAMES: Final = frozenset({"localhost"})


@attrs.frozen(kw_only=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    why: str


@attrs.frozen(kw_only=True)
class Guard:
    """Judges requests."""

    token: str = attrs.field(repr=False)
    is_public: bool
    """It listens beyond loopback: reading needs the token too."""
    names: frozenset[str] = frozenset()
    """Host names by which it may be called besides localhost and IP addresses; lower case."""

    def may_connect(self, request: Request) -> Refusal | None:
        """Before anything else: is this request meant for us, and not sent by another site's page?"""
        host = request.headers.get("host", "")
        if not self._is_known(host):
            return Refusal(status=421, why="unknown host name; set WEB_HOSTS to allow it")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return Refusal(status=403, why="asked by a page of another origin")
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            is_link = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
            if not is_link or request.headers.get("sec-fetch-dest", "document") != "document":
                return Refusal(status=403, why="asked by a page of another site")
        return None

    def may_read(self, request: Request) -> Refusal | None:
        """Whether this request may see data."""
        return self.may_act(request) if self.is_public else None

    def may_act(self, request: Request) -> Refusal | None:
        """Whether this request carries the token."""
        given = request.headers.get(TOKEN_HEADER, "")
        if hmac.compare_digest(given.encode(), self.token.encode()):
            return None
        why = "wrong token" if given else "no token"
        return Refusal(status=403, why=f"{why}: open the address that the bot printed when it started")

    def _is_known(self, host: str) -> bool:
        """An IP address cannot be rebound; of names only those that are ours."""
        name = _without_port(host).lower()
        if name in _LOOPBACK_NAMES or name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    """`127.0.0.1:80` and `[::1]:80` without the port and the brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]

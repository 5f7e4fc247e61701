"""What bot and guardian say to each other: one JSON object a line, over two pipes.

| bot says | meaning | guardian answers |
|---|---|---|
| `hello` | whom, where and how to guard | `ready`, or `refused` with the reason |
| `group` | an order group of this session; guard it | `group` with its id, when it knows |
| `forget` | the group was triggered or deleted, no need to guard it | |
| `beat` | the event loop turns | `beat` with the same number |
| `goodbye` | nothing rests, or another guardian has taken over | it ends |

Unasked, the guardian says `acting` when it begins to pull orders and `done` when it is through.

Values are named tuples here, not attrs classes: attrs alone would be a twentieth of the guardian's memory.
"""

import json
from typing import Any, Final, NamedTuple

VERSION: Final = 2
"""Of these messages. A package replaced under a running bot must be found at the restart of a guardian."""
LONGEST_LINE: Final = 65_536
"""Bytes; a longer line is not one of ours."""

Message = dict[str, Any]


class BadMessage(Exception):
    """A line that does not follow the protocol. Its text never holds the line: a hello carries the key."""


class Address(NamedTuple):
    """A URL taken apart, so that the guardian needs no parser. `path` begins with a slash and may hold a secret."""

    is_secure: bool
    host: str
    port: int
    path: str

    def __repr__(self) -> str:
        return f"Address(is_secure={self.is_secure}, host={self.host!r}, port={self.port})"


class Budget(NamedTuple):
    """What the account's write bucket pays for, as far as the bot knows. Tokens."""

    refill_per_s: float = 100.0
    capacity: float = 100.0
    cancel_cost: float = 2.0
    """One order in a batch of cancels."""


class Hello(NamedTuple):
    """Everything a guardian is told at its start. Times are seconds."""

    rest: Address
    key_id: str
    key: str
    """The private key, as `mm.exchange.kalshi.signing.portable_key` writes it, or as PEM (which costs 3 MB more)."""
    prefix: str
    """Of the session's order ids: what it may cancel."""
    subaccount: int = 0
    budget: Budget = Budget()
    webhook: Address | None = None
    ca_file: str | None = None
    """Certificates to trust; the system's without."""
    silence_s: float = 2.0
    """Without a sign of life for this long the bot counts as dead."""
    time_limit_s: float = 60.0
    """It gives up this long after it began to act."""
    request_deadline_s: float = 4.0
    read_lag_s: float = 0.6
    """Reads lag writes: a clean read counts from this long after the last write, if the venue says it is current."""
    long_read_lag_s: float = 3.0
    """From here on a read counts whatever the venue says. Shorter than the bot's own 5 s: after the work it must end."""

    def __repr__(self) -> str:
        return f"Hello(prefix={self.prefix!r}, rest={self.rest!r})"


def encode(kind: str, **content: Any) -> bytes:
    """One message as a line."""
    return json.dumps({"is": kind, **content}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[str, Message]:
    """(kind, content) of a line. Raises `BadMessage`."""
    try:
        message = json.loads(line)
    except ValueError:
        raise BadMessage("a line that is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("is"), str):
        raise BadMessage("a line that is not a message")
    return message.pop("is"), message


def encode_hello(hello: Hello) -> bytes:
    """The first line of a bot."""
    content = hello._asdict()
    for name in ("rest", "budget", "webhook"):
        if content[name] is not None:
            content[name] = content[name]._asdict()
    return encode("hello", version=VERSION, **content)


def decode_hello(message: Message) -> Hello:
    """The content of a `hello`. Raises `BadMessage`, without the content."""
    content = dict(message)
    if content.pop("version", None) != VERSION:
        raise BadMessage(f"the bot speaks another version of the protocol than {VERSION}")
    try:
        content["rest"] = Address(**content["rest"])
        content["budget"] = Budget(**content["budget"])
        if content["webhook"] is not None:
            content["webhook"] = Address(**content["webhook"])
        return Hello(**content)
    except (KeyError, TypeError) as exc:
        raise BadMessage(f"a hello of another shape ({type(exc).__name__})") from None


class LineSplitter:
    """Bytes in, whole lines out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now. Raises `BadMessage` when one grows without end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise BadMessage("a line without end")
        return [line for line in lines if line.strip()]

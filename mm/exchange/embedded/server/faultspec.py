"""The text and the fields of faults: which kinds there are, what each may say, and what is wrong with a bad one.

A `--faults` text is a list of rules separated by `;`, each a kind and comma-separated `name=value` pairs:

    drop,match=POST /portfolio/events/orders,p=0.1,when=after; lag,ms=400; shuffle,ms=50; half_open,ms=9000,p=0.2

docs/exchange.md has the table.
"""

from collections.abc import Mapping
from typing import Final

import attrs

REQUEST_KINDS: Final = ("drop", "delay", "hang", "error", "throttle", "truncate", "late", "cursor")
"""What may become of one REST request (or of a handshake)."""
SOCKET_KINDS: Final = ("cut", "half_open")
"""What may become of one WebSocket, `ms` after it was opened."""
FRAME_KINDS: Final = ("lose", "duplicate", "gap", "shuffle")
"""What may become of one frame of a subscription."""
SETTINGS: Final = ("lag", "latency", "slow", "skew", "shard_down")
"""What holds for everybody, until changed."""
KINDS: Final = (*REQUEST_KINDS, *SOCKET_KINDS, *FRAME_KINDS)

_CHANCE: Final = frozenset({"p", "times", "nth"})
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "drop": _CHANCE | {"match", "when", "reset"},
    "delay": _CHANCE | {"match", "when", "ms"},
    "hang": _CHANCE | {"match", "when", "ms"},
    "error": _CHANCE | {"match", "when", "code"},
    "throttle": _CHANCE | {"match", "when"},
    "truncate": _CHANCE | {"match"},
    "late": _CHANCE | {"match", "ms", "code"},
    "cursor": _CHANCE | {"match"},
    "cut": _CHANCE | {"ms", "how"},
    "half_open": _CHANCE | {"ms"},
    "lose": _CHANCE | {"channel"},
    "duplicate": _CHANCE | {"channel"},
    "gap": _CHANCE | {"channel"},
    "shuffle": _CHANCE | {"channel", "ms"},
}
_MS: Final = {"hang": 60_000, "late": 60_000, "cut": 5_000, "half_open": 5_000, "shuffle": 50}
"""Where a rule names no `ms`; 0 for the others."""
MAX_LATE_MS: Final = 60_000
CUTS: Final = ("close", "drop", "reset")


@attrs.define(kw_only=True)
class Rule:
    """One kind of trouble. `times` counts down, `seen` counts what it might have struck."""

    kind: str
    match: str = "*"
    channel: str = "*"
    p: float = 1.0
    when: str = "after"
    times: int | None = None
    nth: int | None = None
    """Strikes only the n-th time that it might, counted from 1."""
    ms: int = 0
    code: int = 503
    reset: bool = False
    how: str = "drop"
    seen: int = 0
    hits: int = 0


def pieces(spec: str) -> list[tuple[str, dict[str, object]]]:
    """The rules of a text, as kinds and fields. Raises `ValueError` naming the piece that is no `name=value`."""
    found: list[tuple[str, dict[str, object]]] = []
    for piece in spec.split(";"):
        if piece.strip():
            kind, *pairs = (part.strip() for part in piece.split(","))
            found.append((kind, dict(_pair(pair, piece) for pair in pairs)))
    return found


def _pair(text: str, piece: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"fault {piece.strip()!r}: {text!r} is not name=value")
    return name.strip(), value.strip()


def integer(fields: Mapping[str, object], name: str, kind: str, default: int = 0, *, lowest: int = 0) -> int:
    """A whole number of a rule's fields. Raises `ValueError`."""
    value = fields.get(name, default)
    try:
        number = int(str(value))
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise ValueError(f"fault {kind}: {name} must be a whole number, not {value!r}")
    return number


def only(fields: Mapping[str, object], allowed: frozenset[str], kind: str) -> None:
    """Raises `ValueError` for a field that this kind does not have."""
    unknown = set(fields) - allowed
    if unknown:
        raise ValueError(f"fault {kind}: unknown field {min(unknown)!r}")


def rule(kind: str, fields: Mapping[str, object]) -> Rule:
    """A rule from its fields (strings or JSON values). Raises `ValueError`."""
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}: one of {', '.join((*KINDS, *SETTINGS))}")
    only(fields, _FIELDS[kind], kind)
    ms = integer(fields, "ms", kind, _MS.get(kind, 0))
    if kind == "late" and ms > MAX_LATE_MS:
        raise ValueError(f"fault late: ms must not be above {MAX_LATE_MS}")
    return Rule(
        kind=kind,
        match=str(fields.get("match", "*")),
        channel=str(fields.get("channel", "*")),
        p=_chance(fields, kind),
        when=_word(fields, "when", ("before", "after"), "after", kind),
        times=integer(fields, "times", kind) if fields.get("times") is not None else None,
        nth=integer(fields, "nth", kind, lowest=1) if fields.get("nth") is not None else None,
        ms=ms,
        code=_code(fields, kind),
        reset=str(fields.get("reset", "0")).lower() in ("1", "true"),
        how=_word(fields, "how", CUTS, "drop", kind),
    )


def _chance(fields: Mapping[str, object], kind: str) -> float:
    try:
        chance = float(str(fields.get("p", 1.0)))
    except ValueError:
        chance = -1.0
    if not 0.0 <= chance <= 1.0:
        raise ValueError(f"fault {kind}: p must be between 0 and 1, not {fields['p']!r}")
    return chance


def _word(fields: Mapping[str, object], name: str, words: tuple[str, ...], default: str, kind: str) -> str:
    value = str(fields.get(name, default))
    if value not in words:
        raise ValueError(f"fault {kind}: {name} must be {' or '.join(words)}, not {value!r}")
    return value


def _code(fields: Mapping[str, object], kind: str) -> int:
    default = 0 if kind == "late" else 503
    code = integer(fields, "code", kind, default)
    if not 400 <= code <= 599 and not (kind == "late" and code == 0):
        raise ValueError(f"fault {kind}: code must be an error status, not {code}")
    return code

"""Things that go wrong on purpose: requests lost, delayed, answered with an error, before or after they were done.

Only decides; the server acts. Socket faults (cut, stall, skipped sequence numbers) are in `control`.

`--faults SPEC` is a list of rules separated by `;`, each a kind and comma-separated `name=value` pairs:

    drop,match=POST /portfolio/events/orders,p=0.1,when=after; delay,ms=500,p=0.05; lag,ms=400; latency,ms=5,jitter=3

| kind | what happens to a matching request | own fields |
|---|---|---|
| `drop` | the connection ends without an answer (`reset=1`: with a RST) | `reset` |
| `delay` | the answer is late by `ms` | `ms` |
| `hang` | no answer comes, the connection stays open for `ms` (default 60,000) | `ms` |
| `error` | it is answered with `code` (default 503) | `code` |
| `throttle` | it is answered with 429 (never executed) | |

with `match` (method or `*`, then a path below /trade-api/v2 with `*` as wildcard; default everything), `p` (chance,
default 1), `when` (`before` or `after` the request is executed, default `after`), `times` (then it is used up).
`lag,ms=` makes order, fill and position reads lag behind; `latency,ms=,jitter=` delays every request, answer and frame.
The socket's handshake is the path `/ws/v2`.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from random import Random
from typing import Final

import attrs

from mm.exchange.embedded.server.http import Response

KINDS: Final = ("drop", "delay", "hang", "error", "throttle")
_HANG_MS: Final = 60_000


@attrs.define(kw_only=True)
class Rule:
    """One kind of trouble for some requests. `times` counts down."""

    kind: str
    match: str = "*"
    p: float = 1.0
    when: str = "after"
    times: int | None = None
    ms: int = 0
    code: int = 503
    reset: bool = False
    hits: int = 0

    def applies_to(self, method: str, path: str) -> bool:
        """Whether a request (path below the prefix) is meant."""
        wanted_method, _, wanted_path = self.match.rpartition(" ")
        is_method = wanted_method in ("", "*", method)
        return is_method and fnmatchcase(path, wanted_path)


@attrs.define(kw_only=True)
class Plan:
    """What happens to one request. Seconds."""

    delay_before_s: float = 0.0
    delay_after_s: float = 0.0
    drop_before: bool = False
    drop_after: bool = False
    reset: bool = False
    hang_s: float | None = None
    hang_before: bool = False
    answer_before: Response | None = None
    answer_after: Response | None = None


@attrs.define(eq=False, kw_only=True)
class Faults:
    """The rules in force. All chances are drawn from `random`, so a seed repeats them."""

    random: Random
    rules: list[Rule] = attrs.field(factory=list)
    latency_ms: int = 0
    jitter_ms: int = 0
    lag_ms: int = 0

    def network_delay(self) -> float:
        """Seconds that an answer or a frame is on its way."""
        if not self.latency_ms and not self.jitter_ms:
            return 0.0
        return (self.latency_ms + self.random.random() * self.jitter_ms) / 1_000

    def plan(self, method: str, path: str) -> Plan:
        """Draw the fate of a request."""
        plan = Plan(delay_before_s=self.network_delay(), delay_after_s=self.network_delay())
        for rule in self.rules:
            if rule.times == 0 or not rule.applies_to(method, path):
                continue
            if rule.p < 1.0 and self.random.random() >= rule.p:
                continue
            rule.hits += 1
            if rule.times is not None:
                rule.times -= 1
            _add(plan, rule)
        return plan

    def clear(self) -> None:
        """No trouble any more."""
        self.rules.clear()
        self.latency_ms = self.jitter_ms = self.lag_ms = 0

    def add_spec(self, spec: str) -> None:
        """Add the rules of a `--faults` text. Raises `ValueError` naming the piece that is wrong."""
        for piece in spec.split(";"):
            if piece.strip():
                kind, *pairs = (part.strip() for part in piece.split(","))
                fields = dict(_pair(pair, piece) for pair in pairs)
                self.add(kind, fields)

    def add(self, kind: str, fields: Mapping[str, object]) -> None:
        """Add one rule from its fields (strings or JSON values). Raises `ValueError`."""
        if kind == "lag":
            self.lag_ms = _integer(fields, "ms", kind)
        elif kind == "latency":
            self.latency_ms = _integer(fields, "ms", kind)
            self.jitter_ms = _integer(fields, "jitter", kind)
        elif kind in KINDS:
            self.rules.append(_rule(kind, fields))
        else:
            raise ValueError(f"unknown fault {kind!r}: one of {', '.join((*KINDS, 'lag', 'latency'))}")

    def as_json(self) -> dict[str, object]:
        """The rules in force, with how often each struck."""
        return {
            "rules": [attrs.asdict(rule) for rule in self.rules],
            "latency_ms": self.latency_ms,
            "jitter_ms": self.jitter_ms,
            "lag_ms": self.lag_ms,
        }


def _pair(text: str, piece: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"fault {piece.strip()!r}: {text!r} is not name=value")
    return name.strip(), value.strip()


def _integer(fields: Mapping[str, object], name: str, kind: str, default: int = 0) -> int:
    value = fields.get(name, default)
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"fault {kind}: {name} must be a whole number, not {value!r}")
    return number


def _rule(kind: str, fields: Mapping[str, object]) -> Rule:
    unknown = set(fields) - {"match", "p", "when", "times", "ms", "code", "reset"}
    if unknown:
        raise ValueError(f"fault {kind}: unknown field {min(unknown)!r}")
    try:
        chance = float(str(fields.get("p", 1.0)))
    except ValueError:
        chance = -1.0
    if not 0.0 <= chance <= 1.0:
        raise ValueError(f"fault {kind}: p must be between 0 and 1, not {fields['p']!r}")
    when = str(fields.get("when", "after"))
    if when not in ("before", "after"):
        raise ValueError(f"fault {kind}: when must be before or after, not {when!r}")
    code = _integer(fields, "code", kind, 503)
    if not 400 <= code <= 599:
        raise ValueError(f"fault {kind}: code must be an error status, not {code}")
    return Rule(
        kind=kind,
        match=str(fields.get("match", "*")),
        p=chance,
        when=when,
        times=_integer(fields, "times", kind) if fields.get("times") is not None else None,
        ms=_integer(fields, "ms", kind, _HANG_MS if kind == "hang" else 0),
        code=code,
        reset=str(fields.get("reset", "0")).lower() in ("1", "true"),
    )


def _add(plan: Plan, rule: Rule) -> None:
    is_before = rule.when == "before"
    if rule.kind == "delay" and is_before:
        plan.delay_before_s += rule.ms / 1_000
    elif rule.kind == "delay":
        plan.delay_after_s += rule.ms / 1_000
    elif rule.kind == "hang":
        plan.hang_s, plan.hang_before = rule.ms / 1_000, is_before
    elif rule.kind == "drop":
        plan.reset = rule.reset
        if is_before:
            plan.drop_before = True
        else:
            plan.drop_after = True
    elif rule.kind == "throttle":
        plan.answer_before = Response.json(429, {"error": "too many requests"})
    else:
        name = "service_unavailable" if rule.code == 503 else "internal_error"
        answer = Response.json(rule.code, {"error": {"code": name, "message": name.replace("_", " ")}})
        if is_before:
            plan.answer_before = answer
        else:
            plan.answer_after = answer

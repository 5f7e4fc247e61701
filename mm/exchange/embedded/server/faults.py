"""Things that go wrong on purpose, to requests, to sockets, to frames. Only decides; server, hub and socket act.

What can be said is in `faultspec`; what is done on the spot, by command, is in `control`.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from random import Random
from typing import Final

import attrs

from mm.exchange.embedded.server import faultspec
from mm.exchange.embedded.server.faultspec import FRAME_KINDS, KINDS, REQUEST_KINDS, SOCKET_KINDS, Rule
from mm.exchange.embedded.server.http import Response

__all__ = ["KINDS", "Faults", "FrameFate", "Plan", "Rule", "SocketFate"]

_MOST_BPS: Final = 10**9


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
    late_s: float | None = None
    """Executed so much later, when nobody waits for it any more."""
    truncate: bool = False
    """The answer ends in its middle."""
    garble_cursor: bool = False


@attrs.frozen(kw_only=True)
class SocketFate:
    """What becomes of a socket `after_s` seconds: `half_open`, or a cut (`close`, `drop`, `reset`)."""

    kind: str
    after_s: float


@attrs.define(kw_only=True)
class FrameFate:
    """What becomes of one frame. `hold_s` keeps it back while other subscriptions' frames pass."""

    is_lost: bool = False
    is_doubled: bool = False
    skip: int = 0
    """Sequence numbers left out before it."""
    hold_s: float = 0.0


_FINE: Final = FrameFate()


@attrs.define(eq=False, kw_only=True)
class Faults:
    """The rules in force. All chances are drawn from `random`, so a seed repeats them."""

    random: Random
    rules: list[Rule] = attrs.field(factory=list)
    latency_ms: int = 0
    jitter_ms: int = 0
    lag_ms: int = 0
    slow_bps: int = 0
    """Bytes a second that a socket takes; 0: as fast as it can."""
    skew_ms: int = 0
    """How far our clock is ahead of the clients'."""
    shards_down: set[int] = attrs.field(factory=set)

    def network_delay(self) -> float:
        """Seconds that an answer or a frame is on its way."""
        if not self.latency_ms and not self.jitter_ms:
            return 0.0
        return (self.latency_ms + self.random.random() * self.jitter_ms) / 1_000

    def socket_rate(self) -> float | None:
        """Bytes a second that a socket takes; None without a limit."""
        return float(self.slow_bps) if self.slow_bps else None

    # --- what strikes ------------------------------------------------------------------------------------------------

    def plan(self, method: str, path: str) -> Plan:
        """Draw the fate of a request (path below the prefix)."""
        plan = Plan(delay_before_s=self.network_delay(), delay_after_s=self.network_delay())
        for rule in self.rules:
            if rule.kind in REQUEST_KINDS and _is_meant(rule, method, path) and self._strikes(rule):
                _add(plan, rule)
        return plan

    def socket_fate(self) -> SocketFate | None:
        """Draw the fate of a socket that was just opened."""
        for rule in self.rules:
            if rule.kind in SOCKET_KINDS and self._strikes(rule):
                return SocketFate(
                    kind="half_open" if rule.kind == "half_open" else rule.how, after_s=rule.ms / 1_000
                )
        return None

    def frame(self, channel: str) -> FrameFate:
        """Draw the fate of one frame. Cheap when there are no rules."""
        if not self.rules:
            return _FINE
        fate = _FINE
        for rule in self.rules:
            if rule.kind in FRAME_KINDS and fnmatchcase(channel, rule.channel) and self._strikes(rule):
                if fate is _FINE:
                    fate = FrameFate()
                self._doom(fate, rule)
        return fate

    def _doom(self, fate: FrameFate, rule: Rule) -> None:
        if rule.kind == "lose":
            fate.is_lost = True
        elif rule.kind == "duplicate":
            fate.is_doubled = True
        elif rule.kind == "gap":
            fate.skip += 1
        else:
            fate.hold_s += self.random.random() * rule.ms / 1_000

    def _strikes(self, rule: Rule) -> bool:
        if rule.times == 0:
            return False
        rule.seen += 1
        if rule.nth is not None and rule.seen != rule.nth:
            return False
        if rule.p < 1.0 and self.random.random() >= rule.p:
            return False
        rule.hits += 1
        if rule.times is not None:
            rule.times -= 1
        return True

    # --- what is in force --------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """No trouble any more."""
        self.rules.clear()
        self.shards_down.clear()
        self.latency_ms = self.jitter_ms = self.lag_ms = self.slow_bps = self.skew_ms = 0

    def add_spec(self, spec: str) -> None:
        """Add the rules of a `--faults` text. Raises `ValueError` naming the piece that is wrong."""
        for kind, fields in faultspec.pieces(spec):
            self.add(kind, fields)

    def add(self, kind: str, fields: Mapping[str, object]) -> None:
        """Add one rule from its fields (strings or JSON values). Raises `ValueError`."""
        if kind in faultspec.SETTINGS:
            self._set(kind, fields)
        else:
            self.rules.append(faultspec.rule(kind, fields))

    def _set(self, kind: str, fields: Mapping[str, object]) -> None:
        if kind == "lag":
            faultspec.only(fields, frozenset({"ms"}), kind)
            self.lag_ms = faultspec.integer(fields, "ms", kind)
        elif kind == "latency":
            faultspec.only(fields, frozenset({"ms", "jitter"}), kind)
            self.latency_ms = faultspec.integer(fields, "ms", kind)
            self.jitter_ms = faultspec.integer(fields, "jitter", kind)
        elif kind == "slow":
            faultspec.only(fields, frozenset({"bps"}), kind)
            self.slow_bps = min(faultspec.integer(fields, "bps", kind), _MOST_BPS)
        elif kind == "skew":
            faultspec.only(fields, frozenset({"ms"}), kind)
            self.skew_ms = faultspec.integer(fields, "ms", kind, lowest=-(10**10))
        else:
            faultspec.only(fields, frozenset({"index", "up"}), kind)
            index = faultspec.integer(fields, "index", kind)
            if str(fields.get("up", "0")).lower() in ("1", "true"):
                self.shards_down.discard(index)
            else:
                self.shards_down.add(index)

    def as_json(self) -> dict[str, object]:
        """The rules in force, with how often each struck."""
        return {
            "rules": [attrs.asdict(rule) for rule in self.rules],
            "latency_ms": self.latency_ms,
            "jitter_ms": self.jitter_ms,
            "lag_ms": self.lag_ms,
            "slow_bps": self.slow_bps,
            "skew_ms": self.skew_ms,
            "shards_down": sorted(self.shards_down),
        }


def _is_meant(rule: Rule, method: str, path: str) -> bool:
    wanted_method, _, wanted_path = rule.match.rpartition(" ")
    return wanted_method in ("", "*", method) and fnmatchcase(path, wanted_path)


def _error(code: int) -> Response:
    name = "service_unavailable" if code == 503 else "internal_error"
    return Response.json(code, {"error": {"code": name, "message": name.replace("_", " ")}})


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
    elif rule.kind == "truncate":
        plan.truncate = True
    elif rule.kind == "cursor":
        plan.garble_cursor = True
    elif rule.kind == "late":
        plan.late_s = rule.ms / 1_000
        plan.answer_after = _error(rule.code) if rule.code else None
    elif is_before:
        plan.answer_before = _error(rule.code)
    else:
        plan.answer_after = _error(rule.code)

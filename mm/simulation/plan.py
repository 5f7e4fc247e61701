"""What a seed's world is made of, drawn before anything runs: size, settings, faults, crashes. Pure data.

Swarm testing: every seed enables a random subset of the kinds of faults, each at a random rate, so that some worlds
are calm in all ways but one. Times are seconds of virtual time.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

import attrs

ORDERS: Final = "POST /portfolio/events/orders"
CANCELS: Final = "DELETE /portfolio/events/orders/*"
PLACES: Final = "POST /portfolio/events/orders"
AMENDS: Final = "POST /portfolio/events/orders/*/amend"
GROUPS: Final = "* /portfolio/order_groups/*"
FILLS: Final = "GET /portfolio/fills"
ORDER_READS: Final = "GET /portfolio/orders*"
ANYTHING: Final = "*"
_TARGETS: Final = (ORDERS, CANCELS, AMENDS, GROUPS, FILLS, ORDER_READS, ANYTHING, "* /ws/v2")

Fields = Mapping[str, object]


@attrs.frozen(kw_only=True)
class Fault:
    """One piece of trouble: `kind` says what the world does at `at`, and undoes after `lasts`."""

    at: float
    kind: str
    lasts: float = 0.0
    fields: Fields = attrs.field(factory=dict)

    def text(self) -> str:
        """For people."""
        more = " ".join(f"{name}={value}" for name, value in self.fields.items())
        span = f" for {self.lasts:.2f} s" if self.lasts else ""
        return f"{self.at:7.2f} {self.kind}{span} {more}".rstrip()


@attrs.frozen(kw_only=True)
class Crash:
    """The bot dies at `at` (`commits` set: right after so many more commits of its ledger) and is back after `gap`."""

    at: float
    gap: float
    commits: int | None = None
    is_reset: bool = False
    takes_guardian: bool = False
    """Its guardian dies in the same moment: the machine is lost, and only the orders' expiry is left."""

    def text(self) -> str:
        """For people."""
        who = "bot and guardian crash" if self.takes_guardian else "crash"
        return f"{who} at {self.at:.2f}, back after {self.gap:g} s"


@attrs.frozen(kw_only=True)
class Plan:
    """One world."""

    seed: int
    is_full: bool
    games: int
    speed: float
    most_events: float
    tier: str
    trouble_s: float
    """Faults and crashes fall into this much time; then comes the calm in which everything must heal."""
    started_at: int
    """Wall clock at the start, seconds."""
    latency_s: float
    jitter_s: float
    hunter_s: float
    """Seconds between two attacks on our quotes, on average."""
    settings: Mapping[str, str]
    faults: tuple[Fault, ...]
    crashes: tuple[Crash, ...]
    kinds: tuple[str, ...]
    """Kinds enabled."""
    has_guardian: bool = False
    shards: int = 1


Draw = Callable[[Random], tuple[float, Fields]]
"""(how long, fields)."""


def _rule(
    kind: str, *, most_s: float = 6.0, codes: tuple[int, ...] = (), targets: tuple[str, ...] = _TARGETS
) -> Draw:
    def draw(rng: Random) -> tuple[float, Fields]:
        fields: dict[str, object] = {
            "match": rng.choice(targets),
            "p": round(rng.choice((0.1, 0.3, 0.6, 1.0)), 2),
            "when": rng.choice(("before", "after")),
        }
        if kind in ("delay", "hang"):
            fields["ms"] = rng.choice((30, 200, 900, 2_500, 5_000))
        if kind == "late":
            fields["ms"] = rng.choice((200, 900, 2_500))
        if kind in ("late", "truncate"):
            del fields["when"]
        if kind == "drop":
            fields["reset"] = rng.choice(("0", "1"))
        if codes:
            fields["code"] = rng.choice(codes)
        return rng.uniform(0.5, most_s), fields

    return draw


def _frames(kind: str) -> Draw:
    def draw(rng: Random) -> tuple[float, Fields]:
        fields: dict[str, object] = {
            "channel": rng.choice(("orderbook_delta", "fill", "user_orders", "*")),
            "p": rng.choice((0.02, 0.1, 0.3)),
        }
        if kind == "shuffle":
            fields["ms"] = rng.choice((20, 100))
        return rng.uniform(1.0, 8.0), fields

    return draw


def _span(least: float, most: float, **choices: tuple[object, ...]) -> Draw:
    def draw(rng: Random) -> tuple[float, Fields]:
        return rng.uniform(least, most), {name: rng.choice(values) for name, values in choices.items()}

    return draw


KINDS: Final[Mapping[str, Draw]] = {
    "drop": _rule("drop"),
    "delay": _rule("delay"),
    "hang": _rule("hang", most_s=3.0),
    "error": _rule("error", codes=(500, 502, 503, 504)),
    "throttle": _rule("throttle", most_s=3.0),
    "not_found": _rule("error", codes=(404,), targets=(CANCELS, CANCELS, AMENDS)),
    "lag": _span(2.0, 15.0, ms=(100, 400, 1_500, 3_000)),
    "latency": _span(2.0, 10.0, ms=(20, 80, 300), jitter=(5, 100)),
    "socket_cut": _span(0.0, 0.0, how=("close", "drop", "reset")),
    "socket_stall": _span(0.5, 8.0),
    "skip_seq": _span(
        0.0, 0.0, channel=("orderbook_delta", "orderbook_delta", "order_group_updates"), by=(1, 3)
    ),
    "drop_frames": _span(
        0.0,
        0.0,
        channel=("fill", "user_orders", "market_lifecycle_v2", "trade", "orderbook_delta", "orderbook_delta"),
        count=(1, 2, 5),
    ),
    "channel_error": _span(0.0, 0.0, channel=("orderbook_delta", "fill", "user_orders"), code=(10, 25)),
    "outage": _span(0.2, 7.0, reset=(True, False)),
    "pause_trading": _span(1.0, 9.0),
    "pause_exchange": _span(1.0, 9.0),
    "pause_market": _span(1.0, 9.0),
    "silent_up": _span(0.3, 7.0),
    "silent_down": _span(0.3, 7.0),
    "silent_both": _span(0.3, 7.0),
    "refuse": _span(0.5, 7.0),
    "no_dns": _span(0.5, 7.0),
    "clock_step": _span(3.0, 20.0, by=(-12.0, -4.0, -0.2, 0.2, 4.0, 12.0)),
    "slow_disk": _span(1.0, 8.0),
    "full_disk": _span(1.0, 4.0),
    "guardian_crash": _span(0.0, 0.0),
    "freeze": _span(0.2, 9.0),
    "operator_stop": _span(0.0, 0.0),
    "late": _rule("late", most_s=4.0),
    "truncate": _rule("truncate"),
    "half_open": _span(0.0, 0.0),
    "lose": _frames("lose"),
    "duplicate": _frames("duplicate"),
    "shuffle": _frames("shuffle"),
    "shard_down": _span(0.5, 7.0),
    "gone": _span(1.0, 8.0, match=(CANCELS,), code=(404,), when=("before",), p=(0.5, 1.0)),
    "lost_create": _span(1.0, 6.0, match=(PLACES,), when=("after",), reset=("0", "1"), p=(0.3, 0.7)),
}
"""Everything that can go wrong, crashes apart."""

_LATER: Final = frozenset(
    {
        "guardian_crash", "freeze", "operator_stop", "late", "truncate", "half_open", "lose", "duplicate", "shuffle",
        "shard_down", "gone", "lost_create",
    }
)  # fmt: skip
LATEST_ERA: Final = 2

KEPT: Final = (
    (False, 1, 64),
    (False, 1, 91),
    (False, 1, 302),
    (False, 1, 353),
    (False, 1, 3257),
    (False, 1, 3872),
    (False, 1, 4985),
    (False, 1, 5901),
    (False, 1, 9827),
    (True, 1, 201),
    (False, 2, 146),
)
"""Seeds that found something (full, era, seed): played ever after. docs/simulation.md tells what it was."""

ONCE: Final = frozenset({"full_disk", "operator_stop"})
_RARE: Final = frozenset({"full_disk", "pause_exchange", "operator_stop"})
GUARDED_S: Final = 3.5
"""A guardian has so long, and a little more, before its work is judged."""
SPARES_GUARDIANS: Final = frozenset(
    {
        "lag", "socket_cut", "socket_stall", "skip_seq", "drop_frames", "channel_error", "slow_disk", "full_disk",
        "guardian_crash", "freeze", "operator_stop", "half_open", "lose", "duplicate", "shuffle",
    }
)  # fmt: skip
"""Kinds that leave a guardian's (or the bot's) way to the exchange's REST interface alone."""


def draw_plan(seed: int, *, is_full: bool = False, era: int = LATEST_ERA) -> Plan:
    """The world of a seed. The same for ever, as long as nothing here is changed.

    Args:
        era: 1 leaves out what came later (guardians, and the kinds in `_LATER`), so that seeds which found something
            before stay the worlds that they were.
    """
    rng = _chance(seed, is_full, "plan")
    trouble_s = rng.uniform(60.0, 90.0) if is_full else rng.uniform(22.0, 36.0)
    games = rng.choice((3, 4, 5)) if is_full else rng.choice((1, 2, 2, 3))
    # A stream of its own for every kind: a new kind leaves the others' faults as they were.
    chances = {kind: _chance(seed, is_full, kind) for kind in KINDS}
    known = [kind for kind in KINDS if era > 1 or kind not in _LATER]
    kinds = tuple(kind for kind in known if chances[kind].random() < (0.1 if kind in _RARE else 0.35))
    plan = Plan(
        seed=seed,
        is_full=is_full,
        games=games,
        speed=rng.choice((20.0, 60.0, 150.0)),
        most_events=rng.choice((8.0, 14.0)) if is_full else rng.choice((5.0, 9.0)),
        tier=rng.choice(("basic", "basic", "advanced", "premier")),
        trouble_s=trouble_s,
        started_at=1_768_500_000 + rng.randrange(86_400),
        latency_s=rng.choice((0.0005, 0.004, 0.03)),
        jitter_s=rng.choice((0.0, 0.002, 0.02)),
        hunter_s=rng.choice((0.7, 1.5, 4.0)),
        settings=_settings(rng),
        faults=_faults({kind: chances[kind] for kind in kinds}, trouble_s),
        crashes=_crashes(rng, trouble_s, is_full),
        kinds=kinds,
    )
    if era == 1:
        return plan
    chance = _chance(seed, is_full, "guardians")
    loss = _chance(seed, is_full, "risk").choice(("", "", "4", "12"))
    settings = {**plan.settings, "MAX_EVENT_LOSS": loss}
    shards = chance.choice((1, 1, 2))
    crashes = _with_guardians(plan.crashes, chance, plan.settings)
    tests = [crash.at for crash in crashes if crash.gap > GUARDED_S and not crash.takes_guardian]
    tests += [fault.at for fault in plan.faults if fault.kind == "freeze" and fault.lasts > GUARDED_S]
    return attrs.evolve(
        plan,
        settings=settings,
        has_guardian=True,
        shards=shards,
        crashes=crashes,
        faults=_without(plan.faults, tests),
    )


def _without(faults: tuple[Fault, ...], moments: Sequence[float]) -> tuple[Fault, ...]:
    """Without those that would keep a guardian from its work: what it does in time is judged only on a good network."""
    return tuple(
        fault
        for fault in faults
        if fault.kind in SPARES_GUARDIANS
        or not any(fault.at < at + GUARDED_S and at - 1.0 < fault.at + fault.lasts for at in moments)
    )


def _with_guardians(
    crashes: tuple[Crash, ...], rng: Random, settings: Mapping[str, str]
) -> tuple[Crash, ...]:
    """Some crashes take the guardian along, and some of those last until the expiry has taken the quotes."""
    found = []
    for crash in crashes:
        takes, is_long = rng.random() < 0.35, rng.random() < 0.5
        ttl = int(settings["QUOTE_TTL_SEC"])
        gap = ttl + 2.5 if takes and is_long and ttl <= 15 else rng.choice((0.05, 0.5, 2.0, 4.5, 4.5, 6.0))
        found.append(attrs.evolve(crash, takes_guardian=takes, gap=gap))
    return tuple(found)


def _chance(seed: int, is_full: bool, purpose: str) -> Random:
    return Random(f"{seed}/{is_full}/{purpose}")  # noqa: S311 - repeatable on purpose


def _settings(rng: Random) -> dict[str, str]:
    size = rng.choice((5, 10, 10, 25))
    return {
        "SIZE_PER_FILL": str(size),
        "MAX_INVENTORY_PER_MARKET": str(rng.choice((size, 2 * size, 50))),
        "MAX_GLOBAL_INVENTORY": str(rng.choice((3 * size, 100, 800))),
        "MARKETS_PER_GAME": rng.choice(("1", "2", "2")),
        "QUOTE_TTL_SEC": rng.choice(("10", "15", "60")),
        "DURATION_WEIGHTED_LIMIT": rng.choice(("2", "20", "500")),
        "MAE_FAILSAFE_CENTS": rng.choice(("2", "8")),
        "MAE_ACTIVATION_WINDOW_SEC": rng.choice(("1", "8")),
        "QUOTE_COOLDOWN_MS": rng.choice(("0", "300", "300", "1000")),
    }


def _faults(chances: Mapping[str, Random], trouble_s: float) -> tuple[Fault, ...]:
    found: list[Fault] = []
    for kind, rng in chances.items():
        every = trouble_s if kind in ONCE else rng.choice((5.0, 12.0, 30.0))
        at = rng.uniform(0.0, every)
        while at < trouble_s:
            lasts, fields = KINDS[kind](rng)
            # Nothing outlasts the trouble.
            found.append(Fault(at=at, kind=kind, lasts=min(lasts, max(trouble_s - at, 0.0)), fields=fields))
            if kind in ONCE:
                break
            at += rng.expovariate(1 / every)
    return tuple(sorted(found, key=lambda fault: fault.at))


def _crashes(rng: Random, trouble_s: float, is_full: bool) -> tuple[Crash, ...]:
    count = rng.choice((2, 3, 4)) if is_full else rng.choice((1, 1, 1, 2))
    moments = sorted(rng.uniform(1.5, trouble_s - 2.0) for _ in range(count))
    return tuple(
        Crash(
            at=at,
            gap=rng.choice((0.05, 0.5, 2.0, 6.0)),
            commits=rng.choice((None, None, 1, 2)),
            is_reset=rng.random() < 0.5,
        )
        for at in moments
    )

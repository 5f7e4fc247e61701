"""The token budget of a user: read and write buckets, per-shard write buckets, what calls cost."""

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from mm.domain.numbers import SECOND, Micros


@attrs.frozen
class Tier:
    """Tokens a second and capacities of one usage tier."""

    read_rate: int
    write_rate: int
    read_capacity: int
    write_capacity: int


TIERS: Final = {
    "basic": Tier(200, 100, 400, 100),
    "advanced": Tier(300, 300, 600, 600),
    "expert": Tier(600, 600, 600, 1_200),
    "premier": Tier(1_000, 1_000, 1_000, 2_000),
    "paragon": Tier(2_000, 2_000, 2_000, 4_000),
    "prime": Tier(4_000, 4_000, 4_000, 8_000),
    "prestige": Tier(10_000, 8_000, 10_000, 16_000),
}

_GRANT: Final = 30 * 86_400 * SECOND
DEFAULT_COST: Final = 10
CANCEL_COST: Final = 2
PREFIX: Final = "/trade-api/v2"
ENDPOINT_COSTS: Final[dict[tuple[str, str], int]] = {
    ("DELETE", "/portfolio/events/orders/:order_id"): CANCEL_COST,
    ("DELETE", "/portfolio/events/orders/batched"): CANCEL_COST,
    ("GET", "/portfolio/orders/:order_id"): 2,
    ("POST", "/account/api_usage_level/upgrade"): 30,
}
"""(method, path as the exchange writes it) -> tokens, where not the default. Batches: per item."""


@attrs.define(eq=False)
class Bucket:
    """A token bucket with continuous refill, exact in millionths of a token."""

    rate: int
    capacity: int
    now: Micros
    level: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.level = self.capacity * SECOND

    def refill(self, now: Micros) -> None:
        """Bring the level up to `now`. A clock that went back refills nothing."""
        if now > self.now:
            self.level = min(self.capacity * SECOND, self.level + (now - self.now) * self.rate)
        self.now = now

    def holds(self, tokens: int) -> bool:
        """Whether `tokens` can be taken."""
        return self.level >= tokens * SECOND

    def take(self, tokens: int) -> None:
        """Take what `holds` allowed."""
        self.level -= tokens * SECOND


UNSCOPED: Final = 0
"""Shard 0, batches and everything without a shard are paid from this write bucket."""


@attrs.define(eq=False)
class Budget:
    """All buckets of one user. A call is paid in full or not at all."""

    tier_name: str
    clock: Callable[[], Micros]
    refused: int = 0
    """Requests answered with 429."""
    granted: str | None = None
    """A tier granted for ever."""
    _read: Bucket = attrs.field(init=False)
    _writes: dict[int, Bucket] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        tier, now = self.tier, self.clock()
        self._read = Bucket(tier.read_rate, tier.read_capacity, now)
        self._writes = {}

    @property
    def level(self) -> str:
        """The tier in force: the better of the one of the start and the one granted."""
        names = [self.tier_name] if self.granted is None else [self.tier_name, self.granted]
        return max(names, key=lambda name: TIERS[name].write_rate)

    @property
    def tier(self) -> Tier:
        """Rates and capacities."""
        return TIERS[self.level]

    def grant(self, level: str) -> None:
        """A tier for ever; the buckets keep what they hold."""
        self.granted = level
        tier = self.tier
        self._read.rate, self._read.capacity = tier.read_rate, tier.read_capacity
        for bucket in self._writes.values():
            bucket.rate, bucket.capacity = tier.write_rate, tier.write_capacity

    @property
    def cancel_all_cost(self) -> int:
        """What the largest possible batch cancel of this tier would cost."""
        return self.tier.write_capacity // CANCEL_COST * CANCEL_COST

    def spend_read(self, tokens: int) -> bool:
        """Pay a read; false means 429."""
        return self._spend([self._read], tokens)

    def spend_write(self, tokens: int, shards: Iterable[int] = (UNSCOPED,)) -> bool:
        """Pay a write from the bucket of each of these shards; false means 429 and nothing was taken."""
        return self._spend([self._write(shard) for shard in shards], tokens)

    def _spend(self, buckets: list[Bucket], tokens: int) -> bool:
        now = self.clock()
        for bucket in buckets:
            bucket.refill(now)
        if not all(bucket.holds(tokens) for bucket in buckets):
            self.refused += 1
            return False
        for bucket in buckets:
            bucket.take(tokens)
        return True

    def _write(self, shard: int) -> Bucket:
        found = self._writes.get(shard)
        if found is None:
            tier = self.tier
            found = self._writes[shard] = Bucket(tier.write_rate, tier.write_capacity, self.clock())
        return found

    def as_limits(self) -> dict[str, object]:
        """The body of `GET /account/limits`."""
        tier = self.tier
        return {
            "usage_tier": self.level,
            "read": {"refill_rate": tier.read_rate, "bucket_capacity": tier.read_capacity},
            "write": {"refill_rate": tier.write_rate, "bucket_capacity": tier.write_capacity},
            "grants": self._grants(),
        }

    def _grants(self) -> list[dict[str, object]]:
        """The tier of the start counts as earned by volume and ends some day; the one granted does not."""
        found: list[dict[str, object]] = []
        if self.tier_name != "basic":
            expires = (self.clock() + _GRANT) // SECOND
            found.append(_grant(self.tier_name, "volume") | {"expires_ts": expires})
        if self.granted is not None:
            found.append(_grant(self.granted, "self_serve"))
        return found


def _grant(level: str, source: str) -> dict[str, object]:
    return {"exchange_instance": "event_contract", "level": level, "source": source}


def endpoint_costs() -> dict[str, object]:
    """The body of `GET /account/endpoint_costs`."""
    costs = [
        {"method": method, "path": PREFIX + path, "cost": cost}
        for (method, path), cost in ENDPOINT_COSTS.items()
    ]
    return {"default_cost": DEFAULT_COST, "endpoint_costs": costs}

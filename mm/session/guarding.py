"""The guardian of a session: a second process that pulls our orders should this one die or freeze."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import certifi

from mm.domain.numbers import SECOND, Micros
from mm.engine.expiry import LONGEST
from mm.exchange import endpoints
from mm.exchange.kalshi.signing import portable_key
from mm.exchange.port import RateLimits
from mm.guard.protocol import Budget
from mm.session.venue import Venue
from mm.settings import Secret, Settings
from mm.tasks.guardian import Guardian, GuardianConfig, open_guardian
from mm.tasks.guardian_process import Spawn
from mm.tasks.ids import OrderIds


def guardian_config(settings: Settings, venue: Venue, limits: RateLimits, ids: OrderIds) -> GuardianConfig:
    """Whom to guard, with what budget, and for how long at most."""
    webhook = settings["DISCORD_WEBHOOK_URL"]
    return GuardianConfig(
        rest_url=venue.access.rest_url,
        key_id=venue.access.key_id,
        key=Secret(portable_key(venue.access.pem.reveal(), setting=venue.access.pem_setting)),
        prefix=ids.session_prefix,
        log_path=settings.data_dir / "logs" / f"guardian-{ids.session}.log",
        budget=Budget(
            refill_per_s=limits.write.refill_per_s,
            capacity=limits.write.capacity,
            cancel_cost=limits.cost(*endpoints.CANCEL_BATCH),
        ),
        time_limit_s=max(60.0, (settings["QUOTE_TTL_SEC"] or LONGEST / SECOND) + 10.0),
        webhook_url=webhook or None,
        ca_file=_certificates(),
        keep_fds=(venue.child.hold_fd,) if venue.child is not None else (),
    )


def _certificates() -> str | None:
    """The file that the bot itself trusts, by httpx's rule: what the environment names (it is handed on), else certifi's."""
    is_named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    return None if is_named else certifi.where()


@asynccontextmanager
async def guarded(
    config: GuardianConfig,
    spawn: Spawn,
    clock: Callable[[], Micros],
    *,
    on_lost: Callable[[str], None],
    on_back: Callable[[], None],
    on_frozen: Callable[[float], None],
    is_clean: Callable[[], bool],
) -> AsyncGenerator[Guardian, None]:
    """A guardian for the time of the block; dismissed at its end only when `is_clean` says that nothing rests."""
    async with open_guardian(
        config, clock=clock, spawn=spawn, on_lost=on_lost, on_back=on_back, on_frozen=on_frozen
    ) as guardian:
        try:
            yield guardian
        finally:
            if is_clean():
                await guardian.goodbye()

"""A program that has a guardian and does nothing else: what the tests kill, freeze and stop.

The first line of stdin is its configuration; later lines are commands. What happens is told on stdout, a JSON a line.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog
import trio

from mm.domain.numbers import Micros
from mm.domain.order import GroupId
from mm.exchange.kalshi.signing import portable_key
from mm.guard.protocol import Budget
from mm.settings import Secret
from mm.tasks.guardian import GuardianConfig, open_guardian


def tell(what: str, **content: Any) -> None:
    os.write(1, json.dumps({"is": what, **content}).encode() + b"\n")


async def main(setup: dict[str, Any], pem: str, commands: trio.lowlevel.FdStream) -> None:
    config = GuardianConfig(
        rest_url=setup["rest_url"],
        key_id=setup["key_id"],
        key=Secret(portable_key(pem)),
        prefix=setup["prefix"],
        log_path=Path(setup["log_path"]),
        budget=Budget(refill_per_s=100, capacity=100, cancel_cost=2),
        webhook_url=Secret(setup["webhook_url"]) if setup["webhook_url"] else None,
        keep_fds=tuple(setup["keep_fds"]),
        time_limit_s=setup["time_limit_s"],
        ca_file=setup["ca_file"],
    )
    async with open_guardian(
        config,
        clock=lambda: Micros(time.time_ns() // 1_000),
        on_lost=lambda reason: tell("lost", reason=reason),
        on_frozen=lambda gap_s: tell("frozen", gap_s=gap_s),
    ) as guardian:
        guardian.on_back = lambda: tell("back", pid=guardian.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guardian.run)
            for group_id, exchange_index in setup["groups"]:
                await guardian.acknowledge(GroupId(group_id), exchange_index)
            tell("ready", pid=guardian.pid)
            async for command in commands:
                if command.startswith(b"goodbye"):
                    await guardian.goodbye()
                    tell("dismissed")
                    nursery.cancel_scope.cancel()
                elif command.startswith(b"crash"):
                    raise RuntimeError("a bug in the bot")
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    first = sys.stdin.buffer.raw.readline()  # type: ignore[union-attr]
    setup = json.loads(first)
    pem = Path(setup["pem_path"]).read_text()

    async def start() -> None:
        await main(setup, pem, trio.lowlevel.FdStream(os.dup(0)))

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(start)

"""`mm` with a bug planted: one task raises as soon as a file appears. Arguments: MODULE:CLASS.METHOD FILE, then mm's."""

import importlib
import sys
from pathlib import Path
from typing import Any

import trio

LOOK_S = 0.05


class PlantedError(RuntimeError):
    """A bug."""


def plant(target: str, flag: Path) -> None:
    """From now on the coroutine method does its work beside somebody who raises out of it when the file appears."""
    module, _, name = target.partition(":")
    owner_name, _, method = name.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    original = getattr(owner, method)

    async def bomb() -> None:
        while not flag.exists():  # noqa: ASYNC240 - a test's own
            await trio.sleep(LOOK_S)
        raise PlantedError(f"planted in {name}")

    async def planted(self: Any, *args: Any, **kwargs: Any) -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bomb)
            result = await original(self, *args, **kwargs)
            nursery.cancel_scope.cancel()
        return result

    setattr(owner, method, planted)


if __name__ == "__main__":
    plant(sys.argv[1], Path(sys.argv[2]))
    from mm.cli import run_cli

    sys.exit(run_cli(sys.argv[3:]))

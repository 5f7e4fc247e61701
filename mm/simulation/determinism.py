"""Everything global that must be pinned for a run to repeat, set and restored by one context manager."""

import gc
import os
import random
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

import structlog
import trio
import trio._core._run as trio_run

SCHEDULER_FLAG: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
"""A private switch of trio: batches of runnable tasks are sorted by age, then shuffled by `_r`."""

LogSink = Callable[[Any, str, MutableMapping[str, Any]], Any]
"""A structlog processor: what the bot logs is handed to it."""


@contextmanager
def pinned(seed: int, log_to: LogSink | None = None) -> Iterator[None]:
    """Pin scheduler, randomness and the garbage collector while the block runs.

    Args:
        seed: Seeds every source of chance that is not handed out explicitly.
        log_to: Gets what is logged; None drops it.

    Not to be used inside Hypothesis's `@given`, which manages trio's generator itself. Not reentrant.
    """
    assert hasattr(trio_run, SCHEDULER_FLAG), (
        f"this trio ({trio.__version__}) has no deterministic scheduling"
    )
    bytes_source = random.Random(f"{seed}/urandom")  # noqa: S311 - repeatable on purpose
    scheduler_state, random_state = trio_run._r.getstate(), random.getstate()
    logs = structlog.get_config()
    collects = gc.isenabled()
    with (
        mock.patch.object(trio_run, SCHEDULER_FLAG, True),
        mock.patch.object(os, "urandom", bytes_source.randbytes),
    ):
        trio_run._r.seed(f"{seed}/scheduler")
        random.seed(f"{seed}/random")
        # Finalizers of async generators would be scheduled by whenever the collector happens to run.
        gc.disable()
        structlog.configure(
            processors=[log_to or _drop], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
        )
        try:
            yield
        finally:
            structlog.configure(**logs)
            trio_run._r.setstate(scheduler_state)
            random.setstate(random_state)
            if collects:
                gc.enable()
            gc.collect()


def _drop(logger: Any, name: str, event: MutableMapping[str, Any]) -> Any:
    del logger, name, event
    raise structlog.DropEvent

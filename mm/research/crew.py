"""Who does a sweep's work: this process, workers on this machine, or a Dask cluster. The work is the same."""

import importlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from mm.domain.errors import ConfigError, MMError
from mm.research.plan import Chunk, Plan
from mm.research.trials import run_chunk

Keep = Callable[[Chunk, list[list[dict[str, Any]]]], None]
ALLOWED_FAILURES: Final = 20
"""Workers that may die under one piece of work before it is given up."""
AHEAD: Final = 4
"""Pieces of work that wait at each worker."""


def _arguments(plan: Plan, chunk: Chunk) -> tuple[Any, ...]:
    recording = plan.recordings[chunk.recording]
    trials = [dict(plan.trials[number]) for number in chunk.trials]
    return attrs.asdict(plan.settings), recording.source, recording.size, trials


def work_here(plan: Plan, chunks: Iterable[Chunk], keep: Keep) -> None:
    """In this process, one after the other."""
    for chunk in chunks:
        keep(chunk, run_chunk(*_arguments(plan, chunk)))


def work_together(
    plan: Plan, chunks: Iterable[Chunk], keep: Keep, *, jobs: int, scheduler: str | None
) -> None:
    """On a Dask cluster: the one at `scheduler`, else `jobs` processes started here and ended with it.

    A worker that dies costs its unfinished pieces, which others take over. Raises `ConfigError` when the cluster cannot
    be reached, and `MMError` when a piece of work fails.
    """
    try:
        dask, distributed = importlib.import_module("dask"), importlib.import_module("distributed")
    except ImportError as error:
        raise ConfigError(
            [f"mm sweep needs the research extra: pip install 'mm[research]' ({error})"]
        ) from error
    dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES})
    cluster: Any = scheduler
    if scheduler is None:
        cluster = distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    try:
        try:
            client = distributed.Client(cluster, timeout="20s")
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError([f"--scheduler {scheduler}: cannot be reached: {error}"]) from error
        with client:
            _hand_out(client, distributed.as_completed, plan, list(chunks), keep)
    finally:
        if scheduler is None:
            cluster.close()


def _hand_out(client: Any, as_completed: Any, plan: Plan, chunks: list[Chunk], keep: Keep) -> None:
    """A few pieces ahead for each worker, so that a cluster that grows gets work, and a result is kept at once."""
    left = iter(chunks)
    waiting: dict[Any, Chunk] = {}
    pool = as_completed()

    def more() -> None:
        chunk = next(left, None)
        if chunk is not None:
            future = client.submit(run_chunk, *_arguments(plan, chunk), pure=False)
            waiting[future] = chunk
            pool.add(future)

    for _ in range(max(len(client.ncores()), 1) * AHEAD):
        more()
    for future in pool:
        chunk = waiting.pop(future)
        if future.status == "error":
            raise MMError(
                f"{plan.recordings[chunk.recording].source}, trials from {chunk.trials[0]}: {future.exception()}"
            )
        if future.status != "finished":
            raise MMError(
                f"the cluster went away ({future.status}); the same command goes on where this one ended"
            )
        keep(chunk, future.result())
        more()

"""The tree of all words of `interleavings`: every one played, in as many processes as there are cores, or a sample.

python tests/support/every_interleaving.py [--depth 6] [--jobs 2] [--replay VARIANT:WORD]
"""

import argparse
import itertools
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio
import trio.testing

from interleavings import DEPTH, HEALED_WITHIN_S, LETTERS, UNKNOWN_BOUND_S, VARIANTS, Run, Variant, Wrong
from mm.ledger import Ledger
from task_rig import open_books

CHUNK: Final = 400
"""Words that share a ledger."""
MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the ledgers lie: their commits would be most of the time on a disk."""
_NUMBERS: "itertools.count[int]" = itertools.count(1)


@attrs.define
class Tally:
    """What many words came to."""

    words: int = 0
    letters: Counter[str] = attrs.field(factory=Counter)
    times_unknown: int = 0
    longest_unknown: tuple[float, str] = (0.0, "")
    longest_healing: tuple[float, str] = (0.0, "")
    wrong: dict[str, list[str]] = attrs.field(factory=dict)
    """By its first words: the words that found it."""

    def add(self, run: Run, problem: str) -> None:
        """One word."""
        name = f"{run.variant}:{run.word}"
        self.words += 1
        self.letters.update(run.word)
        self.times_unknown += run.times_unknown
        self.longest_unknown = max(self.longest_unknown, (run.longest_unknown, name))
        self.longest_healing = max(self.longest_healing, (run.healed_after, name))
        if problem:
            self.wrong.setdefault(problem.split(":")[0][:60], []).append(f"{name}  {problem[:300]}")

    def join(self, other: "Tally") -> None:
        """Another process's."""
        self.words += other.words
        self.letters += other.letters
        self.times_unknown += other.times_unknown
        self.longest_unknown = max(self.longest_unknown, other.longest_unknown)
        self.longest_healing = max(self.longest_healing, other.longest_healing)
        for problem, names in other.wrong.items():
            self.wrong.setdefault(problem, []).extend(names)


@asynccontextmanager
async def books(folder: Path) -> AsyncGenerator[Ledger, None]:
    """A ledger with its writer."""
    async with open_books(folder, session="s1") as ledger, trio.open_nursery() as nursery:
        await nursery.start(ledger.run_writer)
        yield ledger
        nursery.cancel_scope.cancel()


async def play_tree(variant: Variant, start: str, depth: int) -> Tally:
    """All words of a variant that begin with `start`, each once: what a word could have done otherwise comes later."""
    tally, begun = Tally(), [start]
    while begun:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            async with books(Path(folder)) as ledger:
                for _ in range(CHUNK):
                    if not begun:
                        break
                    run = Run(variant, begun.pop(), ledger, next(_NUMBERS), depth)
                    tally.add(run, await played(run))
                    for place in range(len(run.start), len(run.word)):
                        begun += [
                            run.word[:place] + other
                            for other in run.enabled[place]
                            if other != run.word[place]
                        ]
    return tally


async def play_numbers(numbers: Sequence[int], depth: int) -> Tally:
    """Words by number: its digits choose the variant and then, at each place, among the letters that can do something."""
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        async with books(Path(folder)) as ledger:
            for number in numbers:
                variant, rest = VARIANTS[number % len(VARIANTS)], number // len(VARIANTS)
                run = Run(variant, "", ledger, next(_NUMBERS), depth, choice_of(rest))
                tally.add(run, await played(run))
    return tally


def choice_of(number: int) -> Callable[[int, str], str]:
    """A word's choices from its number: one digit a place."""

    def choose(place: int, enabled: str) -> str:
        return enabled[number // len(LETTERS) ** place % len(LETTERS) % len(enabled)]

    return choose


def all_numbers(depth: int) -> int:
    """How many words there are by number (many are the same in effect)."""
    return len(VARIANTS) * len(LETTERS) ** depth


async def played(run: Run) -> str:
    """Play it; what was wrong, or nothing."""
    problem = ""
    try:
        await run.play()
    except* Exception as group:  # noqa: BLE001 - whatever the bot raises is what is looked for
        exc: BaseException = group
        while isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        problem = str(exc) if isinstance(exc, Wrong) else f"{type(exc).__name__}: {exc}"
    return problem


def _in_process(task: tuple[Variant, str, int]) -> Tally:
    quiet()
    return trio.run(play_tree, *task, clock=trio.testing.MockClock(autojump_threshold=0))


def quiet() -> None:
    """No log lines: thousands of lives would fill the screen."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def shown(tally: Tally, depth: int) -> Iterator[str]:
    """The result, in lines."""
    yield f"letters played: {', '.join(f'{letter} {tally.letters[letter]:,}' for letter in LETTERS)}"
    yield f"orders of unknown outcome: {tally.times_unknown:,}"
    yield f"longest in UNKNOWN: {tally.longest_unknown[0]:.2f} s ({tally.longest_unknown[1]}), allowed {UNKNOWN_BOUND_S:g} s"
    yield f"longest until all is well: {tally.longest_healing[0]:.2f} s ({tally.longest_healing[1]}), allowed {HEALED_WITHIN_S:g} s"
    for problem, names in tally.wrong.items():
        yield f"WRONG {len(names):,} times: {problem}"
        yield from (f"    {name}" for name in sorted(names)[:5])
    yield f"{tally.words:,} interleavings to depth {depth}: {sum(map(len, tally.wrong.values())):,} wrong"


def main(arguments: Sequence[str]) -> int:
    """Play them all, or one of them."""
    parser = argparse.ArgumentParser(description="Every interleaving of one order's life.")
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", metavar="VARIANT:WORD", help="only this one, with its log")
    options = parser.parse_args(arguments)
    if options.replay:
        name, _, word = options.replay.partition(":")
        (variant,) = [v for v in VARIANTS if str(v) == name]
        tally = trio.run(play_one, variant, word, clock=trio.testing.MockClock(autojump_threshold=0))
        print("\n".join(shown(tally, len(word))))
        return 1 if tally.wrong else 0
    tasks = [(variant, letter, options.depth) for letter in "AERLG" for variant in VARIANTS]
    tally, began = Tally(), time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        for part in pool.map(_in_process, tasks):
            tally.join(part)
            if sys.stderr.isatty():
                print(f"\r{tally.words:,} words, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print("\n".join(shown(tally, options.depth)))
    print(f"{time.monotonic() - began:.1f} s on {options.jobs} processes")
    return 1 if tally.wrong else 0


async def play_one(variant: Variant, word: str) -> Tally:
    """A single word."""
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        async with books(Path(folder)) as ledger:
            run = Run(variant, word, ledger, next(_NUMBERS), len(word))
            tally.add(run, await played(run))
    return tally


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where a sweep keeps what it has done: a folder, or a place on an object store, through fsspec.

Each piece of work is a file of its own, there whole or not at all. So a sweep that was killed at any moment goes on
with what is missing, and nobody needs to append.
"""

import importlib
from typing import Any, Final

import attrs
import orjson

from mm.domain.errors import ConfigError, MMError
from mm.research.plan import Chunk, Plan

PLAN: Final = "plan.json"
DONE: Final = "done"


@attrs.define(eq=False)
class Store:
    """One sweep's files."""

    place: str
    _system: Any = attrs.field(init=False)
    _root: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        try:
            core = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise ConfigError(
                [f"mm sweep needs the research extra: pip install 'mm[research]' ({error})"]
            ) from error
        self._system, root = core.url_to_fs(self.place)
        self._root = root.rstrip("/")

    def begin(self, plan: Plan) -> None:
        """Make the place this plan's. Raises `ConfigError` when another sweep lies there."""
        self._system.makedirs(f"{self._root}/{DONE}", exist_ok=True)
        text = plan.text()
        if not self._system.exists(f"{self._root}/{PLAN}"):
            self.write(PLAN, text)
        elif self.read(PLAN) != text:
            raise ConfigError(
                [
                    f"--out {self.place}: holds another sweep ({PLAN} differs from what was asked for); give another place"
                ]
            )

    def done(self) -> set[str]:
        """Names of the chunks that are done."""
        paths = self._system.ls(f"{self._root}/{DONE}", detail=False)
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def keep(self, chunk: Chunk, result: list[list[dict[str, Any]]]) -> None:
        """A chunk is done."""
        self.write(f"{DONE}/{chunk.name}.json", orjson.dumps(result))

    def result(self, chunk: Chunk) -> list[list[dict[str, Any]]]:
        """What a chunk came to. Raises `MMError` when it cannot be understood."""
        name = f"{DONE}/{chunk.name}.json"
        try:
            found: list[list[dict[str, Any]]] = orjson.loads(self.read(name))
        except orjson.JSONDecodeError as error:
            raise MMError(f"{self.place}/{name}: {error}; delete it, and it is done again") from error
        if len(found) != len(chunk.trials):
            raise MMError(
                f"{self.place}/{name}: {len(found)} trials, expected {len(chunk.trials)}; delete it"
            )
        return found

    def write(self, name: str, data: bytes) -> None:
        """The whole file or nothing."""
        with self._system.transaction, self._system.open(f"{self._root}/{name}", "wb") as file:
            file.write(data)

    def read(self, name: str) -> bytes:
        """A file of the sweep."""
        with self._system.open(f"{self._root}/{name}", "rb") as file:
            data: bytes = file.read()
        return data


def size_of(source: str) -> int:
    """The size of a recording, in bytes; of a folder, of all its files. Raises `OSError`."""
    core = importlib.import_module("fsspec.core")
    system, path = core.url_to_fs(source)
    if system.isdir(path):
        return sum(info["size"] for info in system.find(path, detail=True).values())
    return int(system.size(path))

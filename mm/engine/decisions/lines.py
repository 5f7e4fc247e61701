"""Entries of the journal as plain data for JSON lines: `Encoder` writes them short, the player reads them.

A decision that is the same as the market's last is written as null: most are. Whoever begins a new file begins with a new
encoder, so that each file can be read by itself.
"""

from typing import Any

import attrs

from mm.engine.decisions.codec import pack
from mm.engine.decisions.journal import Entry, Packed


@attrs.define(eq=False)
class Encoder:
    """Plain data for entries, in order. One for each file."""

    _last: dict[int, tuple[Any, ...]] = attrs.field(factory=dict)
    """By market: the outcome of its last decision."""
    _asked: dict[int, list[Any]] = attrs.field(factory=dict)

    def __call__(self, entry: Entry) -> list[Any]:
        """The entry, ready for JSON."""
        kind, number = entry[0], entry[1]
        if kind == "decide":
            return [
                "decide",
                number,
                entry[2],
                self._questions(number, entry[3]),
                self._outcome(number, entry[4]),
            ]
        if kind == "book":
            return ["book", number, [_change(change) for change in entry[2]]]
        if kind == "orders":
            return ["orders", number, [list(map(pack, values)) for values in entry[2]]]
        if kind == "checkpoint":
            self._last.pop(number, None)
            self._asked.pop(number, None)
        if kind == "frames":
            return [
                "frames",
                0,
                entry[2],
                entry[3],
                [m if isinstance(m, str) else m.decode() for m in entry[4]],
            ]
        if kind in ("checkpoint", "inventory", "gap", "set", "context", "call"):
            return list(entry)  # plain already
        if kind == "raised":
            return ["raised", number, entry[2], self._questions(number, entry[3]), *entry[4:]]
        if kind == "holds":
            return ["holds", number, [list(hold) for hold in entry[2]], [list(hold) for hold in entry[3]]]
        if kind == "trade":
            return ["trade", number, pack(entry[2])]
        return [kind, number, self._questions(number, entry[2]), *map(pack, entry[3:])]

    def _outcome(self, number: int, outcome: tuple[Any, ...]) -> Any:
        if self._last.get(number) == outcome:
            return None
        self._last[number] = outcome
        return plain_outcome(outcome)

    def _questions(self, number: int, asked: list[Any]) -> Any:
        """What was asked and answered; null: the same as the last time."""
        if self._asked.get(number) == asked:
            return None
        self._asked[number] = asked
        return [[name, *map(_packed, values)] for name, *values in asked]


def plain_outcome(outcome: tuple[Any, ...]) -> dict[str, Any]:
    """A decision and what it was made from, by name."""
    decision, mark, wanted, flattening = outcome
    return {
        "mark": mark,
        "wanted": pack(wanted),
        "flattening": pack(flattening),
        "decision": pack(decision),
    }


def _packed(value: Any) -> Any:
    return value.data if isinstance(value, Packed) else pack(value)


def _change(change: tuple[Any, ...]) -> list[Any]:
    if change[0] == "snapshot" or change[0] == "lost":
        return list(change)
    return [change[0].value, change[1], change[2]]

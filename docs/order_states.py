"""The order state table of `mm.domain.order` as text, for docs/architecture.md.

    python docs/order_states.py            rewrites the part of the page between the two markers
    python docs/order_states.py --check    says whether that would change anything

A test runs the check, so the page cannot drift from the table that the bot runs on.
"""

import sys
from pathlib import Path

from mm.domain.order import TRANSITIONS, OrderEvent, OrderState

PAGE = Path(__file__).with_name("architecture.md")
BEGIN = "<!-- order states: written by docs/order_states.py -->"
END = "<!-- end of order states -->"


def diagram() -> str:
    """The moves between different states as a Mermaid state diagram."""
    moves: dict[tuple[OrderState, OrderState], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        if after is not state:
            moves.setdefault((state, after), []).append(event.value)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> intended"]
    lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in moves.items()]
    lines += ["    done --> [*]", "```"]
    return "\n".join(lines)


def matrix() -> str:
    """Every state and event; an empty cell cannot happen, and is a bug that stops trading when it does."""
    rows = [["state", *(event.value for event in OrderEvent)]]
    rows += [[state.value, *(_after(state, event) for event in OrderEvent)] for state in OrderState]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _after(state: OrderState, event: OrderEvent) -> str:
    after = TRANSITIONS.get((state, event))
    if after is None:
        return ""
    return "stays" if after is state else after.value


def rewritten(page: str) -> str:
    """The page with the part between the markers written anew. Raises `ValueError` when a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks {BEGIN!r} or {END!r}")
    return f"{before}{BEGIN}\n\n{diagram()}\n\n{matrix()}\n\n{END}{after}"


if __name__ == "__main__":
    text = PAGE.read_text()
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if rewritten(text) == text else f"{PAGE.name} is not what the table says")
    PAGE.write_text(rewritten(text))

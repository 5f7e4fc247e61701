"""Where the time of a quote goes: a flame graph of our bot while goals move 32 of its markets, as docs/images/hot-path.svg.

    python bench/flame.py [--out FILE] [--bursts 60] [--text]

A sampler in the bot looks at its loop by the CPU time it uses; the bot's start is left out.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

from run import GROUP, Rig

WIDTH, ROW = 1_200, 17
LEAVE_OUT = ("_bootstrap", "threading", "<module>")


def collect(bursts: int) -> list[tuple[list[str], int]]:
    """Stacks and how often each was seen."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "stacks.json")
        running = Rig(Path(folder)).start("ours", markets=256, quoted=256, profile=out)
        try:
            groups = [running.names[i : i + GROUP] for i in range(0, len(running.names), GROUP)]
            for number in range(bursts):
                if number % 8 == 0:
                    running.venue.settle(31.0 if number else 0.1)  # the churn brake counts replaces over 30 s
                running.wake(groups[number % len(groups)])
                running.burst(groups[number % len(groups)])
            Path(out + ".write").touch()
            while not Path(out).exists():
                running.wake(groups[0])  # the sampler looks only while the bot works
            time.sleep(0.2)
            return [(stack, count) for stack, count in json.loads(Path(out).read_text())]
        finally:
            running.stop()


def is_work(stack: list[str]) -> bool:
    """The loop is doing something, and the bot's start is over."""
    return not stack[-1].startswith(("_io_epoll.get_events", "_wakeup")) and "importlib" not in " ".join(
        stack
    )


def trimmed(stack: list[str]) -> list[str]:
    """Without what stands below every stack: the loop itself."""
    for place, name in enumerate(stack):
        if name == "_run.unrolled_run":
            return stack[place:]
    return stack


class Node:
    """One frame of the graph."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.children: dict[str, Node] = {}

    def add(self, stack: list[str], count: int) -> None:
        """Count a stack below this frame."""
        self.count += count
        if stack:
            child = self.children.setdefault(stack[0], Node(stack[0]))
            child.add(stack[1:], count)

    def depth(self) -> int:
        """Rows from here."""
        return 1 + max((child.depth() for child in self.children.values()), default=0)


def draw(root: Node) -> str:
    """The graph as SVG, widest first, readable without a script."""
    height = (root.depth() + 2) * ROW + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="6" y="15">From a price change to the order: {root.count:,} samples of the loop at work. Width is time; '
        "callers above what they call.</text>",
    ]

    def place(node: Node, left: float, row: int) -> None:
        width = WIDTH * node.count / root.count
        if width < 1.5:
            return
        hue = 15 + sum(map(ord, node.name)) % 40
        top = 24 + row * ROW
        share = 100 * node.count / root.count
        parts.append(
            f'<g><title>{escape(node.name)} {share:.1f} %</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
            f'height="{ROW - 1}" fill="hsl({hue},75%,68%)"/>'
        )
        letters = int(width / 6.7)
        if letters > 3:
            parts.append(
                f'<text x="{left + 2:.1f}" y="{top + 12}">{escape(f"{node.name} {share:.0f}%"[:letters])}</text>'
            )
        parts.append("</g>")
        for child in sorted(node.children.values(), key=lambda c: -c.count):
            place(child, left, row + 1)
            left += WIDTH * child.count / root.count

    place(root, 0.0, 0)
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Collect and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=str(Path(__file__).parents[1] / "docs" / "images" / "hot-path.svg"))
    parser.add_argument("--bursts", type=int, default=24)
    parser.add_argument("--text", action="store_true")
    options = parser.parse_args()
    root = Node("loop")
    own: dict[str, int] = {}
    under: dict[str, int] = {}
    for stack, count in collect(options.bursts):
        if is_work(stack):
            short = trimmed(stack)
            root.add(short, count)
            own[short[-1]] = own.get(short[-1], 0) + count
            for name in set(short):
                under[name] = under.get(name, 0) + count
    Path(options.out).write_text(draw(root))
    print(f"{root.count} samples of work, drawn into {options.out}")
    for title, table in (("in itself", own), ("with what it calls", under)):
        print(f"{title}:")
        for name, count in sorted(table.items(), key=lambda item: -item[1])[: 30 if options.text else 12]:
            print(f"  {100 * count / root.count:5.1f} %  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What `mm doctor` found, as lines and as JSON. Pure."""

import enum
from collections.abc import Sequence

import attrs


class Level(enum.Enum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    name: str
    says: str
    fix: str = ""
    """What to do, where something is to be done."""


def ok(name: str, says: str) -> Finding:
    """It is in order."""
    return Finding(level=Level.OK, name=name, says=says)


def warn(name: str, says: str, fix: str) -> Finding:
    """It can be traded with, and should be looked at."""
    return Finding(level=Level.WARN, name=name, says=says, fix=fix)


def fail(name: str, says: str, fix: str) -> Finding:
    """It cannot be traded with."""
    return Finding(level=Level.FAIL, name=name, says=says, fix=fix)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when anything failed, else 0."""
    return int(any(finding.level is Level.FAIL for finding in findings))


def finding_text(finding: Finding, *, is_terminal: bool = False) -> str:
    """One line, and under it what to do."""
    colour = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "1;31"}[finding.level]
    level = f"{finding.level.value:<4}"
    if is_terminal:
        level = f"\x1b[{colour}m{level}\x1b[0m"
    # What an exchange or a mail server says may hold anything: nothing of it steers the terminal.
    says, fix = ("".join(c if c.isprintable() else " " for c in text) for text in (finding.says, finding.fix))
    line = f"{level}  {finding.name:<14} {says}"
    return f"{line}\n{'':<21}-> {fix}" if fix else line


def closing_text(findings: Sequence[Finding]) -> str:
    """The last line: how many of each."""
    counts = {level: sum(1 for finding in findings if finding.level is level) for level in Level}
    return ", ".join(f"{count} {level.value}" for level, count in counts.items())


def document(findings: Sequence[Finding]) -> dict[str, object]:
    """For programs."""
    return {
        "exit_code": exit_code(findings),
        "findings": [
            {"level": f.level.value, "name": f.name, "says": f.says, "fix": f.fix} for f in findings
        ],
    }

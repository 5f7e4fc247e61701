"""The documentation says what the code says: settings, order states, links, files, commands, targets, examples."""

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from mm.cli import app
from mm.engine.parameters import PARAMETERS_BY_NAME
from mm.session.notices import Notices
from mm.settings import SETTINGS, load_settings
from mm.settings.document import settings_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    """How a page is called in the tests' names."""
    return str(page.relative_to(ROOT))


EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)


def code_of(page: Path) -> Iterator[str]:
    """Every piece of code on a page: the spans of its text, and the lines of its blocks; not what programs print."""
    text = page.read_text()
    for kind, block in FENCE.findall(text):
        if kind != "text":
            yield from block.splitlines()
    for line in FENCE.sub("", text).splitlines():
        if line.startswith("    "):
            yield line
        else:
            yield from SPAN.findall(line)


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_settings_is_what_the_tables_say() -> None:
    """Whoever changes a setting writes the page anew: `python -m mm.settings.document > docs/settings.md`."""
    assert (ROOT / "docs/settings.md").read_text() == settings_page()


def test_the_page_of_settings_names_every_setting() -> None:
    """The writer leaves none out."""
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", settings_page(), re.MULTILINE))

    assert named == SETTINGS.keys() | PARAMETERS_BY_NAME.keys()


def test_the_drawing_of_order_states_is_the_table() -> None:
    """Whoever changes a transition draws it anew: `python docs/order_states.py`."""
    page = (ROOT / "docs/architecture.md").read_text()

    assert runpy.run_path(str(ROOT / "docs/order_states.py"))["rewritten"](page) == page


def test_the_drawing_of_the_house_is_the_import_rule() -> None:
    """Rows of packages, top to bottom, as import-linter proves them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (ROOT / "docs/architecture.md").read_text()
    house = page[page.index("## The house") : page.index("## The nursery tree")]

    assert [row.strip() for row in re.findall(r"^    (mm\.[\w.| ]*?)  ", house, re.MULTILINE)] == layers


@EACH_PAGE
def test_every_method_that_is_named_exists(page: Path) -> None:
    """`Class.method` on a page is in the code."""
    code = [path.read_text() for path in (ROOT / "mm").rglob("*.py")]
    named = {match for span in code_of(page) if (match := re.fullmatch(r"([A-Z]\w+)\.(\w+)", span))}
    unknown = [
        match.group()
        for match in named
        if not any(
            re.search(rf"^class {match[1]}\b", text, re.MULTILINE) and re.search(rf"\b{match[2]}\b", text)
            for text in code
        )
    ]

    assert unknown == []


@EACH_PAGE
def test_every_relative_link_resolves(page: Path) -> None:
    """Files and headings that are linked exist."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "adr"], ids=name_of)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """A page does not outlive the files it speaks of; only the reasons of old choices may."""
    named = {
        name
        for code in code_of(page)
        for name in re.findall(r"(?<![\w/])(?:mm|tests|docs|bench|config|requirements)/[\w/]*\.\w+", code)
    }

    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def cannot_be_typed(words: list[str], group: App) -> str:
    """The part of a command line that the program does not know; empty when it knows all of it."""
    command = words[0] if words else ""
    if command not in set(group):
        return command or "(a command is missing)"
    if group[command].default_command is None:
        problem = cannot_be_typed(words[1:], group[command])
        return f"{command} {problem}" if problem else ""
    known = {name for argument in group[command].assemble_argument_collection() for name in argument.names}
    named = re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(words))
    return next((f"{command} {option}" for option in named if option not in known), "")


@EACH_PAGE
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    """`mm ...` on a page can be typed."""
    typed = [
        words
        for code in code_of(page)
        for words in re.findall(r"(?:^|[\s/])mm ([a-z][a-z-]*\b[^#;|]*)", code)
    ]
    wrong = [f"mm {problem}" for words in typed if (problem := cannot_be_typed(words.split(), app))]

    assert wrong == []


@EACH_PAGE
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    """`make ...` on a page can be typed."""
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for code in code_of(page) for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", code)}

    assert sorted(named - known) == []


@EACH_PAGE
def test_every_setting_in_an_example_exists(page: Path) -> None:
    """Lines such as `NAME=value` name settings of the bot, or a variable of the tests or of make."""
    known = SETTINGS.keys() | PARAMETERS_BY_NAME.keys() | {"MM_RECORDINGS", "ROUNDS", "SEED", "NAME"}
    named = {name for code in code_of(page) for name in re.findall(r"\b([A-Z][A-Z_]{3,})=", code)}

    assert sorted(named - known) == []


@EACH_PAGE
def test_the_examples_of_env_files_are_accepted(page: Path, tmp_path: Path) -> None:
    """Each `.env` on a page, as printed, is a valid set of settings."""
    for kind, example in FENCE.findall(page.read_text()):
        if kind == "ini":
            dotenv = tmp_path / ".env"
            dotenv.write_text(example)
            load_settings(environ={}, dotenv=dotenv)


KINDS = {"", "text", "mermaid", "ini", "sh", "json", "python", "csv", "yaml", "html", "console"}
PROGRAMS = {
    "mm", ".venv/bin/mm", "make", "git", "docker", "curl", "ssh", "chmod", "pkill", "python", "export", "uv", "pip", "npm",
    "systemctl", "systemd-run", "useradd", "install", "cp", "cd", "(cd", "pytest", "MM_RECORDINGS=...",
}  # fmt: skip
"""What a line of a `sh` block may begin with: a misspelled command is found."""


@EACH_PAGE
def test_every_block_of_code_is_of_a_kind_that_is_checked(page: Path) -> None:
    """Python is run, settings are loaded, JSON is parsed, shell lines begin with a known program."""
    blocks = FENCE.findall(page.read_text())
    assert {kind for kind, _ in blocks} <= KINDS
    for kind, block in blocks:
        if kind == "json":
            json.loads(block)
        if kind == "sh":
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            firsts = [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
            assert [first for first in firsts if first not in PROGRAMS] == []


WITH_PYTHON = [page for page in PAGES if any(kind == "python" for kind, _ in FENCE.findall(page.read_text()))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other as one program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    program = "\n\n".join(block for kind, block in FENCE.findall(page.read_text()) if kind == "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    """Whoever changes a command writes the page anew: `python docs/commands.py > docs/commands.md`."""
    assert (ROOT / "docs/commands.md").read_text() == runpy.run_path(str(ROOT / "docs/commands.py"))[
        "commands_page"
    ]()


def test_every_alert_is_on_the_page_of_alerts() -> None:
    """Each place in the code that tells people something has a row with what to do."""
    page = (ROOT / "docs/alerts.md").read_text()
    expected = {
        "started": "quoting 16 markets",
        "triggered": "mae_failsafe",
        "portfolio": "portfolio MAE",
        "guarded": "a guard",
        "goal_guarded": "goal guard",
        "of_reconciler": "cash: the exchange says",
        "drifted": "our position is",
        "agreed_again": "positions agree again",
        "fee_differs": "fee of trade",
        "switched": "new quotes are allowed again",
        "problem": "a read failed",
        "trouble": "`MARKET: place: ...`",
        "placed": "placed 120 orders",
        "filled": "12 fills",
    }
    known = {name for name, _ in inspect.getmembers(Notices, inspect.isfunction) if not name.startswith("_")}

    assert known <= expected.keys(), "a new alert: give it a row in docs/alerts.md, and a line here"
    assert [text for text in expected.values() if text not in page] == []
    rows = re.findall(
        r"^\| (?:info|warning|critical|warning or critical) \| .+ \| (.+) \|$", page, re.MULTILINE
    )
    assert len(rows) >= 25
    assert all(len(todo) > 10 for todo in rows)

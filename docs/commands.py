"""The page of all commands, written from the command line itself.

    python docs/commands.py > docs/commands.md

A test compares the page with what this module says, so neither can change alone.
"""

import inspect
import re
import sys
from collections.abc import Iterator

from cyclopts import App

from mm.cli import app

HEAD = """\
# Commands

<!-- Written by `python docs/commands.py > docs/commands.md`. Change the docstrings in mm/cli.py, not this page. -->

`mm` lies in `.venv/bin`; `python -m mm` is the same. All commands work from any folder and without a terminal. What they
write into, and which exchange they ask, is said by the [settings](settings.md). Results go to stdout, warnings and what is
wrong to stderr. Unless a command says otherwise: exit code 0 is well, 1 is not done.

| exit code | of `mm run` means |
| --- | --- |
| 0 | stopped as asked; nothing rests |
| 1 | failed (the reason is on stderr and in the summary); nothing rests |
| 2 | **orders may rest**: run `mm cancel-all`, or look at the exchange's own page |

Signals to `mm run`: SIGINT (Ctrl-C) and SIGTERM stop it, as often as they come. SIGHUP stops it when its terminal is closed; where
it has no terminal and there is a service manager or a file `.env`, it reads the settings anew
([reload](running-for-months.md#change-settings-without-a-restart)).
"""


def commands_page() -> str:
    """The whole page, in Markdown."""
    return HEAD + "".join(
        section for name, command in _commands(app, "mm") for section in _section(name, command)
    )


def _commands(group: App, prefix: str) -> Iterator[tuple[str, App]]:
    for name in sorted(set(group)):
        command = group[name]
        if name.startswith("-") or not command.show:
            continue
        if command.default_command is None:
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _section(name: str, command: App) -> Iterator[str]:
    said = inspect.getdoc(command.default_command) or ""
    about = said.partition("\nArgs:")[0].strip()
    yield f"\n## {name}\n\n{about}\n"
    rows = [
        row
        for argument in command.assemble_argument_collection(parse_docstring=True)
        if argument.show and (row := _row(argument.names, argument.parameter.help, argument.field_info))
    ]
    if rows:
        yield "\n| option | default | does |\n| --- | --- | --- |\n" + "".join(rows)


def _row(names: tuple[str, ...], about: str | None, field) -> str:  # type: ignore[no-untyped-def]
    options = [name for name in names if name.startswith("--") and not name.startswith(("--no-", "--empty-"))]
    shown = ", ".join(f"`{name}`" for name in options) or f"`{field.name.upper()}`"
    default = field.default
    is_nothing = default in (None, False, "", (), field.empty)
    text = re.sub(r"\s+", " ", about or "").replace("|", "\\|")
    return f"| {shown} | {'' if is_nothing else f'`{default}`'} | {text} |\n"


if __name__ == "__main__":
    sys.stdout.write(commands_page())

"""The page of all settings, written from the tables that the bot itself reads.

    python -m mm.settings.document > docs/settings.md

A test compares the page with what this module says, so neither can change alone.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mm.engine.parameters import PARAMETERS, Parameter
from mm.settings.load import read_profiles
from mm.settings.table import SETTINGS, Setting

HEAD: Final = """\
# Settings

<!-- Written by `python -m mm.settings.document > docs/settings.md`. Change the tables in the code, not this page. -->

A setting is looked for in this order: the environment, the file `.env` in the working folder, the profile of the
environment (`config/<KALSHI_ENV>.env`), the default below. All settings are checked together before anything connects:
every bad one is named, with its value and what is allowed, and the exit code is 1. Secrets are never shown.

A running bot reads them anew at SIGHUP ([how](running-for-months.md#change-settings-without-a-restart)). What then applies
without a restart: settings marked *live*, and all parameters of the second table.
"""

GENERAL: Final = """\
## Where, as whom, and where things lie

Defined in `mm/settings/table.py`.
"""

STRATEGY: Final = """\
## What decides about money

Defined in `mm/engine/parameters.py`. Values are exact decimals. `mm backtest` takes none of them from the environment:
its profile fixes them, and only `--set NAME=VALUE` changes one.
"""

PROFILES: Final = """\
## Profiles

What the files under `config/` set instead of the defaults. Your environment and `.env` win over them.
"""

TOGETHER: Final = """\
## Checked together

- `KALSHI_REST_URL` and `KALSHI_WS_URL`: both or neither.
- `demo` and `prod` need `KALSHI_API_KEY`, and the private key in `KALSHI_API_SECRET` or `KALSHI_PRIVATE_KEY_PATH`, also
  for paper: Kalshi's data needs a signature.
- `TELEGRAM_BOT_TOKEN` needs `TELEGRAM_CHAT_ID`; `EMAIL_TO` needs `EMAIL_FROM` and `SMTP_SERVER`.
- `prod` with `LIVE_TRADING_ENABLED=true` needs `DAILY_LOSS_LIMIT`.
"""


def settings_page() -> str:
    """The whole page, in Markdown. Raises `OSError` when a profile cannot be read."""
    parts = [
        HEAD,
        GENERAL + "\n" + table(_SETTING_HEAD, (_setting_cells(row) for row in SETTINGS.values())),
        STRATEGY + "\n" + table(_PARAMETER_HEAD, (_parameter_cells(row) for row in PARAMETERS)),
        PROFILES + "\n" + _profile_table(read_profiles()),
        TOGETHER,
    ]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


_SETTING_HEAD: Final = ("name", "unit", "default", "allowed", "effect")
_PARAMETER_HEAD: Final = ("name", "unit", "default", "from", "to", "effect")


def _setting_cells(row: Setting) -> Sequence[str]:
    marks = [word for word, is_so in (("secret", row.is_secret), ("live", row.is_live)) if is_so]
    effect = f"{row.effect} ({', '.join(marks)})" if marks else row.effect
    return (_code(row.name), row.unit, _code(row.default), row.allowed, effect)


def _parameter_cells(row: Parameter) -> Sequence[str]:
    return (
        _code(row.name),
        row.unit,
        _code(row.default) or "(empty)",
        row.minimum,
        row.maximum,
        row.about,
    )


def _profile_table(profiles: Mapping[str, Mapping[str, str]]) -> str:
    names = list(dict.fromkeys(name for values in profiles.values() for name in values))
    rows = [(_code(name), *(_code(values.get(name, "")) for values in profiles.values())) for name in names]
    return table(("name", *(_code(name) for name in profiles)), rows)


def _line(cells: Sequence[str]) -> str:
    return re.sub(r" +", " ", "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.stdout.write(settings_page())

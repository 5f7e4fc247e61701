"""Reading and checking all settings together, before anything connects.

Order: environment, `.env` in the working folder, the profile `config/<KALSHI_ENV>.env`, the table's default.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from decouple import RepositoryEnv
from platformdirs import user_data_path

from mm.domain.errors import ConfigError
from mm.engine.parameters import PARAMETERS, StrategyParameters, build_parameters
from mm.engine.strategies.registry import StrategyTable
from mm.settings.kinds import Environment, Secret, is_key_text
from mm.settings.sports import load_sports
from mm.settings.strategies import load_strategies
from mm.settings.table import SETTINGS

_HOSTS: Final = {
    Environment.DEMO: (
        "https://external-api.demo.kalshi.co/trade-api/v2",
        "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2",
    ),
    Environment.PROD: (
        "https://external-api.kalshi.com/trade-api/v2",
        "wss://external-api-ws.kalshi.com/trade-api/ws/v2",
    ),
}


@attrs.frozen(kw_only=True)
class Settings:
    """What the bot runs with. `values` has every setting of the table under its name, parsed."""

    values: Mapping[str, Any]
    strategy: StrategyParameters
    sources: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    texts: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """As written, of settings and parameters that were given; secrets are left out."""

    @property
    def strategies(self) -> StrategyTable:
        """Which market gets which strategy. Raises `ConfigError`, though not after `load_settings`."""
        return load_strategies(self.values)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def environment(self) -> Environment:
        """KALSHI_ENV."""
        return self.values["KALSHI_ENV"]  # type: ignore[no-any-return]

    @property
    def data_dir(self) -> Path:
        """Where all state lies."""
        return self.values["MM_DATA_DIR"] or user_data_path("mm", appauthor=False)

    @property
    def has_own_urls(self) -> bool:
        """The user pointed the bot at a server of their own."""
        return bool(self.values["KALSHI_REST_URL"])

    @property
    def uses_child_exchange(self) -> bool:
        """The exchange is the embedded one, started by the bot."""
        return self.environment is Environment.SIM and not self.has_own_urls

    @property
    def rest_url(self) -> str:
        """REST base, without a trailing slash. Empty in `sim` (the child process tells it)."""
        return self.values["KALSHI_REST_URL"] or _HOSTS.get(self.environment, ("", ""))[0]

    @property
    def ws_url(self) -> str:
        """WebSocket URL. Empty in `sim`."""
        return self.values["KALSHI_WS_URL"] or _HOSTS.get(self.environment, ("", ""))[1]

    def orders_on_paper(self, force: bool) -> bool:
        """Whether orders stay in the process: `--paper`, or live trading not enabled outside `sim`."""
        if force:
            return True
        return self.environment is not Environment.SIM and not self.values["LIVE_TRADING_ENABLED"]


def load_settings(
    overrides: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
    profiles: Path | None = None,
) -> Settings:
    """Read every setting and check it.

    Raises:
        ConfigError: With one line for each bad setting: its name, its value (never a secret's) and what is allowed.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    layers: list[tuple[str, Mapping[str, str]]] = [
        ("command line", overrides or {}),
        ("environment", environ),
    ]
    dotenv = Path(".env") if dotenv is None else dotenv
    _add_file(layers, dotenv, problems)
    name = _first(layers, "KALSHI_ENV", SETTINGS["KALSHI_ENV"].default)[0].strip().lower()
    if name in {e.value for e in Environment}:
        _add_file(layers, (profiles or _profiles()) / f"{name}.env", problems)

    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    texts: dict[str, str] = {}
    bad: set[str] = set()
    for row in SETTINGS.values():
        raw, sources[row.name] = _first(layers, row.name, row.default)
        if not row.is_secret and not is_key_text(raw):
            texts[row.name] = raw.strip()
        try:
            values[row.name] = row.parse(raw)
        except ValueError as exc:
            shown = "(hidden)" if row.is_secret or is_key_text(raw) else repr(raw)
            problems.append(f"{row.name}={shown} from {sources[row.name]}: must be {exc}")
            bad.add(row.name)
            values[row.name] = row.parse(row.default)
    given: dict[str, str] = {}
    for parameter in PARAMETERS:
        raw, source = _first(layers, parameter.name, "")
        sources[parameter.name] = source
        if raw.strip():
            given[parameter.name] = raw.strip()
    strategy = StrategyParameters()
    try:
        strategy = build_parameters(given)
    except ConfigError as exc:
        problems += exc.problems
    settings = Settings(values=values, strategy=strategy, sources=sources, texts=texts | given)
    problems += _check_together(settings, bad, has_loss_limit="DAILY_LOSS_LIMIT" in given)
    if problems:
        raise ConfigError(problems)
    return settings


def read_private_key(settings: Settings) -> Secret:
    """The PEM text from `KALSHI_API_SECRET` or the file. Raises `ConfigError` naming the setting."""
    inline: Secret = settings["KALSHI_API_SECRET"]
    if inline:
        return Secret(inline.reveal().replace("\\n", "\n"))
    path = Path(settings["KALSHI_PRIVATE_KEY_PATH"]).expanduser()
    try:
        return Secret(path.read_text().replace("\\n", "\n"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a text file"
        raise ConfigError([f"KALSHI_PRIVATE_KEY_PATH={str(path)!r}: cannot be read: {reason}"]) from None


def _check_together(settings: Settings, bad: Collection[str], *, has_loss_limit: bool) -> list[str]:
    """What only shows together. A setting in `bad` has been told already and holds its default here."""
    problems = []
    urls = {"KALSHI_REST_URL", "KALSHI_WS_URL"}
    if urls.isdisjoint(bad) and len({bool(settings[name]) for name in urls}) == 2:
        problems.append("KALSHI_REST_URL and KALSHI_WS_URL: give both or neither")
    if settings.environment is not Environment.SIM:
        if not settings["KALSHI_API_KEY"] and "KALSHI_API_KEY" not in bad:
            problems.append(
                f"KALSHI_API_KEY is empty: KALSHI_ENV={settings.environment.value} needs a key id"
            )
        has_key = settings["KALSHI_API_SECRET"] or settings["KALSHI_PRIVATE_KEY_PATH"]
        if not has_key and "KALSHI_PRIVATE_KEY_PATH" not in bad:
            problems.append(
                "KALSHI_PRIVATE_KEY_PATH and KALSHI_API_SECRET are both empty: one must give the key"
            )
    if settings["TELEGRAM_BOT_TOKEN"] and not settings["TELEGRAM_CHAT_ID"] and "TELEGRAM_CHAT_ID" not in bad:
        problems.append("TELEGRAM_CHAT_ID is empty: TELEGRAM_BOT_TOKEN needs a chat to write to")
    if settings["EMAIL_TO"]:
        problems += [
            f"{name} is empty: EMAIL_TO needs it"
            for name in ("EMAIL_FROM", "SMTP_SERVER")
            if not settings[name] and name not in bad
        ]
    try:
        settings.strategies  # noqa: B018 - built to be checked
    except ConfigError as exc:
        problems += exc.problems
    if settings["GOAL_GUARD"] == "on":
        try:
            load_sports()
        except ConfigError as exc:
            problems += exc.problems
    live = settings.environment is Environment.PROD and settings["LIVE_TRADING_ENABLED"]
    if live and not has_loss_limit:
        problems.append("DAILY_LOSS_LIMIT is not set: live trading on prod needs one (dollars above 0)")
    return problems


def read_profiles() -> dict[str, Mapping[str, str]]:
    """What each environment's profile sets, by environment. Raises `OSError`."""
    return {e.value: RepositoryEnv(str(_profiles() / f"{e.value}.env")).data for e in Environment}


def _profiles() -> Path:
    package = Path(__file__).resolve().parent.parent
    shipped = package / "profiles"
    return shipped if shipped.is_dir() else package.parent / "config"


def _add_file(layers: list[tuple[str, Mapping[str, str]]], path: Path, problems: list[str]) -> None:
    try:
        if not path.is_file():
            return
        layers.append((str(path), RepositoryEnv(str(path)).data))
    except (OSError, UnicodeDecodeError) as exc:
        problems.append(f"{path}: cannot be read: {exc}")


def _first(layers: list[tuple[str, Mapping[str, str]]], name: str, default: str) -> tuple[str, str]:
    for source, repository in layers:
        if name in repository:
            return repository[name], source
    return default, "default"

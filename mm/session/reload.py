"""Settings read anew while the bot runs: checked before anything is applied, and what changed is told.

What may change without a restart is marked in the tables (`Setting.is_live`; of the strategy's parameters all but
`RESTART_PARAMETERS`). Everything else keeps its value until the next start, and is named.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs
import structlog

from mm.domain.errors import ConfigError
from mm.domain.numbers import CONTRACT
from mm.engine.parameters import PARAMETERS, StrategyParameters
from mm.engine.risk.guards import Measure, rolling_limit
from mm.ledger import Runner
from mm.session.trading import Trading
from mm.settings import SETTINGS, Settings
from mm.settings.table import RESTART_PARAMETERS
from mm.tasks.alert_values import Severity
from mm.tasks.alerts import AlertKind, Alerts

log = structlog.get_logger(__name__)

SHOWN: Final = 20
"""Changes named in one alert."""


@attrs.frozen(kw_only=True)
class Changes:
    """What differs between two sets of settings."""

    applied: tuple[str, ...]
    """NAME: before -> after, of what may change now."""
    kept: tuple[str, ...]
    """The same, of what needs a restart."""
    settings: Settings
    """The running settings with what may change now."""


def compare(running: Settings, read: Settings) -> Changes:
    """What a reload would do. With another KALSHI_ENV nothing is applied: its numbers were meant for another venue."""
    is_same_venue = running.environment is read.environment
    applied: list[str] = []
    kept: list[str] = []
    values, texts, parameters = dict(running.values), dict(running.texts), dict[str, Any]()

    def note(name: str, is_live: bool, shown: str) -> bool:
        (applied if is_live and is_same_venue else kept).append(shown)
        if is_live and is_same_venue:
            texts[name] = read.texts.get(name, "")
            return True
        return False

    for name, row in SETTINGS.items():
        if running.values[name] == read.values[name]:
            continue
        shown = f"{name} (not shown)" if row.is_secret else _change(name, running, read)
        if note(name, row.is_live, shown):
            values[name] = read.values[name]
    for parameter in PARAMETERS:
        after = getattr(read.strategy, parameter.attribute)
        if getattr(running.strategy, parameter.attribute) == after:
            continue
        is_live = parameter.name not in RESTART_PARAMETERS
        if note(parameter.name, is_live, _change(parameter.name, running, read)):
            parameters[parameter.attribute] = after
    settings = attrs.evolve(
        running, values=values, texts=texts, strategy=attrs.evolve(running.strategy, **parameters)
    )
    return Changes(applied=tuple(applied), kept=tuple(kept), settings=settings)


def apply(settings: Settings, trading: Trading, alerts: Alerts) -> None:
    """Let everything that runs go by `settings` from its next decision on. Plain, so nothing decides half and half."""
    trading.settings = settings
    use_parameters(settings.strategy, trading)
    for channel in alerts.channels:
        floor = settings["ALERT_ROUTES"].get(channel.route.name)
        if floor is not None:
            channel.route = attrs.evolve(channel.route, floor=Severity[floor.upper()])
    trading.switch_again()
    trading.floor.wake_all()


def use_parameters(parameters: StrategyParameters, trading: Trading) -> None:
    """Every place that holds the strategy's numbers. A market over a new limit takes on no more; nothing is dropped."""
    floor, monitor = trading.floor, trading.monitor
    floor.parameters = parameters
    floor.exposure.use(parameters)
    rolling = rolling_limit(trading.settings[Measure.FILL_RATE.setting], parameters.max_global_inventory)
    trading.fence.contracts_limit = max(1, rolling // CONTRACT)
    monitor.mae.parameters = parameters
    monitor.daily_loss.limit = parameters.daily_loss_limit
    for maker in floor.makers.values():
        maker.parameters = parameters
        maker.policy.parameters = parameters
        maker.mid.alpha = parameters.mid_ema_alpha


@attrs.define(eq=False, kw_only=True)
class Reloader:
    """`reload` is what SIGHUP asks for. One at a time: signals are handled one after the other."""

    read: Callable[[], Settings]
    """Reads and checks all settings. Blocks on the disk; raises `ConfigError`."""
    runner: Runner
    trading: Callable[[], Trading | None]
    alerts: Alerts

    async def reload(self) -> None:
        """Read, check, apply, tell. A bad setting changes nothing and is named; never raises for one."""
        trading = self.trading()
        if trading is None:
            self._tell("settings not reloaded: trading has not begun; they are read at the start")
            return
        try:
            read = await self.runner(self.read)
        except ConfigError as exc:
            problems = "; ".join(exc.problems)
            self._tell(f"settings not reloaded, the old ones stay: {problems}", severity=Severity.WARNING)
            return
        changes = compare(trading.settings, read)
        apply(changes.settings, trading, self.alerts)
        self._tell(told(changes, is_same_venue=trading.settings.environment is read.environment))

    def _tell(self, text: str, *, severity: Severity = Severity.INFO) -> None:
        log.warning("reload", result=text)
        self.alerts.tell(AlertKind.RELOAD, text, text, severity=severity)


def told(changes: Changes, *, is_same_venue: bool) -> str:
    """What a reload did, in words."""
    if not is_same_venue:
        return "settings not reloaded: another KALSHI_ENV needs a restart, and nothing of it was applied"
    parts = []
    if changes.applied:
        parts.append("settings reloaded: " + _list(changes.applied))
    if changes.kept:
        parts.append("needs a restart, not applied: " + _list(changes.kept))
    return ". ".join(parts) or "settings reloaded: nothing has changed"


def _list(entries: tuple[str, ...]) -> str:
    more = [f"and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return ", ".join([*entries[:SHOWN], *more])


def _change(name: str, running: Settings, read: Settings) -> str:
    return f"{name} {_quoted(running.texts.get(name, ''))} -> {_quoted(read.texts.get(name, ''))}"


def _quoted(text: str) -> str:
    return text or "(default)"

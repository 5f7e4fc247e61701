"""The values of alerts: what there is to tell, how much it matters, bounds and counters."""

import enum
from typing import Protocol

import attrs

from mm.domain.numbers import Micros
from mm.ledger import AlertRow


class Severity(enum.IntEnum):
    """How much it matters. What is dropped first when there is too much: the lowest."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2


class AlertKind(enum.Enum):
    """What it is about."""

    PLACEMENTS = "placements"
    FILLS = "fills"
    RISK = "risk"
    START = "start"
    STOP = "stop"
    ERROR = "error"
    SUMMARY = "summary"
    RELOAD = "reload"


@attrs.frozen(kw_only=True)
class AlertOptions:
    """Times in seconds."""

    placements_window_s: float = 60.0
    """One message about placements per window."""
    fills_window_s: float = 5.0
    repeat_window_s: float = 60.0
    """The same cause within it is told once, then as a count."""
    min_interval_s: float = 2.0
    """Between two messages to one receiver: Discord allows 30 a minute."""
    first_backoff_s: float = 1.0
    longest_backoff_s: float = 60.0
    gone_backoff_s: float = 300.0
    """When the receiver does not exist or does not let us in."""
    capacity: int = 200
    """Alerts waiting for delivery on one channel, and causes remembered."""
    flush_timeout_s: float = 3.0
    """For what is left when the block ends."""
    send_now_timeout_s: float = 5.0


@attrs.frozen(kw_only=True)
class Alert:
    """One thing to tell."""

    alert_id: str
    kind: AlertKind
    severity: Severity
    text: str
    at: Micros


@attrs.frozen(kw_only=True)
class AlertStatistics:
    """Counters since the start. Nothing is dropped uncounted."""

    waiting: int
    messages: int
    retries: int
    repeats: int
    """Alerts told as a count only."""
    dropped: dict[Severity, int]
    """Dropped because too much was waiting, or refused, or old news after an outage, or left when the block ended."""


class AlertBook(Protocol):
    """Where critical alerts are kept until delivered; a `Ledger` is one."""

    def record_alert(self, row: AlertRow) -> None:
        """Keep it."""

    def record_alert_delivered(self, alert_id: str) -> None:
        """Forget it."""

    async def undelivered_alerts(self) -> list[AlertRow]:
        """What earlier runs left."""

"""What a way to people must be able to do, and how it says that it could not. The ways themselves lie beside this."""

from collections.abc import Sequence
from typing import Protocol

import attrs

from mm.domain.errors import MMError
from mm.tasks.alert_values import Alert, Severity


class NotSent(MMError):
    """A message was not accepted, or nobody knows. Try again after `retry_after` seconds, or when you see fit."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MessageRefused(NotSent):
    """This message will never be accepted; another one may."""


class ReceiverGone(NotSent):
    """The receiver does not exist or does not let us in: no message will be accepted until somebody repairs it."""


@attrs.frozen(kw_only=True)
class Message:
    """What is delivered at once: some alerts, and the same as text."""

    text: str
    alerts: Sequence[Alert] = ()

    @property
    def severity(self) -> Severity:
        """The worst of its alerts."""
        return max((alert.severity for alert in self.alerts), default=Severity.INFO)


class Sender(Protocol):
    """A way to people: one class with this one method."""

    async def send(self, message: Message) -> float:
        """Deliver one message; give the seconds that the receiver wants to have no further one (mostly 0).

        Raises `NotSent` or one of its kinds, and nothing else; what it says must not hold an address or a token.
        Cancelled, the message may have been delivered or not.
        """


@attrs.frozen(kw_only=True)
class Route:
    """Where alerts go, and which."""

    name: str
    """For logs and for ALERT_ROUTES: discord, slack, ..."""
    sender: Sender = attrs.field(repr=False)
    floor: Severity = Severity.INFO
    """What matters less is not sent there."""
    min_interval_s: float | None = None
    """Between two messages, where the receiver bears fewer than `AlertOptions.min_interval_s` lets through."""

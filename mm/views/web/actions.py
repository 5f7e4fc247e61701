"""What the page may do, as the web view sees it. The session implements it."""

from typing import Protocol

from mm.domain.errors import MMError
from mm.domain.order import MarketTicker


class ActionRefused(MMError):
    """It cannot be done now; the text says why, for people."""


class UnknownMarket(ActionRefused):
    """No market of that ticker is traded here."""


class Actions(Protocol):
    """Plain calls that take effect at once. All raise `ActionRefused`."""

    def pause(self, ticker: MarketTicker) -> None:
        """Pull this market's quotes and place none; exits go on."""

    def resume(self, ticker: MarketTicker) -> None:
        """Lift `pause`."""

    def flatten(self, ticker: MarketTicker, *, pause: bool) -> None:
        """Close the position by crossing the spread; `pause`: and stay out afterwards."""

    def pause_all(self) -> None:
        """Pull every quote and place none, also in markets that are still to come; exits go on."""

    def resume_all(self) -> None:
        """Lift `pause_all`. Markets paused one by one stay paused."""

    def stop(self) -> None:
        """End the bot: every order is taken off, positions are kept."""

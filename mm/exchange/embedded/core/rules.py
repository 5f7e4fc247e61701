"""The switches for what is not established about the real exchange, and the refusals.

Each default is the documented or most credible behaviour (exchange-api sheet, sections 2.7-2.10, 4, 9).
"""

import attrs

from mm.domain.errors import MMError
from mm.domain.numbers import SECOND, Micros
from mm.exchange.embedded.core.model import Reason


@attrs.frozen(kw_only=True)
class Rules:
    """How the twin behaves where the exchange's behaviour is inferred or changeable."""

    post_only_cross_cancels: bool = False
    """False: a post-only order that would cross is refused with 400. True: 201, then `PostOnlyCrossCancel`."""
    post_only_amend_cancels: bool = False
    """False: an amend that would cross a post-only order is refused and leaves it as it was. True: cancels it."""
    amend_below_filled_cancels: bool = False
    """An amend to a total at or below what is filled: False 400, True cancels the rest."""
    refused_spends_id: bool = False
    """Whether a refused create uses up its `client_order_id`."""
    fok_status: int = 409
    market_not_found_status: int = 404
    group_triggered_status: int = 409
    group_triggered_code: str = "order_group_triggered"
    expired_code: str = "invalid_parameters"
    """400 with this code for an expiry in the past."""
    closed_cancel_code: str = "market_closed"
    """409 with this code for a cancel, amend or decrease after the close."""
    user_cancel_reason: Reason = Reason.DECREASE
    group_cancel_reason: Reason = Reason.DECREASE
    activation_cancel_reason: Reason = Reason.HALT_CANCEL
    halt_cancels_flagged: bool = True
    """Whether deactivating one market cancels its `cancel_order_on_pause` orders, as a pause of the shard does."""
    decrease_in_pause: bool = False
    """Whether a decrease passes while trading is paused, as a cancel does."""
    stp_across_subaccounts: bool = True
    """Whether self-trade prevention sees the member or the single subaccount."""
    cancel_names_client_order_id: bool = False
    """Whether the answer to a cancel carries the `client_order_id`; recorded ones did not, the contract allows it."""
    queue_counts_better: bool = True
    """Whether a queue position counts the better levels too."""
    group_window: Micros = Micros(15 * SECOND)
    close_cancel_delay: Micros = Micros(SECOND // 2)
    """From the close to the mass cancel of what rests."""
    max_open_orders: int = 200_000
    max_groups: int = 100_000
    max_group_limit: int = 1_000_000
    """Whole contracts."""
    trades_kept: int = 10_000
    """Public trades kept per market."""


class Refused(MMError):
    """A definite no: nothing happened. What the server puts on the wire as status and error object."""

    def __init__(
        self, status: int, code: str, message: str | None = None, details: str | None = None
    ) -> None:
        super().__init__(f"{status} {code}" + (f": {details}" if details else ""))
        self.status = status
        self.code = code
        self.message = code if message is None else message
        self.details = details


def not_found() -> Refused:
    """Unknown, not resting, somebody else's, or on another shard: not told apart."""
    return Refused(404, "not_found", "not found")


def invalid_parameters(details: str) -> Refused:
    """A request that cannot mean anything."""
    return Refused(400, "invalid_parameters", details=details)


def shard_down() -> Refused:
    """The shard is not there: nothing was done."""
    return Refused(503, "service_unavailable", "service unavailable")


def trading_paused() -> Refused:
    """The market or the shard does not trade now; cancels work."""
    return Refused(409, "trading_is_paused", "trading is paused")


def exchange_paused() -> Refused:
    """Nothing works now on the shard, cancels neither."""
    return Refused(409, "exchange_is_paused", "exchange is paused")

"""Orders and their life: the state table as data.

All state changes of an order go through `next_state`; the table can be read, drawn and tested. An order is *known
to be gone* only in DONE. UNKNOWN is a state of its own: something was sent and no answer came, so the order may
rest, may have traded, may never have existed.
"""

import enum
from typing import Final, NewType

import attrs

from mm.domain.errors import InvariantError
from mm.domain.numbers import Count, Micros, Price

MarketTicker = NewType("MarketTicker", str)
OrderId = NewType("OrderId", str)
"""The venue's id of an order."""
ClientOrderId = NewType("ClientOrderId", str)
"""Our id of an order: single use for ever, letters, digits, `-` and `_`."""
GroupId = NewType("GroupId", str)
"""The venue's id of an order group."""


class Side(enum.Enum):
    """The side of the YES book: BID buys YES, ASK sells YES (= buys NO at 1 - price)."""

    BID = "bid"
    ASK = "ask"

    __hash__ = (
        object.__hash__
    )  # members are singletons; enum's own hashes the name, in Python, on every look-up

    @property
    def sign(self) -> int:
        """+1 for a bid, -1 for an ask: what a fill of it does to the signed position."""
        return 1 if self is Side.BID else -1

    @property
    def opposite(self) -> "Side":
        """The other side."""
        return Side.ASK if self is Side.BID else Side.BID


class TimeInForce(enum.Enum):
    """How long an order works."""

    GTC = "good_till_canceled"
    IOC = "immediate_or_cancel"
    FOK = "fill_or_kill"


class SelfTradePrevention(enum.Enum):
    """Who gives way when we would meet ourselves: the incoming order, or the resting one."""

    TAKER = "taker_at_cross"
    MAKER = "maker"


class OrderState(enum.Enum):
    """Where an order is in its life."""

    INTENDED = "intended"
    """Decided, recorded, not sent."""
    SENT = "sent"
    """On the wire, no answer yet."""
    RESTING = "resting"
    AMENDING = "amending"
    """Rests; an amend or decrease is on the wire."""
    CANCELLING = "cancelling"
    """Rests; a cancel is on the wire."""
    UNKNOWN = "unknown"
    """A write's answer was lost; nothing new on this side of this market until it is resolved."""
    DONE = "done"
    """Filled, cancelled, expired, refused: nothing of it rests or ever will."""

    __hash__ = object.__hash__  # as `Side`'s


class OrderEvent(enum.Enum):
    """What can happen to an order."""

    SEND = "send"
    ACCEPTED = "accepted"
    """The venue took it and something of it rests."""
    REFUSED = "refused"
    """A definite no to the create: it was never placed."""
    AMEND_SENT = "amend_sent"
    CANCEL_SENT = "cancel_sent"
    WRITE_REFUSED = "write_refused"
    """A definite no to an amend or cancel that leaves the order as it was."""
    ANSWER_LOST = "answer_lost"
    SEEN_RESTING = "seen_resting"
    """A read that is fresh enough, or a report, shows it resting."""
    GONE = "gone"
    """Proof that nothing rests: terminal report, cancel acknowledged, filled in full, or absent when that proves it."""

    __hash__ = object.__hash__  # as `Side`'s


_S, _E = OrderState, OrderEvent

TRANSITIONS: Final[dict[tuple[OrderState, OrderEvent], OrderState]] = {
    (_S.INTENDED, _E.SEND): _S.SENT,
    (_S.INTENDED, _E.GONE): _S.DONE,
    (_S.INTENDED, _E.REFUSED): _S.DONE,
    (_S.SENT, _E.ACCEPTED): _S.RESTING,
    (_S.SENT, _E.SEEN_RESTING): _S.SENT,  # the socket may be faster than the answer, which is still to come
    (_S.SENT, _E.REFUSED): _S.DONE,
    (_S.SENT, _E.ANSWER_LOST): _S.UNKNOWN,
    (_S.SENT, _E.GONE): _S.DONE,
    (_S.RESTING, _E.AMEND_SENT): _S.AMENDING,
    (_S.RESTING, _E.CANCEL_SENT): _S.CANCELLING,
    (_S.RESTING, _E.SEEN_RESTING): _S.RESTING,
    (
        _S.RESTING,
        _E.ACCEPTED,
    ): _S.RESTING,  # a report had ended the doubt before the answer to the second send came
    (_S.RESTING, _E.GONE): _S.DONE,
    (_S.AMENDING, _E.ACCEPTED): _S.RESTING,
    (_S.AMENDING, _E.WRITE_REFUSED): _S.RESTING,
    (_S.AMENDING, _E.CANCEL_SENT): _S.CANCELLING,  # a quote that must go does not wait for its amend
    (_S.AMENDING, _E.SEEN_RESTING): _S.AMENDING,
    (_S.AMENDING, _E.ANSWER_LOST): _S.UNKNOWN,
    (_S.AMENDING, _E.GONE): _S.DONE,
    (_S.CANCELLING, _E.ACCEPTED): _S.CANCELLING,  # the late answer to an amend
    (_S.CANCELLING, _E.WRITE_REFUSED): _S.RESTING,
    (_S.CANCELLING, _E.SEEN_RESTING): _S.CANCELLING,  # reads lag writes
    (_S.CANCELLING, _E.ANSWER_LOST): _S.UNKNOWN,
    (_S.CANCELLING, _E.GONE): _S.DONE,
    (_S.UNKNOWN, _E.ACCEPTED): _S.RESTING,
    (_S.UNKNOWN, _E.SEEN_RESTING): _S.RESTING,
    (_S.UNKNOWN, _E.REFUSED): _S.DONE,
    (_S.UNKNOWN, _E.ANSWER_LOST): _S.UNKNOWN,
    (_S.UNKNOWN, _E.GONE): _S.DONE,
    (_S.DONE, _E.GONE): _S.DONE,
    (_S.DONE, _E.SEEN_RESTING): _S.DONE,  # a stale read after the end
    (_S.DONE, _E.ACCEPTED): _S.DONE,  # the answer came after the fill that ended it
    (_S.DONE, _E.WRITE_REFUSED): _S.DONE,
    (_S.DONE, _E.ANSWER_LOST): _S.DONE,
}
"""(state, event) -> next state. What is not here cannot happen."""


def next_state(state: OrderState, event: OrderEvent) -> OrderState:
    """The state after `event`. Raises `InvariantError` when the table has no such transition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvariantError(f"order event {event.value} is impossible in state {state.value}") from None


@attrs.define(eq=False, kw_only=True)
class Order:
    """One of our orders as we know it. Changed only by the desk; others read."""

    client_order_id: ClientOrderId
    ticker: MarketTicker
    side: Side
    price: Price
    """Limit, YES price."""
    count: Count
    """Size when placed (or after the last amend: already filled + remaining)."""
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = True
    reduce_only: bool = False
    group_id: GroupId | None = None
    exchange_index: int = 0
    expires_at: Micros | None = None
    amending_to: Price | None = None
    """While the answer to an amend is out or lost: the other price at which it may stand."""
    state: OrderState = OrderState.INTENDED
    order_id: OrderId | None = None
    filled: Count = Count(0)
    """Contracts known to be filled, by fills (not by an order report)."""
    reported_filled: Count = Count(0)
    """Contracts the venue says are filled, by answers and order reports; may run ahead of `filled`."""
    reported_at: Micros = Micros(0)
    """The venue's time of its newest report: an older one says nothing new about price and size."""
    created_at: Micros = Micros(0)
    unknown_since: Micros | None = None
    done_at: Micros | None = None

    @property
    def leaves(self) -> Count:
        """Contracts that still may fill: count - filled while not done, else 0."""
        return Count(0) if self.state is OrderState.DONE else Count(max(self.count - self.filled, 0))

    @property
    def unbooked(self) -> Count:
        """Contracts that the venue reports as filled and whose fills have not reached us yet."""
        return Count(max(self.reported_filled - self.filled, 0))

    @property
    def at_risk(self) -> Count:
        """Contracts that may still move our position: leaves, or what was filled and not booked, if more."""
        return Count(max(self.leaves, self.unbooked))

    @property
    def is_live(self) -> bool:
        """May rest at the venue, as far as we can exclude the opposite."""
        return self.state not in (OrderState.DONE, OrderState.INTENDED)

    def apply(self, event: OrderEvent) -> OrderState:
        """Move through the table. Raises `InvariantError` on an impossible move."""
        self.state = next_state(self.state, event)
        return self.state

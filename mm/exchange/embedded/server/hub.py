"""Who subscribed to what, and the fan-out of the core's events as frames.

A frame's `msg` is serialised once for all who get the same one; the envelope (sid, seq) is put around it per
subscription. Publishing is a plain call and never waits: a subscriber whose queue is full loses that subscription
with error 25, as on the real exchange.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import attrs
import orjson

from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.events import (
    BookDelta,
    CoreEvent,
    EventCreated,
    EventFeesUpdated,
    FillReported,
    GroupUpdated,
    MarketUpdated,
    OrderUpdated,
    PositionChanged,
    TradePrinted,
)
from mm.exchange.embedded.core.model import same_member, split_account
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server import frames, listing
from mm.exchange.embedded.server.faults import Faults
from mm.exchange.embedded.server.websocket import WebSocket
from mm.exchange.embedded.server.wire import Json

ERRORS: Final = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    18: "Command timeout",
    25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded",
    27: "Too many requests",
}
"""Error codes of the socket (autumn 2026) and their texts."""


class Channel(enum.Enum):
    """The channels, in the words of `subscribe`."""

    ORDERBOOK_DELTA = "orderbook_delta"
    TICKER = "ticker"
    TRADE = "trade"
    LIFECYCLE = "market_lifecycle_v2"
    MULTIVARIATE_LIFECYCLE = "multivariate_market_lifecycle"
    """Accepted and silent: no combos here."""
    FILL = "fill"
    USER_ORDERS = "user_orders"
    MARKET_POSITIONS = "market_positions"
    ORDER_GROUP_UPDATES = "order_group_updates"
    COMMUNICATIONS = "communications"
    """Accepted and silent: no quotes on request here."""

    @property
    def is_sequenced(self) -> bool:
        """Whether its frames carry `seq`."""
        return self not in _UNSEQUENCED

    @property
    def has_markets(self) -> bool:
        """Whether a subscription may be narrowed to markets; elsewhere a filter is accepted and ignored."""
        return self in _FILTERED


_UNSEQUENCED: Final = frozenset({Channel.TICKER, Channel.FILL, Channel.USER_ORDERS, Channel.MARKET_POSITIONS})
_FILTERED: Final = frozenset(
    {
        Channel.ORDERBOOK_DELTA,
        Channel.TICKER,
        Channel.TRADE,
        Channel.FILL,
        Channel.USER_ORDERS,
        Channel.MARKET_POSITIONS,
    }
)


@attrs.define(eq=False, kw_only=True)
class Subscription:
    """One channel of one connection: its number, its markets, its sequence."""

    sid: int
    channel: Channel
    session: "Session"
    tickers: dict[MarketTicker, None] | None
    """In the order given; None means all."""
    use_yes_price: bool = False
    skip_ticker_ack: bool = False
    seq: int = 0
    """Of the last frame sent."""
    held_until: Micros = Micros(0)
    """Its frames are kept back until then (a fault): later ones queue behind them."""

    def wants(self, ticker: MarketTicker) -> bool:
        """Whether frames of this market belong to it."""
        return self.tickers is None or ticker in self.tickers


@attrs.define(eq=False, kw_only=True)
class Session:
    """One connection: whose it is and what it subscribed to."""

    user_id: str
    """The member."""
    socket: WebSocket
    subaccount: int | None = None
    """The only one whose private frames it gets; None: all."""
    subscriptions: dict[int, Subscription] = attrs.field(factory=dict)
    last_sid: int = 0


@attrs.define(eq=False, kw_only=True)
class HubStatistics:
    """Counters since the start."""

    frames: int = 0
    overflows: int = 0
    dropped_on_purpose: int = 0


_Index = dict[tuple[Channel, str | None], dict[Subscription, None]]


@attrs.define(eq=False, kw_only=True)
class Hub:
    """The connections and their subscriptions."""

    clock: Callable[[], Micros]
    faults: Faults
    later: Callable[[Micros, Callable[[], None]], None]
    """Does something at a later time."""
    markets: Callable[[], Mapping[MarketTicker, MarketState]]
    sessions: dict[Session, None] = attrs.field(factory=dict)
    statistics: HubStatistics = attrs.field(factory=HubStatistics)
    drop_next: dict[Channel, int] = attrs.field(factory=dict)
    """Frames to lose on purpose, per channel (a fault)."""
    _index: _Index = attrs.field(factory=dict)
    """(channel, market or user or None for all) -> subscriptions, in the order they were made."""
    _last_ticker: dict[MarketTicker, tuple[object, ...]] = attrs.field(factory=dict)

    def market_of(self, ticker: MarketTicker) -> MarketState:
        """A market. Raises `KeyError`."""
        return self.markets()[ticker]

    # --- connections and subscriptions ---

    def open(self, session: Session) -> None:
        """A connection is there."""
        self.sessions[session] = None

    def close(self, session: Session) -> None:
        """A connection is gone, with all it subscribed to."""
        for subscription in list(session.subscriptions.values()):
            self.remove(subscription)
        self.sessions.pop(session, None)

    def add(
        self,
        session: Session,
        channel: Channel,
        tickers: Iterable[MarketTicker] | None,
        *,
        use_yes_price: bool = False,
        skip_ticker_ack: bool = False,
    ) -> Subscription:
        """Make a subscription; the caller answers `subscribed` and sends snapshots."""
        session.last_sid += 1
        subscription = Subscription(
            sid=session.last_sid,
            channel=channel,
            session=session,
            tickers=None if tickers is None or not channel.has_markets else dict.fromkeys(tickers),
            use_yes_price=use_yes_price,
            skip_ticker_ack=skip_ticker_ack,
        )
        session.subscriptions[subscription.sid] = subscription
        for key in self._keys(subscription):
            self._index.setdefault(key, {})[subscription] = None
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """End a subscription; nothing more is sent for it."""
        subscription.session.subscriptions.pop(subscription.sid, None)
        for key in self._keys(subscription):
            self._drop(key, subscription)

    def add_markets(self, subscription: Subscription, tickers: Iterable[MarketTicker]) -> list[MarketTicker]:
        """Widen a subscription; gives those that are new to it. One for all markets stays so."""
        if subscription.tickers is None:
            return []
        new = [ticker for ticker in dict.fromkeys(tickers) if ticker not in subscription.tickers]
        subscription.tickers.update(dict.fromkeys(new))
        for key in self._market_keys(subscription, new):
            self._index.setdefault(key, {})[subscription] = None
        return new

    def delete_markets(self, subscription: Subscription, tickers: Iterable[MarketTicker]) -> None:
        """Narrow a subscription. One that has no market left stays, silent."""
        if subscription.tickers is None:
            return
        gone = [ticker for ticker in dict.fromkeys(tickers) if ticker in subscription.tickers]
        for ticker in gone:
            del subscription.tickers[ticker]
        for key in self._market_keys(subscription, gone):
            self._drop(key, subscription)

    def _keys(self, subscription: Subscription) -> list[tuple[Channel, str | None]]:
        if subscription.channel in _PRIVATE:
            return [(subscription.channel, subscription.session.user_id)]
        if subscription.tickers is None:
            return [(subscription.channel, None)]
        return self._market_keys(subscription, subscription.tickers)

    def _market_keys(
        self, subscription: Subscription, tickers: Iterable[MarketTicker]
    ) -> list[tuple[Channel, str | None]]:
        if subscription.channel in _PRIVATE:
            return []
        return [(subscription.channel, ticker) for ticker in tickers]

    def _drop(self, key: tuple[Channel, str | None], subscription: Subscription) -> None:
        found = self._index.get(key)
        if found is not None:
            found.pop(subscription, None)
            if not found:
                del self._index[key]

    # --- frames ---

    def send(
        self, subscription: Subscription, kind: str, msg: bytes, *, command_id: int | None = None
    ) -> None:
        """One frame of a subscription. Takes a sequence number where the channel has them."""
        socket = subscription.session.socket
        if socket.is_full:
            self._overflow(subscription)
            return
        now = self.clock() // 1_000
        fate = self.faults.frame(subscription.channel.value)
        numbered = b""
        if subscription.channel.is_sequenced:
            subscription.seq += 1 + fate.skip
            numbered = b'"seq":%d,' % subscription.seq
        identified = b"" if command_id is None else b'"id":%d,' % command_id
        if fate.is_lost or self._is_dropped(subscription.channel):
            return
        payload = b'{"type":"%b",%b"sid":%d,%b"msg":%b,"sending_ts_ms":%d}\n' % (
            kind.encode("ascii"),
            identified,
            subscription.sid,
            numbered,
            msg,
            now,
        )
        for _ in range(2 if fate.is_doubled else 1):
            self.statistics.frames += 1
            self.post(subscription, payload, hold_s=fate.hold_s)

    def post(self, subscription: Subscription, payload: bytes, *, hold_s: float = 0.0) -> None:
        """Bytes of a subscription, behind those of it that are kept back."""
        now = self.clock()
        due = max(Micros(now + int(hold_s * SECOND)), subscription.held_until)
        if due <= now:
            subscription.session.socket.send(payload)
        else:
            subscription.held_until = due
            self.later(due, partial(subscription.session.socket.send, payload))

    def _is_dropped(self, channel: Channel) -> bool:
        left = self.drop_next.get(channel, 0)
        if not left:
            return False
        self.drop_next[channel] = left - 1
        self.statistics.dropped_on_purpose += 1
        return True

    def _overflow(self, subscription: Subscription) -> None:
        """The consumer is too slow: the subscription ends, the connection stays."""
        self.statistics.overflows += 1
        self._end(subscription, 25)

    def end_channel(self, channel: Channel, code: int) -> int:
        """End every subscription of a channel with a terminal error (10 or 25); how many there were."""
        ended = [
            subscription
            for session in self.sessions
            for subscription in session.subscriptions.values()
            if subscription.channel is channel
        ]
        for subscription in ended:
            self._end(subscription, code)
        return len(ended)

    def _end(self, subscription: Subscription, code: int) -> None:
        self.remove(subscription)
        content: Json = {
            "type": "error",
            "sid": subscription.sid,
            "msg": {"code": code, "msg": ERRORS[code]},
            "sending_ts_ms": self.clock() // 1_000,
        }
        if subscription.channel.is_sequenced:
            content["seq"] = subscription.seq + 1
        self.post(subscription, orjson.dumps(content) + b"\n")

    def snapshot(
        self, subscription: Subscription, tickers: Iterable[MarketTicker], *, command_id: int | None = None
    ) -> None:
        """The books of these markets, as frames of the stream. Unknown markets are passed over in silence."""
        for ticker in tickers:
            state = self.markets().get(ticker)
            if state is not None:
                content = listing.snapshot(state, use_yes_price=subscription.use_yes_price)
                self.send(subscription, "orderbook_snapshot", orjson.dumps(content), command_id=command_id)

    def tickers_now(self, subscription: Subscription, tickers: Iterable[MarketTicker]) -> None:
        """A first `ticker` frame for each of these markets."""
        for ticker in tickers:
            state = self.markets().get(ticker)
            if state is not None:
                content = listing.ticker_frame(state, self.clock())
                self.send(subscription, "ticker", orjson.dumps(content))

    # --- the core's events ---

    def publish(self, event: CoreEvent) -> None:
        """Send an event to everyone it concerns."""
        match event:
            case BookDelta():
                self._publish_delta(event)
                self._publish_ticker(event.ticker, event.ts)
            case TradePrinted(trade=trade):
                self._publish_to(
                    self._of_market(Channel.TRADE, trade.ticker), "trade", lambda: frames.trade_frame(trade)
                )
                self._publish_ticker(trade.ticker, trade.ts)
            case FillReported(fill=fill):
                subscribers = self._of_user(Channel.FILL, fill.user_id, fill.ticker)
                self._publish_to(subscribers, "fill", lambda: frames.fill_frame(fill))
            case OrderUpdated(order=order):
                subscribers = self._of_user(Channel.USER_ORDERS, order.user_id, order.ticker)
                self._publish_to(subscribers, "user_order", lambda: frames.order_frame(order))
            case PositionChanged(user_id=user_id, position=view):
                subscribers = self._of_user(Channel.MARKET_POSITIONS, user_id, view.ticker)
                self._publish_to(subscribers, "market_position", lambda: frames.position_frame(user_id, view))
            case GroupUpdated():
                subscribers = self._of_user(Channel.ORDER_GROUP_UPDATES, event.user_id, None)
                self._publish_to(subscribers, "order_group_updates", lambda: frames.group_frame(event))
            case MarketUpdated():
                self._publish_all("market_lifecycle_v2", lambda: frames.market_frame(event))
            case EventCreated():
                self._publish_all("event_lifecycle", lambda: frames.event_frame(event))
            case EventFeesUpdated():
                self._publish_all("event_fee_update", lambda: frames.event_fee_frame(event))

    def _of_market(self, channel: Channel, ticker: MarketTicker) -> list[Subscription]:
        return [*self._index.get((channel, ticker), ()), *self._index.get((channel, None), ())]

    def _of_user(self, channel: Channel, user_id: str, ticker: MarketTicker | None) -> list[Subscription]:
        member, number = split_account(user_id)
        return [
            one
            for one in self._index.get((channel, member), ())
            if (ticker is None or one.wants(ticker)) and one.session.subaccount in (None, number)
        ]

    def _publish_to(
        self, subscribers: Iterable[Subscription], kind: str, content: Callable[[], Json]
    ) -> None:
        """The same `msg` to all of them, serialised once, and not at all when there is nobody."""
        msg: bytes | None = None
        for subscription in subscribers:
            if msg is None:
                msg = orjson.dumps(content())
            self.send(subscription, kind, msg)

    def _publish_all(self, kind: str, content: Callable[[], Json]) -> None:
        self._publish_to(list(self._index.get((Channel.LIFECYCLE, None), ())), kind, content)

    def _publish_delta(self, event: BookDelta) -> None:
        subscribers = self._index.get((Channel.ORDERBOOK_DELTA, event.ticker))
        if not subscribers:
            return
        market_id = self.market_of(event.ticker).market_id
        variants: dict[tuple[bool, bool], bytes] = {}
        for subscription in list(subscribers):
            is_own = same_member(subscription.session.user_id, event.user_id)
            variant = (subscription.use_yes_price, is_own)
            msg = variants.get(variant)
            if msg is None:
                content = frames.delta_frame(
                    event, market_id, use_yes_price=subscription.use_yes_price, is_own=is_own
                )
                msg = variants[variant] = orjson.dumps(content)
            self.send(subscription, "orderbook_delta", msg)

    def _publish_ticker(self, ticker: MarketTicker, ts: Micros) -> None:
        """A `ticker` frame when what it says has changed since the last one."""
        subscribers = self._of_market(Channel.TICKER, ticker)
        if not subscribers:
            return
        state = self.market_of(ticker)
        key = listing.ticker_key(state)
        if self._last_ticker.get(ticker) != key:
            self._last_ticker[ticker] = key
            self._publish_to(subscribers, "ticker", lambda: listing.ticker_frame(state, ts))


_PRIVATE: Final = frozenset(
    {Channel.FILL, Channel.USER_ORDERS, Channel.MARKET_POSITIONS, Channel.ORDER_GROUP_UPDATES}
)
"""Indexed by user, filtered by market when a frame is sent."""

"""What one connection has asked the venue to send, and what it still must ask: a plan, no IO and no clock.

One subscription a channel; markets come and go by `add_markets` and `delete_markets`. `commands` compares what is wanted
with what was asked and says what to send next; replies move the state. Refused commands and lost subscriptions come
back with a growing delay, so that nothing here runs hot. Times are seconds of a monotonic clock, given by the caller.
"""

import enum
import itertools
import math
from collections.abc import Collection, Iterable
from typing import Final

import attrs

from mm.domain.order import MarketTicker
from mm.exchange.kalshi import frames

REPLY_TIMEOUT_S: Final = 5.0
"""A subscribe without an answer for this long: the connection is sick."""
SNAPSHOT_TIMEOUT_S: Final = 3.0
"""A snapshot that was asked for and did not come is asked for again after this, then after twice as long, ..."""
MAX_DELAY_S: Final = 60.0
MARKETS_A_COMMAND: Final = 500
"""Markets named in one command at most: a list of ten thousand is a frame of 300 kB."""
SNAPSHOTS_AHEAD: Final = 1_000
"""No more markets are added while so many first snapshots are still to come: a burst of all would cost the subscription."""
FORGIVEN_AFTER_S: Final = 30.0
"""Trouble longer ago than this no longer makes the next attempt wait."""


class Channel(enum.Enum):
    """The channels we use, by their name on the wire."""

    ORDERBOOK = "orderbook_delta"
    TRADE = "trade"
    FILL = "fill"
    ORDERS = "user_orders"
    LIFECYCLE = "market_lifecycle_v2"
    GROUPS = "order_group_updates"


PER_MARKET: Final = (Channel.ORDERBOOK, Channel.TRADE)
"""Channels that are given a list of markets. Without one the trade channel would send every print of the venue."""
_NAMES: Final = frozenset(channel.value for channel in Channel)
UNFILTERED: Final = (Channel.FILL, Channel.ORDERS, Channel.GROUPS, Channel.LIFECYCLE)


@attrs.define(eq=False)
class Backoff:
    """Growing delays: the first attempt is free, then 1, 2, 4 ... seconds, forgotten after a quiet while."""

    attempts: int = 0
    last: float = -math.inf

    def next_at(self, now: float) -> float:
        """When the next attempt may be made; counts it."""
        if now - self.last > FORGIVEN_AFTER_S:
            self.attempts = 0
        delay = min(2.0 ** (self.attempts - 1), MAX_DELAY_S) if self.attempts else 0.0
        self.attempts += 1
        self.last = now + delay
        return self.last


@attrs.define(eq=False)
class Subscription:
    """One channel on this connection."""

    channel: Channel
    sid: int | None = None
    """Known once the venue has answered."""
    asked_at: float | None = None
    """When a subscribe was sent that is not answered yet."""
    next_seq: int = 1
    markets: set[MarketTicker] = attrs.field(factory=set)
    """What the venue has been told to send."""
    may_ask_at: float = -math.inf
    backoff: Backoff = attrs.field(factory=Backoff)

    @property
    def is_off(self) -> bool:
        """Neither subscribed nor asked for."""
        return self.sid is None and self.asked_at is None

    def drop(self, now: float) -> None:
        """The subscription is gone; it may be asked for again after the backoff."""
        self.sid = self.asked_at = None
        self.markets.clear()
        self.may_ask_at = self.backoff.next_at(now)


class CommandKind(enum.Enum):
    """What a command that waits for its answer was for."""

    SUBSCRIBE = enum.auto()
    ADD = enum.auto()
    DELETE = enum.auto()
    SNAPSHOT = enum.auto()
    UNSUBSCRIBE = enum.auto()


@attrs.frozen
class Command:
    """A command on the wire."""

    kind: CommandKind
    channel: Channel
    tickers: tuple[MarketTicker, ...] = ()


@attrs.define(eq=False)
class Awaited:
    """A snapshot that must come."""

    ask_at: float
    """When to ask (again) with `get_snapshot`."""
    is_first: bool
    """Nothing was asked for but the subscription itself, which begins with a snapshot."""
    delay: float = SNAPSHOT_TIMEOUT_S


@attrs.define(eq=False)
class Subscriptions:
    """All channels of one connection. `wanted` is shared with the feed and outlives the connection."""

    wanted: dict[MarketTicker, None]
    use_yes_price: bool = True
    unfiltered: tuple[Channel, ...] = UNFILTERED
    """None on a connection that carries markets only."""
    channels: dict[Channel, Subscription] = attrs.field(
        factory=lambda: {channel: Subscription(channel) for channel in (*UNFILTERED, *PER_MARKET)}
    )
    by_sid: dict[int, Subscription] = attrs.field(factory=dict)
    retired_sids: set[int] = attrs.field(factory=set)
    synced: set[MarketTicker] = attrs.field(factory=set)
    """Markets whose book is whole: deltas are delivered for these only."""
    awaited: dict[MarketTicker, Awaited] = attrs.field(factory=dict)
    pending: dict[int, Command] = attrs.field(factory=dict)
    _trouble: dict[MarketTicker, Backoff] = attrs.field(factory=dict)
    _next_id: int = 1

    @property
    def names(self) -> frozenset[str]:
        """The channels we may be subscribed to."""
        return _NAMES

    @property
    def book(self) -> Subscription:
        """The order book channel."""
        return self.channels[Channel.ORDERBOOK]

    # what to send

    def commands(self, now: float) -> list[str]:
        """Everything that should be sent now. Each call returns only what was not returned before."""
        out: list[str] = []
        for channel in self.unfiltered:
            subscription = self.channels[channel]
            if subscription.is_off and now >= subscription.may_ask_at:
                out.append(self._subscribe(subscription, None, now))
        for channel in PER_MARKET:
            out += self._plan_markets(self.channels[channel], now)
        out += self._plan_snapshots(now)
        return out

    def next_due(self) -> float:
        """When `commands` or `overdue` may have something new without a reply in between; infinity when never."""
        times = []
        if self.book.sid is not None:
            times += [a.ask_at for ticker, a in self.awaited.items() if ticker in self.book.markets]
        for subscription in self.channels.values():
            if subscription.asked_at is not None:
                times.append(subscription.asked_at + REPLY_TIMEOUT_S)
            elif subscription.channel in UNFILTERED:
                if subscription.is_off and subscription.channel in self.unfiltered:
                    times.append(subscription.may_ask_at)
            elif self.wanted and (subscription.is_off or subscription.markets != self.wanted.keys()):
                times.append(subscription.may_ask_at)
        return min(times, default=math.inf)

    def overdue(self, now: float) -> str | None:
        """Why this connection is sick, if it is: a subscribe that nobody answers."""
        for subscription in self.channels.values():
            if subscription.asked_at is not None and now >= subscription.asked_at + REPLY_TIMEOUT_S:
                return f"no answer to the subscription of {subscription.channel.value}"
        return None

    def _plan_markets(self, subscription: Subscription, now: float) -> list[str]:
        if subscription.asked_at is not None:
            return []
        if subscription.sid is None:
            if not self.wanted or now < subscription.may_ask_at:
                return []
            first = list(itertools.islice(self.wanted, MARKETS_A_COMMAND))
            command = self._subscribe(subscription, first, now)
            self._told(subscription, first, now)
            return [command]
        if not self.wanted:
            # An emptied trade subscription might mean "everything": end it instead.
            return [self._unsubscribe(subscription)] if subscription.markets else []
        out: list[str] = []
        gone = subscription.markets - self.wanted.keys()
        if gone:
            out += self._updates(subscription, CommandKind.DELETE, "delete_markets", sorted(gone))
            subscription.markets -= gone
        if now >= subscription.may_ask_at:
            new = (ticker for ticker in self.wanted if ticker not in subscription.markets)
            room = self._room() if subscription is self.book else len(self.wanted)
            if room > 0 and (some := list(itertools.islice(new, room))):
                out += self._updates(subscription, CommandKind.ADD, "add_markets", some)
                self._told(subscription, some, now)
        return out

    def _room(self) -> int:
        """How many more books may be asked for now."""
        coming = sum(awaited.is_first for awaited in self.awaited.values())
        return SNAPSHOTS_AHEAD - coming

    def _updates(
        self, subscription: Subscription, kind: CommandKind, action: str, tickers: list[MarketTicker]
    ) -> list[str]:
        return [
            self._update(subscription, kind, action, tickers[start : start + MARKETS_A_COMMAND])
            for start in range(0, len(tickers), MARKETS_A_COMMAND)
        ]

    def _plan_snapshots(self, now: float) -> list[str]:
        if self.book.sid is None:
            return []
        due = [t for t, a in self.awaited.items() if a.ask_at <= now and t in self.book.markets]
        if not due:
            return []
        for ticker in due:
            awaited = self.awaited[ticker]
            awaited.is_first = False
            awaited.ask_at = now + awaited.delay
            awaited.delay = min(awaited.delay * 2, MAX_DELAY_S)
        return self._updates(self.book, CommandKind.SNAPSHOT, "get_snapshot", due)

    def _told(self, subscription: Subscription, tickers: Iterable[MarketTicker], now: float) -> None:
        for ticker in tickers:
            subscription.markets.add(ticker)
            if subscription.channel is Channel.ORDERBOOK:
                self.awaited[ticker] = Awaited(now + SNAPSHOT_TIMEOUT_S, is_first=True)

    def _subscribe(self, subscription: Subscription, tickers: list[MarketTicker] | None, now: float) -> str:
        subscription.asked_at = now
        subscription.next_seq = 1
        command_id = self._register(CommandKind.SUBSCRIBE, subscription.channel, tickers or ())
        yes_price = self.use_yes_price if subscription.channel is Channel.ORDERBOOK else None
        return frames.subscribe(command_id, subscription.channel.value, tickers, use_yes_price=yes_price)

    def _update(
        self, subscription: Subscription, kind: CommandKind, action: str, tickers: list[MarketTicker]
    ) -> str:
        assert subscription.sid is not None
        command_id = self._register(kind, subscription.channel, tickers)
        return frames.update(command_id, subscription.sid, action, tickers)

    def _unsubscribe(self, subscription: Subscription) -> str:
        assert subscription.sid is not None
        command_id = self._register(CommandKind.UNSUBSCRIBE, subscription.channel, ())
        command = frames.unsubscribe(command_id, subscription.sid)
        self._retire(subscription)
        subscription.markets.clear()
        return command

    def _register(self, kind: CommandKind, channel: Channel, tickers: Iterable[MarketTicker]) -> int:
        command_id = self._next_id
        self._next_id += 1
        self.pending[command_id] = Command(kind, channel, tuple(tickers))
        return command_id

    # what came back

    def subscribed(self, channel_name: str, sid: int) -> None:
        """A channel was granted. Raises `ValueError` for one that nobody asked for."""
        subscription = self.channels[Channel(channel_name)]
        subscription.asked_at = None
        subscription.sid = sid
        self.by_sid[sid] = subscription

    def count(self, sid: int, seq: int) -> bool:
        """Count a frame of a sequenced subscription; whether it was the one that had to come."""
        subscription = self.by_sid[sid]
        in_order = seq == subscription.next_seq
        subscription.next_seq = seq + 1
        return in_order

    def refused(self, command: Command, now: float) -> None:
        """An error answered this command: it is tried again later where it still matters."""
        subscription = self.channels[command.channel]
        if command.kind is CommandKind.SUBSCRIBE:
            subscription.drop(now)
            subscription.may_ask_at = max(subscription.may_ask_at, now + 1.0)
        elif command.kind is CommandKind.ADD:
            subscription.markets.difference_update(command.tickers)
            subscription.may_ask_at = max(subscription.backoff.next_at(now), now + 1.0)
            if command.channel is Channel.ORDERBOOK:
                for ticker in command.tickers:
                    self.awaited.pop(ticker, None)

    def over_limit(self, command: Command) -> tuple[MarketTicker, ...]:
        """The venue takes no more markets on this connection: those of the command are given up here, and returned."""
        for ticker in command.tickers:
            self.wanted.pop(ticker, None)
            self.channels[command.channel].markets.discard(ticker)
        self.forget(command.tickers)
        return command.tickers

    def lost(self, subscription: Subscription, now: float) -> list[MarketTicker]:
        """The venue dropped a subscription; returns the markets whose books are no longer whole."""
        hurt = sorted(self.synced | self.awaited.keys()) if subscription is self.book else []
        self._retire(subscription)
        subscription.drop(now)
        if subscription is self.book:
            self.synced.clear()
            self.awaited.clear()
        return hurt

    def resubscribe(self, subscription: Subscription, now: float) -> tuple[list[MarketTicker], str]:
        """Give a subscription up and ask for a new one; returns the hurt markets and the command to send."""
        assert subscription.sid is not None
        command_id = self._register(CommandKind.UNSUBSCRIBE, subscription.channel, ())
        command = frames.unsubscribe(command_id, subscription.sid)
        return self.lost(subscription, now), command

    def _retire(self, subscription: Subscription) -> None:
        if subscription.sid is not None:
            self.by_sid.pop(subscription.sid, None)
            self.retired_sids.add(subscription.sid)
            subscription.sid = None

    # books

    def snapshot_came(self, ticker: MarketTicker) -> bool:
        """A snapshot arrived; whether it is of a market that is wanted."""
        self.awaited.pop(ticker, None)
        if ticker not in self.wanted:
            return False
        self.synced.add(ticker)
        return True

    def out_of_sync(self, tickers: Collection[MarketTicker], now: float) -> None:
        """These books are no longer whole: a snapshot is due, at once or after the market's backoff."""
        for ticker in tickers:
            self.synced.discard(ticker)
            awaited = self.awaited.get(ticker)
            if awaited is None or awaited.is_first:
                self.awaited[ticker] = Awaited(self._trouble_of(ticker).next_at(now), is_first=False)

    def ask_again(self, tickers: Iterable[MarketTicker], now: float) -> None:
        """Snapshots on demand, for books that are whole as far as this connection knows."""
        for ticker in tickers:
            if ticker in self.wanted and ticker not in self.awaited:
                self.awaited[ticker] = Awaited(self._trouble_of(ticker).next_at(now), is_first=False)

    def forget(self, tickers: Iterable[MarketTicker]) -> None:
        """Markets that are no longer wanted."""
        for ticker in tickers:
            self.synced.discard(ticker)
            self.awaited.pop(ticker, None)
            self._trouble.pop(ticker, None)

    def _trouble_of(self, ticker: MarketTicker) -> Backoff:
        return self._trouble.setdefault(ticker, Backoff())

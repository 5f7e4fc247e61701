"""One connection's frames: from the envelope to the sink, with `seq` counted. No IO, no clock, no task.

The sink's methods are called in wire order. What must be sent in reply is left in the `Subscriptions`, and `has_work`
says that the writer should look. A frame that cannot be read is counted; if it was a book's, that book is stale.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import orjson
import structlog

from mm.domain.errors import BookOutOfSync
from mm.domain.numbers import Micros
from mm.domain.order import GroupId, MarketTicker
from mm.exchange.kalshi import codec, wire
from mm.exchange.kalshi.deltas import read_deltas
from mm.exchange.kalshi.frames import FrameReader
from mm.exchange.kalshi.reading import Codec, Malformed, error_of
from mm.exchange.kalshi.subscriptions import Command, CommandKind, Subscription, Subscriptions
from mm.exchange.port import FeedSink, MarketEvent, MarketEventKind

Frame = dict[str, Any]

_TERMINAL: Final = (10, 25)
"""Channel error, buffer overflow: the subscription is gone, the socket is not."""
_UNKNOWN_SID: Final = 7
_MARKET_LIMIT: Final = 26
_NOT_SUPPORTED: Final = (5, 13)

log = structlog.get_logger(__name__)


class FeedLost(Exception):
    """This connection is of no more use: reconnect. Never leaves the package."""


@attrs.define(eq=False)
class FrameCounts:
    """Counters over all connections of a feed."""

    frames: int = 0
    gaps: int = 0
    last_frame_at: Micros = Micros(0)


@attrs.define(eq=False)
class FeedSession:
    """Reads the frames of one connection."""

    sink: FeedSink
    subscriptions: Subscriptions
    codec: Codec
    reader: FrameReader
    counts: FrameCounts
    subaccount: int = 0
    on_full: Callable[[Sequence[MarketTicker]], None] | None = None
    """Told of markets that this connection may not carry; None: they are tried again here, later."""
    has_work: bool = True
    urgent: list[str] = attrs.field(factory=list)
    """Commands that go before what `Subscriptions.commands` plans."""
    _handlers: dict[str, Callable[[Frame, Micros, float], None]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._handlers = {
            "orderbook_delta": self._on_delta,
            "orderbook_snapshot": self._on_snapshot,
            "trade": self._on_trade,
            "fill": self._on_fill,
            "user_order": self._on_order,
            "market_lifecycle_v2": self._on_lifecycle,
            "event_fee_update": self._on_fee_update,
            "event_lifecycle": self._on_nothing,
            "order_group_updates": self._on_group,
            "subscribed": self._on_subscribed,
            "ok": self._on_reply,
            "unsubscribed": self._on_reply,
            "error": self._on_error,
        }

    def receive_all(self, messages: "list[bytes | str]", now: Micros, at: float) -> None:
        """The messages of one read, in order, as `receive` would take them one by one; faster for book deltas."""
        read_deltas(self, messages, now, at)

    def receive(self, text: str | bytes, now: Micros, at: float) -> None:
        """One message of the socket: usually one frame, sometimes a blank line.

        Args:
            text: The message.
            now: Wall clock, for what the sink is told.
            at: Monotonic clock, for retries.

        Raises:
            FeedLost: The connection should be given up.
        """
        if not text or text.isspace():
            return
        self.counts.frames += 1
        self.counts.last_frame_at = now
        try:
            frame = orjson.loads(text)
            kind = frame["type"]
        except (KeyError, TypeError, ValueError) as error:
            # Whatever it was, if it took a number its subscription will show a gap.
            self.codec.tally.bad("frame", str(error))
            return
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if not self._counted(frame, at):
            return
        if handler is None:
            self.codec.tally.frame(str(kind))
            return
        try:
            handler(frame, now, at)
        except Malformed as error:  # nothing else is caught: an error of the sink is a bug, not a bad frame
            self.codec.tally.bad(str(kind), str(error))
            if kind in ("orderbook_delta", "orderbook_snapshot"):
                self._distrust(frame, at)

    def _counted(self, frame: Frame, at: float) -> bool:
        """Count the frame in its subscription; whether it belongs to one that is still ours."""
        seq = frame.get("seq")
        sid = frame.get("sid")
        if sid is None or seq is None:
            return True
        subscription = self.subscriptions.by_sid.get(sid)
        if subscription is None:
            if sid in self.subscriptions.retired_sids:
                return frame.get("type") == "unsubscribed"  # the rest is of a subscription we gave up
            self.codec.tally.bad("frame", f"unknown sid on a {frame.get('type')}")
            return False
        expected = subscription.next_seq
        if self.subscriptions.count(sid, seq):
            return True
        self.counts.gaps += 1
        log.warning("gap", channel=subscription.channel.value, expected=expected, got=seq)
        if subscription is self.subscriptions.book:
            self._stale(sorted(subscription.markets), f"seq {seq} came where {expected} had to", at)
        return True

    def _stale(self, tickers: Sequence[MarketTicker], why: str, at: float) -> None:
        if not tickers:
            return
        self.subscriptions.out_of_sync(tickers, at)
        self.has_work = True
        self.sink.on_out_of_sync(tickers, why)

    def _distrust(self, frame: Frame, at: float) -> None:
        """A book frame that could not be read: its market is stale, or all of them when it names none."""
        msg = frame.get("msg")
        ticker = msg.get("market_ticker") if isinstance(msg, dict) else None
        markets = self.subscriptions.book.markets
        self._stale([ticker] if ticker in markets else sorted(markets), "a frame could not be read", at)

    # market data

    def _on_delta(self, frame: Frame, now: Micros, at: float) -> None:
        ticker, side, price, change, ts = self.reader.delta(_msg(frame))
        if ticker not in self.subscriptions.synced:
            awaited = self.subscriptions.awaited.get(ticker)
            if awaited is not None and awaited.is_first:
                self._stale([ticker], "a delta came before the first snapshot", at)
            return
        try:
            self.sink.on_delta(ticker, side, price, change, ts)
        except BookOutOfSync as error:
            self.lost_step(ticker, error, at)

    def lost_step(self, ticker: MarketTicker, error: BookOutOfSync, at: float) -> None:
        """The sink says that a delta does not fit its book."""
        self.counts.gaps += 1
        self._stale([ticker], str(error), at)

    def _on_snapshot(self, frame: Frame, now: Micros, at: float) -> None:
        ticker, bids, asks = self.reader.snapshot(_msg(frame))
        self._answered(frame)
        if not self.subscriptions.snapshot_came(ticker):
            return
        try:
            self.sink.on_snapshot(ticker, bids, asks, now)
        except BookOutOfSync as error:
            self._stale([ticker], str(error), at)

    def _on_trade(self, frame: Frame, now: Micros, at: float) -> None:
        trade = self.reader.trade(_msg(frame), frame.get("sending_ts_ms"), now)
        if trade.ticker in self.subscriptions.wanted:
            self.sink.on_trade(trade)

    def _on_lifecycle(self, frame: Frame, now: Micros, at: float) -> None:
        event = codec.to_market_event(self.codec.structure(frame.get("msg"), wire.Lifecycle))
        self.sink.on_market_event(event)

    def _on_fee_update(self, frame: Frame, now: Micros, at: float) -> None:
        update = self.codec.structure(frame.get("msg"), wire.FeeUpdate)
        self.sink.on_market_event(
            MarketEvent(
                ticker=MarketTicker(""),
                kind=MarketEventKind.FEES_CHANGED,
                event_ticker=update.event_ticker,
            )
        )

    def _on_nothing(self, frame: Frame, now: Micros, at: float) -> None:
        """A documented frame that tells us nothing we use."""

    # ours

    def _on_fill(self, frame: Frame, now: Micros, at: float) -> None:
        fill = self.codec.structure(frame.get("msg"), wire.FillFrame)
        if self._is_ours(fill.subaccount):
            self.sink.on_fill(codec.to_fill_from_frame(fill, now))

    def _on_order(self, frame: Frame, now: Micros, at: float) -> None:
        order = self.codec.structure(frame.get("msg"), wire.OrderFrame)
        if order.status == "unknown":
            self.codec.tally.skip("user_order", "status unknown")
        elif self._is_ours(order.subaccount_number):
            self.sink.on_order(codec.to_report(order))

    def _on_group(self, frame: Frame, now: Micros, at: float) -> None:
        update = self.codec.structure(frame.get("msg"), wire.GroupUpdate)
        if update.event_type == "triggered":
            self.sink.on_group_triggered(GroupId(update.order_group_id))

    def _is_ours(self, subaccount: int | None) -> bool:
        if subaccount is None or subaccount == self.subaccount:
            return True
        self.codec.tally.skip("private frame", f"subaccount {subaccount}")
        return False

    # replies

    def _on_subscribed(self, frame: Frame, now: Micros, at: float) -> None:
        self._answered(frame)
        msg = _msg(frame)
        name, sid = msg.get("channel"), msg.get("sid")
        if name not in self.subscriptions.names or not isinstance(sid, int):
            raise Malformed(f"subscribed to {name!r} as {sid!r}")
        self.subscriptions.subscribed(name, sid)
        self.has_work = True

    def _on_reply(self, frame: Frame, now: Micros, at: float) -> None:
        self._answered(frame)

    def _answered(self, frame: Frame) -> Command | None:
        command_id = frame.get("id")
        return self.subscriptions.pending.pop(command_id, None) if isinstance(command_id, int) else None

    def _on_error(self, frame: Frame, now: Micros, at: float) -> None:
        msg = _msg(frame)
        code = msg.get("code")
        text = str(msg.get("msg") or error_of(msg).text)[:200]
        command = self._answered(frame)
        subscription = self._subject(frame, command)
        log.error(
            "the venue answered an error",
            code=code,
            text=text,
            channel=subscription.channel.value if subscription else None,
            command=command.kind.name if command else None,
        )
        self.has_work = True
        if code in _TERMINAL:
            if subscription is None:
                raise FeedLost(f"error {code}: a subscription is gone, and nothing says which")
            self._lost(subscription, f"error {code}: {text}", at)
        elif code == _UNKNOWN_SID and subscription is not None:
            if command is None or command.kind is not CommandKind.UNSUBSCRIBE:
                self._lost(subscription, f"error {code}: {text}", at)
        elif command is not None:
            if command.kind is CommandKind.SNAPSHOT and code in _NOT_SUPPORTED:
                self._resubscribe(subscription, at)
            elif code == _MARKET_LIMIT and command.kind is CommandKind.ADD and self.on_full is not None:
                self.on_full(self.subscriptions.over_limit(command))
            else:
                self.subscriptions.refused(command, at)

    def _subject(self, frame: Frame, command: Command | None) -> Subscription | None:
        """The subscription that an error is about: by sid, else by the command it answers."""
        sid = frame.get("sid")
        if sid is None:
            sid = _msg(frame).get("sid")
        if isinstance(sid, int) and sid in self.subscriptions.by_sid:
            return self.subscriptions.by_sid[sid]
        return self.subscriptions.channels[command.channel] if command is not None else None

    def _lost(self, subscription: Subscription, why: str, at: float) -> None:
        self.counts.gaps += 1
        hurt = self.subscriptions.lost(subscription, at)
        if hurt:
            self.sink.on_out_of_sync(hurt, why)

    def _resubscribe(self, subscription: Subscription | None, at: float) -> None:
        """The venue knows no `get_snapshot`: a new subscription begins with snapshots, too."""
        if subscription is None or subscription.sid is None:
            raise Malformed("no subscription to renew")
        hurt, command = self.subscriptions.resubscribe(subscription, at)
        self.urgent.append(command)
        if hurt:
            self.sink.on_out_of_sync(hurt, "the subscription is made anew")

    # for the writer

    def commands(self, at: float) -> list[str]:
        """What should be sent now."""
        self.has_work = False
        urgent, self.urgent = self.urgent, []
        return urgent + self.subscriptions.commands(at)


def _msg(frame: Frame) -> Frame:
    msg = frame.get("msg")
    if not isinstance(msg, dict):
        raise Malformed("no msg in the frame")
    return msg

"""The feed's fast path: book deltas, which are nearly all that comes, from their bytes to the sink without a tree between.

Every message of a read goes through `read_deltas`. One that is a delta as the venue documents it, of the book subscription,
with the number that had to come, of a market whose book is in step, is decoded into one flat object and delivered. For any
other (another kind, an unknown field, a gap, a spelling not met before) nothing is done here: `FeedSession.receive` reads it
from the start, and it alone knows what anything odd means. A differential test holds the two together.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from mm.domain.errors import BookOutOfSync
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import MarketTicker, Side

if TYPE_CHECKING:
    from mm.exchange.kalshi.session import FeedSession

START: Final = b'{"type":"orderbook_delta"'


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    market_ticker: MarketTicker
    price_dollars: str
    delta_fp: str
    side: Literal["yes", "no"]
    ts_ms: int | None = None
    market_id: str | None = None
    ts: str | None = None
    client_order_id: str | None = None
    subaccount: int | None = None


class _Frame(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["orderbook_delta"]
    sid: int
    seq: int
    msg: _Delta
    sending_ts_ms: int | None = None


_decode: Final = msgspec.json.Decoder(_Frame).decode


def read_deltas(session: "FeedSession", messages: "list[bytes | str]", now: Micros, at: float) -> None:
    """Deliver one read's messages, in order. `session` is a `FeedSession`.

    Raises what `FeedSession.receive` raises; as there, `BookOutOfSync` of the sink marks the market and goes no further.
    """
    subscriptions, reader, counts = session.subscriptions, session.reader, session.counts
    book, synced = subscriptions.book, subscriptions.synced
    bids, asks, sizes = reader.bid_prices, reader.ask_prices, reader.sizes
    on_delta: Callable[..., None] = session.sink.on_delta
    receive = session.receive
    bid, ask = Side.BID, Side.ASK
    for message in messages:
        if message[:25] != START:
            receive(message, now, at)
            continue
        try:
            frame = _decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError):
            receive(message, now, at)
            continue
        msg = frame.msg
        ticker = msg.market_ticker
        is_bid = msg.side == "yes"
        price: Price | None = (bids if is_bid else asks).get(msg.price_dollars)
        change: Count | None = sizes.get(msg.delta_fp)
        if (
            frame.seq != book.next_seq
            or frame.sid != book.sid
            or price is None
            or change is None
            or ticker not in synced
        ):
            receive(message, now, at)
            continue
        book.next_seq += 1
        counts.frames += 1
        counts.last_frame_at = now
        ts = msg.ts_ms
        try:
            on_delta(ticker, bid if is_bid else ask, price, change, ts * 1000 if ts else 0)
        except BookOutOfSync as error:
            session.lost_step(ticker, error, at)

"""The feed's fast path delivers what the careful one delivers, whatever comes, and however the bytes are cut."""

import json
import random

import attrs
import pytest
import wsproto
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.domain.book import OrderBook
from mm.domain.numbers import Micros
from mm.domain.order import MarketTicker
from mm.exchange.kalshi.frames import FrameReader
from mm.exchange.kalshi.reading import Codec
from mm.exchange.kalshi.session import FeedLost, FeedSession, FrameCounts
from mm.exchange.kalshi.subscriptions import Subscriptions
from mm.exchange.kalshi.websocket import FrameCutter

NOW = Micros(1_796_166_600_000_000)
TICKERS = ["A-1", "A-2", "B-1"]
CALLS = list[tuple[object, ...]]


class Sink:
    """Folds books like the real one, and notes every call."""

    def __init__(self) -> None:
        self.books: dict[str, OrderBook] = {}
        self.calls: CALLS = []

    def on_snapshot(self, ticker: str, *rest: object) -> None:
        self.calls.append(("snapshot", ticker, *rest))
        self.books.setdefault(ticker, OrderBook()).snapshot(rest[0], rest[1])  # type: ignore[arg-type]

    def on_delta(self, *args: object) -> None:
        self.calls.append(("delta", *args))
        self.books[args[0]].apply_delta(*args[1:4])  # type: ignore[index, arg-type]

    def __getattr__(self, name: str) -> object:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self.calls.append((name, *args))


def opened(*, use_yes_price: bool) -> tuple[FeedSession, Sink]:
    """A session whose subscriptions are answered; the book's is sid 1."""
    sink, codec = Sink(), Codec()
    wanted = {MarketTicker(ticker): None for ticker in TICKERS}
    session = FeedSession(
        sink,  # type: ignore[arg-type]
        Subscriptions(wanted, use_yes_price),
        codec,
        FrameReader(codec.tally, use_yes_price),
        FrameCounts(),
    )
    session.commands(0.0)
    for sid, channel in enumerate(("orderbook_delta", "trade", "fill"), 1):
        reply = {"type": "subscribed", "id": sid, "msg": {"channel": channel, "sid": sid}}
        session.receive(json.dumps(reply).encode(), NOW, 0.0)
    session.commands(0.0)
    return session, sink


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """A stream that is mostly deltas in order, and now and then everything else that may come."""
    seq, found = 0, []
    for ticker in draw(st.permutations(TICKERS))[: draw(st.integers(1, 3))]:
        seq += 1
        levels = [["0.5000", "30.00"], ["0.4900", "1.00"]]
        msg = {
            "market_ticker": ticker,
            "market_id": "x",
            "yes_dollars_fp": levels,
            "no_dollars_fp": levels[1:],
        }
        found.append(json.dumps({"type": "orderbook_snapshot", "sid": 1, "seq": seq, "msg": msg}).encode())
    for _ in range(draw(st.integers(0, 30))):
        msg: dict[str, object] = {
            "market_ticker": draw(st.sampled_from(TICKERS)),
            "market_id": "x",
            "price_dollars": draw(
                st.sampled_from(["0.5000", "0.4900", "0.51", "0.5100", "1.2", "0.50001", "x"])
            ),
            "delta_fp": draw(
                st.sampled_from(["1.00", "-1.00", "30.00", "-31.00", "5", "0.50", "-0.001", ""])
            ),
            "side": draw(st.sampled_from(["yes", "no"] * 6 + ["maybe"])),
            "ts": "2026-12-01T23:10:00Z",
            "ts_ms": draw(st.sampled_from([1_796_166_600_123] * 5 + [None, 0])),
        }
        odd = draw(st.integers(0, 25))
        kind, sid, step = "orderbook_delta", 1, 1
        if odd == 1:
            msg["new_field"] = 1
        elif odd == 2:
            del msg[draw(st.sampled_from(["price_dollars", "side", "market_ticker", "delta_fp", "ts_ms"]))]
        elif odd == 3:
            msg["price_dollars"] = draw(st.sampled_from([0.5, None, 1]))  # type: ignore[list-item]
        elif odd == 4:
            step = draw(st.sampled_from([0, 2, -1]))
        elif odd == 5:
            sid = draw(st.sampled_from([2, 3, 9]))
        elif odd == 6:
            kind = draw(st.sampled_from(["trade", "ticker", "ok"]))
        elif odd == 7:
            msg["client_order_id"], msg["subaccount"] = "mm-1", 0
        seq += step
        frame: dict[str, object] = {"type": kind, "sid": sid, "seq": seq, "msg": msg}
        if odd == 8:
            frame["sending_ts_ms"] = 1_796_166_600_124
        elif odd == 9:
            frame["more"] = True
        elif odd == 10:
            frame = dict(reversed(frame.items()))
        text = json.dumps(frame, separators=(",", ":")) if draw(st.booleans()) else json.dumps(frame)
        if odd == 11:
            text = text[: draw(st.integers(0, len(text)))]
        elif odd == 12:
            text = " \n"
        found.append((text + draw(st.sampled_from(["", "\n"]))).encode())
        if sid != 1:
            seq -= step
    return found


def told(session: FeedSession, sink: Sink) -> tuple[object, ...]:
    """Everything that a message may have changed."""
    subscriptions = session.subscriptions
    return (
        sink.calls,
        {t: (b.bids, b.asks, b.best_bid, b.best_ask, b.is_synced) for t, b in sink.books.items()},
        attrs.asdict(session.counts),
        attrs.asdict(session.codec.tally),
        session.has_work,
        sorted(subscriptions.synced),
        sorted(subscriptions.awaited),
        {channel: (s.sid, s.next_seq) for channel, s in subscriptions.channels.items()},
    )


def one_by_one(stream: list[bytes], *, use_yes_price: bool) -> tuple[object, ...]:
    """By the careful path."""
    session, sink = opened(use_yes_price=use_yes_price)
    try:
        for message in stream:
            session.receive(message, NOW, 1.0)
    except FeedLost as lost:
        sink.calls.append(("lost", str(lost)))
    return told(session, sink)


@settings(max_examples=150, deadline=None)
@given(messages(), st.booleans(), st.randoms(use_true_random=False))
def test_the_fast_path_tells_what_the_careful_one_tells(
    stream: list[bytes], use_yes_price: bool, chance: random.Random
) -> None:
    """The same calls in the same order, the same books, counters, gaps and plans; for any cut of the bytes."""
    wire = b"".join(framed(message) for message in stream)
    cuts = sorted(chance.randrange(len(wire) + 1) for _ in range(chance.randrange(8)))
    session, sink = opened(use_yes_price=use_yes_price)
    cutter = FrameCutter(wsproto.WSConnection(wsproto.ConnectionType.CLIENT))
    try:
        for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            session.receive_all(cutter.receive(wire[start:stop]), NOW, 1.0)  # type: ignore[arg-type]
    except FeedLost as lost:
        sink.calls.append(("lost", str(lost)))

    assert told(session, sink) == one_by_one(stream, use_yes_price=use_yes_price)


def framed(payload: bytes) -> bytes:
    """An unmasked text frame."""
    size = len(payload)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


def test_deltas_in_order_never_reach_the_careful_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the fast one would be there for nothing: after a first meeting of its price and size, every delta is fast."""
    session, sink = opened(use_yes_price=True)
    msg = {"market_ticker": "A-1", "market_id": "x", "yes_dollars_fp": [["0.5000", "30.00"]]}
    first = {"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": msg}
    session.receive(json.dumps(first).encode(), NOW, 0.0)
    stream = [
        (
            '{"type":"orderbook_delta","sid":1,"seq":SEQ,"msg":{"market_ticker":"A-1","market_id":"x",'
            '"price_dollars":"0.4900","delta_fp":"1.00","side":"yes","ts":"t","ts_ms":1}}\n'
        )
        .replace("SEQ", str(seq))
        .encode()
        for seq in range(2, 102)
    ]
    careful: list[object] = []
    receive = FeedSession.receive
    monkeypatch.setattr(
        FeedSession, "receive", lambda self, *args: (careful.append(args[0]), receive(self, *args))[1]
    )
    session.receive_all(list(stream), NOW, 1.0)

    assert len(careful) == 1
    assert sink.books["A-1"].size_at(*_bid(4_900)) == 10_000
    assert session.counts.frames == 100 + 1 + 3


def _bid(price: int) -> tuple[object, ...]:
    from mm.domain.order import Side

    return Side.BID, price

"""Recorded frames of the real exchange folded through the session: no gap, no negative level, nothing unknown."""

import gzip
import json
from collections import Counter

import pytest

from mm.domain.book import OrderBook
from mm.domain.numbers import Micros
from mm.domain.order import Side
from mm.exchange.kalshi.frames import FrameReader, read_count
from mm.exchange.kalshi.reading import Codec
from mm.exchange.kalshi.session import FeedSession, FrameCounts
from mm.exchange.kalshi.subscriptions import Channel, Subscriptions


class BookSink:
    """Folds what the session delivers; everything else is counted."""

    def __init__(self):
        self.books = {}
        self.calls = Counter()

    def on_snapshot(self, ticker, bids, asks, now):
        self.books.setdefault(ticker, OrderBook()).snapshot(bids, asks)
        self.calls["snapshot"] += 1

    def on_delta(self, ticker, side, price, change, ts):
        self.books[ticker].apply_delta(side, price, change)
        self.calls["delta"] += 1
        assert ts > 0

    def on_out_of_sync(self, tickers, why):
        self.calls["out_of_sync"] += 1


def session_for(tickers, *, use_yes_price=False):
    reader = Codec()
    session = FeedSession(
        BookSink(),
        Subscriptions(dict.fromkeys(tickers), use_yes_price),
        reader,
        FrameReader(reader.tally, use_yes_price),
        FrameCounts(),
    )
    session.commands(0.0)
    return session


def assert_clean(session):
    tally = session.codec.tally
    assert session.counts.gaps == 0
    assert (tally.malformed, tally.unknown_frames, tally.unknown_fields) == (0, 0, 0)
    assert session.sink.calls["out_of_sync"] == 0


def test_twelve_games_on_one_subscription(recordings):
    """12 markets share one sequence in which the `ok` replies take numbers, too: no false gap."""
    path = recordings("ws_mlb_wnba_verbatim") / "ws_orderbook_stream.jsonl.gz"
    with gzip.open(path, "rt") as file:
        lines = [json.loads(line) for line in file]
    frames = [line["frame"] for line in lines]
    tickers = {f["msg"]["market_ticker"] for f in frames if f["type"] == "orderbook_snapshot"}
    session = session_for(tickers)

    for line in lines:
        session.receive(json.dumps(line["frame"]), Micros(line["received_ms"] * 1000), 0.0)

    assert_clean(session)
    assert session.sink.calls == Counter(snapshot=12, delta=245)
    books = session.sink.books
    assert len(books) == 12
    assert all(book.is_two_sided and not book.is_crossed for book in books.values())
    assert session.subscriptions.synced == tickers


@pytest.mark.parametrize("capture", ["20260513T202034Z", "20260513T230108Z", "20260514T043808Z"])
def test_the_busiest_kind_of_market(recordings, capture):
    """The first seconds of a 15-minute Bitcoin market at full depth: fractional sizes, mixed ticks."""
    path = recordings("ws_btc15m_fulldepth") / f"{capture}.jsonl.gz"
    sessions = {}
    count = 0
    with gzip.open(path, "rt") as file:
        for line in file:
            row = json.loads(line)
            frame = row.get("frame")
            if frame is None or frame["type"] == "ticker" or frame.get("msg", {}).get("channel") == "ticker":
                continue
            if row["conn"] not in sessions:
                sessions[row["conn"]] = session_for([])
            session = sessions[row["conn"]]
            if frame["type"] == "orderbook_snapshot":
                # The recorder chose its markets one after another; here they are wanted when they come.
                session.subscriptions.wanted.setdefault(frame["msg"]["market_ticker"])
            session.receive(json.dumps(frame), Micros(row["recv_ns"] // 1000), 0.0)
            count += 1
            if count >= 4000:
                break

    assert sum(s.sink.calls["delta"] for s in sessions.values()) > 3500
    for session in sessions.values():
        assert_clean(session)


@pytest.mark.parametrize(("name", "legs"), [("noleg", False), ("yes", True)])
def test_both_conventions_for_no_prices(recordings, name, legs):
    """The same book with NO levels in their own price and in YES price gives the same kind of asks."""
    path = recordings("rest_ws_demo_jun2026") / f"ws__orderbook_trade_{name}.jsonl"
    frames = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    snapshot = next(f for f in frames if f["type"] == "orderbook_snapshot")
    ticker = snapshot["msg"]["market_ticker"]
    session = session_for([ticker], use_yes_price=legs)

    for frame in frames:
        session.receive(json.dumps(frame), Micros(1), 0.0)

    assert_clean(session)
    book = session.sink.books[ticker]
    # In both recordings the only NO level is a YES ask at 0.52.
    assert session.sink.calls["snapshot"] >= 1
    assert book.is_two_sided
    assert not book.is_crossed
    assert book.depth(Side.ASK, 1)[0][0] == 5200


def test_every_channel_has_one_subscription(recordings):
    """What is asked for at first: all private channels unfiltered, market channels with their list."""
    session = session_for(["A", "B"])
    sent = [json.loads(text) for text in session_for(["A", "B"]).subscriptions.commands(0.0)]
    assert sent == []  # `session_for` has taken the commands already, and none comes twice

    fresh = Subscriptions({"A": None, "B": None}, True)
    commands = [json.loads(text) for text in fresh.commands(0.0)]

    by_channel = {command["params"]["channels"][0]: command["params"] for command in commands}
    assert set(by_channel) == {channel.value for channel in Channel}
    assert by_channel["orderbook_delta"] == {
        "channels": ["orderbook_delta"],
        "market_tickers": ["A", "B"],
        "use_yes_price": True,
    }
    assert by_channel["trade"] == {"channels": ["trade"], "market_tickers": ["A", "B"]}
    assert by_channel["fill"] == {"channels": ["fill"]}
    assert len({command["id"] for command in commands}) == len(commands)
    assert session.subscriptions.pending


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12.50", 1250),
        ("-20.00", -2000),
        ("-0.50", -50),
        ("0.01", 1),
        ("7", 700),
        ("7.5", 750),
        ("-.50", -50),
    ],
)
def test_counts(text, count):
    """The fast way and the careful way agree."""
    assert read_count(text) == count


@pytest.mark.parametrize("text", ["", "1_0.00", "٣.00", " 1.00", "1.005", "--1.00", "1e3", "x.00"])
def test_what_is_no_count(text):
    """No spelling that Python's `int` would take and the venue never sends."""
    with pytest.raises(ValueError):
        read_count(text)

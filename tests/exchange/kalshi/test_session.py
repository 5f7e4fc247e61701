"""One connection without a socket: gaps, lost subscriptions, unreadable frames, and what is asked for next."""

import itertools
import json

import pytest
from structlog.testing import capture_logs

from mm.domain.book import OrderBook
from mm.domain.numbers import Micros
from mm.domain.order import Side
from mm.exchange.kalshi.frames import FrameReader
from mm.exchange.kalshi.reading import Codec
from mm.exchange.kalshi.session import FeedLost, FeedSession, FrameCounts
from mm.exchange.kalshi.subscriptions import REPLY_TIMEOUT_S, Subscriptions
from mm.exchange.port import MarketEventKind, OrderStatus

NOW = Micros(1_796_166_600_000_000)
BOOK, TRADE, FILL, ORDERS, GROUPS, LIFE = 1, 2, 3, 4, 5, 6
SIDS = {
    "orderbook_delta": BOOK,
    "trade": TRADE,
    "fill": FILL,
    "user_orders": ORDERS,
    "order_group_updates": GROUPS,
    "market_lifecycle_v2": LIFE,
}


class Sink:
    """Folds books like the real one and notes everything else."""

    def __init__(self):
        self.books = {}
        self.out_of_sync = []
        self.notes = []

    def on_snapshot(self, ticker, bids, asks, now):
        self.books.setdefault(ticker, OrderBook()).snapshot(bids, asks)

    def on_delta(self, ticker, side, price, change, ts):
        self.books[ticker].apply_delta(side, price, change)

    def on_out_of_sync(self, tickers, why):
        self.out_of_sync.append((list(tickers), why))

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self.notes.append((name, *args))


class Line:
    """A session with the venue's side of the talk played by hand."""

    def __init__(self, *tickers, subaccount=0):
        reader = Codec()
        self.sink = Sink()
        self.session = FeedSession(
            self.sink,
            Subscriptions(dict.fromkeys(tickers), True),
            reader,
            FrameReader(reader.tally, True),
            FrameCounts(),
            subaccount,
        )
        self.at = 0.0
        self.seq = dict.fromkeys(SIDS.values(), 0)
        self.sids = dict(SIDS)

    @property
    def subscriptions(self):
        return self.session.subscriptions

    @property
    def tally(self):
        return self.session.codec.tally

    def sent(self):
        return [json.loads(text) for text in self.session.commands(self.at)]

    def get(self, kind, msg=None, *, sid=None, seq=None, command_id=None, **extra):
        frame = {"type": kind, **extra}
        if msg is not None:
            frame["msg"] = msg
        if sid is not None:
            frame["sid"] = sid
            if sid not in (FILL, ORDERS):
                if seq is None:
                    seq = self.seq.get(sid, 0) + 1
                self.seq[sid] = frame["seq"] = seq
        if command_id is not None:
            frame["id"] = command_id
        self.session.receive(json.dumps(frame), NOW, self.at)

    def establish(self):
        for command in self.sent():
            self.grant(command)
        return self

    def grant(self, command, sid=None):
        channel = command["params"]["channels"][0]
        sid = sid or self.sids[channel]
        self.seq[sid] = 0
        self.get("subscribed", {"channel": channel, "sid": sid}, command_id=command["id"])

    def snapshot(self, ticker="A", sid=BOOK, **extra):
        msg = {
            "market_ticker": ticker,
            "yes_dollars_fp": [["0.4000", "50.00"]],
            "no_dollars_fp": [["0.4400", "30.00"]],
        }
        self.get("orderbook_snapshot", msg, sid=sid, **extra)

    def delta(self, ticker="A", price="0.4000", change="1.00", side="yes", sid=BOOK, **extra):
        msg = {"market_ticker": ticker, "price_dollars": price, "delta_fp": change, "side": side, "ts_ms": 5}
        self.get("orderbook_delta", msg, sid=sid, **extra)


@pytest.fixture(name="line")
def _line():
    line = Line("A", "B").establish()
    line.snapshot("A")
    line.snapshot("B")
    line.sent()
    return line


def snapshots_asked(commands):
    return [c["params"]["market_tickers"] for c in commands if c["params"].get("action") == "get_snapshot"]


def test_deltas_fold_in_yes_price(line):
    """NO levels come as YES asks since we asked for that."""
    line.delta(change="2.50")
    line.delta(price="0.4400", side="no", change="-30.00")

    assert line.sink.books["A"].bids == {4000: 5250}
    assert line.sink.books["A"].asks == {}
    assert line.sink.out_of_sync == []


def test_a_gap_makes_every_book_of_the_subscription_stale_until_its_snapshot(line):
    """`seq` counts over all markets: a missed frame may have been anybody's."""
    line.delta(seq=7)

    assert line.sink.out_of_sync[0][0] == ["A", "B"]
    assert line.session.counts.gaps == 1
    assert snapshots_asked(line.sent()) == [["A", "B"]]

    line.delta("A", seq=8)
    assert line.sink.books["A"].bids == {4000: 5000}, "a delta before the new snapshot is not folded"
    line.snapshot("A", seq=9)
    line.delta("A", seq=10)
    assert line.sink.books["A"].bids == {4000: 5100}
    assert line.subscriptions.synced == {"A"}


def test_replies_take_numbers_of_the_sequence(line):
    """`ok` on a sequenced channel is counted, so that the next delta is no gap."""
    line.subscriptions.wanted["C"] = None
    (add_book, add_trade) = line.sent()
    line.get("ok", {"market_tickers": ["A", "B", "C"]}, sid=BOOK, command_id=add_book["id"])
    line.get("ok", {"market_tickers": ["A", "B", "C"]}, sid=TRADE, command_id=add_trade["id"])
    line.snapshot("C")
    line.delta("C")

    assert line.session.counts.gaps == 0
    assert line.sink.out_of_sync == []
    assert add_book["params"] == {"sids": [BOOK], "action": "add_markets", "market_tickers": ["C"]}
    assert not line.subscriptions.pending


@pytest.mark.parametrize("seq", [2, 1], ids=["repeated", "backwards"])
def test_a_sequence_that_stands_still_or_goes_back_is_a_gap_too(line, seq):
    """Whatever is not the next number leaves the books in doubt."""
    line.delta(seq=seq)

    assert line.sink.out_of_sync[0][0] == ["A", "B"]


def test_a_first_frame_that_is_not_number_one_is_a_gap():
    """A subscription begins at 1."""
    line = Line("A").establish()
    line.snapshot("A", seq=3)

    assert line.session.counts.gaps == 1
    # The snapshot itself is whole; what came before it does not matter to it.
    assert line.subscriptions.synced == {"A"}


def test_a_gap_on_trades_is_counted_and_touches_no_book(line):
    """A missed print cannot be asked for again."""
    line.get("trade", {"market_ticker": "A"}, sid=TRADE, seq=5)

    assert line.session.counts.gaps == 1
    assert line.sink.out_of_sync == []


@pytest.mark.parametrize("code", [10, 25])
def test_a_dropped_subscription_is_made_anew(line, code):
    """10 and 25 end the subscription and not the socket: all its books are stale, and it is asked for again."""
    line.get("error", {"code": code, "msg": "overflow"}, sid=BOOK)

    assert line.sink.out_of_sync[0][0] == ["A", "B"]
    (command,) = line.sent()
    assert command["cmd"] == "subscribe"
    assert command["params"]["market_tickers"] == ["A", "B"]

    line.grant(command, sid=9)
    line.delta("A", sid=BOOK, seq=4)  # a late frame of the dead one
    line.snapshot("A", sid=9)
    line.delta("A", sid=9)
    assert line.sink.books["A"].bids == {4000: 5100}
    assert line.session.counts.gaps == 1


def test_a_subscription_that_is_dropped_again_and_again_is_not_asked_for_in_a_hot_loop(line):
    """The second time waits, the third waits longer."""
    asked = []
    sid = BOOK
    for _ in range(4):
        line.get("error", {"code": 25, "msg": "overflow"}, sid=sid)
        while not (commands := line.sent()):
            line.at = line.subscriptions.next_due()
        asked.append(line.at)
        sid += 10
        line.grant(commands[0], sid=sid)

    assert [b - a for a, b in itertools.pairwise(asked)] == [1.0, 2.0, 4.0]


def test_a_dropped_private_channel_is_made_anew_without_touching_books(line):
    """Fills missed meanwhile are the reconciler's to find."""
    line.get("error", {"code": 25, "msg": "overflow"}, sid=FILL)

    (command,) = line.sent()
    assert command["params"] == {"channels": ["fill"]}
    assert line.sink.out_of_sync == []


def test_a_terminal_error_that_names_nothing_ends_the_connection(line):
    """Nobody knows which subscription is gone."""
    with pytest.raises(FeedLost):
        line.get("error", {"code": 25, "msg": "overflow"})


def test_a_negative_level_makes_that_market_stale(line):
    """The sink says so by `BookOutOfSync`; only this market waits for a snapshot."""
    line.delta("A", change="-51.00")

    assert line.sink.out_of_sync[0][0] == ["A"]
    assert snapshots_asked(line.sent()) == [["A"]]
    line.delta("B")
    assert line.sink.books["B"].bids == {4000: 5100}


def test_a_delta_before_the_first_snapshot(line):
    """It cannot be folded: a snapshot is asked for instead of waiting for the one that should have come."""
    line.subscriptions.wanted["C"] = None
    line.sent()
    line.delta("C")

    assert line.sink.out_of_sync[0][0] == ["C"]
    assert snapshots_asked(line.sent()) == [["C"]]
    assert "C" not in line.sink.books


def test_a_market_whose_snapshot_never_comes_is_asked_for_with_growing_patience(line):
    """An unknown market is accepted in silence: neither a hot loop nor a reconnect."""
    line.subscriptions.wanted["NONE"] = None
    asked = []
    for _ in range(6):
        line.at = max(line.at, line.subscriptions.next_due())
        if snapshots_asked(line.sent()):
            asked.append(line.at)

    waits = [b - a for a, b in itertools.pairwise(asked)]
    assert waits == sorted(waits)
    assert waits[0] >= 3.0
    assert line.subscriptions.overdue(line.at) is None


def test_get_snapshot_that_is_not_supported_becomes_a_new_subscription(line):
    """A venue without `get_snapshot` gives snapshots to a new subscription."""
    line.delta(seq=9)
    (command,) = line.sent()
    line.get("error", {"code": 13, "msg": "Unsupported action"}, command_id=command["id"])

    commands = line.sent()
    assert [c["cmd"] for c in commands] == ["unsubscribe", "subscribe"]
    assert commands[0]["params"] == {"sids": [BOOK]}


def test_a_refused_subscribe_is_tried_again_later(line):
    """Error 27 (too many requests) and the like: later, not at once."""
    fresh = Line("A")
    commands = fresh.sent()
    for command in commands:
        fresh.get("error", {"code": 27, "msg": "too many requests"}, command_id=command["id"])

    assert fresh.sent() == []
    fresh.at = fresh.subscriptions.next_due()
    assert fresh.at >= 1.0
    assert len(fresh.sent()) == len(commands)


def test_a_subscribe_that_nobody_answers_makes_the_connection_sick():
    """The stream then reconnects."""
    line = Line("A")
    line.sent()

    assert line.subscriptions.overdue(REPLY_TIMEOUT_S - 0.1) is None
    assert line.subscriptions.next_due() == REPLY_TIMEOUT_S
    assert "no answer" in line.subscriptions.overdue(REPLY_TIMEOUT_S)


def test_markets_come_and_go(line):
    """Only the difference is sent; the last one out ends the subscription, since an empty list may mean all."""
    del line.subscriptions.wanted["A"]
    line.subscriptions.forget(["A"])
    commands = line.sent()
    assert [c["params"]["action"] for c in commands] == ["delete_markets", "delete_markets"]
    line.delta("A")
    assert line.sink.books["A"].bids == {4000: 5000}, "nothing of it is delivered any more"

    del line.subscriptions.wanted["B"]
    line.subscriptions.forget(["B"])
    assert [c["cmd"] for c in line.sent()] == ["unsubscribe", "unsubscribe"]
    line.get("unsubscribed", sid=BOOK)
    assert line.sent() == []

    line.subscriptions.wanted["C"] = None
    assert [c["cmd"] for c in line.sent()] == ["subscribe", "subscribe"]
    assert line.tally.malformed == 0


def test_unknown_frames_are_counted_and_logged_once(line):
    """A frame type of tomorrow stops nothing."""
    with capture_logs() as logs:
        for _ in range(3):
            line.get("quantum_ticker", {}, sending_ts_ms=1)

    assert line.tally.unknown_frames == 3
    assert [entry["type"] for entry in logs] == ["quantum_ticker"]


def test_unknown_fields_in_hot_frames_are_counted_and_change_nothing(line):
    """A delta with a new key is folded all the same."""
    msg = {"market_ticker": "A", "price_dollars": "0.4000", "delta_fp": "1.00", "side": "yes", "novel": 1}
    line.get("orderbook_delta", msg, sid=BOOK, sending_ts_ms=1)

    assert line.tally.unknown_fields == 1
    assert line.sink.books["A"].bids == {4000: 5100}


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"type": 7}', '{"id": 1}', '"x"'])
def test_what_is_no_frame_is_counted(line, text):
    """Garbage between frames is counted and survived."""
    line.session.receive(text, NOW, 0.0)

    assert line.tally.malformed + line.tally.unknown_frames == 1


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_blank_lines_are_no_frames(line, text):
    """The venue ends frames with a newline and sends blank lines."""
    before = line.session.counts.frames
    line.session.receive(text, NOW, 0.0)

    assert line.session.counts.frames == before
    assert line.tally.malformed == 0


@pytest.mark.parametrize(
    "change",
    [{"price_dollars": 0.4}, {"delta_fp": None}, {"side": "bid"}, {"price_dollars": "0.40005"}],
)
def test_a_delta_that_cannot_be_read_makes_its_market_stale(line, change):
    """A change was missed as surely as with a gap."""
    msg = {"market_ticker": "A", "price_dollars": "0.4000", "delta_fp": "1.00", "side": "yes"}
    line.get("orderbook_delta", {**msg, **change}, sid=BOOK)

    assert line.sink.out_of_sync[0][0] == ["A"]
    assert line.tally.malformed == 1


def test_a_book_frame_without_a_market_makes_all_books_stale(line):
    """It may have been anybody's."""
    line.get("orderbook_delta", {}, sid=BOOK)

    assert line.sink.out_of_sync[0][0] == ["A", "B"]


def test_an_error_of_the_sink_is_a_bug_and_no_bad_frame(line):
    """Only reading is forgiven; what happens behind the sink comes through."""

    def broken(*args):
        raise KeyError("bug")

    line.sink.on_delta = broken

    with pytest.raises(KeyError, match="bug"):
        line.delta("A")


def test_trades_of_watched_markets(line):
    """The taker's side from the new fields, time in microseconds; other markets' prints are not ours."""
    msg = {
        "trade_id": "t",
        "market_ticker": "A",
        "yes_price_dollars": "0.4300",
        "no_price_dollars": "0.5700",
        "count_fp": "2.00",
        "taker_side": "no",
        "taker_outcome_side": "yes",
        "taker_book_side": "bid",
        "is_block_trade": True,
        "ts": 1_796_166_600,
        "ts_ms": 1_796_166_600_200,
    }
    line.get("trade", msg, sid=TRADE)
    line.get("trade", {**msg, "market_ticker": "Z"}, sid=TRADE)
    del msg["ts_ms"], msg["ts"]
    line.get("trade", msg, sid=TRADE, sending_ts_ms=77)

    (_, first), (_, third) = line.sink.notes
    assert (first.taker_side, first.price, first.count, first.is_block) == (Side.BID, 4300, 200, True)
    assert first.ts == 1_796_166_600_200_000
    assert third.ts == 77_000


FILL_MSG = {
    "trade_id": "t",
    "order_id": "o",
    "client_order_id": "q-1",
    "market_ticker": "A",
    "exchange_index": 0,
    "is_taker": False,
    "side": "yes",
    "yes_price_dollars": "0.4100",
    "count_fp": "2.00",
    "fee_cost": "0.008500",
    "action": "buy",
    "ts": 1_796_166_601,
    "ts_ms": 1_796_166_601_000,
    "post_position_fp": "12.00",
    "purchased_side": "yes",
    "outcome_side": "yes",
    "book_side": "bid",
    "subaccount": 0,
}
ORDER_MSG = {
    "order_id": "o",
    "user_id": "u",
    "ticker": "A",
    "exchange_index": 0,
    "status": "canceled",
    "side": "yes",
    "is_yes": True,
    "outcome_side": "no",
    "book_side": "ask",
    "yes_price_dollars": "0.4100",
    "fill_count_fp": "2.00",
    "remaining_count_fp": "0.00",
    "initial_count_fp": "10.00",
    "taker_fill_cost_dollars": "0.000000",
    "maker_fill_cost_dollars": "0.820000",
    "taker_fees_dollars": "0.000000",
    "maker_fees_dollars": "0.008500",
    "client_order_id": "",
    "self_trade_prevention_type": "taker_at_cross",
    "created_time": "2026-12-01T23:10:00.123456Z",
    "created_ts_ms": 1_796_166_600_123,
    "last_updated_ts_ms": 1_796_166_601_000,
    "last_update_reason": "HaltCancel",
    "subaccount_number": 0,
    "order_group_id": "g",
    "expiration_ts_ms": 1_796_166_660_000,
}


def test_fills_and_orders_of_ours(line):
    """All markets, no filter: they come whether or not the market is watched."""
    line.get("fill", {**FILL_MSG, "market_ticker": "Z"}, sid=FILL)
    line.get("user_order", ORDER_MSG, sid=ORDERS)

    (_, fill), (_, report) = line.sink.notes
    assert (fill.ticker, fill.side, fill.price, fill.count, fill.fee) == ("Z", Side.BID, 4100, 200, 8500)
    assert (fill.client_order_id, fill.ts) == ("q-1", 1_796_166_601_000_000)
    assert report.status is OrderStatus.CANCELLED
    assert (report.side, report.remaining, report.reason) == (Side.ASK, 0, "HaltCancel")
    assert report.client_order_id is None
    assert report.group_id == "g"
    assert report.expires_at == 1_796_166_660_000_000
    assert report.updated_at == 1_796_166_601_000_000
    assert line.tally.unknown_fields == 0


def test_another_subaccounts_orders_are_not_ours(line):
    """Counted as left out."""
    line.get("fill", {**FILL_MSG, "subaccount": 3}, sid=FILL)
    line.get("user_order", {**ORDER_MSG, "subaccount_number": 3}, sid=ORDERS)
    line.get("user_order", {**ORDER_MSG, "status": "unknown"}, sid=ORDERS)

    assert line.sink.notes == []
    assert line.tally.skipped == 3


def test_lifecycle_of_any_market_is_delivered(line):
    """Discovery lives on markets that nobody watches yet."""
    line.get(
        "market_lifecycle_v2",
        {
            "market_ticker": "Z-1",
            "event_type": "created",
            "exchange_index": 0,
            "open_ts": 1,
            "close_ts": 1_796_339_400,
            "additional_metadata": {"name": "n", "title": "t", "event_ticker": "Z"},
            "price_level_structure": "linear_cent",
            "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
        },
        sid=LIFE,
    )
    line.get(
        "market_lifecycle_v2",
        {
            "market_ticker": "A",
            "event_type": "determined",
            "determination_ts": 1,
            "result": "yes",
            "settlement_value": "0.5000",
        },
        sid=LIFE,
    )
    line.get("market_lifecycle_v2", {"market_ticker": "A", "event_type": "metadata_updated"}, sid=LIFE)
    line.get("event_lifecycle", {"event_ticker": "Z"}, sid=LIFE)
    line.get(
        "event_fee_update",
        {"event_ticker": "Z", "fee_type_override": None, "fee_multiplier_override": 1.0},
        sid=LIFE,
    )

    created, determined, other, fees = [event for _, event in line.sink.notes]
    assert (created.kind, created.event_ticker) == (MarketEventKind.CREATED, "Z")
    assert created.close_time == 1_796_339_400_000_000
    assert len(created.grid.prices) == 99
    assert (determined.kind, determined.settlement_value) == (MarketEventKind.DETERMINED, 5000)
    assert other.kind is MarketEventKind.OTHER
    assert (fees.kind, fees.event_ticker) == (MarketEventKind.FEES_CHANGED, "Z")
    assert line.tally.unknown_frames == line.tally.unknown_fields == 0


def test_a_triggered_group(line):
    """Only the trigger is news; the rest of a group's life is our own doing."""
    line.get("order_group_updates", {"event_type": "created", "order_group_id": "g"}, sid=GROUPS)
    line.get(
        "order_group_updates", {"event_type": "triggered", "order_group_id": "g", "ts_ms": 1}, sid=GROUPS
    )

    assert line.sink.notes == [("on_group_triggered", "g")]

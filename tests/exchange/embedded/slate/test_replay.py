"""A recording as markets: what is read, what is refused, and that the core's books are the recorded ones."""

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio.testing

from mm.domain.book import OrderBook
from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side, TimeInForce
from mm.exchange.embedded.core.events import FillReported
from mm.exchange.embedded.core.model import OrderRequest
from mm.exchange.embedded.slate.recording import (
    ReplayError,
    StepKind,
    infer_grid,
    load_recording,
    structure_name,
)
from mm.exchange.embedded.slate.replay import RECORDED, TAKERS, Replay, ReplayedMarket

TICKER = MarketTicker("KXNHLGAME-26NOV24VGKMIN-VGK")
MLB = "ws_mlb_wnba_verbatim/ws_orderbook_stream.jsonl.gz"
BTC = [
    f"ws_btc15m_fulldepth/{name}.jsonl.gz"
    for name in ("20260513T202034Z", "20260513T230108Z", "20260514T043808Z")
]


class Tape:
    """Writes recordings in the recorder's words."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at_ms = 1_790_000_000_000
        self.seq: dict[int, itertools.count[int]] = {}
        self.lines: list[bytes] = []

    def line(self, frame: dict[str, Any], conn: int = 1, after_ms: int = 100) -> None:
        self.at_ms += after_ms
        self.lines.append(orjson.dumps({"recv_ns": self.at_ms * 1_000_000, "conn": conn, "frame": frame}))

    def frame(
        self, kind: str, conn: int = 1, skip: int = 0, ticker: str = TICKER, after_ms: int = 100, **msg: Any
    ) -> None:
        counter = self.seq.setdefault(conn, itertools.count(1))
        for _ in range(skip):
            next(counter)
        content = {"market_ticker": ticker, **msg}
        self.line({"type": kind, "sid": 1, "seq": next(counter), "msg": content}, conn, after_ms)

    def snapshot(self, yes: list[list[str]], no: list[list[str]], **more: Any) -> None:
        sides = {"yes_dollars_fp": yes, "no_dollars_fp": no}
        self.frame("orderbook_snapshot", **{k: v for k, v in sides.items() if v}, **more)

    def delta(self, side: str, price: str, change: str, **more: Any) -> None:
        self.frame("orderbook_delta", side=side, price_dollars=price, delta_fp=change, **more)

    def trade(self, price: str, count: str, taker: str) -> None:
        self.line(
            {
                "type": "trade",
                "sid": 2,
                "msg": {
                    "market_ticker": TICKER,
                    "yes_price_dollars": price,
                    "count_fp": count,
                    "taker_book_side": taker,
                },
            }
        )

    def write(self) -> Path:
        self.path.write_bytes(b"\n".join(self.lines) + b"\n")
        return self.path


@pytest.fixture(name="tape")
def _tape(tmp_path: Path) -> Tape:
    return Tape(tmp_path / "tape.jsonl")


@pytest.fixture(name="book_tape")
def _book_tape(tape: Tape) -> Tape:
    """50 x 100 and 49 x 200 bid, 52 x 100 and 53 x 300 offered."""
    tape.snapshot([["0.4900", "200.00"], ["0.5000", "100.00"]], [["0.4700", "300.00"], ["0.4800", "100.00"]])
    return tape


def start(venue: Any, tape: Tape) -> tuple[Replay, ReplayedMarket]:
    """Open a tape's replay, with a client on the exchange."""
    replay = Replay.load(tape.write())
    replay.open(venue)
    venue.core.add_user("client")
    venue.core.deposit(venue.now, "client", 0, Money(1_000_000_000))
    return replay, replay.markets[TICKER]


def place(venue: Any, side: Side, price: int, count: int, *, is_ioc: bool = False) -> str:
    request = OrderRequest(
        ticker=TICKER,
        side=side,
        price=Price(price * CENT),
        count=Count(count * 100),
        time_in_force=TimeInForce.IOC if is_ioc else TimeInForce.GTC,
        post_only=not is_ioc,
    )
    return venue.core.create(venue.now, "client", request).order_id


def client_fills(venue: Any) -> list[tuple[Side, int, int, bool]]:
    return [
        (event.fill.side, event.fill.price // CENT, event.fill.count // 100, event.fill.is_taker)
        for event in venue.log
        if isinstance(event, FillReported) and event.fill.user_id == "client"
    ]


def books_without(venue: Any, market: ReplayedMarket) -> tuple[dict[Price, int], dict[Price, int]]:
    """The public book less the client's own orders."""
    found = []
    for side in (market.state.book.bids, market.state.book.asks):
        levels = dict(side.depth())
        for order in side.orders():
            if order.user_id not in (RECORDED, TAKERS):
                levels[order.price] = Count(levels[order.price] - order.remaining)
        found.append({price: count for price, count in levels.items() if count})
    return found[0], found[1]


def assert_as_recorded(venue: Any, market: ReplayedMarket) -> None:
    """Public book less own orders = recorded book less what clients took and less what waits."""
    bids, asks = books_without(venue, market)
    for side, found, recorded in (
        (Side.BID, bids, market.recorded.bids),
        (Side.ASK, asks, market.recorded.asks),
    ):
        expected = {
            price: count - market.deficit(side, price)
            for price, count in recorded.items()
            if not market.is_waiting(side, price) and count > market.deficit(side, price)
        }
        assert found == expected


class TestReading:
    def test_two_formats_plain_and_gzip(self, tmp_path: Path) -> None:
        """`received_ms` and `recv_ns` lines, plain or gzip, give the same steps."""
        frame = {
            "type": "orderbook_snapshot",
            "sid": 1,
            "seq": 1,
            "msg": {"market_ticker": TICKER, "yes_dollars_fp": [["0.4000", "1.50"]]},
        }
        contents = [
            orjson.dumps({"received_ms": 1000, "frame": frame}),
            orjson.dumps({"recv_ns": 1_000_000_000, "conn": 3, "frame": frame}),
        ]
        found = []
        for i, content in enumerate(contents):
            plain, packed = tmp_path / f"{i}.jsonl", tmp_path / f"{i}.jsonl.gz"
            plain.write_bytes(content + b"\n")
            packed.write_bytes(gzip.compress(content + b"\n"))
            found += [load_recording(plain).steps, load_recording(packed).steps]

        assert all(steps == found[0] for steps in found)
        assert found[0][0].bids == ((4000, 150),)
        assert found[0][0].asks == ()

    def test_replies_count_in_the_sequence(self, book_tape: Tape) -> None:
        """An `ok` with a seq is no gap."""
        book_tape.frame("ok", market_tickers=[TICKER])
        book_tape.delta("yes", "0.5000", "5.00")
        recording = load_recording(book_tape.write())

        assert [step.kind for step in recording.steps] == [StepKind.SNAPSHOT, StepKind.DELTA]
        assert recording.ignored == {"ok": 1}

    def test_after_a_gap_only_a_snapshot_helps(self, book_tape: Tape) -> None:
        """Deltas behind a gap are left out and counted, until the book is told anew."""
        book_tape.delta("yes", "0.5000", "5.00", skip=2)
        book_tape.delta("yes", "0.5000", "6.00")
        book_tape.snapshot([["0.4400", "1.00"]], [])
        book_tape.delta("yes", "0.4400", "2.00")
        recording = load_recording(book_tape.write())

        assert recording.ignored == {"after gap": 2}
        assert recording.books_at_end()[TICKER].bids == {4400: 300}

    def test_one_connection_at_a_time(self, book_tape: Tape) -> None:
        """After a resubscription on a new connection the old one's frames for that market no longer count."""
        book_tape.snapshot([["0.4400", "1.00"]], [], conn=2)
        book_tape.delta("yes", "0.5000", "5.00", conn=1)
        book_tape.delta("yes", "0.4400", "5.00", conn=2)
        recording = load_recording(book_tape.write())

        assert recording.ignored == {"superseded": 1}
        assert recording.books_at_end()[TICKER].bids == {4400: 600}

    @pytest.mark.parametrize(
        "damage, problem",
        [
            (b"{not json", "not JSON"),
            (b"[1]", "not a JSON object"),
            (b'{"received_ms":1,"frame":{"type":"orderbook_delta","sid":1,"msg":{}}}', "market_ticker"),
            (b'{"frame":{}}', "received_ms"),
            (
                b'{"recv_ns":1,"conn":1,"frame":{"type":"orderbook_delta","sid":1,"msg":{"market_ticker":'
                b'"KXNHLGAME-26NOV24VGKMIN-VGK","side":"yes","price_dollars":"0.5000","delta_fp":"-101.00"}}}',
                "would hold",
            ),
            (
                b'{"recv_ns":1,"conn":1,"frame":{"type":"orderbook_delta","sid":1,"msg":{"market_ticker":'
                b'"KXNHLGAME-26NOV24VGKMIN-VGK","side":"yes","price_dollars":"1.5000","delta_fp":"1.00"}}}',
                "outside",
            ),
            (
                b'{"recv_ns":1,"conn":1,"frame":{"type":"orderbook_delta","sid":1,"msg":{"market_ticker":'
                b'"KXNHLGAME-26NOV24VGKMIN-VGK","side":"yes","price_dollars":"abc","delta_fp":"1.00"}}}',
                "decimal",
            ),
        ],
    )
    def test_damage_is_named_with_its_line(self, book_tape: Tape, damage: bytes, problem: str) -> None:
        """The error names the file, the line and what is wrong there."""
        book_tape.lines.append(damage)
        path = book_tape.write()

        with pytest.raises(ReplayError, match=problem) as caught:
            load_recording(path)

        assert caught.value.line == 2
        assert f"{path}, line 2" in str(caught.value)

    def test_cut_gzip(self, book_tape: Tape, tmp_path: Path) -> None:
        """A gzip file that ends early or is garbled inside is refused with a line."""
        for _ in range(200):
            book_tape.delta("yes", "0.5000", "1.00")
        whole = gzip.compress(book_tape.write().read_bytes())
        path = tmp_path / "cut.jsonl.gz"
        path.write_bytes(whole[: len(whole) // 2])

        with pytest.raises(ReplayError, match="gzip data is damaged") as caught:
            load_recording(path)

        assert caught.value.line is not None

    def test_nothing_to_replay(self, tmp_path: Path) -> None:
        """A missing file, a folder and a file without books are refused by name."""
        empty = tmp_path / "empty.jsonl"
        empty.write_bytes(b"\n")

        for path, problem in (
            (tmp_path / "none", "cannot be read"),
            (tmp_path, "cannot"),
            (empty, "no order book"),
        ):
            with pytest.raises(ReplayError, match=problem):
                load_recording(path)

    @pytest.mark.parametrize(
        "prices, name",
        [
            ({100, 5000}, "linear_cent"),
            ({10, 5000, 9990}, "tapered_deci_cent"),
            ({5010}, "deci_cent"),
            ({5001}, "center_centi_edge_centi_cent"),
        ],
    )
    def test_grid_is_inferred(self, prices: set[int], name: str) -> None:
        """The coarsest usual grid that holds every recorded price."""
        grid = infer_grid({Price(price) for price in prices})

        assert structure_name(grid) == name
        assert all(grid.is_valid(Price(price)) for price in prices)


class TestTrading:
    def test_books_stand_at_once(self, venue: Any, book_tape: Tape) -> None:
        """Open: the market is listed with its recorded date, active, with the whole book."""
        _, market = start(venue, book_tape)

        assert market.state.status is MarketStatus.ACTIVE
        assert (market.state.best_bid, market.state.best_ask) == (50 * CENT, 52 * CENT)
        assert_as_recorded(venue, market)

    def test_a_crossing_order_hits_our_quote(self, venue: Any, book_tape: Tape) -> None:
        """Recorded bids leave and an offer comes in through our bid: we are filled first, at our price."""
        book_tape.delta("yes", "0.5000", "-100.00")
        book_tape.delta("no", "0.5000", "40.00")
        replay, market = start(venue, book_tape)
        place(venue, Side.BID, 50, 10)

        venue.play(replay, 1, step_s=0.05)

        assert client_fills(venue) == [(Side.BID, 50, 10, False)]
        assert market.deficit(Side.ASK, Price(5000)) == 1000
        assert market.state.book.asks.total_at(Price(5000)) == 3000
        assert_as_recorded(venue, market)

    def test_shrinking_levels_do_not_move_us_up_first(self, venue: Any, book_tape: Tape) -> None:
        """Without prints a decrease is a cancel behind us: we still wait behind what was there before."""
        book_tape.delta("yes", "0.5000", "50.00", after_ms=500)
        book_tape.delta("yes", "0.5000", "-50.00")
        book_tape.delta("yes", "0.5000", "-30.00")
        replay, market = start(venue, book_tape)
        order = place(venue, Side.BID, 50, 10)

        venue.play(replay, 0.65, step_s=0.05)
        assert venue.core.queue_position("client", order) == 10_000
        venue.play(replay, 1, step_s=0.05)

        assert venue.core.queue_position("client", order) == 7_000
        assert client_fills(venue) == []
        assert_as_recorded(venue, market)

    def test_recorded_trades_eat_the_queue(self, venue: Any, book_tape: Tape) -> None:
        """Prints take from the front, us included; afterwards the book is the recorded one."""
        book_tape.trade("0.5000", "60.00", "ask")
        book_tape.delta("yes", "0.5000", "-60.00")
        book_tape.trade("0.5000", "45.00", "ask")
        book_tape.delta("yes", "0.5000", "-40.00")
        replay, market = start(venue, book_tape)
        place(venue, Side.BID, 50, 10)

        venue.play(replay, 1, step_s=0.05)

        assert client_fills(venue) == [(Side.BID, 50, 5, False)]
        assert market.recorded.bids == {4900: 20_000}
        assert_as_recorded(venue, market)

    def test_what_we_take_stays_taken(self, venue: Any, book_tape: Tape) -> None:
        """Our taker order eats recorded depth; the level stays smaller by that until the recording empties it."""
        book_tape.delta("no", "0.4800", "20.00", after_ms=500)
        book_tape.delta("no", "0.4800", "-100.00", after_ms=500)
        book_tape.delta("no", "0.4800", "-20.00", after_ms=500)
        book_tape.delta("no", "0.4800", "7.00", after_ms=500)
        replay, market = start(venue, book_tape)
        place(venue, Side.BID, 52, 30, is_ioc=True)
        sizes = []

        for _ in range(4):
            venue.play(replay, 0.5, step_s=0.05)
            sizes.append(market.state.book.asks.total_at(Price(5200)) // 100)
            assert_as_recorded(venue, market)

        assert client_fills(venue) == [(Side.BID, 52, 30, True)]
        assert sizes == [90, 0, 0, 7]

    def test_crossed_recordings_wait(self, venue: Any, book_tape: Tape) -> None:
        """An offer recorded before the bid it met has gone stands as soon as the bid is gone; nothing trades."""
        book_tape.delta("no", "0.5000", "25.00")
        book_tape.delta("yes", "0.5000", "-100.00")
        replay, market = start(venue, book_tape)

        venue.play(replay, 0.15, step_s=0.05)
        assert market.is_waiting(Side.ASK, Price(5000))
        assert market.state.best_ask == 52 * CENT
        venue.play(replay, 0.5, step_s=0.05)

        assert market.state.best_ask == 50 * CENT
        assert not market.state.volume
        assert_as_recorded(venue, market)

    def test_pause_and_reactivation(self, venue: Any, book_tape: Tape) -> None:
        """What the exchange cancelled or refused meanwhile is made whole from the recording."""
        for _ in range(40):
            book_tape.delta("yes", "0.4900", "1.00")
        replay, market = start(venue, book_tape)
        venue.core.set_exchange_active(venue.now, 0, False)
        venue.play(replay, 1, step_s=0.05)
        assert market.refusals["exchange_is_paused"]
        venue.core.set_exchange_active(venue.now, 0, True)
        venue.play(replay, 1, step_s=0.05)
        assert_as_recorded(venue, market)

        venue.core.deactivate(venue.now, TICKER)
        venue.play(replay, 1, step_s=0.05)
        venue.core.activate(venue.now, TICKER)
        venue.play(replay, 1, step_s=0.05)

        assert market.recorded.bids[Price(4900)] > 22_000
        assert_as_recorded(venue, market)

    def test_speed_and_the_last_book(self, venue: Any, book_tape: Tape) -> None:
        """At speed 10 a second of recording takes 100 ms; at the end the last book stays."""
        book_tape.delta("yes", "0.5000", "1.00", after_ms=1000)
        replay = Replay.load(book_tape.write(), speed=10.0)
        replay.open(venue)
        venue.play(replay, 0.09)
        assert not replay.is_at_end
        venue.play(replay, 0.02)
        assert replay.is_at_end

        venue.play(replay, 5, step_s=0.5)

        assert replay.markets[TICKER].state.book.bids.total_at(Price(5000)) == 10_100

    async def test_on_trio(
        self, make_venue: Callable[[], Any], book_tape: Tape, autojump_clock: trio.testing.MockClock
    ) -> None:
        """`run` is started with the first book there and keeps the last one until it is cancelled."""
        book_tape.delta("yes", "0.5000", "1.00", after_ms=1000)
        replay = Replay.load(book_tape.write())
        venue = make_venue()
        base, begun = venue.now, trio.current_time()
        venue.clock = lambda: Micros(base + round((trio.current_time() - begun) * SECOND))

        async with trio.open_nursery() as nursery:
            await nursery.start(replay.run, venue)
            book = replay.markets[TICKER].state.book
            assert book.bids.total_at(Price(5000)) == 10_000
            await trio.sleep(60)
            assert book.bids.total_at(Price(5000)) == 10_100
            nursery.cancel_scope.cancel(reason="seen enough")


class TestRealRecordings:
    @pytest.mark.parametrize("name", [MLB, BTC[2]])
    def test_books_equal_a_plain_fold_all_along(
        self, venue: Any, recording_path: Callable[[str], Path], name: str
    ) -> None:
        """With a client that quotes and takes: public book less its orders = recorded book, fills allowed for."""
        replay = Replay.load(recording_path(name))
        replay.open(venue)
        venue.core.add_user("client")
        venue.core.deposit(venue.now, "client", 0, Money(100_000_000_000))
        plain: dict[MarketTicker, OrderBook] = {}
        step = looks = 0
        while not replay.is_at_end:
            venue.now = replay.next_due
            venue.core.advance(venue.now)
            while replay.work(venue.now):
                pass
            step += 1
            if step % 400 == 1:
                act(venue, replay, step)
            if step % 50 == 0:
                for market in replay.markets.values():
                    if market.state.status is MarketStatus.ACTIVE:
                        assert_as_recorded(venue, market)
                        looks += 1
            venue.log[:] = [event for event in venue.log if isinstance(event, FillReported)]
        plain = replay.recording.books_at_end()

        assert looks > 30
        assert {t: (b.bids, b.asks) for t, b in plain.items()} == {
            t: (m.recorded.bids, m.recorded.asks) for t, m in replay.markets.items()
        }
        if name != MLB:
            assert len(client_fills(venue)) > 20

    @pytest.mark.parametrize("name", [MLB, *BTC])
    def test_untouched_books_are_the_recorded_ones(
        self, venue: Any, recording_path: Callable[[str], Path], name: str
    ) -> None:
        """Without clients, the core's books at the end equal the fold of the file, level by level."""
        replay = Replay.load(recording_path(name), speed=100.0)
        replay.open(venue)
        venue.play(replay, replay.duration / SECOND + 1, each=venue.log.clear, step_s=0.05)
        end = replay.recording.books_at_end()

        assert replay.is_at_end
        assert set(end) == set(replay.markets)
        for ticker, market in replay.markets.items():
            assert dict(market.state.book.bids.depth()) == end[ticker].bids
            assert dict(market.state.book.asks.depth()) == end[ticker].asks

    def test_all_baseball_books_are_there_at_once(
        self, venue: Any, recording_path: Callable[[str], Path]
    ) -> None:
        """All twelve games of the recording are listed and two-sided at the start."""
        replay = Replay.load(recording_path(MLB))
        replay.open(venue)

        assert len(venue.core.markets()) == 12
        assert all(m.best_bid and m.best_ask for m in venue.core.markets().values())

    def test_bitcoin_market_closes_and_the_next_one_comes(
        self, venue: Any, recording_path: Callable[[str], Path]
    ) -> None:
        """Tenth-of-a-cent edges; the market closes at its recorded time, the one it rotated to stays active."""
        replay = Replay.load(recording_path(BTC[0]), speed=200.0)
        replay.open(venue)
        venue.play(replay, replay.duration / SECOND + 1, each=venue.log.clear, step_s=0.05)
        first, second = replay.markets.values()

        assert first.state.price_level_structure == "tapered_deci_cent"
        assert first.state.grid.is_valid(Price(9910))
        assert not first.state.grid.is_valid(Price(5010))
        assert first.state.status is MarketStatus.CLOSED
        assert second.state.status is MarketStatus.ACTIVE


def act(venue: Any, replay: Replay, step: int) -> None:
    """A client: cancels what it has, joins both touches, and now and then takes."""
    venue.core.cancel_all(venue.now, "client")
    for ticker, market in replay.markets.items():
        bid, ask = market.state.best_bid, market.state.best_ask
        if market.state.status is not MarketStatus.ACTIVE or bid is None or ask is None:
            continue
        for side, price in ((Side.BID, bid), (Side.ASK, ask)):
            request = OrderRequest(ticker=ticker, side=side, price=price, count=Count(1000), post_only=True)
            venue.core.create(venue.now, "client", request)
        if step % 2000 == 1:
            taker = OrderRequest(
                ticker=ticker, side=Side.BID, price=ask, count=Count(50), time_in_force=TimeInForce.IOC
            )
            venue.core.cancel_all(venue.now, "client")
            venue.core.create(venue.now, "client", taker)


# --- what a recording does not tell ---


@pytest.mark.parametrize("infers, filled", [(False, 0), (True, 20)])
def test_a_best_level_that_shrinks_may_count_as_traded(
    venue: Any, book_tape: Tape, infers: bool, filled: int
) -> None:
    """Off, the newest orders are cancelled; on, the queue is eaten from the front, a client in it included.

    100 stand before the client's 30: 60 go, 50 come behind, 60 go again, which are the 40 in front and 20 of the client.
    """
    book_tape.delta("yes", "0.5000", "-60.00", after_ms=2_000)
    book_tape.delta("yes", "0.5000", "50.00")
    book_tape.delta("yes", "0.5000", "-60.00")
    book_tape.delta("yes", "0.4900", "-30.00")
    replay = Replay.load(book_tape.write(), infers_trades=infers)
    replay.open(venue)
    venue.core.add_user("client")
    venue.core.deposit(venue.now, "client", 0, Money(1_000_000_000))
    order_id = place(venue, Side.BID, 50, 30)
    venue.play(replay, 3)
    assert replay.is_at_end
    assert venue.core.order("client", order_id).filled == filled * 100
    market = replay.markets[TICKER]
    assert market.recorded.size_at(Side.BID, Price(50 * CENT)) == 30_00
    assert market.recorded.size_at(Side.BID, Price(49 * CENT)) == 170_00, (
        "not the best: cancelled in either case"
    )
    book = venue.core.markets()[TICKER].book.bids
    assert book.total_at(Price(49 * CENT)) == 170_00


def test_trades_are_not_inferred_where_there_are_some(book_tape: Tape) -> None:
    """A recording that tells its trades is believed."""
    book_tape.trade("0.5000", "1.00", "ask")
    assert not Replay.load(book_tape.write(), infers_trades=True).infers_trades


@pytest.mark.parametrize("settles, status", [(False, MarketStatus.CLOSED), (True, MarketStatus.FINALIZED)])
def test_a_closed_market_may_end_as_its_last_book_said(
    venue: Any, book_tape: Tape, settles: bool, status: MarketStatus
) -> None:
    """Bid 50, offered 52: YES."""
    replay = Replay.load(book_tape.write(), settles=settles)
    replay.recording.closes[TICKER] = Micros(replay.recording.steps[-1].at + 5 * SECOND)
    replay.open(venue)
    venue.play(replay, 4)
    assert venue.core.markets()[TICKER].status is MarketStatus.ACTIVE
    assert not settles or replay.next_due is not None
    venue.play(replay, 90, step_s=0.5)
    market = venue.core.markets()[TICKER]
    assert market.status is status
    assert market.settlement_value == (100 * CENT if settles else None)
    assert replay.next_due is None

"""Readers: every recorded format becomes a tape that folds; what is damaged is refused with file, line and what was expected."""

import gzip
import os
from pathlib import Path

import pytest

from mm.domain.book import OrderBook
from mm.domain.errors import ConfigError
from mm.domain.numbers import Count, Price
from mm.domain.order import Side
from mm.research.command import Request, read_all, run_recordings
from mm.research.formats import read_recording
from mm.research.lines import BadRecording
from mm.research.tape import BookSource, Kind, Tape
from mm.research.variants import parse_variants

DATA = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[2] / "../shared/data"))
needs_recordings = pytest.mark.skipif(not DATA.is_dir(), reason="no recordings (MM_RECORDINGS)")
SNAPSHOT = (
    '{"recv_ns":1790000000000000000,"conn":1,"frame":{"type":"orderbook_snapshot","sid":2,"seq":1,"msg":'
    '{"market_ticker":"KXNHLGAME-26OCT12VGKMIN-VGK","yes_dollars_fp":[["0.4000","10.00"]],"no_dollars_fp":[["0.5500","5.00"]]}}}'
)


def delta(seq: int, text: str = '"delta_fp":"-1.00"', at: int = 1) -> str:
    return (
        f'{{"recv_ns":{1_790_000_000 + at}000000000,"conn":1,"frame":{{"type":"orderbook_delta","sid":2,"seq":{seq},"msg":'
        f'{{"market_ticker":"KXNHLGAME-26OCT12VGKMIN-VGK","price_dollars":"0.4000","side":"yes",{text}}}}}}}'
    )


def fold(tape: Tape) -> list[OrderBook]:
    """The last books. Raises when the rows do not fit each other."""
    books = [OrderBook() for _ in tape.markets]
    levels: dict[int, list[tuple[Price, Count]]] = {}
    left = 0
    for kind, place, price, count in zip(tape.kind, tape.market, tape.price, tape.count, strict=True):
        if kind == Kind.SNAPSHOT:
            left, levels = count, {Kind.LEVEL_BID: [], Kind.LEVEL_ASK: []}
            if not left:
                books[place].snapshot([], [])
        elif kind in levels and left:
            levels[kind].append((Price(price), Count(count)))
            left -= 1
            if not left:
                books[place].snapshot(levels[Kind.LEVEL_BID], levels[Kind.LEVEL_ASK])
        elif kind in (Kind.DELTA_BID, Kind.DELTA_ASK):
            side = Side.BID if kind == Kind.DELTA_BID else Side.ASK
            books[place].apply_delta(side, Price(price), Count(count))
    return books


@needs_recordings
@pytest.mark.parametrize(
    ("path", "source", "markets"),
    [
        ("ws_btc15m_fulldepth/20260513T202034Z.jsonl.gz", BookSource.DEPTH, 2),
        ("ws_mlb_wnba_verbatim/ws_orderbook_stream.jsonl.gz", BookSource.DEPTH, 12),
        ("trade_prints_nov2025/KXATPMATCH-25NOV09ALCDE-DE.csv.gz", BookSource.PRINTS, 1),
        ("rest_ws_demo_jun2026/ws__orderbook_trade_noleg.jsonl", BookSource.DEPTH, 1),
        ("rest_ws_demo_jun2026/ws__orderbook_trade_yes.jsonl", BookSource.DEPTH, 1),
        ("rest_ws_demo_jun2026/trades__public_recorded.json", BookSource.PRINTS, 1),
        ("nba_wnba_top_of_book/20260523_NYK_CLE.jsonl.gz", BookSource.TOUCH, 1),
        ("worldcup_top_of_book/snapshots_spain_austria.jsonl.gz", BookSource.TOUCH, 2),
        ("cbb_spread_top_of_book/uconn_sju_20260207.csv", BookSource.TOUCH, 11),
        ("nfl_nba_top_of_book_20251026/quotes.csv.gz", BookSource.TOUCH, 74),
        ("mlb_candles_1m/candles_DETNYY_ML.csv", BookSource.TOUCH, 1),
        ("rest_depth_all_sports/2026-07-23.jsonl.gz", BookSource.TOUCH, 2_086),
    ],
)
def test_every_recorded_format_is_read(path: str, source: BookSource, markets: int) -> None:
    """In order of time, folding without a contradiction, prices within 0..1 dollar and on the market's grid."""
    tape = read_recording(DATA / path)
    assert len(tape.markets) == markets
    assert {market.source for market in tape.markets} == {source}
    assert list(tape.at) == sorted(tape.at)
    fold(tape)
    for place, price in zip(tape.market, tape.price, strict=True):
        assert price == 0 or tape.markets[place].grid.is_valid(Price(price))


@needs_recordings
def test_the_fast_reader_and_the_exchanges_reader_agree() -> None:
    """Two readers of the socket's frames, written apart: the same books at the end."""
    from mm.exchange.embedded.slate.recording import load_recording

    path = DATA / "ws_btc15m_fulldepth/20260513T202034Z.jsonl.gz"
    tape = read_recording(path)
    theirs = load_recording(path).books_at_end()
    for market, book in zip(tape.markets, fold(tape), strict=True):
        assert book.bids == theirs[market.ticker].bids
        assert book.asks == theirs[market.ticker].asks


def refused(tmp_path: Path, text: str | bytes, name: str = "bad.jsonl") -> str:
    """What a file is refused with; nothing is written."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    out = tmp_path / "out.json"
    with pytest.raises(BadRecording) as caught:
        read_recording(path)
    errors = (tmp_path / "stderr").open("w+")
    with errors, (tmp_path / "stdout").open("w") as stdout:
        code = run_recordings(Request(recordings=[path], json_out=out), stdout, errors)
        errors.seek(0)
        assert str(caught.value) in errors.read()
    assert code == 1
    assert not out.exists()
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_damage_is_told_with_file_and_line(tmp_path: Path) -> None:
    """Each kind of damage, once."""
    assert "line 2: not JSON" in refused(tmp_path, SNAPSHOT + '\n{"recv_ns":\n')
    assert "line 3: 'delta_fp' is missing" in refused(
        tmp_path, "\n".join([SNAPSHOT, delta(2), delta(3, '"delta":"1"'), ""])
    )
    assert "(expected frames of the exchange's socket" in refused(
        tmp_path, SNAPSHOT + "\n" + delta(2, '"delta_fp":"x"') + "\n"
    )
    assert "line 2: level bid 4000 would hold -1900" in refused(
        tmp_path, SNAPSHOT + "\n" + delta(2, '"delta_fp":"-29.00"') + "\n"
    )
    assert "line 3: its time is 8.0 s before the line above" in refused(
        tmp_path, "\n".join([SNAPSHOT, delta(2, at=9), delta(3, at=1), ""])
    )
    assert "is empty" in refused(tmp_path, "")
    assert "holds no order book snapshot" in refused(tmp_path, delta(2) + "\n")
    assert "no known format" in refused(tmp_path, '{"a":1}\n')
    assert "no known format" in refused(tmp_path, "a,b\n1,2\n", "bad.csv")
    packed = gzip.compress((SNAPSHOT + "\n" + delta(2) + "\n").encode() * 50)
    assert "the gzip data is damaged or cut off" in refused(tmp_path, packed[:-20], "cut.jsonl.gz")
    assert "line 2: 3 fields, the header has 6" in refused(
        tmp_path, "ticker,created_time,price,count,taker_side,trade_id\na,b,c\n", "p.csv"
    )
    quotes = "timestamp,ticker,yes_bid,yes_ask\n"
    assert "line 3: it is 300 s older" in refused(
        tmp_path, quotes + "2026-01-01T00:10:00Z,A-B,0.5,0.6\n2026-01-01T00:05:00Z,A-B,0.5,0.6\n", "q.csv"
    )


def test_days_joined_the_wrong_way_round_are_told_with_their_line(tmp_path: Path) -> None:
    """Two days in one file, the later first: in frames, in quotes, in candles."""
    day = 86_400
    frames = [SNAPSHOT, delta(2, at=day), SNAPSHOT.replace('"seq":1,', '"seq":3,'), ""]
    assert "line 3: its time is 86400.0 s before the line above" in refused(tmp_path, "\n".join(frames))
    quotes = "timestamp,ticker,yes_bid,yes_ask\n"
    rows = "2026-01-02T00:00:00Z,A-B,0.5,0.6\n2026-01-01T00:00:00Z,A-B,0.5,0.6\n"
    assert "line 3: it is 86400 s older" in refused(tmp_path, quotes + rows, "q.csv")
    candles = ",".join(f'{{"ts":{ts},"yb":0.5,"ya":0.6}}' for ts in (1_790_086_400, 1_790_000_000))
    game = f'{{"game":{{"ticker":"KXNBAGAME-26OCT12AAABBB-AAA"}},"candles":[{candles}]}}\n'
    assert "line 1: a candle of KXNBAGAME-26OCT12AAABBB-AAA is not later" in refused(tmp_path, game)


def test_a_gap_makes_the_book_unknown_until_its_snapshot(tmp_path: Path) -> None:
    """A missing `seq`: no delta is folded into a book that missed one."""
    path = tmp_path / "gap.jsonl"
    again = SNAPSHOT.replace('"seq":1', '"seq":5').replace("1790000000", "1790000003")
    path.write_text("\n".join([SNAPSHOT, delta(3), again, delta(6, at=4), ""]))
    tape = read_recording(path)
    assert tape.notes == {"gap": 1, "delta after a gap": 1}
    assert list(tape.kind).count(Kind.STALE) == 1
    assert fold(tape)[0].bids == {4_000: 900}


def test_our_own_orders_are_taken_out_of_what_our_bot_recorded(tmp_path: Path) -> None:
    """The venue marks the deltas of our orders: the tape is the others' book, also after a snapshot with ours in it."""
    path = tmp_path / "own.jsonl"
    ours = '"client_order_id":"mm-x-1","delta_fp":"{}"'
    again = (
        SNAPSHOT.replace('"seq":1', '"seq":4').replace("1790000000", "1790000003").replace("10.00", "14.00")
    )
    path.write_text(
        "\n".join(
            [
                SNAPSHOT,
                delta(2, ours.format("5.00")),
                delta(3, at=2),
                again,  # 9 of others and 5 of ours
                delta(5, ours.format("-5.00"), at=4),
                delta(6, at=5),
                "",
            ]
        )
    )
    tape = read_recording(path)
    assert tape.notes == {"change by our own orders": 2}
    assert fold(tape)[0].bids == {4_000: 800}
    assert 1_400 not in list(tape.count)


def test_the_same_book_twice_is_refused(tmp_path: Path) -> None:
    """One file given twice would count every change twice."""
    path = tmp_path / "one.jsonl"
    path.write_text(SNAPSHOT + "\n" + delta(2) + "\n")
    with pytest.raises(BadRecording, match="is also in"):
        read_all([path, path])


def test_all_problems_of_a_request_are_told_at_once(tmp_path: Path) -> None:
    """Names, ranges, forms."""
    errors = (tmp_path / "stderr").open("w+")
    with errors:
        request = Request(
            recordings=[], fill_model="magic", result="maybe", sets=["BASE_SPREAD", "NOPE=1"], order_ms=-1
        )
        assert run_recordings(request, errors, errors) == 1
        errors.seek(0)
        text = errors.read()
    for part in (
        "at least one recording",
        "'magic'",
        "'maybe'",
        "expected NAME=VALUE",
        "NOPE",
        "--order-ms -1",
    ):
        assert part in text
    with pytest.raises(ConfigError):
        parse_variants([], ["SIZE_PER_FILL=0"])

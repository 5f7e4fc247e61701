"""`mm backtest` against expected results: hand-computed ones here, an independent implementation's in the recordings."""

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mm.tasks.backtest import run_backtest

RECORDINGS = Path(
    os.environ.get("MM_RECORDINGS", Path(__file__).resolve().parents[2].parent / "shared" / "data")
)
EXPECTED = RECORDINGS / "expected_backtest"


def _cases() -> list[Any]:
    index = EXPECTED / "cases.json"
    if not index.is_file():
        reason = f"no recordings at {EXPECTED} (set MM_RECORDINGS)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="recordings-absent")]
    return [pytest.param(case, id=case["expected"]) for case in json.loads(index.read_text())]


def backtest(tmp_path: Path, *trades: Path, **options: Any) -> dict[str, Any]:
    """Run the command and read what it wrote."""
    out = tmp_path / "out.json"

    code = run_backtest(list(trades), out=out, stdout=io.StringIO(), **options)

    assert code == 0
    return json.loads(out.read_text())


def assert_agrees(expected: Any, actual: Any, where: str = "") -> None:
    """Every value of `expected`, at every depth, is in `actual`; further keys are allowed."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in actual, f"{where}.{key} is missing"
            assert_agrees(value, actual[key], f"{where}.{key}")
    elif isinstance(expected, list):
        for i, (one, other) in enumerate(zip(expected, actual, strict=False)):
            assert_agrees(one, other, f"{where}[{i}]")
        assert len(expected) == len(actual), f"{where}: lengths differ"
    else:
        assert (expected, type(expected)) == (actual, type(actual)), where


@pytest.mark.parametrize("case", _cases())
def test_equals_the_independent_implementation(case: dict[str, Any], tmp_path: Path) -> None:
    """Every case of cases.json agrees in every value, all fills included."""
    actual = backtest(
        tmp_path,
        RECORDINGS / case["trades"],
        profile=case["profile"],
        result=case["result"],
        sets=case["set"],
    )

    assert_agrees(json.loads((EXPECTED / case["expected"]).read_text()), actual)


HEAD = "ticker,created_time,price,count,taker_side,trade_id"


def tape(tmp_path: Path, *rows: str, name: str = "trades.csv", ticker: str = "M") -> Path:
    """A CSV of rows `HH:MM:SS[.f] price count side`, ids by line."""
    lines = [HEAD]
    for i, row in enumerate(rows):
        time, price, count, side = row.split(" ")
        lines.append(f"{ticker},2025-11-08T{time}Z,{price},{count},{side},{i:04}")
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def fill(ts: str, side: str, price: str, count: str, fee: str, kind: str, net: str) -> dict[str, str]:
    return {
        "ts": f"2025-11-08T{ts}Z",
        "side": side,
        "price": price,
        "count": count,
        "fee": fee,
        "kind": kind,
        "net_after": net,
    }


class TestReferenceByHand:
    """Small tapes whose results were worked out on paper from the rules."""

    def test_round_trip(self, tmp_path: Path) -> None:
        """Quotes 0.49/0.51 around the first print; bought, sold, flat: 2c a contract less two maker fees."""
        path = tape(tmp_path, "12:00:00 0.50 10 yes", "12:00:10 0.49 100 no", "12:00:20 0.55 60 yes")

        market = backtest(tmp_path, path)["markets"][0]

        assert market == {
            "ticker": "M",
            "settlement_price": "0.5500",
            "settlement_source": "last_price",
            "trades": 3,
            "fill_count": 2,
            "contracts_bought": "10.00",
            "contracts_sold": "10.00",
            "triggers": {"duration_weighted": 0, "mae_failsafe": 0, "extreme_price": 0},
            "realized_pnl_gross": "0.200000",
            "settlement_pnl": "0.000000",
            "fees": "0.087600",
            "realized_pnl_net": "0.112400",
            "max_abs_position": "10.00",
            "final_position_before_settlement": "0.00",
            "median_hold_seconds": "10.000000",
            "fills": [
                fill("12:00:10.000000", "bid", "0.4900", "10.00", "0.043800", "quote", "10.00"),
                fill("12:00:20.000000", "ask", "0.5100", "10.00", "0.043800", "quote", "0.00"),
            ],
        }

    def test_duration_rule_fires_between_prints(self, tmp_path: Path) -> None:
        """10 contracts for 50 minutes are 500: flattened at that microsecond, at the last known touch, as a taker."""
        path = tape(tmp_path, "12:00:00 0.50 10 yes", "12:00:10 0.49 100 no", "12:55:00 0.30 1 no")

        market = backtest(tmp_path, path)["markets"][0]

        assert market["fills"] == [
            fill("12:00:10.000000", "bid", "0.4900", "10.00", "0.043800", "quote", "10.00"),
            fill("12:50:10.000000", "ask", "0.4900", "10.00", "0.175000", "flatten", "0.00"),
        ]
        assert market["triggers"] == {"duration_weighted": 1, "mae_failsafe": 0, "extreme_price": 0}
        assert (market["fees"], market["median_hold_seconds"]) == ("0.218800", "3000.000000")

    def test_adverse_excursion_fires_after_its_window(self, tmp_path: Path) -> None:
        """The mark is 13.9c under the entry from 12:00:20: flattened at 12:00:28 at the touch of 0.01."""
        path = tape(
            tmp_path,
            "12:00:00 0.50 10 yes",
            "12:00:10 0.49 100 no",
            "12:00:20 0.01 1 no",
            "12:00:40 0.01 1 no",
        )

        market = backtest(tmp_path, path)["markets"][0]

        assert market["fills"][1:] == [
            fill("12:00:28.000000", "ask", "0.0100", "10.00", "0.007000", "flatten", "0.00")
        ]
        assert market["triggers"]["mae_failsafe"] == 1
        assert (market["realized_pnl_gross"], market["realized_pnl_net"]) == ("-4.800000", "-4.850800")
        assert (market["settlement_price"], market["settlement_source"]) == ("0.0000", "inferred")

    def test_gate_shuts_and_flattens(self, tmp_path: Path) -> None:
        """A mark of 0.95 exactly shuts the gate: the short is bought back at the ask, reason extreme_price."""
        path = tape(tmp_path, "12:00:00 0.94 10 yes", "12:00:01 0.95 100 yes", "12:00:02 0.99 900 yes")

        market = backtest(tmp_path, path, sets=["MAE_FAILSAFE_CENTS=50"])["markets"][0]

        # 12:00:01: the ask of 0.95 sells 10; mark 0.9430. 12:00:02: nothing rests at 0.99 or below but the ask of
        # 0.95 sells 10 more (net -20); mark 0.3 * 0.99 + 0.7 * 0.943 = 0.9571: shut, bought back at 0.99.
        assert [(f["price"], f["count"], f["kind"], f["net_after"]) for f in market["fills"]] == [
            ("0.9500", "10.00", "quote", "-10.00"),
            ("0.9500", "10.00", "quote", "-20.00"),
            ("0.9900", "20.00", "flatten", "0.00"),
        ]
        assert market["triggers"]["extreme_price"] == 1

    @pytest.mark.parametrize(
        "recovery, kinds", [("12:00:28.000000", ["quote", "flatten"]), ("12:00:27.999999", ["quote"])]
    )
    def test_what_is_due_comes_before_the_print_of_its_instant(
        self, recovery: str, kinds: list[str], tmp_path: Path
    ) -> None:
        """A recovery at the very microsecond of the deadline is too late; one microsecond earlier it is not."""
        path = tape(
            tmp_path,
            "12:00:00 0.50 10 yes",
            "12:00:10 0.49 100 no",
            "12:00:20 0.20 1 no",
            f"{recovery} 0.60 1 yes",
            "12:00:40 0.60 1 no",
        )

        fills = backtest(tmp_path, path)["markets"][0]["fills"]

        assert [f["kind"] for f in fills if f["kind"] != "settlement"] == kinds
        if "flatten" in kinds:
            assert (fills[1]["ts"], fills[1]["price"]) == ("2025-11-08T12:00:28.000000Z", "0.2000")

    def test_a_flatten_stays_on_the_grid(self, tmp_path: Path) -> None:
        """A print of a seller at 0.99 shows an ask of 1.00: the short is bought back at 0.99."""
        path = tape(tmp_path, "12:00:00 0.94 10 yes", "12:00:01 0.95 100 yes", "12:00:02 0.99 900 no")

        market = backtest(tmp_path, path, sets=["MAE_FAILSAFE_CENTS=50"])["markets"][0]

        assert [(f["price"], f["kind"]) for f in market["fills"]] == [
            ("0.9500", "quote"),
            ("0.9900", "flatten"),
        ]

    def test_the_median_holding_time_is_the_lower_one(self, tmp_path: Path) -> None:
        """Ten contracts held 10 s, ten held 30 s: half of them do not exceed 10 s."""
        path = tape(
            tmp_path,
            "12:00:00 0.50 10 yes",
            "12:00:10 0.49 100 no",
            "12:00:20 0.51 100 yes",
            "12:00:30 0.49 100 no",
            "12:01:00 0.51 100 yes",
        )

        market = backtest(tmp_path, path)["markets"][0]

        assert market["fill_count"] == 4
        assert market["median_hold_seconds"] == "10.000000"

    def test_given_result_settles_the_rest(self, tmp_path: Path) -> None:
        """What is held at the end settles at the given value, without a fee, at the last print's time."""
        path = tape(tmp_path, "12:00:00 0.50 10 yes", "12:00:10 0.49 100 no")

        market = backtest(tmp_path, path, result="yes")["markets"][0]

        assert market["fills"][-1] == fill(
            "12:00:10.000000", "ask", "1.0000", "10.00", "0.000000", "settlement", "0.00"
        )
        assert (market["settlement_pnl"], market["settlement_source"]) == ("5.100000", "given")
        assert market["median_hold_seconds"] is None
        assert market["fill_count"] == 1


class TestLegacyByHand:
    def test_quotes_from_the_mark_that_knows_the_print(self, tmp_path: Path) -> None:
        """The print moves the average first, then fills the quote made from it, on a tick of 0.0001."""
        path = tape(tmp_path, "12:00:00 0.50 10 yes", "12:00:10 0.40 100 no", "12:00:20 0.60 25 yes")

        market = backtest(tmp_path, path, profile="legacy")["markets"][0]

        assert market["fills"] == [
            fill("12:00:10.000000", "bid", "0.4600", "10.00", "0.043500", "quote", "10.00"),
            fill("12:00:20.000000", "ask", "0.5190", "5.00", "0.021900", "quote", "5.00"),
            fill("12:00:20.000000", "ask", "0.6000", "5.00", "0.000000", "settlement", "0.00"),
        ]
        assert (market["realized_pnl_gross"], market["settlement_pnl"]) == ("0.995000", "0.700000")

    def test_quotes_nothing_at_the_zones_very_edge(self, tmp_path: Path) -> None:
        """abs(net) = N is the old bot's gap: neither side is quoted there."""
        rows = [
            "12:00:00 0.50 10 yes",
            "12:00:01 0.40 100 no",
            "12:00:02 0.30 100 no",
            "12:00:03 0.90 500 yes",
        ]

        market = backtest(tmp_path, tape(tmp_path, *rows), profile="legacy")["markets"][0]

        assert market["fill_count"] == 2
        assert market["final_position_before_settlement"] == "20.00"


class TestReading:
    def test_order_in_the_file_decides_nothing(self, tmp_path: Path) -> None:
        """Reversed rows, repeated rows, rows without a taker side and gzip: the same document."""
        rows = [
            "12:00:00 0.50 10 yes",
            "12:00:10.5 0.49 100 no",
            "12:00:10.48 0.48 70 no",
            "12:00:20 0.55 60 yes",
        ]
        plain = tape(tmp_path, *rows)
        head, *lines = plain.read_text().splitlines()
        sideless = "M,2025-11-08T12:00:05Z,0.10,500,,zzz"
        shuffled = tmp_path / "shuffled.csv.gz"
        shuffled.write_bytes(gzip.compress("\n".join([head, *reversed(lines), lines[1], sideless]).encode()))

        assert backtest(tmp_path, plain) == backtest(tmp_path, shuffled)

    def test_files_as_given_tickers_sorted_within(self, tmp_path: Path) -> None:
        """Markets come file by file, sorted by ticker inside each."""
        first = tape(tmp_path, "12:00:00 0.50 10 yes", name="1.csv", ticker="Z")
        first.write_text(first.read_text() + "B,2025-11-08T12:00:00Z,0.5,1,no,x\n")
        second = tape(tmp_path, "12:00:00 0.50 10 yes", name="2.csv", ticker="A")

        found = backtest(tmp_path, first, second)

        assert [market["ticker"] for market in found["markets"]] == ["B", "Z", "A"]

    def test_a_market_without_usable_rows_is_left_out(self, tmp_path: Path) -> None:
        """A header alone gives an empty list, not an error."""
        path = tmp_path / "empty.csv"
        path.write_text(HEAD + "\n")

        assert backtest(tmp_path, path)["markets"] == []


BAD_ROWS = {
    "price": ("M,2025-11-08T12:00:00Z,half,10,yes,1", "not a decimal number: 'half'"),
    "price-range": ("M,2025-11-08T12:00:00Z,1.5,10,yes,1", "price 1.5 is not between 0 and 1 dollar"),
    "price-digits": ("M,2025-11-08T12:00:00Z,0.50001,10,yes,1", "more than 4 decimals"),
    "count": ("M,2025-11-08T12:00:00Z,0.5,0,yes,1", "count 0 is not above 0"),
    "side": ("M,2025-11-08T12:00:00Z,0.5,10,maybe,1", "taker_side is 'maybe'"),
    "time": ("M,yesterday,0.5,10,yes,1", "not an RFC 3339 time: 'yesterday'"),
    "fields": ("M,2025-11-08T12:00:00Z,0.5,10,yes", "5 fields, the header has 6"),
    "trade-id": ("M,2025-11-08T12:00:00Z,0.5,10,yes,", "no trade_id"),
    "ticker": (",2025-11-08T12:00:00Z,0.5,10,yes,1", "no ticker"),
}


class TestTrouble:
    @pytest.mark.parametrize("row, why", BAD_ROWS.values(), ids=BAD_ROWS)
    def test_a_bad_row_is_named_by_file_and_line(self, row: str, why: str, tmp_path: Path) -> None:
        """Exit code 1, file and line on stderr, and what OUT held before is untouched."""
        path = tape(tmp_path, "12:00:00 0.50 10 yes")
        path.write_text(path.read_text() + row + "\n")
        out = tmp_path / "out.json"
        out.write_text("before")
        stdout, stderr = io.StringIO(), io.StringIO()

        code = run_backtest([path], out=out, stdout=stdout, stderr=stderr)

        assert code == 1
        assert f"{path}, line 3: " in stderr.getvalue()
        assert why in stderr.getvalue()
        assert (out.read_text(), stdout.getvalue()) == ("before", "")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "trades.csv"]

    def test_damaged_gzip_is_named(self, tmp_path: Path) -> None:
        """A cut archive is an error, not a short result."""
        whole = gzip.compress(tape(tmp_path, *["12:00:00 0.50 10 yes"] * 50).read_bytes())
        path = tmp_path / "cut.csv.gz"
        path.write_bytes(whole[: len(whole) // 2])
        stderr = io.StringIO()

        assert run_backtest([path], stdout=io.StringIO(), stderr=stderr) == 1
        assert f"{path}: damaged gzip data" in stderr.getvalue()

    def test_missing_file_and_missing_columns(self, tmp_path: Path) -> None:
        """Both are told in one line."""
        headless = tmp_path / "headless.csv"
        headless.write_text("ticker,price\n")
        for path, why in [
            (tmp_path / "none.csv", "No such file"),
            (headless, "line 1: missing columns: created_time, count, taker_side, trade_id"),
        ]:
            stderr = io.StringIO()

            assert run_backtest([path], stdout=io.StringIO(), stderr=stderr) == 1
            assert why in stderr.getvalue()
            assert stderr.getvalue().count("\n") == 1

    def test_every_bad_option_is_told_at_once(self, tmp_path: Path) -> None:
        """Profile, result, fill model and each --set: all in one go, with the allowed values."""
        stderr = io.StringIO()

        code = run_backtest(
            [tape(tmp_path, "12:00:00 0.50 10 yes")],
            profile="modern",
            result="maybe",
            sets=["QUEUE_SHARE=2", "BASE_SPREAD=-0.01", "QUOTE_COOLDOWN_MS=5", "nonsense"],
            fill_model="magic",
            stdout=io.StringIO(),
            stderr=stderr,
        )

        text = stderr.getvalue()
        assert code == 1
        for part in [
            "--profile 'modern'",
            "--result 'maybe'",
            "--fill-model 'magic'",
            "--set 'nonsense'",
            "QUEUE_SHARE='2'",
            "BASE_SPREAD='-0.01'",
            "QUOTE_COOLDOWN_MS",
        ]:
            assert part in text

    def test_bad_values_of_set_name_the_allowed_range(self, tmp_path: Path) -> None:
        """`--set` reaches exactly the parameters that the profile allows, each within its range."""
        stderr = io.StringIO()

        code = run_backtest(
            [tape(tmp_path, "12:00:00 0.50 10 yes")],
            sets=["QUEUE_SHARE=2", "SIZE_PER_FILL=ten", "QUOTE_COOLDOWN_MS=5"],
            stdout=io.StringIO(),
            stderr=stderr,
        )

        assert code == 1
        assert "QUEUE_SHARE='2' is out of range; allowed: 0 to 1" in stderr.getvalue()
        assert "SIZE_PER_FILL='ten': not a decimal number" in stderr.getvalue()
        assert "QUOTE_COOLDOWN_MS: cannot be set here" in stderr.getvalue()

    def test_unwritable_out_is_told(self, tmp_path: Path) -> None:
        """OUT in a folder that does not exist: exit 1 with the path."""
        stderr = io.StringIO()
        out = tmp_path / "no" / "out.json"

        code = run_backtest(
            [tape(tmp_path, "12:00:00 0.50 10 yes")], out=out, stdout=io.StringIO(), stderr=stderr
        )

        assert code == 1
        assert f"cannot write {out}" in stderr.getvalue()

    def test_environment_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A profile fixes every parameter; only --set moves one."""
        path = tape(tmp_path, "12:00:00 0.50 10 yes", "12:00:10 0.49 100 no")
        before = backtest(tmp_path, path)
        monkeypatch.setenv("SIZE_PER_FILL", "3")

        assert backtest(tmp_path, path) == before
        assert backtest(tmp_path, path, sets=["SIZE_PER_FILL=3"]) != before

    def test_summary_for_people(self, tmp_path: Path) -> None:
        """One line a market and the sum, on stdout."""
        stdout = io.StringIO()

        run_backtest(
            [tape(tmp_path, "12:00:00 0.50 10 yes", "12:00:10 0.49 100 no", "12:00:20 0.55 60 yes")],
            stdout=stdout,
        )

        assert stdout.getvalue().splitlines()[-1].split() == ["total", "3", "2", "0.20", "0.09", "0.11"]

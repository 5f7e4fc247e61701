"""Real bodies become domain values; what the venue may add is noticed, what it may not omit is refused."""

import gzip
import json
from fractions import Fraction

import httpx
import pytest
from structlog.testing import capture_logs

from mm.domain.fees import FeeType
from mm.domain.fill import Liquidity
from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, Count, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.exchange import endpoints, port
from mm.exchange.kalshi import codec, wire
from mm.exchange.kalshi.reading import Codec, Malformed, error_of, read_error

DEMO = "rest_ws_demo_jun2026"
AUGUST = "rest_fixtures_aug2026"
DEMO_TICKER = "KXWTACHALLENGERMATCH-26JUN11JIMLEP-LEP"


def load(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return json.load(file)


def serve(*bodies):
    """A handler that answers these bodies in turn."""
    left = list(bodies)
    return lambda request: httpx.Response(200, json=left.pop(0))


# --- the recorded demo exchange --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "expected", "code"),
    [
        ("orders__duplicate_client_order_id", port.OrderIdSpent, "order_already_exists"),
        ("orders__reuse_canceled_client_id", port.OrderIdSpent, "order_already_exists"),
        ("orders__insufficient_balance", port.ExchangeRejected, "insufficient_balance"),
        ("orders__invalid_price_structure", port.ExchangeRejected, "invalid_price"),
        ("orders__post_only_cross", port.ExchangeRejected, "invalid_order"),
        ("orders__numeric_field_types", port.ExchangeRejected, "bad_request"),
        ("orders__cancel_already_canceled", port.NotRestingHere, "not_found"),
        ("orders__cancel_executed", port.NotRestingHere, "not_found"),
        ("orders__cancel_unknown_id", port.NotRestingHere, "not_found"),
        ("auth__bad_signature", port.AuthError, "authentication_error"),
        ("auth__unknown_key_id", port.AuthError, "authentication_error"),
        ("auth__missing_signature_header", port.AuthError, "signature_is_missing_from_headers"),
        ("auth__skew_minus5min", port.ClockRefused, "header_timestamp_expired"),
        ("markets__limit_over_max", port.ExchangeRejected, ""),
    ],
)
async def test_recorded_errors(open_client, recordings, case, expected, code):
    """Every recorded refusal maps to what it proves, with the venue's own word kept."""
    folder = recordings(DEMO)
    body = (folder / f"{case}.json").read_bytes()
    meta = load(folder / f"{case}.meta.json")
    ref = port.OrderRef(order_id=OrderId("o"), ticker=MarketTicker(DEMO_TICKER), exchange_index=0)
    order = port.NewOrder(
        client_order_id="c-1",
        ticker=ref.ticker,
        side=Side.BID,
        price=CENT,
        count=Count(100),
        exchange_index=0,
    )
    calls = {
        "POST": lambda x: x.place(order),
        "DELETE": lambda x: x.cancel(ref),
        "GET": lambda x: x.balance(),
    }

    async with open_client(lambda r: httpx.Response(meta["status"], content=body)) as exchange:
        with pytest.raises(expected) as caught:
            await calls[meta["method"]](exchange)

    assert type(caught.value) is expected
    assert caught.value.code == code
    assert caught.value.status == meta["status"]


async def test_recorded_writes(open_client, recordings):
    """A resting create, an immediate fill, a self-cross without effect, a cancel."""
    folder = recordings(DEMO)
    names = ["create_v2_maker", "create_v2_taker_ioc", "stp_self_cross"]
    bodies = [load(folder / f"orders__{name}.json") for name in names]
    order = port.NewOrder(
        client_order_id="c-1",
        ticker=MarketTicker(DEMO_TICKER),
        side=Side.BID,
        price=CENT,
        count=Count(100),
        exchange_index=0,
    )
    async with open_client(serve(*bodies)) as exchange:
        acks = [await exchange.place(order) for _ in names]

    assert [(ack.filled, ack.remaining) for ack in acks] == [(0, 100), (100, 0), (0, 0)]
    assert acks[0].order_id == "4d32c9d8-9cb7-505a-b6df-2e90af926207"

    ref = port.OrderRef(order_id=acks[0].order_id, ticker=order.ticker, exchange_index=0)
    async with open_client(serve(load(folder / "orders__cancel_v2.json"))) as exchange:
        assert await exchange.cancel(ref) == 100


async def test_recorded_orders_and_fills(open_client, recordings):
    """Orders and fills read back with side, price, count and fee; a stale read still says resting."""
    folder = recordings(DEMO)
    async with open_client(
        serve(
            load(folder / "orders__get_after_cancel.json"),
            load(folder / "portfolio__orders_list.json"),
            load(folder / "fills__after_taker.json"),
        )
    ) as exchange:
        order = await exchange.order(OrderId("x"))
        orders = await exchange.orders_page()
        fills = await exchange.fills_page()

    assert order.status is port.OrderStatus.RESTING
    assert (order.side, order.price, order.remaining) == (Side.BID, 100, 100)
    assert order.client_order_id == "60e5b2ee-d2a4-5af5-845e-47171526dfcd"
    assert {report.status for report in orders.items} >= {port.OrderStatus.CANCELLED}
    fill = fills.items[0]
    assert (fill.side, fill.price, fill.count, fill.fee) == (Side.BID, 5200, 100, 17_500)
    assert fill.liquidity is Liquidity.TAKER
    assert fill.ts == 1_781_159_370_164_956
    assert fills.cursor is None


async def test_recorded_account_reads(open_client, recordings):
    """Limits with costs by canonical endpoint, and the state of the exchange."""
    folder = recordings(DEMO)
    async with open_client(
        serve(
            load(folder / "account__limits.json"),
            load(folder / "account__endpoint_costs.json"),
            load(folder / "exchange__status.json"),
        )
    ) as exchange:
        limits = await exchange.limits()
        status = await exchange.status()

    assert limits.tier == "basic"
    assert (limits.write.refill_per_s, limits.write.capacity) == (100.0, 100.0)
    assert limits.cost(*endpoints.CANCEL) == 2
    assert limits.cost(*endpoints.CANCEL_BATCH) == 2
    assert limits.cost(*endpoints.ORDER) == 2
    assert limits.cost(*endpoints.PLACE) == 10
    assert limits.cost(*endpoints.AMEND) == 10
    assert status.exchange_active
    assert status.trading_active


async def test_recorded_pages_are_read_to_the_end(open_client, recordings):
    """The recorded cursor walk: a page with a cursor, then the last one with an empty string."""
    folder = recordings(DEMO)
    pages = [load(folder / "markets__page1.json"), load(folder / "markets__single_filter_lastpage.json")]
    seen = []

    def handle(request):
        seen.append(dict(request.url.params))
        return httpx.Response(200, json=pages[len(seen) - 1])

    async with open_client(handle) as exchange:
        markets = await exchange.markets(series_ticker="ANY")

    assert len(markets) == sum(len(page["markets"]) for page in pages)
    assert "cursor" not in seen[0]
    assert seen[1]["cursor"] == pages[0]["cursor"]


async def test_a_cursor_that_runs_in_a_circle_ends_the_listing(open_client, recordings):
    """A garbage cursor gives a first-looking page with a 200: only we can see the loop."""
    page = load(recordings(DEMO) / "markets__garbage_cursor.json")
    calls = []

    def handle(request):
        calls.append(request)
        return httpx.Response(200, json=page)

    async with open_client(handle) as exchange:
        with pytest.raises(port.ExchangeUnavailable, match="circle"):
            await exchange.markets()

    assert len(calls) == 2


# --- production, August ----------------------------------------------------------------------------------------------


def test_august_markets_events_and_series(recordings):
    """Production objects are read without one unknown field and without one market left out."""
    folder = recordings(AUGUST)
    reader = Codec()
    events = load(folder / "events_sports_nested.json.gz")
    settled = load(folder / "markets_settled.json.gz")["markets"]
    series = load(folder / "series_fee_fields.json.gz")["payloads"]

    for event in events:
        markets = codec.read_markets(reader, event)
        assert [m.ticker for m in markets] == [m["ticker"] for m in event["markets"]]
        found = codec.to_event(reader.structure(event, wire.Event), reader.tally)
        assert found.is_mutually_exclusive == event["mutually_exclusive"]
    ended = codec.read_markets(reader, {"markets": settled})
    fees = {
        ticker: codec.to_series(reader.one(body, "series", wire.Series), reader.tally)
        for ticker, body in series.items()
    }

    assert {m.status for m in ended} == {MarketStatus.FINALIZED, MarketStatus.CLOSED}
    assert {m.settlement_value for m in ended} == {Price(10_000), Price(0), None}
    assert fees["KXMLBGAME"].fee_type is FeeType.QUADRATIC_WITH_MAKER_FEES
    assert fees["KXMLBGAME"].fee_multiplier == Fraction(1, 2)
    assert fees["KXMLBSPREAD"].fee_type is FeeType.QUADRATIC
    assert reader.tally.unknown_fields == 0
    assert reader.tally.skipped == 0


def test_a_market_in_full(recordings):
    """One production market, field by field."""
    body = load(recordings(AUGUST) / "market_single.json.gz")["single"]

    market = codec.to_market(Codec().one(body, "market", wire.Market), Codec().tally)

    assert market.ticker == "KXNCAAFGAME-26SEP19MSUND-ND"
    assert market.event_ticker == "KXNCAAFGAME-26SEP19MSUND"
    assert market.status is MarketStatus.ACTIVE
    assert (market.yes_bid, market.yes_ask) == (8900, 9400)
    assert market.volume == 298_550
    assert len(market.grid.prices) == 99
    assert market.close_time == 1_790_033_400_000_000


# --- tolerance -------------------------------------------------------------------------------------------------------

MARKET = {
    "ticker": "M-1",
    "event_ticker": "M",
    "status": "active",
    "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    "yes_bid_dollars": "0.0000",
    "yes_ask_dollars": "1.0000",
    "open_time": "2026-12-01T10:00:00.5Z",
    "settlement_value_dollars": "",
    "title": None,
}


def test_unknown_fields_are_counted_and_logged_once():
    """News on the wire is said once a class and field, and counted every time."""
    reader = Codec()

    with capture_logs() as logs:
        for _ in range(3):
            reader.structure({**MARKET, "brand_new": 1}, wire.Market)

    assert reader.tally.unknown_fields == 3
    assert [(entry["where"], entry["field"]) for entry in logs] == [("Market", "brand_new")]


def test_absent_null_and_empty_optional_fields():
    """An optional field may be absent, null or an empty string; 0 and 1 dollar are no prices."""
    market = codec.to_market(Codec().structure(MARKET, wire.Market), Codec().tally)

    assert market.yes_bid is None
    assert market.yes_ask is None
    assert market.title == ""
    assert market.close_time is None
    assert market.settlement_value is None
    assert market.open_time == 1_796_119_200_500_000


@pytest.mark.parametrize(
    "change",
    [
        {"price_ranges": []},
        {"price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0000"}]},
        {"yes_bid_dollars": 0.41},
        {"yes_bid_dollars": "0.41005"},
        {"event_ticker": None},
        {"open_time": "yesterday"},
        {"exchange_index": "0"},
    ],
)
def test_a_market_that_cannot_be_read_hides_no_other(change):
    """It is left out and counted; the others are listed."""
    reader = Codec()
    good = {**MARKET, "ticker": "M-2"}

    with capture_logs() as logs:
        found = codec.read_markets(reader, {"markets": [{**MARKET, **change}, good]})

    assert [market.ticker for market in found] == ["M-2"]
    assert reader.tally.skipped == 1
    assert "M-1" in logs[0]["what"]


def test_words_we_do_not_know_are_never_traded_on():
    """A new status reads as inactive, a new fee model as not understood."""
    reader = Codec()
    market = codec.to_market(reader.structure({**MARKET, "status": "novel"}, wire.Market), reader.tally)
    series = codec.to_series(wire.Series(ticker="S", fee_type="novel", fee_multiplier=1.0), reader.tally)

    assert market.status is MarketStatus.INACTIVE
    assert series.fee_type is FeeType.FLAT
    assert reader.tally.skipped == 2


FILL = {
    "order_id": "o",
    "trade_id": "t",
    "ticker": "M-1",
    "count_fp": "0.37",
    "yes_price_dollars": "0.4100",
    "is_taker": False,
    "fee_cost": "0.000100",
    "book_side": "ask",
    "outcome_side": "no",
    "side": "yes",
    "action": "buy",
    "created_time": "2026-12-01T23:10:01Z",
}


def test_direction_is_read_from_the_new_fields_only():
    """`side` and `action` say the opposite here, and nobody listens."""
    reader = Codec()
    fill = codec.to_fill(reader.structure(FILL, wire.Fill))
    older = codec.to_fill(reader.structure({**FILL, "book_side": None}, wire.Fill))

    assert fill.side is Side.ASK
    assert older.side is Side.ASK
    assert (fill.count, fill.fee, fill.signed_count) == (37, Money(100), -37)
    with pytest.raises(Malformed, match="direction"):
        codec.to_fill(reader.structure({**FILL, "book_side": None, "outcome_side": None}, wire.Fill))


@pytest.mark.parametrize(
    "change", [{"fee_cost": 0.0001}, {"count_fp": None}, {"created_time": None}, {"book_side": "up"}]
)
async def test_one_bad_row_fails_the_whole_read_of_fills(open_client, change):
    """Money has no gaps: a listing of which one row cannot be read was not read."""
    body = {"fills": [FILL, {**FILL, **change}], "cursor": ""}
    async with open_client(serve(body)) as exchange:
        with pytest.raises(port.ExchangeUnavailable, match="unusable"):
            await exchange.fills_page()


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"error": {"code": "c", "message": "m", "details": "d"}}, "c", "m: d"),
        ({"code": "c", "message": "m"}, "c", "m"),
        ({"msg": "bad query"}, "", "bad query"),
        ({"error": "too many requests"}, "", "too many requests"),
        ({"error": None}, "", ""),
        ([], "", ""),
        (None, "", ""),
    ],
)
def test_the_four_shapes_of_an_error(body, code, text):
    """And what has none of them is no reason to fall over."""
    error = error_of(body)

    assert (error.code, error.text) == (code, text)
    assert read_error(json.dumps(body).encode()) == error
    assert read_error(b"\xff<html>").text == ""


async def test_status_may_come_under_503(open_client):
    """An exchange that is down says so with a 503 whose body still holds the flags."""
    body = {
        "exchange_active": False,
        "trading_active": False,
        "exchange_index_statuses": [
            {
                "exchange_index": 3,
                "description": "Tennis & Baseball",
                "exchange_active": True,
                "trading_active": False,
                "intra_exchange_transfers_active": False,
            }
        ],
    }
    async with open_client(lambda r: httpx.Response(503, json=body)) as exchange:
        status = await exchange.status()

    assert not status.exchange_active
    assert status.shards == {3: (True, False)}


async def test_the_rest_of_the_account(open_client):
    """Balance, positions, settlements, groups and the age of reads."""
    async with open_client(
        serve(
            {
                "balance": 1017,
                "balance_dollars": "10.1799",
                "portfolio_value": 5,
                "updated_ts": 1,
                "balance_breakdown": [{"exchange_index": 0, "balance": "10.1799"}],
            },
            {
                "cursor": "",
                "event_positions": [],
                "market_positions": [
                    {
                        "ticker": "M-1",
                        "exchange_index": 0,
                        "position_fp": "-2.50",
                        "fees_paid_dollars": "0.017500",
                        "realized_pnl_dollars": "-0.100000",
                        "total_traded_dollars": "1.00",
                        "market_exposure_dollars": "1.00",
                        "last_updated_ts": "2026-12-01T00:00:00Z",
                    }
                ],
            },
            {
                "settlements": [
                    {
                        "ticker": "M-1",
                        "market_result": "scalar",
                        "settled_time": "2026-12-02T04:00:00.5Z",
                        "yes_count_fp": "0.00",
                        "no_count_fp": "2.50",
                        "fee_cost": "0.017500",
                        "value": 50,
                    },
                    {
                        "ticker": "M-2",
                        "market_result": "yes",
                        "settled_time": "2026-12-02T04:00:00Z",
                        "yes_count_fp": "1.00",
                        "no_count_fp": "0.00",
                        "fee_cost": "0.000000",
                    },
                ]
            },
            {"order_groups": [{"id": "g", "is_auto_cancel_enabled": False, "exchange_index": 3}]},
            {},
            {"as_of_time": "2026-12-01T23:10:00.25Z"},
        )
    ) as exchange:
        balance = await exchange.balance()
        positions = await exchange.positions()
        settlements = await exchange.settlements_page()
        groups = await exchange.groups()
        no_groups = await exchange.groups()
        age = await exchange.user_data_age()

    assert balance == port.Balance(total=Money(10_179_900), by_exchange_index={0: Money(10_179_900)})
    assert (positions[0].position, positions[0].fees_paid) == (-250, 17_500)
    assert [s.value for s in settlements.items] == [5000, 10_000]
    assert groups == [port.OrderGroup(group_id="g", exchange_index=3, is_triggered=True)]
    assert no_groups == []
    assert age == 1_796_166_600_250_000


async def test_markets_by_ticker_are_asked_in_short_requests(open_client):
    """A long list of tickers is split; an empty one asks for nothing, which is not "all"."""
    asked = []

    def handle(request):
        asked.append(request.url.params["tickers"].split(","))
        return httpx.Response(200, json={"markets": [], "cursor": ""})

    async with open_client(handle) as exchange:
        await exchange.markets(tickers=[MarketTicker(f"M-{i}") for i in range(120)])
        assert await exchange.markets(tickers=[]) == []

    assert [len(tickers) for tickers in asked] == [50, 50, 20]


def test_endpoints_cover_the_port():
    """Every method of the port that talks to the venue has its calls in the table."""
    methods = {
        name
        for name, value in vars(port.Exchange).items()
        if callable(value) and not name.startswith("_") and name not in ("open_feed", "keep_ready", "expect")
    }

    assert set(endpoints.CALLS) == methods


@pytest.mark.parametrize(
    "path",
    [
        "/trade-api/v2/portfolio/events/orders/:order_id",
        "/portfolio/events/orders/{order_id}",
        "/trade-api/v2/portfolio/events/orders/*order_id",
    ],
)
def test_spellings_of_a_path_template(path):
    """However the venue names its parameters, the key is the same."""
    assert endpoints.canonical("delete", path) == endpoints.CANCEL

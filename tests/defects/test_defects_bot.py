"""Defects that the old bot had, by their number in the strategy's list: those of its tasks, wires and memory."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import structlog.testing
import trio
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from trio.testing import MockClock

from fake_exchange import FakeExchange, lost_after, lost_before, refuse, slow, virtual_clock
from mm.domain.commands import FlattenReason
from mm.domain.errors import LedgerError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.market import Series
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import load_signer
from mm.exchange.port import (
    ExchangeRejected,
    ExchangeUnavailable,
    NewOrder,
    NotRestingHere,
    TradingPaused,
)
from mm.ledger.store import Store
from mm.settings import load_settings
from mm.settings.load import read_private_key
from mm.tasks import positions as positions_module
from mm.tasks import reconcile as reconcile_module
from mm.tasks.sweep import Sweeper
from task_rig import ASK, BID, GAME, TaskRig, open_books

KEY = ed25519.Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def sent(rig: TaskRig) -> list[NewOrder]:
    """Every create that went out."""
    return [call.value for call in rig.exchange.called("place")]


def exits(rig: TaskRig) -> list[NewOrder]:
    return [order for order in sent(rig) if not order.post_only]


def venue_position(rig: TaskRig) -> int:
    """Our position by the exchange's own fills."""
    return sum(fill.signed_count for fill in rig.exchange.fills)


def rest(exchange: FakeExchange, name: str, price: int = 4_000, count: int = 10_000) -> OrderId:
    """An order on the account."""
    return exchange.put(
        NewOrder(
            client_order_id=ClientOrderId(name),
            ticker=GAME,
            side=BID,
            price=Price(price),
            count=Count(count),
            exchange_index=0,
        )
    )


def a_life(exchange: FakeExchange) -> TaskRig:
    """A fresh process on the same account: memory empty."""
    exchange.known_series = {"KXNHLGAME": Series(ticker="KXNHLGAME")}
    return TaskRig(exchange=exchange)


# --- 4: marked as processed before it was ----------------------------------------------------------------------------


async def test_defect_04_a_fill_is_not_processed_before_it_is_booked(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old bot put a fill into its set of processed ones first; when booking it failed, it was lost for ever.

    Here booking fails at the disk: the mark does not move, and the next life finds the fill and counts it once.
    """
    exchange = FakeExchange()
    first = a_life(exchange)
    exchange.sink = None
    order_id = rest(exchange, "mm-old-1")
    await trio.sleep(1)
    exchange.fill(order_id, 300)
    original, broken = Store.record_fills, True

    def record_fills(self: Store, *args: Any, **options: Any) -> Any:
        if broken:
            raise LedgerError("the disk is full")
        return original(self, *args, **options)

    monkeypatch.setattr(Store, "record_fills", record_fills)
    async with open_books(tmp_path) as ledger:
        with pytest.raises(LedgerError):
            await first.reconciler(ledger).pass_fills()
        assert await ledger.mark() is None

    broken = False
    for _ in range(2):
        later = a_life(exchange)
        async with open_books(tmp_path, session="s2") as ledger:
            reconciler = later.reconciler(ledger)
            await reconciler.load()
            await reconciler.pass_fills()
            assert later.positions.net(GAME) == 300


# --- 5, 6, 7: the exit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(FlattenReason))
async def test_defect_05_a_flatten_is_sent_and_not_only_said(
    autojump_clock: MockClock, reason: FlattenReason
) -> None:
    """The old bot logged FLATTEN and sent nothing: here an order leaves for every reason there is."""
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        rig.exchange.fill(rig.only(BID).order_id, 1_000)
        quoter.maker.flatten(reason)
        quoter.wake()
        await trio.sleep(2)

        assert [(o.side, o.count, o.reduce_only) for o in exits(rig)] == [(ASK, 1_000, True)]
        assert venue_position(rig) == rig.positions.net(GAME) == 0


@pytest.mark.parametrize("side", list(Side))
async def test_defect_06_no_exit_at_any_price(autojump_clock: MockClock, side: Side) -> None:
    """The old bot sold at 1c and bought at 99c "at market": into a thin book that is the worst price there is.

    Here 3 contracts rest at the touch and the next ones 30 cents away: no exit reaches further than 5 cents beyond
    the touch of its moment, however often it is tried, and the rest waits for a better book.
    """
    rig = TaskRig()
    async with rig.with_quoter(4_900, 5_100) as quoter:
        await trio.sleep(1)
        rig.exchange.fill(rig.only(side).order_id, 1_000)
        near, far = (Price(4_900), Price(1_900)) if side is BID else (Price(5_100), Price(8_100))
        rig.exchange.others[GAME, side] = [(near, Count(300)), (far, Count(10_000))]
        quoter.maker.flatten(FlattenReason.OPERATOR)
        quoter.wake()
        await trio.sleep(30)

        assert len(exits(rig)) > 5
        assert max(abs(order.price - near) for order in exits(rig)) == 500
        assert all(fill.price == near for fill in rig.exchange.fills if fill.liquidity is Liquidity.TAKER)
        assert abs(rig.positions.net(GAME)) == 700
        rig.book(4_900, 5_100)
        await trio.sleep(2)
        assert rig.positions.net(GAME) == 0


async def test_defect_07_a_flatten_that_was_sent_is_not_a_flatten_that_happened(
    autojump_clock: MockClock,
) -> None:
    """The old bot zeroed its books when it sent the exit: here nobody trades with it, and the position stays ours.

    Position and risk go on until fills say otherwise; then the exchange is asked whether it agrees.
    """
    rig = TaskRig()
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        rig.exchange.fill(rig.only(BID).order_id, 1_000)
        rig.exchange.others[GAME, BID] = []  # the book we see is stale: whoever stood there has gone
        quoter.maker.flatten(FlattenReason.OPERATOR)
        quoter.wake()
        for _ in range(20):
            await trio.sleep(0.5)
            assert rig.positions.net(GAME) == venue_position(rig) == 1_000
            assert not quoter.maker.needs_position_check
        assert len(exits(rig)) > 5
        rig.book(4_000, 6_000)
        await trio.sleep(2)

        assert rig.positions.net(GAME) == venue_position(rig) == 0
        assert quoter.maker.needs_position_check


# --- 8: restart ------------------------------------------------------------------------------------------------------


async def test_defect_08_the_position_at_a_restart_is_the_exchanges(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The old bot skipped all fills older than its start: it began flat while it held contracts.

    Three lives: the first finds what was traded before any ledger existed, the others what happened while they were
    away, over several pages, none twice.
    """
    exchange = FakeExchange()
    order_id = rest(exchange, "mm-old-1")
    held = 0
    for life in range(3):
        exchange.sink = None
        for _ in range(8):
            await trio.sleep(30)
            exchange.fill(order_id, 100)
            held += 100
        await trio.sleep(3_600)
        rig = a_life(exchange)
        async with open_books(tmp_path, session=f"s{life}") as ledger:
            reconciler = rig.reconciler(ledger)
            await reconciler.load()
            await reconciler.pass_fills()
            assert rig.positions.net(GAME) == held
            assert await reconciler.compare_positions()
            assert {t: row.net for t, row in (await ledger.positions()).items()} == {GAME: held}


# --- 10: 404 on cancel -----------------------------------------------------------------------------------------------


async def test_defect_10_gone_on_cancel_because_it_was_filled(autojump_clock: MockClock) -> None:
    """The old bot took the 404 for an error, or for a cancel: the fill behind it was not booked and the quote doubled.

    Here the order is asked, its fill is booked, no trouble is reported, and one new quote takes its place.
    """
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.fill(rig.only(BID).order_id, 1_000, tell=False, report=False)
        rig.book(4_400, 6_400)
        await trio.sleep(3)

        assert rig.positions.net(GAME) == venue_position(rig) == 1_000
        assert rig.troubles == []
        assert len(rig.resting(BID)) == 1


async def test_defect_10_gone_on_cancel_while_it_rests(autojump_clock: MockClock) -> None:
    """A 404 from the wrong place: the order rests on, so it is not forgotten and nothing is placed beside it."""
    rig = TaskRig()
    async with rig.with_quoter():
        await trio.sleep(1)
        rig.exchange.script("cancel", *[refuse(NotRestingHere("not found", status=404))] * 3)
        rig.book(4_400, 6_400)
        for _ in range(60):
            await trio.sleep(0.1)
            assert len(rig.resting(BID)) <= 1

        assert rig.prices()[0] == [5_300]


# --- 11, 12: the key -------------------------------------------------------------------------------------------------


async def test_defect_11_signed_is_time_method_and_whole_path(autojump_clock: MockClock) -> None:
    """The old bot signed the body, or the path without /trade-api/v2: every such request was a 401.

    Here the signature of a create (with a body) and of a filtered read (with a query) is verified at the other end.
    """
    seen: list[tuple[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        timestamp = request.headers["KALSHI-ACCESS-TIMESTAMP"]
        text = f"{timestamp}{request.method}{request.url.path}"
        KEY.public_key().verify(base64.b64decode(request.headers["KALSHI-ACCESS-SIGNATURE"]), text.encode())
        assert request.headers["KALSHI-ACCESS-KEY"] == "key-id"
        seen.append((request.method, request.url.raw_path.decode()))
        if request.method == "POST":
            assert request.content
            body = {"order_id": "o1", "fill_count": "0.00", "remaining_count": "10.00"}
            return httpx.Response(201, json=body)
        return httpx.Response(200, json={"fills": [], "cursor": ""})

    async def no_socket(host: str, port: int) -> trio.abc.Stream:
        raise OSError("no socket here")

    options = kalshi_options("https://venue.test/trade-api/v2", "wss://ws.venue.test/trade-api/ws/v2")
    async with open_kalshi(
        options,
        load_signer("key-id", PEM),
        clock=virtual_clock,
        randomness=None,  # type: ignore[arg-type]
        connect=no_socket,
        transport=httpx.MockTransport(handler),
    ) as exchange:
        await exchange.place(
            NewOrder(
                client_order_id=ClientOrderId("mm-s-1"),
                ticker=GAME,
                side=BID,
                price=Price(4_900),
                count=Count(1_000),
                exchange_index=0,
            )
        )
        await exchange.fills_page(since=virtual_clock())

    assert [method for method, _ in seen] == ["POST", "GET"]
    assert all(path.startswith("/trade-api/v2/portfolio/") for _, path in seen)
    assert "?" in seen[1][1]


@pytest.mark.parametrize("where", ["environment", ".env", "quoted .env", "file"])
def test_defect_12_a_pem_with_literal_line_breaks(tmp_path: Path, where: str) -> None:
    r"""The old bot could not read a key written on one line with \n in it: here every way in accepts it."""
    one_line = PEM.strip().replace("\n", "\\n")
    values = {"KALSHI_ENV": "demo", "KALSHI_API_KEY": "key-id"}
    dotenv = tmp_path / ".env"
    if where == "environment":
        values["KALSHI_API_SECRET"] = one_line
    elif where == "file":
        (tmp_path / "key.pem").write_text(one_line)
        values["KALSHI_PRIVATE_KEY_PATH"] = str(tmp_path / "key.pem")
    else:
        quote = '"' if where == "quoted .env" else ""
        dotenv.write_text(f"KALSHI_API_SECRET={quote}{one_line}{quote}\n")

    settings = load_settings(environ=values, dotenv=dotenv)
    signature = load_signer("key-id", read_private_key(settings).reveal()).sign(b"text")

    KEY.public_key().verify(signature, b"text")


# --- 15: the loop of errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["place", "cancel", "create_group"])
@pytest.mark.parametrize(
    "error",
    [
        ExchangeUnavailable("connection refused"),
        ExchangeRejected("no", status=400, code="invalid_parameters"),
        TradingPaused("trading is paused", status=409, code="trading_is_paused"),
    ],
    ids=["unavailable", "refused", "paused"],
)
async def test_defect_15_one_markets_error_is_not_printed_for_ever(
    autojump_clock: MockClock, name: str, error: Exception
) -> None:
    """The old bot printed a market's error every 100 ms for ever: 6,000 lines in ten minutes.

    Here ten minutes of nothing but errors, in a market that moves all the time, are a few dozen lines and requests.
    """
    rig = TaskRig()
    with structlog.testing.capture_logs() as lines:
        async with rig.with_quoter():
            if name != "create_group":
                await trio.sleep(1)
            rig.exchange.always(name, refuse(error))  # type: ignore[arg-type]
            if name == "cancel":
                rig.floor.hold_all("test", "must go")
            for i in range(1_200):
                await trio.sleep(0.5)
                shift = 0 if name == "cancel" else 100 * (i % 9)
                rig.book(4_000 + shift, 6_000 + shift)

    # A create is only tried where a quote is missing: the two sides between them, each 15 s and slower.
    assert 8 <= len(rig.exchange.called(name)) <= 2 * (600 / 15 + 10)
    assert len([line for line in lines if line["log_level"] in ("warning", "error")]) <= 2 * (600 / 15 + 10)


# --- 16: partial fills -----------------------------------------------------------------------------------------------


async def test_defect_16_a_partial_fill_counts_while_the_order_rests(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The old bot saw fills only when an order had gone: risk ran on a position of yesterday.

    Here 3 of 10 are filled and the order rests: by socket the position is right at once, by poll within a second.
    """
    rig = TaskRig()
    rig.exchange.known_series = {"KXNHLGAME": Series(ticker="KXNHLGAME")}
    async with open_books(tmp_path) as ledger, rig.with_quoter():
        await trio.sleep(1)
        bid, ask = rig.only(BID), rig.only(ASK)
        rig.exchange.fill(bid.order_id, 300)
        assert rig.positions.net(GAME) == 300
        assert rig.floor.gross.exposure(GAME).net == 300

        async with trio.open_nursery() as nursery:
            await nursery.start(rig.reconciler(ledger).run)
            rig.exchange.fill(ask.order_id, 500, tell=False, report=False)
            await trio.sleep(1)
            assert rig.positions.net(GAME) == -200
            nursery.cancel_scope.cancel()
        assert (rig.only(BID).order_id, rig.only(ASK).order_id) == (bid.order_id, ask.order_id)


# --- 19: the failed call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [True, False])
async def test_defect_19_a_failed_call_is_not_an_order_that_was_not_placed(
    autojump_clock: MockClock, landed: bool
) -> None:
    """The old bot placed anew after a timeout: two orders, twice the risk.

    Here the same id is sent until the outcome is known; whether or not the first call landed, one order rests.
    """
    rig = TaskRig()
    rig.exchange.sink = None
    answer = lost_after() if landed else lost_before()
    rig.exchange.script("place", answer, answer, answer, answer)
    async with rig.with_quoter():
        for _ in range(100):
            await trio.sleep(0.1)
            assert all(len(rig.resting(side)) <= 1 for side in Side)

        assert rig.prices() == ([4_900], [5_100])
        assert len({order.client_order_id for order in sent(rig)}) == 2
        assert all(order.state is OrderState.RESTING for order in rig.desk.of_market(GAME))


# --- 20: memory ------------------------------------------------------------------------------------------------------


async def test_defect_20_memory_of_fills_is_bounded_and_forgets_nothing_that_counts(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old bot's set of processed fills grew without bound.

    Here memory holds 20 ids. 100 fills later the whole history is read once more: not one of them counts twice.
    """
    monkeypatch.setattr(positions_module, "REMEMBERED_FILLS", 20)
    monkeypatch.setattr(reconcile_module, "REMEMBERED_FILLS", 20)
    exchange = FakeExchange()
    rig = a_life(exchange)
    exchange.sink = None
    order_id = rest(exchange, "mm-old-1")
    async with open_books(tmp_path) as ledger:
        reconciler = rig.reconciler(ledger)
        for _ in range(10):
            for _ in range(10):
                await trio.sleep(30)
                exchange.fill(order_id, 100)
            await reconciler.pass_fills()
        reconciler.high_water = None
        await reconciler.pass_fills()

        assert rig.positions.net(GAME) == 10_000
        assert rig.positions.fills == 100
        assert len(rig.positions._seen) <= 20
        assert len(reconciler._confirmed) <= 20


# --- 21: queues ------------------------------------------------------------------------------------------------------


async def test_defect_21_no_delta_is_ever_dropped(autojump_clock: MockClock) -> None:
    """The old bot's queue of events dropped silently when it was full, and its book was wrong from then on.

    Here a burst of 50,000 deltas meets a quoter that cannot run in between: the book is exact to the last contract.
    """
    rig = TaskRig()
    async with rig.with_quoter():
        truth = {4_000: 10_000}
        for i in range(50_000):
            price, change = 100 + 100 * (i * 7 % 39), 100 if i % 3 else 300
            rig.handler.on_delta(GAME, BID, Price(price), Count(change), Micros(0))
            truth[price] = truth.get(price, 0) + change
        rig.handler.on_read_end(virtual_clock())

        assert rig.floor.books[GAME].bids == truth
        assert rig.handler.deltas == 50_000


async def test_defect_21_a_full_channel_of_fills_stops_trading(autojump_clock: MockClock) -> None:
    """What cannot be handed on is not dropped: it counts, and the error ends trading with a reason."""
    rig = TaskRig()
    send, receive = trio.open_memory_channel[Fill](2)
    rig.handler.fills = send

    def fill(n: int) -> Fill:
        return Fill(
            order_id=OrderId("o"),
            trade_id=TradeId(f"t{n}"),
            ticker=GAME,
            side=BID,
            price=Price(4_900),
            count=Count(100),
            fee=Money(0),
            liquidity=Liquidity.MAKER,
            ts=Micros(n),
        )

    with send, receive:
        rig.handler.on_fill(fill(1))
        rig.handler.on_fill(fill(2))
        with pytest.raises(LedgerError, match="full"):
            rig.handler.on_fill(fill(3))
    assert rig.positions.net(GAME) == 300


# --- 22: leaving -----------------------------------------------------------------------------------------------------


async def test_defect_22_leaving_takes_off_what_rests_not_what_is_remembered(
    autojump_clock: MockClock,
) -> None:
    """The old bot cancelled the orders it remembered: what it had forgotten, or never knew it had, rested on.

    Here the desk knows nothing of five orders (other sessions, a lost answer, another market): all are gone, the
    neighbour's order is not.
    """
    rig = TaskRig()
    for name in ("mm-test-77", "mm-crashed-1", "mm-crashed-2", "mm-older-1"):
        rest(rig.exchange, name)
    rig.exchange.put(
        NewOrder(
            client_order_id=ClientOrderId("mm-older-2"),
            ticker=MarketTicker("KXNBAGAME-26SEP21LALBOS-LAL"),
            side=ASK,
            price=Price(9_000),
            count=Count(100),
            exchange_index=2,
        )
    )
    rest(rig.exchange, "neighbour-1")
    assert rig.desk.live == {}

    report = await Sweeper(rig.exchange, rig.writes, virtual_clock, rig.ids.bot_prefix).sweep(10)

    assert report.is_proven
    assert [r.client_order_id for r in rig.exchange.resting()] == ["neighbour-1"]


async def test_defect_22_a_create_still_in_flight_does_not_land_behind_the_sweep(
    autojump_clock: MockClock,
) -> None:
    """The create reaches the exchange after everything was cancelled: its group was triggered, it is refused."""
    rig = TaskRig()
    group = await rig.fence.group_for(0)
    rig.exchange.script("place", slow(delay=3.0))
    order = Order(
        client_order_id=rig.ids.next(),
        ticker=GAME,
        side=BID,
        price=Price(4_900),
        count=Count(1_000),
        group_id=group,
        expires_at=Micros(virtual_clock() + 60 * SECOND),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.desk.place, order)
        await trio.sleep(0.1)
        assert await rig.fence.trigger_all("leaving") == []
        sweeper = Sweeper(rig.exchange, rig.writes, virtual_clock, rig.ids.bot_prefix)
        sweeper.note_write()
        assert (await sweeper.sweep(10)).is_proven
        await trio.sleep(5)

    assert rig.exchange.resting() == []
    assert order.state is OrderState.DONE

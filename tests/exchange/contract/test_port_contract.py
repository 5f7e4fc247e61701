"""What every venue behind the port must do. Callers rely on this and on nothing else.

The same questions are put to the Kalshi adapter (against the embedded exchange, over sockets) and to paper over it. The
other traders are played through the exchange's core.
"""

import time
from random import Random

import attrs
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mm.domain.fill import Liquidity
from mm.domain.market import MarketStatus
from mm.domain.numbers import SECOND, Count, Micros, Price, parse_money
from mm.domain.order import Side, TimeInForce
from mm.exchange import port
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, OrderRequest, SeriesSpec
from mm.exchange.embedded.server.server import open_exchange_server
from mm.exchange.kalshi.client import open_kalshi
from mm.exchange.kalshi.options import kalshi_options
from mm.exchange.kalshi.signing import load_signer
from mm.exchange.paging import read_all
from mm.exchange.paper import Latency, open_paper

pytestmark = pytest.mark.real

SERIES, EVENT = "KXNHLGAME", "KXNHLGAME-26DEC01TORBOS"
TICKER = f"{EVENT}-TOR"
WITHIN_S = 10.0


def now():
    return Micros(time.time_ns() // 1000)


class Ears:
    """Listens to a feed."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self.heard.append((name, *args))

    def of(self, name):
        return [args for heard, *args in self.heard if heard == name]


@attrs.define(eq=False)
class Bench:
    """A venue under test and the exchange behind it."""

    exchange: port.Exchange
    core: object
    ears: Ears
    number: int = 0

    def house(self, side, price, count, *, rest=True):
        """Somebody else's order."""
        tif = TimeInForce.GTC if rest else TimeInForce.IOC
        request = OrderRequest(
            ticker=TICKER, side=side, price=Price(price), count=Count(count), time_in_force=tif
        )
        return self.core.create(now(), "maker" if rest else "taker", request)

    def order(self, side=Side.BID, price=3500, count=1000, **extra):
        self.number += 1
        values = {
            "client_order_id": f"mm-contract-{self.number}",
            "ticker": TICKER,
            "side": side,
            "price": Price(price),
            "count": Count(count),
            "exchange_index": 0,
        }
        return port.NewOrder(**{**values, **extra})

    async def place(self, *args, **kwargs):
        order = self.order(*args, **kwargs)
        ack = await self.exchange.place(order)
        return port.OrderRef(order_id=ack.order_id, ticker=TICKER, exchange_index=0)

    async def take(self, side, price, count, **extra):
        order = self.order(side, price, count, time_in_force=TimeInForce.IOC, post_only=False, **extra)
        return await self.exchange.place(order)

    async def resting(self):
        return await read_all(
            lambda cursor: self.exchange.orders_page(status=port.OrderStatus.RESTING, cursor=cursor),
            what="resting orders",
        )

    async def eventually(self, condition, what):
        """Reads lag writes and frames travel: wait for it, under a deadline."""
        with trio.move_on_after(WITHIN_S):
            while True:
                found = condition()
                if not isinstance(found, bool | list | int):
                    found = await found
                if found:
                    return found
                await trio.sleep(0.02)
        raise AssertionError(f"not within {WITHIN_S:g} s: {what}")


def open_market(server):
    core = server.core
    core.add_series(now(), SeriesSpec(ticker=SERIES, title="NHL Game"))
    core.add_event(now(), EventSpec(ticker=EVENT, series_ticker=SERIES, is_mutually_exclusive=True))
    core.add_market(
        now(),
        MarketSpec(
            ticker=TICKER,
            event_ticker=EVENT,
            open_time=now() - SECOND,
            close_time=now() + 3_600 * SECOND,
            exchange_index=0,
            yes_sub_title="TOR",
            no_sub_title="TOR",
        ),
    )
    for somebody in ("maker", "taker"):  # two, since nobody trades with himself
        core.add_user(somebody, is_house=True)


@pytest.fixture(name="bench", params=["kalshi", "paper"])
async def _bench(request, nursery):
    server = open_exchange_server(
        clock=now, random=Random(7), ids=UuidSource(Random().getrandbits(80)), tier="prestige"
    )
    open_market(server)
    key = ed25519.Ed25519PrivateKey.generate()
    server.add_account("member", {0: parse_money("10000")})
    server.add_key("key", "member", key.public_key())
    nursery.start_soon(server.driver.run_timers)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve_stream, listeners)
    url = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}/trade-api"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    async with open_kalshi(
        kalshi_options(f"http://{url}/v2", f"ws://{url}/ws/v2"),
        load_signer("key", pem),
        clock=now,
        randomness=Random(1),
        connect=trio.open_tcp_stream,
    ) as live:
        if request.param == "kalshi":
            async with running(live, server.core) as bench:
                yield bench
            return
        async with open_paper(
            live, clock=now, randomness=Random(2), latency=Latency(base_s=0.002, jitter_s=0.002)
        ) as paper:
            async with running(paper, server.core) as bench:
                yield bench


class running:  # noqa: N801 - reads as a phrase
    """A bench whose feed listens to the market, with 10 bid at 0.40, 10 at 0.39, 10 asked at 0.44."""

    def __init__(self, exchange, core):
        self.bench = Bench(exchange, core, Ears())

    async def __aenter__(self):
        bench = self.bench
        bench.house(Side.BID, 4000, 1000)
        bench.house(Side.BID, 3900, 1000)
        bench.house(Side.ASK, 4400, 1000)
        self.feed = bench.exchange.open_feed()
        feed = await self.feed.__aenter__()
        self.nursery = trio.open_nursery()
        nursery = await self.nursery.__aenter__()
        await feed.watch([TICKER])
        nursery.start_soon(feed.run, bench.ears)
        self.scope = nursery.cancel_scope
        await bench.eventually(lambda: bench.ears.of("on_snapshot"), "the first snapshot")
        return bench

    async def __aexit__(self, *exc):
        self.scope.cancel(reason="the test is over")
        await self.nursery.__aexit__(*exc)
        await self.feed.__aexit__(*exc)


async def test_markets_series_and_events(bench):
    """What is traded, and at what fees."""
    (market,) = await bench.exchange.markets(series_ticker=SERIES, status="open")
    series = await bench.exchange.series(SERIES)
    event = await bench.exchange.event(EVENT)

    assert (market.ticker, market.status, market.exchange_index) == (TICKER, MarketStatus.ACTIVE, 0)
    assert (market.yes_bid, market.yes_ask) == (4000, 4400)
    assert market.grid.is_valid(Price(4100))
    assert series.ticker == SERIES
    assert event.is_mutually_exclusive
    assert await bench.exchange.markets(tickers=[TICKER]) == [market]
    assert await bench.exchange.markets(tickers=[]) == []
    with pytest.raises(port.NotRestingHere):
        await bench.exchange.series("KXNOSUCH")


async def test_the_venue_and_its_budget(bench):
    """Whether it trades, what calls cost, how fresh its reads are."""
    status = await bench.exchange.status()
    limits = await bench.exchange.limits()
    age = await bench.exchange.user_data_age()

    assert status.exchange_active
    assert status.trading_active
    assert limits.write.capacity > 0
    assert abs(age - now()) < 10 * SECOND


async def test_an_order_rests_and_is_read_back(bench):
    """By id, in the listing of what rests, with all that we gave it."""
    expires_at = Micros((now() + 60 * SECOND) // SECOND * SECOND)
    order = bench.order(price=3500, count=1050, expires_at=expires_at)
    ack = await bench.exchange.place(order)

    assert (ack.filled, ack.remaining) == (0, 1050)
    (report,) = await bench.eventually(bench.resting, "the order in the listing")
    assert report == await bench.exchange.order(ack.order_id)
    assert report.order_id == ack.order_id
    assert report.client_order_id == order.client_order_id
    assert (report.side, report.price, report.initial, report.remaining) == (Side.BID, 3500, 1050, 1050)
    assert report.status is port.OrderStatus.RESTING
    assert report.expires_at == expires_at


async def test_a_client_order_id_is_spent_for_ever(bench):
    """Sent again: told so. Cancelled and sent again: told so, too."""
    order = bench.order()
    ack = await bench.exchange.place(order)
    with pytest.raises(port.OrderIdSpent):
        await bench.exchange.place(order)
    await bench.exchange.cancel(port.OrderRef(order_id=ack.order_id, ticker=TICKER, exchange_index=0))
    with pytest.raises(port.OrderIdSpent):
        await bench.exchange.place(order)


@pytest.mark.parametrize(
    "change",
    [
        {"price": 4400},
        {"price": 4150 + 1},
        {"price": 9900, "count": 100_000_000},
        {"ticker": "KXNHLGAME-X-Y"},
    ],
    ids=["post-only would cross", "off the grid", "no cash", "no such market"],
)
async def test_a_definite_no_leaves_nothing(bench, change):
    """Refused orders do not rest and do not fill."""
    with pytest.raises(port.ExchangeRejected):
        await bench.place(**{"price": 3500, **change})

    assert await bench.resting() == []
    assert (await bench.exchange.fills_page()).items == []


async def test_cancel(bench):
    """Says how much came off; a second one finds nothing, which proves nothing."""
    ref = await bench.place(count=700)

    assert await bench.exchange.cancel(ref) == 700
    with pytest.raises(port.NotRestingHere):
        await bench.exchange.cancel(ref)

    async def is_cancelled():
        return (await bench.exchange.order(ref.order_id)).status is port.OrderStatus.CANCELLED

    await bench.eventually(is_cancelled, "the order reads as cancelled")
    report = await bench.exchange.order(ref.order_id)
    assert (report.initial, report.remaining) == (700, 0)
    nobody = attrs.evolve(ref, order_id="00000000-0000-4000-8000-00000000dead")
    with pytest.raises(port.NotRestingHere):
        await bench.exchange.order(nobody.order_id)
    with pytest.raises(port.NotRestingHere):
        await bench.exchange.cancel(nobody)


async def test_cancel_batch(bench):
    """One result an order, in the order asked."""
    refs = [await bench.place(price=3500 - 100 * i) for i in range(3)]
    await bench.exchange.cancel(refs[1])
    results = await bench.exchange.cancel_batch(refs)

    assert [type(result) for result in results] == [type(None), port.NotRestingHere, type(None)]
    assert await bench.exchange.cancel_batch([]) == []


async def test_amend_and_decrease(bench):
    """Price, total count, expiry only, less: read back; what cannot be leaves the order as it was."""
    ref = await bench.place(price=3500, count=1000)
    await bench.exchange.amend(ref, side=Side.BID, price=Price(3600), count=Count(1200))
    await bench.exchange.decrease(ref, reduce_to=Count(800))
    later = Micros((now() + 90 * SECOND) // SECOND * SECOND)
    await bench.exchange.amend(ref, side=Side.BID, price=Price(3600), count=Count(800), expires_at=later)

    async def is_moved():
        report = await bench.exchange.order(ref.order_id)
        return (report.price, report.remaining, report.expires_at) == (3600, 800, later)

    await bench.eventually(is_moved, "the amended order")
    with pytest.raises(port.ExchangeRejected):
        await bench.exchange.amend(ref, side=Side.BID, price=Price(3601), count=Count(800))
    assert (await bench.exchange.order(ref.order_id)).price == 3600
    await bench.exchange.cancel(ref)
    with pytest.raises(port.NotRestingHere):
        await bench.exchange.decrease(ref, reduce_to=Count(100))


async def test_a_quote_is_filled_by_a_sweep_and_everything_agrees(bench):
    """A taker sells through our price: feed, listing, position and cash say the same."""
    cash = (await bench.exchange.balance()).total
    order = bench.order(price=4000, count=500)
    ack = await bench.exchange.place(order)
    bench.house(Side.ASK, 3900, 2000, rest=False)
    ((fill,),) = await bench.eventually(lambda: bench.ears.of("on_fill"), "the fill in the feed")

    assert (fill.order_id, fill.client_order_id) == (ack.order_id, order.client_order_id)
    assert (fill.side, fill.price, fill.count) == (Side.BID, 4000, 500)
    assert (fill.liquidity, fill.fee) == (Liquidity.MAKER, 21_000)  # 0.0175 * 5 * 0.4 * 0.6

    async def listed():
        return (await bench.exchange.fills_page(order_id=ack.order_id)).items

    (same,) = await bench.eventually(listed, "the fill in the listing")
    assert (same.key, same.fee, same.signed_count) == (fill.key, fill.fee, 500)
    (held,) = await bench.eventually(bench.exchange.positions, "the position")
    assert (held.ticker, held.position, held.fees_paid) == (TICKER, 500, 21_000)
    assert (await bench.exchange.balance()).total == cash - 2_000_000 - 21_000

    def reported():
        last = [report for (report,) in bench.ears.of("on_order") if report.order_id == ack.order_id]
        return bool(last) and last[-1].status is port.OrderStatus.EXECUTED

    await bench.eventually(reported, "the order's end in the feed")


async def test_an_exit_takes_and_never_rests(bench):
    """Immediate-or-cancel: what is there, as taker; the rest is gone; reduce-only does not turn the position."""
    ack = await bench.take(Side.BID, 4400, 1500)
    assert (ack.filled, ack.remaining) == (1000, 0)
    assert await bench.resting() == []
    ack = await bench.take(Side.ASK, 3900, 5000, reduce_only=True)
    assert (ack.filled, ack.remaining) == (1000, 0)

    async def is_flat():
        return all(p.position == 0 for p in await bench.exchange.positions())

    await bench.eventually(is_flat, "a flat position")
    fills = (await bench.exchange.fills_page()).items
    assert {fill.liquidity for fill in fills} == {Liquidity.TAKER}
    assert {fill.price for fill in fills} == {4400, 4000}
    nothing = await bench.take(Side.ASK, 3900, 100, reduce_only=True)
    assert nothing.filled == 0


async def test_fills_since(bench):
    """Whole seconds, rounded down: nothing younger is left out, and yesterday is not asked for again."""
    await bench.take(Side.BID, 4400, 100)

    async def listed():
        return (await bench.exchange.fills_page(since=Micros(now() - 60 * SECOND))).items

    (fill,) = await bench.eventually(listed, "the fill")
    assert (await bench.exchange.fills_page(since=fill.ts)).items == [fill]
    assert (await bench.exchange.fills_page(since=Micros(fill.ts + 5 * SECOND))).items == []


async def test_a_triggered_group_is_a_fence(bench):
    """Everything in it goes, nothing more comes in, and the feed tells; what is outside stays."""
    group = await bench.exchange.create_group(contracts_limit=1000, exchange_index=0)
    await bench.place(price=3500, group_id=group)
    await bench.place(price=3400)
    await bench.exchange.trigger_group(group, exchange_index=0)
    await bench.exchange.trigger_group(group, exchange_index=0)

    async def only_the_other():
        return [order.price for order in await bench.resting()] == [3400]

    await bench.eventually(only_the_other, "the group's order gone")
    with pytest.raises(port.ExchangeRejected):
        await bench.place(price=3300, group_id=group)
    await bench.eventually(lambda: [group] in bench.ears.of("on_group_triggered"), "the trigger in the feed")
    (found,) = [g for g in await bench.exchange.groups() if g.group_id == group]
    assert found.is_triggered
    await bench.exchange.delete_group(group, exchange_index=0)
    assert group not in [g.group_id for g in await bench.exchange.groups()]
    with pytest.raises(port.ExchangeError):
        await bench.exchange.trigger_group("00000000-0000-4000-8000-00000000dead", exchange_index=0)


async def test_an_expiry_ends_an_order(bench):
    """Nobody extends it: it is gone."""
    ref = await bench.place(expires_at=Micros(now() + 2 * SECOND))

    async def is_gone():
        return (await bench.exchange.order(ref.order_id)).status is port.OrderStatus.CANCELLED

    await bench.eventually(is_gone, "the expiry")


async def test_the_feed_tells_the_market(bench):
    """Snapshot, then relative changes in YES price, then prints, each read ended."""
    ((ticker, bids, asks, _),) = bench.ears.of("on_snapshot")
    assert (ticker, sorted(bids), asks) == (TICKER, [(3900, 1000), (4000, 1000)], [(4400, 1000)])
    bench.house(Side.ASK, 4300, 700)
    bench.house(Side.BID, 4300, 200, rest=False)
    await bench.eventually(lambda: bench.ears.of("on_trade"), "the print")
    await bench.eventually(lambda: len(bench.ears.of("on_delta")) >= 2, "the deltas")

    ((trade,),) = bench.ears.of("on_trade")
    assert (trade.price, trade.count, trade.taker_side) == (4300, 200, Side.BID)
    changes = [args[1:4] for args in bench.ears.of("on_delta")]
    assert changes == [[Side.ASK, 4300, 700], [Side.ASK, 4300, -200]]
    assert bench.ears.heard[0][0] == "on_connected"
    assert bench.ears.of("on_read_end")
    assert bench.ears.of("on_out_of_sync") == []


async def test_the_account_has_a_name(bench):
    """Live and paper rows of one key never mix."""
    assert "/key/0/" in bench.exchange.account
    kind = bench.exchange.account.rpartition("/")[2]
    assert kind == "live" or kind.startswith("paper")

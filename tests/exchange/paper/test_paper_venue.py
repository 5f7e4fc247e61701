"""The paper venue as an exchange, over a live venue played by hand, on the virtual clock."""

from contextlib import asynccontextmanager
from fractions import Fraction

import attrs
import pytest
import trio

from mm.domain.fees import FeeType
from mm.domain.fill import Fill, Liquidity, Trade
from mm.domain.grid import uniform_grid
from mm.domain.market import Event, Market, MarketStatus, Series
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import SelfTradePrevention, Side, TimeInForce
from mm.exchange import port
from mm.exchange.paper import Latency, open_paper

START = 1_796_166_600_000_000
TICKER = "KXNHLGAME-26DEC01TORBOS-TOR"
MARKET = Market(
    ticker=TICKER,
    event_ticker="KXNHLGAME-26DEC01TORBOS",
    status=MarketStatus.ACTIVE,
    grid=uniform_grid(),
    exchange_index=0,
)


class LiveFeed:
    """A feed whose frames the test sends."""

    def __init__(self):
        self.sink = None
        self.watched = []
        self.running = trio.Event()
        self.refusal = None
        self.refused = trio.Event()

    async def run(self, sink):
        self.sink = sink
        self.running.set()
        await self.refused.wait()
        raise self.refusal

    async def watch(self, tickers):
        self.watched += tickers

    async def unwatch(self, tickers):
        pass

    async def resync(self, tickers):
        pass

    def statistics(self):
        return None


class Live:
    """The live venue: reads only, any write is a failure of the test."""

    account = "venue.test/key-1/0/live"

    def __init__(self):
        self.feed = LiveFeed()
        self.listed = {TICKER: MARKET}
        self.multiplier = None
        self.asked = []

    async def series(self, ticker):
        self.asked.append("series")
        return Series(ticker=ticker, fee_type=FeeType.QUADRATIC_WITH_MAKER_FEES)

    async def event(self, ticker):
        self.asked.append("event")
        return Event(ticker=ticker, fee_multiplier_override=self.multiplier)

    async def markets(self, *, tickers=None, **_):
        self.asked.append("markets")
        return [m for m in self.listed.values() if tickers is None or m.ticker in tickers]

    @asynccontextmanager
    async def open_feed(self):
        yield self.feed


class Sink:
    """Notes what the listener hears."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self.heard.append((name, *args))

    def fills(self):
        return [args[0] for name, *args in self.heard if name == "on_fill"]

    def orders(self):
        return [args[0] for name, *args in self.heard if name == "on_order"]

    def names(self):
        return [name for name, *_ in self.heard]


class Low:
    def random(self):
        return 0.0


@attrs.define
class Stage:
    paper: port.Exchange
    live: Live
    sink: Sink
    number: int = 0

    @property
    def feed(self):
        return self.live.feed.sink

    @property
    def now(self):
        return Micros(START + round(trio.current_time() * SECOND))

    def book(self, bids=((4000, 5000),), asks=((4400, 3000),), ticker=TICKER):
        self.feed.on_snapshot(ticker, list(bids), list(asks), self.now)
        self.feed.on_read_end(self.now)

    def trade(self, taker, price, count):
        self.feed.on_trade(
            Trade(
                trade_id="t",
                ticker=TICKER,
                price=Price(price),
                count=Count(count),
                taker_side=taker,
                ts=self.now,
            )
        )
        self.feed.on_read_end(self.now)

    def order(self, side=Side.BID, price=4000, count=1000, **extra):
        self.number += 1
        values = {
            "client_order_id": f"mm-s-{self.number}",
            "ticker": TICKER,
            "side": side,
            "price": Price(price),
            "count": Count(count),
            "exchange_index": 0,
        }
        return port.NewOrder(**{**values, **extra})

    def exit(self, side, price, count, **extra):
        ioc = {"time_in_force": TimeInForce.IOC, "post_only": False}
        return self.order(side, price, count, **{**ioc, **extra})

    async def place(self, *args, **kwargs):
        new = self.order(*args, **kwargs)
        ack = await self.paper.place(new)
        return port.OrderRef(order_id=ack.order_id, ticker=new.ticker, exchange_index=0)

    async def statuses(self):
        page = await self.paper.orders_page()
        return {o.client_order_id: o.status for o in page.items}


@asynccontextmanager
async def stage(*, cash=10_000_000_000, with_book=True, latency=None):
    """A paper venue with its feed running."""
    live = Live()
    clock = lambda: Micros(START + round(trio.current_time() * SECOND))  # noqa: E731
    async with open_paper(
        live,
        clock=clock,
        randomness=Low(),
        latency=latency or Latency(base_s=0.1, jitter_s=0.0),
        cash=Money(cash),
    ) as paper:
        async with trio.open_nursery() as nursery, paper.open_feed() as feed:
            sink = Sink()
            nursery.start_soon(feed.run, sink)
            await live.feed.running.wait()
            found = Stage(paper, live, sink)
            live.feed.sink.on_connected(found.now)
            if with_book:
                found.book()
            yield found
            nursery.cancel_scope.cancel()


async def test_the_account_says_paper_and_no_two_runs_are_one(autojump_clock):
    """The ledger keeps paper rows apart from live ones, and from another run's, whose positions are gone."""
    async with stage() as first:
        await trio.sleep(1)
        async with stage() as second:
            assert first.paper.account.startswith("venue.test/key-1/0/paper-")
            assert first.paper.account != second.paper.account


async def test_a_quote_rests_fills_and_is_told_in_the_feed(autojump_clock):
    """Behind 50 contracts, filled by trades, with fill, report and money in step; nothing is sent to the live venue."""
    async with stage() as s:
        ref = await s.place(count=1000)
        s.trade(Side.ASK, 4000, 5000)
        assert s.sink.fills() == []
        s.trade(Side.ASK, 4000, 400)

        (fill,) = s.sink.fills()
        assert (fill.price, fill.count, fill.liquidity) == (4000, 400, Liquidity.MAKER)
        assert fill.fee == 16_800  # 0.0175 * 4 * 0.4 * 0.6
        assert fill.order_id == ref.order_id
        last = s.sink.orders()[-1]
        assert (last.status, last.filled, last.remaining) == (port.OrderStatus.RESTING, 400, 600)
        assert s.sink.names()[-5:] == ["on_trade", "on_delta", "on_fill", "on_order", "on_read_end"]
        # Our own order stands in the delivered book, as it would at the venue: 10 contracts, then 4 less.
        own = [call for call in s.sink.heard if call[0] == "on_delta"]
        assert [(call[2], call[3], call[4]) for call in own] == [
            (Side.BID, 4000, 1000),
            (Side.BID, 4000, -400),
        ]

        (position,) = await s.paper.positions()
        assert (position.position, position.fees_paid) == (400, 16_800)
        page = await s.paper.fills_page(order_id=ref.order_id)
        assert page.items == [fill]
        balance = await s.paper.balance()
        reserve = 6 * 400_000 + 25_200
        assert balance.total == 10_000_000_000 - 1_600_000 - 16_800 - reserve


async def test_a_request_takes_its_way_and_the_market_moves_meanwhile(autojump_clock):
    """0.1 s there, 0.1 s back: a trade before arrival fills nothing, one before the answer does."""
    async with stage() as s:
        s.book(bids=(), asks=((4400, 3000),))
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.paper.place, s.order(price=4000))
            await trio.sleep(0.05)
            s.trade(Side.ASK, 4000, 300)
            assert s.sink.fills() == []
            await trio.sleep(0.1)
            s.trade(Side.ASK, 4000, 300)
            assert len(s.sink.fills()) == 1

        assert trio.current_time() - started == pytest.approx(0.2)


async def test_an_order_filled_before_its_cancel_arrives_is_not_found(autojump_clock):
    """404, and the fill is in the feed: the race of the real venue."""
    async with stage() as s:
        s.book(bids=())
        ref = await s.place(price=4000, count=300)
        async with trio.open_nursery() as nursery:

            async def cancel():
                with pytest.raises(port.NotRestingHere):
                    await s.paper.cancel(ref)

            nursery.start_soon(cancel)
            await trio.sleep(0.05)
            s.trade(Side.ASK, 4000, 300)

        assert (await s.statuses())["mm-s-1"] is port.OrderStatus.EXECUTED


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"price": 4400}, port.ExchangeRejected, "invalid_order"),
        ({"price": 4050}, port.ExchangeRejected, "invalid_price"),
        ({"count": 0}, port.ExchangeRejected, "invalid_parameters"),
        ({"client_order_id": "mm-s-1"}, port.OrderIdSpent, "order_already_exists"),
        ({"ticker": "NONE-1"}, port.ExchangeRejected, "market_not_found"),
        ({"exchange_index": 3}, port.ExchangeRejected, "market_not_found"),
        ({"group_id": "nobody"}, port.NotRestingHere, "not_found"),
        ({"expires_at": START}, port.ExchangeRejected, "invalid_parameters"),
        ({"reduce_only": True}, port.ExchangeRejected, "invalid_parameters"),
        ({"count": 10_000_000}, port.ExchangeRejected, "insufficient_balance"),
    ],
)
async def test_refusals(autojump_clock, change, error, code):
    """What the venue refuses, paper refuses, with the same words; nothing is left of it."""
    async with stage(cash=1_000_000_000) as s:
        await s.place()
        with pytest.raises(error) as caught:
            await s.place(**change)

        assert type(caught.value) is error
        assert caught.value.code == code
        page = await s.paper.orders_page(status=port.OrderStatus.RESTING)
        assert [o.client_order_id for o in page.items] == ["mm-s-1"]


async def test_without_a_live_book_nothing_is_accepted(autojump_clock):
    """Before the first snapshot and while the feed is cut there is nothing to trade against."""
    async with stage(with_book=False) as s:
        with pytest.raises(port.ExchangeUnavailable):
            await s.place()
        s.book()
        await s.place()
        s.feed.on_disconnected(s.now, "cut")
        with pytest.raises(port.ExchangeUnavailable):
            await s.place()
        s.feed.on_out_of_sync([TICKER], "gap")
        s.book()
        await s.place()


async def test_an_exit_takes_the_displayed_depth_as_taker(autojump_clock):
    """Immediate-or-cancel: what is there up to the limit, the rest is gone, and it pays the taker's fee."""
    async with stage() as s:
        s.book(bids=((4000, 200), (3900, 200)), asks=())
        ack = await s.paper.place(s.exit(Side.ASK, 3900, 1000))
        await trio.sleep(0.01)

        assert (ack.filled, ack.remaining) == (400, 0)
        assert [(f.price, f.count, f.liquidity) for f in s.sink.fills()] == [
            (4000, 200, Liquidity.TAKER),
            (3900, 200, Liquidity.TAKER),
        ]
        assert s.sink.fills()[0].fee == 33_600
        assert s.sink.orders()[-1].status is port.OrderStatus.CANCELLED
        assert s.sink.names()[-1] == "on_read_end"
        nothing = await s.paper.place(s.exit(Side.ASK, 3900, 1000))
        assert (nothing.filled, nothing.remaining) == (0, 0)


async def test_reduce_only_never_opens(autojump_clock):
    """Capped by the position; flat means nothing at all."""
    async with stage() as s:
        ack = await s.paper.place(s.exit(Side.ASK, 4000, 1000, reduce_only=True))
        assert (ack.filled, ack.remaining) == (0, 0)
        await s.paper.place(s.exit(Side.BID, 4400, 300))
        ack = await s.paper.place(s.exit(Side.ASK, 4000, 1000, reduce_only=True))
        assert ack.filled == 300
        assert [p.position for p in await s.paper.positions()] == [0]


async def test_fill_or_kill(autojump_clock):
    """Whole or not at all, and not at all leaves the book as it was."""
    async with stage() as s:
        fok = {"time_in_force": TimeInForce.FOK}
        with pytest.raises(port.ExchangeRejected) as caught:
            await s.paper.place(s.exit(Side.BID, 4400, 3001, **fok))
        assert caught.value.code == "fill_or_kill_insufficient_resting_volume"
        assert (await s.paper.place(s.exit(Side.BID, 4400, 3000, **fok))).filled == 3000


async def test_an_incoming_order_does_not_trade_with_ourselves(autojump_clock):
    """Self-trade prevention in both modes."""
    async with stage() as s:
        s.book(bids=(), asks=())
        await s.place(Side.ASK, 4200, 500)
        ack = await s.paper.place(s.exit(Side.BID, 4200, 500))
        assert (ack.filled, ack.remaining) == (0, 0)
        assert (await s.statuses())["mm-s-1"] is port.OrderStatus.RESTING
        await s.paper.place(s.exit(Side.BID, 4200, 500, self_trade_prevention=SelfTradePrevention.MAKER))
        assert (await s.statuses())["mm-s-1"] is port.OrderStatus.CANCELLED


async def test_amend_and_decrease_keep_or_lose_the_queue_place(autojump_clock):
    """Less, or another expiry only, keeps it; more, or another price, goes to the end."""
    async with stage() as s:
        ref = await s.place(price=4000, count=1000)
        s.feed.on_delta(TICKER, Side.BID, Price(4000), Count(2000), s.now)
        await s.paper.decrease(ref, reduce_to=Count(600))
        later = Micros(s.now + 60 * SECOND)
        await s.paper.amend(ref, side=Side.BID, price=Price(4000), count=Count(500), expires_at=later)
        s.trade(Side.ASK, 4000, 5100)
        assert [f.count for f in s.sink.fills()] == [100]
        report = await s.paper.order(ref.order_id)
        assert (report.filled, report.remaining, report.initial) == (100, 400, 500)
        assert report.expires_at == later

        await s.paper.amend(ref, side=Side.BID, price=Price(4000), count=Count(900))
        s.trade(Side.ASK, 4000, 400)
        assert len(s.sink.fills()) == 1, "behind what is displayed again"
        await s.paper.amend(ref, side=Side.BID, price=Price(4100), count=Count(900))
        s.trade(Side.ASK, 4100, 200)
        assert [f.price for f in s.sink.fills()] == [4000, 4100]

        for bad in (
            {"price": Price(4400)},
            {"count": Count(300)},
            {"side": Side.ASK},
            {"price": Price(4101)},
        ):
            wanted = {"side": Side.BID, "price": Price(4100), "count": Count(900), **bad}
            with pytest.raises(port.ExchangeRejected):
                await s.paper.amend(ref, **wanted)
        assert (await s.paper.order(ref.order_id)).price == 4100


async def test_cancels(autojump_clock):
    """One, many, and what is not there; a result an order."""
    async with stage() as s:
        refs = [await s.place(price=3900 - 100 * i) for i in range(3)]
        assert await s.paper.cancel(refs[0]) == 1000
        results = await s.paper.cancel_batch(refs)

        assert [type(r) for r in results] == [port.NotRestingHere, type(None), type(None)]
        assert set((await s.statuses()).values()) == {port.OrderStatus.CANCELLED}
        assert (await s.paper.balance()).total == 10_000_000_000
        with pytest.raises(port.NotRestingHere):
            await s.paper.order("nobody")


async def test_a_triggered_group_takes_everything_off_and_lets_nothing_in(autojump_clock):
    """The fence: a create that arrives later is refused; triggering again is harmless."""
    async with stage() as s:
        group = await s.paper.create_group(contracts_limit=100, exchange_index=0)
        await s.place(price=3900, group_id=group)
        await s.place(price=3800)
        await s.paper.trigger_group(group, exchange_index=0)
        await s.paper.trigger_group(group, exchange_index=0)
        await trio.sleep(0.01)

        assert await s.statuses() == {
            "mm-s-1": port.OrderStatus.CANCELLED,
            "mm-s-2": port.OrderStatus.RESTING,
        }
        assert s.sink.names().count("on_group_triggered") == 1
        with pytest.raises(port.ExchangeRejected) as caught:
            await s.place(price=3700, group_id=group)
        assert caught.value.code == "order_group_triggered"
        assert [g.is_triggered for g in await s.paper.groups()] == [True]
        await s.paper.delete_group(group, exchange_index=0)
        assert await s.paper.groups() == []
        with pytest.raises(port.NotRestingHere):
            await s.paper.trigger_group(group, exchange_index=0)


async def test_a_group_trips_when_more_than_its_limit_matches(autojump_clock):
    """The fill that goes over the limit stands; the rest is cancelled."""
    async with stage() as s:
        s.book(bids=(), asks=())
        group = await s.paper.create_group(contracts_limit=5, exchange_index=0)
        await s.place(price=4000, count=1000, group_id=group)
        s.trade(Side.ASK, 4000, 500)
        assert s.sink.orders()[-1].status is port.OrderStatus.RESTING
        s.trade(Side.ASK, 4000, 100)

        assert sum(f.count for f in s.sink.fills()) == 600
        assert s.sink.orders()[-1].status is port.OrderStatus.CANCELLED
        assert "on_group_triggered" in s.sink.names()


async def test_expiry(autojump_clock):
    """A quote that nobody extends is gone at its time, even when the market is silent."""
    async with stage() as s:
        await s.place(price=3900, expires_at=Micros(s.now + 5 * SECOND))
        await trio.sleep(4)
        s.feed.on_alive(s.now)
        assert s.sink.orders()[-1].status is port.OrderStatus.RESTING
        await trio.sleep(2)
        s.feed.on_alive(s.now)

        assert s.sink.orders()[-1].reason == "ExpiryCancel"


def event(kind, **values):
    return port.MarketEvent(ticker=TICKER, kind=kind, **values)


async def test_pauses_and_reactivation(autojump_clock):
    """Deactivated: only orders that asked for it go, nothing new comes in. Activated: everything is cancelled."""
    kinds = port.MarketEventKind
    async with stage() as s:
        await s.place(price=3900)
        await s.place(price=3800, cancel_on_pause=True)
        s.feed.on_market_event(event(kinds.DEACTIVATED))
        assert list((await s.statuses()).values()).count(port.OrderStatus.RESTING) == 1
        with pytest.raises(port.TradingPaused) as caught:
            await s.place(price=3700)
        assert caught.value.code == "trading_is_paused"
        s.feed.on_market_event(event(kinds.ACTIVATED))
        assert port.OrderStatus.RESTING not in (await s.statuses()).values()
        await s.place(price=3700)


async def test_determined_markets_settle_once(autojump_clock):
    """Orders go, the payout comes, the position ends, and the event passes through to the listener."""
    kinds = port.MarketEventKind
    async with stage() as s:
        await s.paper.place(s.exit(Side.BID, 4400, 1000))
        await s.place(price=3900)
        before = (await s.paper.balance()).total
        s.feed.on_market_event(event(kinds.DETERMINED, settlement_value=Price(10_000)))
        s.feed.on_market_event(event(kinds.SETTLED))
        s.live.listed[TICKER] = attrs.evolve(
            MARKET, status=MarketStatus.FINALIZED, settlement_value=Price(10_000)
        )
        await s.paper.markets(tickers=[TICKER])

        (settlement,) = (await s.paper.settlements_page()).items
        assert (settlement.value, settlement.yes_count) == (10_000, 1000)
        assert await s.paper.positions() == []
        reserve = 3_900_000 + 41_633
        assert (await s.paper.balance()).total == before + 10_000_000 + reserve
        assert s.sink.names().count("on_market_event") == 2
        with pytest.raises(port.TradingPaused) as caught:
            await s.place(price=3700)
        assert caught.value.code == "market_closed"


async def test_a_result_that_the_feed_missed_is_found_in_a_listing(autojump_clock):
    """The socket was down when the market was determined."""
    async with stage() as s:
        await s.paper.place(s.exit(Side.BID, 4400, 1000))
        s.live.listed[TICKER] = attrs.evolve(MARKET, status=MarketStatus.FINALIZED, settlement_value=Price(0))
        await s.paper.markets(series_ticker="KXNHLGAME")

        assert [x.value for x in (await s.paper.settlements_page()).items] == [0]


async def test_close_time(autojump_clock):
    """At its close a market takes no orders, and what rested is gone."""
    async with stage() as s:
        await s.place(price=3900)
        s.feed.on_market_event(
            event(port.MarketEventKind.CLOSE_DATE_UPDATED, close_time=Micros(s.now + 2 * SECOND))
        )
        await trio.sleep(3)
        with pytest.raises(port.TradingPaused):
            await s.place(price=3700)
        assert s.sink.orders()[-1].reason == "CloseCancel"


async def test_a_market_opens_at_its_time_without_a_message(autojump_clock):
    """Listed as initialized, with an opening time that has come."""
    async with stage() as s:
        s.live.listed[TICKER] = attrs.evolve(
            MARKET, status=MarketStatus.INITIALIZED, open_time=Micros(s.now + SECOND)
        )
        with pytest.raises(port.TradingPaused):
            await s.place()
        await trio.sleep(2)
        await s.place()


async def test_fees_are_asked_for_once_and_again_when_they_change(autojump_clock):
    """An event's override counts from the next order on."""
    async with stage() as s:
        s.book(bids=(), asks=())
        await s.place(price=4000, count=100)
        await s.place(price=3900, count=100)
        assert s.live.asked == ["markets", "series", "event"]
        s.live.multiplier = Fraction(0)
        s.feed.on_market_event(
            port.MarketEvent(
                ticker="",
                kind=port.MarketEventKind.FEES_CHANGED,
                event_ticker=MARKET.event_ticker,
            )
        )
        await s.place(price=3800, count=100)
        s.trade(Side.ASK, 3800, 900)

        assert [f.fee for f in s.sink.fills()] == [0, 0, 0]


async def test_the_live_accounts_own_frames_do_not_come_through(autojump_clock):
    """They belong to another account's ledger."""
    async with stage() as s:
        s.feed.on_fill(
            Fill(
                order_id="o",
                trade_id="t",
                ticker=TICKER,
                side=Side.BID,
                price=Price(1),
                count=Count(1),
                fee=Money(0),
                liquidity=Liquidity.MAKER,
                ts=s.now,
            )
        )
        s.feed.on_group_triggered("g")

        assert s.sink.fills() == []
        assert "on_group_triggered" not in s.sink.names()
        assert s.feed.foreign == 2


async def test_a_refused_key_comes_through_bare(autojump_clock):
    """The feed raises `AuthError` and nothing else, as the port promises."""
    live = Live()
    async with open_paper(live, clock=lambda: Micros(START), randomness=Low()) as paper:
        async with paper.open_feed() as feed:
            live.feed.refusal = port.AuthError("no")
            live.feed.refused.set()
            with pytest.raises(port.AuthError):
                await feed.run(Sink())


async def test_a_cancelled_create_stands_if_it_had_arrived(autojump_clock):
    """Cancelled on the way there: nothing. On the way back: it rests, and a second send is told so."""
    async with stage() as s:
        await s.place(price=3900)
        lost, landed = s.order(price=3800), s.order(price=3700)
        with trio.move_on_after(0.05):
            await s.paper.place(lost)
        with trio.move_on_after(0.15):
            await s.paper.place(landed)
        await trio.sleep(1)

        assert set(await s.statuses()) == {"mm-s-1", landed.client_order_id}
        with pytest.raises(port.OrderIdSpent):
            await s.paper.place(landed)
        await s.paper.place(lost)

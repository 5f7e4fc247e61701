"""The feed's end: what a frame changes, once per read, and what a cut does."""

import pytest
import trio
from trio.testing import MockClock

from fake_exchange import virtual_clock
from mm.domain.errors import BookOutOfSync, InvariantError, LedgerError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.market import MarketStatus
from mm.domain.numbers import SECOND, Count, Micros, Money, Price
from mm.domain.order import GroupId, MarketTicker, OrderId
from mm.engine.limits import MarketExposure
from mm.engine.quoter import MakerState
from mm.exchange.port import AuthError, MarketEvent, MarketEventKind
from mm.tasks.feed import run_feed, send_fill
from task_rig import ASK, BID, GAME, TaskRig, make_market

UNKNOWN = MarketTicker("KXNHLGAME-26SEP21XXXYYY-XXX")
LEVELS = [(Price(4_000), Count(100))]


def make_fill(n: int = 1, ticker: MarketTicker = GAME) -> Fill:
    return Fill(
        order_id=OrderId("o1"),
        trade_id=TradeId(f"t{n}"),
        ticker=ticker,
        side=BID,
        price=Price(4_900),
        count=Count(100),
        fee=Money(0),
        liquidity=Liquidity.MAKER,
        ts=Micros(n),
    )


async def test_a_hundred_deltas_cause_one_decision(autojump_clock: MockClock) -> None:
    """All of one read are folded, then every changed market is decided on once."""
    rig = TaskRig()
    rig.add_quoter()
    rig.book(4_000, 6_000)
    before = rig.floor.decisions
    for i in range(100):
        rig.handler.on_delta(GAME, BID, Price(4_010 + 10 * (i % 7)), Count(100), Micros(0))
    assert rig.floor.decisions == before
    rig.handler.on_read_end(virtual_clock())
    rig.handler.on_read_end(virtual_clock())

    assert rig.floor.decisions == before + 1
    assert rig.handler.deltas == 100
    assert sum(rig.floor.books[GAME].bids.values()) == 10_000 + 100 * 100


async def test_a_change_that_no_decision_can_see_causes_none(autojump_clock: MockClock) -> None:
    """Behind the best price, where we do not stand at it, a level may change as it likes; the book follows it."""
    rig = TaskRig()
    rig.add_quoter()
    rig.book(4_000, 6_000)
    before = rig.floor.decisions

    rig.handler.on_delta(GAME, BID, Price(3_000), Count(100), Micros(0))
    rig.handler.on_delta(GAME, ASK, Price(6_000), Count(100), Micros(0))
    rig.handler.on_read_end(virtual_clock())

    assert rig.floor.decisions == before
    assert rig.floor.books[GAME].size_at(BID, Price(3_000)) == 100


async def test_while_the_limit_over_all_markets_binds_every_change_is_looked_at(
    autojump_clock: MockClock,
) -> None:
    """What another market frees must not wait for this one's touch to move; nor when the limit stops binding."""
    rig = TaskRig()
    rig.add_quoter()
    rig.book(4_000, 6_000)
    rig.floor.gross.limit = Count(500)
    before = rig.floor.decisions

    rig.handler.on_delta(GAME, BID, Price(3_000), Count(100), Micros(0))
    rig.handler.on_read_end(virtual_clock())
    rig.floor.gross.update(UNKNOWN, MarketExposure(Count(100)))
    rig.floor.gross.limit = Count(1_050)
    rig.floor.update_exposure(UNKNOWN)
    rig.handler.on_read_end(virtual_clock())

    assert rig.floor.decisions == before + 2


async def test_a_fill_counts_at_once_and_goes_to_the_ledger_once(autojump_clock: MockClock) -> None:
    """Memory first, disk next; the same fill again is nothing."""
    rig = TaskRig()
    rig.add_quoter()

    rig.handler.on_fill(make_fill())
    rig.handler.on_fill(make_fill())

    assert rig.positions.net(GAME) == 100
    assert rig.fills.receive_nowait() == make_fill()
    with pytest.raises(trio.WouldBlock):
        rig.fills.receive_nowait()


async def test_a_fill_of_a_market_that_is_not_quoted_counts_too(autojump_clock: MockClock) -> None:
    """Traded by hand, or by an earlier run: it moves the position."""
    rig = TaskRig()

    rig.handler.on_fill(make_fill(ticker=UNKNOWN))

    assert rig.positions.net(UNKNOWN) == 100
    assert rig.floor.gross.total == 100


async def test_a_full_channel_to_the_ledger_stops_trading_and_loses_nothing_silently(
    autojump_clock: MockClock,
) -> None:
    """Never dropped: the error names it. And a fill after the booking task's end is a bug."""
    send, receive = trio.open_memory_channel[Fill](1)
    with send, receive:
        send_fill(send, make_fill(1))
        with pytest.raises(LedgerError, match="full"):
            send_fill(send, make_fill(2))
        receive.close()
        with pytest.raises(InvariantError):
            send_fill(send, make_fill(3))


async def test_a_lost_socket_makes_every_book_stale_and_pulls_all(autojump_clock: MockClock) -> None:
    """No quote on a book that nobody feeds; whoever pulls the groups is told why."""
    rig = TaskRig()
    told: list[str] = []
    rig.handler.on_feed_down = told.append
    async with rig.with_quoter() as quoter:
        await trio.sleep(1)
        rig.handler.on_disconnected(virtual_clock(), "reset")
        await trio.sleep(1)

        assert told == ["reset"]
        assert rig.prices() == ([], [])
        assert not rig.floor.books[GAME].is_synced
        assert quoter.maker.last is not None
        assert quoter.maker.last.state is MakerState.HELD

        rig.handler.on_connected(virtual_clock())
        await trio.sleep(1)
        assert rig.prices() == ([], [])  # the socket is back, the book not yet
        rig.book(4_200, 6_200)
        await trio.sleep(1)
        assert rig.prices() == ([5_100], [5_300])


async def test_a_market_taken_while_the_feed_is_down_waits_for_it(autojump_clock: MockClock) -> None:
    """Holds of the whole floor hold newcomers too, and are lifted with the others."""
    rig = TaskRig()
    rig.handler.on_disconnected(virtual_clock(), "reset")
    rig.floor.hold_all("group", "order group was triggered")
    maker = rig.add_quoter().maker

    assert set(maker.holds) == {"feed", "group"}
    rig.handler.on_connected(virtual_clock())
    rig.floor.lift_all("group")
    assert maker.holds == {}


async def test_a_book_out_of_sync_takes_its_quotes_off_and_no_others(autojump_clock: MockClock) -> None:
    """A gap in one market: its book waits for a snapshot, the others trade on."""
    rig = TaskRig()
    other = "KXNHLGAME-26SEP21VGKMIN-VGK"
    async with rig.with_quoter(), trio.open_nursery() as nursery:
        quoter = rig.add_quoter(other)
        await nursery.start(quoter.run)
        rig.book(4_000, 6_000, quoter.ticker)
        await trio.sleep(1)
        rig.handler.on_out_of_sync([GAME], "gap")
        rig.handler.on_read_end(virtual_clock())
        await trio.sleep(1)

        assert rig.prices() == ([], [])
        assert rig.resting(BID, quoter.ticker)
        with pytest.raises(BookOutOfSync):
            rig.handler.on_delta(GAME, BID, Price(4_000), Count(100), Micros(0))
        nursery.cancel_scope.cancel()


async def test_markets_that_nobody_watches_are_ignored(autojump_clock: MockClock) -> None:
    """Late frames after an unsubscribe: no book comes into being."""
    rig = TaskRig()
    rig.handler.on_snapshot(UNKNOWN, LEVELS, [], virtual_clock())
    rig.handler.on_delta(UNKNOWN, BID, Price(4_000), Count(100), Micros(0))
    rig.handler.on_out_of_sync([UNKNOWN], "gap")
    rig.handler.on_read_end(virtual_clock())

    assert rig.floor.books == {}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (MarketEventKind.DEACTIVATED, MarketStatus.INACTIVE),
        (MarketEventKind.DETERMINED, MarketStatus.DETERMINED),
        (MarketEventKind.SETTLED, MarketStatus.FINALIZED),
        (MarketEventKind.ACTIVATED, MarketStatus.ACTIVE),
    ],
)
async def test_the_life_of_a_market_is_followed_at_once(
    autojump_clock: MockClock, kind: MarketEventKind, status: MarketStatus
) -> None:
    """Before any listing says so; everybody who asked is told."""
    rig = TaskRig()
    told: list[MarketEvent] = []
    rig.handler.on_market = told.append
    maker = rig.add_quoter().maker

    rig.handler.on_market_event(MarketEvent(ticker=GAME, kind=kind))
    rig.handler.on_market_event(MarketEvent(ticker=UNKNOWN, kind=kind))

    assert maker.market.status is status
    assert len(told) == 2


@pytest.mark.parametrize(("seconds", "status"), [(-1, MarketStatus.CLOSED), (60, MarketStatus.ACTIVE)])
async def test_a_close_moved_to_now_closes(
    autojump_clock: MockClock, seconds: int, status: MarketStatus
) -> None:
    """The game ended early: the exchange moves the close to the present."""
    rig = TaskRig()
    maker = rig.add_quoter().maker
    moment = Micros(virtual_clock() + seconds * SECOND)

    rig.handler.on_market_event(
        MarketEvent(ticker=GAME, kind=MarketEventKind.CLOSE_DATE_UPDATED, close_time=moment)
    )

    assert (maker.market.status, maker.market.close_time) == (status, moment)


async def test_prints_reach_the_average_of_their_market_only(autojump_clock: MockClock) -> None:
    """And a block trade reaches none."""
    rig = TaskRig()
    maker = rig.add_quoter().maker
    rig.book(4_000, 6_000)
    rig.print(4_500)
    rig.print(5_900, UNKNOWN)

    assert maker.mid.mark == 4_500
    assert rig.handler.trades == 1


async def test_a_triggered_group_is_told(autojump_clock: MockClock) -> None:
    """By whomever it was triggered."""
    rig = TaskRig()
    told: list[GroupId] = []
    rig.handler.on_fenced = told.append

    rig.handler.on_group_triggered(GroupId("g"))

    assert told == ["g"]


async def test_reports_before_the_desk_exists_are_no_error(autojump_clock: MockClock) -> None:
    """The feed may speak while the session is being put together."""
    rig = TaskRig()
    rig.floor.desk = None
    rig.handler.on_fill(make_fill())
    rig.floor.add_market(make_market())

    assert rig.floor.orders(GAME) == []


async def test_the_feeds_refused_key_comes_out(autojump_clock: MockClock) -> None:
    """401 on the socket ends the session."""
    rig = TaskRig()

    class Refused:
        async def run(self, sink: object) -> None:
            raise AuthError("bad key", status=401)

    with pytest.raises(AuthError):
        await run_feed(Refused(), rig.handler)  # type: ignore[arg-type]


async def test_the_touch_moves_with_the_asks_too(autojump_clock: MockClock) -> None:
    """An ask delta alone reprices."""
    rig = TaskRig()
    async with rig.with_quoter(4_800, 5_000):
        await trio.sleep(1)
        rig.handler.on_delta(GAME, ASK, Price(5_000), Count(-10_000), Micros(0))
        rig.handler.on_delta(GAME, ASK, Price(5_400), Count(10_000), Micros(0))
        rig.exchange.others[GAME, ASK] = [(Price(5_400), Count(10_000))]
        rig.handler.on_read_end(virtual_clock())
        await trio.sleep(1)

        assert rig.prices() == ([5_000], [5_200])

"""One feed over several connections, and ten thousand markets that do not all arrive at once."""

import json

import attrs
import pytest
import trio
from trio.testing import MockClock

from mm.exchange.kalshi.spread import FURTHER, SpreadFeed, numbered
from mm.exchange.kalshi.subscriptions import (
    MARKETS_A_COMMAND,
    SNAPSHOTS_AHEAD,
    UNFILTERED,
    Channel,
    CommandKind,
    Subscriptions,
)
from mm.exchange.port import AuthError, FeedStatistics


@attrs.define(eq=False)
class Dummy:
    """One connection that a test moves."""

    channels: tuple
    on_full: object
    wanted: dict = attrs.field(factory=dict)
    distrusted: int = 0
    sink: object = None
    error: BaseException | None = None
    resynced: list = attrs.field(factory=list)

    @property
    def watched(self):
        return list(self.wanted)

    async def watch(self, tickers):
        self.wanted.update(dict.fromkeys(tickers))

    async def unwatch(self, tickers):
        for ticker in tickers:
            del self.wanted[ticker]

    async def resync(self, tickers):
        self.resynced += tickers

    def distrust_all(self):
        self.distrusted += 1

    def statistics(self):
        return FeedStatistics(
            connects=1,
            frames=10,
            unknown_frames=2,
            unknown_fields=0,
            malformed_frames=0,
            gaps=1,
            last_frame_at=len(self.wanted),
        )

    async def run(self, sink):
        self.sink = sink
        sink.on_connected(1)
        if self.error is not None:
            raise self.error
        await trio.sleep_forever()


class Ear:
    """A sink that notes what it is told."""

    def __init__(self):
        self.log = []

    def __getattr__(self, name):
        def note(*args):
            self.log.append((name, *args))

        return note


def spread(most=3):
    made = []

    def make(channels, on_full):
        made.append(Dummy(channels, on_full))
        return made[-1]

    return SpreadFeed(make, markets_a_connection=most), made


def names(count, start=0):
    return [f"KX-E{n}-A" for n in range(start, start + count)]


async def test_few_markets_need_one_connection_and_more_need_more(autojump_clock: MockClock):
    """The first carries the private channels; the others markets only."""
    feed, made = spread()
    await feed.watch(names(3))
    assert len(made) == 1
    await feed.watch(names(5))
    await feed.watch(names(3, start=5))

    assert [len(line.wanted) for line in made] == [3, 3, 2]
    assert [line.channels for line in made] == [UNFILTERED, (), ()]
    await feed.unwatch([*names(2), "KX-UNKNOWN"])
    await feed.resync(names(4))
    assert [len(line.wanted) for line in made] == [1, 3, 2]
    assert [line.resynced for line in made] == [[names(3)[2]], [names(4)[3]], []]
    await feed.watch(names(2, start=20))
    assert [len(line.wanted) for line in made] == [3, 3, 2]
    statistics = feed.statistics()
    assert (statistics.connects, statistics.frames, statistics.gaps, statistics.unknown_frames) == (
        3,
        30,
        3,
        2,
    )


async def test_connections_made_while_it_runs_are_served_too(autojump_clock: MockClock):
    """And only the first one's coming is told."""
    feed, made = spread()
    ear = Ear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, ear)
        await trio.sleep(1)
        await feed.watch(names(7))
        await trio.sleep(1)
        assert all(line.sink is not None for line in made)
        assert [entry for entry in ear.log if entry[0] == "on_connected"] == [("on_connected", 1)]
        with pytest.raises(RuntimeError, match="already running"):
            await feed.run(ear)
        nursery.cancel_scope.cancel()


async def test_a_further_connection_that_is_lost_hurts_its_own_markets_only(autojump_clock: MockClock):
    """Out of sync, and decided on at once; the first one's loss is everybody's, and its return makes all begin anew."""
    feed, made = spread()
    ear = Ear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, ear)
        await trio.lowlevel.checkpoint()
        await feed.watch(names(5))
        await trio.sleep(1)
        ear.log.clear()
        made[1].sink.on_disconnected(5, "gone")
        assert ear.log == [("on_out_of_sync", names(2, start=3), "gone"), ("on_read_end", 5)]
        ear.log.clear()
        made[0].sink.on_disconnected(6, "gone")
        assert ear.log == [("on_disconnected", 6, "gone")]
        before = made[1].distrusted
        made[0].sink.on_connected(7)
        assert made[1].distrusted == before + 1
        nursery.cancel_scope.cancel()


async def test_what_the_venue_refuses_on_a_full_connection_goes_to_another(autojump_clock: MockClock):
    """Its limit is learnt: nothing more is placed there."""
    feed, made = spread(most=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, Ear())
        await trio.sleep(1)
        await feed.watch(names(6))
        for ticker in names(2, start=4):
            del made[0].wanted[ticker]
        made[0].on_full(names(2, start=4))
        await trio.sleep(1)
        assert list(made[1].wanted) == names(2, start=4)
        await feed.watch(names(1, start=6))
        assert [len(line.wanted) for line in made] == [4, 3]
        nursery.cancel_scope.cancel()


async def test_a_refused_key_comes_bare_from_any_connection(autojump_clock: MockClock):
    """As one connection raises it."""
    feed, made = spread()
    await feed.watch(names(4))
    made[1].error = AuthError("no")
    with pytest.raises(AuthError, match="no"):
        await feed.run(Ear())


def test_a_recording_tells_the_connections_apart():
    """The second line's first connection is number 1,001."""
    seen = []
    numbered(lambda number, messages, now: seen.append(number), FURTHER)(1, [], 0)
    assert seen == [FURTHER + 1]


def sent(subscriptions, now):
    return [json.loads(text) for text in subscriptions.commands(now)]


def test_many_books_are_asked_for_in_parts_as_snapshots_come():
    """Never more than a bound on the way, and no command with a list without end."""
    wanted = dict.fromkeys(names(2_600))
    plan = Subscriptions(wanted, True)
    first = {c["params"]["channels"][0]: c["params"] for c in sent(plan, 0.0)}
    assert len(first["orderbook_delta"]["market_tickers"]) == MARKETS_A_COMMAND
    for sid, channel in enumerate(first, 1):
        plan.subscribed(channel, sid)
    asked = list(first["orderbook_delta"]["market_tickers"])
    book_sid = plan.book.sid
    rounds = 0
    while len(asked) < 2_600:
        new = []
        for command in sent(plan, 0.0):
            assert len(command["params"]["market_tickers"]) <= MARKETS_A_COMMAND
            if command["params"]["sids"] == [book_sid]:
                new += command["params"]["market_tickers"]
        asked += new
        assert len(plan.awaited) <= SNAPSHOTS_AHEAD
        if not new:
            for ticker in list(plan.awaited)[:300]:
                plan.snapshot_came(ticker)
        rounds += 1
        assert rounds < 100
    assert asked == names(2_600)
    assert plan.channels[Channel.TRADE].markets == set(wanted)


def test_a_connection_for_markets_asks_for_no_private_channel():
    """Twice subscribed would be twice told."""
    plan = Subscriptions(dict.fromkeys(names(2)), True, ())
    assert [c["params"]["channels"][0] for c in sent(plan, 0.0)] == ["orderbook_delta", "trade"]
    plan.subscribed("orderbook_delta", 1)
    plan.subscribed("trade", 2)
    assert plan.commands(100.0) == [] or plan.awaited


def test_markets_over_the_limit_are_given_up_here():
    """Wanted on this connection no more, on no channel."""
    wanted = dict.fromkeys(names(2))
    plan = Subscriptions(wanted, True)
    sent(plan, 0.0)
    plan.subscribed("orderbook_delta", 1)
    wanted[names(3)[2]] = None
    sent(plan, 0.0)
    command = next(c for c in plan.pending.values() if c.kind is CommandKind.ADD)

    assert plan.over_limit(command) == (names(3)[2],)
    assert list(wanted) == names(2)
    assert names(3)[2] not in plan.book.markets
    assert names(3)[2] not in plan.awaited

"""Any history of two lossy, late, doubling sources with crashes and restarts ends with the exchange's own fills."""

import itertools
import shutil
import tempfile
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

OVERLAP = 4_000_000
TICKERS = ["M1", "M2"]

trade = st.tuples(st.just("trade"), st.integers(0, 3), st.integers(0, 2_000), st.sampled_from(TICKERS))
socket = st.tuples(st.just("socket"), st.lists(st.integers(0, 30), max_size=5))
poll = st.tuples(st.just("poll"), st.integers(0, 3))
crash = st.tuples(st.just("crash"), st.sampled_from(["socket", "poll"]), st.integers(0, 20))
restart = st.tuples(st.just("restart"))
histories = st.lists(st.one_of(trade, trade, socket, poll, crash, restart), max_size=40)


@attrs.define
class World:
    """The exchange's truth and the bot's memory, the latter gone with each crash."""

    truth: list
    memory: dict
    """Fills the bot has acted on in this life, by key: rebuilt from the ledger at each start."""

    def heard_on_socket(self, fill):
        """The socket tells milliseconds and our id."""
        return attrs.evolve(fill, ts=fill.ts // 1000 * 1000, client_order_id="mm-s1-1")

    def take(self, new):
        """Move the inventory, which must never happen twice for one fill."""
        for fill in new:
            assert fill.key not in self.memory
            self.memory[fill.key] = fill.signed_count


async def start(world, ledger):
    """What the session does first: the memory comes from the ledger."""
    world.memory = {}
    await ledger.replay_fills(lambda fill: world.memory.update({fill.key: fill.signed_count}))


async def poll_all(world, ledger):
    """All pages from the stored mark less an overlap, newest first, then the mark moves to the newest seen."""
    mark = await ledger.mark() or 0
    found = [f for f in reversed(world.truth) if f.ts >= mark - OVERLAP]
    newest = max((f.ts for f in found), default=mark)
    world.take(await ledger.record_fills(found, high_water_mark=newest))


async def act(books, world, ledger, event, counter):
    match event:
        case ("trade", order, gap, ticker):
            last = world.truth[-1].ts if world.truth else 10_000_000
            n = next(counter)
            # Trade ids are random on the wire: not in the order of time.
            world.truth.append(
                books.fill(
                    n, order_id=f"o{order}", trade_id=f"t{n * 7919 % 1009:04d}", ts=last + gap, ticker=ticker
                )
            )
        case ("socket", picks):
            heard = [world.heard_on_socket(world.truth[i]) for i in picks if i < len(world.truth)]
            world.take(await ledger.record_fills(heard))
        case ("poll", _):
            await poll_all(world, ledger)


async def live(books, world, history):
    """Play the history through as many lives as it has; the last one ends with a poll."""
    counter = itertools.count(1)
    events = iter(history)
    lives = 0
    while True:
        lives += 1
        ended = True
        try:
            async with books.open(session=f"s{lives}") as ledger:
                await start(world, ledger)
                for event in events:
                    if event[0] == "restart":
                        ended = False
                        break
                    if event[0] == "crash":
                        ended = False
                        connection = books.connections[-1]
                        connection.fail_at = event[2]
                        connection.on_crash = lambda: None
                        await act(books, world, ledger, (event[1], [0, 1, 2, 5]), counter)
                        raise books.crash
                    await act(books, world, ledger, event, counter)
                if ended:
                    await poll_all(world, ledger)
                    return await verdict(world, ledger)
        except books.crash:
            books.connections[-1].close()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


async def verdict(world, ledger):
    """Ledger, memory and exchange agree."""
    for ticker in TICKERS:
        expected = sorted(
            (f for f in world.truth if f.ticker == ticker), key=lambda f: (f.ts, f.trade_id, f.order_id)
        )
        recorded = [attrs.evolve(f, client_order_id=None) for f in await ledger.fills_of(ticker)]
        assert recorded == expected
    assert world.memory == {f.key: f.signed_count for f in world.truth}
    net = {p.ticker: p.net for p in (await ledger.positions()).values()}
    for ticker in TICKERS:
        assert net.get(ticker, 0) == sum(f.signed_count for f in world.truth if f.ticker == ticker)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@given(history=histories)
@settings(max_examples=60, deadline=None)
def test_any_history_ends_with_the_exchanges_fills(books_for, folder, history):
    """Loss, doubling, reorder, a crash at any statement, restarts: no fill lost, none doubled, in exchange order."""
    place = folder / "life"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    trio.run(live, books_for(place), World([], {}), history)

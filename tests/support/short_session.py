"""A short life of the whole bot in memory, and a scalpel: cancel it, or make a task fail, at its N-th step.

One market, two quotes, a re-quote, a fill, an answer that comes late, an exit, a stop. The exchange is the scriptable
fake with one cruelty added: a write whose sender was cancelled has left the house all the same, and is executed up to a
minute later. Each life has a `trio.run`, a virtual clock, a folder and pinned chances of its own, so that step N of one
life is step N of the next.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar
from unittest import mock

import attrs
import trio
from trio.testing import MockClock

from fake_exchange import START, Answer, Call, FakeExchange, FakeFeed, slow, virtual_clock
from mm.domain.commands import FlattenReason
from mm.domain.market import Series
from mm.domain.numbers import CONTRACT, SECOND, Count, Price
from mm.domain.order import ClientOrderId, OrderState, Side, TimeInForce
from mm.exchange.port import FeedSink, NewOrder
from mm.session import run as session_run
from mm.session.run import RunOptions, run_session
from mm.session.summary import Summary
from mm.session.surroundings import Surroundings
from mm.session.trading import Trading
from mm.session.venue import Access, Venue
from mm.settings import Secret, Settings, load_settings
from mm.simulation.determinism import pinned
from task_rig import GAME, make_market

T = TypeVar("T")

LATENCY_S: Final = 0.01
AFTERMATH_S: Final = 70.0
"""After the end the world goes on for so long: whatever was on its way has arrived."""
FOREIGN: Final = "by-hand-1"
MAIN: Final = "short_session._live"
"""The task that runs the session itself, recovery and sweep included."""
_WRITES: Final = frozenset(
    {"place", "amend", "decrease", "cancel", "cancel_batch", "create_group", "trigger_group", "delete_group"}
)


@attrs.define(eq=False, kw_only=True)
class LateExchange(FakeExchange):
    """Writes take a moment, and those whose sender was cancelled arrive `late_s` later, unseen."""

    world: trio.Nursery
    late_s: float = 30.0
    late_creates: list[str] = attrs.field(factory=list)
    """What became of creates that nobody waited for any more."""

    async def _call(self, name: str, value: Any, work: Callable[[], T], **details: Any) -> T:
        if name not in _WRITES:
            return await super()._call(name, value, work, **details)
        self.calls.append(Call(name, value, trio.current_time(), details))
        scripted = self._scripts.get(name)
        answer = scripted.popleft() if scripted else self._standing.get(name, Answer())
        send, receive = trio.open_memory_channel[Callable[[], T]](1)
        is_left = [False]
        self.world.start_soon(self._execute, name, value, work, answer, send, is_left)
        try:
            result = await receive.receive()
        except trio.Cancelled:
            is_left[0] = True
            raise
        return result()

    async def _execute(
        self,
        name: str,
        value: Any,
        work: Callable[[], T],
        answer: Answer,
        send: trio.MemorySendChannel[Callable[[], T]],
        is_left: list[bool],
    ) -> None:
        await trio.sleep(LATENCY_S + answer.delay)
        if is_left[0]:
            await trio.sleep(self.late_s)
        try:
            result = work()
        except Exception as exc:  # noqa: BLE001 - it is the sender's
            error = exc
            if is_left[0] and name == "place":
                self.late_creates.append(str(error))

            def fail() -> T:
                raise error

            outcome: Callable[[], T] = fail
        else:
            if is_left[0] and name == "place":
                self.late_creates.append(f"placed {value.time_in_force.value}")
            outcome = lambda: result  # noqa: E731
        await trio.sleep(answer.delay_after)
        await send.send(outcome)


@attrs.define(eq=False)
class LoudFeed(FakeFeed):
    """Connects the sink, and delivers a book as soon as a market is watched."""

    exchange: LateExchange | None = None

    async def run(self, sink: FeedSink) -> None:
        """For ever."""
        assert self.exchange is not None
        self.exchange.sink = sink
        sink.on_connected(virtual_clock())
        await trio.sleep_forever()

    async def watch(self, tickers: Any) -> None:
        """A snapshot follows."""
        await super().watch(tickers)
        if GAME in tickers:
            self.book(4_000, 6_000)

    def book(self, bid: int, ask: int) -> None:
        """The whole book, in one read."""
        assert self.exchange is not None
        assert self.exchange.sink is not None
        size, now, sink = Count(100 * CONTRACT), virtual_clock(), self.exchange.sink
        self.exchange.others[GAME, Side.BID] = [(Price(bid), size)]
        self.exchange.others[GAME, Side.ASK] = [(Price(ask), size)]
        sink.on_snapshot(GAME, [(Price(bid), size)], [(Price(ask), size)], now)
        sink.on_read_end(now)


class PlantedError(RuntimeError):
    """A bug."""


@attrs.define(eq=False)
class Scalpel(trio.abc.Instrument):
    """Counts steps of tasks; at one of them it cancels a scope, or lets that very task find an exception instead."""

    scope: trio.CancelScope
    at: int | None
    raises: bool = False
    has_raised: bool = False
    is_on: bool = False
    steps: int = 0
    trace: list[str] = attrs.field(factory=list)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio."""
        if not self.is_on:
            return
        self.steps += 1
        self.trace.append(task.name)
        if self.steps != self.at:
            return
        if not self.raises:
            self.scope.cancel(reason=f"cut at step {self.at}")
        elif (task.name.startswith("mm.") or task.name == MAIN) and not _waits_for_children(task):
            # What trio itself does when a checkpoint ends in an error.
            task._next_send_fn, task._next_send = task.coro.throw, PlantedError(f"planted at step {self.at}")
            self.has_raised = True


def _waits_for_children(task: trio.lowlevel.Task) -> bool:
    """Whether it stands at the end of a nursery, where no bug of ours can happen and trio cannot bear one."""
    return any(frame.f_code.co_name == "_nested_child_finished" for frame, _ in task.iter_await_frames())


@attrs.frozen(kw_only=True)
class Life:
    """What came of one life."""

    steps: int
    trace: tuple[str, ...]
    resting: tuple[str, ...]
    """Client ids of ours that rest at the very end."""
    foreign: tuple[str, ...]
    late_creates: tuple[str, ...]
    summary: Summary | None
    """None: it was cancelled from outside."""
    did: frozenset[str]
    """Which parts of the script happened."""
    stopped_at: int
    """The step at which the script asked it to stop; 0: it never came to that."""
    is_cut: bool
    """It was cancelled, or failed, before its end."""


def live(folder: Path, cut_at: int | None = None, *, late_s: float = 30.0, raises: bool = False) -> Life:
    """Live once in a fresh folder; cut at a step by a cancellation from outside, or by a bug in that step."""
    with pinned(1):
        return trio.run(_live, folder, cut_at, late_s, raises, clock=MockClock(autojump_threshold=0))


async def _live(folder: Path, cut_at: int | None, late_s: float, raises: bool) -> Life:
    did: set[str] = set()
    stopped: list[int] = []
    summary: Summary | None = None
    async with trio.open_nursery() as world:
        exchange = _exchange(world, late_s)
        with trio.CancelScope() as outside:
            scalpel = Scalpel(outside, cut_at, raises)
            trio.lowlevel.add_instrument(scalpel)
            scalpel.is_on = True

            def begin(trading: Trading, nursery: trio.Nursery) -> None:
                nursery.start_soon(_script, trading, exchange, did, lambda: stopped.append(scalpel.steps))

            with mock.patch.object(session_run, "open_venue", _open_venue(exchange)):
                summary = await run_session(_settings(folder), _surroundings(), RunOptions(on_trading=begin))
        scalpel.is_on = False
        exchange.sink = None
        await trio.sleep(AFTERMATH_S)
        world.cancel_scope.cancel()
    resting = [str(report.client_order_id) for report in exchange.resting()]
    return Life(
        steps=scalpel.steps,
        trace=tuple(scalpel.trace),
        resting=tuple(name for name in resting if name.startswith("mm-")),
        foreign=tuple(name for name in resting if not name.startswith("mm-")),
        late_creates=tuple(exchange.late_creates),
        summary=summary,
        did=frozenset(did),
        stopped_at=stopped[0] if stopped else 0,
        is_cut=outside.cancelled_caught or scalpel.has_raised,
    )


async def _script(
    trading: Trading, exchange: LateExchange, did: set[str], on_stop: Callable[[], None]
) -> None:
    feed = exchange.feed
    assert isinstance(feed, LoudFeed)

    async def until(condition: Callable[[], bool], what: str) -> None:
        with trio.fail_after(10):
            while not condition():
                await trio.sleep(0.05)
        did.add(what)

    def ours(side: Side) -> list[Any]:
        return [r for r in exchange.resting(GAME) if r.side is side and r.client_order_id != FOREIGN]

    await until(lambda: bool(ours(Side.BID) and ours(Side.ASK)), "two quotes")
    price = ours(Side.BID)[0].price
    feed.book(4_400, 6_400)
    await until(lambda: bool(ours(Side.BID)) and ours(Side.BID)[0].price != price, "a re-quote")
    bid = ours(Side.BID)[0]
    exchange.fill(bid.order_id, min(bid.remaining, 2 * CONTRACT))
    await until(lambda: trading.floor.positions.fills >= 1, "a fill")
    exchange.script("place", slow(delay_after=1.5))
    exchange.script("amend", slow(delay_after=1.5))
    feed.book(4_000, 6_000)
    unanswered = {OrderState.SENT, OrderState.AMENDING}
    await until(lambda: any(o.state in unanswered for o in trading.desk.live.values()), "a late answer")
    await trio.sleep(0.2)
    trading.floor.makers[GAME].flatten(FlattenReason.PORTFOLIO_MAE)
    trading.floor.order_changed(GAME)
    await until(lambda: any(_is_exit(call) for call in exchange.called("place")), "an exit")
    await trio.sleep(0.3)
    on_stop()
    trading.stop("the script is over")


def _is_exit(call: Call) -> bool:
    return isinstance(call.value, NewOrder) and call.value.time_in_force is TimeInForce.IOC


def _exchange(world: trio.Nursery, late_s: float) -> LateExchange:
    feed = LoudFeed()
    exchange = LateExchange(world=world, feed=feed, late_s=late_s, read_lag=0.2)
    feed.exchange = exchange
    exchange.known_series["KXNHLGAME"] = Series(ticker="KXNHLGAME")
    exchange.listing.append(make_market(GAME, close_time=START + 7_200 * SECOND))
    exchange.put(
        NewOrder(
            client_order_id=ClientOrderId(FOREIGN),
            ticker=GAME,
            side=Side.BID,
            price=Price(100),
            count=CONTRACT,
            exchange_index=0,
        )
    )
    return exchange


def _open_venue(exchange: LateExchange) -> Callable[..., AbstractAsyncContextManager[Venue]]:
    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncGenerator[Venue, None]:
        del args, kwargs
        access = Access(rest_url="", ws_url="", key_id="", pem=Secret(""), pem_setting="")
        yield Venue(exchange=exchange, access=access, is_paper=False, label="fake")

    return opened


def _settings(folder: Path) -> Settings:
    values = {
        "KALSHI_ENV": "demo",
        "LIVE_TRADING_ENABLED": "true",
        "KALSHI_API_KEY": "key",
        "KALSHI_API_SECRET": "secret",
        "MM_DATA_DIR": str(folder),
        "WEB_ADDRESS": "off",
    }
    return load_settings(values, environ={}, dotenv=Path("/nonexistent/.env"))


def _surroundings() -> Surroundings:
    async def inline(work: Callable[[], T], /) -> T:
        await trio.lowlevel.checkpoint()
        return work()

    async def nowhere(host: str, port: int) -> trio.abc.Stream:
        raise OSError(f"nobody connects here ({host}:{port})")

    return Surroundings(
        clock=virtual_clock,
        randomness=Random(1),
        random_below=Random(2).randrange,
        connect=nowhere,
        runner=inline,
    )

"""Events are read once, retried when the read failed, and known to the limits from then on."""

import trio
from trio.testing import MockClock

from fake_exchange import Answer, FakeExchange, virtual_clock
from mm.domain.inventory import InventoryState
from mm.domain.market import Market
from mm.domain.order import MarketTicker
from mm.engine.parameters import StrategyParameters
from mm.engine.selection import Candidate, Selection
from mm.exchange.port import ExchangeError, ExchangeUnavailable
from mm.tasks.budget import ReadBudget
from mm.tasks.events import EventReader
from mm.tasks.exposure import Exposure
from task_rig import make_market

GAME = "KXNHLGAME-26SEP21TORBOS"
TOR, BOS = make_market(f"{GAME}-TOR"), make_market(f"{GAME}-BOS")
LONE = make_market("KXNHLGAME-26SEP21VGKMIN-VGK")


def selection(*chosen: Market, rest: tuple[Market, ...] = ()) -> Selection:
    found = [Candidate(market=m, is_chosen=True, why="") for m in chosen]
    return Selection(candidates=(*found, *(Candidate(market=m, is_chosen=False, why="") for m in rest)))


def exposure() -> Exposure:
    return Exposure(
        parameters=StrategyParameters(), inventory=lambda ticker: InventoryState(), orders=lambda ticker: []
    )


def reader(exchange: FakeExchange, known: list[tuple[MarketTicker, ...]], problems: list[str]) -> EventReader:
    def problem(what: str, exc: ExchangeError) -> None:
        problems.append(what)

    return EventReader(
        exchange=exchange,
        reads=ReadBudget(exchange.rate_limits(), virtual_clock),
        exposure=exposure(),
        on_problem=problem,
        on_known=lambda tickers: known.append(tuple(tickers)),
    )


async def test_an_event_of_two_markets_is_read_once_and_all_its_markets_are_known(
    autojump_clock: MockClock,
) -> None:
    """Also the market that is not quoted; an event of one known market needs no read."""
    exchange, known, problems = FakeExchange(), [], []  # type: ignore[var-annotated]
    exchange.exclusive.add(GAME)
    events = reader(exchange, known, problems)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        for _ in range(3):
            events.on_selection(selection(TOR, LONE, rest=(BOS,)))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [call.value for call in exchange.called("event")] == [GAME]
    shape = events.exposure.portfolio.shape_of(GAME)
    assert shape is not None
    assert (set(shape.markets), shape.is_mutually_exclusive) == ({TOR.ticker, BOS.ticker}, True)
    assert [set(tickers) for tickers in known] == [{TOR.ticker, BOS.ticker}]


async def test_a_failed_read_is_told_and_tried_again(autojump_clock: MockClock) -> None:
    """Slowly; until then the event is taken for the worse of both."""
    exchange, known, problems = FakeExchange(), [], []  # type: ignore[var-annotated]
    exchange.script("event", Answer(error=ExchangeUnavailable("no answer")))
    exchange.exclusive.add(GAME)
    events = reader(exchange, known, problems)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        events.on_selection(selection(TOR, BOS))
        await trio.sleep(2)
        shape = events.exposure.portfolio.shape_of(GAME)
        assert shape is not None
        assert shape.is_mutually_exclusive is None
        assert problems == [f"event {GAME}"]
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    shape = events.exposure.portfolio.shape_of(GAME)
    assert shape is not None
    assert shape.is_mutually_exclusive is True

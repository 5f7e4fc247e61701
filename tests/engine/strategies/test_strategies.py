"""Strategies as plug-ins: the default is the reference exactly, each does what its definition says, names become classes."""

import random

import attrs
import pytest

from mm.domain.book import OrderBook
from mm.domain.errors import ConfigError
from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.fill import Trade, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.engine.quoting import wanted_quotes
from mm.engine.strategies.avellaneda_stoikov import AvellanedaStoikov
from mm.engine.strategies.blocks import (
    break_even,
    fill_chance,
    micro_price,
    sibling_consensus,
    size_ladder,
    variation,
)
from mm.engine.strategies.fair import SOURCES
from mm.engine.strategies.hybrid import Hybrid
from mm.engine.strategies.join import Join
from mm.engine.strategies.registry import (
    BUILT_IN,
    StrategyTable,
    build_strategy,
    check_strategy,
    parse_assignments,
)
from mm.engine.strategies.signals import Signals
from mm.engine.strategies.slow_wide_small import SlowWideSmall
from mm.engine.strategies.view import Context, Sibling, View

BID, ASK = Side.BID, Side.ASK
M = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
T0 = Micros(1_790_000_000 * SECOND)


def a_view(bid: int = 4_900, ask: int = 5_100, net: int = 0, **changes: object) -> View:
    """A market between two prices, `net` contracts held, prints at the mid for a while."""
    book = OrderBook()
    book.snapshot([(Price(bid), Count(30_000))], [(Price(ask), Count(10_000))])
    inventory = InventoryState()
    if net:
        inventory.apply(BID if net > 0 else ASK, Price(5_000), Count(abs(net) * 100), Money(0), T0)
    signals = Signals()
    middle = (bid + ask) // 2
    for n in range(60):
        now = Micros(T0 + n * SECOND)
        signals.on_trade(a_print(middle, n))
        signals.observe(now, Price(bid), Price(ask), (), book)
    touch = Touch(Price(bid), Price(ask))
    found: dict[str, object] = {
        "now": Micros(T0 + 60 * SECOND),
        "market": Market(ticker=M, event_ticker=M[:-4], status=MarketStatus.ACTIVE, grid=uniform_grid(CENT)),
        "book": book,
        "touch": touch,
        "others": touch,
        "inventory": inventory,
        "ruled": inventory,
        "mark": Price(middle),
        "parameters": StrategyParameters(),
        "signals": signals,
    }
    return View(**{**found, **changes})  # type: ignore[arg-type]


def a_print(price: int, n: int, side: Side = BID) -> Trade:
    return Trade(
        trade_id=TradeId(f"t{n}"),
        ticker=M,
        price=Price(price),
        count=Count(2_500),
        taker_side=side,
        ts=Micros(T0 + n * SECOND),
    )


def asked(strategy: object, view: View) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """(price, contracts) of both quotes."""
    view = attrs.evolve(view, fair=strategy.fair_value or strategy.own_fair_value)  # type: ignore[attr-defined]
    quote = strategy.quote(view)  # type: ignore[attr-defined]
    return tuple(q and (q.price, q.count // 100) for q in (quote.bid, quote.ask))  # type: ignore[return-value]


def test_hybrid_says_exactly_what_the_reference_rules_say() -> None:
    """Over random books and positions the default strategy and `wanted_quotes` agree in every value."""
    chance = random.Random(5)
    for _ in range(300):
        bid = chance.randrange(5, 90) * 100
        view = a_view(bid, bid + chance.randrange(1, 8) * 100, chance.randrange(-60, 60))
        expected = wanted_quotes(view.inventory, view.mark, view.touch, view.grid, view.parameters)
        assert Hybrid().quote(view) == expected


def test_the_default_maker_has_the_default_strategy_and_keeps_no_signals() -> None:
    """Nothing is remembered for a strategy that does not look at it."""
    maker = MarketMaker(market=a_view().market, parameters=StrategyParameters(), book=OrderBook())
    assert type(maker.strategy) is Hybrid
    assert maker.signals is None


def test_slow_wide_small_stands_two_cents_from_the_slow_mean() -> None:
    """In a quiet market the least half-spread decides, and the touch is not improved."""
    assert asked(SlowWideSmall(), a_view(4_000, 6_000)) == ((4_000, 10), (6_000, 10))
    assert asked(SlowWideSmall(), a_view(4_900, 5_100)) == ((4_800, 10), (5_200, 10))


def test_slow_wide_small_leans_against_its_position_and_stops_at_its_cap() -> None:
    """Long 20 of 20: no bid, and the ask two cents nearer; its own cap never widens the user's."""
    assert asked(SlowWideSmall(), a_view(net=20)) == (None, (5_100, 10))
    assert asked(SlowWideSmall(), a_view(net=15)) == ((4_600, 5), (5_100, 10))


def test_slow_wide_small_only_reduces_outside_its_range() -> None:
    """Below .15 a long position may be sold, nothing bought."""
    assert asked(SlowWideSmall(), a_view(1_000, 1_200)) == (None, None)
    assert asked(SlowWideSmall(), a_view(1_000, 1_200, net=5))[0] is None
    assert asked(SlowWideSmall(), a_view(1_000, 1_200, net=5))[1] is not None


def test_join_stands_at_the_others_touch() -> None:
    """Whatever the price, up to the position limit."""
    assert asked(Join(), a_view(4_700, 4_800)) == ((4_700, 10), (4_800, 10))
    assert asked(Join(), a_view(4_700, 4_800, net=50)) == (None, (4_800, 10))


def test_avellaneda_stoikov_leans_with_its_position_and_is_narrower_near_the_end() -> None:
    """Long moves both quotes down; with less time to go risk counts less."""
    moving = Signals()
    for n in range(120):
        moved = 400 * (n // 30 % 2)
        now = Micros(T0 + (n - 60) * SECOND)
        moving.observe(now, Price(4_000 + moved), Price(6_000 + moved), (), OrderBook())
    flat, long = (asked(AvellanedaStoikov(), a_view(4_000, 6_000, net, signals=moving)) for net in (0, 30))
    assert flat[0] is not None
    assert long[0] is not None
    assert long[0][0] < flat[0][0]
    ending = Context(ends_at=Micros(T0 + 65 * SECOND))
    soon = a_view(4_000, 6_000, 30, signals=moving, context=ending)
    assert asked(AvellanedaStoikov(), soon)[0] > long[0]  # type: ignore[operator]


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_market_seen_from_the_other_outcome_gets_the_mirrored_quotes(name: str) -> None:
    """Prices 1-p and sides swapped: the same quotes, mirrored."""
    strategy = build_strategy(BUILT_IN[name])
    chance = random.Random(11)
    for _ in range(100):
        bid = chance.randrange(16, 80) * 100
        ask, net = bid + chance.randrange(1, 6) * 200, chance.randrange(-30, 30)
        straight = a_view(bid, ask, net)
        other = a_view(10_000 - ask, 10_000 - bid, -net)
        for view, sizes in ((straight, (30_000, 10_000)), (other, (10_000, 30_000))):
            view.book.snapshot(
                [(view.touch.best_bid, Count(sizes[0]))],  # type: ignore[list-item]
                [(view.touch.best_ask, Count(sizes[1]))],  # type: ignore[list-item]
            )
        (b1, a1), (b2, a2) = asked(strategy, straight), asked(strategy, other)
        assert b2 == (a1 and (10_000 - a1[0], a1[1]))
        assert a2 == (b1 and (10_000 - b1[0], b1[1]))


@pytest.mark.parametrize("name", ["slow-wide-small", "avellaneda-stoikov", "join"])
def test_no_quote_reaches_the_touch_leaves_the_grid_or_breaks_a_limit(name: str) -> None:
    """Whatever the market looks like: post-only, valid prices, within room, bound and the strategy's own cap."""
    strategy = build_strategy(BUILT_IN[name])
    chance = random.Random(7)
    for _ in range(300):
        bid = chance.randrange(1, 95) * 100
        ask = bid + chance.randrange(1, 4) * 100
        room, bound = chance.randrange(0, 12), chance.randrange(1, 99) * 100
        view = a_view(
            bid,
            ask,
            chance.randrange(-25, 25),
            market_room=lambda side, price, room=room: Count(room * 100),
            price_bound=lambda side, bound=bound: Price(bound),
        )
        found_bid, found_ask = asked(strategy, view)
        if found_bid is not None:
            assert found_bid[0] < ask
            assert found_bid[0] <= bound
            assert 1 <= found_bid[1] <= room
        if found_ask is not None:
            assert found_ask[0] > bid
            assert found_ask[0] >= bound
            assert 1 <= found_ask[1] <= room


def test_blocks_answer_as_their_formulas_say() -> None:
    """Micro-price, break-even, chance of a fill, ladder."""
    assert micro_price(a_view()) == 5_050  # three times as much on the bid: it leans up
    assert break_even(Price(5_000), FeeSchedule()) == 44  # 0.0175 * .5 * .5 dollars, rounded up
    assert break_even(Price(5_000), FeeSchedule(FeeType.QUADRATIC)) == 0
    assert fill_chance(0, 1.0) == 1.0
    assert fill_chance(60, 1.0) == 0.5
    assert fill_chance(60, 0.0) == 0.0
    rungs = [(100, Count(500)), (200, Count(1_000))]
    assert [size_ladder(edge, rungs) for edge in (50, 100, 250)] == [0, 500, 1_000]


def test_the_sister_market_counts_by_how_tight_it_is() -> None:
    """A sister at 0.40-0.42 says 0.59; twice as wide as our 0.50-0.51, it moves us by a third of the way."""
    sister = Sibling(ticker=MarketTicker(M[:-3] + "BOS"), touch=Touch(Price(4_000), Price(4_200)))
    view = a_view(5_000, 5_100, context=Context(siblings=lambda: [sister]))
    assert sibling_consensus(view) == 5_050 + (5_900 - 5_050) // 3
    assert sibling_consensus(a_view(5_000, 5_100)) == 5_050


def test_variation_is_bounded_repeatable_and_changes_with_time() -> None:
    """The same seed, market and quarter of a minute give the same number; others others."""
    views = [attrs.evolve(a_view(), now=Micros(T0 + n * 15 * SECOND)) for n in range(50)]
    found = [variation(view, 50) for view in views]
    assert found == [variation(view, 50) for view in views]
    assert all(-50 <= number <= 50 for number in found)
    assert len(set(found)) > 20
    assert variation(views[0], 0) == 0


def test_an_outside_probability_counts_until_it_is_old() -> None:
    """Told just now it is fair value; minutes later it is nothing."""
    fresh = a_view(context=Context(external=(Price(6_100), Micros(T0 + 30 * SECOND))))
    old = a_view(context=Context(external=(Price(6_100), Micros(T0 - 90 * SECOND))))
    assert SOURCES["external"](fresh) == 6_100
    assert SOURCES["external"](old) is None


def test_names_and_prefixes_choose_strategies() -> None:
    """`STRATEGY` gives a default and exceptions; the longest prefix wins."""
    assert parse_assignments("hybrid,KXNBAGAME:join") == ("hybrid", {"KXNBAGAME": "join"})
    assert parse_assignments("kxnba:join") == ("hybrid", {"KXNBA": "join"})
    table = StrategyTable(Hybrid(), {"KXNHL": Join(), "KXNHLGAME-26SEP21": SlowWideSmall()})
    assert type(table.of(M)) is SlowWideSmall
    assert type(table.of(MarketTicker("KXNHLGAME-26OCT01A-B"))) is Join
    assert type(table.of(MarketTicker("KXNBAGAME-26OCT01A-B"))) is Hybrid
    for text in ("hybrid,join", "KXNBA:", "KXNBA:join,KXNBA:hybrid"):
        with pytest.raises(ConfigError):
            parse_assignments(text)


def test_parameters_from_text_are_in_the_users_units() -> None:
    """Dollars, contracts, seconds; what a class does not have is told with what it has."""
    built = build_strategy(AvellanedaStoikov, {"cap": "12", "horizon": "90", "risk_aversion": "0.5"})
    assert built == AvellanedaStoikov(cap=Count(1_200), horizon=Micros(90 * SECOND), risk_aversion=0.5)
    with pytest.raises(ConfigError, match=r"no parameter 'sise'.*size"):
        build_strategy(Join, {"sise": "3"})
    with pytest.raises(ConfigError, match="contracts"):
        build_strategy(Join, {"size": "many"})


def test_what_is_no_strategy_is_refused_with_its_name() -> None:
    """A class of another kind, or one without `quote`, never trades."""
    with pytest.raises(ConfigError, match="there: not a subclass"):
        check_strategy(str, "there")

    @attrs.frozen(kw_only=True)
    class Silent(Hybrid.__base__):  # type: ignore[misc, name-defined]
        name = "silent"

    with pytest.raises(ConfigError, match="no quote"):
        check_strategy(Silent, "there")

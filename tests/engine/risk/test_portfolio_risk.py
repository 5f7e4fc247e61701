"""What an event can cost is never less than what any fills of any of its orders can make it cost."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.domain.errors import InvariantError
from mm.domain.inventory import InventoryState
from mm.domain.numbers import DOLLAR, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.engine.risk import EventShape, Holding, PortfolioRisk, RiskLimits, WorkingOrder, event_losses
from mm.engine.risk.portfolio import UNLIMITED
from mm.engine.risk.scenarios import MarketLosses, fee_per_contract, market_losses, worst_loss

A, B, C = MarketTicker("KXG-1-A"), MarketTicker("KXG-1-B"), MarketTicker("KXG-1-C")
ALL = (A, B, C)


def dollars(amount: float) -> Money:
    return Money(round(amount * 1_000_000))


def order(side: Side, cents: int, contracts: int) -> WorkingOrder:
    return WorkingOrder(side=side, price=Price(cents * 100), count=Count(contracts * 100))


def long(contracts: int, cents: int) -> Holding:
    return Holding(net=Count(contracts * 100), cost=Money(contracts * cents * 10_000))


def losses_of(
    held: dict[MarketTicker, Holding], orders: dict[MarketTicker, tuple[WorkingOrder, ...]] | None = None
) -> dict[MarketTicker, MarketLosses]:
    orders = orders or {}
    return {t: market_losses(held.get(t, Holding()), orders.get(t, ())) for t in {*held, *orders}}


# --- the value of one event ---


def test_a_long_position_loses_what_it_cost_and_wins_the_rest_of_the_dollar() -> None:
    shape = EventShape(markets=(A, B), is_mutually_exclusive=True)
    losses = event_losses(shape, losses_of({A: long(10, 60)}))
    assert losses == {A: dollars(-4), B: dollars(6), None: dollars(6)}


def test_short_in_both_markets_of_a_game_is_one_bet_of_which_one_side_is_certain_to_pay() -> None:
    """The collateral return of mutually exclusive events: two NOs bought for 60 + 45 cents pay one dollar at least."""
    shape = EventShape(markets=(A, B), is_mutually_exclusive=True)
    short = {A: Holding(net=Count(-1000), cost=dollars(-4)), B: Holding(net=Count(-1000), cost=dollars(-5.5))}
    losses = event_losses(shape, losses_of(short))
    assert losses == {A: dollars(0.5), B: dollars(0.5), None: dollars(-9.5)}
    apart = EventShape(markets=(A, B), is_mutually_exclusive=False)
    assert worst_loss(apart, losses_of(short)) == dollars(6 + 4.5)


def test_a_hedge_does_not_count_where_the_rules_may_close_one_market_alone() -> None:
    shape = EventShape(markets=(A, B), is_mutually_exclusive=True, is_netted=False)
    short = {A: Holding(net=Count(-1000), cost=dollars(-4)), B: Holding(net=Count(-1000), cost=dollars(-5.5))}
    assert worst_loss(shape, losses_of(short)) == dollars(6 + 4.5)


def test_long_in_both_markets_is_safe_only_when_one_of_them_must_pay() -> None:
    held = {A: long(10, 50), B: long(10, 48)}
    certain = EventShape(markets=(A, B), is_mutually_exclusive=True, is_exhaustive=True)
    uncertain = EventShape(markets=(A, B), is_mutually_exclusive=True)
    assert worst_loss(certain, losses_of(held)) == 0
    assert worst_loss(uncertain, losses_of(held)) == dollars(9.8)


def test_a_three_way_event_is_valued_at_its_worst_outcome() -> None:
    shape = EventShape(markets=ALL, is_mutually_exclusive=True, is_exhaustive=True)
    losses = event_losses(shape, losses_of({A: long(10, 30), C: Holding(net=Count(-1000), cost=dollars(-2))}))
    assert losses == {A: dollars(-9), B: dollars(1), C: dollars(11)}


def test_orders_count_only_in_outcomes_in_which_they_lose() -> None:
    shape = EventShape(markets=(A,), is_mutually_exclusive=True)
    losses = event_losses(shape, losses_of({}, {A: (order(Side.BID, 40, 10), order(Side.ASK, 60, 10))}))
    fee = 1000 * fee_per_contract(Price(4000))
    assert losses == {A: dollars(4) + fee, None: dollars(4) + fee}


def test_outcomes_of_markets_that_exclude_nothing_are_not_listed() -> None:
    with pytest.raises(InvariantError, match="mutually exclusive"):
        event_losses(EventShape(markets=(A,), is_mutually_exclusive=False), {})


def test_a_holding_costs_what_its_layers_cost() -> None:
    inventory = InventoryState()
    inventory.apply(Side.BID, Price(6000), Count(1000), Money(0), Micros(1))
    assert Holding.of(inventory) == long(10, 60)
    inventory.apply(Side.ASK, Price(7000), Count(2500), Money(0), Micros(2))
    assert Holding.of(inventory) == Holding(net=Count(-1500), cost=dollars(-10.5))
    assert Holding.of(InventoryState()) == Holding()


# --- properties ---

prices = st.integers(1, 99).map(lambda cents: Price(cents * 100))
counts = st.integers(1, 40).map(lambda tens: Count(tens * 50))
working = st.builds(WorkingOrder, side=st.sampled_from(Side), price=prices, count=counts)
fills = st.tuples(st.sampled_from(Side), prices, counts)
market_books = st.tuples(st.lists(fills, max_size=4), st.lists(working, max_size=3))
shapes = st.tuples(st.sampled_from([True, False, None]), st.booleans(), st.booleans())


def shape_of(markets: tuple[MarketTicker, ...], flags: tuple[bool | None, bool, bool]) -> EventShape:
    return EventShape(
        markets=markets, is_mutually_exclusive=flags[0], is_exhaustive=flags[1], is_netted=flags[2]
    )


def held_after(executed: list[tuple[Side, Price, Count]]) -> InventoryState:
    inventory = InventoryState()
    for n, (side, price, count) in enumerate(executed):
        inventory.apply(side, price, count, Money(0), Micros(n))
    return inventory


def endings(shape: EventShape) -> list[dict[MarketTicker, int]]:
    """Every way the event can end: ticker -> what a YES pays, in `Price`."""
    if shape.is_mutually_exclusive:
        return [{t: DOLLAR if t == winner else 0 for t in shape.markets} for winner in shape.outcomes]
    return [
        dict(zip(shape.markets, values, strict=True))
        for values in product((0, DOLLAR), repeat=len(shape.markets))
    ]


@settings(max_examples=150, deadline=None)
@given(books=st.lists(market_books, min_size=1, max_size=3), flags=shapes, data=st.data())
def test_no_fills_of_any_orders_cost_more_than_the_stated_worst_case(
    books: list[tuple[list[tuple[Side, Price, Count]], list[WorkingOrder]]],
    flags: tuple[bool | None, bool, bool],
    data: st.DataObject,
) -> None:
    """Positions by FIFO, a random part of each order filled, the fee as the venue charges it, each ending: the event's
    result is never below minus the stated worst loss."""
    tickers = ALL[: len(books)]
    shape = shape_of(tickers, flags)
    before = {t: held_after(book[0]) for t, book in zip(tickers, books, strict=True)}
    orders = {t: tuple(book[1]) for t, book in zip(tickers, books, strict=True)}
    risk = PortfolioRisk()
    risk.set_event("E", shape, series="S", day="D")
    for t in tickers:
        risk.update(t, Holding.of(before[t]), orders[t], realized=before[t].realized_gross)
    results = dict.fromkeys(tickers, 0)
    after: dict[MarketTicker, InventoryState] = {}
    for t in tickers:
        inventory = before[t].copy()
        for working_order in orders[t]:
            part = data.draw(st.integers(0, working_order.count))
            if part:
                fee = Money(part * fee_per_contract(working_order.price))
                inventory.apply(working_order.side, working_order.price, Count(part), fee, Micros(99))
        after[t] = inventory
    for values in endings(shape):
        for t in tickers:
            results[t] = after[t].realized_net + after[t].unrealized(Price(values[t]))
        assert sum(results.values()) >= -risk.worst_of("E")


limit_values = st.one_of(st.none(), st.integers(0, 60).map(dollars))


@settings(max_examples=200, deadline=None)
@given(
    books=st.lists(market_books, min_size=1, max_size=3),
    flags=shapes,
    ours=working,
    event=limit_values,
    portfolio=limit_values,
    night=limit_values,
    rho=st.fractions(0, 1),
    other=st.integers(0, 40).map(dollars),
)
def test_an_order_within_the_room_keeps_every_limit_and_one_contract_more_does_not(
    books: list[tuple[list[tuple[Side, Price, Count]], list[WorkingOrder]]],
    flags: tuple[bool | None, bool, bool],
    ours: WorkingOrder,
    event: Money | None,
    portfolio: Money | None,
    night: Money | None,
    rho: Fraction,
    other: Money,
) -> None:
    """The room is exact: at the room every limit holds (or nothing got worse), and it is not smaller than needed."""
    tickers = ALL[: len(books)]
    shape = shape_of(tickers, flags)
    limits = RiskLimits(event=event, portfolio=portfolio, night=night, correlation=rho)

    def state(extra: int, slack: Money = dollars(0)) -> PortfolioRisk:  # noqa: B008 - an int
        risk = PortfolioRisk(limits, slack)
        risk.set_event("E", shape, series="S", day="D")
        risk.set_event("O", EventShape(markets=(MarketTicker("X"),)), series="S", day="D")
        risk.update(MarketTicker("X"), Holding(net=Count(other), cost=other), ())
        for n, (t, (executed, resting)) in enumerate(zip(tickers, books, strict=True)):
            inventory = held_after(executed)
            mine = [attrs_with(ours, extra)] if n == 0 and extra else []
            risk.update(t, Holding.of(inventory), [*resting, *mine], realized=inventory.realized_gross)
        return risk

    before = state(0)
    room = before.room(A, ours.side, ours.price)
    sure = state(0, dollars(5)).sure_room(A)
    assert sure is None or sure <= room
    assert before.room(A, ours.side, ours.price, beside=books[0][1]) == room
    if room == UNLIMITED:
        return
    if room:
        after = state(room)
        for use in after.uses():
            was = next((u.loss for u in before.uses() if (u.scope, u.name) == (use.scope, use.name)), 0)
            assert use.loss <= max(use.limit, was), use
    beyond = state(room + 1)
    worse = beyond.worst_of("E") > before.worst_of("E")
    assert worse
    assert any(use.loss > use.limit for use in beyond.uses())


def attrs_with(order: WorkingOrder, count: int) -> WorkingOrder:
    return WorkingOrder(side=order.side, price=order.price, count=Count(count))


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(ALL), market_books), min_size=1, max_size=12), flags=shapes)
def test_sums_kept_step_by_step_equal_sums_made_anew(
    steps: list[tuple[MarketTicker, tuple[list[tuple[Side, Price, Count]], list[WorkingOrder]]]],
    flags: tuple[bool | None, bool, bool],
) -> None:
    """Whatever order the changes come in, the totals are those of the final state; an event taken out leaves nothing."""
    limits = RiskLimits(series=dollars(1), portfolio=dollars(1), night=dollars(1), day=dollars(1))
    kept, anew = PortfolioRisk(limits), PortfolioRisk(limits)
    final: dict[MarketTicker, tuple[list[tuple[Side, Price, Count]], list[WorkingOrder]]] = {}
    for risk in (kept, anew):
        for t in ALL:
            shape = shape_of((t,), flags)
            risk.set_event(f"E{t}", shape, series="S", day="D")
    for t, book in steps:
        final[t] = book
        kept.update(t, Holding.of(held_after(book[0])), book[1])
    for t, book in final.items():
        anew.update(t, Holding.of(held_after(book[0])), book[1])
    assert kept.uses() == anew.uses()
    for t in ALL:
        kept.remove_event(f"E{t}")
    assert kept.total == 0
    assert kept.night_loss("S", "D") == 0


# --- limits ---


def test_the_night_counts_ten_equal_games_as_less_than_ten_and_more_than_one() -> None:
    risk = PortfolioRisk(RiskLimits(night=dollars(100), correlation=Fraction(1, 2)))
    for n in range(10):
        ticker = MarketTicker(f"M{n}")
        risk.set_event(f"E{n}", EventShape(markets=(ticker,)), series="S", day="D")
        risk.update(ticker, long(10, 100), ())
    # sqrt(0.5 * 10 * 10^2 + 0.5 * 100^2) = sqrt(5500)
    assert risk.night_loss("S", "D") == Money(74_161_985)


def test_what_a_game_has_lost_already_counts_and_what_it_won_pays_for_nothing() -> None:
    risk = PortfolioRisk(RiskLimits(event=dollars(10)))
    risk.set_event("E", EventShape(markets=(A,)), series="S", day="D")
    risk.update(A, Holding(), (), realized=dollars(-4))
    assert risk.worst_of("E") == dollars(4)
    lost = risk.room(A, Side.BID, Price(5000))
    risk.update(A, Holding(), (), realized=dollars(4))
    won = risk.room(A, Side.BID, Price(5000))
    assert lost == dollars(6) // (5000 + fee_per_contract(Price(5000)))
    assert won == dollars(10) // (5000 + fee_per_contract(Price(5000)))


def test_above_its_limit_an_event_may_still_be_closed() -> None:
    risk = PortfolioRisk(RiskLimits(event=dollars(1)))
    risk.set_event("E", EventShape(markets=(A,), is_mutually_exclusive=True), series="S", day="D")
    risk.update(A, long(10, 60), ())
    assert risk.room(A, Side.BID, Price(6000)) == 0
    assert risk.room(A, Side.ASK, Price(6000)) >= 1000


def test_a_market_of_which_nothing_was_told_is_not_limited_here() -> None:
    assert PortfolioRisk(RiskLimits(event=dollars(1))).room(A, Side.BID, Price(5000)) == UNLIMITED

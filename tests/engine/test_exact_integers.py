"""The decision's arithmetic in integers gives what the plain formulas in fractions give, to the last digit."""

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from mm.domain.book import OrderBook
from mm.domain.grid import PriceBand, TickGrid, tick_grid, uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, DOLLAR, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.hybrid_risk import HybridRiskPolicy
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.engine.quoting import one_tick_inside, skewed_half_spread, wanted_price

PRICES = st.integers(1, 9_999).map(Price)
NETS = st.integers(-30_000, 30_000).map(Count)
GRIDS = st.sampled_from(
    [
        uniform_grid(CENT),
        uniform_grid(Price(10)),
        tick_grid(
            [
                PriceBand(Price(0), Price(1_000), Price(10)),
                PriceBand(Price(1_000), Price(9_000), Price(100)),
                PriceBand(Price(9_000), DOLLAR, Price(10)),
            ]
        ),
    ]
)
PARAMETERS = st.builds(
    StrategyParameters,
    base_spread=st.integers(1, 5_000).map(Price),
    size_per_fill=st.integers(100, 5_000).map(Count),
    size_cap=st.integers(100, 30_000).map(Count),
    mae_failsafe_cents=st.fractions(0, 100, max_denominator=1_000),
)


def plain_half_spread(net: Count, parameters: StrategyParameters) -> Fraction:
    """strategy.md's formula as it stands."""
    if abs(net) < parameters.neutral_zone:
        return Fraction(parameters.base_spread)
    return parameters.base_spread * (1 + Fraction(abs(net), parameters.size_cap))


def plain_wanted_price(
    side: Side,
    mark: Price,
    net: Count,
    touch: Touch,
    grid: TickGrid,
    parameters: StrategyParameters,
    extra_ticks: int,
) -> tuple[Fraction, Price] | None:
    """The same in fractions throughout."""
    half = plain_half_spread(net, parameters)
    price: Price | None
    if side is Side.BID:
        want = mark - half
        if touch.best_ask is not None:
            want = min(want, Fraction(one_tick_inside(Side.BID, touch.best_ask, grid)))
        price = grid.at_or_below(math.floor(want))
    else:
        want = mark + half
        if touch.best_bid is not None:
            want = max(want, Fraction(one_tick_inside(Side.ASK, touch.best_bid, grid)))
        price = grid.at_or_above(math.ceil(want))
    for _ in range(extra_ticks):
        if price is None:
            return None
        further = grid.tick_below(price) if side is Side.BID else grid.tick_above(price)
        if further is not None:
            want += further - price
        price = further
    return None if price is None else (want, price)


@given(NETS, PARAMETERS)
def test_the_half_spread_is_the_formulas(net: Count, parameters: StrategyParameters) -> None:
    """Equal to the fraction, and whole numbers stay ints."""
    found, plain = skewed_half_spread(net, parameters), plain_half_spread(net, parameters)
    assert found == plain
    assert isinstance(found, int) == (plain.denominator == 1)


@settings(max_examples=300)
@given(
    st.sampled_from(Side),
    PRICES,
    NETS,
    st.builds(Touch, PRICES | st.none(), PRICES | st.none()),
    GRIDS,
    PARAMETERS,
    st.integers(0, 2),
)
def test_the_wanted_price_is_the_formulas(
    side: Side,
    mark: Price,
    net: Count,
    touch: Touch,
    grid: TickGrid,
    parameters: StrategyParameters,
    extra_ticks: int,
) -> None:
    """Exact price and rounded price, on every grid, clamped or not, with the brake on or off."""
    assert wanted_price(
        side, mark, net, touch, grid, parameters, extra_ticks=extra_ticks
    ) == plain_wanted_price(side, mark, net, touch, grid, parameters, extra_ticks)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(Side), PRICES, st.integers(1, 5_000).map(Count)), max_size=5),
    PRICES,
    PARAMETERS,
)
def test_the_breach_is_the_fractions(
    fills: list[tuple[Side, Price, Count]], mark: Price, parameters: StrategyParameters
) -> None:
    """The timer of the adverse excursion runs exactly while `mae >= mae_failsafe`."""
    inventory = InventoryState()
    for number, (side, price, count) in enumerate(fills):
        inventory.apply(side, price, count, Money(0), Micros(number))
    policy = HybridRiskPolicy(parameters)
    policy.should_flatten(inventory, mark, Micros(1_000))
    is_breach = not inventory.is_flat and inventory.mae(mark) >= parameters.mae_failsafe
    assert (policy.breach_since is not None) is is_breach


TICKER = MarketTicker("KXNHLGAME-26OCT12VGKMIN-VGK")
LEVELS = st.dictionaries(
    st.integers(1, 6).map(lambda tick: Price(4_000 + tick * 100)),
    st.integers(1, 20).map(lambda c: Count(c * 100)),
    max_size=6,
)


@st.composite
def own_orders(draw: st.DrawFn) -> list[Order]:
    """Up to four orders of ours around the book, in any state."""
    return [
        Order(
            client_order_id=ClientOrderId(f"mm-x-{number}"),
            ticker=TICKER,
            side=draw(st.sampled_from(Side)),
            price=Price(4_000 + 100 * draw(st.integers(1, 13))),
            count=Count(100 * draw(st.integers(1, 12))),
            time_in_force=draw(st.sampled_from([TimeInForce.GTC, TimeInForce.IOC])),
            state=draw(st.sampled_from(OrderState)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


def plain_others_touch(book: OrderBook, orders: list[Order]) -> Touch:
    """Take our own out of every level, then look for the best."""
    best: list[Price | None] = []
    for side, levels in ((Side.BID, book.bids), (Side.ASK, book.asks)):
        left = dict(levels)
        for order in orders:
            is_shown = order.state in (OrderState.RESTING, OrderState.AMENDING, OrderState.CANCELLING)
            if (
                order.side is side
                and is_shown
                and order.time_in_force is TimeInForce.GTC
                and order.price in left
            ):
                left[order.price] = Count(left[order.price] - order.leaves)
        prices = [price for price, count in left.items() if count > 0]
        best.append((max if side is Side.BID else min)(prices, default=None))
    return Touch(*best)


@settings(max_examples=300)
@given(
    LEVELS, LEVELS, own_orders(), st.sampled_from(Side), st.integers(1, 13), st.integers(-20, 20), st.data()
)
def test_a_change_that_is_not_seen_changes_nothing(
    bids: dict[Price, Count],
    asks: dict[Price, Count],
    orders: list[Order],
    side: Side,
    tick: int,
    contracts: int,
    data: st.DataObject,
) -> None:
    """Where `sees` says no, best prices with and without our orders are the same before and after."""
    book = OrderBook()
    book.snapshot(bids.items(), [(Price(price + 700), count) for price, count in asks.items()])
    market = Market(
        ticker=TICKER, event_ticker="KXNHLGAME-26OCT12VGKMIN", status=MarketStatus.ACTIVE, grid=uniform_grid()
    )
    maker = MarketMaker(market=market, parameters=StrategyParameters(), book=book, orders=lambda: orders)
    assert maker.others_touch == plain_others_touch(book, orders)
    price = Price(4_000 + 100 * tick)
    change = max(100 * contracts, -book.size_at(side, price))
    touch, others = maker.touch, maker.others_touch
    before = book.best_bid if side is Side.BID else book.best_ask
    maker._note_own(orders)
    book.apply_delta(side, price, Count(change))
    if not maker.sees(side, price, Count(change), before):
        assert (maker.touch, maker.others_touch) == (touch, others)


def test_where_we_hide_nothing_a_change_behind_the_best_is_not_seen() -> None:
    """Our quote at the best beside others': levels may change, and theirs at the best, as long as theirs stays."""
    book = OrderBook()
    book.snapshot([(Price(4_900), Count(3_000)), (Price(4_800), Count(100))], [(Price(5_100), Count(100))])
    order = Order(
        client_order_id=ClientOrderId("mm-x-1"),
        ticker=TICKER,
        side=Side.BID,
        price=Price(4_900),
        count=Count(1_000),
        state=OrderState.RESTING,
    )
    market = Market(
        ticker=TICKER, event_ticker="KXNHLGAME-26OCT12VGKMIN", status=MarketStatus.ACTIVE, grid=uniform_grid()
    )
    maker = MarketMaker(market=market, parameters=StrategyParameters(), book=book, orders=lambda: [order])
    assert maker.sees(Side.BID, Price(4_800), Count(100), Price(4_900))  # nothing is known of our orders yet
    maker._note_own([order])

    def changed(price: int, change: int) -> bool:
        book.apply_delta(Side.BID, Price(price), Count(change))
        return maker.sees(Side.BID, Price(price), Count(change), Price(4_900))

    assert not changed(4_800, 500)
    assert not changed(4_900, -1_900)
    assert changed(4_900, -100), (
        "what is left at the best is ours alone: the others' best is another price now"
    )
    assert changed(4_800, 100), "and moves with the level behind"
    assert changed(4_900, 100), "somebody stands beside us again"
    assert not changed(4_800, -100)

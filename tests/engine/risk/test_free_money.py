"""Our quotes on the markets of one event never add up to a riskless profit for a taker."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from mm.domain.numbers import DOLLAR, Count, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.risk import EventShape, FreeMoney, own_prices
from mm.engine.risk.free_money import OwnPrices

A, B, C = (MarketTicker(f"KXG-1-{name}") for name in "ABC")
GAME = EventShape(markets=(A, B), is_mutually_exclusive=True)
NONE = OwnPrices()


def own(bid: int | None = None, ask: int | None = None) -> OwnPrices:
    return OwnPrices(None if bid is None else Price(bid * 100), None if ask is None else Price(ask * 100))


def test_bids_on_both_teams_may_not_sum_to_more_than_one_dollar() -> None:
    rule = FreeMoney(GAME)
    assert rule.bound(A, Side.BID, {B: own(bid=42)}) == 5800
    assert rule.allows(A, Side.BID, Price(5800), {B: own(bid=42)})
    assert not rule.allows(A, Side.BID, Price(5900), {B: own(bid=42)})


def test_asks_on_both_teams_may_not_sum_to_less_than_one_dollar() -> None:
    rule = FreeMoney(GAME)
    assert rule.bound(A, Side.ASK, {B: own(ask=38)}) == 6200
    assert not rule.allows(A, Side.ASK, Price(6100), {B: own(ask=38)})


def test_asks_are_free_while_a_market_of_the_event_is_not_offered() -> None:
    three = EventShape(markets=(A, B, C), is_mutually_exclusive=True)
    assert FreeMoney(three).bound(A, Side.ASK, {B: own(ask=1)}) is None
    assert FreeMoney(three).bound(A, Side.ASK, {B: own(ask=20), C: own(ask=30)}) == 5000


def test_nothing_binds_markets_that_exclude_nothing_or_stand_alone() -> None:
    apart = EventShape(markets=(A, B), is_mutually_exclusive=False)
    assert FreeMoney(apart).bound(A, Side.BID, {B: own(bid=99)}) is None
    assert FreeMoney(EventShape(markets=(A,), is_mutually_exclusive=True)).bound(A, Side.BID, {}) is None


def test_an_event_of_which_nothing_is_known_is_taken_for_exclusive() -> None:
    unknown = EventShape(markets=(A, B))
    assert FreeMoney(unknown).bound(A, Side.BID, {B: own(bid=70)}) == 3000


def _order(side: Side, cents: int, state: OrderState, **more: object) -> Order:
    return Order(
        client_order_id=ClientOrderId("mm-a-1"),
        ticker=A,
        side=side,
        price=Price(cents * 100),
        count=Count(100),
        state=state,
        **more,  # type: ignore[arg-type]
    )


def test_every_order_that_may_rest_counts_at_every_price_that_it_may_have() -> None:
    orders = [
        _order(Side.BID, 40, OrderState.UNKNOWN),
        _order(Side.BID, 45, OrderState.DONE),
        _order(Side.BID, 38, OrderState.AMENDING, amending_to=Price(4300)),
        _order(Side.ASK, 60, OrderState.CANCELLING),
        _order(Side.ASK, 1, OrderState.SENT, time_in_force=TimeInForce.IOC),
    ]
    assert own_prices(orders) == own(bid=43, ask=60)
    assert own_prices([]) == NONE


quotes = st.tuples(
    st.sampled_from((A, B, C)), st.sampled_from(Side), st.integers(1, 99).map(lambda c: Price(c * 100))
)


@given(wishes=st.lists(quotes, max_size=30), markets=st.sampled_from([(A, B), (A, B, C)]))
def test_quotes_taken_one_after_another_within_the_bound_never_give_a_riskless_profit(
    wishes: list[tuple[MarketTicker, Side, Price]], markets: tuple[MarketTicker, ...]
) -> None:
    """Each wish replaces the market's quote of that side if the rule allows it; after each, no set of sales to our bids
    and of purchases of all our asks gains for certain."""
    rule = FreeMoney(EventShape(markets=markets, is_mutually_exclusive=True, is_exhaustive=True))
    now: dict[MarketTicker, OwnPrices] = {}
    for ticker, side, price in wishes:
        if ticker not in markets or not rule.allows(ticker, side, price, now):
            continue
        before = now.get(ticker, NONE)
        now[ticker] = OwnPrices(price, before.ask) if side is Side.BID else OwnPrices(before.bid, price)
        assert _sure_gain(now, markets) <= 0


def _sure_gain(now: Mapping[MarketTicker, OwnPrices], markets: tuple[MarketTicker, ...]) -> int:
    """The best riskless result of a taker, fees not counted."""
    bids = [p.bid for t in markets if (p := now.get(t, NONE)).bid is not None]
    asks = [p.ask for t in markets if (p := now.get(t, NONE)).ask is not None]
    gain = sum(bid for bid in bids if bid is not None) - DOLLAR
    if len(asks) == len(markets):
        gain = max(gain, DOLLAR - sum(ask for ask in asks if ask is not None))
    return gain

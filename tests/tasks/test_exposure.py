"""The limits over all markets: what they leave, and the last check that no order passes which could break one."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fake_exchange import virtual_clock
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.inventory import InventoryState
from mm.domain.numbers import DOLLAR, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side, TimeInForce
from mm.engine.parameters import StrategyParameters, build_parameters
from mm.engine.risk import EventShape
from mm.engine.risk.guards import Reaction
from mm.tasks.exposure import Exposure
from task_rig import GAME as GAME_MARKET
from task_rig import TaskRig

A, B = MarketTicker("KXNHLGAME-26NOV25VGKMIN-VGK"), MarketTicker("KXNHLGAME-26NOV25VGKMIN-MIN")
GAME = "KXNHLGAME-26NOV25VGKMIN"


@attrs.define(eq=False)
class World:
    """Inventories and orders, as floor and desk would hold them."""

    parameters: StrategyParameters
    is_netted: bool = False
    inventories: dict[MarketTicker, InventoryState] = attrs.field(factory=dict)
    working: dict[MarketTicker, list[Order]] = attrs.field(factory=dict)
    exposure: Exposure = attrs.field(init=False)
    made: int = 0

    def __attrs_post_init__(self) -> None:
        self.exposure = Exposure(
            parameters=self.parameters,
            inventory=lambda t: self.inventories.get(t, InventoryState()),
            orders=lambda t: list(self.working.get(t, ())),
            is_netted=self.is_netted,
        )

    def fill(self, ticker: MarketTicker, side: Side, cents: int, contracts: int) -> None:
        inventory = self.inventories.setdefault(ticker, InventoryState())
        inventory.apply(side, Price(cents * 100), Count(contracts * 100), Money(0), Micros(1))
        self.exposure.update(ticker)

    def new(self, ticker: MarketTicker, side: Side, cents: int, contracts: int, **more: object) -> Order:
        self.made += 1
        return Order(
            client_order_id=ClientOrderId(f"mm-a-{self.made}"),
            ticker=ticker,
            side=side,
            price=Price(cents * 100),
            count=Count(contracts * 100),
            **more,  # type: ignore[arg-type]
        )

    def work(self, order: Order) -> Order:
        order.state = OrderState.RESTING
        self.working.setdefault(order.ticker, []).append(order)
        self.exposure.update(order.ticker)
        return order

    def why_not(self, order: Order) -> str:
        refused = self.exposure.refuse(order, order.price, order.count)
        return "" if refused is None else str(refused)


def world(**texts: str) -> World:
    return World(build_parameters(texts))


def test_with_the_default_limits_the_users_own_limits_are_the_first_to_bind() -> None:
    """Two full markets of one game at their worst prices: the limits by outcome leave room for a quote."""
    limits = StrategyParameters().risk_limits
    assert (limits.event, limits.series, limits.portfolio) == (200_000_000, 1_600_000_000, 1_600_000_000)
    w = world()
    w.fill(A, Side.BID, 60, 30)
    assert w.exposure.room(A, Side.BID, Price(6000)) >= 2_000
    assert w.why_not(w.new(A, Side.BID, 60, 20)) == ""
    assert "MAX_INVENTORY_PER_MARKET 50.00" in w.why_not(w.new(A, Side.BID, 60, 21))


def test_zero_switches_a_limit_off_and_empty_takes_the_derived_one() -> None:
    limits = build_parameters({"MAX_EVENT_LOSS": "0", "MAX_NIGHT_LOSS": "", "MAX_DAY_LOSS": "7"}).risk_limits
    assert (limits.event, limits.night, limits.day) == (None, None, 7_000_000)


def test_the_present_quote_of_the_side_is_not_counted_for_its_successor_but_all_else_is() -> None:
    w = world(MAX_EVENT_LOSS="10")
    w.work(w.new(A, Side.BID, 50, 10))
    free = w.exposure.room(A, Side.BID, Price(5000))
    assert 1_900 < free < 2_000, "ten dollars buy about 19 contracts at 50 cents, fees counted"
    w.work(w.new(B, Side.BID, 50, 5))
    assert 1_400 < w.exposure.room(A, Side.BID, Price(5000)) < 1_500
    assert 900 < w.exposure.room(B, Side.BID, Price(5000)) < 1_000


def test_netted_both_markets_of_a_game_are_one_bet_once_the_listing_says_so() -> None:
    w = World(build_parameters({"MAX_EVENT_LOSS": "10"}), is_netted=True)
    w.fill(A, Side.ASK, 50, 15)
    apart = w.exposure.room(B, Side.ASK, Price(5000))
    w.exposure.know_event(GAME, (A, B), is_mutually_exclusive=True)
    together = w.exposure.room(B, Side.ASK, Price(5000))
    assert apart < 500
    assert together > 3_000


def test_bids_of_both_markets_stay_below_one_dollar_also_while_one_is_being_amended() -> None:
    w = world()
    w.exposure.know_event(GAME, (A, B), is_mutually_exclusive=True)
    w.work(w.new(A, Side.BID, 55, 10))
    assert w.exposure.bound(B, Side.BID) == 4500
    assert w.why_not(w.new(B, Side.BID, 45, 10)) == ""
    assert "free money" in w.why_not(w.new(B, Side.BID, 46, 10))
    w.working[A][0].amending_to = Price(5800)
    assert w.exposure.bound(B, Side.BID) == 4200


def test_markets_that_exclude_nothing_are_quoted_freely() -> None:
    w = world()
    w.exposure.know_event(GAME, (A, B), is_mutually_exclusive=False)
    w.work(w.new(A, Side.BID, 90, 1))
    assert w.exposure.bound(B, Side.BID) is None


def test_an_exit_is_never_refused() -> None:
    w = world(MAX_EVENT_LOSS="1", MAX_INVENTORY_PER_MARKET="1")
    w.fill(A, Side.BID, 60, 50)
    leave = w.new(A, Side.ASK, 1, 50, time_in_force=TimeInForce.IOC, reduce_only=True)
    assert w.why_not(leave) == ""
    assert w.why_not(w.new(A, Side.ASK, 61, 50)) == "", "a quote that only closes may have all of it"
    assert "not sent" in w.why_not(w.new(A, Side.BID, 60, 1))


def test_a_refusal_names_market_order_limit_and_numbers_and_is_counted() -> None:
    w = world(MAX_EVENT_LOSS="3")
    text = w.why_not(w.new(A, Side.BID, 60, 10))
    assert text.startswith(f"{A}: bid 10.00 at 0.6000 not sent: loss limits: room 4.")
    assert f"{GAME} may cost 0.000000" in text
    assert w.exposure.refused == 1


def test_reduce_only_leaves_room_only_for_what_closes() -> None:
    w = world()
    w.fill(A, Side.BID, 60, 7)
    w.exposure.reaction = Reaction.REDUCE_ONLY
    assert w.exposure.is_tight
    assert w.exposure.room(A, Side.BID, Price(5900)) == 0
    assert w.exposure.room(A, Side.ASK, Price(6100)) == 700
    assert w.exposure.room(B, Side.BID, Price(4000)) == 0


def test_a_limit_set_while_the_bot_runs_binds_at_once() -> None:
    """SIGHUP with a smaller MAX_PORTFOLIO_LOSS: nothing new, though nothing has changed since."""
    w = world()
    w.exposure.know_market(A)
    w.exposure.use(build_parameters({"MAX_PORTFOLIO_LOSS": "1"}))
    assert w.exposure.room(A, Side.BID, Price(5000)) < 200
    assert w.exposure.is_tight


def test_an_event_is_forgotten_with_its_last_market() -> None:
    w = world()
    w.exposure.know_event(GAME, (A, B), is_mutually_exclusive=True)
    w.fill(A, Side.BID, 60, 10)
    w.inventories.pop(A)
    w.exposure.forget_market(A)
    assert w.exposure.portfolio.shape_of(GAME) is None
    assert w.exposure.portfolio.total == 0


def test_a_market_that_is_no_longer_quoted_counts_as_long_as_anything_is_held_in_it() -> None:
    w = world()
    w.fill(A, Side.BID, 60, 10)
    w.exposure.forget_market(A)
    assert w.exposure.gross.total == 1_000
    assert w.exposure.portfolio.total == 6_000_000


# --- the property that the whole is for ---

wishes = st.lists(
    st.tuples(
        st.sampled_from((A, B)),
        st.sampled_from(Side),
        st.integers(1, 99),
        st.integers(1, 60),
        st.sampled_from(("work", "fill", "fill", "drop", "settle-nothing")),
        st.integers(1, 100),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=wishes, exclusive=st.sampled_from([True, False, None]), limit=st.integers(5, 60))
def test_whatever_passes_the_last_check_and_fills_in_whatever_part_the_limits_hold(
    steps: list[tuple[MarketTicker, Side, int, int, str, int]], exclusive: bool | None, limit: int
) -> None:
    """Random wishes are checked, worked if allowed, filled in parts in any order: the event never costs more than its
    limit in any ending, no market is above its position limit, the gross limit holds, nothing is given away."""
    w = world(MAX_EVENT_LOSS=str(limit), MAX_GLOBAL_INVENTORY="70")
    w.exposure.know_event(GAME, (A, B), is_mutually_exclusive=exclusive)
    for ticker, side, cents, contracts, what, share in steps:
        if what == "work":
            order = w.new(ticker, side, cents, contracts)
            if w.exposure.refuse(order, order.price, order.count) is None:
                w.work(order)
        elif (resting := w.working.get(ticker)) and what == "drop":
            resting.pop()
            w.exposure.update(ticker)
        elif resting and what == "fill":
            _fill_part(w, resting, share)
        _assert_limits(w, limit, exclusive)


def _fill_part(w: World, resting: list[Order], share: int) -> None:
    order = resting[share % len(resting)]
    part = Count(max(1, order.leaves * share // 100))
    order.filled = Count(order.filled + part)
    if not order.leaves:
        resting.remove(order)
    inventory = w.inventories.setdefault(order.ticker, InventoryState())
    inventory.apply(order.side, order.price, part, Money(0), Micros(1))
    w.exposure.update(order.ticker)


def _assert_limits(w: World, limit: int, exclusive: bool | None) -> None:
    held = {t: w.inventories.get(t, InventoryState()) for t in (A, B)}
    endings = [(0, 0), (DOLLAR, 0), (0, DOLLAR)] + ([] if exclusive else [(DOLLAR, DOLLAR)])
    for values in endings:
        result = sum(
            held[t].realized_net + held[t].unrealized(Price(v)) for t, v in zip((A, B), values, strict=True)
        )
        assert result >= -limit * 1_000_000
    gross = 0
    for t in (A, B):
        bids = sum(o.leaves for o in w.working.get(t, ()) if o.side is Side.BID)
        asks = sum(o.leaves for o in w.working.get(t, ()) if o.side is Side.ASK)
        worst = max(abs(held[t].net + bids), abs(held[t].net - asks), abs(held[t].net))
        gross += worst
        assert worst <= 5_000
    assert gross <= 7_000
    if exclusive is not False:
        best = [max((o.price for o in w.working.get(t, ()) if o.side is Side.BID), default=0) for t in (A, B)]
        lowest = [
            min((o.price for o in w.working.get(t, ()) if o.side is Side.ASK), default=None) for t in (A, B)
        ]
        assert sum(best) <= DOLLAR
        assert None in lowest or sum(p for p in lowest if p is not None) >= DOLLAR


# --- the markets of one game, quoted together ---

TOR, BOS = GAME_MARKET, MarketTicker("KXNHLGAME-26SEP21TORBOS-BOS")


@asynccontextmanager
async def both_markets(net_across: bool = False) -> AsyncGenerator[TaskRig, None]:
    """Quoters on both markets of a game that is known to pay one of them."""
    rig = TaskRig(parameters=StrategyParameters())
    rig.floor.net_across = net_across
    rig.floor.exposure.know_event("KXNHLGAME-26SEP21TORBOS", (TOR, BOS), is_mutually_exclusive=True)
    rig.desk.check = rig.floor.exposure.refuse
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writes.run)
        for ticker in (TOR, BOS):
            await nursery.start(rig.add_quoter(ticker).run)
        yield rig
        nursery.cancel_scope.cancel()


def gift(rig: TaskRig) -> int:
    """What a taker could gain for certain from our quotes, `Price` units; fees not counted."""
    bids = [max((r.price for r in rig.resting(Side.BID, t)), default=0) for t in (TOR, BOS)]
    asks = [min((r.price for r in rig.resting(Side.ASK, t)), default=DOLLAR) for t in (TOR, BOS)]
    return max(sum(bids) - DOLLAR, DOLLAR - sum(asks))


async def test_books_that_disagree_never_make_our_two_quotes_a_gift(autojump_clock: MockClock) -> None:
    """The two books drift apart step by step, as when one of them is slow after a goal: at no moment do our bids sum to
    more than a dollar or our asks to less, and nothing has to be kept back by the last check."""
    async with both_markets() as rig:
        for step in range(12):
            rig.book(4_000 + 300 * step, 4_400 + 300 * step, TOR)
            rig.book(5_500, 5_900, BOS)
            for _ in range(10):
                await trio.sleep(0.1)
                assert gift(rig) <= 0
        # And without the rule they would be one:
        assert rig.floor.exposure.bound(TOR, Side.BID) is not None
        rig.floor.exposure.portfolio.set_event(
            "KXNHLGAME-26SEP21TORBOS",
            EventShape(markets=(TOR, BOS), is_mutually_exclusive=False),
            series="KXNHLGAME",
            day="26SEP21",
        )
        rig.book(7_000, 7_400, TOR)
        await trio.sleep(2)
        assert gift(rig) > 0
        assert len(rig.resting(Side.BID, TOR)) + len(rig.resting(Side.BID, BOS)) >= 1
        assert rig.floor.exposure.refused == 0


async def test_netted_a_position_in_one_market_is_worked_off_in_both(autojump_clock: MockClock) -> None:
    """Long 30 of one team: its ask, and the other team's bid, which is the same bet the other way round."""
    async with both_markets(net_across=True) as rig:
        rig.book(4_800, 5_200, TOR)
        rig.book(4_800, 5_200, BOS)
        await trio.sleep(1)
        assert [len(rig.resting(side, t)) for t in (TOR, BOS) for side in Side] == [1, 1, 1, 1]
        rig.handler.on_fill(_by_hand(TOR, 3_000))
        await trio.sleep(1)
        assert [len(rig.resting(side, t)) for t in (TOR, BOS) for side in Side] == [0, 1, 1, 0]


async def test_apart_each_market_goes_by_its_own_position(autojump_clock: MockClock) -> None:
    """The default: the user's rules, market by market."""
    async with both_markets() as rig:
        rig.book(4_800, 5_200, TOR)
        rig.book(4_800, 5_200, BOS)
        await trio.sleep(1)
        rig.handler.on_fill(_by_hand(TOR, 3_000))
        await trio.sleep(1)
        assert [len(rig.resting(side, t)) for t in (TOR, BOS) for side in Side] == [0, 1, 1, 1]


def _by_hand(ticker: MarketTicker, count: int) -> Fill:
    return Fill(
        order_id=OrderId("hand"),
        trade_id=TradeId("hand-1"),
        ticker=ticker,
        side=Side.BID,
        price=Price(5_000),
        count=Count(count),
        fee=Money(0),
        liquidity=Liquidity.TAKER,
        ts=virtual_clock(),
    )

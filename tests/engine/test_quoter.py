"""One market's decisions, without a clock of its own: who may be quoted, when a position goes, what is asked next."""

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.domain.book import OrderBook
from mm.domain.commands import Cancel, Decrease, FlattenReason, Place
from mm.domain.fill import Trade, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side, TimeInForce
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import EXIT_PAUSE, Decision, MakerState, MarketMaker

BID, ASK = Side.BID, Side.ASK
M = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
T0 = Micros(1_790_000_000 * SECOND)


def at(seconds: float) -> Micros:
    return Micros(T0 + round(seconds * SECOND))


@attrs.define
class Bench:
    """A maker with its inventory and orders at hand."""

    parameters: StrategyParameters = attrs.field(factory=StrategyParameters)
    state: InventoryState = attrs.field(factory=InventoryState)
    orders: list[Order] = attrs.field(factory=list)
    rooms: dict[Side, Count] = attrs.field(factory=dict)
    maker: MarketMaker = attrs.field(init=False)
    made: int = 0

    def __attrs_post_init__(self) -> None:
        self.maker = MarketMaker(
            market=Market(
                ticker=M,
                event_ticker="KXNHLGAME-26SEP21TORBOS",
                status=MarketStatus.ACTIVE,
                grid=uniform_grid(CENT),
            ),
            parameters=self.parameters,
            book=OrderBook(),
            inventory=lambda: self.state,
            orders=self._orders,
            market_room=lambda side, price: self.rooms.get(side, Count(10**9)),
        )
        self.book(4_000, 6_000)

    def _orders(self) -> Sequence[Order]:
        return [o for o in self.orders if o.state is not OrderState.DONE or o.unbooked]

    def book(self, bid: int | None, ask: int | None) -> None:
        size = Count(1_000)
        self.maker.book.snapshot([(Price(bid), size)] if bid else [], [(Price(ask), size)] if ask else [])

    def print(self, price: int, seconds: float = 0.0) -> None:
        self.made += 1
        self.maker.on_trade(
            Trade(
                trade_id=TradeId(f"t{self.made}"),
                ticker=M,
                price=Price(price),
                count=Count(100),
                taker_side=BID,
                ts=at(seconds),
            )
        )

    def fill(self, side: Side, contracts: int, price: int, seconds: float = 0.0) -> None:
        self.state.apply(side, Price(price), Count(100 * contracts), Money(0), at(seconds))
        self.maker.on_fill()

    def rest(self, side: Side, price: int, count: int = 1_000, **changes: object) -> Order:
        self.made += 1
        settings: dict[str, object] = {
            "client_order_id": ClientOrderId(f"mm-s-{self.made}"),
            "ticker": M,
            "side": side,
            "price": Price(price),
            "count": Count(count),
            "state": OrderState.RESTING,
            "order_id": OrderId(f"o{self.made}"),
        }
        order = Order(**(settings | changes))  # type: ignore[arg-type]
        self.orders.append(order)
        return order

    def decide(self, seconds: float = 0.0) -> Decision:
        return self.maker.decide(at(seconds))


def placed(decision: Decision) -> list[tuple[Side, int, int]]:
    return [
        (c.side, c.price, c.count)
        for c in (*decision.bid.commands, *decision.ask.commands)
        if isinstance(c, Place)
    ]


# --- may it be quoted ---


def test_a_healthy_market_is_quoted_on_both_sides() -> None:
    """Before the first print the book's mid serves."""
    decision = Bench().decide()

    assert placed(decision) == [(BID, 4_900, 1_000), (ASK, 5_100, 1_000)]
    assert (decision.state, decision.reason) == (MakerState.QUOTING, "")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda b: b.maker.holds.update(a="feed is down", b="drift"), "feed is down; drift"),
        (lambda b: b.maker.exit_holds.update(p="paused"), "paused"),
        (lambda b: b.maker.book.mark_out_of_sync(), "waiting for the book"),
        (lambda b: b.book(None, None), "no price yet"),
        (lambda b: (b.print(5_000), b.book(None, None)), "book is empty"),
        (lambda b: (b.print(5_000), b.book(6_000, 5_000)), "book is crossed"),
        (lambda b: b.print(500), "extreme price"),
        (
            lambda b: setattr(b.maker, "market", attrs.evolve(b.maker.market, status=MarketStatus.INACTIVE)),
            "market is inactive",
        ),
    ],
)
def test_why_a_market_is_not_quoted(prepare: object, reason: str) -> None:
    """Nothing is placed, what rests goes at once and urgently, and the reason is said in words."""
    bench = Bench()
    bench.rest(BID, 4_900)
    if reason == "extreme price":
        bench.book(400, 600)
    prepare(bench)  # type: ignore[operator]

    decision = bench.decide()

    assert placed(decision) == []
    (cancel,) = decision.bid.commands
    assert isinstance(cancel, Cancel)
    assert cancel.is_urgent
    assert decision.reason == reason
    assert decision.state is MakerState.HELD


def test_a_mark_left_behind_by_the_book_is_held_within_the_touch() -> None:
    """The average says 0.50, the book has gone to 0.70/0.72 without a print: quotes follow the book."""
    bench = Bench()
    bench.print(5_000)
    bench.book(7_000, 7_200)

    assert bench.maker.mark == 7_000
    assert [(s, p) for s, p, _ in placed(bench.decide())] == [(BID, 6_900), (ASK, 7_100)]


def test_the_gate_stays_shut_until_the_mark_is_well_inside() -> None:
    """0.05 shuts; 0.09 is not enough, 0.10 is."""
    bench = Bench()
    bench.book(400, 600)
    assert bench.decide().reason == "extreme price"
    bench.book(800, 1_000)
    assert bench.decide(1).reason == "extreme price"
    bench.book(900, 1_100)
    assert bench.decide(2).reason == ""


def test_a_decision_asked_twice_is_the_same() -> None:
    """Looking changes nothing: once per read, and again at the moment of sending."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.print(4_000)

    assert bench.decide(1) == bench.decide(1)


# --- limits ---


def test_unbooked_contracts_take_room_and_partly_filled_quotes_are_left_alone() -> None:
    """An order that ended by report with 10 to come counts as a position of 10; a remainder is not topped up."""
    bench = Bench(parameters=StrategyParameters(max_inventory_per_market=Count(1_500)))
    bench.rest(BID, 4_900, state=OrderState.DONE, reported_filled=Count(1_000))
    bench.rest(ASK, 5_100, filled=Count(400))

    decision = bench.decide()

    assert placed(decision) == [(BID, 4_900, 500)]
    assert decision.ask.commands == ()


def test_less_room_makes_a_quote_smaller_in_place() -> None:
    """The limit over all markets shrank: a decrease, at once, and the place in the queue stays."""
    bench = Bench()
    order = bench.rest(BID, 4_900)
    bench.rooms[BID] = Count(350)

    (command,) = bench.decide().bid.commands

    assert command == Decrease(ticker=M, client_order_id=order.client_order_id, leaves=Count(300))


def test_no_room_takes_the_quote_off() -> None:
    """Not even one contract: it goes."""
    bench = Bench()
    bench.rest(BID, 4_900)
    bench.rooms[BID] = Count(99)

    (command,) = bench.decide().bid.commands

    assert isinstance(command, Cancel)
    assert command.is_urgent


# --- flatten ---


def test_a_flatten_pulls_first_and_crosses_when_nothing_works() -> None:
    """Two cancels; while one order works no exit; then IOC at the touch, and after a pause a cent deeper."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bid, ask = bench.rest(BID, 4_900), bench.rest(ASK, 5_100)
    bench.maker.flatten(FlattenReason.OPERATOR)

    first = bench.decide()
    assert all(isinstance(c, Cancel) and c.is_urgent for c in (*first.bid.commands, *first.ask.commands))
    assert first.exit is None
    bid.state = OrderState.DONE
    assert bench.decide(0.1).exit is None
    ask.state = OrderState.DONE
    exit_now = bench.decide(0.2).exit
    assert exit_now is not None
    assert (exit_now.side, exit_now.price, exit_now.count) == (ASK, 4_000, 1_000)
    bench.maker.exit_sent(at(0.2))
    waiting = bench.decide(0.3)
    assert (waiting.exit, waiting.wake_at) == (None, Micros(at(0.2) + EXIT_PAUSE))
    again = bench.decide(0.5).exit
    assert again is not None
    assert again.price == 3_900


def test_an_exit_of_unknown_outcome_blocks_the_next_one() -> None:
    """It may have traded: nothing is sent beside it."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.maker.flatten(FlattenReason.OPERATOR)
    bench.rest(ASK, 4_000, time_in_force=TimeInForce.IOC, state=OrderState.UNKNOWN)

    assert bench.decide(10).exit is None


def test_a_flatten_ends_by_fills_alone_and_asks_for_the_venues_word() -> None:
    """Sent is not done: only the fill ends it; then the position is compared, and quoting goes on."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.maker.flatten(FlattenReason.OPERATOR)
    bench.maker.exit_sent(at(0))
    assert bench.decide(1).state is MakerState.FLATTENING
    assert not bench.maker.needs_position_check
    bench.fill(ASK, 10, 4_000, 1)
    bench.decide(1.1)

    assert bench.maker.needs_position_check
    assert bench.decide(1.2).state is MakerState.QUOTING


def test_nobody_to_trade_with_is_no_order_at_any_price() -> None:
    """An empty bid side: it waits and says so."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.maker.flatten(FlattenReason.OPERATOR)
    bench.book(None, 6_000)

    decision = bench.decide()

    assert decision.exit is None
    assert "nobody to trade with" in decision.reason


def test_a_paused_market_sends_no_exit() -> None:
    """Nothing at all may be sent; the flatten goes on afterwards."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.maker.flatten(FlattenReason.OPERATOR)
    bench.maker.exit_holds["paused"] = "paused"
    assert bench.decide().exit is None
    bench.maker.exit_holds.clear()

    assert bench.decide().exit is not None


def test_each_flatten_is_told_once() -> None:
    """Reason, position and mark of the moment."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.maker.flatten(FlattenReason.OPERATOR)
    bench.maker.flatten(FlattenReason.PORTFOLIO_MAE)

    assert bench.maker.take_triggers() == [(FlattenReason.OPERATOR, Count(1_000), Price(5_000))]
    assert bench.maker.take_triggers() == []


def test_nothing_to_flatten_is_no_flatten() -> None:
    """Flat already."""
    bench = Bench()
    bench.maker.flatten(FlattenReason.OPERATOR)

    assert bench.decide().state is MakerState.QUOTING


def test_a_late_fill_behind_the_shut_gate_goes_too() -> None:
    """The gate shut while flat and pulled; a fill on its way arrives: no position stays in an extreme market."""
    bench = Bench()
    bench.book(200, 400)
    bench.decide()
    bench.fill(BID, 10, 300, 0.1)

    decision = bench.decide(0.2)

    assert decision.state is MakerState.FLATTENING
    assert decision.exit is not None
    assert [t[0] for t in bench.maker.take_triggers()] == [FlattenReason.EXTREME_PRICE]


# --- time ---


def test_the_rules_deadlines_are_told() -> None:
    """In breach since second 1: wake at 9; else when the duration rule comes due."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    assert bench.decide(0).wake_at == at(3_000)
    bench.book(3_900, 4_150)
    assert bench.decide(1).wake_at == at(9)


def test_a_blind_spell_neither_resets_nor_judges_by_an_old_mark() -> None:
    """The book is lost for five seconds inside a breach: the timer goes on from where it started."""
    bench = Bench()
    bench.fill(BID, 10, 5_000)
    bench.book(3_900, 4_150)
    bench.decide(1)
    bench.maker.book.mark_out_of_sync()
    assert bench.decide(5).state is MakerState.HELD
    bench.book(3_900, 4_150)
    bench.decide(6)

    assert bench.decide(9).state is MakerState.FLATTENING


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["book", "print", "fill bid", "fill ask", "hold", "lift", "send"]),
            st.integers(2, 97),
            st.floats(0.05, 30),
        ),
        max_size=40,
    )
)
def test_whatever_happens_a_decision_keeps_the_rules(steps: list[tuple[str, int, float]]) -> None:
    """Random worlds: one order a side, quotes off the touch and on the grid, no exit beside a working order."""
    bench = Bench()
    now = 0.0
    for what, cents, pause in steps:
        now += pause
        resting = {o.side: o for o in bench.orders if o.state is OrderState.RESTING}
        if what == "book":
            bench.book(100 * (cents - 1), 100 * (cents + 1))
        elif what == "print":
            bench.print(100 * cents, now)
        elif what.startswith("fill"):
            order = resting.get(BID if what == "fill bid" else ASK)
            if order is not None:
                bench.fill(order.side, int(order.leaves // 100), order.price, now)
                order.filled = order.reported_filled = order.count
                order.state = OrderState.DONE
        elif what == "hold":
            bench.maker.holds["test"] = "held"
        elif what == "lift":
            bench.maker.holds.clear()
        decision = bench.decide(now)
        touch = bench.maker.touch
        working = [o for o in bench.orders if o.state is not OrderState.DONE]
        for side in Side:
            plan = decision.plan(side)
            places = [c for c in plan.commands if isinstance(c, Place)]
            assert len(places) <= 1
            assert not (places and any(o.side is side for o in working))
            for place in places:
                assert bench.maker.market.grid.is_valid(place.price)
                assert place.count % 100 == 0
                limit = bench.parameters.max_inventory_per_market
                assert bench.state.net * side.sign + place.count <= limit
                other = touch.best_ask if side is BID else touch.best_bid
                assert other is None or (other - place.price) * side.sign > 0
                assert not bench.maker.holds
            if what == "send" and not decision.reason:
                for place in places:
                    bench.rest(side, place.price, place.count)
                    bench.maker.plan_sent(side, plan, at(now))
                for command in plan.commands:
                    if isinstance(command, Cancel):
                        gone = next(o for o in bench.orders if o.client_order_id == command.client_order_id)
                        gone.state = OrderState.DONE
                        bench.maker.plan_sent(side, plan, at(now))
        if decision.exit is not None:
            assert not working
            assert not bench.state.is_flat
            assert decision.exit.side is bench.state.exit_side
            assert decision.exit.count == bench.state.size
        if decision.wake_at is not None:
            assert decision.wake_at >= at(now)

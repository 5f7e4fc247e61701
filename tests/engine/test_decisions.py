"""The journal of decisions: what a market maker was told is enough to make it decide the same again."""

import inspect
import random
from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest

from mm.domain.commands import Cancel, Decrease, FlattenReason, Place
from mm.domain.errors import BookOutOfSync
from mm.domain.fill import Trade, TradeId
from mm.domain.grid import uniform_grid
from mm.domain.inventory import InventoryState
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import ClientOrderId, MarketTicker, Order, OrderId, OrderState, Side, TimeInForce
from mm.engine.decisions.codec import NotPlain, pack, unpack
from mm.engine.decisions.journal import DecisionJournal, JournalledBook, JournalledMaker
from mm.engine.decisions.lines import Encoder
from mm.engine.decisions.player import BadEntry, Difference, Player
from mm.engine.mark import Touch
from mm.engine.parameters import StrategyParameters
from mm.engine.quoter import MarketMaker
from mm.engine.strategies.avellaneda_stoikov import AvellanedaStoikov
from mm.engine.strategies.base import Strategy
from mm.engine.strategies.blocks import sibling_consensus
from mm.engine.strategies.hybrid import Hybrid
from mm.engine.strategies.join import Join
from mm.engine.strategies.slow_wide_small import SlowWideSmall
from mm.engine.strategies.view import Sibling

BID, ASK = Side.BID, Side.ASK
T0 = Micros(1_790_000_000 * SECOND)
ROOM = Count(10**6)


@attrs.define(eq=False)
class Life:
    """One market's life by chance: books, prints, fills, holds, and a desk that does what is asked."""

    seed: int
    sink: DecisionJournal = attrs.field(factory=DecisionJournal)
    strategy: Strategy = attrs.field(factory=Hybrid)
    nets_event: bool = False
    ticker: MarketTicker = MarketTicker("KXNHLGAME-26SEP21TORBOS-TOR")
    chance: random.Random = attrs.field(init=False)
    inventory: InventoryState = attrs.field(factory=InventoryState)
    orders: list[Order] = attrs.field(factory=list)
    book: JournalledBook = attrs.field(factory=JournalledBook)
    maker: JournalledMaker = attrs.field(init=False)
    now: Micros = T0
    made: int = 0
    decisions: list[Any] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.maker = JournalledMaker(
            sink=self.sink,
            market=Market(
                ticker=self.ticker,
                event_ticker=self.ticker.rpartition("-")[0],
                status=MarketStatus.ACTIVE,
                grid=uniform_grid(CENT),
            ),
            parameters=StrategyParameters(),
            book=self.book,
            inventory=lambda: self.inventory,
            orders=lambda: list(self.orders),
            market_room=lambda side, price: Count(ROOM - self.made - price),
            price_bound=lambda side: Price(9_000) if side is BID else None,
            event_inventory=(lambda: self.inventory.copy()) if self.nets_event else None,
            strategy=self.strategy,
        )
        self.maker.context.siblings = self.siblings
        self.snapshot()

    def snapshot(self) -> None:
        bid = self.chance.randrange(2_000, 6_000, 100)
        ask = bid + self.chance.randrange(100, 900, 100)
        sizes = [Count(self.chance.randrange(100, 5_000)) for _ in range(6)]
        self.book.snapshot(
            [(Price(bid - 100 * n), sizes[n]) for n in range(3)],
            [(Price(ask + 100 * n), sizes[3 + n]) for n in range(3)],
        )

    def siblings(self) -> list[Sibling]:
        ticker = MarketTicker(self.ticker.replace("-TOR", "-BOS"))
        return [Sibling(ticker=ticker, touch=Touch(Price(4_000 + self.made % 500), Price(4_700)))]

    def tell(self) -> None:
        self.maker.context.goal_ticks = self.chance.randrange(3)
        self.maker.context.external = (Price(self.chance.randrange(3_000, 7_000)), self.now)
        self.maker.guard_ticks = self.chance.randrange(2)

    def delta(self) -> None:
        side = self.chance.choice((BID, ASK))
        levels = self.book.bids if side is BID else self.book.asks
        if not levels or not self.book.is_synced:
            self.snapshot()
            return
        price = self.chance.choice(sorted(levels))
        change = self.chance.randrange(-levels[price], 3_000)
        try:
            self.book.apply_delta(side, price, Count(change))
        except BookOutOfSync:
            return

    def trade(self) -> None:
        self.made += 1
        self.maker.on_trade(
            Trade(
                trade_id=TradeId(f"t{self.made}"),
                ticker=self.ticker,
                price=Price(self.chance.randrange(2_000, 7_000, 100)),
                count=Count(self.chance.randrange(100, 900)),
                taker_side=self.chance.choice((BID, ASK)),
                ts=self.now,
            )
        )

    def fill(self) -> None:
        if not self.orders:
            return
        order = self.chance.choice(self.orders)
        count = Count(self.chance.randrange(1, order.leaves + 1))
        order.filled = Count(order.filled + count)
        self.inventory.apply(order.side, order.price, count, Money(self.chance.randrange(100)), self.now)
        if not order.leaves:
            self.orders.remove(order)
        self.maker.on_fill()

    def hold(self) -> None:
        if self.maker.holds:
            self.maker.holds.clear()
        else:
            self.maker.holds["feed"] = "feed is down"

    def status(self) -> None:
        status = self.chance.choice((MarketStatus.ACTIVE, MarketStatus.INACTIVE))
        self.maker.market = attrs.evolve(self.maker.market, status=status)

    def flatten(self) -> None:
        self.maker.flatten(FlattenReason.PORTFOLIO_MAE)

    def decide(self) -> None:
        decision = self.maker.decide(self.now)
        self.decisions.append(decision)
        if decision.exit is not None:
            self.maker.exit_sent(self.now)
            if self.chance.random() < 0.3:
                self.maker.exit_refused()
            else:
                exit_ = decision.exit
                self.inventory.apply(exit_.side, exit_.price, exit_.count, Money(7), self.now)
                self.maker.on_fill()
        for side in (BID, ASK):
            plan = decision.plan(side)
            if not plan.commands:
                continue
            self.maker.plan_sent(side, plan, self.now)
            for command in plan.commands:
                self.obey(command)

    def obey(self, command: Any) -> None:
        known = {order.client_order_id: order for order in self.orders}
        if isinstance(command, Place):
            self.made += 1
            self.orders.append(
                Order(
                    client_order_id=ClientOrderId(f"mm-s-{self.made}"),
                    ticker=self.ticker,
                    side=command.side,
                    price=command.price,
                    count=command.count,
                    time_in_force=TimeInForce.GTC,
                    state=OrderState.RESTING,
                    order_id=OrderId(f"o{self.made}"),
                    created_at=self.now,
                )
            )
        elif isinstance(command, Cancel):
            self.orders.remove(known[command.client_order_id])
        elif isinstance(command, Decrease):
            order = known[command.client_order_id]
            order.count = Count(order.filled + command.leaves)
        else:
            order = known[command.client_order_id]
            order.price, order.count = command.price, Count(order.filled + command.leaves)

    def live(self, steps: int) -> None:
        acts: list[tuple[Callable[[], None], int]] = [
            (self.delta, 30),
            (self.trade, 10),
            (self.fill, 6),
            (self.snapshot, 2),
            (self.hold, 1),
            (self.status, 1),
            (self.flatten, 1),
            (self.tell, 1),
            (self.book.mark_out_of_sync, 1),
            (self.decide, 40),
        ]
        for act in self.chance.choices([a for a, _ in acts], [w for _, w in acts], k=steps):
            self.now = Micros(self.now + self.chance.randrange(1, SECOND))
            act()


def as_read(entries: list[Any]) -> list[Any]:
    """Through JSON and back, as a file would give them."""
    encode = Encoder()
    return [orjson.loads(orjson.dumps(encode(entry))) for entry in entries]


def play(entries: list[Any], **options: Any) -> Player:
    player = Player(**options)
    for entry in entries:
        player.play(entry)
    return player


STRATEGIES = [
    Hybrid(),
    Hybrid(fair_value=sibling_consensus),
    SlowWideSmall(),
    AvellanedaStoikov(jitter=Price(100)),
    Join(),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_what_was_noted_decides_the_same_again(seed: int, strategy: Strategy) -> None:
    """A thousand steps of a market: every decision, and the state at a later checkpoint, come out the same."""
    life = Life(seed, strategy=strategy, nets_event=seed % 2 == 1)
    life.live(600)
    entries = as_read(life.sink.take(new_epoch=True))
    life.live(400)
    player = play([*entries, *as_read(life.sink.take())])
    assert player.differences == []
    assert player.decisions == len(life.decisions) > 300
    assert player.commands > 5
    assert player.checkpoints == 1


def test_journalling_changes_no_decision() -> None:
    """The same life with the journal switched off decides the same."""
    noted, plain = Life(5), Life(5, DecisionJournal(is_on=False))
    noted.live(800)
    plain.live(800)
    assert noted.decisions == plain.decisions
    assert plain.sink.entries == []


def test_a_part_that_begins_with_checkpoints_can_be_played_alone() -> None:
    """What was noted after a new epoch does not need what came before."""
    life = Life(3)
    life.live(500)
    life.sink.take(new_epoch=True)
    before = len(life.decisions)
    life.live(500)
    player = play(as_read(life.sink.take()))
    assert player.differences == []
    assert player.decisions == len(life.decisions) - before


def test_another_parameter_shows_the_first_difference() -> None:
    """Market, time, field and both values of the first decision that is not the same."""
    life = Life(4)
    life.live(300)

    def wider(parameters: StrategyParameters) -> StrategyParameters:
        return attrs.evolve(parameters, base_spread=Price(200))

    player = play(as_read(life.sink.take()), change=wider)
    assert len(player.differences) == 1
    found = player.differences[0]
    assert found.ticker == life.ticker
    assert T0 < found.at <= life.now
    assert found.field.startswith("wanted.")
    assert found.recorded != found.replayed


def test_another_parameter_that_changes_nothing_is_no_difference() -> None:
    """Not even at a later checkpoint, where the recorded state holds the recorded parameter."""
    life = Life(4)
    life.live(200)
    entries = as_read(life.sink.take(new_epoch=True))
    life.live(200)

    def same_in_effect(parameters: StrategyParameters) -> StrategyParameters:
        return attrs.evolve(parameters, max_markets_to_trade=17)

    player = play([*entries, *as_read(life.sink.take())], change=same_in_effect)
    assert player.differences == []
    assert player.checkpoints == 1


def test_a_changed_code_path_shows_the_first_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that answers otherwise today is found where it first matters."""
    life = Life(6)
    life.live(300)
    entries = as_read(life.sink.take())
    monkeypatch.setattr("mm.engine.quoter.may_quote", lambda *_: "not today")
    found = play(entries).differences[0]
    assert isinstance(found, Difference)
    assert (found.field, found.replayed) in {
        ("decision.reason", "not today"),
        ("wanted.bid", None),
        ("wanted.ask", None),
    }


def test_an_exception_then_is_an_exception_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that raised is played to the same exception; code that does not raise any more is a difference."""
    life = Life(7)
    life.live(200)
    with monkeypatch.context() as patch:
        patch.setattr("mm.engine.quoter.plan_side", _explode)
        with pytest.raises(ZeroDivisionError):
            life.decide()
        entries = as_read(life.sink.take())
        assert entries[-1][0] == "raised"
        assert play(entries[-1:]).unplayed == 1
    healed = play(entries)
    assert healed.differences[0].field == "raised"
    assert healed.differences[0].recorded == "ZeroDivisionError: planted"


def _explode(*_: object, **__: object) -> None:
    raise ZeroDivisionError("planted")


def test_parameters_set_from_outside_begin_a_new_checkpoint() -> None:
    """Settings read anew while the bot runs: replay follows, nothing differs."""
    life = Life(8)
    life.live(200)
    life.maker.parameters = attrs.evolve(life.maker.parameters, base_spread=Price(300))
    life.maker.policy.parameters = life.maker.parameters
    life.live(200)
    entries = as_read(life.sink.take())
    assert [e[2] for e in entries if e[0] == "checkpoint"] == [[], ["parameters"]]
    assert play(entries).differences == []


def test_too_much_that_waits_is_dropped_counted_and_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the entries: memory stays bounded, the gap is told, and what follows can be played."""
    monkeypatch.setattr("mm.engine.decisions.journal.MAX_ENTRIES", 200)
    life = Life(9)
    life.live(1_000)
    assert life.sink.lost > 0
    assert len(life.sink.entries) <= 200
    player = play(as_read(life.sink.take()))
    assert player.differences == []
    assert player.lost > 0
    assert player.lost % 200 == 0
    assert player.decisions > 0


def test_what_cannot_be_noted_ends_the_journal_and_not_the_market() -> None:
    """A value of a foreign class in a maker's state: the market decides on, the journal says why it ended."""
    life = Life(10)
    title: Any = object()
    life.maker.market = attrs.evolve(life.maker.market, title=title)
    life.live(100)
    assert life.decisions
    assert not life.sink.is_on
    assert "title: a object cannot be journalled" in life.sink.problem


def test_every_method_that_moves_a_maker_is_journalled() -> None:
    """A new public method must either be noted or be listed here as one that changes nothing a decision sees."""
    only_reads = {"sees", "take_triggers", "ruled"}
    public = {
        name
        for name, member in inspect.getmembers(MarketMaker, inspect.isfunction)
        if not name.startswith("_")
    }
    assert public - only_reads <= set(vars(JournalledMaker))


def test_entries_that_are_none_are_told() -> None:
    """Garbage in a journal is an error with its reason, not a traceback."""
    player = Player()
    for entry in (["decide"], ["what", 1], ["checkpoint", 1, [], {"state": {}}], ["gap", 0, "x"]):
        with pytest.raises(BadEntry):
            player.play(entry)


def test_plain_data_names_only_what_is_ours() -> None:
    """A journal from elsewhere cannot make us import or run anything but values of the engine and the domain."""
    for data in (
        {"$c": "subprocess:Popen", "args": "x"},
        {"$f": "os:system"},
        {"$f": "mm.tasks.desk:OrderDesk"},
        {"$c": "mm.domain.order:Order.apply.__globals__"},
        {"$e": ["builtins:object", "x"]},
        {"$c": "mm.domain.order:Order", "nonsense": 1},
        {"$c": "mm.domain.order:next_state"},
        {"$z": 1},
    ):
        with pytest.raises(NotPlain):
            unpack(data)
    with pytest.raises(NotPlain):
        pack(lambda: None)


def test_plain_data_is_exact() -> None:
    """Integers beyond 64 bits, fractions, enums, objects with private fields: equal after JSON."""
    inventory = InventoryState()
    inventory.apply(BID, Price(4_500), Count(700_000), Money(13), T0)
    back = unpack(orjson.loads(orjson.dumps(pack(inventory))))
    assert pack(back) == pack(inventory)
    assert back.duration_weighted_exposure(Micros(T0 + 5)) == 700_000 * 5
    parameters = StrategyParameters()
    assert unpack(orjson.loads(orjson.dumps(pack(parameters)))) == parameters

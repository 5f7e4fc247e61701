"""Random lives of an exchange, beside a slow model that does everything the obvious way.

The model keeps one list of resting orders, sorts it anew for every match, and computes cash and collateral from all
fills and orders from scratch. Both must tell the same: refusals, trades, queues, positions, cash, group fences.
"""

import random

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm.domain.fees import FeeAccumulator, FeeSchedule, model_fee
from mm.domain.fill import Liquidity
from mm.domain.numbers import SECOND, ceil_div
from mm.domain.order import SelfTradePrevention, Side, TimeInForce
from mm.exchange.embedded.core.events import BookDelta, FillReported
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import AmendRequest, EventSpec, MarketSpec, OrderRequest, SeriesSpec
from mm.exchange.embedded.core.rules import Refused, Rules

MARKETS = ("E-A", "E-B")
MEMBERS = ("ann", "bob")
USERS = (*MEMBERS, "house", "home")
DOLLAR = 10_000
FEES = FeeSchedule()


# --- the obvious model -----------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Slow:
    """One order of the model."""

    number: int
    user: str
    ticker: str
    side: str
    price: int
    remaining: int
    tif: str
    stp: str
    post_only: bool
    flagged: bool
    group: int | None
    expires_at: int | None
    arrival: int
    filled: int = 0
    fees: FeeAccumulator = attrs.field(factory=FeeAccumulator)

    def priority(self):
        return (-self.price if self.side == "bid" else self.price, self.arrival)


class No(Exception):
    """The model refuses."""


@attrs.define(eq=False)
class Model:
    """Everything from scratch, every time."""

    deposit: int
    is_exclusive: bool
    now: int = 0
    resting: list = attrs.field(factory=list)
    trades: list = attrs.field(factory=list)
    fills: list = attrs.field(factory=list)
    groups: list = attrs.field(factory=list)  # [user, limit, [(ts, count)], triggered]
    arrivals: int = 0
    accepted: list = attrs.field(factory=list)
    trading: bool = True
    halted: set = attrs.field(factory=set)

    def tick(self, now):
        self.now = now
        self.resting = [o for o in self.resting if o.expires_at is None or o.expires_at > now]

    def check_open(self, ticker):
        if not self.trading or ticker in self.halted:
            raise No("trading_is_paused")

    def opposite(self, order):
        return sorted(
            (o for o in self.resting if o.ticker == order.ticker and o.side != order.side),
            key=Slow.priority,
        )

    @staticmethod
    def meets(order, other):
        return order.price >= other.price if order.side == "bid" else order.price <= other.price

    def position(self, user, ticker):
        return sum(f[3] for f in self.fills if f[:2] == (user, ticker))

    def create(self, order, reduce_only):
        self.check_open(order.ticker)
        if order.group is not None and self.groups[order.group][3]:
            raise No("order_group_triggered")
        wanted = order.remaining
        if reduce_only:
            held = self.position(order.user, order.ticker)
            closable = max(held, 0) if order.side == "ask" else max(-held, 0)
            order.remaining = min(order.remaining, closable)
        met = [o for o in self.opposite(order) if self.meets(order, o)]
        if order.post_only and met:
            raise No("invalid_order")
        if order.tif == "fok":
            there = 0
            for other in met:
                if other.user == order.user:
                    if order.stp == "taker":
                        break
                    continue
                there += other.remaining
            if there < wanted:
                raise No("fill_or_kill_insufficient_resting_volume")
        order.number = len(self.accepted)
        self.accepted.append(order)
        return self.run(order)

    def run(self, order):
        before, stopped = order.filled, False
        for other in self.opposite(order):
            if not order.remaining or not self.meets(order, other):
                break
            if other.user == order.user:
                if order.stp == "taker":
                    stopped = True
                    break
                self.resting.remove(other)
                continue
            self.trade(order, other)
        if order.tif != "gtc" or stopped:
            order.remaining = 0
        if order.remaining:
            self.arrivals += 1
            order.arrival = self.arrivals
            self.resting.append(order)
        answer = (order.filled - before, order.remaining)
        self.act()
        return answer

    def trade(self, taker, maker):
        count = min(taker.remaining, maker.remaining)
        self.trades.append((taker.ticker, maker.price, count, taker.side))
        for order, liquidity in ((maker, Liquidity.MAKER), (taker, Liquidity.TAKER)):
            order.remaining -= count
            order.filled += count
            fee = 0
            if order.user in MEMBERS:
                side = Side(order.side)
                fee = order.fees.charge(FEES, side, maker.price, count, liquidity).charged
            signed = count if order.side == "bid" else -count
            self.fills.append((order.user, order.ticker, maker.price, signed, fee))
            if order.group is not None:
                self.groups[order.group][2].append((self.now, count))
        if not maker.remaining:
            self.resting.remove(maker)

    def act(self):
        for number, group in enumerate(self.groups):
            inside = sum(count for ts, count in group[2] if ts > self.now - 15 * SECOND)
            if inside > group[1] and not group[3]:
                self.trigger(number)

    def trigger(self, number):
        self.groups[number][3] = True
        self.resting = [o for o in self.resting if o.group != number]

    def find(self, number):
        order = self.accepted[number]
        if order not in self.resting:
            raise No("not_found")
        return order

    def amend(self, number, price, total):
        order = self.find(number)
        self.check_open(order.ticker)
        if total <= order.filled:
            raise No("invalid_parameters")
        remaining = total - order.filled
        if price == order.price and remaining <= order.remaining:
            order.remaining = remaining
            return (0, remaining)
        probe = attrs.evolve(order, price=price)
        if order.post_only and any(self.meets(probe, o) for o in self.opposite(order)):
            raise No("invalid_order")
        self.resting.remove(order)
        order.price, order.remaining = price, remaining
        return self.run(order)

    def decrease(self, number, by):
        order = self.find(number)
        self.check_open(order.ticker)
        order.remaining = max(order.remaining - by, 0)
        if not order.remaining:
            self.resting.remove(order)
        return (0, order.remaining)

    def cancel(self, number):
        self.resting.remove(self.find(number))
        return (0, 0)

    def queue(self, ticker, side):
        return [
            (o.number, o.price, o.remaining)
            for o in sorted(self.resting, key=Slow.priority)
            if (o.ticker, o.side) == (ticker, side)
        ]

    def cash(self, user):
        flows = [-price * signed - fee for who, _, price, signed, fee in self.fills if who == user]
        return self.deposit + sum(flows)

    def available(self, user):
        held = {ticker: self.position(user, ticker) for ticker in MARKETS}
        shorts = [max(-held[ticker], 0) for ticker in MARKETS]
        lock = DOLLAR * (max(shorts) if self.is_exclusive else sum(shorts))
        reserved = 0
        for ticker in MARKETS:
            other = next(t for t in MARKETS if t != ticker)
            freed = max(-held[ticker] - (max(-held[other], 0) if self.is_exclusive else 0), 0)
            for side, cover in (("ask", max(held[ticker], 0)), ("bid", freed)):
                for _, price, remaining in self.queue_of(user, ticker, side):
                    covered = min(cover, remaining)
                    cover -= covered
                    reserved += reserve(side, price, remaining - covered)
        return self.cash(user) - lock - reserved

    def queue_of(self, user, ticker, side):
        mine = {o.number for o in self.resting if o.user == user}
        return [row for row in self.queue(ticker, side) if row[0] in mine]


def reserve(side, price, count):
    """What a resting order holds back: its cost, the maker fee rounded up to 0.0001, and that unit once more."""
    if not count:
        return 0
    leg = price if side == "bid" else DOLLAR - price
    fee = ceil_div(175 * count * price * (DOLLAR - price), 10**4 * 10**6) * 100
    assert fee == model_fee(FEES.rate(Liquidity.MAKER), price, count, 100)
    return leg * count + fee + 100


# --- the pair --------------------------------------------------------------------------------------------------------

TIFS = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC, "fok": TimeInForce.FOK}
STPS = {"taker": SelfTradePrevention.TAKER, "maker": SelfTradePrevention.MAKER}


class Pair:
    """The core and the model, given the same calls."""

    def __init__(self, deposit, is_exclusive):
        self.now = 1_000 * SECOND
        self.events = []
        self.mirror = {}
        self.deposit = deposit
        self.model = Model(deposit, is_exclusive, self.now)
        self.ids = []
        self.group_ids = []
        self.core = ExchangeCore(Rules(), UuidSource(1), self.events.append)
        self.core.add_series(self.now, SeriesSpec(ticker="S"))
        event = EventSpec(ticker="E", series_ticker="S", is_mutually_exclusive=is_exclusive)
        self.core.add_event(self.now, event)
        for ticker in MARKETS:
            spec = MarketSpec(
                ticker=ticker, event_ticker="E", open_time=self.now, close_time=self.now + 10**6 * SECOND
            )
            self.core.add_market(self.now, spec)
        for user in USERS:
            self.core.add_user(user, is_house=user not in MEMBERS)
        for user in MEMBERS:
            self.core.deposit(self.now, user, 0, deposit)
            group = self.core.create_group(self.now, user, contracts_limit=300)
            self.group_ids.append(group.group_id)
            self.model.groups.append([user, 300, [], False])

    def create(
        self, user, ticker, side, price, count, tif, stp, post_only, reduce_only, in_group, expiry, flagged
    ):
        post_only = post_only and tif == "gtc"
        reduce_only = reduce_only and tif == "ioc"
        group = MEMBERS.index(user) if in_group and user in MEMBERS else None
        expires_at = self.now + expiry * SECOND if expiry and tif == "gtc" else None
        request = OrderRequest(
            ticker=ticker,
            side=Side(side),
            count=count,
            price=price,
            time_in_force=TIFS[tif],
            self_trade_prevention=STPS[stp],
            expires_at=expires_at,
            post_only=post_only,
            reduce_only=reduce_only,
            cancel_on_pause=flagged,
            group_id=None if group is None else self.group_ids[group],
        )

        def in_core():
            result = self.core.create(self.now, user, request)
            self.ids.append((user, result.order_id))
            return (result.fill_count, result.remaining_count)

        def in_model():
            order = Slow(
                0, user, ticker, side, price, count, tif, stp, post_only, flagged, group, expires_at, 0
            )
            return self.model.create(order, reduce_only)

        return in_core, in_model

    def on_order(self, kind, pick, price, count):
        if not self.ids:
            return (lambda: None), (lambda: None)
        number = max(len(self.ids) - 1 - pick, 0)  # counted from the newest, which is likelier to rest
        user, order_id = self.ids[number]
        slow = self.model.accepted[number]
        if kind == "amend":
            request = AmendRequest(ticker=slow.ticker, side=Side(slow.side), price=price, count=count)
            core = lambda: self.core.amend(self.now, user, order_id, request)  # noqa: E731
            model = lambda: self.model.amend(number, price, count)  # noqa: E731
        elif kind == "decrease":
            core = lambda: self.core.decrease(self.now, user, order_id, reduce_by=count)  # noqa: E731
            model = lambda: self.model.decrease(number, count)  # noqa: E731
        else:
            core = lambda: self.core.cancel(self.now, user, order_id)  # noqa: E731
            model = lambda: self.model.cancel(number)  # noqa: E731

        def in_core():
            result = core()
            return (result.fill_count, result.remaining_count)

        return in_core, model

    def switch(self, what, which):
        core, model, now = self.core, self.model, self.now
        ticker = MARKETS[which % 2]
        if what == "wait":
            self.now += (1 + which % 9) * SECOND
            core.advance(self.now)
            model.tick(self.now)
        elif what == "trigger":
            core.trigger_group(now, MEMBERS[which % 2], self.group_ids[which % 2])
            model.trigger(which % 2)
        elif what == "reset":
            core.reset_group(now, MEMBERS[which % 2], self.group_ids[which % 2])
            model.groups[which % 2][2:] = [[], False]
        elif what == "cancel_all":
            core.cancel_all(now, MEMBERS[which % 2])
            model.resting = [o for o in model.resting if o.user != MEMBERS[which % 2]]
        elif what == "pause":
            core.set_trading_active(now, 0, False)
            if model.trading:
                model.resting = [o for o in model.resting if not o.flagged]
            model.trading = False
        elif what == "halt" and ticker not in model.halted:
            core.deactivate(now, ticker)
            model.halted.add(ticker)
            model.resting = [o for o in model.resting if o.ticker != ticker or not o.flagged]
        elif what == "resume":
            core.set_trading_active(now, 0, True)
            model.trading = True
            for ticker in sorted(model.halted):
                core.activate(now, ticker)
                model.resting = [o for o in model.resting if o.ticker != ticker]
            model.halted.clear()

    def check_core(self):
        """What must hold whatever happened: conservation, no crossed book, deltas that add up to the books."""
        users = self.core.users()
        for event in self.events:
            if isinstance(event, BookDelta):
                level = (event.ticker, event.side, event.price)
                self.mirror[level] = self.mirror.get(level, 0) + event.change
                assert self.mirror[level] >= 0
        self.events.clear()
        for ticker, market in self.core.markets().items():
            bid, ask = market.best_bid, market.best_ask
            assert bid is None or ask is None or bid < ask
            for side in Side:
                depth = dict(market.book.side(side).depth())
                mirrored = {
                    level[2]: n for level, n in self.mirror.items() if level[:2] == (ticker, side) and n
                }
                assert depth == mirrored
            held = [users[m].holdings[ticker].position for m in MEMBERS if ticker in users[m].holdings]
            held += [users[h].house_positions.get(ticker, 0) for h in ("house", "home")]
            assert sum(held) == 0
            assert market.open_interest * 2 == sum(map(abs, held))
        cash = sum(users[m].cash[0] for m in MEMBERS) + sum(users[h].house_cash for h in ("house", "home"))
        fees = sum(p.fees_paid for m in MEMBERS for p in self.core.positions(m, is_settled=None))
        assert cash + fees == self.deposit * len(MEMBERS)
        for member in MEMBERS:
            assert self.core.balances(member)[0].reserved >= 0

    def check_same(self):
        """The core tells what the model tells."""
        model = self.model
        printed = [
            (t.ticker, t.price, t.count, t.taker_side.value) for t in self.core.trades(limit=10**6).items
        ]
        assert printed[::-1] == model.trades
        number = {order_id: n for n, (_, order_id) in enumerate(self.ids)}
        for ticker, market in self.core.markets().items():
            for side in Side:
                queue = [(number[o.order_id], o.price, o.remaining) for o in market.book.side(side).orders()]
                assert queue == model.queue(ticker, side.value)
        for n, member in enumerate(MEMBERS):
            user = self.core.users()[member]
            assert user.cash[0] == model.cash(member)
            assert user.available(0) == model.available(member)
            held = {p.ticker: p.position for p in self.core.positions(member)}
            assert held == {t: model.position(member, t) for t in held}
            group = self.core.group(member, self.group_ids[n])
            assert group is not None
            assert group.is_triggered == model.groups[n][3]

    def settle(self, values):
        for ticker, value in zip(MARKETS, values, strict=True):
            self.core.determine(self.now, ticker, value)
        self.now += 60 * SECOND
        self.core.advance(self.now)


def _outcome(call):
    try:
        return call()
    except Refused as refused:
        return refused.code
    except No as refused:
        return str(refused)


USERS_DRAWN = ["ann", "ann", *USERS]
PRICES = [3000, 4000, 5000, 5000, 6000]
COUNTS = [37, 50, 100, 100, 150, 200]
TIFS_DRAWN = ["gtc", "gtc", "gtc", "gtc", "ioc", "ioc", "fok"]
RARELY = [False, False, False, True]
CREATE = (
    ["create"],
    USERS_DRAWN,
    MARKETS,
    ["bid", "ask"],
    PRICES,
    COUNTS,
    TIFS_DRAWN,
    ["taker", "maker"],
    RARELY,  # post only
    RARELY,  # reduce only
    [False, True],  # in the user's group
    [None, None, 3, 12],  # expiry, seconds
    RARELY,  # cancel on pause
)
ON_ORDER = (["amend", "amend", "decrease", "cancel"], range(7), PRICES, COUNTS)
QUIET = ["wait", "wait", "wait", "resume", "reset"]
SWITCH = ([*QUIET, *QUIET, "trigger", "cancel_all", "pause", "halt"], range(21))
STEPS = (CREATE, CREATE, CREATE, CREATE, ON_ORDER, ON_ORDER, SWITCH)


def _seeded_life(seed):
    """Evenly spread over all steps, which hypothesis' own draws are not; they in turn shrink."""
    draw = random.Random(seed)
    return [tuple(draw.choice(field) for field in draw.choice(STEPS)) for _ in range(120)]


DRAWN_LIVES = st.lists(
    st.one_of(*(st.tuples(*(st.sampled_from(field) for field in step)) for step in STEPS)), max_size=60
)
LIVES = st.one_of(DRAWN_LIVES, st.integers(0, 2**32).map(_seeded_life))


def _calls(pair, step):
    if step[0] == "create":
        return pair.create(*step[1:])
    return pair.on_order(*step)


@given(life=LIVES, is_exclusive=st.booleans())
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_core_equals_the_slow_model(life, is_exclusive):
    """With plenty of cash: the same refusals, trades, queues, cash and fences after every step."""
    pair = Pair(10**13, is_exclusive)
    for step in life:
        if step[0] in ("create", "amend", "decrease", "cancel"):
            in_core, in_model = _calls(pair, step)
            assert _outcome(in_core) == _outcome(in_model)
        else:
            pair.switch(*step)
        pair.check_same()
        pair.check_core()


@given(
    life=LIVES,
    is_exclusive=st.booleans(),
    values=st.sampled_from([(10_000, 0), (0, 10_000), (5_000, 5_000), (0, 0), (3_333, 6_667)]),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_with_little_cash_nobody_owes_and_nothing_is_lost(life, is_exclusive, values):
    """2 dollars each: refusals and margin cancels happen; the balance never falls below the rounding of one fee,
    and after the settlement the cash of all, with the fees, is what was paid in."""
    pair = Pair(2 * 10**6, is_exclusive)
    fills = 0
    for step in life:
        if step[0] in ("create", "amend", "decrease", "cancel"):
            in_core, _ = _calls(pair, step)
            _outcome(in_core)
            while len(pair.model.accepted) < len(
                pair.ids
            ):  # the model only remembers what an amend must name
                _, ticker, side = step[1:4]
                slow = Slow(0, "", ticker, side, 0, 0, "", "", False, False, None, None, 0)
                pair.model.accepted.append(slow)
        else:
            pair.switch(*step)
        fills += sum(isinstance(event, FillReported) for event in pair.events)
        pair.check_core()
        for member in MEMBERS:
            assert pair.core.users()[member].available(0) >= -100 * (fills + 1)
    pair.settle(values)
    pair.check_core()
    for member in MEMBERS:
        user = pair.core.users()[member]
        assert user.locked[0] == 0
        assert user.cash[0] >= -100 * (fills + 1)
        assert {h.is_settled for h in user.holdings.values()} <= {True}

"""Limits over all markets: gross inventory, cross-market MAE, daily loss."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from mm.domain.numbers import SECOND, Count, Micros, Money
from mm.domain.order import MarketTicker, Side
from mm.engine.limits import DailyLoss, GlobalInventory, MarketExposure, PortfolioMae, PortfolioVerdict
from mm.engine.parameters import StrategyParameters, build_parameters

A, B, C = MarketTicker("A"), MarketTicker("B"), MarketTicker("C")


def exposure(net: int, bids: int = 0, asks: int = 0) -> MarketExposure:
    """In whole contracts."""
    return MarketExposure(Count(net * 100), Count(bids * 100), Count(asks * 100))


class TestGlobalInventory:
    def test_each_market_counts_at_its_worse_side(self) -> None:
        """Resting orders as if filled; both sides never at once."""
        assert exposure(10, bids=10, asks=10).worst == 2_000
        assert exposure(-5, bids=10, asks=10).worst == 1_500
        assert exposure(30, asks=10).worst == 3_000

    def test_room_is_what_the_others_leave(self) -> None:
        """Limit 100: 40 + 30 elsewhere leave 30 long from flat, 10 more when 20 are held."""
        inventory = GlobalInventory(Count(10_000))
        inventory.update(A, exposure(30, bids=10))
        inventory.update(B, exposure(-20, asks=10))

        assert inventory.total == 7_000
        assert inventory.room(C, Side.BID, Count(0)) == 3_000
        assert inventory.room(C, Side.BID, Count(2_000)) == 1_000
        assert inventory.room(C, Side.BID, Count(2_000), pending=Count(600)) == 400
        assert inventory.room(C, Side.ASK, Count(2_000)) == 5_000

    def test_what_closes_is_always_allowed(self) -> None:
        """Over the limit: nothing that adds, everything that reduces."""
        inventory = GlobalInventory(Count(1_000))
        inventory.update(A, exposure(30))
        inventory.update(B, exposure(-20))

        assert inventory.is_exceeded
        assert inventory.room(A, Side.BID, Count(3_000)) == 0
        assert inventory.room(A, Side.ASK, Count(3_000)) == 3_000
        assert inventory.room(B, Side.BID, Count(-2_000)) == 2_000

    def test_a_forgotten_market_gives_its_room_back(self) -> None:
        """Settled: gone from the sum."""
        inventory = GlobalInventory(Count(1_000))
        inventory.update(A, exposure(5))
        inventory.remove(A)
        inventory.remove(B)

        assert (inventory.total, inventory.room(B, Side.ASK, Count(0))) == (0, 1_000)

    @given(
        st.lists(
            st.tuples(st.sampled_from([A, B, C]), st.sampled_from(Side), st.integers(0, 40), st.booleans()),
            max_size=30,
        )
    )
    def test_orders_within_room_never_exceed_the_limit(
        self, asks: list[tuple[MarketTicker, Side, int, bool]]
    ) -> None:
        """Whatever is placed within its room, and whichever part of it fills: the gross position stays inside."""
        limit = Count(5_000)
        inventory = GlobalInventory(limit)
        net = dict.fromkeys([A, B, C], 0)
        working: dict[tuple[MarketTicker, Side], int] = {}
        for ticker, side, contracts, fills in asks:
            pending = working.get((ticker, side), 0)
            allowed = inventory.room(ticker, side, Count(net[ticker]), Count(pending))
            size = min(contracts * 100, allowed)
            if fills:
                net[ticker] += side.sign * size
            else:
                working[ticker, side] = pending + size
            inventory.update(
                ticker,
                MarketExposure(
                    Count(net[ticker]),
                    Count(working.get((ticker, Side.BID), 0)),
                    Count(working.get((ticker, Side.ASK), 0)),
                ),
            )

            assert inventory.total <= limit
            assert sum(abs(x) for x in net.values()) <= limit


def dollars(value: float) -> Money:
    return Money(round(value * 1_000_000))


class TestPortfolioMae:
    def look(self, monitor: PortfolioMae, seconds: float, **values: float) -> PortfolioVerdict:
        """One look at markets of 10 contracts each with this adverse excursion in dollars."""
        positions = {MarketTicker(t): (Count(1_000), dollars(v)) for t, v in values.items()}
        return monitor.observe(positions, Micros(round(seconds * SECOND)))

    def test_trips_after_the_window_and_names_the_worst_first(self) -> None:
        """50 dollars for 8 s without a break; just enough markets to come below 25."""
        monitor = PortfolioMae(StrategyParameters())
        first = self.look(monitor, 0, A=10, B=25, C=15)

        assert (first.total, first.is_tripped, first.flatten) == (dollars(50), False, ())
        assert monitor.next_deadline() == 8 * SECOND
        assert not self.look(monitor, 7.9, A=10, B=25, C=15).is_tripped
        tripped = self.look(monitor, 8, A=10, B=25, C=15)
        assert (tripped.just_tripped, tripped.flatten) == (True, ("B", "C"))
        assert [row.ticker for row in tripped.table] == ["B", "C", "A"]

    def test_holds_until_below_half(self) -> None:
        """Exactly half still holds, and goes on flattening; below it is over."""
        monitor = PortfolioMae(StrategyParameters())
        self.look(monitor, 0, A=60)
        self.look(monitor, 8, A=60)

        half = self.look(monitor, 9, A=20, B=5)
        below = self.look(monitor, 10, A=19, B=5)

        assert (half.is_tripped, half.just_tripped, half.flatten) == (True, False, ("A",))
        assert (below.is_tripped, below.flatten) == (False, ())

    def test_a_break_restarts_the_window(self) -> None:
        """One look below the limit and the 8 s begin again."""
        monitor = PortfolioMae(StrategyParameters())
        for seconds, value in [(0, 60), (5, 49), (6, 60), (13.9, 60)]:
            assert not self.look(monitor, seconds, A=value).is_tripped

        assert self.look(monitor, 14, A=60).is_tripped

    def test_zero_is_off(self) -> None:
        """PORTFOLIO_MAE_LIMIT=0 never trips."""
        monitor = PortfolioMae(build_parameters({"PORTFOLIO_MAE_LIMIT": "0"}))
        self.look(monitor, 0, A=900)

        assert not self.look(monitor, 99, A=900).is_tripped


class TestDailyLoss:
    DAY = dt.date(2026, 10, 12)

    def test_is_hit_at_the_limit_and_stays_hit(self) -> None:
        """Counted from where the day began; a recovery does not lift it, the next day does."""
        loss = DailyLoss(dollars(20))
        assert not loss.observe(dollars(5), self.DAY)
        assert not loss.observe(dollars(-14.999999), self.DAY)

        assert loss.observe(dollars(-15), self.DAY)
        assert loss.observe(dollars(30), self.DAY)
        assert not loss.observe(dollars(30), self.DAY + dt.timedelta(1))

    def test_a_restart_goes_on_with_the_days_start(self) -> None:
        """The start of the day can be given, from the ledger."""
        loss = DailyLoss(dollars(20), day=self.DAY, start=dollars(5))

        assert loss.observe(dollars(-15), self.DAY)

    def test_off_by_default(self) -> None:
        """Without a limit no loss is too large."""
        assert not DailyLoss(StrategyParameters().daily_loss_limit).observe(dollars(-(10**6)), self.DAY)

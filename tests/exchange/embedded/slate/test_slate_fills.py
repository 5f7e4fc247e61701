"""A client that quotes like the default strategy gets filled, for real reasons, soon and often enough."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, SECOND, Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.domain.tickers import event_of, from_datetime
from mm.exchange.embedded.core.events import (
    FillReported,
    TradePrinted,
)
from mm.exchange.embedded.core.model import OrderRequest, OrderStatus
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.slate.generated import GeneratedSlate
from mm.exchange.embedded.slate.traders import Crowd

START = from_datetime(dt.datetime(2026, 11, 24, 22, 0, tzinfo=dt.UTC))
OpenSlate = Callable[..., tuple[Any, GeneratedSlate]]


class Quoter:
    """A client that quotes the busier market of each game as the default strategy does, reduced to its prices."""

    def __init__(self, venue: Any) -> None:
        self.venue = venue
        self.core = venue.core
        self.core.add_user("client")
        self.core.deposit(venue.now, "client", 0, Money(10_000_000_000))
        self.marks: dict[MarketTicker, int] = {}
        self.net: Counter[MarketTicker] = Counter()
        self.orders: dict[tuple[MarketTicker, Side], OrderId] = {}
        self.acted: dict[tuple[MarketTicker, Side], Micros] = defaultdict(lambda: Micros(0))
        self.fills: list[Micros] = []
        self.filled_in: list[MarketTicker] = []
        self.read = 0
        self.chosen: dict[str, MarketTicker] = {}

    def act(self) -> None:
        """Read what happened since the last look, then requote everywhere."""
        for event in self.venue.log[self.read :]:
            if isinstance(event, TradePrinted):
                old = self.marks.get(event.trade.ticker)
                price = event.trade.price * 100
                self.marks[event.trade.ticker] = price if old is None else (3 * price + 7 * old + 5) // 10
            elif isinstance(event, FillReported):
                self.net[event.fill.ticker] += event.fill.count * event.fill.side.sign
                self.fills.append(event.fill.ts)
                self.filled_in.append(event.fill.ticker)
        self.read = len(self.venue.log)
        for market in self.core.markets().values():
            self.chosen.setdefault(market.spec.event_ticker, market.ticker)
            rival = self.core.markets()[self.chosen[market.spec.event_ticker]]
            if market.volume > rival.volume and not self.fills and not self.orders:
                self.chosen[market.spec.event_ticker] = market.ticker
        for ticker in self.chosen.values():
            self.requote(ticker)

    def requote(self, ticker: MarketTicker) -> None:
        market = self.core.markets()[ticker]
        bid, ask, mark = market.best_bid, market.best_ask, self.marks.get(ticker)
        if market.status is not MarketStatus.ACTIVE:
            return
        for side in Side:
            wanted = None
            if bid is not None and ask is not None and mark is not None:
                middle = min(max(mark // 100, bid), ask)
                is_full = self.net[ticker] * side.sign >= 2000
                wanted = None if is_full or not 500 < middle < 9500 else middle - side.sign * CENT
            self.work(ticker, side, wanted, bid, ask)

    def work(
        self, ticker: MarketTicker, side: Side, wanted: int | None, bid: Price | None, ask: Price | None
    ) -> None:
        key = (ticker, side)
        order = self.core.order("client", self.orders[key]) if key in self.orders else None
        if order is not None and order.status is not OrderStatus.RESTING:
            del self.orders[key]
            order = None
        may_act = self.venue.now - self.acted[key] >= 300_000
        if order is not None and (wanted is None or (abs(wanted - order.price) >= CENT and may_act)):
            self.core.cancel(self.venue.now, "client", order.order_id)
            del self.orders[key]
            order = None
        if order is None and wanted is not None and may_act and bid is not None and ask is not None:
            price = (
                min(wanted // CENT * CENT, ask - CENT)
                if side is Side.BID
                else max(-(-wanted // CENT) * CENT, bid + CENT)
            )
            self.acted[key] = self.venue.now
            try:
                request = OrderRequest(
                    ticker=ticker, side=side, count=Count(1000), price=Price(price), post_only=True
                )
                self.orders[key] = self.core.create(self.venue.now, "client", request).order_id
            except Refused:
                return


def quote(venue: Any, slate: GeneratedSlate, seconds: float, until_fills: int) -> Quoter:
    """Let a quoter act ten times a second until it has its fills or time is up."""
    client = Quoter(venue)
    turns = 0

    def turn() -> bool:
        nonlocal turns
        turns += 1
        if turns % 20 == 0:
            client.act()
        return len(client.fills) >= until_fills

    venue.play(slate, seconds, each=turn)
    return client


class TestFills:
    def test_first_fill_within_a_minute(self, open_slate: OpenSlate) -> None:
        """Default first run (speed 10, 16 games): quotes everywhere, a fill within 60 s for at least 9 of 10 seeds."""
        waits = []
        for seed in range(10):
            venue, slate = open_slate(seed)
            begun = venue.now
            client = quote(venue, slate, 60, until_fills=1)
            waits.append((client.fills[0] - begun) / SECOND if client.fills else 60.0)

        assert sum(wait < 60 for wait in waits) >= 9

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_all_games_can_be_quoted_in_ten_seconds(self, open_slate: OpenSlate, seed: int) -> None:
        """Ten seconds after the start every game has had a quote of the client, on both sides or one."""
        venue, slate = open_slate(seed)

        client = quote(venue, slate, 10, until_fills=10_000)

        assert {event for event, ticker in client.chosen.items() if (ticker, Side.BID) in client.acted} == {
            game.listing.events[0].ticker for game in slate.games
        }

    def test_more_than_fifty_fills_in_two_minutes_at_speed_30(self, open_slate: OpenSlate) -> None:
        """With 16 quoted markets at speed 30."""
        venue, slate = open_slate(seed=5, speed=30.0)

        client = quote(venue, slate, 120, until_fills=51)

        assert len(client.fills) > 50

    def test_quiet_markets_trade_too(self, open_slate: OpenSlate) -> None:
        """Long after the last goal of its game, a quote is still hit: by takers who eat through the touch."""
        venue, slate = open_slate(seed=11, speed=10.0)
        news: dict[str, list[int]] = {}
        for game in slate.games:
            news[game.listing.events[0].ticker] = [
                game.start + int(event.at / slate.speed * SECOND)
                for event in game.fixture.script.events
                if event.kind.is_news
            ]

        client = quote(venue, slate, 40, until_fills=10_000)

        quiet = [
            at
            for at, ticker in zip(client.fills, client.filled_in, strict=True)
            if not any(-1 <= (at - goal) / SECOND <= 20 for goal in news[event_of(ticker)])
        ]
        assert len(quiet) > 10


class TestIntentions:
    def test_games_and_intentions_do_not_depend_on_clients(
        self, open_slate: OpenSlate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that trades changes what comes of intentions, never the games nor the intentions themselves."""
        taken: list[tuple[Micros, MarketTicker, object]] = []
        draw = Crowd._draw_taker

        def spy(crowd: Crowd) -> tuple[Side, Count, int, int]:
            intention = draw(crowd)
            taken.append((crowd.agenda.now, crowd.market.ticker, intention))
            return intention

        monkeypatch.setattr(Crowd, "_draw_taker", spy)
        plans = []
        traces = []
        for has_client in (False, True):
            taken.clear()
            venue, slate = open_slate(7, speed=20.0)
            if has_client:
                quote(venue, slate, 8, until_fills=10_000)
            else:
                venue.play(slate, 8)
            plans.append(([game.fixture.script.events for game in slate.games], list(taken)))
            traces.append(venue.trace())

        assert plans[0] == plans[1]
        assert len(plans[0][1]) > 300
        assert traces[0] != traces[1]

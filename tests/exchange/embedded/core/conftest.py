"""A small exchange to drive in tests: one exclusive game with two markets, two members, one house trader."""

import attrs
import pytest

from mm.domain.fees import PRECISION_DIRECT
from mm.domain.numbers import SECOND, parse_count, parse_money, parse_price
from mm.domain.order import Side
from mm.exchange.embedded.core.events import BookDelta, FillReported, OrderUpdated
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import AmendRequest, EventSpec, MarketSpec, OrderRequest, SeriesSpec
from mm.exchange.embedded.core.rules import Refused, Rules

START = 1_796_166_600 * SECOND
TOR, BOS = "KXNHLGAME-26DEC01TORBOS-TOR", "KXNHLGAME-26DEC01TORBOS-BOS"
EVENT = "KXNHLGAME-26DEC01TORBOS"


@attrs.define(eq=False)
class Venue:
    """The core with a clock that only moves when told, decimal strings in, and all events kept."""

    rules: Rules = attrs.field(factory=Rules)
    is_exclusive: bool = True
    precision: int = PRECISION_DIRECT
    series: SeriesSpec = attrs.field(factory=lambda: SeriesSpec(ticker="KXNHLGAME"))
    event_extra: dict = attrs.field(factory=dict)
    market_extra: dict = attrs.field(factory=dict)
    now: int = START
    events: list = attrs.field(factory=list)
    core: ExchangeCore = attrs.field(init=False)

    def __attrs_post_init__(self):
        self.core = ExchangeCore(self.rules, UuidSource(7), self.events.append)
        self.core.add_series(self.now, self.series)
        event = {"is_mutually_exclusive": self.is_exclusive} | self.event_extra
        self.core.add_event(self.now, EventSpec(ticker=EVENT, series_ticker=self.series.ticker, **event))
        market = {"open_time": self.now, "close_time": self.now + 10_000 * SECOND} | self.market_extra
        for ticker in (TOR, BOS):
            self.core.add_market(self.now, MarketSpec(ticker=ticker, event_ticker=EVENT, **market))
        for user in ("ann", "bob"):
            self.core.add_user(user, precision=self.precision)
            self.core.deposit(self.now, user, 0, parse_money("1000"))
        self.core.add_user("house", is_house=True)
        self.events.clear()

    def request(self, side, price, count, *, ticker=TOR, expires_in=None, **extra):
        if expires_in is not None:
            extra["expires_at"] = self.now + expires_in * SECOND
        return OrderRequest(
            ticker=ticker, side=Side(side), price=parse_price(price), count=parse_count(count), **extra
        )

    def place(self, user, side, price, count, **extra):
        return self.core.create(self.now, user, self.request(side, price, count, **extra))

    def amend(self, user, placed, price, count, *, side="bid", ticker=TOR, **extra):
        request = AmendRequest(
            ticker=ticker, side=Side(side), price=parse_price(price), count=parse_count(count), **extra
        )
        return self.core.amend(self.now, user, placed.order_id, request)

    def cancel(self, user, placed, **extra):
        return self.core.cancel(self.now, user, placed.order_id, **extra)

    def wait(self, seconds):
        self.now += round(seconds * SECOND)
        return self.core.advance(self.now)

    def refusal(self, call, *args, **kwargs):
        """The (status, code, details) of a call that must be refused, with nothing emitted."""
        before = len(self.events)
        with pytest.raises(Refused) as caught:
            call(*args, **kwargs)
        assert len(self.events) == before
        return caught.value.status, caught.value.code, caught.value.details

    def book(self, ticker=TOR):
        book = self.core.markets()[ticker].book
        return book.bids.depth(), book.asks.depth()

    def order(self, placed, user="ann"):
        return self.core.order(user, placed.order_id)

    def available(self, user="ann", shard=0):
        return self.core.users()[user].available(shard)

    def position(self, user="ann", ticker=TOR):
        return {p.ticker: p for p in self.core.positions(user, is_settled=None)}[ticker]

    def take_events(self):
        taken = self.events[:]
        self.events.clear()
        return taken

    def told(self):
        """The events since the last look, in short."""
        return [_short(event) for event in self.take_events()]


def _short(event):
    if isinstance(event, BookDelta):
        return ("delta", event.leg, event.leg_price, event.change, event.client_order_id)
    if isinstance(event, FillReported):
        return ("fill", event.fill.user_id, event.fill.count, event.fill.price, event.fill.post_position)
    if isinstance(event, OrderUpdated):
        reason = event.reason.value if event.reason else None
        return ("order", event.order.user_id, event.order.status.value, event.order.remaining, reason)
    return (type(event).__name__,)


@pytest.fixture
def make_venue():
    """Builds a venue with other rules or specs."""
    return Venue


@pytest.fixture
def venue():
    """A venue with the default rules."""
    return Venue()

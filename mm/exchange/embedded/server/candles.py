"""One-minute candles of every market, kept as the events come, and longer ones made of them."""

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Price
from mm.domain.order import MarketTicker
from mm.exchange.embedded.core.events import BookDelta, CoreEvent, TradePrinted
from mm.exchange.embedded.core.state import MarketState
from mm.exchange.embedded.server.wire import PRICE_TEXT, Json, count_text

MINUTE: Final = 60 * SECOND
KEPT: Final = 3_000
"""Minutes kept per market: two days."""


@attrs.define(eq=False)
class Span:
    """Open, low, high and close of one price over a period."""

    open: Price
    low: Price
    high: Price
    close: Price

    @classmethod
    def at(cls, price: Price) -> "Span":
        """A period that begins with this price."""
        return cls(price, price, price, price)

    def add(self, price: Price) -> None:
        """The price moved."""
        self.low = min(self.low, price)
        self.high = max(self.high, price)
        self.close = price

    def then(self, later: "Span") -> "Span":
        """This period and the next as one."""
        return Span(self.open, min(self.low, later.low), max(self.high, later.high), later.close)


@attrs.define(eq=False)
class Candle:
    """One minute of a market. An empty side reads 0 (bid) or 1 dollar (ask)."""

    end: Micros
    bid: Span
    ask: Span
    price: Span | None = None
    previous: Price | None = None
    volume: int = 0
    value: int = 0
    """Price x count of its trades: gives the mean."""
    open_interest: Count = Count(0)

    def then(self, later: "Candle") -> "Candle":
        """This candle and a later one as one."""
        if self.price is None or later.price is None:
            price = self.price or later.price
        else:
            price = self.price.then(later.price)
        return Candle(
            end=later.end,
            bid=self.bid.then(later.bid),
            ask=self.ask.then(later.ask),
            price=price,
            previous=self.previous,
            volume=self.volume + later.volume,
            value=self.value + later.value,
            open_interest=later.open_interest,
        )

    def as_json(self) -> Json:
        """As the wire has it."""
        price: Json = {}
        if self.price is not None:
            price = {
                **_ohlc(self.price),
                "mean_dollars": PRICE_TEXT[self.value // self.volume],
                "min_dollars": PRICE_TEXT[self.price.low],
                "max_dollars": PRICE_TEXT[self.price.high],
            }
        if self.previous is not None:
            price["previous_dollars"] = PRICE_TEXT[self.previous]
        return {
            "end_period_ts": self.end // SECOND,
            "yes_bid": _ohlc(self.bid),
            "yes_ask": _ohlc(self.ask),
            "price": price,
            "volume_fp": count_text(Count(self.volume)),
            "open_interest_fp": count_text(self.open_interest),
        }


def _ohlc(span: Span) -> Json:
    return {
        "open_dollars": PRICE_TEXT[span.open],
        "low_dollars": PRICE_TEXT[span.low],
        "high_dollars": PRICE_TEXT[span.high],
        "close_dollars": PRICE_TEXT[span.close],
    }


@attrs.define(eq=False)
class CandleRecorder:
    """Watches the core's events. `market_of` gives a market's present state."""

    market_of: Callable[[MarketTicker], MarketState]
    _candles: dict[MarketTicker, list[Candle]] = attrs.field(factory=dict)

    def observe(self, event: CoreEvent) -> None:
        """Take note of a change (a call per event of the core)."""
        if isinstance(event, BookDelta):
            market = self.market_of(event.ticker)
            candle = self._candle(market, event.ts)
            bid, ask = _top(market)
            if bid != candle.bid.close:
                candle.bid.add(bid)
            if ask != candle.ask.close:
                candle.ask.add(ask)
        elif isinstance(event, TradePrinted):
            trade = event.trade
            market = self.market_of(trade.ticker)
            candle = self._candle(market, trade.ts)
            if candle.price is None:
                candle.price = Span.at(trade.price)
            else:
                candle.price.add(trade.price)
            candle.volume += trade.count
            candle.value += trade.price * trade.count
            candle.open_interest = market.open_interest

    def _candle(self, market: MarketState, ts: Micros) -> Candle:
        kept = self._candles.setdefault(market.ticker, [])
        end = Micros((ts // MINUTE + 1) * MINUTE)
        if kept and kept[-1].end >= end:
            return kept[-1]
        if kept:
            last = kept[-1]
            bid, ask = last.bid.close, last.ask.close
            previous = last.previous if last.price is None else last.price.close
        else:
            bid, ask = _top(market)
            previous = None
        candle = Candle(
            end, Span.at(bid), Span.at(ask), previous=previous, open_interest=market.open_interest
        )
        kept.append(candle)
        if len(kept) > KEPT:
            del kept[: len(kept) - KEPT]
        return candle

    def between(
        self,
        ticker: MarketTicker,
        start: Micros,
        end: Micros,
        *,
        minutes: int,
        with_latest_before: bool = False,
    ) -> list[Candle]:
        """Candles of `minutes` minutes whose end lies in [start, end], oldest first; quiet periods are left out."""
        merged = _merge(self._candles.get(ticker, []), minutes * MINUTE)
        found = [candle for candle in merged if start <= candle.end <= end]
        if with_latest_before:
            before = [candle for candle in merged if candle.end < start]
            return before[-1:] + found
        return found


def _top(market: MarketState) -> tuple[Price, Price]:
    bid, ask = market.best_bid, market.best_ask
    return Price(0) if bid is None else bid, DOLLAR if ask is None else ask


def _merge(candles: Iterable[Candle], length: int) -> list[Candle]:
    merged: dict[int, Candle] = {}
    for candle in candles:
        end = -(-candle.end // length) * length
        earlier = merged.get(end)
        merged[end] = candle if earlier is None else earlier.then(candle)
    return [attrs.evolve(candle, end=Micros(end)) for end, candle in merged.items()]

"""Fill models: how a resting quote of ours is filled by what was recorded. All are paper's queue, turned one way.

| model | a quote is filled |
|---|---|
| `queue` | in its place: behind what was displayed when it came, less what traded or was cancelled ahead of it |
| `touch` | by anything that trades at its price, as if nobody stood before it: the optimistic bound |
| `through` | only by what trades through its price (or a book that moves to it): the pessimistic bound |
| `queue-share` | by a fixed share of each print at or through its price, as the old bot's back-test did |

Where a recording has no prints, a level that shrinks at the touch was eaten or cancelled: `queue` and `queue-share` take it as
eaten with the chance `trade_share`, `touch` always, `through` never. Where it has no depth, `UNKNOWN_SIZE` stands ahead.
"""

import enum
import random
from collections.abc import Iterable
from typing import Final

import attrs

from mm.domain.fill import Liquidity, Trade, TradeId
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.engine.backtest.queue_share import queue_share
from mm.engine.parameters import StrategyParameters
from mm.exchange.paper.matching import Execution, PaperMarket, PaperOrder
from mm.research.tape import UNKNOWN_SIZE, BookSource, TapeMarket

NOBODY_PASSES: Final = Count(10**15)
"""A queue that never ends."""
TRADE_SHARE: Final = 0.5
"""Of what shrinks at the touch, how much was traded; the rest was cancelled. Measured: 0.49 over the three Bitcoin recordings,
whose tickers tell the volume (docs/research.md)."""


class FillModel(enum.Enum):
    """The models by name."""

    QUEUE = "queue"
    TOUCH = "touch"
    THROUGH = "through"
    QUEUE_SHARE = "queue-share"


@attrs.define(eq=False, kw_only=True)
class ModelMarket(PaperMarket):
    """Paper's market under one of the models."""

    model: FillModel
    source: BookSource
    has_trades: bool
    parameters: StrategyParameters
    trade_share: float = TRADE_SHARE
    joined_behind: dict[OrderId, Count] = attrs.field(factory=dict)
    """What was displayed at an order's price when it came: its place in the queue."""
    chance: random.Random
    """Drawn from once for each decrease that may have been a trade, and for nothing else."""

    def touched_levels(self) -> list[tuple[Side, Price]]:
        """Levels of which we know more than is displayed: something was taken there, or traded or cut lately."""
        return [*self._taken, *self._tracks]

    def print_of(
        self, ticker: MarketTicker, price: Price, count: Count, bought: bool, ts: Micros, number: int
    ) -> Trade:
        """A recorded print as a `Trade`."""
        return Trade(
            trade_id=TradeId(f"{number:09d}"),
            ticker=ticker,
            price=price,
            count=count,
            taker_side=Side.BID if bought else Side.ASK,
            ts=ts,
        )

    def rest(self, order: PaperOrder) -> None:
        """See `PaperMarket`."""
        PaperMarket.rest(self, order)
        if self.source is BookSource.PRINTS:
            order.queue_ahead = UNKNOWN_SIZE
        self.joined_behind[order.order_id] = order.queue_ahead
        if self.model is FillModel.QUEUE:
            return
        if self.model is FillModel.THROUGH:
            order.queue_ahead = NOBODY_PASSES
        else:
            order.queue_ahead = Count(0)

    def snapshot(
        self, bids: Iterable[tuple[Price, Count]], asks: Iterable[tuple[Price, Count]]
    ) -> list[Execution]:
        """See `PaperMarket`. A book made from prints fills nobody: its prints have."""
        kept = [(order, order.queue_ahead) for order in self.resting()]
        if self.source is BookSource.PRINTS:
            self._taken.clear()
            self.book.snapshot(bids, asks)
            return []
        done = PaperMarket.snapshot(self, bids, asks)
        if self.model is FillModel.THROUGH:
            for order, ahead in kept:
                order.queue_ahead = ahead
        return done

    def delta(self, side: Side, price: Price, change: Count, now: Micros) -> list[Execution]:
        """See `PaperMarket`. Without recorded prints, what shrinks at the touch may have been a trade."""
        if change >= 0 or self.has_trades or self.model is FillModel.THROUGH:
            return PaperMarket.delta(self, side, price, change, now)
        best = self.book.best_bid if side is Side.BID else self.book.best_ask
        reached = price == best and any((o.price - price) * side.sign >= 0 for o in self.orders[side])
        is_trade = reached and (self.model is FillModel.TOUCH or self.chance.random() < self.trade_share)
        if not is_trade:
            return PaperMarket.delta(self, side, price, change, now)
        trade = Trade(
            trade_id=TradeId("inferred"),
            ticker=MarketTicker(""),
            price=price,
            count=Count(-change),
            taker_side=side.opposite,
            ts=now,
        )
        done = self.trade(trade, now)
        done += PaperMarket.delta(self, side, price, change, now)
        return done

    def trade(self, trade: Trade, now: Micros) -> list[Execution]:
        """See `PaperMarket`."""
        if self.model is not FillModel.QUEUE_SHARE:
            return PaperMarket.trade(self, trade, now)
        done: list[Execution] = []
        side = trade.taker_side.opposite
        for order in self.orders[side]:
            if (order.price - trade.price) * side.sign < 0:
                continue
            count = Count(min(order.remaining, queue_share(trade.count, self.parameters)))
            if count > 0:
                order.filled = Count(order.filled + count)
                order.remaining = Count(order.remaining - count)
                done.append(Execution(order, order.price, count, Liquidity.MAKER))
        self._drop_filled()
        return done

    def _decrease(self, side: Side, price: Price, change: int, before: Count, now: Micros) -> None:
        if self.model is FillModel.QUEUE:
            PaperMarket._decrease(self, side, price, change, before, now)

    def _explain(self, side: Side, trade: Trade, now: Micros) -> None:
        if self.model is FillModel.QUEUE:
            PaperMarket._explain(self, side, trade, now)


def model_market(
    model: FillModel, market: TapeMarket, parameters: StrategyParameters, trade_share: float, seed: str
) -> ModelMarket:
    """The exchange's side of one recorded market. The same seed gives the same fills."""
    return ModelMarket(
        model=model,
        source=market.source,
        has_trades=market.has_trades,
        parameters=parameters,
        trade_share=trade_share,
        chance=random.Random(f"{seed}/{market.ticker}"),  # noqa: S311 - repeatable on purpose
    )

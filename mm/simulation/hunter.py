"""Somebody who trades against the bot on purpose: hits its quotes at random moments, often just as they appear."""

from random import Random
from typing import Final

import attrs
import trio

from mm.domain.numbers import CONTRACT, Count
from mm.domain.order import TimeInForce
from mm.exchange.embedded.core.model import OrderRecord, OrderRequest
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.server.server import ExchangeServer
from mm.simulation.invariants import Watch
from mm.simulation.trouble import BotClock

HUNTER: Final = "hunter"
AT_ONCE: Final = 0.12
"""Chance that a fresh quote is attacked within milliseconds, while its answer is on the way."""


@attrs.define(eq=False, kw_only=True)
class Hunter:
    """A house member. `run` in a task of the world."""

    server: ExchangeServer
    watch: Watch
    clock: BotClock
    random: Random
    every_s: float
    attacks: int = 0
    _ambush: list[OrderRecord] = attrs.field(factory=list)
    _wake: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Attack for ever."""
        self.server.core.add_user(HUNTER, is_house=True)
        self.watch.on_quote = self._spotted
        while True:
            with trio.move_on_after(self.random.expovariate(1 / self.every_s)):
                await self._wake.wait()
                await trio.sleep(self.random.choice((0.0, 0.001, 0.01, 0.05)))
            self._wake = trio.Event()
            self.attack()

    def _spotted(self, order: OrderRecord) -> None:
        if self.random.random() < AT_ONCE:
            self._ambush.append(order)
            self._wake.set()

    def attack(self) -> None:
        """Take some or all of one of the bot's quotes, if it rests."""
        ambush, self._ambush = self._ambush, []
        targets = [o for o in ambush if o.order_id in self.watch.user.resting]
        targets = targets or [o for o in self.watch.user.resting.values() if self.watch.is_ours(o)]
        if not targets:
            return
        order = targets[self.random.randrange(len(targets))]
        count = self._count(order)
        if not count:
            return
        request = OrderRequest(
            ticker=order.ticker,
            side=order.side.opposite,
            count=count,
            price=order.price,
            time_in_force=TimeInForce.IOC,
        )
        try:
            self.server.core.create(self.clock.exchange(), HUNTER, request)  # type: ignore[arg-type]
        except Refused:
            return  # paused, or over: no trade then
        self.attacks += 1
        self.server.driver.batch_done()

    def _count(self, order: OrderRecord) -> Count:
        """Everything before it in the queue, and some of it."""
        state = self.server.core.markets()[order.ticker]
        levels = (state.book.bids if order.side.value == "bid" else state.book.asks).depth()
        better = sum(count for price, count in levels if (price - order.price) * order.side.sign >= 0)
        part = self.random.choice((37, CONTRACT, order.remaining // 2, order.remaining))
        return Count(max(0, better - order.remaining + min(part, order.remaining)))

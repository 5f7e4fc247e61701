"""Cash here against cash at the exchange, at the moments when it can be computed to the last digit.

The exchange tells what is *available*: cash less what open positions owe at worst and less what resting orders may
cost. What it sets aside for resting orders is not documented to the digit, so cash is compared only while nothing
rests: after the start-up sweep and after the exit sweep. Then

    available = paid in + cash flow of all fills and settlements - what open NO positions owe

and `paid in` (deposits less withdrawals) is the one thing that no fill tells. It is learned the first time; from then
on it may only change by a deposit or a withdrawal, so every change is told with both numbers.

One more thing the exchange does not tell: whether NO positions in several markets of one game owe together (a dollar
for each) or only the largest (as at most one team wins). Either is accepted; where that makes a difference and nothing
was learned yet, or one market of the game is settled already, nothing is compared, and the reason is logged.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from mm.domain.numbers import DOLLAR, Count, Money, format_money
from mm.domain.order import MarketTicker
from mm.exchange import endpoints
from mm.exchange.paging import read_all
from mm.exchange.port import Exchange, OrderReport, OrderStatus, Page
from mm.ledger import Ledger
from mm.tasks.budget import ReadBudget
from mm.tasks.positions import Positions

log = structlog.get_logger(__name__)

TRIES: Final = 4
TRY_AGAIN_S: Final = 1.0
"""Reads lag: a difference is believed when it has stood for `TRIES` of these."""
DIGIT: Final = Money(100)
"""The exchange tells balances in 0.0001 dollars, cut."""


@attrs.frozen(kw_only=True)
class CashMismatch:
    """Cash that nothing we know of explains."""

    balance: Money
    expected: Money

    def text(self) -> str:
        """Both numbers, and what it may be."""
        return (
            f"cash: the exchange says {format_money(self.balance)} dollars are available, our fills, fees and "
            f"settlements make {format_money(self.expected)}: a difference of "
            f"{format_money(Money(self.balance - self.expected))}. A deposit, a withdrawal, or money that we do not know of"
        )


def owed(positions: dict[MarketTicker, Count], *, is_netted: bool) -> Money:
    """What NO positions owe at worst: a dollar a contract; netted, a game's largest only."""
    by_event: dict[str, list[int]] = defaultdict(list)
    for ticker, net in positions.items():
        if net < 0:
            by_event[ticker.rpartition("-")[0]].append(-net)
    return Money(sum(DOLLAR * (max(shorts) if is_netted else sum(shorts)) for shorts in by_event.values()))


@attrs.define(eq=False, kw_only=True)
class CashCheck:
    """Compares cash. `check` may be called by anybody; it does nothing while anything rests."""

    exchange: Exchange
    ledger: Ledger
    reads: ReadBudget
    positions: Positions
    on_mismatch: Callable[[CashMismatch], None]
    why_not: str = ""
    """Why the last comparison was not made; empty when it was."""
    is_equal: bool | None = None
    """Result of the last comparison; None: none was made."""

    async def check(self) -> bool | None:
        """Compare; None when that cannot be done exactly now (`why_not`). Raises `ExchangeError`, `LedgerError`."""
        mismatch: CashMismatch | None = None
        for attempt in range(TRIES):
            if attempt:
                await trio.sleep(TRY_AGAIN_S)
            self.why_not = await self._why_not()
            if self.why_not:
                log.info("cash not compared", reason=self.why_not)
                return None
            mismatch = await self._compare(is_last=attempt == TRIES - 1)
            self.is_equal = mismatch is None
            if mismatch is None:
                return True
        assert mismatch is not None
        log.error("cash differs", balance=mismatch.balance, expected=mismatch.expected)
        self.on_mismatch(mismatch)
        return False

    async def _why_not(self) -> str:
        async def read(cursor: str | None) -> Page[OrderReport]:
            await self.reads.take(self.reads.limits.cost(*endpoints.ORDERS))
            return await self.exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor)

        resting = await read_all(read, what="resting orders")
        if resting:
            return f"{len(resting)} orders rest on the account"
        over = {ticker.rpartition("-")[0] for ticker in self.positions.settled}
        half = sorted(t for t, net in self._held().items() if net < 0 and t.rpartition("-")[0] in over)
        if half:
            return f"the other market of {half[0]} is settled, it is not"
        return ""

    async def _compare(self, *, is_last: bool) -> CashMismatch | None:
        await self.reads.take(self.reads.limits.cost(*endpoints.BALANCE))
        balance = (await self.exchange.balance()).total
        flow = await self.ledger.cash_flow()
        held = self._held()
        expected = {
            Money(flow - owed(held, is_netted=True)): "netted",
            Money(flow - owed(held, is_netted=False)): "each",
        }
        last = await self.ledger.last_unexplained()
        if last is None:
            if len(expected) > 1:
                self.why_not = "whether NO positions of one game are netted is not known yet"
                log.info("cash not compared", reason=self.why_not)
                return None
            (only,) = expected
            self.ledger.record_balance(balance=balance, expected=only, unexplained=Money(balance - only))
            return None
        for each in expected:
            if abs(balance - each - last) < DIGIT:
                self.ledger.record_balance(balance=balance, expected=Money(each + last), unexplained=last)
                return None
        best = min(expected, key=lambda each: abs(balance - each - last))
        if is_last:
            # Told once: from now on it belongs to what was paid in.
            self.ledger.record_balance(
                balance=balance, expected=Money(best + last), unexplained=Money(balance - best)
            )
        return CashMismatch(balance=balance, expected=Money(best + last))

    def _held(self) -> dict[MarketTicker, Count]:
        return {t: h.state.net for t, h in self.positions.histories.items() if not h.state.is_flat}

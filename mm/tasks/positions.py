"""Every market's inventory, moved by fills alone, each fill once.

A fill counts in memory the moment it is seen (risk must not wait for a disk) and is queued for the ledger, which is
the truth: what memory had forgotten, the ledger's unique key catches, and the market is rebuilt from it.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs
import structlog

from mm.domain.errors import InvariantError
from mm.domain.fill import Fill, TradeId
from mm.domain.inventory import HistoryTooShort, InventoryHistory, InventoryState
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId

log = structlog.get_logger(__name__)

REMEMBERED_FILLS: Final = 50_000
_FLAT: Final = InventoryState()


@attrs.define(eq=False)
class Positions:
    """Inventories by market. Plain calls, made in the trio thread."""

    on_new_fill: Callable[[Fill], None] = lambda fill: None
    """Told of each new fill, after the inventory moved."""
    histories: dict[MarketTicker, InventoryHistory] = attrs.field(factory=dict)
    settled: dict[MarketTicker, Price] = attrs.field(factory=dict)
    """Markets that were settled while this session ran, and what one YES paid."""
    to_rebuild: set[MarketTicker] = attrs.field(factory=set)
    """Markets whose inventory must be read anew from the ledger."""
    settled_pnl: Money = Money(0)
    """Realized net result of markets settled and forgotten in this session."""
    _seen: "OrderedDict[tuple[OrderId, TradeId], None]" = attrs.field(factory=OrderedDict)
    fills: int = 0
    contracts: Count = Count(0)
    fees: Money = Money(0)

    def inventory(self, ticker: MarketTicker) -> InventoryState:
        """The inventory of a market; an empty one when nothing was ever traded there."""
        history = self.histories.get(ticker)
        return history.state if history is not None else _FLAT

    def net(self, ticker: MarketTicker) -> Count:
        """Signed position."""
        return self.inventory(ticker).net

    def load(self, fill: Fill) -> None:
        """A fill from the ledger, at start."""
        self._remember(fill)
        self._book(fill)

    def apply(self, fill: Fill) -> bool:
        """A fill from the socket or a poll: books it if it is new and returns whether it was."""
        if fill.key in self._seen:
            return False
        self._remember(fill)
        self._book(fill)
        self.fills += 1
        self.contracts = Count(self.contracts + fill.count)
        self.fees = Money(self.fees + fill.fee)
        self.on_new_fill(fill)
        return True

    def take_back(self, fill: Fill) -> None:
        """The ledger knew this fill before: memory counted it twice. The market must be rebuilt."""
        log.warning("fill was booked before", market=fill.ticker, trade_id=fill.trade_id)
        self.fills -= 1
        self.contracts = Count(self.contracts - fill.count)
        self.fees = Money(self.fees - fill.fee)
        self.to_rebuild.add(fill.ticker)

    def rebuilt(self, ticker: MarketTicker, fills: list[Fill]) -> None:
        """Replace a market's inventory by what the ledger holds."""
        before = self.net(ticker)
        # Fills that came while the ledger was read are in memory and not in `fills`: keep them.
        known = {fill.key for fill in fills}
        recent = self.histories[ticker].recent if ticker in self.histories else ()
        history = InventoryHistory.from_fills(fills + [f for f in recent if f.key not in known])
        if ticker in self.settled:
            history.settle(self.settled[ticker], Micros(0))
        self.histories[ticker] = history
        self.to_rebuild.discard(ticker)
        if history.state.net != before:
            log.warning(
                "position rebuilt from the ledger", market=ticker, before=before, now=history.state.net
            )

    def settle(self, ticker: MarketTicker, value: Price, ts: Micros) -> bool:
        """The market paid `value` a YES. False when it was settled here before, or never traded."""
        if ticker in self.settled or ticker not in self.histories:
            return False
        self.settled[ticker] = value
        self.histories[ticker].settle(value, ts)
        return True

    def realized(self) -> Money:
        """Realized result less all fees, over all markets in memory."""
        return Money(sum(h.state.realized_net for h in self.histories.values()))

    def _book(self, fill: Fill) -> None:
        if fill.ticker in self.settled:
            self.to_rebuild.add(fill.ticker)
            return
        history = self.histories.setdefault(fill.ticker, InventoryHistory())
        try:
            history.add(fill)
        except HistoryTooShort:
            # Older than memory reaches. The position must be right at once, the layers when the ledger has it.
            history.state.apply_fill(fill)
            self.to_rebuild.add(fill.ticker)

    def _remember(self, fill: Fill) -> None:
        self._seen[fill.key] = None
        while len(self._seen) > REMEMBERED_FILLS:
            self._seen.popitem(last=False)


def check_signs(positions: Positions) -> None:
    """A sanity rule that cannot fail unless books are corrupt: contracts held equal bought less sold."""
    for ticker, history in positions.histories.items():
        state = history.state
        if ticker not in positions.settled and state.bought - state.sold != state.net:
            raise InvariantError(f"{ticker}: bought {state.bought} - sold {state.sold} is not {state.net}")

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

REMEMBERED_FILLS: Final = 10_000
"""Ids kept in memory; beyond that the ledger decides what is a duplicate."""
_FLAT: Final = InventoryState()


@attrs.frozen(kw_only=True)
class Settled:
    """A market that is over: what one YES paid, when, and what the market brought us, net of fees."""

    value: Price
    at: Micros
    result: Money


@attrs.define(eq=False)
class Positions:
    """Inventories by market. Plain calls, made in the trio thread.

    Memory holds the open markets' layers and newest fills, one small value for each settled market, and a bounded
    number of seen ids: it does not grow with the number of fills.
    """

    on_new_fill: Callable[[Fill], None] = lambda fill: None
    """Told of each new fill, after the inventory moved."""
    histories: dict[MarketTicker, InventoryHistory] = attrs.field(factory=dict)
    """Every open market in which anything was ever traded."""
    settled: dict[MarketTicker, Settled] = attrs.field(factory=dict)
    """Markets that were settled while this session ran, or earlier and looked at again since."""
    settled_before: Money = Money(0)
    """Net result of all other settled markets that the ledger knows."""
    to_rebuild: set[MarketTicker] = attrs.field(factory=set)
    """Markets whose inventory must be read anew from the ledger."""
    _loose: dict[MarketTicker, list[Fill]] = attrs.field(factory=dict)
    """Fills that count in the position and have no place among the layers before the next rebuild."""
    _seen: "OrderedDict[tuple[OrderId, TradeId], None]" = attrs.field(factory=OrderedDict)
    fills: int = 0
    contracts: Count = Count(0)
    fees: Money = Money(0)

    def inventory(self, ticker: MarketTicker) -> InventoryState:
        """The inventory of a market; an empty one when nothing was ever traded there, or it was settled."""
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

    def rebuilt(self, ticker: MarketTicker, fills: list[Fill]) -> None:
        """Replace a market's inventory by what the ledger holds."""
        before = self.net(ticker)
        # Fills that came while the ledger was read are in memory and not in `fills`: keep them.
        known = {fill.key for fill in fills}
        recent = self.histories[ticker].recent if ticker in self.histories else ()
        missing = {f.key: f for f in (*recent, *self._loose.pop(ticker, ())) if f.key not in known}
        history = InventoryHistory.from_fills([*fills, *missing.values()])
        self.to_rebuild.discard(ticker)
        over = self.settled.get(ticker)
        if over is not None:
            self._close(ticker, history, over.value, over.at)
            return
        self.histories[ticker] = history
        if history.state.net != before:
            log.warning(
                "position rebuilt from the ledger", market=ticker, before=before, now=history.state.net
            )

    def settle(self, ticker: MarketTicker, value: Price, at: Micros) -> bool:
        """The market paid `value` a YES. False when that is known here, or we never traded it.

        A second settlement at another value (the venue amended it) makes the market's result be computed anew.
        """
        over = self.settled.get(ticker)
        if over is not None:
            if over.value == value:
                return False
            self.settled[ticker] = Settled(value=value, at=at, result=over.result)
            self.to_rebuild.add(ticker)
            return True
        history = self.histories.get(ticker)
        if history is None:
            return False
        if ticker in self.to_rebuild:
            self.settled[ticker] = Settled(value=value, at=at, result=history.state.realized_net)
            return True
        self._close(ticker, history, value, at)
        return True

    def settled_earlier(self, ticker: MarketTicker, fills: list[Fill], value: Price, at: Micros) -> None:
        """A market of `settled_before` is looked at again: from now on it has an entry of its own."""
        history = InventoryHistory.from_fills(fills)
        self._close(ticker, history, value, at)
        self.settled_before = Money(self.settled_before - self.settled[ticker].result)

    def realized(self) -> Money:
        """Realized result less all fees, over all markets that the ledger knows."""
        over = sum(market.result for market in self.settled.values())
        return Money(self.settled_before + over + sum(h.state.realized_net for h in self.histories.values()))

    def _close(self, ticker: MarketTicker, history: InventoryHistory, value: Price, at: Micros) -> None:
        history.settle(value, at)
        self.settled[ticker] = Settled(value=value, at=at, result=history.state.realized_net)
        self.histories.pop(ticker, None)

    def _book(self, fill: Fill) -> None:
        if fill.ticker in self.settled:
            self._put_aside(fill)
            return
        history = self.histories.setdefault(fill.ticker, InventoryHistory())
        if fill.ticker not in self.to_rebuild:
            try:
                history.add(fill)
            except HistoryTooShort:
                pass
            else:
                return
        # Older than memory reaches, or one of many of a market that is read anew in any case. The position must be
        # right at once, the layers when the ledger has it.
        history.state.apply_fill(fill)
        self._put_aside(fill)

    def _put_aside(self, fill: Fill) -> None:
        self._loose.setdefault(fill.ticker, []).append(fill)
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

"""One market of a run, and what whoever watches a run is told. How it moves is `loop`'s."""

import attrs

from mm.domain.commands import Command, FlattenReason
from mm.domain.fill import Fill
from mm.domain.numbers import Micros
from mm.domain.order import MarketTicker, Order, Side
from mm.engine.quoter import Decision, MarketMaker
from mm.research.fills import ModelMarket
from mm.research.tape import TapeMarket


class Watcher:
    """What wants to know of a run. Every method may be left as it is."""

    def on_time(self, now: Micros) -> None:
        """Everything up to and with the moment before `now` has happened."""

    def on_fill(self, room: "Room", fill: Fill) -> None:
        """A fill of ours, after the inventory moved."""

    def on_decision(self, room: "Room", decision: Decision, now: Micros) -> None:
        """The engine was asked."""

    def on_command(self, room: "Room", command: Command, now: Micros) -> None:
        """A command was sent."""

    def on_exit(self, room: "Room", order: Order, now: Micros) -> None:
        """An exit order was sent."""

    def on_trigger(self, ticker: MarketTicker, reason: FlattenReason, now: Micros) -> None:
        """A flatten began."""


@attrs.define(eq=False)
class Room:
    """One market of the run."""

    place: int
    info: TapeMarket
    paper: ModelMarket
    maker: MarketMaker
    busy: dict[Side, bool] = attrs.field(factory=lambda: {Side.BID: False, Side.ASK: False})
    is_exiting: bool = False
    wake_at: int = 0
    """When a wake stands in the heap; 0: none does."""
    holds_until: dict[str, Micros] = attrs.field(factory=dict)
    own_prices: frozenset[int] = frozenset()
    """Prices at which we know an order of ours: a change of size there may matter."""
    twice_mid: int | None = None
    """Twice the mid of the recorded book, as of the last finished read."""
    last_twice_mid: int | None = None
    """The last one that there was."""
    is_over: bool = False
    rows: int = 0

    @property
    def ticker(self) -> MarketTicker:
        """The market."""
        return self.info.ticker

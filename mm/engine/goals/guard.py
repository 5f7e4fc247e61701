"""One game's guard: watching, pulled, and the steps back.

    CLEAR --(tape or scoreboard says goal)--> PULLED --(settled, or long enough)--> WIDER, step by step --> CLEAR

Anything that looks like a goal while it is not clear starts it over. A regime (last minutes, overtime, final) may hold
the game pulled or wider by itself. A goal that the scoreboard tells within `_KNOWN_FOR` of what the tape told is the same.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from mm.domain.book import OrderBook
from mm.domain.fill import Trade
from mm.domain.game import GameState
from mm.domain.numbers import SECOND, Micros, Price
from mm.domain.order import MarketTicker, Order, OrderState, Side, TimeInForce
from mm.engine.goals.sport import RegimeAction, Sport, regime_of
from mm.engine.goals.tape import MarketTape
from mm.engine.strategies.view import Regime

_KNOWN_FOR: Final = Micros(90 * SECOND)
"""How much later than the tape a scoreboard may tell of a goal."""
USUAL_JUMP: Final = Price(980)
"""What a goal moves the mid by on average: 91 NHL goals."""


class Phase(enum.Enum):
    """Where the guard is."""

    CLEAR = "clear"
    PULLED = "pulled"
    WIDER = "wider"


@attrs.frozen(kw_only=True)
class Verdict:
    """What the game's quotes should do now."""

    is_pulled: bool = False
    ticks: int = 0
    """How much further out than usual."""
    reason: str = ""
    """In words, for people; empty when clear."""
    wake_at: Micros | None = None
    """Look again then, whatever happens."""


CLEAR: Final = Verdict()


@attrs.define(eq=False)
class GoalGuard:
    """The guard of one game, all its markets together."""

    sport: Sport
    phase: Phase = Phase.CLEAR
    reason: str = ""
    since: Micros = Micros(0)
    """When the present phase (or step) began."""
    goals_seen: int = 0
    """Times it pulled for what it saw."""
    confirmed: int = 0
    """Of these, told by the scoreboard afterwards."""
    game: GameState | None = None
    _step: int = 0
    _tapes: dict[MarketTicker, MarketTape] = attrs.field(factory=dict)
    _last_seen: Micros | None = None
    _is_confirmed: bool = True

    def tape(self, ticker: MarketTicker) -> MarketTape:
        """The tape of one of the game's markets."""
        found = self._tapes.get(ticker)
        if found is None:
            found = self._tapes[ticker] = MarketTape(self.sport)
        return found

    def forget(self, ticker: MarketTicker) -> None:
        """A market is not watched any more."""
        self._tapes.pop(ticker, None)

    @property
    def regime(self) -> Regime:
        """What the scoreboard says."""
        return regime_of(self.game, self.sport)

    # --- what happened ---

    def on_change(self, ticker: MarketTicker, side: Side, price: Price, change: int, now: Micros) -> None:
        """A level of one of the game's books changed."""
        self.tape(ticker).on_change(side, price, change, now)

    def on_trade(self, trade: Trade, now: Micros) -> None:
        """A public print."""
        self.tape(trade.ticker).on_trade(trade, now)

    def on_game(self, game: GameState, now: Micros) -> None:
        """The scoreboard was read."""
        before, self.game = self.game, game
        if before is None or game.score == before.score:
            return
        if self._last_seen is not None and now - self._last_seen <= _KNOWN_FOR and not self._is_confirmed:
            self._is_confirmed = True
            self.confirmed += 1
            return
        if sum(game.score) > sum(before.score):
            self._pull(f"goal: {game.home}-{game.away} on the scoreboard", now)
            self.confirmed += 1
            self._is_confirmed = True
        else:
            self._pull(f"goal taken back: {game.home}-{game.away} on the scoreboard", now)

    # --- what to do ---

    def look(self, books: Mapping[MarketTicker, OrderBook], now: Micros) -> Verdict:
        """Look at every tape that something was told to, and say what to do. Asking twice changes nothing."""
        for ticker, tape in self._tapes.items():
            book = books.get(ticker)
            if book is None or not (tape.is_changed or self.phase is Phase.PULLED):
                continue
            found = tape.look(book, now)
            if found:
                self._pull(f"{ticker}: {found}", now)
        self._advance(books, now)
        return self._verdict(now)

    def _pull(self, reason: str, now: Micros) -> None:
        if self.phase is not Phase.PULLED:
            self.reason, self.since = reason, now
            self._is_confirmed = False
            self.goals_seen += 1
        self._last_seen = now
        self.phase = Phase.PULLED

    def _advance(self, books: Mapping[MarketTicker, OrderBook], now: Micros) -> None:
        sport = self.sport
        if self.phase is Phase.PULLED:
            held = now - self.since
            if (held >= sport.pull and self._is_settled(books, now)) or held >= sport.longest_pull:
                self.phase, self._step, self.since = Phase.WIDER, 0, now
        while self.phase is Phase.WIDER and now - self.since >= sport.step:
            self._step += 1
            self.since = Micros(self.since + sport.step)
            if self._step >= len(sport.steps):
                self.phase, self.reason = Phase.CLEAR, ""
        if self.phase is Phase.WIDER and not sport.steps:
            self.phase, self.reason = Phase.CLEAR, ""

    def _is_settled(self, books: Mapping[MarketTicker, OrderBook], now: Micros) -> bool:
        for ticker, tape in self._tapes.items():
            book = books.get(ticker)
            if book is None or not book.is_synced or book.best_bid is None or book.best_ask is None:
                return False
            if book.best_ask - book.best_bid > self.sport.settled_spread:
                return False
            if now - tape.last_move < self.sport.settled:
                return False
        return True

    def _verdict(self, now: Micros) -> Verdict:
        regime = self.regime
        action = self.sport.regimes.get(regime, RegimeAction.QUOTE)
        if action is RegimeAction.PULL:
            return Verdict(
                is_pulled=True, reason=f"goal guard: {regime.value.replace('_', ' ')}", wake_at=None
            )
        if self.phase is Phase.PULLED:
            return Verdict(
                is_pulled=True, reason=f"goal guard: {self.reason}", wake_at=Micros(now + SECOND // 4)
            )
        ticks = self.sport.widen_ticks if action is RegimeAction.WIDEN else 0
        if self.phase is Phase.WIDER:
            ticks = max(ticks, self.sport.steps[self._step])
            return Verdict(ticks=ticks, reason=self.reason, wake_at=Micros(self.since + self.sport.step))
        return Verdict(ticks=ticks, reason=regime.value if ticks else "") if ticks else CLEAR


def value_at_risk(orders: Iterable[Order], mid: Price | None, jump: Price = USUAL_JUMP) -> int:
    """What resting quotes of a market give away when the mid jumps through them either way, in 1/1,000,000 dollar."""
    total = 0
    for order in orders:
        if order.state is OrderState.DONE or order.time_in_force is not TimeInForce.GTC:
            continue
        distance = 0 if mid is None else max(0, (mid - order.price) * order.side.sign)
        total += max(0, jump - distance) * order.leaves
    return total

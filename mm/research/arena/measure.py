"""What is noted of a night: fills with what the price did afterwards, goals with what stood there, money by game.

Values are honest ones: the chance that the game's spectators have, which the traders of the embedded exchange follow
with a mood and a lag. A position left at the end of the window is worth just that: its expected settlement.
"""

from typing import Any, Final

import attrs

from mm.domain.numbers import DOLLAR, SECOND, Micros, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.exchange.embedded.core.events import OrderUpdated
from mm.exchange.embedded.core.exchange import ExchangeCore
from mm.exchange.embedded.core.model import FillRecord, OrderStatus, Reason
from mm.exchange.embedded.slate.games import GameEventKind
from mm.exchange.embedded.slate.live import LiveGame

NEAR: Final = Micros(10 * SECOND)
"""So long after a goal its window lasts."""
NEAR_ENOUGH: Final = 100
"""A cent: opinions differ by so much at any time."""
HORIZONS: Final = (1, 5, 30, 300)
"""Seconds after a fill at which the book's mid is looked at again."""


@attrs.define(eq=False, kw_only=True)
class GoalNote:
    """One goal: what of ours was stale, and until when."""

    at: Micros
    fair: dict[MarketTicker, int] = attrs.field(factory=dict)
    """Where the market goes at once, by ticker: the honest value before, and what of its jump is made at once."""
    stale: dict[OrderId, int] = attrs.field(factory=dict)
    """Our resting orders on the wrong side of it by more than `NEAR_ENOUGH`, with their size."""
    gone_at: Micros | None = None
    """When the last of them was gone."""
    had: int = 0
    """How many there were, those placed within 10 s after the goal among them."""
    filled: int = 0
    """Of these, ended by a fill."""


@attrs.define(eq=False, kw_only=True)
class GameNote:
    """One game of the night."""

    game: LiveGame
    goals: list[GoalNote] = attrs.field(factory=list)
    cash: int = 0
    net: dict[MarketTicker, int] = attrs.field(factory=dict)
    fees: int = 0
    contracts: int = 0
    near_contracts: int = 0
    """Within 10 s after a goal."""
    near_result: int = 0
    """Of the fills within 10 s after goals, against the honest value of their moment, after fees."""
    exits: int = 0
    """Contracts with which we crossed the spread."""
    riskless: int = 0
    """The most that a taker could have made for certain against our resting quotes, fees left out."""
    marks: dict[int, list[int]] = attrs.field(factory=lambda: {h: [0, 0] for h in HORIZONS})
    """Horizon -> [twice the money against the mid then, contracts]."""


@attrs.define(eq=False, kw_only=True)
class Meter:
    """Watches one account of the core."""

    core: ExchangeCore
    user: str
    notes: list[GameNote] = attrs.field(factory=list)
    by_ticker: dict[MarketTicker, GameNote] = attrs.field(factory=dict)

    def follow(self, game: LiveGame) -> GameNote:
        """A game that was listed."""
        note = GameNote(game=game)
        self.notes.append(note)
        for line in game.listing.lines:
            self.by_ticker[line.ticker] = note
        return note

    def goals_ahead(self, note: GameNote, until: Micros) -> list[Micros]:
        """When goals will fall, up to a moment (wall clock)."""
        game = note.game
        moments = [
            Micros(game.start + int(event.at / game.tempo.speed * SECOND))
            for event in game.fixture.script.events
            if event.kind is GameEventKind.GOAL
        ]
        return [moment for moment in moments if self.began(game) <= moment <= until]

    def began(self, game: LiveGame) -> Micros:
        """When the game was listed."""
        return game.crowds[0].market.spec.open_time if game.crowds else game.start

    def honest(self, ticker: MarketTicker, now: Micros) -> int:
        """What one YES is worth to who knows the situation, in `Price`."""
        game = self.by_ticker[ticker].game
        situation = game.situation(now)
        for line in game.listing.lines:
            if line.ticker == ticker:
                return round(line.probability(game.fixture.script.strengths, situation) * DOLLAR)
        raise KeyError(ticker)

    # --- what happens ---

    def goal(self, note: GameNote, at: Micros) -> None:
        """A goal fell just now: which of our quotes does it make stale?"""
        found = GoalNote(at=at)
        note.goals.append(found)
        share = note.game.goals.jump_share
        for line in note.game.listing.lines:
            # A goal's time is cut to whole microseconds: just before and just after it.
            before, after = self.honest(line.ticker, Micros(at - 5)), self.honest(line.ticker, Micros(at + 5))
            found.fair[line.ticker] = round(before + share * (after - before))
        user = self.core.users()[self.user]
        for order in user.resting.values():
            if self.by_ticker.get(order.ticker) is note:
                self._judge(found, order.order_id, order.ticker, order.price, order.side, order.remaining)

    def _judge(
        self, goal: GoalNote, order_id: OrderId, ticker: MarketTicker, price: Price, side: Side, left: int
    ) -> None:
        if (price - goal.fair[ticker]) * side.sign > NEAR_ENOUGH:
            goal.had += order_id not in goal.stale
            goal.stale[order_id] = left

    def order(self, event: OrderUpdated, now: Micros) -> None:
        """One of our orders changed."""
        order = event.order
        note = self.by_ticker[order.ticker]
        if note.goals:
            goal = note.goals[-1]
            rests = order.status is OrderStatus.RESTING
            is_wrong = (order.price - goal.fair[order.ticker]) * order.side.sign > NEAR_ENOUGH
            if order.order_id in goal.stale and not (rests and is_wrong):
                del goal.stale[order.order_id]
                goal.filled += order.last_update_reason is Reason.TRADE
                if not goal.stale:
                    goal.gone_at = now
            elif rests and now - goal.at <= NEAR:
                self._judge(goal, order.order_id, order.ticker, order.price, order.side, order.remaining)
        self._look_for_free_money(note)

    def _look_for_free_money(self, note: GameNote) -> None:
        best: dict[Side, list[tuple[Price, int]]] = {Side.BID: [], Side.ASK: []}
        winners = [line.ticker for line in note.game.listing.lines][:2]
        resting = self.core.users()[self.user].resting.values()
        for side, found in best.items():
            for ticker in winners:
                mine = [o for o in resting if o.ticker == ticker and o.side is side]
                if mine:
                    top = max(mine, key=lambda o: o.price * o.side.sign)
                    found.append((top.price, top.remaining))
            if len(found) == len(winners):
                total = sum(price for price, _ in found)
                profit = (total - DOLLAR) * side.sign * min(size for _, size in found)
                note.riskless = max(note.riskless, profit)

    def fill(self, fill: FillRecord) -> None:
        """One of our fills, as the exchange booked it."""
        note = self.by_ticker[fill.ticker]
        signed = fill.count * fill.side.sign
        note.cash -= fill.price * signed + fill.fee
        note.net[fill.ticker] = note.net.get(fill.ticker, 0) + signed
        note.fees += fill.fee
        note.contracts += fill.count
        if fill.is_taker:
            note.exits += fill.count
        if note.goals and fill.ts - note.goals[-1].at <= NEAR:
            note.near_contracts += fill.count
            note.near_result += (self.honest(fill.ticker, fill.ts) - fill.price) * signed - fill.fee

    def mark(self, fill: FillRecord, horizon: int) -> None:
        """So long after a resting quote's fill: the book's mid now."""
        market = self.core.markets()[fill.ticker]
        if market.best_bid is None or market.best_ask is None:
            return
        found = self.by_ticker[fill.ticker].marks[horizon]
        found[0] += (market.best_bid + market.best_ask - 2 * fill.price) * fill.count * fill.side.sign
        found[1] += fill.count

    def results(self, now: Micros) -> list[dict[str, Any]]:
        """Each game in plain numbers: money in 1/1,000,000 dollar, counts in 1/100 contract, times in milliseconds."""
        found = []
        for note in self.notes:
            held = sum(net * self.honest(ticker, now) for ticker, net in note.net.items())
            found.append(
                {
                    "game": note.game.listing.events[0].ticker,
                    "pnl": note.cash + held,
                    "fees": note.fees,
                    "contracts": note.contracts,
                    "near_contracts": note.near_contracts,
                    "near_result": note.near_result,
                    "exits": note.exits,
                    "riskless": note.riskless,
                    "goals": [
                        {
                            "stale": goal.had,
                            "filled": goal.filled,
                            "gone_ms": None if goal.gone_at is None else (goal.gone_at - goal.at) // 1000,
                        }
                        for goal in note.goals
                    ],
                    "marks": {str(h): note.marks[h] for h in HORIZONS},
                }
            )
        return found

"""The goal guard at work: tells each game's guard what the feed and the scoreboard say, and holds or widens its quotes.

An object without tasks for the tape (`GoalKeeper`); the scoreboard is polled by `Scoreboard`. Pulled quotes are marked
first, those that would lose most at a goal before the others; the write scheduler sends their cancels before all else.
"""

from collections.abc import Callable, Mapping
from typing import Final

import attrs
import structlog
import trio

from mm.domain.fill import Trade
from mm.domain.game import GameState
from mm.domain.numbers import Micros, Price, round_half_up_div
from mm.domain.order import MarketTicker, Side
from mm.domain.tickers import event_of, series_of
from mm.engine.goals.guard import CLEAR, GoalGuard, Verdict, value_at_risk
from mm.engine.goals.sport import Sport
from mm.exchange import endpoints
from mm.exchange.port import AuthError, Exchange, ExchangeError
from mm.tasks.budget import ReadBudget
from mm.tasks.floor import Floor

log = structlog.get_logger(__name__)

POLL_S: Final = 5.0
"""Between two looks at the scoreboards."""
TICK_S: Final = 0.25
CAUSE: Final = "goal"
"""Under which the makers are held."""


@attrs.define(eq=False, kw_only=True)
class GoalKeeper:
    """All games' guards. Call `on_change` and `on_trade` as the feed tells, and `look` at the end of each read."""

    floor: Floor
    sports: Mapping[str, Sport]
    """By series ticker; games of other series are not guarded."""
    tell: Callable[[str, str], None] = lambda game, reason: None
    """A game's quotes were pulled for what was seen."""
    guards: dict[str, GoalGuard] = attrs.field(factory=dict)
    verdicts: dict[str, Verdict] = attrs.field(factory=dict)
    wake_at: Micros | None = None
    """When to look again, whatever happens."""
    _changed: dict[str, None] = attrs.field(factory=dict)

    def game_of(self, ticker: MarketTicker) -> str | None:
        """The game: its sport and its token (`nhl 26NOV24VGKMIN`), whatever the series; None for a sport not known."""
        sport = self.sports.get(series_of(ticker))
        return None if sport is None else f"{sport.name} {event_of(ticker).partition('-')[2]}"

    def guard_of(self, ticker: MarketTicker) -> GoalGuard | None:
        """The guard of the market's game; None where the sport is not known."""
        sport, game = self.sports.get(series_of(ticker)), self.game_of(ticker)
        if sport is None or game is None:
            return None
        found = self.guards.get(game)
        if found is None:
            found = self.guards[game] = GoalGuard(sport)
        return found

    def on_change(self, ticker: MarketTicker, side: Side, price: Price, change: int, now: Micros) -> None:
        """A level of a watched book changed."""
        guard = self._told(ticker)
        if guard is not None:
            guard.on_change(ticker, side, price, change, now)

    def on_trade(self, trade: Trade, now: Micros) -> None:
        """A public print of a watched market."""
        guard = self._told(trade.ticker)
        if guard is not None:
            guard.on_trade(trade, now)

    def on_game(self, ticker: MarketTicker, state: GameState, now: Micros) -> None:
        """The scoreboard of a market's game was read."""
        guard, game = self._told(ticker), self.game_of(ticker)
        if guard is None or game is None:
            return
        guard.on_game(state, now)
        for found in self._markets(game):
            context = self.floor.makers[found].context
            context.game, context.regime = state, guard.regime

    def _told(self, ticker: MarketTicker) -> GoalGuard | None:
        guard, game = self.guard_of(ticker), self.game_of(ticker)
        if game is not None:
            self._changed[game] = None
        return guard

    def on_snapshot(self, ticker: MarketTicker) -> None:
        """A whole book came: a market that was taken just now joins what its game does."""
        guard = self._told(ticker)
        if guard is not None:
            guard.tape(ticker).is_changed = True

    def forget_ended(self) -> None:
        """Games of which no market is quoted any more are forgotten."""
        for game in [game for game in self.guards if not self._markets(game)]:
            del self.guards[game]
            self.verdicts.pop(game, None)

    def look(self, now: Micros) -> None:
        """Judge every game that something was told of, or that has come due; hold, widen or free its quotes."""
        due = self.wake_at is not None and now >= self.wake_at
        if not self._changed and not due:
            return
        looked = list(self.guards) if due else [game for game in self._changed if game in self.guards]
        self._changed.clear()
        for game in looked:
            verdict = self.guards[game].look(self.floor.books, now)
            before = self.verdicts.get(game, CLEAR)
            self.verdicts[game] = verdict
            is_other = (verdict.is_pulled, verdict.ticks, verdict.reason) != (
                before.is_pulled,
                before.ticks,
                before.reason,
            )
            if is_other or not self._is_applied(game, verdict):
                self._apply(game, verdict, before)
        waiting = [v.wake_at for v in self.verdicts.values() if v.wake_at is not None]
        self.wake_at = min(waiting, default=None)

    def _is_applied(self, game: str, verdict: Verdict) -> bool:
        """Whether every market of the game does it already; one taken meanwhile does not."""
        makers = [self.floor.makers[ticker] for ticker in self._markets(game)]
        return all(
            (CAUSE in maker.holds) == verdict.is_pulled and maker.context.goal_ticks == verdict.ticks
            for maker in makers
        )

    def _markets(self, game: str) -> list[MarketTicker]:
        return [ticker for ticker in self.floor.makers if self.game_of(ticker) == game]

    def _apply(self, game: str, verdict: Verdict, before: Verdict) -> None:
        floor = self.floor
        tickers = sorted(self._markets(game), key=self._at_risk, reverse=True)
        for ticker in tickers:
            maker = floor.makers[ticker]
            maker.context.goal_ticks = verdict.ticks
            if verdict.is_pulled:
                maker.holds[CAUSE] = verdict.reason
            else:
                maker.holds.pop(CAUSE, None)
        rest = [ticker for ticker in floor.dirty if ticker not in tickers]
        floor.dirty = dict.fromkeys([*tickers, *rest])
        if verdict.is_pulled and not before.is_pulled:
            log.warning("goal guard: quotes pulled", game=game, reason=verdict.reason)
            self.tell(game, verdict.reason)
        elif before.is_pulled:
            log.info("goal guard: quotes back", game=game, ticks=verdict.ticks)

    def _at_risk(self, ticker: MarketTicker) -> int:
        book = self.floor.books.get(ticker)
        twice_mid = book.twice_mid if book is not None and book.is_synced else None
        mid = None if twice_mid is None else Price(round_half_up_div(twice_mid, 2))
        return value_at_risk(self.floor.orders(ticker), mid)


@attrs.define(eq=False, kw_only=True)
class Scoreboard:
    """Polls the venue's live data of every guarded game, and looks again when a verdict comes due by time alone."""

    keeper: GoalKeeper
    exchange: Exchange
    reads: ReadBudget
    clock: Callable[[], Micros]
    on_problem: Callable[[str, ExchangeError], None] = lambda what, exc: None
    problems: int = 0

    async def run(self) -> None:
        """Poll for ever; a game without a scoreboard is asked again. Raises `AuthError`. Leaves nothing behind."""
        while True:
            self.keeper.forget_ended()
            for event, ticker in self._events().items():
                await self._ask(event, ticker)
            await trio.sleep(POLL_S)

    async def watch_time(self) -> None:
        """Steps back come by time: look when one is due."""
        while True:
            due = self.keeper.wake_at
            now = self.clock()
            if due is not None and due <= now:
                self.keeper.look(now)
                self.keeper.floor.decide_dirty(now)
            await trio.sleep(TICK_S)

    def _events(self) -> dict[str, MarketTicker]:
        found: dict[str, MarketTicker] = {}
        for ticker in self.keeper.floor.makers:
            if self.keeper.guard_of(ticker) is not None:
                found.setdefault(event_of(ticker), ticker)
        return found

    async def _ask(self, event: str, ticker: MarketTicker) -> None:
        await self.reads.take(self.reads.limits.cost(*endpoints.EVENT_LIVE_DATA))
        try:
            state = await self.exchange.game(event)
        except AuthError:
            raise
        except ExchangeError as exc:
            self.problems += 1
            self.on_problem("live data", exc)
            return
        if state is not None and ticker in self.keeper.floor.makers:
            now = self.clock()
            self.keeper.on_game(ticker, attrs.evolve(state, seen_at=now), now)
            self.keeper.look(now)
            self.keeper.floor.decide_dirty(now)

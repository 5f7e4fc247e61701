"""One game while it is on: its script played at the exchange's speed, fair values of its markets, their end.

The game hands every market's crowd a fair value: the honest probability from the situation, plus the mood of the
public (a slow random walk around zero, opposite for the two teams), plus a little noise of the market's own, which
is what arbitrage between the two markets of a game lives on.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from mm.domain.numbers import CENT, CONTRACT, SECOND, Count, Micros
from mm.domain.order import Side
from mm.exchange.embedded.slate.agenda import Agenda
from mm.exchange.embedded.slate.games import GameEvent, GameEventKind, Phase, Situation, Team
from mm.exchange.embedded.slate.goals import PLAIN, GoalBehaviour
from mm.exchange.embedded.slate.listings import Kind, Line, Listing, incentive, live_details
from mm.exchange.embedded.slate.makers import ARBITRAGE, Floor
from mm.exchange.embedded.slate.schedule import Fixture, clock_text
from mm.exchange.embedded.slate.traders import NEWS_CENTS, Crowd

MOOD_CENTS: Final = 1.1
"""Standard deviation of the public's mood."""
MOOD_S: Final = 240.0
"""Game seconds in which it forgets."""
OWN_CENTS: Final = 0.3
"""Standard deviation of a market's own noise."""
ARBITRAGE_CENTS: Final = 1
"""What a pair must be out of line for someone to take both sides."""
ARBITRAGE_MOST: Final = Count(500 * CONTRACT)


@attrs.frozen(kw_only=True)
class Tempo:
    """How game time and wall time go together."""

    speed: float
    """Game seconds per wall second."""
    tick: Micros
    """Wall time between two looks at fair value."""

    def wall(self, game_s: float, least_s: float = 0.0) -> Micros:
        """A span of game time as wall time, at least `least_s` wall seconds."""
        return Micros(int(max(game_s / self.speed, least_s) * SECOND))

    def settlement_timer(self) -> Micros:
        """A minute of game time, in whole seconds, two at least."""
        return Micros(max(2, round(60 / self.speed)) * SECOND)


@attrs.define(eq=False, kw_only=True, repr=False)
class LiveGame:
    """A listed game. `begin` once, then the agenda drives it to its end; `on_finish` is called at the final siren."""

    fixture: Fixture
    listing: Listing
    tempo: Tempo
    floor: Floor
    agenda: Agenda
    rng: Random
    """The game's own stream: mood and delays."""
    on_finish: Callable[[Micros], None]
    start: Micros
    """Puck drop, wall clock."""
    crowds: list[Crowd] = attrs.field(factory=list)
    is_settling: bool = False
    ended: Micros | None = None
    """The final siren, wall clock."""
    goals: GoalBehaviour = PLAIN
    interest: float = 1.0
    """How much attention the game has; 1 is average play."""
    _next_event: int = 0
    _mood: float = 0.0
    _own: list[float] = attrs.field(factory=list)
    _unmoved: list[float] = attrs.field(factory=list)
    """What of past jumps each market has still to make: probability, signed."""

    def game_time(self, now: Micros) -> float:
        """Game seconds since puck drop at wall time `now`."""
        return (now - self.start) / SECOND * self.tempo.speed

    def situation(self, now: Micros) -> Situation:
        """The game at wall time `now`."""
        return self.fixture.script.situation(self.game_time(now))

    # --- from the listing to the end ---------------------------------------------------------------------------------

    def begin(self, now: Micros) -> None:
        """First books, and the agenda of the rest."""
        self._own = [0.0] * len(self.listing.lines)
        self._unmoved = [0.0] * len(self.listing.lines)
        situation = self.situation(now)
        self.interest = _interest(situation)
        for line, crowd in zip(self.listing.lines, self.crowds, strict=True):
            crowd.open(now, self._fair(line, 0.0, 0.0, situation))
        events = self.fixture.script.events
        at = self.game_time(now)
        while self._next_event < len(events) and events[self._next_event].at <= at:
            self._next_event += 1
        self._plan_event()
        self.agenda.at(now + int(self.rng.random() * self.tempo.tick), self._tick)

    def _plan_event(self) -> None:
        event = self.fixture.script.events[self._next_event]
        due = Micros(self.start + int(event.at / self.tempo.speed * SECOND))
        if event.kind.is_news:
            for crowd in self.crowds:
                crowd.expect_news(due)
        self.agenda.at(due, self._happen)

    def _happen(self, due: Micros) -> None:
        event = self.fixture.script.events[self._next_event]
        self._next_event += 1
        if event.kind.is_news and self.goals.jump_share < 1.0:
            self._hold_back(event)
        self._tell(due, event.after)
        if event.kind is GameEventKind.FINISH:
            self._finish(due)
        else:
            self._plan_event()

    def _hold_back(self, event: GameEvent) -> None:
        """Of the honest jump the market makes a part at once, and the rest in its own time."""
        script, share = self.fixture.script, 1.0 - self.goals.jump_share
        before = script.situation(event.at - 1e-6)
        for i, line in enumerate(self.listing.lines):
            jump = line.probability(script.strengths, event.after) - line.probability(
                script.strengths, before
            )
            self._unmoved[i] += share * jump

    def _finish(self, due: Micros) -> None:
        self.ended = due
        rng, tempo = self.rng, self.tempo
        close = due + tempo.wall(rng.uniform(15, 45), least_s=0.8)
        self.agenda.at(close, self._close)
        self.agenda.at(close + tempo.wall(rng.uniform(5, 20), least_s=0.5), self._determine)
        self.on_finish(due)

    def _close(self, due: Micros) -> None:
        del due
        for crowd in self.crowds:
            crowd.close()
            self.floor.close(crowd.market)

    def _determine(self, due: Micros) -> None:
        del due
        self.is_settling = True
        script = self.fixture.script
        for line, crowd in zip(self.listing.lines, self.crowds, strict=True):
            self.floor.determine(crowd.market, line.value(script.final, script.strengths))

    # --- fair values -------------------------------------------------------------------------------------------------

    def _fair(self, line: Line, own: float, unmoved: float, situation: Situation) -> float:
        """Cents: 0 or 100 when decided, else strictly between."""
        chance = line.probability(self.fixture.script.strengths, situation)
        if chance <= 0.0 or chance >= 1.0 or situation.phase is Phase.FINISHED:
            return 100.0 * round(chance)
        sign = -1.0 if line.team is Team.AWAY else 1.0
        # Opinions differ most where the game is open.
        weight = min(1.0, 5.0 * chance * (1.0 - chance))
        return min(max(100.0 * (chance - unmoved) + weight * (sign * self._mood + own), 0.15), 99.85)

    def _tell(self, due: Micros, situation: Situation) -> None:
        self.interest = _interest(situation)
        for i, (line, crowd) in enumerate(zip(self.listing.lines, self.crowds, strict=True)):
            fair = self._fair(line, self._own[i], self._unmoved[i], situation)
            if abs(fair - crowd.fair) >= NEWS_CENTS:
                crowd.news(due, fair)
            else:
                crowd.follow(due, fair)

    def _tick(self, due: Micros) -> None:
        if self.is_settling:
            return
        step = min(self.tempo.tick / SECOND * self.tempo.speed, MOOD_S)
        keep = math.exp(-step / MOOD_S)
        kick = math.sqrt(1.0 - keep * keep)
        rng = self.rng
        self._mood = self._mood * keep + rng.gauss(0.0, MOOD_CENTS) * kick
        self._own = [own * keep + rng.gauss(0.0, OWN_CENTS) * kick for own in self._own]
        fade = math.exp(-self.tempo.tick / SECOND / self.goals.rest_s)
        self._unmoved = [unmoved * fade for unmoved in self._unmoved]
        situation = self.fixture.script.situation(self.game_time(due))
        self.interest = _interest(situation)
        for i, (line, crowd) in enumerate(zip(self.listing.lines, self.crowds, strict=True)):
            crowd.follow(due, self._fair(line, self._own[i], self._unmoved[i], situation))
        self._arbitrage()
        self.agenda.at(max(due + self.tempo.tick, self.agenda.now - self.tempo.tick), self._tick)

    def _arbitrage(self) -> None:
        """Sell both teams where the bids sum to more than a dollar, buy both where the asks sum to less."""
        pair = [
            crowd
            for line, crowd in zip(self.listing.lines, self.crowds, strict=True)
            if line.kind is Kind.WINNER
        ]
        for side in (Side.ASK, Side.BID):
            levels = [crowd.market.book.side(side.opposite).best_level for crowd in pair]
            found = [level for level in levels if level is not None]
            if len(found) < 2:
                continue
            total = sum(level.price for level in found) // CENT
            out_of_line = total - 100 if side is Side.ASK else 100 - total
            if out_of_line >= ARBITRAGE_CENTS:
                count = Count(min(ARBITRAGE_MOST, *(level.total for level in found)))
                for crowd, level in zip(pair, found, strict=True):
                    self.floor.take(ARBITRAGE, crowd.market.ticker, side, level.price // CENT, count)

    # --- for the calendar --------------------------------------------------------------------------------------------

    def milestone(self) -> dict[str, object]:
        """The game in the calendar; its end is there once it has ended."""
        milestone = self.listing.milestone
        if self.ended is not None:
            milestone = attrs.evolve(milestone, end=self.ended, updated=self.ended)
        return milestone.wire()

    def live_data(self, now: Micros) -> dict[str, object]:
        """The live data object."""
        details = live_details(self.fixture.pairing, self.situation(now))
        return {"details": details, "milestone_id": self.listing.milestone.id, "type": "hockey_game"}

    def game_stats(self, now: Micros) -> dict[str, object]:
        """Play by play up to `now`, by period."""
        at = self.game_time(now)
        periods: dict[int, list[dict[str, object]]] = {}
        for event in self.fixture.script.events:
            if event.at <= at:
                periods.setdefault(max(event.after.period, 1), []).append(self._play(event))
        return {"pbp": {"periods": [{"events": plays} for _, plays in sorted(periods.items())]}}

    def incentive_programs(self, now: Micros) -> list[dict[str, object]]:
        """The liquidity programs of the winner markets: from the listing to the scheduled end, paid at settlement."""
        del now
        return [
            incentive(
                self.listing.milestone,
                line,
                crowd.market.market_id,
                is_paid=crowd.market.settled_at is not None,
            )
            for line, crowd in zip(self.listing.lines, self.crowds, strict=True)
            if line.kind is Kind.WINNER
        ]

    def _play(self, event: GameEvent) -> dict[str, object]:
        pairing = self.fixture.pairing
        club = None
        if event.team is not None:
            club = pairing.home if event.team is Team.HOME else pairing.away
        return {
            "away_points": event.after.away,
            "clock": clock_text(event.after.clock_left),
            "event_type": event.kind.value,
            "home_points": event.after.home,
            "team_id": club.strike_id if club is not None else None,
        }


def _interest(now: Situation) -> float:
    if now.phase is Phase.PRE_GAME:
        return 0.5
    if now.phase is Phase.INTERMISSION:
        return 0.7
    if now.phase is Phase.FINISHED:
        return 0.4
    return 1.6 if now.period > 3 or (now.period == 3 and now.clock_left < 300) else 1.0

"""The generated slate: games that follow each other, their markets, and everybody who trades in them.

| parameter | meaning | default |
|---|---|---|
| `seed` | names every random stream: games, pairs, moods, traders | |
| `speed` | game seconds per wall second; traders' rates follow it up to `MOST_EVENTS` a second in all, then thin evenly | 10 |
| `games` | games on at once | 16 |
| `shards` | over so many shards the games are spread | 1 |
| `has_fee_flips` | the games' series pays half, and each event the whole from puck drop on | no |
| `markets` | markets in all; above two a game come totals and spreads, above 12 a game more games | 2 a game |

On the virtual clock the same seed and the same client requests give the same events; on the real clock games and
intentions are the same, and what comes of them depends on who was there. The tickers' date is the day (US Eastern)
of the listing. When a game ends, the next one of its place is listed at once, before the old one settles; when the
992 pairings of a day are used up, its place stays empty until the next day.
"""

from fractions import Fraction
from functools import partial
from typing import Final

import attrs
import trio

from mm.domain.fees import FeeType
from mm.domain.numbers import Micros
from mm.domain.tickers import eastern_date, next_eastern_midnight
from mm.exchange.embedded.slate.agenda import Agenda
from mm.exchange.embedded.slate.goals import PLAIN, GoalBehaviour
from mm.exchange.embedded.slate.listings import (
    MARKETS_A_GAME,
    Kind,
    Line,
    list_game,
    series_specs,
)
from mm.exchange.embedded.slate.live import LiveGame, Tempo
from mm.exchange.embedded.slate.makers import Floor
from mm.exchange.embedded.slate.schedule import PAIRS_A_DAY, Fixture, NoPairsLeft, Schedule, game_seed
from mm.exchange.embedded.slate.source import Driver, sleep_until
from mm.exchange.embedded.slate.traders import Crowd, Pace

MOST_EVENTS: Final = 2000.0
"""Book changes and prints a second over the whole exchange, bursts after goals apart."""
CHURN: Final = 7.0
"""Acts of makers and small orders a second and market, at speed 1 in play."""
TAKERS: Final = 0.25
"""Noise takers a second and market, at speed 1 in play."""
BURST: Final = 150.0
"""Acts a second and market in the second after a goal."""
DELTAS_AN_ACT: Final = 1.05
"""Measured: replacing a quote changes the book twice, all else once."""
LINE_INTEREST: Final = 0.4
"""Totals and spreads have this share of a winner market's traders."""
LEAN_FROM: Final = 400
"""From so many markets on their books have fewer levels."""
BATCH: Final = 300
"""Happenings worked off before others get a turn."""
MOST_SHARDS: Final = 8
KEPT_GAMES: Final = 2000
"""Milestones kept, the newest."""


@attrs.frozen(kw_only=True)
class SlateSize:
    """How much is listed at once. Raises `ValueError` when it is impossible."""

    games: int = 16
    markets: int | None = None

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.games <= PAIRS_A_DAY:
            raise ValueError(f"games must be between 1 and {PAIRS_A_DAY}, not {self.games}")
        if self.markets is not None and not 2 <= self.markets <= MARKETS_A_GAME * PAIRS_A_DAY:
            raise ValueError(
                f"markets must be between 2 and {MARKETS_A_GAME * PAIRS_A_DAY}, not {self.markets}"
            )

    @property
    def total_games(self) -> int:
        """Games on at once: `games`, fewer or more when `markets` asks for it."""
        if self.markets is None:
            return self.games
        return min(max(self.games, -(-self.markets // MARKETS_A_GAME)), self.markets // 2)

    @property
    def total_markets(self) -> int:
        """Markets on at once."""
        wanted = 2 * self.games if self.markets is None else self.markets
        return max(wanted, 2 * self.total_games)

    def extra_lines(self, place: int) -> int:
        """Totals and spreads of the game at one of the `total_games` places."""
        extra = self.total_markets - 2 * self.total_games
        return extra // self.total_games + (place < extra % self.total_games)


@attrs.define(eq=False, kw_only=True, repr=False)
class GeneratedSlate:
    """A `MarketSource`. `run` drives it on trio; `open` and `work` are the same without a loop."""

    seed: int
    speed: float = 10.0
    size: SlateSize = attrs.field(factory=SlateSize)
    shards: int = 1
    """Games go to the shards 0 to `shards` - 1 in turn."""
    has_fee_flips: bool = False
    """The series pays half, and every game's event flips to the whole at its start."""
    goals: GoalBehaviour = PLAIN
    """What markets do at a goal."""
    most_events: float = MOST_EVENTS
    """Traders thin out evenly beyond so many book changes and prints a second."""
    games: list[LiveGame] = attrs.field(factory=list)
    """Listing order, settled ones included (the newest `KEPT_GAMES`)."""
    agenda: Agenda = attrs.field(factory=Agenda)
    _floor: Floor | None = None
    _schedule: Schedule = attrs.field(init=False)
    _tempo: Tempo = attrs.field(init=False)
    _pace: Pace = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if not 0.01 <= self.speed <= 10_000:
            raise ValueError(f"speed must be between 0.01 and 10000, not {self.speed}")
        if not 1 <= self.shards <= MOST_SHARDS:
            raise ValueError(f"shards must be between 1 and {MOST_SHARDS}, not {self.shards}")
        self._schedule = Schedule(self.seed)
        total = self.size.total_markets
        winners = 2 * self.size.total_games
        weight = winners + LINE_INTEREST * (total - winners)
        natural = weight * (CHURN * DELTAS_AN_ACT + TAKERS * 2)
        scale = min(self.speed, self.most_events / natural)
        self._pace = Pace(
            churn=CHURN * scale,
            takers=TAKERS * scale,
            burst=BURST * min(1.0, scale / self.speed),
            is_lean=total >= LEAN_FROM,
        )
        # Fair values cost about 30 us a market, and each move of one costs book changes: 500 looks a second at most.
        self._tempo = Tempo(speed=self.speed, tick=Micros(int(max(0.4, total / 500) * 1_000_000)))

    @property
    def floor(self) -> Floor:
        """Where the house trades, once opened."""
        assert self._floor is not None, "open() comes first"
        return self._floor

    # --- without a loop ----------------------------------------------------------------------------------------------

    def open(self, driver: Driver) -> None:
        """List series and the first slate, with books and a few prints."""
        for fixture, place in self.prepare(driver):
            self.announce(fixture, place)

    def prepare(self, driver: Driver) -> list[tuple[Fixture, int]]:
        """Open the house's accounts and list the series; the games of the first slate, still to be listed."""
        now = driver.clock()
        self.agenda.now = now
        self._floor = Floor(driver.core, now)
        self._floor.open_accounts()
        for spec in series_specs(is_half=self.has_fee_flips):
            if spec.ticker not in driver.core.series():
                driver.core.add_series(now, spec)
        fixtures = self._schedule.first_slate(self.size.total_games, eastern_date(now), self.speed)
        return [(fixture, place) for place, fixture in enumerate(fixtures)]

    def announce(self, fixture: Fixture, place: int) -> None:
        """List one game now, and set it going."""
        floor, tempo = self.floor, self._tempo
        now = floor.now
        start = Micros(now + int(fixture.starts_in / self.speed * 1_000_000))
        listing = list_game(
            fixture.pairing,
            start=start,
            listed=now,
            settlement_timer=tempo.settlement_timer(),
            extra_lines=self.size.extra_lines(place),
            exchange_index=fixture.number % self.shards,
        )
        game = LiveGame(
            fixture=fixture,
            listing=listing,
            tempo=tempo,
            floor=floor,
            agenda=self.agenda,
            rng=game_seed(self.seed, fixture.number, "mood"),
            on_finish=partial(self._follow_up, place),
            start=start,
            goals=self.goals,
        )
        for event in listing.events:
            floor.core.add_event(now, event)
        if self.has_fee_flips:
            main = listing.events[0]
            whole = (FeeType.QUADRATIC_WITH_MAKER_FEES, Fraction(1))
            floor.core.schedule_event_fees(now, main.ticker, *whole, start)
        for i, line in enumerate(listing.lines):
            game.crowds.append(self._crowd(game, line, i))
        self.games.append(game)
        if len(self.games) > KEPT_GAMES and self.games[0].is_settling:
            del self.games[0]
        game.begin(now)

    def work(self, now: Micros, most: int = BATCH) -> bool:
        """Do what is due by `now`, at most `most` happenings; whether something due is left."""
        self.floor.now = now
        self.floor.free_stuck()
        return self.agenda.work(now, most)

    def _crowd(self, game: LiveGame, line: Line, i: int) -> Crowd:
        market = self.floor.core.add_market(self.floor.now, line.spec)
        share = 1.0 if line.kind is Kind.WINNER else LINE_INTEREST
        pace = attrs.evolve(self._pace, churn=self._pace.churn * share, takers=self._pace.takers * share)
        return Crowd(
            floor=self.floor,
            agenda=self.agenda,
            market=market,
            rng=game_seed(self.seed, game.fixture.number, f"crowd/{i}"),
            pace=pace,
            interest=lambda: game.interest,
            goals=self.goals,
        )

    def _follow_up(self, place: int, due: Micros) -> None:
        """The next game of a place, listed when the one before it ends."""
        try:
            fixture = self._schedule.next_fixture(eastern_date(self.floor.now))
        except NoPairsLeft:
            self.agenda.at(next_eastern_midnight(self.floor.now), partial(self._follow_up, place))
            return
        del due
        self.announce(fixture, place)

    # --- on trio -----------------------------------------------------------------------------------------------------

    async def run(
        self, driver: Driver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `MarketSource.run`."""
        for fixture, place in self.prepare(driver):
            self.floor.now = self.agenda.now = driver.clock()
            self.announce(fixture, place)
            driver.batch_done()
            await trio.lowlevel.checkpoint()
        task_status.started()
        while True:
            is_behind = self.work(driver.clock())
            driver.batch_done()
            if is_behind:
                await trio.lowlevel.checkpoint()
            else:
                await sleep_until(driver, self.agenda.next_due)

    # --- the calendar ------------------------------------------------------------------------------------------------

    def milestones(self, now: Micros) -> list[dict[str, object]]:
        """See `MarketSource.milestones`."""
        del now
        games = sorted(self.games, key=lambda game: (game.start, game.fixture.number))
        return [game.milestone() for game in games]

    def live_data(self, now: Micros, milestone_id: str) -> dict[str, object] | None:
        """See `MarketSource.live_data`."""
        game = self._game(milestone_id)
        return game.live_data(now) if game is not None else None

    def game_stats(self, now: Micros, milestone_id: str) -> dict[str, object] | None:
        """See `MarketSource.game_stats`."""
        game = self._game(milestone_id)
        return game.game_stats(now) if game is not None else None

    def incentive_programs(self, now: Micros) -> list[dict[str, object]]:
        """See `MarketSource.incentive_programs`: a liquidity program for each market on a winner."""
        return [program for game in self.games for program in game.incentive_programs(now)]

    def _game(self, milestone_id: str) -> LiveGame | None:
        return next((game for game in self.games if game.listing.milestone.id == milestone_id), None)

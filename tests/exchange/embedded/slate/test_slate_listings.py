"""What is listed: tickers, events, fields, the day's pairs, the state of the first slate, the calendar."""

import datetime as dt
from collections import Counter

import pytest

from mm.domain.fees import FeeType
from mm.domain.market import MarketStatus
from mm.domain.numbers import CENT, SECOND
from mm.domain.tickers import (
    EASTERN,
    event_of,
    from_datetime,
    parse_event_token,
    parse_time,
    series_of,
    to_datetime,
)
from mm.exchange.embedded.slate.games import Phase
from mm.exchange.embedded.slate.generated import SlateSize
from mm.exchange.embedded.slate.schedule import PAIRS_A_DAY, NoPairsLeft, Schedule, clock_text
from mm.exchange.embedded.slate.teams import CLUBS

DAY = dt.date(2026, 11, 24)


class TestSlate:
    def test_anatomy_of_tickers(self, open_slate) -> None:
        """32 markets of 16 games: series, today's date, both codes, and the outcome is one of the two teams."""
        venue, _ = open_slate()
        codes = {club.code for club in CLUBS}

        assert len(venue.core.markets()) == 32
        for ticker, market in venue.core.markets().items():
            token = parse_event_token(ticker)
            outcome = ticker.rpartition("-")[2]
            assert series_of(ticker) == "KXNHLGAME"
            assert token is not None
            assert (token.date, token.start) == (DAY, None)
            assert outcome in codes
            assert token.rest.startswith(outcome) or token.rest.endswith(outcome)
            assert event_of(ticker) == market.spec.event_ticker

    def test_two_exclusive_markets_a_game(self, open_slate) -> None:
        """Each event has two markets, is mutually exclusive, and no team plays twice in the first slate."""
        venue, _ = open_slate()
        events = Counter(market.spec.event_ticker for market in venue.core.markets().values())
        teams = [ticker.rpartition("-")[2] for ticker in venue.core.markets()]

        assert set(events.values()) == {2}
        assert all(event.is_mutually_exclusive for event in venue.core.events().values())
        assert len(set(teams)) == 32

    def test_fields_of_a_market(self, open_slate) -> None:
        """A market looks like the real ones: cent grid, times around the start, texts, the team's stable id."""
        venue, slate = open_slate()
        game = slate.games[0]
        market = venue.core.markets()[game.listing.lines[0].ticker]
        spec = market.spec

        assert market.status is MarketStatus.ACTIVE
        assert market.grid.prices[:2] == (CENT, 2 * CENT)
        assert spec.expected_expiration_time == game.start + 3 * 3600 * SECOND
        assert spec.close_time == game.start + 48 * 3600 * SECOND
        assert spec.open_time <= venue.now
        assert spec.yes_sub_title == spec.no_sub_title == game.fixture.pairing.away.city
        assert spec.metadata["custom_strike"] == {"hockey_team": game.fixture.pairing.away.strike_id}
        assert spec.title.endswith("Winner?")
        assert spec.metadata["rules_primary"].startswith(f"If {game.fixture.pairing.away.city} wins")

    def test_games_have_maker_fees(self, open_slate) -> None:
        """`KXNHLGAME` charges makers, as the real series does."""
        venue, _ = open_slate()

        assert venue.core.series()["KXNHLGAME"].fee_type is FeeType.QUADRATIC_WITH_MAKER_FEES

    @pytest.mark.parametrize("seed", range(6))
    def test_first_slate_is_spread_over_the_game_and_open(self, open_slate, seed: int) -> None:
        """Pre-game and all three periods are there, and no game is decided."""
        venue, slate = open_slate(seed)
        situations = [game.situation(venue.now) for game in slate.games]

        assert Phase.PRE_GAME in {now.phase for now in situations}
        assert {1, 2, 3} <= {now.period for now in situations if now.phase is Phase.PLAY}
        for market in venue.core.markets().values():
            assert market.best_bid is not None
            assert market.best_ask is not None
            assert 8 * CENT < market.best_bid < market.best_ask < 92 * CENT

    def test_evening_date_is_eastern(self, open_slate) -> None:
        """At 02:00 UTC the tickers still carry yesterday's UTC date: it is evening in New York."""
        at = from_datetime(dt.datetime(2026, 11, 25, 2, 0, tzinfo=dt.UTC))
        venue, _ = open_slate(at=at)

        assert {parse_event_token(ticker).date for ticker in venue.core.markets()} == {DAY}

    def test_more_markets_than_two_a_game(self, open_slate) -> None:
        """`markets` adds totals and spreads, then games; their events are not exclusive."""
        venue, slate = open_slate(games=16, markets=200)
        kinds = Counter(series_of(ticker) for ticker in venue.core.markets())

        assert len(venue.core.markets()) == 200
        assert len(slate.games) == 17
        assert kinds["KXNHLGAME"] == 34
        assert kinds["KXNHLTOTAL"] > 60
        assert kinds["KXNHLSPREAD"] > 30
        assert not any(
            event.is_mutually_exclusive
            for event in venue.core.events().values()
            if event.series_ticker != "KXNHLGAME"
        )

    @pytest.mark.parametrize(
        "size, games, markets",
        [
            (SlateSize(), 16, 32),
            (SlateSize(games=2), 2, 4),
            (SlateSize(games=16, markets=10), 5, 10),
            (SlateSize(games=16, markets=100), 16, 100),
            (SlateSize(games=16, markets=10_000), 834, 10_000),
        ],
    )
    def test_sizes(self, size: SlateSize, games: int, markets: int) -> None:
        """The places' extra lines add up to the markets asked for."""
        assert (size.total_games, size.total_markets) == (games, markets)
        assert sum(2 + size.extra_lines(place) for place in range(games)) == markets

    @pytest.mark.parametrize("bad", [{"games": 0}, {"games": 993}, {"markets": 1}, {"markets": 12_000}])
    def test_impossible_sizes_are_refused(self, bad: dict[str, int]) -> None:
        """The message names the option."""
        with pytest.raises(ValueError, match=next(iter(bad))):
            SlateSize(**bad)


class TestSchedule:
    def test_no_pairing_twice_a_day(self) -> None:
        """All 992 pairings come once, each slate of 16 with all 32 teams, then the day is used up."""
        schedule = Schedule(5)
        pairs = [schedule.next_pairing(DAY) for _ in range(PAIRS_A_DAY)]

        assert len({(pair.away.code, pair.home.code) for pair in pairs}) == PAIRS_A_DAY
        for i in range(0, PAIRS_A_DAY, 16):
            slate = pairs[i : i + 16]
            assert len({club.code for pair in slate for club in (pair.away, pair.home)}) == 32
        with pytest.raises(NoPairsLeft):
            schedule.next_pairing(DAY)
        schedule.next_pairing(DAY + dt.timedelta(days=1))

    def test_codes_are_short_and_distinct(self) -> None:
        """Codes have two to four letters; no two teams share a code, a sub title or an id."""
        assert {len(club.code) for club in CLUBS} == {2, 3, 4}
        assert len({club.code for club in CLUBS}) == len({club.city for club in CLUBS}) == 32
        assert len({club.strike_id for club in CLUBS}) == 32

    def test_scoreboard_clock(self) -> None:
        """MM:SS, rounded up."""
        assert [clock_text(s) for s in (1200.0, 59.2, 0.0)] == ["20:00", "01:00", "00:00"]


class TestCalendar:
    def test_milestone_start_is_wall_clock(self, open_slate) -> None:
        """A game 600 game seconds old at speed 10 started a minute ago on the wall clock."""
        venue, slate = open_slate()
        for wire, game in zip(
            slate.milestones(venue.now), sorted(slate.games, key=lambda game: game.start), strict=True
        ):
            assert parse_time(str(wire["start_date"])) == game.start
            assert game.game_time(venue.now) == pytest.approx((venue.now - game.start) / SECOND * 10)
            assert wire["type"] == "hockey_match"
            assert wire["primary_event_tickers"] == [game.listing.events[0].ticker]

    def test_live_data_follows_the_game(self, open_slate) -> None:
        """Score, period and clock are those of the game; play by play holds its goals."""
        venue, slate = open_slate()
        for game in slate.games:
            identity = game.listing.milestone.id
            now = game.situation(venue.now)
            live = slate.live_data(venue.now, identity)
            stats = slate.game_stats(venue.now, identity)
            assert live is not None
            assert stats is not None
            details = live["details"]
            goals = [
                play
                for period in stats["pbp"]["periods"]
                for play in period["events"]
                if play["event_type"] == "goal"
            ]
            assert (details["home_points"], details["away_points"]) == (now.home, now.away)
            assert details["status"] == ("none" if now.phase is Phase.PRE_GAME else "live")
            assert len(goals) == now.home + now.away

    def test_unknown_milestone(self, open_slate) -> None:
        """None, for live data and for play by play."""
        venue, slate = open_slate(games=1)

        assert slate.live_data(venue.now, "nope") is None
        assert slate.game_stats(venue.now, "nope") is None

    def test_rules_name_the_local_start(self, open_slate) -> None:
        """The rules text carries the start in US Eastern."""
        venue, slate = open_slate()
        game = slate.games[0]
        local = to_datetime(game.start).astimezone(EASTERN)
        rules = venue.core.markets()[game.listing.lines[0].ticker].spec.metadata["rules_primary"]

        assert f"{local.strftime('%b')} {local.day}, {local.year}" in rules
        assert "EST" in rules

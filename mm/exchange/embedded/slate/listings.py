"""How games look at the exchange: series, events, markets, milestones, live data. Pure: values in, values out.

Anatomy and texts follow the real listings of 2026 (exchange-api sheet, sections 2.3, 2.4, 2.11, 5).
"""

import datetime as dt
import enum
import uuid
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

import attrs

from mm.domain.fees import FeeType
from mm.domain.numbers import DOLLAR, SECOND, Micros, Price
from mm.domain.order import MarketTicker
from mm.domain.tickers import EASTERN, eastern_date, format_date_token, format_time, to_datetime
from mm.exchange.embedded.core.model import EventSpec, MarketSpec, SeriesSpec
from mm.exchange.embedded.slate.games import (
    Phase,
    Situation,
    Strengths,
    Team,
    margin_probability,
    total_probability,
    win_probability,
)
from mm.exchange.embedded.slate.schedule import Pairing, clock_text
from mm.exchange.embedded.slate.teams import Club

GAME_SERIES: Final = "KXNHLGAME"
TOTAL_SERIES: Final = "KXNHLTOTAL"
SPREAD_SERIES: Final = "KXNHLSPREAD"
TOTAL_LINES: Final = (6, 5, 7, 4, 8, 3)
"""`more than N goals`, the most traded first."""
SPREAD_LINES: Final = (1, 2)
"""`wins by more than N goals`."""
MARKETS_A_GAME: Final = 2 + len(TOTAL_LINES) + 2 * len(SPREAD_LINES)
HOUR: Final = 3600 * SECOND
_NAMESPACE: Final = uuid.UUID("0c6f8a3e-55b9-4d0e-9d61-7a4f2e1b9c55")
_SOURCES: Final = [
    {"name": "ESPN", "url": "https://www.espn.com"},
    {"name": "the Governing League", "url": "https://www.nhl.com/"},
]


class Kind(enum.Enum):
    """What a market of a game pays on."""

    WINNER = "winner"
    TOTAL = "total"
    SPREAD = "spread"


@attrs.frozen(kw_only=True)
class Line:
    """One market of one game."""

    kind: Kind
    spec: MarketSpec
    team: Team | None = None
    line: int = 0

    @property
    def ticker(self) -> MarketTicker:
        """The market's ticker."""
        return self.spec.ticker

    def probability(self, strengths: Strengths, now: Situation) -> float:
        """The honest chance that the market pays; 0 or 1 once it is decided."""
        if self.kind is Kind.TOTAL:
            return total_probability(strengths, now, self.line)
        assert self.team is not None
        if self.kind is Kind.SPREAD:
            return margin_probability(strengths, now, self.team, self.line)
        home = win_probability(strengths, now)
        return home if self.team is Team.HOME else 1.0 - home

    def value(self, final: Situation, strengths: Strengths) -> Price:
        """What one YES pays after the game."""
        return DOLLAR if self.probability(strengths, final) > 0.5 else Price(0)


@attrs.frozen(kw_only=True)
class Milestone:
    """A game in the exchange's calendar, with its wall-clock start."""

    id: str
    type: str
    category: str
    title: str
    start: Micros
    end: Micros | None
    related_event_tickers: tuple[str, ...]
    primary_event_tickers: tuple[str, ...]
    source_id: str
    details: Mapping[str, Any]
    updated: Micros

    def wire(self) -> dict[str, object]:
        """As the REST API shows it."""
        return {
            "category": self.category,
            "details": dict(self.details),
            "end_date": format_time(self.end, trim=True) if self.end is not None else None,
            "id": self.id,
            "last_updated_ts": format_time(self.updated, trim=True),
            "notification_message": self.title,
            "primary_event_tickers": list(self.primary_event_tickers),
            "related_event_tickers": list(self.related_event_tickers),
            "source_id": self.source_id,
            "source_ids": {"sportradar": self.source_id},
            "start_date": format_time(self.start, trim=True),
            "title": self.title,
            "type": self.type,
        }


@attrs.frozen(kw_only=True)
class Listing:
    """All that is listed for one game."""

    events: tuple[EventSpec, ...]
    lines: tuple[Line, ...]
    milestone: Milestone


def series_specs(*, is_half: bool = False) -> list[SeriesSpec]:
    """The series of the slate. Games have maker fees, lines do not (as the real hockey and baseball lines).

    `is_half`: the games' series pays half, as baseball's does; the events flip to the whole at the start.
    """
    games = _series(GAME_SERIES, "NHL Game", "Game", FeeType.QUADRATIC_WITH_MAKER_FEES)
    return [
        attrs.evolve(games, fee_multiplier=Fraction(1, 2)) if is_half else games,
        _series(TOTAL_SERIES, "NHL Total Goals", "Goal Total", FeeType.QUADRATIC),
        _series(SPREAD_SERIES, "NHL Spread", "Spread", FeeType.QUADRATIC),
    ]


def _series(ticker: str, title: str, scope: str, fee_type: FeeType) -> SeriesSpec:
    stem = ticker.removeprefix("KX")
    return SeriesSpec(
        ticker=ticker,
        title=title,
        fee_type=fee_type,
        metadata={
            "frequency": "custom",
            "tags": ["Hockey"],
            "settlement_sources": _SOURCES,
            "contract_url": f"https://assets.kalshi.com/regulatory/product-certifications/{stem}.pdf",
            "contract_terms_url": f"https://assets.kalshi.com/contract_terms/{stem}.pdf",
            "additional_prohibitions": [],
            "product_metadata": {"scope": scope},
        },
    )


@attrs.frozen(kw_only=True)
class _Game:
    """What the listings of one game share."""

    pairing: Pairing
    token: str
    start: Micros
    listed: Micros
    settlement_timer: Micros
    exchange_index: int

    @property
    def title(self) -> str:
        return f"{self.pairing.away.city} vs {self.pairing.home.city}"

    @property
    def when(self) -> str:
        local = to_datetime(self.start).astimezone(EASTERN)
        clock = (
            f"{local.hour % 12 or 12}:{local.minute:02d} {'AM' if local.hour < 12 else 'PM'} {local.tzname()}"
        )
        return f"{local.strftime('%b')} {local.day}, {local.year} at {clock}"

    def club(self, team: Team) -> Club:
        return self.pairing.home if team is Team.HOME else self.pairing.away

    def event(self, series: str, scope: str, title: str, *, is_exclusive: bool) -> EventSpec:
        local = to_datetime(self.start).astimezone(EASTERN)
        return EventSpec(
            ticker=f"{series}-{self.token}",
            series_ticker=series,
            title=title,
            sub_title=f"{self.pairing.away.code} vs {self.pairing.home.code} ({local.strftime('%b')} {local.day})",
            is_mutually_exclusive=is_exclusive,
            exchange_index=self.exchange_index,
            metadata={
                "category": "Sports",
                "product_metadata": {"competition": "Pro Hockey", "competition_scope": scope},
                "settlement_sources": _SOURCES,
            },
        )

    def market(
        self, event: EventSpec, suffix: str, title: str, yes: str, rule: str, **strike: Any
    ) -> MarketSpec:
        expected = Micros(self.start + 3 * HOUR)
        close = Micros(self.start + 48 * HOUR)
        return MarketSpec(
            ticker=MarketTicker(f"{event.ticker}-{suffix}"),
            event_ticker=event.ticker,
            open_time=self.listed,
            close_time=close,
            exchange_index=self.exchange_index,
            settlement_timer=self.settlement_timer,
            title=title,
            yes_sub_title=yes,
            no_sub_title=yes,
            expected_expiration_time=expected,
            latest_expiration_time=close,
            occurrence_time=expected,
            metadata={
                "rules_primary": f"If {rule} in the {self.title} professional hockey game originally scheduled "
                f"for {self.when}, then the market resolves to Yes.",
                "rules_secondary": f"The following market refers to the {self.title} professional hockey game "
                f"originally scheduled for {self.when}. If this game is postponed or delayed, the market will "
                "remain open and close after the rescheduled game has finished (within 48 hours). If the game "
                "is cancelled or rescheduled to over 48 hours away, the market will resolve to a fair price in "
                "accordance with the rules.",
                "early_close_condition": "This market will close and expire after a winner is declared.",
                **strike,
            },
        )


def list_game(
    pairing: Pairing,
    *,
    start: Micros,
    listed: Micros,
    settlement_timer: Micros,
    extra_lines: int = 0,
    exchange_index: int = 0,
) -> Listing:
    """The events and markets of one game, `extra_lines` of totals and spreads beside the two winner markets.

    The date in the tickers is that of `listed` in US Eastern: a slate always carries today's date.
    """
    date = eastern_date(listed)
    game = _Game(
        pairing=pairing,
        token=event_token(pairing, date),
        start=start,
        listed=listed,
        settlement_timer=settlement_timer,
        exchange_index=exchange_index,
    )
    main = game.event(GAME_SERIES, "Game", game.title, is_exclusive=True)
    events = {main.ticker: main}
    lines = list(_winners(game, main))
    for event, line in _extra(game):
        if len(lines) >= 2 + extra_lines:
            break
        events[event.ticker] = event
        lines.append(line)
    return Listing(
        events=tuple(events.values()), lines=tuple(lines), milestone=_milestone(game, main, tuple(events))
    )


def event_token(pairing: Pairing, date: dt.date) -> str:
    """`26NOV24VGKMIN`: the date, the guest, the host."""
    return f"{format_date_token(date)}{pairing.away.code}{pairing.home.code}"


def _winners(game: _Game, event: EventSpec) -> Iterator[Line]:
    for team in (Team.AWAY, Team.HOME):
        club = game.club(team)
        spec = game.market(
            event,
            club.code,
            f"{game.title} Winner?",
            club.city,
            f"{club.city} wins",
            strike_type="structured",
            custom_strike={"hockey_team": club.strike_id},
        )
        yield Line(kind=Kind.WINNER, spec=spec, team=team)


def _extra(game: _Game) -> Iterator[tuple[EventSpec, Line]]:
    totals = game.event(TOTAL_SERIES, "Goal Total", f"{game.title}: Total Goals", is_exclusive=False)
    spreads = game.event(SPREAD_SERIES, "Spread", f"{game.title}: Spread", is_exclusive=False)
    for line in TOTAL_LINES:
        spec = game.market(
            totals,
            str(line + 1),
            f"{game.title} Total Goals?",
            f"Over {line}.5 goals scored",
            f"{game.pairing.away.city} and {game.pairing.home.city} collectively score more than {line}.5 goals",
            strike_type="greater",
            floor_strike=line + 0.5,
        )
        yield totals, Line(kind=Kind.TOTAL, spec=spec, line=line)
    for line in SPREAD_LINES:
        for team in (Team.HOME, Team.AWAY):
            club = game.club(team)
            spec = game.market(
                spreads,
                f"{club.code}{line + 1}",
                f"{club.city} wins by over {line}.5 goals?",
                f"{club.city} wins by over {line}.5 goals",
                f"{club.city} wins by more than {line}.5 goals",
                strike_type="greater",
                floor_strike=line + 0.5,
                custom_strike={"hockey_team": club.strike_id},
            )
            yield spreads, Line(kind=Kind.SPREAD, spec=spec, team=team, line=line)


def _milestone(game: _Game, main: EventSpec, events: tuple[str, ...]) -> Milestone:
    return Milestone(
        id=str(uuid.uuid5(_NAMESPACE, main.ticker)),
        type="hockey_match",
        category="Sports",
        title=f"{game.pairing.away.full_name} at {game.pairing.home.full_name}",
        start=game.start,
        end=None,
        related_event_tickers=events,
        primary_event_tickers=(main.ticker,),
        source_id=str(uuid.uuid5(_NAMESPACE, f"source/{main.ticker}")),
        details={
            "competition": "Pro Hockey",
            "league": "NHL",
            "home_id": game.pairing.home.strike_id,
            "away_id": game.pairing.away.strike_id,
            "home_team": game.pairing.home.full_name,
            "away_team": game.pairing.away.full_name,
        },
        updated=game.listed,
    )


def incentive(milestone: Milestone, line: Line, market_id: str, *, is_paid: bool) -> dict[str, object]:
    """A liquidity program of a market, in the manner of the real ones (rewards in centi-cents)."""
    return {
        "id": str(uuid.uuid5(_NAMESPACE, f"incentive/{line.ticker}")),
        "market_id": market_id,
        "market_ticker": line.ticker,
        "incentive_type": "liquidity",
        "incentive_description": "Liquidity incentive",
        "start_date": format_time(line.spec.open_time, trim=True),
        "end_date": format_time(Micros(milestone.start + 3 * HOUR), trim=True),
        "period_reward": 1_000_000,
        "paid_out": is_paid,
        "discount_factor_bps": 5_000,
        "target_size_fp": "1000.00",
        "max_reward_per_account": 250_000,
    }


def live_details(pairing: Pairing, now: Situation) -> dict[str, Any]:
    """The `details` object of a game's live data, in the field names that clients read."""
    status = {Phase.PRE_GAME: "none", Phase.FINISHED: "finished"}.get(now.phase, "live")
    is_break = now.phase is Phase.INTERMISSION
    # The league's feed counts an intermission to the period before it, at 00:00.
    period = max(now.period - 1, 1) if is_break else now.period
    left = "00:00" if is_break else clock_text(now.clock_left)
    score = f"{pairing.away.code} {now.away} - {now.home} {pairing.home.code}"
    where = {0: "Scheduled", 4: "OT", 5: "SO"}.get(period, f"P{period}")
    if now.phase is Phase.FINISHED:
        text = f"Final: {score}"
    elif is_break:
        text = f"{score}, end of {where}"
    else:
        text = where if period == 0 else f"{score}, {where} {left}"
    return {
        "home_points": now.home,
        "away_points": now.away,
        "status": status,
        "round": period,
        "final_round_time_left": left,
        "home_id": pairing.home.strike_id,
        "away_id": pairing.away.strike_id,
        "tileLiveText": text,
        "widgetLiveText": text,
        "power_play": now.power_play.value if now.power_play else None,
        "empty_net": now.empty_net.value if now.empty_net else None,
    }

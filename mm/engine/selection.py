"""Which markets to quote: the day's games, busiest first, and why the rest are left out.

Both markets of a game are one game. A market once taken stays until it is over; the date decides only what is added.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import attrs

from mm.domain.market import Market, MarketStatus
from mm.domain.order import MarketTicker
from mm.domain.tickers import format_date_token, parse_event_token

DateRule = dt.date | Literal["any"]


@attrs.frozen(kw_only=True)
class Candidate:
    """One market that was looked at."""

    market: Market
    is_chosen: bool
    why: str
    """Why it is taken, or why not."""


@attrs.frozen(kw_only=True)
class Selection:
    """The result: every candidate with a reason, the chosen ones first, busiest first."""

    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> list[Market]:
        """The markets to quote, taken ones included."""
        return [c.market for c in self.candidates if c.is_chosen]


def by_volume(market: Market) -> tuple[int, str]:
    """Sort key: most volume first, ties by ticker."""
    return (-market.volume, market.ticker)


def select_markets(
    markets: Iterable[Market],
    *,
    date: DateRule,
    max_markets: int,
    per_game: int,
    taken: Collection[MarketTicker] = (),
    held: Collection[MarketTicker] = (),
    refused: Mapping[str, str] | None = None,
) -> Selection:
    """Choose from a listing.

    Args:
        markets: As the venue lists them now.
        date: The US Eastern date that a ticker must carry to be added, or "any".
        max_markets: How many may be quoted at once, taken ones included.
        per_game: How many markets of one event.
        taken: Markets being quoted already; they keep their place.
        held: Markets in which we have a position: taken whatever their date.
        refused: Series ticker -> why it must not be quoted (fee type not understood).
    """
    found: list[Candidate] = []
    left = max_markets
    games: dict[str, int] = {}
    ordered = sorted(markets, key=by_volume)

    def first(market: Market) -> int:
        return 0 if market.ticker in taken else 1 if market.ticker in held else 2

    for market in sorted(ordered, key=first):
        why_not = None
        if market.ticker in taken:
            why = "quoted already"
        elif market.ticker in held and market.status is MarketStatus.ACTIVE:
            why = "we hold a position"
        else:
            why = f"volume {market.volume // 100:,}"
            why_not = _why_not(market, date, left, games.get(market.event_ticker, 0), per_game, refused or {})
        if why_not is None:
            left -= 1
            games[market.event_ticker] = games.get(market.event_ticker, 0) + 1
        found.append(Candidate(market=market, is_chosen=why_not is None, why=why_not or why))
    found.sort(key=lambda c: (not c.is_chosen, by_volume(c.market)))
    return Selection(candidates=tuple(found))


def _why_not(
    market: Market, date: DateRule, left: int, of_game: int, per_game: int, refused: Mapping[str, str]
) -> str | None:
    if market.series_ticker in refused:
        return refused[market.series_ticker]
    if market.status is not MarketStatus.ACTIVE:
        return f"market is {market.status.value}"
    if date != "any":
        token = parse_event_token(market.ticker)
        if token is None:
            return "no date in the ticker"
        if token.date != date:
            return f"game of {format_date_token(token.date)}, not {format_date_token(date)}"
    if of_game >= per_game:
        return "another market of the same game is busier"
    if left <= 0:
        return "beyond MAX_MARKETS_TO_TRADE"
    return None

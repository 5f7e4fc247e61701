"""Which markets to quote: the day's games, busiest first, and why the rest are left out.

Both markets of a game are one game. A market once taken stays until it is over; the date decides only what is added.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

import attrs

from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import format_date_token, parse_event_token
from mm.engine.worth import Worth

DateRule = dt.date | Literal["any"]

MIN_STAY: Final = Micros(15 * 60 * SECOND)
"""So long a market taken from the whole venue is kept, whatever else there is."""
BETTER_BY: Final = 3
KEPT_AT: Final = 2
"""A market makes room when another is worth more than `BETTER_BY` / `KEPT_AT` of it: estimates are no better than that."""
LEAVE_AT_ONCE: Final = 16
"""At most one market in so many (and one at least) begins to leave in one look."""
SHOWN: Final = 200
"""Candidates of the whole venue that a selection names beside those chosen."""


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


def select_by_worth(
    markets: Iterable[Market],
    worth: Mapping[MarketTicker, Worth],
    *,
    max_markets: int,
    per_game: int,
    taken: Collection[MarketTicker] = (),
    held: Collection[MarketTicker] = (),
) -> Selection:
    """Choose from the whole venue: what earns most for its write tokens, ties by ticker.

    Taken markets keep their place, those with a position get one, as in `select_markets`; the date in a ticker is not
    asked: the time to the event is part of the worth.
    """
    nothing = Worth(why_not="not listed as open")
    pool = {market.ticker: market for market in markets}
    first = [pool[t] for t in dict.fromkeys((*taken, *held)) if t in pool]
    rest = sorted(
        (m for t, m in pool.items() if t not in taken and t not in held),
        key=lambda m: (-worth.get(m.ticker, nothing).per_token, m.ticker),
    )
    found: list[Candidate] = []
    left, games, refused = max_markets, dict[str, int](), 0
    for market in (*first, *rest):
        estimate = worth.get(market.ticker, nothing)
        why_not = ""
        if market.ticker in taken:
            why = "quoted already"
        elif market.ticker in held and market.status is MarketStatus.ACTIVE:
            why = "we hold a position"
        else:
            why = estimate.why
            why_not = estimate.why_not
            if not why_not and games.get(market.event_ticker, 0) >= per_game:
                why_not = "another market of the same event is worth more"
            if not why_not and left <= 0:
                why_not = "beyond MAX_MARKETS_TO_TRADE"
        if not why_not:
            left -= 1
            games[market.event_ticker] = games.get(market.event_ticker, 0) + 1
        elif refused >= SHOWN:
            continue
        else:
            refused += 1
        found.append(Candidate(market=market, is_chosen=not why_not, why=why_not or why))
    found.sort(key=lambda c: not c.is_chosen)
    return Selection(candidates=tuple(found))


def make_room(
    worth: Mapping[MarketTicker, Worth],
    *,
    taken_at: Mapping[MarketTicker, Micros],
    wanted: Iterable[MarketTicker],
    room: int,
    now: Micros,
    max_markets: int,
) -> list[MarketTicker]:
    """Which taken markets should leave, worst first: each for a better one that finds no place.

    Args:
        taken_at: Markets that are not leaving already, and since when each is taken.
        wanted: Those worth quoting and not taken, best first.
        room: Places that are free, or will be when those leaving have left.
    """
    nothing = Worth(why_not="not listed as open")
    old = [t for t, since in taken_at.items() if now - since >= MIN_STAY]
    old.sort(key=lambda t: (worth.get(t, nothing).per_token, t))
    better = list(wanted)[max(0, room) :]
    leaving: list[MarketTicker] = []
    for ticker, other in zip(old, better, strict=False):
        mine, theirs = worth.get(ticker, nothing), worth.get(other, nothing)
        if theirs.why_not or KEPT_AT * theirs.per_token <= BETTER_BY * mine.per_token:
            break
        leaving.append(ticker)
    return leaving[: max(1, max_markets // LEAVE_AT_ONCE)]

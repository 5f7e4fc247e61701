"""Which markets are quoted: the day's games, busiest first; what is taken stays; everything else has a reason."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from mm.domain.grid import uniform_grid
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import CENT, Count
from mm.domain.order import MarketTicker
from mm.engine.selection import Selection, select_markets

DAY = dt.date(2026, 10, 12)


def market(
    game: str,
    team: str,
    volume: int = 0,
    *,
    date: str = "26OCT12",
    status: MarketStatus = MarketStatus.ACTIVE,
) -> Market:
    ticker = f"KXNHLGAME-{date}{game}-{team}"
    return Market(
        ticker=MarketTicker(ticker),
        event_ticker=ticker.rpartition("-")[0],
        status=status,
        grid=uniform_grid(CENT),
        volume=Count(volume),
    )


def select(markets: list[Market], **options: object) -> Selection:
    settings: dict[str, object] = {"date": DAY, "max_markets": 16, "per_game": 1}
    return select_markets(markets, **(settings | options))  # type: ignore[arg-type]


def teams(selection: Selection) -> list[str]:
    return [m.ticker.rpartition("-")[2] for m in selection.chosen]


def why(selection: Selection, team: str) -> str:
    return next(c.why for c in selection.candidates if c.market.ticker.endswith(f"-{team}"))


def test_the_busiest_first_ties_by_ticker() -> None:
    """Volume decides, then the alphabet: never the order of the listing."""
    listing = [market("AB", "BBB", 5), market("CD", "AAA", 5), market("EF", "CCC", 9)]

    assert teams(select(listing)) == teams(select(listing[::-1])) == ["CCC", "BBB", "AAA"]


def test_every_market_left_out_has_its_reason() -> None:
    """Another day, no date, not active, the game's quieter market, too many, a series not understood."""
    undated = Market(
        ticker=MarketTicker("KXNHL-27-VGK"),
        event_ticker="KXNHL-27",
        status=MarketStatus.ACTIVE,
        grid=uniform_grid(CENT),
    )
    listing = [
        market("VGKMIN", "VGK", 900),
        market("VGKMIN", "MIN", 800),
        market("TORBOS", "TOR", 700),
        market("NYRNJD", "NYR", 600),
        market("EDMCGY", "EDM", 999, date="26OCT13"),
        market("LASJ", "LA", 999, status=MarketStatus.INACTIVE),
        undated,
    ]
    found = select(listing, max_markets=2, refused={"KXNHL": "fee type flat is not understood"})

    assert teams(found) == ["VGK", "TOR"]
    assert why(found, "MIN") == "another market of the same game is busier"
    assert why(found, "NYR") == "beyond MAX_MARKETS_TO_TRADE"
    assert why(found, "EDM") == "game of 26OCT13, not 26OCT12"
    assert why(found, "LA") == "market is inactive"
    assert found.candidates[-1].why == "fee type flat is not understood"
    assert "no date" in select([undated]).candidates[0].why
    assert len(found.candidates) == len(listing)


def test_any_date_takes_recordings() -> None:
    """`MARKET_DATE=any`: old games and tickers without a date."""
    listing = [market("VGKMIN", "VGK", date="25JAN01"), market("TORBOS", "TOR", date="26OCT12")]

    assert len(select(listing, date="any").chosen) == 2


def test_what_is_taken_stays_over_midnight_and_over_busier_ones() -> None:
    """Yesterday's game runs past midnight: it keeps its place until it is over, paused or not."""
    late = market("VGKMIN", "VGK", 1, date="26OCT11", status=MarketStatus.INACTIVE)
    busy = market("TORBOS", "TOR", 10**6)
    found = select([busy, late], max_markets=1, taken=[late.ticker])

    assert teams(found) == ["VGK"]
    assert why(found, "TOR") == "beyond MAX_MARKETS_TO_TRADE"


def test_the_other_market_of_a_taken_game_is_the_same_game() -> None:
    """Volumes turned round meanwhile: still one of two."""
    taken = market("VGKMIN", "MIN", 10)
    found = select([market("VGKMIN", "VGK", 900), taken], taken=[taken.ticker])

    assert teams(found) == ["MIN"]


def test_a_held_market_is_taken_whatever_its_date() -> None:
    """At start: yesterday's active market in which we hold something, before today's busiest."""
    held = market("VGKMIN", "VGK", 1, date="26OCT11")
    found = select([market("TORBOS", "TOR", 999), held], max_markets=1, held=[held.ticker])

    assert teams(found) == ["VGK"]
    assert why(found, "VGK") == "we hold a position"


def test_a_held_market_that_is_not_active_is_not_quoted() -> None:
    """Closed and waiting for its settlement: nothing can rest there."""
    held = market("VGKMIN", "VGK", 1, status=MarketStatus.CLOSED)

    assert teams(select([held], held=[held.ticker])) == []


@given(
    volumes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10),
    max_markets=st.integers(1, 12),
    per_game=st.integers(1, 2),
    data=st.data(),
)
def test_whatever_the_listing_the_limits_hold(
    volumes: list[tuple[int, int]], max_markets: int, per_game: int, data: st.DataObject
) -> None:
    """Never more than allowed, never more of a game than allowed, none busier left out without need, order-free."""
    listing = [
        market(f"G{i:02}", side, volume)
        for i, pair in enumerate(volumes)
        for side, volume in zip("AB", pair, strict=True)
    ]
    found = select(listing, max_markets=max_markets, per_game=per_game)
    shuffled = select(data.draw(st.permutations(listing)), max_markets=max_markets, per_game=per_game)

    chosen = found.chosen
    assert shuffled.chosen == chosen
    assert len(chosen) == min(max_markets, per_game * len(volumes))
    for event in {m.event_ticker for m in listing}:
        assert sum(m.event_ticker == event for m in chosen) <= per_game
    for candidate in found.candidates:
        rival = candidate.market
        if rival in chosen or any(m.event_ticker == rival.event_ticker for m in chosen):
            continue
        assert all((m.volume, rival.ticker) >= (rival.volume, m.ticker) for m in chosen)

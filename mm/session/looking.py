"""`mm discover`: one look at the exchange, as text. Sends nothing but reads."""

import datetime as dt
from collections.abc import Callable

from mm.domain.errors import ConfigError
from mm.domain.fees import FeeType
from mm.domain.market import Market, Series
from mm.domain.numbers import Micros, Price, format_price
from mm.domain.tickers import eastern_date
from mm.engine.selection import DateRule, Selection, select_by_worth, select_markets
from mm.exchange.port import Exchange, NotRestingHere, RateLimits
from mm.settings import Settings
from mm.settings.kinds import EVERYTHING
from mm.tasks.budget import ReadBudget
from mm.tasks.catalogue import Catalogue, renewals_per_hour


def date_rule(setting: "dt.date | str", now: Micros) -> DateRule:
    """MARKET_DATE as the rule of the moment."""
    if isinstance(setting, dt.date):
        return setting
    return "any" if setting == "any" else eastern_date(now)


async def look_around(
    exchange: Exchange, limits: RateLimits, settings: Settings, clock: Callable[[], Micros]
) -> tuple[Selection, list[Series]]:
    """What would be quoted now. Raises `ConfigError` naming an unknown series, `ExchangeError`."""
    reads = ReadBudget(limits, clock)
    if settings["SERIES_TICKER"] == (EVERYTHING,):
        return await _look_everywhere(exchange, limits, settings, clock, reads), []
    found: list[Series] = []
    problems: list[str] = []
    markets: list[Market] = []
    for ticker in settings["SERIES_TICKER"]:
        await reads.take()
        try:
            found.append(await exchange.series(ticker))
        except NotRestingHere:
            problems.append(f"SERIES_TICKER: the exchange knows no series {ticker!r}")
            continue
        await reads.take()
        markets += await exchange.markets(series_ticker=ticker, status="open")
    if problems:
        raise ConfigError(problems)
    flat = "fee type flat is not understood"
    selection = select_markets(
        markets,
        date=date_rule(settings["MARKET_DATE"], clock()),
        max_markets=settings.strategy.max_markets_to_trade,
        per_game=settings.strategy.markets_per_game,
        refused={s.ticker: flat for s in found if s.fee_type is FeeType.FLAT},
    )
    return selection, found


async def _look_everywhere(
    exchange: Exchange, limits: RateLimits, settings: Settings, clock: Callable[[], Micros], reads: ReadBudget
) -> Selection:
    catalogue = Catalogue(
        exchange=exchange,
        reads=reads,
        clock=clock,
        parameters=lambda: settings.strategy,
        limits=limits,
        renewals_per_hour=renewals_per_hour(settings["QUOTE_TTL_SEC"]),
    )
    await catalogue.walk()
    return select_by_worth(
        catalogue.markets.values(),
        catalogue.worth,
        max_markets=settings.strategy.max_markets_to_trade,
        per_game=settings.strategy.markets_per_game,
    )


def selection_text(selection: Selection, series: list[Series]) -> str:
    """The selection as a table, chosen markets first."""
    lines = [f"{s.ticker}: fees {s.fee_type.value} x {float(s.fee_multiplier):g}" for s in series]
    chosen = [c for c in selection.candidates if c.is_chosen]
    left = [c for c in selection.candidates if not c.is_chosen]
    lines.append(f"{len(chosen)} markets would be quoted, {len(left)} not")
    width = max((len(c.market.ticker) for c in selection.candidates), default=0)
    for candidate in chosen:
        market = candidate.market
        lines.append(
            f"  {market.ticker:<{width}}  {_price(market.yes_bid)} / {_price(market.yes_ask)}  {candidate.why}"
        )
    if left:
        lines.append("not quoted:")
        lines += [f"  {c.market.ticker:<{width}}  {c.why}" for c in left]
    return "\n".join(lines) + "\n"


def _price(price: Price | None) -> str:
    return "     -" if price is None else format_price(price)

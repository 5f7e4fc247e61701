"""The bot on real books: recordings served by the embedded exchange. Skipped where the recordings are absent."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.numbers import format_count, format_price
from mm.domain.order import Side
from mm.exchange.embedded.server.app import ExchangeOptions, Ready, serve
from mm.session.summary import ExitCode
from mm.session.trading import Trading

pytestmark = pytest.mark.real

RECORDINGS = Path(os.environ.get("MM_RECORDINGS", Path(__file__).parents[2] / ".." / "shared" / "data"))


@asynccontextmanager
async def replaying(name: str, speed: float, data_dir: Path) -> AsyncGenerator[Rig, None]:
    """An exchange that serves a recording."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no recording {name} (see MM_RECORDINGS)")
    async with trio.open_nursery() as nursery:
        ready: Ready = await nursery.start(serve, ExchangeOptions(replay=path, speed=speed, tier="advanced"))
        yield Rig(ready, data_dir)
        nursery.cancel_scope.cancel()


async def book_at_the_exchange(rig: Rig, ticker: str) -> dict[str, Any]:
    """The whole book by the exchange's own word."""
    base = rig.ready.rest_url.removesuffix("/trade-api/v2")
    async with httpx.AsyncClient() as client:
        found: dict[str, Any] = (await client.get(f"{base}/control/book/{ticker}")).json()
        return {side: [list(level) for level in found[side]] for side in ("bids", "asks")}


def book_of_the_bot(trading: Trading, ticker: str) -> dict[str, Any]:
    """The same of the bot's."""
    book = trading.floor.books[ticker]  # type: ignore[index]
    return {
        name: [[format_price(price), format_count(count)] for price, count in book.depth(side)]
        for name, side in (("bids", Side.BID), ("asks", Side.ASK))
    }


async def all_books_agree(rig: Rig, trading: Trading) -> None:
    """Each book is seen equal at some moment within 10 s: both sides go on changing while we look."""
    for ticker in list(trading.floor.books):
        with trio.move_on_after(10):
            while await book_at_the_exchange(rig, ticker) != book_of_the_bot(trading, ticker):
                await trio.sleep(0.05)
            continue
        assert await book_at_the_exchange(rig, ticker) == book_of_the_bot(trading, ticker)


@pytest.mark.parametrize(
    ("name", "speed", "series", "markets"),
    [
        ("ws_mlb_wnba_verbatim/ws_orderbook_stream.jsonl.gz", 20.0, "KXMLBGAME,KXWNBAGAME", 12),
        ("ws_btc15m_fulldepth/20260513T202034Z.jsonl.gz", 1.0, "KXBTC15M", 1),
    ],
    ids=["baseball", "bitcoin"],
)
async def test_quotes_follow_recorded_books(
    tmp_path: Path, name: str, speed: float, series: str, markets: int
) -> None:
    """Every recorded market is quoted, the bot's books equal the exchange's, and it stops clean."""
    async with replaying(name, speed, tmp_path / "data") as rig:

        async def script(trading: Trading) -> None:
            await eventually(lambda: is_quoting(trading), "quoting", 15.0)
            assert trading.feed is not None
            feed = trading.feed
            await eventually(lambda: feed.statistics().frames >= 40, "the recording goes on", 20.0)
            await all_books_agree(rig, trading)

        summary = await rig.run_bot(
            script=script, SERIES_TICKER=series, MARKET_DATE="any", MARKETS_PER_GAME="2"
        )

    assert (summary.exit_code, summary.positions_match, summary.markets) == (ExitCode.CLEAN, True, markets)

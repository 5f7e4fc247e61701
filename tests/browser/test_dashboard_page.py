"""The page in a real browser: it lives, acts, asks before it acts, stays quick, and runs nobody else's script."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from browser import IS_THERE, WHY_NOT, Browser, open_browser
from mm.domain.numbers import Count, Micros, Money, Price
from mm.session.summary import ExitCode
from mm.session.trading import Trading
from mm.session.viewing import Viewer
from mm.session.web import Dashboard, bind
from mm.views.snapshot import AlertView, MarketView, Snapshot
from mm.views.web.server import WebServer
from web_rig import HOSTILE, NOW, TOKEN, WebRig, make_fill, make_market, make_snapshot

pytestmark = [pytest.mark.real, pytest.mark.skipif(not IS_THERE, reason=WHY_NOT)]

ROWS = "document.querySelectorAll('.row[data-ticker]').length"


@asynccontextmanager
async def served(rig: WebRig) -> AsyncGenerator[str, None]:
    """The rig's app on loopback; its address without the token."""
    listeners = await bind("127.0.0.1:0")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(WebServer(rig.app).run, listeners)
        yield f"http://127.0.0.1:{port}/"
        nursery.cancel_scope.cancel()


def row(ticker: str, part: str = "") -> str:
    """A selector of a market's row, or of a part of it."""
    return f'.row[data-ticker="{ticker}"] {part}'.strip()


async def test_it_updates_without_being_asked() -> None:
    """What changes in the bot shows within a second or two, row and totals, and no error is in the console."""
    rig = WebRig()
    ticker = rig.snapshot.markets[1].ticker
    async with served(rig) as url, open_browser() as browser:
        await browser.open(f"{url}#{TOKEN}")
        await browser.until(f"{ROWS} === 3")
        assert "+11.11" in await browser.text("#kpis")
        assert "41 / 43.25" in await browser.text(row(ticker, ".book"))
        moved = make_market(1, position=Count(1200), best_bid=Price(4200), unrealized=Money(-500_000))
        rig.snapshot = attrs.evolve(
            rig.snapshot,
            at=Micros(NOW + 1_000_000),
            markets=(rig.snapshot.markets[0], moved),
            realized=Money(20_000_000),
            recent_fills=(make_fill(0), make_fill(1)),
        )
        await browser.until(f"{ROWS} === 2", 5)
        assert "42 / 43.25" in await browser.text(row(ticker, ".book"))
        assert await browser.text(row(ticker, ".pos")) == "+12"
        assert await browser.text(row(ticker, ".pnl")) == "−0.50"
        assert await browser.run("return document.querySelectorAll('#fills .tick').length") == 2
        assert await browser.run("return document.querySelectorAll('.chart canvas').length") == 2
        assert await browser.console() == []


async def test_the_token_leaves_the_address_bar_and_opens_the_buttons() -> None:
    """With the printed address one may act; without it the page says that it is read-only."""
    rig = WebRig()
    async with served(rig) as url, open_browser() as browser:
        await browser.open(url)
        await browser.until(f"{ROWS} === 3")
        await browser.until("document.querySelector('#banners').textContent.includes('Read-only')")
        assert await browser.run("return document.querySelector('#stop').disabled")
        await browser.open(f"{url}#wrong")
        await browser.until("document.querySelector('#banners').textContent.includes('Read-only')")
        await browser.open(f"{url}#{TOKEN}")
        await browser.until("!document.querySelector('#stop').disabled")
        assert await browser.run("return location.href") == url
        assert "Read-only" not in await browser.text("#banners")


async def test_it_asks_before_it_acts() -> None:
    """Cancel does nothing; confirming does exactly what was said, once."""
    rig = WebRig(
        snapshot=attrs.evolve(
            make_snapshot(2), markets=(make_market(0), make_market(1, position=Count(-300)))
        )
    )
    flat, short = (m.ticker for m in rig.snapshot.markets)
    async with served(rig) as url, open_browser() as browser:
        await browser.open(f"{url}#{TOKEN}")
        await browser.until("!document.querySelector('#stop').disabled")
        await browser.click("#stop")
        assert "positions are kept" in await browser.text("#confirm")
        await browser.click("#confirm .buttons button:not(#confirm-go)")
        await browser.until("!document.querySelector('#confirm').open")
        assert rig.actions.calls == []

        await browser.click(row(flat, ".pause"))
        await browser.click("#confirm-go")
        await eventually(lambda: rig.actions.calls == [("pause", flat, False)], "paused")
        await browser.click(row(short, ".flatten"))
        assert "Buy 3 contracts" in await browser.text("#confirm")
        await browser.click("#confirm-go")
        await eventually(lambda: rig.actions.calls[1:] == [("flatten", short, True)], "flattened")
        await browser.click("#stop")
        await browser.click("#confirm-go")
        await eventually(lambda: rig.actions.calls[2:] == [("stop", "", False)], "stopped")


async def test_hostile_texts_do_not_run() -> None:
    """Titles, reasons, alerts, tickers full of markup stay text wherever they are shown."""
    hostile: MarketView = make_market(
        0,
        ticker=f"KX-{HOSTILE}",
        title=HOSTILE,
        outcome=HOSTILE,
        state="held",
        reason=HOSTILE,
        bid=None,
        ask=None,
    )
    rig = WebRig()
    rig.snapshot = attrs.evolve(
        rig.snapshot,
        markets=(hostile,),
        notice=HOSTILE,
        environment=HOSTILE,
        recent_fills=(make_fill(0, ticker=hostile.ticker),),
        alert_list=(AlertView(at=Micros(NOW), severity="critical", text=HOSTILE),),
    )
    async with served(rig) as url, open_browser() as browser:
        await browser.open(f"{url}#{TOKEN}")
        await browser.until(f"{ROWS} === 1")
        await browser.run("document.querySelector('.row[data-ticker]').click()")
        await browser.until("document.querySelector('#detail h3')?.textContent.includes('<script>')")
        await trio.sleep(0.5)

        assert (
            await browser.run("return document.querySelectorAll('main img, #detail img, body script').length")
            == 0
        )
        assert not (await browser.run("return document.title")).startswith("run")
        for place in (".alert", "#banners", ".row[data-ticker] .state", "#fills"):
            assert "<img" in await browser.text(place), place
        # And should some markup slip in one day: the policy stops it.
        blocked = await browser.run(
            "try { document.body.insertAdjacentHTML('beforeend', arguments[0]); return 'ran' } catch (e) { return e.name }",
            HOSTILE,
        )
        assert blocked == "TypeError"


async def test_a_lost_bot_is_seen_and_found_again() -> None:
    """The page says that what it shows is old, and goes on when the bot is back on its port."""
    rig = WebRig()
    async with open_browser() as browser:
        async with served(rig) as url:
            await browser.open(f"{url}#{TOKEN}")
            await browser.until(f"{ROWS} === 3")
        await browser.until("document.querySelector('#banners').textContent.includes('lost')", 8)
        assert "no connection" in await browser.text("#status")
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        listeners = await bind(f"127.0.0.1:{port}")
        async with trio.open_nursery() as nursery:
            await nursery.start(WebServer(WebRig(snapshot=make_snapshot(5)).app).run, listeners)
            await browser.until(f"{ROWS} === 5", 15)
            assert "lost" not in await browser.text("#banners")
            nursery.cancel_scope.cancel()


def shaken(snapshot: Snapshot, n: int) -> Snapshot:
    """A fifth of the markets moves."""
    markets = list(snapshot.markets)
    for place in range(n % 5, len(markets), 5):
        markets[place] = attrs.evolve(
            markets[place],
            best_bid=Price(4000 + n % 100),
            position=Count(100 * (n % 9)),
            realized=Money(n * 10_000),
        )
    return attrs.evolve(snapshot, at=Micros(snapshot.at + 1_000_000), markets=tuple(markets))


async def test_a_thousand_markets_stay_quick() -> None:
    """While 200 rows change every second the page answers: it is busy for a small share of the time."""
    rig = WebRig(snapshot=make_snapshot(1000))
    async with served(rig) as url, open_browser() as browser:
        await browser.open(f"{url}#{TOKEN}")
        await browser.until(f"{ROWS} === 1000", 20)
        await browser.run(
            "window.gaps = []; let last = performance.now();"
            "(function tick() { const now = performance.now(); window.gaps.push(now - last); last = now;"
            " setTimeout(tick, 5) })()"
        )
        for n in range(1, 7):
            rig.snapshot = shaken(rig.snapshot, n)
            await trio.sleep(1.0)
        gaps = await browser.run("return window.gaps")
        await browser.run(
            "const f = document.getElementById('filter'); f.value = 't0777'; f.dispatchEvent(new Event('input'))"
        )
        await browser.until(f"{ROWS} === 1", 2)

    busy = sum(gap - 5 for gap in gaps if gap > 50)
    assert busy / sum(gaps) < 0.4, f"busy for {busy:.0f} of {sum(gaps):.0f} ms, longest {max(gaps):.0f} ms"
    assert max(gaps) < 2_000


async def test_it_fits_a_phone() -> None:
    """At 390 pixels nothing is wider than the screen, and the buttons are on it."""
    rig = WebRig()
    async with served(rig) as url, open_browser(390, 844, phone=True) as browser:
        await browser.open(f"{url}#{TOKEN}")
        await browser.until(f"{ROWS} === 3")
        assert await browser.run("return document.documentElement.scrollWidth") == 390
        outside = await browser.run(
            "return [...document.querySelectorAll('button, .kpi .value, .row > span')]"
            ".filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 0.5)"
            ".map((e) => e.className + e.textContent)"
        )
        assert outside == []
        await browser.click(row(rig.snapshot.markets[0].ticker))
        await browser.until("document.querySelector('.ladder .level')")
        assert "ours 10" in await browser.text(".ladder")


async def test_a_real_bot_is_paused_flattened_and_stopped(rig: Rig) -> None:
    """From the browser to the exchange and back: the row changes, the orders are gone, the bot ends cleanly."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting", 30)
        dashboard = Dashboard(trading=trading, viewer=Viewer(trading, trading.clock()), address="127.0.0.1:0")
        async with trio.open_nursery() as nursery, open_browser() as browser:
            url = await nursery.start(dashboard.run)
            await browser.open(url)
            await browser.until("!document.querySelector('#stop').disabled")
            await act_on(trading, browser)
            nursery.cancel_scope.cancel()

    async def act_on(trading: Trading, browser: Browser) -> None:
        held = [""]

        def has_position() -> bool:
            found = [t for t in trading.floor.makers if abs(trading.floor.positions.net(t)) >= 100]
            held[0] = found[0] if found else ""
            return bool(found)

        await eventually(has_position, "a position", 30)
        ticker = held[0]
        selector = row(ticker)
        await browser.until(f"document.querySelector('{selector} .pos').textContent !== '0'")
        await browser.click(row(ticker, ".flatten"))
        await browser.click("#confirm-go")
        await browser.until(f"document.querySelector('{selector} .pos').textContent === '0'", 20)
        await browser.until(f"document.querySelector('{selector} .state').className.includes('paused')")
        await eventually(lambda: not any(o.ticker == ticker for o in trading.desk.live.values()), "no orders")
        assert ticker not in await rig.positions()
        await browser.click(row(ticker, ".pause"))
        await browser.until(f"document.querySelector('{selector} .state').className.includes('quoting')")
        await browser.click("#stop")
        await browser.click("#confirm-go")
        await eventually(lambda: bool(trading.why_stopping()), "stopping")

    summary = await rig.run_bot(script=script)

    assert summary.reason == "web"
    assert summary.exit_code is ExitCode.CLEAN
    assert await rig.resting() == []

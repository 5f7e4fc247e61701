"""What the world does to a running bot: cut sockets, lost answers, pauses, foreign orders, restarts. On loopback."""

import itertools
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.errors import ConfigError, LedgerError
from mm.domain.numbers import CONTRACT
from mm.domain.order import MarketTicker, Side, TimeInForce
from mm.exchange.port import ExchangeError, NewOrder, OrderRef
from mm.ledger.store import Store
from mm.session.summary import ExitCode
from mm.session.trading import Trading
from mm.tasks import pull

pytestmark = pytest.mark.real


def foreign_order(trading: Trading, name: str) -> NewOrder:
    """A far-away bid of somebody else with the same account."""
    ticker = next(iter(trading.floor.makers))
    price = trading.floor.makers[ticker].market.grid.lowest
    return NewOrder(
        client_order_id=name,  # type: ignore[arg-type]
        ticker=ticker,
        side=Side.BID,
        price=price,
        count=trading.floor.parameters.size_per_fill,
        exchange_index=0,
    )


async def test_a_cut_socket_pulls_quotes_and_quoting_comes_back(rig: Rig) -> None:
    """Without a close frame the socket dies: every quote is gone within 4 s, and all markets are quoted again in 10."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        old_groups = set(trading.fence.groups.values())
        await rig.control("sockets/cut", how="drop")
        await eventually(lambda: old_groups <= trading.fence.triggered, "old groups triggered", 4.0)
        await eventually(lambda: is_quoting(trading), "quoting again", 10.0)
        assert set(trading.fence.groups.values()).isdisjoint(old_groups)

    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)
    assert await rig.resting() == []


async def test_a_skipped_sequence_number_is_a_resync_not_a_restart(rig: Rig) -> None:
    """A gap makes the books wait for new snapshots on the same socket."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await rig.control("skip_seq", channel="orderbook_delta", by=3)
        assert trading.feed is not None
        feed = trading.feed
        await eventually(lambda: feed.statistics().gaps > 0, "gap seen", 10.0)
        await eventually(lambda: all(b.is_synced for b in trading.floor.books.values()), "books back", 10.0)
        await eventually(lambda: is_quoting(trading), "quoting again", 10.0)
        assert feed.statistics().connects == 1

    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)


async def test_lost_answers_to_creates_leave_no_second_order(rig: Rig) -> None:
    """Creates that are executed and not answered are found again by their client id; never two on a side."""
    await rig.control(
        "faults", kind="drop", match="POST /portfolio/events/orders", p=0.4, when="after", times=6
    )

    async def script(trading: Trading) -> None:
        await eventually(lambda: trading.desk.unknown >= 3, "answers lost", 15.0)
        await eventually(lambda: is_quoting(trading), "quoting", 15.0)
        resting = await rig.resting()
        sides = [(order.ticker, order.side) for order in resting]
        assert len(sides) == len(set(sides))

    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)
    assert await rig.resting() == []


async def test_a_paused_market_is_held_and_comes_back(rig: Rig) -> None:
    """Trading paused on the shard: nothing is hammered, and quotes return after the pause."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await rig.control("pause", exchange_index=0, what="trading")
        await eventually(lambda: bool(trading.desk.refused), "a refusal", 15.0)
        before = trading.desk.placed
        await trio.sleep(2.0)
        assert trading.desk.placed - before <= 2 * len(trading.floor.makers)
        await rig.control("resume", exchange_index=0, what="trading")

    summary = await rig.run_bot(script=script)

    assert summary.exit_code is ExitCode.CLEAN
    assert await rig.resting() == []


async def test_foreign_orders_are_never_touched(rig: Rig) -> None:
    """Start-up sweep, quoting, exit sweep: an order without our prefix rests before and after."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await trading.exchange.place(foreign_order(trading, "somebody-else-1"))

    await rig.run_bot(script=script)
    first = [order.client_order_id for order in await rig.resting()]
    await rig.run_bot(until=is_quoting)
    second = [order.client_order_id for order in await rig.resting()]

    assert first == second == ["somebody-else-1"]


async def test_a_second_run_knows_positions_and_finds_fills_made_meanwhile(rig: Rig) -> None:
    """The ledger gives the positions, the reconciler the fill that happened while nobody ran; none counts twice."""
    await rig.run_bot(until=lambda t: t.floor.positions.fills >= 2)
    ticker, net = next(iter((await rig.positions()).items()))
    async with rig.client() as exchange:
        side = Side.ASK if net > 0 else Side.BID
        ack = await exchange.place(
            NewOrder(
                client_order_id="by-hand-1",  # type: ignore[arg-type]
                ticker=MarketTicker(ticker),
                side=side,
                price=rig.trading[0].floor.parameters.min_requote
                if side is Side.ASK
                else rig.trading[0].floor.makers[MarketTicker(ticker)].market.grid.highest,
                count=rig.trading[0].floor.parameters.size_per_fill,
                exchange_index=0,
                time_in_force=TimeInForce.IOC,
                post_only=False,
            )
        )
    assert ack.filled > 0
    expected = await rig.positions()

    seen: dict[str, int] = {}

    def at_start(trading: Trading) -> None:
        seen.update({t: h.state.net for t, h in trading.floor.positions.histories.items() if h.state.net})

    summary = await rig.run_bot(until=is_quoting, on_trading=at_start)

    assert seen == expected
    assert summary.positions_match is True


async def test_a_refused_key_ends_the_bot_with_a_message(rig: Rig) -> None:
    """401: exit code 1, a message about the key, a handful of requests, no storm."""
    started = trio.current_time()
    summary = await rig.run_bot(KALSHI_API_KEY="00000000-0000-0000-0000-000000000000")

    assert summary.exit_code is ExitCode.FAILED
    assert "KALSHI_API_KEY" in summary.reason
    assert trio.current_time() - started < 20


async def test_an_unknown_series_is_named(rig: Rig) -> None:
    """SERIES_TICKER with a series that the exchange does not know: a configuration error that names it."""
    with pytest.raises(ConfigError, match="KXNOSUCH"):
        await rig.run_bot(SERIES_TICKER="KXNHLGAME,KXNOSUCH")


async def test_no_games_today_is_not_an_error(rig: Rig) -> None:
    """A day without games: the bot keeps running, quotes nothing, and stops cleanly."""
    summary = await rig.run_bot(until=lambda t: t.discovery is not None, MARKET_DATE="25JAN01")

    assert (summary.exit_code, summary.markets, summary.orders_placed) == (ExitCode.CLEAN, 0, 0)


async def test_a_full_disk_stops_trading_and_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger cannot be written: trading stops, nothing rests, the reason names the ledger."""
    original = Store.write

    def full(self: Store, *args: object) -> object:
        if rig.trading and is_quoting(rig.trading[-1]):
            raise LedgerError("the disk is full: ledger.sqlite3 cannot be written")
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write", full)
    summary = await rig.run_bot()

    assert summary.exit_code is ExitCode.FAILED
    assert "disk is full" in summary.reason
    assert rig.trading[0].promise.is_proven_clean
    assert await rig.resting() == []


async def leave_behind(rig: Rig) -> None:
    """An order that an earlier life of the bot did not get to take off."""
    async with rig.client() as exchange:
        market = (await exchange.markets(series_ticker="KXNHLGAME", status="open"))[0]
        await exchange.place(
            NewOrder(
                client_order_id="mm-earlierlife-1",  # type: ignore[arg-type]
                ticker=market.ticker,
                side=Side.BID,
                price=market.grid.lowest,
                count=CONTRACT,
                exchange_index=market.exchange_index,
            )
        )


def books_are_shut(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The ledger cannot be opened, or nothing can be written to it, from the very start."""

    def full(*args: object, **kwargs: object) -> object:
        raise LedgerError("the disk is full: ledger.sqlite3 cannot be written")

    monkeypatch.setattr(Store, method, full)


@pytest.mark.parametrize("method", ["open", "write"])
async def test_a_disk_full_at_the_start_leaves_nothing_of_an_earlier_life(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Without books nothing is quoted, and what an earlier life left is taken off all the same: code 1."""
    await leave_behind(rig)
    books_are_shut(monkeypatch, method)
    summary = await rig.run_bot()

    assert (summary.exit_code, summary.orders_resting_at_exit) == (ExitCode.FAILED, 0)
    assert "disk is full" in summary.reason
    assert await rig.resting() == []


async def test_a_disk_full_at_the_start_that_cannot_be_swept_is_code_2(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor can the exchange be asked: the exit code says that orders may rest."""
    await leave_behind(rig)
    books_are_shut(monkeypatch, "open")
    await rig.control("faults", kind="error", match="GET /portfolio/orders", code=503)
    summary = await rig.run_bot()

    assert summary.exit_code is ExitCode.ORDERS_MAY_REST
    assert "disk is full" in summary.reason
    assert "mm cancel-all" in summary.reason


async def test_two_bots_on_one_data_folder(rig: Rig) -> None:
    """The second one is refused, naming the folder; the first goes on."""
    refused: list[str] = []

    async def script(trading: Trading) -> None:
        other = Rig(rig.ready, rig.data_dir)
        summary = await other.run_bot()
        refused.append(summary.reason)
        assert summary.exit_code is ExitCode.FAILED

    summary = await rig.run_bot(script=script)

    assert summary.exit_code is ExitCode.CLEAN
    assert str(Path(rig.data_dir)) in refused[0]


async def test_the_kill_switch_takes_quotes_off_and_lets_them_back(rig: Rig) -> None:
    """A file STOP_QUOTING in the data folder: no quote rests while it is there; removed, quoting goes on."""
    switch = rig.data_dir / "STOP_QUOTING"

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        switch.touch()
        await eventually(
            lambda: bool(trading.is_new_quoting_off) and not trading.desk.live, "switched off", 10.0
        )
        assert "STOP_QUOTING" in trading.is_new_quoting_off
        placed = trading.desk.placed
        await trio.sleep(1.5)
        assert trading.desk.placed == placed
        assert await rig.resting() == []
        switch.unlink()
        await eventually(lambda: is_quoting(trading), "quoting again", 5.0)

    assert (await rig.run_bot(script=script)).exit_code is ExitCode.CLEAN


async def test_the_kill_switch_holds_from_the_start(rig: Rig) -> None:
    """A bot that starts with the file in its folder places nothing, and still ends cleanly."""
    rig.data_dir.mkdir(parents=True)
    (rig.data_dir / "STOP_QUOTING").touch()

    async def script(trading: Trading) -> None:
        await eventually(lambda: all(m.last is not None for m in trading.floor.makers.values()), "decided")
        await trio.sleep(0.5)

    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.orders_placed) == (ExitCode.CLEAN, 0)


@pytest.mark.parametrize("fault", [{"kind": "error", "code": 503}, {"kind": "throttle"}, {"kind": "drop"}])
async def test_fills_that_cannot_be_read_pull_the_quotes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, fault: dict[str, object]
) -> None:
    """REST fails for reads of fills while the socket is fine: quotes are pulled, and come back after a clean pass."""
    monkeypatch.setattr(pull, "BLIND_S", 1.0)

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        old = set(trading.fence.groups.values())
        await rig.control("faults", match="GET /portfolio/fills", **fault)
        await eventually(lambda: old <= trading.fence.triggered, "pulled", 10.0)
        await eventually(lambda: not trading.desk.live, "nothing live", 2.0)
        await trio.sleep(1.5)
        assert await rig.resting() == []
        await rig.calm()
        await eventually(lambda: is_quoting(trading), "quoting again", 10.0)

    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)


async def test_the_exit_stays_within_ten_seconds_while_others_eat_the_budget(rig: Rig) -> None:
    """Another program of the account spends 70% of the write tokens: still proven, still in time, its orders untouched."""

    async def hog(trading: Trading) -> None:
        write, cost = trading.limits.write, trading.limits.default_cost
        order = foreign_order(trading, "hog")
        async with rig.client() as exchange:
            for number in itertools.count():
                with suppress(ExchangeError):
                    ack = await exchange.place(attrs.evolve(order, client_order_id=f"hog-{number}"))
                    await exchange.cancel(
                        OrderRef(
                            order_id=ack.order_id, ticker=order.ticker, exchange_index=order.exchange_index
                        )
                    )
                await trio.sleep(2 * cost / (0.7 * write.refill_per_s))

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        await trading.exchange.place(foreign_order(trading, "somebody-else-1"))
        beside.start_soon(hog, trading)
        await trio.sleep(1.0)
        asked.append(trio.current_time())

    asked: list[float] = []
    async with trio.open_nursery() as beside:
        summary = await rig.run_bot(script=script)
        took = trio.current_time() - asked[0]
        beside.cancel_scope.cancel()

    assert summary.exit_code is ExitCode.CLEAN
    assert took < 10.0
    left = {str(order.client_order_id) for order in await rig.resting()}
    assert "somebody-else-1" in left
    assert not any(name.startswith("mm-") for name in left)

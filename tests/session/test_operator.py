"""`mm cancel-all`, `mm flatten` and `mm status`: with and without a bot, from another machine, with foreign orders."""

import json
import sqlite3
from pathlib import Path

import attrs
import pytest
import trio

from bot_rig import Rig, eventually, is_quoting
from mm.domain.errors import ConfigError
from mm.domain.numbers import CONTRACT, Count
from mm.domain.order import ClientOrderId, GroupId, MarketTicker, Side, TimeInForce
from mm.exchange.port import ExchangeRejected, NewOrder
from mm.ledger import DataFolderInUse, open_ledger
from mm.ledger.reader import open_reader
from mm.session import live_surroundings
from mm.session.flatten import flatten
from mm.session.operator import CONFIRMATION, cancel_all
from mm.session.status import look_at_status
from mm.session.summary import ExitCode
from mm.session.trading import Trading
from mm.tasks.ids import closes_positions
from mm.views.status import status_document, status_text

pytestmark = pytest.mark.real


async def order(rig: Rig, name: str, group: GroupId | None = None) -> NewOrder:
    """A bid that meets nobody."""
    async with rig.client() as exchange:
        market = (await exchange.markets(series_ticker="KXNHLGAME", status="open"))[0]
    return NewOrder(
        client_order_id=ClientOrderId(name),
        ticker=market.ticker,
        side=Side.BID,
        price=market.grid.lowest,
        count=CONTRACT,
        exchange_index=market.exchange_index,
        group_id=group,
    )


async def put(rig: Rig, *names: str, in_group: bool = False) -> GroupId | None:
    """Orders appear on the account; gives their group."""
    group = None
    async with rig.client() as exchange:
        if in_group:
            first = await order(rig, names[0])
            group = await exchange.create_group(contracts_limit=10, exchange_index=first.exchange_index)
        for name in names:
            await exchange.place(await order(rig, name, group))
    return group


async def names(rig: Rig) -> set[str]:
    return {str(report.client_order_id) for report in await rig.resting()}


@attrs.define
class Said:
    """What a command said."""

    lines: list[str] = attrs.field(factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


# --- cancel-all ---


async def test_cancel_all_takes_off_what_is_ours_and_fences_its_groups(rig: Rig) -> None:
    """From a machine without any ledger: leftovers go, a late sister cannot land, foreign orders stay; exit code 0."""
    group = await put(rig, "mm-dead-1", "mm-dead-2", in_group=True)
    await put(rig, "mm-dead-3", "by-hand-1")
    said = Said()

    code = await cancel_all(rig.settings(), live_surroundings(), say=said)

    assert code == ExitCode.CLEAN
    assert await names(rig) == {"by-hand-1"}
    assert "1 foreign orders were left alone" in said.text
    late = await order(rig, "mm-dead-4", group)
    async with rig.client() as exchange:
        with pytest.raises(ExchangeRejected):
            await exchange.place(late)


async def test_a_dry_run_shows_and_changes_nothing(rig: Rig) -> None:
    """Ours are listed with their ids, foreign ones counted."""
    await put(rig, "mm-dead-1", "by-hand-1")
    said = Said()

    assert await cancel_all(rig.settings(), live_surroundings(), dry_run=True, say=said) == 0
    assert await names(rig) == {"mm-dead-1", "by-hand-1"}
    assert "mm-dead-1" in said.text
    assert "by-hand-1" not in said.text


@pytest.mark.parametrize("typed", [CONFIRMATION, "yes", ""])
async def test_foreign_orders_go_only_after_the_very_words(rig: Rig, typed: str) -> None:
    """`--everything` asks; anything but the words cancels nothing at all."""
    await put(rig, "mm-dead-1", "by-hand-1")

    async def ask(prompt: str) -> str:
        assert CONFIRMATION in prompt
        return typed

    code = await cancel_all(rig.settings(), live_surroundings(), everything=True, ask=ask, say=Said())

    if typed == CONFIRMATION:
        assert (code, await names(rig)) == (ExitCode.CLEAN, set())
    else:
        assert (code, await names(rig)) == (ExitCode.ORDERS_MAY_REST, {"mm-dead-1", "by-hand-1"})


async def test_cancel_all_uses_the_groups_of_the_ledger(rig: Rig) -> None:
    """A group that a dead session left open is triggered, though nothing of it rests now."""
    await rig.run_bot(until=is_quoting)
    with open_reader(rig.data_dir / "ledger.sqlite3") as reader:
        (account,) = reader.accounts()
        known = {row.group_id for row in reader.groups(account)}
    import sqlite3

    with sqlite3.connect(rig.data_dir / "ledger.sqlite3") as books:
        books.execute("UPDATE groups SET triggered_at = NULL")
    books.close()
    said = Said()

    assert await cancel_all(rig.settings(), live_surroundings(), say=said) == 0
    assert f"{len(known)} open order groups" in said.text


async def test_cancel_all_beside_a_running_bot_warns_that_it_will_quote_again(rig: Rig) -> None:
    """The bot's quotes go at once; the command says who will bring them back, and how to stop that."""
    said = Said()

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading), "quoting")
        old = set(trading.fence.groups.values())
        assert await cancel_all(rig.settings(), live_surroundings(), say=said) == 0
        assert old <= trading.fence.triggered
        await eventually(lambda: is_quoting(trading), "quoting again", 15.0)

    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)
    assert "STOP_QUOTING" in said.text


async def test_cancel_all_that_cannot_reach_the_exchange_says_that_orders_may_rest(rig: Rig) -> None:
    """A refused key: exit code 2, no traceback."""
    said = Said()
    settings = rig.settings(KALSHI_API_KEY="00000000-0000-0000-0000-000000000000")

    assert await cancel_all(settings, live_surroundings(), say=said) == ExitCode.ORDERS_MAY_REST
    assert "ORDERS MAY REST" in said.text


async def test_another_bot_name_is_another_bot(rig: Rig) -> None:
    """Only the orders of BOT_NAME are ours."""
    await put(rig, "mm-dead-1", "other-dead-1")

    assert await cancel_all(rig.settings(BOT_NAME="other"), live_surroundings(), say=Said()) == 0
    assert await names(rig) == {"mm-dead-1"}


# --- flatten ---


async def buy(rig: Rig, count: int = 3) -> MarketTicker:
    """The account buys at the touch, by hand; gives the market."""
    async with rig.client() as exchange:
        markets = await exchange.markets(series_ticker="KXNHLGAME", status="open")
        market = next(m for m in markets if m.yes_ask is not None and m.yes_ask < m.grid.highest)
        ack = await exchange.place(
            NewOrder(
                client_order_id=ClientOrderId("by-hand-buy"),
                ticker=market.ticker,
                side=Side.BID,
                price=market.grid.highest,
                count=Count(count * CONTRACT),
                exchange_index=market.exchange_index,
                time_in_force=TimeInForce.IOC,
                post_only=False,
            )
        )
    assert ack.filled == count * CONTRACT
    await eventually_held(rig, market.ticker)
    return market.ticker


async def eventually_held(rig: Rig, ticker: MarketTicker) -> None:
    with trio.fail_after(5):
        while not (await rig.positions()).get(ticker):
            await trio.sleep(0.05)


async def test_flatten_closes_until_the_exchange_says_flat(rig: Rig) -> None:
    """Positions of the series are closed, leftovers that rest are swept first, foreign orders stay."""
    await buy(rig)
    await put(rig, "mm-dead-1", "by-hand-1")
    said = Said()

    assert await flatten(rig.settings(), live_surroundings(), say=said) == ExitCode.CLEAN
    assert await rig.positions() == {}
    assert await names(rig) == {"by-hand-1"}
    assert "flat, by the exchange's word" in said.text


def kinds_in(rig: Rig) -> set[str]:
    """Of all fills in the ledger."""
    with open_reader(rig.data_dir / "ledger.sqlite3") as reader:
        (account,) = reader.accounts()
        return {row.kind.value for row in reader.fills(account)}


def exits_in(rig: Rig) -> int:
    """Contracts that the ledger knows as traded by `mm flatten`, in orders that it knows as well."""
    with open_reader(rig.data_dir / "ledger.sqlite3") as reader:
        (account,) = reader.accounts()
        rows = [row for row in reader.fills(account) if row.kind.value == "exit"]
    assert all(closes_positions(row.fill.client_order_id) for row in rows if row.fill.client_order_id)
    return sum(row.fill.count for row in rows)


async def test_flatten_writes_its_orders_and_fills_to_the_ledger(rig: Rig) -> None:
    """What it did is known before the next start, which finds nothing more and agrees with the exchange."""
    surroundings = live_surroundings()
    async with rig.client() as exchange:
        account = exchange.account
    async with open_ledger(
        rig.data_dir / "ledger.sqlite3", account=account, runner=surroundings.runner, clock=surroundings.clock
    ) as ledger:
        ledger.record_session_start()
    await buy(rig)
    said = Said()
    assert await flatten(rig.settings(), surroundings, say=said) == ExitCode.CLEAN

    assert "not written" not in said.text
    with sqlite3.connect(rig.data_dir / "ledger.sqlite3") as ledger:
        orders = ledger.execute(
            "SELECT state, kind, order_id IS NOT NULL FROM orders WHERE client_order_id LIKE '%-flat%'"
        ).fetchall()
    assert orders
    assert set(orders) == {("done", "exit", 1)}
    booked = exits_in(rig)
    assert booked >= 3 * CONTRACT
    summary = await rig.run_bot(is_quoting)
    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)
    assert exits_in(rig) >= booked
    assert "unknown" not in kinds_in(rig)


async def test_flatten_gets_flat_without_a_usable_ledger(rig: Rig) -> None:
    """A damaged file is told, and stops nobody."""
    await buy(rig)
    rig.data_dir.mkdir(exist_ok=True)
    (rig.data_dir / "ledger.sqlite3").write_bytes(b"no database at all" * 1_000)
    said = Said()

    assert (
        await flatten(rig.settings(), live_surroundings(), tickers=list(await rig.positions()), say=said) == 0
    )
    assert await rig.positions() == {}
    assert "not written to the ledger" in said.text


async def test_flatten_names_a_market_and_leaves_the_others(rig: Rig) -> None:
    """A ticker that is not held closes nothing; a dry run sends nothing."""
    ticker = await buy(rig)
    held = await rig.positions()
    said = Said()

    assert await flatten(rig.settings(), live_surroundings(), tickers=["KXOTHER-1"], say=said) == 0
    assert f"left alone: {ticker}" in said.text
    assert await flatten(rig.settings(), live_surroundings(), dry_run=True, say=said) == 0
    assert "would sell 3" in said.text
    assert await rig.positions() == held


async def test_flatten_never_reaches_beyond_the_slippage(rig: Rig) -> None:
    """With a limit of 0 cents every order stands at the touch of its moment."""
    await buy(rig)
    said = Said()

    await flatten(
        rig.settings(FLATTEN_MAX_SLIPPAGE_CENTS="0"), live_surroundings(), deadline_s=20.0, say=said
    )

    sent = [line for line in said.lines if ": sell" in line]
    assert sent
    for line in sent:
        price = line.partition(" at ")[2].partition(" ")[0]
        assert f"touch {price} /" in line


async def test_flatten_without_a_counterparty_ends_with_1(rig: Rig) -> None:
    """Trading paused: nothing is hammered, what is still held is named."""
    ticker = await buy(rig)
    await rig.control("pause", ticker=ticker)
    said = Said()

    code = await flatten(rig.settings(), live_surroundings(), deadline_s=2.0, say=said)

    assert code == ExitCode.FAILED
    assert f"NOT FLAT after 2 s: {ticker} +3" in said.text
    assert len(said.lines) < 8


async def test_flatten_is_refused_while_a_bot_runs_here(rig: Rig) -> None:
    """The data folder's lock is the bot's; `beside_bot` goes ahead all the same."""

    async def script(trading: Trading) -> None:
        with pytest.raises(DataFolderInUse, match="--beside-bot"):
            await flatten(rig.settings(), live_surroundings(), say=Said())
        (rig.data_dir / "STOP_QUOTING").touch()
        await eventually(
            lambda: bool(trading.is_new_quoting_off) and not trading.desk.live, "switched off", 10.0
        )
        assert await flatten(rig.settings(), live_surroundings(), beside_bot=True, say=Said()) == 0
        assert await rig.positions() == {}
        with trio.fail_after(10.0):  # the bot books it, and asks what it was
            while not exits_in(rig) or "unknown" in kinds_in(rig):
                await trio.sleep(0.1)

    await buy(rig)
    summary = await rig.run_bot(script=script)

    assert (summary.exit_code, summary.positions_match) == (ExitCode.CLEAN, True)


async def test_flatten_sends_nothing_real_while_orders_are_on_paper(rig: Rig) -> None:
    """Without LIVE_TRADING_ENABLED it is refused, naming the setting."""
    with pytest.raises(ConfigError, match="LIVE_TRADING_ENABLED"):
        await flatten(rig.settings(LIVE_TRADING_ENABLED="false"), live_surroundings(), say=Said())


# --- status ---


async def test_status_of_a_running_bot(rig: Rig) -> None:
    """Pid, resting orders, positions and fills, while the ledger is being written; the bot does not notice."""

    async def script(trading: Trading) -> None:
        await eventually(lambda: is_quoting(trading) and trading.floor.positions.fills >= 2, "fills", 30.0)
        status = await look_at_status(rig.settings(), live_surroundings())
        assert status.pid is not None
        assert status.exit_code == 0
        assert status.exchange is not None
        assert len(status.exchange.orders) >= 4
        assert status.ledger is not None
        assert status.ledger.last is not None
        assert status.ledger.last.session == trading.ids.session
        assert status.ledger.today.fills >= 2
        assert "running" in status_text(status)

    assert (await rig.run_bot(script=script)).exit_code is ExitCode.CLEAN


async def test_status_after_the_end(rig: Rig) -> None:
    """How the last run ended, and positions of both sides side by side."""
    await rig.run_bot(until=lambda t: is_quoting(t) and t.floor.positions.fills >= 2)

    status = await look_at_status(rig.settings(), live_surroundings())
    document = json.loads(json.dumps(status_document(status)))

    assert (status.pid, status.exit_code) == (None, 0)
    assert document["bot"]["exit_code"] == 0
    assert document["bot"]["is_running"] is False
    assert document["orders"] == []
    held = {row["ticker"]: row["exchange"] for row in document["positions"]}
    assert {t: int(float(n) * 100) for t, n in held.items()} == await rig.positions()
    assert all(row["ledger"] == row["exchange"] for row in document["positions"])
    assert "exit code 0" in status_text(status)


async def test_status_says_when_orders_rest_without_a_bot(rig: Rig) -> None:
    """Where a bot has run and none runs now, an order of ours is worth exit code 2."""
    await rig.run_bot(until=is_quoting)
    await put(rig, "mm-dead-1", "by-hand-1")

    status = await look_at_status(rig.settings(), live_surroundings())

    assert status.exit_code == 2
    assert status.exchange is not None
    assert (len(status.exchange.orders), status.exchange.foreign_orders) == (1, 1)


async def test_status_without_an_exchange_or_without_a_ledger(rig: Rig, tmp_path: Path) -> None:
    """Each half is shown without the other; without both it ends with 1."""
    here = await look_at_status(rig.settings(MM_DATA_DIR=str(tmp_path / "empty")), live_surroundings())
    assert here.exit_code == 0
    assert "there is no ledger" in status_text(here)

    await rig.run_bot(until=is_quoting)
    unreachable = {"KALSHI_REST_URL": "http://127.0.0.1:9/trade-api/v2"}
    blind = await look_at_status(rig.settings(**unreachable), live_surroundings())
    assert blind.exchange is None
    assert blind.exchange_problem

    neither = await look_at_status(
        rig.settings(MM_DATA_DIR=str(tmp_path / "empty"), **unreachable), live_surroundings()
    )
    assert neither.exit_code == 1
    assert not (tmp_path / "empty").exists()


async def test_status_in_sim_without_a_running_exchange(tmp_path: Path) -> None:
    """Nothing is started for a look: the embedded exchange ended with its bot."""
    from mm.settings import load_settings

    settings = load_settings({"MM_DATA_DIR": str(tmp_path / "sim")}, environ={}, dotenv=Path("/nonexistent"))
    status = await look_at_status(settings, live_surroundings())

    assert "does not run" in status.exchange_problem
    said = Said()
    assert await cancel_all(settings, live_surroundings(), say=said) == 0
    assert "nothing rests there" in said.text

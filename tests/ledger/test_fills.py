"""Fills are recorded once, whatever way and however often they come."""

import pytest

from mm.domain.errors import InvariantError, LedgerError
from mm.domain.fill import Liquidity
from mm.domain.order import OrderState, Side
from mm.ledger import SettlementRow, Totals


async def test_the_same_fill_from_socket_and_poll_is_one_fill(books):
    """Only the first report of a fill is new."""
    first, second = books.fill(1), books.fill(2)
    async with books.open() as ledger:
        assert [first] == await ledger.record_fills([first])
        assert [second] == await ledger.record_fills([second, first], high_water_mark=second.ts)
        assert await ledger.record_fills([first, second]) == []

        assert [first, second] == await ledger.fills_of(first.ticker)
        assert ledger.statistics().duplicates == 3


async def test_a_fill_twice_in_one_batch_is_one_fill(books):
    """A page that repeats a row doubles nothing."""
    async with books.open() as ledger:
        assert [books.fill(1)] == await ledger.record_fills([books.fill(1), books.fill(1)])


async def test_one_trade_that_fills_two_orders_is_two_fills(books):
    """The key is order and trade, not the trade alone."""
    ours = books.fill(1), books.fill(1, order_id="o2", side=Side.ASK)
    async with books.open() as ledger:
        assert list(ours) == await ledger.record_fills(ours)


async def test_new_fills_come_back_in_exchange_order(books):
    """Time first, then trade id; the order of arrival says nothing."""
    same_time = books.fill(3).ts
    fills = [books.fill(3), books.fill(2, ts=same_time), books.fill(1)]
    async with books.open() as ledger:
        new = await ledger.record_fills(fills)

        assert [f.trade_id for f in new] == ["t0001", "t0002", "t0003"]
        assert new == await ledger.fills_of(new[0].ticker)


async def test_a_late_fill_takes_its_place(books):
    """What the poll finds later stands where the exchange had it."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(1), books.fill(3)])
        await ledger.record_fills([books.fill(2)])

        assert [int(f.trade_id[1:]) for f in await ledger.fills_of(books.fill().ticker)] == [1, 2, 3]


async def test_a_later_report_adds_what_the_first_lacked(books):
    """The poll has the finer time, the socket our client id; one row has both in the end."""
    precise = books.fill(1)
    spoken = books.fill(1, ts=precise.ts // 1000 * 1000, client_order_id="mm-s1-1")
    for first, second in [(precise, spoken), (spoken, precise)]:
        async with books.open(account=f"{first.ts}") as ledger:
            await ledger.record_fills([first])
            assert await ledger.record_fills([second]) == []

            (kept,) = await ledger.fills_of(first.ticker)
            assert (precise.ts, "mm-s1-1") == (kept.ts, kept.client_order_id)
            assert set() == ledger.take_changed()


async def test_a_finer_time_that_may_reorder_fills_names_the_market(books):
    """Two fills within one millisecond: the inventory of that market must be computed anew, once."""
    ms = books.fill(1).ts // 1000 * 1000
    a, b = books.fill(1, ts=ms), books.fill(2, ts=ms)
    async with books.open() as ledger:
        await ledger.record_fills([a, b])
        await ledger.record_fills([books.fill(1, ts=ms + 700), books.fill(2, ts=ms + 300)])

        assert {a.ticker} == ledger.take_changed()
        assert set() == ledger.take_changed()
        assert [f.trade_id for f in await ledger.fills_of(a.ticker)] == ["t0002", "t0001"]


async def test_a_corrected_fee_replaces_the_first_and_names_the_market(books):
    """Money that changed is never kept quiet."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(1)])
        await ledger.record_fills([books.fill(1, fee=8600, liquidity=Liquidity.TAKER)])

        (kept,) = await ledger.fills_of(books.fill().ticker)
        assert (kept.fee, kept.liquidity) == (8600, Liquidity.TAKER)
        assert {kept.ticker} == ledger.take_changed()
        assert ledger.statistics().corrected == 1


@pytest.mark.parametrize("change", [{"count": 300}, {"price": 4200}, {"side": Side.ASK}, {"ticker": "OTHER"}])
async def test_a_fill_that_contradicts_itself_is_a_bug(books, change):
    """Same key, other contents: nothing of that batch is written, and trading stops."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(1)])
        with pytest.raises(InvariantError, match="t0001"):
            await ledger.record_fills([books.fill(2), books.fill(1, **change)], high_water_mark=9)

        assert [books.fill(1)] == await ledger.fills_of(books.fill().ticker)
        assert None is await ledger.mark()


async def test_the_mark_never_goes_back(books):
    """An old page read late does not make the next poll start earlier."""
    async with books.open() as ledger:
        assert None is await ledger.mark()
        await ledger.record_fills([], high_water_mark=100)
        await ledger.record_fills([], high_water_mark=50)
        await ledger.record_fills([], high_water_mark=None)
        ledger.record_mark("settlements", 7)

        assert (await ledger.mark(), await ledger.mark("settlements")) == (100, 7)


async def test_fills_know_their_order_whichever_was_first(books):
    """A fill of a quote, of an exit, of an order named later, and of somebody else's order."""
    async with books.open() as ledger:
        ledger.record_order(books.order(1, order_id="o1", state=OrderState.RESTING))
        ledger.record_order(books.order(2, order_id="o2", reduce_only=True))
        ledger.record_order(books.order(3))
        await ledger.record_fills([books.fill(n, order_id=f"o{n}") for n in (1, 2, 3, 4)])
        ledger.record_order(books.order(3, order_id="o3"))
        ledger.record_foreign_order("o4")
        await ledger.flush()

        rows = books.connections[-1].execute("SELECT client_order_id, kind FROM fills ORDER BY trade_id")
        assert rows.fetchall() == [
            ("mm-s1-1", "quote"),
            ("mm-s1-2", "exit"),
            ("mm-s1-3", "quote"),
            (None, "foreign"),
        ]


async def test_a_fill_with_our_client_id_finds_an_order_without_venue_id(books):
    """The answer to the create was lost; the socket's fill carries our id."""
    async with books.open() as ledger:
        ledger.record_order(books.order(1, state=OrderState.UNKNOWN, reduce_only=True))
        await ledger.record_fills([books.fill(1, client_order_id="mm-s1-1")])

        assert books.connections[-1].execute("SELECT kind FROM fills").fetchall() == [("exit",)]


async def test_positions_are_exact_sums_of_fills(books):
    """Net, cash and fees to the micro-dollar; a settled market has no position any more."""
    fills = [
        books.fill(1, count=1037, price=4123, fee=1),
        books.fill(2, count=537, price=9999, side=Side.ASK, fee=33),
        books.fill(3, ticker="SETTLED"),
    ]
    async with books.open() as ledger:
        await ledger.record_fills(fills)
        ledger.record_settlement(
            SettlementRow(ticker="SETTLED", value=5000, settled_at=5, yes_count=200, no_count=0, fee=0)
        )

        (position,) = (await ledger.positions()).values()
        assert (position.net, position.bought, position.sold) == (500, 1037, 537)
        assert (position.cash, position.fees) == (-1037 * 4123 + 537 * 9999 - 34, 34)
        assert [fills[0].ticker] == await ledger.open_markets()


async def test_replay_gives_the_fills_of_open_markets_in_exchange_order(books, monkeypatch):
    """Market by market, in chunks that do not lose or repeat a fill at their borders."""
    monkeypatch.setattr("mm.ledger.reads.REPLAY_CHUNK", 3)
    fills = [books.fill(n, ticker=f"M{n % 2}", ts=1000 + n // 4) for n in range(13)]
    async with books.open() as ledger:
        await ledger.record_fills([*reversed(fills), books.fill(99, ticker="SETTLED")])
        ledger.record_settlement(
            SettlementRow(ticker="SETTLED", value=0, settled_at=5, yes_count=0, no_count=0, fee=0)
        )
        seen = []
        assert await ledger.replay_fills(seen.append) == 13

        assert sorted(fills, key=lambda f: (f.ticker, f.ts, f.trade_id)) == seen


async def test_totals_count_from_a_moment_on(books):
    """What a run's summary says about its own fills."""
    async with books.open() as ledger:
        await ledger.record_fills([books.fill(n) for n in (1, 2, 3)])

        assert Totals(fills=2, contracts=400, fees=17000) == await ledger.totals(since=books.fill(2).ts)
        assert Totals(fills=0, contracts=0, fees=0) == await ledger.totals(since=books.fill(4).ts)


async def test_accounts_do_not_see_each_other(books):
    """One file, two accounts: fills, marks, orders, groups, positions, sessions and alerts stay apart."""
    async with books.open(account="a") as one:
        await one.record_fills([books.fill(1)], high_water_mark=10)
        one.record_order(books.order(1, order_id="o1"))
        one.record_group("g1", exchange_index=0, epoch=1)
        one.record_session_start()
    async with books.open(account="b") as two:
        assert (
            await two.mark(),
            await two.positions(),
            await two.groups(),
            await two.live_orders(),
        ) == (None, {}, [], [])
        assert (
            await two.find_orders(["o1"]),
            await two.find_order("mm-s1-1"),
            await two.sessions(),
        ) == ({}, None, [])
        assert [books.fill(1)] == await two.record_fills([books.fill(1)])
        two.record_group_triggered("g1")
    async with books.open(account="a") as one:
        (group,) = await one.groups()
        assert None is group.triggered_at


async def test_a_closed_ledger_refuses(books):
    """Nothing is queued where nobody will write it."""
    async with books.open() as ledger:
        pass
    with pytest.raises(LedgerError, match="closed"):
        ledger.record_mark("x", 1)
    with pytest.raises(LedgerError, match="closed"):
        await ledger.record_fills([books.fill()])

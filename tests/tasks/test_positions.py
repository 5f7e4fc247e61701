"""Positions: each fill once, by fills alone, in the exchange's order; settled markets keep their result."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.domain.errors import InvariantError
from mm.domain.fill import Fill, Liquidity, TradeId
from mm.domain.inventory import InventoryState
from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, OrderId, Side
from mm.tasks import positions as positions_module
from mm.tasks.positions import Positions, check_signs

M = MarketTicker("M")


def make_fill(
    n: int = 1, count: int = 100, side: Side = Side.BID, price: int = 5_000, **changes: object
) -> Fill:
    fill = Fill(
        order_id=OrderId("o1"),
        trade_id=TradeId(f"t{n:04}"),
        ticker=M,
        side=side,
        price=Price(price),
        count=Count(count),
        fee=Money(1_000),
        liquidity=Liquidity.MAKER,
        ts=Micros(n * 1_000_000),
    )
    return attrs.evolve(fill, **changes)  # type: ignore[arg-type]


def test_a_fill_counts_once_whichever_way_it_comes() -> None:
    """Socket and poll tell the same fill: one fill, one fee, one notice."""
    told: list[Fill] = []
    positions = Positions(on_new_fill=told.append)

    assert positions.apply(make_fill())
    assert not positions.apply(attrs.evolve(make_fill(), client_order_id=None, ts=Micros(1_000_001)))

    assert (positions.net(M), positions.fills, positions.contracts, positions.fees) == (100, 1, 100, 1_000)
    assert len(told) == 1


def test_one_trade_with_two_of_our_orders_is_two_fills() -> None:
    """The key is order and trade: a trade id alone is not unique to us."""
    positions = Positions()
    positions.apply(make_fill())
    positions.apply(make_fill(order_id=OrderId("o2")))

    assert positions.net(M) == 200


def test_what_the_ledger_held_is_not_this_runs() -> None:
    """Loaded fills make the position, and neither the counters nor a notice; seen again they are known."""
    told: list[Fill] = []
    positions = Positions(on_new_fill=told.append)
    positions.load(make_fill())

    assert not positions.apply(make_fill())
    assert (positions.net(M), positions.fills, told) == (100, 0, [])


@settings(max_examples=60)
@given(
    order=st.permutations(range(8)),
    sides=st.lists(st.sampled_from(Side), min_size=8, max_size=8),
    prices=st.lists(st.integers(1, 99), min_size=8, max_size=8),
    doubles=st.lists(st.integers(0, 7), max_size=6),
)
def test_arrival_decides_nothing(
    order: list[int], sides: list[Side], prices: list[int], doubles: list[int]
) -> None:
    """Any order of arrival, with repetitions: the state is that of the exchange's order."""
    fills = [make_fill(i, 100 * (i + 1), sides[i], 100 * prices[i]) for i in range(8)]
    positions = Positions()
    for i in [*order, *doubles]:
        positions.apply(fills[i])
    truth = InventoryState.from_fills(fills)
    found = positions.inventory(M)

    assert (found.net, found.layers, found.realized_net) == (truth.net, truth.layers, truth.realized_net)
    assert positions.realized() == truth.realized_net
    check_signs(positions)


def test_a_fill_older_than_memory_counts_at_once_and_asks_for_a_rebuild(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The position is right immediately; the layers when the ledger has been read."""
    positions = Positions()
    fills = [make_fill(n) for n in range(1, 1_200)]
    for fill in fills[1:]:
        positions.apply(fill)
    positions.apply(fills[0])

    assert positions.net(M) == 119_900
    assert positions.to_rebuild == {M}
    positions.rebuilt(M, fills)
    assert (positions.net(M), positions.to_rebuild) == (119_900, set())
    assert positions.inventory(M).layers[0].ts == fills[0].ts


def test_a_rebuild_keeps_what_came_while_the_ledger_was_read() -> None:
    """A fill in memory that the read does not have yet is not lost."""
    positions = Positions()
    positions.apply(make_fill(1))
    positions.apply(make_fill(2))

    positions.rebuilt(M, [make_fill(1)])

    assert positions.net(M) == 200


def test_settlement_closes_at_its_value_once() -> None:
    """Net of fees; told twice it counts once; the market is over."""
    positions = Positions()
    positions.apply(make_fill(1, 1_000))

    assert positions.settle(M, Price(10_000), Micros(9))
    assert not positions.settle(M, Price(10_000), Micros(9))

    assert positions.realized() == 5_000_000 - 1_000
    assert positions.net(M) == 0


def test_markets_never_traded_are_not_settled() -> None:
    """Nothing of ours there."""
    assert not Positions().settle(M, Price(10_000), Micros(9))


def test_memory_of_seen_fills_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is the truth about older ones."""
    monkeypatch.setattr(positions_module, "REMEMBERED_FILLS", 100)
    positions = Positions()
    for n in range(1, 500):
        positions.apply(make_fill(n))

    assert len(positions._seen) == 100
    assert positions.fills == 499


def test_corrupt_books_are_noticed() -> None:
    """Bought less sold is what is held, or trading stops."""
    positions = Positions()
    positions.apply(make_fill())
    positions.inventory(M).bought = Count(7)

    with pytest.raises(InvariantError, match="M"):
        check_signs(positions)

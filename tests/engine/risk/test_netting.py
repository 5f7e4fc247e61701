"""Two markets of a game as one position."""

from hypothesis import given
from hypothesis import strategies as st

from mm.domain.inventory import InventoryState
from mm.domain.numbers import DOLLAR, Count, Micros, Money, Price
from mm.domain.order import Side
from mm.engine.risk.netting import netted

BID, ASK = Side.BID, Side.ASK


def held(*fills: tuple[Side, int, int, int]) -> InventoryState:
    """(side, cents, contracts, minute)."""
    inventory = InventoryState()
    for side, cents, contracts, minute in fills:
        inventory.apply(
            side, Price(cents * 100), Count(contracts * 100), Money(0), Micros(minute * 60_000_000)
        )
    return inventory


def test_a_yes_of_the_other_team_is_a_no_of_this_one() -> None:
    together = netted(held(), held((BID, 40, 10, 1)))
    assert (together.net, together.vwap_entry) == (-1_000, 6_000)
    assert together.mae(Price(6_500)) == 500
    assert together.duration_weighted_exposure(Micros(3 * 60_000_000)) == 1_000 * 2 * 60_000_000


def test_long_in_both_teams_is_flat() -> None:
    assert netted(held((BID, 55, 10, 1)), held((BID, 44, 10, 2))).is_flat


def test_the_older_layer_is_netted_first_whichever_market_it_is_of() -> None:
    together = netted(held((BID, 50, 10, 1), (BID, 52, 10, 3)), held((BID, 45, 15, 2)))
    assert together.net == 500
    assert together.vwap_entry == 5_200


def test_alone_it_is_the_markets_own() -> None:
    own = held((BID, 50, 10, 1))
    assert netted(own, held()) is own


fills = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 99), st.integers(1, 20), st.integers(0, 90)), max_size=6
)


@given(fills, fills)
def test_seen_from_either_side_it_is_the_same_position(
    a: list[tuple[Side, int, int, int]], b: list[tuple[Side, int, int, int]]
) -> None:
    """Net and entry mirror; what was opened and not closed is conserved."""
    one, other = held(*a), held(*b)
    here, there = netted(one, other), netted(other, one)
    assert here.net == -there.net == one.net - other.net
    if here.vwap_entry is not None and there.vwap_entry is not None:
        gap = here.vwap_entry + there.vwap_entry - DOLLAR
        assert gap == 0 or len({m for *_, m in (*a, *b)}) < len(a) + len(b), (
            "layers of one minute may net in any order"
        )

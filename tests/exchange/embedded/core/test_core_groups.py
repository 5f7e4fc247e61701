"""Order groups: the rolling limit, the fence of a triggered group, reset, delete, limit."""

import pytest

from mm.domain.numbers import parse_count
from mm.exchange.embedded.core.events import GroupUpdated
from mm.exchange.embedded.core.model import OrderStatus
from mm.exchange.embedded.core.rules import Rules


def _group(venue, limit="1", user="ann"):
    return venue.core.create_group(venue.now, user, contracts_limit=parse_count(limit))


def _news(venue):
    return [e.change.value for e in venue.take_events() if isinstance(e, GroupUpdated)]


def test_trips_only_over_the_limit(venue):
    """Exactly the limit is allowed; one hundredth of a contract more cancels the whole group."""
    group = _group(venue, "2")
    bid = venue.place("ann", "bid", "0.41", "10", group_id=group.group_id)
    ask = venue.place("ann", "ask", "0.45", "10", group_id=group.group_id)
    outside = venue.place("ann", "bid", "0.40", "10")
    venue.place("bob", "ask", "0.41", "2")
    assert not group.is_triggered
    venue.take_events()
    venue.place("bob", "bid", "0.45", "0.01")
    assert group.is_triggered
    assert _news(venue) == ["triggered"]
    assert [venue.order(o).status for o in (bid, ask)] == [OrderStatus.CANCELED] * 2
    assert venue.order(outside).status is OrderStatus.RESTING
    assert venue.order(bid).filled == 200  # the fills that took it over the limit stand
    assert group.orders == {}


def test_the_window_rolls(venue):
    """Fills that are 15 s old no longer count."""
    group = _group(venue, "2")
    venue.place("ann", "bid", "0.41", "10", group_id=group.group_id)
    venue.place("bob", "ask", "0.41", "2")
    venue.wait(15)
    venue.place("bob", "ask", "0.41", "2")
    assert not group.is_triggered
    venue.wait(14.999999)
    venue.place("bob", "ask", "0.41", "1")
    assert group.is_triggered


def test_one_sweep_fills_whole_and_then_the_group_acts(venue):
    """A limit is a brake, not a cap: an incoming order takes all that it meets before the group acts."""
    group = _group(venue, "1")
    venue.place("ann", "bid", "0.41", "5", group_id=group.group_id)
    venue.place("ann", "bid", "0.40", "5", group_id=group.group_id)
    assert venue.place("bob", "ask", "0.40", "8").fill_count == 800
    assert group.is_triggered
    assert venue.book() == ([], [])


def test_a_triggered_group_is_a_fence(venue):
    """Creates that arrive after the trigger are refused, until a reset."""
    group = _group(venue)
    mine = venue.place("ann", "bid", "0.41", "1", group_id=group.group_id)
    venue.core.trigger_group(venue.now, "ann", group.group_id)
    venue.core.trigger_group(venue.now, "ann", group.group_id)  # safe to repeat
    assert venue.order(mine).status is OrderStatus.CANCELED
    create = (venue.place, "ann", "bid", "0.41", "1")
    assert venue.refusal(*create, group_id=group.group_id)[:2] == (409, "order_group_triggered")
    assert _news(venue) == ["created", "triggered"]
    venue.core.reset_group(venue.now, "ann", group.group_id)
    assert venue.place("ann", "bid", "0.41", "1", group_id=group.group_id).remaining_count == 100


def test_a_takers_own_remainder_goes_with_its_group(venue):
    """A group order that trades as a taker counts too, and its rest does not survive the trigger."""
    group = _group(venue, "1")
    venue.place("bob", "ask", "0.41", "3")
    taker = venue.place("ann", "bid", "0.41", "5", group_id=group.group_id)
    assert taker.fill_count == 300
    assert venue.order(taker).status is OrderStatus.CANCELED
    assert venue.book() == ([], [])


def test_reset_zeroes_the_counter(venue):
    """After a reset the old fills do not count."""
    group = _group(venue, "2")
    venue.place("ann", "bid", "0.41", "10", group_id=group.group_id)
    venue.place("bob", "ask", "0.41", "2")
    venue.core.reset_group(venue.now, "ann", group.group_id)
    venue.place("bob", "ask", "0.41", "2")
    assert not group.is_triggered


def test_lowering_the_limit_triggers_at_once(venue):
    """The window already holds more than the new limit."""
    group = _group(venue, "5")
    mine = venue.place("ann", "bid", "0.41", "10", group_id=group.group_id)
    venue.place("bob", "ask", "0.41", "3")
    venue.core.set_group_limit(venue.now, "ann", group.group_id, parse_count("3"))
    assert not group.is_triggered
    venue.core.set_group_limit(venue.now, "ann", group.group_id, parse_count("2"))
    assert group.is_triggered
    assert venue.order(mine).status is OrderStatus.CANCELED
    assert _news(venue) == ["created", "limit_updated", "limit_updated", "triggered"]


def test_delete_cancels_and_forgets(venue):
    """Afterwards the group does not exist for anybody."""
    group = _group(venue)
    mine = venue.place("ann", "bid", "0.41", "1", group_id=group.group_id)
    venue.core.delete_group(venue.now, "ann", group.group_id)
    assert venue.order(mine).status is OrderStatus.CANCELED
    assert venue.core.groups("ann") == []
    assert venue.refusal(venue.place, "ann", "bid", "0.41", "1", group_id=group.group_id)[0] == 404
    assert venue.refusal(venue.core.trigger_group, venue.now, "ann", group.group_id)[0] == 404


def test_groups_belong_to_user_and_shard(venue):
    """Another user's group, or the wrong shard, is 404."""
    group = _group(venue)
    trigger = (venue.core.trigger_group, venue.now)
    assert venue.refusal(*trigger, "bob", group.group_id)[0] == 404
    assert venue.refusal(*trigger, "ann", group.group_id, exchange_index=1)[0] == 404
    assert venue.core.group("ann", group.group_id, exchange_index=0) is group
    assert venue.core.group("ann", group.group_id, exchange_index=1) is None
    other = venue.core.create_group(venue.now, "ann", contracts_limit=100, exchange_index=1)
    assert venue.refusal(venue.place, "ann", "bid", "0.41", "1", group_id=other.group_id)[0] == 404


@pytest.mark.parametrize("limit", ["0", "0.99", "1000000.01"])
def test_limits_out_of_range(venue, limit):
    """1 to 1,000,000 whole contracts."""
    create = (venue.core.create_group, venue.now, "ann")
    assert venue.refusal(*create, contracts_limit=parse_count(limit))[0] == 400


def test_number_of_groups_is_limited(make_venue):
    """One more than allowed is refused."""
    venue = make_venue(Rules(max_groups=1))
    _group(venue)
    assert venue.refusal(venue.core.create_group, venue.now, "ann", contracts_limit=100)[0] == 400


def test_amended_orders_stay_in_their_group(venue):
    """A price change keeps the membership."""
    group = _group(venue)
    mine = venue.place("ann", "bid", "0.41", "1", group_id=group.group_id)
    venue.amend("ann", mine, "0.42", "1")
    assert list(group.orders) == [mine.order_id]
    venue.core.trigger_group(venue.now, "ann", group.group_id)
    assert venue.book() == ([], [])

"""The guardian's sweep against an exchange in memory: what it does, in which order, and when it believes it is done."""

import threading
import time
from collections.abc import Callable

import attrs
import pytest

from mm.guard.http import NoAnswer
from mm.guard.protocol import Address, Budget, Hello
from mm.guard.sweep import Report, Sweep
from mm.guard.venue import Refused, Resting

HELLO = Hello(
    rest=Address(is_secure=False, host="127.0.0.1", port=1, path=""),
    key_id="k",
    key="p",
    prefix="mm-s-",
    budget=Budget(refill_per_s=1000, capacity=100, cancel_cost=2),
    time_limit_s=5.0,
    read_lag_s=0.05,
    long_read_lag_s=0.4,
)


@attrs.define(eq=False)
class Exchange:
    """Orders, groups, and everything that was asked, in order."""

    orders: dict[str, Resting] = attrs.field(factory=dict)
    calls: list[str] = attrs.field(factory=list)
    on_trigger: Callable[[str], None] = lambda group: None
    on_list: Callable[[], None] = lambda: None
    on_batch: Callable[[list[Resting]], None] = lambda part: None
    on_cancel: Callable[[Resting], None] = lambda order: None
    data_lag_s: float | None = 0.0
    """How old reads are by the exchange's own word; None: it does not say."""
    stale: list[Resting] = attrs.field(factory=list)
    """Orders that are gone, but still listed."""
    not_in_batches: set[str] = attrs.field(factory=set)
    """Orders that a batch fails to cancel."""
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def rest(self, order_id: str, group: str | None = None) -> None:
        self.orders[order_id] = Resting(order_id, "T", 0, group)

    def trigger(self, group_id: str, exchange_index: int) -> None:
        with self.lock:
            self.calls.append(f"trigger {group_id} {exchange_index}")
        self.on_trigger(group_id)
        for order in [o for o in self.orders.values() if o.group_id == group_id]:
            del self.orders[order.order_id]

    def resting(self) -> list[Resting]:
        self.calls.append("list")
        self.on_list()
        return [*self.orders.values(), *self.stale]

    def cancel_batch(self, orders: list[Resting]) -> list[str]:
        self.calls.append(f"batch {len(orders)}")
        self.on_batch(orders)
        wanted = [order.order_id for order in orders if order.order_id not in self.not_in_batches]
        done = {order_id for order_id in wanted if self.orders.pop(order_id, None) is not None}
        return [order.order_id for order in orders if order.order_id not in done]

    def cancel(self, order: Resting) -> None:
        self.calls.append(f"cancel {order.order_id}")
        self.on_cancel(order)
        if self.orders.pop(order.order_id, None) is None:
            raise Refused(404, "not_found")

    def data_time(self) -> float:
        self.calls.append("data time")
        if self.data_lag_s is None:
            raise NoAnswer("no")
        return time.time() - self.data_lag_s

    def count(self, start: str) -> int:
        return sum(1 for call in self.calls if call.startswith(start))


def sweep(exchange: Exchange, groups: dict[str, int] | None = None, **changes: object) -> Report:
    hello = HELLO._replace(**changes)
    return Sweep(hello, groups or {}, lambda: exchange, time.sleep, lambda text: None).run()


def failing(*errors: Exception) -> Callable[..., None]:
    """Fails once with each of them, then no more."""
    left = list(errors)

    def call(*_: object) -> None:
        if left:
            raise left.pop(0)

    return call


def always(error: Exception) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_groups_are_triggered_before_anything_is_listed() -> None:
    """Each on its shard; what they took needs no cancel."""
    exchange = Exchange()
    exchange.rest("a", "g1")
    exchange.rest("b", "g2")
    report = sweep(exchange, {"g1": 0, "g2": 3})
    assert report.is_proven
    assert report.triggered == 2
    assert sorted(exchange.calls[:2]) == ["trigger g1 0", "trigger g2 3"]
    assert exchange.count("batch") == 0
    assert "nothing rests" in str(report)


def test_what_no_group_took_is_cancelled_in_batches() -> None:
    """Twenty at a time."""
    exchange = Exchange()
    for number in range(45):
        exchange.rest(f"o{number}")
    report = sweep(exchange)
    assert report.is_proven
    assert report.cancelled == 45
    assert [call for call in exchange.calls if call.startswith("batch")] == [
        "batch 20",
        "batch 20",
        "batch 5",
    ]


def test_a_listing_that_lags_behind_a_trigger_costs_no_cancels() -> None:
    """Orders of a group that was just triggered are looked at again before tokens are spent on them."""
    exchange = Exchange()
    exchange.stale = [Resting("a", "T", 0, "g1")]
    seen = 0

    def catch_up() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            exchange.stale.clear()

    exchange.on_list = catch_up
    report = sweep(exchange, {"g1": 0})
    assert report.is_proven
    assert exchange.count("batch") == exchange.count("cancel") == 0


def test_an_order_that_a_trigger_left_resting_is_cancelled_all_the_same() -> None:
    """The exchange's listing is believed, not the trigger."""
    exchange = Exchange()
    exchange.rest("a", "g1")
    exchange.on_trigger = lambda group: exchange.orders.update(a=Resting("a", "T", 0, "other"))
    report = sweep(exchange, {"g1": 0})
    assert report.is_proven
    assert report.cancelled == 1


def test_clean_reads_count_only_past_the_last_write() -> None:
    """Two of them, and not before the exchange says that its reads are younger."""
    exchange = Exchange(data_lag_s=0.25)
    started = time.monotonic()
    report = sweep(exchange, {"g1": 0}, long_read_lag_s=3.0)
    assert report.is_proven
    assert 0.25 <= time.monotonic() - started < 1.5
    after_last_no = exchange.calls[len(exchange.calls) - 1 - exchange.calls[::-1].index("data time") :]
    assert after_last_no.count("list") == 1
    assert exchange.calls[-4:] == ["data time", "list", "data time", "list"]


def test_an_exchange_that_does_not_tell_its_freshness_is_given_the_long_lag() -> None:
    """It costs time, not the proof."""
    exchange = Exchange(data_lag_s=None)
    report = sweep(exchange, {"g1": 0})
    assert report.is_proven
    assert report.seconds >= 0.4


def test_an_order_that_appears_between_clean_reads_starts_the_count_anew() -> None:
    """A late create outside the groups is found."""
    exchange = Exchange()
    lists = 0

    def late() -> None:
        nonlocal lists
        lists += exchange.calls[-2] == "data time" if len(exchange.calls) > 1 else 0
        if lists == 2:
            lists += 1
            exchange.rest("late")

    exchange.on_list = late
    report = sweep(exchange)
    assert report.is_proven
    assert report.cancelled == 1
    assert exchange.calls[-1] == "list"


def test_a_batch_refused_for_the_budget_becomes_smaller() -> None:
    """It is refused whole, so half of it may pass."""
    exchange = Exchange()
    for number in range(20):
        exchange.rest(f"o{number}")

    def too_many(part: list[Resting]) -> None:
        if len(part) > 5:
            raise Refused(429, "too many requests")

    exchange.on_batch = too_many
    report = sweep(exchange)
    assert report.is_proven
    assert report.cancelled == 20
    assert exchange.count("batch 20") == 1
    assert exchange.count("batch 5") == 4


def test_one_cancel_that_fails_in_a_batch_is_sent_alone() -> None:
    """It does not stop its siblings."""
    exchange = Exchange()
    for name in ("a", "b", "c"):
        exchange.rest(name)

    exchange.not_in_batches = {"b"}
    exchange.on_cancel = failing(Refused(409, "trading_is_paused"), NoAnswer("cut"), Refused(429, "too many"))
    report = sweep(exchange)
    assert report.is_proven
    assert report.cancelled == 3
    assert exchange.count("batch 3") == 1
    assert exchange.count("cancel b") == 4
    assert exchange.orders == {}


def test_where_batches_do_not_work_single_cancels_do() -> None:
    """Whatever the exchange has against batches."""
    exchange = Exchange()
    exchange.rest("a")
    exchange.on_batch = always(Refused(500, "internal"))
    report = sweep(exchange)
    assert report.is_proven
    assert exchange.count("cancel a") == 1


@pytest.mark.parametrize(
    "error", [Refused(429, "too many"), Refused(503, ""), NoAnswer("cut"), Refused(409, "paused")]
)
def test_a_trigger_that_fails_is_tried_again(error: Exception) -> None:
    """Until it is done."""
    exchange = Exchange(on_trigger=failing(error, error))
    exchange.rest("a", "g1")
    report = sweep(exchange, {"g1": 0})
    assert report.is_proven
    assert report.triggered == 1
    assert exchange.count("trigger") == 3


def test_a_group_that_is_gone_counts_as_triggered() -> None:
    """It was deleted, and its orders with it; the listing has the last word anyway."""
    exchange = Exchange(on_trigger=always(Refused(404, "not_found")))
    report = sweep(exchange, {"g1": 0})
    assert report.is_proven
    assert report.untriggered == ()
    assert exchange.count("trigger") == 1


def test_a_hanging_shard_holds_up_nobody() -> None:
    """The other groups are triggered, and what rests is cancelled; but the proof waits for the fence."""
    release = threading.Event()

    def hang(group: str) -> None:
        if group == "g1":
            release.wait(1.5)

    exchange = Exchange(on_trigger=hang)
    exchange.rest("a", "g1")
    exchange.rest("b", "g2")
    gone_at: list[float] = []
    started = time.monotonic()

    def look() -> None:
        if not exchange.orders and not gone_at:
            gone_at.append(time.monotonic() - started)

    exchange.on_list = look
    report = sweep(exchange, {"g1": 0, "g2": 1})
    assert report.is_proven
    assert gone_at[0] < 1.4
    assert report.seconds >= 1.5


def test_an_untriggered_group_is_no_proof() -> None:
    """Nothing rests, yet an order on its way could still land: that is said."""
    exchange = Exchange(on_trigger=always(NoAnswer("cut")))
    report = sweep(exchange, {"g1": 0}, time_limit_s=1.5)
    assert not report.is_proven
    assert report.untriggered == ("g1",)
    assert "may still land" in str(report)
    assert "g1" in str(report)


def test_a_group_that_is_definitely_refused_does_not_keep_the_guardian_for_ever() -> None:
    """The exchange will not trigger it; clean reads have to do, and it is told."""
    exchange = Exchange(on_trigger=always(Refused(400, "invalid_parameters")))
    report = sweep(exchange, {"g1": 0})
    assert report.is_proven
    assert report.untriggered == ("g1",)
    assert "not triggered: g1" in str(report)


def test_an_exchange_that_cannot_be_asked_is_no_proof() -> None:
    """Out of time it says why."""
    exchange = Exchange(on_list=always(NoAnswer("Connection refused")))
    report = sweep(exchange, time_limit_s=0.5)
    assert not report.is_proven
    assert "Connection refused" in str(report)
    assert 3 <= exchange.count("list") <= 8


def test_orders_that_cannot_be_cancelled_are_named() -> None:
    """For the people who have to do it."""
    exchange = Exchange(on_batch=always(NoAnswer("cut")), on_cancel=always(NoAnswer("cut")))
    exchange.rest("stuck-1")
    report = sweep(exchange, time_limit_s=0.5)
    assert not report.is_proven
    assert report.remaining == ("stuck-1",)
    assert "stuck-1" in str(report)


def test_a_refused_key_ends_the_work_after_a_handful_of_requests() -> None:
    """There is nothing that trying could change."""
    error = Refused(401, "authentication_error")
    exchange = Exchange(on_list=always(error), on_trigger=always(error))
    report = sweep(exchange, {"g1": 0})
    assert not report.is_proven
    assert "key" in report.problem
    assert len(exchange.calls) <= 10
    assert report.seconds < 4


def test_a_refused_timestamp_is_no_refused_key() -> None:
    """The clock may be put right while it tries."""
    exchange = Exchange(on_list=failing(*[Refused(401, "header_timestamp_expired")] * 3))
    assert sweep(exchange).is_proven


def test_a_bot_that_takes_over_calls_it_off() -> None:
    """Between two steps, whatever it was doing."""

    class Relieved(Exception):
        pass

    exchange = Exchange(on_list=always(NoAnswer("cut")))
    pauses = 0

    def pause(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            raise Relieved

    work = Sweep(HELLO, {}, lambda: exchange, pause, lambda text: None)
    with pytest.raises(Relieved):
        work.run()


def test_the_newest_groups_are_triggered_first() -> None:
    """Those of earlier epochs are most likely empty."""
    exchange = Exchange()
    sweep(exchange, {f"g{number}": 0 for number in range(40)})
    firsts = [call for call in exchange.calls if call.startswith("trigger")][:4]
    assert set(firsts) <= {f"trigger g{number} 0" for number in range(28, 40)}

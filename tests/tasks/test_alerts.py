"""Alerts reach people once, in batches, whatever the receiver does, and never hold up the caller."""

import random
import re

import attrs
import pytest
import trio

from mm.domain.errors import LedgerError
from mm.domain.fill import Fill, Liquidity
from mm.domain.order import Side
from mm.ledger import AlertRow, open_ledger
from mm.tasks.alerts import AlertKind, AlertOptions, Severity, open_alerts
from mm.tasks.senders import MessageRefused, NotSent, ReceiverGone, Route

START = 1_796_166_601_000_000


class Receiver:
    """Takes messages, or answers with the errors queued for it, one each."""

    def __init__(self):
        self.messages = []
        self.times = []
        self.answers = []
        self.pause = 0.0

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if self.answers:
            answer = self.answers.pop(0)
            if answer is not None:
                raise answer
        self.messages.append(message.text)
        return self.pause


@attrs.define
class Book:
    """A ledger's alert part, in memory."""

    left: dict = attrs.field(factory=dict)
    is_full: bool = False

    def record_alert(self, row):
        if self.is_full:
            raise LedgerError("disk full")
        self.left[row.alert_id] = row

    def record_alert_delivered(self, alert_id):
        if self.is_full:
            raise LedgerError("disk full")
        del self.left[alert_id]

    async def undelivered_alerts(self):
        return list(self.left.values())


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def open_(receiver):
    def opener(**options):
        settings = {
            "routes": [Route(name="test", sender=receiver)],
            "clock": lambda: START + round(trio.current_time() * 1e6),
            "jitter": random.Random(1).random,
            "session": "s1",
        }
        return open_alerts(**(settings | options))

    return opener


def fill(n=1, **changes):
    return attrs.evolve(
        Fill(
            order_id="o1",
            trade_id=f"t{n}",
            ticker="KXNHLGAME-26DEC01TORBOS-TOR",
            side=Side.BID,
            price=4100,
            count=1037,
            fee=8500,
            liquidity=Liquidity.MAKER,
            ts=START,
        ),
        **changes,
    )


async def test_a_warning_is_delivered_at_once(open_, receiver, autojump_clock):
    """No window for what matters."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.risk("mae", "MAE failsafe in TORBOS: flatten")
        await trio.sleep(0.01)

        assert receiver.messages == ["[WARNING] MAE failsafe in TORBOS: flatten"]
        nursery.cancel_scope.cancel(reason="done")


async def test_placements_are_one_message_a_window_with_counts_per_market(open_, receiver, autojump_clock):
    """A busy slate does not flood: 5 minutes of 20 orders a second are 5 messages."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        for n in range(300 * 20):
            alerts.placed(f"M{n % 16:02d}", 1000)
            await trio.sleep(0.05)
        await trio.sleep(1)

        assert 4 <= len(receiver.messages) <= 5
        assert re.match(
            r"\[INFO\] placed 120[01] orders \(120[01]0 contracts\) in 16 markets within 60 s: M00 7[56], M01 75,",
            receiver.messages[0],
        )
        assert receiver.messages[0].endswith(", +6 markets")
        nursery.cancel_scope.cancel(reason="done")


async def test_fills_of_a_few_seconds_are_one_message(open_, receiver, autojump_clock):
    """Sums first, eight lines, and the number of the others."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.filled(fill(1), position=-1037)
        await trio.sleep(6)
        for n in range(12):
            alerts.filled(fill(n, side=Side.ASK), position=1037)
        await trio.sleep(6)

        first, second = receiver.messages
        assert (
            first
            == "[INFO] KXNHLGAME-26DEC01TORBOS-TOR: bought 10.37 at 0.4100 (maker, fee $0.0085), position -10.37"
        )
        assert second.startswith("[INFO] 12 fills, 124.44 contracts, fees $0.102\n")
        assert "sold 10.37 at 0.4100" in second
        assert "position +10.37" in second
        assert second.endswith("\n  +4 more")
        nursery.cancel_scope.cancel(reason="done")


async def test_the_same_cause_is_told_once_and_then_as_a_count(open_, receiver, autojump_clock):
    """An error in a loop, ten times a second for two minutes: one alert, then one a minute with its count."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        for _ in range(1200):
            alerts.error("feed:TORBOS", "book out of sync in TORBOS")
            await trio.sleep(0.1)
        alerts.error("feed:OTHER", "book out of sync in OTHER")
        await trio.sleep(200)

        assert receiver.messages[0] == "[WARNING] book out of sync in TORBOS"
        assert "(599 more times in 60 s)" in receiver.messages[1] or "(600 more" in receiver.messages[1]
        told = "\n".join(receiver.messages)
        assert told.count("OTHER") == 1
        assert len(receiver.messages) <= 5
        alerts.error("feed:TORBOS", "book out of sync in TORBOS")
        await trio.sleep(0.1)
        assert receiver.messages[-1] == "[WARNING] book out of sync in TORBOS"
        nursery.cancel_scope.cancel(reason="done")


async def test_a_cause_that_grows_worse_is_told_again(open_, receiver, autojump_clock):
    """A count of warnings does not hide the first critical one."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        for severity in (Severity.WARNING, Severity.WARNING, Severity.CRITICAL):
            alerts.risk("drift", f"books differ {severity.name}", severity=severity)
        await trio.sleep(3)

        assert receiver.messages[0] == (
            "[CRITICAL] books differ CRITICAL\n"
            "[WARNING] books differ WARNING\n"
            "[WARNING] books differ WARNING (1 more time in 60 s)"
        )
        nursery.cancel_scope.cancel(reason="done")


async def test_messages_keep_their_distance(open_, receiver, autojump_clock):
    """Not more than one message in two seconds; what comes meanwhile travels together, worst first."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        for n in range(40):
            severity = Severity.CRITICAL if n == 39 else Severity.WARNING
            alerts.error(f"e{n}", f"error {n}", severity=severity)
            await trio.sleep(0.1)
        await trio.sleep(3)

        gaps = [b - a for a, b in zip(receiver.times, receiver.times[1:], strict=False)]
        assert min(gaps) >= 2
        assert sum(m.count("error ") for m in receiver.messages) == 40
        assert any(m.startswith("[CRITICAL] error 39") for m in receiver.messages)
        nursery.cancel_scope.cancel(reason="done")


async def test_the_wait_that_429_asks_for_is_kept(open_, receiver, autojump_clock):
    """Nothing is sent before `retry_after`, and the alert is not lost."""
    receiver.answers = [NotSent("429", retry_after=7.5), NotSent("429", retry_after=0.3)]
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.error("e", "one")
        await trio.sleep(20)

        first, second, third = receiver.times
        assert second - first >= 7.5
        assert 0.3 <= third - second < 1
        assert receiver.messages == ["[WARNING] one"]
        assert alerts.statistics().retries == 2
        nursery.cancel_scope.cancel(reason="done")


async def test_a_failing_receiver_is_asked_less_and_less_often(open_, receiver, autojump_clock):
    """An hour of 500s: backoff up to a minute, newest state delivered after it, with the time it is about."""
    receiver.answers = [NotSent("500")] * 30
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.error("e", "one")
        await trio.sleep(3600)

        gaps = [b - a for a, b in zip(receiver.times, receiver.times[1:], strict=False)]
        assert gaps[0] <= 1
        assert 30 <= gaps[15] <= 60
        assert receiver.messages == ["[WARNING] one (at 2026-12-01 23:10:01 UTC)"]
        nursery.cancel_scope.cancel(reason="done")


async def test_a_pause_that_the_receiver_announces_is_kept(open_, receiver, autojump_clock):
    """Its allowance is used up: wait before the next message."""
    receiver.pause = 9.0
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.error("a", "one")
        await trio.sleep(1)
        alerts.error("b", "two")
        await trio.sleep(20)

        assert receiver.times[1] - receiver.times[0] >= 9
        nursery.cancel_scope.cancel(reason="done")


async def test_too_much_drops_info_first_and_counts(open_, receiver, autojump_clock):
    """During an outage what matters survives, bounded, and the rest is counted."""
    receiver.answers = [NotSent("down", retry_after=100)]
    async with open_(options=AlertOptions(capacity=10)) as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.error("first", "first")
        await trio.sleep(1)
        for n in range(12):
            alerts.tell(AlertKind.START, f"i{n}", f"info {n}", severity=Severity.INFO)
        for n in range(4):
            alerts.error(f"c{n}", f"critical {n}", severity=Severity.CRITICAL)
        assert alerts.statistics().waiting == 10
        assert alerts.statistics().dropped[Severity.INFO] == 7
        await trio.sleep(200)

        told = "\n".join(receiver.messages)
        assert told.startswith("[CRITICAL] critical 0")
        assert (told.count("critical"), told.count("first"), told.count("info")) == (4, 1, 0)
        assert "5 notices left out while this was not reached" in told
        nursery.cancel_scope.cancel(reason="done")


async def test_a_refused_message_is_dropped_and_the_next_one_goes(open_, receiver, autojump_clock):
    """One bad text does not block the others."""
    receiver.answers = [MessageRefused("400")]
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.error("a", "bad")
        await trio.sleep(1)
        alerts.error("b", "good")
        await trio.sleep(3)

        assert receiver.messages == ["[WARNING] good"]
        assert alerts.statistics().dropped[Severity.WARNING] == 1
        nursery.cancel_scope.cancel(reason="done")


async def test_a_webhook_that_is_gone_is_not_hammered(open_, receiver, autojump_clock):
    """One try in five minutes; repaired, everything that waited is told."""
    receiver.answers = [ReceiverGone("404")] * 3
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        alerts.error("a", "one")
        await trio.sleep(1000)

        assert len(receiver.times) == 4
        assert len(receiver.messages) == 1
        nursery.cancel_scope.cancel(reason="done")


async def test_the_end_of_the_block_sends_what_is_left(open_, receiver, autojump_clock):
    """Open batches, counts and the stop, without any task running, inside a cancelled scope."""
    with trio.CancelScope() as scope:
        async with open_() as alerts:
            alerts.placed("M1", 1000)
            alerts.filled(fill())
            alerts.error("e", "trouble")
            alerts.error("e", "trouble")
            alerts.stopped("stopped: nothing rests")
            scope.cancel(reason="test")
            await trio.sleep(1)

    (message,) = receiver.messages
    for part in ("placed 1 order ", "bought 10.37", "trouble (1 more time", "stopped: nothing rests"):
        assert part in message


async def test_the_end_of_the_block_is_bounded(open_, receiver, autojump_clock):
    """A dead receiver holds up the exit by three seconds at most, a gone one not at all."""
    receiver.answers = [NotSent("500")] * 100
    async with open_() as alerts:
        alerts.error("e", "trouble")
        started = trio.current_time()
    assert trio.current_time() - started <= 3
    assert alerts.statistics().dropped[Severity.WARNING] == 1

    receiver.answers = [ReceiverGone("404")] * 100
    async with open_() as alerts:
        alerts.error("e", "trouble")
        started = trio.current_time()
    assert trio.current_time() == started


async def test_last_words_need_no_task_and_go_first(open_, receiver, autojump_clock):
    """Tried again within the deadline, also in a cancelled scope."""
    receiver.answers = [NotSent("500"), NotSent("429", retry_after=1)]
    async with open_() as alerts:
        alerts.error("e", "waiting")
        with trio.CancelScope() as scope:
            scope.cancel(reason="test")
            assert await alerts.send_now(AlertKind.STOP, "2 orders may rest")
        assert receiver.messages == ["[CRITICAL] 2 orders may rest"]


async def test_last_words_that_fail_are_kept_for_the_next_run(open_, receiver, autojump_clock):
    """The deadline holds, the answer is False, and the next run tells it."""
    book = Book()
    receiver.answers = [NotSent("500")] * 1000
    async with open_(book=book) as alerts:
        started = trio.current_time()
        assert not await alerts.send_now(AlertKind.STOP, "2 orders may rest")
        assert trio.current_time() - started == pytest.approx(5)
    receiver.answers = []
    async with open_(book=book, session="s2"):
        pass

    assert receiver.messages == [
        "[CRITICAL] from an earlier run: 2 orders may rest (at 2026-12-01 23:10:01 UTC)"
    ] or receiver.messages == ["[CRITICAL] from an earlier run: 2 orders may rest"]
    assert book.left == {}


async def test_without_a_webhook_alerts_are_only_logged_and_shown(open_, autojump_clock):
    """Nothing piles up, nothing fails; last words say that nobody got them."""
    async with open_(routes=[]) as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        for n in range(500):
            alerts.placed("M1", 1000)
            alerts.error(f"e{n}", f"error {n}")
        assert not await alerts.send_now(AlertKind.STOP, "last")
        assert alerts.statistics().waiting == 0
        assert [a.text for a in alerts.recent][-2:] == ["error 499", "last"]
        assert len(alerts.recent) == 20
        nursery.cancel_scope.cancel(reason="done")


async def test_a_ledger_that_fails_does_not_stop_the_alert(open_, receiver, autojump_clock):
    """ "The disk is full" must get out although it cannot be written down."""
    async with open_(book=Book(is_full=True)) as alerts:
        alerts.error("ledger", "the disk is full", severity=Severity.CRITICAL)

    assert receiver.messages == ["[CRITICAL] the disk is full"]


async def test_a_ledger_is_a_book(open_, receiver, tmp_path, autojump_clock):
    """With the real ledger: kept over a run, told by the next, forgotten then."""

    async def inline(work):
        return work()

    def ledger():
        return open_ledger(
            tmp_path / "ledger.sqlite3", account="a", runner=inline, clock=lambda: START, session="s"
        )

    async with ledger() as book:
        book.record_alert(AlertRow(alert_id="s0-1", raised_at=START, kind="stop", text="orders may rest"))
    async with ledger() as book, open_(book=book):
        pass
    async with ledger() as book:
        assert await book.undelivered_alerts() == []
    assert receiver.messages == ["[CRITICAL] from an earlier run: orders may rest"]


async def test_a_message_never_exceeds_what_discord_takes(open_, receiver, autojump_clock):
    """Long texts are cut, many texts are spread."""
    async with open_() as alerts, trio.open_nursery() as nursery:
        await nursery.start(alerts.run)
        for n in range(10):
            alerts.error(f"e{n}", f"error {n} " + "x" * 5000)
        await trio.sleep(30)

        assert max(len(m) for m in receiver.messages) <= 2000
        assert sum(m.count("error ") for m in receiver.messages) == 10
        nursery.cancel_scope.cancel(reason="done")

"""The bot's side of the guardian: groups acknowledged, deaths noticed, freezes told. In memory, on a virtual clock."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mm.domain.numbers import SECOND, Micros
from mm.domain.order import GroupId
from mm.exchange.port import ExchangeUnavailable
from mm.guard.protocol import LineSplitter, decode, decode_hello, encode
from mm.settings import Secret
from mm.tasks.guardian import Guardian, GuardianConfig, GuardianGone, open_guardian
from mm.tasks.guardian_process import GuardianCommand, GuardianProcess

CONFIG = GuardianConfig(
    rest_url="https://venue.example:8443/trade-api/v2",
    key_id="key-1",
    key=Secret("the private key"),
    prefix="mm-s1-",
    webhook_url=Secret("https://hooks.example/token"),
)


@attrs.define(eq=False)
class FakeGuardian:
    """A guardian in memory that does as the test says."""

    pid: int
    commands: trio.abc.SendStream
    answers: trio.abc.ReceiveStream
    _hears: trio.abc.ReceiveStream
    _says: trio.abc.SendStream
    heard: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    is_deaf: bool = False
    acknowledges: bool = True
    obeys_goodbye: bool = True
    refuses: bool = False
    was_killed: bool = False
    was_left: bool = False
    saw_end: bool = False
    gone: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def live(self) -> None:
        splitter = LineSplitter()
        with self.scope:
            while data := await self._hears.receive_some(65_536):
                for line in splitter.feed(bytes(data)):
                    await self._answer(*decode(line))
            self.saw_end = True
        with trio.CancelScope(shield=True):
            await self._says.aclose()
        self.gone.set()

    async def _answer(self, kind: str, message: dict[str, Any]) -> None:
        if self.is_deaf:
            return
        self.heard.append((kind, message))
        if kind == "hello":
            decode_hello(message)
            await self.say("refused", reason="no such key") if self.refuses else await self.say("ready")
        elif kind == "group" and self.acknowledges:
            await self.say("group", id=message["id"])
        elif kind == "beat":
            await self.say("beat", n=message["n"])
        elif kind == "goodbye" and self.obeys_goodbye:
            self.scope.cancel()
            await trio.lowlevel.checkpoint()

    async def say(self, kind: str, **content: Any) -> None:
        await self._says.send_all(encode(kind, **content))

    def kill(self) -> None:
        if not self.gone.is_set():
            self.was_killed = True
            self.scope.cancel()

    async def wait(self) -> None:
        await self.gone.wait()

    def leave(self) -> None:
        self.was_left = True

    def count(self, kind: str) -> int:
        return sum(1 for heard, _ in self.heard if heard == kind)

    @property
    def groups(self) -> list[str]:
        return [message["id"] for kind, message in self.heard if kind == "group"]


@attrs.define(eq=False)
class World:
    """Guardians as they were started, what the bot was told, and a wall clock that can jump."""

    nursery: trio.Nursery
    started: list[FakeGuardian] = attrs.field(factory=list)
    prepare: Callable[[FakeGuardian], None] = lambda guardian: None
    told: list[str] = attrs.field(factory=list)
    frozen: list[float] = attrs.field(factory=list)
    jumped: int = 0
    cannot_start: bool = False

    async def spawn(self, command: GuardianCommand) -> GuardianProcess:
        await trio.sleep(0.01)
        if self.cannot_start:
            raise OSError("no more processes")
        hears_from, hears = trio.testing.memory_stream_one_way_pair()
        says, said_to = trio.testing.memory_stream_one_way_pair()
        fake = FakeGuardian(100 + len(self.started), hears_from, said_to, hears, says)
        self.prepare(fake)
        self.started.append(fake)
        self.nursery.start_soon(fake.live)
        return fake

    def clock(self) -> Micros:
        return Micros(int(trio.current_time() * SECOND) + self.jumped)

    @asynccontextmanager
    async def guardian(self, config: GuardianConfig = CONFIG) -> AsyncGenerator[Guardian, None]:
        async with open_guardian(
            config,
            clock=self.clock,
            spawn=self.spawn,
            on_lost=lambda reason: self.told.append("lost"),
            on_back=lambda: self.told.append("back"),
            on_frozen=self._on_frozen,
        ) as guardian:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guardian.run)
                yield guardian
                nursery.cancel_scope.cancel()

    def _on_frozen(self, gap_s: float) -> None:
        self.told.append("frozen")
        self.frozen.append(gap_s)


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    async with trio.open_nursery() as nursery:
        yield World(nursery)
        nursery.cancel_scope.cancel()


G1, G2, G3 = GroupId("g-1"), GroupId("g-2"), GroupId("g-3")


async def test_the_guardian_is_told_whom_to_guard_before_anything_else(
    autojump_clock: MockClock, world: World
) -> None:
    """The hello comes first and holds address, key, prefix and webhook."""
    async with world.guardian() as guardian:
        assert guardian.is_on_duty
        assert guardian.pid == 100
        kind, message = world.started[0].heard[0]
        hello = decode_hello(message)
        assert kind == "hello"
        assert (hello.rest.host, hello.rest.port, hello.rest.path) == ("venue.example", 8443, "/trade-api/v2")
        assert hello.rest.is_secure
        assert (hello.key_id, hello.key, hello.prefix) == ("key-1", "the private key", "mm-s1-")
        assert hello.webhook is not None
        assert hello.webhook.path == "/token"


async def test_a_group_counts_as_acknowledged_only_when_the_guardian_says_so(
    autojump_clock: MockClock, world: World
) -> None:
    """`acknowledge` returns after the answer, not after the sending."""
    async with world.guardian() as guardian:
        fake = world.started[0]
        fake.acknowledges = False
        with trio.move_on_after(1) as impatient:
            await guardian.acknowledge(G1, 0)
        assert impatient.cancelled_caught
        await fake.say("group", id=G1)
        await guardian.acknowledge(G1, 0)
        assert ("group", {"id": G1, "exchange_index": 0}) in fake.heard


async def test_it_beats_four_times_a_second(autojump_clock: MockClock, world: World) -> None:
    """The beats that a guardian counts on."""
    async with world.guardian():
        await trio.sleep(10.1)
        assert world.started[0].count("beat") == 40
        assert world.told == []


async def test_a_guardian_that_dies_is_replaced_and_told_every_group_that_still_counts(
    autojump_clock: MockClock, world: World
) -> None:
    """Forgotten groups are not guarded again; the bot hears of the loss and of the return."""
    async with world.guardian() as guardian:
        for group, index in ((G1, 0), (G2, 1), (G3, 2)):
            await guardian.acknowledge(group, index)
        guardian.forget(G2)
        await trio.sleep(0.1)
        assert ("forget", {"id": G2}) in world.started[0].heard
        world.started[0].kill()
        await trio.sleep(0.005)
        assert world.told == ["lost"]
        assert not guardian.is_on_duty
        await trio.sleep(0.1)
        assert world.told == ["lost", "back"]
        assert guardian.is_on_duty
        assert sorted(world.started[1].groups) == [G1, G3]
        assert guardian.restarts == 1


async def test_a_group_waits_for_the_next_guardian(autojump_clock: MockClock, world: World) -> None:
    """A guardian that dies in the middle of an acknowledgement costs time, not the group."""
    async with world.guardian() as guardian:
        world.started[0].acknowledges = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guardian.acknowledge, G1, 4)
            await trio.sleep(0.5)
            world.started[0].kill()
        assert world.started[1].groups[-1] == G1


async def test_without_a_guardian_no_group_is_acknowledged(autojump_clock: MockClock, world: World) -> None:
    """The error is one that quoting survives: nothing was done, try again later."""
    async with world.guardian() as guardian:
        world.cannot_start = True
        world.started[0].kill()
        started = trio.current_time()
        with pytest.raises(GuardianGone) as caught:
            await guardian.acknowledge(G1, 0)
        assert isinstance(caught.value, ExchangeUnavailable)
        assert trio.current_time() - started == pytest.approx(3.0)
        assert world.told == ["lost"]
        world.cannot_start = False
        await trio.sleep(3)
        assert world.told == ["lost", "back"]
        await guardian.acknowledge(G1, 0)


async def test_a_guardian_that_answers_no_beat_is_killed_and_replaced(
    autojump_clock: MockClock, world: World
) -> None:
    """A frozen guardian guards nothing. It must not act on the end of its pipe either, so it is killed first."""
    async with world.guardian() as guardian:
        await guardian.acknowledge(G1, 0)
        world.started[0].is_deaf = True
        await trio.sleep(4)
        assert world.started[0].was_killed
        assert not world.started[0].saw_end
        assert world.told == ["lost", "back"]
        assert world.started[1].groups == [G1]


async def test_a_guardian_that_acted_means_that_we_were_frozen(
    autojump_clock: MockClock, world: World
) -> None:
    """Told once, with the guardian's measure; the next guardian is on duty before the old one is called off."""
    async with world.guardian() as guardian:
        await guardian.acknowledge(G1, 0)
        old = world.started[0]
        await old.say("acting", silent_s=2.5)
        await trio.sleep(0.3)
        assert world.frozen == [2.5]
        assert world.told == ["lost", "frozen", "back"]
        assert guardian.is_on_duty
        assert world.started[1].groups == [G1]
        assert old.count("goodbye") == 1
        assert not old.was_killed


async def test_a_gap_in_our_own_beats_means_that_we_were_frozen(
    autojump_clock: MockClock, world: World
) -> None:
    """The wall clock tells of a machine that slept, too. One freeze is told once, however many notice it."""
    async with world.guardian() as guardian:
        await trio.sleep(1)
        world.started[0].obeys_goodbye = False
        world.jumped += 7 * SECOND
        await trio.sleep(0.3)
        assert world.frozen == [pytest.approx(7.25)]
        await world.started[0].say("acting", silent_s=7.1)
        await trio.sleep(1)
        assert world.frozen == [pytest.approx(7.25)]
        assert guardian.is_on_duty
        assert world.told == ["lost", "frozen", "back"]


async def test_a_second_freeze_is_told_again(autojump_clock: MockClock, world: World) -> None:
    """Recovery is needed after each of them."""
    async with world.guardian():
        for _ in range(2):
            await trio.sleep(5)
            world.jumped += 3 * SECOND
        await trio.sleep(1)
        assert len(world.frozen) == 2
        assert world.told == ["lost", "frozen", "back"] * 2


async def test_goodbye_ends_the_guardian_and_starts_no_other(autojump_clock: MockClock, world: World) -> None:
    """It is gone when `goodbye` returns, and was not killed."""
    async with world.guardian() as guardian:
        await guardian.acknowledge(G1, 0)
        await guardian.goodbye()
        assert world.started[0].gone.is_set()
        assert not world.started[0].was_killed
        await trio.sleep(5)
        assert len(world.started) == 1
        assert world.told == []
        with pytest.raises(GuardianGone):
            await guardian.acknowledge(G2, 0)


async def test_a_guardian_that_ignores_the_goodbye_is_killed(autojump_clock: MockClock, world: World) -> None:
    """No process is left behind."""
    world.prepare = lambda fake: setattr(fake, "obeys_goodbye", False)
    async with world.guardian() as guardian:
        await guardian.goodbye()
        assert world.started[0].was_killed
        assert world.started[0].gone.is_set()


async def test_without_a_goodbye_the_guardian_stays_at_work(autojump_clock: MockClock, world: World) -> None:
    """The end of the pipe tells it to act; nobody kills it or waits for it."""
    async with world.guardian() as guardian:
        await guardian.acknowledge(G1, 0)
    fake = world.started[0]
    await fake.gone.wait()
    assert fake.saw_end
    assert fake.was_left
    assert not fake.was_killed
    assert fake.count("goodbye") == 0


async def test_where_no_order_was_possible_the_guardian_is_dismissed(
    autojump_clock: MockClock, world: World
) -> None:
    """A start that failed before the first group leaves nothing to sweep."""
    async with world.guardian():
        pass
    assert world.started[0].count("goodbye") == 1
    assert world.started[0].gone.is_set()


async def test_what_may_rest_gets_a_guardian_even_at_the_very_end(
    autojump_clock: MockClock, world: World
) -> None:
    """The last guardian died and the exit is not proven: another one is started and left at work."""
    async with world.guardian() as guardian:
        await guardian.acknowledge(G1, 0)
        world.cannot_start = True
        world.started[0].kill()
        await trio.sleep(1)
        world.cannot_start = False
    assert len(world.started) == 2
    last = world.started[1]
    await last.gone.wait()
    assert last.groups == [G1]
    assert last.saw_end
    assert last.was_left


async def test_beats_go_on_while_a_cancelled_bot_sweeps(autojump_clock: MockClock, world: World) -> None:
    """The guardian does not take an orderly exit for a death."""
    with trio.CancelScope() as outside:
        async with world.guardian() as guardian:
            await guardian.acknowledge(G1, 0)
            outside.cancel()
            with trio.CancelScope(shield=True):
                before = world.started[0].count("beat")
                await trio.sleep(8)
                assert world.started[0].count("beat") == before + 32
                await guardian.goodbye()
    assert world.started[0].gone.is_set()
    assert world.told == []


@pytest.mark.parametrize("trouble", ["refused", "no process", "silence"])
async def test_a_guardian_that_does_not_start_is_told(
    autojump_clock: MockClock, world: World, trouble: str
) -> None:
    """Nothing is left of the attempt."""
    world.cannot_start = trouble == "no process"
    world.prepare = lambda fake: setattr(fake, "refuses" if trouble == "refused" else "is_deaf", True)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with world.guardian():
            pytest.fail("there is no guardian")
    found = caught.value.split(GuardianGone)
    assert found[0] is not None
    assert found[1] is None
    assert all(fake.gone.is_set() for fake in world.started)
    if trouble == "refused":
        assert "no such key" in str(found[0].exceptions[0])


def test_no_secret_shows() -> None:
    """Neither the key nor the webhook is in any repr."""
    guardian = Guardian(CONFIG, lambda: Micros(0), World.spawn)  # type: ignore[arg-type]
    for text in (repr(CONFIG), repr(guardian)):
        assert "private key" not in text
        assert "token" not in text

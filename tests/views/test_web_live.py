"""Live data: newest state wins, a slow browser costs nothing, and nothing is made for nobody."""

from itertools import pairwise

import attrs
import orjson
import pytest
import trio
import trio.testing

from mm.domain.numbers import Count, Micros, Money
from mm.views.web.live import MAX_WATCHERS, Live
from mm.views.web.payload import Payloads
from web_rig import NOW, WebRig, connected, make_fill, make_market, make_snapshot


def data_of(message: str) -> dict[str, object]:
    """The payload of one event."""
    assert message.startswith("data: ")
    assert message.endswith("\n\n")
    found: dict[str, object] = orjson.loads(message[6:])
    return found


async def test_a_browser_gets_the_whole_first_and_then_what_changed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One message a second; only the market that moved is in the second."""
    rig = WebRig()
    async with connected(rig) as client:
        await client.get("/api/events")
        first = data_of(await client.message())
        moved = make_market(1, position=Count(1000))
        rig.snapshot = attrs.evolve(
            rig.snapshot, markets=(rig.snapshot.markets[0], moved, rig.snapshot.markets[2]), fills=58
        )
        started = trio.current_time()
        second = data_of(await client.message())

    assert trio.current_time() - started == pytest.approx(1.0)
    assert first["whole"] is True
    assert len(first["markets"]) == 3  # type: ignore[arg-type]
    assert second["whole"] is False
    assert [m["ticker"] for m in second["markets"]] == [moved.ticker]  # type: ignore[attr-defined]
    assert second["totals"]["fills"] == 58  # type: ignore[index]
    assert "fills" not in second
    assert "gone" not in second


async def test_a_stalled_browser_misses_versions_and_then_sees_the_newest_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While it does not read nothing queues up for it, others go on; what it reads next is today's state."""
    rig = WebRig()
    async with connected(rig, lockstep=True) as slow, connected(rig, is_first=False) as quick:
        await slow.get("/api/events")
        await slow.message()
        await quick.get("/api/events")
        await quick.message()
        for n in range(1, 7):
            rig.snapshot = attrs.evolve(rig.snapshot, fills=100 + n)
            assert data_of(await quick.message())["totals"]["fills"] == 100 + n  # type: ignore[index]
        # What had been on the wire when it stalled is old; the next is whole and new.
        await slow.message()
        news = data_of(await slow.message())

    assert news["whole"] is True
    assert news["totals"]["fills"] == 106  # type: ignore[index]
    assert rig.app.live.skipped >= 4


async def test_a_browser_that_stalls_for_long_loses_its_connection_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After the write deadline it is not a watcher any more; the other one never noticed."""
    rig = WebRig()
    async with connected(rig, lockstep=True) as slow, connected(rig, is_first=False) as quick:
        await slow.get("/api/events")
        await slow.message()
        await quick.get("/api/events")
        arrivals = []
        for _ in range(20):
            await quick.message()
            arrivals.append(trio.current_time())
        assert rig.app.live.watchers == 1

    assert all(later - earlier <= 1.01 for earlier, later in pairwise(arrivals))


async def test_nothing_is_made_while_nobody_watches(autojump_clock: trio.testing.MockClock) -> None:
    """No browser, no snapshots; one that leaves ends them again."""
    rig = WebRig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.app.live.run)
        await trio.sleep(60)
        assert rig.made == 0
        with trio.move_on_after(5.5):
            await rig.app.live.watch(swallow)
        made = rig.made
        assert 5 <= made <= 7
        await trio.sleep(60)
        assert rig.made <= made + 1
        nursery.cancel_scope.cancel()


async def test_one_snapshot_serves_every_watcher(autojump_clock: trio.testing.MockClock) -> None:
    """Sixteen browsers cost as many snapshots as one."""
    rig = WebRig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.app.live.run)
        for _ in range(MAX_WATCHERS):
            nursery.start_soon(rig.app.live.watch, swallow)
        await trio.sleep(9.5)
        assert rig.app.live.is_full
        assert rig.made <= 11
        nursery.cancel_scope.cancel()


def test_acting_publishes_at_once() -> None:
    """The next version need not wait for the second to be over."""
    live = Live(source=make_snapshot)
    before = live._version
    live.publish()

    assert live._version == before + 1


def test_changes_name_what_is_gone_and_what_is_new() -> None:
    """Applied one after the other, the changes make the whole."""
    payloads = Payloads()
    first = payloads.changes(make_snapshot(3), 1)
    later = make_snapshot(4, recent_fills=(make_fill(0), make_fill(1)), at=Micros(NOW + 1))
    later = attrs.evolve(later, markets=later.markets[1:])
    second = payloads.changes(later, 2)

    rows = {m["ticker"]: m for m in first["markets"]}
    for ticker in second["gone"]:
        del rows[ticker]
    rows |= {m["ticker"]: m for m in second["markets"]}
    whole = payloads.whole(2)
    assert rows == {m["ticker"]: m for m in whole["markets"]}
    assert second["fills"] == whole["fills"]
    assert second["totals"] == whole["totals"]


def test_a_name_that_must_grow_is_sent_anew() -> None:
    """Short names are unique among what is shown: a newcomer can change an old row's."""
    payloads = Payloads()
    one = make_market(0, ticker="KXAGAME-26DEC01VGKMIN-VGK")
    other = make_market(0, ticker="KXBGAME-26DEC01VGKMIN-VGK", realized=Money(5))
    payloads.changes(make_snapshot(0, alerts=()), 1)
    shown = attrs.evolve(make_snapshot(0), markets=(one,))
    assert payloads.changes(shown, 2)["markets"][0]["name"] == "VGKMIN-VGK"
    both = payloads.changes(attrs.evolve(shown, markets=(one, other)), 3)

    assert len({m["name"] for m in both["markets"]}) == 2


async def swallow(data: bytes) -> None:
    """A browser that takes everything."""
    await trio.lowlevel.checkpoint()

"""However the bot ends, nothing of it rests afterwards: real processes, a test for every row of the promise.

`MM_GUARANTEE_ROUNDS` repeats the two deaths whose times are promised (`make guarantee`: 30).
"""

import os
import random
import resource
import signal
from pathlib import Path
from typing import Final

import pytest
import trio

from guarantee_rig import (
    FOREIGN,
    TTL_S,
    WITHIN_S,
    Ground,
    alert_sink,
    children,
    command_of,
    is_alive,
    is_guardian,
    memory_of,
)
from net_proxy import open_proxy
from terminal import Terminal

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

LATE_MS: Final = int(os.environ.get("MM_GUARANTEE_LATE_MS", "1500"))
"""How long creates are held up inside the exchange (`make guarantee`: a minute)."""
ROUNDS: Final = int(os.environ.get("MM_GUARANTEE_ROUNDS", "1"))
LATE_ENDS: Final = [signal.SIGTERM, signal.SIGKILL] if ROUNDS > 1 else [signal.SIGTERM]


TASKS: Final = (
    "mm.exchange.kalshi.client:KalshiExchange.keep_ready",
    "mm.exchange.kalshi.stream:KalshiFeed.run",
    "mm.ledger.ledger:Ledger.run_writer",
    "mm.tasks.alerts:Alerts.run",
    "mm.tasks.budget:WriteBudget.run",
    "mm.tasks.discovery:Discovery.run",
    "mm.tasks.events:EventReader.run",
    "mm.tasks.guardian:Guardian._beat",
    "mm.tasks.guardian:Guardian.run",
    "mm.tasks.killswitch:KillSwitch.run",
    "mm.tasks.monitor:Monitor.run",
    "mm.tasks.pull:Puller.run",
    "mm.tasks.pull:Puller.run_brake",
    "mm.tasks.pull:Puller.watch_reads",
    "mm.tasks.quoter:Quoter.run",
    "mm.tasks.reconcile:Reconciler.book_fills",
    "mm.tasks.reconcile:Reconciler.run",
    "mm.views.plain:PlainLines.run",
)
"""Everything that runs beside the trading. In memory every step of every task fails once: `make cancel-everywhere`."""
BUGGY: Final = Path(__file__).parents[1] / "support" / "buggy_bot.py"


async def test_a_bug_in_any_task(ground: Ground) -> None:
    """An exception out of a task: code 1, nothing rests, and the guardian is dismissed. All in turn, or one by chance."""
    tasks = TASKS if ROUNDS > 1 else (random.choice(TASKS),)
    for number, task in enumerate(tasks):
        flag = ground.folder / f"now-{number}"
        bot = await ground.start(program=(str(BUGGY), task, str(flag)))
        guardian = bot.guardian()
        assert guardian is not None
        flag.touch()
        await ground.nothing_rests(10.0, "an exception in a task")

        assert await bot.ended() == 1, f"{task}: {bot.errors[-2_000:]}"
        assert "planted" in bot.summary["reason"], task
        assert bot.summary["orders_resting_at_exit"] == 0, task
        assert not is_alive(guardian), task
    print(f"an exception in {len(tasks)} of {len(TASKS)} tasks, one after the other: {', '.join(tasks)}")


async def test_ctrl_c_again_and_again(ground: Ground) -> None:
    """However often: the sweep is not cut short."""
    bot = await ground.start()
    started = trio.current_time()
    with trio.move_on_after(WITHIN_S):
        while bot.process.poll() is None:
            bot.process.send_signal(signal.SIGINT)
            await trio.sleep(0.02)

    assert await bot.ended() == 0
    await ground.nothing_rests(1.0, "Ctrl-C fifty times a second, to the end of the process", since=started)
    assert (bot.summary["orders_resting_at_exit"], bot.summary["reason"]) == (0, "SIGINT")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
async def test_a_signal(ground: Ground, name: str) -> None:
    """Ctrl-C, kill, a hang-up where there is nothing to reload: code 0, nothing rests by both words, and the guardian is dismissed."""
    bot = await ground.start()
    guardian = bot.guardian()
    assert guardian is not None
    bot.process.send_signal(signal.Signals[name])
    await ground.nothing_rests(10.0, name)

    assert await bot.ended() == 0
    assert (bot.summary["orders_resting_at_exit"], bot.summary["positions_match"]) == (0, True)
    assert not is_alive(guardian)


async def test_a_closed_terminal(ground: Ground) -> None:
    """The window is closed (SIGHUP by the kernel, and nothing can be printed any more): as above, with code 0."""
    terminal = Terminal.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.drain)
        bot = await ground.start(terminal=terminal)
        guardian = bot.guardian()
        assert guardian is not None
        terminal.hang_up()
        await ground.nothing_rests(10.0, "a closed terminal")

        assert await bot.ended() == 0
        assert bot.summary["reason"] == "SIGHUP"
        assert (bot.summary["orders_resting_at_exit"], bot.summary["positions_match"]) == (0, True)
        assert not is_alive(guardian)


async def test_killed(ground: Ground) -> None:
    """SIGKILL (as by the out-of-memory killer): the guardian is done within 3 s, and gone within 4 s after that."""
    for _ in range(ROUNDS):
        bot = await ground.start()
        guardian = bot.guardian()
        assert guardian is not None
        bot.process.kill()
        took = await ground.nothing_rests(6.0, "SIGKILL")
        await ground.gone(guardian, 4.0, "the guardian")
        assert took < 3.0
        await bot.ended()


async def test_frozen(ground: Ground) -> None:
    """SIGSTOP: as above; after SIGCONT it finds out, catches up and quotes again under new groups.

    And a bot that thaws with a SIGTERM waiting leaves nothing, and says so with code 0.
    """
    bot = await ground.start()
    for _ in range(ROUNDS):
        before = await ground.ours()
        bot.process.send_signal(signal.SIGSTOP)
        took = await ground.nothing_rests(8.0, "freeze")
        assert took < 3.0
        bot.process.send_signal(signal.SIGCONT)
        await ground.until(lambda names: len(names) >= 4, "quotes after the thaw", bot, within_s=10.0)
        assert before.isdisjoint(await ground.ours())
        await ground.until(lambda names: bot.guardian() is not None, "a new guardian", bot)
        ground.pids.add(bot.guardian() or 0)
    bot.process.send_signal(signal.SIGSTOP)
    await ground.nothing_rests(8.0, "freeze")
    bot.process.send_signal(signal.SIGTERM)
    bot.process.send_signal(signal.SIGCONT)

    assert await bot.ended() == 0
    assert await ground.resting() == FOREIGN
    assert (bot.summary["orders_resting_at_exit"], bot.summary["positions_match"]) == (0, True)


async def test_killed_together_with_its_guardian(ground: Ground) -> None:
    """Nobody is left to act: the orders expire within QUOTE_TTL_SEC."""
    bot = await ground.start()
    guardian = bot.guardian()
    assert guardian is not None
    os.kill(guardian, signal.SIGKILL)
    bot.process.kill()
    await ground.nothing_rests(TTL_S + 1.0, f"bot and guardian killed together (QUOTE_TTL_SEC={TTL_S})")
    await bot.ended()


async def test_the_guardian_alone_is_killed(ground: Ground) -> None:
    """Another one comes within seconds and knows everything: a bot killed right afterwards leaves nothing either."""
    bot = await ground.start()
    first = bot.guardian()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    second = None
    with trio.fail_after(5.0):
        while second in (None, first):
            await trio.sleep(0.02)
            second = bot.guardian()
    assert second is not None
    ground.pids.add(second)
    await trio.sleep(1.0)  # it is told the groups before it counts
    bot.process.kill()
    await ground.nothing_rests(6.0, "SIGKILL after a change of guardians")
    await ground.gone(second, 4.0, "the second guardian")
    await bot.ended()


async def test_a_guardian_that_cannot_be_replaced_stops_quoting(ground: Ground) -> None:
    """Each new guardian is killed at once: without one the bot pulls its quotes and places none."""
    bot = await ground.start()
    killed: set[int] = set()

    async def hunt() -> None:
        while True:
            for pid in children(bot.pid):
                if is_guardian(pid):
                    killed.add(pid)
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hunt)
        await ground.nothing_rests(10.0, "no guardian to be had")
        await trio.sleep(1.0)
        assert await ground.ours() == set()
        nursery.cancel_scope.cancel()
    assert len(killed) > 1
    await ground.until(lambda names: len(names) >= 4, "quotes with a guardian again", bot)
    ground.pids.add(bot.guardian() or 0)
    bot.process.send_signal(signal.SIGTERM)
    assert await bot.ended() == 0
    assert await ground.resting() == FOREIGN


async def test_out_of_memory(ground: Ground) -> None:
    """No further page of memory: whether it fails and sweeps, lives on, or is killed: in the end nothing rests."""
    bot = await ground.start()
    guardian = bot.guardian()
    assert guardian is not None
    limit = memory_of(bot.pid)
    resource.prlimit(bot.pid, resource.RLIMIT_AS, (limit, limit))
    resource.prlimit(bot.pid, resource.RLIMIT_DATA, (1, 1))
    started = trio.current_time()
    with trio.move_on_after(2.0):
        while is_alive(bot.pid):
            await trio.sleep(0.05)
    print(f"alive for {trio.current_time() - started:.1f} s without a further page of memory")
    bot.process.kill()
    await ground.nothing_rests(6.0, "out of memory, then SIGKILL")
    await ground.gone(guardian, 4.0, "the guardian")
    await bot.ended()


async def test_the_network_is_cut(ground: Ground) -> None:
    """In each direction and in both: what still arrives takes quotes off at once, else they expire; healed, it quotes."""
    async with open_proxy(ground.rig.ready.port) as proxy:
        local = f"127.0.0.1:{proxy.port}"
        bot = await ground.start(
            KALSHI_REST_URL=f"http://{local}/trade-api/v2", KALSHI_WS_URL=f"ws://{local}/trade-api/ws/v2"
        )
        for requests, answers, what, within_s in (
            (False, True, "answers of the exchange do not arrive", 4.5),
            (True, False, f"requests of the bot do not arrive (QUOTE_TTL_SEC={TTL_S})", TTL_S + 1.0),
            (True, True, f"the network is gone (QUOTE_TTL_SEC={TTL_S})", TTL_S + 1.0),
        ):
            proxy.cut(requests=requests, answers=answers)
            await ground.nothing_rests(within_s, what)
            await proxy.heal()
            took = await ground.until(lambda n: len(n) >= 4, f"quotes after: {what}", bot, within_s=10.0)
            print(f"quotes are back {took:.2f} s after the network")
        bot.process.send_signal(signal.SIGTERM)
        assert await bot.ended() == 0
    assert await ground.resting() == FOREIGN
    assert bot.summary["positions_match"] is True


async def test_the_exchange_pauses(ground: Ground) -> None:
    """The exchange takes our quotes off itself; a bot asked to stop meanwhile proves it, although cancels are refused."""
    bot = await ground.start()
    await ground.rig.control("pause", exchange_index=0, what="exchange")
    await ground.nothing_rests(2.0, "the exchange pauses")
    bot.process.send_signal(signal.SIGTERM)

    assert await bot.ended() == 0
    assert await ground.resting() == FOREIGN


async def test_the_exchange_restarts(ground: Ground) -> None:
    """Every connection is reset and none is let in for 3 s: afterwards it quotes again, and ends well."""
    bot = await ground.start()
    await ground.rig.control("outage", ms=3000, reset=True)
    before = await ground.ours()
    await ground.until(lambda names: names.isdisjoint(before), "old quotes gone", bot, within_s=TTL_S + 1.0)
    await ground.until(lambda names: len(names) >= 4, "quotes after the restart", bot, within_s=10.0)
    bot.process.send_signal(signal.SIGTERM)

    await ground.nothing_rests(10.0, "SIGTERM after a restart of the exchange")
    assert await bot.ended() == 0
    assert bot.summary["positions_match"] is True


async def test_the_exchange_is_down_at_the_end(ground: Ground) -> None:
    """Told to stop while nobody answers: it does not lie.

    Code 2, and a critical alert with the order ids and what to do; the guardian stays until it is proven.
    """
    async with alert_sink() as (url, alerts):
        bot = await ground.start(DISCORD_WEBHOOK_URL=url)
        guardian = bot.guardian()
        assert guardian is not None
        await ground.rig.control("outage", ms=11_500, reset=True)
        ids = await ground.order_ids()
        bot.process.send_signal(signal.SIGTERM)

        assert await bot.ended() == 2
        assert "mm cancel-all" in bot.errors
        assert is_alive(guardian)
        (told,) = [text for text in alerts if "Orders may rest" in text]
        assert "mm cancel-all" in told
        assert all(order_id in told for order_id in ids)
        await ground.until(lambda names: not names, "nothing rests", within_s=15.0)
        assert await ground.resting() == FOREIGN
        await ground.gone(guardian, 20.0, "the guardian")
        assert any("Its guardian: nothing rests" in text for text in alerts)


async def test_whatever_was_left_all_the_same(ground: Ground) -> None:
    """Orders of an earlier life that nobody took off are gone before the next one quotes, their group closed."""
    bot = await ground.start(QUOTE_TTL_SEC="3600")
    guardian = bot.guardian()
    assert guardian is not None
    await ground.until(lambda names: bool(names), "quotes to leave behind", bot)
    bot.process.send_signal(signal.SIGSTOP)  # else it would miss its guardian, and start the next one
    os.kill(guardian, signal.SIGKILL)
    bot.process.kill()
    await bot.ended()
    left = await ground.ours()
    assert left
    second = await ground.launch()
    await ground.until(
        lambda names: bool(names) and names.isdisjoint(left), "quotes of the next life alone", second
    )
    second.process.send_signal(signal.SIGTERM)
    assert await second.ended() == 0
    assert await ground.resting() == FOREIGN


@pytest.mark.parametrize("end", LATE_ENDS, ids=lambda end: end.name)
async def test_creates_that_the_exchange_executes_after_the_end(ground: Ground, end: signal.Signals) -> None:
    """Creates that were received in time and are executed long after the end meet the fence: none rests.

    Nobody sweeps again meanwhile: bot and guardian are gone. A foreign create, held up in the same way, lands.
    """
    bot = await ground.start()
    guardian = bot.guardian()
    assert guardian is not None
    await ground.rig.control("faults", kind="late", match="POST /portfolio/events/orders", ms=LATE_MS)
    await ground.rig.control("sockets/cut", how="reset")  # pulls all quotes: they are placed anew
    await ground.until(lambda names: not names, "old quotes gone", bot)
    with trio.fail_after(10.0):
        while await ground.struck() < 4:
            await trio.sleep(0.02)
    await ground.place_foreign("by-hand-late", is_lost=True)
    sent = await ground.struck()
    started = trio.current_time()
    bot.process.send_signal(end)
    assert await bot.ended() == (0 if end == signal.SIGTERM else -end)
    await ground.gone(guardian, 8.0, "the guardian")
    while "by-hand-late" not in (resting := await ground.resting()):
        assert resting == FOREIGN
        assert trio.current_time() < started + LATE_MS / 1000 + 5.0
        await trio.sleep(0.1)
    took = trio.current_time() - started
    until = trio.current_time() + 2.0  # what the bot repeated after its first creates comes later still
    while trio.current_time() < until:
        assert await ground.resting() == FOREIGN | {"by-hand-late"}
        await trio.sleep(0.1)
    print(
        f"{end.name}: {sent - 1} creates executed up to {took:.1f} s after the end: 0 rest; the foreign one does"
    )


async def test_the_embedded_exchange_dies(ground: Ground) -> None:
    """In `sim` the exchange is a child of the bot: when it dies everything on it is gone, so the code is 1 and not 2."""
    bot = await ground.launch(KALSHI_ENV="sim", KALSHI_REST_URL="", KALSHI_WS_URL="", SIM_GAMES="2")
    log = ground.folder / "data" / "logs" / "mm.log"
    with trio.fail_after(30.0):
        while not (log.exists() and "order group opened" in log.read_text()):
            await trio.sleep(0.1)
    (exchange,) = [pid for pid in children(bot.pid) if " exchange " in command_of(pid)]
    guardian = bot.guardian()
    assert guardian is not None
    ground.pids |= {exchange, guardian}
    os.kill(exchange, signal.SIGKILL)
    await ground.gone(exchange, 5.0, "the exchange")
    bot.process.send_signal(signal.SIGTERM)

    assert await bot.ended() == 1
    assert "embedded exchange died" in bot.summary["reason"]
    await ground.gone(guardian, 5.0, "the guardian")

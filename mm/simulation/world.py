"""One seed's world: exchange, network and disk at one end, the real session at the other, everything in one `trio.run`."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mm.domain.errors import ConfigError
from mm.domain.numbers import CONTRACT, Count, Micros, Money
from mm.domain.order import ClientOrderId, Side
from mm.exchange.embedded.core.ids import UuidSource
from mm.exchange.embedded.core.model import OrderRequest
from mm.exchange.embedded.core.rules import Refused
from mm.exchange.embedded.server.server import ExchangeServer, open_exchange_server
from mm.exchange.embedded.slate.generated import GeneratedSlate, SlateSize
from mm.session.run import RunOptions, run_session
from mm.session.summary import ExitCode, Summary
from mm.session.surroundings import Surroundings
from mm.session.trading import Trading
from mm.settings import Settings, load_settings
from mm.simulation.disk import Disk
from mm.simulation.guardians import Guardians
from mm.simulation.hunter import HUNTER, Hunter
from mm.simulation.invariants import BOOK_WRONG_S, FOREIGN, Watch
from mm.simulation.lives import LIFE, Life, Recorder, tasks_of
from mm.simulation.network import Network
from mm.simulation.plan import Crash, Plan
from mm.simulation.streams import MemoryStream
from mm.simulation.trouble import BotClock, Trouble

BALANCE: Final = Money(10_000_000_000)
USER: Final = "00000000-0000-4000-8000-000000000001"
KEY_ID: Final = "00000000-0000-4000-8000-00000000000b"
HEAL_S: Final = 45.0
"""When the trouble is over everything is in order again within this: a hold of 15 s that began while the clock was far
ahead lasts as much longer as the clock then steps back."""
BOOK_S: Final = BOOK_WRONG_S
"""When nobody but the bot trades any more, its books are the exchange's within this: a connection that died silently just
before is found out only by its silence."""
REFUSED_PER_LIFE: Final = 8
"""Requests refused with 429. Not none: a life does not know what the one before it spent, a guardian pays from the same account,
and what stood on a frozen machine arrives at once."""
RESTART_S: Final = 1.0
"""After a bot that ended by itself its operator starts it again."""
LAST_S: Final = 400.0
"""No world lives longer; one that does has stuck."""
BLIND_S: Final = 4.0
"""A bot whose socket has been lost or silent for so long has no quotes out, if nothing keeps it from REST."""
GUARD_S: Final = 3.0
"""A bot that is dead or frozen has nothing resting any more after this, by its guardian."""
EXPIRY_S: Final = 1.5
"""Nothing outlives a bot by more than the time to live of its quotes and this."""
EXPECTED_ENDS: Final = (
    "operator",
    "LedgerError",
    "ExchangeError",
    "ExchangeUnavailable",
    "RateLimited",
    "daily loss limit",
)
"""What may end a bot by itself in a world with faults; anything else is a bug."""


@attrs.define(eq=False, kw_only=True)
class World:
    """Builds and plays one plan."""

    plan: Plan
    recorder: Recorder
    folder: Path
    network: Network = attrs.field(init=False)
    disk: Disk = attrs.field(init=False)
    clock: BotClock = attrs.field(init=False)
    watch: Watch = attrs.field(init=False)
    settings: Settings = attrs.field(init=False)
    server: ExchangeServer = attrs.field(init=False)
    slate: GeneratedSlate = attrs.field(init=False)
    guardians: Guardians | None = None
    lives: list[Life] = attrs.field(factory=list)
    crashes: int = 0
    _guardian_killed_at: float = float("-inf")
    faults: Counter[str] = attrs.field(factory=Counter)
    transitions: Counter[str] = attrs.field(factory=Counter)
    """Moves of orders through the state table."""
    ended_at: float = 0.0
    healed_s: float = 0.0
    """How long the calm took to be one."""
    on_over: Callable[[BaseException | None], None] = lambda problem: None
    """Called when the world is over, with what it failed with."""
    thawed_at: float = float("-inf")
    _nursery: trio.Nursery | None = None
    _course: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """The plan's course of things; ended early when the bot is killed at a point of its own."""
    _is_killed: bool = False
    _trading: Trading | None = None
    _trouble: Trouble = attrs.field(init=False)
    _summary: Summary | None = None
    _ended: trio.Event = attrs.field(factory=trio.Event)

    def chance(self, purpose: str) -> Random:
        """The seed's random stream of one purpose."""
        return Random(f"{self.plan.seed}/{purpose}")  # noqa: S311 - repeatable on purpose

    # --- building ---

    def build(self) -> None:
        """Everything but tasks."""
        plan = self.plan
        self.clock = BotClock(plan.started_at)
        self.network = Network(
            random=self.chance("network"),
            on_bytes=self.recorder.on_bytes,
            latency_s=plan.latency_s,
            jitter_s=plan.jitter_s,
        )
        self.disk = Disk(self.chance("disk"))
        key = Ed25519PrivateKey.from_private_bytes(self.chance("key").randbytes(32))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.settings = _settings(plan, pem.decode())
        self.watch = Watch(
            user_id=USER, prefix=f"{self.settings['BOT_NAME']}-", parameters=self.settings.strategy
        )
        slate = GeneratedSlate(
            seed=plan.seed,
            speed=plan.speed,
            size=SlateSize(games=plan.games),
            most_events=plan.most_events,
            shards=plan.shards,
        )
        self.slate = slate
        self.server = open_exchange_server(
            clock=self._exchange_clock,
            random=self.chance("faults"),
            ids=UuidSource(self.chance("ids").getrandbits(80)),
            tier=plan.tier,
            games=slate,
            observer=self.watch.observe,
        )
        self.watch.attach(self.server)
        self.server.add_key(KEY_ID, USER, key.public_key())
        if plan.has_guardian:
            chance = self.chance("guardians")
            self.guardians = Guardians(
                clock=self.clock.bot,
                dial=self.network.dial,
                note=self.recorder.note,
                start_s=lambda: chance.uniform(0.05, 0.4),
            )

    def _exchange_clock(self) -> Micros:
        return Micros(self.clock.exchange())

    def _bot_clock(self) -> Micros:
        return Micros(self.clock.bot())

    # --- playing ---

    async def play(self) -> None:
        """The whole world, from opening to verdict."""
        try:
            with trio.fail_after(LAST_S):
                async with trio.open_nursery() as nursery:
                    self.recorder.on_too_many = lambda: self._hot(nursery.cancel_scope)
                    await self._play(nursery)
        except trio.TooSlowError:
            self.watch.fail("stuck", f"not over after {LAST_S:g} s")
        except BaseException as exc:
            self.on_over(exc)
            raise
        self.on_over(None)

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return trio.current_time()

    @property
    def can_be_killed(self) -> bool:
        """A bot runs, and nothing is decided yet."""
        return (
            bool(self.lives)
            and not self.lives[-1].is_dead
            and not self._ended.is_set()
            and not self.recorder.is_over
        )

    def kill_here(self, *, is_in_commit: bool) -> None:
        """The bot dies in this very moment, and the plan is left: calm, one more start, the verdict."""
        self._is_killed = True
        self.recorder.note("killed")
        self.crashes += 1
        self.lives[-1].crash(reset=False)
        if is_in_commit:
            self.disk.crash_in_commit()
        else:
            self.disk.crash()
        self._trading = None
        self._course.cancel(reason="the bot was killed")

    def abandon(self) -> None:
        """End the world without a verdict."""
        self.recorder.is_over = True
        for life in self.lives:
            life.is_dead = True
        self._course.cancel(reason="abandoned")

    def _hot(self, scope: trio.CancelScope) -> None:
        self.watch.fail("hot loop", "the world took more steps than any honest one")
        self.recorder.is_over = True
        for life in self.lives:
            life.is_dead = True
        scope.cancel(reason="hot loop")

    async def _play(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        traffic = await self._open(nursery)
        self._trouble = Trouble(
            server=self.server, network=self.network, disk=self.disk, clock=self.clock, bot=self
        )
        self.faults = self._trouble.counts
        nursery.start_soon(self._trouble.run, self.plan.faults, self.recorder.note)
        nursery.start_soon(self._look_inside)
        try:
            with self._course:
                await self._lives_with_trouble(nursery)
                await self._to_the_end(nursery, traffic)
            if self._is_killed:
                await trio.sleep(RESTART_S)
                self._start_bot(nursery)
                await self._to_the_end(nursery, traffic)
            self._verdict()
        finally:
            self._close()
            nursery.cancel_scope.cancel(reason="the world is over")

    def _close(self) -> None:
        """Nobody looks any more: what was frozen is unwound."""
        self.recorder.is_over = True
        for life in self.lives:
            life.thaw()
            self.recorder.release(life)
            for guardian in life.guardians:
                self.recorder.release(guardian.life)

    async def _to_the_end(self, nursery: trio.Nursery, traffic: trio.CancelScope) -> None:
        """No trouble any more: all must come in order, and the bot must leave nothing."""
        self._trouble.end()
        await self._heal(nursery)
        traffic.cancel(reason="calm")
        await self._compare_books()
        await self._stop_bot()

    async def _open(self, nursery: trio.Nursery) -> trio.CancelScope:
        """The exchange with its traders; returns the scope that they live in."""
        traffic = await nursery.start(self._traffic)
        nursery.start_soon(self.server.driver.run_timers)
        nursery.start_soon(self._accept)
        if self.guardians is not None:
            nursery.start_soon(self.guardians.serve)
        shards = range(self.plan.shards)  # all of them: a later game may be on one that has none yet
        self.server.add_account(USER, {shard: Money(BALANCE // len(shards)) for shard in shards})
        self._place_foreign()
        assert isinstance(traffic, trio.CancelScope)
        return traffic

    async def _traffic(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        hunter = Hunter(
            server=self.server,
            watch=self.watch,
            clock=self.clock,
            random=self.chance("hunter"),
            every_s=self.plan.hunter_s,
        )
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.slate.run, self.server.driver)
                nursery.start_soon(hunter.run)
                task_status.started(scope)

    async def _accept(self) -> None:
        async with trio.open_nursery() as nursery:
            async for stream in self.network.incoming:
                nursery.start_soon(self.server.serve_stream, stream)

    def _place_foreign(self) -> None:
        """Orders by hand on the same account, far from the market."""
        for number, ticker in enumerate(sorted(self.server.core.markets())[:2]):
            state = self.server.core.markets()[ticker]
            request = OrderRequest(
                ticker=ticker,
                side=Side.BID,
                count=Count(CONTRACT),
                price=state.grid.lowest,
                client_order_id=ClientOrderId(f"{FOREIGN}{number}"),
                exchange_index=state.exchange_index,
            )
            self.server.core.create(self._exchange_clock(), USER, request)

    # --- lives ---

    async def _lives_with_trouble(self, nursery: trio.Nursery) -> None:
        """Start the bot, kill it as planned, start it again whatever ends it, until the trouble is over."""
        crashes = list(self.plan.crashes)
        while True:
            life = self._start_bot(nursery)
            due = crashes[0].at if crashes else self.plan.trouble_s
            with trio.move_on_at(due):
                await self._ended.wait()
            if trio.current_time() >= self.plan.trouble_s and not self._ended.is_set():
                return
            if self._ended.is_set():
                self._judge_end(life)
                if trio.current_time() >= self.plan.trouble_s:
                    return
                await trio.sleep(RESTART_S)
            else:
                await self._crash(life, crashes.pop(0))
            while crashes and crashes[0].at <= trio.current_time():
                crashes.pop(0)  # it was not running then

    async def _crash(self, life: Life, crash: Crash) -> None:
        if crash.commits is not None:
            wanted = self.disk.commits + crash.commits
            with trio.move_on_after(2.0):
                await self.disk.when_committed(wanted)
        self.recorder.note("crash")
        self._watch_over(life, is_guarded=not crash.takes_guardian and self._is_guarded(life))
        life.crash(reset=crash.is_reset)
        if crash.takes_guardian:
            self._guardian_killed_at = trio.current_time()
            for guardian in life.guardians:
                guardian.kill()
        self.disk.crash()
        self.crashes += 1
        self._trading = None
        await trio.sleep(crash.gap)

    # --- what trouble does to the bot (see `mm.simulation.trouble.Bot`) ---

    def _is_guarded(self, life: Life) -> bool:
        """A guardian is at work for it; without one it quotes nothing new."""
        return any(g.is_ready and not g.ended.is_set() for g in life.guardians)

    def _watch_over(self, life: Life, *, is_guarded: bool) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._nothing_outlives, life, is_guarded, trio.current_time())

    async def _nothing_outlives(self, life: Life, is_guarded: bool, since: float) -> None:
        """Judge what becomes of the orders of a bot that was killed or frozen just now."""
        if not life.prefix or not self.watch.resting_under(life.prefix):
            return
        last = since + self.settings["QUOTE_TTL_SEC"] + EXPIRY_S
        while (
            trio.current_time() <= last
            and (life.is_dead or life.is_frozen)
            and self.lives[-1] is life  # else it is the next one that takes off what is left
            and not self.recorder.is_over
        ):
            age = trio.current_time() - since
            # Killed in the middle of it: nobody can give a dead or frozen bot another one.
            is_guarded = is_guarded and self._guardian_killed_at < since
            left = self.watch.resting_under(life.prefix)
            if left and is_guarded and age > GUARD_S and self._trouble.spares_guardians(since - 0.5):
                self.watch.fail("guardian too late", f"{age:.2f} s after the bot's end: {', '.join(left)}")
                return
            if not left and age > GUARD_S and is_guarded:
                self.watch.guarded += 1
                is_guarded = False
            await trio.sleep(0.05)
        if trio.current_time() > last and life.is_dead and (left := self.watch.resting_under(life.prefix)):
            self.watch.fail(
                "outlived its time to live", f"{trio.current_time() - since:.2f} s: {', '.join(left)}"
            )
        elif trio.current_time() > last and life.is_dead:
            self.watch.expired += 1

    def kill_guardian(self) -> None:
        """See `Bot`."""
        self._guardian_killed_at = trio.current_time()
        for guardian in self.lives[-1].guardians if self.lives else ():
            guardian.kill()

    def freeze(self) -> Callable[[], None]:
        """See `Bot`."""
        life = self.lives[-1] if self.lives else None
        if life is None or life.is_dead or life.is_frozen or self._ended.is_set():
            return lambda: None
        life.is_frozen = True
        self._watch_over(life, is_guarded=self._is_guarded(life))

        def go_on() -> None:
            self.thawed_at = trio.current_time()
            if not life.is_dead:
                life.thaw()

        return go_on

    def ask_to_stop(self) -> None:
        """See `Bot`."""
        if self._trading is not None:
            self._trading.stop("operator")

    def _start_bot(self, nursery: trio.Nursery) -> Life:
        life = Life(len(self.lives) + 1, began_at=trio.current_time())
        self.lives.append(life)
        self._ended, self._summary, self._trading = trio.Event(), None, None
        nursery.start_soon(self._live, life, self._ended, name=f"life {life.number}")
        return life

    async def _live(self, life: Life, ended: trio.Event) -> None:
        LIFE.set(life)
        settings = attrs.evolve(
            self.settings, values={**self.settings.values, "MM_DATA_DIR": self.folder / str(life.number)}
        )

        async def connect(host: str, port: int) -> MemoryStream:
            stream = await self.network.dial(host, port)
            life.streams.append(stream)
            return stream

        async def connect_socket(host: str, port: int) -> MemoryStream:
            stream = await connect(host, port)
            life.sockets.append(stream)
            return stream

        def begin(trading: Trading, nursery: trio.Nursery) -> None:
            del nursery
            life.prefix = trading.ids.session_prefix
            self._trading = trading

        surroundings = Surroundings(
            clock=self._bot_clock,
            randomness=self.chance(f"jitter/{life.number}"),
            random_below=self.chance(f"session/{life.number}").randrange,
            connect=connect_socket,
            runner=self.disk.run,
            connect_ledger=self.disk.connect,
            spawn_guardian=self.guardians.spawner(life) if self.guardians is not None else None,
        )
        try:
            summary = await run_session(settings, surroundings, RunOptions(on_trading=begin))
        except BaseException as exc:
            if life.is_dead or self.recorder.is_over:
                return  # unwound when nobody looks any more
            if isinstance(exc, ConfigError):
                summary = Summary(exit_code=ExitCode.FAILED, reason=f"ConfigError: {exc}")
            else:
                raise
        if life.is_dead:
            return
        if left := tasks_of(life):
            self.watch.fail("task leaked", ", ".join(left))
        self._summary = summary
        self._trading = None
        ended.set()

    def _judge_end(self, life: Life) -> None:
        """The bot ended by itself: was that right, and did it leave nothing?"""
        summary = self._summary
        assert summary is not None
        # The folder's name is chance of another kind, and part of no trace.
        self.recorder.note(f"life {life.number} ended: {summary.reason.replace(str(self.folder), '')}")
        if summary.exit_code is not ExitCode.ORDERS_MAY_REST:
            # One that has swept answers for what earlier lives left as well; one that could not look (the exchange not
            # reached, the key refused) has placed nothing.
            if summary.is_swept or life.prefix:
                self.watch.check_after_exit(None if summary.is_swept else life.prefix)
            if not summary.reason.startswith(EXPECTED_ENDS):
                self.watch.fail("unexpected end", summary.reason)

    # --- calm ---

    async def _heal(self, nursery: trio.Nursery) -> None:
        """The trouble is over: everything must be in order within `HEAL_S`."""
        self.recorder.note("calm")
        began = trio.current_time()
        deadline = began + HEAL_S
        wrong = ["the bot is not trading"]
        while trio.current_time() < deadline:
            if self._ended.is_set():
                self._judge_end(self.lives[-1])
                await trio.sleep(RESTART_S)
                self._start_bot(nursery)
            if self._trading is not None:
                wrong = self.watch.not_healed(self._trading, self._bot_clock())
                if not wrong:
                    self.healed_s = trio.current_time() - began
                    return
            await trio.sleep(0.1)
        self.watch.fail("not healed", "; ".join(wrong))

    async def _compare_books(self) -> None:
        self._touch_books()
        differing: dict[str, None] = {}
        if self._trading is not None:
            differing = dict.fromkeys(self._trading.floor.makers)
        deadline = trio.current_time() + BOOK_S
        while differing and self._trading is not None and trio.current_time() < deadline:
            wrong = self.watch.books_differ(self._trading)
            differing = {ticker: None for ticker in differing if ticker in wrong}
            await trio.sleep(0.02)
        for ticker in differing:
            self.watch.fail("book differs", ticker)

    def _touch_books(self) -> None:
        """One more change of every book: a frame that was lost shows as a gap with the next one, and not before."""
        for ticker, state in sorted(self.server.core.markets().items()):
            request = OrderRequest(
                ticker=ticker,
                side=Side.BID,
                count=Count(CONTRACT),
                price=state.grid.lowest,
                post_only=True,
                exchange_index=state.exchange_index,
            )
            try:
                self.server.core.create(self._exchange_clock(), HUNTER, request)
            except Refused:
                continue  # it is over, or paused, or would trade
        self.server.driver.batch_done()

    async def _stop_bot(self) -> None:
        """The operator's stop, and what must be true afterwards."""
        if self._trading is not None:
            self._trading.stop("operator")
        with trio.move_on_after(25.0):
            await self._ended.wait()
        if self._summary is None:
            self.watch.fail("does not stop", "25 s after the operator's stop")
            return
        summary = self._summary
        if (summary.exit_code, summary.reason) != (ExitCode.CLEAN, "operator"):
            self.watch.fail("bad exit", f"code {int(summary.exit_code)}, {summary.reason}")
        if summary.positions_match is not True:
            self.watch.fail("positions differ", f"positions_match={summary.positions_match} at exit")

    def _look_for_blindness(self, life: Life) -> None:
        """Nothing of a bot rests that has not heard its socket for so long."""
        now = trio.current_time()
        since = max(
            life.began_at, self.thawed_at, *(socket.heard_at for socket in life.sockets), float("-inf")
        )
        if (
            life.is_dead
            or life.is_frozen
            or now - since <= BLIND_S
            or not self._trouble.spares_guardians(since)
        ):
            return
        self.watch.blind += 1
        if left := self.watch.resting_under(life.prefix):
            self.watch.fail("quotes of a blind bot", f"deaf for {now - since:.2f} s: {', '.join(left)}")
            life.began_at = now  # told once

    async def _look_inside(self) -> None:
        for number in itertools.count():
            await trio.sleep(0.1)
            if self.lives and self.lives[-1].prefix and not self._ended.is_set():
                self._look_for_blindness(self.lives[-1])
            if self._trading is None or self.network.is_silent or self.lives[-1].is_frozen:
                self.watch.look_away()
            else:
                self.watch.look_at_books(self._trading)
            if self._trading is not None and number % 10 == 0:
                self.watch.look_inside(self._trading)
                self.watch.look_at_fills(self._trading)

    def _verdict(self) -> None:
        self.watch.check_after_exit()
        if self._summary is not None:
            self.watch.check_ledger(self.disk.image)
        refused = sum(budget.refused for budget in self.server.service.budgets.values())
        if refused > REFUSED_PER_LIFE * len(self.lives):
            self.watch.fail("rate limit", f"{refused} requests of {len(self.lives)} lives refused with 429")


def _settings(plan: Plan, pem: str) -> Settings:
    fixed = {
        "KALSHI_ENV": "demo",
        "LIVE_TRADING_ENABLED": "true",
        "KALSHI_REST_URL": "http://127.0.0.1:8080/trade-api/v2",
        "KALSHI_WS_URL": "ws://127.0.0.1:8080/trade-api/ws/v2",
        "KALSHI_API_KEY": KEY_ID,
        "KALSHI_API_SECRET": pem,
        "MM_DATA_DIR": "/nonexistent",
        "WEB_ADDRESS": "off",
    }
    return load_settings({**fixed, **plan.settings}, environ={}, dotenv=Path("/nonexistent/.env"))

"""Carries a plan's faults out: on the exchange's own back door, on the network, the clock and the disk."""

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import orjson
import trio

from mm.domain.numbers import Micros
from mm.exchange.embedded.server.faults import KINDS as RULES
from mm.exchange.embedded.server.faults import Rule
from mm.exchange.embedded.server.http import Request
from mm.exchange.embedded.server.server import ExchangeServer
from mm.simulation.disk import Disk
from mm.simulation.network import DOWN, UP, Network
from mm.simulation.plan import SPARES_GUARDIANS, Fault

_PATHS: Final = {
    "socket_cut": "sockets/cut",
    "skip_seq": "skip_seq",
    "drop_frames": "drop_frames",
    "channel_error": "channel_error",
    "half_open": "sockets/half_open",
}


@attrs.define(eq=False)
class BotClock:
    """The bot's wall clock: the exchange's, and an error that faults change."""

    started_at_s: int
    error_us: int = 0

    def exchange(self) -> int:
        """Microseconds, true."""
        return self.started_at_s * 1_000_000 + round(trio.current_time() * 1_000_000)

    def bot(self) -> int:
        """Microseconds, as the bot's machine sees it."""
        return self.exchange() + self.error_us


class Bot(Protocol):
    """What trouble can do to the bot and its guardian themselves. Without effect when there is none."""

    def kill_guardian(self) -> None:
        """The one on duty dies."""

    def freeze(self) -> Callable[[], None]:
        """The bot stands still; returns what lets it go on."""

    def ask_to_stop(self) -> None:
        """An operator stops it; it is started again."""


@attrs.define(eq=False, kw_only=True)
class Trouble:
    """The maker of trouble. `run` once, in a task of the world."""

    server: ExchangeServer
    network: Network
    disk: Disk
    clock: BotClock
    bot: Bot
    counts: Counter[str] = attrs.field(factory=Counter)
    """Faults that were carried out, by kind."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _bad_now: int = 0
    """Faults in force that a guardian feels."""
    _last_bad: float = float("-inf")

    async def run(self, faults: tuple[Fault, ...], note: Callable[[str], None]) -> None:
        """Carry everything out in its time; returns when the last fault has begun and ended."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                for fault in faults:
                    await trio.sleep_until(fault.at)
                    note(f"fault {fault.text()}")
                    self.counts[fault.kind] += 1
                    nursery.start_soon(self._one, fault)

    def spares_guardians(self, since: float) -> bool:
        """Whether nothing has stood between a guardian and the exchange since then."""
        return self._last_bad < since and not self._bad_now

    def end(self) -> None:
        """Calm: what still goes wrong ends now, and nothing new begins."""
        self.scope.cancel(reason="calm")
        self.network.calm()
        self.disk.calm()
        self.server.hub.drop_next.clear()
        self.server.control._out_until = Micros(
            0
        )  # an outage of no length would cut all connections once more

    async def _one(self, fault: Fault) -> None:
        until = trio.current_time() + fault.lasts
        is_bad = fault.kind not in SPARES_GUARDIANS
        self._bad_now += is_bad
        undo = self._begin(fault, until)
        self.server.driver.batch_done()
        try:
            await trio.sleep_until(until)
        finally:
            undo()
            self.server.driver.batch_done()
            self._bad_now -= is_bad
            if is_bad:
                self._last_bad = trio.current_time()

    def _begin(self, fault: Fault, until: float) -> Callable[[], None]:
        kind, fields = fault.kind, dict(fault.fields)
        if kind in ("not_found", "gone"):
            return self._rule("error", fields)
        if kind == "lost_create":
            return self._rule("drop", fields)
        if kind in RULES and kind not in _PATHS:
            return self._rule(kind, fields)
        if kind in ("lag", "latency"):
            return self._everywhere(kind, fields)
        if kind == "shard_down":
            self._control("faults", kind=kind, index=0)
            return lambda: self._control("faults", kind=kind, index=0, up=1)
        if kind in _PATHS:
            self._control(_PATHS[kind], **fields)
            return _nothing
        if kind == "socket_stall":
            self._control("sockets/stall")
            return lambda: self._control("sockets/resume")
        if kind == "outage":
            self._control("outage", ms=round(fault.lasts * 1000), **fields)
            return _nothing
        if kind.startswith("pause_"):
            return self._pause(kind.removeprefix("pause_"))
        if kind.startswith("silent_"):
            self._silence(kind.removeprefix("silent_"), until)
            return _nothing
        return self._machine(kind, fields, until)

    def _machine(self, kind: str, fields: dict[str, object], until: float) -> Callable[[], None]:
        """What goes wrong around the bot itself."""
        if kind == "refuse":
            self.network.refuses_until = until
        elif kind == "no_dns":
            self.network.no_dns_until = until
        elif kind == "slow_disk":
            self.disk.slow_until = until
        elif kind == "full_disk":
            self.disk.is_full = True
            return self._free_disk
        elif kind == "guardian_crash":
            self.bot.kill_guardian()
        elif kind == "freeze":
            return self.bot.freeze()
        elif kind == "operator_stop":
            self.bot.ask_to_stop()
        elif kind == "clock_step" and not self.clock.error_us:  # errors do not add up: see docs/simulation.md
            step = round(float(str(fields["by"])) * 1_000_000)
            self.clock.error_us += step
            return lambda: self._step_clock(-step)
        else:
            assert kind == "clock_step", kind
        return _nothing

    def _step_clock(self, by_us: int) -> None:
        self.clock.error_us += by_us

    def _free_disk(self) -> None:
        self.disk.is_full = False

    def _rule(self, kind: str, fields: dict[str, object]) -> Callable[[], None]:
        faults = self.server.faults
        faults.add(kind, fields)
        rule: Rule = faults.rules[-1]

        def undo() -> None:
            faults.rules[:] = [other for other in faults.rules if other is not rule]

        return undo

    def _everywhere(self, kind: str, fields: dict[str, object]) -> Callable[[], None]:
        self._control("faults", kind=kind, **fields)
        off = {"ms": 0, "jitter": 0} if kind == "latency" else {"ms": 0}
        return lambda: self._control("faults", kind=kind, **off)

    def _pause(self, what: str) -> Callable[[], None]:
        if what == "market":
            active = [t for t, s in self.server.core.markets().items() if s.status.value == "active"]
            if not active:
                return _nothing
            target: dict[str, object] = {"ticker": active[self.counts["pause_market"] % len(active)]}
        else:
            target = {"exchange_index": 0, "what": what}
        self._control("pause", **target)
        return lambda: self._control("resume", **target)

    def _silence(self, direction: str, until: float) -> None:
        for number, name in ((UP, "up"), (DOWN, "down")):
            if direction in (name, "both"):
                self.network.silent_until[number] = max(self.network.silent_until[number], until)

    def _control(self, path: str, **fields: object) -> None:
        target = f"/control/{path}"
        request = Request(
            method="POST",
            raw_path=target,
            path=target,
            query=(),
            headers={"content-type": "application/json"},
            body=orjson.dumps(fields),
        )
        response = self.server.control.answer(request)
        # A market that is over by now cannot be paused or resumed; any other refusal is trouble that never happens.
        assert response.status < 300 or "ticker" in fields, (path, fields, response.body)


def _nothing() -> None:
    return

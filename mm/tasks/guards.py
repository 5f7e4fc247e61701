"""The guards at work: they look four times a second, and what they ask for is done here.

What a guard has pulled stays pulled until a person resumes (dashboard, or the kill-switch file put there and taken away),
also over a restart: the ledger keeps it.
"""

from collections.abc import Callable
from typing import Final, Protocol

import attrs
import structlog

from mm.domain.commands import FlattenReason
from mm.domain.numbers import Count, Micros, Price
from mm.domain.order import MarketTicker
from mm.domain.tickers import format_time
from mm.engine.risk.guards import LATCHED_FROM, REACTIONS, Facts, Guards, Reaction, Trigger, describe
from mm.tasks.floor import Floor

log = structlog.get_logger(__name__)

HOLD: Final = "guard"
"""The cause under which markets are held."""
ROW: Final = "guard:"
"""How the ledger's rows of guards begin."""
RESUMED: Final = f"{ROW}resumed"


class GuardBook(Protocol):
    """Where it is kept what guards did. The ledger is one."""

    def record_trigger(
        self, ticker: MarketTicker | None, reason: str, net: Count, mark: Price | None
    ) -> None:
        """A guard acted, or a person resumed."""

    async def last_trigger(self, beginning: str) -> tuple[Micros, str] | None:
        """When, and which reason: the newest row whose reason begins so."""


@attrs.define(eq=False, kw_only=True)
class GuardKeeper:
    """Looks at the guards and does what they ask for."""

    guards: Guards
    floor: Floor
    drifting: Callable[[], int]
    """Markets halted because their position differs from the exchange's."""
    refusals: Callable[[], int]
    """Orders that the exchange has refused so far."""
    stop: Callable[[str], None]
    tell: Callable[[Trigger, str], None] = lambda trigger, text: None
    book: GuardBook | None = None
    done: Reaction = Reaction.NONE
    """What is in force."""
    _from_before: str = ""
    """Why an earlier run was pulled, when nobody has resumed since."""
    _refusals_seen: int = 0

    async def load(self) -> None:
        """What an earlier run's guards pulled, and nobody resumed, stays pulled. Raises `LedgerError`."""
        found = await self.book.last_trigger(ROW) if self.book is not None else None
        if found is None:
            return
        at, reason = found
        word = reason.rpartition(":")[2]
        if REACTIONS.get(word, Reaction.NONE) >= LATCHED_FROM:
            self._from_before = f"{reason.removeprefix(ROW)} at {format_time(at)}, not resumed since"
            log.warning("guards hold what an earlier run pulled", why=self._from_before)

    def filled(self, count: Count, now: Micros) -> None:
        """A fill of ours."""
        self.guards.filled(count, now)

    def look(self, now: Micros) -> None:
        """Judge, and act on what changed."""
        if not self.guards.guards and not self._from_before and self.done is Reaction.NONE:
            return
        refused = self.refusals()
        for _ in range(refused - self._refusals_seen):
            self.guards.refused(now)
        self._refusals_seen = refused
        verdict = self.guards.observe(self._facts(), now)
        for trigger in verdict.triggers:
            self._note(trigger)
        wanted = max(verdict.reaction, Reaction.PULL if self._from_before else Reaction.NONE)
        if wanted is not self.done:
            self._act(wanted)
        elif wanted is Reaction.FLATTEN:
            self._flatten_all()  # a fill on its way may have come in since

    def resume(self) -> None:
        """A person says that it may go on; what still stands above a step triggers anew."""
        if self.done >= LATCHED_FROM and self.book is not None:
            self.book.record_trigger(None, RESUMED, Count(0), None)
        if self.done is not Reaction.NONE:
            log.warning("guards resumed by a person", was=self.done.word)
        self.guards.resume()
        self._from_before = ""
        self._act(Reaction.NONE)

    @property
    def why(self) -> str:
        """What is in force, in words; empty when nothing is."""
        return "; ".join(part for part in (self.guards.why, self._from_before) if part)

    def _facts(self) -> Facts:
        floor = self.floor
        nets = [history.state.net for history in floor.positions.histories.values()]
        return Facts(
            pnl=floor.marked_pnl(),
            gross=sum(map(abs, nets)),
            net=sum(nets),
            drifting=self.drifting(),
        )

    def _note(self, trigger: Trigger) -> None:
        text = describe(self.guards.guards[trigger.measure])
        log.error("guard", text=text, latched=trigger.is_latched)
        if self.book is not None:
            reason = f"{ROW}{trigger.measure.setting}:{trigger.step.reaction.word}"
            self.book.record_trigger(None, reason, Count(0), None)
        self.tell(trigger, text)

    def _act(self, wanted: Reaction) -> None:
        before, self.done = self.done, wanted
        floor = self.floor
        floor.guard_ticks = int(wanted >= Reaction.WIDEN)
        for maker in floor.makers.values():
            maker.guard_ticks = floor.guard_ticks
        floor.exposure.reaction = wanted
        if wanted >= Reaction.PULL:
            floor.hold_all(HOLD, f"guard: {self.why}")
        elif before >= Reaction.PULL:
            floor.lift_all(HOLD)
        if wanted is Reaction.FLATTEN:
            self._flatten_all()
        elif wanted is Reaction.STOP:
            self.stop(f"guard: {self.why}")
        floor.dirty.update(dict.fromkeys(floor.makers))
        floor.wake_all()

    def _flatten_all(self) -> None:
        for ticker, maker in self.floor.makers.items():
            if maker.flattening is None and not maker.inventory().is_flat:
                maker.flatten(FlattenReason.GUARD)
                self.floor.order_changed(ticker)

"""Known bugs, planted one by one: does the simulation find them? `make simulate-mutants` prints the table.

A simulation that finds nothing is suspicious. Each mutant replaces one method of the bot while seeds are played, until
an invariant breaks; one that survives `MOST_SEEDS` seeds is a hole in the invariants or in the faults.
"""

import contextvars
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any, Final
from unittest import mock

import attrs
import trio

from mm.domain.fill import Fill
from mm.domain.numbers import CONTRACT, Count, Micros, Price
from mm.domain.order import ClientOrderId, Order, OrderEvent, OrderState
from mm.engine import quoting
from mm.engine.risk import PortfolioRisk
from mm.engine.risk.portfolio import UNLIMITED
from mm.exchange.kalshi import codec
from mm.exchange.kalshi.subscriptions import Subscriptions
from mm.exchange.port import NewOrder
from mm.guard.sweep import Report, Sweep
from mm.ledger.ledger import Ledger
from mm.simulation.lives import Killed
from mm.simulation.plan import draw_plan
from mm.simulation.play import run_world
from mm.tasks import fence, resolve
from mm.tasks.desk import OrderDesk, Outcome, Verdict
from mm.tasks.exposure import Exposure
from mm.tasks.feed import FeedHandler
from mm.tasks.fence import Fence
from mm.tasks.floor import Floor
from mm.tasks.positions import Positions
from mm.tasks.reconcile import Reconciler
from mm.tasks.sweep import Sweeper, SweepReport

MOST_SEEDS: Final = 40

Patch = AbstractContextManager[Any]
Plant = Callable[[], Patch]


@attrs.frozen
class Mutant:
    """A bug: its name, what is wrong, and how it is planted."""

    name: str
    plant: Plant


@attrs.frozen
class Hunted:
    """What became of a mutant."""

    name: str
    seed: int | None
    """The seed that caught it; None: it survived."""
    invariant: str
    seeds: int
    wall_s: float


def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    """A method replaced by what `make` builds around the original."""

    def plant() -> Patch:
        return mock.patch.object(owner, name, make(getattr(owner, name)))

    return plant


def _apply_twice(original: Any) -> Any:
    def apply(self: Positions, fill: Fill) -> bool:
        self._seen.pop(fill.key, None)
        return bool(original(self, fill))

    return apply


def _forget_some_fills(original: Any) -> Any:
    def apply(self: Positions, fill: Fill) -> bool:
        if fill.key not in self._seen and int(fill.trade_id[-2:], 16) % 4 == 0:
            self._remember(fill)
            return False
        return bool(original(self, fill))

    return apply


def _mark_only(original: Any) -> Any:
    async def record(self: Ledger, fills: Any, high_water_mark: Micros | None = None) -> Any:
        if high_water_mark is not None:
            fills = [fill for fill in fills if int(fill.trade_id[-2:], 16) % 3]
        return await original(self, fills, high_water_mark)

    return record


def _believe_404(original: Any) -> Any:
    async def cancel(self: OrderDesk, order: Order) -> Outcome:
        outcome: Outcome = await original(self, order)
        if outcome.verdict is Verdict.CHECK:
            self.gone(order, filled=None)
        return outcome

    return cancel


def _unknown_is_no(original: Any) -> Any:
    def lost(self: OrderDesk, order: Order) -> None:
        if order.state is OrderState.SENT:
            order.apply(OrderEvent.REFUSED)
            self.gone(order, filled=None)
            return
        original(self, order)

    return lost


def _trigger_nothing(original: Any) -> Any:
    del original

    async def trigger_all(self: Fence, reason: str, **more: Any) -> list[Any]:
        del self, reason, more
        await trio.lowlevel.checkpoint()
        return []

    return trigger_all


def _said_and_not_done(original: Any) -> Any:
    del original

    async def trigger_group(*what: Any, **more: Any) -> bool:
        del what, more
        await trio.lowlevel.checkpoint()
        return True

    return trigger_group


def _drop_deltas(original: Any) -> Any:
    def on_delta(self: FeedHandler, *what: Any) -> None:
        if self.deltas % 40 == 39:
            self.deltas += 1
            return
        original(self, *what)

    return on_delta


def _new_id(original: Any) -> Any:
    def as_new_order(order: Order) -> NewOrder:
        request: NewOrder = original(order)
        return attrs.evolve(request, client_order_id=ClientOrderId(f"{request.client_order_id}r"))

    return as_new_order


def _gaps_do_not_matter(original: Any) -> Any:
    def count(self: Subscriptions, sid: int, seq: int) -> bool:
        original(self, sid, seq)
        return True

    return count


def _swept_at_once(original: Any) -> Any:
    del original

    async def sweep(self: Sweeper, deadline_s: float) -> SweepReport:
        del self, deadline_s
        await trio.lowlevel.checkpoint()
        return SweepReport(is_proven=True, cancelled=0, remaining=(), seconds=0.0)

    return sweep


def _everything_is_ours(original: Any) -> Any:
    async def list_own(self: Sweeper) -> Any:
        kept, self.prefix = self.prefix, ""
        try:
            return await original(self)
        finally:
            self.prefix = kept

    return list_own


def _no_passes(original: Any) -> Any:
    del original

    async def pass_fills(self: Reconciler) -> int:
        self.passes += 1
        await trio.lowlevel.checkpoint()
        return 0

    return pass_fills


def _no_replay(original: Any) -> Any:
    async def replay(self: Ledger, fold: Any) -> int:
        return int(await original(self, lambda fill: None))

    return replay


def _no_fee(original: Any) -> Any:
    def convert(fill: Any) -> Fill:
        booked: Fill = attrs.evolve(original(fill), fee=0)
        return booked

    return convert


def _taking_quotes(original: Any) -> Any:
    def body(order: NewOrder, **more: Any) -> Any:
        deeper = Price(order.price + order.side.sign * 500)
        if order.post_only and 100 <= deeper <= 9_900:
            order = attrs.evolve(order, post_only=False, price=deeper)
        return original(order, **more)

    return body


def _one_more(original: Any) -> Any:
    def room(*what: Any, **more: Any) -> Count:
        return Count(original(*what, **more) + CONTRACT)

    return room


def _no_global_limit(original: Any) -> Any:
    def market_room(self: Floor, *what: Any) -> Count:
        return Count(original(self, *what) + 100 * CONTRACT)

    return market_room


def _no_recount(original: Any) -> Any:
    del original

    def order_changed(self: Floor, ticker: Any) -> None:
        quoter = self.quoters.get(ticker)
        if quoter is not None:
            quoter.wake()

    return order_changed


async def _linger() -> None:
    with suppress(Killed):  # at the world's end: nothing may come out of a system task
        await trio.sleep_forever()


def _leaves_a_task(original: Any) -> Any:
    async def pass_fills(self: Reconciler) -> Any:
        if self.passes == 1:
            trio.lowlevel.spawn_system_task(_linger, context=contextvars.copy_context())
        return await original(self)

    return pass_fills


def _never_lifted(original: Any) -> Any:
    del original

    def lift_all(self: Floor, cause: str) -> None:
        del self, cause

    return lift_all


def _nothing_swept() -> Patch:
    """Neither groups nor orders of an earlier life are taken off."""
    stack = ExitStack()
    for name, make in (("sweep", _swept_at_once), ("trigger_groups", _no_groups)):
        stack.enter_context(mock.patch.object(Sweeper, name, make(getattr(Sweeper, name))))
    return stack


def _no_groups(original: Any) -> Any:
    del original

    async def trigger_groups(self: Sweeper, groups: Any) -> list[Any]:
        del self, groups
        await trio.lowlevel.checkpoint()
        return []

    return trigger_groups


def _only_looks_on() -> Patch:
    """The guardian says that all is well, and does nothing."""
    return mock.patch.object(Sweep, "run", return_value=Report(True, 0, (), 0, (), 0.0))


def _at_risk_when_filled() -> Patch:
    return mock.patch.object(Order, "at_risk", property(lambda order: order.unbooked))


def _unchecked(plant: Plant) -> Plant:
    """The bug, with the last check before an order leaves off: that would keep most of such orders back."""

    def both() -> Patch:
        stack = ExitStack()
        stack.enter_context(plant())
        stack.enter_context(mock.patch.object(Exposure, "refuse", return_value=None))
        return stack

    return both


def _no_loss_limit() -> Patch:
    """No limit on what a game may cost, nowhere."""
    stack = ExitStack()
    for name in ("room", "sure_room"):
        stack.enter_context(mock.patch.object(PortfolioRisk, name, return_value=UNLIMITED))
    return stack


MUTANTS: Final = (
    Mutant("a fill counts as often as it is told", _replaced(Positions, "apply", _apply_twice)),
    Mutant("a fill is marked seen before it is booked", _replaced(Positions, "apply", _forget_some_fills)),
    Mutant("the mark passes fills that are not written", _replaced(Ledger, "record_fills", _mark_only)),
    Mutant("404 is believed", _replaced(OrderDesk, "cancel", _believe_404)),
    Mutant("a lost create is taken for refused", _replaced(OrderDesk, "_lost", _unknown_is_no)),
    Mutant("the fence is forgotten", _replaced(Fence, "trigger_all", _trigger_nothing)),
    Mutant("a group is called triggered and is not", _replaced(fence, "trigger_group", _said_and_not_done)),
    Mutant("a delta is dropped", _replaced(FeedHandler, "on_delta", _drop_deltas)),
    Mutant("a retry has a new id", _replaced(resolve, "as_new_order", _new_id)),
    Mutant("gaps in seq do not matter", _replaced(Subscriptions, "count", _gaps_do_not_matter)),
    Mutant("only what filled is at risk", _at_risk_when_filled),
    Mutant("the start-up sweep takes nothing off", _nothing_swept),
    Mutant("the sweep takes everything for ours", _replaced(Sweeper, "list_own", _everything_is_ours)),
    Mutant("fills are not read, only heard", _replaced(Reconciler, "pass_fills", _no_passes)),
    Mutant("a restart forgets positions", _replaced(Ledger, "replay_fills", _no_replay)),
    Mutant("fees are not booked", _replaced(codec, "to_fill", _no_fee)),
    Mutant("quotes may take", _replaced(codec, "create_body", _taking_quotes)),
    Mutant("one contract more than the market limit", _unchecked(_replaced(quoting, "room", _one_more))),
    Mutant("the global limit is loose", _unchecked(_replaced(Floor, "market_room", _no_global_limit))),
    Mutant("orders do not change the exposure", _unchecked(_replaced(Floor, "order_changed", _no_recount))),
    Mutant("a game may cost what it likes", _unchecked(_no_loss_limit)),
    Mutant("the guardian only looks on", _only_looks_on),
    Mutant("a task outlives its bot", _replaced(Reconciler, "pass_fills", _leaves_a_task)),
    Mutant("a hold is never lifted", _replaced(Floor, "lift_all", _never_lifted)),
)


def hunt(number: int) -> Hunted:
    """Play seeds with one mutant planted until one breaks an invariant."""
    mutant = MUTANTS[number]
    started = time.monotonic()
    for seed in range(1, MOST_SEEDS + 1):
        with mutant.plant():
            result = run_world(draw_plan(seed))
        # A seed that fails without the bug as well has caught nothing.
        if result.violations and not run_world(draw_plan(seed)).violations:
            return Hunted(mutant.name, seed, result.violations[0].invariant, seed, time.monotonic() - started)
    return Hunted(mutant.name, None, "", MOST_SEEDS, time.monotonic() - started)


def _verdicts(jobs: int) -> Iterator[Hunted]:
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(hunt, number) for number in range(len(MUTANTS))]
        for future in as_completed(running):
            yield future.result()


def main() -> int:
    """Print the table; 0 when every mutant was caught."""
    jobs = multiprocessing.cpu_count()
    survived = 0
    sys.stdout.write(f"{'planted bug':<48} {'caught by seed':>14}  {'invariant':<28} seconds\n")
    for verdict in _verdicts(jobs):
        survived += verdict.seed is None
        caught = "SURVIVED" if verdict.seed is None else str(verdict.seed)
        sys.stdout.write(f"{verdict.name:<48} {caught:>14}  {verdict.invariant:<28} {verdict.wall_s:7.1f}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(MUTANTS) - survived} passed, {survived} failed\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

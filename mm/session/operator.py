"""Commands for people, beside the bot or without it: `mm cancel-all`, and what the others share with it.

They trust the exchange and need no ledger, so that they work from another machine with the same key; where there is a
ledger they use the groups that it knows. They end with an exit code: 0 done, 1 not begun, 2 orders may rest.
"""

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import attrs
import structlog
import trio

from mm.domain.errors import LedgerError
from mm.domain.numbers import format_count
from mm.domain.order import GroupId
from mm.exchange.paging import read_all
from mm.exchange.port import Exchange, ExchangeError, OrderReport, OrderStatus
from mm.ledger.lock import holder_of
from mm.ledger.reader import LedgerReader, open_reader
from mm.session.summary import ExitCode
from mm.session.surroundings import Surroundings
from mm.session.trading import first_contact
from mm.session.venue import NoExchange, check_files, open_for_people
from mm.settings import Settings
from mm.tasks.budget import WriteBudget
from mm.tasks.killswitch import FILE_NAME
from mm.tasks.sweep import Sweeper, SweepReport
from mm.views.texts import cents

log = structlog.get_logger(__name__)
T = TypeVar("T")

DEADLINE_S: Final = 30.0
"""A person waits longer than a dying process may."""
TRIGGER_S: Final = 5.0
"""For the groups that the ledger knows; what rests all the same is cancelled by itself."""
SHOWN: Final = 50
"""Orders listed one by one; the rest is counted."""
CONFIRMATION: Final = "cancel foreign orders"

Say = Callable[[str], None]
Ask = Callable[[str], Awaitable[str]]


def say_aloud(text: str) -> None:
    """One line to stdout, at once."""
    print(text, flush=True)  # noqa: T201 - commands speak to people


async def ask_terminal(prompt: str) -> str:
    """A line typed by a person; empty when the terminal is closed."""
    say_aloud(prompt)
    line: str = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return line.strip()


@attrs.define(eq=False, kw_only=True)
class Operator:
    """One person at one exchange."""

    settings: Settings
    exchange: Exchange
    budget: WriteBudget
    surroundings: Surroundings
    say: Say

    @property
    def prefix(self) -> str:
        """What every order of this bot starts with."""
        return f"{self.settings['BOT_NAME']}-"

    async def resting(self) -> tuple[list[OrderReport], list[OrderReport]]:
        """(ours, foreign) by the exchange's word. Raises `ExchangeError`."""
        found = await read_all(
            lambda cursor: self.exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor),
            what="resting orders",
        )
        ours = [order for order in found if (order.client_order_id or "").startswith(self.prefix)]
        return ours, [order for order in found if order not in ours]

    async def from_ledger(self, read: Callable[[LedgerReader], T]) -> T | None:
        """What the ledger of the data folder says; None where there is none, as on another machine."""
        path = self.settings.data_dir / "ledger.sqlite3"

        def work() -> T | None:
            if not path.is_file():
                return None
            with open_reader(path, is_checked=False) as reader:
                return read(reader)

        try:
            return await self.surroundings.runner(work)
        except LedgerError as exc:
            self.say(f"the ledger is no help: {exc}")
            return None

    async def open_groups(self) -> list[tuple[GroupId, int]]:
        """Groups of ours that the ledger does not know to be triggered."""
        rows = await self.from_ledger(lambda reader: reader.groups(self.exchange.account)) or []
        return [(row.group_id, row.exchange_index) for row in rows if row.triggered_at is None]

    async def take_off(self, groups: Sequence[tuple[GroupId, int]]) -> bool:
        """Fence and sweep what is ours, and say what came of it. True when it is proven that nothing rests."""
        sweeper = self._sweeper(self.prefix)
        with trio.move_on_after(TRIGGER_S):
            failed = await sweeper.trigger_groups(groups)
            if failed:
                self.say(f"{len(failed)} order groups could not be triggered: their orders go one by one")
        return self._told(await sweeper.sweep(DEADLINE_S), "order of ours")

    async def take_off_everything(self) -> bool:
        """Cancel what rests on the account, whoever placed it. The groups of others stay open."""
        sweeper = self._sweeper("")
        sweeper.fences_leftovers = False
        return self._told(await sweeper.sweep(DEADLINE_S), "order")

    def warn_of_bot(self) -> None:
        """A bot that runs here goes on quoting."""
        folder = self.settings.data_dir
        pid = holder_of(folder)
        if pid is not None:
            self.say(
                f"A bot (pid {pid}) runs on {folder} and will quote again in seconds: "
                f"stop it with Ctrl-C, or make the file {folder / FILE_NAME}"
            )

    def _sweeper(self, prefix: str) -> Sweeper:
        return Sweeper(self.exchange, self.budget, self.surroundings.clock, prefix)

    def _told(self, report: SweepReport, what: str) -> bool:
        if report.is_proven:
            self.say(f"{report.cancelled} cancelled one by one; no {what} rests ({report.seconds:.1f} s)")
            return True
        ids = ", ".join(report.remaining[:SHOWN]) or "unknown"
        self.say(f"ORDERS MAY REST: {report.problem}. Order ids: {ids}")
        self.say("Try again, or cancel them on the exchange's site")
        return False


@asynccontextmanager
async def open_operator(
    settings: Settings, surroundings: Surroundings, say: Say
) -> AsyncGenerator[Operator, None]:
    """Raises `ConfigError`, `NoExchange`, or an `ExchangeError` when the exchange is not reached or refuses the key."""
    check_files(settings)
    async with open_for_people(settings, surroundings) as venue:
        limits = await first_contact(venue.exchange)
        yield Operator(
            settings=settings,
            exchange=venue.exchange,
            budget=WriteBudget(limits, surroundings.clock, 0.0),
            surroundings=surroundings,
            say=say,
        )


async def cancel_all(
    settings: Settings,
    surroundings: Surroundings,
    *,
    dry_run: bool = False,
    everything: bool = False,
    ask: Ask | None = None,
    say: Say = say_aloud,
) -> int:
    """Take every order of ours off, proven; with `everything` foreign ones too, once `ask` has brought the words.

    Returns the exit code: 0 proven (or shown, in a dry run), 2 orders may rest. Raises `ConfigError`.
    """
    try:
        async with open_operator(settings, surroundings, say) as operator:
            return await _cancel_all(operator, dry_run, everything, ask)
    except NoExchange as exc:
        say(str(exc))
        return ExitCode.CLEAN
    except ExchangeError as exc:
        say(f"ORDERS MAY REST: {exc}")
        return ExitCode.ORDERS_MAY_REST


async def _cancel_all(operator: Operator, dry_run: bool, everything: bool, ask: Ask | None) -> int:
    say = operator.say
    ours, foreign = await operator.resting()
    groups = await operator.open_groups()
    say(
        f"{len(ours)} orders of {operator.settings['BOT_NAME']} rest, in or beside {len(groups)} open order groups; "
        f"{len(foreign)} foreign orders"
    )
    for order in [*ours, *(foreign if everything else [])][:SHOWN]:
        say(f"  {order_line(order)}")
    if dry_run:
        say("dry run: nothing was cancelled")
        return ExitCode.CLEAN
    if everything and foreign and ask is not None:
        typed = await ask(f"{len(foreign)} orders that are not this bot's would go. Type: {CONFIRMATION}")
        if typed != CONFIRMATION:
            say("not confirmed: nothing was cancelled")
            return ExitCode.ORDERS_MAY_REST
    is_proven = await operator.take_off(groups)
    if everything:
        is_proven = await operator.take_off_everything() and is_proven
    elif foreign:
        say(f"{len(foreign)} foreign orders were left alone")
    operator.warn_of_bot()
    return ExitCode.CLEAN if is_proven else ExitCode.ORDERS_MAY_REST


def order_line(order: OrderReport) -> str:
    """One order in a list."""
    return (
        f"{order.ticker} {order.side.value} {format_count(order.remaining)} at {cents(order.price)} "
        f"({order.order_id}, {order.client_order_id or 'no client id'})"
    )

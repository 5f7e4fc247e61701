"""`mm status`: the ledger read beside its writer, one look at the exchange, nothing locked, nothing changed."""

import shutil
import sys
from collections.abc import Callable
from typing import Final

import orjson
import trio

from mm.domain.errors import LedgerError
from mm.domain.numbers import Micros
from mm.domain.tickers import eastern_midnight
from mm.exchange.paging import read_all
from mm.exchange.port import Exchange, ExchangeError, OrderStatus
from mm.ledger.lock import holder_of
from mm.ledger.reader import LedgerReader, open_reader
from mm.session.surroundings import Surroundings
from mm.session.venue import NoExchange, open_for_people
from mm.settings import Settings
from mm.tasks.killswitch import why_off
from mm.views.status import ExchangeView, LedgerView, Status, status_document, status_text, watch_text

WATCH_S: Final = 2.0
LOOK_S: Final = 8.0
"""An exchange that has not answered after this is told as such."""


async def show_status(settings: Settings, surroundings: Surroundings, *, watch: bool, as_json: bool) -> int:
    """Print one look, or looks until cancelled. Returns the exit code of the last one; see `Status.exit_code`."""
    while True:
        status = await look_at_status(settings, surroundings)
        if as_json:
            sys.stdout.write(orjson.dumps(status_document(status)).decode() + "\n")
        elif watch and sys.stdout.isatty():
            columns, lines = shutil.get_terminal_size()
            # Line by line over what stands there, then the rest cleared: nothing flickers.
            text = watch_text(status, columns, lines).replace("\n", "\x1b[K\n")
            sys.stdout.write(f"\x1b[H{text}\x1b[K\x1b[J")
        else:
            sys.stdout.write(status_text(status))
        sys.stdout.flush()
        if not watch:
            return status.exit_code
        await trio.sleep(WATCH_S)


async def look_at_status(settings: Settings, surroundings: Surroundings) -> Status:
    """One look. What cannot be asked is told in the status, not raised. Raises `ConfigError`."""
    exchange, account, problem = await _ask_exchange(settings, surroundings)
    now = surroundings.clock()

    def local() -> tuple[LedgerView | None, str, int | None, str]:
        ledger, ledger_problem = _read_ledger(settings, account, now)
        return ledger, ledger_problem, holder_of(settings.data_dir), why_off(settings.data_dir)

    ledger, ledger_problem, pid, kill_switch = await surroundings.runner(local)
    if not kill_switch and settings["DISABLE_NEW_QUOTES"]:
        kill_switch = "DISABLE_NEW_QUOTES is set"
    return Status(
        at=now,
        data_dir=str(settings.data_dir),
        pid=pid,
        kill_switch=kill_switch,
        ledger=ledger,
        ledger_problem=ledger_problem,
        exchange=exchange,
        exchange_problem=problem,
    )


async def _ask_exchange(
    settings: Settings, surroundings: Surroundings
) -> tuple[ExchangeView | None, str, str]:
    """(what it said, the account's name where it is known, why it said nothing)."""
    account, problem = "", f"no answer within {LOOK_S:g} s"
    with trio.move_on_after(LOOK_S):
        try:
            async with open_for_people(settings, surroundings) as venue:
                account = venue.exchange.account
                return await _look(venue.exchange, f"{settings['BOT_NAME']}-"), account, ""
        except (NoExchange, ExchangeError) as exc:
            problem = str(exc)
    return None, account, problem


async def _look(exchange: Exchange, prefix: str) -> ExchangeView:
    orders = await read_all(
        lambda cursor: exchange.orders_page(status=OrderStatus.RESTING, cursor=cursor), what="resting orders"
    )
    ours = [order for order in orders if (order.client_order_id or "").startswith(prefix)]
    return ExchangeView(
        balance=(await exchange.balance()).total,
        is_trading=(await exchange.status()).trading_active,
        orders=tuple(sorted(ours, key=lambda order: (order.ticker, order.side.value, order.price))),
        foreign_orders=len(orders) - len(ours),
        positions={p.ticker: p.position for p in await exchange.positions() if p.position},
    )


def _read_ledger(settings: Settings, account: str, now: Micros) -> tuple[LedgerView | None, str]:
    """What the ledger says about the account, or, where that is not known, about the last one that traded here."""
    try:
        with open_reader(settings.data_dir / "ledger.sqlite3") as reader:
            found = _account_in(reader, account)
            last = reader.sessions(found, limit=1)
            return LedgerView(
                account=found,
                last=last[0] if last else None,
                positions={t: row.net for t, row in reader.positions(found).items() if row.net},
                today=reader.totals(found, since=eastern_midnight(now)),
            ), ""
    except LedgerError as exc:
        return None, str(exc)


def _account_in(reader: LedgerReader, account: str) -> str:
    """The account of the newest session here: with the exchange's name for it live or on paper, where it has one."""
    name = account.rpartition("/")[0]
    candidates = [found for found in reader.accounts() if found.startswith(name)]
    newest: Callable[[str], Micros] = lambda found: max(  # noqa: E731 - a key
        (row.started_at for row in reader.sessions(found, limit=1)), default=Micros(0)
    )
    return max(candidates, key=newest, default=account)

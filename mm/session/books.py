"""The commands that look after the ledger: report, verify, archive, rebuild. Only `rebuild` talks to an exchange."""

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Final

import trio

from mm.domain.errors import ConfigError, LedgerError, MMError
from mm.domain.fill import Fill
from mm.domain.numbers import SECOND, Count, Micros, format_count
from mm.domain.tickers import format_time
from mm.exchange import endpoints
from mm.exchange.paging import pages, read_all
from mm.exchange.port import Exchange, OrderReport, Page, RateLimits, Settlement
from mm.ledger import Ledger, lock_data_folder, open_ledger
from mm.ledger.archive import DAY
from mm.ledger.backup import back_up, backups_in, restore, verify_whole
from mm.ledger.reader import open_reader
from mm.ledger.reads import FILLS_MARK
from mm.session.surroundings import live_surroundings, wall_clock
from mm.session.trading import first_contact
from mm.session.venue import check_files, open_venue
from mm.settings import Environment, Settings
from mm.tasks.budget import ReadBudget
from mm.tasks.settling import SETTLEMENTS_MARK, as_row
from mm.views.report import Span, build_report, choose_account
from mm.views.report_files import report_json, report_text, write_csv

LEDGER_NAME: Final = "ledger.sqlite3"


def print_report(
    path: Path, *, account: str | None, span: Span, csv_folder: Path | None, json_file: Path | None
) -> int:
    """`mm report`. Raises `LedgerError` for a ledger that cannot be trusted, `ConfigError` for what was asked."""
    with open_reader(path) as reader:
        report = build_report(reader, choose_account(reader, account), span)
        sys.stdout.write(report_text(report))
        try:
            if csv_folder is not None:
                for written in write_csv(csv_folder, report, reader):
                    sys.stdout.write(f"{written}\n")
            if json_file is not None:
                json_file.write_bytes(report_json(report))
                sys.stdout.write(f"{json_file}\n")
        except OSError as exc:
            raise ConfigError([f"cannot write {exc.filename}: {exc.strerror}"]) from None
    return 0


def verify(path: Path, expected_head: str | None) -> int:
    """`mm ledger verify`: the whole file, every seal and the chain; 0 when all is as it was written, else 1."""
    with open_reader(path, is_checked=False) as reader:
        found = reader.problems()
        if found:
            for problem in found:
                sys.stderr.write(f"mm: {path}: {problem}\n")
            sys.stderr.write("mm: `mm ledger rebuild` moves the file away and reads everything anew\n")
            return 1
        head = str(reader.chain_head())
        rows = {table: reader.count(table) for table in ("fills", "settlements", "orders", "archived")}
    if expected_head is not None and expected_head not in (head, *_heads(path)):
        sys.stderr.write(f"mm: {path}: the chain's head is {head}, {expected_head} is not in it\n")
        return 1
    counts = ", ".join(f"{count} {table}" for table, count in rows.items())
    sys.stdout.write(f"{path}: whole ({counts})\nhead of the chain: {head}\n")
    return 0


def _heads(path: Path) -> set[str]:
    """Every state that the chain has been in."""
    with open_reader(path, is_checked=False) as reader:
        return {str(head) for head in reader.chain()}


async def archive(settings: Settings, days: int) -> int:
    """`mm ledger archive`: by hand what a start does by itself when the file is large."""
    surroundings = live_surroundings()
    path = settings.data_dir / LEDGER_NAME
    with open_reader(path) as reader:
        accounts = reader.accounts()
    with lock_data_folder(settings.data_dir):
        for account in accounts:
            async with open_ledger(
                path, account=account, runner=surroundings.runner, clock=surroundings.clock
            ) as ledger:
                done = await ledger.archive(keep_settled=Micros(days * DAY))
            where = f"to {done.archive}" if done.archive is not None else "(nothing settled long enough ago)"
            sys.stdout.write(
                f"{account}: {done.markets} markets, {done.fills} fills {where}; {done.orders} done orders dropped;"
                f" {done.bytes_before} bytes before, {done.bytes_after} after\n"
            )
    return 0


async def backup(settings: Settings, folder: Path | None, keep: int) -> int:
    """`mm ledger backup`: a verified copy, beside a running bot or without one."""
    path = settings.data_dir / LEDGER_NAME
    target, dropped = await live_surroundings().runner(
        lambda: back_up(path, wall_clock(), folder=folder, keep=keep)
    )
    sys.stdout.write(f"{target}: whole ({target.stat().st_size} bytes)\n")
    for old in dropped:
        sys.stdout.write(f"dropped {old}\n")
    return 0


async def restore_backup(settings: Settings, file: Path | None) -> int:
    """`mm ledger restore`: the newest backup, or `file`, in place of the ledger, which is moved aside."""
    path = settings.data_dir / LEDGER_NAME
    if file is None:
        newest = max(backups_in(settings.data_dir), default=None)
        if newest is None:
            raise ConfigError([f"there is no backup under {settings.data_dir}: name one with --file"])
        file = newest.path
    if not file.is_file():
        raise ConfigError([f"--file {file}: there is no such file"])
    with lock_data_folder(settings.data_dir):
        verify_whole(file)  # before anything is moved
        moved = move_away(path, wall_clock(), "before-restore")
        restore(file, path)
    if moved is not None:
        sys.stdout.write(f"the old ledger is now {moved}\n")
    sys.stdout.write(
        f"{path} is {file} again; fills and settlements since then are read from the exchange at the next start\n"
    )
    return 0


async def rebuild(settings: Settings) -> int:
    """`mm ledger rebuild`: move the ledger away and read the account's fills and settlements anew. 0: positions agree."""
    if settings.environment is Environment.SIM and not settings.has_own_urls:
        raise ConfigError(
            [
                "KALSHI_ENV=sim: each start of the embedded exchange is a new account, there is no history to read. "
                f"Move {settings.data_dir / LEDGER_NAME} away by hand"
            ]
        )
    check_files(settings)
    surroundings = live_surroundings()
    with lock_data_folder(settings.data_dir):
        async with open_venue(settings, surroundings, force_paper=False) as venue:
            if venue.is_paper:
                raise ConfigError(
                    ["LIVE_TRADING_ENABLED is off: a paper account has no history at the exchange"]
                )
            limits = await first_contact(venue.exchange)
            path = settings.data_dir / LEDGER_NAME
            moved = move_away(path, wall_clock())
            if moved is not None:
                sys.stdout.write(f"the old ledger is now {moved}\n")
            async with open_ledger(
                path,
                account=venue.exchange.account,
                runner=surroundings.runner,
                clock=surroundings.clock,
                session="rebuild",
            ) as ledger:
                return await _read_anew(venue.exchange, ledger, limits, f"{settings['BOT_NAME']}-")


def move_away(path: Path, now: Micros, why: str = "damaged") -> Path | None:
    """Rename the ledger and its log files; None when there was none. Raises `LedgerError`."""
    stamp = format_time(Micros(now // SECOND * SECOND), trim=True).replace(":", "")
    target = path.with_name(f"{path.stem}-{why}-{stamp}{path.suffix}")
    moved = False
    try:
        for suffix in ("", "-wal", "-shm"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                source.rename(target.with_name(target.name + suffix))
                moved = True
    except OSError as exc:
        raise LedgerError(f"cannot move {path} away: {exc.strerror}") from exc
    return target if moved else None


async def _read_anew(exchange: Exchange, ledger: Ledger, limits: RateLimits, prefix: str) -> int:
    reads = ReadBudget(limits, wall_clock)

    async def fills_page(cursor: str | None) -> Page[Fill]:
        await reads.take(limits.cost(*endpoints.FILLS))
        return await exchange.fills_page(cursor=cursor)

    async def settlements_page(cursor: str | None) -> Page[Settlement]:
        await reads.take(limits.cost(*endpoints.SETTLEMENTS))
        return await exchange.settlements_page(cursor=cursor)

    ledger.record_session_start()
    count, newest = 0, Micros(0)
    async with aclosing(pages(fills_page, what="fills")) as listing:
        async for page in listing:
            # The mark comes last: a rebuild that is cut off is begun again by the bot's first pass.
            count += len(await ledger.record_fills(page))
            newest = max([newest, *(fill.ts for fill in page)])
    settled = await read_all(settlements_page, what="settlements")
    for row in sorted(settled, key=lambda row: row.settled_at):
        ledger.record_settlement(as_row(row))
    if count:
        ledger.record_mark(FILLS_MARK, newest)
    if settled:
        ledger.record_mark(SETTLEMENTS_MARK, max(row.settled_at for row in settled))
    sys.stdout.write(f"{count} fills and {len(settled)} settlements read\n")
    await _name_fills(exchange, ledger, reads, prefix)
    code = await _compare(exchange, ledger)
    ledger.record_session_end(reason="rebuild", exit_code=code)
    return code


async def _name_fills(exchange: Exchange, ledger: Ledger, reads: ReadBudget, prefix: str) -> None:
    """Whose the fills are: by the client ids of the account's orders."""

    async def orders_page(cursor: str | None) -> Page[OrderReport]:
        await reads.take(reads.limits.cost(*endpoints.ORDERS))
        return await exchange.orders_page(cursor=cursor)

    ours = 0
    async with aclosing(pages(orders_page, what="orders")) as listing:
        async for page in listing:
            for report in page:
                if report.client_order_id is not None and report.client_order_id.startswith(prefix):
                    ours += 1
                    ledger.record_order_name(report.order_id, report.client_order_id)
                elif report.filled:
                    ledger.record_foreign_order(report.order_id)
            await ledger.flush()
    sys.stdout.write(f"{ours} orders are ours\n")


async def _compare(exchange: Exchange, ledger: Ledger) -> int:
    """Positions of both sides as a table; 0 when they are equal. Reads lag, so a difference is looked at again."""
    for attempt in range(5):
        if attempt:
            await trio.sleep(1.0)
        theirs = {p.ticker: p.position for p in await exchange.positions() if p.position}
        ours = {ticker: row.net for ticker, row in (await ledger.positions()).items() if row.net}
        if ours == theirs:
            break
    for ticker in sorted(ours.keys() | theirs.keys()):
        mine, venue = ours.get(ticker), theirs.get(ticker)
        same = "" if mine == venue else "  DIFFERENT"
        sys.stdout.write(f"{ticker:40} {_count(mine):>12} {_count(venue):>12}{same}\n")
    if ours != theirs:
        raise MMError("positions of the rebuilt ledger (left) are not the exchange's (right)")
    sys.stdout.write("positions equal the exchange's\n")
    return 0


def _count(value: int | None) -> str:
    return format_count(Count(value or 0))

"""Parse, choose, exit code. Heavy modules are imported by the command that needs them."""

import datetime as dt
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter

import mm
from mm.domain.errors import ConfigError, MMError
from mm.research.app import attribution, backtest, convert, evaluate, strategies_table, sweep

app = App(
    name="mm",
    help="A market maker for Kalshi: every market at once, exact books, no order left behind.",
    version=mm.__version__,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
)


def run_cli(argv: list[str]) -> int:
    """Run one command and return the process's exit code. Problems go to stderr, without a traceback."""
    try:
        result = app(argv)
    except cyclopts.CycloptsError as exc:
        print(f"mm: {exc}", file=sys.stderr)
        print("See `mm --help`.", file=sys.stderr)
        return 1
    except ConfigError as exc:
        for problem in exc.problems:
            print(f"mm: {problem}", file=sys.stderr)
        return 1
    except MMError as exc:
        print(f"mm: {exc}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return result if isinstance(result, int) else 0


def _run_beside(what: str, code: int, main: Callable[..., Awaitable[int]], *args: object) -> int:
    """Run a command beside the bot. Ctrl-C ends it with `code` and without a traceback."""
    import trio

    try:
        return trio.run(main, *args)
    except* KeyboardInterrupt:
        print(f"mm: interrupted{what}", file=sys.stderr)
    return code


@app.command
def run(
    *,
    paper: Annotated[bool, Parameter(negative="")] = False,
    minutes: float | None = None,
    summary: Path | None = None,
) -> int:
    """Run the bot until Ctrl-C: quote the day's markets, keep the books, leave no order behind.

    Args:
        paper: Orders stay in this process, whatever the settings say.
        minutes: End by itself after so many minutes, like Ctrl-C.
        summary: Write a JSON summary of the run to this file.
    """
    import trio

    from mm.session import RunOptions
    from mm.session.front import run_bot
    from mm.settings import load_settings

    if minutes is not None and minutes <= 0:
        raise ConfigError([f"--minutes {minutes:g}: must be above 0"])
    options = RunOptions(
        force_paper=paper,
        minutes=minutes,
        summary_path=summary.resolve() if summary is not None else None,
    )
    return trio.run(run_bot, load_settings(), options)


@app.command
def discover() -> int:
    """Print the markets that would be quoted now, and why the rest would not."""
    import trio

    from mm.session.front import print_discovery
    from mm.settings import load_settings

    return trio.run(print_discovery, load_settings())


@app.command
def cancel_all(
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    everything: Annotated[bool, Parameter(negative="")] = False,
    yes_cancel_foreign_orders: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Take every order of this bot off the exchange, and prove it. Works with and without a running bot.

    Args:
        dry_run: Only show what rests.
        everything: Foreign orders of the account too; asks first.
        yes_cancel_foreign_orders: The answer to that question, for scripts.
    """
    from mm.session.beside import run_cancel_all
    from mm.settings import load_settings

    needs_word = everything and not yes_cancel_foreign_orders and not dry_run
    if needs_word and not sys.stdin.isatty():
        raise ConfigError(
            [
                "--everything cancels foreign orders and asks first: give --yes-cancel-foreign-orders without a terminal"
            ]
        )
    return _run_beside(
        ": orders may rest", 2, run_cancel_all, load_settings(), dry_run, everything, needs_word
    )


@app.command
def flatten(
    *tickers: str,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    beside_bot: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Close positions within FLATTEN_MAX_SLIPPAGE_CENTS of the touch, until the exchange says flat.

    Args:
        tickers: These markets; without any, all of SERIES_TICKER and of the ledger.
        dry_run: Only show what would be sent.
        beside_bot: Also while a bot runs on the data folder.
    """
    from mm.session.beside import run_flatten
    from mm.settings import load_settings

    return _run_beside(": not flat", 1, run_flatten, load_settings(), tickers, dry_run, beside_bot)


@app.command
def status(
    *,
    watch: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the bot, its positions, resting orders and today's fills, whether it runs or not. Changes nothing.

    Args:
        watch: Again every two seconds, until Ctrl-C.
        json: As JSON, a document a look.
    """
    from mm.session.beside import run_status
    from mm.settings import load_settings

    return _run_beside("", 0, run_status, load_settings(), watch, json)


@app.command
def guard() -> int:
    """Started by `mm run`, of no use by hand: takes the bot's orders off when the bot dies or freezes."""
    from mm.guard.__main__ import guard as stand_guard

    return stand_guard()


@app.command
def doctor(
    *,
    live_readiness: Annotated[bool, Parameter(negative="")] = False,
    test_alerts: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Check everything that trading depends on, each line ok, warn or fail with what to do. Places nothing.

    Args:
        live_readiness: The checklist before real money instead, read from the ledger and the data folder.
        test_alerts: Also send one test message by every configured way to people.
        json: As one JSON document.
    """
    from mm.session.doctor import run_doctor
    from mm.session.surroundings import live_surroundings
    from mm.settings import load_settings

    async def look() -> int:
        return await run_doctor(
            load_settings,
            live_surroundings(),
            as_json=json,
            test_alerts=test_alerts,
            live_readiness=live_readiness,
        )

    return _run_beside("", 1, look)


@app.command
def exchange(
    *,
    port: int = 0,
    seed: int | None = None,
    speed: float | None = None,
    games: int = 16,
    markets: int | None = None,
    wide: Annotated[bool, Parameter(negative="")] = False,
    replay: Path | None = None,
    infer_trades: Annotated[bool, Parameter(negative="")] = False,
    settle: Annotated[bool, Parameter(negative="")] = False,
    shards: int = 1,
    fee_flips: Annotated[bool, Parameter(negative="")] = False,
    archive_after: float | None = None,
    faults: str = "",
    tier: str = "basic",
    balance: str = "10000",
    ready_file: Path | None = None,
    exit_with_fd: Annotated[int | None, Parameter(show=False)] = None,
) -> int:
    """Run the embedded exchange: a twin of Kalshi on loopback, with generated games or a recording.

    Args:
        port: Where to listen on 127.0.0.1; 0 takes a free port.
        seed: Which games are played; without it a fresh one.
        speed: Game clocks and traders run this much faster than life: 10, a recording 1, unless given.
        games: How many games.
        markets: How many markets in all, for breadth; without it two a game.
        wide: --markets markets (84000 without) of many series instead of games: as wide as the venue, and as dead.
        replay: Serve the books of this recording instead of a generated slate.
        infer_trades: In a recording without trades, take a best level that shrinks as traded.
        settle: Markets of a recording that close end as their last book said, and settle.
        shards: Spread the games, and the balance, over so many shards of the exchange.
        fee_flips: The games' series pays half fees, and each event the whole from puck drop on.
        archive_after: Seconds after which what is over is found in the archive only; never, unless given.
        faults: What goes wrong on purpose, see docs/exchange.md.
        tier: The account's rate limits: basic, advanced, expert, premier, paragon, prime, prestige.
        balance: Dollars on the account.
        ready_file: Write the ready line here as well.
        exit_with_fd: End when this inherited descriptor is closed by its last holder.
    """
    import trio

    from mm.exchange.embedded.server.app import ExchangeOptions, run_exchange

    return trio.run(
        run_exchange,
        ExchangeOptions(
            port=port,
            seed=seed,
            speed=speed,
            games=games,
            markets=markets,
            wide=wide,
            replay=replay,
            infer_trades=infer_trades,
            settle=settle,
            shards=shards,
            fee_flips=fee_flips,
            archive_after_s=archive_after,
            faults=faults,
            tier=tier,
            balance=balance,
            ready_file=ready_file,
            exit_with_fd=exit_with_fd,
        ),
    )


@app.command
def record(*, out: Path | None = None, minutes: float | None = None) -> int:
    """Record every frame of the day's markets until Ctrl-C, for replay and back-tests. Places nothing.

    Args:
        out: The folder for recordings; without it MM_DATA_DIR/recordings.
        minutes: End by itself after so many minutes.
    """
    import trio

    from mm.session.recording import record as run_recorder
    from mm.settings import load_settings

    if minutes is not None and minutes <= 0:
        raise ConfigError([f"--minutes {minutes:g}: must be above 0"])

    async def run() -> int:
        return await run_recorder(load_settings(), out=out, minutes=minutes)

    return trio.run(run)


@app.command
def replay(
    journal: Path,
    *,
    market: str | None = None,
    set: list[str] | None = None,  # noqa: A002 - the option's name
    trust: list[str] | None = None,
    json: Path | None = None,
) -> int:
    """Make the decisions of an incident bundle or a recorded session again, and show the first that is not the same.

    Exit code 0: all the same; 3: something differs; 1: damaged, or nothing to play.

    Args:
        journal: A bundle (MM_DATA_DIR/incidents/...), a recorded session (MM_DATA_DIR/recordings/...), or one of its files.
        market: Only this market.
        set: NAME=VALUE, a parameter of the strategy instead of the recorded one; may be repeated.
        trust: A module of yours that the journal may name, where a strategy of your own was running; may be repeated.
        json: Write the result to this file.
    """
    from mm.session.replaying import replay as replay_journal

    return replay_journal(journal, market=market, sets=set or [], trust=trust or [], json=json)


app.command(backtest)
app.command(convert)
app.command(sweep)
app.command(evaluate)
app.command(attribution)
app.command(strategies_table)


@app.command
def simulate(
    *,
    seeds: str = "1-20",
    full: Annotated[bool, Parameter(negative="")] = False,
    jobs: int | None = None,
    minutes: float | None = None,
    trace: Path | None = None,
    json: Path | None = None,
    twice: int = 0,
    shrink: bool = True,
    era: int | None = None,
    kept: Annotated[bool, Parameter(negative="")] = False,
    crash_everywhere: str | None = None,
    every: int = 1,
    offset: int = 0,
    point: str = "",
) -> int:
    """Play whole lives of the bot on a virtual clock, with faults and crashes, and check every invariant.

    Args:
        seeds: A-B, or one number.
        full: Long lives: more games, faults and crashes.
        jobs: Processes; without it one a core. The results do not depend on it.
        minutes: Start no more seeds after so long.
        trace: Write the whole trace of the seeds to this file.
        json: Write the results to this file; an unfinished one of the same code is gone on from.
        twice: Run the first so many seeds a second time and compare the traces' hashes.
        shrink: Find the fewest faults that still make a failing seed fail.
        era: 1 plays the worlds as they were before guardians were part of them; docs/simulation.md names such seeds.
        kept: Only the seeds that once found something; they must hold.
        crash_everywhere: A seed, or A-B: kill the bot at every step and every commit of that life, one world for each.
        every: With --crash-everywhere: only every K-th step (and all commits).
        offset: With --every: begin with step N + 1.
        point: With --crash-everywhere: only this point (s17, c4), in this process; for --trace.
    """
    from mm.simulation.command import simulate as run_simulation

    return run_simulation(
        seeds=seeds,
        full=full,
        jobs=jobs,
        minutes=minutes,
        trace=trace,
        json=json,
        twice=twice,
        shrink=shrink,
        era=era,
        kept=kept,
        crash_everywhere=crash_everywhere,
        every=every,
        offset=offset,
        point=point,
    )


@app.command
def report(
    *,
    since: dt.date | None = None,
    until: dt.date | None = None,
    account: str | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    ledger: Path | None = None,
) -> int:
    """Print the result per market, game and day: realized, settlement, fees, net, unrealized.

    Args:
        since: First day (US Eastern).
        until: Last day.
        account: Which one, or a part of its name; without it the one that traded last.
        csv: Write the tables and the three logs (fills, realizations, triggers) into this folder.
        json: Write the report to this file.
        ledger: Read this file, an archive for instance, instead of the data folder's.
    """
    from mm.session.books import LEDGER_NAME, print_report
    from mm.settings import load_settings
    from mm.views.report import Span

    if since is not None and until is not None and since > until:
        raise ConfigError([f"--since {since}: is after --until {until}"])
    path = load_settings().data_dir / LEDGER_NAME if ledger is None else ledger
    return print_report(
        path, account=account, span=Span(since=since, until=until), csv_folder=csv, json_file=json
    )


ledger_app = App(name="ledger", help="Look after the ledger: verify, backup, restore, archive, rebuild.")
app.command(ledger_app)


@ledger_app.command
def verify(*, ledger: Path | None = None, head: str | None = None) -> int:
    """Check every row's seal and the chain over the money rows; exit code 1 when anything is not as it was written.

    Args:
        ledger: This file instead of the data folder's.
        head: A head of the chain from an earlier run's log: must be in the chain.
    """
    from mm.session.books import LEDGER_NAME
    from mm.session.books import verify as check
    from mm.settings import load_settings

    return check(load_settings().data_dir / LEDGER_NAME if ledger is None else ledger, head)


@ledger_app.command
def archive(*, days: int = 7) -> int:
    """Move markets settled long ago to an archive and drop done orders, as a start does when the file is large.

    Args:
        days: How long ago they must have been settled.
    """
    import trio

    from mm.session.books import archive as archive_now
    from mm.settings import load_settings

    if days < 1:
        raise ConfigError([f"--days {days}: at least 1, as late fills may come"])
    return trio.run(archive_now, load_settings(), days)


@ledger_app.command
def backup(*, to: Path | None = None, keep: int = 14) -> int:
    """Copy the ledger and verify the copy, beside a running bot or without one.

    Args:
        to: The folder; without it MM_DATA_DIR/backups.
        keep: So many of the newest backups stay in that folder.
    """
    import trio

    from mm.session.books import backup as backup_now
    from mm.settings import load_settings

    if keep < 1:
        raise ConfigError([f"--keep {keep}: at least 1"])
    return trio.run(backup_now, load_settings(), to, keep)


@ledger_app.command
def restore(*, file: Path | None = None) -> int:
    """Put a backup in place of the ledger, which is moved aside. The bot must not run.

    Args:
        file: This backup; without it the newest under MM_DATA_DIR/backups.
    """
    import trio

    from mm.session.books import restore_backup
    from mm.settings import load_settings

    return trio.run(restore_backup, load_settings(), file)


@ledger_app.command
def rebuild() -> int:
    """Move the ledger away and read the account's fills and settlements anew from the exchange."""
    import trio

    from mm.session.books import rebuild as rebuild_now
    from mm.settings import load_settings

    return trio.run(rebuild_now, load_settings())

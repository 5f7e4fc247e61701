"""The research commands as the command line shows them. What they need is imported when they run."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mm.domain.errors import ConfigError

Model = Literal["queue", "touch", "through", "queue-share"]


def backtest(
    *recordings: str,
    trades: list[str] | None = None,
    profile: Literal["reference", "legacy"] = "reference",
    result: str | None = None,
    set: list[str] | None = None,  # noqa: A002 - the option's name
    strategy: list[str] | None = None,
    fill_model: Model | None = None,
    json: Path | None = None,
    html: Path | None = None,
    feed_ms: float = 20.0,
    order_ms: float = 30.0,
    jitter_ms: float = 0.0,
    trade_share: float | None = None,
    seed: int = 1,
    bounds: bool = True,
) -> int:
    """Run the strategy over recordings, or over public trades as the old bot's back-test did.

    With recordings (or another fill model than queue-share) the live engine runs over them, all markets on one clock.
    `--trades` alone with queue-share is the reference back-test: no latency, no book.

    Args:
        recordings: Files of any known format, plain or gzip, sessions of `mm record`, or what `mm convert` made of them,
            also on an object store (s3://...); see docs/research.md.
        trades: A CSV of prints, plain or gzip; may be repeated.
        profile: Of the reference back-test. reference: as it trades; legacy: as the old back-test filled it.
        result: How the market ended: yes, no, or a price; without it recorded, or taken from the last price.
        set: NAME=VALUE, a parameter instead of the default; may be repeated.
        strategy: [LABEL=]NAME[:PARAMETER=VALUE,...], instead of the default strategy. Repeated: side by side, the first is
            the one that is reported in full.
        fill_model: How quotes are filled: queue for recordings, queue-share for trades alone, unless given.
        json: Write the whole result here.
        html: Write a page with curves and tables here (recordings).
        feed_ms: How long the exchange's deeds take to reach us.
        order_ms: How long our orders take to reach the exchange.
        jitter_ms: Up to so much more for each order.
        trade_share: Where no prints were recorded: of what shrinks at the touch, how much was traded.
        seed: Of the fill model's and the latency's chance.
        bounds: Run touch and through beside queue.
    """
    trades = trades or []
    if not recordings and not strategy and fill_model in (None, "queue-share") and html is None:
        from mm.tasks.backtest import run_backtest

        return run_backtest(
            [Path(path) for path in trades],
            profile=profile,
            result=result,
            sets=set or [],
            fill_model="queue-share",
            out=json,
        )
    from mm.research.command import Request, quiet, run_recordings

    if profile != "reference":
        raise ConfigError([f"--profile {profile} goes with --trades and --fill-model queue-share alone"])
    request = Request(
        recordings=[*recordings, *trades],
        fill_model=fill_model or "queue",
        result=result,
        sets=set or [],
        strategies=strategy or [],
        feed_ms=feed_ms,
        order_ms=order_ms,
        jitter_ms=jitter_ms,
        trade_share=trade_share,
        seed=seed,
        bounds=bounds,
        json_out=json,
        html_out=html,
    )
    quiet()
    return run_recordings(request)


def convert(*recordings: str, out: Annotated[str, Parameter(name=["--out", "-o"])]) -> int:
    """Turn recordings into columns (Parquet), which are read about ten times as fast. Needs `mm[research]`.

    Args:
        recordings: Files of any known format, plain or gzip, or sessions of `mm record`.
        out: A folder, also on an object store (s3://...). Each recording becomes one file there, whole or not at all.
    """
    from mm.research.convert import convert as run_convert

    return run_convert(recordings, out)


def sweep(
    *recordings: str,
    out: Annotated[str, Parameter(name=["--out", "-o"])],
    vary: list[str],
    random: int | None = None,
    strategy: str = "hybrid",
    set: list[str] | None = None,  # noqa: A002 - the option's name
    fill_model: Model = "queue",
    feed_ms: float = 20.0,
    order_ms: float = 30.0,
    jitter_ms: float = 0.0,
    trade_share: float | None = None,
    seed: int = 1,
    blocks: int = 5,
    tried: int = 0,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Run many parameter sets over recordings, and say what is left of the best. Needs `mm[research]`.

    Killed at any moment, the same command goes on with what is missing. The table is the same whoever did the work.

    Args:
        recordings: As for `mm backtest`; each is run by itself. Converted ones (`mm convert`) are read fastest; workers on
            other machines need addresses that they can read (s3://...).
        out: A folder, also on an object store: the plan, what is done, table.csv and report.html.
        vary: NAME=V1,V2,... or, with --random, NAME=LOW..HIGH; repeated for each parameter.
        random: So many different sets at random instead of every combination.
        strategy: Its name; parameters in lower case are its own.
        set: NAME=VALUE for all sets; may be repeated.
        fill_model: How quotes are filled.
        feed_ms: How long the exchange's deeds take to reach us.
        order_ms: How long our orders take to reach the exchange.
        jitter_ms: Up to so much more for each order.
        trade_share: Where no prints were recorded: of what shrinks at the touch, how much was traded.
        seed: Of every chance.
        blocks: Parts of the days for walking forward: the best of all days before a part is judged on that part.
        tried: Trials made before on these recordings; the correction for the number of trials counts them too.
        jobs: Worker processes here; all cores unless given, 1: none but this process.
        scheduler: tcp://... of a Dask cluster whose workers have mm[research] installed.
    """
    from mm.research.sweep import SweepRequest, run_sweep

    return run_sweep(
        SweepRequest(
            recordings=recordings,
            out=out,
            vary=vary,
            draws=random,
            strategy=strategy,
            sets=set or [],
            fill_model=fill_model,
            feed_ms=feed_ms,
            order_ms=order_ms,
            jitter_ms=jitter_ms,
            trade_share=trade_share,
            seed=seed,
            blocks=blocks,
            tried=tried,
            jobs=jobs,
            scheduler=scheduler,
        )
    )


def evaluate(
    strategy: str,
    *,
    trades: list[Path] | None = None,
    set: list[str] | None = None,  # noqa: A002 - the option's name
) -> int:
    """Put a strategy through gates 0 and 1 on recorded prints; exit code 0: both passed, 3: one failed.

    Gate 0 asks whether the back-test is honest with it, gate 1 whether it does better on old prints than the inherited
    rules. The result is kept under MM_DATA_DIR/evaluations; `mm report` shows it beside the live figures.

    Args:
        strategy: hybrid, slow-wide-small, avellaneda-stoikov, join, or a class of your own (docs/strategies.md).
        trades: CSV files of prints, plain or gzip, instead of those under MM_RECORDINGS.
        set: NAME=VALUE, a parameter of the strategy or of the trading rules; may be repeated.
    """
    from mm.research.command import quiet
    from mm.research.evaluate import run_evaluate

    quiet()

    return run_evaluate(strategy, trades=trades or [], sets=set or [])


def attribution() -> int:
    """What the bot's fills were worth 1 s, 5 s, 30 s and 5 minutes later and at settlement, and what its back-test said.

    By strategy, side, regime, place in the queue and market, from MM_DATA_DIR/attribution.jsonl, which the bot writes.
    """
    from mm.research.attribution import run_attribution

    return run_attribution()


def strategies_table(
    *,
    out: Path = Path("build/arena.jsonl"),
    nights: int = 25,
    jobs: int = 2,
    variants: str = "hybrid,hybrid+guard,slow-wide-small,avellaneda-stoikov,join",
    play: bool = True,
    page: Path | None = None,
) -> int:
    """Play strategies against the embedded exchange's games on the same seeds, and print the table.

    Nights that are in the file already are not played again, so an interrupted run goes on where it was.

    Args:
        out: One line of JSON for each night and variant.
        nights: Eight games each, half an hour around one of their goals.
        jobs: Processes.
        variants: Strategies, comma separated; with +guard the goal guard is on, with @late makers learn of goals last.
        play: Play what is missing; --no-play only prints the table of what is there.
        page: Write the table into this page too, between its marks.
    """
    from mm.research.arena.run import read_done, run_nights
    from mm.research.arena.table import into_page, table

    names = [name.strip() for name in variants.split(",") if name.strip()]
    entries = run_nights(names, nights, out, jobs=jobs) if play else read_done(out)
    found = table(entries, names)
    sys.stdout.write(found + "\n")
    if page is not None:
        page.write_text(into_page(page.read_text(), found))
    return 0

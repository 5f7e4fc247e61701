"""`mm replay`: a journal of decisions made again, and the first difference where one is. Changes nothing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

import mm
from mm.domain.errors import ConfigError
from mm.domain.numbers import SECOND, Micros
from mm.domain.order import MarketTicker
from mm.domain.tickers import format_time
from mm.engine.decisions.codec import Unpacker
from mm.engine.decisions.player import BadEntry, Difference, Player
from mm.engine.parameters import PARAMETERS, StrategyParameters, build_parameters
from mm.tasks.decision_files import DamagedJournal, JournalFiles, find_journal

SAME: Final = 0
UNREADABLE: Final = 1
DIFFERENT: Final = 3
SHOWN_CAUSES: Final = 5
SHOWN_MARKETS: Final = 20


@attrs.define(kw_only=True)
class _Replay:
    files: JournalFiles
    player: Player
    damage: str = ""

    def run(self) -> None:
        """Play everything, up to a damaged place if there is one."""
        place = str(self.files.folder)
        try:
            for path, number, entry in self.files.entries():
                place = f"{path}, line {number}"
                self.player.play(entry)
        except DamagedJournal as exc:
            self.damage = str(exc)
        except BadEntry as exc:
            self.damage = f"{place}: {exc}"

    @property
    def code(self) -> int:
        """The exit code."""
        if self.player.differences:
            return DIFFERENT
        return UNREADABLE if self.damage or not self.player.decisions else SAME


def replay(
    path: Path, *, market: str | None, sets: Sequence[str], trust: Sequence[str], json: Path | None
) -> int:
    """Replay the journal at `path`; what came of it goes to stdout.

    Args:
        market: Only this one.
        sets: NAME=VALUE, parameters of the strategy instead of the recorded ones.
        trust: Modules beside the engine that a journal may name: strategies of one's own.
        json: Write the result there too.

    Returns:
        0: every decision is the same. 1: damaged, or nothing in it. 3: something differs.

    Raises:
        ConfigError: A parameter that does not exist or a bad value.
        DamagedJournal: There is no journal, or a segment is missing or cut.
    """
    player = Player(
        change=_change(sets),
        only=MarketTicker(market) if market is not None else None,
        unpack=Unpacker(frozenset(trust)),
    )
    found = _Replay(files=find_journal(path), player=player)
    found.run()
    _print(found, sets)
    if json is not None:
        json.write_bytes(orjson.dumps(_as_json(found), option=orjson.OPT_INDENT_2) + b"\n")
    return found.code


def _change(sets: Sequence[str]) -> Any:
    """A function that sets these parameters. Raises `ConfigError` for each that is wrong."""
    texts: dict[str, str] = {}
    for text in sets:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise ConfigError([f"--set {text}: NAME=VALUE, NAME a parameter of the strategy"])
        texts[name.strip().upper()] = value.strip()
    built = build_parameters(texts)
    attributes = [row.attribute for row in PARAMETERS if row.name in texts]
    changes = {name: getattr(built, name) for name in attributes}

    def change(parameters: StrategyParameters) -> StrategyParameters:
        return attrs.evolve(parameters, **changes)

    return change


def _print(found: _Replay, sets: Sequence[str]) -> None:
    files, player = found.files, found.player
    out = sys.stdout.write
    if files.manifest is not None:
        causes = files.manifest.get("causes", [])
        out(f"incident bundle {files.folder.name}, session {files.manifest.get('session') or 'unknown'}\n")
        for cause in causes[:SHOWN_CAUSES]:
            out(f"  {cause.get('at')} {cause.get('severity')}: {cause.get('text')}\n")
        if len(causes) > SHOWN_CAUSES:
            out(f"  and {len(causes) - SHOWN_CAUSES} more, see {files.folder / 'manifest.json'}\n")
    written = sorted({str(header.get("mm")) for header in files.headers})
    if written and written != [mm.__version__]:
        out(f"written by mm {', '.join(written)}, replayed by {mm.__version__}\n")
    if sets:
        out(f"with other parameters: {', '.join(sets)}\n")
    out(
        f"{player.decisions} decisions ({player.commands} commands) of {len(player.tickers)} markets, "
        f"{_span(player)}, {player.checkpoints} states compared\n"
    )
    if player.frames or player.calls:
        out(f"beside them {player.frames} raw frames and {player.calls} calls to the exchange, for reading\n")
    for text in _remarks(found):
        out(f"note: {text}\n")
    if found.damage:
        sys.stderr.write(f"mm: damaged: {found.damage}\n")
    if not player.differences:
        out(_verdict(found) + "\n")
        return
    first = min(player.differences, key=lambda d: (d.at, d.ticker))
    out("NOT the same. The first difference:\n" + shown(first))
    others = [d for d in sorted(player.differences, key=lambda d: (d.at, d.ticker)) if d is not first]
    for other in others[:SHOWN_MARKETS]:
        out(f"  then {other.ticker} at {format_time(other.at)}: {other.field}\n")
    if len(others) > SHOWN_MARKETS:
        out(f"  and {len(others) - SHOWN_MARKETS} more markets\n")


def _verdict(found: _Replay) -> str:
    if not found.player.decisions:
        return "no decisions in it"
    return "the same as far as it can be read" if found.damage else "the same decisions, every one"


def _remarks(found: _Replay) -> list[str]:
    player = found.player
    remarks = [found.files.note] if found.files.note else []
    if player.lost:
        remarks.append(
            f"{player.lost} entries are missing: the disk was too slow; markets go on from a checkpoint"
        )
    early = (found.files.manifest or {}).get("journal_ended_early")
    if early:
        remarks.append(f"the journal had ended before: {early}")
    return remarks


def _span(player: Player) -> str:
    if player.first_at is None:
        return "no time"
    seconds = (player.last_at - player.first_at) / SECOND
    return f"{format_time(player.first_at)} to {format_time(player.last_at)} ({seconds:.0f} s)"


def shown(difference: Difference) -> str:
    """A difference in lines, for people."""
    return (
        f"  market    {difference.ticker}\n"
        f"  time      {format_time(difference.at)} ({difference.at})\n"
        f"  field     {difference.field}\n"
        f"  recorded  {_value(difference.recorded)}\n"
        f"  replayed  {_value(difference.replayed)}\n"
        f"  before it {difference.same_before} decisions of this market were the same\n"
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _as_json(found: _Replay) -> dict[str, Any]:
    player = found.player
    return {
        "decisions": player.decisions,
        "commands": player.commands,
        "markets": sorted(player.tickers),
        "from": _time(player.first_at),
        "to": _time(player.last_at or None),
        "states_compared": player.checkpoints,
        "entries_missing": player.lost,
        "frames": player.frames,
        "calls": player.calls,
        "damage": found.damage,
        "notes": _remarks(found),
        "differences": [
            {**attrs.asdict(d), "at": format_time(d.at)}
            for d in sorted(player.differences, key=lambda d: (d.at, d.ticker))
        ],
        "exit_code": found.code,
    }


def _time(at: Micros | None) -> str | None:
    return None if at is None else format_time(at)

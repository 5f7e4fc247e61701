"""What a run came to: the JSON summary and the exit code."""

import enum
import os
from pathlib import Path

import attrs
import orjson

from mm.domain.numbers import Count, Money, format_count, format_money


class ExitCode(enum.IntEnum):
    """The process's word on how it ended."""

    CLEAN = 0
    """Stopped, nothing rests."""
    FAILED = 1
    """Failed, nothing rests."""
    ORDERS_MAY_REST = 2


@attrs.define(kw_only=True)
class Summary:
    """Figures of this run. Money in `Money`, counts in `Count`."""

    exit_code: ExitCode = ExitCode.CLEAN
    reason: str = ""
    markets: int = 0
    """Markets quoted at some time."""
    orders_placed: int = 0
    orders_cancelled: int = 0
    orders_resting_at_exit: int | None = 0
    """None: could not be found out."""
    fills: int = 0
    contracts: Count = Count(0)
    realized_pnl: Money = Money(0)
    """Net of fees."""
    fees: Money = Money(0)
    is_swept: bool = False
    """A sweep at the end has looked at the exchange, whatever it found. Not part of the document."""
    positions_match: bool | None = None
    """Our positions equal the exchange's; None when the run ended before a comparison was possible."""

    def as_json(self) -> dict[str, object]:
        """The document of `--summary`."""
        return {
            "exit_code": int(self.exit_code),
            "reason": self.reason,
            "markets": self.markets,
            "orders_placed": self.orders_placed,
            "orders_cancelled": self.orders_cancelled,
            "orders_resting_at_exit": self.orders_resting_at_exit,
            "fills": self.fills,
            "contracts": format_count(self.contracts),
            "realized_pnl": format_money(self.realized_pnl),
            "fees": format_money(self.fees),
            "positions_match": self.positions_match,
        }

    def write(self, path: Path) -> None:
        """Write the document, whole or not at all. Raises `OSError`."""
        part = path.with_name(path.name + ".part")
        part.write_bytes(orjson.dumps(self.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
        os.replace(part, path)
